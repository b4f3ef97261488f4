#include <string.h>

#include "server/iotcore/policy_parser.h"

/* The name between "${" and "}" at text, or false: no end, or no name of a key. */
static bool
variable_name(struct view *out, struct view text)
{
	const uint8_t *end = memchr(text.data, '}', text.len);

	if (end == NULL)
		return false;
	*out = (struct view){ text.data + 2, (size_t)(end - text.data) - 2 };
	return true;
}

bool
policy_variable_at(struct view text, size_t at)
{
	return text.len - at >= 2 && text.data[at] == '$' && text.data[at + 1] == '{';
}

/* The number of key in the statement; the same one for each place that names it. */
static enum status
variable_number(
	struct policy_parser *at, size_t *out, const struct policy_key *key, struct err *err)
{
	struct policy_statement *statement = at->statement;

	for (size_t i = 0; i < statement->variable_count; i++) {
		if (policy_key_equal(&statement->variables[i], key)) {
			*out = i;
			return OK;
		}
	}
	if (statement->variable_count == POLICY_VARIABLES_MAX)
		return policy_refuse(
			at, err, "at most %d different variables wanted", POLICY_VARIABLES_MAX);
	if (statement->variables == NULL) {
		statement->variables = policy_arena(
			at->policy, POLICY_VARIABLES_MAX * sizeof(*statement->variables));
		if (statement->variables == NULL)
			return err_memory(err);
	}
	*out = statement->variable_count;
	statement->variables[statement->variable_count++] = *key;
	return OK;
}

/* What is being put together: literal octets run on until another kind of piece comes. */
struct draft {
	struct policy_piece *pieces;
	size_t count;
	uint8_t *text; /* the literals of all pieces, one behind the other */
	size_t text_len;
};

static void
add_octet(struct draft *draft, uint8_t c)
{
	struct policy_piece *last = draft->count > 0 ? &draft->pieces[draft->count - 1] : NULL;

	if (last == NULL || last->kind != POLICY_PIECE_TEXT) {
		last = &draft->pieces[draft->count++];
		last->kind = POLICY_PIECE_TEXT;
		last->text = (struct view){ draft->text + draft->text_len, 0 };
	}
	draft->text[draft->text_len++] = c;
	last->text.len++;
}

static void
add_piece(struct draft *draft, enum policy_piece_kind kind, size_t variable)
{
	/* "**" is "*". */
	if (kind == POLICY_PIECE_MANY && draft->count > 0 &&
		draft->pieces[draft->count - 1].kind == POLICY_PIECE_MANY)
		return;
	draft->pieces[draft->count++] = (struct policy_piece){ .kind = kind, .variable = variable };
}

/* "${…}" at *i, which is moved behind it. */
static enum status
add_variable(struct policy_parser *at, struct draft *draft, struct policy_pattern *pattern,
	struct view source, size_t *i, struct err *err)
{
	struct view rest = { source.data + *i, source.len - *i };
	struct view name;
	struct policy_key key;
	size_t number = 0;

	if (!variable_name(&name, rest))
		return policy_refuse(at, err, "'${' without '}'");
	*i += name.len + 3;
	if (name.len == 1 && (name.data[0] == '*' || name.data[0] == '?' || name.data[0] == '$')) {
		add_octet(draft, name.data[0]);
		return OK;
	}
	if (!policy_key_parse(&key, name))
		return policy_refuse(at, err, "no name of a variable between '${' and '}'");
	TRY(variable_number(at, &number, &key, err));
	add_piece(draft, POLICY_PIECE_VARIABLE, number);
	pattern->variables |= 1u << number;
	return OK;
}

enum status
policy_pattern_compile(struct policy_parser *at, struct policy_pattern *out, struct view text,
	bool wildcards, struct err *err)
{
	size_t pieces_max = 1;
	struct draft draft = { 0 };

	if (text.len > POLICY_PATTERN_MAX_BYTES)
		return policy_refuse(at, err, "at most %d octets wanted, %zu found",
			POLICY_PATTERN_MAX_BYTES, text.len);
	if (++at->policy->pattern_count > POLICY_PATTERNS_MAX)
		return policy_refuse(
			at, err, "at most %d values in a document wanted", POLICY_PATTERNS_MAX);
	/* Each wildcard and variable may begin a literal behind it. */
	for (size_t i = 0; i < text.len; i++)
		pieces_max +=
			text.data[i] == '*' || text.data[i] == '?' || text.data[i] == '$' ? 2 : 0;
	draft.pieces = policy_arena(at->policy, pieces_max * sizeof(*draft.pieces));
	draft.text = policy_arena(at->policy, text.len);
	struct view source = policy_copy(at->policy, text);

	if (draft.pieces == NULL || draft.text == NULL || source.data == NULL)
		return err_memory(err);
	*out = (struct policy_pattern){ .pieces = draft.pieces };
	for (size_t i = 0; i < source.len;) {
		uint8_t c = source.data[i];

		if (at->policy->with_variables && policy_variable_at(source, i)) {
			TRY(add_variable(at, &draft, out, source, &i, err));
			continue;
		}
		if (wildcards && c == '*')
			add_piece(&draft, POLICY_PIECE_MANY, 0);
		else if (wildcards && c == '?')
			add_piece(&draft, POLICY_PIECE_ONE, 0);
		else
			add_octet(&draft, c);
		i++;
	}
	out->count = draft.count;
	return OK;
}
