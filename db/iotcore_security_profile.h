/*
 * db/iotcore_security_profile.h - the local IoT Core's Device Defender profiles and what they are
 * attached to, as rows. JSON is text here, as AWS's API has it. See db/iotcore_thing.h for locks and lists.
 */
#ifndef DB_IOTCORE_SECURITY_PROFILE_H
#define DB_IOTCORE_SECURITY_PROFILE_H

#include "db/iotcore_thing.h"

#define DB_CORE_TARGET_BYTES 320

struct db_security_profile {
	const char *name;
	struct view description;
	struct view behaviors;         /* JSON: an array */
	struct view alert_targets;     /* an object */
	struct view metrics_to_retain; /* an array: additionalMetricsToRetainV2 */
	struct view metrics_export;    /* an object */
	int64_t version;
	int64_t created_us, modified_us;
	void *rows; /* of db_security_profile_find: what the views point into */
};
void db_security_profile_free(struct db_security_profile *profile);
OWNER_STRUCT(db_security_profile, db_security_profile_free)

MUST_USE enum status db_security_profile_find(struct db_tx *tx, const char *name, bool *found,
	struct db_security_profile *out, struct err *err);
/* Version and times are given by the database. */
MUST_USE enum status db_security_profile_create(struct db_tx *tx,
	const struct db_security_profile *profile, struct err *err);
/* Sets all texts, the next version and the time. */
MUST_USE enum status db_security_profile_update(struct db_tx *tx,
	const struct db_security_profile *profile, struct err *err);
/* Its attachments go with it. Nothing happens when there is none. */
MUST_USE enum status db_security_profile_delete(struct db_tx *tx, const char *name, struct err *err);
/* metric NULL: all; otherwise those with a behavior on it or that retain it. */
MUST_USE enum status db_security_profile_list(struct db_tx *tx, const char *metric, const char *after,
	int64_t limit, db_name_each *each, void *arg, struct err *err);

/* ---- targets: ARNs ---- */

MUST_USE enum status db_security_profile_attached(struct db_tx *tx, const char *name,
	const char *target, bool *attached, int64_t *target_count, struct err *err);
MUST_USE enum status db_security_profile_attach(struct db_tx *tx, const char *name, const char *target,
	struct err *err);
MUST_USE enum status db_security_profile_detach(struct db_tx *tx, const char *name, const char *target,
	struct err *err);
MUST_USE enum status db_security_profile_targets(struct db_tx *tx, const char *name, const char *after,
	int64_t limit, enum status (*each)(void *arg, const char *target, struct err *err), void *arg,
	struct err *err);
/*
 * The profiles of a target; with group (a name, otherwise NULL) also those of the groups below it, whose
 * ARNs are head ("…:thinggroup/") and name. Behind (after_name, after_target), in that order.
 */
struct db_security_profile_query {
	const char *target, *group, *head;
	const char *after_name, *after_target; /* "": from the start */
	int64_t limit;
};
MUST_USE enum status db_security_profile_mappings(struct db_tx *tx,
	const struct db_security_profile_query *query,
	enum status (*each)(void *arg, const char *name, const char *target, struct err *err),
	void *arg, struct err *err);

#endif
