#include "server/manifest_reader.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/attr.h"
#include "tests/unit/base/test.h"

/* An unlinked file of these octets, at its beginning. */
static FILE *
file_of(const char *octets, size_t len)
{
	FILE *file = tmpfile();

	assert_non_null(file);
	assert_int_equal(fwrite(octets, 1, len, file), len);
	assert_int_equal(fflush(file), 0);
	assert_int_equal(lseek(fileno(file), 0, SEEK_SET), 0);
	return file;
}

struct reading {
	enum status status;
	struct err err;
	char ids[512]; /* joined by spaces */
};

static void
read_all(struct reading *out, enum manifest_format format, const char *octets, size_t len)
{
	static struct manifest_reader reader;
	FILE *file = file_of(octets, len);
	const char *id = "";

	memset(out, 0, sizeof(*out));
	manifest_reader_init(&reader, fileno(file), format);
	do {
		out->status = manifest_reader_next(&reader, &id, &out->err);
		if (out->status == OK && id != NULL) {
			size_t at = strlen(out->ids);

			(void)snprintf(out->ids + at, sizeof(out->ids) - at, "%s%s", at > 0 ? " " : "", id);
		}
	} while (out->status == OK && id != NULL);
	(void)fclose(file);
}

struct good {
	enum manifest_format format;
	const char *text, *want_ids;
};

static const struct good GOOD[] = {
	{ MANIFEST_CSV, "a\nb\nc\n", "a b c" },
	{ MANIFEST_CSV, "a\nb", "a b" },
	{ MANIFEST_CSV, "a\r\nb\r\n", "a b" },
	{ MANIFEST_CSV, "device_id\na\n", "a" },
	{ MANIFEST_CSV, "\"device_id\"\r\n\"a\"\r\n", "a" },
	{ MANIFEST_CSV, "\xef\xbb\xbf" "device_id\na\n", "a" },
	{ MANIFEST_CSV, "\xef\xbb\xbf" "a\n", "a" },
	{ MANIFEST_CSV, "\n\ndevice_id\n\na\n\n\nb\n\n", "a b" },
	{ MANIFEST_CSV, "a\ndevice_id\n", "a device_id" }, /* only the first line is a header */
	{ MANIFEST_CSV, "A:b_c-9\n", "A:b_c-9" },
	{ MANIFEST_JSON, "[\"a\"]", "a" },
	{ MANIFEST_JSON, " [ \"a\" ,\n\t\"b\" ] \n", "a b" },
	{ MANIFEST_JSON, "[\"\\u0041\\u002d\"]", "A-" },
	{ MANIFEST_NDJSON, "\"a\"\n\n{\"device_id\": \"b\"}\r\n", "a b" },
	{ MANIFEST_NDJSON, "\"a\"", "a" },
};

static void
ids_come_out_in_order(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(GOOD); i++) {
		struct reading got;

		read_all(&got, GOOD[i].format, GOOD[i].text, strlen(GOOD[i].text));
		if (got.status != OK)
			fail_msg("case %zu: %s (%s)", i, got.err.text, got.err.code);
		assert_string_equal(got.ids, GOOD[i].want_ids);
	}
}

#define L64 "0123456789012345678901234567890123456789012345678901234567890123"

struct bad {
	enum manifest_format format;
	const char *text;
	size_t len; /* 0: strlen */
	const char *want_code, *want_text;
};

