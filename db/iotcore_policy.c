#include "db/iotcore_policy.h"

#include <string.h>

#include "db/run.h"

enum {
	INSERT,
	FIND,
	HELD,
	DELETE,
	LIST_UP,
	LIST_DOWN,
	VERSION_NEXT,
	VERSION_ADD,
	VERSION_SHOW,
	VERSION_LIST,
	SET_DEFAULT,
	VERSION_DELETE,
	TARGET_EXISTS,
	TARGET_COUNT,
	ATTACH,
	DETACH,
	OF_TARGET_UP,
	OF_TARGET_DOWN,
	TARGETS_UP,
	TARGETS_DOWN,
	EFFECTIVE,
	THING_OF,
	STATEMENTS,
};

/* Going down from the end: NULL is behind every name. */
#define BEFORE(column, param) "(" param "::text IS NULL OR " column " < " param ")"

/*
 * The targets that $1 stands for: itself, and with $2 the ancestors of a group. Depth is bounded by
 * AWS's seven levels; UNION ends a cycle, which no parent can make.
 */
#define SELF_AND_ANCESTORS                                                                         \
	"WITH RECURSIVE up (name) AS ("                                                            \
	" SELECT name FROM iotcore.thing_group WHERE $1 = 'thinggroup/' || name AND $2::boolean"   \
	" UNION SELECT g.parent FROM iotcore.thing_group g JOIN up ON g.name = up.name"            \
	" WHERE g.parent IS NOT NULL), targets (target) AS ("                                      \
	" SELECT $1::text UNION SELECT 'thinggroup/' || name FROM up)"
#define OF_TARGET                                                                                  \
	SELF_AND_ANCESTORS " SELECT DISTINCT a.policy FROM iotcore.policy_attachment a"            \
			   " JOIN targets USING (target) WHERE "

#define TARGET_EXISTS_SQL                                                                          \
	"(EXISTS (SELECT FROM iotcore.certificate WHERE $1 LIKE 'cert/%'"                          \
	" AND certificate_id = substr($1, 6))"                                                     \
	" OR EXISTS (SELECT FROM iotcore.thing_group WHERE $1 LIKE 'thinggroup/%'"                 \
	" AND name = substr($1, 12)))"

