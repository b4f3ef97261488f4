/*
 * server/iotcore/plugin/queue.h - what one thread hands to another: items in order, up to a limit.
 * The lock is held to hang one in or to take all, and whether anything waits is one atomic load.
 */
#ifndef SERVER_IOTCORE_PLUGIN_QUEUE_H
#define SERVER_IOTCORE_PLUGIN_QUEUE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

/* The first member of whatever is queued. */
struct queue_item {
	struct queue_item *next;
};

struct queue {
	pthread_mutex_t lock;
	struct queue_item *first, **last;
	size_t count, limit;
	atomic_bool pending;
	atomic_bool overflowed; /* something found no room since this was last cleared */
};

void queue_begin(struct queue *queue, size_t limit);
/* False: it is full, and item stays the caller's. */
bool queue_add(struct queue *queue, struct queue_item *item);
/* All that waits, oldest first; the caller's from now on. NULL: nothing. */
struct queue_item *queue_take(struct queue *queue);

static inline bool
queue_pending(struct queue *queue)
{
	return atomic_load_explicit(&queue->pending, memory_order_acquire);
}

#endif
