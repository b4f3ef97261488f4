/* server/iotcore/policy_eval.c and policy_action.c: what is decided, by whom, and what was missing.
 */
#include "tests/unit/policy/fixture.h"

#define V12 "'Version':'2012-10-17',"
#define ALLOW(action, resource) "{'Effect':'Allow','Action':'" action "','Resource':'" resource "'}"
#define DENY(action, resource) "{'Effect':'Deny','Action':'" action "','Resource':'" resource "'}"
#define THING "iot:Connection.Thing."

static const struct {
	const char *document;
	enum policy_action action;
	const char *resource;
	enum policy_verdict want;
} CASES[] = {
	/* Nothing is allowed that no statement allows. */
	{ "{'Statement':" ALLOW("iot:Publish", "@topic/a") "}", POLICY_PUBLISH, "topic/a",
		POLICY_ALLOWED },
	{ "{'Statement':" ALLOW("iot:Publish", "@topic/a") "}", POLICY_PUBLISH, "topic/b",
		POLICY_IMPLICIT_DENY },
	{ "{'Statement':" ALLOW("iot:Publish", "@topic/a") "}", POLICY_RECEIVE, "topic/a",
		POLICY_IMPLICIT_DENY },
	{ "{'Statement':" ALLOW("iot:Publish", "@topic/a") "}", POLICY_NO_ACTION, "topic/a",
		POLICY_IMPLICIT_DENY },
	{ "{'Statement':" ALLOW("*", "*") "}", POLICY_NO_ACTION, "topic/a", POLICY_IMPLICIT_DENY },
	{ "{'Statement':" ALLOW("*", "*") "}", POLICY_ACTION_COUNT, "topic/a",
		POLICY_IMPLICIT_DENY },
	{ "{'Statement':" DENY("iot:Publish", "@topic/a") "}", POLICY_PUBLISH, "topic/a",
		POLICY_EXPLICIT_DENY },
	/* Action patterns. */
	{ "{'Statement':" ALLOW("*", "*") "}", POLICY_ASSUME_ROLE_WITH_CERTIFICATE, "rolealias/x",
		POLICY_ALLOWED },
	{ "{'Statement':" ALLOW("iot:*", "*") "}", POLICY_CONNECT, "client/x", POLICY_ALLOWED },
	{ "{'Statement':" ALLOW("iot:Re*", "*") "}", POLICY_RECEIVE, "topic/a", POLICY_ALLOWED },
	{ "{'Statement':" ALLOW("iot:Re*", "*") "}", POLICY_RETAIN_PUBLISH, "topic/a",
		POLICY_ALLOWED },
	{ "{'Statement':" ALLOW("iot:Re*", "*") "}", POLICY_PUBLISH, "topic/a",
		POLICY_IMPLICIT_DENY },
	{ "{'Statement':" ALLOW("iot:?ublish", "*") "}", POLICY_PUBLISH, "topic/a",
		POLICY_ALLOWED },
	{ "{'Statement':" ALLOW("IOT:PUBLISH", "*") "}", POLICY_PUBLISH, "topic/a",
		POLICY_ALLOWED },
	{ "{'Statement':" ALLOW("iot:Pubish", "*") "}", POLICY_PUBLISH, "topic/a",
		POLICY_IMPLICIT_DENY },
	{ "{'Statement':" ALLOW("greengrass:*", "*") "}", POLICY_PUBLISH, "topic/a",
		POLICY_IMPLICIT_DENY },
	{ "{'Statement':{'Effect':'Allow','NotAction':'iot:Publish','Resource':'*'}}",
		POLICY_PUBLISH, "topic/a", POLICY_IMPLICIT_DENY },
	{ "{'Statement':{'Effect':'Allow','NotAction':'iot:Publish','Resource':'*'}}",
		POLICY_RECEIVE, "topic/a", POLICY_ALLOWED },
	{ "{'Statement':{'Effect':'Allow','NotAction':'iot:Publish','Resource':'*'}}",
		POLICY_NO_ACTION, "topic/a", POLICY_IMPLICIT_DENY },
	{ "{'Statement':{'Effect':'Allow','NotAction':'*','Resource':'*'}}", POLICY_RECEIVE,
		"topic/a", POLICY_IMPLICIT_DENY },
	/* Resources: all of the ARN counts. */
	{ "{'Statement':" ALLOW("*", "arn:aws:iot:*:*:topic/a") "}", POLICY_PUBLISH, "topic/a",
		POLICY_ALLOWED },
	{ "{'Statement':" ALLOW("*", "arn:aws:iot:us-east-1:123456789012:topic/a") "}",
		POLICY_PUBLISH, "topic/a", POLICY_IMPLICIT_DENY },
	{ "{'Statement':" ALLOW("*", "arn:aws:iot:eu-central-1:999999999999:topic/a") "}",
		POLICY_PUBLISH, "topic/a", POLICY_IMPLICIT_DENY },
	{ "{'Statement':" ALLOW("*", "@topic/*") "}", POLICY_SUBSCRIBE, "topicfilter/a",
		POLICY_IMPLICIT_DENY },
	{ "{'Statement':" ALLOW("*", "@topicfilter/*") "}", POLICY_PUBLISH, "topic/a",
		POLICY_IMPLICIT_DENY },
	{ "{'Statement':" ALLOW("*", "@topic*") "}", POLICY_SUBSCRIBE, "topicfilter/a",
		POLICY_ALLOWED },
	{ "{'Statement':" ALLOW("*", "@topic/A") "}", POLICY_PUBLISH, "topic/a",
		POLICY_IMPLICIT_DENY },
	{ "{'Statement':" ALLOW("*", "@topic/a") "}", POLICY_PUBLISH,
		"arn:aws:iot:eu-central-1:123456789012:topic/a", POLICY_ALLOWED },
	{ "{'Statement':{'Effect':'Allow','Action':'*','Resource':['@topic/a','@topic/b']}}",
		POLICY_PUBLISH, "topic/b", POLICY_ALLOWED },
	{ "{'Statement':{'Effect':'Allow','Action':'*','NotResource':['@topic/a','@topic/b']}}",
		POLICY_PUBLISH, "topic/b", POLICY_IMPLICIT_DENY },
	{ "{'Statement':{'Effect':'Allow','Action':'*','NotResource':['@topic/a','@topic/b']}}",
		POLICY_PUBLISH, "topic/c", POLICY_ALLOWED },
	{ "{'Statement':{'Effect':'Deny','Action':'*','NotResource':'@topic/a'}}", POLICY_PUBLISH,
		"topic/b", POLICY_EXPLICIT_DENY },
	{ "{'Statement':" ALLOW("iot:ListRetainedMessages", "*") "}", POLICY_LIST_RETAINED_MESSAGES,
		"*", POLICY_ALLOWED },
	{ "{'Statement':" ALLOW("iot:GetThingShadow", "@thing/sn-1/*") "}", POLICY_GET_THING_SHADOW,
		"thing/sn-1/config", POLICY_ALLOWED },
	{ "{'Statement':" ALLOW("iot:GetThingShadow", "@thing/sn-1/*") "}", POLICY_GET_THING_SHADOW,
		"thing/sn-1", POLICY_IMPLICIT_DENY },
	/* "+" and "#" are literal (trap 14). */
	{ "{'Statement':" ALLOW("*", "@topicfilter/a/+/b") "}", POLICY_SUBSCRIBE,
		"topicfilter/a/+/b", POLICY_ALLOWED },
	{ "{'Statement':" ALLOW("*", "@topicfilter/a/+/b") "}", POLICY_SUBSCRIBE,
		"topicfilter/a/x/b", POLICY_IMPLICIT_DENY },
	{ "{'Statement':" ALLOW("*", "@topicfilter/a/#") "}", POLICY_SUBSCRIBE, "topicfilter/a/b",
		POLICY_IMPLICIT_DENY },
	{ "{'Statement':" ALLOW("*", "@topicfilter/a/#") "}", POLICY_SUBSCRIBE, "topicfilter/a/#",
		POLICY_ALLOWED },
	{ "{'Statement':" ALLOW("*", "@topicfilter/a/b") "}", POLICY_SUBSCRIBE, "topicfilter/a/#",
		POLICY_IMPLICIT_DENY },
	{ "{'Statement':" ALLOW("*", "@topicfilter/a/*") "}", POLICY_SUBSCRIBE, "topicfilter/a/#",
		POLICY_ALLOWED },
	{ "{'Statement':" ALLOW("*", "@topic/a/+") "}", POLICY_PUBLISH, "topic/a/x",
		POLICY_IMPLICIT_DENY },
	{ "{'Statement':[" ALLOW("*", "*") "," DENY("iot:Subscribe", "@topicfilter/secret/x") "]}",
		POLICY_SUBSCRIBE, "topicfilter/secret/x", POLICY_EXPLICIT_DENY },
	/* … so a Deny of one filter does not stop a wider one; Receive does. */
	{ "{'Statement':[" ALLOW("*", "*") "," DENY("iot:Subscribe", "@topicfilter/secret/x") "]}",
		POLICY_SUBSCRIBE, "topicfilter/secret/#", POLICY_ALLOWED },
	{ "{'Statement':[" ALLOW("*", "*") "," DENY("iot:Receive", "@topic/secret/x") "]}",
		POLICY_RECEIVE, "topic/secret/x", POLICY_EXPLICIT_DENY },
	{ "{'Statement':[" ALLOW("*", "*") "," DENY("iot:Subscribe", "@topicfilter/secret/*") "]}",
		POLICY_SUBSCRIBE, "topicfilter/secret/#", POLICY_EXPLICIT_DENY },
	{ "{'Statement':[" ALLOW("*", "*") "," DENY("iot:Subscribe", "@topicfilter/secret/*") "]}",
		POLICY_SUBSCRIBE, "topicfilter/#", POLICY_ALLOWED },
	/* An explicit Deny wins, wherever it stands. */
	{ "{'Statement':[" ALLOW("*", "*") "," DENY("iot:Publish", "@topic/a") "]}", POLICY_PUBLISH,
		"topic/a", POLICY_EXPLICIT_DENY },
	{ "{'Statement':[" DENY("iot:Publish", "@topic/a") "," ALLOW("*", "*") "]}", POLICY_PUBLISH,
		"topic/a", POLICY_EXPLICIT_DENY },
	{ "{'Statement':[" DENY("iot:Publish", "@topic/a") "," ALLOW("*", "*") "]}", POLICY_PUBLISH,
		"topic/b", POLICY_ALLOWED },
	/* Variables, in version 2012-10-17 only. */
	{ "{" V12 "'Statement':" ALLOW("*", "@topic/${iot:ClientId}/*") "}", POLICY_PUBLISH,
		"topic/sn-1/x", POLICY_ALLOWED },
	{ "{" V12 "'Statement':" ALLOW("*", "@topic/${iot:ClientId}/*") "}", POLICY_PUBLISH,
		"topic/sn-2/x", POLICY_IMPLICIT_DENY },
	{ "{" V12 "'Statement':" ALLOW("*", "@topic/${iot:ClientId}/*") "}", POLICY_PUBLISH,
		"topic/sn-11/x", POLICY_IMPLICIT_DENY },
	{ "{'Version':'2008-10-17','Statement':" ALLOW("*", "@topic/${iot:ClientId}") "}",
		POLICY_PUBLISH, "topic/sn-1", POLICY_IMPLICIT_DENY },
	{ "{'Version':'2008-10-17','Statement':" ALLOW("*", "@topic/${iot:ClientId}") "}",
		POLICY_PUBLISH, "topic/${iot:ClientId}", POLICY_ALLOWED },
	{ "{'Statement':" ALLOW("*", "@topic/${iot:ClientId}") "}", POLICY_PUBLISH,
		"topic/${iot:ClientId}", POLICY_ALLOWED },
	{ "{'Statement':" ALLOW("*", "@topic/${*}") "}", POLICY_PUBLISH, "topic/${xyz}",
		POLICY_ALLOWED },
	{ "{" V12 "'Statement':" ALLOW("*", "@topic/${*}") "}", POLICY_PUBLISH, "topic/${xyz}",
		POLICY_IMPLICIT_DENY },
	{ "{" V12 "'Statement':" ALLOW(
		  "*", "@topic/${" THING "ThingTypeName}/${" THING "Attributes[model]}") "}",
		POLICY_PUBLISH, "topic/sensor/m1", POLICY_ALLOWED },
	{ "{" V12 "'Statement':" ALLOW("*", "@topic/${" THING "IsAttached}") "}", POLICY_PUBLISH,
		"topic/true", POLICY_ALLOWED },
	{ "{" V12 "'Statement':" ALLOW("*", "@topic/${aws:SourceIp}") "}", POLICY_PUBLISH,
		"topic/192.0.2.7", POLICY_ALLOWED },
	{ "{" V12 "'Statement':" ALLOW("*", "@topic/${aws:CurrentTime}/${aws:EpochTime}") "}",
		POLICY_PUBLISH, "topic/2026-11-24T16:00:00Z/1795536000", POLICY_ALLOWED },
	{ "{" V12 "'Statement':" ALLOW("*", "@topic/${iot:CertificateId}") "}", POLICY_PUBLISH,
		"topic/0123456789abcdef", POLICY_ALLOWED },
	{ "{" V12 "'Statement':" ALLOW("*", "@topic/${iot:Certificate.Subject.CommonName}") "}",
		POLICY_PUBLISH, "topic/sn-1", POLICY_ALLOWED },
	{ "{" V12
	  "'Statement':" ALLOW("*", "@topic/${iot:Certificate.Subject.OrganizationalUnit.1}") "}",
		POLICY_PUBLISH, "topic/two", POLICY_ALLOWED },
	{ "{" V12 "'Statement':" ALLOW(
		  "*", "@topic/${iot:Certificate.Subject.OrganizationalUnit.List}") "}",
		POLICY_PUBLISH, "topic/one", POLICY_IMPLICIT_DENY },
	{ "{" V12
	  "'Statement':" ALLOW("*", "@topic/${iot:Certificate.Subject.CommonName.List}") "}",
		POLICY_PUBLISH, "topic/sn-1", POLICY_ALLOWED },
	/* Certificate texts are escaped. */
	{ "{" V12 "'Statement':" ALLOW("*", "@topic/${iot:Certificate.Subject.Organization}") "}",
		POLICY_PUBLISH, "topic/Example\\, Inc.", POLICY_ALLOWED },
	{ "{" V12 "'Statement':" ALLOW("*", "@topic/${iot:Certificate.Subject.Organization}") "}",
		POLICY_PUBLISH, "topic/Example, Inc.", POLICY_IMPLICIT_DENY },
	/* What is undefined takes its whole statement with it, Allow and Deny alike. */
	{ "{" V12 "'Statement':" ALLOW("*", "@topic/${missing}*") "}", POLICY_PUBLISH, "topic/a",
		POLICY_IMPLICIT_DENY },
	{ "{" V12 "'Statement':" ALLOW("*", "@topic/${missing}") "}", POLICY_PUBLISH,
		"topic/${missing}", POLICY_IMPLICIT_DENY },
	{ "{" V12 "'Statement':{'Effect':'Allow','Action':'*','Resource':['@topic/a','@topic/"
	  "${missing}']}}",
		POLICY_PUBLISH, "topic/a", POLICY_IMPLICIT_DENY },
	{ "{" V12 "'Statement':[" ALLOW("*", "*") "," DENY("*", "@topic/${missing}*") "]}",
		POLICY_PUBLISH, "topic/a", POLICY_ALLOWED },
	{ "{" V12 "'Statement':{'Effect':'Allow','Action':'*','NotResource':'@topic/${missing}'}}",
		POLICY_PUBLISH, "topic/a", POLICY_IMPLICIT_DENY },
	{ "{" V12 "'Statement':[" ALLOW(
		  "*", "*") ",{'Effect':'Deny','Action':'*','NotResource':'@topic/${missing}'}]}",
		POLICY_PUBLISH, "topic/a", POLICY_ALLOWED },
	/* What is not substituted matches nothing, and "all but that" allows nothing. */
	{ "{" V12 "'Statement':" ALLOW("*", "@topic/${" THING "Attributes[odd]}") "}",
		POLICY_PUBLISH, "topic/aXb", POLICY_IMPLICIT_DENY },
	{ "{" V12 "'Statement':" ALLOW("*", "@topic/${" THING "Attributes[odd]}") "}",
		POLICY_PUBLISH, "topic/a*b", POLICY_IMPLICIT_DENY },
	{ "{" V12
	  "'Statement':{'Effect':'Allow','Action':'*','Resource':['@topic/a','@topic/${" THING
	  "Attributes[odd]}']}}",
		POLICY_PUBLISH, "topic/a", POLICY_ALLOWED },
	{ "{" V12 "'Statement':{'Effect':'Allow','Action':'*','NotResource':'@topic/${" THING
	  "Attributes[odd]}'}}",
		POLICY_PUBLISH, "topic/x", POLICY_IMPLICIT_DENY },
	{ "{" V12 "'Statement':{'Effect':'Deny','Action':'*','NotResource':'@topic/${" THING
	  "Attributes[odd]}'}}",
		POLICY_PUBLISH, "topic/x", POLICY_EXPLICIT_DENY },
	/* A condition that does not hold leaves the statement out, Allow and Deny alike. */
	{ "{'Statement':{'Effect':'Allow','Action':'*','Resource':'*','Condition':{'IpAddress':{'"
	  "aws:SourceIp':'203.0.113.0/24'}}}}",
		POLICY_PUBLISH, "topic/a", POLICY_IMPLICIT_DENY },
	{ "{'Statement':[" ALLOW(
		  "*", "*") ",{'Effect':'Deny','Action':'*','Resource':'*','Condition':{'"
			    "NotIpAddress':{'aws:SourceIp':'203.0.113.0/24'}}}]}",
		POLICY_PUBLISH, "topic/a", POLICY_EXPLICIT_DENY },
	{ "{'Statement':[" ALLOW(
		  "*", "*") ",{'Effect':'Deny','Action':'*','Resource':'*','Condition':{'"
			    "NotIpAddress':{'aws:SourceIp':'192.0.2.0/24'}}}]}",
		POLICY_PUBLISH, "topic/a", POLICY_ALLOWED },
	{ "{'Statement':{'Effect':'Allow','Action':'*','Resource':'*','Condition':{}}}",
		POLICY_PUBLISH, "topic/a", POLICY_ALLOWED },
};

