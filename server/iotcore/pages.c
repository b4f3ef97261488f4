#include "server/iotcore/pages.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define ID_DIGITS 64

/* Ends of the time that PostgreSQL knows, in microseconds: 9999-12-31. */
#define LAST_US INT64_C(253402300799000000)

void
created_key(char out[CREATED_KEY_BYTES], int64_t created_us, const char *id)
{
	(void)snprintf(out, CREATED_KEY_BYTES, "%" PRId64 " %.64s", created_us, id);
}

enum status
created_page_read(struct db_iotcore_page *out, const struct call *call, struct err *err)
{
	const struct page *page = &call->page;
	long long us;
	int behind = 0;

	*out = (struct db_iotcore_page){ .after_us = page->ascending ? 0 : LAST_US,
		.after_id = "",
		.ascending = page->ascending,
		.limit = page->limit + 1 };
	if (page->after == NULL)
		return OK;
	if (sscanf(page->after, "%lld %n", &us, &behind) != 1 || behind == 0 || us < 0 ||
		us > LAST_US || strlen(page->after + behind) != ID_DIGITS)
		return iotcore_error(err, "InvalidRequestException", "Invalid marker.");
	out->after_us = us;
	out->after_id = page->after + behind;
	return OK;
}
