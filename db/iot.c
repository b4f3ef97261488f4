#include "db/iot.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "db/conn.h"
#include "db/run.h"

enum {
	OF_DEVICES,
	FIND,
	RECORD,
	ANNOUNCE,
	VIEWS,
	ACTIVE,
	DEVICE_STATES,
	DEVICES_RECORD,
	GROUPS_GIVE,
	GROUPS_KEEP,
	GROUPS_ANY,
	DEVICES_IDLE,
	CA_PUT,
	CA_FIND,
	CA_LIST,
	TARGETS_SERVE,
	QUOTA_TAKE,
	QUOTA_WAIT,
	QUOTA_RESERVE,
	WALK_FIND,
	WALK_PUT,
	WALK_ASK,
	LEAD,
	STATEMENTS,
};

/* The row of a target that is no bucket: bucket_at says when a server last had the target. */
#define SERVED "'served'"

#define CERTIFICATE_COLUMNS                                                                        \
	"coalesce(x.sha256, c.sha256), coalesce(x.status, ''),"                                        \
	" coalesce(" SQL_US("x.event_at") ", 0), c.issuer_id, c.serial, coalesce(c.status, ''),"       \
	" coalesce(" SQL_S("c.not_after") ", 0), coalesce(c.profile, ''),"                             \
	" CASE WHEN c.of_device THEN c.device_id ELSE '' END, coalesce(x.under_way, false)"
#define CERTIFICATE_COLUMN_COUNT 11
/* One look-up by primary key for a row: the OFFSET 0 keeps it so. */
#define CERTIFICATE_AT(issuer, serial)                                                             \
	"(SELECT * FROM jitrca.certificate c WHERE c.expiry_month = jitrca.serial_month(" serial ")"   \
	" AND c.issuer_id = " issuer " AND c.serial = " serial " OFFSET 0) c ON true"
#define CA_COLUMNS                                                                                 \
	"a.target, a.issuer_id, a.account, a.region, a.ca_certificate_id, a.mode, a.status,"           \
	" a.auto_registration, " SQL_S("a.registered_at") ", " SQL_S("a.observed_at")
#define CA_COLUMN_COUNT 10
/* What a bucket holds by now. $3 per second, $4 at most. */
#define BUCKET                                                                                     \
	"least($4::float8, q.bucket + greatest(0, extract(epoch FROM clock_timestamp() - q.bucket_at))" \
	" * $3::float8)"

