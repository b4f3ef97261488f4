/* ca/utf8.h - UTF-8 (RFC 3629), one character at a time, and which of them no name may show. */
#ifndef CA_UTF8_H
#define CA_UTF8_H

#include <stdbool.h>

#include "base/bytes.h"

/* The octets of the character that rest begins with, and its number; 0: none, or not shortest form. */
size_t utf8_next(struct view rest, uint32_t *code);
/* What moves a terminal's cursor or turns the direction of text. */
bool utf8_is_control(uint32_t code);
/* True if text is UTF-8 of 1 to max characters and none of them is a control. */
bool utf8_is_printable(struct view text, size_t max);

#endif
