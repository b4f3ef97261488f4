#include "server/iot/service_identity.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "ca/cert.h"
#include "ca/digest.h"
#include "ca/key.h"
#include "ca/pem.h"
#include "ca/secret.h"
#include "server/issuance/own.h"

#define PROFILE "service"
#define PEM_MAX_BYTES (128 * 1024)

bool
service_identity_due(const struct service_identity *identity, int64_t now_s)
{
	return now_s >= identity->not_after_s - (identity->not_after_s - identity->not_before_s) / 3;
}

/* ---- the kept one ---- */

static enum status
take_leaf(void *arg, const char *label, struct view der, struct err *err)
{
	struct bytes *leaf = arg;

	if (strcmp(label, "CERTIFICATE") == 0 && leaf->data == NULL)
		return bytes_copy(leaf, der, err);
	return OK;
}

static enum status
check_row(struct app *app, const uint8_t sha256[32], struct err *err)
{
	own_struct(db_certificate) row = { .issued_at_s = 0 };
	own_struct(db_tx) tx = { NULL, NULL };
	const struct app_ca *issuing;

	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_certificate_by_sha256(&tx, sha256, &row, err));
	issuing = app->issuing;
	if (row.status != CERT_ACTIVE || row.ref.issuer_id != issuing->issuer_id)
		return err_set(err, ERR_CONFLICT, "service_certificate",
			"service.pem: an active certificate of %s wanted", issuing->ca_id);
	return OK;
}

static enum status
read_kept(struct service_identity *out, struct app *app, struct err *err)
{
	own_struct(secret) whole = { NULL, 0 };
	own_struct(bytes) leaf = { NULL, 0 };
	struct ca_cert_view view;

	TRY(secret_read_file(&whole, out->path, PEM_MAX_BYTES, err));
	TRY(ca_pem_each((struct view){ whole.data, whole.len }, take_leaf, &leaf, err));
	if (leaf.data == NULL)
		return err_set(err, ERR_ARGUMENT, "service_certificate",
			"service.pem: a certificate wanted");
	TRY(ca_cert_parse(&view, view_of(&leaf), err));
	ca_sha256(out->sha256, view_of(&leaf));
	out->not_before_s = view.not_before_s;
	out->not_after_s = view.not_after_s;
	if (service_identity_due(out, clock_wall_s(app->clock)))
		return err_set(err, ERR_CONFLICT, "service_certificate", "service.pem: it ends soon");
	return check_row(app, out->sha256, err);
}

/* ---- a new one ---- */

static enum status
keep(const struct service_identity *identity, struct view text, struct err *err)
{
	char fresh[FILE_PATH_BYTES + 32];

	(void)snprintf(fresh, sizeof(fresh), "%s.%d", identity->path, (int)getpid());
	(void)unlink(fresh);
	TRY(file_create(fresh, text, 0600, err));
	if (rename(fresh, identity->path) != 0)
		return err_set(err, ERR_UNAVAILABLE, "file_write", "%s: %s", identity->path,
			strerror(errno));
	return OK;
}

static enum status
write_pem(struct service_identity *out, const struct app_ca *ca, const struct ca_key *key,
	struct view leaf, struct err *err)
{
	own_struct(buf) text = { .limit_bytes = PEM_MAX_BYTES };
	own_struct(secret) pkcs8 = { NULL, 0 };
	enum status status;

	TRY(ca_key_to_pkcs8(key, &pkcs8, err));
	TRY(buf_reserve(&text, PEM_MAX_BYTES, err)); /* so that growing leaves no copy of the key */
	TRY(ca_pem_encode(&text, "PRIVATE KEY", (struct view){ pkcs8.data, pkcs8.len }, err));
	status = ca_pem_encode(&text, "CERTIFICATE", leaf, err);
	if (status == OK && ca != NULL)
		status = buf_add(&text, ca->chain_pem.data, ca->chain_pem.len, err);
	if (status == OK)
		status = keep(out, buf_view(&text), err);
	explicit_bzero(text.data, text.len);
	return status;
}

static enum status
issue(struct service_identity *out, struct app *app, struct err *err)
{
	own_struct(db_certificate) certificate = { .issued_at_s = 0 };
	own(ca_key) key = NULL;

	TRY(ca_key_generate(&key, KEY_EC_P256, err));
	TRY(issuance_own(app,
		&(struct issuance_own){ .profile = PROFILE,
			.name = SERVICE_IDENTITY,
			.actor = SERVICE_IDENTITY,
			.spki = ca_key_spki(key),
			.key_type = KEY_EC_P256 },
		&certificate, err));
	TRY(write_pem(out, app_ca_by_issuer(app, certificate.ref.issuer_id), key,
		view_of(&certificate.der), err));
	memcpy(out->sha256, certificate.sha256, sizeof(out->sha256));
	out->not_before_s = certificate.not_before_s;
	out->not_after_s = certificate.not_after_s;
	log_event(LOG_INFO, "service_certificate_issued", NULL,
		LOG_INT("days", (out->not_after_s - clock_wall_s(app->clock)) / 86400));
	return OK;
}

enum status
service_identity_get(struct service_identity *out, struct app *app, struct err *err)
{
	struct err why;
	enum status status;

	*out = (struct service_identity){ .not_after_s = 0 };
	TRY(file_path(out->path, app->config.data_dir, "tls/service", ".pem", err));
	status = read_kept(out, app, &why);
	if (status == OK)
		return OK;
	/* While the database is away nothing can be known, and nothing issued. */
	if (status == ERR_UNAVAILABLE) {
		*err = why;
		return status;
	}
	if (status != ERR_NOT_FOUND)
		log_error(LOG_INFO, "service_certificate_unfit", NULL, &why);
	return issue(out, app, err);
}
