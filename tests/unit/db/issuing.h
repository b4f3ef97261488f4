/* tests/unit/db/issuing.h - what the tests of Admit, Record and the reaper arrange, beside world.h. */
#ifndef TESTS_UNIT_DB_ISSUING_H
#define TESTS_UNIT_DB_ISSUING_H

#include "tests/unit/db/world.h"

UNUSED static struct db_admit_item
with_key(struct db_admit_item item, const char *key, uint8_t hash)
{
	item.idempotency_key = key;
	memset(item.request_hash, hash, sizeof(item.request_hash));
	return item;
}

UNUSED static void
manifest(const char *id, const char *station, int quantity, bool allow_replace)
{
	sql("INSERT INTO jitrca.manifest (manifest_id, station_id, profile, quantity, allow_replace,"
	    " not_before, not_after, created_by) VALUES ('%s', '%s', 'device', %d, %s,"
	    " now() - interval '1 hour', now() + interval '1 day', 'x')", id, station, quantity,
	    allow_replace ? "true" : "false");
}

UNUSED static void
line(const char *id, const char *device)
{
	sql("INSERT INTO jitrca.manifest_line (device_id, manifest_id) VALUES ('%s', '%s')", device, id);
}

/* Recorded or not, it is over. */
UNUSED static void
nothing_open(const struct db_admit_item *item)
{
	assert_int_equal(count("intent WHERE serial = '\\x%s'", hex(&item->ref)), 0);
	assert_int_equal(count("key_claim WHERE claim_serial = '\\x%s'", hex(&item->ref)), 0);
	assert_int_equal(count("device_slot WHERE claim_serial = '\\x%s'", hex(&item->ref)), 0);
}

UNUSED static void
nothing_left(const struct db_admit_item *item)
{
	nothing_open(item);
	assert_int_equal(count("idempotency WHERE serial = '\\x%s'", hex(&item->ref)), 0);
	assert_int_equal(count("key_claim WHERE serial = '\\x%s'", hex(&item->ref)), 0);
	assert_int_equal(count("device_slot WHERE current_serial = '\\x%s'", hex(&item->ref)), 0);
}

UNUSED static void
set_device(const char *device_id, const char *status)
{
	own_struct(db_tx) tx = { 0 };
	bool changed;

	MUST(db_tx_begin(&tx, world_pool, err));
	MUST(db_device_set_status(&tx, device_id, status, "test", &changed, err));
	MUST(db_tx_commit(&tx, err));
}

UNUSED static int64_t
used(const char *id)
{
	return strtoll(sql("SELECT used FROM jitrca.manifest WHERE manifest_id = '%s'", id), NULL, 10);
}

#endif
