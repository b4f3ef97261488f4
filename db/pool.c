#include "db/db.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "base/clock.h"
#include "base/cond.h"
#include "base/mem.h"
#include "db/conn.h"
#include "db/issuer.h"

#define WAIT_MS 5000 /* a request that waited so long is better told to come again */
#define BACKOFF_FIRST_MS 50
#define BACKOFF_LAST_MS 1000 /* a restart is noticed within a second */

enum { POOL_PING, POOL_STATEMENTS };

static const struct db_statement SQL[POOL_STATEMENTS] = {
	[POOL_PING] = {
		.name = "pool_ping", .columns = 1, .rows = ROWS_ONE, .sql = "SELECT 1",
	},
};
const struct db_table DB_TABLE_POOL = { SQL, COUNT_OF(SQL) };

struct db_pool {
	char *conninfo;
	pthread_mutex_t lock; /* for all below */
	pthread_cond_t freed;
	struct db_conn **idle; /* the last used on top: its caches are warm, and the rest may close */
	unsigned idle_count;
	struct db_conn *leased;
	bool stalled;
	unsigned lost;        /* broken since they were opened and not replaced yet */
	int64_t retry_at_ms;  /* no attempt to connect before; 0: the last one went well */
	int64_t backoff_ms;
	struct db_pool_stats stats;
	_Atomic uint64_t trust_epoch;
};

enum status
db_pool_new(struct db_pool **out, const char *conninfo, unsigned max_connections, struct err *err)
{
	struct db_pool *pool;

	assert(max_connections > 0);
	pool = mem_zalloc(sizeof(*pool));
	if (pool == NULL)
		return err_memory(err);
	pool->conninfo = mem_strdup(conninfo);
	/* NOLINTNEXTLINE(bugprone-sizeof-expression): pointers are what it holds */
	pool->idle = mem_array(max_connections, sizeof(*pool->idle));
	pool->stats.max = max_connections;
	if (pool->conninfo == NULL || pool->idle == NULL) {
		mem_free(pool->conninfo);
		mem_free(pool->idle);
		mem_free(pool);
		return err_memory(err);
	}
	(void)pthread_mutex_init(&pool->lock, NULL);
	cond_init(&pool->freed);
	*out = pool;
	return OK;
}

void
db_pool_free(struct db_pool *pool)
{
	if (pool == NULL)
		return;
	assert(pool->stats.in_use == 0);
	for (unsigned i = 0; i < pool->idle_count; i++)
		db_conn_close(pool->idle[i]);
	(void)pthread_cond_destroy(&pool->freed);
	(void)pthread_mutex_destroy(&pool->lock);
	mem_free(pool->idle);
	mem_free(pool->conninfo);
	mem_free(pool);
}

uint64_t
db_pool_trust_epoch(const struct db_pool *pool)
{
	return atomic_load(&pool->trust_epoch);
}

void
db_pool_stats(struct db_pool *pool, struct db_pool_stats *out)
{
	(void)pthread_mutex_lock(&pool->lock);
	*out = pool->stats;
	(void)pthread_mutex_unlock(&pool->lock);
}

/* Waits, with the lock held, until a connection is idle or may be opened. False: none came free. */
static bool
wait_for_room(struct db_pool *pool)
{
	int64_t until_ms = clock_mono_ms(&CLOCK_SYSTEM) + WAIT_MS;
	struct timespec until = { .tv_sec = until_ms / 1000, .tv_nsec = until_ms % 1000 * 1000000 };

	if (pool->idle_count == 0 && pool->stats.open == pool->stats.max)
		pool->stats.waits++;
	while (pool->idle_count == 0 && pool->stats.open == pool->stats.max && !pool->stalled)
		if (pthread_cond_timedwait(&pool->freed, &pool->lock, &until) != 0)
			return pool->idle_count > 0 || pool->stats.open < pool->stats.max;
	return true;
}

/* With the lock. */
static void
lease(struct db_pool *pool, struct db_conn *conn)
{
	conn->leased_prev = NULL;
	conn->leased_next = pool->leased;
	if (pool->leased != NULL)
		pool->leased->leased_prev = conn;
	pool->leased = conn;
}

static void
end_lease(struct db_pool *pool, struct db_conn *conn)
{
	if (conn->leased_prev != NULL)
		conn->leased_prev->leased_next = conn->leased_next;
	else
		pool->leased = conn->leased_next;
	if (conn->leased_next != NULL)
		conn->leased_next->leased_prev = conn->leased_prev;
}

