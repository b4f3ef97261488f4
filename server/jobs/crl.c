#include "server/jobs/crl.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "ca/crl.h"
#include "ca/digest.h"
#include "db/crl.h"
#include "server/app.h"
#include "server/jobs/jobs.h"
#include "server/metrics.h"
#include "server/protocol/crl.h"
#include "server/signer/link.h"

struct build {
	struct app *app;
	const struct app_ca *ca;
	const struct db_crl_scope *scope;
	struct db_crl previous; /* number 0: none */
	int64_t number, wanted, now_s;
};

static enum status
add_entry(void *arg, const struct db_crl_entry *entry, struct err *err)
{
	struct ca_crl *crl = arg;

	return ca_crl_add(crl, &entry->serial, entry->revoked_at_s, (int)entry->reason, err);
}

/*
 * A revoked certificate stays until the month of its expiry was over before the last list began: then
 * it has been on one list after it expired, and its serial alone shows that it may go.
 */
static int64_t
keep_after_s(const struct build *build)
{
	struct civil month = civil_from_s(
		build->previous.number > 0 ? build->previous.this_update_s : build->now_s);

	month.day = 1;
	month.hour = month.minute = month.second = 0;
	return civil_to_s(month) - 1;
}

static enum status
fill(struct build *build, struct db_tx *tx, struct ca_crl **out, struct err *err)
{
	const struct config *config = &build->app->config;
	char url[CONFIG_TEXT_BYTES + 96];
	struct ca_crl_head head = {
		.ca_id = build->ca->ca_id,
		.issuer_certificate = view_of(&build->ca->certificate),
		.number = (uint64_t)build->number,
		.this_update_s = build->now_s,
		.next_update_s = build->now_s + config->crl_validity_s,
	};

	if (build->scope->scope != CRL_SCOPE_FULL) {
		(void)snprintf(url, sizeof(url), "%s/crl/%s/%02x.crl", config->public_http_url,
			build->ca->ca_id, (unsigned)build->scope->scope);
		head.distribution_point = url;
	}
	TRY(ca_crl_begin(out, &head, err));
	return db_crl_entries(tx, build->ca->issuer_id, build->scope->scope, keep_after_s(build),
		add_entry, *out, err);
}

static enum status
sign(struct build *build, struct ca_crl *crl, struct bytes *der, struct err *err)
{
	struct ca_signer *signer;
	uint64_t generation;
	enum status status;

	TRY(signer_link_acquire(build->app->signer_crl, &signer, &generation, err));
	status = ca_crl_sign(crl, signer, der, err);
	signer_link_release(build->app->signer_crl, status == ERR_UNAVAILABLE);
	return status;
}

/* Invariant 6: a list that lost an entry, or is older than what is served, is not published. */
static enum status
hold_against_previous(const struct build *build, struct view der, struct err *err)
{
	if (build->previous.number == 0)
		return OK;
	if (build->now_s < build->previous.this_update_s)
		return err_set(err, ERR_CONFLICT, "crl_older",
			"the clock stands before thisUpdate of list %lld: was it set back?",
			(long long)build->previous.number);
	return ca_crl_keeps(view_of(&build->previous.der), der, NULL, NULL, err);
}

static enum status
read_previous(struct build *build, struct db_tx *tx, struct err *err)
{
	struct err missing;
	enum status status = db_crl_latest(tx, build->ca->issuer_id, build->scope->scope,
		&build->previous, &missing);

	if (status != OK && status != ERR_NOT_FOUND) {
		*err = missing;
		return status;
	}
	return OK;
}

static enum status
reserve(struct build *build, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	TRY(db_tx_begin(&tx, build->app->pool, err));
	TRY(db_crl_reserve(&tx, build->ca->issuer_id, build->scope->scope, &build->number,
		&build->wanted, err));
	TRY(read_previous(build, &tx, err));
	return db_tx_commit(&tx, err);
}

static enum status
publish(struct build *build, size_t entries, struct bytes *der, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	own_struct(db_crl) crl = {
		.issuer_id = build->ca->issuer_id,
		.scope = build->scope->scope,
		.number = build->number,
		.this_update_s = build->now_s,
		.next_update_s = build->now_s + build->app->config.crl_validity_s,
		.published_at_s = build->now_s,
		.entries = (int64_t)entries,
		.der = *der,
	};

	*der = (struct bytes){ NULL, 0 };
	ca_sha256(crl.sha256, view_of(&crl.der));
	(void)snprintf(crl.ca_id, sizeof(crl.ca_id), "%s", build->ca->ca_id);
	TRY(db_tx_begin(&tx, build->app->pool, err));
	TRY(db_crl_publish(&tx, &crl, build->wanted, err));
	/* Only what is committed may be seen (invariant 1). */
	TRY(db_tx_commit(&tx, err));
	return crl_cache_put(build->app->crls, &crl, err);
}

