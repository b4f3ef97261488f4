#include "tests/unit/base/test.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "server/iot/aws.h"
#include "server/iot/aws_credentials.h"
#include "server/iot/aws_sigv4.h"
#include "server/iot/iot_api.h"

/* A port of this machine that nobody listens on: RFC 6335 6 keeps it free. */
#define NOBODY "http://127.0.0.1:1"
#define ALLOCATIONS_MAX 400

static struct aws_credentials *CREDENTIALS;
static int ASKED, PRIORITY;
static enum status ANSWER;
static int64_t WAIT_MS;

static int
begin(void **state)
{
	struct err err;

	(void)state;
	ASKED = 0;
	ANSWER = OK;
	WAIT_MS = 0;
	return aws_credentials_fixed(
		       &CREDENTIALS, "AKID", view_text("secret"), view_text(""), &err) == OK
	               ? 0
	               : -1;
}

static int
end(void **state)
{
	(void)state;
	aws_credentials_free(CREDENTIALS);
	return 0;
}

static enum status
take(void *arg, const char *operation, int priority, int64_t most_ms, struct aws_token *out,
	struct err *err)
{
	(void)arg;
	assert_string_equal(operation, "DescribeThing");
	ASKED++;
	PRIORITY = priority;
	assert_in_range(most_ms, 1, 3000);
	*out = (struct aws_token){ .taken = WAIT_MS == 0, .wait_ms = WAIT_MS };
	return ANSWER == OK ? OK : err_set(err, ANSWER, "pacer", "the database is away");
}

static enum status
describe(struct iot *iot, struct aws_client *client, struct err *err)
{
	own_struct(iot_thing) thing = { .version = 0 };

	*iot = (struct iot){
		.client = client, .priority = AWS_PRIORITY_URGENT, .timeout_ms = 3000
	};
	return iot_describe_thing(iot, "t", &thing, err);
}

static struct aws_client *
client_of(const struct aws_pacer *pacer, struct entropy *entropy)
{
	struct aws_client_config config = { .region = "eu-west-1",
		.endpoint_url = NOBODY,
		.attempts_max = 2,
		.credentials = CREDENTIALS,
		.pacer = pacer,
		.entropy = entropy,
		.breaker = { .failures = 2 } };
	struct aws_client *client;
	struct err err;

	if (aws_client_new(&client, &config, &err) != OK)
		fail_msg("%s", err.text);
	return client;
}

static void
each_attempt_asks_the_pacer(void **state)
{
	const struct aws_pacer pacer = { .take = take };
	struct aws_client *client = client_of(&pacer, NULL);
	struct iot iot;
	struct err err;

	(void)state;
	assert_int_equal(describe(&iot, client, &err), ERR_UNAVAILABLE);
	assert_string_equal(err.code, "iot_unavailable");
	assert_int_equal(iot.failure.attempts, 2);
	assert_int_equal(ASKED, 2);
	assert_int_equal(PRIORITY, AWS_PRIORITY_URGENT);
	/* The breaker is open now: no token is taken for what will not be sent. */
	assert_int_equal(describe(&iot, client, &err), ERR_UNAVAILABLE);
	assert_string_equal(err.code, "iot_breaker_open");
	assert_int_equal(iot.failure.error, AWS_ERROR_BREAKER);
	assert_true(err.retry_after_s > 0);
	assert_int_equal(ASKED, 2);
	aws_client_free(client);
}

static void
a_pacer_that_fails_ends_the_call(void **state)
{
	const struct aws_pacer pacer = { .take = take };
	struct aws_client *client = client_of(&pacer, NULL);
	struct iot iot;
	struct err err;

	(void)state;
	ANSWER = ERR_UNAVAILABLE;
	assert_int_equal(describe(&iot, client, &err), ERR_UNAVAILABLE);
	assert_string_equal(err.code, "pacer");
	assert_int_equal(iot.failure.error, AWS_ERROR_LOCAL);
	assert_int_equal(iot.failure.attempts, 0);
	aws_client_free(client);
}

