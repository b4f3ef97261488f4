#include "db/iot.h"

#include "db/event.h"
#include "db/iot_pending.h"
#include "tests/unit/db/world.h"

#define TARGET "local"

static uint8_t *
id_of(uint8_t out[DB_SHA256_BYTES], const struct db_cert_ref *ref)
{
	memset(out, 0, DB_SHA256_BYTES);
	memcpy(out, ref->serial.octets, SERIAL_BYTES); /* as record_of makes it up */
	return out;
}

/* Two certificates at once are one transaction; the second may be NULL. */
static bool
pending_two(const struct db_cert_ref *ref, const struct db_cert_ref *other, int64_t at_us,
	bool *other_work)
{
	own_struct(db_tx) tx = { 0 };
	struct db_iot_pending list[2] = { { .issuer_id = 1, .at_us = at_us },
		{ .issuer_id = 1, .at_us = at_us } };

	id_of(list[0].sha256, ref);
	if (other != NULL)
		id_of(list[1].sha256, other);
	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_iot_pending(&tx, TARGET, list, other != NULL ? 2 : 1, "registered", err));
	MUST(db_tx_commit(&tx, err));
	if (other != NULL)
		*other_work = list[1].work;
	return list[0].work;
}

static bool
pending(const struct db_cert_ref *ref, int64_t at_us)
{
	return pending_two(ref, NULL, at_us, NULL);
}

static void
record_status(const char *device_id, const struct db_cert_ref *ref, const char *status)
{
	own_struct(db_tx) tx = { 0 };
	struct db_iot_certificate it = { .ref = *ref };
	struct db_iot_record record = { .certificate = &it };

	id_of(it.sha256, ref);
	snprintf(it.device_id, sizeof(it.device_id), "%s", device_id);
	MUST(db_tx_begin(&tx, world_pool, err));
	record.status = status;
	MUST(db_iot_certificates_record(&tx, TARGET, &record, 1, 0, err));
	MUST(db_tx_commit(&tx, err));
}

static size_t
of_device(const char *device_id, struct db_iot_certificate *out)
{
	own_struct(db_tx) tx = { 0 };
	struct db_iot_certificate none[8];
	struct db_iot_device list[] = { { .device_id = "nobody", .certificates = none },
		{ .device_id = device_id, .certificates = out } };

	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_iot_devices_read(&tx, TARGET, list, COUNT_OF(list), 8, err));
	assert_int_equal(list[0].count, 0);
	return list[1].count;
}

static void
a_replayed_or_overtaken_event_is_no_work(void **state)
{
	struct db_cert_ref ref = issue(ask("replay"));
	int64_t t = world_now * INT64_C(1000000) - 5000000;

	(void)state;
	(void)sql("DELETE FROM jitrca.outbox");
	assert_true(pending(&ref, t));
	assert_int_equal(count("outbox WHERE device_id = 'replay' AND cause = 'registered'"), 1);
	assert_false(pending(&ref, t + 1));
	/* Nothing is queued: whoever was to do it is gone. */
	(void)sql("DELETE FROM jitrca.outbox");
	assert_true(pending(&ref, t));
	record_status("replay", &ref, "ACTIVE");
	(void)sql("DELETE FROM jitrca.outbox");
	assert_false(pending(&ref, t));
	assert_false(pending(&ref, t + 2));
	/* Said after we activated it: it was deleted there, and came again. */
	assert_true(pending(&ref, (world_now + 60) * INT64_C(1000000)));
	assert_int_equal(count("iot_certificate WHERE device_id = 'replay'"
		" AND status = 'PENDING_ACTIVATION'"), 1);
}

