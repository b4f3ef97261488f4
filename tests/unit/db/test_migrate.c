#include "tests/unit/db/db_test.h"

#include <pthread.h>

#define MIGRATION(number, text)                                                                    \
	{                                                                                          \
		.version = number, .name = "000" #number, .sql = text, .sql_len = sizeof(text) - 1 \
	}

static const struct db_migration STEPS[] = {
	MIGRATION(1, "CREATE TABLE jitrca.one (n int); INSERT INTO jitrca.one VALUES (1)"),
	MIGRATION(2, "CREATE TABLE jitrca.two (n int); UPDATE jitrca.one SET n = n + 1"),
	MIGRATION(3, "UPDATE jitrca.one SET n = n * 10"),
};

static int64_t
number(const char *text)
{
	struct db_conn *conn = NULL;
	int64_t found;

	assert_ok(db_conn_open(&conn, CONNINFO, err));
	found = sql_number(&(struct db_tx){ NULL, conn }, text);
	db_conn_close(conn);
	return found;
}

static int
forget(void **state)
{
	struct db_conn *conn = NULL;

	(void)state;
	assert_ok(db_conn_open(&conn, CONNINFO, err));
	assert_ok(db_conn_exec(conn, "forget", "DROP SCHEMA IF EXISTS iotcore CASCADE", NULL, err));
	assert_ok(db_conn_exec(conn, "forget", "DROP SCHEMA IF EXISTS jitrca CASCADE", NULL, err));
	db_conn_close(conn);
	return 0;
}

static void
steps_are_applied_once_and_in_order(void **state)
{
	size_t applied;

	(void)state;
	assert_refused(db_migrate_check(CONNINFO, STEPS, 2, err), ERR_CONFLICT, "schema_older");
	assert_int_equal(number("SELECT count(*) FROM pg_namespace WHERE nspname = 'jitrca'"), 0);
	assert_ok(db_migrate(CONNINFO, STEPS, 2, &applied, err));
	assert_int_equal(applied, 2);
	assert_int_equal(number("SELECT n FROM jitrca.one"), 2);
	assert_ok(db_migrate_check(CONNINFO, STEPS, 2, err));
	assert_ok(db_migrate(CONNINFO, STEPS, 2, &applied, err));
	assert_int_equal(applied, 0);
	assert_refused(db_migrate_check(CONNINFO, STEPS, 3, err), ERR_CONFLICT, "schema_older");
	assert_ok(db_migrate(CONNINFO, STEPS, 3, &applied, err));
	assert_int_equal(applied, 1);
	assert_int_equal(number("SELECT n FROM jitrca.one"), 20);
	assert_int_equal(number("SELECT count(*) FROM jitrca.schema_migration"
		" WHERE length(checksum) = 32"), 3);
}

static void
a_newer_history_is_refused(void **state)
{
	size_t applied;

	(void)state;
	assert_ok(db_migrate(CONNINFO, STEPS, 3, &applied, err));
	assert_refused(db_migrate(CONNINFO, STEPS, 2, &applied, err), ERR_CONFLICT, "schema_newer");
	assert_refused(db_migrate_check(CONNINFO, STEPS, 2, err), ERR_CONFLICT, "schema_newer");
	assert_int_equal(applied, 0);
}

static void
a_changed_text_is_refused(void **state)
{
	static const struct db_migration CHANGED[] = {
		MIGRATION(1, "CREATE TABLE jitrca.one (n int); INSERT INTO jitrca.one VALUES (2)"),
		MIGRATION(2, "CREATE TABLE jitrca.two (n int); UPDATE jitrca.one SET n = n + 1"),
		MIGRATION(3, "UPDATE jitrca.one SET n = n * 10"),
	};
	size_t applied;

	(void)state;
	assert_ok(db_migrate(CONNINFO, STEPS, 2, &applied, err));
	assert_refused(db_migrate(CONNINFO, CHANGED, 3, &applied, err), ERR_CONFLICT, "schema_changed");
	assert_refused(db_migrate_check(CONNINFO, CHANGED, 3, err), ERR_CONFLICT, "schema_changed");
	assert_int_equal(number("SELECT n FROM jitrca.one"), 2);
}

