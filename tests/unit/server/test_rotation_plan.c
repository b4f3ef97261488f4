/* What a plan counts and when it is due, to the second: the clock is fixed. */
#include "tests/unit/server/fixture.h"

#include <fcntl.h>

#include "db/plan.h"
#include "server/jobs/jobs.h"
#include "server/rotation_plan.h"

#define END_S INT64_C(1795536842) /* of the one certificate; no week's, no month's */
#define THRESHOLD_S (30 * DAY_S)
#define WEEK_S (7 * DAY_S)

static const char ONE[] =
	"INSERT INTO jitrca.issuer (ca_id, kind, subject, certificate, chain, sha256, not_before, not_after)"
	" VALUES ('ca1', 'issuing', 'CN=ca', '', '{}', sha256(''), '2020-01-01Z', '2040-01-01Z');"
	"INSERT INTO jitrca.device (device_id) VALUES ('d');"
	"SELECT jitrca.ensure_month(24322);" /* November 2026 */
	"INSERT INTO jitrca.certificate (expiry_month, issuer_id, serial, status, profile, device_id,"
	" subject, principal_id, not_before, not_after, issued_at, sha256, spki_sha256, status_at, der)"
	" SELECT 24322, 1, '\\x01005f02'::bytea || substring(sha256('') FOR 12), 'active', 'device',"
	" 'd', 'CN=d', 'st', e - interval '1 year', e, e - interval '1 year', sha256(''), sha256(''), now(),"
	" ''"
	" FROM (SELECT to_timestamp(1795536842) AS e) x";

static struct fixture FIX;
static struct clock CLOCK;
static const struct ca_profile PROFILE = {
	.name = "device",
	.renew_before_s = 60 * DAY_S,
	.renew_overlap_s = 7 * DAY_S,
	.one_live = true,
};

static int
start(void **state)
{
	struct err err;

	(void)state;
	log_setup(open("/dev/null", O_WRONLY | O_CLOEXEC), LOG_ERROR, "test");
	FIX.app = (struct app){ .clock = &CLOCK, .audit_lane = 1, .profile_count = 1 };
	FIX.app.profiles[0] = PROFILE;
	FIX.app.config.plan_every_s = WEEK_S;
	FIX.app.config.plan_threshold_s = THRESHOLD_S;
	FIX.app.config.event_retention_s = 90 * DAY_S;
	CHECK(ca_init(&err));
	fixture_database(&FIX);
	fixture_exec(FIX.sql, ONE);
	return 0;
}

static int
stop(void **state)
{
	(void)state;
	db_pool_free(FIX.app.pool);
	fixture_drop_database(&FIX);
	return 0;
}

static void
what_ends_and_who_is_late_counts_to_the_second(void **state)
{
	static const struct {
		const char *label;
		int64_t now_s, want_expiring, want_late;
	} CASES[] = {
		{ "a second beyond the threshold", END_S - THRESHOLD_S - 1, 0, 0 },
		{ "at the threshold, which is not within", END_S - THRESHOLD_S, 0, 0 },
		{ "within it", END_S - THRESHOLD_S + 1, 1, 0 },
		{ "a second before its window closes", END_S - 7 * DAY_S - 1, 1, 0 },
		{ "when its window closes", END_S - 7 * DAY_S, 1, 1 },
		{ "its last second", END_S - 1, 1, 1 },
		{ "over", END_S + 1, 0, 0 },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		own_struct(db_tx) tx = { NULL, NULL };
		struct db_plan plan;
		struct err err;

		CLOCK = clock_fixed(CASES[i].now_s);
		CHECK(db_tx_begin(&tx, FIX.app.pool, &err));
		CHECK(rotation_plan_make(&FIX.app, &tx, "hand", THRESHOLD_S, &plan, &err));
		if (plan.expiring != CASES[i].want_expiring || plan.late != CASES[i].want_late)
			fail_msg("%s: %lld expiring and %lld late wanted, %lld and %lld found",
				CASES[i].label, (long long)CASES[i].want_expiring,
				(long long)CASES[i].want_late, (long long)plan.expiring,
				(long long)plan.late);
	}
}

/* The rows have the database's time, the job has ours: each case says how far back the last one lies. */
static void
the_next_is_due_a_week_after_the_last_and_old_ones_go(void **state)
{
	static const char ALL[] = "SELECT count(*) FROM jitrca.rotation_plan";
	static const char BOSS[] = "SELECT count(*) FROM jitrca.rotation_plan WHERE actor = 'boss'";
	int64_t made_s;
	struct err err;

	(void)state;
	CLOCK = CLOCK_SYSTEM;
	CHECK(rotation_plan_job_step(&FIX.app, &err)); /* there is none: at once */
	assert_int_equal(fixture_number(&FIX, ALL), 1);
	made_s = fixture_number(&FIX, "SELECT floor(extract(epoch FROM created_at))::bigint"
		" FROM jitrca.rotation_plan");
	CLOCK = clock_fixed(made_s + WEEK_S - 1);
	CHECK(rotation_plan_job_step(&FIX.app, &err));
	assert_int_equal(fixture_number(&FIX, ALL), 1);
	/* One that somebody asked for does not put the schedule off. */
	fixture_exec(FIX.sql, "INSERT INTO jitrca.rotation_plan (plan_id, actor, threshold_s, expiring, late,"
		" body) VALUES (repeat('a', 32), 'boss', 1, 0, 0, '{}')");
	CLOCK = clock_fixed(made_s + WEEK_S);
	CHECK(rotation_plan_job_step(&FIX.app, &err));
	assert_int_equal(fixture_number(&FIX, ALL), 3);

	/* Retention, when the next one is made: older than that goes, as old as that stays. */
	fixture_exec(FIX.sql, "UPDATE jitrca.rotation_plan SET created_at = to_timestamp(1000000000)"
		" WHERE actor = 'boss'; UPDATE jitrca.rotation_plan SET created_at ="
		" to_timestamp(1000000001) WHERE actor = 'server'");
	CLOCK = clock_fixed(1000000001 + 90 * DAY_S);
	CHECK(rotation_plan_job_step(&FIX.app, &err));
	assert_int_equal(fixture_number(&FIX, BOSS), 0);
	assert_int_equal(fixture_number(&FIX, ALL), 3);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_ends_and_who_is_late_counts_to_the_second),
		cmocka_unit_test(the_next_is_due_a_week_after_the_last_and_old_ones_go),
	};

	return cmocka_run_group_tests(tests, start, stop);
}