static void
each_case_is_decided_as_documented(void **state)
{
	const struct policy_context context = device_context();

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		struct policy *parsed = document(CASES[i].document);
		struct policy_decision decision;
		enum policy_verdict verdict =
			ask(parsed, CASES[i].action, CASES[i].resource, &context, &decision);

		if (verdict != CASES[i].want || decision.verdict != verdict)
			fail_msg("%s\n%s %s: %d", CASES[i].document,
				policy_action_name(CASES[i].action), CASES[i].resource,
				(int)verdict);
		assert_int_equal(verdict == POLICY_IMPLICIT_DENY, decision.policy == POLICY_NONE);
		assert_int_equal(
			verdict == POLICY_IMPLICIT_DENY, decision.statement == POLICY_NONE);
		policy_free(parsed);
	}
}

/* The names of attributes are told apart by case, those of keys are not. */
static void
attributes_that_differ_in_case_are_two(void **state)
{
	static const struct policy_pair ATTRIBUTES_OF_TWO[] = { { V("line"), V("1") },
		{ V("Line"), V("2") } };
	struct policy *parsed = document("{" V12 "'Statement':" ALLOW("*",
		"@topic/${" THING
		"Attributes[line]}/${iot:Connection.thing.Attributes[Line]}") "}");
	struct policy_context context = device_context();
	struct policy_decision decision;

	(void)state;
	context.thing_attributes = ATTRIBUTES_OF_TWO;
	context.thing_attribute_count = 2;
	assert_int_equal(
		ask(parsed, POLICY_PUBLISH, "topic/1/2", &context, &decision), POLICY_ALLOWED);
	assert_int_equal(ask(parsed, POLICY_PUBLISH, "topic/1/1", &context, &decision),
		POLICY_IMPLICIT_DENY);
	policy_free(parsed);
}

