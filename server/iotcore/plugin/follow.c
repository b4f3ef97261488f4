#include "server/iotcore/plugin/follow.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "db/iotcore_broker.h"
#include "db/iotcore_event.h"
#include "db/iotcore_rule.h"

#define CHANGES_PAGE 1000
#define CHANGES_MAX 50000 /* more than this is faster read whole */
#define HEARTBEAT_MS 500 /* what concerns no session is heard of no later (migration 0013) */
#define GATHER_MS 10 /* changes that follow each other as fast are read together */
#define BACKOFF_FIRST_MS 50
#define BACKOFF_LAST_MS 1000
#define STOP_MS 2000
#define HANGS_MS 5000 /* without a row or an answer */
#define SESSIONS_EVERY_MS 100 /* who comes and goes within it is one statement */
#define SESSIONS_RESAY_MS 10000
#define REGISTER_BATCH 200
#define SESSIONS_BATCH 1000
#define EVENTS_BATCH 100
#define REGISTER_QUEUE 10000 /* some 2 KB each */
#define SESSIONS_QUEUE 200000
#define WAKES_MAX 50 /* then the broker is busy, and comes by itself */

struct registration {
	struct queue_item item;
	int64_t not_before_s, not_after_s;
	char certificate_id[2 * REGISTRY_ID_BYTES + 1];
	char ca_id[2 * REGISTRY_ID_BYTES + 1];
	char pem[];
};

struct coming { /* or going */
	struct queue_item item;
	struct db_broker_session session; /* its texts follow */
	size_t order;
	char text[];
};

struct follower {
	char *conninfo;
	struct follow_setup setup;
	struct queue registrations, sessions;
	int wake_fd;
	pthread_t thread;
	atomic_bool stop, loaded;
	_Atomic int64_t fresh_ms;
	_Atomic int64_t moved_ms; /* something came from the database; 0: nothing is waited for */
	pthread_mutex_t lock;
	struct db_broker *link; /* with lock; NULL: none, or it is cut already */
	char account_id[13];
	char region[64];
	/* Of the thread: */
	int64_t seq;        /* of the last change that the registry holds */
	bool sessions_said; /* iotcore.session holds what we know */
	int64_t sessions_at_ms, resay_at_ms;
	int64_t began_ms; /* to look at what there is to do */
	bool follow_due; /* something was changed, or we registered something, which wakes nobody */
	int64_t followed_ms;
	bool events_due; /* there may be registry events that were not handed over */
	int64_t said[EVENTS_BATCH]; /* handed over and not removed yet */
	size_t said_count;
	_Atomic uint64_t reloads, changes, registered, links, lost_sessions;
};

void
notice_free(struct notice *notice)
{
	if (notice == NULL)
		return;
	event_clear(&notice->event);
	mem_free(notice);
}

/*
 * To the broker
 */

static void
tell(struct follower *f, struct notice *notice)
{
	if (!queue_add(f->setup.notices, &notice->event.item))
		notice_free(notice); /* the queue knows that it overflowed */
}

static void
tell_kind(struct follower *f, enum notice_kind kind, const uint8_t *certificate_id)
{
	struct notice *notice = mem_zalloc(sizeof(*notice));

	if (notice == NULL) {
		atomic_store(&f->setup.notices->overflowed, true);
		atomic_store(&f->setup.notices->pending, true);
		return;
	}
	notice->kind = kind;
	if (certificate_id != NULL)
		memcpy(notice->certificate_id, certificate_id, sizeof(notice->certificate_id));
	tell(f, notice);
}

/* The broker's thread sleeps in epoll_wait for up to 100 ms: until it has looked, it is woken
 * again. */
static void
wake_broker(struct follower *f)
{
	for (int i = 0; i < WAKES_MAX && queue_pending(f->setup.notices); i++) {
		f->setup.wake(f->setup.arg);
		(void)poll(NULL, 0, 1);
	}
}

/*
 * The registry, whole
 */

struct loading {
	struct follower *f;
	struct registry *registry;
};

static enum status
put_row(void *arg, const struct db_broker_row *row, struct err *err)
{
	struct loading *loading = arg;

	atomic_store(&loading->f->moved_ms, clock_mono_ms(&CLOCK_SYSTEM));
	return registry_put(loading->registry, row, err);
}

