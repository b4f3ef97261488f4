#include "server/iot/aws_transport.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/clock.h"
#include "base/cond.h"
#include "base/mem.h"

#define IDLE_POLL_MS 10000
#define USER_AGENT "jitrca/" JITRCA_VERSION
#define DETAIL_BYTES CURL_ERROR_SIZE

typedef struct curl_slist curl_slist;
OWNER(CURL, curl_easy_cleanup)

/* Headers may hold a session token: wiped before they are freed. */
static void
headers_free(curl_slist *list)
{
	for (curl_slist *at = list; at != NULL; at = at->next)
		explicit_bzero(at->data, strlen(at->data));
	curl_slist_free_all(list);
}
OWNER(curl_slist, headers_free)

/* One exchange: the caller's until it is queued, then the thread's until done. */
struct exchange {
	CURL *curl;
	struct aws_answer *answer;
	bool too_large;
	bool done;
	CURLcode code;
	char detail[DETAIL_BYTES];
	pthread_cond_t finished;
	struct exchange *next;
};

struct aws_transport {
	pthread_t thread;
	CURLM *multi;
	pthread_mutex_t lock; /* all below */
	pthread_cond_t changed; /* a place is free, or stopping */
	struct exchange *queued;  /* not yet with libcurl */
	struct exchange *running; /* with libcurl; touched by the thread only */
	unsigned places_max, places_used;
	unsigned urgent_waiting;
	bool stopping;
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static CURLcode global_code;

static void
global_init(void)
{
	global_code = curl_global_init(CURL_GLOBAL_DEFAULT);
}

void
aws_answer_free(struct aws_answer *answer)
{
	if (answer->body.data != NULL)
		explicit_bzero(answer->body.data, answer->body.len);
	buf_free(&answer->body);
}

bool
aws_host_is_loopback(const char *host)
{
	return strcasecmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0 ||
		strcmp(host, "::1") == 0 ||
		(strncmp(host, "127.", 4) == 0 && strspn(host, "0123456789.") == strlen(host));
}

/* ---- the thread ---- */

/* With the lock. The exchange is its caller's again afterwards. */
static void
finish(struct aws_transport *transport, struct exchange *exchange, CURLcode code)
{
	struct exchange **at = &transport->running;

	while (*at != NULL && *at != exchange)
		at = &(*at)->next;
	if (*at != NULL)
		*at = exchange->next;
	exchange->code = code;
	exchange->done = true;
	(void)pthread_cond_signal(&exchange->finished);
}

static void
finish_all(struct aws_transport *transport)
{
	while (transport->running != NULL) {
		(void)curl_multi_remove_handle(transport->multi, transport->running->curl);
		finish(transport, transport->running, CURLE_ABORTED_BY_CALLBACK);
	}
}

/* With the lock. */
static void
take_queued(struct aws_transport *transport)
{
	while (transport->queued != NULL) {
		struct exchange *exchange = transport->queued;

		transport->queued = exchange->next;
		exchange->next = transport->running;
		transport->running = exchange;
		if (curl_multi_add_handle(transport->multi, exchange->curl) != CURLM_OK)
			finish(transport, exchange, CURLE_OUT_OF_MEMORY);
	}
}

static void
read_results(struct aws_transport *transport)
{
	const CURLMsg *message;
	int left = 0;

	while ((message = curl_multi_info_read(transport->multi, &left)) != NULL) {
		struct exchange *exchange = NULL;
		CURLcode code = message->data.result;
		CURL *curl = message->easy_handle;

		if (message->msg != CURLMSG_DONE)
			continue;
		(void)curl_easy_getinfo(curl, CURLINFO_PRIVATE, &exchange);
		(void)curl_multi_remove_handle(
			transport->multi, curl); /* message is gone after this */
		(void)pthread_mutex_lock(&transport->lock);
		finish(transport, exchange, code);
		(void)pthread_mutex_unlock(&transport->lock);
	}
}

static void *
run(void *arg)
{
	struct aws_transport *transport = arg;
	bool stopping = false;

	while (!stopping) {
		int active = 0;
		bool failed;

		(void)pthread_mutex_lock(&transport->lock);
		take_queued(transport);
		stopping = transport->stopping;
		if (stopping)
			finish_all(transport);
		(void)pthread_mutex_unlock(&transport->lock);
		if (stopping)
			break;
		failed = curl_multi_perform(transport->multi, &active) != CURLM_OK;
		read_results(transport);
		failed = failed ||
		         curl_multi_poll(transport->multi, NULL, 0, IDLE_POLL_MS, NULL) != CURLM_OK;
		if (failed) {
			/* Memory is short or the like: nobody must wait for what may never come. */
			(void)pthread_mutex_lock(&transport->lock);
			finish_all(transport);
			(void)pthread_mutex_unlock(&transport->lock);
		}
	}
	return NULL;
}

/* ---- its life ---- */

static void
release(struct aws_transport *transport)
{
	if (transport->multi != NULL)
		(void)curl_multi_cleanup(transport->multi);
	(void)pthread_cond_destroy(&transport->changed);
	(void)pthread_mutex_destroy(&transport->lock);
	mem_free(transport);
}

enum status
aws_transport_new(struct aws_transport **out, unsigned connections_max, struct err *err)
{
	struct aws_transport *transport;

	*out = NULL;
	(void)pthread_once(&once, global_init);
	if (global_code != CURLE_OK)
		return err_set(err, ERR_UNAVAILABLE, "aws_client_start", "libcurl: %s",
			curl_easy_strerror(global_code));
	transport = mem_zalloc(sizeof(*transport));
	if (transport == NULL)
		return err_memory(err);
	(void)pthread_mutex_init(&transport->lock, NULL);
	cond_init(&transport->changed);
	transport->places_max = connections_max;
	transport->multi = curl_multi_init();
	if (transport->multi == NULL ||
		curl_multi_setopt(transport->multi, CURLMOPT_MAXCONNECTS, (long)connections_max) !=
			CURLM_OK ||
		curl_multi_setopt(transport->multi, CURLMOPT_MAX_TOTAL_CONNECTIONS,
			(long)connections_max) != CURLM_OK ||
		pthread_create(&transport->thread, NULL, run, transport) != 0) {
		release(transport);
		return err_set(err, ERR_UNAVAILABLE, "aws_client_start", "no thread for transfers");
	}
	*out = transport;
	return OK;
}

void
aws_transport_stop(struct aws_transport *transport)
{
	(void)pthread_mutex_lock(&transport->lock);
	transport->stopping = true;
	(void)pthread_cond_broadcast(&transport->changed);
	(void)pthread_mutex_unlock(&transport->lock);
	(void)curl_multi_wakeup(transport->multi);
}

void
aws_transport_free(struct aws_transport *transport)
{
	if (transport == NULL)
		return;
	aws_transport_stop(transport);
	(void)pthread_join(transport->thread, NULL);
	release(transport);
}

bool
aws_transport_sleep(struct aws_transport *transport, int64_t ms)
{
	struct timespec until = cond_in_ms(ms);
	bool stopping;

	(void)pthread_mutex_lock(&transport->lock);
	while (!transport->stopping &&
		pthread_cond_timedwait(&transport->changed, &transport->lock, &until) == 0)
		;
	stopping = transport->stopping;
	(void)pthread_mutex_unlock(&transport->lock);
	return !stopping;
}

/* ---- one exchange ---- */

static size_t
receive(char *data, size_t size, size_t count, void *arg)
{
	struct exchange *exchange = arg;
	struct err err;

	exchange->too_large = buf_add(&exchange->answer->body, data, size * count, &err) != OK;
	return exchange->too_large ? 0 : size * count;
}

/* Copies the value if line is the header `name`; cut at size. */
static bool
read_header(char *out, size_t size, const char *line, size_t len, const char *name)
{
	size_t name_len = strlen(name);

	if (len <= name_len || strncasecmp(line, name, name_len) != 0 || line[name_len] != ':')
		return false;
	line += name_len + 1;
	len -= name_len + 1;
	while (len > 0 && (*line == ' ' || *line == '\t'))
		line++, len--;
	while (len > 0 && (unsigned char)line[len - 1] <= ' ')
		len--;
	(void)snprintf(out, size, "%.*s", (int)(len < size ? len : size), line);
	return true;
}

static size_t
receive_header(char *line, size_t size, size_t count, void *arg)
{
	struct aws_answer *answer = ((struct exchange *)arg)->answer;
	size_t len = size * count;
	char number[16];

	if (read_header(number, sizeof(number), line, len, "x-amz-retry-after")) {
		/* Milliseconds; nine digits are eleven days, and what is no number is ignored. */
		answer->retry_after_ms = 0;
		if (strspn(number, "0123456789") == strlen(number) && strlen(number) < 10)
			for (const char *at = number; *at != '\0'; at++)
				answer->retry_after_ms = answer->retry_after_ms * 10 + (*at - '0');
	} else if (read_header(answer->error_type, sizeof(answer->error_type), line, len,
			   "x-amzn-errortype")) {
		return len;
	} else {
		(void)read_header(answer->request_id, sizeof(answer->request_id), line, len,
			"x-amzn-requestid");
	}
	return len;
}

static enum status
add_header(curl_slist **list, const char *text, struct err *err)
{
	curl_slist *longer = curl_slist_append(*list, text);

	if (longer == NULL)
		return err_memory(err);
	*list = longer;
	return OK;
}

static enum status
make_headers(curl_slist **list, const struct aws_transfer *transfer, struct err *err)
{
	/* What libcurl would add by itself and nobody signed: a form's type with every body, even
	 * an empty one. */
	static const char *const NEVER[] = { "Expect:", "Accept:", "Content-Type:" };
	size_t never = COUNT_OF(NEVER);

	for (size_t i = 0; i < transfer->header_count; i++) {
		if (strncasecmp(transfer->headers[i], "Content-Type:", 13) == 0)
			never = COUNT_OF(NEVER) - 1;
		TRY(add_header(list, transfer->headers[i], err));
	}
	for (size_t i = 0; i < never; i++)
		TRY(add_header(list, NEVER[i], err));
	return OK;
}

static void
set_body(CURL *curl, const struct aws_transfer *transfer)
{
	if (transfer->body.len > 0 || strcmp(transfer->method, "POST") == 0 ||
		strcmp(transfer->method, "PUT") == 0 || strcmp(transfer->method, "PATCH") == 0) {
		(void)curl_easy_setopt(
			curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)transfer->body.len);
		(void)curl_easy_setopt(curl, CURLOPT_POSTFIELDS,
			transfer->body.len > 0 ? (const char *)transfer->body.data : "");
	}
	(void)curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, transfer->method);
}

