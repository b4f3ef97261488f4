#include "server/iot/iot_api.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "server/iot/aws_sigv4.h"
#include "server/iot/iot_api_internal.h"

#define PATH_BYTES 8192
#define BODY_MAX_BYTES ((size_t)512 << 10)
#define TEXT_MAX_BYTES 65536
#define TOKEN_MAX_BYTES 2048

static const struct {
	const char *name;
	const char *method;
	const char *path; /* {}: a label; {+}: one that keeps its slashes */
	bool once;        /* not harmless to repeat */
} OPERATIONS[OP_COUNT] = {
	[OP_GET_REGISTRATION_CODE] = { "GetRegistrationCode", "GET", "/registrationcode", false },
	[OP_REGISTER_CA_CERTIFICATE] = { "RegisterCACertificate", "POST", "/cacertificate", false },
	[OP_DESCRIBE_CA_CERTIFICATE] = { "DescribeCACertificate", "GET", "/cacertificate/{}",
		false },
	[OP_UPDATE_CA_CERTIFICATE] = { "UpdateCACertificate", "PUT", "/cacertificate/{}", false },
	[OP_DELETE_CA_CERTIFICATE] = { "DeleteCACertificate", "DELETE", "/cacertificate/{}",
		false },
	[OP_LIST_CA_CERTIFICATES] = { "ListCACertificates", "GET", "/cacertificates", false },
	[OP_REGISTER_CERTIFICATE] = { "RegisterCertificate", "POST", "/certificate/register",
		false },
	[OP_REGISTER_CERTIFICATE_WITHOUT_CA] = { "RegisterCertificateWithoutCA", "POST",
		"/certificate/register-no-ca", false },
	[OP_DESCRIBE_CERTIFICATE] = { "DescribeCertificate", "GET", "/certificates/{}", false },
	[OP_UPDATE_CERTIFICATE] = { "UpdateCertificate", "PUT", "/certificates/{}", false },
	[OP_DELETE_CERTIFICATE] = { "DeleteCertificate", "DELETE", "/certificates/{}", false },
	[OP_LIST_CERTIFICATES] = { "ListCertificates", "GET", "/certificates", false },
	[OP_LIST_CERTIFICATES_BY_CA] = { "ListCertificatesByCA", "GET", "/certificates-by-ca/{}",
		false },
	[OP_CREATE_THING] = { "CreateThing", "POST", "/things/{}", false },
	[OP_DESCRIBE_THING] = { "DescribeThing", "GET", "/things/{}", false },
	[OP_UPDATE_THING] = { "UpdateThing", "PATCH", "/things/{}", false },
	[OP_DELETE_THING] = { "DeleteThing", "DELETE", "/things/{}", false },
	[OP_CREATE_THING_TYPE] = { "CreateThingType", "POST", "/thing-types/{}", false },
	[OP_DESCRIBE_THING_TYPE] = { "DescribeThingType", "GET", "/thing-types/{}", false },
	[OP_CREATE_THING_GROUP] = { "CreateThingGroup", "POST", "/thing-groups/{}", false },
	[OP_ADD_THING_TO_THING_GROUP] = { "AddThingToThingGroup", "PUT",
		"/thing-groups/addThingToThingGroup", false },
	[OP_REMOVE_THING_FROM_THING_GROUP] = { "RemoveThingFromThingGroup", "PUT",
		"/thing-groups/removeThingFromThingGroup", false },
	[OP_LIST_THING_GROUPS_FOR_THING] = { "ListThingGroupsForThing", "GET",
		"/things/{}/thing-groups", false },
	[OP_ATTACH_THING_PRINCIPAL] = { "AttachThingPrincipal", "PUT", "/things/{}/principals",
		false },
	[OP_DETACH_THING_PRINCIPAL] = { "DetachThingPrincipal", "DELETE", "/things/{}/principals",
		false },
	[OP_LIST_THING_PRINCIPALS] = { "ListThingPrincipals", "GET", "/things/{}/principals",
		false },
	[OP_LIST_PRINCIPAL_THINGS] = { "ListPrincipalThings", "GET", "/principals/things", false },
	[OP_CREATE_POLICY] = { "CreatePolicy", "POST", "/policies/{}", false },
	[OP_GET_POLICY] = { "GetPolicy", "GET", "/policies/{}", false },
	[OP_CREATE_POLICY_VERSION] = { "CreatePolicyVersion", "POST", "/policies/{}/version",
		true },
	[OP_SET_DEFAULT_POLICY_VERSION] = { "SetDefaultPolicyVersion", "PATCH",
		"/policies/{}/version/{}", false },
	[OP_LIST_POLICY_VERSIONS] = { "ListPolicyVersions", "GET", "/policies/{}/version", false },
	[OP_DELETE_POLICY_VERSION] = { "DeletePolicyVersion", "DELETE", "/policies/{}/version/{}",
		false },
	[OP_ATTACH_POLICY] = { "AttachPolicy", "PUT", "/target-policies/{}", false },
	[OP_DETACH_POLICY] = { "DetachPolicy", "POST", "/target-policies/{}", false },
	[OP_LIST_ATTACHED_POLICIES] = { "ListAttachedPolicies", "POST", "/attached-policies/{}",
		false },
	[OP_DESCRIBE_ENDPOINT] = { "DescribeEndpoint", "GET", "/endpoint", false },
	[OP_CREATE_TOPIC_RULE_DESTINATION] = { "CreateTopicRuleDestination", "POST",
		"/destinations", true },
	[OP_CONFIRM_TOPIC_RULE_DESTINATION] = { "ConfirmTopicRuleDestination", "GET",
		"/confirmdestination/{+}", false },
	[OP_GET_TOPIC_RULE_DESTINATION] = { "GetTopicRuleDestination", "GET", "/destinations/{+}",
		false },
	[OP_UPDATE_TOPIC_RULE_DESTINATION] = { "UpdateTopicRuleDestination", "PATCH",
		"/destinations", false },
	[OP_LIST_TOPIC_RULE_DESTINATIONS] = { "ListTopicRuleDestinations", "GET", "/destinations",
		false },
	[OP_CREATE_TOPIC_RULE] = { "CreateTopicRule", "POST", "/rules/{}", false },
	[OP_REPLACE_TOPIC_RULE] = { "ReplaceTopicRule", "PATCH", "/rules/{}", false },
	[OP_DELETE_TOPIC_RULE] = { "DeleteTopicRule", "DELETE", "/rules/{}", false },
	[OP_GET_TOPIC_RULE] = { "GetTopicRule", "GET", "/rules/{}", false },
	[OP_LIST_TOPIC_RULES] = { "ListTopicRules", "GET", "/rules", false },
	[OP_UPDATE_EVENT_CONFIGURATIONS] = { "UpdateEventConfigurations", "PATCH",
		"/event-configurations", false },
};

