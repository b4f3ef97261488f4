/* server/iotcore/policy_condition.c: each operator holding, not holding, and without its key. */
#include "tests/unit/policy/fixture.h"

#define THING "iot:Connection.Thing."
#define OU "iot:Certificate.Subject.OrganizationalUnit"

/* A condition on device_context() of fixture.h: does it hold? */
static const struct {
	const char *condition;
	bool want;
} CASES[] = {
	/* Strings. */
	{ "'StringEquals':{'iot:ClientId':'sn-1'}", true },
	{ "'StringEquals':{'iot:ClientId':'SN-1'}", false },
	{ "'StringEquals':{'iot:ClientId':'sn-*'}", false }, /* literal */
	{ "'StringEquals':{'iot:ClientId':'sn-?'}", false },
	{ "'StringEquals':{'iot:ClientId':['x','sn-1']}", true }, /* values: or */
	{ "'StringEquals':{'iot:ClientId':'sn-1','aws:SourceIp':'192.0.2.7'}",
		true }, /* keys: and */
	{ "'StringEquals':{'iot:ClientId':'sn-1','aws:SourceIp':'192.0.2.8'}", false },
	{ "'StringEquals':{'iot:ClientId':'sn-1'},'Bool':{'aws:SecureTransport':'false'}", false },
	{ "'StringEquals':{'IOT:clientid':'sn-1'}", true }, /* keys in any case */
	{ "'StringEquals':{'iot:CertificateId':'0123456789abcdef'}", true },
	{ "'StringEquals':{'" THING "ThingTypeName':'sensor'}", true },
	{ "'StringEquals':{'" THING "Attributes[site]':'Hall 3'}", true },
	{ "'StringEquals':{'" THING "Attributes[Site]':'Hall 3'}", false }, /* names are not */
	{ "'StringEquals':{'missing':'x'}", false },
	{ "'StringEquals':{'" THING "Attributes[empty]':''}", false }, /* undefined, not empty */
	{ "'StringNotEquals':{'iot:ClientId':'sn-1'}", false },
	{ "'StringNotEquals':{'iot:ClientId':'sn-2'}", true },
	{ "'StringNotEquals':{'iot:ClientId':['sn-2','sn-1']}", false }, /* none may match */
	{ "'StringNotEquals':{'missing':'x'}", true },
	{ "'StringEqualsIgnoreCase':{'iot:ClientId':'Sn-1'}", true },
	{ "'StringEqualsIgnoreCase':{'iot:ClientId':'sn-2'}", false },
	{ "'StringEqualsIgnoreCase':{'missing':'x'}", false },
	{ "'StringNotEqualsIgnoreCase':{'iot:ClientId':'SN-1'}", false },
	{ "'StringNotEqualsIgnoreCase':{'iot:ClientId':'SN-2'}", true },
	{ "'StringNotEqualsIgnoreCase':{'missing':'x'}", true },
	{ "'StringLike':{'iot:ClientId':'sn-*'}", true },
	{ "'StringLike':{'iot:ClientId':'sn-?'}", true },
	{ "'StringLike':{'iot:ClientId':'s???1'}", false },
	{ "'StringLike':{'iot:ClientId':'SN-*'}", false },
	{ "'StringLike':{'missing':'*'}", false },
	{ "'StringNotLike':{'iot:ClientId':'sn-*'}", false },
	{ "'StringNotLike':{'iot:ClientId':'ab*'}", true },
	{ "'StringNotLike':{'missing':'*'}", true },
	{ "'StringEquals':{'iot:ClientId':'${" THING "ThingName}'}", true },
	{ "'StringEquals':{'iot:ClientId':'x${" THING "ThingName}'}", false },
	{ "'StringLike':{'iot:ClientId':'${" THING "ThingName}*'}", true },
	{ "'StringEquals':{'" THING "Attributes[odd]':'a*b'}", true },
	{ "'StringLike':{'" THING "Attributes[odd]':'a${*}b'}", true },
	{ "'StringEquals':{'" THING "Attributes[odd]':'${" THING "Attributes[odd]}'}", false },
	{ "'StringNotEquals':{'" THING "Attributes[odd]':'${" THING "Attributes[odd]}'}", false },
	{ "'StringEquals':{'iot:ClientId':'${missing}'}", false },
	{ "'StringNotEquals':{'iot:ClientId':'${missing}'}", false },
	{ "'StringEquals':{'" THING "Attributes[count]':42}", true },
	{ "'StringEquals':{'aws:SecureTransport':true}", true },
	/* Numbers. */
	{ "'NumericEquals':{'" THING "Attributes[count]':42}", true },
	{ "'NumericEquals':{'" THING "Attributes[count]':'42.0'}", true },
	{ "'NumericEquals':{'" THING "Attributes[count]':41.5}", false },
	{ "'NumericEquals':{'missing':1}", false },
	{ "'NumericEquals':{'iot:ClientId':1}", false }, /* no number */
	{ "'NumericNotEquals':{'" THING "Attributes[count]':42}", false },
	{ "'NumericNotEquals':{'" THING "Attributes[count]':43}", true },
	{ "'NumericNotEquals':{'missing':1}", true },
	{ "'NumericLessThan':{'" THING "Attributes[count]':42}", false },
	{ "'NumericLessThan':{'" THING "Attributes[count]':42.1}", true },
	{ "'NumericLessThan':{'missing':1}", false },
	{ "'NumericLessThanEquals':{'" THING "Attributes[count]':42}", true },
	{ "'NumericLessThanEquals':{'" THING "Attributes[count]':41}", false },
	{ "'NumericLessThanEquals':{'missing':1}", false },
	{ "'NumericGreaterThan':{'" THING "Attributes[count]':42}", false },
	{ "'NumericGreaterThan':{'" THING "Attributes[count]':-43}", true },
	{ "'NumericGreaterThan':{'iot:ClientId':-43}", false },
	{ "'NumericGreaterThan':{'missing':1}", false },
	{ "'NumericGreaterThanEquals':{'" THING "Attributes[count]':42}", true },
	{ "'NumericGreaterThanEquals':{'" THING "Attributes[count]':43}", false },
	{ "'NumericGreaterThanEquals':{'missing':1}", false },
	{ "'NumericGreaterThan':{'aws:EpochTime':1795535999}", true },
	/* Dates: it is 2026-11-24T16:00:00Z. */
	{ "'DateEquals':{'aws:CurrentTime':'2026-11-24T16:00:00Z'}", true },
	{ "'DateEquals':{'aws:CurrentTime':'2026-11-24T18:00:00+02:00'}", true },
	{ "'DateEquals':{'aws:CurrentTime':1795536000}", true },
	{ "'DateEquals':{'aws:CurrentTime':'2026-11-24'}", false },
	{ "'DateEquals':{'missing':'2026-11-24'}", false },
	{ "'DateNotEquals':{'aws:CurrentTime':'2026-11-24T16:00:00Z'}", false },
	{ "'DateNotEquals':{'aws:CurrentTime':'2026-11-24T16:00:01Z'}", true },
	{ "'DateNotEquals':{'missing':'2026-11-24'}", true },
	{ "'DateLessThan':{'aws:CurrentTime':'2026-11-24T16:00:01Z'}", true },
	{ "'DateLessThan':{'aws:CurrentTime':'2026-11-24T16:00:00Z'}", false },
	{ "'DateLessThan':{'missing':'2026-11-24'}", false },
	{ "'DateLessThanEquals':{'aws:CurrentTime':'2026-11-24T16:00Z'}", true },
	{ "'DateLessThanEquals':{'aws:CurrentTime':'2026-11-24T15:59Z'}", false },
	{ "'DateLessThanEquals':{'missing':'2026-11-24'}", false },
	{ "'DateGreaterThan':{'aws:CurrentTime':'2026-11-24'}", true },
	{ "'DateGreaterThan':{'aws:CurrentTime':'2026-11-24T16:00:00Z'}", false },
	{ "'DateGreaterThan':{'missing':'2026-11-24'}", false },
	{ "'DateGreaterThanEquals':{'aws:CurrentTime':'2026-11-24T16:00:00Z'}", true },
	{ "'DateGreaterThanEquals':{'aws:CurrentTime':'2026-11-25'}", false },
	{ "'DateGreaterThanEquals':{'missing':'2026-11-24'}", false },
	{ "'DateLessThan':{'aws:EpochTime':'2026-11-25'}", true },
	{ "'DateLessThan':{'aws:CurrentTime':'${" THING "Attributes[until]}'}", true },
	{ "'DateLessThan':{'aws:CurrentTime':'${" THING "Attributes[model]}'}",
		false }, /* no date */
	{ "'DateLessThan':{'iot:ClientId':'2026-11-25'}", false },
	{ "'DateGreaterThan':{'aws:CurrentTime':'2026-11-24T08:00:00Z'},"
	  "'DateLessThan':{'aws:CurrentTime':'2026-11-24T17:00:00Z'}",
		true },
	{ "'DateGreaterThan':{'aws:CurrentTime':'2026-11-24T17:00:00Z'},"
	  "'DateLessThan':{'aws:CurrentTime':'2026-11-24T18:00:00Z'}",
		false },
	/* Booleans. */
	{ "'Bool':{'aws:SecureTransport':true}", true },
	{ "'Bool':{'aws:SecureTransport':'TRUE'}", true },
	{ "'Bool':{'aws:SecureTransport':'false'}", false },
	{ "'Bool':{'" THING "IsAttached':['true']}", true },
	{ "'Bool':{'" THING "IsAttached':['false']}", false },
	{ "'Bool':{'iot:ClientId':'false'}", false },
	{ "'Bool':{'missing':'true'}", false },
	{ "'Bool':{'missing':'false'}", false },
	/* Addresses: it comes from 192.0.2.7. */
	{ "'IpAddress':{'aws:SourceIp':'192.0.2.7'}", true },
	{ "'IpAddress':{'aws:SourceIp':'192.0.2.0/24'}", true },
	{ "'IpAddress':{'aws:SourceIp':'192.0.2.255/24'}", true }, /* bits behind do not count */
	{ "'IpAddress':{'aws:SourceIp':'192.0.2.0/29'}", true },
	{ "'IpAddress':{'aws:SourceIp':'192.0.2.8/29'}", false },
	{ "'IpAddress':{'aws:SourceIp':'192.0.2.6/31'}", true },
	{ "'IpAddress':{'aws:SourceIp':'192.0.2.6/32'}", false },
	{ "'IpAddress':{'aws:SourceIp':'0.0.0.0/0'}", true },
	{ "'IpAddress':{'aws:SourceIp':'::/0'}", false },
	{ "'IpAddress':{'aws:SourceIp':['203.0.113.0/24','192.0.2.7/32']}", true },
	{ "'IpAddress':{'aws:SourceIp':['203.0.113.0/24','198.51.100.0/24']}", false },
	{ "'IpAddress':{'missing':'0.0.0.0/0'}", false },
	{ "'IpAddress':{'iot:ClientId':'0.0.0.0/0'}", false },
	{ "'IpAddress':{'aws:SourceIp':'${" THING "Attributes[net]}'}", true },
	{ "'IpAddress':{'aws:SourceIp':'${" THING "Attributes[home]}/32'}", true },
	{ "'IpAddress':{'aws:SourceIp':'${" THING "Attributes[model]}'}", false },
	{ "'NotIpAddress':{'aws:SourceIp':'192.0.2.0/24'}", false },
	{ "'NotIpAddress':{'aws:SourceIp':'203.0.113.0/24'}", true },
	{ "'NotIpAddress':{'aws:SourceIp':['203.0.113.0/24','192.0.2.0/24']}", false },
	{ "'NotIpAddress':{'missing':'192.0.2.0/24'}", true },
	/* ARNs: part by part. */
	{ "'ArnEquals':{'arn':'arn:aws:iot:eu-central-1:123456789012:topic/a:b'}", true },
	{ "'ArnEquals':{'arn':'arn:aws:iot:*:*:topic/*'}", true },
	{ "'ArnLike':{'arn':'arn:*:iot:*:123456789012:topic/?:b'}", true },
	{ "'ArnLike':{'arn':'*'}", true },
	{ "'ArnLike':{'arn':'arn:aws:*:*:*:thing/*'}", false },
	{ "'ArnLike':{'arn':'arn:aws:iot:eu*12:topic/a:b:'}", false }, /* no "*" over a colon */
	{ "'ArnLike':{'arn':'arn:aws:iot:${missing}:*:*'}", false },
	{ "'ArnLike':{'iot:ClientId':'arn:*:*:*:*:*'}", false },
	{ "'ArnLike':{'missing':'*'}", false },
	{ "'ArnNotEquals':{'arn':'arn:aws:iot:*:*:topic/*'}", false },
	{ "'ArnNotEquals':{'arn':'arn:aws:iot:*:*:thing/*'}", true },
	{ "'ArnNotEquals':{'missing':'*'}", true },
	{ "'ArnNotLike':{'arn':'arn:aws:iot:*:*:topic/*'}", false },
	{ "'ArnNotLike':{'arn':'arn:aws:iot:*:*:${" THING "Attributes[odd]}'}", false },
	{ "'ArnNotLike':{'missing':'*'}", true },
	/* Octets. */
	{ "'BinaryEquals':{'iot:ClientId':'c24tMQ=='}", true },
	{ "'BinaryEquals':{'iot:ClientId':'c24tMg=='}", false },
	{ "'BinaryEquals':{'missing':''}", false },
	/* Presence. */
	{ "'Null':{'iot:ClientId':'false'}", true },
	{ "'Null':{'iot:ClientId':'true'}", false },
	{ "'Null':{'missing':'true'}", true },
	{ "'Null':{'missing':'false'}", false },
	{ "'Null':{'" THING "Attributes[empty]':true}", true },
	/* IfExists. */
	{ "'StringEqualsIfExists':{'missing':'x'}", true },
	{ "'StringEqualsIfExists':{'iot:ClientId':'sn-1'}", true },
	{ "'StringEqualsIfExists':{'iot:ClientId':'x'}", false },
	{ "'StringNotEqualsIfExists':{'missing':'x'}", true },
	{ "'StringNotEqualsIfExists':{'iot:ClientId':'sn-1'}", false },
	{ "'NumericLessThanIfExists':{'missing':1}", true },
	{ "'NumericLessThanIfExists':{'" THING "Attributes[count]':1}", false },
	{ "'DateLessThanIfExists':{'missing':'2026-11-24'}", true },
	{ "'BoolIfExists':{'missing':'true'}", true },
	{ "'BoolIfExists':{'aws:SecureTransport':'false'}", false },
	{ "'IpAddressIfExists':{'missing':'192.0.2.0/24'}", true },
	{ "'IpAddressIfExists':{'aws:SourceIp':'203.0.113.0/24'}", false },
	{ "'ArnLikeIfExists':{'missing':'arn:a:b:c:d:e'}", true },
	{ "'BinaryEqualsIfExists':{'missing':'YQ=='}", true },
	/* Certificates: the first, by index, of five; .List is the set. */
	{ "'StringEquals':{'" OU "':'one'}", true },
	{ "'StringEquals':{'" OU "':'two'}", false },
	{ "'StringEquals':{'" OU ".0':'one'}", true },
	{ "'StringEquals':{'" OU ".1':'two'}", true },
	{ "'StringEquals':{'" OU ".4':'five'}", true },
	{ "'StringEquals':{'" OU ".5':'six'}", false }, /* AWS keeps five */
	{ "'Null':{'" OU ".5':'true'}", true },
	{ "'StringEquals':{'iot:Certificate.Subject.Organization':'Example, Inc.'}", true },
	{ "'StringEquals':{'iot:Certificate.Issuer.CommonName':'Issuing CA'}", true },
	{ "'StringEquals':{'iot:Certificate.SerialNumber':'0142'}", true },
	{ "'StringEquals':{'iot:Certificate.Subject.Country':'x'}", false },
	{ "'ForAnyValue:StringEquals':{'iot:Certificate.AvailableKeys':"
	  "'iot:Certificate.Subject.CommonName'}",
		true },
	{ "'ForAnyValue:StringEquals':{'iot:Certificate.AvailableKeys':"
	  "'iot:Certificate.Subject.Country'}",
		false },
	/* Sets. */
	{ "'ForAnyValue:StringEquals':{'" OU ".List':'three'}", true },
	{ "'ForAnyValue:StringEquals':{'" OU ".List':'six'}", false },
	{ "'ForAnyValue:StringEquals':{'missing':'x'}", false },
	{ "'ForAnyValue:StringNotEquals':{'" OU ".List':['one','two']}", true },
	{ "'ForAnyValue:StringNotEquals':{'" OU ".List':['one','two','three','four','five']}",
		false },
	{ "'ForAnyValue:StringNotEquals':{'missing':'x'}", false },
	{ "'ForAnyValue:StringEqualsIfExists':{'missing':'x'}", true },
	{ "'ForAllValues:StringEquals':{'" OU ".List':['one','two','three','four','five']}", true },
	{ "'ForAllValues:StringEquals':{'" OU ".List':['one','two','three','four']}", false },
	{ "'ForAllValues:StringEquals':{'missing':'x'}", true }, /* of nothing, all */
	{ "'ForAllValues:StringNotEquals':{'" OU ".List':['x','y']}", true },
	{ "'ForAllValues:StringNotEquals':{'" OU ".List':['x','three']}", false },
	{ "'ForAllValues:StringNotEquals':{'missing':'x'}", true },
	{ "'ForAllValues:StringLike':{'" OU ".List':['*e','*o','*r']}", true },
	{ "'ForAllValues:StringLike':{'" OU ".List':['*e','*o']}", false },
	{ "'ForAllValues:StringEquals':{'iot:ClientId':'sn-1'}", true },
	{ "'ForAllValues:StringEquals':{'iot:ClientId':'x'}", false },
	{ "'ForAnyValue:IpAddress':{'aws:SourceIp':'192.0.2.0/24'}", true },
	/* A set without a set operator. */
	{ "'StringEquals':{'" OU ".List':'three'}", true },
	{ "'StringNotEquals':{'" OU ".List':'three'}", false },
	{ "'StringNotEquals':{'" OU ".List':'x'}", true },
	/* Others, by name. */
	{ "'StringEquals':{'iot:DomainName':'example.com'}", true },
	{ "'StringEquals':{'iot:domainname':'example.com'}", true },
};

