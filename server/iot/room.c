#include "server/iot/room.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/cond.h"
#include "base/log.h"
#include "base/mem.h"
#include "ca/file.h"
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
#define POLICY_MAX_BYTES (256 * 1024)

/* ---- waking and waiting ---- */

/* With the lock. One turn waits at most: who takes it sees all that there is, and says if there is more. */
static void
give_turn(struct iot_room *room)
{
	room->turns = 1;
	if (room->stopping)
		(void)pthread_cond_broadcast(&room->turn);
	else
		(void)pthread_cond_signal(&room->turn);
}

/* With the lock. */
static void
set_urgent_due(struct iot_room *room, bool due)
{
	if (due && !room->urgent_due)
		iot_urgency_begin(&room->urgency, room->app->clock);
	if (!due && room->urgent_due)
		iot_urgency_end(&room->urgency);
	room->urgent_due = due;
}

void
iot_room_wake(struct iot_room *room, bool urgent)
{
	if (room == NULL)
		return;
	(void)pthread_mutex_lock(&room->lock);
	if (urgent && room->site_count > 0)
		set_urgent_due(room, true);
	if (urgent || room->site_count == 0) {
		room->wakes++;
		(void)pthread_cond_broadcast(&room->wake);
	}
	give_turn(room);
	(void)pthread_mutex_unlock(&room->lock);
}

bool
iot_room_urgent_due(struct iot_room *room)
{
	bool due;

	(void)pthread_mutex_lock(&room->lock);
	due = room->urgent_due;
	(void)pthread_mutex_unlock(&room->lock);
	return due;
}

uint64_t
iot_room_wakes(struct iot_room *room)
{
	uint64_t wakes;

	(void)pthread_mutex_lock(&room->lock);
	wakes = room->wakes;
	(void)pthread_mutex_unlock(&room->lock);
	return wakes;
}

void
iot_room_looked(struct iot_room *room, uint64_t wakes, bool more)
{
	(void)pthread_mutex_lock(&room->lock);
	if (more || room->wakes == wakes)
		set_urgent_due(room, more);
	(void)pthread_mutex_unlock(&room->lock);
}

void
iot_room_more(struct iot_room *room)
{
	(void)pthread_mutex_lock(&room->lock);
	give_turn(room);
	(void)pthread_mutex_unlock(&room->lock);
}

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

bool
iot_room_wait(struct iot_room *room, uint64_t *seen, int64_t wait_ms)
{
	struct timespec until = cond_in_ms(wait_ms);

	(void)pthread_mutex_lock(&room->lock);
	while (room->wakes == *seen && !room->stopping)
		if (pthread_cond_timedwait(&room->wake, &room->lock, &until) != 0)
			break;
	*seen = room->wakes;
	(void)pthread_mutex_unlock(&room->lock);
	return !room->stopping;
}

bool
iot_room_pause(struct iot_room *room, int64_t wait_ms)
{
	int64_t end_ms = clock_mono_ms(room->app->clock) + wait_ms;
	uint64_t seen = 0;
	int64_t left_ms;

	while ((left_ms = end_ms - clock_mono_ms(room->app->clock)) > 0)
		if (!iot_room_wait(room, &seen, left_ms))
			return false;
	return !room->stopping;
}

/* ---- sites ---- */

struct iot_site *
iot_room_site(struct iot_room *room, const char *name)
{
	if (name == NULL)
		return room->site_count == 1 ? &room->sites[0] : NULL;
	for (size_t i = 0; i < room->site_count; i++)
		if (strcmp(room->sites[i].target->name, name) == 0)
			return &room->sites[i];
	return NULL;
}

bool
iot_room_elsewhere(const struct iot_room *room)
{
	return room->others;
}

enum status
iot_room_has_all(struct iot_room *room, struct err *err)
{
	char elsewhere[DB_IOT_ELSEWHERE_BYTES];

	(void)pthread_mutex_lock(&room->lock);
	memcpy(elsewhere, room->elsewhere, sizeof(elsewhere));
	(void)pthread_mutex_unlock(&room->lock);
	return elsewhere[0] == '\0' ? OK : err_set(err, ERR_CONFLICT, "iot_target_elsewhere",
		"iot_targets_file: this server has not %s, which another has; ask that one", elsewhere);
}

void
iot_room_trouble(struct iot_room *room, char *out, size_t size)
{
	size_t len = 0;

	out[0] = '\0';
	(void)pthread_mutex_lock(&room->lock);
	if (room->elsewhere[0] != '\0')
		len = (size_t)snprintf(out, size, "the outbox is left to servers that have %s as well",
			room->elsewhere);
	(void)pthread_mutex_unlock(&room->lock);
	for (size_t i = 0; i < room->site_count && len < size; i++) {
		struct aws_health health;

		aws_client_health(room->sites[i].client, &health);
		if (health.breaker != AWS_BREAKER_CLOSED)
			len += (size_t)snprintf(out + len, size - len,
				"%s%s: calls are held back (breaker %s)", len > 0 ? "; " : "",
				room->sites[i].target->name, aws_breaker_name(health.breaker));
	}
}

