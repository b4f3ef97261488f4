/* Thing types: create, describe, list, deprecate, delete. */
#include <string.h>

#include "server/iotcore/registry.h"
#include "server/iotcore/tables.h"

/* AWS: a thing type may be deleted this long after it was deprecated, for caches that still hold it. */
#define DELETE_DELAY_S 300
#define SEARCHABLE_MOST 3

static const struct member SEARCHABLE_MEMBERS[] = {
	{ .name = "member", .type = MEMBER_TEXT, .most = 128, .pattern = &PATTERN_ATTRIBUTE_NAME },
	{ .name = NULL },
};
static const struct member PROPERTY_MEMBERS[] = {
	{ .name = "thingTypeDescription", .type = MEMBER_TEXT, .most = DESCRIPTION_MOST,
		.pattern = &PATTERN_PRINTABLE },
	{ .name = "searchableAttributes", .type = MEMBER_LIST, .most = SEARCHABLE_MOST,
		.members = SEARCHABLE_MEMBERS },
	{ .name = NULL },
};

/* ---- CreateThingType ---- */

/* One a line: no name can hold a line feed. */
static enum status
join_searchable(struct buf *out, const json_t *names, struct err *err)
{
	size_t i;
	json_t *name;

	json_array_foreach(names, i, name)
	{
		if (i > 0)
			TRY(buf_add(out, "\n", 1, err));
		TRY(buf_text(out, json_string_value(name), err));
	}
	return buf_add(out, "", 1, err);
}

static enum status
reply_type(struct call *call, const char *name, const char *id, struct err *err)
{
	char arn[IOTCORE_ARN_BYTES];

	iotcore_arn(arn, call->core, "thingtype/%s", name);
	return call_reply(call,
		json_pack("{s:s,s:s,s:s}", "thingTypeName", name, "thingTypeArn", arn, "thingTypeId", id),
		err);
}

static enum status
repeat_type(struct call *call, const struct db_thing_type *type, const char *description,
	const char *searchable, struct err *err)
{
	char arn[IOTCORE_ARN_BYTES];

	if (view_equal_text(type->description, description) &&
		view_equal_text(type->searchable, searchable))
		return reply_type(call, type->name, type->thing_type_id, err);
	iotcore_arn(arn, call->core, "thingtype/%s", type->name);
	return iotcore_exists(call, err, type->thing_type_id, arn,
		"Thing Type %s already exists in current account with different properties", type->name);
}

static enum status
create_type(struct call *call, struct err *err)
{
	const char *name = call_text(call, "thingTypeName");
	const json_t *properties = call_json(call, "thingTypeProperties");
	const char *description =
		json_string_value(json_object_get(properties, "thingTypeDescription"));
	own_struct(buf) searchable = { .limit_bytes = 1024 };
	own_struct(db_thing_type) type = { .rows = NULL };
	char id[DB_CORE_UUID_BYTES];
	char arn[IOTCORE_ARN_BYTES];
	bool found;

	if (description == NULL)
		description = "";
	TRY(join_searchable(&searchable, json_object_get(properties, "searchableAttributes"), err));
	TRY(db_thing_type_find(call->tx, name, &found, &type, err));
	if (found)
		return repeat_type(call, &type, description, (const char *)searchable.data, err);
	TRY(db_thing_type_create(call->tx, name, description, (const char *)searchable.data, id, err));
	iotcore_arn(arn, call->core, "thingtype/%s", name);
	TRY(iotcore_tags_put(call, arn, call_json(call, "tags"), err));
	return reply_type(call, name, id, err);
}

/* ---- DescribeThingType, ListThingTypes ---- */

static enum status
add_searchable(json_t *properties, struct view names, struct err *err)
{
	own(json_t) list = json_array();
	const char *at = (const char *)names.data;
	const char *end = at + names.len;

	while (names.len > 0 && at < end) {
		const char *stop = memchr(at, '\n', (size_t)(end - at));

		if (stop == NULL)
			stop = end;
		if (json_array_append_new(list, json_stringn(at, (size_t)(stop - at))) != 0)
			return err_memory(err);
		at = stop + 1;
	}
	return registry_set(properties, "searchableAttributes", give(list), err);
}

/* {name, arn, properties, metadata}: of an answer and of a list's item alike. */
static enum status
render_type(json_t **out, struct call *call, const struct db_thing_type *type, struct err *err)
{
	own(json_t) properties = json_object();
	char arn[IOTCORE_ARN_BYTES];

	TRY(registry_set_text(properties, "thingTypeDescription", type->description, err));
	TRY(add_searchable(properties, type->searchable, err));
	iotcore_arn(arn, call->core, "thingtype/%s", type->name);
	*out = json_pack("{s:s,s:s,s:O,s:{s:b,s:o*,s:o}}", "thingTypeName", type->name,
		"thingTypeArn", arn, "thingTypeProperties", properties, "thingTypeMetadata",
		"deprecated", type->deprecated_us != 0, "deprecationDate",
		type->deprecated_us != 0 ? iotcore_time(type->deprecated_us) : NULL, "creationDate",
		iotcore_time(type->created_us));
	return *out != NULL ? OK : err_memory(err);
}

