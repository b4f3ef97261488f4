/*
 * db/iot_missing.h - certificates that our books call ACTIVE in a target, and that a walk over all the target
 * holds did not meet. A walk marks what it meets by its time; afterwards the rows of the CA are gone through.
 */
#ifndef DB_IOT_MISSING_H
#define DB_IOT_MISSING_H

#include "db/iot.h"

/*
 * The target has shown these: none of them is missing in a walk that began before. Those in use are left
 * out.
 */
MUST_USE enum status db_iot_met(struct db_tx *tx, const char *target, const struct db_iot_id *ids,
	size_t count, int64_t walk_started_s, struct err *err);

struct db_iot_missing {
	uint8_t sha256[DB_SHA256_BYTES];
	struct serial serial;
	char device_id[DB_ID_BYTES]; /* "": of no device */
};

struct db_iot_missing_query {
	const char *target;
	int32_t issuer_id;
	int64_t walk_started_s;
	bool unannounced;           /* also those that no event ever named: we registered them */
	const struct serial *after; /* NULL: from the beginning */
};
/*
 * Goes through a bounded number of rows by serial; up to max of those that were not met. *next: where to go
 * on; *done: there are no more.
 */
MUST_USE enum status db_iot_missing_find(struct db_tx *tx, const struct db_iot_missing_query *query,
	struct db_iot_missing *out, size_t max, size_t *count, struct serial *next, bool *done,
	struct err *err);
/* It is not there any more. *changed false: it has been seen, or changed, since the walk began. */
MUST_USE enum status db_iot_missing_gone(struct db_tx *tx, const char *target,
	const struct db_iot_missing *missing, int64_t walk_started_s, bool *changed, struct err *err);
/* What was applied to the device is not to be trusted any more. */
MUST_USE enum status db_iot_device_forget(struct db_tx *tx, const char *target, const char *device_id,
	struct err *err);

#endif
