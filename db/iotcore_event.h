/*
 * db/iotcore_event.h - registry events of the local IoT Core on their way to the broker, as rows. They
 * are written by triggers (migrations/0009_registry_events.sql) in the transaction that is their cause,
 * where UpdateEventConfigurations asked for them; NOTIFY iotcore_registry_event says so.
 */
#ifndef DB_IOTCORE_EVENT_H
#define DB_IOTCORE_EVENT_H

#include "db/db.h"

#define DB_REGISTRY_TOPIC_BYTES 336 /* two names of 128, and AWS's words around them */

struct db_registry_event {
	int64_t event_id;
	char topic[DB_REGISTRY_TOPIC_BYTES];
	struct view payload; /* JSON; lives until each() returns */
};
/* The oldest, up to limit; they stay. A status from each() ends it and is returned. */
MUST_USE enum status db_registry_event_next(struct db_tx *tx, int64_t limit,
	enum status (*each)(void *arg, const struct db_registry_event *event, struct err *err),
	void *arg, struct err *err);
MUST_USE enum status db_registry_event_remove(struct db_tx *tx, const int64_t *event_ids, size_t count,
	struct err *err);
/* Those older than age_s, of which no broker came for; *gone: how many, most at the most. */
MUST_USE enum status db_registry_event_trim(struct db_tx *tx, int64_t age_s, int64_t most,
	int64_t *gone, struct err *err);

#endif
