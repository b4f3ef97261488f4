#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "tests/bench/load.h"

enum {
	AT_STATUS,
	AT_HEADER,
	AT_BODY,
	AT_CHUNK_SIZE,
	AT_CHUNK,
	AT_CHUNK_END,
	AT_TRAILER,
	AT_END,
	AT_NONSENSE,
};

static const char CREATED[] = "\"status\":201";

void
answer_begin(struct answer *answer)
{
	answer->state = AT_STATUS;
	answer->status = 0;
	answer->left = 0;
	answer->chunked = answer->close = false;
	answer->line_len = 0;
	answer->bytes = answer->created = 0;
	answer->match = 0;
}

/* Counts the items of a batch that went well; the pattern repeats only its first octet. */
static void
count_created(struct answer *answer, const char *data, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		if (data[i] == CREATED[answer->match])
			answer->match++;
		else
			answer->match = data[i] == CREATED[0];
		if (answer->match == sizeof(CREATED) - 1) {
			answer->created++;
			answer->match = 0;
		}
	}
}

static void
take_status(struct answer *answer)
{
	if (strncmp(answer->line, "HTTP/1.", 7) != 0 || strlen(answer->line) < 12) {
		answer->state = AT_NONSENSE;
		return;
	}
	answer->status = (int)strtol(answer->line + 9, NULL, 10);
	answer->state = answer->status < 100 || answer->status > 599 ? AT_NONSENSE : AT_HEADER;
}

static void
take_header(struct answer *answer)
{
	const char *line = answer->line;

	if (line[0] != '\0') {
		if (strncasecmp(line, "Content-Length:", 15) == 0)
			answer->left = strtoull(line + 15, NULL, 10);
		else if (strncasecmp(line, "Transfer-Encoding:", 18) == 0)
			answer->chunked = strcasestr(line, "chunked") != NULL;
		else if (strncasecmp(line, "Connection:", 11) == 0)
			answer->close = strcasestr(line, "close") != NULL;
		return;
	}
	if (answer->status < 200)
		answer->state = AT_STATUS; /* 100 Continue */
	else if (answer->status == 204 || answer->status == 304)
		answer->state = AT_END;
	else if (answer->chunked)
		answer->state = AT_CHUNK_SIZE;
	else
		answer->state = answer->left > 0 ? AT_BODY : AT_END;
}

static void
take_line(struct answer *answer)
{
	switch (answer->state) {
	case AT_STATUS: take_status(answer); break;
	case AT_HEADER: take_header(answer); break;
	case AT_CHUNK_SIZE:
		answer->left = strtoull(answer->line, NULL, 16);
		answer->state = answer->left > 0 ? AT_CHUNK : AT_TRAILER;
		break;
	case AT_CHUNK_END: answer->state = AT_CHUNK_SIZE; break;
	case AT_TRAILER:
		if (answer->line[0] == '\0')
			answer->state = AT_END;
		break;
	default: break;
	}
}

/* Gathers one line; what does not fit is nothing that we read. */
static size_t
gather(struct answer *answer, const char *data, size_t len)
{
	const char *end = memchr(data, '\n', len);
	size_t taken = end != NULL ? (size_t)(end - data) + 1 : len;
	size_t text = end != NULL ? taken - 1 : taken;
	size_t room = sizeof(answer->line) - 1 - answer->line_len;

	if (text > room)
		text = room;
	memcpy(answer->line + answer->line_len, data, text);
	answer->line_len += text;
	if (end == NULL)
		return taken;
	if (answer->line_len > 0 && answer->line[answer->line_len - 1] == '\r')
		answer->line_len--;
	answer->line[answer->line_len] = '\0';
	answer->line_len = 0;
	take_line(answer);
	return taken;
}

bool
answer_take(struct answer *answer, const char *data, size_t len, size_t *used)
{
	size_t at = 0;

	while (at < len && answer->state != AT_END && answer->state != AT_NONSENSE) {
		size_t piece = len - at;

		if (answer->state != AT_BODY && answer->state != AT_CHUNK) {
			at += gather(answer, data + at, piece);
			continue;
		}
		if (piece > answer->left)
			piece = (size_t)answer->left;
		count_created(answer, data + at, piece);
		answer->bytes += piece;
		answer->left -= piece;
		at += piece;
		if (answer->left == 0)
			answer->state = answer->state == AT_BODY ? AT_END : AT_CHUNK_END;
	}
	*used = answer->state == AT_NONSENSE ? 0 : at;
	return answer->state == AT_END;
}
