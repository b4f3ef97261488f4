#include "db/iotcore_ca.h"

#include <string.h>

#include "db/run.h"

enum {
	INSERT,
	COUNT_SUBJECT,
	FIND,
	UPDATE,
	DELETE,
	LIST_UP,
	LIST_DOWN,
	BY_SUBJECT,
	STATEMENTS,
};

#define COLUMNS                                                                                    \
	"certificate_id, status, mode, auto_registration, pem, registration_config, " SQL_S(       \
		"not_before") ", " SQL_S("not_after") ", " SQL_US("created_at") ", " SQL_US(       \
		"modified_at") ", generation::text, customer_version"
/* For lists: those have no PEM. */
#define BRIEF                                                                                      \
	"certificate_id, status, mode, auto_registration, '', '', " SQL_S("not_before") ", " SQL_S( \
		"not_after") ", " SQL_US("created_at") ", " SQL_US("modified_at")                  \
	", generation::text, customer_version"
#define OF_TEMPLATE "($4::text IS NULL OR registration_config::jsonb->>'templateName' = $4)"

static const struct db_statement SQL[STATEMENTS] = {
	[INSERT] = { /* ca_certificate_pkey */
		.name = "iotcore_ca_insert", .params = 10, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO iotcore.ca_certificate (certificate_id, pem, der, subject, status,"
		       " auto_registration, mode, registration_config, not_before, not_after)"
		       " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, " SQL_AT_S("$9") ", " SQL_AT_S("$10")
		       ") ON CONFLICT (certificate_id) DO NOTHING",
	},
	[COUNT_SUBJECT] = { /* ca_certificate_subject */
		.name = "iotcore_ca_count_subject", .params = 1, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT count(*) FROM iotcore.ca_certificate WHERE subject = $1",
	},
	[FIND] = { /* ca_certificate_pkey */
		.name = "iotcore_ca_find", .params = 1, .columns = 12, .rows = ROWS_MAYBE,
		.sql = "SELECT " COLUMNS " FROM iotcore.ca_certificate WHERE certificate_id = $1",
	},
	[UPDATE] = { /* ca_certificate_pkey */
		.name = "iotcore_ca_update", .params = 4, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE iotcore.ca_certificate SET status = $2, auto_registration = $3,"
		       " registration_config = $4, customer_version = customer_version + 1,"
		       " modified_at = now() WHERE certificate_id = $1",
	},
	[DELETE] = { /* ca_certificate_pkey */
		.name = "iotcore_ca_delete", .params = 1, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM iotcore.ca_certificate WHERE certificate_id = $1",
	},
	[LIST_UP] = { /* ca_certificate_created */
		.name = "iotcore_ca_list_up", .params = 4, .columns = 12, .rows = ROWS_ANY,
		.sql = "SELECT " BRIEF " FROM iotcore.ca_certificate"
		       " WHERE (created_at, certificate_id) > (" SQL_AT_US("$1") ", $2::text)"
		       " AND " OF_TEMPLATE " ORDER BY created_at, certificate_id LIMIT $3::bigint",
	},
	[LIST_DOWN] = { /* ca_certificate_created, backwards */
		.name = "iotcore_ca_list_down", .params = 4, .columns = 12, .rows = ROWS_ANY,
		.sql = "SELECT " BRIEF " FROM iotcore.ca_certificate"
		       " WHERE (created_at, certificate_id) < (" SQL_AT_US("$1") ", $2::text)"
		       " AND " OF_TEMPLATE
		       " ORDER BY created_at DESC, certificate_id DESC LIMIT $3::bigint",
	},
	[BY_SUBJECT] = { /* ca_certificate_subject */
		.name = "iotcore_ca_by_subject", .params = 1, .columns = 13, .rows = ROWS_ANY,
		.sql = "SELECT " BRIEF ", der FROM iotcore.ca_certificate WHERE subject = $1"
		       " ORDER BY created_at LIMIT 10",
	},
};
const struct db_table DB_TABLE_IOTCORE_CA = { SQL, COUNT_OF(SQL) };

void
db_iotcore_ca_free(struct db_iotcore_ca *ca)
{
	bytes_free(&ca->pem);
	bytes_free(&ca->der);
	bytes_free(&ca->subject);
	bytes_free(&ca->registration_config);
}

static struct view
or_null(const struct bytes *text)
{
	return text->len > 0 ? view_of(text) : (struct view){ NULL, 0 };
}

enum status
db_iotcore_ca_insert(
	struct db_tx *tx, const struct db_iotcore_ca *ca, bool *made, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[INSERT],
		DB_PARAMS(db_text(ca->certificate_id), db_text_view(view_of(&ca->pem)),
			db_bytes(view_of(&ca->der)), db_bytes(view_of(&ca->subject)),
			db_text(ca->status), db_bool(ca->auto_registration), db_text(ca->mode),
			db_text_view(or_null(&ca->registration_config)),
			db_int64(ca->not_before_s), db_int64(ca->not_after_s)),
		&rows, err));
	*made = db_affected(rows) == 1;
	return OK;
}

