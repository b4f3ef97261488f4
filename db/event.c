#include "db/event.h"

#include "db/run.h"

enum {
	PUT,
	PUT_ONCE,
	LIST,
	LIST_KIND,
	LIST_DEVICE,
	RETENTION,
	UNROUTED,
	ROUTED,
	SKIP,
	STATEMENTS,
};

#define COLUMNS                                                                                    \
	"e.event_id, " SQL_S("e.at") ", e.kind, e.severity, coalesce(e.device_id, ''),"                \
	" coalesce(e.certificate_id, ''), coalesce(e.target, ''), e.detail"
#define COLUMN_COUNT 8
#define FITTING(column, octets)                                                                    \
	"CASE WHEN octet_length(e." column ") <= " octets " THEN e." column " ELSE '' END"
#define LIST_SQL(lead)                                                                             \
	"SELECT " COLUMNS " FROM jitrca.security_event e WHERE e.event_id < $1::bigint" \
	" AND ($2::text IS NULL OR e.kind = $2::text)"                                                 \
	" AND ($3::text IS NULL OR e.severity = $3::text)"                                             \
	" AND ($4::text IS NULL OR e.device_id = $4::text)"                                            \
	" AND e.at >= to_timestamp($5::bigint)" lead " ORDER BY e.event_id DESC LIMIT $6::bigint"

