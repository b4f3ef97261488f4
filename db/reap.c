#include "db/batch.h"

#include "db/revocation.h"

enum {
	REAP_DEAD,
	REAP_NAMED,
	REAP_IDEMPOTENCY,
	REAP_KEYS,
	REAP_SLOTS,
	REAP_MANIFESTS,
	REAP_CLOSE,
	STATEMENTS,
};

static const struct db_statement SQL[STATEMENTS] = {
	[REAP_DEAD] = {
		/* Who gets the lock of an instance knows that its session is gone. It is kept to the end of
		 * the transaction; another reaper then leaves that instance to us. */
		.name = "reap_dead", .params = 2, .columns = 10, .rows = ROWS_ANY,
		.sql = "WITH dead AS MATERIALIZED (SELECT a.instance_id FROM"
		       " (SELECT DISTINCT instance_id FROM jitrca.intent_round WHERE instance_id <> $1::int"
		       " OFFSET 0) a WHERE pg_try_advisory_xact_lock(1784, a.instance_id)),"
		       " r AS MATERIALIZED (SELECT t.items FROM jitrca.intent_round t"
		       " WHERE t.instance_id IN (SELECT instance_id FROM dead UNION SELECT $1::int)"
		       " AND (t.instance_id <> $1::int OR t.created_at < now() - interval '5 minutes')"
		       " ORDER BY t.round_id LIMIT 64 FOR UPDATE OF t SKIP LOCKED)"
		       " SELECT t.issuer_id, t.serial, " SQL_S("t.not_after") ","
		       " t.principal_id, coalesce(t.idempotency_key, ''), t.identity, t.profile,"
		       " t.spki_sha256, coalesce(t.manifest_id, ''), t.manifest_charged"
		       " FROM r CROSS JOIN LATERAL unnest(r.items) t"
		       " ORDER BY t.issuer_id, t.serial LIMIT $2::bigint",
	},
	[REAP_NAMED] = {
		/* Waits for a Record whose COMMIT is under way: after it the intent is not there. */
		.name = "reap_named", .params = 2, .columns = 10, .rows = ROWS_ANY,
		.sql = "WITH r AS MATERIALIZED (SELECT t.items FROM jitrca.intent_round t"
		       " WHERE t.serials && $2::bytea[] ORDER BY t.round_id FOR UPDATE)"
		       " SELECT t.issuer_id, t.serial, " SQL_S("t.not_after") ","
		       " t.principal_id, coalesce(t.idempotency_key, ''), t.identity, t.profile,"
		       " t.spki_sha256, coalesce(t.manifest_id, ''), t.manifest_charged"
		       " FROM r CROSS JOIN LATERAL unnest(r.items) t WHERE t.serial = ANY ($2::bytea[])"
		       " ORDER BY t.issuer_id, t.serial LIMIT $1::bigint",
	},
	[REAP_IDEMPOTENCY] = {
		.name = "reap_idempotency", .params = 4, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM jitrca.idempotency d"
		       " USING unnest($1::text[], $2::text[], $3::int[], $4::bytea[])"
		       " AS i(principal_id, key, issuer, serial) WHERE d.principal_id = i.principal_id"
		       " AND d.key = i.key AND d.issuer_id = i.issuer AND d.serial = i.serial",
	},
	[REAP_KEYS] = { /* a key that had a certificate, or is blocked, stays; a new one goes */
		.name = "reap_keys", .params = 3, .columns = 0, .rows = ROWS_NONE,
		.sql = "WITH k AS MATERIALIZED (SELECT k.spki_sha256, i.serial AS ended,"
		       " coalesce(k.serial = i.serial, true) AND k.blocked_at IS NULL AS fresh"
		       " FROM unnest($1::bytea[], $2::int[], $3::bytea[])"
		       " AS i(spki, issuer, serial) JOIN jitrca.key_claim k ON k.spki_sha256 = i.spki"
		       " AND (i.issuer, i.serial) IN"
		       " ((k.issuer_id, k.serial), (k.claim_issuer, k.claim_serial))"
		       " ORDER BY k.spki_sha256 FOR UPDATE OF k),"
		       " gone AS (DELETE FROM jitrca.key_claim c USING k"
		       " WHERE c.spki_sha256 = k.spki_sha256 AND k.fresh)"
		       " UPDATE jitrca.key_claim c SET claim_issuer = NULL, claim_serial = NULL,"
		       " issuer_id = CASE WHEN c.serial <> k.ended THEN c.issuer_id END,"
		       " serial = nullif(c.serial, k.ended) FROM k"
		       " WHERE c.spki_sha256 = k.spki_sha256 AND NOT k.fresh",
	},
	[REAP_SLOTS] = { /* a slot that holds nothing else goes, unless there is its device (device_pkey) */
		.name = "reap_slots", .params = 3, .columns = 0, .rows = ROWS_NONE,
		.sql = "WITH s AS MATERIALIZED (SELECT s.device_id, i.serial AS ended,"
		       " coalesce(s.current_serial = i.serial, true) AND s.successor_serial IS NULL"
		       " AND (SELECT d.device_id FROM jitrca.device d"
		       " WHERE d.device_id = s.device_id) IS NULL"
		       " AS bare FROM unnest($1::text[], $2::int[], $3::bytea[])"
		       " AS i(device_id, issuer, serial) JOIN jitrca.device_slot s"
		       " ON s.device_id = i.device_id AND (i.issuer, i.serial) IN"
		       " ((s.current_issuer, s.current_serial), (s.claim_issuer, s.claim_serial))"
		       " ORDER BY s.device_id FOR UPDATE OF s),"
		       " gone AS (DELETE FROM jitrca.device_slot d USING s"
		       " WHERE d.device_id = s.device_id AND s.bare)"
		       " UPDATE jitrca.device_slot d SET claim_issuer = NULL, claim_serial = NULL,"
		       " current_issuer = CASE WHEN d.current_serial <> s.ended THEN d.current_issuer END,"
		       " current_serial = nullif(d.current_serial, s.ended) FROM s"
		       " WHERE d.device_id = s.device_id AND NOT s.bare",
	},
	[REAP_MANIFESTS] = { /* lines that were charged; manifests in their order */
		.name = "reap_manifests", .params = 3, .columns = 0, .rows = ROWS_NONE,
		.sql = "WITH l AS (UPDATE jitrca.manifest_line l SET used_at = NULL, issuer_id = NULL,"
		       " serial = NULL FROM unnest($1::text[], $2::text[], $3::bytea[])"
		       " AS i(device_id, manifest_id, serial)"
		       " WHERE l.device_id = i.device_id AND l.manifest_id = i.manifest_id"
		       " AND (l.serial IS NULL OR l.serial = i.serial) AND l.used_at IS NOT NULL"
		       " RETURNING l.manifest_id),"
		       " q AS MATERIALIZED (SELECT manifest_id, count(*) AS units FROM l GROUP BY 1),"
		       " m AS MATERIALIZED (SELECT m.manifest_id FROM jitrca.manifest m"
		       " WHERE m.manifest_id IN (SELECT manifest_id FROM q)"
		       " ORDER BY m.manifest_id FOR NO KEY UPDATE)"
		       " UPDATE jitrca.manifest x SET used = x.used - q.units"
		       " FROM m JOIN q USING (manifest_id)"
		       " WHERE x.manifest_id = m.manifest_id",
	},
	[REAP_CLOSE] = { /* the rows are locked already; cessationOfOperation: it never began */
		.name = "reap_close", .params = 1, .columns = 0, .rows = ROWS_NONE,
		.sql = "WITH r AS MATERIALIZED (SELECT t.round_id, t.items FROM jitrca.intent_round t"
		       " WHERE t.serials && $1::bytea[] ORDER BY t.round_id FOR UPDATE),"
		       INTENT_TAKE("$1::bytea[]")
		       " INSERT INTO jitrca.revocation (issuer_id, serial, reason, revoked_at, not_after)"
		       " SELECT (u.item).issuer_id, u.serial, 5, date_trunc('second', now()),"
		       " (u.item).not_after FROM u WHERE u.mine ON CONFLICT DO NOTHING",
	},
};

