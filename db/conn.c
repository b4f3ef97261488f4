#include "db/conn.h"

#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"

/*
 * Timeouts in the server, so that a client that hangs or died without a FIN cannot hold a lock for
 * long: lock_timeout is below statement_timeout, for its error says more.
 */
static const char SETTINGS[] =
	"SET search_path = '';"
	/* Each statement has one plan that it is written for: keys looked up by index, one by one. A plan
	 * made while a table was small must not read it whole once it has grown; and compiling a look-up
	 * over all partitions takes a thousand times as long as running it. */
	"SET plan_cache_mode = force_generic_plan;"
	"SET enable_seqscan = off;"
	"SET enable_hashjoin = off;"
	"SET enable_mergejoin = off;"
	"SET enable_material = off;"
	"SET jit = off;"
	"SET timezone = 'UTC';"
	"SET lock_timeout = '10s';"
	"SET statement_timeout = '30s';"
	"SET idle_in_transaction_session_timeout = '60s'";

static void
ignore_notice(void *arg, const PGresult *result)
{
	(void)arg; /* libpq would write it to stderr, which carries our log */
	(void)result;
}

static enum status
connect_to(struct db_conn *conn, const char *conninfo, bool any, struct err *err)
{
	/* What stands before dbname is overridden by what the connection string says, what stands
	 * behind overrides it. Without the keepalives, a server that lost power holds a lease for the
	 * two hours of the kernel's default. */
	const char *const keys[] = { "connect_timeout", "keepalives", "keepalives_idle",
		"keepalives_interval", "keepalives_count", "tcp_user_timeout",
		"target_session_attrs", "fallback_application_name", "dbname", "client_encoding",
		any ? "target_session_attrs" : NULL, NULL };
	const char *const values[] = { "5", "1", "10", "5", "3", "20000", "read-write", "jitrca",
		conninfo, "UTF8", "any", NULL };

	conn->pg = PQconnectdbParams(keys, values, 1);
	if (conn->pg == NULL)
		return err_memory(err);
	if (PQstatus(conn->pg) != CONNECTION_OK) {
		conn->broken = true;
		/* libpq's text names host and user; the password is never in it. */
		return err_set(err, ERR_UNAVAILABLE, "database_away", "cannot connect: %.*s",
			(int)strcspn(PQerrorMessage(conn->pg), "\n"), PQerrorMessage(conn->pg));
	}
	(void)PQsetNoticeReceiver(conn->pg, ignore_notice, NULL);
	conn->socket_fd = fcntl(PQsocket(conn->pg), F_DUPFD_CLOEXEC, 0);
	return db_conn_exec(conn, "settings", SETTINGS, NULL, err);
}

static enum status
open_conn(struct db_conn **out, const char *conninfo, bool any, struct err *err)
{
	struct db_conn *conn = mem_zalloc(sizeof(*conn));
	size_t statements = 0;
	enum status status;

	for (size_t i = 0; i < DB_TABLE_COUNT; i++)
		statements += DB_TABLES[i]->count;
	if (conn == NULL || (conn->prepared = mem_array(statements, sizeof(bool))) == NULL) {
		mem_free(conn);
		return err_memory(err);
	}
	conn->socket_fd = -1;
	status = connect_to(conn, conninfo, any, err);
	if (status != OK) {
		db_conn_close(conn);
		return status;
	}
	*out = conn;
	return OK;
}

enum status
db_conn_open(struct db_conn **out, const char *conninfo, struct err *err)
{
	return open_conn(out, conninfo, false, err);
}

enum status
db_conn_open_any(struct db_conn **out, const char *conninfo, struct err *err)
{
	return open_conn(out, conninfo, true, err);
}

void
db_conn_close(struct db_conn *conn)
{
	if (conn == NULL)
		return;
	PQfinish(conn->pg);
	if (conn->socket_fd >= 0)
		(void)close(conn->socket_fd);
	mem_free(conn->prepared);
	mem_free(conn);
}

enum status
db_conn_exec(struct db_conn *conn, const char *what, const char *sql, PGresult **out,
	struct err *err)
{
	own(PGresult) result = PQexec(conn->pg, sql);
	ExecStatusType state = PQresultStatus(result);

