#include "db/outbox.h"

#include <string.h>

#include "db/run.h"

enum {
	LEASE,
	RELEASE_DEAD,
	RENEW,
	HOLD,
	DONE,
	LET_GO,
	DONE_MANY,
	LET_GO_MANY,
	HASTEN,
	FAIL,
	DISCARD,
	PUT_CERTIFICATE,
	PUT_DEVICE,
	NOTIFY,
	LIST,
	LIST_FAILED,
	RETRY,
	RETRY_ALL,
	PENDING,
	DEPTH,
	DEPTH_TAKES,
	STATEMENTS,
};

#define COLUMNS                                                                                    \
	"o.device_id, o.version, o.cause, o.priority, o.attempts, coalesce(o.lease, 0),"               \
	" " SQL_US("o.created_at") ", " SQL_US("o.due_at") ", coalesce(" SQL_S("o.failed_at") ", 0),"   \
	" o.error_code, left(o.error_text, 500)"
#define COLUMN_COUNT 11
/* Rows at the front of outbox_due that may be leased: more than all workers of some servers have. */
#define FRONT 500
#define MS(param) "(" param "::bigint * interval '1 millisecond')"

static const struct db_statement SQL[STATEMENTS] = {
	[LEASE] = {
		/* outbox_due. Leased rows stand at the front of the index: as many as there are workers. */
		.name = "outbox_lease", .params = 4, .columns = COLUMN_COUNT, .rows = ROWS_ANY,
		.sql = "WITH n AS MATERIALIZED (SELECT ($4::bigint << 32)"
		       " | (nextval('jitrca.outbox_lease') & 4294967295) AS lease),"
		       " w AS MATERIALIZED (SELECT o.device_id FROM jitrca.outbox o"
		       " WHERE o.failed_at IS NULL AND o.priority <= $1::int AND o.due_at <= now()"
		       " AND (o.lease_until IS NULL OR o.lease_until <= now())"
		       " ORDER BY o.priority, o.due_at, o.device_id LIMIT $2::bigint"
		       " FOR UPDATE SKIP LOCKED),"
		       " o AS (UPDATE jitrca.outbox o SET lease = n.lease, lease_until = now() + "
		       MS("$3") " FROM w, n WHERE o.device_id = w.device_id RETURNING o.*)"
		       " SELECT " COLUMNS " FROM o ORDER BY o.priority, o.due_at, o.device_id",
	},
	[RELEASE_DEAD] = {
		/* outbox_due, its front: what is leased was there when it was leased, and nothing passes it
		 * but what is more urgent. Who gets an instance's lock knows that its session is gone. */
		.name = "outbox_release_dead", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "WITH f AS MATERIALIZED (SELECT o.device_id, o.lease,"
		       " (o.lease >> 32)::int AS instance FROM jitrca.outbox o"
		       " WHERE o.failed_at IS NULL AND o.due_at <= now()"
		       " ORDER BY o.priority, o.due_at, o.device_id LIMIT $2::bigint),"
		       " dead AS MATERIALIZED (SELECT a.instance FROM (SELECT DISTINCT f.instance FROM f"
		       " WHERE f.instance > 0 AND f.instance <> $1::int OFFSET 0) a"
		       " WHERE pg_try_advisory_xact_lock(1784, a.instance))"
		       " UPDATE jitrca.outbox o SET lease = NULL, lease_until = NULL FROM f, dead"
		       " WHERE f.instance = dead.instance AND o.device_id = f.device_id"
		       " AND o.lease = f.lease",
	},
	[RENEW] = { /* outbox_pkey */
		.name = "outbox_renew", .params = 3, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE jitrca.outbox o SET lease_until = now() + " MS("$3")
		       " WHERE o.device_id = $1::text AND o.lease = $2::bigint AND o.lease_until > now()",
	},
	[HOLD] = { /* outbox_pkey; in one order, so that two do not wait for each other */
		.name = "outbox_hold", .params = 3, .columns = 1, .rows = ROWS_ANY,
		.sql = "SELECT i.idx FROM unnest($1::int[], $2::text[], $3::bigint[])"
		       " AS i(idx, device_id, lease) JOIN jitrca.outbox o ON o.device_id = i.device_id"
		       " AND o.lease = i.lease AND o.lease_until > now() ORDER BY o.device_id"
		       " FOR UPDATE OF o",
	},
	[DONE] = { /* outbox_pkey */
		.name = "outbox_done", .params = 3, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM jitrca.outbox o WHERE o.device_id = $1::text"
		       " AND o.lease = $2::bigint AND o.version = $3::bigint",
	},
	[LET_GO] = { /* outbox_pkey */
		.name = "outbox_let_go", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE jitrca.outbox o SET lease = NULL, lease_until = NULL"
		       " WHERE o.device_id = $1::text AND o.lease = $2::bigint",
	},
	[DONE_MANY] = { /* outbox_pkey */
		.name = "outbox_done_many", .params = 3, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM jitrca.outbox o USING unnest($1::text[], $2::bigint[], $3::bigint[])"
		       " AS i(device_id, version, lease) WHERE o.device_id = i.device_id"
		       " AND o.lease = i.lease AND o.version = i.version",
	},
	[LET_GO_MANY] = { /* outbox_pkey */
		.name = "outbox_let_go_many", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE jitrca.outbox o SET lease = NULL, lease_until = NULL"
		       " FROM unnest($1::text[], $2::bigint[]) AS i(device_id, lease)"
		       " WHERE o.device_id = i.device_id AND o.lease = i.lease",
	},
	[HASTEN] = { /* outbox_due */
		.name = "outbox_hasten", .params = 0, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE jitrca.outbox o SET due_at = now() WHERE o.failed_at IS NULL"
		       " AND o.priority = 0 AND o.due_at > now()",
	},
	[FAIL] = { /* outbox_pkey */
		.name = "outbox_fail", .params = 7, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE jitrca.outbox o SET lease = NULL, lease_until = NULL,"
		       " attempts = CASE WHEN o.version = $3::bigint THEN o.attempts + 1 ELSE 0 END,"
		       " due_at = CASE WHEN o.version = $3::bigint THEN now() + " MS("$4")
		       " ELSE o.due_at END, failed_at = CASE WHEN o.version = $3::bigint AND $5::bool"
		       " THEN now() ELSE o.failed_at END, error_code = $6::text, error_text = $7::text"
		       " WHERE o.device_id = $1::text AND o.lease = $2::bigint",
	},
	[DISCARD] = { /* outbox_pkey */
		.name = "outbox_discard", .params = 1, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM jitrca.outbox o WHERE o.device_id IN (SELECT w.device_id"
		       " FROM jitrca.outbox w ORDER BY w.device_id LIMIT $1::bigint"
		       " FOR UPDATE SKIP LOCKED)",
	},
	[PUT_CERTIFICATE] = { /* outbox_pkey */
		.name = "outbox_put_certificate", .params = 3, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO jitrca.outbox AS o (device_id, version, cause, priority)"
		       " VALUES ('certificate/' || $1::text, 1, $2::text, $3::smallint)"
		       OUTBOX_AGAIN_UNVERSIONED,
	},
	[PUT_DEVICE] = { /* device_pkey, outbox_pkey */
		.name = "outbox_put_device", .params = 3, .columns = 1, .rows = ROWS_MAYBE,
		.sql = "WITH d AS (UPDATE jitrca.device d SET version = d.version + 1"
		       " WHERE d.device_id = $1::text RETURNING d.device_id, d.version)"
		       " INSERT INTO jitrca.outbox AS o (device_id, version, cause, priority)"
		       " SELECT d.device_id, d.version, $2::text, $3::smallint FROM d" OUTBOX_AGAIN
		       " RETURNING o.version",
	},
	[NOTIFY] = {
		.name = "outbox_notify", .params = 1, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT true FROM pg_notify('jitrca_outbox', $1::text)",
	},
	[LIST] = { /* outbox_pkey */
		.name = "outbox_list", .params = 2, .columns = COLUMN_COUNT, .rows = ROWS_ANY,
		.sql = "SELECT " COLUMNS " FROM jitrca.outbox o WHERE o.device_id > $1::text"
		       " ORDER BY o.device_id LIMIT $2::bigint",
	},
	[LIST_FAILED] = { /* outbox_failed: dead letters are few */
		.name = "outbox_list_failed", .params = 2, .columns = COLUMN_COUNT, .rows = ROWS_ANY,
		.sql = "SELECT " COLUMNS " FROM jitrca.outbox o WHERE o.failed_at IS NOT NULL"
		       " AND o.device_id > $1::text ORDER BY o.device_id LIMIT $2::bigint",
	},
	[RETRY] = { /* outbox_pkey */
		.name = "outbox_retry", .params = 1, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE jitrca.outbox o SET failed_at = NULL, attempts = 0, due_at = now()"
		       " WHERE o.device_id = $1::text AND o.failed_at IS NOT NULL",
	},
	[RETRY_ALL] = { /* outbox_failed */
		.name = "outbox_retry_all", .params = 0, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE jitrca.outbox o SET failed_at = NULL, attempts = 0, due_at = now()"
		       " WHERE o.failed_at IS NOT NULL",
	},
	[PENDING] = { /* outbox_pkey */
		.name = "outbox_pending", .params = 1, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT EXISTS (SELECT FROM jitrca.outbox o WHERE o.device_id = $1::text)",
	},
	[DEPTH] = { /* outbox_due, outbox_failed: asked by people and scrapers, seldom */
		.name = "outbox_depth", .params = 0, .columns = 3, .rows = ROWS_ANY,
		.sql = "SELECT o.priority, count(*), greatest(0, extract(epoch FROM"
		       " now() - min(o.created_at)))::bigint FROM jitrca.outbox o"
		       " WHERE o.failed_at IS NULL GROUP BY o.priority"
		       " UNION ALL SELECT -1, count(*), 0 FROM jitrca.outbox o"
		       " WHERE o.failed_at IS NOT NULL",
	},
	[DEPTH_TAKES] = { /* outbox_due, by its first column; outbox_failed */
		.name = "outbox_takes", .params = 1, .columns = 2, .rows = ROWS_ONE,
		.sql = "SELECT (SELECT count(*) FROM jitrca.outbox o WHERE o.failed_at IS NULL"
		       " AND o.priority = 0 AND ($1::bigint = 0 OR o.created_at <= "
		       SQL_AT_S("$1 + 1") ")), (SELECT count(*) FROM jitrca.outbox o"
		       " WHERE o.failed_at IS NOT NULL AND o.priority = 0"
		       " AND ($1::bigint = 0 OR o.created_at <= " SQL_AT_S("$1 + 1") "))",
	},
};

const struct db_table DB_TABLE_OUTBOX = { SQL, COUNT_OF(SQL) };

static enum status
read_rows(const PGresult *rows, struct db_outbox_row *out, size_t *count, struct err *err)
{
	*count = (size_t)db_rows(rows);
	for (int r = 0; r < db_rows(rows); r++) {
		struct db_row row = db_row(rows, r);

		db_row_text(&row, out[r].key, sizeof(out[r].key));
		out[r].version = db_row_int64(&row);
		db_row_text(&row, out[r].cause, sizeof(out[r].cause));
		out[r].priority = db_row_int32(&row);
		out[r].attempts = db_row_int64(&row);
		out[r].lease = db_row_int64(&row);
		out[r].created_at_us = db_row_int64(&row);
		out[r].due_at_us = db_row_int64(&row);
		out[r].failed_at_s = db_row_int64(&row);
		db_row_text(&row, out[r].error_code, sizeof(out[r].error_code));
		db_row_text(&row, out[r].error_text, sizeof(out[r].error_text));
		TRY(db_row_end(&row, err));
	}
	return OK;
}

enum status
db_outbox_lease(struct db_tx *tx, int32_t instance_id, int least_urgent, size_t max, int64_t lease_ms,
	struct db_outbox_row *out, size_t *count, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[LEASE], DB_PARAMS(db_int64(least_urgent), db_int64((int64_t)max),
		db_int64(lease_ms), db_int64(instance_id)), &rows, err));
	return read_rows(rows, out, count, err);
}

