#include "db/checkpoint.h"

#include <string.h>

#include "db/record.h"
#include "db/run.h"

enum {
	NOTE_LAST,
	NOTE_DRAW,
	NOTE_ADD,
	NOTE_HEADS,
	NOTE_PAGE,
	NOTE_EACH,
	NOTE_COVERING,
	NOTE_LANES,
	RANGE,
	RANGE_BODIES,
	PARTS,
	FIRST,
	HASH,
	DROPPED,
	STATEMENTS,
};

#define NOTE_COLUMNS "n.number, " SQL_S("n.at") ", n.records, n.public_key, n.note"

static const struct db_statement SQL[STATEMENTS] = {
	[NOTE_LAST] = { /* audit_note_pkey */
		.name = "note_last", .params = 0, .columns = 5, .rows = ROWS_MAYBE,
		.sql = "SELECT " NOTE_COLUMNS " FROM jitrca.audit_note n ORDER BY n.number DESC LIMIT 1",
	},
	[NOTE_DRAW] = {
		.name = "note_draw", .params = 0, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT nextval('jitrca.audit_note_number')",
	},
	[NOTE_ADD] = {
		.name = "note_add", .params = 9, .columns = 0, .rows = ROWS_NONE,
		.sql = "WITH note AS (INSERT INTO jitrca.audit_note (number, at, records, public_key, note)"
		       " VALUES ($1::bigint, " SQL_AT_S("$2") ", $3::bigint, $4, $5))"
		       " INSERT INTO jitrca.audit_note_lane (lane, first_seq, seq, number, head)"
		       " SELECT l.lane, l.first_seq, l.seq, $1::bigint, l.head"
		       " FROM unnest($6::int[], $7::bigint[], $8::bigint[], $9::bytea[])"
		       " AS l(lane, first_seq, seq, head)",
	},
	[NOTE_HEADS] = { /* audit_lane_pkey, then audit_note_lane_pkey from its end */
		.name = "note_heads", .params = 1, .columns = 4, .rows = ROWS_ANY,
		.sql = "SELECT l.lane, n.first_seq, n.seq, n.head FROM jitrca.audit_lane l"
		       " CROSS JOIN LATERAL (SELECT * FROM jitrca.audit_note_lane x WHERE x.lane = l.lane"
		       " ORDER BY x.seq DESC LIMIT 1) n ORDER BY l.lane LIMIT $1::bigint",
	},
	[NOTE_PAGE] = { /* audit_note_pkey */
		.name = "note_page", .params = 2, .columns = 5, .rows = ROWS_ANY,
		.sql = "SELECT " NOTE_COLUMNS " FROM jitrca.audit_note n WHERE n.number > $1::bigint"
		       " ORDER BY n.number LIMIT $2::bigint",
	},
	[NOTE_EACH] = { /* audit_note_pkey */
		.name = "note_each", .params = 0, .columns = 1, .rows = ROWS_STREAM,
		.sql = "SELECT note FROM jitrca.audit_note ORDER BY number",
	},
	[NOTE_COVERING] = { /* audit_note_lane_pkey, audit_note_pkey */
		.name = "note_covering", .params = 2, .columns = 5, .rows = ROWS_MAYBE,
		.sql = "SELECT " NOTE_COLUMNS " FROM (SELECT number FROM jitrca.audit_note_lane"
		       " WHERE lane = $1::int AND seq >= $2::bigint ORDER BY seq LIMIT 1) l"
		       " JOIN jitrca.audit_note n ON n.number = l.number",
	},
	[NOTE_LANES] = { /* audit_note_lane_number */
		.name = "note_lanes", .params = 2, .columns = 4, .rows = ROWS_ANY,
		.sql = "SELECT lane, first_seq, seq, head FROM jitrca.audit_note_lane"
		       " WHERE number = $1::bigint ORDER BY lane LIMIT $2::bigint",
	},
	[RANGE] = { /* audit_record_pkey */
		.name = "audit_range", .params = 3, .columns = 3, .rows = ROWS_STREAM, .batch = 5000,
		.sql = "SELECT seq, hash, NULL::bytea FROM jitrca.audit_record WHERE lane = $1::int"
		       " AND seq BETWEEN $2::bigint AND $3::bigint ORDER BY seq",
	},
	[RANGE_BODIES] = { /* audit_record_pkey */
		.name = "audit_range_bodies", .params = 3, .columns = 3, .rows = ROWS_STREAM,
		.sql = "SELECT seq, hash, body FROM jitrca.audit_record WHERE lane = $1::int"
		       " AND seq BETWEEN $2::bigint AND $3::bigint ORDER BY seq",
	},
	[PARTS] = { /* audit_record_pkey, audit_item_pkey: both in order, merged or nested */
		.name = "audit_parts", .params = 3, .columns = 5, .rows = ROWS_STREAM,
		.sql = "SELECT r.seq, r.hash, CASE WHEN coalesce(i.idx, 0) = 0 THEN r.body END,"
		       " coalesce(i.idx, -1), i.body FROM jitrca.audit_record r LEFT JOIN jitrca.audit_item i"
		       " ON i.lane = r.lane AND i.seq = r.seq WHERE r.lane = $1::int"
		       " AND r.seq BETWEEN $2::bigint AND $3::bigint ORDER BY r.seq, i.idx",
	},
	[FIRST] = { /* audit_item_object, audit_record_pkey; few are about one object */
		.name = "audit_first", .params = 2, .columns = 3, .rows = ROWS_MAYBE,
		.sql = "SELECT i.lane, i.seq, i.idx FROM jitrca.audit_item i JOIN jitrca.audit_record r"
		       " ON r.lane = i.lane AND r.seq = i.seq WHERE " AUDIT_ITEM_OF("$1")
		       " AND ($2::text IS NULL OR r.action = $2) ORDER BY r.at, i.lane, i.seq LIMIT 1",
	},
	[HASH] = { /* audit_record_pkey, audit_note_lane_pkey */
		.name = "audit_hash", .params = 2, .columns = 1, .rows = ROWS_MAYBE,
		.sql = "SELECT hash FROM jitrca.audit_record WHERE lane = $1::int AND seq = $2::bigint"
		       " UNION ALL SELECT head FROM jitrca.audit_note_lane WHERE lane = $1::int"
		       " AND seq = $2::bigint LIMIT 1",
	},
	[DROPPED] = { /* audit_dropped_pkey, audit_note_lane_pkey */
		.name = "audit_dropped", .params = 1, .columns = 3, .rows = ROWS_ANY,
		.sql = "SELECT d.lane, d.seq, l.head FROM jitrca.audit_dropped d"
		       " JOIN jitrca.audit_note_lane l ON l.lane = d.lane AND l.seq = d.seq"
		       " ORDER BY d.lane LIMIT $1::bigint",
	},
};
const struct db_table DB_TABLE_CHECKPOINT = { SQL, COUNT_OF(SQL) };

