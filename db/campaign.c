#include "db/campaign.h"

#include <string.h>

#include "db/filter.h"
#include "db/run.h"

enum {
	CREATE,
	FIND,
	LOCK,
	SELECTOR,
	FIND_OPEN,
	LIST,
	WORKING,
	SAVE,
	FILL,
	FILTER_COUNT,
	OVERLAPS,
	OVERLAPS_DEVICES,
	NTH,
	FRESH,
	LOOK,
	TALLY,
	UNSETTLED,
	MEMBERS,
	MEMBERS_BY_STATE,
	CALL,
	STATEMENTS,
};

#define OPEN_STATES "('waiting', 'pending', 'late', 'failed')"
#define COLUMNS                                                                                    \
	"k.campaign_id, k.state, k.why, k.actor, k.request_id, k.comment, " SQL_S("k.issued_until")    \
	", k.canary, k.canary_share, k.canary_confirmed, k.soak_s, k.wave, k.wave_share,"              \
	" k.pace_per_hour, k.confirm_within_s, k.halt_percent, k.halt_least, " SQL_US("k.cursor_at")   \
	", k.cursor_serial, k.members, k.left_rotating, k.left_other, k.left_taken,"                   \
	" k.stage = 'canary', k.wave_number, k.wave_left, k.asked, k.frontier, k.wave_from,"           \
	" k.judge_from, k.look_from, k.crowded, " SQL_US("k.moved_at") ", " SQL_S("k.wave_at") ", "    \
	SQL_S("k.started_at") ", " SQL_S("k.created_at") ", " SQL_S("k.state_at")
#define COLUMN_COUNT 37

/* The certificate at a reference: its month is in its serial. */
#define AT(alias, issuer, serial_sql)                                                              \
	"LEFT JOIN LATERAL (SELECT " alias ".* FROM jitrca.certificate " alias                         \
	" WHERE " alias ".expiry_month = jitrca.serial_month(" serial_sql ")"                          \
	" AND " alias ".issuer_id = " issuer " AND " alias ".serial = " serial_sql                     \
	" OFFSET 0) " alias " ON true "

