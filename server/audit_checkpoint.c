#include "server/audit_checkpoint.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "ca/checkpoint.h"
#include "ca/digest.h"
#include "ca/file.h"
#include "db/issuer.h"
#include "server/app.h"
#include "server/http/request.h"
#include "server/jobs/jobs.h"
#include "server/json_text.h"
#include "server/signer/link.h"

#define SHIP_PAGE 100

/* ---- what is new, and whether it holds ---- */

struct gathering {
	struct app *app;
	struct db_tx tx;
	struct db_note last;
	struct db_audit_lane lanes[CA_CHECKPOINT_LANES_MAX];
	size_t lane_count;
	struct db_note_lane heads[CA_CHECKPOINT_LANES_MAX]; /* as the last checkpoints have them */
	size_t head_count;
	struct grown {
		struct db_note_lane rows;
		bool whole; /* up to the lane's head, as it was read */
		const struct db_audit_lane *from;
		struct ca_checkpoint_lane *to;
	} grown[CA_CHECKPOINT_LANES_MAX];
	size_t grown_count;
	struct ca_checkpoint checkpoint;
	struct ca_merkle tree;

	/* The walk along one lane. */
	int32_t lane;
	int64_t seq;
	uint8_t hash[32];
};

static void
gathering_free(struct gathering *g)
{
	if (g == NULL)
		return;
	db_tx_end(&g->tx);
	db_note_free(&g->last);
	mem_free(g);
}
typedef struct gathering gathering;
OWNER(gathering, gathering_free)

static enum status
broken(int32_t lane, int64_t seq, const char *why, struct err *err)
{
	log_event(LOG_ERROR, "audit_broken", NULL, LOG_INT("lane", lane), LOG_INT("seq", seq),
		LOG_STR("why", why));
	return err_set(err, ERR_CONFLICT, "audit_broken", "audit log: lane %d, record %" PRId64 ": %s", lane,
		seq, why);
}

static const struct db_note_lane *
head_of(const struct gathering *g, int32_t lane)
{
	for (size_t i = 0; i < g->head_count; i++)
		if (g->heads[i].lane == lane)
			return &g->heads[i];
	return NULL;
}

static enum status
note_lane(struct gathering *g, const struct db_audit_lane *lane, struct err *err)
{
	const struct db_note_lane *head = head_of(g, lane->lane);
	int64_t covered = head != NULL ? head->seq : 0;
	struct ca_checkpoint_lane *out = &g->checkpoint.lanes[g->checkpoint.lane_count];
	int64_t fresh = lane->seq - covered;

	if (lane->seq < covered)
		return broken(lane->lane, lane->seq + 1, "truncated", err);
	if (head != NULL && lane->seq == covered && memcmp(lane->head, head->head, 32) != 0)
		return broken(lane->lane, lane->seq, "checkpoint_differs", err);
	if (fresh > AUDIT_CHECKPOINT_RECORDS_MAX - g->checkpoint.records)
		fresh = AUDIT_CHECKPOINT_RECORDS_MAX - g->checkpoint.records;
	if (covered + fresh == 0) /* nothing was written to it, or it waits for the next one */
		return OK;
	out->lane = lane->lane;
	out->seq = covered + fresh;
	if (head != NULL)
		memcpy(out->head, head->head, sizeof(out->head));
	g->checkpoint.lane_count++;
	if (fresh == 0)
		return OK;
	g->grown[g->grown_count++] = (struct grown){
		.rows = { .lane = lane->lane, .first_seq = covered + 1, .seq = covered + fresh },
		.whole = covered + fresh == lane->seq, .from = lane, .to = out };
	g->checkpoint.records += fresh;
	return OK;
}

/* A lane of an older checkpoint cannot be gone: note_heads begins with the lanes that there are. */
static enum status
read_heads(struct gathering *g, struct err *err)
{
	TRY(db_note_last(&g->tx, &g->last, err));
	TRY(db_note_heads(&g->tx, g->heads, CA_CHECKPOINT_LANES_MAX, &g->head_count, err));
	TRY(db_audit_lanes(&g->tx, g->lanes, CA_CHECKPOINT_LANES_MAX, &g->lane_count, err));
	for (size_t i = 0; i < g->lane_count; i++)
		TRY(note_lane(g, &g->lanes[i], err));
	return OK;
}

