#include "ca/lint.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "ca/der.h"
#include "ca/digest.h"

/* ---- names ---- */

struct attribute_rule {
	enum ca_rdn_type type;
	uint8_t arc; /* 2.5.4.ARC */
	unsigned tag;
	size_t most; /* RFC 5280 appendix A.1, upper bounds, in characters */
};

static const struct attribute_rule ATTRIBUTES[] = {
	{ RDN_CN, 3, DER_UTF8_STRING, 64 },
	{ RDN_SERIAL_NUMBER, 5, DER_PRINTABLE_STRING, 64 },
	{ RDN_C, 6, DER_PRINTABLE_STRING, 2 },
	{ RDN_L, 7, DER_UTF8_STRING, 128 },
	{ RDN_ST, 8, DER_UTF8_STRING, 128 },
	{ RDN_O, 10, DER_UTF8_STRING, 64 },
	{ RDN_OU, 11, DER_UTF8_STRING, 64 },
};

static const struct attribute_rule *
attribute_rule(struct view oid)
{
	for (size_t i = 0; i < COUNT_OF(ATTRIBUTES); i++)
		if (oid.len == 3 && oid.data[0] == 0x55 && oid.data[1] == 0x04 &&
			oid.data[2] == ATTRIBUTES[i].arc)
			return &ATTRIBUTES[i];
	return NULL;
}

static bool
is_printable_string(struct view text)
{
	static const char OTHERS[] = " '()+,-./:=?";

	for (size_t i = 0; i < text.len; i++) {
		uint8_t c = text.data[i];
		bool alphanumeric =
			(c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');

		if (!alphanumeric && memchr(OTHERS, c, sizeof(OTHERS) - 1) == NULL)
			return false;
	}
	return true;
}

/* How many octets of text the character at its front takes; 0: broken UTF-8 or a control character.
 */
static size_t
character_len(struct view text)
{
	const uint8_t *p = text.data;

	if (p[0] < 0x80)
		return p[0] >= 0x20 && p[0] != 0x7f;
	if (text.len >= 2 && p[0] >= 0xc2 && p[0] <= 0xdf && (p[1] & 0xc0) == 0x80)
		return p[0] == 0xc2 && p[1] < 0xa0 ? 0 : 2; /* U+0080 to U+009F */
	if (text.len >= 3 && (p[0] & 0xf0) == 0xe0 && (p[1] & 0xc0) == 0x80 &&
		(p[2] & 0xc0) == 0x80)
		return (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] >= 0xa0) ? 0 : 3;
	if (text.len >= 4 && p[0] >= 0xf0 && p[0] <= 0xf4 && (p[1] & 0xc0) == 0x80 &&
		(p[2] & 0xc0) == 0x80 && (p[3] & 0xc0) == 0x80)
		return (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] >= 0x90) ? 0 : 4;
	return 0;
}

static bool
count_characters(struct view text, size_t *characters)
{
	for (*characters = 0; text.len > 0; (*characters)++) {
		size_t len = character_len(text);

		if (len == 0)
			return false;
		text.data += len;
		text.len -= len;
	}
	return true;
}

/* One RelativeDistinguishedName: a single attribute, of the type that stands there in the profile.
 */
static enum status
lint_rdn(struct der *names, enum ca_rdn_type wanted, struct err *err)
{
	const struct attribute_rule *rule;
	struct view oid, value;
	struct der set, pair;
	size_t characters;
	uint8_t tag;

	TRY(der_enter(names, DER_SET, "RFC 5280 4.1.2.6: subject: RDN", &set, err));
	TRY(der_enter(&set, DER_SEQUENCE, "subject: attribute", &pair, err));
	TRY(der_end(&set, "subject: RDN of one attribute", err));
	TRY(der_oid(&pair, "subject: attribute type", &oid, err));
	TRY(der_any(&pair, "subject: attribute value", &tag, &value, NULL, err));
	TRY(der_end(&pair, "subject: attribute", err));
	rule = attribute_rule(oid);
	if (rule == NULL || rule->type != wanted)
		return der_refuse(
			names, err, "subject: an attribute of another type than the profile's");
	if (tag != rule->tag)
		return der_refuse(names, err,
			"subject: string type 0x%02x wanted, 0x%02x found"
			" (RFC 5280 4.1.2.4)",
			rule->tag, (unsigned)tag);
	if (!count_characters(value, &characters) ||
		(tag == DER_PRINTABLE_STRING && !is_printable_string(value)))
		return der_refuse(names, err, "subject: characters that the string must not hold");
	if (characters == 0 || characters > rule->most || (rule->type == RDN_C && characters != 2))
		return der_refuse(names, err,
			"subject: 1 to %zu characters wanted, %zu found"
			" (RFC 5280 A.1)",
			rule->most, characters);
	return OK;
}

