#include "db/certificate.h"

#include <assert.h>
#include <string.h>

#include "base/mem.h"
#include "db/filter.h"
#include "db/run.h"

enum {
	BY_REF,
	BY_SHA256,
	BY_SERIAL,
	BY_REFS,
	SEARCH, /* and one for each lead */
	STATEMENTS = SEARCH + LEADS,
};

#define COLUMNS                                                                                    \
	"c.issuer_id, c.serial, i.ca_id, c.status, c.profile, c.device_id, c.subject, c.principal_id," \
	" c.manifest_id, " SQL_S("c.not_before") ", " SQL_S("c.not_after") ", " SQL_US("c.issued_at")  \
	", " SQL_S("c.status_at") ", c.sha256, c.spki_sha256, p.sha256, s.sha256,"                     \
	" coalesce(r.reason, -1)::int, " SQL_S("r.revoked_at") ", d.status, c.der"
#define COLUMN_COUNT 21

/* Each is one look-up by primary key for a row: the OFFSET 0 keeps it so. */
#define POINTER(alias, name)                                                                       \
	" LEFT JOIN LATERAL (SELECT x.sha256 FROM jitrca.certificate x"                                \
	" WHERE x.expiry_month = jitrca.serial_month(c." name "_serial)"                               \
	" AND x.issuer_id = c." name "_issuer AND x.serial = c." name "_serial OFFSET 0) " alias       \
	" ON true"
#define JOINS                                                                                      \
	" JOIN jitrca.issuer i ON i.issuer_id = c.issuer_id"                                           \
	" LEFT JOIN jitrca.revocation r ON r.issuer_id = c.issuer_id AND r.serial = c.serial"          \
	" LEFT JOIN jitrca.device d ON d.device_id = c.device_id AND c.of_device"                      \
	POINTER("p", "predecessor") POINTER("s", "successor")

/*
 * Behind the cursor, and not before from. The first condition says no more than the second: it is what
 * the planner can see of it, and without it reading a whole month and sorting it looks cheap.
 */
#define BEHIND(column, from)                                                                       \
	" AND " column " >= greatest(" SQL_AT_US("$14") ", " from ")"                                  \
	" AND (" column ", c.serial) > (greatest(" SQL_AT_US("$14") ", " from "),"                     \
	" CASE WHEN " SQL_AT_US("$14") " >= " from " THEN $15::bytea ELSE '\\x00' END)"
/* A CA has no index of its own: it issued nothing before it began (an hour for odd clocks). */
#define FROM_ISSUED                                                                                \
	"greatest(to_timestamp($7::bigint), (SELECT i.not_before - interval '1 hour'"                  \
	" FROM jitrca.issuer i WHERE i.issuer_id = $5::int))"

#define SEARCH_SQL(lead)                                                                           \
	"SELECT " COLUMNS " FROM (SELECT * FROM jitrca.certificate c WHERE " FILTER_REST               \
	FILTER_FROM_END lead BEHIND("c.issued_at", FROM_ISSUED)                                        \
	" ORDER BY c.issued_at, c.serial LIMIT $16::bigint) c" JOINS                                   \
	" ORDER BY c.issued_at, c.serial"

/*
 * In order of the end: one profile and one status after the other, for each of them has that order in
 * its index, and no more than a page is taken out of each.
 */
#define END_PAGE(narrowed_by)                                                                      \
	"(SELECT * FROM jitrca.certificate c WHERE " FILTER_REST FILTER_FROM_ISSUED narrowed_by        \
	BEHIND("c.not_after", "to_timestamp($9::bigint)")                                              \
	" ORDER BY c.not_after, c.serial LIMIT $16::bigint)"
#define NEXT_PROFILE(which)                                                                        \
	"(SELECT c.profile FROM jitrca.certificate c WHERE " MONTHS_SQL which                          \
	" ORDER BY c.profile LIMIT 1)"
/* The profile that is asked for, or all that there are: a look-up for each. */
#define PROFILES(name, which)                                                                      \
	name " (profile) AS (SELECT coalesce($4::text, " NEXT_PROFILE(which) ")"                       \
	" UNION ALL SELECT " NEXT_PROFILE(which " AND c.profile > l.profile")                          \
	" FROM " name " l WHERE l.profile IS NOT NULL AND $4::text IS NULL)"
