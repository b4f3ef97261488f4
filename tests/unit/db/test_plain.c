/* The plain way of Admit and Record: it leaves what the long way leaves, and steps back where that
 * decides. */
#include "tests/unit/db/issuing.h"

#include "db/issuer.h"

static uint8_t HEAD[32];

/* The plain way alone, behind a head of lane 77 as it is believed to be; committed if it was plain. */
static bool
record_plain(const struct db_admit_item *items, size_t n, int64_t seq)
{
	own_struct(db_tx) tx = { 0 };
	struct db_record_item records[8];
	struct db_audit_record audit = { .lane = 77, .seq = seq, .at_s = world_now, .actor = "admin",
		.action = "certificate.issue", .body = { (uint8_t *)(uintptr_t) "{}", 2 },
		.hash = { [31] = (uint8_t)seq } };
	const struct db_audit_item audit_items[] = { { "certificate:1", { (const uint8_t *)"a", 1 } },
		{ "certificate:2", { (const uint8_t *)"b", 1 } } };
	const struct db_audit_follow follow = { &audit, HEAD, audit_items, 2 };
	bool plain = false;

	for (size_t i = 0; i < n; i++)
		records[i] = record_of(&items[i]);
	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_issuance_record_plain(&tx, records, n, &follow, 1, true, &plain, err));
	if (plain)
		MUST(db_tx_commit(&tx, err));
	if (plain)
		memcpy(HEAD, audit.hash, sizeof(HEAD));
	return plain;
}

static int
lane_setup(void **state)
{
	if (world_setup(state) != 0)
		return -1;
	sql("INSERT INTO jitrca.audit_lane (lane) VALUES (77)");
	manifest("m", "st", 4, false);
	for (int i = 0; i < 8; i++) {
		char name[16];

		(void)snprintf(name, sizeof(name), "line-%d", i);
		line("m", name);
	}
	return 0;
}

/* One on each way, but for names, keys and serials. */
static void
both_ways_leave_the_same(void **state)
{
	struct db_admit_item plain = with_key(ask_station("st", "line-0"), "key-0", 7);
	struct db_admit_item full = with_key(ask_station("st", "line-1"), "key-1", 7);
	own_struct(db_tx) tx = { 0 };
	struct db_record_item record_item;

	(void)state;
	admit_wants(&plain, ADMISSION_ADMITTED);
	assert_string_equal(plain.manifest_id, "m");
	assert_true(plain.manifest_charged);
	assert_true(record_plain(&plain, 1, 1));

	MUST(db_tx_begin(&tx, world_pool, err));
	sql("SELECT 1");
	MUST(db_ping(world_pool, err));
	MUST(db_issuance_ensure_month(world_pool, serial_month(&full.ref.serial), err));
	{ /* not fresh: the long way */
		struct db_admit_item nobody = ask("nobody");

		nobody.slot = SLOT_MANY;
		MUST(db_issuance_admit(&tx, 1, &nobody, 1, err));
	}
	MUST(db_issuance_admit(&tx, 1, &full, 1, err));
	MUST(db_tx_commit(&tx, err));
	assert_int_equal(full.admission, ADMISSION_ADMITTED);
	record_item = record_of(&full);
	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_issuance_record(&tx, &record_item, 1, err));
	MUST(db_tx_commit(&tx, err));

	assert_int_equal(used("m"), 2);
	static const char *const SAME[] = {
		"SELECT count(DISTINCT (expiry_month, issuer_id, status, profile, of_device, subject,"
		" principal_id, manifest_id, not_before, not_after, issued_at, status_at, der,"
		" predecessor_serial, successor_serial)) FROM jitrca.certificate"
		" WHERE device_id IN ('line-0', 'line-1')",
		"SELECT count(DISTINCT (status, thing_type, attributes, version, reason))"
		" FROM jitrca.device WHERE device_id IN ('line-0', 'line-1')",
		"SELECT count(DISTINCT (version, cause, priority)) FROM jitrca.outbox"
		" WHERE device_id IN ('line-0', 'line-1')",
		"SELECT count(DISTINCT (k.profile, k.issuer_id, k.serial = c.serial, k.claim_issuer,"
		" k.claim_serial, k.blocked_at)) FROM jitrca.key_claim k JOIN jitrca.certificate c"
		" USING (spki_sha256) WHERE k.identity IN ('line-0', 'line-1')",
		"SELECT count(DISTINCT (s.current_issuer, s.current_serial = c.serial, s.successor_serial,"
		" s.claim_serial)) FROM jitrca.device_slot s JOIN jitrca.certificate c USING (device_id)"
		" WHERE s.device_id IN ('line-0', 'line-1')",
		"SELECT count(DISTINCT (l.issuer_id, l.serial = c.serial, l.used_at IS NULL))"
		" FROM jitrca.manifest_line l JOIN jitrca.certificate c USING (device_id)"
		" WHERE l.device_id IN ('line-0', 'line-1')",
		"SELECT count(DISTINCT (i.request_hash, i.issuer_id, i.serial = c.serial))"
		" FROM jitrca.idempotency i JOIN jitrca.certificate c USING (serial)"
		" WHERE c.device_id IN ('line-0', 'line-1')",
	};
	for (size_t i = 0; i < COUNT_OF(SAME); i++)
		if (strcmp(sql("%s", SAME[i]), "1") != 0)
			fail_msg("%s: %s", SAME[i], sql("%s", SAME[i]));
	assert_int_equal(count("intent WHERE identity LIKE 'line-%%'"), 0);
	assert_int_equal(count("audit_record WHERE lane = 77"), 1);
	assert_int_equal(count("audit_item WHERE lane = 77 AND seq = 1 AND (idx, object, body) IN"
		" ((0, 'certificate:1', 'a'), (1, 'certificate:2', 'b'))"), 2);
}

