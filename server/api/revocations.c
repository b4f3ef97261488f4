#include "server/api/revocations.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/entropy.h"
#include "base/log.h"
#include "base/mem.h"
#include "db/outbox.h"
#include "db/revocation.h"
#include "server/api/api.h"
#include "server/api/receipt.h"
#include "server/api/receipt_follow.h"
#include "server/app.h"
#include "server/auth.h"
#include "server/http/fields.h"
#include "server/jobs/jobs.h"
#include "server/notify/event.h"
#include "server/selector.h"

#define COMMENT_MAX_BYTES 256
#define ID_OCTETS 16

/* RFC 5280 5.3.1, but for removeFromCRL: a hold is lifted one by one. */
static const char *const REASONS[] = { "unspecified", "keyCompromise", "cACompromise",
	"affiliationChanged", "superseded", "cessationOfOperation", "certificateHold",
	"privilegeWithdrawn", "aACompromise", NULL };

struct ask {
	struct selector selector;
	enum revocation_reason reason;
	const char *reason_name;
	const char *comment;
	bool dry_run;
	json_t *selector_json; /* borrowed from the body */
	struct db_blast_radius radius;
	struct db_outbox_takes takes;
	struct db_bulk bulk;
};
typedef struct ask ask_t;
OWNER(ask_t, mem_free)
typedef struct db_bulk db_bulk;
OWNER(db_bulk, mem_free)
typedef struct db_target db_target;
OWNER(db_target, mem_free)

static enum status
read_ask(struct ask *ask, const struct app *app, const json_t *body, struct err *err)
{
	static const char *const ALLOWED[] = { "selector", "reason", "comment", "dry_run", NULL };
	const json_t *selector;

	ask->comment = "";
	TRY(fields_check(body, ALLOWED, err));
	TRY(fields_object(body, "selector", FIELD_REQUIRED, &selector, err));
	TRY(selector_read(&ask->selector, app, selector, err));
	TRY(fields_choice(body, "reason", FIELD_REQUIRED, REASONS, &ask->reason_name, err));
	TRY(fields_text(body, "comment", FIELD_OPTIONAL, COMMENT_MAX_BYTES, &ask->comment, err));
	TRY(fields_bool(body, "dry_run", FIELD_OPTIONAL, &ask->dry_run, err));
	ask->selector_json = json_object_get(body, "selector");
	if (!revocation_reason_parse(&ask->reason, ask->reason_name))
		return err_set(err, ERR_INTERNAL, "reason_table", "a reason has no number");
	return OK;
}

static enum status
new_id(char id[REVOCATION_ID_BYTES], struct err *err)
{
	uint8_t octets[ID_OCTETS];

	TRY(entropy_fill(&ENTROPY_SYSTEM, octets, sizeof(octets), err));
	hex_encode(id, octets, sizeof(octets));
	return OK;
}

static enum status
fill_bulk(struct ask *ask, const struct app *app, const struct request *request, struct err *err)
{
	struct db_certificate_filter *filter = &ask->selector.selection.filter;
	struct db_bulk *bulk = &ask->bulk;
	size_t len;

	bulk->state = BULK_RUNNING;
	bulk->reason = ask->reason;
	bulk->created_at_s = clock_wall_s(app->clock);
	bulk->issued_until_s = bulk->created_at_s;
	/* What is issued after the yes is not part of what was shown. */
	if (filter->issued_before_s == 0 || filter->issued_before_s > bulk->issued_until_s + 1)
		filter->issued_before_s = bulk->issued_until_s + 1;
	TRY(new_id(bulk->revocation_id, err));
	(void)snprintf(bulk->actor, sizeof(bulk->actor), "%s", request_identity(request)->actor);
	(void)snprintf(bulk->request_id, sizeof(bulk->request_id), "%s", request_id(request));
	(void)snprintf(bulk->comment, sizeof(bulk->comment), "%s", ask->comment);
	/* What jansson writes has no NUL of its own. */
	len = json_dumpb(ask->selector_json, bulk->selector, sizeof(bulk->selector) - 1,
		JSON_COMPACT | JSON_SORT_KEYS);
	if (len == 0 || len >= sizeof(bulk->selector))
		return err_set(err, ERR_ARGUMENT, "selector_field", "selector: a shorter one wanted");
	bulk->selector[len] = '\0';
	return OK;
}

/* ---- asking ---- */

