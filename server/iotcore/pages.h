/* server/iotcore/pages.h - markers of lists in the order of creation, for struct listing (registry.h). */
#ifndef SERVER_IOTCORE_PAGES_H
#define SERVER_IOTCORE_PAGES_H

#include "db/iotcore_ca.h"
#include "server/iotcore/op.h"

/* What to ask the database for: one row more than the page holds. InvalidRequestException: marker. */
MUST_USE enum status created_page_read(struct db_iotcore_page *out, const struct call *call,
	struct err *err);

/* The key of an item in such a list. */
#define CREATED_KEY_BYTES 96
void created_key(char out[CREATED_KEY_BYTES], int64_t created_us, const char *id);

#endif
