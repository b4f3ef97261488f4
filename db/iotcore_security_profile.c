#include "db/iotcore_security_profile.h"

#include "db/run.h"

enum {
	PROFILE_FIND,
	PROFILE_CREATE,
	PROFILE_UPDATE,
	PROFILE_DELETE,
	PROFILE_LIST,
	PROFILE_LIST_METRIC,
	TARGET_STATE,
	TARGET_ATTACH,
	TARGET_DETACH,
	TARGET_LIST,
	TARGET_MAPPINGS,
	STATEMENTS,
};

static const struct db_statement SQL[STATEMENTS] = {
	[PROFILE_FIND] = { /* security_profile_pkey */
		.name = "core_profile_find", .params = 1, .columns = 8, .rows = ROWS_MAYBE,
		.sql = "SELECT p.description, p.behaviors, p.alert_targets, p.metrics_to_retain,"
		       " p.metrics_export, p.version, " SQL_US("p.created_at") ", "
		       SQL_US("p.modified_at") " FROM iotcore.security_profile p WHERE p.name = $1",
	},
	[PROFILE_CREATE] = {
		.name = "core_profile_create", .params = 6, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO iotcore.security_profile (name, description, behaviors,"
		       " alert_targets, metrics_to_retain, metrics_export)"
		       " VALUES ($1, $2, $3, $4, $5, $6)",
	},
	[PROFILE_UPDATE] = { /* security_profile_pkey */
		.name = "core_profile_update", .params = 6, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE iotcore.security_profile SET description = $2, behaviors = $3,"
		       " alert_targets = $4, metrics_to_retain = $5, metrics_export = $6,"
		       " version = version + 1, modified_at = now() WHERE name = $1",
	},
	[PROFILE_DELETE] = { /* security_profile_pkey */
		.name = "core_profile_delete", .params = 1, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM iotcore.security_profile WHERE name = $1",
	},
	[PROFILE_LIST] = { /* security_profile_pkey */
		.name = "core_profile_list", .params = 2, .columns = 1, .rows = ROWS_ANY,
		.sql = "SELECT p.name FROM iotcore.security_profile p WHERE p.name > $1"
		       " ORDER BY p.name LIMIT $2::bigint",
	},
	[PROFILE_LIST_METRIC] = { /* the whole table: an account has few */
		.name = "core_profile_list_metric", .params = 3, .columns = 1, .rows = ROWS_ANY,
		.sql = "SELECT p.name FROM iotcore.security_profile p WHERE p.name > $1"
		       " AND (p.behaviors::jsonb || p.metrics_to_retain::jsonb)"
		       " @> jsonb_build_array(jsonb_build_object('metric', $3::text))"
		       " ORDER BY p.name LIMIT $2::bigint",
	},
	[TARGET_STATE] = { /* security_profile_target_target */
		.name = "core_profile_target", .params = 2, .columns = 2, .rows = ROWS_ONE,
		.sql = "SELECT coalesce(bool_or(t.security_profile = $1), false), count(*)"
		       " FROM iotcore.security_profile_target t WHERE t.target = $2",
	},
	[TARGET_ATTACH] = { /* security_profile_target_pkey */
		.name = "core_profile_attach", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO iotcore.security_profile_target (security_profile, target)"
		       " VALUES ($1, $2) ON CONFLICT DO NOTHING",
	},
	[TARGET_DETACH] = { /* security_profile_target_pkey */
		.name = "core_profile_detach", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM iotcore.security_profile_target"
		       " WHERE security_profile = $1 AND target = $2",
	},
	[TARGET_LIST] = { /* security_profile_target_pkey */
		.name = "core_profile_targets", .params = 3, .columns = 1, .rows = ROWS_ANY,
		.sql = "SELECT t.target FROM iotcore.security_profile_target t"
		       " WHERE t.security_profile = $1 AND t.target > $2"
		       " ORDER BY t.target LIMIT $3::bigint",
	},
	[TARGET_MAPPINGS] = { /* thing_group_parent, security_profile_target_target */
		.name = "core_profile_mappings", .params = 6, .columns = 2, .rows = ROWS_ANY,
		.sql = "WITH RECURSIVE below AS (SELECT g.name FROM iotcore.thing_group g"
		       " WHERE g.parent = $2"
		       " UNION ALL SELECT g.name FROM iotcore.thing_group g"
		       " JOIN below b ON g.parent = b.name)"
		       " SELECT t.security_profile, t.target FROM iotcore.security_profile_target t"
		       " WHERE (t.target = $1 OR t.target IN (SELECT $3::text || b.name FROM below b))"
		       " AND (t.security_profile, t.target) > ($4, $5)"
		       " ORDER BY t.security_profile, t.target LIMIT $6::bigint",
	},
};
const struct db_table DB_TABLE_IOTCORE_SECURITY_PROFILE = { SQL, COUNT_OF(SQL) };

void
db_security_profile_free(struct db_security_profile *profile)
{
	PQclear(profile->rows);
	profile->rows = NULL;
}

enum status
db_security_profile_find(struct db_tx *tx, const char *name, bool *found,
	struct db_security_profile *out, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[PROFILE_FIND], DB_PARAMS(db_text(name)), &rows, err));
	*found = db_rows(rows) == 1;
	if (!*found)
		return OK;
	struct db_row row = db_row(rows, 0);
	out->name = name;
	out->description = db_row_view(&row);
	out->behaviors = db_row_view(&row);
	out->alert_targets = db_row_view(&row);
	out->metrics_to_retain = db_row_view(&row);
	out->metrics_export = db_row_view(&row);
	out->version = db_row_int64(&row);
	out->created_us = db_row_int64(&row);
	out->modified_us = db_row_int64(&row);
	TRY(db_row_end(&row, err));
	out->rows = give(rows);
	return OK;
}

