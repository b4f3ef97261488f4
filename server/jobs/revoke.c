#include "server/jobs/revoke.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "db/receipt.h"
#include "db/revocation.h"
#include "server/app.h"
#include "server/audit.h"
#include "server/http/request.h"
#include "server/iot/room.h"
#include "server/issuance/issuance.h"
#include "server/metrics.h"
#include "server/notify/event.h"
#include "server/retry.h"
#include "server/selector.h"

/* Small enough that a step's locks are short, large enough that a step's commit is shared. */
#define BULK_PAGE 200
#define CERTIFICATE_OBJECT_BYTES (sizeof("certificate:") + 64)
#define EXPIRE_PAGE 100
/* A look costs at most this part of a connection's time. */
#define LOOK_SHARE 20
#define LOOK_LEAST_MS 200

struct page {
	struct db_bulk bulk;
	struct selector selector;
	struct db_target targets[BULK_PAGE];
	size_t count;
	struct audit_item items[BULK_PAGE];
	char objects[BULK_PAGE][CERTIFICATE_OBJECT_BYTES];
	json_t *details[BULK_PAGE];
	size_t revoked;
	struct db_target *concerned[BULK_PAGE]; /* of targets */
	struct db_revoke_item revoke[BULK_PAGE];
};

static void
page_free(struct page *page)
{
	if (page == NULL)
		return;
	for (size_t i = 0; i < page->revoked; i++)
		json_decref(page->details[i]);
	mem_free(page);
}
typedef struct page page_t;
OWNER(page_t, page_free)

static enum status
note_revoked(struct page *page, const struct db_target *target, struct err *err)
{
	const struct db_bulk *bulk = &page->bulk;
	char id[2 * DB_SHA256_BYTES + 1];
	size_t i = page->revoked;

	hex_encode(id, target->sha256, DB_SHA256_BYTES);
	(void)snprintf(page->objects[i], sizeof(page->objects[i]), "certificate:%s", id);
	page->details[i] = json_pack("{s:s, s:s, s:s, s:s}", "change",
		bulk->reason == REASON_CERTIFICATE_HOLD ? "held" : "revoked", "device_id",
		target->device_id, "reason", revocation_reason_name(bulk->reason), "revocation",
		bulk->revocation_id);
	if (page->details[i] == NULL)
		return err_memory(err);
	page->items[i] = (struct audit_item){ .object = page->objects[i], .detail = page->details[i] };
	page->revoked++;
	return OK;
}

static void
set_outcome(struct db_target *target, const char *outcome)
{
	(void)snprintf(target->outcome, sizeof(target->outcome), "%s", outcome);
}

/* What is neither expired nor revoked, and not superseded for a hold; of the rest it is said why not. */
static bool
concerns(const struct page *page, struct db_target *target, int64_t now_s)
{
	const char *left = NULL;

	if (!target->exists || target->not_after_s <= now_s)
		left = "expired"; /* also what retention dropped since */
	else if (target->status == CERT_REVOKED)
		left = "already_revoked";
	else if (target->status == CERT_SUPERSEDED && page->bulk.reason == REASON_CERTIFICATE_HOLD)
		left = "superseded";
	if (left != NULL)
		set_outcome(target, left);
	return left == NULL;
}

static enum status
take_result(struct page *page, struct db_target *target, const struct db_revoke_item *item,
	struct err *err)
{
	bool hold = item->reason == REASON_CERTIFICATE_HOLD;

	if (!item->result.changed) {
		set_outcome(target, item->superseded ? "superseded" : "already_revoked");
		return OK;
	}
	set_outcome(target, hold ? "held" : "revoked");
	return note_revoked(page, target, err);
}

/* All at once: one after the other, two such pages could wait for each other (db/revocation.h). */
static enum status
revoke_page(struct db_tx *tx, struct page *page, int64_t now_s, struct err *err)
{
	size_t count = 0;

	for (size_t i = 0; i < page->count; i++) {
		struct db_target *target = &page->targets[i];

		if (!concerns(page, target, now_s))
			continue;
		page->concerned[count] = target;
		page->revoke[count++] = (struct db_revoke_item){ .ref = target->ref,
			.reason = page->bulk.reason };
	}
	TRY(db_revocation_revoke_many(tx, page->revoke, count, now_s, err));
	for (size_t i = 0; i < count; i++)
		TRY(take_result(page, page->concerned[i], &page->revoke[i], err));
	return db_targets_done(tx, page->bulk.revocation_id, page->targets, page->count, err);
}

static enum status
audit_page(struct app *app, struct db_tx *tx, const struct page *page, int64_t now_s, struct err *err)
{
	struct audit_entry entry = {
		.action = "certificate.revoke",
		.actor = page->bulk.actor,
		.request_id = page->bulk.request_id,
		.at_s = now_s,
		.items = page->items,
		.item_count = page->revoked,
	};

	return page->revoked > 0 ? audit_write(app, tx, &entry, err) : OK;
}

/* What was under way when it was asked for, and is recorded since, becomes target as well. */
static enum status
freeze_again(struct app *app, struct db_tx *tx, struct page *page, struct err *err)
{
	struct db_bulk *bulk = &page->bulk;
	struct db_certificate_filter *filter = &page->selector.selection.filter;
	own(json_t) json = json_loads(bulk->selector, JSON_REJECT_DUPLICATES, NULL);
	int64_t count;

	if (json == NULL)
		return err_set(err, ERR_INTERNAL, "selector", "a stored selector is not JSON");
	TRY(selector_read(&page->selector, app, json, err));
	/* What is issued after the yes was not part of what was shown. */
	if (filter->issued_before_s == 0 || filter->issued_before_s > bulk->issued_until_s + 1)
		filter->issued_before_s = bulk->issued_until_s + 1;
	if (filter->issued_after_s < bulk->again_from_s)
		filter->issued_after_s = bulk->again_from_s;
	return db_bulk_freeze(tx, bulk->revocation_id, &page->selector.selection, &count, err);
}

