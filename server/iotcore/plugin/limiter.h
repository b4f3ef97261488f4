/*
 * server/iotcore/plugin/limiter.h - what strangers may cost: token buckets in a table of fixed
 * size, by the keyed hash of whom they are for. Two that share a place share its bucket. Threads:
 * one.
 */
#ifndef SERVER_IOTCORE_PLUGIN_LIMITER_H
#define SERVER_IOTCORE_PLUGIN_LIMITER_H

#include <stdbool.h>
#include <stdint.h>

#define LIMITER_PLACES 4096

struct limiter {
	int64_t per_s; /* at once as well; 0: nothing passes */
	struct {
		int64_t at_ms;
		int64_t left_milli; /* thousandths of a token */
	} places[LIMITER_PLACES];
};

/* Takes a token. now_ms: monotonic, above 0. */
bool limiter_pass(struct limiter *limiter, uint64_t hash, int64_t now_ms);
/* Whether there is one. */
bool limiter_left(const struct limiter *limiter, uint64_t hash, int64_t now_ms);

#endif
