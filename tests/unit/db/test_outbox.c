#include "db/outbox.h"

#include "db/issuer.h"
#include "tests/unit/db/world.h"

#define LEASE_MS 60000

static size_t
lease_as(int32_t instance_id, int least_urgent, size_t max, struct db_outbox_row *out)
{
	own_struct(db_tx) tx = { 0 };
	size_t n = 0;

	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_outbox_lease(&tx, instance_id, least_urgent, max, LEASE_MS, out, &n, err));
	MUST(db_tx_commit(&tx, err));
	return n;
}

static size_t
lease(int least_urgent, size_t max, struct db_outbox_row *out)
{
	return lease_as(0, least_urgent, max, out);
}

static bool
done(const struct db_outbox_row *row)
{
	own_struct(db_tx) tx = { 0 };
	bool removed = false;

	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_outbox_done(&tx, row, &removed, err));
	MUST(db_tx_commit(&tx, err));
	return removed;
}

static void
put(const char *device_id, int priority)
{
	own_struct(db_tx) tx = { 0 };

	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_outbox_put_device(&tx, device_id, "event", priority, err));
	MUST(db_tx_commit(&tx, err));
}

static void
fail_row(const struct db_outbox_row *row, int64_t wait_ms, bool dead)
{
	own_struct(db_tx) tx = { 0 };
	struct err why = { .code = "iot_invalid", .text = "CreateThing: no" };

	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_outbox_fail(&tx, row, wait_ms, dead, &why, err));
	MUST(db_tx_commit(&tx, err));
}

static int
empty(void **state)
{
	(void)state;
	(void)sql("DELETE FROM jitrca.outbox");
	return 0;
}

static void
what_takes_away_goes_first(void **state)
{
	struct db_outbox_row rows[4];
	struct db_cert_ref b;

	(void)state;
	(void)issue(ask("first-a"));
	b = issue(ask("first-b"));
	(void)issue(ask("first-c"));
	put("first-a", OUTBOX_GIVES);
	(void)revoke_one(&b, REASON_KEY_COMPROMISE);
	assert_int_equal(lease(OUTBOX_TAKES, 4, rows), 1);
	assert_string_equal(rows[0].key, "first-b");
	assert_int_equal(lease(OUTBOX_UPKEEP, 4, rows), 2);
	assert_string_equal(rows[0].key, "first-a");
	assert_string_equal(rows[1].key, "first-c");
	assert_int_equal(rows[1].priority, OUTBOX_UPKEEP);
}

static void
two_workers_never_have_one_row(void **state)
{
	struct db_outbox_row mine[8];
	struct db_outbox_row theirs[8];

	(void)state;
	for (int i = 0; i < 6; i++) {
		char name[32];

		snprintf(name, sizeof(name), "two-%d", i);
		(void)issue(ask(name));
	}
	assert_int_equal(lease(OUTBOX_UPKEEP, 4, mine), 4);
	assert_int_equal(lease(OUTBOX_UPKEEP, 8, theirs), 2);
	assert_int_equal(lease(OUTBOX_UPKEEP, 8, theirs), 0);
	for (int i = 0; i < 4; i++)
		assert_true(done(&mine[i]));
}

static void
a_newer_version_outlives_the_older_ones_end(void **state)
{
	struct db_outbox_row row;
	struct db_outbox_row again;

	(void)state;
	(void)issue(ask("newer"));
	assert_int_equal(lease(OUTBOX_UPKEEP, 1, &row), 1);
	put("newer", OUTBOX_GIVES);
	/* Nobody else takes it meanwhile: the lease is the device's, not the version's. */
	assert_int_equal(lease(OUTBOX_UPKEEP, 1, &again), 0);
	assert_false(done(&row));
	assert_int_equal(lease(OUTBOX_UPKEEP, 1, &again), 1);
	assert_int_equal(again.version, row.version + 1);
	assert_true(done(&again));
}

