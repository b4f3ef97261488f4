#include "server/iotcore/plugin/topic.h"

#include <string.h>

/* Length and slashes of what stands behind `levels` levels. */
static enum topic_verdict
measure(const char *topic, int levels)
{
	size_t slashes = 0;

	while (levels-- > 0) {
		topic = strchr(topic, '/');
		if (topic == NULL)
			return TOPIC_RESERVED;
		topic++;
	}
	if (strlen(topic) > TOPIC_MAX_BYTES)
		return TOPIC_TOO_LONG;
	for (; *topic != '\0'; topic++)
		slashes += *topic == '/';
	return slashes <= TOPIC_MAX_SLASHES ? TOPIC_FINE : TOPIC_TOO_LONG;
}

static bool
begins(const char *text, const char *with)
{
	return strncmp(text, with, strlen(with)) == 0;
}

enum topic_verdict
topic_publish(const char *topic)
{
	if (topic[0] != '$' || begins(topic, "$aws/things/"))
		return measure(topic, 0);
	if (begins(topic, "$aws/rules/"))
		return measure(topic, 3);
	return TOPIC_RESERVED;
}

enum topic_verdict
topic_subscribe(const char *filter)
{
	const char *shared;

	if (filter[0] != '$' || begins(filter, "$aws/"))
		return measure(filter, 0);
	if (!begins(filter, "$share/"))
		return TOPIC_RESERVED;
	shared = strchr(filter + strlen("$share/"), '/');
	if (shared == NULL)
		return TOPIC_RESERVED;
	if (shared[1] == '$')
		return begins(shared + 1, "$aws/") ? TOPIC_UNSERVED : TOPIC_RESERVED;
	return measure(filter, 2);
}

bool
topic_client_id(const char *client_id)
{
	size_t len = strlen(client_id);

	return len > 0 && len <= CLIENT_ID_MAX_BYTES && client_id[0] != '$';
}