static enum status
follow_record(void *arg, int64_t seq, const uint8_t hash[32], struct view body, struct err *err)
{
	struct gathering *g = arg;
	uint8_t want[32];

	if (seq != g->seq + 1)
		return broken(g->lane, g->seq + 1, "record_missing", err);
	ca_blake2b_parts(want, (const struct view[]){ { g->hash, 32 }, body }, 2);
	if (memcmp(want, hash, 32) != 0)
		return broken(g->lane, seq, "hash_differs", err);
	ca_merkle_add(&g->tree, (struct view){ hash, 32 });
	memcpy(g->hash, hash, 32);
	g->seq = seq;
	return OK;
}

static enum status
follow_lane(struct gathering *g, struct grown *grown, struct err *err)
{
	struct db_note_lane *rows = &grown->rows;

	g->lane = rows->lane;
	g->seq = rows->first_seq - 1;
	memcpy(g->hash, grown->to->head, 32); /* so far that of the last checkpoint, or zeros */
	TRY(db_audit_range(&g->tx, rows->lane, rows->first_seq, rows->seq, true, follow_record, g, err));
	if (g->seq != rows->seq)
		return broken(rows->lane, g->seq + 1, "record_missing", err);
	if (grown->whole && memcmp(g->hash, grown->from->head, 32) != 0)
		return broken(rows->lane, rows->seq, "head_differs", err);
	memcpy(grown->to->head, g->hash, 32);
	memcpy(rows->head, g->hash, 32);
	return OK;
}

/* ---- taking one ---- */

static enum status
sign(struct gathering *g, struct db_note *out, struct err *err)
{
	struct signer_link *link = g->app->signer_ocsp;
	struct ca_checkpoint signed_one;
	struct ca_signer *signer;
	uint64_t generation;
	enum status status;

	TRY(signer_link_acquire(link, &signer, &generation, err));
	status = ca_signer_checkpoint(signer, &g->checkpoint, &out->note, err);
	signer_link_release(link, status == ERR_UNAVAILABLE);
	if (status != OK)
		return status;
	/* The time is the signer's; and what does not verify here does nowhere. */
	TRY(ca_checkpoint_open(&signed_one, view_of(&out->note), g->app->checkpoint_key, err));
	out->number = signed_one.number;
	out->at_s = signed_one.at_s;
	out->records = signed_one.records;
	memcpy(out->public_key, g->app->checkpoint_key, sizeof(out->public_key));
	return OK;
}

static enum status
take(struct gathering *g, struct db_note *out, struct err *err)
{
	own_struct(db_note) note = { .number = 0 };
	struct db_note_lane rows[CA_CHECKPOINT_LANES_MAX];

	for (size_t i = 0; i < g->grown_count; i++) {
		TRY(follow_lane(g, &g->grown[i], err));
		rows[i] = g->grown[i].rows;
	}
	ca_merkle_end(&g->tree, g->checkpoint.root);
	if (g->last.number > 0)
		ca_checkpoint_text_sha256(g->checkpoint.previous, view_of(&g->last.note));
	TRY(db_note_draw(&g->tx, &g->checkpoint.number, err));
	TRY(sign(g, &note, err));
	TRY(db_note_add(&g->tx, &note, rows, g->grown_count, err));
	TRY(db_tx_commit(&g->tx, err));
	log_event(LOG_INFO, "audit_checkpoint", NULL, LOG_INT("number", note.number),
		LOG_INT("records", note.records));
	*out = give_struct(note);
	return OK;
}

static bool
is_due(const struct gathering *g)
{
	int64_t age_s = clock_wall_s(g->app->clock) - g->last.at_s;

	if (g->checkpoint.records == 0)
		return false;
	/* One that was full left something behind. */
	return g->last.number == 0 || g->checkpoint.records == AUDIT_CHECKPOINT_RECORDS_MAX ||
	       g->last.records == AUDIT_CHECKPOINT_RECORDS_MAX ||
	       age_s >= g->app->config.audit_checkpoint_interval_s;
}

