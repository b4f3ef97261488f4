/*
 * server/metrics.h - counters and gauges of the process, each declared in one table in metrics.c and
 * printed as Prometheus text. Counts start at zero with the process: what must outlive it is in the
 * database. Any thread may count.
 *
 *   metric_add(METRIC_BATCHES, 1);
 *   metric_count(METRIC_ISSUANCE, profile->name, "issued", 1);
 */
#ifndef SERVER_METRICS_H
#define SERVER_METRICS_H

#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "db/db.h"

enum metric {
	/* counters with labels: metric_count */
	METRIC_ISSUANCE = 0,        /* profile; result: issued, replayed, refused, unavailable */
	METRIC_ISSUANCE_REFUSED,    /* code */
	METRIC_ISSUANCE_STAGE_US,   /* stage: prepare, admit, sign, record; printed in seconds */
	METRIC_PROBLEMS,            /* code: of any answer that is a problem */
	METRIC_REVOKED,             /* reason */
	METRIC_JOB_FAILED,          /* job */
	METRIC_JITR_EVENTS,         /* source: mqtt, webhook, sweep; result: accepted, known, refused */
	METRIC_IOT_APPLIED,         /* target; status that a certificate was given there */
	METRIC_OUTBOX_FAILED,       /* code */
	METRIC_SECURITY_EVENTS,     /* kind */
	METRIC_NOTIFICATIONS,       /* channel; result: sent, put_off, dead, suppressed */
	/* counters without: metric_add */
	METRIC_ISSUANCE_BUSY,       /* an item put off, for another of its key is under way */
	METRIC_ISSUANCE_BATCHES,
	METRIC_INTENTS_CLOSED,      /* orphans: given up by us or left by a dead server, now revoked */
	METRIC_ROTATION_CONFIRMED,
	METRIC_AUTH_FAILED,
	METRIC_AUTH_READ,           /* of those who asked, whose row was read: the others were remembered */
	METRIC_CLONED_KEYS,         /* a public key seen on another device */
	METRIC_CRL_PUBLISHED,
	METRIC_CRL_FAILED,
	METRIC_CRL_REFUSED,         /* lists not published because they lost an entry or went back */
	METRIC_AUDIT_RECORDS,
	METRIC_SIGNER_STARTS,       /* signers that this frontend was handed: more than one, restarts */
	METRIC_DB_RETRIES,
	/* gauges: metric_add to move, metric_set */
	METRIC_ISSUANCE_QUEUE,      /* items in the pipeline */
	METRIC_CRL_HELD,            /* lists that wait to be tried again */
	METRIC_LEADER,              /* 1 while this server publishes the CRLs */
	METRIC_COUNT,
};

void metric_add(enum metric metric, int64_t n);
void metric_set(enum metric metric, int64_t value);
/* Values of the labels that the table names, in its order; second NULL where it names one. Copied. */
void metric_count(enum metric metric, const char *first, const char *second, int64_t n);
int64_t metric_get(enum metric metric); /* one without labels */

/* Appends all of them with HELP and TYPE. */
MUST_USE enum status metrics_print(struct buf *out, struct err *err);
/* How full a pool is, how often it was waited for and what went wrong. */
MUST_USE enum status metrics_print_pool(struct buf *out, struct db_pool *pool, struct err *err);
#define METRICS_CONTENT_TYPE "text/plain; version=0.0.4; charset=utf-8"

#endif
