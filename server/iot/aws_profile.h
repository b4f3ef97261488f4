/*
 * server/iot/aws_profile.h - the shared files of AWS's tools: ~/.aws/config ([default], [profile
 * NAME]) and
 * ~/.aws/credentials ([NAME]). Lines are `key = value`; a comment is a line that begins with '#' or
 * ';'; indented lines belong to the key above and are skipped. Keys are compared without case.
 * Pure.
 */
#ifndef SERVER_IOT_AWS_PROFILE_H
#define SERVER_IOT_AWS_PROFILE_H

#include <stdbool.h>

#include "base/bytes.h"
#include "base/err.h"

enum aws_profile_key {
	AWS_PROFILE_ACCESS_KEY = 0,
	AWS_PROFILE_SECRET_KEY,
	AWS_PROFILE_SESSION_TOKEN,
	AWS_PROFILE_ROLE_ARN,
	AWS_PROFILE_SOURCE_PROFILE,
	AWS_PROFILE_CREDENTIAL_SOURCE,
	AWS_PROFILE_WEB_IDENTITY_TOKEN_FILE,
	AWS_PROFILE_ROLE_SESSION_NAME,
	AWS_PROFILE_EXTERNAL_ID,
	AWS_PROFILE_MFA_SERIAL,
	AWS_PROFILE_REGION,
	AWS_PROFILE_CREDENTIAL_PROCESS,
	AWS_PROFILE_SSO_START_URL,
	AWS_PROFILE_SSO_SESSION,
	AWS_PROFILE_KEYS,
};

/* Values of one profile, borrowed from the text they were read from; {NULL, 0} where none is. */
struct aws_profile {
	bool found;
	struct view values[AWS_PROFILE_KEYS];
};

#define AWS_PROFILE_FILE_MAX_BYTES ((size_t)64 << 10)

/*
 * Reads the profile `name` out of text; is_config: section names are those of the config file. Sets
 * only what is there, so that two files can be read into one after another. ERR_UNAUTHENTICATED
 * aws_profile_malformed names the line, never what it holds.
 */
MUST_USE enum status aws_profile_read(struct aws_profile *profile, struct view text,
	const char *name, bool is_config, struct err *err);

/*
 * The text between <tag> and </tag> in an answer of the query protocol (XML); false: it is not
 * there, or holds an entity, which none of the values that we read does.
 */
bool aws_xml_value(struct view xml, const char *tag, struct view *out);

#endif
