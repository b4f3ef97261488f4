/*
 * server/api/succession.c - one CA after another (docs/succession.md): the steps of the way, what each looks
 * at before it goes, and where the succession stands. Which CA issues is told by the row alone
 * (server/succession.h); what IoT Core has to be told is told before the row moves, and may be repeated.
 */
#include "server/succession.h"

#include <stdio.h>
#include <string.h>

#include "ca/cert.h"
#include "db/issuer.h"
#include "server/api/api.h"
#include "server/api/campaigns.h"
#include "server/api/render.h"
#include "server/auth.h"
#include "server/failpoint.h"
#include "server/http/fields.h"
#include "server/iot/register_ca.h"
#include "server/iot/room.h"
#include "server/notify/event.h"
#include "server/protocol/crl.h"

#define BODY_BYTES 4096
/* Counts stop here: "a million" tells as much, and is read faster. */
#define COUNT_MOST 1000000

struct walk {
	struct app *app;
	struct request *request;
	struct db_succession row; /* as it was */
	const struct app_ca *old, *new;
	const json_t *body;       /* borrowed */
	char campaign_id[DB_CAMPAIGN_ID_BYTES];
};

/* ---- what steps look at ---- */

static enum status
live_of(const struct walk *walk, const struct app_ca *ca, int64_t *live, int64_t *unseen, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	TRY(db_tx_begin(&tx, walk->app->pool, err));
	return db_succession_live(&tx, ca->issuer_id, clock_wall_s(walk->app->clock), COUNT_MOST, live,
		unseen, err);
}

/* In each target: active, and new devices get in by it. */
static enum status
check_registered(const struct walk *walk, const struct app_ca *ca, struct err *err)
{
	struct iot_room *room = walk->app->iot;
	own_struct(db_tx) tx = { NULL, NULL };

	TRY(iot_room_has_all(room, err));
	TRY(db_tx_begin(&tx, walk->app->pool, err));
	for (size_t i = 0; i < room->site_count; i++) {
		struct db_iot_ca there;

		TRY(db_iot_ca_find(&tx, room->sites[i].target->name, ca->issuer_id, &there, err));
		if (strcmp(there.status, "ACTIVE") != 0 || !there.auto_registration)
			return err_set(err, ERR_CONFLICT, "succession_not_registered",
				"%s: ACTIVE with auto-registration wanted in %s, %s found", ca->ca_id,
				there.target, there.status);
	}
	return OK;
}

/* A server without the key could not issue any more. */
static enum status
check_keys(const struct walk *walk, const struct app_ca *ca, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	char host[DB_HOST_BYTES] = "";
	int32_t instance;

	TRY(db_tx_begin(&tx, walk->app->pool, err));
	TRY(db_instance_without(&tx, ca->issuer_id, &instance, host, err));
	if (instance != 0)
		return err_set(err, ERR_CONFLICT, "succession_key_missing",
			"the server on %s (instance %d) has no key of %s: copy it there and reload that"
			" server", host, instance, ca->ca_id);
	return OK;
}

/* Certificates point to its lists from the first on. */
static enum status
check_lists(const struct walk *walk, const struct app_ca *ca, struct err *err)
{
	struct crl_cache_health health;

	crl_cache_health(walk->app->crls, ca->ca_id, &health);
	if (health.missing > 0)
		return err_set(err, ERR_CONFLICT, "succession_lists_missing",
			"%s: %zu of its CRLs are not published yet", ca->ca_id, health.missing);
	return OK;
}

static enum status
on_each_site(const struct walk *walk, const struct app_ca *ca,
	enum status (*run)(const struct iot_ca_change *change, struct db_iot_ca *out, struct err *err),
	struct err *err)
{
	struct iot_room *room = walk->app->iot;

	TRY(iot_room_has_all(room, err));
	for (size_t i = 0; i < room->site_count; i++) {
		struct iot_ca_change change = { .site = &room->sites[i], .ca = ca,
			.actor = request_identity(walk->request)->actor,
			.request_id = request_id(walk->request) };
		struct db_iot_ca state;

		TRY(run(&change, &state, err));
	}
	return OK;
}

/* ---- the steps: forward ---- */

static enum status
to_registered(struct walk *walk, struct err *err)
{
	return on_each_site(walk, walk->new, iot_ca_register, err);
}

static enum status
to_issuing(struct walk *walk, struct err *err)
{
	TRY(check_registered(walk, walk->new, err));
	TRY(check_keys(walk, walk->new, err));
	return check_lists(walk, walk->new, err);
}

