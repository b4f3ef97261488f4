/* CA certificates: the registration code, register, describe, update, delete, list. */
#include <stdio.h>
#include <string.h>

#include "base/entropy.h"
#include "db/iotcore_account.h"
#include "db/iotcore_ca.h"
#include "server/iotcore/pages.h"
#include "server/iotcore/registry.h"
#include "server/iotcore/tables.h"
#include "server/iotcore/x509.h"

#define SAME_SUBJECT_MOST 10 /* AWS: CAs with one subject, per account and Region */

/* ---- registration code ---- */

static enum status
get_registration_code(struct call *call, struct err *err)
{
	char code[DB_REGISTRATION_CODE_BYTES];
	uint8_t random[32];

	TRY(db_iotcore_registration_code(call->tx, code, err));
	if (code[0] == '\0') {
		TRY(entropy_fill(&ENTROPY_SYSTEM, random, sizeof(random), err));
		hex_encode(code, random, sizeof(random));
		TRY(db_iotcore_registration_code_set(call->tx, code, err));
	}
	return call_reply(call, json_pack("{s:s}", "registrationCode", code), err);
}

static enum status
delete_registration_code(struct call *call, struct err *err)
{
	char code[DB_REGISTRATION_CODE_BYTES];

	TRY(db_iotcore_registration_code(call->tx, code, err));
	if (code[0] == '\0')
		return iotcore_error(err, "ResourceNotFoundException",
			"There is no registration code for this account.");
	return db_iotcore_registration_code_set(call->tx, NULL, err);
}

/* ---- register ---- */

/* That whoever registers it holds its key: a certificate for the registration code (DEFAULT mode).
 */
static enum status
check_verification(struct call *call, const struct x509_certificate *ca, struct err *err)
{
	const char *pem = call_text(call, "verificationCertificate");
	own_struct(x509_certificate) verification = { .id = "" };
	char code[DB_REGISTRATION_CODE_BYTES];
	struct err why;

	if (pem == NULL)
		return iotcore_error(err, "InvalidRequestException",
			"A verification certificate is required to register a CA certificate in "
			"DEFAULT mode.");
	TRY(x509_certificate_read(&verification, pem, "Verification certificate", err));
	TRY(db_iotcore_registration_code(call->tx, code, err));
	if (code[0] == '\0')
		return iotcore_error(err, "RegistrationCodeValidationException",
			"There is no registration code for this account: call "
		        "GetRegistrationCode.");
	if (!view_equal_text(verification.view.common_name, code))
		return iotcore_error(err, "RegistrationCodeValidationException",
			"The common name of the verification certificate is not the registration "
			"code.");
	if (ca_cert_issued_by(&verification.view, &ca->view, &why) != OK)
		return why.status != ERR_ARGUMENT
		               ? (*err = why).status
		               : iotcore_error(err, "CertificateValidationException",
					 "The verification certificate was not issued by the CA "
					 "certificate: %.250s",
					 why.text);
	return x509_check_validity(&verification, call->now_s, "Verification certificate", err);
}

/* RFC 5280 4.2.1.9, 4.2.1.3. A self-issued one also proves its own key; of others the issuer is not
 * here. */
static enum status
check_ca(struct call *call, const struct x509_certificate *ca, struct err *err)
{
	struct err why;

	if (ca->view.version != 3 || !ca->view.is_ca)
		return iotcore_error(err, "CertificateValidationException",
			"CA certificate is not valid: an X.509 version 3 certificate with "
			"basicConstraints CA:TRUE is required.");
	if (ca->view.has_key_usage && (ca->view.key_usage & KU_KEY_CERT_SIGN) == 0)
		return iotcore_error(err, "CertificateValidationException",
			"CA certificate is not valid: its keyUsage lacks keyCertSign.");
	TRY(x509_check_validity(ca, call->now_s, "CA certificate", err));
	if (!view_equal(ca->view.issuer, ca->view.subject) ||
		ca_cert_issued_by(&ca->view, &ca->view, &why) == OK)
		return OK;
	if (why.status != ERR_ARGUMENT)
		return (*err = why).status;
	return iotcore_error(err, "CertificateValidationException",
		"CA certificate is not valid: %.300s", why.text);
}