/* ---- arguments ---- */

#define DIGITS "0123456789"
#define LETTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

static const struct {
	size_t least, most;
	const char *alphabet; /* NULL: printable ASCII */
	const char *rule;
} FORMS[] = {
	[FORM_ID] = { 64, 64, DIGITS "abcdefABCDEF", "64 hexadecimal digits" },
	[FORM_NAME] = { 1, 128, DIGITS LETTERS ":_-", "1 to 128 of A-Z, a-z, 0-9, ':', '_', '-'" },
	[FORM_POLICY] = { 1, 128, DIGITS LETTERS "_+=,.@-",
		"1 to 128 of A-Z, a-z, 0-9, \"_+=,.@-\"" },
	[FORM_RULE] = { 1, 128, DIGITS LETTERS "_", "1 to 128 of A-Z, a-z, 0-9, '_'" },
	[FORM_VERSION] = { 1, IOT_VERSION_BYTES - 1, DIGITS, "a number" },
	[FORM_ARN] = { 20, IOT_ARN_BYTES - 1, NULL, "an ARN" },
	[FORM_TOKEN] = { 1, TOKEN_MAX_BYTES, NULL, "1 to 2048 printable characters" },
	[FORM_TEXT] = { 1, TEXT_MAX_BYTES, NULL, "1 to 65536 octets" },
};

enum status
iot_check(enum iot_form form, const char *what, const char *value, struct err *err)
{
	const char *text = value != NULL ? value : "";
	size_t len = strnlen(text, FORMS[form].most + 1);
	bool good = len >= FORMS[form].least && len <= FORMS[form].most;

	if (good && FORMS[form].alphabet != NULL)
		good = strspn(text, FORMS[form].alphabet) == len;
	for (size_t i = 0; good && form != FORM_TEXT && i < len; i++)
		good = text[i] > ' ' && text[i] <= '~';
	if (good && form == FORM_ARN)
		good = strncmp(text, "arn:", 4) == 0;
	return good ? OK
	            : err_set(err, ERR_ARGUMENT, "iot_argument", "%s: %s wanted", what,
			      FORMS[form].rule);
}

void
iot_request_free(struct iot_request *request)
{
	json_decref(request->body);
	request->body = NULL;
}

void
iot_query(struct iot_request *request, const char *name, const char *value)
{
	if (value != NULL && request->query_count < AWS_QUERY_MAX)
		request->query[request->query_count++] = (struct aws_pair){ name, value };
}

