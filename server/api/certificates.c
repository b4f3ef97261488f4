/* server/api/certificates.c - /v1/certificates: issue one or many, search, one with its history, revoke. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "db/revocation.h"
#include "server/api/api.h"
#include "server/api/issue.h"
#include "server/api/render.h"
#include "server/api/request_fields.h"
#include "server/api/revocations.h"
#include "server/app.h"
#include "server/audit.h"
#include "server/auth.h"
#include "server/http/fields.h"
#include "server/http/problem.h"
#include "server/iot/room.h"
#include "server/metrics.h"

#define BATCH_MAX 1000
/* "/999" has to fit behind the key of a batch. */
#define BATCH_KEY_MAX (IDEMPOTENCY_KEY_MAX - 4)
#define CSR_PEM_MAX_BYTES (16 * 1024)
#define COMMENT_MAX_BYTES 256
/* Below what overflows; what is too long is for the profile to say. */
#define VALIDITY_HOURS_MAX 10000000

/* ---- issue ---- */

static const char *const CREATE_FIELDS[] = { "csr", "device_id", "profile", "thing_type",
	"attributes", "validity_hours", "replace", NULL };
static const char *const BATCH_ITEM_FIELDS[] = { "csr", "device_id", "profile", "thing_type",
	"attributes", "validity_hours", "replace", "idempotency_key", NULL };
static const char *const BATCH_FIELDS[] = { "requests", NULL };

static enum status
read_profile(const struct ca_profile **out, const struct app *app, enum ca_asker asker,
	const json_t *object, struct err *err)
{
	const char *name = "device";

	TRY(fields_string(object, "profile", FIELD_OPTIONAL, sizeof((*out)->name) - 1, &name, err));
	*out = app_profile(app, name);
	if (*out == NULL)
		return err_set(err, ERR_ARGUMENT, "profile_unknown", "profile: no such profile");
	/* Whether it is in a station's scope is for Admit. */
	if (((*out)->issuable_by & asker) == 0)
		return err_set(err, ERR_DENIED, "profile_not_allowed",
			"profile: %s is not for you to ask for", (*out)->name);
	return OK;
}

static enum status
check_key(const char *key, size_t max, struct err *err)
{
	size_t len = strlen(key);
	bool good = len > 0 && len <= max;

	for (size_t i = 0; i < len && good; i++)
		good = key[i] >= 0x20 && key[i] < 0x7f;
	if (!good)
		return err_set(err, ERR_ARGUMENT, "idempotency_key_malformed",
			"Idempotency-Key: 1 to %zu printable ASCII characters wanted", max);
	return OK;
}

/* A key that was checked, so it fits. */
static void
set_key(struct issue_ask *ask, const char *key)
{
	memcpy(ask->key, key, strlen(key) + 1);
	ask->item.idempotency_key = ask->key;
}

static enum status
read_ask(struct issue_ask *ask, struct app *app, const struct request *request,
	const json_t *object, struct err *err)
{
	const struct identity *identity = request_identity(request);
	struct issuance_item *item = &ask->item;
	const char *device_id = NULL;
	int64_t hours = 0;

	TRY(fields_text(object, "csr", FIELD_REQUIRED, CSR_PEM_MAX_BYTES, &ask->pem, err));
	TRY(fields_id(object, "device_id", FIELD_REQUIRED, &device_id, err));
	item->asker = identity->role == ROLE_STATION ? ASKER_STATION : ASKER_ADMIN;
	TRY(read_profile(&item->profile, app, item->asker, object, err));
	TRY(read_thing_type(&item->request, object, err));
	TRY(read_attributes(&item->request, item->attributes_json, sizeof(item->attributes_json),
		object, err));
	TRY(fields_int(object, "validity_hours", FIELD_OPTIONAL, 1, VALIDITY_HOURS_MAX, &hours, err));
	TRY(fields_bool(object, "replace", FIELD_OPTIONAL, &item->replace, err));

	(void)snprintf(item->request.device_id, sizeof(item->request.device_id), "%s", device_id);
	if (item->request.thing_type[0] == '\0')
		(void)snprintf(item->request.thing_type, sizeof(item->request.thing_type), "%s",
			item->profile->thing_type);
	item->validity_s = hours * 3600;
	item->actor = identity->actor;
	item->request_id = request_id(request);
	item->slot = item->profile->one_live ? SLOT_CURRENT : SLOT_MANY;
	return OK;
}

