/* Policies, their versions, and what they are attached to; with the deprecated principal forms. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/entropy.h"
#include "db/iotcore_policy.h"
#include "server/iotcore/policy.h"
#include "server/iotcore/registry.h"
#include "server/iotcore/tables.h"
#include "server/iotcore/targets.h"

/* AWS's quotas. */
#define VERSIONS_MOST 5
#define PER_CERTIFICATE_MOST 10
#define PER_GROUP_MOST 2

/* ---- documents ---- */

static enum status
check_document(const char *document, struct err *err)
{
	struct view json = view_text(document);
	own(iot_policy) parsed = NULL;
	struct err why;

	if (policy_document_chars(json) > POLICY_DOCUMENT_MAX_CHARS)
		return iotcore_error(err, "MalformedPolicyException",
			"Policy document is too long: at most %d characters besides white space",
			POLICY_DOCUMENT_MAX_CHARS);
	if (policy_parse(&parsed, json, &why) == OK)
		return OK;
	if (why.status != ERR_ARGUMENT)
		return (*err = why).status;
	return iotcore_error(
		err, "MalformedPolicyException", "Policy document is Malformed: %.350s", why.text);
}

static enum status
draw_generation(char out[DB_IOTCORE_GENERATION_BYTES], struct err *err)
{
	uint8_t random[32];

	TRY(entropy_fill(&ENTROPY_SYSTEM, random, sizeof(random), err));
	hex_encode(out, random, sizeof(random));
	return OK;
}

/* ---- policies ---- */

static enum status
missing(const char *name, struct err *err)
{
	return iotcore_error(err, "ResourceNotFoundException", "Policy not found: %s", name);
}

static enum status
find(struct call *call, struct db_iotcore_policy *out, struct err *err)
{
	const char *name = call_text(call, "policyName");
	enum status status = db_iotcore_policy_find(call->tx, name, out, err);

	return status == ERR_NOT_FOUND ? missing(name, err) : status;
}

static enum status
create(struct call *call, struct err *err)
{
	const char *name = call_text(call, "policyName");
	const char *document = call_text(call, "policyDocument");
	char generation[DB_IOTCORE_GENERATION_BYTES];
	char arn[IOTCORE_ARN_BYTES];
	bool made;

	TRY(check_document(document, err));
	TRY(draw_generation(generation, err));
	iotcore_arn(arn, call->core, "policy/%s", name);
	TRY(db_iotcore_policy_insert(call->tx, name, document, generation, &made, err));
	if (!made)
		return iotcore_exists(call, err, name, arn,
			"Policy cannot be created - name already exists (name=%s)", name);
	TRY(iotcore_tags_put(call, arn, call_json(call, "tags"), err));
	return call_reply(call,
		json_pack("{s:s,s:s,s:s,s:s}", "policyName", name, "policyArn", arn,
			"policyDocument", document, "policyVersionId", "1"),
		err);
}

/* Answers with one version of a policy; whole: with what GetPolicyVersion says besides. */
struct version_answer {
	struct call *call;
	const struct db_iotcore_policy *policy;
	bool whole, found;
};

static enum status
answer_version(void *arg, const struct db_iotcore_policy_version *version, struct err *err)
{
	struct version_answer *it = arg;
	const struct db_iotcore_policy *policy = it->policy;
	char arn[IOTCORE_ARN_BYTES];
	char number[16];
	json_t *reply;

	it->found = true;
	iotcore_arn(arn, it->call->core, "policy/%s", policy->name);
	(void)snprintf(number, sizeof(number), "%" PRId32, version->version);
	reply = json_pack("{s:s,s:s,s:s%,s:s,s:o,s:o,s:s}", "policyName", policy->name, "policyArn",
		arn, "policyDocument", (const char *)version->document.data, version->document.len,
		it->whole ? "policyVersionId" : "defaultVersionId", number, "creationDate",
		iotcore_time(it->whole ? version->created_us : policy->created_us),
		"lastModifiedDate",
		iotcore_time(it->whole ? version->created_us : policy->modified_us), "generationId",
		policy->generation);
	if (it->whole && json_object_set_new(reply, "isDefaultVersion",
				 json_boolean(version->is_default)) != 0) {
		json_decref(reply);
		return err_memory(err);
	}
	return call_reply(it->call, reply, err);
}

static enum status
get(struct call *call, struct err *err)
{
	struct db_iotcore_policy policy;
	struct version_answer answer = { .call = call, .policy = &policy };

	TRY(find(call, &policy, err));
	return db_iotcore_policy_versions(
		call->tx, policy.name, policy.default_version, answer_version, &answer, err);
}

