/* db/event.h - security events: what is odd and somebody should know. */
#ifndef DB_EVENT_H
#define DB_EVENT_H

#include "db/db.h"

#define DB_EVENT_DETAIL_BYTES 2048

struct db_event {
	int64_t event_id, at_s;
	char kind[65];      /* [a-z0-9_]+ */
	char severity[9];   /* info, low, medium, high, critical */
	char device_id[DB_ID_BYTES];                    /* "": none, as the next two */
	char certificate_id[2 * DB_SHA256_BYTES + 1];
	char target[33];
	char detail[DB_EVENT_DETAIL_BYTES]; /* a JSON object */
};

/* event_id and at_s are given by the database. */
MUST_USE enum status db_event_put(struct db_tx *tx, const struct db_event *event, struct err *err);

/* Unless there was one of the same kind, severity, device, certificate and target within within_s. */
MUST_USE enum status db_event_put_once(struct db_tx *tx, const struct db_event *event, int64_t within_s,
	bool *put, struct err *err);

struct db_event_filter {
	const char *kind, *severity, *device_id; /* NULL: any */
	int64_t since_s;                         /* 0: any */
	int64_t before_id;                       /* of the page before; 0: the newest */
};
/* The newest first. */
MUST_USE enum status db_event_list(struct db_tx *tx, const struct db_event_filter *filter, size_t limit,
	struct db_event *out, size_t *count, struct err *err);

/* Deletes at most max of those that are older than before_s, the oldest first. */
MUST_USE enum status db_retention_events(struct db_tx *tx, int64_t before_s, size_t max, size_t *deleted,
	struct err *err);

/*
 * Up to max events that were not routed (server/notify/route.h), the oldest first, locked to the end of tx;
 * those that another server is routing are passed over.
 */
MUST_USE enum status db_event_unrouted(struct db_tx *tx, size_t max, struct db_event *out, size_t *count,
	struct err *err);
MUST_USE enum status db_event_routed(struct db_tx *tx, const struct db_event *events, size_t count,
	struct err *err);
/* Up to max that are older than older_s count as routed: they are told to nobody. */
MUST_USE enum status db_event_skip(struct db_tx *tx, int64_t older_s, size_t max, size_t *count,
	struct err *err);

#endif
