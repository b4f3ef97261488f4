#include <stdio.h>
#include <string.h>

#include "base/entropy.h"
#include "base/mem.h"
#include "db/outbox.h"
#include "db/revocation.h"
#include "server/api/api.h"
#include "server/api/render.h"
#include "server/app.h"
#include "server/auth.h"
#include "server/http/fields.h"
#include "server/iot/forecast.h"
#include "server/iot/room.h"
#include "server/jobs/jobs.h"
#include "server/selector.h"

#define COMMENT_MAX_BYTES 256
#define ID_OCTETS 16

typedef struct db_blast_radius db_blast_radius;
OWNER(db_blast_radius, mem_free)

/* RFC 5280 5.3.1, but for removeFromCRL: a hold is lifted one by one. */
static const char *const REASONS[] = { "unspecified", "keyCompromise", "cACompromise",
	"affiliationChanged", "superseded", "cessationOfOperation", "certificateHold",
	"privilegeWithdrawn", "aACompromise", NULL };

struct ask {
	struct selector selector;
	enum revocation_reason reason;
	const char *reason_name;
	const char *comment;
	bool dry_run;
	json_t *selector_json; /* borrowed from the body */
};

static enum status
read_ask(struct ask *ask, const struct app *app, const json_t *body, struct err *err)
{
	static const char *const ALLOWED[] = { "selector", "reason", "comment", "dry_run", NULL };
	const json_t *selector;

	TRY(fields_check(body, ALLOWED, err));
	TRY(fields_object(body, "selector", FIELD_REQUIRED, &selector, err));
	TRY(selector_read(&ask->selector, app, selector, err));
	TRY(fields_choice(body, "reason", FIELD_REQUIRED, REASONS, &ask->reason_name, err));
	TRY(fields_text(body, "comment", FIELD_OPTIONAL, COMMENT_MAX_BYTES, &ask->comment, err));
	TRY(fields_bool(body, "dry_run", FIELD_OPTIONAL, &ask->dry_run, err));
	ask->selector_json = json_object_get(body, "selector");
	if (!revocation_reason_parse(&ask->reason, ask->reason_name))
		return err_set(err, ERR_INTERNAL, "reason_table", "a reason has no number");
	return OK;
}

/* ---- blast radius ---- */

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

/* ---- what IoT Core costs ---- */

static bool
has_targets(const struct app *app)
{
	return app->iot != NULL && app->iot->site_count > 0;
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

static enum status
reply_radius(struct app *app, struct request *request, const struct ask *ask,
	const struct db_blast_radius *radius, const struct db_outbox_takes *takes, struct err *err)
{
	struct iot_forecast_ask cost = { .ahead = takes->waiting,
		.hold = ask->reason == REASON_CERTIFICATE_HOLD };
	json_t *json;

	ask_of_radius(&cost, app, radius);
	json = json_pack("{s:b, s:s, s:O, s:I, s:I, s:I, s:o, s:o, s:o}", "dry_run", 1, "reason",
		ask->reason_name, "selector", ask->selector_json, "certificates",
		(json_int_t)radius->certificates, "devices", (json_int_t)radius->devices, "stations",
		(json_int_t)radius->stations, "by_station",
		render_lines("station", radius->by_station, radius->by_station_count), "by_profile",
		render_lines("profile", radius->by_profile, radius->by_profile_count), "iot",
		render_forecast(app, &cost));
	return json != NULL ? request_reply_json(request, 200, json, err) : err_memory(err);
}

static enum status
read_radius(struct app *app, const struct ask *ask, struct db_blast_radius *radius,
	struct db_outbox_takes *takes, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_revocation_blast_radius(&tx, &ask->selector.filter, radius, err));
	TRY(db_outbox_takes(&tx, 0, takes, err));
	return db_tx_commit(&tx, err);
}

/* ---- the receipt ---- */

static const char *
state_of(bool done)
{
	return done ? "done" : "running";
}

/*
 * What is left to be done in IoT Core. Devices share their row in the outbox among causes, so what others
 * took away meanwhile counts as well.
 */
static json_t *
render_iot(const struct app *app, const struct db_bulk *bulk, const struct db_outbox_takes *takes)
{
	bool running = strcmp(bulk->state, "done") != 0;
	int64_t left = takes->waiting;
	struct iot_forecast_ask cost = { .hold = bulk->reason == REASON_CERTIFICATE_HOLD };

	if (!has_targets(app))
		return json_pack("{s:s}", "state", "not_configured");
	if (running && bulk->matched > bulk->revoked)
		left += bulk->matched - bulk->revoked;
	cost.certificates = left;
	cost.policies = left * (int64_t)policies_most(app);
	return json_pack("{s:s, s:I, s:I, s:o}", "state",
		state_of(!running && takes->waiting + takes->dead == 0), "pending", (json_int_t)left,
		"dead_letters", (json_int_t)takes->dead, "forecast", render_forecast(app, &cost));
}

/*
 * Each target and whether all of it has taken effect there. Our own listeners and answers read the rows,
 * and what OCSP remembers is forgotten with each step's notification, so they follow at once.
 */
static json_t *
render_targets(const struct app *app, const struct db_bulk *bulk, const struct db_outbox_takes *takes)
{
	bool done = strcmp(bulk->state, "done") == 0;

	return json_pack("{s:{s:s, s:I}, s:{s:s}, s:{s:s}, s:{s:s}, s:o}", "crl", "state",
		state_of(done && bulk->crl_pending == 0), "pending", (json_int_t)bulk->crl_pending,
		"ocsp", "state", state_of(done), "rest", "state", state_of(done), "session", "state",
		state_of(done), "iot", render_iot(app, bulk, takes));
}

