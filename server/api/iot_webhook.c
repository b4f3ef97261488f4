/*
 * server/api/iot_webhook.c - what IoT Core's rules engine posts: events of registered certificates (rule
 * HTTPS action), one or an array of them, and the confirmation of its destination. Deliveries carry a
 * secret header that says which target they are from; the confirmation cannot, and is answered only by a
 * call to the configured endpoint of the account that it names. No URL of the message's is fetched.
 */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "ca/secret.h"
#include "server/api/api.h"
#include "server/app.h"
#include "server/http/fields.h"
#include "server/http/pace.h"
#include "server/iot/jitr.h"
#include "server/iot/room.h"
#include "server/metrics.h"

/* AWS batches up to ten events and 128 KiB. */
#define BODY_MAX_BYTES (132 * 1024)
#define EVENTS_MAX 100
/* AWS waits 3 s for an answer. */
#define CONFIRM_MS 2500
#define TYPE_HEADER "x-amz-rules-engine-message-type"

static enum status
refuse(enum status status, const char *code, const char *text, struct err *err)
{
	metric_count(METRIC_JITR_EVENTS, "webhook", "refused", 1);
	return err_set(err, status, code, "%s", text);
}

/* All of them are compared, so that time does not tell which came close. */
static enum status
site_by_secret(struct app *app, const struct request *request, struct iot_site **out, struct err *err)
{
	bool shown = false;

	*out = NULL;
	for (size_t i = 0; i < app->iot->site_count; i++) {
		struct iot_site *site = &app->iot->sites[i];
		const struct secret *secret = &site->target->webhook.secret;
		const char *value;

		if (secret->len == 0)
			continue;
		value = request_header(request, site->target->webhook.header);
		if (value == NULL)
			continue;
		shown = true;
		if (secret_equal(view_text(value), (struct view){ secret->data, secret->len }))
			*out = site;
	}
	if (*out != NULL)
		return OK;
	if (shown)
		return refuse(ERR_DENIED, "webhook_secret_wrong",
			"the secret header is not that of any target", err);
	return refuse(ERR_UNAUTHENTICATED, "webhook_secret_missing",
		"the secret header of a target is wanted", err);
}

static enum status
read_body(json_t **out, const struct request *request, struct err *err)
{
	struct view body = request_body(request);

	*out = json_loadb((const char *)body.data, body.len, JSON_REJECT_DUPLICATES, NULL);
	if (*out == NULL)
		return refuse(ERR_ARGUMENT, "jitr_malformed", "event: JSON wanted", err);
	return OK;
}

/* ---- the confirmation ---- */

static bool
is_of(const struct iot_target *target, const char *arn)
{
	char middle[sizeof(target->region) + sizeof(target->account) + 32];

	if (target->webhook.secret.len == 0 || strncmp(arn, "arn:aws", 7) != 0)
		return false;
	(void)snprintf(middle, sizeof(middle), ":iot:%s:%s:ruledestination/http/", target->region,
		target->account);
	return strstr(arn, middle) != NULL;
}

static struct iot_site *
site_of_arn(struct app *app, const char *arn)
{
	for (size_t i = 0; i < app->iot->site_count; i++)
		if (is_of(app->iot->sites[i].target, arn))
			return &app->iot->sites[i];
	return NULL;
}

/*
 * https://HOST/confirmdestination/…, and HOST exactly that of the target's Region. A local IoT Core that is
 * itself reached without TLS has no other than http to offer; the URL is not fetched anyway.
 */
static bool
is_its_url(const struct iot_target *target, const char *url)
{
	char begin[IOT_HOST_BYTES + 64];

	if (target->webhook.host[0] != '\0')
		(void)snprintf(begin, sizeof(begin), "%s://%s/confirmdestination/",
			strncmp(target->endpoint_url, "http://", 7) == 0 ? "http" : "https",
			target->webhook.host);
	else
		(void)snprintf(begin, sizeof(begin), "https://iot.%s.amazonaws.com%s/confirmdestination/",
			target->region, strncmp(target->region, "cn-", 3) == 0 ? ".cn" : "");
	return strncmp(url, begin, strlen(begin)) == 0;
}