static const struct db_statement SQL[STATEMENTS] = {
	[CREATE] = {
		.name = "campaign_create", .params = 16, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO jitrca.campaign (campaign_id, state, actor, request_id, comment,"
		       " selector, issued_until, canary, canary_share, canary_confirmed, soak_s, wave,"
		       " wave_share, pace_per_hour, confirm_within_s, halt_percent, halt_least)"
		       " VALUES ($1::text, 'filling', $2::text, $3::text, $4::text, $5::text, "
		       SQL_AT_S("$6") ", $7::bigint, $8::int, $9::int, $10::bigint, $11::bigint,"
		       " $12::int, $13::bigint, $14::bigint, $15::int, $16::bigint)",
	},
	[FIND] = { /* campaign_pkey */
		.name = "campaign_find", .params = 1, .columns = COLUMN_COUNT, .rows = ROWS_MAYBE,
		.sql = "SELECT " COLUMNS " FROM jitrca.campaign k WHERE k.campaign_id = $1::text",
	},
	[LOCK] = { /* campaign_pkey */
		.name = "campaign_lock", .params = 1, .columns = COLUMN_COUNT, .rows = ROWS_MAYBE,
		.sql = "SELECT " COLUMNS " FROM jitrca.campaign k WHERE k.campaign_id = $1::text"
		       " FOR NO KEY UPDATE",
	},
	[SELECTOR] = { /* campaign_pkey */
		.name = "campaign_selector", .params = 1, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT convert_to(k.selector, 'UTF8') FROM jitrca.campaign k"
		       " WHERE k.campaign_id = $1::text",
	},
	[FIND_OPEN] = { /* campaign_open: a handful */
		.name = "campaign_find_open", .params = 2, .columns = 1, .rows = ROWS_MAYBE,
		.sql = "SELECT k.campaign_id FROM jitrca.campaign k"
		       " WHERE k.state NOT IN ('aborted', 'done') AND k.created_at >= " SQL_AT_S("$2")
		       " AND k.selector::jsonb = $1::jsonb ORDER BY k.created_at DESC LIMIT 1",
	},
	[LIST] = { /* campaign_created */
		.name = "campaign_list", .params = 3, .columns = COLUMN_COUNT + 1, .rows = ROWS_ANY,
		.sql = "SELECT " COLUMNS ", " SQL_US("k.created_at") " FROM jitrca.campaign k"
		       " WHERE (k.created_at, k.campaign_id) > (" SQL_AT_US("$1") ", $2::text)"
		       " ORDER BY k.created_at, k.campaign_id LIMIT $3::bigint",
	},
	[WORKING] = { /* campaign_open */
		.name = "campaign_working", .params = 2, .columns = 1, .rows = ROWS_ANY,
		.sql = "SELECT k.campaign_id FROM jitrca.campaign k WHERE k.campaign_id > $1::text"
		       " AND k.state NOT IN ('aborted', 'done') AND k.state IN ('filling', 'running')"
		       " ORDER BY k.campaign_id LIMIT $2::bigint",
	},
	[SAVE] = { /* campaign_pkey */
		.name = "campaign_save", .params = 24, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE jitrca.campaign k SET state_at = CASE WHEN k.state <> $2::text"
		       " THEN now() ELSE k.state_at END, state = $2::text, why = $3::text,"
		       " canary = $4::bigint, wave = $5::bigint, halt_least = $6::bigint,"
		       " cursor_at = " SQL_AT_US("$7") ", cursor_serial = $8, members = $9::bigint,"
		       " left_rotating = $10::bigint, left_other = $11::bigint,"
		       " left_taken = $12::bigint, stage = CASE WHEN $13::bool THEN 'canary' ELSE 'wave'"
		       " END, wave_number = $14::int, wave_left = $15::bigint, asked = $16::bigint,"
		       " frontier = $17::bigint, wave_from = $18::bigint, judge_from = $19::bigint,"
		       " look_from = $20::bigint, crowded = $21::bool, moved_at = " SQL_AT_US("$22")
		       ", wave_at = " SQL_AT_S("$23") ", started_at = " SQL_AT_S("$24")
		       " WHERE k.campaign_id = $1::text",
	},
	[FILL] = { /* campaign_member_device, campaign_pkey; campaign_member_pkey */
		.name = "campaign_fill", .params = 5, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO jitrca.campaign_member"
		       " (campaign_id, rank, device_id, issuer_id, serial)"
		       " SELECT $1::text, i.rank, i.device_id, i.issuer_id, i.serial"
		       " FROM unnest($2::bigint[], $3::text[], $4::int[], $5::bytea[])"
		       " AS i(rank, device_id, issuer_id, serial)"
		       " WHERE (SELECT true FROM jitrca.campaign_member o JOIN jitrca.campaign k"
		       " ON k.campaign_id = o.campaign_id AND k.state NOT IN ('aborted', 'done')"
		       " WHERE o.device_id = i.device_id AND o.campaign_id <> $1::text"
		       " AND o.state IN " OPEN_STATES " LIMIT 1) IS NULL ON CONFLICT DO NOTHING",
	},
	[FILTER_COUNT] = { /* certificate_live */
		.name = "campaign_count", .params = FILTER_PARAMS, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT count(*) FROM jitrca.certificate c WHERE " FILTER_SQL
		       " AND c.status = 'active' AND c.of_device"
		       " AND c.not_after > to_timestamp($11::bigint)",
	},
	[OVERLAPS] = { /* campaign_open, campaign_member_open, certificate_pkey */
		.name = "campaign_overlaps", .params = FILTER_PARAMS, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT EXISTS (SELECT FROM jitrca.campaign k JOIN jitrca.campaign_member m"
		       " ON m.campaign_id = k.campaign_id AND m.state IN " OPEN_STATES
		       " CROSS JOIN LATERAL (SELECT FROM jitrca.certificate c"
		       " WHERE c.expiry_month = jitrca.serial_month(m.serial)"
		       " AND c.issuer_id = m.issuer_id AND c.serial = m.serial AND " FILTER_SQL
		       " OFFSET 0) c WHERE k.state NOT IN ('aborted', 'done'))",
	},
	[OVERLAPS_DEVICES] = { /* campaign_member_device, campaign_pkey */
		.name = "campaign_overlaps_devices", .params = 1, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT EXISTS (SELECT FROM unnest($1::text[]) AS i(device_id)"
		       " JOIN jitrca.campaign_member m ON m.device_id = i.device_id"
		       " AND m.state IN " OPEN_STATES " JOIN jitrca.campaign k"
		       " ON k.campaign_id = m.campaign_id AND k.state NOT IN ('aborted', 'done'))",
	},
	[NTH] = { /* campaign_member_pkey */
		.name = "campaign_nth", .params = 3, .columns = 1, .rows = ROWS_MAYBE,
		.sql = "SELECT m.rank FROM jitrca.campaign_member m WHERE m.campaign_id = $1::text"
		       " AND m.rank > $2::bigint ORDER BY m.rank, m.device_id OFFSET $3::bigint - 1 LIMIT 1",
	},
	[FRESH] = { /* certificate_not_active; campaign_member_device */
		.name = "campaign_fresh", .params = 3, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE jitrca.campaign_member m SET state = 'pending', since = c.issued_at"
		       " FROM (SELECT c.device_id, c.predecessor_issuer, c.predecessor_serial, c.issued_at"
		       " FROM jitrca.certificate c WHERE c.status = 'pending_confirmation'"
		       " AND c.issued_at >= " SQL_AT_S("$2") " ORDER BY c.issued_at DESC, c.serial DESC"
		       " LIMIT $3::bigint) c WHERE m.device_id = c.device_id"
		       " AND m.campaign_id = $1::text AND m.issuer_id = c.predecessor_issuer"
		       " AND m.serial = c.predecessor_serial AND m.state = 'waiting'",
	},
	[LOOK] = {
		/* campaign_member_open; device_slot_pkey, certificate_pkey for each of the page. */
		.name = "campaign_look", .params = 7, .columns = 2, .rows = ROWS_ONE,
		.sql = "WITH page AS MATERIALIZED (SELECT m.* FROM jitrca.campaign_member m"
		       " WHERE m.campaign_id = $1::text AND m.rank > $2::bigint AND m.rank <= $3::bigint"
		       " AND m.state IN " OPEN_STATES " ORDER BY m.rank LIMIT $4::bigint),"
		       " seen AS MATERIALIZED (SELECT p.rank, p.device_id, coalesce(p.since,"
		       " CASE WHEN x.status = 'pending_confirmation' THEN x.issued_at END) AS since,"
		       " CASE WHEN s.current_issuer = p.issuer_id AND s.current_serial = p.serial THEN"
		       " CASE WHEN x.status IN ('pending_confirmation', 'held') THEN"
		       " CASE WHEN coalesce(p.since, x.issued_at) < " SQL_AT_S("$5::bigint - $6::bigint")
		       " THEN 'late' ELSE 'pending' END"
		       " WHEN p.state <> 'waiting' OR y.issued_at >= " SQL_AT_S("$7")
		       " THEN 'failed' WHEN c.not_after <= " SQL_AT_S("$5") " THEN 'gone' ELSE 'waiting' END"
		       " WHEN y.status IN ('active', 'superseded') THEN 'confirmed' ELSE 'gone' END AS state"
		       " FROM page p LEFT JOIN LATERAL (SELECT s.* FROM jitrca.device_slot s"
		       " WHERE s.device_id = p.device_id OFFSET 0) s ON true "
		       AT("c", "p.issuer_id", "p.serial")
		       AT("x", "s.successor_issuer", "s.successor_serial")
		       AT("y", "c.successor_issuer", "c.successor_serial")
		       "), written AS (UPDATE jitrca.campaign_member m SET state = seen.state,"
		       " since = seen.since FROM seen WHERE m.campaign_id = $1::text AND m.rank = seen.rank"
		       " AND m.device_id = seen.device_id AND m.state <> seen.state)"
		       " SELECT count(*), coalesce(max(rank), -1) FROM page",
	},
	[TALLY] = { /* campaign_member_state */
		.name = "campaign_tally", .params = 3, .columns = 2, .rows = ROWS_ANY,
		.sql = "SELECT s.state, n.n FROM unnest(ARRAY['waiting', 'pending', 'late', 'failed',"
		       " 'confirmed', 'gone']) AS s(state) CROSS JOIN LATERAL (SELECT count(*) AS n"
		       " FROM jitrca.campaign_member m WHERE m.campaign_id = $1::text"
		       " AND m.state = s.state COLLATE \"C\" AND m.rank > $2::bigint"
		       " AND m.rank <= $3::bigint) n",
	},
	[UNSETTLED] = { /* campaign_member_state */
		.name = "campaign_unsettled", .params = 1, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT EXISTS (SELECT FROM jitrca.campaign_member m"
		       " WHERE m.campaign_id = $1::text AND m.state IN ('waiting', 'pending'))",
	},
	[MEMBERS] = { /* campaign_member_pkey */
		.name = "campaign_members", .params = 4, .columns = 6, .rows = ROWS_ANY,
		.sql = "SELECT m.rank, m.device_id, m.issuer_id, m.serial, m.state, " SQL_S("m.since")
		       " FROM jitrca.campaign_member m WHERE m.campaign_id = $1::text"
		       " AND (m.rank, m.device_id) > ($2::bigint, $3::text)"
		       " ORDER BY m.rank, m.device_id LIMIT $4::bigint",
	},
	[MEMBERS_BY_STATE] = { /* campaign_member_state */
		.name = "campaign_members_by_state", .params = 5, .columns = 6, .rows = ROWS_ANY,
		.sql = "SELECT m.rank, m.device_id, m.issuer_id, m.serial, m.state, " SQL_S("m.since")
		       " FROM jitrca.campaign_member m WHERE m.campaign_id = $1::text"
		       " AND m.state = $5::text AND (m.rank, m.device_id) > ($2::bigint, $3::text)"
		       " ORDER BY m.rank, m.device_id LIMIT $4::bigint",
	},
	[CALL] = { /* campaign_member_device, campaign_pkey */
		.name = "campaign_call", .params = 3, .columns = 6, .rows = ROWS_ANY,
		.sql = "SELECT m.rank <= k.frontier AND (NOT k.crowded OR m.state = 'pending'), m.rank,"
		       " k.members, k.asked, k.pace_per_hour, " SQL_S("k.started_at")
		       " FROM jitrca.campaign_member m JOIN jitrca.campaign k"
		       " ON k.campaign_id = m.campaign_id AND k.state = 'running'"
		       " WHERE m.device_id = $1::text AND m.issuer_id = $2::int AND m.serial = $3"
		       " AND m.state IN ('waiting', 'pending') LIMIT 1",
	},
};

const struct db_table DB_TABLE_CAMPAIGN = { SQL, COUNT_OF(SQL) };

static void
read_campaign(struct db_row *row, struct db_campaign *out)
{
	*out = (struct db_campaign){ .members = 0 };
	db_row_text(row, out->campaign_id, sizeof(out->campaign_id));
	db_row_text(row, out->state, sizeof(out->state));
	db_row_text(row, out->why, sizeof(out->why));
	db_row_text(row, out->actor, sizeof(out->actor));
	db_row_text(row, out->request_id, sizeof(out->request_id));
	db_row_text(row, out->comment, sizeof(out->comment));
	out->issued_until_s = db_row_int64(row);
	out->canary = db_row_int64(row);
	out->canary_share = db_row_int64(row);
	out->canary_confirmed = db_row_int64(row);
	out->soak_s = db_row_int64(row);
	out->wave = db_row_int64(row);
	out->wave_share = db_row_int64(row);
	out->pace_per_hour = db_row_int64(row);
	out->confirm_within_s = db_row_int64(row);
	out->halt_percent = db_row_int64(row);
	out->halt_least = db_row_int64(row);
	out->cursor.at_us = db_row_int64(row);
	out->cursor.set = db_row_serial(row, &out->cursor.serial);
	out->members = db_row_int64(row);
	out->left_rotating = db_row_int64(row);
	out->left_other = db_row_int64(row);
	out->left_taken = db_row_int64(row);
	out->canary_stage = db_row_bool(row);
	out->wave_number = db_row_int64(row);
	out->wave_left = db_row_int64(row);
	out->asked = db_row_int64(row);
	out->frontier = db_row_int64(row);
	out->wave_from = db_row_int64(row);
	out->judge_from = db_row_int64(row);
	out->look_from = db_row_int64(row);
	out->crowded = db_row_bool(row);
	out->moved_at_us = db_row_int64(row);
	out->wave_at_s = db_row_int64(row);
	out->started_at_s = db_row_int64(row);
	out->created_at_s = db_row_int64(row);
	out->state_at_s = db_row_int64(row);
}

enum status
db_campaign_create(struct db_tx *tx, const struct db_campaign *campaign, const char *selector,
	struct err *err)
{
	return db_run(tx, &SQL[CREATE], DB_PARAMS(db_text(campaign->campaign_id),
		db_text(campaign->actor), db_text(campaign->request_id), db_text(campaign->comment),
		db_text(selector), db_int64(campaign->issued_until_s), db_int64(campaign->canary),
		db_int64(campaign->canary_share), db_int64(campaign->canary_confirmed),
		db_int64(campaign->soak_s), db_int64(campaign->wave), db_int64(campaign->wave_share),
		db_int64(campaign->pace_per_hour), db_int64(campaign->confirm_within_s),
		db_int64(campaign->halt_percent), db_int64(campaign->halt_least)), NULL, err);
}

static enum status
find_by(struct db_tx *tx, int statement, const char *campaign_id, struct db_campaign *out,
	struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[statement], DB_PARAMS(db_text(campaign_id)), &rows, err));
	if (db_rows(rows) == 0)
		return err_set(err, ERR_NOT_FOUND, "campaign_unknown", "there is no campaign of that id");
	struct db_row row = db_row(rows, 0);

	read_campaign(&row, out);
	return db_row_end(&row, err);
}

enum status
db_campaign_find(struct db_tx *tx, const char *campaign_id, struct db_campaign *out, struct err *err)
{
	return find_by(tx, FIND, campaign_id, out, err);
}

enum status
db_campaign_lock(struct db_tx *tx, const char *campaign_id, struct db_campaign *out, struct err *err)
{
	return find_by(tx, LOCK, campaign_id, out, err);
}

enum status
db_campaign_selector(struct db_tx *tx, const char *campaign_id, struct bytes *out, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[SELECTOR], DB_PARAMS(db_text(campaign_id)), &rows, err));
	struct db_row row = db_row(rows, 0);

	db_row_bytes(&row, out);
	return db_row_end(&row, err);
}

