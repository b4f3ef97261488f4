#include "tests/unit/db/db_test.h"

#include "db/manifest.h"
#include "db/principal.h"

#define NOW 1795536842

static void
add_station(struct db_tx *tx, const char *id)
{
	struct db_station station = { .principal = { .created_by = "ann" },
		.profiles = { "device" }, .profile_count = 1, .rate_per_minute = 60 };

	(void)snprintf(station.principal.principal_id, DB_ID_BYTES, "%s", id);
	assert_ok(db_station_create(tx, &station, err));
}

static struct db_manifest
manifest_of(const char *id, const char *station)
{
	struct db_manifest manifest = { .profile = "device", .quantity = 10, .allow_replace = true,
		.not_before_s = NOW, .not_after_s = NOW + 3600, .created_at_s = NOW - 5,
		.created_by = "ann" };

	(void)snprintf(manifest.manifest_id, DB_ID_BYTES, "%s", id);
	(void)snprintf(manifest.station_id, DB_ID_BYTES, "%s", station);
	return manifest;
}

static void
add_manifest(struct db_tx *tx, const char *id, const char *station)
{
	struct db_manifest manifest = manifest_of(id, station);

	assert_ok(db_manifest_create(tx, &manifest, err));
}

static void
a_manifest_is_read_as_it_was_written(void **state)
{
	struct db_tx *tx = *state;
	struct db_manifest found;

	add_station(tx, "line-1");
	add_manifest(tx, "order-7", "line-1");
	assert_ok(db_manifest_find(tx, "order-7", &found, err));
	assert_string_equal(found.manifest_id, "order-7");
	assert_string_equal(found.station_id, "line-1");
	assert_string_equal(found.profile, "device");
	assert_int_equal(found.quantity, 10);
	assert_int_equal(found.used, 0);
	assert_int_equal(found.line_count, 0);
	assert_true(found.allow_replace);
	assert_int_equal(found.not_before_s, NOW);
	assert_int_equal(found.not_after_s, NOW + 3600);
	assert_int_equal(found.created_at_s, NOW - 5);
	assert_int_equal(found.closed_at_s, 0);
	assert_string_equal(found.created_by, "ann");
}

static void
a_manifest_needs_an_id_of_its_own_and_a_station(void **state)
{
	struct db_tx *tx = *state;
	struct db_manifest manifest = manifest_of("order-7", "line-1");
	struct db_manifest found;

	assert_refused(db_manifest_create(tx, &manifest, err), ERR_NOT_FOUND, "station_unknown");
	add_station(tx, "line-1");
	assert_ok(db_manifest_create(tx, &manifest, err));
	assert_refused(db_manifest_create(tx, &manifest, err), ERR_CONFLICT, "manifest_exists");
	assert_refused(db_manifest_find(tx, "order-8", &found, err), ERR_NOT_FOUND, "manifest_unknown");
	sql_refused(tx, "UPDATE jitrca.manifest SET used = 11", "23514"); /* quantity is 10 */
	sql_refused(tx, "UPDATE jitrca.manifest SET not_after = not_before", "23514");
}

static void
manifests_page_by_id_and_station(void **state)
{
	struct db_tx *tx = *state;
	struct db_manifest page[4];
	size_t count;

	add_station(tx, "line-1");
	add_station(tx, "line-2");
	add_manifest(tx, "c", "line-1");
	add_manifest(tx, "a", "line-1");
	add_manifest(tx, "b", "line-2");
	assert_ok(db_manifest_list(tx, NULL, NULL, 2, page, &count, err));
	assert_int_equal(count, 2);
	assert_string_equal(page[1].manifest_id, "b");
	assert_ok(db_manifest_list(tx, NULL, "b", 2, page, &count, err));
	assert_int_equal(count, 1);
	assert_ok(db_manifest_list(tx, "line-1", "a", 4, page, &count, err));
	assert_int_equal(count, 1);
	assert_string_equal(page[0].manifest_id, "c");
}

