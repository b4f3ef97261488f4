/*
 * server/iot/aws.h - calls to one AWS service in one account and Region: signed (Signature Version
 * 4), paced under the account's quotas, retried with backoff, guarded by a circuit breaker,
 * counted. What the calls mean is server/iot/iot_api.h; where credentials come from is
 * aws_credentials.h.
 *
 * One thread of ours runs the transfers (libcurl's multi interface) over kept connections; any
 * number of callers wait in aws_call. The server's certificate is always checked; http:// is for
 * loopback only. Redirects are not followed. An answer is read up to AWS_ANSWER_MAX_BYTES.
 */
#ifndef SERVER_IOT_AWS_H
#define SERVER_IOT_AWS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/entropy.h"
#include "base/err.h"
#include "server/iot/aws_breaker.h"
#include "server/iot/aws_error.h"
#include "server/iot/aws_pacer.h"

#define AWS_ANSWER_MAX_BYTES ((size_t)1 << 20)
#define AWS_QUERY_MAX 12
#define AWS_HEADERS_MAX 8
#define AWS_NAME_BYTES 64

struct aws_client;
struct aws_credentials;

struct aws_client_config {
	const char *name; /* for logs and metrics: "123456789012/eu-west-1"; copied, as all texts */
	const char *region;       /* "eu-west-1" */
	const char *service;      /* the signing name; NULL: "iot" */
	const char
		*endpoint_url; /* NULL: https://iot.REGION.amazonaws.com; a path prefix is kept */
	const char *ca_file;      /* PEM; NULL: the system's */
	unsigned connections_max;   /* 0: 16 */
	int64_t connect_timeout_ms; /* 0: 5 000 */
	int64_t attempt_timeout_ms; /* 0: 10 000; one attempt from its start to the whole answer */
	int64_t call_timeout_ms;    /* 0: 60 000; a call with its waits and attempts */
	unsigned attempts_max;      /* 0: 5 */
	struct aws_breaker_config breaker;     /* zero: the defaults of aws_breaker.h */
	struct aws_credentials *credentials;   /* borrowed; outlives the client */
	const struct aws_pacer *pacer;         /* borrowed; NULL: buckets of this client's own */
	const struct aws_quota *quotas;        /* for those: override the defaults of aws_pacer.h */
	size_t quota_count;
	const struct clock *clock;             /* NULL: CLOCK_SYSTEM */
	struct entropy *entropy;               /* for jitter; NULL: ENTROPY_SYSTEM */
};

/*
 * Starts the thread; sends nothing yet. ERR_ARGUMENT: aws_endpoint_malformed,
 * aws_endpoint_insecure, aws_region_malformed; ERR_UNAVAILABLE: out_of_memory, aws_client_start.
 */
MUST_USE enum status aws_client_new(struct aws_client **out, const struct aws_client_config *config,
	struct err *err);
/* Every call under way and every later one ends soon with AWS_ERROR_STOPPED. From any thread. */
void aws_client_stop(struct aws_client *client);
/* After aws_client_stop and when no thread is in aws_call any more. NULL is welcome. */
void aws_client_free(struct aws_client *client);

struct aws_pair {
	const char *name;
	const char *value;
};

struct aws_request {
	const char *operation; /* "DescribeThing": names the quota and the counters; static text */
	const char *method;
	const char *path;      /* from "/", as it goes on the wire: labels by aws_uri_encode */
	struct aws_pair query[AWS_QUERY_MAX]; /* not encoded; up to the first NULL name */
	struct aws_pair
		headers[AWS_HEADERS_MAX]; /* lower-case names; up to the first NULL name; signed */
	struct view body;      /* JSON; empty: none, and no Content-Type */
	bool once;             /* not sent again when the first may have been carried out */
	enum aws_priority priority;
	int64_t timeout_ms;    /* 0: the client's call_timeout_ms */
};

struct aws_reply {
	json_t *json; /* owned: the object, or NULL for an empty body */
	struct aws_failure failure; /* .error is AWS_ERROR_NONE after OK */
};
void aws_reply_free(struct aws_reply *reply);
OWNER_STRUCT(aws_reply, aws_reply_free)

/*
 * One call; blocks. OK: a 2xx whose body is empty or one JSON object. Otherwise reply->failure says
 * what happened and the status and code are those of aws_error.h's table; err's text holds the
 * service's message, escaped and bounded. Any thread.
 */
MUST_USE enum status aws_call(struct aws_client *client, const struct aws_request *request,
	struct aws_reply *reply, struct err *err);

/* What the client has done since its start. */
#define AWS_LATENCY_BOUNDS 12
extern const int64_t AWS_LATENCY_BOUND_MS[AWS_LATENCY_BOUNDS];

struct aws_operation_stats {
	const char *operation;
	int64_t calls;                     /* aws_call, whatever became of it */
	int64_t attempts;                  /* requests that were sent */
	int64_t retries;                   /* attempts after the first of a call */
	int64_t results[AWS_ERROR_COUNT];  /* calls by how they ended */
	int64_t throttles;                 /* attempts answered with throttling */
	int64_t paced_ms;                  /* time spent waiting for tokens */
	int64_t latency_ms_sum;            /* of attempts, as the next */
	int64_t latency[AWS_LATENCY_BOUNDS +
			1]; /* per bucket, not cumulative; the last is above all bounds */
};

struct aws_health {
	char name[AWS_NAME_BYTES];
	enum aws_breaker_state breaker;
	int64_t breaker_since_ms;     /* on the client's monotonic clock */
	int64_t breaker_opened;       /* times */
	int64_t in_flight;            /* calls */
	struct aws_failure
		last; /* the last failure that counted against the breaker; may be NONE */
};

void aws_client_health(struct aws_client *client, struct aws_health *out);
/* Calls visit for each operation called so far, with a copy; no lock is held meanwhile. */
void aws_client_stats(struct aws_client *client,
	void (*visit)(void *arg, const struct aws_operation_stats *stats), void *arg);
/* Prometheus text of several clients, HELP and TYPE once each; the label `client` is its name. */
MUST_USE enum status aws_print_metrics(struct aws_client *const *clients, size_t count,
	struct buf *out, struct err *err);

#endif
