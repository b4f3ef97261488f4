#include "server/jobs/housekeeping.h"

#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "db/event.h"
#include "db/issuance.h"
#include "db/issuer.h"
#include "db/outbox.h"
#include "server/app.h"
#include "server/audit.h"
#include "server/http/request.h"
#include "server/jobs/jobs.h"
#include "server/metrics.h"
#include "server/retry.h"

#define REAP_PAGE 64
#define RETENTION_PAGE 5000
#define INSTANCE_PAGE 100
#define MONTH_PAGE 8
/* Beyond the longest validity, so that the next round finds nothing missing on the first of a month. */
#define MONTH_MARGIN 1
/* Whatever a profile says: forty years. Each partition costs every search that is not narrowed by time. */
#define MONTHS_AHEAD_MAX 480

static enum status
audit_orphans(struct app *app, struct db_tx *tx, const struct db_orphan *orphans, size_t count,
	struct err *err)
{
	struct audit_item items[REAP_PAGE];
	char objects[REAP_PAGE][sizeof("serial:") + SERIAL_TEXT_BYTES];
	json_t *details[REAP_PAGE] = { NULL };
	enum status status = OK;
	struct audit_entry entry = { .action = "intent.orphan", .actor = "server",
		.at_s = clock_wall_s(app->clock), .items = items, .item_count = count };

	for (size_t i = 0; i < count && status == OK; i++) {
		char serial[SERIAL_TEXT_BYTES];

		serial_format(serial, &orphans[i].ref.serial);
		(void)snprintf(objects[i], sizeof(objects[i]), "serial:%s", serial);
		details[i] = json_pack("{s:s, s:s}", "identity", orphans[i].identity, "profile",
			orphans[i].profile);
		if (details[i] == NULL)
			status = err_memory(err);
		items[i] = (struct audit_item){ .object = objects[i], .detail = details[i] };
	}
	if (status == OK)
		status = audit_write(app, tx, &entry, err);
	for (size_t i = 0; i < count; i++)
		json_decref(details[i]);
	return status;
}

static enum status
reap_once(struct app *app, bool *more, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	struct db_orphan orphans[REAP_PAGE];
	size_t count;

	*more = false;
	if (app->instance_id == 0)
		return OK;
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_issuance_reap(&tx, app->instance_id, NULL, 0, orphans, REAP_PAGE, &count, err));
	if (count == 0)
		return OK;
	TRY(audit_orphans(app, &tx, orphans, count, err));
	TRY(db_tx_commit(&tx, err));
	metric_add(METRIC_INTENTS_CLOSED, (int64_t)count);
	log_event(LOG_WARN, "intents_orphaned", NULL, LOG_INT("count", count));
	*more = count == REAP_PAGE;
	return OK;
}

enum status
reaper_job_step(struct app *app, bool *more, struct err *err)
{
	unsigned tries = 0;
	enum status status;

	do
		status = reap_once(app, more, err);
	while (retry_due(&tries, status, err));
	return status;
}

enum status
leases_job_step(struct app *app, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	size_t count;

	if (app->instance_id == 0)
		return OK;
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_outbox_release_dead(&tx, app->instance_id, &count, err));
	if (count == 0)
		return OK;
	TRY(db_outbox_notify(&tx, OUTBOX_TAKES, err));
	TRY(db_tx_commit(&tx, err));
	log_event(LOG_WARN, "outbox_leases_orphaned", NULL, LOG_INT("count", count));
	return OK;
}

/* The last month in which a certificate that is issued now, by any profile, may end. */
static int32_t
last_month(const struct app *app, int64_t now_s)
{
	int32_t last = expiry_month(now_s);

	for (size_t i = 0; i < app->profile_count; i++) {
		int64_t end_s = now_s + app->profiles[i].validity_max_s;

		if (end_s > app->issuing->not_after_s) /* what is longer is clamped */
			end_s = app->issuing->not_after_s;
		if (expiry_month(end_s) > last)
			last = expiry_month(end_s);
	}
	last += MONTH_MARGIN;
	return last < expiry_month(now_s) + MONTHS_AHEAD_MAX ? last :
		expiry_month(now_s) + MONTHS_AHEAD_MAX;
}

enum status
months_job_step(struct app *app, bool *more, struct err *err)
{
	int64_t now_s = clock_wall_s(app->clock);
	size_t made;

	*more = false;
	TRY(db_issuance_prepare_months(app->pool, expiry_month(now_s), last_month(app, now_s), MONTH_PAGE,
		&made, err));
	if (made > 0)
		log_event(LOG_INFO, "months_prepared", NULL, LOG_INT("count", made));
	*more = made == MONTH_PAGE;
	return OK;
}

enum status
retention_job_step(struct app *app, bool *more, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	size_t deleted;
	size_t revocations;
	size_t instances;
	size_t events;
	bool leader;

	*more = false;
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_job_lead(&tx, JOB_HOUSEKEEPING, &leader, err));
	if (!leader)
		return OK;
	TRY(db_retention_idempotency(&tx,
		clock_wall_s(app->clock) - app->config.idempotency_retention_s, RETENTION_PAGE, &deleted,
		err));
	TRY(db_retention_revocations(&tx, RETENTION_PAGE, &revocations, err));
	TRY(db_retention_instances(&tx, INSTANCE_PAGE, &instances, err));
	TRY(db_retention_events(&tx, clock_wall_s(app->clock) - app->config.event_retention_s,
		RETENTION_PAGE, &events, err));
	*more = deleted == RETENTION_PAGE || revocations == RETENTION_PAGE ||
		instances == INSTANCE_PAGE || events == RETENTION_PAGE;
	if (!*more)
		TRY(db_audit_checkpoint(&tx, err));
	TRY(db_tx_commit(&tx, err));
	if (revocations + instances + events > 0)
		log_event(LOG_INFO, "retention", NULL, LOG_INT("idempotency_keys", deleted),
			LOG_INT("revocations", revocations), LOG_INT("instances", instances),
			LOG_INT("security_events", events));
	return OK;
}