void
db_note_free(struct db_note *note)
{
	bytes_free(&note->note);
}

/* Fills out; on failure nothing in it is owned. */
static enum status
read_note(const PGresult *rows, int r, struct db_note *out, struct err *err)
{
	struct db_row row = db_row(rows, r);
	enum status status;

	out->number = db_row_int64(&row);
	out->at_s = db_row_int64(&row);
	out->records = db_row_int64(&row);
	(void)db_row_octets(&row, out->public_key, sizeof(out->public_key));
	db_row_bytes(&row, &out->note);
	status = db_row_end(&row, err);
	if (status != OK)
		bytes_free(&out->note);
	return status;
}

enum status
db_note_last(struct db_tx *tx, struct db_note *out, struct err *err)
{
	own(PGresult) rows = NULL;

	*out = (struct db_note){ .number = 0 };
	TRY(db_run(tx, &SQL[NOTE_LAST], DB_NO_PARAMS, &rows, err));
	return db_rows(rows) == 0 ? OK : read_note(rows, 0, out, err);
}

enum status
db_note_draw(struct db_tx *tx, int64_t *number, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[NOTE_DRAW], DB_NO_PARAMS, &rows, err));
	struct db_row row = db_row(rows, 0);
	*number = db_row_int64(&row);
	return db_row_end(&row, err);
}

