#include "tests/unit/db/world.h"

#include "base/mem.h"
#include "db/filter.h"

static void
a_certificate_is_found_in_each_way(void **state)
{
	own_struct(db_tx) tx = { 0 };
	struct db_cert_ref first = issue(ask("way"));
	struct db_cert_ref next = issue(ask_successor("way", &first));
	struct db_cert_ref unknown = draw_ref(world_now + 86400);
	struct db_cert_ref both[2] = { next, first };
	struct db_certificate c = { 0 };
	struct db_certificate two[2] = { 0 };
	uint8_t id[DB_SHA256_BYTES] = { 0 };

	(void)state;
	memcpy(id, first.serial.octets, SERIAL_BYTES);
	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_certificate_by_sha256(&tx, id, &c, err));
	assert_memory_equal(&c.ref, &first, sizeof(first));
	assert_string_equal(c.ca_id, "ca1");
	assert_string_equal(c.profile, "device");
	assert_string_equal(c.device_id, "way");
	assert_string_equal(c.subject, "CN=x");
	assert_string_equal(c.principal_id, "admin");
	assert_string_equal(c.manifest_id, "");
	assert_string_equal(c.device_status, "active");
	assert_int_equal(c.status, CERT_ACTIVE);
	assert_int_equal(c.issued_at_s, world_now);
	assert_int_equal(c.not_before_s, world_now - 300);
	assert_int_equal(c.not_after_s, world_now + 90 * 86400);
	assert_int_equal(c.der.len, 3);
	assert_memory_equal(c.sha256, id, sizeof(id));
	assert_false(c.has_predecessor);
	assert_true(c.has_successor);
	assert_memory_equal(c.successor, next.serial.octets, SERIAL_BYTES);
	assert_false(c.revoked);
	db_certificate_free(&c);
	MUST(db_certificate_by_serial(&tx, &next.serial, &c, err));
	assert_memory_equal(&c.ref, &next, sizeof(next));
	assert_true(c.has_predecessor);
	assert_memory_equal(c.predecessor, id, sizeof(id));
	db_certificate_free(&c);
	MUST(db_certificate_by_refs(&tx, both, 2, two, err));
	assert_memory_equal(&two[0].ref, &next, sizeof(next));
	assert_memory_equal(&two[1].ref, &first, sizeof(first));
	db_certificate_free(&two[0]);
	db_certificate_free(&two[1]);

	both[1] = unknown;
	MUST_FAIL(db_certificate_by_refs(&tx, both, 2, two, err), ERR_NOT_FOUND, "certificate_unknown");
	MUST_FAIL(db_certificate_by_ref(&tx, &unknown, &c, err), ERR_NOT_FOUND, "certificate_unknown");
	MUST_FAIL(db_certificate_by_serial(&tx, &unknown.serial, &c, err), ERR_NOT_FOUND,
		"certificate_unknown");
	id[0] ^= 0xff;
	MUST_FAIL(db_certificate_by_sha256(&tx, id, &c, err), ERR_NOT_FOUND, "certificate_unknown");
	MUST(db_tx_commit(&tx, err));

	(void)revoke_one(&first, REASON_KEY_COMPROMISE);
	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_certificate_by_ref(&tx, &first, &c, err));
	assert_true(c.revoked);
	assert_int_equal(c.reason, REASON_KEY_COMPROMISE);
	assert_int_equal(c.revoked_at_s, world_now);
	assert_int_equal(c.status_at_s, world_now);
	db_certificate_free(&c);
}

static void
revoked_wins_over_expired(void **state)
{
	struct db_certificate c = { .status = CERT_ACTIVE, .not_after_s = 100 };

	(void)state;
	assert_int_equal(db_certificate_status_at(&c, 99), CERT_ACTIVE);
	assert_int_equal(db_certificate_status_at(&c, 100), CERT_EXPIRED);
	c.status = CERT_HELD;
	assert_int_equal(db_certificate_status_at(&c, 100), CERT_EXPIRED);
	c.status = CERT_REVOKED;
	assert_int_equal(db_certificate_status_at(&c, 100), CERT_REVOKED);
}

