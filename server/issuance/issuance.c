#include "server/issuance/issuance.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <time.h>

#include "base/cond.h"
#include "base/log.h"
#include "base/mem.h"
#include "server/issuance/internal.h"
#include "server/metrics.h"
#include "server/signer/link.h"

/* How long a committer with abandoned intents waits before it tries again to close them. */
#define CLOSE_RETRY_MS 1000

/* ---- ends ---- */

void
issuance_count(const struct ca_profile *profile, enum status status, bool replayed, const char *code)
{
	bool refused = status != OK && status != ERR_UNAVAILABLE && status != ERR_INTERNAL;
	const char *result = refused ? "refused" : status != OK ? "unavailable" :
		replayed ? "replayed" : "issued";

	metric_count(METRIC_ISSUANCE, profile != NULL ? profile->name : "none", result, 1);
	if (!refused)
		return;
	metric_count(METRIC_ISSUANCE_REFUSED, code, NULL, 1);
	if (strcmp(code, "public_key_in_use") == 0)
		metric_add(METRIC_CLONED_KEYS, 1);
}

void
issuance_end(struct issuance *issuance, struct issuance_item *item, enum status status,
	const struct err *err)
{
	item->status = status;
	if (status != OK)
		item->err = *err;
	issuance_count(item->profile, status, item->replayed, item->err.code);
	atomic_fetch_sub(&issuance->depth, 1);
	metric_add(METRIC_ISSUANCE_QUEUE, -1);
	item->done(item, item->arg);
}

static void
end_stopping(struct issuance *issuance, struct issuance_item *item)
{
	struct err err;

	(void)err_set(&err, ERR_UNAVAILABLE, "server_stopping", "the server is being stopped");
	err.retry_after_s = 1;
	issuance_end(issuance, item, ERR_UNAVAILABLE, &err);
}

void
issuance_put_off(struct issuance *issuance, struct issuance_item *item)
{
	int64_t now_ms = clock_mono_ms(issuance->app->clock);
	struct err err;

	if (now_ms >= item->give_up_ms) {
		(void)err_set(&err, ERR_UNAVAILABLE, "issuance_busy",
			"another request for the same key, public key or device is still under way");
		err.retry_after_s = 1;
		issuance_end(issuance, item, ERR_UNAVAILABLE, &err);
		return;
	}
	metric_add(METRIC_ISSUANCE_BUSY, 1);
	item->retry_ms = now_ms + ISSUANCE_BUSY_RETRY_MS;
	(void)pthread_mutex_lock(&issuance->lock);
	item_list_add(&issuance->waiting, item);
	(void)pthread_mutex_unlock(&issuance->lock);
}

/* ---- the committer ---- */

/* All wait equally long, so the list is in the order of retry_ms. */
static void
wake_waiting(struct issuance *issuance, int64_t now_ms)
{
	while (issuance->waiting.first != NULL &&
	    (issuance->waiting.first->retry_ms <= now_ms || issuance->stopping))
		item_list_add(&issuance->ready, item_list_take_first(&issuance->waiting));
}

static void
wait_ms(struct issuance *issuance, int64_t ms)
{
	struct timespec until = cond_in_ms(ms);

	(void)pthread_cond_timedwait(&issuance->wake, &issuance->lock, &until);
}

/* Under lock: sleeps until there is something to do. */
static void
wait_for_work(struct issuance *issuance)
{
	int64_t now_ms = clock_mono_ms(issuance->app->clock);
	int64_t ms = issuance->abandoned_count > 0 ? CLOSE_RETRY_MS : -1;

	if (issuance->waiting.first != NULL) {
		int64_t due_ms = issuance->waiting.first->retry_ms - now_ms;

		if (ms < 0 || due_ms < ms)
			ms = due_ms > 0 ? due_ms : 0;
	}
	if (ms < 0)
		(void)pthread_cond_wait(&issuance->wake, &issuance->lock);
	else
		wait_ms(issuance, ms);
}