enum status
db_note_add(struct db_tx *tx, const struct db_note *note, const struct db_note_lane *lanes, size_t count,
	struct err *err)
{
	own_struct(db_array) names = DB_ARRAY(ARRAY_INT4);
	own_struct(db_array) firsts = DB_ARRAY(ARRAY_INT8);
	own_struct(db_array) lasts = DB_ARRAY(ARRAY_INT8);
	own_struct(db_array) heads = DB_ARRAY(ARRAY_BYTEA);

	for (size_t i = 0; i < count; i++) {
		TRY(db_array_add_int(&names, lanes[i].lane, err));
		TRY(db_array_add_int(&firsts, lanes[i].first_seq, err));
		TRY(db_array_add_int(&lasts, lanes[i].seq, err));
		TRY(db_array_add_bytes(&heads, (struct view){ lanes[i].head, 32 }, err));
	}
	return db_run(tx, &SQL[NOTE_ADD],
		DB_PARAMS(db_int64(note->number), db_int64(note->at_s), db_int64(note->records),
			db_octets(note->public_key, sizeof(note->public_key)),
			db_bytes(view_of(&note->note)), db_array(&names), db_array(&firsts),
			db_array(&lasts), db_array(&heads)), NULL, err);
}

static enum status
read_lanes(const PGresult *rows, struct db_note_lane *out, size_t *count, struct err *err)
{
	*count = (size_t)db_rows(rows);
	for (size_t i = 0; i < *count; i++) {
		struct db_row row = db_row(rows, (int)i);

		out[i].lane = db_row_int32(&row);
		out[i].first_seq = db_row_int64(&row);
		out[i].seq = db_row_int64(&row);
		(void)db_row_octets(&row, out[i].head, sizeof(out[i].head));
		TRY(db_row_end(&row, err));
	}
	return OK;
}

enum status
db_note_heads(struct db_tx *tx, struct db_note_lane *out, size_t max, size_t *count, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[NOTE_HEADS], DB_PARAMS(db_int64((int64_t)max)), &rows, err));
	return read_lanes(rows, out, count, err);
}

enum status
db_note_lanes(struct db_tx *tx, int64_t number, struct db_note_lane *out, size_t max, size_t *count,
	struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[NOTE_LANES], DB_PARAMS(db_int64(number), db_int64((int64_t)max)), &rows,
		err));
	return read_lanes(rows, out, count, err);
}

enum status
db_note_page(struct db_tx *tx, int64_t after, size_t limit, struct db_note *out, size_t *count,
	struct err *err)
{
	own(PGresult) rows = NULL;

	*count = 0;
	TRY(db_run(tx, &SQL[NOTE_PAGE], DB_PARAMS(db_int64(after), db_int64((int64_t)limit)), &rows, err));
	for (int r = 0; r < db_rows(rows); r++) {
		enum status status = read_note(rows, r, &out[*count], err);

		if (status != OK) {
			while (*count > 0)
				db_note_free(&out[--*count]);
			return status;
		}
		++*count;
	}
	return OK;
}

struct notes {
	enum status (*each)(void *arg, struct view note, struct err *err);
	void *arg;
};

static enum status
each_note(void *arg, struct db_row *row, struct err *err)
{
	const struct notes *notes = arg;
	struct view note = db_row_view(row);

	TRY(db_row_end(row, err));
	return notes->each(notes->arg, note, err);
}

enum status
db_note_each(struct db_tx *tx, enum status (*each)(void *arg, struct view note, struct err *err),
	void *arg, struct err *err)
{
	struct notes notes = { each, arg };

	return db_stream(tx, &SQL[NOTE_EACH], DB_NO_PARAMS, each_note, &notes, err);
}

enum status
db_note_covering(struct db_tx *tx, int32_t lane, int64_t seq, struct db_note *out, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[NOTE_COVERING], DB_PARAMS(db_int64(lane), db_int64(seq)), &rows, err));
	if (db_rows(rows) == 0)
		return err_set(err, ERR_NOT_FOUND, "checkpoint_pending",
			"lane %d, record %lld: no checkpoint holds it yet", lane, (long long)seq);
	return read_note(rows, 0, out, err);
}

