/*
 * db/conn.h - one connection, as the pool, the migration runner and sessions use it; private to this
 * room. Opens it with our settings and reads libpq's errors, which nothing else does.
 *
 * Threads: one at a time.
 */
#ifndef DB_CONN_H
#define DB_CONN_H

#include <libpq-fe.h>

#include "db/run.h"

/*
 * The first key of our advisory locks. LOCK_INSTANCE goes with an instance id, and -1 is taken by
 * jitrca.ensure_month; LOCK_JOB goes with a job; the others with 0.
 */
enum {
	LOCK_INSTANCE = 1784,
	LOCK_JOB = 1785,
	LOCK_ADMINS = 1786,
	LOCK_MIGRATE = 1787,
	LOCK_IOT = 1788, /* and a hash of what is led */
};

struct db_conn {
	PGconn *pg;
	bool broken;    /* not to be used again */
	bool trust_changed; /* by the transaction that runs on it */
	bool reused;    /* it had been idle: it may have died meanwhile */
	bool asked;     /* a question of db_conn_ask is under way */
	bool unbegun;   /* a transaction's BEGIN is yet to be sent, with its first statement */
	bool *prepared; /* of all statements, in the order of DB_TABLES */
	/* The socket once more: to be shut down from another thread, which must not touch libpq's. */
	int socket_fd;
	struct db_conn *leased_prev, *leased_next; /* of the pool */
};

/*
 * Connects: what conninfo leaves open is set for servers that may die (connect_timeout 5 s, TCP
 * keepalives, a writable server among several hosts). search_path is empty, time is UTC, timeouts for
 * statements, locks and idle transactions are set. ERR_UNAVAILABLE database_away.
 */
MUST_USE enum status db_conn_open(struct db_conn **out, const char *conninfo, struct err *err);
/* The same to whatever server answers, a standby too, whatever conninfo says of that. */
MUST_USE enum status db_conn_open_any(struct db_conn **out, const char *conninfo, struct err *err);
void db_conn_close(struct db_conn *conn); /* NULL is welcome */
typedef struct db_conn db_conn; /* for own(db_conn) */
OWNER(db_conn, db_conn_close)

/* A constant text without parameters (BEGIN, SET …); what names it in errors. out may be NULL. */
MUST_USE enum status db_conn_exec(struct db_conn *conn, const char *what, const char *sql,
	PGresult **out, struct err *err);

/*
 * Asks something, without waiting for the answer: a whole exchange, not a ping of the transport, so that what
 * was notified to this connection by then comes before it. The other takes what has come of it; conn->asked
 * is false once it is whole.
 */
MUST_USE enum status db_conn_ask(struct db_conn *conn, struct err *err);
MUST_USE enum status db_conn_take_answer(struct db_conn *conn, struct err *err);

/* Takes another connection for a transaction whose own was found dead before anything ran on it. */
MUST_USE enum status db_tx_renew(struct db_tx *tx, struct err *err);

/* Prepares every statement of DB_TABLES that is not prepared yet. */
MUST_USE enum status db_conn_prepare_all(struct db_conn *conn, struct err *err);

/*
 * The only reader of libpq's errors: fills err from result (NULL: from the connection) and marks the
 * connection broken where it is. See db_run for what becomes what.
 */
enum status err_libpq(struct err *err, struct db_conn *conn, const PGresult *result, const char *what);
#define err_libpq(...) err_failed(err_libpq(__VA_ARGS__))

#endif
