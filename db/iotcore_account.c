#include "db/iotcore_account.h"

#include <string.h>

#include "db/run.h"

enum { ENSURE, SHOW, LOCK, CODE, CODE_SET, TRIM, STATEMENTS };

static const struct db_statement SQL[STATEMENTS] = {
	[ENSURE] = { /* account_pkey */
		.name = "iotcore_account_ensure", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO iotcore.account (account_id, region) VALUES ($1, $2)"
		       " ON CONFLICT DO NOTHING",
	},
	[SHOW] = { /* the one row */
		.name = "iotcore_account_show", .columns = 2, .rows = ROWS_ONE,
		.sql = "SELECT account_id, region FROM iotcore.account",
	},
	[LOCK] = { /* account_pkey */
		.name = "iotcore_account_lock", .columns = 1, .rows = ROWS_MAYBE,
		.sql = "SELECT true FROM iotcore.account WHERE one FOR UPDATE",
	},
	[CODE] = { /* account_pkey */
		.name = "iotcore_registration_code", .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT registration_code FROM iotcore.account WHERE one",
	},
	[CODE_SET] = { /* account_pkey */
		.name = "iotcore_registration_code_set", .params = 1, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE iotcore.account SET registration_code = $1 WHERE one",
	},
	[TRIM] = { /* change_at; change_pkey. The last one stays: the next is numbered behind it */
		.name = "iotcore_change_trim", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM iotcore.change WHERE seq IN (SELECT seq FROM iotcore.change"
		       " WHERE at < now() - $1::bigint * interval '1 second'"
		       " AND seq < (SELECT max(h.seq) FROM iotcore.change h) ORDER BY at"
		       " LIMIT $2::bigint)",
	},
};
const struct db_table DB_TABLE_IOTCORE_ACCOUNT = { SQL, COUNT_OF(SQL) };

enum status
db_iotcore_account_ensure(
	struct db_tx *tx, const char *account_id, const char *region, struct err *err)
{
	own(PGresult) rows = NULL;
	char its_account[16], its_region[64];
	struct db_row row;

	TRY(db_run(tx, &SQL[ENSURE], DB_PARAMS(db_text(account_id), db_text(region)), NULL, err));
	TRY(db_run(tx, &SQL[SHOW], DB_NO_PARAMS, &rows, err));
	row = db_row(rows, 0);
	db_row_text(&row, its_account, sizeof(its_account));
	db_row_text(&row, its_region, sizeof(its_region));
	TRY(db_row_end(&row, err));
	if (strcmp(its_account, account_id) != 0 || strcmp(its_region, region) != 0)
		return err_set(err, ERR_CONFLICT, "iotcore_account_differs",
			"the database has the local IoT Core of account %s in %s; %s in %s wanted",
			its_account, its_region, account_id, region);
	return OK;
}

enum status
db_iotcore_account_lock(struct db_tx *tx, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[LOCK], DB_NO_PARAMS, &rows, err));
	if (db_rows(rows) == 0)
		return err_set(err, ERR_UNAVAILABLE, "iotcore_account_missing",
			"the local IoT Core has no account yet: run jitrca iotcore");
	return OK;
}

enum status
db_iotcore_registration_code(
	struct db_tx *tx, char out[DB_REGISTRATION_CODE_BYTES], struct err *err)
{
	own(PGresult) rows = NULL;
	struct db_row row;

	TRY(db_run(tx, &SQL[CODE], DB_NO_PARAMS, &rows, err));
	row = db_row(rows, 0);
	db_row_text(&row, out, DB_REGISTRATION_CODE_BYTES);
	return db_row_end(&row, err);
}

enum status
db_iotcore_registration_code_set(struct db_tx *tx, const char *code, struct err *err)
{
	return db_run(tx, &SQL[CODE_SET], DB_PARAMS(db_text(code)), NULL, err);
}

enum status
db_iotcore_change_trim(
	struct db_tx *tx, int64_t age_s, int64_t most, int64_t *gone, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[TRIM], DB_PARAMS(db_int64(age_s), db_int64(most)), &rows, err));
	*gone = db_affected(rows);
	return OK;
}
