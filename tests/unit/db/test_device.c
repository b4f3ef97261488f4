#include "tests/unit/db/world.h"

static bool
set_status(const char *device_id, const char *status)
{
	own_struct(db_tx) tx = { 0 };
	bool changed = false;

	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_device_set_status(&tx, device_id, status, "why", &changed, err));
	MUST(db_tx_commit(&tx, err));
	return changed;
}

static void
a_device_is_found_with_its_certificates(void **state)
{
	own_struct(db_tx) tx = { 0 };
	struct db_cert_ref first = issue(ask("find"));
	struct db_cert_ref next = issue(ask_successor("find", &first));
	struct db_device device;

	(void)state;
	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_device_find(&tx, "find", &device, err));
	assert_string_equal(device.device_id, "find");
	assert_string_equal(device.status, "active");
	assert_string_equal(device.thing_type, "sensor");
	assert_string_equal(device.attributes, "{}");
	assert_int_equal(device.version, 2);
	assert_memory_equal(&device.current, &first, sizeof(first));
	assert_memory_equal(&device.successor, &next, sizeof(next));
	assert_true(device.created_at_s >= world_now - 5);
	MUST_FAIL(db_device_find(&tx, "nobody", &device, err), ERR_NOT_FOUND, "device_unknown");
}

static void
states_move_as_they_may(void **state)
{
	own_struct(db_tx) tx = { 0 };
	struct db_device device;
	bool changed;

	(void)state;
	(void)issue(ask("move"));
	assert_false(set_status("move", "active"));
	assert_true(set_status("move", "quarantined"));
	assert_false(set_status("move", "quarantined"));
	assert_int_equal(count("outbox WHERE device_id = 'move' AND version = 2"
		" AND cause = 'quarantined'"), 1);
	assert_true(set_status("move", "active"));
	assert_true(set_status("move", "decommissioned"));
	assert_false(set_status("move", "decommissioned"));
	MUST(db_tx_begin(&tx, world_pool, err));
	MUST_FAIL(db_device_set_status(&tx, "move", "active", NULL, &changed, err), ERR_CONFLICT,
		"device_decommissioned");
	MUST_FAIL(db_device_set_status(&tx, "nobody", "active", NULL, &changed, err), ERR_NOT_FOUND,
		"device_unknown");
	MUST(db_device_find(&tx, "move", &device, err));
	assert_string_equal(device.status, "decommissioned");
	assert_string_equal(device.reason, "why");
	assert_int_equal(device.version, 4);
}

static void
lists_are_filtered_and_paged(void **state)
{
	own_struct(db_tx) tx = { 0 };
	struct db_device *out = calloc(8, sizeof(*out));
	size_t n;

	(void)state;
	for (int i = 0; i < 6; i++) {
		char name[32];
		struct db_admit_item item;

		snprintf(name, sizeof(name), "list-%d", i);
		item = ask(name);
		item.thing_type = i % 2 == 0 ? "even" : "odd";
		(void)issue(item);
	}
	(void)set_status("list-2", "quarantined");
	(void)set_status("list-3", "quarantined");
	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_device_list(&tx, NULL, "even", NULL, 8, out, &n, err));
	assert_int_equal(n, 3);
	assert_string_equal(out[1].device_id, "list-2");
	MUST(db_device_list(&tx, NULL, "even", "list-2", 8, out, &n, err));
	assert_int_equal(n, 1);
	MUST(db_device_list(&tx, "active", "even", NULL, 8, out, &n, err));
	assert_int_equal(n, 2);
	MUST(db_device_list(&tx, "quarantined", NULL, NULL, 8, out, &n, err));
	assert_int_equal(n, 2);
	MUST(db_device_list(&tx, "quarantined", "odd", NULL, 8, out, &n, err));
	assert_int_equal(n, 1);
	assert_string_equal(out[0].device_id, "list-3");
	MUST(db_device_list(&tx, NULL, NULL, "list-", 2, out, &n, err));
	assert_int_equal(n, 2);
	assert_string_equal(out[0].device_id, "list-0");
	MUST(db_device_list(&tx, "active", NULL, "list-1", 2, out, &n, err));
	assert_string_equal(out[0].device_id, "list-4");
	free(out);
}

