/*
 * server/iot/astray.h - a part of the reconciliation: things that are not in the groups that the profiles of
 * their certificates name. IoT Core lists no memberships along with certificates, so each thing is a call;
 * where no profile names a group, nothing is asked.
 */
#ifndef SERVER_IOT_ASTRAY_H
#define SERVER_IOT_ASTRAY_H

#include "server/iot/room.h"

/* Whether any profile names groups: then a walk's pages are small, for the calls that they lead to. */
bool iot_astray_asks(const struct app *app);

/*
 * astray[i]: the active device of the certificate items[i], which is live and ACTIVE there, has a thing that
 * lacks a group, or none.
 */
MUST_USE enum status iot_astray_find(struct iot_site *site, const struct iot_certificate *items,
	size_t count, bool *astray, struct err *err);

/* The worker finds nothing applied, and applies all of it again. */
MUST_USE enum status iot_astray_repair(struct iot_site *site, struct db_tx *tx, const char *device_id,
	struct err *err);

#endif
