/*
 * server/iot/aws_sigv4.h - AWS Signature Version 4, one pure function for both directions: the
 * client signs what it will send, the local IoT Core computes what the caller should have sent and
 * compares (sodium_memcmp). Nothing here sends, reads a clock or knows where credentials come from.
 *
 * The path is what stands in the request line, percent-encoded once already; every service but s3
 * encodes it once more ("%3A" becomes "%253A") after removing dot segments. The query is given
 * decoded.
 */
#ifndef SERVER_IOT_AWS_SIGV4_H
#define SERVER_IOT_AWS_SIGV4_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

#define AWS_DATE_BYTES 17      /* "20261124T161402Z" and NUL */
#define AWS_SIGNATURE_BYTES 65 /* hex and NUL */
#define AWS_SHA256_HEX_BYTES 65

/* Octets, so that a verifier can pass on what it got. */
struct aws_field {
	struct view name;
	struct view value;
};

struct aws_sigv4 {
	struct view method;
	struct view path;                /* as sent; empty is "/" */
	const struct aws_field *query;   /* decoded; any order; repeated names are welcome */
	size_t query_count;
	const struct aws_field
		*headers; /* those that are signed, with lower-case names, host among them */
	size_t header_count;             /* repeated names are joined by ',' in their order */
	char body_sha256[AWS_SHA256_HEX_BYTES]; /* aws_sha256_hex of the body, or
	                                           x-amz-content-sha256 */
	char date[AWS_DATE_BYTES];       /* x-amz-date; its first eight digits begin the scope */
	struct view region;
	struct view service;             /* "iot"; "s3" alone is not encoded twice */
};

void aws_date_format(char out[AWS_DATE_BYTES], int64_t wall_s);
void aws_sha256_hex(char out[AWS_SHA256_HEX_BYTES], struct view body);

/*
 * The signature. ERR_ARGUMENT aws_sigv4_malformed: a date that is not one, no headers, a control
 * character in a name; ERR_TOO_LARGE buffer_limit: the canonical request is over
 * AWS_CANONICAL_MAX_BYTES.
 */
#define AWS_CANONICAL_MAX_BYTES ((size_t)64 << 10)
MUST_USE enum status aws_sigv4_signature(const struct aws_sigv4 *request, struct view secret_key,
	char out[AWS_SIGNATURE_BYTES], struct err *err);

/* Appends "name;name;…": the SignedHeaders of request, sorted and without repeats. */
MUST_USE enum status aws_sigv4_signed_headers(const struct aws_sigv4 *request, struct buf *out,
	struct err *err);

/* Appends the whole value of the Authorization header. */
MUST_USE enum status aws_sigv4_authorization(const struct aws_sigv4 *request,
	struct view access_key, struct view secret_key, struct buf *out, struct err *err);

/* The canonical request itself, for tests and for "The Canonical String … should have been"
 * answers. */
MUST_USE enum status aws_sigv4_canonical(const struct aws_sigv4 *request, struct buf *out,
	struct err *err);

/* Appends value with all but A-Za-z0-9-._~ (and '/', if kept) percent-encoded. */
MUST_USE enum status aws_uri_encode(struct buf *out, struct view value, bool keep_slash,
	struct err *err);

#endif
