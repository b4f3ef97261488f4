/*
 * server/api/campaigns.c - /v1/campaigns: a part of the fleet is asked to rotate, in waves. How a campaign
 * moves is the affair of server/jobs/campaign.h; here it is asked for, shown, paused, resumed and ended.
 */
#include "server/api/campaigns.h"

#include <stdio.h>
#include <string.h>

#include "base/entropy.h"
#include "base/mem.h"
#include "db/device.h"
#include "server/api/api.h"
#include "server/api/render.h"
#include "server/app.h"
#include "server/auth.h"
#include "server/campaign_selector.h"
#include "server/http/fields.h"
#include "server/iot/forecast.h"
#include "server/iot/room.h"
#include "server/jobs/campaign_decide.h"
#include "server/jobs/jobs.h"

#define COMMENT_MAX_BYTES 256
#define ID_OCTETS 16
#define DAY_S 86400
#define DEVICES_LEAST_MOST INT64_C(1000000000)
#define PACE_MOST 10000000
/* Without IoT Core it is our own house that does the work. */
#define PACE_DEFAULT 3600
/* At most; more would let half of a wave fail unnoticed beside the other half. */
#define HALT_PERCENT_MOST 40

typedef struct db_campaign db_campaign;
typedef struct db_campaign_member db_campaign_member;
typedef struct db_device db_device;
typedef struct db_device_wanted db_device_wanted;
OWNER(db_campaign, mem_free)
OWNER(db_campaign_member, mem_free)
OWNER(db_device, mem_free)
OWNER(db_device_wanted, mem_free)

struct ask {
	struct campaign_selector selector; /* borrows from the body */
	json_t *selector_json; /* borrowed from the body */
	char *selector_text;   /* what is kept */
	struct db_campaign campaign;
	bool dry_run;
	int64_t devices; /* that the selector names, at most */
};

static void
ask_free(struct ask *ask)
{
	mem_free(give(ask->selector_text));
}
OWNER_STRUCT(ask, ask_free)

/* ---- what is asked ---- */

static enum status
read_canary(struct db_campaign *k, const json_t *body, struct err *err)
{
	static const char *const ALLOWED[] = { "devices", "percent", "confirmed_percent", "soak_s", NULL };
	const json_t *canary = NULL;

	TRY(fields_object(body, "canary", FIELD_OPTIONAL, &canary, err));
	if (canary == NULL)
		return OK;
	TRY(fields_check(canary, ALLOWED, err));
	TRY(fields_int(canary, "devices", FIELD_OPTIONAL, 1, DEVICES_LEAST_MOST, &k->canary, err));
	TRY(fields_int(canary, "percent", FIELD_OPTIONAL, 1, 100, &k->canary_share, err));
	if (json_object_get(canary, "percent") != NULL)
		k->canary_share *= 100;
	TRY(fields_int(canary, "confirmed_percent", FIELD_OPTIONAL, 0, 100, &k->canary_confirmed, err));
	return fields_int(canary, "soak_s", FIELD_OPTIONAL, 0, 90 * DAY_S, &k->soak_s, err);
}

static enum status
read_halt(struct db_campaign *k, const json_t *body, struct err *err)
{
	static const char *const ALLOWED[] = { "percent", "least", "confirm_within_s", NULL };
	const json_t *halt = NULL;

	TRY(fields_object(body, "halt", FIELD_OPTIONAL, &halt, err));
	if (halt == NULL)
		return OK;
	TRY(fields_check(halt, ALLOWED, err));
	TRY(fields_int(halt, "percent", FIELD_OPTIONAL, 0, HALT_PERCENT_MOST, &k->halt_percent, err));
	TRY(fields_int(halt, "least", FIELD_OPTIONAL, 1, DEVICES_LEAST_MOST, &k->halt_least, err));
	return fields_int(halt, "confirm_within_s", FIELD_OPTIONAL, 1, 90 * DAY_S, &k->confirm_within_s,
		err);
}

