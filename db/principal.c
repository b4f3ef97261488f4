#include "db/principal.h"

#include <string.h>

#include "db/conn.h"

enum {
	PRINCIPAL_CREATE,
	PRINCIPAL_FIND,
	PRINCIPAL_LIST,
	PRINCIPAL_LIST_ROLE,
	PRINCIPAL_LOCK_ADMINS,
	PRINCIPAL_LOCK,
	PRINCIPAL_OTHER_ADMIN,
	PRINCIPAL_SET_DISABLED,
	TOKEN_CREATE,
	TOKEN_LIST,
	TOKEN_REVOKE,
	TOKEN_EXISTS,
	TOKEN_BY_HASH,
	STATION_CREATE,
	STATION_FIND,
	STATION_LIST,
	STATION_UPDATE,
	STATEMENTS,
};

#define PRINCIPAL_COLUMNS                                                                          \
	"p.principal_id, p.role, p.description, p.created_by, " SQL_S("p.created_at") ", "         \
	SQL_S("p.disabled_at")
#define TOKEN_COLUMNS                                                                              \
	"t.token_id, t.principal_id, t.description, t.created_by, " SQL_S("t.created_at") ", "     \
	SQL_S("t.expires_at") ", " SQL_S("t.revoked_at")
/* A profile's name holds no line feed: whoever reads profiles sees to that. */
#define STATION_COLUMNS PRINCIPAL_COLUMNS ", array_to_string(s.profiles, E'\\n'), s.rate_per_minute"

