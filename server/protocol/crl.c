#include "server/protocol/crl.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "server/app.h"
#include "server/protocol/crl_store.h"

#define CACHE_CAS_MAX 8
/* A relying party learns of a revocation no later than this after the list was published. */
#define MAX_AGE_S 60

/* The octets of a list: the cache's, and each answer's that is being sent. A thousand slow readers of a
 * large list hold one of it. */
struct octets {
	atomic_uint references;
	struct bytes der;
};

struct cached_ca {
	char ca_id[CA_ID_BYTES]; /* "": unused */
	struct db_crl lists[CRL_SCOPES]; /* number 0: none; at scope + 1; without their DER */
	struct octets *octets[CRL_SCOPES];
};

struct crl_cache {
	const char *data_dir;
	pthread_rwlock_t lock;
	struct cached_ca cas[CACHE_CAS_MAX];
};

static void
octets_drop(void *arg)
{
	struct octets *octets = arg;

	if (octets == NULL || atomic_fetch_sub(&octets->references, 1) != 1)
		return;
	bytes_free(&octets->der);
	mem_free(octets);
}

static void
forget(struct cached_ca *ca)
{
	for (size_t i = 0; i < CRL_SCOPES; i++)
		octets_drop(ca->octets[i]);
	memset(ca->lists, 0, sizeof(ca->lists));
	memset(ca->octets, 0, sizeof(ca->octets));
}

void
crl_cache_free(struct crl_cache *cache)
{
	if (cache == NULL)
		return;
	for (size_t i = 0; i < CACHE_CAS_MAX; i++)
		forget(&cache->cas[i]);
	(void)pthread_rwlock_destroy(&cache->lock);
	mem_free(cache);
}

static struct cached_ca *
find_ca(struct crl_cache *cache, const char *ca_id, bool make)
{
	for (size_t i = 0; i < CACHE_CAS_MAX; i++) {
		if (strcmp(cache->cas[i].ca_id, ca_id) == 0)
			return &cache->cas[i];
		if (cache->cas[i].ca_id[0] == '\0' && make) {
			(void)snprintf(cache->cas[i].ca_id, sizeof(cache->cas[i].ca_id), "%s", ca_id);
			return &cache->cas[i];
		}
	}
	return NULL;
}

static int64_t
cached_number(struct crl_cache *cache, const char *ca_id, int16_t scope)
{
	struct cached_ca *ca;
	int64_t number = 0;

	(void)pthread_rwlock_rdlock(&cache->lock);
	ca = find_ca(cache, ca_id, false);
	if (ca != NULL)
		number = ca->lists[scope + 1].number;
	(void)pthread_rwlock_unlock(&cache->lock);
	return number;
}

/* Takes crl if it is newer; true: it is in place now. */
static bool
put(struct crl_cache *cache, struct db_crl *crl, struct err *err)
{
	struct octets *octets = mem_zalloc(sizeof(*octets));
	struct cached_ca *ca = NULL;
	bool newer = false;

	*err = (struct err){ .status = OK };
	if (octets == NULL) {
		db_crl_free(crl);
		*crl = (struct db_crl){ .number = 0 };
		(void)err_memory(err);
		return false;
	}
	*octets = (struct octets){ 1, crl->der };
	crl->der = (struct bytes){ NULL, 0 };
	(void)pthread_rwlock_wrlock(&cache->lock);
	ca = find_ca(cache, crl->ca_id, true);
	newer = ca != NULL && crl->number > ca->lists[crl->scope + 1].number;
	if (newer) {
		struct octets *old = ca->octets[crl->scope + 1];

		ca->lists[crl->scope + 1] = *crl;
		ca->octets[crl->scope + 1] = octets;
		octets = old;
	}
	(void)pthread_rwlock_unlock(&cache->lock);
	octets_drop(octets);
	*crl = (struct db_crl){ .number = 0 };
	if (ca == NULL)
		(void)err_set(err, ERR_TOO_LARGE, "crl_cache_full", "lists of at most %d CAs are held",
			CACHE_CAS_MAX);
	return newer;
}

static void
put_read(void *cache, struct db_crl *crl)
{
	struct err err;

	(void)put(cache, crl, &err);
}

enum status
crl_cache_new(struct crl_cache **out, const char *data_dir, struct err *err)
{
	struct crl_cache *cache = mem_zalloc(sizeof(*cache));

	if (cache == NULL)
		return err_memory(err);
	if (pthread_rwlock_init(&cache->lock, NULL) != 0) {
		mem_free(cache);
		return err_set(err, ERR_UNAVAILABLE, "out_of_memory", "cannot make a lock");
	}
	cache->data_dir = data_dir;
	crl_store_read(data_dir, put_read, cache);
	*out = cache;
	return OK;
}

