#include <assert.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "server/http/internal.h"
#include "server/metrics.h"

#define CHUNK_BYTES 512
/* The longest JSON answer: a page of a thousand certificates with chains. */
#define JSON_MAX_BYTES ((size_t)32 << 20)

/* ---- a request's memory ---- */

void *
request_alloc(struct request *request, size_t bytes)
{
	size_t wanted = (bytes + 15) & ~(size_t)15;
	struct chunk *chunk = request->chunks;
	void *out;

	if (wanted < bytes)
		return NULL;
	if (chunk == NULL || chunk->size - chunk->used < wanted) {
		size_t size = wanted > CHUNK_BYTES ? wanted : CHUNK_BYTES;

		chunk = size > SIZE_MAX - sizeof(*chunk) ? NULL : mem_zalloc(sizeof(*chunk) + size);
		if (chunk == NULL)
			return NULL;
		chunk->size = size;
		chunk->next = request->chunks;
		request->chunks = chunk;
	}
	out = chunk->data + chunk->used;
	chunk->used += wanted;
	return out;
}

static char *
copy_text(struct request *request, const char *text)
{
	size_t len = strlen(text);
	char *out = request_alloc(request, len + 1);

	if (out != NULL)
		memcpy(out, text, len + 1);
	return out;
}

/* Unique, not secret: a random start and a counter, stirred (splitmix64) so that ids do not look
 * alike. */
static void
draw_id(struct http *http, char out[REQUEST_ID_BYTES])
{
	uint64_t z = atomic_fetch_add(&http->id_next, UINT64_C(0x9e3779b97f4a7c15));
	uint8_t octets[16];

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	z ^= z >> 31;
	memcpy(octets, &http->id_prefix, 8);
	memcpy(octets + 8, &z, 8);
	hex_encode(out, octets, sizeof(octets));
}

struct request *
request_new(struct http *http, struct connection *connection, const char *target)
{
	struct request *request = mem_zalloc(sizeof(*request));

	if (request == NULL)
		return NULL;
	atomic_init(&request->references, 1);
	request->http = http;
	request->connection = connection;
	request->phase = PHASE_HEAD;
	request->spool_fd = -1;
	request->method = "";
	request->content_type = "";
	request->started_us = clock_mono_us();
	draw_id(http, request->id);
	request->target = copy_text(request, target);
	if (request->target == NULL) {
		request_drop(request);
		return NULL;
	}
	request->path = request->target;
	request->query_text = "";
	return request;
}

static void
drop_response(struct request *request)
{
	if (request->response != NULL && request->response != request->http->last_resort)
		MHD_destroy_response(request->response);
	request->response = NULL;
}

void
request_drop(struct request *request)
{
	if (atomic_fetch_sub(&request->references, 1) != 1)
		return;
	drop_response(request);
	atomic_fetch_sub(&request->http->bodies_bytes, request->body_charged);
	buf_free(&request->body);
	if (request->spool_fd >= 0)
		close(request->spool_fd);
	while (request->chunks != NULL) {
		struct chunk *chunk = request->chunks;

		request->chunks = chunk->next;
		mem_free(chunk);
	}
	mem_free(request);
}

/* ---- what came ---- */

const char *
request_id(const struct request *request)
{
	return request->id;
}

const char *
request_method(const struct request *request)
{
	return request->method;
}

const char *
request_path(const struct request *request)
{
	return request->path;
}

static const char *
find_pair(const struct pair *pairs, size_t count, const char *name)
{
	for (size_t i = 0; i < count; i++)
		if (strcmp(pairs[i].name, name) == 0)
			return pairs[i].value;
	return NULL;
}

const char *
request_param(const struct request *request, const char *name)
{
	const char *value = find_pair(request->match.params, request->match.param_count, name);

	assert(value != NULL); /* our own table and handler disagree */
	return value;
}

const char *
request_query(const struct request *request, const char *name)
{
	return find_pair(request->query, request->query_count, name);
}

const char *
request_header(const struct request *request, const char *name)
{
	return MHD_lookup_connection_value(request->mhd, MHD_HEADER_KIND, name);
}

const char *
request_query_text(const struct request *request)
{
	return request->query_text;
}

struct header_walk {
	bool (*each)(void *arg, const char *name, const char *value);
	void *arg;
};

static enum MHD_Result
walk_header(void *cls, enum MHD_ValueKind kind, const char *name, const char *value)
{
	const struct header_walk *walk = cls;

	(void)kind;
	return walk->each(walk->arg, name, value != NULL ? value : "") ? MHD_YES : MHD_NO;
}

void
request_headers(const struct request *request,
	bool (*each)(void *arg, const char *name, const char *value), void *arg)
{
	struct header_walk walk = { each, arg };

	(void)MHD_get_connection_values(request->mhd, MHD_HEADER_KIND, walk_header, &walk);
}

