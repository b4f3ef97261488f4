#include "tests/unit/server/fixture.h"

#include <fcntl.h>
#include <jansson.h>

#include "server/audit.h"
#include "server/http/request.h"

/* No CA and no signer here: a database, and an app that has its pool. */
static struct fixture FIX;

static int
start(void **state)
{
	struct err err;

	(void)state;
	log_setup(open("/dev/null", O_WRONLY | O_CLOEXEC), LOG_ERROR, "test");
	FIX.app = (struct app){ .clock = &CLOCK_SYSTEM, .audit_lane = 1 };
	CHECK(ca_init(&err));
	fixture_database(&FIX);
	return 0;
}

static int
stop(void **state)
{
	(void)state;
	db_pool_free(FIX.app.pool);
	fixture_drop_database(&FIX);
	return 0;
}

static void
write_record(int32_t lane, const char *action, size_t items)
{
	struct audit_item list[8];
	char objects[8][40];
	struct audit_entry entry = { .action = action, .actor = "admin", .request_id = "abc",
		.at_s = 1795536842, .items = list, .item_count = items };
	own(json_t) detail = json_pack("{s:s, s:i}", "text", "naïve \"quoted\" \\ \n", "n", 7);
	own_struct(db_tx) tx = { NULL, NULL };
	struct err err;

	assert_true(items <= COUNT_OF(list));
	for (size_t i = 0; i < items; i++) {
		(void)snprintf(objects[i], sizeof(objects[i]), "device:unit-%zu", i);
		list[i] = (struct audit_item){ .object = objects[i], .detail = detail };
	}
	FIX.app.audit_lane = lane;
	CHECK(db_tx_begin(&tx, FIX.app.pool, &err));
	CHECK(audit_write(&FIX.app, &tx, &entry, &err));
	CHECK(db_tx_commit(&tx, &err));
}

static json_t *
verify(void)
{
	json_t *report;
	struct err err;

	CHECK(audit_verify(&FIX.app, &report, &err));
	return report;
}

static void
want_whole(json_int_t records, json_int_t lanes)
{
	own(json_t) report = verify();

	if (!json_is_true(json_object_get(report, "ok")))
		fail_msg("%s", json_dumps(report, 0));
	assert_int_equal(json_integer_value(json_object_get(report, "records")), records);
	assert_int_equal(json_integer_value(json_object_get(report, "lanes")), lanes);
	assert_null(json_object_get(report, "first_broken"));
}

static void
want_broken(json_int_t lane, json_int_t seq, const char *why)
{
	own(json_t) report = verify();
	const json_t *first = json_object_get(report, "first_broken");

	assert_true(json_is_false(json_object_get(report, "ok")));
	assert_int_equal(json_integer_value(json_object_get(first, "lane")), lane);
	assert_int_equal(json_integer_value(json_object_get(first, "seq")), seq);
	assert_string_equal(json_string_value(json_object_get(first, "why")), why);
}

/* What somebody with the database's own rights could do. */
static void
tamper(const char *sql)
{
	fixture_exec(FIX.sql, "SET session_replication_role = replica");
	fixture_exec(FIX.sql, sql);
	fixture_exec(FIX.sql, "SET session_replication_role = DEFAULT");
}

static int
fresh(void **state)
{
	(void)state;
	tamper("TRUNCATE jitrca.audit_dropped, jitrca.audit_note_lane, jitrca.audit_note,"
	       " jitrca.audit_item, jitrca.audit_record, jitrca.audit_lane,"
		" jitrca.audit_checkpoint");
	for (int i = 0; i < 5; i++)
		write_record(1, "test.write", (size_t)i);
	for (int i = 0; i < 3; i++)
		write_record(2, "test.write", 2);
	return 0;
}

static void
invariant_8_what_was_written_verifies(void **state)
{
	(void)state;
	want_whole(8, 2);
}

static void
a_body_is_canonical_and_says_who_and_what(void **state)
{
	PGresult *result = PQexec(FIX.sql, "SELECT convert_from(body, 'UTF8') FROM jitrca.audit_record"
		" WHERE lane = 1 AND seq = 1");

	(void)state;
	/* The root of no leaves is BLAKE2b-256 of nothing. */
	assert_string_equal(PQgetvalue(result, 0, 0), "{\"action\":\"test.write\",\"actor\":\"admin\","
		"\"at\":\"2026-11-24T16:14:02Z\",\"items\":0,\"items_root\":"
		"\"0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8\",\"lane\":1,"
		"\"request_id\":\"abc\",\"seq\":1}");
	PQclear(result);
}

/* More records than a page of the walk holds. */
static void
long_lanes_are_walked_to_their_end(void **state)
{
	(void)state;
	for (int i = 0; i < 250; i++)
		write_record(1, "test.more", 1);
	want_whole(258, 2);
	tamper("UPDATE jitrca.audit_record SET body = body || ' ' WHERE lane = 1 AND seq = 255");
	want_broken(1, 255, "hash_differs");
}