static enum status
delete_policy(struct call *call, struct err *err)
{
	struct db_iotcore_policy policy;
	int64_t versions, targets;
	char arn[IOTCORE_ARN_BYTES];

	TRY(find(call, &policy, err));
	TRY(db_iotcore_policy_held(call->tx, policy.name, &versions, &targets, err));
	if (targets > 0)
		return iotcore_error(err, "DeleteConflictException",
			"The policy cannot be deleted as the policy is attached to one or more "
			"principals (name=%s)",
			policy.name);
	if (versions > 1)
		return iotcore_error(err, "DeleteConflictException",
			"Cannot delete the policy because it has one or more policy versions "
			"attached to it (name=%s)",
			policy.name);
	TRY(db_iotcore_policy_delete(call->tx, policy.name, err));
	iotcore_arn(arn, call->core, "policy/%s", policy.name);
	return iotcore_tags_drop(call, arn, err);
}

static enum status
add_policy(void *arg, const char *name, struct err *err)
{
	struct listing *list = arg;
	char arn[IOTCORE_ARN_BYTES];

	iotcore_arn(arn, list->call->core, "policy/%s", name);
	return listing_add(
		list, name, json_pack("{s:s,s:s}", "policyName", name, "policyArn", arn), err);
}

/* Where a list goes on: from its start, an empty text, or going down from its end, nothing. */
static const char *
after_of(const struct call *call)
{
	const char *first = call->page.ascending ? "" : NULL;

	return call->page.after != NULL ? call->page.after : first;
}

static enum status
list_policies(struct call *call, struct err *err)
{
	own_struct(listing) list = { .items = NULL };

	TRY(listing_begin(&list, call, err));
	TRY(db_iotcore_policy_list(call->tx, after_of(call), call->page.ascending,
		listing_limit(&list), add_policy, &list, err));
	return listing_end(&list, "policies", err);
}

/* ---- versions ---- */

static enum status
create_version(struct call *call, struct err *err)
{
	const char *document = call_text(call, "policyDocument");
	bool is_default = call_flag(call, "setAsDefault", false);
	char generation[DB_IOTCORE_GENERATION_BYTES];
	struct db_iotcore_policy policy;
	int64_t versions, targets;
	char arn[IOTCORE_ARN_BYTES];
	int32_t version;
	char number[16];

	TRY(find(call, &policy, err));
	TRY(check_document(document, err));
	TRY(db_iotcore_policy_held(call->tx, policy.name, &versions, &targets, err));
	if (versions >= VERSIONS_MOST)
		return iotcore_error(err, "VersionsLimitExceededException",
			"The policy %s already has the maximum number of versions (%d)",
			policy.name, VERSIONS_MOST);
	TRY(draw_generation(generation, err));
	TRY(db_iotcore_policy_version_add(
		call->tx, policy.name, document, is_default, generation, &version, err));
	iotcore_arn(arn, call->core, "policy/%s", policy.name);
	(void)snprintf(number, sizeof(number), "%" PRId32, version);
	return call_reply(call,
		json_pack("{s:s,s:s,s:s,s:b}", "policyArn", arn, "policyDocument", document,
			"policyVersionId", number, "isDefaultVersion", is_default),
		err);
}

/* Version numbers are digits of any length by the pattern; ours have at most nine. */
static int32_t
wanted_version(const struct call *call)
{
	const char *text = call_text(call, "policyVersionId");
	int32_t number = 0;

	if (strlen(text) > 9)
		return INT32_MAX;
	for (; *text != '\0'; text++)
		number = number * 10 + (*text - '0');
	return number != 0 ? number : INT32_MAX;
}

static enum status
missing_version(const struct call *call, struct err *err)
{
	return iotcore_error(err, "ResourceNotFoundException",
		"The policy version does not exist: %s version %.16s",
		call_text(call, "policyName"), call_text(call, "policyVersionId"));
}

static enum status
get_version(struct call *call, struct err *err)
{
	struct db_iotcore_policy policy;
	struct version_answer answer = { .call = call, .policy = &policy, .whole = true };

	TRY(find(call, &policy, err));
	TRY(db_iotcore_policy_versions(
		call->tx, policy.name, wanted_version(call), answer_version, &answer, err));
	return answer.found ? OK : missing_version(call, err);
}