static const struct policy_pair OTHERS[] = {
	{ V("iot:DomainName"), V("example.com") },
	{ V("arn"), V("arn:aws:iot:eu-central-1:123456789012:topic/a:b") },
};

static struct policy *
conditional(const char *condition)
{
	char text[1024];

	(void)snprintf(text, sizeof(text),
		"{'Version':'2012-10-17','Statement':{'Effect':'Allow','Action':'iot:Publish',"
		"'Resource':'*','Condition':{%s}}}",
		condition);
	return document(text);
}

static bool
holds(const char *condition, const struct policy_context *context)
{
	struct policy *parsed = conditional(condition);
	struct policy_decision decision;
	bool allowed = ask(parsed, POLICY_PUBLISH, "topic/a", context, &decision) == POLICY_ALLOWED;

	policy_free(parsed);
	return allowed;
}

static void
each_operator_holds_when_it_should(void **state)
{
	struct policy_context context = device_context();

	(void)state;
	context.others = OTHERS;
	context.other_count = COUNT_OF(OTHERS);
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		if (holds(CASES[i].condition, &context) != CASES[i].want)
			fail_msg("%s: %s wanted", CASES[i].condition,
				CASES[i].want ? "true" : "false");
	}
}

static void
an_empty_context_has_no_keys(void **state)
{
	static const struct policy_context EMPTY = { 0 };
	static const char *const KEYS[] = { "aws:CurrentTime", "aws:EpochTime", "aws:SourceIp",
		"aws:SecureTransport", "iot:ClientId", "iot:CertificateId", "iot:ConnectAttributes",
		THING "ThingName", THING "ThingTypeName", THING "IsAttached", THING "Attributes[a]",
		"iot:Certificate.AvailableKeys", "iot:Certificate.SerialNumber", OU ".List",
		OU ".1", "iot:Other" };
	char text[256];

	(void)state;
	assert_false(holds("'DateLessThan':{'aws:CurrentTime':'2026-11-24'}", &EMPTY));
	assert_false(holds("'DateLessThan':{'aws:EpochTime':'2026-11-24'}", &EMPTY));
	assert_true(holds("'DateLessThanIfExists':{'aws:CurrentTime':'1969-01-01'}", &EMPTY));
	assert_true(holds("'IpAddressIfExists':{'aws:SourceIp':'192.0.2.0/24'}", &EMPTY));
	for (size_t i = 0; i < COUNT_OF(KEYS); i++) {
		struct policy_context device = device_context();

		(void)snprintf(text, sizeof(text), "'Null':{'%s':'true'}", KEYS[i]);
		assert_true(holds(text, &EMPTY));
		(void)snprintf(text, sizeof(text), "'StringLike':{'%s':'*'}", KEYS[i]);
		assert_false(holds(text, &EMPTY));
		(void)snprintf(
			text, sizeof(text), "'StringEquals':{'iot:ClientId':'${%s}'}", KEYS[i]);
		assert_false(holds(text, &EMPTY));
		device.connect_attributes = POLICY_CONNECT_LAST_WILL;
		(void)snprintf(text, sizeof(text), "'Null':{'%s':'false'}", KEYS[i]);
		assert_int_equal(holds(text, &device),
			strcmp(KEYS[i], "iot:Other") != 0 && strstr(KEYS[i], "[a]") == NULL);
	}
}

