#include "server/audit_offline.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "ca/checkpoint.h"
#include "ca/digest.h"
#include "server/http/request.h"

/* Hourly for a hundred years. Their lanes are kept only where they grew. */
#define NOTES_MAX ((size_t)1 << 20)
#define ANCHORS_MAX ((size_t)1 << 24)
/* A record of a batch has hundreds of items of some hundred octets; nothing of ours is longer. */
#define LINE_MAX_BYTES ((size_t)256 << 20)
#define ITEMS_MAX 65536

struct anchor {
	int32_t lane;
	int64_t seq;
	int64_t number; /* of the first checkpoint that says so */
	uint8_t head[32];
};

/* A note as it is kept: its lanes are in anchors. */
struct note {
	int64_t number, at_s;
	uint8_t previous[32], text[32];
};

struct audit_offline {
	uint8_t public_key[32];
	struct buf notes;   /* struct note each */
	struct buf anchors; /* struct anchor each */
	size_t note_count, anchor_count;

	/* The walk. */
	struct buf line;
	int64_t line_number;
	bool begun;        /* a lane is open */
	int32_t lane;
	int64_t seq;       /* of its last record */
	uint8_t hash[32];
	size_t anchor;     /* the next one that was not passed */
	int64_t since_seq; /* behind the last that was */
	bool lane_broken;
	int64_t missing;   /* the one that was wanted when another was found; 0: none */
	bool dropped_ok;
	void (*found)(void *arg, int64_t lane, int64_t seq, const char *why, int64_t since_seq);
	void *arg;
	struct audit_offline_report *report;
};

enum status
audit_offline_new(struct audit_offline **out, const uint8_t public_key[32], struct err *err)
{
	struct audit_offline *it = mem_zalloc(sizeof(*it));

	if (it == NULL)
		return err_memory(err);
	memcpy(it->public_key, public_key, sizeof(it->public_key));
	it->notes.limit_bytes = NOTES_MAX * sizeof(struct note);
	it->anchors.limit_bytes = ANCHORS_MAX * sizeof(struct anchor);
	it->line.limit_bytes = LINE_MAX_BYTES;
	*out = it;
	return OK;
}

void
audit_offline_free(struct audit_offline *it)
{
	if (it == NULL)
		return;
	buf_free(&it->notes);
	buf_free(&it->anchors);
	buf_free(&it->line);
	mem_free(it);
}

/* ---- checkpoints ---- */

static struct anchor *
anchor_at(const struct audit_offline *it, size_t i)
{
	return (struct anchor *)(void *)it->anchors.data + i;
}

static struct note *
note_at(const struct audit_offline *it, size_t i)
{
	return (struct note *)(void *)it->notes.data + i;
}

static int
by_place(const void *a, const void *b)
{
	const struct anchor *left = a, *right = b;

	if (left->lane != right->lane)
		return left->lane < right->lane ? -1 : 1;
	if (left->seq != right->seq)
		return left->seq < right->seq ? -1 : 1;
	return left->number < right->number ? -1 : left->number > right->number;
}

static int
by_number(const void *a, const void *b)
{
	const struct note *left = a, *right = b;

	return left->number < right->number ? -1 : left->number > right->number;
}

static enum status
contradict(int32_t lane, int64_t one, int64_t other, struct err *err)
{
	return err_set(err, ERR_CONFLICT, "checkpoints_contradict",
		"checkpoints %" PRId64 " and %" PRId64 " contradict each other (lane %d): the log was"
		" written anew between them", one, other, lane);
}

/* Of the same place only the first is kept, so memory follows what grew. */
static enum status
settle_anchors(struct audit_offline *it, struct err *err)
{
	size_t kept = 0;

	if (it->anchor_count > 0)
		qsort(it->anchors.data, it->anchor_count, sizeof(struct anchor), by_place);
	for (size_t i = 0; i < it->anchor_count; i++) {
		const struct anchor *next = anchor_at(it, i);
		const struct anchor *last = kept > 0 ? anchor_at(it, kept - 1) : NULL;

		if (last != NULL && last->lane == next->lane && last->seq == next->seq) {
			if (memcmp(last->head, next->head, 32) != 0)
				return contradict(last->lane, last->number, next->number, err);
			continue;
		}
		*anchor_at(it, kept++) = *next;
	}
	it->anchor_count = kept;
	it->anchors.len = kept * sizeof(struct anchor);
	return OK;
}

