/*
 * server/http/pace.h - how often somebody who is not known may ask for what costs: a bucket of tokens for
 * each address (IPv6: each /64), and one for all together. Bounded: a thousand addresses are remembered,
 * those that have been quiet forgotten first.
 */
#ifndef SERVER_HTTP_PACE_H
#define SERVER_HTTP_PACE_H

#include "server/http/request.h"

enum pace {
	PACE_ADDRESS = 1, /* ten at once, then one in two seconds */
	PACE_EVERYONE,    /* twenty at once, then one a second: for what the address alone cannot bound */
};

/* Takes a token of the asker's. ERR_TOO_MANY rate_limited, with the time after which there is one again. */
MUST_USE enum status request_pace(struct request *request, enum pace whose, struct err *err);

#endif
