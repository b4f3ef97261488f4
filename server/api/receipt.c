#include "server/api/receipt.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "server/api/api.h"
#include "server/api/render.h"
#include "server/app.h"
#include "server/iot/forecast.h"
#include "server/iot/room.h"
#include "server/notify/event.h"
#include "server/notify/notify.h"

/* Each of our issuers has that many lists at most. */
#define LISTS_MAX (CRL_SCOPES * APP_CAS_MAX)
/* Within that a list that is due is made and everywhere, beyond what it waits for others. */
#define LIST_LATE_MS 1000

typedef struct db_receipt_list db_receipt_list;
OWNER(db_receipt_list, mem_free)

/* ---- what it would do ---- */

static json_t *
render_lines(const char *name, const struct db_blast_line *lines, size_t count)
{
	own(json_t) list = json_array();

	if (list == NULL)
		return NULL;
	for (size_t i = 0; i < count; i++)
		if (json_array_append_new(list, json_pack("{s:s, s:I}", name, lines[i].key, "count",
			(json_int_t)lines[i].count)) != 0)
			return NULL;
	return give(list);
}

static bool
has_targets(const struct app *app)
{
	return app->iot != NULL && (app->iot->site_count > 0 || iot_room_elsewhere(app->iot));
}

/* At each target; NULL: memory. */
static json_t *
render_forecast(const struct app *app, const struct iot_forecast_ask *ask)
{
	own(json_t) list = json_array();

	for (size_t i = 0; has_targets(app) && i < app->iot->site_count; i++) {
		const struct iot_target *target = app->iot->sites[i].target;
		struct iot_forecast forecast;

		iot_forecast_make(&forecast, target, ask);
		if (json_array_append_new(list, json_pack("{s:s, s:I, s:I}", "target", target->name,
			"calls", (json_int_t)forecast.calls, "minutes",
			(json_int_t)((forecast.seconds + 59) / 60))) != 0)
			return NULL;
	}
	return give(list);
}

static size_t
policies_most(const struct app *app)
{
	size_t most = 0;

	for (size_t i = 0; i < app->profile_count; i++)
		if (app->profiles[i].policy_count > most)
			most = app->profiles[i].policy_count;
	return most;
}

/* By profile where the lines tell; others may have as many policies as any profile. */
static void
ask_of_radius(struct iot_forecast_ask *out, const struct app *app, const struct db_blast_radius *radius)
{
	int64_t left = radius->certificates;
	size_t most = policies_most(app);

	for (size_t i = 0; i < radius->by_profile_count; i++) {
		const struct ca_profile *profile = app_profile(app, radius->by_profile[i].key);
		int64_t count = radius->by_profile[i].count;

		left -= count;
		if (profile != NULL && profile->policy_count == 0)
			continue; /* never in IoT Core: stations, servers */
		out->certificates += count;
		out->policies += count * (int64_t)(profile != NULL ? profile->policy_count : most);
	}
	out->certificates += left;
	out->policies += left * (int64_t)most;
}

static json_t *
render_growth(const struct db_blast_radius *radius, enum revocation_reason reason)
{
	json_int_t each = RECEIPT_ENTRY_BYTES(reason);

	return json_pack("{s:I, s:I, s:I, s:I, s:I}", "entries", (json_int_t)radius->entries,
		"full_bytes", each * (json_int_t)radius->entries, "delta_bytes",
		each * (json_int_t)radius->entries, "shards", (json_int_t)radius->lists,
		"largest_shard_bytes", each * (json_int_t)radius->largest_list);
}

static json_t *
render_seen(const struct db_blast_radius *radius)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:I}", "day", (json_int_t)radius->seen_day, "week",
		(json_int_t)radius->seen_week, "month", (json_int_t)radius->seen_month, "before",
		(json_int_t)radius->seen_before, "never", (json_int_t)radius->seen_never);
}

static bool
needs_approval(const struct app *app, int64_t count)
{
	return app->config.revocation_approval_over > 0 && count > app->config.revocation_approval_over;
}

