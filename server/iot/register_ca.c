#include "server/iot/register_ca.h"

#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "ca/digest.h"
#include "ca/key.h"
#include "ca/pem.h"
#include "server/audit.h"
#include "server/http/request.h"
#include "server/issuance/own.h"
#include "server/retry.h"

#define PEM_MAX_BYTES (64 * 1024)

/* ---- the verification certificate ---- */

/* Recorded like any other certificate; its key is forgotten at once. */
static enum status
verification_pem(struct app *app, const struct app_ca *ca, const char *code, struct buf *pem,
	struct err *err)
{
	own_struct(db_certificate) certificate = { .issued_at_s = 0 };
	own(ca_key) key = NULL;

	if (!ca_is_registration_code(code))
		return err_set(err, ERR_UNAVAILABLE, "iot_answer_malformed",
			"GetRegistrationCode: 64 hex digits wanted");
	TRY(ca_key_generate(&key, KEY_EC_P256, err));
	TRY(issuance_own(app,
		&(struct issuance_own){ .profile = CA_PROFILE_VERIFICATION,
			.name = code,
			.actor = "server",
			.ca = ca,
			.spki = ca_key_spki(key),
			.key_type = KEY_EC_P256 },
		&certificate, err));
	TRY(ca_pem_encode(pem, "CERTIFICATE", view_of(&certificate.der), err));
	return buf_add(pem, "", 1, err);
}

/* ---- what is kept of it ---- */

static enum status
write_state(const struct iot_ca_change *change, const struct db_iot_ca *state, const char *action,
	struct err *err)
{
	struct app *app = change->site->room->app;
	own_struct(db_tx) tx = { NULL, NULL };
	own(json_t) detail = json_pack("{s:s, s:s, s:s, s:s}", "target", state->target,
		"ca_certificate_id", state->ca_certificate_id, "mode", state->mode, "status",
		state->status);
	char object[CA_ID_BYTES + 8];
	struct audit_item item = { .object = object, .detail = detail };
	struct audit_entry entry = { .action = action, .actor = change->actor,
		.request_id = change->request_id, .at_s = clock_wall_s(app->clock), .items = &item,
		.item_count = 1 };

	if (detail == NULL)
		return err_memory(err);
	(void)snprintf(object, sizeof(object), "ca:%s", change->ca->ca_id);
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_iot_ca_put(&tx, state, err));
	TRY(audit_write(app, &tx, &entry, err));
	TRY(db_outbox_notify(&tx, OUTBOX_TAKES, err));
	return db_tx_commit(&tx, err);
}

static enum status
keep(const struct iot_ca_change *change, const struct db_iot_ca *state, const char *action,
	struct err *err)
{
	unsigned tries = 0;
	enum status status;

	do
		status = write_state(change, state, action, err);
	while (retry_due(&tries, status, err));
	if (status == OK)
		log_event(LOG_INFO, "iot_ca", change->request_id, LOG_STR("action", action),
			LOG_STR("ca", change->ca->ca_id), LOG_STR("target", state->target),
			LOG_STR("status", state->status));
	return status;
}

static enum status
find(const struct iot_ca_change *change, struct db_iot_ca *out, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	TRY(db_tx_begin(&tx, change->site->room->app->pool, err));
	return db_iot_ca_find(&tx, change->site->target->name, change->ca->issuer_id, out, err);
}

/* ---- registering ---- */

static void
id_of_ca(char out[IOT_ID_BYTES], const struct app_ca *ca)
{
	uint8_t sha256[DB_SHA256_BYTES];

	ca_sha256(sha256, view_of(&ca->certificate));
	hex_encode(out, sha256, sizeof(sha256));
}

static enum status
describe(struct iot *iot, const char *id, struct db_iot_ca *out, bool *has_template, struct err *err)
{
	own_struct(iot_ca_certificate) found = { .status = IOT_STATUS_UNKNOWN };

	TRY(iot_describe_ca_certificate(iot, id, &found, err));
	(void)snprintf(out->ca_certificate_id, sizeof(out->ca_certificate_id), "%s", id);
	(void)snprintf(out->status, sizeof(out->status), "%s",
		found.status == IOT_STATUS_ACTIVE ? "ACTIVE" : "INACTIVE");
	(void)snprintf(out->mode, sizeof(out->mode), "%s",
		found.mode == IOT_MODE_SNI_ONLY ? "SNI_ONLY" : "DEFAULT");
	out->auto_registration = found.auto_registration == IOT_SWITCH_ENABLE;
	*has_template = found.has_registration_config;
	return OK;
}

/* It is there: by us, by hand, or by a call whose answer was lost. */
static enum status
adopt(struct iot *iot, struct db_iot_ca *out, struct err *err)
{
	char id[IOT_ID_BYTES];
	bool has_template;

	(void)snprintf(id, sizeof(id), "%s", out->ca_certificate_id);
	TRY(describe(iot, id, out, &has_template, err));
	if (has_template)
		return err_set(err, ERR_CONFLICT, "iot_ca_template", "DescribeCACertificate: %.16s… has a"
			" registrationConfig; remove it first (update-ca-certificate"
			" --remove-auto-registration)", id);
	if (strcmp(out->status, "ACTIVE") == 0 && out->auto_registration)
		return OK;
	TRY(iot_update_ca_certificate(iot, id, IOT_STATUS_ACTIVE, IOT_SWITCH_ENABLE, err));
	return describe(iot, id, out, &has_template, err);
}

