#include "db/batch.h"

#include "db/outbox.h"
#include "db/record.h"

enum { RECORD_PLAIN, STATEMENTS };

/*
 * First certificates of devices, in one statement: each step waits for the count of the one before, so
 * that rows are locked in the order of issuance.h. An intent that is gone, a key that is blocked, a device
 * that is decommissioned, a slot that is another's, and the chain ends: fewer certificates are recorded
 * than came in. What is written was claimed by Admit, and each row is judged as it is then.
 */
static const struct db_statement SQL[STATEMENTS] = {
	[RECORD_PLAIN] = { /* intent_pkey, key_claim_pkey, device_slot_pkey */
		.name = "record_plain", .params = 17, .columns = 1, .rows = ROWS_ONE,
		.sql = "WITH i AS MATERIALIZED (SELECT * FROM unnest($1::bytea[], $2::text[], $3::text[],"
		       " $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bigint[], $9::bytea[],"
		       " $10::bytea[], $11::bytea[], $12::text[], $13::text[])"
		       " AS i(serial, profile, identity, subject, principal_id, manifest_id, not_before,"
		       " not_after, sha256, spki, der, thing_type, attributes)),"
		       " intents AS (DELETE FROM jitrca.intent t WHERE t.issuer_id = $14::int"
		       " AND t.serial = ANY ($1::bytea[]) RETURNING 1),"
		       " keys AS (UPDATE jitrca.key_claim k SET issuer_id = $14::int, serial = n.serial,"
		       " claim_issuer = NULL, claim_serial = NULL FROM (SELECT i.spki, i.serial FROM i"
		       " WHERE (SELECT count(*) FROM intents) = $15::bigint ORDER BY i.spki) n"
		       " WHERE k.spki_sha256 = n.spki AND k.claim_serial = n.serial"
		       " AND k.blocked_at IS NULL RETURNING 1),"
		       " devices AS (INSERT INTO jitrca.device AS d (device_id, thing_type, attributes)"
		       " SELECT i.identity, i.thing_type, i.attributes FROM i"
		       " WHERE (SELECT count(*) FROM keys) = $15::bigint ORDER BY i.identity COLLATE \"C\""
		       " ON CONFLICT (device_id) DO UPDATE SET thing_type = EXCLUDED.thing_type,"
		       " attributes = EXCLUDED.attributes, version = d.version + 1, updated_at = now()"
		       " WHERE d.status <> 'decommissioned' RETURNING device_id, version),"
		       " slots AS (UPDATE jitrca.device_slot s SET current_issuer = $14::int,"
		       " current_serial = n.serial, successor_issuer = NULL, successor_serial = NULL,"
		       " claim_issuer = NULL, claim_serial = NULL FROM (SELECT i.identity, i.serial FROM i"
		       " WHERE (SELECT count(*) FROM devices) = $15::bigint"
		       " ORDER BY i.identity COLLATE \"C\") n"
		       " WHERE s.device_id = n.identity AND s.claim_serial = n.serial RETURNING 1),"
		       " certificates AS (INSERT INTO jitrca.certificate (expiry_month, issuer_id, serial,"
		       " status, profile, device_id, of_device, subject, principal_id, manifest_id,"
		       " not_before, not_after, issued_at, sha256, spki_sha256, status_at, der)"
		       " SELECT jitrca.serial_month(i.serial), $14::int, i.serial, 'active', i.profile,"
		       " i.identity, true, i.subject, i.principal_id, nullif(i.manifest_id, ''),"
		       " to_timestamp(i.not_before), to_timestamp(i.not_after), " SQL_AT_S("$17") ","
		       " i.sha256, i.spki, " SQL_AT_S("$17") ", i.der FROM i"
		       " WHERE (SELECT count(*) FROM slots) = $15::bigint RETURNING 1),"
		       " outbox AS (INSERT INTO jitrca.outbox AS o (device_id, version, cause, priority)"
		       " SELECT n.device_id, n.version, 'issued', 2 FROM devices n"
		       " WHERE $16::bool AND (SELECT count(*) FROM certificates) = $15::bigint"
		       " ORDER BY n.device_id COLLATE \"C\"" OUTBOX_AGAIN ")"
		       " SELECT count(*) FROM certificates",
	},
};

