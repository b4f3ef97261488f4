#include "tests/unit/base/test.h"

#include <stdio.h>
#include <string.h>

#include "server/iotcore/rule_sql.h"

/* ---- SQL ---- */

static void
select_all_of_a_filter_is_understood(void **state)
{
	static const struct {
		const char *sql;
		const char *want_topic; /* NULL: refused */
		const char *want_why;
	} CASES[] = {
		{ "SELECT * FROM 'a/b'", "a/b", NULL },
		{ " select\t*\nfrom \r\"a/+/c\"\n", "a/+/c", NULL },
		{ "SELECT*FROM'#'", "#", NULL },
		{ "SELECT * FROM '$aws/events/certificates/registered/+'",
			"$aws/events/certificates/registered/+", NULL },
		{ "SELECT * FROM 'a/b/c/d/e/f/g/h'", "a/b/c/d/e/f/g/h", NULL },
		{ "SELECT * FROM '/'", "/", NULL },
		{ "", NULL, "only SELECT" },
		{ "SELECT", NULL, "only SELECT" },
		{ "SELECT * FROM", NULL, "only SELECT" },
		{ "SELECT a FROM 'b'", NULL, "only SELECT" },
		{ "SELECT * FROM 'a' WHERE 1 = 1", NULL, "only SELECT" },
		{ "SELECT * FROM 'a\"", NULL, "only SELECT" },
		{ "SELECT * FROM ''", NULL, "empty" },
		{ "SELECT * FROM 'a/#/b'", NULL, "# must be" },
		{ "SELECT * FROM 'a#'", NULL, "# must be" },
		{ "SELECT * FROM '##'", NULL, "# must be" },
		{ "SELECT * FROM 'a/+b'", NULL, "+ must be" },
		{ "SELECT * FROM 'a/b/c/d/e/f/g/h/i'", NULL, "7 slashes" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
		char topic[RULE_TOPIC_BYTES] = "";
		const char *why = NULL;
		bool parsed = rule_sql_parse(topic, CASES[i].sql, &why);

		if (CASES[i].want_topic != NULL) {
			assert_true(parsed);
			assert_string_equal(topic, CASES[i].want_topic);
			continue;
		}
		assert_false(parsed);
		if (strstr(why, CASES[i].want_why) == NULL)
			fail_msg("%s: %s wanted, found: %s", CASES[i].sql, CASES[i].want_why, why);
	}
}

static void
a_filter_has_at_most_256_octets(void **state)
{
	char sql[400];
	char topic[RULE_TOPIC_BYTES];
	const char *why;

	(void)state;
	(void)snprintf(sql, sizeof(sql), "SELECT * FROM '%0256d'", 0);
	assert_true(rule_sql_parse(topic, sql, &why));
	assert_int_equal(strlen(topic), 256);
	(void)snprintf(sql, sizeof(sql), "SELECT * FROM '%0257d'", 0);
	assert_false(rule_sql_parse(topic, sql, &why));
	assert_non_null(strstr(why, "256"));
}

/* ---- topics ---- */

static void
filters_match_as_in_aws(void **state)
{
	static const struct {
		const char *filter, *topic;
		bool want;
	} CASES[] = {
		{ "a", "a", true },         { "a", "b", false },        { "a", "a/b", false },
		{ "a/b", "a", false },      { "a/+", "a/b", true },     { "a/+", "a/b/c", false },
		{ "+", "a", true },         { "+", "", true },          { "+/b", "a/b", true },
		{ "a/+/c", "a//c", true },  { "a/#", "a/b/c", true },   { "a/#", "a/", true },
		/* Other than in MQTT. */
		{ "a/#", "a", false },      { "#", "a/b", true },       { "#", "$aws/x", false },
		{ "+/x", "$aws/x", false }, { "$aws/#", "$aws/x", true }, { "$aws/+", "$aws/x", true },
		{ "a/b", "a/bc", false },   { "a/bc", "a/b", false },   { "a/", "a", false },
		{ "a", "a/", false },       { "A", "a", false },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++)
		if (rule_topic_matches(CASES[i].filter, CASES[i].topic) != CASES[i].want)
			fail_msg("%s and %s: %d wanted", CASES[i].filter, CASES[i].topic, CASES[i].want);
}

/* ---- URLs ---- */

static void
a_confirmed_url_covers_what_is_beside_and_below_it(void **state)
{
	static const struct {
		const char *confirmed, *url;
		bool want;
	} CASES[] = {
		{ "https://a/b", "https://a/b", true },
		{ "https://a/b", "https://a/c", true },
		{ "https://a/b/c", "https://a/b/d/e", true },
		{ "https://a/b/c", "https://a/d", false },
		{ "https://a/b?x=/y/z", "https://a/c", true },
		{ "https://a", "https://a/b", true },
		{ "https://a", "https://a?b", true },
		{ "https://a", "https://a.evil/b", false },
		{ "https://a", "https://a:8443/b", false },
		{ "https://a:8443", "https://a:8443/b", true },
		{ "https://a/", "https://b/", false },
		{ "https://a/b", "http://a/b", false },
		{ "x", "x", false },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++)
		if (rule_url_covers(CASES[i].confirmed, CASES[i].url) != CASES[i].want)
			fail_msg("%s and %s: %d wanted", CASES[i].confirmed, CASES[i].url, CASES[i].want);
}

static void
only_https_and_this_machine_are_sent_to(void **state)
{
	static const struct {
		const char *url;
		bool loopback_http;
		const char *want; /* NULL: fine */
	} CASES[] = {
		{ "https://host", false, NULL },
		{ "HTTPS://host:8443/a?b=c", false, NULL },
		{ "https://[2001:db8::1]:443/", false, NULL },
		{ "http://127.0.0.1:80/", true, NULL },
		{ "http://[::1]/", true, NULL },
		{ "http://localhost", true, NULL },
		{ "http://127.0.0.1:80/", false, "https://" },
		{ "http://host/", true, "this machine" },
		{ "http://127.0.0.1.host/", true, "this machine" },
		{ "http://localhosted/", true, "this machine" },
		{ "http://user@127.0.0.1/", true, "user" },
		{ "http://127.0.0.1@host/", true, "user" },
		{ "ftp://127.0.0.1/", true, "https://" },
		{ "", true, "https://" },
		{ "https://", false, "host" },
		{ "https://:443/", false, "host" },
		{ "https://host:/", false, "host" },
		{ "https://host:1234567/", false, "host" },
		{ "https://host:4a/", false, "host" },
		{ "https://[::1/", false, "host" },
		{ "https://[::1]x/", false, "host" },
		{ "https://host/a b", false, "spaces" },
		{ "https://host/\xc3\xbc", false, "ASCII" },
		{ "https://host/\n", false, "spaces" },
		{ "https://host/#a", false, "fragment" },
		{ "https://host/${topic()}", false, "templates" },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(CASES) / sizeof(CASES[0]); i++) {
		const char *fault = rule_url_fault(CASES[i].url, CASES[i].loopback_http);

		if ((fault == NULL) != (CASES[i].want == NULL))
			fail_msg("%s: %s wanted, found: %s", CASES[i].url,
				CASES[i].want != NULL ? CASES[i].want : "no fault",
				fault != NULL ? fault : "no fault");
		if (fault != NULL && strstr(fault, CASES[i].want) == NULL)
			fail_msg("%s: %s wanted, found: %s", CASES[i].url, CASES[i].want, fault);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(select_all_of_a_filter_is_understood),
		cmocka_unit_test(a_filter_has_at_most_256_octets),
		cmocka_unit_test(filters_match_as_in_aws),
		cmocka_unit_test(a_confirmed_url_covers_what_is_beside_and_below_it),
		cmocka_unit_test(only_https_and_this_machine_are_sent_to),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
