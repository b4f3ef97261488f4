#include "server/iot/outbox.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "db/event.h"
#include "server/audit.h"
#include "server/http/request.h"
#include "server/iot/apply.h"
#include "server/iot/groups.h"
#include "server/iot/iot_metrics.h"
#include "server/metrics.h"
#include "server/notify/event.h"
#include "server/retry.h"

#define KEY_PREFIX "certificate/"
/* A row is with one worker so long; renewed between calls, each of which ends well within it. */
#define LEASE_MS 30000
#define RENEW_AFTER_MS 8000
#define CALL_MS 15000
#define BATCH IOT_BATCH
/*
 * What is done is on record no later, though others of the batch still call over a slow link: until then
 * nobody else can see to the device.
 */
#define RECORD_AFTER_MS 1000
#define RECORD_AFTER_URGENT_MS 200
#define DISCARD_BATCH 5000

/* Waits between two attempts; jittered over their upper half. */
#define WAIT_FIRST_MS 500
#define WAIT_MOST_MS (5 * 60 * 1000)
/* What the service refuses: it may not have seen yet what it needs (a new policy, a new thing). */
#define REFUSED_MOST 4
/* What our own rights refuse: people may be at it. */
#define DENIED_MOST 20

struct work {
	struct iot_room *room;
	const struct db_outbox_row *row;
	struct db_device device;
	bool has_device;
	int64_t renewed_ms;
	uint8_t sha256[DB_SHA256_BYTES]; /* of a key without device */

	enum status status; /* of all targets so far; why: of the first that failed */
	struct err why;
	bool left;          /* we are being stopped: whoever has it next sees to it */
	bool ended;         /* its row is gone, or let go */

	/* of the target in hand */
	bool applied;       /* and not on record yet */
	char state[16];     /* as applied last */
	char given[DB_IOT_GROUPS_BYTES];
	struct db_iot_certificate certificates[IOT_PLAN_CERTIFICATES_MAX];
	struct plan_fact facts[IOT_PLAN_CERTIFICATES_MAX];
	size_t count;
	struct plan plan;
	struct iot_apply apply;
};

/*
 * Rows that were leased together: what they say is read, and what was done is recorded, in one transaction
 * for all, because a row that is alone in its own costs ten times as much.
 */
struct batch {
	struct iot_room *room;
	struct db_outbox_row rows[BATCH];
	struct work works[BATCH];
	size_t count;
};
typedef struct batch batch_t;
OWNER(batch_t, mem_free)

static bool
is_certificate_key(const char *key)
{
	return strncmp(key, KEY_PREFIX, strlen(KEY_PREFIX)) == 0;
}

/* ---- what the rows say ---- */

static enum plan_device
device_of(const struct work *work)
{
	if (!work->has_device)
		return PLAN_DEVICE_NONE;
	if (strcmp(work->device.status, "quarantined") == 0)
		return PLAN_DEVICE_QUARANTINED;
	return strcmp(work->device.status, "decommissioned") == 0 ? PLAN_DEVICE_DECOMMISSIONED :
		PLAN_DEVICE_ACTIVE;
}

static void
fact_of(struct plan_fact *out, const struct app *app, const struct db_iot_certificate *certificate)
{
	const struct ca_profile *profile = app_profile(app, certificate->profile);

	*out = (struct plan_fact){
		.seen = certificate->seen[0] == '\0' || strcmp(certificate->seen, "DELETED") == 0 ?
			IOT_STATUS_UNKNOWN : iot_status_parse(certificate->seen),
		.ours = certificate->status != CERT_UNSET,
		.status = certificate->status,
		.expired = certificate->not_after_s <= clock_wall_s(app->clock),
		.in_slot = certificate->in_slot,
		.preregister = profile != NULL && profile->preregister,
		.has_policies = profile != NULL && profile->policy_count > 0,
		.doubtful = certificate->under_way,
	};
}

static bool
is_open(const struct work *work)
{
	return work->status == OK && !work->left && !work->ended;
}

