#include "server/http/problem.h"

#include <stdio.h>
#include <string.h>

#include "server/http/internal.h"

#define URN "urn:jitrca:problem:"

/* What each status of ours becomes. */
static unsigned
status_of(enum status status)
{
	switch (status) {
	case ERR_ARGUMENT: return 400;
	case ERR_UNAUTHENTICATED: return 401;
	case ERR_DENIED: return 403;
	case ERR_NOT_FOUND: return 404;
	case ERR_CONFLICT: return 409;
	case ERR_TOO_LARGE: return 413;
	case ERR_TOO_MANY: return 429;
	case ERR_UNAVAILABLE: return 503;
	case OK:
	case ERR_INTERNAL: break;
	}
	return 500;
}

/* Cases that only HTTP knows. */
static const struct {
	const char *code;
	unsigned status;
} BY_CODE[] = {
	{ "method_not_allowed", 405 },
	{ "not_acceptable", 406 },
	{ "precondition_failed", 412 },
	{ "uri_too_long", 414 },
	{ "unsupported_media_type", 415 },
	{ "precondition_required", 428 },
	{ "header_too_large", 431 },
};

unsigned
problem_status(const struct err *err)
{
	for (size_t i = 0; i < COUNT_OF(BY_CODE); i++)
		if (strcmp(BY_CODE[i].code, err->code) == 0)
			return BY_CODE[i].status;
	return status_of(err->status);
}

bool
problem_retry_after(const struct err *err, int64_t *seconds)
{
	if (err->status != ERR_UNAVAILABLE && err->status != ERR_TOO_MANY)
		return false;
	*seconds = err->retry_after_s > 0 ? err->retry_after_s : 1;
	return true;
}

/* A text may be cut in the middle of a character, or hold octets of a client's. */
static void
clean(char *out, size_t size, const char *text)
{
	(void)snprintf(out, size, "%s", text);
	if (utf8_valid((const uint8_t *)out, strlen(out)))
		return;
	for (char *at = out; *at != '\0'; at++)
		if ((*at & 0x80) != 0)
			*at = '?';
}

/* "device_id_malformed" → "Device id malformed" */
static void
title_of(char out[ERR_CODE_BYTES], const char *code)
{
	(void)snprintf(out, ERR_CODE_BYTES, "%s", code);
	for (char *at = out; *at != '\0'; at++)
		if (*at == '_')
			*at = ' ';
	if (out[0] >= 'a' && out[0] <= 'z')
		out[0] = (char)(out[0] - 'a' + 'A');
}

json_t *
problem_json(const struct err *err, const char *request_id)
{
	/* An internal error says nothing of how we work; the log has it under the request's id. */
	bool internal = problem_status(err) == 500;
	const char *code = internal ? "internal" : err->code;
	char type[sizeof(URN) + ERR_CODE_BYTES];
	char title[ERR_CODE_BYTES];
	char detail[ERR_TEXT_BYTES];

	(void)snprintf(type, sizeof(type), URN "%s", code);
	title_of(title, code);
	clean(detail, sizeof(detail), internal ? "" : err->text);
	return json_pack("{s:s, s:s, s:i, s:s*, s:s, s:s*}", "type", type, "title", title, "status",
		(int)problem_status(err), "detail", detail[0] != '\0' ? detail : NULL, "code", code,
		"request_id", request_id);
}
