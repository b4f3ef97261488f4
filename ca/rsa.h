/*
 * ca/rsa.h - RSA keys that are met once, as in requests (RFC 8017): whether the modulus can be one, and
 * whether a signature by RSASSA-PKCS1-v1_5 holds (8.2.2). Only the powers are OpenSSL's, by its big
 * numbers: an EVP_PKEY for a key that is used once costs as much as the verification.
 *
 * All here is public, so nothing takes pains to hide it. The key's size, its exponent and the
 * signature's algorithm are ca/spki.h's to judge.
 *
 * Threads: a struct ca_rsa belongs to one thread; ca_rsa_has_small_factor is safe from any.
 */
#ifndef CA_RSA_H
#define CA_RSA_H

#include "base/bytes.h"
#include "base/err.h"

#define CA_RSA_MODULUS_MAX_BYTES 512
#define CA_RSA_EXPONENT_MAX_BYTES 8
#define CA_RSA_SMALL_PRIME_LAST 751

/*
 * Does a prime from 3 to CA_RSA_SMALL_PRIME_LAST divide modulus? Broken generators make such; nobody asks
 * for more than the primes up to there (SP 800-89 5.3.3). modulus: big-endian, whole words of 64 bits, at
 * most CA_RSA_MODULUS_MAX_BYTES (asserted).
 */
bool ca_rsa_has_small_factor(struct view modulus);

struct ca_rsa; /* reused numbers */
typedef struct ca_rsa ca_rsa;
MUST_USE enum status ca_rsa_new(struct ca_rsa **out, struct err *err);
void ca_rsa_free(struct ca_rsa *rsa); /* NULL is welcome */
OWNER(ca_rsa, ca_rsa_free)

/*
 * Does signature hold over digest (SHA-256, SHA-384 or SHA-512, told apart by their lengths)? modulus: odd;
 * exponent: odd and above 1; both big-endian, without leading zeros, within the limits above (asserted).
 * OK: *holds says it. ERR_UNAVAILABLE out_of_memory.
 */
MUST_USE enum status ca_rsa_verify(struct ca_rsa *rsa, struct view modulus, struct view exponent,
	struct view digest, struct view signature, bool *holds, struct err *err);

#endif
