/*
 * db/run.h - the one door that statements go through; only files of this room include it.
 *
 * Each entity file has a table of statements at its top and names it in db/tables.c, so that a
 * connection can prepare all of them:
 *
 *	enum { DEVICE_FIND, DEVICE_STATEMENTS };
 *	static const struct db_statement SQL[DEVICE_STATEMENTS] = {
 *		[DEVICE_FIND] = { // device_pkey
 *			.name = "device_find", .params = 1, .columns = 2, .rows = ROWS_MAYBE,
 *			.sql = "SELECT device_id, " SQL_S("created_at")
 *			       " FROM jitrca.device WHERE device_id = $1",
 *		},
 *	};
 *	const struct db_table DB_TABLE_DEVICE = { SQL, COUNT_OF(SQL) };
 *
 *	own(PGresult) rows = NULL;
 *	TRY(db_run(tx, &SQL[DEVICE_FIND], DB_PARAMS(db_text(device_id)), &rows, err));
 *	if (db_rows(rows) == 0)
 *		return err_set(err, ERR_NOT_FOUND, "device_unknown", …);
 *	struct db_row row = db_row(rows, 0);
 *	db_row_text(&row, out->device_id, sizeof(out->device_id));
 *	out->created_at_s = db_row_int64(&row);
 *	return db_row_end(&row, err);
 *
 * search_path is empty: every name in SQL is qualified (jitrca.device). Results are binary, and their
 * columns are of the types bool, int2, int4, int8, float8, text, bytea: times leave as SQL_S or SQL_US,
 * and arrays through unnest.
 *
 * Threads: as for the db_tx that is run on.
 */
#ifndef DB_RUN_H
#define DB_RUN_H

#include <libpq-fe.h>

#include "db/db.h"

OWNER(PGresult, PQclear)

enum db_rows_kind {
	ROWS_UNSET = 0,
	ROWS_NONE,   /* a command: no columns; db_affected counts */
	ROWS_ONE,    /* exactly one, always; else ERR_INTERNAL (database_shape) */
	ROWS_MAYBE,  /* none or one */
	ROWS_ANY,    /* all that there are, in memory: let LIMIT bound them */
	ROWS_STREAM, /* for db_stream: a SELECT, without bound */
	ROWS_COPY,   /* for db_copy: COPY … FROM STDIN; for db_copy_out: COPY (…) TO STDOUT */
};

struct db_statement {
	const char *name; /* unique in the program; [a-z0-9_]+; stands in error texts */
	const char *sql;
	unsigned params;
	unsigned columns;
	enum db_rows_kind rows;
	/* Parsed anew at each run, for it names what is not always there (a temporary table). */
	bool unprepared;
	unsigned batch; /* ROWS_STREAM: rows that are in memory at once; 0: 500 */
	bool trust; /* changes who is to be trusted: see db_pool_trust_epoch */
};

struct db_table {
	const struct db_statement *statements;
	size_t count;
};

