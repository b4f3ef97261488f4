#include "server/iotcore/watch.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "db/iotcore_broker.h"
#include "server/freshness.h"

#define RETRY_MS 500

struct core_watch {
	struct db_pool *pool;
	const char *database_url;
	int wake_fd; /* readable once it stops */
	atomic_bool stopping;
	bool said; /* that it is away or hangs; of the thread, as the next */
	bool hangs;
	pthread_t thread;
};

typedef struct db_broker db_broker;
OWNER(db_broker, db_broker_end)

/* Until the link breaks, no answer comes (watch->hangs) or it is to stop. */
static enum status
ask_on(struct core_watch *watch, struct db_broker *link, struct err *err)
{
	int64_t asked_ms = 0;

	while (!atomic_load(&watch->stopping)) {
		int64_t now_ms = clock_mono_ms(&CLOCK_SYSTEM);
		bool notified;

		watch->hangs = db_broker_asked(link) && now_ms - asked_ms > FRESHNESS_STALLED_MS;
		if (watch->hangs)
			return err_set(err, ERR_UNAVAILABLE, "database_away", "no answer in %d ms",
				FRESHNESS_STALLED_MS);
		if (!db_broker_asked(link) && now_ms - asked_ms >= FRESHNESS_BEAT_MS) {
			TRY(db_broker_ask(link, err));
			asked_ms = now_ms;
		}
		TRY(db_broker_wait(link, FRESHNESS_BEAT_MS, watch->wake_fd, &notified, err));
	}
	return OK;
}

static enum status
follow_link(struct core_watch *watch, struct err *err)
{
	own(db_broker) link = NULL;
	enum status status = db_broker_begin_watch(&link, watch->database_url, err);

	if (status != OK) {
		if (watch->hangs)
			db_pool_stall(watch->pool);
		return status;
	}
	watch->hangs = false;
	db_pool_resume(watch->pool);
	if (watch->said)
		log_event(LOG_INFO, "database_answers", NULL);
	watch->said = false;
	return ask_on(watch, link, err);
}

static void *
watch_main(void *arg)
{
	struct core_watch *watch = arg;
	struct pollfd wake = { .fd = watch->wake_fd, .events = POLLIN };

	while (!atomic_load(&watch->stopping)) {
		struct err err;
		bool hung = watch->hangs;

		if (follow_link(watch, &err) == OK)
			continue;
		if (!watch->said)
			log_error(LOG_WARN, watch->hangs ? "database_hangs" : "database_away", NULL,
				&err);
		watch->said = true;
		/* What hangs is tried again at once: a new link is the proof. */
		if (watch->hangs == hung)
			(void)poll(&wake, 1, RETRY_MS);
	}
	return NULL;
}

enum status
core_watch_start(struct core_watch **out, struct db_pool *pool, const char *database_url,
	struct err *err)
{
	struct core_watch *watch = mem_zalloc(sizeof(*watch));

	if (watch == NULL)
		return err_memory(err);
	watch->pool = pool;
	watch->database_url = database_url;
	watch->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (watch->wake_fd < 0) {
		mem_free(watch);
		return err_set(err, ERR_INTERNAL, "internal", "eventfd: %s", strerror(errno));
	}
	if (pthread_create(&watch->thread, NULL, watch_main, watch) != 0) {
		(void)close(watch->wake_fd);
		mem_free(watch);
		return err_set(err, ERR_UNAVAILABLE, "thread", "cannot start a thread");
	}
	*out = watch;
	return OK;
}

void
core_watch_stop(struct core_watch *watch)
{
	const uint64_t one = 1;

	if (watch == NULL)
		return;
	atomic_store(&watch->stopping, true);
	if (write(watch->wake_fd, &one, sizeof(one)) < 0)
		log_event(LOG_WARN, "watch_wake_failed", NULL);
	(void)pthread_join(watch->thread, NULL);
	(void)close(watch->wake_fd);
	mem_free(watch);
}
