/*
 * server/http/internal.h - what the files of this room share. Nobody else includes it.
 *
 * A connection's way: the gate accepts it and keeps it in its waiting room until the peer has
 * spoken (a whole ClientHello for TLS, an octet otherwise), so that silent peers cost a descriptor
 * and nothing else; then a lane (one libmicrohttpd daemon with one thread) takes it over. The gate
 * goes on holding the clock on it and shuts its socket down when time is up; the lane's thread then
 * cleans up.
 */
#ifndef SERVER_HTTP_INTERNAL_H
#define SERVER_HTTP_INTERNAL_H

#include <gnutls/gnutls.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "server/http/http.h"
#include "server/http/problem.h"
#include "server/http/request.h"
#include "server/http/route.h"

/* ---- limits that are not worth a key of the configuration ---- */

#define TARGET_MAX_BYTES 2048        /* path and query of a request line: 414 */
#define HEADERS_MAX_BYTES (5 * 1024) /* request line and headers: 431 */
#define HEADERS_MAX_COUNT 48
/*
 * Of libmicrohttpd for a connection, that is idle, too, for it wipes all of it after each request: of
 * ten thousand connections half the memory. What the limits above allow must fit, with 56 octets for
 * each header and some hundred for those of the answer.
 */
#define POOL_BYTES (10 * 1024)
/* Of a refused body, read for the sake of clients that look for an answer only when all is sent. */
#define DISCARD_MAX_BYTES (6 * 1024 * 1024)
/* Of all requests together, in memory. */
#define BODIES_MAX_BYTES ((size_t)96 << 20)
/* Slower than this over the time allowed, and a body or an answer is cut (octets in a millisecond). */
#define RATE_LEAST_BYTES_MS 8
#define PARAMS_MAX 4 /* of a path */
#define QUERY_MAX 16 /* parameters of a query */
#define THREAD_STACK_BYTES ((size_t)512 * 1024)
/* Requests and deferred work that wait for a worker. */
#define QUEUE_MAX 8192

/* ---- TLS: tls.c ---- */

/* The certificates of one http_set_certificates, shared by the connections that began under it. */
struct tls_set {
	atomic_uint references;
	gnutls_certificate_credentials_t credentials;
};

extern const char TLS_PRIORITIES[];
MUST_USE enum status tls_set_new(struct tls_set **out, const struct http_certificate *certificates,
	size_t count, struct err *err);
void tls_set_drop(struct tls_set *set); /* NULL is welcome */

/*
 * Tickets: a client that comes back within the hour need not prove again that it has its key. The ticket
 * holds its certificate, and each request is judged by that as on any other connection. The key that seals
 * them lives in this process alone and half a day: then also a chain of resumptions ends, each of which
 * brings a new ticket. No early data: a request must not be replayed.
 */
#define TICKET_LIFETIME_S 3600
#define TICKET_KEY_MS (INT64_C(12) * 3600 * 1000)
struct tls_tickets {
	pthread_mutex_t lock;
	gnutls_datum_t key; /* under lock */
	int64_t born_ms;    /* under lock */
};
MUST_USE enum status tls_tickets_start(struct tls_tickets *tickets, struct err *err);
void tls_tickets_stop(struct tls_tickets *tickets);
/* Before the handshake. */
void tls_tickets_offer(struct tls_tickets *tickets, gnutls_session_t session);
/* Once the peer's certificate is there: its ticket shall not outlive it. */
void tls_ticket_limit(gnutls_session_t session);

/* ---- connections: gate.c, listener.c ---- */

enum connection_state {
	CONNECTION_WAITING = 1, /* in the waiting room */
	CONNECTION_HANDED,      /* on its way to the lane's thread; its socket is the lane's */
	CONNECTION_FIRST,       /* with the lane; handshake, or headers of the first request */
	CONNECTION_READING,     /* a request is coming in */
	CONNECTION_WORKING,     /* it is with a worker; suspended */
	CONNECTION_SENDING,
	CONNECTION_IDLE, /* between two requests */
};

/* At the end: a request that has just been sent is awaited so long on a connection just accepted. */
#define ARRIVAL_GRACE_MS 300

struct listener;
struct lane;

struct connection {
	struct connection *prev, *next; /* under gate.lock, oldest first */
	struct connection *bucket_next; /* under gate.lock, of the same hash of the address */
	struct listener *listener;
	struct lane *lane; /* NULL in the waiting room */
	struct tls_set *tls;
	int fd;
	bool dying; /* shut down by the gate; under gate.lock */
	_Atomic enum connection_state state;
	_Atomic int64_t since_ms;    /* in this state */
	_Atomic int64_t deadline_ms; /* 0: none */
	_Atomic bool authenticated;
	_Atomic bool served;     /* one request has been answered */
	uint8_t address_key[16]; /* what counts as one address: IPv4, or an IPv6 /64 */
	char address[INET6_ADDRSTRLEN];
	struct sockaddr_in6 peer; /* large enough for both families */
	socklen_t peer_len;
};

