#include "server/jobs/jobs.h"

#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/cond.h"
#include "base/log.h"
#include "base/mem.h"
#include "server/app.h"
#include "server/audit_checkpoint.h"
#include "server/jobs/campaign.h"
#include "server/jobs/crl_round.h"
#include "server/jobs/housekeeping.h"
#include "server/jobs/retention.h"
#include "server/jobs/revoke.h"
#include "server/metrics.h"
#include "server/protocol/crl.h"
#include "server/report/report.h"
#include "server/rotation_plan.h"
#include "server/succession.h"

/*
 * Without a notification (its link may be down) a revocation still shows within a second. The pause after a
 * failure as well: a database that is away is not asked a thousand times a second.
 */
#define CRL_TICK_MS 500
#define HOUSEKEEPING_TICK_MS 500
#define RETENTION_EVERY_MS (10 * 60 * 1000)
/* Pages in a round: filling a large campaign keeps a bulk revocation waiting no longer than that. */
#define CAMPAIGN_STEPS 20
#define REPORT_TICK_MS 30000
#define PLAN_EVERY_MS 60000 /* how often it is asked whether one is due */
#define CHECKPOINT_EVERY_MS 2000 /* how often it is asked whether one is due, and shipped */

struct worker {
	pthread_t thread;
	pthread_cond_t wake;
	bool started, woken;
};

struct jobs {
	struct app *app;
	pthread_mutex_t lock;
	bool stopping;
	struct worker crl, crl_large, housekeeping, report;
	struct crl_round *soon, *large;
};

/* Waits until woken, stopped or wait_ms are over; true while the jobs go on. */
static bool
wait_for(struct jobs *jobs, struct worker *worker, int64_t wait_ms)
{
	struct timespec until = cond_in_ms(wait_ms);
	bool go_on;

	(void)pthread_mutex_lock(&jobs->lock);
	while (!worker->woken && !jobs->stopping)
		if (pthread_cond_timedwait(&worker->wake, &jobs->lock, &until) != 0)
			break;
	worker->woken = false;
	go_on = !jobs->stopping;
	(void)pthread_mutex_unlock(&jobs->lock);
	return go_on;
}

/* The debounce: what is revoked within it shares one list. Not cut short by further wake-ups. */
static bool
settle(struct jobs *jobs, int64_t ms)
{
	int64_t end_ms = clock_mono_ms(jobs->app->clock) + ms;
	int64_t left_ms;

	while ((left_ms = end_ms - clock_mono_ms(jobs->app->clock)) > 0)
		if (!wait_for(jobs, &jobs->crl, left_ms))
			return false;
	return true;
}

/* Publishes what is due and fetches what others published. */
static void
crl_round_run(struct jobs *jobs, struct crl_round *round,
	enum status (*run)(struct crl_round *round, size_t *published, struct err *err),
	enum crl_part part, bool *failing)
{
	size_t published = 0;
	struct err err;
	enum status status = run(round, &published, &err);

	if (status == OK)
		status = crl_cache_refresh(jobs->app, part, &err);
	if (status != OK)
		metric_count(METRIC_JOB_FAILED, "crl", NULL, 1);
	if (status != OK && !*failing)
		log_error(LOG_ERROR, "crl_job_failed", NULL, &err);
	*failing = status != OK;
}

static void *
crl_main(void *arg)
{
	struct jobs *jobs = arg;
	bool failing = false;

	do {
		crl_round_run(jobs, jobs->soon, crl_round_soon, CRL_PART_SOON, &failing);
		if (!wait_for(jobs, &jobs->crl, CRL_TICK_MS))
			break;
	} while (settle(jobs, jobs->app->config.crl_debounce_ms));
	return NULL;
}

static void *
crl_large_main(void *arg)
{
	struct jobs *jobs = arg;
	bool failing = false;

	do
		crl_round_run(jobs, jobs->large, crl_round_large, CRL_PART_FULL, &failing);
	while (wait_for(jobs, &jobs->crl_large, CRL_TICK_MS));
	return NULL;
}

