/*
 * server/iotcore/plugin/session.h - who is connected, and what each may do. Knows neither the
 * broker nor PostgreSQL: it judges by the registry.
 *
 * A session holds its grant (policies, thing) and the last decisions under the hash of their topic,
 * so a message costs a look-up of its client, a hash of its topic and, once a second for each
 * topic, a decision. A grant is fetched anew when sessions_stale has marked it.
 *
 * Memory for a session: 0.8 KB, of which the decisions are 256 octets, and its grant and the
 * certificate's fields: some 0.7 KB.
 *
 * Threads: the broker's only.
 */
#ifndef SERVER_IOTCORE_PLUGIN_SESSION_H
#define SERVER_IOTCORE_PLUGIN_SESSION_H

#include "base/err.h"
#include "server/iotcore/plugin/event.h"
#include "server/iotcore/plugin/registry.h"

#define SESSION_DECISIONS 16
#define SESSION_ADDRESS_BYTES 64

enum session_index {
	SESSION_BY_CLIENT,
	SESSION_BY_CERTIFICATE,
	SESSION_BY_CLIENT_ID,
	SESSION_INDEXES
};

struct session_decision {
	uint64_t hash; /* of action and name */
	uint32_t at_s; /* conditions may speak of the time: kept within its second only */
	bool allowed;
};

struct session {
	const void *client; /* the broker's; only compared */
	struct session *next[SESSION_INDEXES];
	struct session *next_ended;
	uint8_t certificate_id[REGISTRY_ID_BYTES];
	char certificate_hex[2 * REGISTRY_ID_BYTES + 1];
	char uuid[EVENT_UUID_BYTES];
	char address[SESSION_ADDRESS_BYTES];
	struct policy_address source;
	char *client_id;
	int64_t version;     /* grows from session to session: the time of CONNECT in ms */
	int64_t not_after_s; /* of the certificate */
	bool persistent;
	bool ended;     /* gone; kept until the broker has asked about its will */
	bool announced; /* its connected event went out */
	bool kicked;
	const char *reason;        /* for the disconnected event; NULL: not known */
	struct policy_pair *pairs; /* owned: the certificate's fields */
	size_t pair_count;
	struct buf subscribed, unsubscribed; /* topics of this round, one a line */
	struct registry_grant *grant;        /* NULL: memory was short; denied */
	uint64_t epoch;                      /* that the grant is of */
	uint64_t checked;                    /* at which it was last asked whether it may stay */
	struct session_decision decisions[SESSION_DECISIONS];
};

struct sessions;
/* Borrows registry. key: random. */
MUST_USE enum status sessions_new(struct sessions **out, struct registry *registry,
	const struct siphash_key *key, struct err *err);
void sessions_free(struct sessions *sessions); /* NULL is welcome */
/* In which account and region resources are; before the first judgement. */
void sessions_place(struct sessions *sessions, const char *region, const char *account_id);
size_t sessions_count(const struct sessions *sessions); /* not those that ended */

struct session_setup {
	const void *client;
	const uint8_t *certificate_id;
	const char *client_id, *address;
	int64_t version, not_after_s;
	bool persistent;
	const uint8_t *random;     /* 16 octets, for its UUID */
	struct policy_pair *pairs; /* taken, also on failure; one block */
	size_t pair_count;
};
/* Takes the place of one that the same client pointer had. *out lives until it is ended and reaped.
 */
MUST_USE enum status session_add(struct session **out, struct sessions *sessions,
	const struct session_setup *setup, struct err *err);
/* Also one that has ended and was not reaped; NULL: none. */
struct session *session_find(const struct sessions *sessions, const void *client);
/* A live one of that client id but not of that client; NULL: none. */
struct session *session_other(
	const struct sessions *sessions, const char *client_id, const void *client);
void session_end(struct sessions *sessions, struct session *session);
void sessions_reap(struct sessions *sessions);

/* Whether it may. now_s: wall time. */
bool session_may(struct sessions *sessions, struct session *session, enum policy_action action,
	struct view name, int64_t now_s);
/* Whether it may stay, were it to CONNECT now. */
bool session_may_stay(struct sessions *sessions, struct session *session, int64_t now_s);
/* The same as session_may for somebody who left and of whom only this is known (a delayed will). */
bool session_absent_may(struct sessions *sessions, const char *certificate_hex,
	const char *client_id, enum policy_action action, struct view name, int64_t now_s);

/* Grants are of the past: of one certificate (each() gets its live sessions), or of all. */
void sessions_stale(struct sessions *sessions, const uint8_t certificate_id[REGISTRY_ID_BYTES],
	void (*each)(void *arg, struct session *session), void *arg);
void sessions_stale_all(struct sessions *sessions);
/* After sessions_stale_all: up to max more live sessions that were not looked at since. */
bool sessions_sweep(struct sessions *sessions, size_t max,
	void (*each)(void *arg, struct session *session), void *arg);
void sessions_each(
	struct sessions *sessions, void (*each)(void *arg, struct session *session), void *arg);

/* For the events. thing is filled (it holds DB_IOTCORE_KEY_BYTES) and pointed at, if there is one.
 */
struct event_session session_event(const struct session *session, char *thing);

#endif
