/*
 * server/http/request.h - one request as a handler sees it, and the answer it gives.
 *
 * A request is complete (headers, body within the route's limit) before its handler runs. Handlers run
 * on worker threads; the libmicrohttpd connection is suspended meanwhile. A handler answers with one of
 * request_reply_*, or returns a status other than OK (then problem+json is made of its err), or parks
 * the request with request_park() and answers later from another thread with request_finish().
 *
 * What belongs to a request (body, request_alloc) is freed with it, whatever happened. A request is
 * used by one thread at a time.
 */
#ifndef SERVER_HTTP_REQUEST_H
#define SERVER_HTTP_REQUEST_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

OWNER(json_t, json_decref)

struct request;
struct route;    /* server/http/route.h */
struct identity; /* server/auth.h */

#define REQUEST_ID_BYTES 33

const char *request_id(const struct request *request); /* 32 hex digits */
const char *request_method(const struct request *request);
const char *request_path(const struct request *request);
/* The value of a {name} in the route's path, percent-decoded; never NULL for a name of the route. */
const char *request_param(const struct request *request, const char *name);
/* A query parameter, percent-decoded, or NULL. Unknown, repeated or malformed ones are refused before
 * the handler runs, by the route's list. */
const char *request_query(const struct request *request, const char *name);
/* The query as it was sent, without the question mark; "" if none. */
const char *request_query_text(const struct request *request);
/* A header, or NULL. Repeated headers that may not be are refused (400 header_repeated). */
const char *request_header(const struct request *request, const char *name);
/* Calls each() for every header as it was sent, in no order; a false ends it. */
void request_headers(const struct request *request,
	bool (*each)(void *arg, const char *name, const char *value), void *arg);
struct view request_body(const struct request *request);
/* For routes with .spool: the body is in an unlinked file; at offset 0. -1 otherwise. */
int request_body_fd(const struct request *request);
/* Content-Type without parameters, lower case; "" if none. */
const char *request_content_type(const struct request *request);
/* Best match of Accept among types (NULL-terminated list); the first when there is no Accept; NULL: none. */
const char *request_accept(const struct request *request, const char *const *types);
/* The peer's certificate, DER; empty when it showed none. Not checked yet: see server/auth.h. */
struct view request_peer_certificate(const struct request *request);
/* The peer's address as text. */
const char *request_peer_address(const struct request *request);
bool request_is_tls(const struct request *request);

/* Memory that lives as long as the request; NULL when memory is short. Zeroed. */
MUST_USE void *request_alloc(struct request *request, size_t bytes);

/* Once, before the first thread and the first json_t: jansson's memory comes through base/mem.h, so that
 * request_json sees it run short. */
void request_json_setup(void);
/*
 * The body as a JSON object: 415 unless application/json; strict UTF-8, no duplicate keys, depth at
 * most 16, no NUL in strings, nothing after it: ERR_ARGUMENT json_malformed, json_duplicate_key,
 * json_too_deep, json_not_utf8, json_not_object, body_missing.
 */
MUST_USE enum status request_json(struct request *request, json_t **out, struct err *err);

/* JSON as answers have it, at the end of out. */
MUST_USE enum status request_json_text(struct buf *out, const json_t *json, struct err *err);
/* Answers. The json is taken (also on failure). status is an HTTP status. */
MUST_USE enum status request_reply_json(struct request *request, unsigned status, json_t *json,
	struct err *err);
/* Copies body. content_type must be static. */
MUST_USE enum status request_reply_bytes(struct request *request, unsigned status,
	const char *content_type, struct view body, struct err *err);
/* Takes body. */
MUST_USE enum status request_reply_owned(struct request *request, unsigned status,
	const char *content_type, struct bytes *body, struct err *err);
/* Sends body, which is owner's: drop(owner) is called once, when it is sent or cannot be. */
MUST_USE enum status request_reply_shared(struct request *request, unsigned status,
	const char *content_type, struct view body, void (*drop)(void *owner), void *owner,
	struct err *err);
/* Sends what is in fd from offset 0, size bytes; fd is taken. For exports: spool, then send. */
MUST_USE enum status request_reply_fd(struct request *request, unsigned status,
	const char *content_type, int fd, uint64_t size, struct err *err);
/* The same of size bytes from offset on: a part of a file. */
MUST_USE enum status request_reply_part(struct request *request, unsigned status,
	const char *content_type, int fd, uint64_t offset, uint64_t size, struct err *err);
/* Adds a header to the answer; both are copied. */
MUST_USE enum status request_reply_header(struct request *request, const char *name, const char *value,
	struct err *err);

/*
 * The handler will answer later; it returns OK after this. Another thread may finish the request only once
 * this has returned.
 */
void request_park(struct request *request);
/*
 * Ends a parked request: status OK (a reply was given by request_reply_*) or a failure (err becomes the
 * problem). From any thread, once. The request must not be touched afterwards.
 */
void request_finish(struct request *request, enum status status, const struct err *err);

/* For the log line and metrics: who asked, once known. Copied. */
void request_set_actor(struct request *request, const char *actor);
const char *request_actor(const struct request *request);
/* A slot for what authentication found; freed with request_alloc'd memory. */
void request_set_identity(struct request *request, const struct identity *identity);
const struct identity *request_identity(const struct request *request);
/* Where it was routed to, or NULL; the context of struct http_setup. */
const struct route *request_route(const struct request *request);
void *request_context(const struct request *request);
/* A slot for what the handler wants to tell the renderer; in request_alloc'd memory. */
void request_set_note(struct request *request, void *note);
void *request_note(const struct request *request);

#endif