static void
many_events_are_each_looked_at(void **state)
{
	struct db_cert_ref known = issue(ask("heard"));
	struct db_cert_ref fresh = issue(ask("unheard"));
	struct db_cert_ref stranger = { .issuer_id = 1, .serial.octets = { 1, 2, 3 } };
	int64_t t = world_now * INT64_C(1000000) - 5000000;
	bool work;

	(void)state;
	(void)sql("DELETE FROM jitrca.outbox");
	assert_true(pending(&known, t));
	assert_false(pending_two(&known, &fresh, t, &work));
	assert_true(work);
	assert_int_equal(count("iot_certificate WHERE device_id = 'unheard' AND serial IS NOT NULL"), 1);
	assert_int_equal(count("outbox WHERE device_id IN ('heard', 'unheard')"), 2);
	/* Of our CA, but not in the books. */
	assert_true(pending(&stranger, t));
	assert_int_equal(count("iot_certificate WHERE device_id IS NULL AND serial IS NULL"
		" AND issuer_id = 1"), 1);
	assert_int_equal(count("outbox WHERE device_id LIKE 'certificate/010203%%'"), 1);
	assert_false(pending(&stranger, t + 1));
	(void)sql("DELETE FROM jitrca.outbox");
}

static void
a_device_shows_what_was_seen_and_what_it_should_have(void **state)
{
	struct db_iot_certificate found[8];
	struct db_cert_ref first = issue(ask("shows"));
	struct db_cert_ref next;

	(void)state;
	assert_int_equal(of_device("shows", found), 1);
	assert_string_equal(found[0].seen, "");
	assert_true(found[0].in_slot);
	assert_int_equal(found[0].status, CERT_ACTIVE);
	assert_string_equal(found[0].profile, "device");
	record_status("shows", &first, "ACTIVE");
	next = issue(ask_successor("shows", &first));
	(void)confirm(&next, false);
	record_status("shows", &next, "ACTIVE");
	assert_int_equal(of_device("shows", found), 2);
	for (size_t i = 0; i < 2; i++) {
		bool is_next = db_ref_equal(&found[i].ref, &next);

		assert_int_equal(found[i].status, is_next ? CERT_ACTIVE : CERT_SUPERSEDED);
		assert_int_equal(found[i].in_slot, is_next);
		assert_string_equal(found[i].seen, "ACTIVE");
		assert_string_equal(found[i].device_id, "shows");
	}
	(void)revoke_one(&first, REASON_KEY_COMPROMISE);
	assert_int_equal(of_device("shows", found), 2);
	record_status("shows", &first, "REVOKED");
	assert_int_equal(of_device("shows", found), 1);
}

static void
a_list_never_overwrites_what_was_recorded_since(void **state)
{
	struct db_cert_ref ref = issue(ask("listed"));
	struct db_iot_certificate found[8];
	struct db_iot_certificate it = { .ref = ref };
	own_struct(db_tx) tx = { 0 };
	struct db_iot_record record = { .certificate = &it };

	(void)state;
	id_of(it.sha256, &ref);
	snprintf(it.device_id, sizeof(it.device_id), "listed");
	record_status("listed", &ref, "INACTIVE");
	MUST(db_tx_begin(&tx, world_pool, err));
	record.status = "ACTIVE";
	MUST(db_iot_certificates_record(&tx, TARGET, &record, 1, 1, err));
	MUST(db_tx_commit(&tx, err));
	assert_int_equal(of_device("listed", found), 1);
	assert_string_equal(found[0].seen, "INACTIVE");
	MUST(db_tx_begin(&tx, world_pool, err));
	record.status = "ACTIVE";
	MUST(db_iot_certificates_record(&tx, TARGET, &record, 1, (world_now + 3600) * INT64_C(1000000), err));
	MUST(db_tx_commit(&tx, err));
	assert_int_equal(of_device("listed", found), 1);
	assert_string_equal(found[0].seen, "ACTIVE");
}

static void
what_was_announced_is_in_doubt_until_it_is_recorded(void **state)
{
	struct db_cert_ref ref = issue(ask("doubt"));
	struct db_iot_certificate found[8];
	struct db_iot_certificate it = { .ref = ref };
	own_struct(db_tx) tx = { 0 };
	struct db_iot_record record = { .certificate = &it };

	(void)state;
	id_of(it.sha256, &ref);
	snprintf(it.device_id, sizeof(it.device_id), "doubt");
	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_iot_certificate_announce(&tx, TARGET, &it, err));
	MUST(db_tx_commit(&tx, err));
	(void)revoke_one(&ref, REASON_KEY_COMPROMISE);
	/* Out of its slot, never seen there, and not forgotten. */
	assert_int_equal(of_device("doubt", found), 1);
	assert_true(found[0].under_way && !found[0].in_slot);
	assert_int_equal(found[0].status, CERT_REVOKED);
	/* A list in passing does not settle it. */
	MUST(db_tx_begin(&tx, world_pool, err));
	record.status = "ACTIVE";
	MUST(db_iot_certificates_record(&tx, TARGET, &record, 1, (world_now + 3600) * INT64_C(1000000), err));
	MUST(db_tx_commit(&tx, err));
	assert_int_equal(of_device("doubt", found), 1);
	assert_true(found[0].under_way);
	record_status("doubt", &ref, "INACTIVE");
	assert_int_equal(of_device("doubt", found), 1);
	assert_false(found[0].under_way);
}