static const struct db_statement SQL[STATEMENTS] = {
	[INSERT] = { /* policy_pkey */
		.name = "iotcore_policy_insert", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO iotcore.policy (name, default_version, last_version, generation)"
		       " VALUES ($1, 1, 1, $2) ON CONFLICT (name) DO NOTHING",
	},
	[FIND] = { /* policy_pkey */
		.name = "iotcore_policy_find", .params = 1, .columns = 6, .rows = ROWS_MAYBE,
		.sql = "SELECT name, default_version, last_version, generation, " SQL_US("created_at")
		       ", " SQL_US("modified_at") " FROM iotcore.policy WHERE name = $1",
	},
	[HELD] = { /* policy_version_pkey, policy_attachment_policy */
		.name = "iotcore_policy_held", .params = 1, .columns = 2, .rows = ROWS_ONE,
		.sql = "SELECT (SELECT count(*) FROM iotcore.policy_version WHERE policy = $1),"
		       " (SELECT count(*) FROM iotcore.policy_attachment WHERE policy = $1)",
	},
	[DELETE] = { /* policy_pkey; versions go with it */
		.name = "iotcore_policy_delete", .params = 1, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM iotcore.policy WHERE name = $1",
	},
	[LIST_UP] = { /* policy_pkey */
		.name = "iotcore_policy_list_up", .params = 2, .columns = 1, .rows = ROWS_ANY,
		.sql = "SELECT name FROM iotcore.policy WHERE name > $1 ORDER BY name LIMIT $2::bigint",
	},
	[LIST_DOWN] = { /* policy_pkey, backwards */
		.name = "iotcore_policy_list_down", .params = 2, .columns = 1, .rows = ROWS_ANY,
		.sql = "SELECT name FROM iotcore.policy WHERE " BEFORE("name", "$1")
		       " ORDER BY name DESC LIMIT $2::bigint",
	},
	[VERSION_NEXT] = { /* policy_pkey */
		.name = "iotcore_policy_version_next", .params = 3, .columns = 1, .rows = ROWS_ONE,
		.sql = "UPDATE iotcore.policy SET last_version = last_version + 1,"
		       " default_version = CASE WHEN $2::boolean THEN last_version + 1"
		       " ELSE default_version END, generation = $3, modified_at = now()"
		       " WHERE name = $1 RETURNING last_version",
	},
	[VERSION_ADD] = {
		.name = "iotcore_policy_version_add", .params = 3, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO iotcore.policy_version (policy, version, document)"
		       " VALUES ($1, $2::int, $3)",
	},
	[VERSION_SHOW] = { /* policy_version_pkey */
		.name = "iotcore_policy_version_show", .params = 2, .columns = 4, .rows = ROWS_MAYBE,
		.sql = "SELECT v.version, v.version = p.default_version, v.document, "
		       SQL_US("v.created_at") " FROM iotcore.policy_version v"
		       " JOIN iotcore.policy p ON p.name = v.policy"
		       " WHERE v.policy = $1 AND v.version = $2::int",
	},
	[VERSION_LIST] = { /* policy_version_pkey, backwards */
		.name = "iotcore_policy_version_list", .params = 1, .columns = 4, .rows = ROWS_ANY,
		.sql = "SELECT v.version, v.version = p.default_version, '', " SQL_US("v.created_at")
		       " FROM iotcore.policy_version v JOIN iotcore.policy p ON p.name = v.policy"
		       " WHERE v.policy = $1 ORDER BY v.version DESC",
	},
	[SET_DEFAULT] = { /* policy_pkey */
		.name = "iotcore_policy_set_default", .params = 3, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE iotcore.policy SET default_version = $2::int, generation = $3,"
		       " modified_at = now() WHERE name = $1",
	},
	[VERSION_DELETE] = { /* policy_version_pkey */
		.name = "iotcore_policy_version_delete", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM iotcore.policy_version WHERE policy = $1 AND version = $2::int",
	},
	[TARGET_EXISTS] = { /* certificate_pkey, thing_group_pkey */
		.name = "iotcore_target_exists", .params = 1, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT " TARGET_EXISTS_SQL,
	},
	[TARGET_COUNT] = { /* policy_attachment_pkey, certificate_pkey, thing_group_pkey */
		.name = "iotcore_target_count", .params = 2, .columns = 3, .rows = ROWS_ONE,
		.sql = "SELECT " TARGET_EXISTS_SQL ", count(*), coalesce(bool_or(policy = $2), false)"
		       " FROM iotcore.policy_attachment WHERE target = $1",
	},
	[ATTACH] = { /* policy_pkey, certificate_pkey, thing_group_pkey, policy_attachment_pkey */
		.name = "iotcore_policy_attach", .params = 3, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO iotcore.policy_attachment (policy, target)"
		       " SELECT p.name, $1::text FROM iotcore.policy p WHERE p.name = $2"
		       " AND " TARGET_EXISTS_SQL " AND (SELECT count(*)"
		       " FROM iotcore.policy_attachment a WHERE a.target = $1) < $3::bigint"
		       " ON CONFLICT DO NOTHING",
	},
	[DETACH] = { /* policy_attachment_pkey */
		.name = "iotcore_policy_detach", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM iotcore.policy_attachment WHERE policy = $1 AND target = $2",
	},
	[OF_TARGET_UP] = { /* thing_group_pkey, policy_attachment_pkey */
		.name = "iotcore_target_policies_up", .params = 4, .columns = 1, .rows = ROWS_ANY,
		.sql = OF_TARGET "a.policy > $3 ORDER BY a.policy LIMIT $4::bigint",
	},
	[OF_TARGET_DOWN] = { /* thing_group_pkey, policy_attachment_pkey */
		.name = "iotcore_target_policies_down", .params = 4, .columns = 1, .rows = ROWS_ANY,
		.sql = OF_TARGET BEFORE("a.policy", "$3") " ORDER BY a.policy DESC LIMIT $4::bigint",
	},
	[TARGETS_UP] = { /* policy_attachment_policy */
		.name = "iotcore_policy_targets_up", .params = 4, .columns = 1, .rows = ROWS_ANY,
		.sql = "SELECT target FROM iotcore.policy_attachment WHERE policy = $1"
		       " AND target LIKE $2 || '%' AND target > $3 ORDER BY target LIMIT $4::bigint",
	},
	[TARGETS_DOWN] = { /* policy_attachment_policy, backwards */
		.name = "iotcore_policy_targets_down", .params = 4, .columns = 1, .rows = ROWS_ANY,
		.sql = "SELECT target FROM iotcore.policy_attachment WHERE policy = $1"
		       " AND target LIKE $2 || '%' AND " BEFORE("target", "$3")
		       " ORDER BY target DESC LIMIT $4::bigint",
	},
	/* thing_principal_certificate, thing_group_member_pkey, thing_group_pkey,
	 * policy_attachment_pkey, policy_version_pkey */
	[EFFECTIVE] = {
		.name = "iotcore_effective_policies", .params = 4, .columns = 2, .rows = ROWS_ANY,
		.sql = "WITH RECURSIVE up (name) AS ("
		       " SELECT thing_group FROM iotcore.thing_group_member WHERE thing = $2"
		       " UNION SELECT m.thing_group FROM iotcore.thing_principal p"
		       " JOIN iotcore.thing_group_member m ON m.thing = p.thing"
		       " WHERE $1 LIKE 'cert/%' AND p.certificate_id = substr($1, 6)"
		       " UNION SELECT name FROM iotcore.thing_group WHERE $1 = 'thinggroup/' || name"
		       " UNION SELECT g.parent FROM iotcore.thing_group g JOIN up ON g.name = up.name"
		       " WHERE g.parent IS NOT NULL),"
		       " names (name) AS (SELECT policy FROM iotcore.policy_attachment"
		       " WHERE target = $1 OR target IN (SELECT 'thinggroup/' || name FROM up)"
		       " UNION SELECT unnest(string_to_array($3, E'\\n')))"
		       " SELECT p.name, v.document FROM iotcore.policy p JOIN iotcore.policy_version v"
		       " ON v.policy = p.name AND v.version = p.default_version"
		       " WHERE p.name IN (SELECT name FROM names)"
		       " AND p.name <> ALL (coalesce(string_to_array($4, E'\\n'), '{}'))"
		       " ORDER BY p.name LIMIT 512",
	},
	[THING_OF] = { /* thing_principal_certificate */
		.name = "iotcore_thing_of", .params = 2, .columns = 1, .rows = ROWS_MAYBE,
		.sql = "SELECT thing FROM iotcore.thing_principal WHERE $1 LIKE 'cert/%'"
		       " AND certificate_id = substr($1, 6) AND (exclusive OR thing = $2)"
		       " ORDER BY exclusive DESC LIMIT 1",
	},
};
const struct db_table DB_TABLE_IOTCORE_POLICY = { SQL, COUNT_OF(SQL) };