enum status
db_outbox_release_dead(struct db_tx *tx, int32_t instance_id, size_t *count, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[RELEASE_DEAD], DB_PARAMS(db_int64(instance_id), db_int64(FRONT)), &rows,
		err));
	*count = (size_t)db_affected(rows);
	return OK;
}

enum status
db_outbox_renew(struct db_tx *tx, const struct db_outbox_row *row, int64_t lease_ms, bool *held,
	struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[RENEW], DB_PARAMS(db_text(row->key), db_int64(row->lease),
		db_int64(lease_ms)), &rows, err));
	*held = db_affected(rows) == 1;
	return OK;
}

enum status
db_outbox_hold(struct db_tx *tx, const struct db_outbox_row *const *rows, size_t count, bool *held,
	struct err *err)
{
	own_struct(db_array) indexes = DB_ARRAY(ARRAY_INT4);
	own_struct(db_array) keys = DB_ARRAY(ARRAY_TEXT);
	own_struct(db_array) leases = DB_ARRAY(ARRAY_INT8);
	own(PGresult) found = NULL;

	for (size_t i = 0; i < count; i++) {
		held[i] = false;
		TRY(db_array_add_int(&indexes, (int64_t)i, err));
		TRY(db_array_add_text(&keys, rows[i]->key, err));
		TRY(db_array_add_int(&leases, rows[i]->lease, err));
	}
	TRY(db_run(tx, &SQL[HOLD], DB_PARAMS(db_array(&indexes), db_array(&keys), db_array(&leases)),
		&found, err));
	for (int r = 0; r < db_rows(found); r++) {
		struct db_row row = db_row(found, r);

		held[db_row_int32(&row)] = true;
		TRY(db_row_end(&row, err));
	}
	return OK;
}

