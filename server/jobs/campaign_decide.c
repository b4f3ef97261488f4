#include "server/jobs/campaign_decide.h"

#include <stdio.h>
#include <string.h>

#define US_PER_S 1000000
#define US_PER_HOUR (INT64_C(3600) * US_PER_S)

static int64_t
least(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

/* A share in hundredths of a percent, rounded up, but never nothing. */
static int64_t
size_of(int64_t asked, int64_t share, int64_t members)
{
	int64_t size = asked > 0 ? asked : (members * share + 9999) / 10000;

	return size < 1 ? 1 : least(size, members);
}

static void
start_wave(struct db_campaign *k, bool canary, int64_t now_s)
{
	k->canary_stage = canary;
	k->wave_left = least(canary ? k->canary : k->wave, k->members - k->asked);
	k->wave_at_s = now_s;
	k->crowded = false;
}

void
campaign_begin(struct db_campaign *k, int64_t now_s)
{
	k->canary = size_of(k->canary, k->canary_share, k->members);
	k->wave = size_of(k->wave, k->wave_share, k->members);
	if (k->halt_least == 0)
		k->halt_least = least(3, k->canary);
	k->frontier = k->wave_from = k->judge_from = k->look_from = -1;
	k->started_at_s = now_s;
	k->moved_at_us = now_s * US_PER_S;
	start_wave(k, true, now_s);
	(void)snprintf(k->state, sizeof(k->state), "running");
}

void
campaign_resume(struct db_campaign *k, int64_t now_s)
{
	if (strcmp(k->state, "halted") == 0) {
		k->judge_from = k->wave_from = k->frontier;
		k->wave_number++;
		start_wave(k, true, now_s);
	}
	k->moved_at_us = now_s * US_PER_S;
	(void)snprintf(k->state, sizeof(k->state), "running");
}

/* A canary has passed when it had its time, nobody is in the middle, and enough have confirmed. */
static bool
canary_passed(const struct db_campaign *k, const struct db_campaign_tally *judged, int64_t now_s)
{
	int64_t size = judged->waiting + judged->pending + judged->late + judged->failed +
		judged->confirmed;

	return now_s - k->wave_at_s >= k->soak_s && judged->pending == 0 &&
	       judged->confirmed * 100 >= k->canary_confirmed * size;
}

static bool
next_wave(struct db_campaign *k, const struct db_campaign_tally *judged, int64_t now_s)
{
	if (k->wave_left > 0 || k->asked >= k->members)
		return false;
	if (k->canary_stage ? !canary_passed(k, judged, now_s) : k->crowded)
		return false;
	k->judge_from = k->wave_from;
	k->wave_from = k->frontier;
	k->wave_number++;
	start_wave(k, false, now_s);
	return true;
}

/* What the time since the last move allows; what is left of a member's share of it is kept. */
static int64_t
allowance(struct db_campaign *k, int64_t now_s)
{
	int64_t now_us = now_s * US_PER_S;
	int64_t passed_us = now_us - k->moved_at_us;
	int64_t count;

	/* The clock was set, or the server was away: no debt in either direction. */
	if (passed_us < 0 || passed_us > US_PER_HOUR) {
		k->moved_at_us = now_us;
		return 0;
	}
	count = passed_us * k->pace_per_hour / US_PER_HOUR;
	if (count > least(k->wave_left, CAMPAIGN_MOVE_MAX)) {
		k->moved_at_us = now_us;
		return least(k->wave_left, CAMPAIGN_MOVE_MAX);
	}
	k->moved_at_us += count * US_PER_HOUR / k->pace_per_hour;
	return count;
}

enum campaign_step
campaign_decide(struct db_campaign *k, const struct db_campaign_tally *judged, bool unsettled,
	int64_t now_s, int64_t *count, bool *new_wave)
{
	int64_t bad = judged->late + judged->failed;

	*count = 0;
	*new_wave = false;
	if (bad >= k->halt_least && bad * 100 > k->halt_percent * (bad + judged->confirmed)) {
		(void)snprintf(k->why, sizeof(k->why), "%lld of %lld devices have not confirmed their"
			" successor (%lld late, %lld failed)", (long long)bad,
			(long long)(bad + judged->confirmed), (long long)judged->late,
			(long long)judged->failed);
		(void)snprintf(k->state, sizeof(k->state), "halted");
		return CAMPAIGN_HALTS;
	}
	if (k->asked >= k->members && !unsettled) {
		(void)snprintf(k->state, sizeof(k->state), "done");
		return CAMPAIGN_ENDS;
	}
	k->crowded = judged->pending + bad >= (k->canary_stage ? k->canary : k->wave);
	*new_wave = next_wave(k, judged, now_s);
	if (k->wave_left == 0 || (k->crowded && !*new_wave)) {
		k->moved_at_us = now_s * US_PER_S;
		return CAMPAIGN_STAYS;
	}
	*count = allowance(k, now_s);
	k->wave_left -= *count;
	k->asked += *count;
	return *count > 0 ? CAMPAIGN_MOVES : CAMPAIGN_STAYS;
}

int64_t
campaign_forecast_s(const struct db_campaign *k, int64_t now_s)
{
	int64_t left = k->members - k->asked;
	int64_t soak_s = 0;

	if (strcmp(k->state, "running") != 0)
		return 0;
	if (k->canary_stage && now_s - k->wave_at_s < k->soak_s)
		soak_s = k->soak_s - (now_s - k->wave_at_s);
	return now_s + soak_s + (int64_t)((double)left * 3600 / (double)k->pace_per_hour + 0.999);
}

int64_t
campaign_expected_s(int64_t rank, int64_t members, int64_t pace_per_hour, int64_t started_at_s)
{
	double place = (double)rank / (double)INT64_MAX * (double)members;

	return started_at_s + (int64_t)(place * 3600 / (double)pace_per_hour);
}
