#include "server/iotcore/plugin/limiter.h"

#include <stddef.h>

/* Thousandths of a token that a place has now. */
static int64_t
left_milli(const struct limiter *limiter, size_t i, int64_t now_ms)
{
	int64_t full = limiter->per_s * 1000;
	int64_t since_ms = now_ms - limiter->places[i].at_ms;
	int64_t left =
		since_ms >= 1000 ? full : limiter->places[i].left_milli + since_ms * limiter->per_s;

	return left < full ? left : full;
}

bool
limiter_pass(struct limiter *limiter, uint64_t hash, int64_t now_ms)
{
	size_t i = hash % LIMITER_PLACES;
	int64_t left = left_milli(limiter, i, now_ms);

	limiter->places[i].at_ms = now_ms;
	limiter->places[i].left_milli = left >= 1000 ? left - 1000 : left;
	return left >= 1000;
}

bool
limiter_left(const struct limiter *limiter, uint64_t hash, int64_t now_ms)
{
	return left_milli(limiter, hash % LIMITER_PLACES, now_ms) >= 1000;
}
