#include "server/iot/workers.h"

#include <string.h>

#include "base/cond.h"
#include "base/log.h"
#include "base/mem.h"
#include "server/iot/aws_credentials.h"
#include "server/iot/mqtt.h"
#include "server/iot/outbox.h"
#include "server/iot/prereg.h"
#include "server/iot/walk.h"
#include "server/metrics.h"

/* Notifications may be missed (their link was down): the outbox is looked at as often at least. */
#define POLL_MS 500
#define FAILURE_PAUSE_MS 1000
/* The second of those who wait for what is urgent: the others look. */
#define POLL_SELDOM_MS 5000
/* While nothing answers, one call as often finds out when that ends. */
#define PROBE_MS 1000
#define DISCARD_MS 5000
/* So late it is seen at most that another server has a target that is new to the database. */
#define SERVE_MS 5000
#define SHARE_LEAST 4

/* ---- waiting ---- */

/* Until it is somebody's turn to look into the outbox, and this worker has it. */
static void
wait_turn(struct iot_room *room)
{
	const struct clock *clock = room->app->clock;
	int64_t left_ms;

	(void)pthread_mutex_lock(&room->lock);
	room->idle++;
	while (room->turns == 0 && !room->stopping &&
		(left_ms = room->look_ms - clock_mono_ms(clock)) > 0) {
		struct timespec until = cond_in_ms(left_ms);

		(void)pthread_cond_timedwait(&room->turn, &room->lock, &until);
	}
	room->idle--;
	room->turns = 0;
	room->look_ms = clock_mono_ms(clock) + POLL_MS;
	(void)pthread_mutex_unlock(&room->lock);
}

/*
 * While others have nothing to do, a worker leaves them their share of what is there; not less than what
 * makes it worth a transaction for all.
 */
static size_t
share(struct iot_room *room)
{
	size_t idle;
	size_t rows;

	(void)pthread_mutex_lock(&room->lock);
	idle = room->idle;
	(void)pthread_mutex_unlock(&room->lock);
	rows = (IOT_BATCH + idle) / (idle + 1);
	return rows > SHARE_LEAST ? rows : SHARE_LEAST;
}

/* ---- the workers ---- */

/* Whether no target answers: then rows stay where they are instead of failing by the thousand. */
static bool
all_away(struct iot_room *room)
{
	for (size_t i = 0; i < room->site_count; i++) {
		struct aws_health health;

		aws_client_health(room->sites[i].client, &health);
		if (health.breaker == AWS_BREAKER_CLOSED)
			return false;
	}
	return true;
}

/* What takes something away, and was put off because nobody answered, is not put off any longer. */
static enum status
hasten(struct iot_room *room, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	TRY(db_tx_begin(&tx, room->app->pool, err));
	TRY(db_outbox_hasten(&tx, err));
	TRY(db_tx_commit(&tx, err));
	iot_room_wake(room, true);
	return OK;
}

/* Describes nothing that matters: the breaker alone wants to know whether there is an answer. */
static enum status
probe(struct iot_room *room, struct err *err)
{
	enum status status = OK;
	bool answers = false;

	/* Nobody else begins with anything before what is urgent is due. */
	iot_urgency_begin(&room->urgency, room->app->clock);
	for (size_t i = 0; i < room->site_count; i++) {
		struct iot iot = iot_site_calls(&room->sites[i], AWS_PRIORITY_URGENT);
		char host[IOT_HOST_BYTES];
		struct err ignored;

		iot.timeout_ms = PROBE_MS;
		if (iot_describe_endpoint(&iot, "iot:Data-ATS", host, &ignored) != OK)
			continue;
		answers = true;
		log_event(LOG_INFO, "iot_answers_again", NULL,
			LOG_STR("target", room->sites[i].target->name));
	}
	if (answers)
		status = hasten(room, err);
	iot_urgency_end(&room->urgency);
	return status;
}

/* Says which targets are served here, and sees which others there are. */
static enum status
serve(struct iot_room *room, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	const char *names[IOT_TARGETS_MAX];
	char elsewhere[DB_IOT_ELSEWHERE_BYTES];
	bool changed;

	for (size_t i = 0; i < room->targets.count; i++)
		names[i] = room->targets.at[i].name;
	TRY(db_tx_begin(&tx, room->app->pool, err));
	TRY(db_iot_targets_serve(&tx, names, room->targets.count, elsewhere, err));
	TRY(db_tx_commit(&tx, err));
	room->serve_ms = clock_mono_ms(room->app->clock) + SERVE_MS;
	(void)pthread_mutex_lock(&room->lock);
	changed = strcmp(room->elsewhere, elsewhere) != 0;
	memcpy(room->elsewhere, elsewhere, sizeof(room->elsewhere));
	(void)pthread_mutex_unlock(&room->lock);
	room->others = elsewhere[0] != '\0';
	if (changed)
		log_event(room->others ? LOG_WARN : LOG_INFO, "iot_targets_elsewhere", NULL,
			LOG_STR("targets", elsewhere));
	return OK;
}

static enum status
work_once(struct iot_thread *thread, size_t *found, struct err *err)
{
	struct iot_room *room = thread->room;

	*found = 0;
	if (thread == &room->workers[0] && clock_mono_ms(room->app->clock) >= room->serve_ms)
		TRY(serve(room, err));
	if (room->others) {
		iot_room_looked(room, iot_room_wakes(room), false); /* nothing is urgent here */
		return OK;
	}
	if (room->site_count == 0)
		return thread == &room->workers[0] ? iot_outbox_discard(room, found, err) : OK;
	if (all_away(room))
		return thread == &room->workers[0] ? probe(room, err) : OK;
	return iot_outbox_round(room, thread->least_urgent, share(room), found, err);
}