static enum status
read_wave(struct db_campaign *k, const json_t *body, struct err *err)
{
	static const char *const ALLOWED[] = { "devices", "percent", NULL };
	const json_t *wave = NULL;

	TRY(fields_object(body, "wave", FIELD_OPTIONAL, &wave, err));
	if (wave == NULL)
		return OK;
	TRY(fields_check(wave, ALLOWED, err));
	TRY(fields_int(wave, "devices", FIELD_OPTIONAL, 1, DEVICES_LEAST_MOST, &k->wave, err));
	TRY(fields_int(wave, "percent", FIELD_OPTIONAL, 1, 100, &k->wave_share, err));
	if (json_object_get(wave, "percent") != NULL)
		k->wave_share *= 100;
	return OK;
}

/* The slowest target decides. 0: there is none. */
static int64_t
pace_most(const struct app *app)
{
	int64_t policies = 0;
	int64_t most = 0;

	for (size_t i = 0; i < app->profile_count; i++)
		if ((int64_t)app->profiles[i].policy_count > policies)
			policies = (int64_t)app->profiles[i].policy_count;
	for (size_t i = 0; app->iot != NULL && i < app->iot->site_count; i++) {
		int64_t here = iot_forecast_rotations_per_hour(app->iot->sites[i].target, policies);

		if (most == 0 || here < most)
			most = here;
	}
	return most;
}

/*
 * Half of what the quotas allow unless said: new devices, revocations and repairs need theirs. Who has not
 * all targets does not know all quotas.
 */
static enum status
read_pace(struct ask *ask, const struct app *app, const json_t *body, struct err *err)
{
	int64_t most = pace_most(app);
	int64_t *pace = &ask->campaign.pace_per_hour;

	if (app->iot != NULL)
		TRY(iot_room_has_all(app->iot, err));
	*pace = most == 0 ? PACE_DEFAULT : most / 2 > 0 ? most / 2 : 1;
	TRY(fields_int(body, "pace_per_hour", FIELD_OPTIONAL, 1, PACE_MOST, pace, err));
	if (most > 0 && *pace > most)
		return err_set(err, ERR_ARGUMENT, "campaign_pace_over_quota",
			"pace_per_hour: at most %lld wanted, by the quotas of IoT Core; %lld found",
			(long long)most, (long long)*pace);
	return OK;
}

static enum status
read_ask(struct ask *ask, const struct app *app, const json_t *body, struct err *err)
{
	static const char *const ALLOWED[] = { "selector", "canary", "wave", "pace_per_hour", "halt",
		"comment", "dry_run", NULL };
	const json_t *selector;
	const char *comment = "";

	ask->campaign = (struct db_campaign){ .canary_share = 100, .canary_confirmed = 50,
		.soak_s = 3600, .wave_share = 200, .confirm_within_s = 3600, .halt_percent = 10,
		.state = "filling" };
	TRY(fields_check(body, ALLOWED, err));
	TRY(fields_object(body, "selector", FIELD_REQUIRED, &selector, err));
	ask->selector_json = json_object_get(body, "selector");
	TRY(campaign_selector_read(&ask->selector, app, ask->selector_json, err));
	TRY(read_canary(&ask->campaign, body, err));
	TRY(read_wave(&ask->campaign, body, err));
	TRY(read_halt(&ask->campaign, body, err));
	TRY(read_pace(ask, app, body, err));
	TRY(fields_text(body, "comment", FIELD_OPTIONAL, COMMENT_MAX_BYTES, &comment, err));
	(void)snprintf(ask->campaign.comment, sizeof(ask->campaign.comment), "%s", comment);
	return fields_bool(body, "dry_run", FIELD_OPTIONAL, &ask->dry_run, err);
}

/* ---- whom it names ---- */

static enum status
refuse_empty(struct err *err)
{
	return err_set(err, ERR_CONFLICT, "campaign_empty",
		"the selector names no device with an active certificate");
}