/* One libmicrohttpd daemon. */
struct lane {
	struct MHD_Daemon *daemon;
	struct listener *listener;
	atomic_uint load; /* connections handed over and not closed */
	bool yields;      /* its thread has lowered itself; of that thread */
};

enum cut_reason { CUT_TIMEOUT = 0, CUT_EVICTED, CUT_REASONS };

struct listener {
	struct http *http;
	enum listener_kind kind;
	const char *name;
	int fd;
	bool tls;
	unsigned lane_cap; /* connections of a lane */
	unsigned lane_crowded; /* from so many on, another is started */
	unsigned lanes_max;
	atomic_uint lanes_started;
	struct lane *lanes;
	size_t open, dying;       /* under gate.lock */
	_Atomic int64_t open_now; /* the same for metrics */
	_Atomic uint64_t accepted, refused_address, refused_full, cut[CUT_REASONS];
	_Atomic uint64_t sessions[2]; /* of TLS: begun anew, resumed */
};

enum gate_phase { GATE_OPEN = 1, GATE_CLOSED, GATE_ENDED };

#define ADDRESS_BUCKETS 1024

struct gate {
	pthread_mutex_t lock;
	pthread_t thread;
	bool started;
	int epoll_fd, wake_fd;
	_Atomic enum gate_phase phase;
	struct connection *by_address[ADDRESS_BUCKETS]; /* under lock */
	struct connection *head, *tail;
	struct connection **by_fd; /* under lock; a descriptor is in one connection at most */
	size_t by_fd_size;
	size_t crowd; /* accepted since there was nobody; the gate's thread */
};

MUST_USE enum status gate_start(struct http *http, struct err *err);
/* Begins to accept on the listeners with TLS, or those without. */
MUST_USE enum status gate_watch(struct http *http, bool tls, struct err *err);
/* No new connections; those that have no request in flight are closed. The thread goes on cutting.
 */
void gate_close(struct http *http);
void gate_stop(struct http *http);
void gate_free(struct http *http);
/* From the lane's thread: the connection on fd is there; it is gone. */
struct connection *gate_arrived(struct http *http, int fd);
void gate_gone(struct http *http, struct connection *connection);
void connection_enter(
	struct connection *connection, enum connection_state state, int64_t deadline_ms);

MUST_USE enum status listener_start(struct listener *listener, struct err *err);
/* The lane for one more connection; NULL: all are full. From the gate's thread. */
struct lane *listener_lane(struct listener *listener);
/* Stops the lanes. None may have a suspended connection: libmicrohttpd would end the process. */
void listener_stop(struct listener *listener);
void listener_free(struct listener *listener);

/* ---- workers: worker.c ---- */

struct work {
	struct work *next;
	void (*run)(void *arg);
	void *arg;
	bool owned; /* made by http_defer */
};

enum { QUEUE_STATIONS = 0, QUEUE_OTHERS, QUEUES };

struct workers {
	pthread_mutex_t lock;
	pthread_cond_t some;
	struct work *head[QUEUES], *tail[QUEUES];
	size_t waiting[QUEUES];
	unsigned turn;
	bool stopping;
	pthread_t *threads;
	size_t count;
};

MUST_USE enum status workers_start(struct workers *workers, size_t count, struct err *err);
/* False: the queue is full. */
MUST_USE bool workers_push(struct workers *workers, unsigned queue, struct work *work);
size_t workers_waiting(struct workers *workers);
void workers_stop(struct workers *workers); /* runs what waits, then joins */

/* ---- routes: router.c, uri.c ---- */

struct pair {
	const char *name, *value;
};

struct match {
	const struct route *route;
	size_t index; /* of the route, below router_count() */
	bool head;    /* HEAD of a GET route */
	size_t param_count;
	struct pair params[PARAMS_MAX];
};

size_t router_count(const struct router *router);
const struct route *router_route(const struct router *router, size_t index);
/*
 * Finds the route of a path as it was sent (it is decoded in place). ERR_ARGUMENT path_malformed;
 * ERR_NOT_FOUND not_found; method_not_allowed with allow filled.
 */
#define ALLOW_BYTES 64
MUST_USE enum status router_match(const struct router *router, enum listener_kind kind,
	const char *method, char *path, struct match *out, char allow[ALLOW_BYTES],
	struct err *err);

/* Decodes percent signs in place; plus_is_space as forms have it. False: malformed, control, not
 * UTF-8. */
MUST_USE bool uri_decode(char *text, bool plus_is_space);
/* Splits and decodes a query in place, checking names against allowed (NULL: none); lenient: other
 * names are left out. */
MUST_USE enum status uri_query(char *query, const char *const *allowed, bool lenient,
	struct pair *out, size_t *count, struct err *err);
MUST_USE bool utf8_valid(const uint8_t *data, size_t len);

/* ---- requests: request.c, exchange.c ---- */

