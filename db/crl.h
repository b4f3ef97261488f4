/* db/crl.h - what CRLs are made of, the numbers reserved for them, and what was published. */
#ifndef DB_CRL_H
#define DB_CRL_H

#include "db/db.h"

#define CRL_SCOPE_DELTA (-2) /* what changed since a full list */
#define CRL_SCOPE_FULL (-1)
#define CRL_SCOPES 258 /* -2, -1, 0 … 255 */
/* The place of a scope in an array of all. */
#define CRL_SCOPE_AT(scope) ((scope) - CRL_SCOPE_DELTA)

struct db_crl_scope {
	int32_t issuer_id;
	int16_t scope;
	int64_t last_number, wanted, published;
	int64_t next_update_s; /* 0: none published */
};

/* Makes the scope rows of an issuer where they are missing. */
MUST_USE enum status db_crl_scopes_ensure(struct db_tx *tx, int32_t issuer_id, struct err *err);

/*
 * Scopes whose wanted is ahead of published, or whose next_update is at or before due_s (of the delta:
 * delta_due_s), by scope.
 */
MUST_USE enum status db_crl_scopes_due(struct db_tx *tx, int32_t issuer_id, int64_t due_s,
	int64_t delta_due_s, struct db_crl_scope *out, size_t max, size_t *count, struct err *err);

/*
 * Reserves the next number of a scope and reads wanted, in a transaction that is committed before the
 * key signs (invariant 1). Full list and delta share their numbers: reserving for either reads the wanted
 * of both, and the full list and the delta made from one reservation may both have it (RFC 5280 5.2.4).
 */
struct db_crl_turn {
	int64_t number;
	int64_t wanted;       /* of the scope; for the delta, of the full list */
	int64_t delta_wanted; /* of the delta, unless the scope is a shard */
};
MUST_USE enum status db_crl_reserve(struct db_tx *tx, int32_t issuer_id, int16_t scope,
	struct db_crl_turn *out, struct err *err);

/*
 * Of a scope whose numbers are behind one that was served (the database was restored from a backup): none
 * up to number is given again, and a list is due. A delta has no base any more then, so that the next full
 * list is due as well.
 */
MUST_USE enum status db_crl_overtake(struct db_tx *tx, int32_t issuer_id, int16_t scope,
	int64_t number, struct err *err);

/* A full list that deltas may go on from. */
struct db_crl_base {
	int64_t number;        /* 0: none */
	int64_t changes;       /* wanted of the full list when number was reserved */
	int64_t this_update_s;
};
/* The oldest, and the newest, which may be the same. */
MUST_USE enum status db_crl_bases(struct db_tx *tx, int32_t issuer_id, struct db_crl_base *oldest,
	struct db_crl_base *newest, struct err *err);
/*
 * base becomes the newest, and what was the newest the oldest; with alone, base is both. What is on the
 * oldest then is no change any more.
 */
MUST_USE enum status db_crl_base_put(struct db_tx *tx, int32_t issuer_id,
	const struct db_crl_base *base, bool alone, struct err *err);
/* A delta is due, for there is another full list. Before the full list's end. */
MUST_USE enum status db_crl_delta_due(struct db_tx *tx, int32_t issuer_id, struct err *err);
/* A full list is due, as if there were none: no delta can go on from those that are there. */
MUST_USE enum status db_crl_full_ask(struct db_tx *tx, int32_t issuer_id, struct err *err);
/* Of a delta alone (RFC 5280 5.3.1): the certificate is revoked no more. */
#define CRL_ENTRY_REMOVED 8
struct db_crl_entry {
	struct serial serial;
	int64_t revoked_at_s; /* or lifted */
	int reason;           /* enum revocation_reason, or CRL_ENTRY_REMOVED */
};

/* What is read after this, in the same transaction, is as it was at one moment. First of all. */
MUST_USE enum status db_crl_snapshot(struct db_tx *tx, struct err *err);
/*
 * Streams the entries of a scope, ordered by serial, with not_after above not_after_over_s, to entry();
 * in one snapshot; it must not use tx. A delta's are those changed since `changes` of its base;
 * for others changes is not used. A status from entry() is returned once the rest was thrown away.
 */
MUST_USE enum status db_crl_entries(struct db_tx *tx, int32_t issuer_id, int16_t scope,
	int64_t not_after_over_s, int64_t changes,
	enum status (*entry)(void *arg, const struct db_crl_entry *entry, struct err *err), void *arg,
	struct err *err);

