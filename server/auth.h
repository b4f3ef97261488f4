/*
 * server/auth.h - who is asking: a client certificate that our own CA issued and whose row allows it,
 * or a bearer token.
 *
 * Who came lately is remembered, bounded, by the hash of what was shown: the issuer's signature once and
 * for all, for it cannot change; what the row said only as long as server/freshness.h says that it still
 * counts. So a revocation that this server made is refused by the next request, one that another made
 * once the notification is here, and within FRESHNESS_LATE_MS at the very latest. A TLS session that is
 * resumed is nothing of its own: each request is judged by the certificate that the session began with.
 */
#ifndef SERVER_AUTH_H
#define SERVER_AUTH_H

#include "db/certificate.h"
#include "server/http/route.h"

struct identity {
	unsigned role;                 /* one bit of enum role */
	char actor[DB_ID_BYTES];       /* principal id, or device id */
	bool by_certificate;
	struct db_cert_ref certificate; /* when by_certificate */
	uint8_t certificate_id[32];
	char profile[DB_PROFILE_BYTES];
	int64_t not_before_s, not_after_s;
	enum cert_status certificate_status;
	char device_status[16];
	char token_id[17];             /* when by token */
};

/* What auth_authorize needs of app, made before the first request. */
MUST_USE enum status auth_start(struct app *app, struct err *err);
void auth_stop(struct app *app);

/*
 * http_setup.authorize. ERR_UNAUTHENTICATED: credentials_missing; token_invalid (the same answer and
 * work for malformed, unknown, expired, revoked, disabled); certificate_foreign, certificate_expired,
 * certificate_not_yet_valid, certificate_revoked (held too), certificate_superseded. ERR_DENIED:
 * role_not_allowed, device_decommissioned. 401 answers carry WWW-Authenticate: Bearer.
 * A bearer token wins over a client certificate when both are there.
 */
MUST_USE enum status auth_authorize(struct app *app, struct request *request, unsigned roles,
	struct err *err);

#endif
