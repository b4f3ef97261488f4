#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "server/issuance/own.h"
#include "server/protocol/ocsp_internal.h"
#include "server/signer/link.h"

#define IDENTITY "jitrca-ocsp"
/* After a failure: soon while nothing can be signed, else now and then. */
#define RETRY_MS 1000
#define RETRY_VALID_MS 30000

static bool
is_valid(const struct ocsp_responder *responder, int64_t now_s)
{
	return responder->certificate.data != NULL && now_s < responder->not_after_s;
}

/*
 * When half of its life is over: a database that is away has days to come back. Who asks does not wait for
 * it: that is for when nobody does, unless nobody ever stops asking.
 */
static bool
is_due(const struct ocsp_responder *responder, int64_t now_s, bool idle)
{
	int64_t quarter_s = (responder->not_after_s - responder->not_before_s) / 4;

	return responder->certificate.data == NULL ||
	       now_s >= responder->not_before_s + (idle ? 2 : 3) * quarter_s;
}

static enum status
make_key(struct ocsp *ocsp, const struct app_ca *ca, struct bytes *spki, struct err *err)
{
	struct signer_link *link = ocsp->app->signer_ocsp;
	struct ca_signer *signer;
	uint64_t generation;
	enum status status;

	TRY(signer_link_acquire(link, &signer, &generation, err));
	status = ca_signer_ocsp_key(signer, ca->ca_id, spki, err);
	signer_link_release(link, status == ERR_UNAVAILABLE);
	return status;
}

/* A key is asked for once and kept until it is certified: what came of a broken link is then found out. */
static enum status
issue(struct ocsp *ocsp, size_t ca, struct err *err)
{
	struct ocsp_responder *responder = &ocsp->responders[ca];
	own_struct(db_certificate) certificate = { .issued_at_s = 0 };
	uint8_t key_hash[OCSP_KEY_HASH_BYTES];
	enum status status;

	if (responder->next_spki.data == NULL)
		TRY(make_key(ocsp, &ocsp->app->cas[ca], &responder->next_spki, err));
	TRY(ca_ocsp_key_hash(key_hash, view_of(&responder->next_spki), err));
	/* No CSR: the key's owner is our own signer. */
	status = issuance_own(ocsp->app,
		&(struct issuance_own){ .profile = CA_PROFILE_OCSP,
			.name = IDENTITY,
			.actor = IDENTITY,
			.ca = &ocsp->app->cas[ca],
			.spki = view_of(&responder->next_spki),
			.key_type = KEY_EC_P256 },
		&certificate, err);
	/* Refused for good: the signer was restarted and has not that key, or somebody blocked it. */
	if (status != OK && status != ERR_UNAVAILABLE)
		bytes_free(&responder->next_spki);
	TRY(status);
	(void)pthread_mutex_lock(&ocsp->lock);
	bytes_free(&responder->certificate);
	responder->certificate = certificate.der;
	memcpy(responder->key_hash, key_hash, sizeof(key_hash));
	responder->ref = certificate.ref;
	responder->not_before_s = certificate.not_before_s;
	responder->not_after_s = certificate.not_after_s;
	(void)pthread_mutex_unlock(&ocsp->lock);
	certificate.der = (struct bytes){ NULL, 0 };
	bytes_free(&responder->next_spki);
	log_event(LOG_INFO, "ocsp_responder_issued", NULL, LOG_STR("ca", ocsp->app->cas[ca].ca_id),
		LOG_INT("hours", (responder->not_after_s - clock_wall_s(ocsp->app->clock)) / 3600));
	return OK;
}

static void
note(struct ocsp *ocsp, struct ocsp_responder *responder, const char *trouble)
{
	(void)pthread_mutex_lock(&ocsp->lock);
	(void)snprintf(responder->trouble, sizeof(responder->trouble), "%.120s", trouble);
	(void)pthread_mutex_unlock(&ocsp->lock);
}

/* Whatever it was: who asks may ask again, and the log and /readyz say what is to be done. */
static enum status
no_responder(const struct ocsp_responder *responder, struct err *err)
{
	return err_set(err, ERR_UNAVAILABLE, "ocsp_responder",
		"ocsp: no responder certificate: %s", responder->trouble);
}

