#include "server/iot/mqtt.h"

#include <mosquitto.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "server/iot/jitr.h"
#include "server/iot/room.h"
#include "server/iot/service_identity.h"
#include "server/metrics.h"

#define TOPIC "$aws/events/certificates/registered/+"
#define SHARED_TOPIC "$share/jitrca/" TOPIC
#define KEEPALIVE_S 60
#define LOOP_MS 250
#define ELSEWHERE_MS 2000  /* until another server's end is noticed */
#define NOT_READY_MS 500   /* the outbox registers our certificate meanwhile */
#define REFRESH_MS 10000   /* the lead's transaction is kept from being idle; certificates end */
#define BACKOFF_FIRST_MS 500
#define BACKOFF_MOST_MS 30000
/* Events that cannot be committed are tried again in place so often: after that, the sweep finds them. */
#define COMMIT_TRIES 20
#define COMMIT_PAUSE_MS 250
#define STATE_BYTES 200

struct iot_mqtt {
	struct iot_site *site;
	pthread_t thread;
	bool started;
	_Atomic bool stopping;
	struct mosquitto *client;
	struct service_identity identity;
	bool has_identity;
	bool subscribed; /* of the callbacks, on the same thread */
	bool lost;
	struct jitr_event heard[JITR_EVENTS_MAX]; /* acknowledged, and not on record yet */
	size_t heard_count;
	int64_t backoff_ms;
	uint64_t wakes;
	_Atomic int64_t turned_ms; /* monotonic: subscribed by then, and read from; 0: never */
	pthread_mutex_t lock; /* for state */
	char state[STATE_BYTES];
};

static void
set_state(struct iot_mqtt *mqtt, const char *text)
{
	bool news;

	(void)pthread_mutex_lock(&mqtt->lock);
	news = strcmp(mqtt->state, text) != 0;
	(void)snprintf(mqtt->state, sizeof(mqtt->state), "%s", text);
	(void)pthread_mutex_unlock(&mqtt->lock);
	if (news)
		log_event(LOG_INFO, "iot_mqtt", NULL, LOG_STR("target", mqtt->site->target->name),
			LOG_STR("state", text));
}

void
iot_mqtt_state(struct iot_mqtt *mqtt, char *out, size_t size)
{
	out[0] = '\0';
	if (mqtt == NULL)
		return;
	(void)pthread_mutex_lock(&mqtt->lock);
	(void)snprintf(out, size, "%s", mqtt->state);
	(void)pthread_mutex_unlock(&mqtt->lock);
}

int64_t
iot_mqtt_silent_ms(struct iot_mqtt *mqtt)
{
	int64_t turned_ms = mqtt != NULL ? mqtt->turned_ms : 0;

	return turned_ms == 0 ? -1 : clock_mono_ms(mqtt->site->room->app->clock) - turned_ms;
}

/* Not the room's wait alone: our own stop ends it too. */
static bool
pause_ms(struct iot_mqtt *mqtt, int64_t ms)
{
	int64_t end_ms = clock_mono_ms(mqtt->site->room->app->clock) + ms;
	int64_t left_ms;

	while (!mqtt->stopping &&
		(left_ms = end_ms - clock_mono_ms(mqtt->site->room->app->clock)) > 0)
		if (!iot_room_wait(mqtt->site->room, &mqtt->wakes, left_ms))
			return false;
	return !mqtt->stopping;
}

/* ---- what the library calls, from within mosquitto_loop ---- */

static void
on_connect(struct mosquitto *client, void *arg, int rc)
{
	struct iot_mqtt *mqtt = arg;

	if (rc != 0) {
		mqtt->lost = true;
		set_state(mqtt, mosquitto_connack_string(rc));
		return;
	}
	if (mosquitto_subscribe(client, NULL, mqtt->site->target->mqtt.shared ? SHARED_TOPIC : TOPIC,
		    1) != MOSQ_ERR_SUCCESS)
		mqtt->lost = true;
}

static void
on_subscribe(struct mosquitto *client, void *arg, int mid, int count, const int *granted)
{
	struct iot_mqtt *mqtt = arg;

	(void)client;
	(void)mid;
	mqtt->subscribed = count > 0 && granted[0] <= 2;
	mqtt->lost |= !mqtt->subscribed;
	set_state(mqtt, mqtt->subscribed ? "connected" : "the subscription was refused");
	if (mqtt->subscribed)
		mqtt->backoff_ms = BACKOFF_FIRST_MS;
}

