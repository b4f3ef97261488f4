/*
 * The thread that signs. A round takes what waits, reads all the rows in one statement, has all answers
 * signed in one exchange, and ends the requests.
 */
#include <assert.h>
#include <string.h>
#include <time.h>

#include "base/cond.h"
#include "base/log.h"
#include "base/mem.h"
#include "ca/digest.h"
#include "server/protocol/ocsp_internal.h"
#include "server/signer/link.h"

/* Responders are looked after at least so often. */
#define IDLE_MS 5000

/* A request of the round. */
struct place {
	struct ocsp_waiting *waiting;
	size_t ca;    /* whose responder answers */
	uint64_t mark; /* of the cache, from before the row was read */
	size_t found; /* its first CertID among the round's rows */
	bool open;    /* nothing is decided yet */
	enum status outcome; /* of the reply, and why it failed */
	struct err why;
	const struct ocsp_responder *responder;
	size_t data_at, data_len; /* its ResponseData in round.data */
	enum ca_ocsp_status first_status;
	int64_t next_update_s;
};

struct round {
	struct ocsp *ocsp;
	int64_t now_s;
	struct place places[SIGNER_BATCH_MAX];
	size_t count;
	struct db_ocsp_item rows[OCSP_ROUND_IDS_MAX];
	size_t row_count;
	struct ca_ocsp_single singles[OCSP_IDS_MAX];
	struct ca_ocsp_item items[SIGNER_BATCH_MAX];
	size_t item_places[SIGNER_BATCH_MAX];
	size_t item_count;
	struct buf data;
	struct der_writer writer;
};

static void
round_free(struct round *round)
{
	buf_free(&round->data);
	der_writer_free(&round->writer);
	mem_free(round);
}

/* ---- ends ---- */

static void
end_error(struct round *round, struct place *place, enum ca_ocsp_error error)
{
	place->open = false;
	place->outcome =
		ocsp_reply_error(round->ocsp, place->waiting->request, error, &place->why);
}

/* One after the other, so that the thread that sends them is woken once and not for each. */
static void
release(struct round *round)
{
	for (size_t i = 0; i < round->count; i++) {
		struct place *place = &round->places[i];

		assert(!place->open);
		request_finish(place->waiting->request, place->outcome, &place->why);
	}
}

/* What failed for a time can be asked again; the rest is our fault. */
static void
end_failed(struct round *round, struct place *place, enum status status, const struct err *why)
{
	if (status != ERR_UNAVAILABLE)
		log_error(LOG_ERROR, "ocsp_failed", request_id(place->waiting->request), why);
	end_error(round, place, status == ERR_UNAVAILABLE ? OCSP_TRY_LATER : OCSP_INTERNAL_ERROR);
}

static void
end_all(struct round *round, enum status status, const struct err *why)
{
	for (size_t i = 0; i < round->count; i++)
		if (round->places[i].open)
			end_failed(round, &round->places[i], status, why);
}

/* ---- what is asked ---- */

static void
place_begin(struct place *place, struct ocsp_waiting *waiting)
{
	place->waiting = waiting;
	place->ca = OCSP_CAS_MAX;
	place->open = true;
	place->responder = NULL;
}

/* With the lock: as many as one exchange holds. */
static void
take_waiting(struct round *round)
{
	struct ocsp *ocsp = round->ocsp;
	size_t ids = 0;

	round->count = 0;
	while (ocsp->first != NULL && round->count < SIGNER_BATCH_MAX &&
		ids + ocsp->first->count <= OCSP_ROUND_IDS_MAX) {
		struct ocsp_waiting *waiting = ocsp->first;

		ids += waiting->count;
		ocsp->first = waiting->next;
		if (ocsp->first == NULL)
			ocsp->last = &ocsp->first;
		ocsp->waiting--;
		place_begin(&round->places[round->count++], waiting);
	}
}

/* Is there anything about it to look for? */
static bool
has_row(const struct ocsp_asked *asked)
{
	return asked->ca >= 0 && asked->id.serial_ours;
}

static void
collect(struct round *round)
{
	round->row_count = 0;
	for (size_t i = 0; i < round->count; i++) {
		struct place *place = &round->places[i];

		place->found = round->row_count;
		for (size_t k = 0; k < place->waiting->count; k++) {
			const struct ocsp_asked *asked = &place->waiting->asked[k];

			if (asked->ca >= 0 && place->ca == OCSP_CAS_MAX)
				place->ca = (size_t)asked->ca;
			if (has_row(asked))
				round->rows[round->row_count++].ref = (struct db_cert_ref){
					round->ocsp->app->cas[asked->ca].issuer_id,
					asked->id.serial };
		}
		if (place->waiting->cacheable)
			place->mark = ocsp_cache_mark(
				round->ocsp->cache, &place->waiting->asked[0].id.serial);
	}
}

