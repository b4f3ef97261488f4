#include "tests/unit/base/test.h"

#include "server/iot/forecast.h"

static void
the_slowest_call_decides(void **state)
{
	static const struct {
		struct iot_forecast_ask ask;
		int64_t want_calls, want_seconds;
	} CASES[] = {
		{ { .certificates = 0 }, 0, 0 },
		{ { .certificates = 1, .policies = 1 }, 4, 1 },
		/* three calls each and their policies; DetachPolicy has 2 a second, the others 10 */
		{ { .certificates = 100, .policies = 100 }, 400, 50 },
		{ { .certificates = 100, .policies = 300 }, 600, 150 },
		{ { .certificates = 100, .policies = 0 }, 300, 10 },
		/* who waits already costs time and no calls of ours */
		{ { .certificates = 100, .policies = 100, .ahead = 60 }, 400, 80 },
		{ { .ahead = 60 }, 0, 30 },
		/* a hold leaves the policies where they are */
		{ { .hold = true, .certificates = 100, .policies = 100 }, 500, 10 },
	};
	struct iot_target target = { .quotas = { { "DetachPolicy", 2, 0 }, { "*", 10, 0 } },
		.quota_count = 2 };

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		struct iot_forecast out;

		iot_forecast_make(&out, &target, &CASES[i].ask);
		assert_int_equal(out.calls, CASES[i].want_calls);
		assert_int_equal(out.seconds, CASES[i].want_seconds);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_slowest_call_decides),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
