/*
 * server/iot/groups.h - the thing groups that profiles name, and those that a thing was given before: what
 * profiles do not name any more is left again. Groups that others put a thing into are not looked at.
 */
#ifndef SERVER_IOT_GROUPS_H
#define SERVER_IOT_GROUPS_H

#include "server/app.h"
#include "server/iot/plan.h"

struct iot_groups {
	const char *at[IOT_PLAN_CERTIFICATES_MAX * 4]; /* the profiles' */
	size_t count;
};

/* Of a device's live certificates' profiles, or of all that it has had. */
void iot_groups_of(struct iot_groups *out, const struct app *app,
	const struct db_iot_certificate *certificates, size_t count, bool live);
bool iot_groups_hold(const struct iot_groups *groups, const char *name);
/* The next of those that were given (db_iot_device.given); moves *given. False: there is none. */
bool iot_groups_next(const char **given, char name[IOT_NAME_BYTES]);
/* Whether one was given that is not wanted. */
bool iot_groups_left_over(const struct iot_groups *wanted, const char *given);

#endif
