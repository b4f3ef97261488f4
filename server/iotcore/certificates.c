/* Device certificates: register with and without a CA, describe, update, delete, list. */
#include <stdio.h>
#include <string.h>

#include "db/iotcore_certificate.h"
#include "server/iotcore/pages.h"
#include "server/iotcore/registry.h"
#include "server/iotcore/tables.h"
#include "server/iotcore/x509.h"

/* ---- register ---- */

/* Among the registered CAs the one that issued a certificate. */
struct issuer_search {
	const struct x509_certificate *certificate;
	const char *wanted; /* the id of caCertificatePem; NULL: any */
	unsigned named;     /* how many DEFAULT ones have the subject that the certificate names */
	bool inactive, issued;
	char id[DB_IOTCORE_ID_BYTES];
	struct err why;
};

static enum status
look_at_issuer(void *arg, const struct db_iotcore_ca *ca, struct err *err)
{
	struct issuer_search *search = arg;
	struct ca_cert_view view;

	if (strcmp(ca->mode, "DEFAULT") != 0)
		return OK;
	search->named++;
	if (search->wanted != NULL && strcmp(search->wanted, ca->certificate_id) != 0)
		return OK;
	TRY(ca_cert_parse_any(&view, view_of(&ca->der), err));
	if (ca_cert_issued_by(&search->certificate->view, &view, &search->why) != OK)
		return search->why.status == ERR_ARGUMENT ? OK : (*err = search->why).status;
	search->issued = true;
	search->inactive = strcmp(ca->status, "ACTIVE") != 0;
	memcpy(search->id, ca->certificate_id, sizeof(search->id));
	return OK;
}

static enum status
find_issuer(struct call *call, struct issuer_search *search, struct err *err)
{
	const char *pem = call_text(call, "caCertificatePem");
	own_struct(x509_certificate) ca = { .id = "" };

	if (pem != NULL) {
		TRY(x509_certificate_read(&ca, pem, "CA certificate", err));
		search->wanted = ca.id;
	}
	TRY(db_iotcore_ca_by_subject(
		call->tx, search->certificate->view.issuer, look_at_issuer, search, err));
	if (search->named > 1 && pem == NULL)
		return iotcore_error(err, "CertificateConflictException",
			"More than one registered CA certificate has the subject that issued this "
			"certificate: specify caCertificatePem.");
	if (search->issued && search->inactive)
		return iotcore_error(err, "CertificateStateException",
			"The CA certificate must be ACTIVE. ID: %s", search->id);
	if (search->issued)
		return OK;
	return iotcore_error(err, "CertificateValidationException",
		search->named == 0
			? "The certificate was not issued by a registered CA certificate."
			: "The certificate was not issued by the CA certificate that it "
			  "names.");
}

/* REVOKED, too: whoever brings a fleet over from elsewhere brings those. */
static const char *
status_wanted(const struct call *call, bool set_as_active)
{
	const char *status = call_text(call, "status");

	return status != NULL ? status : set_as_active ? "ACTIVE" : "INACTIVE";
}

static enum status
check_status(const char *status, struct err *err)
{
	if (strcmp(status, "ACTIVE") == 0 || strcmp(status, "INACTIVE") == 0 ||
		strcmp(status, "REVOKED") == 0)
		return OK;
	return iotcore_error(err, "InvalidRequestException",
		"Invalid status %s: ACTIVE, INACTIVE or REVOKED is required.", status);
}

static enum status
insert(struct call *call, const struct x509_certificate *certificate, const char *ca_id,
	const char *status, struct err *err)
{
	own_struct(db_iotcore_certificate) row = {
		.not_before_s = certificate->view.not_before_s,
		.not_after_s = certificate->view.not_after_s,
	};
	char arn[IOTCORE_ARN_BYTES];
	bool made;

	TRY(x509_check_validity(certificate, call->now_s, "Certificate", err));
	memcpy(row.certificate_id, certificate->id, sizeof(row.certificate_id));
	(void)snprintf(row.ca_certificate_id, sizeof(row.ca_certificate_id), "%s",
		ca_id != NULL ? ca_id : "");
	(void)snprintf(row.status, sizeof(row.status), "%s", status);
	(void)snprintf(row.mode, sizeof(row.mode), "%s", ca_id != NULL ? "DEFAULT" : "SNI_ONLY");
	TRY(bytes_copy(&row.pem, view_of(&certificate->pem), err));
	TRY(db_iotcore_certificate_insert(call->tx, &row, &made, err));
	iotcore_arn(arn, call->core, "cert/%s", certificate->id);
	if (!made)
		return iotcore_exists(call, err, certificate->id, arn,
			"The certificate is already provisioned or registered. ID: %s",
			certificate->id);
	return call_reply(call,
		json_pack("{s:s,s:s}", "certificateArn", arn, "certificateId", certificate->id),
		err);
}

