#include "server/iotcore/registry.h"

#include <stdio.h>
#include <string.h>

#include "db/iotcore_group.h"

/* ---- lists ---- */

void
listing_free(struct listing *listing)
{
	json_decref(listing->items);
	listing->items = NULL;
}

enum status
listing_begin(struct listing *listing, struct call *call, struct err *err)
{
	*listing = (struct listing){ .call = call, .items = json_array() };
	return listing->items != NULL ? OK : err_memory(err);
}

int64_t
listing_limit(const struct listing *listing)
{
	return listing->call->page.limit + 1;
}

const char *
listing_after(const struct listing *listing)
{
	const char *after = listing->call->page.after;

	return after != NULL ? after : "";
}

enum status
listing_add(struct listing *listing, const char *key, json_t *item, struct err *err)
{
	if (item == NULL)
		return err_memory(err);
	if ((int64_t)json_array_size(listing->items) >= listing->call->page.limit) {
		listing->more = true;
		json_decref(item);
		return OK;
	}
	(void)snprintf(listing->last, sizeof(listing->last), "%s", key);
	return json_array_append_new(listing->items, item) == 0 ? OK : err_memory(err);
}

enum status
listing_add_name(void *arg, const char *name, struct err *err)
{
	return listing_add(arg, name, json_string(name), err);
}

enum status
listing_end(struct listing *listing, const char *name, struct err *err)
{
	TRY(call_reply(listing->call, json_pack("{s:o}", name, give(listing->items)), err));
	return listing->more ? call_page_next(listing->call, listing->last, err) : OK;
}

/* ---- JSON ---- */

#define DUMP_FLAGS (JSON_COMPACT | JSON_ENCODE_ANY)

const char *
registry_dump(const struct call *call, const json_t *json)
{
	size_t len = json_dumpb(json, NULL, 0, DUMP_FLAGS);
	char *text = len > 0 ? request_alloc(call->request, len + 1) : NULL;

	if (text == NULL || json_dumpb(json, text, len, DUMP_FLAGS) != len)
		return NULL;
	return text;
}

enum status
registry_load(json_t **out, struct view text, struct err *err)
{
	json_error_t error;

	*out = json_loadb((const char *)text.data, text.len, JSON_DECODE_ANY, &error);
	if (*out != NULL)
		return OK;
	if (json_error_code(&error) == json_error_out_of_memory)
		return err_memory(err);
	return err_set(err, ERR_INTERNAL, "core_json", "database: JSON wanted at %d", error.position);
}

enum status
registry_set(json_t *object, const char *name, json_t *value, struct err *err)
{
	return json_object_set_new(object, name, value) == 0 ? OK : err_memory(err);
}

enum status
registry_set_text(json_t *object, const char *name, struct view text, struct err *err)
{
	if (text.len == 0)
		return OK;
	return registry_set(object, name, json_stringn((const char *)text.data, text.len), err);
}

static json_t *
known(const struct member *member, const json_t *json);

static json_t *
known_object(const struct member *members, const json_t *object)
{
	own(json_t) out = json_object();

	for (; members != NULL && members->name != NULL; members++) {
		const json_t *value = json_object_get(object, members->name);

		if (value != NULL && !json_is_null(value) &&
			json_object_set_new(out, members->name, known(members, value)) != 0)
			return NULL;
	}
	return give(out);
}

static json_t *
known_list(const struct member *item, const json_t *list)
{
	own(json_t) out = json_array();

	for (size_t i = 0; i < json_array_size(list); i++)
		if (json_array_append_new(out, known(item, json_array_get(list, i))) != 0)
			return NULL;
	return give(out);
}

static json_t *
known_map(const struct member *value_rules, json_t *map)
{
	own(json_t) out = json_object();
	const char *key;
	json_t *value;

	json_object_foreach(map, key, value)
		if (!json_is_null(value) &&
			json_object_set_new(out, key, known(value_rules, value)) != 0)
			return NULL;
	return give(out);
}

/* Goes as deep as the tables do. NULL: memory is short. */
static json_t *
known(const struct member *member, const json_t *json)
{
	json_t *borrowed = (json_t *)(uintptr_t)json;

	switch (member->type) {
	case MEMBER_STRUCT: return known_object(member->members, json);
	case MEMBER_LIST: return known_list(&member->members[0], json);
	case MEMBER_MAP: return known_map(&member->members[1], borrowed);
	case MEMBER_TEXT:
	case MEMBER_FLAG:
	case MEMBER_NUMBER:
	case MEMBER_REAL:
	case MEMBER_TIME: return json_incref(borrowed);
	case MEMBER_UNSET: break;
	}
	return NULL;
}

enum status
registry_known(json_t **out, const struct member *members, const json_t *object, struct err *err)
{
	*out = known_object(members, object);
	return *out != NULL ? OK : err_memory(err);
}

/* ---- attributes ---- */

static const struct member ATTRIBUTE_MEMBERS[] = {
	{ .name = "key", .type = MEMBER_TEXT, .most = 128, .pattern = &PATTERN_ATTRIBUTE_NAME },
	{ .name = "value", .type = MEMBER_TEXT, .most = 800, .pattern = &PATTERN_ATTRIBUTE_VALUE },
	{ .name = NULL },
};
const struct member ATTRIBUTE_PAYLOAD_MEMBERS[] = {
	{ .name = "attributes", .type = MEMBER_MAP, .members = ATTRIBUTE_MEMBERS },
	{ .name = "merge", .type = MEMBER_FLAG },
	{ .name = NULL },
};

/* A null counts as empty. */
static bool
is_set(const json_t *value)
{
	return json_is_string(value) && json_string_length(value) > 0;
}

enum status
attributes_apply(json_t **out, const json_t *before, const json_t *payload, struct err *err)
{
	json_t *attributes = json_object_get(payload, "attributes");
	bool keep = !json_is_object(attributes) || json_is_true(json_object_get(payload, "merge"));
	own(json_t) result = keep && before != NULL ? json_deep_copy(before) : json_object();
	const char *name;
	json_t *value;

	if (result == NULL)
		return err_memory(err);
	json_object_foreach(attributes, name, value)
	{
		if (!is_set(value))
			(void)json_object_del(result, name);
		else if (json_object_set(result, name, value) != 0)
			return err_memory(err);
	}
	*out = give(result);
	return OK;
}

/* ---- checks ---- */

enum status
thing_missing(struct err *err, const char *name)
{
	return iotcore_error(err, "ResourceNotFoundException", "Thing %s cannot be found.", name);
}

enum status
thing_type_missing(struct err *err, const char *name)
{
	return iotcore_error(err, "ResourceNotFoundException", "Thing type %s cannot be found.", name);
}

enum status
group_missing(struct err *err, const char *name)
{
	return iotcore_error(err, "ResourceNotFoundException", "Thing group %s cannot be found.", name);
}

enum status
thing_wanted(struct call *call, const char *name, struct err *err)
{
	bool found;

	TRY(db_thing_exists(call->tx, name, &found, err));
	return found ? OK : thing_missing(err, name);
}

enum status
group_wanted(struct call *call, const char *name, struct err *err)
{
	bool found;

	TRY(db_group_exists(call->tx, name, &found, err));
	return found ? OK : group_missing(err, name);
}

enum status
version_wanted(struct call *call, const char *what, const char *name, int64_t version,
	struct err *err)
{
	if (!call_has(call, "expectedVersion") ||
		call_number(call, "expectedVersion", 0) == version)
		return OK;
	return iotcore_error(err, "VersionConflictException",
		"The version for %s %s does not match the expected version.", what, name);
}
