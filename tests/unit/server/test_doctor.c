/* What the doctor makes of numbers. */
#include "server/doctor.h"

#include <string.h>

#include "base/clock.h"
#include "tests/unit/base/test.h"

#define NOW_S INT64_C(1795600000) /* 2026-11-25, a Wednesday */
#define DAY_S INT64_C(86400)
#define GIB (UINT64_C(1) << 30)

static const char *
member(const struct doctor *doctor, size_t i, const char *name)
{
	const char *text = json_string_value(json_object_get(json_array_get(doctor->findings, i), name));

	return text != NULL ? text : "";
}

static void
begin(struct doctor *doctor)
{
	struct err err;

	assert_int_equal(doctor_begin(doctor, &err), OK);
}

/* One finding of that severity, which says what to do unless all is well. */
static void
expect(const struct doctor *doctor, const char *severity, const char *contains)
{
	assert_int_equal(json_array_size(doctor->findings), 1);
	assert_string_equal(member(doctor, 0, "severity"), severity);
	if (strstr(member(doctor, 0, "finding"), contains) == NULL)
		fail_msg("'%s' wanted in '%s'", contains, member(doctor, 0, "finding"));
	assert_true((strcmp(severity, "ok") == 0) == (member(doctor, 0, "what_to_do")[0] == '\0'));
}

