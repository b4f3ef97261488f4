#include "db/revocation.h"

#include <assert.h>
#include <string.h>

#include "base/mem.h"
#include "db/outbox.h"
#include "db/run.h"

/*
 * Lock order: key_claim, device, device_slot, certificate, revocation, crl_scope, crl_change, outbox; each by
 * key. So a revocation is of many at once: one by one in a transaction would take the scopes of the
 * first before the device of the second. A certificate of a device changes its status only behind
 * its device's slot, so what was read in a statement after the locks stays so.
 */

enum {
	REVOKE_READ,
	REVOKE_BLOCK_KEYS,
	REVOKE_DEVICE_LOCK,
	REVOKE_SLOT_LOCK,
	REVOKE_CERTIFICATE_LOCK,
	REVOKE_STATE,
	REVOKE_WRITE,
	REVOKE_SLOTS,
	REVOKE_DEVICES,
	REVOKE_OTHERS,
	REVOKE_MARK,
	REVOKE_NOTIFY,
	UNHOLD_WRITE,
	CONFIRM_READ,
	CONFIRM_WRITE,
	CONFIRM_SLOT,
	OF_DEVICE,
	STATEMENTS,
};

static const struct db_statement SQL[STATEMENTS] = {
	[REVOKE_READ] = { /* certificate_pkey, one partition each */
		.name = "revoke_read", .params = 3, .columns = 5, .rows = ROWS_ANY,
		.sql = "SELECT i.idx, c.device_id, c.of_device, c.profile, c.spki_sha256"
		       " FROM unnest($1::int[], $2::int[], $3::bytea[]) AS i(idx, issuer, serial)"
		       " JOIN LATERAL (SELECT * FROM jitrca.certificate c"
		       " WHERE c.expiry_month = jitrca.serial_month(i.serial)"
		       " AND c.issuer_id = i.issuer AND c.serial = i.serial OFFSET 0) c ON true",
	},
	[REVOKE_BLOCK_KEYS] = { /* blocked_key_pkey: what was on a list only stays blocked for good now */
		.name = "revoke_block_keys", .params = 3, .columns = 1, .rows = ROWS_ANY,
		.sql = "WITH b AS (DELETE FROM jitrca.blocked_key b WHERE b.spki_sha256 = ANY ($1::bytea[]))"
		       " INSERT INTO jitrca.key_claim AS k (spki_sha256, identity, profile, blocked_at)"
		       " SELECT DISTINCT ON (i.spki) i.spki, i.identity, i.profile, now()"
		       " FROM unnest($1::bytea[], $2::text[], $3::text[]) AS i(spki, identity, profile)"
		       " ORDER BY i.spki ON CONFLICT (spki_sha256) DO UPDATE"
		       " SET blocked_at = EXCLUDED.blocked_at WHERE coalesce(k.blocked_at, to_timestamp(0))"
		       " = to_timestamp(0)"
		       " RETURNING k.spki_sha256",
	},
	[REVOKE_DEVICE_LOCK] = { /* device_pkey */
		.name = "revoke_device_lock", .params = 1, .columns = 1, .rows = ROWS_ANY,
		.sql = "SELECT d.device_id FROM jitrca.device d WHERE d.device_id = ANY ($1::text[])"
		       " ORDER BY d.device_id FOR NO KEY UPDATE",
	},
	[REVOKE_SLOT_LOCK] = { /* device_slot_pkey */
		.name = "revoke_slot_lock", .params = 1, .columns = 1, .rows = ROWS_ANY,
		.sql = "SELECT s.device_id FROM jitrca.device_slot s WHERE s.device_id = ANY ($1::text[])"
		       " ORDER BY s.device_id FOR NO KEY UPDATE",
	},
	[REVOKE_CERTIFICATE_LOCK] = { /* certificate_pkey, one partition each */
		.name = "revoke_certificate_lock", .params = 2, .columns = 1, .rows = ROWS_ANY,
		.sql = "SELECT c.serial FROM unnest($1::int[], $2::bytea[]) AS i(issuer, serial)"
		       " JOIN jitrca.certificate c ON c.expiry_month = jitrca.serial_month(i.serial)"
		       " AND c.issuer_id = i.issuer AND c.serial = i.serial"
		       " ORDER BY c.issuer_id, c.serial FOR NO KEY UPDATE OF c",
	},
	[REVOKE_STATE] = { /* certificate_pkey, revocation_pkey */
		.name = "revoke_state", .params = 3, .columns = 4, .rows = ROWS_ANY,
		.sql = "SELECT i.idx, c.status, coalesce(r.reason, -1)::int,"
		       " " SQL_S("r.revoked_at") ""
		       " FROM unnest($1::int[], $2::int[], $3::bytea[]) AS i(idx, issuer, serial)"
		       " JOIN LATERAL (SELECT c.status FROM jitrca.certificate c"
		       " WHERE c.expiry_month = jitrca.serial_month(i.serial)"
		       " AND c.issuer_id = i.issuer AND c.serial = i.serial OFFSET 0) c ON true"
		       " LEFT JOIN jitrca.revocation r ON r.issuer_id = i.issuer AND r.serial = i.serial",
	},
	[REVOKE_WRITE] = { /* the rows are locked already; a hold that becomes final keeps its date */
		.name = "revoke_write", .params = 4, .columns = 0, .rows = ROWS_NONE, .trust = true,
		.sql = "WITH i AS MATERIALIZED (SELECT * FROM unnest($1::int[], $2::bytea[], $3::int[])"
		       " AS i(issuer, serial, reason)),"
		       " c AS (UPDATE jitrca.certificate c SET status_at = to_timestamp($4::bigint),"
		       " status = CASE WHEN i.reason = 6 THEN 'held' ELSE 'revoked' END,"
		       " status_before_hold = CASE WHEN i.reason = 6 THEN c.status END FROM i"
		       " WHERE c.expiry_month = jitrca.serial_month(i.serial)"
		       " AND c.issuer_id = i.issuer AND c.serial = i.serial"
		       " RETURNING c.issuer_id, c.serial, i.reason, c.not_after)"
		       " INSERT INTO jitrca.revocation (issuer_id, serial, reason, revoked_at, not_after)"
		       " SELECT c.issuer_id, c.serial, c.reason, to_timestamp($4::bigint), c.not_after"
		       " FROM c ORDER BY c.issuer_id, c.serial"
		       " ON CONFLICT (issuer_id, serial) DO UPDATE SET reason = EXCLUDED.reason",
	},
	[REVOKE_SLOTS] = { /* the rows are locked already */
		.name = "revoke_slots", .params = 3, .columns = 0, .rows = ROWS_NONE,
		.sql = "WITH i AS MATERIALIZED (SELECT * FROM unnest($1::int[], $2::bytea[])"
		       " AS i(issuer, serial)), s AS MATERIALIZED (SELECT s.device_id,"
		       " (s.current_issuer, s.current_serial) IN (SELECT issuer, serial FROM i) AS cur,"
		       " (s.successor_issuer, s.successor_serial) IN (SELECT issuer, serial FROM i) AS suc"
		       " FROM jitrca.device_slot s WHERE s.device_id = ANY ($3::text[]))"
		       " UPDATE jitrca.device_slot d SET"
		       " current_issuer = CASE WHEN s.cur THEN NULL ELSE d.current_issuer END,"
		       " current_serial = CASE WHEN s.cur THEN NULL ELSE d.current_serial END,"
		       " successor_issuer = CASE WHEN s.suc THEN NULL ELSE d.successor_issuer END,"
		       " successor_serial = CASE WHEN s.suc THEN NULL ELSE d.successor_serial END"
		       " FROM s WHERE d.device_id = s.device_id AND (s.cur OR s.suc)",
	},
	[REVOKE_DEVICES] = { /* the rows are locked already */
		.name = "revoke_devices", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "WITH d AS (UPDATE jitrca.device d SET version = d.version + 1, updated_at = now()"
		       " WHERE d.device_id = ANY ($1::text[]) RETURNING d.device_id, d.version)"
		       " INSERT INTO jitrca.outbox AS o (device_id, version, cause, priority)"
		       " SELECT d.device_id, d.version, $2::text,"
		       " CASE WHEN $2::text = 'revocation' THEN 0 ELSE 1 END FROM d"
		       " ORDER BY d.device_id" OUTBOX_AGAIN,
	},
	[REVOKE_OTHERS] = { /* iot_certificate_serial: what is no device's, yet IoT Core has seen */
		.name = "revoke_others", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO jitrca.outbox AS o (device_id, version, cause, priority)"
		       " SELECT DISTINCT 'certificate/' || encode(x.sha256, 'hex'), 1, 'revocation', 0"
		       " FROM unnest($1::int[], $2::bytea[]) AS i(issuer, serial)"
		       " JOIN jitrca.iot_certificate x ON x.issuer_id = i.issuer AND x.serial = i.serial"
		       " WHERE x.device_id IS NULL ORDER BY 1" OUTBOX_AGAIN_UNVERSIONED,
	},
	[REVOKE_MARK] = {
		/* The full list's wanted is the clock of changes: its row stays locked to the commit, so
		 * a list that reads it then has all changes up to it. */
		.name = "revoke_mark", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "WITH m AS (INSERT INTO jitrca.crl_scope AS s (issuer_id, scope)"
		       " SELECT DISTINCT x.issuer, x.scope"
		       " FROM unnest($1::int[], $2::bytea[]) AS i(issuer, serial),"
		       " LATERAL (VALUES (i.issuer, (-2)::smallint), (i.issuer, (-1)::smallint),"
		       " (i.issuer, jitrca.serial_shard(i.serial))) AS x(issuer, scope) ORDER BY 1, 2"
		       " ON CONFLICT (issuer_id, scope) DO UPDATE SET wanted = s.wanted + 1"
		       " RETURNING s.issuer_id, s.scope, s.wanted)"
		       " INSERT INTO jitrca.crl_change AS c (issuer_id, serial, change)"
		       " SELECT DISTINCT i.issuer, i.serial, m.wanted"
		       " FROM unnest($1::int[], $2::bytea[]) AS i(issuer, serial)"
		       " JOIN m ON m.issuer_id = i.issuer AND m.scope = -1 ORDER BY 1, 2"
		       " ON CONFLICT (issuer_id, serial) DO UPDATE"
		       " SET change = EXCLUDED.change, changed_at = EXCLUDED.changed_at",
	},
	[REVOKE_NOTIFY] = { /* a payload has under 8000 octets, and 33 for each serial */
		.name = "revoke_notify", .params = 2, .columns = 1, .rows = ROWS_ANY,
		.sql = "SELECT pg_notify('jitrca_revocation',"
		       " i.issuer::text || string_agg(' ' || encode(i.serial, 'hex'), ''))"
		       " FROM (SELECT u.issuer, u.serial, (u.n - 1) / 200 AS piece"
		       " FROM unnest($1::int[], $2::bytea[]) WITH ORDINALITY AS u(issuer, serial, n)) i"
		       " GROUP BY i.issuer, i.piece",
	},
	[UNHOLD_WRITE] = { /* the rows are locked already */
		.name = "unhold_write", .params = 2, .columns = 0, .rows = ROWS_NONE, .trust = true,
		.sql = "WITH r AS (DELETE FROM jitrca.revocation r WHERE r.issuer_id = $1::int"
		       " AND r.serial = $2::bytea AND r.reason = 6)"
		       " UPDATE jitrca.certificate c SET status = c.status_before_hold,"
		       " status_before_hold = NULL, status_at = now()"
		       " WHERE c.expiry_month = jitrca.serial_month($2::bytea) AND c.issuer_id = $1::int"
		       " AND c.serial = $2::bytea AND c.status = 'held'",
	},
	[CONFIRM_READ] = { /* behind the slot's lock; certificate_pkey */
		.name = "confirm_read", .params = 2, .columns = 10, .rows = ROWS_ANY,
		.sql = "SELECT c.status, " SQL_S("c.not_after") ","
		       " c.predecessor_issuer, c.predecessor_serial,"
		       " s.current_issuer, s.current_serial,"
		       " s.successor_issuer, s.successor_serial,"
		       " p.status, coalesce(d.status, '')"
		       " FROM jitrca.certificate c"
		       " LEFT JOIN jitrca.device_slot s ON s.device_id = c.device_id AND c.of_device"
		       " LEFT JOIN jitrca.device d ON d.device_id = c.device_id AND c.of_device"
		       " LEFT JOIN LATERAL (SELECT p.status FROM jitrca.certificate p"
		       " WHERE p.expiry_month = jitrca.serial_month(s.current_serial)"
		       " AND p.issuer_id = s.current_issuer AND p.serial = s.current_serial"
		       " OFFSET 0) p ON true"
		       " WHERE c.expiry_month = jitrca.serial_month($2::bytea) AND c.issuer_id = $1::int"
		       " AND c.serial = $2::bytea",
	},
	[CONFIRM_WRITE] = { /* the rows are locked already */
		.name = "confirm_write", .params = 4, .columns = 0, .rows = ROWS_NONE, .trust = true,
		.sql = "UPDATE jitrca.certificate c SET status = $3::text,"
		       " status_at = to_timestamp($4::bigint)"
		       " WHERE c.expiry_month = jitrca.serial_month($2::bytea) AND c.issuer_id = $1::int"
		       " AND c.serial = $2::bytea",
	},
	[CONFIRM_SLOT] = { /* the row is locked already */
		.name = "confirm_slot", .params = 3, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE jitrca.device_slot s SET current_issuer = s.successor_issuer,"
		       " current_serial = s.successor_serial, successor_issuer = NULL,"
		       " successor_serial = NULL WHERE s.device_id = $3::text"
		       " AND s.successor_issuer = $1::int AND s.successor_serial = $2::bytea",
	},
	[OF_DEVICE] = { /* certificate_device */
		.name = "revocation_of_device", .params = 2, .columns = 2, .rows = ROWS_ANY,
		.sql = "SELECT c.issuer_id, c.serial FROM jitrca.certificate c"
		       " WHERE c.device_id = $1::text AND c.of_device AND c.status <> 'revoked'"
		       " AND c.not_after > now()"
		       " AND c.expiry_month >= extract(year FROM now() AT TIME ZONE 'UTC') * 12"
		       " + extract(month FROM now() AT TIME ZONE 'UTC') - 1"
		       " ORDER BY c.issued_at, c.serial LIMIT $2::bigint",
	},
};

