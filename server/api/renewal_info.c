/*
 * server/api/renewal_info.c - GET /acme/renewal-info/{certID}: the rotation window in the shape of ACME
 * Renewal Information (RFC 9773), for clients that know that. Anyone may ask, as section 4.1 has it: who
 * asks knows a serial that cannot be guessed, and learns when its certificate should be renewed, which is no
 * secret. The window is that of GET /v1/rotation; what is revoked should have been renewed already
 * (section 4.2).
 */
#include "server/rotation.h"

#include <stdio.h>
#include <string.h>

#include "ca/cert.h"
#include "db/campaign.h"
#include "server/api/api.h"
#include "server/api/render.h"
#include "server/app.h"
#include "server/campaign_call.h"

#define KEY_ID_MAX_BYTES 64
/* Section 4.3: a client asks again at this pace, whatever it was told; six hours is what the RFC suggests. */
#define ASK_AGAIN_S (6 * 3600)
#define ASK_AGAIN_DUE_S 600

static int
digit_of(char c)
{
	static const char DIGITS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	const char *at = c != '\0' ? strchr(DIGITS, c) : NULL;

	return at != NULL ? (int)(at - DIGITS) : -1;
}

/* RFC 4648 section 5 without padding (section 4.1 here), unused bits zero. */
static bool
base64url(uint8_t *out, size_t size, const char *text, size_t text_len, size_t *len)
{
	uint32_t bits = 0;
	unsigned have = 0;

	*len = 0;
	for (size_t i = 0; i < text_len; i++) {
		int digit = digit_of(text[i]);

		if (digit < 0)
			return false;
		bits = bits << 6 | (uint32_t)digit;
		have += 6;
		if (have < 8)
			continue;
		have -= 8;
		if (*len == size)
			return false;
		out[(*len)++] = (uint8_t)(bits >> have);
		bits &= (UINT32_C(1) << have) - 1;
	}
	return have < 6 && bits == 0;
}

static enum status
find_issuer(const struct app *app, struct view key_id, const struct app_ca **out, struct err *err)
{
	for (size_t i = 0; i < app->ca_count; i++) {
		struct ca_cert_view ca;

		TRY(ca_cert_parse(&ca, view_of(&app->cas[i].certificate), err));
		if (ca.ski.len == key_id.len && memcmp(ca.ski.data, key_id.data, key_id.len) == 0) {
			*out = &app->cas[i];
			return OK;
		}
	}
	return err_set(err, ERR_NOT_FOUND, "certificate_unknown", "certID: not of a CA of ours");
}

static enum status
read_id(const struct app *app, const char *text, struct db_cert_ref *ref, struct err *err)
{
	const char *dot = strchr(text, '.');
	uint8_t key_id[KEY_ID_MAX_BYTES];
	uint8_t serial[sizeof(ref->serial.octets)];
	const struct app_ca *ca;
	size_t key_id_len;
	size_t serial_len;

	if (dot == NULL ||
	    !base64url(key_id, sizeof(key_id), text, (size_t)(dot - text), &key_id_len) ||
	    !base64url(serial, sizeof(serial), dot + 1, strlen(dot + 1), &serial_len) ||
	    key_id_len == 0 || serial_len == 0)
		return err_set(err, ERR_ARGUMENT, "renewal_id_malformed",
			"certID: RFC 9773 4.1: base64url of key identifier and serial with a dot wanted");
	if (serial_len != sizeof(serial))
		return err_set(err, ERR_NOT_FOUND, "certificate_unknown", "certID: no serial of ours");
	TRY(find_issuer(app, (struct view){ key_id, key_id_len }, &ca, err));
	ref->issuer_id = ca->issuer_id;
	memcpy(ref->serial.octets, serial, sizeof(serial));
	return OK;
}

struct row {
	struct db_certificate certificate;
	struct db_campaign_call call;
	bool called;
};

static void
row_free(struct row *row)
{
	db_certificate_free(&row->certificate);
}
OWNER_STRUCT(row, row_free)

static enum status
read_row(struct app *app, const struct db_cert_ref *ref, struct row *row, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_certificate_by_ref(&tx, ref, &row->certificate, err));
	return db_campaign_call(&tx, row->certificate.device_id, ref, &row->call, &row->called, err);
}

/* What is not live any more was to be renewed when it ended at the latest. */
static void
window_over(struct rotation_window *window, const struct db_certificate *certificate)
{
	window->due = true;
	window->end_s = certificate->status_at_s;
	window->start_s = certificate->status_at_s - 1;
}

static enum status
make_window(const struct app *app, const struct row *row, int64_t now_s, struct rotation_window *out,
	struct err *err)
{
	const struct db_certificate *certificate = &row->certificate;
	const struct ca_profile *profile = app_profile(app, certificate->profile);

	if (profile == NULL)
		return err_set(err, ERR_NOT_FOUND, "certificate_unknown",
			"certID: of a profile that is no longer in use");
	rotation_window(out, profile, certificate->device_id, certificate->sha256,
		certificate->not_before_s, certificate->not_after_s, now_s);
	if (certificate->status == CERT_REVOKED || certificate->status == CERT_SUPERSEDED)
		window_over(out, certificate);
	else if (row->called)
		(void)!campaign_call_apply(out, &row->call, now_s);
	/* Section 4.2: the end comes after the start. */
	if (out->end_s <= out->start_s)
		out->end_s = out->start_s + 1;
	return OK;
}

static enum status
renewal_info(struct app *app, struct request *request, struct err *err)
{
	int64_t now_s = clock_wall_s(app->clock);
	own_struct(row) row = { .called = false };
	own(json_t) json = json_object();
	own(json_t) span = json_object();
	struct rotation_window window;
	struct db_cert_ref ref;
	char again[24];

	if (json == NULL || span == NULL)
		return err_memory(err);
	TRY(read_id(app, request_param(request, "id"), &ref, err));
	TRY(read_row(app, &ref, &row, err));
	TRY(make_window(app, &row, now_s, &window, err));
	TRY(api_set(span, "start", render_time(window.start_s), err));
	TRY(api_set(span, "end", render_time(window.end_s), err));
	TRY(api_set(json, "suggestedWindow", give(span), err));
	(void)snprintf(again, sizeof(again), "%d", window.due ? ASK_AGAIN_DUE_S :
		window.retry_after_s < ASK_AGAIN_S ? (int)window.retry_after_s : ASK_AGAIN_S);
	TRY(request_reply_header(request, "Retry-After", again, err));
	return request_reply_json(request, 200, give(json), err);
}

const struct route RENEWAL_INFO_ROUTES[] = {
	{ .method = "GET", .path = "/acme/renewal-info/{id}", .handle = renewal_info,
	  .roles = ROLE_ANYONE },
	{ .method = NULL },
};
