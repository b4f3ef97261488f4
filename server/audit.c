#include "server/audit.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "ca/digest.h"
#include "db/checkpoint.h"
#include "server/app.h"
#include "server/http/request.h"
#include "server/metrics.h"

#define VERIFY_PAGE 100
/* One process has one lane, and starts are not many a day: a table of this size is far from full. */
#define VERIFY_LANES_MAX 4096
/* A batch has 256 certificates; a bulk revocation's step 200. Refuses what no writer of ours makes. */
#define VERIFY_ITEMS_MAX 65536
#define BODY_FLAGS (JSON_COMPACT | JSON_SORT_KEYS)

/* The text of a JSON value, canonical, as bytes of ours. */
static enum status
canonical(struct bytes *out, const json_t *json, struct err *err)
{
	size_t len = json_dumpb(json, NULL, 0, BODY_FLAGS);

	if (len == 0)
		return err_memory(err);
	out->data = mem_alloc(len);
	if (out->data == NULL)
		return err_memory(err);
	out->len = len;
	if (json_dumpb(json, (char *)out->data, len, BODY_FLAGS) != len)
		return err_set(err, ERR_INTERNAL, "audit_body", "an audit body changed while it was written");
	return OK;
}

static enum status
item_body(struct bytes *out, const struct audit_item *item, struct err *err)
{
	own(json_t) json = item->detail == NULL ? json_object() : json_copy(item->detail);

	if (json == NULL || json_object_set_new(json, "object", json_string(item->object)) != 0)
		return err_memory(err);
	return canonical(out, json, err);
}

/* The bodies of a record's items: bytes that own, and the views that the tree and the table want. */
struct audit_leaves {
	struct bytes *bodies;
	struct view *views;
	struct db_audit_item *rows;
	size_t count;
};
typedef struct audit_leaves audit_leaves;

static void
leaves_free(struct audit_leaves *leaves)
{
	if (leaves == NULL)
		return;
	for (size_t i = 0; leaves->bodies != NULL && i < leaves->count; i++)
		bytes_free(&leaves->bodies[i]);
	mem_free(leaves->bodies);
	mem_free(leaves->views);
	mem_free(leaves->rows);
	mem_free(leaves);
}
OWNER(audit_leaves, leaves_free)

static enum status
leaves_make(struct audit_leaves **out, const struct audit_entry *entry, struct err *err)
{
	size_t room = entry->item_count > 0 ? entry->item_count : 1;
	own(audit_leaves) leaves = mem_zalloc(sizeof(*leaves));

	if (leaves == NULL)
		return err_memory(err);
	leaves->bodies = mem_array(room, sizeof(*leaves->bodies));
	leaves->views = mem_array(room, sizeof(*leaves->views));
	leaves->rows = mem_array(room, sizeof(*leaves->rows));
	if (leaves->bodies == NULL || leaves->views == NULL || leaves->rows == NULL)
		return err_memory(err);
	leaves->count = entry->item_count;
	for (size_t i = 0; i < leaves->count; i++) {
		const struct audit_item *item = &entry->items[i];

		if (item->text.len == 0)
			TRY(item_body(&leaves->bodies[i], item, err));
		leaves->views[i] = item->text.len > 0 ? item->text : view_of(&leaves->bodies[i]);
		leaves->rows[i] = (struct db_audit_item){ item->object, leaves->views[i] };
	}
	*out = give(leaves);
	return OK;
}

static enum status
record_body(struct bytes *out, const struct audit_entry *entry, const struct audit_leaves *leaves,
	int32_t lane, int64_t seq, struct err *err)
{
	uint8_t root[32];
	char root_text[2 * sizeof(root) + 1];
	char at[TIME_TEXT_BYTES];
	own(json_t) json = NULL;

	TRY(ca_merkle_root(root, leaves->views, leaves->count, err));
	hex_encode(root_text, root, sizeof(root));
	time_format(at, entry->at_s);
	json = json_pack("{s:s, s:s, s:s, s:I, s:s, s:I, s:s?, s:I}", "action", entry->action,
		"actor", entry->actor, "at", at, "items", (json_int_t)leaves->count, "items_root",
		root_text, "lane", (json_int_t)lane, "request_id", entry->request_id, "seq",
		(json_int_t)seq);
	if (json == NULL)
		return err_memory(err);
	return canonical(out, json, err);
}

static void
chain_hash(uint8_t out[32], const uint8_t previous[32], struct view body)
{
	const struct view parts[] = { { previous, 32 }, body };

	ca_blake2b_parts(out, parts, COUNT_OF(parts));
}

