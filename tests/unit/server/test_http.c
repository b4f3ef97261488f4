/* server/http: routing table, paths, fields, cursors, problems, Accept: what needs no socket. */
#include "tests/unit/base/test.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "server/http/fields.h"
#include "server/http/internal.h"
#include "server/metrics.h"

static enum status
nothing(struct app *app, struct request *request, struct err *err)
{
	(void)app, (void)request, (void)err;
	return OK;
}

/* ---- the routing table ---- */

#define GOOD .method = "GET", .path = "/a", .handle = nothing, .roles = ROLE_ANYONE

static void
a_table_with_a_fault_stops_the_start(void **state)
{
	static const char *const MANY[] = { "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11",
		"12", "13", "14", "15", "16", "17", NULL };
	static const struct {
		const char *what;
		struct route routes[3];
	} CASES[] = {
		{ "no roles", { { .method = "GET", .path = "/a", .handle = nothing },
				      { .method = NULL } } },
		{ "no handler", { { .method = "GET", .path = "/a", .roles = ROLE_ADMIN },
					{ .method = NULL } } },
		{ "no path", { { .method = "GET", .handle = nothing, .roles = ROLE_ADMIN },
				     { .method = NULL } } },
		{ "an unknown method",
			{ { .method = "get", .path = "/a", .handle = nothing, .roles = ROLE_ADMIN },
				{ .method = NULL } } },
		{ "an unknown method", { { .method = "HEAD",
						 .path = "/a",
						 .handle = nothing,
						 .roles = ROLE_ADMIN },
					       { .method = NULL } } },
		{ "malformed path",
			{ { .method = "GET", .path = "a", .handle = nothing, .roles = ROLE_ADMIN },
				{ .method = NULL } } },
		{ "malformed path", { { .method = "GET",
					      .path = "/a//b",
					      .handle = nothing,
					      .roles = ROLE_ADMIN },
					    { .method = NULL } } },
		{ "malformed path", { { .method = "GET",
					      .path = "/a/",
					      .handle = nothing,
					      .roles = ROLE_ADMIN },
					    { .method = NULL } } },
		{ "malformed path", { { .method = "GET",
					      .path = "/{}",
					      .handle = nothing,
					      .roles = ROLE_ADMIN },
					    { .method = NULL } } },
		{ "malformed path", { { .method = "GET",
					      .path = "/{a",
					      .handle = nothing,
					      .roles = ROLE_ADMIN },
					    { .method = NULL } } },
		{ "one {name}", { { .method = "GET",
					  .path = "/{a}{b}",
					  .handle = nothing,
					  .roles = ROLE_ADMIN },
					{ .method = NULL } } },
		{ "stands there twice", { { GOOD }, { GOOD }, { .method = NULL } } },
		{ "stands there twice", { { .method = "GET",
						  .path = "/{a}",
						  .handle = nothing,
						  .roles = ROLE_ADMIN },
						{ .method = "GET",
							.path = "/{b}",
							.handle = nothing,
							.roles = ROLE_ADMIN },
						{ .method = NULL } } },
		{ "anyone and a role", { { .method = "GET",
						 .path = "/a",
						 .handle = nothing,
						 .roles = ROLE_ANYONE | ROLE_ADMIN },
					       { .method = NULL } } },
		{ "grace without", { { .method = "GET",
					     .path = "/a",
					     .handle = nothing,
					     .roles = ROLE_DEVICE_GRACE },
					   { .method = NULL } } },
		{ "inline_ok with a role", { { .method = "GET",
						     .path = "/a",
						     .handle = nothing,
						     .roles = ROLE_ADMIN,
						     .inline_ok = true },
						   { .method = NULL } } },
		{ "plain listener", { { .method = "GET",
					      .path = "/a",
					      .handle = nothing,
					      .roles = ROLE_ADMIN,
					      .listeners = LISTENER_HTTP },
					    { .method = NULL } } },
		{ "unknown listener", { { GOOD, .listeners = 1 << 7 }, { .method = NULL } } },
		{ "query parameters", { { GOOD, .query = MANY }, { .method = NULL } } },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		const struct route *const tables[] = { CASES[i].routes, NULL };
		struct router *router = NULL;
		struct err err;

		assert_int_equal(router_new(&router, tables, &err), ERR_INTERNAL);
		assert_string_equal(err.code, "route_invalid");
		if (strstr(err.text, CASES[i].what) == NULL)
			fail_msg("case %zu: '%s' wanted, '%s' found", i, CASES[i].what, err.text);
	}
}

