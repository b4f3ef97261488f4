#include "tests/unit/db/issuing.h"

static void
a_key_blocked_meanwhile_ends_the_new_certificate_too(void **state)
{
	struct db_admit_item item = ask("meanwhile");
	struct db_admit_item more;

	(void)state;
	item.slot = SLOT_MANY;
	(void)issue(item);
	more = with_key(item, "k-meanwhile", 1);
	more.ref = draw_ref(item.not_after_s);
	admit_wants(&more, ADMISSION_ADMITTED);
	(void)revoke_one(&item.ref, REASON_KEY_COMPROMISE);
	record(&more, 1);
	assert_int_equal(status_of(&more.ref), CERT_REVOKED);
	assert_int_equal(count("revocation WHERE serial = '\\x%s' AND reason = 1", hex(&more.ref)), 1);
}

static void
rework_replaces_and_revokes(void **state)
{
	struct db_cert_ref first = issue(ask("rework"));
	struct db_admit_item successor = ask_successor("rework", &first);
	struct db_admit_item item = ask("rework");
	int64_t full;

	(void)state;
	(void)issue(successor);
	admit_refused(&item, ERR_CONFLICT, "device_has_certificate");
	item.replace = true;
	item.thing_type = "pump";
	full = strtoll(sql("SELECT wanted FROM jitrca.crl_scope WHERE issuer_id = 1 AND scope = -1"),
		NULL, 10);
	admit_wants(&item, ADMISSION_ADMITTED);
	assert_memory_equal(&item.replaced, &first, sizeof(first));
	record(&item, 1);
	assert_int_equal(status_of(&first), CERT_REVOKED);
	assert_int_equal(status_of(&successor.ref), CERT_REVOKED);
	assert_int_equal(count("revocation WHERE reason = 4 AND serial IN ('\\x%s', '\\x%s')",
		hex(&first), hex(&successor.ref)), 2);
	assert_int_equal(count("device_slot WHERE device_id = 'rework' AND successor_serial IS NULL"
		" AND current_serial = '\\x%s' AND claim_serial IS NULL", hex(&item.ref)), 1);
	assert_int_equal(count("certificate WHERE serial = '\\x%s' AND predecessor_serial = '\\x%s'",
		hex(&item.ref), hex(&first)), 1);
	assert_int_equal(count("certificate WHERE serial = '\\x%s' AND successor_serial = '\\x%s'",
		hex(&first), hex(&item.ref)), 1);
	assert_int_equal(count("device WHERE device_id = 'rework' AND thing_type = 'pump'"), 1);
	assert_int_equal(count("outbox o JOIN jitrca.device d USING (device_id)"
		" WHERE device_id = 'rework' AND o.version = d.version"), 1);
	assert_true(strtoll(sql("SELECT wanted FROM jitrca.crl_scope WHERE issuer_id = 1"
		" AND scope = -1"), NULL, 10) > full);
	assert_int_equal(count("crl_scope WHERE issuer_id = 1 AND scope = %d AND wanted > published",
		serial_shard(&first.serial)), 1);
}

static void
a_successor_confirmed_meanwhile_is_not_revoked(void **state)
{
	struct db_cert_ref first = issue(ask("race"));
	struct db_admit_item a = ask_successor("race", &first);
	struct db_admit_item b = ask_successor("race", &first);

	(void)state;
	(void)issue(a);
	admit_wants(&b, ADMISSION_ADMITTED);
	assert_true(confirm(&a.ref, false));
	record(&b, 1);
	assert_int_equal(status_of(&a.ref), CERT_ACTIVE);
	assert_int_equal(status_of(&b.ref), CERT_PENDING_CONFIRMATION);
	assert_int_equal(count("certificate WHERE serial = '\\x%s' AND predecessor_serial = '\\x%s'",
		hex(&b.ref), hex(&a.ref)), 1);
	assert_true(confirm(&b.ref, false));
	assert_int_equal(status_of(&a.ref), CERT_SUPERSEDED);
}

static void
a_device_decommissioned_meanwhile_gets_nothing_that_lives(void **state)
{
	struct db_cert_ref ref = issue(ask("d"));
	struct db_admit_item rotation = ask_successor("d", &ref);
	struct db_admit_item item = ask("d");

	(void)state;
	admit_wants(&rotation, ADMISSION_ADMITTED);
	set_device("d", "decommissioned");
	record(&rotation, 1);
	assert_int_equal(status_of(&rotation.ref), CERT_REVOKED);
	item.replace = true;
	admit_wants(&item, ADMISSION_ADMITTED); /* revives, but is decommissioned once more */
	sql("UPDATE jitrca.device SET version = version + 1 WHERE device_id = 'd'");
	record(&item, 1);
	assert_int_equal(status_of(&item.ref), CERT_REVOKED);
	assert_int_equal(count("revocation WHERE serial = '\\x%s' AND reason = 5", hex(&item.ref)), 1);
	assert_int_equal(count("device_slot WHERE device_id = 'd' AND current_serial IS NULL"
		" AND successor_serial IS NULL"), 1);
}

static void
a_device_revoked_meanwhile_does_not_rotate(void **state)
{
	struct db_cert_ref ref = issue(ask("w"));
	struct db_admit_item rotation = ask_successor("w", &ref);

	(void)state;
	admit_wants(&rotation, ADMISSION_ADMITTED);
	(void)revoke_one(&ref, REASON_KEY_COMPROMISE);
	record(&rotation, 1);
	assert_int_equal(status_of(&rotation.ref), CERT_REVOKED);
	assert_int_equal(count("revocation WHERE serial = '\\x%s' AND reason = 9",
		hex(&rotation.ref)), 1);
	assert_int_equal(count("device_slot WHERE device_id = 'w' AND successor_serial IS NULL"), 1);
}

static void
record_tells_what_ended_with_it(void **state)
{
	struct db_cert_ref current = issue(ask("told"));
	struct db_cert_ref successor = issue(ask_successor("told", &current));
	struct db_admit_item item = ask("told");
	own_struct(db_tx) tx = { 0 };
	struct db_record_item told;

	(void)state;
	item.replace = true;
	admit_wants(&item, ADMISSION_ADMITTED);
	sql("UPDATE jitrca.key_claim SET blocked_at = now() WHERE serial = '\\x%s'",
		hex(&item.ref));
	told = record_of(&item);
	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_issuance_record(&tx, &told, 1, err));
	MUST(db_tx_commit(&tx, err));
	assert_int_equal(told.ended_count, 2);
	assert_memory_equal(&told.ended[0], &current, sizeof(current));
	assert_memory_equal(&told.ended[1], &successor, sizeof(successor));
	assert_true(told.revoked);
	assert_int_equal(told.reason, REASON_KEY_COMPROMISE);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_key_blocked_meanwhile_ends_the_new_certificate_too),
		cmocka_unit_test(rework_replaces_and_revokes),
		cmocka_unit_test(a_successor_confirmed_meanwhile_is_not_revoked),
		cmocka_unit_test(a_device_decommissioned_meanwhile_gets_nothing_that_lives),
		cmocka_unit_test(a_device_revoked_meanwhile_does_not_rotate),
		cmocka_unit_test(record_tells_what_ended_with_it),
	};

	return cmocka_run_group_tests(tests, world_setup, world_teardown);
}
