/*
 * server/notify/route.h - from events to deliveries: rules, repeats, rates, summaries. Each function is one
 * transaction, and may run on several servers at once: an event comes to a channel once.
 */
#ifndef SERVER_NOTIFY_ROUTE_H
#define SERVER_NOTIFY_ROUTE_H

#include "server/app.h"
#include "server/notify/config.h"

/* A batch of events that were not routed yet; *more: there may be others. */
MUST_USE enum status notify_route_events(struct app *app, const struct notify_config *config, bool *more,
	struct err *err);
/* One message to each channel that was kept from something for long enough: how much. */
MUST_USE enum status notify_route_summaries(struct app *app, const struct notify_config *config,
	struct err *err);
/* Events too old to be news; deliveries that ended long ago; *more as above. */
MUST_USE enum status notify_route_retention(struct app *app, bool *more, struct err *err);

#endif
