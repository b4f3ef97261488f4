/*
 * server/iot/aws_source.h - where credentials come from over the network: STS (web identity,
 * assumed roles), the container endpoint, EC2's instance metadata. One function each, one exchange
 * or a few; aws_credentials.h chooses among them and keeps what they give.
 */
#ifndef SERVER_IOT_AWS_SOURCE_H
#define SERVER_IOT_AWS_SOURCE_H

#include "base/clock.h"
#include "base/err.h"
#include "server/iot/aws_credentials.h"
#include "server/iot/aws_transport.h"

struct aws_source {
	struct aws_transport *transport; /* borrowed, as all here */
	const char *const *environment;
	const char *region;  /* for STS */
	const char *ca_file; /* NULL: the system's */
	const struct clock *clock;
};

/* The value, or NULL when it is not set or empty. */
const char *aws_environment(const char *const *environment, const char *name);

/* Reads the token file anew each time: what mounts it renews it. */
MUST_USE enum status aws_source_web_identity(const struct aws_source *source, const char *role_arn,
	const char *token_file, const char *session_name, struct aws_keys *out, struct err *err);
/* base signs. external_id: NULL if none. */
MUST_USE enum status aws_source_assume_role(const struct aws_source *source,
	const struct aws_keys *base, const char *role_arn, const char *session_name,
	const char *external_id, struct aws_keys *out, struct err *err);
/* AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or _FULL_URI; over http:// only from the hosts that AWS
 * names. */
MUST_USE enum status aws_source_container(const struct aws_source *source, struct aws_keys *out,
	struct err *err);
/* Version 2 alone: without a session token nothing is asked. */
MUST_USE enum status aws_source_instance(const struct aws_source *source, struct aws_keys *out,
	struct err *err);

/*
 * Checks and copies. Views are borrowed; an empty expiration never ends. ERR_UNAUTHENTICATED
 * aws_credentials_malformed.
 */
MUST_USE enum status aws_keys_set(struct aws_keys *out, const char *source, struct view access_key,
	struct view secret_key, struct view session_token, struct view expiration, struct err *err);

#endif
