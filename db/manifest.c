#include "db/manifest.h"

#include "db/batch.h"

enum {
	MANIFEST_CREATE,
	MANIFEST_STATION,
	MANIFEST_FIND,
	MANIFEST_LIST,
	MANIFEST_LIST_STATION,
	MANIFEST_OPEN,
	MANIFEST_CLOSE,
	MANIFEST_LOCK,
	LINES_BEGIN,
	LINES_PATIENCE,
	LINES_COPY,
	LINES_INSERT,
	LINES_COUNT,
	LINES_END,
	LINES_EXPORT,
	STATEMENTS,
};

#define MANIFEST_COLUMNS                                                                           \
	"m.manifest_id, m.station_id, m.profile, m.quantity, m.used, m.line_count,"                \
	" m.allow_replace, " SQL_S("m.not_before") ", " SQL_S("m.not_after") ", "                  \
	SQL_S("m.created_at") ", " SQL_S("m.closed_at") ", m.created_by"

static const struct db_statement SQL[STATEMENTS] = {
	[MANIFEST_CREATE] = {
		.name = "manifest_create", .params = 9, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO jitrca.manifest (manifest_id, station_id, profile, quantity,"
		       " allow_replace, not_before, not_after, created_by, created_at) VALUES"
		       " ($1, $2, $3, $4::bigint, $5::bool, " SQL_AT_S("$6") ", " SQL_AT_S("$7") ", $8,"
		       " coalesce(" SQL_AT_S("$9") ", now())) ON CONFLICT (manifest_id) DO NOTHING",
	},
	[MANIFEST_STATION] = { /* station_pkey */
		.name = "manifest_station", .params = 1, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT EXISTS (SELECT FROM jitrca.station WHERE principal_id = $1)",
	},
	[MANIFEST_FIND] = { /* manifest_pkey */
		.name = "manifest_find", .params = 1, .columns = 12, .rows = ROWS_MAYBE,
		.sql = "SELECT " MANIFEST_COLUMNS " FROM jitrca.manifest m WHERE m.manifest_id = $1",
	},
	[MANIFEST_LIST] = { /* manifest_pkey */
		.name = "manifest_list", .params = 2, .columns = 12, .rows = ROWS_ANY,
		.sql = "SELECT " MANIFEST_COLUMNS " FROM jitrca.manifest m"
		       " WHERE m.manifest_id > coalesce($1, '') ORDER BY m.manifest_id LIMIT $2::bigint",
	},
	[MANIFEST_LIST_STATION] = { /* manifest_station */
		.name = "manifest_list_station", .params = 3, .columns = 12, .rows = ROWS_ANY,
		.sql = "SELECT " MANIFEST_COLUMNS " FROM jitrca.manifest m WHERE m.station_id = $3"
		       " AND m.manifest_id > coalesce($1, '') ORDER BY m.manifest_id LIMIT $2::bigint",
	},
	[MANIFEST_OPEN] = { /* manifest_station */
		.name = "manifest_open", .params = 3, .columns = 12, .rows = ROWS_ANY,
		.sql = "SELECT " MANIFEST_COLUMNS " FROM jitrca.manifest m WHERE m.station_id = $1"
		       " AND m.closed_at IS NULL AND m.not_before <= " SQL_AT_S("$2")
		       " AND m.not_after > " SQL_AT_S("$2") " ORDER BY m.manifest_id LIMIT $3::bigint",
	},
	[MANIFEST_CLOSE] = { /* manifest_pkey */
		.name = "manifest_close", .params = 1, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE jitrca.manifest SET closed_at = now()"
		       " WHERE manifest_id = $1 AND closed_at IS NULL",
	},
	[MANIFEST_LOCK] = { /* manifest_pkey */
		.name = "manifest_lock", .params = 1, .columns = 1, .rows = ROWS_MAYBE,
		.sql = "SELECT closed_at IS NOT NULL FROM jitrca.manifest WHERE manifest_id = $1"
		       " FOR NO KEY UPDATE",
	},
	[LINES_BEGIN] = {
		.name = "lines_begin", .columns = 0, .rows = ROWS_NONE, .unprepared = true,
		.sql = "CREATE TEMPORARY TABLE manifest_upload (device_id text COLLATE \"C\" NOT NULL)"
		       " ON COMMIT DROP",
	},
	[LINES_PATIENCE] = { /* ten million lines take minutes; for this transaction only */
		.name = "lines_patience", .columns = 0, .rows = ROWS_NONE, .unprepared = true,
		.sql = "SET LOCAL statement_timeout = '15min'",
	},
	[LINES_COPY] = {
		.name = "lines_copy", .columns = 1, .rows = ROWS_COPY,
		.sql = "COPY pg_temp.manifest_upload (device_id) FROM STDIN",
	},
	[LINES_INSERT] = {
		/* manifest_line_pkey, filled in its order; manifest_line_export. The manifest is locked,
		 * so nobody adds a line meanwhile, and ON CONFLICT, which costs each line, is not needed. */
		.name = "lines_insert", .params = 1, .columns = 0, .rows = ROWS_NONE, .unprepared = true,
		.sql = "INSERT INTO jitrca.manifest_line (device_id, manifest_id)"
		       " SELECT DISTINCT u.device_id, $1::text FROM pg_temp.manifest_upload u"
		       " WHERE NOT EXISTS (SELECT FROM jitrca.manifest_line l WHERE l.manifest_id = $1::text"
		       " AND l.device_id = u.device_id) ORDER BY u.device_id",
	},
	[LINES_COUNT] = { /* manifest_pkey */
		.name = "lines_count", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE jitrca.manifest SET line_count = line_count + $2::bigint"
		       " WHERE manifest_id = $1",
	},
	[LINES_END] = { /* so that a transaction may add lines twice */
		.name = "lines_end", .columns = 0, .rows = ROWS_NONE, .unprepared = true,
		.sql = "DROP TABLE pg_temp.manifest_upload",
	},
	[LINES_EXPORT] = {
		/* manifest_line_export; certificate_pkey in the one partition that the serial names
		 * (OFFSET 0: not to be joined by reading the table). What is under way has
		 * no serial yet. */
		.name = "lines_export", .params = 1, .columns = 5, .rows = ROWS_STREAM,
		.sql = "SELECT l.device_id, CASE WHEN NOT " INTENT_OPEN("l.serial") " THEN l.serial END,"
		       " c.sha256, c.status, " SQL_S("l.used_at")
		       " FROM jitrca.manifest_line l LEFT JOIN LATERAL (SELECT c.sha256, CASE WHEN"
		       " c.status <> 'revoked' AND c.not_after <= now() THEN 'expired' ELSE c.status END"
		       " AS status FROM jitrca.certificate c"
		       " WHERE c.expiry_month = jitrca.serial_month(l.serial)"
		       " AND c.issuer_id = l.issuer_id AND c.serial = l.serial OFFSET 0) c ON true"
		       " WHERE l.manifest_id = $1 ORDER BY l.device_id",
	},
};
const struct db_table DB_TABLE_MANIFEST = { SQL, COUNT_OF(SQL) };

static enum status
manifest_unknown(struct err *err)
{
	return err_set(err, ERR_NOT_FOUND, "manifest_unknown", "there is no such manifest");
}

static enum status
read_manifest(const PGresult *rows, int index, struct db_manifest *out, struct err *err)
{
	struct db_row row = db_row(rows, index);

	db_row_text(&row, out->manifest_id, sizeof(out->manifest_id));
	db_row_text(&row, out->station_id, sizeof(out->station_id));
	db_row_text(&row, out->profile, sizeof(out->profile));
	out->quantity = db_row_int64(&row);
	out->used = db_row_int64(&row);
	out->line_count = db_row_int64(&row);
	out->allow_replace = db_row_bool(&row);
	out->not_before_s = db_row_int64(&row);
	out->not_after_s = db_row_int64(&row);
	out->created_at_s = db_row_int64(&row);
	out->closed_at_s = db_row_int64(&row);
	db_row_text(&row, out->created_by, sizeof(out->created_by));
	return db_row_end(&row, err);
}

static enum status
read_manifests(const PGresult *rows, struct db_manifest *out, size_t *count, struct err *err)
{
	*count = (size_t)db_rows(rows);
	for (size_t i = 0; i < *count; i++)
		TRY(read_manifest(rows, (int)i, &out[i], err));
	return OK;
}

enum status
db_manifest_create(struct db_tx *tx, const struct db_manifest *m, struct err *err)
{
	own(PGresult) station = NULL;
	own(PGresult) done = NULL;

	TRY(db_run(tx, &SQL[MANIFEST_STATION], DB_PARAMS(db_text(m->station_id)), &station, err));
	struct db_row row = db_row(station, 0);
	bool exists = db_row_bool(&row);
	TRY(db_row_end(&row, err));
	if (!exists)
		return err_set(err, ERR_NOT_FOUND, "station_unknown", "there is no such station");
	TRY(db_run(tx, &SQL[MANIFEST_CREATE],
		DB_PARAMS(db_text(m->manifest_id), db_text(m->station_id), db_text(m->profile),
			db_int64(m->quantity), db_bool(m->allow_replace), db_int64(m->not_before_s),
			db_int64(m->not_after_s), db_text(m->created_by),
			db_int64_or_null(m->created_at_s)), &done, err));
	if (db_affected(done) == 0)
		return err_set(err, ERR_CONFLICT, "manifest_exists", "the manifest exists already");
	return OK;
}

enum status
db_manifest_find(struct db_tx *tx, const char *manifest_id, struct db_manifest *out, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[MANIFEST_FIND], DB_PARAMS(db_text(manifest_id)), &rows, err));
	return db_rows(rows) == 0 ? manifest_unknown(err) : read_manifest(rows, 0, out, err);
}