enum status
crl_cache_put(struct crl_cache *cache, struct db_crl *crl, struct err *err)
{
	struct err unkept;

	/* First the file: from there on the list may be replaced and freed. */
	if (crl->number > cached_number(cache, crl->ca_id, crl->scope) &&
		crl_store_write(cache->data_dir, crl, &unkept) != OK)
		log_error(LOG_WARN, "crl_store_failed", NULL, &unkept);
	return put(cache, crl, err) ? OK : err->status;
}

void
crl_cache_claim(struct app *app)
{
	for (size_t i = 0; i < app->ca_count; i++) {
		const struct app_ca *ca = &app->cas[i];
		struct cached_ca *lists;

		if (!ca->can_sign ||
			crl_store_claim(app->crls->data_dir, ca->ca_id, view_of(&ca->certificate)))
			continue;
		(void)pthread_rwlock_wrlock(&app->crls->lock);
		lists = find_ca(app->crls, ca->ca_id, false);
		if (lists != NULL)
			forget(lists);
		(void)pthread_rwlock_unlock(&app->crls->lock);
	}
}

static enum status
refresh_ca(struct app *app, struct db_tx *tx, const struct app_ca *ca, struct err *err)
{
	int64_t numbers[CRL_SCOPES];

	TRY(db_crl_numbers(tx, ca->issuer_id, numbers, err));
	for (int16_t scope = CRL_SCOPE_FULL; scope < CRL_SCOPES - 1; scope++) {
		int64_t cached = cached_number(app->crls, ca->ca_id, scope);
		struct db_crl crl = { .number = 0 };

		if (numbers[scope + 1] < cached && ca->can_sign)
			TRY(db_crl_overtake(tx, ca->issuer_id, scope, cached, err));
		if (numbers[scope + 1] <= cached)
			continue;
		TRY(db_crl_latest(tx, ca->issuer_id, scope, &crl, err));
		TRY(crl_cache_put(app->crls, &crl, err));
	}
	return OK;
}

enum status
crl_cache_refresh(struct app *app, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	TRY(db_tx_begin(&tx, app->pool, err));
	for (size_t i = 0; i < app->ca_count; i++)
		TRY(refresh_ca(app, &tx, &app->cas[i], err));
	return db_tx_commit(&tx, err);
}

void
crl_cache_health(struct crl_cache *cache, const char *ca_id, struct crl_cache_health *out)
{
	const struct cached_ca *ca;

	*out = (struct crl_cache_health){ .missing = CRL_SCOPES };
	(void)pthread_rwlock_rdlock(&cache->lock);
	ca = find_ca(cache, ca_id, false);
	for (size_t i = 0; ca != NULL && i < CRL_SCOPES; i++) {
		const struct db_crl *crl = &ca->lists[i];

		if (crl->number == 0)
			continue;
		out->lists++;
		out->missing--;
		if (out->oldest_this_update_s == 0 || crl->this_update_s < out->oldest_this_update_s)
			out->oldest_this_update_s = crl->this_update_s;
		if (out->first_next_update_s == 0 || crl->next_update_s < out->first_next_update_s)
			out->first_next_update_s = crl->next_update_s;
	}
	if (ca != NULL) {
		out->full_entries = ca->lists[0].entries;
		out->full_number = ca->lists[0].number;
		out->full_this_update_s = ca->lists[0].this_update_s;
	}
	(void)pthread_rwlock_unlock(&cache->lock);
}

/* RFC 9110 5.6.7: "Tue, 24 Nov 2026 16:14:02 GMT" */
#define HTTP_DATE_BYTES 40
static void
http_date(char out[HTTP_DATE_BYTES], int64_t wall_s)
{
	static const char DAYS[7][4] = { "Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed" };
	static const char MONTHS[12][4] = { "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug",
		"Sep", "Oct", "Nov", "Dec" };
	struct civil c = civil_from_s(wall_s);

	(void)snprintf(out, HTTP_DATE_BYTES, "%s, %02u %s %04u %02u:%02u:%02u GMT",
		DAYS[wall_s / 86400 % 7], c.day, MONTHS[c.month - 1], (unsigned)c.year % 10000, c.hour,
		c.minute, c.second);
}

struct answer {
	char etag[72];
	char last_modified[HTTP_DATE_BYTES];
	char cache_control[64];
	bool found;
	int64_t next_update_s;
	struct octets *octets; /* a reference, to be dropped */
};

static void
answer_free(struct answer *answer)
{
	octets_drop(answer->octets);
}
OWNER_STRUCT(answer, answer_free)

/* A list may be replaced while it is being sent. */
static void
read_answer(struct crl_cache *cache, const char *ca_id, int16_t scope, int64_t now_s,
	struct answer *out)
{
	const struct cached_ca *ca;

