#include "server/campaign_call.h"

#include "server/jobs/campaign_decide.h"

/* Who is about to be asked comes back no sooner: a campaign moves by the minute at its fastest. */
#define RETRY_MIN_S 60

bool
campaign_call_apply(struct rotation_window *window, const struct db_campaign_call *call, int64_t now_s)
{
	int64_t start_s = campaign_expected_s(call->rank, call->members, call->pace_per_hour,
		call->started_at_s);
	/* Halfway: by then the campaign may be faster, or slower, than it seems. */
	int64_t retry_s = (start_s - now_s) / 2;

	if (window->due)
		return false;
	if (call->asked && start_s > now_s)
		start_s = now_s;
	if (start_s < window->start_s)
		window->start_s = start_s;
	if (call->asked) {
		window->due = true;
		window->retry_after_s = 0;
		return true;
	}
	if (retry_s < RETRY_MIN_S)
		retry_s = RETRY_MIN_S;
	if (retry_s < window->retry_after_s)
		window->retry_after_s = retry_s;
	return false;
}
