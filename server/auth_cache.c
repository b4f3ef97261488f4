#include "server/auth_cache.h"

#include <assert.h>
#include <pthread.h>
#include <string.h>

#include "base/mem.h"

/* Places that a key may be in: enough that a full table seldom forgets what was just asked for. */
#define WAYS 4

struct entry {
	uint8_t key[AUTH_KEY_BYTES];
	uint64_t epoch;
	uint64_t used_at; /* in gets and puts; 0: empty */
	_Alignas(16) uint8_t value[];
};

struct auth_cache {
	pthread_mutex_t lock; /* held for a copy of a few hundred octets */
	size_t sets, value_bytes, entry_bytes;
	uint64_t now;
	uint8_t *entries;
};

enum status
auth_cache_new(struct auth_cache **out, size_t entries, size_t value_bytes, struct err *err)
{
	struct auth_cache *cache = mem_zalloc(sizeof(*cache));

	assert(entries >= WAYS && entries % WAYS == 0);
	if (cache == NULL)
		return err_memory(err);
	cache->sets = entries / WAYS;
	cache->value_bytes = value_bytes;
	cache->entry_bytes = (sizeof(struct entry) + value_bytes + 15) & ~(size_t)15;
	/* Zeroed by the kernel: what is not used costs no memory. */
	cache->entries = mem_array(entries, cache->entry_bytes);
	if (cache->entries == NULL) {
		mem_free(cache);
		return err_memory(err);
	}
	(void)pthread_mutex_init(&cache->lock, NULL);
	*out = cache;
	return OK;
}

void
auth_cache_free(struct auth_cache *cache)
{
	if (cache == NULL)
		return;
	(void)pthread_mutex_destroy(&cache->lock);
	mem_free(cache->entries);
	mem_free(cache);
}

/* The keys are hashes: any of their octets are as good as random. */
static struct entry *
entry_at(const struct auth_cache *cache, const uint8_t key[AUTH_KEY_BYTES], size_t way)
{
	uint64_t number;

	memcpy(&number, key, sizeof(number));
	return (struct entry *)(void *)(cache->entries +
					(number % cache->sets * WAYS + way) * cache->entry_bytes);
}

static struct entry *
find(const struct auth_cache *cache, const uint8_t key[AUTH_KEY_BYTES])
{
	for (size_t way = 0; way < WAYS; way++) {
		struct entry *entry = entry_at(cache, key, way);

		if (entry->used_at != 0 && memcmp(entry->key, key, AUTH_KEY_BYTES) == 0)
			return entry;
	}
	return NULL;
}

bool
auth_cache_get(struct auth_cache *cache, const uint8_t key[AUTH_KEY_BYTES], void *value,
	uint64_t *epoch)
{
	struct entry *entry;

	(void)pthread_mutex_lock(&cache->lock);
	entry = find(cache, key);
	if (entry != NULL) {
		entry->used_at = ++cache->now;
		*epoch = entry->epoch;
		memcpy(value, entry->value, cache->value_bytes);
	}
	(void)pthread_mutex_unlock(&cache->lock);
	return entry != NULL;
}

void
auth_cache_put(struct auth_cache *cache, const uint8_t key[AUTH_KEY_BYTES], const void *value,
	uint64_t epoch)
{
	struct entry *entry;

	(void)pthread_mutex_lock(&cache->lock);
	entry = find(cache, key);
	if (entry == NULL) {
		entry = entry_at(cache, key, 0);
		for (size_t way = 1; way < WAYS; way++)
			if (entry_at(cache, key, way)->used_at < entry->used_at)
				entry = entry_at(cache, key, way);
	}
	memcpy(entry->key, key, AUTH_KEY_BYTES);
	memcpy(entry->value, value, cache->value_bytes);
	entry->epoch = epoch;
	entry->used_at = ++cache->now;
	(void)pthread_mutex_unlock(&cache->lock);
}
