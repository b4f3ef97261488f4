/* server/api/plans.c - /v1/plans: rotation plans (server/rotation_plan.h), kept and on demand. */
#include "db/plan.h"

#include <string.h>

#include "base/mem.h"
#include "server/api/api.h"
#include "server/api/render.h"
#include "server/app.h"
#include "server/auth.h"
#include "server/http/fields.h"
#include "server/rotation_plan.h"

#define DAY_S 86400
#define THRESHOLD_DAYS_MOST 3650
#define ID_OCTETS 16

typedef struct db_plan db_plan;
OWNER(db_plan, mem_free)

static json_t *
render_plan(const struct db_plan *plan)
{
	return json_pack("{s:s, s:o, s:s, s:I, s:I, s:I}", "plan_id", plan->plan_id, "created_at",
		render_time(plan->created_at_s), "actor", plan->actor, "threshold_days",
		(json_int_t)(plan->threshold_s / DAY_S), "expiring", (json_int_t)plan->expiring, "late",
		(json_int_t)plan->late);
}

static enum status
reply_one(struct app *app, struct request *request, unsigned status, const char *id, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	own_struct(bytes) body = { NULL, 0 };
	own(json_t) rest = NULL;
	own(json_t) json = NULL;
	struct db_plan plan;

	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_plan_find(&tx, id, &plan, &body, err));
	TRY(db_tx_commit(&tx, err));
	json = render_plan(&plan);
	rest = json_loadb((const char *)body.data, body.len, 0, NULL);
	if (json == NULL || rest == NULL || json_object_update(json, rest) != 0)
		return err_memory(err);
	return request_reply_json(request, status, give(json), err);
}

static enum status
show(struct app *app, struct request *request, struct err *err)
{
	const char *id = request_param(request, "id");
	uint8_t octets[ID_OCTETS];

	if (!hex_decode(octets, sizeof(octets), id, strlen(id)))
		return err_set(err, ERR_NOT_FOUND, "plan_unknown", "there is no rotation plan of that id");
	return reply_one(app, request, 200, id, err);
}

static enum status
list(struct app *app, struct request *request, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	own(json_t) items = json_array();
	own(db_plan) rows = NULL;
	char next[PLACE_TEXT_BYTES];
	struct list_place place;
	size_t limit;
	size_t count;

	TRY(query_limit(request, &limit, err));
	TRY(query_list_place(request, "plans", &place, err));
	rows = mem_array(limit, sizeof(*rows));
	if (rows == NULL || items == NULL)
		return err_memory(err);
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_plan_list(&tx, place.at_us, place.id, limit, rows, &count, err));
	TRY(db_tx_commit(&tx, err));
	for (size_t i = 0; i < count; i++)
		TRY(api_append(items, render_plan(&rows[i]), err));
	if (count == limit)
		list_place_text(next, rows[count - 1].created_at_us, rows[count - 1].plan_id);
	return api_reply_page(request, "plans", give(items), "plans", count == limit ? next : NULL, err);
}

static enum status
make(struct app *app, struct request *request, int64_t threshold_s, struct db_plan *plan,
	struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	own(json_t) detail = NULL;

	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(rotation_plan_make(app, &tx, request_identity(request)->actor, threshold_s, plan, err));
	detail = render_plan(plan);
	if (detail == NULL)
		return err_memory(err);
	TRY(api_audit(app, &tx, request, "plan.make", "plan", plan->plan_id, detail, err));
	return db_tx_commit(&tx, err);
}

static enum status
create(struct app *app, struct request *request, struct err *err)
{
	static const char *const ALLOWED[] = { "threshold_days", NULL };
	own(json_t) body = NULL;
	int64_t days = app->config.plan_threshold_s / DAY_S;
	struct db_plan plan;

	TRY(api_json_or_empty(request, &body, err));
	TRY(fields_check(body, ALLOWED, err));
	TRY(fields_int(body, "threshold_days", FIELD_OPTIONAL, 1, THRESHOLD_DAYS_MOST, &days, err));
	TRY(make(app, request, days * DAY_S, &plan, err));
	return reply_one(app, request, 201, plan.plan_id, err);
}

static const char *const LIST_QUERY[] = { "limit", "cursor", NULL };

const struct route PLAN_ROUTES[] = {
	{ .method = "POST", .path = "/v1/plans", .handle = create, .roles = ROLE_ADMIN,
	  .body_max_bytes = 4096 },
	{ .method = "GET", .path = "/v1/plans", .handle = list, .roles = ROLES_READ,
	  .query = LIST_QUERY },
	{ .method = "GET", .path = "/v1/plans/{id}", .handle = show, .roles = ROLES_READ },
	{ .method = NULL },
};
