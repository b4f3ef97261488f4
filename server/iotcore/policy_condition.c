#include <string.h>

#include "server/iotcore/policy_internal.h"

/*
 * All operators of IAM. Which of them IoT Core implements is not documented (unverified); its guide
 * shows StringEquals, StringLike, Bool, IpAddress and the set operators.
 */
static const struct policy_operator OPERATORS[] = {
	{ "StringEquals", POLICY_OPERAND_STRING, POLICY_EQUAL, false },
	{ "StringNotEquals", POLICY_OPERAND_STRING, POLICY_EQUAL, true },
	{ "StringEqualsIgnoreCase", POLICY_OPERAND_STRING_FOLD, POLICY_EQUAL, false },
	{ "StringNotEqualsIgnoreCase", POLICY_OPERAND_STRING_FOLD, POLICY_EQUAL, true },
	{ "StringLike", POLICY_OPERAND_STRING_LIKE, POLICY_EQUAL, false },
	{ "StringNotLike", POLICY_OPERAND_STRING_LIKE, POLICY_EQUAL, true },
	{ "NumericEquals", POLICY_OPERAND_NUMBER, POLICY_EQUAL, false },
	{ "NumericNotEquals", POLICY_OPERAND_NUMBER, POLICY_EQUAL, true },
	{ "NumericLessThan", POLICY_OPERAND_NUMBER, POLICY_LESS, false },
	{ "NumericLessThanEquals", POLICY_OPERAND_NUMBER, POLICY_LESS_EQUAL, false },
	{ "NumericGreaterThan", POLICY_OPERAND_NUMBER, POLICY_GREATER, false },
	{ "NumericGreaterThanEquals", POLICY_OPERAND_NUMBER, POLICY_GREATER_EQUAL, false },
	{ "DateEquals", POLICY_OPERAND_DATE, POLICY_EQUAL, false },
	{ "DateNotEquals", POLICY_OPERAND_DATE, POLICY_EQUAL, true },
	{ "DateLessThan", POLICY_OPERAND_DATE, POLICY_LESS, false },
	{ "DateLessThanEquals", POLICY_OPERAND_DATE, POLICY_LESS_EQUAL, false },
	{ "DateGreaterThan", POLICY_OPERAND_DATE, POLICY_GREATER, false },
	{ "DateGreaterThanEquals", POLICY_OPERAND_DATE, POLICY_GREATER_EQUAL, false },
	{ "Bool", POLICY_OPERAND_BOOL, POLICY_EQUAL, false },
	{ "IpAddress", POLICY_OPERAND_ADDRESS, POLICY_EQUAL, false },
	{ "NotIpAddress", POLICY_OPERAND_ADDRESS, POLICY_EQUAL, true },
	{ "ArnEquals", POLICY_OPERAND_ARN, POLICY_EQUAL, false },
	{ "ArnNotEquals", POLICY_OPERAND_ARN, POLICY_EQUAL, true },
	{ "ArnLike", POLICY_OPERAND_ARN, POLICY_EQUAL, false },
	{ "ArnNotLike", POLICY_OPERAND_ARN, POLICY_EQUAL, true },
	{ "BinaryEquals", POLICY_OPERAND_BINARY, POLICY_EQUAL, false },
	{ "Null", POLICY_OPERAND_NULL, POLICY_EQUAL, false },
};

static bool
take_head(struct view *text, const char *head)
{
	size_t len = strlen(head);

	if (text->len < len || memcmp(text->data, head, len) != 0)
		return false;
	text->data += len;
	text->len -= len;
	return true;
}

static bool
take_tail(struct view *text, const char *tail)
{
	size_t len = strlen(tail);

	if (text->len < len || memcmp(text->data + text->len - len, tail, len) != 0)
		return false;
	text->len -= len;
	return true;
}

bool
policy_operator_parse(struct policy_condition *out, struct view name)
{
	out->set = take_head(&name, "ForAllValues:")  ? POLICY_FOR_ALL_VALUES
	           : take_head(&name, "ForAnyValue:") ? POLICY_FOR_ANY_VALUE
	                                              : POLICY_NO_SET;
	out->if_exists = take_tail(&name, "IfExists");
	for (size_t i = 0; i < COUNT_OF(OPERATORS); i++) {
		if (view_equal_text(name, OPERATORS[i].name)) {
			out->op = &OPERATORS[i];
			/* IAM: Null asks for presence, so it takes neither. */
			return OPERATORS[i].kind != POLICY_OPERAND_NULL ||
			       (out->set == POLICY_NO_SET && !out->if_exists);
		}
	}
	return false;
}

