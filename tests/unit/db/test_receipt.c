/* db/receipt.c: selections, receipts, their targets and proofs, and the second administrator. */
#include "tests/unit/db/world.h"

#include "base/mem.h"
#include "db/receipt.h"
#include "db/revocation.h"

static struct db_bulk bulk, found; /* large: not for the stack */

static void
named(const char *id, enum bulk_state state)
{
	bulk = (struct db_bulk){ .state = state, .actor = "admin", .request_id = "r",
		.reason = REASON_CA_COMPROMISE, .comment = "c", .selector = "{}",
		.issued_until_s = world_now };
	(void)snprintf(bulk.revocation_id, sizeof(bulk.revocation_id), "%s", id);
}

static struct db_selection
of_device(const char *device_id)
{
	return (struct db_selection){ .filter = { .now_s = world_now, .device_id = device_id } };
}

static void
a_blast_radius_is_seen_before(void **state)
{
	static const char *const NAMES[] = { "blast-0", "blast-2", "nobody" };
	own_struct(db_tx) tx = { 0 };
	struct db_blast_radius radius;
	struct db_selection selection = { .filter = { .now_s = world_now, .profile = "short" } };
	struct db_cert_ref gone;

	(void)state;
	for (int i = 0; i < 5; i++) {
		char name[16];
		struct db_admit_item item;

		snprintf(name, sizeof(name), "blast-%d", i % 3);
		item = ask(name);
		item.profile = "short";
		item.principal_id = i == 4 ? "admin" : i == 0 ? "st2" : "st";
		item.slot = i == 4 ? SLOT_MANY : SLOT_CURRENT;
		item.replace = true;
		gone = issue(item);
	}
	gone = issue(ask("blast-x"));
	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_revocation_revoke(&tx, &gone, REASON_UNSPECIFIED, world_now, &(struct db_revoke_result){ 0 },
		err));
	MUST(db_selection_radius(&tx, &selection, &radius, err));
	/* blast-0 was replaced by the fourth, which leaves 1, 2, 0 and the service. */
	assert_int_equal(radius.certificates, 4);
	assert_int_equal(radius.devices, 3);
	assert_int_equal(radius.cut_off, 3);
	assert_int_equal(radius.seen_never, 3);
	assert_int_equal(radius.entries, 4);
	assert_true(radius.lists >= 1 && radius.largest_list >= 1);
	assert_int_equal(radius.stations, 1);
	assert_int_equal(radius.by_station_count, 1);
	assert_string_equal(radius.by_station[0].key, "st");
	assert_int_equal(radius.by_station[0].count, 3);
	assert_int_equal(radius.by_profile_count, 1);
	selection = of_device("blast-x");
	MUST(db_selection_radius(&tx, &selection, &radius, err));
	assert_int_equal(radius.certificates, 0);
	assert_false(radius.everything);
	selection = (struct db_selection){ .filter = { .now_s = world_now, .principal_id = "st",
		.issued_after_s = world_now - 10, .issued_before_s = world_now + 10 } };
	MUST(db_selection_radius(&tx, &selection, &radius, err));
	assert_int_equal(radius.certificates, 3);
	selection = (struct db_selection){ .filter = { .now_s = world_now, .manifest_id = "no" } };
	MUST(db_selection_radius(&tx, &selection, &radius, err));
	assert_int_equal(radius.certificates, 0);
	selection = (struct db_selection){ .filter = { .now_s = world_now }, .device_ids = NAMES,
		.device_id_count = 3 };
	MUST(db_selection_radius(&tx, &selection, &radius, err));
	assert_int_equal(radius.devices, 2);
	assert_false(radius.everything);
	selection = (struct db_selection){ .filter = { .now_s = world_now } };
	MUST(db_selection_radius(&tx, &selection, &radius, err));
	assert_true(radius.certificates >= 4);
	assert_true(radius.everything);
}

