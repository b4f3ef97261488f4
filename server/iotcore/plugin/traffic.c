#include "server/iotcore/plugin/plugin.h"

#include <string.h>

#include "server/iotcore/plugin/topic.h"

/* What the broker makes of it: the connection closes at once, as in AWS; or this one is left out.
 */
enum { GRANT = MOSQ_ERR_SUCCESS, CLOSE = MOSQ_ERR_AUTH, LEAVE_OUT = MOSQ_ERR_ACL_DENIED };

#define FORBIDDEN "FORBIDDEN_ACCESS"
#define CLIENT_ERROR "CLIENT_ERROR"

static int
closed(struct plugin *p, struct session *session, const char *topic, const char *reason,
	const char *detail)
{
	session->reason = reason;
	plugin_complain(p, strcmp(reason, FORBIDDEN) == 0 ? "forbidden" : "client_error",
		session->client_id, session->address, session->certificate_hex, detail);
	log_event(LOG_DEBUG, "closed", NULL, LOG_STR("client_id", session->client_id),
		LOG_STR("topic", topic), LOG_STR("detail", detail));
	return CLOSE;
}

/* NULL: nothing against it. */
static const char *
publish_error(const struct mosquitto_evt_acl_check *asked)
{
	if (asked->qos > 1)
		return "QoS 2";
	if (asked->payloadlen > PAYLOAD_MAX_BYTES)
		return "payload over 128 KB";
	switch (topic_publish(asked->topic)) {
	case TOPIC_FINE: return NULL;
	case TOPIC_TOO_LONG: return "topic over 256 octets or 7 slashes";
	case TOPIC_RESERVED:
	case TOPIC_UNSERVED:
	case TOPIC_UNSET: break;
	}
	return "topic reserved for the service";
}

static int
check_publish(
	struct plugin *p, struct session *session, const struct mosquitto_evt_acl_check *asked)
{
	struct view topic = view_text(asked->topic);
	int64_t now_s = plugin_now_s();
	const char *error = publish_error(asked);

	if (error != NULL)
		return closed(p, session, asked->topic, CLIENT_ERROR, error);
	if (!session_may(p->sessions, session, POLICY_PUBLISH, topic, now_s))
		return closed(p, session, asked->topic, FORBIDDEN, "iot:Publish");
	if (asked->retain &&
		!session_may(p->sessions, session, POLICY_RETAIN_PUBLISH, topic, now_s))
		return closed(p, session, asked->topic, FORBIDDEN, "iot:RetainPublish");
	return GRANT;
}

/* A will whose client left long ago: the broker still has its client id and the name that we gave
 * it. */
static int
check_absent_publish(struct plugin *p, const struct mosquitto_evt_acl_check *asked)
{
	const char *certificate_hex = mosquitto_client_username(asked->client);
	const char *client_id = mosquitto_client_id(asked->client);
	int64_t now_s = plugin_now_s();

	if (certificate_hex == NULL || client_id == NULL || publish_error(asked) != NULL)
		return LEAVE_OUT;
	if (!session_absent_may(p->sessions, certificate_hex, client_id, POLICY_PUBLISH,
		    view_text(asked->topic), now_s))
		return LEAVE_OUT;
	if (asked->retain && !session_absent_may(p->sessions, certificate_hex, client_id,
				     POLICY_RETAIN_PUBLISH, view_text(asked->topic), now_s))
		return LEAVE_OUT;
	return GRANT;
}

/* The event tells of all topics of a round at once. */
static void
note_topic(struct plugin *p, struct session *session, struct buf *list, const char *topic)
{
	bool first = session->subscribed.len == 0 && session->unsubscribed.len == 0;
	struct err err;

	if (first && !plugin_remember(&p->told, &p->told_count, &p->told_capacity, session))
		return;
	if (list->len > 0 && buf_text(list, "\n", &err) != OK)
		return;
	if (buf_text(list, topic, &err) != OK && list->len > 0)
		list->len--;
}

static int
check_subscribe(
	struct plugin *p, struct session *session, const struct mosquitto_evt_acl_check *asked)
{
	switch (topic_subscribe(asked->topic)) {
	case TOPIC_FINE: break;
	case TOPIC_UNSERVED:
		/* The broker would say yes and never deliver. */
		plugin_complain(p, "shared_events", session->client_id, session->address,
			session->certificate_hex, "shared subscriptions of $aws/ are not served");
		return LEAVE_OUT;
	case TOPIC_TOO_LONG:
		return closed(p, session, asked->topic, CLIENT_ERROR,
			"filter over 256 octets or 7 slashes");
	case TOPIC_RESERVED:
	case TOPIC_UNSET:
		return closed(
			p, session, asked->topic, CLIENT_ERROR, "filter reserved for the service");
	}
	if (!session_may(p->sessions, session, POLICY_SUBSCRIBE, view_text(asked->topic),
		    plugin_now_s()))
		return closed(p, session, asked->topic, FORBIDDEN, "iot:Subscribe");
	if (mosquitto_client_sub_count(asked->client) >= SUBSCRIPTIONS_MAX)
		return LEAVE_OUT;
	note_topic(p, session, &session->subscribed, asked->topic);
	return GRANT;
}

int
traffic_check(int event, void *data, void *userdata)
{
	const struct mosquitto_evt_acl_check *asked = data;
	struct plugin *p = userdata;
	struct session *session = session_find(p->sessions, asked->client);
	bool absent = session == NULL || session->ended;

	(void)event;
	switch (asked->access) {
	case MOSQ_ACL_READ:
		/* For somebody who is offline it is only queued, and asked again when it is
		 * delivered. An error other than this one would hit who published it. */
		if (absent)
			return GRANT;
		return session_may(p->sessions, session, POLICY_RECEIVE, view_text(asked->topic),
			       plugin_now_s())
		               ? GRANT
		               : LEAVE_OUT;
	case MOSQ_ACL_WRITE:
		return session == NULL ? check_absent_publish(p, asked)
		                       : check_publish(p, session, asked);
	case MOSQ_ACL_SUBSCRIBE: return absent ? CLOSE : check_subscribe(p, session, asked);
	case MOSQ_ACL_UNSUBSCRIBE:
		if (!absent)
			note_topic(p, session, &session->unsubscribed, asked->topic);
		return GRANT;
	default: return CLOSE;
	}
}
