#include "server/jobs/housekeeping.h"

#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "db/event.h"
#include "db/issuance.h"
#include "db/issuer.h"
#include "db/outbox.h"
#include "db/revocation.h"
#include "server/app.h"
#include "server/audit.h"
#include "server/http/request.h"
#include "server/issuance/issuance.h"
#include "server/jobs/jobs.h"
#include "server/metrics.h"
#include "server/notify/event.h"
#include "server/retry.h"
#include "server/selector.h"

/* Small enough that a step's locks are short, large enough that a step's commit is shared. */
#define BULK_PAGE 200
#define REAP_PAGE 64
#define RETENTION_PAGE 5000
#define INSTANCE_PAGE 100
#define MONTH_PAGE 8
/* Beyond the longest validity, so that the next round finds nothing missing on the first of a month. */
#define MONTH_MARGIN 1
/* Whatever a profile says: forty years. Each partition costs every search that is not narrowed by time. */
#define MONTHS_AHEAD_MAX 480
#define CERTIFICATE_OBJECT_BYTES (sizeof("certificate:") + 64)

struct page {
	struct db_certificate rows[BULK_PAGE];
	size_t count;
	struct db_certificate_cursor next;
	struct audit_item items[BULK_PAGE];
	char objects[BULK_PAGE][CERTIFICATE_OBJECT_BYTES];
	json_t *details[BULK_PAGE];
	size_t revoked;
	const struct db_certificate *concerned[BULK_PAGE]; /* of rows */
	struct db_revoke_item revoke[BULK_PAGE];
};

static void
page_free(struct page *page)
{
	if (page == NULL)
		return;
	for (size_t i = 0; i < page->count; i++)
		db_certificate_free(&page->rows[i]);
	for (size_t i = 0; i < page->revoked; i++)
		json_decref(page->details[i]);
	mem_free(page);
}
typedef struct page page_t;
OWNER(page_t, page_free)

static enum status
note_revoked(struct page *page, const struct db_certificate *row, const struct db_bulk *bulk,
	struct err *err)
{
	char id[2 * DB_SHA256_BYTES + 1];
	size_t i = page->revoked;

	hex_encode(id, row->sha256, DB_SHA256_BYTES);
	(void)snprintf(page->objects[i], sizeof(page->objects[i]), "certificate:%s", id);
	page->details[i] = json_pack("{s:s, s:s, s:s, s:s}", "change",
		bulk->reason == REASON_CERTIFICATE_HOLD ? "held" : "revoked", "device_id",
		row->device_id, "reason", revocation_reason_name(bulk->reason), "revocation",
		bulk->revocation_id);
	if (page->details[i] == NULL)
		return err_memory(err);
	page->items[i] = (struct audit_item){ .object = page->objects[i], .detail = page->details[i] };
	page->revoked++;
	return OK;
}

/* What is left of a page: neither expired nor revoked, and nothing superseded for a hold. */
static bool
concerns(const struct db_bulk *bulk, const struct db_certificate *row, int64_t now_s)
{
	return row->not_after_s > now_s && row->status != CERT_REVOKED &&
	       (row->status != CERT_SUPERSEDED || bulk->reason != REASON_CERTIFICATE_HOLD);
}

/* All at once: one after the other, two such pages could wait for each other (db/revocation.h). */
static enum status
revoke_page(struct db_tx *tx, struct page *page, const struct db_bulk *bulk, int64_t now_s,
	struct err *err)
{
	size_t count = 0;

	for (size_t i = 0; i < page->count; i++) {
		if (!concerns(bulk, &page->rows[i], now_s))
			continue;
		page->concerned[count] = &page->rows[i];
		page->revoke[count++] = (struct db_revoke_item){ .ref = page->rows[i].ref,
			.reason = bulk->reason };
	}
	TRY(db_revocation_revoke_many(tx, page->revoke, count, now_s, err));
	for (size_t i = 0; i < count; i++)
		if (page->revoke[i].result.changed)
			TRY(note_revoked(page, page->concerned[i], bulk, err));
	return OK;
}

static enum status
read_selector(struct selector *selector, const struct app *app, const struct db_bulk *bulk,
	struct err *err)
{
	own(json_t) json = json_loads(bulk->selector, JSON_REJECT_DUPLICATES, NULL);

