/* Reading and verifying the audit log. How it is written and what is hashed: server/audit.h. */
#include "server/audit.h"

#include <string.h>

#include "base/mem.h"
#include "server/api/api.h"
#include "server/api/render.h"
#include "server/app.h"
#include "server/http/fields.h"

#define TEXT_MAX_BYTES 64
#define OBJECT_MAX_BYTES 128
/* A record of a batch has hundreds of items; the rest is found by object. */
#define ITEMS_SHOWN_MAX 100
#define LIMIT_WITH_ITEMS_MAX 100

struct page {
	struct db_audit_record *rows;
	size_t count;
};

static void
page_free(struct page *page)
{
	for (size_t i = 0; i < page->count; i++)
		db_audit_record_free(&page->rows[i]);
	page->count = 0;
	mem_free(give(page->rows));
}
OWNER_STRUCT(page, page_free)

/* actor, action and object are compared, not stored: only their length is bounded. */
static enum status
query_text(const struct request *request, const char *name, size_t max, const char **out,
	struct err *err)
{
	*out = request_query(request, name);
	if (*out != NULL && strlen(*out) > max)
		return err_set(err, ERR_ARGUMENT, "field_too_long", "%s: at most %zu octets wanted", name,
			max);
	return OK;
}

static enum status
read_filter(struct db_audit_filter *out, const struct request *request, struct err *err)
{
	*out = (struct db_audit_filter){ .actor = NULL };
	TRY(query_text(request, "actor", TEXT_MAX_BYTES, &out->actor, err));
	TRY(query_text(request, "action", TEXT_MAX_BYTES, &out->action, err));
	TRY(query_text(request, "object", OBJECT_MAX_BYTES, &out->object, err));
	TRY(query_time(request, "since", &out->since_s, err));
	return query_time(request, "until", &out->until_s, err);
}

/* ---- items ---- */

struct items {
	json_t *list; /* borrowed */
	int64_t count;
};

static enum status
add_item(void *arg, const char *object, struct view body, struct err *err)
{
	struct items *items = arg;
	json_t *json;

	(void)object; /* it is in the body */
	if (++items->count > ITEMS_SHOWN_MAX)
		return OK;
	json = json_loadb((const char *)body.data, body.len, 0, NULL);
	return api_append(items->list, json != NULL ? json : json_null(), err);
}

static enum status
add_items(json_t *record, struct db_tx *tx, const struct db_audit_record *row, struct err *err)
{
	own(json_t) list = json_array();
	struct items items = { list, 0 };

	if (list == NULL)
		return err_memory(err);
	TRY(db_audit_items(tx, row->lane, row->seq, add_item, &items, err));
	TRY(api_set(record, "items", give(list), err));
	return api_set(record, "items_more", json_boolean(items.count > ITEMS_SHOWN_MAX), err);
}

/*
 * The body is given as it was hashed too: hash = BLAKE2b-256(hash before || body), so that anybody can
 * recompute the chain.
 */
static json_t *
render_record(const struct db_audit_record *row)
{
	own(json_t) body = json_loadb((const char *)row->body.data, row->body.len, 0, NULL);

	return json_pack("{s:I, s:I, s:o, s:s, s:s, s:o, s:O?, s:s%}", "lane", (json_int_t)row->lane,
		"seq", (json_int_t)row->seq, "at", render_time(row->at_s), "actor", row->actor, "action",
		row->action, "hash", render_hex(row->hash, sizeof(row->hash)), "detail", body, "body",
		(const char *)row->body.data, row->body.len);
}

/* ---- search ---- */

/* The cursor as octets; the struct has holes. */
struct place {
	int64_t at_us, lane, seq;
};

static enum status
read_cursor(struct db_audit_cursor *out, const struct request *request, struct err *err)
{
	struct place place;
	bool found;

	*out = (struct db_audit_cursor){ .set = false };
	TRY(query_cursor_exact(request, "audit", &place, sizeof(place), &found, err));
	if (!found)
		return OK;
	if (place.lane < INT32_MIN || place.lane > INT32_MAX)
		return err_set(err, ERR_ARGUMENT, "cursor_malformed", "cursor: one of ours wanted");
	*out = (struct db_audit_cursor){ true, place.at_us, (int32_t)place.lane, place.seq };
	return OK;
}

static enum status
reply_page(struct request *request, json_t *records, const struct db_audit_cursor *next,
	struct err *err)
{
	const struct place place = { next->at_us, next->lane, next->seq };
	own(json_t) held = records;
	own(json_t) answer = json_object();
	char text[CURSOR_TEXT_BYTES];

	if (answer == NULL)
		return err_memory(err);
	cursor_encode(text, "audit", &place, sizeof(place));
	TRY(api_set(answer, "records", give(held), err));
	TRY(api_set(answer, "next_cursor", next->set ? json_string(text) : json_null(), err));
	return request_reply_json(request, 200, give(answer), err);
}

static enum status
render_page(json_t *records, struct db_tx *tx, const struct page *page, bool with_items,
	struct err *err)
{
	for (size_t i = 0; i < page->count; i++) {
		own(json_t) record = render_record(&page->rows[i]);

		if (record == NULL)
			return err_memory(err);
		if (with_items)
			TRY(add_items(record, tx, &page->rows[i], err));
		TRY(api_append(records, give(record), err));
	}
	return OK;
}

static enum status
search(struct app *app, struct request *request, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	own_struct(page) page = { NULL, 0 };
	own(json_t) records = json_array();
	struct db_audit_filter filter;
	struct db_audit_cursor cursor;
	struct db_audit_cursor next = { .set = false };
	bool with_items = false;
	size_t limit;

	TRY(read_filter(&filter, request, err));
	TRY(query_bool(request, "items", &with_items, err));
	TRY(query_limit(request, &limit, err));
	if (with_items && limit > LIMIT_WITH_ITEMS_MAX)
		limit = LIMIT_WITH_ITEMS_MAX;
	TRY(read_cursor(&cursor, request, err));
	page.rows = mem_array(limit, sizeof(*page.rows));
	if (page.rows == NULL || records == NULL)
		return err_memory(err);
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_audit_search(&tx, &filter, &cursor, limit, page.rows, &page.count, &next, err));
	TRY(render_page(records, &tx, &page, with_items, err));
	TRY(db_tx_commit(&tx, err));
	return reply_page(request, give(records), &next, err);
}

static enum status
verify(struct app *app, struct request *request, struct err *err)
{
	json_t *report = NULL;

	TRY(audit_verify(app, &report, err));
	return request_reply_json(request, 200, report, err);
}

static enum status
verify_post(struct app *app, struct request *request, struct err *err)
{
	TRY(api_no_fields(request, err));
	return verify(app, request, err);
}

static const char *const SEARCH_QUERY[] = { "actor", "action", "object", "since", "until", "items",
	"limit", "cursor", NULL };

#define WHO (ROLE_AUDITOR | ROLE_ADMIN)

const struct route AUDIT_ROUTES[] = {
	{ .method = "GET", .path = "/v1/audit", .handle = search, .roles = WHO, .query = SEARCH_QUERY },
	{ .method = "GET", .path = "/v1/audit/verify", .handle = verify, .roles = WHO },
	{ .method = "POST", .path = "/v1/audit/verify", .handle = verify_post, .roles = WHO,
	  .body_max_bytes = 1024 },
	{ .method = NULL },
};
