/*
 * server/selector.h - which certificates a bulk revocation means: {station?, device_id?, manifest?,
 * profile?, ca?, issued_after?, issued_before?, expires_after?, expires_before?}, at least one of them.
 */
#ifndef SERVER_SELECTOR_H
#define SERVER_SELECTOR_H

#include <jansson.h>

#include "db/certificate.h"

struct app;

struct selector {
	struct db_certificate_filter filter; /* borrows the texts below */
	char device_id[DB_ID_BYTES], station[DB_ID_BYTES], manifest[DB_ID_BYTES];
	char profile[DB_PROFILE_BYTES];
};

/* Fills *out, which must not be copied afterwards. ERR_ARGUMENT selector_empty, selector_field. */
MUST_USE enum status selector_read(struct selector *out, const struct app *app, const json_t *json,
	struct err *err);

#endif
