/*
 * db/record.h - what Record's plain way (record_plain.c) and checkpoints (checkpoint.c) have of the audit log
 * (audit.c); private to this room.
 */
#ifndef DB_RECORD_H
#define DB_RECORD_H

#include "db/audit.h"
#include "db/run.h"

/* The condition of an item i that it is about an object; by audit_item_object. */
#define AUDIT_ITEM_OF(object)                                                                      \
	"hashtextextended(i.object, 0) = hashtextextended(" object "::text COLLATE \"C\", 0)"            \
	" AND i.object = " object "::text"

/* A step that appends a record, and what it borrows from. Its one column says 1, or 0 when the head moved. */
struct audit_step {
	struct db_array objects, bodies;
	struct db_param params[10];
};

static inline void
audit_step_free(struct audit_step *step)
{
	db_array_free(&step->objects);
	db_array_free(&step->bodies);
}

MUST_USE enum status audit_follow_step(struct audit_step *step, const struct db_audit_follow *follow,
	struct db_step *out, struct err *err);

#endif