static const struct route ROUTES[] = {
	{ .method = "GET",
		.path = "/crl/{ca}/{shard}.crl",
		.handle = nothing,
		.roles = ROLE_ANYONE,
		.listeners = LISTENER_HTTP },
	{ .method = "GET",
		.path = "/crl/{ca}.crl",
		.handle = nothing,
		.roles = ROLE_ANYONE,
		.listeners = LISTENER_HTTP },
	{ .method = "GET",
		.path = "/crl/{ca}/delta.crl",
		.handle = nothing,
		.roles = ROLE_ANYONE,
		.listeners = LISTENER_HTTP },
	{ .method = "GET",
		.path = "/v1/certificates/{id}",
		.handle = nothing,
		.roles = ROLE_ADMIN },
	{ .method = "POST",
		.path = "/v1/certificates/batch",
		.handle = nothing,
		.roles = ROLE_ADMIN },
	{ .method = "POST", .path = "/v1/certificates", .handle = nothing, .roles = ROLE_ADMIN },
	{ .method = "GET", .path = "/v1/certificates", .handle = nothing, .roles = ROLE_ADMIN },
	{ .method = "POST",
		.path = "/v1/certificates/{id}/revoke",
		.handle = nothing,
		.roles = ROLE_ADMIN },
	{ .method = NULL },
};

static void
the_narrowest_route_wins(void **state)
{
	static const struct {
		const char *method, *path;
		enum listener_kind kind;
		const char *want_route; /* NULL: refused */
		const char *want_code, *want_allow, *want_first, *want_second;
	} CASES[] = {
		{ "GET", "/crl/issuing-1.crl", LISTENER_HTTP, "/crl/{ca}.crl", NULL, NULL,
			"issuing-1", NULL },
		{ "GET", "/crl/issuing-1/0f.crl", LISTENER_HTTP, "/crl/{ca}/{shard}.crl", NULL,
			NULL, "issuing-1", "0f" },
		{ "GET", "/crl/issuing-1/delta.crl", LISTENER_HTTP, "/crl/{ca}/delta.crl", NULL,
			NULL, "issuing-1", NULL },
		{ "HEAD", "/crl/a%2Fb.crl", LISTENER_HTTP, "/crl/{ca}.crl", NULL, NULL, "a/b",
			NULL },
		{ "GET", "/crl/.crl", LISTENER_HTTP, NULL, "not_found", "", NULL, NULL },
		{ "GET", "/crl/issuing-1.crl", LISTENER_HTTPS, NULL, "not_found", "", NULL, NULL },
		{ "GET", "/v1/certificates/abc", LISTENER_STATIONS, "/v1/certificates/{id}", NULL,
			NULL, "abc", NULL },
		{ "GET", "/v1/certificates/abc", LISTENER_HTTP, NULL, "not_found", "", NULL, NULL },
		{ "POST", "/v1/certificates/batch", LISTENER_HTTPS, "/v1/certificates/batch", NULL,
			NULL, NULL, NULL },
		{ "GET", "/v1/certificates/batch", LISTENER_HTTPS, NULL, "method_not_allowed",
			"POST", NULL, NULL },
		{ "DELETE", "/v1/certificates", LISTENER_HTTPS, NULL, "method_not_allowed",
			"POST, GET, HEAD", NULL, NULL },
		{ "POST", "/v1/certificates/a/revoke", LISTENER_HTTPS,
			"/v1/certificates/{id}/revoke", NULL, NULL, "a", NULL },
		{ "POST", "/v1/certificates/a/revoke/", LISTENER_HTTPS, NULL, "not_found", "", NULL,
			NULL },
		{ "POST", "/v1/certificates/a%0/revoke", LISTENER_HTTPS, NULL, "path_malformed", "",
			NULL, NULL },
		{ "GET", "/", LISTENER_HTTPS, NULL, "not_found", "", NULL, NULL },
		{ "GET", "", LISTENER_HTTPS, NULL, "path_malformed", "", NULL, NULL },
		{ "GET", "/a/b/c/d/e/f/g/h/i/j/k/l", LISTENER_HTTPS, NULL, "not_found", "", NULL,
			NULL },
	};
	const struct route *const tables[] = { ROUTES, NULL };
	struct router *router = NULL;
	struct err err;

	(void)state;
	assert_int_equal(router_new(&router, tables, &err), OK);
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		char path[128], allow[ALLOW_BYTES];
		struct match match;
		enum status status;

		(void)snprintf(path, sizeof(path), "%s", CASES[i].path);
		status = router_match(
			router, CASES[i].kind, CASES[i].method, path, &match, allow, &err);
		if (CASES[i].want_route == NULL) {
			assert_int_not_equal(status, OK);
			assert_string_equal(err.code, CASES[i].want_code);
			if (strlen(CASES[i].want_allow) != strlen(allow))
				fail_msg("case %zu: Allow %s wanted, %s found", i,
					CASES[i].want_allow, allow);
			continue;
		}
		assert_int_equal(status, OK);
		assert_string_equal(match.route->path, CASES[i].want_route);
		assert_int_equal(match.head, strcmp(CASES[i].method, "HEAD") == 0);
		if (CASES[i].want_first != NULL)
			assert_string_equal(match.params[0].value, CASES[i].want_first);
		if (CASES[i].want_second != NULL)
			assert_string_equal(match.params[1].value, CASES[i].want_second);
	}
	router_free(router);
}