enum status
db_campaign_find_open(struct db_tx *tx, const char *selector, int64_t since_s,
	char id[DB_CAMPAIGN_ID_BYTES], struct err *err)
{
	own(PGresult) rows = NULL;

	id[0] = '\0';
	TRY(db_run(tx, &SQL[FIND_OPEN], DB_PARAMS(db_text(selector), db_int64(since_s)), &rows, err));
	if (db_rows(rows) == 0)
		return OK;
	struct db_row row = db_row(rows, 0);
	db_row_text(&row, id, DB_CAMPAIGN_ID_BYTES);
	return db_row_end(&row, err);
}

enum status
db_campaign_list(struct db_tx *tx, int64_t after_us, const char *after_id, size_t limit,
	struct db_campaign *out, size_t *count, int64_t *last_us, struct err *err)
{
	own(PGresult) rows = NULL;

	*count = 0;
	*last_us = 0;
	TRY(db_run(tx, &SQL[LIST], DB_PARAMS(db_int64(after_us), db_text(after_id),
		db_int64((int64_t)limit)), &rows, err));
	for (int r = 0; r < db_rows(rows); r++) {
		struct db_row row = db_row(rows, r);

		read_campaign(&row, &out[(*count)++]);
		*last_us = db_row_int64(&row);
		TRY(db_row_end(&row, err));
	}
	return OK;
}

