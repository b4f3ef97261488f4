/*
 * server/issuance/own.h - a certificate that this server issues to itself: without a CSR, for the key's
 * owner and the asker are the same program. Recorded like any other.
 */
#ifndef SERVER_ISSUANCE_OWN_H
#define SERVER_ISSUANCE_OWN_H

#include "server/issuance/issuance.h"

struct issuance_own {
	const char *profile;
	const char *name;        /* {device_id} */
	const char *actor;
	const struct app_ca *ca; /* NULL: the CA that issues */
	struct view spki;        /* of the key */
	enum ca_key_type key_type;
};

/*
 * Waits for it; valid for as long as the profile says by default. The caller frees *out, also on failure.
 * ERR_ARGUMENT profile_unknown; else as issuance_issue().
 */
MUST_USE enum status issuance_own(struct app *app, const struct issuance_own *own, struct db_certificate *out,
	struct err *err);

#endif
