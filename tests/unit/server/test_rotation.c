#include "tests/unit/base/test.h"

#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/entropy.h"
#include "server/rotation.h"

#define DAY_S INT64_C(86400)
#define HOUR_S INT64_C(3600)
#define MADE_S INT64_C(1795536842)

static const struct ca_profile PROFILE = {
	.name = "device",
	.renew_before_s = 60 * DAY_S,
	.renew_overlap_s = 7 * DAY_S,
};

static void
a_fleet_made_in_one_hour_does_not_come_back_in_one(void **state)
{
	enum { FLEET = 100000, HOURS = 53 * 24 + 1 };
	static int per_hour[HOURS + 1];
	struct entropy entropy = entropy_insecure_fixed(7);
	int64_t first_s = MADE_S + 365 * DAY_S - PROFILE.renew_before_s;
	double mean = (double)FLEET / (53 * 24);
	int highest = 0;

	(void)state;
	memset(per_hour, 0, sizeof(per_hour));
	for (int i = 0; i < FLEET; i++) {
		struct rotation_window window;
		int64_t made_s = MADE_S + (int64_t)i * HOUR_S / FLEET;
		uint8_t id[DB_SHA256_BYTES];
		char name[32];
		struct err err;

		(void)snprintf(name, sizeof(name), "unit-%06d", i);
		assert_int_equal(entropy_fill(&entropy, id, sizeof(id), &err), OK);
		rotation_window(&window, &PROFILE, name, id, made_s, made_s + 365 * DAY_S, made_s);
		assert_false(window.due);
		per_hour[(window.start_s - first_s) / HOUR_S]++;
	}
	for (int i = 0; i < HOURS; i++)
		if (per_hour[i] > highest)
			highest = per_hour[i];
	print_message("the fullest hour holds %d of %.1f in the mean: %.2f\n", highest, mean,
		highest / mean);
	assert_true(highest <= 1.5 * mean);
	assert_true(highest > 0);
}

/* Serial ids in sequence, as bad as it gets: the hash must spread them all the same. */
static void
neighbours_are_spread_too(void **state)
{
	enum { FLEET = 53000 };
	static int per_day[54];

	(void)state;
	memset(per_day, 0, sizeof(per_day));
	for (int i = 0; i < FLEET; i++) {
		struct rotation_window window;
		uint8_t id[DB_SHA256_BYTES] = { (uint8_t)i, (uint8_t)(i >> 8), (uint8_t)(i >> 16) };

		rotation_window(&window, &PROFILE, "unit", id, 0, 365 * DAY_S, 0);
		per_day[(window.start_s - (365 - 60) * DAY_S) / DAY_S]++;
	}
	for (int i = 0; i < 53; i++)
		assert_in_range(per_day[i], 850, 1150);
}

static void
the_same_device_hears_the_same_and_its_next_certificate_another(void **state)
{
	struct rotation_window a;
	struct rotation_window b;
	uint8_t id[DB_SHA256_BYTES] = { 1 };
	uint8_t other[DB_SHA256_BYTES] = { 2 };

	(void)state;
	rotation_window(&a, &PROFILE, "unit-1", id, 0, 365 * DAY_S, 0);
	rotation_window(&b, &PROFILE, "unit-1", id, 0, 365 * DAY_S, 100 * DAY_S);
	assert_int_equal(a.start_s, b.start_s);
	rotation_window(&b, &PROFILE, "unit-1", other, 0, 365 * DAY_S, 0);
	assert_int_not_equal(a.start_s, b.start_s);
	rotation_window(&b, &PROFILE, "unit-2", id, 0, 365 * DAY_S, 0);
	assert_int_not_equal(a.start_s, b.start_s);
}

static void
what_is_due_depends_on_now(void **state)
{
	uint8_t id[DB_SHA256_BYTES] = { 3 };
	int64_t not_after_s = 365 * DAY_S;
	struct rotation_window at;
	int64_t start_s;

	(void)state;
	rotation_window(&at, &PROFILE, "unit-1", id, 0, not_after_s, 0);
	start_s = at.start_s;
	const struct {
		int64_t now_s;
		bool want_due;
		enum rotation_reason want_reason;
		int64_t want_retry_s;
	} cases[] = {
		{ 0, false, ROTATION_NOT_YET, ROTATION_ASK_AGAIN_MAX_S },
		{ start_s - 100, false, ROTATION_NOT_YET, 100 },
		{ start_s - 1, false, ROTATION_NOT_YET, 1 },
		{ start_s, true, ROTATION_WINDOW, 0 },
		{ not_after_s - 7 * DAY_S, true, ROTATION_LATE, 0 },
		{ not_after_s - 1, true, ROTATION_LATE, 0 },
		{ not_after_s, true, ROTATION_EXPIRED, 0 },
	};

	assert_in_range(start_s, not_after_s - 60 * DAY_S, not_after_s - 7 * DAY_S - 1);
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		rotation_window(&at, &PROFILE, "unit-1", id, 0, not_after_s, cases[i].now_s);
		assert_int_equal(at.due, cases[i].want_due);
		assert_int_equal(at.reason, cases[i].want_reason);
		assert_int_equal(at.retry_after_s, cases[i].want_retry_s);
		assert_int_equal(at.end_s, not_after_s - 7 * DAY_S);
	}
}

static void
a_validity_shorter_than_the_renewal_period_still_has_a_window(void **state)
{
	uint8_t id[DB_SHA256_BYTES] = { 4 };
	struct rotation_window at;

	(void)state;
	/* 30 days, of which the profile wants 60 for renewal: the 23 that there are. */
	rotation_window(&at, &PROFILE, "unit-1", id, 0, 30 * DAY_S, 0);
	assert_in_range(at.start_s, 0, 23 * DAY_S);
	/* Shorter than the overlap: due at once, and late. */
	rotation_window(&at, &PROFILE, "unit-1", id, 0, 3 * DAY_S, 0);
	assert_true(at.due);
	assert_int_equal(at.reason, ROTATION_LATE);
	assert_int_equal(at.start_s, 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_fleet_made_in_one_hour_does_not_come_back_in_one),
		cmocka_unit_test(neighbours_are_spread_too),
		cmocka_unit_test(the_same_device_hears_the_same_and_its_next_certificate_another),
		cmocka_unit_test(what_is_due_depends_on_now),
		cmocka_unit_test(a_validity_shorter_than_the_renewal_period_still_has_a_window),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
