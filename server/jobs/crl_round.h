/*
 * server/jobs/crl_round.h - which lists are due, in rounds over all CAs that can sign. Two threads go round:
 * one makes what must show within a second of a revocation (shards, deltas, full lists while they are small),
 * the other large full lists, which may take seconds. Each has an advisory lock of the database, so that one
 * server does either.
 *
 * A list that is refused or cannot be made is tried again after a second, then after twice as long each
 * time, up to five minutes; others do not wait for it.
 */
#ifndef SERVER_JOBS_CRL_ROUND_H
#define SERVER_JOBS_CRL_ROUND_H

#include <stddef.h>

#include "base/err.h"

struct app;

/* One thread's: what it holds back. */
struct crl_round;
MUST_USE enum status crl_round_new(struct crl_round **out, struct app *app, struct err *err);
void crl_round_free(struct crl_round *round); /* NULL is welcome */

/* One round, if this server leads; *published counts lists. */
MUST_USE enum status crl_round_soon(struct crl_round *round, size_t *published, struct err *err);
/* The same for large full lists. */
MUST_USE enum status crl_round_large(struct crl_round *round, size_t *published, struct err *err);

#endif