static enum status
keep_note(struct audit_offline *it, const struct ca_checkpoint *c, struct view text, struct err *err)
{
	struct note note = { .number = c->number, .at_s = c->at_s };

	memcpy(note.previous, c->previous, sizeof(note.previous));
	ca_checkpoint_text_sha256(note.text, text);
	TRY(buf_add(&it->notes, &note, sizeof(note), err));
	it->note_count++;
	for (size_t i = 0; i < c->lane_count; i++) {
		struct anchor anchor = { .lane = c->lanes[i].lane, .seq = c->lanes[i].seq,
			.number = c->number };

		memcpy(anchor.head, c->lanes[i].head, sizeof(anchor.head));
		TRY(buf_add(&it->anchors, &anchor, sizeof(anchor), err));
		it->anchor_count++;
	}
	return OK;
}

enum status
audit_offline_notes(struct audit_offline *it, const char *name, struct view content, struct err *err)
{
	struct ca_checkpoint *checkpoint = mem_zalloc(sizeof(*checkpoint));
	enum status status = checkpoint == NULL ? err_memory(err) : OK;
	size_t settled = it->anchor_count;
	struct view note;

	for (size_t i = 1; status == OK && ca_checkpoint_take(&content, &note); i++) {
		status = ca_checkpoint_open(checkpoint, note, it->public_key, err);
		if (status != OK)
			status = err_wrap(err, "%s, note %zu", name, i);
		else
			status = keep_note(it, checkpoint, note, err);
		if (status == OK && it->anchor_count > 2 * settled + 65536) {
			status = settle_anchors(it, err);
			settled = it->anchor_count;
		}
	}
	mem_free(checkpoint);
	if (status == ERR_TOO_LARGE)
		return err_set(err, ERR_ARGUMENT, "checkpoints_too_many",
			"%s: more checkpoints than can be held", name);
	return status;
}

/*
 * Each names the one before; where that is not here, nothing is said. Two of one number are one
 * text.
 * Times are those of several signers' clocks, and prove no order.
 */
static enum status
settle_notes(struct audit_offline *it, struct err *err)
{
	static const uint8_t none[32];

	if (it->note_count > 0)
		qsort(it->notes.data, it->note_count, sizeof(struct note), by_number);
	for (size_t i = 0; i < it->note_count; i++) {
		const struct note *note = note_at(it, i);
		const struct note *last = i > 0 ? note_at(it, i - 1) : NULL;

		it->report->checkpoints++;
		it->report->last_number = note->number;
		it->report->last_at_s = note->at_s;
		if (last != NULL && last->number == note->number) {
			if (memcmp(last->text, note->text, 32) != 0)
				return contradict(0, last->number, note->number, err);
			it->report->checkpoints--;
		} else if (memcmp(note->previous, last != NULL ? last->text : none, 32) != 0) {
			it->report->gaps++;
		}
	}
	return OK;
}

/* ---- the export ---- */

static void
found(struct audit_offline *it, int64_t seq, const char *why)
{
	it->lane_broken = true;
	it->report->broken++;
	it->found(it->arg, it->lane, seq, why, it->since_seq);
}

static enum status
malformed(const struct audit_offline *it, struct err *err)
{
	return err_set(err, ERR_ARGUMENT, "export_malformed",
		"export, line %" PRId64 ": a line of `jitrca audit export` wanted", it->line_number);
}

/* One line without its end; false: there is none. */
static enum status
read_line(struct audit_offline *it, FILE *export, bool *any, struct err *err)
{
	char piece[65536];

	it->line.len = 0;
	*any = false;
	while (fgets(piece, sizeof(piece), export) != NULL) {
		size_t len = strlen(piece);

		*any = true;
		TRY(buf_add(&it->line, piece, len, err));
		if (len > 0 && piece[len - 1] == '\n') {
			it->line.len--;
			break;
		}
	}
	it->line_number++;
	if (ferror(export))
		return err_set(err, ERR_UNAVAILABLE, "file_read", "export: cannot be read");
	return OK;
}

static bool
number_is(const json_t *object, const char *key, int64_t want)
{
	const json_t *value = json_object_get(object, key);

	return json_is_integer(value) && json_integer_value(value) == want;
}

