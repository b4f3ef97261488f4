#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "server/audit.h"
#include "server/failpoint.h"
#include "server/http/request.h"
#include "server/issuance/internal.h"
#include "server/metrics.h"
#include "server/retry.h"
#include "server/signer/link.h"
#include "server/succession.h"

#define RETRY_AFTER_S 1

/* ---- ends ---- */

static void
end_slot(struct issuance *issuance, struct slot *slot, enum status status, const struct err *err)
{
	slot->open = false;
	issuance_end(issuance, slot->item, status, err);
}

static void
end_all_open(struct issuance *issuance, enum status status, const struct err *err)
{
	struct round *round = &issuance->round;

	for (size_t i = 0; i < round->count; i++)
		if (round->slots[i].open)
			end_slot(issuance, &round->slots[i], status, err);
}

/* What broke is the server's affair: the client hears that it may ask again. */
static void
fail_all_open(struct issuance *issuance, const char *stage, struct err *err)
{
	log_event(err->status == ERR_UNAVAILABLE ? LOG_WARN : LOG_ERROR, "issuance_round_failed", NULL,
		LOG_STR("stage", stage), LOG_STR("code", err->code), LOG_STR("text", err->text));
	if (err->status == ERR_UNAVAILABLE && err->retry_after_s == 0)
		err->retry_after_s = RETRY_AFTER_S;
	end_all_open(issuance, err->status, err);
}

/* The key may have signed for this intent: it is closed as revoked before anything else is admitted. */
static void
abandon(struct issuance *issuance, const struct slot *slot)
{
	if (!slot->admitted)
		return;
	assert(issuance->abandoned_count < COUNT_OF(issuance->abandoned));
	issuance->abandoned[issuance->abandoned_count++] =
		issuance->round.admit[slot->admit].ref;
}

static void
abandon_all_open(struct issuance *issuance)
{
	struct round *round = &issuance->round;

	for (size_t i = 0; i < round->count; i++)
		if (round->slots[i].open)
			abandon(issuance, &round->slots[i]);
}

/* ---- abandoned intents ---- */

static enum status
audit_orphans(struct app *app, struct db_tx *tx, const struct db_orphan *orphans, size_t count,
	struct err *err)
{
	struct audit_item items[SIGNER_BATCH_MAX];
	char objects[SIGNER_BATCH_MAX][sizeof("serial:") + SERIAL_TEXT_BYTES];
	json_t *details[SIGNER_BATCH_MAX] = { NULL };
	struct audit_entry entry = { .action = "intent.orphan", .actor = "server",
		.at_s = clock_wall_s(app->clock), .items = items, .item_count = count };
	enum status status = OK;

	for (size_t i = 0; i < count && status == OK; i++) {
		char serial[SERIAL_TEXT_BYTES];

		serial_format(serial, &orphans[i].ref.serial);
		(void)snprintf(objects[i], sizeof(objects[i]), "serial:%s", serial);
		details[i] = json_pack("{s:s, s:s}", "identity", orphans[i].identity, "profile",
			orphans[i].profile);
		items[i] = (struct audit_item){ .object = objects[i], .detail = details[i] };
		if (details[i] == NULL)
			status = err_memory(err);
	}
	if (status == OK)
		status = audit_write(app, tx, &entry, err);
	for (size_t i = 0; i < count; i++)
		json_decref(details[i]);
	return status;
}

enum status
round_close_abandoned(struct issuance *issuance, struct err *err)
{
	struct app *app = issuance->app;
	own_struct(db_tx) tx = { NULL, NULL };
	struct db_orphan orphans[SIGNER_BATCH_MAX];
	size_t count = 0;

	if (issuance->abandoned_count == 0)
		return OK;
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_issuance_reap(&tx, app->instance_id, issuance->abandoned, issuance->abandoned_count,
		orphans, COUNT_OF(orphans), &count, err));
	if (count > 0)
		TRY(audit_orphans(app, &tx, orphans, count, err));
	TRY(db_tx_commit(&tx, err));
	metric_add(METRIC_INTENTS_CLOSED, (int64_t)count);
	log_event(LOG_WARN, "intents_abandoned", NULL, LOG_INT("given_up", issuance->abandoned_count),
		LOG_INT("closed", count));
	issuance->abandoned_count = 0;
	return OK;
}

/* ---- prepare ---- */

/* Short memory is no reason to give a signer up. */
static bool
signer_lost(enum status status, const struct err *err)
{
	return status != OK && view_equal_text(view_text(err->code), "signer_away");
}

static const struct app_ca *
ca_of(const struct round *round, const struct issuance_item *item)
{
	return item->ca != NULL ? item->ca : round->issuing;
}

