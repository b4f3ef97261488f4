#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "db/manifest.h"
#include "db/principal.h"
#include "server/api/api.h"
#include "server/api/manifests.h"
#include "server/api/principals.h"
#include "server/api/render.h"
#include "server/api/tokens.h"
#include "server/app.h"
#include "server/auth.h"
#include "server/http/fields.h"

#define PROFILES_MAX COUNT_OF(((struct db_station *)0)->profiles)
#define RATE_DEFAULT 600
#define RATE_MAX 10000000
/* A station works off a few orders at a time; more than that are there to be closed. */
#define SELF_MANIFESTS_MAX 100

typedef struct db_station db_station;
typedef struct db_manifest db_manifest;
OWNER(db_station, mem_free)
OWNER(db_manifest, mem_free)

static json_t *
render_station(const struct db_station *station)
{
	own(json_t) json = principals_render(&station->principal);
	own(json_t) profiles = json_array();

	if (json == NULL || profiles == NULL)
		return NULL;
	for (size_t i = 0; i < station->profile_count; i++)
		if (json_array_append_new(profiles, json_string(station->profiles[i])) != 0)
			return NULL;
	if (json_object_set_new(json, "profiles", give(profiles)) != 0 ||
	    json_object_set_new(json, "rate_per_minute", json_integer(station->rate_per_minute)) != 0)
		return NULL;
	return give(json);
}

/* profiles and rate_per_minute, where they are there. */
static enum status
read_scope(struct db_station *station, const struct app *app, const json_t *body, struct err *err)
{
	const char *profiles[PROFILES_MAX];
	int64_t rate = station->rate_per_minute;
	size_t count = 0;

	TRY(fields_string_array(body, "profiles", FIELD_OPTIONAL, PROFILES_MAX, DB_PROFILE_BYTES - 1,
		profiles, &count, err));
	if (count == 0 && json_object_get(body, "profiles") != NULL)
		return err_set(err, ERR_ARGUMENT, "field_empty", "profiles: at least one wanted");
	for (size_t i = 0; i < count; i++) {
		TRY(manifests_check_profile(app, profiles[i], err));
		(void)snprintf(station->profiles[i], DB_PROFILE_BYTES, "%s", profiles[i]);
	}
	if (count > 0)
		station->profile_count = count;
	TRY(fields_int(body, "rate_per_minute", FIELD_OPTIONAL, 1, RATE_MAX, &rate, err));
	station->rate_per_minute = (int32_t)rate;
	return OK;
}

static enum status
read_station(struct db_station *out, struct app *app, struct request *request, struct err *err)
{
	static const char *const ALLOWED[] = { "id", "description", "profiles", "rate_per_minute", NULL };
	own(json_t) body = NULL;
	struct db_principal *principal = &out->principal;
	const char *description = "";
	const char *id;

	TRY(request_json(request, &body, err));
	TRY(fields_check(body, ALLOWED, err));
	TRY(fields_id(body, "id", FIELD_REQUIRED, &id, err));
	/* "self" would hide behind /v1/stations/self. */
	if (strcmp(id, "self") == 0)
		return err_set(err, ERR_ARGUMENT, "id_malformed", "id: another word than self wanted");
	TRY(fields_string(body, "description", FIELD_OPTIONAL, PRINCIPAL_DESCRIPTION_MAX_BYTES,
		&description, err));
	*out = (struct db_station){
		.principal = { .role = "station", .created_at_s = clock_wall_s(app->clock) },
		.profiles = { "device" },
		.profile_count = 1,
		.rate_per_minute = RATE_DEFAULT,
	};
	(void)snprintf(principal->principal_id, sizeof(principal->principal_id), "%s", id);
	(void)snprintf(principal->description, sizeof(principal->description), "%s", description);
	(void)snprintf(principal->created_by, sizeof(principal->created_by), "%s",
		request_identity(request)->actor);
	return read_scope(out, app, body, err);
}

static enum status
reply(struct request *request, unsigned status, const struct db_station *station, struct err *err)
{
	json_t *json = render_station(station);

	return json != NULL ? request_reply_json(request, status, json, err) : err_memory(err);
}

static enum status
find(struct app *app, struct request *request, struct db_station *out, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	const char *id;

	TRY(fields_param_id(request, "id", &id, err));
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_station_find(&tx, id, out, err));
	return db_tx_commit(&tx, err);
}

static enum status
list(struct app *app, struct request *request, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	own(db_station) rows = NULL;
	own(json_t) items = json_array();
	char after[DB_ID_BYTES];
	size_t limit;
	size_t count;

	TRY(query_limit(request, &limit, err));
	TRY(query_cursor_text(request, "stations", after, sizeof(after), err));
	rows = mem_array(limit + 1, sizeof(*rows));
	if (rows == NULL || items == NULL)
		return err_memory(err);
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_station_list(&tx, after, limit + 1, rows, &count, err));
	TRY(db_tx_commit(&tx, err));
	for (size_t i = 0; i < count && i < limit; i++)
		TRY(api_append(items, render_station(&rows[i]), err));
	return api_reply_page(request, "stations", give(items), "stations",
		count > limit ? rows[limit - 1].principal.principal_id : NULL, err);
}

static enum status
create(struct app *app, struct request *request, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	own(json_t) detail = NULL;
	struct db_station station = { .profile_count = 0 };
	const char *id = station.principal.principal_id;

	TRY(read_station(&station, app, request, err));
	detail = render_station(&station);
	if (detail == NULL)
		return err_memory(err);
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_station_create(&tx, &station, err));
	TRY(api_audit(app, &tx, request, "station.create", "station", id, detail, err));
	TRY(db_tx_commit(&tx, err));
	return reply(request, 201, &station, err);
}