static void
set_options(CURL *curl, const struct aws_transfer *transfer, struct exchange *exchange)
{
#if LIBCURL_VERSION_NUM >= 0x075500 /* 7.85.0; Ubuntu 22.04 has an older one */
	(void)curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
#else
	(void)curl_easy_setopt(curl, CURLOPT_PROTOCOLS, (long)(CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
	(void)curl_easy_setopt(curl, CURLOPT_URL, transfer->url);
	(void)curl_easy_setopt(curl, CURLOPT_PATH_AS_IS, 1L);
	(void)curl_easy_setopt(curl, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	(void)curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	(void)curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
	(void)curl_easy_setopt(curl, CURLOPT_SSL_VERIFYPEER, 1L);
	(void)curl_easy_setopt(curl, CURLOPT_SSL_VERIFYHOST, 2L);
	(void)curl_easy_setopt(curl, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
	if (transfer->ca_file != NULL)
		(void)curl_easy_setopt(curl, CURLOPT_CAINFO, transfer->ca_file);
	if (transfer->direct)
		(void)curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
	(void)curl_easy_setopt(curl, CURLOPT_FRESH_CONNECT, transfer->fresh ? 1L : 0L);
	(void)curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, (long)transfer->connect_timeout_ms);
	(void)curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)transfer->timeout_ms);
	(void)curl_easy_setopt(curl, CURLOPT_USERAGENT, USER_AGENT);
	(void)curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, receive);
	(void)curl_easy_setopt(curl, CURLOPT_WRITEDATA, exchange);
	(void)curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, receive_header);
	(void)curl_easy_setopt(curl, CURLOPT_HEADERDATA, exchange);
	(void)curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, exchange->detail);
	(void)curl_easy_setopt(curl, CURLOPT_PRIVATE, exchange);
	set_body(curl, transfer);
}