/* Each is admitted, then something happens that Record has to decide on. */
static void
what_is_to_be_decided_is_left_to_the_long_way(void **state)
{
	static const struct {
		const char *device, *happens;
	} CASES[] = {
		{ "closed", "DELETE FROM jitrca.intent_round WHERE round_id IN (SELECT round_id"
		  " FROM jitrca.intent WHERE identity = '%s')" },
		{ "taken", "UPDATE jitrca.intent_round SET serials = serials[1:1], items = items[1:1]"
		  " WHERE round_id IN (SELECT round_id FROM jitrca.intent WHERE identity = '%s')" },
		{ "gone", "INSERT INTO jitrca.device (device_id, status) VALUES ('%s', 'decommissioned')" },
		{ "had", "UPDATE jitrca.device_slot SET claim_serial = NULL WHERE device_id = '%s'" },
	};
	struct db_admit_item other = ask("other");

	(void)state;
	sql("INSERT INTO jitrca.device_slot (device_id) VALUES ('had')");
	admit_wants(&other, ADMISSION_ADMITTED);
	for (size_t i = 0; i <= COUNT_OF(CASES); i++) {
		char bystander[16];
		struct db_admit_item items[] = { ask(i < COUNT_OF(CASES) ? CASES[i].device : "reused"),
			ask(bystander) };

		(void)snprintf(bystander, sizeof(bystander), "bystander-%zu", i);
		admit(items, 2);
		assert_int_equal(items[0].admission, ADMISSION_ADMITTED);
		assert_int_equal(items[1].admission, ADMISSION_ADMITTED);
		assert_true(items[1].fresh);
		if (i < COUNT_OF(CASES))
			(void)sql(CASES[i].happens, CASES[i].device);
		else /* another round */
			items[0].intent_round = items[1].intent_round = other.intent_round;
		if (record_plain(items, 2, 2))
			fail_msg("%s: it went the plain way", items[0].identity);
		assert_int_equal(count("certificate WHERE serial IN ('\\x%s', '\\x%s')",
			hex(&items[0].ref), hex(&items[1].ref)), 0);
	}
	assert_int_equal(count("intent WHERE identity IN ('reused', 'other')"), 2);
	assert_int_equal(count("audit_record WHERE lane = 77"), 1);
}

/* Nothing is told of it but by its intent: who asks for the same device or key meanwhile is told to wait. */
static void
what_is_under_way_is_so_until_it_is_recorded(void **state)
{
	struct db_admit_item first = with_key(ask_station("st", "line-7"), "key-7", 7);
	struct db_admit_item device = ask("line-7");
	struct db_admit_item key = ask("line-7");
	struct db_admit_item again = first;

	(void)state;
	device.replace = true;
	memcpy(key.spki_sha256, first.spki_sha256, sizeof(key.spki_sha256));
	admit_wants(&first, ADMISSION_ADMITTED);
	admit_wants(&device, ADMISSION_BUSY);
	admit_wants(&key, ADMISSION_BUSY);
	again.ref = draw_ref(again.not_after_s);
	admit_wants(&again, ADMISSION_BUSY);
	record(&first, 1);
	admit_wants(&again, ADMISSION_REPLAY);
	admit_wants(&key, ADMISSION_REPLAY);
	admit_wants(&device, ADMISSION_ADMITTED);
}