static void
on_disconnect(struct mosquitto *client, void *arg, int rc)
{
	struct iot_mqtt *mqtt = arg;

	(void)client;
	(void)rc;
	mqtt->lost = true;
}

/* Until it is committed; what then is not, the sweep finds. */
static enum status
insist(struct iot_mqtt *mqtt, const struct jitr_event *events, size_t count, struct err *err)
{
	enum status status = OK;

	for (unsigned tries = 0; tries < COMMIT_TRIES; tries++) {
		status = jitr_accept(mqtt->site, events, count, JITR_MQTT, err);
		if (status != ERR_UNAVAILABLE || !pause_ms(mqtt, COMMIT_PAUSE_MS))
			break;
	}
	return status;
}

/*
 * What was heard meanwhile, in one transaction: a fleet that comes to life is hundreds a second. One that
 * cannot be recorded takes no other with it.
 */
static void
accept_heard(struct iot_mqtt *mqtt)
{
	size_t count = mqtt->heard_count;
	struct err err;
	enum status status;

	mqtt->heard_count = 0;
	if (count == 0)
		return;
	status = insist(mqtt, mqtt->heard, count, &err);
	for (size_t i = 0; status != OK && i < count; i++)
		if ((count == 1 || status == ERR_UNAVAILABLE ||
			    insist(mqtt, &mqtt->heard[i], 1, &err) != OK))
			log_error(LOG_ERROR, "jitr_event_lost", NULL, &err);
}

/*
 * libmosquitto 2.0 has sent the PUBACK by now and offers no way to hold it back: so the events are tried
 * until they are committed. What a crash in between loses, the device's next knock or the sweep brings.
 */
static void
on_message(struct mosquitto *client, void *arg, const struct mosquitto_message *message)
{
	struct iot_mqtt *mqtt = arg;
	struct view payload = { message->payload,
		message->payloadlen > 0 ? (size_t)message->payloadlen : 0 };

	(void)client;
	if (mqtt->heard_count == COUNT_OF(mqtt->heard))
		accept_heard(mqtt);
	if (jitr_hear(&mqtt->heard[mqtt->heard_count], mqtt->site, payload, JITR_MQTT))
		mqtt->heard_count++;
}

/* ---- being let in ---- */

static enum status
ca_is_registered(struct iot_mqtt *mqtt, struct db_tx *tx, bool *registered, struct err *err)
{
	struct db_iot_ca ca;
	enum status status = db_iot_ca_find(tx, mqtt->site->target->name,
		mqtt->site->room->app->issuing->issuer_id, &ca, err);

	*registered = status == OK && strcmp(ca.status, "ACTIVE") == 0;
	return status == ERR_NOT_FOUND ? OK : status;
}

/* Our certificate must be ACTIVE there with its policy: the outbox sees to that, as for any other. */
static enum status
is_let_in(struct iot_mqtt *mqtt, bool *ready, struct err *err)
{
	struct iot_site *site = mqtt->site;
	own_struct(db_tx) tx = { NULL, NULL };
	struct db_iot_certificate seen;
	char key[DB_OUTBOX_KEY_BYTES];
	char id[IOT_ID_BYTES];
	bool registered;
	bool pending;
	bool found;

	*ready = false;
	TRY(db_tx_begin(&tx, site->room->app->pool, err));
	TRY(ca_is_registered(mqtt, &tx, &registered, err));
	if (!registered) {
		set_state(mqtt, "waits: the issuing CA is not registered (jitrca iot register-ca)");
		return OK;
	}
	TRY(db_iot_certificate_find(&tx, site->target->name, mqtt->identity.sha256, &seen, &found,
		err));
	*ready = found && strcmp(seen.seen, "ACTIVE") == 0;
	if (*ready)
		return OK;
	hex_encode(id, mqtt->identity.sha256, sizeof(mqtt->identity.sha256));
	(void)snprintf(key, sizeof(key), "certificate/%s", id);
	TRY(db_outbox_pending(&tx, key, &pending, err));
	set_state(mqtt, "waits: its certificate is being registered");
	if (pending)
		return OK;
	TRY(db_outbox_put_certificate(&tx, id, "service", OUTBOX_GIVES, err));
	TRY(db_outbox_notify(&tx, OUTBOX_GIVES, err));
	return db_tx_commit(&tx, err);
}

