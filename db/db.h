/*
 * db/db.h - what the whole room shares: the pool, leases, transactions, and the kinds of a
 * certificate's state. The room knows libpq and our tables; certificates are bytes to it.
 *
 * All SQL of the project lives in this room, one file per entity, each with its table of statements;
 * db/run.h is the one door they go through. A change of state, its audit rows and its outbox row
 * share one db_tx. A db_tx that goes out of scope without db_tx_commit is rolled back.
 *
 * Threads: the pool is safe from any thread; a lease and a tx belong to one thread at a time.
 */
#ifndef DB_DB_H
#define DB_DB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/serial.h"

#define DB_ID_BYTES 65 /* device, principal, station, manifest ids: 64 and NUL */
#define DB_PROFILE_BYTES 33
#define DB_SHA256_BYTES 32

struct db_pool;
struct db_conn;

/*
 * Keeps up to max_connections, opened on demand. conninfo is a libpq connection string; it is copied.
 * Opening does not fail when the server is away: leases then answer ERR_UNAVAILABLE (database_away)
 * until it is back.
 */
MUST_USE enum status db_pool_new(struct db_pool **out, const char *conninfo, unsigned max_connections,
	struct err *err);
void db_pool_free(struct db_pool *pool); /* NULL is welcome; all leases are back */

/*
 * Prepares every statement of the room on one connection, so that a schema that does not fit shows at
 * the start. ERR_INTERNAL database_error: the text names the statement.
 */
MUST_USE enum status db_pool_check(struct db_pool *pool, struct err *err);

struct db_pool_stats {
	unsigned max, open, in_use;
	uint64_t waits, reconnects, errors;
};
void db_pool_stats(struct db_pool *pool, struct db_pool_stats *out);

/*
 * The database hangs: it neither answers nor breaks the link. Whoever waits for it is told that it is
 * away (what was under way is of unknown outcome), and so is whoever comes, at once, until
 * db_pool_resume. Safe from any thread.
 */
void db_pool_stall(struct db_pool *pool);
void db_pool_resume(struct db_pool *pool);

/*
 * Grows with each commit through this pool of a statement that changed who is to be trusted (a status of
 * a certificate or device, a principal, a token): what was remembered under a smaller one is not to be
 * believed. Other servers hear of it by the channel jitrca_trust.
 */
uint64_t db_pool_trust_epoch(const struct db_pool *pool);

/* A transaction on a connection of its own. Zero-initialised, it holds nothing. */
struct db_tx {
	struct db_pool *pool;
	struct db_conn *conn;
};

/*
 * Takes a connection (waiting up to 5 s for one to come free) and begins; READ COMMITTED. BEGIN goes out
 * with the first statement, in one round trip: there it shows when the connection had died while it was
 * idle, and another takes its place. ERR_UNAVAILABLE: database_away, or database_busy when none came free.
 */
MUST_USE enum status db_tx_begin(struct db_tx *tx, struct db_pool *pool, struct err *err);
/* Rolls back and begins anew on the same connection. */
MUST_USE enum status db_tx_restart(struct db_tx *tx, struct err *err);
/* Nothing was asked in it yet. */
bool db_tx_is_fresh(const struct db_tx *tx);
/*
 * ERR_UNAVAILABLE (commit_unknown) when the link broke during COMMIT: it may have happened or not.
 * The connection goes back either way.
 */
MUST_USE enum status db_tx_commit(struct db_tx *tx, struct err *err);
void db_tx_end(struct db_tx *tx); /* rolls back what was not committed; may run twice */
OWNER_STRUCT(db_tx, db_tx_end)

/*
 * Runs read() on a connection without a transaction, so that one statement is one round trip. It only
 * reads, and may be run again: when the connection turned out to be dead. Fails as db_tx_begin does, or
 * as read() does.
 */
MUST_USE enum status db_read(struct db_pool *pool,
	enum status (*read)(struct db_tx *tx, void *arg, struct err *err), void *arg, struct err *err);

/* The stored states of a certificate; `expired` is computed by db_certificate_status. */
enum cert_status {
	CERT_UNSET = 0,
	CERT_ACTIVE,
	CERT_PENDING_CONFIRMATION,
	CERT_SUPERSEDED,
	CERT_HELD,
	CERT_REVOKED,
	CERT_EXPIRED,
};
const char *cert_status_name(enum cert_status status);                  /* "active" … */
MUST_USE bool cert_status_parse(enum cert_status *out, const char *name); /* all six */

/* RFC 5280 5.3.1 */
enum revocation_reason {
	REASON_UNSPECIFIED = 0,
	REASON_KEY_COMPROMISE = 1,
	REASON_CA_COMPROMISE = 2,
	REASON_AFFILIATION_CHANGED = 3,
	REASON_SUPERSEDED = 4,
	REASON_CESSATION_OF_OPERATION = 5,
	REASON_CERTIFICATE_HOLD = 6,
	REASON_PRIVILEGE_WITHDRAWN = 9,
	REASON_AA_COMPROMISE = 10,
};
const char *revocation_reason_name(enum revocation_reason reason);         /* "keyCompromise" … */
MUST_USE bool revocation_reason_parse(enum revocation_reason *out, const char *name);

/* Who an issued certificate is, without its month: that is in the serial. */
struct db_cert_ref {
	int32_t issuer_id; /* 0: none */
	struct serial serial;
};

static inline bool
db_ref_equal(const struct db_cert_ref *a, const struct db_cert_ref *b)
{
	return a->issuer_id == b->issuer_id && serial_equal(&a->serial, &b->serial);
}

#endif
