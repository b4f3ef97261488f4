#include "db/iotcore_thing.h"

#include "db/run.h"

enum {
	THING_FIND,
	THING_EXISTS,
	THING_CREATE,
	THING_UPDATE,
	THING_DELETE,
	THING_LIST,
	THING_LIST_TYPE,
	THING_LIST_ATTRIBUTE,
	THING_LIST_PREFIX,
	TYPE_FIND,
	TYPE_CREATE,
	TYPE_DEPRECATE,
	TYPE_USED,
	TYPE_DELETE,
	TYPE_LIST,
	CERTIFICATE_EXISTS,
	PRINCIPAL_FIND,
	PRINCIPAL_ATTACH_FIRST,
	PRINCIPAL_ATTACH,
	PRINCIPAL_DETACH,
	PRINCIPAL_ANY,
	PRINCIPAL_LIST,
	PRINCIPAL_THINGS,
	STATEMENTS,
};

#define THING_ROW                                                                                  \
	"SELECT t.name, coalesce(t.thing_type, ''), t.attributes::text, t.version"                     \
	" FROM iotcore.thing t"
#define TYPE_ROW                                                                                   \
	"SELECT y.name, y.thing_type_id::text, y.description,"                                     \
	" array_to_string(y.searchable_attributes, E'\\n'), " SQL_US("y.created_at") ", "          \
	SQL_US("y.deprecated_at") " FROM iotcore.thing_type y"