static enum status
add_version(void *arg, const struct db_iotcore_policy_version *version, struct err *err)
{
	json_t *items = arg;
	char number[16];

	(void)snprintf(number, sizeof(number), "%" PRId32, version->version);
	if (json_array_append_new(
		    items, json_pack("{s:s,s:b,s:o}", "versionId", number, "isDefaultVersion",
				   version->is_default, "createDate",
				   iotcore_time(version->created_us))) != 0)
		return err_memory(err);
	return OK;
}

static enum status
list_versions(struct call *call, struct err *err)
{
	own(json_t) items = json_array();
	struct db_iotcore_policy policy;

	TRY(find(call, &policy, err));
	TRY(db_iotcore_policy_versions(call->tx, policy.name, 0, add_version, items, err));
	return call_reply(call, json_pack("{s:O}", "policyVersions", items), err);
}

static enum status
note_version(void *arg, const struct db_iotcore_policy_version *version, struct err *err)
{
	bool *found = arg;

	(void)version;
	(void)err;
	*found = true;
	return OK;
}

static enum status
find_version(struct call *call, struct db_iotcore_policy *policy, int32_t *version, struct err *err)
{
	bool found = false;

	*version = wanted_version(call);
	TRY(find(call, policy, err));
	TRY(db_iotcore_policy_versions(
		call->tx, policy->name, *version, note_version, &found, err));
	return found ? OK : missing_version(call, err);
}

static enum status
set_default_version(struct call *call, struct err *err)
{
	char generation[DB_IOTCORE_GENERATION_BYTES];
	struct db_iotcore_policy policy;
	int32_t version;

	TRY(find_version(call, &policy, &version, err));
	if (version == policy.default_version)
		return OK;
	TRY(draw_generation(generation, err));
	return db_iotcore_policy_set_default(call->tx, policy.name, version, generation, err);
}

static enum status
delete_version(struct call *call, struct err *err)
{
	struct db_iotcore_policy policy;
	int32_t version;

	TRY(find_version(call, &policy, &version, err));
	if (version == policy.default_version)
		return iotcore_error(err, "DeleteConflictException",
			"Cannot delete the default version of a policy");
	return db_iotcore_policy_version_delete(call->tx, policy.name, version, err);
}

/* ---- attachments ---- */

static enum status
attach_to(struct call *call, const char *target, struct err *err)
{
	bool is_group = strncmp(target, "thinggroup/", 11) == 0;
	int64_t most = is_group ? PER_GROUP_MOST : PER_CERTIFICATE_MOST;
	struct db_iotcore_policy policy;
	bool attached;
	bool exists;
	bool done;
	int64_t count;

	TRY(db_iotcore_policy_attach(call->tx, call_text(call, "policyName"), target, most, &done, err));
	if (done)
		return OK;
	TRY(find(call, &policy, err));
	TRY(db_iotcore_target_count(call->tx, target, policy.name, &exists, &count, &attached, err));
	if (!exists)
		return target_missing(target, err);
	return attached ? OK : iotcore_error(err, "LimitExceededException",
		"The maximum number of policies per target has been reached (%" PRId64 ")", most);
}

static enum status
attach(struct call *call, struct err *err)
{
	char target[DB_IOTCORE_TARGET_BYTES];

	TRY(target_read(call, call_text(call, "target"), target, err));
	return attach_to(call, target, err);
}

/* Of what is not attached nothing is said: the model has no exception for it. */
static enum status
detach(struct call *call, struct err *err)
{
	char target[DB_IOTCORE_TARGET_BYTES];

	TRY(target_read(call, call_text(call, "target"), target, err));
	return db_iotcore_policy_detach(call->tx, call_text(call, "policyName"), target, err);
}

static enum status
list_of_target(struct call *call, const char *target, bool recursive, struct err *err)
{
	own_struct(listing) list = { .items = NULL };

	TRY(target_wanted(call, target, err));
	TRY(listing_begin(&list, call, err));
	TRY(db_iotcore_target_policies(call->tx, target, recursive, after_of(call),
		call->page.ascending, listing_limit(&list), add_policy, &list, err));
	return listing_end(&list, "policies", err);
}

static enum status
list_attached(struct call *call, struct err *err)
{
	char target[DB_IOTCORE_TARGET_BYTES];

	call->page.ascending = true;
	TRY(target_read(call, call_text(call, "target"), target, err));
	return list_of_target(call, target, call_flag(call, "recursive", false), err);
}

static enum status
add_target(void *arg, const char *target, struct err *err)
{
	struct listing *list = arg;
	char arn[IOTCORE_ARN_BYTES];

	iotcore_arn(arn, list->call->core, "%s", target);
	return listing_add(list, target, json_string(arn), err);
}