static void
the_worst_decides_the_exit_status(void **state)
{
	static const struct {
		enum doctor_severity said[3];
		int want;
	} CASES[] = {
		{ { DOCTOR_OK, DOCTOR_OK, DOCTOR_OK }, 0 },
		{ { DOCTOR_OK, DOCTOR_NOTE, DOCTOR_OK }, 0 },
		{ { DOCTOR_UNKNOWN, DOCTOR_NOTE, DOCTOR_OK }, 3 },
		{ { DOCTOR_UNKNOWN, DOCTOR_WARNING, DOCTOR_OK }, 1 },
		{ { DOCTOR_ERROR, DOCTOR_WARNING, DOCTOR_UNKNOWN }, 2 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		own_struct(doctor) doctor = { .findings = NULL };

		begin(&doctor);
		for (size_t k = 0; k < 3; k++)
			doctor_say(&doctor, CASES[i].said[k], "check", NULL, "text");
		assert_int_equal(doctor_exit_status(doctor.worst), CASES[i].want);
		assert_int_equal(json_array_size(doctor.findings), 3);
	}
	assert_int_equal(doctor_exit_status(DOCTOR_UNSET), 3); /* nothing was checked */
}

static void
severities_have_names(void **state)
{
	enum doctor_severity parsed;

	(void)state;
	for (unsigned i = DOCTOR_OK; i < DOCTOR_SEVERITIES; i++) {
		assert_true(doctor_severity_parse(&parsed, doctor_severity_name((enum doctor_severity)i)));
		assert_int_equal(parsed, i);
	}
	assert_false(doctor_severity_parse(&parsed, "unset"));
	assert_false(doctor_severity_parse(&parsed, "fine"));
}

static void
foreign_octets_do_not_lose_a_finding(void **state)
{
	own_struct(doctor) doctor = { .findings = NULL };
	struct err err;

	(void)state;
	begin(&doctor);
	doctor_say(&doctor, DOCTOR_NOTE, "check", "Look.", "caf\xe9 closed");
	expect(&doctor, "note", "caf? closed");
	assert_int_equal(doctor_complete(&doctor, &err), OK);
}

static void
ends_are_judged_by_what_is_left(void **state)
{
	static const struct {
		int64_t left_s;
		const char *want, *says;
	} CASES[] = {
		{ 31 * DAY_S, "ok", "valid until" },
		{ 30 * DAY_S - 1, "warning", "in 29 days" },
		{ 1, "warning", "in 0 days" },
		{ 0, "error", "ended at" },
		{ -DAY_S, "error", "ended at" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		own_struct(doctor) doctor = { .findings = NULL };

		begin(&doctor);
		doctor_judge_end(&doctor, "ca_end", "it", NOW_S + CASES[i].left_s, NOW_S,
			30 * DAY_S, "Do.");
		expect(&doctor, CASES[i].want, CASES[i].says);
	}
}

static void
clocks_may_differ_by_a_second(void **state)
{
	static const struct {
		int64_t database_s;
		const char *want, *says;
	} CASES[] = {
		{ NOW_S, "ok", "agrees" },
		{ NOW_S + 2, "ok", "agrees" }, /* within what passed meanwhile */
		{ NOW_S + 3, "ok", "agrees" },
		{ NOW_S + 4, "warning", "2 s ahead of" },
		{ NOW_S - 2, "warning", "2 s behind" },
		{ NOW_S - 60, "error", "60 s behind" },
		{ NOW_S + 3600, "error", "ahead of" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		own_struct(doctor) doctor = { .findings = NULL };

		begin(&doctor);
		doctor_judge_clock(&doctor, CASES[i].database_s, NOW_S, NOW_S + 2);
		expect(&doctor, CASES[i].want, CASES[i].says);
	}
}

static void
a_disk_that_fills_is_told_in_time(void **state)
{
	static const struct {
		uint64_t free, total;
		const char *want;
	} CASES[] = {
		{ 50 * GIB, 100 * GIB, "ok" },
		{ 9 * GIB, 100 * GIB, "warning" },
		{ GIB / 2, 2 * GIB, "warning" },
		{ GIB / 16, 2 * GIB, "error" },
		{ 9 * GIB, 1000 * GIB, "error" },
		{ 0, 0, "error" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		own_struct(doctor) doctor = { .findings = NULL };

		begin(&doctor);
		doctor_judge_disk(&doctor, "disk", "/x", CASES[i].free, CASES[i].total);
		expect(&doctor, CASES[i].want, "are free at /x");
	}
}

static void
a_crl_grows_by_what_is_revoked_and_shrinks_by_what_ends(void **state)
{
	static const struct {
		struct doctor_crl crl;
		int64_t want_bytes;
		const char *want;
	} CASES[] = {
		{ { .entries = 0, .bytes = 400, .looked = 0 }, 400, "ok" },
		{ { .entries = 1000, .bytes = 40000, .looked = 1000, .recent = 500, .ending = 0 },
			60000, "ok" },
		{ { .entries = 1000, .bytes = 40000, .looked = 1000, .recent = 0, .ending = 500 },
			20000, "ok" },
		/* a sample stands for all */
		{ { .entries = 100000, .bytes = 1000000, .looked = 20000, .recent = 10000 },
		  1500000, "note" },
		{ { .entries = 3000000, .bytes = 100000000, .looked = 20000, .recent = 1000, .ending = 0 },
		  105000000, "warning" },
		{ { .entries = 3000000, .bytes = 100000000, .looked = 20000, .recent = 0, .ending = 1000 },
		  95000000, "ok" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		own_struct(doctor) doctor = { .findings = NULL };
		struct doctor_crl crl = CASES[i].crl;

		begin(&doctor);
		crl.ca_id = "issuing-1";
		crl.immediate_max_bytes = 1 << 20;
		assert_int_equal(doctor_forecast_crl(&crl), CASES[i].want_bytes);
		doctor_judge_crl(&doctor, &crl);
		expect(&doctor, CASES[i].want, "issuing-1");
	}
}

static void
a_cliff_is_a_week_with_much_more_than_its_part(void **state)
{
	const int64_t monday_s = civil_to_s((struct civil){ .year = 2027, .month = 4, .day = 5 });
	struct doctor_week weeks[52];
	own_struct(doctor) doctor = { .findings = NULL };

	(void)state;
	/* evenly over a year */
	for (size_t i = 0; i < 52; i++)
		weeks[i] = (struct doctor_week){ monday_s + (int64_t)i * 7 * DAY_S, 100 };
	begin(&doctor);
	doctor_judge_cliffs(&doctor, weeks, 52, NOW_S, 100);
	expect(&doctor, "ok", "5200 certificates");
	doctor_free(&doctor);

	/* 41 of a hundred in one of them, of a sample of a thousandth */
	weeks[0].count = 3544;
	begin(&doctor);
	doctor_judge_cliffs(&doctor, weeks, 52, NOW_S, 0.1);
	expect(&doctor, "warning",
		"41 % of the fleet (about 3544000 certificates) expires in week 2027-W14, from "
		"2027-04-05");
	doctor_free(&doctor);

	/* certificates of three weeks: a third in each is how it must be */
	for (size_t i = 0; i < 3; i++)
		weeks[i] = (struct doctor_week){ NOW_S + (int64_t)i * 7 * DAY_S, 100 };
	begin(&doctor);
	doctor_judge_cliffs(&doctor, weeks, 3, NOW_S, 100);
	expect(&doctor, "ok", "no week");
	doctor_free(&doctor);

	/* a handful that is tried out */
	weeks[0] = (struct doctor_week){ monday_s, 19 };
	begin(&doctor);
	doctor_judge_cliffs(&doctor, weeks, 1, NOW_S, 100);
	expect(&doctor, "ok", "too few");
}

static void
weeks_are_counted_by_their_thursday(void **state)
{
	static const struct {
		struct civil monday;
		const char *want;
	} CASES[] = {
		{ { .year = 2026, .month = 12, .day = 28 }, "2026-W53" },
			/* its Thursday is 31 December */
		{ { .year = 2027, .month = 1, .day = 4 }, "2027-W01" },
		{ { .year = 2029, .month = 12, .day = 31 }, "2030-W01" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		own_struct(doctor) doctor = { .findings = NULL };
		struct doctor_week week = { civil_to_s(CASES[i].monday), 100 };

		begin(&doctor);
		doctor_judge_cliffs(&doctor, &week, 1, NOW_S, 100);
		expect(&doctor, "warning", CASES[i].want);
	}
}

static const struct CMUnitTest TESTS[] = {
	cmocka_unit_test(the_worst_decides_the_exit_status),
	cmocka_unit_test(severities_have_names),
	cmocka_unit_test(foreign_octets_do_not_lose_a_finding),
	cmocka_unit_test(ends_are_judged_by_what_is_left),
	cmocka_unit_test(clocks_may_differ_by_a_second),
	cmocka_unit_test(a_disk_that_fills_is_told_in_time),
	cmocka_unit_test(a_crl_grows_by_what_is_revoked_and_shrinks_by_what_ends),
	cmocka_unit_test(a_cliff_is_a_week_with_much_more_than_its_part),
	cmocka_unit_test(weeks_are_counted_by_their_thursday),
};

int
main(void)
{
	return cmocka_run_group_tests(TESTS, NULL, NULL);
}
