#include "db/batch.h"

#include <assert.h>
#include <string.h>

#include "db/outbox.h"
#include "db/revocation.h"

enum {
	RECORD_CLOSE,
	RECORD_CERTIFICATES,
	RECORD_KEYS,
	RECORD_DEVICE_LOCK,
	RECORD_SLOT_LOCK,
	RECORD_DEVICES,
	RECORD_DEVICES_REVIVE,
	RECORD_DEVICES_TOUCH,
	RECORD_SLOTS,
	RECORD_LINES,
	RECORD_POINTERS,
	RECORD_OUTBOX,
	STATEMENTS,
};

static const struct db_statement SQL[STATEMENTS] = {
	[RECORD_CLOSE] = { /* intent_round_pkey */
		.name = "record_close", .params = 2, .columns = 1, .rows = ROWS_ONE,
		.sql = "WITH r AS MATERIALIZED (SELECT t.round_id, t.items FROM jitrca.intent_round t"
		       " WHERE t.round_id = ANY ($1::bigint[]) ORDER BY t.round_id FOR UPDATE),"
		       INTENT_TAKE("$2::bytea[]")
		       " SELECT count(*) FROM u WHERE u.mine",
	},
	[RECORD_CERTIFICATES] = {
		.name = "record_certificates", .params = 18, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO jitrca.certificate (expiry_month, issuer_id, serial, status, profile,"
		       " device_id, of_device, subject, principal_id, manifest_id, not_before, not_after,"
		       " issued_at, sha256, spki_sha256, predecessor_issuer, predecessor_serial,"
		       " status_at, der)"
		       " SELECT jitrca.serial_month(i.serial), i.issuer, i.serial,"
		       " CASE WHEN i.is_successor THEN 'pending_confirmation' ELSE 'active' END,"
		       " i.profile, i.identity, i.of_device, i.subject, i.principal_id,"
		       " nullif(i.manifest_id, ''), to_timestamp(i.not_before), to_timestamp(i.not_after),"
		       " to_timestamp(i.issued_at), i.sha256, i.spki, nullif(i.pred_issuer, 0),"
		       " CASE WHEN i.pred_issuer <> 0 THEN i.pred_serial END,"
		       " to_timestamp(i.issued_at), i.der"
		       " FROM unnest($1::int[], $2::bytea[], $3::bool[], $4::text[], $5::text[], $6::bool[],"
		       " $7::text[], $8::text[], $9::text[], $10::bigint[], $11::bigint[], $12::bigint[],"
		       " $13::bytea[], $14::bytea[], $15::int[], $16::bytea[], $17::bytea[], $18::int[])"
		       " AS i(issuer, serial, is_successor, profile, identity, of_device, subject,"
		       " principal_id, manifest_id, not_before, not_after, issued_at, sha256, spki,"
		       " pred_issuer, pred_serial, der, idx) ORDER BY i.idx",
	},
	[RECORD_KEYS] = { /* the rows exist; the upsert locks them in order */
		.name = "record_keys", .params = 5, .columns = 2, .rows = ROWS_ANY,
		.sql = "INSERT INTO jitrca.key_claim AS k"
		       " (spki_sha256, identity, profile, issuer_id, serial)"
		       " SELECT * FROM unnest($1::bytea[], $2::text[], $3::text[], $4::int[], $5::bytea[])"
		       " AS i(spki, identity, profile, issuer, serial) ORDER BY i.spki"
		       " ON CONFLICT (spki_sha256) DO UPDATE SET issuer_id = EXCLUDED.issuer_id,"
		       " serial = EXCLUDED.serial, claim_issuer = NULL, claim_serial = NULL"
		       " RETURNING k.serial, k.blocked_at IS NOT NULL",
	},
	[RECORD_DEVICE_LOCK] = { /* device_pkey */
		.name = "record_device_lock", .params = 1, .columns = 1, .rows = ROWS_ANY,
		.sql = "SELECT d.device_id FROM jitrca.device d WHERE d.device_id = ANY ($1::text[])"
		       " ORDER BY d.device_id FOR NO KEY UPDATE",
	},
	[RECORD_SLOT_LOCK] = { /* device_slot_pkey */
		.name = "record_slot_lock", .params = 2, .columns = 5, .rows = ROWS_ANY,
		.sql = "SELECT i.idx, s.current_issuer, s.current_serial,"
		       " s.successor_issuer, s.successor_serial"
		       " FROM unnest($1::int[], $2::text[]) AS i(idx, device_id)"
		       " JOIN jitrca.device_slot s ON s.device_id = i.device_id"
		       " ORDER BY s.device_id FOR NO KEY UPDATE OF s",
	},
	[RECORD_DEVICES] = { /* says nothing of status, which all servers would be told of */
		.name = "record_devices", .params = 3, .columns = 2, .rows = ROWS_ANY,
		.sql = "INSERT INTO jitrca.device AS d (device_id, thing_type, attributes)"
		       " SELECT * FROM unnest($1::text[], $2::text[], $3::text[])"
		       " AS i(device_id, thing_type, attributes) ORDER BY i.device_id COLLATE \"C\""
		       " ON CONFLICT (device_id) DO UPDATE SET thing_type = EXCLUDED.thing_type,"
		       " attributes = EXCLUDED.attributes, version = d.version + 1, updated_at = now()"
		       " RETURNING d.device_id, d.status = 'decommissioned'",
	},
	[RECORD_DEVICES_REVIVE] = {
		/* version carries the decommissioned version that becomes active again, else 1: no
		 * decommissioned device has version 1. */
		.name = "record_devices_revive", .params = 4, .columns = 2, .rows = ROWS_ANY,
		.sql = "INSERT INTO jitrca.device AS d (device_id, thing_type, attributes, version)"
		       " SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[])"
		       " AS i(device_id, thing_type, attributes, version) ORDER BY i.device_id COLLATE \"C\""
		       " ON CONFLICT (device_id) DO UPDATE SET thing_type = EXCLUDED.thing_type,"
		       " attributes = EXCLUDED.attributes, version = d.version + 1, updated_at = now(),"
		       " reason = CASE WHEN d.status = 'decommissioned' AND d.version = EXCLUDED.version"
		       " THEN '' ELSE d.reason END,"
		       " status = CASE WHEN d.status = 'decommissioned' AND d.version = EXCLUDED.version"
		       " THEN 'active' ELSE d.status END"
		       " RETURNING d.device_id, d.status = 'decommissioned'",
	},
	[RECORD_DEVICES_TOUCH] = { /* the rows are locked already */
		.name = "record_devices_touch", .params = 1, .columns = 2, .rows = ROWS_ANY,
		.sql = "UPDATE jitrca.device d SET version = d.version + 1, updated_at = now()"
		       " WHERE d.device_id = ANY ($1::text[])"
		       " RETURNING d.device_id, d.status = 'decommissioned'",
	},
	[RECORD_SLOTS] = { /* the rows exist; the upsert locks them in order */
		.name = "record_slots", .params = 4, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO jitrca.device_slot AS s (device_id, current_issuer, current_serial,"
		       " successor_issuer, successor_serial)"
		       " SELECT i.device_id, CASE WHEN NOT i.is_successor THEN i.issuer END,"
		       " CASE WHEN NOT i.is_successor THEN i.serial END,"
		       " CASE WHEN i.is_successor THEN i.issuer END,"
		       " CASE WHEN i.is_successor THEN i.serial END"
		       " FROM unnest($1::text[], $2::bool[], $3::int[], $4::bytea[])"
		       " AS i(device_id, is_successor, issuer, serial) ORDER BY i.device_id COLLATE \"C\""
		       " ON CONFLICT (device_id) DO UPDATE SET"
		       " current_issuer = coalesce(EXCLUDED.current_issuer, s.current_issuer),"
		       " current_serial = coalesce(EXCLUDED.current_serial, s.current_serial),"
		       " successor_issuer = EXCLUDED.successor_issuer,"
		       " successor_serial = EXCLUDED.successor_serial,"
		       " claim_issuer = NULL, claim_serial = NULL",
	},
	[RECORD_LINES] = { /* manifest_line_pkey */
		.name = "record_lines", .params = 4, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE jitrca.manifest_line l SET issuer_id = i.issuer, serial = i.serial,"
		       " used_at = coalesce(l.used_at, now())"
		       " FROM unnest($1::text[], $2::text[], $3::int[], $4::bytea[])"
		       " AS i(device_id, manifest_id, issuer, serial)"
		       " WHERE l.device_id = i.device_id AND l.manifest_id = i.manifest_id",
	},
	[RECORD_POINTERS] = { /* certificate_pkey, one partition each; behind the device's slot */
		.name = "record_pointers", .params = 4, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE jitrca.certificate c SET successor_issuer = i.issuer,"
		       " successor_serial = i.serial"
		       " FROM unnest($1::int[], $2::bytea[], $3::int[], $4::bytea[])"
		       " AS i(issuer, serial, pred_issuer, pred_serial)"
		       " WHERE c.expiry_month = jitrca.serial_month(i.pred_serial)"
		       " AND c.issuer_id = i.pred_issuer AND c.serial = i.pred_serial",
	},
	[RECORD_OUTBOX] = {
		.name = "record_outbox", .params = 1, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO jitrca.outbox AS o (device_id, version, cause, priority)"
		       " SELECT d.device_id, d.version, 'issued', 2 FROM jitrca.device d"
		       " WHERE d.device_id = ANY ($1::text[]) ORDER BY d.device_id" OUTBOX_AGAIN,
	},
};

const struct db_table DB_TABLE_RECORD = { SQL, COUNT_OF(SQL) };

static const enum column TAKES[STATEMENTS][BATCH_COLUMNS_MAX] = {
	[RECORD_CLOSE] = { COL_INTENT_ROUND, COL_SERIAL },
	[RECORD_CERTIFICATES] = { COL_ISSUER, COL_SERIAL, COL_IS_SUCCESSOR, COL_PROFILE, COL_IDENTITY,
		COL_OF_DEVICE, COL_SUBJECT, COL_PRINCIPAL, COL_MANIFEST, COL_NOT_BEFORE, COL_NOT_AFTER,
		COL_ISSUED_AT, COL_SHA256, COL_SPKI, COL_PREDECESSOR_ISSUER, COL_PREDECESSOR_SERIAL,
		COL_DER, COL_INDEX },
	[RECORD_KEYS] = { COL_SPKI, COL_IDENTITY, COL_PROFILE, COL_ISSUER, COL_SERIAL },
	[RECORD_DEVICE_LOCK] = { COL_IDENTITY },
	[RECORD_SLOT_LOCK] = { COL_INDEX, COL_IDENTITY },
	[RECORD_DEVICES] = { COL_IDENTITY, COL_THING_TYPE, COL_ATTRIBUTES },
	[RECORD_DEVICES_REVIVE] = { COL_IDENTITY, COL_THING_TYPE, COL_ATTRIBUTES, COL_REVIVES },
	[RECORD_DEVICES_TOUCH] = { COL_IDENTITY },
	[RECORD_SLOTS] = { COL_IDENTITY, COL_IS_SUCCESSOR, COL_ISSUER, COL_SERIAL },
	[RECORD_LINES] = { COL_IDENTITY, COL_MANIFEST, COL_ISSUER, COL_SERIAL },
	[RECORD_POINTERS] = { COL_ISSUER, COL_SERIAL, COL_PREDECESSOR_ISSUER, COL_PREDECESSOR_SERIAL },
	[RECORD_OUTBOX] = { COL_IDENTITY },
};

static enum status
run_over(struct batch *b, size_t statement, PGresult **rows, struct err *err)
{
	return batch_run(b, &SQL[statement], TAKES[statement], rows, err);
}

/* Picks the items of devices, or those for a slot (SLOT_UNSET: both kinds). */
static void
pick_devices(struct batch *b, enum db_slot slot)
{
	batch_pick_none(b);
	for (size_t i = 0; i < b->count; i++) {
		const struct db_admit_item *item = batch_item(b, i);

		if (batch_of_device(item) && (slot == SLOT_UNSET || item->slot == slot))
			batch_pick(b, i);
	}
}

static enum status
record_close(struct batch *b, struct err *err)
{
	own(PGresult) rows = NULL;

	batch_pick_all(b);
	TRY(run_over(b, RECORD_CLOSE, &rows, err));
	struct db_row row = db_row(rows, 0);
	int64_t found = db_row_int64(&row);
	TRY(db_row_end(&row, err));
	if (found != (int64_t)b->count)
		return err_set(err, ERR_CONFLICT, "intent_closed",
			"intent: %zu open wanted, %lld found", b->count, (long long)found);
	return OK;
}

static enum status
record_keys(struct batch *b, struct err *err)
{
	own(PGresult) rows = NULL;

	batch_pick_all(b);
	TRY(run_over(b, RECORD_KEYS, &rows, err));
	for (int r = 0; r < batch_row_count(rows); r++) {
		struct db_row row = db_row(rows, r);
		struct serial serial;
		size_t i;

		(void)db_row_serial(&row, &serial);
		i = batch_index(b, &serial);
		assert(i < b->count);
		b->work[i].blocked = db_row_bool(&row);
		TRY(db_row_end(&row, err));
	}
	return OK;
}

/*
 * Devices first, then their slots. A batch that only makes new devices lets its two upserts do the
 * locking; where a slot held something, both are locked before, since what is in it may have changed
 * since Admit (a successor may have been confirmed).
 */
static enum status
record_lock(struct batch *b, struct err *err)
{
	own(PGresult) rows = NULL;
	own(PGresult) slots = NULL;
	bool held = false;

	for (size_t i = 0; i < b->count; i++) {
		const struct db_admit_item *item = batch_item(b, i);

		held = held || item->slot == SLOT_SUCCESSOR || item->replaced.issuer_id != 0;
	}
	if (!held)
		return OK;
	pick_devices(b, SLOT_UNSET);
	TRY(run_over(b, RECORD_DEVICE_LOCK, &rows, err));
	TRY(run_over(b, RECORD_SLOT_LOCK, &slots, err));
	for (int r = 0; r < batch_row_count(slots); r++) {
		struct db_row row = db_row(slots, r);
		struct work *work = &b->work[batch_row_index(&row, b)];

		db_row_ref(&row, &work->current);
		db_row_ref(&row, &work->successor);
		TRY(db_row_end(&row, err));
	}
	return OK;
}

static void
set_predecessors(struct batch *b)
{
	for (size_t i = 0; i < b->count; i++) {
		const struct db_admit_item *item = batch_item(b, i);

		if (item->slot == SLOT_CURRENT)
			b->work[i].predecessor = item->replaced;
		/* The successor of before may have become current since Admit; only a revocation leaves
		 * the place empty. */
		else if (item->slot == SLOT_SUCCESSOR) {
			b->work[i].withdrawn = b->work[i].current.issuer_id == 0;
			b->work[i].predecessor = b->work[i].withdrawn ?
				item->predecessor : b->work[i].current;
		}
	}
}

/* Runs one of the statements that say which devices are decommissioned. */
static enum status
record_device_rows(struct batch *b, size_t statement, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(run_over(b, statement, &rows, err));
	for (int r = 0; r < batch_row_count(rows); r++) {
		struct db_row row = db_row(rows, r);
		char device_id[DB_ID_BYTES];
		bool decommissioned;

		db_row_text(&row, device_id, sizeof(device_id));
		decommissioned = db_row_bool(&row);
		TRY(db_row_end(&row, err));
		if (!decommissioned)
			continue;
		for (size_t p = 0; p < b->picked; p++)
			if (strcmp(batch_item(b, b->pick[p])->identity, device_id) == 0)
				b->work[b->pick[p]].decommissioned = true;
	}
	return OK;
}

static bool
any_revives(const struct batch *b)
{
	for (size_t i = 0; i < b->count; i++)
		if (batch_item(b, i)->revives_version > 0)
			return true;
	return false;
}

/* What is to be revoked, and for which item. */
struct ends {
	struct db_revoke_item *list;
	size_t *of;
	size_t count;
};

static void
ends_free(struct ends *ends)
{
	mem_free(ends->list);
	mem_free(ends->of);
}
OWNER_STRUCT(ends, ends_free)

static void
ends_add(struct ends *ends, size_t i, const struct db_cert_ref *ref, enum revocation_reason reason)
{
	for (size_t e = 0; e < ends->count; e++)
		if (db_ref_equal(&ends->list[e].ref, ref))
			return;
	ends->of[ends->count] = i;
	ends->list[ends->count++] = (struct db_revoke_item){ .ref = *ref, .reason = reason };
}

/*
 * What ends with this Record: what a rework replaces (all that the slot holds), the unconfirmed
 * successor that a rotation replaces, unless it was confirmed since; and the new certificate itself
 * where its device was decommissioned, its key blocked, or the certificate that asked for it revoked,
 * between Admit and Record: it then stands as if issued just before.
 */
static void
ends_of(struct ends *ends, const struct batch *b, size_t i)
{
	const struct db_admit_item *item = batch_item(b, i);
	const struct work *work = &b->work[i];

	if (item->replaced.issuer_id != 0 && item->slot == SLOT_CURRENT) {
		ends_add(ends, i, &item->replaced, REASON_SUPERSEDED);
		if (work->current.issuer_id != 0)
			ends_add(ends, i, &work->current, REASON_SUPERSEDED);
		if (work->successor.issuer_id != 0)
			ends_add(ends, i, &work->successor, REASON_SUPERSEDED);
	} else if (item->replaced.issuer_id != 0 && db_ref_equal(&item->replaced, &work->successor)) {
		ends_add(ends, i, &item->replaced, REASON_SUPERSEDED);
	}
	if (work->blocked)
		ends_add(ends, i, &item->ref, REASON_KEY_COMPROMISE);
	else if (work->decommissioned)
		ends_add(ends, i, &item->ref, REASON_CESSATION_OF_OPERATION);
	else if (work->withdrawn)
		ends_add(ends, i, &item->ref, REASON_PRIVILEGE_WITHDRAWN);
}

/* Tells each item what ended with it; what was revoked before is none of it. */
static void
ends_tell(const struct ends *ends, struct batch *b)
{
	for (size_t e = 0; e < ends->count; e++) {
		struct db_record_item *record = &b->records[ends->of[e]];
		const struct db_revoke_item *end = &ends->list[e];

		if (!end->result.changed)
			continue;
		if (db_ref_equal(&end->ref, &record->admitted->ref)) {
			record->revoked = true;
			record->reason = end->reason;
		} else {
			record->ended[record->ended_count++] = end->ref;
		}
	}
}

static enum status
record_revoke(struct batch *b, struct err *err)
{
	own_struct(ends) ends = { NULL, NULL, 0 };

	ends.list = mem_array(b->count * (DB_ENDED_MAX + 1), sizeof(*ends.list));
	ends.of = mem_array(b->count * (DB_ENDED_MAX + 1), sizeof(*ends.of));
	if (ends.list == NULL || ends.of == NULL)
		return err_memory(err);
	for (size_t i = 0; i < b->count; i++)
		ends_of(&ends, b, i);
	if (ends.count == 0)
		return OK;
	TRY(db_revocation_revoke_many(b->tx, ends.list, ends.count, b->records[0].issued_at_s, err));
	ends_tell(&ends, b);
	return OK;
}

enum status
db_issuance_record(struct db_tx *tx, struct db_record_item *items, size_t count, struct err *err)
{
	own_struct(batch) b = { .tx = tx, .records = items, .count = count };

	if (count == 0)
		return OK;
	for (size_t i = 0; i < count; i++) {
		items[i].ended_count = 0;
		items[i].revoked = false;
	}
	TRY(batch_prepare(&b, err));
	TRY(record_close(&b, err));
	TRY(record_keys(&b, err));
	TRY(record_lock(&b, err));
	pick_devices(&b, SLOT_CURRENT);
	TRY(record_device_rows(&b, any_revives(&b) ? RECORD_DEVICES_REVIVE : RECORD_DEVICES, err));
	pick_devices(&b, SLOT_SUCCESSOR);
	TRY(record_device_rows(&b, RECORD_DEVICES_TOUCH, err));
	pick_devices(&b, SLOT_UNSET);
	TRY(run_over(&b, RECORD_SLOTS, NULL, err));
	batch_pick_none(&b);
	for (size_t i = 0; i < count; i++)
		if (items[i].admitted->manifest_id[0] != '\0' && !items[i].admitted->line_told)
			batch_pick(&b, i);
	TRY(run_over(&b, RECORD_LINES, NULL, err));

	set_predecessors(&b);
	batch_pick_all(&b);
	TRY(run_over(&b, RECORD_CERTIFICATES, NULL, err));
	batch_pick_none(&b);
	for (size_t i = 0; i < count; i++)
		if (b.work[i].predecessor.issuer_id != 0)
			batch_pick(&b, i);
	TRY(run_over(&b, RECORD_POINTERS, NULL, err));
	TRY(record_revoke(&b, err));
	pick_devices(&b, SLOT_UNSET);
	return run_over(&b, RECORD_OUTBOX, NULL, err);
}
