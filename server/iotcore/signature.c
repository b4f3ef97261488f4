/*
 * Who signed a request: AWS Signature Version 4 in the Authorization header or in the query
 * (presigned). Debian 12's CLI signs AWS IoT as service execute-api, newer ones as iot: both are
 * taken. Session tokens are not known here: a local user has one secret, and x-amz-security-token
 * is only held against the signature like any header.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "ca/secret.h"
#include "server/iot/aws_sigv4.h"
#include "server/iotcore/internal.h"

#define ALGORITHM "AWS4-HMAC-SHA256"
#define SKEW_S 300
#define PRESIGNED_MOST_S 604800
#define FIELDS_MAX 80 /* headers are 64 at most, a query has 2048 octets */
#define SHOWN_BYTES 64

struct signature {
	bool presigned;
	struct view credential, signed_headers, signature, date;
	struct view access_key, day, region, service; /* of the credential */
	int64_t expires_s;                            /* presigned */
};

struct fields {
	struct aws_field at[FIELDS_MAX];
	size_t count;
	bool overflow;
	struct request *request; /* whose memory decoded texts are in */
};

static struct view
view_range(const char *from, const char *to)
{
	return (struct view){ (const uint8_t *)from, (size_t)(to - from) };
}

static enum status
mismatch(struct err *err)
{
	return iotcore_error(err, "InvalidSignatureException",
		"The request signature we calculated does not match the signature you provided. "
		"Check your AWS Secret Access Key and signing method. Consult the service "
		"documentation for details.");
}

/* ---- what came ---- */

static void
put(struct fields *fields, struct view name, struct view value)
{
	if (fields->count == FIELDS_MAX)
		fields->overflow = true;
	else
		fields->at[fields->count++] = (struct aws_field){ name, value };
}

static bool
take_header(void *arg, const char *name, const char *value)
{
	struct fields *fields = arg;
	size_t len = strlen(name);
	char *lower = request_alloc(fields->request, len + 1);

	if (lower == NULL) {
		fields->overflow = true;
		return false;
	}
	for (size_t i = 0; i < len; i++)
		lower[i] = name[i] >= 'A' && name[i] <= 'Z' ? (char)(name[i] - 'A' + 'a') : name[i];
	put(fields, view_text(lower), view_text(value));
	return true;
}

/* The router has refused what is malformed. */
static struct view
decoded(struct fields *fields, const char *from, size_t len)
{
	uint8_t *out = request_alloc(fields->request, len + 1);
	size_t at = 0;

	if (out == NULL) {
		fields->overflow = true;
		return (struct view){ NULL, 0 };
	}
	for (size_t i = 0; i < len; i++)
		if (from[i] == '%' && i + 2 < len && hex_decode(out + at, 1, from + i + 1, 2)) {
			at++;
			i += 2;
		} else {
			out[at++] = from[i] == '+' ? (uint8_t)' ' : (uint8_t)from[i];
		}
	return (struct view){ out, at };
}

static void
take_query(struct fields *fields, const char *query)
{
	while (*query != '\0') {
		size_t len = strcspn(query, "&");
		const char *equals = memchr(query, '=', len);
		size_t name = equals != NULL ? (size_t)(equals - query) : len;
		struct view value = { NULL, 0 };

		if (equals != NULL)
			value = decoded(fields, equals + 1, len - name - 1);
		if (len > 0)
			put(fields, decoded(fields, query, name), value);
		query += len + (query[len] == '&');
	}
}

static struct view
find(const struct fields *fields, const char *name)
{
	for (size_t i = 0; i < fields->count; i++)
		if (view_equal_text(fields->at[i].name, name))
			return fields->at[i].value;
	return (struct view){ NULL, 0 };
}

/* ---- the parts of a signature ---- */

/* "Credential=a, SignedHeaders=b, Signature=c" in any order. */
static struct view
part(const char *text, const char *name)
{
	size_t len = strlen(name);

	while (*text != '\0') {
		const char *end;

		text += strspn(text, ", \t");
		end = text + strcspn(text, ", \t");
		if ((size_t)(end - text) > len && strncmp(text, name, len) == 0 && text[len] == '=')
			return view_range(text + len + 1, end);
		text = end;
	}
	return (struct view){ NULL, 0 };
}

/* KEY/20261124/REGION/SERVICE/aws4_request */
static bool
split_credential(struct signature *it)
{
	const char *at = (const char *)it->credential.data;
	const char *end = at + it->credential.len;
	struct view parts[5];

	for (size_t i = 0; i < COUNT_OF(parts); i++) {
		const char *slash = memchr(at, '/', (size_t)(end - at));

		if ((slash == NULL) != (i + 1 == COUNT_OF(parts)))
			return false;
		parts[i] = view_range(at, slash != NULL ? slash : end);
		at = slash != NULL ? slash + 1 : end;
	}
	it->access_key = parts[0];
	it->day = parts[1];
	it->region = parts[2];
	it->service = parts[3];
	return view_equal_text(parts[4], "aws4_request") && parts[0].len > 0 && parts[1].len == 8;
}

