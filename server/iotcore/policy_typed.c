/* Texts that have a type: numbers, dates, booleans, addresses and networks, base64. */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "base/clock.h"
#include "server/iotcore/policy_internal.h"

static bool
is_digit(uint8_t c)
{
	return c >= '0' && c <= '9';
}

/* [-+]digits[.digits]; 15 digits fit a double's mantissa, so equal decimals are equal doubles. */
static bool
number_parse(double *out, struct view text)
{
	double mantissa = 0, scale = 1;
	size_t i = text.len > 0 && (text.data[0] == '-' || text.data[0] == '+') ? 1 : 0;
	size_t digits = 0, fraction = 0;
	bool point = false;

	for (; i < text.len; i++) {
		if (text.data[i] == '.' && !point && digits > 0) {
			point = true;
			continue;
		}
		if (!is_digit(text.data[i]) || ++digits > 15)
			return false;
		mantissa = mantissa * 10 + (text.data[i] - '0');
		if (point) {
			scale *= 10;
			fraction++;
		}
	}
	if (digits == 0 || (point && fraction == 0))
		return false;
	*out = text.data[0] == '-' ? -(mantissa / scale) : mantissa / scale;
	return true;
}

/* Seconds since the epoch, or the forms of W3C's ISO 8601 profile down from the day. */
static bool
date_parse(int64_t *out, struct view text)
{
	char full[POLICY_TYPED_MAX_BYTES];
	const char *at = (const char *)text.data;
	double seconds;
	int len;

	if (number_parse(&seconds, text)) {
		*out = (int64_t)seconds;
		return true;
	}
	if (text.len > POLICY_TYPED_MAX_BYTES)
		return false;
	if (text.len == strlen("2026-11-24"))
		len = snprintf(full, sizeof(full), "%.10sT00:00:00Z", at);
	else if (text.len > 16 && at[13] == ':' && at[16] != ':') /* 2026-11-24T16:00Z */
		len = snprintf(full, sizeof(full), "%.16s:00%.*s", at, (int)text.len - 16, at + 16);
	else
		return time_parse(out, text);
	if (len < 0 || len >= (int)sizeof(full))
		return false;
	return time_parse(out, (struct view){ (const uint8_t *)full, (size_t)len });
}

static bool
bool_parse(bool *out, struct view text)
{
	*out = text.len == 4 && strncasecmp((const char *)text.data, "true", 4) == 0;
	return *out || (text.len == 5 && strncasecmp((const char *)text.data, "false", 5) == 0);
}

/* The octets of an address, 4 or 16; 0: none. IPv4-mapped ones are IPv4 (RFC 4291 2.5.5.2). */
uint8_t
policy_address_octets(uint8_t out[16], struct view text)
{
	static const uint8_t MAPPED[12] = { [10] = 0xff, [11] = 0xff };
	char zero[POLICY_ADDRESS_TEXT_BYTES];

	if (text.len == 0 || text.len >= sizeof(zero) || memchr(text.data, '\0', text.len) != NULL)
		return 0;
	memcpy(zero, text.data, text.len);
	zero[text.len] = '\0';
	memset(out, 0, 16);
	if (inet_pton(AF_INET, zero, out) == 1)
		return 4;
	if (inet_pton(AF_INET6, zero, out) != 1)
		return 0;
	if (memcmp(out, MAPPED, sizeof(MAPPED)) != 0)
		return 16;
	memmove(out, out + 12, 4);
	memset(out + 4, 0, 12);
	return 4;
}

bool
policy_address_parse(struct policy_address *out, struct view text)
{
	*out = (struct policy_address){ 0 };
	out->len = policy_address_octets(out->octets, text);
	if (out->len == 0 || inet_ntop(out->len == 4 ? AF_INET : AF_INET6, out->octets, out->text,
				     sizeof(out->text)) == NULL) {
		*out = (struct policy_address){ 0 };
		return false;
	}
	out->text_len = (uint8_t)strlen(out->text);
	return true;
}

/* address[/bits]; RFC 4632 3.1. Octets behind the prefix do not count. */
static bool
network_parse(struct policy_network *out, struct view text)
{
	const uint8_t *slash = text.len > 0 ? memchr(text.data, '/', text.len) : NULL;
	struct view address = text;
	unsigned bits = 0;

	if (slash != NULL)
		address.len = (size_t)(slash - text.data);
	out->len = policy_address_octets(out->octets, address);
	if (out->len == 0)
		return false;
	/* A mapped network would need its bits translated; nobody writes one. */
	if (out->len == 4 && memchr(address.data, ':', address.len) != NULL)
		return false;
	out->prefix = (uint8_t)(out->len * 8);
	if (slash == NULL)
		return true;
	size_t digits = text.len - address.len - 1;

	if (digits == 0 || digits > 3)
		return false;
	for (size_t i = 1; i <= digits; i++) {
		if (!is_digit(slash[i]))
			return false;
		bits = bits * 10 + (unsigned)(slash[i] - '0');
	}
	if (bits > out->len * 8u)
		return false;
	out->prefix = (uint8_t)bits;
	return true;
}

bool
policy_typed_parse(struct policy_typed *out, enum policy_operand_kind kind, struct view text)
{
	switch (kind) {
	case POLICY_OPERAND_NUMBER: return number_parse(&out->number, text);
	case POLICY_OPERAND_DATE: return date_parse(&out->date_s, text);
	case POLICY_OPERAND_BOOL:
	case POLICY_OPERAND_NULL: return bool_parse(&out->truth, text);
	case POLICY_OPERAND_ADDRESS: return network_parse(&out->network, text);
	case POLICY_OPERAND_STRING:
	case POLICY_OPERAND_STRING_FOLD:
	case POLICY_OPERAND_STRING_LIKE:
	case POLICY_OPERAND_ARN:
	case POLICY_OPERAND_BINARY: break;
	}
	return false;
}

static int
base64_digit(uint8_t c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (is_digit(c))
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

bool
policy_base64_decode(uint8_t *out, size_t *len, struct view text)
{
	size_t padding = 0, count = 0;
	uint32_t bits = 0;

	while (padding < 2 && padding < text.len && text.data[text.len - 1 - padding] == '=')
		padding++;
	if (text.len % 4 != 0)
		return false;
	for (size_t i = 0; i < text.len; i++) {
		int digit = i < text.len - padding ? base64_digit(text.data[i]) : 0;

		if (digit < 0)
			return false;
		bits = bits << 6 | (uint32_t)digit;
		if (i % 4 != 3)
			continue;
		for (unsigned shift = 16; count < text.len / 4 * 3 && shift <= 16; shift -= 8)
			out[count++] = (uint8_t)(bits >> shift);
		bits = 0;
	}
	/* One octet string, one text: bits under the padding are zero. */
	for (; padding > 0; padding--) {
		if (out[--count] != 0)
			return false;
	}
	*len = count;
	return true;
}
