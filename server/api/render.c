#include "server/api/render.h"

#include <assert.h>

#include "base/clock.h"
#include "ca/cert.h"
#include "server/app.h"
#include "server/http/request.h"
#include "server/json_text.h"

#define HEX_MAX_BYTES 32
#define PEM_MAX_BYTES (64 * 1024)

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

/* Takes value; NULL is memory that was short. */
static enum status
set(json_t *object, const char *key, json_t *value, struct err *err)
{
	return json_object_set_new(object, key, value) == 0 ? OK : err_memory(err);
}

/* What a certificate shows, in its order, and the texts that it is made of. */
#define SHOWN_MAX 20

struct shown {
	char id[2 * DB_SHA256_BYTES + 1], predecessor[2 * DB_SHA256_BYTES + 1];
	char successor[2 * DB_SHA256_BYTES + 1];
	char serial[SERIAL_TEXT_BYTES];
	char issued_at[TIME_TEXT_BYTES], not_before[TIME_TEXT_BYTES], not_after[TIME_TEXT_BYTES];
	char revoked_at[TIME_TEXT_BYTES];
	struct buf pem;
	struct json_pair pairs[SHOWN_MAX];
	size_t count;
};

static void
shown_free(struct shown *shown)
{
	buf_free(&shown->pem);
}
OWNER_STRUCT(shown, shown_free)

static void
show(struct shown *shown, const char *name, struct view value)
{
	assert(shown->count < SHOWN_MAX);
	shown->pairs[shown->count++] = (struct json_pair){ name, value, false };
}

static void
show_hex(struct shown *shown, const char *name, char text[2 * DB_SHA256_BYTES + 1],
	const uint8_t sha256[DB_SHA256_BYTES])
{
	hex_encode(text, sha256, DB_SHA256_BYTES);
	show(shown, name, (struct view){ (const uint8_t *)text, 2 * DB_SHA256_BYTES });
}

static void
show_time(struct shown *shown, const char *name, char text[TIME_TEXT_BYTES], int64_t wall_s)
{
	if (wall_s != 0)
		time_format(text, wall_s);
	show(shown, name, wall_s != 0 ? view_text(text) : (struct view){ NULL, 0 });
	shown->pairs[shown->count - 1].null = wall_s == 0;
}

static void
show_optional(struct shown *shown, const struct db_certificate *c)
{
	if (c->manifest_id[0] != '\0')
		show(shown, "manifest", view_text(c->manifest_id));
	if (c->revoked) {
		show_time(shown, "revoked_at", shown->revoked_at, c->revoked_at_s);
		show(shown, "reason", view_text(revocation_reason_name(c->reason)));
	}
	if (c->has_predecessor)
		show_hex(shown, "predecessor", shown->predecessor, c->predecessor);
	if (c->has_successor)
		show_hex(shown, "successor", shown->successor, c->successor);
}

/* Borrows from c and app. */
static enum status
show_certificate(struct shown *shown, const struct app *app, const struct db_certificate *c,
	int64_t now_s, struct err *err)
{
	const struct app_ca *ca = app_ca_by_issuer(app, c->ref.issuer_id);

	TRY(ca_pem_encode(&shown->pem, "CERTIFICATE", view_of(&c->der), err));
	serial_format(shown->serial, &c->ref.serial);
	show_hex(shown, "certificate_id", shown->id, c->sha256);
	show(shown, "serial", view_text(shown->serial));
	show(shown, "ca", view_text(c->ca_id));
	show(shown, "profile", view_text(c->profile));
	show(shown, "device_id", view_text(c->device_id));
	show(shown, "subject", view_text(c->subject));
	show(shown, "status", view_text(cert_status_name(db_certificate_status_at(c, now_s))));
	show_time(shown, "issued_at", shown->issued_at, c->issued_at_s);
	show_time(shown, "not_before", shown->not_before, c->not_before_s);
	show_time(shown, "not_after", shown->not_after, c->not_after_s);
	show(shown, "certificate", buf_view(&shown->pem));
	show(shown, "chain", ca != NULL && ca->chain_pem.len > 0 ? view_of(&ca->chain_pem) :
		view_text(""));
	show(shown, "station", view_text(c->principal_id));
	show_optional(shown, c);
	return OK;
}

enum status
render_certificate(json_t **out, const struct app *app, const struct db_certificate *c, int64_t now_s,
	struct err *err)
{
	own_struct(shown) shown = { .pem = { .limit_bytes = PEM_MAX_BYTES } };
	own(json_t) json = json_object();

	if (json == NULL)
		return err_memory(err);
	TRY(show_certificate(&shown, app, c, now_s, err));
	for (size_t i = 0; i < shown.count; i++)
		TRY(set(json, shown.pairs[i].name, shown.pairs[i].null ? json_null() :
			render_view(shown.pairs[i].value), err));
	*out = give(json);
	return OK;
}

enum status
render_certificate_text(struct buf *out, const struct app *app, const struct db_certificate *c,
	int64_t now_s, bool clamped, struct err *err)
{
	own_struct(shown) shown = { .pem = { .limit_bytes = PEM_MAX_BYTES } };

	TRY(show_certificate(&shown, app, c, now_s, err));
	TRY(buf_text(out, "{", err));
	TRY(json_text_pairs(out, shown.pairs, shown.count, err));
	return buf_text(out, clamped ? ",\"clamped\":true}" : "}", err);
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
