#include "db/run.h"

#include <assert.h>
#include <endian.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "db/conn.h"

/* Types by their fixed number in pg_type.dat; libpq's own header for them is the server's. */
enum { OID_BOOL = 16, OID_BYTEA = 17, OID_NAME = 19, OID_INT8 = 20, OID_INT2 = 21, OID_INT4 = 23,
	OID_TEXT = 25, OID_FLOAT8 = 701, OID_BPCHAR = 1042, OID_VARCHAR = 1043 };

#define PARAMS_MAX 32
#define STREAM_ROWS 500 /* a round trip costs less than a tenth of reading so many */
#define COPY_BYTES (64 * 1024)

/*
 * Parameters
 */

struct db_param
db_null(void)
{
	return (struct db_param){ .null = true };
}

struct db_param
db_text(const char *text)
{
	if (text == NULL)
		return db_null();
	return (struct db_param){ .data = text, .len = strlen(text) };
}

struct db_param
db_text_view(struct view text)
{
	/* In binary, for it need not end in NUL. text_recv checks the encoding as text_in does. */
	return db_bytes(text);
}

struct db_param
db_bytes(struct view octets)
{
	if (octets.data == NULL)
		return db_null();
	return (struct db_param){ .data = octets.data, .len = octets.len, .binary = true };
}

struct db_param
db_octets(const uint8_t *octets, size_t len)
{
	return db_bytes((struct view){ octets, len });
}

struct db_param
db_serial(const struct serial *serial)
{
	return serial == NULL ? db_null() : db_octets(serial->octets, SERIAL_BYTES);
}

struct db_param
db_int64(int64_t number)
{
	struct db_param param = { .data = NULL };

	(void)snprintf(param.inline_text, sizeof(param.inline_text), "%" PRId64, number);
	return param;
}

struct db_param
db_int64_or_null(int64_t number)
{
	return number == 0 ? db_null() : db_int64(number);
}

struct db_param
db_double(double number)
{
	struct db_param param = { .data = NULL };

	(void)snprintf(param.inline_text, sizeof(param.inline_text), "%.17g", number);
	return param;
}

struct db_param
db_bool(bool flag)
{
	return (struct db_param){ .data = flag ? "t" : "f", .len = 1 };
}

/*
 * Arrays, as array_recv reads them: dimensions, whether NULL occurs, element type, length, lower
 * bound; then for each element its length (-1: NULL) and its octets. All numbers big-endian.
 */

#define ARRAY_HEADER_BYTES 20

static void
put32(uint8_t *out, uint32_t number)
{
	number = htobe32(number);
	memcpy(out, &number, sizeof(number));
}

static uint32_t
array_oid(enum db_array_type type)
{
	switch (type) {
	case ARRAY_TEXT: return OID_TEXT;
	case ARRAY_BYTEA: return OID_BYTEA;
	case ARRAY_INT8: return OID_INT8;
	case ARRAY_INT4: return OID_INT4;
	case ARRAY_BOOL: return OID_BOOL;
	case ARRAY_UNSET: break;
	}
	assert(type != ARRAY_UNSET);
	return 0;
}

void
db_array_free(struct db_array *array)
{
	buf_free(&array->items);
	array->count = 0;
}

void
db_array_clear(struct db_array *array)
{
	array->count = 0;
	array->has_null = false;
	array->items.len = 0;
}

static enum status
array_add(struct db_array *array, const void *data, size_t len, bool null, struct err *err)
{
	static const uint8_t ROOM[ARRAY_HEADER_BYTES] = { 0 };
	uint8_t prefix[4];

	if (len > INT32_MAX)
		return err_set(err, ERR_TOO_LARGE, "buffer_limit", "an array element of %zu octets", len);
	put32(prefix, null ? UINT32_MAX : (uint32_t)len);
	if (array->items.len == 0)
		TRY(buf_add(&array->items, ROOM, sizeof(ROOM), err));
	TRY(buf_reserve(&array->items, sizeof(prefix) + len, err));
	TRY(buf_add(&array->items, prefix, sizeof(prefix), err));
	if (len > 0)
		TRY(buf_add(&array->items, data, len, err));
	array->count++;
	array->has_null |= null;
	return OK;
}

enum status
db_array_add_text(struct db_array *array, const char *text, struct err *err)
{
	assert(array->type == ARRAY_TEXT);
	return text == NULL ? db_array_add_null(array, err)
			    : array_add(array, text, strlen(text), false, err);
}

enum status
db_array_add_bytes(struct db_array *array, struct view octets, struct err *err)
{
	assert(array->type == ARRAY_BYTEA);
	return octets.data == NULL ? db_array_add_null(array, err)
				   : array_add(array, octets.data, octets.len, false, err);
}

