#include "server/listen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

#define BACKLOG 4096 /* the kernel cuts it to net.core.somaxconn */
/* A supervisor that was killed leaves children that end at once, but not before it. */
#define BUSY_WAIT_MS 3000
#define BUSY_STEP_NS 20000000

static const char *const NAMES[LISTEN_COUNT] = { "https", "stations", "http" };

struct address {
	union {
		struct sockaddr any;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	} as;
	socklen_t len;
};

static bool
address_of(struct address *out, const struct config_listener *at)
{
	memset(out, 0, sizeof(*out));
	if (inet_pton(AF_INET, at->address, &out->as.v4.sin_addr) == 1) {
		out->as.v4.sin_family = AF_INET;
		out->as.v4.sin_port = htons((uint16_t)at->port);
		out->len = sizeof(out->as.v4);
		return true;
	}
	if (inet_pton(AF_INET6, at->address, &out->as.v6.sin6_addr) == 1) {
		out->as.v6.sin6_family = AF_INET6;
		out->as.v6.sin6_port = htons((uint16_t)at->port);
		out->len = sizeof(out->as.v6);
		return true;
	}
	return false;
}

static int
open_socket(const struct address *address)
{
	const int one = 1;
	int fd = socket(address->as.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return -1;
	(void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (address->as.any.sa_family == AF_INET6)
		(void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
	if (bind(fd, &address->as.any, address->len) == 0 && listen(fd, BACKLOG) == 0)
		return fd;
	(void)close(fd);
	return -1;
}

static enum status
bind_one(int *out, const struct config_listener *at, const char *name, struct err *err)
{
	int64_t end_us = clock_mono_us() + BUSY_WAIT_MS * 1000;
	struct address address;

	if (!address_of(&address, at))
		return err_set(
			err, ERR_ARGUMENT, "listen", "%s: '%s' is no address", name, at->address);
	while ((*out = open_socket(&address)) < 0) {
		const struct timespec step = { 0, BUSY_STEP_NS };
		int why = errno;

		if (why != EADDRINUSE || clock_mono_us() >= end_us)
			return err_set(err, ERR_UNAVAILABLE, "listen",
				"%s: cannot listen on %s port %lld: %s", name, at->address,
				(long long)at->port, strerror(why));
		(void)nanosleep(&step, NULL);
	}
	return OK;
}

static bool
same(const struct config_listener *a, const struct config_listener *b)
{
	return a->port == b->port && strcmp(a->address, b->address) == 0;
}

enum status
listen_bind(struct listen_set *out, const struct config *config, const struct listen_set *have,
	struct err *err)
{
	struct listen_set set = { .at = { config->https, config->stations, config->http },
		.fds = { -1, -1, -1 } };

	for (size_t i = 0; i < LISTEN_COUNT; i++) {
		for (size_t j = 0; have != NULL && j < LISTEN_COUNT; j++)
			if (have->fds[j] >= 0 && same(&set.at[i], &have->at[j]))
				set.fds[i] = have->fds[j];
		if (set.fds[i] >= 0 || set.at[i].address[0] == '\0')
			continue;
		if (bind_one(&set.fds[i], &set.at[i], NAMES[i], err) != OK) {
			set.fds[i] = -1;
			listen_close(&set, have);
			return err->status;
		}
	}
	*out = set;
	return OK;
}

void
listen_close(struct listen_set *set, const struct listen_set *kept)
{
	for (size_t i = 0; i < LISTEN_COUNT; i++) {
		bool shared = false;

		for (size_t j = 0; kept != NULL && j < LISTEN_COUNT; j++)
			shared |= set->fds[i] == kept->fds[j];
		if (set->fds[i] >= 0 && !shared)
			(void)close(set->fds[i]);
		set->fds[i] = -1;
	}
}
