#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "server/iotcore/policy_parser.h"

/* Here as well as in server/http/request.h, which a library must not know. */
OWNER(json_t, json_decref)

/* document > Statement > one > Condition > operator > key > values */
#define DEPTH_MAX 8
/* Twice what 404600 octets of sense would hold; bounds what the JSON parser allocates. */
#define VALUES_MAX 16384
/* What a double holds; longer ones stand in quotes. See load() as well. */
#define NUMBER_MAX_BYTES 15
#define CHUNK_BYTES 2048

/* ---- memory ---- */

void *
policy_arena(struct policy *policy, size_t bytes)
{
	const size_t unit = sizeof(max_align_t);
	size_t size = (bytes / unit + 1) * unit; /* never nothing, so that NULL is short memory */
	struct policy_chunk *chunk = policy->chunks;

	if (chunk == NULL || chunk->size - chunk->used < size) {
		size_t room = size > CHUNK_BYTES ? size : CHUNK_BYTES;

		chunk = mem_zalloc(sizeof(*chunk) + room);
		if (chunk == NULL)
			return NULL;
		chunk->size = room;
		chunk->next = policy->chunks;
		policy->chunks = chunk;
	}
	chunk->used += size;
	return (uint8_t *)chunk->data + (chunk->used - size);
}

struct view
policy_copy(struct policy *policy, struct view text)
{
	uint8_t *copy = policy_arena(policy, text.len);

	if (copy == NULL)
		return (struct view){ 0 };
	if (text.len > 0)
		memcpy(copy, text.data, text.len);
	return (struct view){ copy, text.len };
}

void
policy_free(struct policy *policy)
{
	if (policy == NULL)
		return;
	for (struct policy_chunk *chunk = policy->chunks, *next; chunk != NULL; chunk = next) {
		next = chunk->next;
		mem_free(chunk);
	}
	mem_free(policy);
}

/* ---- errors ---- */

const char *
policy_shown(char out[POLICY_SHOWN_BYTES], struct view text)
{
	size_t len = text.len < POLICY_SHOWN_BYTES ? text.len : POLICY_SHOWN_BYTES - 1;

	for (size_t i = 0; i < len; i++)
		out[i] = text.data[i] >= ' ' && text.data[i] <= '~' ? (char)text.data[i] : '?';
	out[len] = '\0';
	return out;
}

enum status
policy_refuse(const struct policy_parser *at, struct err *err, const char *fmt, ...)
{
	char text[ERR_TEXT_BYTES], sid[POLICY_SHOWN_BYTES];
	const char *member = at->member != NULL ? at->member : "";
	const char *colon = at->member != NULL ? ": " : "";
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	if (at->statement == NULL)
		return err_set(err, ERR_ARGUMENT, "malformed_policy", "policy: %s%s%s", member,
			colon, text);
	if (at->statement->sid.len == 0)
		return err_set(err, ERR_ARGUMENT, "malformed_policy",
			"policy: statement %zu: %s%s%s", at->number, member, colon, text);
	return err_set(err, ERR_ARGUMENT, "malformed_policy",
		"policy: statement %zu (Sid '%s'): %s%s%s", at->number,
		policy_shown(sid, at->statement->sid), member, colon, text);
}

/* ---- JSON ---- */

/* How many octets of UTF-8 the four digits behind "\\u" become; both halves of a pair become four.
 */
static size_t
unit_octets(const uint8_t digits[4])
{
	char text[5] = { 0 };

	memcpy(text, digits, 4);
	unsigned long unit = strtoul(text, NULL, 16);

	if (unit >= 0xdc00 && unit <= 0xdfff)
		return 0;
	if (unit >= 0xd800 && unit <= 0xdbff)
		return 4;
	return unit < 0x80 ? 1 : unit < 0x800 ? 2 : 3;
}

/* The octets that the string at json[at], behind its quote, holds; *end is the place of the other.
 */