enum status
db_manifest_list(struct db_tx *tx, const char *station_id, const char *after, size_t limit,
	struct db_manifest *out, size_t *count, struct err *err)
{
	const struct db_param params[] = { db_text(after), db_int64((int64_t)limit),
		db_text(station_id) };
	own(PGresult) rows = NULL;

	if (station_id != NULL)
		TRY(db_run(tx, &SQL[MANIFEST_LIST_STATION], (struct db_params){ params, 3 }, &rows,
			err));
	else
		TRY(db_run(tx, &SQL[MANIFEST_LIST], (struct db_params){ params, 2 }, &rows, err));
	return read_manifests(rows, out, count, err);
}

enum status
db_manifest_open(struct db_tx *tx, const char *station_id, int64_t now_s, struct db_manifest *out,
	size_t max, size_t *count, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[MANIFEST_OPEN],
		DB_PARAMS(db_text(station_id), db_int64(now_s), db_int64((int64_t)max)), &rows, err));
	return read_manifests(rows, out, count, err);
}

enum status
db_manifest_close(struct db_tx *tx, const char *manifest_id, bool *changed, struct err *err)
{
	own(PGresult) done = NULL;
	struct db_manifest manifest;

	TRY(db_run(tx, &SQL[MANIFEST_CLOSE], DB_PARAMS(db_text(manifest_id)), &done, err));
	*changed = db_affected(done) == 1;
	return *changed ? OK : db_manifest_find(tx, manifest_id, &manifest, err);
}