static enum status
confirm(struct app *app, struct request *request, struct err *err)
{
	own(json_t) body = NULL;
	const char *arn = NULL;
	const char *token = NULL;
	const char *url = NULL;
	struct iot_site *site;
	struct iot iot;

	/* Nobody is known here, and a call to AWS is at the end. */
	TRY(request_pace(request, PACE_ADDRESS, err));
	TRY(read_body(&body, request, err));
	if (!json_is_object(body))
		return refuse(ERR_ARGUMENT, "jitr_malformed", "confirmation: an object wanted", err);
	TRY(fields_string(body, "arn", FIELD_REQUIRED, IOT_ARN_BYTES - 1, &arn, err));
	TRY(fields_string(body, "confirmationToken", FIELD_REQUIRED, IOT_TOKEN_BYTES - 1, &token, err));
	TRY(fields_string(body, "enableUrl", FIELD_REQUIRED, 4096, &url, err));
	site = site_of_arn(app, arn);
	if (site == NULL || !is_its_url(site->target, url))
		return refuse(ERR_DENIED, "webhook_wrong_account",
			"confirmation: account, Region and host of a configured target wanted", err);
	TRY(request_pace(request, PACE_EVERYONE, err));
	iot = iot_site_calls(site, AWS_PRIORITY_URGENT);
	iot.timeout_ms = CONFIRM_MS;
	TRY(iot_confirm_topic_rule_destination(&iot, token, err));
	log_event(LOG_INFO, "webhook_confirmed", request_id(request),
		LOG_STR("target", site->target->name));
	return request_reply_json(request, 200, json_pack("{s:s}", "status", "confirmed"), err);
}

/* ---- deliveries ---- */

static enum status
take_one(struct iot_site *site, const json_t *payload, struct err *err)
{
	struct jitr_event event;
	enum status status = jitr_read(&event, site, payload, err);

	if (status == OK)
		return jitr_accept(site, &event, 1, JITR_WEBHOOK, err);
	metric_count(METRIC_JITR_EVENTS, "webhook", "refused", 1);
	return status;
}

/* One that is refused does not keep the others out; what cannot be committed is sent again, all of it. */
static enum status
take_all(struct iot_site *site, const json_t *list, size_t *taken, struct err *err)
{
	enum status worst = OK;

	for (size_t i = 0; i < json_array_size(list); i++) {
		struct err why;
		enum status status = take_one(site, json_array_get(list, i), &why);

		if (status == OK)
			(*taken)++;
		else if (worst == OK || status == ERR_UNAVAILABLE) {
			worst = status;
			*err = why;
		}
	}
	return worst;
}

static enum status
events(struct app *app, struct request *request, struct err *err)
{
	const char *type = request_header(request, TYPE_HEADER);
	own(json_t) body = NULL;
	struct iot_site *site;
	size_t taken = 1;

	if (type != NULL && strcmp(type, "DestinationConfirmation") == 0)
		return confirm(app, request, err);
	TRY(site_by_secret(app, request, &site, err));
	TRY(read_body(&body, request, err));
	if (json_is_array(body)) {
		if (json_array_size(body) > EVENTS_MAX)
			return refuse(ERR_ARGUMENT, "jitr_malformed", "events: at most 100 wanted", err);
		taken = 0;
		TRY(take_all(site, body, &taken, err));
	} else {
		TRY(take_one(site, body, err));
	}
	return request_reply_json(request, 200, json_pack("{s:I}", "accepted", (json_int_t)taken), err);
}

/* In the URL of a confirmation; the body has it as well, and that is read. */
static const char *const QUERY[] = { "confirmationToken", NULL };

const struct route IOT_WEBHOOK_ROUTES[] = {
	{ .method = "POST", .path = "/v1/iot/jitr-events", .handle = events, .roles = ROLE_ANYONE,
	  .body_max_bytes = BODY_MAX_BYTES, .query = QUERY },
	{ .method = NULL },
};
