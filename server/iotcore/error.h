/*
 * server/iotcore/error.h - failures as AWS IoT has them: HTTP status, x-amzn-ErrorType,
 * x-amzn-RequestId and a body {"message"}. The struct err of such a failure has the exception's name as its
 * code. What handlers use of this stands in op.h.
 */
#ifndef SERVER_IOTCORE_ERROR_H
#define SERVER_IOTCORE_ERROR_H

#include <stdbool.h>

#include "base/err.h"
#include "server/http/request.h"

/* The exception and HTTP status that a failure is shown with. */
struct core_exception {
	const char *name;
	unsigned http;
	enum status status;
};
const struct core_exception *core_exception_of(const struct err *err);

/* The renderer of struct http_setup; the note of a request is its struct call, or NULL. */
MUST_USE enum status core_render(struct request *request, const struct err *problem, struct err *err);

/* The request's id as AWS writes one (a UUID), in the header x-amzn-RequestId of the answer. */
MUST_USE enum status core_reply_request_id(struct request *request, struct err *err);

#endif
