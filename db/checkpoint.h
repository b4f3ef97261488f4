/*
 * db/checkpoint.h - signed checkpoints of the audit log as rows: notes as they were signed (ca/checkpoint.h),
 * and of each lane that grew what came with it. What is hashed and signed is the server's affair. Threads: as
 * for the db_tx.
 */
#ifndef DB_CHECKPOINT_H
#define DB_CHECKPOINT_H

#include "db/audit.h"

struct db_note {
	int64_t number;
	int64_t at_s;
	int64_t records; /* new since the one before */
	uint8_t public_key[32];
	struct bytes note;
};
void db_note_free(struct db_note *note);
OWNER_STRUCT(db_note, db_note_free)

/* A lane that grew: records first_seq to seq, the last of which has the hash head. */
struct db_note_lane {
	int32_t lane;
	int64_t first_seq, seq;
	uint8_t head[32];
};

/* The newest; number 0: there is none. The caller frees *out. */
MUST_USE enum status db_note_last(struct db_tx *tx, struct db_note *out, struct err *err);
/* Draws a number above all before; one that is not used is missing. */
MUST_USE enum status db_note_draw(struct db_tx *tx, int64_t *number, struct err *err);
MUST_USE enum status db_note_add(struct db_tx *tx, const struct db_note *note,
	const struct db_note_lane *lanes, size_t count, struct err *err);
/* Of each lane the last record that a checkpoint holds, by lane. */
MUST_USE enum status db_note_heads(struct db_tx *tx, struct db_note_lane *out, size_t max, size_t *count,
	struct err *err);
/* After a number, in order; the caller frees each. */
MUST_USE enum status db_note_page(struct db_tx *tx, int64_t after, size_t limit, struct db_note *out,
	size_t *count, struct err *err);
MUST_USE enum status db_note_each(struct db_tx *tx,
	enum status (*each)(void *arg, struct view note, struct err *err), void *arg, struct err *err);
/* The first that holds that record. ERR_NOT_FOUND checkpoint_pending: none does yet. */
MUST_USE enum status db_note_covering(struct db_tx *tx, int32_t lane, int64_t seq, struct db_note *out,
	struct err *err);
/* What came with one, by lane. */
MUST_USE enum status db_note_lanes(struct db_tx *tx, int64_t number, struct db_note_lane *out, size_t max,
	size_t *count, struct err *err);

/* ---- the records themselves ---- */

/* A lane's records from first to last, in order. body is empty unless with_bodies. */
MUST_USE enum status db_audit_range(struct db_tx *tx, int32_t lane, int64_t first, int64_t last,
	bool with_bodies,
	enum status (*each)(void *arg, int64_t seq, const uint8_t hash[32], struct view body,
		struct err *err),
	void *arg, struct err *err);
/*
 * The same with their items: one call an item, or one with index -1 for a record without any. body is there
 * with the first call of a record only.
 */
struct db_audit_part {
	int64_t seq;
	uint8_t hash[32];
	struct view body;
	int32_t index;
	struct view item;
};
MUST_USE enum status db_audit_parts(struct db_tx *tx, int32_t lane, int64_t first, int64_t last,
	enum status (*each)(void *arg, const struct db_audit_part *part, struct err *err), void *arg,
	struct err *err);
/* The first record about an object, of an action unless NULL. ERR_NOT_FOUND audit_record_unknown. */
MUST_USE enum status db_audit_first(struct db_tx *tx, const char *object, const char *action,
	int32_t *lane, int64_t *seq, int32_t *index, struct err *err);
/* A record's hash, also of the last that was dropped; zeros for seq 0. ERR_NOT_FOUND audit_record_unknown. */
MUST_USE enum status db_audit_hash(struct db_tx *tx, int32_t lane, int64_t seq, uint8_t out[32],
	struct err *err);
/* Up to where lanes were dropped: their seq and hash. */
MUST_USE enum status db_audit_dropped(struct db_tx *tx, struct db_audit_anchor *out, size_t max,
	size_t *count, struct err *err);

#endif