static const struct db_statement SQL[STATEMENTS] = {
	[OF_DEVICES] = {
		/* iot_certificate_device, device_slot_pkey, iot_certificate_pkey, certificate_pkey. Making
		 * ready to look into all months costs more than looking: so for many at once. */
		.name = "iot_certificates_of_devices", .params = 4,
		.columns = 1 + CERTIFICATE_COLUMN_COUNT, .rows = ROWS_ANY,
		.sql = "SELECT i.idx, z.* FROM unnest($2::int[], $3::text[]) AS i(idx, device_id)"
		       " CROSS JOIN LATERAL ("
		       "WITH s AS MATERIALIZED (SELECT v.issuer, v.serial FROM jitrca.device_slot d,"
		       " LATERAL (VALUES (d.current_issuer, d.current_serial),"
		       " (d.successor_issuer, d.successor_serial)) AS v(issuer, serial)"
		       " WHERE d.device_id = i.device_id AND v.issuer IS NOT NULL)"
		       " SELECT " CERTIFICATE_COLUMNS ", (c.issuer_id, c.serial) IN (SELECT * FROM s)"
		       " FROM jitrca.iot_certificate x LEFT JOIN LATERAL "
		       CERTIFICATE_AT("x.issuer_id", "x.serial")
		       " WHERE x.device_id = i.device_id AND x.target = $1::text"
		       " AND (x.status <> 'DELETED' OR x.under_way)"
		       " AND NOT (x.status = 'REVOKED' AND coalesce(c.status, '') = 'revoked')"
		       " UNION ALL SELECT " CERTIFICATE_COLUMNS ", true FROM s JOIN LATERAL "
		       CERTIFICATE_AT("s.issuer", "s.serial")
		       " LEFT JOIN jitrca.iot_certificate x ON x.target = $1::text"
		       " AND x.sha256 = c.sha256 WHERE x.sha256 IS NULL"
		       " OR (x.status = 'DELETED' AND NOT x.under_way)"
		       " ORDER BY 11 DESC NULLS LAST, 2, 7 DESC, 1 LIMIT $4::bigint) z",
	},
	[FIND] = { /* iot_certificate_pkey, certificate_sha256 */
		.name = "iot_certificate_find", .params = 2, .columns = CERTIFICATE_COLUMN_COUNT,
		.rows = ROWS_ANY,
		.sql = "SELECT " CERTIFICATE_COLUMNS ", false"
		       " FROM (SELECT * FROM jitrca.iot_certificate x WHERE x.target = $1::text"
		       " AND x.sha256 = $2::bytea) x FULL JOIN (SELECT * FROM jitrca.certificate c"
		       " WHERE c.sha256 = $2::bytea LIMIT 1) c ON x.sha256 = c.sha256 LIMIT 1",
	},
	[RECORD] = { /* iot_certificate_pkey; in one order, as db/iot_pending.c */
		.name = "iot_certificates_record", .params = 7, .columns = 2, .rows = ROWS_ANY,
		.sql = "INSERT INTO jitrca.iot_certificate AS x (target, sha256, issuer_id, serial,"
		       " device_id, status, activated_at) SELECT $1::text, i.sha256, i.issuer_id, i.serial,"
		       " nullif(i.device_id, ''), i.status, CASE WHEN i.status = 'ACTIVE' THEN now() END"
		       " FROM unnest($2::bytea[], $3::int[], $4::bytea[], $5::text[], $6::text[])"
		       " AS i(sha256, issuer_id, serial, device_id, status) ORDER BY i.sha256"
		       " ON CONFLICT (target, sha256) DO UPDATE SET status = EXCLUDED.status,"
		       " issuer_id = coalesce(EXCLUDED.issuer_id, x.issuer_id),"
		       " serial = coalesce(EXCLUDED.serial, x.serial),"
		       " device_id = coalesce(EXCLUDED.device_id, x.device_id),"
		       " activated_at = coalesce(EXCLUDED.activated_at, x.activated_at),"
		       " under_way = x.under_way AND $7::bigint IS NOT NULL, observed_at = now()"
		       " WHERE $7::bigint IS NULL OR x.observed_at < " SQL_AT_US("$7")
		       " RETURNING x.sha256, coalesce(" SQL_US("clock_timestamp() - x.event_at") ", 0)",
	},
	[ANNOUNCE] = { /* iot_certificate_pkey */
		.name = "iot_certificate_announce", .params = 5, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO jitrca.iot_certificate AS x (target, sha256, issuer_id, serial,"
		       " device_id, status, under_way) VALUES ($1::text, $2::bytea, $3::int, $4::bytea,"
		       " $5::text, 'DELETED', true) ON CONFLICT (target, sha256) DO UPDATE"
		       " SET under_way = true",
	},
	[VIEWS] = { /* iot_certificate_pkey, for each target that is given */
		.name = "iot_certificate_views", .params = 2, .columns = 3, .rows = ROWS_ANY,
		.sql = "SELECT x.target, x.status, " SQL_S("x.observed_at")
		       " FROM (SELECT DISTINCT a.target FROM jitrca.iot_ca a) a"
		       " JOIN jitrca.iot_certificate x ON x.target = a.target AND x.sha256 = $1::bytea"
		       " ORDER BY x.target LIMIT $2::bigint",
	},
	[ACTIVE] = { /* iot_certificate_pkey */
		.name = "iot_certificates_active", .params = 2, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT NOT EXISTS (SELECT FROM unnest($1::text[]) AS t(target),"
		       " unnest($2::bytea[]) AS i(sha256) WHERE NOT EXISTS (SELECT"
		       " FROM jitrca.iot_certificate x WHERE x.target = t.target"
		       " AND x.sha256 = i.sha256 AND x.status = 'ACTIVE'))",
	},
	[DEVICE_STATES] = { /* iot_device_pkey, iot_thing_group_pkey */
		.name = "iot_device_states", .params = 3, .columns = 3, .rows = ROWS_ANY,
		.sql = "SELECT i.idx, coalesce(d.state, ''), coalesce(g.names, '')"
		       " FROM unnest($2::int[], $3::text[]) AS i(idx, device_id)"
		       " LEFT JOIN jitrca.iot_device d ON d.target = $1::text"
		       " AND d.device_id = i.device_id CROSS JOIN LATERAL"
		       " (SELECT string_agg(n.thing_group, E'\n') AS names FROM (SELECT t.thing_group"
		       " FROM jitrca.iot_thing_group t WHERE t.target = $1::text"
		       " AND t.device_id = i.device_id ORDER BY t.thing_group LIMIT 20) n) g",
	},
	[GROUPS_GIVE] = { /* iot_thing_group_pkey */
		.name = "iot_groups_give", .params = 3, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO jitrca.iot_thing_group (target, device_id, thing_group)"
		       " SELECT $1::text, $2::text, n.name FROM unnest($3::text[]) AS n(name)"
		       " ORDER BY n.name ON CONFLICT DO NOTHING",
	},
	[GROUPS_KEEP] = { /* iot_thing_group_pkey */
		.name = "iot_groups_keep", .params = 3, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM jitrca.iot_thing_group t WHERE t.target = $1::text"
		       " AND t.device_id = $2::text AND t.thing_group <> ALL ($3::text[])",
	},
	[GROUPS_ANY] = { /* iot_thing_group_pkey */
		.name = "iot_groups_any", .params = 1, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT EXISTS (SELECT FROM jitrca.iot_thing_group t WHERE t.target = $1::text)",
	},
	[DEVICES_RECORD] = { /* iot_device_pkey */
		.name = "iot_devices_record", .params = 4, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO jitrca.iot_device AS d (target, device_id, version, state)"
		       " SELECT $1::text, i.device_id, i.version, i.state"
		       " FROM unnest($2::text[], $3::bigint[], $4::text[]) AS i(device_id, version, state)"
		       " ORDER BY i.device_id"
		       " ON CONFLICT (target, device_id) DO UPDATE SET version = EXCLUDED.version,"
		       " state = EXCLUDED.state, applied_at = now() WHERE d.version <= EXCLUDED.version",
	},
	[DEVICES_IDLE] = {
		/* iot_certificate_device, iot_device_pkey, device_slot_pkey, certificate_pkey */
		.name = "iot_devices_idle", .params = 4, .columns = 1, .rows = ROWS_ANY,
		.sql = "SELECT i.idx FROM unnest($1::int[], $2::text[]) AS i(idx, device_id)"
		       " WHERE NOT EXISTS (SELECT FROM jitrca.iot_certificate x"
		       " WHERE x.device_id = i.device_id) AND NOT EXISTS (SELECT"
		       " FROM unnest($3::text[]) AS t(target) JOIN jitrca.iot_device d"
		       " ON d.target = t.target AND d.device_id = i.device_id)"
		       " AND NOT EXISTS (SELECT FROM jitrca.device_slot s,"
		       " LATERAL (VALUES (s.current_issuer, s.current_serial),"
		       " (s.successor_issuer, s.successor_serial)) AS v(issuer, serial) JOIN LATERAL "
		       CERTIFICATE_AT("v.issuer", "v.serial")
		       " WHERE s.device_id = i.device_id AND cardinality($4::text[]) > 0"
		       " AND c.profile = ANY ($4::text[]))",
	},
	[CA_PUT] = { /* iot_ca_pkey */
		.name = "iot_ca_put", .params = 8, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO jitrca.iot_ca AS a (target, issuer_id, account, region,"
		       " ca_certificate_id, mode, status, auto_registration) VALUES ($1::text, $2::int,"
		       " $3::text, $4::text, $5::text, $6::text, $7::text, $8::bool)"
		       " ON CONFLICT (target, issuer_id) DO UPDATE SET account = EXCLUDED.account,"
		       " region = EXCLUDED.region, ca_certificate_id = EXCLUDED.ca_certificate_id,"
		       " mode = EXCLUDED.mode, status = EXCLUDED.status,"
		       " auto_registration = EXCLUDED.auto_registration, observed_at = now()",
	},
	[CA_FIND] = { /* iot_ca_pkey */
		.name = "iot_ca_find", .params = 2, .columns = CA_COLUMN_COUNT, .rows = ROWS_MAYBE,
		.sql = "SELECT " CA_COLUMNS " FROM jitrca.iot_ca a WHERE a.target = $1::text"
		       " AND a.issuer_id = $2::int",
	},
	[CA_LIST] = { /* a few rows */
		.name = "iot_ca_list", .params = 1, .columns = CA_COLUMN_COUNT, .rows = ROWS_ANY,
		.sql = "SELECT " CA_COLUMNS " FROM jitrca.iot_ca a ORDER BY a.target, a.issuer_id"
		       " LIMIT $1::bigint",
	},
	[TARGETS_SERVE] = {
		/* iot_quota_pkey; read whole: some operations of at most eight targets. In one order, so that
		 * two servers do not wait for each other. */
		.name = "iot_targets_serve", .params = 2, .columns = 1, .rows = ROWS_ONE,
		.sql = "WITH t AS (INSERT INTO jitrca.iot_quota AS q (target, operation, bucket)"
		       " SELECT a.target, " SERVED ", 0 FROM unnest($1::text[]) AS a(target)"
		       " ORDER BY a.target COLLATE \"C\""
		       " ON CONFLICT (target, operation) DO UPDATE SET bucket_at = now())"
		       " SELECT left(coalesce(string_agg(q.target, ', ' ORDER BY q.target), ''), 250)"
		       " FROM jitrca.iot_quota q WHERE q.operation = " SERVED
		       " AND q.bucket_at > now() - $2::int * interval '1 day'"
		       " AND q.target <> ALL ($1::text[])",
	},
	[QUOTA_TAKE] = {
		/* iot_quota_pkey. All servers wait for the row until it is committed: not for the disk as
		 * well. What a crash of the database forgets is what was taken in its last half second. */
		.name = "iot_quota_take", .params = 5, .columns = 1, .rows = ROWS_MAYBE,
		.sql = "INSERT INTO jitrca.iot_quota AS q (target, operation, bucket)"
		       " SELECT $1::text, $2::text, $4::float8 - $5::float8"
		       " FROM set_config('synchronous_commit', 'off', true)"
		       " ON CONFLICT (target, operation) DO UPDATE SET bucket = " BUCKET
		       " - $5::float8, bucket_at = clock_timestamp()"
		       " WHERE " BUCKET " >= 1 RETURNING true",
	},
	[QUOTA_WAIT] = { /* iot_quota_pkey */
		.name = "iot_quota_wait", .params = 4, .columns = 1, .rows = ROWS_MAYBE,
		.sql = "SELECT ceil(greatest(0, 1 - " BUCKET ") / $3::float8 * 1000)::bigint"
		       " FROM jitrca.iot_quota q WHERE q.target = $1::text AND q.operation = $2::text",
	},
	[QUOTA_RESERVE] = { /* iot_quota_pkey */
		.name = "iot_quota_reserve", .params = 5, .columns = 1, .rows = ROWS_MAYBE,
		.sql = "UPDATE jitrca.iot_quota q SET bucket = " BUCKET " - 1,"
		       " bucket_at = clock_timestamp() WHERE q.target = $1::text"
		       " AND q.operation = $2::text"
		       " AND (1 - " BUCKET ") / $3::float8 * 1000 <= $5::float8"
		       " RETURNING ceil(greatest(0, -q.bucket) / $3::float8 * 1000)::bigint",
	},
	[WALK_FIND] = { /* iot_walk_pkey */
		.name = "iot_walk_find", .params = 3, .columns = 8, .rows = ROWS_MAYBE,
		.sql = "SELECT w.cursor, coalesce(" SQL_S("w.mark") ", 0), w.repair, w.seen, w.drift,"
		       " coalesce(" SQL_S("w.started_at") ", 0), coalesce(" SQL_S("w.finished_at") ", 0),"
		       " w.asked FROM jitrca.iot_walk w WHERE w.target = $1::text AND w.issuer_id = $2::int"
		       " AND w.kind = $3::text",
	},
	[WALK_PUT] = { /* iot_walk_pkey */
		.name = "iot_walk_put", .params = 11, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO jitrca.iot_walk AS w (target, issuer_id, kind, cursor, mark, repair,"
		       " seen, drift, started_at, finished_at) VALUES ($1::text, $2::int, $3::text,"
		       " $4::text, to_timestamp($5::bigint), $6::bool, $7::bigint, $8::text,"
		       " to_timestamp($9::bigint), to_timestamp($10::bigint))"
		       " ON CONFLICT (target, issuer_id, kind) DO UPDATE SET cursor = EXCLUDED.cursor,"
		       " mark = EXCLUDED.mark, repair = EXCLUDED.repair, seen = EXCLUDED.seen,"
		       " drift = EXCLUDED.drift, started_at = EXCLUDED.started_at,"
		       " finished_at = EXCLUDED.finished_at WHERE w.asked = $11::bigint",
	},
	[WALK_ASK] = { /* iot_walk_pkey */
		.name = "iot_walk_ask", .params = 5, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO jitrca.iot_walk AS w (target, issuer_id, kind, repair, started_at,"
		       " asked) VALUES ($1::text, $2::int, $3::text, $4::bool,"
		       " to_timestamp($5::bigint), 1)"
		       " ON CONFLICT (target, issuer_id, kind) DO UPDATE SET cursor = '',"
		       " repair = EXCLUDED.repair, seen = 0, drift = '{}',"
		       " started_at = EXCLUDED.started_at, finished_at = NULL, asked = w.asked + 1",
	},
	[LEAD] = {
		.name = "iot_lead", .params = 2, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT pg_try_advisory_xact_lock($1::int, hashtext($2::text))",
	},
};

const struct db_table DB_TABLE_IOT = { SQL, COUNT_OF(SQL) };

static enum status
read_certificate(struct db_row *row, struct db_iot_certificate *out, struct err *err)
{
	char status[sizeof("pending_confirmation")];

	*out = (struct db_iot_certificate){ .status = CERT_UNSET };
	(void)db_row_octets(row, out->sha256, sizeof(out->sha256));
	db_row_text(row, out->seen, sizeof(out->seen));
	out->event_at_us = db_row_int64(row);
	db_row_ref(row, &out->ref);
	db_row_text(row, status, sizeof(status));
	if (status[0] != '\0' && !cert_status_parse(&out->status, status))
		return err_set(err, ERR_INTERNAL, "database_shape", "certificate: a status '%s'",
			status);
	out->not_after_s = db_row_int64(row);
	db_row_text(row, out->profile, sizeof(out->profile));
	db_row_text(row, out->device_id, sizeof(out->device_id));
	out->under_way = db_row_bool(row);
	out->in_slot = db_row_bool(row);
	return db_row_end(row, err);
}

static enum status
read_states(struct db_tx *tx, struct db_param target, struct db_array *indexes, struct db_array *ids,
	struct db_iot_device *list, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[DEVICE_STATES], DB_PARAMS(target, db_array(indexes), db_array(ids)), &rows,
		err));
	for (int r = 0; r < db_rows(rows); r++) {
		struct db_row row = db_row(rows, r);
		struct db_iot_device *device = &list[db_row_int32(&row)];

		db_row_text(&row, device->state, sizeof(device->state));
		db_row_text(&row, device->given, sizeof(device->given));
		TRY(db_row_end(&row, err));
	}
	return OK;
}

enum status
db_iot_devices_read(struct db_tx *tx, const char *target, struct db_iot_device *list, size_t count,
	size_t max, struct err *err)
{
	own_struct(db_array) indexes = DB_ARRAY(ARRAY_INT4);
	own_struct(db_array) ids = DB_ARRAY(ARRAY_TEXT);
	own(PGresult) rows = NULL;

	for (size_t i = 0; i < count; i++) {
		list[i].count = 0;
		list[i].state[0] = list[i].given[0] = '\0';
		TRY(db_array_add_int(&indexes, (int64_t)i, err));
		TRY(db_array_add_text(&ids, list[i].device_id, err));
	}
	TRY(read_states(tx, db_text(target), &indexes, &ids, list, err));
	TRY(db_run(tx, &SQL[OF_DEVICES], DB_PARAMS(db_text(target), db_array(&indexes), db_array(&ids),
		db_int64((int64_t)max)), &rows, err));
	for (int r = 0; r < db_rows(rows); r++) {
		struct db_row row = db_row(rows, r);
		struct db_iot_device *device = &list[db_row_int32(&row)];

		assert(device->count < max);
		TRY(read_certificate(&row, &device->certificates[device->count++], err));
	}
	return OK;
}

enum status
db_iot_certificate_find(struct db_tx *tx, const char *target, const uint8_t sha256[DB_SHA256_BYTES],
	struct db_iot_certificate *out, bool *found, struct err *err)
{
	own(PGresult) rows = NULL;
	struct db_row row;

	TRY(db_run(tx, &SQL[FIND], DB_PARAMS(db_text(target), db_octets(sha256, DB_SHA256_BYTES)),
		&rows, err));
	*found = db_rows(rows) > 0;
	if (!*found)
		return OK;
	row = db_row(rows, 0);
	return read_certificate(&row, out, err);
}

/* Which of the list a row is of. */
static struct db_iot_record *
record_of(struct db_iot_record *list, size_t count, const uint8_t sha256[DB_SHA256_BYTES])
{
	for (size_t i = 0; i < count; i++)
		if (memcmp(list[i].certificate->sha256, sha256, DB_SHA256_BYTES) == 0)
			return &list[i];
	assert(false);
	return NULL;
}

struct record_arrays {
	struct db_array digests, issuers, serials, devices, statuses;
};

static void
record_arrays_free(struct record_arrays *arrays)
{
	db_array_free(&arrays->digests);
	db_array_free(&arrays->issuers);
	db_array_free(&arrays->serials);
	db_array_free(&arrays->devices);
	db_array_free(&arrays->statuses);
}
OWNER_STRUCT(record_arrays, record_arrays_free)

static enum status
record_add(struct record_arrays *arrays, const struct db_iot_record *record, struct err *err)
{
	const struct db_iot_certificate *it = record->certificate;

	TRY(db_array_add_bytes(&arrays->digests, (struct view){ it->sha256, DB_SHA256_BYTES }, err));
	if (it->ref.issuer_id != 0) {
		TRY(db_array_add_int(&arrays->issuers, it->ref.issuer_id, err));
		TRY(db_array_add_serial(&arrays->serials, &it->ref.serial, err));
	} else {
		TRY(db_array_add_null(&arrays->issuers, err));
		TRY(db_array_add_null(&arrays->serials, err));
	}
	TRY(db_array_add_text(&arrays->devices, it->device_id, err));
	return db_array_add_text(&arrays->statuses, record->status, err);
}

enum status
db_iot_certificates_record(struct db_tx *tx, const char *target, struct db_iot_record *list,
	size_t count, int64_t asked_us, struct err *err)
{
	own_struct(record_arrays) arrays = { DB_ARRAY(ARRAY_BYTEA), DB_ARRAY(ARRAY_INT4),
		DB_ARRAY(ARRAY_BYTEA), DB_ARRAY(ARRAY_TEXT), DB_ARRAY(ARRAY_TEXT) };
	own(PGresult) rows = NULL;

	for (size_t i = 0; i < count; i++) {
		list[i].latency_us = 0;
		TRY(record_add(&arrays, &list[i], err));
	}
	if (count == 0)
		return OK;
	TRY(db_run(tx, &SQL[RECORD], DB_PARAMS(db_text(target), db_array(&arrays.digests),
		db_array(&arrays.issuers), db_array(&arrays.serials), db_array(&arrays.devices),
		db_array(&arrays.statuses), db_int64_or_null(asked_us)), &rows, err));
	for (int r = 0; r < db_rows(rows); r++) {
		struct db_row row = db_row(rows, r);
		uint8_t sha256[DB_SHA256_BYTES];

		(void)db_row_octets(&row, sha256, sizeof(sha256));
		int64_t latency_us = db_row_int64(&row);
		TRY(db_row_end(&row, err));
		record_of(list, count, sha256)->latency_us = latency_us;
	}
	return OK;
}

enum status
db_iot_certificate_announce(struct db_tx *tx, const char *target,
	const struct db_iot_certificate *certificate, struct err *err)
{
	return db_run(tx, &SQL[ANNOUNCE], DB_PARAMS(db_text(target),
		db_octets(certificate->sha256, DB_SHA256_BYTES),
		db_int64_or_null(certificate->ref.issuer_id),
		certificate->ref.issuer_id != 0 ? db_serial(&certificate->ref.serial) : db_null(),
		db_text(certificate->device_id[0] != '\0' ? certificate->device_id : NULL)), NULL, err);
}

enum status
db_iot_certificate_views(struct db_tx *tx, const uint8_t sha256[DB_SHA256_BYTES],
	struct db_iot_view *out, size_t max, size_t *count, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[VIEWS], DB_PARAMS(db_octets(sha256, DB_SHA256_BYTES),
		db_int64((int64_t)max)), &rows, err));
	*count = (size_t)db_rows(rows);
	for (int r = 0; r < db_rows(rows); r++) {
		struct db_row row = db_row(rows, r);

		db_row_text(&row, out[r].target, sizeof(out[r].target));
		db_row_text(&row, out[r].status, sizeof(out[r].status));
		out[r].observed_at_s = db_row_int64(&row);
		TRY(db_row_end(&row, err));
	}
	return OK;
}

enum status
db_iot_certificates_active(struct db_tx *tx, const char *const *targets, size_t target_count,
	const struct db_iot_id *ids, size_t count, bool *active, struct err *err)
{
	own_struct(db_array) names = DB_ARRAY(ARRAY_TEXT);
	own_struct(db_array) digests = DB_ARRAY(ARRAY_BYTEA);
	own(PGresult) rows = NULL;
	struct db_row row;

	for (size_t i = 0; i < target_count; i++)
		TRY(db_array_add_text(&names, targets[i], err));
	for (size_t i = 0; i < count; i++)
		TRY(db_array_add_bytes(&digests, (struct view){ ids[i].sha256, DB_SHA256_BYTES }, err));
	TRY(db_run(tx, &SQL[ACTIVE], DB_PARAMS(db_array(&names), db_array(&digests)), &rows, err));
	row = db_row(rows, 0);
	*active = db_row_bool(&row);
	return db_row_end(&row, err);
}

enum status
db_iot_devices_record(struct db_tx *tx, const char *target, const struct db_iot_applied *list,
	size_t count, struct err *err)
{
	own_struct(db_array) ids = DB_ARRAY(ARRAY_TEXT);
	own_struct(db_array) versions = DB_ARRAY(ARRAY_INT8);
	own_struct(db_array) states = DB_ARRAY(ARRAY_TEXT);

	for (size_t i = 0; i < count; i++) {
		TRY(db_array_add_text(&ids, list[i].device_id, err));
		TRY(db_array_add_int(&versions, list[i].version, err));
		TRY(db_array_add_text(&states, list[i].state, err));
	}
	if (count == 0)
		return OK;
	return db_run(tx, &SQL[DEVICES_RECORD], DB_PARAMS(db_text(target), db_array(&ids),
		db_array(&versions), db_array(&states)), NULL, err);
}

static enum status
run_groups(struct db_tx *tx, int statement, const char *target, const char *device_id,
	const char *const *names, size_t count, struct err *err)
{
	own_struct(db_array) groups = DB_ARRAY(ARRAY_TEXT);

	for (size_t i = 0; i < count; i++)
		TRY(db_array_add_text(&groups, names[i], err));
	return db_run(tx, &SQL[statement], DB_PARAMS(db_text(target), db_text(device_id),
		db_array(&groups)), NULL, err);
}

enum status
db_iot_groups_give(struct db_tx *tx, const char *target, const char *device_id,
	const char *const *names, size_t count, struct err *err)
{
	return run_groups(tx, GROUPS_GIVE, target, device_id, names, count, err);
}

enum status
db_iot_groups_keep(struct db_tx *tx, const char *target, const char *device_id,
	const char *const *names, size_t count, struct err *err)
{
	return run_groups(tx, GROUPS_KEEP, target, device_id, names, count, err);
}

enum status
db_iot_groups_any(struct db_tx *tx, const char *target, bool *any, struct err *err)
{
	own(PGresult) rows = NULL;
	struct db_row row;

	TRY(db_run(tx, &SQL[GROUPS_ANY], DB_PARAMS(db_text(target)), &rows, err));
	row = db_row(rows, 0);
	*any = db_row_bool(&row);
	return db_row_end(&row, err);
}

enum status
db_iot_devices_idle(struct db_tx *tx, const char *const *device_ids, size_t count,
	const char *const *targets, size_t target_count, const char *const *preregister,
	size_t preregister_count, bool *idle, struct err *err)
{
	own_struct(db_array) indexes = DB_ARRAY(ARRAY_INT4);
	own_struct(db_array) ids = DB_ARRAY(ARRAY_TEXT);
	own_struct(db_array) names = DB_ARRAY(ARRAY_TEXT);
	own_struct(db_array) profiles = DB_ARRAY(ARRAY_TEXT);
	own(PGresult) rows = NULL;

	for (size_t i = 0; i < count; i++) {
		idle[i] = false;
		TRY(db_array_add_int(&indexes, (int64_t)i, err));
		TRY(db_array_add_text(&ids, device_ids[i], err));
	}
	for (size_t i = 0; i < target_count; i++)
		TRY(db_array_add_text(&names, targets[i], err));
	for (size_t i = 0; i < preregister_count; i++)
		TRY(db_array_add_text(&profiles, preregister[i], err));
	TRY(db_run(tx, &SQL[DEVICES_IDLE], DB_PARAMS(db_array(&indexes), db_array(&ids),
		db_array(&names), db_array(&profiles)), &rows, err));
	for (int r = 0; r < db_rows(rows); r++) {
		struct db_row row = db_row(rows, r);
		int64_t i = db_row_int64(&row);

		TRY(db_row_end(&row, err));
		if (i >= 0 && (size_t)i < count)
			idle[i] = true;
	}
	return OK;
}

enum status
db_iot_ca_put(struct db_tx *tx, const struct db_iot_ca *ca, struct err *err)
{
	return db_run(tx, &SQL[CA_PUT], DB_PARAMS(db_text(ca->target), db_int64(ca->issuer_id),
		db_text(ca->account), db_text(ca->region), db_text(ca->ca_certificate_id),
		db_text(ca->mode), db_text(ca->status), db_bool(ca->auto_registration)), NULL, err);
}

static enum status
read_ca(const PGresult *rows, int r, struct db_iot_ca *out, struct err *err)
{
	struct db_row row = db_row(rows, r);

	db_row_text(&row, out->target, sizeof(out->target));
	out->issuer_id = db_row_int32(&row);
	db_row_text(&row, out->account, sizeof(out->account));
	db_row_text(&row, out->region, sizeof(out->region));
	db_row_text(&row, out->ca_certificate_id, sizeof(out->ca_certificate_id));
	db_row_text(&row, out->mode, sizeof(out->mode));
	db_row_text(&row, out->status, sizeof(out->status));
	out->auto_registration = db_row_bool(&row);
	out->registered_at_s = db_row_int64(&row);
	out->observed_at_s = db_row_int64(&row);
	return db_row_end(&row, err);
}

enum status
db_iot_ca_find(struct db_tx *tx, const char *target, int32_t issuer_id, struct db_iot_ca *out,
	struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[CA_FIND], DB_PARAMS(db_text(target), db_int64(issuer_id)), &rows, err));
	if (db_rows(rows) == 0)
		return err_set(err, ERR_NOT_FOUND, "iot_ca_not_registered",
			"ca: it is not registered with target %s", target);
	return read_ca(rows, 0, out, err);
}