/* What is wrong with it, or NULL. */
static const char *
check_items(const json_t *body, const json_t *items)
{
	const char *wanted = json_string_value(json_object_get(body, "items_root"));
	struct ca_merkle tree = { .depth = 0 };
	uint8_t root[32];
	char text[65];
	const json_t *item;
	size_t i;

	json_array_foreach(items, i, item)
	{
		if (!json_is_string(item))
			return "items_differ";
		ca_merkle_add(&tree, (struct view){ (const uint8_t *)json_string_value(item),
			json_string_length(item) });
	}
	ca_merkle_end(&tree, root);
	hex_encode(text, root, 32);
	if (wanted == NULL || strcmp(wanted, text) != 0 ||
		!number_is(body, "items", (int64_t)json_array_size(items)))
		return "items_differ";
	return NULL;
}

struct line {
	int64_t seq;
	struct view body;
	uint8_t hash[32];
	const json_t *items;
};

static const char *
check_record(struct audit_offline *it, const struct line *line)
{
	own(json_t) body = NULL;
	uint8_t want[32];

	ca_blake2b_parts(want, (const struct view[]){ { it->hash, 32 }, line->body }, 2);
	if (memcmp(want, line->hash, 32) != 0)
		return "hash_differs";
	body = json_loadb((const char *)line->body.data, line->body.len, 0, NULL);
	if (!number_is(body, "lane", it->lane) || !number_is(body, "seq", line->seq))
		return "columns_differ";
	return check_items(body, line->items);
}

/* Retention drops up to a checkpoint: the lane begins behind it, and its head is what comes before. */
static void
begin_behind(struct audit_offline *it, int64_t dropped)
{
	if (!it->dropped_ok) {
		found(it, 1, "dropped");
		return;
	}
	while (it->anchor < it->anchor_count && anchor_at(it, it->anchor)->lane == it->lane) {
		const struct anchor *anchor = anchor_at(it, it->anchor++);

		if (anchor->seq != dropped)
			continue;
		memcpy(it->hash, anchor->head, 32);
		it->seq = anchor->seq;
		it->since_seq = anchor->seq + 1;
		return;
	}
	found(it, 1, "record_missing"); /* no checkpoint stands there */
}

static void
take_record(struct audit_offline *it, const struct line *line)
{
	const char *why;

	it->report->records++;
	if (it->lane_broken) {
		/* It was not missing: it stands elsewhere. */
		if (it->missing != 0 && line->seq == it->missing)
			it->missing = -1;
		return;
	}
	if (line->seq > it->seq + 1) {
		it->missing = it->seq + 1;
		it->lane_broken = true; /* told of when it is known whether it comes later */
		return;
	}
	if (line->seq <= it->seq) {
		found(it, line->seq, "record_repeated");
		return;
	}
	why = check_record(it, line);
	if (why != NULL) {
		found(it, line->seq, why);
		return;
	}
	it->seq = line->seq;
	memcpy(it->hash, line->hash, 32);
	while (it->anchor < it->anchor_count && anchor_at(it, it->anchor)->lane == it->lane &&
		anchor_at(it, it->anchor)->seq == it->seq) {
		if (memcmp(anchor_at(it, it->anchor)->head, it->hash, 32) != 0) {
			found(it, it->seq, "checkpoint_differs");
			return;
		}
		it->since_seq = it->seq + 1;
		it->anchor++;
	}
}

static void
end_lane(struct audit_offline *it)
{
	if (!it->begun)
		return;
	if (it->missing != 0)
		found(it, it->seq + 1, it->missing < 0 ? "record_out_of_order" : "record_missing");
	else if (!it->lane_broken && it->anchor < it->anchor_count &&
		anchor_at(it, it->anchor)->lane == it->lane)
		found(it, it->seq + 1, "truncated");
	else if (!it->lane_broken)
		it->report->newer += it->seq + 1 - it->since_seq;
	while (it->anchor < it->anchor_count && anchor_at(it, it->anchor)->lane <= it->lane)
		it->anchor++;
	it->begun = false;
}

