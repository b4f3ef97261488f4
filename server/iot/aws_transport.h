/*
 * server/iot/aws_transport.h - HTTP exchanges for the AWS client and its credential sources, on one
 * thread of libcurl's multi interface with kept connections. A caller waits for one of
 * `connections_max` places, urgent ones first, then for its answer. TLS is always verified;
 * redirects are not followed.
 */
#ifndef SERVER_IOT_AWS_TRANSPORT_H
#define SERVER_IOT_AWS_TRANSPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "server/iot/aws_error.h"

struct aws_transport;

MUST_USE enum status aws_transport_new(struct aws_transport **out, unsigned connections_max,
	struct err *err);
/* Ends what is under way and refuses what comes (aws_stopped). From any thread. */
void aws_transport_stop(struct aws_transport *transport);
/* When no caller is left; stops first. NULL is welcome. */
void aws_transport_free(struct aws_transport *transport);
/* Waits, at most ms; returns early and false when the transport is stopped. */
bool aws_transport_sleep(struct aws_transport *transport, int64_t ms);

struct aws_transfer {
	const char *method;
	const char *url;                /* as it is sent: no dot segment is taken out */
	const char *const *headers;     /* "Name: value"; Host among them if it is to be fixed */
	size_t header_count;
	struct view body;
	const char *ca_file;            /* NULL: the system's */
	int64_t connect_timeout_ms;
	int64_t timeout_ms;             /* of the exchange, once it has its place */
	int64_t place_timeout_ms;       /* of the wait for a place */
	size_t answer_max_bytes;
	bool direct;                    /* whatever proxy the environment names */
	bool fresh; /* on a new connection, so that libcurl itself repeats nothing */
	bool urgent;
};

struct aws_answer {
	long http_status;
	struct buf body;
	char error_type[AWS_TYPE_BYTES * 2]; /* x-amzn-ErrorType */
	char request_id[AWS_REQUEST_ID_BYTES];
	int64_t retry_after_ms;              /* x-amz-retry-after, or 0 */
	bool sent;          /* the request may have arrived; also after a failure */
	int64_t elapsed_ms; /* without the wait for a place; also after a failure */
};
void aws_answer_free(struct aws_answer *answer);
OWNER_STRUCT(aws_answer, aws_answer_free)

/*
 * OK: a whole answer of any status. ERR_UNAVAILABLE: aws_network (name, connection, TLS, time out,
 * cut), aws_answer_too_large, aws_busy (no place in time), aws_stopped.
 */
MUST_USE enum status aws_transport_run(struct aws_transport *transport,
	const struct aws_transfer *transfer, struct aws_answer *answer, struct err *err);

/* Whether host ("localhost", "127.0.0.1", "[::1]") is this machine; names are not resolved. */
bool aws_host_is_loopback(const char *host);

#endif
