#include "tests/unit/base/test.h"

#include "base/clock.h"

static void
times_are_written_and_read_as_rfc_3339(void **state)
{
	static const struct {
		const char *text;
		bool want_ok;
		int64_t want_s;
	} CASES[] = {
		{ "1970-01-01T00:00:00Z", true, 0 },
		{ "2026-11-24T16:14:02Z", true, 1795536842 },
		{ "2026-11-24t16:14:02z", true, 1795536842 },
		{ "2026-11-24T17:14:02.25+01:00", true, 1795536842 },
		{ "2026-11-24T15:44:02-00:30", true, 1795536842 },
		{ "2000-02-29T23:59:59Z", true, 951868799 },
		{ "1900-02-29T00:00:00Z", false, 0 },
		{ "2026-13-01T00:00:00Z", false, 0 },
		{ "2026-00-01T00:00:00Z", false, 0 },
		{ "2026-04-31T00:00:00Z", false, 0 },
		{ "2026-11-24T24:00:00Z", false, 0 },
		{ "2026-11-24T16:60:00Z", false, 0 },
		{ "2026-11-24 16:14:02Z", false, 0 },
		{ "2026-11-24T16:14:02", false, 0 },
		{ "2026-11-24T16:14:02.Z", false, 0 },
		{ "2026-11-24T16:14:02Zx", false, 0 },
		{ "2026-11-24T16:14:02+24:00", false, 0 },
		{ "2026-11-24T16:14", false, 0 },
		{ "", false, 0 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		int64_t got_s = -1;
		bool ok = time_parse(&got_s, view_text(CASES[i].text));

		if (ok != CASES[i].want_ok || (ok && got_s != CASES[i].want_s))
			fail_msg("%s: %d %lld", CASES[i].text, ok, (long long)got_s);
	}
}

static void
every_day_of_four_centuries_survives_the_round_trip(void **state)
{
	char text[TIME_TEXT_BYTES];

	(void)state;
	for (int64_t day = -80000; day < 80000; day++) {
		int64_t got_s;

		time_format(text, day * 86400 + 86399);
		assert_true(time_parse(&got_s, view_text(text)));
		assert_int_equal(got_s, day * 86400 + 86399);
	}
}

static void
durations_have_one_number_and_one_unit(void **state)
{
	static const struct {
		const char *text;
		int64_t want_s; /* 0: refused */
	} CASES[] = {
		{ "90s", 90 }, { "15m", 900 }, { "12h", 43200 }, { "365d", 31536000 }, { "0s", 0 },
		{ "", 0 }, { "1", 0 }, { "d", 0 }, { "-1d", 0 }, { "1.5h", 0 }, { "1dd", 0 }, { "1 d", 0 },
		{ "99999999999999999999s", 0 }, { "36525d", 3155760000 }, { "36526d", 0 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		int64_t got_s = 0;

		assert_int_equal(duration_parse(&got_s, CASES[i].text), CASES[i].want_s != 0);
		if (CASES[i].want_s != 0)
			assert_int_equal(got_s, CASES[i].want_s);
	}
}

static void
a_fixed_clock_stands(void **state)
{
	struct clock clock = clock_fixed(42);

	(void)state;
	assert_int_equal(clock_wall_s(&clock), 42);
	assert_int_equal(clock_mono_ms(&clock), 0);
	assert_true(clock_wall_s(&CLOCK_SYSTEM) > 1700000000);
	assert_true(clock_mono_ms(&CLOCK_SYSTEM) >= 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(times_are_written_and_read_as_rfc_3339),
		cmocka_unit_test(every_day_of_four_centuries_survives_the_round_trip),
		cmocka_unit_test(durations_have_one_number_and_one_unit),
		cmocka_unit_test(a_fixed_clock_stands),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
