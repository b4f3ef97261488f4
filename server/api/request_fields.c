#include "server/api/request_fields.h"

#include <stdio.h>
#include <string.h>

#include "server/http/fields.h"

#define LOWER "abcdefghijklmnopqrstuvwxyz"
#define UPPER "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS "0123456789"

/* One to most characters, all of the set. */
static bool
is_word(const char *text, const char *set, size_t most)
{
	size_t len = strlen(text);

	return len > 0 && len <= most && strspn(text, set) == len;
}

enum status
read_thing_type(struct ca_request *out, const json_t *object, struct err *err)
{
	const char *text = NULL;

	TRY(fields_string(object, "thing_type", FIELD_OPTIONAL, sizeof(out->thing_type) - 1, &text, err));
	if (text == NULL)
		return OK;
	if (!is_word(text, LOWER UPPER DIGITS ":_-", sizeof(out->thing_type) - 1))
		return err_set(err, ERR_ARGUMENT, "thing_type_malformed",
			"thing_type: [A-Za-z0-9:_-]{1,128} wanted");
	(void)snprintf(out->thing_type, sizeof(out->thing_type), "%s", text);
	return OK;
}

static enum status
read_attribute(struct ca_attribute *out, const json_t *attributes, const char *name, struct err *err)
{
	const char *value = NULL;

	if (!is_word(name, LOWER DIGITS "_", sizeof(out->name) - 1))
		return err_set(err, ERR_ARGUMENT, "attribute_name_malformed",
			"attributes: names are [a-z0-9_]{1,32}");
	TRY(fields_string(attributes, name, FIELD_REQUIRED, sizeof(out->value) - 1, &value, err));
	(void)snprintf(out->name, sizeof(out->name), "%s", name);
	(void)snprintf(out->value, sizeof(out->value), "%s", value);
	return OK;
}

static enum status
write_canonical(char *out, size_t size, const json_t *attributes, struct err *err)
{
	size_t len = json_dumpb(attributes, out, size - 1, JSON_COMPACT | JSON_SORT_KEYS);

	if (len == 0)
		return err_memory(err);
	if (len > size - 1)
		return err_set(err, ERR_TOO_LARGE, "attributes_too_large",
			"attributes: at most %zu octets of JSON wanted, %zu found", size - 1, len);
	out[len] = '\0';
	return OK;
}

enum status
read_attributes(struct ca_request *out, char *canonical, size_t size, const json_t *object,
	struct err *err)
{
	const json_t *attributes = NULL;

	out->attribute_count = 0;
	(void)snprintf(canonical, size, "{}");
	TRY(fields_object(object, "attributes", FIELD_OPTIONAL, &attributes, err));
	if (attributes == NULL)
		return OK;
	if (json_object_size(attributes) > CA_ATTRIBUTES_MAX)
		return err_set(err, ERR_ARGUMENT, "attributes_too_many",
			"attributes: at most %d wanted, %zu found", CA_ATTRIBUTES_MAX,
			json_object_size(attributes));

	/* jansson iterates without const; the object is only read. */
	json_t *mutable = (json_t *)(uintptr_t)attributes;
	enum status status = OK;

	for (void *at = json_object_iter(mutable); at != NULL && status == OK;
	    at = json_object_iter_next(mutable, at))
		status = read_attribute(&out->attributes[out->attribute_count++], attributes,
			json_object_iter_key(at), err);
	if (status != OK)
		return status;
	return write_canonical(canonical, size, attributes, err);
}
