#include "db/report.h"

#include <string.h>

#include "db/run.h"

enum {
	CREATE,
	FIND,
	LIST,
	LAST,
	NEXT,
	SAVE,
	FINISH,
	FAIL,
	RETENTION,
	EXPECTED,
	PAGE,
	STRANGERS,
	POLICIES,
	STATEMENTS,
};

#define COLUMNS                                                                                    \
	"r.report_id, r.actor, r.request_id, r.state, " SQL_S("r.created_at") ", "                     \
	SQL_US("r.created_at") ", coalesce(" SQL_S("r.finished_at") ", 0), r.seen, r.expected,"        \
	" r.findings, r.severity, coalesce(encode(r.sha256, 'hex'), ''), r.error_code, r.error_text"

/* Both by iot_certificate_serial. */
#define SAID_BY_IOT(status)                                                                        \
	"coalesce((SELECT string_agg(i.target, ' ' ORDER BY i.target) FROM jitrca.iot_certificate i"   \
	" WHERE i.issuer_id = c.issuer_id AND i.serial = c.serial AND i.status = '" status "'), '')"

static const struct db_statement SQL[STATEMENTS] = {
	[CREATE] = { /* report_running */
		.name = "report_create", .params = 3, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO jitrca.report (report_id, actor, request_id)"
		       " VALUES ($1::text, $2::text, $3::text) ON CONFLICT DO NOTHING",
	},
	[FIND] = { /* report_pkey */
		.name = "report_find", .params = 1, .columns = 15, .rows = ROWS_MAYBE,
		.sql = "SELECT " COLUMNS ", r.body FROM jitrca.report r WHERE r.report_id = $1::text",
	},
	[LIST] = { /* report_created */
		.name = "report_list", .params = 3, .columns = 14, .rows = ROWS_ANY,
		.sql = "SELECT " COLUMNS " FROM jitrca.report r WHERE $1::bigint = 0"
		       " OR (r.created_at, r.report_id) < (" SQL_AT_US("$1") ", $2::text)"
		       " ORDER BY r.created_at DESC, r.report_id DESC LIMIT $3::bigint",
	},
	[LAST] = { /* report_scheduled; issuers are few */
		.name = "report_last", .params = 0, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT coalesce((SELECT " SQL_S("max(r.created_at)") " FROM jitrca.report r"
		       " WHERE r.actor = 'server'), (SELECT " SQL_S("min(i.created_at)")
		       " FROM jitrca.issuer i), 0)",
	},
	[NEXT] = { /* report_running */
		.name = "report_next", .params = 0, .columns = 18, .rows = ROWS_MAYBE,
		.sql = "SELECT " COLUMNS ", r.place_month, r.place_issuer, r.place_serial,"
		       " convert_to(r.work, 'UTF8') FROM jitrca.report r WHERE r.state = 'running'"
		       " FOR UPDATE",
	},
	[SAVE] = { /* report_pkey */
		.name = "report_save", .params = 7, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE jitrca.report SET place_month = $2::int, place_issuer = $3::int,"
		       " place_serial = $4, seen = $5::bigint, expected = $6::bigint, work = $7::text"
		       " WHERE report_id = $1::text",
	},
	[FINISH] = { /* report_pkey */
		.name = "report_finish", .params = 6, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE jitrca.report SET state = 'done', finished_at = now(), work = '',"
		       " seen = $2::bigint, findings = $3::bigint, severity = $4::text, body = $5,"
		       " sha256 = $6 WHERE report_id = $1::text",
	},
	[FAIL] = { /* report_running */
		.name = "report_fail", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE jitrca.report SET state = 'failed', finished_at = now(), work = '',"
		       " error_code = $1::text, error_text = $2::text WHERE state = 'running'",
	},
	[RETENTION] = { /* report_created */
		.name = "retention_reports", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM jitrca.report r WHERE r.report_id IN (SELECT o.report_id"
		       " FROM jitrca.report o WHERE o.created_at < " SQL_AT_S("$1")
		       " AND o.state <> 'running' ORDER BY o.created_at LIMIT $2::bigint)",
	},
	[EXPECTED] = { /* of the catalogue */
		.name = "report_expected", .params = 0, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT coalesce(sum(greatest(k.reltuples, 0)), 0)::bigint"
		       " FROM pg_catalog.pg_inherits h JOIN pg_catalog.pg_class k ON k.oid = h.inhrelid"
		       " WHERE h.inhparent = 'jitrca.certificate'::regclass",
	},
	/* certificate_pkey, month by month from where the page begins; then key_claim_pkey for each row:
	 * OFFSET keeps it from being read as a whole instead. */
	[PAGE] = {
		.name = "report_page", .params = 4, .columns = 16, .rows = ROWS_ANY,
		.sql = "SELECT c.expiry_month, c.issuer_id, c.serial, c.status, c.profile, c.device_id,"
		       " c.of_device, " SQL_S("c.not_after") ", " SQL_S("c.issued_at") ", c.sha256, c.der,"
		       " coalesce(k.identity, ''), coalesce(k.blocked, false), coalesce(k.issuer_id, 0), "
		       SAID_BY_IOT("ACTIVE") ", " SAID_BY_IOT("REVOKED")
		       " FROM (SELECT * FROM jitrca.certificate p WHERE p.expiry_month >= $1::int"
		       " AND (p.expiry_month, p.issuer_id, p.serial) > ($1::int, $2::int, $3::bytea)"
		       " ORDER BY p.expiry_month, p.issuer_id, p.serial LIMIT $4::bigint) c"
		       " LEFT JOIN LATERAL (SELECT x.identity, x.blocked_at IS NOT NULL AS blocked,"
		       " x.issuer_id FROM jitrca.key_claim x WHERE x.spki_sha256 = c.spki_sha256 OFFSET 0)"
		       " k ON true ORDER BY c.expiry_month, c.issuer_id, c.serial",
	},
	[STRANGERS] = { /* iot_certificate_serial: those without a serial */
		.name = "report_strangers", .params = 2, .columns = 2, .rows = ROWS_ANY,
		.sql = "SELECT i.target, encode(i.sha256, 'hex') FROM jitrca.iot_certificate i"
		       " WHERE i.issuer_id = $1::int AND i.serial IS NULL AND i.status = 'ACTIVE'"
		       " LIMIT $2::bigint",
	},
	[POLICIES] = { /* policy_pkey, policy_version_pkey, policy_attachment_policy */
		.name = "report_policies", .params = 2, .columns = 3, .rows = ROWS_ANY,
		.sql = "SELECT p.name, convert_to(v.document, 'UTF8'), EXISTS (SELECT"
		       " FROM iotcore.policy_attachment a WHERE a.policy = p.name)"
		       " FROM iotcore.policy p JOIN iotcore.policy_version v ON v.policy = p.name"
		       " AND v.version = p.default_version WHERE p.name > $1::text"
		       " ORDER BY p.name LIMIT $2::bigint",
	},
};

const struct db_table DB_TABLE_REPORT = { SQL, COUNT_OF(SQL) };

static void
read_report(struct db_row *row, struct db_report *out)
{
	*out = (struct db_report){ .seen = 0 };
	db_row_text(row, out->report_id, sizeof(out->report_id));
	db_row_text(row, out->actor, sizeof(out->actor));
	db_row_text(row, out->request_id, sizeof(out->request_id));
	db_row_text(row, out->state, sizeof(out->state));
	out->created_at_s = db_row_int64(row);
	out->created_at_us = db_row_int64(row);
	out->finished_at_s = db_row_int64(row);
	out->seen = db_row_int64(row);
	out->expected = db_row_int64(row);
	out->findings = db_row_int64(row);
	db_row_text(row, out->severity, sizeof(out->severity));
	db_row_text(row, out->sha256, sizeof(out->sha256));
	db_row_text(row, out->error_code, sizeof(out->error_code));
	db_row_text(row, out->error_text, sizeof(out->error_text));
}

enum status
db_report_create(struct db_tx *tx, const char *report_id, const char *actor, const char *request_id,
	struct err *err)
{
	own(PGresult) made = NULL;

	TRY(db_run(tx, &SQL[CREATE],
		DB_PARAMS(db_text(report_id), db_text(actor), db_text(request_id)), &made, err));
	return db_affected(made) == 1 ? OK : err_set(err, ERR_CONFLICT, "report_under_way",
		"a report is being made: GET /v1/reports says how far it has come");
}

enum status
db_report_find(struct db_tx *tx, const char *report_id, struct db_report *out, struct bytes *body,
	struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[FIND], DB_PARAMS(db_text(report_id)), &rows, err));
	if (db_rows(rows) == 0)
		return err_set(err, ERR_NOT_FOUND, "report_unknown", "there is no report of that id");
	struct db_row row = db_row(rows, 0);

	read_report(&row, out);
	db_row_bytes(&row, body);
	return db_row_end(&row, err);
}

enum status
db_report_list(struct db_tx *tx, int64_t before_us, const char *before_id, size_t limit,
	struct db_report *out, size_t *count, struct err *err)
{
	own(PGresult) rows = NULL;

	*count = 0;
	TRY(db_run(tx, &SQL[LIST], DB_PARAMS(db_int64(before_us), db_text(before_id),
		db_int64((int64_t)limit)), &rows, err));
	for (int r = 0; r < db_rows(rows); r++) {
		struct db_row row = db_row(rows, r);

		read_report(&row, &out[(*count)++]);
		TRY(db_row_end(&row, err));
	}
	return OK;
}

static enum status
read_number(struct db_tx *tx, const struct db_statement *statement, int64_t *out, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, statement, DB_NO_PARAMS, &rows, err));
	struct db_row row = db_row(rows, 0);

	*out = db_row_int64(&row);
	return db_row_end(&row, err);
}