/* As AWS has it: a last label may hold slashes, encoded or not, and a narrower path hides no other method. */
static void
a_greedy_label_takes_all_that_is_left(void **state)
{
	static const struct route LENIENT[] = {
		{ .method = "GET",
			.path = "/destinations/{arn+}",
			.handle = nothing,
			.roles = ROLE_ANYONE,
			.listeners = LISTENER_HTTP,
			.lenient = true },
		{ .method = "PUT",
			.path = "/groups/add",
			.handle = nothing,
			.roles = ROLE_ANYONE,
			.listeners = LISTENER_HTTP,
			.lenient = true },
		{ .method = "GET",
			.path = "/groups/{name}",
			.handle = nothing,
			.roles = ROLE_ANYONE,
			.listeners = LISTENER_HTTP,
			.lenient = true },
		{ .method = NULL },
	};
	static const struct {
		const char *method, *path, *want_route, *want_value; /* want_route NULL: refused */
	} CASES[] = {
		{ "GET", "/destinations/arn%3Aaws%3Aiot/http/a-b", "/destinations/{arn+}",
			"arn:aws:iot/http/a-b" },
		{ "GET", "/destinations/arn:aws%2Fhttp%2Fa", "/destinations/{arn+}",
			"arn:aws/http/a" },
		{ "GET", "/destinations/a", "/destinations/{arn+}", "a" },
		{ "GET", "/destinations/a/b/c/d/e/f/g/h/i/j/k", "/destinations/{arn+}",
			"a/b/c/d/e/f/g/h/i/j/k" },
		{ "GET", "/destinations/a/", "/destinations/{arn+}", "a/" },
		{ "GET", "/destinations/", NULL, NULL },
		{ "GET", "/destinations", NULL, NULL },
		{ "PUT", "/groups/add", "/groups/add", NULL },
		{ "GET", "/groups/add", "/groups/{name}", "add" },
		{ "GET", "/groups/a%2Fb%20c", "/groups/{name}", "a/b c" },
		{ "POST", "/groups/add", NULL, NULL },
	};
	const struct route *const tables[] = { LENIENT, NULL };
	struct router *router = NULL;
	struct err err;

	(void)state;
	assert_int_equal(router_new(&router, tables, &err), OK);
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		char path[128], allow[ALLOW_BYTES];
		struct match match;
		enum status status;

		(void)snprintf(path, sizeof(path), "%s", CASES[i].path);
		status = router_match(
			router, LISTENER_HTTP, CASES[i].method, path, &match, allow, &err);
		if (CASES[i].want_route == NULL) {
			assert_int_not_equal(status, OK);
			continue;
		}
		assert_int_equal(status, OK);
		assert_string_equal(match.route->path, CASES[i].want_route);
		if (CASES[i].want_value != NULL)
			assert_string_equal(match.params[0].value, CASES[i].want_value);
	}
	router_free(router);
}

