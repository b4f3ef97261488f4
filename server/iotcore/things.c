/* Things: CreateThing, DescribeThing, UpdateThing, DeleteThing, ListThings. */
#include <string.h>

#include "server/iotcore/registry.h"
#include "server/iotcore/tables.h"

/* AWS's quotas: a thing type buys room for more attributes. */
#define ATTRIBUTES_WITHOUT_TYPE 3
#define ATTRIBUTES_WITH_TYPE 50

static enum status
check_count(const json_t *attributes, const char *type, struct err *err)
{
	size_t count = json_object_size(attributes);
	size_t most = type != NULL ? ATTRIBUTES_WITH_TYPE : ATTRIBUTES_WITHOUT_TYPE;

	if (count <= most)
		return OK;
	return iotcore_error(err, "InvalidRequestException",
		"Attribute count %zu exceeds the limit of %zu for a thing %s a thing type.", count, most,
		type != NULL ? "with" : "without");
}

static enum status
check_type(struct call *call, const char *type, struct err *err)
{
	own_struct(db_thing_type) found_type = { .rows = NULL };
	bool found;

	if (type == NULL)
		return OK;
	TRY(db_thing_type_find(call->tx, type, &found, &found_type, err));
	if (!found)
		return thing_type_missing(err, type);
	if (found_type.deprecated_us != 0)
		return iotcore_error(err, "InvalidRequestException",
			"Can not create new thing with deprecated thing type:%s", type);
	return OK;
}

static enum status
load_attributes(json_t **out, const struct db_thing *thing, struct err *err)
{
	return registry_load(out, view_of(&thing->attributes), err);
}

/* ---- CreateThing ---- */

static enum status
reply_thing(struct call *call, const char *name, const char *thing_id, struct err *err)
{
	char arn[IOTCORE_ARN_BYTES];

	iotcore_arn(arn, call->core, "thing/%s", name);
	return call_reply(call,
		json_pack("{s:s,s:s,s:s}", "thingName", name, "thingArn", arn, "thingId", thing_id),
		err);
}

/* The same again succeeds: a client that lost the answer may repeat. */
static enum status
repeat_thing(struct call *call, const struct db_thing *thing, const char *type,
	const json_t *attributes, struct err *err)
{
	own(json_t) before = NULL;
	char arn[IOTCORE_ARN_BYTES];

	TRY(load_attributes(&before, thing, err));
	if (strcmp(thing->type, type != NULL ? type : "") == 0 && json_equal(before, attributes))
		return reply_thing(call, thing->name, thing->thing_id, err);
	iotcore_arn(arn, call->core, "thing/%s", thing->name);
	return iotcore_exists(call, err, thing->thing_id, arn,
		"Thing %s already exists in account with different configuration.", thing->name);
}

static enum status
create_thing(struct call *call, struct err *err)
{
	const char *name = call_text(call, "thingName");
	const char *type = call_text(call, "thingTypeName");
	const char *group = call_text(call, "billingGroupName");
	own_struct(db_thing) thing = { .version = 0 };
	own(json_t) attributes = NULL;
	char thing_id[DB_CORE_UUID_BYTES];
	bool found;
	bool made;

	TRY(attributes_apply(&attributes, NULL, call_json(call, "attributePayload"), err));
	TRY(check_count(attributes, type, err));
	/* There is no operation here that makes one. */
	if (group != NULL)
		return iotcore_error(err, "ResourceNotFoundException",
			"Billing group %s cannot be found.", group);
	const char *text = registry_dump(call, attributes);
	if (text == NULL)
		return err_memory(err);
	TRY(db_thing_create(call->tx, name, type, text, thing_id, &made, err));
	if (made)
		return reply_thing(call, name, thing_id, err);
	TRY(db_thing_find(call->tx, name, &found, &thing, err));
	if (found)
		return repeat_thing(call, &thing, type, attributes, err);
	return check_type(call, type, err);
}

