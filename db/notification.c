#include "db/notification.h"

#include "db/run.h"

enum {
	METER_MAKE,
	METER,
	METER_SET,
	HELD,
	FIRST,
	PUT,
	WAKE,
	LEASE,
	SENT,
	FAIL,
	LET_GO,
	HASTEN,
	LIST,
	LIST_STATE,
	FIND,
	OF_RECEIPT,
	ROUTING,
	RETRY,
	RETRY_ONE,
	DEPTHS,
	RETENTION,
	RETENTION_DEAD,
	RETENTION_TOLD,
	STATEMENTS,
};

#define COLUMNS(body)                                                                              \
	"n.notification_id, n.channel, coalesce(n.event_id, 0), n.kind, n.severity, n.state,"          \
	" n.attempts, " SQL_S("n.created_at") ", " SQL_S("n.due_at") ", coalesce("                     \
	SQL_S("n.ended_at") ", 0), greatest(0, " SQL_S("now() - n.created_at") "), n.seq,"             \
	" coalesce(n.lease, 0), coalesce(n.revocation_id, ''), coalesce(n.http_status, 0),"             \
	" n.error_code, n.error_text, " body
#define COLUMN_COUNT 18

static const struct db_statement SQL[STATEMENTS] = {
	[METER_MAKE] = { /* notification_channel_pkey */
		.name = "notification_meter_make", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO jitrca.notification_channel (channel, bucket)"
		       " VALUES ($1::text, $2::float8) ON CONFLICT (channel) DO NOTHING",
	},
	[METER] = { /* notification_channel_pkey, notification_due */
		.name = "notification_meter", .params = 3, .columns = 8, .rows = ROWS_ONE,
		.sql = "SELECT least($3::float8, c.bucket + greatest(0, extract(epoch FROM"
		       " now() - c.bucket_at)) * $2::float8 / 3600)::float8, c.repeats, c.over_rate,"
		       " c.over_queue, c.worst, coalesce(" SQL_S("c.held_since") ", 0),"
		       " (SELECT count(*) FROM jitrca.notification n WHERE n.channel = $1::text"
		       " AND n.state = 'waiting'), " SQL_S("now()")
		       " FROM jitrca.notification_channel c WHERE c.channel = $1::text FOR UPDATE OF c",
	},
	[METER_SET] = { /* notification_channel_pkey */
		.name = "notification_meter_set", .params = 7, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE jitrca.notification_channel c SET bucket = $2::float8, bucket_at = now(),"
		       " repeats = $3::bigint, over_rate = $4::bigint, over_queue = $5::bigint,"
		       " worst = $6::smallint, held_since = CASE WHEN $7::bigint > 0 THEN "
		       SQL_AT_S("$7") " END WHERE c.channel = $1::text",
	},
	[HELD] = { /* notification_channel_pkey */
		.name = "notification_held", .params = 2, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT EXISTS (SELECT FROM jitrca.notification_channel c"
		       " WHERE c.channel = $1::text"
		       " AND c.held_since <= now() - $2::bigint * interval '1 second')",
	},
	[FIRST] = { /* notification_told_pkey */
		.name = "notification_first", .params = 3, .columns = 1, .rows = ROWS_MAYBE,
		.sql = "INSERT INTO jitrca.notification_told AS t (channel, key, until)"
		       " VALUES ($1::text, $2::bytea, now() + $3::bigint * interval '1 second')"
		       " ON CONFLICT (channel, key) DO UPDATE SET until = EXCLUDED.until"
		       " WHERE t.until <= now() RETURNING true",
	},
	[PUT] = { /* notification_once: an event comes to a channel once, whatever happens */
		.name = "notification_put", .params = 7, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO jitrca.notification (notification_id, channel, event_id, kind,"
		       " severity, body, revocation_id) VALUES ($1::text, $2::text, $3::bigint, $4::text,"
		       " $5::text, $6::text, nullif($7::text, '')) ON CONFLICT (event_id, channel)"
		       " WHERE event_id IS NOT NULL DO NOTHING",
	},
	[WAKE] = {
		.name = "notification_wake", .params = 0, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT true FROM pg_notify('jitrca_notify', '')",
	},
	[LEASE] = { /* notification_due */
		.name = "notification_lease", .params = 2, .columns = COLUMN_COUNT, .rows = ROWS_MAYBE,
		.sql = "WITH w AS MATERIALIZED (SELECT o.seq FROM jitrca.notification o"
		       " WHERE o.channel = $1::text AND o.state = 'waiting' AND o.due_at <= now()"
		       " AND (o.lease_until IS NULL OR o.lease_until <= now())"
		       " ORDER BY o.due_at, o.seq LIMIT 1 FOR UPDATE SKIP LOCKED),"
		       " n AS (UPDATE jitrca.notification n SET"
		       " lease = nextval('jitrca.notification_lease'), lease_until = now()"
		       " + $2::bigint * interval '1 millisecond' FROM w WHERE n.seq = w.seq RETURNING n.*)"
		       " SELECT " COLUMNS("n.body") " FROM n",
	},
	[SENT] = { /* notification_pkey */
		.name = "notification_sent", .params = 3, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE jitrca.notification n SET state = 'sent', ended_at = now(),"
		       " attempts = n.attempts + 1, lease = NULL, lease_until = NULL, error_code = '',"
		       " error_text = '', http_status = nullif($3::int, 0)"
		       " WHERE n.seq = $1::bigint AND n.lease = $2::bigint",
	},
	[FAIL] = { /* notification_pkey */
		.name = "notification_fail", .params = 7, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE jitrca.notification n SET state = CASE WHEN $4::bool THEN 'dead'"
		       " ELSE 'waiting' END, ended_at = CASE WHEN $4::bool THEN now() END,"
		       " attempts = n.attempts + 1, lease = NULL, lease_until = NULL,"
		       " due_at = now() + $3::bigint * interval '1 millisecond', error_code = $5::text,"
		       " error_text = left($6::text, 500), http_status = nullif($7::int, 0)"
		       " WHERE n.seq = $1::bigint AND n.lease = $2::bigint",
	},
	[LET_GO] = { /* notification_pkey */
		.name = "notification_let_go", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE jitrca.notification n SET lease = NULL, lease_until = NULL"
		       " WHERE n.seq = $1::bigint AND n.lease = $2::bigint",
	},
	[HASTEN] = { /* notification_due; what waits for a receiver that was away */
		.name = "notification_hasten", .params = 1, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE jitrca.notification n SET due_at = now() FROM (SELECT o.seq"
		       " FROM jitrca.notification o WHERE o.channel = $1::text AND o.state = 'waiting'"
		       " AND o.due_at > now() AND o.error_code = 'notify_unreachable'"
		       " ORDER BY o.due_at, o.seq FOR UPDATE SKIP LOCKED) o WHERE n.seq = o.seq",
	},
	[LIST] = { /* notification_pkey, backwards */
		.name = "notification_list", .params = 3, .columns = COLUMN_COUNT, .rows = ROWS_ANY,
		.sql = "SELECT " COLUMNS("''") " FROM jitrca.notification n WHERE n.seq < $1::bigint"
		       " AND ($2::text IS NULL OR n.channel = $2::text)"
		       " ORDER BY n.seq DESC LIMIT $3::bigint",
	},
	[LIST_STATE] = { /* notification_state, backwards */
		.name = "notification_list_state", .params = 4, .columns = COLUMN_COUNT,
		.rows = ROWS_ANY,
		.sql = "SELECT " COLUMNS("''") " FROM jitrca.notification n WHERE n.seq < $1::bigint"
		       " AND ($2::text IS NULL OR n.channel = $2::text) AND n.state = $4::text"
		       " ORDER BY n.seq DESC LIMIT $3::bigint",
	},
	[FIND] = { /* notification_notification_id_key */
		.name = "notification_find", .params = 1, .columns = COLUMN_COUNT, .rows = ROWS_MAYBE,
		.sql = "SELECT " COLUMNS("n.body") " FROM jitrca.notification n"
		       " WHERE n.notification_id = $1::text",
	},
	[OF_RECEIPT] = { /* notification_revocation */
		.name = "notification_of_receipt", .params = 2, .columns = COLUMN_COUNT, .rows = ROWS_ANY,
		.sql = "SELECT " COLUMNS("''") " FROM jitrca.notification n"
		       " WHERE n.revocation_id = $1::text ORDER BY n.channel, n.seq LIMIT $2::bigint",
	},
	[ROUTING] = { /* security_event_unrouted: there are few */
		.name = "notification_routing", .params = 1, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT EXISTS (SELECT FROM jitrca.security_event e WHERE NOT e.routed"
		       " AND e.kind = 'bulk_revocation_done' AND strpos(e.detail, $1::text) > 0)",
	},
	[RETRY] = { /* notification_state; created_at begins its life anew */
		.name = "notification_retry", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE jitrca.notification n SET state = 'waiting', ended_at = NULL,"
		       " attempts = 0, due_at = now(), created_at = now() FROM (SELECT o.seq"
		       " FROM jitrca.notification o WHERE o.state = 'dead'"
		       " AND ($1::text IS NULL OR o.channel = $1::text)"
		       " ORDER BY o.seq LIMIT $2::bigint FOR UPDATE SKIP LOCKED) o WHERE n.seq = o.seq",
	},
	[RETRY_ONE] = { /* notification_notification_id_key */
		.name = "notification_retry_one", .params = 1, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE jitrca.notification n SET created_at = CASE WHEN n.state = 'dead'"
		       " THEN now() ELSE n.created_at END, attempts = CASE WHEN n.state = 'dead' THEN 0"
		       " ELSE n.attempts END, state = 'waiting', ended_at = NULL, due_at = now()"
		       " WHERE n.notification_id = $1::text AND n.state <> 'sent'",
	},
	[DEPTHS] = { /* notification_due and notification_state; asked by people and scrapers, seldom */
		.name = "notification_depths", .params = 1, .columns = 5, .rows = ROWS_ANY,
		.sql = "SELECT d.channel, sum(d.waiting)::bigint, sum(d.dead)::bigint,"
		       " max(d.oldest)::bigint, sum(d.held)::bigint FROM ("
		       "SELECT n.channel, count(*) AS waiting, 0::bigint AS dead, greatest(0, "
		       SQL_S("now() - min(n.created_at)") ") AS oldest, 0::bigint AS held"
		       " FROM jitrca.notification n WHERE n.state = 'waiting' GROUP BY n.channel"
		       " UNION ALL SELECT n.channel, 0, count(*), 0, 0 FROM jitrca.notification n"
		       " WHERE n.state = 'dead' GROUP BY n.channel"
		       " UNION ALL SELECT c.channel, 0, 0, 0, c.repeats + c.over_rate + c.over_queue"
		       " FROM jitrca.notification_channel c) d GROUP BY d.channel ORDER BY d.channel"
		       " LIMIT $1::bigint",
	},
	[RETENTION] = { /* notification_ended */
		.name = "retention_notifications", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM jitrca.notification n USING (SELECT o.seq FROM jitrca.notification o"
		       " WHERE o.state <> 'waiting' AND o.revocation_id IS NULL"
		       " AND o.ended_at < " SQL_AT_S("$1")
		       " ORDER BY o.ended_at LIMIT $2::bigint FOR UPDATE SKIP LOCKED) old"
		       " WHERE n.seq = old.seq",
	},
	[RETENTION_DEAD] = { /* notification_old */
		.name = "retention_notifications_dead", .params = 4, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE jitrca.notification n SET state = 'dead', ended_at = now(),"
		       " error_code = $3::text, error_text = $4::text"
		       " FROM (SELECT o.seq FROM jitrca.notification o WHERE o.state = 'waiting'"
		       " AND o.created_at < " SQL_AT_S("$1") " ORDER BY o.created_at LIMIT $2::bigint"
		       " FOR UPDATE SKIP LOCKED) old WHERE n.seq = old.seq",
	},
	[RETENTION_TOLD] = { /* notification_told_until */
		.name = "retention_notifications_told", .params = 1, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM jitrca.notification_told t USING (SELECT o.channel, o.key"
		       " FROM jitrca.notification_told o WHERE o.until < now() ORDER BY o.until"
		       " LIMIT $1::bigint FOR UPDATE SKIP LOCKED) old"
		       " WHERE t.channel = old.channel AND t.key = old.key",
	},
};

const struct db_table DB_TABLE_NOTIFICATION = { SQL, COUNT_OF(SQL) };

/* ---- routing ---- */

enum status
db_notification_meter(struct db_tx *tx, const char *channel, double per_hour, double burst,
	struct db_notification_meter *out, struct err *err)
{
	own(PGresult) rows = NULL;
	struct db_row row;

	TRY(db_run(tx, &SQL[METER_MAKE], DB_PARAMS(db_text(channel), db_double(burst)), NULL, err));
	TRY(db_run(tx, &SQL[METER], DB_PARAMS(db_text(channel), db_double(per_hour), db_double(burst)),
		&rows, err));
	row = db_row(rows, 0);
	out->bucket = db_row_double(&row);
	out->repeats = db_row_int64(&row);
	out->over_rate = db_row_int64(&row);
	out->over_queue = db_row_int64(&row);
	out->worst = db_row_int64(&row);
	out->held_since_s = db_row_int64(&row);
	out->waiting = db_row_int64(&row);
	out->now_s = db_row_int64(&row);
	return db_row_end(&row, err);
}

enum status
db_notification_meter_set(struct db_tx *tx, const char *channel,
	const struct db_notification_meter *meter, struct err *err)
{
	return db_run(tx, &SQL[METER_SET], DB_PARAMS(db_text(channel), db_double(meter->bucket),
		db_int64(meter->repeats), db_int64(meter->over_rate), db_int64(meter->over_queue),
		db_int64(meter->worst), db_int64(meter->held_since_s)), NULL, err);
}

static enum status
read_flag(const PGresult *rows, bool *out, struct err *err)
{
	struct db_row row = db_row(rows, 0);

	*out = db_row_bool(&row);
	return db_row_end(&row, err);
}

enum status
db_notification_held(struct db_tx *tx, const char *channel, int64_t for_s, bool *held, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[HELD], DB_PARAMS(db_text(channel), db_int64(for_s)), &rows, err));
	return read_flag(rows, held, err);
}

enum status
db_notification_first(struct db_tx *tx, const char *channel, const uint8_t key[DB_NOTIFICATION_KEY_BYTES],
	int64_t within_s, bool *first, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[FIRST], DB_PARAMS(db_text(channel),
		db_octets(key, DB_NOTIFICATION_KEY_BYTES), db_int64(within_s)), &rows, err));
	*first = db_rows(rows) == 1;
	return OK;
}

/* ---- deliveries ---- */

static enum status
read_row(const PGresult *rows, int r, struct db_notification *out, struct err *err)
{
	struct db_row row = db_row(rows, r);

	db_row_text(&row, out->notification_id, sizeof(out->notification_id));
	db_row_text(&row, out->channel, sizeof(out->channel));
	out->event_id = db_row_int64(&row);
	db_row_text(&row, out->kind, sizeof(out->kind));
	db_row_text(&row, out->severity, sizeof(out->severity));
	db_row_text(&row, out->state, sizeof(out->state));
	out->attempts = db_row_int64(&row);
	out->created_at_s = db_row_int64(&row);
	out->due_at_s = db_row_int64(&row);
	out->ended_at_s = db_row_int64(&row);
	out->age_s = db_row_int64(&row);
	out->seq = db_row_int64(&row);
	out->lease = db_row_int64(&row);
	db_row_text(&row, out->revocation_id, sizeof(out->revocation_id));
	out->http_status = db_row_int32(&row);
	db_row_text(&row, out->error_code, sizeof(out->error_code));
	db_row_text(&row, out->error_text, sizeof(out->error_text));
	db_row_text(&row, out->body, sizeof(out->body));
	return db_row_end(&row, err);
}

static enum status
wake(struct db_tx *tx, struct err *err)
{
	return db_run(tx, &SQL[WAKE], DB_NO_PARAMS, NULL, err);
}

enum status
db_notification_put(struct db_tx *tx, const struct db_notification *notification, struct err *err)
{
	TRY(db_run(tx, &SQL[PUT], DB_PARAMS(db_text(notification->notification_id),
		db_text(notification->channel), db_int64_or_null(notification->event_id),
		db_text(notification->kind), db_text(notification->severity),
		db_text(notification->body), db_text(notification->revocation_id)), NULL, err));
	return wake(tx, err);
}

enum status
db_notification_lease(struct db_tx *tx, const char *channel, int64_t lease_ms,
	struct db_notification *out, bool *found, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[LEASE], DB_PARAMS(db_text(channel), db_int64(lease_ms)), &rows, err));
	*found = db_rows(rows) == 1;
	return *found ? read_row(rows, 0, out, err) : OK;
}