enum status
db_array_add_serial(struct db_array *array, const struct serial *serial, struct err *err)
{
	return db_array_add_bytes(array, (struct view){ serial->octets, SERIAL_BYTES }, err);
}

enum status
db_array_add_int(struct db_array *array, int64_t number, struct err *err)
{
	uint64_t wide = htobe64((uint64_t)number);
	uint32_t narrow = htobe32((uint32_t)(int32_t)number);

	if (array->type == ARRAY_INT8)
		return array_add(array, &wide, sizeof(wide), false, err);
	assert(array->type == ARRAY_INT4);
	assert(number >= INT32_MIN && number <= INT32_MAX);
	return array_add(array, &narrow, sizeof(narrow), false, err);
}

enum status
db_array_add_bool(struct db_array *array, bool flag, struct err *err)
{
	uint8_t octet = flag;

	assert(array->type == ARRAY_BOOL);
	return array_add(array, &octet, 1, false, err);
}

enum status
db_array_add_null(struct db_array *array, struct err *err)
{
	return array_add(array, NULL, 0, true, err);
}

struct db_param
db_array(struct db_array *array)
{
	/* An array without elements has no dimension. */
	static const uint8_t EMPTY[ARRAY_BOOL + 1][12] = {
		[ARRAY_TEXT] = { [11] = OID_TEXT },
		[ARRAY_BYTEA] = { [11] = OID_BYTEA },
		[ARRAY_INT8] = { [11] = OID_INT8 },
		[ARRAY_INT4] = { [11] = OID_INT4 },
		[ARRAY_BOOL] = { [11] = OID_BOOL },
	};
	uint8_t *head = array->items.data;

	if (array->count == 0)
		return db_octets(EMPTY[array->type], sizeof(EMPTY[0]));
	put32(head, 1);
	put32(head + 4, array->has_null);
	put32(head + 8, array_oid(array->type));
	put32(head + 12, (uint32_t)array->count);
	put32(head + 16, 1);
	return db_octets(head, array->items.len);
}

/*
 * Running
 */

/* The number of a statement over all tables, for db_conn.prepared. */
static bool
statement_index(const struct db_statement *statement, size_t *index)
{
	size_t before = 0;

	for (size_t i = 0; i < DB_TABLE_COUNT; i++) {
		const struct db_table *table = DB_TABLES[i];

		if (statement >= table->statements && statement < table->statements + table->count) {
			*index = before + (size_t)(statement - table->statements);
			return true;
		}
		before += table->count;
	}
	return false;
}

/* A stream is prepared as its cursor. */
static enum status
statement_sql(const struct db_statement *statement, struct buf *sql, struct err *err)
{
	if (statement->rows == ROWS_STREAM)
		TRY(buf_format(sql, err, "DECLARE \"%s\" NO SCROLL CURSOR FOR ", statement->name));
	TRY(buf_text(sql, statement->sql, err));
	return buf_add(sql, "", 1, err);
}

static enum status
prepare(struct db_conn *conn, const struct db_statement *statement, bool *prepared, struct err *err)
{
	own_struct(buf) sql = { .limit_bytes = 64 * 1024 };

	if (*prepared)
		return OK;
	TRY(statement_sql(statement, &sql, err));
	own(PGresult) result = PQprepare(conn->pg, statement->name, (const char *)sql.data, 0, NULL);
	if (PQresultStatus(result) != PGRES_COMMAND_OK) {
		(void)err_libpq(err, conn, result, statement->name);
		return err_wrap(err, "prepare");
	}
	*prepared = true;
	return OK;
}

enum status
db_conn_prepare_all(struct db_conn *conn, struct err *err)
{
	size_t index = 0;

	for (size_t i = 0; i < DB_TABLE_COUNT; i++)
		for (size_t j = 0; j < DB_TABLES[i]->count; j++, index++) {
			const struct db_statement *statement = &DB_TABLES[i]->statements[j];

			if (statement->unprepared || statement->rows == ROWS_COPY)
				continue;
			TRY(prepare(conn, statement, &conn->prepared[index], err));
		}
	return OK;
}

/* Parameters as libpq wants them; borrows from params. */
struct libpq_params {
	const char *values[PARAMS_MAX];
	int lengths[PARAMS_MAX];
	int formats[PARAMS_MAX];
};

