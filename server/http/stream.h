/*
 * server/http/stream.h - an answer that grows: its head goes at once, its body in pieces while somebody
 * has something to say, and no thread waits meanwhile: between two pieces the connection is suspended.
 *
 * Two hold a stream: who made it, until stream_end(), and the answer, until its connection is done with
 * it. All streams must be ended before http_stop. Any thread; one at a time for the one who made it.
 */
#ifndef SERVER_HTTP_STREAM_H
#define SERVER_HTTP_STREAM_H

#include "server/http/request.h"

struct stream;

/*
 * Makes a stream the answer of request, and *out the caller's. If the handler fails after this, it ends the
 * stream as well. content_type must be static.
 */
MUST_USE enum status request_reply_stream(struct request *request, const char *content_type,
	struct stream **out, struct err *err);

enum stream_state {
	STREAM_GONE = 1, /* the client is, or was cut because it took nothing for idle_timeout */
	STREAM_BUSY,     /* it has not taken all that was sent */
	STREAM_READY,
};
enum stream_state stream_state(struct stream *stream);

/* Copies piece behind what waits: a sender that waits for STREAM_READY keeps no more than one in memory. */
MUST_USE enum status stream_send(struct stream *stream, struct view piece, struct err *err);

/* The body ends once all that was sent is taken; the stream is not the caller's any more. NULL is welcome.
 */
void stream_end(struct stream *stream);

#endif
