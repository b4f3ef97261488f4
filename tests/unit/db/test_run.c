#include "tests/unit/db/db_test.h"

#include "base/mem.h"
#include "db/run.h"

/* Texts that quoting, escaping or counting could get wrong. */
static const char *const TEXTS[] = { "", "plain", "'; DROP TABLE x; --", "\\", "\\N", "{a,\"b\"}", "NULL",
	"tab\tline\nreturn\r", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x94\x91", "$1 %s \"quoted\"" };

#define STATEMENT(text, param_count, column_count, kind)                                           \
	{                                                                                          \
		.name = "test", .sql = text, .params = param_count, .columns = column_count,       \
		.rows = kind, .unprepared = true                                                   \
	}

static void
any_text_comes_back_as_it_went(void **state)
{
	static const struct db_statement ECHO = STATEMENT("SELECT $1::text, $2::text, length($1::text)",
		2, 3, ROWS_ONE);
	struct db_tx *tx = *state;

	for (size_t i = 0; i < COUNT_OF(TEXTS); i++) {
		own(PGresult) rows = NULL;
		char out[64];

		assert_ok(db_run(tx, &ECHO, DB_PARAMS(db_text(TEXTS[i]), db_text_view(view_text(TEXTS[i]))),
			&rows, err));
		struct db_row row = db_row(rows, 0);
		db_row_text(&row, out, sizeof(out));
		assert_string_equal(out, TEXTS[i]);
		assert_true(view_equal_text(db_row_view(&row), TEXTS[i]));
		db_row_skip(&row);
		assert_ok(db_row_end(&row, err));
	}
}

static void
numbers_octets_and_null_come_back(void **state)
{
	static const struct db_statement ECHO = STATEMENT("SELECT $1::int8, $2::int4, $3::int2, $4::float8,"
		" $5::bool, $6::bytea, $7::text, $8::int8, $9::bytea, $10::bytea", 10, 10, ROWS_ONE);
	struct db_tx *tx = *state;
	own(PGresult) rows = NULL;
	static const uint8_t OCTETS[] = { 0, 1, 0xff, '\\', 'x', 0 };
	struct serial serial = { { 0x7f, 1, 2 } };
	struct serial serial_back;
	uint8_t back[sizeof(OCTETS)];

	assert_ok(db_run(tx, &ECHO, DB_PARAMS(db_int64(INT64_MIN), db_int64(-5), db_int64(300),
		db_double(0.1), db_bool(true), db_octets(OCTETS, sizeof(OCTETS)), db_text(NULL),
		db_int64_or_null(0), db_serial(&serial), db_serial(NULL)), &rows, err));
	struct db_row row = db_row(rows, 0);
	assert_true(db_row_int64(&row) == INT64_MIN);
	assert_int_equal(db_row_int64(&row), -5);
	assert_int_equal(db_row_int32(&row), 300);
	assert_true(db_row_double(&row) == 0.1);
	assert_true(db_row_bool(&row));
	assert_true(db_row_octets(&row, back, sizeof(back)));
	assert_memory_equal(back, OCTETS, sizeof(OCTETS));
	assert_true(db_row_null(&row));
	assert_null(db_row_view(&row).data);
	assert_true(db_row_null(&row));
	assert_int_equal(db_row_int64(&row), 0);
	assert_true(db_row_serial(&row, &serial_back));
	assert_true(serial_equal(&serial, &serial_back));
	assert_false(db_row_serial(&row, &serial_back));
	assert_int_equal(serial_back.octets[0], 0);
	assert_ok(db_row_end(&row, err));
}

