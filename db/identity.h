/* db/identity.h - what a certificate's row says of who shows it: one look-up, for each first sight. */
#ifndef DB_IDENTITY_H
#define DB_IDENTITY_H

#include "db/db.h"

struct db_identity {
	uint8_t sha256[DB_SHA256_BYTES]; /* of the DER on record */
	enum cert_status status;         /* as stored */
	int64_t not_before_s, not_after_s;
	char profile[DB_PROFILE_BYTES];
	char device_id[DB_ID_BYTES]; /* or the principal's id, or a service's name */
	char device_status[16];      /* empty: no device row */
	char principal_role[16];     /* of the principal of that name; empty: none */
	bool principal_disabled;
};

/* ERR_NOT_FOUND certificate_unknown. Also without a transaction (db_read). */
MUST_USE enum status db_identity_by_ref(struct db_tx *tx, const struct db_cert_ref *ref,
	struct db_identity *out, struct err *err);

#endif
