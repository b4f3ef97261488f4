#include "db/iotcore_certificate.h"

#include <string.h>

#include "db/run.h"

enum {
	INSERT,
	FIND,
	SET_STATUS,
	HELD,
	DETACH,
	DELETE,
	LIST_UP,
	LIST_DOWN,
	OF_CA_UP,
	OF_CA_DOWN,
	STATEMENTS,
};

#define COLUMNS(pem)                                                                               \
	"certificate_id, ca_certificate_id, status, mode, " pem ", " SQL_S("not_before") ", "      \
	SQL_S("not_after") ", " SQL_US("created_at") ", " SQL_US("modified_at")                    \
	", generation::text, customer_version"
#define UP(more)                                                                                   \
	"SELECT " COLUMNS("''") " FROM iotcore.certificate WHERE " more                            \
	"(created_at, certificate_id) > (" SQL_AT_US("$1") ", $2::text)"                           \
	" ORDER BY created_at, certificate_id LIMIT $3::bigint"
#define DOWN(more)                                                                                 \
	"SELECT " COLUMNS("''") " FROM iotcore.certificate WHERE " more                            \
	"(created_at, certificate_id) < (" SQL_AT_US("$1") ", $2::text)"                           \
	" ORDER BY created_at DESC, certificate_id DESC LIMIT $3::bigint"

static const struct db_statement SQL[STATEMENTS] = {
	[INSERT] = { /* certificate_pkey */
		.name = "iotcore_certificate_insert", .params = 7, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO iotcore.certificate"
		       " (certificate_id, ca_certificate_id, pem, status, mode, not_before, not_after)"
		       " VALUES ($1, $2, $3, $4, $5, " SQL_AT_S("$6") ", " SQL_AT_S("$7") ")"
		       " ON CONFLICT (certificate_id) DO NOTHING",
	},
	[FIND] = { /* certificate_pkey */
		.name = "iotcore_certificate_find", .params = 1, .columns = 11, .rows = ROWS_MAYBE,
		.sql = "SELECT " COLUMNS("pem") " FROM iotcore.certificate WHERE certificate_id = $1",
	},
	[SET_STATUS] = { /* certificate_pkey */
		.name = "iotcore_certificate_set_status", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE iotcore.certificate SET status = $2, modified_at = now(),"
		       " customer_version = customer_version + 1 WHERE certificate_id = $1"
		       " AND status NOT IN ($2, 'REVOKED', 'PENDING_TRANSFER')",
	},
	[HELD] = { /* thing_principal_certificate, policy_attachment_pkey */
		.name = "iotcore_certificate_held", .params = 1, .columns = 2, .rows = ROWS_ONE,
		.sql = "SELECT (SELECT count(*) FROM iotcore.thing_principal WHERE certificate_id = $1),"
		       " (SELECT count(*) FROM iotcore.policy_attachment WHERE target = 'cert/' || $1)",
	},
	[DETACH] = { /* policy_attachment_pkey */
		.name = "iotcore_certificate_detach", .params = 1, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM iotcore.policy_attachment WHERE target = 'cert/' || $1",
	},
	[DELETE] = { /* certificate_pkey */
		.name = "iotcore_certificate_delete", .params = 1, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM iotcore.certificate WHERE certificate_id = $1",
	},
	[LIST_UP] = { /* certificate_created */
		.name = "iotcore_certificate_list_up", .params = 3, .columns = 11, .rows = ROWS_ANY,
		.sql = UP(""),
	},
	[LIST_DOWN] = { /* certificate_created, backwards */
		.name = "iotcore_certificate_list_down", .params = 3, .columns = 11, .rows = ROWS_ANY,
		.sql = DOWN(""),
	},
	[OF_CA_UP] = { /* certificate_ca */
		.name = "iotcore_certificate_of_ca_up", .params = 4, .columns = 11, .rows = ROWS_ANY,
		.sql = UP("ca_certificate_id = $4 AND "),
	},
	[OF_CA_DOWN] = { /* certificate_ca, backwards */
		.name = "iotcore_certificate_of_ca_down", .params = 4, .columns = 11, .rows = ROWS_ANY,
		.sql = DOWN("ca_certificate_id = $4 AND "),
	},
};
const struct db_table DB_TABLE_IOTCORE_CERTIFICATE = { SQL, COUNT_OF(SQL) };

void
db_iotcore_certificate_free(struct db_iotcore_certificate *certificate)
{
	bytes_free(&certificate->pem);
}

