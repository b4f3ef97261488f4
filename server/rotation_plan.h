/*
 * server/rotation_plan.h - makes a rotation plan: what expires within a threshold, by week, profile and
 * thing type, and who is late already. It is stored, and told as a security event, so that whoever wants to
 * hear of it does (docs/notifications.md).
 */
#ifndef SERVER_ROTATION_PLAN_H
#define SERVER_ROTATION_PLAN_H

#include <jansson.h>

#include "db/plan.h"

struct app;

/* In tx: the plan, and its event. out is what was stored. */
MUST_USE enum status rotation_plan_make(struct app *app, struct db_tx *tx, const char *actor,
	int64_t threshold_s, struct db_plan *out, struct err *err);

/* If one is due by config.plan_every_s, and this server is who makes it. */
MUST_USE enum status rotation_plan_job_step(struct app *app, struct err *err);

#endif
