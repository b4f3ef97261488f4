/*
 * server/iotcore/watch.h - notices when the database hangs: libpq waits without a limit, and a server that
 * stands still breaks no link. A thread asks it something twice a second; after four seconds without an
 * answer it begins anew, and if that fails too, whoever waits for the database is refused, and whoever
 * comes, until it answers.
 */
#ifndef SERVER_IOTCORE_WATCH_H
#define SERVER_IOTCORE_WATCH_H

#include "base/err.h"

struct db_pool;
struct core_watch;

/* Borrows both. */
MUST_USE enum status core_watch_start(struct core_watch **out, struct db_pool *pool,
	const char *database_url, struct err *err);
void core_watch_stop(struct core_watch *watch); /* NULL is welcome */

#endif