static void
open_manifests_are_those_that_may_be_used_now(void **state)
{
	struct db_tx *tx = *state;
	struct db_manifest page[4];
	size_t count;
	bool changed;

	add_station(tx, "line-1");
	add_manifest(tx, "a", "line-1");
	add_manifest(tx, "b", "line-1");
	assert_ok(db_manifest_open(tx, "line-1", NOW - 1, page, 4, &count, err));
	assert_int_equal(count, 0);
	assert_ok(db_manifest_open(tx, "line-1", NOW, page, 4, &count, err));
	assert_int_equal(count, 2);
	assert_ok(db_manifest_open(tx, "line-1", NOW + 3600, page, 4, &count, err));
	assert_int_equal(count, 0);
	assert_ok(db_manifest_close(tx, "a", &changed, err));
	assert_true(changed);
	assert_ok(db_manifest_close(tx, "a", &changed, err));
	assert_false(changed);
	assert_refused(db_manifest_close(tx, "z", &changed, err), ERR_NOT_FOUND, "manifest_unknown");
	assert_ok(db_manifest_open(tx, "line-1", NOW, page, 4, &count, err));
	assert_int_equal(count, 1);
	assert_string_equal(page[0].manifest_id, "b");
	assert_ok(db_manifest_find(tx, "a", &page[0], err));
	assert_true(page[0].closed_at_s > 0);
}

/* Ids d0, d1 … by a step; fails at a point when it is set. */
struct ids {
	int64_t at, end, fail_at;
	char id[DB_ID_BYTES];
};

static enum status
next_id(void *arg, const char **id, struct err *err)
{
	struct ids *ids = arg;

	*id = NULL;
	if (ids->fail_at > 0 && ids->at == ids->fail_at)
		return err_set(err, ERR_ARGUMENT, "device_id_malformed", "line %lld", (long long)ids->at);
	if (ids->at == ids->end)
		return OK;
	(void)snprintf(ids->id, sizeof(ids->id), "device-%010lld", (long long)ids->at++);
	*id = ids->id;
	return OK;
}

static void
lines_are_added_once(void **state)
{
	struct db_tx *tx = *state;
	struct db_manifest found;
	struct ids ids = { .at = 0, .end = 1000 };
	int64_t added;

	add_station(tx, "line-1");
	add_manifest(tx, "order-7", "line-1");
	assert_ok(db_manifest_add_lines(tx, "order-7", next_id, &ids, &added, err));
	assert_int_equal(added, 1000);
	ids = (struct ids){ .at = 500, .end = 1500 };
	assert_ok(db_manifest_add_lines(tx, "order-7", next_id, &ids, &added, err));
	assert_int_equal(added, 500);
	ids = (struct ids){ .at = 0, .end = 0 };
	assert_ok(db_manifest_add_lines(tx, "order-7", next_id, &ids, &added, err));
	assert_int_equal(added, 0);
	assert_ok(db_manifest_find(tx, "order-7", &found, err));
	assert_int_equal(found.line_count, 1500);
	assert_int_equal(sql_number(tx, "SELECT count(*) FROM jitrca.manifest_line"), 1500);
}

static enum status
same_id(void *arg, const char **id, struct err *err)
{
	int *left = arg;

	(void)err;
	*id = (*left)-- > 0 ? "twin" : NULL;
	return OK;
}

static void
an_id_twice_in_one_upload_is_one_line(void **state)
{
	struct db_tx *tx = *state;
	int left = 5;
	int64_t added;

	add_station(tx, "line-1");
	add_manifest(tx, "order-7", "line-1");
	assert_ok(db_manifest_add_lines(tx, "order-7", same_id, &left, &added, err));
	assert_int_equal(added, 1);
}