struct view
request_body(const struct request *request)
{
	return buf_view(&request->body);
}

int
request_body_fd(const struct request *request)
{
	return request->spool_fd;
}

const char *
request_content_type(const struct request *request)
{
	return request->content_type;
}

struct view
request_peer_certificate(const struct request *request)
{
	return request->peer_certificate;
}

const char *
request_peer_address(const struct request *request)
{
	return request->connection->address;
}

bool
request_is_tls(const struct request *request)
{
	return request->connection->listener->tls;
}

void
request_set_actor(struct request *request, const char *actor)
{
	const char *copy = copy_text(request, actor);

	if (copy != NULL)
		request->actor = copy;
}

const char *
request_actor(const struct request *request)
{
	return request->actor;
}

void
request_set_identity(struct request *request, const struct identity *identity)
{
	request->identity = identity;
}

const struct identity *
request_identity(const struct request *request)
{
	return request->identity;
}

const struct route *
request_route(const struct request *request)
{
	return request->match.route;
}

void *
request_context(const struct request *request)
{
	return request->http->context;
}

void
request_set_note(struct request *request, void *note)
{
	request->note = note;
}

void *
request_note(const struct request *request)
{
	return request->note;
}

/* ---- answers ---- */

enum status
request_reply_response(struct request *request, unsigned status, const char *content_type,
	struct MHD_Response *response, uint64_t size, struct err *err)
{
	if (response == NULL)
		return err_memory(err);
	drop_response(request);
	request->response = response;
	request->status = status;
	request->answer_type = content_type;
	request->answer_bytes = size;
	return OK;
}

enum status
request_reply_owned(struct request *request, unsigned status, const char *content_type,
	struct bytes *body, struct err *err)
{
	static char nothing[1];
	struct MHD_Response *response;
	size_t size = body->len;

	if (size == 0) {
		bytes_free(body);
		response = MHD_create_response_from_buffer(0, nothing, MHD_RESPMEM_PERSISTENT);
	} else {
		response = MHD_create_response_from_buffer_with_free_callback(
			size, body->data, mem_free);
		if (response != NULL)
			*body = (struct bytes){ NULL, 0 };
		else
			bytes_free(body);
	}
	return request_reply_response(request, status, content_type, response, size, err);
}

enum status
request_reply_shared(struct request *request, unsigned status, const char *content_type,
	struct view body, void (*drop)(void *owner), void *owner, struct err *err)
{
	union {
		const uint8_t *read;
		void *lent;
	} data = { body.data }; /* libmicrohttpd only reads it */
	struct MHD_Response *response = MHD_create_response_from_buffer_with_free_callback_cls(
		body.len, data.lent, drop, owner);

	if (response == NULL)
		drop(owner);
	return request_reply_response(request, status, content_type, response, body.len, err);
}

enum status
request_reply_bytes(struct request *request, unsigned status, const char *content_type,
	struct view body, struct err *err)
{
	own_struct(bytes) copy = { NULL, 0 };

	if (body.len > 0)
		TRY(bytes_copy(&copy, body, err));
	return request_reply_owned(request, status, content_type, &copy, err);
}

static int
add_text(const char *text, size_t len, void *arg)
{
	struct err err;

	return buf_add(arg, text, len, &err) == OK ? 0 : -1;
}

enum status
request_json_text(struct buf *out, const json_t *json, struct err *err)
{
	return json_dump_callback(json, add_text, out, JSON_COMPACT) == 0 ? OK : err_memory(err);
}

static enum status
reply_text_of(struct request *request, unsigned status, const char *content_type,
	const json_t *json, struct err *err)
{
	own_struct(buf) text = { .limit_bytes = JSON_MAX_BYTES };
	own_struct(bytes) body = { NULL, 0 };

	if (json == NULL || json_dump_callback(json, add_text, &text, JSON_COMPACT) != 0)
		return err_memory(err);
	body = buf_give(&text);
	return request_reply_owned(request, status, content_type, &body, err);
}

enum status
request_reply_json(struct request *request, unsigned status, json_t *json, struct err *err)
{
	own(json_t) taken = json;

	return reply_text_of(request, status, "application/json", taken, err);
}

enum status
request_reply_fd(struct request *request, unsigned status, const char *content_type, int fd,
	uint64_t size, struct err *err)
{
	return request_reply_part(request, status, content_type, fd, 0, size, err);
}

enum status
request_reply_part(struct request *request, unsigned status, const char *content_type, int fd,
	uint64_t offset, uint64_t size, struct err *err)
{
	struct MHD_Response *response = MHD_create_response_from_fd_at_offset64(size, fd, offset);

	if (response == NULL)
		close(fd);
	return request_reply_response(request, status, content_type, response, size, err);
}