static const struct db_statement SQL[STATEMENTS] = {
	[PRINCIPAL_CREATE] = {
		.name = "principal_create", .params = 5, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO jitrca.principal"
		       " (principal_id, role, description, created_by, created_at)"
		       " VALUES ($1, $2, $3, $4, coalesce(" SQL_AT_S("$5") ", now()))"
		       " ON CONFLICT (principal_id) DO NOTHING",
	},
	[PRINCIPAL_FIND] = { /* principal_pkey */
		.name = "principal_find", .params = 1, .columns = 6, .rows = ROWS_MAYBE,
		.sql = "SELECT " PRINCIPAL_COLUMNS " FROM jitrca.principal p WHERE p.principal_id = $1",
	},
	[PRINCIPAL_LIST] = { /* principal_role, one role after the other: stations are many */
		.name = "principal_list", .params = 2, .columns = 6, .rows = ROWS_ANY,
		.sql = "SELECT " PRINCIPAL_COLUMNS
		       " FROM (VALUES ('admin'), ('operator'), ('auditor')) AS r(role),"
		       " LATERAL (SELECT * FROM jitrca.principal p WHERE p.role = r.role"
		       " AND p.principal_id > coalesce($1, '') ORDER BY p.principal_id"
		       " LIMIT $2::bigint) p ORDER BY p.principal_id LIMIT $2::bigint",
	},
	[PRINCIPAL_LIST_ROLE] = { /* principal_role */
		.name = "principal_list_role", .params = 3, .columns = 6, .rows = ROWS_ANY,
		.sql = "SELECT " PRINCIPAL_COLUMNS " FROM jitrca.principal p WHERE p.role = $3"
		       " AND p.principal_id > coalesce($1, '') ORDER BY p.principal_id"
		       " LIMIT $2::bigint",
	},
	[PRINCIPAL_LOCK_ADMINS] = {
		/* Who disables waits here for others who do, and then reads what they have left: two
		 * admins who disable each other would otherwise both see the other one enabled. */
		.name = "principal_lock_admins", .params = 1, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT 1 FROM (SELECT pg_advisory_xact_lock($1::int, 0)) AS locked",
	},
	[PRINCIPAL_LOCK] = { /* principal_pkey */
		.name = "principal_lock", .params = 1, .columns = 2, .rows = ROWS_MAYBE,
		.sql = "SELECT p.role, p.disabled_at IS NOT NULL FROM jitrca.principal p"
		       " WHERE p.principal_id = $1 FOR NO KEY UPDATE",
	},
	[PRINCIPAL_OTHER_ADMIN] = { /* principal_role */
		.name = "principal_other_admin", .params = 1, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT EXISTS (SELECT FROM jitrca.principal p WHERE p.role = 'admin'"
		       " AND p.principal_id <> $1 AND p.disabled_at IS NULL)",
	},
	[PRINCIPAL_SET_DISABLED] = { /* principal_pkey */
		.name = "principal_set_disabled", .params = 2, .columns = 0, .rows = ROWS_NONE, .trust = true,
		.sql = "UPDATE jitrca.principal SET disabled_at = CASE WHEN $2::bool THEN now() END"
		       " WHERE principal_id = $1",
	},
	[TOKEN_CREATE] = {
		.name = "token_create", .params = 7, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO jitrca.token (token_id, principal_id, hash, description, created_by,"
		       " created_at, expires_at) SELECT $1, p.principal_id, $3, $4, $5, coalesce("
		       SQL_AT_S("$6") ", now()), " SQL_AT_S("$7")
		       " FROM jitrca.principal p WHERE p.principal_id = $2",
	},
	[TOKEN_LIST] = { /* token_principal */
		.name = "token_list", .params = 3, .columns = 7, .rows = ROWS_ANY,
		.sql = "SELECT " TOKEN_COLUMNS " FROM jitrca.token t WHERE t.principal_id = $1"
		       " AND t.token_id > coalesce($2, '') ORDER BY t.token_id LIMIT $3::bigint",
	},
	[TOKEN_REVOKE] = { /* token_pkey */
		.name = "token_revoke", .params = 2, .columns = 0, .rows = ROWS_NONE, .trust = true,
		.sql = "UPDATE jitrca.token SET revoked_at = now()"
		       " WHERE token_id = $2 AND principal_id = $1 AND revoked_at IS NULL",
	},
	[TOKEN_EXISTS] = { /* token_pkey */
		.name = "token_exists", .params = 2, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT EXISTS (SELECT FROM jitrca.token"
		       " WHERE token_id = $2 AND principal_id = $1)",
	},
	[TOKEN_BY_HASH] = { /* token_hash_key, then principal_pkey */
		.name = "token_by_hash", .params = 1, .columns = 13, .rows = ROWS_MAYBE,
		.sql = "SELECT " TOKEN_COLUMNS ", " PRINCIPAL_COLUMNS " FROM jitrca.token t"
		       " JOIN jitrca.principal p USING (principal_id) WHERE t.hash = $1",
	},
	[STATION_CREATE] = { /* its bucket is full */
		.name = "station_create", .params = 3, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO jitrca.station (principal_id, profiles, rate_per_minute, bucket)"
		       " VALUES ($1, $2::text[], $3::int, $3::int)",
	},
	[STATION_FIND] = { /* station_pkey, principal_pkey */
		.name = "station_find", .params = 1, .columns = 8, .rows = ROWS_MAYBE,
		.sql = "SELECT " STATION_COLUMNS " FROM jitrca.station s"
		       " JOIN jitrca.principal p USING (principal_id) WHERE s.principal_id = $1",
	},
	[STATION_LIST] = { /* station_pkey, principal_pkey */
		.name = "station_list", .params = 2, .columns = 8, .rows = ROWS_ANY,
		.sql = "SELECT " STATION_COLUMNS " FROM jitrca.station s"
		       " JOIN jitrca.principal p USING (principal_id)"
		       " WHERE s.principal_id > coalesce($1, '')"
		       " ORDER BY s.principal_id LIMIT $2::bigint",
	},
	[STATION_UPDATE] = { /* station_pkey; what has not been used stays in the bucket */
		.name = "station_update", .params = 3, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE jitrca.station SET profiles = $2::text[], rate_per_minute = $3::int"
		       " WHERE principal_id = $1",
	},
};
const struct db_table DB_TABLE_PRINCIPAL = { SQL, COUNT_OF(SQL) };

static enum status
principal_unknown(struct err *err)
{
	return err_set(err, ERR_NOT_FOUND, "principal_unknown", "there is no such principal");
}

static enum status
station_unknown(struct err *err)
{
	return err_set(err, ERR_NOT_FOUND, "station_unknown", "there is no such station");
}

static void
read_principal(struct db_row *row, struct db_principal *out)
{
	db_row_text(row, out->principal_id, sizeof(out->principal_id));
	db_row_text(row, out->role, sizeof(out->role));
	db_row_text(row, out->description, sizeof(out->description));
	db_row_text(row, out->created_by, sizeof(out->created_by));
	out->created_at_s = db_row_int64(row);
	out->disabled_at_s = db_row_int64(row);
}

enum status
db_principal_create(struct db_tx *tx, const struct db_principal *principal, struct err *err)
{
	own(PGresult) done = NULL;

	TRY(db_run(tx, &SQL[PRINCIPAL_CREATE],
		DB_PARAMS(db_text(principal->principal_id), db_text(principal->role),
			db_text(principal->description), db_text(principal->created_by),
			db_int64_or_null(principal->created_at_s)), &done, err));
	if (db_affected(done) == 0)
		return err_set(err, ERR_CONFLICT, "principal_exists",
			"the id is in use, or was: ids are never used again");
	return OK;
}

enum status
db_principal_find(struct db_tx *tx, const char *principal_id, struct db_principal *out,
	struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[PRINCIPAL_FIND], DB_PARAMS(db_text(principal_id)), &rows, err));
	if (db_rows(rows) == 0)
		return principal_unknown(err);
	struct db_row row = db_row(rows, 0);
	read_principal(&row, out);
	return db_row_end(&row, err);
}

enum status
db_principal_list(struct db_tx *tx, const char *role, const char *after, size_t limit,
	struct db_principal *out, size_t *count, struct err *err)
{
	const struct db_param params[] = { db_text(after), db_int64((int64_t)limit), db_text(role) };
	own(PGresult) rows = NULL;

	if (role != NULL)
		TRY(db_run(tx, &SQL[PRINCIPAL_LIST_ROLE], (struct db_params){ params, 3 }, &rows, err));
	else
		TRY(db_run(tx, &SQL[PRINCIPAL_LIST], (struct db_params){ params, 2 }, &rows, err));
	*count = (size_t)db_rows(rows);
	for (size_t i = 0; i < *count; i++) {
		struct db_row row = db_row(rows, (int)i);

		read_principal(&row, &out[i]);
		TRY(db_row_end(&row, err));
	}
	return OK;
}

static enum status
refuse_last_admin(struct db_tx *tx, const char *principal_id, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[PRINCIPAL_OTHER_ADMIN], DB_PARAMS(db_text(principal_id)), &rows, err));
	struct db_row row = db_row(rows, 0);
	bool other = db_row_bool(&row);
	TRY(db_row_end(&row, err));
	if (!other)
		return err_set(err, ERR_CONFLICT, "last_admin",
			"the last enabled administrator cannot be disabled");
	return OK;
}

