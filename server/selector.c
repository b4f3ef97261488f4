#include "server/selector.h"

#include <stdio.h>
#include <string.h>

#include "server/app.h"
#include "server/http/fields.h"

enum field_kind { KIND_TEXT, KIND_TIME, KIND_CA, KIND_KEY, KIND_DEVICES, KIND_ATTRIBUTES, KIND_ALL };

struct field {
	const char *name;
	enum field_kind kind;
	size_t offset, size; /* of the text's store, or of the time in the filter */
	size_t pointer;      /* KIND_TEXT: the filter's pointer to the store */
};

#define TEXT_FIELD(n, store, ptr)                                                                  \
	{ .name = (n), .kind = KIND_TEXT, .offset = offsetof(struct selector, store),             \
	  .size = sizeof(((struct selector *)0)->store),                                           \
	  .pointer = offsetof(struct selector, selection.filter.ptr) }
#define TIME_FIELD(n, store)                                                                       \
	{ .name = (n), .kind = KIND_TIME, .offset = offsetof(struct selector, selection.filter.store) }

static const struct field FIELDS[] = {
	TEXT_FIELD("device_id", device_id, device_id),
	TEXT_FIELD("station", station, principal_id),
	TEXT_FIELD("manifest", manifest, manifest_id),
	TEXT_FIELD("profile", profile, profile),
	{ .name = "ca", .kind = KIND_CA },
	TIME_FIELD("issued_after", issued_after_s),
	TIME_FIELD("issued_before", issued_before_s),
	TIME_FIELD("expires_after", expires_after_s),
	TIME_FIELD("expires_before", expires_before_s),
	{ .name = "spki_sha256", .kind = KIND_KEY },
	{ .name = "device_ids", .kind = KIND_DEVICES },
	{ .name = "attributes", .kind = KIND_ATTRIBUTES },
	{ .name = "all", .kind = KIND_ALL },
};

static enum status
refuse(const char *name, const char *wanted, struct err *err)
{
	return err_set(err, ERR_ARGUMENT, "selector_field", "selector.%s: %s wanted", name, wanted);
}

static enum status
text_read(struct selector *out, const struct field *field, const char *text, struct err *err)
{
	char *base = (char *)out;

	if (text[0] == '\0' || strlen(text) >= field->size)
		return refuse(field->name, "an id of 1 to 64 characters", err);
	(void)snprintf(base + field->offset, field->size, "%s", text);
	*(const char **)(void *)(base + field->pointer) = base + field->offset;
	return OK;
}

static enum status
time_read(struct selector *out, const struct field *field, const char *text, struct err *err)
{
	int64_t time_s;

	if (!time_parse(&time_s, view_text(text)) || time_s <= 0)
		return refuse(field->name, "an RFC 3339 time", err);
	*(int64_t *)(void *)((char *)out + field->offset) = time_s;
	return OK;
}

static enum status
ca_read(struct selector *out, const struct app *app, const struct field *field, const char *text,
	struct err *err)
{
	const struct app_ca *ca = app_ca_by_id(app, text);

	if (ca == NULL)
		return refuse(field->name, "the id of one of our CAs", err);
	out->selection.filter.issuer_id = ca->issuer_id;
	return OK;
}

static enum status
key_read(struct selector *out, const struct field *field, const char *text, struct err *err)
{
	if (!hex_decode(out->spki_sha256, sizeof(out->spki_sha256), text, strlen(text)))
		return refuse(field->name, "64 lower-case hex digits", err);
	out->selection.spki_sha256 = out->spki_sha256;
	out->named = true;
	return OK;
}

static enum status
devices_read(struct selector *out, const struct field *field, const json_t *value, struct err *err)
{
	const json_t *item;
	size_t i;

	if (!json_is_array(value) || json_array_size(value) == 0 ||
	    json_array_size(value) > SELECTOR_DEVICES_MAX)
		return refuse(field->name, "an array of 1 to 1000 device ids", err);
	json_array_foreach((json_t *)(uintptr_t)value, i, item) {
		if (!json_is_string(item) || !fields_is_id(json_string_value(item)))
			return refuse(field->name, "an array of 1 to 1000 device ids", err);
		out->device_ids[i] = json_string_value(item);
	}
	out->selection.device_ids = out->device_ids;
	out->selection.device_id_count = json_array_size(value);
	out->named = true;
	return OK;
}

static enum status
attributes_read(struct selector *out, const struct field *field, const json_t *value, struct err *err)
{
	const char *name;
	const json_t *text;
	size_t len;

	if (!json_is_object(value) || json_object_size(value) == 0 ||
	    json_object_size(value) > SELECTOR_ATTRIBUTES_MAX)
		return refuse(field->name, "an object of 1 to 16 texts", err);
	json_object_foreach((json_t *)(uintptr_t)value, name, text)
		if (!json_is_string(text))
			return refuse(field->name, "an object of 1 to 16 texts", err);
	len = json_dumpb(value, out->attributes, sizeof(out->attributes) - 1, JSON_COMPACT);
	if (len == 0 || len >= sizeof(out->attributes))
		return refuse(field->name, "at most 2047 octets", err);
	out->attributes[len] = '\0';
	out->selection.attributes = out->attributes;
	return OK;
}

static enum status
field_read(struct selector *out, const struct app *app, const struct field *field, const json_t *value,
	struct err *err)
{
	const char *text = json_string_value(value);

	if (text == NULL && field->kind <= KIND_KEY)
		return refuse(field->name, "a string", err);
	switch (field->kind) {
	case KIND_TEXT:
		return text_read(out, field, text, err);
	case KIND_TIME:
		return time_read(out, field, text, err);
	case KIND_CA:
		return ca_read(out, app, field, text, err);
	case KIND_KEY:
		return key_read(out, field, text, err);
	case KIND_DEVICES:
		return devices_read(out, field, value, err);
	case KIND_ATTRIBUTES:
		return attributes_read(out, field, value, err);
	case KIND_ALL:
		if (!json_is_true(value))
			return refuse(field->name, "true, or no such field,", err);
		out->all = true;
		return OK;
	}
	return err_set(err, ERR_INTERNAL, "selector", "field %s has no kind", field->name);
}

enum status
selector_read(struct selector *out, const struct app *app, const json_t *json, struct err *err)
{
	size_t known = 0;

	*out = (struct selector){ .selection.filter.now_s = clock_wall_s(app->clock) };
	if (!json_is_object(json))
		return err_set(err, ERR_ARGUMENT, "selector_field", "selector: an object wanted");
	for (size_t i = 0; i < COUNT_OF(FIELDS); i++) {
		const json_t *value = json_object_get(json, FIELDS[i].name);

		if (value == NULL)
			continue;
		TRY(field_read(out, app, &FIELDS[i], value, err));
		known++;
	}
	out->named = out->named || out->device_id[0] != '\0';
	if (known != json_object_size(json))
		return err_set(err, ERR_ARGUMENT, "selector_field",
			"selector: a field that is none of device_id, device_ids, station, manifest, profile,"
			" ca, issued_after, issued_before, expires_after, expires_before, spki_sha256,"
			" attributes, all");
	if (known == 0)
		return err_set(err, ERR_ARGUMENT, "selector_empty",
			"selector: at least one field wanted, or everything would be revoked");
	return OK;
}