static enum status
libpq_params(struct libpq_params *out, const struct db_statement *statement,
	struct db_params params, struct err *err)
{
	if (params.count != statement->params || params.count > PARAMS_MAX)
		return err_set(err, ERR_INTERNAL, "database_shape", "%s: %u parameters wanted, %zu given",
			statement->name, statement->params, params.count);
	for (size_t i = 0; i < params.count; i++) {
		const struct db_param *param = &params.at[i];

		/* libpq carries lengths as int, and the wire ends at 1 GiB. */
		if (param->len > (size_t)1 << 29)
			return err_set(err, ERR_TOO_LARGE, "database_parameter",
				"%s: parameter %zu: up to 512 MiB wanted, %zu octets found",
				statement->name, i + 1, param->len);
		out->values[i] = param->null ? NULL
			: param->data != NULL ? param->data : param->inline_text;
		out->lengths[i] = (int)param->len;
		out->formats[i] = param->binary;
	}
	return OK;
}

static enum status
execute(struct db_conn *conn, const struct db_statement *statement, struct db_params params,
	PGresult **out, struct err *err)
{
	struct libpq_params p;
	size_t index;
	int count = (int)params.count;

	TRY(libpq_params(&p, statement, params, err));
	if (statement->unprepared || statement->rows == ROWS_COPY) {
		*out = PQexecParams(conn->pg, statement->sql, count, NULL, p.values, p.lengths,
			p.formats, 1);
		return OK;
	}
	if (!statement_index(statement, &index))
		return err_set(err, ERR_INTERNAL, "database_shape", "%s: its table is not in db/tables.c",
			statement->name);
	TRY(prepare(conn, statement, &conn->prepared[index], err));
	*out = PQexecPrepared(conn->pg, statement->name, count, p.values, p.lengths, p.formats, 1);
	return OK;
}

static enum status
check_shape(const struct db_statement *statement, const PGresult *result, struct err *err)
{
	int rows = PQntuples(result);
	unsigned columns = (unsigned)PQnfields(result);

	if (columns != statement->columns)
		return err_set(err, ERR_INTERNAL, "database_shape", "%s: %u columns wanted, %u found",
			statement->name, statement->columns, columns);
	if ((statement->rows == ROWS_ONE && rows != 1) || (statement->rows == ROWS_MAYBE && rows > 1))
		return err_set(err, ERR_INTERNAL, "database_shape", "%s: %s row wanted, %d found",
			statement->name, statement->rows == ROWS_ONE ? "one" : "at most one", rows);
	return OK;
}

static enum status
check_result(struct db_conn *conn, const struct db_statement *statement, const PGresult *result,
	struct err *err)
{
	if (PQresultStatus(result) !=
		(statement->rows == ROWS_NONE ? PGRES_COMMAND_OK : PGRES_TUPLES_OK))
		return err_libpq(err, conn, result, statement->name);
	TRY(check_shape(statement, result, err));
	conn->trust_changed |= statement->trust;
	return OK;
}

/*
 * Several in one round trip
 */

#define STEPS_MAX 32

/* Sends a step. *prepares: where it is noted that its statement is prepared, if that goes with it. */
static enum status
send_step(struct db_conn *conn, const struct db_step *step, bool **prepares, struct err *err)
{
	const struct db_statement *statement = step->statement;
	own_struct(buf) sql = { .limit_bytes = 64 * 1024 };
	struct libpq_params p;
	size_t index;
	int count = (int)step->params.count;
	int sent = 1;

	*prepares = NULL;
	TRY(libpq_params(&p, statement, step->params, err));
	if (statement->unprepared) {
		sent = PQsendQueryParams(conn->pg, statement->sql, count, NULL, p.values, p.lengths,
			p.formats, 1);
		return sent == 1 ? OK : err_libpq(err, conn, NULL, statement->name);
	}
	if (!statement_index(statement, &index))
		return err_set(err, ERR_INTERNAL, "database_shape", "%s: its table is not in db/tables.c",
			statement->name);
	if (!conn->prepared[index]) {
		TRY(statement_sql(statement, &sql, err));
		sent = PQsendPrepare(conn->pg, statement->name, (const char *)sql.data, 0, NULL);
		*prepares = &conn->prepared[index];
		conn->prepared[index] = true;
	}
	if (sent == 1)
		sent = PQsendQueryPrepared(conn->pg, statement->name, count, p.values, p.lengths,
			p.formats, 1);
	return sent == 1 ? OK : err_libpq(err, conn, NULL, statement->name);
}

static enum status
send_steps(struct db_conn *conn, const struct db_step *steps, bool **prepares, size_t count,
	struct err *err)
{
	if (PQenterPipelineMode(conn->pg) != 1)
		return err_libpq(err, conn, NULL, "pipeline");
	if (conn->unbegun && PQsendQueryParams(conn->pg, "BEGIN", 0, NULL, NULL, NULL, NULL, 1) != 1)
		return err_libpq(err, conn, NULL, "begin");
	for (size_t i = 0; i < count; i++)
		TRY(send_step(conn, &steps[i], &prepares[i], err));
	return PQpipelineSync(conn->pg) == 1 ? OK : err_libpq(err, conn, NULL, "pipeline");
}

