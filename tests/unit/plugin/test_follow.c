/* The follower against a real PostgreSQL: what SQL changes, the registry holds and the broker is
 * told. */
#include "tests/unit/db/db_test.h"

#include <poll.h>

#include "base/mem.h"
#include "server/iotcore/plugin/follow.h"
#include "tests/unit/plugin/world.h"

#define A ID64("a1")
#define B ID64("b2")
#define C ID64("c3")
#define WAIT_MS 10000

static struct {
	struct registry *registry;
	struct queue notices;
	struct follower *follower;
	struct db_conn *sql;
	struct queue_item *items; /* taken and not yet looked at */
} W;

static void
no_wake(void *arg)
{
	(void)arg;
}

/* Outside of a transaction: followers see only what is committed. */
static void
run_sql(const char *text)
{
	assert_ok(db_conn_exec(W.sql, text, text, NULL, err));
}

static void
start(void)
{
	const struct follow_setup setup = { .conninfo = CONNINFO,
		.registry = W.registry,
		.key = &KEY,
		.notices = &W.notices,
		.wake = no_wake };

	assert_ok(follower_start(&W.follower, &setup, err));
}

/* Waits for a notice of that kind; passes over others. */
static struct notice *
await(enum notice_kind kind)
{
	for (int waited_ms = 0; waited_ms < WAIT_MS; waited_ms += 2) {
		if (W.items == NULL)
			W.items = queue_take(&W.notices);
		while (W.items != NULL) {
			struct notice *notice = (struct notice *)(void *)W.items;

			W.items = W.items->next;
			if (notice->kind == kind)
				return notice;
			notice_free(notice);
		}
		(void)poll(NULL, 0, 2);
	}
	fail_msg("no notice of kind %d", (int)kind);
	return NULL;
}

static void
pass(enum notice_kind kind)
{
	notice_free(await(kind));
}

/* The notice that says A, B or C. */
static void
pass_certificate(const char *id)
{
	struct notice *notice = await(NOTICE_CERTIFICATE);

	assert_memory_equal(notice->certificate_id, id_octets(id), REGISTRY_ID_BYTES);
	notice_free(notice);
}

static enum registry_status
status_of(const char *id)
{
	struct registry_certificate found;

	registry_certificate(W.registry, id_octets(id), &found);
	return found.status;
}

static int
begin(void **state)
{
	(void)state;
	assert_ok(registry_new(&W.registry, &KEY, err));
	assert_ok(db_conn_open(&W.sql, CONNINFO, err));
	queue_begin(&W.notices, 10000);
	run_sql("TRUNCATE iotcore.account, iotcore.change, iotcore.ca_certificate, "
	        "iotcore.certificate, iotcore.thing,"
		" iotcore.thing_group, iotcore.policy, iotcore.policy_attachment, iotcore.session "
	        "CASCADE");
	run_sql("INSERT INTO iotcore.account (account_id, region) VALUES ('123456789012', "
	        "'eu-central-1')");
	run_sql("INSERT INTO iotcore.policy (name, default_version, last_version, generation) "
	        "VALUES ('p', 1, 1, '')");
	run_sql("INSERT INTO iotcore.policy_version (policy, version, document) VALUES ('p', 1, "
	        "'" ALLOW_ALL "')");
	start();
	pass(NOTICE_ALL);
	pass(NOTICE_SESSIONS);
	return 0;
}

static int
finish(void **state)
{
	(void)state;
	assert_true(follower_stop(W.follower));
	while (W.items != NULL || (W.items = queue_take(&W.notices)) != NULL) {
		struct notice *notice = (struct notice *)(void *)W.items;

		W.items = W.items->next;
		notice_free(notice);
	}
	registry_free(W.registry);
	db_conn_close(W.sql);
	W.follower = NULL;
	return 0;
}

#define PUT(id, status)                                                                            \
	"INSERT INTO iotcore.certificate (certificate_id, pem, status, mode, not_before, "         \
	"not_after)"                                                                               \
	" VALUES ('" id "', '', '" status "', 'DEFAULT', now(), now())"

