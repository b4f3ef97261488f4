/*
 * server/jobs/revoke.h - revocations of many (db/receipt.h): carried out a page at a time, forgotten by those
 * who should have approved them, looked at until IoT Core has them too.
 */
#ifndef SERVER_JOBS_REVOKE_H
#define SERVER_JOBS_REVOKE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct app;

/* One page of one running bulk revocation; *more: there is more to do at once. */
MUST_USE enum status bulk_job_step(struct app *app, bool *more, struct err *err);
/* Ends those that nobody approved in time. */
MUST_USE enum status approvals_job_step(struct app *app, struct err *err);

/* Which receipt is looked at next, and when; of one thread, zero at first. */
struct receipt_watch {
	char after[33];
	int64_t due_ms;
};
/* Looks at one that IoT Core has not all of; seldom enough that looking at a million is no load. */
MUST_USE enum status receipts_job_step(struct app *app, struct receipt_watch *watch, struct err *err);

#endif