/* The next answer; NULL: the link broke. */
static PGresult *
receive(struct db_conn *conn)
{
	PGresult *result = PQgetResult(conn->pg);

	for (PGresult *rest; result != NULL && (rest = PQgetResult(conn->pg)) != NULL;)
		PQclear(rest);
	return result;
}

/* An answer without rows, that of BEGIN or of a preparation. */
static enum status
receive_command(struct db_conn *conn, const char *what, struct err *err)
{
	own(PGresult) result = receive(conn);

	return PQresultStatus(result) == PGRES_COMMAND_OK ? OK : err_libpq(err, conn, result, what);
}

/* Every answer is read, whatever became of the first ones; the first failure is told. */
static enum status
receive_steps(struct db_conn *conn, struct db_step *steps, bool **prepares, size_t count,
	struct err *err)
{
	enum status status = OK;
	struct err later;

	if (conn->unbegun)
		status = receive_command(conn, "begin", err);
	conn->unbegun = conn->unbegun && status != OK;
	for (size_t i = 0; i < count; i++) {
		const char *name = steps[i].statement->name;

		if (prepares[i] != NULL) {
			enum status prepared = receive_command(conn, name, status == OK ? err : &later);

			*prepares[i] = prepared == OK;
			if (status == OK && prepared != OK)
				status = err_wrap(err, "prepare");
		}
		steps[i].rows = receive(conn);
		if (status == OK)
			status = check_result(conn, steps[i].statement, steps[i].rows, err);
	}
	own(PGresult) end = PQgetResult(conn->pg);
	if (PQresultStatus(end) != PGRES_PIPELINE_SYNC || PQexitPipelineMode(conn->pg) != 1)
		conn->broken = true;
	return status;
}

static enum status
run_steps(struct db_conn *conn, struct db_step *steps, size_t count, struct err *err)
{
	bool *prepares[STEPS_MAX] = { NULL };
	enum status status = send_steps(conn, steps, prepares, count, err);

	if (status != OK)
		conn->broken = true; /* half a pipeline is of no use */
	else
		status = receive_steps(conn, steps, prepares, count, err);
	if (status != OK)
		for (size_t i = 0; i < count; i++)
			PQclear(give(steps[i].rows));
	return status;
}

enum status
db_run_all(struct db_tx *tx, struct db_step *steps, size_t count, struct err *err)
{
	assert(tx->conn != NULL && count > 0 && count <= STEPS_MAX);
	for (size_t i = 0; i < count; i++) {
		steps[i].rows = NULL;
		assert(steps[i].statement->rows != ROWS_STREAM && steps[i].statement->rows != ROWS_COPY);
	}
	for (;;) { /* as often as there are dead connections in the pool */
		enum status status = run_steps(tx->conn, steps, count, err);

		/* Not even BEGIN was answered: it had died before. */
		if (status == OK || !tx->conn->unbegun || !tx->conn->broken || !tx->conn->reused)
			return status;
		TRY(db_tx_renew(tx, err));
	}
}

enum status
db_run(struct db_tx *tx, const struct db_statement *statement, struct db_params params,
	PGresult **out, struct err *err)
{
	own(PGresult) result = NULL;

	assert(tx->conn != NULL);
	assert(statement->rows == ROWS_NONE || statement->rows == ROWS_ONE ||
		statement->rows == ROWS_MAYBE || statement->rows == ROWS_ANY);
	if (tx->conn->unbegun) {
		struct db_step step = { .statement = statement, .params = params };

		TRY(db_run_all(tx, &step, 1, err));
		result = step.rows;
	} else {
		TRY(execute(tx->conn, statement, params, &result, err));
		TRY(check_result(tx->conn, statement, result, err));
	}
	if (out != NULL)
		*out = give(result);
	return OK;
}

/* For what cannot be sent together with a BEGIN. */
static enum status
begin_now(struct db_tx *tx, struct err *err)
{
	while (tx->conn->unbegun) { /* as often as there are dead connections in the pool */
		enum status status = db_conn_exec(tx->conn, "begin", "BEGIN", NULL, err);

		if (status == OK)
			tx->conn->unbegun = false;
		else if (tx->conn->broken && tx->conn->reused)
			TRY(db_tx_renew(tx, err));
		else
			return status;
	}
	return OK;
}

int
db_rows(const PGresult *rows)
{
	return PQntuples(rows);
}

int64_t
db_affected(PGresult *rows)
{
	int64_t count = 0;

	/* Digits of the server's own count; other commands have none. */
	for (const char *digit = PQcmdTuples(rows); *digit >= '0' && *digit <= '9'; digit++)
		count = count * 10 + (*digit - '0');
	return count;
}