static size_t
string_octets(size_t *end, struct view json, size_t at)
{
	size_t octets = 0;

	for (; at < json.len && json.data[at] != '"'; at++) {
		bool escape = json.data[at] == '\\' && ++at < json.len;

		if (escape && json.data[at] == 'u' && json.len - at > 4) {
			octets += unit_octets(json.data + at + 1);
			at += 4;
		} else {
			octets++;
		}
	}
	*end = at;
	return octets;
}

static bool
in_number(uint8_t c)
{
	return (c >= '0' && c <= '9') || c == '.' || c == '-' || c == '+' || c == 'e' || c == 'E';
}

/*
 * Counts before the parser recurses and allocates; what is no JSON is the parser's business.
 * *octets: of all strings, see load(). Outside of strings only a number can be long.
 */
static enum status
scan(const struct policy_parser *at, size_t *octets, struct view json, struct err *err)
{
	size_t depth = 0, values = 1, digits = 0;

	for (size_t i = 0; i < json.len; i++) {
		uint8_t c = json.data[i];

		digits = in_number(c) ? digits + 1 : 0;
		if (c == '"')
			*octets += string_octets(&i, json, i + 1);
		else if (c == '{' || c == '[')
			depth++, values++;
		else if ((c == '}' || c == ']') && depth > 0)
			depth--;
		else if (c == ',')
			values++;
		if (depth > DEPTH_MAX)
			return policy_refuse(at, err, "at most %d levels wanted", DEPTH_MAX);
		if (values > VALUES_MAX)
			return policy_refuse(at, err, "at most %d values wanted", VALUES_MAX);
		if (digits > NUMBER_MAX_BYTES)
			return policy_refuse(at, err, "numbers of at most %d characters wanted",
				NUMBER_MAX_BYTES);
	}
	return OK;
}

/* The octets of all strings that were read; as deep as DEPTH_MAX. */
static size_t
read_octets(const json_t *value)
{
	size_t octets = json_is_string(value) ? json_string_length(value) : 0;
	const char *name;
	json_t *item;
	size_t i;

	/* jansson's iteration takes what it walks as its own to change; we do not. */
	json_object_foreach((json_t *)(uintptr_t)value, name, item) octets +=
		strlen(name) + read_octets(item);
	json_array_foreach(value, i, item) octets += read_octets(item);
	return octets;
}

static enum status
load(const struct policy_parser *at, json_t **out, struct view json, struct err *err)
{
	json_error_t error = { 0 };
	size_t octets = 0;

	if (json.len > POLICY_DOCUMENT_MAX_BYTES)
		return policy_refuse(at, err, "at most %d octets wanted, %zu found",
			POLICY_DOCUMENT_MAX_BYTES, json.len);
	TRY(scan(at, &octets, json, err));
	*out = json_loadb(json.len > 0 ? (const char *)json.data : "", json.len,
		JSON_REJECT_DUPLICATES, &error);
	/*
	 * Where memory is short while a token grows over 15 octets, jansson 2.14 drops a character
	 * and goes on: a Deny would lose its meaning. So what was read is held against what was
	 * sent.
	 */
	if (*out != NULL)
		return read_octets(*out) == octets ? OK : err_memory(err);
	/* It says nothing at all where one of its own allocations failed early. */
	if (json_error_code(&error) == json_error_out_of_memory || error.text[0] == '\0')
		return err_memory(err);
	if (json_error_code(&error) == json_error_duplicate_key)
		return policy_refuse(at, err,
			"line %d, column %d: a member stands twice in one object", error.line,
			error.column);
	return policy_refuse(
		at, err, "line %d, column %d: JSON in UTF-8 wanted", error.line, error.column);
}

static struct view
string_view(const json_t *value)
{
	return (struct view){ (const uint8_t *)json_string_value(value),
		json_string_length(value) };
}

/* ---- actions ---- */

/* The services whose actions AWS's guides show in IoT policies (whether it refuses others:
 * unverified). */
static const char *const SERVICES[] = { "iot:", "greengrass:" };

