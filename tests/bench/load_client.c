#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#include "base/mem.h"
#include "tests/bench/load.h"

#define EVENTS_MAX 256
#define REQUEST_MAX_BYTES ((size_t)64 << 20)
/* Nobody who measures wants to wait longer for what is under way. */
#define PATIENCE_US (60 * INT64_C(1000000))

enum state {
	STATE_CLOSED,
	STATE_HANDSHAKE,
	STATE_SEND,
	STATE_RECEIVE,
	STATE_READY, /* connected and warm: waits for the start */
};

struct client {
	struct link link;
	enum state state;
	bool warm, was_ready;
	bool writing; /* watched for it as well */
	struct buf out;
	size_t sent;
	int64_t since_us;
	struct answer answer;
	size_t number; /* among the connections: its source address */
};

static struct {
	struct options *options;
	SSL_CTX *tls;
	int epoll;
	struct client *clients;
	size_t ready, open;
	bool started;
	uint64_t asked;
	uint64_t trouble;
	int64_t end_us;
	struct stats stats;
} run;

static void advance(struct client *client);

static void
watch(struct client *client, int operation, bool writing)
{
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = client };

	if (writing)
		event.events |= EPOLLOUT;
	if (operation == EPOLL_CTL_MOD && client->writing == writing)
		return;
	client->writing = writing;
	if (epoll_ctl(run.epoll, operation, client->link.fd, &event) != 0)
		die("epoll_ctl: %s", strerror(errno));
}

static bool
may_ask(void)
{
	const struct options *options = run.options;

	if (options->count > 0 && run.asked >= options->count)
		return false;
	return options->seconds <= 0 || now_us() < run.end_us;
}

static void
client_close(struct client *client)
{
	if (client->state == STATE_CLOSED)
		return;
	if (client->state == STATE_READY)
		run.ready--;
	run.open--;
	link_close(&client->link);
	client->state = STATE_CLOSED;
}

static void
client_open(struct client *client)
{
	client->since_us = now_us();
	if (!link_open(&client->link, run.options, run.tls, client->number)) {
		run.stats.failures[FAILED_CONNECT]++;
		run.trouble++;
		return;
	}
	run.open++;
	/* There a connection is what is counted. */
	if (run.options->mode == MODE_HANDSHAKE)
		run.asked++;
	client->state = STATE_HANDSHAKE;
	watch(client, EPOLL_CTL_ADD, true);
}

/* A connection that failed is opened again, unless all fail: then there is nobody there. */
static void
fail(struct client *client, enum failure failure)
{
	run.stats.failures[failure]++;
	client_close(client);
	if (++run.trouble < 1000 + 4 * run.options->connections && (!run.started || may_ask()))
		client_open(client);
}

static void
ask(struct client *client)
{
	client->sent = 0;
	client->state = STATE_SEND;
	answer_begin(&client->answer);
	if (client->warm) {
		request_write(run.options, run.asked, &client->out);
		if (run.options->mode != MODE_HANDSHAKE) {
			run.asked++;
			client->since_us = now_us();
		}
	} else {
		request_warm(run.options, &client->out);
	}
	advance(client);
}

static void
next(struct client *client)
{
	if (!run.started) {
		client->state = STATE_READY;
		client->was_ready = true;
		run.ready++;
	} else if (may_ask()) {
		ask(client);
	} else {
		client_close(client);
	}
}

static void
answered(struct client *client)
{
	bool counts = client->warm;

	if (counts)
		stats_answer(&run.stats, &client->answer, now_us() - client->since_us);
	client->warm = true;
	if (run.options->mode == MODE_HANDSHAKE) {
		client_close(client);
		if (may_ask())
			client_open(client);
		return;
	}
	if (client->answer.close) {
		client_close(client);
		if (!run.started || may_ask())
			client_open(client);
		return;
	}
	next(client);
}

static void
shake(struct client *client)
{
	int error = 0;
	socklen_t len = sizeof(error);

	(void)getsockopt(client->link.fd, SOL_SOCKET, SO_ERROR, &error, &len);
	if (error != 0) {
		fail(client, FAILED_CONNECT);
		return;
	}
	switch (link_handshake(&client->link)) {
	case LINK_DONE:
		run.stats.handshakes++;
		if (client->link.ssl != NULL && SSL_session_reused(client->link.ssl))
			run.stats.resumed++;
		client->state = STATE_SEND;
		watch(client, EPOLL_CTL_MOD, false);
		if (client->warm && run.options->mode != MODE_HANDSHAKE)
			next(client);
		else
			ask(client);
		return;
	case LINK_AGAIN: watch(client, EPOLL_CTL_MOD, client->link.wants_write); return;
	case LINK_CLOSED:
	default: fail(client, FAILED_TLS);
	}
}

