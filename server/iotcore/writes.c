/*
 * Calls that change something have one order, that of the account's row. Those that come while others
 * are at it are done together, in one transaction: they would have waited for each other's commits.
 */
#include "db/iotcore_account.h"
#include "server/iotcore/internal.h"

/* So many share a fate: an abort makes them all go again, one by one. */
#define TOGETHER_MAX 32

/* Of the caller's until done; between, of whoever leads. */
struct change {
	struct call *call;
	struct err *err;
	enum status status;
	bool done;
	struct change *next;
};

void
core_writes_begin(struct core_writes *writes)
{
	*writes = (struct core_writes){ .last = &writes->first };
	(void)pthread_mutex_init(&writes->lock, NULL);
	(void)pthread_cond_init(&writes->ended, NULL);
}

static enum status
begin(struct db_tx *tx, const struct core *core, struct err *err)
{
	TRY(db_tx_begin(tx, core->pool, err));
	return db_iotcore_account_lock(tx, err);
}

static void
handle(struct change *change, struct db_tx *tx)
{
	struct call *call = change->call;

	call->tx = tx;
	change->status = call->op->handle(call, change->err);
	call->tx = NULL;
}

/* All have the same outcome. */
static void
end_all(struct change *changes, enum status status, const struct err *err)
{
	for (; changes != NULL; changes = changes->next) {
		changes->status = status;
		if (status != OK)
			*changes->err = *err;
	}
}

/* False: one of several was refused, and nothing is done. */
static bool
do_together(struct change *changes)
{
	own_struct(db_tx) tx = { NULL, NULL };
	struct err err;
	enum status status = begin(&tx, changes->call->core, &err);

	if (status != OK) {
		end_all(changes, status, &err);
		return true;
	}
	for (struct change *change = changes; change != NULL; change = change->next) {
		handle(change, &tx);
		if (change->status != OK)
			return changes->next == NULL;
	}
	/* Of unknown outcome for all of them, perhaps: then it is not tried again behind their backs. */
	status = db_tx_commit(&tx, &err);
	end_all(changes, status, &err);
	return true;
}

/* Handlers have no effect but on their transaction and their answer, so they may be run again. */
static void
do_all(struct change *changes)
{
	if (do_together(changes))
		return;
	while (changes != NULL) {
		struct change *rest = changes->next;

		changes->next = NULL;
		(void)do_together(changes);
		changes->next = rest;
		changes = rest;
	}
}

/* With the lock. Those that have waited longest. */
static struct change *
take(struct core_writes *writes)
{
	struct change *taken = writes->first;
	struct change **end = &writes->first;

	for (size_t count = 0; *end != NULL && count < TOGETHER_MAX; count++)
		end = &(*end)->next;
	writes->first = *end;
	if (*end == NULL)
		writes->last = &writes->first;
	*end = NULL;
	return taken;
}

/* With the lock. */
static void
lead(struct core_writes *writes)
{
	struct change *taken = take(writes);

	writes->led = true;
	(void)pthread_mutex_unlock(&writes->lock);
	do_all(taken);
	(void)pthread_mutex_lock(&writes->lock);
	writes->led = false;
	while (taken != NULL) {
		struct change *next = taken->next; /* its owner may be gone once it is done */

		taken->done = true;
		taken = next;
	}
	(void)pthread_cond_broadcast(&writes->ended);
}

enum status
core_write(struct core_writes *writes, struct call *call, struct err *err)
{
	struct change change = { .call = call, .err = err };

	(void)pthread_mutex_lock(&writes->lock);
	*writes->last = &change;
	/* cppcheck-suppress autoVariables; taken out before it is done */
	writes->last = &change.next;
	while (!change.done)
		if (writes->led)
			(void)pthread_cond_wait(&writes->ended, &writes->lock);
		else
			lead(writes);
	(void)pthread_mutex_unlock(&writes->lock);
	return change.status;
}
