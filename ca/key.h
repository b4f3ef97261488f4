/*
 * ca/key.h - a CA's private key: it signs. EC P-256 (ecdsa-with-SHA256), P-384 (ecdsa-with-SHA384),
 * RSA of 3072 and 4096 bits (sha256WithRSAEncryption). Contexts are made once and reused. Private
 * parts lie in OpenSSL's secure heap when ca_secure_heap_init() ran before (ca/keystore.h).
 *
 * Threads: a struct ca_key belongs to one thread; ca_key_dup() makes another for another thread, and
 * may be called from any thread while nobody frees the key.
 */
#ifndef CA_KEY_H
#define CA_KEY_H

#include "base/bytes.h"
#include "base/err.h"
#include "ca/profile.h"
#include "ca/secret.h"

#define CA_SIGNATURE_MAX_BYTES 512 /* RSA-4096 */

struct ca_key;
typedef struct ca_key ca_key;

/* ERR_ARGUMENT ca_key_type: a kind that no CA key has (RSA-2048, Ed25519). */
MUST_USE enum status ca_key_generate(struct ca_key **out, enum ca_key_type type, struct err *err);
/* From PKCS#8 (RFC 5208), DER; ERR_ARGUMENT ca_key_malformed, ca_key_type. */
MUST_USE enum status ca_key_from_pkcs8(struct ca_key **out, struct view der, struct err *err);
MUST_USE enum status ca_key_to_pkcs8(const struct ca_key *key, struct secret *der, struct err *err);
/* The same key with contexts of its own. */
MUST_USE enum status ca_key_dup(struct ca_key **out, const struct ca_key *key, struct err *err);
void ca_key_free(struct ca_key *key); /* NULL is welcome */
OWNER(ca_key, ca_key_free)

enum ca_key_type ca_key_type_of(const struct ca_key *key);
/* SubjectPublicKeyInfo, DER; lives as long as key. */
struct view ca_key_spki(const struct ca_key *key);
/* The AlgorithmIdentifier of its signatures, DER; static. */
struct view ca_key_algorithm(const struct ca_key *key);
/* What an issuer's key type signs with, without having the key (NULL view: no CA key type). */
struct view ca_key_type_algorithm(enum ca_key_type type);

/* Signs data. The signature is as it stands in the BIT STRING, without the octet of unused bits. */
MUST_USE enum status ca_key_sign(struct ca_key *key, struct view data,
	uint8_t signature[CA_SIGNATURE_MAX_BYTES], size_t *signature_len, struct err *err);

/* The same for data whose SHA-256 the caller has; only where ca_key_hashes_sha256. */
bool ca_key_hashes_sha256(const struct ca_key *key);
MUST_USE enum status ca_key_sign_sha256(struct ca_key *key, const uint8_t digest[32],
	uint8_t signature[CA_SIGNATURE_MAX_BYTES], size_t *signature_len, struct err *err);

/*
 * The same for data that comes in pieces. Several may run beside each other and beside ca_key_sign
 * on one key (in one thread); key outlives them.
 */
struct ca_key_stream;
typedef struct ca_key_stream ca_key_stream;
MUST_USE enum status ca_key_stream_begin(struct ca_key_stream **out, struct ca_key *key,
	struct err *err);
MUST_USE enum status ca_key_stream_add(struct ca_key_stream *stream, struct view piece,
	struct err *err);
/* Once; free it afterwards. */
MUST_USE enum status ca_key_stream_sign(struct ca_key_stream *stream,
	uint8_t signature[CA_SIGNATURE_MAX_BYTES], size_t *signature_len, struct err *err);
void ca_key_stream_free(struct ca_key_stream *stream); /* NULL is welcome */
OWNER(ca_key_stream, ca_key_stream_free)

/*
 * The key identifier of a public key: the leftmost 160 bits of SHA-256 over the BIT STRING's octets
 * (RFC 7093 section 2, method 1).
 */
#define CA_KEY_ID_BYTES 20
MUST_USE enum status ca_spki_key_id(uint8_t out[CA_KEY_ID_BYTES], struct view spki,
	struct err *err);

#endif