static const struct bad BAD[] = {
	{ MANIFEST_CSV, "", 0, "manifest_empty", "" },
	{ MANIFEST_CSV, "device_id\n", 0, "manifest_empty", "" },
	{ MANIFEST_CSV, "a\nb c\n", 0, "device_id_malformed", "line 2: device_id" },
	{ MANIFEST_CSV, "\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\nb!\n", 0, "device_id_malformed", "line 17:" },
	{ MANIFEST_CSV, " a\n", 0, "device_id_malformed", "line 1:" },
	{ MANIFEST_CSV, "a\0b\n", 4, "device_id_malformed", "line 1:" },
	{ MANIFEST_CSV, "\xc3\xa4\n", 0, "device_id_malformed", "line 1:" },
	{ MANIFEST_CSV, "\"\"\n", 0, "device_id_malformed", "line 1:" },
	{ MANIFEST_CSV, L64 "5\n", 0, "device_id_malformed", "line 1:" },
	{ MANIFEST_CSV, "a,b\n", 0, "csv_malformed", "line 1: one column" },
	{ MANIFEST_CSV, "a\n\"b\",\n", 0, "csv_malformed", "line 2: one column" },
	{ MANIFEST_CSV, "a\"b\n", 0, "csv_malformed", "line 1: a quote inside" },
	{ MANIFEST_CSV, "\"a\"b\n", 0, "csv_malformed", "line 1: text behind" },
	{ MANIFEST_CSV, "\"a\nb\n", 0, "csv_malformed", "line 1: a quote that is not closed" },
	{ MANIFEST_CSV, "\"a\"\"b\"\n", 0, "device_id_malformed", "line 1:" },
	{ MANIFEST_CSV, "a\rb\n", 0, "csv_malformed", "line 1: a carriage return" },
	{ MANIFEST_CSV, "\xef\xbb" "a\n", 0, "csv_malformed", "line 1: half a byte order mark" },
	{ MANIFEST_JSON, "", 0, "json_malformed", "line 1:" },
	{ MANIFEST_JSON, "[]", 0, "manifest_empty", "" },
	{ MANIFEST_JSON, "{}", 0, "json_malformed", "line 1: an array" },
	{ MANIFEST_JSON, "\xef\xbb\xbf[\"a\"]", 0, "json_malformed", "line 1:" }, /* RFC 8259 8.1 */
	{ MANIFEST_JSON, "[\"a\",]", 0, "json_malformed", "line 1: a string wanted" },
	{ MANIFEST_JSON, "[,\"a\"]", 0, "json_malformed", "line 1: a string wanted" },
	{ MANIFEST_JSON, "[\"a\" \"b\"]", 0, "json_malformed", "line 1: a comma" },
	{ MANIFEST_JSON, "[\"a\",\n7]", 0, "field_type", "line 2:" },
	{ MANIFEST_JSON, "[[\"a\"]]", 0, "field_type", "line 1:" },
	{ MANIFEST_JSON, "[\"a\"", 0, "json_malformed", "line 1: a comma" },
	{ MANIFEST_JSON, "[\"a", 0, "json_malformed", "line 1: a string that is not closed" },
	{ MANIFEST_JSON, "[\"a\"] x", 0, "json_malformed", "line 1: nothing wanted" },
	{ MANIFEST_JSON, "[\"a\n\"]", 0, "json_malformed", "line 1: a string that is not closed" },
	{ MANIFEST_JSON, "[\"\\u0000\"]", 0, "device_id_malformed", "line 1:" },
	{ MANIFEST_JSON, "[\"\\u00e4\"]", 0, "device_id_malformed", "line 1:" },
	{ MANIFEST_JSON, "[\"\\u12\"]", 0, "json_malformed", "line 1: \\u wants" },
	{ MANIFEST_JSON, "[\"\\x\"]", 0, "json_malformed", "line 1: an escape" },
	{ MANIFEST_JSON, "[\"a\",\n\"\"]", 0, "device_id_malformed", "line 2:" },
	{ MANIFEST_NDJSON, "\n", 0, "manifest_empty", "" },
	{ MANIFEST_NDJSON, "\"a\"\nb\n", 0, "json_malformed", "line 2:" },
	{ MANIFEST_NDJSON, "7\n", 0, "field_type", "line 1:" },
	{ MANIFEST_NDJSON, "{\"device_id\": null}\n", 0, "field_type", "line 1:" },
	{ MANIFEST_NDJSON, "{\"device_id\": \"a\", \"x\": 1}\n", 0, "field_unknown", "line 1:" },
	{ MANIFEST_NDJSON, "{\"id\": \"a\"}\n", 0, "field_unknown", "line 1:" },
	{ MANIFEST_NDJSON, "\"a b\"\n", 0, "device_id_malformed", "line 1:" },
	{ MANIFEST_FORMAT_UNSET, "a\n", 0, "manifest_format", "" },
};

