/*
 * One thread accepts for all listeners, counts addresses, keeps the waiting room, holds the clock
 * on every connection and, when a listener is full, makes room by cutting what has deserved it
 * least.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "server/http/internal.h"

/* While the gate closes: how often it looks for what has become quiet. */
#define CLOSED_TICK_MS 20
#define EVENTS_AT_ONCE 64
#define ACCEPTS_AT_ONCE 64
/* RFC 8446 5.1: a record's header, and what a record may hold. */
#define RECORD_HEADER_BYTES 5
#define RECORD_MAX_BYTES (16 * 1024)
#define RECORD_HANDSHAKE 22
/* An answer that the peer has not taken for so long may make room for another's connection. */
#define SENDING_PATIENCE_MS 2000
/* So many connections since the last time when there was none: worth a walk over the heap. */
#define TRIM_FROM_CONNECTIONS 256

void
connection_enter(struct connection *connection, enum connection_state state, int64_t deadline_ms)
{
	atomic_store(&connection->deadline_ms, 0);
	atomic_store(&connection->since_ms, http_now_ms());
	atomic_store(&connection->state, state);
	atomic_store(&connection->deadline_ms, deadline_ms);
}

/* ---- the list; with gate->lock ---- */

/* Multiplicative; the addresses are the clients' choice, but each has few connections, and so has a
 * chain. */
static struct connection **
bucket_of(struct gate *gate, const struct connection *connection)
{
	uint64_t high, low;

	memcpy(&high, connection->address_key, 8);
	memcpy(&low, connection->address_key + 8, 8);
	return &gate->by_address[((high ^ low) * UINT64_C(0x9e3779b97f4a7c15) >> 32) %
				 ADDRESS_BUCKETS];
}

static void
unlink_connection(struct gate *gate, struct connection *connection)
{
	struct listener *listener = connection->listener;
	struct connection **at = bucket_of(gate, connection);

	while (*at != connection)
		at = &(*at)->bucket_next;
	*at = connection->bucket_next;

	if (connection->prev != NULL)
		connection->prev->next = connection->next;
	else
		gate->head = connection->next;
	if (connection->next != NULL)
		connection->next->prev = connection->prev;
	else
		gate->tail = connection->prev;
	gate->by_fd[connection->fd] = NULL;
	listener->open--;
	listener->dying -= connection->dying;
	atomic_store(&listener->open_now, (int64_t)(listener->open - listener->dying));
}

static void
free_connection(struct connection *connection)
{
	if (connection->lane != NULL)
		atomic_fetch_sub(&connection->lane->load, 1);
	tls_set_drop(connection->tls);
	mem_free(connection);
}

static bool
link_connection(struct gate *gate, struct connection *connection)
{
	size_t fd = (size_t)connection->fd;

	if (fd >= gate->by_fd_size) {
		size_t size = fd * 2 + 64;
		struct connection **by_fd =
			mem_realloc(gate->by_fd, size * sizeof(struct connection *));

		if (by_fd == NULL)
			return false;
		memset(by_fd + gate->by_fd_size, 0,
			(size - gate->by_fd_size) * sizeof(struct connection *));
		gate->by_fd = by_fd;
		gate->by_fd_size = size;
	}
	/*
	 * libmicrohttpd closes a connection that it cannot take (memory) without a word. That the
	 * kernel gives its descriptor out again says so.
	 */
	if (gate->by_fd[fd] != NULL) {
		struct connection *stale = gate->by_fd[fd];

		unlink_connection(gate, stale);
		free_connection(stale);
	}
	gate->by_fd[fd] = connection;
	connection->bucket_next = *bucket_of(gate, connection);
	*bucket_of(gate, connection) = connection;
	connection->prev = gate->tail;
	if (gate->tail != NULL)
		gate->tail->next = connection;
	else
		gate->head = connection;
	gate->tail = connection;
	connection->listener->open++;
	atomic_store(&connection->listener->open_now,
		(int64_t)(connection->listener->open - connection->listener->dying));
	return true;
}

/* Ends it. In the waiting room it is gone at once; elsewhere its lane's thread finds the end and
 * cleans up. */
