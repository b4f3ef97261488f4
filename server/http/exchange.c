/*
 * One request, as libmicrohttpd brings it: headers, body in pieces, end. What is refused is refused
 * as early as its connection can bear: with a small or no body the connection lives on, else it
 * closes.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "server/http/internal.h"
#include "server/metrics.h"
#include "server/retry.h"

/* A body that may be longer is not read before who sends it is known. */
#define CLEARED_FROM_BYTES (64 * 1024)
/* What is logged of a path. */
#define LOG_PATH_BYTES 256

/* ---- the headers ---- */

/* RFC 9110 5.5, 5.3: those that may stand once only, for two parties would each read another. */
static const char *const SINGLETONS[] = { "Host", "Content-Length", "Content-Type",
	"Transfer-Encoding", "Authorization", "Idempotency-Key", "Expect" };

struct survey {
	unsigned count;
	unsigned seen[COUNT_OF(SINGLETONS)];
	bool malformed;
};

/* RFC 9110 5.6.2 */
static bool
is_token(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		char c = text[i];
		bool alphanumeric =
			(c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');

		if (!alphanumeric && (c == '\0' || strchr("!#$%&'*+-.^_`|~", c) == NULL))
			return false;
	}
	return len > 0;
}

static bool
is_field_value(const char *text, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (((unsigned char)text[i] < 0x20 && text[i] != '\t') || text[i] == 0x7f)
			return false;
	return true;
}

/*
 * RFC 9110 5.5: white space behind a value is none of it, but libmicrohttpd leaves it there. The text lies in
 * the connection's own read buffer, which may be written to.
 */
static void
trim(const char *value, size_t size)
{
	char *text = (char *)(uintptr_t)value;

	while (size > 0 && (text[size - 1] == ' ' || text[size - 1] == '\t'))
		text[--size] = '\0';
}

static enum MHD_Result
survey_header(void *cls, enum MHD_ValueKind kind, const char *key, size_t key_size,
	const char *value, size_t value_size)
{
	struct survey *survey = cls;

	(void)kind;
	survey->count++;
	if (!is_token(key, key_size) || (value != NULL && !is_field_value(value, value_size)))
		survey->malformed = true;
	else if (value != NULL)
		trim(value, value_size);
	for (size_t i = 0; i < COUNT_OF(SINGLETONS); i++)
		if (strlen(SINGLETONS[i]) == key_size &&
			strncasecmp(SINGLETONS[i], key, key_size) == 0)
			survey->seen[i]++;
	return MHD_YES;
}

static enum status
check_headers(struct request *request, const char *version, struct err *err)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(request->mhd, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
	struct survey survey = { .count = 0 };

	if (strlen(request->target) > TARGET_MAX_BYTES)
		return err_set(err, ERR_ARGUMENT, "uri_too_long",
			"request line: at most %d octets wanted", TARGET_MAX_BYTES);
	(void)MHD_get_connection_values_n(request->mhd, MHD_HEADER_KIND, survey_header, &survey);
	if (survey.count > HEADERS_MAX_COUNT ||
		(info != NULL && info->header_size > HEADERS_MAX_BYTES))
		return err_set(err, ERR_ARGUMENT, "header_too_large",
			"headers: at most %d of %d octets together wanted", HEADERS_MAX_COUNT,
			HEADERS_MAX_BYTES);
	if (survey.malformed)
		return err_set(err, ERR_ARGUMENT, "header_malformed",
			"headers: token names and values without control characters wanted (RFC "
		        "9110 5.5)");
	for (size_t i = 0; i < COUNT_OF(SINGLETONS); i++)
		if (survey.seen[i] > 1)
			return err_set(err, ERR_ARGUMENT, "header_repeated",
				"%s: stands there twice", SINGLETONS[i]);
	/* RFC 9112 3.2 */
	if (strcmp(version, "HTTP/1.1") == 0 && survey.seen[0] == 0)
		return err_set(
			err, ERR_ARGUMENT, "host_missing", "Host: is missing (RFC 9112 3.2)");
	return OK;
}

