#include "server/manifest_reader.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "server/http/fields.h"

#define END (-1)
#define HEADER "device_id"

static const struct {
	const char *content_type;
	enum manifest_format format;
} FORMATS[] = {
	{ "text/csv", MANIFEST_CSV },
	{ "application/json", MANIFEST_JSON },
	{ "application/x-ndjson", MANIFEST_NDJSON },
};

bool
manifest_format_parse(enum manifest_format *out, const char *content_type)
{
	for (size_t i = 0; i < COUNT_OF(FORMATS); i++)
		if (strcmp(FORMATS[i].content_type, content_type) == 0) {
			*out = FORMATS[i].format;
			return true;
		}
	return false;
}

void
manifest_reader_init(struct manifest_reader *reader, int fd, enum manifest_format format)
{
	reader->fd = fd;
	reader->format = format;
	reader->line = 1;
	reader->count = 0;
	reader->begun = false;
	reader->ended = false;
	reader->at = 0;
	reader->filled = 0;
	reader->len = 0;
}

/* ---- octets ---- */

static enum status
fill(struct manifest_reader *r, struct err *err)
{
	ssize_t got;

	do
		got = read(r->fd, r->octets, sizeof(r->octets));
	while (got < 0 && errno == EINTR);
	if (got < 0)
		return err_set(err, ERR_UNAVAILABLE, "spool", "the upload cannot be read back");
	r->at = 0;
	r->filled = (size_t)got;
	return OK;
}

/* The next octet without taking it, or END. */
static enum status
peek(struct manifest_reader *r, int *octet, struct err *err)
{
	if (r->at == r->filled)
		TRY(fill(r, err));
	*octet = r->at < r->filled ? r->octets[r->at] : END;
	return OK;
}

/* Takes the octet that was peeked at. */
static void
take(struct manifest_reader *r)
{
	if (r->octets[r->at++] == '\n')
		r->line++;
}

static enum status
refuse(struct err *err, int64_t line, const char *code, const char *text)
{
	return err_set(err, ERR_ARGUMENT, code, "line %lld: %s", (long long)line, text);
}

/* ---- ids ---- */

static enum status
append(struct manifest_reader *r, int octet, int64_t line, struct err *err)
{
	if (r->len == sizeof(r->id) - 1)
		return refuse(err, line, "device_id_malformed",
			"device_id: [A-Za-z0-9:_-]{1,64} wanted, a far longer text found");
	r->id[r->len++] = (char)octet;
	return OK;
}

/* Ends the text that was gathered; NUL octets in it do not pass as its end. */
static enum status
finish_id(struct manifest_reader *r, int64_t line, const char **id, struct err *err)
{
	r->id[r->len] = '\0';
	if (strlen(r->id) != r->len || !fields_is_id(r->id))
		return refuse(err, line, "device_id_malformed",
			"device_id: [A-Za-z0-9:_-]{1,64} wanted");
	r->count++;
	*id = r->id;
	return OK;
}

static enum status
finish(struct manifest_reader *r, const char **id, struct err *err)
{
	r->ended = true;
	*id = NULL;
	if (r->count == 0)
		return err_set(err, ERR_ARGUMENT, "manifest_empty", "at least one device id wanted");
	return OK;
}

/* ---- CSV ---- */

/* RFC 4180 2.5, 2.6, 2.7: a quoted field; "" is a quote in it. */
static enum status
csv_quoted(struct manifest_reader *r, int64_t line, struct err *err)
{
	int octet;

	take(r);
	for (;;) { /* bounded by append */
		TRY(peek(r, &octet, err));
		if (octet == END)
			return refuse(err, line, "csv_malformed", "a quote that is not closed");
		take(r);
		if (octet == '"') {
			TRY(peek(r, &octet, err));
			if (octet != '"')
				return OK;
			take(r);
		}
		TRY(append(r, octet, line, err));
	}
}

