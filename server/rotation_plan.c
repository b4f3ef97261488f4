#include "server/rotation_plan.h"

#include <stdio.h>

#include "base/entropy.h"
#include "base/log.h"
#include "base/mem.h"
#include "db/device.h"
#include "db/issuer.h"
#include "server/api/api.h"
#include "server/api/render.h"
#include "server/app.h"
#include "server/jobs/jobs.h"
#include "server/notify/event.h"
#include "server/rotation.h"

/* The latest are named; GET /v1/devices?late=true has them all. */
#define LATE_SHOWN 100
#define ID_OCTETS 16
/* More than are made in the time between two by schedule, but by hand. */
#define RETENTION_PAGE 1000

typedef struct db_plan_group db_plan_group;
typedef struct db_device db_device;
typedef char plan_text;
OWNER(db_plan_group, mem_free)
OWNER(db_device, mem_free)
OWNER(plan_text, mem_free)

static enum status
add_groups(struct app *app, struct db_tx *tx, json_t *body, struct db_plan *plan, struct err *err)
{
	own(db_plan_group) groups = mem_array(DB_PLAN_GROUPS_MAX, sizeof(*groups));
	own(json_t) list = json_array();
	int64_t now_s = clock_wall_s(app->clock);
	size_t count;

	if (groups == NULL || list == NULL)
		return err_memory(err);
	TRY(db_plan_groups(tx, now_s, now_s + plan->threshold_s, groups, &count, err));
	for (size_t i = 0; i < count; i++) {
		plan->expiring += groups[i].devices;
		TRY(api_append(list, json_pack("{s:o, s:s, s:s, s:I}", "week",
			render_time(groups[i].week_s), "profile", groups[i].profile, "thing_type",
			groups[i].thing_type, "devices", (json_int_t)groups[i].devices), err));
	}
	TRY(api_set(body, "groups", give(list), err));
	return api_set(body, "groups_more", json_boolean(count == DB_PLAN_GROUPS_MAX), err);
}

/* Counted page by page: who is late is what a rotation window decides, profile by profile. */
static enum status
add_late(struct app *app, struct db_tx *tx, json_t *body, struct db_plan *plan, struct err *err)
{
	own(db_device) page = mem_array(1000, sizeof(*page));
	own(json_t) list = json_array();
	struct db_late_rule rules[CA_PROFILES_MAX];
	size_t rule_count = rotation_late_rules(app->profiles, app->profile_count, rules);
	struct db_certificate_cursor cursor = { .set = false };
	size_t count = 0;

	if (page == NULL || list == NULL)
		return err_memory(err);
	do {
		struct db_certificate_cursor next;

		TRY(db_device_list_late(tx, rules, rule_count, clock_wall_s(app->clock), &cursor, 1000,
			page, &count, &next, err));
		for (size_t i = 0; i < count && json_array_size(list) < LATE_SHOWN; i++)
			TRY(api_append(list, json_string(page[i].device_id), err));
		plan->late += (int64_t)count;
		cursor = next;
	} while (cursor.set);
	return api_set(body, "latest", give(list), err);
}

static enum status
tell(struct db_tx *tx, const struct db_plan *plan, struct err *err)
{
	struct db_event event = { .kind = "rotation_plan", .severity = "info" };

	(void)snprintf(event.target, sizeof(event.target), "%s", plan->plan_id);
	TRY(notify_event_detail(&event, json_pack("{s:s, s:I, s:I, s:I}", "plan", plan->plan_id,
		"threshold_days", (json_int_t)(plan->threshold_s / 86400), "expiring",
		(json_int_t)plan->expiring, "late", (json_int_t)plan->late), err));
	return notify_event_raise(tx, &event, err);
}

enum status
rotation_plan_make(struct app *app, struct db_tx *tx, const char *actor, int64_t threshold_s,
	struct db_plan *out, struct err *err)
{
	own(json_t) body = json_object();
	uint8_t id[ID_OCTETS];
	own(plan_text) text = NULL;
	size_t len;

	*out = (struct db_plan){ .threshold_s = threshold_s,
		.created_at_s = clock_wall_s(app->clock) };
	if (body == NULL)
		return err_memory(err);
	TRY(entropy_fill(&ENTROPY_SYSTEM, id, sizeof(id), err));
	hex_encode(out->plan_id, id, sizeof(id));
	(void)snprintf(out->actor, sizeof(out->actor), "%s", actor);
	TRY(add_groups(app, tx, body, out, err));
	TRY(add_late(app, tx, body, out, err));
	len = json_dumpb(body, NULL, 0, JSON_COMPACT);
	text = mem_zalloc(len + 1);
	if (text == NULL)
		return err_memory(err);
	(void)json_dumpb(body, text, len, JSON_COMPACT);
	TRY(db_plan_create(tx, out, text, err));
	return tell(tx, out, err);
}

enum status
rotation_plan_job_step(struct app *app, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	struct db_plan plan;
	int64_t last_s;
	size_t old;
	bool leader;

	if (app->config.plan_every_s == 0)
		return OK;
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_job_lead(&tx, JOB_PLAN, &leader, err));
	if (!leader)
		return OK;
	TRY(db_plan_last_s(&tx, &last_s, err));
	if (clock_wall_s(app->clock) - last_s < app->config.plan_every_s)
		return OK;
	TRY(rotation_plan_make(app, &tx, "server", app->config.plan_threshold_s, &plan, err));
	TRY(db_retention_plans(&tx, clock_wall_s(app->clock) - app->config.event_retention_s,
		RETENTION_PAGE, &old, err));
	TRY(db_tx_commit(&tx, err));
	log_event(LOG_INFO, "rotation_plan", NULL, LOG_STR("plan", plan.plan_id),
		LOG_INT("expiring", plan.expiring), LOG_INT("late", plan.late));
	return OK;
}
