/* db/crl.h - what CRLs are made of, the numbers reserved for them, and what was published. */
#ifndef DB_CRL_H
#define DB_CRL_H

#include "db/db.h"

#define CRL_SCOPE_FULL (-1)
#define CRL_SCOPES 257 /* -1, 0 … 255 */

struct db_crl_scope {
	int32_t issuer_id;
	int16_t scope;
	int64_t last_number, wanted, published;
	int64_t next_update_s; /* 0: none published */
};

/* Makes the 257 scope rows of an issuer where they are missing. */
MUST_USE enum status db_crl_scopes_ensure(struct db_tx *tx, int32_t issuer_id, struct err *err);

/* Scopes whose wanted is ahead of published or whose next_update is at or before due_s. */
MUST_USE enum status db_crl_scopes_due(struct db_tx *tx, int32_t issuer_id, int64_t due_s,
	struct db_crl_scope *out, size_t max, size_t *count, struct err *err);

/*
 * Reserves the next number of a scope and reads wanted, in a transaction that is committed before the
 * key signs (invariant 1).
 */
MUST_USE enum status db_crl_reserve(struct db_tx *tx, int32_t issuer_id, int16_t scope,
	int64_t *number, int64_t *wanted, struct err *err);

/*
 * Of a scope whose numbers are behind one that was served (the database was restored from a backup): none
 * up to number is given again, and a list is due.
 */
MUST_USE enum status db_crl_overtake(struct db_tx *tx, int32_t issuer_id, int16_t scope,
	int64_t number, struct err *err);

struct db_crl_entry {
	struct serial serial;
	int64_t revoked_at_s;
	enum revocation_reason reason;
};

/*
 * Streams the entries of a scope, ordered by serial, with not_after above not_after_over_s, to entry();
 * reads them in one snapshot, a batch at a time. A status from entry() ends it.
 */
MUST_USE enum status db_crl_entries(struct db_tx *tx, int32_t issuer_id, int16_t scope,
	int64_t not_after_over_s,
	enum status (*entry)(void *arg, const struct db_crl_entry *entry, struct err *err), void *arg,
	struct err *err);

struct db_crl {
	int32_t issuer_id;
	char ca_id[DB_ID_BYTES];
	int16_t scope;
	int64_t number, this_update_s, next_update_s, published_at_s, entries;
	uint8_t sha256[DB_SHA256_BYTES];
	struct bytes der;
};
void db_crl_free(struct db_crl *crl);
OWNER_STRUCT(db_crl, db_crl_free)

/*
 * Publishes: inserts the list, marks the scope, keeps the last 3 and sends NOTIFY jitrca_crl.
 * ERR_CONFLICT crl_overtaken: a higher number is published already.
 */
MUST_USE enum status db_crl_publish(struct db_tx *tx, const struct db_crl *crl, int64_t wanted,
	struct err *err);

/* The published list; ERR_NOT_FOUND crl_unknown. The caller frees out. */
MUST_USE enum status db_crl_latest(struct db_tx *tx, int32_t issuer_id, int16_t scope,
	struct db_crl *out, struct err *err);
/* number per scope of what is published (0: none), for a cache to compare with; out[scope + 1]. */
MUST_USE enum status db_crl_numbers(struct db_tx *tx, int32_t issuer_id, int64_t out[CRL_SCOPES],
	struct err *err);

#endif