static enum status
refuse_overlap(struct err *err)
{
	return err_set(err, ERR_CONFLICT, "campaign_overlap",
		"the selector names a device that another campaign has not done with");
}

/* Each of a list must be there: a typing error is not to be found out weeks later. */
static enum status
check_list(struct db_tx *tx, struct ask *ask, struct err *err)
{
	size_t count = json_array_size(ask->selector.device_ids);
	own(db_device_wanted) wanted = mem_array(count, sizeof(*wanted));
	own(db_device) devices = mem_array(count, sizeof(*devices));
	const char *ids[CAMPAIGN_DEVICES_MAX];
	bool overlaps;

	if (wanted == NULL || devices == NULL)
		return err_memory(err);
	for (size_t i = 0; i < count; i++) {
		ids[i] = json_string_value(json_array_get(ask->selector.device_ids, i));
		wanted[i] = (struct db_device_wanted){ .device_id = ids[i], .out = &devices[i] };
	}
	TRY(db_device_find_many(tx, wanted, count, err));
	for (size_t i = 0; i < count; i++) {
		if (!wanted[i].found)
			return err_set(err, ERR_NOT_FOUND, "device_unknown",
				"selector.device_ids: there is no device as number %zu says", i);
		ask->devices += devices[i].current.issuer_id != 0;
	}
	if (ask->devices == 0)
		return refuse_empty(err);
	TRY(db_campaign_overlaps_devices(tx, ids, count, &overlaps, err));
	return overlaps ? refuse_overlap(err) : OK;
}

/* A selector that finds the whole fleet by mistake is found out by counting. */
static enum status
check_everything(struct db_tx *tx, const struct ask *ask, struct err *err)
{
	const struct db_certificate_filter all = { .status = CERT_ACTIVE,
		.now_s = ask->selector.filter.now_s };
	int64_t fleet;

	if (ask->selector.everything || ask->selector.narrowed || ask->devices < 2)
		return OK;
	TRY(db_campaign_count(tx, &all, &fleet, err));
	if (ask->devices >= fleet)
		return err_set(err, ERR_CONFLICT, "campaign_everything",
			"the selector names the whole fleet (%lld devices); if that is meant, say"
			" selector.everything: true", (long long)ask->devices);
	return OK;
}

static enum status
check_filter(struct db_tx *tx, struct ask *ask, struct err *err)
{
	bool overlaps = false;

	TRY(db_campaign_count(tx, &ask->selector.filter, &ask->devices, err));
	if (ask->devices == 0)
		return refuse_empty(err);
	TRY(check_everything(tx, ask, err));
	/* With fields that are looked at one by one, freezing the members tells. */
	if (!ask->selector.narrowed)
		TRY(db_campaign_overlaps(tx, &ask->selector.filter, &overlaps, err));
	return overlaps ? refuse_overlap(err) : OK;
}

/* ---- show ---- */

static enum status
set_progress(json_t *json, const struct db_campaign_tally *tally, struct err *err)
{
	return api_set(json, "progress", json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "waiting",
		(json_int_t)tally->waiting, "pending", (json_int_t)tally->pending, "late",
		(json_int_t)tally->late, "failed", (json_int_t)tally->failed, "confirmed",
		(json_int_t)tally->confirmed, "gone", (json_int_t)tally->gone), err);
}

static json_t *
render_asked(const struct db_campaign *k)
{
	return json_pack("{s:{s:I, s:f, s:I, s:I}, s:{s:I, s:f}, s:I, s:{s:I, s:I, s:I}}", "canary",
		"devices", (json_int_t)k->canary, "percent", (double)k->canary_share / 100,
		"confirmed_percent", (json_int_t)k->canary_confirmed, "soak_s", (json_int_t)k->soak_s,
		"wave", "devices", (json_int_t)k->wave, "percent", (double)k->wave_share / 100,
		"pace_per_hour", (json_int_t)k->pace_per_hour, "halt", "percent",
		(json_int_t)k->halt_percent, "least", (json_int_t)k->halt_least, "confirm_within_s",
		(json_int_t)k->confirm_within_s);
}