/*
 * Rows
 */

struct db_row
db_row(const PGresult *rows, int row)
{
	return (struct db_row){ .rows = rows, .row = row };
}

static void
row_wrong(struct db_row *row, const char *wrong)
{
	if (row->wrong != NULL)
		return;
	row->wrong = wrong;
	row->wrong_column = row->column;
}

bool
db_row_null(const struct db_row *row)
{
	return row->column >= PQnfields(row->rows) || row->row >= PQntuples(row->rows) ||
		PQgetisnull(row->rows, row->row, row->column) == 1;
}

void
db_row_skip(struct db_row *row)
{
	row->column++;
}

/* The next value, which is there and of a type that passes; else the empty view. */
static struct view
row_next(struct db_row *row, bool (*of_type)(Oid type, int len))
{
	int column = row->column;
	struct view value = { NULL, 0 };

	if (column >= PQnfields(row->rows) || row->row >= PQntuples(row->rows)) {
		row_wrong(row, "is not there");
	} else if (!PQgetisnull(row->rows, row->row, column)) {
		int len = PQgetlength(row->rows, row->row, column);

		if (PQfformat(row->rows, column) == 1 && of_type(PQftype(row->rows, column), len)) {
			value.data = (const uint8_t *)PQgetvalue(row->rows, row->row, column);
			value.len = (size_t)len;
		} else {
			row_wrong(row, "has another type");
		}
	}
	row->column++;
	return value;
}

static bool
is_int(Oid type, int len)
{
	return (type == OID_INT8 && len == 8) || (type == OID_INT4 && len == 4) ||
		(type == OID_INT2 && len == 2);
}

static bool
is_double(Oid type, int len)
{
	return type == OID_FLOAT8 && len == 8;
}

static bool
is_bool(Oid type, int len)
{
	return type == OID_BOOL && len == 1;
}

static bool
is_text(Oid type, int len)
{
	(void)len;
	return type == OID_TEXT || type == OID_VARCHAR || type == OID_NAME || type == OID_BPCHAR;
}

static bool
is_bytea(Oid type, int len)
{
	(void)len;
	return type == OID_BYTEA;
}

static bool
is_octets(Oid type, int len)
{
	return is_text(type, len) || is_bytea(type, len);
}

int64_t
db_row_int64(struct db_row *row)
{
	struct view value = row_next(row, is_int);
	uint64_t number;

	if (value.len == 0)
		return 0;
	number = value.data[0] & 0x80 ? UINT64_MAX : 0;
	for (size_t i = 0; i < value.len; i++)
		number = number << 8 | value.data[i];
	return (int64_t)number;
}

int32_t
db_row_int32(struct db_row *row)
{
	int64_t number = db_row_int64(row);

	if (number < INT32_MIN || number > INT32_MAX) {
		row->column--;
		row_wrong(row, "does not fit 32 bits");
		row->column++;
		return 0;
	}
	return (int32_t)number;
}

double
db_row_double(struct db_row *row)
{
	struct view value = row_next(row, is_double);
	uint64_t bits = 0;
	double number;

	for (size_t i = 0; i < value.len; i++)
		bits = bits << 8 | value.data[i];
	memcpy(&number, &bits, sizeof(number));
	return number;
}

bool
db_row_bool(struct db_row *row)
{
	struct view value = row_next(row, is_bool);

	return value.len == 1 && value.data[0] != 0;
}

void
db_row_text(struct db_row *row, char *out, size_t size)
{
	struct view value = row_next(row, is_text);

	if (value.len >= size) {
		row->column--;
		row_wrong(row, "is longer than its field");
		row->column++;
		value.len = 0;
	}
	if (value.len > 0)
		memcpy(out, value.data, value.len);
	out[value.len] = '\0';
}

char
db_row_char(struct db_row *row)
{
	struct view value = row_next(row, is_text);

	return value.len == 0 ? '\0' : (char)value.data[0];
}

struct view
db_row_view(struct db_row *row)
{
	return row_next(row, is_octets);
}

bool
db_row_octets(struct db_row *row, uint8_t *out, size_t len)
{
	struct view value = row_next(row, is_bytea);

	if (value.data != NULL && value.len != len) {
		row->column--;
		row_wrong(row, "has another length");
		row->column++;
		value.data = NULL;
	}
	if (value.data == NULL) {
		memset(out, 0, len);
		return false;
	}
	memcpy(out, value.data, len);
	return true;
}

bool
db_row_serial(struct db_row *row, struct serial *out)
{
	return db_row_octets(row, out->octets, SERIAL_BYTES);
}

void
db_row_ref(struct db_row *row, struct db_cert_ref *out)
{
	out->issuer_id = db_row_int32(row);
	if (!db_row_serial(row, &out->serial))
		out->issuer_id = 0;
}

