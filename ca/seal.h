/*
 * ca/seal.h - private keys at rest: XChaCha20-Poly1305 under a key-encryption key (KEK) that Argon2id
 * makes of a passphrase. The parameters are public and lie in DIR/seal.params. With a key its ca_id
 * and its SubjectPublicKeyInfo are authenticated, so that one sealed key cannot stand in for another.
 */
#ifndef CA_SEAL_H
#define CA_SEAL_H

#include <stdbool.h>

#include "base/bytes.h"
#include "base/err.h"
#include "ca/key.h"
#include "ca/secret.h"

#define SEALED_KEY_MAX_BYTES 8192

/* Of DIR's parameters. ERR_NOT_FOUND keystore_absent; ERR_DENIED passphrase_wrong; ERR_ARGUMENT
 * keystore_malformed. */
MUST_USE enum status seal_kek(struct secret *kek, const char *dir, struct view passphrase,
	struct err *err);
/* The same with new parameters, which are then in DIR. ERR_CONFLICT file_exists. */
MUST_USE enum status seal_begin(struct secret *kek, const char *dir, struct view passphrase,
	bool insecure_fast, struct err *err);

/* What lies in a .key file. */
MUST_USE enum status seal_key(struct bytes *out, struct view kek, const char *ca_id,
	const struct ca_key *key, struct err *err);
/* ERR_DENIED key_sealed_otherwise: another KEK, ca_id or public key, or an octet changed. */
MUST_USE enum status unseal_key(struct ca_key **out, struct view kek, const char *ca_id,
	struct view spki, struct view sealed, struct err *err);
/* The same of other secrets, with the public half that is authenticated with them. */
MUST_USE enum status seal_secret(struct bytes *out, struct view kek, const char *name, struct view spki,
	const struct secret *plain, struct err *err);
MUST_USE enum status unseal_secret(struct secret *out, struct view kek, const char *name,
	struct view spki, struct view sealed, struct err *err);

/* DIR/seal.params; exposed for clearing away. */
#define SEAL_PARAMS_NAME "seal.params"

#endif
