/*
 * server/iot/room.h - the frontend's side of IoT Core: its targets with a client each, and how its threads
 * (server/iot/workers.h) are woken and wait. Any of it may be called from any thread.
 */
#ifndef SERVER_IOT_ROOM_H
#define SERVER_IOT_ROOM_H

#include <pthread.h>
#include <stdatomic.h>

#include "db/iot.h"
#include "db/outbox.h"
#include "server/app.h"
#include "server/iot/pacer.h"
#include "server/iot/target.h"

/* What is known to be there: policies, thing types and groups that need not be made sure of again. */
#define IOT_ENSURED_MAX 256

struct iot_mqtt;   /* server/iot/mqtt.h */
struct iot_prereg; /* server/iot/prereg.h */

struct iot_site {
	const struct iot_target *target;
	struct iot_room *room;
	struct aws_credentials *credentials;
	struct aws_client *client;
	struct iot_pacer *pacer;
	struct iot_mqtt *mqtt; /* NULL: no subscription */
	pthread_mutex_t lock;  /* for what follows */
	char ensured[IOT_ENSURED_MAX][IOT_NAME_BYTES + 8];
	size_t ensured_count;
	_Atomic int64_t last_event_s; /* 0: none since the start */
};

struct iot_thread {
	struct iot_room *room;
	pthread_t thread;
	bool started;
	int least_urgent; /* rows of a higher priority number are left to others */
};

#define IOT_WORKERS 8
/* So many of them are kept for what takes something away: others may be in the midst of a batch. */
#define IOT_URGENT_WORKERS 2
/* Rows that a worker leases at once: few, so that what is urgent need not wait for what was leased before. */
#define IOT_BATCH 8

struct iot_room {
	struct app *app;
	struct iot_targets targets;
	struct iot_site sites[IOT_TARGETS_MAX];
	size_t site_count;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	uint64_t wakes; /* grows with each that is urgent; with lock, as what follows */
	bool urgent_due; /* nobody has looked since, or there was more than one worker took */
	pthread_cond_t turn;
	unsigned turns;  /* so many workers should look into the outbox */
	unsigned idle;   /* so many wait for their turn */
	int64_t look_ms; /* then one looks in any case */
	struct iot_urgency urgency; /* urgent_due, and each batch in hand that takes something away */
	int64_t serve_ms; /* of the first worker: then it says again which targets are served here */
	char elsewhere[DB_IOT_ELSEWHERE_BYTES]; /* with lock; see iot_room_elsewhere */
	_Atomic bool others;                    /* there are some */
	_Atomic bool stopping;
	struct iot_thread workers[IOT_WORKERS];
	struct iot_thread walker;
	struct iot_prereg *prereg;
};

/* A notification: there may be something in the outbox; urgent: that takes something away. */
void iot_room_wake(struct iot_room *room, bool urgent);
/* There was more in the outbox than one worker took: another has its turn. */
void iot_room_more(struct iot_room *room);
/* Whether something urgent waits for a worker: what is not urgent steps aside. */
bool iot_room_urgent_due(struct iot_room *room);
/* Whoever has looked after so many wakes says whether there is more than was taken. */
uint64_t iot_room_wakes(struct iot_room *room);
void iot_room_looked(struct iot_room *room, uint64_t wakes, bool more);
/* Waits for the next urgent wake after *seen (updated), wait_ms, or a stop; false: it is over. */
bool iot_room_wait(struct iot_room *room, uint64_t *seen, int64_t wait_ms);
/* The same for those whom a wake does not concern. */
bool iot_room_pause(struct iot_room *room, int64_t wait_ms);

/* NULL: none of that name; name NULL: the only one there is. */
struct iot_site *iot_room_site(struct iot_room *room, const char *name);
/*
 * Whether the database knows targets that are not ours: a row of the outbox is done when every target has
 * what is wanted, so those who have them all see to it, and we leave it alone.
 */
bool iot_room_elsewhere(const struct iot_room *room);
/* For what must be done in every target at once. ERR_CONFLICT iot_target_elsewhere: some we have not. */
MUST_USE enum status iot_room_has_all(struct iot_room *room, struct err *err);
/* "" if all targets are called as usual; else whose calls are held back, or left to others, for people. */
void iot_room_trouble(struct iot_room *room, char *out, size_t size);
/* A client's handle for one thread. */
struct iot iot_site_calls(struct iot_site *site, enum aws_priority priority);

#endif
