#include "tests/unit/ca/files.h"

#include "base/mem.h"
#include "ca/pem.h"

static void
what_is_encoded_is_decoded_at_every_length(void **state)
{
	uint8_t octets[200];
	struct err err;

	(void)state;
	for (size_t i = 0; i < sizeof(octets); i++)
		octets[i] = (uint8_t)(i * 37 + 255);
	for (size_t len = 1; len <= sizeof(octets); len++) {
		own_struct(buf) pem = { .limit_bytes = 4096 };
		own_struct(bytes) back = { NULL, 0 };

		assert_ok(ca_pem_encode(&pem, "THING", (struct view){ octets, len }, &err));
		assert_ok(ca_pem_decode(&back, "THING", buf_view(&pem), &err));
		assert_true(view_equal(view_of(&back), (struct view){ octets, len }));
	}
}

static void
lines_have_64_digits(void **state)
{
	static const uint8_t octets[50] = { 0 };
	own_struct(buf) pem = { .limit_bytes = 4096 };
	struct err err;

	(void)state;
	assert_ok(ca_pem_encode(&pem, "X", (struct view){ octets, sizeof(octets) }, &err));
	assert_true(view_equal_text(buf_view(&pem), "-----BEGIN X-----\n"
		"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\n"
		"AAA=\n-----END X-----\n"));
}

static const struct {
	const char *pem, *want; /* in the text; NULL: is read */
} CASES[] = {
	{ "-----BEGIN X-----\nYWJj\n-----END X-----\n", NULL },
	{ "-----BEGIN X-----\r\nYW\r\nJj\r\n-----END X-----", NULL },
	{ "  \n-----BEGIN X-----\n Y W\tJ j\n\n-----END X-----\n\n", NULL },
	{ "", "BEGIN line" },
	{ "-----BEGIN X-----\nYWJj\n-----END X-----\n-----BEGIN X-----\nYWJj\n-----END X-----\n",
		"behind" },
	{ "-----BEGIN X-----\nYWJj\n-----END X-----\nx", "behind" },
	{ "x-----BEGIN X-----\nYWJj\n-----END X-----\n", "BEGIN line" },
	{ "-----BEGIN -----\nYWJj\n-----END -----\n", "label" },
	{ "-----BEGIN  X-----\nYWJj\n-----END  X-----\n", "label" },
	{ "-----BEGIN X -----\nYWJj\n-----END X -----\n", "label" },
	{ "-----BEGIN X\tY-----\nYWJj\n-----END X\tY-----\n", "label" },
	{ "-----BEGIN X", "label" },
	{ "-----BEGIN X-----", "end wanted" },
	{ "-----BEGIN X-----YWJj\n-----END X-----\n", "end wanted" },
	{ "-----BEGIN X-----\nYWJj\n", "END line" },
	{ "-----BEGIN X-----\nYWJj\n-----END Y-----\n", "label of BEGIN" },
	{ "-----BEGIN X-----\nYWJj\n-----END X----\n", "label of BEGIN" },
	{ "-----BEGIN Y-----\nYWJj\n-----END Y-----\n", "label X wanted, Y found" },
	{ "-----BEGIN X-----\n\n-----END X-----\n", "empty" },
	{ "-----BEGIN X-----\nYWJ\n-----END X-----\n", "groups of four" },
	{ "-----BEGIN X-----\nYWJj=\n-----END X-----\n", "groups of four" },
	{ "-----BEGIN X-----\nYW=j\n-----END X-----\n", "base64 wanted" },
	{ "-----BEGIN X-----\nY===\n-----END X-----\n", "base64 wanted" },
	{ "-----BEGIN X-----\nYWI=YWJj\n-----END X-----\n", "base64 wanted" },
	{ "-----BEGIN X-----\nYW_j\n-----END X-----\n", "base64 wanted" },
	{ "-----BEGIN X-----\nYWJ=\n-----END X-----\n", "unused bits" },
	{ "-----BEGIN X-----\nYX==\n-----END X-----\n", "unused bits" },
	/* Behind whole groups, in each place of a group, on either side of the alphabet's parts. */
	{ "-----BEGIN X-----\nYWJjYWJjYWI=YWJj\n-----END X-----\n", "base64 wanted" },
	{ "-----BEGIN X-----\nYWJjYWJjYWI=\n\nYWJj\n-----END X-----\n", "base64 wanted" },
	{ "-----BEGIN X-----\nYWJj@WJj\n-----END X-----\n", "base64 wanted" },
	{ "-----BEGIN X-----\nYWJjY[Jj\n-----END X-----\n", "base64 wanted" },
	{ "-----BEGIN X-----\nYWJjYW`j\n-----END X-----\n", "base64 wanted" },
	{ "-----BEGIN X-----\nYWJjYWJ{\n-----END X-----\n", "base64 wanted" },
	{ "-----BEGIN X-----\nYWJjYW:j\n-----END X-----\n", "base64 wanted" },
	{ "-----BEGIN X-----\nYWJj\x80WJj\n-----END X-----\n", "base64 wanted" },
	{ "-----BEGIN X-----\nYWJjYW\xffj\n-----END X-----\n", "base64 wanted" },
	{ "-----BEGIN X-----\nYWJjYWJjY\n-----END X-----\n", "groups of four" },
};