static enum status
take_config(struct call *call, struct db_iotcore_ca *out, struct err *err)
{
	const json_t *config = call_json(call, "registrationConfig");
	const char *text;

	if (config == NULL || json_object_size(config) == 0)
		return OK;
	if (json_object_get(config, "templateBody") != NULL &&
		json_object_get(config, "templateName") != NULL)
		return iotcore_error(err, "InvalidRequestException",
			"Specify either templateBody or templateName.");
	text = registry_dump(call, config);
	if (text == NULL)
		return err_memory(err);
	bytes_free(&out->registration_config);
	return bytes_copy(&out->registration_config, view_text(text), err);
}

static enum status
already(struct call *call, const struct x509_certificate *ca, const char *arn, struct err *err)
{
	return iotcore_exists(
		call, err, ca->id, arn, "CA certificate already exists. ID: %s", ca->id);
}

static enum status
check_room(struct call *call, const struct x509_certificate *ca, struct err *err)
{
	int64_t count;

	TRY(db_iotcore_ca_count_subject(call->tx, ca->view.subject, &count, err));
	if (count < SAME_SUBJECT_MOST)
		return OK;
	return iotcore_error(err, "LimitExceededException",
		"You have already registered %d CA certificates with this subject name.",
		SAME_SUBJECT_MOST);
}

static enum status
insert_ca(struct call *call, const struct x509_certificate *certificate, bool sni_only, bool *made,
	struct err *err)
{
	own_struct(db_iotcore_ca) ca = {
		.auto_registration = call_flag(call, "allowAutoRegistration", false),
		.not_before_s = certificate->view.not_before_s,
		.not_after_s = certificate->view.not_after_s,
	};

	memcpy(ca.certificate_id, certificate->id, sizeof(ca.certificate_id));
	(void)snprintf(ca.status, sizeof(ca.status), "%s",
		call_flag(call, "setAsActive", false) ? "ACTIVE" : "INACTIVE");
	(void)snprintf(ca.mode, sizeof(ca.mode), "%s", sni_only ? "SNI_ONLY" : "DEFAULT");
	TRY(take_config(call, &ca, err));
	TRY(bytes_copy(&ca.pem, view_of(&certificate->pem), err));
	TRY(bytes_copy(&ca.der, view_of(&certificate->der), err));
	TRY(bytes_copy(&ca.subject, certificate->view.subject, err));
	return db_iotcore_ca_insert(call->tx, &ca, made, err);
}

static enum status
register_ca(struct call *call, struct err *err)
{
	const char *mode = call_text(call, "certificateMode");
	bool sni_only = mode != NULL && strcmp(mode, "SNI_ONLY") == 0;
	own_struct(x509_certificate) ca = { .id = "" };
	own_struct(db_iotcore_ca) old = { .customer_version = 0 };
	char arn[IOTCORE_ARN_BYTES];
	enum status status;
	bool made;

	TRY(x509_certificate_read(&ca, call_text(call, "caCertificate"), "CA certificate", err));
	TRY(check_ca(call, &ca, err));
	if (sni_only && call_has(call, "verificationCertificate"))
		return iotcore_error(err, "InvalidRequestException",
			"A verification certificate must not be given in SNI_ONLY mode.");
	if (!sni_only)
		TRY(check_verification(call, &ca, err));
	iotcore_arn(arn, call->core, "cacert/%s", ca.id);
	status = db_iotcore_ca_find(call->tx, ca.id, &old, err);
	if (status == OK)
		return already(call, &ca, arn, err);
	if (status != ERR_NOT_FOUND)
		return status;
	TRY(check_room(call, &ca, err));
	TRY(insert_ca(call, &ca, sni_only, &made, err));
	if (!made)
		return already(call, &ca, arn, err);
	TRY(iotcore_tags_put(call, arn, call_json(call, "tags"), err));
	return call_reply(
		call, json_pack("{s:s,s:s}", "certificateArn", arn, "certificateId", ca.id), err);
}

/* ---- describe, update, delete, list ---- */

/* Ids are lower case here; the pattern lets others through. */
static enum status
find_ca(struct call *call, struct db_iotcore_ca *out, struct err *err)
{
	const char *id = call_text(call, "caCertificateId");
	enum status status = db_iotcore_ca_find(call->tx, id, out, err);

	if (status == ERR_NOT_FOUND)
		return iotcore_error(
			err, "ResourceNotFoundException", "CA certificate %s does not exist.", id);
	return status;
}