static void
a_lenient_query_leaves_out_what_it_does_not_know(void **state)
{
	static const char *const KNOWN[] = { "marker", NULL };
	char query[] = "x-id=GetPolicy&marker=a%2Bb&other";
	struct pair pairs[QUERY_MAX];
	size_t count;
	struct err err;

	(void)state;
	assert_int_equal(uri_query(query, KNOWN, true, pairs, &count, &err), OK);
	assert_int_equal(count, 1);
	assert_string_equal(pairs[0].value, "a+b");
}

/* ---- fields ---- */

struct field_case {
	const char *json;
	const char *want_code; /* NULL: OK */
};

static void
check_cases(const struct field_case *cases, size_t count,
	enum status (*take)(const json_t *, struct err *))
{
	for (size_t i = 0; i < count; i++) {
		own(json_t) json = json_loads(cases[i].json, JSON_ALLOW_NUL, NULL);
		struct err err;
		enum status status;

		assert_non_null(json);
		status = take(json, &err);
		if (cases[i].want_code == NULL && status != OK)
			fail_msg("%s: OK wanted, %s found", cases[i].json, err.code);
		if (cases[i].want_code != NULL) {
			if (status != ERR_ARGUMENT)
				fail_msg("%s: %s wanted", cases[i].json, cases[i].want_code);
			assert_string_equal(err.code, cases[i].want_code);
			/* A value is the client's secret until we know better. */
			assert_null(strstr(err.text, "canary"));
		}
	}
}

static enum status
take_known(const json_t *json, struct err *err)
{
	static const char *const ALLOWED[] = { "a", "b", NULL };

	return fields_check(json, ALLOWED, err);
}

static enum status
take_string(const json_t *json, struct err *err)
{
	const char *out;

	return fields_string(json, "a", FIELD_REQUIRED, 8, &out, err);
}

static enum status
take_text(const json_t *json, struct err *err)
{
	const char *out;

	return fields_text(json, "a", FIELD_REQUIRED, 8, &out, err);
}

static enum status
take_id(const json_t *json, struct err *err)
{
	const char *out;

	return fields_id(json, "device_id", FIELD_REQUIRED, &out, err);
}

static enum status
take_int(const json_t *json, struct err *err)
{
	int64_t out;

	return fields_int(json, "a", FIELD_OPTIONAL, 1, 10, &out, err);
}

static enum status
take_bool(const json_t *json, struct err *err)
{
	bool out;

	return fields_bool(json, "a", FIELD_REQUIRED, &out, err);
}

static enum status
take_time(const json_t *json, struct err *err)
{
	int64_t out;

	return fields_time(json, "a", FIELD_REQUIRED, &out, err);
}

static enum status
take_choice(const json_t *json, struct err *err)
{
	static const char *const CHOICES[] = { "x", "y", NULL };
	const char *out;

	return fields_choice(json, "reason", FIELD_REQUIRED, CHOICES, &out, err);
}

static enum status
take_array(const json_t *json, struct err *err)
{
	const char *out[2];
	size_t count;

	return fields_string_array(json, "a", FIELD_REQUIRED, 2, 4, out, &count, err);
}

