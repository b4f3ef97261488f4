/*
 * db/iotcore_policy.h - the local IoT Core's policies, their versions and what they are attached to.
 * Documents are text to it. A target is the resource part of an ARN: "cert/<id>",
 * "thinggroup/<name>". Whoever writes holds db_iotcore_account_lock.
 */
#ifndef DB_IOTCORE_POLICY_H
#define DB_IOTCORE_POLICY_H

#include "db/db.h"

#define DB_IOTCORE_NAME_BYTES 129   /* of policies, things, groups: 128 and NUL */
#define DB_IOTCORE_TARGET_BYTES 145 /* "thinggroup/" and a name */
#define DB_IOTCORE_GENERATION_BYTES 65

struct db_iotcore_policy {
	char name[DB_IOTCORE_NAME_BYTES];
	int32_t default_version, last_version;
	char generation[DB_IOTCORE_GENERATION_BYTES];
	int64_t created_us, modified_us;
};

/* False in *made: the name is taken. It has version 1, the default. */
MUST_USE enum status db_iotcore_policy_insert(struct db_tx *tx, const char *name, const char *document,
	const char *generation, bool *made, struct err *err);
/* ERR_NOT_FOUND iotcore_unknown. */
MUST_USE enum status db_iotcore_policy_find(struct db_tx *tx, const char *name,
	struct db_iotcore_policy *out, struct err *err);
/* How many versions it has, and how many targets. */
MUST_USE enum status db_iotcore_policy_held(struct db_tx *tx, const char *name, int64_t *versions,
	int64_t *targets, struct err *err);
MUST_USE enum status db_iotcore_policy_delete(struct db_tx *tx, const char *name, struct err *err);
/* Behind the name `after` ("": from the start), or before it when it goes down (NULL: from the end). */
MUST_USE enum status db_iotcore_policy_list(struct db_tx *tx, const char *after, bool ascending,
	int64_t limit, enum status (*each)(void *arg, const char *name, struct err *err), void *arg,
	struct err *err);

struct db_iotcore_policy_version {
	int32_t version;
	bool is_default;
	struct view document; /* until each() returns; empty in lists */
	int64_t created_us;
};
/* Adds the next version; gives its number. */
MUST_USE enum status db_iotcore_policy_version_add(struct db_tx *tx, const char *name,
	const char *document, bool set_as_default, const char *generation, int32_t *version,
	struct err *err);
/* One with its document, or with version 0 all without, newest first. */
MUST_USE enum status db_iotcore_policy_versions(struct db_tx *tx, const char *name, int32_t version,
	enum status (*each)(void *arg, const struct db_iotcore_policy_version *version,
		struct err *err),
	void *arg, struct err *err);
MUST_USE enum status db_iotcore_policy_set_default(struct db_tx *tx, const char *name, int32_t version,
	const char *generation, struct err *err);
MUST_USE enum status db_iotcore_policy_version_delete(struct db_tx *tx, const char *name,
	int32_t version, struct err *err);

/* ---- targets ---- */

/* Whether there is such a certificate or group. */
MUST_USE enum status db_iotcore_target_exists(struct db_tx *tx, const char *target, bool *exists,
	struct err *err);
/* Whether there is such a one, how many policies it has, and whether this is one. */
MUST_USE enum status db_iotcore_target_count(struct db_tx *tx, const char *target, const char *policy,
	bool *exists, int64_t *count, bool *attached, struct err *err);
/* *done false: one of both is not there, it is attached already, or the target has most policies. */
MUST_USE enum status db_iotcore_policy_attach(struct db_tx *tx, const char *policy, const char *target,
	int64_t most, bool *done, struct err *err);
/* Nothing happens when it is not attached. */
MUST_USE enum status db_iotcore_policy_detach(struct db_tx *tx, const char *policy, const char *target,
	struct err *err);
/* Names of the policies of a target, with recursive those of the group's ancestors as well. */
MUST_USE enum status db_iotcore_target_policies(struct db_tx *tx, const char *target, bool recursive,
	const char *after, bool ascending, int64_t limit,
	enum status (*each)(void *arg, const char *name, struct err *err), void *arg,
	struct err *err);
/* Targets of a policy whose text begins with prefix ("": all). */
MUST_USE enum status db_iotcore_policy_targets(struct db_tx *tx, const char *policy, const char *prefix,
	const char *after, bool ascending, int64_t limit,
	enum status (*each)(void *arg, const char *target, struct err *err), void *arg,
	struct err *err);

/*
 * The policies that are in effect for a target (NULL: none) and a thing (NULL: none): those attached to
 * the target, and to the groups of the thing, of all things that the target is attached to, and of
 * the target if it is one, with their ancestors; each once, by name, with its
 * default version's document. `also` and `but`: names to add and to leave out, one a line, or NULL.
 * At most 512.
 */
MUST_USE enum status db_iotcore_effective_policies(struct db_tx *tx, const char *target,
	const char *thing, const char *also, const char *but,
	enum status (*each)(void *arg, const char *name, struct view document, struct err *err),
	void *arg, struct err *err);
/*
 * Whose variables count for a target ("cert/…"): the thing that it is attached to exclusively, else the
 * one that the client's id (NULL: none) names, if it is attached to that; "": none.
 */
MUST_USE enum status db_iotcore_thing_of(struct db_tx *tx, const char *target, const char *client_id,
	char thing[DB_IOTCORE_NAME_BYTES], struct err *err);

#endif