static enum status
show(struct app *app, struct request *request, struct err *err)
{
	struct db_station station;

	TRY(find(app, request, &station, err));
	return reply(request, 200, &station, err);
}

static enum status
patch(struct app *app, struct request *request, struct err *err)
{
	static const char *const ALLOWED[] = { "profiles", "rate_per_minute", NULL };
	own_struct(db_tx) tx = { NULL, NULL };
	own(json_t) body = NULL;
	struct db_station station;
	const char *id;

	TRY(fields_param_id(request, "id", &id, err));
	TRY(request_json(request, &body, err));
	TRY(fields_check(body, ALLOWED, err));
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_station_find(&tx, id, &station, err));
	TRY(read_scope(&station, app, body, err));
	TRY(db_station_update(&tx, &station, err));
	TRY(api_audit(app, &tx, request, "station.update", "station", id, body, err));
	TRY(db_tx_commit(&tx, err));
	return reply(request, 200, &station, err);
}

static enum status
set_disabled(struct app *app, struct request *request, bool disabled, struct err *err)
{
	struct db_station station;

	TRY(api_no_fields(request, err));
	TRY(find(app, request, &station, err));
	TRY(principals_set_disabled(app, request, "station", station.principal.principal_id, disabled,
		err));
	return show(app, request, err);
}

static enum status
disable(struct app *app, struct request *request, struct err *err)
{
	return set_disabled(app, request, true, err);
}

static enum status
enable(struct app *app, struct request *request, struct err *err)
{
	return set_disabled(app, request, false, err);
}

static enum status
token_list(struct app *app, struct request *request, struct err *err)
{
	struct db_station station;

	TRY(find(app, request, &station, err));
	return tokens_list(app, request, station.principal.principal_id, err);
}

static enum status
token_create(struct app *app, struct request *request, struct err *err)
{
	struct db_station station;

	TRY(find(app, request, &station, err));
	return tokens_create(app, request, station.principal.principal_id, err);
}

static enum status
token_revoke(struct app *app, struct request *request, struct err *err)
{
	struct db_station station;

	TRY(find(app, request, &station, err));
	return tokens_revoke(app, request, station.principal.principal_id, err);
}

/* ---- what a station sees of itself ---- */

static enum status
add_quota(json_t *answer, const struct db_manifest *rows, size_t count, struct err *err)
{
	own(json_t) manifests = json_array();
	json_int_t quantity = 0;
	json_int_t used = 0;

	if (manifests == NULL)
		return err_memory(err);
	for (size_t i = 0; i < count; i++) {
		TRY(api_append(manifests, manifests_render(&rows[i]), err));
		quantity += rows[i].quantity;
		used += rows[i].used;
	}
	TRY(api_set(answer, "manifests", give(manifests), err));
	return api_set(answer, "quota",
		json_pack("{s:I, s:I, s:I}", "quantity", quantity, "used", used, "left", quantity - used),
		err);
}

static enum status
self(struct app *app, struct request *request, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	own(db_manifest) rows = mem_array(SELF_MANIFESTS_MAX, sizeof(*rows));
	own(json_t) answer = NULL;
	const char *id = request_identity(request)->actor;
	struct db_station station;
	size_t count;

	if (rows == NULL)
		return err_memory(err);
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_station_find(&tx, id, &station, err));
	TRY(db_manifest_open(&tx, id, clock_wall_s(app->clock), rows, SELF_MANIFESTS_MAX, &count, err));
	TRY(db_tx_commit(&tx, err));
	answer = render_station(&station);
	if (answer == NULL)
		return err_memory(err);
	TRY(add_quota(answer, rows, count, err));
	return request_reply_json(request, 200, give(answer), err);
}

static const char *const PAGE_QUERY[] = { "limit", "cursor", NULL };

#define SMALL_BODY 4096

const struct route STATION_ROUTES[] = {
	{ .method = "GET", .path = "/v1/stations", .handle = list, .roles = ROLES_READ,
	  .query = PAGE_QUERY },
	{ .method = "POST", .path = "/v1/stations", .handle = create, .roles = ROLE_ADMIN,
	  .body_max_bytes = SMALL_BODY },
	{ .method = "GET", .path = "/v1/stations/self", .handle = self, .roles = ROLE_STATION },
	{ .method = "GET", .path = "/v1/stations/{id}", .handle = show, .roles = ROLES_READ },
	{ .method = "PATCH", .path = "/v1/stations/{id}", .handle = patch, .roles = ROLE_ADMIN,
	  .body_max_bytes = SMALL_BODY },
	{ .method = "POST", .path = "/v1/stations/{id}/disable", .handle = disable, .roles = ROLE_ADMIN,
	  .body_max_bytes = SMALL_BODY },
	{ .method = "POST", .path = "/v1/stations/{id}/enable", .handle = enable, .roles = ROLE_ADMIN,
	  .body_max_bytes = SMALL_BODY },
	{ .method = "GET", .path = "/v1/stations/{id}/tokens", .handle = token_list, .roles = ROLES_READ,
	  .query = PAGE_QUERY },
	{ .method = "POST", .path = "/v1/stations/{id}/tokens", .handle = token_create,
	  .roles = ROLE_ADMIN, .body_max_bytes = SMALL_BODY },
	{ .method = "DELETE", .path = "/v1/stations/{id}/tokens/{token_id}", .handle = token_revoke,
	  .roles = ROLE_ADMIN },
	{ .method = NULL },
};
