#include "db/audit.h"

#include <string.h>

#include "db/record.h"

enum {
	AUDIT_LANE_LOCK,
	AUDIT_LANE_MAKE,
	AUDIT_PEEK,
	AUDIT_APPEND,
	AUDIT_FOLLOW,
	AUDIT_SEARCH,
	AUDIT_SEARCH_ACTOR,
	AUDIT_SEARCH_ACTION,
	AUDIT_SEARCH_OBJECT,
	AUDIT_ITEMS,
	AUDIT_LANES,
	AUDIT_LANE_PAGE,
	AUDIT_CHECKPOINT,
	AUDIT_ANCHORS,
	STATEMENTS,
};

#define RECORD_COLUMNS "r.lane, r.seq, " SQL_US("r.at") ", r.actor, r.action, r.body, r.hash"

/* Both lower bounds in one: an index scan begins at one of two, and it might be the wrong one. */
#define AUDIT_BEHIND "coalesce(" SQL_AT_US("$6") ", '-infinity')"
#define AUDIT_SINCE "coalesce(" SQL_AT_S("$4") ", '-infinity')"

/*
 * A search by what it asks for, so that each has an index whose order is that of the page. All take
 * $1 actor, $2 action, $3 object, $4 since, $5 until, $6 $7 $8 cursor, $9 limit.
 */
#define SEARCH(statement_name, records)                                                            \
	{                                                                                          \
		.name = statement_name, .params = 9, .columns = 7, .rows = ROWS_ANY,               \
		.sql = "SELECT " RECORD_COLUMNS " FROM " records                                   \
		       " AND ($1::text IS NULL OR r.actor = $1)"                                   \
		       " AND ($2::text IS NULL OR r.action = $2)"                                  \
		       " AND ($3::text IS NULL OR true)"                                           \
		       " AND r.at < coalesce(" SQL_AT_S("$5") ", 'infinity')"                      \
		       " AND r.at >= greatest(" AUDIT_BEHIND ", " AUDIT_SINCE ")"                  \
		       " AND (r.at, r.lane, r.seq) > (greatest(" AUDIT_BEHIND ", " AUDIT_SINCE "),"  \
		       " CASE WHEN " AUDIT_BEHIND " >= " AUDIT_SINCE " THEN $7::int ELSE -1 END,"    \
		       " $8::bigint)"                                                              \
		       " ORDER BY r.at, r.lane, r.seq LIMIT $9::bigint",                           \
	}

