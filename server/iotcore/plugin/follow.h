/*
 * server/iotcore/plugin/follow.h - the plugin's own thread, the only one that talks to PostgreSQL:
 * loads the registry, follows its changes, registers certificates, hands over registry events, keeps
 * iotcore.session.
 *
 * At each start of a link: LISTEN first, then read; whole at the first time and after a gap in the
 * changes' numbers, else what was changed since. What it has for the broker's thread it hangs into
 * `notices` and calls wake() until that thread has taken it; what the broker has for it comes by
 * the functions below, which never wait. While PostgreSQL is away it tries again, from 50 ms to 1 s
 * apart.
 */
#ifndef SERVER_IOTCORE_PLUGIN_FOLLOW_H
#define SERVER_IOTCORE_PLUGIN_FOLLOW_H

#include "base/clock.h"
#include "base/err.h"
#include "server/iotcore/plugin/event.h"
#include "server/iotcore/plugin/queue.h"
#include "server/iotcore/plugin/registry.h"

enum notice_kind {
	NOTICE_UNSET = 0,
	NOTICE_CERTIFICATE, /* what this certificate may do may have changed */
	NOTICE_ALL,         /* … any certificate */
	NOTICE_EVENT,       /* publish this */
	NOTICE_SESSIONS, /* say again who is connected: some of it was lost, or nothing said yet */
};

struct notice {
	struct event event; /* its queue_item is first */
	enum notice_kind kind;
	uint8_t certificate_id[REGISTRY_ID_BYTES];
};
void notice_free(struct notice *notice); /* NULL is welcome */

struct follow_setup {
	const char *conninfo;          /* copied */
	struct registry *registry;     /* borrowed, as the others */
	const struct siphash_key *key; /* the registry's */
	struct queue *notices;
	void (*wake)(void *arg); /* makes the broker's thread look, from our thread */
	void *arg;
};

struct follower;
MUST_USE enum status follower_start(
	struct follower **out, const struct follow_setup *setup, struct err *err);
/*
 * Ends its thread, after iotcore.session says that nobody is connected (within 2 s, if PostgreSQL
 * is there). False: it hangs in a dead link, and whatever it was given must live on until the
 * process ends.
 */
bool follower_stop(struct follower *follower); /* NULL is welcome */

/*
 * From the broker's thread, now and then: notices that PostgreSQL hangs, says so, and ends the link, so that
 * another is tried. Decisions go on with what is known, as when PostgreSQL is away.
 */
void follower_watch(struct follower *follower);

/* Once the registry was read. */
bool follower_loaded(const struct follower *follower);
/* When it last knew the registry to be what the database holds (monotonic); 0: never. */
int64_t follower_fresh_ms(const struct follower *follower);
/* "123456789012" and the region, once loaded; constant afterwards. */
const char *follower_account_id(const struct follower *follower);
const char *follower_region(const struct follower *follower);

struct follower_stats {
	uint64_t reloads, changes, registered, links, lost_sessions;
};
void follower_stats(const struct follower *follower, struct follower_stats *out);

/*
 * Asks for a certificate to be registered; copies all. Its event follows when that is committed.
 * False: too many are waiting, or memory is short; the device will come again.
 */
bool follower_register(struct follower *follower, const char *certificate_id, const char *ca_id,
	const char *pem, int64_t not_before_s, int64_t not_after_s);

/* Somebody came or went; copies all. thing may be NULL. */
void follower_session(struct follower *follower, const char *client_id, const char *certificate_id,
	const char *thing, const char *address, bool connected, int64_t version);

#endif