enum status
db_campaign_working(struct db_tx *tx, const char *after, size_t max, char (*out)[DB_CAMPAIGN_ID_BYTES],
	size_t *count, struct err *err)
{
	own(PGresult) rows = NULL;

	*count = 0;
	TRY(db_run(tx, &SQL[WORKING], DB_PARAMS(db_text(after), db_int64((int64_t)max)), &rows, err));
	for (int r = 0; r < db_rows(rows); r++) {
		struct db_row row = db_row(rows, r);

		db_row_text(&row, out[(*count)++], DB_CAMPAIGN_ID_BYTES);
		TRY(db_row_end(&row, err));
	}
	return OK;
}

enum status
db_campaign_save(struct db_tx *tx, const struct db_campaign *k, struct err *err)
{
	const struct serial *serial = k->cursor.set ? &k->cursor.serial : NULL;

	return db_run(tx, &SQL[SAVE], DB_PARAMS(db_text(k->campaign_id), db_text(k->state),
		db_text(k->why), db_int64(k->canary), db_int64(k->wave), db_int64(k->halt_least),
		db_int64_or_null(k->cursor.set ? k->cursor.at_us : 0), db_serial(serial),
		db_int64(k->members), db_int64(k->left_rotating), db_int64(k->left_other),
		db_int64(k->left_taken),
		db_bool(k->canary_stage), db_int64(k->wave_number), db_int64(k->wave_left),
		db_int64(k->asked), db_int64(k->frontier), db_int64(k->wave_from),
		db_int64(k->judge_from), db_int64(k->look_from), db_bool(k->crowded),
		db_int64_or_null(k->moved_at_us), db_int64_or_null(k->wave_at_s),
		db_int64_or_null(k->started_at_s)), NULL, err);
}

