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
#include "server/iot/iot_metrics.h"
#include "server/metrics.h"
#include "server/retry.h"

#define KEY_PREFIX "certificate/"
/* A row is with one worker so long; renewed between calls, each of which ends well within it. */
#define LEASE_MS 30000
#define RENEW_AFTER_MS 8000
#define CALL_MS 15000
/* Few at once, so that what is urgent need not wait for what was leased before; what is idle is many. */
#define BATCH 8
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

	/* of the target in hand */
	char applied[16];
	struct db_iot_certificate certificates[IOT_PLAN_CERTIFICATES_MAX];
	struct plan_fact facts[IOT_PLAN_CERTIFICATES_MAX];
	size_t count;
	struct plan plan;
	struct iot_apply apply;
	uint8_t sha256[DB_SHA256_BYTES]; /* of a key without device */
};
typedef struct work work_t;
OWNER(work_t, mem_free)

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

static enum status
read_certificates(struct work *work, struct db_tx *tx, const char *target, struct err *err)
{
	bool found = false;

	if (work->has_device) {
		TRY(db_iot_device_state(tx, target, work->device.device_id, work->applied, err));
		return db_iot_certificates_of_device(tx, target, work->device.device_id,
			work->certificates, IOT_PLAN_CERTIFICATES_MAX, &work->count, err);
	}
	work->applied[0] = '\0';
	TRY(db_iot_certificate_find(tx, target, work->sha256, &work->certificates[0], &found, err));
	work->count = found ? 1 : 0;
	return OK;
}

