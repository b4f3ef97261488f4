/*
 * server/notify/message.h - a notification as text: the JSON that is kept and sent to webhooks and SNS, and
 * out of that a mail (RFC 5322), a syslog message (RFC 5424) and CEF. Ids and details may hold anything:
 * no octet of them ends a header, a field, a line or an element. Pure; any thread.
 */
#ifndef SERVER_NOTIFY_MESSAGE_H
#define SERVER_NOTIFY_MESSAGE_H

#include <jansson.h>

#include "base/bytes.h"
#include "base/entropy.h"
#include "db/event.h"
#include "db/notification.h"
#include "server/notify/config.h"

/*
 * Fills notification_id (128 random bits), kind, severity, event_id and body:
 * {id, event_id, kind, severity, at, title, device_id, certificate_id, target, detail, source}. What has no
 * event has event_id 0, and null there. source: the server's public URL.
 */
MUST_USE enum status notify_message_make(struct db_notification *out, const struct db_event *event,
	const char *source, struct entropy *entropy, struct err *err);

/* A body, read. Texts are borrowed from json, and never NULL. */
struct notify_message {
	json_t *json; /* owned */
	const char *id, *kind, *severity, *at, *title, *device_id, *certificate_id, *target, *source;
	int64_t event_id;
	int64_t at_s;
};
void notify_message_free(struct notify_message *message);
OWNER_STRUCT(notify_message, notify_message_free)
MUST_USE enum status notify_message_read(struct notify_message *out, const char *body, struct err *err);

/* "[jitrca] CRITICAL crl_refused: device dev-1": printable ASCII, at most 100 octets (SNS's limit). */
#define NOTIFY_SUBJECT_BYTES 101
void notify_message_subject(char out[NOTIFY_SUBJECT_BYTES], const struct notify_message *message);

/* The whole mail, lines ended by CR LF, none over 76 octets but the headers' addresses. */
MUST_USE enum status notify_message_mail(struct buf *out, const struct notify_message *message,
	const struct notify_channel *channel, int64_t now_s, struct err *err);

/*
 * One syslog message, of at most NOTIFY_SYSLOG_MAX_BYTES: RFC 5424 with an element of structured data, or
 * with CEF as its text. To the local socket without RFC 5424's header, which its readers do not know.
 */
#define NOTIFY_SYSLOG_MAX_BYTES 2048 /* what a receiver should take (RFC 5424 6.1) */
MUST_USE enum status notify_message_syslog(struct buf *out, const struct notify_message *message,
	const struct notify_channel *channel, const char *hostname, int pid, struct err *err);

#endif
