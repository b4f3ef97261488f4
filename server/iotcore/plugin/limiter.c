#include "server/iotcore/plugin/limiter.h"

#include <stddef.h>

bool
limiter_pass(struct limiter *limiter, uint64_t hash, int64_t now_ms)
{
	size_t i = hash % LIMITER_PLACES;
	int64_t full = limiter->per_s * 1000;
	int64_t since_ms = now_ms - limiter->places[i].at_ms;
	int64_t left =
		since_ms >= 1000 ? full : limiter->places[i].left_milli + since_ms * limiter->per_s;

	if (left > full)
		left = full;
	limiter->places[i].at_ms = now_ms;
	limiter->places[i].left_milli = left >= 1000 ? left - 1000 : left;
	return left >= 1000;
}
