#include "server/iot/aws_error.h"

#include <stdio.h>
#include <string.h>

#define BACKOFF_THROTTLED_MS 1000
#define BACKOFF_MS 50
#define BACKOFF_MAX_MS 20000
#define SUFFIX "Exception"

static const struct {
	const char *name; /* in metrics and logs */
	enum status status;
	const char *code;
	bool transient;
} ERRORS[AWS_ERROR_COUNT] = {
	[AWS_ERROR_UNSET] = { "unset", ERR_INTERNAL, "iot_unset", false },
	[AWS_ERROR_NONE] = { "none", ERR_INTERNAL, "iot_unset", false },
	[AWS_ERROR_THROTTLED] = { "throttled", ERR_TOO_MANY, "iot_throttled", true },
	[AWS_ERROR_NOT_FOUND] = { "not_found", ERR_NOT_FOUND, "iot_not_found", false },
	[AWS_ERROR_EXISTS] = { "exists", ERR_CONFLICT, "iot_exists", false },
	[AWS_ERROR_CONFLICT] = { "conflict", ERR_CONFLICT, "iot_conflict", false },
	[AWS_ERROR_VERSION_CONFLICT] = { "version_conflict", ERR_CONFLICT, "iot_version_conflict",
		false },
	[AWS_ERROR_STATE] = { "state", ERR_CONFLICT, "iot_state", false },
	[AWS_ERROR_INVALID] = { "invalid", ERR_ARGUMENT, "iot_invalid", false },
	[AWS_ERROR_DENIED] = { "denied", ERR_DENIED, "iot_denied", false },
	[AWS_ERROR_LIMIT] = { "limit", ERR_TOO_LARGE, "iot_limit", false },
	[AWS_ERROR_UNAVAILABLE] = { "unavailable", ERR_UNAVAILABLE, "iot_unavailable", true },
	[AWS_ERROR_BREAKER] = { "breaker", ERR_UNAVAILABLE, "iot_breaker_open", true },
	[AWS_ERROR_STOPPED] = { "stopped", ERR_UNAVAILABLE, "iot_stopped", false },
	[AWS_ERROR_CREDENTIALS] = { "credentials", ERR_UNAUTHENTICATED, "iot_credentials", false },
	[AWS_ERROR_LOCAL] = { "local", ERR_INTERNAL, "iot_local", false },
};

/* Without "Exception" at the end: front ends answer with and without it. */
static const struct {
	const char *type;
	enum aws_error error;
} TYPES[] = {
	{ "Throttling", AWS_ERROR_THROTTLED },
	{ "TooManyRequests", AWS_ERROR_THROTTLED },
	{ "RequestLimitExceeded", AWS_ERROR_THROTTLED },
	{ "Throttled", AWS_ERROR_THROTTLED },
	{ "RequestThrottled", AWS_ERROR_THROTTLED },
	{ "SlowDown", AWS_ERROR_THROTTLED },
	{ "ResourceNotFound", AWS_ERROR_NOT_FOUND },
	{ "ResourceAlreadyExists", AWS_ERROR_EXISTS },
	{ "CertificateConflict", AWS_ERROR_CONFLICT },
	{ "DeleteConflict", AWS_ERROR_CONFLICT },
	{ "ConflictingResourceUpdate", AWS_ERROR_CONFLICT },
	{ "Conflict", AWS_ERROR_CONFLICT },
	{ "TransferConflict", AWS_ERROR_CONFLICT },
	{ "VersionConflict", AWS_ERROR_VERSION_CONFLICT },
	{ "CertificateState", AWS_ERROR_STATE },
	{ "TransferAlreadyCompleted", AWS_ERROR_STATE },
	{ "InvalidRequest", AWS_ERROR_INVALID },
	{ "MalformedPolicy", AWS_ERROR_INVALID },
	{ "CertificateValidation", AWS_ERROR_INVALID },
	{ "RegistrationCodeValidation", AWS_ERROR_INVALID },
	{ "SqlParse", AWS_ERROR_INVALID },
	{ "InvalidQuery", AWS_ERROR_INVALID },
	{ "Validation", AWS_ERROR_INVALID },
	{ "Unauthorized", AWS_ERROR_DENIED },
	{ "AccessDenied", AWS_ERROR_DENIED },
	{ "Forbidden", AWS_ERROR_DENIED },
	{ "UnrecognizedClient", AWS_ERROR_DENIED },
	{ "InvalidSignature", AWS_ERROR_DENIED },
	{ "SignatureDoesNotMatch", AWS_ERROR_DENIED },
	{ "MissingAuthenticationToken", AWS_ERROR_DENIED },
	{ "IncompleteSignature", AWS_ERROR_DENIED },
	{ "InvalidClientTokenId", AWS_ERROR_DENIED },
	{ "ExpiredToken", AWS_ERROR_DENIED },
	{ "RequestExpired", AWS_ERROR_DENIED },
	{ "LimitExceeded", AWS_ERROR_LIMIT },
	{ "VersionsLimitExceeded", AWS_ERROR_LIMIT },
	{ "ServiceQuotaExceeded", AWS_ERROR_LIMIT },
	{ "InternalFailure", AWS_ERROR_UNAVAILABLE },
	{ "Internal", AWS_ERROR_UNAVAILABLE },
	{ "InternalServerError", AWS_ERROR_UNAVAILABLE },
	{ "ServiceUnavailable", AWS_ERROR_UNAVAILABLE },
};

