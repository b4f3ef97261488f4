/*
 * server/audit.h - audit records: what is hashed and how (design: Audit). A record is one transaction;
 * its body is canonical JSON (sorted keys, no white space): {action, actor, at, items, items_root, lane,
 * request_id, seq, …detail}; hash = BLAKE2b-256(previous hash || body).
 */
#ifndef SERVER_AUDIT_H
#define SERVER_AUDIT_H

#include <jansson.h>

#include "db/audit.h"

struct app;

struct audit_item {
	const char *object; /* "certificate:<id>", "device:<id>", "station:<id>", "principal:<id>", … */
	json_t *detail;     /* borrowed; {"object": …, …} is made of it */
	struct view text;   /* instead of detail: that body, as it is hashed; borrowed */
};

struct audit_entry {
	const char *action;     /* "certificate.issue", "certificate.revoke", "station.create" … */
	const char *actor;
	const char *request_id; /* NULL: a job */
	int64_t at_s;
	const struct audit_item *items;
	size_t item_count;
};

/* Writes one record into tx, on the app's lane (invariant 8). */
MUST_USE enum status audit_write(struct app *app, struct db_tx *tx, const struct audit_entry *entry,
	struct err *err);

/*
 * For who writes many records: the lane's head as this caller left it, so that the next one needs no round
 * trip to read it. Zero-initialised, it remembers nothing. Others write to the lane meanwhile: then the
 * record does not follow, which db_issuance_record_plain says.
 */
struct audit_tail {
	bool known;
	uint64_t others; /* of the app's audit_writes */
	int64_t seq;
	uint8_t head[32];
};
/* A record behind a tail. */
struct audit_link {
	struct db_audit_record record;
	uint8_t previous[32];
	struct audit_leaves *leaves;
};
void audit_link_free(struct audit_link *link);
OWNER_STRUCT(audit_link, audit_link_free)

/* Reads the head unless the tail knows it; tail->known stays false when the lane is not there yet. */
MUST_USE enum status audit_tail_read(struct app *app, struct db_tx *tx, struct audit_tail *tail,
	struct err *err);
/* Makes the record that follows tail, and moves tail behind it. *follow borrows from link. */
MUST_USE enum status audit_link_make(struct app *app, struct audit_tail *tail,
	const struct audit_entry *entry, struct audit_link *link, struct db_audit_follow *follow,
	struct err *err);

/* Walks all lanes; *report (taken by the caller) is {ok, records, lanes, first_broken: {lane, seq, why}?}. */
MUST_USE enum status audit_verify(struct app *app, json_t **report, struct err *err);

#endif
