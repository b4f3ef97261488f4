/* HTTP destinations of topic rules: create, confirm, get, list, update, delete. */
#include <string.h>

#include "base/entropy.h"
#include "server/iotcore/registry.h"
#include "server/iotcore/rule_sql.h"
#include "server/iotcore/rules.h"
#include "server/iotcore/tables.h"

/* AWS's quota, and how long a token may be used. */
#define DESTINATIONS_MOST 1000
#define TOKEN_MOST_S (3 * 24 * 3600)
#define TOKEN_OCTETS ((DB_RULE_TOKEN_BYTES - 1) / 2)
#define DESTINATION_TYPE "ruledestination/"

/* ---- making ---- */

enum status
rule_check_url(struct call *call, const char *member, const char *url, struct err *err)
{
	const char *fault = rule_url_fault(url, call->core->loopback_http_destinations);

	if (fault == NULL)
		return OK;
	return iotcore_error(err, "InvalidRequestException", "Invalid %s: %s.", member, fault);
}

static enum status
draw_token(char out[DB_RULE_TOKEN_BYTES], struct err *err)
{
	uint8_t octets[TOKEN_OCTETS];

	TRY(entropy_fill(&ENTROPY_SYSTEM, octets, sizeof(octets), err));
	hex_encode(out, octets, sizeof(octets));
	return OK;
}

/* Where its client reaches the API: the host was signed. enableUrl points there. */
static enum status
base_of(struct call *call, struct buf *out, struct err *err)
{
	const char *host = request_header(call->request, "Host");

	TRY(buf_text(out, request_is_tls(call->request) ? "https://" : "http://", err));
	TRY(buf_text(out, host != NULL ? host : "localhost", err));
	return buf_add(out, "", 1, err);
}

enum status
rule_destination_create(struct call *call, const char *url, char id[DB_CORE_UUID_BYTES],
	struct err *err)
{
	own_struct(buf) base = { .limit_bytes = 512 };
	char token[DB_RULE_TOKEN_BYTES];
	int64_t count;

	TRY(db_destination_count(call->tx, &count, err));
	if (count >= DESTINATIONS_MOST)
		return iotcore_error(err, "InvalidRequestException",
			"An account can not have more than %d topic rule destinations.",
			DESTINATIONS_MOST);
	TRY(draw_token(token, err));
	TRY(base_of(call, &base, err));
	return db_destination_create(call->tx, url, token, (const char *)base.data, id, err);
}

/* ---- answers ---- */

static json_t *
render(const struct core *core, const struct db_destination *row, const char *properties)
{
	char arn[IOTCORE_ARN_BYTES];

	iotcore_arn(arn, core, DESTINATION_TYPE "http/%s", row->destination_id);
	return json_pack("{s:s,s:s,s:o,s:o,s:s*,s:{s:s}}", "arn", arn, "status", row->status,
		"createdAt", iotcore_time(row->created_us), "lastUpdatedAt",
		iotcore_time(row->updated_us), "statusReason", row->reason[0] != '\0' ? row->reason : NULL,
		properties, "confirmationUrl", row->url);
}

static enum status
reply_destination(struct call *call, const char *id, struct err *err)
{
	struct db_destination row;
	bool found;

	TRY(db_destination_find(call->tx, id, &found, &row, err));
	if (!found)
		return err_set(err, ERR_INTERNAL, "core_destination", "a new destination is gone");
	return call_reply(call,
		json_pack("{s:o}", "topicRuleDestination",
			render(call->core, &row, "httpUrlProperties")),
		err);
}

/* As with rules: AWS does not tell what is not there from what one may not see. */
static enum status
destination_wanted(struct db_destination *out, struct call *call, struct err *err)
{
	const char *arn = call_text(call, "arn");
	const char *resource = iotcore_arn_resource(call->core, arn, DESTINATION_TYPE);
	bool found;

	if (resource == NULL || strncmp(resource, "http/", 5) != 0)
		return iotcore_error(err, "InvalidRequestException",
			"Invalid topic rule destination ARN: %.200s", arn);
	TRY(db_destination_find(call->tx, resource + 5, &found, out, err));
	if (!found)
		return iotcore_error(err, "UnauthorizedException",
			"Access to topic rule destination '%.200s' was denied", arn);
	return OK;
}

/* ---- CreateTopicRuleDestination, ConfirmTopicRuleDestination ---- */

static enum status
create_destination(struct call *call, struct err *err)
{
	const json_t *http = json_object_get(
		call_json(call, "destinationConfiguration"), "httpUrlConfiguration");
	const char *url = json_string_value(json_object_get(http, "confirmationUrl"));
	struct db_destination existing;
	char id[DB_CORE_UUID_BYTES];
	char arn[IOTCORE_ARN_BYTES];
	bool found;

	if (url == NULL)
		return iotcore_error(err, "InvalidRequestException",
			"The local IoT Core has HTTP destinations only: httpUrlConfiguration wanted.");
	TRY(rule_check_url(call, "confirmationUrl", url, err));
	TRY(db_destination_by_url(call->tx, url, &found, &existing, err));
	if (found) {
		iotcore_arn(arn, call->core, DESTINATION_TYPE "http/%s", existing.destination_id);
		return iotcore_exists(call, err, existing.destination_id, arn,
			"A topic rule destination with this confirmationUrl already exists.");
	}
	TRY(rule_destination_create(call, url, id, err));
	return reply_destination(call, id, err);
}

