#include "db/iot_missing.h"

#include "db/run.h"

/* Rows that one statement reads at most, missing or not. */
#define WINDOW 5000

enum {
	MET,
	WINDOW_END,
	FIND,
	GONE,
	FORGET,
	STATEMENTS,
};

static const struct db_statement SQL[STATEMENTS] = {
	[MET] = { /* iot_certificate_pkey; what another holds is being worked on: asked for by its id */
		.name = "iot_met", .params = 3, .columns = 0, .rows = ROWS_NONE,
		.sql = "WITH m AS MATERIALIZED (SELECT x.target, x.sha256 FROM jitrca.iot_certificate x"
		       " WHERE x.target = $1::text AND x.sha256 = ANY ($2::bytea[])"
		       " AND x.observed_at < " SQL_AT_S("$3") " FOR NO KEY UPDATE SKIP LOCKED)"
		       " UPDATE jitrca.iot_certificate x SET observed_at = now() FROM m"
		       " WHERE x.target = m.target AND x.sha256 = m.sha256",
	},
	[WINDOW_END] = { /* iot_certificate_serial */
		.name = "iot_missing_window", .params = 3, .columns = 1, .rows = ROWS_MAYBE,
		.sql = "SELECT x.serial FROM jitrca.iot_certificate x WHERE x.issuer_id = $1::int"
		       " AND x.serial > coalesce($2::bytea, ''::bytea) ORDER BY x.serial"
		       " OFFSET $3::bigint LIMIT 1",
	},
	[FIND] = { /* iot_certificate_serial, within the window */
		.name = "iot_missing_find", .params = 7, .columns = 3, .rows = ROWS_ANY,
		.sql = "SELECT x.sha256, x.serial, coalesce(x.device_id, '')"
		       " FROM jitrca.iot_certificate x WHERE x.issuer_id = $2::int"
		       " AND x.serial > coalesce($5::bytea, ''::bytea)"
		       " AND ($6::bytea IS NULL OR x.serial <= $6::bytea) AND x.target = $1::text"
		       " AND x.status = 'ACTIVE' AND x.observed_at < " SQL_AT_S("$3")
		       " AND ($4::bool OR x.event_at IS NOT NULL) ORDER BY x.serial LIMIT $7::bigint",
	},
	[GONE] = { /* iot_certificate_pkey */
		.name = "iot_missing_gone", .params = 3, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE jitrca.iot_certificate x SET status = 'DELETED', observed_at = now()"
		       " WHERE x.target = $1::text AND x.sha256 = $2::bytea AND x.status = 'ACTIVE'"
		       " AND x.observed_at < " SQL_AT_S("$3"),
	},
	[FORGET] = { /* iot_device_pkey */
		.name = "iot_device_forget", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM jitrca.iot_device d WHERE d.target = $1::text"
		       " AND d.device_id = $2::text",
	},
};

const struct db_table DB_TABLE_IOT_MISSING = { SQL, COUNT_OF(SQL) };

enum status
db_iot_met(struct db_tx *tx, const char *target, const struct db_iot_id *ids, size_t count,
	int64_t walk_started_s, struct err *err)
{
	own_struct(db_array) digests = DB_ARRAY(ARRAY_BYTEA);

	for (size_t i = 0; i < count; i++)
		TRY(db_array_add_bytes(&digests, (struct view){ ids[i].sha256, DB_SHA256_BYTES }, err));
	return db_run(tx, &SQL[MET], DB_PARAMS(db_text(target), db_array(&digests),
		db_int64(walk_started_s)), NULL, err);
}

static enum status
window_end(struct db_tx *tx, const struct db_iot_missing_query *query, struct serial *end, bool *last,
	struct err *err)
{
	own(PGresult) rows = NULL;
	struct db_row row;

	TRY(db_run(tx, &SQL[WINDOW_END], DB_PARAMS(db_int64(query->issuer_id),
		db_serial(query->after), db_int64(WINDOW - 1)), &rows, err));
	*last = db_rows(rows) == 0;
	if (*last)
		return OK;
	row = db_row(rows, 0);
	(void)db_row_serial(&row, end);
	return db_row_end(&row, err);
}

enum status
db_iot_missing_find(struct db_tx *tx, const struct db_iot_missing_query *query,
	struct db_iot_missing *out, size_t max, size_t *count, struct serial *next, bool *done,
	struct err *err)
{
	own(PGresult) rows = NULL;
	bool last;

	TRY(window_end(tx, query, next, &last, err));
	TRY(db_run(tx, &SQL[FIND], DB_PARAMS(db_text(query->target), db_int64(query->issuer_id),
		db_int64(query->walk_started_s), db_bool(query->unannounced), db_serial(query->after),
		last ? db_null() : db_serial(next), db_int64((int64_t)max)), &rows, err));
	*count = (size_t)db_rows(rows);
	for (int r = 0; r < db_rows(rows); r++) {
		struct db_row row = db_row(rows, r);

		(void)db_row_octets(&row, out[r].sha256, DB_SHA256_BYTES);
		(void)db_row_serial(&row, &out[r].serial);
		db_row_text(&row, out[r].device_id, sizeof(out[r].device_id));
		TRY(db_row_end(&row, err));
	}
	*done = last && *count < max;
	if (*count == max)
		*next = out[max - 1].serial; /* the rest of the window is for the next time */
	return OK;
}

enum status
db_iot_missing_gone(struct db_tx *tx, const char *target, const struct db_iot_missing *missing,
	int64_t walk_started_s, bool *changed, struct err *err)
{
	own(PGresult) done = NULL;

	TRY(db_run(tx, &SQL[GONE], DB_PARAMS(db_text(target),
		db_octets(missing->sha256, DB_SHA256_BYTES), db_int64(walk_started_s)), &done, err));
	*changed = db_affected(done) == 1;
	return OK;
}

enum status
db_iot_device_forget(struct db_tx *tx, const char *target, const char *device_id, struct err *err)
{
	return db_run(tx, &SQL[FORGET], DB_PARAMS(db_text(target), db_text(device_id)), NULL, err);
}