/* What the answer to one certificate takes at most; and to a thousand, with problems among them. */
#define ANSWER_MAX_BYTES ((size_t)256 << 10)
#define ANSWERS_MAX_BYTES ((size_t)32 << 20)
/* What it takes as a rule: a certificate, its chain and the rest. */
#define ANSWER_BYTES 3072

static enum status
render_issued(struct buf *out, struct app *app, const struct issuance_item *item, struct err *err)
{
	return render_certificate_text(out, app, &item->certificate, clock_wall_s(app->clock),
		item->clamped, err);
}

static enum status
reply_text(struct request *request, unsigned status, struct buf *text, struct err *err)
{
	own_struct(bytes) body = buf_give(text);

	return request_reply_owned(request, status, "application/json", &body, err);
}

static enum status
reply_one(struct app *app, struct request *request, struct issue_ask *asks, size_t count,
	struct err *err)
{
	const struct issuance_item *item = &asks[0].item;
	own_struct(buf) text = { .limit_bytes = ANSWER_MAX_BYTES };

	(void)count;
	if (item->status != OK) {
		*err = item->err;
		return item->status;
	}
	TRY(buf_reserve(&text, ANSWER_BYTES, err));
	TRY(render_issued(&text, app, item, err));
	return reply_text(request, item->replayed ? 200 : 201, &text, err);
}

static enum status
certificates_create(struct app *app, struct request *request, struct err *err)
{
	const char *key = request_header(request, "Idempotency-Key");
	own(issue_job) job = NULL;
	json_t *body = NULL;
	struct issue_ask *ask;

	TRY(request_json(request, &body, err));
	TRY(issue_job_new(&job, app, request, body, 1, reply_one, err));
	ask = issue_job_asks(job);
	TRY(fields_check(body, CREATE_FIELDS, err));
	if (key != NULL) {
		TRY(check_key(key, IDEMPOTENCY_KEY_MAX, err));
		set_key(ask, key);
	}
	TRY(read_ask(ask, app, request, body, err));
	return issue_job_run_one(give(job), err);
}

/* ---- batch ---- */

static enum status
read_batch_item(struct issue_ask *ask, struct app *app, const struct request *request,
	const json_t *object, struct err *err)
{
	const char *key = NULL;

	if (!json_is_object(object))
		return err_set(err, ERR_ARGUMENT, "json_not_object", "requests: objects wanted");
	TRY(fields_check(object, BATCH_ITEM_FIELDS, err));
	TRY(fields_string(object, "idempotency_key", FIELD_OPTIONAL, IDEMPOTENCY_KEY_MAX, &key, err));
	if (key != NULL) {
		TRY(check_key(key, IDEMPOTENCY_KEY_MAX, err));
		set_key(ask, key);
	}
	return read_ask(ask, app, request, object, err);
}

static enum status
render_refused(struct buf *out, const struct request *request, const struct issuance_item *item,
	struct err *err)
{
	own(json_t) problem = problem_json(&item->err, request_id(request));

	if (problem == NULL)
		return err_memory(err);
	TRY(buf_format(out, err, "{\"status\":%lld,\"problem\":",
		(long long)json_integer_value(json_object_get(problem, "status"))));
	TRY(request_json_text(out, problem, err));
	return buf_text(out, "}", err);
}