enum status
db_iot_ca_list(struct db_tx *tx, struct db_iot_ca *out, size_t max, size_t *count, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[CA_LIST], DB_PARAMS(db_int64((int64_t)max)), &rows, err));
	*count = (size_t)db_rows(rows);
	for (int r = 0; r < db_rows(rows); r++)
		TRY(read_ca(rows, r, &out[r], err));
	return OK;
}

enum status
db_iot_targets_serve(struct db_tx *tx, const char *const *targets, size_t count,
	char elsewhere[DB_IOT_ELSEWHERE_BYTES], struct err *err)
{
	own_struct(db_array) names = DB_ARRAY(ARRAY_TEXT);
	own(PGresult) rows = NULL;
	struct db_row row;

	for (size_t i = 0; i < count; i++)
		TRY(db_array_add_text(&names, targets[i], err));
	TRY(db_run(tx, &SQL[TARGETS_SERVE], DB_PARAMS(db_array(&names), db_int64(DB_IOT_SERVED_DAYS)),
		&rows, err));
	row = db_row(rows, 0);
	db_row_text(&row, elsewhere, DB_IOT_ELSEWHERE_BYTES);
	return db_row_end(&row, err);
}

enum status
db_iot_quota_take(struct db_tx *tx, const char *target, const char *operation, double per_second,
	double burst, int64_t want, int64_t *got, int64_t *wait_ms, struct err *err)
{
	own(PGresult) taken = NULL;
	own(PGresult) rows = NULL;
	struct db_row row;

	*got = 0;
	*wait_ms = 0;
	TRY(db_run(tx, &SQL[QUOTA_TAKE], DB_PARAMS(db_text(target), db_text(operation),
		db_double(per_second), db_double(burst), db_double((double)want)), &taken, err));
	if (db_rows(taken) > 0) {
		*got = want;
		return OK;
	}
	TRY(db_run(tx, &SQL[QUOTA_WAIT], DB_PARAMS(db_text(target), db_text(operation),
		db_double(per_second), db_double(burst)), &rows, err));
	if (db_rows(rows) == 0) {
		*wait_ms = 1;
		return OK;
	}
	row = db_row(rows, 0);
	*wait_ms = db_row_int64(&row);
	TRY(db_row_end(&row, err));
	if (*wait_ms < 1)
		*wait_ms = 1;
	return OK;
}