enum status
db_outbox_done(struct db_tx *tx, const struct db_outbox_row *row, bool *removed, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[DONE], DB_PARAMS(db_text(row->key), db_int64(row->lease),
		db_int64(row->version)), &rows, err));
	*removed = db_affected(rows) == 1;
	if (*removed)
		return OK;
	return db_run(tx, &SQL[LET_GO], DB_PARAMS(db_text(row->key), db_int64(row->lease)), NULL,
		err);
}

enum status
db_outbox_done_many(struct db_tx *tx, const struct db_outbox_row *const *rows, size_t count,
	struct err *err)
{
	own_struct(db_array) keys = DB_ARRAY(ARRAY_TEXT);
	own_struct(db_array) versions = DB_ARRAY(ARRAY_INT8);
	own_struct(db_array) leases = DB_ARRAY(ARRAY_INT8);
	own(PGresult) done = NULL;

	if (count == 0)
		return OK;
	for (size_t i = 0; i < count; i++) {
		TRY(db_array_add_text(&keys, rows[i]->key, err));
		TRY(db_array_add_int(&versions, rows[i]->version, err));
		TRY(db_array_add_int(&leases, rows[i]->lease, err));
	}
	TRY(db_run(tx, &SQL[DONE_MANY], DB_PARAMS(db_array(&keys), db_array(&versions),
		db_array(&leases)), &done, err));
	if ((size_t)db_affected(done) == count)
		return OK;
	return db_run(tx, &SQL[LET_GO_MANY], DB_PARAMS(db_array(&keys), db_array(&leases)), NULL,
		err);
}

