#include "db/admit.h"

#include <assert.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

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
	ADMIT_RECLAIM,
	ADMIT_INTENT,
	ADMIT_IDEMPOTENCY_POINT,
	ADMIT_IDEMPOTENCY_UNDO,
	ADMIT_KEY_UNDO,
	ADMIT_SLOT_UNDO,
	STATEMENTS,
};

/* The row of a certificate, found in the one partition that its serial names (OFFSET 0: never joined
 * by reading the table). */
#define CERTIFICATE_OF(issuer, serial_of, alias)                                                   \
	" LEFT JOIN LATERAL (SELECT c.status, c.not_after > now() AS lasts, c.principal_id"            \
	" FROM jitrca.certificate c"                                                                   \
	" WHERE c.expiry_month = jitrca.serial_month(" serial_of ") AND c.issuer_id = " issuer         \
	" AND c.serial = " serial_of " OFFSET 0) " alias " ON true"

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
	[ADMIT_IDEMPOTENCY_READ] = { /* idempotency_pkey */
		.name = "admit_idempotency_read", .params = 3, .columns = 5, .rows = ROWS_ANY,
		.sql = "SELECT i.idx, d.request_hash, d.issuer_id, d.serial, " INTENT_OPEN("d.serial")
		       " FROM unnest($1::int[], $2::text[], $3::text[]) AS i(idx, principal_id, key)"
		       " JOIN jitrca.idempotency d ON d.principal_id = i.principal_id AND d.key = i.key",
	},
	[ADMIT_KEY_CLAIM] = {
		.name = "admit_key_claim", .params = 5, .columns = 1, .rows = ROWS_ANY,
		.sql = "INSERT INTO jitrca.key_claim"
		       " (spki_sha256, identity, profile, issuer_id, serial)"
		       " SELECT * FROM unnest($1::bytea[], $2::text[], $3::text[], $4::int[], $5::bytea[])"
		       " AS i(spki, identity, profile, issuer, serial)"
		       " ORDER BY i.spki ON CONFLICT DO NOTHING RETURNING serial",
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
		.name = "admit_key_state", .params = 4, .columns = 5, .rows = ROWS_ANY,
		.sql = "SELECT i.idx, c.status, coalesce(c.lasts, false),"
		       " coalesce(c.principal_id = i.asker, false), " INTENT_OPEN("i.serial")
		       " FROM unnest($1::int[], $2::int[], $3::bytea[], $4::text[])"
		       " AS i(idx, issuer, serial, asker)"
		       CERTIFICATE_OF("i.issuer", "i.serial", "c"),
	},
	[ADMIT_SLOT_CLAIM] = {
		.name = "admit_slot_claim", .params = 3, .columns = 1, .rows = ROWS_ANY,
		.sql = "INSERT INTO jitrca.device_slot (device_id, current_issuer, current_serial)"
		       " SELECT * FROM unnest($1::text[], $2::int[], $3::bytea[])"
		       " AS i(device_id, issuer, serial)"
		       " ORDER BY i.device_id COLLATE \"C\" ON CONFLICT DO NOTHING RETURNING current_serial",
	},
	[ADMIT_SLOT_LOCK] = { /* device_slot_pkey */
		.name = "admit_slot_lock", .params = 2, .columns = 2, .rows = ROWS_ANY,
		.sql = "SELECT i.idx, s.claim_serial IS NOT NULL"
		       " FROM unnest($1::int[], $2::text[]) AS i(idx, device_id)"
		       " JOIN jitrca.device_slot s ON s.device_id = i.device_id"
		       " ORDER BY s.device_id FOR NO KEY UPDATE OF s",
	},
	[ADMIT_SLOT_STATE] = { /* device_slot_pkey, device_pkey, certificate_pkey */
		.name = "admit_slot_state", .params = 2, .columns = 12, .rows = ROWS_ANY,
		.sql = "SELECT i.idx, coalesce(d.status, ''), coalesce(d.version, 0),"
		       " s.current_issuer, s.current_serial,"
		       " cur.status, coalesce(cur.lasts, false),"
		       " s.successor_issuer, s.successor_serial,"
		       " suc.status, coalesce(suc.lasts, false), " INTENT_OPEN("s.current_serial")
		       " FROM unnest($1::int[], $2::text[]) AS i(idx, device_id)"
		       " JOIN jitrca.device_slot s ON s.device_id = i.device_id"
		       " LEFT JOIN jitrca.device d ON d.device_id = i.device_id"
		       CERTIFICATE_OF("s.current_issuer", "s.current_serial", "cur")
		       CERTIFICATE_OF("s.successor_issuer", "s.successor_serial", "suc"),
	},
	[ADMIT_RECLAIM] = { /* the rows are locked already; those inserted by this call name it already */
		.name = "admit_reclaim", .params = 5, .columns = 0, .rows = ROWS_NONE,
		.sql = "WITH i AS MATERIALIZED (SELECT * FROM"
		       " unnest($1::int[], $2::bytea[], $3::bytea[], $4::text[], $5::bool[])"
		       " AS i(issuer, serial, spki, identity, of_device)),"
		       " keys AS (UPDATE jitrca.key_claim k SET claim_issuer = i.issuer,"
		       " claim_serial = i.serial FROM i"
		       " WHERE k.spki_sha256 = i.spki AND k.claim_serial IS NULL"
		       " AND k.serial IS DISTINCT FROM i.serial)"
		       " UPDATE jitrca.device_slot s SET claim_issuer = i.issuer, claim_serial = i.serial"
		       " FROM i WHERE i.of_device AND s.device_id = i.identity AND s.claim_serial IS NULL"
		       " AND s.current_serial IS DISTINCT FROM i.serial",
	},
	[ADMIT_INTENT] = {
		.name = "admit_intent", .params = 11, .columns = 1, .rows = ROWS_ANY,
		.sql = "INSERT INTO jitrca.intent_round (instance_id, serials, items)"
		       " SELECT min(i.instance_id), array_agg(i.serial ORDER BY i.serial),"
		       " array_agg(ROW(i.issuer, i.serial, to_timestamp(i.not_after), i.principal_id,"
		       " nullif(i.key, ''), i.identity, i.profile, i.spki, nullif(i.manifest_id, ''),"
		       " i.charged)::jitrca.intent_item ORDER BY i.serial)"
		       " FROM unnest($1::int[], $2::int[], $3::bytea[], $4::bigint[], $5::text[],"
		       " $6::text[], $7::text[], $8::text[], $9::bytea[], $10::text[], $11::bool[])"
		       " AS i(instance_id, issuer, serial, not_after, principal_id, key, identity,"
		       " profile, spki, manifest_id, charged) RETURNING round_id",
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
		       " AS i(spki, serial) WHERE k.spki_sha256 = i.spki AND k.serial = i.serial",
	},
	[ADMIT_SLOT_UNDO] = { /* rows of this call */
		.name = "admit_slot_undo", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM jitrca.device_slot s USING unnest($1::text[], $2::bytea[])"
		       " AS i(device_id, serial) WHERE s.device_id = i.device_id"
		       " AND s.current_serial = i.serial",
	},
};

