/* server/protocol/ocsp_cache.c: what is remembered is bounded, and what changed is not remembered. */
#include "server/protocol/ocsp_cache.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "tests/unit/base/test.h"

#define NOW_S INT64_C(1795500000)
#define RESPONSE_BYTES 800

/* CertID of a serial by one of several names. */
struct name {
	struct ca_ocsp_id id;
	uint8_t octets[24];
};

static struct name
name_of(uint32_t number, uint8_t hash)
{
	struct name name = { .octets = { hash } };

	name.id.serial_ours = true;
	for (size_t i = 0; i < 4; i++) /* spread, as random serials are */
		name.id.serial.octets[8 + 2 * i] = (uint8_t)(number * 2654435761u >> 8 * i);
	memcpy(name.id.serial.octets, &number, sizeof(number));
	memcpy(name.octets + 1, name.id.serial.octets, SERIAL_BYTES);
	return name;
}

static struct ca_ocsp_id
id_of(struct name *name)
{
	name->id.whole = (struct view){ name->octets, sizeof(name->octets) };
	return name->id;
}

static struct db_cert_ref
ref_of(const struct name *name)
{
	return (struct db_cert_ref){ 7, name->id.serial };
}

static void
put(struct ocsp_cache *cache, struct name *name, uint64_t mark)
{
	static const uint8_t RESPONSE[RESPONSE_BYTES] = { 0x30 };
	struct ca_ocsp_id id = id_of(name);
	struct ocsp_answer *answer;
	struct err err;

	assert_int_equal(ocsp_answer_new(&answer, id.whole,
				 (struct view){ RESPONSE, sizeof(RESPONSE) }, &err),
		OK);
	answer->status = OCSP_GOOD;
	answer->use_until_s = NOW_S + 60;
	answer->ref = ref_of(name);
	ocsp_cache_put(cache, answer, mark);
	ocsp_answer_drop(answer);
}

static bool
has(struct ocsp_cache *cache, struct name *name, int64_t now_s)
{
	struct ca_ocsp_id id = id_of(name);
	struct ocsp_answer *answer = ocsp_cache_get(cache, &id, now_s);
	bool found = answer != NULL;

	if (found)
		assert_int_equal(ocsp_answer_response(answer).len, RESPONSE_BYTES);
	ocsp_answer_drop(answer);
	return found;
}

static struct ocsp_cache *
new_cache(size_t bytes)
{
	struct ocsp_cache *cache;
	struct err err;

	assert_int_equal(ocsp_cache_new(&cache, bytes, &err), OK);
	return cache;
}

static void
put_now(struct ocsp_cache *cache, struct name *name)
{
	put(cache, name, ocsp_cache_mark(cache, &name->id.serial));
}

static void
a_serial_is_forgotten_by_all_its_names(void **state)
{
	struct ocsp_cache *cache = new_cache(1 << 20);
	struct name sha1 = name_of(1, 1), sha256 = name_of(1, 2), other = name_of(2, 1);
	struct db_cert_ref ref = ref_of(&sha1);
	struct db_cert_ref of_another_ca = { 8, ref.serial };
	struct ocsp_cache_stats stats;

	(void)state;
	put_now(cache, &sha1);
	put_now(cache, &sha256);
	put_now(cache, &other);
	put_now(cache, &other); /* in its own place */
	ocsp_cache_stats(cache, &stats);
	assert_int_equal(stats.entries, 3);
	assert_true(has(cache, &sha1, NOW_S) && has(cache, &sha256, NOW_S) && has(cache, &other, NOW_S));
	assert_false(has(cache, &sha1, NOW_S + 60)); /* made anew from then on */
	ocsp_cache_forget(cache, &of_another_ca);
	assert_true(has(cache, &sha1, NOW_S));
	ocsp_cache_forget(cache, &ref);
	assert_false(has(cache, &sha1, NOW_S) || has(cache, &sha256, NOW_S));
	assert_true(has(cache, &other, NOW_S));
	ocsp_cache_clear(cache);
	assert_false(has(cache, &other, NOW_S));
	ocsp_cache_stats(cache, &stats);
	assert_true(stats.entries == 0 && stats.bytes == 0);
	ocsp_cache_free(cache);
}

