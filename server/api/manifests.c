#include "server/api/manifests.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "ca/profile.h"
#include "db/principal.h"
#include "server/api/api.h"
#include "server/api/render.h"
#include "server/app.h"
#include "server/auth.h"
#include "server/http/fields.h"
#include "server/manifest_reader.h"
#include "server/spool.h"

#define QUANTITY_MAX 1000000000
#define VALID_DEFAULT_S ((int64_t)365 * 24 * 3600)
/* More come as a file, which is read in a stream. */
#define INLINE_IDS_MAX 1000
#define CREATE_BODY_MAX (128 * 1024)

typedef struct db_manifest db_manifest;
typedef struct manifest_reader manifest_reader;
OWNER(db_manifest, mem_free)
OWNER(manifest_reader, mem_free)

json_t *
manifests_render(const struct db_manifest *m)
{
	return json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:b, s:o, s:o, s:s, s:o, s:o}", "id",
		m->manifest_id, "station", m->station_id, "profile", m->profile, "quantity",
		(json_int_t)m->quantity, "used", (json_int_t)m->used, "left",
		(json_int_t)(m->quantity - m->used), "line_count", (json_int_t)m->line_count,
		"allow_replace", m->allow_replace, "not_before", render_time(m->not_before_s),
		"not_after", render_time(m->not_after_s), "created_by", m->created_by, "created_at",
		render_time(m->created_at_s), "closed_at", render_time(m->closed_at_s));
}

enum status
manifests_check_profile(const struct app *app, const char *name, struct err *err)
{
	const struct ca_profile *profile = app_profile(app, name);

	if (profile == NULL)
		return err_set(err, ERR_ARGUMENT, "profile_unknown", "profile: no such profile");
	if ((profile->issuable_by & ASKER_STATION) == 0)
		return err_set(err, ERR_ARGUMENT, "profile_not_for_stations",
			"profile: one that names stations in issuable_by wanted, %s found",
			profile->name);
	return OK;
}

static enum status
reply(struct request *request, unsigned status, const struct db_manifest *manifest, struct err *err)
{
	json_t *json = manifests_render(manifest);

	return json != NULL ? request_reply_json(request, status, json, err) : err_memory(err);
}

/* ---- create ---- */

static enum status
read_dates(struct db_manifest *out, const json_t *body, int64_t now_s, struct err *err)
{
	out->not_before_s = now_s;
	TRY(fields_time(body, "not_before", FIELD_OPTIONAL, &out->not_before_s, err));
	out->not_after_s = out->not_before_s + VALID_DEFAULT_S;
	TRY(fields_time(body, "not_after", FIELD_OPTIONAL, &out->not_after_s, err));
	if (out->not_after_s <= out->not_before_s || out->not_after_s <= now_s)
		return err_set(err, ERR_ARGUMENT, "manifest_dates",
			"not_after: a time after not_before and after now wanted");
	return OK;
}

static enum status
read_manifest(struct db_manifest *out, struct app *app, struct request *request, const json_t *body,
	struct err *err)
{
	static const char *const ALLOWED[] = { "id", "station", "profile", "quantity", "allow_replace",
		"not_before", "not_after", "device_ids", NULL };
	int64_t now_s = clock_wall_s(app->clock);
	const char *profile = "device";
	const char *id;
	const char *station;

	*out = (struct db_manifest){ .created_at_s = now_s };
	TRY(fields_check(body, ALLOWED, err));
	TRY(fields_id(body, "id", FIELD_REQUIRED, &id, err));
	TRY(fields_id(body, "station", FIELD_REQUIRED, &station, err));
	TRY(fields_string(body, "profile", FIELD_OPTIONAL, DB_PROFILE_BYTES - 1, &profile, err));
	TRY(manifests_check_profile(app, profile, err));
	TRY(fields_int(body, "quantity", FIELD_REQUIRED, 1, QUANTITY_MAX, &out->quantity, err));
	TRY(fields_bool(body, "allow_replace", FIELD_OPTIONAL, &out->allow_replace, err));
	TRY(read_dates(out, body, now_s, err));
	(void)snprintf(out->manifest_id, sizeof(out->manifest_id), "%s", id);
	(void)snprintf(out->station_id, sizeof(out->station_id), "%s", station);
	(void)snprintf(out->profile, sizeof(out->profile), "%s", profile);
	(void)snprintf(out->created_by, sizeof(out->created_by), "%s", request_identity(request)->actor);
	return OK;
}

