#include "server/protocol/ocsp.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cond.h"
#include "base/log.h"
#include "base/mem.h"
#include "server/protocol/ocsp_internal.h"

/* As many CertIDs as anybody sends; what is longer is no request of ours (413). */
#define REQUEST_MAX_BYTES ((size_t)64 * 1024)
#define TYPE_REQUEST "application/ocsp-request"
#define TYPE_RESPONSE "application/ocsp-response"
#define MAX_AGE "max-age="
#define CONTROL_BYTES 80 /* that, up to 20 digits, and what is behind them */

/* ---- counting ---- */

void
ocsp_count(struct ocsp *ocsp, enum ocsp_count what)
{
	atomic_fetch_add_explicit(&ocsp->counts[what], 1, memory_order_relaxed);
}

static const struct {
	const char *name, *help, *labels;
} METRICS[COUNTS] = {
	[COUNT_GOOD] = { "ocsp_responses_total", "OCSP answers, by what they say of the first"
		" certificate asked for.", "{status=\"good\"}" },
	[COUNT_REVOKED] = { "ocsp_responses_total", NULL, "{status=\"revoked\"}" },
	[COUNT_UNKNOWN] = { "ocsp_responses_total", NULL, "{status=\"unknown\"}" },
	[COUNT_MALFORMED] = { "ocsp_responses_total", NULL, "{status=\"malformed_request\"}" },
	[COUNT_INTERNAL] = { "ocsp_responses_total", NULL, "{status=\"internal_error\"}" },
	[COUNT_TRY_LATER] = { "ocsp_responses_total", NULL, "{status=\"try_later\"}" },
	[COUNT_UNAUTHORIZED] = { "ocsp_responses_total", NULL, "{status=\"unauthorized\"}" },
	[COUNT_HITS] = { "ocsp_cache_hits_total", "OCSP answers given from memory.", "" },
	[COUNT_SIGNED] = { "ocsp_signed_total", "OCSP answers signed.", "" },
	[COUNT_ROUNDS] = { "ocsp_rounds_total", "Batches that OCSP answers were signed in.", "" },
};

static enum status
print_cache(struct ocsp *ocsp, struct buf *out, struct err *err)
{
	struct ocsp_cache_stats stats;

	ocsp_cache_stats(ocsp->cache, &stats);
	return buf_format(out, err,
		"# HELP jitrca_ocsp_cache_entries OCSP answers in memory.\n"
		"# TYPE jitrca_ocsp_cache_entries gauge\njitrca_ocsp_cache_entries %" PRIu64 "\n"
		"# HELP jitrca_ocsp_cache_bytes What they take.\n"
		"# TYPE jitrca_ocsp_cache_bytes gauge\njitrca_ocsp_cache_bytes %" PRIu64 "\n"
		"# HELP jitrca_ocsp_cache_evicted_total Answers that others took the place of.\n"
		"# TYPE jitrca_ocsp_cache_evicted_total counter\n"
		"jitrca_ocsp_cache_evicted_total %" PRIu64 "\n",
		stats.entries, stats.bytes, stats.evicted);
}

enum status
ocsp_metrics_print(struct ocsp *ocsp, struct buf *out, struct err *err)
{
	for (size_t i = 0; i < COUNTS; i++) {
		if (METRICS[i].help != NULL)
			TRY(buf_format(out, err, "# HELP jitrca_%s %s\n# TYPE jitrca_%s counter\n",
				METRICS[i].name, METRICS[i].help, METRICS[i].name));
		TRY(buf_format(out, err, "jitrca_%s%s %" PRId64 "\n", METRICS[i].name,
			METRICS[i].labels, atomic_load(&ocsp->counts[i])));
	}
	return print_cache(ocsp, out, err);
}

/* ---- answers ---- */

static enum status
reply_error(struct request *request, enum ca_ocsp_error error, struct err *err)
{
	return request_reply_bytes(request, 200, TYPE_RESPONSE, ca_ocsp_error_response(error), err);
}

