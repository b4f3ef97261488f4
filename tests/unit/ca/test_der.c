#include "tests/unit/ca/files.h"

#include "base/mem.h"
#include "ca/der.h"

#define IN(octets)                                                                                 \
	der_of((struct view){ (const uint8_t *)(octets), sizeof(octets) - 1 }, "x_malformed", "x")

enum reader { ANY, INT, UNSIGNED, NUMBER, BOOL, BOOL_DEFAULT, OID, NUL, BITS, NAMED, TIME, GENERALIZED };

static enum status
read_one(enum reader reader, struct der *in, int64_t *number, struct err *err)
{
	struct view view = { NULL, 0 };
	uint64_t u64 = 0;
	unsigned bits = 0;
	bool flag = false;
	enum status status = ERR_INTERNAL;

	switch (reader) {
	case ANY: status = der_any(in, "f", NULL, &view, NULL, err); break;
	case INT: status = der_integer(in, "f", &view, err); break;
	case UNSIGNED: status = der_unsigned(in, "f", &view, err); break;
	case NUMBER: status = der_number(in, "f", &u64, err); *number = (int64_t)u64; return status;
	case BOOL: status = der_boolean(in, "f", &flag, err); *number = flag; return status;
	case BOOL_DEFAULT:
		status = der_boolean_default_false(in, "f", &flag, err);
		*number = flag;
		return status;
	case OID: status = der_oid(in, "f", &view, err); break;
	case NUL: return der_null(in, "f", err);
	case BITS: status = der_bits(in, "f", &view, err); break;
	case NAMED: status = der_named_bits(in, "f", &bits, err); *number = bits; return status;
	case TIME: return der_time(in, "f", number, err);
	case GENERALIZED: return der_generalized_time(in, "f", number, err);
	}
	*number = (int64_t)view.len;
	return status;
}

#define T(octets) (const uint8_t *)(octets), sizeof(octets) - 1

static const struct {
	enum reader reader;
	const uint8_t *data;
	size_t len;
	int64_t want; /* the value, or how many octets */
} GOOD[] = {
	{ ANY, T("\x30\x00"), 0 },
	{ ANY, T("\x04\x02" "ab"), 2 },
	{ INT, T("\x02\x01\x00"), 1 },
	{ INT, T("\x02\x01\x80"), 1 },
	{ INT, T("\x02\x02\x00\x80"), 2 },
	{ INT, T("\x02\x02\xff\x7f"), 2 },
	{ UNSIGNED, T("\x02\x01\x00"), 0 },
	{ UNSIGNED, T("\x02\x02\x00\x80"), 1 },
	{ NUMBER, T("\x02\x01\x00"), 0 },
	{ NUMBER, T("\x02\x02\x01\x00"), 256 },
	{ NUMBER, T("\x02\x08\x7f\xff\xff\xff\xff\xff\xff\xff"), INT64_MAX },
	{ BOOL, T("\x01\x01\xff"), 1 },
	{ BOOL, T("\x01\x01\x00"), 0 },
	{ BOOL_DEFAULT, T("\x01\x01\xff"), 1 },
	{ BOOL_DEFAULT, T(""), 0 },
	{ OID, T("\x06\x03\x55\x1d\x0f"), 3 },
	{ NUL, T("\x05\x00"), 0 },
	{ BITS, T("\x03\x03\x00\xab\xcd"), 2 },
	{ BITS, T("\x03\x01\x00"), 0 },
	{ NAMED, T("\x03\x02\x07\x80"), 1 },
	{ NAMED, T("\x03\x02\x01\x06"), 1 << 5 | 1 << 6 },
	{ NAMED, T("\x03\x03\x07\x00\x80"), 1 << 8 },
	{ NAMED, T("\x03\x01\x00"), 0 },
	{ TIME, T("\x17\x0d" "700101000000Z"), 0 },
	{ TIME, T("\x17\x0d" "500101000000Z"), -631152000 },
	{ TIME, T("\x17\x0d" "491231235959Z"), 2524607999 },
	{ TIME, T("\x17\x0d" "240229120000Z"), 1709208000 },
	{ TIME, T("\x18\x0f" "20500101000000Z"), 2524608000 },
	{ TIME, T("\x18\x0f" "99991231235959Z"), 253402300799 },
	{ GENERALIZED, T("\x18\x0f" "19700101000000Z"), 0 },
	{ GENERALIZED, T("\x18\x0f" "20240229120000Z"), 1709208000 },
	{ GENERALIZED, T("\x18\x0f" "20500101000000Z"), 2524608000 },
};

