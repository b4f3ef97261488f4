#include "tests/unit/db/world.h"

#include <pthread.h>

static struct db_admit_item
with_key(struct db_admit_item item, const char *key, uint8_t hash)
{
	item.idempotency_key = key;
	memset(item.request_hash, hash, sizeof(item.request_hash));
	return item;
}

static void
manifest(const char *id, const char *station, int quantity, bool allow_replace)
{
	sql("INSERT INTO jitrca.manifest (manifest_id, station_id, profile, quantity, allow_replace,"
	    " not_before, not_after, created_by) VALUES ('%s', '%s', 'device', %d, %s,"
	    " now() - interval '1 hour', now() + interval '1 day', 'x')", id, station, quantity,
	    allow_replace ? "true" : "false");
}

static void
line(const char *id, const char *device)
{
	sql("INSERT INTO jitrca.manifest_line (device_id, manifest_id) VALUES ('%s', '%s')", device, id);
}

static void
nothing_left(const struct db_admit_item *item)
{
	assert_int_equal(count("intent WHERE serial = '\\x%s'", hex(&item->ref)), 0);
	assert_int_equal(count("idempotency WHERE serial = '\\x%s'", hex(&item->ref)), 0);
	assert_int_equal(count("key_claim WHERE claim_serial = '\\x%s'", hex(&item->ref)), 0);
	assert_int_equal(count("device_slot WHERE claim_serial = '\\x%s'", hex(&item->ref)), 0);
}

