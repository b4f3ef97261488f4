#include "server/campaign_selector.h"

#include <string.h>

#include "ca/cert.h"
#include "ca/spki.h"
#include "db/device.h"
#include "server/app.h"
#include "server/http/fields.h"

static const char *const FIELDS[] = { "device_id", "station", "manifest", "profile", "ca", "issued_after",
	"issued_before", "expires_after", "expires_before", "thing_type", "key_type", "attributes",
	"device_ids", "everything", NULL };

static enum status
refuse(const char *what, struct err *err)
{
	return err_set(err, ERR_ARGUMENT, "selector_field", "selector.%s wanted", what);
}

static enum status
read_devices(struct campaign_selector *out, const json_t *json, struct err *err)
{
	size_t count = json_array_size(out->device_ids);

	if (json_object_size(json) != 1)
		return refuse("device_ids: no field beside it", err);
	if (count == 0 || count > CAMPAIGN_DEVICES_MAX)
		return refuse("device_ids: an array of 1 to 1000 ids", err);
	for (size_t i = 0; i < count; i++) {
		const char *id = json_string_value(json_array_get(out->device_ids, i));

		if (id == NULL || !fields_is_id(id))
			return refuse("device_ids: ids of [A-Za-z0-9:_-]{1,64}", err);
	}
	return OK;
}

static enum status
read_attributes(const struct campaign_selector *out, struct err *err)
{
	const char *name;
	json_t *value;

	if (!json_is_object(out->attributes) || json_object_size(out->attributes) == 0)
		return refuse("attributes: an object of strings", err);
	json_object_foreach(out->attributes, name, value)
		if (!json_is_string(value))
			return refuse("attributes: an object of strings", err);
	return OK;
}

static enum status
read_own(struct campaign_selector *out, const json_t *json, struct err *err)
{
	const json_t *everything = json_object_get(json, "everything");
	const json_t *key_type = json_object_get(json, "key_type");
	const json_t *thing_type = json_object_get(json, "thing_type");

	out->device_ids = json_object_get(json, "device_ids");
	out->attributes = json_object_get(json, "attributes");
	out->thing_type = json_string_value(thing_type);
	out->everything = json_is_true(everything);
	if (everything != NULL && !out->everything)
		return refuse("everything: true, or nothing,", err);
	if (thing_type != NULL && (out->thing_type == NULL || out->thing_type[0] == '\0'))
		return refuse("thing_type: a name", err);
	if (key_type != NULL && (!json_is_string(key_type) ||
	    !ca_key_type_parse(&out->key_type, json_string_value(key_type))))
		return refuse("key_type: ec-p256, ec-p384, rsa-2048, rsa-3072, rsa-4096 or ed25519", err);
	if (out->attributes != NULL)
		TRY(read_attributes(out, err));
	out->narrowed = key_type != NULL || thing_type != NULL || out->attributes != NULL;
	return out->device_ids != NULL ? read_devices(out, json, err) : OK;
}

static enum status
read_filter(struct campaign_selector *out, const struct app *app, const json_t *json, struct err *err)
{
	struct db_certificate_filter *filter = &out->filter;
	const char *ca_id = NULL;
	const struct app_ca *ca;

	TRY(fields_id(json, "device_id", FIELD_OPTIONAL, &filter->device_id, err));
	TRY(fields_id(json, "station", FIELD_OPTIONAL, &filter->principal_id, err));
	TRY(fields_id(json, "manifest", FIELD_OPTIONAL, &filter->manifest_id, err));
	TRY(fields_string(json, "profile", FIELD_OPTIONAL, DB_PROFILE_BYTES - 1, &filter->profile, err));
	TRY(fields_time(json, "issued_after", FIELD_OPTIONAL, &filter->issued_after_s, err));
	TRY(fields_time(json, "issued_before", FIELD_OPTIONAL, &filter->issued_before_s, err));
	TRY(fields_time(json, "expires_after", FIELD_OPTIONAL, &filter->expires_after_s, err));
	TRY(fields_time(json, "expires_before", FIELD_OPTIONAL, &filter->expires_before_s, err));
	TRY(fields_id(json, "ca", FIELD_OPTIONAL, &ca_id, err));
	if (ca_id == NULL)
		return OK;
	ca = app_ca_by_id(app, ca_id);
	if (ca == NULL)
		return refuse("ca: the id of one of our CAs", err);
	filter->issuer_id = ca->issuer_id;
	return OK;
}

enum status
campaign_selector_read(struct campaign_selector *out, const struct app *app, json_t *json,
	struct err *err)
{
	*out = (struct campaign_selector){ .filter = { .status = CERT_ACTIVE,
		.now_s = clock_wall_s(app->clock) } };
	if (!json_is_object(json))
		return err_set(err, ERR_ARGUMENT, "selector_field", "selector: an object wanted");
	if (json_object_size(json) == 0)
		return err_set(err, ERR_ARGUMENT, "selector_empty",
			"selector: at least one field wanted; the whole fleet is {everything: true}");
	TRY(fields_check(json, FIELDS, err));
	TRY(read_own(out, json, err));
	return read_filter(out, app, json, err);
}

static enum status
has_key_type(const struct campaign_selector *selector, const struct db_certificate *certificate,
	struct ca_verifier *verifier, bool *out, struct err *err)
{
	struct ca_cert_view view;
	enum ca_key_type type;

	TRY(ca_cert_parse(&view, view_of(&certificate->der), err));
	TRY(ca_spki_check(verifier, view.spki, &type, err));
	*out = type == selector->key_type;
	return OK;
}

static enum status
has_attributes(const struct campaign_selector *selector, const struct db_device *device, bool *out,
	struct err *err)
{
	own(json_t) stored = json_loads(device->attributes, JSON_REJECT_DUPLICATES, NULL);
	const char *name;
	json_t *value;

	if (stored == NULL)
		return err_memory(err);
	*out = true;
	json_object_foreach(selector->attributes, name, value)
		*out = *out && json_equal(json_object_get(stored, name), value);
	return OK;
}

enum status
campaign_selector_matches(const struct campaign_selector *selector, const struct db_device *device,
	const struct db_certificate *certificate, struct ca_verifier *verifier, bool *out,
	struct err *err)
{
	*out = selector->thing_type == NULL || strcmp(selector->thing_type, device->thing_type) == 0;
	if (*out && selector->attributes != NULL)
		TRY(has_attributes(selector, device, out, err));
	if (*out && selector->key_type != 0)
		TRY(has_key_type(selector, certificate, verifier, out, err));
	return OK;
}
