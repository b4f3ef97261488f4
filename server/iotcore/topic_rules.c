/* Topic rules: create, get, list, replace, delete, enable, disable. */
#include <stdio.h>
#include <string.h>

#include "server/iotcore/member.h"
#include "server/iotcore/registry.h"
#include "server/iotcore/rule_sql.h"
#include "server/iotcore/rules.h"
#include "server/iotcore/tables.h"

/* AWS's quotas. */
#define RULES_MOST 1000
#define ACTIONS_MOST 10
#define HEADERS_MOST 100
#define TAGGING_MOST 8192

/* ---- what a payload may hold ---- */

#define TEXT_REQUIRED .type = MEMBER_TEXT, .required = true, .least = 1, .most = ARN_MOST
#define HEADER_TEXT .type = MEMBER_TEXT, .most = 1024

static const struct member HTTP_HEADER[] = {
	{ .name = "key", .type = MEMBER_TEXT, .required = true, .least = 1, .most = 256 },
	{ .name = "value", .type = MEMBER_TEXT, .required = true },
	{ .name = NULL },
};
static const struct member HTTP_HEADERS[] = {
	{ .name = "member", .type = MEMBER_STRUCT, .members = HTTP_HEADER },
	{ .name = NULL },
};
static const struct member SIGV4[] = {
	{ .name = "signingRegion", TEXT_REQUIRED },
	{ .name = "serviceName", TEXT_REQUIRED },
	{ .name = "roleArn", TEXT_REQUIRED },
	{ .name = NULL },
};
static const struct member HTTP_AUTH[] = {
	{ .name = "sigv4", .type = MEMBER_STRUCT, .members = SIGV4 },
	{ .name = NULL },
};
static const struct member HTTP_BATCH[] = {
	{ .name = "maxBatchOpenMs", .type = MEMBER_NUMBER, .least = 5, .most = 200 },
	{ .name = "maxBatchSize", .type = MEMBER_NUMBER, .least = 2, .most = 10 },
	{ .name = "maxBatchSizeBytes", .type = MEMBER_NUMBER, .least = 100, .most = 131072 },
	{ .name = NULL },
};
static const struct member HTTP[] = {
	{ .name = "url", .type = MEMBER_TEXT, .required = true, .most = RULE_URL_MOST },
	{ .name = "confirmationUrl", .type = MEMBER_TEXT, .most = RULE_URL_MOST },
	{ .name = "headers", .type = MEMBER_LIST, .most = HEADERS_MOST, .members = HTTP_HEADERS },
	{ .name = "auth", .type = MEMBER_STRUCT, .members = HTTP_AUTH },
	{ .name = "enableBatching", .type = MEMBER_FLAG },
	{ .name = "batchConfig", .type = MEMBER_STRUCT, .members = HTTP_BATCH },
	{ .name = NULL },
};
static const struct member USER_PROPERTY[] = {
	{ .name = "key", .required = true, HEADER_TEXT },
	{ .name = "value", .required = true, HEADER_TEXT },
	{ .name = NULL },
};
static const struct member USER_PROPERTIES[] = {
	{ .name = "member", .type = MEMBER_STRUCT, .members = USER_PROPERTY },
	{ .name = NULL },
};
static const struct member MQTT_HEADERS[] = {
	{ .name = "payloadFormatIndicator", HEADER_TEXT },
	{ .name = "contentType", HEADER_TEXT },
	{ .name = "responseTopic", HEADER_TEXT },
	{ .name = "correlationData", HEADER_TEXT },
	{ .name = "messageExpiry", HEADER_TEXT },
	{ .name = "userProperties", .type = MEMBER_LIST, .least = 1, .most = 100,
		.members = USER_PROPERTIES },
	{ .name = NULL },
};
static const struct member REPUBLISH[] = {
	{ .name = "roleArn", TEXT_REQUIRED },
	{ .name = "topic", TEXT_REQUIRED },
	{ .name = "qos", .type = MEMBER_NUMBER, .least = 0, .most = 1 },
	{ .name = "headers", .type = MEMBER_STRUCT, .members = MQTT_HEADERS },
	{ .name = NULL },
};
static const struct member SQS[] = {
	{ .name = "roleArn", TEXT_REQUIRED },
	{ .name = "queueUrl", TEXT_REQUIRED },
	{ .name = "useBase64", .type = MEMBER_FLAG },
	{ .name = NULL },
};
static const struct member SNS[] = {
	{ .name = "targetArn", TEXT_REQUIRED },
	{ .name = "roleArn", TEXT_REQUIRED },
	{ .name = "messageFormat", .type = MEMBER_TEXT,
		.values = (const char *const[]){ "RAW", "JSON", NULL } },
	{ .name = NULL },
};
static const struct member LAMBDA[] = {
	{ .name = "functionArn", TEXT_REQUIRED },
	{ .name = NULL },
};
/* Those that the local IoT Core takes; what it does with them: rule_deliver.c. */
static const struct member ACTION[] = {
	{ .name = "http", .type = MEMBER_STRUCT, .members = HTTP },
	{ .name = "republish", .type = MEMBER_STRUCT, .members = REPUBLISH },
	{ .name = "sqs", .type = MEMBER_STRUCT, .members = SQS },
	{ .name = "sns", .type = MEMBER_STRUCT, .members = SNS },
	{ .name = "lambda", .type = MEMBER_STRUCT, .members = LAMBDA },
	{ .name = NULL },
};
static const struct member ACTIONS[] = {
	{ .name = "member", .type = MEMBER_STRUCT, .members = ACTION },
	{ .name = NULL },
};
static const struct member PAYLOAD[] = {
	{ .name = "sql", .type = MEMBER_TEXT, .required = true },
	{ .name = "description", .type = MEMBER_TEXT },
	{ .name = "actions", .type = MEMBER_LIST, .required = true, .most = ACTIONS_MOST,
		.members = ACTIONS },
	{ .name = "ruleDisabled", .type = MEMBER_FLAG },
	{ .name = "awsIotSqlVersion", .type = MEMBER_TEXT },
	{ .name = "errorAction", .type = MEMBER_STRUCT, .members = ACTION },
	{ .name = NULL },
};

