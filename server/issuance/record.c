#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "server/audit.h"
#include "server/failpoint.h"
#include "server/http/request.h"
#include "server/iot/room.h"
#include "server/issuance/internal.h"
#include "server/json_text.h"
#include "server/metrics.h"
#include "server/retry.h"

#define OBJECT_BYTES (sizeof("certificate:") + 2 * DB_SHA256_BYTES)
/* Of one item: ten texts, the longest of 64 octets and each six times as long if all were escaped. */
#define PROOF_TEXT_BYTES 4096

/* One audit item, and who asked for what it tells. */
struct proof {
	char object[OBJECT_BYTES];
	json_t *detail;
	size_t text_at, text_len; /* instead of detail: in the texts */
	const struct issuance_item *asked;
	bool taken; /* it is in a record */
};

/* The audit items of one Record, before they are put into records by who asked. */
struct proofs {
	struct proof *at;
	struct audit_item *group;
	size_t count, room;
	struct buf texts;
};

static void
proofs_free(struct proofs *p)
{
	for (size_t i = 0; i < p->count; i++)
		json_decref(p->at[i].detail);
	mem_free(p->at);
	mem_free(p->group);
	buf_free(&p->texts);
}
OWNER_STRUCT(proofs, proofs_free)

static void
hex_id(char out[2 * DB_SHA256_BYTES + 1], const uint8_t sha256[DB_SHA256_BYTES])
{
	hex_encode(out, sha256, DB_SHA256_BYTES);
}

static struct proof *
proof_new(struct proofs *p, const uint8_t sha256[DB_SHA256_BYTES], const struct issuance_item *asked)
{
	struct proof *proof = &p->at[p->count++];

	assert(p->count <= p->room);
	memcpy(proof->object, "certificate:", sizeof("certificate:") - 1);
	hex_id(proof->object + sizeof("certificate:") - 1, sha256);
	proof->asked = asked;
	return proof;
}

/* Takes detail. */
static enum status
proof_add(struct proofs *p, const uint8_t sha256[DB_SHA256_BYTES], const struct issuance_item *asked,
	json_t *detail, struct err *err)
{
	if (detail == NULL)
		return err_memory(err);
	proof_new(p, sha256, asked)->detail = detail;
	return OK;
}

/* What was replaced is revoked by db_issuance_record; its own history has to say so. */
static enum status
proof_ended(struct db_tx *tx, struct proofs *p, const struct issuance_item *asked,
	const struct db_cert_ref *ended, const uint8_t by[DB_SHA256_BYTES], struct err *err)
{
	own_struct(db_certificate) old = { .status = CERT_UNSET };
	char id[2 * DB_SHA256_BYTES + 1];

	TRY(db_certificate_by_ref(tx, ended, &old, err));
	hex_id(id, by);
	return proof_add(p, old.sha256, asked, json_pack("{s:s, s:s, s:s, s:s, s:s}", "change",
		"revoked", "reason", revocation_reason_name(REASON_SUPERSEDED), "replaced_by", id,
		"device_id", old.device_id, "actor", asked->actor), err);
}

/* For the answer: the one that a rework follows. */
static enum status
note_replaced(struct db_tx *tx, struct slot *slot, const struct db_cert_ref *replaced, struct err *err)
{
	own_struct(db_certificate) old = { .status = CERT_UNSET };

	TRY(db_certificate_by_ref(tx, replaced, &old, err));
	slot->has_replaced = true;
	memcpy(slot->replaced, old.sha256, sizeof(slot->replaced));
	return OK;
}

