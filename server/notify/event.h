/*
 * server/notify/event.h - the one door for what somebody should hear of: a security event, written in the
 * transaction of its cause. Who is told of it and how is the notifications' affair (docs/notifications.md):
 * whoever raises an event knows neither channels nor rules, and waits for nobody.
 *
 *	struct db_event event = { .kind = "campaign_halted", .severity = "high", .target = "…" };
 *
 *	TRY(notify_event_detail(&event, json_pack("{s:s, s:I}", "campaign", id, "failed", n), err));
 *	TRY(notify_event_raise(tx, &event, err));
 *
 * Kinds are [a-z0-9_]{1,64} and stand in docs/notifications.md; message.c gives them a title for people.
 */
#ifndef SERVER_NOTIFY_EVENT_H
#define SERVER_NOTIFY_EVENT_H

#include <jansson.h>

#include "db/event.h"

/* Of which receipts have the deliveries; its detail names the revocation. */
#define NOTIFY_REVOCATION_DONE "bulk_revocation_done"

/* Takes detail, an object; NULL is memory that was short. What is too long becomes {"left_out": true}. */
MUST_USE enum status notify_event_detail(struct db_event *event, json_t *detail, struct err *err);

/* Counts it, logs it, writes it into tx. */
MUST_USE enum status notify_event_raise(struct db_tx *tx, const struct db_event *event, struct err *err);
/* Unless there was the same (kind, severity, device, certificate, target) within within_s. */
MUST_USE enum status notify_event_raise_once(struct db_tx *tx, const struct db_event *event,
	int64_t within_s, struct err *err);

#endif