enum status
db_iot_quota_reserve(struct db_tx *tx, const char *target, const char *operation, double per_second,
	double burst, int64_t most_ms, bool *taken, int64_t *wait_ms, struct err *err)
{
	own(PGresult) rows = NULL;
	struct db_row row;

	TRY(db_run(tx, &SQL[QUOTA_RESERVE], DB_PARAMS(db_text(target), db_text(operation),
		db_double(per_second), db_double(burst), db_double((double)most_ms)), &rows, err));
	*taken = db_rows(rows) > 0;
	if (!*taken)
		return OK;
	row = db_row(rows, 0);
	*wait_ms = db_row_int64(&row);
	return db_row_end(&row, err);
}

enum status
db_iot_walk_find(struct db_tx *tx, const char *target, int32_t issuer_id, const char *kind,
	struct db_iot_walk *out, bool *found, struct err *err)
{
	own(PGresult) rows = NULL;
	struct db_row row;

	*out = (struct db_iot_walk){ .issuer_id = issuer_id };
	(void)snprintf(out->target, sizeof(out->target), "%s", target);
	(void)snprintf(out->kind, sizeof(out->kind), "%s", kind);
	(void)snprintf(out->drift, sizeof(out->drift), "{}");
	TRY(db_run(tx, &SQL[WALK_FIND], DB_PARAMS(db_text(target), db_int64(issuer_id),
		db_text(kind)), &rows, err));
	*found = db_rows(rows) > 0;
	if (!*found)
		return OK;
	row = db_row(rows, 0);
	db_row_text(&row, out->cursor, sizeof(out->cursor));
	out->mark_s = db_row_int64(&row);
	out->repair = db_row_bool(&row);
	out->seen = db_row_int64(&row);
	db_row_text(&row, out->drift, sizeof(out->drift));
	out->started_at_s = db_row_int64(&row);
	out->finished_at_s = db_row_int64(&row);
	out->asked = db_row_int64(&row);
	return db_row_end(&row, err);
}

