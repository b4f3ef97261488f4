/* db/plan.h - rotation plans: what of the fleet expires when, counted and kept. */
#ifndef DB_PLAN_H
#define DB_PLAN_H

#include "db/db.h"

#define DB_PLAN_ID_BYTES 33
/* Profiles by thing types by weeks: more groups than that are no plan that anybody reads. */
#define DB_PLAN_GROUPS_MAX 1000

struct db_plan {
	char plan_id[DB_PLAN_ID_BYTES];
	char actor[DB_ID_BYTES];
	int64_t threshold_s, expiring, late, created_at_s, created_at_us;
};

/* body: JSON, borrowed. */
MUST_USE enum status db_plan_create(struct db_tx *tx, const struct db_plan *plan, const char *body,
	struct err *err);
/* ERR_NOT_FOUND plan_unknown. The caller frees body. */
MUST_USE enum status db_plan_find(struct db_tx *tx, const char *plan_id, struct db_plan *out,
	struct bytes *body, struct err *err);
/* The newest first, those that are older than (before_us, before_id); 0: from the newest. */
MUST_USE enum status db_plan_list(struct db_tx *tx, int64_t before_us, const char *before_id, size_t limit,
	struct db_plan *out, size_t *count, struct err *err);
/* When the last one was made by schedule; 0: never. */
MUST_USE enum status db_plan_last_s(struct db_tx *tx, int64_t *out, struct err *err);
/* Deletes up to max that are older than before_s. */
MUST_USE enum status db_retention_plans(struct db_tx *tx, int64_t before_s, size_t max, size_t *deleted,
	struct err *err);

struct db_plan_group {
	char profile[DB_PROFILE_BYTES];
	char thing_type[129];
	int64_t week_s; /* the Monday of it */
	int64_t devices;
};
/* Devices whose active certificate ends in [from_s, to_s), by week, profile and thing type. */
MUST_USE enum status db_plan_groups(struct db_tx *tx, int64_t from_s, int64_t to_s,
	struct db_plan_group out[DB_PLAN_GROUPS_MAX], size_t *count, struct err *err);

#endif
