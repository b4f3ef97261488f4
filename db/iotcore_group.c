#include "db/iotcore_group.h"

#include "db/run.h"

enum {
	GROUP_FIND,
	GROUP_EXISTS,
	GROUP_CREATE,
	GROUP_UPDATE,
	GROUP_DELETE,
	GROUP_DELETE_POLICIES,
	GROUP_DELETE_PROFILES,
	GROUP_CHILDREN,
	GROUP_PATH,
	GROUP_LIST,
	GROUP_LIST_ROOTS,
	GROUP_LIST_CHILDREN,
	GROUP_LIST_BELOW,
	MEMBERSHIP,
	MEMBER_ADD,
	MEMBER_REMOVE,
	MEMBER_GROUPS,
	MEMBER_THINGS,
	MEMBER_THINGS_BELOW,
	STATEMENTS,
};

/* Everything below a group, without it; thing_group_parent. */
#define BELOW(name)                                                                                \
	"WITH RECURSIVE below AS (SELECT g.name FROM iotcore.thing_group g WHERE g.parent = " name     \
	" UNION ALL SELECT g.name FROM iotcore.thing_group g JOIN below b ON g.parent = b.name)"
/* PREFIX needs a text, so that its type is known. */
#define PREFIX(column, text) "(" text "::text IS NULL OR starts_with(" column ", " text "))"

