/*
 * server/jobs/campaign.h - moves campaigns on: freezes their members page by page, looks at what members
 * have done, asks the next, halts or ends (server/jobs/campaign_decide.h). One server at a time, each step
 * one transaction: a server that dies in the middle leaves nothing half done, and the next goes on from the
 * rows.
 */
#ifndef SERVER_JOBS_CAMPAIGN_H
#define SERVER_JOBS_CAMPAIGN_H

#include <stdbool.h>

#include "base/err.h"

struct app;
struct db_campaign;

/* One step of each campaign that is being filled or runs; *more: some have more to do at once. */
MUST_USE enum status campaign_job_step(struct app *app, bool *more, struct err *err);

/* The rank of a device among the members of a campaign: the same whoever asks. */
int64_t campaign_rank(const char *campaign_id, const char *device_id);

#endif