enum status
audit_checkpoint_take(struct app *app, bool due_only, struct db_note *out, bool *made, struct err *err)
{
	own(gathering) g = mem_zalloc(sizeof(*g));
	bool leader;

	*made = false;
	*out = (struct db_note){ .number = 0 };
	if (g == NULL)
		return err_memory(err);
	if (!app->has_checkpoint_key)
		return due_only ? OK : err_set(err, ERR_NOT_FOUND, "checkpoint_key_absent",
			"the key store has no key for checkpoints; `jitrca init` makes one");
	g->app = app;
	TRY(db_tx_begin(&g->tx, app->pool, err));
	TRY(db_job_lead(&g->tx, JOB_CHECKPOINT, &leader, err));
	if (!leader && due_only)
		return OK;
	if (!leader) {
		(void)err_set(err, ERR_UNAVAILABLE, "checkpoint_under_way",
			"another checkpoint is being taken");
		err->retry_after_s = 1;
		return ERR_UNAVAILABLE;
	}
	TRY(read_heads(g, err));
	if (due_only ? !is_due(g) : g->checkpoint.records == 0) {
		*out = give_struct(g->last);
		return OK;
	}
	TRY(take(g, out, err));
	*made = true;
	return OK;
}

/* ---- shipping ---- */

static enum status
ship_one(const struct app *app, const struct db_note *note, struct err *err)
{
	char name[32];
	char path[FILE_PATH_BYTES];
	enum status status;

	/* Zeros in front, so that names are in the order of numbers. */
	(void)snprintf(name, sizeof(name), "%012" PRId64, note->number);
	TRY(file_path(path, app->config.audit_checkpoint_dir, name, ".checkpoint", err));
	if (file_exists(path))
		return OK;
	status = file_create(path, view_of(&note->note), 0644, err);
	return status == ERR_CONFLICT ? OK : status; /* another server was quicker */
}

static enum status
ship_page(struct app *app, int64_t *after, size_t *count, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	struct db_note notes[SHIP_PAGE];
	enum status status = OK;

	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_note_page(&tx, *after, SHIP_PAGE, notes, count, err));
	for (size_t i = 0; i < *count; i++) {
		if (status == OK)
			status = ship_one(app, &notes[i], err);
		if (status == OK)
			*after = notes[i].number;
		db_note_free(&notes[i]);
	}
	return status;
}

enum status
audit_checkpoint_ship(struct app *app, int64_t *after, struct err *err)
{
	size_t count = SHIP_PAGE;

	if (app->config.audit_checkpoint_dir[0] == '\0')
		return OK;
	while (count == SHIP_PAGE && !app->stopping)
		TRY(ship_page(app, after, &count, err));
	return OK;
}

/* ---- the export ---- */

struct export {
	struct spool *out;
	struct buf line;
	int32_t lane;
	int64_t seq; /* of the record that is open; 0: none */
	int64_t records;
};

static void
export_free(struct export *e)
{
	buf_free(&e->line);
}
OWNER_STRUCT(export, export_free)

static enum status
flush(struct export *e, struct err *err)
{
	TRY(buf_add(&e->line, "", 1, err));
	TRY(spool_write(e->out, (const char *)e->line.data, err));
	e->line.len = 0;
	return OK;
}

/* A text of JSON holds no other octets than UTF-8; one that does was not written by us. */
static enum status
put_text(struct export *e, struct view text, struct err *err)
{
	own(json_t) checked = json_stringn((const char *)text.data, text.len);

	if (checked == NULL || memchr(text.data, 0, text.len) != NULL)
		return broken(e->lane, e->seq, "not_utf8", err);
	return json_text_string(&e->line, text, err);
}

static enum status
close_record(struct export *e, struct err *err)
{
	if (e->seq == 0)
		return OK;
	TRY(buf_text(&e->line, "]}\n", err));
	e->seq = 0;
	return flush(e, err);
}