const struct db_table DB_TABLE_ADMIT = { SQL, COUNT_OF(SQL) };

static const enum column TAKES[STATEMENTS][BATCH_COLUMNS_MAX] = {
	[ADMIT_WHO] = { COL_INDEX, COL_ASKER, COL_PROFILE, COL_NAMED },
	[ADMIT_IDEMPOTENCY_CLAIM] = { COL_PRINCIPAL, COL_IDEMPOTENCY_KEY, COL_REQUEST_HASH, COL_ISSUER,
		COL_SERIAL },
	[ADMIT_IDEMPOTENCY_READ] = { COL_INDEX, COL_PRINCIPAL, COL_IDEMPOTENCY_KEY },
	[ADMIT_KEY_CLAIM] = { COL_SPKI, COL_IDENTITY, COL_PROFILE, COL_ISSUER, COL_SERIAL },
	[ADMIT_KEY_LOCK] = { COL_INDEX, COL_SPKI },
	[ADMIT_KEY_STATE] = { COL_INDEX, COL_KEY_ISSUER, COL_KEY_SERIAL, COL_PRINCIPAL },
	[ADMIT_SLOT_CLAIM] = { COL_IDENTITY, COL_ISSUER, COL_SERIAL },
	[ADMIT_SLOT_LOCK] = { COL_INDEX, COL_IDENTITY },
	[ADMIT_SLOT_STATE] = { COL_INDEX, COL_IDENTITY },
	[ADMIT_RECLAIM] = { COL_ISSUER, COL_SERIAL, COL_SPKI, COL_IDENTITY, COL_OF_DEVICE },
	[ADMIT_INTENT] = { COL_INSTANCE, COL_ISSUER, COL_SERIAL, COL_NOT_AFTER, COL_PRINCIPAL,
		COL_IDEMPOTENCY_KEY, COL_IDENTITY, COL_PROFILE, COL_SPKI, COL_MANIFEST, COL_CHARGED },
	[ADMIT_IDEMPOTENCY_POINT] = { COL_PRINCIPAL, COL_IDEMPOTENCY_KEY, COL_EXISTING_ISSUER,
		COL_EXISTING_SERIAL },
	[ADMIT_IDEMPOTENCY_UNDO] = { COL_PRINCIPAL, COL_IDEMPOTENCY_KEY, COL_SERIAL },
	[ADMIT_KEY_UNDO] = { COL_SPKI, COL_SERIAL },
	[ADMIT_SLOT_UNDO] = { COL_IDENTITY, COL_SERIAL },
};