/* What it waits for, in a word. */
static const char *
waits_for(const struct db_campaign *k)
{
	if (strcmp(k->state, "running") != 0)
		return "";
	if (k->crowded)
		return "confirmations";
	if (k->wave_left > 0)
		return "pace";
	if (k->asked >= k->members)
		return "devices";
	return k->canary_stage ? "canary" : "wave";
}

static enum status
render_campaign(json_t **out, const struct app *app, const struct db_campaign *k, struct err *err)
{
	int64_t now_s = clock_wall_s(app->clock);
	own(json_t) json = render_asked(k);

	if (json == NULL)
		return err_memory(err);
	TRY(api_set(json, "campaign_id", json_string(k->campaign_id), err));
	TRY(api_set(json, "state", json_string(k->state), err));
	TRY(api_set(json, "why", json_string(k->why), err));
	TRY(api_set(json, "waits_for", json_string(waits_for(k)), err));
	TRY(api_set(json, "actor", json_string(k->actor), err));
	TRY(api_set(json, "comment", json_string(k->comment), err));
	TRY(api_set(json, "members", json_integer(k->members), err));
	TRY(api_set(json, "asked", json_integer(k->asked), err));
	TRY(api_set(json, "stage", json_string(k->canary_stage ? "canary" : "wave"), err));
	TRY(api_set(json, "wave_number", json_integer(k->wave_number), err));
	TRY(api_set(json, "left_out", json_pack("{s:I, s:I, s:I}", "rotating",
		(json_int_t)k->left_rotating, "other", (json_int_t)k->left_other, "in_another_campaign",
		(json_int_t)k->left_taken), err));
	TRY(api_set(json, "created_at", render_time(k->created_at_s), err));
	TRY(api_set(json, "started_at", render_time(k->started_at_s), err));
	TRY(api_set(json, "state_at", render_time(k->state_at_s), err));
	TRY(api_set(json, "all_asked_at", render_time(campaign_forecast_s(k, now_s)), err));
	*out = give(json);
	return OK;
}

static enum status
param_id(const struct request *request, const char **out, struct err *err)
{
	uint8_t octets[ID_OCTETS];

	*out = request_param(request, "id");
	if (!hex_decode(octets, sizeof(octets), *out, strlen(*out)))
		return err_set(err, ERR_NOT_FOUND, "campaign_unknown", "there is no campaign of that id");
	return OK;
}

static enum status
reply_one(struct app *app, struct request *request, unsigned status, const char *id, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	own_struct(bytes) selector = { NULL, 0 };
	struct db_campaign_tally tally;
	struct db_campaign k;
	own(json_t) json = NULL;

	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_campaign_find(&tx, id, &k, err));
	TRY(db_campaign_selector(&tx, id, &selector, err));
	TRY(db_campaign_tally(&tx, id, -1, INT64_MAX, &tally, err));
	TRY(db_tx_commit(&tx, err));
	TRY(render_campaign(&json, app, &k, err));
	TRY(set_progress(json, &tally, err));
	TRY(api_set(json, "selector", json_loadb((const char *)selector.data, selector.len, 0, NULL), err));
	return request_reply_json(request, status, give(json), err);
}

static enum status
show(struct app *app, struct request *request, struct err *err)
{
	const char *id;

	TRY(param_id(request, &id, err));
	return reply_one(app, request, 200, id, err);
}

static enum status
list(struct app *app, struct request *request, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	own(json_t) items = json_array();
	own(db_campaign) rows = NULL;
	char next[PLACE_TEXT_BYTES];
	struct list_place place;
	int64_t last_us;
	size_t limit;
	size_t count;

	TRY(query_limit(request, &limit, err));
	TRY(query_list_place(request, "campaigns", &place, err));
	rows = mem_array(limit, sizeof(*rows));
	if (rows == NULL || items == NULL)
		return err_memory(err);
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_campaign_list(&tx, place.at_us, place.id, limit, rows, &count, &last_us, err));
	TRY(db_tx_commit(&tx, err));
	for (size_t i = 0; i < count; i++) {
		json_t *one;

		TRY(render_campaign(&one, app, &rows[i], err));
		TRY(api_append(items, one, err));
	}
	if (count == limit)
		list_place_text(next, last_us, rows[count - 1].campaign_id);
	return api_reply_page(request, "campaigns", give(items), "campaigns", count == limit ? next : NULL,
		err);
}

