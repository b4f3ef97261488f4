/* server/listen.h - the listening sockets: bound by the supervisor, kept over restarts of the frontend. */
#ifndef SERVER_LISTEN_H
#define SERVER_LISTEN_H

#include "server/config.h"

enum listen_index { LISTEN_HTTPS = 0, LISTEN_STATIONS, LISTEN_HTTP, LISTEN_COUNT };

struct listen_set {
	struct config_listener at[LISTEN_COUNT];
	int fds[LISTEN_COUNT]; /* -1: off */
};

/*
 * Binds what config names; what `have` has bound already to the same address is taken over as the same
 * descriptor (have may be NULL). Waits a little for an address that an ending server still holds.
 * On failure nothing new stays open. ERR_UNAVAILABLE listen.
 */
MUST_USE enum status listen_bind(struct listen_set *out, const struct config *config,
	const struct listen_set *have, struct err *err);
/* Closes what `kept` (may be NULL) does not share. */
void listen_close(struct listen_set *set, const struct listen_set *kept);

#endif