/* By the endpoint, which has the token from us alone: that is why no signature is asked for. */
static enum status
confirm_destination(struct call *call, struct err *err)
{
	bool found;

	TRY(db_destination_confirm(
		call->tx, call_text(call, "confirmationToken"), TOKEN_MOST_S, &found, err));
	if (!found)
		return iotcore_error(err, "InvalidRequestException",
			"The confirmation token is not valid or has expired.");
	return OK;
}

/* ---- GetTopicRuleDestination, ListTopicRuleDestinations ---- */

static enum status
get_destination(struct call *call, struct err *err)
{
	struct db_destination row;

	TRY(destination_wanted(&row, call, err));
	return reply_destination(call, row.destination_id, err);
}

static enum status
add_destination(void *arg, const struct db_destination *row, struct err *err)
{
	struct listing *listing = arg;

	return listing_add(listing, row->destination_id,
		render(listing->call->core, row, "httpUrlSummary"), err);
}

static enum status
list_destinations(struct call *call, struct err *err)
{
	own_struct(listing) listing = { .call = call };

	TRY(listing_begin(&listing, call, err));
	TRY(db_destination_list(call->tx, listing_after(&listing), listing_limit(&listing),
		add_destination, &listing, err));
	return listing_end(&listing, "destinationSummaries", err);
}

/* ---- UpdateTopicRuleDestination, DeleteTopicRuleDestination ---- */

static enum status
renew(struct call *call, const char *id, struct err *err)
{
	own_struct(buf) base = { .limit_bytes = 512 };
	char token[DB_RULE_TOKEN_BYTES];

	TRY(draw_token(token, err));
	TRY(base_of(call, &base, err));
	return db_destination_renew(call->tx, id, token, (const char *)base.data, err);
}

static enum status
update_destination(struct call *call, struct err *err)
{
	const char *status = call_text(call, "status");
	struct db_destination row;

	TRY(destination_wanted(&row, call, err));
	if (strcmp(status, "IN_PROGRESS") == 0)
		return renew(call, row.destination_id, err);
	if (strcmp(status, "ENABLED") != 0 && strcmp(status, "DISABLED") != 0)
		return iotcore_error(err, "InvalidRequestException",
			"A topic rule destination can not be set to %s.", status);
	if (!row.confirmed)
		return iotcore_error(err, "InvalidRequestException",
			"A topic rule destination must be confirmed before it can be set to %s.", status);
	if (strcmp(row.status, status) == 0)
		return OK;
	return db_destination_set_status(call->tx, row.destination_id, status, err);
}

static enum status
delete_destination(struct call *call, struct err *err)
{
	struct db_destination row;

	TRY(destination_wanted(&row, call, err));
	return db_destination_delete(call->tx, row.destination_id, err);
}

static const struct member HTTP_CONFIGURATION[] = {
	{ .name = "confirmationUrl", .type = MEMBER_TEXT, .required = true, .most = RULE_URL_MOST },
	{ .name = NULL },
};
static const struct member CONFIGURATION[] = {
	{ .name = "httpUrlConfiguration", .type = MEMBER_STRUCT, .members = HTTP_CONFIGURATION },
	{ .name = NULL },
};
static const char *const STATUSES[] = { "ENABLED", "IN_PROGRESS", "DISABLED", "ERROR", "DELETING",
	NULL };

#define DESTINATION_ARN                                                                            \
	.name = "arn", .type = MEMBER_TEXT, .required = true, .least = 1, .most = ARN_MOST

const struct op RULE_DESTINATION_OPS[] = {
	{ .name = "CreateTopicRuleDestination",
		.method = "POST",
		.path = "/destinations",
		.tx = TX_WRITE,
		.handle = create_destination,
		.members = (const struct member[]){
			{ .name = "destinationConfiguration", .at = AT_BODY, .type = MEMBER_STRUCT,
				.required = true, .members = CONFIGURATION },
			{ .name = NULL } } },
	{ .name = "ConfirmTopicRuleDestination",
		.method = "GET",
		.path = "/confirmdestination/{confirmationToken+}",
		.tx = TX_WRITE,
		.handle = confirm_destination,
		.anyone = true,
		.members = (const struct member[]){
			{ .name = "confirmationToken", .at = AT_PATH, .type = MEMBER_TEXT,
				.required = true, .least = 1, .most = 2048 },
			{ .name = NULL } } },
	{ .name = "GetTopicRuleDestination",
		.method = "GET",
		.path = "/destinations/{arn+}",
		.tx = TX_READ,
		.handle = get_destination,
		.members = (const struct member[]){ { DESTINATION_ARN, .at = AT_PATH },
			{ .name = NULL } } },
	{ .name = "ListTopicRuleDestinations",
		.method = "GET",
		.path = "/destinations",
		.tx = TX_READ,
		.handle = list_destinations,
		.page = PAGE_TOKEN,
		.page_most = 1000 },
	{ .name = "UpdateTopicRuleDestination",
		.method = "PATCH",
		.path = "/destinations",
		.tx = TX_WRITE,
		.handle = update_destination,
		.members = (const struct member[]){
			{ DESTINATION_ARN, .at = AT_BODY },
			{ .name = "status", .at = AT_BODY, .type = MEMBER_TEXT, .required = true,
				.values = STATUSES },
			{ .name = NULL } } },
	{ .name = "DeleteTopicRuleDestination",
		.method = "DELETE",
		.path = "/destinations/{arn+}",
		.tx = TX_WRITE,
		.handle = delete_destination,
		.members = (const struct member[]){ { DESTINATION_ARN, .at = AT_PATH },
			{ .name = NULL } } },
	{ .name = NULL },
};
