#include "db/migrate.h"

#include <assert.h>

#include "db/conn.h"

enum {
	MIGRATE_LOCK,
	MIGRATE_KNOWN,
	MIGRATE_APPLIED,
	MIGRATE_RECORD,
	STATEMENTS,
};

/* History is short; who has more of it than this has another database. */
#define HISTORY_MAX 10000

/* None is prepared: the table that they name is made by the first run. */
static const struct db_statement SQL[STATEMENTS] = {
	[MIGRATE_LOCK] = {
		.name = "migrate_lock", .params = 1, .columns = 1, .rows = ROWS_ONE, .unprepared = true,
		.sql = "SELECT 1 FROM (SELECT pg_advisory_lock($1::int, 0)) AS locked",
	},
	[MIGRATE_KNOWN] = {
		.name = "migrate_known", .columns = 1, .rows = ROWS_ONE, .unprepared = true,
		.sql = "SELECT to_regclass('jitrca.schema_migration') IS NOT NULL",
	},
	[MIGRATE_APPLIED] = { /* the server hashes: this room has no cryptography */
		.name = "migrate_applied", .params = 3, .columns = 3, .rows = ROWS_ANY,
		.unprepared = true,
		.sql = "SELECT a.version, m.version IS NOT NULL, coalesce(a.checksum = sha256(m.sql), false)"
		       " FROM jitrca.schema_migration a"
		       " LEFT JOIN unnest($1::int[], $2::bytea[]) AS m(version, sql)"
		       " ON m.version = a.version ORDER BY a.version LIMIT $3::bigint",
	},
	[MIGRATE_RECORD] = {
		.name = "migrate_record", .params = 3, .columns = 0, .rows = ROWS_NONE,
		.unprepared = true,
		.sql = "INSERT INTO jitrca.schema_migration (version, name, checksum)"
		       " VALUES ($1, $2, sha256($3::bytea))",
	},
};

static const char MAKE_HISTORY[] =
	"CREATE SCHEMA IF NOT EXISTS jitrca;"
	"CREATE TABLE IF NOT EXISTS jitrca.schema_migration ("
	" version integer PRIMARY KEY, name text NOT NULL, checksum bytea NOT NULL,"
	" applied_at timestamptz NOT NULL DEFAULT now())";

static struct view
sql_view(const struct db_migration *migration)
{
	return (struct view){ (const uint8_t *)migration->sql, migration->sql_len };
}

static enum status
applied_matches(const PGresult *rows, int i, struct err *err)
{
	struct db_row row = db_row(rows, i);
	int32_t version = db_row_int32(&row);
	bool known = db_row_bool(&row);
	bool same = db_row_bool(&row);

	TRY(db_row_end(&row, err));
	if (!known)
		return err_set(err, ERR_CONFLICT, "schema_newer",
			"migration %d: applied, but not known to this program", version);
	if (!same || version != i + 1)
		return err_set(err, ERR_CONFLICT, "schema_changed",
			"migration %d: what was applied has another text, or one before it is missing",
			version);
	return OK;
}

/* Holds history against ours; *applied says how many of ours stand in it. */
static enum status
compare(struct db_tx *tx, const struct db_migration *migrations, size_t count, size_t *applied,
	struct err *err)
{
	own_struct(db_array) versions = DB_ARRAY(ARRAY_INT4);
	own_struct(db_array) texts = DB_ARRAY(ARRAY_BYTEA);
	own(PGresult) rows = NULL;

	for (size_t i = 0; i < count; i++) {
		assert(migrations[i].version == (int32_t)i + 1);
		TRY(db_array_add_int(&versions, migrations[i].version, err));
		TRY(db_array_add_bytes(&texts, sql_view(&migrations[i]), err));
	}
	TRY(db_run(tx, &SQL[MIGRATE_APPLIED],
		DB_PARAMS(db_array(&versions), db_array(&texts), db_int64(HISTORY_MAX)), &rows, err));
	for (int i = 0; i < db_rows(rows); i++)
		TRY(applied_matches(rows, i, err));
	*applied = (size_t)db_rows(rows);
	return OK;
}

/* The migration and its line in history, or neither. */
static enum status
apply(struct db_tx *tx, const struct db_migration *migration, struct err *err)
{
	TRY(db_conn_exec(tx->conn, "migrate_begin", "BEGIN", NULL, err));
	TRY(db_conn_exec(tx->conn, migration->name, migration->sql, NULL, err));
	TRY(db_run(tx, &SQL[MIGRATE_RECORD],
		DB_PARAMS(db_int64(migration->version), db_text(migration->name),
			db_bytes(sql_view(migration))), NULL, err));
	return db_conn_exec(tx->conn, "migrate_commit", "COMMIT", NULL, err);
}

enum status
db_migrate(const char *conninfo, const struct db_migration *migrations, size_t count,
	size_t *applied, struct err *err)
{
	own(db_conn) conn = NULL; /* closing it gives the lock back and rolls back */
	size_t before = 0;

	*applied = 0;
	TRY(db_conn_open(&conn, conninfo, err));
	struct db_tx tx = { NULL, conn };
	/* A migration of a large table takes its time, and so does whoever waits for it. */
	TRY(db_conn_exec(conn, "migrate_patience",
		"SET lock_timeout = 0; SET statement_timeout = 0", NULL, err));
	TRY(db_run(&tx, &SQL[MIGRATE_LOCK], DB_PARAMS(db_int64(LOCK_MIGRATE)), NULL, err));
	TRY(db_conn_exec(conn, "migrate_history", MAKE_HISTORY, NULL, err));
	TRY(compare(&tx, migrations, count, &before, err));
	for (size_t i = before; i < count; i++) {
		TRY(apply(&tx, &migrations[i], err));
		++*applied;
	}
	return OK;
}

enum status
db_migrate_check(const char *conninfo, const struct db_migration *migrations, size_t count,
	struct err *err)
{
	own(db_conn) conn = NULL;
	own(PGresult) rows = NULL;
	size_t applied = 0;

	TRY(db_conn_open(&conn, conninfo, err));
	struct db_tx tx = { NULL, conn };
	TRY(db_run(&tx, &SQL[MIGRATE_KNOWN], DB_NO_PARAMS, &rows, err));
	struct db_row row = db_row(rows, 0);
	bool known = db_row_bool(&row);
	TRY(db_row_end(&row, err));
	if (known)
		TRY(compare(&tx, migrations, count, &applied, err));
	if (applied < count)
		return err_set(err, ERR_CONFLICT, "schema_older",
			"%zu migrations wanted, %zu applied: run `jitrca migrate`", count, applied);
	return OK;
}