void
db_row_bytes(struct db_row *row, struct bytes *out)
{
	struct view value = row_next(row, is_bytea);
	struct err err;

	*out = (struct bytes){ NULL, 0 };
	if (value.data != NULL && bytes_copy(out, value, &err) != OK)
		row_wrong(row, "finds memory short");
}

enum cert_status
db_row_cert_status(struct db_row *row)
{
	enum cert_status status = CERT_UNSET;
	char name[32];

	if (db_row_null(row)) {
		db_row_skip(row);
		return CERT_UNSET;
	}
	db_row_text(row, name, sizeof(name));
	if (!cert_status_parse(&status, name))
		row_wrong(row, "is no status of a certificate");
	return status;
}

enum status
db_row_end(const struct db_row *row, struct err *err)
{
	if (row->wrong != NULL)
		return err_set(err, ERR_INTERNAL, "database_shape", "column %d (%s) %s",
			row->wrong_column + 1, PQfname(row->rows, row->wrong_column), row->wrong);
	if (row->column != PQnfields(row->rows))
		return err_set(err, ERR_INTERNAL, "database_shape", "%d columns read, %d found",
			row->column, PQnfields(row->rows));
	return OK;
}

enum status
db_rows_texts(const PGresult *rows, enum status (*each)(void *arg, const char *text, struct err *err),
	void *arg, struct err *err)
{
	char text[512];

	for (int i = 0; i < db_rows(rows); i++) {
		struct db_row row = db_row(rows, i);

		db_row_text(&row, text, sizeof(text));
		TRY(db_row_end(&row, err));
		TRY(each(arg, text, err));
	}
	return OK;
}

/*
 * Streams
 */

/* One batch; *count says how many rows it had. */
static enum status
fetch(struct db_conn *conn, const struct db_statement *statement, const char *sql, int *count,
	enum status (*each)(void *arg, struct db_row *row, struct err *err), void *arg, struct err *err)
{
	own(PGresult) rows = PQexecParams(conn->pg, sql, 0, NULL, NULL, NULL, NULL, 1);

	if (PQresultStatus(rows) != PGRES_TUPLES_OK)
		return err_libpq(err, conn, rows, statement->name);
	TRY(check_shape(statement, rows, err));
	*count = PQntuples(rows);
	for (int i = 0; i < *count; i++) {
		struct db_row row = db_row(rows, i);

		TRY(each(arg, &row, err));
	}
	return OK;
}

enum status
db_stream(struct db_tx *tx, const struct db_statement *statement, struct db_params params,
	enum status (*each)(void *arg, struct db_row *row, struct err *err), void *arg, struct err *err)
{
	own(PGresult) declared = NULL;
	char sql[128];
	int batch = statement->batch > 0 ? (int)statement->batch : STREAM_ROWS;
	int count = batch;
	enum status status = OK;

	assert(tx->conn != NULL && statement->rows == ROWS_STREAM && !statement->unprepared);
	TRY(begin_now(tx, err));
	TRY(execute(tx->conn, statement, params, &declared, err));
	if (PQresultStatus(declared) != PGRES_COMMAND_OK)
		return err_libpq(err, tx->conn, declared, statement->name);
	(void)snprintf(sql, sizeof(sql), "FETCH %d FROM \"%s\"", batch, statement->name);
	while (status == OK && count == batch)
		status = fetch(tx->conn, statement, sql, &count, each, arg, err);

	/* Closed also when each() had enough, so that the transaction can go on. */
	if (PQtransactionStatus(tx->conn->pg) == PQTRANS_INTRANS) {
		struct err close_err;

		(void)snprintf(sql, sizeof(sql), "CLOSE \"%s\"", statement->name);
		if (db_conn_exec(tx->conn, statement->name, sql, NULL, &close_err) != OK && status == OK) {
			*err = close_err;
			return close_err.status;
		}
	}
	return status;
}

/*
 * COPY
 */

enum status
db_copy_text(struct buf *rows, const char *text, struct err *err)
{
	/* PostgreSQL, COPY, text format: these have a meaning of their own there. */
	static const char SPECIAL[] = "\\\t\n\r";

	while (*text != '\0') {
		size_t plain = strcspn(text, SPECIAL);

		TRY(buf_add(rows, text, plain, err));
		text += plain;
		if (*text == '\0')
			break;
		TRY(buf_text(rows, *text == '\\' ? "\\\\" : *text == '\t' ? "\\t"
			: *text == '\n' ? "\\n" : "\\r", err));
		text++;
	}
	return OK;
}