static enum status
export_part(void *arg, const struct db_audit_part *part, struct err *err)
{
	struct export *e = arg;
	char hash[65];
	bool first = part->seq != e->seq;

	if (first) {
		TRY(close_record(e, err));
		e->seq = part->seq;
		e->records++;
		hex_encode(hash, part->hash, 32);
		TRY(buf_format(&e->line, err, "{\"lane\":%d,\"seq\":%" PRId64 ",\"hash\":\"%s\",\"body\":",
			e->lane, part->seq, hash));
		TRY(put_text(e, part->body, err));
		TRY(buf_text(&e->line, ",\"items\":[", err));
	}
	if (part->index < 0)
		return OK;
	if (!first)
		TRY(buf_text(&e->line, ",", err));
	TRY(put_text(e, part->item, err));
	/* An item at a time: a record of a bulk act has hundreds. */
	return flush(e, err);
}

/* What was dropped may still be there in part. */
static int64_t
first_kept(const struct db_audit_anchor *dropped, size_t count, int32_t lane)
{
	for (size_t i = 0; i < count; i++)
		if (dropped[i].lane == lane)
			return dropped[i].seq + 1;
	return 1;
}

enum status
audit_export(struct app *app, struct spool *out, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	own_struct(export) e = { .out = out, .line = { .limit_bytes = (size_t)16 << 20 } };
	struct db_audit_lane lanes[CA_CHECKPOINT_LANES_MAX];
	struct db_audit_anchor dropped[CA_CHECKPOINT_LANES_MAX];
	size_t dropped_count;
	size_t count;

	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_audit_lanes(&tx, lanes, COUNT_OF(lanes), &count, err));
	TRY(db_audit_dropped(&tx, dropped, COUNT_OF(dropped), &dropped_count, err));
	for (size_t i = 0; i < count; i++) {
		e.lane = lanes[i].lane;
		int64_t first = first_kept(dropped, dropped_count, lanes[i].lane);

		if (first > 1)
			TRY(buf_format(&e.line, err, "{\"lane\":%d,\"dropped\":%" PRId64 "}\n",
				lanes[i].lane, first - 1));
		TRY(db_audit_parts(&tx, lanes[i].lane, first, lanes[i].seq, export_part, &e, err));
		TRY(close_record(&e, err));
	}
	TRY(buf_format(&e.line, err, "{\"end\":true,\"records\":%" PRId64 ",\"lanes\":%zu}\n", e.records,
		count));
	TRY(flush(&e, err));
	return db_tx_commit(&tx, err);
}

static enum status
export_note(void *arg, struct view note, struct err *err)
{
	char text[CA_CHECKPOINT_NOTE_MAX_BYTES + 1];
	struct spool *out = arg;

	if (note.len >= sizeof(text))
		return err_set(err, ERR_INTERNAL, "checkpoint_malformed", "a stored checkpoint is too long");
	memcpy(text, note.data, note.len);
	text[note.len] = '\0';
	return spool_write(out, text, err);
}

enum status
audit_export_notes(struct app *app, struct spool *out, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_note_each(&tx, export_note, out, err));
	return db_tx_commit(&tx, err);
}

/* ---- proofs ---- */

struct proving {
	struct db_tx tx;
	struct db_note note;
	struct db_audit_record record;
	struct bytes item;
	struct db_note_lane lanes[CA_CHECKPOINT_LANES_MAX];
	size_t lane_count;
	int32_t lane, index;
	int64_t seq;
	uint64_t place; /* of the record's leaf in the checkpoint */
	uint8_t previous[32];
	struct ca_merkle items, records;
};

static void
proving_free(struct proving *p)
{
	if (p == NULL)
		return;
	db_tx_end(&p->tx);
	db_note_free(&p->note);
	db_audit_record_free(&p->record);
	bytes_free(&p->item);
	mem_free(p);
}
typedef struct proving proving;
OWNER(proving, proving_free)

static enum status
add_item(void *arg, const char *object, struct view body, struct err *err)
{
	struct proving *p = arg;

	(void)object;
	if (p->items.count == (uint64_t)p->index)
		TRY(bytes_copy(&p->item, body, err));
	ca_merkle_add(&p->items, body);
	return OK;
}

