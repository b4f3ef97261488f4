/*
 * server/http/problem.h - errors as RFC 9457 problems. The only place that knows both enum status
 * and the statuses of HTTP.
 */
#ifndef SERVER_HTTP_PROBLEM_H
#define SERVER_HTTP_PROBLEM_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

/*
 * The HTTP status of a failure: by its code where only HTTP knows the case (unsupported_media_type
 * 415, not_acceptable 406, method_not_allowed 405, …), by its status otherwise.
 */
unsigned problem_status(const struct err *err);

/* True for statuses whose answer carries Retry-After; *seconds says how long. */
bool problem_retry_after(const struct err *err, int64_t *seconds);

/*
 * type, title, status, detail, code, request_id: the answer's body, and an item of a batch.
 * ERR_INTERNAL gets no detail. NULL when memory is short. request_id may be NULL: left out.
 */
MUST_USE json_t *problem_json(const struct err *err, const char *request_id);

#endif
