/* db/certificate.h - certificates: read one, search many (keyset pages). Writing: issuance, revocation. */
#ifndef DB_CERTIFICATE_H
#define DB_CERTIFICATE_H

#include "db/db.h"

struct db_certificate {
	struct db_cert_ref ref;
	char ca_id[DB_ID_BYTES];
	enum cert_status status; /* as stored; see db_certificate_status_at */
	char profile[DB_PROFILE_BYTES];
	char device_id[DB_ID_BYTES];
	char subject[512];
	char principal_id[DB_ID_BYTES];
	char manifest_id[DB_ID_BYTES]; /* empty: none */
	int64_t not_before_s, not_after_s, issued_at_s, status_at_s;
	uint8_t sha256[DB_SHA256_BYTES];
	uint8_t spki_sha256[DB_SHA256_BYTES];
	bool has_predecessor, has_successor;
	uint8_t predecessor[DB_SHA256_BYTES]; /* certificate ids */
	uint8_t successor[DB_SHA256_BYTES];
	bool revoked; /* has a revocation row: then the two below */
	int64_t revoked_at_s;
	enum revocation_reason reason;
	char device_status[16]; /* "active", "quarantined", "decommissioned", or empty: no device row */
	struct bytes der;
};

void db_certificate_free(struct db_certificate *certificate);
OWNER_STRUCT(db_certificate, db_certificate_free)

/* What the status is at a time: revoked wins over expired, expired over the rest. */
enum cert_status db_certificate_status_at(const struct db_certificate *certificate, int64_t now_s);

/* ERR_NOT_FOUND (certificate_unknown). The caller frees out. */
MUST_USE enum status db_certificate_by_ref(struct db_tx *tx, const struct db_cert_ref *ref,
	struct db_certificate *out, struct err *err);
MUST_USE enum status db_certificate_by_sha256(struct db_tx *tx, const uint8_t sha256[DB_SHA256_BYTES],
	struct db_certificate *out, struct err *err);
/* By serial over all issuers. */
MUST_USE enum status db_certificate_by_serial(struct db_tx *tx, const struct serial *serial,
	struct db_certificate *out, struct err *err);
/* Many at once, in the order of refs; each must exist (else ERR_NOT_FOUND). out has count entries. */
MUST_USE enum status db_certificate_by_refs(struct db_tx *tx, const struct db_cert_ref *refs,
	size_t count, struct db_certificate *out, struct err *err);

/*
 * What is not set is not asked for: NULL, 0, CERT_UNSET, issuer_id 0. after is at or after, before is
 * before. A status is that at now_s (see db_certificate_status_at).
 */
struct db_certificate_filter {
	const char *device_id;
	const char *principal_id; /* station */
	const char *manifest_id;
	const char *profile;
	int32_t issuer_id;
	enum cert_status status;
	int64_t issued_after_s, issued_before_s;
	int64_t expires_after_s, expires_before_s;
	int64_t now_s; /* decides what is expired */
};

/*
 * Position after the last row of a page, ascending: (issued_at, serial); or (not_after, serial), where
 * what is asked for is the end of validity or what is active, and nothing else leads. Only good for the
 * same filter. Microseconds, as stored.
 */
struct db_certificate_cursor {
	bool set;
	int64_t at_us;
	struct serial serial;
};

/*
 * Up to limit rows after cursor, in its order; *count says how many; *next is set when
 * more may follow. The caller frees each of out[0 … *count).
 */
MUST_USE enum status db_certificate_search(struct db_tx *tx, const struct db_certificate_filter *filter,
	const struct db_certificate_cursor *cursor, size_t limit, struct db_certificate *out,
	size_t *count, struct db_certificate_cursor *next, struct err *err);

#endif
