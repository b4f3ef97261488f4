#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "db/device.h"
#include "db/revocation.h"
#include "server/api/api.h"
#include "server/api/render.h"
#include "server/app.h"
#include "server/audit.h"
#include "server/auth.h"
#include "server/http/fields.h"
#include "server/rotation.h"
#include "server/metrics.h"

#define REASON_MAX_BYTES 256
#define THING_TYPE_MAX_BYTES 128
/* The newest are the last of what is shown; a device with more has its full list in the search. */
#define CERTIFICATES_SHOWN_MAX 100
/* More certificates that are not revoked than a device gets in a century of monthly rotations. */
#define DECOMMISSION_MAX 2000

typedef struct db_cert_ref db_cert_ref;
typedef struct db_revoke_item db_revoke_item;
OWNER(db_revoke_item, mem_free)
OWNER(db_cert_ref, mem_free)

static const char *const STATUSES[] = { "active", "quarantined", "decommissioned", NULL };

/* ---- show ---- */

static json_t *
render_ref(const struct app *app, const struct db_cert_ref *ref)
{
	const struct app_ca *ca = app_ca_by_issuer(app, ref->issuer_id);
	char serial[SERIAL_TEXT_BYTES];

	if (ref->issuer_id == 0)
		return json_null();
	serial_format(serial, &ref->serial);
	return json_pack("{s:s, s:s?}", "serial", serial, "ca", ca != NULL ? ca->ca_id : NULL);
}

static json_t *
render_device(const struct app *app, const struct db_device *device)
{
	own(json_t) attributes = json_loads(device->attributes, 0, NULL);

	return json_pack("{s:s, s:s, s:s, s:O, s:s, s:I, s:o, s:o, s:o, s:o}", "device_id",
		device->device_id, "status", device->status, "thing_type", device->thing_type,
		"attributes", attributes, "reason", device->reason, "version",
		(json_int_t)device->version, "created_at", render_time(device->created_at_s),
		"updated_at", render_time(device->updated_at_s), "current",
		render_ref(app, &device->current), "successor", render_ref(app, &device->successor));
}

struct certificate_page {
	struct db_certificate rows[CERTIFICATES_SHOWN_MAX];
	size_t count;
};
typedef struct certificate_page certificate_page;

static void
certificate_page_free(struct certificate_page *page)
{
	for (size_t i = 0; page != NULL && i < page->count; i++)
		db_certificate_free(&page->rows[i]);
	mem_free(page);
}
OWNER(certificate_page, certificate_page_free)

static enum status
add_certificates(json_t *answer, struct app *app, const struct certificate_page *page, bool more,
	struct err *err)
{
	own(json_t) list = json_array();
	int64_t now_s = clock_wall_s(app->clock);

	if (list == NULL)
		return err_memory(err);
	for (size_t i = 0; i < page->count; i++) {
		json_t *one;

		TRY(render_certificate(&one, app, &page->rows[i], now_s, err));
		TRY(api_append(list, one, err));
	}
	TRY(api_set(answer, "certificates", give(list), err));
	return api_set(answer, "certificates_more", json_boolean(more), err);
}

static enum status
read_device(struct app *app, const char *id, struct certificate_page *page, json_t **out,
	struct err *err)
{
	struct db_certificate_filter filter = { .device_id = id, .now_s = clock_wall_s(app->clock) };
	const struct db_certificate_cursor start = { .set = false };
	struct db_certificate_cursor next = { .set = false };
	own_struct(db_tx) tx = { NULL, NULL };
	own(json_t) answer = NULL;
	struct db_device device;

	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_device_find(&tx, id, &device, err));
	TRY(db_certificate_search(&tx, &filter, &start, CERTIFICATES_SHOWN_MAX, page->rows, &page->count,
		&next, err));
	TRY(db_tx_commit(&tx, err));
	answer = render_device(app, &device);
	if (answer == NULL)
		return err_memory(err);
	TRY(add_certificates(answer, app, page, next.set, err));
	*out = give(answer);
	return OK;
}

