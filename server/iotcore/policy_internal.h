/*
 * server/iotcore/policy_internal.h - what a policy is once compiled, shared by policy_*.c and their
 * tests only. All of it lies in the chunks of its struct policy and is borrowed from there.
 */
#ifndef SERVER_IOTCORE_POLICY_INTERNAL_H
#define SERVER_IOTCORE_POLICY_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/iotcore/policy.h"

/* ---- memory (policy_parse.c): freed all at once ---- */

struct policy_chunk {
	struct policy_chunk *next;
	size_t used, size;
	max_align_t data[];
};

/* Zeroed; NULL: memory is short. bytes may be 0. */
void *policy_arena(struct policy *policy, size_t bytes);

/* ---- keys (policy_key.c): what a context can be asked for ---- */

enum policy_key_kind {
	POLICY_KEY_OTHER = 0, /* by name, in context->others */
	POLICY_KEY_CURRENT_TIME,
	POLICY_KEY_EPOCH_TIME,
	POLICY_KEY_SOURCE_IP,
	POLICY_KEY_SECURE_TRANSPORT,
	POLICY_KEY_CLIENT_ID,
	POLICY_KEY_CERTIFICATE_ID,
	POLICY_KEY_CONNECT_ATTRIBUTES,
	POLICY_KEY_THING_NAME,
	POLICY_KEY_THING_TYPE,
	POLICY_KEY_THING_ATTACHED,
	POLICY_KEY_THING_ATTRIBUTE,
	POLICY_KEY_CERTIFICATE,
	POLICY_KEY_AVAILABLE_KEYS,
};

struct policy_key {
	enum policy_key_kind kind;
	struct view name; /* as the document writes it */
	struct view part; /* an attribute's name; a certificate's key without .1 or .List */
	size_t index;     /* X.1: the second */
	bool list;        /* X.List */
};

/* Borrows name. False: no name of a key: empty, over 256 octets or with other characters. */
bool policy_key_parse(struct policy_key *out, struct view name);
bool policy_key_equal(const struct policy_key *a, const struct policy_key *b);

/* Texts that the context does not hold as such; made once for a decision, when first asked for. */
struct policy_scratch {
	char current_time[24];
	char epoch_time[24];
};

/* The n-th value of key. False: it has no such one (n = 0: the key is missing). */
bool policy_key_value(struct view *out, const struct policy_key *key, size_t n,
	const struct policy_context *context, struct policy_scratch *scratch);

/* ---- patterns (policy_match.c) ---- */

/* AWS: longer values are not substituted. */
#define POLICY_VALUE_MAX_BYTES 1024

enum policy_value_state {
	POLICY_VALUE_UNDEFINED = 0, /* the statement does not match */
	POLICY_VALUE_ODD,           /* "* $ + ? #" or too long: not substituted, matches nothing */
	POLICY_VALUE_PLAIN,
	POLICY_VALUE_ESCAPED, /* compared with a backslash before each of , " \ + = < > ; */
};

/* What a variable is in one decision. */
struct policy_value {
	struct view text;
	enum policy_value_state state;
};

/* escape: text is out of a certificate. */
struct policy_value policy_value_of(struct view text, bool escape);

enum policy_piece_kind {
	POLICY_PIECE_TEXT,
	POLICY_PIECE_ONE,      /* ? */
	POLICY_PIECE_MANY,     /* * */
	POLICY_PIECE_VARIABLE, /* ${…} */
};

struct policy_piece {
	enum policy_piece_kind kind;
	size_t variable; /* its number in the statement */
	struct view text;
};

struct policy_pattern {
	const struct policy_piece *pieces;
	size_t count;
	unsigned variables; /* a bit for each that it uses */
	bool fold;          /* ASCII letters in any case */
};

/*
 * Whether pattern covers all of text. No recursion; at most (length of text + 1) times the length
 * of the pattern with its values in steps, which are added to *steps unless it is NULL: one for
 * each piece that is tried and one for each of its octets.
 */
bool policy_match(const struct policy_pattern *pattern, struct policy_resource text,
	const struct policy_value *values, size_t *steps);

/* ---- conditions (policy_condition.c) ---- */

