#include "tests/unit/db/issuing.h"

static void
one_idempotency_key_gives_one_certificate(void **state)
{
	struct db_admit_item first = with_key(ask("idem"), "k-idem", 1);
	struct db_admit_item again = with_key(ask("idem"), "k-idem", 1);
	struct db_admit_item other = with_key(ask("idem"), "k-idem", 2);
	struct db_admit_item stranger = with_key(ask("idem-2"), "k-idem", 2);

	(void)state;
	admit_wants(&first, ADMISSION_ADMITTED);
	admit_wants(&again, ADMISSION_BUSY);
	admit_refused(&other, ERR_CONFLICT, "idempotency_key_reused"); /* also while busy */
	record(&first, 1);
	admit_wants(&again, ADMISSION_REPLAY);
	assert_memory_equal(&again.existing, &first.ref, sizeof(first.ref));
	admit_refused(&other, ERR_CONFLICT, "idempotency_key_reused");
	stranger.principal_id = "st"; /* another principal's key is another key */
	admit_wants(&stranger, ADMISSION_ADMITTED);
	record(&stranger, 1);
	(void)revoke_one(&first.ref, REASON_UNSPECIFIED);
	admit_wants(&again, ADMISSION_REPLAY); /* shows the present status */
	nothing_left(&again);
	nothing_left(&other);
}

static void
refusals_are_not_remembered(void **state)
{
	struct db_admit_item item = with_key(ask("refused"), "k-refused", 1);

	(void)state;
	(void)issue(ask("refused"));
	admit_refused(&item, ERR_CONFLICT, "device_has_certificate");
	nothing_left(&item);
	item.replace = true;
	memset(item.request_hash, 9, sizeof(item.request_hash));
	admit_wants(&item, ADMISSION_ADMITTED);
	record(&item, 1);
}

static void
without_a_key_the_same_request_gives_the_live_certificate(void **state)
{
	struct db_admit_item item = ask("again");
	struct db_admit_item repeat = item;
	struct db_admit_item many = ask("srv");
	struct db_admit_item many_again = many;
	struct db_admit_item keyed;

	(void)state;
	repeat.ref = draw_ref(item.not_after_s);
	(void)issue(item);
	admit_wants(&repeat, ADMISSION_REPLAY);
	assert_memory_equal(&repeat.existing, &item.ref, sizeof(item.ref));
	keyed = with_key(repeat, "k-again", 1); /* with a key it is another request */
	admit_refused(&keyed, ERR_CONFLICT, "device_has_certificate");
	(void)revoke_one(&item.ref, REASON_UNSPECIFIED);
	admit_wants(&repeat, ADMISSION_ADMITTED); /* nothing lives: anew */
	record(&repeat, 1);
	nothing_open(&repeat);

	many.slot = many_again.slot = SLOT_MANY;
	many.profile = many_again.profile = "server";
	many_again.ref = draw_ref(many.not_after_s);
	(void)issue(many);
	admit_wants(&many_again, ADMISSION_REPLAY);
	many_again = with_key(many_again, "k-many", 1);
	admit_wants(&many_again, ADMISSION_ADMITTED);
	record(&many_again, 1);
	assert_int_equal(count("certificate WHERE device_id = 'srv' AND status = 'active'"
		" AND NOT of_device"), 2);
	assert_int_equal(count("device WHERE device_id = 'srv'"), 0);
}

/* A certificate that one station was allowed is not another's for the asking. */
static void
without_a_key_another_station_gets_no_certificate_of_others(void **state)
{
	struct db_admit_item item = ask_station("st", "repeat");
	struct db_admit_item other;
	struct db_admit_item many = ask_station("st", "repeat-many");

	(void)state;
	manifest("m-repeat", "st", 5, false);
	line("m-repeat", "repeat");
	line("m-repeat", "repeat-many");
	(void)issue(item);
	item.ref = draw_ref(item.not_after_s);
	admit_wants(&item, ADMISSION_REPLAY);
	other = item;
	other.principal_id = "st2";
	admit_refused(&other, ERR_CONFLICT, "device_has_certificate");
	other.replace = true;
	admit_refused(&other, ERR_DENIED, "device_not_in_manifest");
	other = item;
	other.principal_id = "admin";
	other.needs_manifest = false;
	admit_wants(&other, ADMISSION_REPLAY);
	nothing_left(&item);

	many.slot = SLOT_MANY;
	(void)issue(many);
	many.ref = draw_ref(many.not_after_s);
	admit_wants(&many, ADMISSION_REPLAY);
	many.principal_id = "st2";
	admit_refused(&many, ERR_CONFLICT, "public_key_in_use");
}

