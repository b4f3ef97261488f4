#include "server/notify/notify.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cond.h"
#include "base/log.h"
#include "base/mem.h"
#include "server/metrics.h"
#include "server/notify/event.h"
#include "server/notify/message.h"
#include "server/notify/route.h"
#include "server/notify/send.h"
#include "server/notify/watch.h"
#include "server/retry.h"

/* Notifications of the database's may be missed (their link was down): it is asked as often at least. */
#define TICK_MS 1000
#define WATCH_EVERY_MS 60000
#define RETENTION_EVERY_MS (10 * 60 * 1000)
/* Beyond what an attempt may take (send.h). */
#define LEASE_MARGIN_MS 60000
/* A receiver that is away is asked by one message, not by each that waits for it. */
#define PAUSE_FIRST_MS 1000
#define PAUSE_MOST_MS (5 * 60 * 1000)
#define RETRY_FIRST_MS 5000
#define RETRY_MOST_MS (60 * 60 * 1000)
/* What a receiver does not want is offered it so often: it may have been misconfigured for a while. */
#define REFUSED_MOST 8
#define DEPTHS_MAX 64

typedef struct db_notification db_notification;
OWNER(db_notification, mem_free)

struct post { /* a channel's thread */
	struct notify *notify;
	struct notify_sender sender;
	pthread_t thread;
	bool started;
	unsigned failures;    /* in a row, of reaching the receiver */
	int64_t not_before_ms;
};

struct notify {
	struct app *app;
	struct notify_config config;
	struct aws_transport *transport;
	struct post posts[NOTIFY_CHANNELS_MAX];
	pthread_t router;
	bool router_started;
	_Atomic bool stopping;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	uint64_t wakes; /* with lock */
};

/* ---- waking and waiting ---- */

void
notify_wake(struct notify *notify)
{
	if (notify == NULL)
		return;
	(void)pthread_mutex_lock(&notify->lock);
	notify->wakes++;
	(void)pthread_cond_broadcast(&notify->wake);
	(void)pthread_mutex_unlock(&notify->lock);
}

/* Waits for the next wake after *seen (updated), wait_ms, or a stop; false: it is over. */
static bool
wait_for(struct notify *notify, uint64_t *seen, int64_t wait_ms)
{
	struct timespec until = cond_in_ms(wait_ms);

	(void)pthread_mutex_lock(&notify->lock);
	while (notify->wakes == *seen && !notify->stopping)
		if (pthread_cond_timedwait(&notify->wake, &notify->lock, &until) != 0)
			break;
	*seen = notify->wakes;
	(void)pthread_mutex_unlock(&notify->lock);
	return !notify->stopping;
}

/* Half to one and a half of what doubling gives: they do not come back all at once. */
static int64_t
backoff_ms(int64_t first_ms, int64_t most_ms, int64_t failures)
{
	int64_t wait_ms = first_ms;
	uint16_t random;
	struct err ignored;

	while (failures-- > 0 && wait_ms < most_ms)
		wait_ms *= 2;
	if (wait_ms > most_ms)
		wait_ms = most_ms;
	if (entropy_fill(&ENTROPY_SYSTEM, (uint8_t *)&random, sizeof(random), &ignored) != OK)
		random = 0; /* a pause without jitter is one as well */
	return wait_ms / 2 + wait_ms * random / 65536;
}

/* ---- sending ---- */

static enum status
record_sent(struct post *post, const struct db_notification *row, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	TRY(db_tx_begin(&tx, post->notify->app->pool, err));
	TRY(db_notification_sent(&tx, row, err));
	if (post->failures > 0)
		TRY(db_notification_hasten(&tx, row->channel, err));
	TRY(db_tx_commit(&tx, err));
	post->failures = 0;
	metric_count(METRIC_NOTIFICATIONS, row->channel, "sent", 1);
	log_event(LOG_INFO, "notification_sent", NULL, LOG_STR("channel", row->channel),
		LOG_STR("notification", row->notification_id), LOG_STR("kind", row->kind),
		LOG_INT("attempts", row->attempts + 1));
	return OK;
}

