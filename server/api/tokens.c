#include "server/api/tokens.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "ca/digest.h"
#include "ca/secret.h"
#include "db/principal.h"
#include "server/api/api.h"
#include "server/api/render.h"
#include "server/app.h"
#include "server/auth.h"
#include "server/http/fields.h"

#define DESCRIPTION_MAX_BYTES 256
#define TOKEN_ID_OCTETS 8
#define VALID_FOR_DEFAULT_S ((int64_t)90 * 24 * 3600)
#define VALID_FOR_MAX_BYTES 16

typedef struct db_token db_token;
OWNER(db_token, mem_free)

static json_t *
render_token(const struct db_token *token)
{
	return json_pack("{s:s, s:s, s:s, s:o, s:o, s:o}", "token_id", token->token_id, "description",
		token->description, "created_by", token->created_by, "created_at",
		render_time(token->created_at_s), "expires_at", render_time(token->expires_at_s),
		"revoked_at", render_time(token->revoked_at_s));
}

/* At most one of expires_at and valid_for; without either, the default or the longest allowed. */
static enum status
read_expiry(const json_t *body, const struct app *app, int64_t now_s, int64_t *expires_at_s,
	struct err *err)
{
	int64_t most_s = app->config.token_validity_max_s;
	const char *valid_for = NULL;
	int64_t valid_for_s = most_s < VALID_FOR_DEFAULT_S ? most_s : VALID_FOR_DEFAULT_S;

	*expires_at_s = 0;
	TRY(fields_time(body, "expires_at", FIELD_OPTIONAL, expires_at_s, err));
	TRY(fields_string(body, "valid_for", FIELD_OPTIONAL, VALID_FOR_MAX_BYTES, &valid_for, err));
	if (*expires_at_s != 0 && valid_for != NULL)
		return err_set(err, ERR_ARGUMENT, "fields_exclusive",
			"expires_at, valid_for: at most one of them wanted, both found");
	if (valid_for != NULL && !duration_parse(&valid_for_s, valid_for))
		return err_set(err, ERR_ARGUMENT, "valid_for_malformed",
			"valid_for: a whole number with one unit of s, m, h, d wanted, such as 90d");
	if (*expires_at_s == 0)
		*expires_at_s = now_s + valid_for_s;
	if (*expires_at_s <= now_s)
		return err_set(err, ERR_ARGUMENT, "token_expiry_past",
			"expires_at: a time in the future wanted");
	if (*expires_at_s - now_s > most_s)
		return err_set(err, ERR_ARGUMENT, "token_validity_too_long",
			"expires_at: at most %lld s from now wanted (token_validity_max)",
			(long long)most_s);
	return OK;
}

static enum status
read_token(struct db_token *token, struct request *request, const struct app *app,
	const char *principal_id, struct err *err)
{
	static const char *const ALLOWED[] = { "description", "expires_at", "valid_for", NULL };
	own(json_t) body = NULL;
	const char *description = "";

	TRY(api_json_or_empty(request, &body, err));
	TRY(fields_check(body, ALLOWED, err));
	TRY(fields_string(body, "description", FIELD_OPTIONAL, DESCRIPTION_MAX_BYTES, &description, err));
	token->created_at_s = clock_wall_s(app->clock);
	TRY(read_expiry(body, app, token->created_at_s, &token->expires_at_s, err));
	(void)snprintf(token->principal_id, sizeof(token->principal_id), "%s", principal_id);
	(void)snprintf(token->description, sizeof(token->description), "%s", description);
	(void)snprintf(token->created_by, sizeof(token->created_by), "%s",
		request_identity(request)->actor);
	return OK;
}

/* Answers with the token itself, this once. */
static enum status
reply_token(struct request *request, const struct db_token *token, const char *text, struct err *err)
{
	own(json_t) answer = render_token(token);

	if (answer == NULL)
		return err_memory(err);
	TRY(api_set(answer, "token", json_string(text), err));
	TRY(api_set(answer, "principal", json_string(token->principal_id), err));
	TRY(request_reply_header(request, "Cache-Control", "no-store", err));
	return request_reply_json(request, 201, give(answer), err);
}

static enum status
create(struct app *app, struct request *request, const struct db_token *token, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	own(json_t) detail = json_pack("{s:s, s:s, s:o}", "token_id", token->token_id, "description",
		token->description, "expires_at", render_time(token->expires_at_s));

	if (detail == NULL)
		return err_memory(err);
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_token_create(&tx, token, err));
	TRY(api_audit(app, &tx, request, "token.create", "principal", token->principal_id, detail, err));
	return db_tx_commit(&tx, err);
}

enum status
tokens_create(struct app *app, struct request *request, const char *principal_id, struct err *err)
{
	struct db_token token = { .revoked_at_s = 0 };
	char text[TOKEN_TEXT_BYTES];
	uint8_t id[TOKEN_ID_OCTETS];
	enum status status;

	TRY(read_token(&token, request, app, principal_id, err));
	TRY(entropy_fill(&ENTROPY_SYSTEM, id, sizeof(id), err));
	hex_encode(token.token_id, id, sizeof(id));
	TRY(token_draw(text, err));
	ca_blake2b(token.hash, view_text(text));
	status = create(app, request, &token, err);
	if (status == OK)
		status = reply_token(request, &token, text, err);
	explicit_bzero(text, sizeof(text));
	return status;
}

enum status
tokens_list(struct app *app, struct request *request, const char *principal_id, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	own(db_token) rows = NULL;
	own(json_t) items = json_array();
	char after[sizeof(rows->token_id)];
	size_t limit;
	size_t count;

	TRY(query_limit(request, &limit, err));
	TRY(query_cursor_text(request, "tokens", after, sizeof(after), err));
	rows = mem_array(limit + 1, sizeof(*rows));
	if (rows == NULL || items == NULL)
		return err_memory(err);
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_token_list(&tx, principal_id, after, limit + 1, rows, &count, err));
	TRY(db_tx_commit(&tx, err));
	for (size_t i = 0; i < count && i < limit; i++)
		TRY(api_append(items, render_token(&rows[i]), err));
	return api_reply_page(request, "tokens", give(items), "tokens",
		count > limit ? rows[limit - 1].token_id : NULL, err);
}

enum status
tokens_revoke(struct app *app, struct request *request, const char *principal_id, struct err *err)
{
	const char *token_id = request_param(request, "token_id");
	own_struct(db_tx) tx = { NULL, NULL };
	own(json_t) detail = NULL;
	uint8_t octets[TOKEN_ID_OCTETS];
	bool changed;

	if (!hex_decode(octets, sizeof(octets), token_id, strlen(token_id)))
		return err_set(err, ERR_NOT_FOUND, "token_unknown", "there is no token of that id");
	detail = json_pack("{s:s}", "token_id", token_id);
	if (detail == NULL)
		return err_memory(err);
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_token_revoke(&tx, principal_id, token_id, &changed, err));
	if (changed)
		TRY(api_audit(app, &tx, request, "token.revoke", "principal", principal_id, detail, err));
	TRY(db_tx_commit(&tx, err));
	return request_reply_bytes(request, 204, "application/json", (struct view){ NULL, 0 }, err);
}
