#include "server/freshness.h"

#include "server/app.h"

void
freshness_beat(struct app *app, int64_t asked_ms)
{
	atomic_store(&app->freshness.proven_ms, asked_ms);
}

void
freshness_changed(struct app *app)
{
	atomic_fetch_add(&app->freshness.epoch, 1);
}

void
freshness_lost(struct app *app)
{
	atomic_store(&app->freshness.proven_ms, 0);
	/* What was notified while nobody listened is not told again. */
	atomic_fetch_add(&app->freshness.epoch, 1);
}

bool
freshness_now(struct app *app, uint64_t *epoch)
{
	int64_t proven_ms = atomic_load(&app->freshness.proven_ms);

	/* Both only grow, so their sum stays the same only while both do. */
	*epoch = atomic_load(&app->freshness.epoch) + db_pool_trust_epoch(app->pool);
	return proven_ms != 0 && clock_mono_ms(app->clock) - proven_ms < FRESHNESS_LATE_MS;
}

bool
freshness_stalled(struct app *app)
{
	int64_t proven_ms = atomic_load(&app->freshness.proven_ms);

	return proven_ms != 0 &&
	       clock_mono_ms(app->clock) - proven_ms > FRESHNESS_LATE_MS + 2 * FRESHNESS_BEAT_MS;
}