static enum status
record_failed(struct post *post, const struct db_notification *row, const struct err *why, struct err *err)
{
	const struct notify_channel *channel = post->sender.channel;
	own_struct(db_tx) tx = { NULL, NULL };
	bool dead = row->age_s >= channel->give_up_after_s ||
		(why->status != ERR_UNAVAILABLE && row->attempts + 1 >= REFUSED_MOST);

	TRY(db_tx_begin(&tx, post->notify->app->pool, err));
	TRY(db_notification_fail(&tx, row, backoff_ms(RETRY_FIRST_MS, RETRY_MOST_MS, row->attempts), dead,
		why, err));
	TRY(db_tx_commit(&tx, err));
	if (strcmp(why->code, "notify_unreachable") == 0)
		post->not_before_ms = clock_mono_ms(post->notify->app->clock) +
			backoff_ms(PAUSE_FIRST_MS, PAUSE_MOST_MS, post->failures++);
	metric_count(METRIC_NOTIFICATIONS, row->channel, dead ? "dead" : "put_off", 1);
	log_event(dead ? LOG_ERROR : LOG_WARN, dead ? "notification_dead" : "notification_put_off", NULL,
		LOG_STR("channel", row->channel), LOG_STR("notification", row->notification_id),
		LOG_STR("kind", row->kind), LOG_STR("code", why->code), LOG_STR("why", why->text),
		LOG_INT("attempts", row->attempts + 1));
	return OK;
}

static enum status
lease(struct post *post, struct db_notification *row, bool *found, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	TRY(db_tx_begin(&tx, post->notify->app->pool, err));
	TRY(db_notification_lease(&tx, post->sender.channel->name,
		4 * post->sender.channel->timeout_ms + LEASE_MARGIN_MS, row, found, err));
	return *found ? db_tx_commit(&tx, err) : OK;
}

/* An attempt that a stop has ended counts as not made: the next server takes it at once. */
static enum status
let_go(struct post *post, const struct db_notification *row, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	TRY(db_tx_begin(&tx, post->notify->app->pool, err));
	TRY(db_notification_let_go(&tx, row, err));
	return db_tx_commit(&tx, err);
}

/* What cannot even be tried (no credentials, no memory) is put off like what failed. */
static enum status
post_one(struct post *post, bool *more, struct err *err)
{
	own(db_notification) row = mem_zalloc(sizeof(*row));
	own_struct(notify_message) message = { .json = NULL };
	enum status status;
	struct err why;

	*more = false;
	if (row == NULL)
		return err_memory(err);
	TRY(lease(post, row, more, err));
	if (!*more)
		return OK;
	status = notify_message_read(&message, row->body, &why);
	if (status == OK)
		status = notify_send(&post->sender, &message, row->body, &row->http_status, &why);
	if (status == OK)
		return record_sent(post, row, err);
	if (strcmp(why.code, "notify_stopped") == 0)
		return let_go(post, row, err);
	return record_failed(post, row, &why, err);
}

static void *
post_main(void *arg)
{
	struct post *post = arg;
	struct notify *notify = post->notify;
	bool failing = false;
	uint64_t seen = 0;
	int64_t wait_ms = 0;

	while (wait_for(notify, &seen, wait_ms)) {
		int64_t pause_ms = post->not_before_ms - clock_mono_ms(notify->app->clock);
		enum status status = OK;
		bool more = false;
		struct err err;

		wait_ms = TICK_MS;
		if (pause_ms > 0) {
			wait_ms = pause_ms < TICK_MS ? pause_ms : TICK_MS;
			continue;
		}
		status = post_one(post, &more, &err);
		if (status != OK && !failing)
			log_error(LOG_WARN, "notifications_wait", NULL, &err);
		failing = status != OK;
		if (more && !failing)
			wait_ms = 0;
	}
	return NULL;
}

/* ---- routing ---- */

