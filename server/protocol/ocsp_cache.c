#include "server/protocol/ocsp_cache.h"

#include <pthread.h>
#include <string.h>

#include "base/mem.h"

/* So many locks: each is held for a few pointers, by as many threads as there are processors. */
#define SHARDS 16
/* What an answer of ours takes, about: CertID, response and the responder's certificate in it. */
#define ANSWER_TYPICAL_BYTES 1024

struct entry {
	struct entry *next;          /* of the same bucket */
	struct entry *newer, *older; /* in the order of use */
	struct ocsp_answer *answer;
};

struct shard {
	pthread_mutex_t lock; /* guards what follows */
	uint64_t changes;     /* ocsp_cache_mark */
	struct entry **buckets;
	size_t bucket_count; /* a power of two */
	struct entry *newest, *oldest;
	size_t bytes, entries;
	uint64_t evicted;
};

struct ocsp_cache {
	size_t shard_bytes_max;
	size_t started; /* shards whose lock is there */
	struct shard shards[SHARDS];
};

/* ---- answers ---- */

enum status
ocsp_answer_new(
	struct ocsp_answer **out, struct view id, struct view response, struct err *err)
{
	struct ocsp_answer *answer = mem_zalloc(sizeof(*answer) + id.len + response.len);

	if (answer == NULL)
		return err_memory(err);
	atomic_init(&answer->references, 1);
	answer->id_len = id.len;
	answer->len = response.len;
	if (id.len > 0)
		memcpy(answer->octets, id.data, id.len);
	memcpy(answer->octets + id.len, response.data, response.len);
	*out = answer;
	return OK;
}

void
ocsp_answer_drop(void *arg)
{
	struct ocsp_answer *answer = arg;

	if (answer != NULL && atomic_fetch_sub(&answer->references, 1) == 1)
		mem_free(answer);
}

/* ---- places ---- */

static size_t
cost_of(const struct ocsp_answer *answer)
{
	return sizeof(struct entry) + sizeof(*answer) + answer->id_len + answer->len;
}

/*
 * Serials are random where they are taken from here, and only those that were issued have answers in
 * the cache: nobody outside can choose where they go.
 */
static uint64_t
hash_of(const struct serial *serial)
{
	uint64_t hash;

	memcpy(&hash, serial->octets + 8, sizeof(hash));
	return hash;
}

static struct shard *
shard_of(struct ocsp_cache *cache, const struct serial *serial)
{
	return &cache->shards[hash_of(serial) % SHARDS];
}

static struct entry **
bucket_of(struct shard *shard, const struct serial *serial)
{
	return &shard->buckets[hash_of(serial) / SHARDS & (shard->bucket_count - 1)];
}

/* ---- the order of use; with the lock ---- */

static void
unlink_use(struct shard *shard, struct entry *entry)
{
	if (entry->newer != NULL)
		entry->newer->older = entry->older;
	else
		shard->newest = entry->older;
	if (entry->older != NULL)
		entry->older->newer = entry->newer;
	else
		shard->oldest = entry->newer;
}

static void
link_newest(struct shard *shard, struct entry *entry)
{
	entry->newer = NULL;
	entry->older = shard->newest;
	if (shard->newest != NULL)
		shard->newest->newer = entry;
	else
		shard->oldest = entry;
	shard->newest = entry;
}

/* Takes the entry that *at points to out of everything. */
static void
remove_at(struct shard *shard, struct entry **at)
{
	struct entry *entry = *at;

	*at = entry->next;
	unlink_use(shard, entry);
	shard->bytes -= cost_of(entry->answer);
	shard->entries--;
	ocsp_answer_drop(entry->answer);
	mem_free(entry);
}

static void
evict_oldest(struct shard *shard)
{
	struct entry **at = bucket_of(shard, &shard->oldest->answer->ref.serial);

	while (*at != shard->oldest) /* it is in its bucket */
		at = &(*at)->next;
	remove_at(shard, at);
	shard->evicted++;
}

static bool
is_id(const struct ocsp_answer *answer, struct view id)
{
	return view_equal((struct view){ answer->octets, answer->id_len }, id);
}

/* ---- the cache ---- */

static enum status
start_shard(struct shard *shard, size_t bytes_max, struct err *err)
{
	shard->bucket_count = 16;
	while (shard->bucket_count * ANSWER_TYPICAL_BYTES < bytes_max)
		shard->bucket_count *= 2;
	shard->buckets = mem_array(shard->bucket_count, sizeof(struct entry *));
	if (shard->buckets == NULL || pthread_mutex_init(&shard->lock, NULL) != 0) {
		mem_free(shard->buckets);
		return err_memory(err);
	}
	return OK;
}