static enum status
read_devices(struct batch *batch, struct db_tx *tx, const char *target, struct err *err)
{
	struct db_device_wanted wanted[BATCH];
	struct db_iot_device devices[BATCH];
	struct work *of[BATCH];
	size_t count = 0;
	size_t known = 0;

	for (size_t i = 0; i < batch->count; i++) {
		struct work *work = &batch->works[i];

		if (!is_open(work) || is_certificate_key(work->row->key))
			continue;
		of[count] = work;
		wanted[count++] = (struct db_device_wanted){ .device_id = work->row->key,
			.out = &work->device };
	}
	if (count == 0)
		return OK;
	TRY(db_device_find_many(tx, wanted, count, err));
	for (size_t i = 0; i < count; i++) {
		of[i]->has_device = wanted[i].found;
		if (!wanted[i].found)
			continue; /* nothing is known of it: nothing is wanted */
		of[known] = of[i];
		devices[known++] = (struct db_iot_device){ .device_id = of[i]->device.device_id,
			.certificates = of[i]->certificates };
	}
	TRY(db_iot_devices_read(tx, target, devices, known, IOT_PLAN_CERTIFICATES_MAX, err));
	for (size_t i = 0; i < known; i++) {
		of[i]->count = devices[i].count;
		memcpy(of[i]->state, devices[i].state, sizeof(of[i]->state));
		memcpy(of[i]->given, devices[i].given, sizeof(of[i]->given));
	}
	return OK;
}

/* Of a certificate that no device has. */
static enum status
read_certificate(struct work *work, struct db_tx *tx, const char *target, struct err *err)
{
	bool found = false;

	TRY(db_iot_certificate_find(tx, target, work->sha256, &work->certificates[0], &found, err));
	work->count = found ? 1 : 0;
	return OK;
}

/*
 * What can be taken back later (all but REVOKED), and would not be seen as undone (PENDING_ACTIVATION is what
 * nobody wants): a crash behind the call must not leave us believing what was before it.
 */
static bool
is_announced(const struct work *work, size_t i)
{
	enum iot_status wanted = work->plan.actions[i].status;

	return wanted != IOT_STATUS_UNKNOWN && wanted != IOT_STATUS_REVOKED &&
		work->facts[i].seen != IOT_STATUS_PENDING_ACTIVATION;
}

static bool
attaches(const struct work *work)
{
	for (size_t i = 0; i < work->count; i++)
		if (work->plan.actions[i].attach)
			return true;
	return false;
}

/* The thing groups that it is to have and those that it had, which is written down before it has them. */
static enum status
plan_groups(struct work *work, struct db_tx *tx, const struct iot_site *site, struct err *err)
{
	struct plan *plan = &work->plan;
	struct iot_groups wanted;

	if (plan->thing != PLAN_THING_ACTIVE)
		return OK;
	iot_groups_of(&wanted, work->room->app, work->certificates, work->count, true);
	if (iot_groups_left_over(&wanted, work->given)) {
		plan->thing_changes = true;
		plan->idle = false;
	}
	if (wanted.count == 0 || !(plan->thing_changes || attaches(work)))
		return OK;
	return db_iot_groups_give(tx, site->target->name, work->device.device_id, wanted.at,
		wanted.count, err);
}

static enum status
make_plan(struct work *work, struct db_tx *tx, const struct iot_site *site, struct err *err)
{
	for (size_t i = 0; i < work->count; i++)
		fact_of(&work->facts[i], work->room->app, &work->certificates[i]);
	plan_make(&work->plan, device_of(work), work->state, work->facts, work->count);
	TRY(plan_groups(work, tx, site, err));
	for (size_t i = 0; i < work->count && !work->plan.idle; i++)
		if (is_announced(work, i) && !work->facts[i].doubtful)
			TRY(db_iot_certificate_announce(tx, site->target->name, &work->certificates[i],
				err));
	return OK;
}

/* The wanted state, in a transaction that began after the rows were leased; announced before it is made. */
static enum status
make_plans(struct batch *batch, const struct iot_site *site, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	TRY(db_tx_begin(&tx, batch->room->app->pool, err));
	for (size_t i = 0; i < batch->count; i++) {
		struct work *work = &batch->works[i];

		work->has_device = false;
		work->count = 0;
		work->state[0] = work->given[0] = '\0';
		if (is_open(work) && is_certificate_key(work->row->key))
			TRY(read_certificate(work, &tx, site->target->name, err));
	}
	TRY(read_devices(batch, &tx, site->target->name, err));
	for (size_t i = 0; i < batch->count; i++)
		if (is_open(&batch->works[i]))
			TRY(make_plan(&batch->works[i], &tx, site, err));
	return db_tx_commit(&tx, err);
}

/* ---- applying ---- */