const struct db_table DB_TABLE_REVOCATION = { SQL, COUNT_OF(SQL) };

/* What a call knows of each certificate. */
struct found {
	bool exists, of_device;
	char device_id[DB_ID_BYTES];
	char profile[DB_PROFILE_BYTES];
	uint8_t spki_sha256[DB_SHA256_BYTES];
	enum cert_status status;
	int32_t reason; /* -1: not revoked */
	int64_t revoked_at_s;
	bool change;
};
typedef struct found found;
OWNER(found, mem_free)

/* The arrays that statements over certificates share. */
struct refs {
	struct db_array indexes, issuers, serials;
};

static void
refs_free(struct refs *refs)
{
	db_array_free(&refs->indexes);
	db_array_free(&refs->issuers);
	db_array_free(&refs->serials);
}
OWNER_STRUCT(refs, refs_free)

#define REFS                                                                                       \
	{                                                                                          \
		DB_ARRAY(ARRAY_INT4), DB_ARRAY(ARRAY_INT4), DB_ARRAY(ARRAY_BYTEA)                  \
	}

static enum status
refs_add(struct refs *refs, size_t i, const struct db_cert_ref *ref, struct err *err)
{
	TRY(db_array_add_int(&refs->indexes, (int64_t)i, err));
	TRY(db_array_add_int(&refs->issuers, ref->issuer_id, err));
	return db_array_add_serial(&refs->serials, &ref->serial, err);
}