static enum status
lint_subject(const struct ca_lint *lint, struct der *tbs, struct err *err)
{
	struct der names;

	TRY(der_enter(tbs, DER_SEQUENCE, "RFC 5280 4.1.2.6: subject", &names, err));
	if (der_at_end(&names))
		return der_refuse(tbs, err, "RFC 5280 4.1.2.6: subject: empty");
	for (size_t i = 0; i < lint->profile->subject_count; i++)
		TRY(lint_rdn(&names, lint->profile->subject[i].type, err));
	return der_end(&names, "subject: what the profile says", err);
}

static bool
is_host(struct view name)
{
	size_t label = 0;
	bool digits = true;

	if (name.len < 1 || name.len > 253)
		return false;
	for (size_t i = 0; i < name.len; i++) {
		uint8_t c = name.data[i];
		bool digit = c >= '0' && c <= '9';
		bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');

		if (c == '.') {
			if (label == 0 || name.data[i - 1] == '-')
				return false;
			label = 0;
			digits = true;
			continue;
		}
		if (!digit && !letter && (c != '-' || label == 0))
			return false;
		digits = digits && digit;
		if (++label > 63)
			return false;
	}
	return label > 0 && name.data[name.len - 1] != '-' && !digits;
}

static bool
is_visible_ascii(struct view text)
{
	for (size_t i = 0; i < text.len; i++)
		if (text.data[i] <= 0x20 || text.data[i] >= 0x7f ||
			strchr("<>\"{}|\\^`", text.data[i]) != NULL)
			return false;
	return text.len > 0;
}

static bool
is_absolute_uri(struct view text)
{
	const uint8_t *colon = text.len > 0 ? memchr(text.data, ':', text.len) : NULL;

	if (colon == NULL || colon == text.data || colon == text.data + text.len - 1 ||
		!is_visible_ascii(text))
		return false;
	for (const uint8_t *p = text.data; p < colon; p++)
		if ((*p >= '0' && *p <= '9') || *p == '+' || *p == '-' || *p == '.'
				? p == text.data
				: (*p | 0x20) < 'a' || (*p | 0x20) > 'z')
			return false;
	return true;
}

static bool
is_address(struct view text) /* of mail */
{
	const uint8_t *at = text.len > 0 ? memchr(text.data, '@', text.len) : NULL;

	if (at == NULL || at == text.data || text.len > 254)
		return false;
	for (const uint8_t *p = text.data; p < at; p++)
		if (*p <= 0x20 || *p >= 0x7f || strchr("()<>[]:;@\\,\"", *p) != NULL)
			return false;
	return is_host((struct view){ at + 1, text.len - (size_t)(at + 1 - text.data) });
}

/* ---- extensions ---- */

struct extension_rule {
	const char *name;
	struct view oid;
	bool critical;
	enum status (*lint)(const struct ca_lint *lint, struct der *value, struct err *err);
	bool (*wanted)(const struct ca_lint *lint); /* NULL: may be there or not */
};

static enum status
lint_basic_constraints(const struct ca_lint *lint, struct der *value, struct err *err)
{
	struct der inside;

	(void)lint;
	TRY(der_enter(value, DER_SEQUENCE, "4.2.1.9: basicConstraints", &inside, err));
	/* cA is FALSE by default, and pathLenConstraint is only for CAs. */
	return der_end(&inside, "RFC 5280 4.2.1.9: basicConstraints: not a CA", err);
}

/* The kind of a SubjectPublicKeyInfo by its algorithm (RFC 3279 2.3.1, RFC 5480 2.1, RFC 8410 3).
 */
enum key_kind { KEY_KIND_NONE, KEY_KIND_RSA, KEY_KIND_EC, KEY_KIND_ED25519 };

