/*
 * server/iot/outbox.h - works off the outbox (invariant 9): leases rows, computes what is wanted from the
 * rows as they are, applies the difference in each target, records what it read back.
 */
#ifndef SERVER_IOT_OUTBOX_H
#define SERVER_IOT_OUTBOX_H

#include "server/iot/room.h"

/* One round of a worker, for at most max (IOT_BATCH) rows; *found: rows it saw to. */
MUST_USE enum status iot_outbox_round(struct iot_room *room, int least_urgent, size_t max,
	size_t *found, struct err *err);
/* With no target: removes what is there. */
MUST_USE enum status iot_outbox_discard(struct iot_room *room, size_t *found, struct err *err);

#endif
