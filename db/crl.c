#include "db/crl.h"

#include <assert.h>
#include <string.h>

#include "db/run.h"

enum {
	SCOPES_ENSURE,
	SCOPES_DUE,
	SCOPE_LOCK,
	RESERVE,
	OVERTAKE,
	DELTA_DUE,
	BASES,
	BASE_FORGET,
	BASE_PUT,
	BASE_CHANGES,
	BASE_CHECK,
	FULL_ASK,
	SNAPSHOT,
	ENTRIES_SETTINGS,
	ENTRIES_DELTA,
	ENTRIES_FULL,
	ENTRIES_SHARD,
	PUBLISH_NEWEST,
	PUBLISH_INSERT,
	PUBLISH_PIECE,
	LONG_SETTINGS,
	STORE_PIECES,
	STORE_END,
	PUBLISH_SCOPE,
	PUBLISH_PRUNE,
	PUBLISH_NOTIFY,
	LATEST,
	PIECES,
	NUMBERS,
	CLOCK,
	REVOKED,
	STATEMENTS,
};

/*
 * Lock order: the scope of a delta before that of its full list, as who revokes takes them; both before
 * crl_change.
 */

/* Ten million entries take a busy machine longer than other statements may. */
#define LONG "10min"
/* What COPY knows of a list; evaluated once, not for each row. */
#define SETTING(name, type) "(SELECT current_setting('jitrca." name "')::" type ")"
#define OVER "(SELECT to_timestamp(current_setting('jitrca.crl_over')::bigint))"

