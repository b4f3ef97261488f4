#include "db/issuance.h"
#include "db/run.h"

enum {
	ENSURE_MONTH,
	MISSING_MONTHS,
	STATEMENTS,
};

static const struct db_statement SQL[STATEMENTS] = {
	[ENSURE_MONTH] = {
		.name = "ensure_month", .params = 1, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT jitrca.ensure_month($1::int)",
	},
	[MISSING_MONTHS] = { /* the catalogue of tables, by name */
		.name = "missing_months", .params = 3, .columns = 1, .rows = ROWS_ANY,
		.sql = "SELECT m FROM generate_series($1::int, $2::int) m"
		       " WHERE to_regclass('jitrca.certificate_' || m) IS NULL"
		       " ORDER BY m LIMIT $3::bigint",
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

enum status
db_issuance_prepare_months(struct db_pool *pool, int32_t first, int32_t last, size_t max,
	size_t *made, struct err *err)
{
	own(PGresult) missing = NULL;

	*made = 0;
	{
		own_struct(db_tx) tx = { 0 };

		TRY(db_tx_begin(&tx, pool, err));
		TRY(db_run(&tx, &SQL[MISSING_MONTHS], DB_PARAMS(db_int64(first), db_int64(last),
			db_int64((int64_t)max)), &missing, err));
		TRY(db_tx_commit(&tx, err));
	}
	/* Each by itself: who issues into one of them waits for that one only. */
	for (int r = 0; r < db_rows(missing); r++) {
		struct db_row row = db_row(missing, r);
		int32_t month = db_row_int32(&row);

		TRY(db_row_end(&row, err));
		TRY(db_issuance_ensure_month(pool, month, err));
		++*made;
	}
	return OK;
}
