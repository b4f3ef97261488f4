/*
 * server/iot/pacer.h - the buckets of a target's quotas as all servers share them: in the database, taken
 * from a few tokens at a time so that a call seldom costs a transaction. While an urgent caller of this
 * server waits for a bucket, others of it leave it alone.
 */
#ifndef SERVER_IOT_PACER_H
#define SERVER_IOT_PACER_H

#include "db/db.h"
#include "server/iot/aws_pacer.h"

struct iot_pacer;

/* Borrows everything. */
MUST_USE enum status iot_pacer_new(struct iot_pacer **out, const char *target, struct db_pool *pool,
	const struct aws_quota *quotas, size_t quota_count, const struct clock *clock, struct err *err);
void iot_pacer_free(struct iot_pacer *pacer); /* NULL is welcome */
const struct aws_pacer *iot_pacer_aws(const struct iot_pacer *pacer);

#endif
