/* server/api/iot.c - IoT Core: status, outbox, reconciliation, security events, our CAs there. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "db/event.h"
#include "server/api/api.h"
#include "server/api/render.h"
#include "server/app.h"
#include "server/auth.h"
#include "server/http/fields.h"
#include "server/iot/aws_breaker.h"
#include "server/iot/forecast.h"
#include "server/iot/mqtt.h"
#include "server/iot/register_ca.h"
#include "server/iot/room.h"
#include "server/iot/walk.h"

#define CAS_MAX (IOT_TARGETS_MAX * 8)
#define SMALL_BODY 4096

typedef struct db_outbox_row db_outbox_row;
typedef struct db_event db_event;
OWNER(db_outbox_row, mem_free)
OWNER(db_event, mem_free)

static enum status
no_target(struct err *err)
{
	return err_set(err, ERR_NOT_FOUND, "iot_target_unknown",
		"target: one of the configuration's iot_targets_file wanted");
}

/* The target that is named, or the only one. */
static enum status
find_site(struct app *app, const char *name, struct iot_site **out, struct err *err)
{
	*out = iot_room_site(app->iot, name);
	return *out != NULL ? OK : no_target(err);
}

/* ---- status ---- */

static json_t *
render_ca(const struct app *app, const struct db_iot_ca *ca)
{
	const struct app_ca *ours = app_ca_by_issuer(app, ca->issuer_id);

	return json_pack("{s:s, s:s?, s:s, s:s, s:s, s:s, s:s, s:b, s:o, s:o}", "target", ca->target,
		"ca", ours != NULL ? ours->ca_id : NULL, "account", ca->account, "region", ca->region,
		"ca_certificate_id", ca->ca_certificate_id, "mode", ca->mode, "status", ca->status,
		"auto_registration", ca->auto_registration, "registered_at",
		render_time(ca->registered_at_s), "observed_at", render_time(ca->observed_at_s));
}

/* How long what waits takes at the account's quotas, at best. */
static int64_t
forecast_s(const struct iot_target *target, int64_t takes, int64_t gives)
{
	double update = aws_quota_find(target->quotas, target->quota_count,
		"UpdateCertificate").per_second;
	double attach = aws_quota_find(target->quotas, target->quota_count,
		"AttachPolicy").per_second;
	double slower = update < attach ? update : attach;
	struct iot_forecast forecast;

	iot_forecast_make(&forecast, target, &(struct iot_forecast_ask){ .ahead = takes });
	return forecast.seconds + (int64_t)((double)gives / slower + 0.999);
}

static json_t *
render_site(struct iot_site *site, const struct db_outbox_depth *depth)
{
	const struct iot_target *target = site->target;
	struct aws_health health;
	char mqtt[256];

	aws_client_health(site->client, &health);
	iot_mqtt_state(site->mqtt, mqtt, sizeof(mqtt));
	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:o, s:s, s:o, s:I, s:I}", "name", target->name,
		"account", target->account, "region", target->region, "certificate_mode",
		target->mode == IOT_MODE_SNI_ONLY ? "SNI_ONLY" : "DEFAULT", "breaker",
		aws_breaker_name(health.breaker), "last_error", health.last.error > AWS_ERROR_NONE ?
			json_pack("{s:s, s:s}", "error", aws_error_name(health.last.error), "message",
				health.last.message) : json_null(), "subscription", mqtt,
		"last_event_at", render_time(site->last_event_s), "forecast_revocations_s",
		(json_int_t)forecast_s(target, depth->waiting[OUTBOX_TAKES], 0), "forecast_s",
		(json_int_t)forecast_s(target, depth->waiting[OUTBOX_TAKES],
			depth->waiting[OUTBOX_GIVES]));
}

static json_t *
render_depth(const struct db_outbox_depth *depth)
{
	static const char *const NAMES[] = { "takes", "gives", "upkeep" };
	json_t *waiting = json_object();

	for (int i = 0; i < OUTBOX_PRIORITIES; i++)
		(void)json_object_set_new(waiting, NAMES[i], json_pack("{s:I, s:I}", "waiting",
			(json_int_t)depth->waiting[i], "oldest_s", (json_int_t)depth->oldest_s[i]));
	return json_pack("{s:o, s:I}", "priorities", waiting, "dead_letters", (json_int_t)depth->dead);
}

static enum status
read_status(struct app *app, struct db_outbox_depth *depth, struct db_iot_ca *cas, size_t *count,
	struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_outbox_depth(&tx, depth, err));
	return db_iot_ca_list(&tx, cas, CAS_MAX, count, err);
}

