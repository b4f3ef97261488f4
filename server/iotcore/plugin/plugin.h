/*
 * server/iotcore/plugin/plugin.h - the plugin's parts, as its files share them. Everything here
 * belongs to the broker's thread but what follow.h says. plugin.c: life, ticks, log; gate.c:
 * CONNECT and its end; traffic.c: SUBSCRIBE, PUBLISH, delivery.
 */
#ifndef SERVER_IOTCORE_PLUGIN_PLUGIN_H
#define SERVER_IOTCORE_PLUGIN_PLUGIN_H

#include <pthread.h>

#include <mosquitto.h>
#include <mosquitto_broker.h>
#include <mosquitto_plugin.h>

#include "base/log.h"
#include "server/iotcore/plugin/event.h"
#include "server/iotcore/plugin/follow.h"
#include "server/iotcore/plugin/limiter.h"
#include "server/iotcore/plugin/registry.h"
#include "server/iotcore/plugin/session.h"
#include "server/iotcore/plugin/tls.h"

struct plugin_options {
	char *database_url;
	int64_t stale_ms;
	int64_t register_per_s;
	int64_t register_per_address_per_s;
	int64_t strangers_per_address_per_s;
	enum log_level log_level;
};

struct plugin {
	mosquitto_plugin_id_t *identifier;
	struct plugin_options options;
	pthread_t broker_thread;
	struct siphash_key key;
	struct registry *registry;
	struct tls *tls;
	struct sessions *sessions;
	struct queue notices;
	struct follower *follower;
	bool placed;    /* sessions know account and region */
	bool reloading; /* between RELOAD and the next TICK, BASIC_AUTH asks about sessions again */
	int64_t last_version;
	int64_t log_at_ms;
	int log_fd; /* where base/log's lines come out */
	int log_sink_fd;
	struct limiter register_total, register_address, repeat, complain;
	uint64_t complaints_left_out;
	/* Sessions to be cut, gathered while tables are walked. */
	struct session **cut;
	size_t cut_count, cut_capacity;
	struct session **told; /* with topics to tell of */
	size_t told_count, told_capacity;
};

/* Callbacks of the broker. */
int gate_connect(int event, void *data, void *userdata);
int gate_disconnect(int event, void *data, void *userdata);
int traffic_check(int event, void *data, void *userdata);

/* Publishes, QoS 1 and not retained; says so when it cannot. */
void plugin_publish(struct plugin *plugin, const struct event *event);
/*
 * One log line about somebody who was refused, at most 20 a second: the next says how many were
 * left out. client_id and detail may be NULL.
 */
void plugin_complain(struct plugin *plugin, const char *event, const char *client_id,
	const char *address, const char *certificate_hex, const char *detail);
/* Remembers session for the list; false: memory. */
bool plugin_remember(
	struct session ***list, size_t *count, size_t *capacity, struct session *session);
int64_t plugin_now_s(void);
/* Hash under the plugin's key. */
uint64_t plugin_hash(const struct plugin *plugin, const void *data, size_t len);

#endif
