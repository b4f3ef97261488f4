#include <string.h>

#include "base/mem.h"
#include "server/iot/iot_api_internal.h"

/* An object of the attributes, or NULL. */
static json_t *
attributes_json(const struct iot_thing_spec *spec)
{
	json_t *object = json_object();

	for (size_t i = 0; i < spec->attribute_count; i++) {
		json_t *value = json_string(spec->attributes[i].value);

		if (json_object_set_new(object, spec->attributes[i].name, value) != 0) {
			json_decref(object);
			return NULL;
		}
	}
	return object;
}

static enum status
check_spec(const struct iot_thing_spec *spec, struct err *err)
{
	TRY(iot_check(FORM_NAME, "thing", spec->name, err));
	if (spec->type != NULL)
		TRY(iot_check(FORM_NAME, "thing type", spec->type, err));
	if (spec->attribute_count > IOT_ATTRIBUTES_MAX)
		return err_set(err, ERR_ARGUMENT, "iot_argument", "attributes: at most %d wanted",
			IOT_ATTRIBUTES_MAX);
	return OK;
}

enum status
iot_create_thing(struct iot *iot, const struct iot_thing_spec *spec, struct iot_made *out,
	struct err *err)
{
	own_struct(iot_request) request = { .op = OP_CREATE_THING, .labels = { spec->name } };
	own(json_t) answer = NULL;

	TRY(check_spec(spec, err));
	TRY(iot_body(&request,
		json_pack("{s:s*, s:{s:o}}", "thingTypeName", spec->type, "attributePayload",
			"attributes", attributes_json(spec)),
		err));
	TRY(iot_run(iot, &request, &answer, err));
	return iot_read_made(iot, answer, "thingArn", "thingId", out, err);
}

enum status
iot_update_thing(struct iot *iot, const struct iot_thing_spec *spec, struct err *err)
{
	own_struct(iot_request) request = { .op = OP_UPDATE_THING, .labels = { spec->name } };

	TRY(check_spec(spec, err));
	TRY(iot_body(&request,
		json_pack("{s:s*, s:{s:o, s:b}, s:o*, s:o*}", "thingTypeName", spec->type,
			"attributePayload", "attributes", attributes_json(spec), "merge",
			(int)spec->merge, "expectedVersion",
			spec->expected_version > 0 ? json_integer(spec->expected_version) : NULL,
			"removeThingType", spec->remove_type ? json_true() : NULL),
		err));
	return iot_run(iot, &request, NULL, err);
}

enum status
iot_delete_thing(struct iot *iot, const char *name, int64_t expected_version, struct err *err)
{
	own_struct(iot_request) request = { .op = OP_DELETE_THING, .labels = { name } };
	char version[24];

	TRY(iot_check(FORM_NAME, "thing", name, err));
	(void)snprintf(version, sizeof(version), "%lld", (long long)expected_version);
	iot_query(&request, "expectedVersion", expected_version > 0 ? version : NULL);
	return iot_run(iot, &request, NULL, err);
}

void
iot_thing_free(struct iot_thing *thing)
{
	mem_free(thing->attributes);
	thing->attributes = NULL;
	thing->attribute_count = 0;
}

const char *
iot_thing_attribute(const struct iot_thing *thing, const char *name)
{
	for (size_t i = 0; i < thing->attribute_count; i++)
		if (strcmp(thing->attributes[i].name, name) == 0)
			return thing->attributes[i].value;
	return NULL;
}

static enum status
read_attributes(struct iot *iot, const json_t *json, struct iot_thing *out, struct err *err)
{
	json_t *object = json_object_get(json, "attributes"); /* borrowed; iterators want it so */

	if (json_object_size(object) > IOT_ATTRIBUTES_MAX)
		return iot_malformed(iot, "attributes", err);
	out->attributes = mem_array(json_object_size(object), sizeof(*out->attributes));
	if (out->attributes == NULL)
		return err_memory(err);
	for (void *at = json_object_iter(object); at != NULL;
		at = json_object_iter_next(object, at)) {
		struct iot_attribute *attribute = &out->attributes[out->attribute_count++];
		const char *name = json_object_iter_key(at);

		if (strlen(name) >= sizeof(attribute->name))
			return iot_malformed(iot, "attributes", err);
		memcpy(attribute->name, name, strlen(name) + 1);
		TRY(iot_text_or_none(
			iot, object, name, attribute->value, sizeof(attribute->value), err));
	}
	return OK;
}

