#include "server/iot/aws_sigv4.h"

#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"

#define ALGORITHM "AWS4-HMAC-SHA256"
#define SCOPE_DATE_LEN 8
#define SECRET_MAX_BYTES 256
/* More than any request of this service has; bounds what a verifier sorts. */
#define FIELDS_MAX 256

void
aws_date_format(char out[AWS_DATE_BYTES], int64_t wall_s)
{
	char text[TIME_TEXT_BYTES];
	size_t len = 0;

	time_format(text, wall_s);
	for (const char *at = text; *at != '\0' && len + 1 < AWS_DATE_BYTES; at++)
		if (*at != '-' && *at != ':')
			out[len++] = *at;
	out[len] = '\0';
}

void
aws_sha256_hex(char out[AWS_SHA256_HEX_BYTES], struct view body)
{
	uint8_t digest[crypto_hash_sha256_BYTES];

	(void)crypto_hash_sha256(digest, body.data, body.len);
	hex_encode(out, digest, sizeof(digest));
}

static bool
is_unreserved(uint8_t c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
	       c == '-' || c == '.' || c == '_' || c == '~';
}

enum status
aws_uri_encode(struct buf *out, struct view value, bool keep_slash, struct err *err)
{
	static const char DIGITS[] = "0123456789ABCDEF";

	for (size_t i = 0; i < value.len; i++) {
		uint8_t c = value.data[i];
		char escape[3] = { '%', DIGITS[c >> 4], DIGITS[c & 15] };

		if (is_unreserved(c) || (keep_slash && c == '/'))
			TRY(buf_add(out, &c, 1, err));
		else
			TRY(buf_add(out, escape, sizeof(escape), err));
	}
	return OK;
}

/* ---- path ---- */

/* The next segment of path from *at, without its slashes; false at the end. */
static bool
next_segment(struct view path, size_t *at, struct view *segment)
{
	while (*at < path.len && path.data[*at] == '/')
		(*at)++;
	if (*at == path.len)
		return false;
	segment->data = path.data + *at;
	segment->len = 0;
	while (*at < path.len && path.data[*at] != '/') {
		(*at)++;
		segment->len++;
	}
	return true;
}

/*
 * RFC 3986 5.2.4, and repeated slashes become one, as AWS's own signers do. Works in out alone: a
 * ".." takes back what the segment before it wrote.
 */
static enum status
add_normal_path(struct buf *out, struct view path, struct err *err)
{
	size_t start = out->len;
	size_t at = 0;
	struct view segment = { NULL, 0 };

	while (next_segment(path, &at, &segment)) {
		if (view_equal_text(segment, "."))
			continue;
		if (view_equal_text(segment, "..")) {
			while (out->len > start && out->data[--out->len] != '/')
				;
			continue;
		}
		TRY(buf_text(out, "/", err));
		TRY(aws_uri_encode(out, segment, false, err));
	}
	if (out->len == start || path.data[path.len - 1] == '/')
		TRY(buf_text(out, "/", err));
	return OK;
}

static enum status
add_path(struct buf *out, const struct aws_sigv4 *request, struct err *err)
{
	if (view_equal_text(request->service, "s3"))
		return request->path.len == 0
		               ? buf_text(out, "/", err)
		               : buf_add(out, request->path.data, request->path.len, err);
	return add_normal_path(out, request->path, err);
}

/* ---- query ---- */

/* Where an encoded pair stands in the text that was encoded first. */
struct span {
	size_t name, name_len, value, value_len;
};

static int
compare_octets(const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len)
{
	size_t shorter = a_len < b_len ? a_len : b_len;
	int order = shorter > 0 ? memcmp(a, b, shorter) : 0;

	return order != 0 ? order : (a_len > b_len) - (a_len < b_len);
}

/* By encoded name, then by encoded value: not by the whole "name=value", where '=' takes part. */
static int
compare_pairs(const void *a, const void *b, void *arg)
{
	const struct span *left = a;
	const struct span *right = b;
	const uint8_t *text = arg;
	int order = compare_octets(
		text + left->name, left->name_len, text + right->name, right->name_len);

	return order != 0 ? order
	                  : compare_octets(text + left->value, left->value_len, text + right->value,
	                            right->value_len);
}

static enum status
encode_pairs(struct buf *text, struct span *spans, const struct aws_sigv4 *request, struct err *err)
{
	for (size_t i = 0; i < request->query_count; i++) {
		const struct aws_field *field = &request->query[i];

		spans[i].name = text->len;
		TRY(aws_uri_encode(text, field->name, false, err));
		spans[i].name_len = text->len - spans[i].name;
		spans[i].value = text->len;
		TRY(aws_uri_encode(text, field->value, false, err));
		spans[i].value_len = text->len - spans[i].value;
	}
	/* So that there is a text to point into, even if all are empty. */
	return buf_reserve(text, 1, err);
}

