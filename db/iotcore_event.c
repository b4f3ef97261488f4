#include "db/iotcore_event.h"

#include "db/run.h"

enum {
	NEXT,
	REMOVE,
	TRIM,
	STATEMENTS,
};

static const struct db_statement SQL[STATEMENTS] = {
	[NEXT] = { /* registry_event_pkey */
		.name = "core_registry_event_next", .params = 1, .columns = 3, .rows = ROWS_ANY,
		.sql = "SELECT e.event_id, e.topic, e.payload FROM iotcore.registry_event e"
		       " ORDER BY e.event_id LIMIT $1::bigint",
	},
	[REMOVE] = { /* registry_event_pkey */
		.name = "core_registry_event_remove", .params = 1, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM iotcore.registry_event WHERE event_id = ANY ($1::bigint[])",
	},
	[TRIM] = { /* registry_event_pkey: of the oldest, those that are too old */
		.name = "core_registry_event_trim", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM iotcore.registry_event e USING (SELECT o.event_id, o.at"
		       " FROM iotcore.registry_event o ORDER BY o.event_id LIMIT $2::bigint) o"
		       " WHERE e.event_id = o.event_id"
		       " AND o.at < now() - $1::bigint * interval '1 second'",
	},
};
const struct db_table DB_TABLE_IOTCORE_EVENT = { SQL, COUNT_OF(SQL) };

enum status
db_registry_event_next(struct db_tx *tx, int64_t limit,
	enum status (*each)(void *arg, const struct db_registry_event *event, struct err *err),
	void *arg, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[NEXT], DB_PARAMS(db_int64(limit)), &rows, err));
	for (int i = 0; i < db_rows(rows); i++) {
		struct db_row row = db_row(rows, i);
		struct db_registry_event event;

		event.event_id = db_row_int64(&row);
		db_row_text(&row, event.topic, sizeof(event.topic));
		event.payload = db_row_view(&row);
		TRY(db_row_end(&row, err));
		TRY(each(arg, &event, err));
	}
	return OK;
}

enum status
db_registry_event_remove(struct db_tx *tx, const int64_t *event_ids, size_t count, struct err *err)
{
	own_struct(db_array) ids = DB_ARRAY(ARRAY_INT8);

	for (size_t i = 0; i < count; i++)
		TRY(db_array_add_int(&ids, event_ids[i], err));
	return db_run(tx, &SQL[REMOVE], DB_PARAMS(db_array(&ids)), NULL, err);
}

enum status
db_registry_event_trim(struct db_tx *tx, int64_t age_s, int64_t most, int64_t *gone, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[TRIM], DB_PARAMS(db_int64(age_s), db_int64(most)), &rows, err));
	*gone = db_affected(rows);
	return OK;
}
