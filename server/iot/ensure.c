#include "server/iot/ensure.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "ca/file.h"

#define POLICY_MAX_BYTES (256 * 1024)

static bool
is_ensured(struct iot_site *site, const char *kind, const char *name)
{
	char key[sizeof(site->ensured[0])];
	bool found = false;

	(void)snprintf(key, sizeof(key), "%s:%s", kind, name);
	(void)pthread_mutex_lock(&site->lock);
	for (size_t i = 0; i < site->ensured_count && !found; i++)
		found = strcmp(site->ensured[i], key) == 0;
	(void)pthread_mutex_unlock(&site->lock);
	return found;
}

static void
note_ensured(struct iot_site *site, const char *kind, const char *name)
{
	(void)pthread_mutex_lock(&site->lock);
	if (site->ensured_count == IOT_ENSURED_MAX)
		site->ensured_count = 0; /* asked for anew, that is all */
	(void)snprintf(site->ensured[site->ensured_count++], sizeof(site->ensured[0]), "%s:%s", kind,
		name);
	(void)pthread_mutex_unlock(&site->lock);
}

void
iot_forget_ensured(struct iot_site *site)
{
	(void)pthread_mutex_lock(&site->lock);
	site->ensured_count = 0;
	(void)pthread_mutex_unlock(&site->lock);
}

static enum status
read_policy(struct bytes *out, const struct iot_target *target, const char *name, struct err *err)
{
	own_struct(buf) text = { .limit_bytes = POLICY_MAX_BYTES + 1 };
	own_struct(bytes) file = { NULL, 0 };
	char path[FILE_PATH_BYTES];
	enum status status;

	TRY(file_path(path, target->policies_dir, name, ".json", err));
	status = file_read(&file, path, POLICY_MAX_BYTES, err);
	if (status == ERR_NOT_FOUND)
		return err_set(err, ERR_ARGUMENT, "iot_policy_missing",
			"policy %s: neither IoT Core nor %s has it", name, path);
	TRY(status);
	TRY(buf_add(&text, file.data, file.len, err));
	TRY(buf_add(&text, "", 1, err));
	*out = buf_give(&text);
	return OK;
}

enum status
iot_ensure_policy(struct iot_site *site, struct iot *iot, const char *name, struct err *err)
{
	own_struct(iot_policy) found = { .name = "" };
	own_struct(bytes) document = { NULL, 0 };
	enum status status;

	if (is_ensured(site, "policy", name))
		return OK;
	status = iot_get_policy(iot, name, &found, err);
	if (status == ERR_NOT_FOUND) {
		TRY(read_policy(&document, site->target, name, err));
		status = iot_create_policy(iot, name, (const char *)document.data, NULL, err);
		if (status == ERR_CONFLICT && iot->failure.error == AWS_ERROR_EXISTS)
			status = OK;
		if (status == OK)
			log_event(LOG_INFO, "iot_policy_created", NULL, LOG_STR("policy", name),
				LOG_STR("target", site->target->name));
	}
	TRY(status);
	note_ensured(site, "policy", name);
	return OK;
}

enum status
iot_ensure_type(struct iot_site *site, struct iot *iot, const char *name, struct err *err)
{
	struct iot_made made;
	enum status status;

	if (is_ensured(site, "type", name))
		return OK;
	status = iot_create_thing_type(iot, name, NULL, NULL, 0, &made, err);
	if (status == ERR_CONFLICT && iot->failure.error == AWS_ERROR_EXISTS)
		status = OK;
	TRY(status);
	note_ensured(site, "type", name);
	return OK;
}

static enum status
make_group(struct iot *iot, const char *name, const char *description, struct err *err)
{
	struct iot_made made;
	enum status status = iot_create_thing_group(iot, name, NULL, description, &made, err);

	return status == ERR_CONFLICT && iot->failure.error == AWS_ERROR_EXISTS ? OK : status;
}

enum status
iot_ensure_group(struct iot_site *site, struct iot *iot, const char *name, struct err *err)
{
	if (is_ensured(site, "of", name)) /* "group" has its policy as well */
		return OK;
	TRY(make_group(iot, name, NULL, err));
	note_ensured(site, "of", name);
	return OK;
}

enum status
iot_ensure_quarantine(struct iot_site *site, struct iot *iot, struct err *err)
{
	const struct iot_target *target = site->target;
	char arn[IOT_ARN_BYTES];

	if (is_ensured(site, "group", target->quarantine_group))
		return OK;
	TRY(iot_ensure_policy(site, iot, target->quarantine_policy, err));
	TRY(make_group(iot, target->quarantine_group, "Devices that jitrca has quarantined", err));
	iot_target_group_arn(arn, target, target->quarantine_group);
	TRY(iot_attach_policy(iot, target->quarantine_policy, arn, err));
	note_ensured(site, "group", target->quarantine_group);
	return OK;
}
