/* A database filled at version 13 goes on as it was: what was under way, and devices without a slot. */
#include "tests/unit/db/db_test.h"

#include "db/issuance.h"
#include "db/run.h"

enum { BEFORE = 13 };

static const char FILLED[] =
	"INSERT INTO jitrca.issuer (ca_id, kind, subject, certificate, chain, sha256, not_before, not_after)"
	" VALUES ('ca1', 'issuing', 'CN=ca', '', '{}', sha256(''), now(), now() + interval '1 year');"
	"SELECT jitrca.ensure_month(24000);"
	"INSERT INTO jitrca.device (device_id, status) VALUES ('bare', 'quarantined'), ('held', 'active');"
	"INSERT INTO jitrca.device_slot"
	" (device_id, current_issuer, current_serial, claim_issuer, claim_serial)"
	" VALUES ('held', 1, decode(repeat('07', 16), 'hex'), 1, decode(repeat('02', 16), 'hex')),"
	" ('new', NULL, NULL, 1, decode(repeat('01', 16), 'hex'));"
	"INSERT INTO jitrca.key_claim (spki_sha256, identity, profile, claim_issuer, claim_serial)"
	" SELECT sha256(d::bytea), d, 'device', 1, decode(repeat(s, 16), 'hex')"
	" FROM (VALUES ('new', '01'), ('held', '02')) AS v(d, s);"
	"INSERT INTO jitrca.idempotency (principal_id, key, request_hash, issuer_id, serial)"
	" VALUES ('st', 'k', sha256(''), 1, decode(repeat('01', 16), 'hex'));"
	"INSERT INTO jitrca.intent (issuer_id, serial, instance_id, not_after, principal_id, idempotency_key,"
	" identity, profile, spki_sha256) SELECT 1, decode(repeat(s, 16), 'hex'), 7,"
	" now() + interval '1 day', 'st', nullif(k, ''), d, 'device', sha256(d::bytea)"
	" FROM (VALUES ('held', '02', ''), ('new', '01', 'k')) AS v(d, s, k)";

static int
filled(void **state)
{
	struct db_conn *conn = NULL;
	size_t applied;

	(void)database_make_empty(state);
	assert_ok(db_migrate(CONNINFO, DB_MIGRATIONS, BEFORE, &applied, err));
	assert_ok(db_conn_open(&conn, CONNINFO, err));
	assert_ok(db_conn_exec(conn, "filled", FILLED, NULL, err));
	db_conn_close(conn);
	assert_ok(db_migrate(CONNINFO, DB_MIGRATIONS, DB_MIGRATION_COUNT, &applied, err));
	assert_int_equal(applied, DB_MIGRATION_COUNT - BEFORE);
	assert_ok(db_pool_new(&POOL, CONNINFO, CONNECTIONS, err));
	assert_ok(db_pool_check(POOL, err));
	return 0;
}

static void
what_was_under_way_is_given_back(void **state)
{
	struct db_tx *tx = *state;
	struct db_orphan orphans[4];
	size_t count;

	assert_int_equal(sql_number(tx, "SELECT count(*) FROM jitrca.intent"), 2);
	assert_ok(db_issuance_reap(tx, 1, NULL, 0, orphans, COUNT_OF(orphans), &count, err));
	assert_int_equal(count, 2);
	assert_string_equal(orphans[0].identity, "new");
	assert_string_equal(orphans[1].identity, "held");
	assert_int_equal(sql_number(tx, "SELECT count(*) FROM jitrca.intent"), 0);
	assert_int_equal(sql_number(tx, "SELECT count(*) FROM jitrca.key_claim"), 0);
	assert_int_equal(sql_number(tx, "SELECT count(*) FROM jitrca.idempotency"), 0);
	assert_int_equal(sql_number(tx, "SELECT count(*) FROM jitrca.device_slot"
		" WHERE device_id = 'new'"), 0);
	assert_int_equal(sql_number(tx, "SELECT count(*) FROM jitrca.device_slot WHERE device_id = 'held'"
		" AND claim_serial IS NULL AND current_serial = decode(repeat('07', 16), 'hex')"), 1);
	assert_int_equal(sql_number(tx, "SELECT count(*) FROM jitrca.revocation WHERE reason = 5"), 2);
}

static void
each_device_has_a_slot(void **state)
{
	struct db_tx *tx = *state;

	sql(tx, "SELECT 1");
	assert_int_equal(sql_number(tx, "SELECT count(*) FROM jitrca.device_slot WHERE device_id = 'bare'"
		" AND current_serial IS NULL"), 1);
	/* The rule for names is the same as before. */
	sql_refused(tx, "INSERT INTO jitrca.device (device_id) VALUES ('a b')", "23514");
	sql_refused(tx, "INSERT INTO jitrca.device (device_id) VALUES ('')", "23514");
	sql_refused(tx, "INSERT INTO jitrca.device (device_id) VALUES (repeat('a', 65))", "23514");
	sql(tx, "INSERT INTO jitrca.device (device_id) VALUES (repeat('a:_-Z9', 10) || 'abcd')");
}

/* Also in partitions that are made later. */
static void
nothing_is_searched_for_duplicates(void **state)
{
	struct db_tx *tx = *state;

	sql(tx, "SELECT jitrca.ensure_month(24001)");
	assert_int_equal(sql_number(tx, "SELECT count(*) FROM pg_inherits p JOIN pg_index i ON i.indrelid ="
		" p.inhrelid JOIN pg_class c ON c.oid = i.indexrelid WHERE p.inhparent ="
		" 'jitrca.certificate'::regclass AND NOT coalesce(c.reloptions @>"
		" '{deduplicate_items=off}', false)"), 0);
	assert_int_equal(sql_number(tx, "SELECT count(*) FROM pg_inherits WHERE inhparent ="
		" 'jitrca.certificate'::regclass"), 2);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		in_tx(what_was_under_way_is_given_back),
		in_tx(each_device_has_a_slot),
		in_tx(nothing_is_searched_for_duplicates),
	};

	return cmocka_run_group_tests(tests, filled, database_drop);
}