static json_t *
describe(const struct call *call, const struct db_iotcore_ca *ca)
{
	char arn[IOTCORE_ARN_BYTES];

	iotcore_arn(arn, call->core, "cacert/%s", ca->certificate_id);
	return json_pack("{s:s,s:s,s:s,s:s%,s:s,s:o,s:s,s:o,s:i,s:s,s:{s:o,s:o},s:s}",
		"certificateArn", arn, "certificateId", ca->certificate_id, "status", ca->status,
		"certificatePem", (const char *)ca->pem.data, ca->pem.len, "ownedBy",
		call->core->account, "creationDate", iotcore_time(ca->created_us),
		"autoRegistrationStatus", ca->auto_registration ? "ENABLE" : "DISABLE",
		"lastModifiedDate", iotcore_time(ca->modified_us), "customerVersion",
		(int)ca->customer_version, "generationId", ca->generation, "validity", "notBefore",
		iotcore_time(ca->not_before_s * 1000000), "notAfter",
		iotcore_time(ca->not_after_s * 1000000), "certificateMode", ca->mode);
}

static enum status
describe_ca(struct call *call, struct err *err)
{
	own_struct(db_iotcore_ca) ca = { .customer_version = 0 };
	json_t *config = NULL;

	TRY(find_ca(call, &ca, err));
	if (ca.registration_config.len > 0)
		TRY(registry_load(&config, view_of(&ca.registration_config), err));
	return call_reply(call,
		json_pack("{s:o,s:o*}", "certificateDescription", describe(call, &ca),
			"registrationConfig", config),
		err);
}

static enum status
update_ca(struct call *call, struct err *err)
{
	const char *status = call_text(call, "newStatus");
	const char *automatic = call_text(call, "newAutoRegistrationStatus");
	own_struct(db_iotcore_ca) ca = { .customer_version = 0 };

	TRY(find_ca(call, &ca, err));
	if (call_flag(call, "removeAutoRegistration", false)) {
		if (call_has(call, "registrationConfig"))
			return iotcore_error(err, "InvalidRequestException",
				"removeAutoRegistration and registrationConfig exclude each "
			        "other.");
		bytes_free(&ca.registration_config);
	}
	if (status != NULL)
		(void)snprintf(ca.status, sizeof(ca.status), "%s", status);
	if (automatic != NULL)
		ca.auto_registration = strcmp(automatic, "ENABLE") == 0;
	TRY(take_config(call, &ca, err));
	return db_iotcore_ca_update(call->tx, &ca, err);
}

static enum status
delete_ca(struct call *call, struct err *err)
{
	own_struct(db_iotcore_ca) ca = { .customer_version = 0 };
	char arn[IOTCORE_ARN_BYTES];

	TRY(find_ca(call, &ca, err));
	if (strcmp(ca.status, "INACTIVE") != 0)
		return iotcore_error(err, "CertificateStateException",
			"CA certificate must be deactivated (not ACTIVE) before deletion. ID: %s",
			ca.certificate_id);
	TRY(db_iotcore_ca_delete(call->tx, ca.certificate_id, err));
	iotcore_arn(arn, call->core, "cacert/%s", ca.certificate_id);
	return iotcore_tags_drop(call, arn, err);
}

static enum status
add_ca(void *arg, const struct db_iotcore_ca *ca, struct err *err)
{
	struct listing *list = arg;
	char arn[IOTCORE_ARN_BYTES];
	char key[CREATED_KEY_BYTES];

	iotcore_arn(arn, list->call->core, "cacert/%s", ca->certificate_id);
	created_key(key, ca->created_us, ca->certificate_id);
	return listing_add(list, key,
		json_pack("{s:s,s:s,s:s,s:o}", "certificateArn", arn, "certificateId",
			ca->certificate_id, "status", ca->status, "creationDate",
			iotcore_time(ca->created_us)),
		err);
}

static enum status
list_cas(struct call *call, struct err *err)
{
	own_struct(listing) list = { .items = NULL };
	struct db_iotcore_page page;

	TRY(created_page_read(&page, call, err));
	TRY(listing_begin(&list, call, err));
	TRY(db_iotcore_ca_list(
		call->tx, &page, call_text(call, "templateName"), add_ca, &list, err));
	return listing_end(&list, "certificates", err);
}

/* ---- the table ---- */

#define PEM_RULES .type = MEMBER_TEXT, .least = 1, .most = 65536

static const char *const MODES[] = { "DEFAULT", "SNI_ONLY", NULL };
static const char *const STATUSES[] = { "ACTIVE", "INACTIVE", NULL };
static const char *const AUTO_STATUSES[] = { "ENABLE", "DISABLE", NULL };