static enum status
housekeeping_round(struct jobs *jobs, struct receipt_watch *receipts, int64_t *months_due_ms,
	int64_t *retention_due_ms, struct err *err)
{
	bool more = true;

	while (more && !jobs->app->stopping)
		TRY(reaper_job_step(jobs->app, &more, err));
	for (more = true; more && !jobs->app->stopping;)
		TRY(bulk_job_step(jobs->app, &more, err));
	TRY(approvals_job_step(jobs->app, err));
	TRY(receipts_job_step(jobs->app, receipts, err));
	TRY(leases_job_step(jobs->app, err));
	/* A few a round: a new database needs dozens, and revocations are not to wait for them. */
	if (clock_mono_ms(jobs->app->clock) >= *months_due_ms) {
		TRY(months_job_step(jobs->app, &more, err));
		if (!more)
			*months_due_ms = clock_mono_ms(jobs->app->clock) + RETENTION_EVERY_MS;
	}
	if (clock_mono_ms(jobs->app->clock) >= *retention_due_ms) {
		for (more = true; more && !jobs->app->stopping;)
			TRY(retention_job_step(jobs->app, &more, err));
		for (more = true; more && !jobs->app->stopping;)
			TRY(retention_drop_step(jobs->app, &more, err));
		*retention_due_ms = clock_mono_ms(jobs->app->clock) + RETENTION_EVERY_MS;
	}
	/* Issuance looks for itself; this is for a server that issues nothing, and shows who does. */
	return succession_follow(jobs->app, err);
}

/* Its failures are its own: what is late here keeps nothing else waiting. */
static void
checkpoint_round(struct jobs *jobs, int64_t *due_ms, int64_t *shipped, bool *failing)
{
	own_struct(db_note) note = { .number = 0 };
	enum status status;
	struct err err;
	bool made;

	if (clock_mono_ms(jobs->app->clock) < *due_ms)
		return;
	*due_ms = clock_mono_ms(jobs->app->clock) + CHECKPOINT_EVERY_MS;
	status = audit_checkpoint_take(jobs->app, true, &note, &made, &err);
	if (status == OK)
		status = audit_checkpoint_ship(jobs->app, shipped, &err);
	if (status != OK)
		metric_count(METRIC_JOB_FAILED, "checkpoint", NULL, 1);
	/* A signer or a database that is away is back soon; anything else wants a human. */
	if (status != OK && !*failing)
		log_error(status == ERR_UNAVAILABLE ? LOG_WARN : LOG_ERROR, "checkpoint_failed", NULL, &err);
	*failing = status != OK;
}

/* Its failures are its own, as above. */
static void
campaign_round(struct jobs *jobs, bool *failing)
{
	enum status status = OK;
	bool more = true;
	struct err err;

	for (unsigned i = 0; i < CAMPAIGN_STEPS && more && status == OK && !jobs->app->stopping; i++)
		status = campaign_job_step(jobs->app, &more, &err);
	if (status != OK)
		metric_count(METRIC_JOB_FAILED, "campaign", NULL, 1);
	if (status != OK && !*failing)
		log_error(LOG_ERROR, "campaign_job_failed", NULL, &err);
	*failing = status != OK;
}

static void
plan_round(struct jobs *jobs, int64_t *due_ms)
{
	struct err err;

	if (clock_mono_ms(jobs->app->clock) < *due_ms)
		return;
	*due_ms = clock_mono_ms(jobs->app->clock) + PLAN_EVERY_MS;
	if (rotation_plan_job_step(jobs->app, &err) == OK)
		return;
	metric_count(METRIC_JOB_FAILED, "plan", NULL, 1);
	log_error(LOG_ERROR, "plan_job_failed", NULL, &err);
}

static void *
housekeeping_main(void *arg)
{
	struct jobs *jobs = arg;
	struct receipt_watch receipts = { .due_ms = 0 };
	int64_t checkpoint_due_ms = 0;
	int64_t shipped = 0;
	bool checkpoint_failing = false;
	bool campaign_failing = false;
	int64_t plan_due_ms = 0;
	int64_t months_due_ms = 0;
	int64_t retention_due_ms = 0;
	bool failing = false;

	do {
		struct err err;
		enum status status = housekeeping_round(jobs, &receipts, &months_due_ms,
			&retention_due_ms, &err);

		if (status != OK)
			metric_count(METRIC_JOB_FAILED, "housekeeping", NULL, 1);
		if (status != OK && !failing)
			log_error(LOG_ERROR, "housekeeping_failed", NULL, &err);
		failing = status != OK;
		checkpoint_round(jobs, &checkpoint_due_ms, &shipped, &checkpoint_failing);
		campaign_round(jobs, &campaign_failing);
		plan_round(jobs, &plan_due_ms);
	} while (wait_for(jobs, &jobs->housekeeping, HOUSEKEEPING_TICK_MS));
	return NULL;
}

