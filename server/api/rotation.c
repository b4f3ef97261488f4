/*
 * server/api/rotation.c - /v1/rotation: a device asks when, asks for a successor, confirms it (invariant
 * 13). A device that has reason to (a key that may have leaked) can rotate before its window: the
 * answer is the same, and it has one live successor at most.
 */
#include "server/rotation.h"

#include <stdio.h>
#include <string.h>

#include "db/campaign.h"
#include "db/device.h"
#include "db/revocation.h"
#include "server/api/api.h"
#include "server/api/issue.h"
#include "server/api/render.h"
#include "server/api/rotation_ask.h"
#include "server/app.h"
#include "server/audit.h"
#include "server/auth.h"
#include "server/campaign_call.h"
#include "server/http/fields.h"
#include "server/metrics.h"

#define CSR_PEM_MAX_BYTES (16 * 1024)
/* How soon a quarantined device may hope, and a device that has yet to confirm is reminded. */
#define QUARANTINE_RETRY_S 3600
#define CONFIRM_RETRY_S 60

static const char *const REQUEST_FIELDS[] = { "csr", NULL };
static const char *const NO_FIELDS[] = { NULL };

static enum status
profile_of(const struct ca_profile **out, const struct app *app, const struct identity *identity,
	struct err *err)
{
	*out = app_profile(app, identity->profile);
	if (*out == NULL)
		return err_set(err, ERR_DENIED, "profile_not_allowed",
			"the certificate's profile is no longer in use");
	return OK;
}

static bool
quarantined(const struct identity *identity)
{
	return strcmp(identity->device_status, "quarantined") == 0;
}

static enum status
refuse_quarantined(const struct identity *identity, struct err *err)
{
	if (quarantined(identity))
		return err_set(err, ERR_DENIED, "device_quarantined",
			"the device is quarantined and cannot rotate");
	return OK;
}

/* ---- when ---- */

/* What stands in the way of rotating goes before the window. */
static const char *
judge(struct rotation_window *window, const struct identity *identity)
{
	if (quarantined(identity)) {
		window->due = false;
		window->retry_after_s = QUARANTINE_RETRY_S;
		return "quarantined";
	}
	if (identity->certificate_status == CERT_PENDING_CONFIRMATION) {
		window->due = false;
		window->retry_after_s = CONFIRM_RETRY_S;
		return "unconfirmed";
	}
	return rotation_reason_name(window->reason);
}

static enum status
render_window(json_t *into, const struct rotation_window *window, const char *reason, struct err *err)
{
	own(json_t) span = json_object();

	if (span == NULL)
		return err_memory(err);
	TRY(api_set(span, "start", render_time(window->start_s), err));
	TRY(api_set(span, "end", render_time(window->end_s), err));
	TRY(api_set(into, "due", json_boolean(window->due), err));
	TRY(api_set(into, "window", give(span), err));
	TRY(api_set(into, "retry_after_s", json_integer(window->retry_after_s), err));
	return api_set(into, "reason", json_string(reason), err);
}

/* What is asked of the device by a campaign, if one is. */
struct own_row {
	struct db_certificate certificate;
	struct db_campaign_call call;
	bool called;
};

static void
own_row_free(struct own_row *row)
{
	db_certificate_free(&row->certificate);
}
OWNER_STRUCT(own_row, own_row_free)

static enum status
read_own_row(struct app *app, const struct identity *identity, struct own_row *row, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_campaign_call(&tx, identity->actor, &identity->certificate, &row->call, &row->called,
		err));
	return db_certificate_by_ref(&tx, &identity->certificate, &row->certificate, err);
}

static enum status
rotation_get(struct app *app, struct request *request, struct err *err)
{
	const struct identity *identity = request_identity(request);
	own_struct(own_row) row = { .called = false };
	int64_t now_s = clock_wall_s(app->clock);
	const struct ca_profile *profile;
	struct rotation_window window;
	bool campaign;
	own(json_t) json = json_object();
	json_t *certificate;

	if (json == NULL)
		return err_memory(err);
	TRY(profile_of(&profile, app, identity, err));
	TRY(read_own_row(app, identity, &row, err));
	rotation_window(&window, profile, identity->actor, identity->certificate_id,
		identity->not_before_s, identity->not_after_s, now_s);
	campaign = row.called && campaign_call_apply(&window, &row.call, now_s);
	const char *reason = judge(&window, identity);

	TRY(render_window(json, &window, window.due && campaign ? "campaign" : reason, err));
	TRY(render_certificate(&certificate, app, &row.certificate, now_s, err));
	TRY(api_set(json, "certificate", certificate, err));
	TRY(render_trust(json, app, now_s, err));
	return request_reply_json(request, 200, give(json), err);
}

