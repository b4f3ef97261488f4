/*
 * server/protocol/ocsp_internal.h - the OCSP responder's parts between themselves: requests (ocsp.c), the
 * thread that signs (ocsp_round.c), the responders' certificates (ocsp_responder.c).
 */
#ifndef SERVER_PROTOCOL_OCSP_INTERNAL_H
#define SERVER_PROTOCOL_OCSP_INTERNAL_H

#include <pthread.h>

#include "ca/ocsp.h"
#include "db/ocsp.h"
#include "server/app.h"
#include "server/http/request.h"
#include "server/protocol/ocsp.h"
#include "server/protocol/ocsp_cache.h"

#define OCSP_CAS_MAX 8 /* as in struct app */
/* Waiting requests; who comes on top is told to come back (tryLater), so memory is bounded. */
#define OCSP_WAITING_MAX 4096
/* CertIDs that one round looks up and signs for: as much as one exchange with the signer holds. */
#define OCSP_ROUND_IDS_MAX 1024

struct ocsp_asked {
	struct ca_ocsp_id id; /* borrows from the request */
	int ca;               /* its place among the app's; -1: not ours */
};

/* A request that waits for its answer; lies in the request's own memory. */
struct ocsp_waiting {
	struct ocsp_waiting *next;
	struct request *request;
	struct view nonce;
	bool cacheable; /* by us and by HTTP: one CertID of ours, no nonce */
	size_t count;
	struct ocsp_asked asked[];
};

/* A delegated responder (RFC 6960 4.2.2.2) of one CA. */
struct ocsp_responder {
	bool wanted; /* somebody asked about this CA */
	_Atomic bool revoked; /* its certificate was */
	struct bytes certificate; /* none: {NULL, 0} */
	uint8_t key_hash[OCSP_KEY_HASH_BYTES];
	struct db_cert_ref ref;
	int64_t not_before_s, not_after_s;
	struct bytes next_spki; /* of a key that waits for its certificate */
	int64_t retry_at_ms;
	char trouble[128]; /* why the last try failed; empty: it did not */
};

enum ocsp_count {
	COUNT_GOOD = 0,
	COUNT_REVOKED,
	COUNT_UNKNOWN,
	COUNT_MALFORMED,
	COUNT_INTERNAL,
	COUNT_TRY_LATER,
	COUNT_UNAUTHORIZED,
	COUNT_HITS, /* answered from memory */
	COUNT_SIGNED,
	COUNT_ROUNDS,
	COUNTS,
};

struct ocsp {
	struct app *app;
	struct ocsp_cache *cache;
	struct ca_ocsp_issuer issuers[OCSP_CAS_MAX]; /* as app->cas; of those that cannot sign, empty */
	_Atomic int64_t counts[COUNTS];

	pthread_t thread;
	bool started;
	pthread_mutex_t lock; /* guards what follows */
	pthread_cond_t wake;
	bool stopping;
	struct ocsp_waiting *first, **last;
	size_t waiting;
	struct ocsp_responder responders[OCSP_CAS_MAX]; /* written by the thread alone */
};

void ocsp_count(struct ocsp *ocsp, enum ocsp_count what);
/* An answer without a signature. */
MUST_USE enum status ocsp_reply_error(struct ocsp *ocsp, struct request *request,
	enum ca_ocsp_error error, struct err *err);
/* Takes a reference to answer. cacheable: with what HTTP caches want to know. */
MUST_USE enum status ocsp_reply(struct request *request, struct ocsp_answer *answer, bool cacheable,
	int64_t now_s, struct err *err);

void *ocsp_round_main(void *ocsp);

/*
 * Of the thread: the responder for app->cas[ca], with a certificate that is valid; issued or renewed now if
 * it is due. ERR_UNAVAILABLE: there is none yet.
 */
MUST_USE enum status ocsp_responder_get(struct ocsp *ocsp, size_t ca,
	const struct ocsp_responder **out, struct err *err);
/* The signer does not know its key (any more). */
void ocsp_responder_lost(struct ocsp *ocsp, size_t ca);
/* Renews those that are due. */
void ocsp_responders_renew(struct ocsp *ocsp);
/* From any thread: that certificate is revoked. */
void ocsp_responder_revoked(struct ocsp *ocsp, const struct db_cert_ref *ref);

#endif
