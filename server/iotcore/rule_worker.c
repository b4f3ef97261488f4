#include "server/iotcore/rule_worker.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "db/iotcore_broker.h"
#include "server/iot/aws_transport.h"
#include "server/iotcore/rule_deliver.h"

#define SENDERS 8
#define CONNECTIONS_MOST 16
/* What one sender takes at once, and how long it has for it: an endpoint that hangs costs 9 s a message. */
#define TAKEN_MOST 2
#define LEASE_S 40
#define TAKES_MOST 3
#define AGE_MOST_S 600
#define CONFIRMATIONS_AT_ONCE 16
/* A notice may be lost with its link, and a lease runs out without one. */
#define LOOK_MS 2000
#define RETRY_MS 1000

struct rule_worker {
	struct rule_sender sender;
	const char *database_url;
	struct aws_transport *transport;
	int wake_fd; /* readable once it stops */
	atomic_bool stopping;
	pthread_mutex_t lock;
	pthread_cond_t news;
	uint64_t looks; /* grows with each reason to look again */
	pthread_t threads[SENDERS + 1];
	size_t thread_count;
};

/* ---- senders ---- */

struct taken {
	int64_t event_id, takes, age_s;
	char topic[DB_RULE_TOPIC_BYTES];
	char *payload;
};
struct batch {
	struct taken items[TAKEN_MOST];
	size_t count;
};

static void
batch_free(struct batch *batch)
{
	for (size_t i = 0; i < batch->count; i++)
		mem_free(batch->items[i].payload);
	batch->count = 0;
}
OWNER_STRUCT(batch, batch_free)

static enum status
add_taken(void *arg, const struct db_rule_event *event, struct err *err)
{
	struct batch *batch = arg;
	struct taken *item = &batch->items[batch->count];

	item->event_id = event->event_id;
	item->takes = event->takes;
	item->age_s = event->age_s;
	memcpy(item->topic, event->topic, sizeof(item->topic));
	item->payload = mem_zalloc(event->payload.len + 1);
	if (item->payload == NULL)
		return err_memory(err);
	if (event->payload.len > 0)
		memcpy(item->payload, event->payload.data, event->payload.len);
	batch->count++;
	return OK;
}

/* Messages are rows of their own, which no change of the registry touches: the account is not locked. */
static enum status
take(struct batch *batch, struct rule_worker *worker, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	TRY(db_tx_begin(&tx, worker->sender.core->pool, err));
	TRY(db_rule_event_take(&tx, TAKEN_MOST, LEASE_S, add_taken, batch, err));
	return db_tx_commit(&tx, err);
}

static enum status
put_away(struct rule_worker *worker, int64_t event_id,
	enum status (*how)(struct db_tx *tx, int64_t event_id, struct err *err), struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	TRY(db_tx_begin(&tx, worker->sender.core->pool, err));
	TRY(how(&tx, event_id, err));
	return db_tx_commit(&tx, err);
}

static enum status
deliver(struct rule_worker *worker, const struct taken *item, struct err *err)
{
	if (item->takes > TAKES_MOST || item->age_s > AGE_MOST_S)
		log_event(LOG_WARN, "rule_event_dropped", NULL, LOG_INT("takes", item->takes),
			LOG_INT("age_s", item->age_s));
	else
		TRY(rule_deliver(&worker->sender, item->topic, item->payload, err));
	return put_away(worker, item->event_id, db_rule_event_remove, err);
}

static enum status
deliver_some(struct rule_worker *worker, bool *any, struct err *err)
{
	own_struct(batch) batch = { .count = 0 };
	enum status status = OK;
	struct err ignored;
	size_t done = 0;

	TRY(take(&batch, worker, err));
	*any = batch.count > 0;
	while (done < batch.count && status == OK) {
		status = deliver(worker, &batch.items[done], err);
		done += status == OK;
	}
	/* Who is stopped gives back what it has; what fails is due again when its lease is over. */
	for (; done < batch.count && atomic_load(&worker->stopping); done++)
		if (put_away(worker, batch.items[done].event_id, db_rule_event_release, &ignored) != OK)
			break;
	return status;
}

static void
await_news(struct rule_worker *worker, uint64_t seen)
{
	(void)pthread_mutex_lock(&worker->lock);
	while (worker->looks == seen && !atomic_load(&worker->stopping))
		(void)pthread_cond_wait(&worker->news, &worker->lock);
	(void)pthread_mutex_unlock(&worker->lock);
}

static uint64_t
looks(struct rule_worker *worker)
{
	uint64_t now;

	(void)pthread_mutex_lock(&worker->lock);
	now = worker->looks;
	(void)pthread_mutex_unlock(&worker->lock);
	return now;
}

static void *
send_loop(void *arg)
{
	struct rule_worker *worker = arg;
	struct err err;

	while (!atomic_load(&worker->stopping)) {
		uint64_t seen = looks(worker);
		bool any = false;

		/* The listener says when the database is away. */
		if (deliver_some(worker, &any, &err) != OK && err.status == ERR_INTERNAL)
			log_error(LOG_ERROR, "rule_sender_failed", NULL, &err);
		if (!any)
			await_news(worker, seen);
	}
	return NULL;
}

