/* What a handler asks of its call, and answers. */
#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "server/iotcore/internal.h"
#include "server/iotcore/member.h"

/* ---- members ---- */

static const struct member *
find_in(const struct member *members, const char *name)
{
	for (; members != NULL && members->name != NULL; members++)
		if (strcmp(members->name, name) == 0)
			return members;
	return NULL;
}

static const struct member *
find(const struct call *call, const char *name)
{
	const struct member *member = find_in(call->op->members, name);

	if (member == NULL)
		member = find_in(page_members(call->op), name);
	assert(member != NULL); /* the handler and its table disagree */
	return member;
}

const char *
call_member_text(const struct request *request, const struct member *member)
{
	const char *name = member->wire != NULL ? member->wire : member->name;

	switch (member->at) {
	case AT_PATH: return request_param(request, name);
	case AT_QUERY: return request_query(request, name);
	case AT_HEADER: return request_header(request, name);
	case AT_BODY:
	case AT_PAYLOAD:
	case AT_UNSET: break;
	}
	return NULL;
}

static json_t *
body_member(const struct call *call, const struct member *member)
{
	json_t *json =
		member->at == AT_PAYLOAD ? call->body : json_object_get(call->body, member->name);

	return json_is_null(json) ? NULL : json;
}

static bool
is_in_body(const struct member *member)
{
	return member->at == AT_BODY || member->at == AT_PAYLOAD;
}

const char *
call_text(const struct call *call, const char *name)
{
	const struct member *member = find(call, name);

	assert(member->type == MEMBER_TEXT);
	return is_in_body(member) ? json_string_value(body_member(call, member))
	                          : call_member_text(call->request, member);
}

bool
call_has(const struct call *call, const char *name)
{
	const struct member *member = find(call, name);

	return is_in_body(member) ? body_member(call, member) != NULL
	                          : call_member_text(call->request, member) != NULL;
}

bool
call_flag(const struct call *call, const char *name, bool fallback)
{
	const struct member *member = find(call, name);
	const json_t *json = is_in_body(member) ? body_member(call, member) : NULL;
	const char *text = call_member_text(call->request, member);

	assert(member->type == MEMBER_FLAG);
	if (json != NULL)
		return json_is_true(json);
	return text != NULL ? strcmp(text, "true") == 0 : fallback;
}

int64_t
call_number(const struct call *call, const char *name, int64_t fallback)
{
	const struct member *member = find(call, name);
	const json_t *json = is_in_body(member) ? body_member(call, member) : NULL;
	const char *text = call_member_text(call->request, member);
	int64_t number;

	assert(member->type == MEMBER_NUMBER);
	if (json != NULL)
		return json_integer_value(json);
	return text != NULL && member_number(&number, text) ? number : fallback;
}

int64_t
call_time(const struct call *call, const char *name, int64_t fallback_s)
{
	const struct member *member = find(call, name);
	const json_t *json = is_in_body(member) ? body_member(call, member) : NULL;
	const char *text = json_is_string(json) ? json_string_value(json)
	                                        : call_member_text(call->request, member);
	int64_t at_s;

	assert(member->type == MEMBER_TIME);
	if (json_is_number(json))
		return (int64_t)json_number_value(json);
	return text != NULL && member_time(&at_s, text) ? at_s : fallback_s;
}

json_t *
call_json(const struct call *call, const char *name)
{
	const struct member *member = find(call, name);

	assert(is_in_body(member));
	return body_member(call, member);
}

/* ---- the answer ---- */

enum status
call_reply(struct call *call, json_t *object, struct err *err)
{
	json_decref(call->reply);
	call->reply = object;
	return object != NULL ? OK : err_memory(err);
}

json_t *
iotcore_time(int64_t us)
{
	/* NOLINTNEXTLINE(bugprone-integer-division): whole milliseconds, as AWS gives them */
	return json_real((double)(us / 1000) / 1000.0);
}

/* ---- pages ---- */

#define MARKERS(more)                                                                              \
	{                                                                                          \
		{ .name = "pageSize",                                                              \
			.at = AT_QUERY,                                                            \
			.type = MEMBER_NUMBER,                                                     \
			.least = 1,                                                                \
			.most = 250 },                                                             \
			{ .name = "marker",                                                        \
				.at = AT_QUERY,                                                    \
				.type = MEMBER_TEXT,                                               \
				.most = PAGE_KEY_TEXT_BYTES,                                       \
				.pattern = &PATTERN_MARKER },                                      \
			more                                                                       \
		{                                                                                  \
			.name = NULL                                                               \
		}                                                                                  \
	}
#define ORDER { .name = "isAscendingOrder", .at = AT_QUERY, .type = MEMBER_FLAG },

