#include "server/api/receipt_follow.h"

#include <ctype.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/clock.h"
#include "base/cond.h"
#include "base/log.h"
#include "base/mem.h"
#include "db/receipt.h"
#include "server/api/receipt.h"
#include "server/api/revocations.h"
#include "server/app.h"
#include "server/http/stream.h"

/* What changes is seen within that; later if looking takes long, for it is a quarter of the time at most. */
#define LOOK_MS 250
#define LOOK_SHARE 3
/* For proxies and clients that take silence for the end. */
#define BEAT_MS 10000
/* Then the client comes again, and is asked again who it is. */
#define STREAM_MS (10 * 60 * 1000)
#define WAIT_MAX_S 60
#define RETRY_AFTER_S 5
/* A comment (WHATWG HTML 9.2.5), long enough that a client that measures speed finds some. */
#define STILL ": nothing new yet\n\n"
#define TAG_BYTES 17 /* 16 hex digits: of what was told, for Last-Event-ID */

struct follower {
	char id[REVOCATION_ID_BYTES];
	/* One of them: */
	struct request *request; /* parked; to be answered by end_ms */
	struct stream *stream;
	int64_t end_ms, beat_ms;
	char told[TAG_BYTES];
};

struct receipt_follow {
	struct app *app;
	pthread_t thread;
	bool started;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	/* Under lock: places taken, also by those on their way; and who has come since the last look. */
	size_t taken, arrived_count;
	struct follower *arrived;
	bool stopping;
	/* Of the thread. */
	struct follower *followers;
	size_t count;
	size_t max;
};

/* ---- one look ---- */

struct sight {
	struct buf json;
	char tag[TAG_BYTES];
	bool over; /* it will not change any more */
};

static void
sight_free(struct sight *sight)
{
	buf_free(&sight->json);
}
OWNER_STRUCT(sight, sight_free)
typedef struct db_bulk db_bulk;
OWNER(db_bulk, mem_free)

/* FNV-1a: two states of one receipt that met would hide a change for a moment, no more. */
static void
make_tag(struct sight *sight)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < sight->json.len; i++)
		hash = (hash ^ sight->json.data[i]) * UINT64_C(0x100000001b3);
	(void)snprintf(sight->tag, sizeof(sight->tag), "%016" PRIx64, hash);
}

static enum status
look(struct sight *out, struct app *app, const char *id, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	own(db_bulk) bulk = mem_zalloc(sizeof(*bulk));
	own(json_t) json = NULL;

	*out = (struct sight){ .json = { .limit_bytes = (size_t)1 << 20 } };
	if (bulk == NULL)
		return err_memory(err);
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_bulk_find(&tx, id, bulk, err));
	TRY(receipt_render(&json, app, &tx, bulk, err));
	TRY(request_json_text(&out->json, json, err));
	make_tag(out);
	out->over = bulk->state == BULK_REJECTED || bulk->state == BULK_EXPIRED ||
		json_is_true(json_object_get(json, "complete"));
	return OK;
}

static enum status
send_event(struct stream *stream, const struct sight *sight, struct err *err)
{
	own_struct(buf) text = { .limit_bytes = (size_t)1 << 20 };

	/* Compact JSON is one line. */
	TRY(buf_format(&text, err, "id: %s\nevent: receipt\ndata: ", sight->tag));
	TRY(buf_add(&text, sight->json.data, sight->json.len, err));
	TRY(buf_text(&text, "\n\n", err));
	return stream_send(stream, buf_view(&text), err);
}

/* ---- followers ---- */

/* The answer of one who waited: the receipt, or why it cannot be had. */
static void
finish(struct request *request, const struct sight *sight, enum status status, struct err *err)
{
	if (status == OK)
		status = request_reply_bytes(request, 200, "application/json", buf_view(&sight->json), err);
	request_finish(request, status, err);
}

