#include "tests/unit/base/test.h"

#include <jansson.h>
#include <string.h>

#include "base/mem.h"
#include "server/json_text.h"

/* Reads it back with another's parser. */
static void
comes_back(const uint8_t *octets, size_t len)
{
	own_struct(buf) text = { .limit_bytes = 4096 };
	json_t *read;
	struct err err;

	assert_int_equal(json_text_string(&text, (struct view){ octets, len }, &err), OK);
	read = json_loadb((const char *)text.data, text.len, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
	assert_non_null(read);
	assert_int_equal(json_string_length(read), len);
	assert_memory_equal(json_string_value(read), octets, len);
	json_decref(read);
}

/* Eight octets are looked at together: each that there is, at each place among others. */
static void
any_octet_comes_back_from_any_place(void **state)
{
	(void)state;
	for (size_t len = 0; len <= 18; len++)
		for (size_t at = 0; at < len; at++)
			for (unsigned octet = 0; octet < 0x80; octet++) {
				uint8_t octets[18];

				memset(octets, 'x', sizeof(octets));
				octets[at] = (uint8_t)octet;
				comes_back(octets, len);
			}
	comes_back((const uint8_t *)"", 0);
}

static void
what_is_not_ascii_stays_as_it_is(void **state)
{
	static const char TEXT[] = "\xc3\xa9\xe2\x82\xac\xf0\x9f\x94\x91 \"quoted\" \\ \x7f\n\xc3\xa9";

	(void)state;
	for (size_t skip = 0; skip < 3; skip++)
		comes_back((const uint8_t *)TEXT + (skip > 0 ? 2 + 3 * (skip - 1) : 0),
			sizeof(TEXT) - 1 - (skip > 0 ? 2 + 3 * (skip - 1) : 0));
}

static void
members_are_left_out_or_null(void **state)
{
	const struct json_pair pairs[] = { { "a", json_text_optional(NULL), false },
		{ "b", view_text("x\"y"), false }, { "c", { NULL, 0 }, true },
		{ "d", json_text_optional(""), false } };
	static const char WANT[] = "{\"b\":\"x\\\"y\",\"c\":null,\"d\":\"\"}";
	own_struct(buf) text = { .limit_bytes = 4096 };
	struct err err;

	(void)state;
	assert_int_equal(json_text_object(&text, pairs, COUNT_OF(pairs), &err), OK);
	assert_int_equal(text.len, strlen(WANT));
	assert_memory_equal(text.data, WANT, text.len);
	text.len = 0;
	assert_int_equal(json_text_object(&text, pairs, 1, &err), OK);
	assert_int_equal(text.len, 2);
	assert_memory_equal(text.data, "{}", 2);
}

static void
what_does_not_fit_is_refused(void **state)
{
	own_struct(buf) text = { .limit_bytes = 8 };
	struct err err;

	(void)state;
	assert_int_equal(json_text_string(&text, view_text("123456789"), &err), ERR_TOO_LARGE);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(any_octet_comes_back_from_any_place),
		cmocka_unit_test(what_is_not_ascii_stays_as_it_is),
		cmocka_unit_test(members_are_left_out_or_null),
		cmocka_unit_test(what_does_not_fit_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
