#include <string.h>

#include "server/iot/iot_api_internal.h"

/* ---- CA certificates ---- */

enum status
iot_get_registration_code(struct iot *iot, char code[IOT_ID_BYTES], struct err *err)
{
	own_struct(iot_request) request = { .op = OP_GET_REGISTRATION_CODE };
	own(json_t) answer = NULL;

	TRY(iot_run(iot, &request, &answer, err));
	return iot_text(iot, answer, "registrationCode", code, IOT_ID_BYTES, err);
}

enum status
iot_register_ca_certificate(
	struct iot *iot, const struct iot_register_ca *spec, struct iot_made *out, struct err *err)
{
	own_struct(iot_request) request = { .op = OP_REGISTER_CA_CERTIFICATE };
	own(json_t) answer = NULL;
	bool sni_only = spec->mode == IOT_MODE_SNI_ONLY;

	TRY(iot_check(FORM_TEXT, "ca_pem", spec->ca_pem, err));
	if (spec->mode == IOT_MODE_UNKNOWN || sni_only != (spec->verification_pem == NULL))
		return err_set(err, ERR_ARGUMENT, "iot_argument",
			"verification_pem: wanted with mode DEFAULT, not with SNI_ONLY");
	iot_query(&request, "setAsActive", spec->active ? "true" : "false");
	iot_query(&request, "allowAutoRegistration", spec->auto_registration ? "true" : "false");
	TRY(iot_body(&request,
		json_pack("{s:s, s:s*, s:s*}", "caCertificate", spec->ca_pem,
			"verificationCertificate", spec->verification_pem, "certificateMode",
			sni_only ? "SNI_ONLY" : NULL),
		err));
	TRY(iot_run(iot, &request, &answer, err));
	return iot_read_made(iot, answer, "certificateArn", "certificateId", out, err);
}

void
iot_ca_certificate_free(struct iot_ca_certificate *certificate)
{
	bytes_free(&certificate->pem);
}

static enum status
read_ca(struct iot *iot, const json_t *item, void *arg, struct err *err)
{
	struct iot_ca_certificate *out = arg;

	TRY(iot_text(iot, item, "certificateArn", out->arn, sizeof(out->arn), err));
	TRY(iot_text(iot, item, "certificateId", out->id, sizeof(out->id), err));
	out->status = iot_status_parse(json_string_value(json_object_get(item, "status")));
	out->creation_s = iot_time_s(item, "creationDate");
	return OK;
}

enum status
iot_describe_ca_certificate(struct iot *iot, const char *id, struct iot_ca_certificate *out,
	struct err *err)
{
	own_struct(iot_request) request = { .op = OP_DESCRIBE_CA_CERTIFICATE, .labels = { id } };
	own(json_t) answer = NULL;
	const json_t *description, *config;
	const char *automatic;

	*out = (struct iot_ca_certificate){ .status = IOT_STATUS_UNKNOWN };
	TRY(iot_check(FORM_ID, "id", id, err));
	TRY(iot_run(iot, &request, &answer, err));
	description = json_object_get(answer, "certificateDescription");
	TRY(read_ca(iot, description, out, err));
	automatic = json_string_value(json_object_get(description, "autoRegistrationStatus"));
	out->auto_registration = automatic != NULL && strcmp(automatic, "ENABLE") == 0
	                                 ? IOT_SWITCH_ENABLE
	                                 : IOT_SWITCH_DISABLE;
	out->mode = iot_mode_of(description);
	config = json_object_get(answer, "registrationConfig");
	out->has_registration_config = json_object_size(config) > 0;
	return iot_bytes(iot, description, "certificatePem", &out->pem, err);
}

enum status
iot_update_ca_certificate(struct iot *iot, const char *id, enum iot_status new_status,
	enum iot_switch auto_registration, struct err *err)
{
	static const char *const SWITCHES[] = { [IOT_SWITCH_LEAVE] = NULL,
		[IOT_SWITCH_ENABLE] = "ENABLE",
		[IOT_SWITCH_DISABLE] = "DISABLE" };
	own_struct(iot_request) request = { .op = OP_UPDATE_CA_CERTIFICATE, .labels = { id } };

	TRY(iot_check(FORM_ID, "id", id, err));
	if (new_status > IOT_STATUS_INACTIVE || (unsigned)auto_registration >= COUNT_OF(SWITCHES))
		return err_set(
			err, ERR_ARGUMENT, "iot_argument", "new_status: ACTIVE or INACTIVE wanted");
	iot_query(&request, "newStatus",
		new_status != IOT_STATUS_UNKNOWN ? iot_status_name(new_status) : NULL);
	iot_query(&request, "newAutoRegistrationStatus", SWITCHES[auto_registration]);
	/* AWS's own client sends an empty object when no member of the body is given. */
	TRY(iot_body(&request, json_object(), err));
	return iot_run(iot, &request, NULL, err);
}

enum status
iot_delete_ca_certificate(struct iot *iot, const char *id, struct err *err)
{
	own_struct(iot_request) request = { .op = OP_DELETE_CA_CERTIFICATE, .labels = { id } };

	TRY(iot_check(FORM_ID, "id", id, err));
	return iot_run(iot, &request, NULL, err);
}

enum status
iot_list_ca_certificates(struct iot *iot, struct iot_cursor *cursor,
	struct iot_ca_certificate *items, size_t max, size_t *count, struct err *err)
{
	static const struct iot_list LIST = { PAGING_MARKER, "certificates", read_ca,
		sizeof(*items) };
	own_struct(iot_request) request = { .op = OP_LIST_CA_CERTIFICATES };

	return iot_list(iot, &request, &LIST, cursor, items, max, count, err);
}

