/*
 * server/iot/aws_error.h - what an answer of AWS means to us, and how long to wait before the next
 * try. Pure functions. The code of an answer stands in the header x-amzn-ErrorType (up to ':'),
 * else in the body's __type (from '#') or code; a name that we do not know is judged by its HTTP
 * status.
 */
#ifndef SERVER_IOT_AWS_ERROR_H
#define SERVER_IOT_AWS_ERROR_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/entropy.h"
#include "base/err.h"

/* Behind each: the status and the code that err gets. */
enum aws_error {
	AWS_ERROR_UNSET = 0,
	AWS_ERROR_NONE,
	/* ERR_TOO_MANY iot_throttled: asked too often, tries used up */
	AWS_ERROR_THROTTLED,
	/* ERR_NOT_FOUND iot_not_found */
	AWS_ERROR_NOT_FOUND,
	/* ERR_CONFLICT iot_exists: ResourceAlreadyExists, with resource_arn */
	AWS_ERROR_EXISTS,
	/* ERR_CONFLICT iot_conflict: CertificateConflict, DeleteConflict, ConflictingResourceUpdate */
	AWS_ERROR_CONFLICT,
	/* ERR_CONFLICT iot_version_conflict: expectedVersion is another's */
	AWS_ERROR_VERSION_CONFLICT,
	/* ERR_CONFLICT iot_state: CertificateState, TransferAlreadyCompleted */
	AWS_ERROR_STATE,
	/* ERR_ARGUMENT iot_invalid: the request, a policy, a certificate */
	AWS_ERROR_INVALID,
	/* ERR_DENIED iot_denied: IAM, credentials, signature, clock */
	AWS_ERROR_DENIED,
	/* ERR_TOO_LARGE iot_limit: LimitExceeded, VersionsLimitExceeded */
	AWS_ERROR_LIMIT,
	/* ERR_UNAVAILABLE iot_unavailable: 5xx, network, time out, an answer that is cut or not JSON */
	AWS_ERROR_UNAVAILABLE,
	/* ERR_UNAVAILABLE iot_breaker_open: not sent */
	AWS_ERROR_BREAKER,
	/* ERR_UNAVAILABLE iot_stopped: the client is being stopped */
	AWS_ERROR_STOPPED,
	/* as aws_credentials.h says: none to be had; not sent */
	AWS_ERROR_CREDENTIALS,
	/* ours: memory, an argument, the pacer */
	AWS_ERROR_LOCAL,
	AWS_ERROR_COUNT,
};

#define AWS_TYPE_BYTES 64
#define AWS_MESSAGE_BYTES 256
#define AWS_ARN_BYTES 320
#define AWS_REQUEST_ID_BYTES 72

struct aws_failure {
	enum aws_error error;
	long http_status;                     /* 0: no answer */
	char type[AWS_TYPE_BYTES];            /* "ResourceNotFoundException"; "" if there is none */
	char message[AWS_MESSAGE_BYTES];      /* the service's own, printable ASCII, cut */
	char resource_arn[AWS_ARN_BYTES];     /* of AWS_ERROR_EXISTS, else "" */
	char resource_id[AWS_ARN_BYTES];      /* the same */
	char request_id[AWS_REQUEST_ID_BYTES];/* x-amzn-requestid, for a support case */
	unsigned attempts;                    /* requests sent for this call */
	int64_t retry_after_ms;               /* asked for by the service, or 0 */
};

const char *aws_error_name(enum aws_error error); /* "throttled"; for metrics and logs */

/* The error for the name (may be "") and HTTP status of an answer that is not 2xx. */
enum aws_error aws_error_of(const char *type, long http_status);

/* Fills failure from an answer that is not 2xx. error_type: the header, or ""; json may be NULL. */
void aws_failure_read(struct aws_failure *failure, long http_status, const char *error_type,
	const json_t *json);

/* Sets err as the table above says; operation goes in front. Returns err->status. */
enum status aws_failure_err(
	const struct aws_failure *failure, const char *operation, struct err *err);

/* Whether another try may help. */
bool aws_error_transient(enum aws_error error);

/* A copy of text in printable ASCII ('?' for the rest, '\'' for '"'), cut at size. */
void aws_text_escape(char *out, size_t size, const char *text);

/*
 * How long to wait before attempt number `next` (2, 3, …): random in (0, 1] × min(base × 2^(next − 2),
 * 20 s), base 1 s after throttling and 50 ms else, and at least what the service asked for (up
 * to 20 s).
 */
MUST_USE enum status aws_backoff_ms(int64_t *out, const struct aws_failure *failure, unsigned next,
	struct entropy *entropy, struct err *err);

#endif
