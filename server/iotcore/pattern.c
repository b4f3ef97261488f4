/* The rules of AWS's service model for texts, as classes of characters. */
#include <string.h>

#include "server/iotcore/op.h"

#define LETTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
#define DIGITS "0123456789"

static bool
all_of(const char *text, size_t len, const char *class)
{
	return strspn(text, class) == len;
}

static bool
is_thing_name(const char *text, size_t len)
{
	return len > 0 && all_of(text, len, LETTERS DIGITS ":_-");
}

static bool
is_policy_name(const char *text, size_t len)
{
	return len > 0 && all_of(text, len, LETTERS DIGITS "_+=,.@-");
}

static bool
is_hex_id(const char *text, size_t len)
{
	size_t prefix = strncmp(text, "0x", 2) == 0 ? 2 : 0;

	return len > prefix && all_of(text + prefix, len - prefix, DIGITS "abcdefABCDEF");
}

static bool
is_digits(const char *text, size_t len)
{
	return len > 0 && all_of(text, len, DIGITS);
}

static bool
is_rule_name(const char *text, size_t len)
{
	return len > 0 && all_of(text, len, LETTERS DIGITS "_");
}

static bool
is_attribute_name(const char *text, size_t len)
{
	return len > 0 && all_of(text, len, LETTERS DIGITS "_.,@/:#-");
}

static bool
is_attribute_value(const char *text, size_t len)
{
	return all_of(text, len, LETTERS DIGITS "_.,@/:#=[]-");
}

/* Graph is every character that shows; of those outside of ASCII we refuse none. */
static bool
is_printable(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
			return false;
	return true;
}

static bool
is_marker(const char *text, size_t len)
{
	size_t digits = strspn(text, LETTERS DIGITS "+/");
	size_t padding = strspn(text + digits, "=");

	return digits > 0 && padding <= 2 && digits + padding == len;
}

const struct pattern PATTERN_THING_NAME = { "[a-zA-Z0-9:_-]+", is_thing_name };
const struct pattern PATTERN_POLICY_NAME = { "[\\w+=,.@-]+", is_policy_name };
const struct pattern PATTERN_HEX_ID = { "(0x)?[a-fA-F0-9]+", is_hex_id };
const struct pattern PATTERN_DIGITS = { "[0-9]+", is_digits };
const struct pattern PATTERN_RULE_NAME = { "^[a-zA-Z0-9_]+$", is_rule_name };
const struct pattern PATTERN_ATTRIBUTE_NAME = { "[a-zA-Z0-9_.,@/:#-]+", is_attribute_name };
const struct pattern PATTERN_ATTRIBUTE_VALUE = { "[a-zA-Z0-9_.,@/:#=\\[\\]-]*",
	is_attribute_value };
const struct pattern PATTERN_PRINTABLE = { "[\\p{Graph}\\x20]*", is_printable };
const struct pattern PATTERN_MARKER = { "[A-Za-z0-9+/]+={0,2}", is_marker };