enum status
db_principal_set_disabled(struct db_tx *tx, const char *principal_id, bool disabled, bool *changed,
	struct err *err)
{
	own(PGresult) rows = NULL;
	char role[16];

	if (disabled)
		TRY(db_run(tx, &SQL[PRINCIPAL_LOCK_ADMINS], DB_PARAMS(db_int64(LOCK_ADMINS)), NULL, err));
	TRY(db_run(tx, &SQL[PRINCIPAL_LOCK], DB_PARAMS(db_text(principal_id)), &rows, err));
	if (db_rows(rows) == 0)
		return principal_unknown(err);
	struct db_row row = db_row(rows, 0);
	db_row_text(&row, role, sizeof(role));
	*changed = db_row_bool(&row) != disabled;
	TRY(db_row_end(&row, err));
	if (!*changed)
		return OK;
	if (disabled && strcmp(role, "admin") == 0)
		TRY(refuse_last_admin(tx, principal_id, err));
	return db_run(tx, &SQL[PRINCIPAL_SET_DISABLED], DB_PARAMS(db_text(principal_id), db_bool(disabled)),
		NULL, err);
}

static void
read_token(struct db_row *row, struct db_token *out)
{
	*out = (struct db_token){ .created_at_s = 0 };
	db_row_text(row, out->token_id, sizeof(out->token_id));
	db_row_text(row, out->principal_id, sizeof(out->principal_id));
	db_row_text(row, out->description, sizeof(out->description));
	db_row_text(row, out->created_by, sizeof(out->created_by));
	out->created_at_s = db_row_int64(row);
	out->expires_at_s = db_row_int64(row);
	out->revoked_at_s = db_row_int64(row);
}

enum status
db_token_create(struct db_tx *tx, const struct db_token *token, struct err *err)
{
	own(PGresult) done = NULL;

	TRY(db_run(tx, &SQL[TOKEN_CREATE],
		DB_PARAMS(db_text(token->token_id), db_text(token->principal_id),
			db_octets(token->hash, sizeof(token->hash)), db_text(token->description),
			db_text(token->created_by), db_int64_or_null(token->created_at_s),
			db_int64(token->expires_at_s)), &done, err));
	return db_affected(done) == 0 ? principal_unknown(err) : OK;
}

enum status
db_token_list(struct db_tx *tx, const char *principal_id, const char *after, size_t limit,
	struct db_token *out, size_t *count, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[TOKEN_LIST],
		DB_PARAMS(db_text(principal_id), db_text(after), db_int64((int64_t)limit)), &rows, err));
	*count = (size_t)db_rows(rows);
	for (size_t i = 0; i < *count; i++) {
		struct db_row row = db_row(rows, (int)i);

		read_token(&row, &out[i]);
		TRY(db_row_end(&row, err));
	}
	return OK;
}

enum status
db_token_revoke(struct db_tx *tx, const char *principal_id, const char *token_id, bool *changed,
	struct err *err)
{
	own(PGresult) done = NULL;
	own(PGresult) rows = NULL;
	struct db_params ids = DB_PARAMS(db_text(principal_id), db_text(token_id));