/* {campaign?: what POST /v1/campaigns takes but selector and dry_run}. */
static enum status
campaign_body(const struct walk *walk, json_t **out, struct err *err)
{
	const json_t *asked = json_object_get(walk->body, "campaign");
	own(json_t) body = asked != NULL ? json_deep_copy(asked) : json_object();

	if (body == NULL)
		return err_memory(err);
	if (!json_is_object(body))
		return err_set(err, ERR_ARGUMENT, "field_type", "campaign: an object wanted");
	if (json_object_get(body, "selector") != NULL || json_object_get(body, "dry_run") != NULL)
		return err_set(err, ERR_ARGUMENT, "field_unknown",
			"campaign: neither selector nor dry_run wanted: it is for the old CA's devices");
	TRY(api_set(body, "selector", json_pack("{s:s, s:b}", "ca", walk->old->ca_id, "everything", 1),
		err));
	*out = give(body);
	return OK;
}

/* One that was begun before, by hand or by a call whose answer was lost. */
static enum status
check_campaign(const struct walk *walk, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	own_struct(bytes) text = { NULL, 0 };
	own(json_t) selector = NULL;
	const char *ca_id;
	struct db_campaign k;

	TRY(db_tx_begin(&tx, walk->app->pool, err));
	TRY(db_campaign_find(&tx, walk->campaign_id, &k, err));
	TRY(db_campaign_selector(&tx, walk->campaign_id, &text, err));
	selector = json_loadb((const char *)text.data, text.len, 0, NULL);
	ca_id = json_string_value(json_object_get(selector, "ca"));
	if (ca_id == NULL || strcmp(ca_id, walk->old->ca_id) != 0 || strcmp(k.state, "aborted") == 0)
		return err_set(err, ERR_CONFLICT, "succession_campaign",
			"campaign_id: a campaign with selector.ca %s that is not aborted wanted",
			walk->old->ca_id);
	return OK;
}

/* What a step has begun that was interrupted before the row moved: another would only meet it. */
static enum status
find_begun(struct walk *walk, const json_t *body, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	char selector[64 + DB_ID_BYTES];
	size_t len = json_dumpb(json_object_get(body, "selector"), selector, sizeof(selector) - 1,
		JSON_COMPACT | JSON_SORT_KEYS);

	if (len == 0 || len > sizeof(selector) - 1)
		return err_memory(err);
	selector[len] = '\0';
	TRY(db_tx_begin(&tx, walk->app->pool, err));
	return db_campaign_find_open(&tx, selector, walk->row.changed_at_s, walk->campaign_id, err);
}

static enum status
to_campaign(struct walk *walk, struct err *err)
{
	own(json_t) body = NULL;
	enum status status;

	if (walk->campaign_id[0] != '\0')
		return check_campaign(walk, err);
	TRY(campaign_body(walk, &body, err));
	TRY(find_begun(walk, body, err));
	if (walk->campaign_id[0] != '\0')
		return OK;
	status = campaigns_begin(walk->app, walk->request, body, walk->campaign_id, err);
	/* A CA without devices needs none. */
	return status == ERR_CONFLICT && strcmp(err->code, "campaign_empty") == 0 ? OK : status;
}

/* What has never shown itself would be refused at its first connection. */
static enum status
to_retiring(struct walk *walk, struct err *err)
{
	int64_t live, unseen;

	TRY(iot_room_has_all(walk->app->iot, err));
	if (walk->app->iot->site_count > 0) {
		TRY(live_of(walk, walk->old, &live, &unseen, err));
		if (live == COUNT_MOST)
			return err_set(err, ERR_CONFLICT, "succession_uncounted",
				"%s has %lld live certificates or more, and whether IoT Core has seen"
				" each is not known: fewer wanted", walk->old->ca_id, (long long)live);
		if (unseen > 0)
			return err_set(err, ERR_CONFLICT, "succession_unseen",
				"%lld live certificates of %s were never seen by IoT Core and could"
				" not come in any more", (long long)unseen, walk->old->ca_id);
	}
	return on_each_site(walk, walk->old, iot_ca_stop_auto, err);
}

static enum status
refuse_live(const struct walk *walk, const struct app_ca *ca, struct err *err)
{
	int64_t live, unseen;

	TRY(live_of(walk, ca, &live, &unseen, err));
	if (live > 0)
		return err_set(err, ERR_CONFLICT, "succession_live",
			"%lld devices have a live certificate of %s", (long long)live, ca->ca_id);
	return OK;
}

static enum status
to_retired(struct walk *walk, struct err *err)
{
	TRY(refuse_live(walk, walk->old, err));
	return on_each_site(walk, walk->old, iot_ca_deactivate, err);
}