static enum status
add_query(struct buf *out, const struct aws_sigv4 *request, struct err *err)
{
	own_struct(buf) text = { .limit_bytes = AWS_CANONICAL_MAX_BYTES };
	struct span spans[FIELDS_MAX];

	if (request->query_count == 0)
		return OK;
	TRY(encode_pairs(&text, spans, request, err));
	qsort_r(spans, request->query_count, sizeof(spans[0]), compare_pairs, text.data);
	for (size_t i = 0; i < request->query_count; i++) {
		if (i > 0)
			TRY(buf_text(out, "&", err));
		TRY(buf_add(out, text.data + spans[i].name, spans[i].name_len, err));
		TRY(buf_text(out, "=", err));
		TRY(buf_add(out, text.data + spans[i].value, spans[i].value_len, err));
	}
	return OK;
}

/* ---- headers ---- */

struct sorted {
	const struct aws_field *field;
};

/* By name; repeats keep their order, which their place in the caller's array tells. */
static int
compare_headers(const void *a, const void *b)
{
	const struct aws_field *left = ((const struct sorted *)a)->field;
	const struct aws_field *right = ((const struct sorted *)b)->field;
	int order = compare_octets(
		left->name.data, left->name.len, right->name.data, right->name.len);

	return order != 0 ? order : (left > right) - (left < right);
}

static void
sort_headers(struct sorted sorted[FIELDS_MAX], const struct aws_sigv4 *request)
{
	for (size_t i = 0; i < request->header_count; i++)
		sorted[i].field = &request->headers[i];
	qsort(sorted, request->header_count, sizeof(sorted[0]), compare_headers);
}

