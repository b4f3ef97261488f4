#include "tests/unit/db/world.h"

static void
scopes_are_made_once(void **state)
{
	own_struct(db_tx) tx = { 0 };

	(void)state;
	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_crl_scopes_ensure(&tx, 2, err));
	MUST(db_crl_scopes_ensure(&tx, 2, err));
	MUST(db_tx_commit(&tx, err));
	assert_int_equal(count("crl_scope WHERE issuer_id = 2"), CRL_SCOPES);
}

static struct db_crl
list_of(int16_t scope, int64_t number)
{
	return (struct db_crl){ .issuer_id = 2, .scope = scope, .number = number,
		.this_update_s = world_now, .next_update_s = world_now + 3600, .entries = 4,
		.length_bytes = 5 };
}

static enum status
publish(struct db_tx *tx, const struct db_crl *list, int64_t wanted, struct err *err)
{
	TRY(db_crl_publish_begin(tx, list, err));
	TRY(db_crl_publish_put(tx, list, 0, view_text("abc"), err));
	TRY(db_crl_publish_put(tx, list, 1, view_text("de"), err));
	TRY(db_crl_publish_end(tx, list, wanted, err));
	return db_crl_prune(tx, list, err);
}

/* A failure ends the transaction. */
static void
not_published(int16_t scope, int64_t number, enum status want_status, const char *want_code)
{
	own_struct(db_tx) tx = { 0 };
	struct db_crl list = list_of(scope, number);

	MUST(db_tx_begin(&tx, world_pool, err));
	MUST_FAIL(publish(&tx, &list, 1, err), want_status, want_code);
}

static enum status
gather(void *arg, struct view octets, struct err *err)
{
	return buf_add(arg, octets.data, octets.len, err);
}

static void
numbers_only_grow(void **state)
{
	own_struct(db_tx) tx = { 0 };
	own_struct(buf) octets = { .limit_bytes = 64 };
	struct db_crl latest = { 0 };
	struct db_crl_scope due[CRL_SCOPES];
	int64_t numbers[CRL_SCOPES];
	struct db_crl_turn turn;
	size_t n;
	struct db_crl list;

	(void)state;
	MUST(db_tx_begin(&tx, world_pool, err));
	MUST_FAIL(db_crl_reserve(&tx, 2, 300, &turn, err), ERR_NOT_FOUND, "crl_unknown");
	MUST_FAIL(db_crl_latest(&tx, 2, 7, &latest, err), ERR_NOT_FOUND, "crl_unknown");
	MUST(db_crl_scopes_due(&tx, 2, world_now, world_now, due, CRL_SCOPES, &n, err));
	assert_int_equal(n, CRL_SCOPES);
	assert_int_equal(due[0].scope, CRL_SCOPE_DELTA);
	assert_int_equal(due[1].scope, CRL_SCOPE_FULL);
	assert_int_equal(due[0].next_update_s, 0);
	for (int64_t i = 1; i <= 5; i++) {
		MUST(db_crl_reserve(&tx, 2, 7, &turn, err));
		assert_int_equal(turn.number, i);
		list = list_of(7, turn.number);
		if (i != 2)
			MUST(publish(&tx, &list, turn.wanted, err));
	}
	assert_int_equal(turn.wanted, 1);
	MUST(db_tx_commit(&tx, err));
	assert_int_equal(count("crl WHERE issuer_id = 2 AND scope = 7"), 3);
	assert_int_equal(count("crl_piece WHERE issuer_id = 2 AND scope = 7"), 6);

	not_published(7, 2, ERR_CONFLICT, "crl_overtaken");
	not_published(7, 5, ERR_CONFLICT, "database_conflict");
	not_published(7, 6, ERR_INTERNAL, "crl_number_not_reserved");
	not_published(300, 1, ERR_CONFLICT, "database_reference");
	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_crl_latest(&tx, 2, 7, &latest, err));
	assert_int_equal(latest.number, 5);
	assert_int_equal(latest.entries, 4);
	assert_int_equal(latest.length_bytes, 5);
	assert_int_equal(latest.base, 0);
	assert_string_equal(latest.ca_id, "ca2");
	MUST(db_crl_pieces(&tx, &latest, gather, &octets, err));
	assert_true(view_equal_text(buf_view(&octets), "abcde"));
	MUST(db_crl_numbers(&tx, 2, numbers, err));
	assert_int_equal(numbers[CRL_SCOPE_AT(7)], 5);
	assert_int_equal(numbers[0], 0);
	MUST(db_crl_scopes_due(&tx, 2, world_now, world_now, due, CRL_SCOPES, &n, err));
	assert_int_equal(n, CRL_SCOPES - 1);
	MUST(db_crl_scopes_due(&tx, 2, world_now + 3600, world_now, due, CRL_SCOPES, &n, err));
	assert_int_equal(n, CRL_SCOPES);
	MUST(db_crl_scopes_due(&tx, 2, world_now + 3600, world_now, due, 10, &n, err));
	assert_int_equal(n, 10);
	assert_int_equal(due[9].last_number, 5);
}