/* Walks all pages of a filter, and checks the order. */
static size_t
walk(struct db_certificate_filter filter, size_t limit)
{
	own_struct(db_tx) tx = { 0 };
	struct db_certificate *page = calloc(limit, sizeof(*page));
	struct db_certificate_cursor cursor = { 0 };
	struct db_certificate_cursor next = { 0 };
	struct db_certificate last = { 0 };
	bool by_end = filter_by_end(filter_lead(&filter));
	int64_t last_s = 0;
	size_t all = 0;

	if (filter.now_s == 0)
		filter.now_s = world_now;
	MUST(db_tx_begin(&tx, world_pool, err));
	do {
		size_t n;

		MUST(db_certificate_search(&tx, &filter, &cursor, limit, page, &n, &next, err));
		for (size_t i = 0; i < n; i++) {
			int64_t at_s = by_end ? page[i].not_after_s : page[i].issued_at_s;

			assert_true(at_s > last_s || (at_s == last_s &&
				memcmp(page[i].ref.serial.octets, last.ref.serial.octets,
					SERIAL_BYTES) > 0));
			last_s = at_s;
			last = page[i];
			last.der = (struct bytes){ NULL, 0 };
			db_certificate_free(&page[i]);
		}
		all += n;
		cursor = next;
	} while (next.set);
	free(page);
	return all;
}

#define FILTER(...) ((struct db_certificate_filter){ __VA_ARGS__ })

static void
every_filter_finds_what_sql_finds(void **state)
{
	(void)state;
	sql("INSERT INTO jitrca.manifest (manifest_id, station_id, profile, quantity, not_before,"
	    " not_after, created_by, created_at) VALUES ('m-search', 'st', 'device', 100000,"
	    " now(), now() + interval '1 day', 'x', now() - interval '2 years')");
	/* A fleet over the months, as Record would have left it. */
	sql("INSERT INTO jitrca.certificate (expiry_month, issuer_id, serial, status, profile,"
	    " device_id, of_device, subject, principal_id, manifest_id, not_before, not_after,"
	    " issued_at, sha256, spki_sha256, status_at, der)"
	    " SELECT jitrca.serial_month(s), 1 + n %% 2, s, CASE n %% 10 WHEN 1 THEN 'revoked'"
	    " WHEN 2 THEN 'superseded' WHEN 3 THEN 'held' WHEN 4 THEN 'pending_confirmation'"
	    " ELSE 'active' END, CASE WHEN n %% 3 = 0 THEN 'short' ELSE 'device' END,"
	    " 'fleet-' || n %% 500, true, 'CN=f', CASE WHEN n %% 4 = 0 THEN 'st2' ELSE 'st' END,"
	    " CASE WHEN n %% 7 = 0 AND n %% 4 <> 0 THEN 'm-search' END, e - interval '1 year', e,"
	    " e - interval '1 year' + n %% 3 * interval '1 second', sha256(s), sha256(s), now(),"
	    " '\\x00' FROM (SELECT n, e, ('\\x01' || lpad(to_hex(n %% 256), 2, '0') ||"
	    " lpad(to_hex((extract(year FROM e) * 12 + extract(month FROM e) - 1)::int), 4, '0') ||"
	    " substr(md5(n::text), 1, 24))::bytea AS s FROM (SELECT n, date_trunc('second',"
	    " now() AT TIME ZONE 'UTC') - interval '30 days' + n %% 300 * interval '1 day' AS e"
	    " FROM generate_series(1, 6000) n) a) b");

	assert_int_equal(walk(FILTER(0), 700), count("certificate"));
	assert_int_equal(walk(FILTER(.device_id = "fleet-7"), 5), 12);
	assert_int_equal(walk(FILTER(.principal_id = "st2"), 700), 1500);
	assert_int_equal(walk(FILTER(.manifest_id = "m-search"), 100),
		count("certificate WHERE manifest_id = 'm-search'"));
	assert_int_equal(walk(FILTER(.profile = "short"), 700), 2000);
	assert_int_equal(walk(FILTER(.issuer_id = 2), 700), 3000);
	assert_int_equal(walk(FILTER(.principal_id = "st", .profile = "short", .issuer_id = 2), 700),
		count("certificate WHERE principal_id = 'st' AND profile = 'short' AND issuer_id = 2"));
	assert_int_equal(walk(FILTER(.status = CERT_REVOKED), 700),
		count("certificate WHERE status = 'revoked'"));
	for (enum cert_status status = CERT_ACTIVE; status <= CERT_HELD; status++)
		assert_int_equal(walk(FILTER(.status = status), 700),
			count("certificate WHERE status = '%s' AND not_after > to_timestamp(%lld)",
				cert_status_name(status), (long long)world_now));
	assert_int_equal(walk(FILTER(.status = CERT_EXPIRED), 70),
		count("certificate WHERE status <> 'revoked' AND not_after <= to_timestamp(%lld)",
			(long long)world_now));
	assert_int_equal(walk(FILTER(.expires_after_s = world_now,
		.expires_before_s = world_now + 7 * 86400), 70),
		count("certificate WHERE not_after >= to_timestamp(%lld)"
			" AND not_after < to_timestamp(%lld)", (long long)world_now,
			(long long)world_now + 7 * 86400));
	assert_int_equal(walk(FILTER(.issued_after_s = world_now - 200 * 86400,
		.issued_before_s = world_now - 100 * 86400, .status = CERT_ACTIVE), 70),
		count("certificate WHERE issued_at >= to_timestamp(%lld) AND status = 'active'"
			" AND issued_at < to_timestamp(%lld)", (long long)world_now - 200 * 86400,
			(long long)world_now - 100 * 86400));
	assert_int_equal(walk(FILTER(.expires_after_s = world_now - 8 * 86400, .profile = "short"), 70),
		count("certificate WHERE not_after >= to_timestamp(%lld) AND profile = 'short'",
			(long long)world_now - 8 * 86400));
	for (enum cert_status status = CERT_ACTIVE; status <= CERT_REVOKED; status++) {
		static const char LASTS[] = "(status = 'revoked' OR not_after > to_timestamp(%lld))";
		char where[256];

		snprintf(where, sizeof(where), LASTS, (long long)world_now);
		assert_int_equal(walk(FILTER(.status = status, .principal_id = "st2"), 70),
			count("certificate WHERE status = '%s' AND %s AND principal_id = 'st2'",
				cert_status_name(status), where));
		assert_int_equal(walk(FILTER(.status = status, .profile = "short"), 70),
			count("certificate WHERE status = '%s' AND %s AND profile = 'short'",
				cert_status_name(status), where));
		assert_int_equal(walk(FILTER(.status = status,
			.expires_before_s = world_now + 60 * 86400), 70),
			count("certificate WHERE status = '%s' AND %s AND not_after < to_timestamp(%lld)",
				cert_status_name(status), where, (long long)world_now + 60 * 86400));
		assert_int_equal(walk(FILTER(.status = status, .issued_after_s = world_now - 300 * 86400),
			700), count("certificate WHERE status = '%s' AND %s"
				" AND issued_at >= to_timestamp(%lld)",
				cert_status_name(status), where, (long long)world_now - 300 * 86400));
	}
	assert_int_equal(walk(FILTER(.device_id = "nobody"), 5), 0);
}

