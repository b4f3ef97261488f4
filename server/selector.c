#include "server/selector.h"

#include <stdio.h>
#include <string.h>

#include "server/app.h"

enum field_kind { FIELD_TEXT, FIELD_TIME, FIELD_CA };

struct field {
	const char *name;
	enum field_kind kind;
	size_t offset, size; /* of the text's store, or of the time in the filter */
	size_t pointer;      /* FIELD_TEXT: the filter's pointer to the store */
};

#define TEXT_FIELD(n, store, ptr)                                                                  \
	{ .name = (n), .kind = FIELD_TEXT, .offset = offsetof(struct selector, store),             \
	  .size = sizeof(((struct selector *)0)->store),                                           \
	  .pointer = offsetof(struct selector, filter.ptr) }
#define TIME_FIELD(n, store)                                                                       \
	{ .name = (n), .kind = FIELD_TIME, .offset = offsetof(struct selector, filter.store) }

static const struct field FIELDS[] = {
	TEXT_FIELD("device_id", device_id, device_id),
	TEXT_FIELD("station", station, principal_id),
	TEXT_FIELD("manifest", manifest, manifest_id),
	TEXT_FIELD("profile", profile, profile),
	{ .name = "ca", .kind = FIELD_CA },
	TIME_FIELD("issued_after", issued_after_s),
	TIME_FIELD("issued_before", issued_before_s),
	TIME_FIELD("expires_after", expires_after_s),
	TIME_FIELD("expires_before", expires_before_s),
};

static enum status
refuse(const char *name, const char *wanted, struct err *err)
{
	return err_set(err, ERR_ARGUMENT, "selector_field", "selector.%s: %s wanted", name, wanted);
}

static enum status
field_read(struct selector *out, const struct app *app, const struct field *field, const char *text,
	struct err *err)
{
	char *base = (char *)out;
	const struct app_ca *ca;
	int64_t time_s;

	switch (field->kind) {
	case FIELD_TEXT:
		if (text[0] == '\0' || strlen(text) >= field->size)
			return refuse(field->name, "an id of 1 to 64 characters", err);
		(void)snprintf(base + field->offset, field->size, "%s", text);
		*(const char **)(void *)(base + field->pointer) = base + field->offset;
		return OK;
	case FIELD_TIME:
		if (!time_parse(&time_s, view_text(text)) || time_s <= 0)
			return refuse(field->name, "an RFC 3339 time", err);
		*(int64_t *)(void *)(base + field->offset) = time_s;
		return OK;
	case FIELD_CA:
		ca = app_ca_by_id(app, text);
		if (ca == NULL)
			return refuse(field->name, "the id of one of our CAs", err);
		out->filter.issuer_id = ca->issuer_id;
		return OK;
	}
	return err_set(err, ERR_INTERNAL, "selector", "field %s has no kind", field->name);
}

enum status
selector_read(struct selector *out, const struct app *app, const json_t *json, struct err *err)
{
	size_t known = 0;

	*out = (struct selector){ .filter = { .now_s = clock_wall_s(app->clock) } };
	if (!json_is_object(json))
		return err_set(err, ERR_ARGUMENT, "selector_field", "selector: an object wanted");
	for (size_t i = 0; i < COUNT_OF(FIELDS); i++) {
		const json_t *value = json_object_get(json, FIELDS[i].name);

		if (value == NULL)
			continue;
		if (!json_is_string(value))
			return refuse(FIELDS[i].name, "a string", err);
		TRY(field_read(out, app, &FIELDS[i], json_string_value(value), err));
		known++;
	}
	if (known != json_object_size(json))
		return err_set(err, ERR_ARGUMENT, "selector_field",
			"selector: a field that is none of device_id, station, manifest, profile, ca,"
			" issued_after, issued_before, expires_after, expires_before");
	if (known == 0)
		return err_set(err, ERR_ARGUMENT, "selector_empty",
			"selector: at least one field wanted, or everything would be revoked");
	return OK;
}
