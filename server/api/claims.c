/*
 * server/api/claims.c - the recovery lane: a device whose certificate has run out, beyond its grace, cannot
 * show it any more. An operator or the station that had it issued gives a claim code for the device and the
 * hash of its new public key; with code and CSR the device gets a successor, to be confirmed as in any
 * rotation.
 *
 * A code is 32 random octets of which the hash is kept. Every refusal of a code is one answer after the same
 * statements, so that nobody learns from it whether there was such a code; an event says which it was.
 */
#include "db/claim_code.h"

#include <stdio.h>
#include <string.h>

#include "base/entropy.h"
#include "ca/csr.h"
#include "ca/digest.h"
#include "ca/secret.h"
#include "db/certificate.h"
#include "db/device.h"
#include "server/api/api.h"
#include "server/api/render.h"
#include "server/api/rotation_ask.h"
#include "server/app.h"
#include "server/auth.h"
#include "server/http/fields.h"
#include "server/http/pace.h"
#include "server/issuance/issuance.h"
#include "server/notify/event.h"

#define CSR_PEM_MAX_BYTES (16 * 1024)
#define CODE_MAX_BYTES 128
#define ID_OCTETS 16
#define VALID_FOR_S 86400
#define VALID_FOR_MOST_S (7 * 86400)
/* The same refusals are one event in so long: whoever guesses is not to fill the table. */
#define REFUSED_WITHIN_S 60

static const char *const RECOVERY_FIELDS[] = { "claim_code", "csr", NULL };

/* ---- a code is issued ---- */

/* Who has a certificate that works rotates with it; who must not have one gets none. */
static enum status
check_device(struct app *app, const struct identity *who, const struct db_device *device,
	const struct db_certificate *row, struct err *err)
{
	if (strcmp(device->status, "active") != 0)
		return err_set(err, ERR_CONFLICT, "claim_not_needed", "the device is %s", device->status);
	if (who->role == ROLE_STATION && strcmp(row->principal_id, who->actor) != 0)
		return err_set(err, ERR_DENIED, "claim_not_allowed",
			"the device's certificate was issued for another station");
	if (row->not_after_s > clock_wall_s(app->clock))
		return err_set(err, ERR_CONFLICT, "claim_not_needed",
			"the device's certificate has not run out: it can rotate");
	return OK;
}

static enum status
tell(struct db_tx *tx, const char *kind, const char *severity, const struct db_claim_code *code,
	const char *why, int64_t within_s, struct err *err)
{
	struct db_event event = { .event_id = 0 };

	(void)snprintf(event.kind, sizeof(event.kind), "%s", kind);
	(void)snprintf(event.severity, sizeof(event.severity), "%s", severity);
	(void)snprintf(event.device_id, sizeof(event.device_id), "%s", code->device_id);
	(void)snprintf(event.target, sizeof(event.target), "%s", code->claim_id);
	TRY(notify_event_detail(&event, json_pack("{s:s, s:s, s:s}", "claim", code->claim_id,
		"issued_by", code->issued_by, "why", why), err));
	return within_s > 0 ? notify_event_raise_once(tx, &event, within_s, err) :
		notify_event_raise(tx, &event, err);
}

static enum status
create_code(struct app *app, struct request *request, struct db_claim_code *code, struct err *err)
{
	own_struct(db_certificate) row = { .status = CERT_UNSET };
	own_struct(db_tx) tx = { NULL, NULL };
	struct db_device device;
	own(json_t) detail = json_pack("{s:s, s:s}", "claim", code->claim_id, "issued_by",
		code->issued_by);

	if (detail == NULL)
		return err_memory(err);
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_device_find(&tx, code->device_id, &device, err));
	if (device.current.issuer_id == 0)
		return err_set(err, ERR_CONFLICT, "claim_not_needed",
			"the device has no certificate that a successor could follow");
	code->ref = device.current;
	TRY(db_certificate_by_ref(&tx, &code->ref, &row, err));
	TRY(check_device(app, request_identity(request), &device, &row, err));
	TRY(db_claim_code_create(&tx, code, err));
	TRY(api_audit(app, &tx, request, "claim_code.issue", "device", code->device_id, detail, err));
	TRY(tell(&tx, "claim_code_issued", "medium", code, "", 0, err));
	return db_tx_commit(&tx, err);
}

static enum status
issue_code(struct app *app, struct request *request, struct err *err)
{
	static const char *const ALLOWED[] = { "spki_sha256", "valid_for_s", NULL };
	struct db_claim_code code = { .expires_at_s = 0 };
	char text[TOKEN_TEXT_BYTES];
	own(json_t) body = NULL;
	int64_t valid_for_s = VALID_FOR_S;
	uint8_t id[ID_OCTETS];
	const char *device_id;
	const char *spki;

	TRY(fields_param_id(request, "id", &device_id, err));
	TRY(request_json(request, &body, err));
	TRY(fields_check(body, ALLOWED, err));
	TRY(fields_string(body, "spki_sha256", FIELD_REQUIRED, 2 * DB_SHA256_BYTES, &spki, err));
	TRY(fields_int(body, "valid_for_s", FIELD_OPTIONAL, 60, VALID_FOR_MOST_S, &valid_for_s, err));
	if (!hex_decode(code.spki_sha256, sizeof(code.spki_sha256), spki, strlen(spki)))
		return err_set(err, ERR_ARGUMENT, "field_malformed",
			"spki_sha256: SHA-256 of the new SubjectPublicKeyInfo in lower-case hex wanted");
	TRY(entropy_fill(&ENTROPY_SYSTEM, id, sizeof(id), err));
	TRY(token_draw(text, err));
	hex_encode(code.claim_id, id, sizeof(id));
	ca_blake2b(code.hash, view_text(text));
	code.expires_at_s = clock_wall_s(app->clock) + valid_for_s;
	(void)snprintf(code.device_id, sizeof(code.device_id), "%s", device_id);
	(void)snprintf(code.issued_by, sizeof(code.issued_by), "%s", request_identity(request)->actor);
	TRY(create_code(app, request, &code, err));
	return request_reply_json(request, 201, json_pack("{s:s, s:s, s:s, s:s, s:o}", "claim_id",
		code.claim_id, "claim_code", text, "device_id", code.device_id, "spki_sha256", spki,
		"expires_at", render_time(code.expires_at_s)), err);
}

