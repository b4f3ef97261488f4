#include "tests/unit/db/db_test.h"

#include "base/mem.h"
#include "db/event.h"
#include "server/app.h"
#include "server/notify/watch.h"

#define DAY_S INT64_C(86400)

static struct app *app;
static struct clock now;

static int64_t
events(const char *kind, char severity[9])
{
	const struct db_event_filter filter = { .kind = kind };
	static struct db_event found[8];
	struct db_tx tx = { NULL, NULL };
	size_t count;

	assert_ok(db_tx_begin(&tx, POOL, err));
	assert_ok(db_event_list(&tx, &filter, COUNT_OF(found), found, &count, err));
	db_tx_end(&tx);
	memcpy(severity, count > 0 ? found[0].severity : "", count > 0 ? 9 : 1);
	return (int64_t)count;
}

static void
forget(void)
{
	struct db_conn *conn = NULL;

	assert_ok(db_conn_open(&conn, CONNINFO, err));
	assert_ok(db_conn_exec(conn, "forget", "DELETE FROM jitrca.security_event", NULL, err));
	db_conn_close(conn);
}

/* A CA of ten years, so many seconds before its end. */
static void
look(int64_t left_s)
{
	now = clock_fixed(app->cas[0].not_after_s - left_s);
	app->clock = &now;
	assert_ok(notify_watch(app, err));
}

static void
a_ca_near_its_end_is_told_as_it_comes_nearer(void **state)
{
	static const struct {
		int64_t left_s;
		const char *kind, *severity;
	} CASES[] = {
		{ 91 * DAY_S, "ca_expiring", "" },
		{ 90 * DAY_S, "ca_expiring", "medium" },
		{ 30 * DAY_S + 1, "ca_expiring", "medium" },
		{ 30 * DAY_S, "ca_expiring", "high" },
		{ 7 * DAY_S, "ca_expiring", "critical" },
		{ 1, "ca_expiring", "critical" },
		{ 0, "ca_expired", "critical" },
		{ -DAY_S, "ca_expired", "critical" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		char severity[9];

		forget();
		look(CASES[i].left_s);
		look(CASES[i].left_s); /* at once again: it was told */
		assert_int_equal(events(CASES[i].kind, severity), CASES[i].severity[0] != '\0' ? 1 : 0);
		assert_string_equal(severity, CASES[i].severity);
	}
}

static void
what_lives_short_is_told_of_late(void **state)
{
	char severity[9];

	(void)state;
	forget();
	app->cas[0].not_before_s = app->cas[0].not_after_s - 60 * DAY_S;
	look(21 * DAY_S);
	assert_int_equal(events("ca_expiring", severity), 0);
	look(20 * DAY_S);
	assert_int_equal(events("ca_expiring", severity), 1);
	assert_string_equal(severity, "medium");
}

static void
a_listener_certificate_is_told_of(void **state)
{
	char severity[9];

	(void)state;
	forget();
	look(1000 * DAY_S);
	app->tls_not_after_s = now.fixed_s + 15 * DAY_S;
	look(1000 * DAY_S);
	assert_int_equal(events("listener_certificate_expiring", severity), 0);
	app->tls_not_after_s = now.fixed_s + 14 * DAY_S;
	look(1000 * DAY_S);
	assert_int_equal(events("listener_certificate_expiring", severity), 1);
	assert_string_equal(severity, "high");
	app->tls_not_after_s = now.fixed_s + 3 * DAY_S;
	look(1000 * DAY_S);
	assert_int_equal(events("listener_certificate_expiring", severity), 2);
	assert_string_equal(severity, "critical");
	assert_int_equal(events("listener_certificate_trouble", severity), 0);
	app->tls_trouble = true;
	look(1000 * DAY_S);
	look(1000 * DAY_S);
	assert_int_equal(events("listener_certificate_trouble", severity), 1);
}

static int
set_up(void **state)
{
	if (database_make(state) != 0)
		return -1;
	app = mem_zalloc(sizeof(*app));
	assert_non_null(app);
	app->pool = POOL;
	app->ca_count = 1;
	(void)snprintf(app->cas[0].ca_id, sizeof(app->cas[0].ca_id), "issuing-1");
	app->cas[0].not_after_s = INT64_C(1795536842) + 2000 * DAY_S;
	app->cas[0].not_before_s = app->cas[0].not_after_s - 3650 * DAY_S;
	return 0;
}

static int
tear_down(void **state)
{
	mem_free(app);
	return database_drop(state);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_ca_near_its_end_is_told_as_it_comes_nearer),
		cmocka_unit_test(what_lives_short_is_told_of_late),
		cmocka_unit_test(a_listener_certificate_is_told_of),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
