#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "db/blocked_key.h"
#include "server/api/api.h"
#include "server/api/render.h"
#include "server/app.h"
#include "server/auth.h"
#include "server/http/fields.h"
#include "server/notify/event.h"

#define REASON_MAX_BYTES 256
/* Keys in one transaction: few seconds of locks, and a commit that is shared. */
#define LOAD_PAGE 5000
#define READ_BYTES (16 * 1024)
/* A digest, white space around it, or a comment. */
#define LINE_MAX_BYTES 1024

typedef struct db_blocked_key db_blocked_key;
OWNER(db_blocked_key, mem_free)

/* ---- reading the upload ---- */

struct load {
	struct app *app;
	struct request *request;
	const char *reason;
	bool dry; /* the first pass: whatever is wrong shows before anything is written */
	int64_t line, keys;
	struct db_blocked_load done;
	uint8_t page[LOAD_PAGE][DB_SHA256_BYTES];
	size_t count;
	uint8_t octets[READ_BYTES];
	char text[LINE_MAX_BYTES];
	size_t len;
};
typedef struct load load_t;
OWNER(load_t, mem_free)

static enum status
raise_in_use(struct db_tx *tx, const struct load *load, int64_t in_use, struct err *err)
{
	struct db_event event = { .kind = "blocked_key_in_use", .severity = "high" };

	TRY(notify_event_detail(&event, json_pack("{s:s, s:s, s:I}", "reason", load->reason, "actor",
		request_identity(load->request)->actor, "keys", (json_int_t)in_use), err));
	return notify_event_raise(tx, &event, err);
}

static enum status
page_write(struct load *load, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	struct db_blocked_load page = { 0 };
	own(json_t) detail = NULL;

	if (load->count == 0 || load->dry)
		return OK;
	TRY(db_tx_begin(&tx, load->app->pool, err));
	TRY(db_blocked_key_load(&tx, (const uint8_t(*)[DB_SHA256_BYTES])load->page, load->count,
		load->reason, request_identity(load->request)->actor, &page, err));
	detail = json_pack("{s:s, s:I, s:I, s:I}", "reason", load->reason, "added",
		(json_int_t)page.added, "already", (json_int_t)page.already, "in_use",
		(json_int_t)page.in_use);
	if (detail == NULL)
		return err_memory(err);
	if (page.added > 0)
		TRY(api_audit(load->app, &tx, load->request, "blocked_key.load", "blocked_keys", "list",
			detail, err));
	if (page.in_use > 0)
		TRY(raise_in_use(&tx, load, page.in_use, err));
	TRY(db_tx_commit(&tx, err));
	load->done.added += page.added;
	load->done.already += page.already;
	load->done.in_use += page.in_use;
	load->count = 0;
	return OK;
}

static bool
is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

static enum status
line_end(struct load *load, struct err *err)
{
	const char *text = load->text;
	size_t len = load->len;

	load->line++;
	load->len = 0;
	for (; len > 0 && is_space(text[len - 1]); len--)
		;
	for (; len > 0 && is_space(*text); text++, len--)
		;
	if (len == 0 || *text == '#')
		return OK;
	if (!hex_decode(load->page[load->count], DB_SHA256_BYTES, text, len))
		return err_set(err, ERR_ARGUMENT, "blocked_key_malformed",
			"line %lld: SHA-256 of a SubjectPublicKeyInfo as 64 hex digits wanted",
			(long long)load->line);
	load->keys++;
	if (load->dry)
		return OK;
	return ++load->count == LOAD_PAGE ? page_write(load, err) : OK;
}

static enum status
octets_take(struct load *load, size_t len, struct err *err)
{
	for (size_t i = 0; i < len; i++) {
		char c = (char)load->octets[i];

		if (c == '\n')
			TRY(line_end(load, err));
		else if (load->len == sizeof(load->text))
			return err_set(err, ERR_ARGUMENT, "blocked_key_malformed",
				"line %lld: at most %d octets wanted", (long long)load->line + 1,
				LINE_MAX_BYTES);
		else
			load->text[load->len++] = c;
	}
	return OK;
}

static enum status
pass(struct load *load, bool dry, struct err *err)
{
	int fd = request_body_fd(load->request);
	off_t at = 0;
	ssize_t got;

	load->dry = dry;
	load->line = load->keys = 0;
	while ((got = pread(fd, load->octets, sizeof(load->octets), at)) != 0) {
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return err_set(err, ERR_UNAVAILABLE, "spool_unavailable", "the upload: %s",
				strerror(errno));
		TRY(octets_take(load, (size_t)got, err));
		at += got;
	}
	if (load->len > 0)
		TRY(line_end(load, err)); /* the last line without its end */
	return page_write(load, err);
}

/* The reason, of the query: one line, as fields_string would have it. */
static enum status
read_reason(const struct request *request, const char **out, struct err *err)
{
	own(json_t) json = NULL;
	const char *text = request_query(request, "reason");
	const char *checked;

	if (text == NULL)
		return err_set(err, ERR_ARGUMENT, "field_missing", "reason: why they are blocked wanted");
	json = json_pack("{s:s}", "reason", text);
	if (json == NULL)
		return err_set(err, ERR_ARGUMENT, "field_malformed", "reason: UTF-8 wanted");
	TRY(fields_string(json, "reason", FIELD_REQUIRED, REASON_MAX_BYTES, &checked, err));
	*out = text;
	return OK;
}

