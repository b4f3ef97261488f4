#include "server/api/issue.h"

#include <stdatomic.h>
#include <string.h>

#include "base/mem.h"
#include "ca/digest.h"
#include "server/app.h"
#include "server/http/http.h"
#include "server/iot/prereg.h"
#include "server/iot/room.h"

/* CSRs that one worker verifies in one go: some milliseconds, so that others get their turn. */
#define VERIFY_CHUNK 32
/* Answers that whoever ends a job's last certificate renders by itself: some microseconds each. */
#define RENDER_AT_ONCE 4

typedef struct db_iot_id db_iot_id;
OWNER(db_iot_id, mem_free)

struct chunk {
	struct issue_job *job;
	size_t first, count;
};

struct issue_job {
	struct app *app;
	struct request *request;
	json_t *body;
	issue_reply reply;
	struct chunk *chunks;
	size_t chunk_count;
	atomic_size_t chunks_left; /* not verified yet */
	atomic_size_t asks_left;   /* in the pipeline */
	struct issuance_item **submit;
	size_t count;
	struct issue_ask asks[];
};

enum status
issue_job_new(struct issue_job **out, struct app *app, struct request *request, json_t *body,
	size_t count, issue_reply reply, struct err *err)
{
	struct issue_job *job = mem_zalloc(sizeof(*job) + count * sizeof(job->asks[0]));

	if (job == NULL) {
		json_decref(body);
		return err_memory(err);
	}
	*job = (struct issue_job){ .app = app, .request = request, .body = body, .reply = reply,
		.count = count };
	job->chunk_count = (count + VERIFY_CHUNK - 1) / VERIFY_CHUNK;
	job->chunks = mem_array(job->chunk_count + 1, sizeof(*job->chunks));
	job->submit = mem_array(count + 1, sizeof(struct issuance_item *));
	if (job->chunks == NULL || job->submit == NULL) {
		issue_job_free(job);
		return err_memory(err);
	}
	for (size_t i = 0; i < count; i++)
		job->asks[i].job = job;
	*out = job;
	return OK;
}

struct issue_ask *
issue_job_asks(struct issue_job *job)
{
	return job->asks;
}

void
issue_job_free(struct issue_job *job)
{
	if (job == NULL)
		return;
	for (size_t i = 0; i < job->count; i++) {
		ca_csr_free(&job->asks[i].csr);
		db_certificate_free(&job->asks[i].item.certificate);
	}
	json_decref(job->body);
	mem_free(job->chunks);
	mem_free(job->submit);
	mem_free(job);
}

void
issue_ask_refuse(struct issue_ask *ask, const struct err *err)
{
	ask->refused = true;
	ask->item.status = err->status;
	ask->item.err = *err;
	issuance_count(ask->item.profile, err->status, false, err->code);
}

/* ---- verify ---- */

/*
 * What the same idempotency key must stand for again: all that shapes the certificate. Of the CSR that
 * is its key, and its extensions, which may be refused; not its signature, which differs when a client
 * makes the CSR anew for the same key.
 */
static void
hash_request(struct issue_ask *ask)
{
	struct issuance_item *item = &ask->item;
	const uint8_t slot = (uint8_t)item->slot;
	const uint8_t replace = item->replace;
	const uint8_t separator = 0; /* no text below can hold it */
	const struct view zero = { &separator, 1 };
	uint8_t validity[8];
	const struct view parts[] = {
		view_text("jitrca request 1"), zero,
		{ &slot, 1 }, { &replace, 1 }, { validity, sizeof(validity) },
		view_text(item->profile->name), zero,
		view_text(item->request.device_id), zero,
		view_text(item->request.thing_type), zero,
		view_text(item->attributes_json), zero,
		{ ask->csr.spki_sha256, sizeof(ask->csr.spki_sha256) },
		view_of(&ask->csr.extensions),
	};

	for (size_t i = 0; i < sizeof(validity); i++)
		validity[i] = (uint8_t)((uint64_t)item->validity_s >> (8 * (7 - i)));
	ca_blake2b_parts(item->request_hash, parts, COUNT_OF(parts));
}

static enum status
verify_ask(struct ca_verifier *verifier, struct issue_ask *ask, struct err *err)
{
	TRY(ca_csr_read_pem(verifier, view_text(ask->pem), &ask->csr, err));
	TRY(ca_csr_check(&ask->csr, ask->item.profile, err));
	if (ask->other_key && memcmp(ask->csr.spki_sha256, ask->not_spki_sha256,
	    sizeof(ask->not_spki_sha256)) == 0)
		return err_set(err, ERR_CONFLICT, "rotation_same_key",
			"csr: another key than that of the present certificate is wanted");
	ask->item.csr = &ask->csr;
	hash_request(ask);
	return OK;
}