/* ---- DescribeThing ---- */

static enum status
describe_thing(struct call *call, struct err *err)
{
	const char *name = call_text(call, "thingName");
	own_struct(db_thing) thing = { .version = 0 };
	own(json_t) attributes = NULL;
	char arn[IOTCORE_ARN_BYTES];
	bool found;

	TRY(db_thing_find(call->tx, name, &found, &thing, err));
	if (!found)
		return thing_missing(err, name);
	TRY(load_attributes(&attributes, &thing, err));
	iotcore_arn(arn, call->core, "thing/%s", name);
	return call_reply(call,
		json_pack("{s:s,s:s,s:s,s:s,s:s*,s:O,s:I}", "defaultClientId", name, "thingName", name,
			"thingId", thing.thing_id, "thingArn", arn, "thingTypeName",
			thing.type[0] != '\0' ? thing.type : NULL, "attributes", attributes, "version",
			(json_int_t)thing.version),
		err);
}

/* ---- UpdateThing, DeleteThing ---- */

static enum status
update_thing(struct call *call, struct err *err)
{
	const char *name = call_text(call, "thingName");
	const char *type = call_text(call, "thingTypeName");
	bool remove_type = call_flag(call, "removeThingType", false);
	own_struct(db_thing) thing = { .version = 0 };
	own(json_t) before = NULL;
	own(json_t) attributes = NULL;
	bool found;

	if (remove_type && type != NULL)
		return iotcore_error(err, "InvalidRequestException",
			"thingTypeName and removeThingType can not both be given.");
	TRY(db_thing_find(call->tx, name, &found, &thing, err));
	if (!found)
		return thing_missing(err, name);
	TRY(version_wanted(call, "thing", name, thing.version, err));
	TRY(check_type(call, type, err));
	if (type == NULL && !remove_type && thing.type[0] != '\0')
		type = thing.type;
	TRY(load_attributes(&before, &thing, err));
	TRY(attributes_apply(&attributes, before, call_json(call, "attributePayload"), err));
	TRY(check_count(attributes, type, err));
	const char *text = registry_dump(call, attributes);
	if (text == NULL)
		return err_memory(err);
	return db_thing_update(call->tx, name, type, text, err);
}

static enum status
delete_thing(struct call *call, struct err *err)
{
	const char *name = call_text(call, "thingName");
	own_struct(db_thing) thing = { .version = 0 };
	bool found, has_principals;

	TRY(db_thing_find(call->tx, name, &found, &thing, err));
	if (!found)
		return OK;
	TRY(version_wanted(call, "thing", name, thing.version, err));
	TRY(db_thing_has_principals(call->tx, name, &has_principals, err));
	if (has_principals)
		return iotcore_error(err, "InvalidRequestException",
			"Cannot delete. Thing %s is still attached to one or more principals", name);
	return db_thing_delete(call->tx, name, err);
}

/* ---- ListThings ---- */

static enum status
add_thing(void *arg, const struct db_thing_row *row, struct err *err)
{
	struct listing *listing = arg;
	own(json_t) attributes = NULL;
	char arn[IOTCORE_ARN_BYTES];

	TRY(registry_load(&attributes, row->attributes, err));
	iotcore_arn(arn, listing->call->core, "thing/%s", row->name);
	return listing_add(listing, row->name,
		json_pack("{s:s,s:s*,s:s,s:O,s:I}", "thingName", row->name, "thingTypeName",
			row->type[0] != '\0' ? row->type : NULL, "thingArn", arn, "attributes",
			attributes, "version", (json_int_t)row->version),
		err);
}