enum status
iot_describe_thing(struct iot *iot, const char *name, struct iot_thing *out, struct err *err)
{
	own_struct(iot_request) request = { .op = OP_DESCRIBE_THING, .labels = { name } };
	own(json_t) answer = NULL;

	*out = (struct iot_thing){ .version = 0 };
	TRY(iot_check(FORM_NAME, "thing", name, err));
	TRY(iot_run(iot, &request, &answer, err));
	TRY(iot_text(iot, answer, "thingName", out->name, sizeof(out->name), err));
	TRY(iot_text(iot, answer, "thingArn", out->arn, sizeof(out->arn), err));
	TRY(iot_text_or_none(iot, answer, "thingId", out->id, sizeof(out->id), err));
	TRY(iot_text_or_none(iot, answer, "thingTypeName", out->type, sizeof(out->type), err));
	out->version = json_integer_value(json_object_get(answer, "version"));
	return read_attributes(iot, answer, out, err);
}

/* ---- types and groups ---- */

enum status
iot_create_thing_type(struct iot *iot, const char *name, const char *description,
	const char *const *searchable, size_t searchable_count, struct iot_made *out,
	struct err *err)
{
	own_struct(iot_request) request = { .op = OP_CREATE_THING_TYPE, .labels = { name } };
	own(json_t) answer = NULL;
	json_t *names = searchable_count > 0 ? json_array() : NULL;

	for (size_t i = 0; i < searchable_count; i++)
		(void)json_array_append_new(names, json_string(searchable[i]));
	/* Takes names, whatever becomes of it. */
	TRY(iot_body(&request,
		json_pack("{s:{s:s*, s:o*}}", "thingTypeProperties", "thingTypeDescription",
			description, "searchableAttributes", names),
		err));
	TRY(iot_check(FORM_NAME, "thing type", name, err));
	if (searchable_count > 3 || json_array_size(names) != searchable_count)
		return err_set(
			err, ERR_ARGUMENT, "iot_argument", "searchable: at most 3 names wanted");
	TRY(iot_run(iot, &request, &answer, err));
	return iot_read_made(iot, answer, "thingTypeArn", "thingTypeId", out, err);
}

enum status
iot_describe_thing_type(
	struct iot *iot, const char *name, struct iot_thing_type *out, struct err *err)
{
	own_struct(iot_request) request = { .op = OP_DESCRIBE_THING_TYPE, .labels = { name } };
	own(json_t) answer = NULL;

	*out = (struct iot_thing_type){ .deprecated = false };
	TRY(iot_check(FORM_NAME, "thing type", name, err));
	TRY(iot_run(iot, &request, &answer, err));
	TRY(iot_text(iot, answer, "thingTypeName", out->name, sizeof(out->name), err));
	TRY(iot_text(iot, answer, "thingTypeArn", out->arn, sizeof(out->arn), err));
	TRY(iot_text_or_none(iot, answer, "thingTypeId", out->id, sizeof(out->id), err));
	iot_text_cut(json_object_get(answer, "thingTypeProperties"), "thingTypeDescription",
		out->description, sizeof(out->description));
	out->deprecated = json_is_true(
		json_object_get(json_object_get(answer, "thingTypeMetadata"), "deprecated"));
	return OK;
}

enum status
iot_create_thing_group(struct iot *iot, const char *name, const char *parent,
	const char *description, struct iot_made *out, struct err *err)
{
	own_struct(iot_request) request = { .op = OP_CREATE_THING_GROUP, .labels = { name } };
	own(json_t) answer = NULL;

	TRY(iot_check(FORM_NAME, "thing group", name, err));
	if (parent != NULL)
		TRY(iot_check(FORM_NAME, "parent", parent, err));
	TRY(iot_body(&request,
		json_pack("{s:s*, s:{s:s*}}", "parentGroupName", parent, "thingGroupProperties",
			"thingGroupDescription", description),
		err));
	TRY(iot_run(iot, &request, &answer, err));
	return iot_read_made(iot, answer, "thingGroupArn", "thingGroupId", out, err);
}

static enum status
change_membership(
	struct iot *iot, enum iot_op op, const char *group, const char *thing, struct err *err)
{
	own_struct(iot_request) request = { .op = op };

