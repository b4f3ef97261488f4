#include "server/api/api.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "server/app.h"
#include "server/audit.h"
#include "server/auth.h"
#include "server/http/fields.h"

#define OBJECT_BYTES (DB_ID_BYTES + 32)
/* The end of the year 9999, the last that the database is asked about. */
#define PLACE_MOST_US INT64_C(253402300799999999)

enum status
api_set(json_t *object, const char *key, json_t *value, struct err *err)
{
	return json_object_set_new(object, key, value) == 0 ? OK : err_memory(err);
}

enum status
api_append(json_t *array, json_t *value, struct err *err)
{
	return json_array_append_new(array, value) == 0 ? OK : err_memory(err);
}

enum status
api_audit(struct app *app, struct db_tx *tx, struct request *request, const char *action,
	const char *kind, const char *id, json_t *detail, struct err *err)
{
	char object[OBJECT_BYTES];
	struct audit_item item = { .object = object, .detail = detail };
	struct audit_entry entry = {
		.action = action,
		.actor = request_identity(request)->actor,
		.request_id = request_id(request),
		.at_s = clock_wall_s(app->clock),
		.items = &item,
		.item_count = 1,
	};

	(void)snprintf(object, sizeof(object), "%s:%s", kind, id);
	return audit_write(app, tx, &entry, err);
}

enum status
api_reply_page(struct request *request, const char *name, json_t *items, const char *scope,
	const char *last, struct err *err)
{
	own(json_t) held = items;
	own(json_t) answer = json_object();
	char cursor[CURSOR_TEXT_BYTES];

	if (answer == NULL)
		return err_memory(err);
	TRY(api_set(answer, name, give(held), err));
	if (last != NULL)
		cursor_encode(cursor, scope, last, strlen(last));
	TRY(api_set(answer, "next_cursor", last != NULL ? json_string(cursor) : json_null(), err));
	return request_reply_json(request, 200, give(answer), err);
}

void
api_format_place(char *out, size_t size, const struct db_certificate_cursor *place)
{
	char serial[SERIAL_TEXT_BYTES];

	serial_format(serial, &place->serial);
	(void)snprintf(out, size, "%" PRId64 ":%s", place->at_us, serial);
}

enum status
api_query_place(const struct request *request, const char *scope, struct db_certificate_cursor *out,
	struct err *err)
{
	char text[64];
	char *end;

	*out = (struct db_certificate_cursor){ .set = false };
	TRY(query_cursor_text(request, scope, text, sizeof(text), err));
	if (text[0] == '\0')
		return OK;
	out->set = true;
	out->at_us = strtoll(text, &end, 10);
	if (*end != ':' || !serial_parse(&out->serial, end + 1, strlen(end + 1)) || out->at_us < 0 ||
	    out->at_us > PLACE_MOST_US)
		return err_set(err, ERR_ARGUMENT, "cursor_malformed", "cursor: not one of ours");
	return OK;
}

enum status
api_json_or_empty(struct request *request, json_t **out, struct err *err)
{
	if (request_body(request).len > 0)
		return request_json(request, out, err);
	*out = json_object();
	return *out != NULL ? OK : err_memory(err);
}

enum status
api_no_fields(struct request *request, struct err *err)
{
	static const char *const NONE[] = { NULL };
	own(json_t) body = NULL;

	TRY(api_json_or_empty(request, &body, err));
	return fields_check(body, NONE, err);
}