enum status
db_iotcore_certificate_insert(struct db_tx *tx, const struct db_iotcore_certificate *certificate,
	bool *made, struct err *err)
{
	const char *ca = certificate->ca_certificate_id;
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[INSERT],
		DB_PARAMS(db_text(certificate->certificate_id), db_text(ca[0] != '\0' ? ca : NULL),
			db_text_view(view_of(&certificate->pem)), db_text(certificate->status),
			db_text(certificate->mode), db_int64(certificate->not_before_s),
			db_int64(certificate->not_after_s)),
		&rows, err));
	*made = db_affected(rows) == 1;
	return OK;
}

static enum status
read_row(struct db_row *row, struct db_iotcore_certificate *out, struct err *err)
{
	struct view pem;

	memset(out, 0, sizeof(*out));
	db_row_text(row, out->certificate_id, sizeof(out->certificate_id));
	db_row_text(row, out->ca_certificate_id, sizeof(out->ca_certificate_id));
	db_row_text(row, out->status, sizeof(out->status));
	db_row_text(row, out->mode, sizeof(out->mode));
	pem = db_row_view(row);
	out->not_before_s = db_row_int64(row);
	out->not_after_s = db_row_int64(row);
	out->created_us = db_row_int64(row);
	out->modified_us = db_row_int64(row);
	db_row_text(row, out->generation, sizeof(out->generation));
	out->customer_version = db_row_int32(row);
	TRY(bytes_copy(&out->pem, pem, err));
	return db_row_end(row, err);
}

enum status
db_iotcore_certificate_find(struct db_tx *tx, const char *certificate_id,
	struct db_iotcore_certificate *out, struct err *err)
{
	own(PGresult) rows = NULL;
	struct db_row row;

	TRY(db_run(tx, &SQL[FIND], DB_PARAMS(db_text(certificate_id)), &rows, err));
	if (db_rows(rows) == 0)
		return err_set(err, ERR_NOT_FOUND, "iotcore_unknown", "there is no such certificate");
	row = db_row(rows, 0);
	return read_row(&row, out, err);
}

enum status
db_iotcore_certificate_set_status(struct db_tx *tx, const char *certificate_id, const char *status,
	bool *done, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[SET_STATUS], DB_PARAMS(db_text(certificate_id), db_text(status)), &rows,
		err));
	*done = db_affected(rows) == 1;
	return OK;
}

enum status
db_iotcore_certificate_held(struct db_tx *tx, const char *certificate_id, int64_t *things,
	int64_t *policies, struct err *err)
{
	own(PGresult) rows = NULL;
	struct db_row row;

	TRY(db_run(tx, &SQL[HELD], DB_PARAMS(db_text(certificate_id)), &rows, err));
	row = db_row(rows, 0);
	*things = db_row_int64(&row);
	*policies = db_row_int64(&row);
	return db_row_end(&row, err);
}

enum status
db_iotcore_certificate_delete(struct db_tx *tx, const char *certificate_id, struct err *err)
{
	TRY(db_run(tx, &SQL[DETACH], DB_PARAMS(db_text(certificate_id)), NULL, err));
	return db_run(tx, &SQL[DELETE], DB_PARAMS(db_text(certificate_id)), NULL, err);
}

enum status
db_iotcore_certificate_list(struct db_tx *tx, const struct db_iotcore_page *page,
	const char *ca_certificate_id,
	enum status (*each)(
		void *arg, const struct db_iotcore_certificate *certificate, struct err *err),
	void *arg, struct err *err)
{
	struct db_param us = db_int64(page->after_us), id = db_text(page->after_id);
	own(PGresult) rows = NULL;

	if (ca_certificate_id == NULL)
		TRY(db_run(tx, &SQL[page->ascending ? LIST_UP : LIST_DOWN],
			DB_PARAMS(us, id, db_int64(page->limit)), &rows, err));
	else
		TRY(db_run(tx, &SQL[page->ascending ? OF_CA_UP : OF_CA_DOWN],
			DB_PARAMS(us, id, db_int64(page->limit), db_text(ca_certificate_id)), &rows,
			err));
	for (int i = 0; i < db_rows(rows); i++) {
		own_struct(db_iotcore_certificate) one = { .customer_version = 0 };
		struct db_row row = db_row(rows, i);

		TRY(read_row(&row, &one, err));
		TRY(each(arg, &one, err));
	}
	return OK;
}