static size_t
late(int64_t now_s, int64_t overlap_s, size_t limit, char ids[8][DB_ID_BYTES])
{
	own_struct(db_tx) tx = { 0 };
	const struct db_late_rule rules[] = { { "short", 1 }, { "late", overlap_s } };
	struct db_certificate_cursor cursor = { 0 };
	struct db_device *page = calloc(limit, sizeof(*page));
	size_t all = 0;

	MUST(db_tx_begin(&tx, world_pool, err));
	do {
		struct db_certificate_cursor next;
		size_t n;

		MUST(db_device_list_late(&tx, rules, 2, now_s, &cursor, limit, page, &n, &next, err));
		for (size_t i = 0; i < n; i++)
			memcpy(ids[all++], page[i].device_id, DB_ID_BYTES);
		cursor = next;
	} while (cursor.set);
	free(page);
	return all;
}

static struct db_admit_item
ask_late(const char *device_id, int64_t not_after_s)
{
	struct db_admit_item item = ask(device_id);

	item.profile = "late";
	item.not_after_s = not_after_s;
	item.ref = draw_ref(not_after_s);
	return item;
}

/* Invariant 13: late is who is past its window and has confirmed no successor. */
static void
invariant_13_who_does_not_confirm_is_listed_as_late(void **state)
{
	const int64_t end_s = world_now + 3 * 86400;
	struct db_cert_ref refs[4];
	struct db_admit_item successor;
	char ids[8][DB_ID_BYTES];

	(void)state;
	for (int i = 0; i < 4; i++) {
		char id[DB_ID_BYTES];

		snprintf(id, sizeof(id), "late-%d", i);
		refs[i] = issue(ask_late(id, end_s + i));
	}
	(void)issue(ask("not-late"));
	assert_int_equal(late(world_now, 2 * 86400, 3, ids), 0); /* before the end of the window */
	assert_int_equal(late(world_now, 4 * 86400, 3, ids), 4);
	assert_string_equal(ids[0], "late-0");
	assert_string_equal(ids[3], "late-3");
	assert_int_equal(late(world_now, 4 * 86400, 2, ids), 4);

	/* One has asked and not confirmed, one has confirmed, one is revoked. */
	for (int i = 0; i < 2; i++) {
		successor = ask_successor(i == 0 ? "late-0" : "late-1", &refs[i]);
		successor.profile = "late";
		successor.not_after_s = end_s + 90 * 86400;
		successor.ref = draw_ref(successor.not_after_s);
		(void)issue(successor);
	}
	(void)confirm(&successor.ref, false);
	(void)revoke_one(&refs[2], REASON_UNSPECIFIED);
	assert_int_equal(late(world_now, 4 * 86400, 3, ids), 2);
	assert_string_equal(ids[0], "late-0");
	assert_string_equal(ids[1], "late-3");

	/* Both have ended: the successor that was never confirmed lives on, and is told of. */
	assert_int_equal(late(end_s + 4, 4 * 86400, 1, ids), 1);
	assert_string_equal(ids[0], "late-0");
	/* By now the one that was confirmed is late itself. */
	assert_int_equal(late(end_s + 90 * 86400 - 1, 4 * 86400, 1, ids), 2);
	assert_string_equal(ids[0], "late-0");
	assert_string_equal(ids[1], "late-1");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_device_is_found_with_its_certificates),
		cmocka_unit_test(states_move_as_they_may),
		cmocka_unit_test(lists_are_filtered_and_paged),
		cmocka_unit_test(invariant_13_who_does_not_confirm_is_listed_as_late),
	};

	return cmocka_run_group_tests(tests, world_setup, world_teardown);
}