static void
addresses_of_both_families_are_told_apart(void **state)
{
	static const struct {
		const char *source, *network;
		bool want;
	} ADDRESSES[] = {
		{ "2001:db8::1", "2001:db8::/32", true },
		{ "2001:db9::1", "2001:db8::/32", false },
		{ "2001:db8:0:ffff::1", "2001:db8::/47", true },
		{ "2001:db8:2::1", "2001:db8::/47", false },
		{ "2001:db8::1", "2001:DB8::1", true },
		{ "2001:db8::1", "::/0", true },
		{ "2001:db8::1", "0.0.0.0/0", false },
		{ "::ffff:192.0.2.7", "192.0.2.0/24", true },
		{ "::ffff:192.0.2.7", "::/0", false },
		{ "::1", "::1/128", true },
		{ "::1", "::2/127", false },
		{ "::1", "::/127", true },
		{ "10.0.0.1", "10.0.0.0/8", true },
		{ "11.0.0.1", "10.0.0.0/8", false },
	};
	static const char *const NONE[] = { "", "192.0.2", "192.0.2.256", "192.0.2.7:1883", "[::1]",
		"fe80::1%lo", "example.com", " 192.0.2.7",
		"1234567890123456789012345678901234567890123456" };
	char text[128];

	(void)state;
	for (size_t i = 0; i < COUNT_OF(ADDRESSES); i++) {
		struct policy_context context = device_context();

		assert_true(policy_address_parse(&context.source, view_text(ADDRESSES[i].source)));
		(void)snprintf(text, sizeof(text), "'IpAddress':{'aws:SourceIp':'%s'}",
			ADDRESSES[i].network);
		if (holds(text, &context) != ADDRESSES[i].want)
			fail_msg("%s in %s", ADDRESSES[i].source, ADDRESSES[i].network);
	}
	for (size_t i = 0; i < COUNT_OF(NONE); i++) {
		struct policy_context context = device_context();

		assert_false(policy_address_parse(&context.source, view_text(NONE[i])));
		assert_int_equal(context.source.len, 0);
		/* Not known where from: no network holds it, and a Deny by NotIpAddress applies. */
		assert_false(holds("'IpAddress':{'aws:SourceIp':'0.0.0.0/0'}", &context));
		assert_true(holds("'NotIpAddress':{'aws:SourceIp':'192.0.2.0/24'}", &context));
	}
}