static enum status
take_object(const json_t *json, struct err *err)
{
	const json_t *out;

	return fields_object(json, "a", FIELD_REQUIRED, &out, err);
}

static void
each_field_names_what_is_wrong(void **state)
{
	static const struct field_case KNOWN[] = { { "{}", NULL }, { "{\"a\":1,\"b\":2}", NULL },
		{ "{\"c\":1}", "field_unknown" }, { "{\"a\":1,\"A\":2}", "field_unknown" } };
	static const struct field_case STRINGS[] = { { "{\"a\":\"x\"}", NULL },
		{ "{\"a\":\"12345678\"}", NULL }, { "{\"a\":\"\xc3\xa9\"}", NULL },
		{ "{}", "field_missing" }, { "{\"a\":null}", "field_type" },
		{ "{\"a\":1}", "field_type" }, { "{\"a\":\"\"}", "field_empty" },
		{ "{\"a\":\"canary789\"}", "field_too_long" },
		{ "{\"a\":\"a\\nb\"}", "field_malformed" },
		{ "{\"a\":\"a\\u0000\"}", "field_malformed" },
		{ "{\"a\":\"\\u0085\"}", "field_malformed" },
		{ "{\"a\":\"\\u007f\"}", "field_malformed" } };
	static const struct field_case TEXTS[] = { { "{\"a\":\"a\\r\\n\\tb\"}", NULL },
		{ "{\"a\":\"a\\u0007\"}", "field_malformed" } };
	static const struct field_case IDS[] = { { "{\"device_id\":\"aZ0:_-\"}", NULL },
		{ "{}", "field_missing" }, { "{\"device_id\":\"\"}", "device_id_malformed" },
		{ "{\"device_id\":\"canary x\"}", "device_id_malformed" },
		{ "{\"device_id\":\"a\\u0000b\"}", "device_id_malformed" },
		{ "{\"device_id\":[]}", "field_type" },
		{ "{\"device_id\":"
		  "\"1234567890123456789012345678901234567890123456789012345678901234\"}",
			NULL },
		{ "{\"device_id\":"
		  "\"12345678901234567890123456789012345678901234567890123456789012345\"}",
			"device_id_malformed" } };
	static const struct field_case INTS[] = { { "{}", NULL }, { "{\"a\":1}", NULL },
		{ "{\"a\":10}", NULL }, { "{\"a\":0}", "field_out_of_range" },
		{ "{\"a\":11}", "field_out_of_range" }, { "{\"a\":1.0}", "field_type" },
		{ "{\"a\":\"1\"}", "field_type" } };
	static const struct field_case BOOLS[] = { { "{\"a\":true}", NULL },
		{ "{\"a\":0}", "field_type" }, { "{}", "field_missing" } };
	static const struct field_case TIMES[] = { { "{\"a\":\"2026-11-24T16:14:02Z\"}", NULL },
		{ "{\"a\":\"2026-11-24\"}", "field_malformed" }, { "{\"a\":1}", "field_type" } };
	static const struct field_case CHOICES[] = { { "{\"reason\":\"x\"}", NULL },
		{ "{\"reason\":\"X\"}", "reason_unknown" }, { "{\"reason\":null}", "field_type" } };
	static const struct field_case ARRAYS[] = { { "{\"a\":[]}", NULL },
		{ "{\"a\":[\"a\",\"b\"]}", NULL },
		{ "{\"a\":[\"a\",\"b\",\"c\"]}", "field_too_many" },
		{ "{\"a\":[1]}", "field_type" }, { "{\"a\":[\"canary\"]}", "field_too_long" },
		{ "{\"a\":\"b\"}", "field_type" } };
	static const struct field_case OBJECTS[] = { { "{\"a\":{}}", NULL },
		{ "{\"a\":[]}", "field_type" } };

	(void)state;
	check_cases(KNOWN, COUNT_OF(KNOWN), take_known);
	check_cases(STRINGS, COUNT_OF(STRINGS), take_string);
	check_cases(TEXTS, COUNT_OF(TEXTS), take_text);
	check_cases(IDS, COUNT_OF(IDS), take_id);
	check_cases(INTS, COUNT_OF(INTS), take_int);
	check_cases(BOOLS, COUNT_OF(BOOLS), take_bool);
	check_cases(TIMES, COUNT_OF(TIMES), take_time);
	check_cases(CHOICES, COUNT_OF(CHOICES), take_choice);
	check_cases(ARRAYS, COUNT_OF(ARRAYS), take_array);
	check_cases(OBJECTS, COUNT_OF(OBJECTS), take_object);
}

