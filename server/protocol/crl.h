/*
 * server/protocol/crl.h - CRL distribution (RFC 5280 section 5, RFC 5019 6 for the caching headers): the
 * published lists, small ones in memory and large ones as open files, so that they are served while
 * PostgreSQL is away, and their routes; the files (crl_store.h) are also served when a server starts
 * meanwhile. What has run past its nextUpdate is not served (503 crl_expired).
 */
#ifndef SERVER_PROTOCOL_CRL_H
#define SERVER_PROTOCOL_CRL_H

#include "base/pile.h"
#include "db/crl.h"
#include "server/http/route.h"

struct app;
struct app_ca;
struct crl_cache;

/* With what data_dir has of lists; borrows it. */
MUST_USE enum status crl_cache_new(struct crl_cache **out, const char *data_dir, struct err *err);
void crl_cache_free(struct crl_cache *cache);

/* Takes a closed list, and keeps it if it is newer than what there is of that scope. Thread-safe. */
MUST_USE enum status crl_cache_put(struct crl_cache *cache, const struct db_crl *crl, struct pile *list,
	struct err *err);
/* The CAs are known now: forgets lists from files that another certificate of their ids signed. */
void crl_cache_claim(struct app *app);
/*
 * Reads from the database what is newer there, for every CA of app. Where it is the database that is
 * behind (restored from a backup), the next list gets a number above what was served.
 */
enum crl_part {
	CRL_PART_ALL = 1,
	CRL_PART_SOON, /* all but full lists, which may take their time */
	CRL_PART_FULL,
};
MUST_USE enum status crl_cache_refresh(struct app *app, enum crl_part part, struct err *err);
/* The same for one scope, in tx. Without fetch: only what the database is behind in. */
MUST_USE enum status crl_cache_sync(struct app *app, struct db_tx *tx, const struct app_ca *ca,
	int16_t scope, bool fetch, struct err *err);

/* A list that is held while it is read; it may be replaced meanwhile. */
struct crl_list;
typedef struct crl_list crl_list;
/* NULL: there is none. about may be NULL. */
struct crl_list *crl_cache_hold(struct crl_cache *cache, const char *ca_id, int16_t scope,
	struct db_crl *about);
const struct pile *crl_list_pile(const struct crl_list *list);
void crl_list_drop(struct crl_list *list); /* NULL is welcome */
OWNER(crl_list, crl_list_drop)

struct crl_cache_health {
	size_t lists, missing;   /* of CRL_SCOPES a CA that can sign */
	int64_t oldest_this_update_s;
	int64_t first_next_update_s; /* 0: none held */
	int64_t full_entries, full_number, full_this_update_s, full_bytes;
	int64_t delta_entries, delta_number, delta_this_update_s;
};
void crl_cache_health(struct crl_cache *cache, const char *ca_id, struct crl_cache_health *out);

extern const struct route CRL_ROUTES[];

#endif
