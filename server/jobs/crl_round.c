#include "server/jobs/crl_round.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "db/crl.h"
#include "db/event.h"
#include "server/app.h"
#include "server/jobs/crl.h"
#include "server/jobs/jobs.h"
#include "server/metrics.h"
#include "server/protocol/crl.h"

#define HOLD_FIRST_MS 1000
#define HOLD_MOST_MS (5 * 60 * 1000)

/* A list that was not published last time. */
struct held {
	int64_t wait_ms; /* 0: it was */
	int64_t until_ms;
};

struct crl_round {
	struct app *app;
	struct held held[APP_CAS_MAX][CRL_SCOPES];
};

enum status
crl_round_new(struct crl_round **out, struct app *app, struct err *err)
{
	*out = mem_zalloc(sizeof(**out));
	if (*out == NULL)
		return err_memory(err);
	(*out)->app = app;
	return OK;
}

void
crl_round_free(struct crl_round *round)
{
	mem_free(round);
}

/* ---- holding back ---- */

static struct held *
held_of(struct crl_round *round, const struct app_ca *ca, int16_t scope)
{
	return &round->held[ca - round->app->cas][CRL_SCOPE_AT(scope)];
}

static bool
is_held(struct crl_round *round, const struct app_ca *ca, int16_t scope)
{
	const struct held *held = held_of(round, ca, scope);

	return held->wait_ms > 0 && clock_mono_ms(round->app->clock) < held->until_ms;
}

static void
hold(struct crl_round *round, const struct app_ca *ca, int16_t scope)
{
	struct held *held = held_of(round, ca, scope);

	if (held->wait_ms == 0)
		metric_add(METRIC_CRL_HELD, 1);
	held->wait_ms = held->wait_ms == 0 ? HOLD_FIRST_MS : 2 * held->wait_ms;
	if (held->wait_ms > HOLD_MOST_MS)
		held->wait_ms = HOLD_MOST_MS;
	held->until_ms = clock_mono_ms(round->app->clock) + held->wait_ms;
	log_event(LOG_WARN, "crl_held_back", NULL, LOG_STR("ca", ca->ca_id), LOG_INT("scope", scope),
		LOG_INT("again_ms", held->wait_ms));
}

static void
release(struct crl_round *round, const struct app_ca *ca, int16_t scope)
{
	struct held *held = held_of(round, ca, scope);

	if (held->wait_ms > 0)
		metric_add(METRIC_CRL_HELD, -1);
	*held = (struct held){ 0 };
}

/* ---- what came of it ---- */

static bool
is_code(const struct err *err, const char *code)
{
	return err->status == ERR_CONFLICT && strcmp(err->code, code) == 0;
}

static bool
is_refused(const struct err *err)
{
	return is_code(err, "crl_lost_entry") || is_code(err, "crl_older") ||
	       is_code(err, "crl_overtaken");
}

/* Once an hour for the same: the list may be refused again and again. */
static enum status
put_event(struct app *app, const struct app_ca *ca, int16_t scope, const struct err *refusal,
	struct err *err)
{
	struct db_event event = { .kind = "crl_refused", .severity = "critical" }, last[16];
	struct db_event_filter filter = { .kind = event.kind,
		.since_s = clock_wall_s(app->clock) - 3600 };
	own_struct(db_tx) tx = { NULL, NULL };
	size_t count;

	(void)snprintf(event.detail, sizeof(event.detail),
		"{\"ca\": \"%s\", \"code\": \"%s\", \"scope\": %d}", ca->ca_id, refusal->code,
		(int)scope);
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_event_list(&tx, &filter, COUNT_OF(last), last, &count, err));
	for (size_t i = 0; i < count; i++)
		if (strcmp(last[i].detail, event.detail) == 0)
			return OK;
	TRY(db_event_put(&tx, &event, err));
	return db_tx_commit(&tx, err);
}