static void
a_first_certificate_is_admitted_and_recorded(void **state)
{
	struct db_admit_item item = with_key(ask("first"), "k-first", 1);

	(void)state;
	admit_wants(&item, ADMISSION_ADMITTED);
	assert_int_equal(count("intent WHERE serial = '\\x%s' AND identity = 'first'",
		hex(&item.ref)), 1);
	assert_int_equal(count("device WHERE device_id = 'first'"), 0);
	record(&item, 1);
	assert_int_equal(count("intent"), 0);
	assert_int_equal(status_of(&item.ref), CERT_ACTIVE);
	assert_int_equal(count("device WHERE device_id = 'first' AND status = 'active'"
		" AND thing_type = 'sensor' AND version = 1"), 1);
	assert_int_equal(count("device_slot WHERE device_id = 'first' AND claim_serial IS NULL"
		" AND current_serial = '\\x%s'", hex(&item.ref)), 1);
	assert_int_equal(count("key_claim WHERE identity = 'first' AND claim_serial IS NULL"
		" AND serial = '\\x%s'", hex(&item.ref)), 1);
	assert_int_equal(count("outbox WHERE device_id = 'first' AND version = 1"), 1);
	assert_int_equal(count("outbox WHERE device_id = 'first' AND cause = 'issued'"), 1);
}

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
	nothing_left(&repeat);

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
set_device(const char *device_id, const char *status)
{
	own_struct(db_tx) tx = { 0 };
	bool changed;

	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_device_set_status(&tx, device_id, status, "test", &changed, err));
	MUST(db_tx_commit(&tx, err));
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
	sql("UPDATE jitrca.key_claim SET blocked_at = now() WHERE claim_serial = '\\x%s'",
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

static int64_t
used(const char *id)
{
	return strtoll(sql("SELECT used FROM jitrca.manifest WHERE manifest_id = '%s'", id), NULL, 10);
}

static void
manifests_say_what_is_allowed(void **state)
{
	struct db_admit_item item = ask_station("st", "m1");
	struct db_admit_item rework = ask_station("st", "m1");
	struct db_admit_item other = ask_station("st", "m2");

	(void)state;
	admit_refused(&item, ERR_DENIED, "device_not_in_manifest");
	manifest("m-other", "st2", 5, false);
	line("m-other", "m1");
	admit_refused(&item, ERR_DENIED, "device_not_in_manifest"); /* another station's */
	manifest("m-closed", "st", 5, false);
	line("m-closed", "m1");
	sql("UPDATE jitrca.manifest SET closed_at = now() WHERE manifest_id = 'm-closed'");
	admit_refused(&item, ERR_DENIED, "manifest_closed");
	manifest("m-old", "st", 5, false);
	line("m-old", "m1");
	sql("UPDATE jitrca.manifest SET not_after = now() - interval '1 minute'"
	    " WHERE manifest_id = 'm-old'");
	admit_refused(&item, ERR_DENIED, "manifest_expired");
	manifest("m-new", "st", 5, false);
	line("m-new", "m1");
	sql("UPDATE jitrca.manifest SET not_before = now() + interval '1 minute'"
	    " WHERE manifest_id = 'm-new'");
	admit_refused(&item, ERR_DENIED, "manifest_not_yet_valid");
	manifest("m-ok", "st", 1, false);
	line("m-ok", "m1");
	line("m-ok", "m2");
	admit_wants(&item, ADMISSION_ADMITTED);
	assert_string_equal(item.manifest_id, "m-ok");
	assert_true(item.manifest_charged);
	assert_int_equal(used("m-ok"), 1);
	assert_int_equal(count("manifest_line WHERE manifest_id = 'm-ok' AND used_at IS NOT NULL"), 1);
	record(&item, 1);
	assert_int_equal(count("manifest_line WHERE manifest_id = 'm-ok' AND serial = '\\x%s'",
		hex(&item.ref)), 1);
	assert_int_equal(count("certificate WHERE serial = '\\x%s' AND manifest_id = 'm-ok'",
		hex(&item.ref)), 1);

	admit_refused(&other, ERR_TOO_MANY, "quota_exhausted");
	admit_refused(&rework, ERR_CONFLICT, "device_has_certificate");
	rework.replace = true;
	admit_refused(&rework, ERR_DENIED, "replace_not_allowed");
	nothing_left(&rework);
	sql("UPDATE jitrca.manifest SET allow_replace = true WHERE manifest_id = 'm-ok'");
	admit_wants(&rework, ADMISSION_ADMITTED); /* the line was paid for */
	assert_false(rework.manifest_charged);
	assert_int_equal(used("m-ok"), 1);
	record(&rework, 1);
	assert_int_equal(status_of(&item.ref), CERT_REVOKED);
}

static void
a_line_is_one_certificate_where_nothing_else_says_so(void **state)
{
	struct db_admit_item first = ask_station("st", "many-line");
	struct db_admit_item again = ask_station("st", "many-line");

	(void)state;
	manifest("m-many", "st", 5, true);
	line("m-many", "many-line");
	first.slot = again.slot = SLOT_MANY;
	(void)issue(first);
	admit_refused(&again, ERR_TOO_MANY, "quota_exhausted");
	nothing_left(&again);
	assert_int_equal(used("m-many"), 1);
}

static void
a_batch_shares_what_is_left(void **state)
{
	struct db_admit_item items[8];
	int admitted = 0;
	char names[8][24];

	(void)state;
	manifest("m-batch", "st", 5, false);
	for (int i = 0; i < 8; i++) {
		snprintf(names[i], sizeof(names[i]), "batch-%d", i);
		line("m-batch", names[i]);
		items[i] = ask_station("st", names[i]);
	}
	items[3].identity = "not-listed";
	admit(items, 8);
	for (int i = 0; i < 8; i++)
		if (items[i].admission == ADMISSION_ADMITTED)
			admitted++;
		else
			assert_string_equal(items[i].refusal.code,
				i == 3 ? "device_not_in_manifest" : "quota_exhausted");
	assert_int_equal(admitted, 5);
	assert_int_equal(used("m-batch"), 5);
	for (int i = 0; i < 8; i++)
		if (items[i].admission == ADMISSION_ADMITTED)
			record(&items[i], 1);
}

static void
a_station_has_a_rate(void **state)
{
	struct db_admit_item a = ask_station("st2", "rate-1");
	struct db_admit_item b = ask_station("st2", "rate-2");
	struct db_admit_item c = ask_station("st2", "rate-3");

	(void)state;
	manifest("m-rate", "st2", 50, false);
	line("m-rate", "rate-1");
	line("m-rate", "rate-2");
	line("m-rate", "rate-3");
	sql("UPDATE jitrca.station SET rate_per_minute = 2, bucket = 1.01, bucket_at = now()"
	    " WHERE principal_id = 'st2'");
	admit_wants(&a, ADMISSION_ADMITTED);
	admit_refused(&b, ERR_TOO_MANY, "station_rate_exceeded");
	assert_in_range(b.refusal.retry_after_s, 28, 31);
	assert_int_equal(used("m-rate"), 1);
	sql("UPDATE jitrca.station SET bucket_at = now() - interval '31 seconds'"
	    " WHERE principal_id = 'st2'");
	admit_wants(&b, ADMISSION_ADMITTED);
	admit_refused(&c, ERR_TOO_MANY, "station_rate_exceeded");
	sql("UPDATE jitrca.station SET bucket_at = now() - interval '300 days'"
	    " WHERE principal_id = 'st2'");
	admit_wants(&c, ADMISSION_ADMITTED);
	assert_int_equal(count("station WHERE principal_id = 'st2' AND bucket = 999"), 1);
	record(&a, 1);
	record(&b, 1);
	record(&c, 1);
}

static void
reap(int32_t own_instance, const struct db_cert_ref *refs, size_t ref_count, size_t want)
{
	own_struct(db_tx) tx = { 0 };
	struct db_orphan orphans[16];
	size_t n;

	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_issuance_reap(&tx, own_instance, refs, ref_count, orphans, 16, &n, err));
	MUST(db_tx_commit(&tx, err));
	assert_int_equal(n, want);
}

