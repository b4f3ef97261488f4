#include "server/protocol/caching.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"

void
http_date(char out[HTTP_DATE_BYTES], int64_t wall_s)
{
	static const char DAYS[7][4] = { "Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed" };
	static const char MONTHS[12][4] = { "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug",
		"Sep", "Oct", "Nov", "Dec" };
	struct civil c = civil_from_s(wall_s);

	(void)snprintf(out, HTTP_DATE_BYTES, "%s, %02u %s %04u %02u:%02u:%02u GMT",
		DAYS[wall_s / 86400 % 7], c.day, MONTHS[c.month - 1], (unsigned)c.year % 10000, c.hour,
		c.minute, c.second);
}

bool
caching_not_modified(const struct request *request, const char *etag, const char *last_modified)
{
	const char *none_match = request_header(request, "If-None-Match");
	const char *since = request_header(request, "If-Modified-Since");

	/* RFC 9110 13.1.2: a list of entity tags, or "*"; weak comparison. */
	if (none_match != NULL)
		return strcmp(none_match, "*") == 0 || strstr(none_match, etag) != NULL;
	/* Only our own date is compared: an equal text is what a cache sends back (13.1.3). */
	return since != NULL && strcmp(since, last_modified) == 0;
}