static size_t
row_index(struct db_row *row, size_t count)
{
	int64_t i = db_row_int64(row);

	assert(i >= 0 && (size_t)i < count);
	return (size_t)i;
}

static enum status
certificate_unknown(const struct db_cert_ref *ref, struct err *err)
{
	char serial[SERIAL_TEXT_BYTES];

	serial_format(serial, &ref->serial);
	return err_set(err, ERR_NOT_FOUND, "certificate_unknown", "certificate: there is no %s",
		serial);
}

/* Reads, without a lock, what never changes of the certificates. */
static enum status
read_fixed(struct db_tx *tx, struct db_revoke_item *items, struct found *certs, size_t count,
	struct refs *refs, struct err *err)
{
	own(PGresult) rows = NULL;

	for (size_t i = 0; i < count; i++)
		TRY(refs_add(refs, i, &items[i].ref, err));
	TRY(db_run(tx, &SQL[REVOKE_READ], DB_PARAMS(db_array(&refs->indexes),
		db_array(&refs->issuers), db_array(&refs->serials)), &rows, err));
	for (int r = 0; r < db_rows(rows); r++) {
		struct db_row row = db_row(rows, r);
		struct found *cert = &certs[row_index(&row, count)];

		cert->exists = true;
		db_row_text(&row, cert->device_id, sizeof(cert->device_id));
		cert->of_device = db_row_bool(&row);
		db_row_text(&row, cert->profile, sizeof(cert->profile));
		(void)db_row_octets(&row, cert->spki_sha256, DB_SHA256_BYTES);
		TRY(db_row_end(&row, err));
	}
	for (size_t i = 0; i < count; i++)
		if (!certs[i].exists)
			return certificate_unknown(&items[i].ref, err);
	return OK;
}

