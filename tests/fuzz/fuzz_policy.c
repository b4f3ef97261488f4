/*
 * Any octets as an IoT policy, and if it is one, any resource put to it. The input is action ‖ cut
 * ‖ document NUL resource NUL client id. The matcher is held against one that follows all ways at
 * once.
 */
#include <assert.h>
#include <stdint.h>
#include <string.h>

#include "server/iotcore/policy_internal.h"

#define V(text)                                                                                    \
	{                                                                                          \
		(const uint8_t *)(text), sizeof(text) - 1                                          \
	}
/* The reference walks all places for each piece. */
#define REFERENCE_MAX_BYTES 256

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static const struct policy_pair ATTRIBUTES[] = { { V("model"), V("m1") }, { V("n"), V("42") },
	{ V("odd"), V("a*b") } };
static const struct policy_pair CERTIFICATE[] = {
	{ V("iot:Certificate.Subject.CommonName"), V("a") },
	{ V("iot:Certificate.Subject.Organization"), V("a, b") },
	{ V("iot:Certificate.Subject.Organization"), V("b\\") },
};

static struct view
until_nul(const uint8_t **at, const uint8_t *end)
{
	const uint8_t *nul = *at < end ? memchr(*at, '\0', (size_t)(end - *at)) : NULL;
	struct view text = { *at, (size_t)((nul != NULL ? nul : end) - *at) };

	*at = nul != NULL ? nul + 1 : end;
	return text;
}

/* What may stand for piece at text: its octets, escaped where they are. False: nothing may. */
static bool
literal(uint8_t *out, size_t *len, const struct policy_piece *piece,
	const struct policy_value *values)
{
	struct view text = piece->text;
	bool escape = false;

	*len = 0;
	if (piece->kind == POLICY_PIECE_VARIABLE) {
		const struct policy_value *value = &values[piece->variable];

		if (value->state != POLICY_VALUE_PLAIN && value->state != POLICY_VALUE_ESCAPED)
			return false;
		text = value->text;
		escape = value->state == POLICY_VALUE_ESCAPED;
	}
	for (size_t i = 0; i < text.len; i++) {
		if (escape && strchr(",\"\\+=<>;", text.data[i]) != NULL && text.data[i] != '\0')
			out[(*len)++] = '\\';
		out[(*len)++] = text.data[i];
	}
	return true;
}

static bool
equal(const uint8_t *a, const uint8_t *b, size_t len, bool fold)
{
	for (size_t i = 0; i < len; i++) {
		uint8_t x = a[i], y = b[i];

		if (fold && x >= 'A' && x <= 'Z')
			x = (uint8_t)(x - 'A' + 'a');
		if (fold && y >= 'A' && y <= 'Z')
			y = (uint8_t)(y - 'A' + 'a');
		if (x != y)
			return false;
	}
	return true;
}

/* All places that the pieces so far may have come to, piece by piece. */
static bool
reference(const struct policy_pattern *pattern, struct view text, const struct policy_value *values)
{
	static uint8_t octets[2 * (POLICY_PATTERN_MAX_BYTES + POLICY_VALUE_MAX_BYTES)];
	bool now[REFERENCE_MAX_BYTES + 1] = { true };

	for (size_t p = 0; p < pattern->count; p++) {
		const struct policy_piece *piece = &pattern->pieces[p];
		bool next[REFERENCE_MAX_BYTES + 1] = { false };
		size_t len = 0;
		bool can = piece->kind != POLICY_PIECE_TEXT && piece->kind != POLICY_PIECE_VARIABLE;

		can = can || literal(octets, &len, piece, values);
		for (size_t at = 0; can && at <= text.len; at++) {
			if (!now[at])
				continue;
			if (piece->kind == POLICY_PIECE_MANY) {
				for (size_t to = at; to <= text.len; to++)
					next[to] = true;
			} else if (piece->kind == POLICY_PIECE_ONE) {
				size_t to = at + 1;

				while (to < text.len && to < at + 4 &&
					(text.data[to] & 0xc0) == 0x80)
					to++;
				if (at < text.len)
					next[to] = true;
			} else if (len <= text.len - at &&
				   equal(text.data + at, octets, len, pattern->fold)) {
				next[at + len] = true;
			}
		}
		memcpy(now, next, sizeof(now));
	}
	return now[text.len];
}