/* Client ids that would be wildcards if they were put in as they are (trap of ${iot:ClientId}). */
static void
no_client_id_widens_a_policy(void **state)
{
	static const char *const IDS[] = { "*", "?", "+", "#", "$x", "a*", "sn-?",
		"${iot:ClientId}" };
	struct policy *parsed = document("{" V12 "'Statement':[" ALLOW(
		"iot:Subscribe", "@topicfilter/my/${iot:ClientId}/topic") "," ALLOW("iot:Publish",
		"@topic/${iot:ClientId}/x") "]}");

	(void)state;
	for (size_t i = 0; i < COUNT_OF(IDS); i++) {
		struct policy_context context = device_context();
		struct policy_decision decision;
		char text[64];

		context.client_id = view_text(IDS[i]);
		(void)snprintf(text, sizeof(text), "topicfilter/my/%s/topic", IDS[i]);
		assert_int_equal(ask(parsed, POLICY_SUBSCRIBE, text, &context, &decision),
			POLICY_IMPLICIT_DENY);
		assert_int_equal(ask(parsed, POLICY_PUBLISH, "topic/sn-1/x", &context, &decision),
			POLICY_IMPLICIT_DENY);
	}
	policy_free(parsed);
}

static void
the_deciding_statement_is_named(void **state)
{
	struct policy *first =
		document("{'Statement':[{'Sid':'receive','Effect':'Allow',"
			 "'Action':'iot:Receive','Resource':'*'}," ALLOW("iot:Publish",
				 "@topic/b") ","
					     "{'Sid':'publish','Effect':'Allow','Action':'iot:"
					     "Publish','Resource':'@topic/a*'}]}");
	struct policy *second = document("{'Statement':[" ALLOW(
		"*", "*") ",{'Sid':'never','Effect':"
			  "'Deny','Action':'iot:Publish','Resource':'@topic/ab*'}]}");
	const struct policy *const both[] = { NULL, first, second };
	const struct policy_context context = device_context();
	struct policy_resource resource = { view_text(HEAD), view_text("topic/a") };
	struct policy_decision decision;

	(void)state;
	assert_int_equal(policy_decide(both, 3, POLICY_PUBLISH, resource, &context, &decision),
		POLICY_ALLOWED);
	assert_int_equal(decision.policy, 1);
	assert_int_equal(decision.statement, 2);
	assert_true(view_equal_text(decision.sid, "publish"));
	resource.name = view_text("topic/abc");
	assert_int_equal(policy_decide(both, 3, POLICY_PUBLISH, resource, &context, &decision),
		POLICY_EXPLICIT_DENY);
	assert_int_equal(decision.policy, 2);
	assert_int_equal(decision.statement, 1);
	assert_true(view_equal_text(decision.sid, "never"));
	resource.name = view_text("topic/x");
	assert_int_equal(policy_decide(both, 3, POLICY_PUBLISH, resource, &context, &decision),
		POLICY_ALLOWED);
	assert_int_equal(decision.policy, 2);
	assert_int_equal(decision.sid.len, 0);
	assert_int_equal(policy_decide(both, 2, POLICY_PUBLISH, resource, &context, &decision),
		POLICY_IMPLICIT_DENY);
	assert_int_equal(policy_decide(NULL, 0, POLICY_PUBLISH, resource, &context, &decision),
		POLICY_IMPLICIT_DENY);
	assert_true(policy_mentions(both, 3, POLICY_PUBLISH));
	assert_true(policy_mentions(both, 2, POLICY_RECEIVE));
	assert_false(policy_mentions(both, 2, POLICY_CONNECT));
	assert_false(policy_mentions(both, 3, POLICY_NO_ACTION));
	assert_false(policy_mentions(both, 1, POLICY_PUBLISH));
	assert_int_equal(policy_statement_count(first), 3);
	policy_free(first);
	policy_free(second);
}