/* Lanes that checkpoints know, up to but without this one, and that the export does not have. */
static void
skip_lanes(struct audit_offline *it, int64_t lane)
{
	while (it->anchor < it->anchor_count && anchor_at(it, it->anchor)->lane < lane) {
		it->lane = anchor_at(it, it->anchor)->lane;
		it->since_seq = 1;
		found(it, 1, "truncated");
		while (it->anchor < it->anchor_count && anchor_at(it, it->anchor)->lane == it->lane)
			it->anchor++;
	}
}

static enum status
begin_lane(struct audit_offline *it, int64_t lane, struct err *err)
{
	if (it->begun && lane < it->lane)
		return err_set(err, ERR_ARGUMENT, "export_malformed",
			"export, line %" PRId64 ": lanes in their order wanted", it->line_number);
	end_lane(it);
	skip_lanes(it, lane);
	it->begun = true;
	it->lane = (int32_t)lane;
	it->seq = 0;
	memset(it->hash, 0, sizeof(it->hash));
	it->since_seq = 1;
	it->lane_broken = false;
	it->missing = 0;
	it->report->lanes++;
	return OK;
}

static enum status
take_line(struct audit_offline *it, const json_t *json, struct err *err)
{
	const json_t *dropped = json_object_get(json, "dropped");
	const json_t *body = json_object_get(json, "body");
	const json_t *hash = json_object_get(json, "hash");
	const json_t *lane = json_object_get(json, "lane");
	const json_t *seq = json_object_get(json, "seq");
	struct line line = { .items = json_object_get(json, "items") };

	if (!json_is_integer(lane) || json_integer_value(lane) < 0 ||
		json_integer_value(lane) > INT32_MAX)
		return malformed(it, err);
	if (json_is_integer(dropped)) {
		TRY(begin_lane(it, json_integer_value(lane), err));
		begin_behind(it, json_integer_value(dropped));
		return OK;
	}
	if (!json_is_string(body) || !json_is_string(hash) || !json_is_integer(seq) ||
		!json_is_array(line.items) ||
		json_array_size(line.items) > ITEMS_MAX || json_integer_value(seq) < 1 ||
		!hex_decode(line.hash, 32, json_string_value(hash), json_string_length(hash)))
		return malformed(it, err);
	line.seq = json_integer_value(seq);
	line.body = (struct view){ (const uint8_t *)json_string_value(body), json_string_length(body) };
	if (!it->begun || json_integer_value(lane) != it->lane)
		TRY(begin_lane(it, json_integer_value(lane), err));
	take_record(it, &line);
	return OK;
}

static enum status
walk(struct audit_offline *it, FILE *export, struct err *err)
{
	for (;;) { /* to the last line */
		own(json_t) json = NULL;
		bool any;

		TRY(read_line(it, export, &any, err));
		if (!any)
			return err_set(err, ERR_ARGUMENT, "export_incomplete",
				"export: its last line, {\"end\":true, …}, is not there");
		json = json_loadb((const char *)it->line.data, it->line.len, JSON_REJECT_DUPLICATES, NULL);
		if (!json_is_object(json))
			return malformed(it, err);
		if (json_is_true(json_object_get(json, "end")))
			return OK;
		TRY(take_line(it, json, err));
	}
}

enum status
audit_offline_run(struct audit_offline *it, FILE *export, bool dropped_ok,
	void (*tell)(void *arg, int64_t lane, int64_t seq, const char *why, int64_t since_seq), void *arg,
	struct audit_offline_report *report, struct err *err)
{
	*report = (struct audit_offline_report){ .records = 0 };
	it->report = report;
	it->found = tell;
	it->arg = arg;
	it->dropped_ok = dropped_ok;
	it->anchor = 0;
	it->begun = false;
	it->line_number = 0;
	TRY(settle_anchors(it, err));
	TRY(settle_notes(it, err));
	TRY(walk(it, export, err));
	end_lane(it);
	skip_lanes(it, INT64_MAX);
	return OK;
}

/* ---- a proof ---- */

static enum status
proof_malformed(const char *field, struct err *err)
{
	return err_set(err, ERR_ARGUMENT, "proof_malformed",
		"proof: %s: as GET /v1/audit/proof gives it wanted", field);
}

static enum status
proof_wrong(const char *what, struct err *err)
{
	return err_set(err, ERR_CONFLICT, "proof_wrong", "proof: %s", what);
}

