/*
 * server/audit_offline.h - the audit log as who has only a public key, checkpoints and an export sees it: no
 * server, no database. What it finds is named by lane and sequence. Memory: the lines of checkpoints, and one
 * record at a time.
 */
#ifndef SERVER_AUDIT_OFFLINE_H
#define SERVER_AUDIT_OFFLINE_H

#include <jansson.h>
#include <stdio.h>

#include "base/bytes.h"
#include "base/err.h"

struct audit_offline;
typedef struct audit_offline audit_offline;

MUST_USE enum status audit_offline_new(struct audit_offline **out, const uint8_t public_key[32],
	struct err *err);
void audit_offline_free(struct audit_offline *it); /* NULL is welcome */
OWNER(audit_offline, audit_offline_free)

/*
 * Adds the notes of a file, in any order. The errors of ca_checkpoint_open name the file: one that is not
 * signed with the key ends it. ERR_ARGUMENT checkpoints_too_many.
 */
MUST_USE enum status audit_offline_notes(struct audit_offline *it, const char *name, struct view content,
	struct err *err);

struct audit_offline_report {
	int64_t records, lanes, checkpoints;
	int64_t newer;       /* records behind the last checkpoint of their lane: nothing is proved of them */
	int64_t last_number, last_at_s; /* of the newest checkpoint */
	int64_t gaps;        /* checkpoints before which others are missing here; no harm is in it */
	int64_t broken;      /* lanes that do not hold */
};
/*
 * Holds an export (server/audit_checkpoint.h) against them. found() is told of the first thing in each lane
 * that does not hold. why is one of record_missing, record_out_of_order, record_repeated, hash_differs (it
 * was changed, or the one before it), columns_differ, items_differ, checkpoint_differs (rewritten somewhere
 * since the checkpoint before: since_seq), truncated, dropped (the export says that retention dropped a
 * part; not with dropped_ok). ERR_ARGUMENT export_malformed (names the line), export_incomplete; ERR_CONFLICT
 * checkpoints_contradict.
 */
MUST_USE enum status audit_offline_run(struct audit_offline *it, FILE *export, bool dropped_ok,
	void (*found)(void *arg, int64_t lane, int64_t seq, const char *why, int64_t since_seq), void *arg,
	struct audit_offline_report *report, struct err *err);

/*
 * Verifies a proof (GET /v1/audit/proof). On OK the caller owns *record, the body of the record that it is
 * about; *number and *at_s are the checkpoint's. ERR_ARGUMENT proof_malformed; ERR_CONFLICT proof_wrong: the
 * text says where it does not lead on; and the errors of ca_checkpoint_open.
 */
MUST_USE enum status audit_proof_check(const json_t *proof, const uint8_t public_key[32], json_t **record,
	int64_t *number, int64_t *at_s, struct err *err);

#endif
