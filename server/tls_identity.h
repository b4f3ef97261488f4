/*
 * server/tls_identity.h - the certificates that the TLS listeners show: from files, or one that this
 * server issues to itself (profile `server`) and renews when a third of its life is left, or when it was
 * revoked, without a restart. Its key lies in data_dir/tls/server.pem, mode 0600: the frontend has no
 * other key to seal it with, and it opens nothing but this server's own listeners.
 */
#ifndef SERVER_TLS_IDENTITY_H
#define SERVER_TLS_IDENTITY_H

#include "server/app.h"

struct tls_identity;

/*
 * Reads the files of config.tls_certificates, if any: call it before privileges are dropped, so that
 * keys may be root's. ERR_ARGUMENT tls_certificate names the file.
 */
MUST_USE enum status tls_identity_new(struct tls_identity **out, const struct config *config,
	struct err *err);
void tls_identity_free(struct tls_identity *identity);

/*
 * Gives the listeners their certificates: the files', the kept one, or a new one through app's pipeline,
 * which must run. *next_check_ms says in how long it should be called again (never: INT64_MAX). A
 * certificate that could not be renewed is an error only once there is none that is still valid.
 */
MUST_USE enum status tls_identity_apply(struct tls_identity *identity, struct app *app,
	int64_t *next_check_ms, struct err *err);

#endif