static enum status
render_members(json_t *items, const struct app *app, const struct db_campaign *k,
	const struct db_campaign_member *rows, size_t count, struct err *err)
{
	for (size_t i = 0; i < count; i++) {
		const struct app_ca *ca = app_ca_by_issuer(app, rows[i].ref.issuer_id);
		char serial[SERIAL_TEXT_BYTES];

		serial_format(serial, &rows[i].ref.serial);
		TRY(api_append(items, json_pack("{s:s, s:s, s:s?, s:s, s:b, s:o}", "device_id",
			rows[i].device_id, "serial", serial, "ca", ca != NULL ? ca->ca_id : NULL, "state",
			rows[i].state, "asked", rows[i].rank <= k->frontier, "successor_at",
			render_time(rows[i].since_s)), err));
	}
	return OK;
}

static enum status
members(struct app *app, struct request *request, struct err *err)
{
	static const char *const STATES[] = { "waiting", "pending", "late", "failed", "confirmed",
		"gone", NULL };
	own_struct(db_tx) tx = { NULL, NULL };
	own(json_t) items = json_array();
	own(db_campaign_member) rows = NULL;
	char place[64 + DB_ID_BYTES] = "";
	char after[DB_ID_BYTES] = "";
	const char *state = NULL;
	long long rank = -1;
	struct db_campaign k;
	const char *id;
	size_t limit;
	size_t count;

	TRY(param_id(request, &id, err));
	TRY(query_limit(request, &limit, err));
	TRY(query_choice(request, "state", STATES, &state, err));
	TRY(query_cursor_text(request, "campaign_members", place, sizeof(place), err));
	if (place[0] != '\0' && sscanf(place, "%lld:%64s", &rank, after) != 2)
		return err_set(err, ERR_ARGUMENT, "cursor_malformed", "cursor: not one of this list");
	rows = mem_array(limit, sizeof(*rows));
	if (rows == NULL || items == NULL)
		return err_memory(err);
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_campaign_find(&tx, id, &k, err));
	TRY(db_campaign_members(&tx, id, state, rank, after, limit, rows, &count, err));
	TRY(db_tx_commit(&tx, err));
	TRY(render_members(items, app, &k, rows, count, err));
	if (count == limit)
		(void)snprintf(place, sizeof(place), "%lld:%s", (long long)rows[count - 1].rank,
			rows[count - 1].device_id);
	return api_reply_page(request, "members", give(items), "campaign_members",
		count == limit ? place : NULL, err);
}

/* ---- begin ---- */

static enum status
fill_campaign(struct ask *ask, const struct app *app, const struct request *request, struct err *err)
{
	struct db_campaign *k = &ask->campaign;
	uint8_t id[ID_OCTETS];
	size_t len;

	TRY(entropy_fill(&ENTROPY_SYSTEM, id, sizeof(id), err));
	hex_encode(k->campaign_id, id, sizeof(id));
	k->created_at_s = k->issued_until_s = clock_wall_s(app->clock);
	(void)snprintf(k->actor, sizeof(k->actor), "%s", request_identity(request)->actor);
	(void)snprintf(k->request_id, sizeof(k->request_id), "%s", request_id(request));
	ask->selector_text = mem_array(1, DB_CAMPAIGN_SELECTOR_BYTES);
	if (ask->selector_text == NULL)
		return err_memory(err);
	len = json_dumpb(ask->selector_json, ask->selector_text, DB_CAMPAIGN_SELECTOR_BYTES - 1,
		JSON_COMPACT | JSON_SORT_KEYS);
	if (len == 0 || len >= DB_CAMPAIGN_SELECTOR_BYTES)
		return err_set(err, ERR_ARGUMENT, "selector_field", "selector: a shorter one wanted");
	ask->selector_text[len] = '\0';
	return OK;
}

