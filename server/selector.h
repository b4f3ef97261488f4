/*
 * server/selector.h - which certificates a revocation of many means: {station?, device_id?, device_ids?,
 * manifest?, profile?, ca?, issued_after?, issued_before?, expires_after?, expires_before?, spki_sha256?,
 * attributes?, all?}, at least one of them; all that are given must hold.
 */
#ifndef SERVER_SELECTOR_H
#define SERVER_SELECTOR_H

#include <jansson.h>

#include "db/receipt.h"

struct app;

#define SELECTOR_DEVICES_MAX 1000
#define SELECTOR_ATTRIBUTES_MAX 16
#define SELECTOR_ATTRIBUTES_BYTES 2048

struct selector {
	struct db_selection selection; /* borrows what follows, and the JSON */
	char device_id[DB_ID_BYTES], station[DB_ID_BYTES], manifest[DB_ID_BYTES];
	char profile[DB_PROFILE_BYTES];
	uint8_t spki_sha256[DB_SHA256_BYTES];
	char attributes[SELECTOR_ATTRIBUTES_BYTES];
	const char *device_ids[SELECTOR_DEVICES_MAX];
	bool all;   /* "all": true: it may mean everything */
	bool named; /* it names devices or a key: whatever that is, it is no mistake */
};

/*
 * Fills *out, which must not be copied afterwards and borrows json. ERR_ARGUMENT selector_empty,
 * selector_field.
 */
MUST_USE enum status selector_read(struct selector *out, const struct app *app, const json_t *json,
	struct err *err);

#endif
