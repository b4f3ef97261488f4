/* Tags of what can have them: thing types and groups, policies, CA certificates, profiles, rules. */
#include <stdio.h>
#include <string.h>

#include "db/iotcore_tag.h"
#include "server/iotcore/registry.h"
#include "server/iotcore/tables.h"

/* AWS's quota. */
#define TAGS_MOST 50
#define TAG_KEY_MOST 128
#define TAG_VALUE_MOST 256

/* Letters and digits of any script, spaces, and a few signs; of what is not ASCII we refuse none. */
static bool
is_tag_key(const char *text, size_t len)
{
	static const char SIGNS[] = " _.:/=+-@";

	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];
		bool word = (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');

		if (c < 0x80 && !word && memchr(SIGNS, c, sizeof(SIGNS) - 1) == NULL)
			return false;
	}
	return true;
}
static const struct pattern PATTERN_TAG_KEY = { "^([\\p{L}\\p{Z}\\p{N}_.:/=+\\-@]*)$", is_tag_key };

#define TAG_KEY_RULES                                                                              \
	.type = MEMBER_TEXT, .least = 1, .most = TAG_KEY_MOST, .pattern = &PATTERN_TAG_KEY

static const struct member TAG_FIELDS[] = {
	{ .name = "Key", .required = true, TAG_KEY_RULES },
	{ .name = "Value", .type = MEMBER_TEXT, .most = TAG_VALUE_MOST },
	{ .name = NULL },
};
const struct member TAG_MEMBERS[] = {
	{ .name = "member", .type = MEMBER_STRUCT, .members = TAG_FIELDS },
	{ .name = NULL },
};
static const struct member TAG_KEY_MEMBERS[] = {
	{ .name = "member", TAG_KEY_RULES },
	{ .name = NULL },
};

/* ---- putting ---- */

static enum status
check_key(const char *key, struct err *err)
{
	if (strncasecmp(key, "aws:", 4) != 0)
		return OK;
	return iotcore_error(err, "InvalidRequestException",
		"Tag keys that begin with aws: are reserved for system use.");
}

static bool
stands_twice(const json_t *tags, size_t at, const char *key)
{
	for (size_t i = 0; i < at; i++) {
		const json_t *other = json_object_get(json_array_get(tags, i), "Key");

		if (strcmp(json_string_value(other), key) == 0)
			return true;
	}
	return false;
}

static enum status
check_tags(const json_t *tags, struct err *err)
{
	size_t i;
	json_t *tag;

	/* Before the keys are compared with each other. */
	if (json_array_size(tags) > TAGS_MOST)
		return iotcore_error(err, "InvalidRequestException",
			"A resource can not have more than %d tags.", TAGS_MOST);
	json_array_foreach(tags, i, tag)
	{
		const char *key = json_string_value(json_object_get(tag, "Key"));

		TRY(check_key(key, err));
		if (stands_twice(tags, i, key))
			return iotcore_error(err, "InvalidRequestException",
				"Duplicate tag key found: %.128s", key);
	}
	return OK;
}

static enum status
put_tags(struct call *call, const char *arn, const json_t *tags, struct err *err)
{
	size_t i;
	json_t *tag;

	json_array_foreach(tags, i, tag)
	{
		const char *value = json_string_value(json_object_get(tag, "Value"));

		TRY(db_tag_put(call->tx, arn, json_string_value(json_object_get(tag, "Key")),
			value != NULL ? value : "", err));
	}
	return OK;
}

enum status
iotcore_tags_put(struct call *call, const char *arn, const json_t *tags, struct err *err)
{
	if (tags == NULL)
		return OK;
	TRY(check_tags(tags, err));
	return put_tags(call, arn, tags, err);
}

enum status
iotcore_tags_drop(struct call *call, const char *arn, struct err *err)
{
	return db_tag_drop(call->tx, arn, err);
}

/* ---- TagResource, UntagResource, ListTagsForResource ---- */

static const struct {
	const char *type;
	enum db_taggable kind;
} TAGGABLE[] = {
	{ "thingtype/", TAGGABLE_THING_TYPE },
	{ "thinggroup/", TAGGABLE_THING_GROUP },
	{ "policy/", TAGGABLE_POLICY },
	{ "cacert/", TAGGABLE_CA },
	{ "securityprofile/", TAGGABLE_SECURITY_PROFILE },
	{ "rule/", TAGGABLE_RULE },
};