static void
store(struct db_tx *tx, const struct db_crl *list)
{
	static const char LONG[] = "a piece that is longer than what goes together with the fields"
				   " before it ";
	struct db_crl begun = *list;

	begun.entries = begun.length_bytes = 0; /* not known yet */
	MUST(db_crl_store_begin(tx, &begun, err));
	MUST(db_crl_store_put(tx, &begun, 1, view_text(LONG), err));
	MUST(db_crl_store_put(tx, &begun, 2, view_text("end"), err));
	MUST(db_crl_store_put(tx, &begun, 0, view_text("front "), err));
}

/* All of it or nothing, in the order of its pieces, which come as they are made. */
static void
a_long_list_is_stored_while_it_is_made(void **state)
{
	own_struct(buf) octets = { .limit_bytes = 256 };
	struct db_crl list, latest;
	struct db_crl_turn turn;

	(void)state;
	for (int i = 0; i < 2; i++) {
		own_struct(db_tx) tx = { 0 };

		MUST(db_tx_begin(&tx, world_pool, err));
		MUST(db_crl_reserve(&tx, 2, 9, &turn, err));
		MUST(db_tx_commit(&tx, err));
		list = list_of(9, turn.number);
		MUST(db_tx_begin(&tx, world_pool, err));
		store(&tx, &list);
		if (i == 0)
			continue; /* given up */
		MUST(db_crl_store_end(&tx, &list, err));
		MUST(db_crl_publish_end(&tx, &list, turn.wanted, err));
		MUST(db_tx_commit(&tx, err));
	}
	assert_int_equal(count("crl WHERE issuer_id = 2 AND scope = 9"), 1);
	{
		own_struct(db_tx) tx = { 0 };

		MUST(db_tx_begin(&tx, world_pool, err));
		MUST(db_crl_latest(&tx, 2, 9, &latest, err));
		assert_int_equal(latest.number, 2);
		assert_int_equal(latest.entries, 4);
		assert_int_equal(latest.length_bytes, 5);
		MUST(db_crl_pieces(&tx, &latest, gather, &octets, err));
	}
	assert_true(view_equal_text(buf_view(&octets), "front a piece that is longer than what goes"
						       " together with the fields before it end"));
}

