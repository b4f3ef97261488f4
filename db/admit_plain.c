#include "db/admit.h"

enum {
	ADMIT_PLAIN_ADMIN,
	ADMIT_PLAIN_STATION,
	STATEMENTS,
};

/*
 * All in one statement, a step waiting for the count of the one before, so that rows are locked in the order
 * of issuance.h. A claim that is not new, a line, a manifest or a station that does not allow all of it, and
 * the chain ends: fewer intents come out than items went in.
 *
 * Whether a device is new is looked up first: where there is no slot, there is no device that could be
 * quarantined, and a client that repeats itself is known by it. The other claims are inserted without a look,
 * which would cost as much again: a key that is another device's makes a conflict, and a line in PostgreSQL's
 * log.
 *
 * What is read is as old as the statement. Rows that are written (lines, manifests, stations) are judged as
 * they are then, for an UPDATE that waited looks again; who asks is judged as it was when it began, a moment
 * earlier, as it is where it is read by a statement of its own.
 */
#define CLAIMS(who)                                                                                \
	"WITH i AS MATERIALIZED (SELECT * FROM unnest($1::bytea[], $2::bigint[], $3::text[],"          \
	" $4::text[], $5::bytea[], $6::text[], $7::text[], $8::bytea[])"                               \
	" AS i(serial, not_after, asker, key, hash, identity, profile, spki)),"                        \
	" plain AS MATERIALIZED (SELECT NOT EXISTS (" who ") AND NOT EXISTS"                           \
	" (SELECT FROM i JOIN jitrca.device_slot s ON s.device_id = i.identity) AS yes),"              \
	" idempotency AS (INSERT INTO jitrca.idempotency"                                              \
	" (principal_id, key, request_hash, issuer_id, serial)"                                        \
	" SELECT i.asker, i.key, i.hash, $10::int, i.serial FROM i"                                    \
	" WHERE (SELECT yes FROM plain) AND i.key <> ''"                                               \
	" ORDER BY i.asker COLLATE \"C\", i.key COLLATE \"C\" RETURNING 1),"                           \
	" keys AS (INSERT INTO jitrca.key_claim (spki_sha256, identity, profile, issuer_id, serial)"   \
	" SELECT i.spki, i.identity, i.profile, $10::int, i.serial FROM i"                             \
	" WHERE (SELECT yes FROM plain) AND (SELECT count(*) FROM idempotency) = $11::bigint"          \
	" ORDER BY i.spki RETURNING 1),"                                                               \
	" slots AS (INSERT INTO jitrca.device_slot (device_id, current_issuer, current_serial)"        \
	" SELECT i.identity, $10::int, i.serial FROM i"                                                \
	" WHERE (SELECT count(*) FROM keys) = $12::bigint"                                             \
	" ORDER BY i.identity COLLATE \"C\" RETURNING 1)"

/* One row for all; a sort for both arrays. */
#define INTENTS(from, manifest_id, charged)                                                        \
	" intents AS (INSERT INTO jitrca.intent_round (instance_id, serials, items)"                   \
	" SELECT $9::int, array_agg(n.serial), array_agg(ROW($10::int, n.serial,"                      \
	" to_timestamp(n.not_after), n.asker, nullif(n.key, ''), n.identity, n.profile, n.spki, "      \
	manifest_id ", " charged ")::jitrca.intent_item)"                                              \
	" FROM (SELECT * FROM " from " x ORDER BY x.serial) n"

