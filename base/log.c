#include "base/log.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

#define LINE_BYTES 8192
/* What a cut line needs to end as valid JSON: the key, the closing quote and brace, a newline. */
#define LINE_TAIL_BYTES 32

/* The project's one piece of global mutable state. */
static struct {
	int fd;
	enum log_level least;
	const char *process;
} sink = { .fd = STDERR_FILENO, .least = LOG_INFO, .process = "jitrca" };

struct line {
	char text[LINE_BYTES];
	size_t len;
	bool full;
};

static void
put(struct line *line, const char *text, size_t len)
{
	if (line->full || line->len + len > LINE_BYTES - LINE_TAIL_BYTES) {
		line->full = true;
		return;
	}
	memcpy(line->text + line->len, text, len);
	line->len += len;
}

static void
put_text(struct line *line, const char *text)
{
	put(line, text, strlen(text));
}

/* Length of the valid UTF-8 sequence at the start of view, 0 if there is none (RFC 3629). */
static size_t
utf8_length(struct view view)
{
	uint8_t first = view.data[0];
	size_t len = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3
		: first < 0xf5 ? 4 : 0;

	if (len > view.len)
		return 0;
	for (size_t i = 1; i < len; i++)
		if ((view.data[i] & 0xc0) != 0x80)
			return 0;
	if (len == 3 && ((first == 0xe0 && view.data[1] < 0xa0) ||
			 (first == 0xed && view.data[1] > 0x9f)))
		return 0;
	if (len == 4 && ((first == 0xf0 && view.data[1] < 0x90) ||
			 (first == 0xf4 && view.data[1] > 0x8f)))
		return 0;
	return len;
}

/* A string that does not fit is cut and still ends; false: not even its first quote fitted. */
static bool
put_string(struct line *line, struct view view)
{
	put_text(line, "\"");
	if (line->full)
		return false;
	while (view.len > 0 && !line->full) {
		char escaped[8];
		uint8_t c = view.data[0];
		size_t len = utf8_length(view);

		if (c == '"' || c == '\\' || c < 0x20 || c == 0x7f || len == 0) {
			(void)snprintf(escaped, sizeof(escaped), "\\u%04x", len == 0 ? 0xfffdU : c);
			put_text(line, escaped);
			len = 1;
		} else {
			put(line, (const char *)view.data, len);
		}
		view.data += len;
		view.len -= len;
	}
	/* Within the tail's room, so that a cut string still ends. */
	line->text[line->len++] = '"';
	return true;
}

/* False: the line is full and what was put of the field is not valid JSON. A string may be cut. */
static bool
put_field(struct line *line, const struct log_field *field)
{
	char number[24];

	if (field->kind == LOG_KIND_NONE)
		return true;
	put_text(line, ",\"");
	put_text(line, field->key);
	put_text(line, "\":");
	if (line->full)
		return false;
	switch (field->kind) {
	case LOG_KIND_STR:
		if (field->value.text == NULL)
			put_text(line, "null");
		else
			return put_string(line, view_text(field->value.text));
		break;
	case LOG_KIND_VIEW:
		return put_string(line, field->value.view);
	case LOG_KIND_INT:
		(void)snprintf(number, sizeof(number), "%lld", (long long)field->value.number);
		put_text(line, number);
		break;
	case LOG_KIND_BOOL:
		put_text(line, field->value.flag ? "true" : "false");
		break;
	case LOG_KIND_END:
	case LOG_KIND_NONE:
		break;
	}
	return !line->full;
}

static const char *
level_name(enum log_level level)
{
	switch (level) {
	case LOG_DEBUG: return "debug";
	case LOG_INFO: return "info";
	case LOG_WARN: return "warn";
	case LOG_ERROR: return "error";
	}
	return "error";
}

static void
put_head(struct line *line, enum log_level level, const char *event, const char *request_id)
{
	struct timespec now;
	struct civil c;
	char head[160];

	(void)clock_gettime(CLOCK_REALTIME, &now);
	c = civil_from_s((int64_t)now.tv_sec);
	(void)snprintf(head, sizeof(head),
		"{\"ts\":\"%04lld-%02u-%02uT%02u:%02u:%02u.%03ldZ\",\"level\":\"%s\",\"process\":\"%s\"",
		(long long)c.year, c.month, c.day, c.hour, c.minute, c.second, now.tv_nsec / 1000000,
		level_name(level), sink.process);
	put_text(line, head);
	(void)put_field(line, &(struct log_field)LOG_STR("event", event));
	if (request_id != NULL)
		(void)put_field(line, &(struct log_field)LOG_STR("request_id", request_id));
}

void
log_write(enum log_level level, const char *event, const char *request_id,
	const struct log_field *fields)
{
	struct line line = { .len = 0 };
	size_t whole;

	if (level < sink.least)
		return;
	put_head(&line, level, event, request_id);
	for (; fields->kind != LOG_KIND_END; fields++) {
		whole = line.len;
		if (!put_field(&line, fields))
			line.len = whole;
		if (line.full)
			break;
	}
	memcpy(line.text + line.len, "}\n", 2);
	line.len += 2;
	/* A log that cannot be written has nowhere to say so. */
	if (write(sink.fd, line.text, line.len) < 0)
		return;
}

void
log_error(enum log_level level, const char *event, const char *request_id, const struct err *err)
{
	log_event(level, event, request_id, LOG_STR("status", status_name(err->status)),
		LOG_STR("code", err->code), LOG_STR("detail", err->text));
}

void
log_setup(int fd, enum log_level least, const char *process)
{
	sink.fd = fd;
	sink.least = least;
	sink.process = process;
}

bool
log_level_parse(enum log_level *out, const char *text)
{
	for (enum log_level level = LOG_DEBUG; level <= LOG_ERROR; level++) {
		if (strcmp(text, level_name(level)) == 0) {
			*out = level;
			return true;
		}
	}
	return false;
}