	if (json == NULL)
		return err_set(err, ERR_INTERNAL, "selector", "a stored selector is not JSON");
	TRY(selector_read(selector, app, json, err));
	/* What is issued after the yes was not part of what was shown. */
	if (selector->filter.issued_before_s == 0 ||
	    selector->filter.issued_before_s > bulk->issued_until_s + 1)
		selector->filter.issued_before_s = bulk->issued_until_s + 1;
	if (bulk->second_look && selector->filter.issued_after_s < bulk->again_from_s)
		selector->filter.issued_after_s = bulk->again_from_s;
	return OK;
}

static enum status
audit_page(struct app *app, struct db_tx *tx, const struct page *page, const struct db_bulk *bulk,
	int64_t now_s, struct err *err)
{
	struct audit_entry entry = {
		.action = "certificate.revoke",
		.actor = bulk->actor,
		.request_id = bulk->request_id,
		.at_s = now_s,
		.items = page->items,
		.item_count = page->revoked,
	};

	return page->revoked > 0 ? audit_write(app, tx, &entry, err) : OK;
}

/* What cannot be read any more (its CA is gone) must not keep those behind it waiting for ever. */
static enum status
give_up(struct db_tx *tx, const struct db_bulk *bulk, struct err *err)
{
	log_error(LOG_ERROR, "bulk_revocation_unreadable", bulk->request_id, err);
	TRY(db_bulk_advance(tx, bulk->revocation_id, 0, &bulk->cursor, true, err));
	return db_tx_commit(tx, err);
}

static enum status
raise_done(struct db_tx *tx, const struct db_bulk *bulk, int64_t revoked, struct err *err)
{
	struct db_event event = { .kind = "bulk_revocation_done", .severity = "info" };

	TRY(notify_event_detail(&event, json_pack("{s:s, s:s, s:s, s:I}", "revocation",
		bulk->revocation_id, "reason", revocation_reason_name(bulk->reason), "actor",
		bulk->actor, "revoked", (json_int_t)(bulk->revoked + revoked)), err));
	return notify_event_raise(tx, &event, err);
}

static enum status
bulk_once(struct app *app, bool *more, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	own(page_t) page = mem_zalloc(sizeof(*page));
	int64_t now_s = clock_wall_s(app->clock);
	struct selector selector;
	struct db_bulk bulk;
	enum status status;
	bool over;
	bool finished;

	*more = false;
	if (page == NULL)
		return err_memory(err);
	TRY(db_tx_begin(&tx, app->pool, err));
	status = db_bulk_next(&tx, &bulk, err);
	if (status == ERR_NOT_FOUND)
		return OK;
	if (status != OK)
		return status;
	if (read_selector(&selector, app, &bulk, err) != OK)
		return give_up(&tx, &bulk, err);
	TRY(db_certificate_search(&tx, &selector.filter, &bulk.cursor, BULK_PAGE, page->rows,
		&page->count, &page->next, err));
	TRY(revoke_page(&tx, page, &bulk, now_s, err));
	TRY(audit_page(app, &tx, page, &bulk, now_s, err));
	over = !page->next.set;
	finished = over && bulk.second_look;
	TRY(db_bulk_advance(&tx, bulk.revocation_id, (int64_t)page->revoked,
		over ? &bulk.cursor : &page->next, finished, err));
	if (over && !finished)
		TRY(db_bulk_look_again(&tx, bulk.revocation_id, err));
	if (finished)
		TRY(raise_done(&tx, &bulk, (int64_t)page->revoked, err));
	TRY(db_tx_commit(&tx, err));
	*more = true;
	metric_count(METRIC_REVOKED, revocation_reason_name(bulk.reason), NULL, (int64_t)page->revoked);
	if (bulk.reason == REASON_KEY_COMPROMISE)
		issuance_note_blocked(app->issuance);
	log_event(LOG_INFO, "bulk_revocation_step", bulk.request_id,
		LOG_STR("revocation", bulk.revocation_id), LOG_INT("revoked", page->revoked),
		LOG_BOOL("finished", finished));
	return OK;
}

enum status
bulk_job_step(struct app *app, bool *more, struct err *err)
{
	unsigned tries = 0;
	enum status status;

	do
		status = bulk_once(app, more, err);
	while (retry_due(&tries, status, err));
	return status;
}

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
