/*
 * server/jobs/campaign_decide.h - what a running campaign does next. A pure calculation on its row and on
 * what its members have done.
 *
 * Members are asked in the order of their ranks, at the campaign's pace, in waves: first a canary, whose
 * members must have confirmed, then waves of a fixed size. What is judged are the last two waves: so a
 * fault that begins late is not outweighed by what went well before. At any time at most one wave of devices
 * may have asked for a successor without confirming it; then nobody else is asked.
 */
#ifndef SERVER_JOBS_CAMPAIGN_DECIDE_H
#define SERVER_JOBS_CAMPAIGN_DECIDE_H

#include "db/campaign.h"

/* So many members at once, at most: what a step may ask for after a long absence. */
#define CAMPAIGN_MOVE_MAX 10000

enum campaign_step {
	CAMPAIGN_UNSET = 0,
	CAMPAIGN_STAYS,
	CAMPAIGN_MOVES, /* so many more members are to be asked */
	CAMPAIGN_HALTS, /* campaign->why says why */
	CAMPAIGN_ENDS,
};

/* The sizes of canary and waves, now that the members are known; its first moment. */
void campaign_begin(struct db_campaign *campaign, int64_t now_s);
/* It goes on after a pause; after a halt with another canary, judged by itself. */
void campaign_resume(struct db_campaign *campaign, int64_t now_s);

/*
 * judged: the tally of ranks in (judge_from, frontier]. unsettled: whether any member is waiting or pending.
 * Moves campaign's wave on; *new_wave when one began. *count: of members, for CAMPAIGN_MOVES.
 */
MUST_USE enum campaign_step campaign_decide(struct db_campaign *campaign,
	const struct db_campaign_tally *judged, bool unsettled, int64_t now_s, int64_t *count,
	bool *new_wave);

/* When all will have been asked at the best; 0: not while it is like this. */
int64_t campaign_forecast_s(const struct db_campaign *campaign, int64_t now_s);

/*
 * When a member of that rank, who is not asked yet, may expect to be: ranks are spread evenly. Never before
 * started_at_s.
 */
int64_t campaign_expected_s(int64_t rank, int64_t members, int64_t pace_per_hour, int64_t started_at_s);

#endif