static bool
is_action(struct view text)
{
	bool known = false;

	for (size_t i = 0; i < COUNT_OF(SERVICES); i++) {
		struct view service = view_text(SERVICES[i]);
		struct policy_piece piece = { .kind = POLICY_PIECE_TEXT, .text = service };
		struct policy_pattern head = { .pieces = &piece, .count = 1, .fold = true };

		known = known || (text.len > service.len &&
					 policy_match(&head,
						 (struct policy_resource){
							 .name = { text.data, service.len } },
						 NULL, NULL));
	}
	for (size_t i = strlen("iot:"); known && i < text.len; i++) {
		uint8_t c = text.data[i];

		known = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
		        (c >= '0' && c <= '9') || c == '*' || c == '?' || c == ':';
	}
	return known;
}

static enum status
action_parse(struct policy_parser *at, unsigned *mask, const json_t *value, struct err *err)
{
	char shown[POLICY_SHOWN_BYTES];
	struct policy_pattern pattern;

	if (!json_is_string(value))
		return policy_refuse(at, err, "a text or a list of texts wanted");
	if (!view_equal_text(string_view(value), "*") && !is_action(string_view(value)))
		return policy_refuse(at, err, "an action of iot or * wanted, '%s' found",
			policy_shown(shown, string_view(value)));
	TRY(policy_pattern_compile(at, &pattern, string_view(value), true, err));
	pattern.fold = true; /* as IAM does; for IoT Core unverified */
	for (int action = POLICY_NO_ACTION + 1; action < POLICY_ACTION_COUNT; action++) {
		const char *name = policy_action_name((enum policy_action)action);

		if (policy_match(&pattern, (struct policy_resource){ .name = view_text(name) },
			    NULL, NULL))
			*mask |= 1u << action;
	}
	return OK;
}

/* ---- resources ---- */

bool
policy_arn_split(struct view parts[POLICY_ARN_PARTS], struct view text, bool with_variables)
{
	size_t part = 0, begin = 0;

	for (size_t i = 0; i < text.len && part + 1 < POLICY_ARN_PARTS; i++) {
		if (with_variables && policy_variable_at(text, i)) {
			const uint8_t *end = memchr(text.data + i, '}', text.len - i);

			if (end == NULL)
				return false;
			i = (size_t)(end - text.data);
		} else if (text.data[i] == ':') {
			parts[part++] = (struct view){ text.data + begin, i - begin };
			begin = i + 1;
		}
	}
	parts[part] = (struct view){ text.data + begin, text.len - begin };
	return part + 1 == POLICY_ARN_PARTS && view_equal_text(parts[0], "arn");
}

static enum status
resource_parse(
	struct policy_parser *at, struct policy_pattern *out, const json_t *value, struct err *err)
{
	struct view parts[POLICY_ARN_PARTS];
	char shown[POLICY_SHOWN_BYTES];

	if (!json_is_string(value))
		return policy_refuse(at, err, "a text or a list of texts wanted");
	/* The texts that AWS takes beside whole ARNs are not documented (unverified). */
	if (!view_equal_text(string_view(value), "*") &&
		!policy_arn_split(parts, string_view(value), at->policy->with_variables))
		return policy_refuse(at, err, "an ARN of six parts or * wanted, '%s' found",
			policy_shown(shown, string_view(value)));
	return policy_pattern_compile(at, out, string_view(value), true, err);
}

/* ---- statements ---- */

static enum status
parse_sid(struct policy_parser *at, const json_t *value, struct err *err)
{
	if (!json_is_string(value))
		return policy_refuse(at, err, "a text wanted");
	if (json_string_length(value) == 0)
		return OK;
	at->statement->sid = policy_copy(at->policy, string_view(value));
	return at->statement->sid.data != NULL ? OK : err_memory(err);
}

