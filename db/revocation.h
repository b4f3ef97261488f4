/*
 * db/revocation.h - revoke, hold, unhold, supersede (invariants 5, 6, 7); many: db/receipt.h.
 * Each of these also marks the CRL scopes that it touches (crl_scope.wanted), writes the device's
 * outbox row and sends NOTIFY jitrca_revocation, all in the caller's transaction. The notification's
 * payload is the issuer_id and the serials that changed, in hex, with a space in front of each; several
 * come where one cannot hold them.
 */
#ifndef DB_REVOCATION_H
#define DB_REVOCATION_H

#include "db/certificate.h"
#include "db/db.h"

struct db_revoke_result {
	bool changed;         /* false: it was revoked already; the first date and reason stand */
	bool key_blocked;     /* its public key is blocked from now on, also when it was revoked already */
	int64_t revoked_at_s;
	enum revocation_reason reason;
};

/*
 * Revokes one at now_s. REASON_CERTIFICATE_HOLD holds; a held one may be revoked for another reason
 * (its date stays). REASON_KEY_COMPROMISE blocks the public key for ever. Empties the device's slot
 * that held it, except for a hold. ERR_NOT_FOUND certificate_unknown; ERR_CONFLICT
 * certificate_superseded when a superseded one is to be held.
 */
MUST_USE enum status db_revocation_revoke(struct db_tx *tx, const struct db_cert_ref *ref,
	enum revocation_reason reason, int64_t now_s, struct db_revoke_result *out, struct err *err);

/*
 * Revokes many at once, in a few statements. Who revokes more than one in a transaction uses this: one
 * after the other, two such transactions could wait for each other's CRL scopes and devices.
 * ERR_NOT_FOUND certificate_unknown when one of them is; then none is revoked.
 */
struct db_revoke_item {
	struct db_cert_ref ref;
	enum revocation_reason reason;
	struct db_revoke_result result; /* out */
	bool superseded;                /* out: was to be held, but is superseded; unchanged */
};
MUST_USE enum status db_revocation_revoke_many(struct db_tx *tx, struct db_revoke_item *items,
	size_t count, int64_t now_s, struct err *err);

/* For db/reap.c: marks the CRL scopes of serials and sends NOTIFY. */
MUST_USE enum status db_revocation_mark(struct db_tx *tx, const struct db_cert_ref *refs, size_t count,
	struct err *err);

/* ERR_CONFLICT certificate_not_held. */
MUST_USE enum status db_revocation_unhold(struct db_tx *tx, const struct db_cert_ref *ref,
	struct err *err);

/*
 * Rotation's confirm, called with the successor: it becomes the device's current certificate and
 * active; the predecessor becomes superseded (or revoked with reason 4 when revoke is set). *changed
 * is false when it was confirmed before. ERR_CONFLICT not_a_successor; ERR_DENIED device_quarantined.
 * A predecessor that is held becomes revoked with reason 4: its hold cannot end in a live certificate
 * beside the new one.
 */
MUST_USE enum status db_revocation_confirm(struct db_tx *tx, const struct db_cert_ref *successor,
	bool revoke, int64_t now_s, struct db_cert_ref *predecessor, bool *changed, struct err *err);

/* Every live, held or superseded certificate of a device; up to max refs. */
MUST_USE enum status db_revocation_of_device(struct db_tx *tx, const char *device_id,
	struct db_cert_ref *out, size_t max, size_t *count, struct err *err);

#endif
