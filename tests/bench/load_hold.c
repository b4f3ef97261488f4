/*
 * Connections that begin something and do not finish it. When all stand, one line says so; then
 * they are kept until standard input ends or --seconds have passed. With --reopen, a tenth of them
 * a second is opened again if it was closed: a crowd that keeps coming, and leaves the machine to
 * whom is measured.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "base/mem.h"
#include "tests/bench/load.h"

enum kind { KIND_CONNECT = 1, KIND_HELLO, KIND_HEADERS, KIND_BODY, KIND_UNREAD };

static const char *const KINDS[] = {
	[KIND_CONNECT] = "connect",
	[KIND_HELLO] = "hello",
	[KIND_HEADERS] = "headers",
	[KIND_BODY] = "body",
	[KIND_UNREAD] = "unread",
};

#define EVENTS_MAX 256
/* Of a ClientHello: more than its record's header, less than the whole. */
#define HELLO_BYTES 100

struct held {
	struct link link;
	bool shaken, begun;
	size_t number;
};

static struct {
	const struct options *options;
	enum kind kind;
	SSL_CTX *tls;
	int epoll;
	struct held *held;
	size_t standing, closed, reopened, next;
	uint8_t hello[HELLO_BYTES];
} hold;

/* A real ClientHello, as OpenSSL would send it, cut short. */
static void
make_hello(void)
{
	SSL *ssl = SSL_new(hold.tls);
	BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());

	if (ssl == NULL || in == NULL || out == NULL)
		die("cannot make a ClientHello");
	SSL_set_bio(ssl, in, out);
	SSL_set_connect_state(ssl);
	(void)SSL_do_handshake(ssl);
	if (BIO_read(out, hold.hello, HELLO_BYTES) != HELLO_BYTES)
		die("cannot make a ClientHello");
	SSL_free(ssl);
}

static void
open_one(struct held *held)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLOUT, .data.ptr = held };
	bool talks_tls = hold.kind != KIND_CONNECT && hold.kind != KIND_HELLO;

	held->shaken = held->begun = false;
	if (!link_open(&held->link, hold.options, talks_tls ? hold.tls : NULL, held->number))
		return;
	if (epoll_ctl(hold.epoll, EPOLL_CTL_ADD, held->link.fd, &event) != 0)
		die("epoll_ctl: %s", strerror(errno));
}

static void
lost(struct held *held)
{
	hold.standing -= held->begun;
	hold.closed++;
	held->begun = false;
	link_close(&held->link);
}

static void
reopen(void)
{
	for (size_t i = 0; i < hold.options->connections / 10 + 1; i++) {
		struct held *held = &hold.held[hold.next++ % hold.options->connections];

		if (held->link.fd >= 0)
			continue;
		hold.reopened++;
		open_one(held);
	}
}

/* What is said first; what follows is a dribble of one octet after another. */
static void
first_words(struct buf *out)
{
	const char *path = hold.options->path != NULL ? hold.options->path : "/healthz";
	struct err err;
	enum status status = OK;

	out->len = 0;
	if (hold.kind == KIND_HELLO)
		status = buf_add(out, hold.hello, sizeof(hold.hello), &err);
	else if (hold.kind == KIND_HEADERS)
		status = buf_format(out, &err, "GET %s HTTP/1.1\r\nHost: x\r\nX-Slow: ", path);
	else if (hold.kind == KIND_BODY)
		status = buf_format(out, &err,
			"POST /v1/certificates HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n"
			"Content-Type: application/json\r\nContent-Length: 9000\r\n\r\n{\"csr\":\"",
			hold.options->token);
	else if (hold.kind == KIND_UNREAD)
		status = buf_format(out, &err, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path);
	if (status != OK)
		die("%s", err.text);
}

static void
say(struct held *held, struct buf *words)
{
	size_t written;

	if (words->len > 0 &&
		link_write(&held->link, words->data, words->len, &written) == LINK_CLOSED) {
		lost(held);
		return;
	}
	if (!held->begun)
		hold.standing++;
	held->begun = true;
}

