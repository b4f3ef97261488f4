/*
 * server/app.h - the frontend process as its parts see it. Filled by server/frontend.c before the first
 * thread; what changes afterwards has a lock or is atomic.
 */
#ifndef SERVER_APP_H
#define SERVER_APP_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "ca/cert.h"
#include "ca/profile.h"
#include "ca/signer.h"
#include "db/db.h"
#include "db/issuer.h"
#include "server/config.h"
#include "server/freshness.h"

struct auth_cache; /* server/auth_cache.h */
struct http;
struct issuance;
struct crl_cache; /* server/protocol/crl.h */
struct ocsp;      /* server/protocol/ocsp.h */
struct jobs;      /* server/jobs/jobs.h */
struct iot_room;  /* server/iot/room.h */
struct notify;    /* server/notify/notify.h */
struct receipt_follow; /* server/api/receipt_follow.h */
struct signer_link; /* server/signer/link.h */

#define APP_CAS_MAX 8

struct app_ca {
	char ca_id[CA_ID_BYTES];
	int32_t issuer_id;
	bool can_sign;
	struct bytes certificate; /* DER */
	struct bytes certificate_pem;
	struct bytes chain_pem;   /* issuers up to but without the root */
	struct bytes root_pem;
	struct bytes subject_name;
	int64_t not_before_s, not_after_s;
};

struct app {
	struct config config;
	const struct clock *clock;
	struct ca_profile profiles[CA_PROFILES_MAX]; /* of this start; SIGHUP starts a new frontend */
	size_t profile_count;
	struct db_pool *pool;
	_Atomic int32_t instance_id;   /* 0: the session is down; no Admit then */
	_Atomic bool session_doubted;  /* intents may yet appear under it: take another instance */
	struct freshness freshness;    /* whether caches of the database count */
	int32_t audit_lane;
	_Atomic uint64_t audit_writes; /* records written by audit_write, also in vain */
	struct app_ca cas[APP_CAS_MAX];
	size_t ca_count;
	/* config.issuing_ca, or what succeeded it (server/succession.h); never NULL once they are loaded. */
	const struct app_ca *_Atomic issuing;
	pthread_mutex_t issuing_lock;  /* for issuing_epoch, and for writing issuing */
	uint64_t issuing_epoch;        /* of freshness, when it was read */
	bool issuing_read;             /* it was, at all */
	_Atomic bool issuing_missing;  /* the CA that issues has no key here */
	bool has_checkpoint_key;
	uint8_t checkpoint_key[32];    /* public: of the audit log's checkpoints */
	struct ca_trust *trust;
	struct auth_cache *seen_certificates, *seen_tokens; /* server/auth.c */
	struct signer_link *signer_issue, *signer_crl, *signer_full, *signer_ocsp;
	struct http *http;
	struct issuance *issuance;
	struct crl_cache *crls;
	struct ocsp *ocsp;
	struct jobs *jobs;
	struct iot_room *iot;
	struct notify *notify;
	struct receipt_follow *receipts;
	_Atomic int64_t tls_not_after_s; /* of config.tls_certificates the first to end; 0: none */
	_Atomic int64_t tls_own_not_after_s; /* of the listeners' own certificate; 0: it has none */
	_Atomic bool tls_trouble;        /* the listeners' own certificate cannot be renewed */
	_Atomic bool stopping;
	int64_t started_ms;
};

const struct ca_profile *app_profile(const struct app *app, const char *name); /* NULL: none */
const struct app_ca *app_ca_by_id(const struct app *app, const char *ca_id);
const struct app_ca *app_ca_by_issuer(const struct app *app, int32_t issuer_id);

#endif
