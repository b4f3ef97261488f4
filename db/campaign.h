/*
 * db/campaign.h - rotation campaigns and their members. What a member has done is told by its slot and its
 * certificate's row; its state here is what was last seen there, so that a round looks at open members only.
 * Which members are asked is told by the campaign's frontier: those whose rank is at most that.
 */
#ifndef DB_CAMPAIGN_H
#define DB_CAMPAIGN_H

#include "db/certificate.h"
#include "db/db.h"

#define DB_CAMPAIGN_ID_BYTES 33
#define DB_CAMPAIGN_SELECTOR_BYTES (96 * 1024)

struct db_campaign {
	char campaign_id[DB_CAMPAIGN_ID_BYTES];
	char state[8]; /* filling, running, paused, halted, aborted, done */
	char why[257];
	char actor[DB_ID_BYTES];
	char request_id[40];
	char comment[257];
	int64_t issued_until_s;
	/* What was asked. Shares are hundredths of a percent; a size of 0 is made of its share when all
	 * members are known. */
	int64_t canary, canary_share, canary_confirmed, soak_s, wave, wave_share, pace_per_hour;
	int64_t confirm_within_s, halt_percent, halt_least;
	struct db_certificate_cursor cursor;
	int64_t members, left_rotating, left_other, left_taken;
	/* Where it is. */
	bool canary_stage;
	int64_t wave_number, wave_left, asked, frontier, wave_from, judge_from, look_from;
	bool crowded;
	int64_t moved_at_us, wave_at_s, started_at_s, created_at_s, state_at_s;
};

/* selector: JSON as it was asked, borrowed. */
MUST_USE enum status db_campaign_create(struct db_tx *tx, const struct db_campaign *campaign,
	const char *selector, struct err *err);
/* ERR_NOT_FOUND campaign_unknown. */
MUST_USE enum status db_campaign_find(struct db_tx *tx, const char *campaign_id, struct db_campaign *out,
	struct err *err);
/* The same with its row locked to the end of tx. */
MUST_USE enum status db_campaign_lock(struct db_tx *tx, const char *campaign_id, struct db_campaign *out,
	struct err *err);
/* The selector as it was asked; the caller frees out. */
MUST_USE enum status db_campaign_selector(struct db_tx *tx, const char *campaign_id, struct bytes *out,
	struct err *err);
/*
 * The open one of exactly this selector (JSON) that was begun at since_s or later, the latest of several;
 * id "": there is none.
 */
MUST_USE enum status db_campaign_find_open(struct db_tx *tx, const char *selector, int64_t since_s,
	char id[DB_CAMPAIGN_ID_BYTES], struct err *err);
/* In order of their making, behind (after_us, after_id); *last_us is that of the last of them. */
MUST_USE enum status db_campaign_list(struct db_tx *tx, int64_t after_us, const char *after_id,
	size_t limit, struct db_campaign *out, size_t *count, int64_t *last_us, struct err *err);
/* Those that are being filled or run, by id, behind after ("": from the beginning). */
MUST_USE enum status db_campaign_working(struct db_tx *tx, const char *after, size_t max,
	char (*out)[DB_CAMPAIGN_ID_BYTES], size_t *count, struct err *err);
/* Writes state, why, sizes, cursor, counts and place. The row is locked. */
MUST_USE enum status db_campaign_save(struct db_tx *tx, const struct db_campaign *campaign,
	struct err *err);

struct db_campaign_member {
	int64_t rank;
	char device_id[DB_ID_BYTES];
	struct db_cert_ref ref;
	char state[10];
	int64_t since_s; /* 0: no successor was seen */
};
/* *added of them: others are in another open campaign. Repeating does no harm. */
MUST_USE enum status db_campaign_fill(struct db_tx *tx, const char *campaign_id,
	const struct db_campaign_member *members, size_t count, size_t *added, struct err *err);
/* How many active certificates of devices the filter finds: a device has one. */
MUST_USE enum status db_campaign_count(struct db_tx *tx, const struct db_certificate_filter *filter,
	int64_t *out, struct err *err);
/* Whether a certificate of the filter is an open member of an open campaign; or a device of the list. */
MUST_USE enum status db_campaign_overlaps(struct db_tx *tx, const struct db_certificate_filter *filter,
	bool *out, struct err *err);
MUST_USE enum status db_campaign_overlaps_devices(struct db_tx *tx, const char *const *device_ids,
	size_t count, bool *out, struct err *err);

/* The rank of the n-th member (from 1) behind the frontier; ERR_INTERNAL campaign_end: there are fewer. */
MUST_USE enum status db_campaign_nth(struct db_tx *tx, const char *campaign_id, int64_t frontier,
	int64_t n, int64_t *rank, struct err *err);

/*
 * Looks at up to max open members that are asked, behind look_from, and writes what changed; *look_from is
 * where the next look begins (-1: from the beginning). Successors that were issued in the last minutes are
 * found first, wherever they are.
 */
MUST_USE enum status db_campaign_look(struct db_tx *tx, const struct db_campaign *campaign, int64_t now_s,
	size_t max, int64_t *look_from, struct err *err);

struct db_campaign_tally {
	int64_t waiting, pending, late, failed, confirmed, gone;
};
/* Of ranks in (from, to]. */
MUST_USE enum status db_campaign_tally(struct db_tx *tx, const char *campaign_id, int64_t from, int64_t to,
	struct db_campaign_tally *out, struct err *err);
/* Whether a member is waiting or pending. */
MUST_USE enum status db_campaign_unsettled(struct db_tx *tx, const char *campaign_id, bool *out,
	struct err *err);
/* state NULL: any. By rank, behind (after_rank, after_id). */
MUST_USE enum status db_campaign_members(struct db_tx *tx, const char *campaign_id, const char *state,
	int64_t after_rank, const char *after_id, size_t limit, struct db_campaign_member *out,
	size_t *count, struct err *err);

/* What a campaign says to a device that shows this certificate. */
struct db_campaign_call {
	bool asked; /* its turn has come, and the campaign takes more */
	int64_t rank, members, asked_count, pace_per_hour, started_at_s;
};
/* *found false: no running campaign waits for it. */
MUST_USE enum status db_campaign_call(struct db_tx *tx, const char *device_id,
	const struct db_cert_ref *ref, struct db_campaign_call *out, bool *found, struct err *err);

#endif
