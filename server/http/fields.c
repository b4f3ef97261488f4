#include "server/http/fields.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"

#define ID_MAX_BYTES 64

/* "<name>_<rule>" as a code. */
static const char *
code_of(char out[ERR_CODE_BYTES], const char *name, const char *rule)
{
	(void)snprintf(out, ERR_CODE_BYTES, "%s_%s", name, rule);
	return out;
}

static const char *
kind_of(const json_t *value)
{
	switch (json_typeof(value)) {
	case JSON_OBJECT: return "an object";
	case JSON_ARRAY: return "an array";
	case JSON_STRING: return "a string";
	case JSON_INTEGER: return "an integer";
	case JSON_REAL: return "a fraction";
	case JSON_TRUE:
	case JSON_FALSE: return "a boolean";
	case JSON_NULL: break;
	}
	return "null";
}

static enum status
wrong_type(struct err *err, const char *name, const char *wanted, const json_t *found)
{
	return err_set(err, ERR_ARGUMENT, "field_type", "%s: %s wanted, %s found", name, wanted,
		kind_of(found));
}

/* *value NULL: absent, and that is fine. */
static enum status
find(const json_t *object, const char *name, enum field_want want, const json_t **value,
	struct err *err)
{
	*value = json_object_get(object, name);
	if (*value == NULL && want != FIELD_OPTIONAL)
		return err_set(err, ERR_ARGUMENT, "field_missing", "%s: is missing", name);
	return OK;
}

enum status
fields_check(const json_t *object, const char *const *allowed, struct err *err)
{
	/* jansson's iterators want a json_t that may be changed; nothing is. */
	for (void *at = json_object_iter((json_t *)(uintptr_t)object); at != NULL;
		at = json_object_iter_next((json_t *)(uintptr_t)object, at)) {
		const char *name = json_object_iter_key(at);
		bool known = false;

		for (const char *const *one = allowed; *one != NULL && !known; one++)
			known = strcmp(*one, name) == 0;
		if (!known)
			return err_set(err, ERR_ARGUMENT, "field_unknown",
				"%.64s: no such field here", name);
	}
	return OK;
}

static enum status
check_text(const json_t *value, const char *name, bool lines, size_t max_bytes, const char **out,
	struct err *err)
{
	const char *text;
	size_t len;

	if (!json_is_string(value))
		return wrong_type(err, name, "a string", value);
	text = json_string_value(value);
	len = json_string_length(value);
	if (len == 0)
		return err_set(err, ERR_ARGUMENT, "field_empty", "%s: is empty", name);
	if (len > max_bytes)
		return err_set(err, ERR_ARGUMENT, "field_too_long",
			"%s: at most %zu octets wanted, %zu found", name, max_bytes, len);
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];

		if (lines && (c == '\n' || c == '\r' || c == '\t'))
			continue;
		/* C1 controls (U+0080-U+009F) are c2 80 to c2 9f in UTF-8. */
		if (c < 0x20 || c == 0x7f ||
			(c == 0xc2 && i + 1 < len && (unsigned char)text[i + 1] < 0xa0))
			return err_set(err, ERR_ARGUMENT, "field_malformed",
				"%s: no control characters wanted, one found at octet %zu", name,
				i);
	}
	*out = text;
	return OK;
}

static enum status
text_field(const json_t *object, const char *name, enum field_want want, bool lines,
	size_t max_bytes, const char **out, struct err *err)
{
	const json_t *value;

	TRY(find(object, name, want, &value, err));
	return value == NULL ? OK : check_text(value, name, lines, max_bytes, out, err);
}

enum status
fields_string(const json_t *object, const char *name, enum field_want want, size_t max_bytes,
	const char **out, struct err *err)
{
	return text_field(object, name, want, false, max_bytes, out, err);
}

enum status
fields_text(const json_t *object, const char *name, enum field_want want, size_t max_bytes,
	const char **out, struct err *err)
{
	return text_field(object, name, want, true, max_bytes, out, err);
}

enum status
fields_copy(char *out, size_t size, const json_t *object, const char *name, enum field_want want,
	const char *from, const char *rule, struct err *err)
{
	const char *text = NULL;

	TRY(fields_string(object, name, want, size - 1, &text, err));
	if (text == NULL)
		return OK;
	if (from != NULL && strspn(text, from) != strlen(text))
		return err_set(err, ERR_ARGUMENT, "field_malformed", "%s: %s", name, rule);
	(void)snprintf(out, size, "%s", text);
	return OK;
}