enum status
request_reply_header(struct request *request, const char *name, const char *value, struct err *err)
{
	struct answer_header *header = request_alloc(request, sizeof(*header));
	char *name_copy = copy_text(request, name);
	char *value_copy = copy_text(request, value);

	if (header == NULL || name_copy == NULL || value_copy == NULL)
		return err_memory(err);
	*header = (struct answer_header){
		.next = request->headers, .name = name_copy, .value = value_copy
	};
	request->headers = header;
	return OK;
}

/* The headers that go with a problem. */
static enum status
problem_headers(struct request *request, const struct err *problem, struct err *err)
{
	char text[24];
	int64_t seconds;

	if (problem_retry_after(problem, &seconds)) {
		(void)snprintf(text, sizeof(text), "%lld", (long long)seconds);
		TRY(request_reply_header(request, "Retry-After", text, err));
	}
	/* RFC 6750 3 */
	if (request->status == 401)
		return request_reply_header(
			request, "WWW-Authenticate", "Bearer realm=\"jitrca\"", err);
	return OK;
}

static enum status
render_problem(struct request *request, const struct err *problem, struct err *err)
{
	own(json_t) json = problem_json(problem, request->id);

	TRY(reply_text_of(
		request, problem_status(problem), "application/problem+json", json, err));
	return problem_headers(request, problem, err);
}

void
request_problem(struct request *request, const struct err *problem)
{
	struct err err;

	(void)snprintf(request->code, sizeof(request->code), "%s", problem->code);
	metric_count(METRIC_PROBLEMS, problem->code, NULL, 1);
	if (problem_status(problem) == 500)
		log_error(LOG_ERROR, "request_failed", request->id, problem);
	/* What the handler had set for its own answer is void. */
	request->headers = NULL;
	if ((request->http->render != NULL ? request->http->render(request, problem, &err)
					   : render_problem(request, problem, &err)) == OK)
		return;
	/* No memory to say what it was: an answer that was made at the start. */
	drop_response(request);
	request->headers = NULL;
	request->response = request->http->last_resort;
	request->status = 503;
	request->answer_type = NULL;
	request->answer_bytes = 0;
}

void
request_conclude(struct request *request, enum status status, const struct err *err)
{
	struct err none;

	if (status != OK) {
		request_problem(request, err);
	} else if (request->response == NULL) {
		(void)err_set(&none, ERR_INTERNAL, "no_answer",
			"the handler of %s %s gave no answer", request->match.route->method,
			request->match.route->path);
		request_problem(request, &none);
	}
}

/* ---- answering later ---- */

void
request_park(struct request *request)
{
	atomic_fetch_add(&request->references, 1);
	atomic_store(&request->parked, true);
	if (!request->on_lane)
		return; /* it is suspended */
	connection_enter(request->connection, CONNECTION_WORKING, 0);
	request->phase = PHASE_ANSWER;
	MHD_suspend_connection(request->mhd);
}

void
request_finish(struct request *request, enum status status, const struct err *err)
{
	request_conclude(request, status, err);
	request->phase = PHASE_ANSWER;
	MHD_resume_connection(request->mhd);
	request_drop(request);
}

static enum MHD_Result
add_header(struct MHD_Response *response, const char *name, const char *value)
{
	return MHD_add_response_header(response, name, value);
}

/* False: no memory for the headers. */
static bool
add_headers(struct request *request)
{
	struct MHD_Response *response = request->response;
	bool good = add_header(response, "X-Request-Id", request->id) == MHD_YES;
	bool cache_control = false;

	for (const struct answer_header *one = request->headers; one != NULL; one = one->next) {
		cache_control |= strcasecmp(one->name, "Cache-Control") == 0;
		good &= add_header(response, one->name, one->value) == MHD_YES;
	}
	if (request->answer_type != NULL)
		good &= add_header(response, "Content-Type", request->answer_type) == MHD_YES;
	if (!cache_control)
		good &= add_header(response, "Cache-Control", "no-store") == MHD_YES;
	if (atomic_load(&request->http->stopping))
		good &= add_header(response, "Connection", "close") == MHD_YES;
	return good;
}

enum MHD_Result
request_queue(struct request *request)
{
	const struct config *config = request->http->config;
	enum MHD_Result result;

	request->phase = PHASE_DONE;
	if (request->response != request->http->last_resort && !add_headers(request)) {
		drop_response(request);
		request->response = request->http->last_resort;
		request->status = 503;
	}
	connection_enter(request->connection, CONNECTION_SENDING,
		http_now_ms() + config->idle_timeout_ms +
			(int64_t)(request->answer_bytes / RATE_LEAST_BYTES_MS));
	result = MHD_queue_response(request->mhd, request->status, request->response);
	drop_response(request);
	return result;
}