static enum status
look_up(struct round *round, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	/* What the rows say is true from here on. */
	round->now_s = clock_wall_s(round->ocsp->app->clock);
	if (round->row_count == 0)
		return OK;
	TRY(db_tx_begin(&tx, round->ocsp->app->pool, err));
	return db_ocsp_find(&tx, round->rows, round->row_count, err);
}

/* ---- what is said ---- */

/* Invariant 7: good only of what has a row that is not revoked. */
static void
judge(const struct db_ocsp_item *row, struct ca_ocsp_single *single)
{
	single->status = OCSP_UNKNOWN;
	if (row->revoked) {
		single->status = OCSP_REVOKED;
		single->revoked_at_s = row->revoked_at_s;
		single->reason = (int)row->reason;
		return;
	}
	switch (row->status) {
	case CERT_ACTIVE:
	case CERT_PENDING_CONFIRMATION:
	case CERT_SUPERSEDED:
		single->status = OCSP_GOOD;
		break;
	case CERT_UNSET:
	case CERT_HELD: /* these two have their row in revocation */
	case CERT_REVOKED:
	case CERT_EXPIRED:
		break;
	}
}

static int64_t
least(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/*
 * What is good is so for no longer than the certificate is valid. Of one that is not any more, the last
 * answer is given: it was good, or it is revoked.
 */
static int64_t
next_update(const struct round *round, const struct place *place, const struct db_ocsp_item *row)
{
	int64_t next_s = least(round->now_s + round->ocsp->app->config.ocsp_validity_s,
		place->responder->not_after_s);

	if (row != NULL && !row->revoked && row->not_after_s > round->now_s)
		next_s = least(next_s, row->not_after_s);
	return next_s;
}

static enum status
write_data(struct round *round, struct place *place, struct err *err)
{
	const struct ocsp_waiting *waiting = place->waiting;
	const struct db_ocsp_item *row = &round->rows[place->found];

	for (size_t i = 0; i < waiting->count; i++) {
		const struct ocsp_asked *asked = &waiting->asked[i];
		struct ca_ocsp_single *single = &round->singles[i];

		*single = (struct ca_ocsp_single){
			.id = asked->id.whole,
			.status = OCSP_UNKNOWN,
			.this_update_s = round->now_s,
			.next_update_s = next_update(round, place, has_row(asked) ? row : NULL),
		};
		if (has_row(asked))
			judge(row++, single);
	}
	place->first_status = round->singles[0].status;
	place->next_update_s = round->singles[0].next_update_s;
	TRY(ca_ocsp_data_write(&round->writer, place->responder->key_hash, round->now_s,
		round->singles, waiting->count, waiting->nonce, err));
	place->data_at = round->data.len;
	place->data_len = round->writer.buf.len;
	return buf_add(&round->data, round->writer.buf.data, round->writer.buf.len, err);
}

static void
write_all(struct round *round)
{
	struct err err;

	round->data.len = 0;
	for (size_t i = 0; i < round->count; i++) {
		struct place *place = &round->places[i];
		enum status status;

		if (!place->open)
			continue;
		status = ocsp_responder_get(round->ocsp, place->ca, &place->responder, &err);
		if (status == OK)
			status = write_data(round, place, &err);
		if (status != OK)
			end_failed(round, place, status, &err);
	}
}

/* ---- signing ---- */

/* Where data lies is known only once all of it is written. */
static void
fill_items(struct round *round)
{
	round->item_count = 0;
	for (size_t i = 0; i < round->count; i++) {
		const struct place *place = &round->places[i];
		struct ca_ocsp_item *item = &round->items[round->item_count];

		if (!place->open)
			continue;
		item->ca_id = round->ocsp->app->cas[place->ca].ca_id;
		memcpy(item->key_hash, place->responder->key_hash, sizeof(item->key_hash));
		item->data = (struct view){ round->data.data + place->data_at, place->data_len };
		round->item_places[round->item_count++] = i;
	}
}

static enum status
sign_items(struct round *round, struct err *err)
{
	struct signer_link *link = round->ocsp->app->signer_ocsp;
	struct ca_signer *signer;
	uint64_t generation;
	enum status status;

	if (round->item_count == 0)
		return OK;
	TRY(signer_link_acquire(link, &signer, &generation, err));
	status = ca_signer_ocsp_sign(signer, round->items, round->item_count, err);
	signer_link_release(link, status == ERR_UNAVAILABLE);
	return status;
}

/* ---- answering ---- */

static enum status
make_answer(struct round *round, const struct place *place, struct ocsp_answer **out,
	struct err *err)
{
	const struct ocsp_waiting *waiting = place->waiting;
	struct ocsp_answer *answer;
	uint8_t digest[32];

	TRY(ocsp_answer_new(out, waiting->cacheable ? waiting->asked[0].id.whole : (struct view){ NULL, 0 },
		buf_view(&round->writer.buf), err));
	answer = *out;
	answer->status = place->first_status;
	answer->next_update_s = place->next_update_s;
	answer->use_until_s = round->now_s + (place->next_update_s - round->now_s) / 2;
	if (!waiting->cacheable)
		return OK;
	answer->ref = (struct db_cert_ref){ round->ocsp->app->cas[place->ca].issuer_id,
		waiting->asked[0].id.serial };
	ca_sha256(digest, ocsp_answer_response(answer));
	answer->etag[0] = '"';
	hex_encode(answer->etag + 1, digest, 16);
	answer->etag[33] = '"';
	http_date(answer->last_modified, round->now_s);
	http_date(answer->expires, place->next_update_s);
	return OK;
}

static enum status
reply(struct round *round, struct place *place, const struct ca_ocsp_item *item, struct err *err)
{
	const struct ocsp_waiting *waiting = place->waiting;
	/* Of what nobody was given, nothing is remembered: there is too much of it. */
	bool cacheable = waiting->cacheable && place->first_status != OCSP_UNKNOWN;
	struct ocsp_answer *answer = NULL;

	TRY(ca_ocsp_response_write(&round->writer, item->data,
		(struct view){ item->signature, item->signature_len },
		view_of(&place->responder->certificate), err));
	TRY(make_answer(round, place, &answer, err));
	if (cacheable)
		ocsp_cache_put(round->ocsp->cache, answer, place->mark);
	ocsp_count(round->ocsp, COUNT_SIGNED);
	ocsp_count(round->ocsp, COUNT_GOOD + (enum ocsp_count)(place->first_status - OCSP_GOOD));
	return ocsp_reply(waiting->request, answer, cacheable, round->now_s, err);
}

/* True: a signer that was restarted has not the key, so this place is signed with another. */
static bool
end_item(struct round *round, const struct ca_ocsp_item *item, struct place *place, bool again)
{
	if (item->status != OK && again && strcmp(item->refusal.code, "ocsp_key_unknown") == 0)
		return true;
	if (item->status != OK) {
		end_failed(round, place, item->status, &item->refusal);
		return false;
	}
	place->open = false;
	place->outcome = reply(round, place, item, &place->why);
	if (place->outcome != OK)
		log_error(LOG_WARN, "ocsp_failed", request_id(place->waiting->request), &place->why);
	return false;
}

/* True: some are left, for which a responder with another key is needed. */
static bool
sign_and_end(struct round *round, bool again)
{
	bool left = false;
	struct err err;
	enum status status;

	write_all(round);
	fill_items(round);
	status = sign_items(round, &err);
	if (status != OK) {
		end_all(round, status, &err);
		return false;
	}
	for (size_t i = 0; i < round->item_count; i++) {
		struct place *place = &round->places[round->item_places[i]];

		if (!end_item(round, &round->items[i], place, again))
			continue;
		left = true;
		/* Once a key: a round may hold many answers of it. */
		if (memcmp(round->ocsp->responders[place->ca].key_hash, round->items[i].key_hash,
			    OCSP_KEY_HASH_BYTES) == 0)
			ocsp_responder_lost(round->ocsp, place->ca);
	}
	return left;
}

static void
run_round(struct round *round)
{
	struct err err;
	enum status status;

	ocsp_count(round->ocsp, COUNT_ROUNDS);
	collect(round);
	status = look_up(round, &err);
	if (status != OK)
		end_all(round, status, &err);
	else if (sign_and_end(round, true))
		(void)sign_and_end(round, false);
	release(round);
}

/* ---- the thread ---- */

/* With the lock: until something waits, or responders are to be looked after. */
static void
wait_for_some(struct ocsp *ocsp)
{
	struct timespec until = cond_in_ms(IDLE_MS);

	while (ocsp->first == NULL && !ocsp->stopping)
		if (pthread_cond_timedwait(&ocsp->wake, &ocsp->lock, &until) != 0)
			return;
}

static struct round *
round_new(struct ocsp *ocsp)
{
	struct round *round = mem_zalloc(sizeof(*round));

	if (round == NULL)
		return NULL;
	round->ocsp = ocsp;
	round->data.limit_bytes = (size_t)1 << 20;
	der_writer_init(&round->writer, OCSP_DATA_MAX_BYTES + 8192);
	return round;
}

void *
ocsp_round_main(void *arg)
{
	struct ocsp *ocsp = arg;
	struct round *round = round_new(ocsp);

	assert(round != NULL); /* at the start, before anything is served */
	for (;;) { /* until stopped and nothing waits */
		(void)pthread_mutex_lock(&ocsp->lock);
		wait_for_some(ocsp);
		take_waiting(round);
		if (round->count == 0 && ocsp->stopping) {
			(void)pthread_mutex_unlock(&ocsp->lock);
			break;
		}
		(void)pthread_mutex_unlock(&ocsp->lock);
		if (round->count > 0)
			run_round(round);
		else
			ocsp_responders_renew(ocsp);
	}
	round_free(round);
	return NULL;
}