static void
missing_keys_are_listed_once(void **state)
{
	struct policy *parsed =
		document("{" V12 "'Statement':[" ALLOW("iot:Receive", "@topic/${not}") "," ALLOW(
			"iot:Publish", "@topic/${a}${b}") "," ALLOW("iot:Publish",
			"@topic/${b}${A}") ","
					   "{'Effect':'Allow','Action':'iot:Publish','Resource':'*'"
					   ",'Condition':{'StringEquals':{'c':'x'}}},"
					   "{'Effect':'Allow','Action':'iot:Publish','Resource':'@"
					   "topic/x','Condition':{'StringEquals':{'d':'x'}}}]}");
	struct policy *many = document(
		"{" V12 "'Statement':" ALLOW("*", "@${a}${b}${c}${d}${e}${f}${g}${h}${i}${j}") "}");
	const struct policy_context context = device_context();
	struct policy_decision decision;

	(void)state;
	assert_int_equal(
		ask(parsed, POLICY_PUBLISH, "topic/a", &context, &decision), POLICY_IMPLICIT_DENY);
	assert_int_equal(decision.missing_count, 4);
	assert_true(view_equal_text(decision.missing[0], "a"));
	assert_true(view_equal_text(decision.missing[1], "b"));
	assert_true(view_equal_text(decision.missing[2], "A"));
	assert_true(view_equal_text(decision.missing[3], "c"));
	assert_int_equal(
		ask(parsed, POLICY_CONNECT, "client/a", &context, &decision), POLICY_IMPLICIT_DENY);
	assert_int_equal(decision.missing_count, 0);
	assert_int_equal(
		ask(many, POLICY_PUBLISH, "topic/a", &context, &decision), POLICY_IMPLICIT_DENY);
	assert_int_equal(decision.missing_count, POLICY_MISSING_MAX);
	policy_free(parsed);
	policy_free(many);
}