static bool
get_text(const json_t *proof, const char *name, struct view *out)
{
	const json_t *value = json_object_get(proof, name);

	if (!json_is_string(value))
		return false;
	*out = (struct view){ (const uint8_t *)json_string_value(value), json_string_length(value) };
	return true;
}

/* Where the path of `leaf` leads; false: it is none. */
static bool
climb(const json_t *proof, const char *index_name, const char *count_name, const char *path_name,
	struct view leaf, uint8_t root[32], int64_t *count_out)
{
	const json_t *index = json_object_get(proof, index_name);
	const json_t *count = json_object_get(proof, count_name);
	const json_t *path = json_object_get(proof, path_name);
	uint8_t steps[CA_MERKLE_PATH_MAX][32];
	size_t len = json_array_size(path);

	if (!json_is_integer(index) || !json_is_integer(count) || !json_is_array(path) ||
		json_integer_value(index) < 0 || json_integer_value(count) < 1 || len > CA_MERKLE_PATH_MAX)
		return false;
	for (size_t i = 0; i < len; i++) {
		const json_t *step = json_array_get(path, i);

		if (!json_is_string(step) ||
			!hex_decode(steps[i], 32, json_string_value(step), json_string_length(step)))
			return false;
	}
	*count_out = json_integer_value(count);
	return ca_merkle_climb(root, leaf, (uint64_t)json_integer_value(index), (uint64_t)*count_out,
		(const uint8_t(*)[32])steps, len);
}

/* The item is about the certificate, and is one of the record's. */
static enum status
check_proof_item(const json_t *proof, const json_t *record, struct err *err)
{
	const char *id = json_string_value(json_object_get(proof, "certificate_id"));
	const char *wanted = json_string_value(json_object_get(record, "items_root"));
	own(json_t) item = NULL;
	const char *object;
	uint8_t root[32];
	char text[65];
	struct view body;
	int64_t count;

	if (id == NULL || !get_text(proof, "item", &body))
		return proof_malformed("certificate_id, item", err);
	if (!climb(proof, "item_index", "item_count", "item_path", body, root, &count))
		return proof_malformed("item_index, item_count, item_path", err);
	item = json_loadb((const char *)body.data, body.len, JSON_REJECT_DUPLICATES, NULL);
	object = json_string_value(json_object_get(item, "object"));
	if (object == NULL || strncmp(object, "certificate:", 12) != 0 || strcmp(object + 12, id) != 0)
		return proof_wrong("the item is about something else than the certificate", err);
	hex_encode(text, root, 32);
	if (wanted == NULL || strcmp(wanted, text) != 0 || !number_is(record, "items", count))
		return proof_wrong("the item is none of the record's", err);
	return OK;
}

enum status
audit_proof_check(const json_t *proof, const uint8_t public_key[32], json_t **record, int64_t *number,
	int64_t *at_s, struct err *err)
{
	own(json_t) body = NULL;
	struct ca_checkpoint checkpoint;
	struct view format, text, previous, note;
	uint8_t before[32], hash[32], root[32];
	int64_t count;

	if (!get_text(proof, "format", &format) || !view_equal_text(format, "jitrca audit proof v1"))
		return proof_malformed("format", err);
	if (!get_text(proof, "record", &text) || !get_text(proof, "previous", &previous) ||
		!hex_decode(before, 32, (const char *)previous.data, previous.len) ||
		!get_text(proof, "checkpoint", &note))
		return proof_malformed("record, previous, checkpoint", err);
	body = json_loadb((const char *)text.data, text.len, JSON_REJECT_DUPLICATES, NULL);
	if (!json_is_object(body))
		return proof_malformed("record", err);
	TRY(check_proof_item(proof, body, err));
	ca_blake2b_parts(hash, (const struct view[]){ { before, 32 }, text }, 2);
	if (!climb(proof, "index", "count", "path", (struct view){ hash, 32 }, root, &count))
		return proof_malformed("index, count, path", err);
	TRY(ca_checkpoint_open(&checkpoint, note, public_key, err));
	if (count != checkpoint.records || memcmp(root, checkpoint.root, 32) != 0)
		return proof_wrong("the record is none of the checkpoint's", err);
	*number = checkpoint.number;
	*at_s = checkpoint.at_s;
	*record = give(body);
	return OK;
}