/* The wanted state, in a transaction that began after the row was leased. */
static enum status
make_plan(struct work *work, const struct iot_site *site, struct err *err)
{
	struct app *app = work->room->app;
	own_struct(db_tx) tx = { NULL, NULL };
	enum status status = ERR_NOT_FOUND;

	TRY(db_tx_begin(&tx, app->pool, err));
	work->has_device = false;
	if (!is_certificate_key(work->row->key)) {
		status = db_device_find(&tx, work->row->key, &work->device, err);
		if (status != OK && status != ERR_NOT_FOUND)
			return status;
		work->has_device = status == OK;
	}
	if (!work->has_device && !is_certificate_key(work->row->key))
		work->count = 0; /* nothing is known of it: nothing is wanted */
	else
		TRY(read_certificates(work, &tx, site->target->name, err));
	TRY(db_tx_commit(&tx, err));
	for (size_t i = 0; i < work->count; i++)
		fact_of(&work->facts[i], app, &work->certificates[i]);
	plan_make(&work->plan, device_of(work), work->applied, work->facts, work->count);
	return OK;
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

struct report {
	struct audit_item items[IOT_PLAN_CERTIFICATES_MAX + 1];
	char objects[IOT_PLAN_CERTIFICATES_MAX + 1][96];
	json_t *details[IOT_PLAN_CERTIFICATES_MAX + 1];
	size_t count;
};

static void
report_free(struct report *report)
{
	for (size_t i = 0; i < report->count; i++)
		json_decref(report->details[i]);
	report->count = 0;
}
OWNER_STRUCT(report, report_free)

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

static enum status
record_certificate(struct work *work, struct db_tx *tx, const struct iot_site *site, size_t i,
	struct report *report, struct err *err)
{
	const char *status = recorded_status(&work->apply, i);
	char id[IOT_ID_BYTES];
	int64_t latency_us;

	TRY(put_event(work, tx, site, i, err));
	if (status == NULL)
		return OK;
	TRY(db_iot_certificate_record(tx, site->target->name, &work->certificates[i], status, 0,
		&latency_us, err));
	if (strcmp(status, "ACTIVE") == 0 && work->facts[i].seen == IOT_STATUS_PENDING_ACTIVATION)
		iot_latency_observe(latency_us);
	metric_count(METRIC_IOT_APPLIED, site->target->name, status, 1);
	hex_encode(id, work->certificates[i].sha256, DB_SHA256_BYTES);
	return note(report, "certificate", id, site->target->name, status, err);
}

/* All of a target in one transaction, if the lease still holds. */
static enum status
record(struct work *work, const struct iot_site *site, struct err *err)
{
	struct app *app = work->room->app;
	own_struct(db_tx) tx = { NULL, NULL };
	own_struct(report) report = { .count = 0 };
	struct audit_entry entry = { .action = "iot.apply", .actor = "server",
		.at_s = clock_wall_s(app->clock), .items = report.items };
	bool kept;
	bool held;

	TRY(db_tx_begin(&tx, app->pool, err));
	for (size_t i = 0; i < work->count; i++)
		TRY(record_certificate(work, &tx, site, i, &report, err));
	if (work->plan.thing != PLAN_THING_LEAVE) {
		TRY(db_iot_device_record(&tx, site->target->name, work->device.device_id,
			work->device.version, plan_thing_name(work->plan.thing), &kept, err));
		if (work->plan.thing_changes)
			TRY(note(&report, "device", work->device.device_id, site->target->name,
				plan_thing_name(work->plan.thing), err));
	}
	/* Behind the certificates, as server/iot/jitr.c: else the two could wait for each other. */
	TRY(db_outbox_hold(&tx, work->row, &held, err));
	if (!held)
		return err_set(err, ERR_CONFLICT, "iot_lease_lost", "outbox: %s went to another worker",
			work->row->key);
	entry.item_count = report.count;
	if (report.count > 0)
		TRY(audit_write(app, &tx, &entry, err));
	return db_tx_commit(&tx, err);
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

static enum status
announce(struct work *work, const struct iot_site *site, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	bool any = false;

	for (size_t i = 0; i < work->count && !any; i++)
		any = is_announced(work, i) && !work->facts[i].doubtful;
	if (!any)
		return OK;
	TRY(db_tx_begin(&tx, work->room->app->pool, err));
	for (size_t i = 0; i < work->count; i++)
		if (is_announced(work, i))
			TRY(db_iot_certificate_announce(&tx, site->target->name,
				&work->certificates[i], err));
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
	TRY(db_outbox_notify(&tx, err));
	return db_tx_commit(&tx, err);
}

static enum status
run(struct work *work, const struct iot_site *site, struct err *err)
{
	unsigned tries = 0;
	enum status status;

	TRY(iot_apply_run(&work->apply, err));
	do
		status = record(work, site, err);
	while (retry_due(&tries, status, err));
	return status;
}

static enum status
see_to_target(struct work *work, struct iot_site *site, struct err *err)
{
	enum status status;
	struct err why;

	TRY(make_plan(work, site, err));
	if (work->plan.idle)
		return OK;
	TRY(announce(work, site, err));
	work->apply = (struct iot_apply){
		.site = site,
		.iot = iot_site_calls(site, work->row->priority == OUTBOX_TAKES ? AWS_PRIORITY_URGENT :
			AWS_PRIORITY_NORMAL),
		.device = work->has_device ? &work->device : NULL,
		.applied = work->applied,
		.certificates = work->certificates,
		.facts = work->facts,
		.count = work->count,
		.plan = &work->plan,
		.go_on = still_ours,
		.arg = work,
	};
	work->apply.iot.timeout_ms = CALL_MS;
	status = run(work, site, err);
	if (status != OK && strcmp(err->code, "iot_lease_lost") == 0) {
		why = *err;
		TRY(leave_doubt(work, site, err));
		*err = why;
	}
	return status;
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
	TRY(db_tx_commit(&tx, err));
	metric_count(METRIC_OUTBOX_FAILED, why->code, NULL, 1);
	log_event(dead ? LOG_ERROR : LOG_INFO, dead ? "outbox_dead_letter" : "outbox_put_off", NULL,
		LOG_STR("key", row->key), LOG_STR("code", why->code), LOG_STR("why", why->text),
		LOG_INT("attempts", row->attempts + 1));
	return OK;
}

static enum status
end_row(struct work *work, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	bool removed;

	TRY(db_tx_begin(&tx, work->room->app->pool, err));
	TRY(db_outbox_done(&tx, work->row, &removed, err));
	return db_tx_commit(&tx, err);
}

/* The first target that fails does not keep the others from theirs. */
static enum status
see_to(struct work *work, struct err *err)
{
	struct iot_room *room = work->room;
	enum status status = OK;
	struct err why;

	if (is_certificate_key(work->row->key) &&
	    !hex_decode(work->sha256, DB_SHA256_BYTES, work->row->key + strlen(KEY_PREFIX),
		    strlen(work->row->key) - strlen(KEY_PREFIX)))
		status = err_set(&why, ERR_ARGUMENT, "iot_argument", "outbox: a certificate's id wanted");
	for (size_t i = 0; i < room->site_count && (i == 0 || !room->stopping); i++) {
		struct err one;

		if (status == OK && see_to_target(work, &room->sites[i], &one) != OK) {
			status = one.status;
			why = one;
		}
	}
	return status == OK ? end_row(work, err) : fail_row(work, &why, err);
}

/* ---- a round ---- */

/* Most of what issuance writes concerns nobody there yet: that goes at once. */
static enum status
drop_idle(struct iot_room *room, struct db_tx *tx, struct db_outbox_row *rows, size_t *count,
	struct err *err)
{
	const char *targets[IOT_TARGETS_MAX];
	const char *profiles[CA_PROFILES_MAX];
	const char *ids[BATCH];
	struct db_outbox_row idle_rows[BATCH];
	bool idle[BATCH];
	size_t profile_count = 0;
	size_t idle_count = 0;
	size_t left = 0;

	for (size_t i = 0; i < room->site_count; i++)
		targets[i] = room->sites[i].target->name;
	for (size_t i = 0; i < room->app->profile_count; i++)
		if (room->app->profiles[i].preregister)
			profiles[profile_count++] = room->app->profiles[i].name;
	for (size_t i = 0; i < *count; i++)
		ids[i] = rows[i].key;
	TRY(db_iot_devices_idle(tx, ids, *count, targets, room->site_count, profiles, profile_count,
		idle, err));
	for (size_t i = 0; i < *count; i++) {
		if (idle[i] && !is_certificate_key(rows[i].key))
			idle_rows[idle_count++] = rows[i];
		else
			rows[left++] = rows[i];
	}
	*count = left;
	return db_outbox_done_many(tx, idle_rows, idle_count, err);
}

static enum status
lease(struct iot_room *room, int least_urgent, struct db_outbox_row *rows, size_t *leased,
	size_t *count, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	TRY(db_tx_begin(&tx, room->app->pool, err));
	TRY(db_outbox_lease(&tx, least_urgent, BATCH, LEASE_MS, rows, count, err));
	*leased = *count;
	if (*count > 0)
		TRY(drop_idle(room, &tx, rows, count, err));
	return db_tx_commit(&tx, err);
}

enum status
iot_outbox_round(struct iot_room *room, int least_urgent, size_t *found, struct err *err)
{
	own(work_t) work = mem_zalloc(sizeof(*work));
	struct db_outbox_row rows[BATCH];
	int64_t leased_ms = clock_mono_ms(room->app->clock);
	size_t count;

	*found = 0;
	if (work == NULL)
		return err_memory(err);
	TRY(lease(room, least_urgent, rows, found, &count, err));
	for (size_t i = 0; i < count && !room->stopping; i++) {
		work->room = room;
		work->row = &rows[i];
		work->renewed_ms = leased_ms;
		TRY(see_to(work, err));
	}
	return OK;
}

enum status
iot_outbox_discard(struct iot_room *room, size_t *found, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	TRY(db_tx_begin(&tx, room->app->pool, err));
	TRY(db_outbox_discard(&tx, DISCARD_BATCH, found, err));
	return db_tx_commit(&tx, err);
}
