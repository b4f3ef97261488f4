#include "tests/unit/base/test.h"

#include <errno.h>

#include "base/clock.h"
#include "base/cond.h"

static void
a_wait_ends_when_its_time_has_come(void **state)
{
	pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	pthread_cond_t cond;
	struct timespec until;
	int64_t began_ms = clock_mono_ms(&CLOCK_SYSTEM);

	(void)state;
	cond_init(&cond);
	until = cond_in_ms(30);
	assert_int_equal(pthread_mutex_lock(&lock), 0);
	while (pthread_cond_timedwait(&cond, &lock, &until) == 0)
		;
	assert_int_equal(pthread_cond_timedwait(&cond, &lock, &until), ETIMEDOUT);
	assert_true(clock_mono_ms(&CLOCK_SYSTEM) - began_ms >= 29);
	assert_int_equal(pthread_mutex_unlock(&lock), 0);
	assert_int_equal(pthread_cond_destroy(&cond), 0);
}

static void
a_moment_has_less_than_a_second_of_nanoseconds(void **state)
{
	(void)state;
	for (int64_t ms = 0; ms <= 2000; ms += 37) {
		struct timespec moment = cond_in_ms(ms);

		assert_in_range(moment.tv_nsec, 0, 999999999);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_wait_ends_when_its_time_has_come),
		cmocka_unit_test(a_moment_has_less_than_a_second_of_nanoseconds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
