/*
 * server/jobs/crl.h - publishes what is due: each shard and the full list of each CA that can sign.
 * Number reserved (committed) → entries read → list built → signed → held against the list before →
 * published (invariants 1 and 6).
 */
#ifndef SERVER_JOBS_CRL_H
#define SERVER_JOBS_CRL_H

#include "base/err.h"

struct app;

/* One round over all CAs, if this server leads; *published counts lists. */
MUST_USE enum status crl_job_run(struct app *app, size_t *published, struct err *err);

#endif