static const struct db_statement SQL[STATEMENTS] = {
	[GROUP_FIND] = { /* thing_group_pkey */
		.name = "core_group_find", .params = 1, .columns = 7, .rows = ROWS_MAYBE,
		.sql = "SELECT g.name, g.thing_group_id::text, coalesce(g.parent, ''), g.version, "
		       SQL_US("g.created_at") ", g.description, g.attributes::text"
		       " FROM iotcore.thing_group g WHERE g.name = $1",
	},
	[GROUP_EXISTS] = { /* thing_group_pkey */
		.name = "core_group_exists", .params = 1, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT EXISTS (SELECT FROM iotcore.thing_group g WHERE g.name = $1)",
	},
	[GROUP_CREATE] = {
		.name = "core_group_create", .params = 4, .columns = 1, .rows = ROWS_ONE,
		.sql = "INSERT INTO iotcore.thing_group (name, parent, description, attributes)"
		       " VALUES ($1, $2, $3, $4::jsonb) RETURNING thing_group_id::text",
	},
	[GROUP_UPDATE] = { /* thing_group_pkey */
		.name = "core_group_update", .params = 3, .columns = 1, .rows = ROWS_ONE,
		.sql = "UPDATE iotcore.thing_group SET description = $2, attributes = $3::jsonb,"
		       " version = version + 1 WHERE name = $1 RETURNING version",
	},
	[GROUP_DELETE] = { /* thing_group_pkey; thing_group_member_group for what follows it */
		.name = "core_group_delete", .params = 1, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM iotcore.thing_group WHERE name = $1",
	},
	[GROUP_DELETE_POLICIES] = { /* policy_attachment_pkey */
		.name = "core_group_delete_policies", .params = 1, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM iotcore.policy_attachment WHERE target = 'thinggroup/' || $1",
	},
	[GROUP_DELETE_PROFILES] = { /* security_profile_target_target */
		.name = "core_group_delete_profiles", .params = 1, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM iotcore.security_profile_target WHERE target = $1",
	},
	[GROUP_CHILDREN] = { /* thing_group_parent */
		.name = "core_group_children", .params = 1, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT count(*) FROM iotcore.thing_group g WHERE g.parent = $1",
	},
	[GROUP_PATH] = { /* thing_group_pkey, once for each level */
		.name = "core_group_path", .params = 1, .columns = 1, .rows = ROWS_ANY,
		.sql = "WITH RECURSIVE path AS (SELECT g.name, g.parent, 0 AS up"
		       " FROM iotcore.thing_group g WHERE g.name = $1"
		       " UNION ALL SELECT g.name, g.parent, p.up + 1"
		       " FROM iotcore.thing_group g JOIN path p ON g.name = p.parent)"
		       " SELECT p.name FROM path p ORDER BY p.up DESC",
	},
	[GROUP_LIST] = { /* thing_group_pkey */
		.name = "core_group_list", .params = 3, .columns = 1, .rows = ROWS_ANY,
		.sql = "SELECT g.name FROM iotcore.thing_group g WHERE g.name > $1"
		       " AND " PREFIX("g.name", "$3") " ORDER BY g.name LIMIT $2::bigint",
	},
	[GROUP_LIST_ROOTS] = { /* thing_group_parent */
		.name = "core_group_list_roots", .params = 3, .columns = 1, .rows = ROWS_ANY,
		.sql = "SELECT g.name FROM iotcore.thing_group g WHERE g.parent IS NULL AND g.name > $1"
		       " AND " PREFIX("g.name", "$3") " ORDER BY g.name LIMIT $2::bigint",
	},
	[GROUP_LIST_CHILDREN] = { /* thing_group_parent */
		.name = "core_group_list_children", .params = 4, .columns = 1, .rows = ROWS_ANY,
		.sql = "SELECT g.name FROM iotcore.thing_group g WHERE g.parent = $4 AND g.name > $1"
		       " AND " PREFIX("g.name", "$3") " ORDER BY g.name LIMIT $2::bigint",
	},
	[GROUP_LIST_BELOW] = { /* thing_group_parent */
		.name = "core_group_list_below", .params = 4, .columns = 1, .rows = ROWS_ANY,
		.sql = BELOW("$4") " SELECT b.name FROM below b WHERE b.name > $1"
		       " AND " PREFIX("b.name", "$3") " ORDER BY b.name LIMIT $2::bigint",
	},
	[MEMBERSHIP] = {
		/* thing_group_member_pkey, then thing_group_pkey for each level up. */
		.name = "core_membership", .params = 2, .columns = 3, .rows = ROWS_ONE,
		.sql = "WITH RECURSIVE up AS (SELECT g.name AS origin, g.name, g.parent"
		       " FROM iotcore.thing_group g WHERE g.name = $1 OR g.name IN"
		       " (SELECT m.thing_group FROM iotcore.thing_group_member m WHERE m.thing = $2)"
		       " UNION ALL SELECT u.origin, g.name, g.parent"
		       " FROM iotcore.thing_group g JOIN up u ON g.name = u.parent),"
		       " root AS (SELECT u.origin, u.name FROM up u WHERE u.parent IS NULL)"
		       " SELECT EXISTS (SELECT FROM iotcore.thing_group_member m"
		       " WHERE m.thing = $2 AND m.thing_group = $1),"
		       " (SELECT count(*) FROM iotcore.thing_group_member m WHERE m.thing = $2),"
		       " EXISTS (SELECT FROM root a JOIN root b ON a.name = b.name"
		       " WHERE a.origin = $1 AND b.origin <> $1)",
	},
	[MEMBER_ADD] = { /* thing_group_member_pkey */
		.name = "core_member_add", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO iotcore.thing_group_member (thing_group, thing) VALUES ($1, $2)"
		       " ON CONFLICT DO NOTHING",
	},
	[MEMBER_REMOVE] = { /* thing_group_member_pkey */
		.name = "core_member_remove", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM iotcore.thing_group_member WHERE thing = $2 AND thing_group = $1",
	},
	[MEMBER_GROUPS] = { /* thing_group_member_pkey */
		.name = "core_member_groups", .params = 3, .columns = 1, .rows = ROWS_ANY,
		.sql = "SELECT m.thing_group FROM iotcore.thing_group_member m"
		       " WHERE m.thing = $1 AND m.thing_group > $2"
		       " ORDER BY m.thing_group LIMIT $3::bigint",
	},
	[MEMBER_THINGS] = { /* thing_group_member_group */
		.name = "core_member_things", .params = 3, .columns = 1, .rows = ROWS_ANY,
		.sql = "SELECT m.thing FROM iotcore.thing_group_member m"
		       " WHERE m.thing_group = $1 AND m.thing > $2 ORDER BY m.thing LIMIT $3::bigint",
	},
	[MEMBER_THINGS_BELOW] = { /* thing_group_parent, thing_group_member_group */
		.name = "core_member_things_below", .params = 3, .columns = 1, .rows = ROWS_ANY,
		.sql = BELOW("$1") " SELECT DISTINCT m.thing FROM iotcore.thing_group_member m"
		       " WHERE (m.thing_group = $1 OR m.thing_group IN (SELECT b.name FROM below b))"
		       " AND m.thing > $2 ORDER BY m.thing LIMIT $3::bigint",
	},
};
const struct db_table DB_TABLE_IOTCORE_GROUP = { SQL, COUNT_OF(SQL) };

void
db_group_free(struct db_group *group)
{
	PQclear(group->rows);
	group->rows = NULL;
}

enum status
db_group_find(struct db_tx *tx, const char *name, bool *found, struct db_group *out, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[GROUP_FIND], DB_PARAMS(db_text(name)), &rows, err));
	*found = db_rows(rows) == 1;
	if (!*found)
		return OK;
	struct db_row row = db_row(rows, 0);
	db_row_text(&row, out->name, sizeof(out->name));
	db_row_text(&row, out->group_id, sizeof(out->group_id));
	db_row_text(&row, out->parent, sizeof(out->parent));
	out->version = db_row_int64(&row);
	out->created_us = db_row_int64(&row);
	out->description = db_row_view(&row);
	out->attributes = db_row_view(&row);
	TRY(db_row_end(&row, err));
	out->rows = give(rows);
	return OK;
}