static bool
is_template_name(const char *text, size_t len)
{
	return len > 0 && PATTERN_THING_NAME.holds(text, len) && strchr(text, ':') == NULL;
}
static const struct pattern TEMPLATE_NAME = { "^[0-9A-Za-z_-]+$", is_template_name };

static const struct member CONFIG_MEMBERS[] = {
	{ .name = "templateBody", .type = MEMBER_TEXT, .most = 10240 },
	{ .name = "roleArn", .type = MEMBER_TEXT, .least = 20, .most = 2048 },
	{ .name = "templateName",
		.type = MEMBER_TEXT,
		.least = 1,
		.most = 36,
		.pattern = &TEMPLATE_NAME },
	{ .name = NULL },
};
#define CONFIG                                                                                     \
	{                                                                                          \
		.name = "registrationConfig", .at = AT_BODY, .type = MEMBER_STRUCT,                \
		.members = CONFIG_MEMBERS                                                          \
	}
#define CA_ID                                                                                      \
	{                                                                                          \
		.name = "caCertificateId", .at = AT_PATH, MEMBER_HEX_ID                            \
	}

static const struct member REGISTER_MEMBERS[] = {
	{ .name = "caCertificate", .at = AT_BODY, .required = true, PEM_RULES },
	{ .name = "verificationCertificate", .at = AT_BODY, PEM_RULES },
	{ .name = "setAsActive", .at = AT_QUERY, .type = MEMBER_FLAG },
	{ .name = "allowAutoRegistration", .at = AT_QUERY, .type = MEMBER_FLAG },
	CONFIG,
	{ .name = "tags", .at = AT_BODY, MEMBER_TAGS },
	{ .name = "certificateMode", .at = AT_BODY, .type = MEMBER_TEXT, .values = MODES },
	{ .name = NULL },
};

static const struct member UPDATE_MEMBERS[] = {
	CA_ID,
	{ .name = "newStatus", .at = AT_QUERY, .type = MEMBER_TEXT, .values = STATUSES },
	{ .name = "newAutoRegistrationStatus",
		.at = AT_QUERY,
		.type = MEMBER_TEXT,
		.values = AUTO_STATUSES },
	CONFIG,
	{ .name = "removeAutoRegistration", .at = AT_BODY, .type = MEMBER_FLAG },
	{ .name = NULL },
};

static const struct member ID_MEMBERS[] = { CA_ID, { .name = NULL } };

static const struct member LIST_MEMBERS[] = {
	{ .name = "templateName",
		.at = AT_QUERY,
		.type = MEMBER_TEXT,
		.least = 1,
		.most = 36,
		.pattern = &TEMPLATE_NAME },
	{ .name = NULL },
};

const struct op CA_CERTIFICATE_OPS[] = {
	{ .name = "GetRegistrationCode",
		.method = "GET",
		.path = "/registrationcode",
		.tx = TX_WRITE, /* the first call makes it */
		.handle = get_registration_code },
	{ .name = "DeleteRegistrationCode",
		.method = "DELETE",
		.path = "/registrationcode",
		.tx = TX_WRITE,
		.handle = delete_registration_code },
	{ .name = "RegisterCACertificate",
		.method = "POST",
		.path = "/cacertificate",
		.tx = TX_WRITE,
		.handle = register_ca,
		.members = REGISTER_MEMBERS },
	{ .name = "DescribeCACertificate",
		.method = "GET",
		.path = "/cacertificate/{caCertificateId}",
		.tx = TX_READ,
		.handle = describe_ca,
		.members = ID_MEMBERS },
	{ .name = "UpdateCACertificate",
		.method = "PUT",
		.path = "/cacertificate/{caCertificateId}",
		.tx = TX_WRITE,
		.handle = update_ca,
		.members = UPDATE_MEMBERS },
	{ .name = "DeleteCACertificate",
		.method = "DELETE",
		.path = "/cacertificate/{caCertificateId}",
		.tx = TX_WRITE,
		.handle = delete_ca,
		.members = ID_MEMBERS },
	{ .name = "ListCACertificates",
		.method = "GET",
		.path = "/cacertificates",
		.tx = TX_READ,
		.handle = list_cas,
		.members = LIST_MEMBERS,
		.page = PAGE_MARKER_ORDER },
	{ .name = NULL },
};