static void
arrays_carry_any_content(void **state)
{
	static const struct db_statement UNNEST = STATEMENT("SELECT t, b, l, i, f FROM unnest($1::text[],"
		" $2::bytea[], $3::int8[], $4::int4[], $5::bool[]) WITH ORDINALITY AS a(t, b, l, i, f, n)"
		" ORDER BY n", 5, 5, ROWS_ANY);
	struct db_tx *tx = *state;
	own_struct(db_array) texts = DB_ARRAY(ARRAY_TEXT);
	own_struct(db_array) octets = DB_ARRAY(ARRAY_BYTEA);
	own_struct(db_array) longs = DB_ARRAY(ARRAY_INT8);
	own_struct(db_array) ints = DB_ARRAY(ARRAY_INT4);
	own_struct(db_array) flags = DB_ARRAY(ARRAY_BOOL);
	own(PGresult) rows = NULL;

	/* Empty, then full, so that clearing is seen too. */
	for (int round = 0; round < 2; round++) {
		size_t count = round == 0 ? 0 : COUNT_OF(TEXTS);

		PQclear(give(rows));
		for (size_t i = 0; i < count; i++) {
			assert_ok(db_array_add_text(&texts, TEXTS[i], err));
			assert_ok(db_array_add_bytes(&octets, view_text(TEXTS[i]), err));
			assert_ok(db_array_add_int(&longs, INT64_MIN + (int64_t)i, err));
			assert_ok(db_array_add_int(&ints, -(int64_t)i, err));
			assert_ok(db_array_add_bool(&flags, i % 2 == 1, err));
		}
		assert_ok(db_run(tx, &UNNEST, DB_PARAMS(db_array(&texts), db_array(&octets), db_array(&longs),
			db_array(&ints), db_array(&flags)), &rows, err));
		assert_int_equal(db_rows(rows), count);
	}
	for (int i = 0; i < db_rows(rows); i++) {
		struct db_row row = db_row(rows, i);

		assert_true(view_equal_text(db_row_view(&row), TEXTS[i]));
		assert_true(view_equal_text(db_row_view(&row), TEXTS[i]));
		assert_true(db_row_int64(&row) == INT64_MIN + i);
		assert_int_equal(db_row_int32(&row), -i);
		assert_int_equal(db_row_bool(&row), i % 2 == 1);
		assert_ok(db_row_end(&row, err));
	}

	/* NULL, in an array that was used before. */
	PQclear(give(rows));
	db_array_clear(&texts);
	db_array_clear(&octets);
	db_array_clear(&longs);
	db_array_clear(&ints);
	db_array_clear(&flags);
	assert_ok(db_array_add_text(&texts, NULL, err));
	assert_ok(db_array_add_serial(&octets, &(struct serial){ { 5 } }, err));
	assert_ok(db_array_add_null(&longs, err));
	assert_ok(db_array_add_null(&ints, err));
	assert_ok(db_array_add_null(&flags, err));
	assert_ok(db_run(tx, &UNNEST, DB_PARAMS(db_array(&texts), db_array(&octets), db_array(&longs),
		db_array(&ints), db_array(&flags)), &rows, err));
	struct db_row row = db_row(rows, 0);
	assert_true(db_row_null(&row));
	db_row_skip(&row);
	assert_int_equal(db_row_view(&row).len, SERIAL_BYTES);
	assert_true(db_row_null(&row));
}

static void
an_array_has_a_limit(void **state)
{
	struct db_array small = { .type = ARRAY_BYTEA, .items = { .limit_bytes = 64 } };
	uint8_t octets[64] = { 0 };

	(void)state;
	assert_refused(db_array_add_bytes(&small, (struct view){ octets, sizeof(octets) }, err),
		ERR_TOO_LARGE, "buffer_limit");
	db_array_free(&small);
}

static void
times_pass_to_the_second_and_the_microsecond(void **state)
{
	static const struct db_statement TIMES = STATEMENT("SELECT " SQL_S("t") ", " SQL_US("t")
		", " SQL_US("u") ", " SQL_S(SQL_AT_S("$3")) " FROM (SELECT " SQL_AT_S("$1") " AS t, "
		SQL_AT_US("$2") " AS u) x", 3, 4, ROWS_ONE);
	static const int64_t SECONDS[] = { 0, -1, 1795536842, 253402300799, -62135596800 };
	struct db_tx *tx = *state;

	for (size_t i = 0; i < COUNT_OF(SECONDS); i++) {
		own(PGresult) rows = NULL;
		int64_t us = SECONDS[i] * 1000000 + 1;

		assert_ok(db_run(tx, &TIMES, DB_PARAMS(db_int64(SECONDS[i]), db_int64(us), db_null()), &rows,
			err));
		struct db_row row = db_row(rows, 0);
		assert_true(db_row_int64(&row) == SECONDS[i]);
		assert_true(db_row_int64(&row) == SECONDS[i] * 1000000);
		assert_true(db_row_int64(&row) == us);
		assert_true(db_row_null(&row));
	}
}