/* ---- actions ---- */

static enum status
check_http(struct call *call, const json_t *http, struct err *err)
{
	const char *url = json_string_value(json_object_get(http, "url"));
	const char *confirmation = json_string_value(json_object_get(http, "confirmationUrl"));
	const json_t *headers = json_object_get(http, "headers");

	TRY(rule_check_url(call, "url", url, err));
	if (confirmation != NULL)
		TRY(rule_check_url(call, "confirmationUrl", confirmation, err));
	if (confirmation != NULL && !rule_url_covers(confirmation, url))
		return iotcore_error(err, "InvalidRequestException",
			"The url of an HTTP action must begin with its confirmationUrl up to the last path "
			"part.");
	/* There are no roles here to sign as. */
	if (json_object_get(json_object_get(http, "auth"), "sigv4") != NULL)
		return iotcore_error(err, "InvalidRequestException",
			"The local IoT Core does not sign requests of HTTP actions: auth.sigv4");
	for (size_t i = 0; i < json_array_size(headers); i++) {
		const json_t *header = json_array_get(headers, i);
		const char *key = json_string_value(json_object_get(header, "key"));
		const char *value = json_string_value(json_object_get(header, "value"));

		if (strpbrk(key, ":\r\n \t") != NULL || strpbrk(value, "\r\n") != NULL)
			return iotcore_error(err, "InvalidRequestException",
				"An HTTP action's header is not one.");
		if (strstr(value, "${") != NULL)
			return iotcore_error(err, "InvalidRequestException",
				"The local IoT Core does not understand substitution templates.");
	}
	return OK;
}

