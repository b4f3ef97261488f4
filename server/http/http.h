/*
 * server/http/http.h - the listeners: libmicrohttpd, TLS by GnuTLS, limits, workers.
 * Knows no resource. What it needs from outside comes in struct http_setup.
 */
#ifndef SERVER_HTTP_HTTP_H
#define SERVER_HTTP_HTTP_H

#include "server/config.h"
#include "server/http/route.h"

struct http;

struct http_setup {
	const struct config *config;     /* borrowed */
	struct app *app;                 /* handed to handlers */
	const struct router *router;     /* borrowed */
	int https_fd, stations_fd, http_fd; /* bound and listening; -1: off. Taken. */
	/*
	 * Called on a worker before the handler unless the route is ROLE_ANYONE: authenticates, checks the
	 * route's roles, sets identity and actor. See server/auth.h.
	 */
	enum status (*authorize)(struct app *app, struct request *request, unsigned roles,
		struct err *err);
	void *context; /* request_context(), for those who have no struct app */
	/*
	 * Makes the answer of a failure with request_reply_*; NULL: problem+json. Before the handler, too:
	 * then request_route() is NULL or its query and body are not there. May run on a lane's thread: never
	 * blocks.
	 */
	enum status (*render)(struct request *request, const struct err *problem, struct err *err);
};

/* *out is set before the first handler may run. The TLS listeners accept from http_set_certificates on. */
MUST_USE enum status http_start(struct http **out, const struct http_setup *setup, struct err *err);
/*
 * Takes no new connections, lets what is in flight finish (at most shutdown_timeout_ms), stops. False:
 * somebody still holds a request, and workers may run: nothing that handlers use is to be freed.
 */
bool http_stop(struct http *http);

/*
 * Sets the TLS certificates (SNI: the first whose names match; the first of all otherwise). PEM, the
 * chain behind the leaf. Swaps them under running connections. ERR_ARGUMENT tls_certificate.
 */
struct http_certificate { struct view certificate_pem, key_pem; };
MUST_USE enum status http_set_certificates(struct http *http, const struct http_certificate *certificates,
	size_t count, struct err *err);

/* Runs work(arg) on a worker thread; ERR_UNAVAILABLE server_busy when the queue is full. */
MUST_USE enum status http_defer(struct http *http, void (*work)(void *arg), void *arg, struct err *err);

/* Prometheus text of the listeners and requests, appended to out. */
MUST_USE enum status http_metrics(struct http *http, struct buf *out, struct err *err);

#endif
