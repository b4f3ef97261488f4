#include "server/protocol/crl.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "ca/crl.h"
#include "ca/digest.h"
#include "server/app.h"
#include "server/protocol/caching.h"
#include "server/protocol/crl_store.h"

#define CACHE_CAS_MAX 8
/* A relying party learns of a revocation no later than this after the list was published. */
#define MAX_AGE_S 60

/*
 * The octets of a list: the cache's, and each answer's that is being sent. A thousand slow readers of a
 * large list share it, whether it lies in memory or in a file that has another name or none by then.
 */
struct crl_list {
	atomic_uint references;
	struct pile pile;
};

struct cached_ca {
	char ca_id[CA_ID_BYTES]; /* "": unused */
	struct db_crl about[CRL_SCOPES]; /* number 0: none; at CRL_SCOPE_AT(scope) */
	struct crl_list *lists[CRL_SCOPES];
};

struct crl_cache {
	const char *data_dir;
	pthread_mutex_t keeping; /* before lock: files come in the order of their numbers, too */
	pthread_rwlock_t lock;
	struct cached_ca cas[CACHE_CAS_MAX];
};

const struct pile *
crl_list_pile(const struct crl_list *list)
{
	return &list->pile;
}

void
crl_list_drop(struct crl_list *list)
{
	if (list == NULL || atomic_fetch_sub(&list->references, 1) != 1)
		return;
	pile_free(&list->pile);
	mem_free(list);
}

static void
list_drop(void *list)
{
	crl_list_drop(list);
}

static void
forget(struct cached_ca *ca)
{
	for (size_t i = 0; i < CRL_SCOPES; i++)
		crl_list_drop(ca->lists[i]);
	memset(ca->about, 0, sizeof(ca->about));
	memset(ca->lists, 0, sizeof(ca->lists));
}