/* original: as it came, for what the table does not name is an action as well. */
static enum status
check_action(struct call *call, json_t *original, struct err *err)
{
	const char *name = NULL;
	const char *key;
	json_t *value;
	size_t count = 0;
	bool known = false;

	json_object_foreach(original, key, value)
		if (!json_is_null(value)) {
			name = key;
			count++;
		}
	if (count != 1)
		return iotcore_error(err, "InvalidRequestException",
			"Exactly one kind of action must be given in an action, %zu found.", count);
	for (const struct member *kind = ACTION; kind->name != NULL; kind++)
		known |= strcmp(kind->name, name) == 0;
	if (!known)
		return iotcore_error(err, "InvalidRequestException",
			"The local IoT Core has no action %.64s.", name);
	value = json_object_get(original, "http");
	return json_is_object(value) ? check_http(call, value, err) : OK;
}

static enum status
check_actions(struct call *call, const json_t *payload, struct err *err)
{
	json_t *actions = json_object_get(payload, "actions");
	json_t *on_error = json_object_get(payload, "errorAction");
	json_t *action;
	size_t i;

	json_array_foreach(actions, i, action)
		TRY(check_action(call, action, err));
	return on_error != NULL && !json_is_null(on_error) ? check_action(call, on_error, err) : OK;
}

/* ---- a destination for each HTTP action ---- */

struct covered {
	const char *url;
	bool found;
};

static enum status
note_covering(void *arg, const struct db_destination *row, struct err *err)
{
	struct covered *covered = arg;

	(void)err;
	covered->found |= rule_url_covers(row->url, covered->url);
	return OK;
}

/* AWS makes one where none covers the action's URL yet. */
static enum status
ensure_destination(struct call *call, const json_t *action, struct err *err)
{
	const json_t *http = json_object_get(action, "http");
	const char *url = json_string_value(json_object_get(http, "url"));
	const char *confirmation = json_string_value(json_object_get(http, "confirmationUrl"));
	struct covered covered = { url, false };
	char id[DB_CORE_UUID_BYTES];

	if (!json_is_object(http))
		return OK;
	TRY(db_destination_list(call->tx, "", RULES_MOST, note_covering, &covered, err));
	if (covered.found)
		return OK;
	return rule_destination_create(call, confirmation != NULL ? confirmation : url, id, err);
}

static enum status
ensure_destinations(struct call *call, const json_t *payload, struct err *err)
{
	json_t *actions = json_object_get(payload, "actions");
	json_t *action;
	size_t i;

	json_array_foreach(actions, i, action)
		TRY(ensure_destination(call, action, err));
	return ensure_destination(call, json_object_get(payload, "errorAction"), err);
}

/* ---- payloads ---- */

struct payload {
	char topic[RULE_TOPIC_BYTES];
	bool disabled;
	json_t *known; /* what of it is kept */
};

static void
payload_free(struct payload *payload)
{
	json_decref(payload->known);
	payload->known = NULL;
}
OWNER_STRUCT(payload, payload_free)

static enum status
check_version(const json_t *payload, struct err *err)
{
	static const char *const VERSIONS[] = { "2015-10-08", "2016-03-23", "beta" };
	const char *version = json_string_value(json_object_get(payload, "awsIotSqlVersion"));

	if (version == NULL)
		return OK;
	for (size_t i = 0; i < COUNT_OF(VERSIONS); i++)
		if (strcmp(VERSIONS[i], version) == 0)
			return OK;
	return iotcore_error(
		err, "InvalidRequestException", "Invalid awsIotSqlVersion: %.64s", version);
}

static enum status
read_payload(struct payload *out, struct call *call, struct err *err)
{
	const json_t *payload = call_json(call, "topicRulePayload");
	const char *why;

	if (!rule_sql_parse(out->topic, json_string_value(json_object_get(payload, "sql")), &why))
		return iotcore_error(
			err, "SqlParseException", "Expected a SQL statement of AWS IoT: %s", why);
	TRY(check_version(payload, err));
	TRY(check_actions(call, payload, err));
	out->disabled = json_is_true(json_object_get(payload, "ruleDisabled"));
	return registry_known(&out->known, PAYLOAD, payload, err);
}

