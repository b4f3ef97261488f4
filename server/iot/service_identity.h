/*
 * server/iot/service_identity.h - the certificate that this server shows to a target's broker: issued to
 * itself (profile `service`), kept with its key in data_dir/tls/service.pem, mode 0600, renewed when a
 * third of its life is left. As server/tls_identity.h: the frontend has no other key to seal it with.
 *
 * Threads: one at a time; each target's thread has its own.
 */
#ifndef SERVER_IOT_SERVICE_IDENTITY_H
#define SERVER_IOT_SERVICE_IDENTITY_H

#include "ca/file.h"
#include "server/app.h"

#define SERVICE_IDENTITY "jitrca-service" /* CN, and the beginning of the MQTT client id */

struct service_identity {
	char path[FILE_PATH_BYTES]; /* key, leaf, chain, PEM */
	uint8_t sha256[32];
	int64_t not_before_s, not_after_s;
};

/* Reads the kept one, or has a new one issued through the app's pipeline, which must run. */
MUST_USE enum status service_identity_get(struct service_identity *out, struct app *app,
	struct err *err);
/* Whether it is time for another: get gives it then. */
bool service_identity_due(const struct service_identity *identity, int64_t now_s);

#endif