static void
a_row_of_another_shape_is_our_fault(void **state)
{
	static const struct db_statement ROW = STATEMENT("SELECT 'abc'::text, 7::int8, '\\x0102'::bytea, 1.5",
		0, 4, ROWS_ONE);
	struct db_tx *tx = *state;
	own(PGresult) rows = NULL;
	char text[3] = "zz";
	uint8_t octets[3];
	struct bytes bytes;

	assert_ok(db_run(tx, &ROW, DB_NO_PARAMS, &rows, err));
	struct db_row row = db_row(rows, 0); /* a text that does not fit */
	db_row_text(&row, text, sizeof(text));
	assert_string_equal(text, "");
	(void)db_row_int64(&row);
	assert_false(db_row_octets(&row, octets, sizeof(octets)));
	assert_refused(db_row_end(&row, err), ERR_INTERNAL, "database_shape");
	assert_int_equal(row.wrong_column, 0);

	row = db_row(rows, 0); /* other types */
	assert_int_equal(db_row_int64(&row), 0);
	assert_refused(db_row_end(&row, err), ERR_INTERNAL, "database_shape");
	row = db_row(rows, 0);
	assert_false(db_row_bool(&row));
	assert_true(db_row_double(&row) == 0);
	assert_int_equal(row.wrong_column, 0);
	row = db_row(rows, 0);
	db_row_skip(&row);
	assert_int_equal(db_row_char(&row), 0);
	assert_int_equal(row.wrong_column, 1);

	row = db_row(rows, 0); /* another length */
	assert_int_equal(db_row_char(&row), 'a');
	db_row_skip(&row);
	assert_false(db_row_octets(&row, octets, sizeof(octets)));
	assert_refused(db_row_end(&row, err), ERR_INTERNAL, "database_shape");
	assert_int_equal(row.wrong_column, 2);

	row = db_row(rows, 0); /* columns left, columns missing */
	db_row_skip(&row);
	assert_refused(db_row_end(&row, err), ERR_INTERNAL, "database_shape");
	row.column = 4;
	assert_int_equal(db_row_int64(&row), 0);
	assert_refused(db_row_end(&row, err), ERR_INTERNAL, "database_shape");
	row = db_row(rows, 1);
	assert_true(db_row_null(&row));
	assert_int_equal(db_row_int64(&row), 0);
	assert_non_null(row.wrong);

	row = db_row(rows, 0); /* memory short */
	row.column = 2;
	mem_fail_at(0);
	db_row_bytes(&row, &bytes);
	mem_fail_at(-1);
	assert_null(bytes.data);
	assert_non_null(row.wrong);
	row = db_row(rows, 0);
	row.column = 2;
	db_row_bytes(&row, &bytes);
	assert_int_equal(bytes.len, 2);
	bytes_free(&bytes);
}

static void
what_32_bits_cannot_hold_is_refused(void **state)
{
	static const struct db_statement ROW = STATEMENT("SELECT 2147483648::int8", 0, 1, ROWS_ONE);
	struct db_tx *tx = *state;
	own(PGresult) rows = NULL;

	assert_ok(db_run(tx, &ROW, DB_NO_PARAMS, &rows, err));
	struct db_row row = db_row(rows, 0);
	assert_int_equal(db_row_int32(&row), 0);
	assert_refused(db_row_end(&row, err), ERR_INTERNAL, "database_shape");
}

