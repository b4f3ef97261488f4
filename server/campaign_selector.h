/*
 * server/campaign_selector.h - which devices a campaign means, by their active certificates: {station?,
 * device_id?, manifest?, profile?, ca?, issued_after?, issued_before?, expires_after?, expires_before?},
 * which the search answers; {thing_type?, key_type?, attributes?}, which are looked at one by one; or
 * {device_ids} alone. At least one, and all that are given must hold. Nothing may name the whole fleet
 * without {everything: true}.
 */
#ifndef SERVER_CAMPAIGN_SELECTOR_H
#define SERVER_CAMPAIGN_SELECTOR_H

#include <jansson.h>

#include "ca/csr.h"
#include "db/certificate.h"

#define CAMPAIGN_DEVICES_MAX 1000

struct app;
struct db_device;

struct campaign_selector {
	struct db_certificate_filter filter;
	enum ca_key_type key_type;     /* 0: any */
	const char *thing_type;        /* NULL: any */
	json_t *attributes;            /* NULL: any */
	const json_t *device_ids;      /* NULL: the filter says */
	bool everything;
	bool narrowed;                 /* what the filter finds may be more than what is meant */
};

/* Fills *out, which borrows from json. ERR_ARGUMENT selector_empty, selector_field. */
MUST_USE enum status campaign_selector_read(struct campaign_selector *out, const struct app *app,
	json_t *json, struct err *err);

/* Whether a device and its certificate are meant, as far as the filter has not said it. */
MUST_USE enum status campaign_selector_matches(const struct campaign_selector *selector,
	const struct db_device *device, const struct db_certificate *certificate,
	struct ca_verifier *verifier, bool *out, struct err *err);

#endif