#define LIVE_PROFILES PROFILES("live", " AND c.status = 'active'")
#define ENDED_PROFILES PROFILES("ended", " AND c.status <> 'active'")
#define LIVE_PAGES                                                                                 \
	"SELECT e.* FROM live l CROSS JOIN LATERAL "                                                   \
	END_PAGE(" AND c.status = 'active' AND c.profile = l.profile") " e"
/* What is expired is never one that was revoked. */
#define ENDED_PAGES                                                                                \
	"SELECT e.* FROM ended l CROSS JOIN"                                                           \
	" (VALUES ('pending_confirmation'), ('superseded'), ('held'), ('revoked')) AS s (status)"      \
	" CROSS JOIN LATERAL "                                                                         \
	END_PAGE(" AND c.profile = l.profile AND c.status = s.status AND c.status <> 'active'") " e"   \
	" WHERE CASE $6::text WHEN 'expired' THEN s.status <> 'revoked'"                               \
	" ELSE s.status = coalesce($6::text, s.status) END"
#define END_SEARCH_SQL(pages)                                                                      \
	" SELECT " COLUMNS " FROM (SELECT * FROM (" pages ") c"                                        \
	" ORDER BY c.not_after, c.serial LIMIT $16::bigint) c" JOINS                                   \
	" ORDER BY c.not_after, c.serial"
#define SEARCH_ENTRY(lead, text)                                                                   \
	[SEARCH + (lead)] = {                                                                      \
		.name = "certificate_search_" text, .params = FILTER_PARAMS + 3,                   \
		.columns = COLUMN_COUNT, .rows = ROWS_ANY

static const struct db_statement SQL[STATEMENTS] = {
	[BY_REF] = { /* certificate_pkey, one partition */
		.name = "certificate_by_ref", .params = 3, .columns = COLUMN_COUNT, .rows = ROWS_MAYBE,
		.sql = "SELECT " COLUMNS " FROM (SELECT * FROM jitrca.certificate c"
		       " WHERE c.expiry_month = $1::int AND c.issuer_id = $2::int"
		       " AND c.serial = $3::bytea) c" JOINS,
	},
	[BY_SHA256] = { /* certificate_sha256, of each partition */
		.name = "certificate_by_sha256", .params = 1, .columns = COLUMN_COUNT, .rows = ROWS_ANY,
		.sql = "SELECT " COLUMNS " FROM (SELECT * FROM jitrca.certificate c"
		       " WHERE c.sha256 = $1::bytea LIMIT 1) c" JOINS,
	},
	[BY_SERIAL] = { /* certificate_pkey, one partition, for each issuer */
		.name = "certificate_by_serial", .params = 2, .columns = COLUMN_COUNT, .rows = ROWS_ANY,
		.sql = "SELECT " COLUMNS " FROM (SELECT c.* FROM jitrca.issuer i,"
		       " LATERAL (SELECT * FROM jitrca.certificate c WHERE c.expiry_month = $1::int"
		       " AND c.issuer_id = i.issuer_id AND c.serial = $2::bytea OFFSET 0) c LIMIT 1) c"
		       JOINS,
	},
	[BY_REFS] = { /* certificate_pkey, one partition each */
		.name = "certificate_by_refs", .params = 3, .columns = COLUMN_COUNT, .rows = ROWS_ANY,
		.sql = "SELECT " COLUMNS " FROM (SELECT c.*, a.idx"
		       " FROM unnest($1::int[], $2::int[], $3::bytea[]) AS a(idx, issuer, serial),"
		       " LATERAL (SELECT * FROM jitrca.certificate c"
		       " WHERE c.expiry_month = jitrca.serial_month(a.serial)"
		       " AND c.issuer_id = a.issuer AND c.serial = a.serial OFFSET 0) c) c" JOINS
		       " ORDER BY c.idx",
	},
	SEARCH_ENTRY(LEAD_ISSUED, "issued"), .sql = SEARCH_SQL(LEAD_SQL_ISSUED) },
	SEARCH_ENTRY(LEAD_DEVICE, "device"), .sql = SEARCH_SQL(LEAD_SQL_DEVICE) },
	SEARCH_ENTRY(LEAD_PRINCIPAL, "principal"), .sql = SEARCH_SQL(LEAD_SQL_PRINCIPAL) },
	SEARCH_ENTRY(LEAD_MANIFEST, "manifest"), .sql = SEARCH_SQL(LEAD_SQL_MANIFEST) },
	SEARCH_ENTRY(LEAD_STATUS, "status"), .sql = SEARCH_SQL(LEAD_SQL_STATUS) },
	SEARCH_ENTRY(LEAD_PROFILE, "profile"), .sql = SEARCH_SQL(LEAD_SQL_PROFILE) },
	SEARCH_ENTRY(LEAD_END, "end"), .sql = "WITH RECURSIVE " LIVE_PROFILES ", " ENDED_PROFILES
		END_SEARCH_SQL(LIVE_PAGES " UNION ALL " ENDED_PAGES) },
	SEARCH_ENTRY(LEAD_LIVE, "live"), .sql = "WITH RECURSIVE " LIVE_PROFILES
		END_SEARCH_SQL(LIVE_PAGES) },
	SEARCH_ENTRY(LEAD_ENDED, "ended"), .sql = "WITH RECURSIVE " ENDED_PROFILES
		END_SEARCH_SQL(ENDED_PAGES) },
	SEARCH_ENTRY(LEAD_PRINCIPAL_ENDED, "principal_ended"),
		.sql = END_SEARCH_SQL(END_PAGE(LEAD_SQL_PRINCIPAL_ENDED)) },
};