static enum status
entries_to_der(struct build *build, size_t *entries, struct bytes *der, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	struct ca_crl *crl = NULL;
	enum status status;

	TRY(db_tx_begin(&tx, build->app->pool, err));
	status = fill(build, &tx, &crl, err);
	if (status == OK) {
		*entries = ca_crl_entry_count(crl);
		db_tx_end(&tx);
		status = sign(build, crl, der, err);
	}
	ca_crl_free(crl);
	return status;
}

static enum status
build_one(struct app *app, const struct app_ca *ca, const struct db_crl_scope *scope, struct err *err)
{
	struct build build = { .app = app, .ca = ca, .scope = scope,
		.now_s = clock_wall_s(app->clock) };
	own_struct(bytes) der = { NULL, 0 };
	size_t entries = 0;
	enum status status = reserve(&build, err);

	if (status == OK)
		status = entries_to_der(&build, &entries, &der, err);
	if (status == OK)
		status = hold_against_previous(&build, view_of(&der), err);
	if (status == OK)
		status = publish(&build, entries, &der, err);
	db_crl_free(&build.previous);
	if (status == OK)
		log_event(LOG_DEBUG, "crl_published", NULL, LOG_STR("ca", ca->ca_id),
			LOG_INT("scope", scope->scope), LOG_INT("number", build.number),
			LOG_INT("entries", entries));
	return status;
}

/* The full list of a large CA goes by the clock alone: relying parties follow the shards. */
static bool
may_wait(struct app *app, const struct app_ca *ca, const struct db_crl_scope *scope, int64_t due_s)
{
	struct crl_cache_health health;

	if (scope->scope != CRL_SCOPE_FULL || scope->next_update_s <= due_s)
		return false;
	crl_cache_health(app->crls, ca->ca_id, &health);
	/* 37 octets of serial and date, 12 of a reason. */
	return health.full_entries * 49 > app->config.crl_full_immediate_max_bytes;
}

static enum metric
outcome_of(enum status status, const struct err *err)
{
	if (status == OK)
		return METRIC_CRL_PUBLISHED;
	return status == ERR_CONFLICT && (strcmp(err->code, "crl_lost_entry") == 0 ||
						 strcmp(err->code, "crl_older") == 0 ||
						 strcmp(err->code, "crl_overtaken") == 0)
	               ? METRIC_CRL_REFUSED
	               : METRIC_CRL_FAILED;
}

static enum status
run_ca(struct app *app, const struct app_ca *ca, size_t *published, struct err *err)
{
	struct db_crl_scope due[CRL_SCOPES];
	size_t count;
	int64_t due_s = clock_wall_s(app->clock) + app->config.crl_validity_s -
		app->config.crl_refresh_s;

	{
		own_struct(db_tx) tx = { NULL, NULL };

		TRY(db_tx_begin(&tx, app->pool, err));
		TRY(db_crl_scopes_due(&tx, ca->issuer_id, due_s, due, CRL_SCOPES, &count, err));
		TRY(db_tx_commit(&tx, err));
	}
	for (size_t i = 0; i < count && !app->stopping; i++) {
		struct err one;
		enum status status;

		if (may_wait(app, ca, &due[i], due_s))
			continue;
		status = build_one(app, ca, &due[i], &one);
		metric_add(outcome_of(status, &one), 1);
		if (status == ERR_UNAVAILABLE) {
			*err = one;
			return status;
		}
		/* One list that cannot be published must not keep the others back. */
		if (status != OK)
			log_error(LOG_ERROR, "crl_not_published", NULL, &one);
		else
			(*published)++;
	}
	return OK;
}

enum status
crl_job_run(struct app *app, size_t *published, struct err *err)
{
	own_struct(db_tx) lead = { NULL, NULL };
	bool leader;

	*published = 0;
	TRY(db_tx_begin(&lead, app->pool, err));
	TRY(db_job_lead(&lead, JOB_CRL, &leader, err));
	metric_set(METRIC_LEADER, leader);
	for (size_t i = 0; leader && i < app->ca_count; i++)
		if (app->cas[i].can_sign)
			TRY(run_ca(app, &app->cas[i], published, err));
	return OK;
}
