#include "db/identity.h"

#include "db/run.h"

enum { IDENTITY_BY_REF, STATEMENTS };

static const struct db_statement SQL[STATEMENTS] = {
	[IDENTITY_BY_REF] = { /* certificate_pkey, one partition; device_pkey; principal_pkey */
		.name = "identity_by_ref", .params = 3, .columns = 9, .rows = ROWS_MAYBE,
		.sql = "SELECT c.sha256, c.status, " SQL_S("c.not_before") ", " SQL_S("c.not_after")
		       ", c.profile, c.device_id, coalesce(d.status, ''), coalesce(p.role, ''),"
		       " p.disabled_at IS NOT NULL FROM (SELECT * FROM jitrca.certificate c"
		       " WHERE c.expiry_month = $1::int AND c.issuer_id = $2::int"
		       " AND c.serial = $3::bytea) c"
		       " LEFT JOIN jitrca.device d ON d.device_id = c.device_id AND c.of_device"
		       " LEFT JOIN jitrca.principal p ON p.principal_id = c.device_id",
	},
};
const struct db_table DB_TABLE_IDENTITY = { SQL, COUNT_OF(SQL) };

enum status
db_identity_by_ref(struct db_tx *tx, const struct db_cert_ref *ref, struct db_identity *out,
	struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[IDENTITY_BY_REF], DB_PARAMS(db_int64(serial_month(&ref->serial)),
		db_int64(ref->issuer_id), db_serial(&ref->serial)), &rows, err));
	if (db_rows(rows) == 0)
		return err_set(err, ERR_NOT_FOUND, "certificate_unknown",
			"certificate: one on record wanted");
	struct db_row row = db_row(rows, 0);
	(void)db_row_octets(&row, out->sha256, sizeof(out->sha256));
	out->status = db_row_cert_status(&row);
	out->not_before_s = db_row_int64(&row);
	out->not_after_s = db_row_int64(&row);
	db_row_text(&row, out->profile, sizeof(out->profile));
	db_row_text(&row, out->device_id, sizeof(out->device_id));
	db_row_text(&row, out->device_status, sizeof(out->device_status));
	db_row_text(&row, out->principal_role, sizeof(out->principal_role));
	out->principal_disabled = db_row_bool(&row);
	return db_row_end(&row, err);
}
