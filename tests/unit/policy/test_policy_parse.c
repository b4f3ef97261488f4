/* server/iotcore/policy_parse.c and policy_operand.c: which documents are refused, and what the
 * error names. */
#include <jansson.h>

#include "base/mem.h"
#include "tests/unit/policy/fixture.h"

/* One statement around what a case is about; ' for ", @ for the head of an ARN. */
#define ONE(members) "{'Version':'2012-10-17','Statement':[{" members "}]}"
#define WITH(condition)                                                                            \
	ONE("'Effect':'Allow','Action':'iot:Publish','Resource':'*','Condition':" condition)

static const char *const GOOD[] = {
	"{'Version':'2012-10-17','Statement':{'Effect':'Allow','Action':'*','Resource':'*'}}",
	"{'Statement':[{'Effect':'Deny','NotAction':['iot:*'],'NotResource':['*']}]}",
	"{'Version':'2008-10-17','Id':'x','Statement':[{'Sid':'','Effect':'Allow',"
	"'Action':'iot:Connect','Resource':'*'}]}",
	ONE("'Sid':'Any Text','Effect':'Allow','Action':['iot:Publish','iot:Rec*'],"
	    "'Resource':['@topic/a','arn:aws:iot:*:*:topicfilter/*']"),
	ONE("'Effect':'Allow','Action':'IOT:publish','Resource':'@topic/${iot:ClientId}'"),
	ONE("'Effect':'Allow','Action':'greengrass:*','Resource':'arn:aws:greengrass:::x'"),
	ONE("'Effect':'Allow','Action':'iot:CreateThing','Resource':'*'"),
	ONE("'Effect':'Allow','Action':'iot:*','Resource':'@topic/$aws/things/${$}{x'"),
	ONE("'Effect':'Allow','Action':'iot:*','Resource':'arn:${aws:x}:iot:${iot:ClientId}:1:t'"),
	ONE("'Effect':'Allow','Action':'iot:*','Resource':'*','Condition':{}"),
	WITH("{'Bool':{'aws:SecureTransport':true}}"),
	WITH("{'NumericEquals':{'a':[1,-2,'3.5',4.25]}}"),
	WITH("{'DateLessThan':{'aws:CurrentTime':['2026-11-24','2026-11-24T16:00Z',"
	     "'2026-11-24T16:00:00.5+02:00',1795536000,'1795536000']}}"),
	WITH("{'IpAddress':{'aws:SourceIp':['192.0.2.7','192.0.2.0/24','2001:db8::/"
	     "32','::1','0.0.0.0/0']}}"),
	WITH("{'ArnLike':{'aws:SourceArn':['*','arn:aws:iot:*:*:topic/"
	     "*','arn:a:b:${iot:ClientId}:c:d:e']}}"),
	WITH("{'BinaryEquals':{'x':['','YQ==','YWI=','YWJj']}}"),
	WITH("{'Null':{'x':'true','y':false}}"),
	WITH("{'ForAllValues:StringEqualsIfExists':{'x':'${iot:ClientId}'}}"),
	WITH("{'DateLessThan':{'aws:CurrentTime':'${iot:Connection.Thing.Attributes[until]}'}}"),
	/* Escapes: the strings that were read are as long as those that were sent. */
	ONE("'Sid':'\\u0041\\u00e9\\u20ac\\ud83d\\udca1\\n\\\\\\/','Effect':'Allow',"
	    "'Action':'iot:\\u0050ublish','Resource':'@topic/\xc3\xa9'"),
	/* The old version knows no variables: "${" is text. */
	"{'Statement':{'Effect':'Allow','Action':'iot:Publish','Resource':'@topic/${not closed'}}",
};

static void
what_the_language_allows_is_read(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(GOOD); i++)
		policy_free(document(GOOD[i]));
}

#define EFFECT "'Effect':'Allow',"
#define REST "'Action':'iot:Publish','Resource':'*'"