static void
lines_go_to_open_manifests_only(void **state)
{
	struct db_tx *tx = *state;
	struct ids ids = { .at = 0, .end = 3 };
	int64_t added;
	bool changed;

	assert_refused(db_manifest_add_lines(tx, "order-7", next_id, &ids, &added, err), ERR_NOT_FOUND,
		"manifest_unknown");
	add_station(tx, "line-1");
	add_manifest(tx, "order-7", "line-1");
	assert_ok(db_manifest_close(tx, "order-7", &changed, err));
	assert_refused(db_manifest_add_lines(tx, "order-7", next_id, &ids, &added, err), ERR_CONFLICT,
		"manifest_closed");
	assert_int_equal(sql_number(tx, "SELECT count(*) FROM jitrca.manifest_line"), 0);
}

/* The peak of resident memory, in KiB. */
static long
peak_kib(void)
{
	char line[128];
	long kib = 0;
	FILE *status = fopen("/proc/self/status", "r");

	assert_non_null(status);
	while (fgets(line, sizeof(line), status) != NULL)
		if (strncmp(line, "VmHWM:", 6) == 0)
			kib = strtol(line + 6, NULL, 10);
	(void)fclose(status);
	return kib;
}

static void
a_hundred_thousand_lines_are_added_all_or_none(void **state)
{
	struct db_tx tx = { NULL, NULL };
	struct ids ids = { .at = 0, .end = 100000, .fail_at = 99999 };
	struct db_manifest found;
	int64_t added;

	(void)state;
	assert_ok(db_tx_begin(&tx, POOL, err));
	add_station(&tx, "line-1");
	add_manifest(&tx, "order-7", "line-1");
	assert_ok(db_tx_commit(&tx, err));

	assert_ok(db_tx_begin(&tx, POOL, err)); /* the last one is malformed */
	assert_refused(db_manifest_add_lines(&tx, "order-7", next_id, &ids, &added, err), ERR_ARGUMENT,
		"device_id_malformed");
	assert_refused(db_tx_commit(&tx, err), ERR_INTERNAL, "commit_rolled_back");
	assert_ok(db_tx_begin(&tx, POOL, err));
	assert_int_equal(sql_number(&tx, "SELECT count(*) FROM jitrca.manifest_line"), 0);

	long before_kib = peak_kib();
	ids = (struct ids){ .at = 0, .end = 100000 };
	assert_ok(db_manifest_add_lines(&tx, "order-7", next_id, &ids, &added, err));
	assert_int_equal(added, 100000);
#ifndef __SANITIZE_ADDRESS__
	assert_true(peak_kib() - before_kib < 1024); /* the lines are 2 MB */
#else
	(void)before_kib;
#endif
	assert_ok(db_tx_commit(&tx, err));

	assert_ok(db_tx_begin(&tx, POOL, err));
	assert_ok(db_manifest_find(&tx, "order-7", &found, err));
	assert_int_equal(found.line_count, 100000);
	assert_int_equal(sql_number(&tx, "SELECT count(*) FROM jitrca.manifest_line"), 100000);
	assert_int_equal(sql_number(&tx, "SELECT count(*) FROM pg_class"
		" WHERE relname = 'manifest_upload'"), 0);
	sql(&tx, "DELETE FROM jitrca.manifest_line");
	sql(&tx, "DELETE FROM jitrca.manifest");
	sql(&tx, "DELETE FROM jitrca.station");
	sql(&tx, "DELETE FROM jitrca.principal");
	assert_ok(db_tx_commit(&tx, err));
}

struct exported {
	size_t count, certificates, stop_at;
	char first_serial[SERIAL_TEXT_BYTES];
	char statuses[4][16];
	int64_t last_used_at_s;
	char last[DB_ID_BYTES];
};

static enum status
export_one(void *arg, const char *device_id, const struct serial *serial, const uint8_t *sha256,
	const char *status, int64_t used_at_s, struct err *err)
{
	struct exported *exported = arg;

	assert_true(strcmp(exported->last, device_id) < 0);
	(void)snprintf(exported->last, DB_ID_BYTES, "%s", device_id);
	assert_int_equal(sha256 != NULL, status != NULL);
	if (sha256 != NULL) {
		assert_non_null(serial);
		(void)snprintf(exported->statuses[exported->certificates++], 16, "%s", status);
		exported->last_used_at_s = used_at_s;
	}
	if (++exported->count == exported->stop_at)
		return err_set(err, ERR_UNAVAILABLE, "client_gone", "stop");
	return OK;
}