/* One list that cannot be published must not keep the others back. */
static enum status
settle(struct crl_round *round, const struct app_ca *ca, int16_t scope, enum status status, size_t made,
	const struct err *one, struct err *err)
{
	struct err lost;

	if (status == OK) {
		metric_add(METRIC_CRL_PUBLISHED, (int64_t)made);
		release(round, ca, scope);
		return OK;
	}
	metric_add(is_refused(one) ? METRIC_CRL_REFUSED : METRIC_CRL_FAILED, 1);
	if (status == ERR_UNAVAILABLE) {
		*err = *one;
		return status;
	}
	log_error(LOG_ERROR, "crl_not_published", NULL, one);
	hold(round, ca, scope);
	if (is_refused(one) && put_event(round->app, ca, scope, one, &lost) != OK)
		log_error(LOG_WARN, "event_not_recorded", NULL, &lost);
	return OK;
}

/* ---- one list ---- */

static enum status
run_shard(struct crl_round *round, const struct app_ca *ca, int16_t scope, size_t *published,
	struct err *err)
{
	struct err one = { .status = OK };
	size_t made = 0;
	enum status status = crl_make_shard(round->app, ca, scope, &made, &one);

	*published += made;
	return settle(round, ca, scope, status, made, &one, err);
}

/*
 * A full list with its delta. Where that would lose what the delta before had, the full list alone says all,
 * and no list before it goes with a delta any more.
 */
static enum status
run_both(struct crl_round *round, const struct app_ca *ca, bool rebase, size_t *published,
	struct err *err)
{
	struct err one = { .status = OK };
	size_t made = 0;
	enum status status = crl_make_both(round->app, ca, rebase, &made, &one);

	TRY(settle(round, ca, CRL_SCOPE_FULL, status, made, &one, err));
	if (status != OK && !rebase && is_code(&one, "crl_lost_entry")) {
		status = crl_make_both(round->app, ca, true, &made, &one);
		TRY(settle(round, ca, CRL_SCOPE_FULL, status, made, &one, err));
	}
	*published += made;
	if (status == OK)
		release(round, ca, CRL_SCOPE_DELTA);
	return OK;
}

/* Deltas cannot go on: there has to be a full list that they go on from, and no other. */
static enum status
run_rebase(struct crl_round *round, const struct app_ca *ca, bool small, size_t *published,
	struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	if (small)
		return is_held(round, ca, CRL_SCOPE_FULL)
		               ? OK
		               : run_both(round, ca, true, published, err);
	TRY(db_tx_begin(&tx, round->app->pool, err));
	TRY(db_crl_full_ask(&tx, ca->issuer_id, err));
	return db_tx_commit(&tx, err);
}

static enum status
run_delta(struct crl_round *round, const struct app_ca *ca, bool small, size_t *published,
	struct err *err)
{
	struct err one = { .status = OK };
	size_t made = 0;
	enum status status = crl_make_delta(round->app, ca, &made, &one);

	/* A large full list was published meanwhile, which moved the base. */
	if (status != OK && is_code(&one, "crl_base_gone"))
		status = crl_make_delta(round->app, ca, &made, &one);
	if (status != OK && is_code(&one, "crl_base_gone"))
		return run_rebase(round, ca, small, published, err);
	*published += made;
	TRY(settle(round, ca, CRL_SCOPE_DELTA, status, made, &one, err));
	return status != OK && is_code(&one, "crl_lost_entry")
	               ? run_rebase(round, ca, small, published, err)
	               : OK;
}

/* ---- what is due ---- */

/* Of the scopes below the shards. */
struct whole {
	bool delta, full; /* due … */
	bool asked;       /* … since deltas cannot go on */
	bool small;       /* the full list does not take long */
};

/* The full list of a large CA goes by the clock alone, unless the delta has grown too much since. */
static bool
may_wait(const struct db_crl_scope *scope, const struct crl_cache_health *health, int64_t due_s)
{
	return scope->next_update_s > due_s &&
	       !(health->delta_number >= health->full_number &&
		       crl_is_grown(health->delta_entries, health->full_entries));
}

