/*
 * server/notify/notify.h - notifications: a thread that turns events into deliveries and watches what no
 * transaction tells of, and one for each channel, so that a receiver that hangs keeps none of the others
 * waiting. Without a notify_file there are no channels; the watching goes on, for events are read by people.
 *
 * Made before privileges are dropped (server/notify/config.h), started once database and signer are there.
 */
#ifndef SERVER_NOTIFY_NOTIFY_H
#define SERVER_NOTIFY_NOTIFY_H

#include "db/notification.h"
#include "server/app.h"
#include "server/notify/config.h"

struct notify;

MUST_USE enum status notify_new(struct notify **out, struct app *app, struct err *err);
MUST_USE enum status notify_start(struct notify *notify, struct err *err);
/* Ends attempts that are under way, and joins the threads; NULL is welcome, as below. */
void notify_stop(struct notify *notify);
void notify_free(struct notify *notify);

/* A notification jitrca_notify: there may be something to route or to send. */
void notify_wake(struct notify *notify);

/* NULL: there is no such channel. */
const struct notify_channel *notify_channel(const struct notify *notify, const char *name);
const struct notify_config *notify_config(const struct notify *notify);

/*
 * Puts a test message for the channel into tx, whatever rules and rates say; *out is what was put.
 * ERR_TOO_MANY notify_queue_full.
 */
MUST_USE enum status notify_test(struct app *app, struct db_tx *tx, const struct notify_channel *channel,
	const char *actor, struct db_notification *out, struct err *err);

/* Gauges of what waits and what is dead, by channel; nothing while the database is away. */
MUST_USE enum status notify_print_metrics(struct app *app, struct buf *out, struct err *err);

#endif