const char *
policy_operand_wanted(enum policy_operand_kind kind)
{
	switch (kind) {
	case POLICY_OPERAND_STRING:
	case POLICY_OPERAND_STRING_FOLD:
	case POLICY_OPERAND_STRING_LIKE: return "a text";
	case POLICY_OPERAND_NUMBER: return "a decimal number of at most 15 digits";
	case POLICY_OPERAND_DATE:
		return "a date such as 2026-11-24T16:00:00Z or seconds since 1970";
	case POLICY_OPERAND_BOOL:
	case POLICY_OPERAND_NULL: return "true or false";
	case POLICY_OPERAND_ADDRESS: return "an address or a network such as 192.0.2.0/24";
	case POLICY_OPERAND_ARN: return "an ARN of six parts or *";
	case POLICY_OPERAND_BINARY: return "base64";
	}
	return "another value";
}

/* ---- evaluation ---- */

static bool
related(enum policy_relation relation, bool less, bool equal)
{
	switch (relation) {
	case POLICY_EQUAL: return equal;
	case POLICY_LESS: return less;
	case POLICY_LESS_EQUAL: return less || equal;
	case POLICY_GREATER: return !less && !equal;
	case POLICY_GREATER_EQUAL: return !less;
	}
	return false;
}

/* Whether the address (a network of all its bits) lies in the network. */
static bool
network_holds(const struct policy_network *network, const struct policy_network *address)
{
	size_t whole = network->prefix / 8, rest = network->prefix % 8;

	if (address->len != network->len || memcmp(address->octets, network->octets, whole) != 0)
		return false;
	return rest == 0 || (address->octets[whole] ^ network->octets[whole]) >> (8 - rest) == 0;
}

/* The operand's text with the variables put in. False: longer than what has a type. */
static bool
operand_text(char out[POLICY_TYPED_MAX_BYTES], size_t *len, const struct policy_pattern *pattern,
	const struct policy_value *values)
{
	*len = 0;
	for (size_t i = 0; i < pattern->count; i++) {
		const struct policy_piece *piece = &pattern->pieces[i];
		struct view text = piece->text;

		if (piece->kind == POLICY_PIECE_VARIABLE) {
			/* No number, date or address has a character that is escaped. */
			if (values[piece->variable].state != POLICY_VALUE_PLAIN)
				return false;
			text = values[piece->variable].text;
		}
		if (text.len > POLICY_TYPED_MAX_BYTES - *len)
			return false;
		if (text.len > 0)
			memcpy(out + *len, text.data, text.len);
		*len += text.len;
	}
	return true;
}

static bool
typed_holds(const struct policy_operator *op, const struct policy_operand *operand,
	const struct policy_typed *found, const struct policy_value *values)
{
	struct policy_typed wanted = operand->typed;
	char text[POLICY_TYPED_MAX_BYTES];
	size_t len;

	if (operand->text.variables != 0 &&
		(!operand_text(text, &len, &operand->text, values) ||
			!policy_typed_parse(
				&wanted, op->kind, (struct view){ (const uint8_t *)text, len })))
		return false;
	if (op->kind == POLICY_OPERAND_ADDRESS)
		return network_holds(&wanted.network, &found->network);
	if (op->kind == POLICY_OPERAND_BOOL)
		return found->truth == wanted.truth;
	if (op->kind == POLICY_OPERAND_DATE)
		return related(op->relation, found->date_s < wanted.date_s,
			found->date_s == wanted.date_s);
	return related(op->relation, found->number < wanted.number,
		!(found->number < wanted.number) && !(found->number > wanted.number));
}

static bool
any_typed_holds(const struct policy_condition *condition, const struct policy_typed *found,
	const struct policy_question *question)
{
	for (size_t i = 0; i < condition->operand_count; i++) {
		if (typed_holds(condition->op, &condition->operands[i], found, question->values))
			return true;
	}
	return false;
}

static bool
is_typed(enum policy_operand_kind kind)
{
	return kind == POLICY_OPERAND_NUMBER || kind == POLICY_OPERAND_DATE ||
	       kind == POLICY_OPERAND_BOOL || kind == POLICY_OPERAND_ADDRESS;
}

/* A key's value that has a type; an address is no network there. */
static bool
found_parse(struct policy_typed *out, enum policy_operand_kind kind, struct view value)
{
	if (kind != POLICY_OPERAND_ADDRESS)
		return policy_typed_parse(out, kind, value);
	out->network.len = policy_address_octets(out->network.octets, value);
	return out->network.len > 0;
}

/* What the context has in that type already: no text of it is made and read again per message. */
static bool
found_known(struct policy_typed *out, const struct policy_condition *condition,
	const struct policy_context *context)
{
	enum policy_key_kind key = condition->key.kind;

	if (condition->op->kind == POLICY_OPERAND_ADDRESS && key == POLICY_KEY_SOURCE_IP) {
		out->network.len = context->source.len;
		memcpy(out->network.octets, context->source.octets, sizeof(out->network.octets));
		return context->source.len > 0;
	}
	if (condition->op->kind == POLICY_OPERAND_DATE &&
		(key == POLICY_KEY_CURRENT_TIME || key == POLICY_KEY_EPOCH_TIME)) {
		out->date_s = context->now_s;
		return context->now_s != 0;
	}
	return false;
}

