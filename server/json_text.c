#include "server/json_text.h"

#include <string.h>

static bool
must_escape(uint8_t octet)
{
	return octet < 0x20 || octet == '"' || octet == '\\';
}

#define EACH_OCTET(octet) (UINT64_C(0x0101010101010101) * (octet))

/* Whether one of eight octets may have to be escaped: it may also say so for the one behind such an octet. */
static bool
some_escape(const uint8_t *octets)
{
	uint64_t word, quote, slash;

	memcpy(&word, octets, sizeof(word));
	quote = word ^ EACH_OCTET('"');
	slash = word ^ EACH_OCTET('\\');
	return (((word - EACH_OCTET(0x20)) & ~word) | ((quote - EACH_OCTET(1)) & ~quote) |
		((slash - EACH_OCTET(1)) & ~slash)) & EACH_OCTET(0x80);
}

/* How many octets from at on need no escaping. */
static size_t
plain_len(struct view text, size_t at)
{
	size_t end = at;

	while (text.len - end >= 8 && !some_escape(text.data + end))
		end += 8;
	while (end < text.len && !must_escape(text.data[end]))
		end++;
	return end - at;
}

static enum status
put_escaped(struct buf *out, uint8_t octet, struct err *err)
{
	switch (octet) {
	case '"': return buf_add(out, "\\\"", 2, err);
	case '\\': return buf_add(out, "\\\\", 2, err);
	case '\n': return buf_add(out, "\\n", 2, err);
	case '\r': return buf_add(out, "\\r", 2, err);
	case '\t': return buf_add(out, "\\t", 2, err);
	default: return buf_format(out, err, "\\u%04x", octet);
	}
}

enum status
json_text_string(struct buf *out, struct view text, struct err *err)
{
	TRY(buf_reserve(out, text.len + 2, err));
	TRY(buf_add(out, "\"", 1, err));
	for (size_t at = 0; at < text.len; at++) {
		size_t plain = plain_len(text, at);

		if (plain > 0)
			TRY(buf_add(out, text.data + at, plain, err));
		at += plain;
		if (at < text.len)
			TRY(put_escaped(out, text.data[at], err));
	}
	return buf_add(out, "\"", 1, err);
}

struct view
json_text_optional(const char *text)
{
	return text != NULL ? view_text(text) : (struct view){ NULL, 0 };
}

enum status
json_text_pairs(struct buf *out, const struct json_pair *pairs, size_t count, struct err *err)
{
	const char *before = "\"";

	for (size_t i = 0; i < count; i++) {
		if (pairs[i].value.data == NULL && !pairs[i].null)
			continue;
		TRY(buf_text(out, before, err));
		TRY(buf_text(out, pairs[i].name, err));
		TRY(buf_text(out, pairs[i].null ? "\":null" : "\":", err));
		if (!pairs[i].null)
			TRY(json_text_string(out, pairs[i].value, err));
		before = ",\"";
	}
	return OK;
}

enum status
json_text_object(struct buf *out, const struct json_pair *pairs, size_t count, struct err *err)
{
	TRY(buf_text(out, "{", err));
	TRY(json_text_pairs(out, pairs, count, err));
	return buf_text(out, "}", err);
}