static const struct db_statement SQL[STATEMENTS] = {
	[PUT] = {
		.name = "event_put", .params = 6, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO jitrca.security_event (kind, severity, device_id, certificate_id,"
		       " target, detail) VALUES ($1::text, $2::text, nullif($3::text, ''),"
		       " nullif($4::text, ''), nullif($5::text, ''), $6::text)",
	},
	[PUT_ONCE] = { /* security_event_kind: for kinds of which there are few, because of this */
		.name = "event_put_once", .params = 7, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO jitrca.security_event (kind, severity, device_id, certificate_id,"
		       " target, detail) SELECT $1::text, $2::text, nullif($3::text, ''),"
		       " nullif($4::text, ''), nullif($5::text, ''), $6::text WHERE NOT EXISTS"
		       " (SELECT FROM jitrca.security_event e WHERE e.kind = $1::text"
		       " AND e.at > now() - $7::bigint * interval '1 second' AND e.severity = $2::text"
		       " AND e.device_id IS NOT DISTINCT FROM nullif($3::text, '')"
		       " AND e.certificate_id IS NOT DISTINCT FROM nullif($4::text, '')"
		       " AND e.target IS NOT DISTINCT FROM nullif($5::text, ''))",
	},
	[LIST] = { /* security_event_pkey */
		.name = "event_list", .params = 6, .columns = COLUMN_COUNT, .rows = ROWS_ANY,
		.sql = LIST_SQL(""),
	},
	[LIST_KIND] = { /* security_event_kind */
		.name = "event_list_kind", .params = 6, .columns = COLUMN_COUNT, .rows = ROWS_ANY,
		.sql = LIST_SQL(" AND e.kind = $2::text"),
	},
	[LIST_DEVICE] = { /* security_event_device */
		.name = "event_list_device", .params = 6, .columns = COLUMN_COUNT, .rows = ROWS_ANY,
		.sql = LIST_SQL(" AND e.device_id = $4::text"),
	},
	[RETENTION] = { /* security_event_at; what is in use stays for the next round */
		.name = "retention_events", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM jitrca.security_event e USING (SELECT o.event_id"
		       " FROM jitrca.security_event o WHERE o.at < " SQL_AT_S("$1")
		       " ORDER BY o.at, o.event_id LIMIT $2::bigint FOR UPDATE SKIP LOCKED) old"
		       " WHERE e.event_id = old.event_id",
	},
	[UNROUTED] = { /* security_event_unrouted; what nobody could have put (event.h) keeps none back */
		.name = "event_unrouted", .params = 1, .columns = COLUMN_COUNT, .rows = ROWS_ANY,
		.sql = "SELECT e.event_id, " SQL_S("e.at") ", e.kind, e.severity, "
		       FITTING("device_id", "64") ", " FITTING("certificate_id", "64") ", "
		       FITTING("target", "32") ", CASE WHEN octet_length(e.detail) < 2048"
		       " THEN e.detail ELSE '{\"left_out\":true}' END"
		       " FROM jitrca.security_event e WHERE NOT e.routed"
		       " ORDER BY e.event_id LIMIT $1::bigint FOR UPDATE SKIP LOCKED",
	},
	[ROUTED] = { /* security_event_pkey */
		.name = "event_routed", .params = 1, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE jitrca.security_event e SET routed = true"
		       " FROM unnest($1::bigint[]) AS i(event_id) WHERE e.event_id = i.event_id",
	},
	[SKIP] = { /* security_event_unrouted, security_event_pkey */
		.name = "event_skip", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE jitrca.security_event e SET routed = true FROM (SELECT o.event_id"
		       " FROM jitrca.security_event o WHERE NOT o.routed"
		       " AND o.at < now() - $1::bigint * interval '1 second' ORDER BY o.event_id"
		       " LIMIT $2::bigint FOR UPDATE SKIP LOCKED) old"
		       " WHERE e.event_id = old.event_id",
	},
};

const struct db_table DB_TABLE_EVENT = { SQL, COUNT_OF(SQL) };

enum status
db_event_put(struct db_tx *tx, const struct db_event *event, struct err *err)
{
	return db_run(tx, &SQL[PUT], DB_PARAMS(db_text(event->kind), db_text(event->severity),
		db_text(event->device_id), db_text(event->certificate_id), db_text(event->target),
		db_text(event->detail[0] != '\0' ? event->detail : "{}")), NULL, err);
}

enum status
db_event_put_once(struct db_tx *tx, const struct db_event *event, int64_t within_s, bool *put,
	struct err *err)
{
	own(PGresult) done = NULL;

	TRY(db_run(tx, &SQL[PUT_ONCE], DB_PARAMS(db_text(event->kind), db_text(event->severity),
		db_text(event->device_id), db_text(event->certificate_id), db_text(event->target),
		db_text(event->detail[0] != '\0' ? event->detail : "{}"), db_int64(within_s)), &done,
		err));
	*put = db_affected(done) == 1;
	return OK;
}

static enum status
read_row(const PGresult *rows, int r, struct db_event *out, struct err *err)
{
	struct db_row row = db_row(rows, r);

	out->event_id = db_row_int64(&row);
	out->at_s = db_row_int64(&row);
	db_row_text(&row, out->kind, sizeof(out->kind));
	db_row_text(&row, out->severity, sizeof(out->severity));
	db_row_text(&row, out->device_id, sizeof(out->device_id));
	db_row_text(&row, out->certificate_id, sizeof(out->certificate_id));
	db_row_text(&row, out->target, sizeof(out->target));
	db_row_text(&row, out->detail, sizeof(out->detail));
	return db_row_end(&row, err);
}

enum status
db_event_list(struct db_tx *tx, const struct db_event_filter *filter, size_t limit,
	struct db_event *out, size_t *count, struct err *err)
{
	size_t statement = LIST;
	own(PGresult) rows = NULL;

	if (filter->device_id != NULL)
		statement = LIST_DEVICE;
	else if (filter->kind != NULL)
		statement = LIST_KIND;
	TRY(db_run(tx, &SQL[statement], DB_PARAMS(
		db_int64(filter->before_id > 0 ? filter->before_id : INT64_MAX),
		db_text(filter->kind), db_text(filter->severity), db_text(filter->device_id),
		db_int64(filter->since_s), db_int64((int64_t)limit)), &rows, err));
	for (int r = 0; r < db_rows(rows); r++)
		TRY(read_row(rows, r, &out[r], err));
	*count = (size_t)db_rows(rows);
	return OK;
}

enum status
db_retention_events(struct db_tx *tx, int64_t before_s, size_t max, size_t *deleted, struct err *err)
{
	own(PGresult) done = NULL;

	TRY(db_run(tx, &SQL[RETENTION], DB_PARAMS(db_int64(before_s), db_int64((int64_t)max)), &done,
		err));
	*deleted = (size_t)db_affected(done);
	return OK;
}

/* ---- routing ---- */

enum status
db_event_unrouted(struct db_tx *tx, size_t max, struct db_event *out, size_t *count, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[UNROUTED], DB_PARAMS(db_int64((int64_t)max)), &rows, err));
	for (int r = 0; r < db_rows(rows); r++)
		TRY(read_row(rows, r, &out[r], err));
	*count = (size_t)db_rows(rows);
	return OK;
}

enum status
db_event_routed(struct db_tx *tx, const struct db_event *events, size_t count, struct err *err)
{
	own_struct(db_array) ids = DB_ARRAY(ARRAY_INT8);

	for (size_t i = 0; i < count; i++)
		TRY(db_array_add_int(&ids, events[i].event_id, err));
	return db_run(tx, &SQL[ROUTED], DB_PARAMS(db_array(&ids)), NULL, err);
}

enum status
db_event_skip(struct db_tx *tx, int64_t older_s, size_t max, size_t *count, struct err *err)
{
	own(PGresult) done = NULL;

	TRY(db_run(tx, &SQL[SKIP], DB_PARAMS(db_int64(older_s), db_int64((int64_t)max)), &done, err));
	*count = (size_t)db_affected(done);
	return OK;
}