/* Part by part, so that a "*" does not reach over a colon but in the last. */
static bool
arn_holds(const struct policy_pattern *parts, struct view arn, const struct policy_value *values)
{
	for (size_t i = 0; i < POLICY_ARN_PARTS; i++) {
		const uint8_t *colon = arn.len > 0 ? memchr(arn.data, ':', arn.len) : NULL;
		struct policy_resource part = { .name = arn };

		if (i + 1 < POLICY_ARN_PARTS) {
			if (colon == NULL)
				return false;
			part.name.len = (size_t)(colon - arn.data);
			arn.len -= part.name.len + 1;
			arn.data = colon + 1;
		}
		if (!policy_match(&parts[i], part, values, NULL))
			return false;
	}
	return true;
}

static bool
operand_holds(const struct policy_operator *op, const struct policy_operand *operand,
	struct view value, const struct policy_value *values)
{
	switch (op->kind) {
	case POLICY_OPERAND_STRING:
	case POLICY_OPERAND_STRING_FOLD:
	case POLICY_OPERAND_STRING_LIKE:
		return policy_match(
			&operand->text, (struct policy_resource){ .name = value }, values, NULL);
	case POLICY_OPERAND_ARN:
		return operand->arn == NULL || arn_holds(operand->arn, value, values);
	case POLICY_OPERAND_BINARY: return view_equal(operand->typed.binary, value);
	case POLICY_OPERAND_NUMBER:
	case POLICY_OPERAND_DATE:
	case POLICY_OPERAND_BOOL:
	case POLICY_OPERAND_ADDRESS:
	case POLICY_OPERAND_NULL: break;
	}
	return false;
}

/* Whether value fits any of the operands. */
static bool
any_operand_holds(const struct policy_condition *condition, struct view value,
	const struct policy_question *question)
{
	struct policy_typed found = { 0 };

	if (value.len > POLICY_VALUE_MAX_BYTES)
		return false;
	if (is_typed(condition->op->kind))
		return found_parse(&found, condition->op->kind, value) &&
		       any_typed_holds(condition, &found, question);
	for (size_t i = 0; i < condition->operand_count; i++) {
		if (operand_holds(condition->op, &condition->operands[i], value, question->values))
			return true;
	}
	return false;
}

/* A value that is not substituted fits nothing, which must not make an Allow of a negation. */
static bool
permits_by_oddness(const struct policy_condition *condition, const struct policy_question *question)
{
	if (!condition->op->negated || !question->allows || question->odd == 0)
		return false;
	for (size_t i = 0; i < condition->operand_count; i++) {
		const struct policy_operand *operand = &condition->operands[i];
		unsigned variables = operand->text.variables;

		for (size_t part = 0; operand->arn != NULL && part < POLICY_ARN_PARTS; part++)
			variables |= operand->arn[part].variables;
		if ((variables & question->odd) != 0)
			return true;
	}
	return false;
}

/* The key is not there (IAM user guide, condition operators: "if the key is not present"). */
static bool
missing_holds(const struct policy_condition *condition)
{
	if (condition->if_exists || condition->set == POLICY_FOR_ALL_VALUES)
		return true;
	return condition->set == POLICY_NO_SET && condition->op->negated;
}

static bool
null_holds(const struct policy_condition *condition, bool present)
{
	for (size_t i = 0; i < condition->operand_count; i++) {
		if (condition->operands[i].typed.truth != present)
			return true;
	}
	return false;
}

void
policy_missing(struct policy_decision *out, struct view name)
{
	for (size_t i = 0; i < out->missing_count; i++) {
		if (view_equal(out->missing[i], name))
			return;
	}
	if (out->missing_count < POLICY_MISSING_MAX)
		out->missing[out->missing_count++] = name;
}

bool
policy_condition_holds(const struct policy_condition *condition, struct policy_question *question)
{
	/*
	 * ForAllValues: each value of the key, ForAnyValue: one of them. Without either a key of
	 * several values is taken as IAM's negations are: one that fits, or none (unverified).
	 */
	bool all = condition->set == POLICY_FOR_ALL_VALUES ||
	           (condition->set == POLICY_NO_SET && condition->op->negated);
	struct policy_typed found = { 0 };
	struct view value;
	size_t n = 0;

	if (permits_by_oddness(condition, question))
		return false;
	if (found_known(&found, condition, question->context))
		return any_typed_holds(condition, &found, question) != condition->op->negated;
	for (; policy_key_value(&value, &condition->key, n, question->context, &question->scratch);
		n++) {
		if (condition->op->kind == POLICY_OPERAND_NULL)
			return null_holds(condition, true);
		bool holds =
			any_operand_holds(condition, value, question) != condition->op->negated;

		if (holds != all)
			return holds;
	}
	if (n > 0)
		return all;
	if (condition->op->kind == POLICY_OPERAND_NULL)
		return null_holds(condition, false);
	policy_missing(question->out, condition->key.name);
	return missing_holds(condition);
}
