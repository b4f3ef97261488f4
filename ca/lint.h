/*
 * ca/lint.h - holds a finished TBSCertificate against RFC 5280 and its profile, before it is signed
 * (invariant 11). Reads the DER anew and takes nothing from the builder (ca/tbs.c): the tables of
 * string types, bounds, criticality and usages stand here a second time, on purpose.
 * Nothing allocates. Threads: any.
 */
#ifndef CA_LINT_H
#define CA_LINT_H

#include "base/bytes.h"
#include "base/err.h"
#include "base/serial.h"
#include "ca/profile.h"

/* What the certificate must agree with; all borrowed. */
struct ca_lint {
	const struct ca_profile *profile;
	const char *ca_id;
	const char *public_http_url;
	struct view issuer_subject; /* Name, DER, of the issuer's certificate */
	struct view issuer_ski;
	struct view issuer_algorithm; /* what the issuer signs with, DER */
	int64_t issuer_not_before_s, issuer_not_after_s;
	struct view spki;            /* the key that was found sound */
	const struct serial *serial; /* that was drawn */
};

/* ERR_ARGUMENT certificate_lint: the text names the rule. */
MUST_USE enum status ca_lint_tbs(const struct ca_lint *lint, struct view tbs, struct err *err);

#endif