static void
a_key_and_attributes_select(void **state)
{
	own_struct(db_tx) tx = { 0 };
	struct db_admit_item item = ask("sel-key");
	struct db_cert_ref ref = issue(item);
	struct db_selection selection = { .filter = { .now_s = world_now } };
	uint8_t spki[DB_SHA256_BYTES], other[DB_SHA256_BYTES] = { 1 };
	struct db_certificate certificate;
	struct db_blast_radius radius;

	(void)state;
	(void)issue(ask("sel-other"));
	sql("UPDATE jitrca.device SET attributes = '{\"line\":\"7\",\"site\":\"a\"}'"
	    " WHERE device_id = 'sel-key'");
	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_certificate_by_ref(&tx, &ref, &certificate, err));
	memcpy(spki, certificate.spki_sha256, sizeof(spki));
	db_certificate_free(&certificate);
	selection.spki_sha256 = spki;
	MUST(db_selection_radius(&tx, &selection, &radius, err));
	assert_int_equal(radius.certificates, 1);
	selection.spki_sha256 = other;
	MUST(db_selection_radius(&tx, &selection, &radius, err));
	assert_int_equal(radius.certificates, 0);
	selection = (struct db_selection){ .filter = { .now_s = world_now },
		.attributes = "{\"line\":\"7\"}" };
	MUST(db_selection_radius(&tx, &selection, &radius, err));
	assert_int_equal(radius.certificates, 1);
	selection.attributes = "{\"line\":\"7\",\"site\":\"b\"}";
	MUST(db_selection_radius(&tx, &selection, &radius, err));
	assert_int_equal(radius.certificates, 0);
}

/* Who else has a working certificate is not cut off. */
static void
a_successor_outside_keeps_its_device(void **state)
{
	own_struct(db_tx) tx = { 0 };
	struct db_cert_ref first = issue(ask("keeps"));
	struct db_admit_item next = ask("keeps");
	struct db_selection selection = of_device("keeps");
	struct db_blast_radius radius;

	(void)state;
	next.principal_id = "keeps";
	next.slot = SLOT_SUCCESSOR;
	next.predecessor = first;
	(void)issue(next);
	/* Told apart by when they were issued. */
	sql("UPDATE jitrca.certificate SET issued_at = issued_at - interval '1 day'"
	    " WHERE device_id = 'keeps' AND status = 'active'");
	MUST(db_tx_begin(&tx, world_pool, err));
	selection.filter.issued_before_s = world_now - 3600;
	MUST(db_selection_radius(&tx, &selection, &radius, err));
	assert_int_equal(radius.certificates, 1);
	assert_int_equal(radius.keep_unconfirmed, 1);
	assert_int_equal(radius.cut_off, 0);
	selection.filter.issued_before_s = 0;
	MUST(db_selection_radius(&tx, &selection, &radius, err));
	assert_int_equal(radius.certificates, 2);
	assert_int_equal(radius.cut_off, 1);
}