static const struct db_statement SQL[STATEMENTS] = {
	[SCOPES_ENSURE] = {
		.name = "crl_scopes_ensure", .params = 1, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO jitrca.crl_scope (issuer_id, scope)"
		       " SELECT $1::int, n FROM generate_series(-2, 255) n ORDER BY n"
		       " ON CONFLICT DO NOTHING",
	},
	[SCOPES_DUE] = { /* crl_scope_pkey: 258 rows */
		.name = "crl_scopes_due", .params = 4, .columns = 6, .rows = ROWS_ANY,
		.sql = "SELECT s.issuer_id, s.scope, s.last_number, s.wanted, s.published, "
		       SQL_S("s.next_update") " FROM jitrca.crl_scope s WHERE s.issuer_id = $1::int"
		       " AND (s.wanted > s.published OR s.next_update IS NULL"
		       " OR s.next_update <= to_timestamp(CASE WHEN s.scope = -2 THEN $3::bigint"
		       " ELSE $2::bigint END)) ORDER BY s.scope LIMIT $4::bigint",
	},
	[SCOPE_LOCK] = { /* crl_scope_pkey */
		.name = "crl_scope_lock", .params = 2, .columns = 2, .rows = ROWS_MAYBE,
		.sql = "SELECT s.last_number, s.wanted FROM jitrca.crl_scope s"
		       " WHERE s.issuer_id = $1::int AND s.scope = $2::smallint FOR NO KEY UPDATE",
	},
	[RESERVE] = {
		/* The row lock waits for every revocation that has marked the scope and not yet committed:
		 * what is read after this has all that `wanted` counts. */
		.name = "crl_reserve", .params = 2, .columns = 2, .rows = ROWS_MAYBE,
		.sql = "UPDATE jitrca.crl_scope s SET last_number = s.last_number + 1"
		       " WHERE s.issuer_id = $1::int AND s.scope = $2::smallint"
		       " RETURNING s.last_number, s.wanted",
	},
	[OVERTAKE] = { /* crl_scope_pkey */
		.name = "crl_overtake", .params = 3, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE jitrca.crl_scope s SET last_number = $3::bigint, wanted = s.wanted + 1"
		       " WHERE s.issuer_id = $1::int AND s.scope = $2::smallint"
		       " AND s.last_number < $3::bigint",
	},
	[DELTA_DUE] = { /* crl_scope_pkey */
		.name = "crl_delta_due", .params = 1, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE jitrca.crl_scope s SET wanted = s.wanted + 1"
		       " WHERE s.issuer_id = $1::int AND s.scope = -2",
	},
	[BASES] = { /* crl_base_pkey */
		.name = "crl_bases", .params = 1, .columns = 3, .rows = ROWS_ANY,
		.sql = "SELECT b.number, b.changes, " SQL_S("b.this_update") " FROM jitrca.crl_base b"
		       " WHERE b.issuer_id = $1::int ORDER BY b.number LIMIT 2",
	},
	[BASE_FORGET] = { /* crl_base_pkey; all but the newest, or all */
		.name = "crl_base_forget", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM jitrca.crl_base b WHERE b.issuer_id = $1::int AND ($2::bool"
		       " OR b.number < (SELECT max(x.number) FROM jitrca.crl_base x"
		       " WHERE x.issuer_id = $1::int))",
	},
	[BASE_PUT] = {
		.name = "crl_base_put", .params = 4, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO jitrca.crl_base (issuer_id, number, changes, this_update)"
		       " VALUES ($1::int, $2::bigint, $3::bigint, to_timestamp($4::bigint))",
	},
	[BASE_CHANGES] = { /* crl_change_pkey */
		.name = "crl_base_changes", .params = 1, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM jitrca.crl_change c WHERE c.issuer_id = $1::int"
		       " AND c.change <= (SELECT min(b.changes) FROM jitrca.crl_base b"
		       " WHERE b.issuer_id = $1::int)",
	},
	[BASE_CHECK] = { /* crl_base_pkey */
		.name = "crl_base_check", .params = 2, .columns = 1, .rows = ROWS_MAYBE,
		.sql = "SELECT b.number FROM jitrca.crl_base b"
		       " WHERE b.issuer_id = $1::int AND b.number = $2::bigint",
	},
	[FULL_ASK] = { /* crl_scope_pkey */
		.name = "crl_full_ask", .params = 1, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE jitrca.crl_scope s SET next_update = NULL"
		       " WHERE s.issuer_id = $1::int AND s.scope = -1 AND s.next_update IS NOT NULL",
	},
	[SNAPSHOT] = {
		.name = "crl_snapshot", .params = 0, .columns = 0, .rows = ROWS_NONE,
		.sql = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ",
	},
	[ENTRIES_SETTINGS] = {
		.name = "crl_entries_settings", .params = 4, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT count(set_config(n, v, true)) FROM (VALUES ('jitrca.crl_issuer', $1::text),"
		       " ('jitrca.crl_over', $2::text), ('jitrca.crl_shard', $3::text),"
		       " ('jitrca.crl_changes', $4::text), ('statement_timeout', '" LONG "')) AS x(n, v)",
	},
	[ENTRIES_DELTA] = {
		/* crl_change_pkey and revocation_pkey, side by side. What is no longer there was on hold,
		 * or it expired long ago (RFC 5280 5.3.1). */
		.name = "crl_entries_delta", .columns = 3, .rows = ROWS_COPY,
		.sql = "COPY (SELECT c.serial, coalesce(r.revoked_at, c.changed_at),"
		       " coalesce(r.reason, 8)::smallint FROM jitrca.crl_change c"
		       " LEFT JOIN jitrca.revocation r"
		       " ON r.issuer_id = c.issuer_id AND r.serial = c.serial"
		       " WHERE c.issuer_id = " SETTING("crl_issuer", "int")
		       " AND c.change > " SETTING("crl_changes", "bigint")
		       " AND (r.not_after IS NULL OR r.not_after > " OVER ")"
		       " ORDER BY c.serial) TO STDOUT (FORMAT binary)",
	},
	[ENTRIES_FULL] = { /* revocation_pkey alone; IS TRUE keeps away from revocation_expired and a sort */
		.name = "crl_entries_full", .columns = 3, .rows = ROWS_COPY,
		.sql = "COPY (SELECT r.serial, r.revoked_at, r.reason FROM jitrca.revocation r"
		       " WHERE r.issuer_id = " SETTING("crl_issuer", "int")
		       " AND (r.not_after > " OVER ") IS TRUE ORDER BY r.serial) TO STDOUT (FORMAT binary)",
	},
	[ENTRIES_SHARD] = { /* revocation_shard alone */
		.name = "crl_entries_shard", .columns = 3, .rows = ROWS_COPY,
		.sql = "COPY (SELECT r.serial, r.revoked_at, r.reason FROM jitrca.revocation r"
		       " WHERE r.issuer_id = " SETTING("crl_issuer", "int")
		       " AND jitrca.serial_shard(r.serial) = " SETTING("crl_shard", "smallint")
		       " AND r.not_after > " OVER " ORDER BY r.serial) TO STDOUT (FORMAT binary)",
	},
	[PUBLISH_NEWEST] = { /* crl_pkey; a statement of its own, to see what we waited for */
		.name = "crl_publish_newest", .params = 3, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT coalesce(max(l.number), 0) FROM jitrca.crl l WHERE l.issuer_id = $1::int"
		       " AND l.scope = $2::smallint AND l.number <> $3::bigint",
	},
	[PUBLISH_INSERT] = {
		.name = "crl_publish_insert", .params = 9, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO jitrca.crl (issuer_id, scope, number, this_update, next_update, entries,"
		       " length, base, sha256) VALUES ($1::int, $2::smallint, $3::bigint,"
		       " to_timestamp($4::bigint), to_timestamp($5::bigint), $6::bigint, $7::bigint,"
		       " $8::bigint, $9::bytea)",
	},
	[PUBLISH_PIECE] = {
		.name = "crl_publish_piece", .params = 5, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO jitrca.crl_piece (issuer_id, scope, number, piece, octets)"
		       " VALUES ($1::int, $2::smallint, $3::bigint, $4::int, $5::bytea)",
	},
	[LONG_SETTINGS] = {
		.name = "crl_long_settings", .params = 0, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT count(set_config(n, '" LONG "', true)) FROM (VALUES ('statement_timeout'),"
		       " ('idle_in_transaction_session_timeout')) AS x(n)",
	},
	[STORE_PIECES] = {
		.name = "crl_store_pieces", .columns = 5, .rows = ROWS_COPY,
		.sql = "COPY jitrca.crl_piece (issuer_id, scope, number, piece, octets)"
		       " FROM STDIN (FORMAT binary)",
	},
	[STORE_END] = { /* crl_pkey */
		.name = "crl_store_end", .params = 6, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE jitrca.crl l SET entries = $4::bigint, length = $5::bigint,"
		       " sha256 = $6::bytea WHERE l.issuer_id = $1::int AND l.scope = $2::smallint"
		       " AND l.number = $3::bigint",
	},
	[PUBLISH_SCOPE] = {
		.name = "crl_publish_scope", .params = 4, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE jitrca.crl_scope s SET published = greatest(s.published, $3::bigint),"
		       " next_update = to_timestamp($4::bigint)"
		       " WHERE s.issuer_id = $1::int AND s.scope = $2::smallint",
	},
	[PUBLISH_PRUNE] = { /* crl_pkey, crl_piece_pkey: the last three stay */
		.name = "crl_publish_prune", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM jitrca.crl l WHERE l.issuer_id = $1::int AND l.scope = $2::smallint"
		       " AND l.number < (SELECT min(k.number) FROM (SELECT x.number FROM jitrca.crl x"
		       " WHERE x.issuer_id = $1::int AND x.scope = $2::smallint"
		       " ORDER BY x.number DESC LIMIT 3) k)",
	},
	[PUBLISH_NOTIFY] = {
		.name = "crl_publish_notify", .params = 2, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT pg_notify('jitrca_crl', $1::int::text || ' ' || $2::smallint::text)",
	},
	[LATEST] = { /* crl_pkey */
		.name = "crl_latest", .params = 2, .columns = 11, .rows = ROWS_MAYBE,
		.sql = "SELECT l.issuer_id, i.ca_id, l.scope, l.number, " SQL_S("l.this_update") ", "
		       SQL_S("l.next_update") ", " SQL_S("l.published_at") ", l.entries, l.length, l.base,"
		       " l.sha256 FROM jitrca.crl l JOIN jitrca.issuer i ON i.issuer_id = l.issuer_id"
		       " WHERE l.issuer_id = $1::int AND l.scope = $2::smallint"
		       " ORDER BY l.number DESC LIMIT 1",
	},
	[PIECES] = { /* crl_piece_pkey; four of a quarter of a megabyte at once */
		.name = "crl_pieces", .params = 3, .columns = 1, .rows = ROWS_STREAM, .batch = 4,
		.sql = "SELECT p.octets FROM jitrca.crl_piece p WHERE p.issuer_id = $1::int"
		       " AND p.scope = $2::smallint AND p.number = $3::bigint ORDER BY p.piece",
	},
	[NUMBERS] = { /* crl_pkey */
		.name = "crl_numbers", .params = 1, .columns = 2, .rows = ROWS_ANY,
		.sql = "SELECT l.scope, max(l.number) FROM jitrca.crl l WHERE l.issuer_id = $1::int"
		       " GROUP BY l.scope",
	},
	[CLOCK] = { /* crl_scope_pkey, an entry for each issuer */
		.name = "crl_clock", .params = 0, .columns = 2, .rows = ROWS_ONE,
		.sql = "SELECT coalesce(sum(s.wanted), 0)::bigint, coalesce(sum(s.last_number), 0)::bigint"
		       " FROM jitrca.issuer i JOIN jitrca.crl_scope s"
		       " ON s.issuer_id = i.issuer_id AND s.scope = -1",
	},
	[REVOKED] = { /* certificate_ended of the months to come, revocation_pkey */
		.name = "crl_revoked", .params = 2, .columns = 8, .rows = ROWS_STREAM,
		.sql = "SELECT c.sha256, c.serial, i.ca_id, c.device_id, c.status = 'held',"
		       " coalesce(r.reason, 0)::int, " SQL_S("coalesce(r.revoked_at, c.status_at)") ", "
		       SQL_S("c.not_after") " FROM jitrca.certificate c"
		       " JOIN jitrca.issuer i ON i.issuer_id = c.issuer_id LEFT JOIN jitrca.revocation r"
		       " ON r.issuer_id = c.issuer_id AND r.serial = c.serial"
		       " WHERE c.profile = ANY ($1::text[]) AND c.status IN ('revoked', 'held')"
		       " AND c.not_after > " SQL_AT_S("$2")
		       " AND c.expiry_month >= extract(year FROM " SQL_AT_S("$2") " AT TIME ZONE 'UTC') * 12"
		       " + extract(month FROM " SQL_AT_S("$2") " AT TIME ZONE 'UTC') - 1",
	},
};

const struct db_table DB_TABLE_CRL = { SQL, COUNT_OF(SQL) };

enum status
db_crl_scopes_ensure(struct db_tx *tx, int32_t issuer_id, struct err *err)
{
	return db_run(tx, &SQL[SCOPES_ENSURE], DB_PARAMS(db_int64(issuer_id)), NULL, err);
}

enum status
db_crl_scopes_due(struct db_tx *tx, int32_t issuer_id, int64_t due_s, int64_t delta_due_s,
	struct db_crl_scope *out, size_t max, size_t *count, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[SCOPES_DUE], DB_PARAMS(db_int64(issuer_id), db_int64(due_s),
		db_int64(delta_due_s), db_int64((int64_t)max)), &rows, err));
	for (int r = 0; r < db_rows(rows); r++) {
		struct db_row row = db_row(rows, r);

		out[r].issuer_id = db_row_int32(&row);
		out[r].scope = (int16_t)db_row_int32(&row);
		out[r].last_number = db_row_int64(&row);
		out[r].wanted = db_row_int64(&row);
		out[r].published = db_row_int64(&row);
		out[r].next_update_s = db_row_int64(&row);
		TRY(db_row_end(&row, err));
	}
	*count = (size_t)db_rows(rows);
	return OK;
}

static enum status
scope_unknown(int32_t issuer_id, int16_t scope, struct err *err)
{
	return err_set(err, ERR_NOT_FOUND, "crl_unknown", "crl: issuer %d has no scope %d",
		(int)issuer_id, (int)scope);
}

/* The scope whose row has the numbers. */
static int16_t
numbers_of(int16_t scope)
{
	return scope == CRL_SCOPE_DELTA ? CRL_SCOPE_FULL : scope;
}

static enum status
lock_scope(struct db_tx *tx, int32_t issuer_id, int16_t scope, int64_t *last, int64_t *wanted,
	struct err *err)
{
	own(PGresult) rows = NULL;
	struct db_row row;

	TRY(db_run(tx, &SQL[SCOPE_LOCK], DB_PARAMS(db_int64(issuer_id), db_int64(scope)), &rows, err));
	if (db_rows(rows) == 0)
		return scope_unknown(issuer_id, scope, err);
	row = db_row(rows, 0);
	*last = db_row_int64(&row);
	*wanted = db_row_int64(&row);
	return db_row_end(&row, err);
}

enum status
db_crl_reserve(struct db_tx *tx, int32_t issuer_id, int16_t scope, struct db_crl_turn *out,
	struct err *err)
{
	own(PGresult) rows = NULL;
	struct db_row row;
	int64_t last;

	*out = (struct db_crl_turn){ 0 };
	if (scope <= CRL_SCOPE_FULL)
		TRY(lock_scope(tx, issuer_id, CRL_SCOPE_DELTA, &last, &out->delta_wanted, err));
	TRY(db_run(tx, &SQL[RESERVE], DB_PARAMS(db_int64(issuer_id), db_int64(numbers_of(scope))), &rows,
		err));
	if (db_rows(rows) == 0)
		return scope_unknown(issuer_id, scope, err);
	row = db_row(rows, 0);
	out->number = db_row_int64(&row);
	out->wanted = db_row_int64(&row);
	return db_row_end(&row, err);
}

enum status
db_crl_bases(struct db_tx *tx, int32_t issuer_id, struct db_crl_base *oldest,
	struct db_crl_base *newest, struct err *err)
{
	own(PGresult) rows = NULL;

	*oldest = *newest = (struct db_crl_base){ 0 };
	TRY(db_run(tx, &SQL[BASES], DB_PARAMS(db_int64(issuer_id)), &rows, err));
	for (int r = 0; r < db_rows(rows); r++) {
		struct db_row row = db_row(rows, r);

		newest->number = db_row_int64(&row);
		newest->changes = db_row_int64(&row);
		newest->this_update_s = db_row_int64(&row);
		TRY(db_row_end(&row, err));
		if (r == 0)
			*oldest = *newest;
	}
	return OK;
}

enum status
db_crl_base_put(struct db_tx *tx, int32_t issuer_id, const struct db_crl_base *base, bool alone,
	struct err *err)
{
	TRY(db_run(tx, &SQL[BASE_FORGET], DB_PARAMS(db_int64(issuer_id), db_bool(alone)), NULL, err));
	TRY(db_run(tx, &SQL[BASE_PUT], DB_PARAMS(db_int64(issuer_id), db_int64(base->number),
		db_int64(base->changes), db_int64(base->this_update_s)), NULL, err));
	return db_run(tx, &SQL[BASE_CHANGES], DB_PARAMS(db_int64(issuer_id)), NULL, err);
}

enum status
db_crl_base_check(struct db_tx *tx, const struct db_crl *delta, struct err *err)
{
	own(PGresult) rows = NULL;

	if (delta->base == delta->number) /* its full list is published with it */
		return OK;
	TRY(db_run(tx, &SQL[BASE_CHECK], DB_PARAMS(db_int64(delta->issuer_id), db_int64(delta->base)),
		&rows, err));
	if (db_rows(rows) == 0)
		return err_set(err, ERR_CONFLICT, "crl_base_gone",
			"crl: list %lld, from which the delta goes on, is no base any more",
			(long long)delta->base);
	return OK;
}

enum status
db_crl_delta_due(struct db_tx *tx, int32_t issuer_id, struct err *err)
{
	return db_run(tx, &SQL[DELTA_DUE], DB_PARAMS(db_int64(issuer_id)), NULL, err);
}

enum status
db_crl_full_ask(struct db_tx *tx, int32_t issuer_id, struct err *err)
{
	return db_run(tx, &SQL[FULL_ASK], DB_PARAMS(db_int64(issuer_id)), NULL, err);
}

enum status
db_crl_snapshot(struct db_tx *tx, struct err *err)
{
	return db_run(tx, &SQL[SNAPSHOT], DB_NO_PARAMS, NULL, err);
}

struct entries {
	enum status (*entry)(void *arg, const struct db_crl_entry *entry, struct err *err);
	void *arg;
};

/* 2000-01-01, from which PostgreSQL counts. */
#define POSTGRESQL_EPOCH_S INT64_C(946684800)

static int64_t
number_of(struct view octets)
{
	uint64_t number = 0;

	for (size_t i = 0; i < octets.len; i++)
		number = number << 8 | octets.data[i];
	return (int64_t)number;
}

static enum status
entries_each(void *arg, const struct view *fields, struct err *err)
{
	const struct entries *entries = arg;
	struct db_crl_entry entry;
	int64_t at_us;

	if (fields[0].len != SERIAL_BYTES || fields[1].len != 8 || fields[2].len != 2)
		return err_set(err, ERR_INTERNAL, "database_shape",
			"crl entries: serial, time and reason wanted");
	memcpy(entry.serial.octets, fields[0].data, SERIAL_BYTES);
	at_us = number_of(fields[1]);
	entry.revoked_at_s = POSTGRESQL_EPOCH_S + at_us / 1000000 - (at_us % 1000000 < 0);
	entry.reason = (int)number_of(fields[2]);
	return entries->entry(entries->arg, &entry, err);
}

enum status
db_crl_entries(struct db_tx *tx, int32_t issuer_id, int16_t scope, int64_t not_after_over_s,
	int64_t changes,
	enum status (*entry)(void *arg, const struct db_crl_entry *entry, struct err *err), void *arg,
	struct err *err)
{
	struct entries entries = { entry, arg };

	TRY(db_run(tx, &SQL[ENTRIES_SETTINGS], DB_PARAMS(db_int64(issuer_id),
		db_int64(not_after_over_s), db_int64(scope), db_int64(changes)), NULL, err));
	return db_copy_out(tx, &SQL[scope == CRL_SCOPE_DELTA ? ENTRIES_DELTA
		: scope == CRL_SCOPE_FULL ? ENTRIES_FULL : ENTRIES_SHARD], entries_each, &entries, err);
}

enum status
db_crl_overtake(struct db_tx *tx, int32_t issuer_id, int16_t scope, int64_t number, struct err *err)
{
	if (scope <= CRL_SCOPE_FULL) {
		TRY(db_run(tx, &SQL[DELTA_DUE], DB_PARAMS(db_int64(issuer_id)), NULL, err));
		TRY(db_run(tx, &SQL[BASE_FORGET], DB_PARAMS(db_int64(issuer_id), db_bool(true)), NULL,
			err));
	}
	return db_run(tx, &SQL[OVERTAKE], DB_PARAMS(db_int64(issuer_id), db_int64(numbers_of(scope)),
		db_int64(number)), NULL, err);
}

/* Locks the scope and holds the list's number against what is reserved and what is published. */
static enum status
publish_check(struct db_tx *tx, const struct db_crl *crl, struct err *err)
{
	own(PGresult) newest = NULL;
	int64_t last, wanted, published;
	struct db_row row;

	TRY(lock_scope(tx, crl->issuer_id, crl->scope, &last, &wanted, err));
	if (crl->scope == CRL_SCOPE_DELTA)
		TRY(lock_scope(tx, crl->issuer_id, CRL_SCOPE_FULL, &last, &wanted, err));
	if (crl->number > last)
		return err_set(err, ERR_INTERNAL, "crl_number_not_reserved",
			"crl: a number up to %lld wanted, %lld found", (long long)last,
			(long long)crl->number);

	TRY(db_run(tx, &SQL[PUBLISH_NEWEST], DB_PARAMS(db_int64(crl->issuer_id),
		db_int64(crl->scope), db_int64(crl->number)), &newest, err));
	row = db_row(newest, 0);
	published = db_row_int64(&row);
	TRY(db_row_end(&row, err));
	if (crl->number <= published)
		return err_set(err, ERR_CONFLICT, "crl_overtaken",
			"crl: a number over %lld wanted, %lld found", (long long)published,
			(long long)crl->number);
	return OK;
}

enum status
db_crl_publish_begin(struct db_tx *tx, const struct db_crl *crl, struct err *err)
{
	return db_run(tx, &SQL[PUBLISH_INSERT], DB_PARAMS(db_int64(crl->issuer_id),
		db_int64(crl->scope), db_int64(crl->number), db_int64(crl->this_update_s),
		db_int64(crl->next_update_s), db_int64(crl->entries), db_int64(crl->length_bytes),
		db_int64_or_null(crl->base), db_octets(crl->sha256, DB_SHA256_BYTES)), NULL, err);
}

enum status
db_crl_publish_put(struct db_tx *tx, const struct db_crl *crl, int64_t piece, struct view octets,
	struct err *err)
{
	return db_run(tx, &SQL[PUBLISH_PIECE], DB_PARAMS(db_int64(crl->issuer_id),
		db_int64(crl->scope), db_int64(crl->number), db_int64(piece), db_bytes(octets)), NULL,
		err);
}

enum status
db_crl_long(struct db_tx *tx, struct err *err)
{
	return db_run(tx, &SQL[LONG_SETTINGS], DB_NO_PARAMS, NULL, err);
}

enum status
db_crl_store_begin(struct db_tx *tx, const struct db_crl *crl, struct err *err)
{
	TRY(db_crl_long(tx, err));
	TRY(db_crl_publish_begin(tx, crl, err));
	return db_copy_begin(tx, &SQL[STORE_PIECES], err);
}

static struct view
big_endian(uint8_t *out, uint64_t number, size_t octets)
{
	for (size_t i = 0; i < octets; i++)
		out[i] = (uint8_t)(number >> (8 * (octets - 1 - i)));
	return (struct view){ out, octets };
}

enum status
db_crl_store_put(struct db_tx *tx, const struct db_crl *crl, int32_t piece, struct view octets,
	struct err *err)
{
	uint8_t issuer[4], scope[2], number[8], place[4];
	const struct view fields[] = {
		big_endian(issuer, (uint32_t)crl->issuer_id, sizeof(issuer)),
		big_endian(scope, (uint16_t)crl->scope, sizeof(scope)),
		big_endian(number, (uint64_t)crl->number, sizeof(number)),
		big_endian(place, (uint32_t)piece, sizeof(place)),
		octets,
	};

	return db_copy_put(tx, &SQL[STORE_PIECES], fields, err);
}

enum status
db_crl_store_end(struct db_tx *tx, const struct db_crl *crl, struct err *err)
{
	TRY(db_copy_end(tx, &SQL[STORE_PIECES], err));
	return db_run(tx, &SQL[STORE_END], DB_PARAMS(db_int64(crl->issuer_id), db_int64(crl->scope),
		db_int64(crl->number), db_int64(crl->entries), db_int64(crl->length_bytes),
		db_octets(crl->sha256, DB_SHA256_BYTES)), NULL, err);
}

enum status
db_crl_publish_end(struct db_tx *tx, const struct db_crl *crl, int64_t wanted, struct err *err)
{
	struct db_param issuer = db_int64(crl->issuer_id);
	struct db_param scope = db_int64(crl->scope);

	TRY(publish_check(tx, crl, err));
	TRY(db_run(tx, &SQL[PUBLISH_SCOPE], DB_PARAMS(issuer, scope, db_int64(wanted),
		db_int64(crl->next_update_s)), NULL, err));
	return db_run(tx, &SQL[PUBLISH_NOTIFY], DB_PARAMS(issuer, scope), NULL, err);
}

enum status
db_crl_prune(struct db_tx *tx, const struct db_crl *crl, struct err *err)
{
	return db_run(tx, &SQL[PUBLISH_PRUNE], DB_PARAMS(db_int64(crl->issuer_id),
		db_int64(crl->scope)), NULL, err);
}

enum status
db_crl_latest(struct db_tx *tx, int32_t issuer_id, int16_t scope, struct db_crl *out, struct err *err)
{
	own(PGresult) rows = NULL;
	struct db_row row;

	TRY(db_run(tx, &SQL[LATEST], DB_PARAMS(db_int64(issuer_id), db_int64(scope)), &rows, err));
	if (db_rows(rows) == 0)
		return scope_unknown(issuer_id, scope, err);
	*out = (struct db_crl){ 0 };
	row = db_row(rows, 0);
	out->issuer_id = db_row_int32(&row);
	db_row_text(&row, out->ca_id, sizeof(out->ca_id));
	out->scope = (int16_t)db_row_int32(&row);
	out->number = db_row_int64(&row);
	out->this_update_s = db_row_int64(&row);
	out->next_update_s = db_row_int64(&row);
	out->published_at_s = db_row_int64(&row);
	out->entries = db_row_int64(&row);
	out->length_bytes = db_row_int64(&row);
	out->base = db_row_int64(&row);
	(void)db_row_octets(&row, out->sha256, DB_SHA256_BYTES);
	return db_row_end(&row, err);
}

struct pieces {
	enum status (*piece)(void *arg, struct view octets, struct err *err);
	void *arg;
};

static enum status
pieces_each(void *arg, struct db_row *row, struct err *err)
{
	const struct pieces *pieces = arg;
	struct view octets = db_row_view(row);

	TRY(db_row_end(row, err));
	return pieces->piece(pieces->arg, octets, err);
}

enum status
db_crl_pieces(struct db_tx *tx, const struct db_crl *crl,
	enum status (*piece)(void *arg, struct view octets, struct err *err), void *arg,
	struct err *err)
{
	struct pieces pieces = { piece, arg };

	return db_stream(tx, &SQL[PIECES], DB_PARAMS(db_int64(crl->issuer_id), db_int64(crl->scope),
		db_int64(crl->number)), pieces_each, &pieces, err);
}

enum status
db_crl_numbers(struct db_tx *tx, int32_t issuer_id, int64_t out[CRL_SCOPES], struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[NUMBERS], DB_PARAMS(db_int64(issuer_id)), &rows, err));
	for (size_t i = 0; i < CRL_SCOPES; i++)
		out[i] = 0;
	for (int r = 0; r < db_rows(rows); r++) {
		struct db_row row = db_row(rows, r);
		int32_t scope = db_row_int32(&row);

		assert(scope >= CRL_SCOPE_DELTA && CRL_SCOPE_AT(scope) < CRL_SCOPES);
		out[CRL_SCOPE_AT(scope)] = db_row_int64(&row);
		TRY(db_row_end(&row, err));
	}
	return OK;
}