/* With the lock. */
static enum status
wait_for_place(
	struct aws_transport *transport, const struct aws_transfer *transfer, struct err *err)
{
	struct timespec until = cond_in_ms(transfer->place_timeout_ms);
	bool late = false;

	if (transfer->urgent)
		transport->urgent_waiting++;
	while (!transport->stopping && !late &&
		(transport->places_used == transport->places_max ||
			(transport->urgent_waiting > 0 && !transfer->urgent)))
		late = pthread_cond_timedwait(&transport->changed, &transport->lock, &until) != 0;
	if (transfer->urgent && --transport->urgent_waiting == 0)
		(void)pthread_cond_broadcast(&transport->changed);
	if (transport->stopping)
		return err_set(err, ERR_UNAVAILABLE, "aws_stopped", "the client is being stopped");
	if (late)
		return err_set(err, ERR_UNAVAILABLE, "aws_busy", "all %u connections are busy",
			transport->places_max);
	transport->places_used++;
	return OK;
}

/* Hands the exchange to the thread and waits for it. */
static enum status
exchange_run(struct aws_transport *transport, const struct aws_transfer *transfer,
	struct exchange *exchange, bool *stopped, struct err *err)
{
	int64_t start_us;
	enum status status;

	(void)pthread_mutex_lock(&transport->lock);
	status = wait_for_place(transport, transfer, err);
	if (status == OK) {
		start_us = clock_mono_us();
		exchange->next = transport->queued;
		transport->queued = exchange;
		(void)curl_multi_wakeup(transport->multi);
		while (!exchange->done)
			(void)pthread_cond_wait(&exchange->finished, &transport->lock);
		exchange->answer->elapsed_ms = (clock_mono_us() - start_us) / 1000;
		transport->places_used--;
		(void)pthread_cond_broadcast(&transport->changed);
	}
	*stopped = transport->stopping;
	(void)pthread_mutex_unlock(&transport->lock);
	return status;
}