static enum status
still_ours(void *arg, struct err *err)
{
	struct work *work = arg;
	struct app *app = work->room->app;
	own_struct(db_tx) tx = { NULL, NULL };
	bool held;

	if (work->room->stopping)
		return err_set(err, ERR_UNAVAILABLE, "iot_stopped", "the server is being stopped");
	if (clock_mono_ms(app->clock) - work->renewed_ms < RENEW_AFTER_MS)
		return OK;
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_outbox_renew(&tx, work->row, LEASE_MS, &held, err));
	TRY(db_tx_commit(&tx, err));
	if (!held)
		return err_set(err, ERR_CONFLICT, "iot_lease_lost", "outbox: %s went to another worker",
			work->row->key);
	work->renewed_ms = clock_mono_ms(app->clock);
	return OK;
}

static const char *
recorded_status(const struct iot_apply *apply, size_t i)
{
	if (apply->gone[i])
		return "DELETED";
	if (apply->status[i] == IOT_STATUS_UNKNOWN ||
	    apply->status[i] == IOT_STATUS_REGISTER_INACTIVE)
		return NULL;
	return iot_status_name(apply->status[i]);
}

static enum status
put_event(struct work *work, struct db_tx *tx, const struct iot_site *site, size_t i,
	struct err *err)
{
	enum plan_odd odd = work->plan.actions[i].odd;
	struct db_event event = { .event_id = 0 };
	own(json_t) detail = NULL;
	size_t len;

	if (odd == PLAN_ODD_NONE)
		return OK;
	(void)snprintf(event.kind, sizeof(event.kind), "%s", plan_odd_kind(odd));
	(void)snprintf(event.severity, sizeof(event.severity), "%s", plan_odd_severity(odd));
	(void)snprintf(event.device_id, sizeof(event.device_id), "%s",
		work->certificates[i].device_id);
	(void)snprintf(event.target, sizeof(event.target), "%s", site->target->name);
	hex_encode(event.certificate_id, work->certificates[i].sha256, DB_SHA256_BYTES);
	detail = json_pack("{s:s, s:s}", "status", work->facts[i].ours ?
		cert_status_name(work->facts[i].status) : "unknown", "profile",
		work->certificates[i].profile);
	len = detail != NULL ?
		json_dumpb(detail, event.detail, sizeof(event.detail) - 1, JSON_COMPACT) : 0;
	if (len == 0)
		return err_memory(err);
	assert(len < sizeof(event.detail)); /* a status, and a profile's name of our own */
	event.detail[len] = '\0';
	metric_count(METRIC_SECURITY_EVENTS, event.kind, NULL, 1);
	log_event(LOG_WARN, "security_event", NULL, LOG_STR("kind", event.kind),
		LOG_STR("certificate", event.certificate_id), LOG_STR("device", event.device_id),
		LOG_STR("target", event.target));
	return db_event_put(tx, &event, err);
}

#define REPORT_ITEMS_MAX (BATCH * (IOT_PLAN_CERTIFICATES_MAX + 1))

struct report {
	struct audit_item items[REPORT_ITEMS_MAX];
	char objects[REPORT_ITEMS_MAX][96];
	json_t *details[REPORT_ITEMS_MAX];
	size_t count;
};

static void
report_empty(struct report *report)
{
	for (size_t i = 0; i < report->count; i++)
		json_decref(report->details[i]);
	report->count = 0;
}

static enum status
note(struct report *report, const char *kind, const char *id, const char *target, const char *now,
	struct err *err)
{
	size_t i = report->count;

	(void)snprintf(report->objects[i], sizeof(report->objects[i]), "%s:%s", kind, id);
	report->details[i] = json_pack("{s:s, s:s}", "target", target, "iot", now);
	if (report->details[i] == NULL)
		return err_memory(err);
	report->items[i] = (struct audit_item){ .object = report->objects[i],
		.detail = report->details[i] };
	report->count++;
	return OK;
}

/* What one target was brought to, of all rows that are not on record yet. */
struct outcome {
	struct work *works[BATCH];
	const struct db_outbox_row *rows[BATCH];
	size_t count;
	struct db_iot_record records[BATCH * IOT_PLAN_CERTIFICATES_MAX];
	bool knocked[BATCH * IOT_PLAN_CERTIFICATES_MAX]; /* it was PENDING_ACTIVATION before */
	size_t record_count;
	struct db_iot_applied applied[BATCH];
	size_t applied_count;
	bool held[BATCH];
	struct report report;
};
typedef struct outcome outcome_t;

