#include "db/retention.h"

#include "db/run.h"

enum {
	MONTHS,
	FIRST_MONTH,
	DROP_MONTH,
	LANES,
	DROP_LANE,
	RECORDS_NEXT,
	ITEMS_DELETE,
	RECORDS_DELETE,
	COUNT_EVENTS,
	COUNT_NOTIFICATIONS,
	STATEMENTS,
};

/* The partitions by name, from the catalogue: "certificate_" and the month. */
#define PARTITIONS                                                                                 \
	"(SELECT substr(c.relname, 13)::int AS month FROM pg_catalog.pg_inherits i"                    \
	" JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid"                                            \
	" WHERE i.inhparent = 'jitrca.certificate'::regclass) p"

static const struct db_statement SQL[STATEMENTS] = {
	[MONTHS] = { /* a partition's primary key */
		.name = "retention_months", .params = 2, .columns = 2, .rows = ROWS_ANY,
		.sql = "SELECT p.month, (SELECT count(*) FROM jitrca.certificate c"
		       " WHERE c.expiry_month = p.month) FROM " PARTITIONS
		       " WHERE p.month < $1::int ORDER BY p.month LIMIT $2::bigint",
	},
	[FIRST_MONTH] = {
		.name = "retention_first_month", .params = 1, .columns = 1, .rows = ROWS_MAYBE,
		.sql = "SELECT p.month FROM " PARTITIONS " WHERE p.month < $1::int ORDER BY p.month LIMIT 1",
	},
	[DROP_MONTH] = { /* reads all of device_slot: once a month */
		.name = "retention_drop_month", .params = 1, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT jitrca.drop_month($1::int)",
	},
	[LANES] = { /* audit_lane_pkey, audit_note_lane_pkey from its end, audit_note_pkey */
		.name = "retention_lanes", .params = 2, .columns = 3, .rows = ROWS_ANY,
		.sql = "SELECT l.lane, coalesce(d.seq, 0) + 1, n.seq FROM jitrca.audit_lane l"
		       " LEFT JOIN jitrca.audit_dropped d ON d.lane = l.lane CROSS JOIN LATERAL"
		       " (SELECT x.seq FROM jitrca.audit_note_lane x JOIN jitrca.audit_note m"
		       " ON m.number = x.number WHERE x.lane = l.lane AND m.at < " SQL_AT_S("$1")
		       " ORDER BY x.seq DESC LIMIT 1) n WHERE n.seq > coalesce(d.seq, 0)"
		       " ORDER BY l.lane LIMIT $2::bigint",
	},
	[DROP_LANE] = { /* audit_dropped_pkey */
		.name = "retention_drop_lane", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO jitrca.audit_dropped (lane, seq) VALUES ($1::int, $2::bigint)"
		       " ON CONFLICT (lane) DO UPDATE SET seq = excluded.seq, at = now()",
	},
	[RECORDS_NEXT] = { /* audit_dropped_pkey, audit_record_pkey */
		.name = "retention_records_next", .params = 1, .columns = 2, .rows = ROWS_MAYBE,
		.sql = "SELECT d.lane, n.seq FROM jitrca.audit_dropped d CROSS JOIN LATERAL"
		       " (SELECT max(p.seq) AS seq FROM (SELECT x.seq FROM jitrca.audit_record x"
		       " WHERE x.lane = d.lane AND x.seq <= d.seq ORDER BY x.seq LIMIT $1::bigint) p) n"
		       " WHERE n.seq IS NOT NULL ORDER BY d.lane LIMIT 1",
	},
	[ITEMS_DELETE] = { /* audit_item_pkey, from its beginning */
		.name = "retention_items_delete", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM jitrca.audit_item WHERE lane = $1::int AND seq <= $2::bigint",
	},
	[RECORDS_DELETE] = { /* audit_record_pkey, likewise */
		.name = "retention_records_delete", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM jitrca.audit_record WHERE lane = $1::int AND seq <= $2::bigint",
	},
	[COUNT_EVENTS] = { /* security_event_at */
		.name = "retention_count_events", .params = 1, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT count(*) FROM jitrca.security_event WHERE at < " SQL_AT_S("$1"),
	},
	[COUNT_NOTIFICATIONS] = { /* notification_ended; what a receipt shows goes with the receipt */
		.name = "retention_count_notifications", .params = 1, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT count(*) FROM jitrca.notification WHERE state <> 'waiting'"
		       " AND revocation_id IS NULL AND ended_at < " SQL_AT_S("$1"),
	},
};
const struct db_table DB_TABLE_RETENTION = { SQL, COUNT_OF(SQL) };