/* ---- the query ---- */

static struct request
with_query(const char *name, const char *value)
{
	return (struct request){ .query_count = 1, .query = { { .name = name, .value = value } } };
}

static void
a_limit_is_a_number_in_its_range(void **state)
{
	static const struct {
		const char *text;
		size_t want; /* 0: refused */
	} CASES[] = { { "1", 1 }, { "1000", 1000 }, { "0042", 42 }, { "0", 0 }, { "1001", 0 },
		{ "", 0 }, { "-1", 0 }, { "+1", 0 }, { "1 ", 0 }, { "0x1", 0 },
		{ "99999999999999999999", 0 } };
	struct request none = { .query_count = 0 };
	struct err err;
	size_t limit;

	(void)state;
	assert_int_equal(query_limit(&none, &limit, &err), OK);
	assert_int_equal(limit, QUERY_LIMIT_DEFAULT);
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		struct request request = with_query("limit", CASES[i].text);
		enum status status = query_limit(&request, &limit, &err);

		assert_int_equal(status, CASES[i].want != 0 ? OK : ERR_ARGUMENT);
		if (status == OK)
			assert_int_equal(limit, CASES[i].want);
		else
			assert_string_equal(err.code, "limit_out_of_range");
	}
}

static void
a_cursor_comes_back_whole_or_not_at_all(void **state)
{
	uint8_t octets[CURSOR_MAX_BYTES], out[CURSOR_MAX_BYTES];
	struct err err;
	size_t len;

	(void)state;
	for (size_t i = 0; i < sizeof(octets); i++)
		octets[i] = (uint8_t)(i * 37);
	for (size_t size = 1; size <= sizeof(octets); size++) {
		char text[CURSOR_TEXT_BYTES];
		struct request request = with_query("cursor", text);

		cursor_encode(text, "devices", octets, size);
		assert_int_equal(query_cursor(&request, "devices", out, &len, &err), OK);
		assert_int_equal(len, size);
		assert_memory_equal(out, octets, size);
		assert_int_equal(query_cursor(&request, "stations", out, &len, &err), ERR_ARGUMENT);
		assert_string_equal(err.code, "cursor_malformed");
		for (size_t at = 0; text[at] != '\0'; at++) {
			char kept = text[at];

			text[at] = kept == 'A' ? 'B' : 'A';
			assert_int_equal(
				query_cursor(&request, "devices", out, &len, &err), ERR_ARGUMENT);
			text[at] = '\0';
			assert_int_equal(
				query_cursor(&request, "devices", out, &len, &err), ERR_ARGUMENT);
			text[at] = kept;
		}
	}
}

static void
a_cursor_of_text_fits_its_place(void **state)
{
	char text[CURSOR_TEXT_BYTES], out[8];
	struct request request = with_query("cursor", text);
	struct request none = { .query_count = 0 };
	uint64_t number = 42, found_number;
	struct err err;
	bool found;

	(void)state;
	cursor_encode(text, "x", "abcdefg", 7);
	assert_int_equal(query_cursor_text(&request, "x", out, sizeof(out), &err), OK);
	assert_string_equal(out, "abcdefg");
	cursor_encode(text, "x", "abcdefgh", 8);
	assert_int_equal(query_cursor_text(&request, "x", out, sizeof(out), &err), ERR_ARGUMENT);
	cursor_encode(text, "x", "a\0b", 3);
	assert_int_equal(query_cursor_text(&request, "x", out, sizeof(out), &err), ERR_ARGUMENT);
	assert_int_equal(query_cursor_text(&none, "x", out, sizeof(out), &err), OK);
	assert_string_equal(out, "");
	cursor_encode(text, "n", &number, sizeof(number));
	assert_int_equal(query_cursor_exact(
				 &request, "n", &found_number, sizeof(found_number), &found, &err),
		OK);
	assert_true(found);
	assert_int_equal(found_number, 42);
	assert_int_equal(query_cursor_exact(&request, "n", out, 4, &found, &err), ERR_ARGUMENT);
}

