/*
 * db/iotcore_group.h - the local IoT Core's thing groups and who is in them, as rows. What is said at
 * the top of db/iotcore_thing.h about locks and lists holds here too.
 *
 * A group's parent never changes, so groups are trees, and the walks below end.
 */
#ifndef DB_IOTCORE_GROUP_H
#define DB_IOTCORE_GROUP_H

#include "db/iotcore_thing.h"

struct db_group {
	char name[DB_CORE_NAME_BYTES];
	char group_id[DB_CORE_UUID_BYTES];
	char parent[DB_CORE_NAME_BYTES]; /* "": none */
	int64_t version;
	int64_t created_us;
	struct view description;
	struct view attributes; /* a JSON object of strings */
	void *rows;             /* what the views point into; db_group_free() */
};
void db_group_free(struct db_group *group);
OWNER_STRUCT(db_group, db_group_free)

MUST_USE enum status db_group_find(struct db_tx *tx, const char *name, bool *found, struct db_group *out,
	struct err *err);
MUST_USE enum status db_group_exists(struct db_tx *tx, const char *name, bool *found, struct err *err);
/* parent NULL: none. attributes: JSON. */
MUST_USE enum status db_group_create(struct db_tx *tx, const char *name, const char *parent,
	const char *description, const char *attributes, char group_id[DB_CORE_UUID_BYTES],
	struct err *err);
/* Sets both, and gives the next version. */
MUST_USE enum status db_group_update(struct db_tx *tx, const char *name, const char *description,
	const char *attributes, int64_t *version, struct err *err);
/* Members, policies and security profiles lose it; group_arn is what the latter know it by. */
MUST_USE enum status db_group_delete(struct db_tx *tx, const char *name, const char *group_arn,
	struct err *err);
MUST_USE enum status db_group_child_count(struct db_tx *tx, const char *name, int64_t *count,
	struct err *err);
/* From the root down to the group itself. */
MUST_USE enum status db_group_path(struct db_tx *tx, const char *name, db_name_each *each, void *arg,
	struct err *err);

struct db_group_filter {
	const char *parent; /* NULL: any */
	const char *prefix; /* of the name; NULL: any */
	bool recursive;     /* all below the parent; otherwise its children, or the roots */
};
MUST_USE enum status db_group_list(struct db_tx *tx, const struct db_group_filter *filter,
	const char *after, int64_t limit, db_name_each *each, void *arg, struct err *err);

/* ---- members ---- */

struct db_group_membership {
	bool member;         /* of this group */
	int64_t group_count; /* of all that the thing is in */
	bool same_hierarchy; /* in another group with the same root */
};
MUST_USE enum status db_group_membership(struct db_tx *tx, const char *group, const char *thing,
	struct db_group_membership *out, struct err *err);
MUST_USE enum status db_group_add(struct db_tx *tx, const char *group, const char *thing,
	struct err *err);
MUST_USE enum status db_group_remove(struct db_tx *tx, const char *group, const char *thing,
	struct err *err);
MUST_USE enum status db_group_list_of_thing(struct db_tx *tx, const char *thing, const char *after,
	int64_t limit, db_name_each *each, void *arg, struct err *err);
MUST_USE enum status db_group_things(struct db_tx *tx, const char *group, bool recursive,
	const char *after, int64_t limit, db_name_each *each, void *arg, struct err *err);

#endif