enum status
receipt_radius(json_t **out, const struct app *app, const json_t *selector,
	enum revocation_reason reason, const struct db_blast_radius *radius,
	const struct db_outbox_takes *takes, struct err *err)
{
	struct iot_forecast_ask cost = { .ahead = takes->waiting,
		.hold = reason == REASON_CERTIFICATE_HOLD };

	ask_of_radius(&cost, app, radius);
	*out = json_pack("{s:b, s:s, s:O, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:b, s:o, s:o, s:o, s:o, s:o}",
		"dry_run", 1, "reason", revocation_reason_name(reason), "selector", selector,
		"certificates", (json_int_t)radius->certificates, "devices",
		(json_int_t)radius->devices, "stations", (json_int_t)radius->stations, "cut_off",
		(json_int_t)radius->cut_off, "keep_confirmed", (json_int_t)radius->keep_confirmed,
		"keep_unconfirmed", (json_int_t)radius->keep_unconfirmed, "everything",
		(int)radius->everything, "approval_required",
		(int)needs_approval(app, radius->certificates), "last_seen", render_seen(radius),
		"crl", render_growth(radius, reason), "by_station",
		render_lines("station", radius->by_station, radius->by_station_count), "by_profile",
		render_lines("profile", radius->by_profile, radius->by_profile_count), "iot",
		render_forecast(app, &cost));
	return *out != NULL ? OK : err_memory(err);
}

/* ---- what became of it ---- */

static const char *
state_of(bool done)
{
	return done ? "done" : "running";
}

static json_t *
render_us(int64_t at_us)
{
	return render_time(at_us / 1000000);
}

/* 0 as JSON null. */
static json_t *
render_number(int64_t number)
{
	return number != 0 ? json_integer((json_int_t)number) : json_null();
}

static json_t *
render_proof(int64_t number, const uint8_t sha256[DB_SHA256_BYTES])
{
	return number != 0 ? render_hex(sha256, DB_SHA256_BYTES) : json_null();
}

static json_t *
render_after(int64_t from_us, int64_t to_us)
{
	int64_t ms = (to_us - from_us) / 1000;

	return to_us != 0 ? json_integer((json_int_t)(ms > 0 ? ms : 0)) : json_null();
}

static json_t *
render_list(const struct app *app, const struct db_receipt_list *list)
{
	const struct app_ca *ca = app_ca_by_issuer(app, list->issuer_id);
	char name[8];
	int64_t due_us = list->marked_at_us + (app->config.crl_debounce_ms + LIST_LATE_MS) * 1000;

	if (list->scope >= 0)
		(void)snprintf(name, sizeof(name), "%02x", (unsigned)list->scope);
	else
		(void)snprintf(name, sizeof(name), "%s",
			list->scope == CRL_SCOPE_DELTA ? "delta" : "full");
	return json_pack("{s:s, s:s, s:o, s:o, s:o, s:o, s:o}", "ca", ca != NULL ? ca->ca_id : "", "list",
		name, "due_at", render_us(due_us), "done_at", render_us(list->done_at_us), "after_ms",
		render_after(list->marked_at_us, list->done_at_us), "number",
		render_number(list->number), "sha256", render_proof(list->number, list->sha256));
}

struct progress {
	bool carried_out; /* all of it is in the rows */
	bool followed;    /* and nobody may remember otherwise any more (server/freshness.h) */
	int64_t last_us;  /* when the last of it came into the rows */
};

/*
 * full: the full list alone, or all others. It may go by the clock (crl_full_immediate_max), and the delta
 * says what is not on it; so it is done by itself.
 */
static enum status
render_crl(json_t **out, const struct app *app, const struct db_receipt_list *lists, size_t count,
	bool full, const struct progress *progress, struct err *err)
{
	own(json_t) list = json_array();
	json_int_t pending = 0;
	int64_t last_us = 0;

	for (size_t i = 0; i < count; i++) {
		if ((lists[i].scope == CRL_SCOPE_FULL) != full)
			continue;
		if (lists[i].done_at_us == 0)
			pending++;
		if (lists[i].done_at_us > last_us)
			last_us = lists[i].done_at_us;
		TRY(api_append(list, render_list(app, &lists[i]), err));
	}
	*out = json_pack("{s:s, s:I, s:o, s:O}", "state",
		state_of(progress->carried_out && pending == 0), "pending", pending, "done_at",
		render_us(progress->carried_out && pending == 0 ? last_us : 0), "lists", list);
	return *out != NULL ? OK : err_memory(err);
}

/*
 * Our own listeners and answers read the rows; what other servers remember is forgotten with the
 * notification, and does not count after FRESHNESS_LATE_MS without one.
 */
static json_t *
render_own(const struct progress *progress)
{
	int64_t due_us = progress->last_us != 0 ? progress->last_us + FRESHNESS_LATE_MS * 1000 : 0;

	return json_pack("{s:s, s:o, s:o}", "state", state_of(progress->followed), "due_at",
		render_us(due_us), "done_at", render_us(progress->followed ? progress->last_us : 0));
}