static enum key_kind
key_kind(const struct ca_lint *lint)
{
	struct der in = der_of(lint->spki, "certificate_lint", "spki"), info, algorithm;
	struct view oid;
	struct err err;

	if (der_enter(&in, DER_SEQUENCE, "spki", &info, &err) != OK ||
		der_enter(&info, DER_SEQUENCE, "algorithm", &algorithm, &err) != OK ||
		der_oid(&algorithm, "algorithm", &oid, &err) != OK)
		return KEY_KIND_NONE;
	if (DER_OID_IS(oid, "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01"))
		return KEY_KIND_RSA;
	if (DER_OID_IS(oid, "\x2a\x86\x48\xce\x3d\x02\x01"))
		return KEY_KIND_EC;
	return DER_OID_IS(oid, "\x2b\x65\x70") ? KEY_KIND_ED25519 : KEY_KIND_NONE;
}

static enum status
lint_key_usage(const struct ca_lint *lint, struct der *value, struct err *err)
{
	static const unsigned FITS[] = {
		[KEY_KIND_NONE] = 0,
		[KEY_KIND_RSA] = KU_DIGITAL_SIGNATURE | KU_CONTENT_COMMITMENT |
		                 KU_KEY_ENCIPHERMENT | KU_DATA_ENCIPHERMENT,
		[KEY_KIND_EC] = KU_DIGITAL_SIGNATURE | KU_CONTENT_COMMITMENT | KU_KEY_AGREEMENT,
		[KEY_KIND_ED25519] = KU_DIGITAL_SIGNATURE | KU_CONTENT_COMMITMENT,
	};
	unsigned bits, fits = FITS[key_kind(lint)];

	TRY(der_named_bits(value, "4.2.1.3: keyUsage", &bits, err));
	if (bits == 0)
		return der_refuse(value, err, "RFC 5280 4.2.1.3: keyUsage: no bit is set");
	if ((bits & (KU_KEY_CERT_SIGN | KU_CRL_SIGN)) != 0)
		return der_refuse(value, err, "RFC 5280 4.2.1.3: keyUsage: of a CA");
	if ((bits & ~fits) != 0)
		return der_refuse(value, err,
			"RFC 3279 2.3, RFC 5480 3: keyUsage: 0x%x does not fit the"
			" key",
			bits);
	if (bits != (lint->profile->key_usage & fits))
		return der_refuse(value, err, "keyUsage: the profile's wanted, 0x%x found", bits);
	return OK;
}

/* Is the OID with these contents the dotted text? Arc by arc; it has been checked to be well-formed. */
static bool
is_oid(struct view contents, const char *dotted)
{
	uint64_t arc = 0, wanted = 0, first;
	const char *rest = dotted;
	size_t i = 0;

	for (first = 0; *rest >= '0' && *rest <= '9'; rest++)
		first = first * 10 + (uint64_t)(*rest - '0');
	wanted = first * 40; /* X.690 8.19.4: the first two arcs are one number */
	while (i < contents.len) {
		uint64_t number = 0;

		if (*rest != '.')
			return false;
		for (rest++; *rest >= '0' && *rest <= '9'; rest++)
			number = number * 10 + (uint64_t)(*rest - '0');
		wanted += number;
		for (arc = 0; i < contents.len && contents.data[i] >= 0x80; i++)
			arc = arc << 7 | (contents.data[i] & 0x7fu);
		if (i == contents.len || (arc << 7 | contents.data[i]) != wanted)
			return false;
		i++;
		wanted = 0;
	}
	return *rest == '\0';
}

static enum status
lint_eku(const struct ca_lint *lint, struct der *value, struct err *err)
{
	struct der list;

	TRY(der_enter(value, DER_SEQUENCE, "4.2.1.12: extKeyUsage", &list, err));
	for (size_t i = 0; i < lint->profile->eku_count; i++) {
		struct view oid;

		TRY(der_oid(&list, "4.2.1.12: extKeyUsage", &oid, err));
		if (!is_oid(oid, lint->profile->eku[i]))
			return der_refuse(value, err, "extKeyUsage: the profile's %.31s wanted",
				lint->profile->eku[i]);
	}
	return der_end(&list, "extKeyUsage: the profile's", err);
}

