/*
 * base/bytes.h - octets with a length: views that borrow, bytes that own, a buffer that grows up to
 * a limit, hex. Strings out of certificates and requests are views; they may hold NUL.
 */
#ifndef BASE_BYTES_H
#define BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/attr.h"
#include "base/err.h"

/* Borrowed octets; lives no longer than what it points into. {NULL, 0} is the empty view. */
struct view {
	const uint8_t *data;
	size_t len;
};

/* Owned octets. {NULL, 0} owns nothing. */
struct bytes {
	uint8_t *data;
	size_t len;
};

void bytes_free(struct bytes *bytes); /* leaves {NULL, 0} */
OWNER_STRUCT(bytes, bytes_free)

MUST_USE enum status bytes_copy(struct bytes *out, struct view from, struct err *err);

static inline struct view
view_of(const struct bytes *bytes)
{
	return (struct view){ bytes->data, bytes->len };
}

struct view view_text(const char *text); /* without the NUL */
bool view_equal(struct view a, struct view b);
bool view_equal_text(struct view a, const char *text);

/* A buffer that grows by doubling up to limit_bytes; zero-initialise all but the limit. */
struct buf {
	uint8_t *data;
	size_t len;
	size_t capacity;
	size_t limit_bytes;
};

void buf_free(struct buf *buf);
OWNER_STRUCT(buf, buf_free)

/* ERR_TOO_LARGE (buffer_limit) past the limit; the content is unchanged on failure. */
MUST_USE enum status buf_add(struct buf *buf, const void *data, size_t len, struct err *err);
MUST_USE enum status buf_text(struct buf *buf, const char *text, struct err *err);
MUST_USE enum status buf_format(struct buf *buf, struct err *err, const char *fmt, ...) PRINTF(3, 4);
/* Room for len more octets without a reallocation. */
MUST_USE enum status buf_reserve(struct buf *buf, size_t len, struct err *err);
/* Hands the octets over; buf is empty afterwards. */
struct bytes buf_give(struct buf *buf);

static inline struct view
buf_view(const struct buf *buf)
{
	return (struct view){ buf->data, buf->len };
}

/* Writes 2 * len lower-case digits and a NUL; out holds at least 2 * len + 1. */
void hex_encode(char *out, const uint8_t *data, size_t len);
/* True if text is exactly 2 * len lower- or upper-case digits, which are then in out. */
bool hex_decode(uint8_t *out, size_t len, const char *text, size_t text_len);

#endif