/* How long the body is (RFC 9112 6); errors here leave it open where the next request begins. */
static enum status
check_framing(struct request *request, const char *version, struct err *err)
{
	const char *length = request_header(request, "Content-Length");
	const char *coding = request_header(request, "Transfer-Encoding");

	if (coding != NULL && length != NULL)
		return err_set(err, ERR_ARGUMENT, "length_ambiguous",
			"Content-Length and Transfer-Encoding: one of them wanted (RFC 9112 6.3)");
	/* RFC 9112 6.1: who stands between and speaks HTTP/1.0 takes it for another length. */
	if (coding != NULL &&
	    (strcasecmp(coding, "chunked") != 0 || strcmp(version, "HTTP/1.1") != 0))
		return err_set(err, ERR_ARGUMENT, "transfer_encoding_unsupported",
			"Transfer-Encoding: chunked wanted, in HTTP/1.1");
	if (coding != NULL) {
		request->has_body = true;
		request->body_expected = UINT64_MAX;
	} else if (length != NULL) {
		/* libmicrohttpd has refused what is no number or too large for one. */
		for (const char *at = length; *at >= '0' && *at <= '9'; at++)
			request->body_expected =
				request->body_expected * 10 + (uint64_t)(*at - '0');
		request->has_body = request->body_expected > 0;
	}
	return OK;
}

/* RFC 9110 8.4: what is packed would be read as if it were not. */
static enum status
check_content_coding(const struct request *request, struct err *err)
{
	const char *coding = request_header(request, "Content-Encoding");

	if (request->has_body && coding != NULL && coding[0] != '\0' &&
	    strcasecmp(coding, "identity") != 0)
		return err_set(err, ERR_ARGUMENT, "unsupported_media_type",
			"Content-Encoding: none wanted");
	return OK;
}

static enum status
take_content_type(struct request *request, struct err *err)
{
	const char *value = request_header(request, "Content-Type");
	size_t len = value != NULL ? strcspn(value, "; \t") : 0;
	char *copy;

	if (len == 0)
		return OK;
	copy = request_alloc(request, len + 1);
	if (copy == NULL)
		return err_memory(err);
	for (size_t i = 0; i < len; i++)
		copy[i] = value[i] >= 'A' && value[i] <= 'Z' ? (char)(value[i] - 'A' + 'a')
		                                             : value[i];
	request->content_type = copy;
	return OK;
}

/* A copy, so that it may be read while the connection's thread is at work. */
static enum status
take_peer_certificate(struct request *request, struct err *err)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(request->mhd, MHD_CONNECTION_INFO_GNUTLS_SESSION);
	unsigned count = 0;
	const gnutls_datum_t *peers =
		info != NULL ? gnutls_certificate_get_peers(info->tls_session, &count) : NULL;
	uint8_t *copy;

	if (peers == NULL || count == 0)
		return OK;
	copy = request_alloc(request, peers[0].size);
	if (copy == NULL)
		return err_memory(err);
	memcpy(copy, peers[0].data, peers[0].size);
	request->peer_certificate = (struct view){ copy, peers[0].size };
	return OK;
}

/* RFC 9112 3.2.2: a server takes the absolute form as well; whom it names is not ours to tell. */
static char *
origin_form(char *target)
{
	char *authority;

	if (strncasecmp(target, "http://", 7) == 0)
		authority = target + 7;
	else if (strncasecmp(target, "https://", 8) == 0)
		authority = target + 8;
	else
		return target;
	authority += strcspn(authority, "/?");
	return authority;
}

static enum status
find_route(struct request *request, char allow[ALLOW_BYTES], struct err *err)
{
	size_t len = strlen(request->target);
	char *copy = request_alloc(request, len + 1);
	char *query;

	if (copy == NULL)
		return err_memory(err);
	memcpy(copy, request->target, len);
	copy = origin_form(copy);
	query = strchr(copy, '?');
	if (query != NULL)
		*query++ = '\0';
	TRY(router_match(request->http->router, request->connection->listener->kind,
		request->method, copy, &request->match, allow, err));
	return uri_query(query, request->match.route->query, request->match.route->lenient,
		request->query, &request->query_count, err);
}

/* The path for the log and the handler: as it was sent, without the query, which may hold anything.
 */
static void
cut_query(struct request *request)
{
	char *end;

	request->path = origin_form(request->target);
	end = request->path + strcspn(request->path, "?");
	request->query_text = *end != '\0' ? end + 1 : end;
	*end = '\0';
}

static enum status
check_body_limit(struct request *request, struct err *err)
{
	const struct config *config = request->http->config;
	const struct route *route = request->match.route;
	uint64_t limit = route->spool ? (uint64_t)config->upload_max_bytes : route->body_max_bytes;

	request->body_limit = limit;
	request->body.limit_bytes = route->spool ? 0 : (size_t)limit;
	if (request->has_body && request->body_expected != UINT64_MAX &&
		request->body_expected > limit)
		return err_set(err, ERR_TOO_LARGE, "body_too_large",
			"body: at most %llu octets wanted, %llu found", (unsigned long long)limit,
			(unsigned long long)request->body_expected);
	return OK;
}