/* ---- tags: they come as a=b&c=d in a header ---- */

static int
hex_of(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)(c | 0x20);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* A new string, or NULL: malformed, or memory is short. */
static json_t *
decode(const char *text, size_t len)
{
	char out[TAGGING_MOST];
	size_t count = 0;

	for (size_t i = 0; i < len && count < sizeof(out); i++) {
		if (text[i] != '%') {
			out[count++] = text[i] == '+' ? ' ' : text[i];
			continue;
		}
		if (i + 2 >= len || hex_of(text[i + 1]) < 0 || hex_of(text[i + 2]) < 0)
			return NULL;
		out[count++] = (char)(hex_of(text[i + 1]) * 16 + hex_of(text[i + 2]));
		i += 2;
	}
	/* NUL is refused here, what is not UTF-8 by jansson. */
	/* cppcheck-suppress uninitvar; count octets are set */
	return memchr(out, '\0', count) == NULL ? json_stringn(out, count) : NULL;
}

static enum status
parse_tags(json_t **out, const char *text, struct err *err)
{
	static const struct member TAGS = { .name = "tags", MEMBER_TAGS };
	own(json_t) list = json_array();
	struct member_report report = { .count = 0 };

	if (list == NULL)
		return err_memory(err);
	while (*text != '\0') {
		size_t len = strcspn(text, "&"), key = strcspn(text, "=&");
		const char *value = key < len ? text + key + 1 : text + len;
		json_t *tag = json_pack("{s:o,s:o}", "Key", decode(text, key), "Value",
			decode(value, len - (size_t)(value - text)));

		if (tag == NULL || json_array_append_new(list, tag) != 0)
			return iotcore_error(err, "InvalidRequestException", "Invalid x-amz-tagging.");
		text += len + (text[len] == '&');
	}
	member_check_json(&TAGS, list, &report);
	TRY(member_report_end(&report, err));
	*out = give(list);
	return OK;
}

static enum status
put_tags(struct call *call, const char *name, struct err *err)
{
	const char *text = call_text(call, "tags");
	own(json_t) tags = NULL;
	char arn[IOTCORE_ARN_BYTES];

	if (text == NULL)
		return OK;
	TRY(parse_tags(&tags, text, err));
	iotcore_arn(arn, call->core, "rule/%s", name);
	return iotcore_tags_put(call, arn, tags, err);
}

/* ---- CreateTopicRule, ReplaceTopicRule ---- */

/* AWS does not tell whether a rule is there from whether one may see it. */
static enum status
rule_missing(struct err *err, const char *name)
{
	return iotcore_error(
		err, "UnauthorizedException", "Access to topic rule '%s' was denied", name);
}

static enum status
check_room(struct call *call, struct err *err)
{
	int64_t count;

	TRY(db_rule_count(call->tx, &count, err));
	if (count >= RULES_MOST)
		return iotcore_error(err, "InvalidRequestException",
			"An account can not have more than %d rules.", RULES_MOST);
	return OK;
}

static enum status
write_rule(struct call *call,
	enum status (*write)(struct db_tx *tx, const char *name, const char *topic,
		const char *payload, bool disabled, struct err *err),
	const struct payload *payload, struct err *err)
{
	const char *text = registry_dump(call, payload->known);

	if (text == NULL)
		return err_memory(err);
	TRY(write(call->tx, call_text(call, "ruleName"), payload->topic, text, payload->disabled, err));
	return ensure_destinations(call, payload->known, err);
}