	if (state != PGRES_COMMAND_OK && state != PGRES_TUPLES_OK)
		return err_libpq(err, conn, result, what);
	if (out != NULL)
		*out = give(result);
	return OK;
}

enum status
db_conn_ask(struct db_conn *conn, struct err *err)
{
	assert(!conn->asked);
	if (PQsendQuery(conn->pg, "SELECT 1") != 1)
		return err_libpq(err, conn, NULL, "ask");
	conn->asked = true;
	return OK;
}

enum status
db_conn_take_answer(struct db_conn *conn, struct err *err)
{
	/* It is whole when libpq has no more of it. */
	while (conn->asked && PQisBusy(conn->pg) == 0) {
		own(PGresult) result = PQgetResult(conn->pg);

		if (result == NULL)
			conn->asked = false;
		else if (PQresultStatus(result) != PGRES_TUPLES_OK)
			return err_libpq(err, conn, result, "ask");
	}
	return OK;
}

/* What a SQLSTATE means for the caller: the first entry that is its beginning. */
static const struct meaning {
	const char *begins;
	enum status status;
	const char *code;
	bool broken;
} MEANINGS[] = {
	{ "23505", ERR_CONFLICT, "database_conflict", false },
	{ "23503", ERR_CONFLICT, "database_reference", false },
	{ "22021", ERR_ARGUMENT, "text_malformed", false },
	{ "40001", ERR_UNAVAILABLE, "database_retry", false },
	{ "40P01", ERR_UNAVAILABLE, "database_retry", false },
	{ "40003", ERR_UNAVAILABLE, "database_away", true }, /* completion unknown */
	{ "08", ERR_UNAVAILABLE, "database_away", true },
	{ "57P", ERR_UNAVAILABLE, "database_away", true },   /* shut down, starting up */
	{ "25P03", ERR_UNAVAILABLE, "database_away", true }, /* idle in transaction: it hung up */
	{ "25006", ERR_UNAVAILABLE, "database_away", true }, /* read only: we lost the primary */
	{ "55P03", ERR_UNAVAILABLE, "database_busy", false },
	{ "57014", ERR_UNAVAILABLE, "database_busy", false },
	{ "53", ERR_UNAVAILABLE, "database_busy", false },
	/* The tables changed under what was prepared; a new connection knows them. */
	{ "0A000", ERR_INTERNAL, "database_error", true },
};

static const struct meaning *
meaning_of(const char *sqlstate)
{
	static const struct meaning OTHER = { "", ERR_INTERNAL, "database_error", false };

	for (size_t i = 0; i < COUNT_OF(MEANINGS); i++)
		if (strncmp(sqlstate, MEANINGS[i].begins, strlen(MEANINGS[i].begins)) == 0)
			return &MEANINGS[i];
	return &OTHER;
}

#undef err_libpq /* the function itself */

enum status
err_libpq(struct err *err, struct db_conn *conn, const PGresult *result, const char *what)
{
	const char *sqlstate = PQresultErrorField(result, PG_DIAG_SQLSTATE);
	const char *constraint = PQresultErrorField(result, PG_DIAG_CONSTRAINT_NAME);
	const char *position = PQresultErrorField(result, PG_DIAG_STATEMENT_POSITION);
	const struct meaning *meaning;

	if (PQstatus(conn->pg) == CONNECTION_BAD)
		conn->broken = true;
	if (sqlstate == NULL) { /* libpq's own: the link, or memory */
		bool away = conn->broken;

		conn->broken = true;
		if (away)
			return err_set(err, ERR_UNAVAILABLE, "database_away", "%s: the link broke", what);
		return err_set(err, ERR_INTERNAL, "database_error", "%s: no result: status %s", what,
			result == NULL ? "none" : PQresStatus(PQresultStatus(result)));
	}
	meaning = meaning_of(sqlstate);
	conn->broken |= meaning->broken;
	/* Of the server's text neither message nor detail: both may quote values. */
	return err_set(err, meaning->status, meaning->code, "%s: SQLSTATE %s%s%s%s%s", what, sqlstate,
		constraint == NULL ? "" : ", constraint ", constraint == NULL ? "" : constraint,
		position == NULL ? "" : ", at character ", position == NULL ? "" : position);
}
