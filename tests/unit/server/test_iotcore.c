/* The pure parts of the local IoT Core's control plane: members, markers, quotas, users, tables. */
#include "tests/unit/base/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "ca/secret.h"
#include "server/iotcore/internal.h"
#include "server/iotcore/member.h"

/* ---- base64: RFC 4648 10 ---- */

static void
base64_has_one_form(void **state)
{
	static const struct {
		const char *plain, *text;
	} CASES[] = { { "", "" }, { "f", "Zg==" }, { "fo", "Zm8=" }, { "foo", "Zm9v" },
		{ "foob", "Zm9vYg==" }, { "fooba", "Zm9vYmE=" }, { "foobar", "Zm9vYmFy" } };
	static const char *const MALFORMED[] = { "Z", "Zg", "Zg=", "Zg===", "=Zg=", "Z===", "Zg==Zg==",
		"Zh==", "Zm9=", "Zm9v\n", "Zm-v", "Zm9v=", "====" };
	uint8_t out[16];
	char text[32];
	size_t len;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		base64_encode(
			text, (const uint8_t *)CASES[i].plain, strlen(CASES[i].plain));
		assert_string_equal(text, CASES[i].text);
		assert_true(base64_decode(out, sizeof(out), &len, CASES[i].text));
		assert_int_equal(len, strlen(CASES[i].plain));
		assert_memory_equal(out, CASES[i].plain, len);
	}
	for (size_t i = 0; i < COUNT_OF(MALFORMED); i++)
		if (base64_decode(out, sizeof(out), &len, MALFORMED[i]))
			fail_msg("'%s' was taken", MALFORMED[i]);
	assert_false(base64_decode(out, 5, &len, "Zm9vYmFy"));
	assert_true(base64_decode(out, 6, &len, "Zm9vYmFy"));
}

/* ---- members ---- */

static const char *const COLORS[] = { "RED", "BLUE", NULL };
static const struct member POINT[] = {
	{ .name = "x", .type = MEMBER_NUMBER, .required = true, .least = 1, .most = 9 },
	{ .name = "color", .type = MEMBER_TEXT, .values = COLORS },
	{ .name = NULL },
};
static const struct member POINT_ITEM[] = {
	{ .name = "member", .type = MEMBER_STRUCT, .members = POINT },
	{ .name = NULL },
};
static const struct member PAIRS[] = {
	{ .name = "key", .type = MEMBER_TEXT, .most = 3, .pattern = &PATTERN_DIGITS },
	{ .name = "value", .type = MEMBER_FLAG },
	{ .name = NULL },
};

#define NO "1 validation error detected: Value "
#define MUST " failed to satisfy constraint: Member must "