static enum status
verify_chunk(const struct chunk *chunk, struct err *err)
{
	struct issue_job *job = chunk->job;
	struct ca_verifier *verifier;

	TRY(issuance_verifier_take(job->app->issuance, &verifier, err));
	for (size_t i = chunk->first; i < chunk->first + chunk->count; i++) {
		struct err refusal;

		if (!job->asks[i].refused && verify_ask(verifier, &job->asks[i], &refusal) != OK)
			issue_ask_refuse(&job->asks[i], &refusal);
	}
	issuance_verifier_give(job->app->issuance, verifier);
	return OK;
}

/* ---- answer ---- */

static void
finish(void *arg)
{
	struct issue_job *job = arg;
	struct request *request = job->request;
	struct err err;
	enum status status = job->reply(job->app, request, job->asks, job->count, &err);

	/* The asks point into the request: they go first. */
	issue_job_free(job);
	request_finish(request, status, &err);
}

static void
finish_failed(struct issue_job *job, const struct err *err)
{
	struct request *request = job->request;

	issue_job_free(job);
	request_finish(request, err->status, err);
}

/*
 * Rendering many is for a worker, who would be woken for more than one costs; when the workers have too
 * much to do already, it is done here and now.
 */
static void
finish_on_worker(struct issue_job *job)
{
	struct err err;

	if (job->count <= RENDER_AT_ONCE || http_defer(job->app->http, finish, job, &err) != OK)
		finish(job);
}

static void
resume(void *arg)
{
	finish_on_worker(arg);
}

/* What is to be known to IoT Core before it is handed out. */
static bool
held_back(struct issue_job *job)
{
	own(db_iot_id) ids = NULL;
	size_t count = 0;

	if (job->app->iot == NULL)
		return false;
	for (size_t i = 0; i < job->count; i++) {
		const struct issuance_item *item = &job->asks[i].item;

		if (job->asks[i].refused || item->status != OK || item->replayed ||
		    !item->profile->preregister || item->slot == SLOT_MANY)
			continue;
		if (ids == NULL && (ids = mem_array(job->count, sizeof(*ids))) == NULL)
			return false;
		memcpy(ids[count++].sha256, item->certificate.sha256, DB_SHA256_BYTES);
	}
	return count > 0 && iot_prereg_hold(job->app->iot->prereg, ids, count, resume, job);
}

static void
ask_ended(struct issuance_item *item, void *arg)
{
	struct issue_job *job = arg;

	(void)item;
	if (atomic_fetch_sub(&job->asks_left, 1) == 1 && !held_back(job))
		finish_on_worker(job);
}

/* ---- submit ---- */

/* Parked: from here on the job ends with request_finish, here or in ask_ended. */
static void
submit(struct issue_job *job)
{
	size_t count = 0;
	struct err err;

	for (size_t i = 0; i < job->count; i++) {
		struct issue_ask *ask = &job->asks[i];

		if (ask->refused)
			continue;
		ask->item.done = ask_ended;
		ask->item.arg = job;
		job->submit[count++] = &ask->item;
	}
	if (count == 0) {
		finish(job);
		return;
	}
	atomic_store(&job->asks_left, count);
	if (issuance_submit(job->app->issuance, job->submit, count, &err) != OK)
		finish_failed(job, &err);
}

static void
run_chunk(void *arg)
{
	struct chunk *chunk = arg;
	struct issue_job *job = chunk->job;
	struct err err;

	if (verify_chunk(chunk, &err) != OK)
		for (size_t i = chunk->first; i < chunk->first + chunk->count; i++)
			issue_ask_refuse(&job->asks[i], &err);
	if (atomic_fetch_sub(&job->chunks_left, 1) == 1)
		submit(job);
}

enum status
issue_job_run_one(struct issue_job *job, struct err *err)
{
	struct issue_ask *ask = &job->asks[0];
	struct chunk all = { .job = job, .first = 0, .count = 1 };
	enum status status = verify_chunk(&all, err);

	if (status == OK && ask->refused) {
		*err = ask->item.err;
		status = err->status;
	}
	if (status != OK) {
		issue_job_free(job);
		return status;
	}
	request_park(job->request);
	submit(job);
	return OK;
}

enum status
issue_job_run(struct issue_job *job, struct err *err)
{
	struct app *app = job->app;
	size_t count = job->chunk_count;

	for (size_t i = 0; i < count; i++)
		job->chunks[i] = (struct chunk){ .job = job, .first = i * VERIFY_CHUNK,
			.count = i + 1 < count ? VERIFY_CHUNK : job->count - i * VERIFY_CHUNK };
	atomic_store(&job->chunks_left, count);
	request_park(job->request);
	/* The last chunk is done by this worker: until then the job cannot end under the loop. */
	for (size_t i = 0; i + 1 < count; i++)
		if (http_defer(app->http, run_chunk, &job->chunks[i], err) != OK)
			run_chunk(&job->chunks[i]);
	run_chunk(&job->chunks[count - 1]);
	return OK;
}