/* ---- and back ---- */

static enum status
back_to_campaign(struct walk *walk, struct err *err)
{
	return on_each_site(walk, walk->old, iot_ca_register, err);
}

/*
 * The campaign's end is written with the row: see move(). A step forward that was interrupted may have
 * switched auto-registration off in some targets.
 */
static enum status
back_to_issuing(struct walk *walk, struct err *err)
{
	return on_each_site(walk, walk->old, iot_ca_register, err);
}

static enum status
back_to_registered(struct walk *walk, struct err *err)
{
	TRY(check_registered(walk, walk->old, err));
	TRY(check_keys(walk, walk->old, err));
	return check_lists(walk, walk->old, err);
}

static enum status
back_to_prepared(struct walk *walk, struct err *err)
{
	TRY(refuse_live(walk, walk->new, err));
	return on_each_site(walk, walk->new, iot_ca_deactivate, err);
}

/* A registration that was interrupted may have reached some targets. */
static enum status
to_cancelled(struct walk *walk, struct err *err)
{
	int64_t live, unseen;

	TRY(live_of(walk, walk->new, &live, &unseen, err));
	/* Devices have certificates of it, whose doing ever that was: it is not ours to take away. */
	return live > 0 ? OK : on_each_site(walk, walk->new, iot_ca_withdraw, err);
}

struct step {
	const char *from, *to;
	const char *verb; /* of `jitrca ca succession` */
	bool forward;
	enum status (*run)(struct walk *walk, struct err *err);
};

static const struct step STEPS[] = {
	{ "prepared", "registered", "register", true, to_registered },
	{ "registered", "issuing", "issue", true, to_issuing },
	{ "issuing", "campaign", "campaign", true, to_campaign },
	{ "campaign", "retiring", "retire", true, to_retiring },
	{ "retiring", "retired", "finish", true, to_retired },
	{ "retiring", "campaign", "back --to campaign", false, back_to_campaign },
	{ "campaign", "issuing", "back --to issuing", false, back_to_issuing },
	{ "issuing", "registered", "back --to registered", false, back_to_registered },
	{ "registered", "prepared", "back --to prepared", false, back_to_prepared },
	{ "prepared", "cancelled", "back --to cancelled", false, to_cancelled },
};

/* to NULL: the one in that direction. NULL: there is none. */
static const struct step *
find_step(const char *from, const char *to, bool forward)
{
	for (size_t i = 0; i < COUNT_OF(STEPS); i++)
		if (strcmp(STEPS[i].from, from) == 0 &&
		    (to != NULL ? strcmp(STEPS[i].to, to) == 0 : STEPS[i].forward == forward))
			return &STEPS[i];
	return NULL;
}

/* ---- the row moves ---- */

static enum status
tell(const struct walk *walk, struct db_tx *tx, const char *from, const char *to, struct err *err)
{
	struct db_event event = { .kind = "ca_succession", .severity = "medium" };
	own(json_t) detail = json_pack("{s:s, s:s, s:s, s:s}", "from", from, "to", to, "successor",
		walk->new->ca_id, "campaign_id", walk->campaign_id);

	if (detail == NULL)
		return err_memory(err);
	TRY(api_audit(walk->app, tx, walk->request, "ca.succession", "ca", walk->old->ca_id, detail, err));
	TRY(notify_event_detail(&event, json_pack("{s:s, s:s, s:s, s:s, s:s}", "ca", walk->old->ca_id,
		"successor", walk->new->ca_id, "from", from, "to", to, "actor",
		request_identity(walk->request)->actor), err));
	return notify_event_raise(tx, &event, err);
}

static enum status
end_campaign(const struct walk *walk, struct db_tx *tx, struct err *err)
{
	struct db_campaign k;

	if (walk->campaign_id[0] == '\0')
		return OK;
	TRY(db_campaign_lock(tx, walk->campaign_id, &k, err));
	if (strcmp(k.state, "aborted") == 0 || strcmp(k.state, "done") == 0)
		return OK;
	(void)snprintf(k.state, sizeof(k.state), "aborted");
	(void)snprintf(k.why, sizeof(k.why), "the succession went back");
	TRY(db_campaign_save(tx, &k, err));
	return api_audit(walk->app, tx, walk->request, "campaign.abort", "campaign", walk->campaign_id,
		NULL, err);
}