bool
fields_is_id(const char *text)
{
	size_t len =
		strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789:_-");

	return len > 0 && len <= ID_MAX_BYTES && text[len] == '\0';
}

/* The text of a string; one with a NUL in it reads as "", which no rule allows. */
static const char *
text_of(const json_t *value)
{
	const char *text = json_string_value(value);

	return strlen(text) == json_string_length(value) ? text : "";
}

static enum status
check_id(const char *text, const char *name, const char **out, struct err *err)
{
	char code[ERR_CODE_BYTES];

	if (!fields_is_id(text))
		return err_set(err, ERR_ARGUMENT, code_of(code, name, "malformed"),
			"%s: [A-Za-z0-9:_-]{1,%d} wanted", name, ID_MAX_BYTES);
	*out = text;
	return OK;
}

enum status
fields_id(const json_t *object, const char *name, enum field_want want, const char **out,
	struct err *err)
{
	const json_t *value;

	TRY(find(object, name, want, &value, err));
	if (value == NULL)
		return OK;
	if (!json_is_string(value))
		return wrong_type(err, name, "a string", value);
	return check_id(text_of(value), name, out, err);
}

static enum status
check_choice(const char *text, const char *name, const char *const *choices, const char **out,
	struct err *err)
{
	char code[ERR_CODE_BYTES];
	char list[256] = "";

	for (const char *const *choice = choices; *choice != NULL; choice++) {
		size_t len = strlen(list);

		if (strcmp(*choice, text) == 0) {
			*out = *choice;
			return OK;
		}
		(void)snprintf(
			list + len, sizeof(list) - len, "%s%s", len > 0 ? ", " : "", *choice);
	}
	return err_set(err, ERR_ARGUMENT, code_of(code, name, "unknown"), "%s: one of %s wanted",
		name, list);
}

enum status
fields_choice(const json_t *object, const char *name, enum field_want want,
	const char *const *choices, const char **out, struct err *err)
{
	const json_t *value;

	TRY(find(object, name, want, &value, err));
	if (value == NULL)
		return OK;
	if (!json_is_string(value))
		return wrong_type(err, name, "a string", value);
	return check_choice(text_of(value), name, choices, out, err);
}

enum status
fields_int(const json_t *object, const char *name, enum field_want want, int64_t least,
	int64_t most, int64_t *out, struct err *err)
{
	const json_t *value;
	int64_t number;

	TRY(find(object, name, want, &value, err));
	if (value == NULL)
		return OK;
	if (!json_is_integer(value))
		return wrong_type(err, name, "an integer", value);
	number = json_integer_value(value);
	if (number < least || number > most)
		return err_set(err, ERR_ARGUMENT, "field_out_of_range",
			"%s: %lld to %lld wanted, %lld found", name, (long long)least,
			(long long)most, (long long)number);
	*out = number;
	return OK;
}

enum status
fields_bool(
	const json_t *object, const char *name, enum field_want want, bool *out, struct err *err)
{
	const json_t *value;

	TRY(find(object, name, want, &value, err));
	if (value == NULL)
		return OK;
	if (!json_is_boolean(value))
		return wrong_type(err, name, "a boolean", value);
	*out = json_is_true(value);
	return OK;
}

enum status
fields_time(
	const json_t *object, const char *name, enum field_want want, int64_t *out, struct err *err)
{
	const json_t *value;

	TRY(find(object, name, want, &value, err));
	if (value == NULL)
		return OK;
	if (!json_is_string(value))
		return wrong_type(err, name, "an RFC 3339 time", value);
	if (!time_parse(out, view_text(text_of(value))))
		return err_set(
			err, ERR_ARGUMENT, "field_malformed", "%s: an RFC 3339 time wanted", name);
	return OK;
}

enum status
fields_array(const json_t *object, const char *name, enum field_want want, size_t max_items,
	const json_t **out, struct err *err)
{
	const json_t *value;

	TRY(find(object, name, want, &value, err));
	if (value == NULL)
		return OK;
	if (!json_is_array(value))
		return wrong_type(err, name, "an array", value);
	if (json_array_size(value) > max_items)
		return err_set(err, ERR_ARGUMENT, "field_too_many",
			"%s: at most %zu items wanted, %zu found", name, max_items,
			json_array_size(value));
	*out = value;
	return OK;
}