struct upload {
	enum status (*next)(void *arg, const char **id, struct err *err);
	void *arg;
};

static enum status
upload_next(void *arg, struct buf *rows, struct err *err)
{
	struct upload *upload = arg;
	const char *id = NULL;

	TRY(upload->next(upload->arg, &id, err));
	if (id == NULL)
		return OK;
	TRY(db_copy_text(rows, id, err));
	return buf_add(rows, "\n", 1, err);
}

static enum status
lock_open(struct db_tx *tx, const char *manifest_id, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[MANIFEST_LOCK], DB_PARAMS(db_text(manifest_id)), &rows, err));
	if (db_rows(rows) == 0)
		return manifest_unknown(err);
	struct db_row row = db_row(rows, 0);
	bool closed = db_row_bool(&row);
	TRY(db_row_end(&row, err));
	if (closed)
		return err_set(err, ERR_CONFLICT, "manifest_closed", "the manifest is closed");
	return OK;
}

enum status
db_manifest_add_lines(struct db_tx *tx, const char *manifest_id,
	enum status (*next)(void *arg, const char **id, struct err *err), void *arg, int64_t *added,
	struct err *err)
{
	struct upload upload = { next, arg };
	struct db_manifest manifest;
	own(PGresult) inserted = NULL;

	/* The upload lasts as long as the client takes, so the manifest, for which stations wait, is
	 * locked only when all of it is here. Two uploads for one manifest then follow each other. */
	TRY(db_manifest_find(tx, manifest_id, &manifest, err));
	TRY(db_run(tx, &SQL[LINES_PATIENCE], DB_NO_PARAMS, NULL, err));
	TRY(db_run(tx, &SQL[LINES_BEGIN], DB_NO_PARAMS, NULL, err));
	TRY(db_copy(tx, &SQL[LINES_COPY], upload_next, &upload, NULL, err));
	TRY(lock_open(tx, manifest_id, err));
	TRY(db_run(tx, &SQL[LINES_INSERT], DB_PARAMS(db_text(manifest_id)), &inserted, err));
	*added = db_affected(inserted);
	TRY(db_run(tx, &SQL[LINES_COUNT], DB_PARAMS(db_text(manifest_id), db_int64(*added)), NULL, err));
	return db_run(tx, &SQL[LINES_END], DB_NO_PARAMS, NULL, err);
}

struct export {
	enum status (*line)(void *arg, const char *device_id, const struct serial *serial,
		const uint8_t *sha256, const char *status, int64_t used_at_s, struct err *err);
	void *arg;
};

static enum status
export_line(void *arg, struct db_row *row, struct err *err)
{
	const struct export *export = arg;
	char device_id[DB_ID_BYTES];
	char status[32];
	uint8_t sha256[DB_SHA256_BYTES];
	struct serial serial;

	db_row_text(row, device_id, sizeof(device_id));
	bool has_serial = db_row_serial(row, &serial);
	bool has_certificate = db_row_octets(row, sha256, sizeof(sha256));
	db_row_text(row, status, sizeof(status));
	int64_t used_at_s = db_row_int64(row);
	TRY(db_row_end(row, err));
	return export->line(export->arg, device_id, has_serial ? &serial : NULL,
		has_certificate ? sha256 : NULL, has_certificate ? status : NULL, used_at_s, err);
}

enum status
db_manifest_export(struct db_tx *tx, const char *manifest_id,
	enum status (*line)(void *arg, const char *device_id, const struct serial *serial,
		const uint8_t *sha256, const char *status, int64_t used_at_s, struct err *err),
	void *arg, struct err *err)
{
	struct export export = { line, arg };

	return db_stream(tx, &SQL[LINES_EXPORT], DB_PARAMS(db_text(manifest_id)), export_line, &export,
		err);
}