static void
an_older_version_never_overwrites_a_newer(void **state)
{
	own_struct(db_tx) tx = { 0 };
	struct db_iot_device it = { .device_id = "older" };
	struct db_iot_certificate none[1];
	static const struct {
		int64_t version;
		const char *state, *want;
	} STEPS[] = { { 5, "quarantined", "quarantined" }, { 4, "active", "quarantined" },
		{ 6, "active", "active" } };

	(void)state;
	it.certificates = none;
	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_iot_devices_read(&tx, TARGET, &it, 1, 1, err));
	assert_string_equal(it.state, "");
	for (size_t i = 0; i < COUNT_OF(STEPS); i++) {
		struct db_iot_applied applied = { "older", STEPS[i].version, STEPS[i].state };

		MUST(db_iot_devices_record(&tx, TARGET, &applied, 1, err));
		MUST(db_iot_devices_read(&tx, TARGET, &it, 1, 1, err));
		assert_string_equal(it.state, STEPS[i].want);
	}
}

static void
idle_devices_are_those_nobody_saw(void **state)
{
	own_struct(db_tx) tx = { 0 };
	const char *ids[] = { "idle-a", "idle-b" };
	const char *targets[] = { TARGET };
	const char *profiles[] = { "device" };
	struct db_cert_ref b;
	bool idle[2];

	(void)state;
	(void)issue(ask("idle-a"));
	b = issue(ask("idle-b"));
	record_status("idle-b", &b, "PENDING_ACTIVATION");
	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_iot_devices_idle(&tx, ids, 2, targets, 1, NULL, 0, idle, err));
	assert_true(idle[0]);
	assert_false(idle[1]);
	MUST(db_iot_devices_idle(&tx, ids, 2, targets, 1, profiles, 1, idle, err));
	assert_false(idle[0]);
}

static void
a_shared_bucket_pays_back_what_it_lent(void **state)
{
	own_struct(db_tx) tx = { 0 };
	int64_t got;
	int64_t wait_ms;

	(void)state;
	MUST(db_tx_begin(&tx, world_pool, err));
	for (int i = 0; i < 10; i++) {
		MUST(db_iot_quota_take(&tx, TARGET, "CreateThing", 0.5, 10, 1, &got, &wait_ms, err));
		assert_int_equal(got, 1);
	}
	MUST(db_iot_quota_take(&tx, TARGET, "CreateThing", 0.5, 10, 1, &got, &wait_ms, err));
	assert_int_equal(got, 0);
	assert_in_range(wait_ms, 1, 2000);
	MUST(db_iot_quota_take(&tx, TARGET, "UpdateThing", 0.5, 10, 1, &got, &wait_ms, err));
	assert_int_equal(got, 1);
}

static void
what_is_reserved_comes_before_what_is_asked_later(void **state)
{
	own_struct(db_tx) tx = { 0 };
	int64_t got;
	int64_t wait_ms;
	bool taken;

	(void)state;
	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_iot_quota_take(&tx, TARGET, "CreateThing", 0.01, 1, 1, &got, &wait_ms, err));
	assert_int_equal(got, 1);
	MUST(db_iot_quota_reserve(&tx, TARGET, "CreateThing", 0.01, 1, 90000, &taken, &wait_ms, err));
	assert_false(taken); /* not in time */
	MUST(db_iot_quota_reserve(&tx, TARGET, "CreateThing", 0.01, 1, 100000, &taken, &wait_ms,
		err));
	assert_true(taken);
	assert_in_range(wait_ms, 90000, 100000);
	MUST(db_iot_quota_take(&tx, TARGET, "CreateThing", 0.01, 1, 1, &got, &wait_ms, err));
	assert_int_equal(got, 0);
	assert_in_range(wait_ms, 190000, 200000);
}

