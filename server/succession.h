/*
 * server/succession.h - which CA issues, while one succeeds another (docs/succession.md). The row in the
 * database says it for all servers (db/succession.h); config.issuing_ca is where the row begins.
 *
 * Threads: any.
 */
#ifndef SERVER_SUCCESSION_H
#define SERVER_SUCCESSION_H

#include "db/succession.h"
#include "server/app.h"

/*
 * Sets app->issuing from the rows, unless it is known that they have not changed since (server/freshness.h).
 * ERR_UNAVAILABLE issuing_ca_missing: the CA that issues has no key on this server.
 */
MUST_USE enum status succession_follow(struct app *app, struct err *err);

/*
 * Which CA issues where ca_id is configured: the last that has succeeded it, or, where the successor is
 * configured before its time, the one before it. The result is borrowed from ca_id or from rows.
 */
const char *succession_issuing(const char *ca_id, const struct db_succession *rows, size_t count);

#endif
