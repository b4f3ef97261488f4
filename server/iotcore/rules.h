/* server/iotcore/rules.h - what the operations on topic rules and on their destinations share. */
#ifndef SERVER_IOTCORE_RULES_H
#define SERVER_IOTCORE_RULES_H

#include "db/iotcore_rule.h"
#include "server/iotcore/op.h"

#define RULE_URL_MOST 2000

/* InvalidRequestException when rules must not send to url; member is what it stands in. */
MUST_USE enum status rule_check_url(struct call *call, const char *member, const char *url,
	struct err *err);
/* Makes one that awaits its confirmation. id: of the new one. */
MUST_USE enum status rule_destination_create(struct call *call, const char *url,
	char id[DB_CORE_UUID_BYTES], struct err *err);

#endif