static void
a_status_is_read_by_its_name(void **state)
{
	static const struct db_statement ROW = STATEMENT("SELECT 'held'::text, NULL::text,"
		" 'lost'::text, 3, NULL::bytea", 0, 5, ROWS_ONE);
	struct db_tx *tx = *state;
	own(PGresult) rows = NULL;
	struct db_cert_ref ref;

	assert_ok(db_run(tx, &ROW, DB_NO_PARAMS, &rows, err));
	struct db_row row = db_row(rows, 0);
	assert_int_equal(db_row_cert_status(&row), CERT_HELD);
	assert_int_equal(db_row_cert_status(&row), CERT_UNSET);
	assert_null(row.wrong);
	assert_int_equal(db_row_cert_status(&row), CERT_UNSET);
	assert_non_null(row.wrong);
	db_row_ref(&row, &ref);
	assert_int_equal(ref.issuer_id, 0);
}

static void
a_result_of_another_shape_is_our_fault(void **state)
{
	static const struct db_statement CASES[] = {
		STATEMENT("SELECT 1, 2", 0, 1, ROWS_ONE),
		STATEMENT("SELECT 1 WHERE false", 0, 1, ROWS_ONE),
		STATEMENT("SELECT generate_series(1, 2)", 0, 1, ROWS_ONE),
		STATEMENT("SELECT generate_series(1, 2)", 0, 1, ROWS_MAYBE),
		STATEMENT("SELECT 1", 1, 1, ROWS_ONE), /* without its parameter */
		{ .name = "test_unlisted", .sql = "SELECT 1", .columns = 1, .rows = ROWS_ONE },
	};
	struct db_tx *tx = *state;

	for (size_t i = 0; i < COUNT_OF(CASES); i++)
		assert_refused(db_run(tx, &CASES[i], DB_NO_PARAMS, NULL, err), ERR_INTERNAL,
			"database_shape");
}

static void
a_sqlstate_decides_what_a_failure_means(void **state)
{
	static const struct {
		const char *sqlstate;
		enum status want_status;
		const char *want_code;
		bool want_broken;
	} CASES[] = {
		{ "23505", ERR_CONFLICT, "database_conflict", false },
		{ "23503", ERR_CONFLICT, "database_reference", false },
		{ "23514", ERR_INTERNAL, "database_error", false },
		{ "22021", ERR_ARGUMENT, "text_malformed", false },
		{ "40001", ERR_UNAVAILABLE, "database_retry", false },
		{ "40P01", ERR_UNAVAILABLE, "database_retry", false },
		{ "40003", ERR_UNAVAILABLE, "database_away", true },
		{ "08006", ERR_UNAVAILABLE, "database_away", true },
		{ "57P01", ERR_UNAVAILABLE, "database_away", true },
		{ "57014", ERR_UNAVAILABLE, "database_busy", false },
		{ "25006", ERR_UNAVAILABLE, "database_away", true },
		{ "25P02", ERR_INTERNAL, "database_error", false },
		{ "53300", ERR_UNAVAILABLE, "database_busy", false },
		{ "55P03", ERR_UNAVAILABLE, "database_busy", false },
		{ "0A000", ERR_INTERNAL, "database_error", true },
		{ "XX000", ERR_INTERNAL, "database_error", false },
	};
	struct db_tx *tx = *state;

	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		char text[256];
		struct db_statement statement = STATEMENT(text, 0, 0, ROWS_NONE);
		struct err err;

		(void)snprintf(text, sizeof(text), "DO $$ BEGIN RAISE EXCEPTION 'a value: 4711' USING"
			" ERRCODE = '%s', DETAIL = 'Key (4711)', HINT = '4711', CONSTRAINT = 'some_pkey';"
			" END $$", CASES[i].sqlstate);
		sql(tx, "SAVEPOINT here");
		tx->conn->broken = false;
		assert_int_equal(db_run(tx, &statement, DB_NO_PARAMS, NULL, &err), CASES[i].want_status);
		assert_string_equal(err.code, CASES[i].want_code);
		assert_int_equal(tx->conn->broken, CASES[i].want_broken);
		assert_non_null(strstr(err.text, CASES[i].sqlstate));
		assert_non_null(strstr(err.text, "some_pkey"));
		assert_null(strstr(err.text, "4711"));
		sql(tx, "ROLLBACK TO SAVEPOINT here");
	}
	tx->conn->broken = false;
}

