/* What policies would say: TestAuthorization and GetEffectivePolicies. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "db/iotcore_certificate.h"
#include "db/iotcore_thing.h"
#include "server/iotcore/policy.h"
#include "server/iotcore/registry.h"
#include "server/iotcore/tables.h"
#include "server/iotcore/targets.h"
#include "server/iotcore/x509.h"

/* As the statement's LIMIT has it. */
#define POLICIES_MOST 512

/* ---- whom it is about ---- */

struct subject {
	char target[DB_IOTCORE_TARGET_BYTES];
	const char *target_or_null;
	const char *thing; /* NULL: none */
};

static enum status
read_subject(struct call *call, const char *thing_member, struct subject *out, struct err *err)
{
	const char *principal = call_text(call, "principal");

	memset(out, 0, sizeof(*out));
	out->thing = call_text(call, thing_member);
	if (call_has(call, "cognitoIdentityPoolId"))
		return iotcore_error(
			err, "InvalidRequestException", "Cognito identities are not known here.");
	if (principal == NULL)
		return OK;
	TRY(target_read(call, principal, out->target, err));
	TRY(target_wanted(call, out->target, err));
	out->target_or_null = out->target;
	return OK;
}

/* ---- effective policies ---- */

struct effective {
	struct call *call;
	json_t *items;
};

static enum status
add_effective(void *arg, const char *name, struct view document, struct err *err)
{
	struct effective *it = arg;
	char arn[IOTCORE_ARN_BYTES];

	iotcore_arn(arn, it->call->core, "policy/%s", name);
	if (json_array_append_new(it->items,
		    json_pack("{s:s,s:s%,s:s}", "policyName", name, "policyDocument",
			    (const char *)document.data, document.len, "policyArn", arn)) != 0)
		return err_memory(err);
	return OK;
}

static enum status
get_effective(struct call *call, struct err *err)
{
	own(json_t) items = json_array();
	struct effective it = { call, items };
	struct subject subject;

	TRY(read_subject(call, "thingName", &subject, err));
	if (subject.target_or_null == NULL && subject.thing == NULL)
		return iotcore_error(
			err, "InvalidRequestException", "A principal or a thing name is required.");
	if (subject.thing != NULL)
		TRY(thing_wanted(call, subject.thing, err));
	TRY(db_iotcore_effective_policies(call->tx, subject.target_or_null, subject.thing, NULL,
		NULL, add_effective, &it, err));
	return call_reply(call, json_pack("{s:O}", "effectivePolicies", items), err);
}

/* ---- what they decide ---- */

struct bench {
	struct call *call;
	size_t count;
	struct policy *policies[POLICIES_MOST];
	char names[POLICIES_MOST][DB_IOTCORE_NAME_BYTES];
	struct policy_context context;
	struct db_thing thing;
	struct policy_pair attributes[64];
	json_t *attributes_json;
	struct x509_certificate certificate;
	struct policy_pair certificate_pairs[1];
};
typedef struct bench bench;

static void
bench_free(struct bench *it)
{
	if (it == NULL)
		return;
	for (size_t i = 0; i < it->count; i++)
		policy_free(it->policies[i]);
	db_thing_free(&it->thing);
	json_decref(it->attributes_json);
	x509_certificate_free(&it->certificate);
	mem_free(it);
}
OWNER(bench, bench_free)

static enum status
add_parsed(void *arg, const char *name, struct view document, struct err *err)
{
	struct bench *it = arg;

	if (it->count == POLICIES_MOST)
		return OK;
	TRY(policy_parse(&it->policies[it->count], document, err));
	(void)snprintf(it->names[it->count], sizeof(it->names[0]), "%s", name);
	it->count++;
	return OK;
}

