/*
 * server/jobs/crl.h - publishes what is due of each CA that can sign: shards, and the full list with its
 * delta. Number reserved (committed) → entries read, held against the lists before and written → signed →
 * published (invariants 1 and 6). Memory does not grow with a list.
 *
 * A delta follows each revocation at once; a large full list goes by the clock, with a delta of the same
 * number (RFC 5280 5.2.4). Deltas go on from the older of two full lists that are crl_refresh apart, so that
 * who fetched a full list within that time needs no other.
 */
#ifndef SERVER_JOBS_CRL_H
#define SERVER_JOBS_CRL_H

#include "base/err.h"

struct app;

/* One round over all CAs, if this server leads; *published counts lists. */
MUST_USE enum status crl_job_run(struct app *app, size_t *published, struct err *err);

#endif
