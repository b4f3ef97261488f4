#include "server/iot/aws.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "server/iot/aws_credentials.h"
#include "server/iot/aws_sigv4.h"
#include "server/iot/aws_transport.h"

#define CONNECTIONS 16
#define CONNECT_TIMEOUT_MS 5000
#define ATTEMPT_TIMEOUT_MS 10000
#define CALL_TIMEOUT_MS 60000
#define ATTEMPTS 5
#define OPERATIONS_MAX 64
#define URL_BYTES 8192
#define HOST_BYTES 300
#define PREFIX_BYTES 256
#define HEADERS_MAX_BYTES ((size_t)16 << 10)
#define REGION_MAX 32
/* host, x-amz-date, content-type, x-amz-security-token */
#define OWN_HEADERS 4

OWNER(CURLU, curl_url_cleanup)

const int64_t AWS_LATENCY_BOUND_MS[AWS_LATENCY_BOUNDS] = { 5, 10, 25, 50, 100, 250, 500, 1000, 2500,
	5000, 10000, 30000 };

struct aws_client {
	/* Fixed after aws_client_new. */
	char name[AWS_NAME_BYTES];
	char region[REGION_MAX + 1];
	char service[REGION_MAX + 1];
	char *origin;        /* "https://host[:port]", owned */
	char host[HOST_BYTES]; /* as the Host header says it */
	char prefix[PREFIX_BYTES]; /* of the path, without a trailing '/' */
	char *ca_file;       /* owned, or NULL */
	bool loopback;
	int64_t connect_timeout_ms, attempt_timeout_ms, call_timeout_ms;
	unsigned attempts_max;
	struct aws_credentials *credentials;
	struct aws_buckets *buckets; /* owned, or NULL: the pacer is somebody else's */
	struct aws_pacer pacer;
	const struct clock *clock;
	struct entropy *entropy;
	struct aws_transport *transport;
	_Atomic int64_t in_flight;

	pthread_mutex_t lock; /* all below */
	struct aws_breaker breaker;
	struct aws_failure last;
	struct aws_operation_stats stats[OPERATIONS_MAX];
	size_t stats_count;
};

void
aws_reply_free(struct aws_reply *reply)
{
	json_decref(reply->json);
	reply->json = NULL;
}

/* ---- configuration ---- */

static enum status
url_part(CURLU *url, CURLUPart part, char *out, size_t size, struct err *err)
{
	char *text = NULL;
	bool fits = true;

	out[0] = '\0';
	if (curl_url_get(url, part, &text, 0) == CURLUE_OK) {
		int len = snprintf(out, size, "%s", text);

		fits = len >= 0 && (size_t)len < size;
	}
	curl_free(text);
	return fits ? OK
	            : err_set(err, ERR_ARGUMENT, "aws_endpoint_malformed",
			      "endpoint_url: too long");
}

static enum status
read_endpoint(struct aws_client *client, const char *text, struct err *err)
{
	own(CURLU) url = curl_url();
	char scheme[8], host[256], port[8], rest[PREFIX_BYTES];
	size_t len;

	if (url == NULL)
		return err_memory(err);
	if (curl_url_set(url, CURLUPART_URL, text, 0) != CURLUE_OK)
		return err_set(err, ERR_ARGUMENT, "aws_endpoint_malformed",
			"endpoint_url: https://HOST[:PORT][/PREFIX] wanted");
	TRY(url_part(url, CURLUPART_SCHEME, scheme, sizeof(scheme), err));
	TRY(url_part(url, CURLUPART_HOST, host, sizeof(host), err));
	TRY(url_part(url, CURLUPART_PORT, port, sizeof(port), err));
	TRY(url_part(url, CURLUPART_PATH, client->prefix, sizeof(client->prefix), err));
	if (strpbrk(text, "?#@") != NULL ||
		(strcmp(scheme, "https") != 0 && strcmp(scheme, "http") != 0))
		return err_set(err, ERR_ARGUMENT, "aws_endpoint_malformed",
			"endpoint_url: https://HOST[:PORT][/PREFIX] wanted");
	client->loopback = aws_host_is_loopback(host);
	if (strcmp(scheme, "http") == 0 && !client->loopback)
		return err_set(err, ERR_ARGUMENT, "aws_endpoint_insecure",
			"endpoint_url: https:// wanted, for the host is not this machine");
	for (len = strlen(client->prefix); len > 0 && client->prefix[len - 1] == '/'; len--)
		client->prefix[len - 1] = '\0';
	(void)snprintf(client->host, sizeof(client->host), "%s%s%s", host,
		port[0] != '\0' ? ":" : "", port);
	(void)snprintf(rest, sizeof(rest), "%s://", scheme);
	client->origin = mem_alloc(strlen(rest) + strlen(client->host) + 1);
	if (client->origin == NULL)
		return err_memory(err);
	(void)snprintf(client->origin, strlen(rest) + strlen(client->host) + 1, "%s%s", rest,
		client->host);
	return OK;
}