static void
a_bulk_revocation_can_be_resumed(void **state)
{
	own_struct(db_tx) tx = { 0 };
	own_struct(db_tx) other = { 0 };
	static const char *const NAMES[] = { "bulk-a", "bulk-b", "bulk-c" };
	struct db_selection selection = { .filter = { .now_s = world_now }, .device_ids = NAMES,
		.device_id_count = 3 };
	struct db_target targets[3];
	struct db_revoke_item item;
	struct db_receipt_list lists[8];
	struct db_outcomes outcomes;
	struct db_cert_ref none = { 0 };
	size_t n;

	(void)state;
	for (size_t i = 0; i < 3; i++)
		(void)issue(ask(NAMES[i]));
	named("00112233445566778899aabbccddeeff", BULK_RUNNING);
	MUST(db_tx_begin(&tx, world_pool, err));
	MUST_FAIL(db_bulk_next(&tx, &found, err), ERR_NOT_FOUND, "revocation_unknown");
	MUST_FAIL(db_bulk_find(&tx, bulk.revocation_id, &found, err), ERR_NOT_FOUND,
		"revocation_unknown");
	MUST_FAIL(db_bulk_advance(&tx, bulk.revocation_id, 1, NULL, false, err), ERR_NOT_FOUND,
		"revocation_unknown");
	MUST(db_bulk_freeze(&tx, bulk.revocation_id, &selection, &bulk.matched, err));
	assert_int_equal(bulk.matched, 3);
	MUST(db_bulk_create(&tx, &bulk, err));
	MUST(db_tx_commit(&tx, err));

	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_bulk_next(&tx, &found, err));
	assert_string_equal(found.revocation_id, bulk.revocation_id);
	assert_int_equal(found.state, BULK_RUNNING);
	assert_int_equal(found.matched, 3);
	assert_int_equal(found.cursor.issuer_id, 0);
	MUST(db_tx_begin(&other, world_pool, err));
	MUST_FAIL(db_bulk_next(&other, &found, err), ERR_NOT_FOUND, "revocation_unknown");
	db_tx_end(&other);
	MUST(db_targets(&tx, bulk.revocation_id, &none, true, 2, targets, &n, err));
	assert_int_equal(n, 2);
	assert_true(targets[0].exists);
	assert_string_equal(targets[0].outcome, "");
	item = (struct db_revoke_item){ .ref = targets[0].ref, .reason = REASON_CA_COMPROMISE };
	MUST(db_revocation_revoke_many(&tx, &item, 1, world_now, err));
	(void)snprintf(targets[0].outcome, sizeof(targets[0].outcome), "revoked");
	(void)snprintf(targets[1].outcome, sizeof(targets[1].outcome), "expired");
	MUST(db_targets_done(&tx, bulk.revocation_id, targets, 2, err));
	MUST(db_bulk_advance(&tx, bulk.revocation_id, 1, &targets[1].ref, false, err));
	MUST(db_bulk_find(&tx, bulk.revocation_id, &found, err));
	assert_int_equal(found.revoked, 1);
	assert_true(db_ref_equal(&found.cursor, &targets[1].ref));
	MUST(db_targets(&tx, bulk.revocation_id, &found.cursor, true, 2, &targets[2], &n, err));
	assert_int_equal(n, 1);
	/* Shard, delta and full list have to show it, and none does: nothing is published in this world. */
	MUST(db_receipt_lists(&tx, bulk.revocation_id, lists, 8, &n, err));
	assert_int_equal(n, 3);
	assert_int_equal(lists[0].scope, CRL_SCOPE_DELTA);
	assert_int_equal(lists[0].done_at_us, 0);
	MUST(db_targets_count(&tx, bulk.revocation_id, &outcomes, err));
	assert_int_equal(outcomes.open, 1);
	assert_int_equal(outcomes.revoked, 1);
	assert_int_equal(outcomes.expired, 1);
	MUST(db_bulk_advance(&tx, bulk.revocation_id, 0, NULL, true, err));
	MUST(db_bulk_find(&tx, bulk.revocation_id, &found, err));
	assert_int_equal(found.state, BULK_DONE);
	assert_true(found.finished_at_s > 0);
	MUST(db_tx_commit(&tx, err));
}

/* Whoever publishes notes which list was the first to have all that was wanted of it. */
static void
the_list_that_shows_it_is_noted(void **state)
{
	own_struct(db_tx) tx = { 0 };
	struct db_cert_ref ref = issue(ask("proof"));
	struct db_target target = { .ref = ref, .outcome = "revoked" };
	struct db_revoke_result result;
	struct db_receipt_list lists[8];
	struct db_crl crl = { .issuer_id = ref.issuer_id, .scope = CRL_SCOPE_FULL,
		.this_update_s = world_now, .next_update_s = world_now + 60, .length_bytes = 1,
		.sha256 = { 0xab } };
	struct db_crl_turn turn;
	size_t n;

	(void)state;
	named("20112233445566778899aabbccddeeff", BULK_DONE);
	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_crl_reserve(&tx, ref.issuer_id, CRL_SCOPE_FULL, &turn, err)); /* before: it has it not */
	MUST(db_revocation_revoke(&tx, &ref, REASON_UNSPECIFIED, world_now, &result, err));
	MUST(db_bulk_create(&tx, &bulk, err));
	MUST(db_targets_done(&tx, bulk.revocation_id, &target, 1, err));
	for (int round = 0; round < 3; round++) {
		if (round > 0)
			MUST(db_crl_reserve(&tx, ref.issuer_id, CRL_SCOPE_FULL, &turn, err));
		crl.number = turn.number;
		MUST(db_crl_publish_begin(&tx, &crl, err));
		MUST(db_crl_publish_put(&tx, &crl, 0, (struct view){ crl.sha256, 1 }, err));
		MUST(db_crl_publish_end(&tx, &crl, turn.wanted, err));
		MUST(db_receipt_lists(&tx, bulk.revocation_id, lists, 8, &n, err));
		assert_int_equal(n, 3);
		assert_int_equal(lists[1].scope, CRL_SCOPE_FULL);
		assert_int_equal(lists[1].number, round == 0 ? 0 : round == 1 ? crl.number : crl.number - 1);
		assert_int_equal(lists[1].sha256[0], round == 0 ? 0 : 0xab);
		assert_int_equal(lists[2].number, 0); /* the shard's own */
	}
}

