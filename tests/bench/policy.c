/*
 * What a decision on an IoT policy costs: `make bench-policy`. Prints nanoseconds of CPU, the
 * median of the rounds. Four statements, variables, one condition: what a device of a fleet has.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "server/iotcore/policy.h"

#define ROUNDS 15
#define CALLS 20000
#define HEAD "arn:aws:iot:eu-central-1:123456789012:"
#define V(text)                                                                                    \
	{                                                                                          \
		(const uint8_t *)(text), sizeof(text) - 1                                          \
	}

static const char DOCUMENT[] =
	"{\"Version\":\"2012-10-17\",\"Statement\":["
	"{\"Effect\":\"Allow\",\"Action\":\"iot:Connect\","
	"\"Resource\":\"" HEAD "client/${iot:Connection.Thing.ThingName}\"},"
	"{\"Effect\":\"Allow\",\"Action\":[\"iot:Publish\",\"iot:Receive\"],"
	"\"Resource\":\"" HEAD "topic/devices/${iot:Connection.Thing.ThingName}/*\"},"
	"{\"Effect\":\"Allow\",\"Action\":\"iot:Subscribe\","
	"\"Resource\":\"" HEAD "topicfilter/devices/${iot:Connection.Thing.ThingName}/*\"},"
	"{\"Effect\":\"Deny\",\"Action\":\"iot:Publish\",\"Resource\":\"" HEAD
	"topic/*/admin/*\"}]}";

/* A Deny for each message that looks at where from and when. */
static const char BOUND[] =
	"{\"Version\":\"2012-10-17\",\"Statement\":["
	"{\"Effect\":\"Deny\",\"Action\":\"iot:*\",\"Resource\":\"*\",\"Condition\":{"
        "\"NotIpAddress\":"
	"{\"aws:SourceIp\":[\"203.0.113.0/24\",\"2001:db8::/32\",\"192.0.2.0/24\"]}}},"
	"{\"Effect\":\"Deny\",\"Action\":\"iot:*\",\"Resource\":\"*\",\"Condition\":{"
        "\"DateGreaterThan\":"
	"{\"aws:CurrentTime\":\"2027-01-01T00:00:00Z\"}}}]}";

static const char HARD[] = "{\"Statement\":{\"Effect\":\"Allow\",\"Action\":\"*\","
			   "\"Resource\":\"" HEAD "topic/*a*a*a*a*a*a*a*aaaaaaaaaaaaaaaab\"}}";

static double
cpu_ns(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int
by_value(const void *a, const void *b)
{
	const double *left = a, *right = b;

	return (*left > *right) - (*left < *right);
}

static void
measure(const char *what, const struct policy *const *policies, size_t count,
	enum policy_action action, struct view name, const struct policy_context *context)
{
	double rounds[ROUNDS];
	char head[POLICY_HEAD_BYTES];
	size_t head_len = policy_resource_head(
		head, action, view_text("eu-central-1"), view_text("123456789012"));
	struct policy_resource resource = { { (const uint8_t *)head, head_len }, name };
	struct policy_decision decision = { 0 };

	for (size_t round = 0; round < ROUNDS; round++) {
		double begin = cpu_ns();

		for (size_t call = 0; call < CALLS; call++)
			(void)policy_decide(policies, count, action, resource, context, &decision);
		rounds[round] = (cpu_ns() - begin) / CALLS;
	}
	qsort(rounds, ROUNDS, sizeof(rounds[0]), by_value);
	(void)printf(
		"%-46s %8.0f ns  verdict %d\n", what, rounds[ROUNDS / 2], (int)decision.verdict);
}

static struct policy *
parse(const char *text)
{
	struct policy *policy = NULL;
	struct err err;

	if (policy_parse(&policy, view_text(text), &err) != OK) {
		(void)fprintf(stderr, "%s\n", err.text);
		exit(1);
	}
	return policy;
}

int
main(void)
{
	own(iot_policy) device = parse(DOCUMENT);
	own(iot_policy) bound = parse(BOUND);
	own(iot_policy) hard = parse(HARD);
	const struct policy *const policies[] = { device, bound };
	const struct policy *const hardest[] = { hard };
	struct policy_context context = {
		.now_s = 1795536000, .client_id = V("sn-0001"), .thing_name = V("sn-0001")
	};
	char longest[900];

	(void)policy_address_parse(&context.source, view_text("192.0.2.7"));
	for (size_t i = 0; i < sizeof(longest); i++)
		longest[i] = 'a';
	measure("publish, 4 statements, allowed", policies, 1, POLICY_PUBLISH,
		view_text("devices/sn-0001/temperature"), &context);
	measure("publish, 4 statements, implicit deny", policies, 1, POLICY_PUBLISH,
		view_text("devices/sn-0002/temperature"), &context);
	measure("publish, 4 statements, explicit deny", policies, 1, POLICY_PUBLISH,
		view_text("devices/sn-0001/admin/x"), &context);
	measure("receive, 4 statements, allowed", policies, 1, POLICY_RECEIVE,
		view_text("devices/sn-0001/command"), &context);
	measure("publish, 6 statements, network and time", policies, 2, POLICY_PUBLISH,
		view_text("devices/sn-0001/temperature"), &context);
	measure("900 octets against eight \"*\", no match", hardest, 1, POLICY_PUBLISH,
		(struct view){ (const uint8_t *)longest, sizeof(longest) }, &context);
	return 0;
}
