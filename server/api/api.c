#include "server/api/api.h"

#include <stdio.h>
#include <string.h>

#include "server/app.h"
#include "server/audit.h"
#include "server/auth.h"
#include "server/http/fields.h"

#define OBJECT_BYTES (DB_ID_BYTES + 32)

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