static enum status
resource_wanted(const char **out, struct call *call, struct err *err)
{
	const char *arn = call_text(call, "resourceArn");
	const char *name = NULL;
	enum db_taggable kind = TAGGABLE_NONE;
	bool found;

	for (size_t i = 0; name == NULL && i < COUNT_OF(TAGGABLE); i++) {
		name = iotcore_arn_resource(call->core, arn, TAGGABLE[i].type);
		kind = TAGGABLE[i].kind;
	}
	if (name == NULL)
		return iotcore_error(err, "InvalidRequestException",
			"Invalid resource ARN, or the resource can not be tagged: %.200s", arn);
	TRY(db_tag_resource_exists(call->tx, kind, name, &found, err));
	if (!found)
		return iotcore_error(err, "ResourceNotFoundException",
			"The resource %.200s does not exist.", arn);
	*out = arn;
	return OK;
}

static enum status
tag_resource(struct call *call, struct err *err)
{
	const json_t *tags = call_json(call, "tags");
	const char *arn;
	int64_t count;

	TRY(check_tags(tags, err));
	TRY(resource_wanted(&arn, call, err));
	TRY(put_tags(call, arn, tags, err));
	/* Counted afterwards: a key that was there is no new one. The transaction is undone with it. */
	TRY(db_tag_count(call->tx, arn, &count, err));
	if (count > TAGS_MOST)
		return iotcore_error(err, "LimitExceededException",
			"A resource can not have more than %d tags.", TAGS_MOST);
	return OK;
}

static enum status
untag_resource(struct call *call, struct err *err)
{
	const json_t *keys = call_json(call, "tagKeys");
	const char *arn;
	size_t i;
	json_t *key;

	if (json_array_size(keys) > TAGS_MOST)
		return iotcore_error(err, "InvalidRequestException",
			"A resource can not have more than %d tags.", TAGS_MOST);
	TRY(resource_wanted(&arn, call, err));
	json_array_foreach(keys, i, key)
		TRY(db_tag_remove(call->tx, arn, json_string_value(key), err));
	return OK;
}

static enum status
add_tag(void *arg, struct view key, struct view value, struct err *err)
{
	char last[4 * TAG_KEY_MOST + 1];

	(void)snprintf(last, sizeof(last), "%.*s", (int)key.len, (const char *)key.data);
	return listing_add(arg, last,
		json_pack("{s:s%,s:s%}", "Key", key.data, key.len, "Value",
			value.data != NULL ? (const char *)value.data : "", value.len),
		err);
}

static enum status
list_tags(struct call *call, struct err *err)
{
	own_struct(listing) listing = { .call = call };
	const char *arn;

	TRY(resource_wanted(&arn, call, err));
	TRY(listing_begin(&listing, call, err));
	TRY(db_tag_list(call->tx, arn, listing_after(&listing), listing_limit(&listing), add_tag,
		&listing, err));
	return listing_end(&listing, "tags", err);
}

#define RESOURCE_ARN                                                                               \
	.name = "resourceArn", .type = MEMBER_TEXT, .required = true, .least = 1, .most = ARN_MOST

const struct op TAG_OPS[] = {
	{ .name = "TagResource",
		.method = "POST",
		.path = "/tags",
		.tx = TX_WRITE,
		.handle = tag_resource,
		.members = (const struct member[]){
			{ RESOURCE_ARN, .at = AT_BODY },
			{ .name = "tags", .at = AT_BODY, .required = true, MEMBER_TAGS },
			{ .name = NULL } } },
	{ .name = "UntagResource",
		.method = "POST",
		.path = "/untag",
		.tx = TX_WRITE,
		.handle = untag_resource,
		.members = (const struct member[]){
			{ RESOURCE_ARN, .at = AT_BODY },
			{ .name = "tagKeys", .at = AT_BODY, .type = MEMBER_LIST, .required = true,
				.members = TAG_KEY_MEMBERS },
			{ .name = NULL } } },
	{ .name = "ListTagsForResource",
		.method = "GET",
		.path = "/tags",
		.tx = TX_READ,
		.handle = list_tags,
		.page = PAGE_TOKEN_ONLY,
		.members = (const struct member[]){
			{ RESOURCE_ARN, .at = AT_QUERY },
			{ .name = NULL } } },
	{ .name = NULL },
};