static void
an_overlong_resource_is_denied(void **state)
{
	struct policy *parsed = document("{'Statement':" ALLOW("*", "*") "}");
	const struct policy_context context = device_context();
	char topic[POLICY_RESOURCE_MAX_BYTES + 1];
	struct policy_decision decision;

	(void)state;
	memset(topic, 'a', sizeof(topic));
	for (size_t head = 0; head <= 64; head += 64) {
		struct policy_resource resource = { { (uint8_t *)topic, head },
			{ (uint8_t *)topic, POLICY_RESOURCE_MAX_BYTES - head } };
		const struct policy *const one = parsed;

		assert_int_equal(
			policy_decide(&one, 1, POLICY_PUBLISH, resource, &context, &decision),
			POLICY_ALLOWED);
		resource.name.len++;
		assert_int_equal(
			policy_decide(&one, 1, POLICY_PUBLISH, resource, &context, &decision),
			POLICY_IMPLICIT_DENY);
		resource.name.len = SIZE_MAX - 3;
		assert_int_equal(
			policy_decide(&one, 1, POLICY_PUBLISH, resource, &context, &decision),
			POLICY_IMPLICIT_DENY);
		resource.head.len = SIZE_MAX;
		assert_int_equal(
			policy_decide(&one, 1, POLICY_PUBLISH, resource, &context, &decision),
			POLICY_IMPLICIT_DENY);
	}
	policy_free(parsed);
}