/* All of a record that follows head, but for its leaves. The caller frees its body. */
static enum status
record_make(struct db_audit_record *record, const struct audit_entry *entry,
	const struct audit_leaves *leaves, const uint8_t head[32], struct err *err)
{
	record->at_s = entry->at_s;
	TRY(record_body(&record->body, entry, leaves, record->lane, record->seq, err));
	chain_hash(record->hash, head, view_of(&record->body));
	(void)snprintf(record->actor, sizeof(record->actor), "%s", entry->actor);
	(void)snprintf(record->action, sizeof(record->action), "%s", entry->action);
	return OK;
}

enum status
audit_write(struct app *app, struct db_tx *tx, const struct audit_entry *entry, struct err *err)
{
	own(audit_leaves) leaves = NULL;
	own_struct(audit_link) link = { .record = { .lane = app->audit_lane } };

	/* All that needs no lock comes before the lane is locked. */
	TRY(leaves_make(&leaves, entry, err));
	(void)atomic_fetch_add(&app->audit_writes, 1);
	TRY(db_audit_head(tx, link.record.lane, &link.record.seq, link.previous, err));
	link.record.seq++;
	TRY(record_make(&link.record, entry, leaves, link.previous, err));
	TRY(db_audit_append(tx, &link.record, leaves->rows, leaves->count, err));
	metric_add(METRIC_AUDIT_RECORDS, 1);
	return OK;
}

/* ---- behind a remembered head ---- */

void
audit_link_free(struct audit_link *link)
{
	db_audit_record_free(&link->record);
	leaves_free(give(link->leaves));
}

enum status
audit_tail_read(struct app *app, struct db_tx *tx, struct audit_tail *tail, struct err *err)
{
	uint64_t writes = atomic_load(&app->audit_writes);

	if (tail->known && tail->others == writes)
		return OK;
	tail->others = writes;
	return db_audit_peek(tx, app->audit_lane, &tail->known, &tail->seq, tail->head, err);
}

enum status
audit_link_make(struct app *app, struct audit_tail *tail, const struct audit_entry *entry,
	struct audit_link *link, struct db_audit_follow *follow, struct err *err)
{
	link->record.lane = app->audit_lane;
	link->record.seq = tail->seq + 1;
	memcpy(link->previous, tail->head, sizeof(link->previous));
	TRY(leaves_make(&link->leaves, entry, err));
	TRY(record_make(&link->record, entry, link->leaves, link->previous, err));
	tail->seq = link->record.seq;
	memcpy(tail->head, link->record.hash, sizeof(tail->head));
	*follow = (struct db_audit_follow){ .record = &link->record, .previous = link->previous,
		.items = link->leaves->rows, .count = link->leaves->count };
	return OK;
}

/* ---- verification ---- */

struct verifier {
	struct db_tx tx;
	struct db_audit_record *page;
	size_t page_count;
	struct db_audit_lane *lanes;
	struct db_audit_anchor *anchors;
	struct db_audit_anchor *dropped; /* up to where retention dropped a lane: it begins behind */
	size_t lane_count, anchor_count, dropped_count;
	int64_t records;

	/* The first broken link; why NULL: none yet. */
	int32_t broken_lane;
	int64_t broken_seq;
	const char *why;
};

static void
page_empty(struct verifier *v)
{
	for (size_t i = 0; i < v->page_count; i++)
		db_audit_record_free(&v->page[i]);
	v->page_count = 0;
}

static void
verifier_free(struct verifier *v)
{
	if (v->page != NULL)
		page_empty(v);
	db_tx_end(&v->tx);
	mem_free(give(v->page));
	mem_free(give(v->lanes));
	mem_free(give(v->anchors));
	mem_free(give(v->dropped));
}
OWNER_STRUCT(verifier, verifier_free)

static bool
broken(struct verifier *v, int32_t lane, int64_t seq, const char *why)
{
	v->broken_lane = lane;
	v->broken_seq = seq;
	v->why = why;
	return false;
}

typedef struct view view_t;
OWNER(view_t, mem_free)

struct item_collector {
	struct buf text;      /* bodies, one behind the other */
	struct buf lengths;   /* size_t each */
	size_t count;
	bool misplaced;       /* an item whose body names another object than its row */
};

static void
item_collector_free(struct item_collector *c)
{
	buf_free(&c->text);
	buf_free(&c->lengths);
}
OWNER_STRUCT(item_collector, item_collector_free)