enum status
db_outbox_let_go(struct db_tx *tx, const struct db_outbox_row *const *rows, size_t count,
	struct err *err)
{
	own_struct(db_array) keys = DB_ARRAY(ARRAY_TEXT);
	own_struct(db_array) leases = DB_ARRAY(ARRAY_INT8);

	if (count == 0)
		return OK;
	for (size_t i = 0; i < count; i++) {
		TRY(db_array_add_text(&keys, rows[i]->key, err));
		TRY(db_array_add_int(&leases, rows[i]->lease, err));
	}
	return db_run(tx, &SQL[LET_GO_MANY], DB_PARAMS(db_array(&keys), db_array(&leases)), NULL,
		err);
}

enum status
db_outbox_hasten(struct db_tx *tx, struct err *err)
{
	return db_run(tx, &SQL[HASTEN], DB_NO_PARAMS, NULL, err);
}

enum status
db_outbox_fail(struct db_tx *tx, const struct db_outbox_row *row, int64_t wait_ms, bool dead,
	const struct err *why, struct err *err)
{
	return db_run(tx, &SQL[FAIL], DB_PARAMS(db_text(row->key), db_int64(row->lease),
		db_int64(row->version), db_int64(wait_ms), db_bool(dead), db_text(why->code),
		db_text(why->text)), NULL, err);
}

