/*
 * db/batch.h - many items in a few statements: what Admit, Record and the reaper (admit.c, admit_charge.c,
 * record.c, reap.c) have in common; private to this room. A statement takes arrays, one entry for each
 * item that was picked, and names in its TAKES row which columns they are made of.
 *
 * How it stays right with several servers at once.
 *
 * Each claim is a row that only one transaction can insert (the unique index makes the others wait),
 * or a row that was there and is locked. What is decided is read in a statement of its own after the
 * lock: under READ COMMITTED only a new statement sees what the one that we waited for has written.
 * Rows are locked in the order of issuance.h, and in each table by key, so two batches never wait for
 * each other in a ring. Record and the reaper begin with the intent, whose rows Admit only inserts.
 *
 * A certificate is under way as long as its intent is open. The row of a new key or slot names it from the
 * beginning, as what will be the last or the current one, so that Record need not write the row again: there
 * is no such certificate before, and the reaper takes the row away. A row that was there before names it as
 * claim, exactly as long as the intent is open: Record and the reaper take that away in the transaction that
 * deletes the intent.
 *
 * Intents lie in rounds: one row for all that one Admit wrote. Whoever takes some of them out locks the
 * rounds in their order, so the rest of a round waits for it.
 *
 * A device has a slot from its first intent on, for good: where there is no slot, there is no device.
 */
#ifndef DB_BATCH_H
#define DB_BATCH_H

#include "base/mem.h"
#include "db/issuance.h"
#include "db/run.h"

/* Whether a certificate is under way. Hashed once for a statement, whose snapshot it shares. */
#define INTENT_OPEN(serial_of)                                                                     \
	"coalesce(" serial_of " IN (SELECT unnest(t.serials) FROM jitrca.intent_round t), false)"

/*
 * Behind "WITH r AS MATERIALIZED (… FOR UPDATE)", which are rounds (round_id, items): takes those of the
 * serials out of them. u are all items of these rounds, those that were taken out are mine.
 */
#define INTENT_TAKE(serials)                                                                       \
	" u AS MATERIALIZED (SELECT r.round_id, i.serial, i::jitrca.intent_item AS item,"              \
	" i.serial = ANY (" serials ") AS mine FROM r CROSS JOIN LATERAL unnest(r.items) i),"          \
	" gone AS (DELETE FROM jitrca.intent_round t WHERE t.round_id IN (SELECT u.round_id FROM u"    \
	" GROUP BY 1 HAVING bool_and(u.mine))),"                                                       \
	" kept AS (UPDATE jitrca.intent_round t SET serials = k.serials, items = k.items"              \
	" FROM (SELECT u.round_id, array_agg(u.serial ORDER BY u.serial) FILTER (WHERE NOT u.mine)"    \
	" AS serials, array_agg(u.item ORDER BY u.serial) FILTER (WHERE NOT u.mine) AS items"          \
	" FROM u GROUP BY 1 HAVING bool_or(u.mine) AND NOT bool_and(u.mine)) k"                        \
	" WHERE t.round_id = k.round_id)"

/* What the arrays of a statement are made of, one entry per item. */
enum column {
	COL_END = 0,
	COL_INDEX,
	COL_INSTANCE,
	COL_PRINCIPAL,
	COL_ASKER, /* the principal; empty when the device itself asks */
	COL_NAMED, /* the identity where it must be a principal; else empty */
	COL_IDEMPOTENCY_KEY,
	COL_REQUEST_HASH,
	COL_ISSUER,
	COL_SERIAL,
	COL_NOT_AFTER,
	COL_IDENTITY,
	COL_PROFILE,
	COL_SPKI,
	COL_OF_DEVICE,
	COL_IS_SUCCESSOR,
	COL_MANIFEST,
	COL_CHARGED,
	COL_EXISTING_ISSUER,
	COL_EXISTING_SERIAL,
	COL_KEY_ISSUER, /* the key's last certificate */
	COL_KEY_SERIAL,
	COL_THING_TYPE,
	COL_ATTRIBUTES,
	COL_REVIVES,
	COL_INTENT_ROUND,
	COL_DER,
	COL_SHA256,
	COL_SUBJECT,
	COL_NOT_BEFORE,
	COL_ISSUED_AT,
	COL_PREDECESSOR_ISSUER,
	COL_PREDECESSOR_SERIAL,
};

