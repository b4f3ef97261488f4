#include "tests/unit/db/db_test.h"

#include "base/mem.h"
#include "db/event.h"
#include "db/issuer.h"

#define NOW 1795536842

static uint8_t DER[3][4] = { { 0x30, 0, 1, 2 }, { 0x30, 0, 3, 4 }, { 0x30, 0, 5, 6 } };

static struct db_issuer
issuer_of(const char *ca_id, uint8_t fill)
{
	struct db_issuer issuer = { .kind = "issuing", .status = "active", .subject = "CN=issuing",
		.not_before_s = NOW, .not_after_s = NOW + 86400, .certificate = { DER[0], 4 },
		.chain = { { DER[1], 4 }, { DER[2], 4 } }, .chain_count = 2 };

	(void)snprintf(issuer.ca_id, sizeof(issuer.ca_id), "%s", ca_id);
	memset(issuer.sha256, fill, sizeof(issuer.sha256));
	return issuer;
}

static void
an_issuer_is_read_as_it_was_written(void **state)
{
	struct db_tx *tx = *state;
	struct db_issuer issuer = issuer_of("ca-1", 1);
	own_struct(db_issuer) found = { .issuer_id = 0 };
	int32_t id, again;

	assert_ok(db_issuer_ensure(tx, &issuer, &id, err));
	assert_true(id > 0);
	assert_ok(db_issuer_ensure(tx, &issuer, &again, err));
	assert_int_equal(again, id);
	assert_ok(db_issuer_find(tx, "ca-1", &found, err));
	assert_int_equal(found.issuer_id, id);
	assert_string_equal(found.ca_id, "ca-1");
	assert_string_equal(found.kind, "issuing");
	assert_string_equal(found.status, "active");
	assert_string_equal(found.subject, "CN=issuing");
	assert_memory_equal(found.sha256, issuer.sha256, 32);
	assert_int_equal(found.not_before_s, NOW);
	assert_int_equal(found.not_after_s, NOW + 86400);
	assert_true(view_equal(view_of(&found.certificate), (struct view){ DER[0], 4 }));
	assert_int_equal(found.chain_count, 2);
	assert_true(view_equal(view_of(&found.chain[0]), (struct view){ DER[1], 4 }));
	assert_true(view_equal(view_of(&found.chain[1]), (struct view){ DER[2], 4 }));
}

static void
an_id_stands_for_one_certificate(void **state)
{
	struct db_tx *tx = *state;
	struct db_issuer issuer = issuer_of("ca-1", 1);
	struct db_issuer other_certificate = issuer_of("ca-1", 2);
	struct db_issuer other_id = issuer_of("ca-2", 1);
	struct db_issuer found;
	int32_t id;

	assert_refused(db_issuer_find(tx, "ca-1", &found, err), ERR_NOT_FOUND, "ca_unknown");
	assert_ok(db_issuer_ensure(tx, &issuer, &id, err));
	assert_refused(db_issuer_ensure(tx, &other_certificate, &id, err), ERR_CONFLICT, "ca_differs");
	assert_refused(db_issuer_ensure(tx, &other_id, &id, err), ERR_CONFLICT, "ca_differs");
}

static void
issuers_are_listed_with_their_chains(void **state)
{
	struct db_tx *tx = *state;
	struct db_issuer root = issuer_of("root", 1);
	struct db_issuer issuing = issuer_of("ca-1", 2);
	struct db_issuer list[4];
	size_t count;
	int32_t id;

	root.chain_count = 0;
	assert_ok(db_issuer_ensure(tx, &root, &id, err));
	assert_ok(db_issuer_ensure(tx, &issuing, &id, err));
	assert_ok(db_issuer_list(tx, list, 4, &count, err));
	assert_int_equal(count, 2);
	assert_string_equal(list[0].ca_id, "root");
	assert_int_equal(list[0].chain_count, 0);
	assert_int_equal(list[1].chain_count, 2);
	for (size_t i = 0; i < count; i++)
		db_issuer_free(&list[i]);
	assert_ok(db_issuer_list(tx, list, 1, &count, err));
	assert_int_equal(count, 1);
	db_issuer_free(&list[0]);

	for (int n = 0; n < 4; n++) { /* two certificates and a chain of two */
		struct err err;

		mem_fail_at(n);
		assert_int_not_equal(db_issuer_list(tx, list, 4, &count, &err), OK);
		mem_fail_at(-1);
		assert_int_equal(count, 0);
	}
}