static enum status
add_hash(void *arg, int64_t seq, const uint8_t hash[32], struct view body, struct err *err)
{
	struct proving *p = arg;

	(void)seq;
	(void)body;
	(void)err;
	ca_merkle_add(&p->records, (struct view){ hash, 32 });
	return OK;
}

/* Where the record stands among what came with its checkpoint: by lane, then by sequence. */
static enum status
find_place(struct proving *p, struct err *err)
{
	TRY(db_note_covering(&p->tx, p->lane, p->seq, &p->note, err));
	TRY(db_note_lanes(&p->tx, p->note.number, p->lanes, COUNT_OF(p->lanes), &p->lane_count, err));
	for (size_t i = 0; i < p->lane_count; i++) {
		if (p->lanes[i].lane == p->lane)
			p->place += (uint64_t)(p->seq - p->lanes[i].first_seq);
		else if (p->lanes[i].lane < p->lane)
			p->place += (uint64_t)(p->lanes[i].seq - p->lanes[i].first_seq + 1);
	}
	return OK;
}

static enum status
gather_proof(struct proving *p, const char *object, const char *action, struct err *err)
{
	uint8_t root[32];
	size_t count = 0;

	TRY(db_audit_first(&p->tx, object, action, &p->lane, &p->seq, &p->index, err));
	TRY(find_place(p, err));
	TRY(db_audit_lane_page(&p->tx, p->lane, p->seq - 1, 1, &p->record, &count, err));
	TRY(db_audit_hash(&p->tx, p->lane, p->seq - 1, p->previous, err));
	ca_merkle_follow(&p->items, (uint64_t)p->index);
	TRY(db_audit_items(&p->tx, p->lane, p->seq, add_item, p, err));
	ca_merkle_end(&p->items, root);
	ca_merkle_follow(&p->records, p->place);
	for (size_t i = 0; i < p->lane_count; i++)
		TRY(db_audit_range(&p->tx, p->lanes[i].lane, p->lanes[i].first_seq, p->lanes[i].seq, false,
			add_hash, p, err));
	ca_merkle_end(&p->records, root);
	return OK;
}

static json_t *
render_path(const struct ca_merkle *tree)
{
	own(json_t) path = json_array();

	for (size_t i = 0; path != NULL && i < tree->path_len; i++) {
		char text[65];

		hex_encode(text, tree->path[i], 32);
		if (json_array_append_new(path, json_string(text)) != 0)
			return NULL;
	}
	return give(path);
}

static json_t *
render_proof(const struct proving *p, const char *certificate_id)
{
	char previous[65];

	hex_encode(previous, p->previous, 32);
	return json_pack("{s:s, s:s, s:{s:i, s:I}, s:s%, s:I, s:I, s:o, s:s%, s:s, s:I, s:I, s:o, s:s%}",
		"format", "jitrca audit proof v1", "certificate_id", certificate_id, "at", "lane", p->lane,
		"seq", (json_int_t)p->seq, "item", (const char *)p->item.data, p->item.len, "item_index",
		(json_int_t)p->index, "item_count", (json_int_t)p->items.count, "item_path",
		render_path(&p->items), "record", (const char *)p->record.body.data, p->record.body.len,
		"previous", previous, "index", (json_int_t)p->place, "count",
		(json_int_t)p->records.count, "path", render_path(&p->records), "checkpoint",
		(const char *)p->note.note.data, p->note.note.len);
}

enum status
audit_prove(struct app *app, const char *certificate_id, const char *action, json_t **proof,
	struct err *err)
{
	own(proving) p = mem_zalloc(sizeof(*p));
	char object[DB_ID_BYTES + 16];

	if (p == NULL)
		return err_memory(err);
	(void)snprintf(object, sizeof(object), "certificate:%s", certificate_id);
	TRY(db_tx_begin(&p->tx, app->pool, err));
	TRY(gather_proof(p, object, action, err));
	TRY(db_tx_commit(&p->tx, err));
	*proof = render_proof(p, certificate_id);
	return *proof != NULL ? OK : err_memory(err);
}