static bool
is_space(uint8_t c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

/* Trimmed, and every run of white space one blank. */
static enum status
add_value(struct buf *out, struct view value, struct err *err)
{
	bool gap = false;
	size_t start = out->len;

	for (size_t i = 0; i < value.len; i++) {
		if (is_space(value.data[i])) {
			gap = true;
			continue;
		}
		if (gap && out->len > start)
			TRY(buf_text(out, " ", err));
		gap = false;
		TRY(buf_add(out, &value.data[i], 1, err));
	}
	return OK;
}

static enum status
add_headers(struct buf *out, const struct aws_sigv4 *request, struct err *err)
{
	struct sorted sorted[FIELDS_MAX] = { { NULL } };

	sort_headers(sorted, request);
	for (size_t i = 0; i < request->header_count; i++) {
		if (i > 0 && view_equal(sorted[i].field->name, sorted[i - 1].field->name)) {
			TRY(buf_text(out, ",", err));
		} else {
			TRY(buf_text(out, i > 0 ? "\n" : "", err));
			TRY(buf_add(
				out, sorted[i].field->name.data, sorted[i].field->name.len, err));
			TRY(buf_text(out, ":", err));
		}
		TRY(add_value(out, sorted[i].field->value, err));
	}
	return buf_text(out, "\n", err);
}

enum status
aws_sigv4_signed_headers(const struct aws_sigv4 *request, struct buf *out, struct err *err)
{
	struct sorted sorted[FIELDS_MAX] = { { NULL } };

	if (request->header_count > FIELDS_MAX)
		return err_set(err, ERR_ARGUMENT, "aws_sigv4_malformed", "more than %d headers",
			FIELDS_MAX);
	sort_headers(sorted, request);
	for (size_t i = 0; i < request->header_count; i++) {
		if (i > 0 && view_equal(sorted[i].field->name, sorted[i - 1].field->name))
			continue;
		TRY(buf_text(out, i > 0 ? ";" : "", err));
		TRY(buf_add(out, sorted[i].field->name.data, sorted[i].field->name.len, err));
	}
	return OK;
}

/* ---- the whole ---- */

static enum status
check_header_name(struct view name, struct err *err)
{
	for (size_t i = 0; i < name.len; i++) {
		uint8_t c = name.data[i];

		/* RFC 9110 5.6.2 without upper case; ':', ';' and LF would be read as structure. */
		if (!is_unreserved(c) && (c == '\0' || strchr("!#$%&'*+^`|", c) == NULL))
			return err_set(err, ERR_ARGUMENT, "aws_sigv4_malformed",
				"header name: octet %u of it is no token", (unsigned)i);
		if (c >= 'A' && c <= 'Z')
			return err_set(err, ERR_ARGUMENT, "aws_sigv4_malformed",
				"header name: lower case wanted");
	}
	return name.len > 0
	               ? OK
	               : err_set(err, ERR_ARGUMENT, "aws_sigv4_malformed", "header without a name");
}

static enum status
check(const struct aws_sigv4 *request, struct err *err)
{
	static const char FORM[] = "dddddddd" "T" "dddddd" "Z";

	for (size_t i = 0; i < sizeof(FORM); i++) {
		char c = request->date[i];

		if (FORM[i] == 'd' ? c < '0' || c > '9' : c != FORM[i])
			return err_set(err, ERR_ARGUMENT, "aws_sigv4_malformed",
				"date: YYYYMMDDThhmmssZ wanted");
	}
	if (request->header_count == 0 || request->header_count > FIELDS_MAX ||
		request->query_count > FIELDS_MAX)
		return err_set(err, ERR_ARGUMENT, "aws_sigv4_malformed",
			"1 to %d headers and at most as many query values wanted, %zu and %zu "
		        "found",
			FIELDS_MAX, request->header_count, request->query_count);
	for (size_t i = 0; i < request->header_count; i++)
		TRY(check_header_name(request->headers[i].name, err));
	return OK;
}

enum status
aws_sigv4_canonical(const struct aws_sigv4 *request, struct buf *out, struct err *err)
{
	TRY(check(request, err));
	TRY(buf_add(out, request->method.data, request->method.len, err));
	TRY(buf_text(out, "\n", err));
	TRY(add_path(out, request, err));
	TRY(buf_text(out, "\n", err));
	TRY(add_query(out, request, err));
	TRY(buf_text(out, "\n", err));
	TRY(add_headers(out, request, err));
	TRY(buf_text(out, "\n", err));
	TRY(aws_sigv4_signed_headers(request, out, err));
	TRY(buf_text(out, "\n", err));
	return buf_text(out, request->body_sha256, err);
}

static enum status
add_scope(struct buf *out, const struct aws_sigv4 *request, struct err *err)
{
	TRY(buf_add(out, request->date, SCOPE_DATE_LEN, err));
	TRY(buf_text(out, "/", err));
	TRY(buf_add(out, request->region.data, request->region.len, err));
	TRY(buf_text(out, "/", err));
	TRY(buf_add(out, request->service.data, request->service.len, err));
	return buf_text(out, "/aws4_request", err);
}

static void
hmac(uint8_t out[crypto_auth_hmacsha256_BYTES], const void *key, size_t key_len, struct view data)
{
	crypto_auth_hmacsha256_state state;

	(void)crypto_auth_hmacsha256_init(&state, key, key_len);
	(void)crypto_auth_hmacsha256_update(&state, data.data, data.len);
	(void)crypto_auth_hmacsha256_final(&state, out);
	sodium_memzero(&state, sizeof(state));
}

/* AWS4 + secret → date → region → service → "aws4_request"; each key makes the next. */
static void
derive_and_sign(uint8_t out[crypto_auth_hmacsha256_BYTES], const struct aws_sigv4 *request,
	struct view secret_key, struct view text)
{
	const struct view steps[] = { { (const uint8_t *)request->date, SCOPE_DATE_LEN },
		request->region, request->service, view_text("aws4_request"), text };
	uint8_t key[4 + SECRET_MAX_BYTES] = { 'A', 'W', 'S', '4' };
	size_t key_len = 4 + secret_key.len;

	if (secret_key.len > 0)
		memcpy(key + 4, secret_key.data, secret_key.len);
	for (size_t i = 0; i < COUNT_OF(steps); i++) {
		hmac(out, key, key_len, steps[i]);
		memcpy(key, out, crypto_auth_hmacsha256_BYTES);
		key_len = crypto_auth_hmacsha256_BYTES;
	}
	sodium_memzero(key, sizeof(key));
}

enum status
aws_sigv4_signature(const struct aws_sigv4 *request, struct view secret_key,
	char out[AWS_SIGNATURE_BYTES], struct err *err)
{
	own_struct(buf) canonical = { .limit_bytes = AWS_CANONICAL_MAX_BYTES };
	own_struct(buf) text = { .limit_bytes = AWS_CANONICAL_MAX_BYTES };
	uint8_t signature[crypto_auth_hmacsha256_BYTES];
	char digest[AWS_SHA256_HEX_BYTES];

	if (secret_key.len > SECRET_MAX_BYTES)
		return err_set(err, ERR_ARGUMENT, "aws_sigv4_malformed",
			"secret key: at most %d characters wanted", SECRET_MAX_BYTES);
	TRY(aws_sigv4_canonical(request, &canonical, err));
	aws_sha256_hex(digest, buf_view(&canonical));
	TRY(buf_format(&text, err, ALGORITHM "\n%s\n", request->date));
	TRY(add_scope(&text, request, err));
	TRY(buf_format(&text, err, "\n%s", digest));
	derive_and_sign(signature, request, secret_key, buf_view(&text));
	hex_encode(out, signature, sizeof(signature));
	return OK;
}

enum status
aws_sigv4_authorization(const struct aws_sigv4 *request, struct view access_key,
	struct view secret_key, struct buf *out, struct err *err)
{
	char signature[AWS_SIGNATURE_BYTES];

	TRY(aws_sigv4_signature(request, secret_key, signature, err));
	TRY(buf_text(out, ALGORITHM " Credential=", err));
	TRY(buf_add(out, access_key.data, access_key.len, err));
	TRY(buf_text(out, "/", err));
	TRY(add_scope(out, request, err));
	TRY(buf_text(out, ", SignedHeaders=", err));
	TRY(aws_sigv4_signed_headers(request, out, err));
	return buf_format(out, err, ", Signature=%s", signature);
}
