/*
 * ca/crl.h - certificate revocation lists, version 2 (RFC 5280 section 5), as DER of our own making.
 * A list is begun, filled entry by entry in the order of serials, and signed once. Where entries come
 * from and where lists go is not this module's affair. Times are seconds since the epoch, UTC.
 */
#ifndef CA_CRL_H
#define CA_CRL_H

#include "base/bytes.h"
#include "base/err.h"
#include "base/serial.h"
#include "ca/signer.h"

struct ca_crl;

struct ca_crl_head {
	const char *ca_id;
	struct view issuer_certificate; /* DER: issuer name, AKI, signature algorithm come from it */
	uint64_t number;                /* 5.2.3: must grow from list to list of one scope */
	int64_t this_update_s, next_update_s;
	const char *distribution_point; /* URL for a critical IDP (5.2.5), or NULL: the full list */
};

MUST_USE enum status ca_crl_begin(struct ca_crl **out, const struct ca_crl_head *head, struct err *err);
/* reason as in 5.3.1; 0 (unspecified) is left out, as the standard asks. */
MUST_USE enum status ca_crl_add(struct ca_crl *crl, const struct serial *serial, int64_t revoked_at_s,
	int reason, struct err *err);
/* Signs through signer. On OK the caller owns *der. entries may be none. */
MUST_USE enum status ca_crl_sign(struct ca_crl *crl, struct ca_signer *signer, struct bytes *der,
	struct err *err);
size_t ca_crl_entry_count(const struct ca_crl *crl);
void ca_crl_free(struct ca_crl *crl);

/* What a reader sees; views borrow from der. ERR_ARGUMENT crl_malformed. */
struct ca_crl_view {
	uint64_t number;
	int64_t this_update_s, next_update_s;
	struct view revoked; /* contents of revokedCertificates */
};
MUST_USE enum status ca_crl_parse(struct ca_crl_view *out, struct view der, struct err *err);
/* The next entry of a list; *more false at the end. */
struct ca_crl_entry { struct view serial; int64_t revoked_at_s; int reason; };
MUST_USE enum status ca_crl_next(struct view *revoked, struct ca_crl_entry *out, bool *more,
	struct err *err);

/*
 * Invariant 6: every entry of previous is in next too, but for those on hold, those whose serial's
 * month of expiry has ended before previous' thisUpdate, and those that dropped() allows.
 * Both are ordered by serial. ERR_CONFLICT crl_lost_entry names the serial.
 */
MUST_USE enum status ca_crl_keeps(struct view previous, struct view next,
	bool (*dropped)(void *arg, const struct serial *serial), void *arg, struct err *err);

#endif