static void
fill_prepare(struct issuance *issuance)
{
	struct round *round = &issuance->round;

	for (size_t i = 0; i < round->count; i++) {
		const struct issuance_item *item = round->slots[i].item;

		round->slots[i].prepared = i;
		round->prepare[i] = (struct ca_prepare_item){
			.ca_id = ca_of(round, item)->ca_id,
			.spki = view_of(&item->csr->spki),
			.request = &item->request,
			.validity_s = item->validity_s,
			.asker = item->asker,
		};
		memcpy(round->prepare[i].profile_hash, item->profile->hash,
			sizeof(item->profile->hash));
	}
}

static enum status
prepare(struct issuance *issuance, struct err *err)
{
	struct round *round = &issuance->round;
	struct ca_signer *signer;
	enum status status;

	TRY(succession_follow(issuance->app, err));
	round->issuing = issuance->app->issuing;
	fill_prepare(issuance);
	TRY(signer_link_acquire(issuance->app->signer_issue, &signer, &round->generation, err));
	status = blocklist_refresh(issuance, signer, err);
	if (status == OK)
		status = ca_signer_prepare(signer, round->prepare, round->count, err);
	signer_link_release(issuance->app->signer_issue, signer_lost(status, err));
	if (status != OK)
		return status;
	for (size_t i = 0; i < round->count; i++)
		if (round->prepare[i].status != OK)
			end_slot(issuance, &round->slots[i], round->prepare[i].status,
				&round->prepare[i].refusal);
	return OK;
}

/* ---- admit ---- */

static enum status
ensure_months(struct issuance *issuance, struct err *err)
{
	const struct round *round = &issuance->round;

	for (size_t i = 0; i < round->count; i++) {
		int32_t month = serial_month(&round->prepare[i].serial);
		uint8_t *octet = &issuance->months[month / 8];
		uint8_t bit = (uint8_t)(1u << (month % 8));

		if (!round->slots[i].open || (*octet & bit) != 0)
			continue;
		TRY(db_issuance_ensure_month(issuance->app->pool, month, err));
		*octet |= bit;
	}
	return OK;
}

static void
fill_admit(struct issuance *issuance)
{
	struct round *round = &issuance->round;

	round->admit_count = 0;
	for (size_t i = 0; i < round->count; i++) {
		struct slot *slot = &round->slots[i];
		const struct issuance_item *item = slot->item;
		const struct ca_prepare_item *prepared = &round->prepare[slot->prepared];
		struct db_admit_item *admit = &round->admit[round->admit_count];
		enum ca_role role;

		if (!slot->open)
			continue; /* its item has ended, and is gone */
		role = item->profile->role;
		slot->admit = round->admit_count++;
		*admit = (struct db_admit_item){
			.principal_id = item->actor,
			.idempotency_key = item->idempotency_key,
			.identity = item->request.device_id,
			.profile = item->profile->name,
			.slot = item->slot,
			.replace = item->replace,
			.needs_manifest = item->asker == ASKER_STATION,
			.role_identity = role == CA_ROLE_STATION || role == CA_ROLE_ADMIN,
			.thing_type = item->request.thing_type,
			.attributes = item->attributes_json,
			.predecessor = item->predecessor,
			.ref = { ca_of(round, item)->issuer_id, prepared->serial },
			.not_after_s = prepared->not_after_s,
		};
		if (admit->role_identity)
			admit->identity_role = role == CA_ROLE_STATION ? "station" : "admin";
		memcpy(admit->request_hash, item->request_hash, sizeof(admit->request_hash));
		memcpy(admit->spki_sha256, item->csr->spki_sha256, sizeof(admit->spki_sha256));
	}
}

static enum status
admit_once(struct issuance *issuance, int32_t instance_id, struct err *err)
{
	struct round *round = &issuance->round;
	own_struct(db_tx) tx = { NULL, NULL };
	enum status status;

	fill_admit(issuance);
	TRY(db_tx_begin(&tx, issuance->app->pool, err));
	TRY(db_issuance_admit(&tx, instance_id, round->admit, round->admit_count, err));
	for (size_t i = 0; i < round->count; i++)
		if (round->slots[i].open)
			round->slots[i].admitted = round->admit[round->slots[i].admit].admission ==
				ADMISSION_ADMITTED;
	status = db_tx_commit(&tx, err);
	if (status == OK)
		return OK;
	/*
	 * Of a COMMIT whose outcome is unknown, the intents may be there: they are to be closed. If it was
	 * only the link that broke, they may also appear later, when we have looked for them: then whoever
	 * reaps finds them, because this server goes on as another instance.
	 */
	if (view_equal_text(view_text(err->code), "commit_unknown"))
		issuance->app->session_doubted = true;
	else
		for (size_t i = 0; i < round->count; i++)
			round->slots[i].admitted = false;
	return status;
}

