#include "server/iotcore/plugin/plugin.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/entropy.h"
#include "base/mem.h"

#define STALE_MS 60000
#define REGISTER_PER_S 1000
#define REGISTER_PER_ADDRESS_PER_S 500
#define STRANGERS_PER_ADDRESS_PER_S 50
#define COMPLAINTS_PER_S 20
#define NOTICES_MAX 100000
#define SWEEP_PER_TICK 500 /* some 2 ms of the broker's time */
#define LOG_EVERY_MS 100
#define LOG_READ_BYTES 16384
#define URL_MAX_BYTES 4096

#define VISIBLE __attribute__((visibility("default")))

/*
 * Log: base/log writes whole lines into a pipe, from both threads; ticks hand them to the broker,
 * whose own function is for its own thread only.
 */

static void
log_line(char *line)
{
	int level = MOSQ_LOG_INFO;

	if (strstr(line, "\"level\":\"error\"") != NULL)
		level = MOSQ_LOG_ERR;
	else if (strstr(line, "\"level\":\"warn\"") != NULL)
		level = MOSQ_LOG_WARNING;
	else if (strstr(line, "\"level\":\"debug\"") != NULL)
		level = MOSQ_LOG_DEBUG;
	mosquitto_log_printf(level, "%s", line);
}

static void
log_drain(struct plugin *p)
{
	char text[LOG_READ_BYTES + 1];
	ssize_t len = read(p->log_fd, text, LOG_READ_BYTES);
	char *line = text;
	char *end;

	if (len <= 0)
		return;
	text[len] = '\0';
	/* A line that does not end in what was read is shown in two parts: a pipe keeps writes
	 * whole. */
	for (; (end = strchr(line, '\n')) != NULL; line = end + 1) {
		*end = '\0';
		log_line(line);
	}
	if (*line != '\0')
		log_line(line);
}

static enum status
log_begin(struct plugin *p, struct err *err)
{
	int fds[2];

	/* Not blocking at either end: a log that is full loses lines, and nobody waits for it. */
	if (pipe2(fds, O_NONBLOCK | O_CLOEXEC) != 0)
		return err_set(err, ERR_UNAVAILABLE, "log_pipe", "pipe: errno %d", errno);
	p->log_fd = fds[0];
	p->log_sink_fd = fds[1];
	log_setup(p->log_sink_fd, p->options.log_level, "broker");
	return OK;
}

/*
 * What the parts use
 */

int64_t
plugin_now_s(void)
{
	return clock_wall_s(&CLOCK_SYSTEM);
}

uint64_t
plugin_hash(const struct plugin *plugin, const void *data, size_t len)
{
	return siphash(&plugin->key, data, len);
}

void
plugin_publish(struct plugin *plugin, const struct event *event)
{
	(void)plugin;
	if (mosquitto_broker_publish_copy(NULL, event->topic, (int)event->payload.len,
		    event->payload.data, 1, false, NULL) != MOSQ_ERR_SUCCESS)
		log_event(LOG_ERROR, "event_lost", NULL, LOG_STR("topic", event->topic));
}

void
plugin_complain(struct plugin *plugin, const char *event, const char *client_id,
	const char *address, const char *certificate_hex, const char *detail)
{
	if (!limiter_pass(&plugin->complain, 0, clock_mono_ms(&CLOCK_SYSTEM))) {
		plugin->complaints_left_out++;
		return;
	}
	log_event(LOG_WARN, event, NULL, LOG_STR("client_id", client_id),
		LOG_STR("address", address), LOG_STR("certificate_id", certificate_hex),
		LOG_STR("detail", detail), LOG_INT("left_out", plugin->complaints_left_out));
	plugin->complaints_left_out = 0;
}

bool
plugin_remember(struct session ***list, size_t *count, size_t *capacity, struct session *session)
{
	if (*count == *capacity) {
		size_t wanted = *capacity == 0 ? 64 : *capacity * 2;
		struct session **more = mem_realloc(*list, wanted * sizeof(struct session *));

		if (more == NULL)
			return false;
		*list = more;
		*capacity = wanted;
	}
	(*list)[(*count)++] = session;
	return true;
}

/*
 * Ticks: the broker calls once per round of its loop
 */

/* Notes whom to cut; cutting changes the tables that are being walked. */
static void
consider(void *arg, struct session *session)
{
	struct plugin *p = arg;

	if (!session->kicked && !session_may_stay(p->sessions, session, plugin_now_s()))
		session->kicked =
			plugin_remember(&p->cut, &p->cut_count, &p->cut_capacity, session);
}