static json_t *
render_bulk(const struct app *app, const struct db_bulk *bulk, const struct db_outbox_takes *takes)
{
	own(json_t) selector = json_loads(bulk->selector, 0, NULL);

	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:O, s:I, s:I, s:o, s:o, s:o}", "revocation_id",
		bulk->revocation_id, "state", bulk->state, "actor", bulk->actor, "reason",
		revocation_reason_name(bulk->reason), "comment", bulk->comment, "selector", selector,
		"matched", (json_int_t)bulk->matched, "revoked", (json_int_t)bulk->revoked, "created_at",
		render_time(bulk->created_at_s), "finished_at", render_time(bulk->finished_at_s),
		"targets", render_targets(app, bulk, takes));
}

static enum status
fill_bulk(struct db_bulk *bulk, const struct app *app, const struct request *request,
	const struct ask *ask, int64_t matched, struct err *err)
{
	uint8_t id[ID_OCTETS];
	size_t len;

	*bulk = (struct db_bulk){
		.state = "running",
		.reason = ask->reason,
		.matched = matched,
		.created_at_s = clock_wall_s(app->clock),
		.issued_until_s = clock_wall_s(app->clock),
	};
	TRY(entropy_fill(&ENTROPY_SYSTEM, id, sizeof(id), err));
	hex_encode(bulk->revocation_id, id, sizeof(id));
	(void)snprintf(bulk->actor, sizeof(bulk->actor), "%s", request_identity(request)->actor);
	(void)snprintf(bulk->request_id, sizeof(bulk->request_id), "%s", request_id(request));
	(void)snprintf(bulk->comment, sizeof(bulk->comment), "%s", ask->comment);
	/* What jansson writes has no NUL of its own. */
	len = json_dumpb(ask->selector_json, bulk->selector, sizeof(bulk->selector) - 1,
		JSON_COMPACT | JSON_SORT_KEYS);
	if (len == 0 || len >= sizeof(bulk->selector))
		return err_set(err, ERR_ARGUMENT, "selector_field", "selector: a shorter one wanted");
	bulk->selector[len] = '\0';
	return OK;
}

static enum status
begin_bulk(struct app *app, struct request *request, const struct db_bulk *bulk, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	own(json_t) detail = json_pack("{s:s, s:s, s:s, s:I}", "reason",
		revocation_reason_name(bulk->reason), "comment", bulk->comment, "selector",
		bulk->selector, "matched", (json_int_t)bulk->matched);

	if (detail == NULL)
		return err_memory(err);
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_bulk_create(&tx, bulk, err));
	TRY(api_audit(app, &tx, request, "revocation.begin", "revocation", bulk->revocation_id, detail,
		err));
	TRY(db_tx_commit(&tx, err));
	if (app->jobs != NULL)
		jobs_wake(app->jobs, "jitrca_wake");
	return OK;
}

static enum status
reply_bulk(struct app *app, struct request *request, unsigned status, const struct db_bulk *bulk,
	const struct db_outbox_takes *takes, struct err *err)
{
	json_t *json = render_bulk(app, bulk, takes);

	return json != NULL ? request_reply_json(request, status, json, err) : err_memory(err);
}

static enum status
create(struct app *app, struct request *request, struct err *err)
{
	own(db_blast_radius) radius = mem_zalloc(sizeof(*radius));
	own(json_t) body = NULL;
	struct ask ask = { .comment = "" };
	struct db_outbox_takes takes;
	struct db_bulk bulk;
	char location[64];

	if (radius == NULL)
		return err_memory(err);
	TRY(request_json(request, &body, err));
	TRY(read_ask(&ask, app, body, err));
	TRY(read_radius(app, &ask, radius, &takes, err));
	if (ask.dry_run)
		return reply_radius(app, request, &ask, radius, &takes, err);
	TRY(fill_bulk(&bulk, app, request, &ask, radius->certificates, err));
	TRY(begin_bulk(app, request, &bulk, err));
	(void)snprintf(location, sizeof(location), "/v1/revocations/%s", bulk.revocation_id);
	TRY(request_reply_header(request, "Location", location, err));
	return reply_bulk(app, request, 202, &bulk, &takes, err);
}

static enum status
show(struct app *app, struct request *request, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	const char *id = request_param(request, "id");
	uint8_t octets[ID_OCTETS];
	struct db_outbox_takes takes;
	struct db_bulk bulk;

	if (!hex_decode(octets, sizeof(octets), id, strlen(id)))
		return err_set(err, ERR_NOT_FOUND, "revocation_unknown",
			"there is no revocation of that id");
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_bulk_find(&tx, id, &bulk, err));
	TRY(db_outbox_takes(&tx, bulk.finished_at_s, &takes, err));
	TRY(db_tx_commit(&tx, err));
	return reply_bulk(app, request, 200, &bulk, &takes, err);
}

const struct route REVOCATION_ROUTES[] = {
	{ .method = "POST", .path = "/v1/revocations", .handle = create, .roles = ROLE_ADMIN,
	  .body_max_bytes = 8192 },
	{ .method = "GET", .path = "/v1/revocations/{id}", .handle = show, .roles = ROLES_READ },
	{ .method = NULL },
};
