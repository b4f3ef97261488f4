#include "tests/unit/base/test.h"

#include <string.h>

#include "base/bytes.h"
#include "base/mem.h"

static void
buf_grows_and_keeps_its_content(void **state)
{
	own_struct(buf) buf = { .limit_bytes = 100000 };
	struct err err;

	(void)state;
	for (int i = 0; i < 10000; i++)
		assert_int_equal(buf_format(&buf, &err, "%04d ", i), OK);
	assert_int_equal(buf.len, 50000);
	assert_memory_equal(buf.data, "0000 0001 ", 10);
	assert_memory_equal(buf.data + 49995, "9999 ", 5);
}

static void
buf_refuses_what_is_over_its_limit_and_stays_as_it_was(void **state)
{
	own_struct(buf) buf = { .limit_bytes = 8 };
	struct err err;

	(void)state;
	assert_int_equal(buf_add(&buf, "12345678", 8, &err), OK);
	assert_int_equal(buf_add(&buf, "9", 1, &err), ERR_TOO_LARGE);
	assert_string_equal(err.code, "buffer_limit");
	assert_int_equal(buf.len, 8);
	assert_int_equal(buf_reserve(&buf, SIZE_MAX, &err), ERR_TOO_LARGE);
	assert_memory_equal(buf.data, "12345678", 8);
}

static void
buf_hands_its_octets_over(void **state)
{
	struct buf buf = { .limit_bytes = 64 };
	own_struct(bytes) out = { NULL, 0 };
	struct err err;

	(void)state;
	assert_int_equal(buf_text(&buf, "abc", &err), OK);
	out = buf_give(&buf);
	assert_null(buf.data);
	assert_true(view_equal_text(view_of(&out), "abc"));
}

static void
short_memory_is_an_error_and_changes_nothing(void **state)
{
	own_struct(buf) buf = { .limit_bytes = 1 << 20 };
	struct bytes copy = { NULL, 0 };
	struct err err;

	(void)state;
	mem_fail_at(0);
	assert_int_equal(buf_text(&buf, "x", &err), ERR_UNAVAILABLE);
	assert_string_equal(err.code, "out_of_memory");
	assert_true(mem_failed());
	mem_fail_at(0);
	assert_int_equal(bytes_copy(&copy, view_text("x"), &err), ERR_UNAVAILABLE);
	assert_null(copy.data);
	mem_fail_at(-1);
	assert_int_equal(buf.len, 0);
}

static void
hex_reads_what_it_writes_and_nothing_else(void **state)
{
	static const struct {
		const char *text;
		bool want_ok;
	} CASES[] = {
		{ "00ff7f", true }, { "00FF7f", true }, { "00ff7", false }, { "00ff7f0", false },
		{ "00fg7f", false }, { "", false }, { "0 ff7f", false },
	};
	uint8_t octets[3];
	char text[7];

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++)
		assert_int_equal(hex_decode(octets, 3, CASES[i].text, strlen(CASES[i].text)),
			CASES[i].want_ok);
	hex_encode(text, (const uint8_t[]){ 0, 255, 127 }, 3);
	assert_string_equal(text, "00ff7f");
}

static void
views_compare_by_content(void **state)
{
	(void)state;
	assert_true(view_equal((struct view){ NULL, 0 }, view_text("")));
	assert_false(view_equal_text(view_text("ab"), "abc"));
	assert_false(view_equal((struct view){ (const uint8_t *)"a\0b", 3 }, view_text("a")));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(buf_grows_and_keeps_its_content),
		cmocka_unit_test(buf_refuses_what_is_over_its_limit_and_stays_as_it_was),
		cmocka_unit_test(buf_hands_its_octets_over),
		cmocka_unit_test(short_memory_is_an_error_and_changes_nothing),
		cmocka_unit_test(hex_reads_what_it_writes_and_nothing_else),
		cmocka_unit_test(views_compare_by_content),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
