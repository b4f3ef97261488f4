#include "ca/names.h"

#include <arpa/inet.h>
#include <assert.h>
#include <string.h>

#include "ca/utf8.h"

/* Which rules hold for a kind of name: X.520 through RFC 5280 appendix A.1 (ub-common-name, …). */
static const struct ca_rdn_rule RDN_RULES[] = {
	[RDN_CN] = { "CN", "2.5.4.3", DER_UTF8_STRING, 1, 64 },
	[RDN_O] = { "O", "2.5.4.10", DER_UTF8_STRING, 1, 64 },
	[RDN_OU] = { "OU", "2.5.4.11", DER_UTF8_STRING, 1, 64 },
	[RDN_C] = { "C", "2.5.4.6", DER_PRINTABLE_STRING, 2, 2 },
	[RDN_SERIAL_NUMBER] = { "serialNumber", "2.5.4.5", DER_PRINTABLE_STRING, 1, 64 },
	[RDN_L] = { "L", "2.5.4.7", DER_UTF8_STRING, 1, 128 },
	[RDN_ST] = { "ST", "2.5.4.8", DER_UTF8_STRING, 1, 128 },
};

const struct ca_rdn_rule *
ca_rdn_rule(enum ca_rdn_type type)
{
	if ((size_t)type >= COUNT_OF(RDN_RULES) || RDN_RULES[type].label == NULL)
		return NULL;
	return &RDN_RULES[type];
}

/* ---- characters ---- */

/* Characters that Unicode keeps for itself. */
static bool
is_noncharacter(uint32_t c)
{
	return (c & 0xfffe) == 0xfffe || (c >= 0xfdd0 && c <= 0xfdef);
}

bool
ca_text_is_clean(struct view text, size_t *characters)
{
	*characters = 0;
	while (text.len > 0) {
		uint32_t character;
		size_t len = utf8_next(text, &character);

		if (len == 0 || utf8_is_control(character) || is_noncharacter(character))
			return false;
		text.data += len;
		text.len -= len;
		(*characters)++;
	}
	return true;
}