static void
members_say_what_aws_would_say(void **state)
{
	static const struct member NAME = { .name = "name", MEMBER_THING_NAME };
	static const struct member PEM = { .name = "pem", .type = MEMBER_TEXT, .least = 1,
		.most = 65536 };
	static const struct member POINT_MEMBER = { .name = "point", .type = MEMBER_STRUCT,
		.members = POINT };
	static const struct member LIST = { .name = "list", .type = MEMBER_LIST, .least = 1,
		.most = 2, .members = POINT_ITEM };
	static const struct member MAP = { .name = "map", .type = MEMBER_MAP, .members = PAIRS };
	static const struct member TIME = { .name = "time", .type = MEMBER_TIME };
	static const struct member REAL = { .name = "real", .type = MEMBER_REAL };
	static const struct {
		const struct member *member;
		const char *json;
		const char *want; /* NULL: nothing is wrong */
	} CASES[] = {
		{ &NAME, "\"a:b_c-9\"", NULL },
		{ &NAME, "null", NO "null at 'name'" MUST "not be null" },
		{ &NAME, "\"a b\"",
			NO "'a b' at 'name'" MUST
			   "satisfy regular expression pattern: [a-zA-Z0-9:_-]+" },
		{ &NAME, "7", NO "at 'name'" MUST "be a string" },
		{ &NAME, "\"\"",
			"2 validation errors detected: Value '' at 'name'" MUST
			"satisfy regular expression pattern: [a-zA-Z0-9:_-]+; Value '' at "
			"'name'" MUST "have length greater than or equal to 1" },
		{ &PEM, "\"\"", NO "at 'pem'" MUST "have length greater than or equal to 1" },
		{ &PEM, "\"-----BEGIN CERTIFICATE-----\"", NULL },
		{ &POINT_MEMBER, "{\"x\": 1, \"color\": \"RED\", \"unknown\": []}", NULL },
		{ &POINT_MEMBER, "{\"x\": 1, \"color\": null}", NULL },
		{ &POINT_MEMBER, "{\"color\": \"red\"}",
			"2 validation errors detected: Value null at 'point.x'" MUST
			"not be null; Value 'red' at 'point.color'" MUST
			"satisfy enum value set: [RED, BLUE]" },
		{ &POINT_MEMBER, "{\"x\": 10}",
			NO "'10' at 'point.x'" MUST "have value less than or equal to 9" },
		{ &POINT_MEMBER, "{\"x\": 0}",
			NO "'0' at 'point.x'" MUST "have value greater than or equal to 1" },
		{ &POINT_MEMBER, "{\"x\": 1.5}", NO "at 'point.x'" MUST "be an integer" },
		{ &POINT_MEMBER, "[]", NO "at 'point'" MUST "be a structure" },
		{ &LIST, "[{\"x\": 1}, {\"x\": 99}]",
			NO "'99' at 'list.2.member.x'" MUST "have value less than or equal to 9" },
		{ &LIST, "[]", NO "at 'list'" MUST "have length greater than or equal to 1" },
		{ &LIST, "[{\"x\": 1}, {\"x\": 1}, {\"x\": 1}]",
			NO "at 'list'" MUST "have length less than or equal to 2" },
		{ &LIST, "[null]", NO "null at 'list.1.member'" MUST "not be null" },
		{ &LIST, "{}", NO "at 'list'" MUST "be a list" },
		{ &MAP, "{\"12\": true}", NULL },
		{ &MAP, "{\"ab\": true}",
			NO "'ab' at 'map'" MUST "satisfy regular expression pattern: [0-9]+" },
		{ &MAP, "{\"1\": \"yes\"}", NO "at 'map.1'" MUST "be a boolean" },
		{ &MAP, "[]", NO "at 'map'" MUST "be a map" },
		{ &TIME, "1569365372.053", NULL },
		{ &TIME, "\"2024-01-02T03:04:05Z\"", NULL },
		{ &TIME, "\"yesterday\"", NO "at 'time'" MUST "be a timestamp" },
		{ &REAL, "2", NULL },
		{ &REAL, "true", NO "at 'real'" MUST "be a number" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		own(json_t) json = json_loads(CASES[i].json, JSON_DECODE_ANY, NULL);
		struct member_report report = { .count = 0 };
		struct err err = { .text = "" };

		assert_non_null(json);
		member_check_json(CASES[i].member, json, &report);
		if ((member_report_end(&report, &err) == OK) != (CASES[i].want == NULL))
			fail_msg("case %zu: %s: %s", i, CASES[i].json, err.text);
		if (CASES[i].want == NULL)
			continue;
		assert_string_equal(err.code, "InvalidRequestException");
		assert_string_equal(err.text, CASES[i].want);
	}
}

static void
texts_of_a_query_are_held_to_their_type(void **state)
{
	static const struct {
		enum member_type type;
		const char *text;
		bool want;
	} CASES[] = {
		{ MEMBER_FLAG, "true", true }, { MEMBER_FLAG, "false", true },
		{ MEMBER_FLAG, "TRUE", false }, { MEMBER_FLAG, "", false },
		{ MEMBER_NUMBER, "7", true }, { MEMBER_NUMBER, "-7", true },
		{ MEMBER_NUMBER, "", false }, { MEMBER_NUMBER, "-", false },
		{ MEMBER_NUMBER, "7a", false }, { MEMBER_NUMBER, "7.0", false },
		{ MEMBER_NUMBER, "1234567890123456789", false },
		{ MEMBER_TIME, "2024-01-02T03:04:05Z", true }, { MEMBER_TIME, "1700000000", true },
		{ MEMBER_TIME, "now", false }, { MEMBER_STRUCT, "{}", false },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		const struct member member = { .name = "it", .type = CASES[i].type };
		struct member_report report = { .count = 0 };

		member_check_text(&member, CASES[i].text, &report);
		if ((report.count == 0) != CASES[i].want)
			fail_msg("case %zu: '%s'", i, CASES[i].text);
	}
}

/* However much is wrong, the text has its size, and what it shows of a value is whole characters. */
static void
a_report_is_bounded(void **state)
{
	static const struct member NAME = { .name = "name", MEMBER_THING_NAME };
	struct member_report report = { .count = 0 };
	struct err err;
	char long_text[4001] = "";

	(void)state;
	for (size_t i = 0; i + 2 < sizeof(long_text); i += 2)
		memcpy(long_text + i, "\xc3\xa9", 3);
	for (unsigned i = 0; i < 100; i++)
		member_check_text(&NAME, long_text, &report);
	assert_int_equal(report.count, 200);
	assert_int_equal(member_report_end(&report, &err), ERR_ARGUMENT);
	assert_non_null(strstr(err.text, "200 validation errors detected: Value '"));
	report.text[120] = '\0';
	own(json_t) shown = json_string(report.text);
	assert_non_null(shown); /* is UTF-8 */
}

static void
patterns_are_aws_s(void **state)
{
	static const struct {
		const struct pattern *pattern;
		const char *good, *bad;
	} CASES[] = {
		{ &PATTERN_THING_NAME, "aZ0:_-", "a.b" },
		{ &PATTERN_THING_NAME, "a", "" },
		{ &PATTERN_POLICY_NAME, "aZ0_+=,.@-", "a:b" },
		{ &PATTERN_HEX_ID, "0xAbc9", "0x" },
		{ &PATTERN_HEX_ID, "abc", "x0" },
		{ &PATTERN_DIGITS, "0123456789", "-1" },
		{ &PATTERN_RULE_NAME, "aZ0_", "a-b" },
		{ &PATTERN_ATTRIBUTE_NAME, "a.b,c@d/e:f#g-h", "a=b" },
		{ &PATTERN_ATTRIBUTE_VALUE, "", "a b" },
		{ &PATTERN_ATTRIBUTE_VALUE, "a=[b]", "a{b}" },
		{ &PATTERN_PRINTABLE, "a b \xc3\xa9", "a\tb" },
		{ &PATTERN_MARKER, "aZ0+/==", "a===" },
		{ &PATTERN_MARKER, "aZ0+/", "a=b" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		if (!CASES[i].pattern->holds(CASES[i].good, strlen(CASES[i].good)) ||
			CASES[i].pattern->holds(CASES[i].bad, strlen(CASES[i].bad)))
			fail_msg("case %zu: %s", i, CASES[i].pattern->aws);
	}
}

/* ---- names ---- */

static void
an_arn_is_of_this_account_and_region(void **state)
{
	static const struct core CORE = { .account = "123456789012", .region = "eu-west-1" };
	char arn[IOTCORE_ARN_BYTES];
	char long_name[400];

	(void)state;
	iotcore_arn(arn, &CORE, "thing/%s", "a:b");
	assert_string_equal(arn, "arn:aws:iot:eu-west-1:123456789012:thing/a:b");
	assert_string_equal(iotcore_arn_resource(&CORE, arn, "thing/"), "a:b");
	assert_null(iotcore_arn_resource(&CORE, arn, "cert/"));
	assert_null(iotcore_arn_resource(&CORE, "arn:aws:iot:eu-west-1:123456789012:thing/", "thing/"));
	assert_null(iotcore_arn_resource(
		&CORE, "arn:aws:iot:eu-west-2:123456789012:thing/a", "thing/"));
	assert_null(iotcore_arn_resource(
		&CORE, "arn:aws:iot:eu-west-1:123456789013:thing/a", "thing/"));
	assert_null(iotcore_arn_resource(&CORE, "", "thing/"));
	memset(long_name, 'a', sizeof(long_name) - 1);
	long_name[sizeof(long_name) - 1] = '\0';
	iotcore_arn(arn, &CORE, "thing/%s", long_name);
	assert_int_equal(strlen(arn), IOTCORE_ARN_BYTES - 1);
}

/* ---- errors ---- */

static void
failures_of_other_rooms_have_aws_names(void **state)
{
	static const struct {
		enum status status;
		const char *code, *want;
		unsigned want_http;
	} CASES[] = {
		{ ERR_ARGUMENT, "json_malformed", "InvalidRequestException", 400 },
		{ ERR_ARGUMENT, "method_not_allowed", "UnknownOperationException", 404 },
		{ ERR_NOT_FOUND, "not_found", "UnknownOperationException", 404 },
		{ ERR_NOT_FOUND, "iotcore_unknown", "ResourceNotFoundException", 404 },
		{ ERR_TOO_LARGE, "body_too_large", "RequestEntityTooLargeException", 413 },
		{ ERR_UNAVAILABLE, "database_away", "ServiceUnavailableException", 503 },
		{ ERR_CONFLICT, "database_conflict", "ConflictException", 409 },
		{ ERR_INTERNAL, "database_shape", "InternalFailureException", 500 },
		{ ERR_CONFLICT, "LimitExceededException", "LimitExceededException", 410 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		const struct core_exception *found;
		struct err err;

		(void)err_set(&err, CASES[i].status, CASES[i].code, "why");
		found = core_exception_of(&err);
		assert_string_equal(found->name, CASES[i].want);
		assert_int_equal(found->http, CASES[i].want_http);
	}
}

/* ---- files ---- */

static void
write_file(char path[64], const char *content, mode_t mode)
{
	int fd;

	(void)snprintf(path, 64, "/tmp/jitrca-unit-XXXXXX");
	fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, content, strlen(content)), (ssize_t)strlen(content));
	assert_int_equal(fchmod(fd, mode), 0);
	(void)close(fd);
}

static void
users_are_read_and_found(void **state)
{
	struct core_users *users = NULL;
	const struct core_user *user;
	char path[64];
	struct err err;

	(void)state;
	write_file(path, "# who\n\nAKONE s/e+c=ret\nAKTWO\tother readonly\r\n", 0600);
	assert_int_equal(core_users_read(&users, path, &err), OK);
	user = core_users_find(users, view_text("AKONE"));
	assert_non_null(user);
	assert_true(view_equal_text(user->secret, "s/e+c=ret"));
	assert_false(user->readonly);
	user = core_users_find(users, view_text("AKTWO"));
	assert_true(user != NULL && user->readonly && view_equal_text(user->secret, "other"));
	assert_null(core_users_find(users, view_text("AKON")));
	assert_null(core_users_find(users, view_text("AKONEE")));
	assert_null(core_users_find(users, view_text("")));
	core_users_free(users);
	(void)unlink(path);
}

static void
quotas_fill_by_time(void **state)
{
	struct core_quotas *quotas = NULL;
	char path[64];
	struct err err;
	unsigned passed = 0;

	(void)state;
	write_file(path, "GetPolicy 3\n* 100\n", 0644);
	assert_int_equal(core_quotas_read(&quotas, path, &err), OK);
	for (unsigned i = 0; i < 10; i++)
		passed += core_quotas_take(quotas, "GetPolicy", 1000, &err) == OK;
	assert_int_equal(passed, 3);
	assert_string_equal(err.code, "ThrottlingException");
	/* A third of a second later there is one more, after a long time not more than a second's. */
	assert_int_equal(core_quotas_take(quotas, "GetPolicy", 1334, &err), OK);
	assert_int_not_equal(core_quotas_take(quotas, "GetPolicy", 1335, &err), OK);
	passed = 0;
	for (unsigned i = 0; i < 10; i++)
		passed += core_quotas_take(quotas, "GetPolicy", 1000000, &err) == OK;
	assert_int_equal(passed, 3);
	passed = 0;
	for (unsigned i = 0; i < 200; i++)
		passed += core_quotas_take(quotas, "ListThings", 1000000, &err) == OK;
	assert_int_equal(passed, 100);
	core_quotas_free(quotas);
	assert_int_equal(core_quotas_take(NULL, "GetPolicy", 0, &err), OK);
	(void)unlink(path);
}

static void
bad_quotas_are_refused(void **state)
{
	static const char *const CASES[] = { "GetPolicy\n", "GetPolicy 0\n", "GetPolicy -1\n",
		"GetPolicy 1 2\n", "GetPolicy 1\nGetPolicy 2\n", "GetPolicy many\n",
		"GetPolicy 1000001\n" };

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		struct core_quotas *quotas = NULL;
		char path[64];
		struct err err;

		write_file(path, CASES[i], 0600);
		assert_int_equal(core_quotas_read(&quotas, path, &err), ERR_ARGUMENT);
		assert_string_equal(err.code, "quotas_file");
		(void)unlink(path);
	}
}

