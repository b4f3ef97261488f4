#include "tests/unit/db/db_test.h"

#include <pthread.h>

#include "base/mem.h"
#include "db/audit.h"

#define NOW 1795536842

/* Appends the next record of a lane with count items about object; its hash is its seq, repeated. */
static void
append(struct db_tx *tx, int32_t lane, int64_t at_s, const char *actor, const char *action,
	const char *object, size_t count)
{
	struct db_audit_record record = { .lane = lane, .at_s = at_s };
	struct db_audit_item items[8];
	static uint8_t body[] = "{\"seq\":1}";
	uint8_t head[32];

	(void)snprintf(record.actor, sizeof(record.actor), "%s", actor);
	(void)snprintf(record.action, sizeof(record.action), "%s", action);
	record.body = (struct bytes){ body, sizeof(body) - 1 };
	for (size_t i = 0; i < count; i++)
		items[i] = (struct db_audit_item){ object, view_text(i % 2 == 0 ? "even" : "odd") };
	assert_ok(db_audit_head(tx, lane, &record.seq, head, err));
	record.seq++;
	memset(record.hash, (int)record.seq, sizeof(record.hash));
	assert_ok(db_audit_append(tx, &record, items, count, err));
}

static void
a_lane_begins_at_nothing_and_follows_its_head(void **state)
{
	struct db_tx *tx = *state;
	uint8_t head[32];
	static const uint8_t NOTHING[32] = { 0 };
	int64_t seq = 9;

	assert_ok(db_audit_head(tx, 3, &seq, head, err));
	assert_int_equal(seq, 0);
	assert_memory_equal(head, NOTHING, 32);
	append(tx, 3, NOW, "ann", "a", "x", 1);
	append(tx, 3, NOW, "ann", "a", "x", 0);
	assert_ok(db_audit_head(tx, 3, &seq, head, err));
	assert_int_equal(seq, 2);
	assert_int_equal(head[31], 2);
}

static void
a_record_that_does_not_follow_is_refused(void **state)
{
	static const int64_t SEQS[] = { 1, 3, 0 };
	struct db_tx *tx = *state;

	append(tx, 3, NOW, "ann", "a", "x", 1);
	for (size_t i = 0; i < COUNT_OF(SEQS); i++) {
		struct db_audit_record record = { .lane = 3, .seq = SEQS[i], .at_s = NOW, .actor = "ann",
			.action = "a", .body = { (uint8_t[]){ '{' }, 1 } };
		struct err err;

		sql(tx, "SAVEPOINT here");
		assert_int_not_equal(db_audit_append(tx, &record, NULL, 0, &err), OK);
		if (SEQS[i] == 3)
			assert_string_equal(err.code, "audit_out_of_order");
		sql(tx, "ROLLBACK TO SAVEPOINT here");
	}
}

static void
records_cannot_be_changed_or_deleted(void **state)
{
	struct db_tx *tx = *state;

	append(tx, 3, NOW, "ann", "a", "x", 2);
	sql_refused(tx, "UPDATE jitrca.audit_record SET body = ''", "23514");
	sql_refused(tx, "UPDATE jitrca.audit_record SET actor = 'eve'", "23514");
	sql_refused(tx, "DELETE FROM jitrca.audit_record", "23514");
	sql_refused(tx, "UPDATE jitrca.audit_item SET object = 'y'", "23514");
	sql_refused(tx, "DELETE FROM jitrca.audit_item", "23514");
	sql_refused(tx, "INSERT INTO jitrca.audit_item VALUES (9, 9, 0, 'x', '')", "23503");
}

static size_t
search(struct db_tx *tx, struct db_audit_filter filter, struct db_audit_cursor *cursor, size_t limit,
	char *seqs)
{
	struct db_audit_record page[8];
	size_t count;

	assert_ok(db_audit_search(tx, &filter, cursor, limit, page, &count, cursor, err));
	for (size_t i = 0; i < count; i++) {
		*seqs++ = (char)('a' + page[i].lane);
		*seqs++ = (char)('0' + page[i].seq);
		assert_int_equal(page[i].body.len, 9);
		assert_int_equal(page[i].hash[0], page[i].seq);
		db_audit_record_free(&page[i]);
	}
	*seqs = '\0';
	return count;
}