enum status
iot_body(struct iot_request *request, json_t *body, struct err *err)
{
	request->body = body;
	if (body == NULL)
		return err_set(err, ERR_ARGUMENT, "iot_argument",
			"%s: not UTF-8, or memory is short", OPERATIONS[request->op].name);
	return OK;
}

/* ---- the call ---- */

static enum status
make_path(struct buf *out, const struct iot_request *request, struct err *err)
{
	size_t label = 0;

	for (const char *at = OPERATIONS[request->op].path; *at != '\0'; at++) {
		bool greedy = at[0] == '{' && at[1] == '+';

		if (*at != '{') {
			TRY(buf_add(out, at, 1, err));
			continue;
		}
		TRY(aws_uri_encode(out, view_text(request->labels[label++]), greedy, err));
		at += greedy ? 2 : 1;
	}
	return buf_add(out, "", 1, err);
}

static enum status
dump(struct bytes *out, const json_t *body, struct err *err)
{
	size_t len = body != NULL ? json_dumpb(body, NULL, 0, JSON_COMPACT) : 0;

	if (len > BODY_MAX_BYTES)
		return err_set(err, ERR_ARGUMENT, "iot_argument", "the request is over %zu octets",
			BODY_MAX_BYTES);
	if (len == 0)
		return OK;
	out->data = mem_alloc(len);
	if (out->data == NULL)
		return err_memory(err);
	out->len = json_dumpb(body, (char *)out->data, len, JSON_COMPACT);
	return out->len == len
	               ? OK
	               : err_set(err, ERR_INTERNAL, "iot_dump", "the request cannot be written");
}

enum status
iot_run(struct iot *iot, const struct iot_request *request, json_t **answer, struct err *err)
{
	own_struct(buf) path = { .limit_bytes = PATH_BYTES };
	own_struct(bytes) body = { NULL, 0 };
	own_struct(aws_reply) reply = { NULL, { 0 } };
	struct aws_request call = { .operation = OPERATIONS[request->op].name,
		.method = OPERATIONS[request->op].method, .headers = { request->header },
		.once = OPERATIONS[request->op].once, .priority = iot->priority,
		.timeout_ms = iot->timeout_ms };
	enum status status;

	iot->failure = (struct aws_failure){ .error = AWS_ERROR_LOCAL };
	TRY(make_path(&path, request, err));
	TRY(dump(&body, request->body, err));
	call.path = (const char *)path.data;
	call.body = view_of(&body);
	memcpy(call.query, request->query, sizeof(call.query));
	status = aws_call(iot->client, &call, &reply, err);
	iot->failure = reply.failure;
	if (status == OK && answer != NULL)
		*answer = give(reply.json);
	return status;
}

/* ---- answers ---- */

enum status
iot_malformed(struct iot *iot, const char *what, struct err *err)
{
	iot->failure.error = AWS_ERROR_UNAVAILABLE;
	(void)snprintf(iot->failure.message, sizeof(iot->failure.message), "answer: %s", what);
	return err_set(err, ERR_UNAVAILABLE, "iot_answer_malformed",
		"answer: %s: missing, too long or of another type", what);
}

enum status
iot_text_or_none(struct iot *iot, const json_t *json, const char *name, char *out, size_t size,
	struct err *err)
{
	const json_t *value = json_object_get(json, name);

	out[0] = '\0';
	if (value == NULL || json_is_null(value))
		return OK;
	/* A NUL inside would make another text of it. */
	if (!json_is_string(value) || json_string_length(value) >= size ||
		strlen(json_string_value(value)) != json_string_length(value))
		return iot_malformed(iot, name, err);
	memcpy(out, json_string_value(value), json_string_length(value) + 1);
	return OK;
}

enum status
iot_text(struct iot *iot, const json_t *json, const char *name, char *out, size_t size,
	struct err *err)
{
	TRY(iot_text_or_none(iot, json, name, out, size, err));
	return out[0] != '\0' ? OK : iot_malformed(iot, name, err);
}

void
iot_text_cut(const json_t *json, const char *name, char *out, size_t size)
{
	const char *text = json_string_value(json_object_get(json, name));

	aws_text_escape(out, size, text != NULL ? text : "");
}

enum status
iot_bytes(struct iot *iot, const json_t *json, const char *name, struct bytes *out, struct err *err)
{
	const json_t *value = json_object_get(json, name);

	if (!json_is_string(value) || json_string_length(value) == 0)
		return iot_malformed(iot, name, err);
	return bytes_copy(out,
		(struct view){
			(const uint8_t *)json_string_value(value), json_string_length(value) },
		err);
}

