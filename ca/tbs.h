/*
 * ca/tbs.h - builds TBSCertificates (RFC 5280 4.1) as DER: what never changes between certificates
 * of an issuer and a profile is encoded once into a template, the rest is written beside it. No
 * OpenSSL objects. Identity comes from the authorised request and the profile, never from a CSR
 * (invariant 10).
 *
 * Left to others: whether the key is sound (ca/spki.h), whether the result keeps the rules
 * (ca/lint.h), times and serial (ca/signer_local.c). Threads: a template is only read once it is
 * made.
 */
#ifndef CA_TBS_H
#define CA_TBS_H

#include "base/bytes.h"
#include "base/err.h"
#include "base/serial.h"
#include "ca/der.h"
#include "ca/profile.h"

/* 256 certificates of that size and their signatures fit into one answer of ca/signer_wire.h. */
#define TBS_MAX_BYTES 3072
#define TBS_URL_MAX_BYTES 512

/* Of an issuing CA; all borrowed. */
struct ca_tbs_issuer {
	const char *ca_id;
	struct view subject;   /* Name, DER, as in its certificate */
	struct view ski;       /* its subjectKeyIdentifier */
	struct view algorithm; /* AlgorithmIdentifier of its signatures, DER */
	int64_t not_before_s, not_after_s;
};

struct ca_tbs_template;
typedef struct ca_tbs_template ca_tbs_template;

/* Borrows profile (checked); copies the rest. ERR_TOO_LARGE url_too_long. */
MUST_USE enum status ca_tbs_template_new(struct ca_tbs_template **out,
	const struct ca_profile *profile, const struct ca_tbs_issuer *issuer,
	const char *public_http_url, struct err *err);
void ca_tbs_template_free(struct ca_tbs_template *template); /* NULL is welcome */
OWNER(ca_tbs_template, ca_tbs_template_free)

struct ca_tbs_fields {
	const struct ca_request *request;
	struct view spki;
	enum ca_key_type key_type; /* of spki */
	struct serial serial;
	int64_t not_before_s, not_after_s;
};

/*
 * Writes one TBSCertificate into w, which is reset first. *subject is its Name within w.
 * ERR_ARGUMENT name_empty, name_invalid, name_too_long; ERR_TOO_LARGE certificate_too_large.
 */
MUST_USE enum status ca_tbs_build(struct der_writer *w, const struct ca_tbs_template *template,
	const struct ca_tbs_fields *fields, struct view *subject, struct err *err);

/* The CRL distribution point of a shard: <public_http_url>/crl/<ca_id>/<2 hex>.crl; ERR_TOO_LARGE
 * url_too_long. */
MUST_USE enum status ca_crl_url(char out[TBS_URL_MAX_BYTES], const char *public_http_url,
	const char *ca_id, uint8_t shard, struct err *err);
/* Where the delta of the full list is: <public_http_url>/crl/<ca_id>/delta.crl; the same failure. */
MUST_USE enum status ca_crl_delta_url(char out[TBS_URL_MAX_BYTES], const char *public_http_url,
	const char *ca_id, struct err *err);

#endif
