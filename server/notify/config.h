/*
 * server/notify/config.h - who is told of what: channels and rules, out of the file that notify_file names
 * (docs/notifications.md). JSON, in which a line that begins with # is a comment. Read once, before
 * privileges are dropped: what it points to (passwords, the keys of signatures) may be root's. SIGHUP
 * starts a new frontend, which reads it anew. Not changed afterwards.
 */
#ifndef SERVER_NOTIFY_CONFIG_H
#define SERVER_NOTIFY_CONFIG_H

#include <stdbool.h>

#include "base/err.h"
#include "ca/secret.h"
#include "db/notification.h"
#include "server/config.h"

#define NOTIFY_CHANNELS_MAX 16
#define NOTIFY_RULES_MAX 64
#define NOTIFY_PATTERNS_MAX 32
#define NOTIFY_RECIPIENTS_MAX 32
#define NOTIFY_HOST_BYTES 256
#define NOTIFY_ADDRESS_BYTES 255

enum notify_type {
	NOTIFY_UNSET = 0,
	NOTIFY_EMAIL,
	NOTIFY_WEBHOOK,
	NOTIFY_SNS,
	NOTIFY_SYSLOG,
};
const char *notify_type_name(enum notify_type type);

enum notify_severity { SEVERITY_INFO = 0, SEVERITY_LOW, SEVERITY_MEDIUM, SEVERITY_HIGH, SEVERITY_CRITICAL };
/* An unknown name is the highest: what is odd is told. */
enum notify_severity notify_severity(const char *name);
const char *notify_severity_name(enum notify_severity severity);

enum notify_transport { TRANSPORT_UNSET = 0, TRANSPORT_UDP, TRANSPORT_TCP, TRANSPORT_TLS, TRANSPORT_LOCAL };

struct notify_channel {
	char name[DB_CHANNEL_BYTES]; /* [a-z0-9][a-z0-9-]{0,31} */
	enum notify_type type;
	int64_t rate_per_hour, burst; /* the token bucket */
	int64_t queue_max;            /* deliveries that wait */
	int64_t summary_after_s;      /* from what was held back first to the message that says so */
	int64_t give_up_after_s;      /* tried so long, then a dead letter */
	int64_t timeout_ms;           /* of one attempt */

	char url[CONFIG_TEXT_BYTES];  /* smtp://, smtps://; webhook; SNS: "" is AWS's own */
	char ca_file[CONFIG_TEXT_BYTES]; /* "": the system's */
	struct secret secret;            /* of SMTP: the password; of a webhook: the key */

	/* e-mail */
	bool starttls;                   /* with smtp://: asked for, and nothing said before it */
	char username[NOTIFY_ADDRESS_BYTES];
	char from[NOTIFY_ADDRESS_BYTES];
	char to[NOTIFY_RECIPIENTS_MAX][NOTIFY_ADDRESS_BYTES];
	size_t to_count;

	/* SNS */
	char topic_arn[512];
	char region[33];
	char profile[65];

	/* syslog */
	enum notify_transport transport;
	char host[NOTIFY_HOST_BYTES];
	char port[6];
	char path[108];      /* of the local socket */
	bool cef;
	int facility;        /* RFC 5424 6.2.1 */
	char hostname[NOTIFY_HOST_BYTES]; /* "": this machine's */
};

struct notify_rule {
	char channels[NOTIFY_CHANNELS_MAX][DB_CHANNEL_BYTES];
	size_t channel_count;
	char kinds[NOTIFY_PATTERNS_MAX][66], except[NOTIFY_PATTERNS_MAX][66]; /* "iot_*", "*" */
	size_t kind_count, except_count;
	enum notify_severity least;
	int64_t repeat_after_s;
};

struct notify_config {
	struct notify_channel channels[NOTIFY_CHANNELS_MAX];
	size_t channel_count;
	struct notify_rule rules[NOTIFY_RULES_MAX];
	size_t rule_count;
};

/*
 * Reads the file of config, if one is named. ERR_ARGUMENT notify_invalid: file, line or entry, field, rule.
 * The secrets are the caller's to free, also on failure.
 */
MUST_USE enum status notify_config_read(struct notify_config *out, const struct config *config,
	struct err *err);
void notify_config_free(struct notify_config *config);

/* NULL: there is none of that name. */
const struct notify_channel *notify_config_channel(const struct notify_config *config, const char *name);

/*
 * Whether a rule sends events of this kind and severity to the channel. *repeat_after_s: of the first such
 * rule.
 */
bool notify_config_wants(const struct notify_config *config, const char *channel, const char *kind,
	enum notify_severity severity, int64_t *repeat_after_s);

#endif