/* ---- a connection ---- */

/*
 * Shared subscriptions: one session for each server, known by host and port, that it finds again after a
 * restart. Else one for all: whoever leads takes it over.
 */
static void
client_id(char *out, size_t size, const struct iot_site *site)
{
	char host[256] = "";
	char *at = out;

	if (!site->target->mqtt.shared) {
		(void)snprintf(out, size, "%s", SERVICE_IDENTITY);
		return;
	}
	(void)gethostname(host, sizeof(host) - 1);
	(void)snprintf(out, size, "%s-%.64s-%u", SERVICE_IDENTITY, host,
		(unsigned)site->room->app->config.https.port);
	for (; *at != '\0'; at++)
		if (strchr("+#/$", *at) != NULL)
			*at = '-';
}

static int
no_passphrase(char *out, int size, int for_writing, void *arg)
{
	(void)size;
	(void)for_writing;
	(void)arg;
	out[0] = '\0';
	return 0;
}

static int
set_up(struct iot_mqtt *mqtt)
{
	const struct iot_target *target = mqtt->site->target;
	const char *ca_file = target->mqtt.ca_file[0] != '\0' ? target->mqtt.ca_file : NULL;
	int rc;

	mosquitto_connect_callback_set(mqtt->client, on_connect);
	mosquitto_subscribe_callback_set(mqtt->client, on_subscribe);
	mosquitto_disconnect_callback_set(mqtt->client, on_disconnect);
	mosquitto_message_callback_set(mqtt->client, on_message);
	rc = mosquitto_tls_set(mqtt->client, ca_file, ca_file == NULL ? "/etc/ssl/certs" : NULL,
		mqtt->identity.path, mqtt->identity.path, no_passphrase);
	if (rc == MOSQ_ERR_SUCCESS)
		rc = mosquitto_tls_opts_set(mqtt->client, 1, "tlsv1.2", NULL);
	if (rc == MOSQ_ERR_SUCCESS)
		rc = mosquitto_connect(mqtt->client, target->mqtt.host, (int)target->mqtt.port,
			KEEPALIVE_S);
	return rc;
}

/* Until it ends: lost, stopped, or the lead or the certificate is due. refresh may end it. */
static void
converse(struct iot_mqtt *mqtt, bool (*refresh)(struct iot_mqtt *mqtt, void *arg), void *arg)
{
	const struct clock *clock = mqtt->site->room->app->clock;
	int64_t refresh_ms = clock_mono_ms(clock) + REFRESH_MS;

	while (!mqtt->stopping && !mqtt->lost) {
		size_t before = mqtt->heard_count;
		/* One packet a call; with some in hand it only looks whether there are more. */
		int rc = mosquitto_loop(mqtt->client, before > 0 ? 0 : LOOP_MS, 1);

		if (rc != MOSQ_ERR_SUCCESS || mqtt->heard_count == before)
			accept_heard(mqtt);
		if (rc != MOSQ_ERR_SUCCESS) {
			if (mqtt->subscribed)
				set_state(mqtt, mosquitto_strerror(rc));
			return;
		}
		if (mqtt->subscribed)
			mqtt->turned_ms = clock_mono_ms(clock);
		if (clock_mono_ms(clock) < refresh_ms)
			continue;
		if (!refresh(mqtt, arg))
			break;
		refresh_ms = clock_mono_ms(clock) + REFRESH_MS;
	}
	accept_heard(mqtt);
}

static void
connect_and_converse(struct iot_mqtt *mqtt, bool (*refresh)(struct iot_mqtt *mqtt, void *arg),
	void *arg)
{
	char id[128];
	int rc;

	client_id(id, sizeof(id), mqtt->site);
	mqtt->lost = mqtt->subscribed = false;
	mqtt->client = mosquitto_new(id, false, mqtt);
	if (mqtt->client == NULL) {
		set_state(mqtt, "out of memory");
		return;
	}
	rc = set_up(mqtt);
	if (rc == MOSQ_ERR_SUCCESS)
		converse(mqtt, refresh, arg);
	else
		set_state(mqtt, mosquitto_strerror(rc));
	(void)mosquitto_disconnect(mqtt->client);
	mosquitto_destroy(mqtt->client);
	mqtt->client = NULL;
}

