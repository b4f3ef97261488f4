/*
 * server/iot/ensure.h - what a target must have before a device can be given its place there: policies, thing
 * types, groups. Each is made once and then known to be there.
 */
#ifndef SERVER_IOT_ENSURE_H
#define SERVER_IOT_ENSURE_H

#include "server/iot/iot_api.h"
#include "server/iot/room.h"

/* Makes policy, thing type or group unless that is known to be done. ERR_ARGUMENT iot_policy_missing. */
MUST_USE enum status iot_ensure_policy(struct iot_site *site, struct iot *iot, const char *name,
	struct err *err);
MUST_USE enum status iot_ensure_type(struct iot_site *site, struct iot *iot, const char *name,
	struct err *err);
/* With its policy attached. */
MUST_USE enum status iot_ensure_group(struct iot_site *site, struct iot *iot, const char *name,
	struct err *err);
MUST_USE enum status iot_ensure_quarantine(struct iot_site *site, struct iot *iot, struct err *err);
/* It was said not to be there after all. */
void iot_forget_ensured(struct iot_site *site);

#endif