/* ---- device certificates ---- */

static enum status
register_certificate(struct iot *iot, enum iot_op op, const char *pem, const char *ca_pem,
	enum iot_status status, struct iot_made *out, struct err *err)
{
	own_struct(iot_request) request = { .op = op };
	own(json_t) answer = NULL;

	TRY(iot_check(FORM_TEXT, "pem", pem, err));
	if (ca_pem != NULL)
		TRY(iot_check(FORM_TEXT, "ca_pem", ca_pem, err));
	if (status != IOT_STATUS_ACTIVE && status != IOT_STATUS_INACTIVE)
		return err_set(
			err, ERR_ARGUMENT, "iot_argument", "status: ACTIVE or INACTIVE wanted");
	TRY(iot_body(&request,
		json_pack("{s:s, s:s*, s:s}", "certificatePem", pem, "caCertificatePem", ca_pem,
			"status", iot_status_name(status)),
		err));
	TRY(iot_run(iot, &request, &answer, err));
	return iot_read_made(iot, answer, "certificateArn", "certificateId", out, err);
}

enum status
iot_register_certificate(struct iot *iot, const char *pem, const char *ca_pem,
	enum iot_status status, struct iot_made *out, struct err *err)
{
	return register_certificate(iot, OP_REGISTER_CERTIFICATE, pem, ca_pem, status, out, err);
}

enum status
iot_register_certificate_without_ca(struct iot *iot, const char *pem, enum iot_status status,
	struct iot_made *out, struct err *err)
{
	return register_certificate(
		iot, OP_REGISTER_CERTIFICATE_WITHOUT_CA, pem, NULL, status, out, err);
}

void
iot_certificate_free(struct iot_certificate *certificate)
{
	bytes_free(&certificate->pem);
}

static enum status
read_certificate(struct iot *iot, const json_t *item, void *arg, struct err *err)
{
	struct iot_certificate *out = arg;

	TRY(iot_text(iot, item, "certificateArn", out->arn, sizeof(out->arn), err));
	TRY(iot_text(iot, item, "certificateId", out->id, sizeof(out->id), err));
	out->status = iot_status_parse(json_string_value(json_object_get(item, "status")));
	out->mode = iot_mode_of(item);
	out->creation_s = iot_time_s(item, "creationDate");
	return OK;
}

enum status
iot_describe_certificate(
	struct iot *iot, const char *id, struct iot_certificate *out, struct err *err)
{
	own_struct(iot_request) request = { .op = OP_DESCRIBE_CERTIFICATE, .labels = { id } };
	own(json_t) answer = NULL;
	const json_t *description, *validity;

	*out = (struct iot_certificate){ .status = IOT_STATUS_UNKNOWN };
	TRY(iot_check(FORM_ID, "id", id, err));
	TRY(iot_run(iot, &request, &answer, err));
	description = json_object_get(answer, "certificateDescription");
	TRY(read_certificate(iot, description, out, err));
	TRY(iot_text_or_none(
		iot, description, "caCertificateId", out->ca_id, sizeof(out->ca_id), err));
	out->last_modified_s = iot_time_s(description, "lastModifiedDate");
	validity = json_object_get(description, "validity");
	out->not_before_s = iot_time_s(validity, "notBefore");
	out->not_after_s = iot_time_s(validity, "notAfter");
	return iot_bytes(iot, description, "certificatePem", &out->pem, err);
}

enum status
iot_update_certificate(struct iot *iot, const char *id, enum iot_status new_status, struct err *err)
{
	own_struct(iot_request) request = { .op = OP_UPDATE_CERTIFICATE, .labels = { id } };

	TRY(iot_check(FORM_ID, "id", id, err));
	if (new_status != IOT_STATUS_ACTIVE && new_status != IOT_STATUS_INACTIVE &&
		new_status != IOT_STATUS_REVOKED)
		return err_set(err, ERR_ARGUMENT, "iot_argument",
			"new_status: ACTIVE, INACTIVE or REVOKED wanted");
	iot_query(&request, "newStatus", iot_status_name(new_status));
	return iot_run(iot, &request, NULL, err);
}

enum status
iot_delete_certificate(struct iot *iot, const char *id, bool force, struct err *err)
{
	own_struct(iot_request) request = { .op = OP_DELETE_CERTIFICATE, .labels = { id } };

	TRY(iot_check(FORM_ID, "id", id, err));
	iot_query(&request, "forceDelete", force ? "true" : NULL);
	return iot_run(iot, &request, NULL, err);
}

static const struct iot_list CERTIFICATES = { PAGING_MARKER, "certificates", read_certificate,
	sizeof(struct iot_certificate) };

enum status
iot_list_certificates(struct iot *iot, bool newest_first, struct iot_cursor *cursor,
	struct iot_certificate *items, size_t max, size_t *count, struct err *err)
{
	own_struct(iot_request) request = { .op = OP_LIST_CERTIFICATES };

	iot_query(&request, "isAscendingOrder", newest_first ? "false" : "true");
	return iot_list(iot, &request, &CERTIFICATES, cursor, items, max, count, err);
}

enum status
iot_list_certificates_by_ca(struct iot *iot, const char *ca_id, bool newest_first,
	struct iot_cursor *cursor, struct iot_certificate *items, size_t max, size_t *count,
	struct err *err)
{
	own_struct(iot_request) request = { .op = OP_LIST_CERTIFICATES_BY_CA, .labels = { ca_id } };

	TRY(iot_check(FORM_ID, "ca_id", ca_id, err));
	iot_query(&request, "isAscendingOrder", newest_first ? "false" : "true");
	return iot_list(iot, &request, &CERTIFICATES, cursor, items, max, count, err);
}