enum status
db_report_last_s(struct db_tx *tx, int64_t *out, struct err *err)
{
	return read_number(tx, &SQL[LAST], out, err);
}

enum status
db_report_expected(struct db_tx *tx, int64_t *out, struct err *err)
{
	return read_number(tx, &SQL[EXPECTED], out, err);
}

enum status
db_report_next(struct db_tx *tx, bool *found, struct db_report *out, struct db_report_place *place,
	struct bytes *work, struct err *err)
{
	own(PGresult) rows = NULL;

	*place = (struct db_report_place){ .begun = false };
	TRY(db_run(tx, &SQL[NEXT], DB_NO_PARAMS, &rows, err));
	*found = db_rows(rows) == 1;
	if (!*found)
		return OK;
	struct db_row row = db_row(rows, 0);
	struct view serial;

	read_report(&row, out);
	place->month = db_row_int32(&row);
	place->issuer_id = db_row_int32(&row);
	serial = db_row_view(&row);
	place->begun = serial.len == sizeof(place->serial.octets);
	if (place->begun)
		memcpy(place->serial.octets, serial.data, serial.len);
	db_row_bytes(&row, work);
	return db_row_end(&row, err);
}

static struct db_param
serial_of(const struct db_report_place *place)
{
	return place->begun ? db_serial(&place->serial) : db_octets((const uint8_t *)"", 0);
}

