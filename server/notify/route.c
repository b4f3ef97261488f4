#include "server/notify/route.h"

#include <sodium.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "db/event.h"
#include "db/notification.h"
#include "server/http/request.h"
#include "server/metrics.h"
#include "server/notify/event.h"
#include "server/notify/message.h"

#define BATCH 64
#define RETENTION_PAGE 1000
/* What happened while nobody was configured to be told is no news a day later. */
#define NEWS_S 86400
/* A channel that no file names any more: longer than any channel may try (config.c). */
#define ORPHANS_S (14 * 86400)
/* Of a bucket, this part is kept for what is high or critical. */
#define RESERVE 4

typedef struct db_event db_event;
typedef struct db_notification db_notification;
OWNER(db_event, mem_free)
OWNER(db_notification, mem_free)

struct routing {
	struct app *app;
	const struct notify_channel *channel;
	struct db_notification_meter meter;
	struct db_tx *tx;
};

/* ---- one event, one channel ---- */

static void
add_part(crypto_generichash_state *state, const char *text)
{
	(void)crypto_generichash_update(state, (const uint8_t *)text, strlen(text) + 1);
}

/* The same again: what is about a device or certificate is told by these, the rest by its detail. */
static void
event_key(uint8_t out[DB_NOTIFICATION_KEY_BYTES], const struct db_event *event)
{
	bool named = event->device_id[0] != '\0' || event->certificate_id[0] != '\0';
	crypto_generichash_state state;

	(void)crypto_generichash_init(&state, NULL, 0, DB_NOTIFICATION_KEY_BYTES);
	add_part(&state, event->kind);
	add_part(&state, event->severity);
	add_part(&state, event->device_id);
	add_part(&state, event->certificate_id);
	add_part(&state, event->target);
	add_part(&state, named ? "" : event->detail);
	(void)crypto_generichash_final(&state, out, DB_NOTIFICATION_KEY_BYTES);
}

static void
hold_back(struct routing *routing, int64_t *counter, const struct db_event *event)
{
	int64_t severity = (int64_t)notify_severity(event->severity);

	(*counter)++;
	if (severity > routing->meter.worst)
		routing->meter.worst = severity;
	if (routing->meter.held_since_s == 0)
		routing->meter.held_since_s = routing->meter.now_s;
	metric_count(METRIC_NOTIFICATIONS, routing->channel->name, "suppressed", 1);
}

/* The receipt of the revocation that is done shows the delivery, and what was answered. */
static void
note_receipt(struct db_notification *row, const struct db_event *event)
{
	own(json_t) detail = NULL;
	const char *id;

	if (strcmp(event->kind, NOTIFY_REVOCATION_DONE) != 0)
		return;
	detail = json_loads(event->detail, 0, NULL);
	id = json_string_value(json_object_get(detail, "revocation"));
	if (id != NULL && strlen(id) < sizeof(row->revocation_id))
		(void)snprintf(row->revocation_id, sizeof(row->revocation_id), "%s", id);
}

static enum status
put(struct routing *routing, const struct db_event *event, struct err *err)
{
	own(db_notification) row = mem_zalloc(sizeof(*row));

	if (row == NULL)
		return err_memory(err);
	TRY(notify_message_make(row, event, routing->app->config.public_url, &ENTROPY_SYSTEM, err));
	(void)snprintf(row->channel, sizeof(row->channel), "%s", routing->channel->name);
	if (routing->channel->type == NOTIFY_WEBHOOK)
		note_receipt(row, event);
	routing->meter.waiting++;
	return db_notification_put(routing->tx, row, err);
}

static enum status
consider(struct routing *routing, const struct db_event *event, int64_t repeat_after_s, struct err *err)
{
	struct db_notification_meter *meter = &routing->meter;
	int64_t reserve = notify_severity(event->severity) >= SEVERITY_HIGH ? 0 :
		routing->channel->burst / RESERVE;
	uint8_t key[DB_NOTIFICATION_KEY_BYTES];
	bool first;

	if (meter->waiting >= routing->channel->queue_max) {
		hold_back(routing, &meter->over_queue, event);
		return OK;
	}
	if (meter->bucket < 1 + (double)reserve) {
		hold_back(routing, &meter->over_rate, event);
		return OK;
	}
	event_key(key, event);
	TRY(db_notification_first(routing->tx, routing->channel->name, key, repeat_after_s, &first, err));
	if (!first) {
		hold_back(routing, &meter->repeats, event);
		return OK;
	}
	meter->bucket -= 1;
	return put(routing, event, err);
}

/* ---- a batch ---- */

