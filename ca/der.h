/*
 * ca/der.h - the Distinguished Encoding Rules (X.690 section 10), read strictly and written.
 *
 * Reading: definite, minimal lengths; low tag numbers only; no trailing octets once der_end() is
 * asked; INTEGER, OID, BOOLEAN, BIT STRING and times in their one allowed form. What is read is
 * borrowed from the input. Every refusal has the reader's code and names its object and the field.
 * Nothing recurses and nothing allocates.
 *
 * Writing: a writer keeps its first failure, so that a structure can be written from top to bottom
 * without a check on each line; der_finish() tells. Threads: a reader or writer belongs to one.
 */
#ifndef CA_DER_H
#define CA_DER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

enum der_tag {
	DER_BOOLEAN = 0x01,
	DER_INTEGER = 0x02,
	DER_BIT_STRING = 0x03,
	DER_OCTET_STRING = 0x04,
	DER_NULL = 0x05,
	DER_OID = 0x06,
	DER_ENUMERATED = 0x0a,
	DER_UTF8_STRING = 0x0c,
	DER_PRINTABLE_STRING = 0x13,
	DER_T61_STRING = 0x14,
	DER_IA5_STRING = 0x16,
	DER_UTC_TIME = 0x17,
	DER_GENERALIZED_TIME = 0x18,
	DER_UNIVERSAL_STRING = 0x1c,
	DER_BMP_STRING = 0x1e,
	DER_SEQUENCE = 0x30,
	DER_SET = 0x31,
};
#define DER_CONTEXT(n) (0x80u | (n))             /* [n] IMPLICIT of a primitive type */
#define DER_CONTEXT_CONSTRUCTED(n) (0xa0u | (n)) /* [n] EXPLICIT, or IMPLICIT of a constructed one */

/* ---- reading ---- */

struct der {
	struct view rest; /* what is not read yet */
	const char *code; /* of its errors, such as "csr_malformed" */
	const char *what; /* the object, in front of error texts: "csr" */
};

static inline struct der
der_of(struct view input, const char *code, const char *what)
{
	return (struct der){ input, code, what };
}

/* True if the next element has this tag; false at the end as well. */
static inline bool
der_next_is(const struct der *in, unsigned tag)
{
	return in->rest.len > 0 && in->rest.data[0] == tag;
}

static inline bool
der_at_end(const struct der *in)
{
	return in->rest.len == 0;
}

/* In all of these field names what is read, for the error: "version", "RFC 2986 4.1: version". */

/* The next element, whatever it is: its tag, its contents, and itself whole. Any out may be NULL. */
MUST_USE enum status der_any(struct der *in, const char *field, uint8_t *tag, struct view *contents,
	struct view *whole, struct err *err);
/* The contents of the next element, which must have this tag. */
MUST_USE enum status der_take(struct der *in, unsigned tag, const char *field, struct view *contents,
	struct err *err);
/* The same, with tag and length. */
MUST_USE enum status der_take_whole(struct der *in, unsigned tag, const char *field,
	struct view *whole, struct err *err);
/* A reader inside of the next element. */
MUST_USE enum status der_enter(struct der *in, unsigned tag, const char *field, struct der *inside,
	struct err *err);
/* Refuses what is left over. */
MUST_USE enum status der_end(const struct der *in, const char *field, struct err *err);
/* Refuses with the reader's code: "WHAT: text". For rules above the encoding. */
enum status der_refuse(const struct der *in, struct err *err, const char *fmt, ...) PRINTF(3, 4);
#define der_refuse(...) err_failed(der_refuse(__VA_ARGS__))

/* The contents octets of an INTEGER, minimal, of either sign, at least one octet. */
MUST_USE enum status der_integer(struct der *in, const char *field, struct view *contents,
	struct err *err);
/* The magnitude of an INTEGER that is not negative, without leading zero octets (0: empty). */
MUST_USE enum status der_unsigned(struct der *in, const char *field, struct view *magnitude,
	struct err *err);
/* An INTEGER in 0 .. 2^63 - 1. */
MUST_USE enum status der_number(struct der *in, const char *field, uint64_t *number,
	struct err *err);
