#include "server/iot/target.h"

#include <stdio.h>
#include <string.h>

#include "ca/file.h"
#include "server/http/fields.h"

#define FILE_MAX_BYTES (256 * 1024)
#define SECRET_MIN_BYTES 16
#define SECRET_MAX_BYTES 512
#define TPS_MAX 100000.0
#define MQTT_PORT 8883

#define DIGITS "0123456789"
#define LOWER "abcdefghijklmnopqrstuvwxyz"
#define UPPER "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

static enum status
bad(struct err *err, const char *field, const char *rule)
{
	return err_set(err, ERR_ARGUMENT, "iot_targets_invalid", "%s: %s", field, rule);
}

static enum status
read_path(char *out, size_t size, const json_t *object, const char *name, struct err *err)
{
	return fields_copy(out, size, object, name, FIELD_OPTIONAL, NULL, "", err);
}

#define HOST_CHARS LOWER UPPER DIGITS ".-"

static enum status
read_mqtt(struct iot_target *out, const json_t *object, struct err *err)
{
	static const char *const ALLOWED[] = { "host", "port", "shared", "ca_file", NULL };

	out->mqtt.port = MQTT_PORT;
	TRY(fields_check(object, ALLOWED, err));
	TRY(fields_copy(out->mqtt.host, sizeof(out->mqtt.host), object, "host", FIELD_REQUIRED,
		HOST_CHARS, "a host's name wanted", err));
	TRY(fields_int(object, "port", FIELD_OPTIONAL, 1, 65535, &out->mqtt.port, err));
	TRY(fields_bool(object, "shared", FIELD_OPTIONAL, &out->mqtt.shared, err));
	return read_path(out->mqtt.ca_file, sizeof(out->mqtt.ca_file), object, "ca_file", err);
}

/* The first line of the file; white space around it is none of the secret. */
static enum status
read_secret(struct iot_target *out, const char *path, struct err *err)
{
	own_struct(secret) whole = { NULL, 0 };
	size_t len;

	TRY(secret_read_file(&whole, path, SECRET_MAX_BYTES, err));
	len = whole.len;
	while (len > 0 && strchr("\r\n\t ", whole.data[len - 1]) != NULL)
		len--;
	if (len < SECRET_MIN_BYTES)
		return bad(err, "webhook.secret_file", "a secret of 16 to 512 octets wanted");
	return secret_copy(&out->webhook.secret, (struct view){ whole.data, len }, err);
}

static enum status
read_webhook(struct iot_target *out, const json_t *object, struct err *err)
{
	static const char *const ALLOWED[] = { "secret_file", "host", "header", NULL };
	char path[CONFIG_TEXT_BYTES] = "";

	(void)snprintf(out->webhook.header, sizeof(out->webhook.header), IOT_HEADER_DEFAULT);
	TRY(fields_check(object, ALLOWED, err));
	TRY(fields_copy(path, sizeof(path), object, "secret_file", FIELD_REQUIRED, NULL, "", err));
	TRY(fields_copy(out->webhook.host, sizeof(out->webhook.host), object, "host", FIELD_OPTIONAL,
		HOST_CHARS ":", "a host's name wanted", err));
	TRY(fields_copy(out->webhook.header, sizeof(out->webhook.header), object, "header",
		FIELD_OPTIONAL, LOWER DIGITS "-", "a header's name in lower case wanted", err));
	return read_secret(out, path, err);
}

static enum status
read_quotas(struct iot_target *out, const json_t *object, struct err *err)
{
	const char *name;
	json_t *value;

	json_object_foreach((json_t *)(uintptr_t)object, name, value) {
		struct aws_quota *quota = &out->quotas[out->quota_count];

		if (out->quota_count == IOT_QUOTAS_MAX)
			return bad(err, "quotas", "at most 32 operations wanted");
		if (!json_is_number(value) || json_number_value(value) <= 0 ||
		    json_number_value(value) > TPS_MAX)
			return bad(err, "quotas", "calls a second above 0 wanted");
		(void)snprintf(out->quota_names[out->quota_count], AWS_NAME_BYTES, "%s", name);
		*quota = (struct aws_quota){ .operation = out->quota_names[out->quota_count],
			.per_second = json_number_value(value) };
		out->quota_count++;
	}
	return OK;
}

static enum status
read_quarantine(struct iot_target *out, const json_t *object, struct err *err)
{
	static const char *const ALLOWED[] = { "group", "policy", NULL };

	TRY(fields_check(object, ALLOWED, err));
	TRY(fields_copy(out->quarantine_group, sizeof(out->quarantine_group), object, "group",
		FIELD_OPTIONAL, LOWER UPPER DIGITS ":_-", "[a-zA-Z0-9:_-]{1,128} wanted", err));
	return fields_copy(out->quarantine_policy, sizeof(out->quarantine_policy), object, "policy",
		FIELD_OPTIONAL, LOWER UPPER DIGITS "_+=,.@-", "a policy's name wanted", err);
}

static const struct {
	const char *name;
	enum status (*read)(struct iot_target *out, const json_t *object, struct err *err);
} PARTS[] = {
	{ "mqtt", read_mqtt },
	{ "webhook", read_webhook },
	{ "quotas", read_quotas },
	{ "quarantine", read_quarantine },
};

static enum status
read_parts(struct iot_target *out, const json_t *object, struct err *err)
{
	for (size_t i = 0; i < COUNT_OF(PARTS); i++) {
		const json_t *part = NULL;

		TRY(fields_object(object, PARTS[i].name, FIELD_OPTIONAL, &part, err));
		if (part != NULL && PARTS[i].read(out, part, err) != OK)
			return err_wrap(err, "%s", PARTS[i].name);
	}
	return OK;
}

