#include "server/retry.h"

#include <string.h>

#include "server/metrics.h"

#define TRIES 5

bool
retry_due(unsigned *tries, enum status status, const struct err *err)
{
	if (status == OK || strcmp(err->code, "database_retry") != 0 || ++*tries >= TRIES)
		return false;
	metric_add(METRIC_DB_RETRIES, 1);
	return true;
}