static enum status
csv_bare(struct manifest_reader *r, int64_t line, struct err *err)
{
	int octet;

	for (;;) { /* bounded by append */
		TRY(peek(r, &octet, err));
		if (octet == END || octet == '\n' || octet == '\r' || octet == ',')
			return OK;
		if (octet == '"')
			return refuse(err, line, "csv_malformed", "a quote inside a field");
		take(r);
		TRY(append(r, octet, line, err));
	}
}

/* LF, CRLF or the end of the file. */
static enum status
csv_line_end(struct manifest_reader *r, int64_t line, bool *end, struct err *err)
{
	int octet;

	TRY(peek(r, &octet, err));
	if (octet == ',')
		return refuse(err, line, "csv_malformed", "one column wanted, more found");
	if (octet == '\r') {
		take(r);
		TRY(peek(r, &octet, err));
		if (octet != '\n')
			return refuse(err, line, "csv_malformed",
				"a carriage return without its line feed");
	}
	if (octet != '\n' && octet != END)
		return refuse(err, line, "csv_malformed", "text behind a closing quote");
	*end = octet == END;
	if (!*end)
		take(r);
	return OK;
}

/* A byte order mark, as spreadsheets write it. */
static enum status
csv_mark(struct manifest_reader *r, struct err *err)
{
	static const uint8_t MARK[] = { 0xef, 0xbb, 0xbf };
	int octet;

	for (size_t i = 0; i < sizeof(MARK); i++) {
		TRY(peek(r, &octet, err));
		if (i == 0 && octet != MARK[0])
			return OK;
		if (octet != MARK[i])
			return refuse(err, 1, "csv_malformed", "half a byte order mark");
		take(r);
	}
	return OK;
}

static enum status
csv_next(struct manifest_reader *r, const char **id, struct err *err)
{
	bool end = false;

	if (!r->begun)
		TRY(csv_mark(r, err));
	while (!end) { /* each turn takes a line */
		int64_t line = r->line;
		bool header = !r->begun;
		bool quoted;
		int octet;

		r->len = 0;
		TRY(peek(r, &octet, err));
		quoted = octet == '"';
		TRY(quoted ? csv_quoted(r, line, err) : csv_bare(r, line, err));
		TRY(csv_line_end(r, line, &end, err));
		if (r->len == 0 && !quoted)
			continue;
		r->begun = true;
		if (header && r->len == strlen(HEADER) && memcmp(r->id, HEADER, r->len) == 0)
			continue;
		return finish_id(r, line, id, err);
	}
	return finish(r, id, err);
}

/* ---- JSON ---- */

/* The first octet that is no white space, not taken. */
static enum status
json_token(struct manifest_reader *r, int *octet, struct err *err)
{
	for (;;) { /* ends with the file */
		TRY(peek(r, octet, err));
		if (*octet != ' ' && *octet != '\t' && *octet != '\n' && *octet != '\r')
			return OK;
		take(r);
	}
}

static enum status
json_want(struct manifest_reader *r, int want, const char *text, struct err *err)
{
	int octet;

	TRY(json_token(r, &octet, err));
	if (octet != want)
		return refuse(err, r->line, "json_malformed", text);
	if (octet != END)
		take(r);
	return OK;
}

/*
 * RFC 8259 7: behind a backslash. What is not ASCII is no part of an id, so an octet that no id holds
 * stands for it and is refused.
 */
static enum status
json_escape(struct manifest_reader *r, int64_t line, struct err *err)
{
	static const char NAMES[] = "\"\\/bfnrt";
	static const char VALUES[] = "\"\\/\b\f\n\r\t";
	const char *name;
	char digits[4];
	uint8_t unit[2];
	int octet;

	TRY(peek(r, &octet, err));
	name = octet > 0 ? strchr(NAMES, octet) : NULL;
	if (octet == END || (name == NULL && octet != 'u'))
		return refuse(err, line, "json_malformed", "an escape that JSON does not know");
	take(r);
	if (name != NULL)
		return append(r, VALUES[name - NAMES], line, err);
	for (size_t i = 0; i < sizeof(digits); i++) {
		TRY(peek(r, &octet, err));
		if (octet == END)
			return refuse(err, line, "json_malformed", "\\u wants four hex digits");
		digits[i] = (char)octet;
		take(r);
	}
	if (!hex_decode(unit, sizeof(unit), digits, sizeof(digits)))
		return refuse(err, line, "json_malformed", "\\u wants four hex digits");
	return append(r, unit[0] == 0 && unit[1] < 0x80 ? unit[1] : '?', line, err);
}

