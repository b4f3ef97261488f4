/*
 * server/audit_checkpoint.h - signed checkpoints of the audit log (ca/checkpoint.h), what is exported for who
 * verifies them elsewhere, and proofs that a record is in one.
 *
 * A checkpoint holds each lane's head, so nothing up to there can be changed or cut off unseen; and the
 * root of a Merkle tree over the records that are new since the one before, so that the proof of one record
 * is short whatever its chain's length. The tree is made here, not where records are written: they cost
 * nothing more.
 */
#ifndef SERVER_AUDIT_CHECKPOINT_H
#define SERVER_AUDIT_CHECKPOINT_H

#include <jansson.h>

#include "db/checkpoint.h"
#include "server/spool.h"

struct app;

/* A step of housekeeping must be short, and a proof reads the hashes of a whole checkpoint. */
#define AUDIT_CHECKPOINT_RECORDS_MAX 50000

/*
 * Takes one, if there is something new (*made false, and *out the last one, number 0 without any) and, for
 * due_only, config.audit_checkpoint_interval_s since the last are over. The chain is followed on the way: one
 * that is broken is not signed, ERR_CONFLICT audit_broken. ERR_UNAVAILABLE checkpoint_under_way: another is
 * being taken; ERR_NOT_FOUND checkpoint_key_absent. The caller frees *out.
 */
MUST_USE enum status audit_checkpoint_take(struct app *app, bool due_only, struct db_note *out,
	bool *made, struct err *err);

/*
 * Writes checkpoints that are not there yet into config.audit_checkpoint_dir, each as a file that is whole or
 * not there. *after: the number up to which they are known to be there, 0 at first.
 */
MUST_USE enum status audit_checkpoint_ship(struct app *app, int64_t *after, struct err *err);

/*
 * All lanes, record by record, as lines of JSON: {lane, seq, hash, body, items}, body and items as they were
 * hashed; before a lane of which retention dropped a part {lane, dropped}; at the end {end, records, lanes}.
 * ERR_CONFLICT audit_broken: octets that are no text of ours.
 */
MUST_USE enum status audit_export(struct app *app, struct spool *out, struct err *err);
/* All notes, one behind the other. */
MUST_USE enum status audit_export_notes(struct app *app, struct spool *out, struct err *err);

/*
 * That the first record about a certificate (of an action, unless NULL) is in a checkpoint: docs/api.md says
 * what is in it. The caller owns *proof. ERR_NOT_FOUND audit_record_unknown, checkpoint_pending.
 */
MUST_USE enum status audit_prove(struct app *app, const char *certificate_id, const char *action,
	json_t **proof, struct err *err);

#endif