/* device_ids of the body, for db_manifest_add_lines. */
struct inline_ids {
	const char **ids;
	size_t at, count;
};

static enum status
inline_next(void *arg, const char **id, struct err *err)
{
	struct inline_ids *ids = arg;

	*id = NULL;
	if (ids->at == ids->count)
		return OK;
	if (!fields_is_id(ids->ids[ids->at]))
		return err_set(err, ERR_ARGUMENT, "device_id_malformed",
			"device_ids[%zu]: [A-Za-z0-9:_-]{1,64} wanted", ids->at);
	*id = ids->ids[ids->at++];
	return OK;
}

static enum status
add_inline(struct db_tx *tx, const struct db_manifest *manifest, const json_t *body, struct err *err)
{
	typedef const char *id_list;
	id_list *list = NULL;
	struct inline_ids ids = { .at = 0 };
	enum status status;
	int64_t added;

	if (json_object_get(body, "device_ids") == NULL)
		return OK;
	list = mem_array(INLINE_IDS_MAX, sizeof(*list));
	if (list == NULL)
		return err_memory(err);
	ids.ids = list;
	status = fields_string_array(body, "device_ids", FIELD_REQUIRED, INLINE_IDS_MAX, DB_ID_BYTES - 1,
		list, &ids.count, err);
	if (status == OK && ids.count > 0)
		status = db_manifest_add_lines(tx, manifest->manifest_id, inline_next, &ids, &added, err);
	mem_free(list);
	return status;
}

/* A manifest that its station could not use would be found out on the line. */
static enum status
check_station(struct db_tx *tx, const struct db_manifest *manifest, struct err *err)
{
	struct db_station station;

	TRY(db_station_find(tx, manifest->station_id, &station, err));
	for (size_t i = 0; i < station.profile_count; i++)
		if (strcmp(station.profiles[i], manifest->profile) == 0)
			return OK;
	return err_set(err, ERR_ARGUMENT, "profile_not_of_station",
		"profile: one of the station's wanted, %s found", manifest->profile);
}

static enum status
create(struct app *app, struct request *request, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	own(json_t) body = NULL;
	own(json_t) detail = NULL;
	struct db_manifest manifest;
	const char *id = manifest.manifest_id;

	TRY(request_json(request, &body, err));
	TRY(read_manifest(&manifest, app, request, body, err));
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(check_station(&tx, &manifest, err));
	TRY(db_manifest_create(&tx, &manifest, err));
	TRY(add_inline(&tx, &manifest, body, err));
	TRY(db_manifest_find(&tx, id, &manifest, err));
	detail = manifests_render(&manifest);
	if (detail == NULL)
		return err_memory(err);
	TRY(api_audit(app, &tx, request, "manifest.create", "manifest", id, detail, err));
	TRY(db_tx_commit(&tx, err));
	return reply(request, 201, &manifest, err);
}

/* ---- lines ---- */

static enum status
add_lines(struct app *app, struct request *request, const char *id, struct manifest_reader *reader,
	int64_t *added, struct db_manifest *manifest, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	own(json_t) detail = NULL;

	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_manifest_find(&tx, id, manifest, err));
	if (manifest->closed_at_s != 0)
		return err_set(err, ERR_CONFLICT, "manifest_is_closed",
			"an open manifest wanted, a closed one found");
	TRY(db_manifest_add_lines(&tx, id, manifest_reader_next, reader, added, err));
	TRY(db_manifest_find(&tx, id, manifest, err));
	detail = json_pack("{s:I, s:I, s:I}", "lines", (json_int_t)reader->count, "added",
		(json_int_t)*added, "line_count", (json_int_t)manifest->line_count);
	if (detail == NULL)
		return err_memory(err);
	TRY(api_audit(app, &tx, request, "manifest.add", "manifest", id, detail, err));
	return db_tx_commit(&tx, err);
}

