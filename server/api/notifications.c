/* server/api/notifications.c - notifications: channels, what was sent and what was not, tests, retries. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "server/api/api.h"
#include "server/api/render.h"
#include "server/app.h"
#include "server/auth.h"
#include "server/http/fields.h"
#include "server/notify/notify.h"

#define SMALL_BODY 4096
#define DEPTHS_MAX 64
/* One statement's worth; who has more asks again. */
#define RETRY_MAX 10000

typedef struct db_notification db_notification;
OWNER(db_notification, mem_free)

static enum status
find_channel(struct app *app, const char *name, const struct notify_channel **out, struct err *err)
{
	*out = notify_channel(app->notify, name);
	if (*out == NULL)
		return err_set(err, ERR_NOT_FOUND, "notify_channel_unknown",
			"channel: one of the configuration's notify_file wanted");
	return OK;
}

/* ---- what was sent ---- */

static json_t *
render(const struct db_notification *row)
{
	bool waits = strcmp(row->state, "waiting") == 0;
	json_t *body = row->body[0] != '\0' ? json_loads(row->body, 0, NULL) : NULL;
	json_t *error = row->error_code[0] == '\0' ? json_null() :
		json_pack("{s:s, s:s}", "code", row->error_code, "text", row->error_text);

	return json_pack("{s:s, s:s, s:o, s:s, s:s, s:s, s:I, s:o, s:o, s:o, s:o, s:o*}", "notification_id",
		row->notification_id, "channel", row->channel, "event_id",
		row->event_id > 0 ? json_integer((json_int_t)row->event_id) : json_null(), "kind",
		row->kind, "severity", row->severity, "state", row->state, "attempts",
		(json_int_t)row->attempts, "created_at", render_time(row->created_at_s), "due_at",
		waits ? render_time(row->due_at_s) : json_null(), "ended_at",
		row->ended_at_s > 0 ? render_time(row->ended_at_s) : json_null(), "error", error,
		"message", body);
}

static enum status
list(struct app *app, struct request *request, struct err *err)
{
	static const char *const STATES[] = { "waiting", "sent", "dead", NULL };
	struct db_notification_filter filter = { .channel = request_query(request, "channel") };
	own_struct(db_tx) tx = { NULL, NULL };
	own(db_notification) rows = NULL;
	own(json_t) items = json_array();
	char place[32];
	size_t limit;
	size_t count;

	TRY(query_choice(request, "state", STATES, &filter.state, err));
	TRY(query_limit(request, &limit, err));
	TRY(query_cursor_text(request, "notifications", place, sizeof(place), err));
	filter.before_seq = place[0] != '\0' ? strtoll(place, NULL, 10) : 0;
	if (place[0] != '\0' && filter.before_seq <= 0)
		return err_set(err, ERR_ARGUMENT, "cursor_malformed", "cursor: one of this list wanted");
	rows = mem_array(limit + 1, sizeof(*rows));
	if (rows == NULL || items == NULL)
		return err_memory(err);
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_notification_list(&tx, &filter, limit + 1, rows, &count, err));
	TRY(db_tx_commit(&tx, err));
	for (size_t i = 0; i < count && i < limit; i++)
		TRY(api_append(items, render(&rows[i]), err));
	if (count > limit)
		(void)snprintf(place, sizeof(place), "%" PRId64, rows[limit - 1].seq);
	return api_reply_page(request, "notifications", give(items), "notifications",
		count > limit ? place : NULL, err);
}

static enum status
get(struct app *app, struct request *request, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	own(db_notification) row = mem_zalloc(sizeof(*row));
	json_t *json;

	if (row == NULL)
		return err_memory(err);
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_notification_find(&tx, request_param(request, "id"), row, err));
	TRY(db_tx_commit(&tx, err));
	json = render(row);
	return json != NULL ? request_reply_json(request, 200, json, err) : err_memory(err);
}

/* ---- channels ---- */

static const struct db_notification_depth *
depth_of(const struct db_notification_depth *depths, size_t count, const char *channel)
{
	static const struct db_notification_depth NONE;

	for (size_t i = 0; i < count; i++)
		if (strcmp(depths[i].channel, channel) == 0)
			return &depths[i];
	return &NONE;
}

static json_t *
render_channel(const struct notify_channel *channel, const struct db_notification_depth *depth)
{
	return json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "channel", channel->name, "type",
		notify_type_name(channel->type), "waiting", (json_int_t)depth->waiting,
		"oldest_waiting_s", (json_int_t)depth->oldest_s, "dead", (json_int_t)depth->dead,
		"suppressed", (json_int_t)depth->held, "rate_per_hour",
		(json_int_t)channel->rate_per_hour, "burst", (json_int_t)channel->burst, "queue_max",
		(json_int_t)channel->queue_max);
}