static enum status
route(struct notify *notify, struct err *err)
{
	unsigned tries = 0;
	bool more = true;
	enum status status = OK;

	if (notify->config.channel_count == 0)
		return OK;
	while (more && !notify->stopping) {
		do
			status = notify_route_events(notify->app, &notify->config, &more, err);
		while (retry_due(&tries, status, err));
		TRY(status);
	}
	return notify_route_summaries(notify->app, &notify->config, err);
}

static enum status
upkeep(struct notify *notify, int64_t *watch_due_ms, int64_t *retention_due_ms, struct err *err)
{
	int64_t now_ms = clock_mono_ms(notify->app->clock);
	bool more = true;

	if (now_ms >= *retention_due_ms) {
		while (more && !notify->stopping)
			TRY(notify_route_retention(notify->app, &more, err));
		*retention_due_ms = now_ms + RETENTION_EVERY_MS;
	}
	if (now_ms >= *watch_due_ms) {
		TRY(notify_watch(notify->app, err));
		*watch_due_ms = now_ms + WATCH_EVERY_MS;
	}
	return route(notify, err);
}

static void *
router_main(void *arg)
{
	struct notify *notify = arg;
	int64_t retention_due_ms = 0;
	int64_t watch_due_ms = 0;
	bool failing = false;
	uint64_t seen = 0;

	do {
		struct err err;
		enum status status = upkeep(notify, &watch_due_ms, &retention_due_ms, &err);

		if (status != OK)
			metric_count(METRIC_JOB_FAILED, "notify", NULL, 1);
		if (status != OK && !failing)
			log_error(LOG_ERROR, "notify_failed", NULL, &err);
		failing = status != OK;
	} while (wait_for(notify, &seen, TICK_MS));
	return NULL;
}

/* ---- life ---- */

/* Keys of a form that is not what it seems are refused at the start, not at night. */
static enum status
check_keys(const struct notify_config *config, struct err *err)
{
	char signature[NOTIFY_SIGNATURE_BYTES];

	for (size_t i = 0; i < config->channel_count; i++) {
		const struct notify_channel *channel = &config->channels[i];

		if (channel->type == NOTIFY_WEBHOOK &&
			notify_webhook_sign(signature,
				(struct view){ channel->secret.data, channel->secret.len }, "", 0,
				view_text(""), err) != OK)
			return err_wrap(err, "notify_file: channels.%s", channel->name);
	}
	return OK;
}

enum status
notify_new(struct notify **out, struct app *app, struct err *err)
{
	struct notify *notify = mem_zalloc(sizeof(*notify));
	enum status status;

	if (notify == NULL)
		return err_memory(err);
	notify->app = app;
	(void)pthread_mutex_init(&notify->lock, NULL);
	cond_init(&notify->wake);
	status = notify_config_read(&notify->config, &app->config, err);
	if (status == OK)
		status = check_keys(&notify->config, err);
	if (status != OK) {
		notify_free(notify);
		return status;
	}
	*out = notify;
	return OK;
}

static enum status
start_thread(pthread_t *out, bool *started, void *(*run)(void *), void *arg, struct err *err)
{
	if (pthread_create(out, NULL, run, arg) != 0)
		return err_set(err, ERR_UNAVAILABLE, "thread", "cannot start a thread for notifications");
	*started = true;
	return OK;
}

static enum status
start_post(struct notify *notify, size_t i, struct err *err)
{
	const struct notify_channel *channel = &notify->config.channels[i];
	struct post *post = &notify->posts[i];
	const struct aws_credentials_config chain = {
		.profile = channel->profile[0] != '\0' ? channel->profile : NULL,
		.region = channel->region };

	post->notify = notify;
	post->sender = (struct notify_sender){ .channel = channel, .transport = notify->transport,
		.clock = notify->app->clock, .stopping = &notify->stopping };
	if (gethostname(post->sender.hostname, sizeof(post->sender.hostname) - 1) != 0 ||
		post->sender.hostname[0] == '\0')
		(void)snprintf(post->sender.hostname, sizeof(post->sender.hostname), "localhost");
	if (channel->type == NOTIFY_SNS)
		TRY(aws_credentials_new(&post->sender.credentials, &chain, err));
	return start_thread(&post->thread, &post->started, post_main, post, err);
}