enum status
db_notification_sent(struct db_tx *tx, const struct db_notification *notification, struct err *err)
{
	return db_run(tx, &SQL[SENT], DB_PARAMS(db_int64(notification->seq),
		db_int64(notification->lease), db_int64(notification->http_status)), NULL, err);
}

enum status
db_notification_fail(struct db_tx *tx, const struct db_notification *notification, int64_t wait_ms,
	bool dead, const struct err *why, struct err *err)
{
	return db_run(tx, &SQL[FAIL], DB_PARAMS(db_int64(notification->seq),
		db_int64(notification->lease), db_int64(wait_ms), db_bool(dead), db_text(why->code),
		db_text(why->text), db_int64(notification->http_status)), NULL, err);
}

enum status
db_notification_let_go(struct db_tx *tx, const struct db_notification *notification, struct err *err)
{
	return db_run(tx, &SQL[LET_GO], DB_PARAMS(db_int64(notification->seq),
		db_int64(notification->lease)), NULL, err);
}

enum status
db_notification_hasten(struct db_tx *tx, const char *channel, struct err *err)
{
	return db_run(tx, &SQL[HASTEN], DB_PARAMS(db_text(channel)), NULL, err);
}

enum status
db_notification_list(struct db_tx *tx, const struct db_notification_filter *filter, size_t limit,
	struct db_notification *out, size_t *count, struct err *err)
{
	int64_t before = filter->before_seq > 0 ? filter->before_seq : INT64_MAX;
	own(PGresult) rows = NULL;

