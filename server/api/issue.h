/*
 * server/api/issue.h - one request that asks for certificates, on its way through the pipeline: CSRs
 * are verified on workers, the connection is parked, and the answer is made once all have ended.
 * What is asked for is the caller's (certificates.c, rotation.c); how to answer as well.
 */
#ifndef SERVER_API_ISSUE_H
#define SERVER_API_ISSUE_H

#include <jansson.h>

#include "server/http/request.h"
#include "server/issuance/issuance.h"

struct app;
struct issue_job;

#define IDEMPOTENCY_KEY_MAX 255

/* One certificate asked for. Fill item's In fields but csr, request_hash and done, and pem. */
struct issue_ask {
	struct issuance_item item;
	const char *pem; /* borrowed from the body */
	char key[IDEMPOTENCY_KEY_MAX + 1]; /* room for item.idempotency_key */
	bool other_key;  /* rotation: the CSR must hold another key than not_spki_sha256 */
	uint8_t not_spki_sha256[DB_SHA256_BYTES];
	bool refused;    /* item.status and item.err say why: it goes no further */

	struct ca_csr csr; /* the job's from here on */
	struct issue_job *job;
};

/* Answers with request_reply_*, on a worker, when all have ended. */
typedef enum status (*issue_reply)(struct app *app, struct request *request, struct issue_ask *asks,
	size_t count, struct err *err);

/* Takes body (may be NULL), which the asks borrow from; also on failure. */
MUST_USE enum status issue_job_new(struct issue_job **out, struct app *app, struct request *request,
	json_t *body, size_t count, issue_reply reply, struct err *err);
struct issue_ask *issue_job_asks(struct issue_job *job);
void issue_job_free(struct issue_job *job); /* NULL is welcome; only before issue_job_run */
typedef struct issue_job issue_job;
OWNER(issue_job, issue_job_free)

/*
 * Verifies, submits and parks; the job is taken. run: a refused CSR is said in its ask, and the others
 * go on. run_one: for a job of one, which fails here instead when its CSR is refused.
 */
MUST_USE enum status issue_job_run(struct issue_job *job, struct err *err);
MUST_USE enum status issue_job_run_one(struct issue_job *job, struct err *err);

/* Refuses one ask with err. */
void issue_ask_refuse(struct issue_ask *ask, const struct err *err);

#endif
