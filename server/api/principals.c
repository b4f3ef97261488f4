#include "server/api/principals.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "server/api/api.h"
#include "server/api/render.h"
#include "server/api/tokens.h"
#include "server/app.h"
#include "server/auth.h"
#include "server/http/fields.h"

typedef struct db_principal db_principal;
OWNER(db_principal, mem_free)

/* Stations are principals too, but are made with what belongs to them (stations.c). */
static const char *const ROLES[] = { "admin", "operator", "auditor", NULL };

json_t *
principals_render(const struct db_principal *principal)
{
	return json_pack("{s:s, s:s, s:s, s:s, s:o, s:o}", "id", principal->principal_id, "role",
		principal->role, "description", principal->description, "created_by",
		principal->created_by, "created_at", render_time(principal->created_at_s),
		"disabled_at", render_time(principal->disabled_at_s));
}

enum status
principals_set_disabled(struct app *app, struct request *request, const char *kind, const char *id,
	bool disabled, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	char action[32];
	bool changed;

	(void)snprintf(action, sizeof(action), "%s.%s", kind, disabled ? "disable" : "enable");
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_principal_set_disabled(&tx, id, disabled, &changed, err));
	if (changed)
		TRY(api_audit(app, &tx, request, action, kind, id, NULL, err));
	return db_tx_commit(&tx, err);
}

/* The {id} of the path, as a principal that is no station. */
static enum status
find(struct app *app, struct request *request, struct db_principal *out, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	const char *id;

	TRY(fields_param_id(request, "id", &id, err));
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_principal_find(&tx, id, out, err));
	if (strcmp(out->role, "station") == 0)
		return err_set(err, ERR_NOT_FOUND, "principal_unknown",
			"that principal is a station: see /v1/stations");
	return db_tx_commit(&tx, err);
}

static enum status
reply(struct request *request, unsigned status, const struct db_principal *principal, struct err *err)
{
	json_t *json = principals_render(principal);

	return json != NULL ? request_reply_json(request, status, json, err) : err_memory(err);
}

static enum status
list(struct app *app, struct request *request, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	own(db_principal) rows = NULL;
	own(json_t) items = json_array();
	const char *role = NULL;
	char after[DB_ID_BYTES];
	size_t limit;
	size_t count;

	TRY(query_choice(request, "role", ROLES, &role, err));
	TRY(query_limit(request, &limit, err));
	TRY(query_cursor_text(request, "principals", after, sizeof(after), err));
	rows = mem_array(limit + 1, sizeof(*rows));
	if (rows == NULL || items == NULL)
		return err_memory(err);
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_principal_list(&tx, role, after, limit + 1, rows, &count, err));
	TRY(db_tx_commit(&tx, err));
	for (size_t i = 0; i < count && i < limit; i++)
		TRY(api_append(items, principals_render(&rows[i]), err));
	return api_reply_page(request, "principals", give(items), "principals",
		count > limit ? rows[limit - 1].principal_id : NULL, err);
}

static enum status
read_principal(struct db_principal *out, struct app *app, struct request *request, struct err *err)
{
	static const char *const ALLOWED[] = { "id", "role", "description", NULL };
	own(json_t) body = NULL;
	const char *id;
	const char *role;
	const char *description = "";

	TRY(request_json(request, &body, err));
	TRY(fields_check(body, ALLOWED, err));
	TRY(fields_id(body, "id", FIELD_REQUIRED, &id, err));
	TRY(fields_choice(body, "role", FIELD_REQUIRED, ROLES, &role, err));
	TRY(fields_string(body, "description", FIELD_OPTIONAL, PRINCIPAL_DESCRIPTION_MAX_BYTES,
		&description, err));
	*out = (struct db_principal){ .created_at_s = clock_wall_s(app->clock) };
	(void)snprintf(out->principal_id, sizeof(out->principal_id), "%s", id);
	(void)snprintf(out->role, sizeof(out->role), "%s", role);
	(void)snprintf(out->description, sizeof(out->description), "%s", description);
	(void)snprintf(out->created_by, sizeof(out->created_by), "%s", request_identity(request)->actor);
	return OK;
}

static enum status
create(struct app *app, struct request *request, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	own(json_t) detail = NULL;
	struct db_principal principal;

	TRY(read_principal(&principal, app, request, err));
	detail = json_pack("{s:s, s:s}", "role", principal.role, "description", principal.description);
	if (detail == NULL)
		return err_memory(err);
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_principal_create(&tx, &principal, err));
	TRY(api_audit(app, &tx, request, "principal.create", "principal", principal.principal_id, detail,
		err));
	TRY(db_tx_commit(&tx, err));
	return reply(request, 201, &principal, err);
}

static enum status
show(struct app *app, struct request *request, struct err *err)
{
	struct db_principal principal;

	TRY(find(app, request, &principal, err));
	return reply(request, 200, &principal, err);
}

static enum status
set_disabled(struct app *app, struct request *request, bool disabled, struct err *err)
{
	struct db_principal principal;

	TRY(api_no_fields(request, err));
	TRY(find(app, request, &principal, err));
	TRY(principals_set_disabled(app, request, "principal", principal.principal_id, disabled, err));
	return show(app, request, err);
}

static enum status
disable(struct app *app, struct request *request, struct err *err)
{
	return set_disabled(app, request, true, err);
}

static enum status
enable(struct app *app, struct request *request, struct err *err)
{
	return set_disabled(app, request, false, err);
}

static enum status
token_list(struct app *app, struct request *request, struct err *err)
{
	struct db_principal principal;

	TRY(find(app, request, &principal, err));
	return tokens_list(app, request, principal.principal_id, err);
}

static enum status
token_create(struct app *app, struct request *request, struct err *err)
{
	struct db_principal principal;

	TRY(find(app, request, &principal, err));
	return tokens_create(app, request, principal.principal_id, err);
}

static enum status
token_revoke(struct app *app, struct request *request, struct err *err)
{
	struct db_principal principal;

	TRY(find(app, request, &principal, err));
	return tokens_revoke(app, request, principal.principal_id, err);
}

static const char *const LIST_QUERY[] = { "role", "limit", "cursor", NULL };
static const char *const PAGE_QUERY[] = { "limit", "cursor", NULL };

#define SMALL_BODY 4096

const struct route PRINCIPAL_ROUTES[] = {
	{ .method = "GET", .path = "/v1/principals", .handle = list, .roles = ROLES_READ,
	  .query = LIST_QUERY },
	{ .method = "POST", .path = "/v1/principals", .handle = create, .roles = ROLE_ADMIN,
	  .body_max_bytes = SMALL_BODY },
	{ .method = "GET", .path = "/v1/principals/{id}", .handle = show, .roles = ROLES_READ },
	{ .method = "POST", .path = "/v1/principals/{id}/disable", .handle = disable,
	  .roles = ROLE_ADMIN, .body_max_bytes = SMALL_BODY },
	{ .method = "POST", .path = "/v1/principals/{id}/enable", .handle = enable, .roles = ROLE_ADMIN,
	  .body_max_bytes = SMALL_BODY },
	{ .method = "GET", .path = "/v1/principals/{id}/tokens", .handle = token_list,
	  .roles = ROLES_READ, .query = PAGE_QUERY },
	{ .method = "POST", .path = "/v1/principals/{id}/tokens", .handle = token_create,
	  .roles = ROLE_ADMIN, .body_max_bytes = SMALL_BODY },
	{ .method = "DELETE", .path = "/v1/principals/{id}/tokens/{token_id}", .handle = token_revoke,
	  .roles = ROLE_ADMIN },
	{ .method = NULL },
};
