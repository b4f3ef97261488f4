#include "db/batch.h"

#include "db/outbox.h"
#include "db/record.h"

enum { RECORD_PLAIN, STATEMENTS };

/*
 * First certificates of devices, in one statement: each step waits for the count of the one before, so
 * that rows are locked in the order of issuance.h. An intent that is gone, a device that is there, and the
 * chain ends: fewer certificates are recorded than came in, or there is a conflict.
 *
 * Keys and slots are written by Admit, and read by nobody before the intent is gone (db/batch.h). Nothing
 * can happen to them until then: a key is blocked, and a device quarantined, only where a certificate was
 * recorded.
 */
static const struct db_statement SQL[STATEMENTS] = {
	[RECORD_PLAIN] = { /* intent_round_pkey; $1 is in order, as a round's serials are */
		.name = "record_plain", .params = 18, .columns = 1, .rows = ROWS_ONE,
		.sql = "WITH i AS MATERIALIZED (SELECT * FROM unnest($1::bytea[], $2::text[], $3::text[],"
		       " $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bigint[], $9::bytea[],"
		       " $10::bytea[], $11::bytea[], $12::text[], $13::text[])"
		       " AS i(serial, profile, identity, subject, principal_id, manifest_id, not_before,"
		       " not_after, sha256, spki, der, thing_type, attributes)),"
		       " intents AS (DELETE FROM jitrca.intent_round t WHERE t.round_id = $14::bigint"
		       " AND t.serials = $1::bytea[] RETURNING 1),"
		       " devices AS (INSERT INTO jitrca.device (device_id, thing_type, attributes)"
		       " SELECT i.identity, i.thing_type, i.attributes FROM i"
		       " WHERE EXISTS (SELECT FROM intents) ORDER BY i.identity COLLATE \"C\""
		       " RETURNING device_id, version),"
		       " certificates AS (INSERT INTO jitrca.certificate (expiry_month, issuer_id, serial,"
		       " status, profile, device_id, of_device, subject, principal_id, manifest_id,"
		       " not_before, not_after, issued_at, sha256, spki_sha256, status_at, der)"
		       " SELECT jitrca.serial_month(i.serial), $15::int, i.serial, 'active', i.profile,"
		       " i.identity, true, i.subject, i.principal_id, nullif(i.manifest_id, ''),"
		       " to_timestamp(i.not_before), to_timestamp(i.not_after), " SQL_AT_S("$18") ","
		       " i.sha256, i.spki, " SQL_AT_S("$18") ", i.der FROM i"
		       " WHERE (SELECT count(*) FROM devices) = $16::bigint RETURNING 1),"
		       " outbox AS (INSERT INTO jitrca.outbox AS o (device_id, version, cause, priority)"
		       " SELECT n.device_id, n.version, 'issued', 2 FROM devices n"
		       " WHERE $17::bool AND (SELECT count(*) FROM certificates) = $16::bigint"
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

		if (admitted->slot != SLOT_CURRENT || !admitted->fresh ||
		    (admitted->manifest_id[0] != '\0' && !admitted->line_told) ||
		    items[i].issued_at_s != items[0].issued_at_s ||
		    admitted->intent_round != items[0].admitted->intent_round ||
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

	batch_pick_sorted(b);
	TRY(batch_fill(b, TAKES, &steps->arrays, steps->params, &count, err));
	steps->params[count++] = db_int64(b->records[0].admitted->intent_round);
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
	enum status status;
	bool all = true;

	*plain = false;
	if (!may_be_plain(items, count) || follow_count > DB_FOLLOWS_MAX)
		return OK;
	TRY(batch_prepare(&b, err));
	TRY(fill_steps(&steps, &b, follows, follow_count, outbox, err));
	status = db_run_all(tx, steps.at, steps.count, err);
	if (status == ERR_CONFLICT)
		return OK;
	TRY(status);
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