/* A thread of its own: a report of a large fleet walks for an hour, and nobody else is to wait for it. */
static void *
report_main(void *arg)
{
	struct jobs *jobs = arg;

	do {
		bool more = true;
		enum status status = OK;
		struct err err;

		while (more && status == OK && !jobs->app->stopping)
			status = report_job_step(jobs->app, &more, &err);
		if (status == OK)
			continue;
		metric_count(METRIC_JOB_FAILED, "report", NULL, 1);
		log_error(LOG_ERROR, "report_job_failed", NULL, &err);
	} while (wait_for(jobs, &jobs->report, REPORT_TICK_MS));
	return NULL;
}

static enum status
worker_start(struct jobs *jobs, struct worker *worker, void *(*run)(void *), struct err *err)
{
	if (pthread_create(&worker->thread, NULL, run, jobs) != 0)
		return err_set(err, ERR_UNAVAILABLE, "thread", "cannot start a job thread");
	worker->started = true;
	return OK;
}

enum status
jobs_start(struct jobs **out, struct app *app, struct err *err)
{
	struct jobs *jobs = mem_zalloc(sizeof(*jobs));
	enum status status;

	if (jobs == NULL)
		return err_memory(err);
	jobs->app = app;
	(void)pthread_mutex_init(&jobs->lock, NULL);
	cond_init(&jobs->crl.wake);
	cond_init(&jobs->crl_large.wake);
	cond_init(&jobs->housekeeping.wake);
	cond_init(&jobs->report.wake);
	status = crl_round_new(&jobs->soon, app, err);
	if (status == OK)
		status = crl_round_new(&jobs->large, app, err);
	if (status == OK)
		status = worker_start(jobs, &jobs->crl, crl_main, err);
	if (status == OK)
		status = worker_start(jobs, &jobs->crl_large, crl_large_main, err);
	if (status == OK)
		status = worker_start(jobs, &jobs->housekeeping, housekeeping_main, err);
	if (status == OK)
		status = worker_start(jobs, &jobs->report, report_main, err);
	if (status != OK) {
		jobs_stop(jobs);
		jobs_free(jobs);
		return status;
	}
	*out = jobs;
	return OK;
}

void
jobs_stop(struct jobs *jobs)
{
	if (jobs == NULL)
		return;
	(void)pthread_mutex_lock(&jobs->lock);
	jobs->stopping = true;
	(void)pthread_cond_broadcast(&jobs->crl.wake);
	(void)pthread_cond_broadcast(&jobs->crl_large.wake);
	(void)pthread_cond_broadcast(&jobs->housekeeping.wake);
	(void)pthread_cond_broadcast(&jobs->report.wake);
	(void)pthread_mutex_unlock(&jobs->lock);
	if (jobs->crl.started)
		(void)pthread_join(jobs->crl.thread, NULL);
	if (jobs->crl_large.started)
		(void)pthread_join(jobs->crl_large.thread, NULL);
	if (jobs->housekeeping.started)
		(void)pthread_join(jobs->housekeeping.thread, NULL);
	if (jobs->report.started)
		(void)pthread_join(jobs->report.thread, NULL);
	jobs->crl.started = jobs->crl_large.started = jobs->housekeeping.started = false;
	jobs->report.started = false;
}

void
jobs_free(struct jobs *jobs)
{
	if (jobs == NULL)
		return;
	crl_round_free(jobs->soon);
	crl_round_free(jobs->large);
	(void)pthread_cond_destroy(&jobs->crl.wake);
	(void)pthread_cond_destroy(&jobs->crl_large.wake);
	(void)pthread_cond_destroy(&jobs->housekeeping.wake);
	(void)pthread_cond_destroy(&jobs->report.wake);
	(void)pthread_mutex_destroy(&jobs->lock);
	mem_free(jobs);
}

void
jobs_wake(struct jobs *jobs, const char *channel)
{
	struct worker *worker =
		strcmp(channel, "jitrca_wake") == 0 ? &jobs->housekeeping :
		strcmp(channel, "jitrca_report") == 0 ? &jobs->report : &jobs->crl;

	(void)pthread_mutex_lock(&jobs->lock);
	worker->woken = true;
	(void)pthread_cond_signal(&worker->wake);
	if (strcmp(channel, "jitrca_crl") == 0) { /* another server's may be the full list */
		jobs->crl_large.woken = true;
		(void)pthread_cond_signal(&jobs->crl_large.wake);
	}
	(void)pthread_mutex_unlock(&jobs->lock);
}
