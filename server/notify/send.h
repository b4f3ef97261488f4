/*
 * server/notify/send.h - one attempt to send one notification, by each way. Blocks for at most about twice
 * the channel's timeout_ms, less when *stopping. Certificates are always checked; no redirect is followed;
 * of an answer a few KiB are read. Error texts hold no secret, and of an answer only what is printable.
 */
#ifndef SERVER_NOTIFY_SEND_H
#define SERVER_NOTIFY_SEND_H

#include <stdatomic.h>

#include "base/clock.h"
#include "server/iot/aws_credentials.h"
#include "server/iot/aws_transport.h"
#include "server/notify/config.h"
#include "server/notify/message.h"

struct notify_sender {
	const struct notify_channel *channel;
	struct aws_transport *transport;     /* of webhooks and SNS; borrowed, as all here */
	struct aws_credentials *credentials; /* of SNS, else NULL */
	const struct clock *clock;
	const _Atomic bool *stopping;
	char hostname[NOTIFY_HOST_BYTES]; /* this machine's, for syslog */
};

/*
 * *http_status: what a webhook answered; 0: there was no answer, or it is no webhook.
 * OK: the receiver has it. ERR_UNAVAILABLE: it may have it another time. Otherwise it said that it does not
 * want it: notify_refused. notify_stopped: none of its fault.
 */
MUST_USE enum status notify_send(const struct notify_sender *sender,
	const struct notify_message *message, const char *body, int64_t *http_status, struct err *err);

MUST_USE enum status notify_send_email(const struct notify_sender *sender,
	const struct notify_message *message, struct err *err);
MUST_USE enum status notify_send_webhook(const struct notify_sender *sender,
	const struct notify_message *message, const char *body, int64_t *http_status, struct err *err);
MUST_USE enum status notify_send_sns(const struct notify_sender *sender,
	const struct notify_message *message, const char *body, struct err *err);
MUST_USE enum status notify_send_syslog(const struct notify_sender *sender,
	const struct notify_message *message, struct err *err);

/* What became of an HTTP exchange that was not answered with 2xx. said: of the answer, shown escaped. */
MUST_USE enum status notify_send_refused(long http_status, struct view said, struct err *err);
/* An error of aws_transport_run as one of ours. */
MUST_USE enum status notify_send_network(struct err *err);

/*
 * The signature of Standard Webhooks: "v1," and base64 of HMAC-SHA-256 over "ID.TIMESTAMP.BODY". A key of
 * the form whsec_BASE64 is what that says, any other is its own octets. ERR_ARGUMENT notify_invalid.
 */
#define NOTIFY_SIGNATURE_BYTES 64
MUST_USE enum status notify_webhook_sign(char out[NOTIFY_SIGNATURE_BYTES], struct view key, const char *id,
	int64_t timestamp_s, struct view body, struct err *err);

#endif
