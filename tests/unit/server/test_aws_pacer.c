#include "tests/unit/base/test.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "server/iot/aws_pacer.h"

#define MOST_MS 1000 /* so long an urgent caller waits */

static struct clock CLOCK;
static struct aws_buckets *BUCKETS;
static struct aws_pacer PACER;

static void
begin(const struct aws_quota *quotas, size_t count)
{
	struct err err;

	CLOCK = clock_fixed(1000);
	assert_int_equal(aws_buckets_new(&BUCKETS, quotas, count, &CLOCK, &err), OK);
	PACER = aws_buckets_pacer(BUCKETS);
}

static int64_t
take(const char *operation, int priority)
{
	struct aws_token token = { .wait_ms = -1 };
	struct err err;

	assert_int_equal(PACER.take(PACER.arg, operation, priority, MOST_MS, &token, &err), OK);
	assert_true(token.wait_ms >= 0);
	assert_int_equal(token.taken, token.wait_ms == 0 ||
		(priority == AWS_PRIORITY_URGENT && token.wait_ms <= MOST_MS));
	return token.wait_ms;
}

static void
a_bucket_gives_its_burst_and_then_its_rate(void **state)
{
	const struct aws_quota quota = { "Op", 10, 3 };
	int taken = 0;

	(void)state;
	begin(&quota, 1);
	for (int i = 0; i < 3; i++)
		assert_int_equal(take("Op", AWS_PRIORITY_NORMAL), 0);
	for (int ms = 0; ms < 10000; ms++) {
		CLOCK.fixed_ms++;
		taken += take("Op", AWS_PRIORITY_NORMAL) == 0;
	}
	assert_in_range(taken, 99, 100);
	/* An hour's rest is worth one burst. */
	CLOCK.fixed_ms += 3600000;
	for (int i = 0; i < 3; i++)
		assert_int_equal(take("Op", AWS_PRIORITY_NORMAL), 0);
	assert_in_range(take("Op", AWS_PRIORITY_NORMAL), 99, 101);
}

static void
the_wait_that_is_told_is_enough(void **state)
{
	static const double RATES[] = { 0.001, 0.3, 1, 7, 10, 99, 1000 };

	(void)state;
	for (size_t i = 0; i < COUNT_OF(RATES); i++) {
		const struct aws_quota quota = { "Op", RATES[i], 1 };
		int64_t wait_ms;

		begin(&quota, 1);
		assert_int_equal(take("Op", AWS_PRIORITY_NORMAL), 0);
		wait_ms = take("Op", AWS_PRIORITY_NORMAL);
		assert_in_range(wait_ms, 1, 60000);
		CLOCK.fixed_ms += wait_ms;
		if (wait_ms < 60000) /* a longer one is told in pieces */
			assert_int_equal(take("Op", AWS_PRIORITY_NORMAL), 0);
		aws_buckets_free(BUCKETS);
	}
	begin(NULL, 0);
}

static void
operations_do_not_share(void **state)
{
	(void)state;
	begin(NULL, 0);
	while (take("UpdateCertificate", AWS_PRIORITY_NORMAL) == 0)
		;
	assert_int_equal(take("DescribeCertificate", AWS_PRIORITY_NORMAL), 0);
	/* One that no table knows has a bucket as well. */
	assert_int_equal(take("OperationOfTomorrow", AWS_PRIORITY_NORMAL), 0);
	assert_true(take("OperationOfTomorrow", AWS_PRIORITY_NORMAL) > 0);
}

static void
who_is_urgent_goes_first(void **state)
{
	const struct aws_quota quota = { "Op", 10, 1 };

	(void)state;
	begin(&quota, 1);
	assert_int_equal(take("Op", AWS_PRIORITY_NORMAL), 0);
	/* Each is given the next one that comes; whoever else asks waits for those after them. */
	assert_in_range(take("Op", AWS_PRIORITY_URGENT), 100, 101);
	assert_in_range(take("Op", AWS_PRIORITY_URGENT), 200, 201);
	assert_in_range(take("Op", AWS_PRIORITY_NORMAL), 300, 301);
	CLOCK.fixed_ms += 201;
	assert_in_range(take("Op", AWS_PRIORITY_NORMAL), 99, 100);
	CLOCK.fixed_ms += 101;
	assert_int_equal(take("Op", AWS_PRIORITY_NORMAL), 0);
}