/* Written as audit.c writes its bodies: keys in order, no white space. */
static enum status
proof_issued(struct proofs *p, const struct round *round, const struct slot *slot, struct err *err)
{
	const struct issuance_item *item = slot->item;
	const struct ca_prepare_item *prepared = &round->prepare[slot->prepared];
	const struct db_admit_item *admitted = &round->admit[slot->admit];
	struct proof *proof = proof_new(p, round->sign[slot->sign].sha256, item);
	char serial[SERIAL_TEXT_BYTES];
	char not_after[TIME_TEXT_BYTES];
	char key[2 * DB_SHA256_BYTES + 1];
	serial_format(serial, &prepared->serial);
	time_format(not_after, prepared->not_after_s);
	hex_id(key, admitted->spki_sha256);
	const struct json_pair pairs[] = {
		{ "actor", view_text(item->actor), false },
		{ "change", view_text("issued"), false },
		{ "device_id", view_text(item->request.device_id), false },
		{ "manifest", json_text_optional(admitted->manifest_id[0] != '\0' ?
			admitted->manifest_id : NULL), false },
		{ "not_after", view_text(not_after), false },
		{ "object", view_text(proof->object), false },
		{ "profile", view_text(item->profile->name), false },
		{ "public_key", view_text(key), false },
		{ "request_id", json_text_optional(item->request_id), false },
		{ "serial", view_text(serial), false },
	};
	proof->text_at = p->texts.len;
	TRY(json_text_object(&p->texts, pairs, COUNT_OF(pairs), err));
	proof->text_len = p->texts.len - proof->text_at;
	return OK;
}

/*
 * One record for all that one principal asked for; rotations are asked for by as many devices as there
 * are certificates, and share one record: each item names its device.
 */
static bool
same_record(const struct issuance_item *a, const struct issuance_item *b)
{
	if (a->asker == ASKER_DEVICE || b->asker == ASKER_DEVICE)
		return a->asker == b->asker;
	return strcmp(a->actor, b->actor) == 0;
}

/* The record of all that goes with proof first, and was not taken by one before. */
static struct audit_entry
gather(struct proofs *p, size_t first, int64_t now_s)
{
	const struct issuance_item *asked = p->at[first].asked;
	struct audit_entry entry = {
		.action = asked->asker == ASKER_DEVICE ? "certificate.rotate" : "certificate.issue",
		.actor = asked->actor,
		.request_id = asked->request_id,
		.at_s = now_s,
		.items = p->group,
	};

	for (size_t i = first; i < p->count; i++) {
		struct proof *proof = &p->at[i];

		if (proof->taken || !same_record(asked, proof->asked))
			continue;
		proof->taken = true;
		p->group[entry.item_count++] = (struct audit_item){
			.object = proof->object,
			.detail = proof->detail,
			.text = { proof->text_len > 0 ? p->texts.data + proof->text_at : NULL,
				proof->text_len },
		};
		if (strcmp(asked->actor, proof->asked->actor) != 0)
			entry.actor = "devices";
		if (entry.request_id != NULL && (proof->asked->request_id == NULL ||
		    strcmp(entry.request_id, proof->asked->request_id) != 0))
			entry.request_id = NULL;
	}
	return entry;
}

/* What one certificate changed: itself, what it replaced, and its own end if it ended at once. */
static enum status
prove(struct db_tx *tx, struct proofs *p, struct round *round, struct slot *slot,
	const struct db_record_item *record, struct err *err)
{
	const struct db_cert_ref *replaced = &record->admitted->replaced;

	TRY(proof_issued(p, round, slot, err));
	for (size_t i = 0; i < record->ended_count; i++)
		TRY(proof_ended(tx, p, slot->item, &record->ended[i], record->sha256, err));
	if (record->revoked)
		TRY(proof_add(p, record->sha256, slot->item, json_pack("{s:s, s:s, s:s, s:s}", "change",
			"revoked", "reason", revocation_reason_name(record->reason), "device_id",
			slot->item->request.device_id, "actor", slot->item->actor), err));
	return replaced->issuer_id != 0 ? note_replaced(tx, slot, replaced, err) : OK;
}

static enum status
proofs_make(struct proofs *p, struct err *err)
{
	p->texts.limit_bytes = p->room * PROOF_TEXT_BYTES;
	p->at = mem_array(p->room, sizeof(*p->at));
	p->group = mem_array(p->room, sizeof(*p->group));
	return p->at != NULL && p->group != NULL ? OK : err_memory(err);
}

static enum status
write_audit(struct app *app, struct db_tx *tx, struct round *round, const size_t *slots,
	size_t count, int64_t now_s, struct err *err)
{
	own_struct(proofs) p = { .room = count };

	for (size_t i = 0; i < count; i++)
		p.room += round->record[i].ended_count + (round->record[i].revoked ? 1 : 0);
	TRY(proofs_make(&p, err));
	for (size_t i = 0; i < count; i++)
		TRY(prove(tx, &p, round, &round->slots[slots[i]], &round->record[i], err));
	for (size_t i = 0; i < p.count; i++)
		if (!p.at[i].taken) {
			struct audit_entry entry = gather(&p, i, now_s);

			TRY(audit_write(app, tx, &entry, err));
		}
	return OK;
}