/* The row was read before it changed; the answer comes after the news of it. */
static void
what_was_overtaken_is_not_kept(void **state)
{
	struct ocsp_cache *cache = new_cache(1 << 20);
	struct name name = name_of(3, 1);
	struct db_cert_ref ref = ref_of(&name);
	uint64_t mark = ocsp_cache_mark(cache, &name.id.serial);

	(void)state;
	ocsp_cache_forget(cache, &ref);
	put(cache, &name, mark);
	assert_false(has(cache, &name, NOW_S));
	mark = ocsp_cache_mark(cache, &name.id.serial);
	ocsp_cache_clear(cache);
	put(cache, &name, mark);
	assert_false(has(cache, &name, NOW_S));
	put_now(cache, &name);
	assert_true(has(cache, &name, NOW_S));
	ocsp_cache_free(cache);
}

static void
it_is_bounded_and_the_one_in_use_stays(void **state)
{
	const size_t bytes = 256 * 1024;
	struct ocsp_cache *cache = new_cache(bytes);
	struct name favourite = name_of(1000000, 1);
	struct ocsp_cache_stats stats;

	(void)state;
	put_now(cache, &favourite);
	for (uint32_t i = 0; i < 5000; i++) {
		struct name name = name_of(i, 1);

		put_now(cache, &name);
		if (!has(cache, &favourite, NOW_S))
			fail_msg("lost after %u others", i);
	}
	ocsp_cache_stats(cache, &stats);
	assert_true(stats.bytes <= bytes && stats.entries > 100);
	assert_int_equal(stats.entries + stats.evicted, 5001);
	ocsp_cache_free(cache);
}

static void
what_is_being_sent_outlives_its_place(void **state)
{
	struct ocsp_cache *cache = new_cache(1 << 20);
	struct name name = name_of(4, 1);
	struct ca_ocsp_id id = id_of(&name);
	struct ocsp_answer *answer;

	(void)state;
	put_now(cache, &name);
	answer = ocsp_cache_get(cache, &id, NOW_S);
	assert_non_null(answer);
	ocsp_cache_free(cache);
	assert_int_equal(ocsp_answer_response(answer).data[0], 0x30);
	ocsp_answer_drop(answer);
}

static void
memory_that_is_short_costs_an_answer_only(void **state)
{
	struct ocsp_cache *cache = new_cache(1 << 20);
	struct ocsp_cache *never;
	struct name name = name_of(5, 1);
	struct err err;

	(void)state;
	for (int64_t n = 0; n < 3; n++) {
		mem_fail_at(n);
		assert_int_equal(ocsp_cache_new(&never, 1 << 20, &err), ERR_UNAVAILABLE);
		mem_fail_at(-1);
	}
	mem_fail_at(1); /* the entry: the answer itself is there */
	put_now(cache, &name);
	mem_fail_at(-1);
	assert_false(has(cache, &name, NOW_S));
	put_now(cache, &name);
	assert_true(has(cache, &name, NOW_S));
	ocsp_cache_free(cache);
}

struct crowd {
	struct ocsp_cache *cache;
	uint32_t first;
};

static void *
run_crowd(void *arg)
{
	const struct crowd *crowd = arg;

	for (uint32_t i = 0; i < 3000; i++) {
		struct name name = name_of(crowd->first + i % 50, (uint8_t)(1 + i % 2));
		struct db_cert_ref ref = ref_of(&name);

		put_now(crowd->cache, &name);
		(void)has(crowd->cache, &name, NOW_S);
		if (i % 7 == 0)
			ocsp_cache_forget(crowd->cache, &ref);
	}
	return NULL;
}

/* For ThreadSanitizer above all: several on the same serials, in little room. */
static void
threads_share_it(void **state)
{
	struct crowd crowd = { new_cache(64 * 1024), 0 };
	pthread_t threads[4];
	struct ocsp_cache_stats stats;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, run_crowd, &crowd), 0);
	for (size_t i = 0; i < COUNT_OF(threads); i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	ocsp_cache_stats(crowd.cache, &stats);
	assert_true(stats.bytes <= 64 * 1024);
	ocsp_cache_free(crowd.cache);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_serial_is_forgotten_by_all_its_names),
		cmocka_unit_test(what_was_overtaken_is_not_kept),
		cmocka_unit_test(it_is_bounded_and_the_one_in_use_stays),
		cmocka_unit_test(what_is_being_sent_outlives_its_place),
		cmocka_unit_test(memory_that_is_short_costs_an_answer_only),
		cmocka_unit_test(threads_share_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
