#include "tests/unit/db/issuing.h"

#include <pthread.h>

static void
reap(int32_t own_instance, const struct db_cert_ref *refs, size_t ref_count, size_t want)
{
	own_struct(db_tx) tx = { 0 };
	struct db_orphan orphans[16];
	size_t n;

	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_issuance_reap(&tx, own_instance, refs, ref_count, orphans, 16, &n, err));
	MUST(db_tx_commit(&tx, err));
	assert_int_equal(n, want);
}

static void
the_reaper_gives_back_exactly(void **state)
{
	struct db_cert_ref first = issue(ask("orphan-old"));
	struct db_admit_item items[4];
	struct err err;

	(void)state;
	manifest("m-orphan", "st", 3, true);
	line("m-orphan", "orphan-new");
	line("m-orphan", "orphan-old");
	items[0] = with_key(ask_station("st", "orphan-new"), "k-orphan", 1);
	items[1] = ask_successor("orphan-old", &first);
	items[2] = ask("orphan-many");
	items[2].slot = SLOT_MANY;
	items[2].profile = "server";
	(void)issue(items[2]);
	items[2].ref = draw_ref(items[2].not_after_s);
	items[2] = with_key(items[2], "k-orphan-many", 1); /* its key has a certificate */
	sql("SELECT pg_advisory_lock(1784, 77)"); /* instance 77 lives */
	admit_as(77, items, 3);
	for (int i = 0; i < 3; i++)
		assert_int_equal(items[i].admission, ADMISSION_ADMITTED);
	reap(1, NULL, 0, 0);
	reap(77, NULL, 0, 0);
	sql("SELECT pg_advisory_unlock(1784, 77)");
	reap(77, NULL, 0, 0); /* its own are never those of the dead */
	reap(1, NULL, 0, 3);
	reap(1, NULL, 0, 0);
	for (int i = 0; i < 3; i++) {
		nothing_left(&items[i]);
		assert_int_equal(count("revocation WHERE serial = '\\x%s' AND reason = 5",
			hex(&items[i].ref)), 1);
		assert_int_equal(count("crl_scope WHERE issuer_id = 1 AND scope = %d"
			" AND wanted > published", serial_shard(&items[i].ref.serial)), 1);
		assert_int_equal(try_record(&items[i], 1, &err), ERR_CONFLICT);
		assert_string_equal(err.code, "intent_closed");
	}
	assert_int_equal(count("device_slot WHERE device_id = 'orphan-new'"), 0);
	assert_int_equal(count("device_slot WHERE device_id = 'orphan-old' AND current_serial ="
		" '\\x%s'", hex(&first)), 1);
	assert_int_equal(count("key_claim WHERE identity = 'orphan-new'"), 0);
	assert_int_equal(count("key_claim WHERE identity = 'orphan-many' AND serial IS NOT NULL"), 1);
	assert_int_equal(used("m-orphan"), 0);
	assert_int_equal(count("manifest_line WHERE manifest_id = 'm-orphan' AND used_at IS NULL"), 2);

	/* All of it can be asked for again; and the server gives up on some of its own. */
	for (int i = 0; i < 3; i++)
		items[i].ref = draw_ref(items[i].not_after_s);
	admit(items, 3);
	for (int i = 0; i < 3; i++)
		assert_int_equal(items[i].admission, ADMISSION_ADMITTED);
	reap(1, &items[0].ref, 1, 1);
	assert_int_equal(used("m-orphan"), 0);
	record(&items[1], 2);
	reap(1, &items[1].ref, 1, 0); /* recorded is recorded */
	assert_int_equal(status_of(&items[1].ref), CERT_PENDING_CONFIRMATION);

	/* An own one that came about after it was given up on: only once no round can be at it. */
	items[0].ref = draw_ref(items[0].not_after_s);
	admit(items, 1);
	reap(1, NULL, 0, 0);
	sql("UPDATE jitrca.intent_round SET created_at = now() - interval '6 minutes'");
	reap(1, NULL, 0, 1);
	nothing_left(&items[0]);
}

/* Where there is a device there is its slot, which says whether it may have another certificate. */
static void
the_slot_of_a_device_stays(void **state)
{
	struct db_cert_ref first = issue(ask("stays"));
	struct db_admit_item item = ask("stays");

	(void)state;
	(void)revoke_one(&first, REASON_KEY_COMPROMISE);
	admit_wants(&item, ADMISSION_ADMITTED);
	reap(1, &item.ref, 1, 1);
	nothing_left(&item);
	assert_int_equal(count("device_slot WHERE device_id = 'stays' AND current_serial IS NULL"), 1);
	set_device("stays", "quarantined");
	item.ref = draw_ref(item.not_after_s);
	admit_refused(&item, ERR_DENIED, "device_quarantined");
}


static void *
record_second(void *arg)
{
	record(arg, 1); /* waits for its round, and finds itself in what is left of it */
	return NULL;
}

static void
the_rest_of_a_round_waits_and_goes_on(void **state)
{
	own_struct(db_tx) tx = { 0 };
	struct db_admit_item items[] = { ask("rest-1"), ask("rest-2"), ask("rest-3") };
	struct db_orphan orphans[4];
	pthread_t thread;
	size_t n;

	(void)state;
	admit(items, 3);
	assert_int_equal(items[0].intent_round, items[2].intent_round);
	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_issuance_reap(&tx, 1, &items[0].ref, 1, orphans, 4, &n, err));
	assert_int_equal(n, 1);
	assert_int_equal(pthread_create(&thread, NULL, record_second, &items[1]), 0);
	for (int tries = 0; tries < 5000 && count("(SELECT FROM pg_locks WHERE NOT granted"
	    " AND locktype IN ('transactionid', 'tuple')) x") == 0; tries++)
		(void)usleep(1000);
	MUST(db_tx_commit(&tx, err));
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(status_of(&items[1].ref), CERT_ACTIVE);
	assert_int_equal(count("intent WHERE serial = '\\x%s'", hex(&items[2].ref)), 1);
	assert_int_equal(count("intent WHERE serial IN ('\\x%s', '\\x%s')", hex(&items[0].ref),
		hex(&items[1].ref)), 0);
	record(&items[2], 1);
	assert_int_equal(status_of(&items[2].ref), CERT_ACTIVE);
	assert_int_equal(count("intent_round WHERE round_id = %lld", (long long)items[2].intent_round), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_reaper_gives_back_exactly),
		cmocka_unit_test(the_slot_of_a_device_stays),
		cmocka_unit_test(the_rest_of_a_round_waits_and_goes_on),
	};

	return cmocka_run_group_tests(tests, world_setup, world_teardown);
}