static enum status
render_result(struct buf *out, struct app *app, const struct request *request,
	const struct issuance_item *item, struct err *err)
{
	if (item->status != OK)
		return render_refused(out, request, item, err);
	TRY(buf_text(out, item->replayed ? "{\"status\":200,\"certificate\":" :
		"{\"status\":201,\"certificate\":", err));
	TRY(render_issued(out, app, item, err));
	return buf_text(out, "}", err);
}

static enum status
reply_batch(struct app *app, struct request *request, struct issue_ask *asks, size_t count,
	struct err *err)
{
	own_struct(buf) text = { .limit_bytes = ANSWERS_MAX_BYTES };

	TRY(buf_reserve(&text, 64 + count * ANSWER_BYTES, err));
	TRY(buf_text(&text, "{\"results\":[", err));
	for (size_t i = 0; i < count; i++) {
		if (i > 0)
			TRY(buf_text(&text, ",", err));
		TRY(render_result(&text, app, request, &asks[i].item, err));
	}
	TRY(buf_text(&text, "]}", err));
	return reply_text(request, 200, &text, err);
}

/* ERR_TOO_LARGE rather than ERR_ARGUMENT: the station may send it in two. */
static enum status
batch_requests(const json_t **out, const json_t *body, struct err *err)
{
	const json_t *requests = json_object_get(body, "requests");

	TRY(fields_check(body, BATCH_FIELDS, err));
	if (json_is_array(requests) && json_array_size(requests) > BATCH_MAX)
		return err_set(err, ERR_TOO_LARGE, "batch_too_large",
			"requests: at most %d wanted, %zu found", BATCH_MAX, json_array_size(requests));
	TRY(fields_array(body, "requests", FIELD_REQUIRED, BATCH_MAX, out, err));
	if (json_array_size(*out) == 0)
		return err_set(err, ERR_ARGUMENT, "batch_empty", "requests: at least one wanted");
	return OK;
}

static enum status
certificates_batch(struct app *app, struct request *request, struct err *err)
{
	const char *key = request_header(request, "Idempotency-Key");
	const json_t *requests = NULL;
	own(json_t) body = NULL;
	own(issue_job) job = NULL;
	struct issue_ask *asks;
	size_t count;

	TRY(request_json(request, &body, err));
	TRY(batch_requests(&requests, body, err));
	if (key != NULL)
		TRY(check_key(key, BATCH_KEY_MAX, err));
	count = json_array_size(requests);
	TRY(issue_job_new(&job, app, request, give(body), count, reply_batch, err));
	asks = issue_job_asks(job);
	for (size_t i = 0; i < count; i++) {
		struct err refusal;

		if (key != NULL) {
			(void)snprintf(asks[i].key, sizeof(asks[i].key), "%s/%zu", key, i);
			asks[i].item.idempotency_key = asks[i].key;
		}
		if (read_batch_item(&asks[i], app, request, json_array_get(requests, i),
		    &refusal) != OK)
			issue_ask_refuse(&asks[i], &refusal);
	}
	return issue_job_run(give(job), err);
}

/* ---- search ---- */

static const char *const SEARCH_QUERY[] = { "device_id", "station", "manifest", "profile", "ca",
	"status", "issued_after", "issued_before", "expires_after", "expires_before", "limit", "cursor",
	NULL };
static const char *const STATUS_CHOICES[] = { "active", "pending_confirmation", "superseded", "held",
	"revoked", "expired", NULL };

static enum status
read_filter(struct db_certificate_filter *out, struct app *app, const struct request *request,
	struct err *err)
{
	const struct identity *identity = request_identity(request);
	const char *ca_id = NULL;
	const char *status = NULL;