static enum status
show(struct app *app, struct request *request, struct err *err)
{
	own(certificate_page) page = mem_zalloc(sizeof(*page));
	json_t *answer = NULL;
	const char *id;

	if (page == NULL)
		return err_memory(err);
	TRY(fields_param_id(request, "id", &id, err));
	TRY(read_device(app, id, page, &answer, err));
	return request_reply_json(request, 200, answer, err);
}

/* What is late is in order of the end of validity; the rest by id. A cursor is good for one of the two. */
struct device_page {
	struct db_device *rows;
	size_t count, limit;
	char next[64 + DB_ID_BYTES]; /* empty: there is no more */
};

static void
device_page_free(struct device_page *page)
{
	mem_free(give(page->rows));
}
OWNER_STRUCT(device_page, device_page_free)

static enum status
list_by_id(struct app *app, struct request *request, struct device_page *page, const char *status,
	const char *thing_type, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	char after[DB_ID_BYTES];

	TRY(query_cursor_text(request, "devices", after, sizeof(after), err));
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_device_list(&tx, status, thing_type, after, page->limit + 1, page->rows, &page->count,
		err));
	TRY(db_tx_commit(&tx, err));
	if (page->count > page->limit) {
		page->count = page->limit;
		(void)snprintf(page->next, sizeof(page->next), "%s", page->rows[page->limit - 1].device_id);
	}
	return OK;
}

static enum status
list_late(struct app *app, struct request *request, struct device_page *page, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	struct db_late_rule rules[CA_PROFILES_MAX];
	size_t rule_count = rotation_late_rules(app->profiles, app->profile_count, rules);
	struct db_certificate_cursor place;
	struct db_certificate_cursor next;

	TRY(api_query_place(request, "devices_late", &place, err));
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_device_list_late(&tx, rules, rule_count, clock_wall_s(app->clock), &place, page->limit,
		page->rows, &page->count, &next, err));
	TRY(db_tx_commit(&tx, err));
	if (next.set)
		api_format_place(page->next, sizeof(page->next), &next);
	return OK;
}

static enum status
list(struct app *app, struct request *request, struct err *err)
{
	own_struct(device_page) page = { .rows = NULL };
	own(json_t) items = json_array();
	const char *status = NULL;
	const char *thing_type = request_query(request, "thing_type");
	bool late = false;

	TRY(query_choice(request, "status", STATUSES, &status, err));
	if (thing_type != NULL && strlen(thing_type) > THING_TYPE_MAX_BYTES)
		return err_set(err, ERR_ARGUMENT, "thing_type_malformed",
			"thing_type: at most %d octets wanted", THING_TYPE_MAX_BYTES);
	TRY(query_bool(request, "late", &late, err));
	if (late && (status != NULL || thing_type != NULL))
		return err_set(err, ERR_ARGUMENT, "late_not_alone",
			"late: wanted without status and thing_type");
	TRY(query_limit(request, &page.limit, err));
	page.rows = mem_array(page.limit + 1, sizeof(*page.rows));
	if (page.rows == NULL || items == NULL)
		return err_memory(err);
	if (late)
		TRY(list_late(app, request, &page, err));
	else
		TRY(list_by_id(app, request, &page, status, thing_type, err));
	for (size_t i = 0; i < page.count; i++)
		TRY(api_append(items, render_device(app, &page.rows[i]), err));
	return api_reply_page(request, "devices", give(items), late ? "devices_late" : "devices",
		page.next[0] != '\0' ? page.next : NULL, err);
}

/* ---- change ---- */

struct change {
	const char *action; /* of the audit record */
	const char *status; /* wanted */
	bool revoke;        /* every certificate of the device, RFC 5280 5.3.1 reason 5 */
};

static const struct change QUARANTINE = { "device.quarantine", "quarantined", false };
static const struct change RELEASE = { "device.release", "active", false };
static const struct change DECOMMISSION = { "device.decommission", "decommissioned", true };