/* True: it has its answer. */
static bool
tell_waiting(struct follower *one, const struct sight *sight, enum status status, struct err *err,
	int64_t now_ms, bool stopping)
{
	bool lasting = status != OK && status != ERR_UNAVAILABLE;

	if (!lasting && !(status == OK && sight->over) && now_ms < one->end_ms && !stopping)
		return false;
	finish(one->request, sight, status, err);
	return true;
}

/* True: it is over. What it has not taken yet is not added to: it hears how things are when it has. */
static bool
tell_stream(struct follower *one, const struct sight *sight, enum status status, int64_t now_ms,
	bool stopping)
{
	enum stream_state state = stream_state(one->stream);
	bool fresh = status == OK && strcmp(one->told, sight->tag) != 0;
	struct err ignored;

	if (state == STREAM_GONE || stopping || now_ms >= one->end_ms ||
	    (status != OK && status != ERR_UNAVAILABLE))
		return true;
	if (state == STREAM_BUSY)
		return false;
	if (!fresh && status == OK && sight->over)
		return true;
	if (!fresh && now_ms < one->beat_ms)
		return false;
	one->beat_ms = now_ms + BEAT_MS;
	if (!fresh)
		return stream_send(one->stream, view_text(STILL), &ignored) != OK;
	memcpy(one->told, sight->tag, TAG_BYTES);
	return send_event(one->stream, sight, &ignored) != OK || sight->over;
}

static bool
tell(struct follower *one, const struct sight *sight, enum status status, struct err *err, int64_t now_ms,
	bool stopping)
{
	if (one->request != NULL)
		return tell_waiting(one, sight, status, err, now_ms, stopping);
	if (!tell_stream(one, sight, status, now_ms, stopping))
		return false;
	stream_end(one->stream);
	return true;
}

static void
give_back(struct receipt_follow *follow, size_t places)
{
	(void)pthread_mutex_lock(&follow->lock);
	follow->taken -= places;
	(void)pthread_mutex_unlock(&follow->lock);
}

/* Tells all that follow the first one's receipt, and puts them behind *done, or takes them out. */
static void
tell_first(struct receipt_follow *follow, size_t *done, bool stopping)
{
	own_struct(sight) sight = { .over = false };
	struct follower *all = follow->followers;
	char id[REVOCATION_ID_BYTES];
	int64_t now_ms;
	size_t first = *done;
	enum status status;
	struct err err;

	memcpy(id, all[first].id, sizeof(id));
	status = look(&sight, follow->app, id, &err);
	now_ms = clock_mono_ms(follow->app->clock);
	for (size_t i = first; i < follow->count;) {
		struct follower here = all[i];
		struct err copy = err;

		if (strcmp(here.id, id) != 0) {
			i++;
			continue;
		}
		if (tell(&here, &sight, status, &copy, now_ms, stopping)) {
			all[i] = all[--follow->count];
			give_back(follow, 1);
			continue;
		}
		all[i++] = all[*done];
		all[(*done)++] = here;
	}
}

/* Moves in who has come; false: the stop has come, and nobody is left. */
static bool
let_in(struct receipt_follow *follow, int64_t wait_ms, bool *stopping)
{
	struct timespec until = cond_in_ms(wait_ms);

	(void)pthread_mutex_lock(&follow->lock);
	while (!follow->stopping) {
		if (follow->count > 0) {
			/* Who comes meanwhile was told how it is at the door. */
			if (pthread_cond_timedwait(&follow->wake, &follow->lock, &until) != 0)
				break;
		} else if (follow->arrived_count > 0) {
			break;
		} else {
			(void)pthread_cond_wait(&follow->wake, &follow->lock);
		}
	}
	memcpy(follow->followers + follow->count, follow->arrived,
		follow->arrived_count * sizeof(*follow->arrived));
	follow->count += follow->arrived_count;
	follow->arrived_count = 0;
	*stopping = follow->stopping;
	(void)pthread_mutex_unlock(&follow->lock);
	return !*stopping || follow->count > 0;
}

