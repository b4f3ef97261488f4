/* What a campaign does next: canary, waves, pace, halt (server/jobs/campaign_decide.h). */
#include "tests/unit/base/test.h"

#include <string.h>

#include "server/iot/forecast.h"
#include "server/jobs/campaign_decide.h"

#define T0 INT64_C(1800000000)

static struct db_campaign
campaign_of(int64_t members)
{
	struct db_campaign k = { .members = members, .canary_share = 100, .canary_confirmed = 50,
		.soak_s = 3600, .wave_share = 200, .confirm_within_s = 3600, .halt_percent = 10,
		.pace_per_hour = 3600 };

	campaign_begin(&k, T0);
	return k;
}

static void
sizes_are_shares_and_never_nothing(void **state)
{
	static const struct { int64_t members, want_canary, want_wave, want_least; } CASES[] = {
		{ 1, 1, 1, 1 }, { 10, 1, 1, 1 }, { 300, 3, 6, 3 }, { 1000000, 10000, 20000, 3 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		struct db_campaign k = campaign_of(CASES[i].members);

		assert_int_equal(k.canary, CASES[i].want_canary);
		assert_int_equal(k.wave, CASES[i].want_wave);
		assert_int_equal(k.halt_least, CASES[i].want_least);
		assert_int_equal(k.wave_left, k.canary);
		assert_string_equal(k.state, "running");
	}
}

static enum campaign_step
step(struct db_campaign *k, struct db_campaign_tally tally, int64_t now_s, int64_t *count)
{
	bool new_wave;

	return campaign_decide(k, &tally, true, now_s, count, &new_wave);
}

static void
the_pace_is_kept_to_the_device(void **state)
{
	struct db_campaign k = campaign_of(1000000); /* one a second */
	const struct db_campaign_tally none = { 0 };
	int64_t asked = 0;
	int64_t count;

	(void)state;
	k.pace_per_hour = 1000; /* one in 3.6 s */
	for (int64_t s = 0; s <= 3600; s++) {
		(void)step(&k, none, T0 + s, &count);
		asked += count;
	}
	assert_int_equal(asked, 1000);
	assert_int_equal(k.asked, 1000);
	/* An absence of hours is no debt that is paid at once; nor is a clock that was set back. */
	assert_int_equal(step(&k, none, T0 + 20000, &count), CAMPAIGN_STAYS);
	assert_int_equal(step(&k, none, T0 + 10, &count), CAMPAIGN_STAYS);
	assert_int_equal(step(&k, none, T0 + 14, &count), CAMPAIGN_MOVES);
	assert_int_equal(count, 1);
}

static void
a_canary_needs_its_time_and_its_confirmations(void **state)
{
	static const struct { struct db_campaign_tally tally; int64_t at_s; bool want; } CASES[] = {
		{ { .confirmed = 3 }, 3600, true },
		{ { .confirmed = 3 }, 3599, false },
		{ { .confirmed = 2, .waiting = 1 }, 3600, true },
		{ { .confirmed = 1, .waiting = 2 }, 3600, false },
		{ { .confirmed = 2, .pending = 1 }, 9999, false },
		{ { .confirmed = 1, .gone = 2 }, 3600, true },
		{ { .waiting = 3 }, 999999, false },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		struct db_campaign k = campaign_of(300);
		bool new_wave;
		int64_t count;

		k.asked = 3;
		k.wave_left = 0;
		assert_int_not_equal(campaign_decide(&k, &CASES[i].tally, true, T0 + CASES[i].at_s,
			&count, &new_wave), CAMPAIGN_HALTS);
		assert_int_equal(new_wave, CASES[i].want);
		assert_int_equal(k.canary_stage, !CASES[i].want);
	}
}

static void
it_halts_on_the_rate_but_not_on_one(void **state)
{
	static const struct { struct db_campaign_tally tally; bool want; } CASES[] = {
		{ { .late = 2 }, false },
		{ { .late = 3 }, true },
		{ { .failed = 3 }, true },
		{ { .late = 1, .failed = 2, .confirmed = 27 }, false },
		{ { .late = 1, .failed = 2, .confirmed = 26 }, true },
		{ { .pending = 100 }, false },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		struct db_campaign k = campaign_of(300);
		int64_t count;

		assert_int_equal(step(&k, CASES[i].tally, T0 + 1, &count) == CAMPAIGN_HALTS,
			CASES[i].want);
		assert_int_equal(strcmp(k.state, "halted") == 0, CASES[i].want);
	}
}

static void
one_wave_at_most_is_between_asking_and_confirming(void **state)
{
	struct db_campaign k = campaign_of(300);
	int64_t count;

	(void)state;
	k.canary_stage = false;
	k.wave_left = 6;
	assert_int_equal(step(&k, (struct db_campaign_tally){ .pending = 6 }, T0 + 5, &count),
		CAMPAIGN_STAYS);
	assert_true(k.crowded);
	/* The time that was waited is not made up for. */
	assert_int_equal(step(&k, (struct db_campaign_tally){ .pending = 5 }, T0 + 6, &count),
		CAMPAIGN_MOVES);
	assert_int_equal(count, 1);
	assert_false(k.crowded);
}

static void
it_ends_when_all_are_settled(void **state)
{
	struct db_campaign k = campaign_of(3);
	const struct db_campaign_tally tally = { .confirmed = 3 };
	bool new_wave;
	int64_t count;

	(void)state;
	k.asked = 3;
	k.wave_left = 0;
	assert_int_equal(campaign_decide(&k, &tally, true, T0, &count, &new_wave), CAMPAIGN_STAYS);
	assert_int_equal(campaign_decide(&k, &tally, false, T0, &count, &new_wave), CAMPAIGN_ENDS);
	assert_string_equal(k.state, "done");
}

static void
after_a_halt_it_begins_with_another_canary(void **state)
{
	struct db_campaign k = campaign_of(300);

	(void)state;
	k.asked = 60;
	k.frontier = 777;
	memcpy(k.state, "halted", sizeof("halted"));
	campaign_resume(&k, T0 + 100);
	assert_true(k.canary_stage);
	assert_int_equal(k.wave_left, 3);
	assert_int_equal(k.judge_from, 777);
	assert_int_equal(k.wave_at_s, T0 + 100);
}

static void
expectations_are_in_order(void **state)
{
	(void)state;
	assert_int_equal(campaign_expected_s(0, 1000, 3600, T0), T0);
	assert_int_equal(campaign_expected_s(INT64_MAX, 1000, 3600, T0), T0 + 1000);
	assert_in_range(campaign_expected_s(INT64_MAX / 2, 1000, 3600, T0), T0 + 499, T0 + 501);
}

static void
the_slowest_quota_bounds_the_pace(void **state)
{
	struct iot_target target = { .quota_count = 1, .quotas = { { .operation = "*", .per_second = 10 } } };

	(void)state;
	/* Two calls of UpdateCertificate a device at ten a second. */
	assert_int_equal(iot_forecast_rotations_per_hour(&target, 1), 18000);
	assert_int_equal(iot_forecast_rotations_per_hour(&target, 4), 9000);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes_are_shares_and_never_nothing),
		cmocka_unit_test(the_pace_is_kept_to_the_device),
		cmocka_unit_test(a_canary_needs_its_time_and_its_confirmations),
		cmocka_unit_test(it_halts_on_the_rate_but_not_on_one),
		cmocka_unit_test(one_wave_at_most_is_between_asking_and_confirming),
		cmocka_unit_test(it_ends_when_all_are_settled),
		cmocka_unit_test(after_a_halt_it_begins_with_another_canary),
		cmocka_unit_test(expectations_are_in_order),
		cmocka_unit_test(the_slowest_quota_bounds_the_pace),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
