#include "tests/unit/plugin/world.h"

#include "server/iotcore/plugin/session.h"

#define A ID64("a1")
#define B ID64("b2")
#define NOW 1700000000

static struct {
	struct registry *registry;
	struct sessions *sessions;
	char clients[1000]; /* addresses to be told apart by */
} W;

static int
begin(void **state)
{
	struct err err;

	(void)state;
	assert_int_equal(registry_new(&W.registry, &KEY, &err), OK);
	assert_int_equal(sessions_new(&W.sessions, W.registry, &KEY, &err), OK);
	sessions_place(W.sessions, "eu-central-1", "123456789012");
	put(W.registry, policy_row("allow", ALLOW_ALL));
	put(W.registry, policy_row("deny", DENY_ALL));
	put(W.registry, certificate_row(A, "ACTIVE", "allow", ""));
	put(W.registry, certificate_row(B, "ACTIVE", "allow", ""));
	return 0;
}

static int
end(void **state)
{
	(void)state;
	sessions_free(W.sessions);
	registry_free(W.registry);
	return 0;
}

static struct session *
add(size_t client, const char *id, const char *client_id)
{
	static const uint8_t random[16] = { 1 };
	struct session *session = NULL;
	struct err err;
	const struct session_setup setup = { .client = &W.clients[client],
		.certificate_id = id_octets(id),
		.client_id = client_id,
		.address = "::ffff:192.0.2.7",
		.version = 1,
		.not_after_s = NOW + 10,
		.random = random };

	assert_int_equal(session_add(&session, W.sessions, &setup, &err), OK);
	return session;
}

static bool
may_publish(struct session *session, int64_t now_s)
{
	return session_may(W.sessions, session, POLICY_PUBLISH, view_text("t"), now_s);
}

static void
count(void *arg, struct session *session)
{
	(void)session;
	(*(size_t *)arg)++;
}

static void
a_change_counts_once_it_is_told(void **state)
{
	struct session *session = add(0, A, "c");
	size_t told = 0;

	(void)state;
	assert_true(may_publish(session, NOW));
	put(W.registry, certificate_row(A, "ACTIVE", "allow\ndeny", ""));
	assert_true(may_publish(session, NOW)); /* kept, until it is told */
	sessions_stale(W.sessions, id_octets(B), count, &told);
	assert_int_equal(told, 0);
	sessions_stale(W.sessions, id_octets(A), count, &told);
	assert_int_equal(told, 1);
	assert_false(may_publish(session, NOW));
	assert_false(session_may_stay(W.sessions, session, NOW));
}

static void
nobody_may_beyond_status_validity_and_policy(void **state)
{
	struct session *session = add(0, A, "c");

	(void)state;
	assert_true(may_publish(session, NOW + 10));
	assert_false(may_publish(session, NOW + 11));
	put(W.registry, certificate_row(A, "INACTIVE", "allow", ""));
	sessions_stale_all(W.sessions);
	assert_false(may_publish(session, NOW));
	put(W.registry, certificate_row(A, "ACTIVE", "allow\ngone", ""));
	sessions_stale_all(W.sessions);
	assert_false(may_publish(session, NOW)); /* what is not known may have denied */
	put(W.registry, certificate_row(A, "ACTIVE", "", ""));
	sessions_stale_all(W.sessions);
	assert_false(may_publish(session, NOW));
}

static void
a_decision_is_of_its_action_and_topic(void **state)
{
	struct session *session = add(0, A, "c");

	(void)state;
	put(W.registry,
		policy_row("allow",
			"{\"Version\":\"2012-10-17\",\"Statement\":{\"Effect\":\"Allow\","
	                "\"Action\":\"iot:Publish\","
			"\"Resource\":\"arn:aws:iot:eu-central-1:123456789012:topic/t\"}}"));
	sessions_stale_all(W.sessions);
	for (int i = 0; i < 2; i++) {
		assert_true(may_publish(session, NOW));
		assert_false(session_may(W.sessions, session, POLICY_RECEIVE, view_text("t"), NOW));
		assert_false(
			session_may(W.sessions, session, POLICY_PUBLISH, view_text("tt"), NOW));
		assert_false(session_may(W.sessions, session, POLICY_PUBLISH, view_text(""), NOW));
	}
	assert_true(session_absent_may(W.sessions, A, "c", POLICY_PUBLISH, view_text("t"), NOW));
	assert_false(session_absent_may(W.sessions, A, "c", POLICY_PUBLISH, view_text("u"), NOW));
	assert_false(
		session_absent_may(W.sessions, "a name", "c", POLICY_PUBLISH, view_text("t"), NOW));
}

static void
a_sweep_meets_each_live_one_once(void **state)
{
	size_t met = 0;
	size_t rounds = 0;

	(void)state;
	for (size_t i = 0; i < 1000; i++) {
		char client_id[16];

		(void)snprintf(client_id, sizeof(client_id), "c%zu", i);
		if (i % 10 == 0)
			session_end(W.sessions, add(i, A, client_id));
		else
			(void)add(i, A, client_id);
	}
	assert_int_equal(sessions_count(W.sessions), 900);
	while (sessions_sweep(W.sessions, 100, count, &met))
		;
	assert_int_equal(met, 0); /* all came after the last change */
	sessions_stale_all(W.sessions);
	/* One that was judged meanwhile is asked all the same whether it may stay. */
	assert_true(may_publish(session_find(W.sessions, &W.clients[1]), NOW));
	do
		rounds++;
	while (sessions_sweep(W.sessions, 100, count, &met));
	assert_int_equal(met, 900);
	assert_true(rounds > 5);
	sessions_reap(W.sessions);
	assert_null(session_find(W.sessions, &W.clients[0]));
	assert_non_null(session_find(W.sessions, &W.clients[1]));
}

static void
a_client_that_comes_again_takes_the_olds_place(void **state)
{
	struct session *old = add(0, A, "c");
	struct session *other = add(1, A, "c");

	(void)state;
	assert_ptr_equal(session_other(W.sessions, "c", &W.clients[1]), old);
	session_end(W.sessions, old);
	assert_null(session_other(W.sessions, "c", &W.clients[1]));
	assert_ptr_equal(
		session_find(W.sessions, &W.clients[0]), old); /* its will is still asked about */
	assert_ptr_not_equal(add(0, B, "d"), old);
	assert_string_equal(session_find(W.sessions, &W.clients[0])->client_id, "d");
	sessions_reap(W.sessions);
	assert_string_equal(session_find(W.sessions, &W.clients[0])->client_id, "d");
	assert_ptr_equal(session_find(W.sessions, &W.clients[1]), other);
	assert_int_equal(sessions_count(W.sessions), 2);
}

int
main(void)
{
#define with_sessions(test) cmocka_unit_test_setup_teardown(test, begin, end)
	const struct CMUnitTest tests[] = {
		with_sessions(a_change_counts_once_it_is_told),
		with_sessions(nobody_may_beyond_status_validity_and_policy),
		with_sessions(a_decision_is_of_its_action_and_topic),
		with_sessions(a_sweep_meets_each_live_one_once),
		with_sessions(a_client_that_comes_again_takes_the_olds_place),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