/* db/tables.c: the tables of all entity files, in no order that matters. Each file defines its own. */
extern const struct db_table DB_TABLE_POOL, DB_TABLE_PRINCIPAL, DB_TABLE_MANIFEST, DB_TABLE_AUDIT,
	DB_TABLE_CHECKPOINT, DB_TABLE_RETENTION,
	DB_TABLE_ISSUER, DB_TABLE_ADMIT, DB_TABLE_ADMIT_CHARGE, DB_TABLE_ADMIT_PLAIN,
	DB_TABLE_RECORD, DB_TABLE_RECORD_PLAIN, DB_TABLE_REAP,
	DB_TABLE_MONTH, DB_TABLE_CERTIFICATE, DB_TABLE_IDENTITY, DB_TABLE_REVOCATION, DB_TABLE_RECEIPT,
	DB_TABLE_BLOCKED_KEY, DB_TABLE_CRL,
	DB_TABLE_OCSP, DB_TABLE_REPORT,
	DB_TABLE_DEVICE, DB_TABLE_OUTBOX, DB_TABLE_IOT, DB_TABLE_IOT_PENDING, DB_TABLE_IOT_MISSING,
	DB_TABLE_EVENT, DB_TABLE_NOTIFICATION, DB_TABLE_CAMPAIGN, DB_TABLE_PLAN, DB_TABLE_CLAIM_CODE,
	DB_TABLE_SUCCESSION, DB_TABLE_DOCTOR,
	DB_TABLE_IOTCORE_BROKER, DB_TABLE_IOTCORE_ACCOUNT,
	DB_TABLE_IOTCORE_CA, DB_TABLE_IOTCORE_CERTIFICATE, DB_TABLE_IOTCORE_POLICY,
	DB_TABLE_IOTCORE_THING, DB_TABLE_IOTCORE_GROUP, DB_TABLE_IOTCORE_TAG,
	DB_TABLE_IOTCORE_SECURITY_PROFILE, DB_TABLE_IOTCORE_RULE, DB_TABLE_IOTCORE_EVENT;
extern const struct db_table *const DB_TABLES[];
extern const size_t DB_TABLE_COUNT;

/* Times in SQL: seconds (rounded down) and microseconds since the epoch, out of timestamptz and into
 * it. NULL stays NULL. */
#define SQL_S(timestamp) "floor(extract(epoch FROM " timestamp "))::bigint"
#define SQL_US(timestamp) "(extract(epoch FROM " timestamp ") * 1000000)::bigint"
#define SQL_AT_S(bigint) "to_timestamp((" bigint ")::bigint)"
/* In two parts: an interval is multiplied as a double, which would round dates after 2255. */
#define SQL_AT_US(bigint)                                                                          \
	"(to_timestamp((" bigint ")::bigint / 1000000)"                                            \
	" + (" bigint ")::bigint % 1000000 * interval '1 microsecond')"

/*
 * Parameters. Numbers hold their own text; texts and octets are borrowed until db_run returns. Numbers
 * go as text, so that $1 may be of any number type; octets go in binary, so $1 must be bytea.
 */
struct db_param {
	const void *data; /* NULL: inline_text, unless null is set */
	size_t len;
	bool null;
	bool binary;
	char inline_text[32];
};

struct db_param db_text(const char *text);       /* NULL becomes SQL NULL */
struct db_param db_text_view(struct view text);  /* {NULL, …} becomes NULL; NUL inside is refused by SQL */
struct db_param db_bytes(struct view octets);    /* {NULL, …} becomes NULL */
struct db_param db_octets(const uint8_t *octets, size_t len); /* NULL becomes NULL */
struct db_param db_serial(const struct serial *serial);       /* bytea; NULL becomes NULL */
struct db_param db_int64(int64_t number);        /* int2, int4, int8, float8 */
struct db_param db_int64_or_null(int64_t number); /* 0 becomes NULL */
struct db_param db_double(double number);
struct db_param db_bool(bool flag);
struct db_param db_null(void);

/* An array parameter, for unnest($1::text[], …): filled item by item, copied, any content. */
enum db_array_type {
	ARRAY_UNSET = 0,
	ARRAY_TEXT,  /* text[] */
	ARRAY_BYTEA, /* bytea[] */
	ARRAY_INT8,  /* bigint[] */
	ARRAY_INT4,  /* int[] */
	ARRAY_BOOL,  /* bool[] */
};
struct db_array {
	enum db_array_type type;
	size_t count;
	bool has_null;
	struct buf items; /* as in PostgreSQL's array_send, behind room for the header */
};
void db_array_free(struct db_array *array);
OWNER_STRUCT(db_array, db_array_free)

#define DB_ARRAY(array_type)                                                                       \
	{                                                                                          \
		.type = (array_type), .items = { .limit_bytes = (size_t)256 * 1024 * 1024 }        \
	}