/* Under lock: the next batch into the round. False: stopped, and nothing is left. */
static bool
next_batch(struct issuance *issuance)
{
	struct issuance_item *items[SIGNER_BATCH_MAX];
	struct round *round = &issuance->round;

	wake_waiting(issuance, clock_mono_ms(issuance->app->clock));
	if (issuance->ready.first == NULL) {
		if (issuance->stopping && issuance->waiting.first == NULL)
			return false;
		wait_for_work(issuance);
		wake_waiting(issuance, clock_mono_ms(issuance->app->clock));
	}
	round->count = pick_batch(&issuance->ready, items, SIGNER_BATCH_MAX);
	for (size_t i = 0; i < round->count; i++)
		round->slots[i] = (struct slot){ .item = items[i], .open = true };
	return true;
}

/* The time to stop has run out: everything that waits is ended. */
static void
end_leftover(struct issuance *issuance)
{
	struct issuance_item *item;

	for (;;) {
		(void)pthread_mutex_lock(&issuance->lock);
		wake_waiting(issuance, INT64_MAX);
		item = item_list_take_first(&issuance->ready);
		(void)pthread_mutex_unlock(&issuance->lock);
		if (item == NULL)
			return;
		end_stopping(issuance, item);
	}
}

static bool
time_is_up(struct issuance *issuance)
{
	bool up;

	(void)pthread_mutex_lock(&issuance->lock);
	up = issuance->stopping && clock_mono_ms(issuance->app->clock) >= issuance->stop_at_ms;
	(void)pthread_mutex_unlock(&issuance->lock);
	return up;
}

static void *
commit_batches(void *arg)
{
	struct issuance *issuance = arg;
	struct err err;

	for (;;) {
		bool more;

		if (time_is_up(issuance))
			end_leftover(issuance);
		(void)pthread_mutex_lock(&issuance->lock);
		more = next_batch(issuance);
		(void)pthread_mutex_unlock(&issuance->lock);
		if (!more)
			return NULL;
		if (issuance->round.count > 0)
			round_run(issuance);
		else if (round_close_abandoned(issuance, &err) != OK)
			log_error(LOG_WARN, "intents_not_closed", NULL, &err);
	}
}

/* ---- start and stop ---- */

static enum status
set_up(struct issuance *issuance, struct err *err)
{

	item_list_init(&issuance->ready);
	item_list_init(&issuance->waiting);
	if (pthread_mutex_init(&issuance->lock, NULL) != 0 ||
	    pthread_mutex_init(&issuance->verifiers_lock, NULL) != 0)
		return err_memory(err);
	cond_init(&issuance->wake);
	return OK;
}

enum status
issuance_start(struct issuance **out, struct app *app, struct err *err)
{
	struct issuance *issuance = mem_zalloc(sizeof(*issuance));
	enum status status;

	if (issuance == NULL)
		return err_memory(err);
	issuance->app = app;
	status = set_up(issuance, err);
	if (status == OK) {
		signer_link_greet(app->signer_issue, blocklist_greet, issuance);
		if (pthread_create(&issuance->committer, NULL, commit_batches, issuance) != 0)
			status = err_set(err, ERR_UNAVAILABLE, "thread", "cannot start the committer");
	}
	if (status != OK) {
		signer_link_greet(app->signer_issue, NULL, NULL);
		mem_free(issuance);
		return status;
	}
	*out = issuance;
	return OK;
}

void
issuance_stop(struct issuance *issuance)
{
	if (issuance == NULL)
		return;
	(void)pthread_mutex_lock(&issuance->lock);
	issuance->stopping = true;
	issuance->stop_at_ms = clock_mono_ms(issuance->app->clock) +
		issuance->app->config.shutdown_timeout_ms;
	(void)pthread_cond_signal(&issuance->wake);
	(void)pthread_mutex_unlock(&issuance->lock);
	(void)pthread_join(issuance->committer, NULL);
	signer_link_greet(issuance->app->signer_issue, NULL, NULL);
	(void)pthread_cond_destroy(&issuance->wake);
	(void)pthread_mutex_destroy(&issuance->lock);
	for (size_t i = 0; i < issuance->verifier_count; i++)
		ca_verifier_free(issuance->verifiers[i]);
	(void)pthread_mutex_destroy(&issuance->verifiers_lock);
	mem_free(issuance);
}

