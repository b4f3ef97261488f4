#include "db/run.h"

#include <assert.h>
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "db/internal.h"

#define FORMAT_BINARY 1
/* Type numbers of pg_type.dat; they never change. */
enum { OID_BOOL = 16, OID_BYTEA = 17, OID_INT8 = 20, OID_INT2 = 21, OID_INT4 = 23, OID_FLOAT8 = 701 };

static const struct {
	const char *prefix; /* of the SQLSTATE */
	enum status status;
	const char *code;
} SQLSTATES[] = {
	{ "23505", ERR_CONFLICT, "unique_violation" },
	{ "23503", ERR_CONFLICT, "foreign_key" },
	{ "23514", ERR_CONFLICT, "check_violation" },
	{ "40001", ERR_UNAVAILABLE, "database_retry" },
	{ "40P01", ERR_UNAVAILABLE, "database_retry" },
	{ "55P03", ERR_UNAVAILABLE, "database_retry" },
	{ "57014", ERR_UNAVAILABLE, "database_away" }, /* statement timeout */
	{ "25006", ERR_UNAVAILABLE, "database_away" }, /* a standby after a failover */
	{ "25P03", ERR_UNAVAILABLE, "database_away" }, /* idle in transaction too long */
	{ "08", ERR_UNAVAILABLE, "database_away" },
	{ "53", ERR_UNAVAILABLE, "database_away" },
	{ "57P", ERR_UNAVAILABLE, "database_away" },
};

static void
first_line(char *out, size_t size, const char *text)
{
	size_t len = strcspn(text, "\n");

	(void)snprintf(out, size, "%.*s", (int)(len < size ? len : size - 1), text);
}

enum status
err_libpq(struct err *err, PGconn *conn, const PGresult *result)
{
	const char *state = result != NULL ? PQresultErrorField(result, PG_DIAG_SQLSTATE) : NULL;
	char line[200];

	if (state == NULL) {
		/* No SQLSTATE: the link, not a statement. */
		first_line(line, sizeof(line), PQerrorMessage(conn));
		return err_set(err, ERR_UNAVAILABLE, "database_away", "PostgreSQL: %s", line);
	}
	/* The primary message of class 22 and 23 may quote values: the constraint's name is enough. */
	if (state[0] == '2' && (state[1] == '2' || state[1] == '3')) {
		const char *constraint = PQresultErrorField(result, PG_DIAG_CONSTRAINT_NAME);

		(void)snprintf(line, sizeof(line), "constraint %s",
			constraint != NULL ? constraint : "of a value's type");
	} else {
		const char *message = PQresultErrorField(result, PG_DIAG_MESSAGE_PRIMARY);

		first_line(line, sizeof(line), message != NULL ? message : "");
	}
	for (size_t i = 0; i < COUNT_OF(SQLSTATES); i++)
		if (strncmp(state, SQLSTATES[i].prefix, strlen(SQLSTATES[i].prefix)) == 0)
			return err_set(err, SQLSTATES[i].status, SQLSTATES[i].code,
				"PostgreSQL %s: %s", state, line);
	return err_set(err, ERR_INTERNAL, "database", "PostgreSQL %s: %s", state, line);
}

/* Failed: what the link is worth now, and which constraint it was. */
static enum status
fail(struct db_conn *conn, const struct db_statement *statement, const PGresult *result, struct err *err)
{
	const char *constraint =
		result != NULL ? PQresultErrorField(result, PG_DIAG_CONSTRAINT_NAME) : NULL;

	(void)err_libpq(err, conn->pg, result);
	(void)snprintf(conn->constraint, sizeof(conn->constraint), "%s",
		constraint != NULL ? constraint : "");
	if (PQstatus(conn->pg) != CONNECTION_OK ||
	    PQtransactionStatus(conn->pg) == PQTRANS_UNKNOWN)
		conn->broken = true;
	return err_wrap(err, "%s", statement->name);
}

static size_t
slot_of(const struct db_conn *conn, const struct db_statement *statement)
{
	size_t slot = ((uintptr_t)statement / sizeof(*statement)) % DB_PREPARED_SLOTS;

	while (conn->prepared[slot] != NULL && conn->prepared[slot] != statement)
		slot = (slot + 1) % DB_PREPARED_SLOTS;
	return slot;
}

