/* server/passphrase.h - where the passphrase of the CA keys comes from. */
#ifndef SERVER_PASSPHRASE_H
#define SERVER_PASSPHRASE_H

#include <stdbool.h>

#include "ca/secret.h"
#include "server/config.h"

#define PASSPHRASE_MAX_BYTES 1024
#define PASSPHRASE_MIN_BYTES 8 /* of a new one */

/*
 * From config.passphrase_file; else the systemd credential jitrca-passphrase; else the terminal. fresh:
 * a new one, asked for twice and not too short. ERR_NOT_FOUND passphrase_missing: none of the three.
 */
MUST_USE enum status passphrase_read(struct secret *out, const struct config *config, bool fresh,
	struct err *err);

#endif
