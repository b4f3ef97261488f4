/*
 * server/iot/pacer.h - the buckets of a target's quotas as all servers share them: in the database, taken
 * from a few tokens at a time so that a call seldom costs a transaction.
 *
 * What takes something away comes first: a token that it waits for is its own from the moment it asked,
 * whoever else asks on whatever server; and while a worker of this server has such rows in hand, or knows
 * of some, nobody else of it is given a token at all, so that none slips in between two of them.
 */
#ifndef SERVER_IOT_PACER_H
#define SERVER_IOT_PACER_H

#include <stdatomic.h>

#include "db/db.h"
#include "server/iot/aws_pacer.h"

struct iot_pacer;

/* Whether there is something urgent in hand. Others wait so long for it, if nothing moves: then it hangs. */
#define IOT_URGENCY_MS 2000
struct iot_urgency {
	_Atomic unsigned count;
	_Atomic int64_t since_ms;
};
void iot_urgency_begin(struct iot_urgency *urgency, const struct clock *clock);
void iot_urgency_end(struct iot_urgency *urgency);

/* Borrows everything. */
MUST_USE enum status iot_pacer_new(struct iot_pacer **out, const char *target, struct db_pool *pool,
	const struct aws_quota *quotas, size_t quota_count, struct iot_urgency *urgency,
	const struct clock *clock, struct err *err);
void iot_pacer_free(struct iot_pacer *pacer); /* NULL is welcome */
const struct aws_pacer *iot_pacer_aws(const struct iot_pacer *pacer);

#endif
