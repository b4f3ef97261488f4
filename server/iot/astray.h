/*
 * server/iot/astray.h - a part of the reconciliation: things that are not in the groups that the profiles of
 * their certificates name, or still in one that they named once. IoT Core lists no memberships along with
 * certificates, so each thing is a call; where no profile names a group, nothing is asked. What a thing was
 * given is in our own database.
 */
#ifndef SERVER_IOT_ASTRAY_H
#define SERVER_IOT_ASTRAY_H

#include "server/iot/room.h"

enum iot_astray {
	IOT_ASTRAY_NOT = 0,
	IOT_ASTRAY_MISSING,   /* a group, or the thing */
	IOT_ASTRAY_LEFT_OVER, /* a group that no profile of its names any more */
};
/* "thing_group_missing" … */
const char *iot_astray_kind(enum iot_astray astray);

/* Whether any profile names groups: then a walk's pages are small, for the calls that they lead to. */
bool iot_astray_asks(const struct app *app);

/*
 * astray[i]: of the active device of the certificate items[i], which is live and ACTIVE there.
 */
MUST_USE enum status iot_astray_find(struct iot_site *site, const struct iot_certificate *items,
	size_t count, enum iot_astray *astray, struct err *err);

/* The worker applies all of it again, or leaves what is left over. */
MUST_USE enum status iot_astray_repair(struct iot_site *site, struct db_tx *tx, const char *device_id,
	enum iot_astray astray, struct err *err);

#endif
