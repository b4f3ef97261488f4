#include "db/doctor.h"

#include "db/conn.h"

enum {
	PATIENCE,
	SERVER,
	VISIT,
	OUTBOX,
	PAGES,
	WEEKS,
	REVOKED,
	STATEMENTS,
};

/* Views of the server's own state, with a row for each of its sessions: max_connections at most. */
#define SQL_SERVER                                                                                 \
	"SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only') = 'on',"     \
	" current_setting('synchronous_commit') NOT IN ('off', 'local'),"                          \
	" current_setting('fsync') = 'on', current_setting('server_version_num')::bigint, "        \
	SQL_S("clock_timestamp()") ", (SELECT count(*) FROM pg_catalog.pg_stat_replication),"      \
	" (SELECT count(*) FROM pg_catalog.pg_stat_activity WHERE datid IS NOT NULL),"             \
	" current_setting('max_connections')::bigint"                                              \
	" - current_setting('superuser_reserved_connections')::bigint"
#define SERVER_COLUMNS 9

/* LIMIT stands inside, so that the count ends there. */
#define SQL_WAITING(priority)                                                                      \
	"SELECT " priority ", count(*), coalesce(max(extract(epoch FROM now() - w.created_at)), 0)"    \
	"::bigint FROM (SELECT o.created_at FROM jitrca.outbox o WHERE o.failed_at IS NULL"            \
	" AND o.priority = " priority " ORDER BY o.due_at, o.device_id LIMIT $1::bigint) w"

static const struct db_statement SQL[STATEMENTS] = {
	[PATIENCE] = {
		.name = "doctor_patience", .params = 0, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT set_config('statement_timeout', '5s', true)"
		       " || set_config('lock_timeout', '1s', true)",
	},
	[SERVER] = {
		.name = "doctor_server", .params = 0, .columns = SERVER_COLUMNS, .rows = ROWS_ONE,
		.sql = SQL_SERVER,
	},
	[VISIT] = { /* on a connection that may be a standby's, or a database's without our schema */
		.name = "doctor_visit", .params = 0, .columns = SERVER_COLUMNS, .rows = ROWS_ONE,
		.unprepared = true,
		.sql = SQL_SERVER,
	},
	[OUTBOX] = { /* outbox_due, by priority; outbox_failed */
		.name = "doctor_outbox", .params = 1, .columns = 3, .rows = ROWS_ANY,
		.sql = SQL_WAITING("0") " UNION ALL " SQL_WAITING("1") " UNION ALL " SQL_WAITING("2")
		       " UNION ALL SELECT -1, count(*), 0 FROM (SELECT 1 FROM jitrca.outbox o"
		       " WHERE o.failed_at IS NOT NULL ORDER BY o.failed_at, o.device_id"
		       " LIMIT $1::bigint) d",
	},
	[PAGES] = { /* of the catalogue and the files' sizes: a month is a table */
		.name = "doctor_pages", .params = 1, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT coalesce(sum(pg_relation_size(h.inhrelid)"
		       " / current_setting('block_size')::bigint), 0)::bigint"
		       " FROM pg_catalog.pg_inherits h JOIN pg_catalog.pg_class k ON k.oid = h.inhrelid"
		       " WHERE h.inhparent = 'jitrca.certificate'::regclass"
		       " AND substring(k.relname FROM '^certificate_([0-9]+)$')::int >= $1::int",
	},
	/* No index: pages drawn by lot, $3 of a hundred, which is a number of pages that does not
	 * grow. The same ones each time, so that two answers differ only by what has changed. */
	[WEEKS] = {
		.name = "doctor_weeks", .params = 4, .columns = 2, .rows = ROWS_ANY,
		.sql = "SELECT " SQL_S("date_trunc('week', c.not_after, 'UTC')") ", count(*)"
		       " FROM jitrca.certificate c TABLESAMPLE SYSTEM ($3::float8) REPEATABLE (0)"
		       " WHERE c.expiry_month >= $1::int AND c.status = 'active' AND c.of_device"
		       " AND c.not_after > " SQL_AT_S("$2")
		       " GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT $4::bigint",
	},
	/* revocation_shard, in its order: behind the shard it goes by the serial, whose first octets
	 * are random, so its beginning is a fair sample of all. */
	[REVOKED] = {
		.name = "doctor_revoked", .params = 5, .columns = 3, .rows = ROWS_ONE,
		.sql = "SELECT count(*), count(*) FILTER (WHERE s.revoked_at >= " SQL_AT_S("$3") "),"
		       " count(*) FILTER (WHERE s.not_after < " SQL_AT_S("$4") ")"
		       " FROM (SELECT r.revoked_at, r.not_after FROM jitrca.revocation r"
		       " WHERE r.issuer_id = $1::int ORDER BY r.issuer_id,"
		       " jitrca.serial_shard(r.serial), r.serial LIMIT $5::bigint) s"
		       " WHERE s.not_after > " SQL_AT_S("$2"),
	},
};
const struct db_table DB_TABLE_DOCTOR = { SQL, COUNT_OF(SQL) };

static enum status
read_server(const PGresult *rows, struct db_doctor_server *out, struct err *err)
{
	struct db_row row = db_row(rows, 0);

	*out = (struct db_doctor_server){ .standby = db_row_bool(&row) };
	out->read_only = db_row_bool(&row);
	out->synchronous = db_row_bool(&row);
	out->fsync = db_row_bool(&row);
	out->version = db_row_int64(&row);
	out->now_s = db_row_int64(&row);
	out->standbys = db_row_int64(&row);
	out->connections = db_row_int64(&row);
	out->connections_max = db_row_int64(&row);
	return db_row_end(&row, err);
}

enum status
db_doctor_visit(const char *conninfo, struct db_doctor_server *out, struct err *err)
{
	own(PGresult) rows = NULL;
	own(db_conn) conn = NULL;

	/* As a server would; of several hosts, the first that answers may be a standby beside a primary. */
	if (db_conn_open(&conn, conninfo, err) != OK)
		TRY(db_conn_open_any(&conn, conninfo, err));
	struct db_tx tx = { NULL, conn };
	TRY(db_run(&tx, &SQL[VISIT], DB_NO_PARAMS, &rows, err));
	return read_server(rows, out, err);
}

enum status
db_doctor_server(struct db_tx *tx, struct db_doctor_server *out, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[SERVER], DB_NO_PARAMS, &rows, err));
	return read_server(rows, out, err);
}

