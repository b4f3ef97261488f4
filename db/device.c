#include "db/device.h"

#include <string.h>

#include "db/outbox.h"
#include "db/run.h"

enum {
	FIND,
	LIST,
	LIST_BY_STATUS,
	LIST_BY_THING_TYPE,
	LIST_BY_BOTH,
	LOCK,
	SET_STATUS,
	WAKE,
	STATEMENTS,
};

#define COLUMNS                                                                                    \
	"d.device_id, d.status, d.thing_type, d.attributes, d.reason, d.version, "                     \
	SQL_S("d.created_at") ", " SQL_S("d.updated_at") ", s.current_issuer, s.current_serial,"       \
	" s.successor_issuer, s.successor_serial"
#define COLUMN_COUNT 12
#define LIST_SQL(lead)                                                                             \
	"SELECT " COLUMNS " FROM (SELECT * FROM jitrca.device d WHERE d.device_id > $1::text"          \
	" AND ($2::text IS NULL OR d.status = $2::text)"                                               \
	" AND ($3::text IS NULL OR d.thing_type = $3::text)" lead                                      \
	" ORDER BY d.device_id LIMIT $4::bigint) d"                                                    \
	" LEFT JOIN jitrca.device_slot s ON s.device_id = d.device_id ORDER BY d.device_id"

static const struct db_statement SQL[STATEMENTS] = {
	[FIND] = { /* device_pkey, device_slot_pkey */
		.name = "device_find", .params = 1, .columns = COLUMN_COUNT, .rows = ROWS_MAYBE,
		.sql = "SELECT " COLUMNS " FROM jitrca.device d"
		       " LEFT JOIN jitrca.device_slot s ON s.device_id = d.device_id"
		       " WHERE d.device_id = $1::text",
	},
	[LIST] = { /* device_pkey */
		.name = "device_list", .params = 4, .columns = COLUMN_COUNT, .rows = ROWS_ANY,
		.sql = LIST_SQL(""),
	},
	[LIST_BY_STATUS] = { /* device_not_active */
		.name = "device_list_by_status", .params = 4, .columns = COLUMN_COUNT, .rows = ROWS_ANY,
		.sql = LIST_SQL(" AND d.status = $2::text AND d.status <> 'active'"),
	},
	[LIST_BY_THING_TYPE] = { /* device_thing_type */
		.name = "device_list_by_thing_type", .params = 4, .columns = COLUMN_COUNT,
		.rows = ROWS_ANY, .sql = LIST_SQL(" AND d.thing_type = $3::text"),
	},
	[LIST_BY_BOTH] = { /* device_not_active_type */
		.name = "device_list_by_both", .params = 4, .columns = COLUMN_COUNT, .rows = ROWS_ANY,
		.sql = LIST_SQL(" AND d.status = $2::text AND d.status <> 'active'"
				" AND d.thing_type = $3::text"),
	},
	[LOCK] = { /* device_pkey */
		.name = "device_lock", .params = 1, .columns = 1, .rows = ROWS_MAYBE,
		.sql = "SELECT d.status FROM jitrca.device d WHERE d.device_id = $1::text"
		       " FOR NO KEY UPDATE",
	},
	[SET_STATUS] = { /* device_pkey */
		.name = "device_set_status", .params = 3, .columns = 0, .rows = ROWS_NONE,
		.sql = "WITH d AS (UPDATE jitrca.device d SET status = $2::text, reason = $3::text,"
		       " version = d.version + 1, updated_at = now() WHERE d.device_id = $1::text"
		       " RETURNING d.device_id, d.version)"
		       " INSERT INTO jitrca.outbox AS o (device_id, version, cause, priority)"
		       " SELECT d.device_id, d.version, $2::text,"
		       " CASE WHEN $2::text = 'active' THEN 1 ELSE 0 END FROM d" OUTBOX_AGAIN,
	},
	[WAKE] = {
		.name = "device_wake", .params = 0, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT true FROM pg_notify('jitrca_outbox', '')",
	},
};

const struct db_table DB_TABLE_DEVICE = { SQL, COUNT_OF(SQL) };

static enum status
read_row(const PGresult *rows, int r, struct db_device *out, struct err *err)
{
	struct db_row row = db_row(rows, r);

	*out = (struct db_device){ 0 };
	db_row_text(&row, out->device_id, sizeof(out->device_id));
	db_row_text(&row, out->status, sizeof(out->status));
	db_row_text(&row, out->thing_type, sizeof(out->thing_type));
	db_row_text(&row, out->attributes, sizeof(out->attributes));
	db_row_text(&row, out->reason, sizeof(out->reason));
	out->version = db_row_int64(&row);
	out->created_at_s = db_row_int64(&row);
	out->updated_at_s = db_row_int64(&row);
	db_row_ref(&row, &out->current);
	db_row_ref(&row, &out->successor);
	return db_row_end(&row, err);
}

static enum status
device_unknown(const char *device_id, struct err *err)
{
	return err_set(err, ERR_NOT_FOUND, "device_unknown", "device: there is no %s", device_id);
}

enum status
db_device_find(struct db_tx *tx, const char *device_id, struct db_device *out, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[FIND], DB_PARAMS(db_text(device_id)), &rows, err));
	if (db_rows(rows) == 0)
		return device_unknown(device_id, err);
	return read_row(rows, 0, out, err);
}

enum status
db_device_list(struct db_tx *tx, const char *status, const char *thing_type, const char *after,
	size_t limit, struct db_device *out, size_t *count, struct err *err)
{
	size_t statement = LIST;
	own(PGresult) rows = NULL;

	/* Devices that are not active are few: their index goes first. */
	if (status != NULL && strcmp(status, "active") != 0)
		statement = thing_type != NULL ? LIST_BY_BOTH : LIST_BY_STATUS;
	else if (thing_type != NULL)
		statement = LIST_BY_THING_TYPE;
	TRY(db_run(tx, &SQL[statement], DB_PARAMS(db_text(after != NULL ? after : ""),
		db_text(status), db_text(thing_type), db_int64((int64_t)limit)), &rows, err));
	for (int r = 0; r < db_rows(rows); r++)
		TRY(read_row(rows, r, &out[r], err));
	*count = (size_t)db_rows(rows);
	return OK;
}

enum status
db_device_set_status(struct db_tx *tx, const char *device_id, const char *status, const char *reason,
	bool *changed, struct err *err)
{
	own(PGresult) rows = NULL;
	char present[16];
	struct db_row row;

	TRY(db_run(tx, &SQL[LOCK], DB_PARAMS(db_text(device_id)), &rows, err));
	if (db_rows(rows) == 0)
		return device_unknown(device_id, err);
	row = db_row(rows, 0);
	db_row_text(&row, present, sizeof(present));
	TRY(db_row_end(&row, err));
	*changed = strcmp(present, status) != 0;
	if (!*changed)
		return OK;
	/* Only a new issuance brings a decommissioned device back. */
	if (strcmp(present, "decommissioned") == 0)
		return err_set(err, ERR_CONFLICT, "device_decommissioned",
			"device: %s is decommissioned", device_id);
	TRY(db_run(tx, &SQL[SET_STATUS], DB_PARAMS(db_text(device_id), db_text(status),
		db_text(reason != NULL ? reason : "")), NULL, err));
	return db_run(tx, &SQL[WAKE], DB_NO_PARAMS, NULL, err);
}