static void
text_that_is_none_is_the_callers_fault(void **state)
{
	static const struct db_statement ECHO = STATEMENT("SELECT $1::text", 1, 1, ROWS_ONE);
	static const struct view CASES[] = { { (const uint8_t *)"a\0b", 3 }, { (const uint8_t *)"\xff", 1 },
		{ (const uint8_t *)"\xed\xa0\x80", 3 } };
	struct db_tx *tx = *state;

	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		sql(tx, "SAVEPOINT here");
		assert_refused(db_run(tx, &ECHO, DB_PARAMS(db_text_view(CASES[i])), NULL, err), ERR_ARGUMENT,
			"text_malformed");
		sql(tx, "ROLLBACK TO SAVEPOINT here");
	}
}

static void
names_outside_our_schema_are_not_looked_up(void **state)
{
	struct db_tx *tx = *state;

	sql(tx, "CREATE TABLE public.shadow (x int)");
	sql_refused(tx, "SELECT * FROM shadow", "42P01");
}

struct feed {
	size_t at, count;
	bool fail;
};

static enum status
feed_texts(void *arg, struct buf *rows, struct err *err)
{
	struct feed *feed = arg;

	if (feed->at == feed->count)
		return feed->fail ? err_set(err, ERR_ARGUMENT, "fed_up", "no more") : OK;
	TRY(db_copy_text(rows, TEXTS[feed->at++ % COUNT_OF(TEXTS)], err));
	return buf_add(rows, "\n", 1, err);
}

static void
copy_carries_any_text(void **state)
{
	static const struct db_statement COPY = STATEMENT("COPY pg_temp.copied FROM STDIN", 0, 1, ROWS_COPY);
	static const struct db_statement READ = STATEMENT("SELECT t, count(*) FROM pg_temp.copied GROUP BY t"
		" ORDER BY min(n)", 0, 2, ROWS_ANY);
	struct db_tx *tx = *state;
	struct feed feed = { .count = COUNT_OF(TEXTS) * 3000 };
	own(PGresult) rows = NULL;
	int64_t copied;

	sql(tx, "CREATE TEMPORARY TABLE copied (t text, n serial)");
	sql(tx, "ALTER TABLE pg_temp.copied ALTER n SET DEFAULT nextval('pg_temp.copied_n_seq')");
	assert_ok(db_copy(tx, &(struct db_statement)STATEMENT("COPY pg_temp.copied (t) FROM STDIN", 0, 1,
		ROWS_COPY), feed_texts, &feed, &copied, err));
	assert_int_equal(copied, feed.count);
	assert_ok(db_run(tx, &READ, DB_NO_PARAMS, &rows, err));
	assert_int_equal(db_rows(rows), COUNT_OF(TEXTS));
	for (int i = 0; i < db_rows(rows); i++) {
		struct db_row row = db_row(rows, i);

		assert_true(view_equal_text(db_row_view(&row), TEXTS[i]));
		assert_int_equal(db_row_int64(&row), 3000);
	}

	/* Each end of its own: a row that is refused, a feeder that gives up, a table that is not there. */
	sql(tx, "SAVEPOINT here");
	feed.at = 0;
	assert_refused(db_copy(tx, &COPY, feed_texts, &feed, NULL, err), ERR_INTERNAL, "database_error");
	sql(tx, "ROLLBACK TO SAVEPOINT here");
	feed = (struct feed){ .count = 10, .fail = true };
	assert_refused(db_copy(tx, &(struct db_statement)STATEMENT("COPY pg_temp.copied (t) FROM STDIN", 0, 1,
		ROWS_COPY), feed_texts, &feed, &copied, err), ERR_ARGUMENT, "fed_up");
	sql(tx, "ROLLBACK TO SAVEPOINT here");
	assert_int_equal(sql_number(tx, "SELECT count(*) FROM pg_temp.copied"), COUNT_OF(TEXTS) * 3000);
	assert_refused(db_copy(tx, &(struct db_statement)STATEMENT("COPY pg_temp.nowhere FROM STDIN", 0, 1,
		ROWS_COPY), feed_texts, &feed, &copied, err), ERR_INTERNAL, "database_error");
}