static enum status
incomplete(struct err *err, const char *missing)
{
	return iotcore_error(err, "IncompleteSignatureException",
		"Authorization header or query requires '%s' parameter.", missing);
}

static enum status
check_parts(struct signature *it, struct err *err)
{
	if (it->credential.len == 0)
		return incomplete(err, it->presigned ? "X-Amz-Credential" : "Credential");
	if (it->signature.len == 0)
		return incomplete(err, it->presigned ? "X-Amz-Signature" : "Signature");
	if (it->signed_headers.len == 0)
		return incomplete(err, it->presigned ? "X-Amz-SignedHeaders" : "SignedHeaders");
	if (it->date.len != AWS_DATE_BYTES - 1)
		return incomplete(err, "X-Amz-Date");
	if (!split_credential(it))
		return iotcore_error(err, "IncompleteSignatureException",
			"Credential must have exactly 5 slash-delimited elements, e.g. "
			"keyid/date/region/service/term");
	return OK;
}

static enum status
read_signature(struct signature *it, const struct fields *headers, const struct fields *query,
	struct err *err)
{
	struct view header = find(headers, "authorization");
	struct view expires = find(query, "X-Amz-Expires");
	const char *text = (const char *)header.data;

	memset(it, 0, sizeof(*it));
	if (header.len > 0) {
		if (strncmp(text, ALGORITHM " ", strlen(ALGORITHM) + 1) != 0)
			return iotcore_error(err, "IncompleteSignatureException",
				"Unsupported AWS 'algorithm': '" ALGORITHM "' wanted.");
		text += strlen(ALGORITHM);
		it->credential = part(text, "Credential");
		it->signed_headers = part(text, "SignedHeaders");
		it->signature = part(text, "Signature");
		it->date = find(headers, "x-amz-date");
		return check_parts(it, err);
	}
	if (!view_equal_text(find(query, "X-Amz-Algorithm"), ALGORITHM))
		return iotcore_error(
			err, "MissingAuthenticationTokenException", "Missing Authentication Token");
	it->presigned = true;
	it->credential = find(query, "X-Amz-Credential");
	it->signed_headers = find(query, "X-Amz-SignedHeaders");
	it->signature = find(query, "X-Amz-Signature");
	it->date = find(query, "X-Amz-Date");
	if (expires.len == 0 || expires.len > 6)
		return incomplete(err, "X-Amz-Expires");
	for (size_t i = 0; i < expires.len; i++) {
		if (expires.data[i] < '0' || expires.data[i] > '9')
			return incomplete(err, "X-Amz-Expires");
		it->expires_s = it->expires_s * 10 + (expires.data[i] - '0');
	}
	if (it->expires_s < 1 || it->expires_s > PRESIGNED_MOST_S)
		return incomplete(err, "X-Amz-Expires");
	return check_parts(it, err);
}

/* ---- scope and time ---- */

static enum status
check_scope(const struct signature *it, const struct core *core, struct err *err)
{
	if (!view_equal_text(it->region, core->region))
		return iotcore_error(err, "InvalidSignatureException",
			"Credential should be scoped to a valid region, not '%.*s'.",
			(int)(it->region.len < SHOWN_BYTES ? it->region.len : SHOWN_BYTES),
			(const char *)it->region.data);
	if (!view_equal_text(it->service, "iot") && !view_equal_text(it->service, "execute-api"))
		return iotcore_error(err, "InvalidSignatureException",
			"Credential should be scoped to correct service: 'iot'.");
	if (!view_equal(it->day, (struct view){ it->date.data, it->day.len }))
		return iotcore_error(err, "InvalidSignatureException",
			"Date in Credential scope does not match YYYYMMDD from ISO-8601 version of "
			"date from HTTP");
	return OK;
}

/* "20261124T161402Z" */
static bool
parse_date(int64_t *out_s, struct view date)
{
	const char *at = (const char *)date.data;
	char text[TIME_TEXT_BYTES];

	for (size_t i = 0; i < date.len; i++)
		if (i == 8 ? at[i] != 'T' : i == 15 ? at[i] != 'Z' : at[i] < '0' || at[i] > '9')
			return false;
	(void)snprintf(text, sizeof(text), "%.4s-%.2s-%.2sT%.2s:%.2s:%.2sZ", at, at + 4, at + 6,
		at + 9, at + 11, at + 13);
	return time_parse(out_s, view_text(text));
}

static enum status
check_time(const struct signature *it, int64_t now_s, struct err *err)
{
	int64_t late_s = it->presigned ? it->expires_s : SKEW_S;
	char date[AWS_DATE_BYTES], now[AWS_DATE_BYTES], bound[AWS_DATE_BYTES];
	int64_t at_s;

	if (!parse_date(&at_s, it->date))
		return iotcore_error(err, "IncompleteSignatureException",
			"Date must be in ISO-8601 'basic format'.");
	aws_date_format(date, at_s);
	aws_date_format(now, now_s);
	if (now_s - at_s > late_s) {
		aws_date_format(bound, now_s - late_s);
		return iotcore_error(err, "InvalidSignatureException",
			"Signature expired: %s is now earlier than %s (%s - %" PRId64 " %s)", date,
			bound, now, it->presigned ? late_s : late_s / 60,
			it->presigned ? "sec." : "min.");
	}
	if (at_s - now_s > SKEW_S) {
		aws_date_format(bound, now_s + SKEW_S);
		return iotcore_error(err, "InvalidSignatureException",
			"Signature not yet current: %s is still later than %s (%s + 5 min.)", date,
			bound, now);
	}
	return OK;
}