/* ---- tables ---- */

static enum status
nothing(struct call *call, struct err *err)
{
	(void)call, (void)err;
	return OK;
}

static void
every_table_of_operations_is_whole(void **state)
{
	struct dispatch *dispatch = NULL;
	struct router *router = NULL;
	const struct route *tables[3] = { NULL, CORE_HEALTH_ROUTES, NULL };
	struct err err;
	size_t count = 0;

	(void)state;
	assert_int_equal(dispatch_new(&dispatch, IOTCORE_OPS, &err), OK);
	tables[0] = dispatch_routes(dispatch);
	assert_int_equal(router_new(&router, tables, &err), OK);
	for (const struct route *route = tables[0]; route->method != NULL; route++)
		count++;
	assert_true(count > 60);
	router_free(router);
	dispatch_free(dispatch);
}

static void
a_table_that_is_wrong_stops_the_start(void **state)
{
	static const struct member NO_PLACE[] = { { .name = "a", .type = MEMBER_TEXT },
		{ .name = NULL } };
	static const struct member NO_TYPE[] = { { .name = "a", .at = AT_BODY },
		{ .name = NULL } };
	static const struct member LIST_IN_QUERY[] = {
		{ .name = "a", .at = AT_QUERY, .type = MEMBER_LIST }, { .name = NULL }
	};
	static const struct op CASES[][2] = {
		{ { .name = "A", .method = "GET", .path = "/a", .handle = nothing } },
		{ { .name = "A", .method = "GET", .path = "/a", .tx = TX_NONE } },
		{ { .name = "A", .method = "GET", .path = "/a", .tx = TX_NONE, .handle = nothing,
			.members = NO_PLACE } },
		{ { .name = "A", .method = "GET", .path = "/a", .tx = TX_NONE, .handle = nothing,
			.members = NO_TYPE } },
		{ { .name = "A", .method = "GET", .path = "/a", .tx = TX_NONE, .handle = nothing,
			.members = LIST_IN_QUERY } },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		const struct op *const tables[] = { CASES[i], NULL };
		struct dispatch *dispatch = NULL;
		struct err err;

		assert_int_equal(dispatch_new(&dispatch, tables, &err), ERR_INTERNAL);
		assert_string_equal(err.code, "op_invalid");
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(base64_has_one_form),
		cmocka_unit_test(members_say_what_aws_would_say),
		cmocka_unit_test(texts_of_a_query_are_held_to_their_type),
		cmocka_unit_test(a_report_is_bounded),
		cmocka_unit_test(patterns_are_aws_s),
		cmocka_unit_test(an_arn_is_of_this_account_and_region),
		cmocka_unit_test(failures_of_other_rooms_have_aws_names),
		cmocka_unit_test(users_are_read_and_found),
		cmocka_unit_test(quotas_fill_by_time),
		cmocka_unit_test(bad_quotas_are_refused),
		cmocka_unit_test(every_table_of_operations_is_whole),
		cmocka_unit_test(a_table_that_is_wrong_stops_the_start),
	};
	struct err err;

	if (ca_init(&err) != OK)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