static enum status
read_target(struct iot_target *out, const struct config *config, const json_t *object,
	struct err *err)
{
	static const char *const ALLOWED[] = { "name", "region", "account", "endpoint_url", "ca_file",
		"profile", "certificate_mode", "mqtt", "webhook", "quotas", "policies_dir",
		"quarantine", NULL };
	static const char *const MODES[] = { "DEFAULT", "SNI_ONLY", NULL };
	const char *mode = "SNI_ONLY";

	(void)snprintf(out->quarantine_group, sizeof(out->quarantine_group), "jitrca-quarantine");
	(void)snprintf(out->quarantine_policy, sizeof(out->quarantine_policy), "jitrca-quarantine");
	if (snprintf(out->policies_dir, sizeof(out->policies_dir), "%s/policies",
		    config->profiles_dir) >= (int)sizeof(out->policies_dir))
		return bad(err, "policies_dir", "a shorter path wanted");
	TRY(fields_check(object, ALLOWED, err));
	TRY(fields_copy(out->name, sizeof(out->name), object, "name", FIELD_REQUIRED, LOWER DIGITS "-",
		"[a-z0-9][a-z0-9-]{0,31} wanted", err));
	if (out->name[0] == '-')
		return bad(err, "name", "[a-z0-9][a-z0-9-]{0,31} wanted");
	TRY(fields_copy(out->region, sizeof(out->region), object, "region", FIELD_REQUIRED,
		LOWER DIGITS "-", "a Region's name wanted", err));
	TRY(fields_copy(out->account, sizeof(out->account), object, "account", FIELD_REQUIRED, DIGITS,
		"twelve digits wanted", err));
	if (strlen(out->account) != 12)
		return bad(err, "account", "twelve digits wanted");
	TRY(read_path(out->endpoint_url, sizeof(out->endpoint_url), object, "endpoint_url", err));
	TRY(read_path(out->ca_file, sizeof(out->ca_file), object, "ca_file", err));
	TRY(read_path(out->profile, sizeof(out->profile), object, "profile", err));
	TRY(read_path(out->policies_dir, sizeof(out->policies_dir), object, "policies_dir", err));
	TRY(fields_choice(object, "certificate_mode", FIELD_OPTIONAL, MODES, &mode, err));
	out->mode = strcmp(mode, "DEFAULT") == 0 ? IOT_MODE_DEFAULT : IOT_MODE_SNI_ONLY;
	return read_parts(out, object, err);
}

static enum status
read_all(struct iot_targets *out, const struct config *config, const json_t *list, struct err *err)
{
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *entry = json_array_get(list, i);

		if (!json_is_object(entry))
			return bad(err, "targets", "an array of objects wanted");
		out->count++;
		if (read_target(&out->at[i], config, entry, err) != OK)
			return err_wrap(err, "targets[%zu]", i);
		for (size_t k = 0; k < i; k++)
			if (strcmp(out->at[k].name, out->at[i].name) == 0)
				return bad(err, "name", "each target's own wanted");
	}
	return OK;
}

enum status
iot_targets_read(struct iot_targets *out, const struct config *config, struct err *err)
{
	own_struct(bytes) text = { NULL, 0 };
	own(json_t) list = NULL;
	json_error_t where;
	enum status status;

	out->count = 0;
	if (config->iot_targets_file[0] == '\0')
		return OK;
	TRY(file_read(&text, config->iot_targets_file, FILE_MAX_BYTES, err));
	list = json_loadb((const char *)text.data, text.len, JSON_REJECT_DUPLICATES, &where);
	if (list == NULL)
		return err_set(err, ERR_ARGUMENT, "iot_targets_invalid", "%s:%d: JSON wanted: %s",
			config->iot_targets_file, where.line, where.text);
	if (!json_is_array(list) || json_array_size(list) > IOT_TARGETS_MAX)
		return err_set(err, ERR_ARGUMENT, "iot_targets_invalid",
			"%s: an array of at most %d targets wanted", config->iot_targets_file,
			IOT_TARGETS_MAX);
	status = read_all(out, config, list, err);
	if (status == ERR_ARGUMENT)
		(void)snprintf(err->code, sizeof(err->code), "iot_targets_invalid");
	return status == OK ? OK : err_wrap(err, "%s", config->iot_targets_file);
}

void
iot_targets_free(struct iot_targets *targets)
{
	for (size_t i = 0; i < targets->count; i++)
		secret_free(&targets->at[i].webhook.secret);
	targets->count = 0;
}

static const char *
partition_of(const struct iot_target *target)
{
	if (strncmp(target->region, "cn-", 3) == 0)
		return "aws-cn";
	return strncmp(target->region, "us-gov-", 7) == 0 ? "aws-us-gov" : "aws";
}

void
iot_target_cert_arn(char out[IOT_ARN_BYTES], const struct iot_target *target, const char *id)
{
	(void)snprintf(out, IOT_ARN_BYTES, "arn:%s:iot:%s:%s:cert/%s", partition_of(target),
		target->region, target->account, id);
}

void
iot_target_group_arn(char out[IOT_ARN_BYTES], const struct iot_target *target, const char *group)
{
	(void)snprintf(out, IOT_ARN_BYTES, "arn:%s:iot:%s:%s:thinggroup/%s", partition_of(target),
		target->region, target->account, group);
}