/* What we know of an item beside what it asks and what we answer. */
struct work {
	bool idempotency_new, key_new, slot_new; /* inserted by this call */
	bool key_old, slot_old;                  /* there before; locked by this call */
	struct db_cert_ref key_certificate;      /* the key's last certificate */
	struct db_cert_ref current, successor; /* the device's slot */
	enum cert_status current_status, successor_status;
	bool current_lives, successor_lives; /* neither revoked nor expired; a hold is a life */
	char device_status[16];
	int64_t device_version;
	bool replacing, reviving;
	size_t first_line, line_count;
	struct db_cert_ref predecessor; /* Record */
	bool decommissioned, blocked;   /* Record: since Admit */
	bool withdrawn;                 /* Record: the predecessor was revoked since Admit */
};

/* A line of a manifest that names an item's identity (Admit). */
struct line {
	char manifest_id[DB_ID_BYTES];
	bool used;
	char state;
};

/* The items of one call: those of Admit, those of Record, or those that the reaper found. */
struct batch {
	struct db_tx *tx;
	struct db_admit_item *items;          /* Admit, reaper */
	struct db_record_item *records;       /* Record */
	size_t count;
	struct work *work;
	size_t *by_serial; /* indexes in the order of the serials */
	size_t *pick;      /* what the next statement is about */
	size_t picked;
	struct line *lines;
	size_t line_count;
	int32_t instance_id;         /* Admit */
	struct db_admit_item *found; /* reaper: owned; what items points to */
};

static inline void
batch_free(struct batch *b)
{
	mem_free(b->work);
	mem_free(b->by_serial);
	mem_free(b->pick);
	mem_free(b->lines);
	mem_free(b->found);
}
OWNER_STRUCT(batch, batch_free)

/* Makes room for the count items of a batch whose items or records are set. */
MUST_USE enum status batch_prepare(struct batch *b, struct err *err);

static inline const struct db_admit_item *
batch_item(const struct batch *b, size_t i)
{
	return b->records != NULL ? b->records[i].admitted : &b->items[i];
}

/* The item of a serial that a statement gave back; count when there is none. */
size_t batch_index(const struct batch *b, const struct serial *serial);

static inline void
batch_pick_none(struct batch *b)
{
	b->picked = 0;
}

static inline void
batch_pick(struct batch *b, size_t i)
{
	b->pick[b->picked++] = i;
}

void batch_pick_all(struct batch *b);
/* All, in the order of their serials: rows that go into indexes by serial then lie side by side. */
void batch_pick_sorted(struct batch *b);

#define BATCH_COLUMNS_MAX 20

/* The arrays of a statement, while it runs. */
struct batch_arrays {
	struct db_array at[BATCH_COLUMNS_MAX];
};

static inline void
batch_arrays_free(struct batch_arrays *arrays)
{
	for (size_t c = 0; c < BATCH_COLUMNS_MAX; c++)
		db_array_free(&arrays->at[c]);
}
OWNER_STRUCT(batch_arrays, batch_arrays_free)

/* Fills the picked items' columns in, and params with them; *count of params. */
MUST_USE enum status batch_fill(const struct batch *b, const enum column *takes,
	struct batch_arrays *arrays, struct db_param params[BATCH_COLUMNS_MAX], size_t *count,
	struct err *err);

/*
 * Runs a statement over the picked items; takes names its parameters' columns, up to COL_END. When none
 * are picked nothing runs, and *rows stays NULL, which counts as no rows.
 */
MUST_USE enum status batch_run(struct batch *b, const struct db_statement *statement,
	const enum column *takes, PGresult **rows, struct err *err);

static inline int
batch_row_count(const PGresult *rows)
{
	return rows != NULL ? db_rows(rows) : 0;
}

/* The index that a row begins with. */
size_t batch_row_index(struct db_row *row, const struct batch *b);

static inline bool
batch_of_device(const struct db_admit_item *item)
{
	return item->slot == SLOT_CURRENT || item->slot == SLOT_SUCCESSOR;
}

static inline bool
batch_has_key(const struct db_admit_item *item)
{
	return item->idempotency_key != NULL && item->idempotency_key[0] != '\0';
}

#endif