/* Every digit, in every place of a group and of a line, and broken anywhere. */
static void
lines_may_break_anywhere(void **state)
{
	uint8_t octets[192], body[300], back[193];
	struct err err;
	size_t len;

	(void)state;
	for (size_t i = 0; i < sizeof(octets); i++)
		octets[i] = (uint8_t)(i * 83 + i / 3);
	own_struct(buf) pem = { .limit_bytes = 4096 };
	assert_ok(ca_pem_encode(&pem, "X", (struct view){ octets, sizeof(octets) }, &err));
	size_t digits = 0;
	for (const uint8_t *at = pem.data + strlen("-----BEGIN X-----\n"); digits < 256; at++)
		if (*at != '\n')
			body[digits++] = *at;
	for (size_t at = 0; at <= digits; at++) {
		uint8_t broken[301];

		memcpy(broken, body, at);
		broken[at] = '\n';
		memcpy(broken + at + 1, body + at, digits - at);
		assert_ok(ca_pem_body(back, sizeof(octets), &len,
			(struct view){ broken, digits + 1 }, &err));
		assert_int_equal(len, sizeof(octets));
		assert_memory_equal(back, octets, len);
	}
	/* Room is asked for, whole groups or not. */
	for (size_t room = 0; room < sizeof(octets); room++)
		assert_refused(ca_pem_body(back, room, &len, (struct view){ body, digits }, &err),
			ERR_TOO_LARGE, "pem_too_large");
}

static void
exactly_one_well_formed_block_is_read(void **state)
{
	struct err err;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		own_struct(bytes) der = { NULL, 0 };

		if (CASES[i].want == NULL) {
			assert_ok(ca_pem_decode(&der, "X", view_text(CASES[i].pem), &err));
			assert_true(view_equal_text(view_of(&der), "abc"));
			continue;
		}
		assert_refused(ca_pem_decode(&der, "X", view_text(CASES[i].pem), &err),
			ERR_ARGUMENT, "pem_malformed");
		if (strstr(err.text, CASES[i].want) == NULL)
			fail_msg("case %zu: \"%s\" wanted in \"%s\"", i, CASES[i].want, err.text);
	}
}

static enum status
count_blocks(void *arg, const char *label, struct view der, struct err *err)
{
	size_t *count = arg;

	assert_string_equal(label, *count % 2 == 0 ? "A" : "B C");
	assert_true(view_equal_text(der, "abc"));
	if (++*count == 4)
		return err_set(err, ERR_CONFLICT, "enough", "enough");
	return OK;
}

#define A "-----BEGIN A-----\nYWJj\n-----END A-----\n"
#define B "-----BEGIN B C-----\nYWJj\n-----END B C-----\n"

static void
each_block_of_a_bundle_is_handed_over(void **state)
{
	size_t count = 0;
	struct err err;

	(void)state;
	assert_ok(ca_pem_each((struct view){ NULL, 0 }, count_blocks, &count, &err));
	assert_ok(ca_pem_each(view_text("no block\n"), count_blocks, &count, &err));
	assert_int_equal(count, 0);
	assert_ok(ca_pem_each(
		view_text("subject: x\n" A "text\n" B "more"), count_blocks, &count, &err));
	assert_int_equal(count, 2);
	assert_refused(ca_pem_each(view_text(A B A B), count_blocks, &count, &err), ERR_CONFLICT,
		"enough");
	assert_int_equal(count, 4);
	assert_refused(ca_pem_each(view_text("-----BEGIN A-----\n*\n-----END A-----\n"),
			       count_blocks, &count, &err),
		ERR_ARGUMENT, "pem_malformed");
	assert_refused(
		ca_pem_each(view_text("-----BEGIN A-----\nYWJj\n"), count_blocks, &count, &err),
		ERR_ARGUMENT, "pem_malformed");
}

static void
limits_and_short_memory_are_told(void **state)
{
	own_struct(buf) small = { .limit_bytes = 20 };
	struct bytes der = { NULL, 0 };
	uint8_t octets[2];
	struct err err;
	size_t len;

	(void)state;
	assert_refused(ca_pem_body(octets, sizeof(octets), &len, view_text("YWJj"), &err),
		ERR_TOO_LARGE, "pem_too_large");
	assert_ok(ca_pem_body(octets, sizeof(octets), &len, view_text("YWI="), &err));
	assert_int_equal(len, 2);
	assert_refused(
		ca_pem_encode(&small, "X", view_text("abc"), &err), ERR_TOO_LARGE, "buffer_limit");
	mem_fail_at(0);
	enum status status = ca_pem_decode(&der, "X", view_text(CASES[0].pem), &err);
	mem_fail_at(-1);
	assert_int_equal(status, ERR_UNAVAILABLE);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_encoded_is_decoded_at_every_length),
		cmocka_unit_test(lines_have_64_digits),
		cmocka_unit_test(exactly_one_well_formed_block_is_read),
		cmocka_unit_test(lines_may_break_anywhere),
		cmocka_unit_test(each_block_of_a_bundle_is_handed_over),
		cmocka_unit_test(limits_and_short_memory_are_told),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