/* A compromised key is never certified again (invariant 12), whatever its certificate became. */
static enum status
block_keys(struct db_tx *tx, struct db_revoke_item *items, const struct found *certs, size_t count,
	struct err *err)
{
	own_struct(db_array) spkis = DB_ARRAY(ARRAY_BYTEA);
	own_struct(db_array) identities = DB_ARRAY(ARRAY_TEXT);
	own_struct(db_array) profiles = DB_ARRAY(ARRAY_TEXT);
	own(PGresult) rows = NULL;

	for (size_t i = 0; i < count; i++) {
		items[i].result.key_blocked = false;
		if (items[i].reason != REASON_KEY_COMPROMISE)
			continue;
		TRY(db_array_add_bytes(&spkis,
			(struct view){ certs[i].spki_sha256, DB_SHA256_BYTES }, err));
		TRY(db_array_add_text(&identities, certs[i].device_id, err));
		TRY(db_array_add_text(&profiles, certs[i].profile, err));
	}
	if (spkis.count == 0)
		return OK;
	TRY(db_run(tx, &SQL[REVOKE_BLOCK_KEYS], DB_PARAMS(db_array(&spkis),
		db_array(&identities), db_array(&profiles)), &rows, err));
	for (int r = 0; r < db_rows(rows); r++) {
		struct db_row row = db_row(rows, r);
		uint8_t spki_sha256[DB_SHA256_BYTES];

		(void)db_row_octets(&row, spki_sha256, sizeof(spki_sha256));
		TRY(db_row_end(&row, err));
		for (size_t i = 0; i < count; i++)
			if (memcmp(certs[i].spki_sha256, spki_sha256, sizeof(spki_sha256)) == 0)
				items[i].result.key_blocked = true;
	}
	return OK;
}

