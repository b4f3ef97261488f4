#include <string.h>

#include "server/iot/iot_api_internal.h"

enum status
iot_describe_endpoint(struct iot *iot, const char *type, char host[IOT_HOST_BYTES], struct err *err)
{
	own_struct(iot_request) request = { .op = OP_DESCRIBE_ENDPOINT };
	own(json_t) answer = NULL;

	TRY(iot_check(FORM_NAME, "type", type, err));
	iot_query(&request, "endpointType", type);
	TRY(iot_run(iot, &request, &answer, err));
	return iot_text(iot, answer, "endpointAddress", host, IOT_HOST_BYTES, err);
}

/* ---- destinations ---- */

static const char *const DESTINATION_STATUSES[] = {
	[IOT_DESTINATION_UNKNOWN] = "UNKNOWN",
	[IOT_DESTINATION_ENABLED] = "ENABLED",
	[IOT_DESTINATION_IN_PROGRESS] = "IN_PROGRESS",
	[IOT_DESTINATION_DISABLED] = "DISABLED",
	[IOT_DESTINATION_ERROR] = "ERROR",
	[IOT_DESTINATION_DELETING] = "DELETING",
};

/* Lists hold httpUrlSummary, the others httpUrlProperties; a destination in a VPC has neither. */
static enum status
read_destination(struct iot *iot, const json_t *item, void *arg, struct err *err)
{
	struct iot_destination *out = arg;
	const char *status = json_string_value(json_object_get(item, "status"));
	const json_t *http = json_object_get(item, "httpUrlProperties");

	if (http == NULL)
		http = json_object_get(item, "httpUrlSummary");
	*out = (struct iot_destination){ .status = IOT_DESTINATION_UNKNOWN };
	TRY(iot_text(iot, item, "arn", out->arn, sizeof(out->arn), err));
	for (unsigned i = 0; status != NULL && i < COUNT_OF(DESTINATION_STATUSES); i++)
		if (strcmp(DESTINATION_STATUSES[i], status) == 0)
			out->status = (enum iot_destination_status)i;
	iot_text_cut(item, "statusReason", out->reason, sizeof(out->reason));
	return iot_text_or_none(iot, http, "confirmationUrl", out->url, sizeof(out->url), err);
}

enum status
iot_create_topic_rule_destination(struct iot *iot, const char *url, struct iot_destination *out,
	struct err *err)
{
	own_struct(iot_request) request = { .op = OP_CREATE_TOPIC_RULE_DESTINATION };
	own(json_t) answer = NULL;

	TRY(iot_check(FORM_TOKEN, "url", url, err));
	if (strlen(url) >= IOT_URL_BYTES)
		return err_set(err, ERR_ARGUMENT, "iot_argument",
			"url: at most %d characters wanted", IOT_URL_BYTES - 1);
	TRY(iot_body(&request,
		json_pack("{s:{s:{s:s}}}", "destinationConfiguration", "httpUrlConfiguration",
			"confirmationUrl", url),
		err));
	TRY(iot_run(iot, &request, &answer, err));
	return read_destination(iot, json_object_get(answer, "topicRuleDestination"), out, err);
}

enum status
iot_confirm_topic_rule_destination(struct iot *iot, const char *token, struct err *err)
{
	own_struct(iot_request)
		request = { .op = OP_CONFIRM_TOPIC_RULE_DESTINATION, .labels = { token } };

	TRY(iot_check(FORM_TOKEN, "token", token, err));
	return iot_run(iot, &request, NULL, err);
}

enum status
iot_get_topic_rule_destination(struct iot *iot, const char *arn, struct iot_destination *out,
	struct err *err)
{
	own_struct(iot_request)
		request = { .op = OP_GET_TOPIC_RULE_DESTINATION, .labels = { arn } };
	own(json_t) answer = NULL;

	TRY(iot_check(FORM_ARN, "arn", arn, err));
	TRY(iot_run(iot, &request, &answer, err));
	return read_destination(iot, json_object_get(answer, "topicRuleDestination"), out, err);
}

enum status
iot_update_topic_rule_destination(
	struct iot *iot, const char *arn, enum iot_destination_status status, struct err *err)
{
	own_struct(iot_request) request = { .op = OP_UPDATE_TOPIC_RULE_DESTINATION };

