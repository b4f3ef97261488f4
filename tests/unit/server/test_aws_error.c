#include "tests/unit/base/test.h"

#include <string.h>

#include "server/iot/aws_error.h"

static const struct {
	const char *type;
	long http_status;
	enum aws_error want;
} CASES[] = {
	{ "ThrottlingException", 400, AWS_ERROR_THROTTLED },
	{ "Throttling", 400, AWS_ERROR_THROTTLED },
	{ "TooManyRequestsException", 429, AWS_ERROR_THROTTLED },
	{ "", 429, AWS_ERROR_THROTTLED },
	{ "ResourceNotFoundException", 404, AWS_ERROR_NOT_FOUND },
	{ "", 404, AWS_ERROR_NOT_FOUND },
	{ "ResourceAlreadyExistsException", 409, AWS_ERROR_EXISTS },
	{ "CertificateConflictException", 409, AWS_ERROR_CONFLICT },
	{ "DeleteConflictException", 409, AWS_ERROR_CONFLICT },
	{ "ConflictingResourceUpdateException", 409, AWS_ERROR_CONFLICT },
	{ "VersionConflictException", 409, AWS_ERROR_VERSION_CONFLICT },
	{ "VersionsLimitExceededException", 409, AWS_ERROR_LIMIT },
	{ "", 409, AWS_ERROR_CONFLICT },
	{ "CertificateStateException", 406, AWS_ERROR_STATE },
	{ "", 406, AWS_ERROR_STATE },
	{ "TransferAlreadyCompletedException", 410, AWS_ERROR_STATE },
	{ "LimitExceededException", 410, AWS_ERROR_LIMIT },
	{ "", 410, AWS_ERROR_LIMIT },
	{ "", 402, AWS_ERROR_LIMIT },
	{ "InvalidRequestException", 400, AWS_ERROR_INVALID },
	{ "MalformedPolicyException", 400, AWS_ERROR_INVALID },
	{ "RegistrationCodeValidationException", 400, AWS_ERROR_INVALID },
	{ "CertificateValidationException", 400, AWS_ERROR_INVALID },
	{ "NobodyKnowsException", 400, AWS_ERROR_INVALID },
	{ "Exception", 400, AWS_ERROR_INVALID },
	{ "UnauthorizedException", 401, AWS_ERROR_DENIED },
	{ "AccessDeniedException", 403, AWS_ERROR_DENIED },
	{ "UnrecognizedClientException", 403, AWS_ERROR_DENIED },
	{ "", 401, AWS_ERROR_DENIED },
	{ "", 403, AWS_ERROR_DENIED },
	{ "InternalFailureException", 500, AWS_ERROR_UNAVAILABLE },
	{ "ServiceUnavailableException", 503, AWS_ERROR_UNAVAILABLE },
	{ "ResourceNotFoundException", 503, AWS_ERROR_UNAVAILABLE },
	{ "", 504, AWS_ERROR_UNAVAILABLE },
	{ "", 408, AWS_ERROR_UNAVAILABLE },
	{ "", 301, AWS_ERROR_UNAVAILABLE },
	{ "", 100, AWS_ERROR_UNAVAILABLE },
	{ "", 0, AWS_ERROR_UNAVAILABLE },
};

static void
names_and_statuses_have_their_meaning(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++)
		if (aws_error_of(CASES[i].type, CASES[i].http_status) != CASES[i].want)
			fail_msg("%s %ld: %s", CASES[i].type, CASES[i].http_status,
				aws_error_name(aws_error_of(CASES[i].type, CASES[i].http_status)));
}