static enum status
get_status(struct app *app, struct request *request, struct err *err)
{
	own(json_t) targets = json_array();
	own(json_t) list = json_array();
	struct db_iot_ca cas[CAS_MAX];
	struct db_outbox_depth depth;
	size_t count;

	TRY(read_status(app, &depth, cas, &count, err));
	for (size_t i = 0; i < app->iot->site_count; i++)
		TRY(api_append(targets, render_site(&app->iot->sites[i], &depth), err));
	for (size_t i = 0; i < count; i++)
		TRY(api_append(list, render_ca(app, &cas[i]), err));
	return request_reply_json(request, 200, json_pack("{s:O, s:O, s:o}", "targets", targets, "cas",
		list, "outbox", render_depth(&depth)), err);
}

/* ---- the outbox ---- */

static json_t *
render_outbox(const struct db_outbox_row *row)
{
	bool dead = row->failed_at_s != 0;
	json_t *error = row->error_code[0] == '\0' ? json_null() :
		json_pack("{s:s, s:s}", "code", row->error_code, "text", row->error_text);

	return json_pack("{s:s, s:I, s:s, s:i, s:I, s:s, s:o, s:o, s:o}", "key", row->key, "version",
		(json_int_t)row->version, "cause", row->cause, "priority", row->priority, "attempts",
		(json_int_t)row->attempts, "state", dead ? "dead" : "waiting", "created_at",
		render_time(row->created_at_us / 1000000), "due_at",
		dead ? json_null() : render_time(row->due_at_us / 1000000), "error", error);
}

static enum status
list_outbox(struct app *app, struct request *request, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	own(db_outbox_row) rows = NULL;
	own(json_t) items = json_array();
	char after[CURSOR_MAX_BYTES + 1];
	bool dead = false;
	size_t limit;
	size_t count;

	TRY(query_bool(request, "dead", &dead, err));
	TRY(query_limit(request, &limit, err));
	TRY(query_cursor_text(request, "outbox", after, sizeof(after), err));
	rows = mem_array(limit + 1, sizeof(*rows));
	if (rows == NULL || items == NULL)
		return err_memory(err);
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_outbox_list(&tx, dead, after, limit + 1, rows, &count, err));
	TRY(db_tx_commit(&tx, err));
	for (size_t i = 0; i < count && i < limit; i++)
		TRY(api_append(items, render_outbox(&rows[i]), err));
	return api_reply_page(request, "rows", give(items), "outbox",
		count > limit ? rows[limit - 1].key : NULL, err);
}

static enum status
retry_outbox(struct app *app, struct request *request, struct err *err)
{
	static const char *const ALLOWED[] = { "key", NULL };
	own_struct(db_tx) tx = { NULL, NULL };
	own(json_t) body = NULL;
	own(json_t) detail = NULL;
	const char *key = NULL;
	size_t count;

	TRY(api_json_or_empty(request, &body, err));
	TRY(fields_check(body, ALLOWED, err));
	TRY(fields_string(body, "key", FIELD_OPTIONAL, DB_OUTBOX_KEY_BYTES - 1, &key, err));
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_outbox_retry(&tx, key, &count, err));
	if (key != NULL && count == 0)
		return err_set(err, ERR_NOT_FOUND, "outbox_row_unknown",
			"key: a dead letter's wanted (GET /v1/iot/outbox?dead=true)");
	detail = json_pack("{s:I}", "retried", (json_int_t)count);
	TRY(api_audit(app, &tx, request, "iot.retry", "outbox", key != NULL ? key : "all", detail, err));
	TRY(db_outbox_notify(&tx, OUTBOX_TAKES, err));
	TRY(db_tx_commit(&tx, err));
	return request_reply_json(request, 200, give(detail), err);
}

/* ---- reconciliation ---- */

static json_t *
render_walk(const struct app *app, const struct db_iot_walk *walk)
{
	const struct app_ca *ca = app_ca_by_issuer(app, walk->issuer_id);
	json_t *drift = json_loads(walk->drift, 0, NULL);

	return json_pack("{s:s, s:s?, s:s, s:b, s:I, s:o, s:o, s:o}", "target", walk->target, "ca",
		ca != NULL ? ca->ca_id : NULL, "state", walk->finished_at_s != 0 ? "done" : "running",
		"repair", walk->repair, "seen", (json_int_t)walk->seen, "drift",
		drift != NULL ? drift : json_object(), "started_at", render_time(walk->started_at_s),
		"finished_at", render_time(walk->finished_at_s));
}

