#include "server/iot/walk.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "db/device.h"
#include "db/iot_missing.h"
#include "server/http/request.h"
#include "server/iot/astray.h"
#include "server/iot/jitr.h"
#include "server/iot/missing.h"
#include "server/iot/plan.h"
#include "server/metrics.h"

#define TICK_MS 1000
#define SWEEP_EVERY_MS 60000
#define RECONCILE_EVERY_S 86400
/* Lists are in order of creation, by clocks that are not ours: a sweep looks so far behind its mark. */
#define OVERLAP_S 600
#define PAGE 100
/* Where each may lead to a call of its own: the walk is led by an open transaction. */
#define PAGE_OF_CALLS 10
/* A sweep's pages at most: 10 million certificates; then it begins again at the newest. */
#define PAGES_MAX 100000
#define KINDS_MAX 40

struct page {
	struct iot_certificate items[PAGE];
	enum iot_astray astray[PAGE];
	size_t count;
	int64_t asked_us; /* before the call: what it shows is not older */
};
typedef struct page page_t;
OWNER(page_t, mem_free)

static enum status
read_page(struct iot_site *site, const char *ca_id, bool newest_first, size_t max,
	struct iot_cursor *cursor, struct page *page, struct err *err)
{
	struct iot iot = iot_site_calls(site, AWS_PRIORITY_NORMAL);

	page->asked_us = clock_wall_s(site->room->app->clock) * 1000000;
	return iot_list_certificates_by_ca(&iot, ca_id, newest_first, cursor, page->items, max,
		&page->count, err);
}

/* ---- the sweep ---- */

static enum status
take_pending(struct iot_site *site, const struct db_iot_ca *ca, const struct page *page,
	struct err *err)
{
	for (size_t i = 0; i < page->count; i++) {
		struct jitr_event event = { .at_us = page->asked_us };

		if (page->items[i].status != IOT_STATUS_PENDING_ACTIVATION)
			continue;
		(void)snprintf(event.certificate_id, sizeof(event.certificate_id), "%s",
			page->items[i].id);
		(void)snprintf(event.ca_certificate_id, sizeof(event.ca_certificate_id), "%s",
			ca->ca_certificate_id);
		TRY(jitr_accept(site, &event, 1, JITR_SWEEP, err));
	}
	return OK;
}

static bool
behind(const struct page *page, int64_t mark_s)
{
	return page->count > 0 && page->items[page->count - 1].creation_s < mark_s - OVERLAP_S;
}

/* Who leads does so until tx ends. */
static enum status
find_walk(struct iot_site *site, const struct db_iot_ca *ca, const char *kind, struct db_tx *tx,
	struct db_iot_walk *walk, bool *found, bool *lead, struct err *err)
{
	char what[DB_TARGET_BYTES + 32];

	(void)snprintf(what, sizeof(what), "%s/%s/%d", kind, site->target->name, ca->issuer_id);
	TRY(db_tx_begin(tx, site->room->app->pool, err));
	TRY(db_iot_lead(tx, what, lead, err));
	return db_iot_walk_find(tx, site->target->name, ca->issuer_id, kind, walk, found, err);
}

static enum status
put_walk(struct iot_site *site, const struct db_iot_walk *walk, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	bool kept; /* nobody asks for a sweep */

	TRY(db_tx_begin(&tx, site->room->app->pool, err));
	TRY(db_iot_walk_put(&tx, walk, &kept, err));
	return db_tx_commit(&tx, err);
}

