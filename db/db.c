#include "db/db.h"

#include <string.h>

static const char *const STATUS_NAMES[] = {
	[CERT_ACTIVE] = "active",
	[CERT_PENDING_CONFIRMATION] = "pending_confirmation",
	[CERT_SUPERSEDED] = "superseded",
	[CERT_HELD] = "held",
	[CERT_REVOKED] = "revoked",
	[CERT_EXPIRED] = "expired",
};

static const char *const REASON_NAMES[] = {
	[REASON_UNSPECIFIED] = "unspecified",
	[REASON_KEY_COMPROMISE] = "keyCompromise",
	[REASON_CA_COMPROMISE] = "cACompromise",
	[REASON_AFFILIATION_CHANGED] = "affiliationChanged",
	[REASON_SUPERSEDED] = "superseded",
	[REASON_CESSATION_OF_OPERATION] = "cessationOfOperation",
	[REASON_CERTIFICATE_HOLD] = "certificateHold",
	[REASON_PRIVILEGE_WITHDRAWN] = "privilegeWithdrawn",
	[REASON_AA_COMPROMISE] = "aACompromise",
};

/* The index of name; count when it is not there. Gaps hold NULL. */
static size_t
index_of(const char *const *names, size_t count, const char *name)
{
	for (size_t i = 0; i < count; i++)
		if (names[i] != NULL && strcmp(names[i], name) == 0)
			return i;
	return count;
}

const char *
cert_status_name(enum cert_status status)
{
	if ((size_t)status >= COUNT_OF(STATUS_NAMES) || STATUS_NAMES[status] == NULL)
		return "unset";
	return STATUS_NAMES[status];
}

bool
cert_status_parse(enum cert_status *out, const char *name)
{
	size_t i = index_of(STATUS_NAMES, COUNT_OF(STATUS_NAMES), name);

	if (i == COUNT_OF(STATUS_NAMES))
		return false;
	*out = (enum cert_status)i;
	return true;
}

const char *
revocation_reason_name(enum revocation_reason reason)
{
	if ((size_t)reason >= COUNT_OF(REASON_NAMES) || REASON_NAMES[reason] == NULL)
		return "unknown";
	return REASON_NAMES[reason];
}

bool
revocation_reason_parse(enum revocation_reason *out, const char *name)
{
	size_t i = index_of(REASON_NAMES, COUNT_OF(REASON_NAMES), name);

	if (i == COUNT_OF(REASON_NAMES))
		return false;
	*out = (enum revocation_reason)i;
	return true;
}
