/*
 * db/audit.h - rows of the audit log. What is hashed and how is the server's affair (server/audit.h);
 * here are lanes, records and items as bytes. A lane's row is locked from db_audit_head to the end of
 * the transaction, so the head that is read is the head that is followed.
 */
#ifndef DB_AUDIT_H
#define DB_AUDIT_H

#include "db/db.h"

struct db_audit_record {
	int32_t lane;
	int64_t seq;
	int64_t at_s;
	char actor[DB_ID_BYTES];
	char action[DB_ID_BYTES];
	struct bytes body;
	uint8_t hash[32];
};
void db_audit_record_free(struct db_audit_record *record);

struct db_audit_item {
	const char *object;
	struct view body;
};

/* Makes the lane if need be, locks it, and reads its head. seq is that of the last record (0: none). */
MUST_USE enum status db_audit_head(struct db_tx *tx, int32_t lane, int64_t *seq, uint8_t head[32],
	struct err *err);
/* Appends record (seq = last + 1) with its items and moves the head. */
MUST_USE enum status db_audit_append(struct db_tx *tx, const struct db_audit_record *record,
	const struct db_audit_item *items, size_t count, struct err *err);

/* The head without a lock, as it was a moment ago. False: there is no such lane yet. */
MUST_USE enum status db_audit_peek(struct db_tx *tx, int32_t lane, bool *found, int64_t *seq,
	uint8_t head[32], struct err *err);
/* A record behind a head that the caller remembers; for db_issuance_record_plain. All is borrowed. */
struct db_audit_follow {
	const struct db_audit_record *record; /* seq: one more than the head's */
	const uint8_t *previous;              /* the head */
	const struct db_audit_item *items;
	size_t count;
};

struct db_audit_filter { /* NULL and 0: not asked for */
	const char *actor, *action, *object;
	int64_t since_s, until_s;
};
struct db_audit_cursor {
	bool set;
	int64_t at_us;
	int32_t lane;
	int64_t seq;
};
/* Records in (at, lane, seq) order, oldest first; the caller frees each. */
MUST_USE enum status db_audit_search(struct db_tx *tx, const struct db_audit_filter *filter,
	const struct db_audit_cursor *cursor, size_t limit, struct db_audit_record *out, size_t *count,
	struct db_audit_cursor *next, struct err *err);
/* Streams the items of one record in order. */
MUST_USE enum status db_audit_items(struct db_tx *tx, int32_t lane, int64_t seq,
	enum status (*item)(void *arg, const char *object, struct view body, struct err *err),
	void *arg, struct err *err);
/* For verification: lanes with their heads; then records of a lane after seq, in order, by pages. */
struct db_audit_lane { int32_t lane; int64_t seq; uint8_t head[32]; };
MUST_USE enum status db_audit_lanes(struct db_tx *tx, struct db_audit_lane *out, size_t max,
	size_t *count, struct err *err);
MUST_USE enum status db_audit_lane_page(struct db_tx *tx, int32_t lane, int64_t after_seq,
	size_t limit, struct db_audit_record *out, size_t *count, struct err *err);
/* Checkpoints: an anchor that truncation shows against. */
MUST_USE enum status db_audit_checkpoint(struct db_tx *tx, struct err *err); /* all lanes' heads */
struct db_audit_anchor { int32_t lane; int64_t seq; uint8_t hash[32]; };
MUST_USE enum status db_audit_anchors(struct db_tx *tx, struct db_audit_anchor *out, size_t max,
	size_t *count, struct err *err); /* the newest of each lane */

#endif