static void
outcome_free(struct outcome *outcome)
{
	if (outcome != NULL)
		report_empty(&outcome->report);
	mem_free(outcome);
}
OWNER(outcome_t, outcome_free)

static void
outcome_make(struct outcome *out, struct batch *batch)
{
	out->count = out->record_count = out->applied_count = 0;
	for (size_t i = 0; i < batch->count; i++) {
		struct work *work = &batch->works[i];

		if (!work->applied)
			continue;
		out->rows[out->count] = work->row;
		out->works[out->count++] = work;
		for (size_t k = 0; k < work->count; k++) {
			const char *status = recorded_status(&work->apply, k);

			if (status == NULL)
				continue;
			out->knocked[out->record_count] =
				work->facts[k].seen == IOT_STATUS_PENDING_ACTIVATION;
			out->records[out->record_count++] = (struct db_iot_record){
				.certificate = &work->certificates[k], .status = status };
		}
		if (work->plan.thing != PLAN_THING_LEAVE)
			out->applied[out->applied_count++] = (struct db_iot_applied){
				work->device.device_id, work->device.version,
				plan_thing_name(work->plan.thing) };
	}
}

static enum status
note_all(struct outcome *outcome, const char *target, struct err *err)
{
	struct report *report = &outcome->report;
	char id[IOT_ID_BYTES];

	report_empty(report);
	for (size_t i = 0; i < outcome->record_count; i++) {
		const struct db_iot_record *record = &outcome->records[i];

		hex_encode(id, record->certificate->sha256, DB_SHA256_BYTES);
		TRY(note(report, "certificate", id, target, record->status, err));
	}
	for (size_t i = 0; i < outcome->count; i++) {
		const struct work *work = outcome->works[i];

		if (work->plan.thing_changes)
			TRY(note(report, "device", work->device.device_id, target,
				plan_thing_name(work->plan.thing), err));
	}
	return OK;
}

/* What was done is seen to by nobody else from here on. ERR_CONFLICT: of outcome->held not all are ours. */
static enum status
hold(struct outcome *outcome, struct db_tx *tx, struct err *err)
{
	TRY(db_outbox_hold(tx, outcome->rows, outcome->count, outcome->held, err));
	for (size_t i = 0; i < outcome->count; i++)
		if (!outcome->held[i])
			return err_set(err, ERR_CONFLICT, "iot_lease_lost",
				"outbox: %s went to another worker", outcome->rows[i]->key);
	return OK;
}

static bool
is_last(const struct batch *batch, const struct iot_site *site)
{
	return site == &batch->room->sites[batch->room->site_count - 1];
}

/* Whether it is to be recorded: something was done, or in the last target nothing is to be done. */
static bool
is_due(const struct work *work, bool last)
{
	return is_open(work) && (work->applied || (last && work->plan.idle));
}

/* Rows that want nothing more of anybody. */
static enum status
end_rows(struct batch *batch, struct db_tx *tx, struct err *err)
{
	const struct db_outbox_row *rows[BATCH];
	size_t count = 0;

	for (size_t i = 0; i < batch->count; i++) {
		if (is_due(&batch->works[i], true))
			rows[count++] = batch->works[i].row;
	}
	return db_outbox_done_many(tx, rows, count, err);
}

/* Those that were left are not ours any more. */
static enum status
keep_groups(const struct work *work, struct db_tx *tx, const char *target, struct err *err)
{
	struct iot_groups kept = { .count = 0 };

	if (work->given[0] == '\0' || !work->plan.thing_changes)
		return OK;
	if (work->plan.thing == PLAN_THING_ACTIVE)
		iot_groups_of(&kept, work->room->app, work->certificates, work->count, true);
	return db_iot_groups_keep(tx, target, work->device.device_id, kept.at, kept.count, err);
}

static enum status
write_outcome(struct batch *batch, struct outcome *outcome, struct db_tx *tx,
	const struct iot_site *site, struct err *err)
{
	const char *target = site->target->name;

	for (size_t i = 0; i < outcome->count; i++)
		for (size_t k = 0; k < outcome->works[i]->count; k++)
			TRY(put_event(outcome->works[i], tx, site, k, err));
	TRY(db_iot_certificates_record(tx, target, outcome->records, outcome->record_count, 0, err));
	TRY(db_iot_devices_record(tx, target, outcome->applied, outcome->applied_count, err));
	for (size_t i = 0; i < outcome->count; i++)
		TRY(keep_groups(outcome->works[i], tx, target, err));
	/* Behind the certificates, as server/iot/jitr.c: else the two could wait for each other. */
	if (outcome->count > 0)
		TRY(hold(outcome, tx, err));
	return is_last(batch, site) ? end_rows(batch, tx, err) : OK;
}