static void
no_more_is_given_in_advance_than_is_waited_for(void **state)
{
	const struct aws_quota quota = { "Op", 10, 1 };

	(void)state;
	begin(&quota, 1);
	assert_int_equal(take("Op", AWS_PRIORITY_NORMAL), 0);
	for (int i = 0; i < 50; i++)
		assert_true(take("Op", AWS_PRIORITY_URGENT) > 0);
	/* Nine within the second; the others were told to come again, and hold nobody up. */
	CLOCK.fixed_ms += MOST_MS + 1;
	assert_int_equal(take("Op", AWS_PRIORITY_NORMAL), 0);
}

static void
quotas_are_found_in_order(void **state)
{
	const struct aws_quota overrides[] = { { "UpdateCertificate", 50, 0 }, { "Mine", 0.5, 0 },
		{ "B", 1, 9 }, { AWS_QUOTA_EVERY, 700, 0 } };

	(void)state;
	assert_true(aws_quota_find(overrides, 4, "UpdateCertificate").per_second == 50);
	assert_true(aws_quota_find(overrides, 4, "CreateThing").per_second == 700);
	assert_string_equal(aws_quota_find(overrides, 4, "CreateThing").operation, "CreateThing");
	assert_true(aws_quota_find(overrides, 3, "UpdateCertificate").per_second == 50);
	assert_true(aws_quota_find(overrides, 3, "UpdateCertificate").burst == 12.5);
	assert_true(aws_quota_find(NULL, 0, "UpdateCertificate").per_second == 10);
	assert_true(aws_quota_find(overrides, 3, "Mine").burst == 1);
	assert_true(aws_quota_find(overrides, 3, "B").burst == 9);
	assert_true(aws_quota_find(NULL, 0, "None").per_second == AWS_QUOTA_DEFAULT_PER_SECOND);
	for (size_t i = 0; i < AWS_QUOTAS_COUNT; i++)
		assert_ptr_equal(aws_quota_find(NULL, 0, AWS_QUOTAS[i].operation).operation,
			AWS_QUOTAS[i].operation);
}

static void
bad_quotas_are_refused(void **state)
{
	const double bad[] = { 0, -1, -INFINITY, NAN };
	struct aws_buckets *out;
	struct err err;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(bad); i++) {
		const struct aws_quota quota = { "Op", bad[i], 0 };

		assert_int_equal(aws_buckets_new(&out, &quota, 1, &CLOCK, &err), ERR_ARGUMENT);
		assert_string_equal(err.code, "aws_quota_malformed");
		assert_null(out);
	}
	aws_buckets_free(NULL);
}

static void
operations_are_bounded(void **state)
{
	static char names[129][8];
	struct aws_token token;
	struct err err;

	(void)state;
	begin(NULL, 0);
	for (size_t i = 0; i < 128; i++) {
		(void)snprintf(names[i], sizeof(names[i]), "Op%zu", i);
		assert_int_equal(take(names[i], AWS_PRIORITY_NORMAL), 0);
	}
	assert_int_equal(PACER.take(PACER.arg, "Op128", 0, MOST_MS, &token, &err), ERR_INTERNAL);
}

static int
end(void **state)
{
	(void)state;
	aws_buckets_free(BUCKETS);
	BUCKETS = NULL;
	return 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(a_bucket_gives_its_burst_and_then_its_rate, end),
		cmocka_unit_test_teardown(the_wait_that_is_told_is_enough, end),
		cmocka_unit_test_teardown(operations_do_not_share, end),
		cmocka_unit_test_teardown(who_is_urgent_goes_first, end),
		cmocka_unit_test_teardown(no_more_is_given_in_advance_than_is_waited_for, end),
		cmocka_unit_test_teardown(quotas_are_found_in_order, end),
		cmocka_unit_test_teardown(bad_quotas_are_refused, end),
		cmocka_unit_test_teardown(operations_are_bounded, end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