/* Locks devices, slots and certificates, and then reads what the certificates are. */
static enum status
lock_and_read(struct db_tx *tx, struct found *certs, size_t count, struct refs *refs,
	struct err *err)
{
	own_struct(db_array) devices = DB_ARRAY(ARRAY_TEXT);
	own(PGresult) rows = NULL;

	for (size_t i = 0; i < count; i++)
		if (certs[i].of_device)
			TRY(db_array_add_text(&devices, certs[i].device_id, err));
	if (devices.count > 0) {
		TRY(db_run(tx, &SQL[REVOKE_DEVICE_LOCK], DB_PARAMS(db_array(&devices)), NULL, err));
		TRY(db_run(tx, &SQL[REVOKE_SLOT_LOCK], DB_PARAMS(db_array(&devices)), NULL, err));
	}
	TRY(db_run(tx, &SQL[REVOKE_CERTIFICATE_LOCK], DB_PARAMS(db_array(&refs->issuers),
		db_array(&refs->serials)), NULL, err));
	TRY(db_run(tx, &SQL[REVOKE_STATE], DB_PARAMS(db_array(&refs->indexes),
		db_array(&refs->issuers), db_array(&refs->serials)), &rows, err));
	for (int r = 0; r < db_rows(rows); r++) {
		struct db_row row = db_row(rows, r);
		struct found *cert = &certs[row_index(&row, count)];

		cert->status = db_row_cert_status(&row);
		cert->reason = db_row_int32(&row);
		cert->revoked_at_s = db_row_int64(&row);
		TRY(db_row_end(&row, err));
	}
	return OK;
}

