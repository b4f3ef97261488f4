/*
 * server/json_text.h - JSON written straight into a buffer, for what is written a thousand times a second:
 * the answers that carry certificates, and audit items. Everything else builds jansson's values.
 */
#ifndef SERVER_JSON_TEXT_H
#define SERVER_JSON_TEXT_H

#include "base/bytes.h"

/* A member whose value is a string. */
struct json_pair {
	const char *name;
	struct view value; /* {NULL, …}: it is left out */
	bool null;         /* null instead */
};

/* NULL stays NULL. */
struct view json_text_optional(const char *text);

/* A string with its quotes: RFC 8259 7, escaping no more than must be. text is UTF-8. */
MUST_USE enum status json_text_string(struct buf *out, struct view text, struct err *err);
/* "name":"value",… in the order given, without braces; names need no escaping. */
MUST_USE enum status json_text_pairs(struct buf *out, const struct json_pair *pairs, size_t count,
	struct err *err);
/* The same with braces. */
MUST_USE enum status json_text_object(struct buf *out, const struct json_pair *pairs, size_t count,
	struct err *err);

#endif