enum status
ocsp_cache_new(struct ocsp_cache **out, size_t bytes_max, struct err *err)
{
	struct ocsp_cache *cache = mem_zalloc(sizeof(*cache));

	if (cache == NULL)
		return err_memory(err);
	cache->shard_bytes_max = bytes_max / SHARDS;
	for (; cache->started < SHARDS; cache->started++) {
		enum status status = start_shard(
			&cache->shards[cache->started], cache->shard_bytes_max, err);

		if (status != OK) {
			ocsp_cache_free(cache);
			return status;
		}
	}
	*out = cache;
	return OK;
}

void
ocsp_cache_free(struct ocsp_cache *cache)
{
	if (cache == NULL)
		return;
	ocsp_cache_clear(cache);
	for (size_t i = 0; i < cache->started; i++) {
		mem_free(cache->shards[i].buckets);
		(void)pthread_mutex_destroy(&cache->shards[i].lock);
	}
	mem_free(cache);
}

struct ocsp_answer *
ocsp_cache_get(struct ocsp_cache *cache, const struct ca_ocsp_id *id, int64_t now_s)
{
	struct shard *shard = shard_of(cache, &id->serial);
	struct ocsp_answer *found = NULL;

	(void)pthread_mutex_lock(&shard->lock);
	for (struct entry *entry = *bucket_of(shard, &id->serial); entry != NULL; entry = entry->next) {
		if (!is_id(entry->answer, id->whole))
			continue;
		if (now_s >= entry->answer->use_until_s)
			break;
		found = entry->answer;
		atomic_fetch_add(&found->references, 1);
		if (shard->newest != entry) {
			unlink_use(shard, entry);
			link_newest(shard, entry);
		}
		break;
	}
	(void)pthread_mutex_unlock(&shard->lock);
	return found;
}

uint64_t
ocsp_cache_mark(struct ocsp_cache *cache, const struct serial *serial)
{
	struct shard *shard = shard_of(cache, serial);
	uint64_t mark;

	(void)pthread_mutex_lock(&shard->lock);
	mark = shard->changes;
	(void)pthread_mutex_unlock(&shard->lock);
	return mark;
}

/* With the lock. */
static void
insert(struct ocsp_cache *cache, struct shard *shard, struct entry *entry)
{
	struct ocsp_answer *answer = entry->answer;
	struct entry **bucket = bucket_of(shard, &answer->ref.serial);

	for (struct entry **at = bucket; *at != NULL; at = &(*at)->next) {
		if (is_id((*at)->answer, (struct view){ answer->octets, answer->id_len })) {
			remove_at(shard, at);
			break;
		}
	}
	entry->next = *bucket;
	*bucket = entry;
	link_newest(shard, entry);
	shard->bytes += cost_of(answer);
	shard->entries++;
	while (shard->bytes > cache->shard_bytes_max) /* the last of all is the new one */
		evict_oldest(shard);
}

void
ocsp_cache_put(struct ocsp_cache *cache, struct ocsp_answer *answer, uint64_t mark)
{
	struct shard *shard = shard_of(cache, &answer->ref.serial);
	struct entry *entry = mem_zalloc(sizeof(*entry));
	bool kept;

	if (entry == NULL)
		return; /* it is made anew then */
	entry->answer = answer;
	atomic_fetch_add(&answer->references, 1);
	(void)pthread_mutex_lock(&shard->lock);
	kept = shard->changes == mark;
	if (kept)
		insert(cache, shard, entry);
	(void)pthread_mutex_unlock(&shard->lock);
	if (!kept) {
		mem_free(entry);
		ocsp_answer_drop(answer);
	}
}

void
ocsp_cache_forget(struct ocsp_cache *cache, const struct db_cert_ref *ref)
{
	struct shard *shard = shard_of(cache, &ref->serial);

	(void)pthread_mutex_lock(&shard->lock);
	shard->changes++;
	/* By every name that clients have for it: they differ in the hash. */
	for (struct entry **at = bucket_of(shard, &ref->serial); *at != NULL;) {
		if (db_ref_equal(&(*at)->answer->ref, ref))
			remove_at(shard, at);
		else
			at = &(*at)->next;
	}
	(void)pthread_mutex_unlock(&shard->lock);
}

void
ocsp_cache_clear(struct ocsp_cache *cache)
{
	for (size_t i = 0; i < cache->started; i++) {
		struct shard *shard = &cache->shards[i];

		(void)pthread_mutex_lock(&shard->lock);
		shard->changes++;
		for (size_t k = 0; k < shard->bucket_count; k++)
			while (shard->buckets[k] != NULL)
				remove_at(shard, &shard->buckets[k]);
		(void)pthread_mutex_unlock(&shard->lock);
	}
}

void
ocsp_cache_stats(struct ocsp_cache *cache, struct ocsp_cache_stats *out)
{
	*out = (struct ocsp_cache_stats){ .entries = 0 };
	for (size_t i = 0; i < SHARDS; i++) {
		struct shard *shard = &cache->shards[i];

		(void)pthread_mutex_lock(&shard->lock);
		out->entries += shard->entries;
		out->bytes += shard->bytes;
		out->evicted += shard->evicted;
		(void)pthread_mutex_unlock(&shard->lock);
	}
}