static void
one_public_key_one_identity(void **state)
{
	struct db_admit_item item = ask("key-a");
	struct db_admit_item clone = ask("key-b");
	struct db_admit_item other_profile = ask("key-a");
	struct db_admit_item under_way = ask("key-c");
	struct db_admit_item same = ask("key-c");
	struct db_cert_ref ref;

	(void)state;
	memcpy(clone.spki_sha256, item.spki_sha256, 32);
	memcpy(other_profile.spki_sha256, item.spki_sha256, 32);
	other_profile.profile = "short";
	ref = issue(item);
	admit_refused(&clone, ERR_CONFLICT, "public_key_in_use");
	nothing_left(&clone);
	admit_refused(&other_profile, ERR_CONFLICT, "public_key_in_use");

	memcpy(same.spki_sha256, under_way.spki_sha256, 32);
	admit_wants(&under_way, ADMISSION_ADMITTED);
	admit_wants(&same, ADMISSION_BUSY); /* by its key */
	same = ask("key-c");
	admit_wants(&same, ADMISSION_BUSY); /* by its device */
	nothing_left(&same);
	record(&under_way, 1);

	(void)revoke_one(&ref, REASON_KEY_COMPROMISE);
	item.ref = draw_ref(item.not_after_s);
	item.replace = true;
	admit_refused(&item, ERR_DENIED, "public_key_blocked");
	nothing_left(&item);
}

static void
a_hold_counts_as_a_life(void **state)
{
	struct db_cert_ref first = issue(ask("held"));
	struct db_admit_item item = ask("held");

	(void)state;
	assert_true(revoke_one(&first, REASON_CERTIFICATE_HOLD).changed);
	admit_refused(&item, ERR_CONFLICT, "device_has_certificate");
	item.replace = true;
	admit_wants(&item, ADMISSION_ADMITTED);
	record(&item, 1);
	assert_int_equal(count("revocation WHERE serial = '\\x%s' AND reason = 4", hex(&first)), 1);
}

static void
a_dead_current_certificate_is_no_obstacle(void **state)
{
	struct db_admit_item old = ask("dead");
	struct db_admit_item item = ask("dead");

	(void)state;
	old.not_after_s = world_now - 10;
	old.ref = draw_ref(old.not_after_s);
	(void)issue(old); /* expired */
	admit_wants(&item, ADMISSION_ADMITTED);
	assert_int_equal(item.replaced.issuer_id, 0);
	record(&item, 1);
	assert_int_equal(status_of(&old.ref), CERT_ACTIVE); /* as stored: it just ended */
	(void)revoke_one(&item.ref, REASON_UNSPECIFIED);
	item = ask("dead");
	admit_wants(&item, ADMISSION_ADMITTED);
	record(&item, 1);
}

static void
rotation_has_one_unconfirmed_successor(void **state)
{
	struct db_cert_ref first = issue(ask("rot"));
	struct db_admit_item a = ask_successor("rot", &first);
	struct db_admit_item again = a;
	struct db_admit_item keyed;
	struct db_admit_item b = ask_successor("rot", &first);
	struct db_admit_item bad = ask_successor("rot", &first);

	(void)state;
	again.ref = draw_ref(a.not_after_s);
	(void)issue(a);
	assert_int_equal(status_of(&a.ref), CERT_PENDING_CONFIRMATION);
	assert_int_equal(status_of(&first), CERT_ACTIVE);
	admit_wants(&again, ADMISSION_REPLAY); /* a lost answer */
	assert_memory_equal(&again.existing, &a.ref, sizeof(a.ref));
	keyed = with_key(again, "k-rot", 1);
	admit_wants(&keyed, ADMISSION_REPLAY);
	assert_int_equal(count("idempotency WHERE key = 'k-rot' AND serial = '\\x%s'", hex(&a.ref)), 1);
	admit_wants(&keyed, ADMISSION_REPLAY); /* and now by its key */

	admit_wants(&b, ADMISSION_ADMITTED); /* another key replaces it */
	assert_memory_equal(&b.replaced, &a.ref, sizeof(a.ref));
	record(&b, 1);
	assert_int_equal(status_of(&a.ref), CERT_REVOKED);
	assert_int_equal(count("revocation WHERE serial = '\\x%s' AND reason = 4", hex(&a.ref)), 1);

	bad.predecessor = b.ref;
	admit_refused(&bad, ERR_DENIED, "certificate_not_current"); /* it is not confirmed */
	assert_true(confirm(&b.ref, false));
	bad.predecessor = first;
	admit_refused(&bad, ERR_DENIED, "certificate_not_current"); /* superseded */
	bad.predecessor = b.ref;
	(void)revoke_one(&b.ref, REASON_CERTIFICATE_HOLD);
	admit_refused(&bad, ERR_DENIED, "certificate_not_current"); /* held */
	(void)revoke_one(&b.ref, REASON_UNSPECIFIED);
	admit_refused(&bad, ERR_DENIED, "certificate_not_current"); /* revoked */
	bad = ask_successor("never-seen", &first);
	admit_refused(&bad, ERR_DENIED, "certificate_not_current");
	nothing_left(&bad);
}