static const struct {
	enum reader reader;
	const uint8_t *data;
	size_t len;
	const char *want; /* in the text */
} BAD[] = {
	{ ANY, T(""), "the end found" },
	{ ANY, T("\x30"), "the end found" },
	{ ANY, T("\x30\x01"), "cut off" },
	{ ANY, T("\x30\x80\x00\x00"), "indefinite" },
	{ ANY, T("\x30\x81"), "cut off" },
	{ ANY, T("\x30\x81\x05" "aaaaa"), "not minimal" },
	{ ANY, T("\x30\x82\x00\x81"), "not minimal" },
	{ ANY, T("\x30\x85\x00\x00\x00\x00\x01" "a"), "four octets" },
	{ ANY, T("\x30\x84\xff\xff\xff\xff"), "cut off" },
	{ ANY, T("\x1f\x01\x00"), "tag number" },
	{ ANY, T("\x3f\x81\x01\x00"), "tag number" },
	{ INT, T(""), "tag 0x02 wanted, the end found" },
	{ INT, T("\x04\x01\x00"), "tag 0x02 wanted, 0x04 found" },
	{ INT, T("\x02\x00"), "without octets" },
	{ INT, T("\x02\x02\x00\x7f"), "not minimal" },
	{ INT, T("\x02\x02\xff\x80"), "not minimal" },
	{ UNSIGNED, T("\x02\x01\xff"), "not negative" },
	{ NUMBER, T("\x02\x09\x00\x80\x00\x00\x00\x00\x00\x00\x00"), "2^63" },
	{ NUMBER, T("\x02\x0a\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00"), "2^63" },
	{ BOOL, T("\x01\x01\x01"), "00 or ff" },
	{ BOOL, T("\x01\x00"), "00 or ff" },
	{ BOOL_DEFAULT, T("\x01\x01\x00"), "the default" },
	{ BOOL_DEFAULT, T("\x01\x01\x02"), "00 or ff" },
	{ OID, T("\x06\x00"), "cut off" },
	{ OID, T("\x06\x02\x55\x80"), "cut off" },
	{ OID, T("\x06\x03\x55\x80\x01"), "not minimal" },
	{ NUL, T("\x05\x01\x00"), "NULL" },
	{ BITS, T("\x03\x00"), "whole octets" },
	{ BITS, T("\x03\x02\x01\x80"), "whole octets" },
	{ NAMED, T("\x03\x00"), "16 bits" },
	{ NAMED, T("\x03\x01\x01"), "16 bits" },
	{ NAMED, T("\x03\x02\x08\x80"), "16 bits" },
	{ NAMED, T("\x03\x04\x00\x01\x01\x01"), "16 bits" },
	{ NAMED, T("\x03\x02\x00\x80"), "trailing zero" },
	{ NAMED, T("\x03\x02\x07\x81"), "trailing zero" },
	{ NAMED, T("\x03\x02\x00\x00"), "trailing zero" },
	{ TIME, T("\x04\x0d" "700101000000Z"), "a time wanted" },
	{ TIME, T("\x17\x0b" "7001010000Z"), "YYMMDDHHMMSSZ" },
	{ TIME, T("\x17\x0d" "700101000000+"), "YYMMDDHHMMSSZ" },
	{ TIME, T("\x17\x0d" "700230000000Z"), "YYMMDDHHMMSSZ" },
	{ TIME, T("\x17\x0d" "701301000000Z"), "YYMMDDHHMMSSZ" },
	{ TIME, T("\x17\x0d" "700101240000Z"), "YYMMDDHHMMSSZ" },
	{ TIME, T("\x17\x0d" "700101000060Z"), "YYMMDDHHMMSSZ" },
	{ TIME, T("\x17\x0d" "7001010000 0Z"), "YYMMDDHHMMSSZ" },
	{ TIME, T("\x18\x0f" "20490101000000Z"), "UTCTime wanted" },
	{ TIME, T("\x18\x11" "20500101000000.0Z"), "YYYYMMDDHHMMSSZ" },
	{ GENERALIZED, T("\x17\x0d" "700101000000Z"), "tag 0x18 wanted" },
	{ GENERALIZED, T("\x18\x0f" "19691231235959Z"), "YYYYMMDDHHMMSSZ" },
	{ GENERALIZED, T("\x18\x0f" "20230229120000Z"), "YYYYMMDDHHMMSSZ" },
	{ GENERALIZED, T("\x18\x11" "20500101000000.0Z"), "YYYYMMDDHHMMSSZ" },
	{ TIME, T("\x18\x0f" "2050010100000aZ"), "YYYYMMDDHHMMSSZ" },
};

