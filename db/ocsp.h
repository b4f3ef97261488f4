/*
 * db/ocsp.h - what OCSP says of serials: many in one look-up. A row of a certificate, or of a revocation
 * (an orphaned intent has no other), is what "issued" means (invariant 7).
 */
#ifndef DB_OCSP_H
#define DB_OCSP_H

#include "db/db.h"

struct db_ocsp_item {
	struct db_cert_ref ref;    /* in */
	enum cert_status status;   /* as stored; CERT_UNSET: there is no certificate of that serial */
	int64_t not_after_s;       /* 0: no certificate */
	bool revoked;              /* then the two below */
	int64_t revoked_at_s;
	enum revocation_reason reason;
};

/* Up to 16384 at once. */
MUST_USE enum status db_ocsp_find(struct db_tx *tx, struct db_ocsp_item *items, size_t count,
	struct err *err);

#endif