struct heard {
	size_t count;
	char channel[64], payload[64];
};

static void
hear(void *arg, const char *channel, const char *payload)
{
	struct heard *heard = arg;

	heard->count++;
	(void)snprintf(heard->channel, sizeof(heard->channel), "%s", channel);
	(void)snprintf(heard->payload, sizeof(heard->payload), "%s", payload);
}

static void
notify(const char *text)
{
	struct db_tx tx = { NULL, NULL };

	assert_ok(db_tx_begin(&tx, POOL, err));
	sql(&tx, text);
	assert_ok(db_tx_commit(&tx, err));
}

static int64_t
lock_is_free(int32_t instance_id)
{
	struct db_tx tx = { NULL, NULL };
	char text[128];
	int64_t is_free;

	assert_ok(db_tx_begin(&tx, POOL, err));
	(void)snprintf(text, sizeof(text), "SELECT pg_try_advisory_xact_lock(1784, %d)::int", instance_id);
	is_free = sql_number(&tx, text);
	db_tx_end(&tx);
	return is_free;
}

static void
a_session_holds_its_lock_while_it_lives(void **state)
{
	struct db_session *one = NULL;
	struct db_session *two = NULL;

	(void)state;
	assert_ok(db_session_begin(&one, CONNINFO, err));
	assert_ok(db_session_begin(&two, CONNINFO, err));
	int32_t id = db_session_instance_id(one);
	assert_true(id > 0);
	assert_int_not_equal(id, db_session_instance_id(two));
	assert_int_equal(lock_is_free(id), 0);
	db_session_end(one);
	int64_t until_ms = clock_mono_ms(&CLOCK_SYSTEM) + 5000;
	while (!lock_is_free(id)) /* the server closes it in its own time */
		assert_true(clock_mono_ms(&CLOCK_SYSTEM) < until_ms);
	assert_int_equal(lock_is_free(db_session_instance_id(two)), 0);
	db_session_end(two);
	db_session_end(NULL);
	assert_refused(db_session_begin(&one, "host=/nonexistent", err), ERR_UNAVAILABLE, "database_away");
	mem_fail_at(0);
	assert_refused(db_session_begin(&one, CONNINFO, err), ERR_UNAVAILABLE, "out_of_memory");
	mem_fail_at(-1);
}

static void
a_session_hears_what_was_committed(void **state)
{
	struct db_session *session = NULL;
	struct heard heard = { .count = 0 };
	int pipe_fds[2];

	(void)state;
	assert_ok(db_session_begin(&session, CONNINFO, err));
	assert_ok(db_session_wait(session, 0, -1, hear, &heard, err));
	assert_int_equal(heard.count, 0);
	notify("NOTIFY jitrca_revocation, '7 abc'; NOTIFY elsewhere; NOTIFY jitrca_wake");
	while (heard.count < 2)
		assert_ok(db_session_wait(session, 5000, -1, hear, &heard, err));
	assert_string_equal(heard.channel, "jitrca_wake");
	notify("NOTIFY jitrca_crl, '5'");
	assert_ok(db_session_wait(session, 5000, -1, hear, &heard, err));
	assert_string_equal(heard.channel, "jitrca_crl");
	assert_string_equal(heard.payload, "5");
	assert_int_equal(heard.count, 3);

	/* Woken from outside, long before the wait is over. */
	assert_int_equal(pipe(pipe_fds), 0);
	assert_int_equal(write(pipe_fds[1], "x", 1), 1);
	int64_t since_ms = clock_mono_ms(&CLOCK_SYSTEM);
	assert_ok(db_session_wait(session, 60000, pipe_fds[0], hear, &heard, err));
	assert_true(clock_mono_ms(&CLOCK_SYSTEM) - since_ms < 30000);
	(void)close(pipe_fds[0]);
	(void)close(pipe_fds[1]);
	db_session_end(session);
}

static void
a_session_whose_link_broke_says_so(void **state)
{
	struct db_session *session = NULL;
	struct heard heard = { .count = 0 };
	char text[160];
	struct err said = { .status = ERR_INTERNAL };

	(void)state;
	assert_ok(db_session_begin(&session, CONNINFO, err));
	(void)snprintf(text, sizeof(text), "SELECT pg_terminate_backend(pid) FROM pg_locks"
		" WHERE locktype = 'advisory' AND classid = 1784 AND objid = %d",
		db_session_instance_id(session));
	notify(text);
	int64_t until_ms = clock_mono_ms(&CLOCK_SYSTEM) + 5000;
	while (db_session_wait(session, 1000, -1, hear, &heard, &said) == OK)
		assert_true(clock_mono_ms(&CLOCK_SYSTEM) < until_ms);
	assert_string_equal(said.code, "database_away");
	assert_refused(db_session_wait(session, 1000, -1, hear, &heard, err), ERR_UNAVAILABLE,
		"database_away");
	db_session_end(session);
}

