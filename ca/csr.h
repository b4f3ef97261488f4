/*
 * ca/csr.h - certification requests (PKCS#10, RFC 2986): read strictly, proof of possession verified.
 * The hot path (P-256, ecdsa-with-SHA256) is a DER reader of our own and reused EVP contexts
 * (ca/spki.h). Nothing of a CSR but its key is ever taken into a certificate.
 * Threads: a struct ca_verifier belongs to one thread.
 */
#ifndef CA_CSR_H
#define CA_CSR_H

#include "base/bytes.h"
#include "base/err.h"
#include "ca/profile.h"
#include "ca/spki.h" /* struct ca_verifier */

#define CSR_DER_MAX_BYTES 8192

struct ca_csr {
	struct bytes spki; /* SubjectPublicKeyInfo, DER, exactly as in the CSR */
	uint8_t spki_sha256[32];
	enum ca_key_type key_type;
	bool has_extensions; /* an extensionRequest that asks for anything at all */
	/* Whether that is more than a profile gives is for ca_csr_check. */
	struct bytes extensions; /* the Extensions SEQUENCE; empty: none */
};

void ca_csr_free(struct ca_csr *csr);
OWNER_STRUCT(ca_csr, ca_csr_free)

/*
 * Reads PEM (CERTIFICATE REQUEST or NEW CERTIFICATE REQUEST, exactly one, nothing but white space
 * around it) and verifies the signature. On OK the caller frees out. All ERR_ARGUMENT: csr_not_pem,
 * csr_malformed (DER, structure, trailing octets), csr_bad_signature, csr_weak_hash (MD5, SHA-1),
 * csr_key_too_small, csr_key_type (unlisted curve or algorithm), csr_key_invalid (point not on its
 * curve, even or small exponent, bad modulus), csr_signature_algorithm; ERR_TOO_LARGE csr_too_large.
 */
MUST_USE enum status ca_csr_read_pem(struct ca_verifier *verifier, struct view pem, struct ca_csr *out,
	struct err *err);
MUST_USE enum status ca_csr_read_der(struct ca_verifier *verifier, struct view der, struct ca_csr *out,
	struct err *err);

/*
 * Holds the CSR against the profile: ERR_ARGUMENT csr_key_not_allowed; csr_extensions_refused when the
 * profile does not ignore extensions and they ask for more than it gives: another keyUsage or
 * extKeyUsage, a CA's basicConstraints, any subjectAltName (names come from the authorised request
 * alone, invariant 10), anything else but a subjectKeyIdentifier.
 */
MUST_USE enum status ca_csr_check(const struct ca_csr *csr, const struct ca_profile *profile,
	struct err *err);

#endif