struct db_crl {
	int32_t issuer_id;
	char ca_id[DB_ID_BYTES];
	int16_t scope;
	int64_t number, this_update_s, next_update_s, published_at_s, entries;
	int64_t length_bytes;
	int64_t base; /* of a delta; 0 otherwise */
	uint8_t sha256[DB_SHA256_BYTES];
};

/*
 * Publishes, in three steps of one transaction: begin inserts the list, put its pieces in their order, end
 * locks the scope (who revokes waits for it, hence last), marks it with the wanted that the list answers
 * for and sends NOTIFY jitrca_crl. A delta is ended before its full list.
 * end: ERR_CONFLICT crl_overtaken: a higher number is published already.
 */
#define CRL_PIECE_BYTES ((size_t)256 << 10)
MUST_USE enum status db_crl_publish_begin(struct db_tx *tx, const struct db_crl *crl, struct err *err);
MUST_USE enum status db_crl_publish_put(struct db_tx *tx, const struct db_crl *crl, int64_t piece,
	struct view octets, struct err *err);
MUST_USE enum status db_crl_publish_end(struct db_tx *tx, const struct db_crl *crl, int64_t wanted,
	struct err *err);
/* Keeps the last 3 of a scope. A long one takes its time to be deleted, so in a transaction after that. */
MUST_USE enum status db_crl_prune(struct db_tx *tx, const struct db_crl *crl, struct err *err);
/*
 * In the place of begin and put, for a list that is long: its pieces are stored while it is being made, whole
 * or not at all, in any order and of any size; what is known last (entries, length, sha256) is taken by
 * store_end. In between the transaction takes nothing else.
 */
/* For a transaction that lasts as long as a long list is made: neither it nor a statement of it runs out. */
MUST_USE enum status db_crl_long(struct db_tx *tx, struct err *err);
MUST_USE enum status db_crl_store_begin(struct db_tx *tx, const struct db_crl *crl, struct err *err);
MUST_USE enum status db_crl_store_put(struct db_tx *tx, const struct db_crl *crl, int32_t piece,
	struct view octets, struct err *err);
MUST_USE enum status db_crl_store_end(struct db_tx *tx, const struct db_crl *crl, struct err *err);
/*
 * Does the base of a delta still stand? After its end, in the same transaction. ERR_CONFLICT crl_base_gone: a
 * full list moved it while the entries were read, and what it has is no change any more.
 */
MUST_USE enum status db_crl_base_check(struct db_tx *tx, const struct db_crl *delta, struct err *err);

/* The published list; ERR_NOT_FOUND crl_unknown. */
MUST_USE enum status db_crl_latest(struct db_tx *tx, int32_t issuer_id, int16_t scope,
	struct db_crl *out, struct err *err);
/* Its octets, piece by piece. */
MUST_USE enum status db_crl_pieces(struct db_tx *tx, const struct db_crl *crl,
	enum status (*piece)(void *arg, struct view octets, struct err *err), void *arg,
	struct err *err);
/* number per scope of what is published (0: none), for a cache to compare with; out[CRL_SCOPE_AT(scope)]. */
MUST_USE enum status db_crl_numbers(struct db_tx *tx, int32_t issuer_id, int64_t out[CRL_SCOPES],
	struct err *err);

/*
 * For brokers that ask for what is revoked of some profiles. The clock moves with each revocation, hold and
 * lifted hold of any issuer, and never goes back below what was served (db_crl_overtake): what is read
 * after it is at least as new.
 */
struct db_crl_clock {
	int64_t changes, numbers;
};
MUST_USE enum status db_crl_clock(struct db_tx *tx, struct db_crl_clock *out, struct err *err);

struct db_revoked {
	uint8_t sha256[DB_SHA256_BYTES];
	struct serial serial;
	char ca_id[DB_ID_BYTES];
	char device_id[DB_ID_BYTES];
	bool held;
	enum revocation_reason reason;
	int64_t revoked_at_s, not_after_s;
};
/* Streams what is revoked or held and has not expired, in no order. A status from each() ends it. */
MUST_USE enum status db_crl_revoked(struct db_tx *tx, const char *const *profiles, size_t count,
	int64_t now_s, enum status (*each)(void *arg, const struct db_revoked *revoked, struct err *err),
	void *arg, struct err *err);

#endif