const struct db_table DB_TABLE_REAP = { SQL, COUNT_OF(SQL) };

static const enum column TAKES[STATEMENTS][BATCH_COLUMNS_MAX] = {
	[REAP_IDEMPOTENCY] = { COL_PRINCIPAL, COL_IDEMPOTENCY_KEY, COL_ISSUER, COL_SERIAL },
	[REAP_KEYS] = { COL_SPKI, COL_ISSUER, COL_SERIAL },
	[REAP_SLOTS] = { COL_IDENTITY, COL_ISSUER, COL_SERIAL },
	[REAP_MANIFESTS] = { COL_IDENTITY, COL_MANIFEST, COL_SERIAL },
	[REAP_CLOSE] = { COL_SERIAL },
};

static enum status
run_over(struct batch *b, size_t statement, PGresult **rows, struct err *err)
{
	return batch_run(b, &SQL[statement], TAKES[statement], rows, err);
}

/* What the reaper reads beside what it tells. */
struct intent {
	char principal_id[DB_ID_BYTES];
	char key[4 * 255 + 1];
};
typedef struct intent intent;
OWNER(intent, mem_free)
typedef struct db_cert_ref cert_ref;
OWNER(cert_ref, mem_free)

/* Reads the intents that a statement found into b, whose texts are those of out. */
static enum status
reap_read(struct batch *b, const PGresult *rows, struct db_orphan *out, struct intent *intents,
	struct err *err)
{
	for (size_t i = 0; i < b->count; i++) {
		struct db_row row = db_row(rows, (int)i);
		struct db_admit_item *item = &b->items[i];

		db_row_ref(&row, &item->ref);
		item->not_after_s = db_row_int64(&row);
		db_row_text(&row, intents[i].principal_id, DB_ID_BYTES);
		db_row_text(&row, intents[i].key, sizeof(intents[i].key));
		db_row_text(&row, out[i].identity, DB_ID_BYTES);
		db_row_text(&row, out[i].profile, DB_PROFILE_BYTES);
		(void)db_row_octets(&row, item->spki_sha256, DB_SHA256_BYTES);
		db_row_text(&row, item->manifest_id, DB_ID_BYTES);
		item->manifest_charged = db_row_bool(&row);
		TRY(db_row_end(&row, err));
		item->principal_id = intents[i].principal_id;
		item->idempotency_key = intents[i].key;
		item->identity = out[i].identity;
		item->profile = out[i].profile;
		out[i].ref = item->ref;
	}
	return batch_prepare(b, err);
}