static const struct db_statement SQL[STATEMENTS] = {
	[THING_FIND] = { /* thing_pkey */
		.name = "core_thing_find", .params = 1, .columns = 5, .rows = ROWS_MAYBE,
		.sql = "SELECT t.name, t.thing_id::text, coalesce(t.thing_type, ''), t.attributes::text,"
		       " t.version FROM iotcore.thing t WHERE t.name = $1",
	},
	[THING_EXISTS] = { /* thing_pkey */
		.name = "core_thing_exists", .params = 1, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT EXISTS (SELECT FROM iotcore.thing t WHERE t.name = $1)",
	},
	[THING_CREATE] = { /* thing_type_pkey, thing_pkey */
		.name = "core_thing_create", .params = 3, .columns = 1, .rows = ROWS_MAYBE,
		.sql = "INSERT INTO iotcore.thing (name, thing_type, attributes)"
		       " SELECT $1::text, $2::text, $3::jsonb WHERE $2::text IS NULL OR EXISTS (SELECT"
		       " FROM iotcore.thing_type y WHERE y.name = $2::text AND y.deprecated_at IS NULL)"
		       " ON CONFLICT (name) DO NOTHING RETURNING thing_id::text",
	},
	[THING_UPDATE] = { /* thing_pkey */
		.name = "core_thing_update", .params = 3, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE iotcore.thing SET thing_type = $2, attributes = $3::jsonb,"
		       " version = version + 1 WHERE name = $1",
	},
	[THING_DELETE] = { /* thing_pkey; thing_group_member_pkey for what follows it */
		.name = "core_thing_delete", .params = 1, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM iotcore.thing WHERE name = $1",
	},
	[THING_LIST] = { /* thing_pkey */
		.name = "core_thing_list", .params = 2, .columns = 4, .rows = ROWS_ANY,
		.sql = THING_ROW " WHERE t.name > $1 ORDER BY t.name LIMIT $2::bigint",
	},
	[THING_LIST_TYPE] = { /* thing_thing_type */
		.name = "core_thing_list_type", .params = 3, .columns = 4, .rows = ROWS_ANY,
		.sql = THING_ROW " WHERE t.thing_type = $3 AND t.name > $1"
		       " ORDER BY t.name LIMIT $2::bigint",
	},
	[THING_LIST_ATTRIBUTE] = { /* thing_attributes */
		.name = "core_thing_list_attribute", .params = 5, .columns = 4, .rows = ROWS_ANY,
		.sql = THING_ROW " WHERE t.attributes @> jsonb_build_object($3::text, $4::text)"
		       " AND ($5::text IS NULL OR t.thing_type = $5) AND t.name > $1"
		       " ORDER BY t.name LIMIT $2::bigint",
	},
	[THING_LIST_PREFIX] = { /* thing_pkey, looking at each: AWS offers it, few will ask */
		.name = "core_thing_list_prefix", .params = 5, .columns = 4, .rows = ROWS_ANY,
		.sql = THING_ROW " WHERE starts_with(t.attributes ->> $3, $4)"
		       " AND ($5::text IS NULL OR t.thing_type = $5) AND t.name > $1"
		       " ORDER BY t.name LIMIT $2::bigint",
	},
	[TYPE_FIND] = { /* thing_type_pkey */
		.name = "core_type_find", .params = 1, .columns = 6, .rows = ROWS_MAYBE,
		.sql = TYPE_ROW " WHERE y.name = $1",
	},
	[TYPE_CREATE] = {
		.name = "core_type_create", .params = 3, .columns = 1, .rows = ROWS_ONE,
		.sql = "INSERT INTO iotcore.thing_type (name, description, searchable_attributes)"
		       " VALUES ($1, $2, string_to_array($3, E'\\n')) RETURNING thing_type_id::text",
	},
	[TYPE_DEPRECATE] = { /* thing_type_pkey */
		.name = "core_type_deprecate", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE iotcore.thing_type SET deprecated_at = " SQL_AT_S("$2") " WHERE name = $1",
	},
	[TYPE_USED] = { /* thing_thing_type */
		.name = "core_type_used", .params = 1, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT EXISTS (SELECT FROM iotcore.thing t WHERE t.thing_type = $1)",
	},
	[TYPE_DELETE] = { /* thing_type_pkey */
		.name = "core_type_delete", .params = 1, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM iotcore.thing_type WHERE name = $1",
	},
	[TYPE_LIST] = { /* thing_type_pkey */
		.name = "core_type_list", .params = 3, .columns = 6, .rows = ROWS_ANY,
		.sql = TYPE_ROW " WHERE y.name > $1 AND ($3::text IS NULL OR y.name = $3)"
		       " ORDER BY y.name LIMIT $2::bigint",
	},
	[CERTIFICATE_EXISTS] = { /* certificate_pkey */
		.name = "core_certificate_exists", .params = 1, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT EXISTS (SELECT FROM iotcore.certificate c WHERE c.certificate_id = $1)",
	},
	[PRINCIPAL_FIND] = { /* thing_pkey, certificate_pkey, thing_principal_certificate */
		.name = "core_principal_find", .params = 2, .columns = 6, .rows = ROWS_ONE,
		.sql = "SELECT EXISTS (SELECT FROM iotcore.thing t WHERE t.name = $1),"
		       " EXISTS (SELECT FROM iotcore.certificate c WHERE c.certificate_id = $2),"
		       " coalesce(bool_or(p.thing = $1), false),"
		       " coalesce(bool_or(p.thing = $1 AND p.exclusive), false),"
		       " coalesce(bool_or(p.thing <> $1), false),"
		       " coalesce(bool_or(p.thing <> $1 AND p.exclusive), false)"
		       " FROM iotcore.thing_principal p WHERE p.certificate_id = $2",
	},
	[PRINCIPAL_ATTACH_FIRST] = { /* thing_pkey, certificate_pkey, thing_principal_certificate */
		.name = "core_principal_attach_first", .params = 3, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO iotcore.thing_principal (thing, certificate_id, exclusive)"
		       " SELECT t.name, c.certificate_id, $3::bool"
		       " FROM iotcore.thing t, iotcore.certificate c"
		       " WHERE t.name = $1 AND c.certificate_id = $2 AND NOT EXISTS (SELECT"
		       " FROM iotcore.thing_principal p WHERE p.certificate_id = $2)",
	},
	[PRINCIPAL_ATTACH] = { /* thing_principal_pkey */
		.name = "core_principal_attach", .params = 3, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO iotcore.thing_principal (thing, certificate_id, exclusive)"
		       " VALUES ($1, $2, $3::bool)"
		       " ON CONFLICT (thing, certificate_id) DO UPDATE SET exclusive = excluded.exclusive",
	},
	[PRINCIPAL_DETACH] = { /* thing_principal_pkey */
		.name = "core_principal_detach", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM iotcore.thing_principal WHERE thing = $1 AND certificate_id = $2",
	},
	[PRINCIPAL_ANY] = { /* thing_principal_pkey */
		.name = "core_principal_any", .params = 1, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT EXISTS (SELECT FROM iotcore.thing_principal p WHERE p.thing = $1)",
	},
	[PRINCIPAL_LIST] = { /* thing_principal_pkey */
		.name = "core_principal_list", .params = 3, .columns = 1, .rows = ROWS_ANY,
		.sql = "SELECT p.certificate_id FROM iotcore.thing_principal p"
		       " WHERE p.thing = $1 AND p.certificate_id > $2"
		       " ORDER BY p.certificate_id LIMIT $3::bigint",
	},
	[PRINCIPAL_THINGS] = { /* thing_principal_certificate */
		.name = "core_principal_things", .params = 3, .columns = 1, .rows = ROWS_ANY,
		.sql = "SELECT p.thing FROM iotcore.thing_principal p"
		       " WHERE p.certificate_id = $1 AND p.thing > $2 ORDER BY p.thing LIMIT $3::bigint",
	},
};
const struct db_table DB_TABLE_IOTCORE_THING = { SQL, COUNT_OF(SQL) };