static void
the_reaper_gives_back_exactly(void **state)
{
	struct db_cert_ref first = issue(ask("orphan-old"));
	struct db_admit_item items[4];
	struct err err;

	(void)state;
	manifest("m-orphan", "st", 3, true);
	line("m-orphan", "orphan-new");
	line("m-orphan", "orphan-old");
	items[0] = with_key(ask_station("st", "orphan-new"), "k-orphan", 1);
	items[1] = ask_successor("orphan-old", &first);
	items[2] = ask("orphan-many");
	items[2].slot = SLOT_MANY;
	items[2].profile = "server";
	(void)issue(items[2]);
	items[2].ref = draw_ref(items[2].not_after_s);
	items[2] = with_key(items[2], "k-orphan-many", 1); /* its key has a certificate */
	sql("SELECT pg_advisory_lock(1784, 77)"); /* instance 77 lives */
	admit_as(77, items, 3);
	for (int i = 0; i < 3; i++)
		assert_int_equal(items[i].admission, ADMISSION_ADMITTED);
	reap(1, NULL, 0, 0);
	reap(77, NULL, 0, 0);
	sql("SELECT pg_advisory_unlock(1784, 77)");
	reap(77, NULL, 0, 0); /* its own are never those of the dead */
	reap(1, NULL, 0, 3);
	reap(1, NULL, 0, 0);
	for (int i = 0; i < 3; i++) {
		nothing_left(&items[i]);
		assert_int_equal(count("revocation WHERE serial = '\\x%s' AND reason = 5",
			hex(&items[i].ref)), 1);
		assert_int_equal(count("crl_scope WHERE issuer_id = 1 AND scope = %d"
			" AND wanted > published", serial_shard(&items[i].ref.serial)), 1);
		assert_int_equal(try_record(&items[i], 1, &err), ERR_CONFLICT);
		assert_string_equal(err.code, "intent_closed");
	}
	assert_int_equal(count("device_slot WHERE device_id = 'orphan-new'"), 0);
	assert_int_equal(count("device_slot WHERE device_id = 'orphan-old' AND current_serial ="
		" '\\x%s'", hex(&first)), 1);
	assert_int_equal(count("key_claim WHERE identity = 'orphan-new'"), 0);
	assert_int_equal(count("key_claim WHERE identity = 'orphan-many' AND serial IS NOT NULL"), 1);
	assert_int_equal(used("m-orphan"), 0);
	assert_int_equal(count("manifest_line WHERE manifest_id = 'm-orphan' AND used_at IS NULL"), 2);

	/* All of it can be asked for again; and the server gives up on some of its own. */
	for (int i = 0; i < 3; i++)
		items[i].ref = draw_ref(items[i].not_after_s);
	admit(items, 3);
	for (int i = 0; i < 3; i++)
		assert_int_equal(items[i].admission, ADMISSION_ADMITTED);
	reap(1, &items[0].ref, 1, 1);
	assert_int_equal(used("m-orphan"), 0);
	record(&items[1], 2);
	reap(1, &items[1].ref, 1, 0); /* recorded is recorded */
	assert_int_equal(status_of(&items[1].ref), CERT_PENDING_CONFIRMATION);

	/* An own one that came about after it was given up on: only once no round can be at it. */
	items[0].ref = draw_ref(items[0].not_after_s);
	admit(items, 1);
	reap(1, NULL, 0, 0);
	sql("UPDATE jitrca.intent SET created_at = now() - interval '6 minutes'");
	reap(1, NULL, 0, 1);
	nothing_left(&items[0]);
}