/*
 * Decides one. What is revoked stays as it is; a held one can become revoked, keeping its date. A
 * superseded one cannot be held: there would be nothing to come back to.
 */
static void
judge(struct db_revoke_item *item, struct found *cert, int64_t now_s)
{
	bool hold = item->reason == REASON_CERTIFICATE_HOLD;

	cert->change = cert->status == CERT_ACTIVE || cert->status == CERT_PENDING_CONFIRMATION ||
		(cert->status == CERT_SUPERSEDED && !hold) || (cert->status == CERT_HELD && !hold);
	item->superseded = cert->status == CERT_SUPERSEDED && hold;
	item->result.changed = cert->change;
	item->result.revoked_at_s = cert->reason >= 0 ? cert->revoked_at_s : now_s;
	item->result.reason = cert->change || cert->reason < 0 ? item->reason :
		(enum revocation_reason)cert->reason;
}

enum status
db_revocation_mark(struct db_tx *tx, const struct db_cert_ref *refs, size_t count, struct err *err)
{
	own_struct(refs) arrays = REFS;

	for (size_t i = 0; i < count; i++)
		TRY(refs_add(&arrays, i, &refs[i], err));
	TRY(db_run(tx, &SQL[REVOKE_MARK], DB_PARAMS(db_array(&arrays.issuers),
		db_array(&arrays.serials)), NULL, err));
	return db_run(tx, &SQL[REVOKE_NOTIFY], DB_PARAMS(db_array(&arrays.issuers),
		db_array(&arrays.serials)), NULL, err);
}