static void
send_rest(struct client *client)
{
	while (client->sent < client->out.len) {
		size_t written;
		enum link_result result = link_write(&client->link, client->out.data + client->sent,
			client->out.len - client->sent, &written);

		if (result == LINK_CLOSED) {
			fail(client, FAILED_CLOSED);
			return;
		}
		if (result == LINK_AGAIN) {
			watch(client, EPOLL_CTL_MOD, client->link.wants_write);
			return;
		}
		client->sent += written;
	}
	watch(client, EPOLL_CTL_MOD, false);
	client->state = STATE_RECEIVE;
}

static void
receive(struct client *client)
{
	static char data[1 << 17];

	for (;;) {
		size_t got, used;
		enum link_result result = link_read(&client->link, data, sizeof(data), &got);

		if (result == LINK_AGAIN)
			return;
		if (result == LINK_CLOSED || (got > 0 && client->state != STATE_RECEIVE)) {
			fail(client, FAILED_CLOSED);
			return;
		}
		if (answer_take(&client->answer, data, got, &used)) {
			answered(client);
			return;
		}
		if (used == 0) {
			fail(client, FAILED_CLOSED);
			return;
		}
	}
}

static void
advance(struct client *client)
{
	switch (client->state) {
	case STATE_HANDSHAKE: shake(client); return;
	case STATE_SEND: send_rest(client); return;
	case STATE_RECEIVE:
	case STATE_READY: receive(client); return;
	case STATE_CLOSED:
	default: return;
	}
}

static void
wait_once(int timeout_ms)
{
	struct epoll_event events[EVENTS_MAX];
	int count = epoll_wait(run.epoll, events, EVENTS_MAX, timeout_ms);

	for (int i = 0; i < count; i++)
		advance(events[i].data.ptr);
}

static int64_t
cpu_us(void)
{
	struct rusage usage;

	(void)getrusage(RUSAGE_SELF, &usage);
	return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * INT64_C(1000000) +
	       usage.ru_utime.tv_usec + usage.ru_stime.tv_usec;
}

/* All connect and ask for one thing that does not count, so that nobody is measured while others
 * shake hands. */
static void
warm_up(void)
{
	int64_t limit_us = now_us() + PATIENCE_US;

	for (size_t i = 0; i < run.options->connections; i++) {
		client_open(&run.clients[i]);
		/* A listener's queue is short: let it follow. */
		if (i % 64 == 63)
			wait_once(5);
	}
	while (run.ready < run.open && now_us() < limit_us)
		wait_once(100);
}

static void
start(void)
{
	run.started = true;
	run.end_us = now_us() + (int64_t)(run.options->seconds * 1e6);
	for (size_t i = 0; i < run.options->connections; i++) {
		struct client *client = &run.clients[i];

		if (run.options->mode == MODE_HANDSHAKE) {
			client->warm = true;
			if (may_ask())
				client_open(client);
		} else if (client->state == STATE_READY) {
			run.ready--;
			client->state = STATE_SEND;
			next(client);
		}
	}
}

static void
finish(void)
{
	for (size_t i = 0; i < run.options->connections; i++) {
		struct client *client = &run.clients[i];

		client_close(client);
		SSL_SESSION_free(client->link.session);
		buf_free(&client->out);
	}
	mem_free(run.clients);
	SSL_CTX_free(run.tls);
	stats_free(&run.stats);
}

int
clients_run(struct options *options)
{
	int64_t begun_us, cpu_before_us, limit_us;

	run.options = options;
	run.tls = link_tls(options);
	run.epoll = epoll_create1(EPOLL_CLOEXEC);
	run.clients = mem_array(options->connections, sizeof(*run.clients));
	if (run.epoll < 0 || run.clients == NULL)
		die("cannot begin");
	for (size_t i = 0; i < options->connections; i++) {
		run.clients[i].number = i;
		run.clients[i].link.fd = -1;
		run.clients[i].out.limit_bytes = REQUEST_MAX_BYTES;
	}
	if (options->mode != MODE_HANDSHAKE)
		warm_up();
	memset(run.stats.failures, 0, sizeof(run.stats.failures));
	run.stats.handshakes = run.stats.resumed = 0;
	run.trouble = options->connections - run.ready;
	begun_us = now_us();
	cpu_before_us = cpu_us();
	start();
	limit_us = begun_us + PATIENCE_US + (int64_t)(options->seconds * 1e6);
	while (run.open > 0 && now_us() < limit_us)
		wait_once(100);
	stats_print(&run.stats, options, now_us() - begun_us, cpu_us() - cpu_before_us);
	finish();
	return 0;
}