/* ---- what is signed ---- */

static bool
is_named(struct view list, struct view name)
{
	const char *at = (const char *)list.data;
	const char *end = at + list.len;

	while (at < end) {
		const char *semicolon = memchr(at, ';', (size_t)(end - at));
		const char *stop = semicolon != NULL ? semicolon : end;

		if (view_equal(view_range(at, stop), name))
			return true;
		at = stop + 1;
	}
	return false;
}

/* A header of AWS's own that is not signed could have been put there by anyone on the way. */
static enum status
select_headers(struct fields *out, const struct fields *headers, const struct signature *it,
	struct err *err)
{
	if (!is_named(it->signed_headers, view_text("host")))
		return iotcore_error(err, "InvalidSignatureException",
			"'Host' or ':authority' must be a 'SignedHeader' in the AWS "
		        "Authorization.");
	for (size_t i = 0; i < headers->count; i++) {
		struct aws_field field = headers->at[i];

		if (is_named(it->signed_headers, field.name))
			put(out, field.name, field.value);
		else if (field.name.len > 5 && memcmp(field.name.data, "x-amz", 5) == 0)
			return iotcore_error(err, "InvalidSignatureException",
				"'%.*s' must be a 'SignedHeader' in the AWS Authorization.",
				(int)(field.name.len < SHOWN_BYTES ? field.name.len : SHOWN_BYTES),
				(const char *)field.name.data);
	}
	return OK;
}

static void
select_query(struct fields *out, const struct fields *query, bool presigned)
{
	for (size_t i = 0; i < query->count; i++)
		if (!presigned || !view_equal_text(query->at[i].name, "X-Amz-Signature"))
			put(out, query->at[i].name, query->at[i].value);
}

/* SignedHeaders must be what the canonical request is made of: each there, sorted, once. */
static enum status
check_signed_headers(const struct aws_sigv4 *what, const struct signature *it, struct err *err)
{
	own_struct(buf) names = { .limit_bytes = 16384 };

	if (aws_sigv4_signed_headers(what, &names, err) != OK)
		return mismatch(err);
	return view_equal(buf_view(&names), it->signed_headers) ? OK : mismatch(err);
}

static enum status
check_signature(const struct signature *it, const struct request *request,
	const struct core_user *user, const struct fields *headers, const struct fields *query,
	struct err *err)
{
	struct view claimed = find(headers, "x-amz-content-sha256");
	struct aws_sigv4 what = { .method = view_text(request_method(request)),
		.path = view_text(request_path(request)),
		.query = query->at,
		.query_count = query->count,
		.headers = headers->at,
		.header_count = headers->count,
		.region = it->region,
		.service = it->service };
	char wanted[AWS_SIGNATURE_BYTES];
	enum status status;

	memcpy(what.date, it->date.data, AWS_DATE_BYTES - 1);
	aws_sha256_hex(what.body_sha256, request_body(request));
	if (claimed.len > 0 && !view_equal_text(claimed, what.body_sha256))
		return iotcore_error(err, "InvalidSignatureException",
			"The value passed in for x-amz-content-sha256 does not match the body.");
	TRY(check_signed_headers(&what, it, err));
	status = aws_sigv4_signature(&what, user->secret, wanted, err);
	if (status == ERR_ARGUMENT || status == ERR_TOO_LARGE)
		return mismatch(err);
	TRY(status);
	return secret_equal(view_text(wanted), it->signature) ? OK : mismatch(err);
}

enum status
core_verify(const struct core_user **user, struct request *request, const struct core *core,
	const struct core_users *users, struct err *err)
{
	struct fields headers = { .request = request }, query = { .request = request };
	struct fields signed_headers = { .count = 0 }, signed_query = { .count = 0 };
	struct signature it;

	request_headers(request, take_header, &headers);
	take_query(&query, request_query_text(request));
	if (headers.overflow || query.overflow)
		return iotcore_error(err, "IncompleteSignatureException",
			"Too many headers or query parameters.");
	TRY(read_signature(&it, &headers, &query, err));
	*user = core_users_find(users, it.access_key);
	if (*user == NULL)
		return iotcore_error(err, "UnrecognizedClientException",
			"The security token included in the request is invalid.");
	TRY(check_scope(&it, core, err));
	TRY(check_time(&it, clock_wall_s(core->clock), err));
	TRY(select_headers(&signed_headers, &headers, &it, err));
	select_query(&signed_query, &query, it.presigned);
	return check_signature(&it, request, *user, &signed_headers, &signed_query, err);
}
