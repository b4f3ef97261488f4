#include "db/issuance.h"

#include <assert.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "db/revocation.h"
#include "db/run.h"

/*
 * How it stays right with several servers at once.
 *
 * Each claim is a row that only one transaction can insert (the unique index makes the others wait),
 * or a row that was there and is locked. What is decided is read in a statement of its own after the
 * lock: under READ COMMITTED only a new statement sees what the one that we waited for has written.
 * Rows are locked in the order of issuance.h, and in each table by key, so two batches never wait for
 * each other in a ring. Record and the reaper begin with the intent, whose rows Admit only inserts.
 *
 * claim_serial of a key or a slot is set exactly as long as the intent is open: Record and the reaper
 * take it away in the transaction that deletes the intent.
 */

enum {
	ADMIT_WHO,
	ADMIT_IDEMPOTENCY_CLAIM,
	ADMIT_IDEMPOTENCY_READ,
	ADMIT_KEY_CLAIM,
	ADMIT_KEY_LOCK,
	ADMIT_KEY_STATE,
	ADMIT_SLOT_CLAIM,
	ADMIT_SLOT_LOCK,
	ADMIT_SLOT_STATE,
	ADMIT_LINES,
	ADMIT_MANIFEST_LOCK,
	ADMIT_STATION_LOCK,
	ADMIT_RECLAIM,
	ADMIT_CHARGE,
	ADMIT_INTENT,
	ADMIT_IDEMPOTENCY_POINT,
	ADMIT_IDEMPOTENCY_UNDO,
	ADMIT_KEY_UNDO,
	ADMIT_SLOT_UNDO,
	RECORD_CLOSE,
	RECORD_CERTIFICATES,
	RECORD_KEYS,
	RECORD_DEVICE_LOCK,
	RECORD_SLOT_LOCK,
	RECORD_DEVICES,
	RECORD_DEVICES_TOUCH,
	RECORD_SLOTS,
	RECORD_LINES,
	RECORD_POINTERS,
	RECORD_OUTBOX,
	REAP_DEAD,
	REAP_NAMED,
	REAP_IDEMPOTENCY,
	REAP_KEYS,
	REAP_SLOTS,
	REAP_MANIFESTS,
	REAP_CLOSE,
	ENSURE_MONTH,
	STATEMENTS,
};

/* The row of a certificate, found in the one partition that its serial names (OFFSET 0: never joined
 * by reading the table). */
#define CERTIFICATE_OF(issuer, serial_of, alias)                                                   \
	" LEFT JOIN LATERAL (SELECT c.status, c.not_after > now() AS lasts FROM jitrca.certificate c"  \
	" WHERE c.expiry_month = jitrca.serial_month(" serial_of ") AND c.issuer_id = " issuer         \
	" AND c.serial = " serial_of " OFFSET 0) " alias " ON true"

/* Whether a manifest may be used now: o open, n not yet valid, x expired, c closed. */
#define MANIFEST_STATE                                                                             \
	"CASE WHEN m.closed_at IS NOT NULL THEN 'c' WHEN now() < m.not_before THEN 'n'"                \
	" WHEN now() >= m.not_after THEN 'x' ELSE 'o' END"

/* A minute's worth, and never less than one full batch. */
#define BUCKET_NOW                                                                                 \
	"least(greatest(1000, s.rate_per_minute), s.bucket + s.rate_per_minute / 60.0 *"               \
	" greatest(0, extract(epoch FROM clock_timestamp() - s.bucket_at)))::float8"