static void
back_off(struct iot_mqtt *mqtt)
{
	uint32_t random = 0;
	struct err err;

	if (entropy_fill(&ENTROPY_SYSTEM, (uint8_t *)&random, sizeof(random), &err) != OK)
		random = 0;
	(void)pause_ms(mqtt, mqtt->backoff_ms / 2 +
		(int64_t)(random % (uint32_t)(mqtt->backoff_ms / 2 + 1)));
	mqtt->backoff_ms = mqtt->backoff_ms * 2 < BACKOFF_MOST_MS ? mqtt->backoff_ms * 2 :
		BACKOFF_MOST_MS;
}

/* ---- the lead ---- */

static enum status
take_lead(struct iot_mqtt *mqtt, struct db_tx *tx, bool *lead, struct err *err)
{
	char what[DB_TARGET_BYTES + 8];

	*lead = true;
	if (mqtt->site->target->mqtt.shared)
		return OK;
	(void)snprintf(what, sizeof(what), "mqtt/%s", mqtt->site->target->name);
	if (tx->conn == NULL)
		TRY(db_tx_begin(tx, mqtt->site->room->app->pool, err));
	return db_iot_lead(tx, what, lead, err);
}

static bool
refresh(struct iot_mqtt *mqtt, void *arg)
{
	struct err err;
	bool lead;

	if (service_identity_due(&mqtt->identity, clock_wall_s(mqtt->site->room->app->clock))) {
		mqtt->has_identity = false;
		return false;
	}
	return take_lead(mqtt, arg, &lead, &err) == OK && lead;
}

static enum status
serve(struct iot_mqtt *mqtt, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	bool ready;
	bool lead;

	TRY(take_lead(mqtt, &tx, &lead, err));
	if (!lead) {
		set_state(mqtt, "elsewhere");
		(void)pause_ms(mqtt, ELSEWHERE_MS);
		return OK;
	}
	if (!mqtt->has_identity)
		TRY(service_identity_get(&mqtt->identity, mqtt->site->room->app, err));
	mqtt->has_identity = true;
	TRY(is_let_in(mqtt, &ready, err));
	if (!ready) {
		(void)pause_ms(mqtt, NOT_READY_MS);
		return OK;
	}
	connect_and_converse(mqtt, refresh, &tx);
	/* It may have been revoked or replaced: look again before the next try. */
	mqtt->has_identity = false;
	if (!mqtt->stopping)
		back_off(mqtt);
	return OK;
}

static void *
mqtt_main(void *arg)
{
	struct iot_mqtt *mqtt = arg;

	while (!mqtt->stopping) {
		struct err err;

		if (serve(mqtt, &err) != OK) {
			set_state(mqtt, err.text);
			metric_count(METRIC_JOB_FAILED, "mqtt", NULL, 1);
			back_off(mqtt);
		}
	}
	return NULL;
}

enum status
iot_mqtt_start(struct iot_mqtt **out, struct iot_site *site, struct err *err)
{
	struct iot_mqtt *mqtt = mem_zalloc(sizeof(*mqtt));

	if (mqtt == NULL)
		return err_memory(err);
	(void)mosquitto_lib_init(); /* counts; once is enough for the process */
	mqtt->site = site;
	mqtt->backoff_ms = BACKOFF_FIRST_MS;
	(void)pthread_mutex_init(&mqtt->lock, NULL);
	if (pthread_create(&mqtt->thread, NULL, mqtt_main, mqtt) != 0) {
		iot_mqtt_free(mqtt);
		return err_set(err, ERR_UNAVAILABLE, "thread", "cannot start a thread for MQTT");
	}
	mqtt->started = true;
	*out = mqtt;
	return OK;
}

void
iot_mqtt_stop(struct iot_mqtt *mqtt)
{
	if (mqtt == NULL || !mqtt->started)
		return;
	mqtt->stopping = true;
	iot_room_wake(mqtt->site->room, true);
	(void)pthread_join(mqtt->thread, NULL);
	mqtt->started = false;
}

void
iot_mqtt_free(struct iot_mqtt *mqtt)
{
	if (mqtt == NULL)
		return;
	(void)pthread_mutex_destroy(&mqtt->lock);
	mem_free(mqtt);
}
