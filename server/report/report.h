/*
 * server/report/report.h - compliance reports: what there is, when it ends, what is odd about it, and the
 * state of the audit log. docs/compliance.md is the page for readers.
 *
 * A report is asked for and then made by a job, slice by slice: every certificate is looked at once, by its
 * key, at most some ten thousand a transaction, and what was counted so far is in the report's row. So a
 * server that dies in the middle loses a slice, and a fleet of a hundred million costs time, not memory.
 */
#ifndef SERVER_REPORT_REPORT_H
#define SERVER_REPORT_REPORT_H

#include "db/report.h"

struct app;

/* In tx. ERR_CONFLICT report_under_way. */
MUST_USE enum status report_ask(struct db_tx *tx, const char *actor, const char *request_id,
	char report_id[DB_REPORT_ID_BYTES], struct err *err);

/*
 * Asks for one if one is due by config.report_every_s, and takes the one that is under way a step further;
 * *more: there is another step. One server at a time.
 */
MUST_USE enum status report_job_step(struct app *app, bool *more, struct err *err);

/* The document (JSON, as stored) for a spreadsheet and for people and paper; the caller owns *out. */
MUST_USE enum status report_csv(struct view document, struct bytes *out, struct err *err);
/* policy: the Content-Security-Policy that it is to be sent with. */
#define REPORT_POLICY_BYTES 256
MUST_USE enum status report_html(struct view document, char policy[REPORT_POLICY_BYTES],
	struct bytes *out, struct err *err);

#endif