static enum status
run_over(struct batch *b, size_t statement, PGresult **rows, struct err *err)
{
	return batch_run(b, &SQL[statement], TAKES[statement], rows, err);
}

static bool
lives(enum cert_status status, bool lasts)
{
	return lasts && (status == CERT_ACTIVE || status == CERT_PENDING_CONFIRMATION ||
		status == CERT_HELD);
}

void
admit_refuse(struct db_admit_item *item, enum status status, const char *code, const char *fmt, ...)
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

/* Who asks, and for whom: read without locks, for a principal disabled a moment later was one who
 * asked a moment earlier. */
static enum status
admit_who(struct batch *b, struct err *err)
{
	own(PGresult) rows = NULL;

	batch_pick_none(b);
	for (size_t i = 0; i < b->count; i++)
		if (b->items[i].slot != SLOT_SUCCESSOR)
			batch_pick(b, i);
	TRY(run_over(b, ADMIT_WHO, &rows, err));
	for (int r = 0; r < batch_row_count(rows); r++) {
		struct db_row row = db_row(rows, r);
		struct db_admit_item *item = &b->items[batch_row_index(&row, b)];
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
			admit_refuse(item, ERR_NOT_FOUND, "principal_unknown",
				"principal: a station wanted, %s is none", item->principal_id);
		else if (disabled)
			admit_refuse(item, ERR_DENIED, "principal_disabled",
				"principal: %s is disabled", item->principal_id);
		else if (item->needs_manifest && !profile_allowed)
			admit_refuse(item, ERR_DENIED, "profile_not_allowed_for_station",
				"profile: %s is not among those of station %s", item->profile,
				item->principal_id);
		else if (item->role_identity && strcmp(role, item->identity_role) != 0)
			admit_refuse(item, ERR_NOT_FOUND, "principal_unknown",
				"identity: a principal of role %s wanted, %s is %s",
				item->identity_role, item->identity,
				role[0] != '\0' ? role : "none");
		else if (item->role_identity && identity_disabled)
			admit_refuse(item, ERR_DENIED, "principal_disabled",
				"identity: principal %s is disabled", item->identity);
	}
	return OK;
}