static enum status
admit(struct issuance *issuance, int32_t instance_id, struct err *err)
{
	unsigned tries = 0;
	enum status status;

	TRY(ensure_months(issuance, err));
	do
		status = admit_once(issuance, instance_id, err);
	while (retry_due(&tries, status, err));
	return status;
}

/* Ends or puts off what was not admitted; replays stay open, to be read later. */
static void
sort_admissions(struct issuance *issuance)
{
	struct round *round = &issuance->round;

	for (size_t i = 0; i < round->count; i++) {
		struct slot *slot = &round->slots[i];
		struct db_admit_item *item = &round->admit[slot->admit];

		if (!slot->open)
			continue;
		switch (item->admission) {
		case ADMISSION_ADMITTED:
		case ADMISSION_REPLAY:
			break;
		case ADMISSION_BUSY:
			slot->open = false;
			issuance_put_off(issuance, slot->item);
			break;
		case ADMISSION_REFUSED:
			end_slot(issuance, slot, item->refusal.status, &item->refusal);
			break;
		case ADMISSION_UNSET: {
			struct err err;

			end_slot(issuance, slot, err_set(&err, ERR_INTERNAL, "admission_unset",
				"Admit left an item without an answer"), &err);
			break;
		}
		}
	}
}

/* ---- sign ---- */

static enum status
drop_unadmitted(struct issuance *issuance, struct ca_signer *signer, struct err *err)
{
	struct round *round = &issuance->round;
	size_t count = 0;

	for (size_t i = 0; i < round->count; i++)
		if (round->prepare[i].status == OK && !round->slots[i].admitted)
			round->handles[count++] = round->prepare[i].handle;
	return count > 0 ? ca_signer_drop(signer, round->handles, count, err) : OK;
}

static enum status
sign_admitted(struct issuance *issuance, struct ca_signer *signer, struct err *err)
{
	struct round *round = &issuance->round;

	round->sign_count = 0;
	for (size_t i = 0; i < round->count; i++) {
		struct slot *slot = &round->slots[i];

		if (!slot->open || !slot->admitted)
			continue;
		slot->sign = round->sign_count++;
		round->sign[slot->sign] = (struct ca_sign_item){
			.handle = round->prepare[slot->prepared].handle,
		};
	}
	return round->sign_count > 0 ?
		ca_signer_sign(signer, round->sign, round->sign_count, err) : OK;
}

/* A signer that does not know its handle was exchanged in between, or sat on it for a minute. */
static void
sort_signatures(struct issuance *issuance)
{
	struct round *round = &issuance->round;
	struct err err;

	for (size_t i = 0; i < round->count; i++) {
		struct slot *slot = &round->slots[i];

		if (!slot->open || !slot->admitted)
			continue;
		slot->signed_ok = round->sign[slot->sign].status == OK;
		if (slot->signed_ok)
			continue;
		log_error(LOG_ERROR, "signing_failed", slot->item->request_id,
			&round->sign[slot->sign].refusal);
		abandon(issuance, slot);
		(void)err_set(&err, ERR_UNAVAILABLE, "signer_away", "the signer could not sign");
		err.retry_after_s = RETRY_AFTER_S;
		end_slot(issuance, slot, ERR_UNAVAILABLE, &err);
	}
}

static enum status
sign(struct issuance *issuance, struct err *err)
{
	struct round *round = &issuance->round;
	struct ca_signer *signer;
	uint64_t generation;
	enum status status = OK;

	TRY(signer_link_acquire(issuance->app->signer_issue, &signer, &generation, err));
	/* The handles died with the signer that gave them. */
	if (generation != round->generation) {
		signer_link_release(issuance->app->signer_issue, false);
		return err_set(err, ERR_UNAVAILABLE, "signer_away", "the signer was restarted");
	}
	status = drop_unadmitted(issuance, signer, err);
	if (status == OK)
		status = sign_admitted(issuance, signer, err);
	signer_link_release(issuance->app->signer_issue, signer_lost(status, err));
	if (status == OK)
		sort_signatures(issuance);
	return status;
}

/* After a failed Admit the signer would keep what was prepared until it expires; give its room back. */
static void
drop_after_failure(struct issuance *issuance)
{
	struct ca_signer *signer;
	uint64_t generation;
	struct err err;

	for (size_t i = 0; i < issuance->round.count; i++)
		issuance->round.slots[i].admitted = false;
	if (signer_link_acquire(issuance->app->signer_issue, &signer, &generation, &err) != OK)
		return;
	signer_link_release(issuance->app->signer_issue, generation == issuance->round.generation &&
		signer_lost(drop_unadmitted(issuance, signer, &err), &err));
}

