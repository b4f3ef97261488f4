/*
 * db/iot_pending.h - certificates that IoT Core holds as PENDING_ACTIVATION, because an event or a list says
 * so: what is new of it is noted, and goes into the outbox. Many at once, for a fleet comes all at once.
 */
#ifndef DB_IOT_PENDING_H
#define DB_IOT_PENDING_H

#include "db/db.h"

struct db_iot_pending {
	uint8_t sha256[DB_SHA256_BYTES];
	int32_t issuer_id; /* of the CA that the event names; ours */
	int64_t at_us;     /* when it was so */
	/*
	 * Out: somebody has to look at it, and the outbox says so. False: it is known and in the outbox
	 * already, or it was said before what we know by now, and nothing is left to do.
	 */
	bool work;
};

/* No certificate twice; in any order. cause: for the outbox, whose notification is the caller's. */
MUST_USE enum status db_iot_pending(struct db_tx *tx, const char *target, struct db_iot_pending *list,
	size_t count, const char *cause, struct err *err);

#endif