/* Each is for arrays of its type only (asserted). ERR_TOO_LARGE past 256 MiB. */
MUST_USE enum status db_array_add_text(struct db_array *array, const char *text, struct err *err);
MUST_USE enum status db_array_add_bytes(struct db_array *array, struct view octets, struct err *err);
MUST_USE enum status db_array_add_serial(struct db_array *array, const struct serial *serial,
	struct err *err);
MUST_USE enum status db_array_add_int(struct db_array *array, int64_t number, struct err *err);
MUST_USE enum status db_array_add_bool(struct db_array *array, bool flag, struct err *err);
MUST_USE enum status db_array_add_null(struct db_array *array, struct err *err); /* of any type */
/* Empties it for another round; keeps its memory. */
void db_array_clear(struct db_array *array);
/* As a parameter; borrows array until db_run returns. Completes the header, hence not const. */
struct db_param db_array(struct db_array *array);

struct db_params {
	const struct db_param *at;
	size_t count;
};
#define DB_PARAMS(...)                                                                             \
	((struct db_params){ (const struct db_param[]){ __VA_ARGS__ },                             \
		sizeof((const struct db_param[]){ __VA_ARGS__ }) / sizeof(struct db_param) })
#define DB_NO_PARAMS ((struct db_params){ NULL, 0 })

/*
 * Runs a statement (prepared at its first use on a connection) and checks rows and columns against
 * its entry. On OK the caller owns *out until PQclear; out may be NULL when nothing is to be read.
 * After a failure the transaction is aborted and can only end.
 *
 *   23505               ERR_CONFLICT     database_conflict: a unique constraint, named in the text
 *   23503               ERR_CONFLICT     database_reference: a foreign key, named in the text
 *   22021               ERR_ARGUMENT     text_malformed: not UTF-8, or NUL inside
 *   40001, 40P01        ERR_UNAVAILABLE  database_retry: repeat the transaction
 *   08*, 57P*, 25006 …  ERR_UNAVAILABLE  database_away: the connection will not be used again
 *   55P03, 57014, 53*   ERR_UNAVAILABLE  database_busy: a timeout, or out of room
 *   anything else       ERR_INTERNAL     database_error, also 23514: our guards in SQL
 *
 * Error texts hold the statement's name, SQLSTATE and constraint; never a value.
 */
MUST_USE enum status db_run(struct db_tx *tx, const struct db_statement *statement,
	struct db_params params, PGresult **out, struct err *err);

/*
 * Several statements in one round trip, in their order; none may be a stream or COPY, and their answers
 * are small (they wait in the link until all is sent). Nothing can be decided between them: the first that
 * fails ends the transaction, with its error. On OK the caller owns each step's rows.
 */
struct db_step {
	const struct db_statement *statement;
	struct db_params params;
	PGresult *rows; /* out */
};
MUST_USE enum status db_run_all(struct db_tx *tx, struct db_step *steps, size_t count, struct err *err);

int db_rows(const PGresult *rows);         /* how many rows */
int64_t db_affected(PGresult *rows);       /* rows that a command inserted, changed or deleted */

/*
 * Reads one row from left to right. A column of another type, a text that does not fit or octets of
 * another length are remembered; what is read then is zero, and db_row_end says ERR_INTERNAL
 * (database_shape). NULL reads as 0, false, "", {NULL, 0}.
 */