static void
another_head_is_not_followed(void **state)
{
	struct db_admit_item items[] = { ask("head-1"), ask("head-2") };

	(void)state;
	admit(items, 2);
	assert_false(record_plain(items, 2, 3)); /* one is missing between */
	HEAD[0] ^= 1;
	assert_false(record_plain(items, 2, 2));
	HEAD[0] ^= 1;
	assert_int_equal(count("audit_record WHERE lane = 77"), 1);
	assert_true(record_plain(items, 2, 2));
	assert_int_equal(count("audit_lane WHERE lane = 77 AND seq = 2"), 1);
	assert_int_equal(count("audit_item WHERE lane = 77"), 4);
}

static void
a_batch_that_the_manifest_does_not_allow_whole_is_judged_one_by_one(void **state)
{
	struct db_admit_item items[] = { ask_station("st", "line-4"), ask_station("st", "line-5"),
		ask_station("st", "line-6") };
	size_t admitted = 0;

	(void)state;
	sql("UPDATE jitrca.manifest SET used = 2, quantity = 4 WHERE manifest_id = 'm'");
	admit(items, 3);
	for (size_t i = 0; i < 3; i++)
		admitted += items[i].admission == ADMISSION_ADMITTED;
	assert_int_equal(admitted, 2);
	assert_int_equal(used("m"), 4);
	assert_string_equal(items[2].refusal.code, "quota_exhausted");
	nothing_left(&items[2]);
}

static int64_t
index_rows_read(void)
{
	return strtoll(sql("SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE schemaname = 'jitrca'"),
		NULL, 10);
}

/* Each item costs a few look-ups, however many manifests a station has and however many devices are gone. */
static void
a_batch_reads_no_more_than_its_own_rows(void **state)
{
	enum { BATCH = 50 };
	struct db_admit_item items[BATCH];
	char names[BATCH][16];
	struct db_pool *pool = world_pool;
	int64_t before;

	(void)state;
	sql("INSERT INTO jitrca.device (device_id, status) SELECT 'gone-' || n, 'decommissioned'"
	    " FROM generate_series(1, 3000) n");
	sql("INSERT INTO jitrca.manifest (manifest_id, station_id, profile, quantity, not_before, not_after,"
	    " created_by) SELECT 'many-' || n, 'st', 'device', 1000, now() - interval '1 hour',"
	    " now() + interval '1 hour', 'x' FROM generate_series(1, 1000) n");
	sql("INSERT INTO jitrca.manifest_line (device_id, manifest_id)"
	    " SELECT 'many-' || n, 'many-' || (n %% 1000 + 1) FROM generate_series(1, 5000) n");
	for (size_t i = 0; i < BATCH; i++) {
		(void)snprintf(names[i], sizeof(names[i]), "many-%zu", i + 1);
		items[i] = with_key(ask_station("st", names[i]), names[i], 1);
	}
	before = index_rows_read();
	MUST(db_pool_new(&world_pool, world_url, 1, err)); /* what it counted is told when it ends */
	admit(items, BATCH);
	for (size_t i = 0; i < BATCH; i++)
		assert_int_equal(items[i].admission, ADMISSION_ADMITTED);
	record(items, BATCH);
	db_pool_free(world_pool);
	world_pool = pool;
	for (int tries = 0; tries < 500 && index_rows_read() == before; tries++)
		(void)usleep(10000);
	print_message("%.1f rows of indexes an item\n",
		(double)(index_rows_read() - before) / BATCH);
	assert_true(index_rows_read() > before);
	assert_true(index_rows_read() - before < BATCH * 40);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(both_ways_leave_the_same),
		cmocka_unit_test(what_is_to_be_decided_is_left_to_the_long_way),
		cmocka_unit_test(what_is_under_way_is_so_until_it_is_recorded),
		cmocka_unit_test(another_head_is_not_followed),
		cmocka_unit_test(a_batch_that_the_manifest_does_not_allow_whole_is_judged_one_by_one),
		cmocka_unit_test(a_batch_reads_no_more_than_its_own_rows),
	};

	return cmocka_run_group_tests(tests, lane_setup, world_teardown);
}