static const struct db_statement SQL[STATEMENTS] = {
	[ADMIT_WHO] = { /* principal_pkey, station_pkey */
		.name = "admit_who", .params = 4, .columns = 7, .rows = ROWS_ANY,
		.sql = "SELECT i.idx, a.principal_id IS NOT NULL, a.disabled_at IS NOT NULL,"
		       " s.principal_id IS NOT NULL, coalesce(i.profile = ANY (s.profiles), false),"
		       " coalesce(n.role, ''), n.disabled_at IS NOT NULL"
		       " FROM unnest($1::int[], $2::text[], $3::text[], $4::text[])"
		       " AS i(idx, asker, profile, named)"
		       " LEFT JOIN jitrca.principal a ON a.principal_id = i.asker"
		       " LEFT JOIN jitrca.station s ON s.principal_id = i.asker"
		       " LEFT JOIN jitrca.principal n ON n.principal_id = i.named",
	},
	[ADMIT_IDEMPOTENCY_CLAIM] = {
		.name = "admit_idempotency_claim", .params = 5, .columns = 1, .rows = ROWS_ANY,
		.sql = "INSERT INTO jitrca.idempotency (principal_id, key, request_hash, issuer_id, serial)"
		       " SELECT * FROM unnest($1::text[], $2::text[], $3::bytea[], $4::int[], $5::bytea[])"
		       " AS i(principal_id, key, hash, issuer, serial)"
		       " ORDER BY i.principal_id COLLATE \"C\", i.key COLLATE \"C\""
		       " ON CONFLICT DO NOTHING RETURNING serial",
	},
	[ADMIT_IDEMPOTENCY_READ] = { /* idempotency_pkey, intent_pkey */
		.name = "admit_idempotency_read", .params = 3, .columns = 5, .rows = ROWS_ANY,
		.sql = "SELECT i.idx, d.request_hash, d.issuer_id, d.serial, t.serial IS NOT NULL"
		       " FROM unnest($1::int[], $2::text[], $3::text[]) AS i(idx, principal_id, key)"
		       " JOIN jitrca.idempotency d ON d.principal_id = i.principal_id AND d.key = i.key"
		       " LEFT JOIN jitrca.intent t ON t.issuer_id = d.issuer_id AND t.serial = d.serial",
	},
	[ADMIT_KEY_CLAIM] = {
		.name = "admit_key_claim", .params = 5, .columns = 1, .rows = ROWS_ANY,
		.sql = "INSERT INTO jitrca.key_claim"
		       " (spki_sha256, identity, profile, claim_issuer, claim_serial)"
		       " SELECT * FROM unnest($1::bytea[], $2::text[], $3::text[], $4::int[], $5::bytea[])"
		       " AS i(spki, identity, profile, issuer, serial)"
		       " ORDER BY i.spki ON CONFLICT DO NOTHING RETURNING claim_serial",
	},
	[ADMIT_KEY_LOCK] = { /* key_claim_pkey */
		.name = "admit_key_lock", .params = 2, .columns = 7, .rows = ROWS_ANY,
		.sql = "SELECT i.idx, k.identity, k.profile, k.blocked_at IS NOT NULL,"
		       " k.claim_serial IS NOT NULL, k.issuer_id, k.serial"
		       " FROM unnest($1::int[], $2::bytea[]) AS i(idx, spki)"
		       " JOIN jitrca.key_claim k ON k.spki_sha256 = i.spki"
		       " ORDER BY k.spki_sha256 FOR NO KEY UPDATE OF k",
	},
	[ADMIT_KEY_STATE] = { /* certificate_pkey, one partition each */
		.name = "admit_key_state", .params = 3, .columns = 3, .rows = ROWS_ANY,
		.sql = "SELECT i.idx, c.status, coalesce(c.lasts, false)"
		       " FROM unnest($1::int[], $2::int[], $3::bytea[]) AS i(idx, issuer, serial)"
		       CERTIFICATE_OF("i.issuer", "i.serial", "c"),
	},
	[ADMIT_SLOT_CLAIM] = {
		.name = "admit_slot_claim", .params = 3, .columns = 1, .rows = ROWS_ANY,
		.sql = "INSERT INTO jitrca.device_slot (device_id, claim_issuer, claim_serial)"
		       " SELECT * FROM unnest($1::text[], $2::int[], $3::bytea[])"
		       " AS i(device_id, issuer, serial)"
		       " ORDER BY i.device_id COLLATE \"C\" ON CONFLICT DO NOTHING RETURNING claim_serial",
	},
	[ADMIT_SLOT_LOCK] = { /* device_slot_pkey */
		.name = "admit_slot_lock", .params = 2, .columns = 2, .rows = ROWS_ANY,
		.sql = "SELECT i.idx, s.claim_serial IS NOT NULL"
		       " FROM unnest($1::int[], $2::text[]) AS i(idx, device_id)"
		       " JOIN jitrca.device_slot s ON s.device_id = i.device_id"
		       " ORDER BY s.device_id FOR NO KEY UPDATE OF s",
	},
	[ADMIT_SLOT_STATE] = { /* device_slot_pkey, device_pkey, certificate_pkey */
		.name = "admit_slot_state", .params = 2, .columns = 11, .rows = ROWS_ANY,
		.sql = "SELECT i.idx, coalesce(d.status, ''), coalesce(d.version, 0),"
		       " s.current_issuer, s.current_serial,"
		       " cur.status, coalesce(cur.lasts, false),"
		       " s.successor_issuer, s.successor_serial,"
		       " suc.status, coalesce(suc.lasts, false)"
		       " FROM unnest($1::int[], $2::text[]) AS i(idx, device_id)"
		       " JOIN jitrca.device_slot s ON s.device_id = i.device_id"
		       " LEFT JOIN jitrca.device d ON d.device_id = i.device_id"
		       CERTIFICATE_OF("s.current_issuer", "s.current_serial", "cur")
		       CERTIFICATE_OF("s.successor_issuer", "s.successor_serial", "suc"),
	},
	[ADMIT_LINES] = { /* manifest_line_pkey, manifest_pkey */
		.name = "admit_lines", .params = 4, .columns = 4, .rows = ROWS_ANY,
		.sql = "SELECT i.idx, l.manifest_id, l.used_at IS NOT NULL, " MANIFEST_STATE
		       " FROM unnest($1::int[], $2::text[], $3::text[], $4::text[])"
		       " AS i(idx, station, profile, device_id)"
		       " JOIN jitrca.manifest_line l ON l.device_id = i.device_id"
		       " JOIN jitrca.manifest m ON m.manifest_id = l.manifest_id"
		       " AND m.station_id = i.station AND m.profile = i.profile"
		       " ORDER BY i.idx, l.manifest_id",
	},
	[ADMIT_MANIFEST_LOCK] = { /* manifest_pkey */
		.name = "admit_manifest_lock", .params = 1, .columns = 4, .rows = ROWS_ANY,
		.sql = "SELECT m.manifest_id, m.quantity - m.used, m.allow_replace, " MANIFEST_STATE
		       " FROM jitrca.manifest m WHERE m.manifest_id = ANY ($1::text[])"
		       " ORDER BY m.manifest_id FOR NO KEY UPDATE",
	},
	[ADMIT_STATION_LOCK] = { /* station_pkey */
		.name = "admit_station_lock", .params = 1, .columns = 3, .rows = ROWS_ANY,
		.sql = "SELECT s.principal_id, floor(" BUCKET_NOW " * 1000)::bigint, s.rate_per_minute"
		       " FROM jitrca.station s WHERE s.principal_id = ANY ($1::text[])"
		       " ORDER BY s.principal_id FOR NO KEY UPDATE",
	},
	[ADMIT_RECLAIM] = { /* the rows are locked already; those inserted by this call are not touched */
		.name = "admit_reclaim", .params = 5, .columns = 0, .rows = ROWS_NONE,
		.sql = "WITH i AS MATERIALIZED (SELECT * FROM"
		       " unnest($1::int[], $2::bytea[], $3::bytea[], $4::text[], $5::bool[])"
		       " AS i(issuer, serial, spki, identity, of_device)),"
		       " keys AS (UPDATE jitrca.key_claim k SET claim_issuer = i.issuer,"
		       " claim_serial = i.serial FROM i"
		       " WHERE k.spki_sha256 = i.spki AND k.claim_serial IS NULL)"
		       " UPDATE jitrca.device_slot s SET claim_issuer = i.issuer, claim_serial = i.serial"
		       " FROM i WHERE i.of_device AND s.device_id = i.identity AND s.claim_serial IS NULL",
	},
	[ADMIT_CHARGE] = { /* manifests and stations are locked already, lines behind their device's slot */
		.name = "admit_charge", .params = 4, .columns = 1, .rows = ROWS_ONE,
		.sql = "WITH i AS MATERIALIZED (SELECT * FROM"
		       " unnest($1::text[], $2::text[], $3::text[], $4::bool[])"
		       " AS i(identity, station, manifest_id, charged)),"
		       " manifests AS (UPDATE jitrca.manifest m SET used = m.used + q.units FROM"
		       " (SELECT i.manifest_id, count(*) AS units FROM i WHERE i.charged GROUP BY 1) q"
		       " WHERE m.manifest_id = q.manifest_id),"
		       " stations AS (UPDATE jitrca.station s SET bucket = " BUCKET_NOW " - q.units,"
		       " bucket_at = clock_timestamp() FROM"
		       " (SELECT i.station, count(*) AS units FROM i GROUP BY 1) q"
		       " WHERE s.principal_id = q.station),"
		       " lines AS (UPDATE jitrca.manifest_line l SET used_at = now() FROM i WHERE i.charged"
		       " AND l.device_id = i.identity AND l.manifest_id = i.manifest_id"
		       " AND l.used_at IS NULL RETURNING 1)"
		       " SELECT count(*) FROM lines",
	},
	[ADMIT_INTENT] = {
		.name = "admit_intent", .params = 11, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO jitrca.intent (issuer_id, serial, instance_id, not_after, principal_id,"
		       " idempotency_key, identity, profile, spki_sha256, manifest_id, manifest_charged)"
		       " SELECT i.issuer, i.serial, i.instance_id, to_timestamp(i.not_after), i.principal_id,"
		       " nullif(i.key, ''), i.identity, i.profile, i.spki, nullif(i.manifest_id, ''),"
		       " i.charged FROM unnest($1::int[], $2::int[], $3::bytea[], $4::bigint[], $5::text[],"
		       " $6::text[], $7::text[], $8::text[], $9::bytea[], $10::text[], $11::bool[])"
		       " AS i(instance_id, issuer, serial, not_after, principal_id, key, identity,"
		       " profile, spki, manifest_id, charged)",
	},
	[ADMIT_IDEMPOTENCY_POINT] = { /* rows of this call */
		.name = "admit_idempotency_point", .params = 4, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE jitrca.idempotency d SET issuer_id = i.issuer, serial = i.serial"
		       " FROM unnest($1::text[], $2::text[], $3::int[], $4::bytea[])"
		       " AS i(principal_id, key, issuer, serial)"
		       " WHERE d.principal_id = i.principal_id AND d.key = i.key",
	},
	[ADMIT_IDEMPOTENCY_UNDO] = { /* rows of this call */
		.name = "admit_idempotency_undo", .params = 3, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM jitrca.idempotency d USING unnest($1::text[], $2::text[], $3::bytea[])"
		       " AS i(principal_id, key, serial) WHERE d.principal_id = i.principal_id"
		       " AND d.key = i.key AND d.serial = i.serial",
	},
	[ADMIT_KEY_UNDO] = { /* rows of this call */
		.name = "admit_key_undo", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM jitrca.key_claim k USING unnest($1::bytea[], $2::bytea[])"
		       " AS i(spki, serial) WHERE k.spki_sha256 = i.spki AND k.claim_serial = i.serial",
	},
	[ADMIT_SLOT_UNDO] = { /* rows of this call */
		.name = "admit_slot_undo", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM jitrca.device_slot s USING unnest($1::text[], $2::bytea[])"
		       " AS i(device_id, serial) WHERE s.device_id = i.device_id"
		       " AND s.claim_serial = i.serial",
	},
	[RECORD_CLOSE] = { /* intent_pkey */
		.name = "record_close", .params = 2, .columns = 1, .rows = ROWS_ANY,
		.sql = "DELETE FROM jitrca.intent t USING unnest($1::int[], $2::bytea[])"
		       " AS i(issuer, serial) WHERE t.issuer_id = i.issuer AND t.serial = i.serial"
		       " RETURNING t.serial",
	},
	[RECORD_CERTIFICATES] = {
		.name = "record_certificates", .params = 18, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO jitrca.certificate (expiry_month, issuer_id, serial, status, profile,"
		       " device_id, of_device, subject, principal_id, manifest_id, not_before, not_after,"
		       " issued_at, sha256, spki_sha256, predecessor_issuer, predecessor_serial,"
		       " status_at, der)"
		       " SELECT jitrca.serial_month(i.serial), i.issuer, i.serial,"
		       " CASE WHEN i.is_successor THEN 'pending_confirmation' ELSE 'active' END,"
		       " i.profile, i.identity, i.of_device, i.subject, i.principal_id,"
		       " nullif(i.manifest_id, ''), to_timestamp(i.not_before), to_timestamp(i.not_after),"
		       " to_timestamp(i.issued_at), i.sha256, i.spki, nullif(i.pred_issuer, 0),"
		       " CASE WHEN i.pred_issuer <> 0 THEN i.pred_serial END,"
		       " to_timestamp(i.issued_at), i.der"
		       " FROM unnest($1::int[], $2::bytea[], $3::bool[], $4::text[], $5::text[], $6::bool[],"
		       " $7::text[], $8::text[], $9::text[], $10::bigint[], $11::bigint[], $12::bigint[],"
		       " $13::bytea[], $14::bytea[], $15::int[], $16::bytea[], $17::bytea[], $18::int[])"
		       " AS i(issuer, serial, is_successor, profile, identity, of_device, subject,"
		       " principal_id, manifest_id, not_before, not_after, issued_at, sha256, spki,"
		       " pred_issuer, pred_serial, der, idx) ORDER BY i.idx",
	},
	[RECORD_KEYS] = { /* the rows exist; the upsert locks them in order */
		.name = "record_keys", .params = 5, .columns = 2, .rows = ROWS_ANY,
		.sql = "INSERT INTO jitrca.key_claim AS k"
		       " (spki_sha256, identity, profile, issuer_id, serial)"
		       " SELECT * FROM unnest($1::bytea[], $2::text[], $3::text[], $4::int[], $5::bytea[])"
		       " AS i(spki, identity, profile, issuer, serial) ORDER BY i.spki"
		       " ON CONFLICT (spki_sha256) DO UPDATE SET issuer_id = EXCLUDED.issuer_id,"
		       " serial = EXCLUDED.serial, claim_issuer = NULL, claim_serial = NULL"
		       " RETURNING k.serial, k.blocked_at IS NOT NULL",
	},
	[RECORD_DEVICE_LOCK] = { /* device_pkey */
		.name = "record_device_lock", .params = 1, .columns = 1, .rows = ROWS_ANY,
		.sql = "SELECT d.device_id FROM jitrca.device d WHERE d.device_id = ANY ($1::text[])"
		       " ORDER BY d.device_id FOR NO KEY UPDATE",
	},
	[RECORD_SLOT_LOCK] = { /* device_slot_pkey */
		.name = "record_slot_lock", .params = 2, .columns = 5, .rows = ROWS_ANY,
		.sql = "SELECT i.idx, s.current_issuer, s.current_serial,"
		       " s.successor_issuer, s.successor_serial"
		       " FROM unnest($1::int[], $2::text[]) AS i(idx, device_id)"
		       " JOIN jitrca.device_slot s ON s.device_id = i.device_id"
		       " ORDER BY s.device_id FOR NO KEY UPDATE OF s",
	},
	[RECORD_DEVICES] = {
		/* version carries the decommissioned version that becomes active again, else 1: no
		 * decommissioned device has version 1. */
		.name = "record_devices", .params = 4, .columns = 2, .rows = ROWS_ANY,
		.sql = "INSERT INTO jitrca.device AS d (device_id, thing_type, attributes, version)"
		       " SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[])"
		       " AS i(device_id, thing_type, attributes, version) ORDER BY i.device_id COLLATE \"C\""
		       " ON CONFLICT (device_id) DO UPDATE SET thing_type = EXCLUDED.thing_type,"
		       " attributes = EXCLUDED.attributes, version = d.version + 1, updated_at = now(),"
		       " reason = CASE WHEN d.status = 'decommissioned' AND d.version = EXCLUDED.version"
		       " THEN '' ELSE d.reason END,"
		       " status = CASE WHEN d.status = 'decommissioned' AND d.version = EXCLUDED.version"
		       " THEN 'active' ELSE d.status END"
		       " RETURNING d.device_id, d.status = 'decommissioned'",
	},
	[RECORD_DEVICES_TOUCH] = { /* the rows are locked already */
		.name = "record_devices_touch", .params = 1, .columns = 2, .rows = ROWS_ANY,
		.sql = "UPDATE jitrca.device d SET version = d.version + 1, updated_at = now()"
		       " WHERE d.device_id = ANY ($1::text[])"
		       " RETURNING d.device_id, d.status = 'decommissioned'",
	},
	[RECORD_SLOTS] = { /* the rows exist; the upsert locks them in order */
		.name = "record_slots", .params = 4, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO jitrca.device_slot AS s (device_id, current_issuer, current_serial,"
		       " successor_issuer, successor_serial)"
		       " SELECT i.device_id, CASE WHEN NOT i.is_successor THEN i.issuer END,"
		       " CASE WHEN NOT i.is_successor THEN i.serial END,"
		       " CASE WHEN i.is_successor THEN i.issuer END,"
		       " CASE WHEN i.is_successor THEN i.serial END"
		       " FROM unnest($1::text[], $2::bool[], $3::int[], $4::bytea[])"
		       " AS i(device_id, is_successor, issuer, serial) ORDER BY i.device_id COLLATE \"C\""
		       " ON CONFLICT (device_id) DO UPDATE SET"
		       " current_issuer = coalesce(EXCLUDED.current_issuer, s.current_issuer),"
		       " current_serial = coalesce(EXCLUDED.current_serial, s.current_serial),"
		       " successor_issuer = EXCLUDED.successor_issuer,"
		       " successor_serial = EXCLUDED.successor_serial,"
		       " claim_issuer = NULL, claim_serial = NULL",
	},
	[RECORD_LINES] = { /* manifest_line_pkey */
		.name = "record_lines", .params = 4, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE jitrca.manifest_line l SET issuer_id = i.issuer, serial = i.serial,"
		       " used_at = coalesce(l.used_at, now())"
		       " FROM unnest($1::text[], $2::text[], $3::int[], $4::bytea[])"
		       " AS i(device_id, manifest_id, issuer, serial)"
		       " WHERE l.device_id = i.device_id AND l.manifest_id = i.manifest_id",
	},
	[RECORD_POINTERS] = { /* certificate_pkey, one partition each; behind the device's slot */
		.name = "record_pointers", .params = 4, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE jitrca.certificate c SET successor_issuer = i.issuer,"
		       " successor_serial = i.serial"
		       " FROM unnest($1::int[], $2::bytea[], $3::int[], $4::bytea[])"
		       " AS i(issuer, serial, pred_issuer, pred_serial)"
		       " WHERE c.expiry_month = jitrca.serial_month(i.pred_serial)"
		       " AND c.issuer_id = i.pred_issuer AND c.serial = i.pred_serial",
	},
	[RECORD_OUTBOX] = {
		.name = "record_outbox", .params = 1, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO jitrca.outbox (device_id, version, cause)"
		       " SELECT d.device_id, d.version, 'issued' FROM jitrca.device d"
		       " WHERE d.device_id = ANY ($1::text[]) ORDER BY d.device_id"
		       " ON CONFLICT (device_id) DO UPDATE SET version = EXCLUDED.version,"
		       " cause = EXCLUDED.cause",
	},
	[REAP_DEAD] = {
		/* Who gets the lock of an instance knows that its session is gone. It is kept to the end of
		 * the transaction; another reaper then leaves that instance to us. */
		.name = "reap_dead", .params = 2, .columns = 10, .rows = ROWS_ANY,
		.sql = "WITH dead AS MATERIALIZED (SELECT a.instance_id FROM"
		       " (SELECT DISTINCT instance_id FROM jitrca.intent WHERE instance_id <> $1::int"
		       " OFFSET 0) a WHERE pg_try_advisory_xact_lock(1784, a.instance_id))"
		       " SELECT t.issuer_id, t.serial, " SQL_S("t.not_after") ","
		       " t.principal_id, coalesce(t.idempotency_key, ''), t.identity, t.profile,"
		       " t.spki_sha256, coalesce(t.manifest_id, ''), t.manifest_charged"
		       " FROM jitrca.intent t"
		       " WHERE t.instance_id IN (SELECT instance_id FROM dead UNION SELECT $1::int)"
		       " AND (t.instance_id <> $1::int OR t.created_at < now() - interval '5 minutes')"
		       " ORDER BY t.issuer_id, t.serial LIMIT $2::bigint FOR UPDATE OF t SKIP LOCKED",
	},
	[REAP_NAMED] = {
		/* Waits for a Record whose COMMIT is under way: after it the intent is not there. */
		.name = "reap_named", .params = 3, .columns = 10, .rows = ROWS_ANY,
		.sql = "SELECT t.issuer_id, t.serial, " SQL_S("t.not_after") ","
		       " t.principal_id, coalesce(t.idempotency_key, ''), t.identity, t.profile,"
		       " t.spki_sha256, coalesce(t.manifest_id, ''), t.manifest_charged"
		       " FROM unnest($2::int[], $3::bytea[]) AS i(issuer, serial)"
		       " JOIN jitrca.intent t ON t.issuer_id = i.issuer AND t.serial = i.serial"
		       " ORDER BY t.issuer_id, t.serial LIMIT $1::bigint FOR UPDATE OF t",
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
		.sql = "WITH k AS MATERIALIZED (SELECT k.spki_sha256, k.serial IS NULL AND"
		       " k.blocked_at IS NULL AS fresh FROM unnest($1::bytea[], $2::int[], $3::bytea[])"
		       " AS i(spki, issuer, serial) JOIN jitrca.key_claim k ON k.spki_sha256 = i.spki"
		       " AND k.claim_issuer = i.issuer AND k.claim_serial = i.serial"
		       " ORDER BY k.spki_sha256 FOR UPDATE OF k),"
		       " gone AS (DELETE FROM jitrca.key_claim c USING k"
		       " WHERE c.spki_sha256 = k.spki_sha256 AND k.fresh)"
		       " UPDATE jitrca.key_claim c SET claim_issuer = NULL, claim_serial = NULL FROM k"
		       " WHERE c.spki_sha256 = k.spki_sha256 AND NOT k.fresh",
	},
	[REAP_SLOTS] = { /* a slot that holds nothing else means nothing */
		.name = "reap_slots", .params = 3, .columns = 0, .rows = ROWS_NONE,
		.sql = "WITH s AS MATERIALIZED (SELECT s.device_id, s.current_serial IS NULL AND"
		       " s.successor_serial IS NULL AS bare FROM unnest($1::text[], $2::int[], $3::bytea[])"
		       " AS i(device_id, issuer, serial) JOIN jitrca.device_slot s"
		       " ON s.device_id = i.device_id AND s.claim_issuer = i.issuer"
		       " AND s.claim_serial = i.serial ORDER BY s.device_id FOR UPDATE OF s),"
		       " gone AS (DELETE FROM jitrca.device_slot d USING s"
		       " WHERE d.device_id = s.device_id AND s.bare)"
		       " UPDATE jitrca.device_slot d SET claim_issuer = NULL, claim_serial = NULL FROM s"
		       " WHERE d.device_id = s.device_id AND NOT s.bare",
	},
	[REAP_MANIFESTS] = { /* $1, $2: lines that were charged; manifests in their order */
		.name = "reap_manifests", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "WITH l AS (UPDATE jitrca.manifest_line l SET used_at = NULL"
		       " FROM unnest($1::text[], $2::text[]) AS i(device_id, manifest_id)"
		       " WHERE l.device_id = i.device_id AND l.manifest_id = i.manifest_id"
		       " AND l.serial IS NULL AND l.used_at IS NOT NULL RETURNING l.manifest_id),"
		       " q AS MATERIALIZED (SELECT manifest_id, count(*) AS units FROM l GROUP BY 1),"
		       " m AS MATERIALIZED (SELECT m.manifest_id FROM jitrca.manifest m"
		       " WHERE m.manifest_id IN (SELECT manifest_id FROM q)"
		       " ORDER BY m.manifest_id FOR NO KEY UPDATE)"
		       " UPDATE jitrca.manifest x SET used = x.used - q.units"
		       " FROM m JOIN q USING (manifest_id)"
		       " WHERE x.manifest_id = m.manifest_id",
	},
	[REAP_CLOSE] = { /* the rows are locked already; cessationOfOperation: it never began */
		.name = "reap_close", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "WITH t AS (DELETE FROM jitrca.intent t USING unnest($1::int[], $2::bytea[])"
		       " AS i(issuer, serial) WHERE t.issuer_id = i.issuer AND t.serial = i.serial"
		       " RETURNING t.issuer_id, t.serial, t.not_after)"
		       " INSERT INTO jitrca.revocation (issuer_id, serial, reason, revoked_at, not_after)"
		       " SELECT t.issuer_id, t.serial, 5, date_trunc('second', now()), t.not_after"
		       " FROM t ON CONFLICT DO NOTHING",
	},
	[ENSURE_MONTH] = {
		.name = "ensure_month", .params = 1, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT jitrca.ensure_month($1::int)",
	},
};

const struct db_table DB_TABLE_ISSUANCE = { SQL, COUNT_OF(SQL) };

/* What the arrays of a statement are made of, one entry per item. */
enum column {
	COL_END = 0,
	COL_INDEX,
	COL_INSTANCE,
	COL_PRINCIPAL,
	COL_ASKER, /* the principal; empty when the device itself asks */
	COL_NAMED, /* the identity where it must be a principal; else empty */
	COL_IDEMPOTENCY_KEY,
	COL_REQUEST_HASH,
	COL_ISSUER,
	COL_SERIAL,
	COL_NOT_AFTER,
	COL_IDENTITY,
	COL_PROFILE,
	COL_SPKI,
	COL_OF_DEVICE,
	COL_IS_SUCCESSOR,
	COL_MANIFEST,
	COL_CHARGED,
	COL_EXISTING_ISSUER,
	COL_EXISTING_SERIAL,
	COL_KEY_ISSUER, /* the key's last certificate */
	COL_KEY_SERIAL,
	COL_THING_TYPE,
	COL_ATTRIBUTES,
	COL_REVIVES,
	COL_DER,
	COL_SHA256,
	COL_SUBJECT,
	COL_NOT_BEFORE,
	COL_ISSUED_AT,
	COL_PREDECESSOR_ISSUER,
	COL_PREDECESSOR_SERIAL,
};

/* Which columns a statement over items takes, in the order of its parameters. */
static const enum column TAKES[STATEMENTS][20] = {
	[ADMIT_WHO] = { COL_INDEX, COL_ASKER, COL_PROFILE, COL_NAMED },
	[ADMIT_IDEMPOTENCY_CLAIM] = { COL_PRINCIPAL, COL_IDEMPOTENCY_KEY, COL_REQUEST_HASH, COL_ISSUER,
		COL_SERIAL },
	[ADMIT_IDEMPOTENCY_READ] = { COL_INDEX, COL_PRINCIPAL, COL_IDEMPOTENCY_KEY },
	[ADMIT_KEY_CLAIM] = { COL_SPKI, COL_IDENTITY, COL_PROFILE, COL_ISSUER, COL_SERIAL },
	[ADMIT_KEY_LOCK] = { COL_INDEX, COL_SPKI },
	[ADMIT_KEY_STATE] = { COL_INDEX, COL_KEY_ISSUER, COL_KEY_SERIAL },
	[ADMIT_SLOT_CLAIM] = { COL_IDENTITY, COL_ISSUER, COL_SERIAL },
	[ADMIT_SLOT_LOCK] = { COL_INDEX, COL_IDENTITY },
	[ADMIT_SLOT_STATE] = { COL_INDEX, COL_IDENTITY },
	[ADMIT_LINES] = { COL_INDEX, COL_PRINCIPAL, COL_PROFILE, COL_IDENTITY },
	[ADMIT_RECLAIM] = { COL_ISSUER, COL_SERIAL, COL_SPKI, COL_IDENTITY, COL_OF_DEVICE },
	[ADMIT_CHARGE] = { COL_IDENTITY, COL_PRINCIPAL, COL_MANIFEST, COL_CHARGED },
	[ADMIT_INTENT] = { COL_INSTANCE, COL_ISSUER, COL_SERIAL, COL_NOT_AFTER, COL_PRINCIPAL,
		COL_IDEMPOTENCY_KEY, COL_IDENTITY, COL_PROFILE, COL_SPKI, COL_MANIFEST, COL_CHARGED },
	[ADMIT_IDEMPOTENCY_POINT] = { COL_PRINCIPAL, COL_IDEMPOTENCY_KEY, COL_EXISTING_ISSUER,
		COL_EXISTING_SERIAL },
	[ADMIT_IDEMPOTENCY_UNDO] = { COL_PRINCIPAL, COL_IDEMPOTENCY_KEY, COL_SERIAL },
	[ADMIT_KEY_UNDO] = { COL_SPKI, COL_SERIAL },
	[ADMIT_SLOT_UNDO] = { COL_IDENTITY, COL_SERIAL },
	[RECORD_CLOSE] = { COL_ISSUER, COL_SERIAL },
	[RECORD_CERTIFICATES] = { COL_ISSUER, COL_SERIAL, COL_IS_SUCCESSOR, COL_PROFILE, COL_IDENTITY,
		COL_OF_DEVICE, COL_SUBJECT, COL_PRINCIPAL, COL_MANIFEST, COL_NOT_BEFORE, COL_NOT_AFTER,
		COL_ISSUED_AT, COL_SHA256, COL_SPKI, COL_PREDECESSOR_ISSUER, COL_PREDECESSOR_SERIAL,
		COL_DER, COL_INDEX },
	[RECORD_KEYS] = { COL_SPKI, COL_IDENTITY, COL_PROFILE, COL_ISSUER, COL_SERIAL },
	[RECORD_DEVICE_LOCK] = { COL_IDENTITY },
	[RECORD_SLOT_LOCK] = { COL_INDEX, COL_IDENTITY },
	[RECORD_DEVICES] = { COL_IDENTITY, COL_THING_TYPE, COL_ATTRIBUTES, COL_REVIVES },
	[RECORD_DEVICES_TOUCH] = { COL_IDENTITY },
	[RECORD_SLOTS] = { COL_IDENTITY, COL_IS_SUCCESSOR, COL_ISSUER, COL_SERIAL },
	[RECORD_LINES] = { COL_IDENTITY, COL_MANIFEST, COL_ISSUER, COL_SERIAL },
	[RECORD_POINTERS] = { COL_ISSUER, COL_SERIAL, COL_PREDECESSOR_ISSUER, COL_PREDECESSOR_SERIAL },
	[RECORD_OUTBOX] = { COL_IDENTITY },
	[REAP_IDEMPOTENCY] = { COL_PRINCIPAL, COL_IDEMPOTENCY_KEY, COL_ISSUER, COL_SERIAL },
	[REAP_KEYS] = { COL_SPKI, COL_ISSUER, COL_SERIAL },
	[REAP_SLOTS] = { COL_IDENTITY, COL_ISSUER, COL_SERIAL },
	[REAP_MANIFESTS] = { COL_IDENTITY, COL_MANIFEST },
	[REAP_CLOSE] = { COL_ISSUER, COL_SERIAL },
};

/* What we know of an item beside what it asks and what we answer. */
struct work {
	bool idempotency_new, key_new, slot_new; /* inserted by this call */
	bool key_old, slot_old;                  /* there before; locked by this call */
	struct db_cert_ref key_certificate;      /* the key's last certificate */
	struct db_cert_ref current, successor; /* the device's slot */
	enum cert_status current_status, successor_status;
	bool current_lives, successor_lives; /* neither revoked nor expired; a hold is a life */
	char device_status[16];
	int64_t device_version;
	bool replacing, reviving;
	size_t first_line, line_count;
	struct db_cert_ref predecessor; /* Record */
	bool decommissioned, blocked;   /* Record: since Admit */
	bool withdrawn;                 /* Record: the predecessor was revoked since Admit */
};

struct line {
	char manifest_id[DB_ID_BYTES];
	bool used;
	char state;
};

/* The items of one call: those of Admit, those of Record, or those that the reaper found. */
struct batch {
	struct db_tx *tx;
	struct db_admit_item *items;          /* Admit, reaper */
	struct db_record_item *records;       /* Record */
	size_t count;
	struct work *work;
	size_t *by_serial; /* indexes in the order of the serials */
	size_t *pick;      /* what the next statement is about */
	size_t picked;
	struct line *lines;
	size_t line_count;
	int32_t instance_id;         /* Admit */
	struct db_admit_item *found; /* reaper: owned; what items points to */
};

static void
batch_free(struct batch *b)
{
	mem_free(b->work);
	mem_free(b->by_serial);
	mem_free(b->pick);
	mem_free(b->lines);
	mem_free(b->found);
}
OWNER_STRUCT(batch, batch_free)

static const struct db_admit_item *
item_at(const struct batch *b, size_t i)
{
	return b->records != NULL ? b->records[i].admitted : &b->items[i];
}

static int
compare_serials(const void *a, const void *b, void *arg)
{
	const struct batch *batch = arg;

	return memcmp(item_at(batch, *(const size_t *)a)->ref.serial.octets,
		item_at(batch, *(const size_t *)b)->ref.serial.octets, SERIAL_BYTES);
}

static enum status
batch_prepare(struct batch *b, struct err *err)
{
	b->work = mem_array(b->count, sizeof(*b->work));
	b->by_serial = mem_array(b->count, sizeof(*b->by_serial));
	b->pick = mem_array(b->count, sizeof(*b->pick));
	if (b->work == NULL || b->by_serial == NULL || b->pick == NULL)
		return err_memory(err);
	for (size_t i = 0; i < b->count; i++)
		b->by_serial[i] = i;
	qsort_r(b->by_serial, b->count, sizeof(*b->by_serial), compare_serials, b);
	return OK;
}

/* The item of a serial that a statement gave back; count when there is none. */
static size_t
index_of_serial(const struct batch *b, const struct serial *serial)
{
	size_t low = 0;
	size_t high = b->count;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		int order = memcmp(item_at(b, b->by_serial[middle])->ref.serial.octets,
			serial->octets, SERIAL_BYTES);

		if (order == 0)
			return b->by_serial[middle];
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return b->count;
}

static bool
of_device(const struct db_admit_item *item)
{
	return item->slot == SLOT_CURRENT || item->slot == SLOT_SUCCESSOR;
}

static enum db_array_type
column_type(enum column column)
{
	switch (column) {
	case COL_INDEX:
	case COL_INSTANCE:
	case COL_ISSUER:
	case COL_EXISTING_ISSUER:
	case COL_KEY_ISSUER:
	case COL_PREDECESSOR_ISSUER:
		return ARRAY_INT4;
	case COL_NOT_AFTER:
	case COL_NOT_BEFORE:
	case COL_ISSUED_AT:
	case COL_REVIVES:
		return ARRAY_INT8;
	case COL_PRINCIPAL:
	case COL_ASKER:
	case COL_NAMED:
	case COL_IDEMPOTENCY_KEY:
	case COL_IDENTITY:
	case COL_PROFILE:
	case COL_MANIFEST:
	case COL_THING_TYPE:
	case COL_ATTRIBUTES:
	case COL_SUBJECT:
		return ARRAY_TEXT;
	case COL_REQUEST_HASH:
	case COL_SERIAL:
	case COL_SPKI:
	case COL_EXISTING_SERIAL:
	case COL_KEY_SERIAL:
	case COL_DER:
	case COL_SHA256:
	case COL_PREDECESSOR_SERIAL:
		return ARRAY_BYTEA;
	case COL_OF_DEVICE:
	case COL_IS_SUCCESSOR:
	case COL_CHARGED:
		return ARRAY_BOOL;
	case COL_END:
		break;
	}
	return ARRAY_UNSET;
}

static enum status
add_text(struct db_array *array, const char *text, struct err *err)
{
	return db_array_add_text(array, text != NULL ? text : "", err);
}

static enum status
add_hash(struct db_array *array, const uint8_t hash[DB_SHA256_BYTES], struct err *err)
{
	return db_array_add_bytes(array, (struct view){ hash, DB_SHA256_BYTES }, err);
}

static enum status
column_add(struct db_array *array, const struct batch *b, size_t i, enum column column,
	struct err *err)
{
	const struct db_admit_item *item = item_at(b, i);
	const struct db_record_item *record = b->records != NULL ? &b->records[i] : NULL;
	const struct work *work = &b->work[i];

	switch (column) {
	case COL_INDEX:
		return db_array_add_int(array, (int64_t)i, err);
	case COL_INSTANCE:
		return db_array_add_int(array, b->instance_id, err);
	case COL_PRINCIPAL:
		return add_text(array, item->principal_id, err);
	case COL_ASKER:
		return add_text(array, item->slot == SLOT_SUCCESSOR ? "" : item->principal_id, err);
	case COL_NAMED:
		return add_text(array, item->role_identity ? item->identity : "", err);
	case COL_IDEMPOTENCY_KEY:
		return add_text(array, item->idempotency_key, err);
	case COL_REQUEST_HASH:
		return add_hash(array, item->request_hash, err);
	case COL_ISSUER:
		return db_array_add_int(array, item->ref.issuer_id, err);
	case COL_SERIAL:
		return db_array_add_serial(array, &item->ref.serial, err);
	case COL_NOT_AFTER:
		return db_array_add_int(array,
			record != NULL ? record->not_after_s : item->not_after_s, err);
	case COL_IDENTITY:
		return add_text(array, item->identity, err);
	case COL_PROFILE:
		return add_text(array, item->profile, err);
	case COL_SPKI:
		return add_hash(array, item->spki_sha256, err);
	case COL_OF_DEVICE:
		return db_array_add_bool(array, of_device(item), err);
	case COL_IS_SUCCESSOR:
		return db_array_add_bool(array, item->slot == SLOT_SUCCESSOR, err);
	case COL_MANIFEST:
		return add_text(array, item->manifest_id, err);
	case COL_CHARGED:
		return db_array_add_bool(array, item->manifest_charged, err);
	case COL_EXISTING_ISSUER:
		return db_array_add_int(array, item->existing.issuer_id, err);
	case COL_EXISTING_SERIAL:
		return db_array_add_serial(array, &item->existing.serial, err);
	case COL_KEY_ISSUER:
		return db_array_add_int(array, work->key_certificate.issuer_id, err);
	case COL_KEY_SERIAL:
		return db_array_add_serial(array, &work->key_certificate.serial, err);
	case COL_THING_TYPE:
		return add_text(array, item->thing_type, err);
	case COL_ATTRIBUTES:
		return add_text(array, item->attributes != NULL ? item->attributes : "{}", err);
	case COL_REVIVES:
		return db_array_add_int(array,
			item->revives_version > 0 ? item->revives_version : 1, err);
	case COL_DER:
		return db_array_add_bytes(array, record->der, err);
	case COL_SHA256:
		return add_hash(array, record->sha256, err);
	case COL_SUBJECT:
		return add_text(array, record->subject, err);
	case COL_NOT_BEFORE:
		return db_array_add_int(array, record->not_before_s, err);
	case COL_ISSUED_AT:
		return db_array_add_int(array, record->issued_at_s, err);
	case COL_PREDECESSOR_ISSUER:
		return db_array_add_int(array, work->predecessor.issuer_id, err);
	case COL_PREDECESSOR_SERIAL:
		return db_array_add_serial(array, &work->predecessor.serial, err);
	case COL_END:
		break;
	}
	return err_set(err, ERR_INTERNAL, "column_unknown", "column %d", (int)column);
}

#define COLUMNS_MAX COUNT_OF(TAKES[0])

struct arrays {
	struct db_array at[COLUMNS_MAX];
};

static void
arrays_free(struct arrays *arrays)
{
	for (size_t c = 0; c < COLUMNS_MAX; c++)
		db_array_free(&arrays->at[c]);
}
OWNER_STRUCT(arrays, arrays_free)

/*
 * Runs a statement over the picked items. When none are picked nothing runs, and *rows stays NULL,
 * which counts as no rows.
 */
static enum status
run_over(struct batch *b, size_t statement, PGresult **rows, struct err *err)
{
	own_struct(arrays) arrays = { 0 };
	struct db_param params[COLUMNS_MAX];
	size_t count = 0;

	if (b->picked == 0)
		return OK;
	for (; TAKES[statement][count] != COL_END; count++) {
		enum column column = TAKES[statement][count];

		arrays.at[count] = (struct db_array)DB_ARRAY(column_type(column));
		for (size_t p = 0; p < b->picked; p++)
			TRY(column_add(&arrays.at[count], b, b->pick[p], column, err));
		params[count] = db_array(&arrays.at[count]);
	}
	return db_run(b->tx, &SQL[statement], (struct db_params){ params, count }, rows, err);
}

static int
row_count(const PGresult *rows)
{
	return rows != NULL ? db_rows(rows) : 0;
}

/* The index that a row begins with. */
static size_t
row_index(struct db_row *row, const struct batch *b)
{
	int64_t i = db_row_int64(row);

	assert(i >= 0 && (size_t)i < b->count);
	return (size_t)i;
}

static bool
lives(enum cert_status status, bool lasts)
{
	return lasts && (status == CERT_ACTIVE || status == CERT_PENDING_CONFIRMATION ||
		status == CERT_HELD);
}

static bool
undecided(const struct batch *b, size_t i)
{
	return b->items[i].admission == ADMISSION_UNSET;
}


static bool
has_key(const struct db_admit_item *item)
{
	return item->idempotency_key != NULL && item->idempotency_key[0] != '\0';
}

static void
pick_none(struct batch *b)
{
	b->picked = 0;
}

static void
pick(struct batch *b, size_t i)
{
	b->pick[b->picked++] = i;
}

static void PRINTF(4, 5)
refuse(struct db_admit_item *item, enum status status, const char *code, const char *fmt, ...)
{
	char text[ERR_TEXT_BYTES];
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	(void)err_set(&item->refusal, status, code, "%s", text);
	item->admission = ADMISSION_REFUSED;
}

static void
replay(struct db_admit_item *item, struct db_cert_ref existing)
{
	item->existing = existing;
	item->admission = ADMISSION_REPLAY;
}

static bool
same_ref(const struct db_cert_ref *a, const struct db_cert_ref *b)
{
	return a->issuer_id == b->issuer_id && serial_equal(&a->serial, &b->serial);
}

/* Who asks, and for whom: read without locks, for a principal disabled a moment later was one who
 * asked a moment earlier. */
static enum status
admit_who(struct batch *b, struct err *err)
{
	own(PGresult) rows = NULL;

	pick_none(b);
	for (size_t i = 0; i < b->count; i++)
		if (b->items[i].slot != SLOT_SUCCESSOR)
			pick(b, i);
	TRY(run_over(b, ADMIT_WHO, &rows, err));
	for (int r = 0; r < row_count(rows); r++) {
		struct db_row row = db_row(rows, r);
		struct db_admit_item *item = &b->items[row_index(&row, b)];
		bool known = db_row_bool(&row);
		bool disabled = db_row_bool(&row);
		bool is_station = db_row_bool(&row);
		bool profile_allowed = db_row_bool(&row);
		char role[16];
		bool identity_disabled;

		db_row_text(&row, role, sizeof(role));
		identity_disabled = db_row_bool(&row);
		TRY(db_row_end(&row, err));
		if (item->needs_manifest && !(known && is_station))
			refuse(item, ERR_NOT_FOUND, "principal_unknown",
				"principal: a station wanted, %s is none", item->principal_id);
		else if (disabled)
			refuse(item, ERR_DENIED, "principal_disabled",
				"principal: %s is disabled", item->principal_id);
		else if (item->needs_manifest && !profile_allowed)
			refuse(item, ERR_DENIED, "profile_not_allowed_for_station",
				"profile: %s is not among those of station %s", item->profile,
				item->principal_id);
		else if (item->role_identity && strcmp(role, item->identity_role) != 0)
			refuse(item, ERR_NOT_FOUND, "principal_unknown",
				"identity: a principal of role %s wanted, %s is %s",
				item->identity_role, item->identity,
				role[0] != '\0' ? role : "none");
		else if (item->role_identity && identity_disabled)
			refuse(item, ERR_DENIED, "principal_disabled",
				"identity: principal %s is disabled", item->identity);
	}
	return OK;
}

/* Takes down for whom a claim was inserted: the statement gives back the serials. */
static enum status
mark_new(struct batch *b, const PGresult *rows, size_t flag_offset, struct err *err)
{
	for (int r = 0; r < row_count(rows); r++) {
		struct db_row row = db_row(rows, r);
		struct serial serial;
		size_t i;

		(void)db_row_serial(&row, &serial);
		TRY(db_row_end(&row, err));
		i = index_of_serial(b, &serial);
		assert(i < b->count);
		*(bool *)((char *)&b->work[i] + flag_offset) = true;
	}
	return OK;
}

/* One idempotency key of a principal, one certificate (invariant 4). */
static enum status
admit_idempotency(struct batch *b, struct err *err)
{
	own(PGresult) inserted = NULL;
	own(PGresult) found = NULL;

	pick_none(b);
	for (size_t i = 0; i < b->count; i++)
		if (undecided(b, i) && has_key(&b->items[i]))
			pick(b, i);
	TRY(run_over(b, ADMIT_IDEMPOTENCY_CLAIM, &inserted, err));
	TRY(mark_new(b, inserted, offsetof(struct work, idempotency_new), err));

	pick_none(b);
	for (size_t i = 0; i < b->count; i++)
		if (undecided(b, i) && has_key(&b->items[i]) && !b->work[i].idempotency_new)
			pick(b, i);
	TRY(run_over(b, ADMIT_IDEMPOTENCY_READ, &found, err));
	/* Not found any more: it was given back since. Then, too, the client asks again. */
	for (size_t p = 0; p < b->picked; p++)
		b->items[b->pick[p]].admission = ADMISSION_BUSY;
	for (int r = 0; r < row_count(found); r++) {
		struct db_row row = db_row(found, r);
		struct db_admit_item *item = &b->items[row_index(&row, b)];
		uint8_t hash[DB_SHA256_BYTES];
		struct db_cert_ref ref;
		bool open;

		(void)db_row_octets(&row, hash, sizeof(hash));
		db_row_ref(&row, &ref);
		open = db_row_bool(&row);
		TRY(db_row_end(&row, err));
		if (memcmp(hash, item->request_hash, sizeof(hash)) != 0)
			refuse(item, ERR_CONFLICT, "idempotency_key_reused",
				"idempotency key: it was used with another request");
		else if (!open)
			replay(item, ref);
	}
	return OK;
}

/* What to do about a key that was there before. */
static void
judge_key(struct db_admit_item *item, bool same_identity, const char *profile, bool blocked,
	bool claimed)
{
	if (blocked)
		refuse(item, ERR_DENIED, "public_key_blocked",
			"public key: it was revoked for compromise and is never certified again");
	else if (!same_identity)
		refuse(item, ERR_CONFLICT, "public_key_in_use",
			"public key: one of %s wanted, that of another identity found",
			item->identity);
	/* A device and a principal may bear the same name; their profiles tell them apart. */
	else if (strcmp(profile, item->profile) != 0)
		refuse(item, ERR_CONFLICT, "public_key_in_use",
			"public key: profile %s wanted, it is certified under %s", item->profile,
			profile);
	else if (claimed)
		item->admission = ADMISSION_BUSY;
}

/* One public key, one identity (invariant 12). */
static enum status
admit_keys(struct batch *b, struct err *err)
{
	own(PGresult) inserted = NULL;
	own(PGresult) locked = NULL;
	own(PGresult) states = NULL;

	pick_none(b);
	for (size_t i = 0; i < b->count; i++)
		if (undecided(b, i))
			pick(b, i);
	TRY(run_over(b, ADMIT_KEY_CLAIM, &inserted, err));
	TRY(mark_new(b, inserted, offsetof(struct work, key_new), err));

	pick_none(b);
	for (size_t i = 0; i < b->count; i++)
		if (undecided(b, i) && !b->work[i].key_new)
			pick(b, i);
	TRY(run_over(b, ADMIT_KEY_LOCK, &locked, err));
	for (int r = 0; r < row_count(locked); r++) {
		struct db_row row = db_row(locked, r);
		size_t i = row_index(&row, b);
		char identity[DB_ID_BYTES];
		char profile[DB_PROFILE_BYTES];
		bool blocked;
		bool claimed;

		db_row_text(&row, identity, sizeof(identity));
		db_row_text(&row, profile, sizeof(profile));
		blocked = db_row_bool(&row);
		claimed = db_row_bool(&row);
		db_row_ref(&row, &b->work[i].key_certificate);
		TRY(db_row_end(&row, err));
		b->work[i].key_old = true;
		judge_key(&b->items[i], strcmp(identity, b->items[i].identity) == 0, profile,
			blocked, claimed);
	}
	for (size_t p = 0; p < b->picked; p++) /* given back since we were told of it */
		if (!b->work[b->pick[p]].key_old)
			b->items[b->pick[p]].admission = ADMISSION_BUSY;

	pick_none(b);
	for (size_t i = 0; i < b->count; i++)
		if (undecided(b, i) && b->work[i].key_certificate.issuer_id != 0)
			pick(b, i);
	TRY(run_over(b, ADMIT_KEY_STATE, &states, err));
	for (int r = 0; r < row_count(states); r++) {
		struct db_row row = db_row(states, r);
		size_t i = row_index(&row, b);
		struct db_admit_item *item = &b->items[i];
		enum cert_status status = db_row_cert_status(&row);
		bool lasts = db_row_bool(&row);

		TRY(db_row_end(&row, err));
		if (!lasts || has_key(item))
			continue;
		/* Asked again without a key: the live certificate (invariant 4). That of a rotation
		 * is looked for where the device's slot is known. */
		if (status == CERT_ACTIVE ||
		    (item->slot == SLOT_MANY && status == CERT_PENDING_CONFIRMATION)) {
			if (item->slot != SLOT_SUCCESSOR)
				replay(item, b->work[i].key_certificate);
		}
	}
	return OK;
}

/* Rotation: the device's current certificate asks for a successor (invariant 13). */
static void
judge_successor(struct db_admit_item *item, struct work *work)
{
	if (strcmp(work->device_status, "quarantined") == 0)
		refuse(item, ERR_DENIED, "device_quarantined", "device: %s is quarantined",
			item->identity);
	else if (strcmp(work->device_status, "decommissioned") == 0)
		refuse(item, ERR_DENIED, "device_decommissioned", "device: %s is decommissioned",
			item->identity);
	/* An expired one may still ask: how long is the profile's grace, which is not known here. */
	else if (!same_ref(&work->current, &item->predecessor) ||
	    work->current_status != CERT_ACTIVE)
		refuse(item, ERR_DENIED, "certificate_not_current",
			"certificate: the current one of device %s wanted", item->identity);
	else if (work->successor_lives && work->successor_status == CERT_PENDING_CONFIRMATION &&
	    same_ref(&work->key_certificate, &work->successor))
		replay(item, work->successor);
	else if (work->successor_lives)
		item->replaced = work->successor;
}

/* First issuance and rework: the device's one certificate. */
static void
judge_current(struct db_admit_item *item, struct work *work)
{
	work->reviving = strcmp(work->device_status, "decommissioned") == 0;
	work->replacing = work->current_lives || work->successor_lives;
	if (strcmp(work->device_status, "quarantined") == 0)
		refuse(item, ERR_DENIED, "device_quarantined", "device: %s is quarantined",
			item->identity);
	else if (work->reviving && item->needs_manifest && !item->replace)
		refuse(item, ERR_DENIED, "device_decommissioned",
			"device: %s is decommissioned; replace wanted", item->identity);
	else if (work->replacing && !item->replace)
		refuse(item, ERR_CONFLICT, "device_has_certificate",
			"device: %s has a live certificate", item->identity);
	else {
		if (work->replacing)
			item->replaced = work->current_lives ? work->current : work->successor;
		if (work->reviving)
			item->revives_version = work->device_version;
	}
}

static enum status
admit_slots(struct batch *b, struct err *err)
{
	own(PGresult) inserted = NULL;
	own(PGresult) locked = NULL;
	own(PGresult) states = NULL;

	pick_none(b);
	for (size_t i = 0; i < b->count; i++)
		if (undecided(b, i) && b->items[i].slot == SLOT_CURRENT)
			pick(b, i);
	TRY(run_over(b, ADMIT_SLOT_CLAIM, &inserted, err));
	TRY(mark_new(b, inserted, offsetof(struct work, slot_new), err));

	pick_none(b);
	for (size_t i = 0; i < b->count; i++)
		if (undecided(b, i) && of_device(&b->items[i]) && !b->work[i].slot_new)
			pick(b, i);
	TRY(run_over(b, ADMIT_SLOT_LOCK, &locked, err));
	for (int r = 0; r < row_count(locked); r++) {
		struct db_row row = db_row(locked, r);
		size_t i = row_index(&row, b);

		b->work[i].slot_old = true;
		if (db_row_bool(&row))
			b->items[i].admission = ADMISSION_BUSY;
		TRY(db_row_end(&row, err));
	}
	for (size_t p = 0; p < b->picked; p++) {
		struct db_admit_item *item = &b->items[b->pick[p]];

		if (b->work[b->pick[p]].slot_old)
			continue;
		if (item->slot == SLOT_CURRENT) /* given back since we were told of it */
			item->admission = ADMISSION_BUSY;
		else
			refuse(item, ERR_DENIED, "certificate_not_current",
				"certificate: device %s has none", item->identity);
	}

	pick_none(b);
	for (size_t i = 0; i < b->count; i++)
		if (undecided(b, i) && of_device(&b->items[i]))
			pick(b, i);
	TRY(run_over(b, ADMIT_SLOT_STATE, &states, err));
	for (int r = 0; r < row_count(states); r++) {
		struct db_row row = db_row(states, r);
		size_t i = row_index(&row, b);
		struct work *work = &b->work[i];

		db_row_text(&row, work->device_status, sizeof(work->device_status));
		work->device_version = db_row_int64(&row);
		db_row_ref(&row, &work->current);
		work->current_status = db_row_cert_status(&row);
		work->current_lives = lives(work->current_status, db_row_bool(&row));
		db_row_ref(&row, &work->successor);
		work->successor_status = db_row_cert_status(&row);
		work->successor_lives = lives(work->successor_status, db_row_bool(&row));
		TRY(db_row_end(&row, err));
		if (b->items[i].slot == SLOT_SUCCESSOR)
			judge_successor(&b->items[i], work);
		else
			judge_current(&b->items[i], work);
	}
	return OK;
}

static enum status
admit_lines(struct batch *b, struct err *err)
{
	own(PGresult) rows = NULL;

	pick_none(b);
	for (size_t i = 0; i < b->count; i++)
		if (undecided(b, i) && b->items[i].needs_manifest)
			pick(b, i);
	TRY(run_over(b, ADMIT_LINES, &rows, err));
	b->line_count = (size_t)row_count(rows);
	b->lines = mem_array(b->line_count, sizeof(*b->lines));
	if (b->lines == NULL)
		return err_memory(err);
	for (size_t r = 0; r < b->line_count; r++) {
		struct db_row row = db_row(rows, (int)r);
		struct work *work = &b->work[row_index(&row, b)];

		if (work->line_count++ == 0)
			work->first_line = r;
		db_row_text(&row, b->lines[r].manifest_id, DB_ID_BYTES);
		b->lines[r].used = db_row_bool(&row);
		b->lines[r].state = db_row_char(&row);
		TRY(db_row_end(&row, err));
	}
	for (size_t p = 0; p < b->picked; p++) {
		struct db_admit_item *item = &b->items[b->pick[p]];

		if (b->work[b->pick[p]].line_count == 0)
			refuse(item, ERR_DENIED, "device_not_in_manifest",
				"device: %s is on no manifest of station %s for profile %s",
				item->identity, item->principal_id, item->profile);
	}
	return OK;
}

/* A manifest or a station as this call has locked it. */
struct purse {
	char id[DB_ID_BYTES];
	int64_t left;         /* units; thousandths of a token */
	int64_t per_minute;   /* station */
	bool allow_replace;   /* manifest */
	char state;           /* manifest */
};

struct purses {
	struct purse *entries; /* by id */
	size_t count;
};

static void
purses_free(struct purses *purses)
{
	mem_free(purses->entries);
}
OWNER_STRUCT(purses, purses_free)

static int
compare_purse(const void *key, const void *purse)
{
	return strcmp(key, ((const struct purse *)purse)->id);
}

static struct purse *
purse_find(const struct purses *purses, const char *id)
{
	return bsearch(id, purses->entries, purses->count,
		sizeof(*purses->entries), compare_purse);
}

/* Locks manifests or stations in the order of their ids, which is the order they come in. */
static enum status
purses_lock(struct purses *out, struct batch *b, size_t statement, struct db_array *ids,
	struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(b->tx, &SQL[statement], DB_PARAMS(db_array(ids)), &rows, err));
	out->count = (size_t)db_rows(rows);
	out->entries = mem_array(out->count, sizeof(*out->entries));
	if (out->entries == NULL)
		return err_memory(err);
	for (size_t r = 0; r < out->count; r++) {
		struct db_row row = db_row(rows, (int)r);
		struct purse *purse = &out->entries[r];

		db_row_text(&row, purse->id, sizeof(purse->id));
		purse->left = db_row_int64(&row);
		if (statement == ADMIT_STATION_LOCK) {
			purse->per_minute = db_row_int64(&row);
		} else {
			purse->allow_replace = db_row_bool(&row);
			purse->state = db_row_char(&row);
		}
		TRY(db_row_end(&row, err));
	}
	return OK;
}

/* How far a line gets an item; the furthest is chosen, and the furthest refusal told. */
enum fit { FIT_NONE, FIT_CLOSED, FIT_EXPIRED, FIT_NOT_YET, FIT_QUOTA, FIT_REPLACE, FIT_CHARGE, FIT_FREE };

static enum fit
fit_of(const struct line *line, const struct purse *manifest, const struct db_admit_item *item,
	const struct work *work)
{
	char state = manifest != NULL ? manifest->state : line->state;

	if (state == 'c')
		return FIT_CLOSED;
	if (state == 'x')
		return FIT_EXPIRED;
	if (state == 'n' || manifest == NULL) /* opened since it was read: soon enough next time */
		return FIT_NOT_YET;
	/* Only a device's slot says that what the line was used for has ended: without one, a line
	 * would be good for any number of certificates. */
	if (line->used ? item->slot == SLOT_MANY : manifest->left < 1)
		return FIT_QUOTA;
	/* A line is good for one certificate; a second one, also after a revocation, is rework. */
	if ((work->replacing || work->reviving || line->used) && !manifest->allow_replace)
		return FIT_REPLACE;
	return line->used ? FIT_FREE : FIT_CHARGE;
}

static void
refuse_fit(struct db_admit_item *item, const struct work *work, enum fit fit, const char *manifest_id)
{
	switch (fit) {
	case FIT_CLOSED:
		refuse(item, ERR_DENIED, "manifest_closed", "manifest: %s is closed", manifest_id);
		return;
	case FIT_EXPIRED:
		refuse(item, ERR_DENIED, "manifest_expired", "manifest: %s has expired", manifest_id);
		return;
	case FIT_NOT_YET:
		refuse(item, ERR_DENIED, "manifest_not_yet_valid", "manifest: %s is not yet valid",
			manifest_id);
		return;
	case FIT_QUOTA:
		refuse(item, ERR_TOO_MANY, "quota_exhausted", "manifest: the quota of %s is used up",
			manifest_id);
		return;
	case FIT_REPLACE:
		if (work->reviving)
			refuse(item, ERR_DENIED, "device_decommissioned",
				"device: %s is decommissioned and manifest %s allows no replacement",
				item->identity, manifest_id);
		else
			refuse(item, ERR_DENIED, "replace_not_allowed",
				"replace: manifest %s allows no second certificate for a device",
				manifest_id);
		return;
	case FIT_NONE:
	case FIT_CHARGE:
	case FIT_FREE:
		break;
	}
	assert(false && "a line that fits is not refused");
}

/* Chooses an item's line, and takes its unit and the station's token from the purses. */
static void
charge(struct batch *b, size_t i, const struct purses *manifests, const struct purses *stations)
{
	struct db_admit_item *item = &b->items[i];
	const struct work *work = &b->work[i];
	struct purse *station = purse_find(stations, item->principal_id);
	const struct line *best = NULL;
	enum fit best_fit = FIT_NONE;

	for (size_t l = work->first_line; l < work->first_line + work->line_count; l++) {
		enum fit fit = fit_of(&b->lines[l], purse_find(manifests, b->lines[l].manifest_id),
			item, work);

		if (fit > best_fit) {
			best = &b->lines[l];
			best_fit = fit;
		}
	}
	assert(best != NULL);
	if (best_fit < FIT_CHARGE) {
		refuse_fit(item, work, best_fit, best->manifest_id);
		return;
	}
	if (station == NULL || station->left < 1000) {
		int64_t per_minute = station != NULL ? station->per_minute : 1;
		int64_t missing = 1000 - (station != NULL ? station->left : 0);

		refuse(item, ERR_TOO_MANY, "station_rate_exceeded",
			"station: %s may have %lld certificates a minute", item->principal_id,
			(long long)per_minute);
		item->refusal.retry_after_s = (missing * 60 + per_minute * 1000 - 1) /
			(per_minute * 1000);
		return;
	}
	station->left -= 1000;
	memcpy(item->manifest_id, best->manifest_id, sizeof(item->manifest_id));
	item->manifest_charged = best_fit == FIT_CHARGE;
	if (item->manifest_charged)
		purse_find(manifests, best->manifest_id)->left--;
}

static enum status
admit_charge(struct batch *b, struct err *err)
{
	own_struct(db_array) manifest_ids = DB_ARRAY(ARRAY_TEXT);
	own_struct(db_array) station_ids = DB_ARRAY(ARRAY_TEXT);
	own_struct(purses) manifests = { 0 };
	own_struct(purses) stations = { 0 };
	own(PGresult) rows = NULL;
	int64_t charged = 0;
	struct db_row row;

	pick_none(b);
	for (size_t i = 0; i < b->count; i++)
		if (undecided(b, i) && b->items[i].needs_manifest)
			pick(b, i);
	if (b->picked == 0)
		return OK;
	for (size_t p = 0; p < b->picked; p++) {
		const struct work *work = &b->work[b->pick[p]];

		for (size_t l = work->first_line; l < work->first_line + work->line_count; l++)
			if (b->lines[l].state == 'o')
				TRY(db_array_add_text(&manifest_ids, b->lines[l].manifest_id, err));
		TRY(db_array_add_text(&station_ids, b->items[b->pick[p]].principal_id, err));
	}
	TRY(purses_lock(&manifests, b, ADMIT_MANIFEST_LOCK, &manifest_ids, err));
	TRY(purses_lock(&stations, b, ADMIT_STATION_LOCK, &station_ids, err));
	for (size_t p = 0; p < b->picked; p++)
		charge(b, b->pick[p], &manifests, &stations);

	pick_none(b);
	for (size_t i = 0; i < b->count; i++)
		if (undecided(b, i) && b->items[i].needs_manifest) {
			pick(b, i);
			charged += b->items[i].manifest_charged ? 1 : 0;
		}
	if (b->picked == 0)
		return OK;
	TRY(run_over(b, ADMIT_CHARGE, &rows, err));
	row = db_row(rows, 0);
	/* Only where an identity has no slot that shuts others out, two calls may meet on a line. */
	if (db_row_int64(&row) != charged)
		return err_set(err, ERR_UNAVAILABLE, "database_retry",
			"manifest: a line was used by another request meanwhile");
	return db_row_end(&row, err);
}

/* What was inserted for items that are not admitted goes again; what was there before is as it was. */
static enum status
admit_undo(struct batch *b, struct err *err)
{
	pick_none(b);
	for (size_t i = 0; i < b->count; i++)
		if (b->work[i].idempotency_new && b->items[i].admission == ADMISSION_REPLAY)
			pick(b, i); /* the key now stands for the certificate that was found */
	TRY(run_over(b, ADMIT_IDEMPOTENCY_POINT, NULL, err));
	pick_none(b);
	for (size_t i = 0; i < b->count; i++)
		if (b->work[i].idempotency_new && (b->items[i].admission == ADMISSION_REFUSED ||
		    b->items[i].admission == ADMISSION_BUSY))
			pick(b, i);
	TRY(run_over(b, ADMIT_IDEMPOTENCY_UNDO, NULL, err));
	pick_none(b);
	for (size_t i = 0; i < b->count; i++)
		if (b->work[i].key_new && b->items[i].admission != ADMISSION_ADMITTED)
			pick(b, i);
	TRY(run_over(b, ADMIT_KEY_UNDO, NULL, err));
	pick_none(b);
	for (size_t i = 0; i < b->count; i++)
		if (b->work[i].slot_new && b->items[i].admission != ADMISSION_ADMITTED)
			pick(b, i);
	return run_over(b, ADMIT_SLOT_UNDO, NULL, err);
}

enum status
db_issuance_admit(struct db_tx *tx, int32_t instance_id, struct db_admit_item *items, size_t count,
	struct err *err)
{
	own_struct(batch) b = { .tx = tx, .instance_id = instance_id, .items = items, .count = count };

	for (size_t i = 0; i < count; i++) {
		assert(items[i].slot != SLOT_UNSET);
		items[i].admission = ADMISSION_UNSET;
		items[i].existing = items[i].replaced = (struct db_cert_ref){ 0 };
		items[i].manifest_id[0] = '\0';
		items[i].manifest_charged = false;
		items[i].revives_version = 0;
	}
	TRY(batch_prepare(&b, err));
	TRY(admit_who(&b, err));
	TRY(admit_idempotency(&b, err));
	TRY(admit_keys(&b, err));
	TRY(admit_slots(&b, err));
	TRY(admit_lines(&b, err));
	TRY(admit_charge(&b, err));

	for (size_t i = 0; i < count; i++)
		if (undecided(&b, i))
			items[i].admission = ADMISSION_ADMITTED;
	pick_none(&b);
	for (size_t i = 0; i < count; i++)
		if (items[i].admission == ADMISSION_ADMITTED &&
		    (b.work[i].key_old || b.work[i].slot_old))
			pick(&b, i);
	TRY(run_over(&b, ADMIT_RECLAIM, NULL, err));
	pick_none(&b);
	for (size_t i = 0; i < count; i++)
		if (items[i].admission == ADMISSION_ADMITTED)
			pick(&b, i);
	TRY(run_over(&b, ADMIT_INTENT, NULL, err));
	return admit_undo(&b, err);
}

/* Picks the items of devices, or those for a slot (SLOT_UNSET: both kinds). */
static void
pick_devices(struct batch *b, enum db_slot slot)
{
	pick_none(b);
	for (size_t i = 0; i < b->count; i++) {
		const struct db_admit_item *item = item_at(b, i);

		if (of_device(item) && (slot == SLOT_UNSET || item->slot == slot))
			pick(b, i);
	}
}

static void
pick_all(struct batch *b)
{
	pick_none(b);
	for (size_t i = 0; i < b->count; i++)
		pick(b, i);
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

static enum status
record_close(struct batch *b, struct err *err)
{
	own(PGresult) rows = NULL;

	pick_all(b);
	TRY(run_over(b, RECORD_CLOSE, &rows, err));
	if ((size_t)row_count(rows) != b->count)
		return err_set(err, ERR_CONFLICT, "intent_closed",
			"intent: %zu open wanted, %d found", b->count, row_count(rows));
	return OK;
}

static enum status
record_keys(struct batch *b, struct err *err)
{
	own(PGresult) rows = NULL;

	pick_all(b);
	TRY(run_over(b, RECORD_KEYS, &rows, err));
	for (int r = 0; r < row_count(rows); r++) {
		struct db_row row = db_row(rows, r);
		struct serial serial;
		size_t i;

		(void)db_row_serial(&row, &serial);
		i = index_of_serial(b, &serial);
		assert(i < b->count);
		b->work[i].blocked = db_row_bool(&row);
		TRY(db_row_end(&row, err));
	}
	return OK;
}

/*
 * Devices first, then their slots. A batch that only makes new devices lets its two upserts do the
 * locking; where a slot held something, both are locked before, since what is in it may have changed
 * since Admit (a successor may have been confirmed).
 */
static enum status
record_lock(struct batch *b, struct err *err)
{
	own(PGresult) rows = NULL;
	own(PGresult) slots = NULL;
	bool held = false;

	for (size_t i = 0; i < b->count; i++) {
		const struct db_admit_item *item = item_at(b, i);

		held = held || item->slot == SLOT_SUCCESSOR || item->replaced.issuer_id != 0;
	}
	if (!held)
		return OK;
	pick_devices(b, SLOT_UNSET);
	TRY(run_over(b, RECORD_DEVICE_LOCK, &rows, err));
	TRY(run_over(b, RECORD_SLOT_LOCK, &slots, err));
	for (int r = 0; r < row_count(slots); r++) {
		struct db_row row = db_row(slots, r);
		struct work *work = &b->work[row_index(&row, b)];

		db_row_ref(&row, &work->current);
		db_row_ref(&row, &work->successor);
		TRY(db_row_end(&row, err));
	}
	return OK;
}

static void
set_predecessors(struct batch *b)
{
	for (size_t i = 0; i < b->count; i++) {
		const struct db_admit_item *item = item_at(b, i);

		if (item->slot == SLOT_CURRENT)
			b->work[i].predecessor = item->replaced;
		/* The successor of before may have become current since Admit; only a revocation leaves
		 * the place empty. */
		else if (item->slot == SLOT_SUCCESSOR) {
			b->work[i].withdrawn = b->work[i].current.issuer_id == 0;
			b->work[i].predecessor = b->work[i].withdrawn ?
				item->predecessor : b->work[i].current;
		}
	}
}

/* Runs one of the statements that say which devices are decommissioned. */
static enum status
record_device_rows(struct batch *b, size_t statement, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(run_over(b, statement, &rows, err));
	for (int r = 0; r < row_count(rows); r++) {
		struct db_row row = db_row(rows, r);
		char device_id[DB_ID_BYTES];
		bool decommissioned;

		db_row_text(&row, device_id, sizeof(device_id));
		decommissioned = db_row_bool(&row);
		TRY(db_row_end(&row, err));
		if (!decommissioned)
			continue;
		for (size_t p = 0; p < b->picked; p++)
			if (strcmp(item_at(b, b->pick[p])->identity, device_id) == 0)
				b->work[b->pick[p]].decommissioned = true;
	}
	return OK;
}

/* What is to be revoked, and for which item. */
struct ends {
	struct db_revoke_item *list;
	size_t *of;
	size_t count;
};

static void
ends_free(struct ends *ends)
{
	mem_free(ends->list);
	mem_free(ends->of);
}
OWNER_STRUCT(ends, ends_free)

static void
ends_add(struct ends *ends, size_t i, const struct db_cert_ref *ref, enum revocation_reason reason)
{
	for (size_t e = 0; e < ends->count; e++)
		if (same_ref(&ends->list[e].ref, ref))
			return;
	ends->of[ends->count] = i;
	ends->list[ends->count++] = (struct db_revoke_item){ .ref = *ref, .reason = reason };
}

/*
 * What ends with this Record: what a rework replaces (all that the slot holds), the unconfirmed
 * successor that a rotation replaces, unless it was confirmed since; and the new certificate itself
 * where its device was decommissioned, its key blocked, or the certificate that asked for it revoked,
 * between Admit and Record: it then stands as if issued just before.
 */
static void
ends_of(struct ends *ends, const struct batch *b, size_t i)
{
	const struct db_admit_item *item = item_at(b, i);
	const struct work *work = &b->work[i];

	if (item->replaced.issuer_id != 0 && item->slot == SLOT_CURRENT) {
		ends_add(ends, i, &item->replaced, REASON_SUPERSEDED);
		if (work->current.issuer_id != 0)
			ends_add(ends, i, &work->current, REASON_SUPERSEDED);
		if (work->successor.issuer_id != 0)
			ends_add(ends, i, &work->successor, REASON_SUPERSEDED);
	} else if (item->replaced.issuer_id != 0 && same_ref(&item->replaced, &work->successor)) {
		ends_add(ends, i, &item->replaced, REASON_SUPERSEDED);
	}
	if (work->blocked)
		ends_add(ends, i, &item->ref, REASON_KEY_COMPROMISE);
	else if (work->decommissioned)
		ends_add(ends, i, &item->ref, REASON_CESSATION_OF_OPERATION);
	else if (work->withdrawn)
		ends_add(ends, i, &item->ref, REASON_PRIVILEGE_WITHDRAWN);
}

/* Tells each item what ended with it; what was revoked before is none of it. */
static void
ends_tell(const struct ends *ends, struct batch *b)
{
	for (size_t e = 0; e < ends->count; e++) {
		struct db_record_item *record = &b->records[ends->of[e]];
		const struct db_revoke_item *end = &ends->list[e];

		if (!end->result.changed)
			continue;
		if (same_ref(&end->ref, &record->admitted->ref)) {
			record->revoked = true;
			record->reason = end->reason;
		} else {
			record->ended[record->ended_count++] = end->ref;
		}
	}
}

static enum status
record_revoke(struct batch *b, struct err *err)
{
	own_struct(ends) ends = { NULL, NULL, 0 };

	ends.list = mem_array(b->count * (DB_ENDED_MAX + 1), sizeof(*ends.list));
	ends.of = mem_array(b->count * (DB_ENDED_MAX + 1), sizeof(*ends.of));
	if (ends.list == NULL || ends.of == NULL)
		return err_memory(err);
	for (size_t i = 0; i < b->count; i++)
		ends_of(&ends, b, i);
	if (ends.count == 0)
		return OK;
	TRY(db_revocation_revoke_many(b->tx, ends.list, ends.count, b->records[0].issued_at_s, err));
	ends_tell(&ends, b);
	return OK;
}

enum status
db_issuance_record(struct db_tx *tx, struct db_record_item *items, size_t count, struct err *err)
{
	own_struct(batch) b = { .tx = tx, .records = items, .count = count };

	if (count == 0)
		return OK;
	for (size_t i = 0; i < count; i++) {
		items[i].ended_count = 0;
		items[i].revoked = false;
	}
	TRY(batch_prepare(&b, err));
	TRY(record_close(&b, err));
	TRY(record_keys(&b, err));
	TRY(record_lock(&b, err));
	pick_devices(&b, SLOT_CURRENT);
	TRY(record_device_rows(&b, RECORD_DEVICES, err));
	pick_devices(&b, SLOT_SUCCESSOR);
	TRY(record_device_rows(&b, RECORD_DEVICES_TOUCH, err));
	pick_devices(&b, SLOT_UNSET);
	TRY(run_over(&b, RECORD_SLOTS, NULL, err));
	pick_none(&b);
	for (size_t i = 0; i < count; i++)
		if (items[i].admitted->manifest_id[0] != '\0')
			pick(&b, i);
	TRY(run_over(&b, RECORD_LINES, NULL, err));

	set_predecessors(&b);
	pick_all(&b);
	TRY(run_over(&b, RECORD_CERTIFICATES, NULL, err));
	pick_none(&b);
	for (size_t i = 0; i < count; i++)
		if (b.work[i].predecessor.issuer_id != 0)
			pick(&b, i);
	TRY(run_over(&b, RECORD_POINTERS, NULL, err));
	TRY(record_revoke(&b, err));
	pick_devices(&b, SLOT_UNSET);
	return run_over(&b, RECORD_OUTBOX, NULL, err);
}

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
	own_struct(db_array) issuers = DB_ARRAY(ARRAY_INT4);
	own_struct(db_array) serials = DB_ARRAY(ARRAY_BYTEA);

	if (refs == NULL)
		return db_run(tx, &SQL[REAP_DEAD], DB_PARAMS(db_int64(own_instance_id),
			db_int64((int64_t)max)), rows, err);
	for (size_t i = 0; i < ref_count; i++) {
		TRY(db_array_add_int(&issuers, refs[i].issuer_id, err));
		TRY(db_array_add_serial(&serials, &refs[i].serial, err));
	}
	return db_run(tx, &SQL[REAP_NAMED], DB_PARAMS(db_int64((int64_t)max), db_array(&issuers),
		db_array(&serials)), rows, err);
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

	pick_none(&b);
	for (size_t i = 0; i < b.count; i++)
		if (has_key(&b.items[i]))
			pick(&b, i);
	TRY(run_over(&b, REAP_IDEMPOTENCY, NULL, err));
	pick_all(&b);
	TRY(run_over(&b, REAP_KEYS, NULL, err));
	TRY(run_over(&b, REAP_SLOTS, NULL, err));
	pick_none(&b);
	for (size_t i = 0; i < b.count; i++)
		if (b.items[i].manifest_charged)
			pick(&b, i);
	TRY(run_over(&b, REAP_MANIFESTS, NULL, err));
	pick_all(&b);
	TRY(run_over(&b, REAP_CLOSE, NULL, err));
	for (size_t i = 0; i < b.count; i++)
		closed[i] = b.items[i].ref;
	TRY(db_revocation_mark(tx, closed, b.count, err));
	*count = b.count;
	return OK;
}

enum status
db_issuance_ensure_month(struct db_pool *pool, int32_t month, struct err *err)
{
	own_struct(db_tx) tx = { 0 };

	TRY(db_tx_begin(&tx, pool, err));
	TRY(db_run(&tx, &SQL[ENSURE_MONTH], DB_PARAMS(db_int64(month)), NULL, err));
	return db_tx_commit(&tx, err);
}
