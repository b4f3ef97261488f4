#include "base/serial.h"

#include <string.h>

#include "base/bytes.h"
#include "base/clock.h"

int32_t
expiry_month(int64_t not_after_s)
{
	struct civil end = civil_from_s(not_after_s);

	return (int32_t)(end.year * 12 + (int64_t)end.month - 1);
}

/* Candidates for the first octet: each is one as likely as not. */
#define FIRST_DRAWN 9

/* The next that will do, rather than one that is masked, so that 0x01-0x7f stay equally likely. */
static bool
pick_first(uint8_t *out, const uint8_t *drawn, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		*out = drawn[i];
		if (drawn[i] >= 0x01 && drawn[i] <= 0x7f)
			return true;
	}
	return false;
}

enum status
serial_draw(struct serial *out, int64_t not_after_s, struct entropy *entropy, struct err *err)
{
	int32_t month = expiry_month(not_after_s);
	uint8_t drawn[FIRST_DRAWN + SERIAL_BYTES - 1];

	if (month < 0 || month > 0xffff)
		return err_set(err, ERR_ARGUMENT, "validity_out_of_range",
			"not_after: a year below 5461 wanted, month number %d found", month);
	/* All in one call of the system; hardly ever is none of the first among them to be had. */
	do
		TRY(entropy_fill(entropy, drawn, sizeof(drawn), err));
	while (!pick_first(&out->octets[0], drawn, FIRST_DRAWN));
	memcpy(out->octets + 1, drawn + FIRST_DRAWN, SERIAL_BYTES - 1);
	out->octets[2] = (uint8_t)(month >> 8);
	out->octets[3] = (uint8_t)(month & 255);
	return OK;
}

bool
serial_parse(struct serial *out, const char *text, size_t text_len)
{
	return hex_decode(out->octets, SERIAL_BYTES, text, text_len) && out->octets[0] >= 0x01 &&
		out->octets[0] <= 0x7f;
}

void
serial_format(char out[SERIAL_TEXT_BYTES], const struct serial *serial)
{
	hex_encode(out, serial->octets, SERIAL_BYTES);
}

bool
serial_equal(const struct serial *a, const struct serial *b)
{
	return memcmp(a->octets, b->octets, SERIAL_BYTES) == 0;
}