static enum status
parse_effect(struct policy_parser *at, const json_t *value, struct err *err)
{
	struct view text = json_is_string(value) ? string_view(value) : (struct view){ 0 };
	char shown[POLICY_SHOWN_BYTES];

	if (view_equal_text(text, "Allow"))
		at->statement->effect = POLICY_EFFECT_ALLOW;
	else if (view_equal_text(text, "Deny"))
		at->statement->effect = POLICY_EFFECT_DENY;
	else
		return policy_refuse(
			at, err, "Allow or Deny wanted, '%s' found", policy_shown(shown, text));
	return OK;
}

/* A text or a list of them, which must not be empty: "of nothing" is surely a mistake. */
static enum status
count_texts(const struct policy_parser *at, size_t *out, const json_t *value, struct err *err)
{
	*out = json_is_array(value) ? json_array_size(value) : 1;
	return *out > 0 ? OK : policy_refuse(at, err, "a text wanted, an empty list found");
}

static const json_t *
text_at(const json_t *value, size_t i)
{
	return json_is_array(value) ? json_array_get(value, i) : value;
}

static enum status
parse_action(struct policy_parser *at, const json_t *value, struct err *err)
{
	size_t count;

	TRY(count_texts(at, &count, value, err));
	for (size_t i = 0; i < count; i++)
		TRY(action_parse(at, &at->statement->actions, text_at(value, i), err));
	return OK;
}

static enum status
parse_not_action(struct policy_parser *at, const json_t *value, struct err *err)
{
	const unsigned all = (1u << POLICY_ACTION_COUNT) - (1u << (POLICY_NO_ACTION + 1));

	TRY(parse_action(at, value, err));
	at->statement->actions = all & ~at->statement->actions;
	return OK;
}

static enum status
parse_resource(struct policy_parser *at, const json_t *value, struct err *err)
{
	struct policy_pattern *patterns;
	size_t count;

	TRY(count_texts(at, &count, value, err));
	patterns = policy_arena(at->policy, count * sizeof(*patterns));
	if (patterns == NULL)
		return err_memory(err);
	for (size_t i = 0; i < count; i++)
		TRY(resource_parse(at, &patterns[i], text_at(value, i), err));
	at->statement->resources = patterns;
	at->statement->resource_count = count;
	return OK;
}

static enum status
parse_not_resource(struct policy_parser *at, const json_t *value, struct err *err)
{
	at->statement->not_resource = true;
	return parse_resource(at, value, err);
}

static enum status
parse_principal(struct policy_parser *at, const json_t *value, struct err *err)
{
	(void)value;
	return policy_refuse(at, err, "the principal is who the policy is attached to: not wanted");
}

/* In the order in which they are read: the Sid first, for it stands in errors. */
static const struct statement_member {
	const char *name;
	const char *instead; /* the member that may stand in its place */
	enum status (*parse)(struct policy_parser *at, const json_t *value, struct err *err);
	bool wanted;
} STATEMENT_MEMBERS[] = {
	{ "Sid", NULL, parse_sid, false },
	{ "Principal", NULL, parse_principal, false },
	{ "NotPrincipal", NULL, parse_principal, false },
	{ "Effect", NULL, parse_effect, true },
	{ "Action", "NotAction", parse_action, true },
	{ "NotAction", "Action", parse_not_action, true },
	{ "Resource", "NotResource", parse_resource, true },
	{ "NotResource", "Resource", parse_not_resource, true },
	{ "Condition", NULL, policy_conditions_parse, false },
};

static enum status
parse_member(struct policy_parser *at, const struct statement_member *member, const json_t *object,
	struct err *err)
{
	const json_t *value = json_object_get(object, member->name);
	bool instead = member->instead != NULL && json_object_get(object, member->instead) != NULL;

	at->member = member->name;
	if (value == NULL && member->wanted && !instead)
		return policy_refuse(at, err, "wanted, not found");
	if (value == NULL)
		return OK;
	if (instead)
		return policy_refuse(
			at, err, "either it or %s wanted, both found", member->instead);
	return member->parse(at, value, err);
}

static bool
is_statement_member(const char *name)
{
	for (size_t i = 0; i < COUNT_OF(STATEMENT_MEMBERS); i++) {
		if (strcmp(STATEMENT_MEMBERS[i].name, name) == 0)
			return true;
	}
	return false;
}

