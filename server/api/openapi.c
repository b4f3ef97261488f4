#include "server/api/openapi.h"

#include "server/api/api.h"

static enum status
openapi_get(struct app *app, struct request *request, struct err *err)
{
	struct view text = { OPENAPI_JSON, OPENAPI_JSON_BYTES };

	(void)app;
	TRY(request_reply_header(request, "Cache-Control", "public, max-age=3600", err));
	return request_reply_bytes(request, 200, "application/json", text, err);
}

const struct route OPENAPI_ROUTES[] = {
	{ .method = "GET", .path = "/v1/openapi.json", .handle = openapi_get, .roles = ROLE_ANYONE,
	  .inline_ok = true },
	{ .method = NULL },
};