enum status
db_campaign_fill(struct db_tx *tx, const char *campaign_id, const struct db_campaign_member *members,
	size_t count, size_t *added, struct err *err)
{
	own_struct(db_array) ranks = DB_ARRAY(ARRAY_INT8);
	own_struct(db_array) devices = DB_ARRAY(ARRAY_TEXT);
	own_struct(db_array) issuers = DB_ARRAY(ARRAY_INT4);
	own_struct(db_array) serials = DB_ARRAY(ARRAY_BYTEA);
	own(PGresult) done = NULL;

	*added = 0;
	for (size_t i = 0; i < count; i++) {
		TRY(db_array_add_int(&ranks, members[i].rank, err));
		TRY(db_array_add_text(&devices, members[i].device_id, err));
		TRY(db_array_add_int(&issuers, members[i].ref.issuer_id, err));
		TRY(db_array_add_serial(&serials, &members[i].ref.serial, err));
	}
	TRY(db_run(tx, &SQL[FILL], DB_PARAMS(db_text(campaign_id), db_array(&ranks), db_array(&devices),
		db_array(&issuers), db_array(&serials)), &done, err));
	*added = (size_t)db_affected(done);
	return OK;
}

static enum status
read_bool(const PGresult *rows, bool *out, struct err *err)
{
	struct db_row row = db_row(rows, 0);

	*out = db_row_bool(&row);
	return db_row_end(&row, err);
}