/* Time and place: what the guide calls context based access. */
static void
a_policy_can_be_bound_to_time_and_network(void **state)
{
	static const struct {
		int64_t now_s;
		const char *source;
		enum policy_verdict want;
	} MOMENTS[] = {
		{ NOW_S, "192.0.2.7", POLICY_ALLOWED },
		{ NOW_S, "2001:db8:1::9", POLICY_ALLOWED },
		{ NOW_S, "203.0.113.9", POLICY_EXPLICIT_DENY },
		{ NOW_S, "", POLICY_EXPLICIT_DENY },
		{ NOW_S - 8 * 3600 - 1, "192.0.2.7", POLICY_IMPLICIT_DENY },
		{ NOW_S + 2 * 3600 - 1, "192.0.2.7", POLICY_ALLOWED },
		{ NOW_S + 2 * 3600, "192.0.2.7", POLICY_IMPLICIT_DENY },
		{ 0, "192.0.2.7", POLICY_IMPLICIT_DENY },
	};
	struct policy *parsed = document(
		"{" V12 "'Statement':["
		"{'Sid':'Shift','Effect':'Allow','Action':'iot:Publish','Resource':'@topic/a',"
		"'Condition':{'DateGreaterThanEquals':{'aws:CurrentTime':'2026-11-24T08:00:00Z'},"
		"'DateLessThan':{'aws:CurrentTime':'2026-11-24T18:00:00Z'}}},"
		"{'Sid':'Site','Effect':'Deny','Action':'iot:*','Resource':'*','Condition':{'"
		"NotIpAddress':"
		"{'aws:SourceIp':['192.0.2.0/24','2001:db8::/32']}}}]}");

	(void)state;
	for (size_t i = 0; i < COUNT_OF(MOMENTS); i++) {
		struct policy_context context = device_context();
		struct policy_decision decision;

		context.now_s = MOMENTS[i].now_s;
		(void)policy_address_parse(&context.source, view_text(MOMENTS[i].source));
		if (ask(parsed, POLICY_PUBLISH, "topic/a", &context, &decision) != MOMENTS[i].want)
			fail_msg("moment %zu", i);
	}
	policy_free(parsed);
}