enum status
db_report_save(struct db_tx *tx, const struct db_report *report, const struct db_report_place *place,
	struct view work, struct err *err)
{
	return db_run(tx, &SQL[SAVE], DB_PARAMS(db_text(report->report_id), db_int64(place->month),
		db_int64(place->issuer_id), serial_of(place), db_int64(report->seen),
		db_int64(report->expected), db_text_view(work)), NULL, err);
}

enum status
db_report_finish(struct db_tx *tx, const struct db_report *report, struct view body,
	const uint8_t sha256[DB_SHA256_BYTES], struct err *err)
{
	return db_run(tx, &SQL[FINISH], DB_PARAMS(db_text(report->report_id), db_int64(report->seen),
		db_int64(report->findings), db_text(report->severity), db_bytes(body),
		db_octets(sha256, DB_SHA256_BYTES)), NULL, err);
}

enum status
db_report_fail(struct db_tx *tx, const char *code, const char *text, struct err *err)
{
	return db_run(tx, &SQL[FAIL], DB_PARAMS(db_text(code), db_text(text)), NULL, err);
}

enum status
db_retention_reports(struct db_tx *tx, int64_t before_s, size_t max, size_t *deleted, struct err *err)
{
	own(PGresult) done = NULL;

	TRY(db_run(tx, &SQL[RETENTION], DB_PARAMS(db_int64(before_s), db_int64((int64_t)max)), &done,
		err));
	*deleted = (size_t)db_affected(done);
	return OK;
}