static void
a_search_finds_what_was_asked_for_in_order(void **state)
{
	struct db_tx *tx = *state;
	static const struct {
		struct db_audit_filter filter;
		const char *want;
	} CASES[] = {
		{ { NULL, NULL, NULL, 0, 0 }, "a1b1a2b2a3" },
		{ { "ann", NULL, NULL, 0, 0 }, "a1b2a3" },
		{ { "ann", "revoke", NULL, 0, 0 }, "a3" },
		{ { NULL, "issue", NULL, 0, 0 }, "a1b1a2b2" },
		{ { NULL, NULL, "dev-1", 0, 0 }, "a1b1a3" },
		{ { "ann", NULL, "dev-1", 0, 0 }, "a1a3" },
		{ { "ann", "issue", "dev-1", 0, 0 }, "a1" },
		{ { NULL, NULL, NULL, NOW + 10, 0 }, "b1a2b2a3" },
		{ { NULL, NULL, NULL, 0, NOW + 20 }, "a1b1" },
		{ { NULL, NULL, NULL, NOW + 10, NOW + 20 }, "b1" },
		{ { "eve", NULL, NULL, 0, 0 }, "" },
		{ { NULL, NULL, "dev", 0, 0 }, "" },
	};

	append(tx, 0, NOW, "ann", "issue", "dev-1", 2);
	append(tx, 1, NOW + 10, "bob", "issue", "dev-1", 1);
	append(tx, 0, NOW + 20, "bob", "issue", "dev-2", 1);
	append(tx, 1, NOW + 20, "ann", "issue", "dev-2", 1);
	append(tx, 0, NOW + 30, "ann", "revoke", "dev-1", 1);
	for (size_t i = 0; i < COUNT_OF(CASES); i++)
		for (size_t limit = 1; limit <= 6; limit++) { /* any page size shows the same */
			struct db_audit_cursor cursor = { .set = false };
			char seqs[32] = "";
			size_t len = 0;

			do
				len += 2 * search(tx, CASES[i].filter, &cursor, limit, seqs + len);
			while (cursor.set);
			assert_string_equal(seqs, CASES[i].want);
		}
}

static void
a_search_by_object_uses_its_index(void **state)
{
	struct db_tx *tx = *state;
	struct db_audit_cursor cursor = { .set = false };
	own(PGresult) plan = NULL;
	char seqs[32];
	bool by_object = false;

	append(tx, 0, NOW, "ann", "issue", "dev-0", 0);
	sql(tx, "INSERT INTO jitrca.audit_record SELECT 0, n, now(), 'a', 'b', '', sha256('')"
		" FROM generate_series(2, 5000) n");
	sql(tx, "INSERT INTO jitrca.audit_item SELECT 0, n, 0, 'dev-' || n, ''"
		" FROM generate_series(2, 5000) n");
	sql(tx, "ANALYZE jitrca.audit_record, jitrca.audit_item");
	(void)search(tx, (struct db_audit_filter){ .object = "nobody" }, &cursor, 1, seqs);
	assert_ok(db_conn_exec(tx->conn, "plan", "EXPLAIN EXECUTE audit_search_object"
		"(NULL, NULL, 'dev-77', NULL, NULL, NULL, 0, 0, 10)", &plan, err));
	for (int i = 0; i < PQntuples(plan); i++) {
		by_object |= strstr(PQgetvalue(plan, i, 0), "audit_item_object") != NULL;
		assert_null(strstr(PQgetvalue(plan, i, 0), "Seq Scan"));
	}
	assert_true(by_object);
}

struct seen {
	size_t count;
	size_t stop_at;
};

static enum status
see_item(void *arg, const char *object, struct view body, struct err *err)
{
	struct seen *seen = arg;

	assert_string_equal(object, "dev-1");
	assert_true(view_equal_text(body, seen->count % 2 == 0 ? "even" : "odd"));
	if (++seen->count == seen->stop_at)
		return err_set(err, ERR_ARGUMENT, "enough", "enough");
	return OK;
}

static void
items_come_in_order(void **state)
{
	struct db_tx *tx = *state;
	struct seen seen = { .count = 0 };

	append(tx, 2, NOW, "ann", "issue", "dev-1", 7);
	assert_ok(db_audit_items(tx, 2, 1, see_item, &seen, err));
	assert_int_equal(seen.count, 7);
	seen = (struct seen){ .stop_at = 2 };
	assert_refused(db_audit_items(tx, 2, 1, see_item, &seen, err), ERR_ARGUMENT, "enough");
	seen = (struct seen){ .count = 0 };
	assert_ok(db_audit_items(tx, 2, 2, see_item, &seen, err));
	assert_int_equal(seen.count, 0);
}

static void
verification_pages_through_every_lane(void **state)
{
	struct db_tx *tx = *state;
	struct db_audit_lane lanes[4];
	struct db_audit_record page[3];
	size_t count;
	int64_t seq = 0;

	for (int i = 0; i < 8; i++)
		append(tx, 1, NOW + i, "ann", "a", "x", 1);
	append(tx, 4, NOW, "ann", "a", "x", 1);
	assert_ok(db_audit_lanes(tx, lanes, 4, &count, err));
	assert_int_equal(count, 2);
	assert_int_equal(lanes[0].lane, 1);
	assert_int_equal(lanes[0].seq, 8);
	assert_int_equal(lanes[0].head[0], 8);
	assert_int_equal(lanes[1].lane, 4);
	do {
		assert_ok(db_audit_lane_page(tx, 1, seq, COUNT_OF(page), page, &count, err));
		for (size_t i = 0; i < count; i++) {
			assert_int_equal(page[i].seq, ++seq);
			assert_int_equal(page[i].at_s, NOW + seq - 1);
			assert_string_equal(page[i].actor, "ann");
			db_audit_record_free(&page[i]);
		}
	} while (count > 0);
	assert_int_equal(seq, 8);
}

