#include "server/http/http.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/cond.h"
#include "base/entropy.h"
#include "base/log.h"
#include "base/mem.h"
#include "server/http/internal.h"

/* Descriptors for everything but connections: signer, spools, timers, libraries; each lane has two, each
 * connection to the database, too. */
#define DESCRIPTORS_BESIDES 256
#define CONNECTIONS_PER_DESCRIPTOR 8
#define STOP_TURN_MS 20
#define HANDED_WAIT_MS 1000

typedef struct http http_handle;
static void http_free(struct http *http);
OWNER(http_handle, http_free)

int64_t
http_now_ms(void)
{
	return clock_mono_ms(&CLOCK_SYSTEM);
}

struct tls_set *
http_tls(struct http *http)
{
	struct tls_set *set;

	pthread_mutex_lock(&http->tls_lock);
	set = http->tls;
	if (set != NULL)
		atomic_fetch_add(&set->references, 1);
	pthread_mutex_unlock(&http->tls_lock);
	return set;
}

enum status
http_set_certificates(struct http *http, const struct http_certificate *certificates, size_t count,
	struct err *err)
{
	struct tls_set *set = NULL, *old;

	TRY(tls_set_new(&set, certificates, count, err));
	pthread_mutex_lock(&http->tls_lock);
	old = http->tls;
	http->tls = set;
	pthread_mutex_unlock(&http->tls_lock);
	tls_set_drop(old);
	/* Until now nobody could have shaken hands: those who came wait in the sockets' queues. */
	return old == NULL ? gate_watch(http, true, err) : OK;
}

void
http_flight(struct http *http, int change)
{
	if (atomic_fetch_add(&http->in_flight, change) + change != 0 ||
		!atomic_load(&http->stopping))
		return;
	pthread_mutex_lock(&http->flight_lock);
	pthread_cond_broadcast(&http->landed);
	pthread_mutex_unlock(&http->flight_lock);
}

bool
http_charge_body(struct http *http, struct request *request, size_t bytes)
{
	if (atomic_fetch_add(&http->bodies_bytes, bytes) + bytes > BODIES_MAX_BYTES) {
		atomic_fetch_sub(&http->bodies_bytes, bytes);
		return false;
	}
	request->body_charged += bytes;
	return true;
}

static void
add_listener(struct http *http, enum listener_kind kind, const char *name, int fd)
{
	if (fd < 0)
		return;
	http->listeners[http->listener_count++] = (struct listener){
		.http = http, .kind = kind, .name = name, .fd = fd, .tls = kind != LISTENER_HTTP
	};
}

/* The soft limit is what a shell hands on; the hard one is what the operator meant. */
static void
raise_descriptors(const struct http *http)
{
	struct rlimit limit;
	rlim_t most = (rlim_t)http->config->connections_max * http->listener_count;
	rlim_t wanted = most + most / CONNECTIONS_PER_DESCRIPTOR + DESCRIPTORS_BESIDES +
	                2 * (rlim_t)http->config->database_connections;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted)
		return;
	limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
	if (setrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < wanted)
		log_event(LOG_WARN, "descriptors_short", NULL, LOG_INT("wanted", wanted),
			LOG_INT("limit", limit.rlim_cur));
}

static enum status
prepare(struct http *http, struct err *err)
{
	static char nothing[1];
	uint64_t random[2];

	TRY(tls_tickets_start(&http->tickets, err));
	TRY(entropy_fill(&ENTROPY_SYSTEM, (uint8_t *)random, sizeof(random), err));
	http->id_prefix = random[0];
	atomic_store(&http->id_next, random[1]);
	http->metrics = mem_array(router_count(http->router) + 1, sizeof(*http->metrics));
	http->last_resort = MHD_create_response_from_buffer(0, nothing, MHD_RESPMEM_PERSISTENT);
	if (http->metrics == NULL || http->last_resort == NULL ||
		MHD_add_response_header(http->last_resort, "Retry-After", "1") != MHD_YES)
		return err_memory(err);
	return OK;
}

static size_t
worker_count(const struct config *config)
{
	long processors = sysconf(_SC_NPROCESSORS_ONLN);

	if (config->worker_threads > 0)
		return (size_t)config->worker_threads;
	return processors > 0 ? (size_t)processors : 1;
}

static enum status
start_threads(struct http *http, struct err *err)
{
	TRY(workers_start(&http->workers, worker_count(http->config), err));
	for (size_t i = 0; i < http->listener_count; i++)
		TRY(listener_start(&http->listeners[i], err));
	return gate_start(http, err);
}

