#include "tests/unit/base/test.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"

static int pipe_fds[2];

static int
setup(void **state)
{
	(void)state;
	if (pipe(pipe_fds) != 0)
		return -1;
	log_setup(pipe_fds[1], LOG_INFO, "test");
	return 0;
}

static void
read_line(char *out, size_t size)
{
	ssize_t got = read(pipe_fds[0], out, size - 1);

	assert_true(got > 0);
	out[got] = '\0';
	assert_int_equal(out[got - 1], '\n');
	out[got - 1] = '\0';
}

static void
a_line_is_one_json_object_with_its_fields_in_order(void **state)
{
	char line[16384];

	(void)state;
	log_event(LOG_WARN, "odd", "r1", LOG_STR("a", "x\"\\\n\x01"), LOG_INT("n", -3),
		LOG_BOOL("b", true), LOG_STR("none", NULL),
		LOG_VIEW("v", ((struct view){ (const uint8_t *)"a\0\xff\xc3\xbc", 5 })));
	read_line(line, sizeof(line));
	assert_non_null(strstr(line,
		"\"level\":\"warn\",\"process\":\"test\",\"event\":\"odd\",\"request_id\":\"r1\","
		"\"a\":\"x\\u0022\\u005c\\u000a\\u0001\",\"n\":-3,\"b\":true,\"none\":null,"
		"\"v\":\"a\\u0000\\ufffd\xc3\xbc\"}"));
	assert_memory_equal(line, "{\"ts\":\"20", 9);
}

static void
malformed_utf8_never_reaches_the_log(void **state)
{
	static const char *const BAD[] = { "\xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xe0\x80\x80",
		"\xf0\x80\x80\x80", "\x80", "\xe2\x82", "\xf5\x80\x80\x80" };
	char line[16384];

	(void)state;
	for (size_t i = 0; i < COUNT_OF(BAD); i++) {
		log_event(LOG_INFO, "x", NULL, LOG_STR("v", BAD[i]));
		read_line(line, sizeof(line));
		assert_non_null(strstr(line, "\\ufffd"));
		for (const char *at = line; *at != '\0'; at++)
			assert_true((unsigned char)*at < 0x80);
	}
}

static void
a_long_line_is_cut_and_stays_json(void **state)
{
	char line[16384];
	char big[9000];

	(void)state;
	memset(big, 'a', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	log_event(LOG_INFO, "big", NULL, LOG_STR("v", big), LOG_INT("lost", 1));
	read_line(line, sizeof(line));
	assert_true(strlen(line) < 8192);
	assert_string_equal(line + strlen(line) - 3, "a\"}");
	/* The key fits, its value does not: the whole field goes. */
	big[8060] = '\0';
	log_event(LOG_INFO, "big", NULL, LOG_STR("v", big), LOG_INT("lost", 1234567890));
	read_line(line, sizeof(line));
	assert_string_equal(line + strlen(line) - 3, "a\"}");
}

static void
what_is_below_the_level_is_not_written(void **state)
{
	struct err err;
	char line[16384];

	(void)state;
	log_event(LOG_DEBUG, "hidden", NULL);
	(void)err_set(&err, ERR_CONFLICT, "some_code", "field: rule");
	log_error(LOG_ERROR, "failed", "r2", &err);
	read_line(line, sizeof(line));
	assert_null(strstr(line, "hidden"));
	assert_non_null(strstr(line,
		"\"status\":\"ERR_CONFLICT\",\"code\":\"some_code\",\"detail\":\"field: rule\"}"));
}

static void
levels_have_names(void **state)
{
	enum log_level level;

	(void)state;
	assert_true(log_level_parse(&level, "debug"));
	assert_int_equal(level, LOG_DEBUG);
	assert_true(log_level_parse(&level, "error"));
	assert_int_equal(level, LOG_ERROR);
	assert_false(log_level_parse(&level, "loud"));
}

static void
an_error_keeps_its_status_when_it_is_wrapped(void **state)
{
	struct err err;

	(void)state;
	assert_int_equal(err_set(&err, ERR_ARGUMENT, "code_x", "%s wanted", "two"), ERR_ARGUMENT);
	assert_int_equal(err_wrap(&err, "line %d", 7), ERR_ARGUMENT);
	assert_string_equal(err.text, "line 7: two wanted");
	assert_string_equal(err.code, "code_x");
	for (int i = 0; i < 200; i++)
		(void)err_wrap(&err, "a context that is added again and again");
	assert_true(strlen(err.text) < sizeof(err.text));
	assert_int_equal(err_memory(&err), ERR_UNAVAILABLE);
	for (int status = ERR_INTERNAL; status <= ERR_UNAVAILABLE; status++)
		assert_string_not_equal(status_name((enum status)status), "ERR_UNKNOWN");
	assert_string_equal(status_name((enum status)99), "ERR_UNKNOWN");
}

static void
memory_can_be_made_to_fail_once(void **state)
{
	own(str) kept = mem_strdup("kept");
	void *p;

	(void)state;
	mem_fail_at(1);
	p = mem_zalloc(8);
	assert_non_null(p);
	assert_false(mem_failed());
	assert_null(mem_realloc(p, 16));
	assert_true(mem_failed());
	mem_free(p);
	p = mem_array(SIZE_MAX / 2, 4);
	assert_null(p);
	p = mem_alloc(0);
	assert_non_null(p);
	mem_free(p);
	assert_string_equal(kept, "kept");
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_line_is_one_json_object_with_its_fields_in_order),
		cmocka_unit_test(malformed_utf8_never_reaches_the_log),
		cmocka_unit_test(a_long_line_is_cut_and_stays_json),
		cmocka_unit_test(what_is_below_the_level_is_not_written),
		cmocka_unit_test(levels_have_names),
		cmocka_unit_test(an_error_keeps_its_status_when_it_is_wrapped),
		cmocka_unit_test(memory_can_be_made_to_fail_once),
	};

	return cmocka_run_group_tests(tests, setup, NULL);
}