/* All of it in one transaction, if the leases still hold. */
static enum status
record_once(struct batch *batch, struct outcome *outcome, const struct iot_site *site, struct err *err)
{
	struct app *app = batch->room->app;
	own_struct(db_tx) tx = { NULL, NULL };
	struct audit_entry entry = { .action = "iot.apply", .actor = "server",
		.at_s = clock_wall_s(app->clock), .items = outcome->report.items };

	memset(outcome->held, true, sizeof(outcome->held));
	TRY(note_all(outcome, site->target->name, err));
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(write_outcome(batch, outcome, &tx, site, err));
	entry.item_count = outcome->report.count;
	if (entry.item_count > 0)
		TRY(audit_write(app, &tx, &entry, err));
	return db_tx_commit(&tx, err);
}

/*
 * We were late: another worker had the row while calls of ours were on their way, and they may have landed
 * behind its own. Whoever is next says again what is wanted by then.
 */
static enum status
leave_doubt(struct work *work, const struct iot_site *site, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	const char *key = work->row->key;

	TRY(db_tx_begin(&tx, work->room->app->pool, err));
	for (size_t i = 0; i < work->count; i++)
		if (work->plan.actions[i].status != IOT_STATUS_UNKNOWN)
			TRY(db_iot_certificate_announce(&tx, site->target->name,
				&work->certificates[i], err));
	if (is_certificate_key(key))
		TRY(db_outbox_put_certificate(&tx, key + strlen(KEY_PREFIX), "overtaken", OUTBOX_TAKES,
			err));
	else
		TRY(db_outbox_put_device(&tx, key, "overtaken", OUTBOX_TAKES, err));
	TRY(db_outbox_notify(&tx, OUTBOX_TAKES, err));
	return db_tx_commit(&tx, err);
}

/* ---- a row ---- */

static int64_t
wait_ms(const struct app *app, int64_t attempts)
{
	int64_t ms = WAIT_FIRST_MS;
	uint32_t random = 0;
	struct err err;

	(void)app;
	for (int64_t i = 0; i < attempts && ms < WAIT_MOST_MS; i++)
		ms *= 2;
	if (ms > WAIT_MOST_MS)
		ms = WAIT_MOST_MS;
	if (entropy_fill(&ENTROPY_SYSTEM, (uint8_t *)&random, sizeof(random), &err) != OK)
		return ms;
	return ms / 2 + (int64_t)(random % (uint32_t)(ms / 2 + 1));
}

/* Whether trying again is of no use: what was refused so often stays refused. */
static bool
is_dead(const struct err *why, int64_t attempts)
{
	switch (why->status) {
	case ERR_UNAVAILABLE:
	case ERR_TOO_MANY:
		return false;
	case ERR_DENIED:
	case ERR_UNAUTHENTICATED:
		return attempts + 1 >= DENIED_MOST;
	case ERR_INTERNAL:
	case ERR_ARGUMENT:
	case ERR_NOT_FOUND:
	case ERR_CONFLICT:
	case ERR_TOO_LARGE:
	case OK:
	default:
		return attempts + 1 >= REFUSED_MOST;
	}
}

/* In the transaction that gives it up: somebody should look (docs/notifications.md). */
static enum status
raise_dead(struct db_tx *tx, const struct db_outbox_row *row, const struct err *why, struct err *err)
{
	static const char OF_NOBODY[] = "certificate/";
	const size_t head = sizeof(OF_NOBODY) - 1;
	struct db_event event = { .kind = "iot_dead_letter" };

	(void)snprintf(event.severity, sizeof(event.severity),
		row->priority == OUTBOX_TAKES ? "high" : "medium");
	if (strncmp(row->key, OF_NOBODY, head) == 0)
		(void)snprintf(event.certificate_id, sizeof(event.certificate_id), "%s", row->key + head);
	else
		(void)snprintf(event.device_id, sizeof(event.device_id), "%.64s", row->key);
	TRY(notify_event_detail(&event, json_pack("{s:s, s:s, s:I}", "cause", row->cause, "code",
		why->code, "attempts", (json_int_t)row->attempts + 1), err));
	return notify_event_raise(tx, &event, err);
}

