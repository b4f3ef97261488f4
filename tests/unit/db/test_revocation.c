#include "tests/unit/db/world.h"

#include <pthread.h>

static void
the_first_date_and_reason_stand(void **state)
{
	own_struct(db_tx) tx = { 0 };
	struct db_cert_ref ref = issue(ask("once"));
	struct db_revoke_result result;

	(void)state;
	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_revocation_revoke(&tx, &ref, REASON_PRIVILEGE_WITHDRAWN, 1700000000, &result, err));
	assert_true(result.changed);
	assert_false(result.key_blocked);
	MUST(db_revocation_revoke(&tx, &ref, REASON_KEY_COMPROMISE, 1800000000, &result, err));
	assert_false(result.changed);
	assert_true(result.key_blocked);
	MUST(db_revocation_revoke(&tx, &ref, REASON_KEY_COMPROMISE, 1800000000, &result, err));
	assert_false(result.key_blocked);
	assert_int_equal(result.revoked_at_s, 1700000000);
	assert_int_equal(result.reason, REASON_PRIVILEGE_WITHDRAWN);
	MUST(db_revocation_revoke(&tx, &ref, REASON_CERTIFICATE_HOLD, 1800000000, &result, err));
	assert_false(result.changed);
	MUST_FAIL(db_revocation_unhold(&tx, &ref, err), ERR_CONFLICT, "certificate_not_held");
	MUST(db_tx_commit(&tx, err));
	/* The key is blocked all the same: nobody certifies what is called compromised. */
	assert_int_equal(count("key_claim WHERE identity = 'once' AND blocked_at IS NOT NULL"), 1);
	assert_int_equal(count("device_slot WHERE device_id = 'once' AND current_serial IS NULL"), 1);
	assert_int_equal(count("device d JOIN jitrca.outbox o USING (device_id, version)"
		" WHERE device_id = 'once' AND d.version = 2 AND o.cause = 'revocation'"), 1);
}

static void
a_hold_can_be_lifted_or_made_final(void **state)
{
	own_struct(db_tx) tx = { 0 };
	struct db_cert_ref ref = issue(ask("hold"));
	struct db_revoke_result result;

	(void)state;
	assert_true(revoke_one(&ref, REASON_CERTIFICATE_HOLD).changed);
	assert_false(revoke_one(&ref, REASON_CERTIFICATE_HOLD).changed);
	assert_int_equal(status_of(&ref), CERT_HELD);
	assert_int_equal(count("device_slot WHERE device_id = 'hold' AND current_serial IS NOT NULL"), 1);
	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_revocation_unhold(&tx, &ref, err));
	MUST(db_tx_commit(&tx, err));
	assert_int_equal(status_of(&ref), CERT_ACTIVE);
	assert_int_equal(count("revocation WHERE serial = '\\x%s'", hex(&ref)), 0);
	assert_int_equal(count("outbox WHERE device_id = 'hold' AND cause = 'unhold'"), 1);

	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_revocation_revoke(&tx, &ref, REASON_CERTIFICATE_HOLD, 1700000000, &result, err));
	MUST(db_revocation_revoke(&tx, &ref, REASON_AFFILIATION_CHANGED, 1800000000, &result, err));
	assert_true(result.changed);
	assert_int_equal(result.revoked_at_s, 1700000000); /* the date of the hold */
	assert_int_equal(result.reason, REASON_AFFILIATION_CHANGED);
	MUST(db_tx_commit(&tx, err));
	assert_int_equal(count("revocation WHERE serial = '\\x%s' AND reason = 3"
		" AND revoked_at = to_timestamp(1700000000)", hex(&ref)), 1);
	assert_int_equal(count("device_slot WHERE device_id = 'hold' AND current_serial IS NULL"), 1);
}