static enum status
collect_item(void *arg, const char *object, struct view body, struct err *err)
{
	struct item_collector *c = arg;
	own(json_t) json = json_loadb((const char *)body.data, body.len, 0, NULL);
	const char *named = json_string_value(json_object_get(json, "object"));

	if (named == NULL || strcmp(named, object) != 0)
		c->misplaced = true;
	c->count++;
	TRY(buf_add(&c->text, body.data, body.len, err));
	return buf_add(&c->lengths, &body.len, sizeof(body.len), err);
}

static enum status
items_root(struct verifier *v, const struct db_audit_record *record, size_t *count, bool *misplaced,
	char out[65], struct err *err)
{
	own_struct(item_collector) c = {
		.text = { .limit_bytes = (size_t)256 << 20 },
		.lengths = { .limit_bytes = VERIFY_ITEMS_MAX * sizeof(size_t) },
	};
	own(view_t) views = NULL;
	uint8_t root[32];
	size_t at = 0;

	TRY(db_audit_items(&v->tx, record->lane, record->seq, collect_item, &c, err));
	views = mem_array(c.count > 0 ? c.count : 1, sizeof(*views));
	if (views == NULL)
		return err_memory(err);
	for (size_t i = 0; i < c.count; i++) {
		size_t len;

		memcpy(&len, c.lengths.data + i * sizeof(len), sizeof(len));
		views[i] = (struct view){ c.text.data + at, len };
		at += len;
	}
	TRY(ca_merkle_root(root, views, c.count, err));
	hex_encode(out, root, sizeof(root));
	*count = c.count;
	*misplaced = c.misplaced;
	return OK;
}

static bool
text_is(const json_t *body, const char *key, const char *want)
{
	const char *found = json_string_value(json_object_get(body, key));

	return found != NULL && strcmp(found, want) == 0;
}

static bool
number_is(const json_t *body, const char *key, int64_t want)
{
	const json_t *found = json_object_get(body, key);

	return json_is_integer(found) && json_integer_value(found) == want;
}

/* The columns beside the body are for searching: they must say what the body says. */
static bool
columns_agree(const json_t *body, const struct db_audit_record *record)
{
	char at[TIME_TEXT_BYTES];

	time_format(at, record->at_s);
	return text_is(body, "action", record->action) && text_is(body, "actor", record->actor) &&
	       text_is(body, "at", at) && number_is(body, "lane", record->lane) &&
	       number_is(body, "seq", record->seq);
}

/* *good false: the link is broken and v says why. */
static enum status
check_record(struct verifier *v, const struct db_audit_record *record, int64_t want_seq,
	const uint8_t previous[32], bool *good, struct err *err)
{
	own(json_t) body = NULL;
	uint8_t hash[32];
	char root[65];
	size_t count = 0;
	bool misplaced = false;

	*good = false;
	if (record->seq != want_seq)
		return broken(v, record->lane, want_seq, "record_missing"), OK;
	chain_hash(hash, previous, view_of(&record->body));
	if (memcmp(hash, record->hash, sizeof(hash)) != 0)
		return broken(v, record->lane, record->seq, "hash_differs"), OK;
	body = json_loadb((const char *)record->body.data, record->body.len, 0, NULL);
	if (body == NULL || !columns_agree(body, record))
		return broken(v, record->lane, record->seq, "columns_differ"), OK;
	TRY(items_root(v, record, &count, &misplaced, root, err));
	if (misplaced || !text_is(body, "items_root", root) ||
	    !number_is(body, "items", (int64_t)count))
		return broken(v, record->lane, record->seq, "items_differ"), OK;
	*good = true;
	return OK;
}

static const struct db_audit_anchor *
anchor_of(const struct verifier *v, int32_t lane)
{
	for (size_t i = 0; i < v->anchor_count; i++)
		if (v->anchors[i].lane == lane)
			return &v->anchors[i];
	return NULL;
}

/* A checkpoint is passed with the hash that it noted, or the past was written anew. */
static bool
anchor_holds(struct verifier *v, const struct db_audit_anchor *anchor,
	const struct db_audit_record *record)
{
	if (anchor == NULL || anchor->seq != record->seq ||
	    memcmp(anchor->hash, record->hash, sizeof(record->hash)) == 0)
		return true;
	return broken(v, record->lane, record->seq, "checkpoint_differs");
}

static enum status
check_page(struct verifier *v, const struct db_audit_lane *lane, int64_t *seq, uint8_t hash[32],
	bool *good, struct err *err)
{
	const struct db_audit_anchor *anchor = anchor_of(v, lane->lane);

	/* Records after the head that was read belong to transactions that came later. */
	for (size_t i = 0; i < v->page_count && *seq < lane->seq; i++) {
		const struct db_audit_record *record = &v->page[i];

		TRY(check_record(v, record, *seq + 1, hash, good, err));
		*good = *good && anchor_holds(v, anchor, record);
		if (!*good)
			return OK;
		memcpy(hash, record->hash, sizeof(record->hash));
		*seq = record->seq;
		v->records++;
	}
	return OK;
}