static enum status
open_spool(struct request *request, struct err *err)
{
	static const char *const PLACES[] = { "/var/tmp", "/tmp" };

	for (size_t i = 0; i < COUNT_OF(PLACES) && request->spool_fd < 0; i++)
		request->spool_fd = open(PLACES[i], O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (request->spool_fd < 0)
		return err_set(err, ERR_UNAVAILABLE, "spool_unavailable",
			"no place for the upload: %s", strerror(errno));
	return OK;
}

/* ---- refusing ---- */

/* The connection cannot be told where the next request begins, or the rest is not worth reading. */
static bool
must_close(const struct request *request, bool framing_lost)
{
	bool too_long = request->body_expected > DISCARD_MAX_BYTES &&
	                request->body_expected != UINT64_MAX; /* in chunks: counted as they come */

	return framing_lost || (request->has_body &&
				       (too_long || request_header(request, "Expect") != NULL));
}

static enum MHD_Result
refuse(struct request *request, const struct err *err, const char *allow, bool framing_lost)
{
	struct err ignored;

	request_problem(request, err);
	if (allow != NULL && allow[0] != '\0' && request->status == 405 &&
		request_reply_header(request, "Allow", allow, &ignored) != OK)
		log_error(LOG_WARN, "allow_header", request->id, &ignored);
	request->refused = true;
	/* An answer before the body makes libmicrohttpd close the connection after it. */
	if (must_close(request, framing_lost))
		return request_queue(request);
	request->phase = PHASE_BODY;
	return MHD_YES;
}

/* ---- workers ---- */

static enum status
authorize(struct request *request, struct err *err)
{
	const struct route *route = request->match.route;
	enum status status;

	if ((route->roles & ROLE_ANYONE) != 0)
		return OK;
	status = request->http->authorize(request->http->app, request, route->roles, err);
	if (status == OK)
		atomic_store(&request->connection->authenticated, true);
	else if (status == ERR_UNAUTHENTICATED || status == ERR_DENIED)
		metric_add(METRIC_AUTH_FAILED, 1);
	return status;
}

/* From the start of the body, for this may be another try. */
static enum status
handle(struct request *request, struct err *err)
{
	request->headers = NULL;
	if (request->spool_fd >= 0 && lseek(request->spool_fd, 0, SEEK_SET) != 0)
		return err_set(err, ERR_UNAVAILABLE, "spool_unavailable", "the upload: %s",
			strerror(errno));
	return request->match.route->handle(request->http->app, request, err);
}

static void
run_handler(void *arg)
{
	struct request *request = arg;
	unsigned tries = 0;
	struct err err;
	enum status status = authorize(request, &err);

	if (status == OK)
		do {
			status = handle(request, &err);
			/* Parked: it is not ours any more. */
		} while (!atomic_load(&request->parked) && retry_due(&tries, status, &err));
	/* Parked: whoever has it may have finished it by now. */
	if (atomic_load(&request->parked))
		request_drop(request);
	else
		request_finish(request, status, &err);
}

static void
run_clearing(void *arg)
{
	struct request *request = arg;
	struct err err;

	if (authorize(request, &err) != OK) {
		request_problem(request, &err);
		request->refused = true;
	}
	MHD_resume_connection(request->mhd);
	request_drop(request);
}

static enum MHD_Result
to_worker(struct request *request, void (*run)(void *), enum request_phase phase)
{
	unsigned queue = request->connection->listener->kind == LISTENER_STATIONS ? QUEUE_STATIONS
	                                                                          : QUEUE_OTHERS;
	struct err err;

	connection_enter(request->connection, CONNECTION_WORKING, 0);
	request->phase = phase;
	request->work = (struct work){ .run = run, .arg = request };
	atomic_fetch_add(&request->references, 1);
	/* First this, then the push: the worker may resume it at once. */
	MHD_suspend_connection(request->mhd);
	if (workers_push(&request->http->workers, queue, &request->work))
		return MHD_YES;
	(void)err_set(&err, ERR_UNAVAILABLE, "server_busy", "too many requests wait");
	request->refused = true;
	if (phase == PHASE_CLEARING) {
		request_problem(request, &err);
		MHD_resume_connection(request->mhd);
		request_drop(request);
	} else {
		request_finish(request, ERR_UNAVAILABLE, &err);
	}
	return MHD_YES;
}

/* ---- the steps ---- */

static void
begin_reading(struct request *request)
{
	connection_enter(request->connection, CONNECTION_READING, request->base_deadline_ms);
}

static enum status
read_head(struct request *request, const char *version, char allow[ALLOW_BYTES], bool *framing_lost,
	struct err *err)
{
	enum status status = check_framing(request, version, err);

	*framing_lost = status != OK;
	if (status == OK) {
		status = check_headers(request, version, err);
		/* A doubled length or a name that is none: others may frame this otherwise. */
		*framing_lost = status != OK;
	}
	if (status == OK)
		status = find_route(request, allow, err);
	cut_query(request);
	TRY(status);
	TRY(check_body_limit(request, err));
	TRY(check_content_coding(request, err));
	TRY(take_content_type(request, err));
	if (request->connection->listener->tls)
		TRY(take_peer_certificate(request, err));
	return request->match.route->spool ? open_spool(request, err) : OK;
}

static enum MHD_Result
step_head(struct request *request, struct MHD_Connection *mhd, const char *method,
	const char *version)
{
	char allow[ALLOW_BYTES] = "";
	bool framing_lost;
	struct err err;

	request->mhd = mhd;
	request->method = method;
	if (read_head(request, version, allow, &framing_lost, &err) != OK)
		return refuse(request, &err, allow, framing_lost);
	request->phase = PHASE_BODY;
	if (request->has_body && request->body_expected > CLEARED_FROM_BYTES &&
		request->body_limit > CLEARED_FROM_BYTES &&
		(request->match.route->roles & ROLE_ANYONE) == 0)
		return to_worker(request, run_clearing, PHASE_CLEARING);
	/* Never an answer here: libmicrohttpd would close the connection. */
	return MHD_YES;
}

static enum MHD_Result
step_cleared(struct request *request)
{
	if (request->refused && must_close(request, false))
		return request_queue(request);
	request->base_deadline_ms = http_now_ms() + request->http->config->first_request_timeout_ms;
	begin_reading(request);
	request->phase = PHASE_BODY;
	return MHD_YES;
}

static enum status
write_spool(struct request *request, const char *data, size_t size, struct err *err)
{
	while (size > 0) {
		ssize_t written = write(request->spool_fd, data, size);

		if (written < 0 && errno == EINTR)
			continue;
		if (written <= 0)
			return err_set(err, ERR_UNAVAILABLE, "spool_unavailable",
				"no place for the upload: %s", strerror(errno));
		data += written;
		size -= (size_t)written;
	}
	return OK;
}

static enum status
keep_piece(struct request *request, const char *data, size_t size, struct err *err)
{
	if (request->body_seen > request->body_limit)
		return err_set(err, ERR_TOO_LARGE, "body_too_large",
			"body: at most %llu octets wanted",
			(unsigned long long)request->body_limit);
	if (request->spool_fd >= 0)
		return write_spool(request, data, size, err);
	if (!http_charge_body(request->http, request, size))
		return err_set(err, ERR_UNAVAILABLE, "server_busy", "too many bodies at once");
	return buf_add(&request->body, data, size, err);
}

static enum MHD_Result
step_body(struct request *request, const char *data, size_t size)
{
	struct err err;

	if (request->refused)
		/* An answer cannot be given within a body: what goes on too long is cut, and its time
		 * no longer grows. */
		return (request->body_discarded += size) > DISCARD_MAX_BYTES ? MHD_NO : MHD_YES;
	request->body_seen += size;
	/* Time grows with what came, so that a long upload may take long and a slow drip may not.
	 */
	atomic_store(&request->connection->deadline_ms,
		request->base_deadline_ms + (int64_t)(request->body_seen / RATE_LEAST_BYTES_MS));
	if (keep_piece(request, data, size, &err) != OK) {
		request_problem(request, &err);
		request->refused = true;
		buf_free(&request->body);
	}
	return MHD_YES;
}

static enum MHD_Result
step_complete(struct request *request)
{
	struct err err;
	enum status status;

	if (request->refused)
		return request_queue(request);
	if (request->spool_fd >= 0 && lseek(request->spool_fd, 0, SEEK_SET) != 0) {
		(void)err_set(&err, ERR_INTERNAL, "spool", "lseek: %s", strerror(errno));
		request_problem(request, &err);
		return request_queue(request);
	}
	if (!request->match.route->inline_ok)
		return to_worker(request, run_handler, PHASE_ANSWER);
	request->on_lane = true;
	status = request->match.route->handle(request->http->app, request, &err);
	/* Whoever has it may have resumed it by now; it comes back to this thread, so it is still there. */
	if (atomic_load(&request->parked))
		return MHD_YES;
	request_conclude(request, status, &err);
	return request_queue(request);
}

enum MHD_Result
exchange_step(void *cls, struct MHD_Connection *mhd, const char *url, const char *method,
	const char *version, const char *data, size_t *size, void **context)
{
	struct request *request = *context;
	size_t len = *size;

	(void)cls, (void)url;
	if (request == NULL)
		return MHD_NO; /* there was no memory for it */
	switch (request->phase) {
	case PHASE_HEAD: return step_head(request, mhd, method, version);
	case PHASE_CLEARING: return step_cleared(request);
	case PHASE_BODY:
		*size = 0;
		return len > 0 ? step_body(request, data, len) : step_complete(request);
	case PHASE_ANSWER: return request_queue(request);
	case PHASE_DONE: break;
	}
	return MHD_YES;
}

/* ---- begin and end ---- */

static void
count_session(struct connection *connection, struct MHD_Connection *mhd)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_GNUTLS_SESSION);
	bool resumed = info != NULL && gnutls_session_is_resumed(info->tls_session) != 0;

	atomic_fetch_add(&connection->listener->sessions[resumed ? 1 : 0], 1);
}