/* At most: how many are left out is known when the members are frozen. */
static enum status
reply_forecast(struct app *app, struct request *request, struct ask *ask, struct err *err)
{
	struct db_campaign *k = &ask->campaign;
	int64_t now_s = clock_wall_s(app->clock);
	int64_t most = pace_most(app);
	own(json_t) json = NULL;

	k->members = ask->devices;
	campaign_begin(k, now_s);
	json = render_asked(k);
	if (json == NULL)
		return err_memory(err);
	TRY(api_set(json, "dry_run", json_true(), err));
	TRY(api_set(json, "members", json_integer(ask->devices), err));
	TRY(api_set(json, "pace_most_per_hour", most > 0 ? json_integer(most) : json_null(), err));
	TRY(api_set(json, "hours", json_real((double)(campaign_forecast_s(k, now_s) - now_s) / 3600), err));
	TRY(api_set(json, "all_asked_at", render_time(campaign_forecast_s(k, now_s)), err));
	return request_reply_json(request, 200, give(json), err);
}

static enum status
begin(struct app *app, struct request *request, struct ask *ask, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	own(json_t) detail = json_pack("{s:s, s:I, s:I}", "comment", ask->campaign.comment, "devices",
		(json_int_t)ask->devices, "pace_per_hour", (json_int_t)ask->campaign.pace_per_hour);

	if (detail == NULL)
		return err_memory(err);
	if (ask->selector.device_ids == NULL)
		TRY(api_set(detail, "selector", json_string(ask->selector_text), err));
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_campaign_create(&tx, &ask->campaign, ask->selector_text, err));
	TRY(api_audit(app, &tx, request, "campaign.begin", "campaign", ask->campaign.campaign_id, detail,
		err));
	TRY(db_tx_commit(&tx, err));
	if (app->jobs != NULL)
		jobs_wake(app->jobs, "jitrca_wake");
	return OK;
}

static enum status
check_whom(struct app *app, struct ask *ask, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	TRY(db_tx_begin(&tx, app->pool, err));
	return ask->selector.device_ids != NULL ? check_list(&tx, ask, err) : check_filter(&tx, ask, err);
}

enum status
campaigns_begin(struct app *app, struct request *request, json_t *body, char id[DB_CAMPAIGN_ID_BYTES],
	struct err *err)
{
	own_struct(ask) ask = { .selector_text = NULL };

	id[0] = '\0';
	TRY(read_ask(&ask, app, body, err));
	TRY(check_whom(app, &ask, err));
	if (ask.dry_run)
		return OK;
	TRY(fill_campaign(&ask, app, request, err));
	TRY(begin(app, request, &ask, err));
	(void)snprintf(id, DB_CAMPAIGN_ID_BYTES, "%s", ask.campaign.campaign_id);
	return OK;
}

static enum status
create(struct app *app, struct request *request, struct err *err)
{
	own_struct(ask) ask = { .selector_text = NULL };
	own(json_t) body = NULL;
	char location[64];

	TRY(request_json(request, &body, err));
	TRY(read_ask(&ask, app, body, err));
	TRY(check_whom(app, &ask, err));
	if (ask.dry_run)
		return reply_forecast(app, request, &ask, err);
	TRY(fill_campaign(&ask, app, request, err));
	TRY(begin(app, request, &ask, err));
	(void)snprintf(location, sizeof(location), "/v1/campaigns/%s", ask.campaign.campaign_id);
	TRY(request_reply_header(request, "Location", location, err));
	return reply_one(app, request, 202, ask.campaign.campaign_id, err);
}

/* ---- pause, resume, abort ---- */

struct change {
	const char *action; /* of the audit record */
	const char *to;
	const char *const *from;
};