/* ---- records ---- */

struct range {
	enum status (*each)(void *arg, int64_t seq, const uint8_t hash[32], struct view body,
		struct err *err);
	void *arg;
};

static enum status
each_record(void *arg, struct db_row *row, struct err *err)
{
	const struct range *range = arg;
	int64_t seq = db_row_int64(row);
	uint8_t hash[32];

	(void)db_row_octets(row, hash, sizeof(hash));
	struct view body = db_row_view(row);
	TRY(db_row_end(row, err));
	return range->each(range->arg, seq, hash, body, err);
}

enum status
db_audit_range(struct db_tx *tx, int32_t lane, int64_t first, int64_t last, bool with_bodies,
	enum status (*each)(void *arg, int64_t seq, const uint8_t hash[32], struct view body,
		struct err *err),
	void *arg, struct err *err)
{
	struct range range = { each, arg };

	return db_stream(tx, &SQL[with_bodies ? RANGE_BODIES : RANGE],
		DB_PARAMS(db_int64(lane), db_int64(first), db_int64(last)), each_record, &range, err);
}

struct parts {
	enum status (*each)(void *arg, const struct db_audit_part *part, struct err *err);
	void *arg;
};

static enum status
each_part(void *arg, struct db_row *row, struct err *err)
{
	const struct parts *parts = arg;
	struct db_audit_part part;

	part.seq = db_row_int64(row);
	(void)db_row_octets(row, part.hash, sizeof(part.hash));
	part.body = db_row_view(row);
	part.index = db_row_int32(row);
	part.item = db_row_view(row);
	TRY(db_row_end(row, err));
	return parts->each(parts->arg, &part, err);
}

enum status
db_audit_parts(struct db_tx *tx, int32_t lane, int64_t first, int64_t last,
	enum status (*each)(void *arg, const struct db_audit_part *part, struct err *err), void *arg,
	struct err *err)
{
	struct parts parts = { each, arg };

	return db_stream(tx, &SQL[PARTS], DB_PARAMS(db_int64(lane), db_int64(first), db_int64(last)),
		each_part, &parts, err);
}

static enum status
unknown(struct err *err)
{
	return err_set(err, ERR_NOT_FOUND, "audit_record_unknown",
		"the audit log has no such record, or it was dropped by retention");
}

enum status
db_audit_first(struct db_tx *tx, const char *object, const char *action, int32_t *lane, int64_t *seq,
	int32_t *index, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[FIRST], DB_PARAMS(db_text(object), db_text(action)), &rows, err));
	if (db_rows(rows) == 0)
		return unknown(err);
	struct db_row row = db_row(rows, 0);
	*lane = db_row_int32(&row);
	*seq = db_row_int64(&row);
	*index = db_row_int32(&row);
	return db_row_end(&row, err);
}

enum status
db_audit_hash(struct db_tx *tx, int32_t lane, int64_t seq, uint8_t out[32], struct err *err)
{
	own(PGresult) rows = NULL;

	memset(out, 0, 32);
	if (seq == 0)
		return OK;
	TRY(db_run(tx, &SQL[HASH], DB_PARAMS(db_int64(lane), db_int64(seq)), &rows, err));
	if (db_rows(rows) == 0)
		return unknown(err);
	struct db_row row = db_row(rows, 0);
	(void)db_row_octets(&row, out, 32);
	return db_row_end(&row, err);
}

enum status
db_audit_dropped(struct db_tx *tx, struct db_audit_anchor *out, size_t max, size_t *count,
	struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[DROPPED], DB_PARAMS(db_int64((int64_t)max)), &rows, err));
	*count = (size_t)db_rows(rows);
	for (size_t i = 0; i < *count; i++) {
		struct db_row row = db_row(rows, (int)i);

		out[i].lane = db_row_int32(&row);
		out[i].seq = db_row_int64(&row);
		(void)db_row_octets(&row, out[i].hash, sizeof(out[i].hash));
		TRY(db_row_end(&row, err));
	}
	return OK;
}
