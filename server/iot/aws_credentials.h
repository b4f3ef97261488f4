/*
 * server/iot/aws_credentials.h - the standard credential chain, in botocore's order: the
 * environment's keys; a profile's role (from source_profile, credential_source or a web identity
 * token); the environment's web identity; keys in the shared credentials file, then in the config
 * file; the container endpoint; EC2's instance metadata (IMDSv2 only). The first source that is
 * configured decides; one that is configured but broken is an error, not passed over. Single
 * sign-on and credential_process are refused by name.
 *
 * Credentials are fetched when first needed and again before they run out: from 15 minutes before
 * the end by one caller while the others go on with the old ones, which stay in use while they are
 * valid; from one minute before the end nobody goes on without. Secrets live in struct secret and
 * are never logged.
 */
#ifndef SERVER_IOT_AWS_CREDENTIALS_H
#define SERVER_IOT_AWS_CREDENTIALS_H

#include <stdint.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "base/err.h"
#include "ca/secret.h"

#define AWS_ACCESS_KEY_BYTES 129

struct aws_credentials;

struct aws_keys {
	char access_key[AWS_ACCESS_KEY_BYTES];
	struct secret secret_key;
	struct secret session_token; /* empty: none */
	int64_t expires_s;           /* 0: never */
	const char *source;          /* "environment" …; static text */
};
void aws_keys_free(struct aws_keys *keys);
OWNER_STRUCT(aws_keys, aws_keys_free)

struct aws_credentials_config {
	const char *profile; /* NULL: AWS_PROFILE, else "default"; named here, the environment's
	                        keys are skipped */
	const char *region;  /* for STS; NULL: AWS_REGION, AWS_DEFAULT_REGION */
	const char *ca_file; /* PEM; NULL: the system's */
	const char *const
		*environment; /* "NAME=value" …, NULL at the end, borrowed; NULL: the process's */
	const struct clock *clock;      /* NULL: CLOCK_SYSTEM */
};

/* Copies what it needs; fetches nothing yet. */
MUST_USE enum status aws_credentials_new(struct aws_credentials **out,
	const struct aws_credentials_config *config, struct err *err);
/* Fixed keys, for the local IoT Core. session_token may be empty. */
MUST_USE enum status aws_credentials_fixed(struct aws_credentials **out, const char *access_key,
	struct view secret_key, struct view session_token, struct err *err);
/* Ends a fetch under way; no other succeeds. From any thread. */
void aws_credentials_stop(struct aws_credentials *credentials);
void aws_credentials_free(struct aws_credentials *credentials); /* NULL is welcome */

/*
 * A copy of the present keys. May go to the network. Any thread. ERR_UNAUTHENTICATED:
 * aws_credentials_missing (no source is configured), aws_credentials_malformed,
 * aws_profile_missing, aws_profile_malformed, aws_credentials_refused, aws_credentials_unsupported;
 * ERR_UNAVAILABLE: aws_credentials_unreachable.
 */
MUST_USE enum status aws_credentials_get(struct aws_credentials *credentials, struct aws_keys *out,
	struct err *err);
/* The service refused them (expired, unknown): the next get fetches anew, but not more than once in
 * 5 s. */
void aws_credentials_doubt(struct aws_credentials *credentials);

#endif