static enum status
list_walks(struct app *app, json_t *items, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	struct db_iot_ca cas[CAS_MAX];
	struct db_iot_walk walk;
	size_t count;
	bool found;

	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_iot_ca_list(&tx, cas, CAS_MAX, &count, err));
	for (size_t i = 0; i < count; i++) {
		TRY(db_iot_walk_find(&tx, cas[i].target, cas[i].issuer_id, "reconcile", &walk, &found,
			err));
		if (found)
			TRY(api_append(items, render_walk(app, &walk), err));
	}
	return OK;
}

static enum status
reply_walks(struct app *app, struct request *request, unsigned status, struct err *err)
{
	own(json_t) items = json_array();

	if (items == NULL)
		return err_memory(err);
	TRY(list_walks(app, items, err));
	return request_reply_json(request, status, json_pack("{s:O}", "walks", items), err);
}

static enum status
get_reconcile(struct app *app, struct request *request, struct err *err)
{
	return reply_walks(app, request, 200, err);
}

static enum status
audit_call(struct app *app, struct request *request, const char *action, const char *id,
	json_t *detail, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(api_audit(app, &tx, request, action, "iot", id, detail, err));
	return db_tx_commit(&tx, err);
}

static enum status
reconcile(struct app *app, struct request *request, struct err *err)
{
	static const char *const ALLOWED[] = { "target", "repair", NULL };
	own(json_t) body = NULL;
	own(json_t) detail = NULL;
	const char *target = NULL;
	struct iot_site *site;
	bool repair = false;

	TRY(api_json_or_empty(request, &body, err));
	TRY(fields_check(body, ALLOWED, err));
	TRY(fields_string(body, "target", FIELD_OPTIONAL, DB_TARGET_BYTES - 1, &target, err));
	TRY(fields_bool(body, "repair", FIELD_OPTIONAL, &repair, err));
	if (target != NULL)
		TRY(find_site(app, target, &site, err));
	detail = json_pack("{s:b}", "repair", repair);
	if (detail == NULL)
		return err_memory(err);
	TRY(audit_call(app, request, "iot.reconcile", target != NULL ? target : "all", detail, err));
	TRY(iot_walk_ask(app->iot, target, repair, err));
	return reply_walks(app, request, 202, err);
}

/* ---- our CAs there ---- */

static enum status
change_ca(struct app *app, struct request *request, const char *target,
	enum status (*run)(const struct iot_ca_change *change, struct db_iot_ca *out, struct err *err),
	struct err *err)
{
	struct iot_ca_change change = { .ca = app_ca_by_id(app, request_param(request, "id")),
		.actor = request_identity(request)->actor, .request_id = request_id(request) };
	struct db_iot_ca state;
	json_t *json;

	if (change.ca == NULL)
		return err_set(err, ERR_NOT_FOUND, "ca_unknown", "there is no CA of that id");
	TRY(find_site(app, target, &change.site, err));
	TRY(run(&change, &state, err));
	json = render_ca(app, &state);
	return json != NULL ? request_reply_json(request, 200, json, err) : err_memory(err);
}

static enum status
post_ca(struct app *app, struct request *request,
	enum status (*run)(const struct iot_ca_change *change, struct db_iot_ca *out, struct err *err),
	struct err *err)
{
	static const char *const ALLOWED[] = { "target", NULL };
	own(json_t) body = NULL;
	const char *target = NULL;

	TRY(api_json_or_empty(request, &body, err));
	TRY(fields_check(body, ALLOWED, err));
	TRY(fields_string(body, "target", FIELD_OPTIONAL, DB_TARGET_BYTES - 1, &target, err));
	return change_ca(app, request, target, run, err);
}

static enum status
register_ca(struct app *app, struct request *request, struct err *err)
{
	return post_ca(app, request, iot_ca_register, err);
}

static enum status
deactivate_ca(struct app *app, struct request *request, struct err *err)
{
	return post_ca(app, request, iot_ca_deactivate, err);
}

static enum status
delete_ca(struct app *app, struct request *request, struct err *err)
{
	return change_ca(app, request, request_query(request, "target"), iot_ca_delete, err);
}

static enum status
get_ca(struct app *app, struct request *request, struct err *err)
{
	const struct app_ca *ca = app_ca_by_id(app, request_param(request, "id"));
	own(json_t) items = json_array();
	struct db_outbox_depth depth;
	struct db_iot_ca cas[CAS_MAX];
	size_t count;

	if (ca == NULL)
		return err_set(err, ERR_NOT_FOUND, "ca_unknown", "there is no CA of that id");
	TRY(read_status(app, &depth, cas, &count, err));
	for (size_t i = 0; i < count; i++)
		if (cas[i].issuer_id == ca->issuer_id)
			TRY(api_append(items, render_ca(app, &cas[i]), err));
	return request_reply_json(request, 200, json_pack("{s:O}", "registrations", items), err);
}

