#include "server/auth.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "ca/cert.h"
#include "ca/digest.h"
#include "ca/secret.h"
#include "db/principal.h"
#include "server/app.h"
#include "server/http/request.h"

static const struct {
	const char *name;
	enum role role;
} PRINCIPAL_ROLES[] = {
	{ "admin", ROLE_ADMIN },
	{ "operator", ROLE_OPERATOR },
	{ "auditor", ROLE_AUDITOR },
	{ "station", ROLE_STATION },
};

/* 0: no role of ours, which no route allows. */
static unsigned
role_of_principal(const struct db_principal *principal)
{
	for (size_t i = 0; i < COUNT_OF(PRINCIPAL_ROLES); i++)
		if (strcmp(PRINCIPAL_ROLES[i].name, principal->role) == 0)
			return PRINCIPAL_ROLES[i].role;
	return 0;
}

static unsigned
role_of_profile(const struct ca_profile *profile)
{
	if (profile == NULL)
		return 0;
	switch (profile->role) {
	case CA_ROLE_DEVICE:
		return ROLE_DEVICE;
	case CA_ROLE_STATION:
		return ROLE_STATION;
	case CA_ROLE_ADMIN:
		return ROLE_ADMIN;
	case CA_ROLE_NONE:
	case CA_ROLE_UNSET:
		break;
	}
	return 0;
}

/* ---- bearer tokens ---- */

/* What stands behind "Bearer"; the whole header for any other scheme, which is no token of ours. */
static struct view
token_text(const char *header)
{
	if (strncasecmp(header, "Bearer", 6) == 0 && header[6] == ' ') {
		header += 6;
		header += strspn(header, " ");
	}
	return view_text(header);
}

/*
 * Malformed, unknown, expired, revoked, disabled: each is hashed, looked up and compared, and each gets
 * the same answer, so that neither tells the others apart.
 */
static enum status
by_token(struct app *app, struct db_tx *tx, const char *header, struct identity *out,
	struct err *err)
{
	struct db_token token = { .hash = { 0 } };
	struct db_principal principal = { .disabled_at_s = 0 };
	uint8_t hash[32];
	int64_t now_s = clock_wall_s(app->clock);
	bool found = false;
	bool good;

	ca_blake2b(hash, token_text(header));
	TRY(db_token_by_hash(tx, hash, &found, &token, &principal, err));
	good = secret_equal((struct view){ hash, 32 }, (struct view){ token.hash, 32 });
	good &= found;
	good &= token.revoked_at_s == 0;
	good &= token.expires_at_s > now_s;
	good &= principal.disabled_at_s == 0;
	if (!good)
		return err_set(err, ERR_UNAUTHENTICATED, "token_invalid",
			"Authorization: not a valid bearer token");

	out->role = role_of_principal(&principal);
	(void)snprintf(out->actor, sizeof(out->actor), "%s", principal.principal_id);
	(void)snprintf(out->token_id, sizeof(out->token_id), "%s", token.token_id);
	return OK;
}

/* ---- client certificates ---- */

static enum status
foreign(struct err *err, const char *why)
{
	return err_set(err, ERR_UNAUTHENTICATED, "certificate_foreign", "client certificate: %s", why);
}

static const struct app_ca *
issuer_of(const struct app *app, const struct ca_cert_view *cert)
{
	for (size_t i = 0; i < app->ca_count; i++)
		if (view_equal(view_of(&app->cas[i].subject_name), cert->issuer))
			return &app->cas[i];
	return NULL;
}

/* Our own row for the very octets that the peer showed. */
static enum status
find_row(struct app *app, struct db_tx *tx, struct view der, struct db_certificate *row,
	struct err *err)
{
	const struct app_ca *ca;
	struct ca_cert_view cert;
	struct db_cert_ref ref;
	enum status status;

	if (ca_cert_parse(&cert, der, err) != OK)
		return foreign(err, "not a certificate that we issue");
	ca = issuer_of(app, &cert);
	if (ca == NULL || !cert.serial_ours)
		return foreign(err, "its issuer or serial is not ours");
	ref = (struct db_cert_ref){ .issuer_id = ca->issuer_id, .serial = cert.serial16 };
	status = db_certificate_by_ref(tx, &ref, row, err);
	if (status == ERR_NOT_FOUND)
		return foreign(err, "not on record");
	if (status != OK)
		return status;
	if (!secret_equal(view_of(&row->der), der))
		return foreign(err, "not the one on record under its serial");
	return OK;
}

/* What a status means at our own mutual TLS (design: the table). Expiry is for check_time. */
static enum status
check_status(const struct db_certificate *row, struct err *err)
{
	switch (row->status) {
	case CERT_ACTIVE:
	case CERT_PENDING_CONFIRMATION:
	case CERT_EXPIRED:
		return OK;
	case CERT_SUPERSEDED:
		return err_set(err, ERR_UNAUTHENTICATED, "certificate_superseded",
			"client certificate: its successor was confirmed");
	case CERT_HELD:
	case CERT_REVOKED:
		return err_set(err, ERR_UNAUTHENTICATED, "certificate_revoked",
			"client certificate: revoked, or on hold");
	case CERT_UNSET:
		break;
	}
	return err_set(err, ERR_INTERNAL, "certificate_status", "a certificate row has no status");
}