const char *
aws_error_name(enum aws_error error)
{
	return (unsigned)error < AWS_ERROR_COUNT ? ERRORS[error].name : "unset";
}

bool
aws_error_transient(enum aws_error error)
{
	return (unsigned)error < AWS_ERROR_COUNT && ERRORS[error].transient;
}

static enum aws_error
error_of_status(long http_status)
{
	switch (http_status) {
	case 401:
	case 403: return AWS_ERROR_DENIED;
	case 402:
	case 410: return AWS_ERROR_LIMIT;
	case 404: return AWS_ERROR_NOT_FOUND;
	case 406: return AWS_ERROR_STATE;
	case 408: return AWS_ERROR_UNAVAILABLE;
	case 409: return AWS_ERROR_CONFLICT;
	case 429: return AWS_ERROR_THROTTLED;
	default: break;
	}
	/* What is neither a refusal nor a result (1xx, 3xx) did not come from the service that we
	 * meant. */
	return http_status >= 400 && http_status < 500 ? AWS_ERROR_INVALID : AWS_ERROR_UNAVAILABLE;
}

enum aws_error
aws_error_of(const char *type, long http_status)
{
	const size_t suffix = sizeof(SUFFIX) - 1;
	size_t len = strlen(type);

	if (len > suffix && strcmp(type + len - suffix, SUFFIX) == 0)
		len -= suffix;
	/* A name of ours on a 5xx is still a service that is unwell. */
	if (http_status < 500)
		for (size_t i = 0; i < COUNT_OF(TYPES); i++)
			if (strlen(TYPES[i].type) == len && memcmp(TYPES[i].type, type, len) == 0)
				return TYPES[i].error;
	return error_of_status(http_status);
}

void
aws_text_escape(char *out, size_t size, const char *text)
{
	size_t at = 0;

	for (; text[at] != '\0' && at + 1 < size; at++) {
		unsigned char c = (unsigned char)text[at];

		out[at] = c == '"' ? '\'' : c >= 0x20 && c < 0x7f ? (char)c : '?';
	}
	if (size > 0)
		out[at] = '\0';
}

static const char *
member(const json_t *json, const char *name)
{
	return json_string_value(json_object_get(json, name));
}

/* "aws.iot#ThrottlingException:http://…": what stands between '#' and ':'. */
static void
read_type(char out[AWS_TYPE_BYTES], const char *text)
{
	size_t len = strcspn(text, ":");
	const char *mark = memchr(text, '#', len);
	char cut[AWS_TYPE_BYTES];

	if (mark != NULL) {
		len -= (size_t)(mark + 1 - text);
		text = mark + 1;
	}
	(void)snprintf(
		cut, sizeof(cut), "%.*s", len < sizeof(cut) ? (int)len : (int)sizeof(cut), text);
	aws_text_escape(out, AWS_TYPE_BYTES, cut);
}

void
aws_failure_read(struct aws_failure *failure, long http_status, const char *error_type,
	const json_t *json)
{
	const char *type = error_type;
	const char *message = member(json, "message");
	const char *arn = member(json, "resourceArn");
	const char *id = member(json, "resourceId");

	if (*type == '\0')
		type = member(json, "__type");
	if (type == NULL)
		type = member(json, "code");
	if (message == NULL)
		message = member(json, "Message");
	failure->http_status = http_status;
	read_type(failure->type, type != NULL ? type : "");
	failure->error = aws_error_of(failure->type, http_status);
	aws_text_escape(failure->message, sizeof(failure->message), message != NULL ? message : "");
	aws_text_escape(
		failure->resource_arn, sizeof(failure->resource_arn), arn != NULL ? arn : "");
	aws_text_escape(failure->resource_id, sizeof(failure->resource_id), id != NULL ? id : "");
}

enum status
aws_failure_err(const struct aws_failure *failure, const char *operation, struct err *err)
{
	enum aws_error error =
		(unsigned)failure->error < AWS_ERROR_COUNT ? failure->error : AWS_ERROR_UNSET;
	char answer[32] = "no answer";

	if (failure->http_status > 0)
		(void)snprintf(answer, sizeof(answer), "HTTP %ld", failure->http_status);
	(void)err_set(err, ERRORS[error].status, ERRORS[error].code, "%s: %s%s%s, %u sent%s%s",
		operation, answer, failure->type[0] != '\0' ? " " : "", failure->type,
		failure->attempts, failure->message[0] != '\0' ? ": " : "", failure->message);
	if (failure->retry_after_ms > 0)
		err->retry_after_s = (failure->retry_after_ms + 999) / 1000;
	return err->status;
}

enum status
aws_backoff_ms(int64_t *out, const struct aws_failure *failure, unsigned next,
	struct entropy *entropy, struct err *err)
{
	int64_t most = failure->error == AWS_ERROR_THROTTLED ? BACKOFF_THROTTLED_MS : BACKOFF_MS;
	int64_t asked = failure->retry_after_ms;
	uint32_t random;

	for (unsigned i = 2; i < next && most < BACKOFF_MAX_MS; i++)
		most *= 2;
	if (most > BACKOFF_MAX_MS)
		most = BACKOFF_MAX_MS;
	TRY(entropy_fill(entropy, (uint8_t *)&random, sizeof(random), err));
	*out = 1 + (int64_t)(((uint64_t)random * (uint64_t)(most - 1)) >> 32);
	if (asked > BACKOFF_MAX_MS)
		asked = BACKOFF_MAX_MS;
	if (*out < asked)
		*out = asked + *out % 100; /* all that were told the same do not come at once */
	return OK;
}
