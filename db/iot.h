/*
 * db/iot.h - IoT Core as it last showed itself: our CAs, certificates and devices in each target, the
 * shared buckets of its quotas, and how far the walks over it have come. A target is one account and
 * Region, or one local IoT Core, by the name that the configuration gives it.
 */
#ifndef DB_IOT_H
#define DB_IOT_H

#include "db/db.h"

#define DB_TARGET_BYTES 33
#define DB_IOT_STATUS_BYTES 20 /* "PENDING_ACTIVATION" */
#define DB_IOT_ID_BYTES 65     /* 64 hex digits */
#define DB_IOT_POLICY_BYTES 129
#define DB_IOT_GROUPS_BYTES 2600 /* 20 names; AWS lets a thing be in ten */

/* ---- certificates ---- */

/* A certificate in one target, beside what our own row says of it. */
struct db_iot_certificate {
	uint8_t sha256[DB_SHA256_BYTES];
	char seen[DB_IOT_STATUS_BYTES]; /* the target's status; "": it never saw it */
	int64_t event_at_us;            /* the latest event; 0: none */
	struct db_cert_ref ref;         /* issuer_id 0: none of ours */
	enum cert_status status;        /* ours, as stored; CERT_UNSET: none of ours */
	int64_t not_after_s;
	char profile[DB_PROFILE_BYTES];
	char device_id[DB_ID_BYTES];    /* "": of no device */
	bool under_way;                 /* a call was announced whose outcome is not on record */
	bool in_slot;                   /* the device's current certificate or its successor */
};

/* A device in one target. */
struct db_iot_device {
	const char *device_id;
	char state[16]; /* what was applied last: "active", "quarantined", "absent"; "": nothing ever was */
	char given[DB_IOT_GROUPS_BYTES]; /* the thing groups that it was put into, one a line */
	struct db_iot_certificate *certificates; /* room of the caller's */
	size_t count;
};
/*
 * Of these devices: all that the target has seen and that is not settled for good (revoked on both sides,
 * or gone there), and what is in their slots; up to max of each: what is in the slots first, then what is
 * ACTIVE there.
 */
MUST_USE enum status db_iot_devices_read(struct db_tx *tx, const char *target,
	struct db_iot_device *list, size_t count, size_t max, struct err *err);
/* One, whosever it is; *found false: neither we nor the target know it. */
MUST_USE enum status db_iot_certificate_find(struct db_tx *tx, const char *target,
	const uint8_t sha256[DB_SHA256_BYTES], struct db_iot_certificate *out, bool *found,
	struct err *err);

/*
 * What the target answered, of each certificate once; that settles what was announced. asked_us: 0, or
 * when it was asked in passing (a list): what was recorded since is newer and stays, and nothing is
 * settled.
 */
struct db_iot_record {
	const struct db_iot_certificate *certificate;
	const char *status;
	int64_t latency_us; /* out: from the latest event until now; 0: there was none */
};
MUST_USE enum status db_iot_certificates_record(struct db_tx *tx, const char *target,
	struct db_iot_record *list, size_t count, int64_t asked_us, struct err *err);
/* Before a call that changes it: until its outcome is recorded, what was seen is not to be trusted. */
MUST_USE enum status db_iot_certificate_announce(struct db_tx *tx, const char *target,
	const struct db_iot_certificate *certificate, struct err *err);

struct db_iot_view {
	char target[DB_TARGET_BYTES];
	char status[DB_IOT_STATUS_BYTES];
	int64_t observed_at_s;
};
/* By target. */
MUST_USE enum status db_iot_certificate_views(struct db_tx *tx, const uint8_t sha256[DB_SHA256_BYTES],
	struct db_iot_view *out, size_t max, size_t *count, struct err *err);

struct db_iot_id {
	uint8_t sha256[DB_SHA256_BYTES];
};
/* Whether every one of these is ACTIVE in every one of these targets. */
MUST_USE enum status db_iot_certificates_active(struct db_tx *tx, const char *const *targets,
	size_t target_count, const struct db_iot_id *ids, size_t count, bool *active,
	struct err *err);

/* ---- devices ---- */

/* What was applied, of each device once. An older version never overwrites a newer one. */
struct db_iot_applied {
	const char *device_id;
	int64_t version;
	const char *state;
};
MUST_USE enum status db_iot_devices_record(struct db_tx *tx, const char *target,
	const struct db_iot_applied *list, size_t count, struct err *err);
/* Before a call that puts its thing into these groups. */
MUST_USE enum status db_iot_groups_give(struct db_tx *tx, const char *target, const char *device_id,
	const char *const *names, size_t count, struct err *err);
