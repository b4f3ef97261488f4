/* Thing groups: create, describe, list, update, delete. Who is in them: thing_group_members.c. */
#include <string.h>

#include "db/iotcore_group.h"
#include "server/iotcore/registry.h"
#include "server/iotcore/tables.h"

/* AWS's quotas. */
#define DEPTH_MOST 7
#define CHILDREN_MOST 100
#define ATTRIBUTES_MOST 50

static const struct member PROPERTY_MEMBERS[] = {
	{ .name = "thingGroupDescription", .type = MEMBER_TEXT, .most = DESCRIPTION_MOST,
		.pattern = &PATTERN_PRINTABLE },
	{ .name = "attributePayload", .type = MEMBER_STRUCT, .members = ATTRIBUTE_PAYLOAD_MEMBERS },
	{ .name = NULL },
};

static enum status
check_count(const json_t *attributes, struct err *err)
{
	size_t count = json_object_size(attributes);

	if (count <= ATTRIBUTES_MOST)
		return OK;
	return iotcore_error(err, "InvalidRequestException",
		"Attribute count %zu exceeds the limit of %d for a thing group.", count,
		ATTRIBUTES_MOST);
}

/* ---- CreateThingGroup ---- */

static enum status
reply_group(struct call *call, const char *name, const char *id, struct err *err)
{
	char arn[IOTCORE_ARN_BYTES];

	iotcore_arn(arn, call->core, "thinggroup/%s", name);
	return call_reply(call,
		json_pack("{s:s,s:s,s:s}", "thingGroupName", name, "thingGroupArn", arn,
			"thingGroupId", id),
		err);
}

struct wanted {
	const char *name;
	const char *parent; /* NULL: none */
	const char *description;
	const json_t *attributes;
};

/* AWS does not say so, but the same group again is the group that there is. */
static enum status
repeat_group(struct call *call, const struct db_group *group, const struct wanted *wanted,
	struct err *err)
{
	own(json_t) before = NULL;
	char arn[IOTCORE_ARN_BYTES];

	TRY(registry_load(&before, group->attributes, err));
	if (view_equal_text(group->description, wanted->description) &&
		strcmp(group->parent, wanted->parent != NULL ? wanted->parent : "") == 0 &&
		json_equal(before, wanted->attributes))
		return reply_group(call, group->name, group->group_id, err);
	iotcore_arn(arn, call->core, "thinggroup/%s", group->name);
	return iotcore_exists(call, err, group->group_id, arn,
		"Thing Group %s already exists in current account with different properties",
		group->name);
}

static enum status
count_level(void *arg, const char *name, struct err *err)
{
	(void)name;
	(void)err;
	++*(int *)arg;
	return OK;
}

static enum status
check_parent(struct call *call, const char *parent, struct err *err)
{
	int64_t children;
	int depth = 0;

	if (parent == NULL)
		return OK;
	TRY(db_group_path(call->tx, parent, count_level, &depth, err));
	if (depth == 0)
		return group_missing(err, parent);
	if (depth >= DEPTH_MOST)
		return iotcore_error(err, "InvalidRequestException",
			"Thing group hierarchy can not be deeper than %d levels.", DEPTH_MOST);
	TRY(db_group_child_count(call->tx, parent, &children, err));
	if (children >= CHILDREN_MOST)
		return iotcore_error(err, "InvalidRequestException",
			"Thing group %s can not have more than %d direct child groups.", parent,
			CHILDREN_MOST);
	return OK;
}

static enum status
create_group(struct call *call, struct err *err)
{
	const json_t *properties = call_json(call, "thingGroupProperties");
	const char *description =
		json_string_value(json_object_get(properties, "thingGroupDescription"));
	struct wanted wanted = { .name = call_text(call, "thingGroupName"),
		.parent = call_text(call, "parentGroupName"),
		.description = description != NULL ? description : "" };
	own_struct(db_group) group = { .rows = NULL };
	own(json_t) attributes = NULL;
	char id[DB_CORE_UUID_BYTES];
	char arn[IOTCORE_ARN_BYTES];
	bool found;

	TRY(attributes_apply(&attributes, NULL, json_object_get(properties, "attributePayload"), err));
	TRY(check_count(attributes, err));
	wanted.attributes = attributes;
	TRY(db_group_find(call->tx, wanted.name, &found, &group, err));
	if (found)
		return repeat_group(call, &group, &wanted, err);
	TRY(check_parent(call, wanted.parent, err));
	const char *text = registry_dump(call, attributes);
	if (text == NULL)
		return err_memory(err);
	TRY(db_group_create(
		call->tx, wanted.name, wanted.parent, wanted.description, text, id, err));
	iotcore_arn(arn, call->core, "thinggroup/%s", wanted.name);
	TRY(iotcore_tags_put(call, arn, call_json(call, "tags"), err));
	return reply_group(call, wanted.name, id, err);
}