enum status
db_group_exists(struct db_tx *tx, const char *name, bool *found, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[GROUP_EXISTS], DB_PARAMS(db_text(name)), &rows, err));
	struct db_row row = db_row(rows, 0);
	*found = db_row_bool(&row);
	return db_row_end(&row, err);
}

enum status
db_group_create(struct db_tx *tx, const char *name, const char *parent, const char *description,
	const char *attributes, char group_id[DB_CORE_UUID_BYTES], struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[GROUP_CREATE],
		DB_PARAMS(db_text(name), db_text(parent), db_text(description), db_text(attributes)),
		&rows, err));
	struct db_row row = db_row(rows, 0);
	db_row_text(&row, group_id, DB_CORE_UUID_BYTES);
	return db_row_end(&row, err);
}

enum status
db_group_update(struct db_tx *tx, const char *name, const char *description, const char *attributes,
	int64_t *version, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[GROUP_UPDATE],
		DB_PARAMS(db_text(name), db_text(description), db_text(attributes)), &rows, err));
	struct db_row row = db_row(rows, 0);
	*version = db_row_int64(&row);
	return db_row_end(&row, err);
}

enum status
db_group_delete(struct db_tx *tx, const char *name, const char *group_arn, struct err *err)
{
	TRY(db_run(tx, &SQL[GROUP_DELETE_POLICIES], DB_PARAMS(db_text(name)), NULL, err));
	TRY(db_run(tx, &SQL[GROUP_DELETE_PROFILES], DB_PARAMS(db_text(group_arn)), NULL, err));
	return db_run(tx, &SQL[GROUP_DELETE], DB_PARAMS(db_text(name)), NULL, err);
}

enum status
db_group_child_count(struct db_tx *tx, const char *name, int64_t *count, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[GROUP_CHILDREN], DB_PARAMS(db_text(name)), &rows, err));
	struct db_row row = db_row(rows, 0);
	*count = db_row_int64(&row);
	return db_row_end(&row, err);
}

enum status
db_group_path(struct db_tx *tx, const char *name, db_name_each *each, void *arg, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[GROUP_PATH], DB_PARAMS(db_text(name)), &rows, err));
	return db_rows_texts(rows, each, arg, err);
}

enum status
db_group_list(struct db_tx *tx, const struct db_group_filter *filter, const char *after, int64_t limit,
	db_name_each *each, void *arg, struct err *err)
{
	own(PGresult) rows = NULL;
	struct db_param at = db_text(after), most = db_int64(limit), prefix = db_text(filter->prefix);

	if (filter->parent != NULL)
		TRY(db_run(tx, &SQL[filter->recursive ? GROUP_LIST_BELOW : GROUP_LIST_CHILDREN],
			DB_PARAMS(at, most, prefix, db_text(filter->parent)), &rows, err));
	else
		TRY(db_run(tx, &SQL[filter->recursive ? GROUP_LIST : GROUP_LIST_ROOTS],
			DB_PARAMS(at, most, prefix), &rows, err));
	return db_rows_texts(rows, each, arg, err);
}

/* ---- members ---- */

enum status
db_group_membership(struct db_tx *tx, const char *group, const char *thing,
	struct db_group_membership *out, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[MEMBERSHIP], DB_PARAMS(db_text(group), db_text(thing)), &rows, err));
	struct db_row row = db_row(rows, 0);
	out->member = db_row_bool(&row);
	out->group_count = db_row_int64(&row);
	out->same_hierarchy = db_row_bool(&row);
	return db_row_end(&row, err);
}

enum status
db_group_add(struct db_tx *tx, const char *group, const char *thing, struct err *err)
{
	return db_run(tx, &SQL[MEMBER_ADD], DB_PARAMS(db_text(group), db_text(thing)), NULL, err);
}

enum status
db_group_remove(struct db_tx *tx, const char *group, const char *thing, struct err *err)
{
	return db_run(tx, &SQL[MEMBER_REMOVE], DB_PARAMS(db_text(group), db_text(thing)), NULL, err);
}

enum status
db_group_list_of_thing(struct db_tx *tx, const char *thing, const char *after, int64_t limit,
	db_name_each *each, void *arg, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[MEMBER_GROUPS], DB_PARAMS(db_text(thing), db_text(after), db_int64(limit)),
		&rows, err));
	return db_rows_texts(rows, each, arg, err);
}

enum status
db_group_things(struct db_tx *tx, const char *group, bool recursive, const char *after, int64_t limit,
	db_name_each *each, void *arg, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[recursive ? MEMBER_THINGS_BELOW : MEMBER_THINGS],
		DB_PARAMS(db_text(group), db_text(after), db_int64(limit)), &rows, err));
	return db_rows_texts(rows, each, arg, err);
}
