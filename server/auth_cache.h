/*
 * server/auth_cache.h - remembers what was found out about those who asked lately: a bounded table from
 * a hash (of a certificate, of a token) to a value of a fixed size. It knows nothing of what it holds:
 * whether a value still counts is for the caller to judge by the epoch it was put with
 * (server/freshness.h). Where it is full, the one that was not asked for the longest goes.
 *
 * Threads: safe from any.
 */
#ifndef SERVER_AUTH_CACHE_H
#define SERVER_AUTH_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define AUTH_KEY_BYTES 32

struct auth_cache;

/* Of at most `entries` (a multiple of 4) values of value_bytes each. */
MUST_USE enum status auth_cache_new(struct auth_cache **out, size_t entries, size_t value_bytes,
	struct err *err);
void auth_cache_free(struct auth_cache *cache); /* NULL is welcome */

/* False: nothing is remembered of key. Copies value and the epoch it was put with. */
bool auth_cache_get(struct auth_cache *cache, const uint8_t key[AUTH_KEY_BYTES], void *value,
	uint64_t *epoch);
/* Copies; in the place of what was there of key. */
void auth_cache_put(struct auth_cache *cache, const uint8_t key[AUTH_KEY_BYTES], const void *value,
	uint64_t epoch);

#endif