static void
invariant_8_each_kind_of_tampering_is_named(void **state)
{
	static const struct {
		const char *sql;
		json_int_t want_lane, want_seq;
		const char *want_why;
	} CASES[] = {
		{ "UPDATE jitrca.audit_record SET body = convert_to(replace(convert_from(body, 'UTF8'),"
		  " 'admin', 'nimda'), 'UTF8') WHERE lane = 1 AND seq = 3", 1, 3, "hash_differs" },
		{ "UPDATE jitrca.audit_record SET actor = 'other' WHERE lane = 1 AND seq = 2", 1, 2,
		  "columns_differ" },
		{ "UPDATE jitrca.audit_record SET at = at + interval '1 hour' WHERE lane = 1 AND seq = 2",
		  1, 2, "columns_differ" },
		{ "UPDATE jitrca.audit_record SET action = 'other' WHERE lane = 2 AND seq = 3", 2, 3,
		  "columns_differ" },
		{ "DELETE FROM jitrca.audit_record WHERE lane = 1 AND seq = 2", 1, 2, "record_missing" },
		{ "DELETE FROM jitrca.audit_record WHERE lane = 2 AND seq = 3", 2, 3, "record_missing" },
		{ "UPDATE jitrca.audit_item SET body = body || ' ' WHERE lane = 1 AND seq = 4", 1, 4,
		  "items_differ" },
		{ "UPDATE jitrca.audit_item SET object = 'device:other' WHERE lane = 1 AND seq = 4", 1, 4,
		  "items_differ" },
		{ "DELETE FROM jitrca.audit_item WHERE lane = 1 AND seq = 5 AND idx ="
		  " (SELECT max(idx) FROM jitrca.audit_item WHERE lane = 1 AND seq = 5)", 1, 5,
		  "items_differ" },
		{ "UPDATE jitrca.audit_lane SET head = decode(repeat('ab', 32), 'hex') WHERE lane = 2", 2,
		  3, "head_differs" },
		/* Two change places. */
		{ "UPDATE jitrca.audit_record SET seq = CASE seq WHEN 4 THEN -5 ELSE -4 END"
		  " WHERE lane = 1 AND seq IN (4, 5);"
		  "UPDATE jitrca.audit_record SET seq = -seq WHERE lane = 1 AND seq < 0", 1, 4,
		  "hash_differs" },
	};

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		(void)fresh(NULL);
		tamper("ALTER TABLE jitrca.audit_record DROP CONSTRAINT IF EXISTS"
			" audit_record_seq_check");
		tamper(CASES[i].sql);
		want_broken(CASES[i].want_lane, CASES[i].want_seq, CASES[i].want_why);
	}
}

static void
truncation_shows_against_a_checkpoint(void **state)
{
	own_struct(db_tx) tx = { NULL, NULL };
	struct err err;

	(void)state;
	CHECK(db_tx_begin(&tx, FIX.app.pool, &err));
	CHECK(db_audit_checkpoint(&tx, &err));
	CHECK(db_tx_commit(&tx, &err));
	want_whole(8, 2);
	/* Cut so that what is left is whole in itself. */
	tamper("DELETE FROM jitrca.audit_record WHERE lane = 1 AND seq = 5;"
		"UPDATE jitrca.audit_lane SET seq = 4, head = (SELECT hash FROM jitrca.audit_record"
		" WHERE lane = 1 AND seq = 4) WHERE lane = 1");
	want_broken(1, 5, "truncated");
	tamper("DELETE FROM jitrca.audit_record WHERE lane = 1;"
		"DELETE FROM jitrca.audit_lane WHERE lane = 1");
	want_broken(1, 1, "truncated");
}

static void
a_past_that_was_written_anew_shows_against_a_checkpoint(void **state)
{
	own_struct(db_tx) tx = { NULL, NULL };
	struct err err;

	(void)state;
	CHECK(db_tx_begin(&tx, FIX.app.pool, &err));
	CHECK(db_audit_checkpoint(&tx, &err));
	CHECK(db_tx_commit(&tx, &err));
	tamper("DELETE FROM jitrca.audit_item WHERE lane = 2; DELETE FROM jitrca.audit_record WHERE"
		" lane = 2; UPDATE jitrca.audit_lane SET seq = 0, head = decode(repeat('00', 32), 'hex')"
		" WHERE lane = 2");
	for (int i = 0; i < 4; i++)
		write_record(2, "test.forged", 1);
	want_broken(2, 3, "checkpoint_differs");
}

static void
a_record_that_is_rolled_back_leaves_no_gap(void **state)
{
	struct audit_entry entry = { .action = "test.never", .actor = "admin", .at_s = 1 };
	struct err err;

	(void)state;
	FIX.app.audit_lane = 1;
	{
		own_struct(db_tx) tx = { NULL, NULL };

		CHECK(db_tx_begin(&tx, FIX.app.pool, &err));
		CHECK(audit_write(&FIX.app, &tx, &entry, &err));
	}
	write_record(1, "test.after", 1);
	want_whole(9, 2);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(invariant_8_what_was_written_verifies, fresh),
		cmocka_unit_test_setup(a_body_is_canonical_and_says_who_and_what, fresh),
		cmocka_unit_test_setup(long_lanes_are_walked_to_their_end, fresh),
		cmocka_unit_test(invariant_8_each_kind_of_tampering_is_named),
		cmocka_unit_test_setup(truncation_shows_against_a_checkpoint, fresh),
		cmocka_unit_test_setup(a_past_that_was_written_anew_shows_against_a_checkpoint, fresh),
		cmocka_unit_test_setup(a_record_that_is_rolled_back_leaves_no_gap, fresh),
	};

	return cmocka_run_group_tests(tests, start, stop);
}