static void
a_job_has_one_leader(void **state)
{
	struct db_tx first = { NULL, NULL };
	struct db_tx second = { NULL, NULL };
	bool leader = false;

	(void)state;
	assert_ok(db_tx_begin(&first, POOL, err));
	assert_ok(db_tx_begin(&second, POOL, err));
	assert_ok(db_job_lead(&first, 1, &leader, err));
	assert_true(leader);
	assert_ok(db_job_lead(&second, 1, &leader, err));
	assert_false(leader);
	assert_ok(db_job_lead(&second, 2, &leader, err));
	assert_true(leader);
	db_tx_end(&first);
	assert_ok(db_job_lead(&second, 1, &leader, err));
	assert_true(leader);
	db_tx_end(&second);
}

static void
old_idempotency_keys_go_in_portions(void **state)
{
	struct db_tx *tx = *state;
	size_t deleted;

	sql(tx, "INSERT INTO jitrca.idempotency SELECT 'p', 'k' || n, sha256(''), 1,"
		" decode(repeat('01', 16), 'hex'), to_timestamp(1000 + n) FROM generate_series(1, 10) n");
	assert_ok(db_retention_idempotency(tx, 1008, 5, &deleted, err));
	assert_int_equal(deleted, 5);
	assert_ok(db_retention_idempotency(tx, 1008, 5, &deleted, err));
	assert_int_equal(deleted, 2);
	assert_ok(db_retention_idempotency(tx, 1008, 5, &deleted, err));
	assert_int_equal(deleted, 0);
	assert_int_equal(sql_number(tx, "SELECT count(*) FROM jitrca.idempotency"), 3);
}

static void
old_security_events_go_in_portions(void **state)
{
	struct db_tx *tx = *state;
	size_t deleted;

	sql(tx, "INSERT INTO jitrca.security_event (at, kind, severity)"
		" SELECT to_timestamp(1000 + n), 'odd', 'low' FROM generate_series(1, 10) n");
	assert_ok(db_retention_events(tx, 1008, 5, &deleted, err));
	assert_int_equal(deleted, 5);
	assert_int_equal(sql_number(tx, "SELECT extract(epoch FROM min(at))::bigint"
		" FROM jitrca.security_event WHERE kind = 'odd'"), 1006);
	assert_ok(db_retention_events(tx, 1008, 5, &deleted, err));
	assert_int_equal(deleted, 2);
	assert_ok(db_retention_events(tx, 1008, 5, &deleted, err));
	assert_int_equal(deleted, 0);
	assert_int_equal(sql_number(tx, "SELECT count(*) FROM jitrca.security_event"
		" WHERE kind = 'odd'"), 3);
}

/* The guard's month, and one more list of each kind after the certificate expired. */
static void
expired_revocations_go_once_they_were_on_one_more_list(void **state)
{
	struct db_tx *tx = *state;
	size_t deleted;

	sql(tx, "INSERT INTO jitrca.issuer (ca_id, kind, subject, certificate, chain, sha256, not_before,"
		" not_after) VALUES ('old', 'issuing', 's', '', '{}', sha256('old'), now(), now())");
	sql(tx, "INSERT INTO jitrca.crl_scope (issuer_id, scope) SELECT issuer_id, n FROM jitrca.issuer,"
		" generate_series(-1, 2) n WHERE ca_id = 'old'");
	/* The list of shard 1 is older than the ends; that of shard 2 was never made. */
	sql(tx, "INSERT INTO jitrca.crl (issuer_id, scope, number, this_update, next_update, entries, sha256,"
		" length) SELECT issuer_id, n, 1, now() - CASE n WHEN 1 THEN interval '50 days' ELSE"
		" interval '1 day' END, now(), 0, '', 0 FROM jitrca.issuer, generate_series(-1, 1) n"
		" WHERE ca_id = 'old'");
	sql(tx, "INSERT INTO jitrca.revocation SELECT issuer_id, ('\\x01' || lpad(shard::text, 2, '0') ||"
		" lpad(n::text, 28, '0'))::bytea, 1, now() - interval '90 days',"
		" now() - days * interval '1 day' FROM jitrca.issuer, (VALUES (0, 40, 1), (0, 40, 2),"
		" (0, 29, 3), (1, 40, 4), (2, 40, 5)) v (shard, days, n) WHERE ca_id = 'old'");
	assert_ok(db_retention_revocations(tx, 2, &deleted, err));
	assert_int_equal(deleted, 2);
	assert_ok(db_retention_revocations(tx, 2, &deleted, err));
	assert_int_equal(deleted, 0);
}