static enum status
devices_add(struct app *app, struct request *request, struct err *err)
{
	own(manifest_reader) reader = mem_alloc(sizeof(*reader));
	own(json_t) answer = NULL;
	struct db_manifest manifest;
	enum manifest_format format = MANIFEST_FORMAT_UNSET;
	const char *id;
	int64_t added = 0;

	if (reader == NULL)
		return err_memory(err);
	TRY(fields_param_id(request, "id", &id, err));
	if (!manifest_format_parse(&format, request_content_type(request)))
		return err_set(err, ERR_ARGUMENT, "unsupported_media_type",
			"Content-Type: text/csv, application/json or application/x-ndjson wanted");
	if (request_body_fd(request) < 0)
		return err_set(err, ERR_ARGUMENT, "body_missing", "a body wanted, none found");
	manifest_reader_init(reader, request_body_fd(request), format);
	TRY(add_lines(app, request, id, reader, &added, &manifest, err));
	answer = manifests_render(&manifest);
	if (answer == NULL)
		return err_memory(err);
	TRY(api_set(answer, "lines", json_integer(reader->count), err));
	TRY(api_set(answer, "added", json_integer(added), err));
	return request_reply_json(request, 200, give(answer), err);
}

/* ---- read, close, export ---- */

static enum status
find(struct app *app, struct request *request, struct db_manifest *out, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	const char *id;

	TRY(fields_param_id(request, "id", &id, err));
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_manifest_find(&tx, id, out, err));
	return db_tx_commit(&tx, err);
}

static enum status
show(struct app *app, struct request *request, struct err *err)
{
	struct db_manifest manifest;

	TRY(find(app, request, &manifest, err));
	return reply(request, 200, &manifest, err);
}

static enum status
list(struct app *app, struct request *request, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	own(db_manifest) rows = NULL;
	own(json_t) items = json_array();
	const char *station = NULL;
	char after[DB_ID_BYTES];
	size_t limit;
	size_t count;

	TRY(query_id(request, "station", &station, err));
	TRY(query_limit(request, &limit, err));
	TRY(query_cursor_text(request, "manifests", after, sizeof(after), err));
	rows = mem_array(limit + 1, sizeof(*rows));
	if (rows == NULL || items == NULL)
		return err_memory(err);
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_manifest_list(&tx, station, after, limit + 1, rows, &count, err));
	TRY(db_tx_commit(&tx, err));
	for (size_t i = 0; i < count && i < limit; i++)
		TRY(api_append(items, manifests_render(&rows[i]), err));
	return api_reply_page(request, "manifests", give(items), "manifests",
		count > limit ? rows[limit - 1].manifest_id : NULL, err);
}

static enum status
close_manifest(struct app *app, struct request *request, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	struct db_manifest manifest;
	const char *id;
	bool changed;

	TRY(fields_param_id(request, "id", &id, err));
	TRY(api_no_fields(request, err));
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_manifest_close(&tx, id, &changed, err));
	if (changed)
		TRY(api_audit(app, &tx, request, "manifest.close", "manifest", id, NULL, err));
	TRY(db_manifest_find(&tx, id, &manifest, err));
	TRY(db_tx_commit(&tx, err));
	return reply(request, 200, &manifest, err);
}

struct export {
	struct spool spool;
	bool issued_only;
};

/*
 * No field needs quoting: ids, hex, names of ours, times. But a spreadsheet would take an id that begins
 * with a minus for a formula: it begins with an apostrophe, as in reports.
 */
