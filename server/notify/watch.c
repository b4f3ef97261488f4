#include "server/notify/watch.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "db/certificate.h"
#include "db/device.h"
#include "db/issuer.h"
#include "server/http/request.h"
#include "server/iot/aws.h"
#include "server/iot/room.h"
#include "server/jobs/jobs.h"
#include "server/notify/event.h"
#include "server/rotation.h"

#define HOUR_S 3600
#define DAY_S 86400
#define LATE_PAGE 1000
#define LATE_NAMED 5

typedef struct db_device db_device;
OWNER(db_device, mem_free)

/* So long before the end, but never earlier than that part of the whole life: then it says so. */
struct notice {
	int64_t left_s;
	int64_t part;
	const char *severity;
	int64_t again_s;
};

static const struct notice NOTICES[] = { /* the nearest end first */
	{ 7 * DAY_S, 30, "critical", DAY_S },
	{ 30 * DAY_S, 9, "high", 7 * DAY_S },
	{ 90 * DAY_S, 3, "medium", 7 * DAY_S },
};

static const struct notice *
notice_of(int64_t life_s, int64_t left_s)
{
	for (size_t i = 0; i < COUNT_OF(NOTICES); i++)
		if (left_s <= NOTICES[i].left_s && left_s <= life_s / NOTICES[i].part)
			return &NOTICES[i];
	return NULL;
}

static enum status
raise_end(struct db_tx *tx, struct db_event *event, const char *name, int64_t not_after_s, int64_t left_s,
	int64_t again_s, struct err *err)
{
	char end[TIME_TEXT_BYTES];

	time_format(end, not_after_s);
	TRY(notify_event_detail(event, json_pack("{s:s, s:s, s:I}", "name", name, "not_after", end,
		"days_left", (json_int_t)(left_s > 0 ? left_s / DAY_S : 0)), err));
	return notify_event_raise_once(tx, event, again_s, err);
}

static enum status
watch_cas(struct app *app, struct db_tx *tx, int64_t now_s, struct err *err)
{
	for (size_t i = 0; i < app->ca_count; i++) {
		const struct app_ca *ca = &app->cas[i];
		int64_t left_s = ca->not_after_s - now_s;
		const struct notice *notice = notice_of(ca->not_after_s - ca->not_before_s, left_s);
		struct db_event event = { .event_id = 0 };

		if (notice == NULL)
			continue;
		(void)snprintf(event.kind, sizeof(event.kind), left_s > 0 ? "ca_expiring" : "ca_expired");
		(void)snprintf(event.severity, sizeof(event.severity), "%s", notice->severity);
		(void)snprintf(event.target, sizeof(event.target), "%.32s", ca->ca_id);
		TRY(raise_end(tx, &event, ca->ca_id, ca->not_after_s, left_s, notice->again_s, err));
	}
	return OK;
}

/* Certificates from files are renewed by others, the own one by us: then not its end, but that fails. */
static enum status
watch_listeners(struct app *app, struct db_tx *tx, int64_t now_s, struct err *err)
{
	int64_t not_after_s = app->tls_not_after_s;
	int64_t left_s = not_after_s - now_s;
	struct db_event event = { .kind = "listener_certificate_expiring" };

	if (app->tls_trouble) {
		struct db_event trouble = { .kind = "listener_certificate_trouble", .severity = "high",
			.detail = "{}" };

		TRY(notify_event_raise_once(tx, &trouble, DAY_S, err));
	}
	if (not_after_s == 0 || left_s > 14 * DAY_S)
		return OK;
	(void)snprintf(event.severity, sizeof(event.severity), left_s > 3 * DAY_S ? "high" : "critical");
	return raise_end(tx, &event, "tls_certificates", not_after_s, left_s, DAY_S, err);
}

static enum status
watch_iot(struct app *app, struct db_tx *tx, struct err *err)
{
	for (size_t i = 0; app->iot != NULL && i < app->iot->site_count; i++) {
		const struct iot_site *site = &app->iot->sites[i];
		struct db_event event = { .kind = "iot_breaker_open", .severity = "high" };
		struct aws_health health;

		aws_client_health(site->client, &health);
		if (health.breaker != AWS_BREAKER_OPEN)
			continue;
		(void)snprintf(event.target, sizeof(event.target), "%s", site->target->name);
		TRY(notify_event_detail(&event, json_pack("{s:s, s:I}", "message", health.last.message,
			"opened", (json_int_t)health.breaker_opened), err));
		TRY(notify_event_raise_once(tx, &event, HOUR_S, err));
	}
	return OK;
}

static json_t *
late_detail(const struct db_device *rows, size_t count, bool more)
{
	json_t *names = json_array();

	for (size_t i = 0; i < count && i < LATE_NAMED; i++)
		(void)json_array_append_new(names, json_string(rows[i].device_id));
	return json_pack("{s:I, s:b, s:o}", "devices", (json_int_t)count, "or_more", more, "latest", names);
}

/* The look itself costs more than its answer is worth every minute. */
static enum status
watch_late(struct app *app, struct db_tx *tx, int64_t now_s, struct err *err)
{
	const struct db_event_filter filter = { .kind = "rotation_late", .since_s = now_s - DAY_S };
	const struct db_certificate_cursor start = { .set = false };
	struct db_event event = { .kind = "rotation_late", .severity = "medium" };
	own(db_device) rows = mem_array(LATE_PAGE, sizeof(*rows));
	struct db_late_rule rules[CA_PROFILES_MAX];
	struct db_certificate_cursor next;
	struct db_event last;
	size_t count;

	if (rows == NULL)
		return err_memory(err);
	TRY(db_event_list(tx, &filter, 1, &last, &count, err));
	if (count > 0)
		return OK;
	TRY(db_device_list_late(tx, rules,
		rotation_late_rules(app->profiles, app->profile_count, rules), now_s, &start, LATE_PAGE,
		rows, &count, &next, err));
	if (count == 0)
		return OK;
	TRY(notify_event_detail(&event, late_detail(rows, count, next.set), err));
	return notify_event_raise_once(tx, &event, DAY_S, err);
}

enum status
notify_watch(struct app *app, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	int64_t now_s = clock_wall_s(app->clock);
	bool leader;

	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(watch_listeners(app, &tx, now_s, err));
	TRY(watch_iot(app, &tx, err));
	TRY(db_job_lead(&tx, JOB_WATCH, &leader, err));
	if (leader) {
		TRY(watch_cas(app, &tx, now_s, err));
		TRY(watch_late(app, &tx, now_s, err));
	}
	return db_tx_commit(&tx, err);
}
