#include "tests/unit/db/issuing.h"

#include <pthread.h>

static void
a_first_certificate_is_admitted_and_recorded(void **state)
{
	struct db_admit_item item = with_key(ask("first"), "k-first", 1);

	(void)state;
	admit_wants(&item, ADMISSION_ADMITTED);
	assert_int_equal(count("intent WHERE serial = '\\x%s' AND identity = 'first'",
		hex(&item.ref)), 1);
	assert_int_equal(count("device WHERE device_id = 'first'"), 0);
	record(&item, 1);
	assert_int_equal(count("intent"), 0);
	assert_int_equal(status_of(&item.ref), CERT_ACTIVE);
	assert_int_equal(count("device WHERE device_id = 'first' AND status = 'active'"
		" AND thing_type = 'sensor' AND version = 1"), 1);
	assert_int_equal(count("device_slot WHERE device_id = 'first' AND claim_serial IS NULL"
		" AND current_serial = '\\x%s'", hex(&item.ref)), 1);
	assert_int_equal(count("key_claim WHERE identity = 'first' AND claim_serial IS NULL"
		" AND serial = '\\x%s'", hex(&item.ref)), 1);
	assert_int_equal(count("outbox WHERE device_id = 'first' AND version = 1"), 1);
	assert_int_equal(count("outbox WHERE device_id = 'first' AND cause = 'issued'"), 1);
}

struct racer {
	pthread_t thread;
	struct db_admit_item item;
	pthread_barrier_t *start;
	char device[32];
};

static enum status
admit_and_commit(struct db_admit_item *items, size_t n, struct err *err)
{
	own_struct(db_tx) tx = { 0 };

	TRY(db_tx_begin(&tx, world_pool, err));
	TRY(db_issuance_admit(&tx, 1, items, n, err));
	return db_tx_commit(&tx, err);
}

/*
 * More threads than connections, all after the same rows: a slow machine may let one wait in vain,
 * for a connection or a lock, which changes nothing. Only then is it tried again: a deadlock is none.
 */
static enum status
admit_in_the_end(struct db_admit_item *items, size_t n, struct err *err)
{
	enum status status = ERR_UNAVAILABLE;

	for (int tries = 0; tries < 20; tries++) {
		status = admit_and_commit(items, n, err);
		if (status == OK || strcmp(err->code, "database_busy") != 0)
			break;
	}
	return status;
}

static void *
race(void *arg)
{
	struct racer *racer = arg;
	struct err err;

	(void)pthread_barrier_wait(racer->start);
	if (admit_in_the_end(&racer->item, 1, &err) != OK) {
		fprintf(stderr, "admit: %s: %s\n", err.code, err.text);
		racer->item.admission = ADMISSION_UNSET;
	}
	return NULL;
}

static int
run_race(struct racer *racers, size_t n, enum db_admission loser, const char *code)
{
	pthread_barrier_t start;
	int winners = 0;

	pthread_barrier_init(&start, NULL, (unsigned)n);
	for (size_t i = 0; i < n; i++) {
		racers[i].start = &start;
		assert_int_equal(pthread_create(&racers[i].thread, NULL, race, &racers[i]), 0);
	}
	for (size_t i = 0; i < n; i++)
		pthread_join(racers[i].thread, NULL);
	pthread_barrier_destroy(&start);
	for (size_t i = 0; i < n; i++) {
		if (racers[i].item.admission == ADMISSION_ADMITTED) {
			winners++;
			record(&racers[i].item, 1);
			continue;
		}
		assert_int_equal(racers[i].item.admission, loser);
		if (code != NULL)
			assert_string_equal(racers[i].item.refusal.code, code);
	}
	return winners;
}

static void
two_hundred_claims_of_one_key_admit_one(void **state)
{
	static struct racer racers[200];

	(void)state;
	for (size_t i = 0; i < 200; i++) {
		snprintf(racers[i].device, sizeof(racers[i].device), "two-hundred");
		racers[i].item = with_key(ask(racers[i].device), "k-200", 1);
	}
	assert_int_equal(run_race(racers, 200, ADMISSION_BUSY, NULL), 1);
	assert_int_equal(count("certificate WHERE device_id = 'two-hundred'"), 1);
}

static void
the_last_unit_of_a_quota_is_won_once(void **state)
{
	static struct racer racers[200];

	(void)state;
	manifest("m-last", "st", 1, false);
	for (size_t i = 0; i < 200; i++) {
		snprintf(racers[i].device, sizeof(racers[i].device), "last-%zu", i);
		line("m-last", racers[i].device);
		racers[i].item = ask_station("st", racers[i].device);
	}
	assert_int_equal(run_race(racers, 200, ADMISSION_REFUSED, "quota_exhausted"), 1);
	assert_int_equal(used("m-last"), 1);
	assert_int_equal(count("device_slot WHERE device_id LIKE 'last-%%'"), 1);
}

/* Batches over the same devices from many connections: nothing deadlocks, each device has one. */
static void *
batches(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;
	char names[64][24];
	struct db_admit_item items[32];
	uintptr_t failures = 0;

	for (int i = 0; i < 64; i++)
		snprintf(names[i], sizeof(names[i]), "ring-%d", i);
	for (int round = 0; round < 20; round++) {
		struct err err;
		int from = rand_r(&seed) % 64;
		int step = rand_r(&seed) % 2 == 0 ? 1 : 63;
		size_t n = 0;

		for (int i = 0; i < 32; i++) {
			items[i] = ask(names[(from + i * step) % 64]);
			items[i].replace = true;
		}
		if (admit_in_the_end(items, 32, &err) != OK) {
			fprintf(stderr, "admit: %s: %s\n", err.code, err.text);
			failures++;
			continue;
		}
		for (int i = 0; i < 32; i++)
			if (items[i].admission == ADMISSION_ADMITTED)
				items[n++] = items[i];
		if (n > 0 && try_record(items, n, &err) != OK) {
			fprintf(stderr, "record: %s: %s\n", err.code, err.text);
			failures++;
		}
	}
	return (void *)failures;
}

static void
batches_over_the_same_devices_do_not_deadlock(void **state)
{
	pthread_t threads[6];

	(void)state;
	for (uintptr_t i = 0; i < 6; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, batches, (void *)(i + 1)), 0);
	for (size_t i = 0; i < 6; i++) {
		void *failures;

		pthread_join(threads[i], &failures);
		assert_null(failures);
	}
	assert_int_equal(count("device WHERE device_id LIKE 'ring-%%'"), 64);
	assert_int_equal(count("(SELECT device_id FROM jitrca.certificate WHERE status = 'active'"
		" AND device_id LIKE 'ring-%%' GROUP BY 1 HAVING count(*) <> 1) x"), 0);
}

#include "tests/unit/db/model.h"

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_first_certificate_is_admitted_and_recorded),
		cmocka_unit_test(two_hundred_claims_of_one_key_admit_one),
		cmocka_unit_test(the_last_unit_of_a_quota_is_won_once),
		cmocka_unit_test(batches_over_the_same_devices_do_not_deadlock),
		cmocka_unit_test(what_the_model_says_is_what_the_database_says),
	};

	return cmocka_run_group_tests(tests, world_setup, world_teardown);
}