enum request_phase {
	PHASE_HEAD = 1, /* the headers are there */
	PHASE_CLEARING, /* a worker authorises it before its body is read */
	PHASE_BODY,
	PHASE_ANSWER, /* resumed, or refused: the answer is to be queued */
	PHASE_DONE,
};

struct chunk {
	struct chunk *next;
	size_t used, size;
	_Alignas(16) uint8_t data[];
};

struct answer_header {
	struct answer_header *next;
	const char *name, *value;
};

struct request {
	struct http *http;
	struct connection *connection;
	struct MHD_Connection *mhd;
	atomic_uint references; /* the connection's, the worker's, the parker's */
	_Atomic bool parked;
	bool on_lane; /* its handler runs on libmicrohttpd's thread */
	enum request_phase phase;
	struct work work;
	char id[REQUEST_ID_BYTES];
	const char *method;
	char *target; /* as it was sent */
	char *path;   /* as it was sent, without the query */
	const char *query_text; /* as it was sent */
	void *note;
	struct match match;
	size_t query_count;
	struct pair query[QUERY_MAX];
	const char *content_type;
	struct view peer_certificate;
	bool has_body;
	bool refused; /* the answer is there; what comes in is thrown away */
	uint64_t body_expected, body_seen, body_discarded;
	uint64_t body_limit;
	struct buf body;
	size_t body_charged; /* of http->bodies_bytes */
	int spool_fd;
	int64_t base_deadline_ms;
	const struct identity *identity;
	const char *actor;
	struct MHD_Response *response;
	unsigned status; /* of HTTP; 0: no answer yet */
	const char *answer_type;
	uint64_t answer_bytes;
	struct answer_header *headers;
	char code[ERR_CODE_BYTES]; /* of the problem; empty: none */
	int64_t started_us;
	struct chunk *chunks;
};

struct request *request_new(struct http *http, struct connection *connection, const char *target);
void request_drop(struct request *request); /* one reference */
/* Makes problem+json the answer, in place of any other; always leaves an answer. */
void request_problem(struct request *request, const struct err *err);
/* Takes response, of size octets as far as it is known; NULL: memory was short. */
MUST_USE enum status request_reply_response(struct request *request, unsigned status,
	const char *content_type, struct MHD_Response *response, uint64_t size, struct err *err);
/* The answer of a handler that returned status, when it is not parked. */
void request_conclude(struct request *request, enum status status, const struct err *err);
/* Gives the answer to libmicrohttpd, on the lane's thread. */
enum MHD_Result request_queue(struct request *request);

void *exchange_begin(void *cls, const char *uri, struct MHD_Connection *mhd);
enum MHD_Result exchange_step(void *cls, struct MHD_Connection *mhd, const char *url,
	const char *method, const char *version, const char *data, size_t *size, void **context);
void exchange_end(
	void *cls, struct MHD_Connection *mhd, void **context, enum MHD_RequestTerminationCode why);

/* ---- metrics.c ---- */

#define LATENCY_BUCKETS 12
#define STATUS_SLOTS 28

struct route_metrics {
	_Atomic uint64_t by_status[STATUS_SLOTS];
	_Atomic uint64_t latency[LATENCY_BUCKETS + 1];
	_Atomic uint64_t duration_us;
};

void http_count(struct http *http, const struct request *request, int64_t duration_us);

/* ---- pace.c ---- */

#define PACE_SLOTS 1024

struct pace_slot {
	uint8_t key[16]; /* of the address, as in struct connection */
	int64_t full_at_ms;
};

struct pace_table {
	pthread_mutex_t lock;
	int64_t everyone_ms;
	struct pace_slot slots[PACE_SLOTS];
};

/* ---- http.c ---- */

#define LISTENERS_MAX 3

struct http {
	const struct config *config;
	struct app *app;
	const struct router *router;
	enum status (*authorize)(
		struct app *app, struct request *request, unsigned roles, struct err *err);
	void *context;
	enum status (*render)(
		struct request *request, const struct err *problem, struct err *err);
	struct listener listeners[LISTENERS_MAX];
	size_t listener_count;
	struct gate gate;
	struct workers workers;
	struct pace_table pace;
	pthread_mutex_t tls_lock;
	struct tls_set *tls;
	struct tls_tickets tickets;
	struct MHD_Response *last_resort; /* when there is no memory for another answer */
	struct route_metrics *metrics;    /* one for each route, one for none */
	_Atomic bool stopping;
	pthread_mutex_t flight_lock;
	pthread_cond_t landed;     /* none is in flight, while stopping */
	_Atomic int64_t in_flight; /* requests */
	_Atomic size_t bodies_bytes;
	uint64_t id_prefix;
	_Atomic uint64_t id_next;
};

int64_t http_now_ms(void);
struct tls_set *http_tls(struct http *http); /* a reference, or NULL */
void http_flight(struct http *http, int change);
bool http_charge_body(struct http *http, struct request *request, size_t bytes);

#endif