static enum status
fail_row(struct work *work, const struct err *why, struct err *err)
{
	struct app *app = work->room->app;
	own_struct(db_tx) tx = { NULL, NULL };
	const struct db_outbox_row *row = work->row;
	bool dead = is_dead(why, row->attempts);

	if (strcmp(why->code, "iot_lease_lost") == 0)
		return OK; /* whoever has it sees to it */
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_outbox_fail(&tx, row, wait_ms(app, row->attempts), dead, why, err));
	if (dead)
		TRY(raise_dead(&tx, row, why, err));
	TRY(db_tx_commit(&tx, err));
	metric_count(METRIC_OUTBOX_FAILED, why->code, NULL, 1);
	log_event(dead ? LOG_ERROR : LOG_INFO, dead ? "outbox_dead_letter" : "outbox_put_off", NULL,
		LOG_STR("key", row->key), LOG_STR("code", why->code), LOG_STR("why", why->text),
		LOG_INT("attempts", row->attempts + 1));
	return OK;
}

/* The first target that fails does not keep a row's certificates from the others. */
static void
note_failure(struct work *work, const struct iot_site *site, enum status status, const struct err *why)
{
	struct err err;

	work->applied = false;
	work->status = status;
	work->why = *why;
	if (strcmp(why->code, "iot_lease_lost") == 0 && leave_doubt(work, site, &err) != OK)
		log_error(LOG_ERROR, "outbox_failed", NULL, &err);
}

static void
count_outcome(const struct outcome *outcome, const struct iot_site *site)
{
	for (size_t i = 0; i < outcome->record_count; i++) {
		const struct db_iot_record *record = &outcome->records[i];

		if (outcome->knocked[i] && strcmp(record->status, "ACTIVE") == 0)
			iot_latency_observe(record->latency_us);
		metric_count(METRIC_IOT_APPLIED, site->target->name, record->status, 1);
	}
}

/* Those whose lease is gone are left to others; the rest is tried again without them. */
static bool
drop_lost(struct outcome *outcome, const struct iot_site *site, const struct err *why)
{
	bool any = false;

	for (size_t i = 0; i < outcome->count; i++)
		if (!outcome->held[i]) {
			note_failure(outcome->works[i], site, ERR_CONFLICT, why);
			any = true;
		}
	return any;
}

static enum status
record_some(struct batch *batch, struct outcome *outcome, const struct iot_site *site, struct err *err)
{
	enum status status;

	do {
		unsigned tries = 0;

		outcome_make(outcome, batch);
		do
			status = record_once(batch, outcome, site, err);
		while (retry_due(&tries, status, err));
	} while (status != OK && strcmp(err->code, "iot_lease_lost") == 0 &&
		drop_lost(outcome, site, err));
	return status;
}

/* What was applied in this target; with the last one, rows end. */
static void
record(struct batch *batch, const struct iot_site *site)
{
	bool last = is_last(batch, site);
	own(outcome_t) outcome = mem_zalloc(sizeof(*outcome));
	bool any = false;
	struct err err;
	enum status status;

	for (size_t i = 0; i < batch->count; i++)
		any |= is_due(&batch->works[i], last);
	if (!any)
		return;
	status = outcome == NULL ? err_memory(&err) : record_some(batch, outcome, site, &err);
	if (status == OK)
		count_outcome(outcome, site);
	for (size_t i = 0; i < batch->count; i++) {
		struct work *work = &batch->works[i];

		if (!is_due(work, last))
			continue;
		if (status != OK)
			note_failure(work, site, status, &err);
		work->ended = status == OK && last;
		work->applied = false;
	}
}

static void
apply_first(struct work *work, struct iot_site *site)
{
	struct err err;
	enum status status;

	work->apply = (struct iot_apply){
		.site = site,
		.iot = iot_site_calls(site, work->row->priority == OUTBOX_TAKES ? AWS_PRIORITY_URGENT :
			AWS_PRIORITY_NORMAL),
		.device = work->has_device ? &work->device : NULL,
		.applied = work->state,
		.given = work->given,
		.certificates = work->certificates,
		.facts = work->facts,
		.count = work->count,
		.plan = &work->plan,
		.go_on = still_ours,
		.arg = work,
	};
	work->apply.iot.timeout_ms = CALL_MS;
	status = iot_apply_take_away(&work->apply, &err);
	if (status != OK)
		note_failure(work, site, status, &err);
}

