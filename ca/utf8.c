#include "ca/utf8.h"

size_t
utf8_next(struct view rest, uint32_t *code)
{
	static const uint32_t LEAST[] = { 0, 0, 0x80, 0x800, 0x10000 };
	uint8_t first;
	size_t count;

	if (rest.len == 0)
		return 0;
	first = rest.data[0];
	if (first < 0x80) {
		*code = first;
		return 1;
	}
	count = first >= 0xf0 ? 4 : first >= 0xe0 ? 3 : 2;
	if (first < 0xc2 || first > 0xf4 || rest.len < count)
		return 0;
	*code = first & (0x7fu >> count);
	for (size_t i = 1; i < count; i++) {
		if ((rest.data[i] & 0xc0) != 0x80)
			return 0;
		*code = *code << 6 | (rest.data[i] & 0x3fu);
	}
	/* RFC 3629 3: shortest form, no surrogates */
	if (*code < LEAST[count] || *code > 0x10ffff || (*code >= 0xd800 && *code <= 0xdfff))
		return 0;
	return count;
}

bool
utf8_is_control(uint32_t code)
{
	return code < 0x20 || (code >= 0x7f && code <= 0x9f) || code == 0x2028 || code == 0x2029 ||
	       (code >= 0x202a && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069) ||
	       code == 0x200e || code == 0x200f || code == 0xfeff;
}

bool
utf8_is_printable(struct view text, size_t max)
{
	size_t characters = 0;

	while (text.len > 0) {
		uint32_t code = 0;
		size_t octets = utf8_next(text, &code);

		if (octets == 0 || utf8_is_control(code) || ++characters > max)
			return false;
		text.data += octets;
		text.len -= octets;
	}
	return characters > 0;
}
