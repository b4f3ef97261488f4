/*
 * server/notify/send_syslog.c - syslog by UDP (RFC 5426), TCP (RFC 6587, octet counting), TLS (RFC 5425)
 * and the machine's own socket. Syslog acknowledges nothing: over TCP and TLS a message counts as sent once
 * the other side's kernel has it.
 */
#include <curl/curl.h>
#include <errno.h>
#include <linux/sockios.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/mem.h"
#include "ca/file.h"
#include "server/notify/send.h"

/* The kernel says not when a peer has acknowledged: it is asked as often. */
#define ACK_POLL_MS 5

OWNER(CURL, curl_easy_cleanup)

typedef struct addrinfo addrinfo;
static void
addresses_free(addrinfo *list)
{
	if (list != NULL)
		freeaddrinfo(list);
}
OWNER(addrinfo, addresses_free)

static enum status
unreachable(struct err *err, const char *what, int number)
{
	return err_set(err, ERR_UNAVAILABLE, "notify_unreachable", "%s: %s", what, strerror(number));
}

/* ---- datagrams ---- */

static enum status
send_udp(const struct notify_channel *channel, struct view text, struct err *err)
{
	const addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_DGRAM };
	own(addrinfo) list = NULL;
	int code = getaddrinfo(channel->host, channel->port, &hints, &list);
	int failed = 0;

	if (code != 0)
		return err_set(err, ERR_UNAVAILABLE, "notify_unreachable", "%s: %s", channel->host,
			gai_strerror(code));
	for (const addrinfo *at = list; at != NULL; at = at->ai_next) {
		own_struct(fd) it = { socket(at->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0) };

		if (it.fd >= 0 && sendto(it.fd, text.data, text.len, 0, at->ai_addr, at->ai_addrlen) ==
			(ssize_t)text.len)
			return OK;
		failed = errno;
	}
	return unreachable(err, channel->host, failed);
}

/* /dev/log is a socket of datagrams, with some daemons one of a stream. */
static enum status
send_local(const struct notify_channel *channel, struct view text, struct err *err)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	static const int TYPES[] = { SOCK_DGRAM, SOCK_STREAM };
	int failed = 0;

	(void)snprintf(to.sun_path, sizeof(to.sun_path), "%s", channel->path);
	for (size_t i = 0; i < COUNT_OF(TYPES); i++) {
		own_struct(fd) it = { socket(AF_UNIX, TYPES[i] | SOCK_CLOEXEC | SOCK_NONBLOCK, 0) };
		/* In a stream a NUL ends a message. */
		size_t len = text.len + (TYPES[i] == SOCK_STREAM ? 1 : 0);

		if (it.fd >= 0 && connect(it.fd, (const struct sockaddr *)&to, sizeof(to)) == 0 &&
			send(it.fd, text.data, len, MSG_NOSIGNAL) == (ssize_t)len)
			return OK;
		failed = errno;
		if (failed != EPROTOTYPE)
			break;
	}
	return unreachable(err, channel->path, failed);
}

/* ---- streams: libcurl connects, speaks TLS and checks the certificate, nothing else ---- */

static enum status
dial(CURL *curl, const struct notify_channel *channel, struct err *err)
{
	char detail[CURL_ERROR_SIZE] = "";
	char url[NOTIFY_HOST_BYTES + 32];
	bool v6 = strchr(channel->host, ':') != NULL;
	CURLcode code;

	(void)snprintf(url, sizeof(url), "%s://%s%s%s:%s",
		channel->transport == TRANSPORT_TLS ? "https" : "http", v6 ? "[" : "", channel->host,
		v6 ? "]" : "", channel->port);
	(void)curl_easy_setopt(curl, CURLOPT_URL, url);
	(void)curl_easy_setopt(curl, CURLOPT_CONNECT_ONLY, 1L);
	(void)curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	(void)curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
	(void)curl_easy_setopt(curl, CURLOPT_SSL_ENABLE_ALPN, 0L);
	(void)curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, 1L);
	(void)curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, 2L);
	(void)curl_easy_setopt(curl, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	if (channel->ca_file[0] != '\0')
		(void)curl_easy_setopt(curl, CURLOPT_CAINFO, channel->ca_file);
	(void)curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, (long)channel->timeout_ms);
	(void)curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)channel->timeout_ms);
	(void)curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, detail);
	code = curl_easy_perform(curl);
	(void)curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, NULL);
	if (code == CURLE_OK)
		return OK;
	return err_set(err, ERR_UNAVAILABLE, "notify_unreachable", "%s",
		detail[0] != '\0' ? detail : curl_easy_strerror(code));
}

