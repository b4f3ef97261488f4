/*
 * db/iotcore_tag.h - the local IoT Core's tags, of anything that has an ARN, and which registry events
 * are wanted.
 */
#ifndef DB_IOTCORE_TAG_H
#define DB_IOTCORE_TAG_H

#include "db/db.h"

/* Anew, or with another value. */
MUST_USE enum status db_tag_put(struct db_tx *tx, const char *arn, const char *key, const char *value,
	struct err *err);
MUST_USE enum status db_tag_remove(struct db_tx *tx, const char *arn, const char *key, struct err *err);
/* All of a resource. */
MUST_USE enum status db_tag_drop(struct db_tx *tx, const char *arn, struct err *err);
MUST_USE enum status db_tag_count(struct db_tx *tx, const char *arn, int64_t *count, struct err *err);
/* In the order of keys, behind `after` ("": from the start). */
MUST_USE enum status db_tag_list(struct db_tx *tx, const char *arn, const char *after, int64_t limit,
	enum status (*each)(void *arg, struct view key, struct view value, struct err *err), void *arg,
	struct err *err);
/* What the resource part of an ARN of ours names ("thinggroup/x", "cacert/…"), for tags on it. */
enum db_taggable {
	TAGGABLE_NONE = 0, /* a kind that takes no tags */
	TAGGABLE_THING_TYPE,
	TAGGABLE_THING_GROUP,
	TAGGABLE_POLICY,
	TAGGABLE_CA,
	TAGGABLE_SECURITY_PROFILE,
	TAGGABLE_RULE,
	TAGGABLE_KINDS,
};
MUST_USE enum status db_tag_resource_exists(struct db_tx *tx, enum db_taggable kind, const char *name,
	bool *found, struct err *err);

/* ---- event configurations ---- */

MUST_USE enum status db_event_configuration_set(struct db_tx *tx, const char *event_type, bool enabled,
	struct err *err);
/* Those that were ever set. */
MUST_USE enum status db_event_configuration_list(struct db_tx *tx,
	enum status (*each)(void *arg, const char *event_type, bool enabled, int64_t modified_us,
		struct err *err),
	void *arg, struct err *err);

#endif