void *
exchange_begin(void *cls, const char *uri, struct MHD_Connection *mhd)
{
	struct http *http = cls;
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	struct connection *connection = info != NULL ? info->socket_context : NULL;
	struct request *request = connection != NULL ? request_new(http, connection, uri) : NULL;

	if (request == NULL)
		return NULL;
	request->mhd = mhd;
	if (connection->listener->tls && !atomic_load(&connection->served))
		count_session(connection, mhd);
	/* The first must be complete within its time from the accept on, handshake included. */
	request->base_deadline_ms = atomic_load(&connection->served)
	                                    ? http_now_ms() + http->config->first_request_timeout_ms
	                                    : atomic_load(&connection->deadline_ms);
	begin_reading(request);
	http_flight(http, 1);
	return request;
}

static enum log_level
level_of(const struct request *request, unsigned status, bool sent)
{
	const struct route *route = request->match.route;

	return route != NULL && route->quiet && sent && status < 400 ? LOG_DEBUG : LOG_INFO;
}

static void
log_request(const struct request *request, unsigned status, int64_t duration_us, bool sent)
{
	struct view path = view_text(request->path);

	if (path.len > LOG_PATH_BYTES)
		path.len = LOG_PATH_BYTES;
	log_event(level_of(request, status, sent), "request", request->id, LOG_STR("method", request->method),
		LOG_VIEW("path", path),
		LOG_STR("route", request->match.route != NULL ? request->match.route->path : NULL),
		LOG_INT("status", status),
		LOG_STR("code", request->code[0] != '\0' ? request->code : NULL),
		LOG_INT("duration_us", duration_us), LOG_STR("actor", request->actor),
		LOG_STR("peer", request->connection->address),
		LOG_STR("listener", request->connection->listener->name), LOG_BOOL("sent", sent));
}

void
exchange_end(
	void *cls, struct MHD_Connection *mhd, void **context, enum MHD_RequestTerminationCode why)
{
	struct http *http = cls;
	struct request *request = *context;
	int64_t duration_us;

	if (request == NULL)
		return;
	*context = NULL;
	duration_us = clock_mono_us() - request->started_us;
	if (request->status == 0) {
		/* What libmicrohttpd answered by itself: a request line or length that it cannot
		 * read. */
		const union MHD_ConnectionInfo *info =
			MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_HTTP_STATUS);

		request->status = info != NULL ? info->http_status : 0;
		cut_query(request);
	}
	log_request(
		request, request->status, duration_us, why == MHD_REQUEST_TERMINATED_COMPLETED_OK);
	http_count(http, request, duration_us);
	if (why == MHD_REQUEST_TERMINATED_COMPLETED_OK)
		atomic_store(&request->connection->served, true);
	connection_enter(request->connection, CONNECTION_IDLE,
		http_now_ms() + http->config->idle_timeout_ms);
	request_drop(request);
	http_flight(http, -1);
}