/* The audit records of a plain Record, as they follow each other. */
struct links {
	struct audit_link at[DB_FOLLOWS_MAX];
	struct db_audit_follow follows[DB_FOLLOWS_MAX];
	size_t count;
};

static void
links_free(struct links *links)
{
	for (size_t i = 0; i < links->count; i++)
		audit_link_free(&links->at[i]);
}
OWNER_STRUCT(links, links_free)

/* *all: they are not too many. */
static enum status
link_audit(struct app *app, struct links *links, struct proofs *p, struct audit_tail *tail,
	int64_t now_s, bool *all, struct err *err)
{
	for (size_t i = 0; i < p->count; i++) {
		struct audit_entry entry;

		if (p->at[i].taken)
			continue;
		if (links->count == COUNT_OF(links->at))
			return OK;
		entry = gather(p, i, now_s);
		links->count++;
		TRY(audit_link_make(app, tail, &entry, &links->at[links->count - 1],
			&links->follows[links->count - 1], err));
	}
	*all = true;
	return OK;
}

/*
 * Most Records write first certificates and nothing else: those and their audit records go in one round
 * trip, behind the head of the lane as the one before left it. *plain false: that is not all, or somebody
 * else wrote to the lane; then tx is to begin anew.
 */
static enum status
record_plain(struct app *app, struct db_tx *tx, struct round *round, const size_t *slots, size_t count,
	int64_t now_s, bool *plain, struct err *err)
{
	own_struct(proofs) p = { .room = count };
	own_struct(links) links = { .count = 0 };
	struct audit_tail tail;
	bool all = false;

	*plain = false;
	TRY(audit_tail_read(app, tx, &round->tail, err));
	tail = round->tail;
	round->tail.known = false; /* until it is committed */
	if (!tail.known)
		return OK;
	TRY(proofs_make(&p, err));
	for (size_t i = 0; i < count; i++)
		TRY(proof_issued(&p, round, &round->slots[slots[i]], err));
	TRY(link_audit(app, &links, &p, &tail, now_s, &all, err));
	if (all)
		TRY(db_issuance_record_plain(tx, round->record, count, links.follows, links.count,
			app->iot == NULL || app->iot->site_count > 0 || iot_room_elsewhere(app->iot),
			plain, err));
	if (!*plain)
		return OK;
	FAILPOINT("during_record_commit");
	TRY(db_tx_commit(tx, err));
	round->tail = tail;
	metric_add(METRIC_AUDIT_RECORDS, (int64_t)links.count);
	return OK;
}

static enum status
record_once(struct app *app, struct round *round, const size_t *slots, size_t count, int64_t now_s,
	struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	bool plain;

	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(record_plain(app, &tx, round, slots, count, now_s, &plain, err));
	if (plain)
		return OK;
	TRY(db_tx_restart(&tx, err));
	TRY(db_issuance_record(&tx, round->record, count, err));
	/* The audit lane is the last lock (db/issuance.h). */
	TRY(write_audit(app, &tx, round, slots, count, now_s, err));
	FAILPOINT("during_record_commit");
	return db_tx_commit(&tx, err);
}

enum status
record_items(struct app *app, struct round *round, const size_t *slots, size_t count, struct err *err)
{
	int64_t now_s = clock_wall_s(app->clock);
	unsigned tries = 0;
	enum status status;

	for (size_t i = 0; i < count; i++) {
		const struct slot *slot = &round->slots[slots[i]];
		const struct ca_prepare_item *prepared = &round->prepare[slot->prepared];
		const struct ca_sign_item *made = &round->sign[slot->sign];

		round->record[i] = (struct db_record_item){
			.admitted = &round->admit[slot->admit],
			.der = view_of(&made->der),
			.subject = prepared->subject,
			.not_before_s = prepared->not_before_s,
			.not_after_s = prepared->not_after_s,
			.issued_at_s = now_s,
		};
		memcpy(round->record[i].sha256, made->sha256, sizeof(made->sha256));
	}
	do
		status = record_once(app, round, slots, count, now_s, err);
	while (retry_due(&tries, status, err));
	return status;
}
