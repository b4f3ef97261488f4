#include "tests/unit/base/test.h"

#include <string.h>

#include "base/clock.h"
#include "base/serial.h"

static void
invariant_3_a_serial_has_its_form(void **state)
{
	struct entropy entropy = entropy_insecure_fixed(1);
	bool shards[256] = { false };
	size_t shard_count = 0;

	(void)state;
	for (int i = 0; i < 20000; i++) {
		struct serial serial;
		struct err err;

		assert_int_equal(serial_draw(&serial, 1795536842, &entropy, &err), OK);
		assert_in_range(serial.octets[0], 0x01, 0x7f);
		assert_int_equal(serial_month(&serial), 2026 * 12 + 10);
		shard_count += !shards[serial_shard(&serial)];
		shards[serial_shard(&serial)] = true;
	}
	assert_int_equal(shard_count, 256);
}

static void
the_month_is_that_of_expiry_in_utc(void **state)
{
	(void)state;
	assert_int_equal(expiry_month(0), 1970 * 12);
	assert_int_equal(expiry_month(951868799), 2000 * 12 + 1);
	assert_int_equal(expiry_month(951868800), 2000 * 12 + 2);
}

static void
a_month_that_does_not_fit_is_refused(void **state)
{
	struct entropy entropy = entropy_insecure_fixed(1);
	struct serial serial;
	struct err err;

	(void)state;
	assert_int_equal(serial_draw(&serial, INT64_C(999999999999), &entropy, &err), ERR_ARGUMENT);
	assert_string_equal(err.code, "validity_out_of_range");
}

static void
only_serials_of_our_form_are_read(void **state)
{
	static const struct {
		const char *text;
		bool want_ok;
	} CASES[] = {
		{ "010203040506070809101112131415ff", true },
		{ "7F0203040506070809101112131415ff", true },
		{ "000203040506070809101112131415ff", false },
		{ "800203040506070809101112131415ff", false },
		{ "0102030405060708091011121314", false },
		{ "010203040506070809101112131415fg", false },
	};
	struct serial serial;
	char text[SERIAL_TEXT_BYTES];

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++)
		assert_int_equal(serial_parse(&serial, CASES[i].text, strlen(CASES[i].text)),
			CASES[i].want_ok);
	assert_true(serial_parse(&serial, CASES[0].text, 32));
	serial_format(text, &serial);
	assert_string_equal(text, CASES[0].text);
	assert_true(serial_equal(&serial, &serial));
}

static enum status
no_entropy(struct entropy *self, uint8_t *out, size_t len, struct err *err)
{
	(void)self;
	(void)out;
	(void)len;
	return err_set(err, ERR_UNAVAILABLE, "entropy", "none");
}

static void
without_entropy_there_is_no_serial(void **state)
{
	struct entropy entropy = { .fill = no_entropy };
	uint8_t drawn[2][32] = { { 0 } };
	struct serial serial;
	struct err err;

	(void)state;
	assert_int_equal(serial_draw(&serial, 0, &entropy, &err), ERR_UNAVAILABLE);
	assert_int_equal(entropy_fill(&ENTROPY_SYSTEM, drawn[0], 32, &err), OK);
	assert_int_equal(entropy_fill(&ENTROPY_SYSTEM, drawn[1], 32, &err), OK);
	assert_memory_not_equal(drawn[0], drawn[1], 32);
}

static enum status
rarely_small(struct entropy *self, uint8_t *out, size_t len, struct err *err)
{
	(void)err;
	/* First none that will do (zero and 0x80 and above), then only the ninth. */
	memset(out, 0xff, len);
	memset(out, 0, 4);
	if (++self->state == 2)
		out[8] = 0x42;
	return OK;
}

static void
the_first_octet_is_the_first_that_will_do(void **state)
{
	struct entropy entropy = { .fill = rarely_small };
	struct serial serial;
	struct err err;

	(void)state;
	assert_int_equal(serial_draw(&serial, 1795536842, &entropy, &err), OK);
	assert_int_equal(entropy.state, 2);
	assert_int_equal(serial.octets[0], 0x42);
	assert_int_equal(serial.octets[1], 0xff);
	assert_int_equal(serial.octets[15], 0xff);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(invariant_3_a_serial_has_its_form),
		cmocka_unit_test(the_month_is_that_of_expiry_in_utc),
		cmocka_unit_test(a_month_that_does_not_fit_is_refused),
		cmocka_unit_test(only_serials_of_our_form_are_read),
		cmocka_unit_test(the_first_octet_is_the_first_that_will_do),
		cmocka_unit_test(without_entropy_there_is_no_serial),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
