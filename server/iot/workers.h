/*
 * server/iot/workers.h - the threads of server/iot/room.h: those that work off the outbox, the
 * subscriptions, the sweep. Made before privileges are dropped, started once database and signer are
 * there. Not for several threads at once.
 */
#ifndef SERVER_IOT_WORKERS_H
#define SERVER_IOT_WORKERS_H

#include "server/iot/room.h"

/* Reads the targets' file (root's, perhaps). */
MUST_USE enum status iot_room_new(struct iot_room **out, struct app *app, struct err *err);
MUST_USE enum status iot_room_start(struct iot_room *room, struct err *err);
void iot_room_stop(struct iot_room *room); /* NULL is welcome, as below */
void iot_room_free(struct iot_room *room);

#endif