static enum status
copy_rows(struct db_conn *conn, const struct db_statement *statement,
	enum status (*next)(void *arg, struct buf *rows, struct err *err), void *arg, struct err *err)
{
	own_struct(buf) rows = { .limit_bytes = 4 * COPY_BYTES };

	for (bool more = true; more;) {
		size_t before = rows.len;

		TRY(next(arg, &rows, err));
		more = rows.len > before;
		if (rows.len < COPY_BYTES && more)
			continue;
		if (rows.len > 0 && PQputCopyData(conn->pg, (const char *)rows.data, (int)rows.len) != 1)
			return err_libpq(err, conn, NULL, statement->name);
		rows.len = 0;
	}
	return OK;
}

enum status
db_copy(struct db_tx *tx, const struct db_statement *statement,
	enum status (*next)(void *arg, struct buf *rows, struct err *err), void *arg, int64_t *copied,
	struct err *err)
{
	own(PGresult) begun = NULL;
	own(PGresult) ended = NULL;
	enum status status;

	assert(tx->conn != NULL && statement->rows == ROWS_COPY);
	TRY(begin_now(tx, err));
	TRY(execute(tx->conn, statement, DB_NO_PARAMS, &begun, err));
	if (PQresultStatus(begun) != PGRES_COPY_IN)
		return err_libpq(err, tx->conn, begun, statement->name);
	status = copy_rows(tx->conn, statement, next, arg, err);
	if (PQputCopyEnd(tx->conn->pg, status == OK ? NULL : "given up") != 1 && status == OK)
		status = err_libpq(err, tx->conn, NULL, statement->name);
	ended = PQgetResult(tx->conn->pg);
	/* libpq is ready for the next statement only after a NULL. */
	for (PGresult *rest = NULL; (rest = PQgetResult(tx->conn->pg)) != NULL;)
		PQclear(rest);
	if (status == OK && PQresultStatus(ended) != PGRES_COMMAND_OK)
		status = err_libpq(err, tx->conn, ended, statement->name);
	if (status == OK && copied != NULL)
		*copied = db_affected(ended);
	return status;
}

/* What PostgreSQL puts in front of the first row (COPY, binary format): signature, flags, extension. */
static const uint8_t COPY_SIGNATURE[] = { 'P', 'G', 'C', 'O', 'P', 'Y', '\n', 0xff, '\r', '\n', 0 };

static enum status
put_octets(struct db_tx *tx, const struct db_statement *statement, const void *data, size_t len,
	struct err *err)
{
	if (len > 0 && PQputCopyData(tx->conn->pg, data, (int)len) != 1)
		return err_libpq(err, tx->conn, NULL, statement->name);
	return OK;
}

enum status
db_copy_begin(struct db_tx *tx, const struct db_statement *statement, struct err *err)
{
	static const uint8_t NO_FLAGS_NO_EXTENSION[8] = { 0 };
	own(PGresult) begun = NULL;

	assert(tx->conn != NULL && statement->rows == ROWS_COPY &&
		statement->columns <= DB_COPY_FIELDS_MAX);
	TRY(begin_now(tx, err));
	TRY(execute(tx->conn, statement, DB_NO_PARAMS, &begun, err));
	if (PQresultStatus(begun) != PGRES_COPY_IN)
		return err_libpq(err, tx->conn, begun, statement->name);
	TRY(put_octets(tx, statement, COPY_SIGNATURE, sizeof(COPY_SIGNATURE), err));
	return put_octets(
		tx, statement, NO_FLAGS_NO_EXTENSION, sizeof(NO_FLAGS_NO_EXTENSION), err);
}

static void
add_big_endian(struct buf *row, uint64_t number, size_t octets)
{
	for (size_t i = octets; i-- > 0;)
		row->data[row->len++] = (uint8_t)(number >> (8 * i));
}

/* Fields of up to that go together. */
#define COPY_SHORT_BYTES 32

enum status
db_copy_put(struct db_tx *tx, const struct db_statement *statement, const struct view *fields,
	struct err *err)
{
	uint8_t room[2 + DB_COPY_FIELDS_MAX * (4 + COPY_SHORT_BYTES)];
	struct buf row = { .data = room };

	add_big_endian(&row, statement->columns, 2);
	for (size_t i = 0; i < statement->columns; i++) {
		add_big_endian(&row, fields[i].len, 4);
		if (fields[i].len <= COPY_SHORT_BYTES) {
			memcpy(room + row.len, fields[i].data, fields[i].len);
			row.len += fields[i].len;
			continue;
		}
		TRY(put_octets(tx, statement, room, row.len, err));
		row.len = 0;
		TRY(put_octets(tx, statement, fields[i].data, fields[i].len, err));
	}
	return put_octets(tx, statement, room, row.len, err);
}