static enum status
read_bool(const PGresult *rows, bool *out, struct err *err)
{
	struct db_row row = db_row(rows, 0);

	*out = db_row_bool(&row);
	return db_row_end(&row, err);
}

static enum status
ask(struct db_tx *tx, int statement, const char *key, bool *out, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[statement], DB_PARAMS(db_text(key)), &rows, err));
	return read_bool(rows, out, err);
}

static enum status
read_id(const PGresult *rows, char out[DB_CORE_UUID_BYTES], struct err *err)
{
	struct db_row row = db_row(rows, 0);

	db_row_text(&row, out, DB_CORE_UUID_BYTES);
	return db_row_end(&row, err);
}

/* ---- things ---- */

void
db_thing_free(struct db_thing *thing)
{
	bytes_free(&thing->attributes);
}

enum status
db_thing_find(struct db_tx *tx, const char *name, bool *found, struct db_thing *out, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[THING_FIND], DB_PARAMS(db_text(name)), &rows, err));
	*found = db_rows(rows) == 1;
	if (!*found)
		return OK;
	struct db_row row = db_row(rows, 0);
	db_row_text(&row, out->name, sizeof(out->name));
	db_row_text(&row, out->thing_id, sizeof(out->thing_id));
	db_row_text(&row, out->type, sizeof(out->type));
	struct view attributes = db_row_view(&row);
	out->version = db_row_int64(&row);
	TRY(db_row_end(&row, err));
	return bytes_copy(&out->attributes, attributes, err);
}

enum status
db_thing_exists(struct db_tx *tx, const char *name, bool *found, struct err *err)
{
	return ask(tx, THING_EXISTS, name, found, err);
}

enum status
db_thing_create(struct db_tx *tx, const char *name, const char *type, const char *attributes,
	char thing_id[DB_CORE_UUID_BYTES], bool *made, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[THING_CREATE],
		DB_PARAMS(db_text(name), db_text(type), db_text(attributes)), &rows, err));
	*made = db_rows(rows) > 0;
	return *made ? read_id(rows, thing_id, err) : OK;
}

enum status
db_thing_update(struct db_tx *tx, const char *name, const char *type, const char *attributes,
	struct err *err)
{
	return db_run(tx, &SQL[THING_UPDATE],
		DB_PARAMS(db_text(name), db_text(type), db_text(attributes)), NULL, err);
}

enum status
db_thing_delete(struct db_tx *tx, const char *name, struct err *err)
{
	return db_run(tx, &SQL[THING_DELETE], DB_PARAMS(db_text(name)), NULL, err);
}

static enum status
run_thing_list(struct db_tx *tx, const struct db_thing_filter *filter, struct db_param after,
	struct db_param limit, PGresult **rows, struct err *err)
{
	if (filter->attribute != NULL)
		return db_run(tx, &SQL[filter->prefix ? THING_LIST_PREFIX : THING_LIST_ATTRIBUTE],
			DB_PARAMS(after, limit, db_text(filter->attribute), db_text(filter->value),
				db_text(filter->type)),
			rows, err);
	if (filter->type != NULL)
		return db_run(tx, &SQL[THING_LIST_TYPE],
			DB_PARAMS(after, limit, db_text(filter->type)), rows, err);
	return db_run(tx, &SQL[THING_LIST], DB_PARAMS(after, limit), rows, err);
}

enum status
db_thing_list(struct db_tx *tx, const struct db_thing_filter *filter, const char *after, int64_t limit,
	enum status (*each)(void *arg, const struct db_thing_row *row, struct err *err), void *arg,
	struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(run_thing_list(tx, filter, db_text(after), db_int64(limit), &rows, err));
	for (int i = 0; i < db_rows(rows); i++) {
		struct db_row row = db_row(rows, i);
		struct db_thing_row thing;

		db_row_text(&row, thing.name, sizeof(thing.name));
		db_row_text(&row, thing.type, sizeof(thing.type));
		thing.attributes = db_row_view(&row);
		thing.version = db_row_int64(&row);
		TRY(db_row_end(&row, err));
		TRY(each(arg, &thing, err));
	}
	return OK;
}

/* ---- types ---- */

void
db_thing_type_free(struct db_thing_type *type)
{
	PQclear(type->rows);
	type->rows = NULL;
}

static enum status
read_type(const PGresult *rows, int at, struct db_thing_type *out, struct err *err)
{
	struct db_row row = db_row(rows, at);

	db_row_text(&row, out->name, sizeof(out->name));
	db_row_text(&row, out->thing_type_id, sizeof(out->thing_type_id));
	out->description = db_row_view(&row);
	out->searchable = db_row_view(&row);
	out->created_us = db_row_int64(&row);
	out->deprecated_us = db_row_int64(&row);
	return db_row_end(&row, err);
}