static void
an_export_has_all_lines_with_what_was_issued(void **state)
{
	struct db_tx *tx = *state;
	struct ids ids = { .at = 0, .end = 1234 };
	struct exported exported = { .count = 0 };
	int64_t added;

	add_station(tx, "line-1");
	add_manifest(tx, "order-7", "line-1");
	add_manifest(tx, "order-8", "line-1");
	assert_ok(db_manifest_add_lines(tx, "order-7", next_id, &ids, &added, err));
	sql(tx, "INSERT INTO jitrca.issuer (ca_id, kind, subject, certificate, chain, sha256, not_before,"
		" not_after) VALUES ('ca', 'issuing', 'CN=ca', '', '{}', sha256('ca'), now(), now())");
	sql(tx, "SELECT jitrca.ensure_month(2)");
	sql(tx, "INSERT INTO jitrca.certificate (expiry_month, issuer_id, serial, status, profile, device_id,"
		" subject, principal_id, not_before, not_after, issued_at, sha256, spki_sha256,"
		" status_at, der)"
		" SELECT 2, issuer_id, decode('0100000200000000000000000000000' || n, 'hex'),"
		" CASE n WHEN 3 THEN 'revoked' ELSE 'active' END, 'device', 'device-000000000' || n, 'CN=x',"
		" 'line-1', now(), now() + (2 - n) * interval '1 hour', now(), sha256(n::text::bytea),"
		" sha256(n::text::bytea), now(), ''"
		" FROM jitrca.issuer, generate_series(1, 3) n WHERE ca_id = 'ca'");
	sql(tx, "UPDATE jitrca.manifest_line l SET issuer_id = c.issuer_id, serial = c.serial,"
		" used_at = to_timestamp(1795536842) FROM jitrca.certificate c"
		" WHERE c.device_id = l.device_id");
	/* Under way, or lost: a serial without a certificate. */
	sql(tx, "UPDATE jitrca.manifest_line SET issuer_id = 1, serial = decode(repeat('01', 16), 'hex')"
		" WHERE device_id = 'device-0000000009'");

	assert_ok(db_manifest_export(tx, "order-7", export_one, &exported, err));
	assert_int_equal(exported.count, 1234);
	assert_int_equal(exported.certificates, 3);
	assert_string_equal(exported.statuses[0], "active");
	assert_string_equal(exported.statuses[1], "expired");
	assert_string_equal(exported.statuses[2], "revoked");
	assert_int_equal(exported.last_used_at_s, 1795536842);

	/* Who has enough ends it, and the transaction lives on. */
	exported = (struct exported){ .stop_at = 700 };
	assert_refused(db_manifest_export(tx, "order-7", export_one, &exported, err), ERR_UNAVAILABLE,
		"client_gone");
	assert_int_equal(exported.count, 700);
	exported = (struct exported){ .count = 0 };
	assert_ok(db_manifest_export(tx, "order-8", export_one, &exported, err));
	assert_int_equal(exported.count, 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		in_tx(a_manifest_is_read_as_it_was_written),
		in_tx(a_manifest_needs_an_id_of_its_own_and_a_station),
		in_tx(manifests_page_by_id_and_station),
		in_tx(open_manifests_are_those_that_may_be_used_now),
		in_tx(lines_are_added_once),
		in_tx(an_id_twice_in_one_upload_is_one_line),
		in_tx(lines_go_to_open_manifests_only),
		cmocka_unit_test(a_hundred_thousand_lines_are_added_all_or_none),
		in_tx(an_export_has_all_lines_with_what_was_issued),
	};

	return cmocka_run_group_tests(tests, database_make, database_drop);
}
