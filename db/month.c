#include "db/issuance.h"
#include "db/run.h"

enum {
	ENSURE_MONTH,
	STATEMENTS,
};

static const struct db_statement SQL[STATEMENTS] = {
	[ENSURE_MONTH] = {
		.name = "ensure_month", .params = 1, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT jitrca.ensure_month($1::int)",
	},
};

const struct db_table DB_TABLE_MONTH = { SQL, COUNT_OF(SQL) };

enum status
db_issuance_ensure_month(struct db_pool *pool, int32_t month, struct err *err)
{
	own_struct(db_tx) tx = { 0 };

	TRY(db_tx_begin(&tx, pool, err));
	TRY(db_run(&tx, &SQL[ENSURE_MONTH], DB_PARAMS(db_int64(month)), NULL, err));
	return db_tx_commit(&tx, err);
}
