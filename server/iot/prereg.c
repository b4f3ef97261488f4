#include "server/iot/prereg.h"

#include <pthread.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "server/iot/room.h"

/* How often the books are looked at while somebody waits. */
#define LOOK_MS 25
/* More at once are not held back: the answers go out as without it. */
#define HELD_MAX 256

struct held {
	struct held *next;
	void (*resume)(void *arg);
	void *arg;
	int64_t until_ms;
	size_t count;
	struct db_iot_id ids[];
};

struct iot_prereg {
	struct iot_room *room;
	pthread_t thread;
	bool started;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool stopping; /* with lock, as the next */
	struct held *held;
	size_t count;
};

/* While the database is away nothing is known: wait on, the bound holds. */
static bool
all_active(struct iot_prereg *prereg, const struct held *held)
{
	struct iot_room *room = prereg->room;
	const char *targets[IOT_TARGETS_MAX];
	own_struct(db_tx) tx = { NULL, NULL };
	bool active = false;
	struct err err;

	for (size_t i = 0; i < room->site_count; i++)
		targets[i] = room->sites[i].target->name;
	if (db_tx_begin(&tx, room->app->pool, &err) != OK ||
	    db_iot_certificates_active(&tx, targets, room->site_count, held->ids, held->count, &active,
		    &err) != OK)
		return false;
	return active;
}

/* Takes the list; what is not ready goes back. */
static void
look(struct iot_prereg *prereg, struct held *list, bool stopping)
{
	while (list != NULL) {
		struct held *one = list;
		bool late = clock_mono_ms(prereg->room->app->clock) >= one->until_ms;

		list = one->next;
		if (stopping || late || all_active(prereg, one)) {
			if (late)
				log_event(LOG_INFO, "preregistration_late", NULL,
					LOG_INT("certificates", one->count));
			one->resume(one->arg);
			mem_free(one);
			(void)pthread_mutex_lock(&prereg->lock);
			prereg->count--;
		} else {
			(void)pthread_mutex_lock(&prereg->lock);
			one->next = prereg->held;
			prereg->held = one;
		}
		(void)pthread_mutex_unlock(&prereg->lock);
	}
}

static void *
prereg_main(void *arg)
{
	struct iot_prereg *prereg = arg;
	bool stopping;

	do {
		struct held *list;

		(void)pthread_mutex_lock(&prereg->lock);
		while (prereg->held == NULL && !prereg->stopping)
			(void)pthread_cond_wait(&prereg->wake, &prereg->lock);
		list = prereg->held;
		prereg->held = NULL;
		stopping = prereg->stopping;
		(void)pthread_mutex_unlock(&prereg->lock);
		look(prereg, list, stopping);
		if (!stopping && list != NULL)
			(void)iot_room_pause(prereg->room, LOOK_MS);
	} while (!stopping);
	return NULL;
}

bool
iot_prereg_hold(struct iot_prereg *prereg, const struct db_iot_id *ids, size_t count,
	void (*resume)(void *arg), void *arg)
{
	struct held *held;
	bool taken;

	if (prereg == NULL || prereg->room->site_count == 0 || count == 0)
		return false;
	held = mem_zalloc(sizeof(*held) + count * sizeof(held->ids[0]));
	if (held == NULL)
		return false;
	held->resume = resume;
	held->arg = arg;
	held->count = count;
	held->until_ms = clock_mono_ms(prereg->room->app->clock) + IOT_PREREG_WAIT_MS;
	memcpy(held->ids, ids, count * sizeof(held->ids[0]));
	(void)pthread_mutex_lock(&prereg->lock);
	taken = !prereg->stopping && prereg->count < HELD_MAX;
	if (taken) {
		held->next = prereg->held;
		prereg->held = held;
		prereg->count++;
		(void)pthread_cond_signal(&prereg->wake);
	}
	(void)pthread_mutex_unlock(&prereg->lock);
	if (!taken)
		mem_free(held);
	else
		iot_room_wake(prereg->room, false); /* its row is in the outbox by now */
	return taken;
}

enum status
iot_prereg_start(struct iot_prereg **out, struct iot_room *room, struct err *err)
{
	struct iot_prereg *prereg = mem_zalloc(sizeof(*prereg));

	if (prereg == NULL)
		return err_memory(err);
	prereg->room = room;
	(void)pthread_mutex_init(&prereg->lock, NULL);
	(void)pthread_cond_init(&prereg->wake, NULL);
	if (pthread_create(&prereg->thread, NULL, prereg_main, prereg) != 0) {
		iot_prereg_free(prereg);
		return err_set(err, ERR_UNAVAILABLE, "thread", "cannot start a thread for IoT Core");
	}
	prereg->started = true;
	*out = prereg;
	return OK;
}

void
iot_prereg_stop(struct iot_prereg *prereg)
{
	if (prereg == NULL || !prereg->started)
		return;
	(void)pthread_mutex_lock(&prereg->lock);
	prereg->stopping = true;
	(void)pthread_cond_signal(&prereg->wake);
	(void)pthread_mutex_unlock(&prereg->lock);
	(void)pthread_join(prereg->thread, NULL);
	prereg->started = false;
}

void
iot_prereg_free(struct iot_prereg *prereg)
{
	if (prereg == NULL)
		return;
	(void)pthread_cond_destroy(&prereg->wake);
	(void)pthread_mutex_destroy(&prereg->lock);
	mem_free(prereg);
}
