/*
 * server/iot/aws_pacer.h - no more requests than the account's quotas allow: a token bucket for
 * each operation, behind an interface, so that several servers can share buckets that live
 * elsewhere. Revocations come before activations: an urgent caller that finds a bucket empty is given
 * the next token in advance, and others wait for those that come then.
 */
#ifndef SERVER_IOT_AWS_PACER_H
#define SERVER_IOT_AWS_PACER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/err.h"

enum aws_priority {
	AWS_PRIORITY_NORMAL = 0, /* activation, reconciliation */
	AWS_PRIORITY_URGENT,     /* revocation, quarantine */
	AWS_PRIORITY_COUNT,
};

struct aws_token {
	bool taken;
	int64_t wait_ms;
};

struct aws_pacer {
	/*
	 * Takes one token of the operation's bucket. out->taken: it is the caller's, out->wait_ms from
	 * now, which is 0 for who is not urgent and never above most_ms; else that is how long to wait
	 * before asking again (the caller adds jitter). Any thread. A failure ends the caller's call.
	 */
	enum status (*take)(void *arg, const char *operation, int priority, int64_t most_ms,
		struct aws_token *out, struct err *err);
	void *arg;
};

struct aws_quota {
	const char *operation;
	double per_second; /* above 0 */
	double burst; /* at least 1; 0: what comes in 250 ms, so that no second sees much more */
};

/* What AWS documents per account and Region (adjustable there, so configurable here). */
extern const struct aws_quota AWS_QUOTAS[];
extern const size_t AWS_QUOTAS_COUNT;
/* For an operation that is in no table. */
#define AWS_QUOTA_DEFAULT_PER_SECOND 5.0
/* Among overrides: every operation that they do not name. */
#define AWS_QUOTA_EVERY "*"

/* The quota that holds for operation: of overrides by its name, of overrides for every one, else of
 * the table, else the default; .burst is set. */
struct aws_quota aws_quota_find(
	const struct aws_quota *overrides, size_t count, const char *operation);

struct aws_buckets;

/* Buckets of this process; each starts full. Copies overrides but borrows their texts. */
MUST_USE enum status aws_buckets_new(struct aws_buckets **out, const struct aws_quota *overrides,
	size_t count, const struct clock *clock, struct err *err);
void aws_buckets_free(struct aws_buckets *buckets); /* NULL is welcome */
struct aws_pacer aws_buckets_pacer(struct aws_buckets *buckets);

#endif
