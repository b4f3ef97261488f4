#include "db/claim_code.h"

#include "db/run.h"

enum {
	CREATE,
	FIND,
	USE,
	STATEMENTS,
};

static const struct db_statement SQL[STATEMENTS] = {
	[CREATE] = {
		.name = "claim_code_create", .params = 8, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO jitrca.claim_code (claim_id, hash, device_id, issuer_id, serial,"
		       " spki_sha256, issued_by, expires_at) VALUES ($1::text, $2, $3::text, $4::int, $5,"
		       " $6, $7::text, " SQL_AT_S("$8") ")",
	},
	[FIND] = { /* claim_code_hash_key */
		.name = "claim_code_find", .params = 1, .columns = 7, .rows = ROWS_MAYBE,
		.sql = "SELECT c.claim_id, c.device_id, c.issuer_id, c.serial, c.spki_sha256, c.issued_by, "
		       SQL_S("c.expires_at") " FROM jitrca.claim_code c WHERE c.hash = $1",
	},
	[USE] = { /* claim_code_hash_key */
		.name = "claim_code_use", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE jitrca.claim_code c SET used_at = now() WHERE c.hash = $1"
		       " AND c.used_at IS NULL AND c.spki_sha256 = $2 AND c.expires_at > now()",
	},
};

const struct db_table DB_TABLE_CLAIM_CODE = { SQL, COUNT_OF(SQL) };

enum status
db_claim_code_create(struct db_tx *tx, const struct db_claim_code *code, struct err *err)
{
	return db_run(tx, &SQL[CREATE], DB_PARAMS(db_text(code->claim_id),
		db_octets(code->hash, sizeof(code->hash)), db_text(code->device_id),
		db_int64(code->ref.issuer_id), db_serial(&code->ref.serial),
		db_octets(code->spki_sha256, sizeof(code->spki_sha256)), db_text(code->issued_by),
		db_int64(code->expires_at_s)), NULL, err);
}

enum status
db_claim_code_use(struct db_tx *tx, const uint8_t hash[DB_SHA256_BYTES],
	const uint8_t spki_sha256[DB_SHA256_BYTES], struct db_claim_code *out, bool *found, bool *used,
	struct err *err)
{
	own(PGresult) rows = NULL;
	own(PGresult) done = NULL;

	*out = (struct db_claim_code){ .expires_at_s = 0 };
	TRY(db_run(tx, &SQL[USE], DB_PARAMS(db_octets(hash, DB_SHA256_BYTES),
		db_octets(spki_sha256, DB_SHA256_BYTES)), &done, err));
	*used = db_affected(done) == 1;
	TRY(db_run(tx, &SQL[FIND], DB_PARAMS(db_octets(hash, DB_SHA256_BYTES)), &rows, err));
	*found = db_rows(rows) == 1;
	if (!*found)
		return OK;
	struct db_row row = db_row(rows, 0);

	db_row_text(&row, out->claim_id, sizeof(out->claim_id));
	db_row_text(&row, out->device_id, sizeof(out->device_id));
	db_row_ref(&row, &out->ref);
	(void)db_row_octets(&row, out->spki_sha256, sizeof(out->spki_sha256));
	db_row_text(&row, out->issued_by, sizeof(out->issued_by));
	out->expires_at_s = db_row_int64(&row);
	return db_row_end(&row, err);
}