/* ---- problems ---- */

static void
every_status_has_its_http_status(void **state)
{
	static const struct {
		enum status status;
		const char *code;
		unsigned want;
		bool want_retry;
	} CASES[] = { { ERR_ARGUMENT, "x", 400, false }, { ERR_UNAUTHENTICATED, "x", 401, false },
		{ ERR_DENIED, "x", 403, false }, { ERR_NOT_FOUND, "x", 404, false },
		{ ERR_CONFLICT, "x", 409, false }, { ERR_TOO_LARGE, "x", 413, false },
		{ ERR_TOO_MANY, "x", 429, true }, { ERR_UNAVAILABLE, "x", 503, true },
		{ ERR_INTERNAL, "x", 500, false },
		{ ERR_ARGUMENT, "method_not_allowed", 405, false },
		{ ERR_ARGUMENT, "not_acceptable", 406, false },
		{ ERR_ARGUMENT, "unsupported_media_type", 415, false },
		{ ERR_ARGUMENT, "uri_too_long", 414, false },
		{ ERR_ARGUMENT, "header_too_large", 431, false },
		{ ERR_ARGUMENT, "precondition_required", 428, false } };

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		struct err err;
		int64_t seconds = 0;

		(void)err_set(&err, CASES[i].status, CASES[i].code, "text");
		assert_int_equal(problem_status(&err), CASES[i].want);
		assert_int_equal(problem_retry_after(&err, &seconds), CASES[i].want_retry);
		if (CASES[i].want_retry)
			assert_int_equal(seconds, 1);
	}
}

static void
an_internal_error_says_nothing_of_itself(void **state)
{
	struct err err;
	own(json_t) json = NULL;

	(void)state;
	(void)err_set(&err, ERR_INTERNAL, "canary_code", "canary text");
	json = problem_json(&err, "id");
	assert_non_null(json);
	assert_string_equal(json_string_value(json_object_get(json, "code")), "internal");
	assert_null(json_object_get(json, "detail"));
	assert_string_equal(json_string_value(json_object_get(json, "request_id")), "id");
}

static void
a_problem_is_json_whatever_is_in_its_text(void **state)
{
	struct err err;
	own(json_t) json = NULL;

	(void)state;
	(void)err_set(&err, ERR_ARGUMENT, "device_id_malformed", "cut \xc3");
	json = problem_json(&err, NULL);
	assert_non_null(json);
	assert_string_equal(
		json_string_value(json_object_get(json, "title")), "Device id malformed");
	assert_string_equal(json_string_value(json_object_get(json, "type")),
		"urn:jitrca:problem:device_id_malformed");
	assert_string_equal(json_string_value(json_object_get(json, "detail")), "cut ?");
	assert_null(json_object_get(json, "request_id"));
}

/* ---- UTF-8, metrics ---- */

static void
only_shortest_utf8_is_valid(void **state)
{
	static const char *const GOOD_TEXTS[] = { "", "a", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80",
		"\xed\x9f\xbf", "\xef\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf" };
	static const char *const BAD_TEXTS[] = { "\x80", "\xc0\xaf", "\xc1\xbf", "\xc2", "\xc2\x41",
		"\xe0\x9f\xbf", "\xed\xa0\x80", "\xe2\x82", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80",
		"\xf5\x80\x80\x80", "\xff" };

	(void)state;
	for (size_t i = 0; i < COUNT_OF(GOOD_TEXTS); i++)
		assert_true(utf8_valid((const uint8_t *)GOOD_TEXTS[i], strlen(GOOD_TEXTS[i])));
	for (size_t i = 0; i < COUNT_OF(BAD_TEXTS); i++)
		assert_false(utf8_valid((const uint8_t *)BAD_TEXTS[i], strlen(BAD_TEXTS[i])));
}