/*
 * What was signed before the yes may be recorded behind the decision's back: the second look waits until
 * nothing is under way any more, and finds it.
 */
static void
a_bulk_revocation_looks_again_for_what_was_under_way(void **state)
{
	own_struct(db_tx) tx = { 0 };
	struct db_selection selection = of_device("under-way");
	struct db_admit_item item = ask("under-way");
	struct db_record_item record;
	int64_t n;

	(void)state;
	admit_wants(&item, ADMISSION_ADMITTED);
	sql("UPDATE jitrca.intent_round SET created_at = now() - interval '1 minute'");
	record = record_of(&item);
	record.issued_at_s = world_now - 40;
	named("10112233445566778899aabbccddeeff", BULK_RUNNING);
	bulk.issued_until_s = world_now - 30;
	selection.filter.issued_before_s = world_now - 29;
	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_bulk_freeze(&tx, bulk.revocation_id, &selection, &bulk.matched, err));
	assert_int_equal(bulk.matched, 0);
	MUST(db_bulk_create(&tx, &bulk, err));
	MUST(db_bulk_next(&tx, &found, err));
	assert_string_equal(found.revocation_id, bulk.revocation_id);
	assert_false(found.second_look);
	MUST(db_bulk_look_again(&tx, bulk.revocation_id, err));
	MUST(db_tx_commit(&tx, err));

	MUST(db_tx_begin(&tx, world_pool, err));
	MUST_FAIL(db_bulk_next(&tx, &found, err), ERR_NOT_FOUND, "revocation_unknown");
	MUST(db_issuance_record(&tx, &record, 1, err));
	MUST(db_tx_commit(&tx, err));

	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_bulk_next(&tx, &found, err));
	assert_true(found.second_look);
	assert_true(found.again_from_s < record.issued_at_s);
	selection.filter.issued_after_s = found.again_from_s;
	MUST(db_bulk_freeze(&tx, bulk.revocation_id, &selection, &n, err));
	assert_int_equal(n, 1);
	MUST(db_bulk_find(&tx, bulk.revocation_id, &found, err));
	assert_int_equal(found.matched, 1);
	MUST(db_bulk_advance(&tx, bulk.revocation_id, 1, NULL, true, err));
	MUST(db_tx_commit(&tx, err));
}

static void
a_second_one_decides_once(void **state)
{
	own_struct(db_tx) tx = { 0 };
	char expired[33];
	bool changed, was;

	(void)state;
	named("30112233445566778899aabbccddeeff", BULK_WAITING);
	bulk.decide_until_s = world_now + 3600;
	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_bulk_create(&tx, &bulk, err));
	MUST_FAIL(db_bulk_decide(&tx, "no", BULK_RUNNING, "two", "", &changed, err), ERR_NOT_FOUND,
		"revocation_unknown");
	MUST_FAIL(db_bulk_decide(&tx, bulk.revocation_id, BULK_RUNNING, "admin", "", &changed, err),
		ERR_DENIED, "approval_by_requester");
	MUST(db_bulk_decide(&tx, bulk.revocation_id, BULK_RUNNING, "two", "seen", &changed, err));
	assert_true(changed);
	MUST(db_bulk_decide(&tx, bulk.revocation_id, BULK_RUNNING, "two", "again", &changed, err));
	assert_false(changed);
	MUST_FAIL(db_bulk_decide(&tx, bulk.revocation_id, BULK_RUNNING, "three", "", &changed, err),
		ERR_CONFLICT, "revocation_decided");
	MUST_FAIL(db_bulk_decide(&tx, bulk.revocation_id, BULK_REJECTED, "two", "", &changed, err),
		ERR_CONFLICT, "revocation_decided");
	MUST(db_bulk_find(&tx, bulk.revocation_id, &found, err));
	assert_int_equal(found.state, BULK_RUNNING);
	assert_string_equal(found.decided_by, "two");
	assert_string_equal(found.decision, "seen");

	named("40112233445566778899aabbccddeeff", BULK_WAITING);
	bulk.decide_until_s = world_now - 1;
	MUST(db_bulk_create(&tx, &bulk, err));
	MUST_FAIL(db_bulk_decide(&tx, bulk.revocation_id, BULK_RUNNING, "two", "", &changed, err),
		ERR_CONFLICT, "revocation_decided");
	MUST(db_bulk_expire(&tx, expired, &was, err));
	assert_true(was);
	assert_string_equal(expired, bulk.revocation_id);
	MUST(db_bulk_expire(&tx, expired, &was, err));
	assert_false(was);
	MUST(db_bulk_find(&tx, bulk.revocation_id, &found, err));
	assert_int_equal(found.state, BULK_EXPIRED);
}