/* ---- a successor ---- */

static enum status
reply_with_trust(struct app *app, struct request *request, unsigned status,
	const struct db_certificate *certificate, bool clamped, struct err *err)
{
	int64_t now_s = clock_wall_s(app->clock);
	own(json_t) json = NULL;

	TRY(render_certificate(&json, app, certificate, now_s, err));
	if (clamped)
		TRY(api_set(json, "clamped", json_true(), err));
	TRY(render_trust(json, app, now_s, err));
	return request_reply_json(request, status, give(json), err);
}

static enum status
reply_successor(struct app *app, struct request *request, struct issue_ask *asks, size_t count,
	struct err *err)
{
	const struct issuance_item *item = &asks[0].item;

	(void)count;
	if (item->status != OK) {
		*err = item->err;
		return item->status;
	}
	return reply_with_trust(app, request, item->replayed ? 200 : 201, &item->certificate,
		item->clamped, err);
}

/* The device keeps what its first certificate was made with. */
static enum status
fill_from_device(struct issuance_item *item, const struct db_device *device, struct err *err)
{
	own(json_t) stored = json_loads(device->attributes, JSON_REJECT_DUPLICATES, NULL);
	const char *name;
	json_t *value;

	if (!json_is_object(stored))
		return err_set(err, ERR_INTERNAL, "device_attributes",
			"a device's stored attributes are no JSON object");
	json_object_foreach(stored, name, value) {
		struct ca_attribute *attribute =
			&item->request.attributes[item->request.attribute_count];

		if (item->request.attribute_count == CA_ATTRIBUTES_MAX || !json_is_string(value))
			return err_set(err, ERR_INTERNAL, "device_attributes",
				"a device's stored attributes break their rules");
		(void)snprintf(attribute->name, sizeof(attribute->name), "%s", name);
		(void)snprintf(attribute->value, sizeof(attribute->value), "%s",
			json_string_value(value));
		item->request.attribute_count++;
	}
	(void)snprintf(item->request.thing_type, sizeof(item->request.thing_type), "%s",
		device->thing_type);
	(void)snprintf(item->attributes_json, sizeof(item->attributes_json), "%s", device->attributes);
	return OK;
}

/* The same identity as the certificate that the device showed, from its row and the device's. */
static enum status
fill_ask(struct issue_ask *ask, struct app *app, const struct identity *identity, struct err *err)
{
	struct issuance_item *item = &ask->item;
	own_struct(db_certificate) row = { .status = CERT_UNSET };
	own_struct(db_tx) tx = { NULL, NULL };
	struct db_device device;
	enum status status;

	TRY(profile_of(&item->profile, app, identity, err));
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_certificate_by_ref(&tx, &identity->certificate, &row, err));
	status = db_device_find(&tx, identity->actor, &device, err);
	if (status != OK && status != ERR_NOT_FOUND)
		return status;
	if (status == OK)
		TRY(fill_from_device(item, &device, err));
	else
		(void)snprintf(item->attributes_json, sizeof(item->attributes_json), "{}");
	(void)snprintf(item->request.device_id, sizeof(item->request.device_id), "%s",
		identity->actor);
	item->asker = ASKER_DEVICE;
	item->actor = identity->actor;
	item->slot = SLOT_SUCCESSOR;
	item->predecessor = identity->certificate;
	memcpy(item->predecessor_id, identity->certificate_id, sizeof(item->predecessor_id));
	ask->other_key = true;
	memcpy(ask->not_spki_sha256, row.spki_sha256, sizeof(ask->not_spki_sha256));
	return OK;
}

/*
 * No idempotency key is needed: the same public key gives the same successor again, another one
 * replaces it as long as it is not confirmed.
 */
enum status
rotation_ask_successor(struct app *app, struct request *request, json_t *body,
	const char *const *fields, struct err *err)
{
	const struct identity *identity = request_identity(request);
	own(issue_job) job = NULL;
	struct issue_ask *ask;

	TRY(issue_job_new(&job, app, request, body, 1, reply_successor, err));
	ask = issue_job_asks(job);
	TRY(fields_check(body, fields, err));
	TRY(fields_text(body, "csr", FIELD_REQUIRED, CSR_PEM_MAX_BYTES, &ask->pem, err));
	TRY(fill_ask(ask, app, identity, err));
	ask->item.request_id = request_id(request);
	if ((ask->item.profile->issuable_by & ASKER_DEVICE) == 0)
		return err_set(err, ERR_DENIED, "profile_not_allowed",
			"the profile %s does not let devices rotate", ask->item.profile->name);
	return issue_job_run_one(give(job), err);
}