/* ---- release ---- */

/* What is recorded, as its row says, without reading it back. */
static void
fill_certificate(struct round *round, struct slot *slot, const struct db_record_item *record)
{
	const struct issuance_item *item = slot->item;
	const struct db_admit_item *admitted = &round->admit[slot->admit];
	struct ca_sign_item *made = &round->sign[slot->sign];
	struct db_certificate *c = &slot->item->certificate;

	*c = (struct db_certificate){
		.ref = admitted->ref,
		.status = item->slot == SLOT_SUCCESSOR ? CERT_PENDING_CONFIRMATION : CERT_ACTIVE,
		.not_before_s = record->not_before_s,
		.not_after_s = record->not_after_s,
		.issued_at_s = record->issued_at_s,
		.status_at_s = record->issued_at_s,
		.der = made->der,
	};
	if (record->revoked) {
		c->status = CERT_REVOKED;
		c->revoked = true;
		c->reason = record->reason;
		c->revoked_at_s = record->issued_at_s;
	}
	made->der = (struct bytes){ NULL, 0 };
	(void)snprintf(c->ca_id, sizeof(c->ca_id), "%s", ca_of(round, item)->ca_id);
	(void)snprintf(c->profile, sizeof(c->profile), "%s", item->profile->name);
	(void)snprintf(c->device_id, sizeof(c->device_id), "%s", item->request.device_id);
	(void)snprintf(c->subject, sizeof(c->subject), "%s", record->subject);
	(void)snprintf(c->principal_id, sizeof(c->principal_id), "%s", item->actor);
	(void)snprintf(c->manifest_id, sizeof(c->manifest_id), "%s", admitted->manifest_id);
	(void)snprintf(c->device_status, sizeof(c->device_status), "%s",
		item->slot == SLOT_MANY ? "" : "active");
	/* Rework follows the one that it replaces, a successor the one that it is to supersede. */
	c->has_predecessor = item->slot == SLOT_SUCCESSOR || slot->has_replaced;
	if (c->has_predecessor)
		memcpy(c->predecessor, item->slot == SLOT_SUCCESSOR ? item->predecessor_id :
			slot->replaced, sizeof(c->predecessor));
	memcpy(c->sha256, made->sha256, sizeof(c->sha256));
	memcpy(c->spki_sha256, admitted->spki_sha256, sizeof(c->spki_sha256));
}

static void
release_recorded(struct issuance *issuance, const size_t *slots, size_t count)
{
	struct round *round = &issuance->round;

	for (size_t i = 0; i < count; i++) {
		const struct db_record_item *record = &round->record[i];
		struct slot *slot = &round->slots[slots[i]];

		fill_certificate(round, slot, record);
		slot->item->clamped = round->prepare[slot->prepared].clamped;
		if (record->ended_count > 0)
			metric_count(METRIC_REVOKED, revocation_reason_name(REASON_SUPERSEDED),
				NULL, (int64_t)record->ended_count);
		if (record->revoked)
			metric_count(METRIC_REVOKED, revocation_reason_name(record->reason), NULL, 1);
		end_slot(issuance, slot, OK, NULL);
	}
}

/* Nothing of what could not be recorded is released. */
static void
withhold(struct issuance *issuance, const size_t *slots, size_t count, struct err *err)
{
	log_event(LOG_ERROR, "record_failed", NULL, LOG_STR("code", err->code),
		LOG_STR("text", err->text), LOG_INT("certificates", count));
	/* A conflict here (intent_closed) is between our own processes, not the client's. */
	if (err->status == ERR_CONFLICT)
		(void)err_set(err, ERR_UNAVAILABLE, "issuance_abandoned",
			"the server was taken for dead while it issued; ask again");
	if (err->status == ERR_UNAVAILABLE && err->retry_after_s == 0)
		err->retry_after_s = RETRY_AFTER_S;
	for (size_t i = 0; i < count; i++) {
		struct slot *slot = &issuance->round.slots[slots[i]];

		abandon(issuance, slot);
		end_slot(issuance, slot, err->status, err);
	}
}

/*
 * All in one transaction; if the database refuses it for one of them, each in one of its own, so that
 * one bad row costs the others nothing.
 */
static void
record(struct issuance *issuance)
{
	struct round *round = &issuance->round;
	size_t slots[SIGNER_BATCH_MAX];
	size_t count = 0;
	struct err err;
	enum status status;