/* The channel's row is locked by who needs it first, and written back once. */
static enum status
route_channel(struct routing *routing, const struct notify_config *config, const struct db_event *events,
	size_t count, struct err *err)
{
	const struct notify_channel *channel = routing->channel;
	bool locked = false;

	for (size_t i = 0; i < count; i++) {
		int64_t repeat_after_s;

		if (!notify_config_wants(config, channel->name, events[i].kind,
			    notify_severity(events[i].severity), &repeat_after_s))
			continue;
		if (!locked)
			TRY(db_notification_meter(routing->tx, channel->name,
				(double)channel->rate_per_hour, (double)channel->burst, &routing->meter,
				err));
		locked = true;
		TRY(consider(routing, &events[i], repeat_after_s, err));
	}
	return locked ? db_notification_meter_set(routing->tx, channel->name, &routing->meter, err) : OK;
}

/* In one order for all servers, so that two do not wait for each other. */
static size_t
sorted(const struct notify_config *config, const struct notify_channel *out[NOTIFY_CHANNELS_MAX])
{
	for (size_t i = 0; i < config->channel_count; i++) {
		size_t at = i;

		for (; at > 0 && strcmp(out[at - 1]->name, config->channels[i].name) > 0; at--)
			out[at] = out[at - 1];
		out[at] = &config->channels[i];
	}
	return config->channel_count;
}

enum status
notify_route_events(struct app *app, const struct notify_config *config, bool *more, struct err *err)
{
	const struct notify_channel *channels[NOTIFY_CHANNELS_MAX];
	size_t channel_count = sorted(config, channels);
	own_struct(db_tx) tx = { NULL, NULL };
	own(db_event) events = mem_array(BATCH, sizeof(*events));
	size_t count;

	*more = false;
	if (events == NULL)
		return err_memory(err);
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_event_unrouted(&tx, BATCH, events, &count, err));
	if (count == 0)
		return OK;
	for (size_t i = 0; i < channel_count; i++) {
		struct routing routing = { .app = app, .channel = channels[i], .tx = &tx };

		TRY(route_channel(&routing, config, events, count, err));
	}
	TRY(db_event_routed(&tx, events, count, err));
	*more = count == BATCH;
	return db_tx_commit(&tx, err);
}

/* ---- summaries ---- */

static enum status
summarise(struct routing *routing, struct err *err)
{
	struct db_notification_meter *meter = &routing->meter;
	struct db_event event = { .kind = "notifications_suppressed", .at_s = meter->now_s };
	char since[TIME_TEXT_BYTES];

	time_format(since, meter->held_since_s);
	(void)snprintf(event.severity, sizeof(event.severity), "%s",
		notify_severity_name((enum notify_severity)meter->worst));
	TRY(notify_event_detail(&event, json_pack("{s:I, s:I, s:I, s:I, s:s}", "suppressed",
		(json_int_t)(meter->repeats + meter->over_rate + meter->over_queue), "repeats",
		(json_int_t)meter->repeats, "over_rate", (json_int_t)meter->over_rate, "over_queue",
		(json_int_t)meter->over_queue, "since", since), err));
	TRY(put(routing, &event, err));
	meter->repeats = meter->over_rate = meter->over_queue = meter->worst = meter->held_since_s = 0;
	return db_notification_meter_set(routing->tx, routing->channel->name, meter, err);
}

static enum status
summarise_channel(struct app *app, const struct notify_channel *channel, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	struct routing routing = { .app = app, .channel = channel, .tx = &tx };
	bool held;

	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_notification_held(&tx, channel->name, channel->summary_after_s, &held, err));
	if (!held)
		return OK;
	TRY(db_notification_meter(&tx, channel->name, (double)channel->rate_per_hour,
		(double)channel->burst, &routing.meter, err));
	/* Another server was quicker; or there is no room, then a later one says more. */
	if (routing.meter.held_since_s == 0 || routing.meter.waiting >= channel->queue_max)
		return OK;
	TRY(summarise(&routing, err));
	return db_tx_commit(&tx, err);
}

enum status
notify_route_summaries(struct app *app, const struct notify_config *config, struct err *err)
{
	for (size_t i = 0; i < config->channel_count; i++)
		TRY(summarise_channel(app, &config->channels[i], err));
	return OK;
}

/* ---- retention ---- */

enum status
notify_route_retention(struct app *app, bool *more, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	int64_t now_s = clock_wall_s(app->clock);
	size_t skipped;
	size_t deleted;

	*more = false;
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_event_skip(&tx, NEWS_S, RETENTION_PAGE, &skipped, err));
	TRY(db_retention_notifications(&tx, now_s - app->config.notification_retention_s,
		now_s - ORPHANS_S, RETENTION_PAGE, &deleted, err));
	*more = skipped == RETENTION_PAGE || deleted == RETENTION_PAGE;
	return db_tx_commit(&tx, err);
}
