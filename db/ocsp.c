#include "db/ocsp.h"

#include "db/run.h"

enum { FIND, STATEMENTS };

static const struct db_statement SQL[STATEMENTS] = {
	[FIND] = { /* certificate_pkey, in the one partition that the serial names; revocation_pkey */
		.name = "ocsp_find", .params = 3, .columns = 5, .rows = ROWS_ANY,
		.sql = "SELECT a.idx, coalesce(c.status, ''),"
		       " " SQL_S("coalesce(c.not_after, to_timestamp(0))") ","
		       " coalesce(r.reason,"
		       " CASE WHEN c.status IN ('held', 'revoked') THEN 0 ELSE -1 END)::int,"
		       " " SQL_S("coalesce(r.revoked_at, c.status_at)")
		       " FROM unnest($1::int[], $2::int[], $3::bytea[]) AS a(idx, issuer, serial)"
		       " LEFT JOIN LATERAL (SELECT x.status, x.not_after, x.status_at"
		       " FROM jitrca.certificate x WHERE x.expiry_month = jitrca.serial_month(a.serial)"
		       " AND x.issuer_id = a.issuer AND x.serial = a.serial OFFSET 0) c ON true"
		       " LEFT JOIN LATERAL (SELECT x.reason, x.revoked_at FROM jitrca.revocation x"
		       " WHERE x.issuer_id = a.issuer AND x.serial = a.serial OFFSET 0) r ON true"
		       " WHERE c.status IS NOT NULL OR r.reason IS NOT NULL",
	},
};
const struct db_table DB_TABLE_OCSP = { SQL, COUNT_OF(SQL) };

/* A revocation that retention has dropped still shows in the certificate's own status. */
static enum status
read_row(const PGresult *rows, int r, struct db_ocsp_item *items, size_t count, struct err *err)
{
	struct db_row row = db_row(rows, r);
	int64_t index = db_row_int64(&row);
	char status[32];
	int32_t reason;

	if (index < 0 || (size_t)index >= count)
		return err_set(err, ERR_INTERNAL, "database_shape", "ocsp_find: a row too many");
	db_row_text(&row, status, sizeof(status));
	if (status[0] != '\0' && !cert_status_parse(&items[index].status, status))
		return err_set(err, ERR_INTERNAL, "database_shape", "ocsp_find: status");
	items[index].not_after_s = db_row_int64(&row);
	reason = db_row_int32(&row);
	items[index].revoked = reason >= 0;
	items[index].reason = reason >= 0 ? (enum revocation_reason)reason : REASON_UNSPECIFIED;
	items[index].revoked_at_s = db_row_int64(&row);
	return db_row_end(&row, err);
}

enum status
db_ocsp_find(struct db_tx *tx, struct db_ocsp_item *items, size_t count, struct err *err)
{
	own_struct(db_array) indexes = DB_ARRAY(ARRAY_INT4);
	own_struct(db_array) issuers = DB_ARRAY(ARRAY_INT4);
	own_struct(db_array) serials = DB_ARRAY(ARRAY_BYTEA);
	own(PGresult) rows = NULL;

	for (size_t i = 0; i < count; i++) {
		items[i] = (struct db_ocsp_item){ .ref = items[i].ref };
		TRY(db_array_add_int(&indexes, (int64_t)i, err));
		TRY(db_array_add_int(&issuers, items[i].ref.issuer_id, err));
		TRY(db_array_add_serial(&serials, &items[i].ref.serial, err));
	}
	if (count == 0)
		return OK;
	TRY(db_run(tx, &SQL[FIND], DB_PARAMS(db_array(&indexes), db_array(&issuers),
		db_array(&serials)), &rows, err));
	for (int r = 0; r < db_rows(rows); r++)
		TRY(read_row(rows, r, items, count, err));
	return OK;
}
