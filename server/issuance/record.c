#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "server/audit.h"
#include "server/failpoint.h"
#include "server/http/request.h"
#include "server/issuance/internal.h"
#include "server/retry.h"

/* Serialisation failures and deadlocks: more than that in a row is no accident. */
#define OBJECT_BYTES (sizeof("certificate:") + 2 * DB_SHA256_BYTES)
/* A certificate, and the one that it replaces. */
#define PROOFS_MAX (2 * SIGNER_BATCH_MAX)

/* The audit items of one Record, before they are put into records by who asked. */
struct proofs {
	struct audit_item items[PROOFS_MAX];
	char objects[PROOFS_MAX][OBJECT_BYTES];
	json_t *details[PROOFS_MAX];
	const struct issuance_item *asked[PROOFS_MAX];
	size_t count;
	bool taken[PROOFS_MAX];
	struct audit_item group[PROOFS_MAX];
};
typedef struct proofs proofs;

static void
proofs_free(proofs *p)
{
	if (p == NULL)
		return;
	for (size_t i = 0; i < p->count; i++)
		json_decref(p->details[i]);
	mem_free(p);
}
OWNER(proofs, proofs_free)

static void
hex_id(char out[2 * DB_SHA256_BYTES + 1], const uint8_t sha256[DB_SHA256_BYTES])
{
	hex_encode(out, sha256, DB_SHA256_BYTES);
}

/* Takes detail. */
static enum status
proof_add(struct proofs *p, const uint8_t sha256[DB_SHA256_BYTES], const struct issuance_item *asked,
	json_t *detail, struct err *err)
{
	char id[2 * DB_SHA256_BYTES + 1];
	size_t i = p->count;

	if (detail == NULL)
		return err_memory(err);
	hex_id(id, sha256);
	(void)snprintf(p->objects[i], sizeof(p->objects[i]), "certificate:%s", id);
	p->details[i] = detail;
	p->items[i] = (struct audit_item){ .object = p->objects[i], .detail = detail };
	p->asked[i] = asked;
	p->count++;
	return OK;
}

/* What was replaced is revoked by db_issuance_record; its own history has to say so. */
static enum status
proof_replaced(struct db_tx *tx, struct proofs *p, struct slot *slot,
	const struct db_cert_ref *replaced, const uint8_t by[DB_SHA256_BYTES], struct err *err)
{
	own_struct(db_certificate) old = { .status = CERT_UNSET };
	char id[2 * DB_SHA256_BYTES + 1];

	TRY(db_certificate_by_ref(tx, replaced, &old, err));
	hex_id(id, by);
	slot->has_replaced = true;
	memcpy(slot->replaced, old.sha256, sizeof(slot->replaced));
	return proof_add(p, old.sha256, slot->item, json_pack("{s:s, s:s, s:s, s:s, s:s}", "change",
		"revoked", "reason", revocation_reason_name(REASON_SUPERSEDED), "replaced_by", id,
		"device_id", old.device_id, "actor", slot->item->actor), err);
}

static enum status
proof_issued(struct proofs *p, const struct round *round, const struct slot *slot, struct err *err)
{
	const struct issuance_item *item = slot->item;
	const struct ca_prepare_item *prepared = &round->prepare[slot->prepared];
	const struct db_admit_item *admitted = &round->admit[slot->admit];
	char serial[SERIAL_TEXT_BYTES];
	char not_after[TIME_TEXT_BYTES];
	char key[2 * DB_SHA256_BYTES + 1];

	serial_format(serial, &prepared->serial);
	time_format(not_after, prepared->not_after_s);
	hex_id(key, admitted->spki_sha256);
	return proof_add(p, round->sign[slot->sign].sha256, item,
		json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s*, s:s*}", "change", "issued",
			"device_id", item->request.device_id, "profile", item->profile->name,
			"serial", serial, "not_after", not_after, "public_key", key,
			"actor", item->actor, "request_id", item->request_id,
			"manifest", admitted->manifest_id[0] != '\0' ? admitted->manifest_id : NULL),
		err);
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

static enum status
write_group(struct app *app, struct db_tx *tx, struct proofs *p, size_t first, int64_t now_s,
	struct err *err)
{
	const struct issuance_item *asked = p->asked[first];
	struct audit_entry entry = {
		.action = asked->asker == ASKER_DEVICE ? "certificate.rotate" : "certificate.issue",
		.actor = asked->actor,
		.request_id = asked->request_id,
		.at_s = now_s,
		.items = p->group,
	};

	for (size_t i = first; i < p->count; i++) {
		if (p->taken[i] || !same_record(asked, p->asked[i]))
			continue;
		p->taken[i] = true;
		p->group[entry.item_count++] = p->items[i];
		if (strcmp(asked->actor, p->asked[i]->actor) != 0)
			entry.actor = "devices";
		if (entry.request_id != NULL && (p->asked[i]->request_id == NULL ||
		    strcmp(entry.request_id, p->asked[i]->request_id) != 0))
			entry.request_id = NULL;
	}
	return audit_write(app, tx, &entry, err);
}

static enum status
write_audit(struct app *app, struct db_tx *tx, struct round *round, const size_t *slots,
	size_t count, int64_t now_s, struct err *err)
{
	own(proofs) p = mem_zalloc(sizeof(*p));

	if (p == NULL)
		return err_memory(err);
	for (size_t i = 0; i < count; i++) {
		struct slot *slot = &round->slots[slots[i]];
		const struct db_cert_ref *replaced = &round->admit[slot->admit].replaced;

		TRY(proof_issued(p, round, slot, err));
		if (replaced->issuer_id != 0)
			TRY(proof_replaced(tx, p, slot, replaced, round->sign[slot->sign].sha256, err));
	}
	for (size_t i = 0; i < p->count; i++)
		if (!p->taken[i])
			TRY(write_group(app, tx, p, i, now_s, err));
	return OK;
}

static enum status
record_once(struct app *app, struct round *round, const size_t *slots, size_t count, int64_t now_s,
	struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	TRY(db_tx_begin(&tx, app->pool, err));
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
