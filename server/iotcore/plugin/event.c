#include "server/iotcore/plugin/event.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <jansson.h>

#define PAYLOAD_BYTES (128 * 1024) /* AWS's largest message */

static inline void
own_json_t_(json_t **p)
{
	json_decref(*p);
}

void
event_clear(struct event *event)
{
	bytes_free(&event->payload);
}

static int
dump(const char *data, size_t len, void *arg)
{
	struct err err;

	return buf_add(arg, data, len, &err) == OK ? 0 : -1;
}

/* NULL becomes of a member that could not be made: then nothing is sent, rather than half of it. */
static enum status
finish(struct event *out, const json_t *object, struct err *err)
{
	own_struct(buf) text = { .limit_bytes = PAYLOAD_BYTES };

	if (object == NULL || json_dump_callback(object, dump, &text, JSON_COMPACT) != 0)
		return err_set(
			err, ERR_INTERNAL, "event_unsayable", "event: no JSON can be made of it");
	out->payload = buf_give(&text);
	return OK;
}

enum status
event_registered(struct event *out, const char *certificate_id, const char *ca_id,
	const char *account_id, int64_t registered_at_ms, int64_t now_ms, struct err *err)
{
	char registered_at[24];
	own(json_t) object = NULL;

	(void)snprintf(registered_at, sizeof(registered_at), "%" PRId64, registered_at_ms);
	(void)snprintf(
		out->topic, sizeof(out->topic), "$aws/events/certificates/registered/%s", ca_id);
	object = json_pack("{s:s, s:s, s:I, s:s, s:s, s:s}", "certificateId", certificate_id,
		"caCertificateId", ca_id, "timestamp", (json_int_t)now_ms, "certificateStatus",
		"PENDING_ACTIVATION", "awsAccountId", account_id,
		"certificateRegistrationTimestamp", registered_at);
	return finish(out, object, err);
}

bool
event_topic_fits(const char *client_id)
{
	return client_id[strcspn(client_id, "+#")] == '\0' &&
	       strlen(client_id) + sizeof("$aws/events/subscriptions/unsubscribed/") <=
	               EVENT_TOPIC_BYTES;
}

static json_t *
session_object(struct event *out, const struct event_session *session, const char *family,
	const char *type, int64_t now_ms)
{
	(void)snprintf(out->topic, sizeof(out->topic), "$aws/events/%s/%s/%s", family, type,
		session->client_id);
	return json_pack("{s:s, s:I, s:s, s:s, s:s}", "clientId", session->client_id, "timestamp",
		(json_int_t)now_ms, "eventType", type, "sessionIdentifier", session->session_id,
		"principalIdentifier", session->certificate_id);
}

static int
set_presence(json_t *object, const struct event_session *session)
{
	if (json_object_set_new(object, "versionNumber", json_integer(session->version)) != 0)
		return -1;
	return session->thing == NULL || !session->exclusive
	               ? 0
	               : json_object_set_new(object, "thingName", json_string(session->thing));
}

enum status
event_connected(
	struct event *out, const struct event_session *session, int64_t now_ms, struct err *err)
{
	own(json_t) object = session_object(out, session, "presence", "connected", now_ms);

	if (json_object_set_new(object, "ipAddress", json_string(session->address)) != 0 ||
		set_presence(object, session) != 0)
		return finish(out, NULL, err);
	return finish(out, object, err);
}

enum status
event_disconnected(struct event *out, const struct event_session *session, const char *reason,
	bool by_client, int64_t now_ms, struct err *err)
{
	own(json_t) object = session_object(out, session, "presence", "disconnected", now_ms);

	if (json_object_set_new(object, "clientInitiatedDisconnect", json_boolean(by_client)) !=
			0 ||
		json_object_set_new(object, "disconnectReason", json_string(reason)) != 0 ||
		set_presence(object, session) != 0)
		return finish(out, NULL, err);
	return finish(out, object, err);
}

enum status
event_subscriptions(struct event *out, const struct event_session *session, bool subscribed,
	struct view topics, int64_t now_ms, struct err *err)
{
	own(json_t) object = session_object(
		out, session, "subscriptions", subscribed ? "subscribed" : "unsubscribed", now_ms);
	json_t *list = json_array();

	while (topics.len > 0) {
		const uint8_t *end = memchr(topics.data, '\n', topics.len);
		size_t len = end == NULL ? topics.len : (size_t)(end - topics.data);

		if (json_array_append_new(list, json_stringn((const char *)topics.data, len)) != 0)
			break;
		len += end != NULL;
		topics.data += len;
		topics.len -= len;
	}
	if (json_object_set_new(object, "topics", list) != 0 || topics.len > 0)
		return finish(out, NULL, err);
	return finish(out, object, err);
}

int64_t
event_now_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void
event_uuid(char out[EVENT_UUID_BYTES], const uint8_t random[16])
{
	uint8_t u[16];
	char hex[33];

	memcpy(u, random, sizeof(u));
	u[6] = (uint8_t)((u[6] & 0x0f) | 0x40); /* version 4 */
	u[8] = (uint8_t)((u[8] & 0x3f) | 0x80); /* variant 10 */
	hex_encode(hex, u, sizeof(u));
	(void)snprintf(out, EVENT_UUID_BYTES, "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8, hex + 12,
		hex + 16, hex + 20);
}