	if (filter->state == NULL)
		TRY(db_run(tx, &SQL[LIST], DB_PARAMS(db_int64(before), db_text(filter->channel),
			db_int64((int64_t)limit)), &rows, err));
	else
		TRY(db_run(tx, &SQL[LIST_STATE], DB_PARAMS(db_int64(before), db_text(filter->channel),
			db_int64((int64_t)limit), db_text(filter->state)), &rows, err));
	for (int r = 0; r < db_rows(rows); r++)
		TRY(read_row(rows, r, &out[r], err));
	*count = (size_t)db_rows(rows);
	return OK;
}

enum status
db_notification_find(struct db_tx *tx, const char *id, struct db_notification *out, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[FIND], DB_PARAMS(db_text(id)), &rows, err));
	if (db_rows(rows) == 0)
		return err_set(err, ERR_NOT_FOUND, "notification_unknown",
			"id: there is no such notification");
	return read_row(rows, 0, out, err);
}

enum status
db_notification_of_receipt(struct db_tx *tx, const char *revocation_id, size_t max,
	struct db_notification *out, size_t *count, bool *routing, struct err *err)
{
	own(PGresult) waiting = NULL;
	own(PGresult) rows = NULL;

	/* First this: what is routed in between shows among the rows. */
	TRY(db_run(tx, &SQL[ROUTING], DB_PARAMS(db_text(revocation_id)), &waiting, err));
	TRY(read_flag(waiting, routing, err));
	TRY(db_run(tx, &SQL[OF_RECEIPT], DB_PARAMS(db_text(revocation_id), db_int64((int64_t)max)), &rows,
		err));
	*count = (size_t)db_rows(rows);
	for (size_t i = 0; i < *count; i++)
		TRY(read_row(rows, (int)i, &out[i], err));
	return OK;
}