static enum status
revoke_all(struct app *app, struct db_tx *tx, const char *id, json_t *serials, struct err *err)
{
	own(db_cert_ref) refs = mem_array(DECOMMISSION_MAX, sizeof(*refs));
	own(db_revoke_item) items = mem_array(DECOMMISSION_MAX, sizeof(*items));
	size_t count;

	if (refs == NULL || items == NULL)
		return err_memory(err);
	TRY(db_revocation_of_device(tx, id, refs, DECOMMISSION_MAX, &count, err));
	if (count == DECOMMISSION_MAX)
		return err_set(err, ERR_TOO_LARGE, "device_has_too_many_certificates",
			"fewer than %d unrevoked certificates wanted; revoke them first by"
			" POST /v1/revocations with selector.device_id",
			DECOMMISSION_MAX);
	for (size_t i = 0; i < count; i++)
		items[i] = (struct db_revoke_item){ .ref = refs[i],
			.reason = REASON_CESSATION_OF_OPERATION };
	TRY(db_revocation_revoke_many(tx, items, count, clock_wall_s(app->clock), err));
	for (size_t i = 0; i < count; i++) {
		char serial[SERIAL_TEXT_BYTES];

		if (!items[i].result.changed)
			continue;
		serial_format(serial, &items[i].ref.serial);
		TRY(api_append(serials, json_string(serial), err));
	}
	return OK;
}

/* Status, certificates, outbox and audit in one transaction. */
static enum status
change_in_one(struct app *app, struct request *request, const char *id, const char *reason,
	const struct change *change, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	own(json_t) detail = json_pack("{s:s}", "reason", reason);
	own(json_t) serials = json_array();
	int64_t revoked;
	bool changed;

	if (detail == NULL || serials == NULL)
		return err_memory(err);
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_device_set_status(&tx, id, change->status, reason, &changed, err));
	if (change->revoke)
		TRY(revoke_all(app, &tx, id, serials, err));
	if (!changed && json_array_size(serials) == 0)
		return OK;
	revoked = (int64_t)json_array_size(serials);
	if (change->revoke)
		TRY(api_set(detail, "revoked", give(serials), err));
	TRY(api_audit(app, &tx, request, change->action, "device", id, detail, err));
	TRY(db_tx_commit(&tx, err));
	if (revoked > 0)
		metric_count(METRIC_REVOKED, revocation_reason_name(REASON_CESSATION_OF_OPERATION),
			NULL, revoked);
	return OK;
}

static enum status
change_device(struct app *app, struct request *request, const struct change *change, struct err *err)
{
	static const char *const ALLOWED[] = { "reason", NULL };
	own(json_t) body = NULL;
	const char *reason = "";
	const char *id;

	TRY(fields_param_id(request, "id", &id, err));
	TRY(api_json_or_empty(request, &body, err));
	TRY(fields_check(body, ALLOWED, err));
	TRY(fields_string(body, "reason", FIELD_OPTIONAL, REASON_MAX_BYTES, &reason, err));
	TRY(change_in_one(app, request, id, reason, change, err));
	return show(app, request, err);
}

static enum status
quarantine(struct app *app, struct request *request, struct err *err)
{
	return change_device(app, request, &QUARANTINE, err);
}

static enum status
release(struct app *app, struct request *request, struct err *err)
{
	return change_device(app, request, &RELEASE, err);
}

static enum status
decommission(struct app *app, struct request *request, struct err *err)
{
	return change_device(app, request, &DECOMMISSION, err);
}

static const char *const LIST_QUERY[] = { "status", "thing_type", "late", "limit", "cursor", NULL };

#define SMALL_BODY 4096

const struct route DEVICE_ROUTES[] = {
	{ .method = "GET", .path = "/v1/devices", .handle = list, .roles = ROLES_READ,
	  .query = LIST_QUERY },
	{ .method = "GET", .path = "/v1/devices/{id}", .handle = show, .roles = ROLES_READ },
	{ .method = "POST", .path = "/v1/devices/{id}/quarantine", .handle = quarantine,
	  .roles = ROLE_ADMIN, .body_max_bytes = SMALL_BODY },
	{ .method = "POST", .path = "/v1/devices/{id}/release", .handle = release, .roles = ROLE_ADMIN,
	  .body_max_bytes = SMALL_BODY },
	{ .method = "POST", .path = "/v1/devices/{id}/decommission", .handle = decommission,
	  .roles = ROLE_ADMIN, .body_max_bytes = SMALL_BODY },
	{ .method = NULL },
};
