/* server/api/principals.h - what principals and stations have in common. */
#ifndef SERVER_API_PRINCIPALS_H
#define SERVER_API_PRINCIPALS_H

#include <jansson.h>

#include "db/principal.h"
#include "server/http/route.h"

#define PRINCIPAL_DESCRIPTION_MAX_BYTES 256

/* {id, role, description, created_by, created_at, disabled_at}; NULL: memory is short. */
json_t *principals_render(const struct db_principal *principal);

/*
 * Disables or enables the principal of that id in one transaction with its audit record; kind is
 * "principal" or "station". *changed false: it was so already. Its tokens stop at once.
 */
MUST_USE enum status principals_set_disabled(struct app *app, struct request *request,
	const char *kind, const char *id, bool disabled, struct err *err);

#endif