static const char *const FROM_RUNNING[] = { "running", NULL };
static const char *const FROM_STANDING[] = { "paused", "halted", NULL };
static const char *const FROM_OPEN[] = { "filling", "running", "paused", "halted", NULL };
static const struct change PAUSE = { "campaign.pause", "paused", FROM_RUNNING };
static const struct change RESUME = { "campaign.resume", "running", FROM_STANDING };
static const struct change ABORT = { "campaign.abort", "aborted", FROM_OPEN };

static bool
may_change(const struct change *change, const char *state)
{
	for (const char *const *from = change->from; *from != NULL; from++)
		if (strcmp(*from, state) == 0)
			return true;
	return false;
}

static enum status
change_state(struct app *app, struct request *request, const char *id, const char *reason,
	const struct change *change, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	own(json_t) detail = NULL;
	struct db_campaign k;

	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_campaign_lock(&tx, id, &k, err));
	if (strcmp(k.state, change->to) == 0)
		return OK;
	if (!may_change(change, k.state))
		return err_set(err, ERR_CONFLICT, "campaign_state", "the campaign is %s", k.state);
	detail = json_pack("{s:s, s:s, s:I}", "from", k.state, "reason", reason, "asked",
		(json_int_t)k.asked);
	if (detail == NULL)
		return err_memory(err);
	if (change == &RESUME)
		campaign_resume(&k, clock_wall_s(app->clock));
	(void)snprintf(k.state, sizeof(k.state), "%s", change->to);
	(void)snprintf(k.why, sizeof(k.why), "%s", reason);
	TRY(db_campaign_save(&tx, &k, err));
	TRY(api_audit(app, &tx, request, change->action, "campaign", id, detail, err));
	return db_tx_commit(&tx, err);
}

static enum status
change_campaign(struct app *app, struct request *request, struct err *err)
{
	static const char *const ALLOWED[] = { "reason", NULL };
	own(json_t) body = NULL;
	const char *reason = "";
	const char *id;

	TRY(param_id(request, &id, err));
	TRY(api_json_or_empty(request, &body, err));
	TRY(fields_check(body, ALLOWED, err));
	TRY(fields_string(body, "reason", FIELD_OPTIONAL, COMMENT_MAX_BYTES, &reason, err));
	TRY(change_state(app, request, id, reason, request_route(request)->data, err));
	return reply_one(app, request, 200, id, err);
}

static const char *const LIST_QUERY[] = { "limit", "cursor", NULL };
static const char *const MEMBERS_QUERY[] = { "state", "limit", "cursor", NULL };

#define CREATE_BODY (96 * 1024)
#define SMALL_BODY 4096

const struct route CAMPAIGN_ROUTES[] = {
	{ .method = "POST", .path = "/v1/campaigns", .handle = create, .roles = ROLE_ADMIN,
	  .body_max_bytes = CREATE_BODY },
	{ .method = "GET", .path = "/v1/campaigns", .handle = list, .roles = ROLES_READ,
	  .query = LIST_QUERY },
	{ .method = "GET", .path = "/v1/campaigns/{id}", .handle = show, .roles = ROLES_READ },
	{ .method = "GET", .path = "/v1/campaigns/{id}/members", .handle = members, .roles = ROLES_READ,
	  .query = MEMBERS_QUERY },
	{ .method = "POST", .path = "/v1/campaigns/{id}/pause", .handle = change_campaign,
	  .roles = ROLE_ADMIN, .body_max_bytes = SMALL_BODY, .data = &PAUSE },
	{ .method = "POST", .path = "/v1/campaigns/{id}/resume", .handle = change_campaign,
	  .roles = ROLE_ADMIN, .body_max_bytes = SMALL_BODY, .data = &RESUME },
	{ .method = "POST", .path = "/v1/campaigns/{id}/abort", .handle = change_campaign,
	  .roles = ROLE_ADMIN, .body_max_bytes = SMALL_BODY, .data = &ABORT },
	{ .method = NULL },
};