enum status
db_retention_months(struct db_tx *tx, int32_t before, size_t max, struct db_retention_month *out,
	size_t *count, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[MONTHS], DB_PARAMS(db_int64(before), db_int64((int64_t)max)), &rows, err));
	*count = (size_t)db_rows(rows);
	for (size_t i = 0; i < *count; i++) {
		struct db_row row = db_row(rows, (int)i);

		out[i].month = db_row_int32(&row);
		out[i].certificates = db_row_int64(&row);
		TRY(db_row_end(&row, err));
	}
	return OK;
}

enum status
db_retention_drop_month(struct db_tx *tx, int32_t before, struct db_retention_month *out, bool *found,
	struct err *err)
{
	own(PGresult) first = NULL;
	own(PGresult) gone = NULL;

	TRY(db_run(tx, &SQL[FIRST_MONTH], DB_PARAMS(db_int64(before)), &first, err));
	*found = db_rows(first) > 0;
	if (!*found)
		return OK;
	struct db_row row = db_row(first, 0);
	out->month = db_row_int32(&row);
	TRY(db_row_end(&row, err));
	TRY(db_run(tx, &SQL[DROP_MONTH], DB_PARAMS(db_int64(out->month)), &gone, err));
	row = db_row(gone, 0);
	out->certificates = db_row_int64(&row);
	return db_row_end(&row, err);
}

enum status
db_retention_lanes(struct db_tx *tx, int64_t before_s, size_t max, struct db_retention_lane *out,
	size_t *count, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[LANES], DB_PARAMS(db_int64(before_s), db_int64((int64_t)max)), &rows, err));
	*count = (size_t)db_rows(rows);
	for (size_t i = 0; i < *count; i++) {
		struct db_row row = db_row(rows, (int)i);

		out[i].lane = db_row_int32(&row);
		out[i].from_seq = db_row_int64(&row);
		out[i].through_seq = db_row_int64(&row);
		TRY(db_row_end(&row, err));
	}
	return OK;
}

enum status
db_retention_drop_lane(struct db_tx *tx, const struct db_retention_lane *lane, struct err *err)
{
	return db_run(tx, &SQL[DROP_LANE], DB_PARAMS(db_int64(lane->lane), db_int64(lane->through_seq)),
		NULL, err);
}

enum status
db_retention_records(struct db_tx *tx, size_t max, size_t *deleted, struct err *err)
{
	own(PGresult) next = NULL;
	own(PGresult) done = NULL;

	*deleted = 0;
	TRY(db_run(tx, &SQL[RECORDS_NEXT], DB_PARAMS(db_int64((int64_t)max)), &next, err));
	if (db_rows(next) == 0)
		return OK;
	struct db_row row = db_row(next, 0);
	int32_t lane = db_row_int32(&row);
	int64_t seq = db_row_int64(&row);
	TRY(db_row_end(&row, err));
	TRY(db_run(tx, &SQL[ITEMS_DELETE], DB_PARAMS(db_int64(lane), db_int64(seq)), NULL, err));
	TRY(db_run(tx, &SQL[RECORDS_DELETE], DB_PARAMS(db_int64(lane), db_int64(seq)), &done, err));
	*deleted = (size_t)db_affected(done);
	return OK;
}

static enum status
count_before(struct db_tx *tx, const struct db_statement *statement, int64_t before_s, int64_t *count,
	struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, statement, DB_PARAMS(db_int64(before_s)), &rows, err));
	struct db_row row = db_row(rows, 0);
	*count = db_row_int64(&row);
	return db_row_end(&row, err);
}

enum status
db_retention_count_events(struct db_tx *tx, int64_t before_s, int64_t *count, struct err *err)
{
	return count_before(tx, &SQL[COUNT_EVENTS], before_s, count, err);
}

enum status
db_retention_count_notifications(struct db_tx *tx, int64_t before_s, int64_t *count, struct err *err)
{
	return count_before(tx, &SQL[COUNT_NOTIFICATIONS], before_s, count, err);
}
