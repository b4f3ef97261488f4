/*
 * ca/names.h - the values of subject attributes and alternative names, as they may stand in a
 * certificate: X.520 string types and upper bounds, RFC 5280 4.1.2.4, 4.2.1.6 and appendix A.1.
 * Used where certificates are built (ca/tbs.c) and profiles checked (ca/profile.c); ca/lint.c has
 * its own reading of the same rules.
 *
 * Not checked: Unicode normalisation, whether a host exists.
 */
#ifndef CA_NAMES_H
#define CA_NAMES_H

#include "base/bytes.h"
#include "base/err.h"
#include "ca/der.h"
#include "ca/profile.h"

struct ca_rdn_rule {
	const char *label; /* "CN" */
	const char *oid;   /* dotted */
	enum der_tag string;
	size_t least, most; /* characters; X.520's upper bounds */
};
/* NULL: no such type. Static. */
const struct ca_rdn_rule *ca_rdn_rule(enum ca_rdn_type type);

/*
 * May value stand in a subject as type? ERR_ARGUMENT: name_empty; name_too_long (over the bound);
 * name_invalid (not UTF-8, control or direction-changing characters, outside of the string type).
 */
MUST_USE enum status ca_rdn_check(enum ca_rdn_type type, struct view value, struct err *err);

/* UTF-8 without control, direction or line characters and non-characters; counts its characters. */
bool ca_text_is_clean(struct view text, size_t *characters);

/*
 * Writes a GeneralName. ERR_ARGUMENT name_empty, name_too_long, name_invalid: DNS (letters, digits,
 * hyphens; no wildcards, for values may come from a request), IPv4 or IPv6 text, URI with a scheme,
 * mailbox.
 */
MUST_USE enum status ca_san_put(
	struct der_writer *w, enum ca_san_type type, struct view value, struct err *err);

#endif
