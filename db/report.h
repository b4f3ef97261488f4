/*
 * db/report.h - compliance reports as rows, and what they are made of: a walk over all certificates by key,
 * page by page, and what IoT Core and the audit log say. What is odd is the server's affair. Threads: as for
 * the db_tx.
 */
#ifndef DB_REPORT_H
#define DB_REPORT_H

#include "db/db.h"

#define DB_REPORT_ID_BYTES 33
#define DB_REPORT_STATE_BYTES 8

struct db_report {
	char report_id[DB_REPORT_ID_BYTES];
	char actor[DB_ID_BYTES];
	char request_id[DB_ID_BYTES];
	char state[DB_REPORT_STATE_BYTES]; /* running, done, failed */
	int64_t created_at_s, created_at_us;
	int64_t finished_at_s; /* 0: not yet */
	int64_t seen, expected;
	int64_t findings;
	char severity[9]; /* of the worst; "": there are none */
	char sha256[2 * DB_SHA256_BYTES + 1]; /* of the document; "": not yet */
	char error_code[ERR_CODE_BYTES];
	char error_text[ERR_TEXT_BYTES];
};

/* Behind the last certificate that was looked at. */
struct db_report_place {
	int32_t month, issuer_id;
	struct serial serial;
	bool begun;
};

/* ERR_CONFLICT report_under_way: one is being made. */
MUST_USE enum status db_report_create(struct db_tx *tx, const char *report_id, const char *actor,
	const char *request_id, struct err *err);
/* ERR_NOT_FOUND report_unknown. The caller frees body, which is empty until it is done. */
MUST_USE enum status db_report_find(struct db_tx *tx, const char *report_id, struct db_report *out,
	struct bytes *body, struct err *err);
/* The newest first, those that are older than (before_us, before_id); 0: from the newest. */
MUST_USE enum status db_report_list(struct db_tx *tx, int64_t before_us, const char *before_id,
	size_t limit, struct db_report *out, size_t *count, struct err *err);
/* When the last one was made by schedule; without any, when the first CA was made known here; 0: never. */
MUST_USE enum status db_report_last_s(struct db_tx *tx, int64_t *out, struct err *err);
/* The one that is being made, locked to the end of tx; *found false: none is. The caller frees work. */
MUST_USE enum status db_report_next(struct db_tx *tx, bool *found, struct db_report *out,
	struct db_report_place *place, struct bytes *work, struct err *err);
MUST_USE enum status db_report_save(struct db_tx *tx, const struct db_report *report,
	const struct db_report_place *place, struct view work, struct err *err);
/* findings and severity of report count; sha256 is body's. */
MUST_USE enum status db_report_finish(struct db_tx *tx, const struct db_report *report, struct view body,
	const uint8_t sha256[DB_SHA256_BYTES], struct err *err);
/* The one that is being made was given up. */
MUST_USE enum status db_report_fail(struct db_tx *tx, const char *code, const char *text, struct err *err);
/* Deletes up to max that are older than before_s. */
MUST_USE enum status db_retention_reports(struct db_tx *tx, int64_t before_s, size_t max, size_t *deleted,
	struct err *err);

/* ---- what it is made of ---- */

/* How many certificates there are, as PostgreSQL estimates: nothing is read. */
MUST_USE enum status db_report_expected(struct db_tx *tx, int64_t *out, struct err *err);

/* A certificate and what stands beside it; borrowed during the call. */
struct db_report_row {
	struct db_report_place place;
	enum cert_status status; /* as stored */
	const char *profile, *device_id;
	bool of_device;
	int64_t not_after_s, issued_at_s;
	struct view sha256, der;
	const char *key_identity; /* whose key it is on record as; "": nobody's */
	bool key_blocked;
	int32_t key_issuer_id;   /* of the last certificate for it */
	struct view active_in, revoked_in; /* targets whose last read-back says so, one a blank */
};
/* Up to limit rows behind place, in the order of the key; *count 0: that was all. */
MUST_USE enum status db_report_page(struct db_tx *tx, const struct db_report_place *place, size_t limit,
	enum status (*each)(void *arg, const struct db_report_row *row, struct err *err), void *arg,
	size_t *count, struct err *err);

struct db_report_stranger {
	char target[33];
	char certificate_id[2 * DB_SHA256_BYTES + 1];
};
/* Certificates of an issuer of ours that are ACTIVE in IoT Core and that we did not issue; up to max. */
MUST_USE enum status db_report_strangers(struct db_tx *tx, int32_t issuer_id, size_t max,
	struct db_report_stranger *out, size_t *count, struct err *err);

/* The local IoT Core's policies behind a name, each with its default version; up to limit. */
MUST_USE enum status db_report_policies(struct db_tx *tx, const char *after, size_t limit,
	enum status (*each)(void *arg, const char *name, struct view document, bool attached,
		struct err *err),
	void *arg, size_t *count, struct err *err);

#endif