static enum status
list_targets(struct call *call, struct err *err)
{
	own_struct(listing) list = { .items = NULL };
	struct db_iotcore_policy policy;

	call->page.ascending = true;
	TRY(find(call, &policy, err));
	TRY(listing_begin(&list, call, err));
	TRY(db_iotcore_policy_targets(call->tx, policy.name, "", after_of(call), true,
		listing_limit(&list), add_target, &list, err));
	return listing_end(&list, "targets", err);
}

/* ---- the same by principals, deprecated ---- */

static enum status
principal_read(struct call *call, char target[DB_IOTCORE_TARGET_BYTES], struct err *err)
{
	TRY(target_read(call, call_text(call, "principal"), target, err));
	if (strncmp(target, "cert/", 5) != 0)
		return iotcore_error(err, "InvalidRequestException", "Invalid principal.");
	return OK;
}

static enum status
attach_principal(struct call *call, struct err *err)
{
	char target[DB_IOTCORE_TARGET_BYTES];

	TRY(principal_read(call, target, err));
	return attach_to(call, target, err);
}

static enum status
detach_principal(struct call *call, struct err *err)
{
	char target[DB_IOTCORE_TARGET_BYTES];
	struct db_iotcore_policy policy;
	bool attached;
	bool exists;
	int64_t count;

	TRY(principal_read(call, target, err));
	TRY(find(call, &policy, err));
	TRY(db_iotcore_target_count(call->tx, target, policy.name, &exists, &count, &attached, err));
	if (!attached)
		return iotcore_error(err, "ResourceNotFoundException",
			"Policy %s is not attached to the principal.", policy.name);
	return db_iotcore_policy_detach(call->tx, policy.name, target, err);
}

static enum status
list_principal_policies(struct call *call, struct err *err)
{
	char target[DB_IOTCORE_TARGET_BYTES];

	TRY(principal_read(call, target, err));
	return list_of_target(call, target, false, err);
}

static enum status
list_policy_principals(struct call *call, struct err *err)
{
	own_struct(listing) list = { .items = NULL };
	struct db_iotcore_policy policy;

	TRY(find(call, &policy, err));
	TRY(listing_begin(&list, call, err));
	TRY(db_iotcore_policy_targets(call->tx, policy.name, "cert/", after_of(call),
		call->page.ascending, listing_limit(&list), add_target, &list, err));
	return listing_end(&list, "principals", err);
}

/* ---- the table ---- */

#define NAME                                                                                       \
	{                                                                                          \
		.name = "policyName", .at = AT_PATH, MEMBER_POLICY_NAME                            \
	}
#define DOCUMENT                                                                                   \
	{                                                                                          \
		.name = "policyDocument", .at = AT_BODY, .type = MEMBER_TEXT, .required = true,    \
		.most = POLICY_DOCUMENT_MAX_BYTES                                                  \
	}
#define VERSION                                                                                    \
	{                                                                                          \
		.name = "policyVersionId", .at = AT_PATH, .type = MEMBER_TEXT, .required = true,   \
		.least = 1, .most = 64, .pattern = &PATTERN_DIGITS                                 \
	}
#define PRINCIPAL                                                                                  \
	{                                                                                          \
		.name = "principal", .wire = "x-amzn-iot-principal", .at = AT_HEADER,              \
		.type = MEMBER_TEXT, .required = true                                              \
	}
#define TARGET(place)                                                                              \
	{                                                                                          \
		.name = "target", .at = (place), .type = MEMBER_TEXT, .required = true             \
	}
#define END                                                                                        \
	{                                                                                          \
		.name = NULL                                                                       \
	}

static const struct member CREATE_MEMBERS[] = { NAME, DOCUMENT,
	{ .name = "tags", .at = AT_BODY, MEMBER_TAGS }, END };
static const struct member NAME_MEMBERS[] = { NAME, END };
static const struct member CREATE_VERSION_MEMBERS[] = { NAME, DOCUMENT,
	{ .name = "setAsDefault", .at = AT_QUERY, .type = MEMBER_FLAG }, END };
static const struct member VERSION_MEMBERS[] = { NAME, VERSION, END };
static const struct member ATTACH_MEMBERS[] = { NAME, TARGET(AT_BODY), END };
static const struct member LIST_ATTACHED_MEMBERS[] = { TARGET(AT_PATH),
	{ .name = "recursive", .at = AT_QUERY, .type = MEMBER_FLAG }, END };