static enum status
describe_type(struct call *call, struct err *err)
{
	const char *name = call_text(call, "thingTypeName");
	own_struct(db_thing_type) type = { .rows = NULL };
	own(json_t) answer = NULL;
	bool found;

	TRY(db_thing_type_find(call->tx, name, &found, &type, err));
	if (!found)
		return thing_type_missing(err, name);
	TRY(render_type(&answer, call, &type, err));
	TRY(registry_set(answer, "thingTypeId", json_string(type.thing_type_id), err));
	return call_reply(call, give(answer), err);
}

static enum status
add_type(void *arg, const struct db_thing_type *type, struct err *err)
{
	struct listing *listing = arg;
	json_t *item;

	TRY(render_type(&item, listing->call, type, err));
	return listing_add(listing, type->name, item, err);
}

static enum status
list_types(struct call *call, struct err *err)
{
	own_struct(listing) listing = { .call = call };

	TRY(listing_begin(&listing, call, err));
	TRY(db_thing_type_list(call->tx, call_text(call, "thingTypeName"), listing_after(&listing),
		listing_limit(&listing), add_type, &listing, err));
	return listing_end(&listing, "thingTypes", err);
}

/* ---- DeprecateThingType, DeleteThingType ---- */

static enum status
deprecate_type(struct call *call, struct err *err)
{
	const char *name = call_text(call, "thingTypeName");
	bool undo = call_flag(call, "undoDeprecate", false);
	own_struct(db_thing_type) type = { .rows = NULL };
	bool found;

	TRY(db_thing_type_find(call->tx, name, &found, &type, err));
	if (!found)
		return thing_type_missing(err, name);
	/* Again: the five minutes count from the first time. */
	if (!undo && type.deprecated_us != 0)
		return OK;
	return db_thing_type_deprecate(call->tx, name, undo ? 0 : call->now_s, err);
}

static enum status
delete_type(struct call *call, struct err *err)
{
	const char *name = call_text(call, "thingTypeName");
	own_struct(db_thing_type) type = { .rows = NULL };
	char arn[IOTCORE_ARN_BYTES];
	bool found, used;

	TRY(db_thing_type_find(call->tx, name, &found, &type, err));
	if (!found)
		return thing_type_missing(err, name);
	if (type.deprecated_us == 0)
		return iotcore_error(err, "InvalidRequestException",
			"Cannot delete thing type : %s. Deprecate it first and then retry", name);
	if (type.deprecated_us / 1000000 > call->now_s - DELETE_DELAY_S)
		return iotcore_error(err, "InvalidRequestException",
			"Cannot delete thing type : %s. Please wait for 5 minutes after deprecation and "
			"then retry",
			name);
	TRY(db_thing_type_used(call->tx, name, &used, err));
	if (used)
		return iotcore_error(err, "InvalidRequestException",
			"Cannot delete thing type : %s. There are still things associated with it", name);
	iotcore_arn(arn, call->core, "thingtype/%s", name);
	TRY(iotcore_tags_drop(call, arn, err));
	return db_thing_type_delete(call->tx, name, err);
}

const struct op THING_TYPE_OPS[] = {
	{ .name = "CreateThingType",
		.method = "POST",
		.path = "/thing-types/{thingTypeName}",
		.tx = TX_WRITE,
		.handle = create_type,
		.members = (const struct member[]){
			{ .name = "thingTypeName", .at = AT_PATH, MEMBER_THING_NAME },
			{ .name = "thingTypeProperties", .at = AT_BODY, .type = MEMBER_STRUCT,
				.members = PROPERTY_MEMBERS },
			{ .name = "tags", .at = AT_BODY, MEMBER_TAGS },
			{ .name = NULL } } },
	{ .name = "DescribeThingType",
		.method = "GET",
		.path = "/thing-types/{thingTypeName}",
		.tx = TX_READ,
		.handle = describe_type,
		.members = (const struct member[]){
			{ .name = "thingTypeName", .at = AT_PATH, MEMBER_THING_NAME },
			{ .name = NULL } } },
	{ .name = "ListThingTypes",
		.method = "GET",
		.path = "/thing-types",
		.tx = TX_READ,
		.handle = list_types,
		.page = PAGE_TOKEN,
		.members = (const struct member[]){
			{ .name = "thingTypeName", .at = AT_QUERY, MEMBER_NAME_OPTIONAL },
			{ .name = NULL } } },
	{ .name = "DeprecateThingType",
		.method = "POST",
		.path = "/thing-types/{thingTypeName}/deprecate",
		.tx = TX_WRITE,
		.handle = deprecate_type,
		.members = (const struct member[]){
			{ .name = "thingTypeName", .at = AT_PATH, MEMBER_THING_NAME },
			{ .name = "undoDeprecate", .at = AT_BODY, .type = MEMBER_FLAG },
			{ .name = NULL } } },
	{ .name = "DeleteThingType",
		.method = "DELETE",
		.path = "/thing-types/{thingTypeName}",
		.tx = TX_WRITE,
		.handle = delete_type,
		.members = (const struct member[]){
			{ .name = "thingTypeName", .at = AT_PATH, MEMBER_THING_NAME },
			{ .name = NULL } } },
	{ .name = NULL },
};