/* ---- DescribeThingGroup ---- */

static json_t *
name_and_arn(const struct core *core, const char *name)
{
	char arn[IOTCORE_ARN_BYTES];

	iotcore_arn(arn, core, "thinggroup/%s", name);
	return json_pack("{s:s,s:s}", "groupName", name, "groupArn", arn);
}

struct ancestors {
	const struct core *core;
	const char *self;
	json_t *list; /* borrowed */
};

static enum status
add_ancestor(void *arg, const char *name, struct err *err)
{
	struct ancestors *ancestors = arg;

	if (strcmp(name, ancestors->self) == 0)
		return OK;
	if (json_array_append_new(ancestors->list, name_and_arn(ancestors->core, name)) != 0)
		return err_memory(err);
	return OK;
}

static enum status
render_metadata(json_t **out, struct call *call, const struct db_group *group, struct err *err)
{
	own(json_t) metadata = json_pack("{s:o}", "creationDate", iotcore_time(group->created_us));
	own(json_t) list = json_array();
	struct ancestors ancestors = { call->core, group->name, list };

	if (metadata == NULL || list == NULL)
		return err_memory(err);
	if (group->parent[0] != '\0') {
		TRY(db_group_path(call->tx, group->name, add_ancestor, &ancestors, err));
		TRY(registry_set(metadata, "parentGroupName", json_string(group->parent), err));
		TRY(registry_set(metadata, "rootToParentThingGroups", give(list), err));
	}
	*out = give(metadata);
	return OK;
}

static enum status
render_properties(json_t **out, const struct db_group *group, struct err *err)
{
	own(json_t) properties = json_object();
	own(json_t) attributes = NULL;

	if (properties == NULL)
		return err_memory(err);
	TRY(registry_set_text(properties, "thingGroupDescription", group->description, err));
	TRY(registry_load(&attributes, group->attributes, err));
	if (json_object_size(attributes) > 0)
		TRY(registry_set(properties, "attributePayload",
			json_pack("{s:O}", "attributes", attributes), err));
	*out = give(properties);
	return OK;
}

static enum status
describe_group(struct call *call, struct err *err)
{
	const char *name = call_text(call, "thingGroupName");
	own_struct(db_group) group = { .rows = NULL };
	own(json_t) properties = NULL;
	own(json_t) metadata = NULL;
	char arn[IOTCORE_ARN_BYTES];
	bool found;

	TRY(db_group_find(call->tx, name, &found, &group, err));
	if (!found)
		return group_missing(err, name);
	TRY(render_properties(&properties, &group, err));
	TRY(render_metadata(&metadata, call, &group, err));
	iotcore_arn(arn, call->core, "thinggroup/%s", name);
	return call_reply(call,
		json_pack("{s:s,s:s,s:s,s:I,s:O,s:O}", "thingGroupName", name, "thingGroupId",
			group.group_id, "thingGroupArn", arn, "version", (json_int_t)group.version,
			"thingGroupProperties", properties, "thingGroupMetadata", metadata),
		err);
}

/* ---- ListThingGroups ---- */

static enum status
add_group(void *arg, const char *name, struct err *err)
{
	struct listing *listing = arg;

	return listing_add(listing, name, name_and_arn(listing->call->core, name), err);
}

static enum status
list_groups(struct call *call, struct err *err)
{
	struct db_group_filter filter = { .parent = call_text(call, "parentGroup"),
		.prefix = call_text(call, "namePrefixFilter"),
		.recursive = call_flag(call, "recursive", true) };
	own_struct(listing) listing = { .call = call };

	if (filter.parent != NULL)
		TRY(group_wanted(call, filter.parent, err));
	TRY(listing_begin(&listing, call, err));
	TRY(db_group_list(call->tx, &filter, listing_after(&listing), listing_limit(&listing), add_group,
		&listing, err));
	return listing_end(&listing, "thingGroups", err);
}

/* ---- UpdateThingGroup, DeleteThingGroup ---- */

