/*
 * tests/unit/db/db_test.h - a database of its own for each test program, with all migrations, on the
 * cluster that cluster.sh has started; and a transaction for each test, rolled back afterwards.
 *
 *	static void a_promise(void **state) { struct db_tx *tx = *state; … }
 *	… { in_tx(a_promise), … } … return cmocka_run_group_tests(tests, database_make, database_drop);
 */
#ifndef TESTS_UNIT_DB_DB_TEST_H
#define TESTS_UNIT_DB_DB_TEST_H

#include "tests/unit/base/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "db/conn.h"
#include "db/db.h"
#include "db/migrate.h"

#define CONNECTIONS 8

UNUSED static char CONNINFO[1024];    /* of the database of this program */
UNUSED static struct db_pool *POOL;

#define assert_ok(call)                                                                            \
	do {                                                                                       \
		struct err ok_err_ = { .status = ERR_INTERNAL };                                   \
		struct err *err = &ok_err_;                                                        \
		if ((call) != OK)                                                                  \
			fail_msg("%s: %s %s", #call, ok_err_.code, ok_err_.text);                  \
	} while (0)

#define assert_refused(call, want_status, want_code)                                               \
	do {                                                                                       \
		struct err no_err_ = { .status = ERR_INTERNAL };                                   \
		struct err *err = &no_err_;                                                        \
		assert_int_equal((call), (want_status));                                           \
		assert_string_equal(no_err_.code, (want_code));                                    \
		assert_int_equal(no_err_.status, (want_status));                                   \
	} while (0)

/* Runs text on a connection of its own, on the cluster's first database. */
UNUSED static void
cluster_sql(const char *text)
{
	const char *url = getenv("JITRCA_TEST_DATABASE_URL");
	struct db_conn *conn = NULL;

	assert_non_null(url); /* run me by tests/unit/db/cluster.sh */
	assert_ok(db_conn_open(&conn, url, err));
	assert_ok(db_conn_exec(conn, text, text, NULL, err));
	db_conn_close(conn);
}

UNUSED static int
database_make_empty(void **state)
{
	char text[128];

	(void)state;
	(void)snprintf(text, sizeof(text), "CREATE DATABASE jitrca_test_%d", (int)getpid());
	cluster_sql(text);
	(void)snprintf(CONNINFO, sizeof(CONNINFO), "%s dbname=jitrca_test_%d",
		getenv("JITRCA_TEST_DATABASE_URL"), (int)getpid());
	return 0;
}

UNUSED static int
database_make(void **state)
{
	size_t applied;

	(void)database_make_empty(state);
	assert_ok(db_migrate(CONNINFO, DB_MIGRATIONS, DB_MIGRATION_COUNT, &applied, err));
	assert_int_equal(applied, DB_MIGRATION_COUNT);
	assert_ok(db_pool_new(&POOL, CONNINFO, CONNECTIONS, err));
	return 0;
}

UNUSED static int
database_drop(void **state)
{
	char text[128];

	(void)state;
	db_pool_free(POOL);
	(void)snprintf(text, sizeof(text), "DROP DATABASE jitrca_test_%d WITH (FORCE)", (int)getpid());
	cluster_sql(text);
	return 0;
}

UNUSED static int
tx_begin(void **state)
{
	static struct db_tx tx;

	tx = (struct db_tx){ NULL, NULL };
	assert_ok(db_tx_begin(&tx, POOL, err));
	*state = &tx;
	return 0;
}

UNUSED static int
tx_end(void **state)
{
	db_tx_end(*state);
	return 0;
}

#define in_tx(test) cmocka_unit_test_setup_teardown(test, tx_begin, tx_end)

/* Text that must work. */
UNUSED static void
sql(struct db_tx *tx, const char *text)
{
	if (tx->conn->unbegun) { /* what goes by the door of statements */
		assert_ok(db_conn_exec(tx->conn, "begin", "BEGIN", NULL, err));
		tx->conn->unbegun = false;
	}
	assert_ok(db_conn_exec(tx->conn, text, text, NULL, err));
}

/* Text that must be refused with a SQLSTATE; the transaction goes on. */
UNUSED static void
sql_refused(struct db_tx *tx, const char *text, const char *sqlstate)
{
	struct err err = { .status = ERR_INTERNAL };

	sql(tx, "SAVEPOINT refused");
	assert_int_not_equal(db_conn_exec(tx->conn, "test", text, NULL, &err), OK);
	if (strstr(err.text, sqlstate) == NULL)
		fail_msg("%s: %s wanted, found: %s", text, sqlstate, err.text);
	sql(tx, "ROLLBACK TO SAVEPOINT refused");
}

/* The first column of the first row, a number. */
UNUSED static int64_t
sql_number(struct db_tx *tx, const char *text)
{
	own(PGresult) rows = NULL;

	assert_ok(db_conn_exec(tx->conn, text, text, &rows, err));
	assert_int_equal(PQntuples(rows), 1);
	return strtoll(PQgetvalue(rows, 0, 0), NULL, 10);
}

#endif