/* Two servers that sweep at once do each other no harm: the function behind it is idempotent. */
static enum status
sweep(struct iot_site *site, const struct db_iot_ca *ca, struct err *err)
{
	own(page_t) page = mem_zalloc(sizeof(*page));
	int64_t now_s = clock_wall_s(site->room->app->clock);
	struct iot_cursor cursor = { .done = false };
	struct db_iot_walk walk;
	bool found;
	bool lead;

	if (page == NULL)
		return err_memory(err);
	{
		/* Begun under the lead, and led no longer: it may take longer than a transaction may. */
		own_struct(db_tx) tx = { NULL, NULL };

		TRY(find_walk(site, ca, "sweep", &tx, &walk, &found, &lead, err));
	}
	if (!lead || walk.started_at_s > now_s - SWEEP_EVERY_MS / 1000)
		return OK; /* another server has just been here */
	walk.started_at_s = now_s;
	TRY(put_walk(site, &walk, err));
	for (unsigned pages = 0; !cursor.done && pages < PAGES_MAX && !site->room->stopping; pages++) {
		TRY(read_page(site, ca->ca_certificate_id, true, PAGE, &cursor, page, err));
		TRY(take_pending(site, ca, page, err));
		walk.seen += (int64_t)page->count;
		if (behind(page, walk.mark_s))
			break;
	}
	if (site->room->stopping)
		return OK;
	walk.mark_s = now_s;
	walk.finished_at_s = clock_wall_s(site->room->app->clock);
	return put_walk(site, &walk, err);
}

/* ---- the reconciliation ---- */

static enum plan_device
device_of(const struct db_device *device)
{
	if (strcmp(device->status, "quarantined") == 0)
		return PLAN_DEVICE_QUARANTINED;
	return strcmp(device->status, "decommissioned") == 0 ? PLAN_DEVICE_DECOMMISSIONED :
		PLAN_DEVICE_ACTIVE;
}

/* What the plan would do about an item as it is there; IOT_STATUS_UNKNOWN: it is as it should be. */
static enum status
wanted_of(struct iot_site *site, struct db_tx *tx, const struct iot_certificate *item,
	struct db_iot_certificate *row, enum iot_status *wanted, struct err *err)
{
	struct app *app = site->room->app;
	const struct ca_profile *profile = app_profile(app, row->profile);
	struct plan_fact fact = { .seen = item->status, .ours = row->status != CERT_UNSET,
		.status = row->status,
		.expired = row->not_after_s <= clock_wall_s(app->clock),
		.has_policies = profile != NULL && profile->policy_count > 0 };
	enum plan_device kind = PLAN_DEVICE_NONE;
	struct db_device device;
	struct plan plan;

	if (row->device_id[0] != '\0') {
		TRY(db_device_find(tx, row->device_id, &device, err));
		kind = device_of(&device);
	}
	plan_make(&plan, kind, "active", &fact, 1);
	*wanted = plan.actions[0].status;
	return OK;
}

static void
count_drift(json_t *drift, const char *kind)
{
	json_t *count = json_object_get(drift, kind);

	if (count != NULL)
		(void)json_integer_set(count, json_integer_value(count) + 1);
	else if (json_object_size(drift) < KINDS_MAX)
		(void)json_object_set_new(drift, kind, json_integer(1));
}

static void
drift_kind(char *out, size_t size, enum iot_status seen, enum iot_status wanted, bool ours)
{
	(void)snprintf(out, size, "%s_wanted_%s%s", iot_status_name(seen), iot_status_name(wanted),
		ours ? "" : "_unknown");
	for (; *out != '\0'; out++)
		if (*out >= 'A' && *out <= 'Z')
			*out = (char)(*out - 'A' + 'a');
}

static enum status
put_repair(struct db_tx *tx, const struct db_iot_certificate *row, const char *id,
	enum iot_status wanted, struct err *err)
{
	int priority = wanted == IOT_STATUS_ACTIVE ? OUTBOX_UPKEEP : OUTBOX_TAKES;

	if (row->device_id[0] != '\0')
		return db_outbox_put_device(tx, row->device_id, "reconcile", priority, err);
	return db_outbox_put_certificate(tx, id, "reconcile", priority, err);
}

