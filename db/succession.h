/*
 * db/succession.h - one CA after another: the row that says which of the two issues, and how far the change
 * has come (docs/succession.md). What a state means is server/succession.h's affair.
 */
#ifndef DB_SUCCESSION_H
#define DB_SUCCESSION_H

#include "db/db.h"

#define DB_SUCCESSION_STATE_BYTES 12
#define DB_SUCCESSIONS_MAX 64

struct db_succession {
	int32_t succession_id, old_issuer, new_issuer;
	char old_ca[DB_ID_BYTES], new_ca[DB_ID_BYTES];
	char state[DB_SUCCESSION_STATE_BYTES]; /* prepared, registered, issuing, campaign, retiring,
	                                        * retired, cancelled */
	char campaign_id[33];                  /* "": none */
	char actor[DB_ID_BYTES];
	int64_t started_at_s, changed_at_s;
};

/*
 * ERR_CONFLICT succession_open: another is under way, or one of the two has been in one that was not
 * cancelled.
 */
MUST_USE enum status db_succession_begin(struct db_tx *tx, int32_t old_issuer, int32_t new_issuer,
	const char *actor, struct err *err);
/* All but cancelled ones, the oldest first; at most DB_SUCCESSIONS_MAX. */
MUST_USE enum status db_succession_list(struct db_tx *tx, struct db_succession out[DB_SUCCESSIONS_MAX],
	size_t *count, struct err *err);
/* The one that this CA is in, as the old one or the new: the open one, else the latest. ERR_NOT_FOUND
 * succession_unknown. */
MUST_USE enum status db_succession_find(struct db_tx *tx, int32_t issuer_id, struct db_succession *out,
	struct err *err);
/* ERR_CONFLICT succession_changed: it is in another state than `from` by now. */
MUST_USE enum status db_succession_move(struct db_tx *tx, const struct db_succession *from, const char *to,
	const char *campaign_id, const char *actor, struct err *err);

/*
 * Counts certificates of devices that a CA has and that may still be used, up to max; and how many of those
 * that were counted no IoT Core has seen. Reads as many rows: for people, not for each request.
 */
MUST_USE enum status db_succession_live(struct db_tx *tx, int32_t issuer_id, int64_t now_s, int64_t max,
	int64_t *live, int64_t *unseen, struct err *err);

#endif