static enum status
register_there(const struct iot_ca_change *change, struct iot *iot, struct db_iot_ca *out,
	struct err *err)
{
	const struct iot_target *target = change->site->target;
	own_struct(buf) ca_pem = { .limit_bytes = PEM_MAX_BYTES };
	own_struct(buf) proof = { .limit_bytes = PEM_MAX_BYTES };
	struct iot_register_ca spec = { .mode = target->mode, .active = true,
		.auto_registration = true };
	char code[IOT_ID_BYTES];
	struct iot_made made;
	enum status status;

	TRY(buf_add(&ca_pem, change->ca->certificate_pem.data, change->ca->certificate_pem.len, err));
	TRY(buf_add(&ca_pem, "", 1, err));
	spec.ca_pem = (const char *)ca_pem.data;
	if (target->mode != IOT_MODE_SNI_ONLY) {
		TRY(iot_get_registration_code(iot, code, err));
		TRY(verification_pem(change->site->room->app, change->ca, code, &proof, err));
		spec.verification_pem = (const char *)proof.data;
	}
	status = iot_register_ca_certificate(iot, &spec, &made, err);
	if (status == OK) {
		(void)snprintf(out->ca_certificate_id, sizeof(out->ca_certificate_id), "%.64s",
			made.id);
		return OK;
	}
	if (status != ERR_CONFLICT || iot->failure.error != AWS_ERROR_EXISTS)
		return status;
	if (strlen(iot->failure.resource_id) == IOT_ID_BYTES - 1)
		(void)snprintf(out->ca_certificate_id, sizeof(out->ca_certificate_id), "%.64s",
			iot->failure.resource_id);
	return OK;
}

/* As far as it is known without asking. */
static void
begin_state(const struct iot_ca_change *change, struct db_iot_ca *out)
{
	const struct iot_target *target = change->site->target;

	*out = (struct db_iot_ca){ .issuer_id = change->ca->issuer_id };
	(void)snprintf(out->target, sizeof(out->target), "%s", target->name);
	(void)snprintf(out->account, sizeof(out->account), "%s", target->account);
	(void)snprintf(out->region, sizeof(out->region), "%s", target->region);
	id_of_ca(out->ca_certificate_id, change->ca);
}

enum status
iot_ca_register(const struct iot_ca_change *change, struct db_iot_ca *out, struct err *err)
{
	struct iot iot = iot_site_calls(change->site, AWS_PRIORITY_URGENT);
	char id[IOT_ID_BYTES];
	enum status status;
	bool has_template;

	begin_state(change, out);
	id_of_ca(id, change->ca);
	/* Look first: a proof is a certificate of our CA, and those are not made for nothing. */
	status = describe(&iot, id, out, &has_template, err);
	if (status == ERR_NOT_FOUND)
		status = register_there(change, &iot, out, err);
	TRY(status);
	TRY(adopt(&iot, out, err));
	return keep(change, out, "iot.register_ca", err);
}

enum status
iot_ca_stop_auto(const struct iot_ca_change *change, struct db_iot_ca *out, struct err *err)
{
	struct iot iot = iot_site_calls(change->site, AWS_PRIORITY_URGENT);

	TRY(find(change, out, err));
	TRY(iot_update_ca_certificate(&iot, out->ca_certificate_id, IOT_STATUS_ACTIVE,
		IOT_SWITCH_DISABLE, err));
	(void)snprintf(out->status, sizeof(out->status), "ACTIVE");
	out->auto_registration = false;
	return keep(change, out, "iot.stop_auto_registration", err);
}

enum status
iot_ca_deactivate(const struct iot_ca_change *change, struct db_iot_ca *out, struct err *err)
{
	struct iot iot = iot_site_calls(change->site, AWS_PRIORITY_URGENT);

	TRY(find(change, out, err));
	TRY(iot_update_ca_certificate(&iot, out->ca_certificate_id, IOT_STATUS_INACTIVE,
		IOT_SWITCH_DISABLE, err));
	(void)snprintf(out->status, sizeof(out->status), "INACTIVE");
	out->auto_registration = false;
	return keep(change, out, "iot.deactivate_ca", err);
}

enum status
iot_ca_withdraw(const struct iot_ca_change *change, struct db_iot_ca *out, struct err *err)
{
	struct iot iot = iot_site_calls(change->site, AWS_PRIORITY_URGENT);
	char id[IOT_ID_BYTES];
	bool has_template;
	enum status status;

	begin_state(change, out);
	id_of_ca(id, change->ca);
	status = describe(&iot, id, out, &has_template, err);
	if (status == ERR_NOT_FOUND)
		return OK;
	TRY(status);
	if (strcmp(out->status, "INACTIVE") == 0 && !out->auto_registration)
		return OK;
	TRY(iot_update_ca_certificate(&iot, id, IOT_STATUS_INACTIVE, IOT_SWITCH_DISABLE, err));
	TRY(describe(&iot, id, out, &has_template, err));
	return keep(change, out, "iot.deactivate_ca", err);
}

enum status
iot_ca_delete(const struct iot_ca_change *change, struct db_iot_ca *out, struct err *err)
{
	struct iot iot = iot_site_calls(change->site, AWS_PRIORITY_URGENT);
	enum status status;

	TRY(find(change, out, err));
	status = iot_update_ca_certificate(&iot, out->ca_certificate_id, IOT_STATUS_INACTIVE,
		IOT_SWITCH_DISABLE, err);
	if (status == OK)
		status = iot_delete_ca_certificate(&iot, out->ca_certificate_id, err);
	if (status != OK && status != ERR_NOT_FOUND)
		return status;
	(void)snprintf(out->status, sizeof(out->status), "DELETED");
	out->auto_registration = false;
	return keep(change, out, "iot.delete_ca", err);
}