static const struct {
	const char *document;
	const char *want; /* in the text */
} BAD[] = {
	/* What is no document. */
	{ "", "JSON" },
	{ "x", "JSON" },
	{ "null", "JSON" },
	{ "'text'", "JSON" },
	{ "[]", "policy: an object wanted" },
	{ "{}", "Statement: a statement or a list" },
	{ "{'Statement':[]}", "1 to 128 statements wanted, 0 found" },
	{ "{'Statement':'x'}", "Statement: a statement or a list" },
	{ "{'Statement':[[]]}", "statement 1: an object wanted" },
	{ "{'Statement':[{" EFFECT REST "},1]}", "statement 2: an object wanted" },
	{ "{'Statement':{" EFFECT REST "}} x", "JSON" },
	{ "{'Statement':{" EFFECT REST "},'Statement':{" EFFECT REST "}}", "stands twice" },
	{ "{'Statement':{" EFFECT EFFECT REST "}}", "stands twice" },
	{ "{'Statement':{" EFFECT REST "},'Stmt':1}", "no member 'Stmt' known" },
	{ "{'statement':{" EFFECT REST "}}", "no member 'statement' known" },
	{ "{'Id':1,'Statement':{" EFFECT REST "}}", "Id: a text wanted" },
	{ "{'Version':'2012-10-18','Statement':{" EFFECT REST "}}", "Version: 2012-10-17 or" },
	{ "{'Version':2012,'Statement':{" EFFECT REST "}}", "Version: 2012-10-17 or" },
	{ "{'Version':null,'Statement':{" EFFECT REST "}}", "Version: 2012-10-17 or" },
	{ "{'Statement':{'x':{'x':{'x':{'x':{'x':{'x':{'x':{}}}}}}}}}", "at most 8 levels" },
	{ "{'Statement':{" EFFECT "'Action':'iot:\xff','Resource':'*'}}", "JSON in UTF-8" },
	{ "{'Statement':{" EFFECT "'Action':'iot:\\u0000','Resource':'*'}}", "JSON in UTF-8" },
	{ "{'Statement':{" EFFECT REST ",'x':1234567890123456}}", "numbers of at most 15" },
	/* Statements. */
	{ ONE("'Sid':1," EFFECT REST), "statement 1: Sid: a text wanted" },
	{ ONE("'Sid':'s1'," REST), "statement 1 (Sid 's1'): Effect: wanted, not found" },
	{ ONE("'Effect':'allow'," REST), "Effect: Allow or Deny wanted, 'allow' found" },
	{ ONE("'Effect':'DENY'," REST), "Allow or Deny wanted, 'DENY' found" },
	{ ONE("'Effect':true," REST), "Allow or Deny wanted" },
	{ ONE(EFFECT REST ",'Principal':'*'"), "Principal: the principal is who" },
	{ ONE(EFFECT REST ",'NotPrincipal':{'AWS':'1'}"), "NotPrincipal: the principal is who" },
	{ ONE(EFFECT REST ",'effect':'Deny'"), "no member 'effect' known" },
	{ ONE(EFFECT REST ",'Conditions':{}"), "no member 'Conditions' known" },
	/* Actions. */
	{ ONE(EFFECT "'Resource':'*'"), "Action: wanted, not found" },
	{ ONE(EFFECT REST ",'NotAction':'iot:Publish'"), "either it or NotAction wanted" },
	{ ONE(EFFECT "'Action':[],'Resource':'*'"), "Action: a text wanted, an empty list" },
	{ ONE(EFFECT "'NotAction':[],'Resource':'*'"), "NotAction: a text wanted, an empty list" },
	{ ONE(EFFECT "'Action':1,'Resource':'*'"), "Action: a text or a list" },
	{ ONE(EFFECT "'Action':['iot:Publish',1],'Resource':'*'"), "Action: a text or a list" },
	{ ONE(EFFECT "'Action':[['iot:Publish']],'Resource':'*'"), "Action: a text or a list" },
	{ ONE(EFFECT "'Action':'','Resource':'*'"), "an action of iot or * wanted, ''" },
	{ ONE(EFFECT "'Action':'Publish','Resource':'*'"), "wanted, 'Publish' found" },
	{ ONE(EFFECT "'Action':'iot:','Resource':'*'"), "wanted, 'iot:' found" },
	{ ONE(EFFECT "'Action':'s3:GetObject','Resource':'*'"), "wanted, 's3:GetObject' found" },
	{ ONE(EFFECT "'Action':'iotx:Publish','Resource':'*'"), "wanted, 'iotx:Publish' found" },
	{ ONE(EFFECT "'Action':'iot*','Resource':'*'"), "wanted, 'iot*' found" },
	{ ONE(EFFECT "'Action':'*:*','Resource':'*'"), "wanted, '*:*' found" },
	{ ONE(EFFECT "'Action':' iot:Publish','Resource':'*'"), "wanted, ' iot:Publish' found" },
	{ ONE(EFFECT "'Action':'iot:Pub lish','Resource':'*'"), "wanted, 'iot:Pub lish' found" },
	{ ONE(EFFECT "'Action':'iot:${iot:ClientId}','Resource':'*'"), "an action of iot" },
	/* Resources. */
	{ ONE(EFFECT "'Action':'iot:Publish'"), "Resource: wanted, not found" },
	{ ONE(EFFECT REST ",'NotResource':'*'"), "either it or NotResource wanted" },
	{ ONE(EFFECT "'Action':'iot:*','Resource':[]"), "Resource: a text wanted, an empty list" },
	{ ONE(EFFECT "'Action':'iot:*','NotResource':[]"), "NotResource: a text wanted" },
	{ ONE(EFFECT "'Action':'iot:*','Resource':{}"), "Resource: a text or a list" },
	{ ONE(EFFECT "'Action':'iot:*','Resource':['*',null]"), "Resource: a text or a list" },
	{ ONE(EFFECT "'Action':'iot:*','Resource':''"), "an ARN of six parts or *" },
	{ ONE(EFFECT "'Action':'iot:*','Resource':'topic/a'"), "wanted, 'topic/a' found" },
	{ ONE(EFFECT "'Action':'iot:*','Resource':'arn:aws:iot:x:topic/a'"), "six parts" },
	{ ONE(EFFECT "'Action':'iot:*','Resource':'arn:aws:iot:${iot:ClientId}:a'"), "six parts" },
	{ ONE(EFFECT "'Action':'iot:*','Resource':'*:aws:iot:a:b:c'"), "six parts" },
	{ ONE(EFFECT "'Action':'iot:*','Resource':'**'"), "six parts" },
	{ ONE(EFFECT "'Action':'iot:*','Resource':'@topic/${iot:ClientId'"), "'${' without '}'" },
	{ ONE(EFFECT "'Action':'iot:*','Resource':'@topic/${}'"), "no name of a variable" },
	{ ONE(EFFECT "'Action':'iot:*','Resource':'@topic/${ x }'"), "no name of a variable" },
	{ ONE(EFFECT "'Action':'iot:*','Resource':'@topic/${**}'"), "no name of a variable" },
	{ ONE(EFFECT "'Action':'iot:*','Resource':'@topic/${${a}}'"), "no name of a variable" },
	{ ONE(EFFECT "'Action':'iot:*','Resource':'@topic/${a, b}'"), "no name of a variable" },
	{ ONE(EFFECT "'Action':'iot:*','Resource':'@topic/${iot:Connection.Thing.Attributes[]}'"),
		"no name of a variable" },
	{ ONE(EFFECT "'Action':'iot:*','Resource':'@${a}${b}${c}${d}${e}${f}${g}${h}${i}${j}${k}"
		     "${l}${m}${n}${o}${p}${q}'"),
		"at most 16 different variables" },
	/* Conditions. */
	{ WITH("[]"), "Condition: an object of operators wanted" },
	{ WITH("{'StringEqual':{'x':'y'}}"), "Condition: StringEqual: no such operator" },
	{ WITH("{'stringEquals':{'x':'y'}}"), "no such operator" },
	{ WITH("{'ForSomeValues:StringEquals':{'x':'y'}}"), "no such operator" },
	{ WITH("{'StringEquals:ForAllValues':{'x':'y'}}"), "no such operator" },
	{ WITH("{'IfExists':{'x':'y'}}"), "no such operator" },
	{ WITH("{'':{'x':'y'}}"), "no such operator" },
	{ WITH("{'NullIfExists':{'x':'true'}}"), "no such operator" },
	{ WITH("{'ForAnyValue:Null':{'x':'true'}}"), "no such operator" },
	{ WITH("{'BoolNot':{'x':'true'}}"), "no such operator" },
	{ WITH("{'StringEquals':{}}"), "StringEquals: an object of condition keys" },
	{ WITH("{'StringEquals':'x'}"), "an object of condition keys wanted" },
	{ WITH("{'StringEquals':{'':'y'}}"), "no name of a condition key" },
	{ WITH("{'StringEquals':{'a b':'y'}}"), "no name of a condition key" },
	{ WITH("{'StringEquals':{'${iot:ClientId}':'y'}}"), "no name of a condition key" },
	{ WITH("{'StringEquals':{'x':[]}}"), "StringEquals: x: a value wanted, an empty list" },
	{ WITH("{'StringEquals':{'x':null}}"), "StringEquals: x: a text wanted" },
	{ WITH("{'StringEquals':{'x':{'y':1}}}"), "a text wanted" },
	{ WITH("{'StringEquals':{'x':[['y']]}}"), "a text wanted" },
	{ WITH("{'StringLike':{'x':'${iot:ClientId'}}"), "'${' without '}'" },
	{ WITH("{'NumericEquals':{'x':'one'}}"), "a decimal number of at most 15 digits wanted" },
	{ WITH("{'NumericEquals':{'x':''}}"), "a decimal number" },
	{ WITH("{'NumericEquals':{'x':'1e3'}}"), "a decimal number" },
	{ WITH("{'NumericEquals':{'x':'1.'}}"), "a decimal number" },
	{ WITH("{'NumericEquals':{'x':'.5'}}"), "a decimal number" },
	{ WITH("{'NumericEquals':{'x':'-'}}"), "a decimal number" },
	{ WITH("{'NumericEquals':{'x':'1234567890123456'}}"), "a decimal number" },
	{ WITH("{'NumericEquals':{'x':true}}"), "a decimal number" },
	{ WITH("{'DateEquals':{'x':'yesterday'}}"), "a date such as" },
	{ WITH("{'DateEquals':{'x':'2026-02-30'}}"), "a date such as" },
	{ WITH("{'DateEquals':{'x':'2026-11-24 16:00:00Z'}}"), "a date such as" },
	{ WITH("{'DateEquals':{'x':'2026-11-24T16:00:00'}}"), "a date such as" },
	{ WITH("{'DateEquals':{'x':'2026-11-24T16:0Z'}}"), "a date such as" },
	{ WITH("{'Bool':{'x':'yes'}}"), "true or false wanted, 'yes' found" },
	{ WITH("{'Bool':{'x':1}}"), "true or false wanted, '1' found" },
	{ WITH("{'Null':{'x':'${iot:ClientId}'}}"), "true or false wanted, a variable" },
	{ WITH("{'IpAddress':{'aws:SourceIp':'192.0.2'}}"), "an address or a network such as" },
	{ WITH("{'IpAddress':{'aws:SourceIp':'192.0.2.0/33'}}"), "an address or a network" },
	{ WITH("{'IpAddress':{'aws:SourceIp':'192.0.2.0/'}}"), "an address or a network" },
	{ WITH("{'IpAddress':{'aws:SourceIp':'192.0.2.0/0024'}}"), "an address or a network" },
	{ WITH("{'IpAddress':{'aws:SourceIp':'192.0.2.0/24x'}}"), "an address or a network" },
	{ WITH("{'IpAddress':{'aws:SourceIp':'192.0.2.0/-1'}}"), "an address or a network" },
	{ WITH("{'IpAddress':{'aws:SourceIp':'2001:db8::/129'}}"), "an address or a network" },
	{ WITH("{'IpAddress':{'aws:SourceIp':'::ffff:192.0.2.0/120'}}"),
		"an address or a network" },
	{ WITH("{'IpAddress':{'aws:SourceIp':'localhost'}}"), "an address or a network" },
	{ WITH("{'IpAddress':{'aws:SourceIp':''}}"), "an address or a network" },
	{ WITH("{'ArnLike':{'x':'arn:aws:iot:x'}}"), "an ARN of six parts or *" },
	{ WITH("{'ArnEquals':{'x':'**'}}"), "an ARN of six parts or *" },
	{ WITH("{'BinaryEquals':{'x':'a'}}"), "base64 wanted" },
	{ WITH("{'BinaryEquals':{'x':'YR=='}}"), "base64 wanted" },
	{ WITH("{'BinaryEquals':{'x':'===='}}"), "base64 wanted" },
	{ WITH("{'BinaryEquals':{'x':'YW=j'}}"), "base64 wanted" },
};

