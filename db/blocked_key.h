/*
 * db/blocked_key.h - public keys that are blocked because they stand on a list of known bad ones (weak,
 * leaked, another vendor's), and what may be done about them.
 *
 * The block is where whoever admits looks anyway: key_claim.blocked_at. A listed key has the epoch there, so
 * that the signer's own list (db_blocked_keys), which nobody can take anything off, has the compromised ones
 * alone. A listed key that is revoked for compromise becomes one of those, for good.
 */
#ifndef DB_BLOCKED_KEY_H
#define DB_BLOCKED_KEY_H

#include "db/db.h"

#define DB_BLOCKED_REASON_BYTES 257

struct db_blocked_key {
	uint8_t spki_sha256[DB_SHA256_BYTES];
	bool compromised; /* not from a list: it stays */
	char reason[DB_BLOCKED_REASON_BYTES], actor[DB_ID_BYTES]; /* "": compromised */
	int64_t blocked_at_s;
	char identity[DB_ID_BYTES]; /* who has, or had, a certificate for it; "": nobody */
};

struct db_blocked_load {
	int64_t added, already; /* on the list, or compromised */
	int64_t in_use;         /* of those added: somebody has, had, or is being given a certificate */
};
/* Puts keys on the list; *out is added to. One that is there keeps its reason. */
MUST_USE enum status db_blocked_key_load(struct db_tx *tx, const uint8_t (*keys)[DB_SHA256_BYTES],
	size_t count, const char *reason, const char *actor, struct db_blocked_load *out,
	struct err *err);
/* ERR_NOT_FOUND blocked_key_unknown. */
MUST_USE enum status db_blocked_key_find(struct db_tx *tx, const uint8_t key[DB_SHA256_BYTES],
	struct db_blocked_key *out, struct err *err);
/* The listed ones behind after (NULL: from the first), in order. */
MUST_USE enum status db_blocked_key_list(struct db_tx *tx, const uint8_t *after, size_t limit,
	struct db_blocked_key *out, size_t *count, struct err *err);
/* Off the list. ERR_NOT_FOUND blocked_key_unknown; ERR_CONFLICT key_compromised. */
MUST_USE enum status db_blocked_key_remove(struct db_tx *tx, const uint8_t key[DB_SHA256_BYTES],
	struct err *err);

#endif
