#include "server/cli/table.h"

#include <ctype.h>
#include <stdbool.h>
#include <string.h>

#define CELL_BYTES 160
#define NAME_BYTES 64
#define PATH_BYTES 256
#define DEPTH_MAX 4 /* of objects in objects; what is deeper is shown as JSON */

static const json_t *
value_at(const json_t *row, const char *column)
{
	const char *dot = strchr(column, '.');
	char name[NAME_BYTES];

	if (dot == NULL)
		return json_object_get(row, column);
	(void)snprintf(name, sizeof(name), "%.*s", (int)(dot - column), column);
	return json_object_get(json_object_get(row, name), dot + 1);
}

/* The text of one value, on one line. */
static void
cell(char out[CELL_BYTES], const json_t *value)
{
	if (value == NULL || json_is_null(value))
		(void)snprintf(out, CELL_BYTES, "-");
	else if (json_is_string(value) && strchr(json_string_value(value), '\n') != NULL)
		(void)snprintf(out, CELL_BYTES, "(%zu octets, see --json)", json_string_length(value));
	else if (json_is_string(value))
		(void)snprintf(out, CELL_BYTES, "%s", json_string_value(value));
	else if (json_is_integer(value))
		(void)snprintf(out, CELL_BYTES, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
	else if (json_is_boolean(value))
		(void)snprintf(out, CELL_BYTES, "%s", json_is_true(value) ? "yes" : "no");
	else {
		size_t len = json_dumpb(value, out, CELL_BYTES - 1, JSON_COMPACT | JSON_ENCODE_ANY);

		if (len >= CELL_BYTES)
			(void)snprintf(out, CELL_BYTES, "(%zu %s, see --json)",
				json_is_array(value) ? json_array_size(value) : json_object_size(value),
				json_is_array(value) ? "values" : "members");
		else
			out[len] = '\0';
	}
	for (char *at = out; *at != '\0'; at++)
		if ((unsigned char)*at < 0x20 || *at == 0x7f)
			*at = '?';
}

/* Characters of UTF-8: all octets but those that continue one. */
static size_t
width(const char *text)
{
	size_t count = 0;

	for (; *text != '\0'; text++)
		count += ((unsigned char)*text & 0xc0) != 0x80;
	return count;
}

static void
pad(FILE *out, const char *text, size_t wide, bool last)
{
	(void)fputs(text, out);
	if (last)
		return;
	for (size_t i = width(text); i < wide + 2; i++)
		(void)fputc(' ', out);
}

/* Splits "a b.c d" into names; how many. */
static size_t
split(char names[TABLE_COLUMNS_MAX][NAME_BYTES], const char *columns)
{
	size_t count = 0;

	while (*columns != '\0' && count < TABLE_COLUMNS_MAX) {
		size_t len = strcspn(columns, " ");

		(void)snprintf(names[count++], NAME_BYTES, "%.*s", (int)len, columns);
		columns += len;
		columns += strspn(columns, " ");
	}
	return count;
}

/* "device_id" → "DEVICE_ID"; of "a.b" only b. */
static void
heading(char out[NAME_BYTES], const char *name)
{
	const char *dot = strchr(name, '.');

	(void)snprintf(out, NAME_BYTES, "%s", dot != NULL ? dot + 1 : name);
	for (char *at = out; *at != '\0'; at++)
		*at = (char)toupper((unsigned char)*at);
}

void
table_list(FILE *out, const json_t *rows, const char *columns)
{
	char names[TABLE_COLUMNS_MAX][NAME_BYTES];
	size_t wide[TABLE_COLUMNS_MAX];
	size_t count = split(names, columns);
	char text[CELL_BYTES];
	char head[NAME_BYTES];
	const json_t *row;
	size_t i;

	for (size_t c = 0; c < count; c++) {
		heading(head, names[c]);
		wide[c] = width(head);
		json_array_foreach(rows, i, row) {
			cell(text, value_at(row, names[c]));
			if (width(text) > wide[c])
				wide[c] = width(text);
		}
	}
	for (size_t c = 0; c < count; c++) {
		heading(head, names[c]);
		pad(out, head, wide[c], c + 1 == count);
	}
	(void)fputc('\n', out);
	json_array_foreach(rows, i, row) {
		for (size_t c = 0; c < count; c++) {
			cell(text, value_at(row, names[c]));
			pad(out, text, wide[c], c + 1 == count);
		}
		(void)fputc('\n', out);
	}
}

/* Is it a list of objects, which stands as a table of its own? */
static bool
is_table(const json_t *value)
{
	return json_array_size(value) > 0 && json_is_object(json_array_get(value, 0));
}

static bool
is_opened(const json_t *value, unsigned depth)
{
	return json_object_size(value) > 0 && depth < DEPTH_MAX;
}

/* How wide the names get. */
static size_t
names_width(json_t *object, size_t prefix, unsigned depth)
{
	size_t wide = 0;
	const char *key;
	json_t *value;

	json_object_foreach(object, key, value) {
		size_t here = prefix + strlen(key);

		if (depth == 0 && is_table(value))
			continue;
		if (is_opened(value, depth))
			here = names_width(value, here + 1, depth + 1);
		wide = here > wide ? here : wide;
	}
	return wide;
}

static void
print_lines(FILE *out, json_t *object, const char *prefix, size_t wide, unsigned depth)
{
	char name[PATH_BYTES];
	char text[CELL_BYTES];
	const char *key;
	json_t *value;

	json_object_foreach(object, key, value) {
		(void)snprintf(name, sizeof(name), "%s%s%s", prefix, *prefix != '\0' ? "." : "", key);
		if (depth == 0 && is_table(value))
			continue;
		if (is_opened(value, depth)) {
			print_lines(out, value, name, wide, depth + 1);
			continue;
		}
		cell(text, value);
		pad(out, name, wide, false);
		(void)fprintf(out, "%s\n", text);
	}
}

/* The columns of a table are the members of its first row. */
static void
print_table(FILE *out, const char *name, json_t *rows)
{
	char columns[TABLE_COLUMNS_MAX * NAME_BYTES] = "";
	size_t at = 0;
	size_t count = 0;
	const char *key;
	json_t *value;

	json_object_foreach(json_array_get(rows, 0), key, value)
		if (strlen(key) < NAME_BYTES - 1 && count++ < TABLE_COLUMNS_MAX)
			at += (size_t)snprintf(columns + at, sizeof(columns) - at, at > 0 ? " %s" : "%s",
				key);
	(void)fprintf(out, "\n%s\n", name);
	table_list(out, rows, columns);
}

void
table_object(FILE *out, json_t *object)
{
	const char *key;
	json_t *value;

	print_lines(out, object, "", names_width(object, 0, 0), 0);
	json_object_foreach(object, key, value)
		if (is_table(value))
			print_table(out, key, value);
}
