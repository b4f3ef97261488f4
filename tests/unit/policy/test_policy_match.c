/* server/iotcore/policy_match.c and policy_pattern.c: what a pattern covers, and at what cost. */
#include "server/iotcore/policy_parser.h"
#include "tests/unit/policy/fixture.h"

/* As a resource of a version 2012 document would be, but without the ARN's form. */
static struct policy_pattern
compile(struct policy *policy, struct policy_statement *statement, const char *text)
{
	struct policy_parser at = { .policy = policy, .statement = statement, .number = 1 };
	struct policy_pattern pattern;
	struct err err = { 0 };

	policy->with_variables = true;
	assert_int_equal(policy_pattern_compile(&at, &pattern, view_text(text), true, &err), OK);
	return pattern;
}

static void
wildcards_cover_what_the_guide_says(void **state)
{
	static const struct {
		const char *pattern, *text;
		bool want;
	} CASES[] = {
		{ "", "", true },
		{ "", "a", false },
		{ "a", "", false },
		{ "a", "a", true },
		{ "a", "A", false },
		{ "a", "aa", false },
		{ "aa", "a", false },
		/* "*": anything, over "/" as well, and nothing. */
		{ "*", "", true },
		{ "*", "a/b/c", true },
		{ "a*", "a", true },
		{ "a*", "a/b/c", true },
		{ "a*", "ba", false },
		{ "*a", "bca", true },
		{ "*a", "ab", false },
		{ "a*c", "abc", true },
		{ "a*c", "ac", true },
		{ "a*c", "abcd", false },
		{ "a*c", "abcc", true },
		{ "**", "x", true },
		{ "a**b", "ab", true },
		{ "*a*", "xay", true },
		{ "*a*", "xy", false },
		{ "*ab", "aab", true },
		{ "*aab", "aaab", true },
		{ "a*b*c", "a1b2b3c", true },
		{ "a*b*c", "a1c2b", false },
		{ "*.*.*", "a.b", false },
		{ "*.*.*", "a.b.c", true },
		{ "*abc*abc", "abcabc", true },
		{ "*abc*abc", "abcab", false },
		/* "?": exactly one character, of any length in octets. */
		{ "?", "", false },
		{ "?", "a", true },
		{ "?", "ab", false },
		{ "a?c", "abc", true },
		{ "a?c", "ac", false },
		{ "?", "\xc3\xa9", true },
		{ "??", "\xc3\xa9", false },
		{ "?", "\xe2\x82\xac", true },
		{ "?", "\xf0\x9f\x92\xa1", true },
		{ "*??", "\xc3\xa9", false },
		{ "*??", "a\xc3\xa9", true },
		{ "?*", "", false },
		{ "*?", "a", true },
		{ "?*?", "a", false },
		{ "?*?", "ab", true },
		{ "*?*?*", "ab", true },
		{ "*?*?*", "a", false },
		{ "a/?/b", "a/x/b", true },
		{ "a/?/b", "a//b", false },
		/* "+" and "#" are characters like others. */
		{ "a/+/b", "a/+/b", true },
		{ "a/+/b", "a/x/b", false },
		{ "a/#", "a/#", true },
		{ "a/#", "a/b", false },
		{ "a/*", "a/#", true },
		{ "a/*", "a/+/b", true },
		/* Literal wildcards, and a dollar that begins nothing. */
		{ "a${*}b", "a*b", true },
		{ "a${*}b", "axb", false },
		{ "a${?}b", "a?b", true },
		{ "a${?}b", "axb", false },
		{ "${$}aws", "$aws", true },
		{ "$aws/*", "$aws/x", true },
		{ "a$", "a$", true },
		{ "$${*}", "$*", true },
		{ "${*}*${*}", "*x*", true },
		{ "${*}*${*}", "xx*", false },
	};
	struct policy *policy =
		document("{'Statement':{'Effect':'Allow','Action':'*','Resource':'*'}}");
	struct policy_statement statement = { 0 };

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		struct policy_pattern pattern = compile(policy, &statement, CASES[i].pattern);
		struct view text = view_text(CASES[i].text);

		/* Wherever head and name meet, the answer is the same. */
		for (size_t cut = 0; cut <= text.len; cut++) {
			struct policy_resource parts = { .head = { text.data, cut },
				.name = { text.data + cut, text.len - cut } };

			if (policy_match(&pattern, parts, NULL, NULL) != CASES[i].want)
				fail_msg("'%s' on '%s', cut at %zu", CASES[i].pattern,
					CASES[i].text, cut);
		}
	}
	policy_free(policy);
}