/* Writes the changes; the rows are locked. */
static enum status
write_changes(struct db_tx *tx, const struct db_revoke_item *items, const struct found *certs,
	size_t count, int64_t now_s, struct err *err)
{
	own_struct(refs) all = REFS;
	own_struct(refs) final = REFS;
	own_struct(db_array) reasons = DB_ARRAY(ARRAY_INT4);
	own_struct(db_array) devices = DB_ARRAY(ARRAY_TEXT);

	for (size_t i = 0; i < count; i++) {
		if (!certs[i].change)
			continue;
		TRY(refs_add(&all, i, &items[i].ref, err));
		TRY(db_array_add_int(&reasons, items[i].reason, err));
		if (items[i].reason != REASON_CERTIFICATE_HOLD)
			TRY(refs_add(&final, i, &items[i].ref, err));
		if (certs[i].of_device)
			TRY(db_array_add_text(&devices, certs[i].device_id, err));
	}
	if (all.serials.count == 0)
		return OK;
	TRY(db_run(tx, &SQL[REVOKE_WRITE], DB_PARAMS(db_array(&all.issuers), db_array(&all.serials),
		db_array(&reasons), db_int64(now_s)), NULL, err));
	if (devices.count > 0) {
		TRY(db_run(tx, &SQL[REVOKE_SLOTS], DB_PARAMS(db_array(&final.issuers),
			db_array(&final.serials), db_array(&devices)), NULL, err));
		TRY(db_run(tx, &SQL[REVOKE_DEVICES], DB_PARAMS(db_array(&devices),
			db_text("revocation")), NULL, err));
	}
	TRY(db_run(tx, &SQL[REVOKE_OTHERS], DB_PARAMS(db_array(&all.issuers),
		db_array(&all.serials)), NULL, err));
	TRY(db_run(tx, &SQL[REVOKE_MARK], DB_PARAMS(db_array(&all.issuers),
		db_array(&all.serials)), NULL, err));
	return db_run(tx, &SQL[REVOKE_NOTIFY], DB_PARAMS(db_array(&all.issuers),
		db_array(&all.serials)), NULL, err);
}

enum status
db_revocation_revoke_many(struct db_tx *tx, struct db_revoke_item *items, size_t count,
	int64_t now_s, struct err *err)
{
	own(found) certs = mem_array(count, sizeof(*certs));
	own_struct(refs) refs = REFS;

	if (certs == NULL)
		return err_memory(err);
	if (count == 0)
		return OK;
	TRY(read_fixed(tx, items, certs, count, &refs, err));
	TRY(block_keys(tx, items, certs, count, err));
	TRY(lock_and_read(tx, certs, count, &refs, err));
	for (size_t i = 0; i < count; i++)
		judge(&items[i], &certs[i], now_s);
	return write_changes(tx, items, certs, count, now_s, err);
}

enum status
db_revocation_revoke(struct db_tx *tx, const struct db_cert_ref *ref, enum revocation_reason reason,
	int64_t now_s, struct db_revoke_result *out, struct err *err)
{
	struct db_revoke_item item = { .ref = *ref, .reason = reason };

	TRY(db_revocation_revoke_many(tx, &item, 1, now_s, err));
	if (item.superseded)
		return err_set(err, ERR_CONFLICT, "certificate_superseded",
			"certificate: a live one wanted to be held, a superseded one found");
	*out = item.result;
	return OK;
}

/* Locks one certificate with its device and slot, and reads it. */
static enum status
open_one(struct db_tx *tx, const struct db_cert_ref *ref, struct found *cert, struct err *err)
{
	own_struct(refs) refs = REFS;
	struct db_revoke_item item = { .ref = *ref };

	TRY(read_fixed(tx, &item, cert, 1, &refs, err));
	return lock_and_read(tx, cert, 1, &refs, err);
}

static enum status
touch_device(struct db_tx *tx, const char *device_id, const char *cause, struct err *err)
{
	own_struct(db_array) devices = DB_ARRAY(ARRAY_TEXT);

	TRY(db_array_add_text(&devices, device_id, err));
	return db_run(tx, &SQL[REVOKE_DEVICES], DB_PARAMS(db_array(&devices), db_text(cause)), NULL,
		err);
}

enum status
db_revocation_unhold(struct db_tx *tx, const struct db_cert_ref *ref, struct err *err)
{
	struct found cert = { 0 };

	TRY(open_one(tx, ref, &cert, err));
	if (cert.status != CERT_HELD)
		return err_set(err, ERR_CONFLICT, "certificate_not_held",
			"certificate: a held one wanted, %s found", cert_status_name(cert.status));
	TRY(db_run(tx, &SQL[UNHOLD_WRITE], DB_PARAMS(db_int64(ref->issuer_id),
		db_serial(&ref->serial)), NULL, err));
	if (cert.of_device)
		TRY(touch_device(tx, cert.device_id, "unhold", err));
	return db_revocation_mark(tx, ref, 1, err);
}