static enum status
create_rule(struct call *call, struct err *err)
{
	const char *name = call_text(call, "ruleName");
	own_struct(payload) payload = { .known = NULL };
	own_struct(db_rule) rule = { .rows = NULL };
	char arn[IOTCORE_ARN_BYTES];
	bool found;

	TRY(read_payload(&payload, call, err));
	TRY(db_rule_find(call->tx, name, &found, &rule, err));
	iotcore_arn(arn, call->core, "rule/%s", name);
	if (found)
		return iotcore_exists(call, err, name, arn, "Rule %s already exists in account %s", name,
			call->core->account);
	TRY(check_room(call, err));
	TRY(write_rule(call, db_rule_create, &payload, err));
	return put_tags(call, name, err);
}

static enum status
replace_rule(struct call *call, struct err *err)
{
	const char *name = call_text(call, "ruleName");
	own_struct(payload) payload = { .known = NULL };
	own_struct(db_rule) rule = { .rows = NULL };
	bool found;

	TRY(read_payload(&payload, call, err));
	TRY(db_rule_find(call->tx, name, &found, &rule, err));
	if (!found)
		return rule_missing(err, name);
	return write_rule(call, db_rule_replace, &payload, err);
}

/* ---- GetTopicRule, ListTopicRules ---- */

static enum status
get_rule(struct call *call, struct err *err)
{
	const char *name = call_text(call, "ruleName");
	own_struct(db_rule) row = { .rows = NULL };
	own(json_t) rule = NULL;
	char arn[IOTCORE_ARN_BYTES];
	bool found;

	TRY(db_rule_find(call->tx, name, &found, &row, err));
	if (!found)
		return rule_missing(err, name);
	TRY(registry_load(&rule, row.payload, err));
	TRY(registry_set(rule, "ruleName", json_string(name), err));
	TRY(registry_set(rule, "createdAt", iotcore_time(row.created_us), err));
	TRY(registry_set(rule, "ruleDisabled", json_boolean(row.disabled), err));
	if (json_object_get(rule, "awsIotSqlVersion") == NULL)
		TRY(registry_set(rule, "awsIotSqlVersion", json_string("2015-10-08"), err));
	iotcore_arn(arn, call->core, "rule/%s", name);
	return call_reply(call, json_pack("{s:s,s:O}", "ruleArn", arn, "rule", rule), err);
}

struct rule_listing {
	struct listing listing;
	const char *topic; /* NULL: any */
	bool by_disabled, disabled;
};

static enum status
add_rule(void *arg, const struct db_rule *rule, struct err *err)
{
	struct rule_listing *it = arg;
	char arn[IOTCORE_ARN_BYTES];

	if (it->by_disabled && it->disabled != rule->disabled)
		return OK;
	if (it->topic != NULL && strcmp(rule->topic, it->topic) != 0 &&
		!rule_topic_matches(rule->topic, it->topic))
		return OK;
	iotcore_arn(arn, it->listing.call->core, "rule/%s", rule->name);
	return listing_add(&it->listing, rule->name,
		json_pack("{s:s,s:s,s:s,s:o,s:b}", "ruleArn", arn, "ruleName", rule->name,
			"topicPattern", rule->topic, "createdAt", iotcore_time(rule->created_us),
			"ruleDisabled", (int)rule->disabled),
		err);
}

/* What does not pass the filters is read over: there are a thousand rules at most. */
static enum status
list_rules(struct call *call, struct err *err)
{
	struct rule_listing it = { .topic = call_text(call, "topic"),
		.by_disabled = call_has(call, "ruleDisabled"),
		.disabled = call_flag(call, "ruleDisabled", false) };
	enum status status;

	TRY(listing_begin(&it.listing, call, err));
	status = db_rule_list(
		call->tx, listing_after(&it.listing), RULES_MOST, add_rule, &it, err);
	if (status == OK)
		status = listing_end(&it.listing, "rules", err);
	listing_free(&it.listing);
	return status;
}

/* ---- DeleteTopicRule, EnableTopicRule, DisableTopicRule ---- */

