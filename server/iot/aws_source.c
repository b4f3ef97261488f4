#include "server/iot/aws_source.h"

#include <curl/curl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "server/iot/aws_profile.h"
#include "server/iot/aws_sigv4.h"

#define URL_BYTES 2200
#define HEADER_BYTES 4096
#define BODY_MAX_BYTES ((size_t)64 << 10)
#define ANSWER_MAX_BYTES ((size_t)64 << 10)
/* AWS's bound on a web identity token. */
#define TOKEN_MAX_BYTES 20000
#define METADATA_TIMEOUT_MS 1000
#define CONTAINER_TIMEOUT_MS 2000
#define CONTAINER_TRIES 3
#define CONTAINER_PAUSE_MS 1000
#define STS_TIMEOUT_MS 10000
#define STS_TRIES 3
#define STS_PAUSE_MS 500
#define STS_TYPE "application/x-www-form-urlencoded; charset=utf-8"
#define METADATA_HOST "http://169.254.169.254"
#define CONTAINER_HOST "http://169.254.170.2"
#define ROLE_PATH "/latest/meta-data/iam/security-credentials/"
/* Six hours, the longest there is. */
#define METADATA_TTL "x-aws-ec2-metadata-token-ttl-seconds: 21600"

OWNER(CURLU, curl_url_cleanup)
OWNER(json_t, json_decref)

const char *
aws_environment(const char *const *environment, const char *name)
{
	size_t len = strlen(name);
	const char *value = NULL;

	if (environment == NULL)
		value = getenv(name);
	else
		for (; value == NULL && *environment != NULL; environment++)
			if (strncmp(*environment, name, len) == 0 && (*environment)[len] == '=')
				value = *environment + len + 1;
	return value != NULL && *value != '\0' ? value : NULL;
}

/* ---- keys ---- */

/* Printable and without blanks: it goes into a header. */
static bool
is_word(struct view text)
{
	for (size_t i = 0; i < text.len; i++)
		if (text.data[i] <= ' ' || text.data[i] > '~')
			return false;
	return text.data != NULL && text.len > 0;
}

enum status
aws_keys_set(struct aws_keys *out, const char *source, struct view access_key,
	struct view secret_key, struct view session_token, struct view expiration, struct err *err)
{
	*out = (struct aws_keys){ .source = source };
	if (!is_word(access_key) || access_key.len >= AWS_ACCESS_KEY_BYTES)
		return err_set(err, ERR_UNAUTHENTICATED, "aws_credentials_malformed",
			"%s: access key id of 1 to %d characters wanted", source,
			AWS_ACCESS_KEY_BYTES - 1);
	if (!is_word(secret_key) || secret_key.len > 256)
		return err_set(err, ERR_UNAUTHENTICATED, "aws_credentials_malformed",
			"%s: secret access key of 1 to 256 characters wanted", source);
	if (session_token.len > 0 &&
		(!is_word(session_token) || session_token.len > HEADER_BYTES - 64))
		return err_set(err, ERR_UNAUTHENTICATED, "aws_credentials_malformed",
			"%s: session token of at most %d characters wanted", source,
			HEADER_BYTES - 64);
	if (expiration.len > 0 && !time_parse(&out->expires_s, expiration))
		return err_set(err, ERR_UNAUTHENTICATED, "aws_credentials_malformed",
			"%s: expiration: RFC 3339 wanted", source);
	(void)snprintf(out->access_key, sizeof(out->access_key), "%.*s", (int)access_key.len,
		(const char *)access_key.data);
	TRY(secret_copy(&out->secret_key, secret_key, err));
	return session_token.len > 0 ? secret_copy(&out->session_token, session_token, err) : OK;
}

static struct view
json_view(const json_t *object, const char *name)
{
	const json_t *value = json_object_get(object, name);

	return json_is_string(value) ? (struct view){ (const uint8_t *)json_string_value(value),
		json_string_length(value) }
	                             : (struct view){ NULL, 0 };
}