static void
cut_sessions(struct plugin *p)
{
	for (size_t i = 0; i < p->cut_count; i++) {
		struct session *session = p->cut[i];

		if (session->ended)
			continue; /* by the name of another of its certificate */
		session->reason =
			session->grant != NULL && session->grant->status == REGISTRY_ACTIVE
				? "FORBIDDEN_ACCESS"
				: "SERVER_INITIATED_DISCONNECT";
		log_event(LOG_INFO, "session_cut", NULL, LOG_STR("client_id", session->client_id),
			LOG_STR("certificate_id", session->certificate_hex));
		/*
		 * Of a certificate that still is ACTIVE only this client id, which is connected: we
		 * have not seen it leave. With its will: without one, 2.0 uses freed memory should
		 * it be offline.
		 */
		if (session->grant != NULL && session->grant->status == REGISTRY_ACTIVE)
			(void)mosquitto_kick_client_by_clientid(session->client_id, true);
		else
			(void)mosquitto_kick_client_by_username(session->certificate_hex, true);
	}
	p->cut_count = 0;
}

static void
say_again(void *arg, struct session *session)
{
	struct plugin *p = arg;
	char thing[DB_IOTCORE_KEY_BYTES];
	struct event_session told = session_event(session, thing);

	follower_session(p->follower, told.client_id, told.certificate_id, told.thing, told.address,
		true, told.version);
}

static void
take_notice(struct plugin *p, const struct notice *notice)
{
	switch (notice->kind) {
	case NOTICE_CERTIFICATE:
		sessions_stale(p->sessions, notice->certificate_id, consider, p);
		break;
	case NOTICE_ALL: sessions_stale_all(p->sessions); break;
	case NOTICE_EVENT: plugin_publish(p, &notice->event); break;
	case NOTICE_SESSIONS: sessions_each(p->sessions, say_again, p); break;
	case NOTICE_UNSET: break;
	}
}

static void
take_notices(struct plugin *p)
{
	struct queue_item *items = queue_take(&p->notices);

	if (atomic_exchange(&p->notices.overflowed, false))
		sessions_stale_all(p->sessions);
	while (items != NULL) {
		struct queue_item *next = items->next;
		struct notice *notice = (struct notice *)(void *)items;

		take_notice(p, notice);
		notice_free(notice);
		items = next;
	}
}

static void
tell_topics(
	struct plugin *p, const struct session *session, const struct buf *topics, bool subscribed)
{
	struct event event = { .payload = { NULL, 0 } };
	char thing[DB_IOTCORE_KEY_BYTES];
	struct event_session told = session_event(session, thing);
	struct err err;

	if (topics->len == 0 || !event_topic_fits(session->client_id))
		return;
	if (event_subscriptions(
		    &event, &told, subscribed, buf_view(topics), event_now_ms(), &err) == OK)
		plugin_publish(p, &event);
	event_clear(&event);
}

static void
tell_subscriptions(struct plugin *p)
{
	for (size_t i = 0; i < p->told_count; i++) {
		struct session *session = p->told[i];

		tell_topics(p, session, &session->subscribed, true);
		tell_topics(p, session, &session->unsubscribed, false);
		buf_free(&session->subscribed);
		buf_free(&session->unsubscribed);
		session->subscribed.limit_bytes = session->unsubscribed.limit_bytes = 64 * 1024;
	}
	p->told_count = 0;
}

static int
on_tick(int event, void *data, void *userdata)
{
	struct plugin *p = userdata;
	int64_t now_ms = clock_mono_ms(&CLOCK_SYSTEM);

	(void)event, (void)data;
	p->reloading = false;
	follower_watch(p->follower);
	if (queue_pending(&p->notices))
		take_notices(p);
	(void)sessions_sweep(p->sessions, SWEEP_PER_TICK, consider, p);
	if (p->cut_count > 0)
		cut_sessions(p);
	if (p->told_count > 0)
		tell_subscriptions(p);
	sessions_reap(p->sessions);
	if (now_ms - p->log_at_ms >= LOG_EVERY_MS) {
		p->log_at_ms = now_ms;
		log_drain(p);
	}
	return MOSQ_ERR_SUCCESS;
}

static int
on_reload(int event, void *data, void *userdata)
{
	struct plugin *p = userdata;

	(void)event, (void)data;
	p->reloading = true;
	return MOSQ_ERR_SUCCESS;
}

