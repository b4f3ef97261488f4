/*
 * server/freshness.h - whether what this server remembers of the database may still be believed.
 *
 * Who may be trusted changes in the database, by any server. The transaction that changes it notifies
 * (migrations: jitrca_trust), and each server's session listens. That a notification did not come means
 * something only while the session is up: every FRESHNESS_BEAT_MS it asks the database through the very
 * link that notifications come by, and an answer says that all which were sent before it was asked have
 * been heard. When the last answered question is older than FRESHNESS_LATE_MS, or the link is down,
 * nothing remembered counts: read the row, or say that you cannot.
 *
 * How to remember: take the epoch (freshness_now), then read the row, then keep both. What is kept is
 * good while freshness_now says yes with that same epoch.
 *
 * Threads: the session's thread writes, all read.
 */
#ifndef SERVER_FRESHNESS_H
#define SERVER_FRESHNESS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define FRESHNESS_BEAT_MS 500
/* So long may a change stay unnoticed at the very worst: a beat, and half a second for its answer. */
#define FRESHNESS_LATE_MS 1000
/* No answer for so long: a new session is begun, and if that cannot be either, nobody goes on waiting. */
#define FRESHNESS_STALLED_MS 4000

struct app;

struct freshness {
	_Atomic uint64_t epoch;     /* grows when trust changed, here or elsewhere, or may have */
	_Atomic int64_t proven_ms;  /* monotonic: up to then all was heard; 0: the link is down */
};

/* From the session's thread: the question asked at asked_ms was answered; trust changed; the link is down. */
void freshness_beat(struct app *app, int64_t asked_ms);
void freshness_changed(struct app *app);
void freshness_lost(struct app *app);

/*
 * True: what was read under *epoch counts now. Also false it sets *epoch, and what is read then may be
 * kept under it, for when the link is back. Own commits count at once (db_pool_trust_epoch).
 */
bool freshness_now(struct app *app, uint64_t *epoch);

/* The last question was answered longer ago than several should have been. */
bool freshness_stalled(struct app *app);

#endif