static json_t *
render_sites(const struct app *app, const struct db_receipt_site *sites, size_t count, int64_t *left)
{
	own(json_t) list = json_array();

	*left = 0;
	for (size_t i = 0; i < count; i++) {
		bool known = false;

		for (size_t k = 0; has_targets(app) && k < app->iot->site_count; k++)
			known = known || strcmp(app->iot->sites[k].target->name, sites[i].target) == 0;
		if (known && sites[i].seen - sites[i].done > *left)
			*left = sites[i].seen - sites[i].done;
		if (json_array_append_new(list, json_pack("{s:s, s:I, s:I, s:o}", "target",
			sites[i].target, "seen", (json_int_t)sites[i].seen, "done",
			(json_int_t)sites[i].done, "read_back_at",
			render_time(sites[i].read_back_at_s))) != 0)
			return NULL;
	}
	return give(list);
}

/*
 * What is left to be done in IoT Core, as it was last read back. Until all is carried out, and read back
 * once, what waits in the outbox is what is known.
 */
static enum status
render_iot(json_t **out, const struct app *app, struct db_tx *tx, const struct db_bulk *bulk,
	struct err *err)
{
	struct db_receipt_site sites[IOT_TARGETS_MAX];
	struct iot_forecast_ask cost = { .hold = bulk->reason == REASON_CERTIFICATE_HOLD };
	struct db_outbox_takes takes;
	own(json_t) list = NULL;
	size_t count;
	int64_t left;

	if (!has_targets(app)) {
		*out = json_pack("{s:s}", "state", "not_configured");
		return *out != NULL ? OK : err_memory(err);
	}
	TRY(db_receipt_sites(tx, bulk->revocation_id, sites, IOT_TARGETS_MAX, &count, err));
	TRY(db_outbox_takes(tx, bulk->finished_at_s, &takes, err));
	list = render_sites(app, sites, count, &left);
	if (bulk->settled_at_s == 0 && takes.waiting > left)
		left = takes.waiting;
	if (bulk->state == BULK_RUNNING && bulk->matched > bulk->revoked)
		left += bulk->matched - bulk->revoked;
	cost.certificates = left;
	cost.policies = left * (int64_t)policies_most(app);
	*out = json_pack("{s:s, s:I, s:I, s:o, s:o, s:O}", "state", state_of(bulk->settled_at_s != 0),
		"pending", (json_int_t)left, "dead_letters", (json_int_t)takes.dead, "done_at",
		render_time(bulk->settled_at_s), "forecast", render_forecast(app, &cost), "targets", list);
	return *out != NULL ? OK : err_memory(err);
}

/* A single one raises no event: nobody is told by a webhook. */
static bool
is_told(const struct db_bulk *bulk)
{
	static const char SINGLE[] = "{\"certificate_id\":";

	return strncmp(bulk->selector, SINGLE, sizeof(SINGLE) - 1) != 0;
}

/* running: it waits, for its time or for another try. failed: given up; `jitrca notify retry` tries again. */
static const char *
delivery_state(const struct db_notification *row, bool pending)
{
	if (row == NULL)
		return pending ? "running" : "not_sent";
	return strcmp(row->state, "sent") == 0 ? "done" :
		strcmp(row->state, "dead") == 0 ? "failed" : "running";
}

static json_t *
render_delivery(const char *channel, const struct db_notification *row, bool pending)
{
	bool sent = row != NULL && strcmp(row->state, "sent") == 0;

	return json_pack("{s:s, s:s, s:o, s:o, s:o, s:o, s:I, s:o}", "channel", channel, "state",
		delivery_state(row, pending), "due_at", render_time(row != NULL ? row->created_at_s : 0),
		"done_at", render_time(sent ? row->ended_at_s : 0), "delivery_id",
		row != NULL ? json_string(row->notification_id) : json_null(), "http_status",
		render_number(row != NULL ? row->http_status : 0), "attempts",
		(json_int_t)(row != NULL ? row->attempts : 0), "error",
		row != NULL && row->error_code[0] != '\0' ? json_string(row->error_code) : json_null());
}

struct deliveries {
	struct db_notification rows[NOTIFY_CHANNELS_MAX];
	size_t count;
	bool pending; /* some may yet be put */
};
typedef struct deliveries deliveries_t;
OWNER(deliveries_t, mem_free)