/* ---- the listener ---- */

static void
wake_senders(struct rule_worker *worker)
{
	(void)pthread_mutex_lock(&worker->lock);
	worker->looks++;
	(void)pthread_cond_broadcast(&worker->news);
	(void)pthread_mutex_unlock(&worker->lock);
}

struct confirmations {
	struct db_confirmation items[CONFIRMATIONS_AT_ONCE];
	size_t count;
};

static enum status
add_confirmation(void *arg, const struct db_confirmation *row, struct err *err)
{
	struct confirmations *due = arg;

	(void)err;
	due->items[due->count++] = *row;
	return OK;
}

static enum status
find_confirmations(struct confirmations *due, struct rule_worker *worker, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	due->count = 0;
	TRY(db_tx_begin(&tx, worker->sender.core->pool, err));
	return db_confirmation_due(&tx, CONFIRMATIONS_AT_ONCE, add_confirmation, due, err);
}

static enum status
ask_confirmations(struct rule_worker *worker, struct confirmations *due, struct err *err)
{
	do {
		TRY(find_confirmations(due, worker, err));
		for (size_t i = 0; i < due->count; i++)
			TRY(rule_ask_confirmation(&worker->sender, &due->items[i], err));
	} while (due->count == CONFIRMATIONS_AT_ONCE && !atomic_load(&worker->stopping));
	return OK;
}

typedef struct db_broker db_broker;
OWNER(db_broker, db_broker_end)
typedef struct confirmations confirmations;
OWNER(confirmations, mem_free)

/* Until the link breaks or it is to stop. */
static enum status
listen_once(struct rule_worker *worker, struct err *err)
{
	own(db_broker) broker = NULL;
	own(confirmations) due = mem_zalloc(sizeof(*due));
	bool notified;

	if (due == NULL)
		return err_memory(err);
	TRY(db_broker_begin_rules(&broker, worker->database_url, err));
	while (!atomic_load(&worker->stopping)) {
		wake_senders(worker);
		TRY(ask_confirmations(worker, due, err));
		TRY(db_broker_wait(broker, LOOK_MS, worker->wake_fd, &notified, err));
	}
	return OK;
}

static void *
listen_loop(void *arg)
{
	struct rule_worker *worker = arg;
	struct pollfd wake = { .fd = worker->wake_fd, .events = POLLIN };
	struct err err;

	while (!atomic_load(&worker->stopping))
		if (listen_once(worker, &err) != OK && !atomic_load(&worker->stopping)) {
			log_error(LOG_WARN, "rule_listener_failed", NULL, &err);
			(void)poll(&wake, 1, RETRY_MS);
		}
	return NULL;
}

/* ---- life ---- */

static enum status
start_thread(struct rule_worker *worker, void *(*run)(void *), struct err *err)
{
	if (pthread_create(&worker->threads[worker->thread_count], NULL, run, worker) != 0)
		return err_set(err, ERR_UNAVAILABLE, "out_of_memory", "a thread cannot be started");
	worker->thread_count++;
	return OK;
}

static enum status
start(struct rule_worker *worker, struct err *err)
{
	TRY(aws_transport_new(&worker->transport, CONNECTIONS_MOST, err));
	worker->sender.transport = worker->transport;
	worker->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (worker->wake_fd < 0)
		return err_set(err, ERR_INTERNAL, "internal", "eventfd: %s", strerror(errno));
	TRY(start_thread(worker, listen_loop, err));
	for (int i = 0; i < SENDERS; i++)
		TRY(start_thread(worker, send_loop, err));
	return OK;
}

enum status
rule_worker_start(struct rule_worker **out, const struct core *core, const char *database_url,
	const char *ca_file, struct err *err)
{
	struct rule_worker *worker = mem_zalloc(sizeof(*worker));
	enum status status;

	if (worker == NULL)
		return err_memory(err);
	worker->sender = (struct rule_sender){ .core = core,
		.ca_file = ca_file[0] != '\0' ? ca_file : NULL };
	worker->database_url = database_url;
	worker->wake_fd = -1;
	(void)pthread_mutex_init(&worker->lock, NULL);
	(void)pthread_cond_init(&worker->news, NULL);
	status = start(worker, err);
	if (status != OK) {
		rule_worker_stop(worker);
		return status;
	}
	*out = worker;
	return OK;
}

void
rule_worker_stop(struct rule_worker *worker)
{
	const uint64_t one = 1;

	if (worker == NULL)
		return;
	atomic_store(&worker->stopping, true);
	if (worker->transport != NULL)
		aws_transport_stop(worker->transport);
	if (worker->wake_fd >= 0 && write(worker->wake_fd, &one, sizeof(one)) < 0)
		log_event(LOG_WARN, "rule_wake_failed", NULL);
	wake_senders(worker);
	for (size_t i = 0; i < worker->thread_count; i++)
		(void)pthread_join(worker->threads[i], NULL);
	aws_transport_free(worker->transport);
	if (worker->wake_fd >= 0)
		(void)close(worker->wake_fd);
	(void)pthread_cond_destroy(&worker->news);
	(void)pthread_mutex_destroy(&worker->lock);
	mem_free(worker);
}
