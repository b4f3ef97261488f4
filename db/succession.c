#include "db/succession.h"

#include "db/run.h"

enum {
	BEGIN,
	LIST,
	FIND,
	MOVE,
	LIVE,
	STATEMENTS,
};

#define COLUMNS                                                                                    \
	"s.succession_id, s.old_issuer, s.new_issuer, o.ca_id, n.ca_id, s.state, s.campaign_id,"       \
	" s.actor, " SQL_S("s.started_at") ", " SQL_S("s.changed_at")                                  \
	" FROM jitrca.ca_succession s JOIN jitrca.issuer o ON o.issuer_id = s.old_issuer"              \
	" JOIN jitrca.issuer n ON n.issuer_id = s.new_issuer"
#define COLUMN_COUNT 10

static const struct db_statement SQL[STATEMENTS] = {
	[BEGIN] = {
		/* ca_succession_old. What was succeeded does not come back: its devices are on their way. */
		.name = "succession_begin", .params = 3, .columns = 0, .rows = ROWS_NONE, .trust = true,
		.sql = "INSERT INTO jitrca.ca_succession (old_issuer, new_issuer, actor)"
		       " SELECT $1::int, $2::int, $3::text WHERE NOT EXISTS (SELECT"
		       " FROM jitrca.ca_succession s WHERE s.old_issuer = $2::int"
		       " AND s.state <> 'cancelled') ON CONFLICT DO NOTHING",
	},
	[LIST] = { /* ca_succession_pkey: a handful */
		.name = "succession_list", .params = 1, .columns = COLUMN_COUNT, .rows = ROWS_ANY,
		.sql = "SELECT " COLUMNS " WHERE s.state <> 'cancelled' ORDER BY s.succession_id"
		       " LIMIT $1::bigint",
	},
	[FIND] = { /* a handful */
		.name = "succession_find", .params = 1, .columns = COLUMN_COUNT, .rows = ROWS_MAYBE,
		.sql = "SELECT " COLUMNS " WHERE s.old_issuer = $1::int OR s.new_issuer = $1::int"
		       " ORDER BY s.state NOT IN ('retired', 'cancelled') DESC, s.succession_id DESC"
		       " LIMIT 1",
	},
	[MOVE] = { /* ca_succession_pkey */
		.name = "succession_move", .params = 5, .columns = 0, .rows = ROWS_NONE, .trust = true,
		.sql = "UPDATE jitrca.ca_succession SET state = $3::text, campaign_id = $4::text,"
		       " actor = $5::text, changed_at = now() WHERE succession_id = $1::int"
		       " AND state = $2::text",
	},
	[LIVE] = {
		/* certificate_of_issuer in each month that is not over, iot_certificate_serial for each that
		 * is found: $3 of them at most, and none that is over. */
		.name = "succession_live", .params = 4, .columns = 2, .rows = ROWS_ONE,
		.sql = "SELECT count(*), count(*) FILTER (WHERE NOT EXISTS (SELECT"
		       " FROM jitrca.iot_certificate i WHERE i.issuer_id = $1::int"
		       " AND i.serial = l.serial AND i.status <> 'DELETED'))"
		       " FROM (SELECT c.serial FROM jitrca.certificate c WHERE c.issuer_id = $1::int"
		       " AND c.expiry_month >= $4::int AND c.of_device"
		       " AND c.status IN ('active', 'pending_confirmation', 'held')"
		       " AND c.not_after > " SQL_AT_S("$2") " LIMIT $3::bigint) l",
	},
};

const struct db_table DB_TABLE_SUCCESSION = { SQL, COUNT_OF(SQL) };

static enum status
read_one(const PGresult *rows, int index, struct db_succession *out, struct err *err)
{
	struct db_row row = db_row(rows, index);

	*out = (struct db_succession){ .succession_id = db_row_int32(&row) };
	out->old_issuer = db_row_int32(&row);
	out->new_issuer = db_row_int32(&row);
	db_row_text(&row, out->old_ca, sizeof(out->old_ca));
	db_row_text(&row, out->new_ca, sizeof(out->new_ca));
	db_row_text(&row, out->state, sizeof(out->state));
	db_row_text(&row, out->campaign_id, sizeof(out->campaign_id));
	db_row_text(&row, out->actor, sizeof(out->actor));
	out->started_at_s = db_row_int64(&row);
	out->changed_at_s = db_row_int64(&row);
	return db_row_end(&row, err);
}

enum status
db_succession_begin(struct db_tx *tx, int32_t old_issuer, int32_t new_issuer, const char *actor,
	struct err *err)
{
	own(PGresult) done = NULL;

	TRY(db_run(tx, &SQL[BEGIN],
		DB_PARAMS(db_int64(old_issuer), db_int64(new_issuer), db_text(actor)), &done, err));
	if (db_affected(done) == 0)
		return err_set(err, ERR_CONFLICT, "succession_open", "a succession is under way, or one"
			" of these CAs has been in one that was not cancelled");
	return OK;
}

enum status
db_succession_list(struct db_tx *tx, struct db_succession out[DB_SUCCESSIONS_MAX], size_t *count,
	struct err *err)
{
	own(PGresult) rows = NULL;

	*count = 0;
	TRY(db_run(tx, &SQL[LIST], DB_PARAMS(db_int64(DB_SUCCESSIONS_MAX)), &rows, err));
	for (int i = 0; i < db_rows(rows); i++)
		TRY(read_one(rows, i, &out[(*count)++], err));
	return OK;
}

enum status
db_succession_find(struct db_tx *tx, int32_t issuer_id, struct db_succession *out, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[FIND], DB_PARAMS(db_int64(issuer_id)), &rows, err));
	if (db_rows(rows) == 0)
		return err_set(err, ERR_NOT_FOUND, "succession_unknown",
			"this CA is in no succession");
	return read_one(rows, 0, out, err);
}

enum status
db_succession_move(struct db_tx *tx, const struct db_succession *from, const char *to,
	const char *campaign_id, const char *actor, struct err *err)
{
	own(PGresult) done = NULL;

	TRY(db_run(tx, &SQL[MOVE],
		DB_PARAMS(db_int64(from->succession_id), db_text(from->state), db_text(to),
			db_text(campaign_id), db_text(actor)), &done, err));
	if (db_affected(done) == 0)
		return err_set(err, ERR_CONFLICT, "succession_changed",
			"it was '%s', and has been changed meanwhile", from->state);
	return OK;
}

enum status
db_succession_live(struct db_tx *tx, int32_t issuer_id, int64_t now_s, int64_t max, int64_t *live,
	int64_t *unseen, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[LIVE], DB_PARAMS(db_int64(issuer_id), db_int64(now_s), db_int64(max),
		db_int64(expiry_month(now_s))), &rows, err));
	struct db_row row = db_row(rows, 0);
	*live = db_row_int64(&row);
	*unseen = db_row_int64(&row);
	return db_row_end(&row, err);
}
