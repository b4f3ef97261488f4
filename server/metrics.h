/*
 * server/metrics.h - counters and gauges of the process, each declared in one table in metrics.c and
 * printed as Prometheus text. Any thread may add; no lock is taken. Counts start at zero with the
 * process: what must outlive it is in the database.
 *
 *   metric_add(METRIC_ISSUED, 1);
 */
#ifndef SERVER_METRICS_H
#define SERVER_METRICS_H

#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

enum metric {
	/* counters: metric_add */
	METRIC_ISSUED = 0,          /* certificates released */
	METRIC_ISSUE_REPLAYED,      /* idempotent repeats answered */
	METRIC_ISSUE_REFUSED,       /* items refused, by any rule */
	METRIC_ISSUE_FAILED,        /* items lost to the database or the signer */
	METRIC_BATCHES,             /* Record transactions */
	METRIC_INTENTS_CLOSED,      /* intents of dead instances, closed as revoked */
	METRIC_REVOKED,
	METRIC_ROTATION_CONFIRMED,
	METRIC_AUTH_FAILED,
	METRIC_CLONED_KEYS,         /* a public key seen on another device */
	METRIC_CRL_PUBLISHED,
	METRIC_CRL_FAILED,
	METRIC_CRL_REFUSED,         /* lists not published because they lost an entry or went back */
	METRIC_AUDIT_RECORDS,
	METRIC_SIGNER_RESTARTS,     /* links to the signer made anew */
	METRIC_DB_RETRIES,
	METRIC_JOB_FAILED,
	/* gauges: metric_set */
	METRIC_ISSUE_QUEUE,         /* items waiting in the pipeline */
	METRIC_LEADER,              /* 1 while this server runs the periodic jobs */
	METRIC_COUNT,
};

void metric_add(enum metric metric, uint64_t n);
void metric_set(enum metric metric, int64_t value);
int64_t metric_get(enum metric metric);

/* Appends all of them with HELP and TYPE. */
MUST_USE enum status metrics_print(struct buf *out, struct err *err);

#endif