static void
apply_rest(struct work *work, struct iot_site *site)
{
	struct err err;
	enum status status = iot_apply_rest(&work->apply, &err);

	work->applied = status == OK;
	if (status != OK)
		note_failure(work, site, status, &err);
}

static void
fail_all(struct batch *batch, const struct iot_site *site, enum status status, const struct err *why)
{
	for (size_t i = 0; i < batch->count; i++)
		if (is_open(&batch->works[i]))
			note_failure(&batch->works[i], site, status, why);
}

/* Whether this row has its turn; if not, whoever has it next sees to it. */
static bool
has_turn(struct work *work)
{
	if (!is_open(work) || work->plan.idle)
		return false;
	work->left = work->room->stopping ||
		(work->row->priority != OUTBOX_TAKES && iot_room_urgent_due(work->room));
	return !work->left;
}

/* Rows that take something away do that, all of them, before anything else. */
static void
take_away(struct batch *batch, struct iot_site *site)
{
	for (size_t i = 0; i < batch->count; i++)
		if (has_turn(&batch->works[i]))
			apply_first(&batch->works[i], site);
}

static void
see_to_target(struct batch *batch, struct iot_site *site)
{
	const struct clock *clock = batch->room->app->clock;
	bool urgent = batch->rows[0].priority == OUTBOX_TAKES;
	int64_t since_ms = clock_mono_ms(clock);
	int64_t record_after_ms = urgent ? RECORD_AFTER_URGENT_MS : RECORD_AFTER_MS;
	unsigned tries = 0;
	struct err err;
	enum status status;

	do
		status = make_plans(batch, site, &err);
	while (retry_due(&tries, status, &err));
	if (status != OK) {
		fail_all(batch, site, status, &err);
		return;
	}
	if (urgent)
		take_away(batch, site);
	for (size_t i = 0; i < batch->count; i++) {
		struct work *work = &batch->works[i];

		if (!has_turn(work))
			continue;
		if (clock_mono_ms(clock) - since_ms > record_after_ms) {
			record(batch, site);
			since_ms = clock_mono_ms(clock);
		}
		if (!urgent)
			apply_first(work, site);
		if (is_open(work))
			apply_rest(work, site);
	}
	record(batch, site);
}

/* ---- a round ---- */

/* Of what a target has told us of, this need not be asked. */
static bool
may_be_idle(const struct db_outbox_row *row)
{
	return !is_certificate_key(row->key) && strcmp(row->cause, "registered") != 0;
}

/* Most of what issuance writes concerns nobody there yet: that goes at once. */
static enum status
drop_idle(struct iot_room *room, struct db_tx *tx, struct db_outbox_row *rows, size_t *count,
	struct err *err)
{
	const char *targets[IOT_TARGETS_MAX];
	const char *profiles[CA_PROFILES_MAX];
	const char *ids[BATCH];
	const struct db_outbox_row *idle_rows[BATCH];
	bool idle[BATCH];
	size_t asked[BATCH];
	size_t asked_count = 0;
	size_t profile_count = 0;
	size_t idle_count = 0;
	size_t left = 0;

	for (size_t i = 0; i < room->site_count; i++)
		targets[i] = room->sites[i].target->name;
	for (size_t i = 0; i < room->app->profile_count; i++)
		if (room->app->profiles[i].preregister)
			profiles[profile_count++] = room->app->profiles[i].name;
	for (size_t i = 0; i < *count; i++)
		if (may_be_idle(&rows[i])) {
			asked[asked_count] = i;
			ids[asked_count++] = rows[i].key;
		}
	if (asked_count == 0)
		return OK;
	TRY(db_iot_devices_idle(tx, ids, asked_count, targets, room->site_count, profiles,
		profile_count, idle, err));
	for (size_t k = 0; k < asked_count; k++)
		if (idle[k])
			idle_rows[idle_count++] = &rows[asked[k]];
	TRY(db_outbox_done_many(tx, idle_rows, idle_count, err));
	for (size_t i = 0, k = 0; i < *count; i++) {
		bool was_asked = k < asked_count && asked[k] == i;

		if (!was_asked || !idle[k])
			rows[left++] = rows[i];
		k += was_asked;
	}
	*count = left;
	return OK;
}