static void
readers_accept_the_one_form(void **state)
{
	struct err err;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(GOOD); i++) {
		struct der in =
			der_of((struct view){ GOOD[i].data, GOOD[i].len }, "x_malformed", "x");
		int64_t number = 0;

		assert_ok(read_one(GOOD[i].reader, &in, &number, &err));
		assert_int_equal(number, GOOD[i].want);
		assert_ok(der_end(&in, "f", &err));
	}
}

static void
readers_refuse_all_other_forms_and_say_why(void **state)
{
	struct err err;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(BAD); i++) {
		/* A copy of its very size, so that a sanitizer sees one octet too far. */
		uint8_t *copy = mem_alloc(BAD[i].len);
		struct der in = der_of((struct view){ copy, BAD[i].len }, "x_malformed", "x");
		int64_t number = 0;

		memcpy(copy, BAD[i].data, BAD[i].len);
		assert_refused(
			read_one(BAD[i].reader, &in, &number, &err), ERR_ARGUMENT, "x_malformed");
		if (strstr(err.text, BAD[i].want) == NULL)
			fail_msg("case %zu: \"%s\" wanted in \"%s\"", i, BAD[i].want, err.text);
		assert_memory_equal(err.text, "x: f: ", 6);
		mem_free(copy);
	}
}

static void
trailing_octets_are_refused(void **state)
{
	struct der in = IN("\x30\x03\x02\x01\x05\x00"), inside;
	uint64_t number;
	struct err err;

	(void)state;
	assert_true(der_next_is(&in, DER_SEQUENCE));
	assert_ok(der_enter(&in, DER_SEQUENCE, "f", &inside, &err));
	assert_ok(der_number(&inside, "f", &number, &err));
	assert_true(der_at_end(&inside));
	assert_false(der_next_is(&inside, DER_INTEGER));
	assert_refused(der_end(&in, "f", &err), ERR_ARGUMENT, "x_malformed");
	assert_non_null(strstr(err.text, "1 more"));
}

static void
oids_become_text(void **state)
{
	static const struct {
		const uint8_t *data;
		size_t len;
		const char *want;
	} cases[] = {
		{ T("\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b"), "1.2.840.113549.1.1.11" },
		{ T("\x55\x1d\x0f"), "2.5.29.15" },
		{ T("\x88\x37\x01"), "2.999.1" },
		{ T("\x00"), "0.0" },
		{ T("\x27"), "0.39" },
		{ T("\x2a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f"), "1.2.?" },
		{ T(""), "" },
	};
	char text[64], small[6];

	(void)state;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		der_oid_text(text, sizeof(text), (struct view){ cases[i].data, cases[i].len });
		assert_string_equal(text, cases[i].want);
	}
	der_oid_text(small, sizeof(small), (struct view){ cases[0].data, cases[0].len });
	assert_string_equal(small, "1.2.8");
}

static void
written_lengths_are_minimal_at_each_border(void **state)
{
	static const size_t lengths[] = { 0, 1, 127, 128, 255, 256, 65535, 65536, 70000 };
	static uint8_t octets[70000];
	struct err err;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(lengths); i++) {
		own_struct(der_writer) w;
		struct view contents;
		struct der in, inside;

		der_writer_init(&w, 100000);
		der_open(&w, DER_SEQUENCE);
		der_open(&w, DER_CONTEXT_CONSTRUCTED(3));
		der_put(&w, DER_OCTET_STRING, (struct view){ octets, lengths[i] });
		der_close(&w);
		der_close(&w);
		assert_ok(der_finish(&w, &err));
		in = der_of(buf_view(&w.buf), "x", "x");
		assert_ok(der_enter(&in, DER_SEQUENCE, "f", &inside, &err));
		assert_ok(der_end(&in, "f", &err));
		assert_ok(der_enter(&inside, DER_CONTEXT_CONSTRUCTED(3), "f", &in, &err));
		assert_ok(der_octets(&in, "f", &contents, &err));
		assert_ok(der_end(&in, "f", &err));
		assert_int_equal(contents.len, lengths[i]);
	}
}

