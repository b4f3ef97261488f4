#include "server/iot/jitr.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "ca/digest.h"
#include "db/certificate.h"
#include "server/http/request.h"
#include "server/metrics.h"
#include "server/retry.h"

/* A clock that is ahead of ours by more is not believed. */
#define AHEAD_MAX_US (INT64_C(3600) * 1000000)

static const char *
source_name(enum jitr_source source)
{
	static const char *const NAMES[] = { "", "mqtt", "webhook", "sweep" };

	return NAMES[source];
}

static enum status
malformed(const char *what, struct err *err)
{
	return err_set(err, ERR_ARGUMENT, "jitr_malformed", "event: %s", what);
}

static enum status
read_id(char out[IOT_ID_BYTES], const json_t *payload, const char *name, struct err *err)
{
	const json_t *value = json_object_get(payload, name);
	uint8_t octets[DB_SHA256_BYTES];

	if (!json_is_string(value) ||
	    !hex_decode(octets, sizeof(octets), json_string_value(value), json_string_length(value)))
		return err_set(err, ERR_ARGUMENT, "jitr_malformed", "event: %s: 64 hex digits wanted",
			name);
	hex_encode(out, octets, sizeof(octets)); /* in lower case */
	return OK;
}

static const struct app_ca *
ca_of(const struct app *app, const char *ca_certificate_id)
{
	for (size_t i = 0; i < app->ca_count; i++) {
		uint8_t sha256[DB_SHA256_BYTES];
		char id[IOT_ID_BYTES];

		ca_sha256(sha256, view_of(&app->cas[i].certificate));
		hex_encode(id, sha256, sizeof(sha256));
		if (strcmp(id, ca_certificate_id) == 0)
			return &app->cas[i];
	}
	return NULL;
}

enum status
jitr_read(struct jitr_event *out, const struct iot_site *site, const json_t *payload, struct err *err)
{
	const json_t *account = json_object_get(payload, "awsAccountId");
	const json_t *status = json_object_get(payload, "certificateStatus");
	const json_t *timestamp = json_object_get(payload, "timestamp");

	if (!json_is_object(payload))
		return malformed("a JSON object wanted", err);
	TRY(read_id(out->certificate_id, payload, "certificateId", err));
	TRY(read_id(out->ca_certificate_id, payload, "caCertificateId", err));
	if (!json_is_string(account))
		return malformed("awsAccountId: a text wanted", err);
	if (strcmp(json_string_value(account), site->target->account) != 0)
		return err_set(err, ERR_DENIED, "jitr_wrong_account",
			"event: awsAccountId: that of target %s wanted", site->target->name);
	if (!json_is_string(status) ||
	    strcmp(json_string_value(status), "PENDING_ACTIVATION") != 0)
		return malformed("certificateStatus: PENDING_ACTIVATION wanted", err);
	if (!json_is_integer(timestamp) || json_integer_value(timestamp) <= 0 ||
	    json_integer_value(timestamp) > INT64_MAX / 1000)
		return malformed("timestamp: milliseconds since the epoch wanted", err);
	if (ca_of(site->room->app, out->ca_certificate_id) == NULL)
		return err_set(err, ERR_DENIED, "jitr_unknown_ca", "event: caCertificateId: a CA of ours"
			" wanted");
	out->at_us = json_integer_value(timestamp) * 1000;
	return OK;
}

static enum status
accept_once(struct iot_site *site, const struct jitr_event *event, bool *work, struct err *err)
{
	struct app *app = site->room->app;
	const struct app_ca *ca = ca_of(app, event->ca_certificate_id);
	int64_t latest_us = clock_wall_s(app->clock) * 1000000 + AHEAD_MAX_US;
	own_struct(db_certificate) row = { .issued_at_s = 0 };
	own_struct(db_tx) tx = { NULL, NULL };
	char key[DB_OUTBOX_KEY_BYTES];
	struct db_iot_pending pending = { .target = site->target->name, .outbox_key = key,
		.issuer_id = ca != NULL ? ca->issuer_id : 0,
		.at_us = event->at_us < latest_us ? event->at_us : latest_us };
	bool of_device = false;
	enum status status;

	if (!hex_decode(pending.sha256, DB_SHA256_BYTES, event->certificate_id, 64))
		return malformed("certificateId: 64 hex digits wanted", err);
	(void)snprintf(key, sizeof(key), "certificate/%s", event->certificate_id);
	TRY(db_tx_begin(&tx, app->pool, err));
	status = db_certificate_by_sha256(&tx, pending.sha256, &row, err);
	if (status != OK && status != ERR_NOT_FOUND)
		return status;
	if (status == OK) {
		pending.ref = row.ref;
		pending.issuer_id = row.ref.issuer_id;
		of_device = row.device_status[0] != '\0';
	}
	if (of_device) {
		pending.device_id = row.device_id;
		(void)snprintf(key, sizeof(key), "%s", row.device_id);
	}
	TRY(db_iot_certificate_pending(&tx, &pending, work, err));
	if (!*work)
		return OK;
	if (of_device)
		TRY(db_outbox_put_device(&tx, key, "registered", OUTBOX_GIVES, err));
	else
		TRY(db_outbox_put_certificate(&tx, event->certificate_id, "registered", OUTBOX_GIVES,
			err));
	TRY(db_outbox_notify(&tx, err));
	return db_tx_commit(&tx, err);
}

enum status
jitr_accept(struct iot_site *site, const struct jitr_event *event, enum jitr_source source,
	struct err *err)
{
	bool work = false;
	unsigned tries = 0;
	enum status status;

	do
		status = accept_once(site, event, &work, err);
	while (retry_due(&tries, status, err));
	TRY(status);
	site->last_event_s = clock_wall_s(site->room->app->clock);
	metric_count(METRIC_JITR_EVENTS, source_name(source), work ? "accepted" : "known", 1);
	log_event(LOG_DEBUG, "jitr_event", NULL, LOG_STR("certificate", event->certificate_id),
		LOG_STR("target", site->target->name), LOG_STR("source", source_name(source)),
		LOG_BOOL("work", work));
	if (work)
		iot_room_wake(site->room);
	return OK;
}

enum status
jitr_take(struct iot_site *site, struct view payload, enum jitr_source source, struct err *err)
{
	own(json_t) json = NULL;
	struct jitr_event event;
	enum status status;

	if (payload.len <= JITR_PAYLOAD_MAX_BYTES)
		json = json_loadb((const char *)payload.data, payload.len, JSON_REJECT_DUPLICATES, NULL);
	status = json == NULL ? malformed("JSON of at most 4096 octets wanted", err) :
		jitr_read(&event, site, json, err);
	if (status == OK)
		return jitr_accept(site, &event, source, err);
	metric_count(METRIC_JITR_EVENTS, source_name(source), "refused", 1);
	log_error(LOG_WARN, "jitr_event_refused", NULL, err);
	return status;
}
