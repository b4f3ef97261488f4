#include "tests/unit/db/db_test.h"

#include <pthread.h>
#include <spawn.h>
#include <sys/wait.h>

#include "base/mem.h"
#include "db/issuer.h"
#include "db/run.h"

static const struct db_statement SLEEP = { .name = "test_sleep", .sql = "SELECT 1 FROM pg_sleep(10)",
	.columns = 1, .rows = ROWS_ONE, .unprepared = true };

/* start, stop or restart; returns when it is done. */
static void
cluster(const char *verb)
{
	const char *program = getenv("JITRCA_TEST_CLUSTER_RESTART");
	pid_t pid;
	int status = -1;

	assert_non_null(program);
	own(str) argv0 = mem_strdup(program);
	own(str) argv1 = mem_strdup(verb);
	char *const argv[] = { argv0, argv1, NULL };
	assert_int_equal(posix_spawn(&pid, program, NULL, NULL, argv, environ), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

static void
what_is_not_committed_is_gone(void **state)
{
	struct db_pool_stats stats;

	(void)state;
	{
		own_struct(db_tx) tx = { NULL, NULL };

		assert_ok(db_tx_begin(&tx, POOL, err));
		sql(&tx, "CREATE TABLE jitrca.forgotten ()");
	}
	db_pool_stats(POOL, &stats);
	assert_int_equal(stats.in_use, 0);
	own_struct(db_tx) tx = { NULL, NULL };
	assert_ok(db_tx_begin(&tx, POOL, err));
	sql_refused(&tx, "SELECT FROM jitrca.forgotten", "42P01");
	sql(&tx, "CREATE TABLE jitrca.kept ()");
	assert_ok(db_tx_commit(&tx, err));
	assert_null(tx.conn);
	assert_ok(db_tx_begin(&tx, POOL, err));
	sql(&tx, "DROP TABLE jitrca.kept");
	assert_ok(db_tx_commit(&tx, err));
	db_tx_end(&tx); /* may run twice */
	db_tx_end(&tx);
}

static void
a_failed_transaction_cannot_be_committed(void **state)
{
	struct db_tx tx = { NULL, NULL };
	struct err said;

	(void)state;
	assert_ok(db_tx_begin(&tx, POOL, err));
	sql(&tx, "SELECT 1");
	assert_int_not_equal(db_conn_exec(tx.conn, "test", "SELECT 1/0", NULL, &said), OK);
	assert_refused(db_tx_commit(&tx, err), ERR_INTERNAL, "commit_rolled_back");
	assert_null(tx.conn);
}

static void
a_constraint_that_fails_at_commit_is_told(void **state)
{
	struct db_tx tx = { NULL, NULL };

	(void)state;
	assert_ok(db_tx_begin(&tx, POOL, err));
	sql(&tx, "CREATE TEMPORARY TABLE late (x int UNIQUE DEFERRABLE INITIALLY DEFERRED)");
	sql(&tx, "INSERT INTO pg_temp.late VALUES (1), (1)");
	assert_refused(db_tx_commit(&tx, err), ERR_CONFLICT, "database_conflict");
	assert_null(tx.conn);
}

struct holder {
	struct db_pool *pool;
	struct err err;
	enum status status;
};

static void *
take_one(void *arg)
{
	struct holder *holder = arg;
	struct db_tx tx = { NULL, NULL };

	holder->status = db_tx_begin(&tx, holder->pool, &holder->err);
	db_tx_end(&tx);
	return NULL;
}

static void
the_pool_is_bounded_and_waits(void **state)
{
	struct db_pool *pool = NULL;
	struct db_tx first = { NULL, NULL };
	struct db_tx second = { NULL, NULL };
	struct holder third = { .status = ERR_INTERNAL };
	struct db_pool_stats stats;
	pthread_t thread;

	(void)state;
	assert_ok(db_pool_new(&pool, CONNINFO, 2, err));
	assert_ok(db_tx_begin(&first, pool, err));
	assert_ok(db_tx_begin(&second, pool, err));
	third.pool = pool;
	assert_int_equal(pthread_create(&thread, NULL, take_one, &third), 0);
	do { /* until it waits */
		db_pool_stats(pool, &stats);
		(void)usleep(1000);
	} while (stats.waits == 0);
	assert_int_equal(stats.max, 2);
	assert_int_equal(stats.open, 2);
	assert_int_equal(stats.in_use, 2);
	db_tx_end(&first);
	(void)pthread_join(thread, NULL);
	assert_int_equal(third.status, OK);

	/* And not for ever. */
	assert_ok(db_tx_begin(&first, pool, err));
	int64_t since_ms = clock_mono_ms(&CLOCK_SYSTEM);
	(void)take_one(&third);
	assert_int_equal(third.status, ERR_UNAVAILABLE);
	assert_string_equal(third.err.code, "database_busy");
	assert_in_range(clock_mono_ms(&CLOCK_SYSTEM) - since_ms, 4000, 8000);
	db_tx_end(&second);
	db_tx_end(&first);
	db_pool_stats(pool, &stats);
	assert_int_equal(stats.open, 2);
	assert_int_equal(stats.in_use, 0);
	db_pool_free(pool);
	db_pool_free(NULL);
}

static void *
use_often(void *arg)
{
	struct holder *holder = arg;

	holder->status = OK;
	for (int i = 0; i < 50 && holder->status == OK; i++)
		holder->status = db_ping(holder->pool, &holder->err);
	return NULL;
}

static void
many_threads_share_few_connections(void **state)
{
	struct db_pool *pool = NULL;
	pthread_t threads[12];
	struct holder holders[12];
	struct db_pool_stats stats;

	(void)state;
	assert_ok(db_pool_new(&pool, CONNINFO, 3, err));
	for (size_t i = 0; i < COUNT_OF(threads); i++) {
		holders[i].pool = pool;
		assert_int_equal(pthread_create(&threads[i], NULL, use_often, &holders[i]), 0);
	}
	for (size_t i = 0; i < COUNT_OF(threads); i++) {
		(void)pthread_join(threads[i], NULL);
		assert_int_equal(holders[i].status, OK);
	}
	db_pool_stats(pool, &stats);
	assert_in_range(stats.open, 1, 3);
	assert_int_equal(stats.in_use, 0);
	assert_int_equal(stats.errors, 0);
	db_pool_free(pool);
}

static void
a_connection_empties_the_search_path_and_has_timeouts(void **state)
{
	static const char *const CASES[] = {
		"SELECT count(*) FILTER (WHERE setting = '\"\"') FROM pg_settings WHERE name = 'search_path'",
		"SELECT (setting = '30000')::int FROM pg_settings WHERE name = 'statement_timeout'",
		"SELECT (setting = '10000')::int FROM pg_settings WHERE name = 'lock_timeout'",
		("SELECT count(*) FROM pg_settings"
		 " WHERE (name, setting) = ('idle_in_transaction_session_timeout', '60000')"),
		"SELECT (setting = 'UTF8')::int FROM pg_settings WHERE name = 'client_encoding'",
		"SELECT (setting = 'jitrca')::int FROM pg_settings WHERE name = 'application_name'",
	};

	for (size_t i = 0; i < COUNT_OF(CASES); i++)
		assert_int_equal(sql_number(*state, CASES[i]), 1);
}

static void
a_server_that_is_away_is_told_and_opening_does_not_fail(void **state)
{
	struct db_pool *pool = NULL;
	struct db_tx tx = { NULL, NULL };
	struct db_pool_stats stats;

	(void)state;
	assert_ok(db_pool_new(&pool, "host=/nonexistent dbname=x password=hidden123", 2, err));
	for (int i = 0; i < 5; i++) { /* attempts, and what is answered in between */
		struct err err;

		assert_int_equal(db_tx_begin(&tx, pool, &err), ERR_UNAVAILABLE);
		assert_string_equal(err.code, "database_away");
		assert_null(strstr(err.text, "hidden123"));
	}
	assert_refused(db_ping(pool, err), ERR_UNAVAILABLE, "database_away");
	db_pool_stats(pool, &stats);
	assert_int_equal(stats.open, 0);
	assert_int_equal(stats.in_use, 0);
	assert_int_equal(stats.errors, 6);
	db_pool_free(pool);
}

struct sleeper {
	struct db_tx *tx;
	struct err err;
	enum status status;
};

static void *
sleep_in_sql(void *arg)
{
	struct sleeper *sleeper = arg;

	sleeper->status = db_run(sleeper->tx, &SLEEP, DB_NO_PARAMS, NULL, &sleeper->err);
	return NULL;
}

/* Runs SLEEP on a tx, and function($1 = its process) on another as soon as it sleeps. */
static void
disturb(struct sleeper *sleeper, const char *function)
{
	struct db_tx other = { NULL, NULL };
	char text[256];
	pthread_t thread;
	int pid = PQbackendPID(sleeper->tx->conn->pg);

	assert_ok(db_tx_begin(&other, POOL, err));
	assert_int_equal(pthread_create(&thread, NULL, sleep_in_sql, sleeper), 0);
	(void)snprintf(text, sizeof(text), "SELECT count(*) FROM (SELECT pg_stat_clear_snapshot()) c,"
		" pg_stat_activity WHERE pid = %d AND wait_event = 'PgSleep'", pid);
	while (sql_number(&other, text) == 0)
		(void)usleep(1000);
	(void)snprintf(text, sizeof(text), "SELECT %s(%d)::int", function, pid);
	assert_int_equal(sql_number(&other, text), 1);
	(void)pthread_join(thread, NULL);
	db_tx_end(&other);
}

static void
a_cancelled_statement_leaves_the_connection(void **state)
{
	struct sleeper sleeper = { .tx = *state };

	disturb(&sleeper, "pg_cancel_backend");
	assert_int_equal(sleeper.status, ERR_UNAVAILABLE);
	assert_string_equal(sleeper.err.code, "database_busy");
	assert_false(sleeper.tx->conn->broken);
}

static void
a_broken_connection_is_replaced(void **state)
{
	struct db_tx tx = { NULL, NULL };
	struct sleeper sleeper = { .tx = &tx };
	struct db_pool_stats before, after;

	(void)state;
	db_pool_stats(POOL, &before);
	assert_ok(db_tx_begin(&tx, POOL, err));
	disturb(&sleeper, "pg_terminate_backend");
	assert_int_equal(sleeper.status, ERR_UNAVAILABLE);
	assert_string_equal(sleeper.err.code, "database_away");
	assert_true(tx.conn->broken);
	db_tx_end(&tx);
	db_pool_stats(POOL, &after);
	assert_int_equal(after.errors, before.errors + 1);

	struct db_tx all[CONNECTIONS] = { { NULL, NULL } };
	for (size_t i = 0; i < CONNECTIONS; i++)
		assert_ok(db_tx_begin(&all[i], POOL, err));
	for (size_t i = 0; i < CONNECTIONS; i++)
		db_tx_end(&all[i]);
	db_pool_stats(POOL, &after);
	assert_int_equal(after.reconnects, before.reconnects + 1);
}

static void
who_waits_for_a_database_that_hangs_is_told(void **state)
{
	struct db_tx tx = { NULL, NULL };
	struct db_tx other = { NULL, NULL };
	struct sleeper sleeper = { .tx = &tx };
	pthread_t thread;
	struct err why;

	(void)state;
	assert_ok(db_tx_begin(&tx, POOL, err));
	sql(&tx, "SELECT 1"); /* begun, so that the sleep is not asked for again elsewhere */
	assert_int_equal(pthread_create(&thread, NULL, sleep_in_sql, &sleeper), 0);
	(void)usleep(50000); /* asleep or not yet: both must end */
	db_pool_stall(POOL);
	(void)pthread_join(thread, NULL);
	assert_int_equal(sleeper.status, ERR_UNAVAILABLE);
	assert_string_equal(sleeper.err.code, "database_away");
	assert_true(tx.conn->broken);
	db_tx_end(&tx);

	assert_int_equal(db_tx_begin(&other, POOL, &why), ERR_UNAVAILABLE);
	assert_string_equal(why.code, "database_away");
	assert_int_equal(db_ping(POOL, &why), ERR_UNAVAILABLE);
	db_pool_resume(POOL);
	assert_ok(db_ping(POOL, err));
}

static void
the_pool_survives_a_restart_of_the_server(void **state)
{
	struct db_tx all[CONNECTIONS] = { { NULL, NULL } };
	struct db_tx open = { NULL, NULL };

	(void)state;
	for (size_t i = 0; i < CONNECTIONS; i++)
		assert_ok(db_tx_begin(&all[i], POOL, err));
	for (size_t i = 1; i < CONNECTIONS; i++)
		db_tx_end(&all[i]); /* idle, and each dead after the restart */
	sql(&all[0], "SELECT 1");
	cluster("restart");
	assert_refused(db_run(&all[0], &SLEEP, DB_NO_PARAMS, NULL, err), ERR_UNAVAILABLE, "database_away");
	db_tx_end(&all[0]);
	for (size_t i = 0; i < CONNECTIONS; i++)
		assert_ok(db_ping(POOL, err)); /* nobody sees the dead ones */

	/* A COMMIT whose answer is lost may have happened or not. */
	assert_ok(db_tx_begin(&open, POOL, err));
	sql(&open, "SELECT 1");
	cluster("restart");
	assert_refused(db_tx_commit(&open, err), ERR_UNAVAILABLE, "commit_unknown");
	assert_null(open.conn);

	/* Away, then back: within the backoff. */
	cluster("stop");
	assert_refused(db_ping(POOL, err), ERR_UNAVAILABLE, "database_away");
	assert_refused(db_ping(POOL, err), ERR_UNAVAILABLE, "database_away");
	cluster("start");
	int64_t until_ms = clock_mono_ms(&CLOCK_SYSTEM) + 3000;
	struct err said;
	while (db_ping(POOL, &said) != OK) {
		assert_string_equal(said.code, "database_away");
		assert_true(clock_mono_ms(&CLOCK_SYSTEM) < until_ms);
		(void)usleep(10000);
	}
	struct db_pool_stats stats;
	db_pool_stats(POOL, &stats);
	assert_int_equal(stats.in_use, 0);
	assert_in_range(stats.open, 1, CONNECTIONS);
}

static void
out_of_memory_is_told(void **state)
{
	struct db_pool *pool = NULL;

	(void)state;
	for (int i = 0; i < 3; i++) {
		mem_fail_at(i);
		assert_refused(db_pool_new(&pool, CONNINFO, 2, err), ERR_UNAVAILABLE, "out_of_memory");
	}
	mem_fail_at(-1);
	assert_ok(db_pool_new(&pool, CONNINFO, 2, err));
	for (int i = 0; i < 2; i++) {
		struct db_tx tx = { NULL, NULL };

		mem_fail_at(i);
		assert_refused(db_tx_begin(&tx, pool, err), ERR_UNAVAILABLE, "out_of_memory");
		mem_fail_at(-1);
		(void)usleep(150000); /* longer than the backoff */
	}
	assert_ok(db_ping(pool, err));
	db_pool_free(pool);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_not_committed_is_gone),
		cmocka_unit_test(a_failed_transaction_cannot_be_committed),
		cmocka_unit_test(a_constraint_that_fails_at_commit_is_told),
		cmocka_unit_test(the_pool_is_bounded_and_waits),
		cmocka_unit_test(many_threads_share_few_connections),
		in_tx(a_connection_empties_the_search_path_and_has_timeouts),
		cmocka_unit_test(a_server_that_is_away_is_told_and_opening_does_not_fail),
		in_tx(a_cancelled_statement_leaves_the_connection),
		cmocka_unit_test(a_broken_connection_is_replaced),
		cmocka_unit_test(who_waits_for_a_database_that_hangs_is_told),
		cmocka_unit_test(the_pool_survives_a_restart_of_the_server),
		cmocka_unit_test(out_of_memory_is_told),
	};

	return cmocka_run_group_tests(tests, database_make, database_drop);
}