static const struct db_statement SQL[STATEMENTS] = {
	[ADMIT_PLAIN_ADMIN] = { /* principal_pkey, device_slot_pkey */
		.name = "admit_plain_admin", .params = 12, .columns = 3, .rows = ROWS_ANY,
		.sql = CLAIMS("SELECT FROM (SELECT DISTINCT i.asker FROM i) w"
			" JOIN jitrca.principal p ON p.principal_id = w.asker"
			" WHERE p.disabled_at IS NOT NULL")
		       "," INTENTS("i", "NULL", "false")
		       " HAVING (SELECT count(*) FROM slots) = $12::bigint RETURNING round_id)"
		       " SELECT i.serial, t.round_id, ''::text FROM intents t CROSS JOIN i",
	},
	[ADMIT_PLAIN_STATION] = {
		/* principal_pkey, station_pkey, device_slot_pkey, manifest_line_pkey, manifest_pkey. A device
		 * that has lines on several manifests has one to be chosen: it counts too many. The line is
		 * told of its certificate already now, for an update is the dearest of what is done to it:
		 * as long as there is an intent, there is no certificate. A manifest is found by its line,
		 * never the line by all manifests of its station. */
		.name = "admit_plain_station", .params = 12, .columns = 3, .rows = ROWS_ANY,
		.sql = CLAIMS("SELECT FROM (SELECT DISTINCT i.asker, i.profile FROM i) w"
			" LEFT JOIN jitrca.principal p ON p.principal_id = w.asker"
			" LEFT JOIN jitrca.station s ON s.principal_id = w.asker"
			" WHERE p.principal_id IS NULL OR p.disabled_at IS NOT NULL"
			" OR s.principal_id IS NULL OR NOT w.profile = ANY (s.profiles)")
		       ", lines AS (UPDATE jitrca.manifest_line l SET used_at = now(), issuer_id = $10::int,"
		       " serial = i.serial FROM i CROSS JOIN LATERAL (SELECT o.ctid AS at"
		       " FROM jitrca.manifest_line o WHERE o.device_id = i.identity AND o.used_at IS NULL"
		       " AND (SELECT m.station_id = i.asker AND m.profile = i.profile"
		       " FROM jitrca.manifest m WHERE m.manifest_id = o.manifest_id) OFFSET 0) o"
		       " WHERE (SELECT count(*) FROM slots) = $12::bigint"
		       " AND l.ctid = o.at AND l.used_at IS NULL"
		       " RETURNING i.*, l.manifest_id),"
		       " manifests AS (UPDATE jitrca.manifest m SET used = m.used + q.units"
		       " FROM (SELECT n.manifest_id, count(*) AS units FROM lines n GROUP BY 1 ORDER BY 1) q"
		       " WHERE (SELECT count(DISTINCT n.serial) FROM lines n) = $12::bigint"
		       " AND m.manifest_id = q.manifest_id AND m.used + q.units <= m.quantity"
		       " AND m.closed_at IS NULL AND now() >= m.not_before AND now() < m.not_after"
		       " RETURNING q.units),"
		       " stations AS (UPDATE jitrca.station s SET bucket = " ADMIT_BUCKET_NOW " - q.units,"
		       " bucket_at = clock_timestamp()"
		       " FROM (SELECT n.asker, count(*) AS units FROM lines n GROUP BY 1 ORDER BY 1) q"
		       " WHERE (SELECT sum(units) FROM manifests) = $12::bigint"
		       " AND s.principal_id = q.asker AND " ADMIT_BUCKET_NOW " >= q.units"
		       " RETURNING q.units),"
		       INTENTS("lines", "n.manifest_id", "true")
		       " HAVING (SELECT sum(units) FROM stations) = $12::bigint RETURNING round_id)"
		       " SELECT n.serial, t.round_id, n.manifest_id FROM intents t CROSS JOIN lines n",
	},
};

const struct db_table DB_TABLE_ADMIT_PLAIN = { SQL, COUNT_OF(SQL) };

static const enum column TAKES[] = { COL_SERIAL, COL_NOT_AFTER, COL_PRINCIPAL, COL_IDEMPOTENCY_KEY,
	COL_REQUEST_HASH, COL_IDENTITY, COL_PROFILE, COL_SPKI, COL_END };

bool
admit_may_be_plain(const struct batch *b)
{
	for (size_t i = 0; i < b->count; i++) {
		const struct db_admit_item *item = &b->items[i];

		if (item->slot != SLOT_CURRENT || item->role_identity ||
		    item->needs_manifest != b->items[0].needs_manifest ||
		    item->ref.issuer_id != b->items[0].ref.issuer_id)
			return false;
	}
	return b->count > 0;
}

/* All were admitted: notes on which manifest. */
static enum status
note_admitted(struct batch *b, const PGresult *rows, struct err *err)
{
	for (int r = 0; r < db_rows(rows); r++) {
		struct db_row row = db_row(rows, r);
		struct serial serial;
		struct db_admit_item *item;
		size_t i;

		(void)db_row_serial(&row, &serial);
		i = batch_index(b, &serial);
		if (i == b->count)
			return err_set(err, ERR_INTERNAL, "database_shape",
				"admit_plain: a serial of no item");
		item = &b->items[i];
		item->intent_round = db_row_int64(&row);
		db_row_text(&row, item->manifest_id, sizeof(item->manifest_id));
		TRY(db_row_end(&row, err));
		item->manifest_charged = item->line_told = item->manifest_id[0] != '\0';
		item->fresh = true;
		item->admission = ADMISSION_ADMITTED;
	}
	return OK;
}

enum status
admit_plain(struct batch *b, bool *plain, struct err *err)
{
	own_struct(batch_arrays) arrays = { 0 };
	own(PGresult) rows = NULL;
	struct db_param params[BATCH_COLUMNS_MAX];
	enum status status;
	size_t count;
	int64_t with_key = 0;

	*plain = false;
	for (size_t i = 0; i < b->count; i++)
		with_key += batch_has_key(&b->items[i]);
	batch_pick_all(b);
	TRY(batch_fill(b, TAKES, &arrays, params, &count, err));
	params[count++] = db_int64(b->instance_id);
	params[count++] = db_int64(b->items[0].ref.issuer_id);
	params[count++] = db_int64(with_key);
	params[count++] = db_int64((int64_t)b->count);
	status = db_run(b->tx, &SQL[b->items[0].needs_manifest ? ADMIT_PLAIN_STATION : ADMIT_PLAIN_ADMIN],
		(struct db_params){ params, count }, &rows, err);
	if (status == ERR_CONFLICT)
		return OK;
	TRY(status);
	*plain = (size_t)db_rows(rows) == b->count;
	return *plain ? note_admitted(b, rows, err) : OK;
}