const struct db_table DB_TABLE_CERTIFICATE = { SQL, COUNT_OF(SQL) };

void
db_certificate_free(struct db_certificate *certificate)
{
	bytes_free(&certificate->der);
}

enum cert_status
db_certificate_status_at(const struct db_certificate *certificate, int64_t now_s)
{
	if (certificate->status == CERT_REVOKED || certificate->not_after_s > now_s)
		return certificate->status;
	return CERT_EXPIRED;
}

static int64_t
seconds_of_us(int64_t us)
{
	return us >= 0 ? us / 1000000 : -((-us + 999999) / 1000000);
}

/* Reads a row; also on failure *out may own its DER. */
static enum status
read_row(const PGresult *rows, int r, struct db_certificate *out, int64_t *issued_at_us,
	struct err *err)
{
	struct db_row row = db_row(rows, r);
	int32_t reason;

	*out = (struct db_certificate){ 0 };
	db_row_ref(&row, &out->ref);
	db_row_text(&row, out->ca_id, sizeof(out->ca_id));
	out->status = db_row_cert_status(&row);
	db_row_text(&row, out->profile, sizeof(out->profile));
	db_row_text(&row, out->device_id, sizeof(out->device_id));
	db_row_text(&row, out->subject, sizeof(out->subject));
	db_row_text(&row, out->principal_id, sizeof(out->principal_id));
	db_row_text(&row, out->manifest_id, sizeof(out->manifest_id));
	out->not_before_s = db_row_int64(&row);
	out->not_after_s = db_row_int64(&row);
	*issued_at_us = db_row_int64(&row);
	out->issued_at_s = seconds_of_us(*issued_at_us);
	out->status_at_s = db_row_int64(&row);
	(void)db_row_octets(&row, out->sha256, DB_SHA256_BYTES);
	(void)db_row_octets(&row, out->spki_sha256, DB_SHA256_BYTES);
	out->has_predecessor = db_row_octets(&row, out->predecessor, DB_SHA256_BYTES);
	out->has_successor = db_row_octets(&row, out->successor, DB_SHA256_BYTES);
	reason = db_row_int32(&row);
	out->revoked = reason >= 0;
	out->reason = reason >= 0 ? (enum revocation_reason)reason : REASON_UNSPECIFIED;
	out->revoked_at_s = db_row_int64(&row);
	db_row_text(&row, out->device_status, sizeof(out->device_status));
	db_row_bytes(&row, &out->der);
	return db_row_end(&row, err);
}

static enum status
read_only_row(const PGresult *rows, struct db_certificate *out, struct err *err)
{
	int64_t issued_at_us;
	enum status status;

	if (db_rows(rows) == 0)
		return err_set(err, ERR_NOT_FOUND, "certificate_unknown",
			"certificate: there is no such one");
	status = read_row(rows, 0, out, &issued_at_us, err);
	if (status != OK)
		db_certificate_free(out);
	return status;
}

