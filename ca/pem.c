#include "ca/pem.h"

#include <string.h>

#include <sodium.h>

#include "base/mem.h"

#define BEGIN "-----BEGIN "
#define END "-----END "
#define DASHES "-----"

static enum status
malformed(struct err *err, const char *what)
{
	return err_set(err, ERR_ARGUMENT, "pem_malformed", "PEM: RFC 7468 3: %s", what);
}

static bool
is_space(uint8_t c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static void
skip(struct view *rest, size_t len)
{
	rest->data += len;
	rest->len -= len;
}

static void
skip_space(struct view *rest)
{
	while (rest->len > 0 && is_space(rest->data[0]))
		skip(rest, 1);
}

static bool
skip_text(struct view *rest, const char *text)
{
	size_t len = strlen(text);

	if (rest->len < len || memcmp(rest->data, text, len) != 0)
		return false;
	skip(rest, len);
	return true;
}

/* The octets before the next occurrence of text, which is skipped too. */
static bool
until(struct view *rest, const char *text, struct view *before)
{
	const uint8_t *at =
		rest->len > 0 ? memmem(rest->data, rest->len, text, strlen(text)) : NULL;

	if (at == NULL)
		return false;
	*before = (struct view){ rest->data, (size_t)(at - rest->data) };
	skip(rest, before->len + strlen(text));
	return true;
}

/* RFC 7468 3: labelchar is printable and no hyphen; words are joined by one space. */
static bool
is_label(struct view label)
{
	if (label.len == 0 || label.len >= PEM_LABEL_BYTES)
		return false;
	for (size_t i = 0; i < label.len; i++) {
		if (label.data[i] < ' ' || label.data[i] > '~' || label.data[i] == '-')
			return false;
	}
	return label.data[0] != ' ' && label.data[label.len - 1] != ' ';
}

/* One block that begins right here. */
static enum status
take_block(struct view *rest, struct view *label, struct view *body, struct err *err)
{
	struct view end_label;

	if (!skip_text(rest, BEGIN))
		return malformed(err, "a BEGIN line wanted");
	if (!until(rest, DASHES, label) || !is_label(*label))
		return malformed(err, "a label wanted in the BEGIN line");
	if (rest->len == 0 || !is_space(rest->data[0]))
		return malformed(err, "a line's end wanted behind BEGIN");
	if (!until(rest, END, body))
		return malformed(err, "an END line wanted");
	if (!until(rest, DASHES, &end_label) || !view_equal(*label, end_label))
		return malformed(err, "the label of BEGIN wanted in the END line");
	return OK;
}

enum status
ca_pem_one(struct view pem, struct view *label, struct view *body, struct err *err)
{
	skip_space(&pem);
	TRY(take_block(&pem, label, body, err));
	skip_space(&pem);
	if (pem.len > 0)
		return malformed(err, "nothing but white space wanted behind the one block");
	return OK;
}

/* What a character stands for; what is no character of base64 has bits of NOT_DIGIT. */
#define SPACE 64
#define PAD 65
#define NOT_DIGIT 0xc0u
static uint8_t
digit_of(uint8_t c)
{
	/* One more than the digit, so that all others are zero. */
#define FOUR(c, digit)                                                                             \
	[c] = (digit) + 1, [(c) + 1] = (digit) + 2, [(c) + 2] = (digit) + 3, [(c) + 3] = (digit) + 4
	static const uint8_t DIGITS[256] = {
		FOUR('A', 0), FOUR('E', 4), FOUR('I', 8), FOUR('M', 12), FOUR('Q', 16),
		FOUR('U', 20), ['Y'] = 25, ['Z'] = 26, FOUR('a', 26), FOUR('e', 30), FOUR('i', 34),
		FOUR('m', 38), FOUR('q', 42), FOUR('u', 46), ['y'] = 51, ['z'] = 52, FOUR('0', 52),
		FOUR('4', 56), ['8'] = 61, ['9'] = 62, ['+'] = 63, ['/'] = 64,
	};
#undef FOUR

	return (uint8_t)(DIGITS[c] - 1); /* 255 for all others */
}

static uint8_t
kind_of(uint8_t c)
{
	uint8_t digit = digit_of(c);

	if ((digit & NOT_DIGIT) == 0)
		return digit;
	if (c == '=')
		return PAD;
	return is_space(c) ? SPACE : digit;
}

/* Whole groups of four digits, as nearly all of a block is: how many octets of body. */
static size_t
take_groups(uint8_t *out, size_t capacity, size_t *len, struct view body)
{
	const uint8_t *at = body.data, *end = body.data + body.len;

	for (; end - at >= 4 && capacity - *len >= 3; at += 4) {
		uint32_t a = digit_of(at[0]), b = digit_of(at[1]), c = digit_of(at[2]),
			 d = digit_of(at[3]);
		uint32_t group = a << 18 | b << 12 | c << 6 | d;

		if (((a | b | c | d) & NOT_DIGIT) != 0)
			break;
		out[(*len)++] = (uint8_t)(group >> 16);
		out[(*len)++] = (uint8_t)(group >> 8);
		out[(*len)++] = (uint8_t)group;
	}
	return (size_t)(at - body.data);
}

enum status
ca_pem_body(uint8_t *out, size_t capacity, size_t *len, struct view body, struct err *err)
{
	uint32_t group = 0;
	unsigned digits = 0, pads = 0; /* digits: in all, modulo 4, pads included */

	*len = 0;
	while (body.len > 0) {
		uint8_t digit;

		if (digits == 0 && pads == 0) {
			skip(&body, take_groups(out, capacity, len, body));
			if (body.len == 0)
				break;
		}
		digit = kind_of(body.data[0]);
		skip(&body, 1);
		if (digit == SPACE)
			continue;
		if (digit == PAD)
			pads++;
		if (digit > PAD || (pads > 0 && digit != PAD) || pads > 2)
			return malformed(err, "base64 wanted between BEGIN and END");
		group = group << 6 | (digit & 63u) * (digit != PAD);
		if (++digits < 4)
			continue;
		/* RFC 4648 3.5: bits that encode nothing are zero. */
		if ((pads == 1 && (group & 0xff) != 0) || (pads == 2 && (group & 0xffff) != 0))
			return malformed(err, "base64 whose unused bits are zero wanted");
		if (*len + (3 - pads) > capacity)
			return err_set(err, ERR_TOO_LARGE, "pem_too_large",
				"PEM: at most %zu octets wanted in the block", capacity);
		for (unsigned octet = 0; octet < 3 - pads; octet++)
			out[(*len)++] = (uint8_t)(group >> (16 - 8 * octet));
		group = 0;
		digits = 0;
	}
	if (digits != 0)
		return malformed(err, "base64 in whole groups of four wanted");
	if (*len == 0)
		return malformed(err, "an empty block");
	return OK;
}

static enum status
body_bytes(struct bytes *out, struct view body, struct err *err)
{
	size_t capacity = body.len / 4 * 3 + 3;
	own_struct(bytes) octets = { mem_alloc(capacity), 0 };

	if (octets.data == NULL)
		return err_memory(err);
	TRY(ca_pem_body(octets.data, capacity, &octets.len, body, err));
	*out = give_struct(octets);
	return OK;
}

enum status
ca_pem_decode(struct bytes *out, const char *label, struct view pem, struct err *err)
{
	struct view found, body;

	TRY(ca_pem_one(pem, &found, &body, err));
	if (!view_equal_text(found, label))
		return err_set(err, ERR_ARGUMENT, "pem_malformed",
			"PEM: label %s wanted, %.*s found", label, (int)found.len,
			(const char *)found.data);
	return body_bytes(out, body, err);
}

enum status
ca_pem_each(struct view pem,
	enum status (*block)(void *arg, const char *label, struct view der, struct err *err),
	void *arg, struct err *err)
{
	struct view label, body, skipped;
	char text[PEM_LABEL_BYTES];

	while (until(&pem, BEGIN, &skipped)) {
		own_struct(bytes) der = { NULL, 0 };

		pem.data -= strlen(BEGIN); /* back onto the BEGIN that was found */
		pem.len += strlen(BEGIN);
		TRY(take_block(&pem, &label, &body, err));
		TRY(body_bytes(&der, body, err));
		memcpy(text, label.data, label.len);
		text[label.len] = '\0';
		TRY(block(arg, text, view_of(&der), err));
	}
	return OK;
}

#define LINE_OCTETS 48 /* 64 digits; RFC 7468 2 */

/* By a table, which is several times as fast as what takes the same time for all octets. */
static size_t
public_base64(char *out, const uint8_t *octets, size_t len)
{
	static const char DIGITS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	char *at = out;

	for (; len >= 3; octets += 3, len -= 3) {
		*at++ = DIGITS[octets[0] >> 2];
		*at++ = DIGITS[(octets[0] & 3) << 4 | octets[1] >> 4];
		*at++ = DIGITS[(octets[1] & 15) << 2 | octets[2] >> 6];
		*at++ = DIGITS[octets[2] & 63];
	}
	if (len > 0) {
		uint8_t second = len > 1 ? octets[1] : 0;

		*at++ = DIGITS[octets[0] >> 2];
		*at++ = DIGITS[(octets[0] & 3) << 4 | second >> 4];
		*at++ = len > 1 ? DIGITS[(second & 15) << 2] : '=';
		*at++ = '=';
	}
	return (size_t)(at - out);
}

static size_t
secret_base64(char *out, size_t size, const uint8_t *octets, size_t len)
{
	(void)sodium_bin2base64(out, size, octets, len, sodium_base64_VARIANT_ORIGINAL);
	return strlen(out);
}

enum status
ca_pem_encode(struct buf *out, const char *label, struct view der, struct err *err)
{
	const bool secret = strstr(label, "KEY") != NULL;
	char line[LINE_OCTETS / 3 * 4 + 2];

	TRY(buf_reserve(
		out, der.len / 3 * 4 + der.len / LINE_OCTETS + 2 * strlen(label) + 64, err));
	TRY(buf_text(out, BEGIN, err));
	TRY(buf_text(out, label, err));
	TRY(buf_text(out, DASHES "\n", err));
	for (size_t at = 0; at < der.len; at += LINE_OCTETS) {
		size_t octets = der.len - at < LINE_OCTETS ? der.len - at : LINE_OCTETS;
		size_t len = secret ? secret_base64(line, sizeof(line), der.data + at, octets) :
			public_base64(line, der.data + at, octets);

		line[len] = '\n';
		TRY(buf_add(out, line, len + 1, err));
	}
	TRY(buf_text(out, END, err));
	TRY(buf_text(out, label, err));
	return buf_text(out, DASHES "\n", err);
}
