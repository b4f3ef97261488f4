#include "db/iotcore_tag.h"

#include "db/run.h"

enum {
	TAG_PUT,
	TAG_REMOVE,
	TAG_DROP,
	TAG_COUNT,
	TAG_LIST,
	HAS_THING_TYPE,
	HAS_THING_GROUP,
	HAS_POLICY,
	HAS_CA,
	HAS_SECURITY_PROFILE,
	HAS_RULE,
	EVENT_SET,
	EVENT_LIST,
	STATEMENTS,
};

/* Served by the primary key of each. */
#define HAS(statement, column)                                                                     \
	{                                                                                          \
		.name = "core_has_" statement, .params = 1, .columns = 1, .rows = ROWS_ONE,        \
		.sql = "SELECT EXISTS (SELECT FROM iotcore." statement " r WHERE r." column " = $1)", \
	}

static const struct db_statement SQL[STATEMENTS] = {
	[TAG_PUT] = { /* tag_pkey */
		.name = "core_tag_put", .params = 3, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO iotcore.tag (arn, key, value) VALUES ($1, $2, $3)"
		       " ON CONFLICT (arn, key) DO UPDATE SET value = excluded.value",
	},
	[TAG_REMOVE] = { /* tag_pkey */
		.name = "core_tag_remove", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM iotcore.tag WHERE arn = $1 AND key = $2",
	},
	[TAG_DROP] = { /* tag_pkey */
		.name = "core_tag_drop", .params = 1, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM iotcore.tag WHERE arn = $1",
	},
	[TAG_COUNT] = { /* tag_pkey */
		.name = "core_tag_count", .params = 1, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT count(*) FROM iotcore.tag t WHERE t.arn = $1",
	},
	[TAG_LIST] = { /* tag_pkey */
		.name = "core_tag_list", .params = 3, .columns = 2, .rows = ROWS_ANY,
		.sql = "SELECT t.key, t.value FROM iotcore.tag t WHERE t.arn = $1 AND t.key > $2"
		       " ORDER BY t.key LIMIT $3::bigint",
	},
	[HAS_THING_TYPE] = HAS("thing_type", "name"),
	[HAS_THING_GROUP] = HAS("thing_group", "name"),
	[HAS_POLICY] = HAS("policy", "name"),
	[HAS_CA] = HAS("ca_certificate", "certificate_id"),
	[HAS_SECURITY_PROFILE] = HAS("security_profile", "name"),
	[HAS_RULE] = HAS("topic_rule", "name"),
	[EVENT_SET] = { /* event_configuration_pkey */
		.name = "core_event_set", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO iotcore.event_configuration (event_type, enabled)"
		       " VALUES ($1, $2::bool) ON CONFLICT (event_type)"
		       " DO UPDATE SET enabled = excluded.enabled, modified_at = now()",
	},
	[EVENT_LIST] = { /* the whole table: a dozen rows */
		.name = "core_event_list", .params = 0, .columns = 3, .rows = ROWS_ANY,
		.sql = "SELECT c.event_type, c.enabled, " SQL_US("c.modified_at")
		       " FROM iotcore.event_configuration c ORDER BY c.event_type LIMIT 100",
	},
};
const struct db_table DB_TABLE_IOTCORE_TAG = { SQL, COUNT_OF(SQL) };

enum status
db_tag_put(struct db_tx *tx, const char *arn, const char *key, const char *value, struct err *err)
{
	return db_run(tx, &SQL[TAG_PUT], DB_PARAMS(db_text(arn), db_text(key), db_text(value)), NULL,
		err);
}

enum status
db_tag_remove(struct db_tx *tx, const char *arn, const char *key, struct err *err)
{
	return db_run(tx, &SQL[TAG_REMOVE], DB_PARAMS(db_text(arn), db_text(key)), NULL, err);
}

enum status
db_tag_drop(struct db_tx *tx, const char *arn, struct err *err)
{
	return db_run(tx, &SQL[TAG_DROP], DB_PARAMS(db_text(arn)), NULL, err);
}

enum status
db_tag_count(struct db_tx *tx, const char *arn, int64_t *count, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[TAG_COUNT], DB_PARAMS(db_text(arn)), &rows, err));
	struct db_row row = db_row(rows, 0);
	*count = db_row_int64(&row);
	return db_row_end(&row, err);
}

enum status
db_tag_list(struct db_tx *tx, const char *arn, const char *after, int64_t limit,
	enum status (*each)(void *arg, struct view key, struct view value, struct err *err), void *arg,
	struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[TAG_LIST], DB_PARAMS(db_text(arn), db_text(after), db_int64(limit)), &rows,
		err));
	for (int i = 0; i < db_rows(rows); i++) {
		struct db_row row = db_row(rows, i);
		struct view key = db_row_view(&row);
		struct view value = db_row_view(&row);

		TRY(db_row_end(&row, err));
		TRY(each(arg, key, value, err));
	}
	return OK;
}

enum status
db_tag_resource_exists(struct db_tx *tx, enum db_taggable kind, const char *name, bool *found,
	struct err *err)
{
	static const int STATEMENT[TAGGABLE_KINDS] = {
		[TAGGABLE_THING_TYPE] = HAS_THING_TYPE,
		[TAGGABLE_THING_GROUP] = HAS_THING_GROUP,
		[TAGGABLE_POLICY] = HAS_POLICY,
		[TAGGABLE_CA] = HAS_CA,
		[TAGGABLE_SECURITY_PROFILE] = HAS_SECURITY_PROFILE,
		[TAGGABLE_RULE] = HAS_RULE,
	};
	own(PGresult) rows = NULL;

	*found = false;
	if (kind == TAGGABLE_NONE)
		return OK;
	TRY(db_run(tx, &SQL[STATEMENT[kind]], DB_PARAMS(db_text(name)), &rows, err));
	struct db_row row = db_row(rows, 0);
	*found = db_row_bool(&row);
	return db_row_end(&row, err);
}

/* ---- event configurations ---- */

enum status
db_event_configuration_set(struct db_tx *tx, const char *event_type, bool enabled, struct err *err)
{
	return db_run(tx, &SQL[EVENT_SET], DB_PARAMS(db_text(event_type), db_bool(enabled)), NULL, err);
}

enum status
db_event_configuration_list(struct db_tx *tx,
	enum status (*each)(void *arg, const char *event_type, bool enabled, int64_t modified_us,
		struct err *err),
	void *arg, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[EVENT_LIST], DB_NO_PARAMS, &rows, err));
	for (int i = 0; i < db_rows(rows); i++) {
		struct db_row row = db_row(rows, i);
		char event_type[64];

		db_row_text(&row, event_type, sizeof(event_type));
		bool enabled = db_row_bool(&row);
		int64_t modified_us = db_row_int64(&row);
		TRY(db_row_end(&row, err));
		TRY(each(arg, event_type, enabled, modified_us, err));
	}
	return OK;
}
