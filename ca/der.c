#include "ca/der.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"

/* ---- reading ---- */

/* In brackets: the function, not the macro around its calls, which the rest of this file wants. */
enum status
(der_refuse)(const struct der *in, struct err *err, const char *fmt, ...)
{
	char text[ERR_TEXT_BYTES];
	va_list args;

	va_start(args, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	return err_set(err, ERR_ARGUMENT, in->code, "%s: %s", in->what, text);
}

/* Tag and length of an element: how many octets they take, and how many follow. */
struct header {
	size_t len;
	size_t contents_len;
};

/* NULL, or what is wrong. */
static const char *
read_header(struct view rest, struct header *out)
{
	size_t octets, len = 0;

	if (rest.len < 2)
		return "an element wanted, the end found";
	if ((rest.data[0] & 0x1f) == 0x1f)
		return "a tag number over 30"; /* nothing in our field has one */
	if (rest.data[1] < 0x80) {
		*out = (struct header){ 2, rest.data[1] };
	} else {
		octets = rest.data[1] & 0x7fu;
		if (octets == 0)
			return "an indefinite length (X.690 10.1)";
		if (octets > 4)
			return "a length of more than four octets";
		if (rest.len < 2 + octets)
			return "a length that is cut off";
		for (size_t i = 0; i < octets; i++)
			len = len << 8 | rest.data[2 + i];
		if (rest.data[2] == 0 || len < 0x80)
			return "a length that is not minimal (X.690 10.1)";
		*out = (struct header){ 2 + octets, len };
	}
	return out->contents_len > rest.len - out->len ? "an element that is cut off" : NULL;
}

enum status
der_any(struct der *in, const char *field, uint8_t *tag, struct view *contents, struct view *whole,
	struct err *err)
{
	struct header header = { 0, 0 };
	const char *fault = read_header(in->rest, &header);
	size_t total;

	if (fault != NULL)
		return der_refuse(in, err, "%s: %s", field, fault);
	total = header.len + header.contents_len;
	if (tag != NULL)
		*tag = in->rest.data[0];
	if (contents != NULL)
		*contents = (struct view){ in->rest.data + header.len, header.contents_len };
	if (whole != NULL)
		*whole = (struct view){ in->rest.data, total };
	in->rest.data += total;
	in->rest.len -= total;
	return OK;
}

static enum status
take(struct der *in, unsigned tag, const char *field, struct view *contents, struct view *whole,
	struct err *err)
{
	if (in->rest.len == 0)
		return der_refuse(in, err, "%s: tag 0x%02x wanted, the end found", field, tag);
	if (in->rest.data[0] != tag)
		return der_refuse(in, err, "%s: tag 0x%02x wanted, 0x%02x found", field, tag,
			(unsigned)in->rest.data[0]);
	return der_any(in, field, NULL, contents, whole, err);
}

enum status
der_take(struct der *in, unsigned tag, const char *field, struct view *contents, struct err *err)
{
	return take(in, tag, field, contents, NULL, err);
}

enum status
der_take_whole(struct der *in, unsigned tag, const char *field, struct view *whole, struct err *err)
{
	return take(in, tag, field, NULL, whole, err);
}

enum status
der_enter(struct der *in, unsigned tag, const char *field, struct der *inside, struct err *err)
{
	struct view contents;

	TRY(take(in, tag, field, &contents, NULL, err));
	*inside = (struct der){ contents, in->code, in->what };
	return OK;
}

enum status
der_end(const struct der *in, const char *field, struct err *err)
{
	if (in->rest.len > 0)
		return der_refuse(in, err, "%s: the end wanted, %zu more octets found", field,
			in->rest.len);
	return OK;
}

enum status
der_integer(struct der *in, const char *field, struct view *contents, struct err *err)
{
	TRY(der_take(in, DER_INTEGER, field, contents, err));
	if (contents->len == 0)
		return der_refuse(in, err, "%s: an INTEGER without octets", field);
	/* X.690 8.3.2: the first nine bits are not all alike. */
	if (contents->len > 1 && ((contents->data[0] == 0x00 && contents->data[1] < 0x80) ||
	    (contents->data[0] == 0xff && contents->data[1] >= 0x80)))
		return der_refuse(
			in, err, "%s: an INTEGER that is not minimal (X.690 8.3.2)", field);
	return OK;
}

enum status
der_unsigned(struct der *in, const char *field, struct view *magnitude, struct err *err)
{
	TRY(der_integer(in, field, magnitude, err));
	if (magnitude->data[0] >= 0x80)
		return der_refuse(in, err, "%s: an INTEGER that is not negative wanted", field);
	if (magnitude->data[0] == 0) {
		magnitude->data++;
		magnitude->len--;
	}
	return OK;
}

enum status
der_number(struct der *in, const char *field, uint64_t *number, struct err *err)
{
	struct view magnitude;

	TRY(der_unsigned(in, field, &magnitude, err));
	if (magnitude.len > 8 || (magnitude.len == 8 && magnitude.data[0] >= 0x80))
		return der_refuse(in, err, "%s: an INTEGER under 2^63 wanted", field);
	*number = 0;
	for (size_t i = 0; i < magnitude.len; i++)
		*number = *number << 8 | magnitude.data[i];
	return OK;
}

enum status
der_boolean(struct der *in, const char *field, bool *value, struct err *err)
{
	struct view contents;

	TRY(der_take(in, DER_BOOLEAN, field, &contents, err));
	/* X.690 11.1 */
	if (contents.len != 1 || (contents.data[0] != 0x00 && contents.data[0] != 0xff))
		return der_refuse(in, err, "%s: a BOOLEAN of 00 or ff wanted", field);
	*value = contents.data[0] != 0;
	return OK;
}

enum status
der_boolean_default_false(struct der *in, const char *field, bool *value, struct err *err)
{
	*value = false;
	if (!der_next_is(in, DER_BOOLEAN))
		return OK;
	TRY(der_boolean(in, field, value, err));
	if (!*value)
		return der_refuse(
			in, err, "%s: FALSE, the default, stands written (X.690 11.5)", field);
	return OK;
}

enum status
der_oid(struct der *in, const char *field, struct view *contents, struct err *err)
{
	bool first = true;

	TRY(der_take(in, DER_OID, field, contents, err));
	if (contents->len == 0 || contents->data[contents->len - 1] >= 0x80)
		return der_refuse(in, err, "%s: an OBJECT IDENTIFIER that is cut off", field);
	for (size_t i = 0; i < contents->len; i++) {
		if (first && contents->data[i] == 0x80) /* X.690 8.19.2 */
			return der_refuse(in, err, "%s: an OBJECT IDENTIFIER that is not minimal",
				field);
		first = contents->data[i] < 0x80;
	}
	return OK;
}

enum status
der_null(struct der *in, const char *field, struct err *err)
{
	struct view contents;

	TRY(der_take(in, DER_NULL, field, &contents, err));
	if (contents.len != 0)
		return der_refuse(in, err, "%s: a NULL with octets", field);
	return OK;
}

enum status
der_octets(struct der *in, const char *field, struct view *contents, struct err *err)
{
	return der_take(in, DER_OCTET_STRING, field, contents, err);
}

enum status
der_bits(struct der *in, const char *field, struct view *octets, struct err *err)
{
	TRY(der_take(in, DER_BIT_STRING, field, octets, err));
	if (octets->len < 1 || octets->data[0] != 0)
		return der_refuse(in, err, "%s: a BIT STRING of whole octets wanted", field);
	octets->data++;
	octets->len--;
	return OK;
}

enum status
der_named_bits(struct der *in, const char *field, unsigned *bits, struct err *err)
{
	struct view contents;
	unsigned unused;

	TRY(der_take(in, DER_BIT_STRING, field, &contents, err));
	if (contents.len < 1 || contents.len > 3 || contents.data[0] > 7 ||
	    (contents.len == 1 && contents.data[0] != 0))
		return der_refuse(in, err, "%s: a BIT STRING of up to 16 bits wanted", field);
	unused = contents.data[0];
	/* X.690 11.2.2: the last bit that is there is set, and what is unused is zero. */
	if (contents.len > 1 &&
	    (contents.data[contents.len - 1] & ((2u << unused) - 1)) != 1u << unused)
		return der_refuse(in, err, "%s: a BIT STRING with trailing zero bits", field);
	*bits = 0;
	for (size_t i = 1; i < contents.len; i++) {
		for (unsigned bit = 0; bit < 8; bit++) {
			if ((contents.data[i] & (0x80u >> bit)) != 0)
				*bits |= 1u << ((i - 1) * 8 + bit);
		}
	}
	return OK;
}

static bool
two_digits(const uint8_t *text, unsigned *out)
{
	if (text[0] < '0' || text[0] > '9' || text[1] < '0' || text[1] > '9')
		return false;
	*out = (unsigned)(text[0] - '0') * 10 + (unsigned)(text[1] - '0');
	return true;
}

/* MMDDHHMMSSZ behind a year. */
static bool
read_time(const uint8_t *text, unsigned year, int64_t *wall_s)
{
	struct civil civil = { .year = year }, back;

	if (!two_digits(text, &civil.month) || !two_digits(text + 2, &civil.day) ||
	    !two_digits(text + 4, &civil.hour) || !two_digits(text + 6, &civil.minute) ||
	    !two_digits(text + 8, &civil.second) || text[10] != 'Z')
		return false;
	if (civil.month < 1 || civil.month > 12 || civil.day < 1 || civil.day > 31 ||
	    civil.hour > 23 || civil.minute > 59 || civil.second > 59)
		return false;
	*wall_s = civil_to_s(civil);
	if (civil.day <= 28) /* each month has them; lists have a million dates */
		return true;
	/* The 30th of February comes back as another day. */
	back = civil_from_s(*wall_s);
	return back.month == civil.month && back.day == civil.day;
}

enum status
der_time(struct der *in, const char *field, int64_t *wall_s, struct err *err)
{
	unsigned century, year;
	struct view text = { NULL, 0 };
	uint8_t tag = 0;

	TRY(der_any(in, field, &tag, &text, NULL, err));
	if (tag == DER_UTC_TIME) {
		if (text.len != 13 || !two_digits(text.data, &year) ||
		    !read_time(text.data + 2, year + (year >= 50 ? 1900 : 2000), wall_s))
			return der_refuse(in, err, "%s: YYMMDDHHMMSSZ wanted (RFC 5280 4.1.2.5.1)",
				field);
		return OK;
	}
	if (tag != DER_GENERALIZED_TIME)
		return der_refuse(in, err, "%s: a time wanted, tag 0x%02x found", field,
			(unsigned)tag);
	if (text.len != 15 || !two_digits(text.data, &century) ||
		!two_digits(text.data + 2, &year) ||
		!read_time(text.data + 4, century * 100 + year, wall_s))
		return der_refuse(
			in, err, "%s: YYYYMMDDHHMMSSZ wanted (RFC 5280 4.1.2.5.2)", field);
	if (century * 100 + year < 2050)
		return der_refuse(
			in, err, "%s: UTCTime wanted through 2049 (RFC 5280 4.1.2.5)", field);
	return OK;
}

enum status
der_generalized_time(struct der *in, const char *field, int64_t *wall_s, struct err *err)
{
	unsigned century, year;
	struct view text = { NULL, 0 };

	TRY(der_take(in, DER_GENERALIZED_TIME, field, &text, err));
	if (text.len != 15 || !two_digits(text.data, &century) ||
		!two_digits(text.data + 2, &year) || century * 100 + year < 1970 ||
		!read_time(text.data + 4, century * 100 + year, wall_s))
		return der_refuse(in, err, "%s: YYYYMMDDHHMMSSZ wanted", field);
	return OK;
}

/* Appends "<arc>" or ".<arc>", as much as there is room for. */
static void
put_arc(char *out, size_t size, size_t *used, uint64_t arc)
{
	char digits[21];
	size_t at = sizeof(digits);

	do
		digits[--at] = (char)('0' + arc % 10);
	while ((arc /= 10) > 0);
	if (*used > 0)
		digits[--at] = '.';
	while (at < sizeof(digits) && *used + 1 < size)
		out[(*used)++] = digits[at++];
	out[*used] = '\0';
}

void
der_oid_text(char *out, size_t size, struct view contents)
{
	size_t used = 0;
	uint64_t arc = 0;

	assert(size > 0);
	out[0] = '\0';
	for (size_t i = 0; i < contents.len; i++) {
		if (arc > UINT64_MAX >> 7) { /* nobody has such an arc; show that it is odd */
			(void)snprintf(out + used, size - used, ".?");
			return;
		}
		arc = arc << 7 | (contents.data[i] & 0x7fu);
		if (contents.data[i] >= 0x80)
			continue;
		if (used == 0) {
			uint64_t top = arc < 80 ? arc / 40 : 2;

			put_arc(out, size, &used, top);
			arc -= top * 40;
		}
		put_arc(out, size, &used, arc);
		arc = 0;
	}
}

/* ---- writing ---- */

void
der_writer_init(struct der_writer *w, size_t limit_bytes)
{
	w->buf = (struct buf){ .limit_bytes = limit_bytes };
	w->depth = 0;
	w->status = OK;
}

void
der_writer_free(struct der_writer *w)
{
	buf_free(&w->buf);
}

void
der_writer_reset(struct der_writer *w)
{
	w->buf.len = 0;
	w->depth = 0;
	w->status = OK;
}

static void
add(struct der_writer *w, const void *data, size_t len)
{
	if (w->status == OK)
		w->status = buf_add(&w->buf, data, len, &w->err);
}

/* The length octets of an element; how many. */
static size_t
length_octets(uint8_t out[5], size_t len)
{
	size_t octets = 0;

	if (len < 0x80) {
		out[0] = (uint8_t)len;
		return 1;
	}
	for (size_t rest = len; rest > 0; rest >>= 8)
		octets++;
	assert(octets <= 4); /* limit_bytes is far below 4 GiB */
	out[0] = (uint8_t)(0x80u | octets);
	for (size_t i = 0; i < octets; i++)
		out[1 + i] = (uint8_t)(len >> 8 * (octets - 1 - i));
	return 1 + octets;
}

void
der_open(struct der_writer *w, unsigned tag)
{
	const uint8_t header[2] = { (uint8_t)tag, 0 };

	assert(w->depth < DER_DEPTH_MAX);
	add(w, header, sizeof(header));
	w->open[w->depth++] = w->buf.len - (w->status == OK);
}

/* One octet was kept free for the length; most elements need no more, the others are moved. */
void
der_close(struct der_writer *w)
{
	static const uint8_t zero[5] = { 0 };
	uint8_t octets[5];
	size_t at, contents_len, count;

	assert(w->depth > 0);
	at = w->open[--w->depth];
	if (w->status != OK)
		return;
	contents_len = w->buf.len - at - 1;
	count = length_octets(octets, contents_len);
	add(w, zero, count - 1);
	if (w->status != OK)
		return;
	if (count > 1)
		memmove(w->buf.data + at + count, w->buf.data + at + 1, contents_len);
	memcpy(w->buf.data + at, octets, count);
}

void
der_put(struct der_writer *w, unsigned tag, struct view contents)
{
	uint8_t header[6] = { (uint8_t)tag };

	add(w, header, 1 + length_octets(header + 1, contents.len));
	der_put_raw(w, contents);
}

void
der_put_raw(struct der_writer *w, struct view der)
{
	if (der.len > 0)
		add(w, der.data, der.len);
}

void
der_put_unsigned(struct der_writer *w, struct view magnitude)
{
	static const uint8_t zero = 0;
	uint8_t header[6] = { DER_INTEGER };
	bool pad;

	while (magnitude.len > 0 && magnitude.data[0] == 0) {
		magnitude.data++;
		magnitude.len--;
	}
	pad = magnitude.len == 0 || magnitude.data[0] >= 0x80;
	add(w, header, 1 + length_octets(header + 1, magnitude.len + pad));
	if (pad)
		add(w, &zero, 1);
	der_put_raw(w, magnitude);
}

void
der_put_number(struct der_writer *w, uint64_t number)
{
	uint8_t octets[8];

	for (size_t i = 0; i < sizeof(octets); i++)
		octets[i] = (uint8_t)(number >> 8 * (sizeof(octets) - 1 - i));
	der_put_unsigned(w, (struct view){ octets, sizeof(octets) });
}

void
der_put_boolean(struct der_writer *w, bool value)
{
	const uint8_t octet = value ? 0xff : 0x00;

	der_put(w, DER_BOOLEAN, (struct view){ &octet, 1 });
}

void
der_put_null(struct der_writer *w)
{
	der_put(w, DER_NULL, (struct view){ NULL, 0 });
}

void
der_put_bits(struct der_writer *w, struct view octets)
{
	uint8_t header[7] = { DER_BIT_STRING };
	size_t len = 1 + length_octets(header + 1, octets.len + 1);

	header[len++] = 0; /* no unused bits */
	add(w, header, len);
	der_put_raw(w, octets);
}

void
der_put_named_bits(struct der_writer *w, unsigned bits)
{
	uint8_t contents[3] = { 0 };
	unsigned highest = 0;
	size_t len = 1;

	assert(bits <= 0xffff);
	for (unsigned bit = 0; bit < 16; bit++) {
		if ((bits & 1u << bit) == 0)
			continue;
		contents[1 + bit / 8] |= (uint8_t)(0x80u >> bit % 8);
		highest = bit;
		len = 2 + bit / 8;
	}
	if (bits != 0)
		contents[0] = (uint8_t)(7 - highest % 8);
	der_put(w, DER_BIT_STRING, (struct view){ contents, len });
}

/* One arc in base 128; how many octets, at most 10. */
static size_t
arc_octets(uint8_t out[10], uint64_t arc)
{
	size_t octets = 1;

	for (uint64_t rest = arc >> 7; rest > 0; rest >>= 7)
		octets++;
	for (size_t i = 0; i < octets; i++) {
		uint64_t seven = arc >> 7 * (octets - 1 - i) & 0x7f;

		out[i] = (uint8_t)(seven | (i + 1 < octets ? 0x80 : 0));
	}
	return octets;
}

/* The next arc of a dotted text; moves *text behind it and its dot. False: no arc. */
static bool
arc_parse(const char **text, uint64_t *arc, bool *last)
{
	const char *p = *text;

	*arc = 0;
	if (*p < '0' || *p > '9' || (*p == '0' && p[1] >= '0' && p[1] <= '9'))
		return false;
	for (; *p >= '0' && *p <= '9'; p++) {
		if (*arc > UINT32_MAX) /* ours are far smaller; keeps sums from overflowing */
			return false;
		*arc = *arc * 10 + (uint64_t)(*p - '0');
	}
	*last = *p == '\0';
	*text = p + 1;
	return *p == '.' || *p == '\0';
}

#define OID_MAX_BYTES 64

void
der_put_oid(struct der_writer *w, const char *dotted)
{
	uint8_t contents[OID_MAX_BYTES + 10];
	const char *rest = dotted;
	uint64_t top, arc;
	size_t len = 0;
	bool last, ok;

	ok = arc_parse(&rest, &top, &last) && !last && arc_parse(&rest, &arc, &last) && top <= 2 &&
	     (top == 2 || arc < 40);
	if (ok)
		len = arc_octets(contents, top * 40 + arc);
	while (ok && !last && len <= OID_MAX_BYTES) {
		ok = arc_parse(&rest, &arc, &last);
		if (ok)
			len += arc_octets(contents + len, arc);
	}
	if (ok && len <= OID_MAX_BYTES)
		der_put(w, DER_OID, (struct view){ contents, len });
	else if (w->status == OK)
		w->status = err_set(&w->err, ERR_ARGUMENT, "oid_malformed",
			"%.80s: a dotted object identifier wanted", dotted);
}

static void
put_digits(uint8_t *out, unsigned number)
{
	out[0] = (uint8_t)('0' + number / 10);
	out[1] = (uint8_t)('0' + number % 10);
}

/* YYYYMMDDHHMMSSZ, digit by digit: this runs twice for each certificate. False: w has failed. */
static bool
time_text(struct der_writer *w, int64_t wall_s, uint8_t text[15], int64_t *year)
{
	struct civil t = civil_from_s(wall_s);

	*year = t.year;
	if (t.year < 1950 || t.year > 9999) {
		if (w->status == OK)
			w->status = err_set(&w->err, ERR_ARGUMENT, "time_range",
				"a year from 1950 to 9999 wanted, %" PRId64 " found", t.year);
		return false;
	}
	put_digits(text, (unsigned)(t.year / 100));
	put_digits(text + 2, (unsigned)(t.year % 100));
	put_digits(text + 4, t.month);
	put_digits(text + 6, t.day);
	put_digits(text + 8, t.hour);
	put_digits(text + 10, t.minute);
	put_digits(text + 12, t.second);
	text[14] = 'Z';
	return true;
}

void
der_put_time(struct der_writer *w, int64_t wall_s)
{
	uint8_t text[15];
	size_t at = 0;
	int64_t year;

	if (!time_text(w, wall_s, text, &year))
		return;
	if (year < 2050) /* RFC 5280 4.1.2.5 */
		at = 2;
	der_put(w, at > 0 ? DER_UTC_TIME : DER_GENERALIZED_TIME,
		(struct view){ text + at, sizeof(text) - at });
}

void
der_put_generalized_time(struct der_writer *w, int64_t wall_s)
{
	uint8_t text[15];
	int64_t year;

	if (time_text(w, wall_s, text, &year))
		der_put(w, DER_GENERALIZED_TIME, (struct view){ text, sizeof(text) });
}

enum status
der_finish(struct der_writer *w, struct err *err)
{
	if (w->status != OK) {
		*err = w->err;
		return w->status;
	}
	assert(w->depth == 0);
	return OK;
}
