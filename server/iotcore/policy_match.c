#include <string.h>

#include "server/iotcore/policy_internal.h"

#define NO_MATCH SIZE_MAX

/* Wildcards of policies and of MQTT, and the variable's own sign: AWS leaves such values alone. */
static bool
is_odd(uint8_t c)
{
	return c == '*' || c == '?' || c == '$' || c == '+' || c == '#';
}

/* In certificates, so that a value cannot be taken for two (RFC 2253 2.4). */
static bool
is_escaped(uint8_t c)
{
	return c == ',' || c == '"' || c == '\\' || c == '+' || c == '=' || c == '<' || c == '>' ||
	       c == ';';
}

struct policy_value
policy_value_of(struct view text, bool escape)
{
	struct policy_value value = { .text = text, .state = POLICY_VALUE_PLAIN };

	if (text.len > POLICY_VALUE_MAX_BYTES)
		value.state = POLICY_VALUE_ODD;
	for (size_t i = 0; i < text.len && value.state != POLICY_VALUE_ODD; i++) {
		if (is_odd(text.data[i]))
			value.state = POLICY_VALUE_ODD;
		else if (escape && is_escaped(text.data[i]))
			value.state = POLICY_VALUE_ESCAPED;
	}
	return value;
}

static uint8_t
octet_at(const struct policy_resource *text, size_t at)
{
	return at < text->head.len ? text->head.data[at] : text->name.data[at - text->head.len];
}

static uint8_t
lower(uint8_t c)
{
	return c >= 'A' && c <= 'Z' ? (uint8_t)(c | 0x20) : c;
}

/* Whether want stands at that place of head ‖ name. */
static bool
stands_at(const struct policy_resource *text, size_t at, struct view want)
{
	size_t skip = 0;

	if (at < text->head.len) {
		skip = text->head.len - at < want.len ? text->head.len - at : want.len;
		if (memcmp(text->head.data + at, want.data, skip) != 0)
			return false;
	}
	if (skip == want.len)
		return true;
	return memcmp(text->name.data + (at + skip - text->head.len), want.data + skip,
		       want.len - skip) == 0;
}

static bool
stands_at_fold(const struct policy_resource *text, size_t at, struct view want)
{
	for (size_t i = 0; i < want.len; i++) {
		if (lower(octet_at(text, at + i)) != lower(want.data[i]))
			return false;
	}
	return true;
}

/* How many octets of text the want takes when it is escaped, or NO_MATCH. */
static size_t
take_escaped(const struct policy_resource *text, size_t at, size_t len, struct view want, bool fold)
{
	size_t t = at;

	for (size_t i = 0; i < want.len; i++) {
		uint8_t c = want.data[i];

		if (is_escaped(c) && (t >= len || octet_at(text, t++) != '\\'))
			return NO_MATCH;
		if (t >= len)
			return NO_MATCH;
		if (octet_at(text, t) != c && !(fold && lower(octet_at(text, t)) == lower(c)))
			return NO_MATCH;
		t++;
	}
	return t - at;
}

static size_t
take_text(const struct policy_resource *text, size_t at, size_t len, struct view want, bool fold)
{
	if (want.len > len - at)
		return NO_MATCH;
	if (fold)
		return stands_at_fold(text, at, want) ? want.len : NO_MATCH;
	return stands_at(text, at, want) ? want.len : NO_MATCH;
}

/* One character: an octet and what continues it in UTF-8 (RFC 3629 section 3). */
static size_t
take_one(const struct policy_resource *text, size_t at, size_t len)
{
	size_t t = at + 1;

	if (at >= len)
		return NO_MATCH;
	while (t < len && t - at < 4 && (octet_at(text, t) & 0xc0) == 0x80)
		t++;
	return t - at;
}

static size_t
take(const struct policy_piece *piece, bool fold, const struct policy_resource *text, size_t at,
	size_t len, const struct policy_value *values)
{
	const struct policy_value *value;

	switch (piece->kind) {
	case POLICY_PIECE_TEXT: return take_text(text, at, len, piece->text, fold);
	case POLICY_PIECE_ONE: return take_one(text, at, len);
	case POLICY_PIECE_MANY: break;
	case POLICY_PIECE_VARIABLE:
		value = &values[piece->variable];
		if (value->state == POLICY_VALUE_PLAIN)
			return take_text(text, at, len, value->text, fold);
		if (value->state == POLICY_VALUE_ESCAPED)
			return take_escaped(text, at, len, value->text, fold);
		break;
	}
	return NO_MATCH;
}

static size_t
piece_len(const struct policy_piece *piece, const struct policy_value *values)
{
	return piece->kind == POLICY_PIECE_VARIABLE ? values[piece->variable].text.len
	                                            : piece->text.len;
}

/*
 * The next place from at on where piece may fit, so that most places are not tried: the first octet
 * of a literal. len + 1: there is none.
 */
static size_t
next_place(const struct policy_piece *piece, bool fold, const struct policy_resource *text,
	size_t at, size_t len)
{
	const uint8_t *found = NULL;

	if (piece->kind != POLICY_PIECE_TEXT || fold || at >= len)
		return at;
	if (at < text->head.len) {
		found = memchr(text->head.data + at, piece->text.data[0], text->head.len - at);
		if (found != NULL)
			return (size_t)(found - text->head.data);
		at = text->head.len;
	}
	if (at < len)
		found = memchr(
			text->name.data + (at - text->head.len), piece->text.data[0], len - at);
	return found != NULL ? (size_t)(found - text->name.data) + text->head.len : len + 1;
}

/*
 * When a piece does not fit, the last "*" takes one octet more; those before it need not be tried
 * again, for what they took was the shortest that let the pieces between fit. Where the last "*"
 * begins only moves on, so there are at most len + 1 rounds over the pattern.
 */
bool
policy_match(const struct policy_pattern *pattern, struct policy_resource text,
	const struct policy_value *values, size_t *steps)
{
	const size_t len = text.head.len + text.name.len;
	const size_t none = pattern->count;
	size_t many = none; /* the last "*" */
	size_t many_at = 0; /* where what follows it was last tried */
	size_t p = 0, at = 0, taken;

	for (;;) {
		if (p < pattern->count && pattern->pieces[p].kind == POLICY_PIECE_MANY) {
			if (p + 1 == pattern->count)
				return true;
			many = p++;
			many_at = at =
				next_place(&pattern->pieces[p], pattern->fold, &text, at, len);
			if (at > len)
				return false;
			continue;
		}
		if (p == pattern->count && at == len)
			return true;
		if (p < pattern->count) {
			const struct policy_piece *piece = &pattern->pieces[p];

			if (steps != NULL)
				*steps += 1 + piece_len(piece, values);
			taken = take(piece, pattern->fold, &text, at, len, values);
			if (taken != NO_MATCH) {
				at += taken;
				p++;
				continue;
			}
		}
		if (many == none || many_at == len)
			return false;
		p = many + 1;
		many_at = at =
			next_place(&pattern->pieces[p], pattern->fold, &text, many_at + 1, len);
		if (at > len)
			return false;
	}
}
