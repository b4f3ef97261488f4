#include "server/iotcore/targets.h"

#include <stdio.h>
#include <string.h>

enum status
target_read(const struct call *call, const char *arn, char out[DB_IOTCORE_TARGET_BYTES],
	struct err *err)
{
	const char *id = iotcore_arn_resource(call->core, arn, "cert/");
	const char *group = iotcore_arn_resource(call->core, arn, "thinggroup/");

	if (id != NULL && strlen(id) == 64 && PATTERN_HEX_ID.holds(id, 64)) {
		(void)snprintf(out, DB_IOTCORE_TARGET_BYTES, "cert/%s", id);
		return OK;
	}
	if (group != NULL && strlen(group) <= 128 &&
		PATTERN_THING_NAME.holds(group, strlen(group))) {
		(void)snprintf(out, DB_IOTCORE_TARGET_BYTES, "thinggroup/%s", group);
		return OK;
	}
	return iotcore_error(err, "InvalidRequestException",
		"Invalid target: the ARN of a certificate or a thing group of this account and "
		"region is required.");
}

enum status
target_missing(const char *target, struct err *err)
{
	return iotcore_error(err, "ResourceNotFoundException", "The target does not exist: %s",
		target);
}

enum status
target_wanted(struct call *call, const char *target, struct err *err)
{
	bool exists;

	TRY(db_iotcore_target_exists(call->tx, target, &exists, err));
	return exists ? OK : target_missing(target, err);
}