static void
each_refusal_names_statement_and_rule(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(BAD); i++) {
		struct policy *parsed = NULL;
		struct err err = { 0 };
		enum status status = document_parse(&parsed, BAD[i].document, &err);

		if (status != ERR_ARGUMENT || strcmp(err.code, "malformed_policy") != 0 ||
			strstr(err.text, BAD[i].want) == NULL)
			fail_msg("%s\nwanted: %s\nfound: %s %s %s", BAD[i].document, BAD[i].want,
				status_name(status), err.code, err.text);
		assert_null(parsed);
	}
}

static char *
repeated(const char *head, const char *item, const char *between, size_t count, const char *tail)
{
	size_t bytes = strlen(head) + count * (strlen(item) + strlen(between)) + strlen(tail) + 1;
	char *text = test_malloc(bytes);
	size_t len = (size_t)snprintf(text, bytes, "%s", head);

	for (size_t i = 0; i < count; i++)
		len += (size_t)snprintf(
			text + len, bytes - len, "%s%s", i > 0 ? between : "", item);
	(void)snprintf(text + len, bytes - len, "%s", tail);
	return text;
}

#define STATEMENT "{'Effect':'Allow','Action':'*','Resource':'*'}"

static void
every_count_has_its_limit(void **state)
{
	static const struct {
		const char *head, *item, *between, *tail;
		size_t max;
		const char *want;
	} CASES[] = {
		{ "{'Statement':[", STATEMENT, ",", "]}", POLICY_STATEMENTS_MAX,
			"1 to 128 statements" },
		{ "{'Statement':{'Effect':'Deny','Action':'*','Resource':[", "'*'", ",", "]}}",
			POLICY_PATTERNS_MAX - 1, "at most 1024 values" },
		{ "{'Statement':{'Effect':'Deny','Action':'*','Resource':'*','Condition':{"
		  "'BinaryEquals':{'x':[",
			"''", ",", "]}}}}", POLICY_PATTERNS_MAX - 2, "at most 1024 values" },
		{ "{'Statement':{'Effect':'Deny','Action':'*','Resource':'arn:::::", "*", "", "'}}",
			POLICY_PATTERN_MAX_BYTES - 8, "at most 2048 octets" },
		{ "", " ", "", "{'Statement':" STATEMENT "}",
			POLICY_DOCUMENT_MAX_BYTES - sizeof("{'Statement':" STATEMENT "}") + 1,
			"at most 404600 octets" },
		{ "{'Statement':[", "0", ",", "]}", 16384 - 2, "1 to 128 statements" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		bool fits = i + 1 < COUNT_OF(CASES);

		for (size_t over = 0; over < 2; over++) {
			char *text = repeated(CASES[i].head, CASES[i].item, CASES[i].between,
				CASES[i].max + over, CASES[i].tail);
			struct policy *parsed = NULL;
			struct err err = { 0 };
			enum status status = document_parse(&parsed, text, &err);

			if (over == 0 && fits)
				assert_int_equal(status, OK);
			else
				assert_int_equal(status, ERR_ARGUMENT);
			if (status != OK &&
				strstr(err.text, over == 1 && !fits ? "at most 16384 values"
								    : CASES[i].want) == NULL)
				fail_msg("case %zu: %s", i, err.text);
			policy_free(parsed);
			test_free(text);
		}
	}
}

static void
a_deep_document_does_not_recurse(void **state)
{
	char *text = repeated("", "[", "", POLICY_DOCUMENT_MAX_BYTES, "");
	struct policy *parsed = NULL;
	struct err err = { 0 };

	(void)state;
	assert_int_equal(policy_parse(&parsed, view_text(text), &err), ERR_ARGUMENT);
	assert_non_null(strstr(err.text, "at most 8 levels"));
	test_free(text);
}

static void
white_space_is_not_counted(void **state)
{
	(void)state;
	assert_int_equal(policy_document_chars(view_text("")), 0);
	assert_int_equal(policy_document_chars(view_text(" {\t\n\r} ")), 2);
	assert_int_equal(
		policy_document_chars(view_text("{\"a\" : \"\xc3\xa9 \xe2\x82\xac\"}")), 10);
}

/* An error's text is fit for a terminal and a JSON answer. */
static void
what_is_shown_is_printable(void **state)
{
	struct policy *parsed = NULL;
	struct err err = { 0 };

	(void)state;
	assert_int_equal(document_parse(&parsed,
				 ONE("'Sid':'\\u001b[31m','Effect':'\xc3\xa9\\n'," REST), &err),
		ERR_ARGUMENT);
	assert_string_equal(err.text,
		"policy: statement 1 (Sid '?[31m'): Effect: Allow or Deny wanted, '"
		"?"
		"?"
		"?' found");
}

static const char ALL_MEMBERS[] =
	"{'Version':'2012-10-17','Statement':[{'Sid':'a','Effect':'Allow','Action':'iot:*',"
	"'Resource':['@topic/${iot:ClientId}/*','*']},{'Effect':'Deny','NotAction':'iot:Connect',"
	"'NotResource':'*','Condition':{'StringLike':{'x':['y*','${a}']},'ArnLike':{'x':'@x'},"
	"'BinaryEquals':{'x':'YQ=='},'IpAddress':{'aws:SourceIp':'192.0.2.0/24'},"
	"'ForAnyValue:StringEquals':{'iot:Certificate.Subject.Organization.List':['a','b']}}}]}";

/* Fails each allocation in turn; how many there are. */
static int64_t
fail_each(bool exact)
{
	char *text = document_text(ALL_MEMBERS);
	bool reached = true;
	int64_t count = 0;

	for (; reached; count++) {
		struct policy *parsed = NULL;
		struct err err = { 0 };

		mem_fail_at(count);
		enum status status = policy_parse(&parsed, view_text(text), &err);
		reached = mem_failed();
		mem_fail_at(-1);
		if ((status == OK) != !reached || (exact && reached && status != ERR_UNAVAILABLE))
			fail_msg("allocation %lld: %s %s", (long long)count, status_name(status),
				status == OK ? "" : err.text);
		assert_int_equal(parsed != NULL, !reached);
		policy_free(parsed);
	}
	test_free(text);
	return count;
}

static void
each_allocation_may_fail(void **state)
{
	json_malloc_t jansson_alloc;
	json_free_t jansson_free;

	(void)state;
	assert_in_range(fail_each(true), 3, 40);
	/* With jansson's among them. It calls some of its own failures bad syntax: refused,
	 * whatever it is. */
	json_get_alloc_funcs(&jansson_alloc, &jansson_free);
	json_set_alloc_funcs(mem_alloc, mem_free);
	assert_in_range(fail_each(false), 100, 1000);
	json_set_alloc_funcs(jansson_alloc, jansson_free);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_the_language_allows_is_read),
		cmocka_unit_test(each_refusal_names_statement_and_rule),
		cmocka_unit_test(every_count_has_its_limit),
		cmocka_unit_test(a_deep_document_does_not_recurse),
		cmocka_unit_test(white_space_is_not_counted),
		cmocka_unit_test(what_is_shown_is_printable),
		cmocka_unit_test(each_allocation_may_fail),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