enum status
fields_object(const json_t *object, const char *name, enum field_want want, const json_t **out,
	struct err *err)
{
	const json_t *value;

	TRY(find(object, name, want, &value, err));
	if (value == NULL)
		return OK;
	if (!json_is_object(value))
		return wrong_type(err, name, "an object", value);
	*out = value;
	return OK;
}

enum status
fields_string_array(const json_t *object, const char *name, enum field_want want, size_t max_items,
	size_t max_bytes, const char **out, size_t *count, struct err *err)
{
	const json_t *array = NULL;

	TRY(fields_array(object, name, want, max_items, &array, err));
	if (array == NULL)
		return OK;
	for (size_t i = 0; i < json_array_size(array); i++)
		TRY(check_text(json_array_get(array, i), name, false, max_bytes, &out[i], err));
	*count = json_array_size(array);
	return OK;
}

enum status
fields_param_id(const struct request *request, const char *name, const char **out, struct err *err)
{
	return check_id(request_param(request, name), name, out, err);
}

/* ---- the query ---- */

enum status
query_id(const struct request *request, const char *name, const char **out, struct err *err)
{
	const char *text = request_query(request, name);

	return text == NULL ? OK : check_id(text, name, out, err);
}

enum status
query_choice(const struct request *request, const char *name, const char *const *choices,
	const char **out, struct err *err)
{
	const char *text = request_query(request, name);

	return text == NULL ? OK : check_choice(text, name, choices, out, err);
}

enum status
query_time(const struct request *request, const char *name, int64_t *out, struct err *err)
{
	const char *text = request_query(request, name);
	char code[ERR_CODE_BYTES];

	if (text == NULL || time_parse(out, view_text(text)))
		return OK;
	return err_set(err, ERR_ARGUMENT, code_of(code, name, "malformed"),
		"%s: an RFC 3339 time wanted (a plus sign as %%2B)", name);
}

enum status
query_bool(const struct request *request, const char *name, bool *out, struct err *err)
{
	const char *text = request_query(request, name);
	char code[ERR_CODE_BYTES];

	if (text == NULL)
		return OK;
	if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
		return err_set(err, ERR_ARGUMENT, code_of(code, name, "malformed"),
			"%s: true or false wanted", name);
	*out = text[0] == 't';
	return OK;
}

enum status
query_limit(const struct request *request, size_t *out, struct err *err)
{
	const char *text = request_query(request, "limit");
	size_t limit = 0;

	*out = QUERY_LIMIT_DEFAULT;
	if (text == NULL)
		return OK;
	if (text[0] != '\0' && strlen(text) <= 4 && strspn(text, "0123456789") == strlen(text))
		for (const char *at = text; *at != '\0'; at++)
			limit = limit * 10 + (size_t)(*at - '0');
	if (limit < 1 || limit > QUERY_LIMIT_MAX)
		return err_set(err, ERR_ARGUMENT, "limit_out_of_range", "limit: 1 to %d wanted",
			QUERY_LIMIT_MAX);
	*out = limit;
	return OK;
}

/* ---- cursors ---- */