enum status
http_start(struct http **out, const struct http_setup *setup, struct err *err)
{
	own(http_handle) http = mem_zalloc(sizeof(*http));

	*out = NULL;
	if (http == NULL) {
		const int fds[] = { setup->https_fd, setup->stations_fd, setup->http_fd };

		for (size_t i = 0; i < COUNT_OF(fds); i++)
			if (fds[i] >= 0)
				close(fds[i]);
		return err_memory(err);
	}
	http->config = setup->config;
	http->app = setup->app;
	http->router = setup->router;
	http->authorize = setup->authorize;
	http->context = setup->context;
	http->render = setup->render;
	http->gate.epoll_fd = http->gate.wake_fd = -1;
	pthread_mutex_init(&http->tls_lock, NULL);
	pthread_mutex_init(&http->pace.lock, NULL);
	pthread_mutex_init(&http->flight_lock, NULL);
	cond_init(&http->landed);
	pthread_mutex_init(&http->gate.lock, NULL);
	add_listener(http, LISTENER_HTTPS, "https", setup->https_fd);
	add_listener(http, LISTENER_STATIONS, "stations", setup->stations_fd);
	add_listener(http, LISTENER_HTTP, "http", setup->http_fd);

	/* A peer that goes away is an error of one write, not the end of us. */
	(void)signal(SIGPIPE, SIG_IGN);
	raise_descriptors(http);
	TRY(prepare(http, err));
	/* Where handlers look for it; they may run before this returns. */
	*out = http;
	if (start_threads(http, err) != OK) {
		*out = NULL;
		return err->status;
	}
	(void)give(http);
	return OK;
}

/* True once no request is in flight; false after the time allowed. */
static bool
wait_landed(struct http *http, int64_t until_ms)
{
	bool landed = false;

	pthread_mutex_lock(&http->flight_lock);
	while (!(landed = atomic_load(&http->in_flight) == 0) && http_now_ms() < until_ms) {
		struct timespec turn = cond_in_ms(STOP_TURN_MS);

		(void)pthread_cond_timedwait(&http->landed, &http->flight_lock, &turn);
	}
	pthread_mutex_unlock(&http->flight_lock);
	return landed;
}

static bool
any_in(struct http *http, enum connection_state state)
{
	bool any = false;

	pthread_mutex_lock(&http->gate.lock);
	for (const struct connection *one = http->gate.head; one != NULL && !any; one = one->next)
		any = atomic_load(&one->state) == state;
	pthread_mutex_unlock(&http->gate.lock);
	return any;
}

/* libmicrohttpd looks at its queue of new connections without a lock when it stops: let it be
 * empty. */
static void
wait_handed(struct http *http)
{
	for (unsigned i = 0; i < HANDED_WAIT_MS && any_in(http, CONNECTION_HANDED); i++)
		usleep(1000);
}

/* Who was accepted a moment ago has sent a request that is not read yet. */
static void
wait_arrivals(struct http *http)
{
	int64_t until_ms = http_now_ms() + 2 * ARRIVAL_GRACE_MS;

	while (http_now_ms() < until_ms && (any_in(http, CONNECTION_WAITING) ||
						   any_in(http, CONNECTION_HANDED) ||
						   any_in(http, CONNECTION_FIRST)))
		usleep(1000);
}

static void
http_free(struct http *http)
{
	if (http == NULL)
		return;
	workers_stop(&http->workers);
	gate_stop(http);
	wait_handed(http);
	for (size_t i = 0; i < http->listener_count; i++)
		listener_stop(&http->listeners[i]);
	gate_free(http);
	for (size_t i = 0; i < http->listener_count; i++)
		listener_free(&http->listeners[i]);
	tls_set_drop(http->tls);
	tls_tickets_stop(&http->tickets);
	if (http->last_resort != NULL)
		MHD_destroy_response(http->last_resort);
	mem_free(http->metrics);
	mem_free(http);
}

bool
http_stop(struct http *http)
{
	int64_t until_ms;

	if (http == NULL)
		return true;
	until_ms = http_now_ms() + http->config->shutdown_timeout_ms;
	atomic_store(&http->stopping, true);
	gate_close(http);
	wait_arrivals(http);
	if (!wait_landed(http, until_ms) && any_in(http, CONNECTION_WORKING)) {
		/*
		 * Somebody holds a parked request beyond its time. Its connection cannot be taken
		 * away from libmicrohttpd, and the process is about to end: the listeners are
		 * closed, the rest is left.
		 */
		log_event(LOG_WARN, "http_stop_abandoned", NULL,
			LOG_INT("in_flight", atomic_load(&http->in_flight)));
		gate_stop(http);
		return false;
	}
	http_free(http);
	return true;
}