static enum status
register_certificate(struct call *call, struct err *err)
{
	own_struct(x509_certificate) certificate = { .id = "" };
	struct issuer_search search = { .certificate = &certificate };
	const char *status = status_wanted(call, call_flag(call, "setAsActive", false));

	TRY(check_status(status, err));
	TRY(x509_certificate_read(
		&certificate, call_text(call, "certificatePem"), "Certificate", err));
	TRY(find_issuer(call, &search, err));
	return insert(call, &certificate, search.id, status, err);
}

static enum status
register_without_ca(struct call *call, struct err *err)
{
	own_struct(x509_certificate) certificate = { .id = "" };
	const char *status = status_wanted(call, false);

	TRY(check_status(status, err));
	TRY(x509_certificate_read(
		&certificate, call_text(call, "certificatePem"), "Certificate", err));
	return insert(call, &certificate, NULL, status, err);
}

/* ---- describe, update, delete ---- */

static enum status
find(struct call *call, struct db_iotcore_certificate *out, struct err *err)
{
	const char *id = call_text(call, "certificateId");
	enum status status = db_iotcore_certificate_find(call->tx, id, out, err);

	if (status == ERR_NOT_FOUND)
		return iotcore_error(
			err, "ResourceNotFoundException", "Certificate %s does not exist.", id);
	return status;
}

static enum status
describe(struct call *call, struct err *err)
{
	own_struct(db_iotcore_certificate) it = { .customer_version = 0 };
	char arn[IOTCORE_ARN_BYTES];
	const char *ca;

	TRY(find(call, &it, err));
	ca = it.ca_certificate_id[0] != '\0' ? it.ca_certificate_id : NULL;
	iotcore_arn(arn, call->core, "cert/%s", it.certificate_id);
	return call_reply(call,
		json_pack("{s:{s:s,s:s,s:s*,s:s,s:s%,s:s,s:o,s:o,s:i,s:{},s:s,s:{s:o,s:o},s:s}}",
			"certificateDescription", "certificateArn", arn, "certificateId",
			it.certificate_id, "caCertificateId", ca, "status", it.status,
			"certificatePem", (const char *)it.pem.data, it.pem.len, "ownedBy",
			call->core->account, "creationDate", iotcore_time(it.created_us),
			"lastModifiedDate", iotcore_time(it.modified_us), "customerVersion",
			(int)it.customer_version, "transferData", "generationId", it.generation,
			"validity", "notBefore", iotcore_time(it.not_before_s * 1000000),
			"notAfter", iotcore_time(it.not_after_s * 1000000), "certificateMode",
			it.mode),
		err);
}

static enum status
update(struct call *call, struct err *err)
{
	const char *wanted = call_text(call, "newStatus");
	own_struct(db_iotcore_certificate) it = { .customer_version = 0 };
	bool done;

	TRY(check_status(wanted, err));
	TRY(db_iotcore_certificate_set_status(
		call->tx, call_text(call, "certificateId"), wanted, &done, err));
	if (done)
		return OK;
	TRY(find(call, &it, err));
	/* Idempotent: the same again is no change, and nothing is told of it. */
	if (strcmp(it.status, wanted) == 0)
		return OK;
	if (strcmp(it.status, "REVOKED") == 0)
		return iotcore_error(err, "CertificateStateException",
			"A revoked certificate cannot be made %s. ID: %s", wanted,
			it.certificate_id);
	return iotcore_error(err, "CertificateStateException",
		"The certificate is being transferred. ID: %s", it.certificate_id);
}

static enum status
check_deletable(struct call *call, const struct db_iotcore_certificate *it, const char *arn,
	struct err *err)
{
	int64_t things, policies;

	if (strcmp(it->status, "ACTIVE") == 0 || strcmp(it->status, "PENDING_TRANSFER") == 0)
		return iotcore_error(err, "CertificateStateException",
			"Certificate must be deactivated (not ACTIVE) before deletion. ID: %s",
			it->certificate_id);
	TRY(db_iotcore_certificate_held(call->tx, it->certificate_id, &things, &policies, err));
	if (things > 0)
		return iotcore_error(err, "DeleteConflictException",
			"Things must be detached before deletion (arn: %s)", arn);
	if (policies > 0 && !call_flag(call, "forceDelete", false))
		return iotcore_error(err, "DeleteConflictException",
			"Certificate policies must be detached before deletion (arn: %s)", arn);
	return OK;
}

static enum status delete (struct call *call, struct err *err) {
	own_struct(db_iotcore_certificate) it = { .customer_version = 0 };
	char arn[IOTCORE_ARN_BYTES];

	TRY(find(call, &it, err));
	iotcore_arn(arn, call->core, "cert/%s", it.certificate_id);
	TRY(check_deletable(call, &it, arn, err));
	return db_iotcore_certificate_delete(call->tx, it.certificate_id, err);
}

/* ---- lists ---- */

