/*
 * server/iot/walk.h - looks at IoT Core as it is: the sweep (what waits to be activated, newest first down
 * to a mark: repairs the loss of any event) and the reconciliation (every certificate of our CAs against
 * our rows: drift by kind, repaired if asked). A walk is resumed where it was left; one server walks.
 */
#ifndef SERVER_IOT_WALK_H
#define SERVER_IOT_WALK_H

#include "server/iot/room.h"

void *iot_walk_main(void *thread); /* struct iot_thread */

/* Asks for a reconciliation of a target (NULL: all); one under way is begun anew. */
MUST_USE enum status iot_walk_ask(struct iot_room *room, const char *target, bool repair,
	struct err *err);

#endif