static const char BASE64URL[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

#define SUM_BYTES 4
_Static_assert(
	(CURSOR_MAX_BYTES + SUM_BYTES + 2) / 3 * 4 < CURSOR_TEXT_BYTES, "a cursor fits its text");

/* FNV-1a: finds damage and cursors of other lists; no defence, and none is needed. */
static void
checksum(uint8_t out[SUM_BYTES], const char *scope, const uint8_t *octets, size_t len)
{
	uint32_t sum = 2166136261u;

	for (const char *at = scope; *at != '\0'; at++)
		sum = (sum ^ (uint8_t)*at) * 16777619u;
	for (size_t i = 0; i < len; i++)
		sum = (sum ^ octets[i]) * 16777619u;
	for (size_t i = 0; i < SUM_BYTES; i++)
		out[i] = (uint8_t)(sum >> (8 * i));
}

void
cursor_encode(char out[CURSOR_TEXT_BYTES], const char *scope, const void *octets, size_t len)
{
	uint8_t raw[SUM_BYTES + CURSOR_MAX_BYTES];
	uint32_t bits = 0;
	unsigned have = 0;
	size_t to = 0;

	if (len > CURSOR_MAX_BYTES)
		len = CURSOR_MAX_BYTES; /* a list of ours with a longer place would be a bug: it
		                           shows at once */
	memcpy(raw + SUM_BYTES, octets, len);
	checksum(raw, scope, raw + SUM_BYTES, len);
	for (size_t i = 0; i < SUM_BYTES + len; i++) {
		bits = bits << 8 | raw[i];
		for (have += 8; have >= 6; have -= 6)
			out[to++] = BASE64URL[bits >> (have - 6) & 63];
	}
	if (have > 0)
		out[to++] = BASE64URL[bits << (6 - have) & 63];
	out[to] = '\0';
}

/* RFC 4648 5 without padding; the unused bits of the last character are zero, so that texts are
 * unique. */
static bool
base64url_decode(const char *text, uint8_t *out, size_t size, size_t *len)
{
	uint32_t bits = 0;
	unsigned have = 0;

	*len = 0;
	for (; *text != '\0'; text++) {
		const char *digit = strchr(BASE64URL, *text);

		if (digit == NULL)
			return false;
		bits = bits << 6 | (uint32_t)(digit - BASE64URL);
		have += 6;
		if (have >= 8) {
			if (*len == size)
				return false;
			have -= 8;
			out[(*len)++] = (uint8_t)(bits >> have);
		}
	}
	return have < 6 && (bits & ((1u << have) - 1)) == 0;
}

static enum status
bad_cursor(struct err *err)
{
	return err_set(
		err, ERR_ARGUMENT, "cursor_malformed", "cursor: not one that this list gave out");
}

enum status
query_cursor(const struct request *request, const char *scope, uint8_t out[CURSOR_MAX_BYTES],
	size_t *len, struct err *err)
{
	const char *text = request_query(request, "cursor");
	uint8_t raw[SUM_BYTES + CURSOR_MAX_BYTES];
	uint8_t sum[SUM_BYTES];
	size_t raw_len;

	*len = 0;
	if (text == NULL)
		return OK;
	if (!base64url_decode(text, raw, sizeof(raw), &raw_len) || raw_len <= SUM_BYTES)
		return bad_cursor(err);
	checksum(sum, scope, raw + SUM_BYTES, raw_len - SUM_BYTES);
	if (memcmp(sum, raw, SUM_BYTES) != 0)
		return bad_cursor(err);
	*len = raw_len - SUM_BYTES;
	memcpy(out, raw + SUM_BYTES, *len);
	return OK;
}

enum status
query_cursor_exact(const struct request *request, const char *scope, void *out, size_t len,
	bool *found, struct err *err)
{
	uint8_t octets[CURSOR_MAX_BYTES];
	size_t have;

	TRY(query_cursor(request, scope, octets, &have, err));
	*found = have > 0;
	if (have == 0)
		return OK;
	if (have != len)
		return bad_cursor(err);
	memcpy(out, octets, len);
	return OK;
}

enum status
query_cursor_text(
	const struct request *request, const char *scope, char *out, size_t size, struct err *err)
{
	uint8_t octets[CURSOR_MAX_BYTES];
	size_t len;

	TRY(query_cursor(request, scope, octets, &len, err));
	if (len >= size || memchr(octets, '\0', len) != NULL)
		return bad_cursor(err);
	memcpy(out, octets, len);
	out[len] = '\0';
	return OK;
}

enum status
query_list_place(const struct request *request, const char *scope, struct list_place *out,
	struct err *err)
{
	char text[PLACE_TEXT_BYTES];

	*out = (struct list_place){ .at_us = 0 };
	TRY(query_cursor_text(request, scope, text, sizeof(text), err));
	if (text[0] != '\0' && sscanf(text, "%lld:%32[0-9a-f]", &out->at_us, out->id) != 2)
		return bad_cursor(err);
	return OK;
}

void
list_place_text(char out[PLACE_TEXT_BYTES], int64_t at_us, const char *id)
{
	(void)snprintf(out, PLACE_TEXT_BYTES, "%lld:%s", (long long)at_us, id);
}