int64_t
iot_time_s(const json_t *json, const char *name)
{
	const json_t *value = json_object_get(json, name);
	int64_t seconds;

	if (json_is_integer(value))
		return json_integer_value(value);
	/* What is larger is no date, nor safe to convert. */
	if (json_is_real(value) && json_real_value(value) > -1e12 && json_real_value(value) < 1e12)
		return (int64_t)json_real_value(value);
	if (json_is_string(value) &&
		time_parse(&seconds, (struct view){ (const uint8_t *)json_string_value(value),
					     json_string_length(value) }))
		return seconds;
	return 0;
}

static const char *const STATUSES[] = {
	[IOT_STATUS_UNKNOWN] = "UNKNOWN",
	[IOT_STATUS_ACTIVE] = "ACTIVE",
	[IOT_STATUS_INACTIVE] = "INACTIVE",
	[IOT_STATUS_REVOKED] = "REVOKED",
	[IOT_STATUS_PENDING_TRANSFER] = "PENDING_TRANSFER",
	[IOT_STATUS_PENDING_ACTIVATION] = "PENDING_ACTIVATION",
	[IOT_STATUS_REGISTER_INACTIVE] = "REGISTER_INACTIVE",
};

const char *
iot_status_name(enum iot_status status)
{
	return (unsigned)status < COUNT_OF(STATUSES) ? STATUSES[status]
	                                             : STATUSES[IOT_STATUS_UNKNOWN];
}

enum iot_status
iot_status_parse(const char *text)
{
	for (unsigned i = 0; text != NULL && i < COUNT_OF(STATUSES); i++)
		if (strcmp(STATUSES[i], text) == 0)
			return (enum iot_status)i;
	return IOT_STATUS_UNKNOWN;
}

enum iot_mode
iot_mode_of(const json_t *json)
{
	const char *text = json_string_value(json_object_get(json, "certificateMode"));

	if (text != NULL && strcmp(text, "DEFAULT") == 0)
		return IOT_MODE_DEFAULT;
	return text != NULL && strcmp(text, "SNI_ONLY") == 0 ? IOT_MODE_SNI_ONLY : IOT_MODE_UNKNOWN;
}

enum status
iot_read_made(struct iot *iot, const json_t *json, const char *arn_name, const char *id_name,
	struct iot_made *out, struct err *err)
{
	*out = (struct iot_made){ .id = "" };
	TRY(iot_text(iot, json, arn_name, out->arn, sizeof(out->arn), err));
	return id_name != NULL ? iot_text(iot, json, id_name, out->id, sizeof(out->id), err) : OK;
}

/* ---- lists ---- */

static const struct {
	const char *size, *token, *next;
} PAGINGS[] = {
	[PAGING_MARKER] = { "pageSize", "marker", "nextMarker" },
	[PAGING_TOKEN] = { "maxResults", "nextToken", "nextToken" },
};

/* Moves the cursor on; a token that was given before would go round for ever. */
static enum status
advance(struct iot *iot, const json_t *answer, const char *name, struct iot_cursor *cursor,
	struct err *err)
{
	char next[IOT_TOKEN_BYTES];

	TRY(iot_text_or_none(iot, answer, name, next, sizeof(next), err));
	if (next[0] != '\0' && strcmp(next, cursor->token) == 0)
		return iot_malformed(iot, name, err);
	cursor->done = next[0] == '\0';
	memcpy(cursor->token, next, sizeof(next));
	return OK;
}

enum status
iot_list(struct iot *iot, struct iot_request *request, const struct iot_list *list,
	struct iot_cursor *cursor, void *items, size_t max, size_t *count, struct err *err)
{
	own(json_t) answer = NULL;
	const json_t *array;
	char size[8];

	*count = 0;
	if (max == 0 || max > IOT_PAGE_MAX)
		return err_set(err, ERR_ARGUMENT, "iot_argument", "page: 1 to %d items wanted",
			IOT_PAGE_MAX);
	if (cursor->done)
		return OK;
	(void)snprintf(size, sizeof(size), "%u", (unsigned)max);
	iot_query(request, PAGINGS[list->paging].size, size);
	iot_query(request, PAGINGS[list->paging].token,
		cursor->token[0] != '\0' ? cursor->token : NULL);
	TRY(iot_run(iot, request, &answer, err));
	array = json_object_get(answer, list->array);
	if (json_array_size(array) > max ||
		(array != NULL && !json_is_array(array) && !json_is_null(array)))
		return iot_malformed(iot, list->array, err);
	memset(items, 0, max * list->item_bytes);
	for (size_t i = 0; i < json_array_size(array); i++)
		TRY(list->read(
			iot, json_array_get(array, i), (char *)items + i * list->item_bytes, err));
	TRY(advance(iot, answer, PAGINGS[list->paging].next, cursor, err));
	*count = json_array_size(array);
	return OK;
}