static enum status
judge(const struct exchange *exchange, bool stopped, struct err *err)
{
	if (exchange->code == CURLE_OK)
		return OK;
	if (stopped)
		return err_set(err, ERR_UNAVAILABLE, "aws_stopped", "the client is being stopped");
	if (exchange->too_large)
		return err_set(err, ERR_UNAVAILABLE, "aws_answer_too_large",
			"an answer of at most %zu bytes wanted",
			exchange->answer->body.limit_bytes);
	return err_set(err, ERR_UNAVAILABLE, "aws_network", "%s",
		exchange->detail[0] != '\0' ? exchange->detail
					    : curl_easy_strerror(exchange->code));
}

enum status
aws_transport_run(struct aws_transport *transport, const struct aws_transfer *transfer,
	struct aws_answer *answer, struct err *err)
{
	own(curl_slist) headers = NULL;
	own(CURL) curl = NULL;
	struct exchange exchange = { .answer = answer };
	bool stopped = false;
	long request_bytes = 0;
	enum status status;

	*answer = (struct aws_answer){ .body = { .limit_bytes = transfer->answer_max_bytes } };
	TRY(make_headers(&headers, transfer, err));
	curl = curl_easy_init();
	if (curl == NULL)
		return err_memory(err);
	exchange.curl = curl;
	set_options(curl, transfer, &exchange);
	(void)curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
	cond_init(&exchange.finished);
	status = exchange_run(transport, transfer, &exchange, &stopped, err);
	(void)pthread_cond_destroy(&exchange.finished);
	if (status != OK)
		return status;
	(void)curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &answer->http_status);
	(void)curl_easy_getinfo(curl, CURLINFO_REQUEST_SIZE, &request_bytes);
	answer->sent = request_bytes > 0;
	return judge(&exchange, stopped, err);
}