static void
the_name_is_found_wherever_it_stands(void **state)
{
	static const struct {
		const char *header, *body, *want;
	} NAMES[] = {
		{ "ThrottlingException:http://internal", "{\"__type\": \"X\"}",
			"ThrottlingException" },
		{ "", "{\"__type\": \"com.amazon#ThrottlingException\"}", "ThrottlingException" },
		{ "", "{\"code\": \"ThrottlingException\"}", "ThrottlingException" },
		{ "", "{\"__type\": 5, \"code\": \"C\"}", "C" },
		{ "", "{}", "" },
		{ "a#b:c#d", "{}", "b" },
		{ ":", "{}", "" },
		{ "sp ace\"", "{}", "sp ace'" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(NAMES); i++) {
		json_t *json = json_loads(NAMES[i].body, 0, NULL);
		struct aws_failure failure = { .error = AWS_ERROR_UNSET };

		aws_failure_read(&failure, 400, NAMES[i].header, json);
		assert_string_equal(failure.type, NAMES[i].want);
		json_decref(json);
	}
}

static void
a_failure_keeps_what_the_service_said_within_bounds(void **state)
{
	char huge[4096];
	struct aws_failure failure = { .attempts = 2 };
	json_t *json;
	struct err err;

	(void)state;
	memset(huge, 'x', sizeof(huge) - 1);
	huge[0] = '"';
	huge[1] = '\n';
	huge[sizeof(huge) - 1] = '\0';
	json = json_pack(
		"{s:s, s:s, s:s}", "Message", huge, "resourceArn", huge, "resourceId", "id");
	aws_failure_read(&failure, 409, "ResourceAlreadyExistsException", json);
	json_decref(json);
	assert_int_equal(failure.error, AWS_ERROR_EXISTS);
	assert_int_equal(strlen(failure.message), AWS_MESSAGE_BYTES - 1);
	assert_memory_equal(failure.message, "'?x", 3);
	assert_int_equal(strlen(failure.resource_arn), AWS_ARN_BYTES - 1);
	assert_string_equal(failure.resource_id, "id");
	assert_int_equal(aws_failure_err(&failure, "CreateThing", &err), ERR_CONFLICT);
	assert_string_equal(err.code, "iot_exists");
	assert_non_null(strstr(
		err.text, "CreateThing: HTTP 409 ResourceAlreadyExistsException, 2 sent: '?x"));
	/* Without an answer, and with a wait that was asked for. */
	failure = (struct aws_failure){ .error = AWS_ERROR_THROTTLED, .retry_after_ms = 1001 };
	aws_failure_read(&failure, 429, "", NULL);
	assert_int_equal(aws_failure_err(&failure, "X", &err), ERR_TOO_MANY);
	assert_int_equal(err.retry_after_s, 2);
	/* What was never set is our fault. */
	failure = (struct aws_failure){ .error = AWS_ERROR_UNSET };
	assert_int_equal(aws_failure_err(&failure, "X", &err), ERR_INTERNAL);
	failure.error = (enum aws_error)99;
	assert_int_equal(aws_failure_err(&failure, "X", &err), ERR_INTERNAL);
	assert_string_equal(aws_error_name(failure.error), "unset");
	assert_false(aws_error_transient(failure.error));
}

static void
only_what_may_pass_is_tried_again(void **state)
{
	(void)state;
	for (int i = 0; i < AWS_ERROR_COUNT; i++)
		assert_int_equal(aws_error_transient((enum aws_error)i),
			i == AWS_ERROR_THROTTLED || i == AWS_ERROR_UNAVAILABLE ||
				i == AWS_ERROR_BREAKER);
}

static enum status
fill_with(struct entropy *self, uint8_t *out, size_t len, struct err *err)
{
	(void)err;
	memset(out, (int)self->state, len);
	return OK;
}

static enum status
fill_fails(struct entropy *self, uint8_t *out, size_t len, struct err *err)
{
	(void)self;
	(void)out;
	(void)len;
	return err_set(err, ERR_UNAVAILABLE, "entropy", "none");
}

static void
backoff_doubles_up_to_its_bound(void **state)
{
	static const struct {
		enum aws_error error;
		unsigned next;
		int64_t retry_after_ms, want_least, want_most;
	} WAITS[] = {
		{ AWS_ERROR_UNAVAILABLE, 2, 0, 1, 50 },
		{ AWS_ERROR_UNAVAILABLE, 3, 0, 1, 100 },
		{ AWS_ERROR_UNAVAILABLE, 7, 0, 1, 1600 },
		{ AWS_ERROR_UNAVAILABLE, 4000000000U, 0, 1, 20000 },
		{ AWS_ERROR_THROTTLED, 2, 0, 1, 1000 },
		{ AWS_ERROR_THROTTLED, 4, 0, 1, 4000 },
		{ AWS_ERROR_THROTTLED, 40, 0, 1, 20000 },
		{ AWS_ERROR_THROTTLED, 2, 5000, 5000, 5100 },
		{ AWS_ERROR_THROTTLED, 2, 500, 500, 1000 },
		{ AWS_ERROR_THROTTLED, 2, 86400000, 20000, 20100 },
	};
	struct entropy low = { .fill = fill_with, .state = 0 };
	struct entropy high = { .fill = fill_with, .state = 0xff };
	struct entropy none = { .fill = fill_fails };
	int64_t ms;
	struct err err;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(WAITS); i++) {
		struct aws_failure failure = { .error = WAITS[i].error,
			.retry_after_ms = WAITS[i].retry_after_ms };

		assert_int_equal(aws_backoff_ms(&ms, &failure, WAITS[i].next, &low, &err), OK);
		assert_in_range(ms, WAITS[i].want_least, WAITS[i].want_least + 1);
		assert_int_equal(aws_backoff_ms(&ms, &failure, WAITS[i].next, &high, &err), OK);
		assert_in_range(ms, WAITS[i].want_least, WAITS[i].want_most);
		if (WAITS[i].retry_after_ms == 0)
			assert_true(ms >= WAITS[i].want_most - 1);
		assert_int_equal(
			aws_backoff_ms(&ms, &failure, WAITS[i].next, &none, &err), ERR_UNAVAILABLE);
	}
}

static void
texts_are_escaped_and_cut(void **state)
{
	char out[8];

	(void)state;
	aws_text_escape(out, sizeof(out), "a\"b\n\xc3\xa9z123");
	assert_string_equal(out, "a'b???z");
	aws_text_escape(out, 1, "abc");
	assert_string_equal(out, "");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_and_statuses_have_their_meaning),
		cmocka_unit_test(the_name_is_found_wherever_it_stands),
		cmocka_unit_test(a_failure_keeps_what_the_service_said_within_bounds),
		cmocka_unit_test(only_what_may_pass_is_tried_again),
		cmocka_unit_test(backoff_doubles_up_to_its_bound),
		cmocka_unit_test(texts_are_escaped_and_cut),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