static const struct db_statement SQL[STATEMENTS] = {
	[AUDIT_LANE_LOCK] = { /* audit_lane_pkey */
		.name = "audit_lane_lock", .params = 1, .columns = 2, .rows = ROWS_MAYBE,
		.sql = "SELECT seq, head FROM jitrca.audit_lane WHERE lane = $1 FOR NO KEY UPDATE",
	},
	[AUDIT_LANE_MAKE] = {
		.name = "audit_lane_make", .params = 1, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO jitrca.audit_lane (lane) VALUES ($1) ON CONFLICT DO NOTHING",
	},
	[AUDIT_APPEND] = { /* one round trip: every change of state waits for it */
		.name = "audit_append", .params = 9, .columns = 0, .rows = ROWS_NONE,
		.sql = "WITH record AS (INSERT INTO jitrca.audit_record"
		       " (lane, seq, at, actor, action, body, hash)"
		       " VALUES ($1::int, $2::bigint, " SQL_AT_S("$3") ", $4, $5, $6, $7)),"
		       " items AS (INSERT INTO jitrca.audit_item (lane, seq, idx, object, body)"
		       " SELECT $1::int, $2::bigint, i.n - 1, i.object, i.body"
		       " FROM unnest($8::text[], $9::bytea[]) WITH ORDINALITY AS i(object, body, n))"
		       " UPDATE jitrca.audit_lane SET seq = $2::bigint, head = $7"
		       " WHERE lane = $1::int AND seq = $2::bigint - 1",
	},
	[AUDIT_PEEK] = { /* audit_lane_pkey */
		.name = "audit_peek", .params = 1, .columns = 2, .rows = ROWS_MAYBE,
		.sql = "SELECT seq, head FROM jitrca.audit_lane WHERE lane = $1",
	},
	[AUDIT_FOLLOW] = { /* audit_lane_pkey; nothing where the head is another one by now */
		.name = "audit_follow", .params = 10, .columns = 1, .rows = ROWS_ONE,
		.sql = "WITH lane AS (UPDATE jitrca.audit_lane SET seq = $2::bigint, head = $7::bytea"
		       " WHERE lane = $1::int AND seq = $2::bigint - 1 AND head = $10::bytea RETURNING 1),"
		       " record AS (INSERT INTO jitrca.audit_record"
		       " (lane, seq, at, actor, action, body, hash)"
		       " SELECT $1::int, $2::bigint, " SQL_AT_S("$3") ", $4::text, $5::text, $6::bytea,"
		       " $7::bytea FROM lane RETURNING 1),"
		       " items AS (INSERT INTO jitrca.audit_item (lane, seq, idx, object, body)"
		       " SELECT $1::int, $2::bigint, i.n - 1, i.object, i.body"
		       " FROM unnest($8::text[], $9::bytea[]) WITH ORDINALITY AS i(object, body, n)"
		       " WHERE EXISTS (SELECT FROM record))"
		       " SELECT count(*) FROM record",
	},
	[AUDIT_SEARCH] = SEARCH("audit_search", "jitrca.audit_record r WHERE true"), /* audit_record_at */
	[AUDIT_SEARCH_ACTOR] = SEARCH("audit_search_actor", /* audit_record_actor */
		"jitrca.audit_record r WHERE r.actor = $1"),
	[AUDIT_SEARCH_ACTION] = SEARCH("audit_search_action", /* audit_record_action */
		"jitrca.audit_record r WHERE r.action = $2"),
	/* audit_item_object, audit_record_pkey. All records about an object are read and sorted: they are
	 * few. OFFSET 0: never found by walking through all records in order of time. */
	[AUDIT_SEARCH_OBJECT] = SEARCH("audit_search_object",
		"(SELECT DISTINCT i.lane, i.seq FROM jitrca.audit_item i WHERE " AUDIT_ITEM_OF("$3") ") o"
		" CROSS JOIN LATERAL (SELECT * FROM jitrca.audit_record a WHERE a.lane = o.lane"
		" AND a.seq = o.seq OFFSET 0) r WHERE true"),
	[AUDIT_ITEMS] = { /* audit_item_pkey */
		.name = "audit_items", .params = 2, .columns = 2, .rows = ROWS_STREAM,
		.sql = "SELECT object, body FROM jitrca.audit_item WHERE lane = $1 AND seq = $2"
		       " ORDER BY idx",
	},
	[AUDIT_LANES] = { /* audit_lane_pkey */
		.name = "audit_lanes", .params = 1, .columns = 3, .rows = ROWS_ANY,
		.sql = "SELECT lane, seq, head FROM jitrca.audit_lane ORDER BY lane LIMIT $1::bigint",
	},
	[AUDIT_LANE_PAGE] = { /* audit_record_pkey */
		.name = "audit_lane_page", .params = 3, .columns = 7, .rows = ROWS_ANY,
		.sql = "SELECT " RECORD_COLUMNS " FROM jitrca.audit_record r"
		       " WHERE r.lane = $1 AND r.seq > $2 ORDER BY r.seq LIMIT $3::bigint",
	},
	[AUDIT_CHECKPOINT] = { /* what others have not committed yet is not in it */
		.name = "audit_checkpoint", .params = 0, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO jitrca.audit_checkpoint (lane, seq, hash)"
		       " SELECT lane, seq, head FROM jitrca.audit_lane WHERE seq > 0"
		       " ON CONFLICT DO NOTHING",
	},
	[AUDIT_ANCHORS] = { /* audit_lane_pkey, then the end of audit_checkpoint_pkey for each */
		.name = "audit_anchors", .params = 1, .columns = 3, .rows = ROWS_ANY,
		.sql = "SELECT DISTINCT ON (lane) lane, seq, hash FROM jitrca.audit_checkpoint"
		       " ORDER BY lane, seq DESC LIMIT $1::bigint",
	},
};
const struct db_table DB_TABLE_AUDIT = { SQL, COUNT_OF(SQL) };

void
db_audit_record_free(struct db_audit_record *record)
{
	bytes_free(&record->body);
}

