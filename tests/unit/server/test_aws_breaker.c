#include "tests/unit/base/test.h"

#include "base/attr.h"
#include "server/iot/aws_breaker.h"

static const struct aws_breaker_config CONFIG = { .failures = 3, .share_pct = 50, .open_ms = 1000,
	.open_max_ms = 4000 };
static int64_t WAIT_MS;

static struct aws_breaker
opened(int64_t now_ms)
{
	struct aws_breaker breaker;

	aws_breaker_init(&breaker, &CONFIG);
	for (int i = 0; i < 3; i++) {
		assert_true(aws_breaker_allow(&breaker, now_ms, &WAIT_MS));
		aws_breaker_report(&breaker, false, now_ms, 0);
	}
	assert_int_equal(breaker.state, AWS_BREAKER_OPEN);
	return breaker;
}

static void
failures_in_a_row_open_it(void **state)
{
	struct aws_breaker breaker;

	(void)state;
	aws_breaker_init(&breaker, &CONFIG);
	for (int i = 0; i < 9; i++) {
		assert_true(aws_breaker_allow(&breaker, i, &WAIT_MS));
		aws_breaker_report(&breaker, i % 3 == 2, i, 0);
		assert_int_equal(breaker.state, AWS_BREAKER_CLOSED);
	}
	breaker = opened(100);
	assert_int_equal(breaker.opened, 1);
	assert_int_equal(breaker.since_ms, 100);
	assert_false(aws_breaker_allow(&breaker, 100, &WAIT_MS));
	assert_int_equal(WAIT_MS, 500);
}

static void
a_share_of_failures_opens_it(void **state)
{
	struct aws_breaker breaker;
	int sent = 0;

	(void)state;
	aws_breaker_init(&breaker, &CONFIG);
	/* Never three in a row; half of them. */
	while (breaker.state == AWS_BREAKER_CLOSED && sent < 1000) {
		aws_breaker_report(&breaker, sent % 2 == 0, 0, 0);
		sent++;
	}
	assert_int_equal(sent, AWS_BREAKER_WINDOW);
	aws_breaker_init(&breaker, &CONFIG);
	for (sent = 0; sent < 1000; sent++)
		aws_breaker_report(&breaker, sent % 3 != 0, 0, 0);
	assert_int_equal(breaker.state, AWS_BREAKER_CLOSED);
}

static void
one_probe_at_a_time_closes_it(void **state)
{
	struct aws_breaker breaker = opened(0);

	(void)state;
	assert_false(aws_breaker_allow(&breaker, 499, &WAIT_MS));
	assert_int_equal(WAIT_MS, 1);
	assert_true(aws_breaker_allow(&breaker, 500, &WAIT_MS));
	assert_int_equal(breaker.state, AWS_BREAKER_HALF_OPEN);
	assert_false(aws_breaker_allow(&breaker, 500, &WAIT_MS));
	assert_true(WAIT_MS > 0);
	/* One that came to nothing gives its place back. */
	aws_breaker_drop(&breaker);
	assert_true(aws_breaker_allow(&breaker, 501, &WAIT_MS));
	aws_breaker_report(&breaker, true, 502, 0);
	assert_int_equal(breaker.state, AWS_BREAKER_CLOSED);
	assert_true(aws_breaker_allow(&breaker, 503, &WAIT_MS));
	/* The past is forgotten: it takes as many as before. */
	aws_breaker_report(&breaker, false, 504, 0);
	aws_breaker_report(&breaker, false, 504, 0);
	assert_int_equal(breaker.state, AWS_BREAKER_CLOSED);
	aws_breaker_report(&breaker, false, 504, 0);
	assert_int_equal(breaker.probe_at_ms, 504 + 500);
}

static void
each_failed_probe_doubles_the_pause(void **state)
{
	static const int64_t WANT_PAUSES[] = { 2000, 4000, 4000, 4000 };
	struct aws_breaker breaker = opened(0);

	(void)state;
	for (size_t i = 0; i < COUNT_OF(WANT_PAUSES); i++) {
		int64_t now_ms = breaker.probe_at_ms;

		assert_true(aws_breaker_allow(&breaker, now_ms, &WAIT_MS));
		aws_breaker_report(&breaker, false, now_ms, UINT32_MAX);
		assert_int_equal(breaker.state, AWS_BREAKER_OPEN);
		assert_int_equal(breaker.pause_ms, WANT_PAUSES[i]);
		assert_in_range(breaker.probe_at_ms - now_ms, WANT_PAUSES[i] / 2, WANT_PAUSES[i]);
	}
	assert_int_equal(breaker.opened, 5);
}

static void
late_answers_change_nothing(void **state)
{
	struct aws_breaker breaker = opened(0);

	(void)state;
	aws_breaker_report(&breaker, true, 1, 0);
	aws_breaker_report(&breaker, false, 1, 0);
	aws_breaker_drop(&breaker);
	assert_int_equal(breaker.state, AWS_BREAKER_OPEN);
	assert_int_equal(breaker.opened, 1);
}

static void
it_has_defaults_and_names(void **state)
{
	const struct aws_breaker_config none = { 0 };
	struct aws_breaker breaker;

	(void)state;
	aws_breaker_init(&breaker, &none);
	assert_true(breaker.config.failures > 0 && breaker.config.share_pct > 0);
	assert_true(
		breaker.config.open_ms > 0 && breaker.config.open_max_ms >= breaker.config.open_ms);
	assert_string_equal(aws_breaker_name(AWS_BREAKER_CLOSED), "closed");
	assert_string_equal(aws_breaker_name(AWS_BREAKER_OPEN), "open");
	assert_string_equal(aws_breaker_name(AWS_BREAKER_HALF_OPEN), "half_open");
	assert_string_equal(aws_breaker_name((enum aws_breaker_state)9), "unknown");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(failures_in_a_row_open_it),
		cmocka_unit_test(a_share_of_failures_opens_it),
		cmocka_unit_test(one_probe_at_a_time_closes_it),
		cmocka_unit_test(each_failed_probe_doubles_the_pause),
		cmocka_unit_test(late_answers_change_nothing),
		cmocka_unit_test(it_has_defaults_and_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