static const struct member NAME_PRINCIPAL_MEMBERS[] = { NAME, PRINCIPAL, END };
static const struct member PRINCIPAL_MEMBERS[] = { PRINCIPAL, END };
static const struct member HEADER_NAME_MEMBERS[] = {
	{ .name = "policyName", .wire = "x-amzn-iot-policy", .at = AT_HEADER, MEMBER_POLICY_NAME },
	END,
};

const struct op POLICY_OPS[] = {
	{ .name = "CreatePolicy",
		.method = "POST",
		.path = "/policies/{policyName}",
		.tx = TX_WRITE,
		.handle = create,
		.members = CREATE_MEMBERS },
	{ .name = "GetPolicy",
		.method = "GET",
		.path = "/policies/{policyName}",
		.tx = TX_READ,
		.handle = get,
		.members = NAME_MEMBERS },
	{ .name = "DeletePolicy",
		.method = "DELETE",
		.path = "/policies/{policyName}",
		.tx = TX_WRITE,
		.handle = delete_policy,
		.members = NAME_MEMBERS },
	{ .name = "ListPolicies",
		.method = "GET",
		.path = "/policies",
		.tx = TX_READ,
		.handle = list_policies,
		.page = PAGE_MARKER_ORDER },
	{ .name = "CreatePolicyVersion",
		.method = "POST",
		.path = "/policies/{policyName}/version",
		.tx = TX_WRITE,
		.handle = create_version,
		.members = CREATE_VERSION_MEMBERS },
	{ .name = "GetPolicyVersion",
		.method = "GET",
		.path = "/policies/{policyName}/version/{policyVersionId}",
		.tx = TX_READ,
		.handle = get_version,
		.members = VERSION_MEMBERS },
	{ .name = "ListPolicyVersions",
		.method = "GET",
		.path = "/policies/{policyName}/version",
		.tx = TX_READ,
		.handle = list_versions,
		.members = NAME_MEMBERS },
	{ .name = "SetDefaultPolicyVersion",
		.method = "PATCH",
		.path = "/policies/{policyName}/version/{policyVersionId}",
		.tx = TX_WRITE,
		.handle = set_default_version,
		.members = VERSION_MEMBERS },
	{ .name = "DeletePolicyVersion",
		.method = "DELETE",
		.path = "/policies/{policyName}/version/{policyVersionId}",
		.tx = TX_WRITE,
		.handle = delete_version,
		.members = VERSION_MEMBERS },
	{ .name = "AttachPolicy",
		.method = "PUT",
		.path = "/target-policies/{policyName}",
		.tx = TX_WRITE,
		.handle = attach,
		.members = ATTACH_MEMBERS },
	{ .name = "DetachPolicy",
		.method = "POST",
		.path = "/target-policies/{policyName}",
		.tx = TX_WRITE,
		.handle = detach,
		.members = ATTACH_MEMBERS },
	{ .name = "ListAttachedPolicies",
		.method = "POST",
		.path = "/attached-policies/{target}",
		.tx = TX_READ,
		.handle = list_attached,
		.members = LIST_ATTACHED_MEMBERS,
		.page = PAGE_MARKER },
	{ .name = "ListTargetsForPolicy",
		.method = "POST",
		.path = "/policy-targets/{policyName}",
		.tx = TX_READ,
		.handle = list_targets,
		.members = NAME_MEMBERS,
		.page = PAGE_MARKER },
	{ .name = "AttachPrincipalPolicy",
		.method = "PUT",
		.path = "/principal-policies/{policyName}",
		.tx = TX_WRITE,
		.handle = attach_principal,
		.members = NAME_PRINCIPAL_MEMBERS },
	{ .name = "DetachPrincipalPolicy",
		.method = "DELETE",
		.path = "/principal-policies/{policyName}",
		.tx = TX_WRITE,
		.handle = detach_principal,
		.members = NAME_PRINCIPAL_MEMBERS },
	{ .name = "ListPrincipalPolicies",
		.method = "GET",
		.path = "/principal-policies",
		.tx = TX_READ,
		.handle = list_principal_policies,
		.members = PRINCIPAL_MEMBERS,
		.page = PAGE_MARKER_ORDER },
	{ .name = "ListPolicyPrincipals",
		.method = "GET",
		.path = "/policy-principals",
		.tx = TX_READ,
		.handle = list_policy_principals,
		.members = HEADER_NAME_MEMBERS,
		.page = PAGE_MARKER_ORDER },
	{ .name = NULL },
};