static enum status
reply_receipt(struct app *app, struct request *request, unsigned status, const char *id,
	struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	own(db_bulk) bulk = mem_zalloc(sizeof(*bulk));
	json_t *json = NULL;

	if (bulk == NULL)
		return err_memory(err);
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_bulk_find(&tx, id, bulk, err));
	TRY(receipt_render(&json, app, &tx, bulk, err));
	return request_reply_json(request, status, json, err);
}

static enum status
read_radius(struct app *app, struct ask *ask, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_selection_radius(&tx, &ask->selector.selection, &ask->radius, err));
	TRY(db_outbox_takes(&tx, 0, &ask->takes, err));
	return db_tx_commit(&tx, err);
}

/* By mistake: who names devices or a key, or says the word, knows. */
static enum status
check_everything(const struct ask *ask, struct err *err)
{
	if (!ask->radius.everything || ask->radius.devices < 2 || ask->selector.all || ask->selector.named)
		return OK;
	return err_set(err, ERR_ARGUMENT, "selector_everything",
		"selector: it means every device; \"all\": true wanted beside what it says already");
}

static enum status
raise_waiting(struct db_tx *tx, const struct db_bulk *bulk, struct err *err)
{
	struct db_event event = { .kind = "revocation_waiting", .severity = "medium" };

	TRY(notify_event_detail(&event, json_pack("{s:s, s:s, s:s, s:I}", "revocation",
		bulk->revocation_id, "reason", revocation_reason_name(bulk->reason), "actor",
		bulk->actor, "matched", (json_int_t)bulk->matched), err));
	return notify_event_raise(tx, &event, err);
}

/*
 * The decision: what the selector means now becomes the targets. Carrying it out is the jobs' affair, of
 * whichever server.
 */
static enum status
decide(struct app *app, struct request *request, struct ask *ask, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	struct db_bulk *bulk = &ask->bulk;
	own(json_t) detail = NULL;
	bool waits;

	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_bulk_freeze(&tx, bulk->revocation_id, &ask->selector.selection, &bulk->matched, err));
	waits = app->config.revocation_approval_over > 0 &&
		bulk->matched > app->config.revocation_approval_over;
	if (waits) {
		bulk->state = BULK_WAITING;
		bulk->decide_until_s = bulk->created_at_s + app->config.revocation_approval_within_s;
		TRY(raise_waiting(&tx, bulk, err));
	}
	TRY(db_bulk_create(&tx, bulk, err));
	detail = json_pack("{s:s, s:s, s:s, s:I}", "reason", revocation_reason_name(bulk->reason),
		"comment", bulk->comment, "selector", bulk->selector, "matched",
		(json_int_t)bulk->matched);
	if (detail == NULL)
		return err_memory(err);
	TRY(api_audit(app, &tx, request, waits ? "revocation.request" : "revocation.begin", "revocation",
		bulk->revocation_id, detail, err));
	TRY(db_tx_commit(&tx, err));
	if (!waits && app->jobs != NULL)
		jobs_wake(app->jobs, "jitrca_wake");
	return OK;
}

static enum status
create(struct app *app, struct request *request, struct err *err)
{
	own(ask_t) ask = mem_zalloc(sizeof(*ask));
	own(json_t) body = NULL;
	json_t *json = NULL;
	char location[64];

	if (ask == NULL)
		return err_memory(err);
	TRY(request_json(request, &body, err));
	TRY(read_ask(ask, app, body, err));
	TRY(fill_bulk(ask, app, request, err));
	TRY(read_radius(app, ask, err));
	if (ask->dry_run) {
		TRY(receipt_radius(&json, app, ask->selector_json, ask->reason, &ask->radius, &ask->takes,
			err));
		return request_reply_json(request, 200, json, err);
	}
	TRY(check_everything(ask, err));
	TRY(decide(app, request, ask, err));
	(void)snprintf(location, sizeof(location), "/v1/revocations/%s", ask->bulk.revocation_id);
	TRY(request_reply_header(request, "Location", location, err));
	return reply_receipt(app, request, 202, ask->bulk.revocation_id, err);
}

/* ---- a single one ---- */