static void
quarantined_and_decommissioned_devices_are_refused(void **state)
{
	struct db_cert_ref ref = issue(ask("q"));
	struct db_admit_item item = ask("q");
	struct db_admit_item rotation = ask_successor("q", &ref);

	(void)state;
	item.replace = true;
	set_device("q", "quarantined");
	admit_refused(&item, ERR_DENIED, "device_quarantined");
	admit_refused(&rotation, ERR_DENIED, "device_quarantined");
	set_device("q", "decommissioned");
	admit_refused(&rotation, ERR_DENIED, "device_decommissioned");

	manifest("m-q-no", "st", 10, false);
	line("m-q-no", "q");
	item = ask_station("st", "q");
	admit_refused(&item, ERR_DENIED, "device_decommissioned");
	item.replace = true;
	admit_refused(&item, ERR_DENIED, "device_decommissioned");
	sql("UPDATE jitrca.manifest SET allow_replace = true WHERE manifest_id = 'm-q-no'");
	admit_wants(&item, ADMISSION_ADMITTED);
	record(&item, 1);
	assert_int_equal(count("device WHERE device_id = 'q' AND status = 'active' AND reason = ''"), 1);

	set_device("q", "decommissioned");
	item = ask("q"); /* an admin */
	item.replace = true;
	admit_wants(&item, ADMISSION_ADMITTED);
	record(&item, 1);
	assert_int_equal(count("device WHERE device_id = 'q' AND status = 'active'"), 1);
}

static void
principals_are_checked(void **state)
{
	struct db_admit_item item = ask("p");

	(void)state;
	item.slot = SLOT_MANY;
	item.profile = "station";
	item.role_identity = true;
	item.identity_role = "station";
	admit_refused(&item, ERR_NOT_FOUND, "principal_unknown");
	item.identity = "admin";
	admit_refused(&item, ERR_NOT_FOUND, "principal_unknown");
	item.identity = "gone";
	admit_wants(&item, ADMISSION_ADMITTED);
	record(&item, 1);
	sql("UPDATE jitrca.principal SET disabled_at = now() WHERE principal_id = 'gone'");
	item.ref = draw_ref(item.not_after_s);
	admit_refused(&item, ERR_DENIED, "principal_disabled");
	item = ask_station("gone", "p");
	admit_refused(&item, ERR_DENIED, "principal_disabled");
	item = ask_station("nobody", "p");
	admit_refused(&item, ERR_NOT_FOUND, "principal_unknown");
	item = ask_station("st", "p");
	item.profile = "admin";
	admit_refused(&item, ERR_DENIED, "profile_not_allowed_for_station");
	nothing_left(&item);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_idempotency_key_gives_one_certificate),
		cmocka_unit_test(refusals_are_not_remembered),
		cmocka_unit_test(without_a_key_the_same_request_gives_the_live_certificate),
		cmocka_unit_test(without_a_key_another_station_gets_no_certificate_of_others),
		cmocka_unit_test(one_public_key_one_identity),
		cmocka_unit_test(a_hold_counts_as_a_life),
		cmocka_unit_test(a_dead_current_certificate_is_no_obstacle),
		cmocka_unit_test(rotation_has_one_unconfirmed_successor),
		cmocka_unit_test(quarantined_and_decommissioned_devices_are_refused),
		cmocka_unit_test(principals_are_checked),
	};

	return cmocka_run_group_tests(tests, world_setup, world_teardown);
}
