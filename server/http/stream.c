#include "server/http/stream.h"

#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>

#include "base/mem.h"
#include "server/http/internal.h"

/* One piece is a receipt at most (server/api/receipt_follow.c), whose selector may have 72 KiB. */
#define PENDING_MAX_BYTES ((size_t)1 << 20)
/* What libmicrohttpd asks for at once where it does not send chunks (HTTP/1.0). */
#define BLOCK_BYTES 4096

struct stream {
	pthread_mutex_t lock;
	unsigned references; /* under lock, as all below */
	struct connection *connection; /* borrowed; there while the reader may be called, or waits */
	struct MHD_Connection *mhd;
	int64_t idle_timeout_ms;
	struct buf pending;
	size_t taken; /* of pending */
	bool ended, gone;
	bool waits; /* suspended: whoever clears this resumes it, once */
};

static void
drop(struct stream *stream)
{
	bool last;

	(void)pthread_mutex_lock(&stream->lock);
	last = --stream->references == 0;
	(void)pthread_mutex_unlock(&stream->lock);
	if (!last)
		return;
	(void)pthread_mutex_destroy(&stream->lock);
	buf_free(&stream->pending);
	mem_free(stream);
}

/* Of the answer. */
static void
let_go(void *arg)
{
	struct stream *stream = arg;

	(void)pthread_mutex_lock(&stream->lock);
	stream->gone = true;
	(void)pthread_mutex_unlock(&stream->lock);
	drop(stream);
}

/* With the lock. */
static size_t
take(struct stream *stream, char *out, size_t max)
{
	size_t left = stream->pending.len - stream->taken;
	size_t len = left < max ? left : max;

	memcpy(out, stream->pending.data + stream->taken, len);
	stream->taken += len;
	if (stream->taken == stream->pending.len) {
		buf_free(&stream->pending);
		stream->pending = (struct buf){ .limit_bytes = PENDING_MAX_BYTES };
		stream->taken = 0;
	}
	return len;
}

/* On the lane's thread, once what it gave before has been sent. */
static ssize_t
give_some(void *arg, uint64_t position, char *out, size_t max)
{
	struct stream *stream = arg;
	ssize_t given = 0;

	(void)position;
	(void)pthread_mutex_lock(&stream->lock);
	if (stream->pending.len > 0) {
		connection_enter(stream->connection, CONNECTION_SENDING,
			http_now_ms() + stream->idle_timeout_ms);
		given = (ssize_t)take(stream, out, max);
	} else if (stream->ended) {
		given = MHD_CONTENT_READER_END_OF_STREAM;
	} else {
		/* Under the lock, so that nobody resumes it before. */
		connection_enter(stream->connection, CONNECTION_WORKING, 0);
		stream->waits = true;
		MHD_suspend_connection(stream->mhd);
	}
	(void)pthread_mutex_unlock(&stream->lock);
	return given;
}

/* With the lock, which it gives back. */
static void
wake(struct stream *stream)
{
	bool resume = stream->waits;

	stream->waits = false;
	(void)pthread_mutex_unlock(&stream->lock);
	if (resume)
		MHD_resume_connection(stream->mhd);
}

/* With the lock. Libmicrohttpd does not look at a suspended connection; its socket is there meanwhile. */
static bool
hung_up(const struct stream *stream)
{
	struct pollfd polled = { .fd = stream->connection->fd, .events = POLLRDHUP };

	return stream->waits && poll(&polled, 1, 0) == 1 &&
	       (polled.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

enum stream_state
stream_state(struct stream *stream)
{
	enum stream_state state = STREAM_READY;

	(void)pthread_mutex_lock(&stream->lock);
	if (stream->gone || hung_up(stream))
		state = STREAM_GONE;
	else if (!stream->waits)
		state = STREAM_BUSY;
	(void)pthread_mutex_unlock(&stream->lock);
	return state;
}

enum status
stream_send(struct stream *stream, struct view piece, struct err *err)
{
	enum status status = OK;

	(void)pthread_mutex_lock(&stream->lock);
	if (!stream->gone)
		status = buf_add(&stream->pending, piece.data, piece.len, err);
	wake(stream);
	return status;
}

void
stream_end(struct stream *stream)
{
	if (stream == NULL)
		return;
	(void)pthread_mutex_lock(&stream->lock);
	stream->ended = true;
	wake(stream);
	drop(stream);
}

enum status
request_reply_stream(struct request *request, const char *content_type, struct stream **out,
	struct err *err)
{
	struct stream *stream = mem_zalloc(sizeof(*stream));
	struct MHD_Response *response;

	*out = NULL;
	if (stream == NULL)
		return err_memory(err);
	(void)pthread_mutex_init(&stream->lock, NULL);
	stream->references = 2;
	stream->connection = request->connection;
	stream->mhd = request->mhd;
	stream->idle_timeout_ms = request->http->config->idle_timeout_ms;
	stream->pending = (struct buf){ .limit_bytes = PENDING_MAX_BYTES };
	response = MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK_BYTES, give_some, stream,
		let_go);
	if (response == NULL) {
		let_go(stream);
		drop(stream);
		return err_memory(err);
	}
	*out = stream;
	return request_reply_response(request, 200, content_type, response, 0, err);
}
