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
/* Who is held up looks again so soon: what holds it up is mostly a call or two. */
#define HELD_MS 10

struct entry {
	const char *operation; /* static text of the caller's */
	int64_t stash, stash_until_ms;
};

struct iot_pacer {
	struct aws_pacer aws;
	const char *target;
	struct db_pool *pool;
	const struct aws_quota *quotas;
	size_t quota_count;
	struct iot_urgency *urgency;
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

void
iot_urgency_begin(struct iot_urgency *urgency, const struct clock *clock)
{
	urgency->since_ms = clock_mono_ms(clock);
	urgency->count++;
}

void
iot_urgency_end(struct iot_urgency *urgency)
{
	urgency->count--;
}

static bool
is_held_up(struct iot_pacer *pacer, int priority)
{
	int64_t now_ms = clock_mono_ms(pacer->clock);

	if (priority == AWS_PRIORITY_URGENT) {
		pacer->urgency->since_ms = now_ms; /* it moves */
		return false;
	}
	return pacer->urgency->count > 0 && now_ms - pacer->urgency->since_ms < IOT_URGENCY_MS;
}

/* From what was fetched before. */
static bool
take_here(struct iot_pacer *pacer, const char *operation)
{
	int64_t now_ms = clock_mono_ms(pacer->clock);
	struct entry *entry;
	bool taken;

	(void)pthread_mutex_lock(&pacer->lock);
	entry = entry_of(pacer, operation);
	taken = entry != NULL && entry->stash > 0 && entry->stash_until_ms > now_ms;
	if (taken)
		entry->stash--;
	(void)pthread_mutex_unlock(&pacer->lock);
	return taken;
}

static void
keep(struct iot_pacer *pacer, const char *operation, int64_t left)
{
	int64_t now_ms = clock_mono_ms(pacer->clock);
	struct entry *entry;

	(void)pthread_mutex_lock(&pacer->lock);
	entry = entry_of(pacer, operation);
	if (entry != NULL && left > 0) {
		entry->stash = left;
		entry->stash_until_ms = now_ms + STASH_MS;
	}
	(void)pthread_mutex_unlock(&pacer->lock);
}

static enum status
fetch(struct iot_pacer *pacer, const struct aws_quota *quota, int64_t reserve_ms,
	struct aws_token *out, struct err *err)
{
	int64_t want = (int64_t)(quota->per_second / CHUNK_OF_SECOND);
	own_struct(db_tx) tx = { NULL, NULL };
	int64_t got;

	want = want < 1 ? 1 : want > CHUNK_MAX ? CHUNK_MAX : want;
	TRY(db_tx_begin(&tx, pacer->pool, err));
	TRY(db_iot_quota_take(&tx, pacer->target, quota->operation, quota->per_second, quota->burst,
		want, &got, &out->wait_ms, err));
	out->taken = got > 0;
	if (!out->taken && reserve_ms > 0)
		TRY(db_iot_quota_reserve(&tx, pacer->target, quota->operation, quota->per_second,
			quota->burst, reserve_ms, &out->taken, &out->wait_ms, err));
	TRY(db_tx_commit(&tx, err));
	keep(pacer, quota->operation, got - 1);
	return OK;
}

static enum status
take(void *arg, const char *operation, int priority, int64_t most_ms, struct aws_token *out,
	struct err *err)
{
	struct iot_pacer *pacer = arg;
	struct aws_quota quota = aws_quota_find(pacer->quotas, pacer->quota_count, operation);

	if (is_held_up(pacer, priority)) {
		*out = (struct aws_token){ .taken = false, .wait_ms = HELD_MS };
		return OK;
	}
	*out = (struct aws_token){ .taken = true };
	return take_here(pacer, operation) ? OK :
		fetch(pacer, &quota, priority == AWS_PRIORITY_URGENT ? most_ms : 0, out, err);
}

enum status
iot_pacer_new(struct iot_pacer **out, const char *target, struct db_pool *pool,
	const struct aws_quota *quotas, size_t quota_count, struct iot_urgency *urgency,
	const struct clock *clock, struct err *err)
{
	struct iot_pacer *pacer = mem_zalloc(sizeof(*pacer));

	if (pacer == NULL)
		return err_memory(err);
	pacer->aws = (struct aws_pacer){ .take = take, .arg = pacer };
	pacer->target = target;
	pacer->pool = pool;
	pacer->quotas = quotas;
	pacer->quota_count = quota_count;
	pacer->urgency = urgency;
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