enum status
revocations_note_single(struct db_tx *tx, const struct request *request,
	const struct db_certificate *row, enum revocation_reason reason, const char *comment,
	int64_t now_s, char id[REVOCATION_ID_BYTES], struct err *err)
{
	own(db_bulk) bulk = mem_zalloc(sizeof(*bulk));
	struct db_target target = { .ref = row->ref };
	char sha256[2 * DB_SHA256_BYTES + 1];

	if (bulk == NULL)
		return err_memory(err);
	TRY(new_id(id, err));
	bulk->state = BULK_DONE;
	bulk->reason = reason;
	bulk->matched = 1;
	bulk->issued_until_s = now_s;
	hex_encode(sha256, row->sha256, DB_SHA256_BYTES);
	(void)snprintf(bulk->revocation_id, sizeof(bulk->revocation_id), "%s", id);
	(void)snprintf(bulk->actor, sizeof(bulk->actor), "%s", request_identity(request)->actor);
	(void)snprintf(bulk->request_id, sizeof(bulk->request_id), "%s", request_id(request));
	(void)snprintf(bulk->comment, sizeof(bulk->comment), "%s", comment);
	(void)snprintf(bulk->selector, sizeof(bulk->selector), "{\"certificate_id\":\"%s\"}", sha256);
	(void)snprintf(target.outcome, sizeof(target.outcome), "%s",
		reason == REASON_CERTIFICATE_HOLD ? "held" : "revoked");
	TRY(db_bulk_create(tx, bulk, err));
	return db_targets_done(tx, id, &target, 1, err);
}

/* ---- looking ---- */

static enum status
path_id(const struct request *request, const char **id, struct err *err)
{
	uint8_t octets[ID_OCTETS];

	*id = request_param(request, "id");
	if (!hex_decode(octets, sizeof(octets), *id, strlen(*id)))
		return err_set(err, ERR_NOT_FOUND, "revocation_unknown",
			"there is no revocation of that id");
	return OK;
}

static enum status
show(struct app *app, struct request *request, struct err *err)
{
	const char *id;

	TRY(path_id(request, &id, err));
	return receipt_follow_reply(app, request, id, err);
}

/* A place in the list: "<created_at_us>:<id>"; 0 and "" for none. */
static enum status
read_place(const struct request *request, int64_t *at_us, char id[REVOCATION_ID_BYTES], struct err *err)
{
	char text[32 + REVOCATION_ID_BYTES];
	char *end;

	*at_us = 0;
	id[0] = '\0';
	TRY(query_cursor_text(request, "revocations", text, sizeof(text), err));
	if (text[0] == '\0')
		return OK;
	*at_us = strtoll(text, &end, 10);
	if (*end != ':' || strlen(end + 1) != REVOCATION_ID_BYTES - 1)
		return err_set(err, ERR_ARGUMENT, "cursor_malformed", "cursor: that of this list wanted");
	memcpy(id, end + 1, REVOCATION_ID_BYTES);
	return OK;
}

/* A row has room for its selector, which is not read here: pages are small. */
#define LIST_PAGE_MAX 50

static enum status
list(struct app *app, struct request *request, struct err *err)
{
	static const char *const STATES[] = { "waiting", "running", "done", "rejected", "expired", NULL };
	own_struct(db_tx) tx = { NULL, NULL };
	own(db_bulk) rows = mem_array(LIST_PAGE_MAX, sizeof(*rows));
	own(json_t) items = json_array();
	enum bulk_state state = BULK_UNSET;
	const char *state_name = NULL;
	char before_id[REVOCATION_ID_BYTES], place[32 + REVOCATION_ID_BYTES];
	int64_t before_us, last_us = 0;
	size_t limit, count;

	if (rows == NULL || items == NULL)
		return err_memory(err);
	TRY(query_limit(request, &limit, err));
	TRY(query_choice(request, "state", STATES, &state_name, err));
	TRY(read_place(request, &before_us, before_id, err));
	if (state_name != NULL && !bulk_state_parse(&state, state_name))
		return err_set(err, ERR_INTERNAL, "revocation_state", "a state has no number");
	if (limit > LIST_PAGE_MAX)
		limit = LIST_PAGE_MAX;
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_bulk_list(&tx, state, before_us, before_id, limit, rows, &last_us, &count, err));
	TRY(db_tx_commit(&tx, err));
	for (size_t i = 0; i < count; i++) {
		json_t *item = NULL;

		TRY(receipt_line(&item, &rows[i], err));
		TRY(api_append(items, item, err));
	}
	if (count == limit)
		(void)snprintf(place, sizeof(place), "%" PRId64 ":%s", last_us,
			rows[count - 1].revocation_id);
	return api_reply_page(request, "revocations", give(items), "revocations",
		count == limit ? place : NULL, err);
}

/* Of one receipt: "<issuer>:<serial>". */
static enum status
read_target_place(const struct request *request, struct db_cert_ref *out, struct err *err)
{
	char text[16 + SERIAL_TEXT_BYTES];
	char *end;
	int64_t issuer;

	*out = (struct db_cert_ref){ .issuer_id = 0 };
	TRY(query_cursor_text(request, "revocation", text, sizeof(text), err));
	if (text[0] == '\0')
		return OK;
	issuer = strtoll(text, &end, 10);
	if (*end != ':' || issuer <= 0 || issuer > INT32_MAX ||
	    !serial_parse(&out->serial, end + 1, strlen(end + 1)))
		return err_set(err, ERR_ARGUMENT, "cursor_malformed", "cursor: that of this list wanted");
	out->issuer_id = (int32_t)issuer;
	return OK;
}