static const struct db_notification *
delivery_of(const struct deliveries *deliveries, const char *channel)
{
	for (size_t i = 0; i < deliveries->count; i++)
		if (strcmp(deliveries->rows[i].channel, channel) == 0)
			return &deliveries->rows[i];
	return NULL;
}

/* What was delivered, also by channels that are no more; and those that are to be told, by the rules. */
static enum status
add_deliveries(json_t *list, const struct app *app, const struct deliveries *deliveries, struct err *err)
{
	const struct notify_config *config = app->notify != NULL ? notify_config(app->notify) : NULL;
	int64_t repeat_after_s;

	for (size_t i = 0; i < deliveries->count; i++)
		TRY(api_append(list, render_delivery(deliveries->rows[i].channel, &deliveries->rows[i],
			false), err));
	for (size_t i = 0; config != NULL && i < config->channel_count; i++) {
		const struct notify_channel *channel = &config->channels[i];

		if (channel->type == NOTIFY_WEBHOOK && delivery_of(deliveries, channel->name) == NULL &&
		    notify_config_wants(config, channel->name, NOTIFY_REVOCATION_DONE, SEVERITY_INFO,
			    &repeat_after_s))
			TRY(api_append(list, render_delivery(channel->name, NULL, deliveries->pending),
				err));
	}
	return OK;
}

static enum status
render_webhook(json_t **out, const struct app *app, struct db_tx *tx, const struct db_bulk *bulk,
	struct err *err)
{
	own(deliveries_t) deliveries = mem_zalloc(sizeof(*deliveries));
	own(json_t) list = json_array();
	const char *state = "not_configured";
	const json_t *one;
	bool routing;
	size_t i;

	if (deliveries == NULL || list == NULL)
		return err_memory(err);
	if (is_told(bulk)) {
		TRY(db_notification_of_receipt(tx, bulk->revocation_id, NOTIFY_CHANNELS_MAX,
			deliveries->rows, &deliveries->count, &routing, err));
		deliveries->pending = bulk->state != BULK_DONE || routing;
		TRY(add_deliveries(list, app, deliveries, err));
	}
	json_array_foreach(list, i, one) {
		const char *its = json_string_value(json_object_get(one, "state"));

		if (i == 0 || strcmp(its, "running") == 0 ||
		    (strcmp(its, "failed") == 0 && strcmp(state, "running") != 0))
			state = its;
	}
	*out = json_pack("{s:s, s:O}", "state", state, "deliveries", list);
	return *out != NULL ? OK : err_memory(err);
}

static struct progress
progress_of(const struct app *app, const struct db_bulk *bulk, const struct db_receipt_list *lists,
	size_t count)
{
	struct progress out = { .carried_out = bulk->state == BULK_DONE };

	for (size_t i = 0; i < count; i++)
		if (lists[i].marked_at_us > out.last_us)
			out.last_us = lists[i].marked_at_us;
	/* In whole seconds, and one more, for the clocks of servers and database differ a little. */
	out.followed = out.carried_out && (out.last_us == 0 || clock_wall_s(app->clock) >
		(out.last_us + FRESHNESS_LATE_MS * 1000) / 1000000);
	return out;
}

static enum status
render_targets(json_t **out, const struct app *app, struct db_tx *tx, const struct db_bulk *bulk,
	bool *complete, struct err *err)
{
	own(db_receipt_list) lists = mem_array(LISTS_MAX, sizeof(*lists));
	own(json_t) crl = NULL;
	own(json_t) full = NULL;
	own(json_t) iot = NULL;
	own(json_t) webhook = NULL;
	struct progress progress;
	const char *states[4];
	size_t count;

	if (lists == NULL)
		return err_memory(err);
	TRY(db_receipt_lists(tx, bulk->revocation_id, lists, LISTS_MAX, &count, err));
	progress = progress_of(app, bulk, lists, count);
	TRY(render_crl(&crl, app, lists, count, false, &progress, err));
	TRY(render_crl(&full, app, lists, count, true, &progress, err));
	TRY(render_iot(&iot, app, tx, bulk, err));
	TRY(render_webhook(&webhook, app, tx, bulk, err));
	states[0] = json_string_value(json_object_get(crl, "state"));
	states[1] = json_string_value(json_object_get(full, "state"));
	states[2] = json_string_value(json_object_get(iot, "state"));
	states[3] = json_string_value(json_object_get(webhook, "state"));
	*complete = progress.followed;
	for (size_t i = 0; i < COUNT_OF(states); i++)
		*complete = *complete && strcmp(states[i], "running") != 0;
	*out = json_pack("{s:O, s:O, s:o, s:o, s:o, s:O, s:O}", "crl", crl, "full", full, "ocsp",
		render_own(&progress), "rest", render_own(&progress), "session", render_own(&progress),
		"iot", iot, "webhook", webhook);
	return *out != NULL ? OK : err_memory(err);
}