static enum status
lint_ski(const struct ca_lint *lint, struct der *value, struct err *err)
{
	struct der in = der_of(lint->spki, value->code, value->what), info;
	struct view id, key;
	uint8_t digest[32];

	TRY(der_octets(value, "4.2.1.2: subjectKeyIdentifier", &id, err));
	TRY(der_enter(&in, DER_SEQUENCE, "spki", &info, err));
	TRY(der_take(&info, DER_SEQUENCE, "spki: algorithm", &key, err));
	TRY(der_bits(&info, "spki: key", &key, err));
	ca_sha256(digest, key);
	if (!view_equal(id, (struct view){ digest, 20 })) /* RFC 7093 2, method 1 */
		return der_refuse(
			value, err, "RFC 5280 4.2.1.2: subjectKeyIdentifier: not that of the key");
	return OK;
}

static enum status
lint_aki(const struct ca_lint *lint, struct der *value, struct err *err)
{
	struct der inside;
	struct view id;

	TRY(der_enter(value, DER_SEQUENCE, "4.2.1.1: authorityKeyIdentifier", &inside, err));
	TRY(der_take(&inside, DER_CONTEXT(0), "4.2.1.1: keyIdentifier", &id, err));
	TRY(der_end(&inside, "4.2.1.1: authorityKeyIdentifier: keyIdentifier alone", err));
	if (lint->issuer_ski.len == 0 || !view_equal(id, lint->issuer_ski))
		return der_refuse(value, err,
			"RFC 5280 4.2.1.1: authorityKeyIdentifier: not the issuer's key");
	return OK;
}

/* DistributionPoints: one, with one URI as its fullName. */
static enum status
read_point(struct der *value, const char *field, struct view *url, struct err *err)
{
	struct der points, point, name, full;

	TRY(der_enter(value, DER_SEQUENCE, field, &points, err));
	TRY(der_enter(&points, DER_SEQUENCE, "4.2.1.13: DistributionPoint", &point, err));
	TRY(der_end(&points, "4.2.1.13: one DistributionPoint", err));
	TRY(der_enter(
		&point, DER_CONTEXT_CONSTRUCTED(0), "4.2.1.13: distributionPoint", &name, err));
	TRY(der_end(&point, "4.2.1.13: distributionPoint without reasons and cRLIssuer", err));
	TRY(der_enter(&name, DER_CONTEXT_CONSTRUCTED(0), "4.2.1.13: fullName", &full, err));
	TRY(der_end(&name, "4.2.1.13: fullName", err));
	TRY(der_take(&full, DER_CONTEXT(6), "4.2.1.13: URI", url, err));
	return der_end(&full, "4.2.1.13: one URI", err);
}

static enum status
lint_cdp(const struct ca_lint *lint, struct der *value, struct err *err)
{
	char wanted[640];
	struct view url;

	TRY(read_point(value, "4.2.1.13: cRLDistributionPoints", &url, err));
	(void)snprintf(wanted, sizeof(wanted), "%s/crl/%s/%02x.crl", lint->public_http_url,
		lint->ca_id, (unsigned)lint->serial->octets[1]);
	if (!view_equal_text(url, wanted))
		return der_refuse(value, err,
			"RFC 5280 4.2.1.13: cRLDistributionPoints: not the shard of"
			" the serial");
	return OK;
}

static enum status
lint_freshest(const struct ca_lint *lint, struct der *value, struct err *err)
{
	char wanted[640];
	struct view url;

	TRY(read_point(value, "4.2.1.15: freshestCRL", &url, err));
	(void)snprintf(wanted, sizeof(wanted), "%s/crl/%s/delta.crl", lint->public_http_url,
		lint->ca_id);
	if (!view_equal_text(url, wanted))
		return der_refuse(value, err, "RFC 5280 4.2.1.15: freshestCRL: not the issuer's delta");
	return OK;
}

static enum status
read_access(struct der *list, struct view *method, struct view *url, struct err *err)
{
	struct der access;

	TRY(der_enter(list, DER_SEQUENCE, "4.2.2.1: AccessDescription", &access, err));
	TRY(der_oid(&access, "4.2.2.1: accessMethod", method, err));
	TRY(der_take(&access, DER_CONTEXT(6), "4.2.2.1: accessLocation", url, err));
	return der_end(&access, "4.2.2.1: AccessDescription", err);
}