static enum status
reap_find(struct db_tx *tx, int32_t own_instance_id, const struct db_cert_ref *refs, size_t ref_count,
	size_t max, PGresult **rows, struct err *err)
{
	own_struct(db_array) serials = DB_ARRAY(ARRAY_BYTEA);

	if (refs == NULL)
		return db_run(tx, &SQL[REAP_DEAD], DB_PARAMS(db_int64(own_instance_id),
			db_int64((int64_t)max)), rows, err);
	for (size_t i = 0; i < ref_count; i++)
		TRY(db_array_add_serial(&serials, &refs[i].serial, err));
	return db_run(tx, &SQL[REAP_NAMED], DB_PARAMS(db_int64((int64_t)max), db_array(&serials)), rows,
		err);
}

enum status
db_issuance_reap(struct db_tx *tx, int32_t own_instance_id, const struct db_cert_ref *refs,
	size_t ref_count, struct db_orphan *out, size_t max, size_t *count, struct err *err)
{
	own(PGresult) rows = NULL;
	own(intent) intents = NULL;
	own(cert_ref) closed = NULL;
	own_struct(batch) b = { .tx = tx };

	*count = 0;
	TRY(reap_find(tx, own_instance_id, refs, ref_count, max, &rows, err));
	b.count = (size_t)db_rows(rows);
	if (b.count == 0)
		return OK;
	intents = mem_array(b.count, sizeof(*intents));
	closed = mem_array(b.count, sizeof(*closed));
	b.items = b.found = mem_array(b.count, sizeof(*b.items));
	if (intents == NULL || closed == NULL || b.items == NULL)
		return err_memory(err);
	TRY(reap_read(&b, rows, out, intents, err));

	batch_pick_none(&b);
	for (size_t i = 0; i < b.count; i++)
		if (batch_has_key(&b.items[i]))
			batch_pick(&b, i);
	TRY(run_over(&b, REAP_IDEMPOTENCY, NULL, err));
	batch_pick_all(&b);
	TRY(run_over(&b, REAP_KEYS, NULL, err));
	TRY(run_over(&b, REAP_SLOTS, NULL, err));
	batch_pick_none(&b);
	for (size_t i = 0; i < b.count; i++)
		if (b.items[i].manifest_charged)
			batch_pick(&b, i);
	TRY(run_over(&b, REAP_MANIFESTS, NULL, err));
	batch_pick_all(&b);
	TRY(run_over(&b, REAP_CLOSE, NULL, err));
	for (size_t i = 0; i < b.count; i++)
		closed[i] = b.items[i].ref;
	TRY(db_revocation_mark(tx, closed, b.count, err));
	*count = b.count;
	return OK;
}