/* ---- policies ---- */

enum status
db_iotcore_policy_insert(struct db_tx *tx, const char *name, const char *document,
	const char *generation, bool *made, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[INSERT], DB_PARAMS(db_text(name), db_text(generation)), &rows, err));
	*made = db_affected(rows) == 1;
	if (!*made)
		return OK;
	return db_run(tx, &SQL[VERSION_ADD],
		DB_PARAMS(db_text(name), db_int64(1), db_text(document)), NULL, err);
}

enum status
db_iotcore_policy_find(
	struct db_tx *tx, const char *name, struct db_iotcore_policy *out, struct err *err)
{
	own(PGresult) rows = NULL;
	struct db_row row;

	TRY(db_run(tx, &SQL[FIND], DB_PARAMS(db_text(name)), &rows, err));
	if (db_rows(rows) == 0)
		return err_set(err, ERR_NOT_FOUND, "iotcore_unknown", "there is no such policy");
	row = db_row(rows, 0);
	db_row_text(&row, out->name, sizeof(out->name));
	out->default_version = db_row_int32(&row);
	out->last_version = db_row_int32(&row);
	db_row_text(&row, out->generation, sizeof(out->generation));
	out->created_us = db_row_int64(&row);
	out->modified_us = db_row_int64(&row);
	return db_row_end(&row, err);
}

