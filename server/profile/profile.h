/* server/profile/profile.h - reads certs/NAME.json into struct ca_profile (ca/profile.h). */
#ifndef SERVER_PROFILE_PROFILE_H
#define SERVER_PROFILE_PROFILE_H

#include "ca/profile.h"

/*
 * Reads all *.json of dir in name order, at most max; hash is the BLAKE2b-256 of each file. Errors name
 * file, field and rule: ERR_ARGUMENT profile_invalid. Unknown and duplicate keys are refused.
 */
MUST_USE enum status profile_load_dir(const char *dir, struct ca_profile *out, size_t max,
	size_t *count, struct err *err);

#endif
