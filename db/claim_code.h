/* db/claim_code.h - claim codes: one use each, for one device and one public key (docs/api.md, recovery). */
#ifndef DB_CLAIM_CODE_H
#define DB_CLAIM_CODE_H

#include "db/db.h"

struct db_claim_code {
	char claim_id[33];
	uint8_t hash[DB_SHA256_BYTES]; /* of the code */
	char device_id[DB_ID_BYTES];
	struct db_cert_ref ref; /* the certificate that has run out */
	uint8_t spki_sha256[DB_SHA256_BYTES];
	char issued_by[DB_ID_BYTES];
	int64_t expires_at_s;
};
MUST_USE enum status db_claim_code_create(struct db_tx *tx, const struct db_claim_code *code,
	struct err *err);

/*
 * Uses a code up, if it is one, unused, of this time and for this key: *used. The same two statements
 * whatever the outcome; *found: it is, or was, one of ours, then *out says which.
 */
MUST_USE enum status db_claim_code_use(struct db_tx *tx, const uint8_t hash[DB_SHA256_BYTES],
	const uint8_t spki_sha256[DB_SHA256_BYTES], struct db_claim_code *out, bool *found, bool *used,
	struct err *err);

#endif