enum status
db_iotcore_ca_count_subject(
	struct db_tx *tx, struct view subject, int64_t *count, struct err *err)
{
	own(PGresult) rows = NULL;
	struct db_row row;

	TRY(db_run(tx, &SQL[COUNT_SUBJECT], DB_PARAMS(db_bytes(subject)), &rows, err));
	row = db_row(rows, 0);
	*count = db_row_int64(&row);
	return db_row_end(&row, err);
}

/* Up to the column of the DER, which lists for an issuer have besides. */
static enum status
read_row(struct db_row *row, struct db_iotcore_ca *out, struct err *err)
{
	struct view pem, config;

	memset(out, 0, sizeof(*out));
	db_row_text(row, out->certificate_id, sizeof(out->certificate_id));
	db_row_text(row, out->status, sizeof(out->status));
	db_row_text(row, out->mode, sizeof(out->mode));
	out->auto_registration = db_row_bool(row);
	pem = db_row_view(row);
	config = db_row_view(row);
	out->not_before_s = db_row_int64(row);
	out->not_after_s = db_row_int64(row);
	out->created_us = db_row_int64(row);
	out->modified_us = db_row_int64(row);
	db_row_text(row, out->generation, sizeof(out->generation));
	out->customer_version = db_row_int32(row);
	TRY(bytes_copy(&out->pem, pem, err));
	return bytes_copy(&out->registration_config, config, err);
}

enum status
db_iotcore_ca_find(
	struct db_tx *tx, const char *certificate_id, struct db_iotcore_ca *out, struct err *err)
{
	own(PGresult) rows = NULL;
	struct db_row row;

	TRY(db_run(tx, &SQL[FIND], DB_PARAMS(db_text(certificate_id)), &rows, err));
	if (db_rows(rows) == 0)
		return err_set(err, ERR_NOT_FOUND, "iotcore_unknown", "there is no such CA certificate");
	row = db_row(rows, 0);
	TRY(read_row(&row, out, err));
	return db_row_end(&row, err);
}

enum status
db_iotcore_ca_update(struct db_tx *tx, const struct db_iotcore_ca *ca, struct err *err)
{
	return db_run(tx, &SQL[UPDATE],
		DB_PARAMS(db_text(ca->certificate_id), db_text(ca->status),
			db_bool(ca->auto_registration),
			db_text_view(or_null(&ca->registration_config))),
		NULL, err);
}

enum status
db_iotcore_ca_delete(struct db_tx *tx, const char *certificate_id, struct err *err)
{
	return db_run(tx, &SQL[DELETE], DB_PARAMS(db_text(certificate_id)), NULL, err);
}

static enum status
give_rows(PGresult *rows, bool with_der,
	enum status (*each)(void *arg, const struct db_iotcore_ca *ca, struct err *err), void *arg,
	struct err *err)
{
	for (int i = 0; i < db_rows(rows); i++) {
		own_struct(db_iotcore_ca) ca = { .customer_version = 0 };
		struct db_row row = db_row(rows, i);

		TRY(read_row(&row, &ca, err));
		if (with_der)
			db_row_bytes(&row, &ca.der);
		TRY(db_row_end(&row, err));
		TRY(each(arg, &ca, err));
	}
	return OK;
}

enum status
db_iotcore_ca_list(struct db_tx *tx, const struct db_iotcore_page *page, const char *template_name,
	enum status (*each)(void *arg, const struct db_iotcore_ca *ca, struct err *err), void *arg,
	struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[page->ascending ? LIST_UP : LIST_DOWN],
		DB_PARAMS(db_int64(page->after_us), db_text(page->after_id), db_int64(page->limit),
			db_text(template_name)),
		&rows, err));
	return give_rows(rows, false, each, arg, err);
}

enum status
db_iotcore_ca_by_subject(struct db_tx *tx, struct view subject,
	enum status (*each)(void *arg, const struct db_iotcore_ca *ca, struct err *err), void *arg,
	struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[BY_SUBJECT], DB_PARAMS(db_bytes(subject)), &rows, err));
	return give_rows(rows, true, each, arg, err);
}
