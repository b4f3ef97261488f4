#include "db/device.h"

#include <string.h>

#include "db/outbox.h"
#include "db/run.h"

enum {
	FIND,
	FIND_MANY,
	LIST,
	LIST_BY_STATUS,
	LIST_BY_THING_TYPE,
	LIST_BY_BOTH,
	LIST_LATE,
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

/* Where a page of what is late and lives begins. */
#define LATE_FROM "greatest(" SQL_AT_US("$4") ", to_timestamp($3::bigint + 1))"

static const struct db_statement SQL[STATEMENTS] = {
	[FIND] = { /* device_pkey, device_slot_pkey */
		.name = "device_find", .params = 1, .columns = COLUMN_COUNT, .rows = ROWS_MAYBE,
		.sql = "SELECT " COLUMNS " FROM jitrca.device d"
		       " LEFT JOIN jitrca.device_slot s ON s.device_id = d.device_id"
		       " WHERE d.device_id = $1::text",
	},
	[FIND_MANY] = { /* device_pkey, device_slot_pkey */
		.name = "device_find_many", .params = 2, .columns = 1 + COLUMN_COUNT, .rows = ROWS_ANY,
		.sql = "SELECT i.idx, " COLUMNS " FROM unnest($1::int[], $2::text[]) AS i(idx, device_id)"
		       " JOIN jitrca.device d ON d.device_id = i.device_id"
		       " LEFT JOIN jitrca.device_slot s ON s.device_id = d.device_id",
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
	[LIST_LATE] = {
		/* certificate_live, a range for each profile; certificate_unconfirmed for those whose
		 * certificate has ended while its successor, unconfirmed, lives. */
		.name = "device_list_late", .params = 8, .columns = COLUMN_COUNT + 2, .rows = ROWS_ANY,
		.sql = "SELECT " COLUMNS ", " SQL_S("c.not_after") ", c.serial FROM (SELECT * FROM ("
		       "SELECT e.* FROM unnest($1::text[], $2::bigint[]) AS p (profile, overlap)"
		       " CROSS JOIN LATERAL (SELECT c.device_id, c.not_after, c.serial"
		       " FROM jitrca.certificate c WHERE c.expiry_month BETWEEN $7::int AND $8::int"
		       " AND c.status = 'active' AND c.of_device AND c.profile = p.profile"
		       " AND c.not_after <= to_timestamp($3::bigint + p.overlap)"
		       " AND c.not_after >= " LATE_FROM " AND (c.not_after, c.serial) > (" LATE_FROM ","
		       " CASE WHEN " SQL_AT_US("$4") " >= to_timestamp($3::bigint + 1) THEN $5::bytea"
		       " ELSE '\\x00' END) ORDER BY c.not_after, c.serial LIMIT $6::bigint) e"
		       " UNION ALL (SELECT c.device_id, c.not_after, c.serial FROM jitrca.certificate c"
		       " WHERE c.expiry_month <= $7::int AND c.status = 'active' AND c.of_device"
		       " AND c.successor_serial IS NOT NULL AND c.profile = ANY ($1::text[])"
		       " AND c.not_after <= to_timestamp($3::bigint)"
		       " AND c.not_after >= " SQL_AT_US("$4") " AND (c.not_after, c.serial) > ("
		       SQL_AT_US("$4") ", $5::bytea)"
		       " AND (SELECT true FROM jitrca.device_slot s,"
		       " LATERAL (SELECT FROM jitrca.certificate x"
		       " WHERE x.expiry_month = jitrca.serial_month(s.successor_serial)"
		       " AND x.issuer_id = s.successor_issuer AND x.serial = s.successor_serial"
		       " AND x.status = 'pending_confirmation' AND x.not_after > to_timestamp($3::bigint)"
		       " OFFSET 0) x WHERE s.device_id = c.device_id AND s.current_issuer = c.issuer_id"
		       " AND s.current_serial = c.serial)"
		       " ORDER BY c.not_after, c.serial LIMIT $6::bigint)"
		       ") c ORDER BY c.not_after, c.serial LIMIT $6::bigint) c"
		       " JOIN jitrca.device d ON d.device_id = c.device_id"
		       " LEFT JOIN jitrca.device_slot s ON s.device_id = c.device_id"
		       " ORDER BY c.not_after, c.serial",
	},
	[LOCK] = { /* device_pkey */
		.name = "device_lock", .params = 1, .columns = 1, .rows = ROWS_MAYBE,
		.sql = "SELECT d.status FROM jitrca.device d WHERE d.device_id = $1::text"
		       " FOR NO KEY UPDATE",
	},
	[SET_STATUS] = { /* device_pkey */
		.name = "device_set_status", .params = 3, .columns = 0, .rows = ROWS_NONE, .trust = true,
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

static void
read_device(struct db_row *row, struct db_device *out)
{
	*out = (struct db_device){ 0 };
	db_row_text(row, out->device_id, sizeof(out->device_id));
	db_row_text(row, out->status, sizeof(out->status));
	db_row_text(row, out->thing_type, sizeof(out->thing_type));
	db_row_text(row, out->attributes, sizeof(out->attributes));
	db_row_text(row, out->reason, sizeof(out->reason));
	out->version = db_row_int64(row);
	out->created_at_s = db_row_int64(row);
	out->updated_at_s = db_row_int64(row);
	db_row_ref(row, &out->current);
	db_row_ref(row, &out->successor);
}

static enum status
read_row(const PGresult *rows, int r, struct db_device *out, struct err *err)
{
	struct db_row row = db_row(rows, r);

	read_device(&row, out);
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
db_device_find_many(struct db_tx *tx, struct db_device_wanted *list, size_t count, struct err *err)
{
	own_struct(db_array) indexes = DB_ARRAY(ARRAY_INT4);
	own_struct(db_array) ids = DB_ARRAY(ARRAY_TEXT);
	own(PGresult) rows = NULL;

	for (size_t i = 0; i < count; i++) {
		list[i].found = false;
		TRY(db_array_add_int(&indexes, (int64_t)i, err));
		TRY(db_array_add_text(&ids, list[i].device_id, err));
	}
	TRY(db_run(tx, &SQL[FIND_MANY], DB_PARAMS(db_array(&indexes), db_array(&ids)), &rows, err));
	for (int r = 0; r < db_rows(rows); r++) {
		struct db_row row = db_row(rows, r);
		struct db_device_wanted *wanted = &list[db_row_int32(&row)];

		read_device(&row, wanted->out);
		TRY(db_row_end(&row, err));
		wanted->found = true;
	}
	return OK;
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
db_device_list_late(struct db_tx *tx, const struct db_late_rule *rules, size_t rule_count, int64_t now_s,
	const struct db_certificate_cursor *cursor, size_t limit, struct db_device *out, size_t *count,
	struct db_certificate_cursor *next, struct err *err)
{
	static const uint8_t BEFORE_ALL[1] = { 0 };
	own_struct(db_array) profiles = DB_ARRAY(ARRAY_TEXT);
	own_struct(db_array) overlaps = DB_ARRAY(ARRAY_INT8);
	struct db_certificate_cursor last = { .set = true };
	int64_t most_s = 0;
	own(PGresult) rows = NULL;

	*next = (struct db_certificate_cursor){ .set = false };
	for (size_t i = 0; i < rule_count; i++) {
		TRY(db_array_add_text(&profiles, rules[i].profile, err));
		TRY(db_array_add_int(&overlaps, rules[i].overlap_s, err));
		most_s = rules[i].overlap_s > most_s ? rules[i].overlap_s : most_s;
	}
	TRY(db_run(tx, &SQL[LIST_LATE], DB_PARAMS(db_array(&profiles), db_array(&overlaps),
		db_int64(now_s), db_int64(cursor->set ? cursor->at_us : 0),
		cursor->set ? db_serial(&cursor->serial) : db_octets(BEFORE_ALL, sizeof(BEFORE_ALL)),
		db_int64((int64_t)limit), db_int64(expiry_month(now_s)),
		db_int64(expiry_month(now_s + most_s))), &rows, err));
	for (int r = 0; r < db_rows(rows); r++) {
		struct db_row row = db_row(rows, r);

		read_device(&row, &out[r]);
		last.at_us = db_row_int64(&row) * 1000000;
		(void)db_row_serial(&row, &last.serial);
		TRY(db_row_end(&row, err));
	}
	*count = (size_t)db_rows(rows);
	if (*count == limit)
		*next = last;
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
