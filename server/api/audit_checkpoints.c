/* Signed checkpoints of the audit log, its export, and proofs: server/audit_checkpoint.h. */
#include "server/audit_checkpoint.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "ca/checkpoint.h"
#include "server/api/api.h"
#include "server/api/render.h"
#include "server/app.h"
#include "server/http/fields.h"

#define ACTION_MAX_BYTES 64

static json_t *
render_note(const struct db_note *note)
{
	return json_pack("{s:I, s:o, s:I, s:s%}", "number", (json_int_t)note->number, "at",
		render_time(note->at_s), "records", (json_int_t)note->records, "note",
		(const char *)note->note.data, note->note.len);
}

/* ---- checkpoints ---- */

struct notes {
	struct db_note rows[QUERY_LIMIT_MAX + 1];
	size_t count;
};
typedef struct notes notes;

static void
notes_free(struct notes *page)
{
	if (page == NULL)
		return;
	for (size_t i = 0; i < page->count; i++)
		db_note_free(&page->rows[i]);
	mem_free(page);
}
OWNER(notes, notes_free)

static enum status
read_after(const struct request *request, int64_t *after, struct err *err)
{
	bool found;

	*after = 0;
	TRY(query_cursor_exact(request, "checkpoints", after, sizeof(*after), &found, err));
	if (*after < 0)
		return err_set(err, ERR_ARGUMENT, "cursor_malformed", "cursor: one of ours wanted");
	return OK;
}

static enum status
list(struct app *app, struct request *request, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	own(notes) page = mem_zalloc(sizeof(*page));
	own(json_t) items = json_array();
	own(json_t) answer = json_object();
	char cursor[CURSOR_TEXT_BYTES];
	int64_t after;
	size_t limit;
	size_t shown;

	if (page == NULL || items == NULL || answer == NULL)
		return err_memory(err);
	TRY(query_limit(request, &limit, err));
	TRY(read_after(request, &after, err));
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_note_page(&tx, after, limit + 1, page->rows, &page->count, err));
	TRY(db_tx_commit(&tx, err));
	shown = page->count < limit ? page->count : limit;
	for (size_t i = 0; i < shown; i++)
		TRY(api_append(items, render_note(&page->rows[i]), err));
	if (page->count > limit)
		cursor_encode(cursor, "checkpoints", &page->rows[limit - 1].number, sizeof(int64_t));
	TRY(api_set(answer, "checkpoints", give(items), err));
	TRY(api_set(answer, "next_cursor", page->count > limit ? json_string(cursor) : json_null(), err));
	return request_reply_json(request, 200, give(answer), err);
}

static enum status
take(struct app *app, struct request *request, struct err *err)
{
	own_struct(db_note) note = { .number = 0 };
	json_t *json;
	bool full = true;
	bool made = false;

	TRY(api_no_fields(request, err));
	while (full && !app->stopping) { /* one that is full left something behind */
		bool again = false;

		db_note_free(&note);
		TRY(audit_checkpoint_take(app, false, &note, &again, err));
		full = again && note.records == AUDIT_CHECKPOINT_RECORDS_MAX;
		made = made || again;
	}
	if (note.number == 0)
		return err_set(err, ERR_CONFLICT, "audit_empty", "the audit log has no record yet");
	json = render_note(&note);
	if (json == NULL)
		return err_memory(err);
	return request_reply_json(request, made ? 201 : 200, json, err);
}

static enum status
key(struct app *app, struct request *request, struct err *err)
{
	own_struct(buf) pem = { .limit_bytes = 1024 };

	if (!app->has_checkpoint_key)
		return err_set(err, ERR_NOT_FOUND, "checkpoint_key_absent",
			"the key store has no key for checkpoints; `jitrca init` makes one");
	TRY(ca_checkpoint_key_to_pem(app->checkpoint_key, &pem, err));
	return request_reply_bytes(request, 200, "application/x-pem-file", buf_view(&pem), err);
}

/* ---- files ---- */

typedef struct spool spool_owner;

static void
spool_free(struct spool *spool)
{
	if (spool != NULL)
		spool_close(spool);
	mem_free(spool);
}
OWNER(spool_owner, spool_free)

static enum status
reply_file(struct app *app, struct request *request, const char *content_type,
	enum status (*write)(struct app *app, struct spool *out, struct err *err), struct err *err)
{
	own(spool_owner) spool = mem_zalloc(sizeof(*spool));
	int fd;

	if (spool == NULL)
		return err_memory(err);
	TRY(spool_open(spool, err));
	TRY(write(app, spool, err));
	TRY(spool_finish(spool, &fd, err));
	return request_reply_fd(request, 200, content_type, fd, spool->size_bytes, err);
}

static enum status
export_records(struct app *app, struct request *request, struct err *err)
{
	return reply_file(app, request, "application/x-ndjson", audit_export, err);
}

static enum status
export_notes(struct app *app, struct request *request, struct err *err)
{
	return reply_file(app, request, "text/plain; charset=utf-8", audit_export_notes, err);
}

/* ---- proofs ---- */

static enum status
prove(struct app *app, struct request *request, struct err *err)
{
	const char *id = request_query(request, "certificate_id");
	const char *action = request_query(request, "action");
	uint8_t octets[DB_SHA256_BYTES];
	char lower[2 * DB_SHA256_BYTES + 1];
	json_t *proof;

	if (id == NULL)
		return err_set(err, ERR_ARGUMENT, "field_missing", "certificate_id: a value wanted");
	if (!hex_decode(octets, sizeof(octets), id, strlen(id)))
		return err_set(err, ERR_ARGUMENT, "certificate_id_malformed",
			"certificate_id: 64 hex digits wanted");
	if (action != NULL && strlen(action) > ACTION_MAX_BYTES)
		return err_set(err, ERR_ARGUMENT, "field_too_long", "action: at most %d octets wanted",
			ACTION_MAX_BYTES);
	hex_encode(lower, octets, sizeof(octets));
	TRY(audit_prove(app, lower, action, &proof, err));
	return request_reply_json(request, 200, proof, err);
}

static const char *const LIST_QUERY[] = { "limit", "cursor", NULL };
static const char *const PROOF_QUERY[] = { "certificate_id", "action", NULL };

#define WHO (ROLE_AUDITOR | ROLE_ADMIN)

const struct route AUDIT_CHECKPOINT_ROUTES[] = {
	{ .method = "GET", .path = "/v1/audit/checkpoints", .handle = list, .roles = WHO,
	  .query = LIST_QUERY },
	{ .method = "POST", .path = "/v1/audit/checkpoints", .handle = take, .roles = WHO,
	  .body_max_bytes = 1024 },
	{ .method = "GET", .path = "/v1/audit/checkpoints/notes", .handle = export_notes, .roles = WHO },
	{ .method = "GET", .path = "/v1/audit/export", .handle = export_records, .roles = WHO },
	{ .method = "GET", .path = "/v1/audit/proof", .handle = prove, .roles = WHO,
	  .query = PROOF_QUERY },
	/* Public as a CA's certificate is: who verifies wants it from more than one place. */
	{ .method = "GET", .path = "/v1/audit/key", .handle = key, .roles = ROLE_ANYONE },
	{ .method = NULL },
};