	*out = (struct db_certificate_filter){ .now_s = clock_wall_s(app->clock) };
	TRY(query_id(request, "device_id", &out->device_id, err));
	TRY(query_id(request, "station", &out->principal_id, err));
	TRY(query_id(request, "manifest", &out->manifest_id, err));
	TRY(query_id(request, "profile", &out->profile, err));
	TRY(query_id(request, "ca", &ca_id, err));
	TRY(query_choice(request, "status", STATUS_CHOICES, &status, err));
	TRY(query_time(request, "issued_after", &out->issued_after_s, err));
	TRY(query_time(request, "issued_before", &out->issued_before_s, err));
	TRY(query_time(request, "expires_after", &out->expires_after_s, err));
	TRY(query_time(request, "expires_before", &out->expires_before_s, err));
	if (status != NULL && !cert_status_parse(&out->status, status))
		return err_set(err, ERR_INTERNAL, "status_table", "a status has no number");
	if (ca_id != NULL) {
		const struct app_ca *ca = app_ca_by_id(app, ca_id);

		if (ca == NULL)
			return err_set(err, ERR_ARGUMENT, "ca_unknown", "ca: no such CA");
		out->issuer_id = ca->issuer_id;
	}
	/* A station sees what it asked for itself. */
	if (identity->role == ROLE_STATION) {
		if (out->principal_id != NULL && strcmp(out->principal_id, identity->actor) != 0)
			return err_set(err, ERR_DENIED, "role_not_allowed",
				"station: a station sees its own certificates only");
		out->principal_id = identity->actor;
	}
	return OK;
}

struct rows {
	struct db_certificate *at;
	size_t count;
};

static void
rows_free(struct rows *rows)
{
	for (size_t i = 0; i < rows->count; i++)
		db_certificate_free(&rows->at[i]);
	rows->count = 0;
	mem_free(give(rows->at));
}
OWNER_STRUCT(rows, rows_free)

static enum status
certificates_search(struct app *app, struct request *request, struct err *err)
{
	own_struct(rows) rows = { NULL, 0 };
	own(json_t) list = json_array();
	struct db_certificate_filter filter;
	struct db_certificate_cursor place;
	struct db_certificate_cursor next = { .set = false };
	char next_text[64];
	size_t limit;

	TRY(query_limit(request, &limit, err));
	TRY(api_query_place(request, "certificates", &place, err));
	TRY(read_filter(&filter, app, request, err));
	rows.at = mem_array(limit, sizeof(*rows.at));
	if (rows.at == NULL || list == NULL)
		return err_memory(err);
	{
		/* The connection is not held while the page is rendered. */
		own_struct(db_tx) tx = { NULL, NULL };

		TRY(db_tx_begin(&tx, app->pool, err));
		TRY(db_certificate_search(&tx, &filter, &place, limit, rows.at, &rows.count, &next,
			err));
	}
	for (size_t i = 0; i < rows.count; i++) {
		json_t *json;

		TRY(render_certificate(&json, app, &rows.at[i], filter.now_s, err));
		TRY(api_append(list, json, err));
	}
	api_format_place(next_text, sizeof(next_text), &next);
	return api_reply_page(request, "certificates", give(list), "certificates",
		next.set ? next_text : NULL, err);
}

/* ---- one ---- */

/* By certificate_id or by serial. */
static enum status
find_certificate(struct db_tx *tx, const struct request *request, struct db_certificate *out,
	struct err *err)
{
	const char *id = request_param(request, "id");
	uint8_t sha256[DB_SHA256_BYTES];
	struct serial serial;

	if (hex_decode(sha256, sizeof(sha256), id, strlen(id)))
		return db_certificate_by_sha256(tx, sha256, out, err);
	if (serial_parse(&serial, id, strlen(id)))
		return db_certificate_by_serial(tx, &serial, out, err);
	return err_set(err, ERR_ARGUMENT, "certificate_id_malformed",
		"id: 64 hex digits of a certificate_id or 32 of a serial wanted");
}

#define OBJECT_BYTES (sizeof("certificate:") + 2 * DB_SHA256_BYTES)

