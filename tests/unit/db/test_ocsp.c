/* db/ocsp.c: what is said of serials comes from their rows, many at once. */
#include "tests/unit/db/world.h"

#include "db/ocsp.h"

enum { ACTIVE, HELD, REVOKED, SUPERSEDED, PENDING, ORPHAN, STRANGER, OTHER_CA, FADED, AGAIN, KINDS };

static void
find(struct db_ocsp_item *items, size_t n)
{
	own_struct(db_tx) tx = { 0 };

	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_ocsp_find(&tx, items, n, err));
}

/* Invariant 7: no row, no word but unknown. */
static void
invariant_7_each_serial_is_what_its_rows_say(void **state)
{
	struct db_ocsp_item items[KINDS] = { { .ref = { 0 } } };
	struct db_cert_ref old;

	(void)state;
	items[ACTIVE].ref = issue(ask("ocsp-active"));
	items[HELD].ref = issue(ask("ocsp-held"));
	(void)revoke_one(&items[HELD].ref, REASON_CERTIFICATE_HOLD);
	items[REVOKED].ref = issue(ask("ocsp-revoked"));
	(void)revoke_one(&items[REVOKED].ref, REASON_KEY_COMPROMISE);
	old = issue(ask("ocsp-rotates"));
	items[SUPERSEDED].ref = old;
	items[PENDING].ref = issue(ask_successor("ocsp-rotates", &old));
	assert_true(confirm(&items[PENDING].ref, false));
	items[PENDING].ref = issue(ask_successor("ocsp-rotates", &items[PENDING].ref));
	items[STRANGER].ref = items[ACTIVE].ref;
	items[STRANGER].ref.serial.octets[15] ^= 1;
	items[ORPHAN].ref = items[STRANGER].ref;
	items[ORPHAN].ref.serial.octets[15] ^= 2;
	sql("INSERT INTO jitrca.revocation (issuer_id, serial, reason, revoked_at, not_after)"
	    " VALUES (%d, '\\x%s', 0, to_timestamp(1700000000), now())", items[ORPHAN].ref.issuer_id,
		hex(&items[ORPHAN].ref));
	items[OTHER_CA].ref = items[ACTIVE].ref;
	items[OTHER_CA].ref.issuer_id += 1000;
	/* Retention drops revocations of what ended long ago; the certificate still says so. */
	items[FADED].ref = issue(ask("ocsp-faded"));
	(void)revoke_one(&items[FADED].ref, REASON_CERTIFICATE_HOLD);
	sql("DELETE FROM jitrca.revocation WHERE serial = '\\x%s'", hex(&items[FADED].ref));
	items[AGAIN].ref = items[ACTIVE].ref;
	find(items, KINDS);

	assert_int_equal(items[ACTIVE].status, CERT_ACTIVE);
	assert_true(items[ACTIVE].not_after_s > world_now && !items[ACTIVE].revoked);
	assert_true(items[HELD].revoked && items[HELD].reason == REASON_CERTIFICATE_HOLD);
	assert_true(items[REVOKED].revoked && items[REVOKED].reason == REASON_KEY_COMPROMISE);
	assert_int_equal(items[REVOKED].revoked_at_s, world_now);
	assert_true(items[SUPERSEDED].status == CERT_SUPERSEDED && !items[SUPERSEDED].revoked);
	assert_true(items[PENDING].status == CERT_PENDING_CONFIRMATION && !items[PENDING].revoked);
	assert_true(items[ORPHAN].status == CERT_UNSET && items[ORPHAN].revoked);
	assert_int_equal(items[ORPHAN].revoked_at_s, 1700000000);
	assert_true(items[STRANGER].status == CERT_UNSET && !items[STRANGER].revoked);
	assert_true(items[OTHER_CA].status == CERT_UNSET && !items[OTHER_CA].revoked);
	assert_true(items[FADED].revoked && items[FADED].revoked_at_s > 0);
	assert_true(items[AGAIN].status == CERT_ACTIVE && !items[AGAIN].revoked);
}

static void
nothing_and_a_month_that_is_not_there_are_nothing(void **state)
{
	struct db_ocsp_item item = { .ref = { .issuer_id = 1,
					     .serial = { { 0x01, 0x02, 0xff, 0xff, 5 } } } };

	(void)state;
	find(NULL, 0);
	find(&item, 1);
	assert_true(item.status == CERT_UNSET && !item.revoked);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(invariant_7_each_serial_is_what_its_rows_say),
		cmocka_unit_test(nothing_and_a_month_that_is_not_there_are_nothing),
	};

	return cmocka_run_group_tests(tests, world_setup, world_teardown);
}
