/*
 * server/cas.h - the certificate authorities of this server, from certificates to rows and to what the
 * frontend shows of them. Used at its start and by `jitrca init`.
 */
#ifndef SERVER_CAS_H
#define SERVER_CAS_H

#include "db/db.h"
#include "server/app.h"

/* A CA as the signer or the key store has it; all borrowed. */
struct cas_source {
	const char *ca_id;
	bool is_root, can_sign;
	struct view certificate;
	const struct bytes *chain; /* issuers, nearest first, the root last */
	size_t chain_count;
};

/*
 * Registers it (db_issuer_ensure; CRL scopes if it can sign) and, unless out is NULL, fills *out; the
 * texts in it live until the process ends.
 */
MUST_USE enum status cas_register(struct db_tx *tx, const struct cas_source *source,
	struct app_ca *out, struct err *err);

#endif