/* What is seen is written down, so that whoever looks next (the outbox too) knows it. */
static enum status
compare(struct iot_site *site, struct db_tx *tx, const struct page *page, size_t i,
	const struct db_iot_walk *walk, json_t *drift, struct err *err)
{
	const struct iot_certificate *item = &page->items[i];
	struct db_iot_certificate row;
	uint8_t sha256[DB_SHA256_BYTES];
	enum iot_status wanted;
	char kind[64];
	struct db_iot_record record = { .certificate = &row };
	bool found;

	if (!hex_decode(sha256, sizeof(sha256), item->id, strlen(item->id)) ||
	    item->status == IOT_STATUS_UNKNOWN || item->status == IOT_STATUS_REGISTER_INACTIVE)
		return OK;
	TRY(db_iot_certificate_find(tx, site->target->name, sha256, &row, &found, err));
	if (!found) {
		row = (struct db_iot_certificate){ .ref = { .issuer_id = 0 } };
		memcpy(row.sha256, sha256, sizeof(sha256));
	}
	TRY(wanted_of(site, tx, item, &row, &wanted, err));
	if (strcmp(row.seen, iot_status_name(item->status)) != 0) {
		if (row.seen[0] != '\0')
			count_drift(drift, "changed_there");
		record.status = iot_status_name(item->status);
		TRY(db_iot_certificates_record(tx, site->target->name, &record, 1, page->asked_us,
			err));
	}
	if (wanted == IOT_STATUS_UNKNOWN && page->astray[i] != IOT_ASTRAY_NOT) {
		count_drift(drift, iot_astray_kind(page->astray[i]));
		return walk->repair ? iot_astray_repair(site, tx, row.device_id, page->astray[i], err) :
			OK;
	}
	if (wanted == IOT_STATUS_UNKNOWN)
		return OK;
	drift_kind(kind, sizeof(kind), item->status, wanted, row.status != CERT_UNSET);
	count_drift(drift, kind);
	return walk->repair ? put_repair(tx, &row, item->id, wanted, err) : OK;
}

/* What the list did not show is looked for when it has ended: server/iot/missing.h. */
static enum status
mark_met(struct iot_site *site, struct db_tx *tx, const struct page *page,
	const struct db_iot_walk *walk, struct err *err)
{
	struct db_iot_id ids[PAGE];
	size_t count = 0;

	for (size_t i = 0; i < page->count; i++)
		if (hex_decode(ids[count].sha256, DB_SHA256_BYTES, page->items[i].id,
			    strlen(page->items[i].id)))
			count++;
	return db_iot_met(tx, site->target->name, ids, count, walk->started_at_s, err);
}

static enum status
compare_page(struct iot_site *site, const struct page *page, struct db_iot_walk *walk, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	own(json_t) drift = json_loads(walk->drift, 0, NULL);
	size_t len;
	bool kept;

	if (drift == NULL)
		drift = json_object();
	TRY(db_tx_begin(&tx, site->room->app->pool, err));
	for (size_t i = 0; i < page->count; i++)
		TRY(compare(site, &tx, page, i, walk, drift, err));
	TRY(mark_met(site, &tx, page, walk, err));
	walk->seen += (int64_t)page->count;
	len = json_dumpb(drift, walk->drift, sizeof(walk->drift) - 1, JSON_COMPACT | JSON_SORT_KEYS);
	if (len == 0)
		return err_memory(err);
	assert(len < sizeof(walk->drift)); /* the kinds are few: see db/iot.h */
	walk->drift[len] = '\0';
	TRY(db_iot_walk_put(&tx, walk, &kept, err));
	if (!kept)
		return OK; /* asked for anew meanwhile: the next step is that one's first */
	if (walk->repair)
		TRY(db_outbox_notify(&tx, OUTBOX_TAKES, err));
	return db_tx_commit(&tx, err);
}

static void
begin_walk(struct db_iot_walk *walk, int64_t now_s)
{
	walk->cursor[0] = '\0';
	walk->seen = 0;
	walk->repair = false;
	(void)snprintf(walk->drift, sizeof(walk->drift), "{}");
	walk->started_at_s = now_s;
	walk->finished_at_s = 0;
}

static enum status
list_step(struct iot_site *site, const struct db_iot_ca *ca, struct db_iot_walk *walk, struct err *err)
{
	own(page_t) page = mem_zalloc(sizeof(*page));
	struct iot_cursor cursor = { .done = false };

	if (page == NULL)
		return err_memory(err);
	(void)snprintf(cursor.token, sizeof(cursor.token), "%s", walk->cursor);
	TRY(read_page(site, ca->ca_certificate_id, false,
		iot_astray_asks(site->room->app) ? PAGE_OF_CALLS : PAGE, &cursor, page, err));
	TRY(iot_astray_find(site, page->items, page->count, page->astray, err));
	(void)snprintf(walk->cursor, sizeof(walk->cursor), "%s", cursor.token);
	if (cursor.done)
		iot_missing_begin(walk);
	return compare_page(site, page, walk, err);
}

