/* server/api/rotation_ask.h - asking for a successor, for both lanes that lead there. */
#ifndef SERVER_API_ROTATION_ASK_H
#define SERVER_API_ROTATION_ASK_H

#include <jansson.h>

#include "server/http/request.h"

struct app;

/*
 * Has {csr} of body signed as the successor of the certificate that the request's identity names, and
 * answers. fields: all that body may have. Takes body, also on failure.
 */
MUST_USE enum status rotation_ask_successor(struct app *app, struct request *request, json_t *body,
	const char *const *fields, struct err *err);

#endif
