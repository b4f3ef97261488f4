#include "base/bytes.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

#define BUF_FIRST_BYTES 256

void
bytes_free(struct bytes *bytes)
{
	mem_free(bytes->data);
	*bytes = (struct bytes){ NULL, 0 };
}

enum status
bytes_copy(struct bytes *out, struct view from, struct err *err)
{
	uint8_t *data = mem_alloc(from.len);

	if (data == NULL)
		return err_memory(err);
	if (from.len > 0)
		memcpy(data, from.data, from.len);
	*out = (struct bytes){ data, from.len };
	return OK;
}

struct view
view_text(const char *text)
{
	return (struct view){ (const uint8_t *)text, strlen(text) };
}

bool
view_equal(struct view a, struct view b)
{
	return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

bool
view_equal_text(struct view a, const char *text)
{
	return view_equal(a, view_text(text));
}

void
buf_free(struct buf *buf)
{
	mem_free(buf->data);
	*buf = (struct buf){ .limit_bytes = buf->limit_bytes };
}

enum status
buf_reserve(struct buf *buf, size_t len, struct err *err)
{
	size_t capacity = buf->capacity > 0 ? buf->capacity : BUF_FIRST_BYTES;
	uint8_t *data;

	if (len > buf->limit_bytes || buf->len > buf->limit_bytes - len)
		return err_set(err, ERR_TOO_LARGE, "buffer_limit", "more than %zu bytes",
			buf->limit_bytes);
	if (buf->data != NULL && buf->len + len <= buf->capacity)
		return OK;
	while (capacity < buf->len + len)
		capacity = capacity > buf->limit_bytes / 2 ? buf->limit_bytes : capacity * 2;
	data = mem_realloc(buf->data, capacity);
	if (data == NULL)
		return err_memory(err);
	buf->data = data;
	buf->capacity = capacity;
	return OK;
}

enum status
buf_add(struct buf *buf, const void *data, size_t len, struct err *err)
{
	TRY(buf_reserve(buf, len, err));
	if (len > 0)
		memcpy(buf->data + buf->len, data, len);
	buf->len += len;
	return OK;
}

enum status
buf_text(struct buf *buf, const char *text, struct err *err)
{
	return buf_add(buf, text, strlen(text), err);
}

enum status
buf_format(struct buf *buf, struct err *err, const char *fmt, ...)
{
	va_list args;
	va_list again;
	int wanted;
	enum status status = OK;

	va_start(args, fmt);
	va_copy(again, args);
	wanted = vsnprintf(NULL, 0, fmt, args);
	if (wanted < 0)
		status = err_set(err, ERR_INTERNAL, "format", "cannot format");
	else
		status = buf_reserve(buf, (size_t)wanted + 1, err);
	if (status == OK) {
		(void)vsnprintf((char *)buf->data + buf->len, (size_t)wanted + 1, fmt, again);
		buf->len += (size_t)wanted;
	}
	va_end(again);
	va_end(args);
	return status;
}

struct bytes
buf_give(struct buf *buf)
{
	struct bytes out = { buf->data, buf->len };

	*buf = (struct buf){ .limit_bytes = buf->limit_bytes };
	return out;
}

void
hex_encode(char *out, const uint8_t *data, size_t len)
{
	static const char DIGITS[] = "0123456789abcdef";

	for (size_t i = 0; i < len; i++) {
		out[2 * i] = DIGITS[data[i] >> 4];
		out[2 * i + 1] = DIGITS[data[i] & 15];
	}
	out[2 * len] = '\0';
}

static int
hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

bool
hex_decode(uint8_t *out, size_t len, const char *text, size_t text_len)
{
	if (text_len != 2 * len)
		return false;
	for (size_t i = 0; i < len; i++) {
		int high = hex_digit(text[2 * i]);
		int low = hex_digit(text[2 * i + 1]);

		if (high < 0 || low < 0)
			return false;
		out[i] = (uint8_t)(high << 4 | low);
	}
	return true;
}