enum status
db_outbox_discard(struct db_tx *tx, size_t max, size_t *count, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[DISCARD], DB_PARAMS(db_int64((int64_t)max)), &rows, err));
	*count = (size_t)db_affected(rows);
	return OK;
}

enum status
db_outbox_put_certificate(struct db_tx *tx, const char *certificate_id, const char *cause,
	int priority, struct err *err)
{
	return db_run(tx, &SQL[PUT_CERTIFICATE], DB_PARAMS(db_text(certificate_id), db_text(cause),
		db_int64(priority)), NULL, err);
}

enum status
db_outbox_put_device(struct db_tx *tx, const char *device_id, const char *cause, int priority,
	struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[PUT_DEVICE], DB_PARAMS(db_text(device_id), db_text(cause),
		db_int64(priority)), &rows, err));
	if (db_rows(rows) == 0)
		return err_set(err, ERR_NOT_FOUND, "device_unknown", "device: there is no %s",
			device_id);
	return OK;
}

enum status
db_outbox_notify(struct db_tx *tx, enum db_outbox_priority priority, struct err *err)
{
	return db_run(tx, &SQL[NOTIFY], DB_PARAMS(db_text(priority == OUTBOX_TAKES ? "" :
		OUTBOX_GIVES_PAYLOAD)), NULL, err);
}

enum status
db_outbox_list(struct db_tx *tx, bool failed, const char *after, size_t limit,
	struct db_outbox_row *out, size_t *count, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[failed ? LIST_FAILED : LIST], DB_PARAMS(db_text(after),
		db_int64((int64_t)limit)), &rows, err));
	return read_rows(rows, out, count, err);
}

enum status
db_outbox_retry(struct db_tx *tx, const char *key, size_t *count, struct err *err)
{
	own(PGresult) rows = NULL;

	if (key != NULL)
		TRY(db_run(tx, &SQL[RETRY], DB_PARAMS(db_text(key)), &rows, err));
	else
		TRY(db_run(tx, &SQL[RETRY_ALL], DB_NO_PARAMS, &rows, err));
	*count = (size_t)db_affected(rows);
	return OK;
}

enum status
db_outbox_pending(struct db_tx *tx, const char *key, bool *pending, struct err *err)
{
	own(PGresult) rows = NULL;
	struct db_row row;

	TRY(db_run(tx, &SQL[PENDING], DB_PARAMS(db_text(key)), &rows, err));
	row = db_row(rows, 0);
	*pending = db_row_bool(&row);
	return db_row_end(&row, err);
}

enum status
db_outbox_depth(struct db_tx *tx, struct db_outbox_depth *out, struct err *err)
{
	own(PGresult) rows = NULL;

	*out = (struct db_outbox_depth){ .dead = 0 };
	TRY(db_run(tx, &SQL[DEPTH], DB_NO_PARAMS, &rows, err));
	for (int r = 0; r < db_rows(rows); r++) {
		struct db_row row = db_row(rows, r);
		int32_t priority = db_row_int32(&row);
		int64_t waiting = db_row_int64(&row);
		int64_t oldest_s = db_row_int64(&row);

		TRY(db_row_end(&row, err));
		if (priority < 0)
			out->dead = waiting;
		else if (priority < OUTBOX_PRIORITIES) {
			out->waiting[priority] = waiting;
			out->oldest_s[priority] = oldest_s;
		}
	}
	return OK;
}

enum status
db_outbox_takes(struct db_tx *tx, int64_t until_s, struct db_outbox_takes *out, struct err *err)
{
	own(PGresult) rows = NULL;
	struct db_row row;

	TRY(db_run(tx, &SQL[DEPTH_TAKES], DB_PARAMS(db_int64(until_s)), &rows, err));
	row = db_row(rows, 0);
	out->waiting = db_row_int64(&row);
	out->dead = db_row_int64(&row);
	return db_row_end(&row, err);
}