static void
only_the_successor_confirms(void **state)
{
	own_struct(db_tx) tx = { 0 };
	struct db_cert_ref first = issue(ask("conf"));
	struct db_cert_ref next = issue(ask_successor("conf", &first));
	struct db_cert_ref predecessor;
	struct db_revoke_result result;
	bool changed;

	(void)state;
	MUST(db_tx_begin(&tx, world_pool, err));
	MUST_FAIL(db_revocation_confirm(&tx, &first, false, world_now, &predecessor, &changed, err),
		ERR_CONFLICT, "not_a_successor");
	MUST_FAIL(db_revocation_confirm(&tx, &next, false, world_now + 100 * 86400, &predecessor,
		&changed, err), ERR_CONFLICT, "not_a_successor");
	MUST(db_revocation_confirm(&tx, &next, false, world_now, &predecessor, &changed, err));
	assert_true(changed);
	assert_memory_equal(&predecessor, &first, sizeof(first));
	MUST(db_revocation_confirm(&tx, &next, false, world_now, &predecessor, &changed, err));
	assert_false(changed);
	assert_memory_equal(&predecessor, &first, sizeof(first));
	MUST_FAIL(db_revocation_revoke(&tx, &first, REASON_CERTIFICATE_HOLD, world_now, &result, err),
		ERR_CONFLICT, "certificate_superseded");
	MUST(db_tx_commit(&tx, err));
	assert_int_equal(status_of(&first), CERT_SUPERSEDED);
	assert_int_equal(status_of(&next), CERT_ACTIVE);
	assert_int_equal(count("device_slot WHERE device_id = 'conf' AND successor_serial IS NULL"
		" AND current_serial = '\\x%s'", hex(&next)), 1);
	assert_int_equal(count("outbox WHERE device_id = 'conf' AND cause = 'confirmed'"), 1);
	assert_int_equal(count("revocation WHERE serial = '\\x%s'", hex(&first)), 0);
	assert_true(revoke_one(&first, REASON_UNSPECIFIED).changed); /* a superseded one can be revoked */

	first = next;
	next = issue(ask_successor("conf", &first));
	assert_true(confirm(&next, true)); /* on_confirm: revoke */
	assert_int_equal(count("revocation WHERE serial = '\\x%s' AND reason = 4", hex(&first)), 1);
	first = next;
	next = issue(ask_successor("conf", &first));
	(void)revoke_one(&first, REASON_CERTIFICATE_HOLD);
	assert_true(confirm(&next, false)); /* a held predecessor stays listed for good */
	assert_int_equal(count("revocation WHERE serial = '\\x%s' AND reason = 4", hex(&first)), 1);
	first = next;
	next = issue(ask_successor("conf", &first));
	(void)revoke_one(&first, REASON_UNSPECIFIED);
	assert_true(confirm(&next, false)); /* nothing to supersede */
	assert_int_equal(status_of(&next), CERT_ACTIVE);

	first = next;
	next = issue(ask_successor("conf", &first));
	sql("UPDATE jitrca.device SET status = 'quarantined' WHERE device_id = 'conf'");
	{
		own_struct(db_tx) late = { 0 };

		MUST(db_tx_begin(&late, world_pool, err));
		MUST_FAIL(db_revocation_confirm(&late, &next, false, world_now, &predecessor, &changed,
			err), ERR_DENIED, "device_quarantined");
	}
	assert_int_equal(status_of(&next), CERT_PENDING_CONFIRMATION);
}

static void
what_is_not_there_is_not_revoked(void **state)
{
	own_struct(db_tx) tx = { 0 };
	struct db_revoke_item items[2] = { 0 };
	struct db_cert_ref unknown = draw_ref(world_now + 86400);
	struct db_cert_ref predecessor;
	bool changed;

	(void)state;
	items[0].ref = issue(ask("half"));
	items[1].ref = unknown;
	MUST(db_tx_begin(&tx, world_pool, err));
	MUST_FAIL(db_revocation_revoke_many(&tx, items, 2, world_now, err), ERR_NOT_FOUND,
		"certificate_unknown");
	MUST_FAIL(db_revocation_unhold(&tx, &unknown, err), ERR_NOT_FOUND, "certificate_unknown");
	MUST_FAIL(db_revocation_confirm(&tx, &unknown, false, world_now, &predecessor, &changed, err),
		ERR_NOT_FOUND, "certificate_unknown");
	MUST(db_revocation_revoke_many(&tx, items, 0, world_now, err));
	MUST(db_tx_commit(&tx, err));
	assert_int_equal(status_of(&items[0].ref), CERT_ACTIVE);
}

static void
a_device_is_not_a_principal_of_its_name(void **state)
{
	own_struct(db_tx) tx = { 0 };
	struct db_admit_item item = ask("st");
	struct db_cert_ref of_device[8];
	struct db_cert_ref old;
	size_t n;

	(void)state;
	item.slot = SLOT_MANY;
	item.profile = "station";
	(void)issue(item);
	old = issue(ask("st"));
	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_revocation_of_device(&tx, "st", of_device, 8, &n, err));
	assert_int_equal(n, 1);
	assert_memory_equal(&of_device[0], &old, sizeof(old));
}