static void
walks_and_cas_are_kept(void **state)
{
	own_struct(db_tx) tx = { 0 };
	struct db_iot_walk walk;
	struct db_iot_ca ca = { .target = TARGET, .issuer_id = 1, .account = "000000000000",
		.region = "eu-west-1", .mode = "SNI_ONLY", .status = "ACTIVE",
		.auto_registration = true };
	struct db_iot_ca back;
	size_t n;
	bool found, kept;

	(void)state;
	memset(ca.ca_certificate_id, 'a', 64);
	MUST(db_tx_begin(&tx, world_pool, err));
	MUST_FAIL(db_iot_ca_find(&tx, TARGET, 1, &back, err), ERR_NOT_FOUND, "iot_ca_not_registered");
	MUST(db_iot_ca_put(&tx, &ca, err));
	snprintf(ca.status, sizeof(ca.status), "INACTIVE");
	MUST(db_iot_ca_put(&tx, &ca, err));
	MUST(db_iot_ca_find(&tx, TARGET, 1, &back, err));
	assert_string_equal(back.status, "INACTIVE");
	MUST(db_iot_ca_list(&tx, &back, 1, &n, err));
	assert_int_equal(n, 1);
	MUST(db_iot_walk_find(&tx, TARGET, 1, "sweep", &walk, &found, err));
	assert_false(found);
	walk.mark_s = world_now;
	walk.seen = 7;
	MUST(db_iot_walk_put(&tx, &walk, &kept, err));
	assert_true(kept);
	MUST(db_iot_walk_put(&tx, &walk, &kept, err));
	assert_true(kept);
	MUST(db_iot_walk_find(&tx, TARGET, 1, "sweep", &walk, &found, err));
	assert_true(found);
	assert_int_equal(walk.mark_s, world_now);
	assert_int_equal(walk.finished_at_s, 0);
	assert_int_equal(walk.seen, 7);
}

/* first: the step that is overtaken is the walk's first, and there was no row to read. */
static void
overtaken_put(bool first)
{
	own_struct(db_tx) tx = { 0 };
	struct db_iot_walk step, walk;
	bool found, kept;

	MUST(db_tx_begin(&tx, world_pool, err));
	if (!first)
		MUST(db_iot_walk_ask(&tx, TARGET, 1, "reconcile", false, world_now - 9, err));
	MUST(db_iot_walk_find(&tx, TARGET, 1, "reconcile", &step, &found, err));
	assert_int_equal(found, !first);
	step.finished_at_s = world_now;
	step.seen = 7;
	snprintf(step.cursor, sizeof(step.cursor), "rows:");
	MUST(db_iot_walk_ask(&tx, TARGET, 1, "reconcile", true, world_now - 3, err));
	MUST(db_iot_walk_put(&tx, &step, &kept, err));
	assert_false(kept);
	MUST(db_iot_walk_find(&tx, TARGET, 1, "reconcile", &walk, &found, err));
	assert_true(found && walk.repair);
	assert_int_equal(walk.asked, first ? 1 : 2);
	assert_int_equal(walk.started_at_s, world_now - 3);
	assert_int_equal(walk.finished_at_s, 0);
	assert_int_equal(walk.seen, 0);
	assert_string_equal(walk.cursor, "");
	walk.seen = 1;
	MUST(db_iot_walk_put(&tx, &walk, &kept, err));
	assert_true(kept);
}

static void
a_walk_that_is_asked_for_is_not_answered_by_the_one_under_way(void **state)
{
	(void)state;
	overtaken_put(true);
	overtaken_put(false);
}

