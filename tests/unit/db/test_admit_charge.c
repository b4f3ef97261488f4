#include "tests/unit/db/issuing.h"

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

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(manifests_say_what_is_allowed),
		cmocka_unit_test(a_line_is_one_certificate_where_nothing_else_says_so),
		cmocka_unit_test(a_batch_shares_what_is_left),
		cmocka_unit_test(a_station_has_a_rate),
	};

	return cmocka_run_group_tests(tests, world_setup, world_teardown);
}