static void
a_wait_past_the_deadline_is_not_begun(void **state)
{
	const struct aws_pacer pacer = { .take = take };
	struct aws_client *client = client_of(&pacer, NULL);
	struct iot iot;
	struct err err;

	(void)state;
	WAIT_MS = 5000;
	assert_int_equal(describe(&iot, client, &err), ERR_TOO_MANY);
	assert_string_equal(err.code, "iot_throttled");
	assert_int_equal(err.retry_after_s, 5);
	assert_int_equal(ASKED, 1);
	aws_client_free(client);
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
without_entropy_nothing_waits_in_step(void **state)
{
	struct entropy none = { .fill = fill_fails };
	struct aws_client *client = client_of(NULL, &none);
	struct iot iot;
	struct err err;

	(void)state;
	assert_int_equal(describe(&iot, client, &err), ERR_UNAVAILABLE);
	assert_string_equal(err.code, "entropy");
	assert_int_equal(iot.failure.attempts, 1);
	aws_client_free(client);
}

/* Everything from making the client to a call that fails for want of a service. */
static enum status
whole_life(struct err *err)
{
	const struct aws_quota quota = { "DescribeThing", 1000, 1000 };
	struct aws_client_config config = { .region = "eu-west-1",
		.endpoint_url = NOBODY,
		.attempts_max = 1,
		.credentials = CREDENTIALS,
		.ca_file = "/etc/hosts",
		.quotas = &quota,
		.quota_count = 1 };
	struct aws_client *client;
	struct iot iot;
	enum status status;

	TRY(aws_client_new(&client, &config, err));
	status = describe(&iot, client, err);
	aws_client_free(client);
	return status;
}

static void
every_allocation_may_fail(void **state)
{
	int64_t n;
	struct err err;

	(void)state;
	for (n = 0; n < ALLOCATIONS_MAX; n++) {
		mem_fail_at(n);
		assert_int_equal(whole_life(&err), ERR_UNAVAILABLE);
		if (!mem_failed())
			break;
		assert_string_equal(err.code, "out_of_memory");
	}
	mem_fail_at(-1);
	assert_in_range(n, 8, ALLOCATIONS_MAX - 1);
	assert_string_equal(err.code, "iot_unavailable");
}

static void
bad_fixed_keys_are_refused(void **state)
{
	struct aws_credentials *out;
	struct err err;

	(void)state;
	assert_int_equal(aws_credentials_fixed(&out, "", view_text("s"), view_text(""), &err),
		ERR_UNAUTHENTICATED);
	assert_int_equal(aws_credentials_fixed(&out, "A", view_text(""), view_text(""), &err),
		ERR_UNAUTHENTICATED);
	assert_int_equal(aws_credentials_fixed(&out, "A", view_text("s"), view_text("a b"), &err),
		ERR_UNAUTHENTICATED);
	assert_string_equal(err.code, "aws_credentials_malformed");
}

static void
fixed_keys_stay(void **state)
{
	own_struct(aws_keys) keys = { .source = NULL };
	struct err err;

	(void)state;
	aws_credentials_doubt(CREDENTIALS);
	aws_credentials_stop(CREDENTIALS);
	assert_int_equal(aws_credentials_get(CREDENTIALS, &keys, &err), OK);
	assert_string_equal(keys.access_key, "AKID");
	assert_int_equal(keys.secret_key.len, 6);
	assert_int_equal(keys.expires_s, 0);
}

static void
nothing_is_fetched_after_the_stop(void **state)
{
	const char *const environment[] = { "AWS_CONTAINER_CREDENTIALS_FULL_URI=" NOBODY,
		"AWS_PROFILE=", NULL };
	const struct aws_credentials_config config = { .environment = environment };
	own_struct(aws_keys) keys = { .source = NULL };
	struct aws_credentials *chain;
	struct err err;

	(void)state;
	assert_int_equal(aws_credentials_new(&chain, &config, &err), OK);
	aws_credentials_stop(chain);
	assert_int_equal(aws_credentials_get(chain, &keys, &err), ERR_UNAVAILABLE);
	assert_string_equal(err.code, "aws_stopped");
	aws_credentials_free(chain);
}

static void
a_chain_without_sources_says_so(void **state)
{
	const char *const environment[] = { "AWS_EC2_METADATA_DISABLED=true", NULL };
	struct aws_credentials_config config = { .environment = environment };
	own_struct(aws_keys) keys = { .source = NULL };
	char huge[8192];
	struct aws_credentials *chain;
	struct err err;

	(void)state;
	assert_int_equal(aws_credentials_new(&chain, &config, &err), OK);
	assert_int_equal(aws_credentials_get(chain, &keys, &err), ERR_UNAUTHENTICATED);
	assert_string_equal(err.code, "aws_credentials_missing");
	aws_credentials_free(chain);
	memset(huge, 'x', sizeof(huge) - 1);
	huge[sizeof(huge) - 1] = '\0';
	config.profile = huge;
	assert_int_equal(aws_credentials_new(&chain, &config, &err), ERR_ARGUMENT);
	assert_string_equal(err.code, "aws_credentials_config");
}

/* From AWS's description of Signature Version 4: GET of IAM's ListUsers. */
static void
the_documented_example_has_its_signature(void **state)
{
	const struct aws_field query[] = { { view_text("Version"), view_text("2010-05-08") },
		{ view_text("Action"), view_text("ListUsers") } };
	const struct aws_field headers[] = { { view_text("x-amz-date"),
						     view_text("20150830T123600Z") },
		{ view_text("content-type"),
			view_text("application/x-www-form-urlencoded; charset=utf-8") },
		{ view_text("host"), view_text("iam.amazonaws.com") } };
	struct aws_sigv4 request = { .method = view_text("GET"),
		.path = view_text("/"),
		.query = query,
		.query_count = 2,
		.headers = headers,
		.header_count = 3,
		.region = view_text("us-east-1"),
		.service = view_text("iam") };
	char signature[AWS_SIGNATURE_BYTES];
	struct err err;

	(void)state;
	aws_sha256_hex(request.body_sha256, view_text(""));
	aws_date_format(request.date, 1440938160);
	assert_string_equal(request.date, "20150830T123600Z");
	assert_int_equal(
		aws_sigv4_signature(&request, view_text("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"),
			signature, &err),
		OK);
	assert_string_equal(
		signature, "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7");
}

/* The names of objects in S3 are what they are: their path is neither put in order nor encoded
 * again. */
static void
only_s3_leaves_the_path_alone(void **state)
{
	static const struct {
		const char *service, *path, *want;
	} CASES[] = {
		{ "s3", "/a%3Ab//c/../d", "GET\n/a%3Ab//c/../d\n" },
		{ "iot", "/a%3Ab//c/../d", "GET\n/a%253Ab/d\n" },
		{ "s3", "", "GET\n/\n" },
		{ "iot", "", "GET\n/\n" },
	};
	const struct aws_field host = { view_text("host"), view_text("h") };
	struct err err;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		own_struct(buf) out = { .limit_bytes = 4096 };
		struct aws_sigv4 request = { .method = view_text("GET"),
			.path = view_text(CASES[i].path),
			.headers = &host,
			.header_count = 1,
			.date = "20150830T123600Z",
			.region = view_text("r"),
			.service = view_text(CASES[i].service) };

		assert_int_equal(aws_sigv4_canonical(&request, &out, &err), OK);
		assert_memory_equal(out.data, CASES[i].want, strlen(CASES[i].want));
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(each_attempt_asks_the_pacer, begin, end),
		cmocka_unit_test_setup_teardown(a_pacer_that_fails_ends_the_call, begin, end),
		cmocka_unit_test_setup_teardown(a_wait_past_the_deadline_is_not_begun, begin, end),
		cmocka_unit_test_setup_teardown(without_entropy_nothing_waits_in_step, begin, end),
		cmocka_unit_test_setup_teardown(every_allocation_may_fail, begin, end),
		cmocka_unit_test(bad_fixed_keys_are_refused),
		cmocka_unit_test_setup_teardown(fixed_keys_stay, begin, end),
		cmocka_unit_test(nothing_is_fetched_after_the_stop),
		cmocka_unit_test(a_chain_without_sources_says_so),
		cmocka_unit_test(the_documented_example_has_its_signature),
		cmocka_unit_test(only_s3_leaves_the_path_alone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
