/* server/iotcore/tables.h - the tables of operations, one for each file of handlers. */
#ifndef SERVER_IOTCORE_TABLES_H
#define SERVER_IOTCORE_TABLES_H

#include "server/iotcore/op.h"

extern const struct op ENDPOINT_OPS[]; /* DescribeEndpoint */

#endif