enum status
db_copy_end(struct db_tx *tx, const struct db_statement *statement, struct err *err)
{
	static const uint8_t TRAILER[2] = { 0xff, 0xff };
	own(PGresult) ended = NULL;

	TRY(put_octets(tx, statement, TRAILER, sizeof(TRAILER), err));
	if (PQputCopyEnd(tx->conn->pg, NULL) != 1)
		return err_libpq(err, tx->conn, NULL, statement->name);
	ended = PQgetResult(tx->conn->pg);
	/* libpq is ready for the next statement only after a NULL. */
	for (PGresult *rest = NULL; (rest = PQgetResult(tx->conn->pg)) != NULL;)
		PQclear(rest);
	if (PQresultStatus(ended) != PGRES_COMMAND_OK)
		return err_libpq(err, tx->conn, ended, statement->name);
	return OK;
}

static uint32_t
big_endian(const uint8_t *at, size_t octets)
{
	uint32_t number = 0;

	for (size_t i = 0; i < octets; i++)
		number = number << 8 | at[i];
	return number;
}

static bool
skip_header(struct view *data)
{
	uint32_t extension;

	if (data->len < sizeof(COPY_SIGNATURE) + 8 ||
	    memcmp(data->data, COPY_SIGNATURE, sizeof(COPY_SIGNATURE)) != 0)
		return false;
	extension = big_endian(data->data + sizeof(COPY_SIGNATURE) + 4, 4);
	if (extension > data->len - sizeof(COPY_SIGNATURE) - 8)
		return false;
	data->data += sizeof(COPY_SIGNATURE) + 8 + extension;
	data->len -= sizeof(COPY_SIGNATURE) + 8 + extension;
	return true;
}

/* A row with the count of fields in front, or -1 at the end. False: another form. */
static bool
split_row(struct view data, size_t columns, struct view *fields, bool *end)
{
	*end = data.len == 2 && big_endian(data.data, 2) == 0xffff;
	if (*end)
		return true;
	if (data.len < 2 || big_endian(data.data, 2) != columns)
		return false;
	data = (struct view){ data.data + 2, data.len - 2 };
	for (size_t i = 0; i < columns; i++) {
		uint32_t len;

		if (data.len < 4)
			return false;
		len = big_endian(data.data, 4);
		data = (struct view){ data.data + 4, data.len - 4 };
		fields[i] = (struct view){ NULL, 0 };
		if (len == UINT32_MAX)
			continue;
		if (len > data.len)
			return false;
		fields[i] = (struct view){ data.data, len };
		data = (struct view){ data.data + len, data.len - len };
	}
	return data.len == 0;
}

struct copy_out {
	const struct db_statement *statement;
	enum status (*each)(void *arg, const struct view *fields, struct err *err);
	void *arg;
	bool begun;
};

static enum status
take_row(struct copy_out *out, struct view data, struct err *err)
{
	struct view fields[DB_COPY_FIELDS_MAX];
	bool end = false;

	if ((!out->begun && !skip_header(&data)) ||
	    (data.len > 0 && !split_row(data, out->statement->columns, fields, &end)))
		return err_set(err, ERR_INTERNAL, "database_shape", "%s: rows of %u columns wanted",
			out->statement->name, out->statement->columns);
	out->begun = true;
	return data.len == 0 || end ? OK : out->each(out->arg, fields, err);
}

enum status
db_copy_out(struct db_tx *tx, const struct db_statement *statement,
	enum status (*each)(void *arg, const struct view *fields, struct err *err), void *arg,
	struct err *err)
{
	struct copy_out out = { .statement = statement, .each = each, .arg = arg };
	own(PGresult) begun = NULL;
	own(PGresult) ended = NULL;
	enum status status = OK;
	char *data = NULL;
	int len;

	assert(tx->conn != NULL && statement->rows == ROWS_COPY &&
		statement->columns <= DB_COPY_FIELDS_MAX);
	TRY(begin_now(tx, err));
	TRY(execute(tx->conn, statement, DB_NO_PARAMS, &begun, err));
	if (PQresultStatus(begun) != PGRES_COPY_OUT)
		return err_libpq(err, tx->conn, begun, statement->name);
	while ((len = PQgetCopyData(tx->conn->pg, &data, 0)) > 0) {
		if (status == OK)
			status = take_row(&out, (struct view){ (const uint8_t *)data, (size_t)len }, err);
		PQfreemem(data);
	}
	ended = PQgetResult(tx->conn->pg);
	for (PGresult *rest = NULL; (rest = PQgetResult(tx->conn->pg)) != NULL;)
		PQclear(rest);
	if (status == OK && (len != -1 || PQresultStatus(ended) != PGRES_COMMAND_OK))
		status = err_libpq(err, tx->conn, ended, statement->name);
	return status;
}