static enum status
prepare(struct db_conn *conn, const struct db_statement *statement, struct err *err)
{
	size_t slot = slot_of(conn, statement);
	own(PGresult) result = NULL;

	if (conn->prepared[slot] == statement)
		return OK;
	assert(conn->prepared_count < DB_PREPARED_SLOTS / 2);
	result = PQprepare(conn->pg, statement->name, statement->sql, statement->params, NULL);
	if (PQresultStatus(result) != PGRES_COMMAND_OK)
		return fail(conn, statement, result, err);
	conn->prepared[slot] = statement;
	conn->prepared_count++;
	return OK;
}

static enum status
ready(struct db_tx *tx, const struct db_statement *statement, const struct db_params *params,
	struct err *err)
{
	assert(tx->conn != NULL);
	assert(statement->rows != ROWS_UNSET);
	if (params->failed)
		return err_memory(err);
	assert(params->count == statement->params);
	tx->conn->constraint[0] = '\0';
	if (tx->conn->broken)
		return err_set(err, ERR_UNAVAILABLE, "database_away", "%s: the link is broken",
			statement->name);
	return prepare(tx->conn, statement, err);
}

static enum status
check_shape(const struct db_statement *statement, const PGresult *result, struct err *err)
{
	int rows = PQntuples(result);

	if (PQnfields(result) != statement->columns)
		return err_set(err, ERR_INTERNAL, "database_shape", "%s: %d columns wanted, %d found",
			statement->name, statement->columns, PQnfields(result));
	if (statement->rows == ROWS_ONE && rows == 0)
		return err_set(err, ERR_NOT_FOUND, "row_missing", "%s: no row", statement->name);
	if ((statement->rows == ROWS_ONE || statement->rows == ROWS_MAYBE) && rows > 1)
		return err_set(err, ERR_INTERNAL, "database_shape", "%s: one row wanted, %d found",
			statement->name, rows);
	return OK;
}

enum status
db_run(struct db_tx *tx, const struct db_statement *statement, struct db_params *params,
	PGresult **out, struct err *err)
{
	own(PGresult) result = NULL;
	ExecStatusType wanted =
		statement->rows == ROWS_NONE ? PGRES_COMMAND_OK : PGRES_TUPLES_OK;

	TRY(ready(tx, statement, params, err));
	result = PQexecPrepared(tx->conn->pg, statement->name, params->count,
		(const char *const *)params->values, params->lengths, params->formats, FORMAT_BINARY);
	if (PQresultStatus(result) != wanted)
		return fail(tx->conn, statement, result, err);
	TRY(check_shape(statement, result, err));
	if (out != NULL) {
		PQclear(*out);
		*out = give(result);
	}
	return OK;
}

const char *
db_constraint(const struct db_tx *tx)
{
	return tx->conn != NULL ? tx->conn->constraint : "";
}

/* Takes the rest of a result set off the wire, so that the connection can be used again. */
static void
drain(PGconn *pg)
{
	PGresult *result;

	while ((result = PQgetResult(pg)) != NULL)
		PQclear(result);
}

enum status
db_stream(struct db_tx *tx, const struct db_statement *statement, struct db_params *params,
	enum status (*row)(void *arg, const PGresult *result, struct err *err), void *arg,
	struct err *err)
{
	PGconn *pg;
	PGresult *next;
	enum status status = OK;

	TRY(ready(tx, statement, params, err));
	pg = tx->conn->pg;
	if (!PQsendQueryPrepared(pg, statement->name, params->count,
		    (const char *const *)params->values, params->lengths, params->formats,
		    FORMAT_BINARY) ||
	    !PQsetSingleRowMode(pg))
		return fail(tx->conn, statement, NULL, err);
	while (status == OK && (next = PQgetResult(pg)) != NULL) {
		own(PGresult) result = next;

		if (PQresultStatus(result) == PGRES_SINGLE_TUPLE) {
			status = check_shape(statement, result, err);
			if (status == OK)
				status = row(arg, result, err);
		} else if (PQresultStatus(result) != PGRES_TUPLES_OK) {
			status = fail(tx->conn, statement, result, err);
		}
	}
	drain(pg);
	return status;
}

#define COPY_BLOCK_BYTES 65536

static enum status
copy_lines(struct db_conn *conn, const struct db_statement *copy,
	enum status (*next)(void *arg, struct buf *line, bool *more, struct err *err), void *arg,
	struct err *err)
{
	own_struct(buf) lines = { .limit_bytes = 2 * COPY_BLOCK_BYTES };
	bool more = true;

