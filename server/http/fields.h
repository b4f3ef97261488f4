/*
 * server/http/fields.h - typed fields out of a JSON body and out of the query, with errors that name the
 * field. All failures are ERR_ARGUMENT unless said otherwise; texts never repeat a value.
 *
 * A JSON null is a value of the wrong type, not an absent field. What comes out is borrowed from the
 * json or the request and lives as long.
 */
#ifndef SERVER_HTTP_FIELDS_H
#define SERVER_HTTP_FIELDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/http/request.h"

/* For want: zero refuses. */
enum field_want {
	FIELD_REQUIRED = 1, /* absent: field_missing */
	FIELD_OPTIONAL,     /* absent: OK, *out is left as it was */
};

/* Only names of the NULL-terminated list may be there: field_unknown. */
MUST_USE enum status fields_check(const json_t *object, const char *const *allowed, struct err *err);

/*
 * One line of text: field_type, field_empty, field_too_long (max_bytes of UTF-8), field_malformed
 * (control characters).
 */
MUST_USE enum status fields_string(const json_t *object, const char *name, enum field_want want,
	size_t max_bytes, const char **out, struct err *err);
/* The same with line ends and tabs allowed: PEM, comments. */
MUST_USE enum status fields_text(const json_t *object, const char *name, enum field_want want,
	size_t max_bytes, const char **out, struct err *err);
/*
 * Copies a line of characters that all stand in `from` (NULL: any) into out, of size octets with NUL.
 * Another character: field_malformed, which repeats rule; else as fields_string.
 */
MUST_USE enum status fields_copy(char *out, size_t size, const json_t *object, const char *name,
	enum field_want want, const char *from, const char *rule, struct err *err);
/* [A-Za-z0-9:_-]{1,64}; breaking the rule is "<name>_malformed": device_id_malformed. */
MUST_USE enum status fields_id(const json_t *object, const char *name, enum field_want want,
	const char **out, struct err *err);
/* One of the NULL-terminated list: "<name>_unknown", and the text names the list. */
MUST_USE enum status fields_choice(const json_t *object, const char *name, enum field_want want,
	const char *const *choices, const char **out, struct err *err);
/* A JSON integer: field_type, field_out_of_range. */
MUST_USE enum status fields_int(const json_t *object, const char *name, enum field_want want,
	int64_t least, int64_t most, int64_t *out, struct err *err);
MUST_USE enum status fields_bool(const json_t *object, const char *name, enum field_want want, bool *out,
	struct err *err);
/* RFC 3339 as seconds: field_type, field_malformed. */
MUST_USE enum status fields_time(const json_t *object, const char *name, enum field_want want,
	int64_t *out, struct err *err);
/* Up to max_items strings, each as fields_string; field_too_many. */
MUST_USE enum status fields_string_array(const json_t *object, const char *name, enum field_want want,
	size_t max_items, size_t max_bytes, const char **out, size_t *count, struct err *err);
/* An array of up to max_items values of any kind, an object: field_type, field_too_many, borrowed. */
MUST_USE enum status fields_array(const json_t *object, const char *name, enum field_want want,
	size_t max_items, const json_t **out, struct err *err);
MUST_USE enum status fields_object(const json_t *object, const char *name, enum field_want want,
	const json_t **out, struct err *err);

/* True for [A-Za-z0-9:_-]{1,64}: device, station, manifest, principal ids; also for path parameters. */
bool fields_is_id(const char *text);
/* The same as a check of request_param(name): "<name>_malformed". */
MUST_USE enum status fields_param_id(const struct request *request, const char *name, const char **out,
	struct err *err);

/*
 * The query. Absent parameters leave *out as it was. An id: "<name>_malformed"; a choice:
 * "<name>_unknown"; a time: "<name>_malformed"; bool ("true", "false"): "<name>_malformed".
 */
MUST_USE enum status query_id(const struct request *request, const char *name, const char **out,
	struct err *err);
MUST_USE enum status query_choice(const struct request *request, const char *name,
	const char *const *choices, const char **out, struct err *err);
MUST_USE enum status query_time(const struct request *request, const char *name, int64_t *out,
	struct err *err);
MUST_USE enum status query_bool(const struct request *request, const char *name, bool *out,
	struct err *err);
/* "limit": 1 to 1000, QUERY_LIMIT_DEFAULT when absent; limit_out_of_range. */
#define QUERY_LIMIT_DEFAULT 100
#define QUERY_LIMIT_MAX 1000
MUST_USE enum status query_limit(const struct request *request, size_t *out, struct err *err);

/*
 * Cursors: a place in a list, opaque to the client: base64url of the octets given, behind a check of
 * them and of scope (a word for the list: "devices"), so that damaged cursors and those of other lists
 * are refused. They are no secret and no proof: what is in them is data of the client's, to be checked.
 */
#define CURSOR_MAX_BYTES 128 /* octets in it */
#define CURSOR_TEXT_BYTES 192 /* its text with NUL */
void cursor_encode(char out[CURSOR_TEXT_BYTES], const char *scope, const void *octets, size_t len);
/* The "cursor" of the query; absent: *len is 0. ERR_ARGUMENT cursor_malformed. */
MUST_USE enum status query_cursor(const struct request *request, const char *scope,
	uint8_t out[CURSOR_MAX_BYTES], size_t *len, struct err *err);
/* The same when every cursor of the list has one size; *found false: absent. */
MUST_USE enum status query_cursor_exact(const struct request *request, const char *scope, void *out,
	size_t len, bool *found, struct err *err);
/* A cursor that is a text (the last id of the page); "" when absent. out holds size octets with NUL. */
MUST_USE enum status query_cursor_text(const struct request *request, const char *scope, char *out,
	size_t size, struct err *err);
/* A place in a list by time and then by id, 32 hexadecimal digits; 0 and "": its beginning. */
#define PLACE_ID_BYTES 33
#define PLACE_TEXT_BYTES (PLACE_ID_BYTES + 24)
struct list_place {
	long long at_us;
	char id[PLACE_ID_BYTES];
};
/* The cursor of such a list. ERR_ARGUMENT cursor_malformed. */
MUST_USE enum status query_list_place(const struct request *request, const char *scope,
	struct list_place *out, struct err *err);
/* The same as the text that api_reply_page takes. */
void list_place_text(char out[PLACE_TEXT_BYTES], int64_t at_us, const char *id);

#endif
