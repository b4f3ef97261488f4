#include <jansson.h>
#include <string.h>

#include "base/mem.h"
#include "server/http/internal.h"

#define DEPTH_MAX 16
/* A thousand items of a batch with twenty fields each; bounds what a megabyte of "[0,0," becomes.
 */
#define VALUES_MAX 65536

/*
 * Counts depth and values before the parser recurses and allocates. Strings are skipped over;
 * whether the text is JSON at all is the parser's business.
 */
static enum status
scan(struct view text, struct err *err)
{
	size_t depth = 0, values = 1;
	bool in_string = false;

	for (size_t i = 0; i < text.len; i++) {
		uint8_t c = text.data[i];

		if (in_string) {
			if (c == '\\')
				i++;
			else if (c == '"')
				in_string = false;
			continue;
		}
		if (c == '"')
			in_string = true;
		else if (c == '{' || c == '[')
			depth++, values++;
		else if ((c == '}' || c == ']') && depth > 0)
			depth--;
		else if (c == ',')
			values++;
		if (depth > DEPTH_MAX)
			return err_set(err, ERR_ARGUMENT, "json_too_deep",
				"body: at most %d levels wanted", DEPTH_MAX);
		if (values > VALUES_MAX)
			return err_set(err, ERR_ARGUMENT, "json_too_many_values",
				"body: at most %d values wanted", VALUES_MAX);
	}
	return OK;
}

/* Places, never contents: the parser's own text repeats what it read. */
static enum status
refuse(struct err *err, const json_error_t *error)
{
	switch (json_error_code(error)) {
	case json_error_duplicate_key:
		return err_set(err, ERR_ARGUMENT, "json_duplicate_key",
			"body: line %d, column %d: a key stands twice in one object", error->line,
			error->column);
	case json_error_out_of_memory: return err_memory(err);
	case json_error_stack_overflow:
		return err_set(err, ERR_ARGUMENT, "json_too_deep", "body: too many levels");
	case json_error_invalid_utf8:
		return err_set(err, ERR_ARGUMENT, "json_not_utf8", "body: UTF-8 wanted");
	case json_error_null_character:
	case json_error_null_byte_in_key:
		return err_set(err, ERR_ARGUMENT, "json_malformed",
			"body: line %d, column %d: NUL in a string", error->line, error->column);
	case json_error_unknown:
	case json_error_cannot_open_file:
	case json_error_invalid_argument:
	case json_error_premature_end_of_input:
	case json_error_end_of_input_expected:
	case json_error_invalid_syntax:
	case json_error_invalid_format:
	case json_error_wrong_type:
	case json_error_null_value:
	case json_error_numeric_overflow:
	case json_error_item_not_found:
	case json_error_index_out_of_range: break;
	}
	return err_set(err, ERR_ARGUMENT, "json_malformed",
		"body: line %d, column %d: not JSON (RFC 8259)", error->line, error->column);
}

/* jansson 2.14 drops an octet of a string of sixteen or more when memory runs short while it grows, and
 * says that all is well: a device would get another name. So we notice ourselves. */
static _Thread_local bool memory_short;

static void *
json_memory(size_t bytes)
{
	void *p = mem_alloc(bytes);

	memory_short |= p == NULL;
	return p;
}

void
request_json_setup(void)
{
	json_set_alloc_funcs(json_memory, mem_free);
}

enum status
request_json(struct request *request, json_t **out, struct err *err)
{
	struct view body = request_body(request);
	json_error_t error;
	json_t *json;

	*out = NULL;
	if (strcmp(request_content_type(request), "application/json") != 0)
		return err_set(err, ERR_ARGUMENT, "unsupported_media_type",
			"Content-Type: application/json wanted");
	if (body.len == 0)
		return err_set(err, ERR_ARGUMENT, "body_missing",
			"body: a JSON object wanted, nothing found");
	if (!utf8_valid(body.data, body.len))
		return err_set(
			err, ERR_ARGUMENT, "json_not_utf8", "body: UTF-8 wanted (RFC 8259 8.1)");
	TRY(scan(body, err));
	memory_short = false;
	json = json_loadb((const char *)body.data, body.len,
		JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
	if (memory_short) {
		json_decref(json);
		return err_memory(err);
	}
	if (json == NULL)
		return refuse(err, &error);
	if (!json_is_object(json)) {
		json_decref(json);
		return err_set(err, ERR_ARGUMENT, "json_not_object", "body: a JSON object wanted");
	}
	*out = json;
	return OK;
}
