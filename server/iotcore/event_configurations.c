/* Which registry events are published: DescribeEventConfigurations, UpdateEventConfigurations. */
#include <string.h>

#include "db/iotcore_tag.h"
#include "server/iotcore/registry.h"
#include "server/iotcore/tables.h"

static const char *const EVENT_TYPES[] = { "THING", "THING_GROUP", "THING_TYPE",
	"THING_GROUP_MEMBERSHIP", "THING_GROUP_HIERARCHY", "THING_TYPE_ASSOCIATION", "JOB",
	"JOB_EXECUTION", "POLICY", "CERTIFICATE", "CA_CERTIFICATE", NULL };

struct configurations {
	json_t *map; /* borrowed */
	int64_t modified_us;
};

static enum status
add_configuration(void *arg, const char *event_type, bool enabled, int64_t modified_us,
	struct err *err)
{
	struct configurations *all = arg;

	if (modified_us > all->modified_us)
		all->modified_us = modified_us;
	return registry_set(all->map, event_type, json_pack("{s:b}", "Enabled", (int)enabled), err);
}

static enum status
describe_configurations(struct call *call, struct err *err)
{
	own(json_t) map = json_object();
	struct configurations all = { map, 0 };

	/* What nobody has set is off. */
	for (const char *const *type = EVENT_TYPES; *type != NULL; type++)
		TRY(add_configuration(&all, *type, false, 0, err));
	TRY(db_event_configuration_list(call->tx, add_configuration, &all, err));
	return call_reply(call,
		json_pack("{s:O,s:o*}", "eventConfigurations", map, "lastModifiedDate",
			all.modified_us > 0 ? iotcore_time(all.modified_us) : NULL),
		err);
}

static enum status
update_configurations(struct call *call, struct err *err)
{
	json_t *map = call_json(call, "eventConfigurations");
	const char *type;
	json_t *configuration;

	json_object_foreach(map, type, configuration)
	{
		/* Absent: off, as in AWS, where the member is a plain boolean. */
		bool enabled = json_is_true(json_object_get(configuration, "Enabled"));

		TRY(db_event_configuration_set(call->tx, type, enabled, err));
	}
	return OK;
}

static const struct member CONFIGURATION_FIELDS[] = {
	{ .name = "Enabled", .type = MEMBER_FLAG },
	{ .name = NULL },
};
static const struct member CONFIGURATION_MEMBERS[] = {
	{ .name = "key", .type = MEMBER_TEXT, .values = EVENT_TYPES },
	{ .name = "value", .type = MEMBER_STRUCT, .members = CONFIGURATION_FIELDS },
	{ .name = NULL },
};

const struct op EVENT_CONFIGURATION_OPS[] = {
	{ .name = "DescribeEventConfigurations",
		.method = "GET",
		.path = "/event-configurations",
		.tx = TX_READ,
		.handle = describe_configurations },
	{ .name = "UpdateEventConfigurations",
		.method = "PATCH",
		.path = "/event-configurations",
		.tx = TX_WRITE,
		.handle = update_configurations,
		.members = (const struct member[]){
			{ .name = "eventConfigurations", .at = AT_BODY, .type = MEMBER_MAP,
				.members = CONFIGURATION_MEMBERS },
			{ .name = NULL } } },
	{ .name = NULL },
};