/* Settled once IoT Core was read back as it has to be, and nothing waits that may yet be seen there. */
static void
a_receipt_is_settled_by_what_was_read_back(void **state)
{
	static const char *const TARGETS[] = { "here", "there" };
	own_struct(db_tx) tx = { 0 };
	struct db_cert_ref ref = issue(ask("settle"));
	struct db_target target = { .ref = ref, .outcome = "revoked" };
	struct db_revoke_result result;
	struct db_receipt_site sites[4];
	char after[33] = "";
	size_t n;
	bool was;

	(void)state;
	sql("UPDATE jitrca.bulk_revocation SET settled_at = now() WHERE true");
	sql("DELETE FROM jitrca.outbox WHERE true");
	sql("INSERT INTO jitrca.iot_certificate (target, sha256, issuer_id, serial, device_id, status)"
	    " SELECT 'here', c.sha256, c.issuer_id, c.serial, c.device_id, 'ACTIVE'"
	    " FROM jitrca.certificate c WHERE c.device_id = 'settle'");
	named("50112233445566778899aabbccddeeff", BULK_DONE);
	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_revocation_revoke(&tx, &ref, REASON_UNSPECIFIED, world_now, &result, err));
	MUST(db_bulk_create(&tx, &bulk, err));
	MUST(db_targets_done(&tx, bulk.revocation_id, &target, 1, err));
	MUST(db_tx_commit(&tx, err));
	for (int round = 0; round < 3; round++) {
		if (round == 1)
			sql("UPDATE jitrca.iot_certificate SET status = 'REVOKED'"
			    " WHERE device_id = 'settle'");
		if (round == 2)
			sql("DELETE FROM jitrca.outbox WHERE true");
		after[0] = '\0';
		MUST(db_tx_begin(&tx, world_pool, err));
		MUST(db_receipt_look(&tx, TARGETS, 2, after, &was, err));
		assert_true(was);
		MUST(db_receipt_sites(&tx, bulk.revocation_id, sites, 4, &n, err));
		assert_int_equal(n, 2);
		assert_int_equal(sites[0].seen, 1);
		assert_int_equal(sites[0].done, round > 0);
		assert_int_equal(sites[1].seen, 0);
		MUST(db_bulk_find(&tx, bulk.revocation_id, &found, err));
		assert_int_equal(found.settled_at_s != 0, round == 2);
		MUST(db_tx_commit(&tx, err));
	}
	MUST(db_tx_begin(&tx, world_pool, err));
	after[0] = '\0';
	MUST(db_receipt_look(&tx, TARGETS, 2, after, &was, err));
	assert_false(was);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_blast_radius_is_seen_before),
		cmocka_unit_test(a_key_and_attributes_select),
		cmocka_unit_test(a_successor_outside_keeps_its_device),
		cmocka_unit_test(a_bulk_revocation_can_be_resumed),
		cmocka_unit_test(the_list_that_shows_it_is_noted),
		cmocka_unit_test(a_bulk_revocation_looks_again_for_what_was_under_way),
		cmocka_unit_test(a_second_one_decides_once),
		cmocka_unit_test(a_receipt_is_settled_by_what_was_read_back),
	};

	return cmocka_run_group_tests(tests, world_setup, world_teardown);
}
