/*
 * db/retention.h - what retention lets go beyond single rows: months of certificates, and ranges of the
 * audit log up to a signed checkpoint, which stays. SQL itself refuses more: a month that ended less than a
 * month ago, a record that no checkpoint holds. Threads: as for the db_tx.
 */
#ifndef DB_RETENTION_H
#define DB_RETENTION_H

#include "db/db.h"

struct db_retention_month {
	int32_t month; /* expiry_month of base/serial.h */
	int64_t certificates;
};
/* Months before that one that are there, in order, with how many are in each. */
MUST_USE enum status db_retention_months(struct db_tx *tx, int32_t before, size_t max,
	struct db_retention_month *out, size_t *count, struct err *err);
/* Drops the first month before that one; *found false: there is none. ERR_UNAVAILABLE database_busy: it is
 * being read. */
MUST_USE enum status db_retention_drop_month(struct db_tx *tx, int32_t before,
	struct db_retention_month *out, bool *found, struct err *err);

struct db_retention_lane {
	int32_t lane;
	int64_t from_seq, through_seq; /* the last one is held by a checkpoint older than asked for */
};
MUST_USE enum status db_retention_lanes(struct db_tx *tx, int64_t before_s, size_t max,
	struct db_retention_lane *out, size_t *count, struct err *err);
/* Notes that a lane is dropped up to through_seq: from then on it begins behind. */
MUST_USE enum status db_retention_drop_lane(struct db_tx *tx, const struct db_retention_lane *lane,
	struct err *err);
/* Deletes up to max records of one lane that were dropped, with their items; 0: there are none left. */
MUST_USE enum status db_retention_records(struct db_tx *tx, size_t max, size_t *deleted, struct err *err);

/* Security events before that time. */
MUST_USE enum status db_retention_count_events(struct db_tx *tx, int64_t before_s, int64_t *count,
	struct err *err);
MUST_USE enum status db_retention_count_notifications(struct db_tx *tx, int64_t before_s, int64_t *count,
	struct err *err);

#endif
