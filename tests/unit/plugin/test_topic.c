#include "tests/unit/base/test.h"

#include <string.h>

#include "base/attr.h"
#include "server/iotcore/plugin/event.h"
#include "server/iotcore/plugin/limiter.h"
#include "server/iotcore/plugin/topic.h"

#define X16 "xxxxxxxxxxxxxxxx"
#define X64 X16 X16 X16 X16
#define X256 X64 X64 X64 X64

static const struct topic_case {
	const char *topic;
	enum topic_verdict want_publish, want_subscribe;
} TOPICS[] = {
	{ "a", TOPIC_FINE, TOPIC_FINE },
	{ "/", TOPIC_FINE, TOPIC_FINE },
	{ "a/b/c/d/e/f/g/h", TOPIC_FINE, TOPIC_FINE },
	{ "a/b/c/d/e/f/g/h/i", TOPIC_TOO_LONG, TOPIC_TOO_LONG },
	{ X256, TOPIC_FINE, TOPIC_FINE },
	{ X256 "x", TOPIC_TOO_LONG, TOPIC_TOO_LONG },
	{ "$aws/things/t/shadow/update", TOPIC_FINE, TOPIC_FINE },
	{ "$aws/events/x", TOPIC_RESERVED, TOPIC_FINE },
	{ "$aws", TOPIC_RESERVED, TOPIC_RESERVED },
	{ "$SYS/x", TOPIC_RESERVED, TOPIC_RESERVED },
	{ "$", TOPIC_RESERVED, TOPIC_RESERVED },
	{ "$aws/rules/r/a/b/c/d/e/f/g/h", TOPIC_FINE, TOPIC_TOO_LONG },
	{ "$aws/rules/r/a/b/c/d/e/f/g/h/i", TOPIC_TOO_LONG, TOPIC_TOO_LONG },
	{ "$aws/rules/r", TOPIC_RESERVED, TOPIC_FINE },
	{ "$share/g/t", TOPIC_RESERVED, TOPIC_FINE },
	{ "$share/g/a/b/c/d/e/f/g/h", TOPIC_RESERVED, TOPIC_FINE },
	{ "$share/g/a/b/c/d/e/f/g/h/i", TOPIC_RESERVED, TOPIC_TOO_LONG },
	{ "$share/g", TOPIC_RESERVED, TOPIC_RESERVED },
	{ "$share/g/$aws/events/#", TOPIC_RESERVED, TOPIC_UNSERVED },
	{ "$share/g/$SYS/#", TOPIC_RESERVED, TOPIC_RESERVED },
};

static void
topics_are_those_that_aws_has(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(TOPICS); i++) {
		if (topic_publish(TOPICS[i].topic) != TOPICS[i].want_publish)
			fail_msg("publish to %s: %d", TOPICS[i].topic,
				topic_publish(TOPICS[i].topic));
		if (topic_subscribe(TOPICS[i].topic) != TOPICS[i].want_subscribe)
			fail_msg("subscribe to %s: %d", TOPICS[i].topic,
				topic_subscribe(TOPICS[i].topic));
	}
	assert_true(topic_client_id("c") && topic_client_id(X64 X64));
	assert_false(topic_client_id("") || topic_client_id("$c") || topic_client_id(X64 X64 "x"));
}

static void
a_limiter_lets_so_many_pass(void **state)
{
	static struct limiter limiter = { .per_s = 10 };
	size_t passed = 0;

	(void)state;
	for (int i = 0; i < 100; i++)
		passed += limiter_pass(&limiter, 7, 5000);
	assert_int_equal(passed, 10);
	assert_false(limiter_left(&limiter, 7, 5000));
	assert_true(limiter_left(&limiter, 8, 5000)); /* somebody else */
	assert_false(limiter_left(&limiter, 7, 5099));
	assert_true(limiter_pass(&limiter, 7, 5100));
	assert_false(limiter_pass(&limiter, 7, 5101));
	/* After a long time no more than at first. */
	passed = 0;
	for (int i = 0; i < 100; i++)
		passed += limiter_pass(&limiter, 7, 500000);
	assert_int_equal(passed, 10);
}

static void
the_registered_event_has_awss_types(void **state)
{
	own_struct(event) event = { .topic = "" };
	struct err err;

	(void)state;
	assert_int_equal(event_registered(&event, "c0", "ca", "123456789012", 1623723165331,
				 1623724243659, &err),
		OK);
	assert_string_equal(event.topic, "$aws/events/certificates/registered/ca");
	assert_true(view_equal_text(view_of(&event.payload),
		"{\"certificateId\":\"c0\",\"caCertificateId\":\"ca\",\"timestamp\":1623724243659,"
		"\"certificateStatus\":\"PENDING_ACTIVATION\",\"awsAccountId\":\"123456789012\","
		"\"certificateRegistrationTimestamp\":\"1623723165331\"}"));
}

static void
a_subscription_event_lists_its_topics(void **state)
{
	const struct event_session session = { .client_id = "c\"1",
		.session_id = "u",
		.certificate_id = "id",
		.address = "::1",
		.version = 3 };
	own_struct(event) event = { .topic = "" };
	struct err err;

	(void)state;
	assert_int_equal(
		event_subscriptions(&event, &session, true, view_text("a\nb/#"), 5, &err), OK);
	assert_string_equal(event.topic, "$aws/events/subscriptions/subscribed/c\"1");
	assert_true(view_equal_text(view_of(&event.payload),
		"{\"clientId\":\"c\\\"1\",\"timestamp\":5,\"eventType\":\"subscribed\","
		"\"sessionIdentifier\":\"u\",\"principalIdentifier\":\"id\",\"topics\":[\"a\",\"b/"
	        "#\"]}"));
	assert_true(event_topic_fits("c") && !event_topic_fits("a+b") && !event_topic_fits("#"));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(topics_are_those_that_aws_has),
		cmocka_unit_test(a_limiter_lets_so_many_pass),
		cmocka_unit_test(the_registered_event_has_awss_types),
		cmocka_unit_test(a_subscription_event_lists_its_topics),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