/* After the calls that took it out of all that it was given but these. */
MUST_USE enum status db_iot_groups_keep(struct db_tx *tx, const char *target, const char *device_id,
	const char *const *names, size_t count, struct err *err);
/* Whether any thing was given any. */
MUST_USE enum status db_iot_groups_any(struct db_tx *tx, const char *target, bool *any, struct err *err);
/*
 * Of these devices, those that no target has seen and that need not be registered beforehand: idle[i] is
 * set. preregister: profile names.
 */
MUST_USE enum status db_iot_devices_idle(struct db_tx *tx, const char *const *device_ids, size_t count,
	const char *const *targets, size_t target_count, const char *const *preregister,
	size_t preregister_count, bool *idle, struct err *err);

/* ---- our CAs ---- */

struct db_iot_ca {
	char target[DB_TARGET_BYTES];
	int32_t issuer_id;
	char account[13];
	char region[64];
	char ca_certificate_id[DB_IOT_ID_BYTES];
	char mode[9];    /* DEFAULT, SNI_ONLY */
	char status[9];  /* ACTIVE, INACTIVE, DELETED */
	bool auto_registration;
	int64_t registered_at_s, observed_at_s;
};
MUST_USE enum status db_iot_ca_put(struct db_tx *tx, const struct db_iot_ca *ca, struct err *err);
/* ERR_NOT_FOUND iot_ca_not_registered */
MUST_USE enum status db_iot_ca_find(struct db_tx *tx, const char *target, int32_t issuer_id,
	struct db_iot_ca *out, struct err *err);
MUST_USE enum status db_iot_ca_list(struct db_tx *tx, struct db_iot_ca *out, size_t max, size_t *count,
	struct err *err);

/* ---- who serves which target ---- */

/* So long after the last server that had it, a target is remembered as one that is to be served. */
#define DB_IOT_SERVED_DAYS 7
#define DB_IOT_ELSEWHERE_BYTES 272 /* eight names */
/*
 * Says that a server of these targets lives. elsewhere: the targets, by name, that other servers of this
 * database have and that are not among them; "": none, so that what is done here is all that is wanted.
 */
MUST_USE enum status db_iot_targets_serve(struct db_tx *tx, const char *const *targets, size_t count,
	char elsewhere[DB_IOT_ELSEWHERE_BYTES], struct err *err);

/* ---- quotas ---- */

/*
 * Takes want tokens of a bucket that refills at per_second up to burst, if it holds at least one: what it
 * lends is paid back before it gives again. *got 0: *wait_ms says when one will be there.
 */
MUST_USE enum status db_iot_quota_take(struct db_tx *tx, const char *target, const char *operation,
	double per_second, double burst, int64_t want, int64_t *got, int64_t *wait_ms, struct err *err);
/*
 * After a take that got nothing: one token in advance, if it is there within most_ms (*taken); it counts from
 * *wait_ms on, and nobody gets one that comes before.
 */
MUST_USE enum status db_iot_quota_reserve(struct db_tx *tx, const char *target, const char *operation,
	double per_second, double burst, int64_t most_ms, bool *taken, int64_t *wait_ms,
	struct err *err);

/* ---- walks ---- */

struct db_iot_walk {
	char target[DB_TARGET_BYTES];
	int32_t issuer_id;
	char kind[12];      /* sweep, reconcile */
	char cursor[2049];  /* of IoT Core's; "": at the beginning */
	int64_t mark_s;     /* sweep: what is older has been seen; 0: nothing has */
	bool repair;
	int64_t seen;
	char drift[2048];   /* JSON: count by kind, of which there are 30 of up to 42 octets */
	int64_t started_at_s, finished_at_s; /* 0: not */
	int64_t asked;      /* how often it was asked for */
};
/* *found false: there was none yet. */
MUST_USE enum status db_iot_walk_find(struct db_tx *tx, const char *target, int32_t issuer_id,
	const char *kind, struct db_iot_walk *out, bool *found, struct err *err);
/* *kept false: it was asked for since walk was read, begins anew, and is left as it is. */
MUST_USE enum status db_iot_walk_put(struct db_tx *tx, const struct db_iot_walk *walk, bool *kept,
	struct err *err);
/* Begins it anew, whatever is under way. */
MUST_USE enum status db_iot_walk_ask(struct db_tx *tx, const char *target, int32_t issuer_id,
	const char *kind, bool repair, int64_t now_s, struct err *err);

/*
 * A lock that one connection holds for as long as it lives, for what must happen on one server only and
 * lasts longer than a transaction (the MQTT consumer). tx stays open as long. *held false: another has it.
 */
MUST_USE enum status db_iot_lead(struct db_tx *tx, const char *what, bool *held, struct err *err);

#endif