enum status
db_crl_clock(struct db_tx *tx, struct db_crl_clock *out, struct err *err)
{
	own(PGresult) rows = NULL;
	struct db_row row;

	TRY(db_run(tx, &SQL[CLOCK], DB_NO_PARAMS, &rows, err));
	row = db_row(rows, 0);
	out->changes = db_row_int64(&row);
	out->numbers = db_row_int64(&row);
	return db_row_end(&row, err);
}

struct revoked {
	enum status (*each)(void *arg, const struct db_revoked *revoked, struct err *err);
	void *arg;
};

static enum status
revoked_each(void *arg, struct db_row *row, struct err *err)
{
	const struct revoked *revoked = arg;
	struct db_revoked one = { .held = false };

	(void)db_row_octets(row, one.sha256, DB_SHA256_BYTES);
	(void)db_row_serial(row, &one.serial);
	db_row_text(row, one.ca_id, sizeof(one.ca_id));
	db_row_text(row, one.device_id, sizeof(one.device_id));
	one.held = db_row_bool(row);
	one.reason = (enum revocation_reason)db_row_int32(row);
	one.revoked_at_s = db_row_int64(row);
	one.not_after_s = db_row_int64(row);
	TRY(db_row_end(row, err));
	return revoked->each(revoked->arg, &one, err);
}

enum status
db_crl_revoked(struct db_tx *tx, const char *const *profiles, size_t count, int64_t now_s,
	enum status (*each)(void *arg, const struct db_revoked *revoked, struct err *err), void *arg,
	struct err *err)
{
	own_struct(db_array) names = DB_ARRAY(ARRAY_TEXT);
	struct revoked revoked = { each, arg };

	for (size_t i = 0; i < count; i++)
		TRY(db_array_add_text(&names, profiles[i], err));
	return db_stream(tx, &SQL[REVOKED], DB_PARAMS(db_array(&names), db_int64(now_s)), revoked_each,
		&revoked, err);
}