enum status
db_certificate_by_ref(struct db_tx *tx, const struct db_cert_ref *ref, struct db_certificate *out,
	struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[BY_REF], DB_PARAMS(db_int64(serial_month(&ref->serial)),
		db_int64(ref->issuer_id), db_serial(&ref->serial)), &rows, err));
	return read_only_row(rows, out, err);
}

enum status
db_certificate_by_sha256(struct db_tx *tx, const uint8_t sha256[DB_SHA256_BYTES],
	struct db_certificate *out, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[BY_SHA256], DB_PARAMS(db_octets(sha256, DB_SHA256_BYTES)), &rows, err));
	return read_only_row(rows, out, err);
}

enum status
db_certificate_by_serial(struct db_tx *tx, const struct serial *serial, struct db_certificate *out,
	struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[BY_SERIAL], DB_PARAMS(db_int64(serial_month(serial)), db_serial(serial)),
		&rows, err));
	return read_only_row(rows, out, err);
}

/* Reads all rows or none: those read before one that failed are freed. */
static enum status
read_rows(const PGresult *rows, struct db_certificate *out, bool by_end,
	struct db_certificate_cursor *last, struct err *err)
{
	for (int r = 0; r < db_rows(rows); r++) {
		int64_t issued_at_us;
		enum status status = read_row(rows, r, &out[r], &issued_at_us, err);

		if (status != OK) {
			for (; r >= 0; r--)
				db_certificate_free(&out[r]);
			return status;
		}
		*last = (struct db_certificate_cursor){ .set = true,
			.at_us = by_end ? out[r].not_after_s * 1000000 : issued_at_us,
			.serial = out[r].ref.serial };
	}
	return OK;
}

enum status
db_certificate_by_refs(struct db_tx *tx, const struct db_cert_ref *refs, size_t count,
	struct db_certificate *out, struct err *err)
{
	own_struct(db_array) indexes = DB_ARRAY(ARRAY_INT4);
	own_struct(db_array) issuers = DB_ARRAY(ARRAY_INT4);
	own_struct(db_array) serials = DB_ARRAY(ARRAY_BYTEA);
	own(PGresult) rows = NULL;
	struct db_certificate_cursor last;

	for (size_t i = 0; i < count; i++) {
		TRY(db_array_add_int(&indexes, (int64_t)i, err));
		TRY(db_array_add_int(&issuers, refs[i].issuer_id, err));
		TRY(db_array_add_serial(&serials, &refs[i].serial, err));
	}
	TRY(db_run(tx, &SQL[BY_REFS], DB_PARAMS(db_array(&indexes), db_array(&issuers),
		db_array(&serials)), &rows, err));
	if ((size_t)db_rows(rows) != count)
		return err_set(err, ERR_NOT_FOUND, "certificate_unknown",
			"certificate: %zu wanted, %d found", count, db_rows(rows));
	return read_rows(rows, out, false, &last, err);
}

/*
 * What narrows most leads. By the end of validity goes all that is asked for by status: what has expired
 * or was superseded lies, in order of issuing, before what lives, and would be read first for nothing.
 */
enum filter_lead
filter_lead(const struct db_certificate_filter *filter)
{
	bool ended = filter->status != CERT_UNSET && filter->status != CERT_ACTIVE &&
		filter->status != CERT_EXPIRED;
	bool issued = filter->issued_after_s != 0 || filter->issued_before_s != 0 ||
		filter->issuer_id != 0;
	bool expires = filter->expires_after_s != 0 || filter->expires_before_s != 0 ||
		filter->status == CERT_EXPIRED;

	if (filter->device_id != NULL)
		return LEAD_DEVICE;
	if (filter->manifest_id != NULL)
		return LEAD_MANIFEST;
	if (filter->principal_id != NULL)
		return ended && !issued ? LEAD_PRINCIPAL_ENDED : LEAD_PRINCIPAL;
	if (ended && issued)
		return LEAD_STATUS;
	if (ended)
		return LEAD_ENDED;
	if (filter->status == CERT_ACTIVE && !issued)
		return LEAD_LIVE;
	if (filter->profile != NULL)
		return LEAD_PROFILE;
	return expires && !issued ? LEAD_END : LEAD_ISSUED;
}