static void
who_lost_the_lease_changes_nothing(void **state)
{
	own_struct(db_tx) tx = { 0 };
	struct db_outbox_row slow;
	struct db_outbox_row fast;
	bool both[2];
	bool held;

	(void)state;
	(void)issue(ask("fence"));
	assert_int_equal(lease(OUTBOX_UPKEEP, 1, &slow), 1);
	(void)sql("UPDATE jitrca.outbox SET lease_until = now() - interval '1 s'");
	assert_int_equal(lease(OUTBOX_UPKEEP, 1, &fast), 1);
	assert_true(fast.lease != slow.lease);
	assert_false(done(&slow));
	fail_row(&slow, 0, true);
	assert_int_equal(count("outbox WHERE device_id = 'fence' AND failed_at IS NULL AND attempts = 0"),
		1);
	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_outbox_hold(&tx, (const struct db_outbox_row *[]){ &slow, &fast }, 2, both, err));
	assert_false(both[0]);
	assert_true(both[1]);
	MUST(db_outbox_renew(&tx, &slow, LEASE_MS, &held, err));
	assert_false(held);
	MUST(db_outbox_renew(&tx, &fast, LEASE_MS, &held, err));
	assert_true(held);
	MUST(db_tx_commit(&tx, err));
	assert_true(done(&fast));
}

static void
a_dead_letter_waits_for_retry_or_news(void **state)
{
	own_struct(db_tx) tx = { 0 };
	struct db_outbox_depth depth;
	struct db_outbox_row row;
	size_t n;

	(void)state;
	(void)issue(ask("dead"));
	assert_int_equal(lease(OUTBOX_UPKEEP, 1, &row), 1);
	fail_row(&row, 0, true);
	assert_int_equal(lease(OUTBOX_UPKEEP, 1, &row), 0);
	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_outbox_depth(&tx, &depth, err));
	assert_int_equal(depth.dead, 1);
	MUST(db_outbox_list(&tx, true, "", 1, &row, &n, err));
	assert_int_equal(n, 1);
	assert_string_equal(row.error_code, "iot_invalid");
	MUST(db_outbox_retry(&tx, "dead", &n, err));
	assert_int_equal(n, 1);
	MUST(db_tx_commit(&tx, err));
	assert_int_equal(lease(OUTBOX_UPKEEP, 1, &row), 1);
	fail_row(&row, 0, true);
	put("dead", OUTBOX_GIVES);
	assert_int_equal(lease(OUTBOX_UPKEEP, 1, &row), 1);
	assert_int_equal(row.attempts, 0);
}

static void
what_failed_comes_again_after_its_wait(void **state)
{
	struct db_outbox_row row;

	(void)state;
	(void)issue(ask("wait"));
	assert_int_equal(lease(OUTBOX_UPKEEP, 1, &row), 1);
	fail_row(&row, 3600000, false);
	assert_int_equal(lease(OUTBOX_UPKEEP, 1, &row), 0);
	assert_int_equal(count("outbox WHERE device_id = 'wait' AND due_at > now() + interval '59 min'"),
		1);
	(void)sql("UPDATE jitrca.outbox SET due_at = now()");
	assert_int_equal(lease(OUTBOX_UPKEEP, 1, &row), 1);
	assert_int_equal(row.attempts, 1);
	/* News came while it failed: at once. */
	put("wait", OUTBOX_GIVES);
	fail_row(&row, 3600000, false);
	assert_int_equal(lease(OUTBOX_UPKEEP, 1, &row), 1);
}

static void
many_end_at_once_but_for_the_newer(void **state)
{
	own_struct(db_tx) tx = { 0 };
	struct db_outbox_row rows[3];

	(void)state;
	(void)issue(ask("many-a"));
	(void)issue(ask("many-b"));
	(void)issue(ask("many-c"));
	assert_int_equal(lease(OUTBOX_UPKEEP, 3, rows), 3);
	put("many-b", OUTBOX_GIVES);
	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_outbox_done_many(&tx, (const struct db_outbox_row *[]){ &rows[0], &rows[1], &rows[2] }, 3,
		err));
	MUST(db_tx_commit(&tx, err));
	assert_int_equal(count("outbox"), 1);
	assert_int_equal(lease(OUTBOX_UPKEEP, 3, rows), 1);
	assert_string_equal(rows[0].key, "many-b");
}