/* ["a", "b"] as lines; names have no line ends. */
static enum status
lines_of(struct call *call, const char *member, char **out, struct err *err)
{
	const json_t *names = call_json(call, member);
	size_t size = 1, len = 0;

	*out = NULL;
	if (json_array_size(names) == 0)
		return OK;
	for (size_t i = 0; i < json_array_size(names); i++)
		size += json_string_length(json_array_get(names, i)) + 1;
	*out = request_alloc(call->request, size);
	if (*out == NULL)
		return err_memory(err);
	for (size_t i = 0; i < json_array_size(names); i++)
		len += (size_t)snprintf(*out + len, size - len, "%s%s", i > 0 ? "\n" : "",
			json_string_value(json_array_get(names, i)));
	return OK;
}

/* As the broker finds it: attached exclusively, or named by the client's id. */
static enum status
describe_thing(struct bench *it, const struct subject *subject, struct err *err)
{
	char name[DB_IOTCORE_NAME_BYTES];
	bool found = false;
	const char *key;
	json_t *value;

	if (subject->target_or_null == NULL)
		return OK;
	TRY(db_iotcore_thing_of(it->call->tx, subject->target, subject->thing, name, err));
	it->context.thing_attached = name[0] != '\0' ? POLICY_YES : POLICY_NO;
	if (name[0] != '\0')
		TRY(db_thing_find(it->call->tx, name, &found, &it->thing, err));
	if (!found)
		return OK;
	it->context.thing_name = view_text(it->thing.name);
	it->context.thing_type = view_text(it->thing.type);
	TRY(registry_load(&it->attributes_json, view_of(&it->thing.attributes), err));
	it->context.thing_attributes = it->attributes;
	json_object_foreach(it->attributes_json, key, value)
	{
		if (it->context.thing_attribute_count < COUNT_OF(it->attributes))
			it->attributes[it->context.thing_attribute_count++] =
				(struct policy_pair){ view_text(key),
					view_text(json_string_value(value)) };
	}
	return OK;
}

/* Of the certificate's names the common name alone; others show as missing context values. */
static enum status
describe_certificate(struct bench *it, const struct subject *subject, struct err *err)
{
	own_struct(db_iotcore_certificate) row = { .customer_version = 0 };
	char *pem;

	if (strncmp(subject->target, "cert/", 5) != 0)
		return OK;
	it->context.certificate_id = view_text(subject->target + 5);
	TRY(db_iotcore_certificate_find(it->call->tx, subject->target + 5, &row, err));
	pem = request_alloc(it->call->request, row.pem.len + 1);
	if (pem == NULL)
		return err_memory(err);
	memcpy(pem, row.pem.data, row.pem.len);
	TRY(x509_certificate_read(&it->certificate, pem, "Certificate", err));
	if (it->certificate.view.common_name.len == 0)
		return OK;
	it->certificate_pairs[0] =
		(struct policy_pair){ view_text("iot:Certificate.Subject.CommonName"),
			it->certificate.view.common_name };
	it->context.certificate = it->certificate_pairs;
	it->context.certificate_count = 1;
	return OK;
}

static enum status
check_added(struct call *call, struct err *err)
{
	const json_t *names = call_json(call, "policyNamesToAdd");

	for (size_t i = 0; i < json_array_size(names); i++) {
		const char *name = json_string_value(json_array_get(names, i));
		struct db_iotcore_policy policy;
		enum status status = db_iotcore_policy_find(call->tx, name, &policy, err);

		if (status == ERR_NOT_FOUND)
			return iotcore_error(
				err, "ResourceNotFoundException", "Policy not found: %s", name);
		TRY(status);
	}
	return OK;
}

static enum status
gather(struct bench *it, struct err *err)
{
	struct call *call = it->call;
	const char *client_id = call_text(call, "clientId");
	struct subject subject;
	char *also, *but;

	TRY(read_subject(call, "clientId", &subject, err));
	TRY(check_added(call, err));
	TRY(lines_of(call, "policyNamesToAdd", &also, err));
	TRY(lines_of(call, "policyNamesToSkip", &but, err));
	it->context.now_s = call->now_s;
	if (client_id != NULL)
		it->context.client_id = view_text(client_id);
	TRY(describe_thing(it, &subject, err));
	TRY(describe_certificate(it, &subject, err));
	return db_iotcore_effective_policies(
		call->tx, subject.target_or_null, NULL, also, but, add_parsed, it, err);
}

