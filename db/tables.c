#include "db/run.h"

const struct db_table *const DB_TABLES[] = {
	&DB_TABLE_POOL,
	&DB_TABLE_PRINCIPAL,
	&DB_TABLE_MANIFEST,
	&DB_TABLE_AUDIT,
	&DB_TABLE_ISSUER,
};
const size_t DB_TABLE_COUNT = COUNT_OF(DB_TABLES);