static enum status
parse_statement(struct policy_parser *at, const json_t *object, struct err *err)
{
	char shown[POLICY_SHOWN_BYTES];
	const char *name;
	json_t *value;

	at->member = NULL;
	if (!json_is_object(object))
		return policy_refuse(at, err, "an object wanted");
	for (size_t i = 0; i < COUNT_OF(STATEMENT_MEMBERS); i++)
		TRY(parse_member(at, &STATEMENT_MEMBERS[i], object, err));
	at->member = NULL;
	json_object_foreach((json_t *)(uintptr_t)object, name, value)
	{
		if (!is_statement_member(name))
			return policy_refuse(at, err, "no member '%s' known",
				policy_shown(shown, view_text(name)));
	}
	at->policy->actions |= at->statement->actions;
	return OK;
}

/* ---- the document ---- */

static enum status
parse_version(struct policy_parser *at, const json_t *version, struct err *err)
{
	at->member = "Version";
	if (version == NULL) /* IAM: 2008-10-17 is meant. */
		return OK;
	if (json_is_string(version) && view_equal_text(string_view(version), "2012-10-17"))
		at->policy->with_variables = true;
	else if (!json_is_string(version) || !view_equal_text(string_view(version), "2008-10-17"))
		return policy_refuse(at, err, "2012-10-17 or 2008-10-17 wanted");
	return OK;
}

static enum status
parse_statements(struct policy_parser *at, const json_t *value, struct err *err)
{
	size_t count = json_is_array(value) ? json_array_size(value) : 1;

	at->member = "Statement";
	if (value == NULL || (!json_is_array(value) && !json_is_object(value)))
		return policy_refuse(at, err, "a statement or a list of them wanted");
	if (count == 0 || count > POLICY_STATEMENTS_MAX)
		return policy_refuse(at, err, "1 to %d statements wanted, %zu found",
			POLICY_STATEMENTS_MAX, count);
	at->policy->statements = policy_arena(at->policy, count * sizeof(*at->policy->statements));
	if (at->policy->statements == NULL)
		return err_memory(err);
	at->policy->statement_count = count;
	for (size_t i = 0; i < count; i++) {
		at->statement = &at->policy->statements[i];
		at->number = i + 1;
		TRY(parse_statement(at, text_at(value, i), err));
	}
	return OK;
}

static enum status
parse_document(struct policy_parser *at, const json_t *document, struct err *err)
{
	char shown[POLICY_SHOWN_BYTES];
	const char *name;
	json_t *value;

	if (!json_is_object(document))
		return policy_refuse(at, err, "an object wanted");
	json_object_foreach((json_t *)(uintptr_t)document, name, value)
	{
		if (strcmp(name, "Version") != 0 && strcmp(name, "Id") != 0 &&
			strcmp(name, "Statement") != 0)
			return policy_refuse(at, err, "no member '%s' known",
				policy_shown(shown, view_text(name)));
	}
	value = json_object_get(document, "Id");
	if (value != NULL && !json_is_string(value))
		return policy_refuse(at, err, "Id: a text wanted");
	TRY(parse_version(at, json_object_get(document, "Version"), err));
	return parse_statements(at, json_object_get(document, "Statement"), err);
}

enum status
policy_parse(struct policy **out, struct view json, struct err *err)
{
	own(iot_policy) policy = mem_zalloc(sizeof(*policy));
	struct policy_parser at = { .policy = policy };
	own(json_t) document = NULL;

	if (policy == NULL)
		return err_memory(err);
	TRY(load(&at, &document, json, err));
	TRY(parse_document(&at, document, err));
	*out = give(policy);
	return OK;
}

size_t
policy_document_chars(struct view json)
{
	size_t count = 0;

	for (size_t i = 0; i < json.len; i++) {
		uint8_t c = json.data[i];

		count += c != ' ' && c != '\t' && c != '\n' && c != '\r' && (c & 0xc0) != 0x80;
	}
	return count;
}