static enum status
lint_aia(const struct ca_lint *lint, struct der *value, struct err *err)
{
	struct view oid, url;
	struct der list;
	char wanted[640];

	TRY(der_enter(value, DER_SEQUENCE, "4.2.2.1: authorityInfoAccess", &list, err));
	TRY(read_access(&list, &oid, &url, err));
	(void)snprintf(wanted, sizeof(wanted), "%s/ocsp", lint->public_http_url);
	if (!DER_OID_IS(oid, "\x2b\x06\x01\x05\x05\x07\x30\x01") || !view_equal_text(url, wanted))
		return der_refuse(value, err,
			"RFC 5280 4.2.2.1: authorityInfoAccess: not our OCSP responder");
	TRY(read_access(&list, &oid, &url, err));
	(void)snprintf(wanted, sizeof(wanted), "%s/v1/cas/%s/certificate", lint->public_http_url,
		lint->ca_id);
	if (!DER_OID_IS(oid, "\x2b\x06\x01\x05\x05\x07\x30\x02") || !view_equal_text(url, wanted))
		return der_refuse(value, err,
			"RFC 5280 4.2.2.1: authorityInfoAccess: not the issuer's certificate");
	return der_end(&list, "4.2.2.1: two AccessDescriptions", err);
}

static enum status
lint_nocheck(const struct ca_lint *lint, struct der *value, struct err *err)
{
	(void)lint;
	return der_null(value, "RFC 6960 4.2.2.2.1: ocsp-nocheck", err);
}

static enum ca_san_type
lint_general_name(uint8_t tag, struct view name)
{
	switch (tag) {
	case DER_CONTEXT(1): return is_address(name) ? SAN_EMAIL : SAN_UNSET;
	case DER_CONTEXT(2): return is_host(name) ? SAN_DNS : SAN_UNSET;
	case DER_CONTEXT(6): return is_absolute_uri(name) ? SAN_URI : SAN_UNSET;
	case DER_CONTEXT(7): return name.len == 4 || name.len == 16 ? SAN_IP : SAN_UNSET;
	default: return SAN_UNSET;
	}
}

static enum status
lint_san(const struct ca_lint *lint, struct der *value, struct err *err)
{
	struct der names;

	TRY(der_enter(value, DER_SEQUENCE, "4.2.1.6: subjectAltName", &names, err));
	if (der_at_end(&names))
		return der_refuse(value, err, "RFC 5280 4.2.1.6: subjectAltName: empty");
	while (!der_at_end(&names)) { /* bounded by the size of a TBS */
		enum ca_san_type type;
		bool in_profile = false;
		struct view name;
		uint8_t tag;

		TRY(der_any(&names, "4.2.1.6: GeneralName", &tag, &name, NULL, err));
		type = lint_general_name(tag, name);
		for (size_t i = 0; i < lint->profile->san_count; i++)
			in_profile = in_profile || lint->profile->san[i].type == type;
		if (type == SAN_UNSET)
			return der_refuse(value, err,
				"RFC 5280 4.2.1.6: subjectAltName: a name that is not valid");
		if (!in_profile)
			return der_refuse(value, err,
				"subjectAltName: a type that the profile does not"
				" have");
	}
	return OK;
}

static bool
always(const struct ca_lint *lint)
{
	(void)lint;
	return true;
}

static bool
has_eku(const struct ca_lint *lint)
{
	return lint->profile->eku_count > 0;
}

static bool
has_cdp(const struct ca_lint *lint)
{
	return lint->profile->crl_distribution_point;
}

static bool
has_freshest(const struct ca_lint *lint)
{
	return lint->profile->freshest_crl;
}

static bool
has_aia(const struct ca_lint *lint)
{
	return lint->profile->authority_information_access;
}

/* Who may sign OCSP answers, and nobody else. */
static bool
is_responder(const struct ca_lint *lint)
{
	for (size_t i = 0; i < lint->profile->eku_count; i++)
		if (strcmp(lint->profile->eku[i], "1.3.6.1.5.5.7.3.9") == 0)
			return true;
	return false;
}

static bool
must_have_san(const struct ca_lint *lint)
{
	for (size_t i = 0; i < lint->profile->san_count; i++)
		if (!lint->profile->san[i].optional)
			return true;
	return false;
}

#define OID(octets)                                                                                \
	{                                                                                          \
		(const uint8_t *)(octets), sizeof(octets) - 1                                      \
	}