void
crl_cache_free(struct crl_cache *cache)
{
	if (cache == NULL)
		return;
	for (size_t i = 0; i < CACHE_CAS_MAX; i++)
		forget(&cache->cas[i]);
	(void)pthread_rwlock_destroy(&cache->lock);
	(void)pthread_mutex_destroy(&cache->keeping);
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

struct crl_list *
crl_cache_hold(struct crl_cache *cache, const char *ca_id, int16_t scope, struct db_crl *about)
{
	struct crl_list *list = NULL;
	struct cached_ca *ca;

	(void)pthread_rwlock_rdlock(&cache->lock);
	ca = find_ca(cache, ca_id, false);
	if (ca != NULL)
		list = ca->lists[CRL_SCOPE_AT(scope)];
	if (list != NULL)
		atomic_fetch_add(&list->references, 1);
	if (list != NULL && about != NULL)
		*about = ca->about[CRL_SCOPE_AT(scope)];
	(void)pthread_rwlock_unlock(&cache->lock);
	return list;
}

static int64_t
cached_number(struct crl_cache *cache, const char *ca_id, int16_t scope)
{
	struct db_crl about = { .number = 0 };
	own(crl_list) list = crl_cache_hold(cache, ca_id, scope, &about);

	return list != NULL ? about.number : 0;
}

/* Takes a list, and puts it in place if it is newer. */
static enum status
put(struct crl_cache *cache, const struct db_crl *crl, struct pile *pile, struct err *err)
{
	struct crl_list *list = mem_zalloc(sizeof(*list));
	struct cached_ca *ca;

	if (list == NULL) {
		pile_free(pile);
		return err_memory(err);
	}
	atomic_init(&list->references, 1);
	list->pile = *pile;
	*pile = (struct pile){ .fd = -1 };
	(void)pthread_rwlock_wrlock(&cache->lock);
	ca = find_ca(cache, crl->ca_id, true);
	if (ca != NULL && crl->number > ca->about[CRL_SCOPE_AT(crl->scope)].number) {
		struct crl_list *old = ca->lists[CRL_SCOPE_AT(crl->scope)];

		ca->about[CRL_SCOPE_AT(crl->scope)] = *crl;
		ca->lists[CRL_SCOPE_AT(crl->scope)] = list;
		list = old;
	}
	(void)pthread_rwlock_unlock(&cache->lock);
	crl_list_drop(list);
	if (ca == NULL)
		return err_set(err, ERR_TOO_LARGE, "crl_cache_full",
			"lists of at most %d CAs are held", CACHE_CAS_MAX);
	return OK;
}

static void
put_read(void *cache, const struct db_crl *crl, struct pile *list)
{
	struct err err;

	(void)!put(cache, crl, list, &err);
}

enum status
crl_cache_new(struct crl_cache **out, const char *data_dir, struct err *err)
{
	struct crl_cache *cache = mem_zalloc(sizeof(*cache));

	if (cache == NULL)
		return err_memory(err);
	if (pthread_rwlock_init(&cache->lock, NULL) != 0 ||
		pthread_mutex_init(&cache->keeping, NULL) != 0) {
		mem_free(cache);
		return err_set(err, ERR_UNAVAILABLE, "out_of_memory", "cannot make a lock");
	}
	cache->data_dir = data_dir;
	crl_store_read(data_dir, put_read, cache);
	*out = cache;
	return OK;
}

enum status
crl_cache_put(struct crl_cache *cache, const struct db_crl *crl, struct pile *list, struct err *err)
{
	enum status status;
	struct err unkept;

	(void)pthread_mutex_lock(&cache->keeping);
	/* First the file: from there on the list may be replaced and freed. */
	if (crl->number > cached_number(cache, crl->ca_id, crl->scope) &&
		crl_store_keep(cache->data_dir, crl, list, &unkept) != OK)
		log_error(LOG_WARN, "crl_store_failed", NULL, &unkept);
	status = put(cache, crl, list, err);
	(void)pthread_mutex_unlock(&cache->keeping);
	return status;
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

struct fetch {
	struct pile *list;
	struct ca_sha256 hash;
};

static enum status
fetch_piece(void *arg, struct view octets, struct err *err)
{
	struct fetch *fetch = arg;

	ca_sha256_add(&fetch->hash, octets);
	return pile_add(fetch->list, octets.data, octets.len, err);
}

static enum status
fetch_list(struct app *app, struct db_tx *tx, const struct db_crl *crl, struct err *err)
{
	own_struct(pile) list = { .fd = -1 };
	struct fetch fetch = { .list = &list };
	char dir[FILE_PATH_BYTES];
	uint8_t sha256[DB_SHA256_BYTES];

	TRY(crl_store_dir(dir, app->crls->data_dir, crl->ca_id, err));
	pile_init(&list, dir, CRL_MEMORY_MAX_BYTES);
	ca_sha256_begin(&fetch.hash);
	TRY(db_crl_pieces(tx, crl, fetch_piece, &fetch, err));
	TRY(pile_close(&list, err));
	ca_sha256_end(&fetch.hash, sha256);
	if (memcmp(sha256, crl->sha256, sizeof(sha256)) != 0)
		return err_set(err, ERR_INTERNAL, "crl_spoilt",
			"crl: list %lld of %s, scope %d: other octets in the database than were published",
			(long long)crl->number, crl->ca_id, (int)crl->scope);
	return crl_cache_put(app->crls, crl, &list, err);
}

static enum status
sync_scope(struct app *app, struct db_tx *tx, const struct app_ca *ca, int16_t scope,
	int64_t number, bool fetch, struct err *err)
{
	int64_t cached = cached_number(app->crls, ca->ca_id, scope);
	struct db_crl crl;

	if (number < cached && ca->can_sign)
		TRY(db_crl_overtake(tx, ca->issuer_id, scope, cached, err));
	if (number <= cached || !fetch)
		return OK;
	TRY(db_crl_latest(tx, ca->issuer_id, scope, &crl, err));
	return fetch_list(app, tx, &crl, err);
}

enum status
crl_cache_sync(struct app *app, struct db_tx *tx, const struct app_ca *ca, int16_t scope,
	bool fetch, struct err *err)
{
	struct db_crl crl = { .number = 0 };
	struct err missing;
	enum status status = db_crl_latest(tx, ca->issuer_id, scope, &crl, &missing);

	if (status != OK && status != ERR_NOT_FOUND) {
		*err = missing;
		return status;
	}
	return sync_scope(app, tx, ca, scope, crl.number, fetch, err);
}

static bool
is_part(enum crl_part part, int16_t scope)
{
	return part == CRL_PART_ALL || (part == CRL_PART_FULL) == (scope == CRL_SCOPE_FULL);
}

static enum status
refresh_ca(struct app *app, struct db_tx *tx, const struct app_ca *ca, enum crl_part part,
	struct err *err)
{
	int64_t numbers[CRL_SCOPES];

	TRY(db_crl_numbers(tx, ca->issuer_id, numbers, err));
	for (int16_t scope = CRL_SCOPE_DELTA; CRL_SCOPE_AT(scope) < CRL_SCOPES; scope++)
		TRY(sync_scope(app, tx, ca, scope, numbers[CRL_SCOPE_AT(scope)], is_part(part, scope),
			err));
	return OK;
}

enum status
crl_cache_refresh(struct app *app, enum crl_part part, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	TRY(db_tx_begin(&tx, app->pool, err));
	for (size_t i = 0; i < app->ca_count; i++)
		TRY(refresh_ca(app, &tx, &app->cas[i], part, err));
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
		const struct db_crl *crl = &ca->about[i];

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
		const struct db_crl *full = &ca->about[CRL_SCOPE_AT(CRL_SCOPE_FULL)];
		const struct db_crl *delta = &ca->about[CRL_SCOPE_AT(CRL_SCOPE_DELTA)];

		out->full_entries = full->entries;
		out->full_number = full->number;
		out->full_this_update_s = full->this_update_s;
		out->full_bytes = full->length_bytes;
		out->delta_entries = delta->entries;
		out->delta_number = delta->number;
		out->delta_this_update_s = delta->this_update_s;
	}
	(void)pthread_rwlock_unlock(&cache->lock);
}

struct answer {
	char etag[72];
	char last_modified[HTTP_DATE_BYTES];
	char cache_control[64];
};

static void
describe(struct answer *out, const struct db_crl *crl, int64_t now_s)
{
	int64_t left_s = crl->next_update_s - now_s;

	out->etag[0] = '"';
	hex_encode(out->etag + 1, crl->sha256, sizeof(crl->sha256));
	out->etag[65] = '"';
	out->etag[66] = '\0';
	http_date(out->last_modified, crl->this_update_s);
	(void)snprintf(out->cache_control, sizeof(out->cache_control), "public, max-age=%d",
		(int)(left_s < 0 ? 0 : left_s < MAX_AGE_S ? left_s : MAX_AGE_S));
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

/* A part of a list that is asked for; len 0: all of it. */
struct part {
	uint64_t at, len;
};

/* Up to 18 digits; false: none, or more. */
static bool
read_digits(const char **text, uint64_t *out)
{
	size_t count = strspn(*text, "0123456789");

	*out = 0;
	if (count < 1 || count > 18)
		return false;
	for (size_t i = 0; i < count; i++)
		*out = *out * 10 + (uint64_t)((*text)[i] - '0');
	*text += count;
	return true;
}

/*
 * RFC 9110 14.2: one range of octets, for who goes on with a download that broke. All else (several
 * ranges, what is past the end, another list by If-Range) gets the whole list, as the RFC allows.
 */
static struct part
read_range(const struct request *request, const char *etag, uint64_t len)
{
	const struct part all = { 0, 0 };
	const char *text = request_header(request, "Range");
	const char *if_range = request_header(request, "If-Range");
	uint64_t first, last = len - 1;

	if (text == NULL || strncmp(text, "bytes=", 6) != 0 ||
		(if_range != NULL && strcmp(if_range, etag) != 0))
		return all;
	text += 6;
	if (*text == '-') { /* the last so many */
		text++;
		if (!read_digits(&text, &first) || *text != '\0' || first == 0 || first > len)
			return all;
		return (struct part){ len - first, first };
	}
	if (!read_digits(&text, &first) || *text++ != '-' ||
		(*text != '\0' && !read_digits(&text, &last)) || *text != '\0' || first >= len ||
		last < first)
		return all;
	if (last >= len)
		last = len - 1;
	return (struct part){ first, last - first + 1 };
}

static enum status
reply_part(struct request *request, struct part part, uint64_t len, int fd, struct err *err)
{
	char range[80];

	(void)snprintf(range, sizeof(range), "bytes %llu-%llu/%llu", (unsigned long long)part.at,
		(unsigned long long)(part.at + part.len - 1), (unsigned long long)len);
	if (request_reply_header(request, "Content-Range", range, err) != OK) {
		(void)close(fd);
		return err->status;
	}
	return request_reply_part(request, 206, "application/pkix-crl", fd, part.at, part.len, err);
}

/* Takes list. Each answer has a descriptor of its own, which libmicrohttpd closes. */
static enum status
reply(struct request *request, unsigned status, struct crl_list *list, const char *etag,
	struct err *err)
{
	own(crl_list) held = list;
	uint64_t len = pile_len(&held->pile);
	int fd = held->pile.fd;
	struct part part;

	if (fd < 0) {
		struct view all = buf_view(&held->pile.buf);

		return request_reply_shared(request, status, "application/pkix-crl", all, list_drop,
			give(held), err);
	}
	TRY(request_reply_header(request, "Accept-Ranges", "bytes", err));
	part = read_range(request, etag, len);
	fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (fd < 0)
		return err_set(err, ERR_UNAVAILABLE, "file_descriptors", "no file can be opened");
	if (status == 200 && part.len > 0)
		return reply_part(request, part, len, fd, err);
	return request_reply_fd(request, status, "application/pkix-crl", fd, len, err);
}

static enum status
serve(struct app *app, struct request *request, int16_t scope, struct err *err)
{
	const char *ca_id = request_param(request, "ca");
	int64_t now_s = clock_wall_s(app->clock);
	struct db_crl about;
	own(crl_list) list = crl_cache_hold(app->crls, ca_id, scope, &about);
	struct answer answer;

	if (list == NULL)
		return no_list(app, ca_id, err);
	if (about.next_update_s <= now_s)
		return err_set(err, ERR_UNAVAILABLE, "crl_expired",
			"the CRL has run past its nextUpdate and no newer one could be made");
	describe(&answer, &about, now_s);
	TRY(request_reply_header(request, "ETag", answer.etag, err));
	TRY(request_reply_header(request, "Last-Modified", answer.last_modified, err));
	TRY(request_reply_header(request, "Cache-Control", answer.cache_control, err));
	/* RFC 9110 8.6: the Content-Length of a 304 is that of the list, which is not sent with it. */
	if (caching_not_modified(request, answer.etag, answer.last_modified))
		return reply(request, 304, give(list), answer.etag, err);
	return reply(request, 200, give(list), answer.etag, err);
}

static enum status
crl_delta(struct app *app, struct request *request, struct err *err)
{
	return serve(app, request, CRL_SCOPE_DELTA, err);
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
	{ .method = "GET", .path = "/crl/{ca}/delta.crl", .handle = crl_delta, .roles = ROLE_ANYONE,
	  .listeners = EVERYWHERE, .inline_ok = true },
	{ .method = "GET", .path = "/crl/{ca}/{shard}.crl", .handle = crl_shard, .roles = ROLE_ANYONE,
	  .listeners = EVERYWHERE, .inline_ok = true },
	{ .method = NULL },
};