static enum status
export_line(void *arg, const char *device_id, const struct serial *serial, const uint8_t *sha256,
	const char *status, int64_t used_at_s, struct err *err)
{
	struct export *export = arg;
	char serial_text[SERIAL_TEXT_BYTES] = "";
	char certificate_id[2 * DB_SHA256_BYTES + 1] = "";
	char used_at[TIME_TEXT_BYTES] = "";
	char line[512];

	if (sha256 == NULL && export->issued_only)
		return OK;
	if (sha256 != NULL) {
		hex_encode(certificate_id, sha256, DB_SHA256_BYTES);
		if (serial != NULL)
			serial_format(serial_text, serial);
		if (used_at_s != 0)
			time_format(used_at, used_at_s);
	}
	(void)snprintf(line, sizeof(line), "%s%s,%s,%s,%s,%s\r\n", device_id[0] == '-' ? "'" : "",
		device_id, serial_text, certificate_id,
		sha256 != NULL && status != NULL ? status : "", used_at);
	return spool_write(&export->spool, line, err);
}

static enum status
write_export(struct app *app, struct export *export, const char *id, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	struct db_manifest manifest;

	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_manifest_find(&tx, id, &manifest, err));
	TRY(spool_write(&export->spool, "device_id,serial,certificate_id,status,issued_at\r\n", err));
	TRY(db_manifest_export(&tx, id, export_line, export, err));
	return db_tx_commit(&tx, err);
}

typedef struct export export_t;

static void
export_free(struct export *export)
{
	if (export != NULL)
		spool_close(&export->spool);
	mem_free(export);
}
OWNER(export_t, export_free)

static enum status
export_csv(struct app *app, struct request *request, struct err *err)
{
	own(export_t) export = mem_zalloc(sizeof(*export));
	char disposition[DB_ID_BYTES + 48];
	char name[DB_ID_BYTES];
	const char *id;
	int fd;

	if (export == NULL)
		return err_memory(err);
	export->spool.fd = -1;
	TRY(fields_param_id(request, "id", &id, err));
	TRY(query_bool(request, "issued", &export->issued_only, err));
	TRY(spool_open(&export->spool, err));
	TRY(write_export(app, export, id, err));
	/* A colon is no part of a file's name everywhere. */
	(void)snprintf(name, sizeof(name), "%s", id);
	for (char *at = name; *at != '\0'; at++)
		if (*at == ':')
			*at = '_';
	(void)snprintf(disposition, sizeof(disposition), "attachment; filename=\"%s.csv\"", name);
	TRY(request_reply_header(request, "Content-Disposition", disposition, err));
	TRY(spool_finish(&export->spool, &fd, err));
	return request_reply_fd(request, 200, "text/csv; charset=utf-8; header=present", fd,
		export->spool.size_bytes, err);
}

static const char *const LIST_QUERY[] = { "station", "limit", "cursor", NULL };
static const char *const EXPORT_QUERY[] = { "issued", NULL };

const struct route MANIFEST_ROUTES[] = {
	{ .method = "GET", .path = "/v1/manifests", .handle = list, .roles = ROLES_READ,
	  .query = LIST_QUERY },
	{ .method = "POST", .path = "/v1/manifests", .handle = create, .roles = ROLE_ADMIN,
	  .body_max_bytes = CREATE_BODY_MAX },
	{ .method = "GET", .path = "/v1/manifests/{id}", .handle = show, .roles = ROLES_READ },
	/* Adding what is there already changes nothing, so it may be repeated: PUT as well as POST. */
	{ .method = "PUT", .path = "/v1/manifests/{id}/devices", .handle = devices_add,
	  .roles = ROLE_ADMIN, .spool = true },
	{ .method = "POST", .path = "/v1/manifests/{id}/devices", .handle = devices_add,
	  .roles = ROLE_ADMIN, .spool = true },
	{ .method = "POST", .path = "/v1/manifests/{id}/close", .handle = close_manifest,
	  .roles = ROLE_ADMIN, .body_max_bytes = 1024 },
	{ .method = "GET", .path = "/v1/manifests/{id}/export", .handle = export_csv,
	  .roles = ROLES_READ, .query = EXPORT_QUERY },
	{ .method = NULL },
};