static void
a_certificate_is_followed_through_its_life(void **state)
{
	struct registry_grant *grant;

	(void)state;
	run_sql(PUT(A, "PENDING_ACTIVATION"));
	pass_certificate(A);
	assert_int_equal(status_of(A), REGISTRY_PENDING_ACTIVATION);
	run_sql("BEGIN; SELECT 1 FROM iotcore.account FOR UPDATE;"
		"INSERT INTO iotcore.policy_attachment VALUES ('p', 'cert/" A "');"
		"INSERT INTO iotcore.thing (name, attributes) VALUES ('t', '{\"site\": "
	        "\"berlin\"}');"
		"INSERT INTO iotcore.thing_principal VALUES ('t', '" A "');"
		"UPDATE iotcore.certificate SET status = 'ACTIVE'; COMMIT");
	pass_certificate(A);
	grant = registry_grant(W.registry, id_octets(A), view_text("t"));
	assert_true(grant->status == REGISTRY_ACTIVE && !grant->broken && grant->policy_count == 1);
	assert_true(grant->has_thing && view_equal_text(grant->attributes[0].value, "berlin"));
	registry_grant_free(grant);
	run_sql("DELETE FROM iotcore.thing_principal");
	pass_certificate(A);
	run_sql("DELETE FROM iotcore.policy_attachment; DELETE FROM iotcore.certificate");
	pass_certificate(A);
	assert_int_equal(status_of(A), REGISTRY_UNKNOWN);
}

static void
those_concerned_are_told(void **state)
{
	(void)state;
	run_sql(PUT(A, "ACTIVE") ";" PUT(B, "ACTIVE") ";" PUT(C, "ACTIVE"));
	for (int i = 0; i < 3; i++)
		pass(NOTICE_CERTIFICATE);
	run_sql("INSERT INTO iotcore.thing (name) VALUES ('t'); INSERT INTO "
	        "iotcore.thing_principal VALUES ('t', '" B "')");
	pass_certificate(B);
	/* Of a thing: who is attached to it. */
	run_sql("UPDATE iotcore.thing SET attributes = '{\"a\": \"b\"}' WHERE name = 't'");
	pass_certificate(B);
	/* Of a policy: whom it is attached to. */
	run_sql("INSERT INTO iotcore.policy_attachment VALUES ('p', 'cert/" C "')");
	pass_certificate(C);
	run_sql("UPDATE iotcore.policy SET modified_at = now() WHERE name = 'p'");
	pass_certificate(C);
	/* Of a group, or of a policy of one: everyone. */
	run_sql("INSERT INTO iotcore.thing_group (name) VALUES ('g')");
	pass(NOTICE_ALL);
	run_sql("INSERT INTO iotcore.policy_attachment VALUES ('p', 'thinggroup/g')");
	pass(NOTICE_ALL);
	run_sql("UPDATE iotcore.policy SET modified_at = now() WHERE name = 'p'");
	pass(NOTICE_ALL);
}

static void
a_thousand_changes_are_followed_in_pages(void **state)
{
	(void)state;
	run_sql("INSERT INTO iotcore.certificate (certificate_id, pem, status, mode, not_before, "
	        "not_after)"
		" SELECT lpad(to_hex(i), 64, '0'), '', 'ACTIVE', 'DEFAULT', now(), now() FROM "
	        "generate_series(1, 2500) i");
	for (int i = 0; i < 2500; i++)
		pass(NOTICE_CERTIFICATE);
	assert_int_equal(registry_count(W.registry, BROKER_CERTIFICATE), 2500);
	/* So many at once that each session looks for itself. */
	run_sql("UPDATE iotcore.certificate SET status = 'INACTIVE'; UPDATE iotcore.certificate "
	        "SET status = 'ACTIVE'");
	run_sql("INSERT INTO iotcore.certificate (certificate_id, pem, status, mode, not_before, "
	        "not_after)"
		" SELECT lpad(to_hex(i), 64, '0'), '', 'ACTIVE', 'DEFAULT', now(), now() FROM "
	        "generate_series(3001, 8000) i");
	pass(NOTICE_ALL);
	assert_int_equal(registry_count(W.registry, BROKER_CERTIFICATE), 7500);
}

static void
a_gap_is_read_whole(void **state)
{
	struct follower_stats before;
	struct follower_stats after;

	(void)state;
	follower_stats(W.follower, &before);
	run_sql("BEGIN; " PUT(A, "INACTIVE") "; UPDATE iotcore.certificate SET status = 'ACTIVE';"
		" DELETE FROM iotcore.change WHERE seq < iotcore.last_change(); COMMIT");
	pass(NOTICE_ALL);
	assert_int_equal(status_of(A), REGISTRY_ACTIVE);
	follower_stats(W.follower, &after);
	assert_int_equal(after.reloads, before.reloads + 1);
	/* A database of an earlier day. */
	run_sql("BEGIN; DELETE FROM iotcore.certificate; DELETE FROM iotcore.change; COMMIT");
	pass(NOTICE_ALL);
	assert_int_equal(status_of(A), REGISTRY_UNKNOWN);
}