static void
object_of(char out[OBJECT_BYTES], const struct db_certificate *certificate)
{
	char id[2 * DB_SHA256_BYTES + 1];

	hex_encode(id, certificate->sha256, DB_SHA256_BYTES);
	(void)snprintf(out, OBJECT_BYTES, "certificate:%s", id);
}

/* Revoked, held, lifted, confirmed: few lines, even for the oldest. */
#define HISTORY_MAX 100

struct history {
	struct db_audit_record records[HISTORY_MAX];
	size_t count;
	const char *object;
	const struct db_audit_record *record; /* whose items are read */
	json_t *list;                         /* borrowed */
};
typedef struct history history;

static void
history_free(history *h)
{
	if (h == NULL)
		return;
	for (size_t i = 0; i < h->count; i++)
		db_audit_record_free(&h->records[i]);
	mem_free(h);
}
OWNER(history, history_free)

/* That of the whole record, if it was written for one request. */
static enum status
add_request_id(json_t *event, const struct db_audit_record *record, struct err *err)
{
	own(json_t) body = json_loadb((const char *)record->body.data, record->body.len, 0, NULL);
	json_t *found = json_object_get(body, "request_id");

	return json_is_string(found) ? api_set(event, "request_id", json_incref(found), err) : OK;
}

static enum status
add_event(void *arg, const char *object, struct view body, struct err *err)
{
	struct history *h = arg;
	own(json_t) event = NULL;

	if (strcmp(object, h->object) != 0)
		return OK;
	event = json_loadb((const char *)body.data, body.len, 0, NULL);
	if (event == NULL)
		return err_set(err, ERR_INTERNAL, "audit_item", "an audit item is not JSON");
	(void)json_object_del(event, "object");
	TRY(api_set(event, "at", render_time(h->record->at_s), err));
	TRY(api_set(event, "action", json_string(h->record->action), err));
	/* Records of rotations are shared by many devices: there the item knows better. */
	if (json_object_get(event, "actor") == NULL)
		TRY(api_set(event, "actor", json_string(h->record->actor), err));
	if (json_object_get(event, "request_id") == NULL)
		TRY(add_request_id(event, h->record, err));
	return api_append(h->list, json_incref(event), err);
}

static enum status
read_history(json_t *list, struct db_tx *tx, const struct db_certificate *certificate,
	struct err *err)
{
	char object[OBJECT_BYTES];
	struct db_audit_filter filter = { .object = object };
	struct db_audit_cursor from = { .set = false };
	struct db_audit_cursor next = { .set = false };
	own(history) h = mem_zalloc(sizeof(*h));

	if (h == NULL)
		return err_memory(err);
	object_of(object, certificate);
	h->object = object;
	h->list = list;
	TRY(db_audit_search(tx, &filter, &from, HISTORY_MAX, h->records, &h->count, &next, err));
	for (size_t i = 0; i < h->count; i++) {
		h->record = &h->records[i];
		TRY(db_audit_items(tx, h->record->lane, h->record->seq, add_event, h, err));
	}
	return OK;
}

/* What IoT Core last said of it: the first target, in the order of the configuration, that has seen it. */
static enum status
add_iot(json_t *json, const struct app *app, const struct db_iot_view *views, size_t count,
	struct err *err)
{
	for (size_t i = 0; i < app->iot->site_count; i++)
		for (size_t k = 0; k < count; k++) {
			const struct iot_target *target = app->iot->sites[i].target;

			if (strcmp(views[k].target, target->name) != 0)
				continue;
			return api_set(json, "iot", json_pack("{s:s, s:s, s:s, s:s, s:o}", "target",
				target->name, "account", target->account, "region", target->region,
				"status", views[k].status, "observed_at",
				render_time(views[k].observed_at_s)), err);
		}
	return OK;
}