static void *
follow_main(void *arg)
{
	struct receipt_follow *follow = arg;
	int64_t wait_ms = LOOK_MS;
	bool stopping;

	while (let_in(follow, wait_ms, &stopping)) {
		int64_t begun_ms = clock_mono_ms(follow->app->clock);

		for (size_t done = 0; done < follow->count;)
			tell_first(follow, &done, stopping);
		wait_ms = LOOK_SHARE * (clock_mono_ms(follow->app->clock) - begun_ms);
		if (wait_ms < LOOK_MS)
			wait_ms = LOOK_MS;
	}
	return NULL;
}

/* ---- at the door ---- */

static enum status
take_place(struct receipt_follow *follow, struct err *err)
{
	enum status status = OK;

	(void)pthread_mutex_lock(&follow->lock);
	if (follow->stopping)
		status = err_set(err, ERR_UNAVAILABLE, "server_stopping", "the server is being stopped");
	else if (follow->taken >= follow->max)
		status = err_set(err, ERR_UNAVAILABLE, "receipt_followers_full",
			"%zu clients follow receipts here, as many as may (receipt_followers_max)",
			follow->taken);
	else
		follow->taken++;
	(void)pthread_mutex_unlock(&follow->lock);
	if (status != OK)
		err->retry_after_s = RETRY_AFTER_S;
	return status;
}

/* The place was taken before; a stop that has come meanwhile is told by the thread, or here by false. */
static bool
enter(struct receipt_follow *follow, const struct follower *one)
{
	bool in;

	(void)pthread_mutex_lock(&follow->lock);
	in = !follow->stopping;
	if (in)
		follow->arrived[follow->arrived_count++] = *one;
	else
		follow->taken--;
	(void)pthread_cond_signal(&follow->wake);
	(void)pthread_mutex_unlock(&follow->lock);
	return in;
}

static const char *
skip_space(const char *at)
{
	while (*at == ' ' || *at == '\t')
		at++;
	return at;
}

/* RFC 7240 2: of the preference its first instance counts; what cannot be read is no preference. */
static int64_t
preferred_wait_s(const char *prefer)
{
	for (const char *at = prefer; at != NULL; at = strchr(at, ',')) {
		int64_t seconds = 0;
		bool quoted;

		at = skip_space(*at == ',' ? at + 1 : at);
		if (strncasecmp(at, "wait", 4) != 0)
			continue;
		at = skip_space(at + 4);
		if (*at != '=')
			continue;
		at = skip_space(at + 1);
		quoted = *at == '"';
		at += quoted;
		if (!isdigit((unsigned char)*at))
			return 0;
		for (; isdigit((unsigned char)*at); at++)
			if (seconds <= WAIT_MAX_S)
				seconds = seconds * 10 + (*at - '0');
		if (quoted && *at++ != '"')
			return 0;
		at = skip_space(at);
		if (*at != '\0' && *at != ',' && *at != ';')
			return 0;
		return seconds < WAIT_MAX_S ? seconds : WAIT_MAX_S;
	}
	return 0;
}

static enum status
begin_waiting(struct app *app, struct request *request, const char *id, int64_t wait_s, struct err *err)
{
	struct follower one = { .request = request,
		.end_ms = clock_mono_ms(app->clock) + wait_s * 1000 };
	char applied[32];
	struct err stopped;

	(void)snprintf(one.id, sizeof(one.id), "%s", id);
	(void)snprintf(applied, sizeof(applied), "wait=%lld", (long long)wait_s);
	TRY(request_reply_header(request, "Preference-Applied", applied, err));
	TRY(take_place(app->receipts, err));
	request_park(request);
	if (!enter(app->receipts, &one)) {
		enum status status = err_set(&stopped, ERR_UNAVAILABLE, "server_stopping",
			"the server is being stopped");

		request_finish(request, status, &stopped);
	}
	return OK;
}

