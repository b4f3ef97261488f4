/*
 * server/iotcore/plugin/topic.h - which topics and filters AWS IoT has at all, before any policy is
 * asked. At most 256 octets and seven slashes (behind "$aws/rules/<name>/", or "$share/<name>/").
 * What begins with
 * '$' is the service's.
 */
#ifndef SERVER_IOTCORE_PLUGIN_TOPIC_H
#define SERVER_IOTCORE_PLUGIN_TOPIC_H

#include <stdbool.h>

#define TOPIC_MAX_BYTES 256
#define TOPIC_MAX_SLASHES 7
#define CLIENT_ID_MAX_BYTES 128
#define PAYLOAD_MAX_BYTES (128 * 1024)
#define SUBSCRIPTIONS_MAX 50

enum topic_verdict {
	TOPIC_UNSET = 0,
	TOPIC_FINE,
	TOPIC_TOO_LONG,
	TOPIC_RESERVED, /* nothing of a client's */
	TOPIC_UNSERVED, /* AWS has it, this broker cannot: shared subscriptions of "$aws/…" */
};

/* To publish to: of '$', only "$aws/things/…" and "$aws/rules/…". */
enum topic_verdict topic_publish(const char *topic);
/* To subscribe to: of '$', only "$aws/…" and "$share/…". */
enum topic_verdict topic_subscribe(const char *filter);
bool topic_client_id(const char *client_id);

#endif