static enum status
move(struct walk *walk, const struct step *step, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	bool leaves = strcmp(step->from, "campaign") == 0 && !step->forward;

	TRY(db_tx_begin(&tx, walk->app->pool, err));
	if (leaves)
		TRY(end_campaign(walk, &tx, err));
	TRY(db_succession_move(&tx, &walk->row, step->to, leaves ? "" : walk->campaign_id,
		request_identity(walk->request)->actor, err));
	TRY(tell(walk, &tx, step->from, step->to, err));
	TRY(db_tx_commit(&tx, err));
	return succession_follow(walk->app, err);
}

/* ---- where it stands ---- */

static enum status
set_live(const struct walk *walk, json_t *json, struct err *err)
{
	int64_t old_live, old_unseen, new_live, new_unseen;

	TRY(live_of(walk, walk->old, &old_live, &old_unseen, err));
	TRY(live_of(walk, walk->new, &new_live, &new_unseen, err));
	return api_set(json, "live", json_pack("{s:{s:I, s:I}, s:{s:I, s:I}}", "old", "certificates",
		(json_int_t)old_live, "unseen", (json_int_t)old_unseen, "new", "certificates",
		(json_int_t)new_live, "unseen", (json_int_t)new_unseen), err);
}

static enum status
set_campaign(const struct walk *walk, json_t *json, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	struct db_campaign_tally tally;
	struct db_campaign k;

	if (walk->row.campaign_id[0] == '\0')
		return api_set(json, "campaign", json_null(), err);
	TRY(db_tx_begin(&tx, walk->app->pool, err));
	TRY(db_campaign_find(&tx, walk->row.campaign_id, &k, err));
	TRY(db_campaign_tally(&tx, walk->row.campaign_id, -1, INT64_MAX, &tally, err));
	return api_set(json, "campaign", json_pack("{s:s, s:s, s:I, s:I, s:I}", "campaign_id",
		k.campaign_id, "state", k.state, "members", (json_int_t)k.members, "asked",
		(json_int_t)k.asked, "confirmed", (json_int_t)tally.confirmed), err);
}

static enum status
set_step(const struct walk *walk, json_t *json, const char *key, bool forward, struct err *err)
{
	const struct step *step = find_step(walk->row.state, NULL, forward);
	char command[128 + DB_ID_BYTES];

	if (step == NULL)
		return api_set(json, key, json_null(), err);
	(void)snprintf(command, sizeof(command), "jitrca ca succession %s %s", step->verb,
		walk->old->ca_id);
	return api_set(json, key, json_pack("{s:s, s:s}", "to", step->to, "command", command), err);
}

static enum status
reply(struct walk *walk, unsigned status, struct err *err)
{
	const struct db_succession *row = &walk->row;
	own(json_t) json = NULL;

	TRY(succession_follow(walk->app, err));
	json = json_pack("{s:s, s:s, s:s, s:s, s:s, s:o, s:o}", "ca", row->old_ca, "successor", row->new_ca,
		"state", row->state, "issuing", walk->app->issuing->ca_id, "actor", row->actor,
		"started_at", render_time(row->started_at_s), "changed_at",
		render_time(row->changed_at_s));
	if (json == NULL)
		return err_memory(err);
	TRY(set_live(walk, json, err));
	TRY(set_campaign(walk, json, err));
	TRY(set_step(walk, json, "next", true, err));
	TRY(set_step(walk, json, "back", false, err));
	return request_reply_json(walk->request, status, give(json), err);
}

/* ---- the calls ---- */

/* The succession that {id} is in. */
static enum status
load(struct walk *walk, struct err *err)
{
	const struct app_ca *ca = app_ca_by_id(walk->app, request_param(walk->request, "id"));
	own_struct(db_tx) tx = { NULL, NULL };

	if (ca == NULL)
		return err_set(err, ERR_NOT_FOUND, "ca_unknown", "there is no CA of that id");
	TRY(db_tx_begin(&tx, walk->app->pool, err));
	TRY(db_succession_find(&tx, ca->issuer_id, &walk->row, err));
	(void)snprintf(walk->campaign_id, sizeof(walk->campaign_id), "%s", walk->row.campaign_id);
	walk->old = app_ca_by_issuer(walk->app, walk->row.old_issuer);
	walk->new = app_ca_by_issuer(walk->app, walk->row.new_issuer);
	if (walk->old == NULL || walk->new == NULL)
		return err_set(err, ERR_CONFLICT, "succession_ca_missing",
			"%s and %s: both wanted in data_dir/keys of this server", walk->row.old_ca,
			walk->row.new_ca);
	return OK;
}

static enum status
show(struct app *app, struct request *request, struct err *err)
{
	struct walk walk = { .app = app, .request = request };

	TRY(load(&walk, err));
	return reply(&walk, 200, err);
}