static const struct member MARKER_MEMBERS[] = MARKERS();
static const struct member MARKER_ORDER_MEMBERS[] = MARKERS(ORDER);
/* The bound of maxResults is the operation's: page_read(). */
static const struct member TOKEN_MEMBERS[] = {
	{ .name = "maxResults", .at = AT_QUERY, .type = MEMBER_NUMBER },
	{ .name = "nextToken", .at = AT_QUERY, .type = MEMBER_TEXT },
	{ .name = NULL },
};
static const struct member TOKEN_ONLY_MEMBERS[] = {
	{ .name = "nextToken", .at = AT_QUERY, .type = MEMBER_TEXT },
	{ .name = NULL },
};

const struct member *
page_members(const struct op *op)
{
	switch (op->page) {
	case PAGE_MARKER: return MARKER_MEMBERS;
	case PAGE_MARKER_ORDER: return MARKER_ORDER_MEMBERS;
	case PAGE_TOKEN: return TOKEN_MEMBERS;
	case PAGE_TOKEN_ONLY: return TOKEN_ONLY_MEMBERS;
	case PAGE_NONE: break;
	}
	return NULL;
}

/* The operation's name is part of a marker, so that one list's does not fit another. */
static enum status
read_key(struct call *call, const char *text, struct err *err)
{
	size_t name = strlen(call->op->name);
	size_t size = strlen(text) / 4 * 3 + 4;
	char *key = request_alloc(call->request, size);
	size_t len;

	if (key == NULL)
		return err_memory(err);
	if (!base64_decode((uint8_t *)key, size - 1, &len, text) || strlen(key) != len ||
		strncmp(key, call->op->name, name) != 0 || key[name] != ' ')
		return iotcore_error(err, "InvalidRequestException", "Invalid %s.",
			call->op->page == PAGE_TOKEN || call->op->page == PAGE_TOKEN_ONLY
				? "nextToken"
				: "marker");
	call->page.after = key + name + 1;
	return OK;
}

static bool
is_token(const struct op *op)
{
	return op->page == PAGE_TOKEN || op->page == PAGE_TOKEN_ONLY;
}

enum status
page_read(struct call *call, struct err *err)
{
	const struct op *op = call->op;
	int64_t most = op->page_most > 0 ? op->page_most : 250;
	int64_t standard = op->page_default > 0 ? op->page_default : is_token(op) ? most : 25;
	const char *size = is_token(op) ? "maxResults" : "pageSize";
	const char *after;
	char text[24];

	if (op->page == PAGE_NONE)
		return OK;
	call->page.limit =
		op->page == PAGE_TOKEN_ONLY ? standard : call_number(call, size, standard);
	if (call->page.limit < 1 || call->page.limit > most) {
		(void)snprintf(text, sizeof(text), "%" PRId64, call->page.limit);
		return call->page.limit < 1
		               ? iotcore_invalid(err, text, size,
					 "Member must have value greater than or equal to 1")
		               : iotcore_invalid(err, text, size,
					 "Member must have value less than or equal to %" PRId64,
					 most);
	}
	if (op->page == PAGE_MARKER_ORDER)
		call->page.ascending = call_flag(call, "isAscendingOrder", false);
	after = call_text(call, is_token(op) ? "nextToken" : "marker");
	return after != NULL && after[0] != '\0' ? read_key(call, after, err) : OK;
}

enum status
call_page_next(struct call *call, const char *key, struct err *err)
{
	char plain[PAGE_KEY_BYTES + 64];
	char text[PAGE_KEY_TEXT_BYTES];
	int len = snprintf(plain, sizeof(plain), "%s %s", call->op->name, key);

	assert(call->op->page != PAGE_NONE && len > 0 && (size_t)len < sizeof(plain));
	base64_encode(text, (const uint8_t *)plain, (size_t)len);
	if (json_object_set_new(call->reply, is_token(call->op) ? "nextToken" : "nextMarker",
		    json_string(text)) != 0)
		return err_memory(err);
	return OK;
}

/* ---- names ---- */

void
iotcore_arn(char out[IOTCORE_ARN_BYTES], const struct core *core, const char *fmt, ...)
{
	int len =
		snprintf(out, IOTCORE_ARN_BYTES, "arn:aws:iot:%s:%s:", core->region, core->account);
	va_list args;

	assert(len > 0 && len < IOTCORE_ARN_BYTES);
	va_start(args, fmt);
	(void)vsnprintf(out + len, (size_t)(IOTCORE_ARN_BYTES - len), fmt, args);
	va_end(args);
}

const char *
iotcore_arn_resource(const struct core *core, const char *arn, const char *type)
{
	char head[IOTCORE_ARN_BYTES];
	size_t len;

	iotcore_arn(head, core, "%s", type);
	len = strlen(head);
	return strncmp(arn, head, len) == 0 && arn[len] != '\0' ? arn + len : NULL;
}
