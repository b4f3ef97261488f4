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
	static uint8_t der[] = { 0x30, 0x00 };

	return (struct db_crl){ .issuer_id = 2, .scope = scope, .number = number,
		.this_update_s = world_now, .next_update_s = world_now + 3600, .entries = 4,
		.der = { der, sizeof(der) } };
}

static void
numbers_only_grow(void **state)
{
	own_struct(db_tx) tx = { 0 };
	own_struct(db_crl) latest = { 0 };
	struct db_crl_scope due[CRL_SCOPES];
	int64_t numbers[CRL_SCOPES];
	int64_t number = 0;
	int64_t wanted = 0;
	size_t n;
	struct db_crl list;

	(void)state;
	MUST(db_tx_begin(&tx, world_pool, err));
	MUST_FAIL(db_crl_reserve(&tx, 2, 300, &number, &wanted, err), ERR_NOT_FOUND, "crl_unknown");
	MUST_FAIL(db_crl_latest(&tx, 2, 7, &latest, err), ERR_NOT_FOUND, "crl_unknown");
	MUST(db_crl_scopes_due(&tx, 2, world_now, due, CRL_SCOPES, &n, err));
	assert_int_equal(n, CRL_SCOPES);
	assert_int_equal(due[0].scope, CRL_SCOPE_FULL);
	assert_int_equal(due[0].next_update_s, 0);
	for (int64_t i = 1; i <= 5; i++) {
		MUST(db_crl_reserve(&tx, 2, 7, &number, &wanted, err));
		assert_int_equal(number, i);
		list = list_of(7, number);
		if (i != 2)
			MUST(db_crl_publish(&tx, &list, wanted, err));
	}
	assert_int_equal(wanted, 1);
	MUST(db_tx_commit(&tx, err));
	assert_int_equal(count("crl WHERE issuer_id = 2 AND scope = 7"), 3);

	MUST(db_tx_begin(&tx, world_pool, err));
	list = list_of(7, 2);
	MUST_FAIL(db_crl_publish(&tx, &list, 1, err), ERR_CONFLICT, "crl_overtaken");
	list = list_of(7, 5);
	MUST_FAIL(db_crl_publish(&tx, &list, 1, err), ERR_CONFLICT, "crl_overtaken");
	list = list_of(7, 6);
	MUST_FAIL(db_crl_publish(&tx, &list, 1, err), ERR_INTERNAL, "crl_number_not_reserved");
	list = list_of(300, 1);
	MUST_FAIL(db_crl_publish(&tx, &list, 1, err), ERR_NOT_FOUND, "crl_unknown");
	MUST(db_crl_latest(&tx, 2, 7, &latest, err));
	assert_int_equal(latest.number, 5);
	assert_int_equal(latest.entries, 4);
	assert_int_equal(latest.der.len, 2);
	assert_string_equal(latest.ca_id, "ca2");
	MUST(db_crl_numbers(&tx, 2, numbers, err));
	assert_int_equal(numbers[7 + 1], 5);
	assert_int_equal(numbers[0], 0);
	MUST(db_crl_scopes_due(&tx, 2, world_now, due, CRL_SCOPES, &n, err));
	assert_int_equal(n, CRL_SCOPES - 1);
	MUST(db_crl_scopes_due(&tx, 2, world_now + 3600, due, CRL_SCOPES, &n, err));
	assert_int_equal(n, CRL_SCOPES);
	MUST(db_crl_scopes_due(&tx, 2, world_now + 3600, due, 9, &n, err));
	assert_int_equal(n, 9);
	assert_int_equal(due[8].last_number, 5);
}

static void
publishing_is_told(void **state)
{
	own_struct(db_tx) tx = { 0 };
	struct db_crl list;
	int64_t number;
	int64_t wanted;
	PGnotify *notify;

	(void)state;
	sql("LISTEN jitrca_crl");
	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_crl_reserve(&tx, 2, CRL_SCOPE_FULL, &number, &wanted, err));
	list = list_of(CRL_SCOPE_FULL, number);
	MUST(db_crl_publish(&tx, &list, wanted, err));
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
	MUST(db_crl_entries(&tx, 2, CRL_SCOPE_FULL, world_now, walk_entry, &all, err));
	assert_int_equal(all.count, 3000);
	MUST(db_crl_entries(&tx, 2, 9, world_now, walk_entry, &shard, err));
	assert_int_equal(shard.count, count("revocation WHERE jitrca.serial_shard(serial) = 9"
		" AND not_after > now()"));
	assert_true(shard.count > 0);
	MUST_FAIL(db_crl_entries(&tx, 2, CRL_SCOPE_FULL, world_now, walk_entry, &few, err),
		ERR_TOO_LARGE, "enough");
	few = (struct walk){ .shard = -1 };
	MUST(db_crl_entries(&tx, 2, CRL_SCOPE_FULL, world_now - 7 * 86400, walk_entry, &few, err));
	assert_int_equal(few.count, 4000);
}

/* A revocation marks its shard and the full list; a list answers for what was wanted before. */
static void
a_revocation_makes_its_lists_due(void **state)
{
	own_struct(db_tx) tx = { 0 };
	struct db_cert_ref ref = issue(ask("due"));
	struct db_crl_scope due[CRL_SCOPES];
	int64_t number;
	int64_t wanted;
	size_t n;

	(void)state;
	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_crl_scopes_ensure(&tx, 1, err));
	for (int scope = -1; scope < 256; scope++) {
		struct db_crl list = list_of((int16_t)scope, 1);

		list.issuer_id = 1;
		MUST(db_crl_reserve(&tx, 1, (int16_t)scope, &number, &wanted, err));
		MUST(db_crl_publish(&tx, &list, wanted, err));
	}
	MUST(db_crl_scopes_due(&tx, 1, world_now, due, CRL_SCOPES, &n, err));
	assert_int_equal(n, 0);
	MUST(db_tx_commit(&tx, err));
	(void)revoke_one(&ref, REASON_UNSPECIFIED);
	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_crl_scopes_due(&tx, 1, world_now, due, CRL_SCOPES, &n, err));
	assert_int_equal(n, 2);
	assert_int_equal(due[0].scope, -1);
	assert_int_equal(due[1].scope, serial_shard(&ref.serial));
	assert_true(due[1].wanted > due[1].published);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(scopes_are_made_once),
		cmocka_unit_test(numbers_only_grow),
		cmocka_unit_test(publishing_is_told),
		cmocka_unit_test(entries_come_in_the_order_of_their_serials),
		cmocka_unit_test(a_revocation_makes_its_lists_due),
	};

	return cmocka_run_group_tests(tests, world_setup, world_teardown);
}