static void
advance(struct held *held, unsigned events, struct buf *words)
{
	struct epoll_event quiet = { .events = EPOLLIN | EPOLLRDHUP, .data.ptr = held };
	char data[512];
	size_t got;

	if (!held->shaken) {
		enum link_result result = link_handshake(&held->link);

		if (result == LINK_CLOSED || (events & EPOLLHUP)) {
			lost(held);
			return;
		}
		quiet.events = result == LINK_AGAIN && held->link.wants_write ? EPOLLOUT : EPOLLIN;
		(void)epoll_ctl(hold.epoll, EPOLL_CTL_MOD, held->link.fd, &quiet);
		if (result == LINK_AGAIN)
			return;
		held->shaken = true;
		/* Who does not read is not woken by what there is to read. */
		quiet.events = hold.kind == KIND_UNREAD ? EPOLLRDHUP : EPOLLIN | EPOLLRDHUP;
		(void)epoll_ctl(hold.epoll, EPOLL_CTL_MOD, held->link.fd, &quiet);
		first_words(words);
		say(held, words);
		return;
	}
	if (hold.kind == KIND_UNREAD
			? (events & (EPOLLHUP | EPOLLERR)) != 0
			: link_read(&held->link, data, sizeof(data), &got) == LINK_CLOSED)
		lost(held);
}

static void
dribble(struct buf *words)
{
	struct err err;

	words->len = 0;
	if (buf_text(words, "a", &err) != OK)
		die("%s", err.text);
	if (hold.kind == KIND_UNREAD)
		first_words(words);
	for (size_t i = 0; i < hold.options->connections; i++)
		if (hold.held[i].begun && hold.held[i].link.fd >= 0)
			say(&hold.held[i], words);
}

static void
wait_once(int timeout_ms, struct buf *words, bool *end)
{
	struct epoll_event events[EVENTS_MAX];
	int count = epoll_wait(hold.epoll, events, EVENTS_MAX, timeout_ms);

	for (int i = 0; i < count; i++) {
		char c;

		if (events[i].data.ptr != NULL)
			advance(events[i].data.ptr, events[i].events, words);
		else if (read(STDIN_FILENO, &c, 1) <= 0)
			*end = true;
	}
}

static void
begin(const struct options *options)
{
	struct epoll_event input = { .events = EPOLLIN, .data.ptr = NULL };

	hold.options = options;
	for (size_t i = KIND_CONNECT; i < COUNT_OF(KINDS); i++)
		if (options->kind != NULL && strcmp(KINDS[i], options->kind) == 0)
			hold.kind = (enum kind)i;
	if (hold.kind == 0)
		die("hold --kind: connect, hello, headers, body or unread wanted");
	hold.tls = link_tls(options);
	hold.epoll = epoll_create1(EPOLL_CLOEXEC);
	hold.held = mem_array(options->connections, sizeof(*hold.held));
	if (hold.epoll < 0 || hold.held == NULL)
		die("cannot begin");
	if (hold.kind == KIND_HELLO) {
		if (hold.tls == NULL)
			die("hold --kind hello: --ca wanted");
		make_hello();
	}
	/* A file cannot be waited for: then the time alone ends it. */
	(void)epoll_ctl(hold.epoll, EPOLL_CTL_ADD, STDIN_FILENO, &input);
	for (size_t i = 0; i < options->connections; i++) {
		hold.held[i].number = i;
		hold.held[i].link.fd = -1;
	}
}

static void
keep(struct buf *words)
{
	const struct options *options = hold.options;
	int64_t end_us = now_us() + (int64_t)(options->seconds * 1e6);
	int64_t dribble_us = now_us(), reopen_us = now_us();
	bool end = false, told = false;

	while (!end && (options->seconds <= 0 || now_us() < end_us)) {
		wait_once(20, words, &end);
		if (!told && hold.standing + hold.closed >= options->connections) {
			printf("{\"held\":%zu,\"closed\":%zu}\n", hold.standing, hold.closed);
			(void)fflush(stdout);
			told = true;
		}
		if (options->pause > 0 &&
			now_us() - dribble_us >= (int64_t)(options->pause * 1e6)) {
			dribble_us = now_us();
			dribble(words);
		}
		if (options->reopen && now_us() - reopen_us >= 1000000) {
			reopen_us = now_us();
			reopen();
		}
	}
}

int
hold_run(struct options *options)
{
	struct buf words = { .limit_bytes = 4096 };
	bool end = false;

	begin(options);
	for (size_t i = 0; i < options->connections; i++) {
		open_one(&hold.held[i]);
		wait_once(i % 64 == 63 ? 5 : 0, &words, &end);
	}
	keep(&words);
	printf("{\"held_at_end\":%zu,\"closed\":%zu,\"reopened\":%zu}\n", hold.standing,
		hold.closed, hold.reopened);
	for (size_t i = 0; i < options->connections; i++)
		link_close(&hold.held[i].link);
	mem_free(hold.held);
	SSL_CTX_free(hold.tls);
	buf_free(&words);
	return 0;
}