/* Behind the opening quote. */
static enum status
json_string_rest(struct manifest_reader *r, int64_t line, struct err *err)
{
	int octet;

	r->len = 0;
	for (;;) { /* bounded by append */
		TRY(peek(r, &octet, err));
		if (octet == END || octet < 0x20)
			return refuse(err, line, "json_malformed", "a string that is not closed");
		take(r);
		if (octet == '"')
			return OK;
		if (octet == '\\')
			TRY(json_escape(r, line, err));
		else
			TRY(append(r, octet, line, err));
	}
}

static enum status
json_next(struct manifest_reader *r, const char **id, struct err *err)
{
	int64_t line;
	int octet;

	if (!r->begun)
		TRY(json_want(r, '[', "an array of strings wanted", err));
	TRY(json_token(r, &octet, err));
	if (octet == ']' && (!r->begun || r->count > 0)) {
		take(r);
		TRY(json_want(r, END, "nothing wanted behind the array", err));
		return finish(r, id, err);
	}
	if (r->begun) {
		TRY(json_want(r, ',', "a comma or the end of the array wanted", err));
		TRY(json_token(r, &octet, err));
	}
	r->begun = true;
	line = r->line;
	if (octet == END || octet == ']' || octet == ',')
		return refuse(err, line, "json_malformed", "a string wanted");
	if (octet != '"')
		return refuse(err, line, "field_type", "device_id: a string wanted");
	take(r);
	TRY(json_string_rest(r, line, err));
	return finish_id(r, line, id, err);
}

/* ---- NDJSON ---- */

/* A line without its end; *end: the file ends with it. */
static enum status
ndjson_line(struct manifest_reader *r, bool *end, struct err *err)
{
	int64_t line = r->line;
	int octet;

	r->len = 0;
	for (;;) { /* bounded by append */
		TRY(peek(r, &octet, err));
		*end = octet == END;
		if (*end)
			return OK;
		take(r);
		if (octet == '\n')
			return OK;
		TRY(append(r, octet, line, err));
	}
}

static enum status
ndjson_value(struct manifest_reader *r, int64_t line, const char **id, struct err *err)
{
	own(json_t) json = json_loadb(r->id, r->len, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);
	const json_t *value = json;

	if (json == NULL)
		return refuse(err, line, "json_malformed", "a JSON string or object wanted");
	if (json_is_object(json)) {
		value = json_object_get(json, "device_id");
		if (value == NULL || json_object_size(json) != 1)
			return refuse(err, line, "field_unknown", "the one field device_id wanted");
	}
	if (!json_is_string(value))
		return refuse(err, line, "field_type", "device_id: a string wanted");
	/* Not longer than the line it came from. */
	r->len = json_string_length(value);
	memcpy(r->id, json_string_value(value), r->len);
	return finish_id(r, line, id, err);
}

static enum status
ndjson_next(struct manifest_reader *r, const char **id, struct err *err)
{
	bool end = false;

	while (!end) { /* each turn takes a line */
		int64_t line = r->line;

		TRY(ndjson_line(r, &end, err));
		r->id[r->len] = '\0';
		if (strspn(r->id, " \t\r") != r->len)
			return ndjson_value(r, line, id, err);
	}
	return finish(r, id, err);
}

enum status
manifest_reader_next(void *arg, const char **id, struct err *err)
{
	struct manifest_reader *r = arg;

	*id = NULL;
	if (r->ended)
		return OK;
	switch (r->format) {
	case MANIFEST_CSV:
		return csv_next(r, id, err);
	case MANIFEST_JSON:
		return json_next(r, id, err);
	case MANIFEST_NDJSON:
		return ndjson_next(r, id, err);
	case MANIFEST_FORMAT_UNSET:
		break;
	}
	return err_set(err, ERR_INTERNAL, "manifest_format", "a manifest without a format");
}