enum status
db_audit_head(struct db_tx *tx, int32_t lane, int64_t *seq, uint8_t head[32], struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[AUDIT_LANE_LOCK], DB_PARAMS(db_int64(lane)), &rows, err));
	if (db_rows(rows) == 0) {
		PQclear(give(rows));
		TRY(db_run(tx, &SQL[AUDIT_LANE_MAKE], DB_PARAMS(db_int64(lane)), NULL, err));
		TRY(db_run(tx, &SQL[AUDIT_LANE_LOCK], DB_PARAMS(db_int64(lane)), &rows, err));
	}
	struct db_row row = db_row(rows, 0);
	*seq = db_row_int64(&row);
	(void)db_row_octets(&row, head, 32);
	return db_row_end(&row, err);
}

enum status
db_audit_peek(struct db_tx *tx, int32_t lane, bool *found, int64_t *seq, uint8_t head[32],
	struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[AUDIT_PEEK], DB_PARAMS(db_int64(lane)), &rows, err));
	*found = db_rows(rows) > 0;
	if (!*found)
		return OK;
	struct db_row row = db_row(rows, 0);
	*seq = db_row_int64(&row);
	(void)db_row_octets(&row, head, 32);
	return db_row_end(&row, err);
}

enum status
audit_follow_step(struct audit_step *step, const struct db_audit_follow *follow, struct db_step *out,
	struct err *err)
{
	const struct db_audit_record *record = follow->record;

	step->objects = (struct db_array)DB_ARRAY(ARRAY_TEXT);
	step->bodies = (struct db_array)DB_ARRAY(ARRAY_BYTEA);
	for (size_t i = 0; i < follow->count; i++) {
		TRY(db_array_add_text(&step->objects, follow->items[i].object, err));
		TRY(db_array_add_bytes(&step->bodies, follow->items[i].body, err));
	}
	const struct db_param params[] = { db_int64(record->lane), db_int64(record->seq),
		db_int64(record->at_s), db_text(record->actor), db_text(record->action),
		db_bytes(view_of(&record->body)), db_octets(record->hash, sizeof(record->hash)),
		db_array(&step->objects), db_array(&step->bodies), db_octets(follow->previous, 32) };
	_Static_assert(sizeof(params) == sizeof(step->params), "ten parameters");
	memcpy(step->params, params, sizeof(params));
	*out = (struct db_step){ .statement = &SQL[AUDIT_FOLLOW],
		.params = { step->params, COUNT_OF(step->params) } };
	return OK;
}

enum status
db_audit_append(struct db_tx *tx, const struct db_audit_record *record,
	const struct db_audit_item *items, size_t count, struct err *err)
{
	own_struct(db_array) objects = DB_ARRAY(ARRAY_TEXT);
	own_struct(db_array) bodies = DB_ARRAY(ARRAY_BYTEA);
	own(PGresult) done = NULL;

	for (size_t i = 0; i < count; i++) {
		TRY(db_array_add_text(&objects, items[i].object, err));
		TRY(db_array_add_bytes(&bodies, items[i].body, err));
	}
	TRY(db_run(tx, &SQL[AUDIT_APPEND],
		DB_PARAMS(db_int64(record->lane), db_int64(record->seq), db_int64(record->at_s),
			db_text(record->actor), db_text(record->action), db_bytes(view_of(&record->body)),
			db_octets(record->hash, sizeof(record->hash)), db_array(&objects),
			db_array(&bodies)), &done, err));
	/* The lane is locked since db_audit_head, so only a caller without it gets here. */
	if (db_affected(done) != 1)
		return err_set(err, ERR_INTERNAL, "audit_out_of_order", "lane %d: record %lld does not follow"
			" its head", record->lane, (long long)record->seq);
	return OK;
}

/* Fills out; on failure nothing in it is owned. */
static enum status
read_record(struct db_row *row, struct db_audit_record *out, int64_t *at_us, struct err *err)
{
	enum status status;

	out->lane = db_row_int32(row);
	out->seq = db_row_int64(row);
	*at_us = db_row_int64(row);
	out->at_s = *at_us / 1000000 - (*at_us % 1000000 < 0);
	db_row_text(row, out->actor, sizeof(out->actor));
	db_row_text(row, out->action, sizeof(out->action));
	db_row_bytes(row, &out->body);
	(void)db_row_octets(row, out->hash, sizeof(out->hash));
	status = db_row_end(row, err);
	if (status != OK)
		bytes_free(&out->body);
	return status;
}