static enum status
check_time(const struct db_certificate *row, const struct ca_profile *profile, unsigned roles,
	int64_t now_s, struct err *err)
{
	int64_t grace_s = 0;

	if (now_s < row->not_before_s)
		return err_set(err, ERR_UNAUTHENTICATED, "certificate_not_yet_valid",
			"client certificate: not valid yet");
	if ((roles & ROLE_DEVICE_GRACE) != 0 && profile != NULL && profile->role == CA_ROLE_DEVICE)
		grace_s = profile->grace_s;
	/* The last second is over when it has begun, as OpenSSL and our status have it. */
	if (now_s >= row->not_after_s + grace_s)
		return err_set(err, ERR_UNAUTHENTICATED, "certificate_expired",
			"client certificate: expired");
	return OK;
}

/* Stations and administrators act as the principal of the name that their certificate bears. */
static enum status
check_principal(struct db_tx *tx, const struct identity *identity, struct err *err)
{
	struct db_principal principal;
	enum status status = db_principal_find(tx, identity->actor, &principal, err);

	if (status != OK && status != ERR_NOT_FOUND)
		return status;
	if (status == ERR_NOT_FOUND || principal.disabled_at_s != 0 ||
	    role_of_principal(&principal) != identity->role)
		return err_set(err, ERR_UNAUTHENTICATED, "principal_disabled",
			"client certificate: its principal is disabled or has another role");
	return OK;
}

static enum status
check_holder(struct db_tx *tx, const struct db_certificate *row, const struct identity *identity,
	struct err *err)
{
	if (identity->role == ROLE_STATION || identity->role == ROLE_ADMIN)
		return check_principal(tx, identity, err);
	if (identity->role == ROLE_DEVICE && strcmp(row->device_status, "decommissioned") == 0)
		return err_set(err, ERR_DENIED, "device_decommissioned",
			"the device is decommissioned");
	return OK;
}

static enum status
by_certificate(struct app *app, struct db_tx *tx, struct view der, unsigned roles,
	struct identity *out, struct err *err)
{
	own_struct(db_certificate) row = { .status = CERT_UNSET };
	const struct ca_profile *profile;
	const char *ca_id;
	int64_t now_s = clock_wall_s(app->clock);

	TRY(find_row(app, tx, der, &row, err));
	TRY(check_status(&row, err));
	profile = app_profile(app, row.profile);
	TRY(check_time(&row, profile, roles, now_s, err));
	/* The row is ours; the signature says that the row was not made by somebody else. */
	TRY(ca_trust_verify(app->trust, der, now_s, false, &ca_id, err));

	out->by_certificate = true;
	out->role = role_of_profile(profile);
	out->certificate = row.ref;
	out->not_before_s = row.not_before_s;
	out->not_after_s = row.not_after_s;
	out->certificate_status = row.status;
	memcpy(out->certificate_id, row.sha256, sizeof(out->certificate_id));
	(void)snprintf(out->actor, sizeof(out->actor), "%s", row.device_id);
	(void)snprintf(out->profile, sizeof(out->profile), "%s", row.profile);
	(void)snprintf(out->device_status, sizeof(out->device_status), "%s", row.device_status);
	return check_holder(tx, &row, out, err);
}

/* ---- the door ---- */

static enum status
authenticate(struct app *app, struct request *request, unsigned roles, struct identity *out,
	struct err *err)
{
	const char *header = request_header(request, "Authorization");
	struct view der = request_peer_certificate(request);
	own_struct(db_tx) tx = { NULL, NULL };

	if (header == NULL && der.len == 0)
		return err_set(err, ERR_UNAUTHENTICATED, "credentials_missing",
			"a client certificate or a bearer token is wanted");
	TRY(db_tx_begin(&tx, app->pool, err));
	if (header != NULL)
		return by_token(app, &tx, header, out, err);
	return by_certificate(app, &tx, der, roles, out, err);
}

enum status
auth_authorize(struct app *app, struct request *request, unsigned roles, struct err *err)
{
	struct identity *identity = request_alloc(request, sizeof(*identity));
	enum status status;

	if (identity == NULL)
		return err_memory(err);
	status = authenticate(app, request, roles, identity, err);
	/* Also the refused are named in the log, once they are known. */
	if (identity->actor[0] != '\0')
		request_set_actor(request, identity->actor);
	if (status != OK)
		return status;
	request_set_identity(request, identity);
	if ((identity->role & roles) == 0)
		return err_set(err, ERR_DENIED, "role_not_allowed",
			"this call is not for the role of %s", identity->actor);
	return OK;
}