static enum status
raise_done(struct db_tx *tx, const struct page *page, struct err *err)
{
	const struct db_bulk *bulk = &page->bulk;
	struct db_event event = { .kind = NOTIFY_REVOCATION_DONE, .severity = "info" };

	TRY(notify_event_detail(&event, json_pack("{s:s, s:s, s:s, s:I}", "revocation",
		bulk->revocation_id, "reason", revocation_reason_name(bulk->reason), "actor",
		bulk->actor, "revoked", (json_int_t)(bulk->revoked + (int64_t)page->revoked)), err));
	return notify_event_raise(tx, &event, err);
}

/* The targets are all carried out: the next look begins, or this was the last. */
static enum status
turn_page(struct db_tx *tx, struct page *page, bool *finished, struct err *err)
{
	*finished = page->bulk.second_look;
	if (!*finished)
		return db_bulk_look_again(tx, page->bulk.revocation_id, err);
	TRY(db_bulk_advance(tx, page->bulk.revocation_id, 0, NULL, true, err));
	return raise_done(tx, page, err);
}

static enum status
bulk_once(struct app *app, bool *more, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	own(page_t) page = mem_zalloc(sizeof(*page));
	int64_t now_s = clock_wall_s(app->clock);
	bool finished = false;
	enum status status;

	*more = false;
	if (page == NULL)
		return err_memory(err);
	TRY(db_tx_begin(&tx, app->pool, err));
	status = db_bulk_next(&tx, &page->bulk, err);
	if (status == ERR_NOT_FOUND)
		return OK;
	if (status != OK)
		return status;
	/* The beginning of the second look. What cannot be read any more (its CA is gone) must not keep those
	 * behind it waiting for ever. */
	if (page->bulk.second_look && page->bulk.cursor.issuer_id == 0 &&
	    freeze_again(app, &tx, page, err) != OK) {
		log_error(LOG_ERROR, "bulk_revocation_unreadable", page->bulk.request_id, err);
		TRY(db_tx_restart(&tx, err));
		TRY(db_bulk_advance(&tx, page->bulk.revocation_id, 0, NULL, true, err));
		return db_tx_commit(&tx, err);
	}
	TRY(db_targets(&tx, page->bulk.revocation_id, &page->bulk.cursor, true, BULK_PAGE, page->targets,
		&page->count, err));
	if (page->count > 0) {
		TRY(revoke_page(&tx, page, now_s, err));
		TRY(audit_page(app, &tx, page, now_s, err));
		TRY(db_bulk_advance(&tx, page->bulk.revocation_id, (int64_t)page->revoked,
			&page->targets[page->count - 1].ref, false, err));
	}
	if (page->count < BULK_PAGE)
		TRY(turn_page(&tx, page, &finished, err));
	TRY(db_tx_commit(&tx, err));
	*more = true;
	metric_count(METRIC_REVOKED, revocation_reason_name(page->bulk.reason), NULL,
		(int64_t)page->revoked);
	if (page->bulk.reason == REASON_KEY_COMPROMISE)
		issuance_note_blocked(app->issuance);
	log_event(LOG_INFO, "bulk_revocation_step", page->bulk.request_id,
		LOG_STR("revocation", page->bulk.revocation_id), LOG_INT("revoked", page->revoked),
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

/* ---- approval ---- */

static enum status
expire_once(struct app *app, bool *more, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	char id[33], object[sizeof("revocation:") + 32];
	struct audit_item item = { .object = object };
	struct audit_entry entry = { .action = "revocation.expire", .actor = "server",
		.at_s = clock_wall_s(app->clock), .items = &item, .item_count = 1 };
	own(json_t) detail = json_pack("{s:s}", "change", "expired");

	if (detail == NULL)
		return err_memory(err);
	item.detail = detail;
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_bulk_expire(&tx, id, more, err));
	if (!*more)
		return OK;
	(void)snprintf(object, sizeof(object), "revocation:%s", id);
	TRY(audit_write(app, &tx, &entry, err));
	TRY(db_tx_commit(&tx, err));
	log_event(LOG_INFO, "revocation_expired", NULL, LOG_STR("revocation", id));
	return OK;
}

enum status
approvals_job_step(struct app *app, struct err *err)
{
	bool more = true;

	for (int i = 0; more && i < EXPIRE_PAGE; i++)
		TRY(expire_once(app, &more, err));
	return OK;
}

/* ---- what IoT Core says ---- */

enum status
receipts_job_step(struct app *app, struct receipt_watch *watch, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	const char *targets[IOT_TARGETS_MAX];
	size_t count = app->iot != NULL ? app->iot->site_count : 0;
	int64_t begun_ms = clock_mono_ms(app->clock);
	bool found;

	/* Who has not all targets cannot say that all is done. */
	if (begun_ms < watch->due_ms || (app->iot != NULL && iot_room_elsewhere(app->iot)))
		return OK;
	for (size_t i = 0; i < count; i++)
		targets[i] = app->iot->sites[i].target->name;
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_receipt_look(&tx, targets, count, watch->after, &found, err));
	if (!found)
		watch->after[0] = '\0'; /* from the first one again */
	TRY(db_tx_commit(&tx, err));
	watch->due_ms = begun_ms + LOOK_LEAST_MS +
		LOOK_SHARE * (clock_mono_ms(app->clock) - begun_ms);
	return OK;
}