enum policy_operand_kind {
	POLICY_OPERAND_STRING,
	POLICY_OPERAND_STRING_FOLD,
	POLICY_OPERAND_STRING_LIKE,
	POLICY_OPERAND_NUMBER,
	POLICY_OPERAND_DATE,
	POLICY_OPERAND_BOOL,
	POLICY_OPERAND_ADDRESS,
	POLICY_OPERAND_ARN,
	POLICY_OPERAND_BINARY,
	POLICY_OPERAND_NULL,
};

enum policy_relation {
	POLICY_EQUAL,
	POLICY_LESS,
	POLICY_LESS_EQUAL,
	POLICY_GREATER,
	POLICY_GREATER_EQUAL,
};

struct policy_operator {
	const char *name;
	enum policy_operand_kind kind;
	enum policy_relation relation;
	bool negated;
};

enum policy_set { POLICY_NO_SET, POLICY_FOR_ALL_VALUES, POLICY_FOR_ANY_VALUE };

struct policy_network {
	uint8_t octets[16];
	uint8_t len, prefix; /* octets of an address, bits that count */
};

/* A value that has a type, read from its text. */
struct policy_typed {
	double number;
	int64_t date_s;
	bool truth;
	struct policy_network network;
	struct view binary; /* borrowed from the text's neighbour, see policy_binary_decode */
};

#define POLICY_ARN_PARTS 6

struct policy_operand {
	struct policy_pattern text;       /* string kinds, and typed ones with variables */
	struct policy_typed typed;        /* typed kinds without */
	const struct policy_pattern *arn; /* POLICY_ARN_PARTS of them; NULL: "*" */
};

struct policy_condition {
	const struct policy_operator *op;
	enum policy_set set;
	bool if_exists;
	struct policy_key key;
	const struct policy_operand *operands;
	size_t operand_count;
};

/* "ForAnyValue:StringLikeIfExists" taken apart. False: there is no such operator. */
bool policy_operator_parse(struct policy_condition *out, struct view name);
/* What is wanted of an operand, for errors. */
const char *policy_operand_wanted(enum policy_operand_kind kind);

/* ---- texts that have a type (policy_typed.c) ---- */

/* The longest: an IPv6 network, a date with an offset. */
#define POLICY_TYPED_MAX_BYTES 64

/* The octets of an address, 4 or 16; 0: none. IPv4-mapped ones are IPv4 (RFC 4291 2.5.5.2). */
uint8_t policy_address_octets(uint8_t out[16], struct view text);
/* False: text is no such value. Not for strings, ARNs and binaries. */
bool policy_typed_parse(struct policy_typed *out, enum policy_operand_kind kind, struct view text);
/* Base64 with padding (RFC 4648 section 4) into out, of text.len octets. False: it is none. */
bool policy_base64_decode(uint8_t *out, size_t *len, struct view text);

/* ---- statements ---- */

enum policy_effect { POLICY_EFFECT_UNSET = 0, POLICY_EFFECT_ALLOW, POLICY_EFFECT_DENY };

struct policy_statement {
	struct view sid;
	enum policy_effect effect;
	unsigned actions; /* 1 << enum policy_action; NotAction is already turned round */
	bool not_resource;
	const struct policy_pattern *resources;
	size_t resource_count;
	const struct policy_condition *conditions;
	size_t condition_count;
	struct policy_key *variables; /* each once, wherever in the statement it stands */
	size_t variable_count;
};

struct policy {
	struct policy_chunk *chunks;
	struct policy_statement *statements;
	size_t statement_count;
	unsigned actions; /* those that any statement speaks of */
	size_t pattern_count;
	bool with_variables; /* version 2012-10-17 */
};

/* One statement put to one question; the variables are those of that statement. */
struct policy_question {
	struct policy_resource resource;
	const struct policy_context *context;
	struct policy_decision *out;
	struct policy_scratch scratch;
	struct policy_value values[POLICY_VARIABLES_MAX];
	unsigned odd; /* bits of values that are not substituted */
	bool allows;  /* the statement is an Allow */
};

bool policy_condition_holds(
	const struct policy_condition *condition, struct policy_question *question);
/* Adds a key to the decision's missing ones. */
void policy_missing(struct policy_decision *out, struct view name);

#endif
