/* db/device.h - devices and their slots. */
#ifndef DB_DEVICE_H
#define DB_DEVICE_H

#include "db/certificate.h"
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
struct db_device_wanted {
	const char *device_id;
	struct db_device *out;
	bool found; /* out */
};
MUST_USE enum status db_device_find_many(struct db_tx *tx, struct db_device_wanted *list, size_t count,
	struct err *err);
/* By device_id; status and thing_type may be NULL. */
MUST_USE enum status db_device_list(struct db_tx *tx, const char *status, const char *thing_type,
	const char *after, size_t limit, struct db_device *out, size_t *count, struct err *err);

/* So long before the end of a certificate of this profile its rotation window is over. */
struct db_late_rule {
	const char *profile;
	int64_t overlap_s;
};
/*
 * Devices that are late (invariant 13): the certificate is past the end of its window and lives, and no
 * successor was confirmed; or it has ended, and an unconfirmed successor lives. In order of its end: who
 * is the latest comes first. *next is set when more may follow.
 */
MUST_USE enum status db_device_list_late(struct db_tx *tx, const struct db_late_rule *rules,
	size_t rule_count, int64_t now_s, const struct db_certificate_cursor *cursor, size_t limit,
	struct db_device *out, size_t *count, struct db_certificate_cursor *next, struct err *err);

/*
 * Moves a device to a status (version + 1, outbox row). From active to quarantined and back, from any
 * to decommissioned. *changed false: it is there already. ERR_CONFLICT device_decommissioned.
 */
MUST_USE enum status db_device_set_status(struct db_tx *tx, const char *device_id, const char *status,
	const char *reason, bool *changed, struct err *err);

#endif
