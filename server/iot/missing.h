/*
 * server/iot/missing.h - the end of a reconciliation: what our books call ACTIVE and the lists did not show
 * is asked for by its id. What is not there counts as drift `deleted_there`; with repair its row becomes
 * DELETED and its device goes to the outbox, which registers it where the profile wants that beforehand.
 */
#ifndef SERVER_IOT_MISSING_H
#define SERVER_IOT_MISSING_H

#include "server/iot/room.h"

/* Whether the walk has come so far that lists are behind it. */
bool iot_missing_begun(const struct db_iot_walk *walk);
void iot_missing_begin(struct db_iot_walk *walk);
/* A portion; *done: the walk is finished. Kept in walk and in the database. */
MUST_USE enum status iot_missing_step(struct iot_site *site, const struct db_iot_ca *ca,
	struct db_iot_walk *walk, bool *done, struct err *err);

#endif
