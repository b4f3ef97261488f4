#include "server/iotcore/tables.h"

#include <stddef.h>

const struct op *const IOTCORE_OPS[] = {
	ENDPOINT_OPS,
	NULL,
};