/* {AccessKeyId, SecretAccessKey, Token, Expiration}: container and instance alike. */
static enum status
keys_from_json(struct aws_keys *out, const char *source, const struct aws_answer *answer,
	struct err *err)
{
	own(json_t) json = json_loadb(
		(const char *)answer->body.data, answer->body.len, JSON_REJECT_DUPLICATES, NULL);
	struct view code = json_view(json, "Code");

	if (json == NULL)
		return err_set(err, ERR_UNAUTHENTICATED, "aws_credentials_malformed",
			"%s: not JSON", source);
	if (code.len > 0 && !view_equal_text(code, "Success"))
		return err_set(err, ERR_UNAUTHENTICATED, "aws_credentials_refused",
			"%s: Code is not Success", source);
	return aws_keys_set(out, source, json_view(json, "AccessKeyId"),
		json_view(json, "SecretAccessKey"), json_view(json, "Token"),
		json_view(json, "Expiration"), err);
}

/* ---- one exchange ---- */

/* The transfer, with the text of its error naming the source; the same for all. */
static enum status
fetch(const struct aws_source *source, const char *name, struct aws_transfer *transfer,
	struct aws_answer *answer, struct err *err)
{
	struct err inner;

	transfer->place_timeout_ms = transfer->timeout_ms;
	transfer->answer_max_bytes = ANSWER_MAX_BYTES;
	if (aws_transport_run(source->transport, transfer, answer, &inner) != OK)
		return err_set(err, ERR_UNAVAILABLE, "aws_credentials_unreachable", "%s: %.400s",
			name, inner.text);
	if (answer->http_status >= 500 || answer->http_status == 429)
		return err_set(err, ERR_UNAVAILABLE, "aws_credentials_unreachable", "%s: HTTP %ld",
			name, answer->http_status);
	if (answer->http_status != 200)
		return err_set(err, ERR_UNAUTHENTICATED, "aws_credentials_refused", "%s: HTTP %ld",
			name, answer->http_status);
	return OK;
}

/* fetch, again when it may help. */
static enum status
fetch_patiently(const struct aws_source *source, const char *name, struct aws_transfer *transfer,
	unsigned tries, int64_t pause_ms, struct aws_answer *answer, struct err *err)
{
	for (unsigned try = 1;; try++) {
		enum status status = fetch(source, name, transfer, answer, err);

		if (status != ERR_UNAVAILABLE || try == tries ||
			!aws_transport_sleep(source->transport, pause_ms))
			return status;
		aws_answer_free(answer);
	}
}