static enum status
set_status(struct db_tx *tx, const struct db_cert_ref *ref, enum cert_status status, int64_t now_s,
	struct err *err)
{
	return db_run(tx, &SQL[CONFIRM_WRITE], DB_PARAMS(db_int64(ref->issuer_id),
		db_serial(&ref->serial), db_text(cert_status_name(status)), db_int64(now_s)), NULL,
		err);
}

enum status
db_revocation_confirm(struct db_tx *tx, const struct db_cert_ref *successor, bool revoke,
	int64_t now_s, struct db_cert_ref *predecessor, bool *changed, struct err *err)
{
	own(PGresult) rows = NULL;
	struct found cert = { 0 };
	struct db_cert_ref pointer;
	struct db_cert_ref current;
	struct db_cert_ref next;
	enum cert_status status;
	enum cert_status current_status;
	int64_t not_after_s;
	char device_status[16];
	struct db_row row;

	TRY(open_one(tx, successor, &cert, err));
	TRY(db_run(tx, &SQL[CONFIRM_READ], DB_PARAMS(db_int64(successor->issuer_id),
		db_serial(&successor->serial)), &rows, err));
	row = db_row(rows, 0);
	status = db_row_cert_status(&row);
	not_after_s = db_row_int64(&row);
	db_row_ref(&row, &pointer);
	db_row_ref(&row, &current);
	db_row_ref(&row, &next);
	current_status = db_row_cert_status(&row);
	db_row_text(&row, device_status, sizeof(device_status));
	TRY(db_row_end(&row, err));

	if (strcmp(device_status, "quarantined") == 0)
		return err_set(err, ERR_DENIED, "device_quarantined", "device: %s is quarantined",
			cert.device_id);
	if (status == CERT_ACTIVE && db_ref_equal(&current, successor) && pointer.issuer_id != 0) {
		*predecessor = pointer;
		*changed = false;
		return OK;
	}
	if (status != CERT_PENDING_CONFIRMATION || not_after_s <= now_s ||
	    !db_ref_equal(&next, successor))
		return err_set(err, ERR_CONFLICT, "not_a_successor",
			"certificate: the unconfirmed successor of its device wanted, %s found",
			not_after_s <= now_s ? "an expired one" : cert_status_name(status));

	TRY(db_run(tx, &SQL[CONFIRM_SLOT], DB_PARAMS(db_int64(successor->issuer_id),
		db_serial(&successor->serial), db_text(cert.device_id)), NULL, err));
	TRY(set_status(tx, successor, CERT_ACTIVE, now_s, err));
	if (current_status == CERT_ACTIVE && !revoke)
		TRY(set_status(tx, &current, CERT_SUPERSEDED, now_s, err));
	/* A held predecessor stays on the CRL for good: nobody is left to lift the hold for. */
	else if (current_status == CERT_ACTIVE || current_status == CERT_HELD) {
		struct db_revoke_item item = { .ref = current, .reason = REASON_SUPERSEDED };

		TRY(db_revocation_revoke_many(tx, &item, 1, now_s, err));
	}
	*predecessor = current.issuer_id != 0 ? current : pointer;
	*changed = true;
	return touch_device(tx, cert.device_id, "confirmed", err);
}

enum status
db_revocation_of_device(struct db_tx *tx, const char *device_id, struct db_cert_ref *out, size_t max,
	size_t *count, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[OF_DEVICE], DB_PARAMS(db_text(device_id), db_int64((int64_t)max)), &rows,
		err));
	for (int r = 0; r < db_rows(rows); r++) {
		struct db_row row = db_row(rows, r);

		db_row_ref(&row, &out[r]);
		TRY(db_row_end(&row, err));
	}
	*count = (size_t)db_rows(rows);
	return OK;
}
