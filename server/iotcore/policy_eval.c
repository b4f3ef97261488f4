#include "server/iotcore/policy_internal.h"

/* AWS: a variable that is not there is not substituted, "and authorization fails": no match. */
static bool
variables_resolve(const struct policy_statement *statement, struct policy_question *question)
{
	bool known = true;

	question->odd = 0;
	for (size_t i = 0; i < statement->variable_count; i++) {
		const struct policy_key *key = &statement->variables[i];
		struct policy_value *value = &question->values[i];
		struct view text, second;

		if (!policy_key_value(&text, key, 0, question->context, &question->scratch)) {
			policy_missing(question->out, key->name);
			known = false;
			continue;
		}
		*value = policy_value_of(text, key->kind == POLICY_KEY_CERTIFICATE);
		/* Several values are no text (AWS shows lists in conditions only; unverified). */
		if (policy_key_value(&second, key, 1, question->context, &question->scratch))
			value->state = POLICY_VALUE_ODD;
		if (value->state == POLICY_VALUE_ODD)
			question->odd |= 1u << i;
	}
	return known;
}

static bool
resource_matches(const struct policy_statement *statement, const struct policy_question *question)
{
	for (size_t i = 0; i < statement->resource_count; i++) {
		const struct policy_pattern *pattern = &statement->resources[i];

		/* "Everything but what cannot be said" must not allow everything. */
		if (statement->not_resource && question->allows &&
			(pattern->variables & question->odd) != 0)
			return false;
		if (policy_match(pattern, question->resource, question->values, NULL))
			return !statement->not_resource;
	}
	return statement->not_resource;
}

static bool
statement_matches(const struct policy_statement *statement, struct policy_question *question)
{
	question->allows = statement->effect == POLICY_EFFECT_ALLOW;
	if (!variables_resolve(statement, question) || !resource_matches(statement, question))
		return false;
	for (size_t i = 0; i < statement->condition_count; i++) {
		if (!policy_condition_holds(&statement->conditions[i], question))
			return false;
	}
	return true;
}

static void
decide(struct policy_decision *out, enum policy_verdict verdict, size_t policy, size_t statement,
	struct view sid)
{
	out->verdict = verdict;
	out->policy = policy;
	out->statement = statement;
	out->sid = sid;
}

enum policy_verdict
policy_decide(const struct policy *const *policies, size_t count, enum policy_action action,
	struct policy_resource resource, const struct policy_context *context,
	struct policy_decision *out)
{
	struct policy_question question = { .resource = resource, .context = context, .out = out };

	out->missing_count = 0;
	decide(out, POLICY_IMPLICIT_DENY, POLICY_NONE, POLICY_NONE, (struct view){ 0 });
	if (action <= POLICY_NO_ACTION || action >= POLICY_ACTION_COUNT ||
		resource.head.len > POLICY_RESOURCE_MAX_BYTES ||
		resource.name.len > POLICY_RESOURCE_MAX_BYTES - resource.head.len)
		return out->verdict;
	for (size_t p = 0; p < count; p++) {
		if (policies[p] == NULL || (policies[p]->actions & 1u << action) == 0)
			continue;
		for (size_t s = 0; s < policies[p]->statement_count; s++) {
			const struct policy_statement *statement = &policies[p]->statements[s];
			bool denies = statement->effect == POLICY_EFFECT_DENY;

			/* Once allowed, only a Deny can change it. */
			if ((statement->actions & 1u << action) == 0 ||
				(out->verdict == POLICY_ALLOWED && !denies) ||
				!statement_matches(statement, &question))
				continue;
			decide(out, denies ? POLICY_EXPLICIT_DENY : POLICY_ALLOWED, p, s,
				statement->sid);
			if (denies)
				return out->verdict;
		}
	}
	return out->verdict;
}

size_t
policy_statement_count(const struct policy *policy)
{
	return policy->statement_count;
}

bool
policy_mentions(const struct policy *const *policies, size_t count, enum policy_action action)
{
	if (action <= POLICY_NO_ACTION || action >= POLICY_ACTION_COUNT)
		return false;
	for (size_t p = 0; p < count; p++) {
		if (policies[p] != NULL && (policies[p]->actions & 1u << action) != 0)
			return true;
	}
	return false;
}
