#include "server/iotcore/rule_deliver.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "db/iotcore_account.h"
#include "server/iot/aws_transport.h"
#include "server/iotcore/registry.h"
#include "server/iotcore/rule_sql.h"

#define TRIES_MOST 3
#define TRY_TIMEOUT_MS 3000
#define PLACE_TIMEOUT_MS 30000
#define PAUSE_MS 100
/* AWS does not try again after more than this; nobody reads it here. */
#define ANSWER_MOST 16384
#define HEADERS_MOST 102 /* a rule's hundred, and two of ours */
#define DESTINATIONS_MOST 1000

/* ---- what goes where ---- */

struct plan {
	const char *topic;
	json_t *destinations; /* confirmation URLs of those that may be sent to */
	json_t *deliveries;   /* [{rule, url, headers}] */
};

static void
plan_free(struct plan *plan)
{
	json_decref(plan->destinations);
	json_decref(plan->deliveries);
}
OWNER_STRUCT(plan, plan_free)

static enum status
add_destination(void *arg, const struct db_destination *row, struct err *err)
{
	struct plan *plan = arg;

	if (strcmp(row->status, "ENABLED") != 0 || !row->confirmed)
		return OK;
	return json_array_append_new(plan->destinations, json_string(row->url)) == 0 ? OK
	                                                                             : err_memory(err);
}

static bool
is_covered(const struct plan *plan, const char *url)
{
	for (size_t i = 0; i < json_array_size(plan->destinations); i++)
		if (rule_url_covers(json_string_value(json_array_get(plan->destinations, i)), url))
			return true;
	return false;
}

static enum status
add_action(struct plan *plan, const char *rule, const json_t *http, struct err *err)
{
	const char *url = json_string_value(json_object_get(http, "url"));

	if (url == NULL)
		return OK;
	if (!is_covered(plan, url)) {
		log_event(LOG_WARN, "rule_destination_not_enabled", NULL, LOG_STR("rule", rule));
		return OK;
	}
	json_t *delivery = json_pack("{s:s,s:s,s:O*}", "rule", rule, "url", url, "headers",
		json_object_get(http, "headers"));
	return json_array_append_new(plan->deliveries, delivery) == 0 ? OK : err_memory(err);
}

static enum status
add_rule(void *arg, const struct db_rule *rule, struct err *err)
{
	struct plan *plan = arg;
	own(json_t) payload = NULL;
	json_t *action;
	size_t i;

	if (!rule_topic_matches(rule->topic, plan->topic))
		return OK;
	TRY(registry_load(&payload, rule->payload, err));
	json_array_foreach(json_object_get(payload, "actions"), i, action)
		TRY(add_action(plan, rule->name, json_object_get(action, "http"), err));
	return OK;
}

static enum status
plan_make(struct plan *plan, const struct rule_sender *sender, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	plan->destinations = json_array();
	plan->deliveries = json_array();
	if (plan->destinations == NULL || plan->deliveries == NULL)
		return err_memory(err);
	TRY(db_tx_begin(&tx, sender->core->pool, err));
	TRY(db_destination_list(&tx, "", DESTINATIONS_MOST, add_destination, plan, err));
	return db_rule_enabled(&tx, add_rule, plan, err);
}

/* ---- sending ---- */

struct message {
	const char *rule; /* NULL: a confirmation */
	const char *url;
	const char *headers[HEADERS_MOST];
	size_t header_count;
	struct view body;
};

static bool
may_help(enum status status, const struct aws_answer *answer)
{
	return status != OK || answer->http_status == 429 || answer->http_status >= 500;
}

/* OK: answered with 2xx. Otherwise the text says what came last. */
static enum status
post(const struct rule_sender *sender, const struct message *message, struct err *err)
{
	const struct aws_transfer transfer = { .method = "POST",
		.url = message->url,
		.headers = message->headers,
		.header_count = message->header_count,
		.body = message->body,
		.ca_file = sender->ca_file,
		.connect_timeout_ms = TRY_TIMEOUT_MS,
		.timeout_ms = TRY_TIMEOUT_MS,
		.place_timeout_ms = PLACE_TIMEOUT_MS,
		.answer_max_bytes = ANSWER_MOST,
		.direct = true };

	for (int tried = 1;; tried++) {
		own_struct(aws_answer) answer = { .http_status = 0 };
		enum status status = aws_transport_run(sender->transport, &transfer, &answer, err);

		if (status == OK && answer.http_status / 100 == 2)
			return OK;
		if (status == OK)
			status = err_set(err, ERR_UNAVAILABLE, "rule_refused",
				"the endpoint answered %ld", answer.http_status);
		/* Stopped while it waited: not the endpoint's fault. */
		if (strcmp(err->code, "aws_stopped") == 0 || tried == TRIES_MOST ||
			!may_help(answer.http_status == 0 ? status : OK, &answer))
			return status;
		if (!aws_transport_sleep(sender->transport, PAUSE_MS << tried))
			return err_set(err, ERR_UNAVAILABLE, "aws_stopped", "it is being stopped");
	}
}

/* ---- messages ---- */

static bool
is_json(const char *payload)
{
	json_t *json = json_loads(payload, JSON_DECODE_ANY, NULL);

	json_decref(json);
	return json != NULL;
}

static bool
has_content_type(const json_t *headers)
{
	for (size_t i = 0; i < json_array_size(headers); i++)
		if (strcasecmp(json_string_value(json_object_get(json_array_get(headers, i), "key")),
			    "Content-Type") == 0)
			return true;
	return false;
}

