/*
 * db/iotcore_account.h - the local IoT Core's one account: who it is, its registration code, and its row's
 * lock, which every writing transaction takes first. So changes have one order, and none deadlocks.
 */
#ifndef DB_IOTCORE_ACCOUNT_H
#define DB_IOTCORE_ACCOUNT_H

#include "db/db.h"

#define DB_REGISTRATION_CODE_BYTES 65

/* Makes the account at the first start. ERR_CONFLICT iotcore_account_differs: the database has another. */
MUST_USE enum status db_iotcore_account_ensure(struct db_tx *tx, const char *account_id,
	const char *region, struct err *err);
/* ERR_UNAVAILABLE iotcore_account_missing: nobody has set the local IoT Core up yet. */
MUST_USE enum status db_iotcore_account_lock(struct db_tx *tx, struct err *err);

/* "" if there is none. */
MUST_USE enum status db_iotcore_registration_code(struct db_tx *tx,
	char out[DB_REGISTRATION_CODE_BYTES], struct err *err);
/* NULL: none from now on. */
MUST_USE enum status db_iotcore_registration_code_set(struct db_tx *tx, const char *code,
	struct err *err);

/* Forgets changes older than age_s, at most `most` of them; *gone says how many. */
MUST_USE enum status db_iotcore_change_trim(struct db_tx *tx, int64_t age_s, int64_t most,
	int64_t *gone, struct err *err);

#endif