static enum status
rule_wanted(struct call *call, const char *name, struct err *err)
{
	own_struct(db_rule) rule = { .rows = NULL };
	bool found;

	TRY(db_rule_find(call->tx, name, &found, &rule, err));
	return found ? OK : rule_missing(err, name);
}

static enum status
delete_rule(struct call *call, struct err *err)
{
	const char *name = call_text(call, "ruleName");
	char arn[IOTCORE_ARN_BYTES];

	TRY(rule_wanted(call, name, err));
	iotcore_arn(arn, call->core, "rule/%s", name);
	TRY(iotcore_tags_drop(call, arn, err));
	return db_rule_delete(call->tx, name, err);
}

static enum status
enable_rule(struct call *call, struct err *err)
{
	TRY(rule_wanted(call, call_text(call, "ruleName"), err));
	return db_rule_disable(call->tx, call_text(call, "ruleName"), false, err);
}

static enum status
disable_rule(struct call *call, struct err *err)
{
	TRY(rule_wanted(call, call_text(call, "ruleName"), err));
	return db_rule_disable(call->tx, call_text(call, "ruleName"), true, err);
}

#define RULE_NAME                                                                                  \
	{                                                                                          \
		.name = "ruleName", .at = AT_PATH, .type = MEMBER_TEXT, .required = true,          \
		.least = 1, .most = 128, .pattern = &PATTERN_RULE_NAME                             \
	}
#define RULE_PAYLOAD                                                                               \
	{                                                                                          \
		.name = "topicRulePayload", .at = AT_PAYLOAD, .type = MEMBER_STRUCT,               \
		.required = true, .members = PAYLOAD                                               \
	}
#define RULE_ALONE .members = (const struct member[]){ RULE_NAME, { .name = NULL } }

const struct op TOPIC_RULE_OPS[] = {
	{ .name = "CreateTopicRule",
		.method = "POST",
		.path = "/rules/{ruleName}",
		.tx = TX_WRITE,
		.handle = create_rule,
		.members = (const struct member[]){
			RULE_NAME,
			RULE_PAYLOAD,
			{ .name = "tags", .at = AT_HEADER, .wire = "x-amz-tagging", .type = MEMBER_TEXT,
				.most = TAGGING_MOST },
			{ .name = NULL } } },
	{ .name = "GetTopicRule",
		.method = "GET",
		.path = "/rules/{ruleName}",
		.tx = TX_READ,
		.handle = get_rule,
		RULE_ALONE },
	{ .name = "ListTopicRules",
		.method = "GET",
		.path = "/rules",
		.tx = TX_READ,
		.handle = list_rules,
		.page = PAGE_TOKEN,
		.page_most = 10000,
		.members = (const struct member[]){
			{ .name = "topic", .at = AT_QUERY, .type = MEMBER_TEXT, .most = 256 },
			{ .name = "ruleDisabled", .at = AT_QUERY, .type = MEMBER_FLAG },
			{ .name = NULL } } },
	{ .name = "ReplaceTopicRule",
		.method = "PATCH",
		.path = "/rules/{ruleName}",
		.tx = TX_WRITE,
		.handle = replace_rule,
		.members = (const struct member[]){ RULE_NAME, RULE_PAYLOAD, { .name = NULL } } },
	{ .name = "DeleteTopicRule",
		.method = "DELETE",
		.path = "/rules/{ruleName}",
		.tx = TX_WRITE,
		.handle = delete_rule,
		RULE_ALONE },
	{ .name = "EnableTopicRule",
		.method = "POST",
		.path = "/rules/{ruleName}/enable",
		.tx = TX_WRITE,
		.handle = enable_rule,
		RULE_ALONE },
	{ .name = "DisableTopicRule",
		.method = "POST",
		.path = "/rules/{ruleName}/disable",
		.tx = TX_WRITE,
		.handle = disable_rule,
		RULE_ALONE },
	{ .name = NULL },
};