static enum status
lease(struct iot_room *room, int least_urgent, size_t max, struct db_outbox_row *rows,
	size_t *leased, bool *more_urgent, size_t *count, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	TRY(db_tx_begin(&tx, room->app->pool, err));
	TRY(db_outbox_lease(&tx, room->app->instance_id, least_urgent, max, LEASE_MS, rows, count,
		err));
	*leased = *count;
	*more_urgent = *count == max && rows[max - 1].priority == OUTBOX_TAKES;
	if (*count > 0)
		TRY(drop_idle(room, &tx, rows, count, err));
	return db_tx_commit(&tx, err);
}

static void
begin_work(struct batch *batch, size_t i, int64_t leased_ms)
{
	struct work *work = &batch->works[i];
	const char *key = batch->rows[i].key;

	work->room = batch->room;
	work->row = &batch->rows[i];
	work->renewed_ms = leased_ms;
	work->status = OK;
	if (is_certificate_key(key) && !hex_decode(work->sha256, DB_SHA256_BYTES,
		    key + strlen(KEY_PREFIX), strlen(key) - strlen(KEY_PREFIX)))
		work->status = err_set(&work->why, ERR_ARGUMENT, "iot_argument",
			"outbox: a certificate's id wanted");
}

/* Begins an urgency if anything was leased that takes something away. */
static enum status
take(struct batch *batch, int least_urgent, size_t max, size_t *found, struct err *err)
{
	struct iot_room *room = batch->room;
	uint64_t wakes = iot_room_wakes(room);
	int64_t leased_ms = clock_mono_ms(room->app->clock);
	bool more_urgent = false;

	TRY(lease(room, least_urgent, max, batch->rows, found, &more_urgent, &batch->count, err));
	if (batch->count > 0 && batch->rows[0].priority == OUTBOX_TAKES)
		iot_urgency_begin(&room->urgency, room->app->clock);
	iot_room_looked(room, wakes, more_urgent);
	if (*found == max)
		iot_room_more(room);
	for (size_t i = 0; i < batch->count; i++)
		begin_work(batch, i, leased_ms);
	return OK;
}

/* What does not take anything away goes into a batch of its own. */
static void
split(struct batch *batch, struct batch *rest)
{
	size_t takes = 0;

	rest->room = batch->room;
	while (takes < batch->count && batch->rows[takes].priority == OUTBOX_TAKES)
		takes++;
	for (size_t i = takes; i < batch->count; i++) {
		rest->rows[rest->count] = batch->rows[i];
		begin_work(rest, rest->count++, batch->works[i].renewed_ms);
	}
	batch->count = takes;
}

/* Rows that have stepped aside. */
static enum status
let_go(struct batch *batch, struct err *err)
{
	const struct db_outbox_row *rows[BATCH];
	own_struct(db_tx) tx = { NULL, NULL };
	size_t count = 0;

	for (size_t i = 0; i < batch->count; i++)
		if (batch->works[i].left && batch->works[i].status == OK)
			rows[count++] = batch->works[i].row;
	if (count == 0 || batch->room->stopping)
		return OK;
	TRY(db_tx_begin(&tx, batch->room->app->pool, err));
	TRY(db_outbox_let_go(&tx, rows, count, err));
	return db_tx_commit(&tx, err);
}

static enum status
see_to(struct batch *batch, struct err *err)
{
	struct iot_room *room = batch->room;

	for (size_t i = 0; i < room->site_count && batch->count > 0; i++)
		see_to_target(batch, &room->sites[i]);
	for (size_t i = 0; i < batch->count; i++)
		if (batch->works[i].status != OK)
			TRY(fail_row(&batch->works[i], &batch->works[i].why, err));
	return let_go(batch, err);
}

enum status
iot_outbox_round(struct iot_room *room, int least_urgent, size_t max, size_t *found,
	struct err *err)
{
	own(batch_t) batch = mem_zalloc(sizeof(*batch));
	own(batch_t) rest = mem_zalloc(sizeof(*rest));
	enum status status = OK;

	*found = 0;
	if (batch == NULL || rest == NULL)
		return err_memory(err);
	batch->room = room;
	assert(max > 0 && max <= BATCH);
	TRY(take(batch, least_urgent, max, found, err));
	split(batch, rest);
	if (batch->count > 0) {
		status = see_to(batch, err);
		iot_urgency_end(&room->urgency);
	}
	TRY(status);
	return see_to(rest, err);
}

enum status
iot_outbox_discard(struct iot_room *room, size_t *found, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	TRY(db_tx_begin(&tx, room->app->pool, err));
	TRY(db_outbox_discard(&tx, DISCARD_BATCH, found, err));
	return db_tx_commit(&tx, err);
}