static void
every_change_of_a_device_writes_a_row(void **state)
{
	own_struct(db_tx) tx = { 0 };
	struct db_cert_ref first = issue(ask("every"));
	struct db_cert_ref next;
	bool changed;

	(void)state;
	empty(NULL);
	next = issue(ask_successor("every", &first));
	assert_int_equal(count("outbox WHERE device_id = 'every' AND cause = 'issued'"), 1);
	empty(NULL);
	(void)confirm(&next, false);
	assert_int_equal(count("outbox WHERE device_id = 'every' AND cause = 'confirmed'"), 1);
	empty(NULL);
	(void)revoke_one(&next, REASON_CERTIFICATE_HOLD);
	assert_int_equal(count("outbox WHERE device_id = 'every' AND priority = 0"), 1);
	empty(NULL);
	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_revocation_unhold(&tx, &next, err));
	MUST(db_tx_commit(&tx, err));
	assert_int_equal(count("outbox WHERE device_id = 'every' AND priority = 1"), 1);
	empty(NULL);
	{
		struct db_admit_item again = ask("every");

		again.replace = true;
		(void)issue(again);
	}
	assert_int_equal(count("outbox WHERE device_id = 'every' AND priority = 0"), 1);
	empty(NULL);
	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_device_set_status(&tx, "every", "quarantined", "", &changed, err));
	MUST(db_tx_commit(&tx, err));
	assert_int_equal(count("outbox WHERE device_id = 'every' AND priority = 0"), 1);
}

static size_t
release_dead(int32_t instance_id)
{
	own_struct(db_tx) tx = { 0 };
	size_t n = 0;

	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_outbox_release_dead(&tx, instance_id, &n, err));
	MUST(db_tx_commit(&tx, err));
	return n;
}

static void
a_lease_ends_with_its_owners_session(void **state)
{
	struct db_session *alive = NULL;
	struct db_outbox_row mine[1], dead[2], again[4], living[1];

	(void)state;
	MUST(db_session_begin(&alive, world_url, err));
	for (int i = 0; i < 5; i++)
		(void)issue(ask((const char *[]){ "dead-0", "dead-1", "dead-2", "dead-3", "dead-4" }[i]));
	assert_int_equal(lease_as(70001, OUTBOX_UPKEEP, 1, mine), 1);
	assert_int_equal(lease_as(70002, OUTBOX_UPKEEP, 2, dead), 2);
	assert_int_equal(lease_as(db_session_instance_id(alive), OUTBOX_UPKEEP, 1, living), 1);
	assert_int_equal(lease(OUTBOX_UPKEEP, 1, again), 1); /* of no session: lasts its time */
	assert_int_equal(lease(OUTBOX_UPKEEP, 4, again), 0);
	assert_int_equal(release_dead(70001), 2);
	assert_int_equal(release_dead(70001), 0);
	assert_false(done(&dead[0]));
	assert_int_equal(lease(OUTBOX_UPKEEP, 4, again), 2);
	assert_string_equal(again[0].key, dead[0].key);
	assert_true(done(&mine[0]));
	assert_true(done(&living[0]));
	db_session_end(alive);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(what_takes_away_goes_first, empty),
		cmocka_unit_test_setup(two_workers_never_have_one_row, empty),
		cmocka_unit_test_setup(a_lease_ends_with_its_owners_session, empty),
		cmocka_unit_test_setup(a_newer_version_outlives_the_older_ones_end, empty),
		cmocka_unit_test_setup(who_lost_the_lease_changes_nothing, empty),
		cmocka_unit_test_setup(a_dead_letter_waits_for_retry_or_news, empty),
		cmocka_unit_test_setup(what_failed_comes_again_after_its_wait, empty),
		cmocka_unit_test_setup(many_end_at_once_but_for_the_newer, empty),
		cmocka_unit_test_setup(every_change_of_a_device_writes_a_row, empty),
	};

	return cmocka_run_group_tests(tests, world_setup, world_teardown);
}