static enum status
certificates_get(struct app *app, struct request *request, struct err *err)
{
	const struct identity *identity = request_identity(request);
	own_struct(db_certificate) row = { .status = CERT_UNSET };
	own_struct(db_tx) tx = { NULL, NULL };
	own(json_t) events = json_array();
	own(json_t) json = NULL;
	struct db_iot_view views[IOT_TARGETS_MAX];
	size_t view_count;

	if (events == NULL)
		return err_memory(err);
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(find_certificate(&tx, request, &row, err));
	/* Another station's certificate is none of its business, not even that it exists. */
	if (identity->role == ROLE_STATION && strcmp(row.principal_id, identity->actor) != 0)
		return err_set(err, ERR_NOT_FOUND, "certificate_unknown", "id: no such certificate");
	TRY(read_history(events, &tx, &row, err));
	TRY(db_iot_certificate_views(&tx, row.sha256, views, COUNT_OF(views), &view_count, err));
	db_tx_end(&tx);
	TRY(render_certificate(&json, app, &row, clock_wall_s(app->clock), err));
	TRY(add_iot(json, app, views, view_count, err));
	TRY(api_set(json, "history", give(events), err));
	return request_reply_json(request, 200, give(json), err);
}

/* ---- revoke ---- */

static const char *const REVOKE_FIELDS[] = { "reason", "comment", NULL };
static const char *const NO_FIELDS[] = { NULL };
/* RFC 5280 5.3.1, but removeFromCRL: that is unhold. */
static const char *const REASON_CHOICES[] = { "unspecified", "keyCompromise", "cACompromise",
	"affiliationChanged", "superseded", "cessationOfOperation", "certificateHold",
	"privilegeWithdrawn", "aACompromise", NULL };

struct change {
	const char *action;
	enum revocation_reason reason; /* of a revocation */
	const char *comment;
	char receipt[REVOCATION_ID_BYTES]; /* "": nothing was revoked */
};

/* Takes detail. */
static enum status
audit_change(struct app *app, struct db_tx *tx, const struct request *request,
	const struct db_certificate *row, const char *action, json_t *detail, struct err *err)
{
	own(json_t) owned = detail;
	char object[OBJECT_BYTES];
	struct audit_item item = { .object = object, .detail = owned };
	struct audit_entry entry = {
		.action = action,
		.actor = request_identity(request)->actor,
		.request_id = request_id(request),
		.at_s = clock_wall_s(app->clock),
		.items = &item,
		.item_count = 1,
	};

	if (owned == NULL)
		return err_memory(err);
	object_of(object, row);
	return audit_write(app, tx, &entry, err);
}

/* Reads the row as it has become. */
static enum status
reread(struct db_tx *tx, struct db_certificate *row, struct err *err)
{
	struct db_cert_ref ref = row->ref;

	db_certificate_free(row);
	return db_certificate_by_ref(tx, &ref, row, err);
}

static enum status
revoke_once(struct app *app, const struct request *request, struct change *change,
	struct db_certificate *row, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	struct db_revoke_result result = { .changed = false };
	int64_t now_s = clock_wall_s(app->clock);

	db_certificate_free(row);
	change->receipt[0] = '\0';
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(find_certificate(&tx, request, row, err));
	TRY(db_revocation_revoke(&tx, &row->ref, change->reason, now_s, &result, err));
	if (result.changed)
		TRY(revocations_note_single(&tx, request, row, change->reason, change->comment, now_s,
			change->receipt, err));
	/* A key may be blocked that belongs to a certificate which was revoked long ago. */
	if (result.changed || result.key_blocked)
		TRY(audit_change(app, &tx, request, row, change->action,
			json_pack("{s:s, s:s, s:s, s:s}", "change", !result.changed ? "key_blocked" :
				change->reason == REASON_CERTIFICATE_HOLD ? "held" : "revoked",
				"device_id", row->device_id, "reason",
				revocation_reason_name(change->reason), "comment", change->comment),
			err));
	TRY(reread(&tx, row, err));
	TRY(db_tx_commit(&tx, err));
	if (result.changed)
		metric_count(METRIC_REVOKED, revocation_reason_name(change->reason), NULL, 1);
	return OK;
}

