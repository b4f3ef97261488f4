/*
 * server/iotcore/plugin/event.h - the events that AWS IoT publishes, as topic and JSON:
 * certificates registered (JITR), presence, subscriptions. Times are milliseconds since the epoch.
 *
 * Source: the developer guide's pages on just-in-time registration and on life cycle events. In the
 * first, timestamp is a number but certificateRegistrationTimestamp a string, and awsAccountId one
 * as well.
 */
#ifndef SERVER_IOTCORE_PLUGIN_EVENT_H
#define SERVER_IOTCORE_PLUGIN_EVENT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "server/iotcore/plugin/queue.h"

#define EVENT_TOPIC_BYTES 336 /* not less than DB_REGISTRY_TOPIC_BYTES */
#define EVENT_UUID_BYTES 37

struct event {
	struct queue_item item; /* what the follower hands to the broker */
	char topic[EVENT_TOPIC_BYTES];
	struct bytes payload;
};
void event_clear(struct event *event);
OWNER_STRUCT(event, event_clear)

/* certificate_id and ca_id: hex. */
MUST_USE enum status event_registered(struct event *out, const char *certificate_id,
	const char *ca_id, const char *account_id, int64_t registered_at_ms, int64_t now_ms,
	struct err *err);

struct event_session {
	const char *client_id;
	const char *session_id; /* UUID */
	const char *certificate_id;
	const char *thing; /* NULL: none attached exclusively or by name */
	bool exclusive;    /* AWS names only such a thing */
	const char *address;
	int64_t version;
};
MUST_USE enum status event_connected(
	struct event *out, const struct event_session *session, int64_t now_ms, struct err *err);
/* reason is one of AWS's names. */
MUST_USE enum status event_disconnected(struct event *out, const struct event_session *session,
	const char *reason, bool by_client, int64_t now_ms, struct err *err);
/* topics: one a line. */
MUST_USE enum status event_subscriptions(struct event *out, const struct event_session *session,
	bool subscribed, struct view topics, int64_t now_ms, struct err *err);

int64_t event_now_ms(void); /* wall time */

/* A random UUID (RFC 9562 5.4) from 16 random octets. */
void event_uuid(char out[EVENT_UUID_BYTES], const uint8_t random[16]);

/* Client ids with '+' or '#' have no life cycle events: there is no such topic. */
bool event_topic_fits(const char *client_id);

#endif