static void
a_history_with_a_gap_is_refused(void **state)
{
	struct db_conn *conn = NULL;
	size_t applied;

	(void)state;
	assert_ok(db_migrate(CONNINFO, STEPS, 2, &applied, err));
	assert_ok(db_conn_open(&conn, CONNINFO, err));
	assert_ok(db_conn_exec(conn, "gap", "DELETE FROM jitrca.schema_migration WHERE version = 1", NULL,
		err));
	db_conn_close(conn);
	assert_refused(db_migrate(CONNINFO, STEPS, 2, &applied, err), ERR_CONFLICT, "schema_changed");
}

static void
a_step_that_fails_leaves_nothing(void **state)
{
	static const struct db_migration BAD[] = {
		MIGRATION(1, "CREATE TABLE jitrca.one (n int); INSERT INTO jitrca.one VALUES (1)"),
		MIGRATION(2, "CREATE TABLE jitrca.two (n int); SELECT nonsense"),
	};
	size_t applied;
	struct err said;

	(void)state;
	assert_int_equal(db_migrate(CONNINFO, BAD, 2, &applied, &said), ERR_INTERNAL);
	assert_string_equal(said.code, "database_error");
	assert_non_null(strstr(said.text, "0002: SQLSTATE 42703"));
	assert_int_equal(applied, 1); /* each in a transaction of its own */
	assert_int_equal(number("SELECT count(*) FROM pg_tables WHERE tablename = 'two'"), 0);
	assert_ok(db_migrate(CONNINFO, STEPS, 3, &applied, err));
	assert_int_equal(applied, 2);
}

struct runner {
	pthread_barrier_t *start;
	size_t applied;
	enum status status;
};

static void *
run_one(void *arg)
{
	struct runner *runner = arg;
	struct err err;

	(void)pthread_barrier_wait(runner->start);
	runner->status = db_migrate(CONNINFO, STEPS, 3, &runner->applied, &err);
	return NULL;
}

static void
concurrent_runs_apply_each_step_once(void **state)
{
	pthread_t threads[6];
	struct runner runners[6];
	pthread_barrier_t start;
	size_t applied = 0;

	(void)state;
	(void)pthread_barrier_init(&start, NULL, COUNT_OF(threads));
	for (size_t i = 0; i < COUNT_OF(threads); i++) {
		runners[i] = (struct runner){ .start = &start };
		assert_int_equal(pthread_create(&threads[i], NULL, run_one, &runners[i]), 0);
	}
	for (size_t i = 0; i < COUNT_OF(threads); i++) {
		(void)pthread_join(threads[i], NULL);
		assert_int_equal(runners[i].status, OK);
		applied += runners[i].applied;
	}
	(void)pthread_barrier_destroy(&start);
	assert_int_equal(applied, 3);
	assert_int_equal(number("SELECT n FROM jitrca.one"), 20);
}

static void
a_database_that_is_away_is_told(void **state)
{
	size_t applied;

	(void)state;
	assert_refused(db_migrate("host=/nonexistent", STEPS, 3, &applied, err), ERR_UNAVAILABLE,
		"database_away");
	assert_refused(db_migrate_check("host=/nonexistent", STEPS, 3, err), ERR_UNAVAILABLE,
		"database_away");
	assert_refused(db_migrate_check("not a conninfo", STEPS, 3, err), ERR_UNAVAILABLE,
		"database_away");
}

static void
the_real_migrations_apply_and_are_numbered(void **state)
{
	size_t applied;

	(void)state;
	for (size_t i = 0; i < DB_MIGRATION_COUNT; i++) {
		assert_int_equal(DB_MIGRATIONS[i].version, i + 1);
		assert_int_equal(strlen(DB_MIGRATIONS[i].sql), DB_MIGRATIONS[i].sql_len);
	}
	assert_ok(db_migrate(CONNINFO, DB_MIGRATIONS, DB_MIGRATION_COUNT, &applied, err));
	assert_int_equal(applied, DB_MIGRATION_COUNT);
	assert_ok(db_migrate_check(CONNINFO, DB_MIGRATIONS, DB_MIGRATION_COUNT, err));
}