static enum status
load(struct follower *f, struct db_tx *tx, const struct db_broker_account *account, struct err *err)
{
	own(own_registry) fresh = NULL;

	TRY(registry_new(&fresh, f->setup.key, err));
	struct loading loading = { f, fresh };
	for (size_t kind = BROKER_UNSET + 1; kind < BROKER_KINDS; kind++)
		TRY(db_broker_all(tx, (enum db_broker_kind)kind, put_row, &loading, err));
	if (!atomic_load(&f->loaded)) {
		memcpy(f->account_id, account->account_id, sizeof(f->account_id));
		memcpy(f->region, account->region, sizeof(f->region));
	}
	registry_exchange(f->setup.registry, fresh);
	f->seq = account->change_seq;
	atomic_store(&f->loaded, true);
	(void)atomic_fetch_add(&f->reloads, 1);
	log_event(LOG_INFO, "registry_loaded", NULL, LOG_INT("seq", f->seq),
		LOG_INT("cas", registry_count(f->setup.registry, BROKER_CA)),
		LOG_INT("certificates", registry_count(f->setup.registry, BROKER_CERTIFICATE)),
		LOG_INT("things", registry_count(f->setup.registry, BROKER_THING)),
		LOG_INT("policies", registry_count(f->setup.registry, BROKER_POLICY)));
	tell_kind(f, NOTICE_ALL, NULL);
	return OK;
}

/*
 * … and its changes
 */

struct keys {
	const char **at; /* into the changes; sorted, each once */
	bool *found;
	size_t count;
};

struct changes {
	struct db_broker_change *at;
	size_t count;
	struct keys keys[BROKER_KINDS];
	struct follower *f;
	/* Whom they concern. */
	bool all;
	uint8_t (*certificates)[REGISTRY_ID_BYTES];
	size_t certificate_count;
};
#define CERTIFICATES_TOLD_MAX 4000 /* beyond, every session looks again */

static void
changes_free(struct changes *changes)
{
	for (size_t i = 0; i < BROKER_KINDS; i++) {
		mem_free(changes->keys[i].at);
		mem_free(changes->keys[i].found);
	}
	mem_free(changes->at);
	mem_free(changes->certificates);
}
OWNER_STRUCT(changes, changes_free)