static void
each_metric_is_printed_with_its_type(void **state)
{
	own_struct(buf) text = { .limit_bytes = 65536 };
	struct err err;

	(void)state;
	metric_add(METRIC_AUTH_FAILED, 3);
	metric_set(METRIC_ISSUANCE_QUEUE, 7);
	metric_count(METRIC_ISSUANCE, "device", "issued", 1);
	metric_count(METRIC_ISSUANCE, "device", "refused", 1);
	metric_count(METRIC_ISSUANCE, "device", "issued", 1);
	metric_count(METRIC_ISSUANCE_STAGE_US, "od\"d", NULL, 1500000);
	assert_int_equal(metrics_print(&text, &err), OK);
	assert_int_equal(buf_add(&text, "", 1, &err), OK);
	assert_non_null(strstr(
		(char *)text.data,
		"# TYPE jitrca_auth_failed_total counter\njitrca_auth_failed_total 3\n"));
	assert_non_null(strstr(
		(char *)text.data,
		"# TYPE jitrca_issuance_queue gauge\njitrca_issuance_queue 7\n"));
	assert_non_null(strstr((char *)text.data,
		"# TYPE jitrca_issuance_total counter\n"
		"jitrca_issuance_total{profile=\"device\",result=\"issued\"} 2\n"
		"jitrca_issuance_total{profile=\"device\",result=\"refused\"} 1\n"));
	assert_non_null(strstr((char *)text.data,
		"jitrca_issuance_stage_seconds_total{stage=\"od_d\"} 1.500000\n"));
}

/* ---- memory ---- */

static void
a_body_that_memory_was_short_for_is_never_another(void **state)
{
	static const char BODY[] = "{\"device_id\": \"line-7-board-000000000042\", \"csr\": "
				   "\"0123456789012345678901234567890123456789\"}";
	struct request request = { .content_type = "application/json",
		.body = { .data = NULL, .limit_bytes = 4096 } };
	struct err err;
	bool reached = true;

	(void)state;
	request_json_setup();
	assert_int_equal(buf_text(&request.body, BODY, &err), OK);
	for (int64_t n = 0; reached; n++) {
		own(json_t) json = NULL;
		enum status status;

		mem_fail_at(n);
		status = request_json(&request, &json, &err);
		reached = mem_failed();
		mem_fail_at(-1);
		if (status != OK) {
			assert_int_equal(status, ERR_UNAVAILABLE);
			continue;
		}
		assert_false(reached);
		assert_string_equal(json_string_value(json_object_get(json, "device_id")),
			"line-7-board-000000000042");
		assert_int_equal(json_string_length(json_object_get(json, "csr")), 40);
	}
	buf_free(&request.body);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_table_with_a_fault_stops_the_start),
		cmocka_unit_test(the_narrowest_route_wins),
		cmocka_unit_test(a_greedy_label_takes_all_that_is_left),
		cmocka_unit_test(a_lenient_query_leaves_out_what_it_does_not_know),
		cmocka_unit_test(each_field_names_what_is_wrong),
		cmocka_unit_test(a_limit_is_a_number_in_its_range),
		cmocka_unit_test(a_cursor_comes_back_whole_or_not_at_all),
		cmocka_unit_test(a_cursor_of_text_fits_its_place),
		cmocka_unit_test(every_status_has_its_http_status),
		cmocka_unit_test(an_internal_error_says_nothing_of_itself),
		cmocka_unit_test(a_problem_is_json_whatever_is_in_its_text),
		cmocka_unit_test(only_shortest_utf8_is_valid),
		cmocka_unit_test(each_metric_is_printed_with_its_type),
		cmocka_unit_test(a_body_that_memory_was_short_for_is_never_another),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