static void
what_is_no_devices_has_an_outbox_key_of_its_own(void **state)
{
	struct db_admit_item item = ask("svc");
	struct db_cert_ref ref;

	(void)state;
	item.slot = SLOT_MANY;
	item.profile = "service";
	ref = issue(item);
	(void)revoke_one(&ref, REASON_SUPERSEDED);
	assert_int_equal(count("outbox WHERE device_id LIKE 'certificate/%%'"), 0);
	item = ask("svc");
	item.slot = SLOT_MANY;
	item.profile = "service";
	ref = issue(item);
	record_status("", &ref, "ACTIVE");
	(void)revoke_one(&ref, REASON_SUPERSEDED);
	assert_int_equal(count("outbox WHERE device_id LIKE 'certificate/%%' AND priority = 0"), 1);
}

static void
events_are_listed_newest_first(void **state)
{
	own_struct(db_tx) tx = { 0 };
	struct db_event event = { .kind = "iot_unknown_certificate", .severity = "high" };
	struct db_event out[4];
	struct db_event_filter filter = { .kind = NULL };
	size_t n;

	(void)state;
	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_event_put(&tx, &event, err));
	snprintf(event.device_id, sizeof(event.device_id), "dev");
	snprintf(event.kind, sizeof(event.kind), "iot_held_certificate");
	MUST(db_event_put(&tx, &event, err));
	MUST(db_event_list(&tx, &filter, 4, out, &n, err));
	assert_int_equal(n, 2);
	assert_string_equal(out[0].device_id, "dev");
	filter.before_id = out[0].event_id;
	MUST(db_event_list(&tx, &filter, 4, out, &n, err));
	assert_int_equal(n, 1);
	filter = (struct db_event_filter){ .device_id = "dev" };
	MUST(db_event_list(&tx, &filter, 4, out, &n, err));
	assert_int_equal(n, 1);
	filter = (struct db_event_filter){ .kind = "iot_unknown_certificate", .severity = "low" };
	MUST(db_event_list(&tx, &filter, 4, out, &n, err));
	assert_int_equal(n, 0);
}

static void
a_target_that_others_have_is_remembered_for_a_week(void **state)
{
	own_struct(db_tx) tx = { 0 };
	own_struct(db_tx) later = { 0 };
	const char *const both[] = { "north", "south" };
	char elsewhere[DB_IOT_ELSEWHERE_BYTES];

	(void)state;
	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_iot_targets_serve(&tx, NULL, 0, elsewhere, err));
	assert_string_equal(elsewhere, "");
	MUST(db_iot_targets_serve(&tx, both, 2, elsewhere, err));
	assert_string_equal(elsewhere, "");
	MUST(db_iot_targets_serve(&tx, both, 1, elsewhere, err));
	assert_string_equal(elsewhere, "south");
	MUST(db_iot_targets_serve(&tx, NULL, 0, elsewhere, err));
	assert_string_equal(elsewhere, "north, south");
	MUST(db_tx_commit(&tx, err));
	(void)sql("UPDATE jitrca.iot_quota SET bucket_at = now() - interval '8 days'"
		" WHERE target = 'south'");
	MUST(db_tx_begin(&later, world_pool, err));
	MUST(db_iot_targets_serve(&later, NULL, 0, elsewhere, err));
	assert_string_equal(elsewhere, "north");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_replayed_or_overtaken_event_is_no_work),
		cmocka_unit_test(many_events_are_each_looked_at),
		cmocka_unit_test(a_device_shows_what_was_seen_and_what_it_should_have),
		cmocka_unit_test(a_list_never_overwrites_what_was_recorded_since),
		cmocka_unit_test(what_was_announced_is_in_doubt_until_it_is_recorded),
		cmocka_unit_test(an_older_version_never_overwrites_a_newer),
		cmocka_unit_test(idle_devices_are_those_nobody_saw),
		cmocka_unit_test(a_shared_bucket_pays_back_what_it_lent),
		cmocka_unit_test(what_is_reserved_comes_before_what_is_asked_later),
		cmocka_unit_test(a_target_that_others_have_is_remembered_for_a_week),
		cmocka_unit_test(walks_and_cas_are_kept),
		cmocka_unit_test(a_walk_that_is_asked_for_is_not_answered_by_the_one_under_way),
		cmocka_unit_test(what_is_no_devices_has_an_outbox_key_of_its_own),
		cmocka_unit_test(events_are_listed_newest_first),
	};

	return cmocka_run_group_tests(tests, world_setup, world_teardown);
}