/* Tries now, unless it failed just before. */
static enum status
renew(struct ocsp *ocsp, size_t ca, struct err *err)
{
	struct ocsp_responder *responder = &ocsp->responders[ca];
	int64_t now_ms = clock_mono_ms(ocsp->app->clock);
	bool valid = is_valid(responder, clock_wall_s(ocsp->app->clock));
	bool known = responder->trouble[0] != '\0';
	enum status status;

	if (now_ms < responder->retry_at_ms)
		return no_responder(responder, err);
	status = issue(ocsp, ca, err);
	/* What a restarted signer does not know is made anew at once. */
	if (status != OK && responder->next_spki.data == NULL)
		status = issue(ocsp, ca, err);
	note(ocsp, responder, status == OK ? "" : err->text);
	if (status == OK)
		return OK;
	responder->retry_at_ms = now_ms + (valid ? RETRY_VALID_MS : RETRY_MS);
	if (!known)
		log_error(LOG_ERROR, "ocsp_responder_not_issued", NULL, err);
	return no_responder(responder, err);
}

static enum status
get(struct ocsp *ocsp, size_t ca, bool idle, const struct ocsp_responder **out, struct err *err)
{
	struct ocsp_responder *responder = &ocsp->responders[ca];
	int64_t now_s = clock_wall_s(ocsp->app->clock);
	enum status status = OK;

	responder->wanted = true;
	if (atomic_exchange(&responder->revoked, false))
		ocsp_responder_lost(ocsp, ca);
	if (is_due(responder, now_s, idle))
		status = renew(ocsp, ca, err);
	if (status != OK && !is_valid(responder, now_s))
		return status;
	*out = responder;
	return OK;
}

enum status
ocsp_responder_get(struct ocsp *ocsp, size_t ca, const struct ocsp_responder **out, struct err *err)
{
	return get(ocsp, ca, false, out, err);
}

void
ocsp_responder_lost(struct ocsp *ocsp, size_t ca)
{
	struct ocsp_responder *responder = &ocsp->responders[ca];

	(void)pthread_mutex_lock(&ocsp->lock);
	bytes_free(&responder->certificate);
	responder->not_before_s = responder->not_after_s = 0;
	(void)pthread_mutex_unlock(&ocsp->lock);
}

void
ocsp_responders_renew(struct ocsp *ocsp)
{
	const struct ocsp_responder *responder;
	struct err err;

	for (size_t ca = 0; ca < ocsp->app->ca_count; ca++)
		if (ocsp->responders[ca].wanted &&
			get(ocsp, ca, true, &responder, &err) != OK)
			log_event(LOG_DEBUG, "ocsp_responder_waits", NULL,
				LOG_STR("ca", ocsp->app->cas[ca].ca_id), LOG_STR("code", err.code));
}

void
ocsp_responder_revoked(struct ocsp *ocsp, const struct db_cert_ref *ref)
{
	(void)pthread_mutex_lock(&ocsp->lock);
	for (size_t ca = 0; ca < ocsp->app->ca_count; ca++)
		if (db_ref_equal(&ocsp->responders[ca].ref, ref))
			atomic_store(&ocsp->responders[ca].revoked, true);
	(void)pthread_mutex_unlock(&ocsp->lock);
}

void
ocsp_trouble(struct ocsp *ocsp, char *why, size_t size)
{
	int64_t now_s = clock_wall_s(ocsp->app->clock);

	(void)pthread_mutex_lock(&ocsp->lock);
	for (size_t ca = 0; ca < ocsp->app->ca_count; ca++) {
		const struct ocsp_responder *one = &ocsp->responders[ca];

		if (one->trouble[0] != '\0' && !is_valid(one, now_s))
			(void)snprintf(why, size, "%s: no responder certificate: %s",
				ocsp->app->cas[ca].ca_id, one->trouble);
	}
	(void)pthread_mutex_unlock(&ocsp->lock);
}
