/*
 * What an auditor is handed: any octets as checkpoints, as an export and as a proof. None holds, for
 * none is signed with the key; and a checkpoint whose fields are drawn from them is read back as it was
 * signed, or not signed.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "ca/checkpoint.h"
#include "server/audit_offline.h"
#include "server/http/request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct ca_checkpoint_key key;

static void
found(void *arg, int64_t lane, int64_t seq, const char *why, int64_t since_seq)
{
	(void)arg;
	assert(lane >= 0 && seq > 0 && since_seq > 0 && why != NULL);
}

static void
verify_export(const uint8_t *data, size_t len)
{
	own(audit_offline) it = NULL;
	struct audit_offline_report report;
	struct err err;
	FILE *export;

	if (audit_offline_new(&it, key.public_key, &err) != OK)
		abort();
	assert(audit_offline_notes(it, "notes", (struct view){ data, len }, &err) != OK || len == 0);
	export = len > 0 ? fmemopen((void *)(uintptr_t)data, len, "r") : NULL;
	if (export == NULL)
		return;
	(void)!audit_offline_run(it, export, data[0] % 2 == 0, found, NULL, &report, &err);
	(void)fclose(export);
}

static void
verify_proof(const uint8_t *data, size_t len)
{
	own(json_t) proof = json_loadb((const char *)data, len, 0, NULL);
	own(json_t) record = NULL;
	struct err err;
	int64_t number, at_s;

	if (proof != NULL && audit_proof_check(proof, key.public_key, &record, &number, &at_s, &err) == OK)
		abort();
}

static void
sign_and_read(const uint8_t *data, size_t len)
{
	own_struct(bytes) note = { NULL, 0 };
	struct ca_checkpoint made = { .number = 1 };
	struct ca_checkpoint back;
	struct err err;
	size_t fixed = sizeof(int64_t) * 3;

	if (len < fixed)
		return;
	memcpy(&made.number, data, sizeof(int64_t));
	memcpy(&made.at_s, data + 8, sizeof(int64_t));
	memcpy(&made.records, data + 16, sizeof(int64_t));
	for (size_t at = fixed; at + 12 <= len && made.lane_count < CA_CHECKPOINT_LANES_MAX; at += 12) {
		struct ca_checkpoint_lane *lane = &made.lanes[made.lane_count++];

		memcpy(&lane->lane, data + at, 4);
		memcpy(&lane->seq, data + at + 4, 8);
		memcpy(lane->head, data + at, 12);
	}
	if (ca_checkpoint_sign(&key, &made, &note, &err) != OK)
		return;
	if (ca_checkpoint_open(&back, view_of(&note), key.public_key, &err) != OK)
		abort();
	assert(back.number == made.number && back.at_s == made.at_s && back.lane_count == made.lane_count);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct err err;

	if (!key.known && (ca_init(&err) != OK || ca_checkpoint_key_generate(&key, &err) != OK))
		abort();
	verify_export(data, len);
	verify_proof(data, len);
	sign_and_read(data, len);
	return 0;
}