void
db_pool_stall(struct db_pool *pool)
{
	(void)pthread_mutex_lock(&pool->lock);
	pool->stalled = true;
	/* libpq, which waits for the socket without a limit, finds it ended. Idle ones are found out when
	 * they are used: the server may yet have them. */
	for (struct db_conn *conn = pool->leased; conn != NULL; conn = conn->leased_next)
		(void)shutdown(conn->socket_fd, SHUT_RDWR);
	(void)pthread_cond_broadcast(&pool->freed);
	(void)pthread_mutex_unlock(&pool->lock);
}

void
db_pool_resume(struct db_pool *pool)
{
	(void)pthread_mutex_lock(&pool->lock);
	pool->stalled = false;
	pool->retry_at_ms = 0;
	pool->backoff_ms = 0;
	(void)pthread_mutex_unlock(&pool->lock);
}

/*
 * Reserves a connection: *conn is one that was used before, or NULL when the caller is to open one.
 * While the server is away, only one attempt per backoff is made, whoever asks.
 */
static enum status
reserve(struct db_pool *pool, struct db_conn **conn, struct err *err)
{
	enum status status = OK;

	*conn = NULL;
	(void)pthread_mutex_lock(&pool->lock);
	if (!wait_for_room(pool) && !pool->stalled) {
		pool->stats.errors++;
		status = err_set(err, ERR_UNAVAILABLE, "database_busy",
			"all %u connections are in use", pool->stats.max);
	} else if (pool->stalled) {
		pool->stats.errors++;
		status = err_set(err, ERR_UNAVAILABLE, "database_away", "the database does not answer");
	} else if (pool->idle_count > 0) {
		*conn = pool->idle[--pool->idle_count];
		lease(pool, *conn);
		pool->stats.in_use++;
	} else if (pool->retry_at_ms > clock_mono_ms(&CLOCK_SYSTEM)) {
		pool->stats.errors++;
		status = err_set(err, ERR_UNAVAILABLE, "database_away",
			"the database could not be reached a moment ago");
	} else {
		if (pool->retry_at_ms != 0) /* nobody else tries while this attempt runs */
			pool->retry_at_ms = clock_mono_ms(&CLOCK_SYSTEM) + pool->backoff_ms;
		pool->stats.open++;
		pool->stats.in_use++;
	}
	(void)pthread_mutex_unlock(&pool->lock);
	return status;
}

/* Takes a connection back; NULL: the one that was to be opened was not. */
static void
give_back(struct db_pool *pool, struct db_conn *conn)
{
	struct db_conn *closed = NULL;

	(void)pthread_mutex_lock(&pool->lock);
	pool->stats.in_use--;
	if (conn != NULL)
		end_lease(pool, conn);
	if (conn == NULL) {
		pool->stats.open--;
	} else if (conn->broken) {
		closed = conn;
		pool->stats.open--;
		pool->stats.errors++;
		pool->lost++;
	} else {
		pool->idle[pool->idle_count++] = conn;
	}
	(void)pthread_cond_signal(&pool->freed);
	(void)pthread_mutex_unlock(&pool->lock);
	db_conn_close(closed);
}

static void
note_attempt(struct db_pool *pool, struct db_conn *opened)
{
	(void)pthread_mutex_lock(&pool->lock);
	if (opened != NULL) {
		lease(pool, opened);
		pool->retry_at_ms = 0;
		pool->backoff_ms = 0;
		if (pool->lost > 0) {
			pool->lost--;
			pool->stats.reconnects++;
		}
	} else {
		pool->backoff_ms = pool->backoff_ms == 0 ? BACKOFF_FIRST_MS
			: pool->backoff_ms * 2 < BACKOFF_LAST_MS ? pool->backoff_ms * 2
			: BACKOFF_LAST_MS;
		pool->retry_at_ms = clock_mono_ms(&CLOCK_SYSTEM) + pool->backoff_ms;
		pool->stats.errors++;
	}
	(void)pthread_mutex_unlock(&pool->lock);
}

/* A connection that was idle (*reused), or a new one. */
static enum status
take(struct db_pool *pool, struct db_conn **conn, bool *reused, struct err *err)
{
	enum status status;

	TRY(reserve(pool, conn, err));
	*reused = *conn != NULL;
	if (*reused)
		return OK;
	status = db_conn_open(conn, pool->conninfo, err);
	note_attempt(pool, *conn);
	if (status != OK)
		give_back(pool, NULL);
	return status;
}