static enum status
add(void *arg, const struct db_iotcore_certificate *it, struct err *err)
{
	struct listing *list = arg;
	char arn[IOTCORE_ARN_BYTES];
	char key[CREATED_KEY_BYTES];

	iotcore_arn(arn, list->call->core, "cert/%s", it->certificate_id);
	created_key(key, it->created_us, it->certificate_id);
	return listing_add(list, key,
		json_pack("{s:s,s:s,s:s,s:s,s:o}", "certificateArn", arn, "certificateId",
			it->certificate_id, "status", it->status, "certificateMode", it->mode,
			"creationDate", iotcore_time(it->created_us)),
		err);
}

static enum status
list_of(struct call *call, const char *ca_id, struct err *err)
{
	own_struct(listing) list = { .items = NULL };
	struct db_iotcore_page page;

	TRY(created_page_read(&page, call, err));
	TRY(listing_begin(&list, call, err));
	TRY(db_iotcore_certificate_list(call->tx, &page, ca_id, add, &list, err));
	return listing_end(&list, "certificates", err);
}

static enum status
list_all(struct call *call, struct err *err)
{
	return list_of(call, NULL, err);
}

static enum status
list_by_ca(struct call *call, struct err *err)
{
	return list_of(call, call_text(call, "caCertificateId"), err);
}

/* ---- the table ---- */

static const char *const STATUSES[] = { "ACTIVE", "INACTIVE", "REVOKED", "PENDING_TRANSFER",
	"REGISTER_INACTIVE", "PENDING_ACTIVATION", NULL };

#define PEM(its_name, is_required)                                                                 \
	{                                                                                          \
		.name = (its_name), .at = AT_BODY, .type = MEMBER_TEXT, .required = (is_required), \
		.least = 1, .most = 65536                                                          \
	}
#define STATUS                                                                                     \
	{                                                                                          \
		.name = "status", .at = AT_BODY, .type = MEMBER_TEXT, .values = STATUSES           \
	}
#define ID                                                                                         \
	{                                                                                          \
		.name = "certificateId", .at = AT_PATH, MEMBER_HEX_ID                              \
	}

static const struct member REGISTER_MEMBERS[] = {
	PEM("certificatePem", true),
	PEM("caCertificatePem", false),
	{ .name = "setAsActive", .at = AT_QUERY, .type = MEMBER_FLAG },
	STATUS,
	{ .name = NULL },
};
static const struct member WITHOUT_CA_MEMBERS[] = { PEM("certificatePem", true), STATUS,
	{ .name = NULL } };
static const struct member ID_MEMBERS[] = { ID, { .name = NULL } };
static const struct member UPDATE_MEMBERS[] = {
	ID,
	{ .name = "newStatus",
		.at = AT_QUERY,
		.type = MEMBER_TEXT,
		.required = true,
		.values = STATUSES },
	{ .name = NULL },
};
static const struct member DELETE_MEMBERS[] = {
	ID,
	{ .name = "forceDelete", .at = AT_QUERY, .type = MEMBER_FLAG },
	{ .name = NULL },
};
static const struct member BY_CA_MEMBERS[] = {
	{ .name = "caCertificateId", .at = AT_PATH, MEMBER_HEX_ID },
	{ .name = NULL },
};

const struct op CERTIFICATE_OPS[] = {
	{ .name = "RegisterCertificate",
		.method = "POST",
		.path = "/certificate/register",
		.tx = TX_WRITE,
		.handle = register_certificate,
		.members = REGISTER_MEMBERS },
	{ .name = "RegisterCertificateWithoutCA",
		.method = "POST",
		.path = "/certificate/register-no-ca",
		.tx = TX_WRITE,
		.handle = register_without_ca,
		.members = WITHOUT_CA_MEMBERS },
	{ .name = "DescribeCertificate",
		.method = "GET",
		.path = "/certificates/{certificateId}",
		.tx = TX_READ,
		.handle = describe,
		.members = ID_MEMBERS },
	{ .name = "UpdateCertificate",
		.method = "PUT",
		.path = "/certificates/{certificateId}",
		.tx = TX_WRITE,
		.handle = update,
		.members = UPDATE_MEMBERS },
	{ .name = "DeleteCertificate",
		.method = "DELETE",
		.path = "/certificates/{certificateId}",
		.tx = TX_WRITE,
		.handle = delete,
		.members = DELETE_MEMBERS },
	{ .name = "ListCertificates",
		.method = "GET",
		.path = "/certificates",
		.tx = TX_READ,
		.handle = list_all,
		.page = PAGE_MARKER_ORDER },
	{ .name = "ListCertificatesByCA",
		.method = "GET",
		.path = "/certificates-by-ca/{caCertificateId}",
		.tx = TX_READ,
		.handle = list_by_ca,
		.members = BY_CA_MEMBERS,
		.page = PAGE_MARKER_ORDER },
	{ .name = NULL },
};
