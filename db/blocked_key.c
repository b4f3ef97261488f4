#include "db/blocked_key.h"

#include "db/run.h"

enum {
	LOAD,
	FIND,
	LIST,
	REMOVE_LIST,
	REMOVE_CLAIM,
	REMOVE_UNUSED,
	STATEMENTS,
};

/* Lock order: key_claim, as everywhere; blocked_key follows it. */

#define LISTED "to_timestamp(0)"

static const struct db_statement SQL[STATEMENTS] = {
	[LOAD] = { /* key_claim_pkey, blocked_key_pkey, each in its order */
		.name = "blocked_load", .params = 3, .columns = 2, .rows = ROWS_ONE,
		.sql = "WITH k AS (INSERT INTO jitrca.key_claim AS k"
		       " (spki_sha256, identity, profile, blocked_at)"
		       " SELECT DISTINCT i.spki, '', '', " LISTED " FROM unnest($1::bytea[]) AS i(spki)"
		       " ORDER BY i.spki ON CONFLICT (spki_sha256) DO UPDATE"
		       " SET blocked_at = EXCLUDED.blocked_at WHERE k.blocked_at IS NULL"
		       " RETURNING k.spki_sha256, k.identity),"
		       " b AS (INSERT INTO jitrca.blocked_key (spki_sha256, reason, actor)"
		       " SELECT k.spki_sha256, $2::text, $3::text FROM k ORDER BY 1 ON CONFLICT DO NOTHING)"
		       " SELECT count(*), count(*) FILTER (WHERE k.identity <> '') FROM k",
	},
	[FIND] = { /* key_claim_pkey, blocked_key_pkey */
		.name = "blocked_find", .params = 1, .columns = 6, .rows = ROWS_MAYBE,
		.sql = "SELECT k.spki_sha256, b.spki_sha256 IS NULL, coalesce(b.reason, ''),"
		       " coalesce(b.actor, ''), " SQL_S("coalesce(b.blocked_at, k.blocked_at)")
		       ", k.identity FROM jitrca.key_claim k LEFT JOIN jitrca.blocked_key b"
		       " ON b.spki_sha256 = k.spki_sha256"
		       " WHERE k.spki_sha256 = $1::bytea AND k.blocked_at IS NOT NULL",
	},
	[LIST] = { /* blocked_key_pkey; of each key_claim_pkey */
		.name = "blocked_list", .params = 2, .columns = 6, .rows = ROWS_ANY,
		.sql = "SELECT b.spki_sha256, false, b.reason, b.actor, " SQL_S("b.blocked_at")
		       ", coalesce((SELECT k.identity FROM jitrca.key_claim k"
		       " WHERE k.spki_sha256 = b.spki_sha256), '') FROM jitrca.blocked_key b"
		       " WHERE b.spki_sha256 > $1::bytea ORDER BY b.spki_sha256 LIMIT $2::bigint",
	},
	[REMOVE_CLAIM] = { /* key_claim_pkey */
		.name = "blocked_remove_claim", .params = 1, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE jitrca.key_claim k SET blocked_at = NULL"
		       " WHERE k.spki_sha256 = $1::bytea AND k.blocked_at = " LISTED,
	},
	[REMOVE_LIST] = { /* blocked_key_pkey */
		.name = "blocked_remove_list", .params = 1, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM jitrca.blocked_key b WHERE b.spki_sha256 = $1::bytea",
	},
	[REMOVE_UNUSED] = { /* key_claim_pkey: nobody's, it was there for the block alone */
		.name = "blocked_remove_unused", .params = 1, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM jitrca.key_claim k WHERE k.spki_sha256 = $1::bytea"
		       " AND k.identity = '' AND k.blocked_at IS NULL",
	},
};

const struct db_table DB_TABLE_BLOCKED_KEY = { SQL, COUNT_OF(SQL) };

enum status
db_blocked_key_load(struct db_tx *tx, const uint8_t (*keys)[DB_SHA256_BYTES], size_t count,
	const char *reason, const char *actor, struct db_blocked_load *out, struct err *err)
{
	own_struct(db_array) array = DB_ARRAY(ARRAY_BYTEA);
	own(PGresult) rows = NULL;
	struct db_row row;
	int64_t added;

	for (size_t i = 0; i < count; i++)
		TRY(db_array_add_bytes(&array, (struct view){ keys[i], DB_SHA256_BYTES }, err));
	TRY(db_run(tx, &SQL[LOAD], DB_PARAMS(db_array(&array), db_text(reason), db_text(actor)),
		&rows, err));
	row = db_row(rows, 0);
	added = db_row_int64(&row);
	out->in_use += db_row_int64(&row);
	TRY(db_row_end(&row, err));
	out->added += added;
	out->already += (int64_t)count - added;
	return OK;
}

static enum status
key_read(const PGresult *rows, int r, struct db_blocked_key *out, struct err *err)
{
	struct db_row row = db_row(rows, r);

	(void)db_row_octets(&row, out->spki_sha256, DB_SHA256_BYTES);
	out->compromised = db_row_bool(&row);
	db_row_text(&row, out->reason, sizeof(out->reason));
	db_row_text(&row, out->actor, sizeof(out->actor));
	out->blocked_at_s = db_row_int64(&row);
	db_row_text(&row, out->identity, sizeof(out->identity));
	return db_row_end(&row, err);
}

enum status
db_blocked_key_find(struct db_tx *tx, const uint8_t key[DB_SHA256_BYTES], struct db_blocked_key *out,
	struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[FIND], DB_PARAMS(db_octets(key, DB_SHA256_BYTES)), &rows, err));
	if (db_rows(rows) == 0)
		return err_set(err, ERR_NOT_FOUND, "blocked_key_unknown",
			"blocked key: that key is not blocked");
	return key_read(rows, 0, out, err);
}

enum status
db_blocked_key_list(struct db_tx *tx, const uint8_t *after, size_t limit, struct db_blocked_key *out,
	size_t *count, struct err *err)
{
	static const uint8_t BEFORE_ALL[1] = { 0 };
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[LIST], DB_PARAMS(after != NULL ? db_octets(after, DB_SHA256_BYTES) :
		db_octets(BEFORE_ALL, 1), db_int64((int64_t)limit)), &rows, err));
	for (int r = 0; r < db_rows(rows); r++)
		TRY(key_read(rows, r, &out[r], err));
	*count = (size_t)db_rows(rows);
	return OK;
}

enum status
db_blocked_key_remove(struct db_tx *tx, const uint8_t key[DB_SHA256_BYTES], struct err *err)
{
	struct db_blocked_key found;
	own(PGresult) rows = NULL;

	/* Takes the row's lock first: who calls the key compromised meanwhile comes before or after. */
	TRY(db_run(tx, &SQL[REMOVE_CLAIM], DB_PARAMS(db_octets(key, DB_SHA256_BYTES)), &rows, err));
	if (db_affected(rows) == 0) {
		TRY(db_blocked_key_find(tx, key, &found, err));
		return err_set(err, ERR_CONFLICT, "key_compromised",
			"blocked key: one of the list wanted, one found that was revoked for compromise");
	}
	TRY(db_run(tx, &SQL[REMOVE_LIST], DB_PARAMS(db_octets(key, DB_SHA256_BYTES)), NULL, err));
	return db_run(tx, &SQL[REMOVE_UNUSED], DB_PARAMS(db_octets(key, DB_SHA256_BYTES)), NULL, err);
}