static enum status
show_certificates(struct app *app, struct request *request, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	own(db_bulk) bulk = mem_zalloc(sizeof(*bulk));
	own(db_target) rows = NULL;
	own(json_t) items = json_array();
	char place[16 + SERIAL_TEXT_BYTES], serial[SERIAL_TEXT_BYTES];
	struct db_cert_ref after;
	const char *id;
	size_t limit, count;

	TRY(path_id(request, &id, err));
	TRY(query_limit(request, &limit, err));
	TRY(read_target_place(request, &after, err));
	rows = mem_array(limit, sizeof(*rows));
	if (bulk == NULL || rows == NULL || items == NULL)
		return err_memory(err);
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_bulk_find(&tx, id, bulk, err));
	TRY(db_targets(&tx, id, &after, false, limit, rows, &count, err));
	TRY(db_tx_commit(&tx, err));
	for (size_t i = 0; i < count; i++) {
		json_t *item = NULL;

		TRY(receipt_target(&item, app, &rows[i], err));
		TRY(api_append(items, item, err));
	}
	if (count == limit) {
		serial_format(serial, &rows[count - 1].ref.serial);
		(void)snprintf(place, sizeof(place), "%" PRId32 ":%s", rows[count - 1].ref.issuer_id,
			serial);
	}
	return api_reply_page(request, "certificates", give(items), "revocation",
		count == limit ? place : NULL, err);
}

/* ---- a second one's word ---- */

static enum status
decide_waiting(struct app *app, struct request *request, enum bulk_state state, struct err *err)
{
	static const char *const ALLOWED[] = { "comment", NULL };
	own_struct(db_tx) tx = { NULL, NULL };
	own(json_t) body = NULL;
	own(json_t) detail = NULL;
	const char *comment = "";
	const char *id;
	bool changed;

	TRY(path_id(request, &id, err));
	TRY(api_json_or_empty(request, &body, err));
	TRY(fields_check(body, ALLOWED, err));
	TRY(fields_text(body, "comment", FIELD_OPTIONAL, COMMENT_MAX_BYTES, &comment, err));
	detail = json_pack("{s:s}", "comment", comment);
	if (detail == NULL)
		return err_memory(err);
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_bulk_decide(&tx, id, state, request_identity(request)->actor, comment, &changed, err));
	if (changed)
		TRY(api_audit(app, &tx, request,
			state == BULK_RUNNING ? "revocation.approve" : "revocation.reject", "revocation",
			id, detail, err));
	TRY(db_tx_commit(&tx, err));
	if (state == BULK_RUNNING && app->jobs != NULL)
		jobs_wake(app->jobs, "jitrca_wake");
	return reply_receipt(app, request, 200, id, err);
}

static enum status
approve(struct app *app, struct request *request, struct err *err)
{
	return decide_waiting(app, request, BULK_RUNNING, err);
}

static enum status
reject(struct app *app, struct request *request, struct err *err)
{
	return decide_waiting(app, request, BULK_REJECTED, err);
}

static const char *const LIST_QUERY[] = { "state", "limit", "cursor", NULL };
static const char *const PAGE_QUERY[] = { "limit", "cursor", NULL };

const struct route REVOCATION_ROUTES[] = {
	{ .method = "POST", .path = "/v1/revocations", .handle = create, .roles = ROLE_ADMIN,
	  .body_max_bytes = 80 * 1024 },
	{ .method = "GET", .path = "/v1/revocations", .handle = list, .roles = ROLES_READ,
	  .query = LIST_QUERY },
	{ .method = "GET", .path = "/v1/revocations/{id}", .handle = show, .roles = ROLES_READ },
	{ .method = "GET", .path = "/v1/revocations/{id}/certificates", .handle = show_certificates,
	  .roles = ROLES_READ, .query = PAGE_QUERY },
	{ .method = "POST", .path = "/v1/revocations/{id}/approve", .handle = approve,
	  .roles = ROLE_ADMIN, .body_max_bytes = 4096 },
	{ .method = "POST", .path = "/v1/revocations/{id}/reject", .handle = reject,
	  .roles = ROLE_ADMIN, .body_max_bytes = 4096 },
	{ .method = NULL },
};