static void
connect_attributes_are_a_set(void **state)
{
	static const struct {
		unsigned attributes;
		const char *condition;
		bool want;
	} CONNECTS[] = {
		{ 0, "'ForAllValues:StringEquals':{'iot:ConnectAttributes':'PersistentConnect'}",
			true },
		{ 0, "'ForAnyValue:StringEquals':{'iot:ConnectAttributes':'LastWill'}", false },
		{ POLICY_CONNECT_PERSISTENT,
			"'ForAllValues:StringEquals':{'iot:ConnectAttributes':'PersistentConnect'}",
			true },
		{ POLICY_CONNECT_LAST_WILL,
			"'ForAllValues:StringEquals':{'iot:ConnectAttributes':'PersistentConnect'}",
			false },
		{ POLICY_CONNECT_PERSISTENT | POLICY_CONNECT_LAST_WILL,
			"'ForAllValues:StringEquals':{'iot:ConnectAttributes':'PersistentConnect'}",
			false },
		{ POLICY_CONNECT_PERSISTENT | POLICY_CONNECT_LAST_WILL,
			"'ForAllValues:StringEquals':{'iot:ConnectAttributes':"
			"['PersistentConnect','LastWill']}",
			true },
		{ POLICY_CONNECT_PERSISTENT | POLICY_CONNECT_LAST_WILL,
			"'ForAnyValue:StringEquals':{'iot:ConnectAttributes':'LastWill'}", true },
		{ POLICY_CONNECT_PERSISTENT,
			"'ForAnyValue:StringEquals':{'iot:ConnectAttributes':'LastWill'}", false },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CONNECTS); i++) {
		struct policy_context context = device_context();

		context.connect_attributes = CONNECTS[i].attributes;
		if (holds(CONNECTS[i].condition, &context) != CONNECTS[i].want)
			fail_msg("case %zu", i);
	}
}

static void
values_over_1024_octets_fit_nothing(void **state)
{
	char value[1025];
	struct policy_pair pair = { V("x"), { (uint8_t *)value, sizeof(value) } };
	struct policy_context context = device_context();

	(void)state;
	memset(value, 'a', sizeof(value));
	context.others = &pair;
	context.other_count = 1;
	assert_false(holds("'StringLike':{'x':'*'}", &context));
	assert_true(holds("'StringNotLike':{'x':'*'}", &context));
	pair.value.len--;
	assert_true(holds("'StringLike':{'x':'*'}", &context));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_operator_holds_when_it_should),
		cmocka_unit_test(an_empty_context_has_no_keys),
		cmocka_unit_test(addresses_of_both_families_are_told_apart),
		cmocka_unit_test(connect_attributes_are_a_set),
		cmocka_unit_test(values_over_1024_octets_fit_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