static enum status
unhold_once(struct app *app, const struct request *request, struct change *change,
	struct db_certificate *row, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	db_certificate_free(row);
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(find_certificate(&tx, request, row, err));
	TRY(db_revocation_unhold(&tx, &row->ref, err));
	TRY(audit_change(app, &tx, request, row, change->action,
		json_pack("{s:s, s:s}", "change", "unheld", "device_id", row->device_id), err));
	TRY(reread(&tx, row, err));
	return db_tx_commit(&tx, err);
}

static enum status
change_and_reply(struct app *app, struct request *request, struct change *change,
	enum status (*once)(struct app *app, const struct request *request, struct change *change,
		struct db_certificate *row, struct err *err),
	struct err *err)
{
	own_struct(db_certificate) row = { .status = CERT_UNSET };
	json_t *json;

	TRY(once(app, request, change, &row, err));
	if (change->reason == REASON_KEY_COMPROMISE)
		issuance_note_blocked(app->issuance);
	TRY(render_certificate(&json, app, &row, clock_wall_s(app->clock), err));
	if (change->receipt[0] != '\0' &&
	    json_object_set_new(json, "revocation_id", json_string(change->receipt)) != 0) {
		json_decref(json);
		return err_memory(err);
	}
	return request_reply_json(request, 200, json, err);
}

static enum status
certificates_revoke(struct app *app, struct request *request, struct err *err)
{
	struct change change = { .action = "certificate.revoke", .comment = "" };
	const char *reason = NULL;
	own(json_t) body = NULL;

	TRY(request_json(request, &body, err));
	TRY(fields_check(body, REVOKE_FIELDS, err));
	TRY(fields_choice(body, "reason", FIELD_REQUIRED, REASON_CHOICES, &reason, err));
	TRY(fields_text(body, "comment", FIELD_OPTIONAL, COMMENT_MAX_BYTES, &change.comment, err));
	if (!revocation_reason_parse(&change.reason, reason))
		return err_set(err, ERR_INTERNAL, "reason_table", "a reason has no number");
	if (change.reason == REASON_CERTIFICATE_HOLD)
		change.action = "certificate.hold";
	return change_and_reply(app, request, &change, revoke_once, err);
}

static enum status
certificates_unhold(struct app *app, struct request *request, struct err *err)
{
	struct change change = { .action = "certificate.unhold" };
	own(json_t) body = NULL;

	TRY(api_json_or_empty(request, &body, err));
	TRY(fields_check(body, NO_FIELDS, err));
	return change_and_reply(app, request, &change, unhold_once, err);
}

const struct route CERTIFICATE_ROUTES[] = {
	{ .method = "POST", .path = "/v1/certificates", .handle = certificates_create,
	  .roles = ROLE_STATION | ROLE_ADMIN, .body_max_bytes = 32 * 1024 },
	{ .method = "POST", .path = "/v1/certificates/batch", .handle = certificates_batch,
	  .roles = ROLE_STATION | ROLE_ADMIN, .body_max_bytes = 4 * 1024 * 1024 },
	{ .method = "GET", .path = "/v1/certificates", .handle = certificates_search,
	  .roles = ROLES_READ | ROLE_STATION, .query = SEARCH_QUERY },
	{ .method = "GET", .path = "/v1/certificates/{id}", .handle = certificates_get,
	  .roles = ROLES_READ | ROLE_STATION },
	{ .method = "POST", .path = "/v1/certificates/{id}/revoke", .handle = certificates_revoke,
	  .roles = ROLE_ADMIN, .body_max_bytes = 4 * 1024 },
	{ .method = "POST", .path = "/v1/certificates/{id}/unhold", .handle = certificates_unhold,
	  .roles = ROLE_ADMIN, .body_max_bytes = 4 * 1024 },
	{ .method = NULL },
};