enum status
db_campaign_count(struct db_tx *tx, const struct db_certificate_filter *filter, int64_t *out,
	struct err *err)
{
	struct db_param params[FILTER_PARAMS];
	own(PGresult) rows = NULL;

	filter_params(params, filter);
	TRY(db_run(tx, &SQL[FILTER_COUNT], (struct db_params){ params, FILTER_PARAMS }, &rows, err));
	struct db_row row = db_row(rows, 0);

	*out = db_row_int64(&row);
	return db_row_end(&row, err);
}

enum status
db_campaign_overlaps(struct db_tx *tx, const struct db_certificate_filter *filter, bool *out,
	struct err *err)
{
	struct db_param params[FILTER_PARAMS];
	own(PGresult) rows = NULL;

	filter_params(params, filter);
	TRY(db_run(tx, &SQL[OVERLAPS], (struct db_params){ params, FILTER_PARAMS }, &rows, err));
	return read_bool(rows, out, err);
}

enum status
db_campaign_overlaps_devices(struct db_tx *tx, const char *const *device_ids, size_t count, bool *out,
	struct err *err)
{
	own_struct(db_array) devices = DB_ARRAY(ARRAY_TEXT);
	own(PGresult) rows = NULL;

	for (size_t i = 0; i < count; i++)
		TRY(db_array_add_text(&devices, device_ids[i], err));
	TRY(db_run(tx, &SQL[OVERLAPS_DEVICES], DB_PARAMS(db_array(&devices)), &rows, err));
	return read_bool(rows, out, err);
}

enum status
db_campaign_nth(struct db_tx *tx, const char *campaign_id, int64_t frontier, int64_t n, int64_t *rank,
	struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[NTH], DB_PARAMS(db_text(campaign_id), db_int64(frontier), db_int64(n)), &rows,
		err));
	if (db_rows(rows) == 0)
		return err_set(err, ERR_INTERNAL, "campaign_end", "members of a campaign are missing");
	struct db_row row = db_row(rows, 0);

	*rank = db_row_int64(&row);
	return db_row_end(&row, err);
}

/* Issued before that, a successor was seen by an earlier look, or is found by the round over all. */
#define FRESH_S 120

