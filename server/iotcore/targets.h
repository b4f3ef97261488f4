/* server/iotcore/targets.h - what policies are attached to: certificates and thing groups, by their ARNs. */
#ifndef SERVER_IOTCORE_TARGETS_H
#define SERVER_IOTCORE_TARGETS_H

#include "db/iotcore_policy.h"
#include "server/iotcore/op.h"

/*
 * "cert/<id>" or "thinggroup/<name>" of an ARN of this account and region. InvalidRequestException else:
 * Cognito identities, which AWS has besides, are not known here.
 */
MUST_USE enum status target_read(const struct call *call, const char *arn,
	char out[DB_IOTCORE_TARGET_BYTES], struct err *err);
/* ResourceNotFoundException; of target_wanted when there is no such certificate or group. */
enum status target_missing(const char *target, struct err *err);
MUST_USE enum status target_wanted(struct call *call, const char *target, struct err *err);

#endif
