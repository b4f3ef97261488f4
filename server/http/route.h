/*
 * server/http/route.h - the routing table. Methods match exactly; a known path with another method is
 * 405 with Allow; HEAD is answered where GET is. `{name}` stands for one path segment, or with a fixed
 * suffix in it for the rest: "/crl/{ca}/{shard}.crl". `{name+}` at the end stands for one segment or
 * more, with their slashes.
 */
#ifndef SERVER_HTTP_ROUTE_H
#define SERVER_HTTP_ROUTE_H

#include "server/http/request.h"

struct app;

enum role { /* bits; zero refuses: a route without roles stops the start */
	ROLE_ANYONE = 1 << 0,
	ROLE_DEVICE = 1 << 1,
	ROLE_STATION = 1 << 2,
	ROLE_OPERATOR = 1 << 3,
	ROLE_AUDITOR = 1 << 4,
	ROLE_ADMIN = 1 << 5,
	/* A device whose certificate is in its grace period after expiry; only with ROLE_DEVICE. */
	ROLE_DEVICE_GRACE = 1 << 6,
};

enum listener_kind { /* bits: on which listeners a route answers */
	LISTENER_HTTPS = 1 << 0,
	LISTENER_STATIONS = 1 << 1,
	LISTENER_HTTP = 1 << 2, /* plain */
};

struct route {
	const char *method;
	const char *path;
	enum status (*handle)(struct app *app, struct request *request, struct err *err);
	unsigned roles;
	unsigned listeners;       /* 0: both TLS listeners */
	size_t body_max_bytes;    /* 0: no body is taken */
	bool spool;               /* the body goes to a file; limit config.upload_max_bytes */
	const char *const *query; /* NULL-terminated names of allowed query parameters; NULL: none */
	bool inline_ok;           /* on the lane's own thread: answers from memory or parks, never blocks */
	/* Asked more often than anybody could read: what is answered well is logged at debug only. */
	bool quiet;
	/*
	 * As foreign clients expect it: unknown query parameters are ignored, and where a narrower path
	 * has not the method, this one may.
	 */
	bool lenient;
	const void *data;         /* the handler's own: request_route()->data */
};

/* A NULL-terminated array of tables, each ended by an entry without method. */
/* Liveness, readiness, metrics: every program has them, for anyone. */
#define ROUTES_HEALTH(healthz, readyz, metrics, where)                                             \
	{ .method = "GET", .path = "/healthz", .handle = (healthz), .roles = ROLE_ANYONE,          \
	  .listeners = (where), .inline_ok = true },                                               \
	{ .method = "GET", .path = "/readyz", .handle = (readyz), .roles = ROLE_ANYONE,            \
	  .listeners = (where) },                                                                  \
	{ .method = "GET", .path = "/metrics", .handle = (metrics), .roles = ROLE_ANYONE,          \
	  .listeners = (where) }
struct router;
/* Checks every entry (roles, method, handler, well-formed path, no two the same); ERR_INTERNAL says which. */
MUST_USE enum status router_new(struct router **out, const struct route *const *tables, struct err *err);
void router_free(struct router *router);

#endif