static enum status
read_name(char *out, const char *text, const char *what, struct err *err)
{
	size_t len = text != NULL ? strlen(text) : 0;

	if (len == 0 || len > REGION_MAX ||
		strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-") != len)
		return err_set(err, ERR_ARGUMENT, "aws_region_malformed",
			"%s: 1 to %d of a-z, 0-9 and '-' wanted", what, REGION_MAX);
	memcpy(out, text, len + 1);
	return OK;
}

static enum status
read_config(struct aws_client *client, const struct aws_client_config *config, struct err *err)
{
	char standard[128];

	TRY(read_name(client->region, config->region, "region", err));
	TRY(read_name(client->service, config->service != NULL ? config->service : "iot", "service",
		err));
	(void)snprintf(standard, sizeof(standard), "https://%s.%s.amazonaws.com%s", client->service,
		client->region, strncmp(client->region, "cn-", 3) == 0 ? ".cn" : "");
	TRY(read_endpoint(
		client, config->endpoint_url != NULL ? config->endpoint_url : standard, err));
	aws_text_escape(client->name, sizeof(client->name),
		config->name != NULL ? config->name : client->region);
	if (config->ca_file != NULL && (client->ca_file = mem_strdup(config->ca_file)) == NULL)
		return err_memory(err);
	client->connect_timeout_ms =
		config->connect_timeout_ms > 0 ? config->connect_timeout_ms : CONNECT_TIMEOUT_MS;
	client->attempt_timeout_ms =
		config->attempt_timeout_ms > 0 ? config->attempt_timeout_ms : ATTEMPT_TIMEOUT_MS;
	client->call_timeout_ms =
		config->call_timeout_ms > 0 ? config->call_timeout_ms : CALL_TIMEOUT_MS;
	client->attempts_max = config->attempts_max > 0 ? config->attempts_max : ATTEMPTS;
	client->credentials = config->credentials;
	client->clock = config->clock != NULL ? config->clock : &CLOCK_SYSTEM;
	client->entropy = config->entropy != NULL ? config->entropy : &ENTROPY_SYSTEM;
	aws_breaker_init(&client->breaker, &config->breaker);
	if (config->pacer != NULL) {
		client->pacer = *config->pacer;
		return OK;
	}
	TRY(aws_buckets_new(
		&client->buckets, config->quotas, config->quota_count, client->clock, err));
	client->pacer = aws_buckets_pacer(client->buckets);
	return OK;
}

enum status
aws_client_new(struct aws_client **out, const struct aws_client_config *config, struct err *err)
{
	struct aws_client *client = mem_zalloc(sizeof(*client));
	enum status status;

	*out = NULL;
	if (client == NULL)
		return err_memory(err);
	(void)pthread_mutex_init(&client->lock, NULL);
	client->last.error = AWS_ERROR_NONE;
	status = read_config(client, config, err);
	if (status == OK)
		status = aws_transport_new(&client->transport,
			config->connections_max > 0 ? config->connections_max : CONNECTIONS, err);
	if (status != OK) {
		aws_client_free(client);
		return status;
	}
	*out = client;
	return OK;
}

void
aws_client_stop(struct aws_client *client)
{
	aws_transport_stop(client->transport);
}

void
aws_client_free(struct aws_client *client)
{
	if (client == NULL)
		return;
	aws_transport_free(client->transport);
	aws_buckets_free(client->buckets);
	(void)pthread_mutex_destroy(&client->lock);
	mem_free(client->origin);
	mem_free(client->ca_file);
	mem_free(client);
}

/* ---- counting ---- */

/* With the lock. NULL: more operations than there are. */
static struct aws_operation_stats *
find_stats(struct aws_client *client, const char *operation)
{
	for (size_t i = 0; i < client->stats_count; i++)
		if (strcmp(client->stats[i].operation, operation) == 0)
			return &client->stats[i];
	if (client->stats_count == OPERATIONS_MAX)
		return NULL;
	client->stats[client->stats_count].operation = operation;
	return &client->stats[client->stats_count++];
}

/* What one call did, gathered without the lock. */
struct tally {
	int64_t throttles, paced_ms, latency_ms_sum;
	int64_t latency[AWS_LATENCY_BOUNDS + 1];
};

static void
tally_attempt(struct tally *tally, int64_t elapsed_ms)
{
	size_t i = 0;

	while (i < AWS_LATENCY_BOUNDS && elapsed_ms > AWS_LATENCY_BOUND_MS[i])
		i++;
	tally->latency[i]++;
	tally->latency_ms_sum += elapsed_ms;
}

static void
count(struct aws_client *client, const char *operation, const struct aws_failure *result,
	const struct tally *tally)
{
	struct aws_operation_stats *stats;

	(void)pthread_mutex_lock(&client->lock);
	stats = find_stats(client, operation);
	if (stats != NULL) {
		stats->calls++;
		stats->attempts += result->attempts;
		stats->retries += result->attempts > 1 ? result->attempts - 1 : 0;
		stats->results[result->error]++;
		stats->throttles += tally->throttles;
		stats->paced_ms += tally->paced_ms;
		stats->latency_ms_sum += tally->latency_ms_sum;
		for (size_t i = 0; i <= AWS_LATENCY_BOUNDS; i++)
			stats->latency[i] += tally->latency[i];
	}
	(void)pthread_mutex_unlock(&client->lock);
}

void
aws_client_stats(struct aws_client *client,
	void (*visit)(void *arg, const struct aws_operation_stats *stats), void *arg)
{
	for (size_t i = 0;; i++) {
		struct aws_operation_stats copy;
		bool there;

		(void)pthread_mutex_lock(&client->lock);
		there = i < client->stats_count;
		if (there)
			copy = client->stats[i];
		(void)pthread_mutex_unlock(&client->lock);
		if (!there)
			return;
		visit(arg, &copy);
	}
}

void
aws_client_health(struct aws_client *client, struct aws_health *out)
{
	*out = (struct aws_health){ .in_flight = atomic_load(&client->in_flight) };
	memcpy(out->name, client->name, sizeof(out->name));
	(void)pthread_mutex_lock(&client->lock);
	out->breaker = client->breaker.state;
	out->breaker_since_ms = client->breaker.since_ms;
	out->breaker_opened = client->breaker.opened;
	out->last = client->last;
	(void)pthread_mutex_unlock(&client->lock);
}

/* ---- the breaker ---- */

/* Sets the failure when nothing may be sent now. peek: without becoming the probe. */
static bool
breaker_refuses(struct aws_client *client, bool peek, struct aws_failure *failure)
{
	int64_t now_ms = clock_mono_ms(client->clock);
	int64_t wait_ms = 0;
	bool allowed;

	(void)pthread_mutex_lock(&client->lock);
	if (peek) {
		allowed = client->breaker.state != AWS_BREAKER_OPEN ||
		          now_ms >= client->breaker.probe_at_ms;
		wait_ms = allowed ? 0 : client->breaker.probe_at_ms - now_ms;
	} else {
		allowed = aws_breaker_allow(&client->breaker, now_ms, &wait_ms);
	}
	(void)pthread_mutex_unlock(&client->lock);
	if (allowed)
		return false;
	failure->error = AWS_ERROR_BREAKER;
	failure->retry_after_ms = wait_ms;
	(void)snprintf(
		failure->message, sizeof(failure->message), "the service did not answer of late");
	return true;
}

static void
breaker_report(struct aws_client *client, const struct aws_failure *failure)
{
	bool answered = failure->error != AWS_ERROR_UNAVAILABLE;
	enum aws_breaker_state before, after;
	uint32_t random;
	struct err ignored;

	if (entropy_fill(client->entropy, (uint8_t *)&random, sizeof(random), &ignored) != OK)
		random = 0; /* a pause without jitter is one as well */
	(void)pthread_mutex_lock(&client->lock);
	before = client->breaker.state;
	aws_breaker_report(&client->breaker, answered, clock_mono_ms(client->clock), random);
	after = client->breaker.state;
	if (!answered)
		client->last = *failure;
	(void)pthread_mutex_unlock(&client->lock);
	if (before != after)
		log_event(after == AWS_BREAKER_OPEN ? LOG_WARN : LOG_INFO, "aws_breaker", NULL,
			LOG_STR("client", client->name), LOG_STR("state", aws_breaker_name(after)),
			LOG_STR("message", failure->message));
}

static void
breaker_drop(struct aws_client *client)
{
	(void)pthread_mutex_lock(&client->lock);
	aws_breaker_drop(&client->breaker);
	(void)pthread_mutex_unlock(&client->lock);
}

/* ---- one call ---- */

struct call {
	struct aws_client *client;
	const struct aws_request *request;
	struct aws_reply *reply;
	int64_t deadline_ms;
	struct tally tally;
	bool doubted;  /* the credentials, once */
	bool sent;     /* the last attempt may have arrived */
};

static int64_t
time_left(const struct call *call)
{
	int64_t left = call->deadline_ms - clock_mono_ms(call->client->clock);

	return left > 0 ? left : 0;
}

/* Ends the call for a reason of our own. */
static enum status
give_up(struct call *call, enum aws_error error, const char *message)
{
	struct aws_failure *failure = &call->reply->failure;

	failure->error = error;
	failure->http_status = 0;
	failure->type[0] = '\0';
	aws_text_escape(failure->message, sizeof(failure->message), message);
	return ERR_UNAVAILABLE;
}

static enum status
sleep_for(struct call *call, int64_t ms, struct err *err)
{
	if (aws_transport_sleep(call->client->transport, ms))
		return OK;
	(void)give_up(call, AWS_ERROR_STOPPED, "");
	return aws_failure_err(&call->reply->failure, call->request->operation, err);
}

/* Until what was given in advance is there. */
static enum status
await_token(struct call *call, const struct aws_token *token, struct err *err)
{
	call->tally.paced_ms += token->wait_ms;
	return token->wait_ms > 0 ? sleep_for(call, token->wait_ms, err) : OK;
}

/* A token for this attempt, or the end of the call. */
static enum status
pace(struct call *call, struct err *err)
{
	struct aws_client *client = call->client;
	int64_t start_ms = clock_mono_ms(client->clock);

	for (;;) {
		struct aws_token token = { .taken = false };
		uint8_t random;
		enum status status = client->pacer.take(client->pacer.arg, call->request->operation,
			(int)call->request->priority, time_left(call), &token, err);

		call->tally.paced_ms += clock_mono_ms(client->clock) - start_ms;
		start_ms = clock_mono_ms(client->clock);
		if (status != OK) {
			call->reply->failure.error = AWS_ERROR_LOCAL;
			return status;
		}
		if (token.taken)
			return await_token(call, &token, err);
		if (token.wait_ms >= time_left(call)) {
			(void)give_up(
				call, AWS_ERROR_THROTTLED, "the quota leaves no room in time");
			call->reply->failure.retry_after_ms = token.wait_ms;
			return aws_failure_err(
				&call->reply->failure, call->request->operation, err);
		}
		/* Up to a quarter more: those who wait for one bucket do not come at one moment. */
		TRY(entropy_fill(client->entropy, &random, 1, err));
		TRY(sleep_for(call, token.wait_ms + token.wait_ms * random / 1024, err));
	}
}

static enum status
add_url(struct buf *out, const struct call *call, struct err *err)
{
	const struct aws_request *request = call->request;

	TRY(buf_format(
		out, err, "%s%s%s", call->client->origin, call->client->prefix, request->path));
	for (size_t i = 0; i < AWS_QUERY_MAX && request->query[i].name != NULL; i++) {
		TRY(buf_text(out, i == 0 ? "?" : "&", err));
		TRY(aws_uri_encode(out, view_text(request->query[i].name), false, err));
		TRY(buf_text(out, "=", err));
		TRY(aws_uri_encode(out, view_text(request->query[i].value), false, err));
	}
	return buf_add(out, "", 1, err);
}

/* What is signed and sent; the texts live in it. */
struct signed_request {
	struct aws_field query[AWS_QUERY_MAX];
	struct aws_field headers[AWS_HEADERS_MAX + OWN_HEADERS];
	size_t header_count;
	char date[AWS_DATE_BYTES];
	struct secret lines; /* "Name: value" NUL …, for the transport */
	const char *line[AWS_HEADERS_MAX + OWN_HEADERS + 2];
	size_t line_count;
};

static void
signed_request_free(struct signed_request *request)
{
	secret_free(&request->lines);
}
OWNER_STRUCT(signed_request, signed_request_free)

static void
add_field(struct signed_request *out, const char *name, struct view value)
{
	out->headers[out->header_count++] = (struct aws_field){ view_text(name), value };
}

/* A value with a line break would be a header of its own; libcurl leaves an empty one out. */
static bool
one_line(struct view value)
{
	for (size_t i = 0; i < value.len; i++)
		if (value.data[i] < ' ' || value.data[i] == 0x7f)
			return false;
	return value.len > 0;
}

/* "name: value" and NUL, where there is room for it; returns where the next begins. */
static char *
add_line(char *at, const struct aws_field *field)
{
	memcpy(at, field->name.data, field->name.len);
	at += field->name.len;
	*at++ = ':';
	*at++ = ' ';
	if (field->value.len > 0)
		memcpy(at, field->value.data, field->value.len);
	at += field->value.len;
	*at++ = '\0';
	return at;
}

static enum status
add_lines(struct signed_request *out, struct view authorization, struct err *err)
{
	size_t bytes = authorization.len + sizeof("Authorization: ");
	char *at;

	for (size_t i = 0; i < out->header_count; i++) {
		if (!one_line(out->headers[i].value))
			return err_set(
				err, ERR_ARGUMENT, "iot_argument", "header: one line wanted");
		bytes += out->headers[i].name.len + out->headers[i].value.len + sizeof(": ");
	}
	TRY(secret_new(&out->lines, bytes, err));
	at = (char *)out->lines.data;
	for (size_t i = 0; i < out->header_count; i++) {
		out->line[out->line_count++] = at;
		at = add_line(at, &out->headers[i]);
	}
	out->line[out->line_count++] = at;
	(void)snprintf(at, bytes - (size_t)(at - (char *)out->lines.data), "Authorization: %.*s",
		(int)authorization.len, (const char *)authorization.data);
	return OK;
}

static enum status
sign(struct signed_request *out, const struct call *call, const struct aws_keys *keys,
	struct err *err)
{
	const struct aws_request *request = call->request;
	own_struct(buf) path = { .limit_bytes = URL_BYTES };
	own_struct(buf) authorization = { .limit_bytes = HEADERS_MAX_BYTES };
	struct aws_sigv4 sigv4 = { .method = view_text(request->method), .query = out->query,
		.headers = out->headers, .region = view_text(call->client->region),
		.service = view_text(call->client->service) };

	for (; sigv4.query_count < AWS_QUERY_MAX && request->query[sigv4.query_count].name != NULL;
		sigv4.query_count++)
		out->query[sigv4.query_count] =
			(struct aws_field){ view_text(request->query[sigv4.query_count].name),
				view_text(request->query[sigv4.query_count].value) };
	aws_date_format(out->date, clock_wall_s(call->client->clock));
	add_field(out, "host", view_text(call->client->host));
	add_field(out, "x-amz-date", view_text(out->date));
	if (request->body.len > 0)
		add_field(out, "content-type", view_text("application/json"));
	if (keys->session_token.len > 0)
		add_field(out, "x-amz-security-token",
			(struct view){ keys->session_token.data, keys->session_token.len });
	for (size_t i = 0; i < AWS_HEADERS_MAX && request->headers[i].name != NULL; i++)
		add_field(out, request->headers[i].name, view_text(request->headers[i].value));
	sigv4.header_count = out->header_count;
	memcpy(sigv4.date, out->date, sizeof(sigv4.date));
	aws_sha256_hex(sigv4.body_sha256, request->body);
	TRY(buf_format(&path, err, "%s%s", call->client->prefix, request->path));
	sigv4.path = buf_view(&path);
	TRY(aws_sigv4_authorization(&sigv4, view_text(keys->access_key),
		(struct view){ keys->secret_key.data, keys->secret_key.len }, &authorization, err));
	return add_lines(out, buf_view(&authorization), err);
}

/* What came: a result, or a failure in reply->failure. */
static void
read_answer(struct call *call, const struct aws_answer *answer)
{
	struct aws_reply *reply = call->reply;
	const char *body = (const char *)answer->body.data;
	json_t *json = answer->body.len > 0 ? json_loadb(body, answer->body.len, 0, NULL) : NULL;

	reply->failure.http_status = answer->http_status;
	reply->failure.retry_after_ms = answer->retry_after_ms;
	aws_text_escape(
		reply->failure.request_id, sizeof(reply->failure.request_id), answer->request_id);
	if (answer->http_status < 200 || answer->http_status > 299) {
		aws_failure_read(&reply->failure, answer->http_status, answer->error_type, json);
		json_decref(json);
		return;
	}
	if (answer->body.len > 0 && !json_is_object(json)) {
		/* Something between us and the service answered, or the body was cut. */
		json_decref(json);
		reply->failure.error = AWS_ERROR_UNAVAILABLE;
		(void)snprintf(reply->failure.message, sizeof(reply->failure.message),
			"the answer is not a JSON object");
		return;
	}
	reply->json = json;
	reply->failure.error = AWS_ERROR_NONE;
}

/* Sends once. OK: there is a result or a failure of the service's; else the call ends. */
static enum status
attempt(struct call *call, struct err *err)
{
	struct aws_client *client = call->client;
	struct aws_failure *failure = &call->reply->failure;
	own_struct(aws_keys) keys = { .source = NULL };
	own_struct(signed_request) request = { .line_count = 0 };
	own_struct(buf) url = { .limit_bytes = URL_BYTES };
	own_struct(aws_answer) answer = { .sent = false };
	/* Not 0, which libcurl takes for ever. */
	int64_t left = time_left(call) + 1;
	struct aws_transfer transfer = { .method = call->request->method,
		.body = call->request->body,
		.ca_file = client->ca_file,
		.connect_timeout_ms = client->connect_timeout_ms,
		.timeout_ms = left < client->attempt_timeout_ms ? left : client->attempt_timeout_ms,
		.place_timeout_ms = left,
		.answer_max_bytes = AWS_ANSWER_MAX_BYTES,
		.direct = client->loopback,
		.fresh = call->request->once,
		.urgent = call->request->priority == AWS_PRIORITY_URGENT };
	enum status status;

	*failure = (struct aws_failure){ .error = AWS_ERROR_CREDENTIALS,
		.attempts = failure->attempts };
	TRY(aws_credentials_get(client->credentials, &keys, err));
	failure->error = AWS_ERROR_LOCAL;
	TRY(add_url(&url, call, err));
	TRY(sign(&request, call, &keys, err));
	transfer.url = (const char *)url.data;
	transfer.headers = request.line;
	transfer.header_count = request.line_count;
	status = aws_transport_run(client->transport, &transfer, &answer, err);
	call->sent = answer.sent;
	if (status != OK && strcmp(err->code, "aws_stopped") == 0)
		return give_up(call, AWS_ERROR_STOPPED, "");
	if (status != OK && strcmp(err->code, "aws_busy") == 0)
		return give_up(call, AWS_ERROR_UNAVAILABLE, err->text);
	if (status != OK && strcmp(err->code, "out_of_memory") == 0)
		return status;
	failure->attempts++;
	tally_attempt(&call->tally, answer.elapsed_ms);
	if (status == OK)
		read_answer(call, &answer);
	else
		(void)give_up(call, AWS_ERROR_UNAVAILABLE, err->text);
	if (failure->error == AWS_ERROR_THROTTLED)
		call->tally.throttles++;
	return OK;
}

/* The service does not know these keys: they may have been replaced. Once for each call. */
static bool
keys_refused(struct call *call)
{
	static const char *const TYPES[] = { "ExpiredToken", "ExpiredTokenException",
		"UnrecognizedClientException", "InvalidClientTokenId" };

	if (call->doubted || call->reply->failure.error != AWS_ERROR_DENIED)
		return false;
	for (size_t i = 0; i < COUNT_OF(TYPES); i++)
		if (strcmp(call->reply->failure.type, TYPES[i]) == 0)
			call->doubted = true;
	if (call->doubted)
		aws_credentials_doubt(call->client->credentials);
	return call->doubted;
}

static bool
try_again(struct call *call)
{
	const struct aws_failure *failure = &call->reply->failure;

	if (failure->attempts >= call->client->attempts_max)
		return false;
	if (keys_refused(call))
		return true;
	/* What is throttled was not carried out; what was not answered may have been. */
	if (call->request->once && call->sent && failure->error == AWS_ERROR_UNAVAILABLE)
		return false;
	return aws_error_transient(failure->error);
}

/* The text of a failure that has none yet. */
static enum status
ended(struct call *call, enum status status, struct err *err)
{
	enum aws_error error = call->reply->failure.error;

	if (error == AWS_ERROR_LOCAL || error == AWS_ERROR_CREDENTIALS)
		return status;
	return aws_failure_err(&call->reply->failure, call->request->operation, err);
}

static enum status
run(struct call *call, struct err *err)
{
	struct aws_client *client = call->client;
	struct aws_failure *failure = &call->reply->failure;

	for (;;) {
		struct aws_failure earlier = *failure;
		int64_t wait_ms;
		enum status status;

		/* A token is not spent on what will not be sent. */
		if (breaker_refuses(client, true, failure)) {
			/* What opened it says more than that it is open. */
			if (earlier.attempts > 0)
				*failure = earlier;
			return ended(call, ERR_UNAVAILABLE, err);
		}
		TRY(pace(call, err));
		if (breaker_refuses(client, false, failure))
			return ended(call, ERR_UNAVAILABLE, err);
		status = attempt(call, err);
		if (status != OK) {
			breaker_drop(client);
			return ended(call, status, err);
		}
		breaker_report(client, failure);
		if (failure->error == AWS_ERROR_NONE)
			return OK;
		if (!try_again(call))
			return ended(call, ERR_UNAVAILABLE, err);
		TRY(aws_backoff_ms(&wait_ms, failure, failure->attempts + 1, client->entropy, err));
		if (wait_ms >= time_left(call))
			return ended(call, ERR_UNAVAILABLE, err);
		TRY(sleep_for(call, wait_ms, err));
	}
}

enum status
aws_call(struct aws_client *client, const struct aws_request *request, struct aws_reply *reply,
	struct err *err)
{
	struct call call = { .client = client, .request = request, .reply = reply };
	int64_t timeout_ms =
		request->timeout_ms > 0 ? request->timeout_ms : client->call_timeout_ms;
	enum status status;

	*reply = (struct aws_reply){ .failure = { .error = AWS_ERROR_LOCAL } };
	call.deadline_ms = clock_mono_ms(client->clock) + timeout_ms;
	(void)atomic_fetch_add(&client->in_flight, 1);
	status = run(&call, err);
	(void)atomic_fetch_sub(&client->in_flight, 1);
	count(client, request->operation, &reply->failure, &call.tally);
	return status;
}