static enum status
write_profile(struct db_tx *tx, int statement, const struct db_security_profile *profile,
	struct err *err)
{
	return db_run(tx, &SQL[statement],
		DB_PARAMS(db_text(profile->name), db_text_view(profile->description),
			db_text_view(profile->behaviors), db_text_view(profile->alert_targets),
			db_text_view(profile->metrics_to_retain),
			db_text_view(profile->metrics_export)),
		NULL, err);
}

enum status
db_security_profile_create(struct db_tx *tx, const struct db_security_profile *profile,
	struct err *err)
{
	return write_profile(tx, PROFILE_CREATE, profile, err);
}

enum status
db_security_profile_update(struct db_tx *tx, const struct db_security_profile *profile,
	struct err *err)
{
	return write_profile(tx, PROFILE_UPDATE, profile, err);
}

enum status
db_security_profile_delete(struct db_tx *tx, const char *name, struct err *err)
{
	return db_run(tx, &SQL[PROFILE_DELETE], DB_PARAMS(db_text(name)), NULL, err);
}

enum status
db_security_profile_list(struct db_tx *tx, const char *metric, const char *after, int64_t limit,
	db_name_each *each, void *arg, struct err *err)
{
	own(PGresult) rows = NULL;

	if (metric != NULL)
		TRY(db_run(tx, &SQL[PROFILE_LIST_METRIC],
			DB_PARAMS(db_text(after), db_int64(limit), db_text(metric)), &rows, err));
	else
		TRY(db_run(tx, &SQL[PROFILE_LIST], DB_PARAMS(db_text(after), db_int64(limit)), &rows,
			err));
	return db_rows_texts(rows, each, arg, err);
}

/* ---- targets ---- */

enum status
db_security_profile_attached(struct db_tx *tx, const char *name, const char *target, bool *attached,
	int64_t *target_count, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[TARGET_STATE], DB_PARAMS(db_text(name), db_text(target)), &rows, err));
	struct db_row row = db_row(rows, 0);
	*attached = db_row_bool(&row);
	*target_count = db_row_int64(&row);
	return db_row_end(&row, err);
}

enum status
db_security_profile_attach(struct db_tx *tx, const char *name, const char *target, struct err *err)
{
	return db_run(tx, &SQL[TARGET_ATTACH], DB_PARAMS(db_text(name), db_text(target)), NULL, err);
}

enum status
db_security_profile_detach(struct db_tx *tx, const char *name, const char *target, struct err *err)
{
	return db_run(tx, &SQL[TARGET_DETACH], DB_PARAMS(db_text(name), db_text(target)), NULL, err);
}

enum status
db_security_profile_targets(struct db_tx *tx, const char *name, const char *after, int64_t limit,
	enum status (*each)(void *arg, const char *target, struct err *err), void *arg,
	struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[TARGET_LIST], DB_PARAMS(db_text(name), db_text(after), db_int64(limit)),
		&rows, err));
	return db_rows_texts(rows, each, arg, err);
}

enum status
db_security_profile_mappings(struct db_tx *tx, const struct db_security_profile_query *query,
	enum status (*each)(void *arg, const char *name, const char *target, struct err *err),
	void *arg, struct err *err)
{
	own(PGresult) rows = NULL;
	char name[DB_CORE_NAME_BYTES];
	char target[DB_CORE_TARGET_BYTES];

	TRY(db_run(tx, &SQL[TARGET_MAPPINGS],
		DB_PARAMS(db_text(query->target), db_text(query->group), db_text(query->head),
			db_text(query->after_name), db_text(query->after_target),
			db_int64(query->limit)),
		&rows, err));
	for (int i = 0; i < db_rows(rows); i++) {
		struct db_row row = db_row(rows, i);

		db_row_text(&row, name, sizeof(name));
		db_row_text(&row, target, sizeof(target));
		TRY(db_row_end(&row, err));
		TRY(each(arg, name, target, err));
	}
	return OK;
}