static void
a_page_without_memory_leaves_nothing(void **state)
{
	struct db_tx *tx = *state;
	struct db_audit_record page[3];
	size_t count;

	for (int i = 0; i < 3; i++)
		append(tx, 1, NOW + i, "ann", "a", "x", 1);
	for (int n = 0; n < 3; n++) {
		assert_ok(db_audit_lane_page(tx, 1, 9, 3, page, &count, err)); /* prepares */
		mem_fail_at(n);
		assert_refused(db_audit_lane_page(tx, 1, 0, 3, page, &count, err), ERR_INTERNAL,
			"database_shape");
		mem_fail_at(-1);
		assert_int_equal(count, 0);
	}
}

static void
a_checkpoint_holds_the_heads(void **state)
{
	struct db_tx *tx = *state;
	struct db_audit_anchor anchors[4];
	size_t count;

	append(tx, 1, NOW, "ann", "a", "x", 1);
	append(tx, 2, NOW, "ann", "a", "x", 1);
	assert_ok(db_audit_checkpoint(tx, err));
	assert_ok(db_audit_checkpoint(tx, err)); /* nothing new */
	append(tx, 2, NOW, "ann", "a", "x", 1);
	assert_ok(db_audit_checkpoint(tx, err));
	append(tx, 2, NOW, "ann", "a", "x", 1);
	assert_ok(db_audit_anchors(tx, anchors, 4, &count, err));
	assert_int_equal(count, 2);
	assert_int_equal(anchors[0].lane, 1);
	assert_int_equal(anchors[0].seq, 1);
	assert_int_equal(anchors[1].lane, 2);
	assert_int_equal(anchors[1].seq, 2);
	assert_int_equal(anchors[1].hash[0], 2);
	assert_int_equal(sql_number(tx, "SELECT count(*) FROM jitrca.audit_checkpoint"), 3);
}

static void *
append_many(void *arg)
{
	(void)arg;
	for (int i = 0; i < 25; i++) {
		struct db_tx tx = { NULL, NULL };
		struct db_audit_record record = { .lane = 60, .at_s = NOW, .actor = "t", .action = "t",
			.body = { (uint8_t[]){ '{' }, 1 } };
		uint8_t head[32];
		struct err err;

		if (db_tx_begin(&tx, POOL, &err) != OK ||
		    db_audit_head(&tx, 60, &record.seq, head, &err) != OK ||
		    (record.seq++, db_audit_append(&tx, &record, NULL, 0, &err)) != OK ||
		    db_tx_commit(&tx, &err) != OK) {
			db_tx_end(&tx);
			return "failed";
		}
	}
	return NULL;
}

static void
concurrent_writers_of_a_lane_leave_no_gap(void **state)
{
	pthread_t threads[4];
	struct db_tx tx = { NULL, NULL };

	(void)state;
	for (size_t i = 0; i < COUNT_OF(threads); i++)
		assert_int_equal(pthread_create(&threads[i], NULL, append_many, NULL), 0);
	for (size_t i = 0; i < COUNT_OF(threads); i++) {
		void *failed = NULL;

		(void)pthread_join(threads[i], &failed);
		assert_null(failed);
	}
	assert_ok(db_tx_begin(&tx, POOL, err));
	assert_int_equal(sql_number(&tx, "SELECT count(*) FROM jitrca.audit_record WHERE lane = 60"), 100);
	assert_int_equal(sql_number(&tx, "SELECT max(seq) FROM jitrca.audit_record WHERE lane = 60"), 100);
	assert_int_equal(sql_number(&tx, "SELECT seq FROM jitrca.audit_lane WHERE lane = 60"), 100);
	db_tx_end(&tx);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		in_tx(a_lane_begins_at_nothing_and_follows_its_head),
		in_tx(a_record_that_does_not_follow_is_refused),
		in_tx(records_cannot_be_changed_or_deleted),
		in_tx(a_search_finds_what_was_asked_for_in_order),
		in_tx(a_search_by_object_uses_its_index),
		in_tx(items_come_in_order),
		in_tx(verification_pages_through_every_lane),
		in_tx(a_page_without_memory_leaves_nothing),
		in_tx(a_checkpoint_holds_the_heads),
		cmocka_unit_test(concurrent_writers_of_a_lane_leave_no_gap), /* last: it commits */
	};

	return cmocka_run_group_tests(tests, database_make, database_drop);
}