static void
cut(struct gate *gate, struct connection *connection, enum cut_reason reason)
{
	atomic_fetch_add(&connection->listener->cut[reason], 1);
	if (connection->lane == NULL) {
		unlink_connection(gate, connection);
		close(connection->fd);
		free_connection(connection);
		return;
	}
	connection->dying = true;
	connection->listener->dying++;
	atomic_store(&connection->listener->open_now,
		(int64_t)(connection->listener->open - connection->listener->dying));
	/* The socket is still this connection's: it leaves the list before the lane closes it. */
	(void)shutdown(connection->fd, SHUT_RDWR);
}

/* ---- who must go when a listener is full ---- */

/* The lower, the sooner; 0: not to be cut. */
static unsigned
claim(const struct connection *connection, int64_t now_ms)
{
	bool served = atomic_load(&connection->served);
	bool authenticated = atomic_load(&connection->authenticated);

	switch (atomic_load(&connection->state)) {
	case CONNECTION_WAITING:
	case CONNECTION_FIRST: return 1;
	case CONNECTION_READING: return served ? authenticated ? 5 : 2 : 1;
	case CONNECTION_IDLE: return authenticated ? 4 : 2;
	case CONNECTION_SENDING:
		return now_ms - atomic_load(&connection->since_ms) > SENDING_PATIENCE_MS ? 3 : 0;
	case CONNECTION_HANDED:
	case CONNECTION_WORKING: break;
	}
	return 0;
}

/* Cuts the one with the least claim, of equals the one that is longest as it is. False: there is
 * none. */
static bool
make_room(struct gate *gate, struct listener *listener)
{
	struct connection *worst = NULL;
	unsigned worst_claim = 0;
	int64_t worst_since = 0;
	int64_t now_ms = http_now_ms();

	for (struct connection *one = gate->head; one != NULL; one = one->next) {
		unsigned its = one->listener == listener && !one->dying ? claim(one, now_ms) : 0;
		int64_t since = atomic_load(&one->since_ms);

		if (its == 0 ||
			(worst != NULL && (its > worst_claim ||
						  (its == worst_claim && since >= worst_since))))
			continue;
		worst = one;
		worst_claim = its;
		worst_since = since;
	}
	if (worst == NULL)
		return false;
	cut(gate, worst, CUT_EVICTED);
	return true;
}

/* ---- from the waiting room to a lane ---- */

/* True once the peer has said enough for the lane to go on without waiting for more. */
static bool
has_spoken(const struct connection *connection)
{
	uint8_t head[RECORD_HEADER_BYTES];
	ssize_t got = recv(connection->fd, head, sizeof(head), MSG_PEEK | MSG_DONTWAIT);
	int available = 0;
	unsigned len;

	/* Also an end or an error: the lane knows how to end it. */
	if (got <= 0)
		return !(got < 0 && (errno == EAGAIN || errno == EINTR));
	if (!connection->listener->tls || head[0] != RECORD_HANDSHAKE)
		return true;
	if (got < RECORD_HEADER_BYTES)
		return false;
	len = (unsigned)head[3] << 8 | head[4];
	if (len > RECORD_MAX_BYTES || ioctl(connection->fd, FIONREAD, &available) != 0)
		return true;
	return available >= (int)len + RECORD_HEADER_BYTES;
}

/* The lock is not held while libmicrohttpd takes it: its thread calls gate_arrived() and
 * gate_gone(). */