static enum status
begin_on(struct db_tx *tx, struct db_pool *pool, struct err *err)
{
	struct db_conn *conn;
	bool reused;

	TRY(take(pool, &conn, &reused, err));
	conn->reused = reused;
	conn->unbegun = true;
	conn->trust_changed = false;
	*tx = (struct db_tx){ pool, conn };
	return OK;
}

enum status
db_tx_begin(struct db_tx *tx, struct db_pool *pool, struct err *err)
{
	assert(tx->conn == NULL);
	return begin_on(tx, pool, err);
}

/* After a restart of the server every idle connection is dead. Each that is found out leaves the pool, so
 * there is an end to it: one that was just opened is not renewed. */
enum status
db_tx_renew(struct db_tx *tx, struct err *err)
{
	struct db_pool *pool = tx->pool;

	assert(pool != NULL && tx->conn->broken && tx->conn->reused);
	give_back(pool, give(tx->conn));
	return begin_on(tx, pool, err);
}

enum status
db_tx_restart(struct db_tx *tx, struct err *err)
{
	struct db_conn *conn = tx->conn;

	assert(conn != NULL);
	if (!conn->unbegun)
		TRY(db_conn_exec(conn, "rollback", "ROLLBACK", NULL, err));
	conn->unbegun = true;
	conn->trust_changed = false;
	return OK;
}

bool
db_tx_is_fresh(const struct db_tx *tx)
{
	return tx->conn != NULL && tx->conn->unbegun;
}

enum status
db_read(struct db_pool *pool,
	enum status (*read)(struct db_tx *tx, void *arg, struct err *err), void *arg, struct err *err)
{
	enum status status = OK;
	bool again = true;

	/* What breaks here on a used connection broke before, or while only reading. */
	for (unsigned i = 0; again && i <= pool->stats.max; i++) {
		struct db_tx tx = { pool, NULL };
		bool reused;

		TRY(take(pool, &tx.conn, &reused, err));
		status = read(&tx, arg, err);
		again = reused && status != OK && tx.conn->broken;
		db_tx_end(&tx);
	}
	return status;
}

enum status
db_tx_commit(struct db_tx *tx, struct err *err)
{
	struct db_conn *conn = tx->conn;
	own(PGresult) result = NULL;
	enum status status;

	assert(conn != NULL);
	if (conn->unbegun) { /* nothing was asked */
		db_tx_end(tx);
		return OK;
	}
	status = db_conn_exec(conn, "commit", "COMMIT", &result, err);
	/* The link broke, or the server went down, somewhere around the commit record. */
	if (status != OK && conn->broken)
		status = err_set(err, ERR_UNAVAILABLE, "commit_unknown",
			"the link to the database broke during COMMIT");
	/* A transaction in which a statement failed answers COMMIT with ROLLBACK, and no error. */
	if (status == OK && strcmp(PQcmdStatus(result), "COMMIT") != 0)
		status = err_set(err, ERR_INTERNAL, "commit_rolled_back",
			"COMMIT of a transaction that had failed");
	/* Before anybody is told; also when it is not known whether it happened. */
	if (conn->trust_changed)
		atomic_fetch_add(&tx->pool->trust_epoch, 1);
	db_tx_end(tx);
	return status;
}

void
db_tx_end(struct db_tx *tx)
{
	struct db_conn *conn = tx->conn;
	struct err err;

	if (conn == NULL)
		return;
	conn->unbegun = false;
	switch (PQtransactionStatus(conn->pg)) {
	case PQTRANS_IDLE:
		break;
	case PQTRANS_INTRANS:
	case PQTRANS_INERROR:
		if (db_conn_exec(conn, "rollback", "ROLLBACK", NULL, &err) != OK)
			conn->broken = true;
		break;
	case PQTRANS_ACTIVE:
	case PQTRANS_UNKNOWN:
		conn->broken = true;
		break;
	}
	*tx = (struct db_tx){ .pool = tx->pool };
	if (tx->pool != NULL)
		give_back(tx->pool, conn);
}

enum status
db_ping(struct db_pool *pool, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	TRY(db_tx_begin(&tx, pool, err));
	return db_run(&tx, &SQL[POOL_PING], DB_NO_PARAMS, NULL, err);
}

enum status
db_pool_check(struct db_pool *pool, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	TRY(db_tx_begin(&tx, pool, err));
	return db_conn_prepare_all(tx.conn, err);
}
