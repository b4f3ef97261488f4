/* server/iotcore/tables.h - the tables of operations, one for each file of handlers. */
#ifndef SERVER_IOTCORE_TABLES_H
#define SERVER_IOTCORE_TABLES_H

#include "server/iotcore/op.h"

extern const struct op ENDPOINT_OPS[]; /* DescribeEndpoint */
extern const struct op CA_CERTIFICATE_OPS[];
extern const struct op CERTIFICATE_OPS[];
extern const struct op POLICY_OPS[];
extern const struct op AUTHORIZATION_OPS[]; /* TestAuthorization, GetEffectivePolicies */
extern const struct op THING_OPS[];
extern const struct op THING_TYPE_OPS[];
extern const struct op THING_GROUP_OPS[];
extern const struct op THING_GROUP_MEMBER_OPS[];
extern const struct op PRINCIPAL_OPS[]; /* of things */
extern const struct op TAG_OPS[];
extern const struct op EVENT_CONFIGURATION_OPS[];
extern const struct op SECURITY_PROFILE_OPS[];
extern const struct op SECURITY_PROFILE_TARGET_OPS[];
extern const struct op VIOLATION_OPS[];
extern const struct op TOPIC_RULE_OPS[];
extern const struct op RULE_DESTINATION_OPS[];

#endif