/* ---- security events ---- */

static json_t *
text_or_null(const char *text)
{
	return text[0] != '\0' ? json_string(text) : json_null();
}

static json_t *
render_event(const struct db_event *event)
{
	json_t *detail = json_loads(event->detail, 0, NULL);

	return json_pack("{s:I, s:o, s:s, s:s, s:o, s:o, s:o, s:o}", "event_id",
		(json_int_t)event->event_id, "at", render_time(event->at_s), "kind", event->kind,
		"severity", event->severity, "device_id", text_or_null(event->device_id),
		"certificate_id", text_or_null(event->certificate_id), "target",
		text_or_null(event->target), "detail", detail != NULL ? detail : json_object());
}

static enum status
list_events(struct app *app, struct request *request, struct err *err)
{
	static const char *const SEVERITIES[] = { "info", "low", "medium", "high", "critical", NULL };
	struct db_event_filter filter = { .kind = request_query(request, "kind") };
	own_struct(db_tx) tx = { NULL, NULL };
	own(db_event) rows = NULL;
	own(json_t) items = json_array();
	char place[32];
	size_t limit;
	size_t count;

	TRY(query_choice(request, "severity", SEVERITIES, &filter.severity, err));
	TRY(query_id(request, "device_id", &filter.device_id, err));
	TRY(query_time(request, "since", &filter.since_s, err));
	TRY(query_limit(request, &limit, err));
	TRY(query_cursor_text(request, "events", place, sizeof(place), err));
	filter.before_id = place[0] != '\0' ? strtoll(place, NULL, 10) : 0;
	if (place[0] != '\0' && filter.before_id <= 0)
		return err_set(err, ERR_ARGUMENT, "cursor_malformed", "cursor: one of this list wanted");
	rows = mem_array(limit + 1, sizeof(*rows));
	if (rows == NULL || items == NULL)
		return err_memory(err);
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_event_list(&tx, &filter, limit + 1, rows, &count, err));
	TRY(db_tx_commit(&tx, err));
	for (size_t i = 0; i < count && i < limit; i++)
		TRY(api_append(items, render_event(&rows[i]), err));
	if (count > limit)
		(void)snprintf(place, sizeof(place), "%lld", (long long)rows[limit - 1].event_id);
	return api_reply_page(request, "events", give(items), "events", count > limit ? place : NULL,
		err);
}

static const char *const OUTBOX_QUERY[] = { "dead", "limit", "cursor", NULL };
static const char *const EVENT_QUERY[] = { "kind", "severity", "device_id", "since", "limit",
	"cursor", NULL };
static const char *const TARGET_QUERY[] = { "target", NULL };

const struct route IOT_ROUTES[] = {
	{ .method = "GET", .path = "/v1/iot/status", .handle = get_status, .roles = ROLES_READ },
	{ .method = "GET", .path = "/v1/iot/outbox", .handle = list_outbox, .roles = ROLES_READ,
	  .query = OUTBOX_QUERY },
	{ .method = "POST", .path = "/v1/iot/outbox/retry", .handle = retry_outbox, .roles = ROLE_ADMIN,
	  .body_max_bytes = SMALL_BODY },
	{ .method = "GET", .path = "/v1/iot/reconcile", .handle = get_reconcile, .roles = ROLES_READ },
	{ .method = "POST", .path = "/v1/iot/reconcile", .handle = reconcile, .roles = ROLE_ADMIN,
	  .body_max_bytes = SMALL_BODY },
	{ .method = "GET", .path = "/v1/cas/{id}/iot-registration", .handle = get_ca,
	  .roles = ROLES_READ },
	{ .method = "POST", .path = "/v1/cas/{id}/iot-registration", .handle = register_ca,
	  .roles = ROLE_ADMIN, .body_max_bytes = SMALL_BODY },
	{ .method = "POST", .path = "/v1/cas/{id}/iot-registration/deactivate",
	  .handle = deactivate_ca, .roles = ROLE_ADMIN, .body_max_bytes = SMALL_BODY },
	{ .method = "DELETE", .path = "/v1/cas/{id}/iot-registration", .handle = delete_ca,
	  .roles = ROLE_ADMIN, .query = TARGET_QUERY },
	{ .method = "GET", .path = "/v1/events", .handle = list_events, .roles = ROLES_READ,
	  .query = EVENT_QUERY },
	{ .method = NULL },
};