/* Takes down for whom a claim was inserted: the statement gives back the serials. */
static enum status
mark_new(struct batch *b, const PGresult *rows, size_t flag_offset, struct err *err)
{
	for (int r = 0; r < batch_row_count(rows); r++) {
		struct db_row row = db_row(rows, r);
		struct serial serial;
		size_t i;

		(void)db_row_serial(&row, &serial);
		TRY(db_row_end(&row, err));
		i = batch_index(b, &serial);
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

	batch_pick_none(b);
	for (size_t i = 0; i < b->count; i++)
		if (admit_undecided(b, i) && batch_has_key(&b->items[i]))
			batch_pick(b, i);
	TRY(run_over(b, ADMIT_IDEMPOTENCY_CLAIM, &inserted, err));
	TRY(mark_new(b, inserted, offsetof(struct work, idempotency_new), err));

	batch_pick_none(b);
	for (size_t i = 0; i < b->count; i++)
		if (admit_undecided(b, i) && batch_has_key(&b->items[i]) && !b->work[i].idempotency_new)
			batch_pick(b, i);
	TRY(run_over(b, ADMIT_IDEMPOTENCY_READ, &found, err));
	/* Not found any more: it was given back since. Then, too, the client asks again. */
	for (size_t p = 0; p < b->picked; p++)
		b->items[b->pick[p]].admission = ADMISSION_BUSY;
	for (int r = 0; r < batch_row_count(found); r++) {
		struct db_row row = db_row(found, r);
		struct db_admit_item *item = &b->items[batch_row_index(&row, b)];
		uint8_t hash[DB_SHA256_BYTES];
		struct db_cert_ref ref;
		bool open;

		(void)db_row_octets(&row, hash, sizeof(hash));
		db_row_ref(&row, &ref);
		open = db_row_bool(&row);
		TRY(db_row_end(&row, err));
		if (memcmp(hash, item->request_hash, sizeof(hash)) != 0)
			admit_refuse(item, ERR_CONFLICT, "idempotency_key_reused",
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
		admit_refuse(item, ERR_DENIED, "public_key_blocked",
			"public key: it was revoked for compromise and is never certified again");
	else if (!same_identity)
		admit_refuse(item, ERR_CONFLICT, "public_key_in_use",
			"public key: one of %s wanted, that of another identity found",
			item->identity);
	/* A device and a principal may bear the same name; their profiles tell them apart. */
	else if (strcmp(profile, item->profile) != 0)
		admit_refuse(item, ERR_CONFLICT, "public_key_in_use",
			"public key: profile %s wanted, it is certified under %s", item->profile,
			profile);
	else if (claimed)
		item->admission = ADMISSION_BUSY;
}

/*
 * Asked again without a key: the live certificate (invariant 4), for who asked for it. A station is told
 * of no other's: what its manifests allow was not looked at for this one. An admin asks for anybody's.
 */
static void
judge_repeat(struct db_admit_item *item, struct db_cert_ref certificate, enum cert_status status,
	bool its_own)
{
	bool live = status == CERT_ACTIVE ||
		(item->slot == SLOT_MANY && status == CERT_PENDING_CONFIRMATION);

	/* That of a rotation is looked for where the device's slot is known. */
	if (!live || item->slot == SLOT_SUCCESSOR)
		return;
	if (its_own || !item->needs_manifest)
		replay(item, certificate);
	else if (item->slot == SLOT_MANY)
		admit_refuse(item, ERR_CONFLICT, "public_key_in_use",
			"public key: another principal has a live certificate of %s for it",
			item->identity);
	/* A device: its slot says what becomes of it, device_has_certificate or a rework. */
}

/* One public key, one identity (invariant 12). */
static enum status
admit_keys(struct batch *b, struct err *err)
{
	own(PGresult) inserted = NULL;
	own(PGresult) locked = NULL;
	own(PGresult) states = NULL;

	batch_pick_none(b);
	for (size_t i = 0; i < b->count; i++)
		if (admit_undecided(b, i))
			batch_pick(b, i);
	TRY(run_over(b, ADMIT_KEY_CLAIM, &inserted, err));
	TRY(mark_new(b, inserted, offsetof(struct work, key_new), err));

	batch_pick_none(b);
	for (size_t i = 0; i < b->count; i++)
		if (admit_undecided(b, i) && !b->work[i].key_new)
			batch_pick(b, i);
	TRY(run_over(b, ADMIT_KEY_LOCK, &locked, err));
	for (int r = 0; r < batch_row_count(locked); r++) {
		struct db_row row = db_row(locked, r);
		size_t i = batch_row_index(&row, b);
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

	batch_pick_none(b);
	for (size_t i = 0; i < b->count; i++)
		if (admit_undecided(b, i) && b->work[i].key_certificate.issuer_id != 0)
			batch_pick(b, i);
	TRY(run_over(b, ADMIT_KEY_STATE, &states, err));
	for (int r = 0; r < batch_row_count(states); r++) {
		struct db_row row = db_row(states, r);
		size_t i = batch_row_index(&row, b);
		struct db_admit_item *item = &b->items[i];
		enum cert_status status = db_row_cert_status(&row);
		bool lasts = db_row_bool(&row);
		bool its_own = db_row_bool(&row);
		bool under_way = db_row_bool(&row);

		TRY(db_row_end(&row, err));
		if (under_way)
			item->admission = ADMISSION_BUSY;
		else if (lasts && !batch_has_key(item))
			judge_repeat(item, b->work[i].key_certificate, status, its_own);
	}
	return OK;
}

/* Rotation: the device's current certificate asks for a successor (invariant 13). */
static void
judge_successor(struct db_admit_item *item, struct work *work)
{
	if (strcmp(work->device_status, "quarantined") == 0)
		admit_refuse(item, ERR_DENIED, "device_quarantined", "device: %s is quarantined",
			item->identity);
	else if (strcmp(work->device_status, "decommissioned") == 0)
		admit_refuse(item, ERR_DENIED, "device_decommissioned", "device: %s is decommissioned",
			item->identity);
	/* An expired one may still ask: how long is the profile's grace, which is not known here. */
	else if (!db_ref_equal(&work->current, &item->predecessor) ||
	    work->current_status != CERT_ACTIVE)
		admit_refuse(item, ERR_DENIED, "certificate_not_current",
			"certificate: the current one of device %s wanted", item->identity);
	else if (work->successor_lives && work->successor_status == CERT_PENDING_CONFIRMATION &&
	    db_ref_equal(&work->key_certificate, &work->successor))
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
		admit_refuse(item, ERR_DENIED, "device_quarantined", "device: %s is quarantined",
			item->identity);
	else if (work->reviving && item->needs_manifest && !item->replace)
		admit_refuse(item, ERR_DENIED, "device_decommissioned",
			"device: %s is decommissioned; replace wanted", item->identity);
	else if (work->replacing && !item->replace)
		admit_refuse(item, ERR_CONFLICT, "device_has_certificate",
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

	batch_pick_none(b);
	for (size_t i = 0; i < b->count; i++)
		if (admit_undecided(b, i) && b->items[i].slot == SLOT_CURRENT)
			batch_pick(b, i);
	TRY(run_over(b, ADMIT_SLOT_CLAIM, &inserted, err));
	TRY(mark_new(b, inserted, offsetof(struct work, slot_new), err));

	batch_pick_none(b);
	for (size_t i = 0; i < b->count; i++)
		if (admit_undecided(b, i) && batch_of_device(&b->items[i]) && !b->work[i].slot_new)
			batch_pick(b, i);
	TRY(run_over(b, ADMIT_SLOT_LOCK, &locked, err));
	for (int r = 0; r < batch_row_count(locked); r++) {
		struct db_row row = db_row(locked, r);
		size_t i = batch_row_index(&row, b);

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
			admit_refuse(item, ERR_DENIED, "certificate_not_current",
				"certificate: device %s has none", item->identity);
	}

	batch_pick_none(b);
	for (size_t i = 0; i < b->count; i++)
		if (admit_undecided(b, i) && batch_of_device(&b->items[i]))
			batch_pick(b, i);
	TRY(run_over(b, ADMIT_SLOT_STATE, &states, err));
	for (int r = 0; r < batch_row_count(states); r++) {
		struct db_row row = db_row(states, r);
		size_t i = batch_row_index(&row, b);
		struct work *work = &b->work[i];
		bool under_way;

		db_row_text(&row, work->device_status, sizeof(work->device_status));
		work->device_version = db_row_int64(&row);
		db_row_ref(&row, &work->current);
		work->current_status = db_row_cert_status(&row);
		work->current_lives = lives(work->current_status, db_row_bool(&row));
		db_row_ref(&row, &work->successor);
		work->successor_status = db_row_cert_status(&row);
		work->successor_lives = lives(work->successor_status, db_row_bool(&row));
		under_way = db_row_bool(&row);
		TRY(db_row_end(&row, err));
		if (under_way)
			b->items[i].admission = ADMISSION_BUSY;
		else if (b->items[i].slot == SLOT_SUCCESSOR)
			judge_successor(&b->items[i], work);
		else
			judge_current(&b->items[i], work);
	}
	return OK;
}

/* What was inserted for items that are not admitted goes again; what was there before is as it was. */
static enum status
admit_undo(struct batch *b, struct err *err)
{
	batch_pick_none(b);
	for (size_t i = 0; i < b->count; i++)
		if (b->work[i].idempotency_new && b->items[i].admission == ADMISSION_REPLAY)
			batch_pick(b, i); /* the key now stands for the certificate that was found */
	TRY(run_over(b, ADMIT_IDEMPOTENCY_POINT, NULL, err));
	batch_pick_none(b);
	for (size_t i = 0; i < b->count; i++)
		if (b->work[i].idempotency_new && (b->items[i].admission == ADMISSION_REFUSED ||
		    b->items[i].admission == ADMISSION_BUSY))
			batch_pick(b, i);
	TRY(run_over(b, ADMIT_IDEMPOTENCY_UNDO, NULL, err));
	batch_pick_none(b);
	for (size_t i = 0; i < b->count; i++)
		if (b->work[i].key_new && b->items[i].admission != ADMISSION_ADMITTED)
			batch_pick(b, i);
	TRY(run_over(b, ADMIT_KEY_UNDO, NULL, err));
	batch_pick_none(b);
	for (size_t i = 0; i < b->count; i++)
		if (b->work[i].slot_new && b->items[i].admission != ADMISSION_ADMITTED)
			batch_pick(b, i);
	return run_over(b, ADMIT_SLOT_UNDO, NULL, err);
}

static enum status
admit_intents(struct batch *b, struct err *err)
{
	own(PGresult) rows = NULL;

	batch_pick_none(b);
	for (size_t i = 0; i < b->count; i++)
		if (b->items[i].admission == ADMISSION_ADMITTED)
			batch_pick(b, i);
	TRY(run_over(b, ADMIT_INTENT, &rows, err));
	if (batch_row_count(rows) == 0)
		return OK;
	struct db_row row = db_row(rows, 0);
	int64_t round = db_row_int64(&row);
	for (size_t p = 0; p < b->picked; p++) {
		size_t i = b->pick[p];

		b->items[i].intent_round = round;
		b->items[i].fresh = b->work[i].key_new && b->work[i].slot_new;
	}
	return db_row_end(&row, err);
}

enum status
db_issuance_admit(struct db_tx *tx, int32_t instance_id, struct db_admit_item *items, size_t count,
	struct err *err)
{
	own_struct(batch) b = { .tx = tx, .instance_id = instance_id, .items = items, .count = count };
	bool plain = false;

	for (size_t i = 0; i < count; i++) {
		assert(items[i].slot != SLOT_UNSET);
		items[i].admission = ADMISSION_UNSET;
		items[i].existing = items[i].replaced = (struct db_cert_ref){ 0 };
		items[i].manifest_id[0] = '\0';
		items[i].manifest_charged = items[i].line_told = items[i].fresh = false;
		items[i].intent_round = 0;
		items[i].revives_version = 0;
	}
	TRY(batch_prepare(&b, err));
	if (db_tx_is_fresh(tx) && admit_may_be_plain(&b)) {
		TRY(admit_plain(&b, &plain, err));
		if (plain)
			return OK;
		TRY(db_tx_restart(tx, err));
	}
	TRY(admit_who(&b, err));
	TRY(admit_idempotency(&b, err));
	TRY(admit_keys(&b, err));
	TRY(admit_slots(&b, err));
	TRY(admit_charge(&b, err));

	for (size_t i = 0; i < count; i++)
		if (admit_undecided(&b, i))
			items[i].admission = ADMISSION_ADMITTED;
	batch_pick_none(&b);
	for (size_t i = 0; i < count; i++)
		if (items[i].admission == ADMISSION_ADMITTED &&
		    (b.work[i].key_old || b.work[i].slot_old))
			batch_pick(&b, i);
	TRY(run_over(&b, ADMIT_RECLAIM, NULL, err));
	TRY(admit_intents(&b, err));
	return admit_undo(&b, err);
}