static struct whole
judge_whole(struct app *app, const struct app_ca *ca, const struct db_crl_scope *due, size_t count,
	int64_t due_s)
{
	struct whole whole = { .delta = false };
	struct crl_cache_health health;

	crl_cache_health(app->crls, ca->ca_id, &health);
	whole.small = crl_is_small(app, health.full_bytes);
	for (size_t i = 0; i < count && due[i].scope <= CRL_SCOPE_FULL; i++) {
		if (due[i].scope == CRL_SCOPE_DELTA) {
			whole.delta = true;
		} else {
			whole.full = whole.small || !may_wait(&due[i], &health, due_s);
			whole.asked = due[i].next_update_s == 0;
		}
	}
	return whole;
}

struct due {
	struct db_crl_scope at[CRL_SCOPES];
	size_t count;
	struct whole whole;
};

static enum status
read_due(struct app *app, const struct app_ca *ca, struct due *due, struct err *err)
{
	const struct config *config = &app->config;
	own_struct(db_tx) tx = { NULL, NULL };
	int64_t now_s = clock_wall_s(app->clock);
	int64_t due_s = now_s + config->crl_validity_s - config->crl_refresh_s;

	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_crl_scopes_due(&tx, ca->issuer_id, due_s, now_s + config->crl_delta_validity_s / 2, due->at,
		COUNT_OF(due->at), &due->count, err));
	TRY(db_tx_commit(&tx, err));
	due->whole = judge_whole(app, ca, due->at, due->count, due_s);
	return OK;
}

/* The delta first, for it says all. */
static enum status
soon_of(struct crl_round *round, const struct app_ca *ca, size_t *published, struct err *err)
{
	const struct whole *whole;
	struct due due;

	TRY(read_due(round->app, ca, &due, err));
	whole = &due.whole;
	if (whole->full && whole->small && !is_held(round, ca, CRL_SCOPE_FULL))
		TRY(run_both(round, ca, false, published, err));
	else if (whole->delta && !is_held(round, ca, CRL_SCOPE_DELTA))
		TRY(run_delta(round, ca, whole->small, published, err));
	for (size_t i = 0; i < due.count && !round->app->stopping; i++)
		if (due.at[i].scope > CRL_SCOPE_FULL && !is_held(round, ca, due.at[i].scope))
			TRY(run_shard(round, ca, due.at[i].scope, published, err));
	return OK;
}

static enum status
large_of(struct crl_round *round, const struct app_ca *ca, size_t *published, struct err *err)
{
	struct err one = { .status = OK };
	enum status status;
	size_t made = 0;
	struct due due;

	TRY(read_due(round->app, ca, &due, err));
	if (!due.whole.full || due.whole.small || is_held(round, ca, CRL_SCOPE_FULL))
		return OK;
	status = crl_make_full(round->app, ca, due.whole.asked, &made, &one);
	*published += made;
	return settle(round, ca, CRL_SCOPE_FULL, status, made, &one, err);
}

/* ---- rounds ---- */

static enum status
each_ca(struct crl_round *round, enum job_lock job,
	enum status (*run)(struct crl_round *round, const struct app_ca *ca, size_t *published,
		struct err *err),
	size_t *published, struct err *err)
{
	struct app *app = round->app;
	own_struct(db_tx) lead = { NULL, NULL };
	bool leader;

	*published = 0;
	TRY(db_tx_begin(&lead, app->pool, err));
	TRY(db_job_lead(&lead, (int32_t)job, &leader, err));
	if (job == JOB_CRL)
		metric_set(METRIC_LEADER, leader);
	else if (leader)
		TRY(db_crl_long(&lead, err));
	for (size_t i = 0; leader && i < app->ca_count && !app->stopping; i++)
		if (app->cas[i].can_sign)
			TRY(run(round, &app->cas[i], published, err));
	return OK;
}

enum status
crl_round_soon(struct crl_round *round, size_t *published, struct err *err)
{
	return each_ca(round, JOB_CRL, soon_of, published, err);
}

enum status
crl_round_large(struct crl_round *round, size_t *published, struct err *err)
{
	return each_ca(round, JOB_CRL_LARGE, large_of, published, err);
}
