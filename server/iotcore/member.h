/*
 * server/iotcore/member.h - holds what came against the rules of struct member, and says what is wrong as
 * AWS says it: "2 validation errors detected: Value 'x' at 'a' failed to satisfy constraint: Member
 * must …; Value null at 'b' …". Pure.
 */
#ifndef SERVER_IOTCORE_MEMBER_H
#define SERVER_IOTCORE_MEMBER_H

#include <jansson.h>

#include "server/iotcore/op.h"

/* What was found wrong so far; zero-initialise. */
struct member_report {
	unsigned count;
	size_t len;
	char text[ERR_TEXT_BYTES - 64]; /* room for what stands in front of it */
};

/* A value that came as text (path, query, header); NULL: none came. */
void member_check_text(const struct member *member, const char *text, struct member_report *report);
/* A value of a body; NULL and JSON's null: none came. */
void member_check_json(const struct member *member, const json_t *json,
	struct member_report *report);
/* OK, or InvalidRequestException with all that the report holds. */
MUST_USE enum status member_report_end(const struct member_report *report, struct err *err);

/* A query's number and time ("2024-01-02T03:04:05Z", or epoch seconds); false: malformed. */
MUST_USE bool member_number(int64_t *out, const char *text);
MUST_USE bool member_time(int64_t *out_s, const char *text);

#endif