struct db_row {
	const PGresult *rows;
	int row;
	int column;       /* the next one */
	const char *wrong; /* what was wrong first */
	int wrong_column;
};
struct db_row db_row(const PGresult *rows, int row);
bool db_row_null(const struct db_row *row); /* whether the next column is NULL; does not move on */
void db_row_skip(struct db_row *row);
int64_t db_row_int64(struct db_row *row); /* int2, int4, int8 */
int32_t db_row_int32(struct db_row *row); /* the same, in range */
double db_row_double(struct db_row *row);
bool db_row_bool(struct db_row *row);
/* Copies with NUL; size counts it. A text with NUL inside cannot be in the database. */
void db_row_text(struct db_row *row, char *out, size_t size);
/* The first character, 0 when empty. */
char db_row_char(struct db_row *row);
/* text or bytea, borrowed until the result is cleared. */
struct view db_row_view(struct db_row *row);
/* Exactly len octets. False: NULL, and out is zero. */
bool db_row_octets(struct db_row *row, uint8_t *out, size_t len);
bool db_row_serial(struct db_row *row, struct serial *out);
/* Two columns, issuer_id and serial. NULL: issuer_id is 0. */
void db_row_ref(struct db_row *row, struct db_cert_ref *out);
/* A copy that the caller frees, also when db_row_end fails. Sets wrong when memory is short. */
void db_row_bytes(struct db_row *row, struct bytes *out);
/* By its name; text. */
enum cert_status db_row_cert_status(struct db_row *row);
/* ERR_INTERNAL database_shape; also when columns are left. */
MUST_USE enum status db_row_end(const struct db_row *row, struct err *err);
/* The one text of each row, of less than 512 octets. A status from each() ends it and is returned. */
MUST_USE enum status db_rows_texts(const PGresult *rows,
	enum status (*each)(void *arg, const char *text, struct err *err), void *arg,
	struct err *err);

/*
 * Streams the rows of a ROWS_STREAM statement through a cursor, a batch at a time, in one snapshot. each()
 * reads its row with db_row_*, ending with db_row_end, and may run other statements on the same tx (not the
 * same stream). A status from each() ends the stream and is returned; the transaction lives on.
 */
MUST_USE enum status db_stream(struct db_tx *tx, const struct db_statement *statement,
	struct db_params params,
	enum status (*each)(void *arg, struct db_row *row, struct err *err), void *arg, struct err *err);

/*
 * COPY … FROM STDIN in text format. next() appends whole rows to rows (db_copy_text for each field, then
 * '\t' or '\n'), or nothing at the end. A status from next() ends it, and the transaction is aborted.
 * Memory: 64 KiB and what next() adds in one call.
 */
MUST_USE enum status db_copy(struct db_tx *tx, const struct db_statement *statement,
	enum status (*next)(void *arg, struct buf *rows, struct err *err), void *arg, int64_t *copied,
	struct err *err);
/*
 * COPY (…) TO STDOUT (FORMAT binary), for what has a million rows: half of what a stream costs both sides,
 * and the server reads on while we work. each() gets the fields as they are sent ({NULL, 0}: NULL), borrowed
 * for the call; numbers are big-endian, times microseconds since 2000. It must not use tx. A status from
 * each() is returned once the rest was read and thrown away; the transaction lives on. COPY takes no
 * parameters: they are settings of the transaction (set_config), read in a sub-select each.
 */
#define DB_COPY_FIELDS_MAX 8
MUST_USE enum status db_copy_out(struct db_tx *tx, const struct db_statement *statement,
	enum status (*each)(void *arg, const struct view *fields, struct err *err), void *arg,
	struct err *err);
/*
 * COPY … FROM STDIN (FORMAT binary), row by row while something else goes on: begin, put …, end. put's
 * fields, as many as the statement's columns, are in PostgreSQL's binary format; it waits only for the link.
 * The transaction takes nothing else until end; without end the connection goes with it.
 */
MUST_USE enum status db_copy_begin(struct db_tx *tx, const struct db_statement *statement,
	struct err *err);
MUST_USE enum status db_copy_put(struct db_tx *tx, const struct db_statement *statement,
	const struct view *fields, struct err *err);
MUST_USE enum status db_copy_end(struct db_tx *tx, const struct db_statement *statement,
	struct err *err);
/* One field, escaped. */
MUST_USE enum status db_copy_text(struct buf *rows, const char *text, struct err *err);

#endif