static const struct extension_rule EXTENSIONS[] = {
	{ "basicConstraints", OID("\x55\x1d\x13"), true, lint_basic_constraints, NULL },
	{ "keyUsage", OID("\x55\x1d\x0f"), true, lint_key_usage, always },
	{ "extKeyUsage", OID("\x55\x1d\x25"), false, lint_eku, has_eku },
	{ "subjectKeyIdentifier", OID("\x55\x1d\x0e"), false, lint_ski, always },
	{ "authorityKeyIdentifier", OID("\x55\x1d\x23"), false, lint_aki, always },
	{ "cRLDistributionPoints", OID("\x55\x1d\x1f"), false, lint_cdp, has_cdp },
	{ "freshestCRL", OID("\x55\x1d\x2e"), false, lint_freshest, has_freshest },
	{ "authorityInfoAccess", OID("\x2b\x06\x01\x05\x05\x07\x01\x01"), false, lint_aia,
		has_aia },
	{ "ocsp-nocheck", OID("\x2b\x06\x01\x05\x05\x07\x30\x01\x05"), false, lint_nocheck,
		is_responder },
	{ "subjectAltName", OID("\x55\x1d\x11"), false, lint_san, must_have_san },
};

/* May the extension be there at all? */
static bool
is_allowed(const struct ca_lint *lint, const struct extension_rule *rule)
{
	if (rule->lint == lint_san)
		return lint->profile->san_count > 0;
	return rule->wanted == NULL || rule->wanted(lint);
}

static enum status
lint_extension(const struct ca_lint *lint, struct der *list, unsigned *seen, struct err *err)
{
	struct view oid, octets;
	struct der one, value;
	size_t index = 0;
	bool critical;

	TRY(der_enter(list, DER_SEQUENCE, "RFC 5280 4.1.2.9: Extension", &one, err));
	TRY(der_oid(&one, "RFC 5280 4.1.2.9: extnID", &oid, err));
	TRY(der_boolean_default_false(&one, "RFC 5280 4.1.2.9: critical", &critical, err));
	TRY(der_octets(&one, "RFC 5280 4.1.2.9: extnValue", &octets, err));
	TRY(der_end(&one, "RFC 5280 4.1.2.9: Extension", err));
	while (index < COUNT_OF(EXTENSIONS) && !view_equal(oid, EXTENSIONS[index].oid))
		index++;
	if (index == COUNT_OF(EXTENSIONS)) {
		char text[64];

		der_oid_text(text, sizeof(text), oid);
		return der_refuse(list, err, "extension %s: the profile does not have it", text);
	}
	if ((*seen & 1u << index) != 0)
		return der_refuse(list, err, "RFC 5280 4.2: extension %s stands twice",
			EXTENSIONS[index].name);
	*seen |= 1u << index;
	if (!is_allowed(lint, &EXTENSIONS[index]))
		return der_refuse(list, err, "extension %s: the profile does not have it",
			EXTENSIONS[index].name);
	if (critical != EXTENSIONS[index].critical)
		return der_refuse(list, err, "RFC 5280 4.2: extension %s: critical %s wanted",
			EXTENSIONS[index].name, EXTENSIONS[index].critical ? "TRUE" : "FALSE");
	value = der_of(octets, list->code, list->what);
	TRY(EXTENSIONS[index].lint(lint, &value, err));
	return der_end(&value, "RFC 5280 4.1.2.9: extnValue", err);
}

static enum status
lint_extensions(const struct ca_lint *lint, struct der *tbs, struct err *err)
{
	struct der tagged, list;
	unsigned seen = 0;

	TRY(der_enter(
		tbs, DER_CONTEXT_CONSTRUCTED(3), "RFC 5280 4.1.2.9: extensions", &tagged, err));
	TRY(der_enter(&tagged, DER_SEQUENCE, "RFC 5280 4.1.2.9: Extensions", &list, err));
	TRY(der_end(&tagged, "RFC 5280 4.1.2.9: extensions", err));
	while (!der_at_end(&list)) /* at most one of each in the table */
		TRY(lint_extension(lint, &list, &seen, err));
	for (size_t i = 0; i < COUNT_OF(EXTENSIONS); i++)
		if (EXTENSIONS[i].wanted != NULL && EXTENSIONS[i].wanted(lint) &&
			(seen & 1u << i) == 0)
			return der_refuse(
				tbs, err, "extension %s: wanted, not found", EXTENSIONS[i].name);
	return OK;
}

/* ---- the fields in front ---- */