enum status
ocsp_reply_error(struct ocsp *ocsp, struct request *request, enum ca_ocsp_error error, struct err *err)
{
	static const enum ocsp_count COUNT_OF_ERROR[] = {
		[OCSP_MALFORMED_REQUEST] = COUNT_MALFORMED,
		[OCSP_INTERNAL_ERROR] = COUNT_INTERNAL,
		[OCSP_TRY_LATER] = COUNT_TRY_LATER,
		[OCSP_UNAUTHORIZED] = COUNT_UNAUTHORIZED,
	};

	ocsp_count(ocsp, COUNT_OF_ERROR[error]);
	return reply_error(request, error, err);
}

/* Without printf: it is made for each answer. seconds: at most a week. */
static void
put_control(char out[CONTROL_BYTES], int64_t seconds)
{
	static const char BEHIND[] = ", public, no-transform, must-revalidate";
	char digits[20];
	size_t count = 0;
	size_t at = sizeof(MAX_AGE) - 1;

	do
		digits[count++] = (char)('0' + seconds % 10);
	while ((seconds /= 10) > 0);
	memcpy(out, MAX_AGE, sizeof(MAX_AGE));
	while (count > 0)
		out[at++] = digits[--count];
	memcpy(out + at, BEHIND, sizeof(BEHIND));
}

/* RFC 5019 6.2. What is left until nextUpdate is all that a cache may keep it for. */
static enum status
add_caching(struct request *request, const struct ocsp_answer *answer, int64_t now_s, struct err *err)
{
	char control[CONTROL_BYTES];

	put_control(control, answer->next_update_s > now_s ? answer->next_update_s - now_s - 1 : 0);
	TRY(request_reply_header(request, "ETag", answer->etag, err));
	TRY(request_reply_header(request, "Last-Modified", answer->last_modified, err));
	TRY(request_reply_header(request, "Expires", answer->expires, err));
	return request_reply_header(request, "Cache-Control", control, err);
}

enum status
ocsp_reply(struct request *request, struct ocsp_answer *answer, bool cacheable, int64_t now_s,
	struct err *err)
{
	unsigned http_status = 200;
	enum status status = OK;

	/* Only GET is cached on the way. */
	if (cacheable && strcmp(request_method(request), "POST") != 0) {
		status = add_caching(request, answer, now_s, err);
		if (caching_not_modified(request, answer->etag, answer->last_modified))
			http_status = 304;
	}
	if (status != OK) {
		ocsp_answer_drop(answer);
		return status;
	}
	return request_reply_shared(request, http_status, TYPE_RESPONSE, ocsp_answer_response(answer),
		ocsp_answer_drop, answer, err);
}

/* ---- requests ---- */

static int
ca_of(const struct ocsp *ocsp, const struct ca_ocsp_id *id)
{
	for (size_t i = 0; i < ocsp->app->ca_count; i++)
		if (ca_ocsp_names(id, &ocsp->issuers[i]))
			return (int)i;
	return -1;
}

/* The answer from memory, while what is in it may be believed. */
static struct ocsp_answer *
remembered(struct ocsp *ocsp, const struct ca_ocsp_id *id, int64_t now_s)
{
	uint64_t epoch;

	return freshness_now(ocsp->app, &epoch) ? ocsp_cache_get(ocsp->cache, id, now_s) : NULL;
}

static struct ocsp_waiting *
waiting_of(struct ocsp *ocsp, struct request *request, const struct ca_ocsp_request *asked)
{
	struct ocsp_waiting *waiting = request_alloc(
		request, sizeof(*waiting) + asked->count * sizeof(waiting->asked[0]));

	if (waiting == NULL)
		return NULL;
	waiting->request = request;
	waiting->nonce = asked->nonce;
	waiting->count = asked->count;
	for (size_t i = 0; i < asked->count; i++) {
		waiting->asked[i].id = asked->ids[i];
		waiting->asked[i].ca = ca_of(ocsp, &asked->ids[i]);
	}
	waiting->cacheable = asked->count == 1 && asked->nonce.len == 0 &&
	                     asked->ids[0].serial_ours && waiting->asked[0].ca >= 0;
	return waiting;
}