static void
sql_itself_forbids_what_must_not_be(void **state)
{
	struct db_cert_ref ref = issue(ask("guard"));
	char text[512];

	(void)state;
	snprintf(text, sizeof(text), "UPDATE jitrca.certificate SET der = '\\x00'"
		" WHERE serial = '\\x%s'", hex(&ref));
	sql_refused("23514", text);
	snprintf(text, sizeof(text), "UPDATE jitrca.certificate SET of_device = false"
		" WHERE serial = '\\x%s'", hex(&ref));
	sql_refused("23514", text);
	(void)revoke_one(&ref, REASON_UNSPECIFIED);
	snprintf(text, sizeof(text), "UPDATE jitrca.certificate SET status = 'active'"
		" WHERE serial = '\\x%s'", hex(&ref));
	sql_refused("23514", text);
	snprintf(text, sizeof(text), "DELETE FROM jitrca.revocation WHERE serial = '\\x%s'", hex(&ref));
	sql_refused("23514", text);
	snprintf(text, sizeof(text), "UPDATE jitrca.revocation SET revoked_at = now() - interval '1 day'"
		" WHERE serial = '\\x%s'", hex(&ref));
	sql_refused("23514", text);
	snprintf(text, sizeof(text), "UPDATE jitrca.revocation SET reason = 1 WHERE serial = '\\x%s'",
		hex(&ref));
	sql_refused("23514", text);
	sql_refused("23514", "UPDATE jitrca.crl_scope SET wanted = 0");
	sql_refused("23514", "UPDATE jitrca.crl_scope SET last_number = -1");
	sql_refused("23514", "UPDATE jitrca.crl_scope SET published = -1");
	sql("INSERT INTO jitrca.manifest (manifest_id, station_id, profile, quantity, not_before,"
	    " not_after, created_by) VALUES ('guard', 'st', 'device', 1, now(),"
	    " now() + interval '1 day', 'x')");
	sql_refused("23514", "UPDATE jitrca.manifest SET used = 2 WHERE manifest_id = 'guard'");
	snprintf(text, sizeof(text), "INSERT INTO jitrca.certificate SELECT * FROM jitrca.certificate"
		" WHERE serial = '\\x%s'", hex(&ref));
	sql_refused("23505", text); /* a serial is unique for its issuer */
}

static void
listeners_are_told(void **state)
{
	struct db_cert_ref ref = issue(ask("told"));
	PGnotify *notify;
	int64_t got = 0;
	char wanted[64];

	(void)state;
	(void)snprintf(wanted, sizeof(wanted), "1 %s", hex(&ref));
	sql("LISTEN jitrca_revocation");
	(void)revoke_one(&ref, REASON_UNSPECIFIED);
	sql("SELECT 1");
	while ((notify = PQnotifies(world_pg)) != NULL) {
		assert_string_equal(notify->relname, "jitrca_revocation");
		assert_string_equal(notify->extra, wanted);
		PQfreemem(notify);
		got++;
	}
	assert_int_equal(got, 1);
	sql("UNLISTEN *");
}

/* Bulk revocations and single ones over the same devices, in opposite orders. */
static struct db_cert_ref ring[32];

static void *
revoke_ring(void *arg)
{
	uintptr_t failures = 0;

	for (int round = 0; round < 30; round++) {
		own_struct(db_tx) tx = { 0 };
		struct db_revoke_item items[32] = { 0 };
		struct err err;

		for (size_t i = 0; i < 32; i++)
			items[i] = (struct db_revoke_item){
				.ref = ring[arg != NULL ? i : 31 - i],
				.reason = REASON_CERTIFICATE_HOLD,
			};
		if (db_tx_begin(&tx, world_pool, &err) != OK ||
		    db_revocation_revoke_many(&tx, items, arg != NULL ? 32 : 16, world_now, &err) != OK ||
		    db_tx_commit(&tx, &err) != OK) {
			fprintf(stderr, "%s: %s\n", err.code, err.text);
			failures++;
		}
		for (size_t i = 0; i < 4; i++) {
			own_struct(db_tx) undo = { 0 };

			if (db_tx_begin(&undo, world_pool, &err) == OK &&
			    db_revocation_unhold(&undo, &ring[(size_t)rand() % 32], &err) == OK &&
			    db_tx_commit(&undo, &err) != OK)
				failures++;
		}
	}
	return (void *)failures;
}

static void
revocations_of_many_do_not_deadlock(void **state)
{
	pthread_t threads[4];

	(void)state;
	for (int i = 0; i < 32; i++) {
		char name[16];

		snprintf(name, sizeof(name), "rr-%d", i);
		ring[i] = issue(ask(name));
	}
	for (uintptr_t i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, revoke_ring, (void *)(i % 2)), 0);
	for (int i = 0; i < 4; i++) {
		void *failures;

		pthread_join(threads[i], &failures);
		assert_null(failures);
	}
	assert_int_equal(count("certificate c LEFT JOIN jitrca.revocation r USING (issuer_id, serial)"
		" WHERE (c.status = 'held') <> (r.serial IS NOT NULL) AND c.device_id LIKE 'rr-%%'"), 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_first_date_and_reason_stand),
		cmocka_unit_test(a_hold_can_be_lifted_or_made_final),
		cmocka_unit_test(only_the_successor_confirms),
		cmocka_unit_test(what_is_not_there_is_not_revoked),
		cmocka_unit_test(a_device_is_not_a_principal_of_its_name),
		cmocka_unit_test(sql_itself_forbids_what_must_not_be),
		cmocka_unit_test(listeners_are_told),
		cmocka_unit_test(revocations_of_many_do_not_deadlock),
	};

	return cmocka_run_group_tests(tests, world_setup, world_teardown);
}