static void
a_broken_link_is_taken_up_where_it_was(void **state)
{
	struct follower_stats stats;

	(void)state;
	run_sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = "
	        "current_database()"
		" AND pid <> pg_backend_pid()");
	run_sql(PUT(A, "ACTIVE"));
	pass_certificate(A);
	follower_stats(W.follower, &stats);
	assert_true(stats.links == 2 && stats.reloads == 1);
	assert_true(follower_fresh_ms(W.follower) > 0);
}

static void
a_registration_is_committed_before_its_event(void **state)
{
	struct notice *notice;

	(void)state;
	run_sql("INSERT INTO iotcore.ca_certificate (certificate_id, pem, der, subject, status, "
	        "auto_registration, mode,"
		" not_before, not_after) VALUES ('" B
		"', '', '', '', 'ACTIVE', true, 'SNI_ONLY', now(), now())");
	assert_true(follower_register(W.follower, A, B, "PEM", 1700000000, 1800000000));
	assert_true(follower_register(
		W.follower, A, B, "PEM", 1700000000, 1800000000));     /* at once: one row */
	assert_true(follower_register(W.follower, C, C, "PEM", 1, 2)); /* of no CA of ours: none */
	notice = await(NOTICE_EVENT);
	assert_string_equal(notice->event.topic, "$aws/events/certificates/registered/" B);
	assert_non_null(memmem(notice->event.payload.data, notice->event.payload.len, A, 64));
	notice_free(notice);
	run_sql("DO $$ BEGIN ASSERT (SELECT status = 'PENDING_ACTIVATION' AND mode = 'SNI_ONLY' "
	        "AND pem = 'PEM'"
		" FROM iotcore.certificate WHERE certificate_id = '" A
		"'); ASSERT (SELECT count(*) = 1"
		" FROM iotcore.certificate); END $$");
	/* One that SQL refuses harms no other. */
	assert_true(follower_register(W.follower, ID64("d4"), B, "\xff", 1, 2));
	assert_true(follower_register(W.follower, ID64("e5"), B, "PEM", 1, 2));
	while (status_of(ID64("e5")) != REGISTRY_PENDING_ACTIVATION)
		(void)poll(NULL, 0, 2);
	assert_int_equal(status_of(ID64("d4")), REGISTRY_UNKNOWN);
}

static void
sessions_are_written_and_end_with_us(void **state)
{
	(void)state;
	follower_session(W.follower, "c", A, NULL, "127.0.0.1", true, 5);
	follower_session(W.follower, "c", A, "t", "127.0.0.1", true, 6);
	follower_session(
		W.follower, "c", A, NULL, "127.0.0.1", false, 5); /* who was taken over, behind */
	follower_session(W.follower, "d", B, NULL, "::1", false, 7);
	run_sql("DO $$ BEGIN FOR i IN 1 .. 1000 LOOP IF (SELECT count(*) = 2 FROM iotcore.session) "
	        "THEN EXIT; END IF;"
		" PERFORM pg_sleep(0.01); END LOOP; END $$");
	run_sql("DO $$ BEGIN ASSERT (SELECT connected AND version = 6 AND thing = 't' FROM "
	        "iotcore.session"
		" WHERE client_id = 'c'); ASSERT (SELECT NOT connected FROM iotcore.session WHERE "
	        "client_id = 'd');"
		" END $$");
	assert_true(follower_stop(W.follower));
	run_sql("DO $$ BEGIN ASSERT NOT EXISTS (SELECT FROM iotcore.session WHERE connected); END "
	        "$$");
	start();
	pass(NOTICE_SESSIONS);
}

int
main(void)
{
#define followed(test) cmocka_unit_test_setup_teardown(test, begin, finish)
	const struct CMUnitTest tests[] = {
		followed(a_certificate_is_followed_through_its_life),
		followed(those_concerned_are_told),
		followed(a_thousand_changes_are_followed_in_pages),
		followed(a_gap_is_read_whole),
		followed(a_broken_link_is_taken_up_where_it_was),
		followed(a_registration_is_committed_before_its_event),
		followed(sessions_are_written_and_end_with_us),
	};

	return cmocka_run_group_tests(tests, database_make, database_drop);
}
