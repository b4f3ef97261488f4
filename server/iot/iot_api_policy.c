#include "server/iot/iot_api_internal.h"

void
iot_policy_free(struct iot_policy *policy)
{
	bytes_free(&policy->document);
}

static enum status
read_policy(struct iot *iot, const json_t *json, const char *version, struct iot_policy *out,
	struct err *err)
{
	TRY(iot_text(iot, json, "policyName", out->name, sizeof(out->name), err));
	TRY(iot_text(iot, json, "policyArn", out->arn, sizeof(out->arn), err));
	TRY(iot_text(iot, json, version, out->version, sizeof(out->version), err));
	return iot_bytes(iot, json, "policyDocument", &out->document, err);
}

enum status
iot_create_policy(struct iot *iot, const char *name, const char *document, struct iot_policy *out,
	struct err *err)
{
	own_struct(iot_request) request = { .op = OP_CREATE_POLICY, .labels = { name } };
	own_struct(iot_policy) unread = { .document = { NULL, 0 } };
	own(json_t) answer = NULL;

	if (out != NULL)
		*out = (struct iot_policy){ .document = { NULL, 0 } };
	TRY(iot_check(FORM_POLICY, "policy", name, err));
	TRY(iot_check(FORM_TEXT, "document", document, err));
	TRY(iot_body(&request, json_pack("{s:s}", "policyDocument", document), err));
	TRY(iot_run(iot, &request, &answer, err));
	return read_policy(iot, answer, "policyVersionId", out != NULL ? out : &unread, err);
}

enum status
iot_get_policy(struct iot *iot, const char *name, struct iot_policy *out, struct err *err)
{
	own_struct(iot_request) request = { .op = OP_GET_POLICY, .labels = { name } };
	own(json_t) answer = NULL;

	*out = (struct iot_policy){ .document = { NULL, 0 } };
	TRY(iot_check(FORM_POLICY, "policy", name, err));
	TRY(iot_run(iot, &request, &answer, err));
	return read_policy(iot, answer, "defaultVersionId", out, err);
}

enum status
iot_create_policy_version(struct iot *iot, const char *name, const char *document, bool set_default,
	struct iot_policy_version *out, struct err *err)
{
	own_struct(iot_request) request = { .op = OP_CREATE_POLICY_VERSION, .labels = { name } };
	own(json_t) answer = NULL;

	*out = (struct iot_policy_version){ .is_default = false };
	TRY(iot_check(FORM_POLICY, "policy", name, err));
	TRY(iot_check(FORM_TEXT, "document", document, err));
	iot_query(&request, "setAsDefault", set_default ? "true" : "false");
	TRY(iot_body(&request, json_pack("{s:s}", "policyDocument", document), err));
	TRY(iot_run(iot, &request, &answer, err));
	out->is_default = json_is_true(json_object_get(answer, "isDefaultVersion"));
	return iot_text(iot, answer, "policyVersionId", out->id, sizeof(out->id), err);
}

/* An operation on one version that answers nothing. */
static enum status
change_version(
	struct iot *iot, enum iot_op op, const char *name, const char *version, struct err *err)
{
	own_struct(iot_request) request = { .op = op, .labels = { name, version } };

	TRY(iot_check(FORM_POLICY, "policy", name, err));
	TRY(iot_check(FORM_VERSION, "version", version, err));
	return iot_run(iot, &request, NULL, err);
}

enum status
iot_set_default_policy_version(
	struct iot *iot, const char *name, const char *version, struct err *err)
{
	return change_version(iot, OP_SET_DEFAULT_POLICY_VERSION, name, version, err);
}

enum status
iot_delete_policy_version(struct iot *iot, const char *name, const char *version, struct err *err)
{
	return change_version(iot, OP_DELETE_POLICY_VERSION, name, version, err);
}

enum status
iot_list_policy_versions(struct iot *iot, const char *name,
	struct iot_policy_version items[IOT_POLICY_VERSIONS_MAX], size_t *count, struct err *err)
{
	own_struct(iot_request) request = { .op = OP_LIST_POLICY_VERSIONS, .labels = { name } };
	own(json_t) answer = NULL;
	const json_t *array;

	*count = 0;
	TRY(iot_check(FORM_POLICY, "policy", name, err));
	TRY(iot_run(iot, &request, &answer, err));
	array = json_object_get(answer, "policyVersions");
	if (!json_is_array(array) || json_array_size(array) > IOT_POLICY_VERSIONS_MAX)
		return iot_malformed(iot, "policyVersions", err);
	for (size_t i = 0; i < json_array_size(array); i++) {
		const json_t *item = json_array_get(array, i);

		TRY(iot_text(iot, item, "versionId", items[i].id, sizeof(items[i].id), err));
		items[i].is_default = json_is_true(json_object_get(item, "isDefaultVersion"));
		items[i].creation_s = iot_time_s(item, "createDate");
	}
	*count = json_array_size(array);
	return OK;
}

static enum status
change_attachment(
	struct iot *iot, enum iot_op op, const char *name, const char *target, struct err *err)
{
	own_struct(iot_request) request = { .op = op, .labels = { name } };

	TRY(iot_check(FORM_POLICY, "policy", name, err));
	TRY(iot_check(FORM_ARN, "target", target, err));
	TRY(iot_body(&request, json_pack("{s:s}", "target", target), err));
	return iot_run(iot, &request, NULL, err);
}

enum status
iot_attach_policy(struct iot *iot, const char *name, const char *target, struct err *err)
{
	return change_attachment(iot, OP_ATTACH_POLICY, name, target, err);
}

enum status
iot_detach_policy(struct iot *iot, const char *name, const char *target, struct err *err)
{
	enum status status = change_attachment(iot, OP_DETACH_POLICY, name, target, err);

	/* The model knows no such answer, some implementations give it: what is not attached is
	 * detached. */
	return status == ERR_NOT_FOUND ? OK : status;
}

static enum status
read_policy_name(struct iot *iot, const json_t *item, void *arg, struct err *err)
{
	struct iot_name *out = arg;

	return iot_text(iot, item, "policyName", out->text, sizeof(out->text), err);
}

enum status
iot_list_attached_policies(struct iot *iot, const char *target, bool recursive,
	struct iot_cursor *cursor, struct iot_name *policies, size_t max, size_t *count,
	struct err *err)
{
	static const struct iot_list LIST = { PAGING_MARKER, "policies", read_policy_name,
		sizeof(*policies) };
	own_struct(iot_request) request = { .op = OP_LIST_ATTACHED_POLICIES, .labels = { target } };

	TRY(iot_check(FORM_ARN, "target", target, err));
	iot_query(&request, "recursive", recursive ? "true" : "false");
	return iot_list(iot, &request, &LIST, cursor, policies, max, count, err);
}