const struct db_table DB_TABLE_RECORD_PLAIN = { SQL, COUNT_OF(SQL) };

static const enum column TAKES[] = { COL_SERIAL, COL_PROFILE, COL_IDENTITY, COL_SUBJECT, COL_PRINCIPAL,
	COL_MANIFEST, COL_NOT_BEFORE, COL_NOT_AFTER, COL_SHA256, COL_SPKI, COL_DER, COL_THING_TYPE,
	COL_ATTRIBUTES, COL_END };

static bool
may_be_plain(const struct db_record_item *items, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const struct db_admit_item *admitted = items[i].admitted;

		if (admitted->slot != SLOT_CURRENT || admitted->replaced.issuer_id != 0 ||
		    admitted->revives_version != 0 ||
		    (admitted->manifest_id[0] != '\0' && !admitted->line_told) ||
		    items[i].issued_at_s != items[0].issued_at_s ||
		    admitted->ref.issuer_id != items[0].admitted->ref.issuer_id)
			return false;
	}
	return count > 0;
}

/* The steps of a plain Record, and what they borrow from. */
struct steps {
	struct batch_arrays arrays;
	struct db_param params[BATCH_COLUMNS_MAX];
	struct audit_step audit[DB_FOLLOWS_MAX];
	struct db_step at[1 + DB_FOLLOWS_MAX];
	size_t count;
};

static void
steps_free(struct steps *steps)
{
	batch_arrays_free(&steps->arrays);
	for (size_t i = 0; i < DB_FOLLOWS_MAX; i++)
		audit_step_free(&steps->audit[i]);
	for (size_t i = 0; i < steps->count; i++)
		PQclear(give(steps->at[i].rows));
}
OWNER_STRUCT(steps, steps_free)

static enum status
fill_steps(struct steps *steps, struct batch *b, const struct db_audit_follow *follows,
	size_t follow_count, bool outbox, struct err *err)
{
	size_t count;

	batch_pick_all(b);
	TRY(batch_fill(b, TAKES, &steps->arrays, steps->params, &count, err));
	steps->params[count++] = db_int64(b->records[0].admitted->ref.issuer_id);
	steps->params[count++] = db_int64((int64_t)b->count);
	steps->params[count++] = db_bool(outbox);
	steps->params[count++] = db_int64(b->records[0].issued_at_s);
	steps->at[0] = (struct db_step){ .statement = &SQL[RECORD_PLAIN],
		.params = { steps->params, count } };
	for (steps->count = 1; steps->count <= follow_count; steps->count++)
		TRY(audit_follow_step(&steps->audit[steps->count - 1], &follows[steps->count - 1],
			&steps->at[steps->count], err));
	return OK;
}

/* Whether a step did all that it was to do. */
static enum status
did(const struct db_step *step, int64_t wanted, bool *all, struct err *err)
{
	struct db_row row = db_row(step->rows, 0);

	*all = db_row_int64(&row) == wanted && *all;
	return db_row_end(&row, err);
}

enum status
db_issuance_record_plain(struct db_tx *tx, struct db_record_item *items, size_t count,
	const struct db_audit_follow *follows, size_t follow_count, bool outbox, bool *plain,
	struct err *err)
{
	own_struct(batch) b = { .tx = tx, .records = items, .count = count };
	own_struct(steps) steps = { .count = 0 };
	bool all = true;

	*plain = false;
	if (!may_be_plain(items, count) || follow_count > DB_FOLLOWS_MAX)
		return OK;
	TRY(batch_prepare(&b, err));
	TRY(fill_steps(&steps, &b, follows, follow_count, outbox, err));
	TRY(db_run_all(tx, steps.at, steps.count, err));
	TRY(did(&steps.at[0], (int64_t)count, &all, err));
	for (size_t i = 1; i < steps.count; i++)
		TRY(did(&steps.at[i], 1, &all, err));
	for (size_t i = 0; i < count; i++) {
		items[i].ended_count = 0;
		items[i].revoked = false;
	}
	*plain = all;
	return OK;
}
