#include "server/iot/pacer.h"

#include <pthread.h>
#include <string.h>

#include "base/mem.h"
#include "db/iot.h"

/* More operations than we call. */
#define ENTRIES_MAX 64
/* What one transaction fetches: so much of a second's worth, and no more than that. */
#define CHUNK_OF_SECOND 20
#define CHUNK_MAX 50
/* What was fetched and not used by then is forgotten: others wait for their share. */
#define STASH_MS 1000

struct entry {
	const char *operation; /* static text of the caller's */
	int64_t stash, stash_until_ms;
	int64_t urgent_until_ms; /* an urgent caller waits that long */
};

struct iot_pacer {
	struct aws_pacer aws;
	const char *target;
	struct db_pool *pool;
	const struct aws_quota *quotas;
	size_t quota_count;
	const struct clock *clock;
	pthread_mutex_t lock;
	struct entry entries[ENTRIES_MAX];
	size_t count;
};

static struct entry *
entry_of(struct iot_pacer *pacer, const char *operation)
{
	for (size_t i = 0; i < pacer->count; i++)
		if (strcmp(pacer->entries[i].operation, operation) == 0)
			return &pacer->entries[i];
	if (pacer->count == ENTRIES_MAX)
		return NULL;
	pacer->entries[pacer->count].operation = operation;
	return &pacer->entries[pacer->count++];
}

/* From what was fetched before. True: *wait_ms is decided. */
static bool
take_here(struct iot_pacer *pacer, const char *operation, int priority, int64_t *wait_ms)
{
	int64_t now_ms = clock_mono_ms(pacer->clock);
	bool decided = true;
	struct entry *entry;

	(void)pthread_mutex_lock(&pacer->lock);
	entry = entry_of(pacer, operation);
	*wait_ms = 0;
	if (entry != NULL && priority != AWS_PRIORITY_URGENT && entry->urgent_until_ms > now_ms)
		*wait_ms = entry->urgent_until_ms - now_ms;
	else if (entry != NULL && entry->stash > 0 && entry->stash_until_ms > now_ms)
		entry->stash--;
	else
		decided = false;
	(void)pthread_mutex_unlock(&pacer->lock);
	return decided;
}

static void
keep(struct iot_pacer *pacer, const char *operation, int priority, int64_t left, int64_t wait_ms)
{
	int64_t now_ms = clock_mono_ms(pacer->clock);
	struct entry *entry;

	(void)pthread_mutex_lock(&pacer->lock);
	entry = entry_of(pacer, operation);
	if (entry != NULL && left > 0) {
		entry->stash = left;
		entry->stash_until_ms = now_ms + STASH_MS;
	}
	if (entry != NULL && priority == AWS_PRIORITY_URGENT)
		entry->urgent_until_ms = wait_ms > 0 ? now_ms + wait_ms + 1 : 0;
	(void)pthread_mutex_unlock(&pacer->lock);
}

static enum status
take(void *arg, const char *operation, int priority, int64_t *wait_ms, struct err *err)
{
	struct iot_pacer *pacer = arg;
	struct aws_quota quota = aws_quota_find(pacer->quotas, pacer->quota_count, operation);
	double burst = quota.burst < 1 ? 1 : quota.burst;
	int64_t want = (int64_t)(quota.per_second / CHUNK_OF_SECOND);
	own_struct(db_tx) tx = { NULL, NULL };
	int64_t got;

	if (take_here(pacer, operation, priority, wait_ms))
		return OK;
	want = want < 1 ? 1 : want > CHUNK_MAX ? CHUNK_MAX : want;
	TRY(db_tx_begin(&tx, pacer->pool, err));
	TRY(db_iot_quota_take(&tx, pacer->target, operation, quota.per_second, burst, want, &got,
		wait_ms, err));
	TRY(db_tx_commit(&tx, err));
	keep(pacer, operation, priority, got - 1, *wait_ms);
	return OK;
}

enum status
iot_pacer_new(struct iot_pacer **out, const char *target, struct db_pool *pool,
	const struct aws_quota *quotas, size_t quota_count, const struct clock *clock, struct err *err)
{
	struct iot_pacer *pacer = mem_zalloc(sizeof(*pacer));

	if (pacer == NULL)
		return err_memory(err);
	pacer->aws = (struct aws_pacer){ .take = take, .arg = pacer };
	pacer->target = target;
	pacer->pool = pool;
	pacer->quotas = quotas;
	pacer->quota_count = quota_count;
	pacer->clock = clock;
	(void)pthread_mutex_init(&pacer->lock, NULL);
	*out = pacer;
	return OK;
}

void
iot_pacer_free(struct iot_pacer *pacer)
{
	if (pacer == NULL)
		return;
	(void)pthread_mutex_destroy(&pacer->lock);
	mem_free(pacer);
}

const struct aws_pacer *
iot_pacer_aws(const struct iot_pacer *pacer)
{
	return &pacer->aws;
}