enum status
db_iot_walk_put(struct db_tx *tx, const struct db_iot_walk *walk, bool *kept, struct err *err)
{
	own(PGresult) done = NULL;

	TRY(db_run(tx, &SQL[WALK_PUT], DB_PARAMS(db_text(walk->target), db_int64(walk->issuer_id),
		db_text(walk->kind), db_text(walk->cursor), db_int64_or_null(walk->mark_s),
		db_bool(walk->repair), db_int64(walk->seen), db_text(walk->drift),
		db_int64_or_null(walk->started_at_s), db_int64_or_null(walk->finished_at_s),
		db_int64(walk->asked)), &done, err));
	*kept = db_affected(done) == 1;
	return OK;
}

enum status
db_iot_walk_ask(struct db_tx *tx, const char *target, int32_t issuer_id, const char *kind, bool repair,
	int64_t now_s, struct err *err)
{
	return db_run(tx, &SQL[WALK_ASK], DB_PARAMS(db_text(target), db_int64(issuer_id), db_text(kind),
		db_bool(repair), db_int64(now_s)), NULL, err);
}

enum status
db_iot_lead(struct db_tx *tx, const char *what, bool *held, struct err *err)
{
	own(PGresult) rows = NULL;
	struct db_row row;

	TRY(db_run(tx, &SQL[LEAD], DB_PARAMS(db_int64(LOCK_IOT), db_text(what)), &rows, err));
	row = db_row(rows, 0);
	*held = db_row_bool(&row);
	return db_row_end(&row, err);
}
