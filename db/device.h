/* db/device.h - devices and their slots. */
#ifndef DB_DEVICE_H
#define DB_DEVICE_H

#include "db/db.h"

struct db_device {
	char device_id[DB_ID_BYTES];
	char status[16]; /* active, quarantined, decommissioned */
	char thing_type[129];
	char attributes[4096]; /* JSON object of strings */
	char reason[257];
	int64_t version, created_at_s, updated_at_s;
	struct db_cert_ref current, successor; /* issuer_id 0: none */
};

MUST_USE enum status db_device_find(struct db_tx *tx, const char *device_id, struct db_device *out,
	struct err *err); /* ERR_NOT_FOUND device_unknown */
/* By device_id; status and thing_type may be NULL. */
MUST_USE enum status db_device_list(struct db_tx *tx, const char *status, const char *thing_type,
	const char *after, size_t limit, struct db_device *out, size_t *count, struct err *err);
/*
 * Moves a device to a status (version + 1, outbox row). From active to quarantined and back, from any
 * to decommissioned. *changed false: it is there already. ERR_CONFLICT device_decommissioned.
 */
MUST_USE enum status db_device_set_status(struct db_tx *tx, const char *device_id, const char *status,
	const char *reason, bool *changed, struct err *err);

#endif
