/*
 * db/admit.h - Admit's two parts between themselves: who may have a certificate at all (admit.c), and what
 * a manifest and a station still allow (admit_charge.c); private to this room.
 */
#ifndef DB_ADMIT_H
#define DB_ADMIT_H

#include "db/batch.h"

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

#endif