/* Each allocation fails once: an error, and nothing leaks. */
static void
memory_may_be_short(void **state)
{
	struct db_cert_ref ref = issue(ask("memory"));
	int64_t failed = 0;

	(void)state;
	for (int64_t n = 0; n < 200; n++) {
		own_struct(db_tx) tx = { 0 };
		struct db_certificate page[4] = { 0 };
		struct db_certificate_filter filter = { .device_id = "memory" };
		struct db_certificate_cursor next;
		struct db_admit_item item = ask("memory");
		struct db_revoke_result result;
		struct db_orphan orphan;
		struct err why;
		enum status status;
		size_t count_found = 0;
		size_t reaped;

		item.replace = true;
		MUST(db_tx_begin(&tx, world_pool, err));
		mem_fail_at(n);
		status = db_certificate_search(&tx, &filter, NULL, 4, page, &count_found, &next, &why);
		for (size_t i = 0; i < count_found; i++)
			db_certificate_free(&page[i]);
		if (status == OK)
			status = db_issuance_admit(&tx, 1, &item, 1, &why);
		if (status == OK) {
			struct db_record_item record = record_of(&item);

			status = db_issuance_record(&tx, &record, 1, &why);
		}
		if (status == OK)
			status = db_revocation_revoke(&tx, &item.ref, REASON_KEY_COMPROMISE, world_now,
				&result, &why);
		if (status == OK) {
			item = ask("memory-2");
			status = db_issuance_admit(&tx, 1, &item, 1, &why);
		}
		if (status == OK)
			status = db_issuance_reap(&tx, 1, &item.ref, 1, &orphan, 1, &reaped, &why);
		mem_fail_at(-1);
		if (status == OK) {
			assert_true(n > 20);
			assert_int_equal(reaped, 1);
			break;
		}
		/* Short memory while a row is read shows as a row that cannot be read. */
		assert_true(status == ERR_UNAVAILABLE || strcmp(why.code, "database_shape") == 0);
		failed++;
	}
	assert_in_range(failed, 20, 199);
	assert_int_equal(status_of(&ref), CERT_ACTIVE);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_certificate_is_found_in_each_way),
		cmocka_unit_test(revoked_wins_over_expired),
		cmocka_unit_test(every_filter_finds_what_sql_finds),
		cmocka_unit_test(memory_may_be_short),
	};

	return cmocka_run_group_tests(tests, world_setup, world_teardown);
}