/* ---- and used ---- */

static enum status
read_key(struct app *app, const char *pem, uint8_t spki_sha256[DB_SHA256_BYTES], struct err *err)
{
	own_struct(ca_csr) csr = { .has_extensions = false };
	struct ca_verifier *verifier;
	enum status status;

	TRY(issuance_verifier_take(app->issuance, &verifier, err));
	status = ca_csr_read_pem(verifier, view_text(pem), &csr, err);
	issuance_verifier_give(app->issuance, verifier);
	if (status == OK)
		memcpy(spki_sha256, csr.spki_sha256, DB_SHA256_BYTES);
	return status;
}

/* From here on the request is the device's. */
static enum status
become(struct db_tx *tx, const struct db_claim_code *code, struct request *request, struct err *err)
{
	own_struct(db_certificate) row = { .status = CERT_UNSET };
	struct identity *identity = request_alloc(request, sizeof(*identity));

	if (identity == NULL)
		return err_memory(err);
	*identity = (struct identity){ .role = ROLE_DEVICE, .by_certificate = true,
		.certificate = code->ref };
	TRY(db_certificate_by_ref(tx, &code->ref, &row, err));
	(void)snprintf(identity->actor, sizeof(identity->actor), "%s", code->device_id);
	memcpy(identity->certificate_id, row.sha256, sizeof(identity->certificate_id));
	(void)snprintf(identity->profile, sizeof(identity->profile), "%s", row.profile);
	identity->not_before_s = row.not_before_s;
	identity->not_after_s = row.not_after_s;
	identity->certificate_status = row.status;
	(void)snprintf(identity->device_status, sizeof(identity->device_status), "%s",
		row.device_status);
	request_set_identity(request, identity);
	request_set_actor(request, identity->actor);
	return OK;
}

/* The code is used up and that is committed before anything is signed: no second request finds it unused. */
static enum status
use_code(struct app *app, struct request *request, const char *text, const uint8_t spki[DB_SHA256_BYTES],
	struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	int64_t now_s = clock_wall_s(app->clock);
	uint8_t hash[DB_SHA256_BYTES];
	struct db_claim_code code;
	const char *why;
	bool found;
	bool used;

	ca_blake2b(hash, view_text(text));
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_claim_code_use(&tx, hash, spki, &code, &found, &used, err));
	why = !found ? "unknown" : code.expires_at_s <= now_s ? "expired" :
		memcmp(code.spki_sha256, spki, DB_SHA256_BYTES) != 0 ? "another_key" : "used_before";
	if (used) {
		TRY(become(&tx, &code, request, err));
		TRY(api_audit(app, &tx, request, "claim_code.use", "device", code.device_id, NULL, err));
		TRY(tell(&tx, "claim_code_used", "medium", &code, "", 0, err));
	} else {
		TRY(tell(&tx, "claim_code_refused", "high", &code, why, REFUSED_WITHIN_S, err));
	}
	TRY(db_tx_commit(&tx, err));
	return used ? OK : err_set(err, ERR_DENIED, "claim_code_invalid",
		"claim_code: not one that is valid for this key, or not any more");
}

static enum status
recover(struct app *app, struct request *request, struct err *err)
{
	uint8_t spki[DB_SHA256_BYTES];
	own(json_t) body = NULL;
	const char *text;
	const char *pem;

	TRY(request_pace(request, PACE_ADDRESS, err));
	TRY(request_json(request, &body, err));
	TRY(fields_check(body, RECOVERY_FIELDS, err));
	TRY(fields_string(body, "claim_code", FIELD_REQUIRED, CODE_MAX_BYTES, &text, err));
	TRY(fields_text(body, "csr", FIELD_REQUIRED, CSR_PEM_MAX_BYTES, &pem, err));
	TRY(read_key(app, pem, spki, err));
	TRY(use_code(app, request, text, spki, err));
	return rotation_ask_successor(app, request, give(body), RECOVERY_FIELDS, err);
}

const struct route CLAIM_ROUTES[] = {
	{ .method = "POST", .path = "/v1/devices/{id}/claim-codes", .handle = issue_code,
	  .roles = ROLE_ADMIN | ROLE_OPERATOR | ROLE_STATION, .body_max_bytes = 4096 },
	{ .method = "POST", .path = "/v1/recovery", .handle = recover, .roles = ROLE_ANYONE,
	  .listeners = LISTENER_HTTPS, .body_max_bytes = 32 * 1024 },
	{ .method = NULL },
};
