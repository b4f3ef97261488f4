#include "server/api/render.h"

#include <assert.h>

#include "base/clock.h"
#include "ca/cert.h"
#include "server/app.h"
#include "server/http/request.h"

#define HEX_MAX_BYTES 32

json_t *
render_time(int64_t wall_s)
{
	char text[TIME_TEXT_BYTES];

	if (wall_s == 0)
		return json_null();
	time_format(text, wall_s);
	return json_string(text);
}

json_t *
render_hex(const uint8_t *data, size_t len)
{
	char text[2 * HEX_MAX_BYTES + 1];

	assert(len <= HEX_MAX_BYTES);
	hex_encode(text, data, len);
	return json_stringn(text, 2 * len);
}

static json_t *
render_view(struct view text)
{
	return json_stringn(text.len > 0 ? (const char *)text.data : "", text.len);
}

static json_t *
render_serial(const struct serial *serial)
{
	char text[SERIAL_TEXT_BYTES];

	serial_format(text, serial);
	return json_string(text);
}

/* Takes value; NULL is memory that was short. */
static enum status
set(json_t *object, const char *key, json_t *value, struct err *err)
{
	return json_object_set_new(object, key, value) == 0 ? OK : err_memory(err);
}

static enum status
set_optional(json_t *json, const struct db_certificate *c, struct err *err)
{
	if (c->manifest_id[0] != '\0')
		TRY(set(json, "manifest", json_string(c->manifest_id), err));
	if (c->revoked) {
		TRY(set(json, "revoked_at", render_time(c->revoked_at_s), err));
		TRY(set(json, "reason", json_string(revocation_reason_name(c->reason)), err));
	}
	if (c->has_predecessor)
		TRY(set(json, "predecessor", render_hex(c->predecessor, DB_SHA256_BYTES), err));
	if (c->has_successor)
		TRY(set(json, "successor", render_hex(c->successor, DB_SHA256_BYTES), err));
	return OK;
}

enum status
render_certificate(json_t **out, const struct app *app, const struct db_certificate *c, int64_t now_s,
	struct err *err)
{
	const struct app_ca *ca = app_ca_by_issuer(app, c->ref.issuer_id);
	struct view chain = ca != NULL ? view_of(&ca->chain_pem) : (struct view){ NULL, 0 };
	own_struct(buf) pem = { .limit_bytes = 64 * 1024 };
	own(json_t) json = json_object();

	if (json == NULL)
		return err_memory(err);
	TRY(ca_pem_encode(&pem, "CERTIFICATE", view_of(&c->der), err));
	TRY(set(json, "certificate_id", render_hex(c->sha256, DB_SHA256_BYTES), err));
	TRY(set(json, "serial", render_serial(&c->ref.serial), err));
	TRY(set(json, "ca", json_string(c->ca_id), err));
	TRY(set(json, "profile", json_string(c->profile), err));
	TRY(set(json, "device_id", json_string(c->device_id), err));
	TRY(set(json, "subject", json_string(c->subject), err));
	TRY(set(json, "status", json_string(cert_status_name(db_certificate_status_at(c, now_s))), err));
	TRY(set(json, "issued_at", render_time(c->issued_at_s), err));
	TRY(set(json, "not_before", render_time(c->not_before_s), err));
	TRY(set(json, "not_after", render_time(c->not_after_s), err));
	TRY(set(json, "certificate", render_view(buf_view(&pem)), err));
	TRY(set(json, "chain", render_view(chain), err));
	TRY(set(json, "station", json_string(c->principal_id), err));
	TRY(set_optional(json, c, err));
	*out = give(json);
	return OK;
}

static bool
root_seen(const struct app *app, size_t index)
{
	for (size_t i = 0; i < index; i++)
		if (view_equal(view_of(&app->cas[i].root_pem), view_of(&app->cas[index].root_pem)))
			return true;
	return false;
}

enum status
render_trust(json_t *into, const struct app *app, int64_t now_s, struct err *err)
{
	own_struct(buf) bundle = { .limit_bytes = COUNT_OF(app->cas) * 64 * 1024 };

	for (size_t i = 0; i < app->ca_count; i++)
		if (!root_seen(app, i))
			TRY(buf_add(&bundle, app->cas[i].root_pem.data, app->cas[i].root_pem.len, err));
	TRY(set(into, "server_time", render_time(now_s), err));
	return set(into, "trust_bundle", render_view(buf_view(&bundle)), err);
}
