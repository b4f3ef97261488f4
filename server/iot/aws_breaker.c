#include "server/iot/aws_breaker.h"

#include "base/attr.h"

#define FAILURES 5
#define SHARE_PCT 50
#define OPEN_MS 1000
#define OPEN_MAX_MS 30000

_Static_assert(AWS_BREAKER_WINDOW == 32, "the window is a uint32_t");

void
aws_breaker_init(struct aws_breaker *breaker, const struct aws_breaker_config *config)
{
	struct aws_breaker_config filled = *config;

	filled.failures = filled.failures > 0 ? filled.failures : FAILURES;
	filled.share_pct = filled.share_pct > 0 ? filled.share_pct : SHARE_PCT;
	filled.open_ms = filled.open_ms > 0 ? filled.open_ms : OPEN_MS;
	filled.open_max_ms = filled.open_max_ms > 0 ? filled.open_max_ms : OPEN_MAX_MS;
	*breaker = (struct aws_breaker){ .config = filled, .state = AWS_BREAKER_CLOSED };
}

static void
enter(struct aws_breaker *breaker, enum aws_breaker_state state, int64_t now_ms)
{
	breaker->state = state;
	breaker->since_ms = now_ms;
	breaker->probing = false;
}

bool
aws_breaker_allow(struct aws_breaker *breaker, int64_t now_ms, int64_t *wait_ms)
{
	*wait_ms = 0;
	if (breaker->state == AWS_BREAKER_OPEN) {
		if (now_ms < breaker->probe_at_ms) {
			*wait_ms = breaker->probe_at_ms - now_ms;
			return false;
		}
		enter(breaker, AWS_BREAKER_HALF_OPEN, now_ms);
	}
	if (breaker->state == AWS_BREAKER_CLOSED)
		return true;
	if (breaker->probing) {
		*wait_ms = breaker->config.open_ms;
		return false;
	}
	breaker->probing = true;
	return true;
}

static void
open_again(struct aws_breaker *breaker, int64_t now_ms, uint32_t random)
{
	/* A first opening waits open_ms; each probe that fails doubles it. */
	if (breaker->state == AWS_BREAKER_CLOSED || breaker->pause_ms == 0)
		breaker->pause_ms = breaker->config.open_ms;
	else
		breaker->pause_ms *= 2;
	if (breaker->pause_ms > breaker->config.open_max_ms)
		breaker->pause_ms = breaker->config.open_max_ms;
	breaker->opened++;
	enter(breaker, AWS_BREAKER_OPEN, now_ms);
	breaker->probe_at_ms = now_ms + breaker->pause_ms / 2 +
		(int64_t)random % (breaker->pause_ms / 2 + 1);
}

static bool
too_many(const struct aws_breaker *breaker)
{
	if (breaker->in_a_row >= breaker->config.failures)
		return true;
	return breaker->window_used == AWS_BREAKER_WINDOW &&
		(unsigned)__builtin_popcount(breaker->window) * 100 >=
		breaker->config.share_pct * AWS_BREAKER_WINDOW;
}

static void
forget(struct aws_breaker *breaker)
{
	breaker->in_a_row = 0;
	breaker->window = 0;
	breaker->window_used = 0;
	breaker->pause_ms = 0;
}

void
aws_breaker_report(struct aws_breaker *breaker, bool answered, int64_t now_ms, uint32_t random)
{
	switch (breaker->state) {
	case AWS_BREAKER_CLOSED:
		breaker->in_a_row = answered ? 0 : breaker->in_a_row + 1;
		breaker->window = breaker->window << 1 | (answered ? 0 : 1);
		if (breaker->window_used < AWS_BREAKER_WINDOW)
			breaker->window_used++;
		if (too_many(breaker)) {
			open_again(breaker, now_ms, random);
			breaker->in_a_row = 0;
		}
		return;
	case AWS_BREAKER_HALF_OPEN:
		if (answered) {
			enter(breaker, AWS_BREAKER_CLOSED, now_ms);
			forget(breaker);
		} else {
			open_again(breaker, now_ms, random);
		}
		return;
	case AWS_BREAKER_OPEN: return; /* one that was sent before: it tells nothing new */
	}
}

void
aws_breaker_drop(struct aws_breaker *breaker)
{
	if (breaker->state == AWS_BREAKER_HALF_OPEN)
		breaker->probing = false;
}

const char *
aws_breaker_name(enum aws_breaker_state state)
{
	static const char *const NAMES[] = { "closed", "open", "half_open" };

	return (unsigned)state < COUNT_OF(NAMES) ? NAMES[state] : "unknown";
}