struct taken {
	int64_t rows, sum, nulls;
	int64_t stop_at;
};

static enum status
take_fields(void *arg, const struct view *fields, struct err *err)
{
	struct taken *taken = arg;

	assert_int_equal(fields[0].len, 4);
	taken->sum += fields[0].data[2] << 8 | fields[0].data[3];
	taken->nulls += fields[1].data == NULL;
	assert_true(fields[1].data == NULL || view_equal_text(fields[1], "text"));
	return ++taken->rows == taken->stop_at ? err_set(err, ERR_ARGUMENT, "enough", "enough") : OK;
}

static void
copy_out_gives_each_row_and_can_be_left(void **state)
{
	static const char ROWS[] = "COPY (SELECT n, CASE WHEN n % 2 = 0 THEN 'text' END FROM"
		" generate_series(1, 20000) n) TO STDOUT (FORMAT binary)";
	static const struct db_statement COPY = STATEMENT(ROWS, 0, 2, ROWS_COPY);
	static const struct db_statement NARROW = STATEMENT(ROWS, 0, 3, ROWS_COPY);
	static const struct db_statement EMPTY = STATEMENT("COPY (SELECT 1, 'x' WHERE false) TO STDOUT"
		" (FORMAT binary)", 0, 2, ROWS_COPY);
	static const struct db_statement BREAKS = STATEMENT("COPY (SELECT 1 / (500 - n), 'text' FROM"
		" generate_series(1, 1000) n) TO STDOUT (FORMAT binary)", 0, 2, ROWS_COPY);
	struct db_tx *tx = *state;
	struct taken taken = { .rows = 0 };

	assert_ok(db_copy_out(tx, &COPY, take_fields, &taken, err));
	assert_int_equal(taken.rows, 20000);
	assert_int_equal(taken.nulls, 10000);
	assert_int_equal(taken.sum, 20000 * 20001 / 2);
	taken = (struct taken){ .stop_at = 700 };
	assert_refused(db_copy_out(tx, &COPY, take_fields, &taken, err), ERR_ARGUMENT, "enough");
	assert_int_equal(taken.rows, 700);
	assert_refused(db_copy_out(tx, &NARROW, take_fields, &taken, err), ERR_INTERNAL, "database_shape");
	assert_int_equal(taken.rows, 700);
	assert_ok(db_copy_out(tx, &EMPTY, take_fields, &taken, err));
	assert_int_equal(taken.rows, 700);
	/* The transaction has lived on until here. */
	assert_int_equal(sql_number(tx, "SELECT 7"), 7);
	assert_refused(db_copy_out(tx, &BREAKS, take_fields, &taken, err), ERR_INTERNAL, "database_error");
}

static void
all_statements_fit_the_schema_and_have_names_of_their_own(void **state)
{
	(void)state;
	assert_ok(db_pool_check(POOL, err));
	for (size_t i = 0; i < DB_TABLE_COUNT; i++)
		for (size_t j = 0; j < DB_TABLES[i]->count; j++) {
			const struct db_statement *one = &DB_TABLES[i]->statements[j];
			size_t same = 0;

			assert_non_null(one->name);
			assert_int_not_equal(one->rows, ROWS_UNSET);
			assert_true(strlen(one->name) < 60);
			for (size_t k = 0; k < DB_TABLE_COUNT; k++)
				for (size_t l = 0; l < DB_TABLES[k]->count; l++)
					same += strcmp(one->name, DB_TABLES[k]->statements[l].name) == 0;
			if (same != 1)
				fail_msg("two statements are called %s", one->name);
		}
}