	*out = (struct answer){ .found = false };
	(void)pthread_rwlock_rdlock(&cache->lock);
	ca = find_ca(cache, ca_id, false);
	if (ca != NULL && ca->lists[scope + 1].number > 0) {
		const struct db_crl *crl = &ca->lists[scope + 1];
		int64_t left_s = crl->next_update_s - now_s;

		out->found = true;
		out->next_update_s = crl->next_update_s;
		out->etag[0] = '"';
		hex_encode(out->etag + 1, crl->sha256, sizeof(crl->sha256));
		out->etag[65] = '"';
		http_date(out->last_modified, crl->this_update_s);
		(void)snprintf(out->cache_control, sizeof(out->cache_control), "public, max-age=%d",
			(int)(left_s < 0 ? 0 : left_s < MAX_AGE_S ? left_s : MAX_AGE_S));
		out->octets = ca->octets[scope + 1];
		atomic_fetch_add(&out->octets->references, 1);
	}
	(void)pthread_rwlock_unlock(&cache->lock);
}

/* RFC 9110 13.1.2: a list of entity tags, or "*"; weak comparison. */
static bool
etag_matches(const char *header, const char *etag)
{
	return strcmp(header, "*") == 0 || strstr(header, etag) != NULL;
}

static bool
not_modified(const struct request *request, const struct answer *answer)
{
	const char *none_match = request_header(request, "If-None-Match");
	const char *since = request_header(request, "If-Modified-Since");

	if (none_match != NULL)
		return etag_matches(none_match, answer->etag);
	/* Only our own date is compared: an equal text is what a cache sends back (13.1.3). */
	return since != NULL && strcmp(since, answer->last_modified) == 0;
}

/* Of a CA without a list. While the server starts, nobody knows which there are. */
static enum status
no_list(const struct app *app, const char *ca_id, struct err *err)
{
	const struct app_ca *ca = app->issuance != NULL ? app_ca_by_id(app, ca_id) : NULL;

	if (app->issuance == NULL)
		return err_set(err, ERR_UNAVAILABLE, "not_ready", "the server is being started");
	if (ca == NULL)
		return err_set(err, ERR_NOT_FOUND, "ca_unknown", "there is no CA of that id");
	return err_set(err, ca->can_sign ? ERR_UNAVAILABLE : ERR_NOT_FOUND, "crl_unknown",
		"no CRL of this CA is published");
}

static enum status
serve(struct app *app, struct request *request, int16_t scope, struct err *err)
{
	const char *ca_id = request_param(request, "ca");
	int64_t now_s = clock_wall_s(app->clock);
	own_struct(answer) answer = { .found = false };
	struct octets *octets;

	read_answer(app->crls, ca_id, scope, now_s, &answer);
	if (!answer.found)
		return no_list(app, ca_id, err);
	if (answer.next_update_s <= now_s)
		return err_set(err, ERR_UNAVAILABLE, "crl_expired",
			"the CRL has run past its nextUpdate and no newer one could be made");
	TRY(request_reply_header(request, "ETag", answer.etag, err));
	TRY(request_reply_header(request, "Last-Modified", answer.last_modified, err));
	TRY(request_reply_header(request, "Cache-Control", answer.cache_control, err));
	octets = answer.octets;
	answer.octets = NULL;
	/* RFC 9110 8.6: the Content-Length of a 304 is that of the list, which is not sent with it. */
	return request_reply_shared(request, not_modified(request, &answer) ? 304 : 200,
		"application/pkix-crl", view_of(&octets->der), octets_drop, octets, err);
}

static enum status
crl_full(struct app *app, struct request *request, struct err *err)
{
	return serve(app, request, CRL_SCOPE_FULL, err);
}

static enum status
crl_shard(struct app *app, struct request *request, struct err *err)
{
	const char *shard = request_param(request, "shard");
	uint8_t number;

	if (!hex_decode(&number, 1, shard, strlen(shard)))
		return err_set(err, ERR_NOT_FOUND, "crl_unknown", "shards are 00 to ff");
	return serve(app, request, number, err);
}

#define EVERYWHERE (LISTENER_HTTP | LISTENER_HTTPS | LISTENER_STATIONS)

const struct route CRL_ROUTES[] = {
	{ .method = "GET", .path = "/crl/{ca}.crl", .handle = crl_full, .roles = ROLE_ANYONE,
	  .listeners = EVERYWHERE, .inline_ok = true },
	{ .method = "GET", .path = "/crl/{ca}/{shard}.crl", .handle = crl_shard, .roles = ROLE_ANYONE,
	  .listeners = EVERYWHERE, .inline_ok = true },
	{ .method = NULL },
};
