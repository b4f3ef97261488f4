/*
 * server/jobs/crl.h - makes the lists of a CA and publishes them. Number reserved (committed) → entries read,
 * held against the lists before and written → signed → published (invariants 1 and 6). Memory does not grow
 * with a list. What is due, and when, is the affair of server/jobs/crl_round.h.
 *
 * A small full list is made together with its delta: one number, the same rows (RFC 5280 5.2.4). A large one
 * takes its time, so it is made by itself, on a thread, connection and signer channel of its own; deltas go
 * on meanwhile and have the higher numbers. Deltas go on from the older of two full lists that are
 * crl_refresh apart, so that who fetched a full list within that time needs no other.
 *
 * All: *made counts what was published. ERR_CONFLICT crl_lost_entry, crl_older: refused (invariant 6).
 */
#ifndef SERVER_JOBS_CRL_H
#define SERVER_JOBS_CRL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct app;
struct app_ca;

MUST_USE enum status crl_make_shard(struct app *app, const struct app_ca *ca, int16_t shard, size_t *made,
	struct err *err);
/* ERR_CONFLICT crl_base_gone: the full list that it was to go on from is no base, or not any more. */
MUST_USE enum status crl_make_delta(struct app *app, const struct app_ca *ca, size_t *made,
	struct err *err);
/* A full list and its delta. rebase: deltas go on from this one and no other from now on. */
MUST_USE enum status crl_make_both(struct app *app, const struct app_ca *ca, bool rebase, size_t *made,
	struct err *err);
/* A full list; a delta is due then. Beside the other three, but only once at a time. */
MUST_USE enum status crl_make_full(struct app *app, const struct app_ca *ca, bool rebase, size_t *made,
	struct err *err);

/* Does the full list of that many octets go with every revocation? */
bool crl_is_small(const struct app *app, int64_t full_bytes);
/* Has a delta grown so much that it is no help beside the full list? */
bool crl_is_grown(int64_t delta_entries, int64_t full_entries);

#endif