/* RFC 5280 5.2.4: one sequence; a delta may have the number of the full list it was made with. */
static void
a_delta_shares_the_numbers_of_its_full_list(void **state)
{
	own_struct(db_tx) tx = { 0 };
	struct db_crl full, delta, latest;
	struct db_crl_scope due[CRL_SCOPES];
	struct db_crl_turn turn;
	int64_t first;
	size_t n;

	(void)state;
	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_crl_reserve(&tx, 2, CRL_SCOPE_FULL, &turn, err));
	first = turn.number;
	full = list_of(CRL_SCOPE_FULL, first);
	delta = list_of(CRL_SCOPE_DELTA, first);
	delta.base = first;
	MUST(publish(&tx, &delta, turn.delta_wanted, err));
	MUST(publish(&tx, &full, turn.wanted, err));
	MUST(db_crl_reserve(&tx, 2, CRL_SCOPE_DELTA, &turn, err));
	assert_int_equal(turn.number, first + 1);
	delta.number = turn.number;
	MUST(publish(&tx, &delta, turn.delta_wanted, err));
	MUST(db_crl_latest(&tx, 2, CRL_SCOPE_DELTA, &latest, err));
	assert_int_equal(latest.number, first + 1);
	assert_int_equal(latest.base, first);
	MUST(db_crl_reserve(&tx, 2, CRL_SCOPE_FULL, &turn, err));
	assert_int_equal(turn.number, first + 2);
	/* A delta is due by a clock of its own. */
	MUST(db_crl_scopes_due(&tx, 2, world_now, world_now + 3600, due, CRL_SCOPES, &n, err));
	assert_int_equal(due[0].scope, CRL_SCOPE_DELTA);
	MUST(db_crl_scopes_due(&tx, 2, world_now + 3600, world_now, due, CRL_SCOPES, &n, err));
	assert_int_equal(due[0].scope, CRL_SCOPE_FULL);
	/* A full list can be asked for, and a delta, whatever the clock says. */
	MUST(db_crl_full_ask(&tx, 2, err));
	MUST(db_crl_delta_due(&tx, 2, err));
	MUST(db_crl_scopes_due(&tx, 2, world_now, world_now, due, CRL_SCOPES, &n, err));
	assert_int_equal(due[0].scope, CRL_SCOPE_DELTA);
	assert_int_equal(due[0].wanted, turn.delta_wanted + 1);
	assert_int_equal(due[1].scope, CRL_SCOPE_FULL);
	assert_int_equal(due[1].next_update_s, 0);
	/* After a restore: above what was served, both due, and no base to go on from. */
	MUST(db_crl_base_put(&tx, 2, &(struct db_crl_base){ first, turn.wanted, world_now }, true, err));
	MUST(db_crl_overtake(&tx, 2, CRL_SCOPE_DELTA, 1000, err));
	MUST(db_crl_scopes_due(&tx, 2, world_now, world_now, due, CRL_SCOPES, &n, err));
	assert_int_equal(due[0].scope, CRL_SCOPE_DELTA);
	assert_int_equal(due[1].scope, CRL_SCOPE_FULL);
	MUST(db_crl_reserve(&tx, 2, CRL_SCOPE_FULL, &turn, err));
	assert_int_equal(turn.number, 1001);
	{
		struct db_crl_base oldest, newest;

		MUST(db_crl_bases(&tx, 2, &oldest, &newest, err));
		assert_int_equal(oldest.number, 0);
	}
}

struct changes {
	struct db_crl_entry entries[8];
	size_t count;
};

static enum status
take_change(void *arg, const struct db_crl_entry *entry, struct err *err)
{
	struct changes *changes = arg;

	(void)err;
	assert_true(changes->count < COUNT_OF(changes->entries));
	changes->entries[changes->count++] = *entry;
	return OK;
}

static struct changes
changes_since(const struct db_crl_base *base)
{
	own_struct(db_tx) tx = { 0 };
	struct changes changes = { .count = 0 };

	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_crl_snapshot(&tx, err));
	MUST(db_crl_entries(&tx, 1, CRL_SCOPE_DELTA, world_now, base->changes, take_change, &changes,
		err));
	return changes;
}

static struct db_crl_base
reserve_base(void)
{
	own_struct(db_tx) tx = { 0 };
	struct db_crl_turn turn;

	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_crl_scopes_ensure(&tx, 1, err));
	MUST(db_crl_reserve(&tx, 1, CRL_SCOPE_FULL, &turn, err));
	MUST(db_tx_commit(&tx, err));
	return (struct db_crl_base){ turn.number, turn.wanted, world_now };
}

static void
put_base(const struct db_crl_base *base, bool alone)
{
	own_struct(db_tx) tx = { 0 };

	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_crl_base_put(&tx, 1, base, alone, err));
	MUST(db_tx_commit(&tx, err));
}

static void
unhold(const struct db_cert_ref *ref)
{
	own_struct(db_tx) tx = { 0 };

	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_revocation_unhold(&tx, ref, err));
	MUST(db_tx_commit(&tx, err));
}

