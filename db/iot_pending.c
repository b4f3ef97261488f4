#include "db/iot_pending.h"

#include <assert.h>
#include <string.h>

#include "base/mem.h"
#include "db/iot.h"
#include "db/outbox.h"
#include "db/run.h"

enum { KNOWN, OURS, PUT, PUT_DEVICES, STATEMENTS };

/* In one order, so that two who come with the same certificates do not wait for each other. */
static const struct db_statement SQL[STATEMENTS] = {
	[KNOWN] = { /* iot_certificate_pkey, outbox_pkey */
		.name = "iot_pending_known", .params = 3, .columns = 5, .rows = ROWS_ANY,
		.sql = "SELECT i.idx, x.status, coalesce(" SQL_US("x.event_at") ", 0), "
		       SQL_US("x.observed_at") ", EXISTS (SELECT FROM jitrca.outbox o WHERE o.device_id ="
		       " coalesce(x.device_id, 'certificate/' || encode(x.sha256, 'hex')))"
		       " FROM unnest($2::int[], $3::bytea[]) AS i(idx, sha256)"
		       " JOIN jitrca.iot_certificate x ON x.target = $1::text AND x.sha256 = i.sha256"
		       " ORDER BY x.sha256 FOR NO KEY UPDATE OF x",
	},
	[OURS] = { /* certificate_sha256, of each partition; device_pkey */
		.name = "iot_pending_ours", .params = 2, .columns = 4, .rows = ROWS_ANY,
		.sql = "SELECT i.idx, c.issuer_id, c.serial, coalesce(d.device_id, '')"
		       " FROM unnest($1::int[], $2::bytea[]) AS i(idx, sha256) CROSS JOIN LATERAL"
		       " (SELECT * FROM jitrca.certificate c WHERE c.sha256 = i.sha256 LIMIT 1) c"
		       " LEFT JOIN jitrca.device d ON d.device_id = c.device_id AND c.of_device",
	},
	[PUT] = { /* iot_certificate_pkey */
		.name = "iot_pending_put", .params = 6, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO jitrca.iot_certificate AS x (target, sha256, issuer_id, serial,"
		       " device_id, status, event_at) SELECT $1::text, i.sha256, i.issuer_id, i.serial,"
		       " nullif(i.device_id, ''), 'PENDING_ACTIVATION', " SQL_AT_US("i.at_us")
		       " FROM unnest($2::bytea[], $3::int[], $4::bytea[], $5::text[], $6::bigint[])"
		       " AS i(sha256, issuer_id, serial, device_id, at_us) ORDER BY i.sha256"
		       " ON CONFLICT (target, sha256) DO UPDATE SET status = EXCLUDED.status,"
		       " issuer_id = coalesce(EXCLUDED.issuer_id, x.issuer_id),"
		       " serial = coalesce(EXCLUDED.serial, x.serial),"
		       " device_id = coalesce(EXCLUDED.device_id, x.device_id),"
		       " event_at = greatest(x.event_at, EXCLUDED.event_at), observed_at = now()",
	},
	[PUT_DEVICES] = { /* device_pkey, outbox_pkey */
		.name = "iot_pending_put_devices", .params = 3, .columns = 0, .rows = ROWS_NONE,
		.sql = "WITH d AS (UPDATE jitrca.device d SET version = d.version + 1"
		       " WHERE d.device_id = ANY ($1::text[]) RETURNING d.device_id, d.version)"
		       " INSERT INTO jitrca.outbox AS o (device_id, version, cause, priority)"
		       " SELECT d.device_id, d.version, $2::text, $3::smallint FROM d"
		       " ORDER BY d.device_id" OUTBOX_AGAIN,
	},
};
const struct db_table DB_TABLE_IOT_PENDING = { SQL, COUNT_OF(SQL) };

/* What our own rows say of it. */
struct ours {
	struct db_cert_ref ref; /* issuer_id 0: not in the books */
	char device_id[DB_ID_BYTES];
};
typedef struct ours ours_t;
OWNER(ours_t, mem_free)

static enum status
name_all(struct db_array *indexes, struct db_array *digests, const struct db_iot_pending *list,
	size_t count, struct err *err)
{
	for (size_t i = 0; i < count; i++) {
		if (!list[i].work)
			continue;
		TRY(db_array_add_int(indexes, (int64_t)i, err));
		TRY(db_array_add_bytes(digests, (struct view){ list[i].sha256, DB_SHA256_BYTES }, err));
	}
	return OK;
}

static bool
needs_work(const char *seen, int64_t event_at_us, int64_t observed_at_us, bool queued, int64_t at_us)
{
	/* The device knocks again while we are at it, or while a dead letter waits for people. */
	if (strcmp(seen, "PENDING_ACTIVATION") == 0)
		return !queued;
	/* Said before we did what we did: a replay, or an event that was overtaken. */
	return at_us > event_at_us && at_us > observed_at_us;
}

static enum status
drop_known(struct db_tx *tx, const char *target, struct db_iot_pending *list, size_t count,
	struct err *err)
{
	own_struct(db_array) indexes = DB_ARRAY(ARRAY_INT4);
	own_struct(db_array) digests = DB_ARRAY(ARRAY_BYTEA);
	own(PGresult) rows = NULL;

	TRY(name_all(&indexes, &digests, list, count, err));
	TRY(db_run(tx, &SQL[KNOWN], DB_PARAMS(db_text(target), db_array(&indexes),
		db_array(&digests)), &rows, err));
	for (int r = 0; r < db_rows(rows); r++) {
		struct db_row row = db_row(rows, r);
		size_t i = (size_t)db_row_int32(&row);
		char seen[DB_IOT_STATUS_BYTES];

		db_row_text(&row, seen, sizeof(seen));
		int64_t event_at_us = db_row_int64(&row);
		int64_t observed_at_us = db_row_int64(&row);
		bool queued = db_row_bool(&row);
		TRY(db_row_end(&row, err));
		assert(i < count);
		list[i].work = needs_work(seen, event_at_us, observed_at_us, queued, list[i].at_us);
	}
	return OK;
}

static enum status
find_ours(struct db_tx *tx, const struct db_iot_pending *list, size_t count, struct ours *out,
	struct err *err)
{
	own_struct(db_array) indexes = DB_ARRAY(ARRAY_INT4);
	own_struct(db_array) digests = DB_ARRAY(ARRAY_BYTEA);
	own(PGresult) rows = NULL;

	TRY(name_all(&indexes, &digests, list, count, err));
	TRY(db_run(tx, &SQL[OURS], DB_PARAMS(db_array(&indexes), db_array(&digests)), &rows, err));
	for (int r = 0; r < db_rows(rows); r++) {
		struct db_row row = db_row(rows, r);
		size_t i = (size_t)db_row_int32(&row);

		assert(i < count);
		db_row_ref(&row, &out[i].ref);
		db_row_text(&row, out[i].device_id, sizeof(out[i].device_id));
		TRY(db_row_end(&row, err));
	}
	return OK;
}

static enum status
put(struct db_tx *tx, const char *target, const struct db_iot_pending *list, size_t count,
	const struct ours *ours, struct err *err)
{
	own_struct(db_array) digests = DB_ARRAY(ARRAY_BYTEA);
	own_struct(db_array) issuers = DB_ARRAY(ARRAY_INT4);
	own_struct(db_array) serials = DB_ARRAY(ARRAY_BYTEA);
	own_struct(db_array) devices = DB_ARRAY(ARRAY_TEXT);
	own_struct(db_array) times = DB_ARRAY(ARRAY_INT8);

	for (size_t i = 0; i < count; i++) {
		bool known = ours[i].ref.issuer_id != 0;

		if (!list[i].work)
			continue;
		TRY(db_array_add_bytes(&digests, (struct view){ list[i].sha256, DB_SHA256_BYTES }, err));
		TRY(db_array_add_int(&issuers, known ? ours[i].ref.issuer_id : list[i].issuer_id, err));
		if (known)
			TRY(db_array_add_serial(&serials, &ours[i].ref.serial, err));
		else
			TRY(db_array_add_null(&serials, err));
		TRY(db_array_add_text(&devices, ours[i].device_id, err));
		TRY(db_array_add_int(&times, list[i].at_us, err));
	}
	return db_run(tx, &SQL[PUT], DB_PARAMS(db_text(target), db_array(&digests), db_array(&issuers),
		db_array(&serials), db_array(&devices), db_array(&times)), NULL, err);
}

static enum status
put_into_outbox(struct db_tx *tx, const struct db_iot_pending *list, size_t count,
	const struct ours *ours, const char *cause, struct err *err)
{
	own_struct(db_array) devices = DB_ARRAY(ARRAY_TEXT);

	for (size_t i = 0; i < count; i++)
		if (list[i].work && ours[i].device_id[0] != '\0')
			TRY(db_array_add_text(&devices, ours[i].device_id, err));
	if (devices.count > 0)
		TRY(db_run(tx, &SQL[PUT_DEVICES], DB_PARAMS(db_array(&devices), db_text(cause),
			db_int64(OUTBOX_GIVES)), NULL, err));
	for (size_t i = 0; i < count; i++) { /* services and strangers: few */
		char id[DB_IOT_ID_BYTES];

		hex_encode(id, list[i].sha256, DB_SHA256_BYTES);
		if (list[i].work && ours[i].device_id[0] == '\0')
			TRY(db_outbox_put_certificate(tx, id, cause, OUTBOX_GIVES, err));
	}
	return OK;
}

enum status
db_iot_pending(struct db_tx *tx, const char *target, struct db_iot_pending *list, size_t count,
	const char *cause, struct err *err)
{
	own(ours_t) ours = mem_array(count, sizeof(*ours));
	bool any = false;

	if (ours == NULL)
		return err_memory(err);
	for (size_t i = 0; i < count; i++)
		list[i].work = true;
	TRY(drop_known(tx, target, list, count, err));
	for (size_t i = 0; i < count; i++)
		any |= list[i].work;
	if (!any)
		return OK;
	TRY(find_ours(tx, list, count, ours, err));
	TRY(put(tx, target, list, count, ours, err));
	return put_into_outbox(tx, list, count, ours, cause, err);
}
