#include "server/protocol/crl.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "server/app.h"

#define CACHE_CAS_MAX 8
/* A relying party learns of a revocation no later than this after the list was published. */
#define MAX_AGE_S 60

struct cached_ca {
	int32_t issuer_id; /* 0: unused */
	struct db_crl lists[CRL_SCOPES]; /* number 0: none; at scope + 1 */
};

struct crl_cache {
	pthread_rwlock_t lock;
	struct cached_ca cas[CACHE_CAS_MAX];
};

enum status
crl_cache_new(struct crl_cache **out, struct err *err)
{
	struct crl_cache *cache = mem_zalloc(sizeof(*cache));

	if (cache == NULL)
		return err_memory(err);
	if (pthread_rwlock_init(&cache->lock, NULL) != 0) {
		mem_free(cache);
		return err_set(err, ERR_UNAVAILABLE, "out_of_memory", "cannot make a lock");
	}
	*out = cache;
	return OK;
}

void
crl_cache_free(struct crl_cache *cache)
{
	if (cache == NULL)
		return;
	for (size_t i = 0; i < CACHE_CAS_MAX; i++)
		for (size_t j = 0; j < CRL_SCOPES; j++)
			db_crl_free(&cache->cas[i].lists[j]);
	(void)pthread_rwlock_destroy(&cache->lock);
	mem_free(cache);
}

static struct cached_ca *
find_ca(struct crl_cache *cache, int32_t issuer_id, bool make)
{
	for (size_t i = 0; i < CACHE_CAS_MAX; i++) {
		if (cache->cas[i].issuer_id == issuer_id)
			return &cache->cas[i];
		if (cache->cas[i].issuer_id == 0 && make) {
			cache->cas[i].issuer_id = issuer_id;
			return &cache->cas[i];
		}
	}
	return NULL;
}

enum status
crl_cache_put(struct crl_cache *cache, struct db_crl *crl, struct err *err)
{
	struct cached_ca *ca;
	struct db_crl old = *crl;

	(void)pthread_rwlock_wrlock(&cache->lock);
	ca = find_ca(cache, crl->issuer_id, true);
	if (ca != NULL && crl->number > ca->lists[crl->scope + 1].number) {
		old = ca->lists[crl->scope + 1];
		ca->lists[crl->scope + 1] = *crl;
	}
	(void)pthread_rwlock_unlock(&cache->lock);
	*crl = (struct db_crl){ .number = 0 };
	db_crl_free(&old);
	if (ca == NULL)
		return err_set(err, ERR_TOO_LARGE, "crl_cache_full", "lists of at most %d CAs are held",
			CACHE_CAS_MAX);
	return OK;
}

static int64_t
cached_number(struct crl_cache *cache, int32_t issuer_id, int16_t scope)
{
	struct cached_ca *ca;
	int64_t number = 0;

	(void)pthread_rwlock_rdlock(&cache->lock);
	ca = find_ca(cache, issuer_id, false);
	if (ca != NULL)
		number = ca->lists[scope + 1].number;
	(void)pthread_rwlock_unlock(&cache->lock);
	return number;
}

static enum status
refresh_ca(struct app *app, struct db_tx *tx, const struct app_ca *ca, struct err *err)
{
	int64_t numbers[CRL_SCOPES];

	TRY(db_crl_numbers(tx, ca->issuer_id, numbers, err));
	for (int16_t scope = CRL_SCOPE_FULL; scope < CRL_SCOPES - 1; scope++) {
		struct db_crl crl = { .number = 0 };

		if (numbers[scope + 1] <= cached_number(app->crls, ca->issuer_id, scope))
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
crl_cache_health(struct crl_cache *cache, int32_t issuer_id, struct crl_cache_health *out)
{
	const struct cached_ca *ca;

	*out = (struct crl_cache_health){ .missing = CRL_SCOPES };
	(void)pthread_rwlock_rdlock(&cache->lock);
	ca = find_ca(cache, issuer_id, false);
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
	struct bytes der;
};

/* Copies out under the lock, so that a list may be replaced while it is being sent. */
static enum status
read_answer(struct crl_cache *cache, int32_t issuer_id, int16_t scope, int64_t now_s,
	struct answer *out, struct err *err)
{
	const struct cached_ca *ca;
	enum status status = OK;

	*out = (struct answer){ .found = false };
	(void)pthread_rwlock_rdlock(&cache->lock);
	ca = find_ca(cache, issuer_id, false);
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
		status = bytes_copy(&out->der, view_of(&crl->der), err);
	}
	(void)pthread_rwlock_unlock(&cache->lock);
	return status;
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

static enum status
serve(struct app *app, struct request *request, int16_t scope, struct err *err)
{
	const struct app_ca *ca = app_ca_by_id(app, request_param(request, "ca"));
	int64_t now_s = clock_wall_s(app->clock);
	own_struct(bytes) der = { NULL, 0 };
	struct answer answer;

	if (ca == NULL)
		return err_set(err, ERR_NOT_FOUND, "ca_unknown", "there is no CA of that id");
	TRY(read_answer(app->crls, ca->issuer_id, scope, now_s, &answer, err));
	der = answer.der;
	if (!answer.found)
		return err_set(err, ca->can_sign ? ERR_UNAVAILABLE : ERR_NOT_FOUND, "crl_unknown",
			"no CRL of this CA is published");
	if (answer.next_update_s <= now_s)
		return err_set(err, ERR_UNAVAILABLE, "crl_expired",
			"the CRL has run past its nextUpdate and no newer one could be made");
	TRY(request_reply_header(request, "ETag", answer.etag, err));
	TRY(request_reply_header(request, "Last-Modified", answer.last_modified, err));
	TRY(request_reply_header(request, "Cache-Control", answer.cache_control, err));
	if (not_modified(request, &answer))
		return request_reply_bytes(request, 304, "application/pkix-crl",
			(struct view){ NULL, 0 }, err);
	return request_reply_owned(request, 200, "application/pkix-crl", &der, err);
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