	TRY(db_run(tx, &SQL[TOKEN_REVOKE], ids, &done, err));
	*changed = db_affected(done) == 1;
	if (*changed)
		return OK;
	TRY(db_run(tx, &SQL[TOKEN_EXISTS], ids, &rows, err));
	struct db_row row = db_row(rows, 0);
	bool exists = db_row_bool(&row);
	TRY(db_row_end(&row, err));
	if (!exists)
		return err_set(err, ERR_NOT_FOUND, "token_unknown", "the principal has no such token");
	return OK;
}

enum status
db_token_by_hash(struct db_tx *tx, const uint8_t hash[32], bool *found, struct db_token *token,
	struct db_principal *principal, struct err *err)
{
	own(PGresult) rows = NULL;

	*found = false;
	TRY(db_run(tx, &SQL[TOKEN_BY_HASH], DB_PARAMS(db_octets(hash, 32)), &rows, err));
	if (db_rows(rows) == 0)
		return OK;
	struct db_row row = db_row(rows, 0);
	read_token(&row, token);
	memcpy(token->hash, hash, sizeof(token->hash));
	read_principal(&row, principal);
	TRY(db_row_end(&row, err));
	*found = true;
	return OK;
}

static enum status
profiles_array(struct db_array *out, const struct db_station *station, struct err *err)
{
	for (size_t i = 0; i < station->profile_count; i++)
		TRY(db_array_add_text(out, station->profiles[i], err));
	return OK;
}

/* Splits what array_to_string joined. */
static enum status
read_profiles(struct db_station *out, const char *joined, struct err *err)
{
	out->profile_count = 0;
	while (*joined != '\0') {
		size_t len = strcspn(joined, "\n");

		if (out->profile_count == COUNT_OF(out->profiles) || len >= sizeof(out->profiles[0]))
			return err_set(err, ERR_INTERNAL, "database_shape",
				"station: up to %zu profiles of %zu characters wanted",
				COUNT_OF(out->profiles), sizeof(out->profiles[0]) - 1);
		memcpy(out->profiles[out->profile_count], joined, len);
		out->profiles[out->profile_count++][len] = '\0';
		joined += len + (joined[len] == '\n');
	}
	return OK;
}

static enum status
read_station(struct db_row *row, struct db_station *out, struct err *err)
{
	char joined[COUNT_OF(out->profiles) * DB_PROFILE_BYTES];

	read_principal(row, &out->principal);
	db_row_text(row, joined, sizeof(joined));
	out->rate_per_minute = db_row_int32(row);
	TRY(db_row_end(row, err));
	return read_profiles(out, joined, err);
}

enum status
db_station_create(struct db_tx *tx, const struct db_station *station, struct err *err)
{
	own_struct(db_array) profiles = DB_ARRAY(ARRAY_TEXT);
	struct db_principal principal = station->principal;

	/* One way only to be a station, whatever the caller left in role. */
	memcpy(principal.role, "station", sizeof("station"));
	TRY(profiles_array(&profiles, station, err));
	TRY(db_principal_create(tx, &principal, err));
	return db_run(tx, &SQL[STATION_CREATE],
		DB_PARAMS(db_text(principal.principal_id), db_array(&profiles),
			db_int64(station->rate_per_minute)), NULL, err);
}

enum status
db_station_find(struct db_tx *tx, const char *station_id, struct db_station *out, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[STATION_FIND], DB_PARAMS(db_text(station_id)), &rows, err));
	if (db_rows(rows) == 0)
		return station_unknown(err);
	struct db_row row = db_row(rows, 0);
	return read_station(&row, out, err);
}

enum status
db_station_list(struct db_tx *tx, const char *after, size_t limit, struct db_station *out,
	size_t *count, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[STATION_LIST], DB_PARAMS(db_text(after), db_int64((int64_t)limit)), &rows,
		err));
	*count = (size_t)db_rows(rows);
	for (size_t i = 0; i < *count; i++) {
		struct db_row row = db_row(rows, (int)i);

		TRY(read_station(&row, &out[i], err));
	}
	return OK;
}

enum status
db_station_update(struct db_tx *tx, const struct db_station *station, struct err *err)
{
	own_struct(db_array) profiles = DB_ARRAY(ARRAY_TEXT);
	own(PGresult) done = NULL;

	TRY(profiles_array(&profiles, station, err));
	TRY(db_run(tx, &SQL[STATION_UPDATE],
		DB_PARAMS(db_text(station->principal.principal_id), db_array(&profiles),
			db_int64(station->rate_per_minute)), &done, err));
	return db_affected(done) == 0 ? station_unknown(err) : OK;
}