/*
 * Concurrency
 */

struct racer {
	pthread_t thread;
	struct db_admit_item item;
	pthread_barrier_t *start;
	char device[32];
};

static enum status
admit_and_commit(struct db_admit_item *items, size_t n, struct err *err)
{
	own_struct(db_tx) tx = { 0 };

	TRY(db_tx_begin(&tx, world_pool, err));
	TRY(db_issuance_admit(&tx, 1, items, n, err));
	return db_tx_commit(&tx, err);
}

/*
 * More threads than connections, all after the same rows: a slow machine may let one wait in vain,
 * for a connection or a lock, which changes nothing. Only then is it tried again: a deadlock is none.
 */
static enum status
admit_in_the_end(struct db_admit_item *items, size_t n, struct err *err)
{
	enum status status = ERR_UNAVAILABLE;

	for (int tries = 0; tries < 20; tries++) {
		status = admit_and_commit(items, n, err);
		if (status == OK || strcmp(err->code, "database_busy") != 0)
			break;
	}
	return status;
}

static void *
race(void *arg)
{
	struct racer *racer = arg;
	struct err err;

	(void)pthread_barrier_wait(racer->start);
	if (admit_in_the_end(&racer->item, 1, &err) != OK) {
		fprintf(stderr, "admit: %s: %s\n", err.code, err.text);
		racer->item.admission = ADMISSION_UNSET;
	}
	return NULL;
}

static int
run_race(struct racer *racers, size_t n, enum db_admission loser, const char *code)
{
	pthread_barrier_t start;
	int winners = 0;

	pthread_barrier_init(&start, NULL, (unsigned)n);
	for (size_t i = 0; i < n; i++) {
		racers[i].start = &start;
		assert_int_equal(pthread_create(&racers[i].thread, NULL, race, &racers[i]), 0);
	}
	for (size_t i = 0; i < n; i++)
		pthread_join(racers[i].thread, NULL);
	pthread_barrier_destroy(&start);
	for (size_t i = 0; i < n; i++) {
		if (racers[i].item.admission == ADMISSION_ADMITTED) {
			winners++;
			record(&racers[i].item, 1);
			continue;
		}
		assert_int_equal(racers[i].item.admission, loser);
		if (code != NULL)
			assert_string_equal(racers[i].item.refusal.code, code);
	}
	return winners;
}

static void
two_hundred_claims_of_one_key_admit_one(void **state)
{
	static struct racer racers[200];

	(void)state;
	for (size_t i = 0; i < 200; i++) {
		snprintf(racers[i].device, sizeof(racers[i].device), "two-hundred");
		racers[i].item = with_key(ask(racers[i].device), "k-200", 1);
	}
	assert_int_equal(run_race(racers, 200, ADMISSION_BUSY, NULL), 1);
	assert_int_equal(count("certificate WHERE device_id = 'two-hundred'"), 1);
}

static void
the_last_unit_of_a_quota_is_won_once(void **state)
{
	static struct racer racers[200];

	(void)state;
	manifest("m-last", "st", 1, false);
	for (size_t i = 0; i < 200; i++) {
		snprintf(racers[i].device, sizeof(racers[i].device), "last-%zu", i);
		line("m-last", racers[i].device);
		racers[i].item = ask_station("st", racers[i].device);
	}
	assert_int_equal(run_race(racers, 200, ADMISSION_REFUSED, "quota_exhausted"), 1);
	assert_int_equal(used("m-last"), 1);
	assert_int_equal(count("device_slot WHERE device_id LIKE 'last-%%'"), 1);
}