enum status
db_campaign_look(struct db_tx *tx, const struct db_campaign *k, int64_t now_s, size_t max,
	int64_t *look_from, struct err *err)
{
	int64_t fresh_s = now_s - FRESH_S > k->started_at_s ? now_s - FRESH_S : k->started_at_s;
	own(PGresult) rows = NULL;
	size_t count;

	TRY(db_run(tx, &SQL[FRESH], DB_PARAMS(db_text(k->campaign_id), db_int64(fresh_s),
		db_int64((int64_t)max)), NULL, err));
	TRY(db_run(tx, &SQL[LOOK], DB_PARAMS(db_text(k->campaign_id), db_int64(k->look_from),
		db_int64(k->frontier), db_int64((int64_t)max), db_int64(now_s),
		db_int64(k->confirm_within_s), db_int64(k->started_at_s)), &rows, err));
	struct db_row row = db_row(rows, 0);

	count = (size_t)db_row_int64(&row);
	*look_from = db_row_int64(&row);
	if (count < max)
		*look_from = -1;
	return db_row_end(&row, err);
}

enum status
db_campaign_tally(struct db_tx *tx, const char *campaign_id, int64_t from, int64_t to,
	struct db_campaign_tally *out, struct err *err)
{
	const struct { const char *state; int64_t *count; } places[] = {
		{ "waiting", &out->waiting }, { "pending", &out->pending }, { "late", &out->late },
		{ "failed", &out->failed }, { "confirmed", &out->confirmed }, { "gone", &out->gone },
	};
	own(PGresult) rows = NULL;

	*out = (struct db_campaign_tally){ 0 };
	TRY(db_run(tx, &SQL[TALLY], DB_PARAMS(db_text(campaign_id), db_int64(from), db_int64(to)), &rows,
		err));
	for (int r = 0; r < db_rows(rows); r++) {
		struct db_row row = db_row(rows, r);
		char state[16];
		int64_t count;

		db_row_text(&row, state, sizeof(state));
		count = db_row_int64(&row);
		TRY(db_row_end(&row, err));
		for (size_t i = 0; i < COUNT_OF(places); i++)
			if (strcmp(state, places[i].state) == 0)
				*places[i].count = count;
	}
	return OK;
}

enum status
db_campaign_unsettled(struct db_tx *tx, const char *campaign_id, bool *out, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[UNSETTLED], DB_PARAMS(db_text(campaign_id)), &rows, err));
	return read_bool(rows, out, err);
}

enum status
db_campaign_members(struct db_tx *tx, const char *campaign_id, const char *state, int64_t after_rank,
	const char *after_id, size_t limit, struct db_campaign_member *out, size_t *count,
	struct err *err)
{
	const struct db_param params[] = { db_text(campaign_id), db_int64(after_rank), db_text(after_id),
		db_int64((int64_t)limit), db_text(state) };
	int which = state != NULL ? MEMBERS_BY_STATE : MEMBERS;
	own(PGresult) rows = NULL;

	*count = 0;
	TRY(db_run(tx, &SQL[which], (struct db_params){ params, SQL[which].params }, &rows, err));
	for (int r = 0; r < db_rows(rows); r++) {
		struct db_row row = db_row(rows, r);
		struct db_campaign_member *member = &out[(*count)++];

		*member = (struct db_campaign_member){ .rank = db_row_int64(&row) };
		db_row_text(&row, member->device_id, sizeof(member->device_id));
		db_row_ref(&row, &member->ref);
		db_row_text(&row, member->state, sizeof(member->state));
		member->since_s = db_row_int64(&row);
		TRY(db_row_end(&row, err));
	}
	return OK;
}

enum status
db_campaign_call(struct db_tx *tx, const char *device_id, const struct db_cert_ref *ref,
	struct db_campaign_call *out, bool *found, struct err *err)
{
	own(PGresult) rows = NULL;

	*out = (struct db_campaign_call){ .asked = false };
	TRY(db_run(tx, &SQL[CALL], DB_PARAMS(db_text(device_id), db_int64(ref->issuer_id),
		db_serial(&ref->serial)), &rows, err));
	*found = db_rows(rows) > 0;
	if (!*found)
		return OK;
	struct db_row row = db_row(rows, 0);

	out->asked = db_row_bool(&row);
	out->rank = db_row_int64(&row);
	out->members = db_row_int64(&row);
	out->asked_count = db_row_int64(&row);
	out->pace_per_hour = db_row_int64(&row);
	out->started_at_s = db_row_int64(&row);
	return db_row_end(&row, err);
}
