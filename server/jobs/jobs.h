/*
 * server/jobs/jobs.h - work that no request waits for: CRLs, bulk revocations, orphaned intents,
 * retention, audit checkpoints. Every server runs the threads; an advisory lock decides who works.
 */
#ifndef SERVER_JOBS_JOBS_H
#define SERVER_JOBS_JOBS_H

#include "base/err.h"

struct app;
struct jobs;

/* Names for db_job_lead. */
enum job_lock { JOB_CRL = 1, JOB_HOUSEKEEPING = 2, JOB_CRL_LARGE = 3, JOB_CHECKPOINT = 4 };
#define JOB_CAMPAIGN 5 /* server/jobs/campaign.c */
#define JOB_PLAN 6 /* server/rotation_plan.c */
#define JOB_REPORT 7 /* server/report/report.c */
#define JOB_WATCH 16 /* server/notify/watch.c */

MUST_USE enum status jobs_start(struct jobs **out, struct app *app, struct err *err);
/* Lets the step under way end, and joins the threads; jobs_wake may still be called. NULL is welcome. */
void jobs_stop(struct jobs *jobs);
void jobs_free(struct jobs *jobs); /* stopped, or NULL */

/* A notification of the database's (db_session_wait): jitrca_revocation, jitrca_crl, jitrca_wake. */
void jobs_wake(struct jobs *jobs, const char *channel);

#endif