static bool
is_letter(uint8_t c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

static bool
is_digit(uint8_t c)
{
	return c >= '0' && c <= '9';
}

static bool
is_one_of(uint8_t c, const char *set)
{
	return c != 0 && strchr(set, c) != NULL;
}

/* Letters, digits and the characters of set. */
static bool
consists_of(struct view text, const char *set)
{
	for (size_t i = 0; i < text.len; i++) {
		uint8_t c = text.data[i];

		if (!is_letter(c) && !is_digit(c) && !is_one_of(c, set))
			return false;
	}
	return true;
}

/* ---- subject ---- */

static bool
fits_string_type(enum ca_rdn_type type, struct view value)
{
	const struct ca_rdn_rule *rule = ca_rdn_rule(type);

	assert(rule != NULL); /* the profile was checked: there is one for each type */
	if (type == RDN_C) /* ISO 3166 alpha-2 */
		return value.len == 2 && value.data[0] >= 'A' && value.data[0] <= 'Z' &&
		       value.data[1] >= 'A' && value.data[1] <= 'Z';
	if (rule->string == DER_PRINTABLE_STRING) /* X.680 41.4 */
		return consists_of(value, " '()+,-./:=?");
	return true;
}

enum status
ca_rdn_check(enum ca_rdn_type type, struct view value, struct err *err)
{
	const struct ca_rdn_rule *rule = ca_rdn_rule(type);
	size_t characters;

	if (rule == NULL)
		return err_set(
			err, ERR_ARGUMENT, "name_invalid", "subject: an unknown attribute type");
	if (value.len == 0)
		return err_set(
			err, ERR_ARGUMENT, "name_empty", "subject %s: no value", rule->label);
	if (!ca_text_is_clean(value, &characters))
		return err_set(err, ERR_ARGUMENT, "name_invalid",
			"subject %s: UTF-8 without control characters wanted", rule->label);
	if (characters > rule->most)
		return err_set(err, ERR_ARGUMENT, "name_too_long",
			"subject %s: X.520: at most %zu characters wanted, %zu found", rule->label,
			rule->most, characters);
	if (characters < rule->least || !fits_string_type(type, value))
		return err_set(err, ERR_ARGUMENT, "name_invalid", "subject %s: %s wanted",
			rule->label,
			type == RDN_C ? "two capital letters (ISO 3166)"
				      : "letters, digits and ' ()+,-./:=? (PrintableString)");
	return OK;
}

/* ---- alternative names ---- */

#define DNS_NAME_MAX 253 /* RFC 1035 2.3.4, as text */
#define DNS_LABEL_MAX 63

static bool
is_dns_label(struct view label)
{
	return label.len >= 1 && label.len <= DNS_LABEL_MAX && consists_of(label, "-") &&
	       label.data[0] != '-' && label.data[label.len - 1] != '-';
}

static bool
is_number(struct view label)
{
	for (size_t i = 0; i < label.len; i++)
		if (!is_digit(label.data[i]))
			return false;
	return true;
}

/* RFC 1034 3.5 with RFC 1123 2.1. A last label of digits would read as an address. */
static bool
is_dns_name(struct view name)
{
	struct view label = { name.data, 0 };

	for (size_t i = 0; i <= name.len; i++) {
		if (i < name.len && name.data[i] != '.') {
			label.len++;
			continue;
		}
		if (!is_dns_label(label))
			return false;
		if (i < name.len)
			label = (struct view){ name.data + i + 1, 0 };
	}
	return !is_number(label);
}

/* RFC 3986: a scheme, and only characters that may stand in a URI. */
static bool
is_uri(struct view uri)
{
	size_t scheme = 0;

	if (uri.len == 0 || !is_letter(uri.data[0]))
		return false;
	while (scheme < uri.len && uri.data[scheme] != ':')
		scheme++;
	return scheme + 1 < uri.len && consists_of((struct view){ uri.data, scheme }, "+-.") &&
	       consists_of(uri, "-._~:/?#[]@!$&'()*+,;=%");
}

/* RFC 5321 4.1.2: a dot-string in front of the @. */
static bool
is_mailbox(struct view mail)
{
	const uint8_t *at = mail.len > 0 ? memchr(mail.data, '@', mail.len) : NULL;
	struct view local, domain;

	if (at == NULL)
		return false;
	local = (struct view){ mail.data, (size_t)(at - mail.data) };
	domain = (struct view){ at + 1, mail.len - local.len - 1 };
	if (local.len < 1 || local.len > 64 || !consists_of(local, ".!#$%&'*+-/=?^_`{|}~") ||
		local.data[0] == '.' || local.data[local.len - 1] == '.')
		return false;
	for (size_t i = 1; i < local.len; i++)
		if (local.data[i] == '.' && local.data[i - 1] == '.')
			return false;
	return domain.len <= DNS_NAME_MAX && is_dns_name(domain);
}

/* The octets of an address (RFC 5280 4.2.1.6: iPAddress), 4 or 16; 0: it is none. */
static size_t
read_address(uint8_t out[16], struct view value)
{
	char text[INET6_ADDRSTRLEN];

	if (value.len >= sizeof(text) || memchr(value.data, 0, value.len) != NULL)
		return 0;
	memcpy(text, value.data, value.len);
	text[value.len] = '\0';
	if (inet_pton(AF_INET, text, out) == 1)
		return 4;
	return inet_pton(AF_INET6, text, out) == 1 ? 16 : 0;
}

struct san_rule {
	const char *label;
	unsigned tag;
	size_t most;
	bool (*fits)(struct view value); /* NULL: an address */
	const char *wanted;
};

static const struct san_rule SAN_RULES[] = {
	[SAN_DNS] = { "DNS", DER_CONTEXT(2), DNS_NAME_MAX, is_dns_name, "a host name" },
	[SAN_IP] = { "IP", DER_CONTEXT(7), INET6_ADDRSTRLEN - 1, NULL, "an IPv4 or IPv6 address" },
	[SAN_URI] = { "URI", DER_CONTEXT(6), 1024, is_uri, "a URI with a scheme, in ASCII" },
	[SAN_EMAIL] = { "email", DER_CONTEXT(1), 254, is_mailbox, "a mailbox" },
};

enum status
ca_san_put(struct der_writer *w, enum ca_san_type type, struct view value, struct err *err)
{
	const struct san_rule *rule;
	uint8_t address[16];

	if (type == SAN_UNSET || (size_t)type >= COUNT_OF(SAN_RULES))
		return err_set(err, ERR_ARGUMENT, "name_invalid", "san: an unknown type of name");
	rule = &SAN_RULES[type];
	if (value.len == 0)
		return err_set(err, ERR_ARGUMENT, "name_empty", "san %s: no value", rule->label);
	if (value.len > rule->most)
		return err_set(err, ERR_ARGUMENT, "name_too_long",
			"san %s: at most %zu octets wanted, %zu found", rule->label, rule->most,
			value.len);
	if (rule->fits == NULL) {
		size_t len = read_address(address, value);

		value = (struct view){ address, len };
	}
	if (value.len == 0 || (rule->fits != NULL && !rule->fits(value)))
		return err_set(err, ERR_ARGUMENT, "name_invalid", "san %s: %s wanted", rule->label,
			rule->wanted);
	der_put(w, rule->tag, value);
	return OK;
}