static void
variables_stand_for_their_values_alone(void **state)
{
	static const struct {
		const char *pattern, *value, *text;
		bool escape, want;
	} CASES[] = {
		{ "a/${iot:ClientId}/b", "sn-1", "a/sn-1/b", false, true },
		{ "a/${iot:ClientId}/b", "sn-1", "a/sn-2/b", false, false },
		{ "a/${iot:ClientId}", "sn-1", "a/sn-1/b", false, false },
		{ "${iot:ClientId}", "sn-1", "sn-1", false, true },
		{ "${iot:ClientId}${iot:clientid}", "ab", "abab", false, true },
		{ "*${iot:ClientId}*", "sn-1", "x/sn-1/y", false, true },
		{ "*${iot:ClientId}", "ab", "aab", false, true },
		/* Not substituted: neither a pattern nor the literal text of the variable. */
		{ "a/${iot:ClientId}", "*", "a/x", false, false },
		{ "a/${iot:ClientId}", "*", "a/*", false, false },
		{ "a/${iot:ClientId}", "+", "a/+", false, false },
		{ "a/${iot:ClientId}", "#", "a/#", false, false },
		{ "a/${iot:ClientId}", "?", "a/?", false, false },
		{ "a/${iot:ClientId}", "$x", "a/$x", false, false },
		{ "a/${iot:ClientId}", "*", "a/${iot:ClientId}", false, false },
		/* Out of a certificate: escaped. */
		{ "a/${iot:ClientId}/b", "x,y", "a/x\\,y/b", true, true },
		{ "a/${iot:ClientId}/b", "x,y", "a/x,y/b", true, false },
		{ "a/${iot:ClientId}/b", "x,y", "a/x,y/b", false, true },
		{ "${iot:ClientId}", "\"\\=<>;", "\\\"\\\\\\=\\<\\>\\;", true, true },
		{ "${iot:ClientId}", "x,", "x\\", true, false },
		{ "${iot:ClientId}", "x,", "x\\,y", true, false },
		{ "*${iot:ClientId}", ",", "\\\\,", true, true },
	};
	struct policy *policy =
		document("{'Statement':{'Effect':'Allow','Action':'*','Resource':'*'}}");

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		struct policy_statement statement = { 0 };
		struct policy_pattern pattern = compile(policy, &statement, CASES[i].pattern);
		struct policy_value value =
			policy_value_of(view_text(CASES[i].value), CASES[i].escape);
		struct view text = view_text(CASES[i].text);

		assert_int_equal(statement.variable_count, 1);
		for (size_t cut = 0; cut <= text.len; cut++) {
			struct policy_resource parts = { .head = { text.data, cut },
				.name = { text.data + cut, text.len - cut } };

			if (policy_match(&pattern, parts, &value, NULL) != CASES[i].want)
				fail_msg("case %zu: '%s' on '%s'", i, CASES[i].pattern,
					CASES[i].text);
		}
	}
	policy_free(policy);
}

static void
values_over_1024_octets_are_not_substituted(void **state)
{
	char text[POLICY_VALUE_MAX_BYTES + 2];

	(void)state;
	memset(text, 'a', sizeof(text));
	assert_int_equal(policy_value_of((struct view){ (uint8_t *)text, 1024 }, false).state,
		POLICY_VALUE_PLAIN);
	assert_int_equal(policy_value_of((struct view){ (uint8_t *)text, 1025 }, false).state,
		POLICY_VALUE_ODD);
	text[3] = '\0';
	assert_int_equal(policy_value_of((struct view){ (uint8_t *)text, 9 }, true).state,
		POLICY_VALUE_PLAIN);
}

/* Backtracking over each star would take 2^n or n^k steps; one pass over the text for the last star
 * does not. */
static void
no_pattern_is_exponential(void **state)
{
	static const char *const PATTERNS[] = { "a*a*a*a*b", "*a*a*a*a*a*a*a*a*a*a*a*a*a*b",
		"*?*?*?*?*?*?*?*?*?*?b", "*aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab",
		"a*aaaa?aaaa*aaaa?aaab", "*a?a?a?a?a?a?a?a?a?a?a?b" };
	struct policy *policy =
		document("{'Statement':{'Effect':'Allow','Action':'*','Resource':'*'}}");
	struct policy_statement statement = { 0 };
	char text[POLICY_RESOURCE_MAX_BYTES];

	(void)state;
	memset(text, 'a', sizeof(text));
	for (size_t i = 0; i < COUNT_OF(PATTERNS); i++) {
		struct policy_pattern pattern = compile(policy, &statement, PATTERNS[i]);
		struct policy_resource resource = { .name = { (uint8_t *)text, sizeof(text) } };
		size_t steps = 0;

		assert_false(policy_match(&pattern, resource, NULL, &steps));
		assert_true(steps > 0);
		if (steps > (sizeof(text) + 1) * 2 * strlen(PATTERNS[i]))
			fail_msg("'%s': %zu steps", PATTERNS[i], steps);
	}
	policy_free(policy);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(wildcards_cover_what_the_guide_says),
		cmocka_unit_test(variables_stand_for_their_values_alone),
		cmocka_unit_test(values_over_1024_octets_are_not_substituted),
		cmocka_unit_test(no_pattern_is_exponential),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