	TRY(iot_check(FORM_NAME, "thing group", group, err));
	TRY(iot_check(FORM_NAME, "thing", thing, err));
	TRY(iot_body(&request, json_pack("{s:s, s:s}", "thingGroupName", group, "thingName", thing),
		err));
	return iot_run(iot, &request, NULL, err);
}

enum status
iot_add_thing_to_thing_group(struct iot *iot, const char *group, const char *thing, struct err *err)
{
	return change_membership(iot, OP_ADD_THING_TO_THING_GROUP, group, thing, err);
}

enum status
iot_remove_thing_from_thing_group(
	struct iot *iot, const char *group, const char *thing, struct err *err)
{
	return change_membership(iot, OP_REMOVE_THING_FROM_THING_GROUP, group, thing, err);
}

static enum status
read_group(struct iot *iot, const json_t *item, void *arg, struct err *err)
{
	struct iot_name *out = arg;

	return iot_text(iot, item, "groupName", out->text, sizeof(out->text), err);
}

enum status
iot_list_thing_groups_for_thing(struct iot *iot, const char *thing, struct iot_cursor *cursor,
	struct iot_name *groups, size_t max, size_t *count, struct err *err)
{
	static const struct iot_list LIST = { PAGING_TOKEN, "thingGroups", read_group,
		sizeof(*groups) };
	own_struct(iot_request)
		request = { .op = OP_LIST_THING_GROUPS_FOR_THING, .labels = { thing } };

	TRY(iot_check(FORM_NAME, "thing", thing, err));
	return iot_list(iot, &request, &LIST, cursor, groups, max, count, err);
}

/* ---- principals ---- */

static enum status
change_principal(struct iot *iot, enum iot_op op, const char *thing, const char *principal,
	struct err *err)
{
	own_struct(iot_request) request = { .op = op, .labels = { thing },
		.header = { "x-amzn-principal", principal } };

	TRY(iot_check(FORM_NAME, "thing", thing, err));
	TRY(iot_check(FORM_ARN, "principal", principal, err));
	return iot_run(iot, &request, NULL, err);
}

enum status
iot_attach_thing_principal(
	struct iot *iot, const char *thing, const char *principal, struct err *err)
{
	return change_principal(iot, OP_ATTACH_THING_PRINCIPAL, thing, principal, err);
}

enum status
iot_detach_thing_principal(
	struct iot *iot, const char *thing, const char *principal, struct err *err)
{
	return change_principal(iot, OP_DETACH_THING_PRINCIPAL, thing, principal, err);
}

static enum status
read_plain(struct iot *iot, const json_t *item, char *out, size_t size, const char *what,
	struct err *err)
{
	size_t len = json_string_length(item);

	if (!json_is_string(item) || len == 0 || len >= size ||
		strlen(json_string_value(item)) != len)
		return iot_malformed(iot, what, err);
	memcpy(out, json_string_value(item), len + 1);
	return OK;
}

static enum status
read_principal(struct iot *iot, const json_t *item, void *arg, struct err *err)
{
	struct iot_arn *out = arg;

	return read_plain(iot, item, out->text, sizeof(out->text), "principals", err);
}

static enum status
read_thing_name(struct iot *iot, const json_t *item, void *arg, struct err *err)
{
	struct iot_name *out = arg;

	return read_plain(iot, item, out->text, sizeof(out->text), "things", err);
}

enum status
iot_list_thing_principals(struct iot *iot, const char *thing, struct iot_cursor *cursor,
	struct iot_arn *principals, size_t max, size_t *count, struct err *err)
{
	static const struct iot_list LIST = { PAGING_TOKEN, "principals", read_principal,
		sizeof(*principals) };
	own_struct(iot_request) request = { .op = OP_LIST_THING_PRINCIPALS, .labels = { thing } };

	TRY(iot_check(FORM_NAME, "thing", thing, err));
	return iot_list(iot, &request, &LIST, cursor, principals, max, count, err);
}

enum status
iot_list_principal_things(struct iot *iot, const char *principal, struct iot_cursor *cursor,
	struct iot_name *things, size_t max, size_t *count, struct err *err)
{
	static const struct iot_list LIST = { PAGING_TOKEN, "things", read_thing_name,
		sizeof(*things) };
	own_struct(iot_request) request = { .op = OP_LIST_PRINCIPAL_THINGS,
		.header = { "x-amzn-principal", principal } };

	TRY(iot_check(FORM_ARN, "principal", principal, err));
	return iot_list(iot, &request, &LIST, cursor, things, max, count, err);
}
