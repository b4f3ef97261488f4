/*
 * server/protocol/crl.h - CRL distribution (RFC 5280 section 5, RFC 5019 6 for the caching headers): the
 * published lists in memory, so that they are served while PostgreSQL is away, and their routes.
 * What has run past its nextUpdate is not served (503 crl_expired).
 */
#ifndef SERVER_PROTOCOL_CRL_H
#define SERVER_PROTOCOL_CRL_H

#include "db/crl.h"
#include "server/http/route.h"

struct app;
struct crl_cache;

MUST_USE enum status crl_cache_new(struct crl_cache **out, struct err *err);
void crl_cache_free(struct crl_cache *cache);

/* Takes a list that is newer than what it holds of that scope; otherwise frees it. Thread-safe. */
MUST_USE enum status crl_cache_put(struct crl_cache *cache, struct db_crl *crl, struct err *err);
/* Reads from the database what is newer there, for every CA of app. */
MUST_USE enum status crl_cache_refresh(struct app *app, struct err *err);

struct crl_cache_health {
	size_t lists, missing;   /* of 257 a CA that can sign */
	int64_t oldest_this_update_s;
	int64_t first_next_update_s; /* 0: none held */
	int64_t full_entries, full_number, full_this_update_s;
};
void crl_cache_health(struct crl_cache *cache, int32_t issuer_id, struct crl_cache_health *out);

extern const struct route CRL_ROUTES[];

#endif