static enum policy_action
action_of(const char *type)
{
	static const struct {
		const char *type;
		enum policy_action action;
	} ACTIONS[] = {
		{ "PUBLISH", POLICY_PUBLISH },
		{ "SUBSCRIBE", POLICY_SUBSCRIBE },
		{ "RECEIVE", POLICY_RECEIVE },
		{ "CONNECT", POLICY_CONNECT },
	};

	for (size_t i = 0; i < COUNT_OF(ACTIONS); i++)
		if (strcmp(ACTIONS[i].type, type) == 0)
			return ACTIONS[i].action;
	return POLICY_NO_ACTION;
}

/* Each policy once, as {policyName, policyArn}. */
static enum status
add_decider(const struct bench *it, json_t *policies, size_t index, struct err *err)
{
	char arn[IOTCORE_ARN_BYTES];

	if (index == POLICY_NONE)
		return OK;
	for (size_t i = 0; i < json_array_size(policies); i++)
		if (strcmp(json_string_value(
				   json_object_get(json_array_get(policies, i), "policyName")),
			    it->names[index]) == 0)
			return OK;
	iotcore_arn(arn, it->call->core, "policy/%s", it->names[index]);
	if (json_array_append_new(policies,
		    json_pack("{s:s,s:s}", "policyName", it->names[index], "policyArn", arn)) != 0)
		return err_memory(err);
	return OK;
}

static enum status
add_missing(json_t *missing, const struct policy_decision *decision, struct err *err)
{
	for (size_t i = 0; i < decision->missing_count; i++) {
		json_t *key = json_stringn(
			(const char *)decision->missing[i].data, decision->missing[i].len);
		bool known = false;

		for (size_t k = 0; k < json_array_size(missing); k++)
			known |= json_equal(json_array_get(missing, k), key) != 0;
		if (known)
			json_decref(key);
		else if (json_array_append_new(missing, key) != 0)
			return err_memory(err);
	}
	return OK;
}

/* One answer for all resources of one question: the worst of them decides. */
static enum status
decide(const struct bench *it, const json_t *question, json_t **out, struct err *err)
{
	static const char *const DECISIONS[] = { [POLICY_UNSET] = "IMPLICIT_DENY",
		[POLICY_ALLOWED] = "ALLOWED",
		[POLICY_IMPLICIT_DENY] = "IMPLICIT_DENY",
		[POLICY_EXPLICIT_DENY] = "EXPLICIT_DENY" };
	enum policy_action action =
		action_of(json_string_value(json_object_get(question, "actionType")));
	const json_t *resources = json_object_get(question, "resources");
	own(json_t) allowing = json_array();
	own(json_t) denying = json_array();
	own(json_t) missing = json_array();
	enum policy_verdict worst = POLICY_ALLOWED;

	for (size_t i = 0; i < json_array_size(resources); i++) {
		struct policy_resource resource = { .name = view_text(json_string_value(
							    json_array_get(resources, i))) };
		struct policy_decision decision;
		enum policy_verdict verdict =
			policy_decide((const struct policy *const *)it->policies, it->count, action,
				resource, &it->context, &decision);

		if (verdict > worst)
			worst = verdict;
		TRY(add_missing(missing, &decision, err));
		if (verdict == POLICY_ALLOWED)
			TRY(add_decider(it, allowing, decision.policy, err));
		if (verdict == POLICY_EXPLICIT_DENY)
			TRY(add_decider(it, denying, decision.policy, err));
	}
	*out = json_pack("{s:O,s:{s:O},s:{s:{s:[]},s:{s:O}},s:s,s:O}", "authInfo", question,
		"allowed", "policies", allowing, "denied", "implicitDeny", "policies",
		"explicitDeny", "policies", denying, "authDecision", DECISIONS[worst],
		"missingContextValues", missing);
	return *out != NULL ? OK : err_memory(err);
}