static int
compare_texts(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static enum status
sort_keys(struct changes *changes, enum db_broker_kind kind, struct err *err)
{
	struct keys *keys = &changes->keys[kind];
	size_t kept = 0;

	keys->at = mem_array(changes->count, sizeof(*keys->at));
	keys->found = mem_array(changes->count, sizeof(*keys->found));
	if (keys->at == NULL || keys->found == NULL)
		return err_memory(err);
	for (size_t i = 0; i < changes->count; i++)
		if (changes->at[i].kind == kind)
			keys->at[keys->count++] = changes->at[i].key;
	if (keys->count == 0)
		return OK;
	qsort(keys->at, keys->count, sizeof(*keys->at), compare_texts);
	for (size_t i = 1; i < keys->count; i++)
		if (strcmp(keys->at[i], keys->at[kept]) != 0)
			keys->at[++kept] = keys->at[i];
	keys->count = kept + 1;
	return OK;
}

static enum status
put_changed(void *arg, const struct db_broker_row *row, struct err *err)
{
	struct changes *changes = arg;
	struct keys *keys = &changes->keys[row->kind];
	char key[DB_IOTCORE_KEY_BYTES];
	const char *wanted = key;
	const char **place;

	if (row->key.len < sizeof(key)) {
		memcpy(key, row->key.data, row->key.len);
		key[row->key.len] = '\0';
		place = bsearch(&wanted, keys->at, keys->count, sizeof(*keys->at), compare_texts);
		if (place != NULL)
			keys->found[place - keys->at] = true;
	}
	return registry_put(changes->f->setup.registry, row, err);
}

static void
concerns(void *arg, const char *certificate_id)
{
	struct changes *changes = arg;

	if (changes->all || changes->certificate_count == CERTIFICATES_TOLD_MAX) {
		changes->all = true;
		return;
	}
	if (hex_decode(changes->certificates[changes->certificate_count], REGISTRY_ID_BYTES,
		    certificate_id, strlen(certificate_id)))
		changes->certificate_count++;
}

static void
concerns_target(void *arg, const char *target)
{
	struct changes *changes = arg;

	if (strncmp(target, "cert/", 5) == 0)
		concerns(arg, target + 5);
	else
		changes->all = true; /* who is in a group, or below it, is not looked for */
}

static int
compare_ids(const void *a, const void *b)
{
	return memcmp(a, b, REGISTRY_ID_BYTES);
}

/* A certificate may be concerned for several reasons: it is told once. */
static void
keep_each_once(struct changes *changes)
{
	size_t kept = 0;

	if (changes->certificate_count == 0)
		return;
	qsort(changes->certificates, changes->certificate_count, sizeof(*changes->certificates),
		compare_ids);
	for (size_t i = 1; i < changes->certificate_count; i++)
		if (compare_ids(changes->certificates[i], changes->certificates[kept]) != 0)
			memmove(changes->certificates[++kept], changes->certificates[i],
				REGISTRY_ID_BYTES);
	changes->certificate_count = kept + 1;
}

/* Certificates themselves; those of things; those that policies are attached to; of groups:
 * everyone. */
static enum status
find_concerned(struct changes *changes, struct db_tx *tx, struct err *err)
{
	const struct keys *things = &changes->keys[BROKER_THING];
	const struct keys *policies = &changes->keys[BROKER_POLICY];
	bool more_things = false;
	bool more_policies = false;

	changes->certificates = mem_array(CERTIFICATES_TOLD_MAX, sizeof(*changes->certificates));
	if (changes->certificates == NULL)
		return err_memory(err);
	changes->all = changes->keys[BROKER_GROUP].count > 0;
	for (size_t i = 0; i < changes->keys[BROKER_CERTIFICATE].count; i++)
		concerns(changes, changes->keys[BROKER_CERTIFICATE].at[i]);
	if (!changes->all && things->count > 0)
		TRY(db_broker_principals(
			tx, things->at, things->count, concerns, changes, &more_things, err));
	if (!changes->all && policies->count > 0)
		TRY(db_broker_targets(tx, policies->at, policies->count, concerns_target, changes,
			&more_policies, err));
	changes->all |= more_things || more_policies;
	keep_each_once(changes);
	return OK;
}

/*
 * Who is named by a row is put before it and dropped behind it, so that no reader meets a name that
 * means nothing (which it would take for a denial).
 */
static enum status
apply(struct changes *changes, struct db_tx *tx, struct err *err)
{
	static const enum db_broker_kind ORDER[] = { BROKER_POLICY, BROKER_GROUP, BROKER_THING,
		BROKER_CERTIFICATE, BROKER_CA };

	for (size_t i = 0; i < COUNT_OF(ORDER); i++) {
		struct keys *keys = &changes->keys[ORDER[i]];

		TRY(sort_keys(changes, ORDER[i], err));
		for (size_t done = 0; done < keys->count; done += CHANGES_PAGE) {
			size_t count = keys->count - done < CHANGES_PAGE ? keys->count - done
			                                                 : CHANGES_PAGE;

			TRY(db_broker_some(
				tx, ORDER[i], keys->at + done, count, put_changed, changes, err));
		}
	}
	for (size_t i = COUNT_OF(ORDER); i-- > 0;) {
		const struct keys *keys = &changes->keys[ORDER[i]];

		for (size_t k = 0; k < keys->count; k++)
			if (!keys->found[k])
				registry_drop(changes->f->setup.registry, ORDER[i], keys->at[k]);
	}
	return find_concerned(changes, tx, err);
}

/* All changes that the transaction sees. *whole: numbers are missing, or too many to go one by one.
 */
static enum status
read_changes(
	struct follower *f, struct db_tx *tx, struct changes *changes, bool *whole, struct err *err)
{
	size_t count = CHANGES_PAGE;
	int64_t seq = f->seq;

	*whole = false;
	while (count == CHANGES_PAGE) {
		struct db_broker_change *more =
			mem_realloc(changes->at, (changes->count + CHANGES_PAGE) * sizeof(*more));

		if (more == NULL)
			return err_memory(err);
		changes->at = more;
		TRY(db_broker_changes(tx, seq, more + changes->count, CHANGES_PAGE, &count, err));
		for (size_t i = changes->count; i < changes->count + count; i++)
			*whole |= more[i].seq != ++seq || more[i].kind == BROKER_UNSET;
		changes->count += count;
		*whole |= changes->count > CHANGES_MAX;
		if (*whole)
			return OK;
	}
	return OK;
}

static enum status
follow_changes(struct follower *f, struct db_tx *tx, const struct db_broker_account *account,
	struct err *err)
{
	own_struct(changes) changes = { .f = f };
	bool whole;

	TRY(read_changes(f, tx, &changes, &whole, err));
	if (whole || changes.count == 0 ||
		changes.at[changes.count - 1].seq != account->change_seq) {
		log_event(LOG_WARN, "registry_gap", NULL, LOG_INT("seq", f->seq),
			LOG_INT("change_seq", account->change_seq));
		return load(f, tx, account, err);
	}
	TRY(apply(&changes, tx, err));
	f->seq = account->change_seq;
	log_event(LOG_DEBUG, "registry_followed", NULL, LOG_INT("seq", f->seq));
	(void)atomic_fetch_add(&f->changes, changes.count);
	if (changes.all)
		tell_kind(f, NOTICE_ALL, NULL);
	for (size_t i = 0; !changes.all && i < changes.certificate_count; i++)
		tell_kind(f, NOTICE_CERTIFICATE, changes.certificates[i]);
	return OK;
}

static enum status
follow(struct follower *f, struct db_broker *broker, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	struct db_broker_account account = { .change_seq = 0 };
	int64_t began_ms = clock_mono_ms(&CLOCK_SYSTEM);

	TRY(db_broker_read(broker, &tx, err));
	TRY(db_broker_account(&tx, &account, err));
	/* A smaller number: another database, or one restored to an earlier day. */
	if (!atomic_load(&f->loaded) || account.change_seq < f->seq)
		TRY(load(f, &tx, &account, err));
	else if (account.change_seq > f->seq)
		TRY(follow_changes(f, &tx, &account, err));
	TRY(db_tx_commit(&tx, err));
	atomic_store(&f->fresh_ms, began_ms);
	return OK;
}

/*
 * Registrations
 */

struct registering {
	struct follower *f;
	struct queue_item *events; /* told once it is committed */
};

static void
free_items(struct queue_item *items)
{
	while (items != NULL) {
		struct queue_item *next = items->next;

		mem_free(items);
		items = next;
	}
}

static void
add_event(void *arg, const char *certificate_id, const char *ca_id, int64_t created_at_ms)
{
	struct registering *registering = arg;
	struct notice *notice = mem_zalloc(sizeof(*notice));
	struct err err;

	if (notice == NULL)
		return; /* the device comes again, and the event with it */
	notice->kind = NOTICE_EVENT;
	if (event_registered(&notice->event, certificate_id, ca_id, registering->f->account_id,
		    created_at_ms, event_now_ms(), &err) != OK) {
		notice_free(notice);
		return;
	}
	notice->event.item.next = registering->events;
	registering->events = &notice->event.item;
}

static void
free_notices(struct queue_item *items)
{
	while (items != NULL) {
		struct queue_item *next = items->next;

		notice_free((struct notice *)(void *)items);
		items = next;
	}
}

/* Topic rules may want them as well: written with their cause, sent by the control plane. */
static enum status
note_for_rules(struct db_tx *tx, struct queue_item *items, struct err *err)
{
	bool any = false;

	TRY(db_rules_any(tx, &any, err));
	if (!any)
		return OK;
	for (; items != NULL; items = items->next) {
		const struct event *event = &((struct notice *)(void *)items)->event;

		TRY(db_rule_event_add(tx, event->topic, view_of(&event->payload), err));
	}
	return OK;
}

static enum status
register_batch(struct follower *f, struct db_broker *broker,
	const struct db_broker_registration *list, size_t count, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	struct registering registering = { .f = f };
	enum status status;

	TRY(db_broker_write(broker, &tx, err));
	status = db_broker_register(&tx, list, count, add_event, &registering, err);
	if (status == OK)
		status = note_for_rules(&tx, registering.events, err);
	if (status == OK)
		status = db_tx_commit(&tx, err);
	if (status != OK) {
		free_notices(registering.events);
		return status;
	}
	(void)atomic_fetch_add(&f->registered, count);
	f->follow_due = true;
	while (registering.events != NULL) {
		struct queue_item *next = registering.events->next;

		tell(f, (struct notice *)(void *)registering.events);
		registering.events = next;
	}
	return OK;
}

static int
compare_registrations(const void *a, const void *b)
{
	return strcmp(((const struct db_broker_registration *)a)->certificate_id,
		((const struct db_broker_registration *)b)->certificate_id);
}

/* A batch that SQL refuses is tried one by one, so that one bad certificate harms no other. */
static enum status
register_some(struct follower *f, struct db_broker *broker, struct db_broker_registration *list,
	size_t count, struct err *err)
{
	size_t kept = 0;
	enum status status;

	qsort(list, count, sizeof(*list), compare_registrations);
	for (size_t i = 1; i < count; i++)
		if (compare_registrations(&list[i], &list[kept]) != 0)
			list[++kept] = list[i];
	count = kept + 1;
	status = register_batch(f, broker, list, count, err);
	for (size_t i = 0; status != OK && status != ERR_UNAVAILABLE && i < count; i++) {
		struct err one;

		status = register_batch(f, broker, &list[i], 1, &one);
		if (status != OK && status != ERR_UNAVAILABLE) {
			log_error(LOG_ERROR, "registration_failed", NULL, &one);
			status = ERR_INTERNAL;
		} else if (status != OK) {
			*err = one;
		} else {
			status = i + 1 < count ? ERR_INTERNAL : OK;
		}
	}
	return status == ERR_UNAVAILABLE ? status : OK;
}

static enum status
do_registrations(struct follower *f, struct db_broker *broker, struct err *err)
{
	struct queue_item *items = queue_take(&f->registrations);
	struct db_broker_registration list[REGISTER_BATCH];
	struct queue_item *item = items;
	enum status status = OK;

	while (status == OK && item != NULL) {
		size_t count = 0;

		for (; item != NULL && count < COUNT_OF(list); item = item->next) {
			const struct registration *r =
				(const struct registration *)(const void *)item;

			list[count++] = (struct db_broker_registration){ .certificate_id =
										 r->certificate_id,
				.ca_id = r->ca_id,
				.pem = r->pem,
				.not_before_s = r->not_before_s,
				.not_after_s = r->not_after_s };
		}
		status = register_some(f, broker, list, count, err);
	}
	/* What could not be done now is not kept: the devices come again. */
	free_items(items);
	return status;
}

/*
 * Registry events: handed to the broker, then removed. So a crash says them twice rather than never.
 */

struct saying {
	struct db_tx *tx;
	struct queue_item *items, **last;
	int64_t ids[EVENTS_BATCH];
	size_t count;
};

static enum status
say_event(void *arg, const struct db_registry_event *row, struct err *err)
{
	struct saying *saying = arg;
	struct notice *notice = mem_zalloc(sizeof(*notice));

	if (notice == NULL)
		return err_memory(err);
	notice->kind = NOTICE_EVENT;
	*saying->last = &notice->event.item;
	saying->last = &notice->event.item.next;
	saying->ids[saying->count++] = row->event_id;
	(void)snprintf(notice->event.topic, sizeof(notice->event.topic), "%s", row->topic);
	TRY(bytes_copy(&notice->event.payload, row->payload, err));
	/* AWS has no longer topics, so no rule can mean it. */
	if (strlen(row->topic) >= DB_RULE_TOPIC_BYTES)
		return OK;
	return db_rule_event_add(saying->tx, row->topic, row->payload, err);
}

static enum status
say_some(struct follower *f, struct db_broker *broker, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	struct saying saying = { .tx = &tx, .last = &saying.items };
	enum status status;

	TRY(db_broker_write(broker, &tx, err));
	status = db_registry_event_next(&tx, EVENTS_BATCH, say_event, &saying, err);
	if (status == OK)
		status = db_tx_commit(&tx, err);
	if (status != OK) {
		free_notices(saying.items);
		return status;
	}
	while (saying.items != NULL && f->said_count < saying.count) {
		struct queue_item *item = saying.items;

		saying.items = item->next;
		if (!queue_add(f->setup.notices, item)) {
			notice_free((struct notice *)(void *)item);
			break; /* the rest is read again */
		}
		f->said[f->said_count] = saying.ids[f->said_count];
		f->said_count++;
	}
	free_notices(saying.items);
	f->events_due = saying.count == EVENTS_BATCH || f->said_count < saying.count;
	return OK;
}

/* Once the broker has taken them. */
static enum status
remove_said(struct follower *f, struct db_broker *broker, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	if (f->said_count == 0 || queue_pending(f->setup.notices))
		return OK;
	TRY(db_broker_write(broker, &tx, err));
	TRY(db_registry_event_remove(&tx, f->said, f->said_count, err));
	TRY(db_tx_commit(&tx, err));
	f->said_count = 0;
	return OK;
}

static enum status
do_events(struct follower *f, struct db_broker *broker, struct err *err)
{
	if (db_broker_event_heard(broker))
		f->events_due = true;
	TRY(remove_said(f, broker, err));
	if (!f->events_due || f->said_count > 0)
		return OK;
	TRY(say_some(f, broker, err));
	wake_broker(f);
	return remove_said(f, broker, err);
}

/*
 * Sessions
 */

static int
compare_comings(const void *a, const void *b)
{
	const struct coming *x = *(const struct coming *const *)a;
	const struct coming *y = *(const struct coming *const *)b;
	int order = strcmp(x->session.client_id, y->session.client_id);

	/* Who is taken over leaves after the new one came. */
	if (order == 0 && x->session.version != y->session.version)
		return x->session.version < y->session.version ? -1 : 1;
	return order != 0 ? order : x->order < y->order ? -1 : x->order > y->order;
}

static enum status
write_sessions(struct db_broker *broker, struct coming **at, size_t count, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	struct db_broker_session list[SESSIONS_BATCH];
	size_t used = 0;

	TRY(db_broker_write(broker, &tx, err));
	for (size_t i = 0; i < count; i++) {
		/* Of one client id, the last of the newest session counts. */
		if (i + 1 < count &&
			strcmp(at[i]->session.client_id, at[i + 1]->session.client_id) == 0)
			continue;
		list[used++] = at[i]->session;
		if (used == COUNT_OF(list) || i + 1 == count) {
			TRY(db_broker_sessions(&tx, list, used, err));
			used = 0;
		}
	}
	return db_tx_commit(&tx, err);
}

static enum status
do_sessions(struct follower *f, struct db_broker *broker, struct err *err)
{
	struct queue_item *items = queue_take(&f->sessions);
	struct coming **at = NULL;
	size_t count = 0;
	enum status status = OK;

	for (struct queue_item *item = items; item != NULL; item = item->next)
		count++;
	if (count == 0)
		return OK;
	at = mem_array(count, sizeof(struct coming *));
	count = 0;
	for (struct queue_item *item = items; at != NULL && item != NULL; item = item->next) {
		at[count] = (struct coming *)(void *)item;
		at[count]->order = count;
		count++;
	}
	if (at == NULL) {
		status = err_memory(err);
	} else {
		qsort(at, count, sizeof(struct coming *), compare_comings);
		status = write_sessions(broker, at, count, err);
	}
	if (status != OK) {
		f->sessions_said = false;
		(void)atomic_fetch_add(&f->lost_sessions, count);
	}
	mem_free(at);
	free_items(items);
	return status;
}

static enum status
reset_sessions(struct db_broker *broker, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	TRY(db_broker_write(broker, &tx, err));
	TRY(db_broker_sessions_reset(&tx, err));
	return db_tx_commit(&tx, err);
}

/* At the start, and after something was lost: nobody is connected, but those whom the broker names
 * again. */
static enum status
begin_sessions(struct follower *f, struct db_broker *broker, struct err *err)
{
	if (atomic_exchange(&f->sessions.overflowed, false))
		f->sessions_said = false;
	if (f->sessions_said || clock_mono_ms(&CLOCK_SYSTEM) < f->resay_at_ms)
		return OK;
	f->resay_at_ms = clock_mono_ms(&CLOCK_SYSTEM) + SESSIONS_RESAY_MS;
	TRY(reset_sessions(broker, err));
	f->sessions_said = true;
	tell_kind(f, NOTICE_SESSIONS, NULL);
	return OK;
}

/*
 * The thread
 */

static void
clear_wake(struct follower *f)
{
	uint64_t count;

	/* Not blocking: nothing there is fine as well. */
	if (read(f->wake_fd, &count, sizeof(count)) < 0)
		return;
}

static enum status
follow_if_due(struct follower *f, struct db_broker *broker, struct err *err)
{
	if (!f->follow_due && f->began_ms - f->followed_ms < HEARTBEAT_MS)
		return OK;
	f->follow_due = false;
	f->followed_ms = f->began_ms;
	TRY(follow(f, broker, err));
	wake_broker(f);
	return OK;
}

static enum status
work(struct follower *f, struct db_broker *broker, struct err *err)
{
	int64_t now_ms;

	f->began_ms = clock_mono_ms(&CLOCK_SYSTEM);
	TRY(follow_if_due(f, broker, err));
	TRY(do_registrations(f, broker, err));
	wake_broker(f);
	TRY(do_events(f, broker, err));
	now_ms = clock_mono_ms(&CLOCK_SYSTEM);
	if (now_ms < f->sessions_at_ms && !atomic_load(&f->stop))
		return OK;
	f->sessions_at_ms = now_ms + SESSIONS_EVERY_MS;
	TRY(begin_sessions(f, broker, err));
	wake_broker(f);
	return do_sessions(f, broker, err);
}

/* What comes after a pause is seen to at once, what comes behind it a moment later, and all of it. */
static void
gather(const struct follower *f)
{
	int64_t left_ms = f->began_ms + GATHER_MS - clock_mono_ms(&CLOCK_SYSTEM);

	if (left_ms > 0 && !atomic_load(&f->stop))
		(void)poll(NULL, 0, (int)left_ms);
}

/* From a link's beginning to its end, or ours. */
static enum status
run_link(struct follower *f, struct db_broker *broker, int64_t *backoff_ms, struct err *err)
{
	bool notified;

	(void)atomic_fetch_add(&f->links, 1);
	f->follow_due = true;
	for (;;) {
		bool last = atomic_load(&f->stop);
		int wait_ms = HEARTBEAT_MS;

		atomic_store(&f->moved_ms, clock_mono_ms(&CLOCK_SYSTEM));
		TRY(work(f, broker, err));
		atomic_store(&f->moved_ms, 0);
		*backoff_ms = 0;
		if (last)
			return reset_sessions(broker, err);
		if (queue_pending(&f->sessions) || f->said_count > 0)
			wait_ms = SESSIONS_EVERY_MS;
		if (f->events_due || f->follow_due)
			wait_ms = 0;
		TRY(db_broker_wait(broker, wait_ms, f->wake_fd, &notified, err));
		f->follow_due |= notified;
		gather(f);
		/* What has come meanwhile is read with the rest. */
		TRY(db_broker_wait(broker, 0, f->wake_fd, &notified, err));
		f->follow_due |= notified;
		clear_wake(f);
	}
}

static void
pause_ms(struct follower *f, int64_t ms)
{
	struct pollfd fd = { .fd = f->wake_fd, .events = POLLIN };
	int64_t until_ms = clock_mono_ms(&CLOCK_SYSTEM) + ms;
	int64_t left_ms;

	/* Woken for work that cannot be done now, it waits on. */
	while (!atomic_load(&f->stop) && (left_ms = until_ms - clock_mono_ms(&CLOCK_SYSTEM)) > 0) {
		(void)poll(&fd, 1, (int)left_ms);
		clear_wake(f);
		free_items(queue_take(&f->registrations));
	}
}

static void
set_link(struct follower *f, struct db_broker *link)
{
	(void)pthread_mutex_lock(&f->lock);
	f->link = link;
	(void)pthread_mutex_unlock(&f->lock);
}

void
follower_watch(struct follower *f)
{
	int64_t moved_ms = atomic_load(&f->moved_ms);

	if (moved_ms == 0 || clock_mono_ms(&CLOCK_SYSTEM) - moved_ms < HANGS_MS)
		return;
	(void)pthread_mutex_lock(&f->lock);
	if (f->link != NULL) {
		db_broker_cut(f->link);
		f->link = NULL; /* once is enough */
		log_event(LOG_WARN, "registry_hangs", NULL, LOG_INT("ms", HANGS_MS));
	}
	(void)pthread_mutex_unlock(&f->lock);
}

static void *
run(void *arg)
{
	struct follower *f = arg;
	int64_t backoff_ms = 0;
	bool was_away = false;

	while (!atomic_load(&f->stop)) {
		struct db_broker *broker = NULL;
		struct err err = { .status = OK };
		enum status status = db_broker_begin(&broker, f->conninfo, &err);

		set_link(f, broker);
		if (status == OK)
			status = run_link(f, broker, &backoff_ms, &err);
		set_link(f, NULL);
		atomic_store(&f->moved_ms, 0);
		db_broker_end(broker);
		if (status == OK)
			continue;
		if (!was_away || status != ERR_UNAVAILABLE)
			log_error(status == ERR_UNAVAILABLE ? LOG_WARN : LOG_ERROR, "registry_link",
				NULL, &err);
		was_away = backoff_ms > 0;
		backoff_ms = backoff_ms == 0                    ? BACKOFF_FIRST_MS
		             : backoff_ms * 2 < BACKOFF_LAST_MS ? backoff_ms * 2
		                                                : BACKOFF_LAST_MS;
		pause_ms(f, backoff_ms);
	}
	return NULL;
}

static enum status
start_thread(struct follower *f, struct err *err)
{
	sigset_t all;
	sigset_t before;
	int result;

	/* The broker's signals are for the broker's thread. */
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	result = pthread_create(&f->thread, NULL, run, f);
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (result != 0)
		return err_set(
			err, ERR_UNAVAILABLE, "thread_start", "pthread_create: errno %d", result);
	return OK;
}

static void
follower_free(struct follower *f)
{
	free_items(queue_take(&f->registrations));
	free_items(queue_take(&f->sessions));
	if (f->wake_fd >= 0)
		(void)close(f->wake_fd);
	(void)pthread_mutex_destroy(&f->lock);
	mem_free(f->conninfo);
	mem_free(f);
}

enum status
follower_start(struct follower **out, const struct follow_setup *setup, struct err *err)
{
	struct follower *f = mem_zalloc(sizeof(*f));
	enum status status = OK;

	if (f == NULL)
		return err_memory(err);
	f->setup = *setup;
	(void)pthread_mutex_init(&f->lock, NULL);
	queue_begin(&f->registrations, REGISTER_QUEUE);
	queue_begin(&f->sessions, SESSIONS_QUEUE);
	f->conninfo = mem_strdup(setup->conninfo);
	f->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (f->conninfo == NULL)
		status = err_memory(err);
	else if (f->wake_fd < 0)
		status = err_set(err, ERR_UNAVAILABLE, "thread_start", "eventfd: errno %d", errno);
	if (status == OK)
		status = start_thread(f, err);
	if (status != OK) {
		follower_free(f);
		return status;
	}
	*out = f;
	return OK;
}

static void
wake_follower(struct follower *f)
{
	uint64_t one = 1;

	if (write(f->wake_fd, &one, sizeof(one)) < 0)
		return; /* it is set already */
}

bool
follower_stop(struct follower *follower)
{
	struct timespec until;

	if (follower == NULL)
		return true;
	atomic_store(&follower->stop, true);
	wake_follower(follower);
	(void)clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += STOP_MS / 1000;
	/* A thread that hangs in a dead link is left to the end of the process, with what it uses.
	 */
	if (pthread_timedjoin_np(follower->thread, NULL, &until) != 0)
		return false;
	follower_free(follower);
	return true;
}

bool
follower_loaded(const struct follower *follower)
{
	return atomic_load_explicit(&follower->loaded, memory_order_acquire);
}

int64_t
follower_fresh_ms(const struct follower *follower)
{
	return atomic_load_explicit(&follower->fresh_ms, memory_order_relaxed);
}

const char *
follower_account_id(const struct follower *follower)
{
	return follower->account_id;
}

const char *
follower_region(const struct follower *follower)
{
	return follower->region;
}

void
follower_stats(const struct follower *follower, struct follower_stats *out)
{
	*out = (struct follower_stats){
		.reloads = atomic_load(&follower->reloads),
		.changes = atomic_load(&follower->changes),
		.registered = atomic_load(&follower->registered),
		.links = atomic_load(&follower->links),
		.lost_sessions = atomic_load(&follower->lost_sessions),
	};
}

/*
 * From the broker
 */

static bool
hand_over(struct follower *follower, struct queue *queue, struct queue_item *item)
{
	bool waiting = queue_pending(queue);

	if (!queue_add(queue, item))
		return false;
	if (!waiting)
		wake_follower(follower);
	return true;
}

bool
follower_register(struct follower *follower, const char *certificate_id, const char *ca_id,
	const char *pem, int64_t not_before_s, int64_t not_after_s)
{
	size_t pem_size = strlen(pem) + 1;
	struct registration *made = mem_zalloc(sizeof(*made) + pem_size);

	if (made == NULL)
		return false;
	made->not_before_s = not_before_s;
	made->not_after_s = not_after_s;
	memcpy(made->certificate_id, certificate_id, sizeof(made->certificate_id));
	memcpy(made->ca_id, ca_id, sizeof(made->ca_id));
	memcpy(made->pem, pem, pem_size);
	if (!hand_over(follower, &follower->registrations, &made->item)) {
		mem_free(made);
		return false;
	}
	return true;
}

static const char *
append(char **at, const char *text)
{
	size_t size = strlen(text) + 1;
	char *here = *at;

	memcpy(here, text, size);
	*at += size;
	return here;
}

void
follower_session(struct follower *follower, const char *client_id, const char *certificate_id,
	const char *thing, const char *address, bool connected, int64_t version)
{
	struct coming *made =
		mem_zalloc(sizeof(*made) + strlen(client_id) + strlen(certificate_id) +
			   (thing == NULL ? 0 : strlen(thing)) + strlen(address) + 4);
	char *at;

	if (made == NULL) {
		atomic_store(&follower->sessions.overflowed, true);
		return;
	}
	at = made->text;
	made->session = (struct db_broker_session){ .client_id = append(&at, client_id),
		.certificate_id = append(&at, certificate_id),
		.thing = thing == NULL ? NULL : append(&at, thing),
		.address = append(&at, address),
		.connected = connected,
		.version = version };
	if (!hand_over(follower, &follower->sessions, &made->item))
		mem_free(made);
}
