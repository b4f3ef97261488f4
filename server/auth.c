#include "server/auth.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "ca/cert.h"
#include "ca/digest.h"
#include "ca/secret.h"
#include "db/identity.h"
#include "db/principal.h"
#include "server/app.h"
#include "server/auth_cache.h"
#include "server/http/request.h"
#include "server/metrics.h"

/*
 * Who is remembered: the devices of a wave of rotations, and all stations and administrators. A few
 * hundred octets each, taken as they come.
 */
#define SEEN_CERTIFICATES_MAX 8192
#define SEEN_TOKENS_MAX 1024

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
role_of_principal(const char *role)
{
	for (size_t i = 0; i < COUNT_OF(PRINCIPAL_ROLES); i++)
		if (strcmp(PRINCIPAL_ROLES[i].name, role) == 0)
			return PRINCIPAL_ROLES[i].role;
	return 0;
}

static const char *
role_name(unsigned role)
{
	for (size_t i = 0; i < COUNT_OF(PRINCIPAL_ROLES); i++)
		if (PRINCIPAL_ROLES[i].role == role)
			return PRINCIPAL_ROLES[i].name;
	return (role & (ROLE_DEVICE | ROLE_DEVICE_GRACE)) != 0 ? "device" : "none";
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

struct token_row {
	uint8_t hash[32];
	bool found;
	struct db_token token;
	struct db_principal principal;
};

static enum status
read_token(struct db_tx *tx, void *arg, struct err *err)
{
	struct token_row *row = arg;

	return db_token_by_hash(tx, row->hash, &row->found, &row->token, &row->principal, err);
}

static bool
is_good(const struct token_row *row, const uint8_t hash[32], int64_t now_s)
{
	bool good = secret_equal((struct view){ hash, 32 }, (struct view){ row->token.hash, 32 });

	good &= row->found;
	good &= row->token.revoked_at_s == 0;
	good &= row->token.expires_at_s > now_s;
	good &= row->principal.disabled_at_s == 0;
	return good;
}

/*
 * Malformed, unknown, expired, revoked, disabled: each is hashed, looked up and compared, and each gets
 * the same answer, so that neither tells the others apart. Only good ones are remembered.
 */
static enum status
by_token(struct app *app, const char *header, struct identity *out, struct err *err)
{
	struct token_row row = { .found = false };
	uint8_t hash[32];
	int64_t now_s = clock_wall_s(app->clock);
	uint64_t epoch, its_epoch = 0;
	bool fresh = freshness_now(app, &epoch);

	ca_blake2b(hash, token_text(header));
	if (!auth_cache_get(app->seen_tokens, hash, &row, &its_epoch) || !fresh ||
		its_epoch != epoch) {
		row = (struct token_row){ .found = false };
		memcpy(row.hash, hash, sizeof(hash));
		metric_add(METRIC_AUTH_READ, 1);
		TRY(db_read(app->pool, read_token, &row, err));
		if (is_good(&row, hash, now_s))
			auth_cache_put(app->seen_tokens, hash, &row, epoch);
	}
	if (!is_good(&row, hash, now_s))
		return err_set(err, ERR_UNAUTHENTICATED, "token_invalid",
			"Authorization: not a valid bearer token");

	out->role = role_of_principal(row.principal.role);
	(void)snprintf(out->actor, sizeof(out->actor), "%s", row.principal.principal_id);
	(void)snprintf(out->token_id, sizeof(out->token_id), "%s", row.token.token_id);
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

/* What is known of a certificate by its hash. */
struct sight {
	struct db_cert_ref ref;
	struct db_identity row;
};

static enum status
read_row(struct db_tx *tx, void *arg, struct err *err)
{
	struct sight *sight = arg;

	return db_identity_by_ref(tx, &sight->ref, &sight->row, err);
}

/* Our own row for the very octets that the peer showed, whose hash is id. */
static enum status
find_row(struct app *app, struct view der, const uint8_t id[32], struct sight *out, struct err *err)
{
	const struct app_ca *ca;
	struct ca_cert_view cert;
	enum status status;

	if (ca_cert_parse(&cert, der, err) != OK)
		return foreign(err, "not a certificate that we issue");
	ca = issuer_of(app, &cert);
	if (ca == NULL || !cert.serial_ours)
		return foreign(err, "its issuer or serial is not ours");
	out->ref = (struct db_cert_ref){ .issuer_id = ca->issuer_id, .serial = cert.serial16 };
	status = db_read(app->pool, read_row, out, err);
	if (status == ERR_NOT_FOUND)
		return foreign(err, "not on record");
	if (status != OK)
		return status;
	if (!secret_equal((struct view){ out->row.sha256, 32 }, (struct view){ id, 32 }))
		return foreign(err, "not the one on record under its serial");
	return OK;
}

/*
 * Whoever is remembered has had its signature checked. The epoch is taken before the row is read: a
 * change between the two makes what is kept count for nothing.
 */
static enum status
look_up(struct app *app, struct view der, const uint8_t id[32], struct sight *out, struct err *err)
{
	uint64_t epoch, its_epoch = 0;
	bool fresh = freshness_now(app, &epoch);
	bool seen = auth_cache_get(app->seen_certificates, id, out, &its_epoch);
	const char *ca_id;

	if (seen && fresh && its_epoch == epoch)
		return OK;
	metric_add(METRIC_AUTH_READ, 1);
	TRY(find_row(app, der, id, out, err));
	/* The row is ours; the signature says that the row was not made by somebody else. */
	if (!seen)
		TRY(ca_trust_verify(
			app->trust, der, clock_wall_s(app->clock), false, &ca_id, err));
	auth_cache_put(app->seen_certificates, id, out, epoch);
	return OK;
}

/* What a status means at our own mutual TLS (design: the table). Expiry is for check_time. */
static enum status
check_status(const struct db_identity *row, struct err *err)
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
check_time(const struct db_identity *row, const struct ca_profile *profile, unsigned roles,
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
check_holder(const struct db_identity *row, const struct identity *identity, struct err *err)
{
	if ((identity->role == ROLE_STATION || identity->role == ROLE_ADMIN) &&
		(row->principal_disabled ||
			role_of_principal(row->principal_role) != identity->role))
		return err_set(err, ERR_UNAUTHENTICATED, "principal_disabled",
			"client certificate: its principal is disabled or has another role");
	if (identity->role == ROLE_DEVICE && strcmp(row->device_status, "decommissioned") == 0)
		return err_set(err, ERR_DENIED, "device_decommissioned",
			"the device is decommissioned");
	return OK;
}

static enum status
by_certificate(struct app *app, struct view der, unsigned roles, struct identity *out,
	struct err *err)
{
	struct sight sight = { .row.status = CERT_UNSET };
	const struct db_identity *row = &sight.row;
	const struct ca_profile *profile;

	ca_sha256(out->certificate_id, der);
	TRY(look_up(app, der, out->certificate_id, &sight, err));
	TRY(check_status(row, err));
	profile = app_profile(app, row->profile);
	TRY(check_time(row, profile, roles, clock_wall_s(app->clock), err));

	out->by_certificate = true;
	out->role = role_of_profile(profile);
	out->certificate = sight.ref;
	out->not_before_s = row->not_before_s;
	out->not_after_s = row->not_after_s;
	out->certificate_status = row->status;
	(void)snprintf(out->actor, sizeof(out->actor), "%s", row->device_id);
	(void)snprintf(out->profile, sizeof(out->profile), "%s", row->profile);
	(void)snprintf(out->device_status, sizeof(out->device_status), "%s", row->device_status);
	return check_holder(row, out, err);
}

/* ---- the door ---- */

enum status
auth_start(struct app *app, struct err *err)
{
	TRY(auth_cache_new(&app->seen_certificates, SEEN_CERTIFICATES_MAX, sizeof(struct sight), err));
	return auth_cache_new(&app->seen_tokens, SEEN_TOKENS_MAX, sizeof(struct token_row), err);
}

void
auth_stop(struct app *app)
{
	auth_cache_free(app->seen_certificates);
	auth_cache_free(app->seen_tokens);
	app->seen_certificates = app->seen_tokens = NULL;
}

static enum status
authenticate(struct app *app, struct request *request, unsigned roles, struct identity *out,
	struct err *err)
{
	const char *header = request_header(request, "Authorization");
	struct view der = request_peer_certificate(request);

	if (header == NULL && der.len == 0)
		return err_set(err, ERR_UNAUTHENTICATED, "credentials_missing",
			"a client certificate or a bearer token is wanted");
	if (header != NULL)
		return by_token(app, header, out, err);
	return by_certificate(app, der, roles, out, err);
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
			"this call is not for the role of %s: %s", identity->actor,
			role_name(identity->role));
	return OK;
}