/* Waits for the socket; false: the time is over, or we are stopped. */
static bool
wait_for(const struct notify_sender *sender, int fd, short events, int64_t end_ms)
{
	while (!*sender->stopping && clock_mono_ms(sender->clock) < end_ms) {
		struct pollfd polled = { .fd = fd, .events = events };

		if (poll(&polled, 1, 100) > 0)
			return true;
	}
	return false;
}

static enum status
write_all(CURL *curl, const struct notify_sender *sender, int fd, struct view text, int64_t end_ms,
	struct err *err)
{
	while (text.len > 0) {
		size_t sent = 0;
		CURLcode code = curl_easy_send(curl, text.data, text.len, &sent);

		if (code == CURLE_AGAIN && wait_for(sender, fd, POLLOUT, end_ms))
			continue;
		if (code != CURLE_OK)
			return err_set(err, ERR_UNAVAILABLE, "notify_unreachable", "%s",
				curl_easy_strerror(code));
		text.data += sent;
		text.len -= sent;
	}
	return OK;
}

/* Until nothing is on its way any more; an end that comes instead has taken it or not. */
static enum status
wait_acknowledged(const struct notify_sender *sender, int fd, int64_t end_ms, struct err *err)
{
	int left = 0;

	while (ioctl(fd, SIOCOUTQ, &left) == 0 && left > 0) {
		struct pollfd polled = { .fd = fd };

		if (*sender->stopping || clock_mono_ms(sender->clock) >= end_ms)
			return err_set(err, ERR_UNAVAILABLE, "notify_unreachable",
				"the receiver does not acknowledge");
		if (poll(&polled, 1, ACK_POLL_MS) > 0) /* POLLERR, POLLHUP: reset */
			return err_set(err, ERR_UNAVAILABLE, "notify_unreachable",
				"the receiver closed the connection");
	}
	return OK;
}

static enum status
send_stream(const struct notify_sender *sender, struct view text, struct err *err)
{
	own_struct(buf) framed = { .limit_bytes = NOTIFY_SYSLOG_MAX_BYTES + 16 };
	int64_t end_ms = clock_mono_ms(sender->clock) + 2 * sender->channel->timeout_ms;
	own(CURL) curl = curl_easy_init();
	curl_socket_t fd = CURL_SOCKET_BAD;

	if (curl == NULL)
		return err_memory(err);
	/* RFC 6587 3.4.1, RFC 5425 4.3: MSG-LEN SP SYSLOG-MSG */
	TRY(buf_format(&framed, err, "%zu ", text.len));
	TRY(buf_add(&framed, text.data, text.len, err));
	TRY(dial(curl, sender->channel, err));
	if (curl_easy_getinfo(curl, CURLINFO_ACTIVESOCKET, &fd) != CURLE_OK || fd == CURL_SOCKET_BAD)
		return err_set(err, ERR_UNAVAILABLE, "notify_unreachable", "no connection");
	TRY(write_all(curl, sender, fd, buf_view(&framed), end_ms, err));
	return wait_acknowledged(sender, fd, end_ms, err);
}

enum status
notify_send_syslog(const struct notify_sender *sender, const struct notify_message *message,
	struct err *err)
{
	const struct notify_channel *channel = sender->channel;
	own_struct(buf) text = { .limit_bytes = 4 * DB_NOTIFICATION_BODY_BYTES };
	const char *hostname = channel->hostname[0] != '\0' ? channel->hostname : sender->hostname;

	TRY(notify_message_syslog(&text, message, channel, hostname, (int)getpid(), err));
	switch (channel->transport) {
	case TRANSPORT_UDP: return send_udp(channel, buf_view(&text), err);
	case TRANSPORT_LOCAL: /* with the NUL that a stream wants behind it */
		TRY(buf_add(&text, "", 1, err));
		return send_local(channel, (struct view){ text.data, text.len - 1 }, err);
	case TRANSPORT_TCP:
	case TRANSPORT_TLS: return send_stream(sender, buf_view(&text), err);
	case TRANSPORT_UNSET: break;
	}
	return err_set(err, ERR_INTERNAL, "internal", "a syslog channel without a transport");
}