/* Scheme and host of a URL, lower-case host; false: not an http(s) URL. */
static bool
url_host(const char *url, bool *https, char host[256])
{
	own(CURLU) parsed = curl_url();
	char *scheme = NULL;
	char *name = NULL;
	bool good = false;

	if (parsed == NULL)
		return false;
	if (curl_url_set(parsed, CURLUPART_URL, url, 0) == CURLUE_OK &&
		curl_url_get(parsed, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
		curl_url_get(parsed, CURLUPART_HOST, &name, 0) == CURLUE_OK && strlen(name) < 256) {
		*https = strcmp(scheme, "https") == 0;
		good = *https || strcmp(scheme, "http") == 0;
		(void)snprintf(host, 256, "%s", name);
	}
	curl_free(scheme);
	curl_free(name);
	return good;
}

/* Secrets in clear go only where no network is between, or to addresses that AWS serves itself. */
static enum status
check_url(
	const char *name, const char *url, const char *const *hosts, size_t count, struct err *err)
{
	char host[256];
	bool https;

	if (!url_host(url, &https, host))
		return err_set(err, ERR_UNAUTHENTICATED, "aws_credentials_malformed",
			"%s: the URL is not one of http or https", name);
	if (https || aws_host_is_loopback(host))
		return OK;
	for (size_t i = 0; i < count; i++)
		if (strcmp(host, hosts[i]) == 0)
			return OK;
	return err_set(err, ERR_UNAUTHENTICATED, "aws_credentials_malformed",
		"%s: https:// wanted, for the host is neither this machine nor AWS's own", name);
}

/* ---- files ---- */

/* A small file, whole and without its last newline. */
static enum status
read_token(struct secret *out, const char *path, const char *name, struct err *err)
{
	FILE *file = fopen(path, "re");
	own_struct(secret) whole = { NULL, 0 };
	enum status status;
	size_t len = 0;

	if (file == NULL)
		return err_set(err, ERR_UNAUTHENTICATED, "aws_credentials_malformed",
			"%s: the token file cannot be read", name);
	status = secret_new(&whole, TOKEN_MAX_BYTES + 2, err);
	if (status == OK) {
		(void)setvbuf(file, NULL, _IONBF, 0); /* no copy of it in a buffer of libc's */
		len = fread(whole.data, 1, whole.len, file);
	}
	(void)fclose(file);
	TRY(status);
	if (len > 0 && whole.data[len - 1] == '\n')
		len--;
	if (len > TOKEN_MAX_BYTES || !is_word((struct view){ whole.data, len }))
		return err_set(err, ERR_UNAUTHENTICATED, "aws_credentials_malformed",
			"%s: a token of one line and at most %d characters wanted", name,
			TOKEN_MAX_BYTES);
	return secret_copy(out, (struct view){ whole.data, len }, err);
}

/* ---- STS ---- */

struct form {
	const char *name;
	struct view value;
};

static enum status
make_form(struct buf *out, const struct form *fields, size_t count, struct err *err)
{
	for (size_t i = 0; i < count; i++) {
		if (fields[i].value.len == 0)
			continue;
		TRY(buf_format(out, err, "%s%s=", out->len > 0 ? "&" : "", fields[i].name));
		TRY(aws_uri_encode(out, fields[i].value, false, err));
	}
	return OK;
}

static struct view
text_or_none(const char *text)
{
	return text != NULL ? view_text(text) : (struct view){ NULL, 0 };
}

/* AWS_ENDPOINT_URL_STS, else the Region's own. host: as the Host header says it. */
static enum status
sts_url(const struct aws_source *source, char url[URL_BYTES], char host[256], struct err *err)
{
	const char *given = aws_environment(source->environment, "AWS_ENDPOINT_URL_STS");
	const char *start;
	int len;

	if (given == NULL && source->region == NULL)
		return err_set(err, ERR_UNAUTHENTICATED, "aws_credentials_malformed",
			"STS: a Region is wanted (AWS_REGION)");
	len = given != NULL
	              ? snprintf(url, URL_BYTES, "%s", given)
	              : snprintf(url, URL_BYTES, "https://sts.%s.amazonaws.com%s", source->region,
				strncmp(source->region, "cn-", 3) == 0 ? ".cn" : "");
	while (len > 0 && len < URL_BYTES && url[len - 1] == '/')
		url[--len] = '\0';
	if (len + 1 >= URL_BYTES)
		return err_set(err, ERR_UNAUTHENTICATED, "aws_credentials_malformed",
			"STS: the URL is too long");
	TRY(check_url("STS", url, NULL, 0, err));
	start = strstr(url, "://");
	start = start != NULL ? start + 3 : url;
	if (strpbrk(start, "/?#@") != NULL || strlen(start) >= 256)
		return err_set(err, ERR_UNAUTHENTICATED, "aws_credentials_malformed",
			"STS: the URL of a host without a path wanted");
	memcpy(host, start, strlen(start) + 1);
	url[len] = '/';
	url[len + 1] = '\0';
	return OK;
}

static enum status
keys_from_xml(
	struct aws_keys *out, const char *name, const struct aws_answer *answer, struct err *err)
{
	struct view xml = buf_view(&answer->body);
	struct view access_key, secret_key, token, expiration;

	if (!aws_xml_value(xml, "AccessKeyId", &access_key) ||
		!aws_xml_value(xml, "SecretAccessKey", &secret_key) ||
		!aws_xml_value(xml, "SessionToken", &token) ||
		!aws_xml_value(xml, "Expiration", &expiration))
		return err_set(err, ERR_UNAUTHENTICATED, "aws_credentials_malformed",
			"%s: AccessKeyId, SecretAccessKey, SessionToken and Expiration wanted",
			name);
	return aws_keys_set(out, name, access_key, secret_key, token, expiration, err);
}

/* The headers that sign a call of STS; base NULL: AssumeRoleWithWebIdentity has its own proof. */
static enum status
sign_sts(const struct aws_source *source, const struct aws_keys *base, const char *host,
	struct view body, struct secret *header, char date[AWS_DATE_BYTES], struct err *err)
{
	own_struct(buf) text = { .limit_bytes = HEADER_BYTES };
	struct aws_field fields[4] = {
		{ view_text("content-type"), view_text(STS_TYPE) },
		{ view_text("host"), view_text(host) },
		{ view_text("x-amz-date"), view_text(date) },
		{ view_text("x-amz-security-token"),
			{ base->session_token.data, base->session_token.len } },
	};
	struct aws_sigv4 request = {
		.method = view_text("POST"),
		.path = view_text("/"),
		.headers = fields,
		.header_count = base->session_token.len > 0 ? 4 : 3,
		.region = view_text(source->region != NULL ? source->region : "us-east-1"),
		.service = view_text("sts"),
	};

	aws_sha256_hex(request.body_sha256, body);
	memcpy(request.date, date, AWS_DATE_BYTES);
	TRY(buf_text(&text, "Authorization: ", err));
	TRY(aws_sigv4_authorization(&request, view_text(base->access_key),
		(struct view){ base->secret_key.data, base->secret_key.len }, &text, err));
	TRY(buf_add(&text, "", 1, err));
	return secret_copy(header, buf_view(&text), err);
}

static enum status
call_sts(const struct aws_source *source, const char *name, const struct aws_keys *base,
	struct view body, struct aws_keys *out, struct err *err)
{
	own_struct(aws_answer) answer = { 0 };
	own_struct(secret) authorization = { NULL, 0 };
	own_struct(secret) token = { NULL, 0 };
	char url[URL_BYTES], host[256], date[AWS_DATE_BYTES], date_header[64], host_header[300];
	const char *headers[5] = { "Content-Type: " STS_TYPE, host_header };
	struct aws_transfer transfer = { .method = "POST",
		.url = url,
		.headers = headers,
		.header_count = 2,
		.body = body,
		.ca_file = source->ca_file,
		.connect_timeout_ms = STS_TIMEOUT_MS / 2,
		.timeout_ms = STS_TIMEOUT_MS };

	TRY(sts_url(source, url, host, err));
	(void)snprintf(host_header, sizeof(host_header), "Host: %s", host);
	if (base != NULL) {
		aws_date_format(date, clock_wall_s(source->clock));
		TRY(sign_sts(source, base, host, body, &authorization, date, err));
		(void)snprintf(date_header, sizeof(date_header), "X-Amz-Date: %s", date);
		headers[transfer.header_count++] = date_header;
		headers[transfer.header_count++] = (const char *)authorization.data;
	}
	if (base != NULL && base->session_token.len > 0) {
		TRY(secret_new(&token, base->session_token.len + 32, err));
		(void)snprintf((char *)token.data, token.len, "X-Amz-Security-Token: %.*s",
			(int)base->session_token.len, (const char *)base->session_token.data);
		headers[transfer.header_count++] = (const char *)token.data;
	}
	TRY(fetch_patiently(source, name, &transfer, STS_TRIES, STS_PAUSE_MS, &answer, err));
	return keys_from_xml(out, name, &answer, err);
}

enum status
aws_source_web_identity(const struct aws_source *source, const char *role_arn,
	const char *token_file, const char *session_name, struct aws_keys *out, struct err *err)
{
	static const char NAME[] = "web identity";
	own_struct(secret) token = { NULL, 0 };
	own_struct(buf) body = { .limit_bytes = BODY_MAX_BYTES };
	enum status status;

	TRY(read_token(&token, token_file, NAME, err));
	const struct form form[] = {
		{ "Action", view_text("AssumeRoleWithWebIdentity") },
		{ "Version", view_text("2011-06-15") },
		{ "RoleArn", view_text(role_arn) },
		{ "RoleSessionName", view_text(session_name) },
		{ "WebIdentityToken", { token.data, token.len } },
	};
	status = make_form(&body, form, COUNT_OF(form), err);
	if (status == OK)
		status = call_sts(source, NAME, NULL, buf_view(&body), out, err);
	if (body.data != NULL)
		explicit_bzero(body.data, body.len);
	return status;
}

enum status
aws_source_assume_role(const struct aws_source *source, const struct aws_keys *base,
	const char *role_arn, const char *session_name, const char *external_id,
	struct aws_keys *out, struct err *err)
{
	own_struct(buf) body = { .limit_bytes = BODY_MAX_BYTES };
	const struct form form[] = {
		{ "Action", view_text("AssumeRole") },
		{ "Version", view_text("2011-06-15") },
		{ "RoleArn", view_text(role_arn) },
		{ "RoleSessionName", view_text(session_name) },
		{ "ExternalId", text_or_none(external_id) },
	};

	TRY(make_form(&body, form, COUNT_OF(form), err));
	return call_sts(source, "assumed role", base, buf_view(&body), out, err);
}

/* ---- containers ---- */

static enum status
container_url(const struct aws_source *source, char url[URL_BYTES], struct err *err)
{
	/* ECS, EKS Pod Identity. */
	static const char *const HOSTS[] = { "169.254.170.2", "169.254.170.23", "[fd00:ec2::23]" };
	const char *relative =
		aws_environment(source->environment, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
	const char *full =
		aws_environment(source->environment, "AWS_CONTAINER_CREDENTIALS_FULL_URI");
	int len;

	if (relative != NULL && *relative != '/')
		return err_set(err, ERR_UNAUTHENTICATED, "aws_credentials_malformed",
			"container: AWS_CONTAINER_CREDENTIALS_RELATIVE_URI begins with '/'");
	len = relative != NULL ? snprintf(url, URL_BYTES, CONTAINER_HOST "%s", relative)
	                       : snprintf(url, URL_BYTES, "%s", full != NULL ? full : "");
	if (len < 0 || len >= URL_BYTES)
		return err_set(err, ERR_UNAUTHENTICATED, "aws_credentials_malformed",
			"container: the URL is too long");
	return check_url("container", url, HOSTS, COUNT_OF(HOSTS), err);
}

/* "Authorization: …", or empty. The file, which is renewed, goes before the variable. */
static enum status
container_token(const struct aws_source *source, struct secret *header, struct err *err)
{
	const char *path =
		aws_environment(source->environment, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
	const char *text =
		aws_environment(source->environment, "AWS_CONTAINER_AUTHORIZATION_TOKEN");
	own_struct(secret) token = { NULL, 0 };

	if (path != NULL)
		TRY(read_token(&token, path, "container", err));
	else if (text == NULL)
		return OK;
	else if (strpbrk(text, "\r\n") != NULL)
		return err_set(err, ERR_UNAUTHENTICATED, "aws_credentials_malformed",
			"container: a token of one line wanted");
	else
		TRY(secret_copy(&token, view_text(text), err));
	TRY(secret_new(header, token.len + 32, err));
	(void)snprintf((char *)header->data, header->len, "Authorization: %.*s", (int)token.len,
		(const char *)token.data);
	return OK;
}

enum status
aws_source_container(const struct aws_source *source, struct aws_keys *out, struct err *err)
{
	own_struct(aws_answer) answer = { 0 };
	own_struct(secret) token = { NULL, 0 };
	char url[URL_BYTES];
	const char *headers[1];
	struct aws_transfer transfer = { .method = "GET", .url = url, .headers = headers,
		.ca_file = source->ca_file, .connect_timeout_ms = CONTAINER_TIMEOUT_MS,
		.timeout_ms = CONTAINER_TIMEOUT_MS, .direct = true };

	TRY(container_url(source, url, err));
	TRY(container_token(source, &token, err));
	if (token.len > 0)
		headers[transfer.header_count++] = (const char *)token.data;
	TRY(fetch_patiently(
		source, "container", &transfer, CONTAINER_TRIES, CONTAINER_PAUSE_MS, &answer, err));
	return keys_from_json(out, "container", &answer, err);
}

/* ---- EC2 ---- */

/* One line of text, as an answer or a part of a path. */
static enum status
one_word(char *out, size_t size, const struct aws_answer *answer, const char *what, struct err *err)
{
	struct view text = buf_view(&answer->body);

	while (text.len > 0 && text.data[text.len - 1] <= ' ')
		text.len--;
	if (!is_word(text) || text.len >= size)
		return err_set(err, ERR_UNAUTHENTICATED, "aws_credentials_malformed",
			"instance metadata: %s of one word wanted", what);
	memcpy(out, text.data, text.len);
	out[text.len] = '\0';
	return OK;
}

static enum status
ask_instance(const struct aws_source *source, const char *method, const char *path,
	const char *header, struct aws_answer *answer, struct err *err)
{
	static const char *const HOSTS[] = { "169.254.169.254", "[fd00:ec2::254]" };
	const char *base =
		aws_environment(source->environment, "AWS_EC2_METADATA_SERVICE_ENDPOINT");
	char url[URL_BYTES];
	size_t len;
	struct aws_transfer transfer = { .method = method,
		.url = url,
		.headers = &header,
		.header_count = 1,
		.ca_file = source->ca_file,
		.connect_timeout_ms = METADATA_TIMEOUT_MS,
		.timeout_ms = METADATA_TIMEOUT_MS,
		.direct = true };

	base = base != NULL ? base : METADATA_HOST;
	len = strlen(base);
	if (len > 0 && base[len - 1] == '/')
		len--;
	if (snprintf(url, sizeof(url), "%.*s%s", (int)len, base, path) >= (int)sizeof(url))
		return err_set(err, ERR_UNAUTHENTICATED, "aws_credentials_malformed",
			"instance metadata: the URL is too long");
	TRY(check_url("instance metadata", url, HOSTS, COUNT_OF(HOSTS), err));
	return fetch(source, "instance metadata", &transfer, answer, err);
}

enum status
aws_source_instance(const struct aws_source *source, struct aws_keys *out, struct err *err)
{
	own_struct(aws_answer) session = { 0 };
	own_struct(aws_answer) roles = { 0 };
	own_struct(aws_answer) keys = { 0 };
	char token[256], role[128], header[sizeof(token) + 64], path[sizeof(role) + 64];
	enum status status;

	TRY(ask_instance(source, "PUT", "/latest/api/token", METADATA_TTL, &session, err));
	TRY(one_word(token, sizeof(token), &session, "a token", err));
	(void)snprintf(header, sizeof(header), "X-aws-ec2-metadata-token: %s", token);
	status = ask_instance(source, "GET", ROLE_PATH, header, &roles, err);
	if (status == OK)
		status = one_word(role, sizeof(role), &roles, "the role's name", err);
	if (status == OK) {
		(void)snprintf(path, sizeof(path), ROLE_PATH "%s", role);
		status = ask_instance(source, "GET", path, header, &keys, err);
	}
	explicit_bzero(token, sizeof(token));
	explicit_bzero(header, sizeof(header));
	return status == OK ? keys_from_json(out, "instance metadata", &keys, err) : status;
}