static enum status
rotation_request(struct app *app, struct request *request, struct err *err)
{
	json_t *body = NULL;

	TRY(refuse_quarantined(request_identity(request), err));
	TRY(request_json(request, &body, err));
	return rotation_ask_successor(app, request, body, REQUEST_FIELDS, err);
}

/* ---- confirm ---- */

#define OBJECT_BYTES (sizeof("certificate:") + 2 * DB_SHA256_BYTES)

static void
object_of(char out[OBJECT_BYTES], const uint8_t sha256[DB_SHA256_BYTES])
{
	char id[2 * DB_SHA256_BYTES + 1];

	hex_encode(id, sha256, DB_SHA256_BYTES);
	(void)snprintf(out, OBJECT_BYTES, "certificate:%s", id);
}

static enum status
audit_confirm(struct app *app, struct db_tx *tx, const struct request *request,
	const struct db_cert_ref *predecessor, int64_t now_s, struct err *err)
{
	const struct identity *identity = request_identity(request);
	own_struct(db_certificate) old = { .status = CERT_UNSET };
	char objects[2][OBJECT_BYTES];
	own(json_t) confirmed = json_pack("{s:s, s:s}", "change", "confirmed", "device_id",
		identity->actor);
	own(json_t) superseded = NULL;
	struct audit_item items[2] = {
		{ .object = objects[0], .detail = confirmed },
		{ .object = objects[1] },
	};
	struct audit_entry entry = {
		.action = "certificate.confirm",
		.actor = identity->actor,
		.request_id = request_id(request),
		.at_s = now_s,
		.items = items,
		.item_count = 1,
	};

	if (confirmed == NULL)
		return err_memory(err);
	object_of(objects[0], identity->certificate_id);
	if (predecessor->issuer_id != 0)
		TRY(db_certificate_by_ref(tx, predecessor, &old, err));
	/* One that was revoked before is as it was; a held one is revoked, whatever the profile says. */
	if (old.status_at_s == now_s && (old.status == CERT_SUPERSEDED || old.status == CERT_REVOKED)) {
		superseded = json_pack("{s:s, s:s}", "change", cert_status_name(old.status),
			"device_id", identity->actor);
		if (superseded == NULL)
			return err_memory(err);
		items[1].detail = superseded;
		object_of(objects[1], old.sha256);
		entry.item_count = 2;
	}
	return audit_write(app, tx, &entry, err);
}

static enum status
confirm_once(struct app *app, const struct request *request, bool revoke, struct db_certificate *row,
	struct err *err)
{
	const struct identity *identity = request_identity(request);
	own_struct(db_tx) tx = { NULL, NULL };
	struct db_cert_ref predecessor = { .issuer_id = 0 };
	int64_t now_s = clock_wall_s(app->clock);
	bool changed = false;

	db_certificate_free(row);
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_revocation_confirm(&tx, &identity->certificate, revoke, now_s, &predecessor, &changed,
		err));
	if (changed)
		TRY(audit_confirm(app, &tx, request, &predecessor, now_s, err));
	TRY(db_certificate_by_ref(&tx, &identity->certificate, row, err));
	TRY(db_tx_commit(&tx, err));
	if (!changed)
		return OK;
	metric_add(METRIC_ROTATION_CONFIRMED, 1);
	if (revoke)
		metric_count(METRIC_REVOKED, revocation_reason_name(REASON_SUPERSEDED), NULL, 1);
	return OK;
}

static enum status
rotation_confirm(struct app *app, struct request *request, struct err *err)
{
	const struct identity *identity = request_identity(request);
	own_struct(db_certificate) row = { .status = CERT_UNSET };
	const struct ca_profile *profile;
	own(json_t) body = NULL;

	TRY(refuse_quarantined(identity, err));
	TRY(api_json_or_empty(request, &body, err));
	TRY(fields_check(body, NO_FIELDS, err));
	TRY(profile_of(&profile, app, identity, err));
	TRY(confirm_once(app, request, profile->on_confirm == ON_CONFIRM_REVOKE, &row, err));
	return reply_with_trust(app, request, 200, &row, false, err);
}

const struct route ROTATION_ROUTES[] = {
	{ .method = "GET", .path = "/v1/rotation", .handle = rotation_get,
	  .roles = ROLE_DEVICE | ROLE_DEVICE_GRACE },
	{ .method = "POST", .path = "/v1/rotation", .handle = rotation_request,
	  .roles = ROLE_DEVICE | ROLE_DEVICE_GRACE, .body_max_bytes = 32 * 1024 },
	{ .method = "POST", .path = "/v1/rotation/confirm", .handle = rotation_confirm,
	  .roles = ROLE_DEVICE, .body_max_bytes = 1024 },
	{ .method = NULL },
};