	for (size_t i = 0; i < round->count; i++)
		if (round->slots[i].open && round->slots[i].signed_ok)
			slots[count++] = i;
	if (count == 0)
		return;
	status = record_items(issuance->app, round, slots, count, &err);
	if (status == OK) {
		FAILPOINT("after_record");
		release_recorded(issuance, slots, count);
		return;
	}
	if (status == ERR_UNAVAILABLE || count == 1) {
		withhold(issuance, slots, count, &err);
		return;
	}
	for (size_t i = 0; i < count; i++) {
		if (record_items(issuance->app, round, &slots[i], 1, &err) == OK)
			release_recorded(issuance, &slots[i], 1);
		else
			withhold(issuance, &slots[i], 1, &err);
	}
}

static enum status
read_rows(struct issuance *issuance, size_t count, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	TRY(db_tx_begin(&tx, issuance->app->pool, err));
	return db_certificate_by_refs(&tx, issuance->round.refs, count, issuance->round.rows, err);
}

/* Who asked before gets what was issued then, with its present status. */
static void
replay(struct issuance *issuance)
{
	struct round *round = &issuance->round;
	size_t slots[SIGNER_BATCH_MAX];
	size_t count = 0;
	struct err err;

	for (size_t i = 0; i < round->count; i++) {
		if (!round->slots[i].open)
			continue;
		round->refs[count] = round->admit[round->slots[i].admit].existing;
		slots[count++] = i;
	}
	if (count == 0)
		return;
	if (read_rows(issuance, count, &err) != OK) {
		fail_all_open(issuance, "replay", &err);
		return;
	}
	for (size_t i = 0; i < count; i++) {
		struct slot *slot = &round->slots[slots[i]];

		slot->item->certificate = round->rows[i];
		slot->item->replayed = true;
		end_slot(issuance, slot, OK, NULL);
	}
}

/* ---- one batch ---- */

static void
count_us(const char *stage, int64_t *since_us)
{
	int64_t now_us = clock_mono_us();

	metric_count(METRIC_ISSUANCE_STAGE_US, stage, NULL, now_us - *since_us);
	*since_us = now_us;
}

static bool
any_open(const struct round *round)
{
	for (size_t i = 0; i < round->count; i++)
		if (round->slots[i].open)
			return true;
	return false;
}

static void
carry(struct issuance *issuance)
{
	int32_t instance_id = issuance->app->instance_id;
	int64_t us = clock_mono_us();
	struct err err;

	if (round_close_abandoned(issuance, &err) != OK) {
		fail_all_open(issuance, "close_abandoned", &err);
		return;
	}
	if (instance_id == 0) {
		(void)err_set(&err, ERR_UNAVAILABLE, "database_away",
			"the server's database session is being renewed");
		fail_all_open(issuance, "instance", &err);
		return;
	}
	if (prepare(issuance, &err) != OK) {
		fail_all_open(issuance, "prepare", &err);
		return;
	}
	FAILPOINT("after_prepare");
	count_us("prepare", &us);
	if (!any_open(&issuance->round))
		return;
	if (admit(issuance, instance_id, &err) != OK) {
		abandon_all_open(issuance);
		fail_all_open(issuance, "admit", &err);
		drop_after_failure(issuance);
		return;
	}
	FAILPOINT("after_admit");
	count_us("admit", &us);
	sort_admissions(issuance);
	if (sign(issuance, &err) != OK) {
		/* Replays need no signer. */
		for (size_t i = 0; i < issuance->round.count; i++) {
			struct slot *slot = &issuance->round.slots[i];

			if (!slot->open || !slot->admitted)
				continue;
			abandon(issuance, slot);
			err.retry_after_s = RETRY_AFTER_S;
			end_slot(issuance, slot, err.status, &err);
		}
		log_error(LOG_WARN, "issuance_sign_failed", NULL, &err);
	}
	FAILPOINT("after_sign");
	count_us("sign", &us);
	record(issuance);
	count_us("record", &us);
	replay(issuance);
}

void
round_run(struct issuance *issuance)
{
	struct round *round = &issuance->round;
	struct err err;

	carry(issuance);
	assert(!any_open(round));
	for (size_t i = 0; i < round->sign_count; i++)
		bytes_free(&round->sign[i].der);
	round->sign_count = 0;
	metric_add(METRIC_ISSUANCE_BATCHES, 1);
	/* At once if it can be done at once; before the next batch otherwise. */
	if (round_close_abandoned(issuance, &err) != OK)
		log_error(LOG_WARN, "intents_not_closed", NULL, &err);
}
