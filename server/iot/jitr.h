/*
 * server/iot/jitr.h - a certificate knocks at IoT Core: the one function that every way of hearing of it
 * leads to (subscription, webhook, sweep). It writes down what it hears and leaves the rest to the outbox;
 * hearing it twice, late or out of order does no harm.
 */
#ifndef SERVER_IOT_JITR_H
#define SERVER_IOT_JITR_H

#include <jansson.h>

#include "server/iot/room.h"

#define JITR_PAYLOAD_MAX_BYTES 4096

enum jitr_source { JITR_MQTT = 1, JITR_WEBHOOK, JITR_SWEEP };

/* What IoT Core publishes on $aws/events/certificates/registered/<caCertificateId>. */
struct jitr_event {
	char certificate_id[IOT_ID_BYTES];
	char ca_certificate_id[IOT_ID_BYTES];
	int64_t at_us;
};

/*
 * Reads and checks it: account and CA must be the target's and ours. ERR_ARGUMENT jitr_malformed;
 * ERR_DENIED jitr_wrong_account, jitr_unknown_ca.
 */
MUST_USE enum status jitr_read(struct jitr_event *out, const struct iot_site *site,
	const json_t *payload, struct err *err);

/* So many at once. */
#define JITR_EVENTS_MAX 64

/* All of them, or none. Commits before it returns OK: the events may then be acknowledged. */
MUST_USE enum status jitr_accept(struct iot_site *site, const struct jitr_event *events, size_t count,
	enum jitr_source source, struct err *err);

/* Reads octets. False: refused, counted and logged; it cannot be cured by hearing it again. */
MUST_USE bool jitr_hear(struct jitr_event *out, const struct iot_site *site, struct view payload,
	enum jitr_source source);

#endif