static json_t *
render_approval(const struct db_bulk *bulk)
{
	if (bulk->decide_until_s == 0)
		return json_null();
	return json_pack("{s:o, s:o, s:o, s:s}", "until", render_time(bulk->decide_until_s), "decided_at",
		render_time(bulk->decided_at_s), "decided_by",
		bulk->decided_by[0] != '\0' ? json_string(bulk->decided_by) : json_null(), "comment",
		bulk->decision);
}

enum status
receipt_line(json_t **out, const struct db_bulk *bulk, struct err *err)
{
	*out = json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:o, s:o, s:o}", "revocation_id",
		bulk->revocation_id, "state", bulk_state_name(bulk->state), "actor", bulk->actor, "reason",
		revocation_reason_name(bulk->reason), "comment", bulk->comment, "matched",
		(json_int_t)bulk->matched, "revoked", (json_int_t)bulk->revoked, "created_at",
		render_time(bulk->created_at_s), "finished_at", render_time(bulk->finished_at_s),
		"approval", render_approval(bulk));
	return *out != NULL ? OK : err_memory(err);
}

static json_t *
render_outcomes(const struct db_outcomes *outcomes)
{
	return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "open", (json_int_t)outcomes->open, "revoked",
		(json_int_t)outcomes->revoked, "held", (json_int_t)outcomes->held, "already_revoked",
		(json_int_t)outcomes->already_revoked, "expired", (json_int_t)outcomes->expired,
		"superseded", (json_int_t)outcomes->superseded);
}

enum status
receipt_render(json_t **out, const struct app *app, struct db_tx *tx, const struct db_bulk *bulk,
	struct err *err)
{
	own(json_t) line = NULL;
	struct db_outcomes outcomes;
	json_t *targets = NULL;
	bool complete = false;

	TRY(receipt_line(&line, bulk, err));
	TRY(db_targets_count(tx, bulk->revocation_id, &outcomes, err));
	TRY(api_set(line, "selector", json_loads(bulk->selector, 0, NULL), err));
	TRY(api_set(line, "outcomes", render_outcomes(&outcomes), err));
	TRY(render_targets(&targets, app, tx, bulk, &complete, err));
	TRY(api_set(line, "targets", targets, err));
	TRY(api_set(line, "complete", json_boolean(complete), err));
	*out = give(line);
	return OK;
}

static json_t *
render_shard(const struct app *app, const struct db_target *target)
{
	const struct app_ca *ca = app_ca_by_issuer(app, target->ref.issuer_id);
	char path[sizeof("/crl//00.crl") + CA_ID_BYTES];

	(void)snprintf(path, sizeof(path), "/crl/%s/%02x.crl", ca != NULL ? ca->ca_id : "",
		(unsigned)serial_shard(&target->ref.serial));
	return json_pack("{s:s, s:s, s:o, s:o, s:o, s:o}", "state", state_of(target->list_number != 0),
		"path", path, "done_at", render_us(target->listed_at_us), "after_ms",
		render_after(target->done_at_us, target->listed_at_us), "number",
		render_number(target->list_number), "sha256",
		render_proof(target->list_number, target->list_sha256));
}

enum status
receipt_target(json_t **out, const struct app *app, const struct db_target *target, struct err *err)
{
	bool ours = strcmp(target->outcome, "revoked") == 0 || strcmp(target->outcome, "held") == 0;
	char serial[SERIAL_TEXT_BYTES];
	own(json_t) json = NULL;

	serial_format(serial, &target->ref.serial);
	json = json_pack("{s:o, s:s, s:o, s:s, s:o, s:o, s:o}", "certificate_id",
		target->exists ? render_hex(target->sha256, DB_SHA256_BYTES) : json_null(), "serial",
		serial, "device_id", target->exists ? json_string(target->device_id) : json_null(),
		"outcome", target->outcome[0] != '\0' ? target->outcome : "open", "done_at",
		render_us(target->done_at_us), "revoked_at", render_time(target->revoked_at_s), "crl",
		ours ? render_shard(app, target) : json_null());
	if (json == NULL)
		return err_memory(err);
	*out = give(json);
	return OK;
}