/* Room for the texts of a row, which db_report_row borrows. */
struct texts {
	char profile[DB_PROFILE_BYTES], device_id[DB_ID_BYTES], identity[DB_ID_BYTES];
};

static enum status
read_certificate(struct db_row *row, struct texts *texts, struct db_report_row *out, struct err *err)
{
	*out = (struct db_report_row){ .profile = texts->profile, .device_id = texts->device_id,
		.key_identity = texts->identity, .place.begun = true };
	out->place.month = db_row_int32(row);
	out->place.issuer_id = db_row_int32(row);
	(void)db_row_serial(row, &out->place.serial);
	out->status = db_row_cert_status(row);
	db_row_text(row, texts->profile, sizeof(texts->profile));
	db_row_text(row, texts->device_id, sizeof(texts->device_id));
	out->of_device = db_row_bool(row);
	out->not_after_s = db_row_int64(row);
	out->issued_at_s = db_row_int64(row);
	out->sha256 = db_row_view(row);
	out->der = db_row_view(row);
	db_row_text(row, texts->identity, sizeof(texts->identity));
	out->key_blocked = db_row_bool(row);
	out->key_issuer_id = db_row_int32(row);
	out->active_in = db_row_view(row);
	out->revoked_in = db_row_view(row);
	return db_row_end(row, err);
}

enum status
db_report_page(struct db_tx *tx, const struct db_report_place *place, size_t limit,
	enum status (*each)(void *arg, const struct db_report_row *row, struct err *err), void *arg,
	size_t *count, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[PAGE], DB_PARAMS(db_int64(place->month), db_int64(place->issuer_id),
		serial_of(place), db_int64((int64_t)limit)), &rows, err));
	*count = (size_t)db_rows(rows);
	for (int r = 0; r < db_rows(rows); r++) {
		struct db_row row = db_row(rows, r);
		struct db_report_row certificate;
		struct texts texts;

		TRY(read_certificate(&row, &texts, &certificate, err));
		TRY(each(arg, &certificate, err));
	}
	return OK;
}

enum status
db_report_strangers(struct db_tx *tx, int32_t issuer_id, size_t max, struct db_report_stranger *out,
	size_t *count, struct err *err)
{
	own(PGresult) rows = NULL;

	*count = 0;
	TRY(db_run(tx, &SQL[STRANGERS], DB_PARAMS(db_int64(issuer_id), db_int64((int64_t)max)), &rows,
		err));
	for (int r = 0; r < db_rows(rows); r++) {
		struct db_row row = db_row(rows, r);
		struct db_report_stranger *stranger = &out[(*count)++];

		db_row_text(&row, stranger->target, sizeof(stranger->target));
		db_row_text(&row, stranger->certificate_id, sizeof(stranger->certificate_id));
		TRY(db_row_end(&row, err));
	}
	return OK;
}

enum status
db_report_policies(struct db_tx *tx, const char *after, size_t limit,
	enum status (*each)(void *arg, const char *name, struct view document, bool attached,
		struct err *err),
	void *arg, size_t *count, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[POLICIES], DB_PARAMS(db_text(after), db_int64((int64_t)limit)), &rows, err));
	*count = (size_t)db_rows(rows);
	for (int r = 0; r < db_rows(rows); r++) {
		struct db_row row = db_row(rows, r);
		struct view document;
		char name[129];
		bool attached;

		db_row_text(&row, name, sizeof(name));
		document = db_row_view(&row);
		attached = db_row_bool(&row);
		TRY(db_row_end(&row, err));
		TRY(each(arg, name, document, attached, err));
	}
	return OK;
}
