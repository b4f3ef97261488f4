#include "server/notify/event.h"

#include "base/log.h"
#include "server/http/request.h"
#include "server/metrics.h"

enum status
notify_event_detail(struct db_event *event, json_t *detail, struct err *err)
{
	own(json_t) held = detail;
	size_t len;

	if (held == NULL)
		return err_memory(err);
	len = json_dumpb(held, event->detail, sizeof(event->detail) - 1, JSON_COMPACT);
	if (len == 0)
		return err_memory(err);
	if (len >= sizeof(event->detail)) {
		static const char LEFT_OUT[] = "{\"left_out\":true}";

		for (len = 0; LEFT_OUT[len] != '\0'; len++)
			event->detail[len] = LEFT_OUT[len];
	}
	event->detail[len] = '\0';
	return OK;
}

static void
note(const struct db_event *event)
{
	metric_count(METRIC_SECURITY_EVENTS, event->kind, NULL, 1);
	log_event(LOG_WARN, "security_event", NULL, LOG_STR("kind", event->kind),
		LOG_STR("severity", event->severity), LOG_STR("device", event->device_id),
		LOG_STR("certificate", event->certificate_id), LOG_STR("target", event->target),
		LOG_STR("detail", event->detail));
}

enum status
notify_event_raise(struct db_tx *tx, const struct db_event *event, struct err *err)
{
	TRY(db_event_put(tx, event, err));
	note(event);
	return OK;
}

enum status
notify_event_raise_once(struct db_tx *tx, const struct db_event *event, int64_t within_s, struct err *err)
{
	bool put = false;

	TRY(db_event_put_once(tx, event, within_s, &put, err));
	if (put)
		note(event);
	return OK;
}