/* Batches over the same devices from many connections: nothing deadlocks, each device has one. */
static void *
batches(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;
	char names[64][24];
	struct db_admit_item items[32];
	uintptr_t failures = 0;

	for (int i = 0; i < 64; i++)
		snprintf(names[i], sizeof(names[i]), "ring-%d", i);
	for (int round = 0; round < 20; round++) {
		struct err err;
		int from = rand_r(&seed) % 64;
		int step = rand_r(&seed) % 2 == 0 ? 1 : 63;
		size_t n = 0;

		for (int i = 0; i < 32; i++) {
			items[i] = ask(names[(from + i * step) % 64]);
			items[i].replace = true;
		}
		if (admit_in_the_end(items, 32, &err) != OK) {
			fprintf(stderr, "admit: %s: %s\n", err.code, err.text);
			failures++;
			continue;
		}
		for (int i = 0; i < 32; i++)
			if (items[i].admission == ADMISSION_ADMITTED)
				items[n++] = items[i];
		if (n > 0 && try_record(items, n, &err) != OK) {
			fprintf(stderr, "record: %s: %s\n", err.code, err.text);
			failures++;
		}
	}
	return (void *)failures;
}

static void
batches_over_the_same_devices_do_not_deadlock(void **state)
{
	pthread_t threads[6];

	(void)state;
	for (uintptr_t i = 0; i < 6; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, batches, (void *)(i + 1)), 0);
	for (size_t i = 0; i < 6; i++) {
		void *failures;

		pthread_join(threads[i], &failures);
		assert_null(failures);
	}
	assert_int_equal(count("device WHERE device_id LIKE 'ring-%%'"), 64);
	assert_int_equal(count("(SELECT device_id FROM jitrca.certificate WHERE status = 'active'"
		" AND device_id LIKE 'ring-%%' GROUP BY 1 HAVING count(*) <> 1) x"), 0);
}

#include "tests/unit/db/model.h"

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_first_certificate_is_admitted_and_recorded),
		cmocka_unit_test(one_idempotency_key_gives_one_certificate),
		cmocka_unit_test(refusals_are_not_remembered),
		cmocka_unit_test(without_a_key_the_same_request_gives_the_live_certificate),
		cmocka_unit_test(one_public_key_one_identity),
		cmocka_unit_test(a_key_blocked_meanwhile_ends_the_new_certificate_too),
		cmocka_unit_test(rework_replaces_and_revokes),
		cmocka_unit_test(a_hold_counts_as_a_life),
		cmocka_unit_test(a_dead_current_certificate_is_no_obstacle),
		cmocka_unit_test(rotation_has_one_unconfirmed_successor),
		cmocka_unit_test(a_successor_confirmed_meanwhile_is_not_revoked),
		cmocka_unit_test(quarantined_and_decommissioned_devices_are_refused),
		cmocka_unit_test(a_device_decommissioned_meanwhile_gets_nothing_that_lives),
		cmocka_unit_test(a_device_revoked_meanwhile_does_not_rotate),
		cmocka_unit_test(record_tells_what_ended_with_it),
		cmocka_unit_test(principals_are_checked),
		cmocka_unit_test(manifests_say_what_is_allowed),
		cmocka_unit_test(a_line_is_one_certificate_where_nothing_else_says_so),
		cmocka_unit_test(a_batch_shares_what_is_left),
		cmocka_unit_test(a_station_has_a_rate),
		cmocka_unit_test(the_reaper_gives_back_exactly),
		cmocka_unit_test(two_hundred_claims_of_one_key_admit_one),
		cmocka_unit_test(the_last_unit_of_a_quota_is_won_once),
		cmocka_unit_test(batches_over_the_same_devices_do_not_deadlock),
		cmocka_unit_test(what_the_model_says_is_what_the_database_says),
	};

	return cmocka_run_group_tests(tests, world_setup, world_teardown);
}