enum status
notify_start(struct notify *notify, struct err *err)
{
	if (notify->config.channel_count > 0)
		TRY(aws_transport_new(&notify->transport, NOTIFY_CHANNELS_MAX, err));
	for (size_t i = 0; i < notify->config.channel_count; i++)
		TRY(start_post(notify, i, err));
	return start_thread(&notify->router, &notify->router_started, router_main, notify, err);
}

void
notify_stop(struct notify *notify)
{
	if (notify == NULL)
		return;
	notify->stopping = true;
	notify_wake(notify);
	if (notify->transport != NULL)
		aws_transport_stop(notify->transport);
	for (size_t i = 0; i < NOTIFY_CHANNELS_MAX; i++) {
		struct post *post = &notify->posts[i];

		if (post->sender.credentials != NULL)
			aws_credentials_stop(post->sender.credentials);
		if (post->started)
			(void)pthread_join(post->thread, NULL);
		post->started = false;
	}
	if (notify->router_started)
		(void)pthread_join(notify->router, NULL);
	notify->router_started = false;
}

void
notify_free(struct notify *notify)
{
	if (notify == NULL)
		return;
	for (size_t i = 0; i < NOTIFY_CHANNELS_MAX; i++)
		aws_credentials_free(notify->posts[i].sender.credentials);
	aws_transport_free(notify->transport);
	notify_config_free(&notify->config);
	(void)pthread_cond_destroy(&notify->wake);
	(void)pthread_mutex_destroy(&notify->lock);
	mem_free(notify);
}

const struct notify_config *
notify_config(const struct notify *notify)
{
	return &notify->config;
}

const struct notify_channel *
notify_channel(const struct notify *notify, const char *name)
{
	return notify_config_channel(&notify->config, name);
}

/* ---- for people ---- */

enum status
notify_test(struct app *app, struct db_tx *tx, const struct notify_channel *channel, const char *actor,
	struct db_notification *out, struct err *err)
{
	struct db_event event = { .kind = "notification_test", .severity = "info" };
	struct db_notification_meter meter;

	TRY(db_notification_meter(tx, channel->name, (double)channel->rate_per_hour,
		(double)channel->burst, &meter, err));
	if (meter.waiting >= channel->queue_max)
		return err_set(err, ERR_TOO_MANY, "notify_queue_full",
			"channel: %lld notifications wait for it, as many as may",
			(long long)meter.waiting);
	event.at_s = meter.now_s;
	TRY(notify_event_detail(&event, json_pack("{s:s}", "asked_by", actor), err));
	TRY(notify_message_make(out, &event, app->config.public_url, &ENTROPY_SYSTEM, err));
	(void)snprintf(out->channel, sizeof(out->channel), "%s", channel->name);
	return db_notification_put(tx, out, err);
}

static enum status
read_depths(struct app *app, struct db_notification_depth out[DEPTHS_MAX], size_t *count, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	TRY(db_tx_begin(&tx, app->pool, err));
	return db_notification_depths(&tx, out, DEPTHS_MAX, count, err);
}

enum status
notify_print_metrics(struct app *app, struct buf *out, struct err *err)
{
	struct db_notification_depth depths[DEPTHS_MAX];
	struct err away;
	size_t count = 0;

	if (app->notify == NULL || app->notify->config.channel_count == 0 ||
		read_depths(app, depths, &count, &away) != OK)
		return OK;
	TRY(buf_text(out, "# HELP jitrca_notifications_pending Deliveries that wait, and dead letters.\n"
			  "# TYPE jitrca_notifications_pending gauge\n", err));
	for (size_t i = 0; i < count; i++)
		TRY(buf_format(out, err, "jitrca_notifications_pending{channel=\"%s\",state=\"waiting\"} "
			"%lld\njitrca_notifications_pending{channel=\"%s\",state=\"dead\"} %lld\n",
			depths[i].channel, (long long)depths[i].waiting, depths[i].channel,
			(long long)depths[i].dead));
	return OK;
}
