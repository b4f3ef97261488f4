/*
 * base/serial.h - certificate serial numbers (RFC 5280 4.1.2.2: positive, at most 20 octets).
 *
 *   octet  0      0x01-0x7f, random: positive, and always 16 octets in DER
 *   octet  1      the CRL shard, random
 *   octets 2-3    the month of expiry, big-endian: year * 12 + (month - 1), in UTC
 *   octets 4-15   random
 *
 * So a serial alone finds its CRL shard and its partition in the database.
 */
#ifndef BASE_SERIAL_H
#define BASE_SERIAL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/entropy.h"
#include "base/err.h"

#define SERIAL_BYTES 16
#define SERIAL_TEXT_BYTES (2 * SERIAL_BYTES + 1)

struct serial {
	uint8_t octets[SERIAL_BYTES];
};

/* The month of expiry of a certificate that ends at not_after_s. */
int32_t expiry_month(int64_t not_after_s);

MUST_USE enum status serial_draw(struct serial *out, int64_t not_after_s, struct entropy *entropy,
	struct err *err);

static inline uint8_t
serial_shard(const struct serial *serial)
{
	return serial->octets[1];
}

static inline int32_t
serial_month(const struct serial *serial)
{
	return (int32_t)serial->octets[2] << 8 | (int32_t)serial->octets[3];
}

/* False: not 32 hex digits, or a first octet that we never draw. */
bool serial_parse(struct serial *out, const char *text, size_t text_len);
void serial_format(char out[SERIAL_TEXT_BYTES], const struct serial *serial);
bool serial_equal(const struct serial *a, const struct serial *b);

#endif
