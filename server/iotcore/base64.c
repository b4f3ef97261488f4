#include <string.h>

#include "server/iotcore/internal.h"

static const char DIGITS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void
base64_encode(char *out, const uint8_t *data, size_t len)
{
	for (size_t i = 0; i < len; i += 3) {
		uint32_t group = (uint32_t)data[i] << 16;

		group |= i + 1 < len ? (uint32_t)data[i + 1] << 8 : 0;
		group |= i + 2 < len ? data[i + 2] : 0;
		*out++ = DIGITS[group >> 18];
		*out++ = DIGITS[group >> 12 & 63];
		*out++ = i + 1 < len ? DIGITS[group >> 6 & 63] : '=';
		*out++ = i + 2 < len ? DIGITS[group & 63] : '=';
	}
	*out = '\0';
}

static int
value_of(char c)
{
	const char *at = c != '\0' ? strchr(DIGITS, c) : NULL;

	return at != NULL ? (int)(at - DIGITS) : -1;
}

bool
base64_decode(uint8_t *out, size_t capacity, size_t *len, const char *text)
{
	size_t digits = strlen(text);

	*len = 0;
	if (digits % 4 != 0)
		return false;
	for (size_t i = 0; i < digits; i += 4) {
		bool last = i + 4 == digits;
		unsigned padding = !last ? 0 : text[i + 2] == '=' ? 2 : text[i + 3] == '=' ? 1 : 0;
		uint32_t group = 0;

		for (unsigned k = 0; k < 4; k++) {
			int value = k < 4 - padding ? value_of(text[i + k]) : 0;

			if (value < 0 || (k >= 4 - padding && text[i + k] != '='))
				return false;
			group = group << 6 | (uint32_t)value;
		}
		/* RFC 4648 3.5: bits that stand for nothing are zero, so that one text has one
		 * form. */
		if ((padding == 1 && (group & 0xff) != 0) ||
			(padding == 2 && (group & 0xffff) != 0))
			return false;
		for (unsigned k = 0; k < 3 - padding; k++) {
			if (*len == capacity)
				return false;
			out[(*len)++] = (uint8_t)(group >> (16 - 8 * k));
		}
	}
	return true;
}