static void
instances_go_when_nobody_holds_them(void **state)
{
	struct db_tx *tx = *state;
	own_struct(db_tx) other = { NULL, NULL };
	size_t deleted;

	sql(tx, "INSERT INTO jitrca.instance (instance_id, host, started_at) OVERRIDING SYSTEM VALUE"
		" SELECT n, 'h', now() - CASE n WHEN 904 THEN interval '1 minute' ELSE interval '2 hours' END"
		" FROM generate_series(901, 905) n");
	sql(tx, "INSERT INTO jitrca.intent_round (instance_id, serials, items) VALUES (902,"
		" ARRAY[decode(repeat('01', 16), 'hex')], ARRAY[ROW(1, decode(repeat('01', 16), 'hex'),"
		" now(), 'p', NULL, 'i', 'p', '', NULL, false)::jitrca.intent_item])");
	assert_ok(db_tx_begin(&other, POOL, err));
	sql(&other, "SELECT pg_advisory_xact_lock(1784, 903)");
	assert_ok(db_retention_instances(tx, 100, &deleted, err));
	assert_int_equal(sql_number(tx, "SELECT sum(instance_id) FROM jitrca.instance"
		" WHERE instance_id BETWEEN 901 AND 905"), 902 + 903 + 904);
	assert_ok(db_retention_instances(tx, 100, &deleted, err));
	assert_int_equal(deleted, 0);
}

static enum status
count_key(void *arg, const uint8_t spki_sha256[32], struct err *err)
{
	int *count = arg;

	(void)err;
	assert_int_not_equal(spki_sha256[0], 0);
	++*count;
	return *count == 1000 ? err_set(err, ERR_UNAVAILABLE, "signer_away", "gone") : OK;
}

static void
blocked_keys_are_streamed_from_a_mark(void **state)
{
	struct db_tx *tx = *state;
	int64_t newest_us;
	int count = 0;

	sql(tx, "INSERT INTO jitrca.key_claim (spki_sha256, identity, profile, blocked_at)"
		" SELECT set_byte(sha256(n::text::bytea), 0, 1), 'd', 'device', CASE WHEN n % 2 = 0 THEN"
		" to_timestamp(1000) + n * interval '1 microsecond' END FROM generate_series(1, 1600) n");
	assert_ok(db_blocked_keys(tx, 0, &newest_us, count_key, &count, err));
	assert_int_equal(count, 800);
	assert_int_equal(newest_us, 1000 * INT64_C(1000000) + 1600);
	count = 0;
	assert_ok(db_blocked_keys(tx, newest_us - 10, &newest_us, count_key, &count, err));
	assert_int_equal(count, 5);
	count = 0;
	assert_ok(db_blocked_keys(tx, newest_us, &newest_us, count_key, &count, err));
	assert_int_equal(count, 0);
	assert_int_equal(newest_us, 1000 * INT64_C(1000000) + 1600);
	count = 500; /* the signer goes away: the mark stands before the key that it did not take */
	assert_refused(db_blocked_keys(tx, 0, &newest_us, count_key, &count, err), ERR_UNAVAILABLE,
		"signer_away");
	assert_int_equal(newest_us, 1000 * INT64_C(1000000) + 998);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		in_tx(an_issuer_is_read_as_it_was_written),
		in_tx(an_id_stands_for_one_certificate),
		in_tx(issuers_are_listed_with_their_chains),
		cmocka_unit_test(a_session_holds_its_lock_while_it_lives),
		cmocka_unit_test(a_session_hears_what_was_committed),
		cmocka_unit_test(a_session_whose_link_broke_says_so),
		cmocka_unit_test(a_job_has_one_leader),
		in_tx(old_idempotency_keys_go_in_portions),
		in_tx(old_security_events_go_in_portions),
		in_tx(expired_revocations_go_once_they_were_on_one_more_list),
		in_tx(instances_go_when_nobody_holds_them),
		in_tx(blocked_keys_are_streamed_from_a_mark),
	};

	return cmocka_run_group_tests(tests, database_make, database_drop);
}
