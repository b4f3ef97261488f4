/*
 * db/notification.h - deliveries of security events (docs/notifications.md). Routing makes one of an event
 * (db/event.h) for each channel that wants it; a worker leases it, sends it, and records it as sent, put off
 * or dead. Each channel has a token bucket and counts what it
 * was not sent; both go by the database's time.
 */
#ifndef DB_NOTIFICATION_H
#define DB_NOTIFICATION_H

#include "db/db.h"

#define DB_NOTIFICATION_ID_BYTES 33
#define DB_CHANNEL_BYTES 33
#define DB_NOTIFICATION_CODE_BYTES 48
#define DB_NOTIFICATION_TEXT_BYTES 2048 /* octets of 500 characters */
#define DB_NOTIFICATION_BODY_BYTES 8192
#define DB_NOTIFICATION_KEY_BYTES 32

/* ---- routing ---- */

/* What a channel may be sent, and what it was not. */
struct db_notification_meter {
	double bucket;
	int64_t repeats, over_rate, over_queue;
	int64_t worst;        /* severity of these, 0 to 4 */
	int64_t held_since_s; /* 0: nothing was held back */
	int64_t waiting;      /* deliveries of the channel; read only */
	int64_t now_s;        /* the database's; read only */
};
/* Locks the channel's row to the end of tx (makes it, full, if need be), its bucket filled up to now. */
MUST_USE enum status db_notification_meter(struct db_tx *tx, const char *channel, double per_hour,
	double burst, struct db_notification_meter *out, struct err *err);
MUST_USE enum status db_notification_meter_set(struct db_tx *tx, const char *channel,
	const struct db_notification_meter *meter, struct err *err);
/* Whether the channel has something held back since before_s. */
MUST_USE enum status db_notification_held(struct db_tx *tx, const char *channel, int64_t for_s,
	bool *held, struct err *err);
/* *first: the channel was not told key within the time before; then it is noted for within_s. */
MUST_USE enum status db_notification_first(struct db_tx *tx, const char *channel,
	const uint8_t key[DB_NOTIFICATION_KEY_BYTES], int64_t within_s, bool *first, struct err *err);

/* ---- deliveries ---- */

struct db_notification {
	char notification_id[DB_NOTIFICATION_ID_BYTES];
	char channel[DB_CHANNEL_BYTES];
	int64_t event_id; /* 0: none */
	char kind[65];
	char severity[9];
	char state[8];
	int64_t attempts;
	int64_t created_at_s, due_at_s, ended_at_s;
	int64_t age_s; /* since created_at */
	int64_t seq;
	int64_t lease;
	char revocation_id[33]; /* whose receipt shows it; "": none */
	int64_t http_status;    /* of the last answer; 0: none */
	char error_code[DB_NOTIFICATION_CODE_BYTES];
	char error_text[DB_NOTIFICATION_TEXT_BYTES];
	char body[DB_NOTIFICATION_BODY_BYTES]; /* only of db_notification_lease and _find */
};

/*
 * Of out are taken: notification_id, channel, event_id, kind, severity, revocation_id, body. NOTIFY
 * jitrca_notify.
 */
MUST_USE enum status db_notification_put(struct db_tx *tx, const struct db_notification *notification,
	struct err *err);
/* One of the channel that is due and that nobody has, for lease_ms. */
MUST_USE enum status db_notification_lease(struct db_tx *tx, const char *channel, int64_t lease_ms,
	struct db_notification *out, bool *found, struct err *err);
/* Both leave alone what another has leased by now; http_status is taken, too. */
MUST_USE enum status db_notification_sent(struct db_tx *tx, const struct db_notification *notification,
	struct err *err);
MUST_USE enum status db_notification_fail(struct db_tx *tx, const struct db_notification *notification,
	int64_t wait_ms, bool dead, const struct err *why, struct err *err);
/* As if it had not been leased. */
MUST_USE enum status db_notification_let_go(struct db_tx *tx, const struct db_notification *notification,
	struct err *err);
/* The channel's receiver is back: what waited for it is due now. */
MUST_USE enum status db_notification_hasten(struct db_tx *tx, const char *channel, struct err *err);

struct db_notification_filter {
	const char *channel, *state; /* NULL: any */
	int64_t before_seq;          /* of the page before; 0: the newest */
};
/* The newest first, without bodies. */
MUST_USE enum status db_notification_list(struct db_tx *tx, const struct db_notification_filter *filter,
	size_t limit, struct db_notification *out, size_t *count, struct err *err);
/* ERR_NOT_FOUND notification_unknown. */
MUST_USE enum status db_notification_find(struct db_tx *tx, const char *id, struct db_notification *out,
	struct err *err);
/* What is dead lives again, what waits is due now. NULL: any; at most max. NOTIFY jitrca_notify. */
MUST_USE enum status db_notification_retry(struct db_tx *tx, const char *id, const char *channel,
	size_t max, size_t *count, struct err *err);

/*
 * Those of a receipt, by channel, without bodies. *routing: there may be more, for its event has not been
 * routed yet.
 */
MUST_USE enum status db_notification_of_receipt(struct db_tx *tx, const char *revocation_id, size_t max,
	struct db_notification *out, size_t *count, bool *routing, struct err *err);

struct db_notification_depth {
	char channel[DB_CHANNEL_BYTES];
	int64_t waiting, dead;
	int64_t oldest_s; /* age of the oldest that waits */
	int64_t held;     /* not sent since the last summary */
};
MUST_USE enum status db_notification_depths(struct db_tx *tx, struct db_notification_depth *out,
	size_t max, size_t *count, struct err *err);

/*
 * At most max of each: ended before before_s are deleted, but for those of a receipt; waiting since before
 * dead_before_s (their channel is in nobody's file any more) become dead letters; what was told long ago is
 * forgotten.
 */
MUST_USE enum status db_retention_notifications(struct db_tx *tx, int64_t before_s,
	int64_t dead_before_s, size_t max, size_t *deleted, struct err *err);

#endif
