#include "server/http/pace.h"

#include <string.h>

#include "server/http/internal.h"

#define ADDRESS_BURST 10
#define ADDRESS_TOKEN_MS 2000
#define EVERYONE_BURST 20
#define EVERYONE_TOKEN_MS 1000
/* Slots that an address may be in. */
#define PROBES 8

/*
 * A bucket is the time at which it would be full again: a token costs token_ms of it. 0: not taken;
 * else how long until there is one.
 */
static int64_t
take(int64_t *full_at_ms, int64_t now_ms, unsigned burst, int64_t token_ms)
{
	int64_t then = (*full_at_ms > now_ms ? *full_at_ms : now_ms) + token_ms;
	int64_t over = then - now_ms - (int64_t)burst * token_ms;

	if (over > 0)
		return over;
	*full_at_ms = then;
	return 0;
}

/* The address's, or of the places where it could be the one that is full the soonest. */
static struct pace_slot *
slot_of(struct pace_table *table, const uint8_t key[16])
{
	struct pace_slot *best = NULL;
	uint64_t high, low;
	size_t first;

	memcpy(&high, key, 8);
	memcpy(&low, key + 8, 8);
	first = ((high ^ low) * UINT64_C(0x9e3779b97f4a7c15) >> 32) % PACE_SLOTS;
	for (size_t i = 0; i < PROBES; i++) {
		struct pace_slot *slot = &table->slots[(first + i) % PACE_SLOTS];

		if (slot->full_at_ms != 0 && memcmp(slot->key, key, sizeof(slot->key)) == 0)
			return slot;
		if (best == NULL || slot->full_at_ms < best->full_at_ms)
			best = slot;
	}
	memcpy(best->key, key, sizeof(best->key));
	best->full_at_ms = 0;
	return best;
}

enum status
request_pace(struct request *request, enum pace whose, struct err *err)
{
	struct pace_table *table = &request->http->pace;
	int64_t now_ms = http_now_ms();
	int64_t wait_ms;

	pthread_mutex_lock(&table->lock);
	if (whose == PACE_EVERYONE)
		wait_ms = take(&table->everyone_ms, now_ms, EVERYONE_BURST, EVERYONE_TOKEN_MS);
	else
		wait_ms = take(&slot_of(table, request->connection->address_key)->full_at_ms, now_ms,
			ADDRESS_BURST, ADDRESS_TOKEN_MS);
	pthread_mutex_unlock(&table->lock);
	if (wait_ms == 0)
		return OK;
	(void)err_set(err, ERR_TOO_MANY, "rate_limited",
		"too many such requests from %s; wait %lld ms",
		whose == PACE_EVERYONE ? "all together" : "this address", (long long)wait_ms);
	err->retry_after_s = (wait_ms + 999) / 1000;
	return ERR_TOO_MANY;
}