/* The lines are in text, one behind the other, each with its NUL. */
static enum status
add_headers(struct message *message, struct buf *text, const json_t *headers, struct err *err)
{
	size_t count = json_array_size(headers);
	const char *line;

	for (size_t i = 0; i < count && i < HEADERS_MOST - 2; i++) {
		const json_t *header = json_array_get(headers, i);

		TRY(buf_format(text, err, "%s: %s", json_string_value(json_object_get(header, "key")),
			json_string_value(json_object_get(header, "value"))));
		TRY(buf_add(text, "", 1, err));
	}
	line = (const char *)text->data;
	for (size_t i = 0; i < count && i < HEADERS_MOST - 2; i++) {
		message->headers[message->header_count++] = line;
		line += strlen(line) + 1;
	}
	return OK;
}

static enum status
deliver_one(const struct rule_sender *sender, const json_t *delivery, const char *payload,
	struct err *err)
{
	const json_t *headers = json_object_get(delivery, "headers");
	own_struct(buf) text = { .limit_bytes = (size_t)1024 * 1024 };
	struct message message = { .rule = json_string_value(json_object_get(delivery, "rule")),
		.url = json_string_value(json_object_get(delivery, "url")),
		.body = view_text(payload) };
	struct err why;

	if (!has_content_type(headers))
		message.headers[message.header_count++] = is_json(payload)
			? "Content-Type: application/json"
			: "Content-Type: application/octet-stream";
	TRY(add_headers(&message, &text, headers, err));
	if (post(sender, &message, &why) == OK) {
		log_event(LOG_DEBUG, "rule_delivered", NULL, LOG_STR("rule", message.rule));
		return OK;
	}
	if (strcmp(why.code, "aws_stopped") == 0)
		return (*err = why).status;
	log_event(LOG_WARN, "rule_delivery_failed", NULL, LOG_STR("rule", message.rule),
		LOG_STR("why", why.text));
	return OK;
}

enum status
rule_deliver(const struct rule_sender *sender, const char *topic, const char *payload,
	struct err *err)
{
	own_struct(plan) plan = { .topic = topic };

	TRY(plan_make(&plan, sender, err));
	for (size_t i = 0; i < json_array_size(plan.deliveries); i++)
		TRY(deliver_one(sender, json_array_get(plan.deliveries, i), payload, err));
	return OK;
}

/* ---- confirmations ---- */

static enum status
record(const struct rule_sender *sender, const struct db_confirmation *confirmation, bool failed,
	const char *reason, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	TRY(db_tx_begin(&tx, sender->core->pool, err));
	TRY(db_iotcore_account_lock(&tx, err));
	TRY(db_confirmation_done(&tx, confirmation, failed, reason, err));
	return db_tx_commit(&tx, err);
}

static enum status
send_confirmation(const struct rule_sender *sender, const struct db_confirmation *confirmation,
	struct err *err)
{
	char arn[IOTCORE_ARN_BYTES];
	char arn_header[IOTCORE_ARN_BYTES + 64];
	own_struct(buf) url = { .limit_bytes = 4096 };
	own_struct(buf) enable_url = { .limit_bytes = 4096 };
	own(json_t) body = NULL;
	char text[4096];
	size_t len;

	iotcore_arn(arn, sender->core, "ruledestination/http/%s", confirmation->destination_id);
	(void)snprintf(
		arn_header, sizeof(arn_header), "x-amz-rules-engine-destination-arn: %s", arn);
	TRY(buf_format(&url, err, "%s%cconfirmationToken=%s%c", confirmation->url,
		strchr(confirmation->url, '?') != NULL ? '&' : '?', confirmation->token, '\0'));
	TRY(buf_format(&enable_url, err, "%s/confirmdestination/%s%c", confirmation->base,
		confirmation->token, '\0'));
	body = json_pack("{s:s,s:s,s:s,s:s}", "arn", arn, "confirmationToken", confirmation->token,
		"enableUrl", (const char *)enable_url.data, "messageType", "DestinationConfirmation");
	if (body == NULL)
		return err_memory(err);
	len = json_dumpb(body, text, sizeof(text), JSON_COMPACT);
	if (len == 0 || len > sizeof(text))
		return err_set(err, ERR_TOO_LARGE, "buffer_limit", "confirmation: too long");
	const struct message message = { .url = (const char *)url.data,
		.headers = { "Content-Type: application/json",
			"x-amz-rules-engine-message-type: DestinationConfirmation", arn_header },
		.header_count = 3,
		.body = { (const uint8_t *)text, len } };
	return post(sender, &message, err);
}

enum status
rule_ask_confirmation(const struct rule_sender *sender, const struct db_confirmation *confirmation,
	struct err *err)
{
	char at[TIME_TEXT_BYTES];
	char reason[512];
	struct err why;
	enum status status = send_confirmation(sender, confirmation, &why);

	if (status != OK && strcmp(why.code, "aws_stopped") == 0)
		return (*err = why).status;
	time_format(at, clock_wall_s(sender->core->clock));
	if (status == OK)
		(void)snprintf(reason, sizeof(reason),
			"Awaiting confirmation. Confirmation message sent on %s; no response received "
			"from the endpoint.",
			at);
	else
		(void)snprintf(reason, sizeof(reason),
			"The confirmation message could not be delivered on %s: %.400s", at, why.text);
	return record(sender, confirmation, status != OK, reason, err);
}