/* The first event is how it is now, unless the client says that it has that. */
static enum status
begin_stream(struct app *app, struct request *request, const char *id, const struct sight *sight,
	struct err *err)
{
	const char *last = request_header(request, "Last-Event-ID");
	bool known = last != NULL && strcmp(last, sight->tag) == 0;
	struct follower one = { .stream = NULL };
	int64_t now_ms = clock_mono_ms(app->clock);
	enum status status;

	/* WHATWG HTML 9.2.3: the answer that makes a client come no more. */
	if (known && sight->over)
		return request_reply_bytes(request, 204, "text/event-stream", view_text(""), err);
	TRY(take_place(app->receipts, err));
	status = request_reply_stream(request, "text/event-stream", &one.stream, err);
	if (status == OK && !known)
		status = send_event(one.stream, sight, err);
	if (status != OK || sight->over) {
		stream_end(one.stream);
		give_back(app->receipts, 1);
		return status;
	}
	(void)snprintf(one.id, sizeof(one.id), "%s", id);
	memcpy(one.told, sight->tag, TAG_BYTES);
	one.end_ms = now_ms + STREAM_MS;
	one.beat_ms = now_ms + BEAT_MS;
	if (!enter(app->receipts, &one))
		stream_end(one.stream);
	return OK;
}

enum status
receipt_follow_reply(struct app *app, struct request *request, const char *id, struct err *err)
{
	static const char *const TYPES[] = { "application/json", "text/event-stream", NULL };
	const char *type = request_accept(request, TYPES);
	int64_t wait_s = preferred_wait_s(request_header(request, "Prefer"));
	own_struct(sight) sight = { .over = false };

	TRY(look(&sight, app, id, err));
	TRY(request_reply_header(request, "Vary", "Accept, Prefer", err));
	/* HEAD has no body to wait for. */
	if (strcmp(request_method(request), "GET") == 0 && type == TYPES[1])
		return begin_stream(app, request, id, &sight, err);
	if (strcmp(request_method(request), "GET") == 0 && wait_s > 0 && !sight.over)
		return begin_waiting(app, request, id, wait_s, err);
	return request_reply_bytes(request, 200, "application/json", buf_view(&sight.json), err);
}

/* ---- life ---- */

enum status
receipt_follow_start(struct receipt_follow **out, struct app *app, struct err *err)
{
	struct receipt_follow *follow = mem_zalloc(sizeof(*follow));

	if (follow == NULL)
		return err_memory(err);
	follow->app = app;
	follow->max = (size_t)app->config.receipt_followers_max;
	(void)pthread_mutex_init(&follow->lock, NULL);
	cond_init(&follow->wake);
	follow->arrived = mem_array(follow->max + 1, sizeof(*follow->arrived));
	follow->followers = mem_array(follow->max + 1, sizeof(*follow->followers));
	follow->started = follow->arrived != NULL && follow->followers != NULL &&
		pthread_create(&follow->thread, NULL, follow_main, follow) == 0;
	if (!follow->started) {
		receipt_follow_free(follow);
		return err_set(err, ERR_UNAVAILABLE, "thread", "cannot start the thread of receipts");
	}
	*out = follow;
	return OK;
}

void
receipt_follow_stop(struct receipt_follow *follow)
{
	if (follow == NULL || !follow->started)
		return;
	(void)pthread_mutex_lock(&follow->lock);
	follow->stopping = true;
	(void)pthread_cond_signal(&follow->wake);
	(void)pthread_mutex_unlock(&follow->lock);
	(void)pthread_join(follow->thread, NULL);
	follow->started = false;
}

void
receipt_follow_free(struct receipt_follow *follow)
{
	if (follow == NULL)
		return;
	(void)pthread_cond_destroy(&follow->wake);
	(void)pthread_mutex_destroy(&follow->lock);
	mem_free(follow->arrived);
	mem_free(follow->followers);
	mem_free(follow);
}