	while (more) {
		TRY(next(arg, &lines, &more, err));
		if (lines.len < COPY_BLOCK_BYTES && more)
			continue;
		if (lines.len > 0 && PQputCopyData(conn->pg, (const char *)lines.data, (int)lines.len) != 1)
			return fail(conn, copy, NULL, err);
		lines.len = 0;
	}
	return OK;
}

enum status
db_copy_in(struct db_tx *tx, const struct db_statement *copy,
	enum status (*next)(void *arg, struct buf *line, bool *more, struct err *err), void *arg,
	struct err *err)
{
	own_struct(db_params) none = { .count = 0 };
	own(PGresult) begun = NULL;
	own(PGresult) ended = NULL;
	enum status status;

	assert(tx->conn != NULL);
	begun = PQexec(tx->conn->pg, copy->sql);
	if (PQresultStatus(begun) != PGRES_COPY_IN)
		return fail(tx->conn, copy, begun, err);
	status = copy_lines(tx->conn, copy, next, arg, err);
	if (PQputCopyEnd(tx->conn->pg, status == OK ? NULL : "refused") != 1 && status == OK)
		status = fail(tx->conn, copy, NULL, err);
	ended = PQgetResult(tx->conn->pg);
	if (status == OK && PQresultStatus(ended) != PGRES_COMMAND_OK)
		status = fail(tx->conn, copy, ended, err);
	drain(tx->conn->pg);
	return status;
}

enum status
db_conn_command(struct db_conn *conn, const char *sql, struct err *err)
{
	static const struct db_statement COMMAND = { .name = "command" };
	own(PGresult) result = PQexec(conn->pg, sql);

	if (PQresultStatus(result) != PGRES_COMMAND_OK && PQresultStatus(result) != PGRES_TUPLES_OK)
		return fail(conn, &COMMAND, result, err);
	return OK;
}

enum status
db_command(struct db_tx *tx, const char *sql, struct err *err)
{
	assert(tx->conn != NULL);
	return db_conn_command(tx->conn, sql, err);
}

int
db_affected(const PGresult *result)
{
	/* libpq takes no const here, and does not write. */
	union {
		const PGresult *in;
		PGresult *out;
	} plain = { .in = result };

	return (int)strtol(PQcmdTuples(plain.out), NULL, 10);
}

bool
db_is_null(const PGresult *result, int row, int column)
{
	return PQgetisnull(result, row, column) != 0;
}

int64_t
db_get_int64(const PGresult *result, int row, int column)
{
	const char *value = PQgetvalue(result, row, column);
	uint64_t big;
	uint32_t medium;
	uint16_t small;

	if (db_is_null(result, row, column))
		return 0;
	switch (PQftype(result, column)) {
	case OID_INT8:
		memcpy(&big, value, sizeof(big));
		return (int64_t)be64toh(big);
	case OID_INT4:
		memcpy(&medium, value, sizeof(medium));
		return (int32_t)be32toh(medium);
	case OID_INT2:
		memcpy(&small, value, sizeof(small));
		return (int16_t)be16toh(small);
	default:
		assert(!"an integer column");
		return 0;
	}
}

bool
db_get_bool(const PGresult *result, int row, int column)
{
	assert(PQftype(result, column) == OID_BOOL);
	return !db_is_null(result, row, column) && PQgetvalue(result, row, column)[0] != 0;
}

double
db_get_double(const PGresult *result, int row, int column)
{
	uint64_t big;
	double value;

	assert(PQftype(result, column) == OID_FLOAT8);
	if (db_is_null(result, row, column))
		return 0;
	memcpy(&big, PQgetvalue(result, row, column), sizeof(big));
	big = be64toh(big);
	memcpy(&value, &big, sizeof(value));
	return value;
}

const char *
db_get_text(const PGresult *result, int row, int column)
{
	return PQgetvalue(result, row, column);
}

struct view
db_get_bytes(const PGresult *result, int row, int column)
{
	assert(PQftype(result, column) == OID_BYTEA);
	if (db_is_null(result, row, column))
		return (struct view){ NULL, 0 };
	return (struct view){ (const uint8_t *)PQgetvalue(result, row, column),
		(size_t)PQgetlength(result, row, column) };
}

void
db_copy_text(char *out, size_t size, const PGresult *result, int row, int column)
{
	(void)snprintf(out, size, "%s", db_get_text(result, row, column));
}

bool
db_copy_fixed(uint8_t *out, size_t size, const PGresult *result, int row, int column)
{
	struct view value = db_get_bytes(result, row, column);

	memset(out, 0, size);
	if (value.data == NULL || value.len != size)
		return false;
	memcpy(out, value.data, size);
	return true;
}
