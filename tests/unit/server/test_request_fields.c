#include "tests/unit/base/test.h"

#include <string.h>

#include "server/api/request_fields.h"
#include "server/http/request.h"

static enum status
attributes_of(const char *json, struct ca_request *out, char *canonical, size_t size, struct err *err)
{
	own(json_t) object = json_loads(json, 0, NULL);

	assert_non_null(object);
	return read_attributes(out, canonical, size, object, err);
}

static void
attributes_become_canonical(void **state)
{
	static const struct {
		const char *json, *want;
		size_t want_count;
	} CASES[] = {
		{ "{}", "{}", 0 },
		{ "{\"attributes\": {}}", "{}", 0 },
		{ "{\"attributes\": {\"b\": \"2\", \"a\": \"x \\\" y\"}}",
		  "{\"a\":\"x \\\" y\",\"b\":\"2\"}", 2 },
		{ "{\"attributes\": {\"model_2\": \"größe\"}}", "{\"model_2\":\"größe\"}", 1 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		struct ca_request request = { .attribute_count = 9 };
		char canonical[256];
		struct err err;

		assert_int_equal(attributes_of(CASES[i].json, &request, canonical, sizeof(canonical),
			&err), OK);
		assert_string_equal(canonical, CASES[i].want);
		assert_int_equal(request.attribute_count, CASES[i].want_count);
	}
}

static void
attributes_that_break_a_rule_are_refused(void **state)
{
	static const struct {
		const char *json;
		enum status want;
		const char *want_code;
	} CASES[] = {
		{ "{\"attributes\": []}", ERR_ARGUMENT, "field_type" },
		{ "{\"attributes\": null}", ERR_ARGUMENT, "field_type" },
		{ "{\"attributes\": {\"Model\": \"x\"}}", ERR_ARGUMENT, "attribute_name_malformed" },
		{ "{\"attributes\": {\"\": \"x\"}}", ERR_ARGUMENT, "attribute_name_malformed" },
		{ "{\"attributes\": {\"a234567890123456789012345678901234\": \"x\"}}", ERR_ARGUMENT,
		  "attribute_name_malformed" },
		{ "{\"attributes\": {\"a\": 7}}", ERR_ARGUMENT, "field_type" },
		{ "{\"attributes\": {\"a\": \"x\\ny\"}}", ERR_ARGUMENT, "field_malformed" },
		{ "{\"attributes\": {\"a\": \"x\\u007fy\"}}", ERR_ARGUMENT, "field_malformed" },
		{ "{\"attributes\": {\"a\": \"0123456789012345678901234567890123456789012345678901234567"
		  "8901234567890123456789012345678901234567890123456789012345678901234567890\"}}",
		  ERR_ARGUMENT, "field_too_long" },
		{ "{\"attributes\": {\"a0\":\"\",\"a1\":\"\",\"a2\":\"\",\"a3\":\"\",\"a4\":\"\",\"a5\":\"\","
		  "\"a6\":\"\",\"a7\":\"\",\"a8\":\"\",\"a9\":\"\",\"b0\":\"\",\"b1\":\"\",\"b2\":\"\","
		  "\"b3\":\"\",\"b4\":\"\",\"b5\":\"\",\"b6\":\"\"}}", ERR_ARGUMENT,
		  "attributes_too_many" },
		{ "{\"attributes\": {\"a\": \"0123456789012345678901234567890123456789\"}}", ERR_TOO_LARGE,
		  "attributes_too_large" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		struct ca_request request = { .attribute_count = 0 };
		char canonical[32];
		struct err err = { .code = "" };

		assert_int_equal(attributes_of(CASES[i].json, &request, canonical, sizeof(canonical),
			&err), CASES[i].want);
		assert_string_equal(err.code, CASES[i].want_code);
	}
}

static void
a_thing_type_is_a_word(void **state)
{
	static const struct {
		const char *json;
		enum status want;
		const char *want_text;
	} CASES[] = {
		{ "{}", OK, "" },
		{ "{\"thing_type\": \"Sensor:v2_a-b\"}", OK, "Sensor:v2_a-b" },
		{ "{\"thing_type\": \"a b\"}", ERR_ARGUMENT, "" },
		{ "{\"thing_type\": \"\"}", ERR_ARGUMENT, "" },
		{ "{\"thing_type\": \"größe\"}", ERR_ARGUMENT, "" },
		{ "{\"thing_type\": 1}", ERR_ARGUMENT, "" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		own(json_t) object = json_loads(CASES[i].json, 0, NULL);
		struct ca_request request = { .thing_type = "" };
		struct err err;

		assert_int_equal(read_thing_type(&request, object, &err), CASES[i].want);
		assert_string_equal(request.thing_type, CASES[i].want_text);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(attributes_become_canonical),
		cmocka_unit_test(attributes_that_break_a_rule_are_refused),
		cmocka_unit_test(a_thing_type_is_a_word),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
