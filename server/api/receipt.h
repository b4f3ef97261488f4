/* server/api/receipt.h - what a revocation would do and what became of it, as JSON (db/receipt.h). */
#ifndef SERVER_API_RECEIPT_H
#define SERVER_API_RECEIPT_H

#include <jansson.h>

#include "db/outbox.h"
#include "db/receipt.h"

struct app;

/* The blast radius; selector is borrowed. */
MUST_USE enum status receipt_radius(json_t **out, const struct app *app, const json_t *selector,
	enum revocation_reason reason, const struct db_blast_radius *radius,
	const struct db_outbox_takes *takes, struct err *err);

/* All that a receipt says but its targets one by one. */
MUST_USE enum status receipt_render(json_t **out, const struct app *app, struct db_tx *tx,
	const struct db_bulk *bulk, struct err *err);
/* In a list: without targets and selector. */
MUST_USE enum status receipt_line(json_t **out, const struct db_bulk *bulk, struct err *err);
/* One of its certificates with its own proof. */
MUST_USE enum status receipt_target(json_t **out, const struct app *app,
	const struct db_target *target, struct err *err);

/* How many octets an entry takes on a list (RFC 5280 5.1.2.6, 5.3.1). */
#define RECEIPT_ENTRY_BYTES(reason) ((reason) == REASON_UNSPECIFIED ? 35 : 49)

#endif
