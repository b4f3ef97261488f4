/*
 * server/issuance/issuance.h - the pipeline: prepare → admit → sign → record → answer (design). Knows no
 * HTTP. One committer thread takes whatever has arrived while the last batch was being written.
 */
#ifndef SERVER_ISSUANCE_ISSUANCE_H
#define SERVER_ISSUANCE_ISSUANCE_H

#include "ca/csr.h"
#include "ca/signer.h"
#include "db/certificate.h"
#include "db/issuance.h"

struct app;
struct app_ca;
struct issuance;

MUST_USE enum status issuance_start(struct issuance **out, struct app *app, struct err *err);
/* Ends what is queued (with 503 after the time-out), joins the committer. */
void issuance_stop(struct issuance *issuance);

/* One certificate wanted. The caller owns it until done() is called, and again from then on. */
struct issuance_item {
	/* In: verified and authorised by the caller; pointers outlive done(). */
	const struct ca_profile *profile;
	struct ca_request request;
	struct ca_csr *csr;
	int64_t validity_s;
	enum ca_asker asker;
	const struct app_ca *ca; /* NULL: the CA that issues */
	const char *actor;
	const char *request_id;
	const char *idempotency_key; /* NULL: none */
	uint8_t request_hash[32];
	enum db_slot slot;
	bool replace;
	struct db_cert_ref predecessor;  /* SLOT_SUCCESSOR: the certificate that the device showed */
	uint8_t predecessor_id[DB_SHA256_BYTES];
	char attributes_json[4096]; /* canonical */

	/* Out, when done() is called, on the committer's thread: must not block. */
	enum status status; /* OK, or err */
	struct err err;
	bool replayed;      /* it was issued before */
	bool clamped;
	struct db_certificate certificate; /* the caller frees it */

	void (*done)(struct issuance_item *item, void *arg);
	void *arg;
	struct issuance_item *next; /* the pipeline's */
	int64_t give_up_ms, retry_ms;
};

/*
 * Queues items; each is ended with done() exactly once, in any order. ERR_UNAVAILABLE queue_full: none
 * was taken.
 */
MUST_USE enum status issuance_submit(struct issuance *issuance, struct issuance_item **items,
	size_t count, struct err *err);

/* Waits for one (jobs, TLS certificate). */
MUST_USE enum status issuance_issue(struct issuance *issuance, struct issuance_item *item,
	struct err *err);

/*
 * A verifier for CSRs (ca/csr.h), for the calling thread until it is given back: as many are made as
 * threads verify at once, and they are kept. give: NULL is welcome.
 */
MUST_USE enum status issuance_verifier_take(struct issuance *issuance, struct ca_verifier **out,
	struct err *err);
void issuance_verifier_give(struct issuance *issuance, struct ca_verifier *verifier);

/* A public key was just blocked, and that is committed: the signer is told before the next batch. */
void issuance_note_blocked(struct issuance *issuance);

/* Counts an end; for what is refused before it is submitted. profile may be NULL; code: of a refusal. */
void issuance_count(const struct ca_profile *profile, enum status status, bool replayed,
	const char *code);

#endif