/* Each change since the base, as it is now; a lifted hold is removed (RFC 5280 5.2.4, 5.3.1). */
static void
a_delta_has_what_changed_since_its_base(void **state)
{
	struct db_cert_ref before = issue(ask("delta-1")), held = issue(ask("delta-2"));
	struct db_cert_ref after = issue(ask("delta-3")), both = issue(ask("delta-4"));
	struct db_crl_base first, second, third, oldest, newest;
	struct changes changes;

	(void)state;
	(void)revoke_one(&before, REASON_UNSPECIFIED);
	(void)revoke_one(&held, REASON_CERTIFICATE_HOLD);
	first = reserve_base();
	put_base(&first, true);
	assert_int_equal(changes_since(&first).count, 0);
	assert_int_equal(count("crl_change"), 0);

	(void)revoke_one(&after, REASON_KEY_COMPROMISE);
	unhold(&held);
	(void)revoke_one(&both, REASON_CERTIFICATE_HOLD);
	unhold(&both); /* was on no full list, but on deltas in between */
	changes = changes_since(&first);
	assert_int_equal(changes.count, 3);
	for (size_t i = 0; i < changes.count; i++) {
		bool revoked = serial_equal(&changes.entries[i].serial, &after.serial);

		assert_false(serial_equal(&changes.entries[i].serial, &before.serial));
		assert_int_equal(changes.entries[i].reason,
			revoked ? REASON_KEY_COMPROMISE : CRL_ENTRY_REMOVED);
		assert_true(changes.entries[i].revoked_at_s > 0);
		assert_true(i == 0 || memcmp(changes.entries[i - 1].serial.octets,
			changes.entries[i].serial.octets, SERIAL_BYTES) < 0);
	}

	/* The base moves one behind: what only the oldest lacks is still a change for it. */
	second = reserve_base();
	put_base(&second, false);
	assert_int_equal(changes_since(&first).count, 3);
	assert_int_equal(changes_since(&second).count, 0);
	(void)revoke_one(&held, REASON_CERTIFICATE_HOLD);
	assert_int_equal(changes_since(&first).count, 3);
	assert_int_equal(changes_since(&second).count, 1);
	third = reserve_base();
	put_base(&third, false);
	assert_int_equal(count("crl_change"), 1);
	{
		own_struct(db_tx) tx = { 0 };

		MUST(db_tx_begin(&tx, world_pool, err));
		MUST(db_crl_bases(&tx, 1, &oldest, &newest, err));
		/* A delta that was made meanwhile, from the oldest as it was, would lack what is deleted. */
		MUST(db_crl_base_check(&tx, &(struct db_crl){ .issuer_id = 1, .base = second.number },
			err));
		MUST(db_crl_base_check(&tx, &(struct db_crl){ .issuer_id = 1, .number = 99, .base = 99 },
			err));
		MUST_FAIL(db_crl_base_check(&tx,
			&(struct db_crl){ .issuer_id = 1, .base = first.number }, err),
			ERR_CONFLICT, "crl_base_gone");
	}
	assert_int_equal(oldest.number, second.number);
	assert_int_equal(newest.number, third.number);
	put_base(&third, true);
	assert_int_equal(count("crl_change"), 0);
}

static void
publishing_is_told(void **state)
{
	own_struct(db_tx) tx = { 0 };
	struct db_crl list;
	struct db_crl_turn turn;
	PGnotify *notify;

	(void)state;
	sql("LISTEN jitrca_crl");
	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_crl_reserve(&tx, 2, CRL_SCOPE_FULL, &turn, err));
	list = list_of(CRL_SCOPE_FULL, turn.number);
	MUST(publish(&tx, &list, turn.wanted, err));
	MUST(db_tx_commit(&tx, err));
	sql("SELECT 1");
	notify = PQnotifies(world_pg);
	assert_non_null(notify);
	assert_string_equal(notify->extra, "2 -1");
	PQfreemem(notify);
	sql("UNLISTEN *");
}

struct walk {
	struct serial last;
	size_t count;
	size_t stop_at;
	int shard; /* -1: any */
};