static void
several_go_in_one_round_trip_and_the_first_failure_is_told(void **state)
{
	static const struct db_statement MAKE = STATEMENT("CREATE TEMP TABLE steps (n int PRIMARY KEY)", 0, 0,
		ROWS_NONE);
	static const struct db_statement ADD = STATEMENT("INSERT INTO pg_temp.steps VALUES ($1::int)", 1, 0,
		ROWS_NONE);
	static const struct db_statement SUM = STATEMENT("SELECT sum(n) FROM pg_temp.steps", 0, 1, ROWS_ONE);
	struct db_tx tx = { NULL, NULL };
	struct db_step steps[] = { { &MAKE, DB_NO_PARAMS, NULL }, { &ADD, DB_PARAMS(db_int64(2)), NULL },
		{ &ADD, DB_PARAMS(db_int64(3)), NULL }, { &SUM, DB_NO_PARAMS, NULL } };
	struct db_step twice[] = { { &ADD, DB_PARAMS(db_int64(4)), NULL },
		{ &ADD, DB_PARAMS(db_int64(3)), NULL }, { &SUM, DB_NO_PARAMS, NULL } };

	(void)state;
	assert_ok(db_tx_begin(&tx, POOL, err));
	assert_true(db_tx_is_fresh(&tx));
	assert_ok(db_run_all(&tx, steps, COUNT_OF(steps), err));
	assert_false(db_tx_is_fresh(&tx));
	struct db_row row = db_row(steps[3].rows, 0);
	assert_int_equal(db_row_int64(&row), 5);
	for (size_t i = 0; i < COUNT_OF(steps); i++)
		PQclear(steps[i].rows);

	assert_refused(db_run_all(&tx, twice, COUNT_OF(twice), err), ERR_CONFLICT, "database_conflict");
	for (size_t i = 0; i < COUNT_OF(twice); i++)
		assert_null(twice[i].rows);
	/* All of the transaction is gone; the connection lives on. */
	assert_ok(db_tx_restart(&tx, err));
	assert_true(db_tx_is_fresh(&tx));
	assert_refused(db_run(&tx, &SUM, DB_NO_PARAMS, NULL, err), ERR_INTERNAL, "database_error");
	db_tx_end(&tx);
}

static void
a_schema_that_does_not_fit_shows_in_the_check(void **state)
{
	struct db_tx *tx = *state;
	size_t statements = 0;
	struct err err;

	/* As on a new connection. */
	for (size_t i = 0; i < DB_TABLE_COUNT; i++)
		statements += DB_TABLES[i]->count;
	memset(tx->conn->prepared, 0, statements * sizeof(bool));
	sql(tx, "DEALLOCATE ALL");
	sql(tx, "ALTER TABLE jitrca.token RENAME COLUMN hash TO digest");
	assert_int_equal(db_conn_prepare_all(tx->conn, &err), ERR_INTERNAL);
	assert_non_null(strstr(err.text, "prepare: token_"));
	tx->conn->broken = true; /* what it thinks is prepared is not */
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		in_tx(any_text_comes_back_as_it_went),
		in_tx(numbers_octets_and_null_come_back),
		in_tx(arrays_carry_any_content),
		in_tx(an_array_has_a_limit),
		in_tx(times_pass_to_the_second_and_the_microsecond),
		in_tx(a_row_of_another_shape_is_our_fault),
		in_tx(what_32_bits_cannot_hold_is_refused),
		in_tx(a_status_is_read_by_its_name),
		in_tx(a_result_of_another_shape_is_our_fault),
		in_tx(a_sqlstate_decides_what_a_failure_means),
		in_tx(text_that_is_none_is_the_callers_fault),
		in_tx(names_outside_our_schema_are_not_looked_up),
		in_tx(copy_carries_any_text),
		in_tx(copy_out_gives_each_row_and_can_be_left),
		in_tx(all_statements_fit_the_schema_and_have_names_of_their_own),
		cmocka_unit_test(several_go_in_one_round_trip_and_the_first_failure_is_told),
		in_tx(a_schema_that_does_not_fit_shows_in_the_check),
	};

	return cmocka_run_group_tests(tests, database_make, database_drop);
}
