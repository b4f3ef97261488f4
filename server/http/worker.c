#include <string.h>

#include "base/mem.h"
#include "server/http/internal.h"

/*
 * The next piece of work; the stations' first, so that a crowd of devices does not make them wait,
 * but one in four from the others, so that neither starves them. With workers->lock.
 */
static struct work *
take(struct workers *workers)
{
	unsigned queue = QUEUE_STATIONS;
	struct work *work;

	if (workers->head[QUEUE_STATIONS] == NULL ||
		(workers->head[QUEUE_OTHERS] != NULL && workers->turn++ % 4 == 3))
		queue = QUEUE_OTHERS;
	work = workers->head[queue];
	if (work == NULL)
		return NULL;
	workers->head[queue] = work->next;
	if (work->next == NULL)
		workers->tail[queue] = NULL;
	workers->waiting[queue]--;
	return work;
}

static void *
run(void *arg)
{
	struct workers *workers = arg;

	pthread_mutex_lock(&workers->lock);
	for (;;) {
		struct work *work = take(workers);
		bool owned;

		if (work == NULL) {
			if (workers->stopping)
				break;
			pthread_cond_wait(&workers->some, &workers->lock);
			continue;
		}
		pthread_mutex_unlock(&workers->lock);
		/* A request may be freed before run() returns: do not look at work afterwards. */
		owned = work->owned;
		work->run(work->arg);
		if (owned)
			mem_free(work);
		pthread_mutex_lock(&workers->lock);
	}
	pthread_mutex_unlock(&workers->lock);
	return NULL;
}

enum status
workers_start(struct workers *workers, size_t count, struct err *err)
{
	pthread_attr_t attr;
	int rc = 0;

	pthread_mutex_init(&workers->lock, NULL);
	pthread_cond_init(&workers->some, NULL);
	workers->threads = mem_array(count, sizeof(*workers->threads));
	if (workers->threads == NULL)
		return err_memory(err);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 2 * THREAD_STACK_BYTES);
	while (workers->count < count && rc == 0) {
		rc = pthread_create(&workers->threads[workers->count], &attr, run, workers);
		workers->count += rc == 0;
	}
	pthread_attr_destroy(&attr);
	if (rc != 0)
		return err_set(err, ERR_UNAVAILABLE, "threads", "workers: %s", strerror(rc));
	return OK;
}

bool
workers_push(struct workers *workers, unsigned queue, struct work *work)
{
	bool room;

	pthread_mutex_lock(&workers->lock);
	room = workers->waiting[queue] < QUEUE_MAX && !workers->stopping;
	if (room) {
		work->next = NULL;
		if (workers->tail[queue] != NULL)
			workers->tail[queue]->next = work;
		else
			workers->head[queue] = work;
		workers->tail[queue] = work;
		workers->waiting[queue]++;
		pthread_cond_signal(&workers->some);
	}
	pthread_mutex_unlock(&workers->lock);
	return room;
}

size_t
workers_waiting(struct workers *workers)
{
	size_t waiting = 0;

	pthread_mutex_lock(&workers->lock);
	for (unsigned i = 0; i < QUEUES; i++)
		waiting += workers->waiting[i];
	pthread_mutex_unlock(&workers->lock);
	return waiting;
}

void
workers_stop(struct workers *workers)
{
	pthread_mutex_lock(&workers->lock);
	workers->stopping = true;
	pthread_cond_broadcast(&workers->some);
	pthread_mutex_unlock(&workers->lock);
	for (size_t i = 0; i < workers->count; i++)
		pthread_join(workers->threads[i], NULL);
	mem_free(workers->threads);
	workers->threads = NULL;
	workers->count = 0;
}

enum status
http_defer(struct http *http, void (*run_work)(void *arg), void *arg, struct err *err)
{
	struct work *work = mem_zalloc(sizeof(*work));

	if (work == NULL)
		return err_memory(err);
	*work = (struct work){ .run = run_work, .arg = arg, .owned = true };
	/* Ahead of new requests from devices: it ends or carries on one that was taken up before.
	 */
	if (workers_push(&http->workers, QUEUE_STATIONS, work))
		return OK;
	mem_free(work);
	return err_set(err, ERR_UNAVAILABLE, "server_busy", "too much waits for a worker");
}
