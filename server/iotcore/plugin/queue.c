#include "server/iotcore/plugin/queue.h"

void
queue_begin(struct queue *queue, size_t limit)
{
	(void)pthread_mutex_init(&queue->lock, NULL);
	queue->first = NULL;
	queue->last = &queue->first;
	queue->count = 0;
	queue->limit = limit;
	atomic_init(&queue->pending, false);
	atomic_init(&queue->overflowed, false);
}

bool
queue_add(struct queue *queue, struct queue_item *item)
{
	bool room;

	item->next = NULL;
	(void)pthread_mutex_lock(&queue->lock);
	room = queue->count < queue->limit;
	if (room) {
		*queue->last = item;
		queue->last = &item->next;
		queue->count++;
		atomic_store_explicit(&queue->pending, true, memory_order_release);
	}
	(void)pthread_mutex_unlock(&queue->lock);
	if (!room)
		atomic_store(&queue->overflowed, true);
	return room;
}

struct queue_item *
queue_take(struct queue *queue)
{
	struct queue_item *items;

	(void)pthread_mutex_lock(&queue->lock);
	items = queue->first;
	queue->first = NULL;
	queue->last = &queue->first;
	queue->count = 0;
	atomic_store_explicit(&queue->pending, false, memory_order_release);
	(void)pthread_mutex_unlock(&queue->lock);
	return items;
}