struct iot
iot_site_calls(struct iot_site *site, enum aws_priority priority)
{
	return (struct iot){ .client = site->client, .priority = priority };
}

static bool
is_ensured(struct iot_site *site, const char *kind, const char *name)
{
	char key[sizeof(site->ensured[0])];
	bool found = false;

	(void)snprintf(key, sizeof(key), "%s:%s", kind, name);
	(void)pthread_mutex_lock(&site->lock);
	for (size_t i = 0; i < site->ensured_count && !found; i++)
		found = strcmp(site->ensured[i], key) == 0;
	(void)pthread_mutex_unlock(&site->lock);
	return found;
}

static void
note_ensured(struct iot_site *site, const char *kind, const char *name)
{
	(void)pthread_mutex_lock(&site->lock);
	if (site->ensured_count == IOT_ENSURED_MAX)
		site->ensured_count = 0; /* asked for anew, that is all */
	(void)snprintf(site->ensured[site->ensured_count++], sizeof(site->ensured[0]), "%s:%s", kind,
		name);
	(void)pthread_mutex_unlock(&site->lock);
}

void
iot_forget_ensured(struct iot_site *site)
{
	(void)pthread_mutex_lock(&site->lock);
	site->ensured_count = 0;
	(void)pthread_mutex_unlock(&site->lock);
}

static enum status
read_policy(struct bytes *out, const struct iot_target *target, const char *name, struct err *err)
{
	own_struct(buf) text = { .limit_bytes = POLICY_MAX_BYTES + 1 };
	own_struct(bytes) file = { NULL, 0 };
	char path[FILE_PATH_BYTES];
	enum status status;

	TRY(file_path(path, target->policies_dir, name, ".json", err));
	status = file_read(&file, path, POLICY_MAX_BYTES, err);
	if (status == ERR_NOT_FOUND)
		return err_set(err, ERR_ARGUMENT, "iot_policy_missing",
			"policy %s: neither IoT Core nor %s has it", name, path);
	TRY(status);
	TRY(buf_add(&text, file.data, file.len, err));
	TRY(buf_add(&text, "", 1, err));
	*out = buf_give(&text);
	return OK;
}

enum status
iot_ensure_policy(struct iot_site *site, struct iot *iot, const char *name, struct err *err)
{
	own_struct(iot_policy) found = { .name = "" };
	own_struct(bytes) document = { NULL, 0 };
	enum status status;

	if (is_ensured(site, "policy", name))
		return OK;
	status = iot_get_policy(iot, name, &found, err);
	if (status == ERR_NOT_FOUND) {
		TRY(read_policy(&document, site->target, name, err));
		status = iot_create_policy(iot, name, (const char *)document.data, NULL, err);
		if (status == ERR_CONFLICT && iot->failure.error == AWS_ERROR_EXISTS)
			status = OK;
		if (status == OK)
			log_event(LOG_INFO, "iot_policy_created", NULL, LOG_STR("policy", name),
				LOG_STR("target", site->target->name));
	}
	TRY(status);
	note_ensured(site, "policy", name);
	return OK;
}

enum status
iot_ensure_type(struct iot_site *site, struct iot *iot, const char *name, struct err *err)
{
	struct iot_made made;
	enum status status;

	if (is_ensured(site, "type", name))
		return OK;
	status = iot_create_thing_type(iot, name, NULL, NULL, 0, &made, err);
	if (status == ERR_CONFLICT && iot->failure.error == AWS_ERROR_EXISTS)
		status = OK;
	TRY(status);
	note_ensured(site, "type", name);
	return OK;
}

static enum status
make_group(struct iot *iot, const char *name, const char *description, struct err *err)
{
	struct iot_made made;
	enum status status = iot_create_thing_group(iot, name, NULL, description, &made, err);

	return status == ERR_CONFLICT && iot->failure.error == AWS_ERROR_EXISTS ? OK : status;
}

enum status
iot_ensure_group(struct iot_site *site, struct iot *iot, const char *name, struct err *err)
{
	if (is_ensured(site, "of", name)) /* "group" has its policy as well */
		return OK;
	TRY(make_group(iot, name, NULL, err));
	note_ensured(site, "of", name);
	return OK;
}

enum status
iot_ensure_quarantine(struct iot_site *site, struct iot *iot, struct err *err)
{
	const struct iot_target *target = site->target;
	char arn[IOT_ARN_BYTES];

	if (is_ensured(site, "group", target->quarantine_group))
		return OK;
	TRY(iot_ensure_policy(site, iot, target->quarantine_policy, err));
	TRY(make_group(iot, target->quarantine_group, "Devices that jitrca has quarantined", err));
	iot_target_group_arn(arn, target, target->quarantine_group);
	TRY(iot_attach_policy(iot, target->quarantine_policy, arn, err));
	note_ensured(site, "group", target->quarantine_group);
	return OK;
}

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