enum status
db_iotcore_policy_held(
	struct db_tx *tx, const char *name, int64_t *versions, int64_t *targets, struct err *err)
{
	own(PGresult) rows = NULL;
	struct db_row row;

	TRY(db_run(tx, &SQL[HELD], DB_PARAMS(db_text(name)), &rows, err));
	row = db_row(rows, 0);
	*versions = db_row_int64(&row);
	*targets = db_row_int64(&row);
	return db_row_end(&row, err);
}

enum status
db_iotcore_policy_delete(struct db_tx *tx, const char *name, struct err *err)
{
	return db_run(tx, &SQL[DELETE], DB_PARAMS(db_text(name)), NULL, err);
}

enum status
db_iotcore_policy_list(struct db_tx *tx, const char *after, bool ascending, int64_t limit,
	enum status (*each)(void *arg, const char *name, struct err *err), void *arg, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[ascending ? LIST_UP : LIST_DOWN],
		DB_PARAMS(db_text(after), db_int64(limit)), &rows, err));
	return db_rows_texts(rows, each, arg, err);
}

/* ---- versions ---- */

enum status
db_iotcore_policy_version_add(struct db_tx *tx, const char *name, const char *document,
	bool set_as_default, const char *generation, int32_t *version, struct err *err)
{
	own(PGresult) rows = NULL;
	struct db_row row;

	TRY(db_run(tx, &SQL[VERSION_NEXT],
		DB_PARAMS(db_text(name), db_bool(set_as_default), db_text(generation)), &rows, err));
	row = db_row(rows, 0);
	*version = db_row_int32(&row);
	TRY(db_row_end(&row, err));
	return db_run(tx, &SQL[VERSION_ADD],
		DB_PARAMS(db_text(name), db_int64(*version), db_text(document)), NULL, err);
}

enum status
db_iotcore_policy_versions(struct db_tx *tx, const char *name, int32_t version,
	enum status (*each)(
		void *arg, const struct db_iotcore_policy_version *version, struct err *err),
	void *arg, struct err *err)
{
	own(PGresult) rows = NULL;

	if (version == 0)
		TRY(db_run(tx, &SQL[VERSION_LIST], DB_PARAMS(db_text(name)), &rows, err));
	else
		TRY(db_run(tx, &SQL[VERSION_SHOW], DB_PARAMS(db_text(name), db_int64(version)),
			&rows, err));
	for (int i = 0; i < db_rows(rows); i++) {
		struct db_iotcore_policy_version one;
		struct db_row row = db_row(rows, i);

		one.version = db_row_int32(&row);
		one.is_default = db_row_bool(&row);
		one.document = db_row_view(&row);
		one.created_us = db_row_int64(&row);
		TRY(db_row_end(&row, err));
		TRY(each(arg, &one, err));
	}
	return OK;
}

enum status
db_iotcore_policy_set_default(struct db_tx *tx, const char *name, int32_t version,
	const char *generation, struct err *err)
{
	return db_run(tx, &SQL[SET_DEFAULT],
		DB_PARAMS(db_text(name), db_int64(version), db_text(generation)), NULL, err);
}

enum status
db_iotcore_policy_version_delete(
	struct db_tx *tx, const char *name, int32_t version, struct err *err)
{
	return db_run(
		tx, &SQL[VERSION_DELETE], DB_PARAMS(db_text(name), db_int64(version)), NULL, err);
}

