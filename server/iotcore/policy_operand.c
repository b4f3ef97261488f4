/* The member Condition: {operator: {key: value or [values]}}. */
#include <stdio.h>
#include <string.h>

#include "server/iotcore/policy_parser.h"

/* Where in Condition an error is: operator and key, cut when they are long. */
#define PLACE_BYTES (2 * POLICY_SHOWN_BYTES + 16)

/* What JSON holds as the text that IAM would read: numbers and booleans may stand without quotes.
 */
#define SCALAR_BYTES 32

static bool
scalar_text(struct view *out, char buffer[SCALAR_BYTES], const json_t *value)
{
	int len = 0;

	if (json_is_string(value)) {
		*out = (struct view){ (const uint8_t *)json_string_value(value),
			json_string_length(value) };
		return true;
	}
	if (json_is_boolean(value))
		len = snprintf(buffer, SCALAR_BYTES, "%s", json_is_true(value) ? "true" : "false");
	else if (json_is_integer(value))
		len = snprintf(
			buffer, SCALAR_BYTES, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
	else if (json_is_real(value))
		len = snprintf(buffer, SCALAR_BYTES, "%.15g", json_real_value(value));
	if (len <= 0 || len >= SCALAR_BYTES)
		return false;
	*out = (struct view){ (const uint8_t *)buffer, (size_t)len };
	return true;
}

static enum status
arn_compile(struct policy_parser *at, struct policy_operand *out, struct view text, struct err *err)
{
	struct view parts[POLICY_ARN_PARTS];
	struct policy_pattern *patterns;

	if (view_equal_text(text, "*"))
		return OK;
	if (!policy_arn_split(parts, text, at->policy->with_variables))
		return policy_refuse(
			at, err, "%s wanted", policy_operand_wanted(POLICY_OPERAND_ARN));
	patterns = policy_arena(at->policy, POLICY_ARN_PARTS * sizeof(*patterns));
	if (patterns == NULL)
		return err_memory(err);
	for (size_t i = 0; i < POLICY_ARN_PARTS; i++)
		TRY(policy_pattern_compile(at, &patterns[i], parts[i], true, err));
	out->arn = patterns;
	return OK;
}

static enum status
binary_compile(
	struct policy_parser *at, struct policy_operand *out, struct view text, struct err *err)
{
	uint8_t *octets;
	size_t len;

	if (text.len > POLICY_PATTERN_MAX_BYTES ||
		++at->policy->pattern_count > POLICY_PATTERNS_MAX)
		return policy_refuse(at, err, "at most %d values of %d octets wanted",
			POLICY_PATTERNS_MAX, POLICY_PATTERN_MAX_BYTES);
	octets = policy_arena(at->policy, text.len);
	if (octets == NULL)
		return err_memory(err);
	if (!policy_base64_decode(octets, &len, text))
		return policy_refuse(
			at, err, "%s wanted", policy_operand_wanted(POLICY_OPERAND_BINARY));
	out->typed.binary = (struct view){ octets, len };
	return OK;
}

static enum status
typed_compile(struct policy_parser *at, struct policy_operand *out, enum policy_operand_kind kind,
	struct view text, struct err *err)
{
	char shown[POLICY_SHOWN_BYTES];

	/* What a variable becomes is known at the decision only; no number if it is none then. */
	TRY(policy_pattern_compile(at, &out->text, text, false, err));
	if (out->text.variables == 0 && !policy_typed_parse(&out->typed, kind, text))
		return policy_refuse(at, err, "%s wanted, '%s' found", policy_operand_wanted(kind),
			policy_shown(shown, text));
	/* Presence is asked for by the document, not by the device. */
	if (kind == POLICY_OPERAND_NULL && out->text.variables != 0)
		return policy_refuse(at, err, "true or false wanted, a variable found");
	return OK;
}

static enum status
operand_compile(struct policy_parser *at, struct policy_operand *out, enum policy_operand_kind kind,
	const json_t *value, struct err *err)
{
	char buffer[SCALAR_BYTES];
	struct view text;

	if (!scalar_text(&text, buffer, value))
		return policy_refuse(at, err, "%s wanted", policy_operand_wanted(kind));
	switch (kind) {
	case POLICY_OPERAND_STRING: return policy_pattern_compile(at, &out->text, text, false, err);
	case POLICY_OPERAND_STRING_FOLD:
		TRY(policy_pattern_compile(at, &out->text, text, false, err));
		out->text.fold = true;
		return OK;
	case POLICY_OPERAND_STRING_LIKE:
		return policy_pattern_compile(at, &out->text, text, true, err);
	case POLICY_OPERAND_ARN: return arn_compile(at, out, text, err);
	case POLICY_OPERAND_BINARY: return binary_compile(at, out, text, err);
	case POLICY_OPERAND_NUMBER:
	case POLICY_OPERAND_DATE:
	case POLICY_OPERAND_BOOL:
	case POLICY_OPERAND_ADDRESS:
	case POLICY_OPERAND_NULL: return typed_compile(at, out, kind, text, err);
	}
	return policy_refuse(at, err, "no operand");
}

static enum status
condition_parse(struct policy_parser *at, struct policy_condition *out, struct view key,
	const json_t *value, struct err *err)
{
	size_t count = json_is_array(value) ? json_array_size(value) : 1;
	struct view name = policy_copy(at->policy, key);
	struct policy_operand *operands;

	if (name.data == NULL)
		return err_memory(err);
	if (!policy_key_parse(&out->key, name))
		return policy_refuse(at, err, "no name of a condition key");
	/* An empty list fits nothing, and its negation everything: surely a mistake. */
	if (count == 0)
		return policy_refuse(at, err, "a value wanted, an empty list found");
	operands = policy_arena(at->policy, count * sizeof(*operands));
	if (operands == NULL)
		return err_memory(err);
	for (size_t i = 0; i < count; i++)
		TRY(operand_compile(at, &operands[i], out->op->kind,
			json_is_array(value) ? json_array_get(value, i) : value, err));
	out->operands = operands;
	out->operand_count = count;
	return OK;
}

static enum status
operator_parse(struct policy_parser *at, struct policy_condition *conditions, size_t *count,
	const char *name, const json_t *keys, struct err *err)
{
	struct policy_condition head = { 0 };
	char shown_name[POLICY_SHOWN_BYTES], shown_key[POLICY_SHOWN_BYTES];
	char place[PLACE_BYTES];
	const char *key;
	json_t *value;

	policy_shown(shown_name, view_text(name));
	(void)snprintf(place, sizeof(place), "Condition: %s", shown_name);
	at->member = place;
	if (!policy_operator_parse(&head, view_text(name)))
		return policy_refuse(at, err, "no such operator");
	if (!json_is_object(keys) || json_object_size(keys) == 0)
		return policy_refuse(at, err, "an object of condition keys wanted");
	/* jansson's iteration takes what it walks as its own to change; we do not. */
	json_object_foreach((json_t *)(uintptr_t)keys, key, value)
	{
		(void)snprintf(place, sizeof(place), "Condition: %s: %s", shown_name,
			policy_shown(shown_key, view_text(key)));
		conditions[*count] = head;
		TRY(condition_parse(at, &conditions[*count], view_text(key), value, err));
		++*count;
	}
	return OK;
}

enum status
policy_conditions_parse(struct policy_parser *at, const json_t *value, struct err *err)
{
	struct policy_condition *conditions;
	size_t keys_count = 0, count = 0;
	const char *name;
	json_t *keys;
	enum status status = OK;

	if (!json_is_object(value))
		return policy_refuse(at, err, "an object of operators wanted");
	json_object_foreach((json_t *)(uintptr_t)value, name, keys) keys_count +=
		json_object_size(keys);
	conditions = policy_arena(at->policy, keys_count * sizeof(*conditions));
	if (conditions == NULL)
		return err_memory(err);
	json_object_foreach((json_t *)(uintptr_t)value, name, keys)
	{
		status = operator_parse(at, conditions, &count, name, keys, err);
		/* The place of an error is the callee's. */
		at->member = "Condition";
		if (status != OK)
			return status;
	}
	at->statement->conditions = conditions;
	at->statement->condition_count = count;
	return OK;
}
