#include <endian.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "db/run.h"

#define FORMAT_TEXT 0
#define FORMAT_BINARY 1
#define OID_BYTEA 17
#define OID_TEXT 25

void
db_params_free(struct db_params *params)
{
	for (int i = 0; i < params->count; i++)
		mem_free(params->values[i]);
	*params = (struct db_params){ .count = 0 };
}

/* Takes value (NULL: SQL null). */
static void
put(struct db_params *params, char *value, size_t len, int format)
{
	if (params->count >= DB_PARAMS_MAX || len > INT32_MAX) {
		params->failed = true;
		mem_free(value);
		return;
	}
	params->values[params->count] = value;
	params->lengths[params->count] = (int)len;
	params->formats[params->count] = format;
	params->count++;
}

static void
put_copy(struct db_params *params, const void *data, size_t len, int format)
{
	char *copy = mem_alloc(len + 1);

	if (copy == NULL) {
		params->failed = true;
		return;
	}
	if (len > 0)
		memcpy(copy, data, len);
	copy[len] = '\0';
	put(params, copy, len, format);
}

void
db_null(struct db_params *params)
{
	put(params, NULL, 0, FORMAT_TEXT);
}

void
db_text(struct db_params *params, const char *text)
{
	if (text == NULL)
		db_null(params);
	else
		put_copy(params, text, strlen(text), FORMAT_TEXT);
}

void
db_int64(struct db_params *params, int64_t value)
{
	char text[24];

	(void)snprintf(text, sizeof(text), "%lld", (long long)value);
	db_text(params, text);
}

void
db_bool(struct db_params *params, bool value)
{
	db_text(params, value ? "t" : "f");
}

void
db_double(struct db_params *params, double value)
{
	char text[40];

	(void)snprintf(text, sizeof(text), "%.17g", value);
	db_text(params, text);
}

void
db_bytes(struct db_params *params, struct view bytes)
{
	if (bytes.data == NULL)
		db_null(params);
	else
		put_copy(params, bytes.data, bytes.len, FORMAT_BINARY);
}

void
db_serial(struct db_params *params, const struct serial *serial)
{
	if (serial == NULL)
		db_null(params);
	else
		put_copy(params, serial->octets, SERIAL_BYTES, FORMAT_BINARY);
}

void
db_int64_array(struct db_params *params, const int64_t *items, size_t count)
{
	/* 20 digits and a comma at most for each. */
	size_t size = count * 21 + 3;
	char *text = mem_alloc(size);
	size_t used = 1;

	if (text == NULL) {
		params->failed = true;
		return;
	}
	text[0] = '{';
	for (size_t i = 0; i < count; i++)
		used += (size_t)snprintf(text + used, size - used, i > 0 ? ",%lld" : "%lld",
			(long long)items[i]);
	text[used++] = '}';
	text[used] = '\0';
	put(params, text, used, FORMAT_TEXT);
}

void
db_bool_array(struct db_params *params, const bool *items, size_t count)
{
	size_t size = count * 2 + 3;
	char *text = mem_alloc(size);
	size_t used = 1;

	if (text == NULL) {
		params->failed = true;
		return;
	}
	text[0] = '{';
	for (size_t i = 0; i < count; i++) {
		if (i > 0)
			text[used++] = ',';
		text[used++] = items[i] ? 't' : 'f';
	}
	text[used++] = '}';
	text[used] = '\0';
	put(params, text, used, FORMAT_TEXT);
}

static void
put_int32(char **at, int64_t value)
{
	uint32_t big = htobe32((uint32_t)value);

	memcpy(*at, &big, sizeof(big));
	*at += sizeof(big);
}

/* PostgreSQL's array_recv: dimensions, has-null flag, element type, length, lower bound, items. */
static void
put_array(struct db_params *params, const struct view *items, size_t count, uint32_t element)
{
	size_t size = 20;
	bool nulls = false;
	char *data, *at;

	for (size_t i = 0; i < count; i++) {
		size += 4 + (items[i].data != NULL ? items[i].len : 0);
		nulls = nulls || items[i].data == NULL;
	}
	data = size <= INT32_MAX ? mem_alloc(size) : NULL;
	if (data == NULL) {
		params->failed = true;
		return;
	}
	at = data;
	put_int32(&at, count > 0 ? 1 : 0);
	put_int32(&at, nulls ? 1 : 0);
	put_int32(&at, element);
	if (count > 0) {
		put_int32(&at, (int64_t)count);
		put_int32(&at, 1);
	}
	for (size_t i = 0; i < count; i++) {
		put_int32(&at, items[i].data != NULL ? (int64_t)items[i].len : -1);
		if (items[i].data != NULL && items[i].len > 0) {
			memcpy(at, items[i].data, items[i].len);
			at += items[i].len;
		}
	}
	put(params, data, (size_t)(at - data), FORMAT_BINARY);
}

void
db_text_array(struct db_params *params, const char *const *items, size_t count)
{
	struct view *views = mem_array(count, sizeof(*views));

	if (views == NULL) {
		params->failed = true;
		return;
	}
	for (size_t i = 0; i < count; i++)
		if (items[i] != NULL)
			views[i] = view_text(items[i]);
	put_array(params, views, count, OID_TEXT);
	mem_free(views);
}

void
db_bytes_array(struct db_params *params, const struct view *items, size_t count)
{
	put_array(params, items, count, OID_BYTEA);
}