static enum status
list_things(struct call *call, struct err *err)
{
	struct db_thing_filter filter = { .type = call_text(call, "thingTypeName"),
		.attribute = call_text(call, "attributeName"),
		.value = call_text(call, "attributeValue"),
		.prefix = call_flag(call, "usePrefixAttributeValue", false) };
	own_struct(listing) listing = { .call = call };

	if (filter.attribute == NULL && filter.value != NULL)
		return iotcore_error(err, "InvalidRequestException",
			"attributeName must be given with attributeValue.");
	if (filter.prefix && filter.value == NULL)
		return iotcore_error(err, "InvalidRequestException",
			"attributeName and attributeValue must be given with usePrefixAttributeValue.");
	/* A name alone: those that have the attribute, whatever its value. */
	if (filter.attribute != NULL && filter.value == NULL) {
		filter.value = "";
		filter.prefix = true;
	}
	TRY(listing_begin(&listing, call, err));
	TRY(db_thing_list(call->tx, &filter, listing_after(&listing), listing_limit(&listing), add_thing,
		&listing, err));
	return listing_end(&listing, "things", err);
}

const struct op THING_OPS[] = {
	{ .name = "CreateThing",
		.method = "POST",
		.path = "/things/{thingName}",
		.tx = TX_WRITE,
		.handle = create_thing,
		.members = (const struct member[]){
			{ .name = "thingName", .at = AT_PATH, MEMBER_THING_NAME },
			{ .name = "thingTypeName", .at = AT_BODY, MEMBER_NAME_OPTIONAL },
			{ .name = "attributePayload", .at = AT_BODY, .type = MEMBER_STRUCT,
				.members = ATTRIBUTE_PAYLOAD_MEMBERS },
			{ .name = "billingGroupName", .at = AT_BODY, MEMBER_NAME_OPTIONAL },
			{ .name = NULL } } },
	{ .name = "DescribeThing",
		.method = "GET",
		.path = "/things/{thingName}",
		.tx = TX_READ,
		.handle = describe_thing,
		.members = (const struct member[]){
			{ .name = "thingName", .at = AT_PATH, MEMBER_THING_NAME },
			{ .name = NULL } } },
	{ .name = "UpdateThing",
		.method = "PATCH",
		.path = "/things/{thingName}",
		.tx = TX_WRITE,
		.handle = update_thing,
		.members = (const struct member[]){
			{ .name = "thingName", .at = AT_PATH, MEMBER_THING_NAME },
			{ .name = "thingTypeName", .at = AT_BODY, MEMBER_NAME_OPTIONAL },
			{ .name = "attributePayload", .at = AT_BODY, .type = MEMBER_STRUCT,
				.members = ATTRIBUTE_PAYLOAD_MEMBERS },
			{ .name = "expectedVersion", .at = AT_BODY, .type = MEMBER_NUMBER },
			{ .name = "removeThingType", .at = AT_BODY, .type = MEMBER_FLAG },
			{ .name = NULL } } },
	{ .name = "DeleteThing",
		.method = "DELETE",
		.path = "/things/{thingName}",
		.tx = TX_WRITE,
		.handle = delete_thing,
		.members = (const struct member[]){
			{ .name = "thingName", .at = AT_PATH, MEMBER_THING_NAME },
			{ .name = "expectedVersion", .at = AT_QUERY, .type = MEMBER_NUMBER },
			{ .name = NULL } } },
	{ .name = "ListThings",
		.method = "GET",
		.path = "/things",
		.tx = TX_READ,
		.handle = list_things,
		.page = PAGE_TOKEN,
		.members = (const struct member[]){
			{ .name = "attributeName", .at = AT_QUERY, .type = MEMBER_TEXT, .most = 128,
				.pattern = &PATTERN_ATTRIBUTE_NAME },
			{ .name = "attributeValue", .at = AT_QUERY, .type = MEMBER_TEXT, .most = 800,
				.pattern = &PATTERN_ATTRIBUTE_VALUE },
			{ .name = "thingTypeName", .at = AT_QUERY, MEMBER_NAME_OPTIONAL },
			{ .name = "usePrefixAttributeValue", .at = AT_QUERY, .type = MEMBER_FLAG },
			{ .name = NULL } } },
	{ .name = NULL },
};