enum status
db_doctor_patience(struct db_tx *tx, struct err *err)
{
	return db_run(tx, &SQL[PATIENCE], DB_NO_PARAMS, NULL, err);
}

enum status
db_doctor_outbox(struct db_tx *tx, struct db_doctor_outbox *out, struct err *err)
{
	own(PGresult) rows = NULL;

	*out = (struct db_doctor_outbox){ .dead = 0 };
	TRY(db_run(tx, &SQL[OUTBOX], DB_PARAMS(db_int64(DB_DOCTOR_COUNT_MAX)), &rows, err));
	for (int r = 0; r < db_rows(rows); r++) {
		struct db_row row = db_row(rows, r);
		int32_t priority = db_row_int32(&row);
		int64_t count = db_row_int64(&row);
		int64_t oldest_s = db_row_int64(&row);

		TRY(db_row_end(&row, err));
		if (priority < 0) {
			out->dead = count;
		} else if ((size_t)priority < COUNT_OF(out->waiting)) {
			out->waiting[priority] = count;
			out->oldest_s[priority] = oldest_s;
		}
	}
	return OK;
}

/* Of the months that have not passed. */
static enum status
read_pages(struct db_tx *tx, int32_t month, int64_t *pages, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[PAGES], DB_PARAMS(db_int64(month)), &rows, err));
	struct db_row row = db_row(rows, 0);
	*pages = db_row_int64(&row);
	return db_row_end(&row, err);
}

enum status
db_doctor_fleet(struct db_tx *tx, int64_t now_s, struct db_doctor_fleet *out, struct err *err)
{
	own(PGresult) rows = NULL;
	int32_t month = expiry_month(now_s);
	int64_t pages = 0;

	*out = (struct db_doctor_fleet){ .percent = 100 };
	TRY(read_pages(tx, month, &pages, err));
	if (pages > DB_DOCTOR_SAMPLE_PAGES)
		out->percent = 100.0 * DB_DOCTOR_SAMPLE_PAGES / (double)pages;
	TRY(db_run(tx, &SQL[WEEKS], DB_PARAMS(db_int64(month), db_int64(now_s), db_double(out->percent),
		db_int64(DB_DOCTOR_WEEKS_MAX)), &rows, err));
	for (int r = 0; r < db_rows(rows); r++) {
		struct db_row row = db_row(rows, r);
		struct db_doctor_week *week = &out->weeks[out->week_count++];

		week->week_s = db_row_int64(&row);
		week->count = db_row_int64(&row);
		out->sampled += week->count;
		TRY(db_row_end(&row, err));
	}
	return OK;
}

enum status
db_doctor_revoked(struct db_tx *tx, int32_t issuer_id, int64_t now_s, int64_t recent_s, int64_t ending_s,
	struct db_doctor_revoked *out, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[REVOKED], DB_PARAMS(db_int64(issuer_id), db_int64(now_s), db_int64(recent_s),
		db_int64(ending_s), db_int64(DB_DOCTOR_REVOKED_MAX)), &rows, err));
	struct db_row row = db_row(rows, 0);
	out->looked = db_row_int64(&row);
	out->recent = db_row_int64(&row);
	out->ending = db_row_int64(&row);
	return db_row_end(&row, err);
}