/* ---- targets ---- */

enum status
db_iotcore_target_exists(struct db_tx *tx, const char *target, bool *exists, struct err *err)
{
	own(PGresult) rows = NULL;
	struct db_row row;

	TRY(db_run(tx, &SQL[TARGET_EXISTS], DB_PARAMS(db_text(target)), &rows, err));
	row = db_row(rows, 0);
	*exists = db_row_bool(&row);
	return db_row_end(&row, err);
}

enum status
db_iotcore_target_count(struct db_tx *tx, const char *target, const char *policy, bool *exists,
	int64_t *count, bool *attached, struct err *err)
{
	own(PGresult) rows = NULL;
	struct db_row row;

	TRY(db_run(tx, &SQL[TARGET_COUNT], DB_PARAMS(db_text(target), db_text(policy)), &rows, err));
	row = db_row(rows, 0);
	*exists = db_row_bool(&row);
	*count = db_row_int64(&row);
	*attached = db_row_bool(&row);
	return db_row_end(&row, err);
}

enum status
db_iotcore_policy_attach(struct db_tx *tx, const char *policy, const char *target, int64_t most,
	bool *done, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[ATTACH], DB_PARAMS(db_text(target), db_text(policy), db_int64(most)), &rows,
		err));
	*done = db_affected(rows) == 1;
	return OK;
}

enum status
db_iotcore_policy_detach(
	struct db_tx *tx, const char *policy, const char *target, struct err *err)
{
	return db_run(tx, &SQL[DETACH], DB_PARAMS(db_text(policy), db_text(target)), NULL, err);
}

enum status
db_iotcore_target_policies(struct db_tx *tx, const char *target, bool recursive, const char *after,
	bool ascending, int64_t limit,
	enum status (*each)(void *arg, const char *name, struct err *err), void *arg, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[ascending ? OF_TARGET_UP : OF_TARGET_DOWN],
		DB_PARAMS(db_text(target), db_bool(recursive), db_text(after), db_int64(limit)),
		&rows, err));
	return db_rows_texts(rows, each, arg, err);
}

enum status
db_iotcore_policy_targets(struct db_tx *tx, const char *policy, const char *prefix,
	const char *after, bool ascending, int64_t limit,
	enum status (*each)(void *arg, const char *target, struct err *err), void *arg,
	struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[ascending ? TARGETS_UP : TARGETS_DOWN],
		DB_PARAMS(db_text(policy), db_text(prefix), db_text(after), db_int64(limit)), &rows,
		err));
	return db_rows_texts(rows, each, arg, err);
}

enum status
db_iotcore_effective_policies(struct db_tx *tx, const char *target, const char *thing,
	const char *also, const char *but,
	enum status (*each)(void *arg, const char *name, struct view document, struct err *err),
	void *arg, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[EFFECTIVE],
		DB_PARAMS(db_text(target), db_text(thing), db_text(also), db_text(but)), &rows, err));
	for (int i = 0; i < db_rows(rows); i++) {
		char name[DB_IOTCORE_NAME_BYTES];
		struct db_row row = db_row(rows, i);
		struct view document;

		db_row_text(&row, name, sizeof(name));
		document = db_row_view(&row);
		TRY(db_row_end(&row, err));
		TRY(each(arg, name, document, err));
	}
	return OK;
}

enum status
db_iotcore_thing_of(struct db_tx *tx, const char *target, const char *client_id,
	char thing[DB_IOTCORE_NAME_BYTES], struct err *err)
{
	own(PGresult) rows = NULL;
	struct db_row row;

	thing[0] = '\0';
	TRY(db_run(tx, &SQL[THING_OF], DB_PARAMS(db_text(target), db_text(client_id)), &rows, err));
	if (db_rows(rows) == 0)
		return OK;
	row = db_row(rows, 0);
	db_row_text(&row, thing, DB_IOTCORE_NAME_BYTES);
	return db_row_end(&row, err);
}