/* One page of what is under way, or the beginning of what is due. */
static enum status
reconcile_step(struct iot_site *site, const struct db_iot_ca *ca, bool *more, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	int64_t now_s = clock_wall_s(site->room->app->clock);
	struct db_iot_walk walk;
	bool done = false;
	bool found;
	bool lead;

	*more = false;
	TRY(find_walk(site, ca, "reconcile", &tx, &walk, &found, &lead, err));
	if (!lead)
		return OK;
	if (!found || (walk.finished_at_s != 0 && walk.started_at_s <= now_s - RECONCILE_EVERY_S))
		begin_walk(&walk, now_s);
	else if (walk.finished_at_s != 0)
		return OK;
	if (iot_missing_begun(&walk))
		TRY(iot_missing_step(site, ca, &walk, &done, err));
	else
		TRY(list_step(site, ca, &walk, err));
	*more = !done;
	if (done)
		log_event(LOG_INFO, "iot_reconciled", NULL, LOG_STR("target", site->target->name),
			LOG_INT("seen", walk.seen), LOG_STR("drift", walk.drift),
			LOG_BOOL("repair", walk.repair));
	return OK;
}

enum status
iot_walk_ask(struct iot_room *room, const char *target, bool repair, struct err *err)
{
	struct db_iot_ca cas[IOT_TARGETS_MAX * 8];
	own_struct(db_tx) tx = { NULL, NULL };
	size_t count;

	TRY(db_tx_begin(&tx, room->app->pool, err));
	TRY(db_iot_ca_list(&tx, cas, COUNT_OF(cas), &count, err));
	for (size_t i = 0; i < count; i++) {
		if ((target != NULL && strcmp(cas[i].target, target) != 0) ||
		    strcmp(cas[i].status, "DELETED") == 0)
			continue;
		TRY(db_iot_walk_ask(&tx, cas[i].target, cas[i].issuer_id, "reconcile", repair,
			clock_wall_s(room->app->clock), err));
	}
	TRY(db_outbox_notify(&tx, OUTBOX_TAKES, err));
	return db_tx_commit(&tx, err);
}

/* ---- the thread ---- */

static enum status
registered(struct iot_room *room, struct db_iot_ca *cas, size_t max, size_t *count, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	TRY(db_tx_begin(&tx, room->app->pool, err));
	return db_iot_ca_list(&tx, cas, max, count, err);
}

static enum status
walk_round(struct iot_room *room, bool sweep_due, bool *swept, struct err *err)
{
	struct db_iot_ca cas[IOT_TARGETS_MAX * 8];
	size_t count;

	*swept = false;
	TRY(registered(room, cas, COUNT_OF(cas), &count, err));
	for (size_t i = 0; i < count && !room->stopping; i++) {
		struct iot_site *site = iot_room_site(room, cas[i].target);
		struct aws_health health;
		bool more = true;

		if (site == NULL || strcmp(cas[i].status, "DELETED") == 0)
			continue;
		aws_client_health(site->client, &health);
		if (health.breaker != AWS_BREAKER_CLOSED)
			continue;
		if (sweep_due)
			TRY(sweep(site, &cas[i], err));
		while (more && !room->stopping)
			TRY(reconcile_step(site, &cas[i], &more, err));
		*swept = true;
	}
	return OK;
}

void *
iot_walk_main(void *arg)
{
	struct iot_thread *thread = arg;
	struct iot_room *room = thread->room;
	int64_t due_ms = 0;
	bool failing = false;

	do {
		int64_t now_ms = clock_mono_ms(room->app->clock);
		struct err err;
		bool swept;
		enum status status = walk_round(room, now_ms >= due_ms, &swept, &err);

		if (status == OK && swept && now_ms >= due_ms)
			due_ms = now_ms + SWEEP_EVERY_MS;
		if (status != OK)
			metric_count(METRIC_JOB_FAILED, "iot_walk", NULL, 1);
		if (status != OK && !failing && !room->stopping)
			log_error(LOG_WARN, "iot_walk_failed", NULL, &err);
		failing = status != OK;
	} while (iot_room_pause(room, TICK_MS));
	return NULL;
}