/* Which callback is registered for which event, each with the plugin itself. */
static const struct callback {
	int event;
	int (*call)(int event, void *data, void *userdata);
} CALLBACKS[] = {
	{ MOSQ_EVT_RELOAD, on_reload },
	{ MOSQ_EVT_BASIC_AUTH, gate_connect },
	{ MOSQ_EVT_ACL_CHECK, traffic_check },
	{ MOSQ_EVT_DISCONNECT, gate_disconnect },
	{ MOSQ_EVT_TICK, on_tick },
};

/*
 * Options
 */

static enum status
option_wrong(struct err *err, const char *key, const char *wanted)
{
	return err_set(err, ERR_ARGUMENT, "plugin_option", "plugin_opt_%s: %s wanted", key, wanted);
}

static enum status
read_url_file(const char *path, char **out, struct err *err)
{
	char text[URL_MAX_BYTES + 1];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t len = fd < 0 ? -1 : read(fd, text, URL_MAX_BYTES);
	int error = errno;

	if (fd >= 0)
		(void)close(fd);
	if (len <= 0)
		return err_set(err, ERR_ARGUMENT, "plugin_option",
			"plugin_opt_database_url_file: %s: cannot be read, or is empty: errno %d",
			path, error);
	text[len] = '\0';
	text[strcspn(text, "\r\n")] = '\0';
	*out = mem_strdup(text);
	return *out == NULL ? err_memory(err) : OK;
}

static enum status
read_number(const struct mosquitto_opt *option, int64_t least, int64_t most, int64_t *out,
	struct err *err)
{
	char *end = NULL;
	long long number;

	errno = 0;
	number = strtoll(option->value, &end, 10);
	if (errno != 0 || end == option->value || *end != '\0' || number < least || number > most)
		return option_wrong(err, option->key, "a number in its range");
	*out = number;
	return OK;
}

static enum status
read_option(struct plugin_options *out, const struct mosquitto_opt *option, struct err *err)
{
	if (strcmp(option->key, "database_url_file") == 0)
		return read_url_file(option->value, &out->database_url, err);
	if (strcmp(option->key, "stale_ms") == 0)
		return read_number(option, 1000, 86400000, &out->stale_ms, err);
	if (strcmp(option->key, "register_per_s") == 0)
		return read_number(option, 0, 1000000, &out->register_per_s, err);
	if (strcmp(option->key, "register_per_address_per_s") == 0)
		return read_number(option, 0, 1000000, &out->register_per_address_per_s, err);
	if (strcmp(option->key, "strangers_per_address_per_s") == 0)
		return read_number(option, 1, 1000000, &out->strangers_per_address_per_s, err);
	if (strcmp(option->key, "log_level") == 0)
		return log_level_parse(&out->log_level, option->value)
		               ? OK
		               : option_wrong(err, option->key, "debug, info, warn or error");
	return err_set(err, ERR_ARGUMENT, "plugin_option", "plugin_opt_%s: there is no such option",
		option->key);
}

static enum status
read_options(
	struct plugin_options *out, const struct mosquitto_opt *options, int count, struct err *err)
{
	const char *from_environment = getenv("JITRCA_DATABASE_URL");

	*out = (struct plugin_options){ .stale_ms = STALE_MS,
		.register_per_s = REGISTER_PER_S,
		.register_per_address_per_s = REGISTER_PER_ADDRESS_PER_S,
		.strangers_per_address_per_s = STRANGERS_PER_ADDRESS_PER_S,
		.log_level = LOG_INFO };
	for (int i = 0; i < count; i++)
		TRY(read_option(out, &options[i], err));
	if (out->database_url == NULL && from_environment != NULL &&
		(out->database_url = mem_strdup(from_environment)) == NULL)
		return err_memory(err);
	if (out->database_url == NULL)
		return err_set(err, ERR_ARGUMENT, "plugin_option",
			"plugin_opt_database_url_file or JITRCA_DATABASE_URL wanted");
	return OK;
}

/*
 * Life
 */

static void
on_wake(int signal)
{
	(void)signal; /* that it interrupted epoll_wait is all */
}

/* From the follower's thread. */
static void
wake(void *arg)
{
	struct plugin *p = arg;

	(void)pthread_kill(p->broker_thread, SIGRTMIN);
}

