/*
 * db/admit.h - Admit's parts between themselves: who may have a certificate at all (admit.c), what a manifest
 * and a station still allow (admit_charge.c), and where nothing is to be decided (admit_plain.c); private to
 * this room.
 */
#ifndef DB_ADMIT_H
#define DB_ADMIT_H

#include "db/batch.h"

/* Of a station s: a minute's worth, and never less than one full batch. */
#define ADMIT_BUCKET_NOW                                                                           \
	"least(greatest(1000, s.rate_per_minute), s.bucket + s.rate_per_minute / 60.0 *"               \
	" greatest(0, extract(epoch FROM clock_timestamp() - s.bucket_at)))::float8"

void admit_refuse(struct db_admit_item *item, enum status status, const char *code, const char *fmt,
	...) PRINTF(4, 5);

static inline bool
admit_undecided(const struct batch *b, size_t i)
{
	return b->items[i].admission == ADMISSION_UNSET;
}

/*
 * For the undecided items that need a manifest: chooses a line of each, charges manifests and stations,
 * and refuses those for whom nothing is left. Locks manifest, then station.
 */
MUST_USE enum status admit_charge(struct batch *b, struct err *err);

/*
 * The way of the many (admit_plain.c): devices that are new with keys that are new, all on their station's
 * manifests, or all asked for by admins. One statement claims, charges and writes the intents. *plain false:
 * there was something to decide; then what it did is to be rolled back.
 */
bool admit_may_be_plain(const struct batch *b);
MUST_USE enum status admit_plain(struct batch *b, bool *plain, struct err *err);

#endif