static enum status
list_channels(struct app *app, struct request *request, struct err *err)
{
	const struct notify_config *config = notify_config(app->notify);
	struct db_notification_depth depths[DEPTHS_MAX];
	own_struct(db_tx) tx = { NULL, NULL };
	own(json_t) items = json_array();
	size_t count;

	if (items == NULL)
		return err_memory(err);
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_notification_depths(&tx, depths, DEPTHS_MAX, &count, err));
	TRY(db_tx_commit(&tx, err));
	for (size_t i = 0; i < config->channel_count; i++)
		TRY(api_append(items, render_channel(&config->channels[i],
			depth_of(depths, count, config->channels[i].name)), err));
	return request_reply_json(request, 200, json_pack("{s:O}", "channels", items), err);
}

/* ---- changes ---- */

static enum status
test(struct app *app, struct request *request, struct err *err)
{
	static const char *const ALLOWED[] = { "channel", NULL };
	const struct notify_channel *channel;
	own_struct(db_tx) tx = { NULL, NULL };
	own(db_notification) row = mem_zalloc(sizeof(*row));
	own(json_t) body = NULL;
	own(json_t) detail = NULL;
	const char *name = NULL;

	if (row == NULL)
		return err_memory(err);
	TRY(request_json(request, &body, err));
	TRY(fields_check(body, ALLOWED, err));
	TRY(fields_string(body, "channel", FIELD_REQUIRED, DB_CHANNEL_BYTES - 1, &name, err));
	TRY(find_channel(app, name, &channel, err));
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(notify_test(app, &tx, channel, request_identity(request)->actor, row, err));
	detail = json_pack("{s:s}", "notification_id", row->notification_id);
	if (detail == NULL)
		return err_memory(err);
	TRY(api_audit(app, &tx, request, "notify.test", "channel", name, detail, err));
	TRY(db_notification_find(&tx, row->notification_id, row, err));
	TRY(db_tx_commit(&tx, err));
	return request_reply_json(request, 202, render(row), err);
}

static enum status
retry(struct app *app, struct request *request, struct err *err)
{
	static const char *const ALLOWED[] = { "notification_id", "channel", NULL };
	const struct notify_channel *channel;
	own_struct(db_tx) tx = { NULL, NULL };
	own(json_t) body = NULL;
	own(json_t) detail = NULL;
	const char *id = NULL;
	const char *name = NULL;
	size_t count;

	TRY(api_json_or_empty(request, &body, err));
	TRY(fields_check(body, ALLOWED, err));
	TRY(fields_string(body, "notification_id", FIELD_OPTIONAL, DB_NOTIFICATION_ID_BYTES - 1, &id, err));
	TRY(fields_string(body, "channel", FIELD_OPTIONAL, DB_CHANNEL_BYTES - 1, &name, err));
	if (id != NULL && name != NULL)
		return err_set(err, ERR_ARGUMENT, "fields_exclusive",
			"notification_id, channel: one of them wanted, or none for all dead letters");
	if (name != NULL)
		TRY(find_channel(app, name, &channel, err));
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_notification_retry(&tx, id, name, RETRY_MAX, &count, err));
	if (id != NULL && count == 0)
		return err_set(err, ERR_NOT_FOUND, "notification_unknown",
			"notification_id: one that was not sent wanted");
	detail = json_pack("{s:I}", "retried", (json_int_t)count);
	if (detail == NULL)
		return err_memory(err);
	TRY(api_audit(app, &tx, request, "notify.retry", id != NULL ? "notification" : "channel",
		id != NULL ? id : name != NULL ? name : "all", detail, err));
	TRY(db_tx_commit(&tx, err));
	return request_reply_json(request, 200, give(detail), err);
}

static const char *const LIST_QUERY[] = { "state", "channel", "limit", "cursor", NULL };

const struct route NOTIFICATION_ROUTES[] = {
	{ .method = "GET", .path = "/v1/notifications", .handle = list, .roles = ROLES_READ,
	  .query = LIST_QUERY },
	{ .method = "GET", .path = "/v1/notifications/channels", .handle = list_channels,
	  .roles = ROLES_READ },
	{ .method = "POST", .path = "/v1/notifications/test", .handle = test, .roles = ROLE_ADMIN,
	  .body_max_bytes = SMALL_BODY },
	{ .method = "POST", .path = "/v1/notifications/retry", .handle = retry, .roles = ROLE_ADMIN,
	  .body_max_bytes = SMALL_BODY },
	{ .method = "GET", .path = "/v1/notifications/{id}", .handle = get, .roles = ROLES_READ },
	{ .method = NULL },
};