static void
actions_and_heads_have_their_names(void **state)
{
	static const struct {
		enum policy_action action;
		const char *region, *want;
	} HEADS[] = {
		{ POLICY_PUBLISH, "eu-central-1", "arn:aws:iot:eu-central-1:123456789012:topic/" },
		{ POLICY_SUBSCRIBE, "cn-north-1",
			"arn:aws-cn:iot:cn-north-1:123456789012:topicfilter/" },
		{ POLICY_CONNECT, "us-gov-west-1",
			"arn:aws-us-gov:iot:us-gov-west-1:123456789012:client/" },
		{ POLICY_LIST_RETAINED_MESSAGES, "eu-central-1",
			"arn:aws:iot:eu-central-1:123456789012:*" },
		{ POLICY_NO_ACTION, "eu-central-1", "" },
		{ POLICY_ACTION_COUNT, "eu-central-1", "" },
	};
	char head[POLICY_HEAD_BYTES], region[POLICY_HEAD_BYTES];

	(void)state;
	for (size_t i = 0; i < COUNT_OF(HEADS); i++) {
		size_t len = policy_resource_head(head, HEADS[i].action, view_text(HEADS[i].region),
			view_text("123456789012"));

		assert_string_equal(head, HEADS[i].want);
		assert_int_equal(len, strlen(head));
	}
	memset(region, 'x', sizeof(region));
	assert_int_equal(
		policy_resource_head(head, POLICY_PUBLISH,
			(struct view){ (uint8_t *)region, sizeof(region) }, view_text("1")),
		0);
	assert_string_equal(head, "");
	for (int action = POLICY_NO_ACTION + 1; action < POLICY_ACTION_COUNT; action++) {
		const char *name = policy_action_name((enum policy_action)action);

		assert_memory_equal(name, "iot:", 4);
		assert_int_equal(policy_action_by_name(view_text(name)), action);
	}
	assert_int_equal(policy_action_by_name(view_text("IOT:publish")), POLICY_PUBLISH);
	assert_int_equal(policy_action_by_name(view_text("iot:")), POLICY_NO_ACTION);
	assert_int_equal(policy_action_by_name((struct view){ 0 }), POLICY_NO_ACTION);
	assert_string_equal(policy_action_name(POLICY_NO_ACTION), "");
}