/* Where a lane begins: behind what was dropped, the last of which a signed checkpoint holds. */
static void
begin_lane(const struct verifier *v, int32_t lane, int64_t *seq, uint8_t hash[32])
{
	for (size_t i = 0; i < v->dropped_count; i++) {
		if (v->dropped[i].lane != lane)
			continue;
		*seq = v->dropped[i].seq;
		memcpy(hash, v->dropped[i].hash, 32);
	}
}

static enum status
check_lane(struct verifier *v, const struct db_audit_lane *lane, struct err *err)
{
	const struct db_audit_anchor *anchor = anchor_of(v, lane->lane);
	uint8_t hash[32] = { 0 };
	int64_t seq = 0;
	bool good = true;

	begin_lane(v, lane->lane, &seq, hash);
	while (seq < lane->seq) {
		TRY(db_audit_lane_page(&v->tx, lane->lane, seq, VERIFY_PAGE, v->page, &v->page_count,
			err));
		if (v->page_count == 0)
			return broken(v, lane->lane, seq + 1, "record_missing"), OK;
		TRY(check_page(v, lane, &seq, hash, &good, err));
		page_empty(v);
		if (!good)
			return OK;
	}
	if (memcmp(hash, lane->head, sizeof(hash)) != 0)
		(void)broken(v, lane->lane, seq, "head_differs");
	else if (anchor != NULL && anchor->seq > lane->seq)
		(void)broken(v, lane->lane, lane->seq + 1, "truncated");
	return OK;
}

/* A lane that a checkpoint knows cannot be gone. */
static void
check_lanes_kept(struct verifier *v)
{
	for (size_t i = 0; i < v->anchor_count && v->why == NULL; i++) {
		bool kept = false;

		for (size_t j = 0; j < v->lane_count && !kept; j++)
			kept = v->lanes[j].lane == v->anchors[i].lane;
		if (!kept)
			(void)broken(v, v->anchors[i].lane, 1, "truncated");
	}
}

static enum status
verify_all(struct app *app, struct verifier *v, struct err *err)
{
	v->page = mem_array(VERIFY_PAGE, sizeof(*v->page));
	v->lanes = mem_array(VERIFY_LANES_MAX, sizeof(*v->lanes));
	v->anchors = mem_array(VERIFY_LANES_MAX, sizeof(*v->anchors));
	v->dropped = mem_array(VERIFY_LANES_MAX, sizeof(*v->dropped));
	if (v->page == NULL || v->lanes == NULL || v->anchors == NULL || v->dropped == NULL)
		return err_memory(err);
	TRY(db_tx_begin(&v->tx, app->pool, err));
	/* Anchors first: what they name is then at or before every head that is read after them. */
	TRY(db_audit_anchors(&v->tx, v->anchors, VERIFY_LANES_MAX, &v->anchor_count, err));
	TRY(db_audit_lanes(&v->tx, v->lanes, VERIFY_LANES_MAX, &v->lane_count, err));
	TRY(db_audit_dropped(&v->tx, v->dropped, VERIFY_LANES_MAX, &v->dropped_count, err));
	check_lanes_kept(v);
	for (size_t i = 0; i < v->lane_count && v->why == NULL; i++)
		TRY(check_lane(v, &v->lanes[i], err));
	return OK;
}

enum status
audit_verify(struct app *app, json_t **report, struct err *err)
{
	own_struct(verifier) v = { 0 };
	own(json_t) json = NULL;

	TRY(verify_all(app, &v, err));
	json = json_pack("{s:b, s:I, s:I}", "ok", v.why == NULL, "records", (json_int_t)v.records,
		"lanes", (json_int_t)v.lane_count);
	if (json == NULL)
		return err_memory(err);
	if (v.why != NULL) {
		log_event(LOG_ERROR, "audit_broken", NULL, LOG_INT("lane", v.broken_lane),
			LOG_INT("seq", v.broken_seq), LOG_STR("why", v.why));
		if (json_object_set_new(json, "first_broken", json_pack("{s:I, s:I, s:s}", "lane",
			(json_int_t)v.broken_lane, "seq", (json_int_t)v.broken_seq, "why",
			v.why)) != 0)
			return err_memory(err);
	}
	*report = give(json);
	return OK;
}
