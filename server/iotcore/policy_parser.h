/*
 * server/iotcore/policy_parser.h - the state of policy_parse(), shared by its files: what is being
 * filled and the place of it for errors.
 */
#ifndef SERVER_IOTCORE_POLICY_PARSER_H
#define SERVER_IOTCORE_POLICY_PARSER_H

#include <jansson.h>

#include "server/iotcore/policy_internal.h"

struct policy_parser {
	struct policy *policy;
	struct policy_statement *statement; /* NULL: the document itself is at fault */
	size_t number;                      /* of the statement, from 1 */
	const char *member;                 /* "Resource", "Condition: IpAddress: aws:SourceIp" */
};

/* ERR_ARGUMENT malformed_policy: "policy: statement 2 (Sid 'publish'): Resource: …". */
enum status policy_refuse(const struct policy_parser *at, struct err *err, const char *fmt, ...)
	PRINTF(3, 4);

/* A text for an error: printable ASCII, cut at its size. */
#define POLICY_SHOWN_BYTES 65
const char *policy_shown(char out[POLICY_SHOWN_BYTES], struct view text);

/* A copy in the arena; data is NULL when memory is short. */
struct view policy_copy(struct policy *policy, struct view text);

/* True if a "${" stands at that place. */
bool policy_variable_at(struct view text, size_t at);

/* wildcards false: "*" and "?" are literal. Copies text. */
MUST_USE enum status policy_pattern_compile(struct policy_parser *at, struct policy_pattern *out,
	struct view text, bool wildcards, struct err *err);

/* The six parts of an ARN pattern; colons inside of "${…}" do not part. False: fewer than six. */
bool policy_arn_split(struct view parts[POLICY_ARN_PARTS], struct view text, bool with_variables);

/* The member Condition into the statement. */
MUST_USE enum status policy_conditions_parse(
	struct policy_parser *at, const json_t *value, struct err *err);

#endif
