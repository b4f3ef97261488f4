#include "server/iot/jitr.h"

#include <assert.h>
#include <string.h>

#include "base/log.h"
#include "ca/digest.h"
#include "db/iot_pending.h"
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

/* Each certificate once: a device that knocks again says nothing new. */
static enum status
gather(struct db_iot_pending *out, size_t *out_count, const struct app *app,
	const struct jitr_event *events, size_t count, struct err *err)
{
	int64_t latest_us = clock_wall_s(app->clock) * 1000000 + AHEAD_MAX_US;

	*out_count = 0;
	for (size_t i = 0; i < count; i++) {
		struct db_iot_pending *one = &out[*out_count];
		const struct app_ca *ca = ca_of(app, events[i].ca_certificate_id);
		size_t same = 0;

		*one = (struct db_iot_pending){ .issuer_id = ca != NULL ? ca->issuer_id : 0,
			.at_us = events[i].at_us < latest_us ? events[i].at_us : latest_us };
		if (!hex_decode(one->sha256, DB_SHA256_BYTES, events[i].certificate_id, 64))
			return malformed("certificateId: 64 hex digits wanted", err);
		while (memcmp(out[same].sha256, one->sha256, DB_SHA256_BYTES) != 0)
			same++;
		if (same == *out_count)
			++*out_count;
		else if (out[same].at_us < one->at_us)
			out[same].at_us = one->at_us;
	}
	return OK;
}

static enum status
accept_once(struct iot_site *site, struct db_iot_pending *list, size_t count, size_t *work,
	struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	*work = 0;
	TRY(db_tx_begin(&tx, site->room->app->pool, err));
	TRY(db_iot_pending(&tx, site->target->name, list, count, "registered", err));
	for (size_t i = 0; i < count; i++)
		*work += list[i].work;
	if (*work == 0)
		return OK;
	TRY(db_outbox_notify(&tx, OUTBOX_GIVES, err));
	return db_tx_commit(&tx, err);
}

enum status
jitr_accept(struct iot_site *site, const struct jitr_event *events, size_t count,
	enum jitr_source source, struct err *err)
{
	struct db_iot_pending list[JITR_EVENTS_MAX];
	size_t distinct;
	size_t work = 0;
	unsigned tries = 0;
	enum status status;

	assert(count > 0 && count <= JITR_EVENTS_MAX);
	TRY(gather(list, &distinct, site->room->app, events, count, err));
	do
		status = accept_once(site, list, distinct, &work, err);
	while (retry_due(&tries, status, err));
	TRY(status);
	site->last_event_s = clock_wall_s(site->room->app->clock);
	if (work > 0)
		metric_count(METRIC_JITR_EVENTS, source_name(source), "accepted", (int64_t)work);
	if (work < count)
		metric_count(METRIC_JITR_EVENTS, source_name(source), "known", (int64_t)(count - work));
	log_event(LOG_DEBUG, "jitr_events", NULL, LOG_STR("certificate", events[0].certificate_id),
		LOG_STR("target", site->target->name), LOG_STR("source", source_name(source)),
		LOG_INT("events", (int64_t)count), LOG_INT("work", (int64_t)work));
	if (work > 0)
		iot_room_wake(site->room, false);
	return OK;
}

bool
jitr_hear(struct jitr_event *out, const struct iot_site *site, struct view payload,
	enum jitr_source source)
{
	own(json_t) json = NULL;
	struct err err;
	enum status status;

	if (payload.len <= JITR_PAYLOAD_MAX_BYTES)
		json = json_loadb((const char *)payload.data, payload.len, JSON_REJECT_DUPLICATES, NULL);
	status = json == NULL ? malformed("JSON of at most 4096 octets wanted", &err) :
		jitr_read(out, site, json, &err);
	if (status == OK)
		return true;
	metric_count(METRIC_JITR_EVENTS, source_name(source), "refused", 1);
	log_error(LOG_WARN, "jitr_event_refused", NULL, &err);
	return false;
}