	TRY(iot_check(FORM_ARN, "arn", arn, err));
	if (status != IOT_DESTINATION_ENABLED && status != IOT_DESTINATION_IN_PROGRESS &&
		status != IOT_DESTINATION_DISABLED)
		return err_set(err, ERR_ARGUMENT, "iot_argument",
			"status: ENABLED, IN_PROGRESS or DISABLED wanted");
	TRY(iot_body(&request,
		json_pack("{s:s, s:s}", "arn", arn, "status", DESTINATION_STATUSES[status]), err));
	return iot_run(iot, &request, NULL, err);
}

enum status
iot_list_topic_rule_destinations(struct iot *iot, struct iot_cursor *cursor,
	struct iot_destination *items, size_t max, size_t *count, struct err *err)
{
	static const struct iot_list LIST = { PAGING_TOKEN, "destinationSummaries",
		read_destination, sizeof(*items) };
	own_struct(iot_request) request = { .op = OP_LIST_TOPIC_RULE_DESTINATIONS };

	return iot_list(iot, &request, &LIST, cursor, items, max, count, err);
}

/* ---- rules ---- */

static enum status
put_rule(struct iot *iot, enum iot_op op, const char *name, const json_t *payload, struct err *err)
{
	own_struct(iot_request) request = { .op = op, .labels = { name } };

	TRY(iot_check(FORM_RULE, "rule", name, err));
	TRY(iot_body(&request, json_deep_copy(payload), err));
	return iot_run(iot, &request, NULL, err);
}

enum status
iot_create_topic_rule(struct iot *iot, const char *name, const json_t *payload, struct err *err)
{
	return put_rule(iot, OP_CREATE_TOPIC_RULE, name, payload, err);
}

enum status
iot_replace_topic_rule(struct iot *iot, const char *name, const json_t *payload, struct err *err)
{
	return put_rule(iot, OP_REPLACE_TOPIC_RULE, name, payload, err);
}

enum status
iot_delete_topic_rule(struct iot *iot, const char *name, struct err *err)
{
	own_struct(iot_request) request = { .op = OP_DELETE_TOPIC_RULE, .labels = { name } };

	TRY(iot_check(FORM_RULE, "rule", name, err));
	return iot_run(iot, &request, NULL, err);
}

enum status
iot_get_topic_rule(struct iot *iot, const char *name, json_t **rule, struct err *err)
{
	own_struct(iot_request) request = { .op = OP_GET_TOPIC_RULE, .labels = { name } };
	own(json_t) answer = NULL;
	json_t *found;

	*rule = NULL;
	TRY(iot_check(FORM_RULE, "rule", name, err));
	TRY(iot_run(iot, &request, &answer, err));
	found = json_object_get(answer, "rule");
	if (!json_is_object(found))
		return iot_malformed(iot, "rule", err);
	*rule = json_incref(found);
	return OK;
}

static enum status
read_rule(struct iot *iot, const json_t *item, void *arg, struct err *err)
{
	struct iot_rule *out = arg;

	*out = (struct iot_rule){ .disabled = json_is_true(json_object_get(item, "ruleDisabled")) };
	iot_text_cut(item, "topicPattern", out->topic, sizeof(out->topic));
	return iot_text(iot, item, "ruleName", out->name, sizeof(out->name), err);
}

enum status
iot_list_topic_rules(struct iot *iot, struct iot_cursor *cursor, struct iot_rule *items, size_t max,
	size_t *count, struct err *err)
{
	static const struct iot_list LIST = { PAGING_TOKEN, "rules", read_rule, sizeof(*items) };
	own_struct(iot_request) request = { .op = OP_LIST_TOPIC_RULES };

	return iot_list(iot, &request, &LIST, cursor, items, max, count, err);
}

/* ---- events ---- */

enum status
iot_update_event_configurations(
	struct iot *iot, const char *const *types, size_t count, bool enabled, struct err *err)
{
	own_struct(iot_request) request = { .op = OP_UPDATE_EVENT_CONFIGURATIONS };
	own(json_t) map = json_object();

	for (size_t i = 0; i < count; i++) {
		TRY(iot_check(FORM_NAME, "event type", types[i], err));
		if (json_object_set_new(
			    map, types[i], json_pack("{s:b}", "Enabled", (int)enabled)) != 0)
			return err_memory(err);
	}
	TRY(iot_body(&request, json_pack("{s:O}", "eventConfigurations", map), err));
	return iot_run(iot, &request, NULL, err);
}