static enum status
walk_entry(void *arg, const struct db_crl_entry *entry, struct err *err)
{
	struct walk *walk = arg;

	assert_true(memcmp(walk->last.octets, entry->serial.octets, SERIAL_BYTES) < 0);
	assert_true(walk->shard < 0 || serial_shard(&entry->serial) == walk->shard);
	assert_int_equal(entry->reason, REASON_CESSATION_OF_OPERATION);
	assert_int_equal(entry->revoked_at_s, 1700000000);
	walk->last = entry->serial;
	if (++walk->count == walk->stop_at)
		return err_set(err, ERR_TOO_LARGE, "enough", "enough");
	return OK;
}

static void
entries_come_in_the_order_of_their_serials(void **state)
{
	own_struct(db_tx) tx = { 0 };
	struct walk all = { .shard = -1 };
	struct walk shard = { .shard = 9 };
	struct walk few = { .shard = -1, .stop_at = 700 };

	(void)state;
	sql("INSERT INTO jitrca.revocation SELECT 2, decode(md5(n::text), 'hex'), 5,"
	    " to_timestamp(1700000000), CASE WHEN n %% 4 = 0 THEN now() - interval '1 day'"
	    " ELSE now() + interval '1 day' END FROM generate_series(1, 4000) n");
	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_crl_entries(&tx, 2, CRL_SCOPE_FULL, world_now, 0, walk_entry, &all, err));
	assert_int_equal(all.count, 3000);
	MUST(db_crl_entries(&tx, 2, 9, world_now, 0, walk_entry, &shard, err));
	assert_int_equal(shard.count, count("revocation WHERE jitrca.serial_shard(serial) = 9"
		" AND not_after > now()"));
	assert_true(shard.count > 0);
	MUST_FAIL(db_crl_entries(&tx, 2, CRL_SCOPE_FULL, world_now, 0, walk_entry, &few, err),
		ERR_TOO_LARGE, "enough");
	few = (struct walk){ .shard = -1 };
	MUST(db_crl_entries(&tx, 2, CRL_SCOPE_FULL, world_now - 7 * 86400, 0, walk_entry, &few, err));
	assert_int_equal(few.count, 4000);
}

/* A revocation marks its shard and the full list; a list answers for what was wanted before. */
static void
a_revocation_makes_its_lists_due(void **state)
{
	own_struct(db_tx) tx = { 0 };
	struct db_cert_ref ref = issue(ask("due"));
	struct db_crl_scope due[CRL_SCOPES];
	struct db_crl_turn turn;
	size_t n;

	(void)state;
	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_crl_scopes_ensure(&tx, 1, err));
	for (int16_t scope = CRL_SCOPE_DELTA; scope < 256; scope++) {
		struct db_crl list;

		MUST(db_crl_reserve(&tx, 1, scope, &turn, err));
		list = list_of(scope, turn.number);
		list.issuer_id = 1;
		MUST(publish(&tx, &list, scope == CRL_SCOPE_DELTA ? turn.delta_wanted : turn.wanted,
			err));
	}
	MUST(db_crl_scopes_due(&tx, 1, world_now, world_now, due, CRL_SCOPES, &n, err));
	assert_int_equal(n, 0);
	MUST(db_tx_commit(&tx, err));
	(void)revoke_one(&ref, REASON_UNSPECIFIED);
	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_crl_scopes_due(&tx, 1, world_now, world_now, due, CRL_SCOPES, &n, err));
	assert_int_equal(n, 3);
	assert_int_equal(due[0].scope, CRL_SCOPE_DELTA);
	assert_int_equal(due[1].scope, CRL_SCOPE_FULL);
	assert_int_equal(due[2].scope, serial_shard(&ref.serial));
	assert_true(due[2].wanted > due[2].published);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(scopes_are_made_once),
		cmocka_unit_test(numbers_only_grow),
		cmocka_unit_test(a_long_list_is_stored_while_it_is_made),
		cmocka_unit_test(a_delta_shares_the_numbers_of_its_full_list),
		cmocka_unit_test(a_delta_has_what_changed_since_its_base),
		cmocka_unit_test(publishing_is_told),
		cmocka_unit_test(entries_come_in_the_order_of_their_serials),
		cmocka_unit_test(a_revocation_makes_its_lists_due),
	};

	return cmocka_run_group_tests(tests, world_setup, world_teardown);
}