/* False: too many wait. */
static bool
push(struct ocsp *ocsp, struct ocsp_waiting *waiting)
{
	bool room;

	(void)pthread_mutex_lock(&ocsp->lock);
	room = ocsp->waiting < OCSP_WAITING_MAX && !ocsp->stopping;
	if (room) {
		waiting->next = NULL;
		*ocsp->last = waiting;
		ocsp->last = &waiting->next;
		ocsp->waiting++;
		(void)pthread_cond_signal(&ocsp->wake);
	}
	(void)pthread_mutex_unlock(&ocsp->lock);
	return room;
}

static enum status
have_signed(struct ocsp *ocsp, struct request *request, struct ocsp_waiting *waiting, struct err *err)
{
	bool ours = false;
	enum status status;

	for (size_t i = 0; i < waiting->count; i++)
		ours = ours || waiting->asked[i].ca >= 0;
	if (!ours)
		return ocsp_reply_error(ocsp, request, OCSP_UNAUTHORIZED, err);
	request_park(request);
	if (push(ocsp, waiting))
		return OK;
	status = ocsp_reply_error(ocsp, request, OCSP_TRY_LATER, err);
	request_finish(request, status, err);
	return OK;
}

static enum status
answer(struct app *app, struct request *request, struct view der, struct err *err)
{
	struct ocsp *ocsp = app->ocsp;
	UNINITIALIZED struct ca_ocsp_request asked; /* seven kilobytes, of which one entry is used */
	struct ocsp_waiting *waiting;
	struct ocsp_answer *found;
	int64_t now_s = clock_wall_s(app->clock);
	struct err why;

	if (ocsp == NULL) /* the server is being started */
		return reply_error(request, OCSP_TRY_LATER, err);
	if (ca_ocsp_request_read(&asked, der, &why) != OK) {
		log_error(LOG_DEBUG, "ocsp_malformed", request_id(request), &why);
		return ocsp_reply_error(ocsp, request, OCSP_MALFORMED_REQUEST, err);
	}
	if (asked.count == 1 && asked.nonce.len == 0 && asked.ids[0].serial_ours) {
		found = remembered(ocsp, &asked.ids[0], now_s);
		if (found != NULL) {
			ocsp_count(ocsp, COUNT_HITS);
			ocsp_count(ocsp, COUNT_GOOD + (enum ocsp_count)(found->status - OCSP_GOOD));
			return ocsp_reply(request, found, true, now_s, err);
		}
	}
	waiting = waiting_of(ocsp, request, &asked);
	return waiting == NULL ? err_memory(err) : have_signed(ocsp, request, waiting, err);
}

static enum status
ocsp_post(struct app *app, struct request *request, struct err *err)
{
	/* RFC 6960 A.1 */
	if (strcmp(request_content_type(request), TYPE_REQUEST) != 0)
		return err_set(err, ERR_ARGUMENT, "unsupported_media_type",
			"Content-Type: " TYPE_REQUEST " wanted");
	return answer(app, request, request_body(request), err);
}

static int
digit_of(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	if (c == '+' || c == '-' || c == ' ') /* a space: somebody took the plus for one */
		return 62;
	return c == '/' || c == '_' ? 63 : -1;
}

/* Base64 (RFC 4648 4) or its URL form (5), padded or not. False: neither. out holds len * 3 / 4. */
static bool
decode(uint8_t *out, size_t *out_len, const char *text, size_t len)
{
	uint32_t bits = 0;

	while (len > 0 && text[len - 1] == '=')
		len--;
	*out_len = 0;
	for (size_t i = 0; i < len; i++) {
		int digit = digit_of(text[i]);

		if (digit < 0)
			return false;
		bits = bits << 6 | (uint32_t)digit;
		if (i % 4 != 0)
			out[(*out_len)++] = (uint8_t)(bits >> (6 - 2 * (i % 4)));
	}
	return len % 4 != 1;
}

