#include "server/iotcore/error.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "server/iotcore/op.h"

#undef iotcore_error
#undef iotcore_exists

/* The exceptions of AWS IoT's service model, and those of the front end that checks signatures. */
static const struct core_exception EXCEPTIONS[] = {
	{ "InvalidRequestException", 400, ERR_ARGUMENT },
	{ "MalformedPolicyException", 400, ERR_ARGUMENT },
	{ "CertificateValidationException", 400, ERR_ARGUMENT },
	{ "RegistrationCodeValidationException", 400, ERR_ARGUMENT },
	{ "SqlParseException", 400, ERR_ARGUMENT },
	{ "InvalidQueryException", 400, ERR_ARGUMENT },
	{ "ThrottlingException", 400, ERR_TOO_MANY },
	{ "UnauthorizedException", 401, ERR_DENIED },
	{ "AccessDeniedException", 403, ERR_DENIED },
	{ "IncompleteSignatureException", 403, ERR_DENIED },
	{ "InvalidSignatureException", 403, ERR_DENIED },
	{ "MissingAuthenticationTokenException", 403, ERR_DENIED },
	{ "UnrecognizedClientException", 403, ERR_DENIED },
	{ "ResourceNotFoundException", 404, ERR_NOT_FOUND },
	{ "UnknownOperationException", 404, ERR_NOT_FOUND },
	{ "CertificateStateException", 406, ERR_CONFLICT },
	{ "ResourceAlreadyExistsException", 409, ERR_CONFLICT },
	{ "CertificateConflictException", 409, ERR_CONFLICT },
	{ "VersionConflictException", 409, ERR_CONFLICT },
	{ "DeleteConflictException", 409, ERR_CONFLICT },
	{ "VersionsLimitExceededException", 409, ERR_CONFLICT },
	{ "ConflictingResourceUpdateException", 409, ERR_CONFLICT },
	{ "ConflictException", 409, ERR_CONFLICT },
	{ "LimitExceededException", 410, ERR_CONFLICT },
	{ "RequestEntityTooLargeException", 413, ERR_TOO_LARGE },
	{ "InternalFailureException", 500, ERR_INTERNAL },
	{ "InternalException", 500, ERR_INTERNAL },
	{ "ServiceUnavailableException", 503, ERR_UNAVAILABLE },
};

static const struct core_exception *
find(const char *name)
{
	for (size_t i = 0; i < COUNT_OF(EXCEPTIONS); i++)
		if (strcmp(EXCEPTIONS[i].name, name) == 0)
			return &EXCEPTIONS[i];
	return NULL;
}

/* What a failure of another room is called here. */
static const char *
name_of(const struct err *err)
{
	if (strcmp(err->code, "not_found") == 0 || strcmp(err->code, "method_not_allowed") == 0)
		return "UnknownOperationException";
	switch (err->status) {
	case ERR_ARGUMENT: return "InvalidRequestException";
	case ERR_UNAUTHENTICATED: return "UnrecognizedClientException";
	case ERR_DENIED: return "AccessDeniedException";
	case ERR_NOT_FOUND: return "ResourceNotFoundException";
	case ERR_CONFLICT: return "ConflictException";
	case ERR_TOO_LARGE: return "RequestEntityTooLargeException";
	case ERR_TOO_MANY: return "ThrottlingException";
	case ERR_UNAVAILABLE: return "ServiceUnavailableException";
	case OK:
	case ERR_INTERNAL: break;
	}
	return "InternalFailureException";
}

const struct core_exception *
core_exception_of(const struct err *err)
{
	const struct core_exception *own = find(err->code);

	if (own == NULL)
		own = find(name_of(err));
	assert(own != NULL); /* a name of our own tables */
	return own;
}

static enum status set(struct err *err, const char *exception, const char *fmt, va_list args)
	PRINTF(3, 0);
static enum status
set(struct err *err, const char *exception, const char *fmt, va_list args)
{
	const struct core_exception *known = find(exception);
	char text[ERR_TEXT_BYTES];

	assert(known != NULL); /* a name of our own tables */
	(void)vsnprintf(text, sizeof(text), fmt, args);
	return err_set(err, known->status, known->name, "%s", text);
}

/* In brackets: the functions, not the macros around their calls. */
enum status(iotcore_error)(struct err *err, const char *exception, const char *fmt, ...)
{
	va_list args;
	enum status status;

	va_start(args, fmt);
	status = set(err, exception, fmt, args);
	va_end(args);
	return status;
}

enum status(iotcore_exists)(
	struct call *call, struct err *err, const char *id, const char *arn, const char *fmt, ...)
{
	va_list args;
	enum status status;

	(void)snprintf(call->exists_id, sizeof(call->exists_id), "%s", id);
	(void)snprintf(call->exists_arn, sizeof(call->exists_arn), "%s", arn);
	va_start(args, fmt);
	status = set(err, "ResourceAlreadyExistsException", fmt, args);
	va_end(args);
	return status;
}

/* ---- the answer ---- */

enum status
core_reply_request_id(struct request *request, struct err *err)
{
	const char *id = request_id(request);
	char text[37];

	(void)snprintf(text, sizeof(text), "%.8s-%.4s-%.4s-%.4s-%.12s", id, id + 8, id + 12,
		id + 16, id + 20);
	return request_reply_header(request, "x-amzn-RequestId", text, err);
}

/* A message may be cut within a character. */
static json_t *
message_of(const struct err *problem, const struct core_exception *exception)
{
	char text[ERR_TEXT_BYTES];
	json_t *out;

	/* Our own fault says nothing of how we work; the log has it under the request's id. */
	if (exception->status == ERR_INTERNAL)
		return json_string("An internal failure has occurred.");
	(void)snprintf(text, sizeof(text), "%s", problem->text);
	for (size_t cut = strlen(text);; cut--) {
		text[cut] = '\0';
		out = json_string(text); /* NULL: not UTF-8 */
		if (out != NULL || cut == 0)
			return out;
	}
}

enum status
core_render(struct request *request, const struct err *problem, struct err *err)
{
	const struct core_exception *exception = core_exception_of(problem);
	const struct call *call = request_note(request);
	own(json_t) body = json_object();

	if (json_object_set_new(body, "message", message_of(problem, exception)) != 0)
		return err_memory(err);
	if (call != NULL && call->exists_id[0] != '\0' &&
		strcmp(exception->name, "ResourceAlreadyExistsException") == 0 &&
		(json_object_set_new(body, "resourceId", json_string(call->exists_id)) != 0 ||
			json_object_set_new(body, "resourceArn", json_string(call->exists_arn)) !=
				0))
		return err_memory(err);
	TRY(request_reply_json(request, exception->http, give(body), err));
	TRY(request_reply_header(request, "x-amzn-ErrorType", exception->name, err));
	return core_reply_request_id(request, err);
}