/* Up to limit records; on failure none is left to the caller. *at_us is of the last. */
static enum status
read_records(const PGresult *rows, size_t limit, struct db_audit_record *out, size_t *count,
	int64_t *at_us, struct err *err)
{
	size_t found = (size_t)db_rows(rows);

	*count = 0;
	for (size_t i = 0; i < found && i < limit; i++) {
		struct db_row row = db_row(rows, (int)i);
		enum status status = read_record(&row, &out[i], at_us, err);

		if (status != OK) {
			while (*count > 0)
				db_audit_record_free(&out[--*count]);
			return status;
		}
		++*count;
	}
	return OK;
}

enum status
db_audit_search(struct db_tx *tx, const struct db_audit_filter *filter,
	const struct db_audit_cursor *cursor, size_t limit, struct db_audit_record *out, size_t *count,
	struct db_audit_cursor *next, struct err *err)
{
	own(PGresult) rows = NULL;
	/* A copy, for next may be the same one. */
	struct db_audit_cursor from = cursor != NULL && cursor->set ? *cursor
		: (struct db_audit_cursor){ .set = false };
	int64_t at_us = 0;
	int by = filter->object != NULL ? AUDIT_SEARCH_OBJECT
		: filter->actor != NULL ? AUDIT_SEARCH_ACTOR
		: filter->action != NULL ? AUDIT_SEARCH_ACTION : AUDIT_SEARCH;

	*next = (struct db_audit_cursor){ .set = false };
	TRY(db_run(tx, &SQL[by],
		DB_PARAMS(db_text(filter->actor), db_text(filter->action), db_text(filter->object),
			db_int64_or_null(filter->since_s), db_int64_or_null(filter->until_s),
			from.set ? db_int64(from.at_us) : db_null(), db_int64(from.lane),
			db_int64(from.seq), db_int64((int64_t)limit + 1)), &rows, err));
	TRY(read_records(rows, limit, out, count, &at_us, err));
	if (*count > 0 && (size_t)db_rows(rows) > limit)
		*next = (struct db_audit_cursor){ true, at_us, out[*count - 1].lane, out[*count - 1].seq };
	return OK;
}

struct items {
	enum status (*item)(void *arg, const char *object, struct view body, struct err *err);
	void *arg;
};

static enum status
each_item(void *arg, struct db_row *row, struct err *err)
{
	const struct items *items = arg;
	char object[256];

	db_row_text(row, object, sizeof(object));
	struct view body = db_row_view(row);
	TRY(db_row_end(row, err));
	return items->item(items->arg, object, body, err);
}

enum status
db_audit_items(struct db_tx *tx, int32_t lane, int64_t seq,
	enum status (*item)(void *arg, const char *object, struct view body, struct err *err), void *arg,
	struct err *err)
{
	struct items items = { item, arg };

	return db_stream(tx, &SQL[AUDIT_ITEMS], DB_PARAMS(db_int64(lane), db_int64(seq)), each_item,
		&items, err);
}

enum status
db_audit_lanes(struct db_tx *tx, struct db_audit_lane *out, size_t max, size_t *count,
	struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[AUDIT_LANES], DB_PARAMS(db_int64((int64_t)max)), &rows, err));
	*count = (size_t)db_rows(rows);
	for (size_t i = 0; i < *count; i++) {
		struct db_row row = db_row(rows, (int)i);

		out[i].lane = db_row_int32(&row);
		out[i].seq = db_row_int64(&row);
		(void)db_row_octets(&row, out[i].head, sizeof(out[i].head));
		TRY(db_row_end(&row, err));
	}
	return OK;
}

enum status
db_audit_lane_page(struct db_tx *tx, int32_t lane, int64_t after_seq, size_t limit,
	struct db_audit_record *out, size_t *count, struct err *err)
{
	own(PGresult) rows = NULL;
	int64_t at_us;

	*count = 0;
	TRY(db_run(tx, &SQL[AUDIT_LANE_PAGE],
		DB_PARAMS(db_int64(lane), db_int64(after_seq), db_int64((int64_t)limit)), &rows, err));
	return read_records(rows, limit, out, count, &at_us, err);
}

enum status
db_audit_checkpoint(struct db_tx *tx, struct err *err)
{
	return db_run(tx, &SQL[AUDIT_CHECKPOINT], DB_NO_PARAMS, NULL, err);
}

enum status
db_audit_anchors(struct db_tx *tx, struct db_audit_anchor *out, size_t max, size_t *count,
	struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[AUDIT_ANCHORS], DB_PARAMS(db_int64((int64_t)max)), &rows, err));
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