static enum status
test_authorization(struct call *call, struct err *err)
{
	const json_t *questions = call_json(call, "authInfos");
	own(json_t) results = json_array();
	own(bench) it = mem_zalloc(sizeof(*it));

	if (it == NULL)
		return err_memory(err);
	it->call = call;
	TRY(gather(it, err));
	for (size_t i = 0; i < json_array_size(questions); i++) {
		json_t *result = NULL;

		TRY(decide(it, json_array_get(questions, i), &result, err));
		if (json_array_append_new(results, result) != 0)
			return err_memory(err);
	}
	return call_reply(call, json_pack("{s:O}", "authResults", results), err);
}

/* ---- the table ---- */

static const char *const ACTION_TYPES[] = { "PUBLISH", "SUBSCRIBE", "RECEIVE", "CONNECT", NULL };
static const struct member RESOURCE_ITEM[] = {
	{ .name = "member", .type = MEMBER_TEXT, .required = true, .most = 2048 },
	{ .name = NULL },
};
static const struct member AUTH_INFO_MEMBERS[] = {
	{ .name = "actionType", .type = MEMBER_TEXT, .required = true, .values = ACTION_TYPES },
	{ .name = "resources",
		.type = MEMBER_LIST,
		.required = true,
		.least = 1,
		.most = 10,
		.members = RESOURCE_ITEM },
	{ .name = NULL },
};
static const struct member AUTH_INFO_ITEM[] = {
	{ .name = "member", .type = MEMBER_STRUCT, .required = true, .members = AUTH_INFO_MEMBERS },
	{ .name = NULL },
};
static const struct member NAME_ITEM[] = {
	{ .name = "member", MEMBER_POLICY_NAME },
	{ .name = NULL },
};

#define PRINCIPAL                                                                                  \
	{                                                                                          \
		.name = "principal", .at = AT_BODY, .type = MEMBER_TEXT                            \
	}
#define POOL                                                                                       \
	{                                                                                          \
		.name = "cognitoIdentityPoolId", .at = AT_BODY, .type = MEMBER_TEXT                \
	}

static const struct member TEST_MEMBERS[] = {
	PRINCIPAL,
	POOL,
	{ .name = "authInfos",
		.at = AT_BODY,
		.type = MEMBER_LIST,
		.required = true,
		.least = 1,
		.most = 10,
		.members = AUTH_INFO_ITEM },
	{ .name = "clientId", .at = AT_QUERY, .type = MEMBER_TEXT },
	{ .name = "policyNamesToAdd", .at = AT_BODY, .type = MEMBER_LIST, .members = NAME_ITEM },
	{ .name = "policyNamesToSkip", .at = AT_BODY, .type = MEMBER_LIST, .members = NAME_ITEM },
	{ .name = NULL },
};
static const struct member EFFECTIVE_MEMBERS[] = {
	PRINCIPAL,
	POOL,
	{ .name = "thingName",
		.at = AT_QUERY,
		.type = MEMBER_TEXT,
		.least = 1,
		.most = 128,
		.pattern = &PATTERN_THING_NAME },
	{ .name = NULL },
};

const struct op AUTHORIZATION_OPS[] = {
	{ .name = "TestAuthorization",
		.method = "POST",
		.path = "/test-authorization",
		.tx = TX_READ,
		.handle = test_authorization,
		.members = TEST_MEMBERS },
	{ .name = "GetEffectivePolicies",
		.method = "POST",
		.path = "/effective-policies",
		.tx = TX_READ,
		.handle = get_effective,
		.members = EFFECTIVE_MEMBERS },
	{ .name = NULL },
};