/* Of before lists lay in pieces: long ones, short ones, and a revocation that is on none yet. */
static void
lists_of_an_old_database_go_on(void **state)
{
	static const char *const OLD[] = {
		"INSERT INTO jitrca.issuer (ca_id, kind, subject, certificate, chain, sha256,"
		" not_before, not_after) VALUES ('old', 'issuing', 's', '', '{}', sha256('old'),"
		" now(), now())",
		"INSERT INTO jitrca.crl_scope (issuer_id, scope, last_number, wanted, published,"
		" next_update) SELECT issuer_id, n, 7, 4, 4, now() + interval '7 days'"
		" FROM jitrca.issuer, generate_series(-1, 255) n",
		"INSERT INTO jitrca.crl (issuer_id, scope, number, this_update, next_update, entries,"
		" sha256, der) SELECT issuer_id, n, 7, now(), now() + interval '7 days', 1, sha256(d), d"
		" FROM jitrca.issuer, generate_series(-1, 3) n, LATERAL (SELECT convert_to(repeat("
		"md5(n::text), CASE n WHEN -1 THEN 20000 WHEN 0 THEN 8192 ELSE 10 END), 'UTF8') AS d) x",
		"INSERT INTO jitrca.revocation SELECT issuer_id, decode(repeat('11', 16), 'hex'), 1, now(),"
		" now() + interval '1 day' FROM jitrca.issuer",
	};
	struct db_conn *conn = NULL;
	size_t applied, before = 0;

	(void)state;
	while (strcmp(DB_MIGRATIONS[before].name, "0010_crl_pieces") != 0)
		before++;
	assert_ok(db_migrate(CONNINFO, DB_MIGRATIONS, before, &applied, err));
	assert_ok(db_conn_open(&conn, CONNINFO, err));
	for (size_t i = 0; i < COUNT_OF(OLD); i++)
		assert_ok(db_conn_exec(conn, "old", OLD[i], NULL, err));
	db_conn_close(conn);

	assert_ok(db_migrate(CONNINFO, DB_MIGRATIONS, DB_MIGRATION_COUNT, &applied, err));
	assert_int_equal(number("SELECT count(*) FROM jitrca.crl l WHERE l.length = (SELECT"
		" sum(length(p.octets)) FROM jitrca.crl_piece p WHERE p.scope = l.scope"
		" AND p.number = l.number) AND l.sha256 = (SELECT sha256(string_agg(p.octets, ''"
		" ORDER BY p.piece)) FROM jitrca.crl_piece p WHERE p.scope = l.scope"
		" AND p.number = l.number)"), 5);
	assert_int_equal(number("SELECT count(*) FROM jitrca.crl_piece WHERE scope = -1"), 3);
	assert_int_equal(number("SELECT count(*) FROM jitrca.crl_piece WHERE scope = 0"), 1);
	/* The delta is due, and without a base the full list with it; numbers go on. */
	assert_int_equal(number("SELECT count(*) FROM jitrca.crl_scope WHERE scope = -2"
		" AND wanted > published"), 1);
	assert_int_equal(number("SELECT last_number FROM jitrca.crl_scope WHERE scope = -1"), 7);
	assert_int_equal(number("SELECT count(*) FROM jitrca.crl_base"), 0);
	assert_int_equal(number("SELECT count(*) FROM jitrca.revocation"), 1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(steps_are_applied_once_and_in_order, forget),
		cmocka_unit_test_setup(a_newer_history_is_refused, forget),
		cmocka_unit_test_setup(a_changed_text_is_refused, forget),
		cmocka_unit_test_setup(a_history_with_a_gap_is_refused, forget),
		cmocka_unit_test_setup(a_step_that_fails_leaves_nothing, forget),
		cmocka_unit_test_setup(concurrent_runs_apply_each_step_once, forget),
		cmocka_unit_test(a_database_that_is_away_is_told),
		cmocka_unit_test_setup(the_real_migrations_apply_and_are_numbered, forget),
		cmocka_unit_test_setup(lists_of_an_old_database_go_on, forget),
	};

	return cmocka_run_group_tests(tests, database_make_empty, database_drop);
}