static void
what_is_written_is_read_back(void **state)
{
	own_struct(der_writer) w;
	char text[64];
	struct view view;
	uint64_t number;
	unsigned named;
	int64_t time_s;
	struct err err;
	struct der in;
	bool flag;

	(void)state;
	der_writer_init(&w, 4096);
	for (int round = 0; round < 2; round++) {
		der_writer_reset(&w);
		der_put_number(&w, 0);
		der_put_number(&w, 128);
		der_put_number(&w, INT64_MAX);
		der_put_unsigned(&w, (struct view){ (const uint8_t *)"\0\0\x80", 3 });
		der_put_boolean(&w, true);
		der_put_null(&w);
		der_put_bits(&w, (struct view){ (const uint8_t *)"ab", 2 });
		for (unsigned bits = 0; bits < 512; bits += 37)
			der_put_named_bits(&w, bits);
		der_put_oid(&w, "2.999.4294967295.0");
		der_put_time(&w, 2524607999);
		der_put_time(&w, 2524608000);
		der_put_generalized_time(&w, 1709208000);
	}
	assert_ok(der_finish(&w, &err));
	in = der_of(buf_view(&w.buf), "x", "x");
	assert_ok(der_number(&in, "f", &number, &err));
	assert_int_equal(number, 0);
	assert_ok(der_number(&in, "f", &number, &err));
	assert_int_equal(number, 128);
	assert_ok(der_number(&in, "f", &number, &err));
	assert_true(number == INT64_MAX);
	assert_ok(der_unsigned(&in, "f", &view, &err));
	assert_int_equal(view.len, 1);
	assert_ok(der_boolean(&in, "f", &flag, &err));
	assert_true(flag);
	assert_ok(der_null(&in, "f", &err));
	assert_ok(der_bits(&in, "f", &view, &err));
	assert_memory_equal(view.data, "ab", 2);
	for (unsigned bits = 0; bits < 512; bits += 37) {
		assert_ok(der_named_bits(&in, "f", &named, &err));
		assert_int_equal(named, bits);
	}
	assert_ok(der_oid(&in, "f", &view, &err));
	der_oid_text(text, sizeof(text), view);
	assert_string_equal(text, "2.999.4294967295.0");
	assert_ok(der_time(&in, "f", &time_s, &err));
	assert_int_equal(time_s, 2524607999);
	assert_ok(der_time(&in, "f", &time_s, &err));
	assert_int_equal(time_s, 2524608000);
	assert_ok(der_generalized_time(&in, "f", &time_s, &err));
	assert_int_equal(time_s, 1709208000);
	assert_ok(der_end(&in, "f", &err));
}

static void
a_writer_keeps_its_first_failure(void **state)
{
	static const char *const bad_oids[] = {
		"",
		"1",
		"1.",
		"1.2.",
		".1",
		"3.1",
		"1.40",
		"1.2.x",
		"1.2.03",
		"1.2 ",
		"1.2.99999999999",
		"1.2.4000000000.4000000000.4000000000.4000000000.4000000000.4000000000.4000000000."
		"4000000000.4000000000.4000000000.4000000000.4000000000.4000000000.4000000000",
	};
	own_struct(der_writer) w;
	struct err err;

	(void)state;
	der_writer_init(&w, 8);
	for (size_t i = 0; i < COUNT_OF(bad_oids); i++) {
		der_writer_reset(&w);
		der_open(&w, DER_SEQUENCE);
		der_put_oid(&w, bad_oids[i]);
		der_put_time(&w, INT64_MAX / 2);
		der_close(&w);
		assert_refused(der_finish(&w, &err), ERR_ARGUMENT, "oid_malformed");
	}
	der_writer_reset(&w);
	der_put_time(&w, -631152001); /* 1949 */
	der_put_oid(&w, "");
	assert_refused(der_finish(&w, &err), ERR_ARGUMENT, "time_range");

	der_writer_reset(&w);
	der_open(&w, DER_SEQUENCE);
	der_put(&w, DER_OCTET_STRING, view_text("12345"));
	der_open(&w, DER_SEQUENCE);
	der_put_null(&w);
	der_close(&w);
	der_close(&w);
	assert_refused(der_finish(&w, &err), ERR_TOO_LARGE, "buffer_limit");

	/* The length of an element that was closed does not fit any more. */
	der_writer_free(&w);
	der_writer_init(&w, 2 + 2 + 128);
	der_open(&w, DER_SEQUENCE);
	der_put_raw(&w, (struct view){ (const uint8_t *)err.text, 130 });
	der_close(&w);
	assert_refused(der_finish(&w, &err), ERR_TOO_LARGE, "buffer_limit");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(readers_accept_the_one_form),
		cmocka_unit_test(readers_refuse_all_other_forms_and_say_why),
		cmocka_unit_test(trailing_octets_are_refused),
		cmocka_unit_test(oids_become_text),
		cmocka_unit_test(written_lengths_are_minimal_at_each_border),
		cmocka_unit_test(what_is_written_is_read_back),
		cmocka_unit_test(a_writer_keeps_its_first_failure),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