static enum status
update_group(struct call *call, struct err *err)
{
	const char *name = call_text(call, "thingGroupName");
	const json_t *properties = call_json(call, "thingGroupProperties");
	const char *description =
		json_string_value(json_object_get(properties, "thingGroupDescription"));
	own_struct(db_group) group = { .rows = NULL };
	own(json_t) before = NULL;
	own(json_t) attributes = NULL;
	int64_t version;
	bool found;

	TRY(db_group_find(call->tx, name, &found, &group, err));
	if (!found)
		return group_missing(err, name);
	TRY(version_wanted(call, "thing group", name, group.version, err));
	TRY(registry_load(&before, group.attributes, err));
	TRY(attributes_apply(
		&attributes, before, json_object_get(properties, "attributePayload"), err));
	TRY(check_count(attributes, err));
	const char *text = registry_dump(call, attributes);
	if (text == NULL)
		return err_memory(err);
	/* A view of PostgreSQL's ends with NUL. */
	TRY(db_group_update(call->tx, name,
		description != NULL ? description : (const char *)group.description.data, text, &version,
		err));
	return call_reply(call, json_pack("{s:I}", "version", (json_int_t)version), err);
}

static enum status
delete_group(struct call *call, struct err *err)
{
	const char *name = call_text(call, "thingGroupName");
	own_struct(db_group) group = { .rows = NULL };
	char arn[IOTCORE_ARN_BYTES];
	int64_t children;
	bool found;

	TRY(db_group_find(call->tx, name, &found, &group, err));
	if (!found)
		return OK;
	TRY(version_wanted(call, "thing group", name, group.version, err));
	TRY(db_group_child_count(call->tx, name, &children, err));
	if (children > 0)
		return iotcore_error(err, "InvalidRequestException",
			"Cannot delete thing group : %s when there are still child groups attached to it.",
			name);
	iotcore_arn(arn, call->core, "thinggroup/%s", name);
	TRY(iotcore_tags_drop(call, arn, err));
	return db_group_delete(call->tx, name, arn, err);
}

const struct op THING_GROUP_OPS[] = {
	{ .name = "CreateThingGroup",
		.method = "POST",
		.path = "/thing-groups/{thingGroupName}",
		.tx = TX_WRITE,
		.handle = create_group,
		.members = (const struct member[]){
			{ .name = "thingGroupName", .at = AT_PATH, MEMBER_THING_NAME },
			{ .name = "parentGroupName", .at = AT_BODY, MEMBER_NAME_OPTIONAL },
			{ .name = "thingGroupProperties", .at = AT_BODY, .type = MEMBER_STRUCT,
				.members = PROPERTY_MEMBERS },
			{ .name = "tags", .at = AT_BODY, MEMBER_TAGS },
			{ .name = NULL } } },
	{ .name = "DescribeThingGroup",
		.method = "GET",
		.path = "/thing-groups/{thingGroupName}",
		.tx = TX_READ,
		.handle = describe_group,
		.members = (const struct member[]){
			{ .name = "thingGroupName", .at = AT_PATH, MEMBER_THING_NAME },
			{ .name = NULL } } },
	{ .name = "ListThingGroups",
		.method = "GET",
		.path = "/thing-groups",
		.tx = TX_READ,
		.handle = list_groups,
		.page = PAGE_TOKEN,
		.members = (const struct member[]){
			{ .name = "parentGroup", .at = AT_QUERY, MEMBER_NAME_OPTIONAL },
			{ .name = "namePrefixFilter", .at = AT_QUERY, MEMBER_NAME_OPTIONAL },
			{ .name = "recursive", .at = AT_QUERY, .type = MEMBER_FLAG },
			{ .name = NULL } } },
	{ .name = "UpdateThingGroup",
		.method = "PATCH",
		.path = "/thing-groups/{thingGroupName}",
		.tx = TX_WRITE,
		.handle = update_group,
		.members = (const struct member[]){
			{ .name = "thingGroupName", .at = AT_PATH, MEMBER_THING_NAME },
			{ .name = "thingGroupProperties", .at = AT_BODY, .type = MEMBER_STRUCT,
				.required = true, .members = PROPERTY_MEMBERS },
			{ .name = "expectedVersion", .at = AT_BODY, .type = MEMBER_NUMBER },
			{ .name = NULL } } },
	{ .name = "DeleteThingGroup",
		.method = "DELETE",
		.path = "/thing-groups/{thingGroupName}",
		.tx = TX_WRITE,
		.handle = delete_group,
		.members = (const struct member[]){
			{ .name = "thingGroupName", .at = AT_PATH, MEMBER_THING_NAME },
			{ .name = "expectedVersion", .at = AT_QUERY, .type = MEMBER_NUMBER },
			{ .name = NULL } } },
	{ .name = NULL },
};