/* What somebody forgot to set refuses. */
static void
nothing_set_is_nothing_allowed(void **state)
{
	struct policy *parsed =
		document("{" V12 "'Statement':" ALLOW("*", "@topic/${iot:ClientId}") "}");
	static const struct policy_context EMPTY = { 0 };
	struct policy_decision decision = { 0 };
	const struct policy *const one = parsed;

	(void)state;
	assert_int_not_equal(decision.verdict, POLICY_ALLOWED);
	assert_int_equal(policy_decide(&one, 1, POLICY_PUBLISH, (struct policy_resource){ 0 },
				 &EMPTY, &decision),
		POLICY_IMPLICIT_DENY);
	assert_int_equal(
		ask(parsed, POLICY_PUBLISH, "topic/", &EMPTY, &decision), POLICY_IMPLICIT_DENY);
	policy_free(parsed);
	policy_free(NULL);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_case_is_decided_as_documented),
		cmocka_unit_test(attributes_that_differ_in_case_are_two),
		cmocka_unit_test(no_client_id_widens_a_policy),
		cmocka_unit_test(the_deciding_statement_is_named),
		cmocka_unit_test(missing_keys_are_listed_once),
		cmocka_unit_test(an_overlong_resource_is_denied),
		cmocka_unit_test(a_policy_can_be_bound_to_time_and_network),
		cmocka_unit_test(actions_and_heads_have_their_names),
		cmocka_unit_test(nothing_set_is_nothing_allowed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