enum status
db_notification_retry(struct db_tx *tx, const char *id, const char *channel, size_t max, size_t *count,
	struct err *err)
{
	own(PGresult) done = NULL;

	if (id != NULL)
		TRY(db_run(tx, &SQL[RETRY_ONE], DB_PARAMS(db_text(id)), &done, err));
	else
		TRY(db_run(tx, &SQL[RETRY], DB_PARAMS(db_text(channel), db_int64((int64_t)max)), &done,
			err));
	*count = (size_t)db_affected(done);
	return wake(tx, err);
}

enum status
db_notification_depths(struct db_tx *tx, struct db_notification_depth *out, size_t max, size_t *count,
	struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[DEPTHS], DB_PARAMS(db_int64((int64_t)max)), &rows, err));
	for (int r = 0; r < db_rows(rows); r++) {
		struct db_row row = db_row(rows, r);

		db_row_text(&row, out[r].channel, sizeof(out[r].channel));
		out[r].waiting = db_row_int64(&row);
		out[r].dead = db_row_int64(&row);
		out[r].oldest_s = db_row_int64(&row);
		out[r].held = db_row_int64(&row);
		TRY(db_row_end(&row, err));
	}
	*count = (size_t)db_rows(rows);
	return OK;
}

enum status
db_retention_notifications(struct db_tx *tx, int64_t before_s, int64_t dead_before_s, size_t max,
	size_t *deleted, struct err *err)
{
	own(PGresult) done = NULL;
	struct err why;

	(void)err_set(&why, ERR_NOT_FOUND, "notification_expired", "no server's file names the channel");
	TRY(db_run(tx, &SQL[RETENTION], DB_PARAMS(db_int64(before_s), db_int64((int64_t)max)), &done,
		err));
	*deleted = (size_t)db_affected(done);
	TRY(db_run(tx, &SQL[RETENTION_DEAD], DB_PARAMS(db_int64(dead_before_s),
		db_int64((int64_t)max), db_text(why.code), db_text(why.text)), NULL, err));
	return db_run(tx, &SQL[RETENTION_TOLD], DB_PARAMS(db_int64((int64_t)max)), NULL, err);
}