enum status
db_thing_type_find(struct db_tx *tx, const char *name, bool *found, struct db_thing_type *out,
	struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[TYPE_FIND], DB_PARAMS(db_text(name)), &rows, err));
	*found = db_rows(rows) == 1;
	if (!*found)
		return OK;
	TRY(read_type(rows, 0, out, err));
	out->rows = give(rows);
	return OK;
}

enum status
db_thing_type_create(struct db_tx *tx, const char *name, const char *description,
	const char *searchable, char thing_type_id[DB_CORE_UUID_BYTES], struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[TYPE_CREATE],
		DB_PARAMS(db_text(name), db_text(description), db_text(searchable)), &rows, err));
	return read_id(rows, thing_type_id, err);
}

enum status
db_thing_type_deprecate(struct db_tx *tx, const char *name, int64_t at_s, struct err *err)
{
	return db_run(tx, &SQL[TYPE_DEPRECATE], DB_PARAMS(db_text(name), db_int64_or_null(at_s)), NULL,
		err);
}

enum status
db_thing_type_used(struct db_tx *tx, const char *name, bool *used, struct err *err)
{
	return ask(tx, TYPE_USED, name, used, err);
}

enum status
db_thing_type_delete(struct db_tx *tx, const char *name, struct err *err)
{
	return db_run(tx, &SQL[TYPE_DELETE], DB_PARAMS(db_text(name)), NULL, err);
}

enum status
db_thing_type_list(struct db_tx *tx, const char *name, const char *after, int64_t limit,
	enum status (*each)(void *arg, const struct db_thing_type *row, struct err *err), void *arg,
	struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[TYPE_LIST], DB_PARAMS(db_text(after), db_int64(limit), db_text(name)), &rows,
		err));
	for (int i = 0; i < db_rows(rows); i++) {
		struct db_thing_type type = { .rows = NULL };

		TRY(read_type(rows, i, &type, err));
		TRY(each(arg, &type, err));
	}
	return OK;
}

/* ---- principals ---- */

enum status
db_principal_certificate_exists(struct db_tx *tx, const char *certificate_id, bool *found,
	struct err *err)
{
	return ask(tx, CERTIFICATE_EXISTS, certificate_id, found, err);
}

enum status
db_thing_principal_find(struct db_tx *tx, const char *thing, const char *certificate_id,
	struct db_thing_principal *out, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[PRINCIPAL_FIND], DB_PARAMS(db_text(thing), db_text(certificate_id)), &rows,
		err));
	struct db_row row = db_row(rows, 0);
	out->thing_exists = db_row_bool(&row);
	out->certificate_exists = db_row_bool(&row);
	out->attached = db_row_bool(&row);
	out->exclusive = db_row_bool(&row);
	out->elsewhere = db_row_bool(&row);
	out->exclusive_elsewhere = db_row_bool(&row);
	return db_row_end(&row, err);
}

enum status
db_thing_principal_attach_first(struct db_tx *tx, const char *thing, const char *certificate_id,
	bool exclusive, bool *done, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[PRINCIPAL_ATTACH_FIRST],
		DB_PARAMS(db_text(thing), db_text(certificate_id), db_bool(exclusive)), &rows, err));
	*done = db_affected(rows) == 1;
	return OK;
}

enum status
db_thing_principal_attach(struct db_tx *tx, const char *thing, const char *certificate_id,
	bool exclusive, struct err *err)
{
	return db_run(tx, &SQL[PRINCIPAL_ATTACH],
		DB_PARAMS(db_text(thing), db_text(certificate_id), db_bool(exclusive)), NULL, err);
}

enum status
db_thing_principal_detach(struct db_tx *tx, const char *thing, const char *certificate_id,
	bool *was_attached, struct err *err)
{
	own(PGresult) done = NULL;

	TRY(db_run(tx, &SQL[PRINCIPAL_DETACH], DB_PARAMS(db_text(thing), db_text(certificate_id)), &done,
		err));
	*was_attached = db_affected(done) == 1;
	return OK;
}

enum status
db_thing_has_principals(struct db_tx *tx, const char *thing, bool *has, struct err *err)
{
	return ask(tx, PRINCIPAL_ANY, thing, has, err);
}

enum status
db_thing_principal_list(struct db_tx *tx, const char *thing, const char *after, int64_t limit,
	db_name_each *each, void *arg, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[PRINCIPAL_LIST], DB_PARAMS(db_text(thing), db_text(after), db_int64(limit)),
		&rows, err));
	return db_rows_texts(rows, each, arg, err);
}

enum status
db_principal_thing_list(struct db_tx *tx, const char *certificate_id, const char *after,
	int64_t limit, db_name_each *each, void *arg, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[PRINCIPAL_THINGS],
		DB_PARAMS(db_text(certificate_id), db_text(after), db_int64(limit)), &rows, err));
	return db_rows_texts(rows, each, arg, err);
}