static void
hand_over(struct http *http, struct connection *connection)
{
	struct gate *gate = &http->gate;
	struct lane *lane = listener_lane(connection->listener);
	int fd = connection->fd;

	(void)epoll_ctl(gate->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
	pthread_mutex_lock(&gate->lock);
	if (lane == NULL) {
		atomic_fetch_add(&connection->listener->refused_full, 1);
		cut(gate, connection, CUT_EVICTED);
		pthread_mutex_unlock(&gate->lock);
		return;
	}
	atomic_fetch_add(&lane->load, 1);
	connection->lane = lane;
	atomic_store(&connection->state, CONNECTION_HANDED);
	pthread_mutex_unlock(&gate->lock);

	if (MHD_add_connection(lane->daemon, fd, (const struct sockaddr *)&connection->peer,
		    connection->peer_len) == MHD_YES)
		return;
	/* It has closed the socket. */
	pthread_mutex_lock(&gate->lock);
	unlink_connection(gate, connection);
	pthread_mutex_unlock(&gate->lock);
	free_connection(connection);
}

/* It ended, or will say no more, before it had said enough. */
static void
give_up(struct http *http, struct connection *connection)
{
	pthread_mutex_lock(&http->gate.lock);
	unlink_connection(&http->gate, connection);
	pthread_mutex_unlock(&http->gate.lock);
	close(connection->fd);
	free_connection(connection);
}

struct connection *
gate_arrived(struct http *http, int fd)
{
	struct gate *gate = &http->gate;
	struct connection *connection = NULL;

	pthread_mutex_lock(&gate->lock);
	if (fd >= 0 && (size_t)fd < gate->by_fd_size)
		connection = gate->by_fd[fd];
	if (connection != NULL)
		atomic_store(&connection->state, CONNECTION_FIRST);
	pthread_mutex_unlock(&gate->lock);
	return connection;
}

void
gate_gone(struct http *http, struct connection *connection)
{
	pthread_mutex_lock(&http->gate.lock);
	unlink_connection(&http->gate, connection);
	pthread_mutex_unlock(&http->gate.lock);
	free_connection(connection);
}

/* ---- accepting ---- */

static void
describe_peer(struct connection *connection)
{
	const struct sockaddr_in6 *peer6 = &connection->peer;

	if (peer6->sin6_family == AF_INET) {
		struct sockaddr_in peer4;

		memcpy(&peer4, peer6, sizeof(peer4));
		memcpy(connection->address_key, &peer4.sin_addr, 4);
		(void)inet_ntop(
			AF_INET, &peer4.sin_addr, connection->address, sizeof(connection->address));
	} else if (IN6_IS_ADDR_V4MAPPED(&peer6->sin6_addr)) {
		memcpy(connection->address_key, peer6->sin6_addr.s6_addr + 12, 4);
		(void)inet_ntop(AF_INET, peer6->sin6_addr.s6_addr + 12, connection->address,
			sizeof(connection->address));
	} else {
		/* A subscriber has at least a /64: its addresses are one. */
		memcpy(connection->address_key, peer6->sin6_addr.s6_addr, 8);
		connection->address_key[15] = 6;
		(void)inet_ntop(AF_INET6, &peer6->sin6_addr, connection->address,
			sizeof(connection->address));
	}
}

static size_t
count_address(struct gate *gate, const struct connection *like)
{
	size_t count = 0;

	for (const struct connection *one = *bucket_of(gate, like); one != NULL;
		one = one->bucket_next)
		count +=
			one->listener == like->listener && !one->dying &&
			memcmp(one->address_key, like->address_key, sizeof(like->address_key)) == 0;
	return count;
}

/* With the lock. False: it may not stay. */
static bool
admit(struct http *http, struct connection *connection)
{
	struct listener *listener = connection->listener;
	struct gate *gate = &http->gate;

	if (count_address(gate, connection) >= (size_t)http->config->connections_per_address_max) {
		atomic_fetch_add(&listener->refused_address, 1);
		return false;
	}
	if (listener->open - listener->dying >= (size_t)http->config->connections_max &&
		!make_room(gate, listener)) {
		atomic_fetch_add(&listener->refused_full, 1);
		return false;
	}
	return link_connection(gate, connection);
}

static void
take_in(struct http *http, struct connection *connection)
{
	struct gate *gate = &http->gate;
	struct epoll_event event = { .events = EPOLLIN | EPOLLRDHUP | EPOLLET,
		.data.ptr = connection };
	const int on = 1;
	bool stays;

	/* A handshake is several small writes: with Nagle's wait it takes a delayed ACK (40 ms)
	 * longer. */
	(void)setsockopt(connection->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	describe_peer(connection);
	pthread_mutex_lock(&gate->lock);
	stays = admit(http, connection);
	pthread_mutex_unlock(&gate->lock);
	if (!stays) {
		close(connection->fd);
		mem_free(connection);
		return;
	}
	atomic_fetch_add(&connection->listener->accepted, 1);
	gate->crowd++;
	if (has_spoken(connection) ||
		epoll_ctl(gate->epoll_fd, EPOLL_CTL_ADD, connection->fd, &event) != 0)
		hand_over(http, connection);
}

/* The process has no descriptor left: the listener's least deserving connection gives one back. */
static void
out_of_descriptors(struct http *http, struct listener *listener)
{
	pthread_mutex_lock(&http->gate.lock);
	if (!make_room(&http->gate, listener))
		atomic_fetch_add(&listener->refused_full, 1);
	pthread_mutex_unlock(&http->gate.lock);
	/* Level-triggered: without a pause the thread would turn until the lane has closed it. */
	usleep(1000);
}

static void
accept_some(struct http *http, struct listener *listener)
{
	for (unsigned i = 0; i < ACCEPTS_AT_ONCE; i++) {
		struct connection *connection = mem_zalloc(sizeof(*connection));
		int64_t now_ms = http_now_ms();

		if (connection == NULL)
			return;
		connection->listener = listener;
		connection->peer_len = sizeof(connection->peer);
		connection->fd = accept4(listener->fd, (struct sockaddr *)&connection->peer,
			&connection->peer_len, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (connection->fd < 0) {
			int error = errno;

			mem_free(connection);
			if (error == EMFILE || error == ENFILE || error == ENOBUFS ||
				error == ENOMEM)
				out_of_descriptors(http, listener);
			/* Others: the peer went away before we came, which is its affair. */
			return;
		}
		connection_enter(connection, CONNECTION_WAITING,
			now_ms + http->config->first_request_timeout_ms);
		take_in(http, connection);
	}
}

/* ---- the clock ---- */

/*
 * Cuts what is over time; returns how long to sleep: for ever when nobody is here. Deadlines are
 * set further ahead than a turn is long, so none is missed by more than a turn.
 */
static int
sweep(struct http *http)
{
	const struct config *config = http->config;
	int64_t least = config->first_request_timeout_ms < config->idle_timeout_ms
	                        ? config->first_request_timeout_ms
	                        : config->idle_timeout_ms;
	int64_t turn_ms = least / 8 < 20 ? 20 : least / 8 > 1000 ? 1000 : least / 8;
	struct gate *gate = &http->gate;
	int64_t now_ms = http_now_ms();
	bool any;

	pthread_mutex_lock(&gate->lock);
	for (struct connection *one = gate->head, *next; one != NULL; one = next) {
		int64_t deadline_ms = atomic_load(&one->deadline_ms);

		next = one->next;
		if (one->dying || deadline_ms == 0 || deadline_ms > now_ms ||
			atomic_load(&one->state) == CONNECTION_HANDED)
			continue;
		cut(gate, one, CUT_TIMEOUT);
	}
	any = gate->head != NULL;
	pthread_mutex_unlock(&gate->lock);
	if (any)
		return (int)turn_ms;
	/* A crowd has gone: what it made the heap grow by goes back. */
	if (gate->crowd >= TRIM_FROM_CONNECTIONS)
		(void)malloc_trim(0);
	gate->crowd = 0;
	return -1;
}

/* No request is in flight on it: none came after the last, or none at all within the grace. */
static bool
is_quiet(const struct connection *connection)
{
	enum connection_state state = atomic_load(&connection->state);

	if (state == CONNECTION_WAITING || state == CONNECTION_FIRST)
		return http_now_ms() - atomic_load(&connection->since_ms) >= ARRIVAL_GRACE_MS;
	return state == CONNECTION_IDLE;
}

static void
cut_quiet(struct gate *gate)
{
	pthread_mutex_lock(&gate->lock);
	for (struct connection *one = gate->head, *next; one != NULL; one = next) {
		next = one->next;
		if (!one->dying && is_quiet(one))
			cut(gate, one, CUT_EVICTED);
	}
	pthread_mutex_unlock(&gate->lock);
}

static void
close_listeners(struct http *http)
{
	for (size_t i = 0; i < http->listener_count; i++) {
		struct listener *listener = &http->listeners[i];

		if (listener->fd < 0)
			continue;
		(void)epoll_ctl(http->gate.epoll_fd, EPOLL_CTL_DEL, listener->fd, NULL);
		close(listener->fd);
		listener->fd = -1;
	}
}

static bool
is_listener(const struct http *http, const void *what)
{
	for (size_t i = 0; i < http->listener_count; i++)
		if (what == &http->listeners[i])
			return true;
	return false;
}

static void
handle_events(struct http *http, struct epoll_event *events, int count)
{
	/*
	 * Those who speak first, new ones after: accepting may cut one of the waiting room, and
	 * then an event of this round would point to nothing.
	 */
	for (int i = 0; i < count; i++) {
		struct connection *connection = events[i].data.ptr;

		if (connection == NULL || is_listener(http, connection))
			continue;
		if (has_spoken(connection))
			hand_over(http, connection);
		else if ((events[i].events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0)
			give_up(http, connection);
	}
	for (int i = 0; i < count; i++) {
		struct listener *listener = events[i].data.ptr;

		if (listener != NULL && is_listener(http, listener) &&
			atomic_load(&http->gate.phase) == GATE_OPEN)
			accept_some(http, listener);
	}
}

static void *
run(void *arg)
{
	struct http *http = arg;
	struct gate *gate = &http->gate;
	int64_t swept_ms = http_now_ms();
	int timeout_ms = -1;

	while (atomic_load(&gate->phase) != GATE_ENDED) {
		struct epoll_event events[EVENTS_AT_ONCE];
		int count = epoll_wait(gate->epoll_fd, events, EVENTS_AT_ONCE, timeout_ms);

		handle_events(http, events, count);
		if (atomic_load(&gate->phase) == GATE_CLOSED) {
			close_listeners(http);
			cut_quiet(gate);
		}
		if (timeout_ms < 0 || http_now_ms() - swept_ms >= timeout_ms) {
			timeout_ms = sweep(http);
			swept_ms = http_now_ms();
		}
		if (atomic_load(&gate->phase) == GATE_CLOSED)
			timeout_ms = CLOSED_TICK_MS;
	}
	return NULL;
}

static void
wake(struct gate *gate)
{
	const uint64_t one = 1;

	/* Cannot fail: the counter is far from its end. */
	if (write(gate->wake_fd, &one, sizeof(one)) < 0)
		log_event(LOG_ERROR, "gate_wake", NULL, LOG_STR("detail", strerror(errno)));
}

static enum status
watch(struct gate *gate, int fd, uint32_t events, void *what, struct err *err)
{
	struct epoll_event event = { .events = events, .data.ptr = what };

	if (epoll_ctl(gate->epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0)
		return err_set(err, ERR_UNAVAILABLE, "listener", "epoll: %s", strerror(errno));
	return OK;
}

enum status
gate_watch(struct http *http, bool tls, struct err *err)
{
	for (size_t i = 0; i < http->listener_count; i++) {
		struct listener *listener = &http->listeners[i];
		int flags = fcntl(listener->fd, F_GETFL);

		if (listener->tls != tls)
			continue;
		if (flags < 0 || fcntl(listener->fd, F_SETFL, flags | O_NONBLOCK) != 0)
			return err_set(err, ERR_UNAVAILABLE, "listener", "%s: %s", listener->name,
				strerror(errno));
		TRY(watch(&http->gate, listener->fd, EPOLLIN, listener, err));
	}
	return OK;
}

enum status
gate_start(struct http *http, struct err *err)
{
	struct gate *gate = &http->gate;
	pthread_attr_t attr;
	int rc;

	atomic_store(&gate->phase, GATE_OPEN);
	gate->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	gate->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (gate->epoll_fd < 0 || gate->wake_fd < 0)
		return err_set(err, ERR_UNAVAILABLE, "listener", "epoll: %s", strerror(errno));
	/* Edge-triggered: it need not be read. */
	TRY(watch(gate, gate->wake_fd, EPOLLIN | EPOLLET, NULL, err));
	TRY(gate_watch(http, false, err));
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, THREAD_STACK_BYTES);
	rc = pthread_create(&gate->thread, &attr, run, http);
	pthread_attr_destroy(&attr);
	if (rc != 0)
		return err_set(err, ERR_UNAVAILABLE, "threads", "gate: %s", strerror(rc));
	gate->started = true;
	return OK;
}

void
gate_close(struct http *http)
{
	if (!http->gate.started)
		return;
	atomic_store(&http->gate.phase, GATE_CLOSED);
	wake(&http->gate);
}

void
gate_stop(struct http *http)
{
	struct gate *gate = &http->gate;

	if (gate->started) {
		atomic_store(&gate->phase, GATE_ENDED);
		wake(gate);
		pthread_join(gate->thread, NULL);
		gate->started = false;
	}
	close_listeners(http);
	if (gate->epoll_fd >= 0)
		close(gate->epoll_fd);
	if (gate->wake_fd >= 0)
		close(gate->wake_fd);
	gate->epoll_fd = gate->wake_fd = -1;
}

/* What is left in the waiting room; the lanes have closed theirs. */
void
gate_free(struct http *http)
{
	struct gate *gate = &http->gate;

	while (gate->head != NULL) {
		struct connection *one = gate->head;

		unlink_connection(gate, one);
		if (one->lane == NULL)
			close(one->fd);
		free_connection(one);
	}
	mem_free(gate->by_fd);
	gate->by_fd = NULL;
	gate->by_fd_size = 0;
}