static void
plugin_free(struct plugin *p)
{
	struct queue_item *items;
	bool stopped = follower_stop(p->follower);

	tls_end(p->tls);
	sessions_free(p->sessions);
	for (items = queue_take(&p->notices); items != NULL;) {
		struct queue_item *next = items->next;

		notice_free((struct notice *)(void *)items);
		items = next;
	}
	if (p->log_fd >= 0) {
		log_drain(p);
		log_setup(STDERR_FILENO, LOG_ERROR, "broker");
		(void)close(p->log_fd);
		(void)close(p->log_sink_fd);
	}
	mem_free(p->options.database_url);
	mem_free(p->cut);
	mem_free(p->told);
	/* A follower that did not end in time may still use these; the process ends anyway. */
	if (stopped) {
		registry_free(p->registry);
		mem_free(p);
	}
}

static enum status
plugin_begin(
	struct plugin *p, const struct mosquitto_opt *options, int option_count, struct err *err)
{
	struct sigaction action = { .sa_handler = on_wake };

	TRY(read_options(&p->options, options, option_count, err));
	TRY(log_begin(p, err));
	p->register_total.per_s = p->options.register_per_s;
	p->register_address.per_s = p->options.register_per_address_per_s;
	p->repeat.per_s = 1;
	p->complain.per_s = COMPLAINTS_PER_S;
	queue_begin(&p->notices, NOTICES_MAX);
	TRY(entropy_fill(&ENTROPY_SYSTEM, (uint8_t *)&p->key, sizeof(p->key), err));
	TRY(registry_new(&p->registry, &p->key, err));
	TRY(sessions_new(&p->sessions, p->registry, &p->key, err));
	TRY(tls_begin(&p->tls, p->registry, &p->key, p->options.strangers_per_address_per_s, err));
	(void)sigaction(SIGRTMIN, &action, NULL);
	return follower_start(&p->follower,
		&(struct follow_setup){ .conninfo = p->options.database_url,
			.registry = p->registry,
			.key = &p->key,
			.notices = &p->notices,
			.wake = wake,
			.arg = p },
		err);
}

static enum status
register_callbacks(struct plugin *p, struct err *err)
{
	for (size_t i = 0; i < COUNT_OF(CALLBACKS); i++) {
		int result = mosquitto_callback_register(
			p->identifier, CALLBACKS[i].event, CALLBACKS[i].call, NULL, p);

		if (result != MOSQ_ERR_SUCCESS)
			return err_set(err, ERR_INTERNAL, "plugin_callback",
				"event %d cannot be registered: error %d", CALLBACKS[i].event,
				result);
	}
	return OK;
}

VISIBLE int
mosquitto_plugin_version(int supported_version_count, const int *supported_versions)
{
	for (int i = 0; i < supported_version_count; i++)
		if (supported_versions[i] == MOSQ_PLUGIN_VERSION)
			return MOSQ_PLUGIN_VERSION;
	return -1;
}

VISIBLE int
mosquitto_plugin_init(mosquitto_plugin_id_t *identifier, void **userdata,
	struct mosquitto_opt *options, int option_count)
{
	struct plugin *p = mem_zalloc(sizeof(*p));
	struct err err;

	if (p == NULL)
		return MOSQ_ERR_NOMEM;
	p->identifier = identifier;
	p->broker_thread = pthread_self();
	p->log_fd = p->log_sink_fd = -1;
	if (plugin_begin(p, options, option_count, &err) != OK ||
		register_callbacks(p, &err) != OK) {
		mosquitto_log_printf(MOSQ_LOG_ERR,
			"{\"level\":\"error\",\"event\":\"plugin_start\",\"code\":"
			"\"%s\",\"detail\":\"%s\"}",
			err.code, err.text);
		return MOSQ_ERR_INVAL; /* the broker does not start; what was begun ends with it */
	}
	*userdata = p;
	return MOSQ_ERR_SUCCESS;
}

VISIBLE int
mosquitto_plugin_cleanup(void *userdata, struct mosquitto_opt *options, int option_count)
{
	struct plugin *p = userdata;

	(void)options, (void)option_count;
	if (p == NULL)
		return MOSQ_ERR_SUCCESS;
	for (size_t i = 0; i < COUNT_OF(CALLBACKS); i++)
		(void)mosquitto_callback_unregister(
			p->identifier, CALLBACKS[i].event, CALLBACKS[i].call, NULL);
	plugin_free(p);
	return MOSQ_ERR_SUCCESS;
}
