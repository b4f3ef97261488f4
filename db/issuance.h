/*
 * db/issuance.h - Admit and Record, the two transactions around the signature, and the reaper that
 * closes what a dead server left between them (design: the issuance pipeline; invariants 1, 4, 12, 14).
 *
 * Admit claims, for each item on its own: idempotency key, public key, device slot, manifest line and
 * quota, and station rate; then writes the intent of those admitted. A refused item leaves nothing and
 * costs the others nothing. Within one call no two items may share an idempotency key of a principal,
 * a public key, or an identity: the caller puts the later one off to the next call.
 *
 * Lock order, the same everywhere: idempotency, key_claim, device, device_slot, manifest_line,
 * manifest, station, intent, audit lane; within each by key.
 */
#ifndef DB_ISSUANCE_H
#define DB_ISSUANCE_H

#include "db/audit.h"

enum db_slot {
	SLOT_UNSET = 0,
	SLOT_MANY,      /* any number of live certificates (stations, admins, servers, services) */
	SLOT_CURRENT,   /* the device's one certificate: first issuance and rework */
	SLOT_SUCCESSOR, /* the successor beside predecessor: rotation */
};

enum db_admission {
	ADMISSION_UNSET = 0,
	ADMISSION_ADMITTED, /* the intent is written */
	ADMISSION_REPLAY,   /* answered already: existing holds the certificate */
	ADMISSION_BUSY,     /* the same key, public key or device is under way; ask again shortly */
	ADMISSION_REFUSED,  /* refusal says why */
};

struct db_admit_item {
	/* In; all pointers are borrowed for the call. */
	const char *principal_id;    /* who asks: a principal, or the device itself for SLOT_SUCCESSOR */
	const char *idempotency_key; /* NULL: none */
	uint8_t request_hash[DB_SHA256_BYTES];
	const char *identity;        /* device id, or the principal or server named in the certificate */
	const char *profile;
	enum db_slot slot;
	bool replace;                /* SLOT_CURRENT: the live one may be replaced */
	bool needs_manifest;         /* a station asks: a line, its quota and the station's rate apply */
	bool role_identity;          /* identity must be an enabled principal of role `identity_role` */
	const char *identity_role;   /* "station" or "admin"; NULL unless role_identity */
	const char *thing_type;      /* SLOT_CURRENT: written to the device */
	const char *attributes;      /* SLOT_CURRENT: canonical JSON object, written to the device */
	struct db_cert_ref predecessor; /* SLOT_SUCCESSOR: the certificate that the device showed */
	uint8_t spki_sha256[DB_SHA256_BYTES];
	struct db_cert_ref ref;      /* drawn by the signer */
	int64_t not_after_s;

	/* Out. */
	enum db_admission admission;
	struct err refusal;          /* ADMISSION_REFUSED */
	struct db_cert_ref existing; /* ADMISSION_REPLAY */
	char manifest_id[DB_ID_BYTES]; /* empty: none */
	bool manifest_charged;
	bool line_told; /* the manifest's line names ref already */
	bool fresh;     /* key and slot are new: their rows say already what Record would say */
	int64_t intent_round; /* where the intent lies */
	struct db_cert_ref replaced; /* issuer_id 0: none. Rework: the live one; rotation: an unconfirmed
	                              * successor. Record revokes it, reason 4. */
	int64_t revives_version; /* 0: none; else Record makes the decommissioned device active again */
};

/*
 * Refusals (status, code): ERR_CONFLICT idempotency_key_reused, public_key_in_use,
 * device_has_certificate; ERR_DENIED public_key_blocked, device_not_in_manifest, manifest_closed,
 * manifest_not_yet_valid, manifest_expired, replace_not_allowed, device_quarantined,
 * device_decommissioned, principal_disabled, certificate_not_current (the predecessor is not the
 * device's current one); ERR_TOO_MANY quota_exhausted, station_rate_exceeded (with retry_after_s);
 * ERR_NOT_FOUND principal_unknown.
 * A replay by idempotency key needs the same request_hash. A replay without a key needs the same
 * public key, identity, profile and slot, a live certificate (active, pending_confirmation), and the
 * same principal or an admin (no needs_manifest): another station is refused as if the key were new,
 * device_has_certificate, or public_key_in_use where there is no slot.
 * A device that is decommissioned and is issued to again by an admin, or on a manifest with
 * allow_replace and replace set, becomes active again.
 */
MUST_USE enum status db_issuance_admit(struct db_tx *tx, int32_t instance_id,
	struct db_admit_item *items, size_t count, struct err *err);

/* What was replaced, and what the slot holds besides by the time of Record. */
#define DB_ENDED_MAX 3

struct db_record_item {
	const struct db_admit_item *admitted; /* borrowed */
	struct view der;
	uint8_t sha256[DB_SHA256_BYTES];
	const char *subject;
	int64_t not_before_s;
	int64_t not_after_s;
	int64_t issued_at_s;

	/* Out. */
	struct db_cert_ref ended[DB_ENDED_MAX]; /* revoked, reason 4: what it takes the place of */
	size_t ended_count;
	bool revoked; /* itself, with this reason: what it was admitted for has ended since */
	enum revocation_reason reason;
};

/*
 * Writes certificates, closes intents, moves slots and claims, revokes what was replaced (with CRL
 * marks and NOTIFY), writes the outbox rows of devices. ERR_CONFLICT (intent_closed): the reaper was
 * faster for at least one; then nothing of the call may be released.
 */
MUST_USE enum status db_issuance_record(struct db_tx *tx, struct db_record_item *items, size_t count,
	struct err *err);

/*
 * The same for first certificates of devices that need no decision, with their audit records (at most
 * DB_FOLLOWS_MAX, each behind the one before it, the first behind the lane's head as it is remembered), in
 * one round trip. *plain false: something was to be decided, or the head is another one by now; then
 * nothing of it may be committed: db_tx_restart, db_issuance_record. outbox false: there is no IoT Core to
 * be told, and the rows would only be thrown away.
 */
#define DB_FOLLOWS_MAX 8
MUST_USE enum status db_issuance_record_plain(struct db_tx *tx, struct db_record_item *items,
	size_t count, const struct db_audit_follow *follows, size_t follow_count, bool outbox, bool *plain,
	struct err *err);

/* What an intent held, given back by the reaper. */
struct db_orphan {
	struct db_cert_ref ref;
	char identity[DB_ID_BYTES];
	char profile[DB_PROFILE_BYTES];
};

/*
 * Closes up to max intents of instances whose advisory lock is gone, or those named in refs when the
 * server itself gave up on them (refs NULL: only the dead ones', and own ones that are older than any
 * round: a COMMIT of Admit that was given up on may have come about after it was looked for). Gives the
 * claims back and lists the serials as revoked (reason 5). *count of orphans were written to out.
 */
MUST_USE enum status db_issuance_reap(struct db_tx *tx, int32_t own_instance_id,
	const struct db_cert_ref *refs, size_t ref_count, struct db_orphan *out, size_t max,
	size_t *count, struct err *err);

/*
 * Makes sure that the partition of a month exists. Own transaction; cheap when it does. Who reads or
 * issues is not shut out meanwhile; two that make partitions wait for each other.
 */
MUST_USE enum status db_issuance_ensure_month(struct db_pool *pool, int32_t month, struct err *err);

/* Makes up to max of the partitions of months first to last that are missing, the earliest first. */
MUST_USE enum status db_issuance_prepare_months(struct db_pool *pool, int32_t first, int32_t last,
	size_t max, size_t *made, struct err *err);

#endif
