/*
 * ca/spki.h - public keys of subjects (SubjectPublicKeyInfo, RFC 5280 4.1.2.7; RFC 3279, 5480, 8410):
 * which kind, whether sound, and whether a signature holds.
 *
 * Accepted: P-256 and P-384 as named curves with an uncompressed point on the curve, RSA of exactly
 * 2048, 3072 or 4096 bits, Ed25519. No OpenSSL decoder is used: they cost more than the cryptography
 * and serialise threads. Not checked: that an RSA modulus is a product of two good primes.
 *
 * Threads: a struct ca_verifier belongs to one thread.
 */
#ifndef CA_SPKI_H
#define CA_SPKI_H

#include "base/bytes.h"
#include "base/err.h"
#include "ca/profile.h"

struct ca_verifier; /* reused EVP contexts and keys */
MUST_USE enum status ca_verifier_new(struct ca_verifier **out, struct err *err);
void ca_verifier_free(struct ca_verifier *verifier); /* NULL is welcome */
typedef struct ca_verifier ca_verifier;
OWNER(ca_verifier, ca_verifier_free)

/*
 * Reads one SubjectPublicKeyInfo with nothing behind it and checks the key. The key stays in the
 * verifier for ca_verifier_check until the next call. All ERR_ARGUMENT: csr_malformed;
 * csr_key_too_small (RSA under 2048 bits, curves under 256); csr_key_type (unlisted algorithm, curve
 * or size, explicit curve parameters); csr_key_invalid (compressed point, point at infinity or off
 * its curve; RSA exponent even, under 65537 or over 64 bits; modulus even or with a small factor).
 */
MUST_USE enum status ca_spki_check(struct ca_verifier *verifier, struct view spki,
	enum ca_key_type *type, struct err *err);

/*
 * Does signature over data hold under the key that ca_spki_check read last? algorithm is the whole
 * AlgorithmIdentifier, which must fit the key. ERR_ARGUMENT: csr_weak_hash (MD2, MD5, SHA-1),
 * csr_signature_algorithm (unlisted, or not of the key's kind, or wrong parameters),
 * csr_bad_signature.
 */
MUST_USE enum status ca_verifier_check(struct ca_verifier *verifier, struct view algorithm,
	struct view data, struct view signature, struct err *err);

/*
 * A key that is kept: of an issuer, to verify many certificates with. The same checks and the same
 * codes. ca_public_key_check is safe from any thread.
 */
struct ca_public_key;
typedef struct ca_public_key ca_public_key;
MUST_USE enum status ca_public_key_new(struct ca_public_key **out, struct view spki, struct err *err);
MUST_USE enum status ca_public_key_check(const struct ca_public_key *key, struct view algorithm,
	struct view data, struct view signature, struct err *err);
void ca_public_key_free(struct ca_public_key *key); /* NULL is welcome */
OWNER(ca_public_key, ca_public_key_free)

#endif