static enum status
lint_version_and_serial(const struct ca_lint *lint, struct der *tbs, struct err *err)
{
	struct der version;
	struct view serial;
	uint64_t number;

	TRY(der_enter(tbs, DER_CONTEXT_CONSTRUCTED(0), "RFC 5280 4.1.2.1: version", &version, err));
	TRY(der_number(&version, "RFC 5280 4.1.2.1: version", &number, err));
	TRY(der_end(&version, "RFC 5280 4.1.2.1: version", err));
	if (number != 2)
		return der_refuse(
			tbs, err, "RFC 5280 4.1.2.1: version: 2 wanted, %" PRIu64 " found", number);
	TRY(der_integer(tbs, "RFC 5280 4.1.2.2: serialNumber", &serial, err));
	if (serial.len != 16 || serial.data[0] < 0x01 || serial.data[0] > 0x7f)
		return der_refuse(tbs, err,
			"RFC 5280 4.1.2.2: serialNumber: 16 octets from 01 to 7f"
			" wanted");
	if (!view_equal(
		    serial, (struct view){ lint->serial->octets, sizeof(lint->serial->octets) }))
		return der_refuse(tbs, err, "serialNumber: not the one that was drawn");
	return OK;
}

static enum status
lint_validity(const struct ca_lint *lint, struct der *tbs, struct err *err)
{
	int64_t not_before_s, not_after_s;
	struct der validity;
	struct civil end;

	TRY(der_enter(tbs, DER_SEQUENCE, "RFC 5280 4.1.2.5: validity", &validity, err));
	TRY(der_time(&validity, "RFC 5280 4.1.2.5: notBefore", &not_before_s, err));
	TRY(der_time(&validity, "RFC 5280 4.1.2.5: notAfter", &not_after_s, err));
	TRY(der_end(&validity, "RFC 5280 4.1.2.5: validity", err));
	if (not_after_s <= not_before_s)
		return der_refuse(tbs, err, "RFC 5280 4.1.2.5: validity: empty");
	if (not_after_s > lint->issuer_not_after_s || not_before_s < lint->issuer_not_before_s)
		return der_refuse(tbs, err, "validity: reaches past the issuer's");
	if (not_after_s - not_before_s > lint->profile->validity_max_s + lint->profile->backdate_s)
		return der_refuse(tbs, err, "validity: longer than the profile's");
	end = civil_from_s(not_after_s);
	if (lint->serial->octets[2] * 256 + lint->serial->octets[3] !=
		end.year * 12 + (int64_t)end.month - 1)
		return der_refuse(tbs, err, "serialNumber: another month than notAfter's");
	return OK;
}

enum status
ca_lint_tbs(const struct ca_lint *lint, struct view tbs_der, struct err *err)
{
	struct der in = der_of(tbs_der, "certificate_lint", "tbs"), tbs;
	struct view whole;

	TRY(der_enter(&in, DER_SEQUENCE, "RFC 5280 4.1: TBSCertificate", &tbs, err));
	TRY(der_end(&in, "RFC 5280 4.1: TBSCertificate", err));
	TRY(lint_version_and_serial(lint, &tbs, err));
	TRY(der_take_whole(&tbs, DER_SEQUENCE, "RFC 5280 4.1.2.3: signature", &whole, err));
	if (!view_equal(whole, lint->issuer_algorithm))
		return der_refuse(
			&tbs, err, "RFC 5280 4.1.2.3: signature: not the issuer's algorithm");
	TRY(der_take_whole(&tbs, DER_SEQUENCE, "RFC 5280 4.1.2.4: issuer", &whole, err));
	if (!view_equal(whole, lint->issuer_subject))
		return der_refuse(&tbs, err, "RFC 5280 4.1.2.4: issuer: not the CA's subject");
	TRY(lint_validity(lint, &tbs, err));
	TRY(lint_subject(lint, &tbs, err));
	TRY(der_take_whole(
		&tbs, DER_SEQUENCE, "RFC 5280 4.1.2.7: subjectPublicKeyInfo", &whole, err));
	if (!view_equal(whole, lint->spki))
		return der_refuse(&tbs, err,
			"RFC 5280 4.1.2.7: subjectPublicKeyInfo: not the key that was checked");
	TRY(lint_extensions(lint, &tbs, err)); /* 4.1.2.8: no unique identifiers in between */
	return der_end(&tbs, "RFC 5280 4.1: TBSCertificate", err);
}