/* RFC 6960 A.1: the path is the request in base64, percent-encoded or not. */
static enum status
ocsp_get(struct app *app, struct request *request, struct err *err)
{
	const char *text = request_param(request, "request");
	size_t len = strlen(text);
	uint8_t *der = request_alloc(request, len);
	size_t der_len = 0;

	if (der == NULL)
		return err_memory(err);
	if (!decode(der, &der_len, text, len))
		der_len = 0; /* which is no request either */
	return answer(app, request, (struct view){ der, der_len }, err);
}

/* ---- start and stop ---- */

static enum status
start(struct ocsp *ocsp, struct err *err)
{
	const struct app *app = ocsp->app;

	TRY(ocsp_cache_new(&ocsp->cache, (size_t)app->config.ocsp_cache_bytes, err));
	for (size_t i = 0; i < app->ca_count && i < OCSP_CAS_MAX; i++)
		if (app->cas[i].can_sign)
			TRY(ca_ocsp_issuer_init(
				&ocsp->issuers[i], view_of(&app->cas[i].certificate), err));
	if (pthread_create(&ocsp->thread, NULL, ocsp_round_main, ocsp) != 0)
		return err_set(err, ERR_UNAVAILABLE, "thread", "cannot start the OCSP thread");
	ocsp->started = true;
	return OK;
}

enum status
ocsp_start(struct ocsp **out, struct app *app, struct err *err)
{
	struct ocsp *ocsp = mem_zalloc(sizeof(*ocsp));
	enum status status;

	if (ocsp == NULL)
		return err_memory(err);
	ocsp->app = app;
	ocsp->last = &ocsp->first;
	(void)pthread_mutex_init(&ocsp->lock, NULL);
	cond_init(&ocsp->wake);
	status = start(ocsp, err);
	if (status != OK) {
		ocsp_free(ocsp);
		return status;
	}
	*out = ocsp;
	return OK;
}

void
ocsp_stop(struct ocsp *ocsp)
{
	if (ocsp == NULL || !ocsp->started)
		return;
	(void)pthread_mutex_lock(&ocsp->lock);
	ocsp->stopping = true;
	(void)pthread_cond_broadcast(&ocsp->wake);
	(void)pthread_mutex_unlock(&ocsp->lock);
	(void)pthread_join(ocsp->thread, NULL);
	ocsp->started = false;
}

void
ocsp_free(struct ocsp *ocsp)
{
	if (ocsp == NULL)
		return;
	for (size_t i = 0; i < OCSP_CAS_MAX; i++) {
		bytes_free(&ocsp->responders[i].certificate);
		bytes_free(&ocsp->responders[i].next_spki);
	}
	ocsp_cache_free(ocsp->cache);
	(void)pthread_cond_destroy(&ocsp->wake);
	(void)pthread_mutex_destroy(&ocsp->lock);
	mem_free(ocsp);
}

/* ---- changes ---- */

/* "7 0a1b… 0c2d…": an issuer_id, and serials. What is none of it changes nothing that we remember. */
void
ocsp_changed(struct ocsp *ocsp, const char *payload)
{
	char *rest;
	struct db_cert_ref ref = { .issuer_id = (int32_t)strtol(payload, &rest, 10) };

	while (*rest == ' ') {
		size_t len = strcspn(++rest, " ");

		if (serial_parse(&ref.serial, rest, len)) {
			ocsp_cache_forget(ocsp->cache, &ref);
			ocsp_responder_revoked(ocsp, &ref);
		}
		rest += len;
	}
}

void
ocsp_forget_all(struct ocsp *ocsp)
{
	ocsp_cache_clear(ocsp->cache);
}

#define EVERYWHERE (LISTENER_HTTP | LISTENER_HTTPS | LISTENER_STATIONS)

const struct route OCSP_ROUTES[] = {
	{ .method = "POST", .path = "/ocsp", .handle = ocsp_post, .roles = ROLE_ANYONE,
	  .listeners = EVERYWHERE, .body_max_bytes = REQUEST_MAX_BYTES, .inline_ok = true,
	  .quiet = true },
	{ .method = "GET", .path = "/ocsp/{request+}", .handle = ocsp_get, .roles = ROLE_ANYONE,
	  .listeners = EVERYWHERE, .inline_ok = true, .quiet = true },
	{ .method = NULL },
};
