/*
 * ca/cert.h - reading certificates: what our own say, and whether a chain holds. For peers at mutual
 * TLS the caller looks up the row first and asks for the chain after (design: Processes).
 */
#ifndef CA_CERT_H
#define CA_CERT_H

#include <stdbool.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/serial.h"
#include "ca/pem.h"
#include "ca/profile.h"

/* Read without building OpenSSL objects; views borrow from der. */
struct ca_cert_view {
	unsigned version;   /* 1 to 3 */
	struct view serial; /* INTEGER contents */
	bool serial_ours;   /* 16 octets of our form: then serial16 */
	struct serial serial16;
	struct view issuer, subject; /* Name, DER */
	struct view common_name;     /* of the subject; may be empty */
	struct view spki;
	int64_t not_before_s, not_after_s;
	struct view ski, aki; /* key identifiers; may be empty */
	bool is_ca;
	int64_t path_len;      /* pathLenConstraint; -1: none */
	bool has_key_usage;
	unsigned key_usage;    /* enum ca_key_usage; 0 without the extension */
	bool unknown_critical; /* a critical extension that this reader does not know */
	struct view extensions; /* contents of the SEQUENCE of all of them */
	struct view tbs; /* DER */
	struct view algorithm, signature; /* AlgorithmIdentifier, DER; octets of the BIT STRING */
};
/* Version 3 only. ERR_ARGUMENT certificate_malformed. */
MUST_USE enum status ca_cert_parse(struct ca_cert_view *out, struct view der, struct err *err);
/* Of any version, for what others made: openssl x509 -req without extensions makes version 1. */
MUST_USE enum status ca_cert_parse_any(struct ca_cert_view *out, struct view der, struct err *err);

/*
 * Names, key identifiers and the signature of one step of a chain, and that the issuer is a CA that
 * may sign certificates. Not its validity. ERR_ARGUMENT chain_broken.
 */
MUST_USE enum status ca_cert_issued_by(const struct ca_cert_view *certificate,
	const struct ca_cert_view *issuer, struct err *err);

/*
 * Trust in our own issuers: verifies signatures and validity of leaf certificates. All is added
 * before threads begin; ca_trust_verify is safe from any thread.
 */
struct ca_trust;
MUST_USE enum status ca_trust_new(struct ca_trust **out, struct err *err);
void ca_trust_free(struct ca_trust *trust);
typedef struct ca_trust ca_trust;
OWNER(ca_trust, ca_trust_free)
/*
 * Adds an issuing CA with its chain (nearest first, root last; none for a self-signed one), DER, all
 * copied. ERR_ARGUMENT certificate_malformed, chain_broken.
 */
MUST_USE enum status ca_trust_add(struct ca_trust *trust, const char *ca_id, struct view certificate,
	const struct view *chain, size_t chain_count, struct err *err);
/*
 * The issuing CA of a leaf, by AKI and signature; ca_id points into trust. check_time also holds the
 * leaf's validity against now_s. ERR_UNAUTHENTICATED: certificate_foreign, certificate_expired,
 * certificate_not_yet_valid, certificate_bad_signature, certificate_malformed.
 */
MUST_USE enum status ca_trust_verify(const struct ca_trust *trust, struct view leaf_der, int64_t now_s,
	bool check_time, const char **ca_id, struct err *err);

/* The subject in RFC 4514 text, escaped; cut at size. */
void ca_name_text(char *out, size_t size, struct view name_der);

#endif