/* ---- in ---- */

static void
take_in(struct issuance *issuance, struct issuance_item *item, int64_t now_ms)
{
	item->status = ERR_INTERNAL;
	item->replayed = false;
	item->clamped = false;
	item->certificate = (struct db_certificate){ .status = CERT_UNSET };
	item->give_up_ms = now_ms + ISSUANCE_BUSY_LIMIT_MS;
	item->retry_ms = 0;
	item_list_add(&issuance->ready, item);
}

enum status
issuance_submit(struct issuance *issuance, struct issuance_item **items, size_t count,
	struct err *err)
{
	int64_t now_ms = clock_mono_ms(issuance->app->clock);
	const char *refusal = NULL;

	(void)pthread_mutex_lock(&issuance->lock);
	if (issuance->stopping)
		refusal = "server_stopping";
	else if (atomic_load(&issuance->depth) + count > ISSUANCE_QUEUE_MAX)
		refusal = "queue_full";
	else {
		atomic_fetch_add(&issuance->depth, count);
		metric_add(METRIC_ISSUANCE_QUEUE, (int64_t)count);
		for (size_t i = 0; i < count; i++)
			take_in(issuance, items[i], now_ms);
		(void)pthread_cond_signal(&issuance->wake);
	}
	(void)pthread_mutex_unlock(&issuance->lock);
	if (refusal == NULL)
		return OK;
	(void)err_set(err, ERR_UNAVAILABLE, refusal, "issuance takes no more requests now");
	err->retry_after_s = 1;
	return ERR_UNAVAILABLE;
}

struct waiter {
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool done;
};

static void
wake_waiter(struct issuance_item *item, void *arg)
{
	struct waiter *waiter = arg;

	(void)item;
	(void)pthread_mutex_lock(&waiter->lock);
	waiter->done = true;
	(void)pthread_cond_signal(&waiter->wake);
	(void)pthread_mutex_unlock(&waiter->lock);
}

enum status
issuance_issue(struct issuance *issuance, struct issuance_item *item, struct err *err)
{
	struct waiter waiter = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false };
	enum status status;

	item->done = wake_waiter;
	item->arg = &waiter;
	status = issuance_submit(issuance, &item, 1, err);
	if (status == OK) {
		(void)pthread_mutex_lock(&waiter.lock);
		while (!waiter.done)
			(void)pthread_cond_wait(&waiter.wake, &waiter.lock);
		(void)pthread_mutex_unlock(&waiter.lock);
		status = item->status;
		if (status != OK)
			*err = item->err;
	}
	(void)pthread_cond_destroy(&waiter.wake);
	(void)pthread_mutex_destroy(&waiter.lock);
	item->arg = NULL;
	return status;
}

/* ---- verifiers ---- */

enum status
issuance_verifier_take(struct issuance *issuance, struct ca_verifier **out, struct err *err)
{
	*out = NULL;
	(void)pthread_mutex_lock(&issuance->verifiers_lock);
	if (issuance->verifier_count > 0)
		*out = issuance->verifiers[--issuance->verifier_count];
	(void)pthread_mutex_unlock(&issuance->verifiers_lock);
	return *out != NULL ? OK : ca_verifier_new(out, err);
}

void
issuance_verifier_give(struct issuance *issuance, struct ca_verifier *verifier)
{
	if (verifier == NULL)
		return;
	(void)pthread_mutex_lock(&issuance->verifiers_lock);
	if (issuance->verifier_count < COUNT_OF(issuance->verifiers))
		issuance->verifiers[issuance->verifier_count++] = give(verifier);
	(void)pthread_mutex_unlock(&issuance->verifiers_lock);
	ca_verifier_free(verifier);
}
