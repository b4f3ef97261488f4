/* The CAs as this server knows them since its start: from memory, also while PostgreSQL is away. */
#include <string.h>

#include "ca/cert.h"
#include "ca/digest.h"
#include "server/api/api.h"
#include "server/api/render.h"
#include "server/app.h"

/* RFC 8555 9.1 for chains; RFC 2585 4.1 for one certificate in DER. */
#define TYPE_PEM "application/pem-certificate-chain"
#define TYPE_DER "application/pkix-cert"

static json_t *
text_of(const struct bytes *pem)
{
	return json_stringn(pem->len > 0 ? (const char *)pem->data : "", pem->len);
}

static json_t *
render_ca(const struct app *app, const struct app_ca *ca)
{
	char subject[512];
	uint8_t sha256[32];

	ca_name_text(subject, sizeof(subject), view_of(&ca->subject_name));
	ca_sha256(sha256, view_of(&ca->certificate));
	return json_pack("{s:s, s:s, s:o, s:b, s:b, s:o, s:o, s:o, s:o, s:o}", "id", ca->ca_id, "subject",
		subject, "certificate_id", render_hex(sha256, sizeof(sha256)), "can_sign", ca->can_sign,
		"issuing", ca == app->issuing, "not_before", render_time(ca->not_before_s), "not_after",
		render_time(ca->not_after_s), "certificate", text_of(&ca->certificate_pem), "chain",
		text_of(&ca->chain_pem), "root", text_of(&ca->root_pem));
}

static enum status
find(const struct app *app, const struct request *request, const struct app_ca **out, struct err *err)
{
	*out = app_ca_by_id(app, request_param(request, "id"));
	if (*out == NULL)
		return err_set(err, ERR_NOT_FOUND, "ca_unknown", "there is no CA of that id");
	return OK;
}

static enum status
list(struct app *app, struct request *request, struct err *err)
{
	own(json_t) items = json_array();

	if (items == NULL)
		return err_memory(err);
	for (size_t i = 0; i < app->ca_count; i++)
		TRY(api_append(items, render_ca(app, &app->cas[i]), err));
	return api_reply_page(request, "cas", give(items), "cas", NULL, err);
}

static enum status
show(struct app *app, struct request *request, struct err *err)
{
	const struct app_ca *ca;
	json_t *json;

	TRY(find(app, request, &ca, err));
	json = render_ca(app, ca);
	return json != NULL ? request_reply_json(request, 200, json, err) : err_memory(err);
}

static enum status
cacheable(struct request *request, struct err *err)
{
	TRY(request_reply_header(request, "Vary", "Accept", err));
	return request_reply_header(request, "Cache-Control", "public, max-age=3600", err);
}

static enum status
certificate(struct app *app, struct request *request, struct err *err)
{
	/* DER unless asked otherwise: that is what follows the AIA of a certificate (RFC 5280 4.2.2.1). */
	static const char *const TYPES[] = { TYPE_DER, "application/x-x509-ca-cert", TYPE_PEM,
		"application/x-pem-file", "text/plain", NULL };
	const struct app_ca *ca;
	const char *type = request_accept(request, TYPES);
	bool der;

	TRY(find(app, request, &ca, err));
	if (type == NULL)
		return err_set(err, ERR_ARGUMENT, "not_acceptable", "Accept: " TYPE_PEM " or " TYPE_DER
			" wanted");
	der = type == TYPES[0] || type == TYPES[1];
	TRY(cacheable(request, err));
	return request_reply_bytes(request, 200, type,
		view_of(der ? &ca->certificate : &ca->certificate_pem), err);
}

/* What a server sends behind a leaf of this CA: up to but without the root, which has none. */
static enum status
chain(struct app *app, struct request *request, struct err *err)
{
	static const char *const TYPES[] = { TYPE_PEM, "application/x-pem-file", "text/plain", NULL };
	const struct app_ca *ca;
	const char *type = request_accept(request, TYPES);

	TRY(find(app, request, &ca, err));
	if (type == NULL)
		return err_set(err, ERR_ARGUMENT, "not_acceptable", "Accept: " TYPE_PEM " wanted");
	TRY(cacheable(request, err));
	return request_reply_bytes(request, 200, type,
		view_of(ca->chain_pem.len > 0 ? &ca->chain_pem : &ca->certificate_pem), err);
}

#define EVERYWHERE (LISTENER_HTTP | LISTENER_HTTPS | LISTENER_STATIONS)

const struct route CA_ROUTES[] = {
	{ .method = "GET", .path = "/v1/cas", .handle = list, .roles = ROLE_ANYONE,
	  .listeners = EVERYWHERE, .inline_ok = true },
	{ .method = "GET", .path = "/v1/cas/{id}", .handle = show, .roles = ROLE_ANYONE,
	  .listeners = EVERYWHERE, .inline_ok = true },
	{ .method = "GET", .path = "/v1/cas/{id}/certificate", .handle = certificate,
	  .roles = ROLE_ANYONE, .listeners = EVERYWHERE, .inline_ok = true },
	{ .method = "GET", .path = "/v1/cas/{id}/chain", .handle = chain, .roles = ROLE_ANYONE,
	  .listeners = EVERYWHERE, .inline_ok = true },
	{ .method = NULL },
};
