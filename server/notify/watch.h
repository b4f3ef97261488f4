/*
 * server/notify/watch.h - what no transaction tells of and somebody should hear: CAs and listeners'
 * certificates near their end, IoT Core that does not answer, devices that are late. Each is raised again
 * while it lasts, as often as its severity deserves.
 */
#ifndef SERVER_NOTIFY_WATCH_H
#define SERVER_NOTIFY_WATCH_H

#include "server/app.h"

/* One look at everything; what is of the fleet and not of this server is looked at by one of them. */
MUST_USE enum status notify_watch(struct app *app, struct err *err);

#endif
