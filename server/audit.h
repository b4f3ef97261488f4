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

/* Walks all lanes; *report (taken by the caller) is {ok, records, lanes, first_broken: {lane, seq, why}?}. */
MUST_USE enum status audit_verify(struct app *app, json_t **report, struct err *err);

#endif
