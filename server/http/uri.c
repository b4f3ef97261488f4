#include <string.h>

#include "server/http/internal.h"

static int
hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* RFC 3629 4: no overlong forms, no surrogates, nothing above U+10FFFF. */
bool
utf8_valid(const uint8_t *data, size_t len)
{
	for (size_t i = 0; i < len;) {
		uint8_t first = data[i];
		size_t more = first < 0x80 ? 0 : first < 0xe0 ? 1 : first < 0xf0 ? 2 : 3;
		uint32_t least = more == 1 ? 0x80 : more == 2 ? 0x800 : 0x10000;
		uint32_t point;

		if (more == 0) {
			i++;
			continue;
		}
		if (first < 0xc2 || first > 0xf4 || len - i <= more)
			return false;
		point = first & (0x3fu >> more);
		for (size_t k = 1; k <= more; k++) {
			if ((data[i + k] & 0xc0) != 0x80)
				return false;
			point = point << 6 | (data[i + k] & 0x3fu);
		}
		if (point < least || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff))
			return false;
		i += more + 1;
	}
	return true;
}

/* RFC 3986 2.1. What may stand there unencoded is not policed, but no control character stands. */
bool
uri_decode(char *text, bool plus_is_space)
{
	char *out = text;

	for (const char *in = text; *in != '\0'; in++) {
		char c = *in;

		if (c == '%') {
			int high = hex_value(in[1]);
			int low = high < 0 ? -1 : hex_value(in[2]);

			if (low < 0)
				return false;
			c = (char)(high * 16 + low);
			in += 2;
		} else if (c == '+' && plus_is_space) {
			c = ' ';
		}
		if ((unsigned char)c < 0x20 || c == 0x7f)
			return false;
		*out++ = c;
	}
	*out = '\0';
	return utf8_valid((const uint8_t *)text, strlen(text));
}

static bool
is_allowed(const char *name, const char *const *allowed)
{
	for (; allowed != NULL && *allowed != NULL; allowed++)
		if (strcmp(*allowed, name) == 0)
			return true;
	return false;
}

enum status
uri_query(char *query, const char *const *allowed, bool lenient, struct pair *out, size_t *count,
	struct err *err)
{
	char *rest = query;

	*count = 0;
	while (rest != NULL && *rest != '\0') {
		char *name = rest;
		char *value;

		rest = strchr(name, '&');
		if (rest != NULL)
			*rest++ = '\0';
		if (*name == '\0')
			continue;
		value = strchr(name, '=');
		if (value != NULL)
			*value++ = '\0';
		if (!uri_decode(name, true) || (value != NULL && !uri_decode(value, true)))
			return err_set(err, ERR_ARGUMENT, "query_malformed",
				"query: percent-encoded UTF-8 without control characters wanted");
		if (lenient && !is_allowed(name, allowed))
			continue;
		if (!is_allowed(name, allowed))
			return err_set(err, ERR_ARGUMENT, "query_unknown",
				"query: a parameter is not known here: %.64s", name);
		for (size_t i = 0; i < *count; i++)
			if (strcmp(out[i].name, name) == 0)
				return err_set(err, ERR_ARGUMENT, "query_repeated",
					"query: %.64s: stands there twice", name);
		/* Names differ and are of the route's list, so the list bounds the count. */
		if (*count == QUERY_MAX)
			return err_set(err, ERR_INTERNAL, "query_table",
				"a route allows over %d parameters", QUERY_MAX);
		out[(*count)++] =
			(struct pair){ .name = name, .value = value != NULL ? value : "" };
	}
	return OK;
}