static enum status
take_step(struct app *app, struct request *request, struct err *err)
{
	static const char *const ALLOWED[] = { "to", "campaign_id", "campaign", NULL };
	struct walk walk = { .app = app, .request = request };
	own(json_t) body = NULL;
	const char *campaign_id = NULL;
	const char *to;
	const struct step *step;

	TRY(request_json(request, &body, err));
	TRY(fields_check(body, ALLOWED, err));
	TRY(fields_string(body, "to", FIELD_REQUIRED, DB_SUCCESSION_STATE_BYTES - 1, &to, err));
	TRY(fields_id(body, "campaign_id", FIELD_OPTIONAL, &campaign_id, err));
	TRY(load(&walk, err));
	walk.body = body;
	if (strcmp(walk.row.state, to) == 0) /* a repeat */
		return reply(&walk, 200, err);
	step = find_step(walk.row.state, to, true);
	if (step == NULL)
		return err_set(err, ERR_CONFLICT, "succession_order",
			"to: it is '%s', and from there no step leads to what was asked",
			walk.row.state);
	if (campaign_id != NULL)
		(void)snprintf(walk.campaign_id, sizeof(walk.campaign_id), "%s", campaign_id);
	TRY(step->run(&walk, err));
	FAILPOINT("succession_step");
	TRY(move(&walk, step, err));
	TRY(load(&walk, err));
	return reply(&walk, 200, err);
}

/* RFC 5280 4.1.2.6: who looks for an issuer by its name must not find two. */
static enum status
check_successor(const struct walk *walk, struct err *err)
{
	struct ca_cert_view old, new;

	if (walk->old != walk->app->issuing)
		return err_set(err, ERR_CONFLICT, "succession_not_issuing",
			"%s: the CA that issues wanted, which is %s", walk->old->ca_id,
			walk->app->issuing->ca_id);
	if (!walk->new->can_sign)
		return err_set(err, ERR_CONFLICT, "succession_no_key",
			"successor: an issuing CA whose key is in data_dir/keys wanted");
	TRY(ca_cert_parse(&old, view_of(&walk->old->certificate), err));
	TRY(ca_cert_parse(&new, view_of(&walk->new->certificate), err));
	if (view_equal(old.subject, new.subject))
		return err_set(err, ERR_CONFLICT, "succession_subject",
			"successor: another subject than the old CA's wanted");
	if (view_equal(old.spki, new.spki))
		return err_set(err, ERR_CONFLICT, "succession_key",
			"successor: another key than the old CA's wanted");
	if (new.not_after_s <= old.not_after_s)
		return err_set(err, ERR_CONFLICT, "succession_ends_earlier",
			"successor: a certificate that ends after the old CA's wanted");
	return OK;
}

static enum status
begin(struct app *app, struct request *request, struct err *err)
{
	static const char *const ALLOWED[] = { "successor", NULL };
	struct walk walk = { .app = app, .request = request };
	own_struct(db_tx) tx = { NULL, NULL };
	own(json_t) body = NULL;
	const char *successor;

	TRY(request_json(request, &body, err));
	TRY(fields_check(body, ALLOWED, err));
	TRY(fields_id(body, "successor", FIELD_REQUIRED, &successor, err));
	walk.old = app_ca_by_id(app, request_param(request, "id"));
	if (walk.old == NULL)
		return err_set(err, ERR_NOT_FOUND, "ca_unknown", "there is no CA of that id");
	walk.new = app_ca_by_id(app, successor);
	if (walk.new == NULL || walk.new == walk.old)
		return err_set(err, ERR_NOT_FOUND, "successor_unknown",
			"successor: the id of another CA of ours wanted; make one with `jitrca init"
			" --successor`, then reload the server");
	TRY(succession_follow(app, err));
	TRY(check_successor(&walk, err));
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_succession_begin(&tx, walk.old->issuer_id, walk.new->issuer_id,
		request_identity(request)->actor, err));
	TRY(tell(&walk, &tx, "", "prepared", err));
	TRY(db_tx_commit(&tx, err));
	TRY(load(&walk, err));
	return reply(&walk, 201, err);
}

const struct route SUCCESSION_ROUTES[] = {
	{ .method = "POST", .path = "/v1/cas/{id}/successor", .handle = begin, .roles = ROLE_ADMIN,
	  .body_max_bytes = BODY_BYTES },
	{ .method = "GET", .path = "/v1/cas/{id}/succession", .handle = show, .roles = ROLES_READ },
	{ .method = "POST", .path = "/v1/cas/{id}/succession", .handle = take_step, .roles = ROLE_ADMIN,
	  .body_max_bytes = BODY_BYTES },
	{ .method = NULL },
};
