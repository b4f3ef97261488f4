#include "tests/unit/base/test.h"

#include <string.h>

#include "server/iot/aws_profile.h"

#define KEY "aws_access_key_id"

static const struct {
	const char *text, *name;
	bool is_config;
	const char *want; /* the access key; NULL: there is none */
	bool want_found;
} GOOD[] = {
	{ "", "default", false, NULL, false },
	{ "[default]\n" KEY "=A\n", "default", false, "A", true },
	{ "[default]\n" KEY " = A ", "default", true, "A", true },
	{ "[ default ]\r\n\tx\r\n" KEY "\t=\tA\t\r\n", "default", false, "A", true },
	{ "[default]\nAWS_Access_Key_ID = A=b=\n", "default", false, "A=b=", true },
	{ "# c\n; d\n\n[one]\n" KEY "=1\n[two]\n" KEY "=2\n", "two", false, "2", true },
	{ "[profile two]\n" KEY "=2\n", "two", true, "2", true },
	{ "[profile   \"t w\"]\n" KEY "=2\n", "t w", true, "2", true },
	{ "[profile 't w']\n" KEY "=2\n", "t w", true, "2", true },
	{ "[profile\ttwo]\n" KEY "=2\n", "two", true, "2", true },
	/* The names of the other file's sections mean nothing. */
	{ "[two]\n" KEY "=2\n", "two", true, NULL, false },
	{ "[profile two]\n" KEY "=2\n", "two", false, NULL, false },
	{ "[profile default]\n" KEY "=2\n", "default", true, "2", true },
	{ "[profiletwo]\n" KEY "=2\n", "two", true, NULL, false },
	{ "[default]\n" KEY "=\n", "default", false, NULL, true },
	{ "[default]\ns3 =\n  " KEY " = nested\n" KEY "=A\n", "default", false, "A", true },
	{ "[default]\n" KEY " = A # no comment\n", "default", false, "A # no comment", true },
	{ "[default]\n" KEY "=A\n[other]\n" KEY "=B\n[default]\nregion=r\n", "default", false, "A",
		true },
	/* What is wrong in a section that nobody asked for stays its own. */
	{ "[other]\nnonsense\n[default]\n" KEY "=A\n", "default", false, "A", true },
};

static void
profiles_are_read(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(GOOD); i++) {
		struct aws_profile profile = { .found = false };
		struct err err;

		if (aws_profile_read(&profile, view_text(GOOD[i].text), GOOD[i].name,
			    GOOD[i].is_config, &err) != OK)
			fail_msg("%zu: %s", i, err.text);
		assert_int_equal(profile.found, GOOD[i].want_found);
		if (GOOD[i].want == NULL)
			assert_int_equal(profile.values[AWS_PROFILE_ACCESS_KEY].len, 0);
		else if (!view_equal_text(profile.values[AWS_PROFILE_ACCESS_KEY], GOOD[i].want))
			fail_msg("%zu: another value", i);
	}
}

static const struct {
	const char *text;
	size_t len; /* 0: up to the NUL */
	const char *want_line;
} BAD[] = {
	{ "x", 0, "line 1" },
	{ KEY "=A\n[default]\n", 0, "line 1" },
	{ "\n\n  x=y\n[default]\n", 0, "line 3" },
	{ "[default\n", 0, "line 1" },
	{ "[\n", 0, "line 1" },
	{ "[]\n", 0, "line 1" },
	{ "[default]\n[x\n", 0, "line 2" },
	{ "[default]\nno value\n", 0, "line 2" },
	{ "[default]\n=A\n", 0, "line 2" },
	{ "[default]\n = A\n\t\n  = \n=\n", 0, "line 5" },
	{ "[default]\n" KEY "=A\n" KEY "=B\n", 0, "line 3" },
	{ "[default]\n" KEY "=A\nAWS_ACCESS_KEY_ID=B\n", 0, "line 3" },
	{ "[default]\n" KEY "=A\n[o]\na=b\n[default]\n" KEY "=A\n", 0, "line 6" },
	{ "[default]\n" KEY "=A\x01" "B\n", 0, "line 2" },
	{ "[default]\n" KEY "=A\x7f\n", 0, "line 2" },
	{ "[default]\n" KEY "=A\rB\n", 0, "line 2" },
	{ "[default]\n" KEY "=A\0B\n", 32, "line 2" },
	{ "[default]\nother=\x1b[0m\n", 0, "line 2" },
	{ "\0[default]\n", 11, "line 1" },
};

static void
bad_files_are_refused_with_their_line(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(BAD); i++) {
		struct aws_profile profile = { .found = false };
		struct view text = view_text(BAD[i].text);
		struct err err;

		if (BAD[i].len > 0)
			text.len = BAD[i].len;
		if (aws_profile_read(&profile, text, "default", false, &err) != ERR_UNAUTHENTICATED)
			fail_msg("%zu: accepted", i);
		assert_string_equal(err.code, "aws_profile_malformed");
		if (strstr(err.text, BAD[i].want_line) == NULL)
			fail_msg("%zu: %s", i, err.text);
	}
}

static void
all_keys_are_known(void **state)
{
	static const char TEXT[] =
		"[default]\naws_access_key_id=0\naws_secret_access_key=1\naws_session_token=2\n"
		"role_arn=3\nsource_profile=4\ncredential_source=5\nweb_identity_token_file=6\n"
		"role_session_name=7\nexternal_id=8\nmfa_serial=9\nregion=:\n"
		"credential_process=;\nsso_start_url=<\nsso_session==\noutput=json\n";
	struct aws_profile profile = { .found = false };
	struct err err;

	(void)state;
	assert_int_equal(aws_profile_read(&profile, view_text(TEXT), "default", true, &err), OK);
	for (int i = 0; i < AWS_PROFILE_KEYS; i++) {
		assert_int_equal(profile.values[i].len, 1);
		assert_int_equal(profile.values[i].data[0], '0' + i);
	}
	/* A second file overrides what it names and leaves the rest. */
	assert_int_equal(aws_profile_read(&profile, view_text("[default]\n" KEY "=X\n"), "default",
				 false, &err),
		OK);
	assert_true(view_equal_text(profile.values[AWS_PROFILE_ACCESS_KEY], "X"));
	assert_true(view_equal_text(profile.values[AWS_PROFILE_SECRET_KEY], "1"));
}

static void
values_are_found_in_xml(void **state)
{
	static const struct {
		const char *xml, *want; /* NULL: none */
	} CASES[] = {
		{ "<A>x</A>", "x" },
		{ "<R><A>x y</A><A>z</A></R>", "x y" },
		{ "<A></A>", "" },
		{ "<A>x/+=</A>", "x/+=" },
		{ "", NULL },
		{ "<A>", NULL },
		{ "<A>x", NULL },
		{ "</A>x<A>", NULL },
		{ "<A>a&amp;b</A>", NULL },
		{ "<A><B>x</B></A>", NULL },
		{ "<A x=\"y\">z</A>", NULL },
		{ "<a>x</a>", NULL },
		{ "<AB>x</AB>", NULL },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		struct view out = { NULL, 0 };
		bool found = aws_xml_value(view_text(CASES[i].xml), "A", &out);

		if (found != (CASES[i].want != NULL) ||
			(found && !view_equal_text(out, CASES[i].want)))
			fail_msg("%s", CASES[i].xml);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(profiles_are_read),
		cmocka_unit_test(bad_files_are_refused_with_their_line),
		cmocka_unit_test(all_keys_are_known),
		cmocka_unit_test(values_are_found_in_xml),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