/* What is not asked for lies outside of all times: 1970, and the end of year 9999. */
#define TIME_LEAST_S 0
#define TIME_MOST_S INT64_C(253402300799)
#define MONTH_MOST 65535

static int64_t
time_or(int64_t asked_s, int64_t other_s)
{
	return asked_s != 0 ? asked_s : other_s;
}

static int64_t
month_of(int64_t at_s)
{
	return at_s >= TIME_MOST_S ? MONTH_MOST : expiry_month(at_s);
}

/* Statuses that expired wins over. */
static bool
lasting(enum cert_status status)
{
	return status != CERT_UNSET && status != CERT_REVOKED && status != CERT_EXPIRED;
}

/*
 * Between which months of expiry the filter looks. Only those are scanned, so what is asked about
 * the end of a certificate, also by status, narrows it as far as it can.
 */
static void
filter_months(const struct db_certificate_filter *filter, int64_t *low, int64_t *high)
{
	*low = filter->expires_after_s > 0 ? month_of(filter->expires_after_s) : 0;
	*high = month_of(time_or(filter->expires_before_s, TIME_MOST_S));
	if (lasting(filter->status) && filter->now_s > 0 && *low < month_of(filter->now_s))
		*low = month_of(filter->now_s);
	if (filter->status == CERT_EXPIRED && *high > month_of(filter->now_s))
		*high = month_of(filter->now_s);
}

void
filter_params(struct db_param out[FILTER_PARAMS], const struct db_certificate_filter *filter)
{
	int64_t after_s = time_or(filter->expires_after_s, TIME_LEAST_S);
	int64_t before_s = time_or(filter->expires_before_s, TIME_MOST_S);
	int64_t low;
	int64_t high;

	filter_months(filter, &low, &high);
	/* As a bound of the index, too: what has ended meanwhile is not read to be thrown away. */
	if (lasting(filter->status) && after_s <= filter->now_s)
		after_s = filter->now_s + 1;
	if (filter->status == CERT_EXPIRED && before_s > filter->now_s)
		before_s = filter->now_s + 1;
	out[0] = db_text(filter->device_id);
	out[1] = db_text(filter->principal_id);
	out[2] = db_text(filter->manifest_id);
	out[3] = db_text(filter->profile);
	out[4] = db_int64_or_null(filter->issuer_id);
	out[5] = db_text(filter->status != CERT_UNSET ? cert_status_name(filter->status) : NULL);
	out[6] = db_int64(time_or(filter->issued_after_s, TIME_LEAST_S));
	out[7] = db_int64(time_or(filter->issued_before_s, TIME_MOST_S));
	out[8] = db_int64(after_s);
	out[9] = db_int64(before_s);
	out[10] = db_int64(filter->now_s);
	out[11] = db_int64(low);
	out[12] = db_int64(high);
}

enum status
db_certificate_search(struct db_tx *tx, const struct db_certificate_filter *filter,
	const struct db_certificate_cursor *cursor, size_t limit, struct db_certificate *out,
	size_t *count, struct db_certificate_cursor *next, struct err *err)
{
	static const uint8_t BEFORE_ALL[1] = { 0 };
	bool set = cursor != NULL && cursor->set;
	enum filter_lead lead = filter_lead(filter);
	own(PGresult) rows = NULL;
	struct db_param params[FILTER_PARAMS + 3];
	struct db_certificate_cursor last = { 0 };

	*next = (struct db_certificate_cursor){ 0 };
	*count = 0;
	filter_params(params, filter);
	params[FILTER_PARAMS] = db_int64(set ? cursor->at_us : -1);
	params[FILTER_PARAMS + 1] = set ? db_serial(&cursor->serial) : db_octets(BEFORE_ALL, 1);
	params[FILTER_PARAMS + 2] = db_int64((int64_t)limit);
	TRY(db_run(tx, &SQL[SEARCH + lead],
		(struct db_params){ params, COUNT_OF(params) }, &rows, err));
	TRY(read_rows(rows, out, filter_by_end(lead), &last, err));
	*count = (size_t)db_rows(rows);
	if (*count == limit)
		*next = last;
	return OK;
}
