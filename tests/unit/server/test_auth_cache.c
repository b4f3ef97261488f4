#include "tests/unit/base/test.h"

#include <string.h>

#include "base/mem.h"
#include "server/auth_cache.h"

struct value {
	uint64_t number;
	char text[24];
};

static const uint8_t *
key_of(uint64_t number)
{
	static uint8_t key[AUTH_KEY_BYTES];

	memset(key, 0, sizeof(key));
	memcpy(key, &number, sizeof(number));
	return key;
}

static void
what_was_put_is_found_with_its_epoch(void **state)
{
	struct auth_cache *cache;
	struct value value = { 7, "seven" }, found = { 0, "" };
	uint64_t epoch = 0;
	struct err err;

	(void)state;
	assert_int_equal(auth_cache_new(&cache, 8, sizeof(value), &err), OK);
	assert_false(auth_cache_get(cache, key_of(7), &found, &epoch));
	auth_cache_put(cache, key_of(7), &value, 3);
	assert_true(auth_cache_get(cache, key_of(7), &found, &epoch));
	assert_int_equal(epoch, 3);
	assert_string_equal(found.text, "seven");
	value.number = 8;
	auth_cache_put(cache, key_of(7), &value, 4);
	assert_true(auth_cache_get(cache, key_of(7), &found, &epoch));
	assert_int_equal(epoch, 4);
	assert_int_equal(found.number, 8);
	auth_cache_free(cache);
}

static void
a_full_table_forgets_whom_nobody_asked_for(void **state)
{
	struct auth_cache *cache;
	struct value value = { 0, "" };
	uint64_t epoch;
	struct err err;

	(void)state;
	/* Two sets: the even numbers share one, its four places. */
	assert_int_equal(auth_cache_new(&cache, 8, sizeof(value), &err), OK);
	for (uint64_t i = 0; i < 8; i += 2) {
		value.number = i;
		auth_cache_put(cache, key_of(i), &value, 1);
	}
	assert_true(auth_cache_get(cache, key_of(0), &value, &epoch));
	value.number = 100;
	auth_cache_put(cache, key_of(100), &value, 1);
	assert_true(auth_cache_get(cache, key_of(0), &value, &epoch));
	assert_int_equal(value.number, 0);
	assert_true(auth_cache_get(cache, key_of(100), &value, &epoch));
	assert_false(auth_cache_get(cache, key_of(2), &value, &epoch));
	assert_true(auth_cache_get(cache, key_of(4), &value, &epoch));
	for (uint64_t i = 0; i < 10000; i++)
		auth_cache_put(cache, key_of(i), &value, 1);
	assert_false(auth_cache_get(cache, key_of(0), &value, &epoch));
	auth_cache_free(cache);
}

static void
short_memory_is_an_error(void **state)
{
	struct auth_cache *cache;
	struct err err;

	(void)state;
	for (int64_t at = 0; at < 2; at++) {
		mem_fail_at(at);
		assert_int_equal(auth_cache_new(&cache, 8, 8, &err), ERR_UNAVAILABLE);
	}
	mem_fail_at(-1);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_put_is_found_with_its_epoch),
		cmocka_unit_test(a_full_table_forgets_whom_nobody_asked_for),
		cmocka_unit_test(short_memory_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
