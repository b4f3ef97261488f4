/*
 * server/protocol/caching.h - what HTTP caches want to know of an answer (RFC 9110 13, RFC 5019 6.2).
 */
#ifndef SERVER_PROTOCOL_CACHING_H
#define SERVER_PROTOCOL_CACHING_H

#include <stdbool.h>
#include <stdint.h>

#include "server/http/request.h"

/* "Tue, 24 Nov 2026 16:14:02 GMT" (RFC 9110 5.6.7). */
#define HTTP_DATE_BYTES 40
void http_date(char out[HTTP_DATE_BYTES], int64_t wall_s);

/* Does the request say that it has this already? etag is in its quotes. */
bool caching_not_modified(const struct request *request, const char *etag, const char *last_modified);

#endif