static void *
worker_main(void *arg)
{
	struct iot_thread *thread = arg;
	struct iot_room *room = thread->room;
	bool failing = false;
	uint64_t seen = 0;

	while (!room->stopping) {
		size_t found;
		struct err err;
		enum status status = work_once(thread, &found, &err);

		if (status != OK)
			metric_count(METRIC_JOB_FAILED, "outbox", NULL, 1);
		if (status != OK && !failing)
			log_error(LOG_ERROR, "outbox_failed", NULL, &err);
		failing = status != OK;
		if (found > 0 && !failing)
			continue;
		if (!failing && room->site_count > 0 && thread->least_urgent != OUTBOX_TAKES &&
			!all_away(room))
			wait_turn(room);
		else if (!iot_room_wait(room, &seen, failing ? FAILURE_PAUSE_MS :
			    room->site_count == 0 ? DISCARD_MS : all_away(room) ? PROBE_MS :
			    thread == &room->workers[0] ? POLL_MS : POLL_SELDOM_MS))
			break;
	}
	return NULL;
}

static enum status
start_thread(struct iot_thread *thread, struct iot_room *room, int least_urgent,
	void *(*run)(void *arg), struct err *err)
{
	thread->room = room;
	thread->least_urgent = least_urgent;
	if (pthread_create(&thread->thread, NULL, run, thread) != 0)
		return err_set(err, ERR_UNAVAILABLE, "thread", "cannot start a thread for IoT Core");
	thread->started = true;
	return OK;
}

/* ---- life ---- */

static enum status
start_site(struct iot_site *site, struct iot_room *room, const struct iot_target *target,
	struct err *err)
{
	struct aws_credentials_config chain = {
		.profile = target->profile[0] != '\0' ? target->profile : NULL,
		.region = target->region };
	struct aws_client_config config = { .name = target->name, .region = target->region,
		.endpoint_url = target->endpoint_url[0] != '\0' ? target->endpoint_url : NULL,
		.ca_file = target->ca_file[0] != '\0' ? target->ca_file : NULL };

	site->target = target;
	site->room = room;
	(void)pthread_mutex_init(&site->lock, NULL);
	room->site_count++; /* from here on it is freed */
	TRY(iot_pacer_new(&site->pacer, target->name, room->app->pool, target->quotas,
		target->quota_count, &room->urgency, room->app->clock, err));
	TRY(aws_credentials_new(&site->credentials, &chain, err));
	config.credentials = site->credentials;
	config.pacer = iot_pacer_aws(site->pacer);
	TRY(aws_client_new(&site->client, &config, err));
	return target->mqtt.host[0] != '\0' ? iot_mqtt_start(&site->mqtt, site, err) : OK;
}

enum status
iot_room_new(struct iot_room **out, struct app *app, struct err *err)
{
	struct iot_room *room = mem_zalloc(sizeof(*room));
	enum status status;

	if (room == NULL)
		return err_memory(err);
	room->app = app;
	(void)pthread_mutex_init(&room->lock, NULL);
	cond_init(&room->wake);
	cond_init(&room->turn);
	status = iot_targets_read(&room->targets, &app->config, err);
	if (status != OK) {
		iot_room_free(room);
		return status;
	}
	*out = room;
	return OK;
}

enum status
iot_room_start(struct iot_room *room, struct err *err)
{
	size_t workers = room->targets.count == 0 ? 1 : IOT_WORKERS;

	for (size_t i = 0; i < room->targets.count; i++)
		TRY(start_site(&room->sites[i], room, &room->targets.at[i], err));
	room->others = true; /* until it is known, nothing is anybody's but another's */
	for (size_t i = 0; i < workers; i++)
		TRY(start_thread(&room->workers[i], room,
			i < IOT_URGENT_WORKERS ? OUTBOX_TAKES : OUTBOX_UPKEEP, worker_main, err));
	if (room->targets.count == 0)
		return OK;
	TRY(iot_prereg_start(&room->prereg, room, err));
	return start_thread(&room->walker, room, 0, iot_walk_main, err);
}

void
iot_room_stop(struct iot_room *room)
{
	if (room == NULL)
		return;
	iot_prereg_stop(room->prereg);
	room->stopping = true;
	iot_room_wake(room, true);
	for (size_t i = 0; i < room->site_count; i++) {
		iot_mqtt_stop(room->sites[i].mqtt);
		if (room->sites[i].client != NULL)
			aws_client_stop(room->sites[i].client);
		if (room->sites[i].credentials != NULL)
			aws_credentials_stop(room->sites[i].credentials);
	}
	for (size_t i = 0; i < IOT_WORKERS; i++)
		if (room->workers[i].started)
			(void)pthread_join(room->workers[i].thread, NULL);
	if (room->walker.started)
		(void)pthread_join(room->walker.thread, NULL);
	for (size_t i = 0; i < IOT_WORKERS; i++)
		room->workers[i].started = false;
	room->walker.started = false;
}

void
iot_room_free(struct iot_room *room)
{
	if (room == NULL)
		return;
	for (size_t i = 0; i < room->site_count; i++) {
		struct iot_site *site = &room->sites[i];

		iot_mqtt_free(site->mqtt);
		aws_client_free(site->client);
		aws_credentials_free(site->credentials);
		iot_pacer_free(site->pacer);
		(void)pthread_mutex_destroy(&site->lock);
	}
	iot_prereg_free(room->prereg);
	iot_targets_free(&room->targets);
	(void)pthread_cond_destroy(&room->wake);
	(void)pthread_cond_destroy(&room->turn);
	(void)pthread_mutex_destroy(&room->lock);
	mem_free(room);
}