static void
each_fault_is_named_with_its_line(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(BAD); i++) {
		struct reading got;

		read_all(&got, BAD[i].format, BAD[i].text, BAD[i].len > 0 ? BAD[i].len : strlen(BAD[i].text));
		if (got.status == OK)
			fail_msg("case %zu: accepted as '%s'", i, got.ids);
		if (strcmp(got.err.code, BAD[i].want_code) != 0 ||
		    strstr(got.err.text, BAD[i].want_text) == NULL)
			fail_msg("case %zu: %s (%s)", i, got.err.text, got.err.code);
	}
}

/* Ids that lie across the edge of what is read at once, in each place that it can fall. */
static void
the_edge_of_a_read_is_not_seen(void **state)
{
	static char text[MANIFEST_READ_BYTES + 256];
	static struct manifest_reader reader;

	(void)state;
	for (size_t shift = 0; shift < 24; shift++) {
		size_t len = MANIFEST_READ_BYTES - 12 + shift;
		const char *id = "";
		FILE *file;
		struct err err;

		memset(text, '\n', len);
		memcpy(text + len, "\"first-id\"\r\nsecond\r\n", 20);
		file = file_of(text, len + 20);
		manifest_reader_init(&reader, fileno(file), MANIFEST_CSV);
		assert_int_equal(manifest_reader_next(&reader, &id, &err), OK);
		assert_string_equal(id, "first-id");
		assert_int_equal(manifest_reader_next(&reader, &id, &err), OK);
		assert_string_equal(id, "second");
		assert_int_equal(manifest_reader_next(&reader, &id, &err), OK);
		assert_null(id);
		(void)fclose(file);
	}
}

/* What is far longer than an id is refused without being gathered. */
static void
a_line_without_end_is_refused_early(void **state)
{
	static const enum manifest_format FORMATS[] = { MANIFEST_CSV, MANIFEST_JSON, MANIFEST_NDJSON };
	static char text[200000];

	(void)state;
	memset(text, 'a', sizeof(text));
	memcpy(text, "[\"", 2);
	for (size_t i = 0; i < COUNT_OF(FORMATS); i++) {
		struct reading got;

		if (FORMATS[i] != MANIFEST_JSON)
			memcpy(text, "aa", 2);
		else
			memcpy(text, "[\"", 2);
		read_all(&got, FORMATS[i], text, sizeof(text));
		assert_int_equal(got.status, ERR_ARGUMENT);
		assert_string_equal(got.err.code, "device_id_malformed");
	}
}

static void
content_types_choose_the_format(void **state)
{
	enum manifest_format format = MANIFEST_FORMAT_UNSET;

	(void)state;
	assert_true(manifest_format_parse(&format, "text/csv") && format == MANIFEST_CSV);
	assert_true(manifest_format_parse(&format, "application/json") && format == MANIFEST_JSON);
	assert_true(manifest_format_parse(&format, "application/x-ndjson") && format == MANIFEST_NDJSON);
	assert_false(manifest_format_parse(&format, "text/plain"));
	assert_false(manifest_format_parse(&format, ""));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ids_come_out_in_order),
		cmocka_unit_test(each_fault_is_named_with_its_line),
		cmocka_unit_test(the_edge_of_a_read_is_not_seen),
		cmocka_unit_test(a_line_without_end_is_refused_early),
		cmocka_unit_test(content_types_choose_the_format),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
