/*
 * server/protocol/crl.h - CRL distribution (RFC 5280 section 5, RFC 5019 6 for the caching headers): the
 * published lists in memory, so that they are served while PostgreSQL is away, and their routes; and in
 * files (crl_store.h), so that they are served when a server starts meanwhile.
 * What has run past its nextUpdate is not served (503 crl_expired).
 */
#ifndef SERVER_PROTOCOL_CRL_H
#define SERVER_PROTOCOL_CRL_H

#include "db/crl.h"
#include "server/http/route.h"

struct app;
struct crl_cache;

/* With what data_dir has of lists; borrows it. */
MUST_USE enum status crl_cache_new(struct crl_cache **out, const char *data_dir, struct err *err);
void crl_cache_free(struct crl_cache *cache);

/* Takes a list that is newer than what it holds of that scope; otherwise frees it. Thread-safe. */
MUST_USE enum status crl_cache_put(struct crl_cache *cache, struct db_crl *crl, struct err *err);
/* The CAs are known now: forgets lists from files that another certificate of their ids signed. */
void crl_cache_claim(struct app *app);
/*
 * Reads from the database what is newer there, for every CA of app. Where it is the database that is
 * behind (restored from a backup), the next list gets a number above what was served.
 */
MUST_USE enum status crl_cache_refresh(struct app *app, struct err *err);

struct crl_cache_health {
	size_t lists, missing;   /* of 257 a CA that can sign */
	int64_t oldest_this_update_s;
	int64_t first_next_update_s; /* 0: none held */
	int64_t full_entries, full_number, full_this_update_s;
};
void crl_cache_health(struct crl_cache *cache, const char *ca_id, struct crl_cache_health *out);

extern const struct route CRL_ROUTES[];

#endif
