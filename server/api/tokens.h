/*
 * server/api/tokens.h - the bearer tokens of principals and stations: the same three calls under either
 * path. A token is shown once, in the answer that makes it; only its hash is kept.
 */
#ifndef SERVER_API_TOKENS_H
#define SERVER_API_TOKENS_H

#include "server/http/route.h"

/* {description?, expires_at? | valid_for?} makes one for the principal of that id, which exists. */
MUST_USE enum status tokens_create(struct app *app, struct request *request, const char *principal_id,
	struct err *err);
MUST_USE enum status tokens_list(struct app *app, struct request *request, const char *principal_id,
	struct err *err);
/* The token is the {token_id} of the path. 204; repeated too. */
MUST_USE enum status tokens_revoke(struct app *app, struct request *request, const char *principal_id,
	struct err *err);

#endif
