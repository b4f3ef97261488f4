/*
 * db/outbox.h - what must reach IoT Core: a row names a device and a version, not a command (invariant
 * 9). A worker leases rows, brings IoT Core to what the device's rows say by then, and removes the row if
 * it still has the version and the lease that it was given. A row that fails waits and comes again; one
 * that cannot succeed is kept as a dead letter, with its reason, until somebody says retry.
 *
 * The key of a certificate that no device of ours has is "certificate/" and its id.
 */
#ifndef DB_OUTBOX_H
#define DB_OUTBOX_H

#include "db/db.h"

#define DB_OUTBOX_KEY_BYTES (sizeof("certificate/") + 2 * DB_SHA256_BYTES)
#define DB_OUTBOX_CODE_BYTES 48
#define DB_OUTBOX_TEXT_BYTES 2048 /* octets of 500 characters */

/*
 * The end of INSERT INTO jitrca.outbox AS o: what is there already gets the new version, the more urgent
 * of both priorities, and a new life. Versions of a device only grow, under its row's lock; the second is
 * for keys that have no device to take a version from.
 */
#define OUTBOX_AGAIN_REST                                                                          \
	" cause = EXCLUDED.cause, priority = least(o.priority, EXCLUDED.priority),"                    \
	" created_at = CASE WHEN o.failed_at IS NULL THEN o.created_at ELSE now() END,"                \
	" due_at = now(), attempts = 0, failed_at = NULL, error_code = '', error_text = ''"
#define OUTBOX_AGAIN                                                                               \
	" ON CONFLICT (device_id) DO UPDATE SET version = EXCLUDED.version," OUTBOX_AGAIN_REST
#define OUTBOX_AGAIN_UNVERSIONED                                                                   \
	" ON CONFLICT (device_id) DO UPDATE SET version = o.version + 1," OUTBOX_AGAIN_REST

enum db_outbox_priority {
	OUTBOX_TAKES = 0,  /* revocation, quarantine: takes something away */
	OUTBOX_GIVES = 1,  /* activation, release, confirmation */
	OUTBOX_UPKEEP = 2, /* issuance that IoT Core need not hear of yet, repair */
	OUTBOX_PRIORITIES = 3,
};

struct db_outbox_row {
	char key[DB_OUTBOX_KEY_BYTES]; /* a device id, or certificate/… */
	int64_t version;
	char cause[33];
	int priority;
	int64_t attempts;
	int64_t lease;
	int64_t created_at_us, due_at_us;
	int64_t failed_at_s; /* 0: alive */
	char error_code[DB_OUTBOX_CODE_BYTES];
	char error_text[DB_OUTBOX_TEXT_BYTES];
};

/*
 * Leases up to max rows that are due and that nobody has, for lease_ms: the urgent first, then the oldest.
 * least_urgent: rows of a higher priority number are left to others. One lease number for all of a call.
 * instance_id: whose the lease is, to end with its session (db/issuer.h); 0: with its time alone.
 */
MUST_USE enum status db_outbox_lease(struct db_tx *tx, int32_t instance_id, int least_urgent, size_t max,
	int64_t lease_ms, struct db_outbox_row *out, size_t *count, struct err *err);
/*
 * Lets go what is leased by instances whose session is gone: their workers are dead, or will find that they
 * are overtaken. instance_id: our own, which lives. The locks of the dead are held to the end of tx.
 */
MUST_USE enum status db_outbox_release_dead(struct db_tx *tx, int32_t instance_id, size_t *count,
	struct err *err);
/* For longer work. *held false: somebody else has the row by now, or will; leave it alone. */
MUST_USE enum status db_outbox_renew(struct db_tx *tx, const struct db_outbox_row *row,
	int64_t lease_ms, bool *held, struct err *err);
/*
 * Whether each lease still holds, with the row locked until the transaction ends: what is recorded in it is
 * then recorded by nobody else.
 */
MUST_USE enum status db_outbox_hold(struct db_tx *tx, const struct db_outbox_row *const *rows,
	size_t count, bool *held, struct err *err);
/*
 * Removes the row. If it has a newer version, it is only let go, to come again at once (*removed false).
 * A row whose lease is lost is not touched.
 */
MUST_USE enum status db_outbox_done(struct db_tx *tx, const struct db_outbox_row *row, bool *removed,
	struct err *err);
/* Removes many at once, each as above. */
MUST_USE enum status db_outbox_done_many(struct db_tx *tx, const struct db_outbox_row *const *rows,
	size_t count, struct err *err);
/* Lets them go, to be leased at once. */
MUST_USE enum status db_outbox_let_go(struct db_tx *tx, const struct db_outbox_row *const *rows,
	size_t count, struct err *err);
/* What takes something away is due now, if it is put off. */
MUST_USE enum status db_outbox_hasten(struct db_tx *tx, struct err *err);
/* Lets it go until wait_ms are over; dead: until retry. A newer version comes at once instead. */
MUST_USE enum status db_outbox_fail(struct db_tx *tx, const struct db_outbox_row *row, int64_t wait_ms,
	bool dead, const struct err *why, struct err *err);
/* Removes up to max rows: with no target nothing is wanted anywhere. */
MUST_USE enum status db_outbox_discard(struct db_tx *tx, size_t max, size_t *count, struct err *err);

/* Puts a certificate into the outbox under its own id (no device of ours has it). */
MUST_USE enum status db_outbox_put_certificate(struct db_tx *tx, const char *certificate_id,
	const char *cause, int priority, struct err *err);
/* The device's version grows by one, and the outbox names it; ERR_NOT_FOUND device_unknown. */
MUST_USE enum status db_outbox_put_device(struct db_tx *tx, const char *device_id, const char *cause,
	int priority, struct err *err);
/*
 * NOTIFY jitrca_outbox, when the transaction commits. The payload is OUTBOX_GIVES_PAYLOAD if none of the rows
 * takes something away (priority OUTBOX_GIVES or above).
 */
#define OUTBOX_GIVES_PAYLOAD "gives"
MUST_USE enum status db_outbox_notify(struct db_tx *tx, enum db_outbox_priority priority,
	struct err *err);

/* By key; failed: dead letters alone. */
MUST_USE enum status db_outbox_list(struct db_tx *tx, bool failed, const char *after, size_t limit,
	struct db_outbox_row *out, size_t *count, struct err *err);
/* Dead letters live again; key NULL: all. */
MUST_USE enum status db_outbox_retry(struct db_tx *tx, const char *key, size_t *count,
	struct err *err);
/* Whether anything of the device is still on its way. */
MUST_USE enum status db_outbox_pending(struct db_tx *tx, const char *key, bool *pending,
	struct err *err);

struct db_outbox_depth {
	int64_t waiting[OUTBOX_PRIORITIES]; /* alive, by priority */
	int64_t oldest_s[OUTBOX_PRIORITIES]; /* its age; 0: none */
	int64_t dead;
};
MUST_USE enum status db_outbox_depth(struct db_tx *tx, struct db_outbox_depth *out, struct err *err);
/* Of what takes something away, how much was there at until_s (0: now) and is there still. */
struct db_outbox_takes {
	int64_t waiting, dead;
};
MUST_USE enum status db_outbox_takes(struct db_tx *tx, int64_t until_s, struct db_outbox_takes *out,
	struct err *err);

#endif
