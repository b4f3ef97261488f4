#include "tests/unit/db/world.h"

static void
months_are_made_ahead_a_few_at_a_time(void **state)
{
	int32_t first = expiry_month(world_now) + 100;
	size_t made;

	(void)state;
	MUST(db_issuance_ensure_month(world_pool, first + 1, err));
	MUST(db_issuance_prepare_months(world_pool, first, first + 4, 3, &made, err));
	assert_int_equal(made, 3);
	assert_int_equal(count("(SELECT to_regclass('jitrca.certificate_' || m) AS r FROM"
		" generate_series(%d, %d) m) x WHERE r IS NOT NULL", first, first + 4), 4);
	MUST(db_issuance_prepare_months(world_pool, first, first + 4, 3, &made, err));
	assert_int_equal(made, 1);
	MUST(db_issuance_prepare_months(world_pool, first, first + 4, 3, &made, err));
	assert_int_equal(made, 0);
	MUST_FAIL(db_issuance_ensure_month(world_pool, 65536, err), ERR_INTERNAL, "database_error");
}

/* What a new partition must have of the table: also when it was made beside it and attached. */
static void
a_month_is_guarded_like_the_rest(void **state)
{
	int32_t month = expiry_month(world_now) + 200;
	char text[512];
	int64_t indexes;

	(void)state;
	MUST(db_issuance_ensure_month(world_pool, month, err));
	/* Each index of the table has one below it, and the partition has no other. */
	indexes = count("(SELECT 1 FROM pg_index WHERE indrelid = 'jitrca.certificate'::regclass) x");
	assert_int_equal(count("(SELECT 1 FROM pg_index"
		" WHERE indrelid = 'jitrca.certificate_%d'::regclass) x", month), indexes);
	assert_int_equal(count("(SELECT 1 FROM pg_inherits h JOIN pg_index below ON"
		" below.indexrelid = h.inhrelid JOIN pg_index above ON above.indexrelid = h.inhparent"
		" WHERE above.indrelid = 'jitrca.certificate'::regclass"
		" AND below.indrelid = 'jitrca.certificate_%d'::regclass) x", month), indexes);
	snprintf(text, sizeof(text), "TRUNCATE jitrca.certificate_%d", month);
	sql_refused("23514", text);
	snprintf(text, sizeof(text), "INSERT INTO jitrca.certificate SELECT %d, 99, ('\\x0100' ||"
		" lpad(to_hex(%d), 4, '0') || repeat('00', 12))::bytea, 'active', NULL, 'p', 'd', true, 's',"
		" 'a', NULL, now(), now(), now(), sha256('x'), sha256('x'), NULL, NULL, NULL, NULL,"
		" now(), ''",
		month, month);
	sql_refused("23503", text); /* no such issuer */
}

/* Who reads and who issues has locked the table; neither waits for the other. */
static void
a_month_is_made_while_others_read_and_issue(void **state)
{
	own_struct(db_tx) tx = { 0 };
	int32_t month = expiry_month(world_now) + 300;
	struct db_admit_item item = ask("month-busy");
	struct db_record_item record;

	(void)state;
	admit_wants(&item, ADMISSION_ADMITTED);
	record = record_of(&item);
	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_issuance_record(&tx, &record, 1, err));
	sql("SET lock_timeout = '1s'");
	sql("SELECT jitrca.ensure_month(%d)", month);
	sql("RESET lock_timeout");
	MUST(db_tx_commit(&tx, err));
}

static void
nothing_revoked_is_recorded_as_valid(void **state)
{
	struct db_admit_item items[2] = { ask("born-1"), ask("born-2") };
	struct err err;

	(void)state;
	admit(items, 2);
	sql("INSERT INTO jitrca.revocation VALUES (1, '\\x%s', 5, now(), now() + interval '90 days')",
		hex(&items[1].ref));
	assert_int_equal(try_record(items, 2, &err), ERR_INTERNAL);
	assert_string_equal(err.code, "database_error");
	assert_int_equal(count("certificate WHERE device_id LIKE 'born-%%'"), 0);
	record(&items[0], 1);
	assert_int_equal(status_of(&items[0].ref), CERT_ACTIVE);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(months_are_made_ahead_a_few_at_a_time),
		cmocka_unit_test(a_month_is_guarded_like_the_rest),
		cmocka_unit_test(a_month_is_made_while_others_read_and_issue),
		cmocka_unit_test(nothing_revoked_is_recorded_as_valid),
	};

	return cmocka_run_group_tests(tests, world_setup, world_teardown);
}