static enum status
load_keys(struct app *app, struct request *request, struct err *err)
{
	own(load_t) load = mem_zalloc(sizeof(*load));
	json_t *json;

	if (load == NULL)
		return err_memory(err);
	load->app = app;
	load->request = request;
	TRY(read_reason(request, &load->reason, err));
	if (strcmp(request_content_type(request), "text/plain") != 0)
		return err_set(err, ERR_ARGUMENT, "unsupported_media_type",
			"Content-Type: text/plain wanted");
	if (request_body_fd(request) < 0)
		return err_set(err, ERR_ARGUMENT, "body_missing", "a body wanted, none found");
	TRY(pass(load, true, err));
	TRY(pass(load, false, err));
	json = json_pack("{s:I, s:I, s:I, s:I}", "keys", (json_int_t)load->keys, "added",
		(json_int_t)load->done.added, "already", (json_int_t)load->done.already, "in_use",
		(json_int_t)load->done.in_use);
	return json != NULL ? request_reply_json(request, 200, json, err) : err_memory(err);
}

/* ---- looking, removing ---- */

static json_t *
render(const struct db_blocked_key *key)
{
	return json_pack("{s:o, s:s, s:s, s:o, s:o, s:o}", "spki_sha256",
		render_hex(key->spki_sha256, DB_SHA256_BYTES), "source",
		key->compromised ? "compromise" : "list", "reason", key->reason, "actor",
		key->actor[0] != '\0' ? json_string(key->actor) : json_null(), "blocked_at",
		render_time(key->blocked_at_s), "identity",
		key->identity[0] != '\0' ? json_string(key->identity) : json_null());
}

static enum status
path_key(const struct request *request, uint8_t key[DB_SHA256_BYTES], struct err *err)
{
	const char *text = request_param(request, "spki_sha256");

	if (!hex_decode(key, DB_SHA256_BYTES, text, strlen(text)))
		return err_set(err, ERR_NOT_FOUND, "blocked_key_unknown",
			"blocked key: that key is not blocked");
	return OK;
}

static enum status
show(struct app *app, struct request *request, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	uint8_t key[DB_SHA256_BYTES];
	struct db_blocked_key found;
	json_t *json;

	TRY(path_key(request, key, err));
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_blocked_key_find(&tx, key, &found, err));
	json = render(&found);
	return json != NULL ? request_reply_json(request, 200, json, err) : err_memory(err);
}

static enum status
list(struct app *app, struct request *request, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	own(db_blocked_key) rows = NULL;
	own(json_t) items = json_array();
	uint8_t after[DB_SHA256_BYTES];
	char place[2 * DB_SHA256_BYTES + 1];
	char text[2 * DB_SHA256_BYTES + 1];
	size_t limit, count;

	TRY(query_limit(request, &limit, err));
	TRY(query_cursor_text(request, "blocked_keys", text, sizeof(text), err));
	if (text[0] != '\0' && !hex_decode(after, sizeof(after), text, strlen(text)))
		return err_set(err, ERR_ARGUMENT, "cursor_malformed", "cursor: that of this list wanted");
	rows = mem_array(limit + 1, sizeof(*rows));
	if (rows == NULL || items == NULL)
		return err_memory(err);
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_blocked_key_list(&tx, text[0] != '\0' ? after : NULL, limit + 1, rows, &count, err));
	TRY(db_tx_commit(&tx, err));
	for (size_t i = 0; i < count && i < limit; i++)
		TRY(api_append(items, render(&rows[i]), err));
	if (count > limit)
		hex_encode(place, rows[limit - 1].spki_sha256, DB_SHA256_BYTES);
	return api_reply_page(request, "blocked_keys", give(items), "blocked_keys",
		count > limit ? place : NULL, err);
}

static enum status
remove_key(struct app *app, struct request *request, struct err *err)
{
	static const char *const ALLOWED[] = { "reason", NULL };
	own_struct(db_tx) tx = { NULL, NULL };
	own(json_t) body = NULL;
	own(json_t) detail = NULL;
	uint8_t key[DB_SHA256_BYTES];
	char text[2 * DB_SHA256_BYTES + 1];
	const char *reason;

	TRY(path_key(request, key, err));
	TRY(request_json(request, &body, err));
	TRY(fields_check(body, ALLOWED, err));
	TRY(fields_string(body, "reason", FIELD_REQUIRED, REASON_MAX_BYTES, &reason, err));
	hex_encode(text, key, sizeof(key));
	detail = json_pack("{s:s}", "reason", reason);
	if (detail == NULL)
		return err_memory(err);
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_blocked_key_remove(&tx, key, err));
	TRY(api_audit(app, &tx, request, "blocked_key.remove", "blocked_key", text, detail, err));
	TRY(db_tx_commit(&tx, err));
	return request_reply_json(request, 200, json_pack("{s:s, s:b}", "spki_sha256", text, "blocked", 0),
		err);
}

static const char *const LOAD_QUERY[] = { "reason", NULL };
static const char *const PAGE_QUERY[] = { "limit", "cursor", NULL };

const struct route BLOCKED_KEY_ROUTES[] = {
	{ .method = "POST", .path = "/v1/blocked-keys", .handle = load_keys, .roles = ROLE_ADMIN,
	  .spool = true, .query = LOAD_QUERY },
	{ .method = "GET", .path = "/v1/blocked-keys", .handle = list, .roles = ROLES_READ,
	  .query = PAGE_QUERY },
	{ .method = "GET", .path = "/v1/blocked-keys/{spki_sha256}", .handle = show,
	  .roles = ROLES_READ },
	{ .method = "POST", .path = "/v1/blocked-keys/{spki_sha256}/remove", .handle = remove_key,
	  .roles = ROLE_ADMIN, .body_max_bytes = 4096 },
	{ .method = NULL },
};
