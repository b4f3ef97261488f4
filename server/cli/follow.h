/*
 * server/cli/follow.h - the receipt of a revocation, followed to its end: the stream of events is read,
 * its link made anew when it breaks, and each change told in one line on stderr.
 */
#ifndef SERVER_CLI_FOLLOW_H
#define SERVER_CLI_FOLLOW_H

#include <jansson.h>

#include "server/cli/client.h"

/*
 * *out is the receipt as it was told last, the caller's. ERR_DENIED revocation_void: it was rejected, or
 * nobody approved it in time; others: what the server said, or that it is out of reach.
 */
MUST_USE enum status follow_receipt(const struct client_setup *setup, const char *revocation_id,
	json_t **out, struct err *err);

#endif
