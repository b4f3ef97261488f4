/*
 * server/jobs/retention.h - lets go what is older than config.certificate_retention_s and
 * config.audit_retention_s, which are "never" unless set. Each drop is a transaction with its audit record.
 */
#ifndef SERVER_JOBS_RETENTION_H
#define SERVER_JOBS_RETENTION_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

struct app;

/* A month of certificates, or the lanes up to a checkpoint, or a page of records; *more: there is more. */
MUST_USE enum status retention_drop_step(struct app *app, bool *more, struct err *err);

/*
 * The month before which certificates go at now_s: whole months only, and none to which an idempotency key
 * may lead.
 */
int32_t retention_month(const struct app *app, int64_t retention_s, int64_t now_s);
/* "2026-01" and NUL. */
#define MONTH_TEXT_BYTES 16
void retention_month_text(char out[MONTH_TEXT_BYTES], int32_t month);

#endif
