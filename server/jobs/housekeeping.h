/*
 * server/jobs/housekeeping.h - orphaned intents, leases of the dead,
 * months made ahead, retention, audit checkpoints.
 */
#ifndef SERVER_JOBS_HOUSEKEEPING_H
#define SERVER_JOBS_HOUSEKEEPING_H

#include <stdbool.h>

#include "base/err.h"

struct app;

/* Closes intents whose server is gone; *more: there is more to do at once. */
MUST_USE enum status reaper_job_step(struct app *app, bool *more, struct err *err);
/* Lets go what dead servers had leased of the outbox. */
MUST_USE enum status leases_job_step(struct app *app, struct err *err);
/* Makes the partitions of the months that certificates may soon end in, a few at a time; *more as above. */
MUST_USE enum status months_job_step(struct app *app, bool *more, struct err *err);
/* A page of what grew old, if this server leads; *more as above. */
MUST_USE enum status retention_job_step(struct app *app, bool *more, struct err *err);

#endif