static void
compare(const struct policy_pattern *pattern, struct view text, size_t cut,
	const struct policy_value *values)
{
	struct policy_resource parts = { { text.data, cut }, { text.data + cut, text.len - cut } };
	size_t steps = 0, length = 0;

	for (size_t p = 0; p < pattern->count; p++)
		length += 1 + pattern->pieces[p].text.len +
		          (pattern->pieces[p].kind == POLICY_PIECE_VARIABLE
					  ? values[pattern->pieces[p].variable].text.len
					  : 0);
	assert(policy_match(pattern, parts, values, &steps) == reference(pattern, text, values));
	assert(steps <= (text.len + 1) * length);
}

/* Each pattern of the statement, with the values that a decision would give its variables. */
static void
compare_all(const struct policy_statement *statement, struct view text, size_t cut,
	const struct policy_context *context)
{
	struct policy_value values[POLICY_VARIABLES_MAX] = { 0 };
	struct policy_scratch scratch = { 0 };

	for (size_t i = 0; i < statement->variable_count; i++) {
		const struct policy_key *key = &statement->variables[i];
		struct view value;

		if (policy_key_value(&value, key, 0, context, &scratch))
			values[i] = policy_value_of(value, key->kind == POLICY_KEY_CERTIFICATE);
	}
	for (size_t i = 0; i < statement->resource_count; i++)
		compare(&statement->resources[i], text, cut, values);
	for (size_t i = 0; i < statement->condition_count; i++) {
		const struct policy_condition *condition = &statement->conditions[i];

		for (size_t j = 0; j < condition->operand_count; j++)
			compare(&condition->operands[j].text, text, cut, values);
	}
}

static enum policy_verdict
decide(const struct policy *const *policies, size_t count, enum policy_action action,
	struct view text, size_t cut, const struct policy_context *context)
{
	struct policy_resource parts = { { text.data, cut }, { text.data + cut, text.len - cut } };
	struct policy_decision decision;
	enum policy_verdict verdict =
		policy_decide(policies, count, action, parts, context, &decision);

	assert(verdict == decision.verdict && verdict != POLICY_UNSET);
	assert((verdict == POLICY_IMPLICIT_DENY) == (decision.policy == POLICY_NONE));
	assert(decision.missing_count <= POLICY_MISSING_MAX);
	if (decision.policy != POLICY_NONE)
		assert(decision.statement < policy_statement_count(policies[decision.policy]));
	return verdict;
}

static void
put(const struct policy *parsed, enum policy_action action, struct view text, size_t cut,
	const struct policy_context *context)
{
	static const char NONE[] =
		"{\"Statement\":{\"Effect\":\"Deny\",\"Action\":\"*\",\"Resource\":\"*\"}}";
	static struct policy *none;
	struct err err;

	if (none == NULL && policy_parse(&none, view_text(NONE), &err) != OK)
		assert(false);
	const struct policy *const alone[] = { parsed, NULL, parsed };
	const struct policy *const denied[] = { parsed, none };
	enum policy_verdict verdict = decide(alone, 1, action, text, cut, context);

	/* Neither where head and name meet nor a repetition changes anything; a Deny of all wins.
	 */
	assert(verdict == decide(alone, 3, action, text, 0, context));
	assert(verdict != POLICY_ALLOWED || policy_mentions(alone, 1, action));
	assert(decide(denied, 2, action, text, cut, context) ==
		(action == POLICY_NO_ACTION || action >= POLICY_ACTION_COUNT
				? POLICY_IMPLICIT_DENY
				: POLICY_EXPLICIT_DENY));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	const uint8_t *at = data + 2, *end = data + len;
	struct policy *parsed = NULL;
	struct err err = { 0 };

	if (len < 2)
		return 0;
	struct view json = until_nul(&at, end), text = until_nul(&at, end);
	struct policy_context context = { .now_s = 1795536000,
		.client_id = until_nul(&at, end),
		.thing_attributes = ATTRIBUTES,
		.thing_attribute_count = COUNT_OF(ATTRIBUTES),
		.certificate = CERTIFICATE,
		.certificate_count = COUNT_OF(CERTIFICATE),
		.secure_transport = POLICY_YES };

	context.thing_name = context.client_id;
	(void)policy_address_parse(&context.source, context.client_id);
	if (policy_parse(&parsed, json, &err) != OK) {
		assert(err.status == ERR_ARGUMENT && strcmp(err.code, "malformed_policy") == 0);
		return 0;
	}
	if (text.len > REFERENCE_MAX_BYTES)
		text.len = REFERENCE_MAX_BYTES;
	size_t cut = text.len > 0 ? data[1] % (text.len + 1) : 0;

	for (size_t i = 0; i < parsed->statement_count; i++)
		compare_all(&parsed->statements[i], text, cut, &context);
	put(parsed, (enum policy_action)(data[0] % (POLICY_ACTION_COUNT + 1)), text, cut, &context);
	policy_free(parsed);
	return 0;
}