MUST_USE enum status der_boolean(struct der *in, const char *field, bool *value, struct err *err);
/* A BOOLEAN DEFAULT FALSE: absent is false, present must be TRUE (X.690 11.5). */
MUST_USE enum status der_boolean_default_false(struct der *in, const char *field, bool *value,
	struct err *err);
MUST_USE enum status der_oid(struct der *in, const char *field, struct view *contents,
	struct err *err);
MUST_USE enum status der_null(struct der *in, const char *field, struct err *err);
MUST_USE enum status der_octets(struct der *in, const char *field, struct view *contents,
	struct err *err);
/* A BIT STRING that fills whole octets (keys, signatures). */
MUST_USE enum status der_bits(struct der *in, const char *field, struct view *octets,
	struct err *err);
/* A BIT STRING of named bits (KeyUsage, ReasonFlags), at most 16: bit n of the standard is bit n of
 * *bits. Trailing zero bits are refused (X.690 11.2.2). */
MUST_USE enum status der_named_bits(struct der *in, const char *field, unsigned *bits,
	struct err *err);
/*
 * UTCTime (YYMMDDHHMMSSZ) or GeneralizedTime (YYYYMMDDHHMMSSZ) in the form of RFC 5280 4.1.2.5: with
 * seconds, in Zulu, without a fraction. Years through 2049 must be a UTCTime. Seconds since 1970.
 */
MUST_USE enum status der_time(struct der *in, const char *field, int64_t *wall_s, struct err *err);
/* YYYYMMDDHHMMSSZ alone, of any year from 1970 on (RFC 6960 4.2.1: OCSP knows no UTCTime). */
MUST_USE enum status der_generalized_time(struct der *in, const char *field, int64_t *wall_s,
	struct err *err);

/* Do the contents of an OID equal those octets? OIDs of the field are kept as DER contents. */
#define DER_OID_IS(contents, octets)                                                               \
	view_equal((contents), (struct view){ (const uint8_t *)("" octets), sizeof(octets) - 1 })
/* "1.2.840.10045.4.3.2" and NUL; cut at size. */
void der_oid_text(char *out, size_t size, struct view contents);

/* ---- writing ---- */

#define DER_DEPTH_MAX 16

struct der_writer {
	struct buf buf;
	size_t open[DER_DEPTH_MAX]; /* where the length of each open element stands */
	size_t depth;
	enum status status; /* OK until something fails */
	struct err err;
};

/* For own_struct(der_writer) and for writers kept for long. limit_bytes: of the finished encoding. */
void der_writer_init(struct der_writer *w, size_t limit_bytes);
void der_writer_free(struct der_writer *w); /* may run twice */
OWNER_STRUCT(der_writer, der_writer_free)
/* Empties it for the next structure; keeps its memory. */
void der_writer_reset(struct der_writer *w);

/* Opens an element; closed by der_close. At most DER_DEPTH_MAX deep (asserted). */
void der_open(struct der_writer *w, unsigned tag);
void der_close(struct der_writer *w);

void der_put(struct der_writer *w, unsigned tag, struct view contents);
/* Octets as they are: elements encoded elsewhere. */
void der_put_raw(struct der_writer *w, struct view der);
/* A magnitude, big-endian: leading zeros are dropped, one is added where the sign needs it. */
void der_put_unsigned(struct der_writer *w, struct view magnitude);
void der_put_number(struct der_writer *w, uint64_t number);
void der_put_boolean(struct der_writer *w, bool value);
void der_put_null(struct der_writer *w);
void der_put_bits(struct der_writer *w, struct view octets);
void der_put_named_bits(struct der_writer *w, unsigned bits); /* bit n of the standard is bit n */
/* "2.5.29.15"; a text that is no OID makes the writer fail with ERR_ARGUMENT oid_malformed. */
void der_put_oid(struct der_writer *w, const char *dotted);
/* UTCTime through 2049, GeneralizedTime after; years 1950 to 9999 (else ERR_ARGUMENT time_range). */
void der_put_time(struct der_writer *w, int64_t wall_s);
/* A GeneralizedTime, whatever the year. */
void der_put_generalized_time(struct der_writer *w, int64_t wall_s);

/*
 * The first failure, or OK when everything is closed. The encoding is then in w->buf
 * (buf_view/buf_give).
 */
MUST_USE enum status der_finish(struct der_writer *w, struct err *err);

#endif
