/*
 * db/revocation.h - revoke, hold, unhold, supersede; bulk revocation (invariants 5, 6, 7).
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

/* The blast radius of a selector: what is neither revoked nor expired. */
struct db_blast_radius {
	int64_t certificates, devices, stations;
	struct db_blast_line { char key[DB_ID_BYTES]; int64_t count; } by_station[50], by_profile[20];
	size_t by_station_count, by_profile_count; /* the largest first; more may exist */
};
MUST_USE enum status db_revocation_blast_radius(struct db_tx *tx,
	const struct db_certificate_filter *filter, struct db_blast_radius *out, struct err *err);

struct db_bulk {
	char revocation_id[33];
	char state[8]; /* "running" or "done" */
	char actor[DB_ID_BYTES];
	char request_id[40];
	enum revocation_reason reason;
	char comment[257];
	char selector[2048]; /* JSON as it was asked */
	int64_t matched, revoked, issued_until_s;
	struct db_certificate_cursor cursor;
	int64_t created_at_s, finished_at_s; /* 0: not finished */
	/* CRL scopes, of all issuers, that are not yet published with all in them. The full list does not
	 * count: it may go by the clock, and the delta says what is not on it. */
	int64_t crl_pending;
	/*
	 * A certificate may be recorded behind the first look's back with an earlier issued_at. So there
	 * is a second one at what was issued since again_from_s, the birth of what was under way.
	 */
	bool second_look;
	int64_t again_from_s;
};
MUST_USE enum status db_bulk_create(struct db_tx *tx, const struct db_bulk *bulk, struct err *err);
MUST_USE enum status db_bulk_find(struct db_tx *tx, const char *revocation_id, struct db_bulk *out,
	struct err *err); /* ERR_NOT_FOUND revocation_unknown */
/*
 * One running bulk, row-locked and not locked by another server; ERR_NOT_FOUND: none. One whose second
 * look is due only once all that was under way when it was asked for is recorded or given up.
 */
MUST_USE enum status db_bulk_next(struct db_tx *tx, struct db_bulk *out, struct err *err);
/* Moves the receipt on: revoked += revoked_now, the cursor, and done when finished. */
MUST_USE enum status db_bulk_advance(struct db_tx *tx, const char *revocation_id, int64_t revoked_now,
	const struct db_certificate_cursor *cursor, bool finished, struct err *err);
/* The first look is over; the second begins at its start. */
MUST_USE enum status db_bulk_look_again(struct db_tx *tx, const char *revocation_id, struct err *err);

#endif
