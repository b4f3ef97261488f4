#include "db/issuer.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "db/conn.h"

enum {
	ISSUER_INSERT,
	ISSUER_IDENTITY,
	ISSUER_FIND,
	ISSUER_LIST,
	ISSUER_CHAIN,
	INSTANCE_BEGIN,
	INSTANCE_LOCK,
	INSTANCE_KEYS,
	INSTANCE_WITHOUT,
	JOB_LEAD,
	RETENTION_REVOCATIONS,
	RETENTION_INSTANCES,
	RETENTION_IDEMPOTENCY,
	BLOCKED_KEYS,
	STATEMENTS,
};

#define ISSUER_COLUMNS                                                                             \
	"i.issuer_id, i.ca_id, i.kind, i.status, i.subject, i.sha256, " SQL_S("i.not_before") ", " \
	SQL_S("i.not_after") ", i.certificate"

static const struct db_statement SQL[STATEMENTS] = {
	[ISSUER_INSERT] = {
		.name = "issuer_insert", .params = 8, .columns = 0, .rows = ROWS_NONE,
		.sql = "INSERT INTO jitrca.issuer"
		       " (ca_id, kind, subject, certificate, chain, sha256, not_before, not_after)"
		       " VALUES ($1, $2, $3, $4, $5::bytea[], $6, " SQL_AT_S("$7") ", " SQL_AT_S("$8")
		       ") ON CONFLICT DO NOTHING",
	},
	[ISSUER_IDENTITY] = { /* issuer_ca_id_key */
		.name = "issuer_identity", .params = 2, .columns = 2, .rows = ROWS_MAYBE,
		.sql = "SELECT issuer_id, sha256 = $2 FROM jitrca.issuer WHERE ca_id = $1",
	},
	[ISSUER_FIND] = { /* issuer_ca_id_key */
		.name = "issuer_find", .params = 1, .columns = 9, .rows = ROWS_MAYBE,
		.sql = "SELECT " ISSUER_COLUMNS " FROM jitrca.issuer i WHERE i.ca_id = $1",
	},
	[ISSUER_LIST] = { /* issuer_pkey */
		.name = "issuer_list", .params = 1, .columns = 9, .rows = ROWS_ANY,
		.sql = "SELECT " ISSUER_COLUMNS " FROM jitrca.issuer i ORDER BY i.issuer_id"
		       " LIMIT $1::bigint",
	},
	[ISSUER_CHAIN] = { /* issuer_pkey */
		.name = "issuer_chain", .params = 2, .columns = 1, .rows = ROWS_ANY,
		.sql = "SELECT c.der FROM jitrca.issuer i,"
		       " unnest(i.chain) WITH ORDINALITY AS c(der, n) WHERE i.issuer_id = $1"
		       " ORDER BY c.n LIMIT $2::bigint",
	},
	[INSTANCE_BEGIN] = {
		.name = "instance_begin", .params = 1, .columns = 1, .rows = ROWS_ONE,
		.sql = "INSERT INTO jitrca.instance (host) VALUES ($1) RETURNING instance_id",
	},
	[INSTANCE_LOCK] = { /* held by the session: it outlives the transaction */
		.name = "instance_lock", .params = 2, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT pg_try_advisory_lock($1::int, $2::int)",
	},
	[INSTANCE_KEYS] = { /* instance_pkey */
		.name = "instance_keys", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "UPDATE jitrca.instance SET issuers = $2::int[] WHERE instance_id = $1::int",
	},
	[INSTANCE_WITHOUT] = {
		/* Servers of the last hour and all locks, for a person's call. Trying to take each lock
		 * would stand in the way of a server that begins. */
		.name = "instance_without", .params = 2, .columns = 2, .rows = ROWS_MAYBE,
		.sql = "SELECT i.instance_id, i.host FROM jitrca.instance i"
		       " WHERE NOT i.issuers @> ARRAY[$2::int] AND EXISTS (SELECT"
		       " FROM pg_catalog.pg_locks l WHERE l.locktype = 'advisory' AND l.granted"
		       " AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d"
		       " WHERE d.datname = current_database()) AND l.classid = $1::int::oid"
		       " AND l.objid = i.instance_id::oid AND l.objsubid = 2)"
		       " ORDER BY i.instance_id LIMIT 1",
	},
	[JOB_LEAD] = {
		.name = "job_lead", .params = 2, .columns = 1, .rows = ROWS_ONE,
		.sql = "SELECT pg_try_advisory_xact_lock($1::int, $2::int)",
	},
	[RETENTION_REVOCATIONS] = {
		/* revocation_expired, crl_pkey. The guard's 30 days, and the newest of both lists that
		 * could name it was made after it expired: RFC 5280 3.3 wants it on one more list. */
		.name = "retention_revocations", .params = 1, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM jitrca.revocation r USING (SELECT x.issuer_id, x.serial"
		       " FROM jitrca.revocation x WHERE x.not_after <= now() - interval '30 days'"
		       " AND x.not_after < (SELECT l.this_update FROM jitrca.crl l"
		       " WHERE l.issuer_id = x.issuer_id AND l.scope = -1 ORDER BY l.number DESC LIMIT 1)"
		       " AND x.not_after < (SELECT l.this_update FROM jitrca.crl l"
		       " WHERE l.issuer_id = x.issuer_id AND l.scope = jitrca.serial_shard(x.serial)"
		       " ORDER BY l.number DESC LIMIT 1)"
		       " ORDER BY x.not_after LIMIT $1::bigint FOR UPDATE SKIP LOCKED) o"
		       " WHERE r.issuer_id = o.issuer_id AND r.serial = o.serial",
	},
	[RETENTION_INSTANCES] = {
		/* instance_pkey, intent_instance. Its lock is free and nothing is left to reap; an hour,
		 * for whoever reads the table to learn what ran. */
		.name = "retention_instances", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "WITH dead AS MATERIALIZED (SELECT a.instance_id FROM (SELECT i.instance_id"
		       " FROM jitrca.instance i WHERE i.started_at < now() - interval '1 hour'"
		       " AND NOT EXISTS (SELECT FROM jitrca.intent_round t"
		       " WHERE t.instance_id = i.instance_id)"
		       " ORDER BY i.instance_id LIMIT $2::bigint) a"
		       " WHERE pg_try_advisory_xact_lock($1::int, a.instance_id))"
		       " DELETE FROM jitrca.instance i USING dead WHERE i.instance_id = dead.instance_id",
	},
	[RETENTION_IDEMPOTENCY] = { /* idempotency_retention; what is in use stays for the next round */
		.name = "retention_idempotency", .params = 2, .columns = 0, .rows = ROWS_NONE,
		.sql = "DELETE FROM jitrca.idempotency d USING (SELECT principal_id, key"
		       " FROM jitrca.idempotency WHERE created_at < " SQL_AT_S("$1")
		       " ORDER BY created_at LIMIT $2::bigint FOR UPDATE SKIP LOCKED) old"
		       " WHERE d.principal_id = old.principal_id AND d.key = old.key",
	},
	[BLOCKED_KEYS] = { /* key_claim_blocked */
		.name = "blocked_keys", .params = 1, .columns = 2, .rows = ROWS_STREAM,
		.sql = "SELECT " SQL_US("blocked_at") ", spki_sha256 FROM jitrca.key_claim"
		       " WHERE blocked_at > " SQL_AT_US("$1") " ORDER BY blocked_at",
	},
};
const struct db_table DB_TABLE_ISSUER = { SQL, COUNT_OF(SQL) };

void
db_issuer_free(struct db_issuer *issuer)
{
	bytes_free(&issuer->certificate);
	for (size_t i = 0; i < COUNT_OF(issuer->chain); i++)
		bytes_free(&issuer->chain[i]);
	issuer->chain_count = 0;
}

static enum status
ca_differs(struct err *err)
{
	return err_set(err, ERR_CONFLICT, "ca_differs",
		"ca id and certificate: the database knows one of them with another partner");
}

enum status
db_issuer_ensure(struct db_tx *tx, const struct db_issuer *issuer, int32_t *issuer_id,
	struct err *err)
{
	own_struct(db_array) chain = DB_ARRAY(ARRAY_BYTEA);
	own(PGresult) rows = NULL;

	for (size_t i = 0; i < issuer->chain_count; i++)
		TRY(db_array_add_bytes(&chain, view_of(&issuer->chain[i]), err));
	TRY(db_run(tx, &SQL[ISSUER_INSERT],
		DB_PARAMS(db_text(issuer->ca_id), db_text(issuer->kind), db_text(issuer->subject),
			db_bytes(view_of(&issuer->certificate)), db_array(&chain),
			db_octets(issuer->sha256, sizeof(issuer->sha256)), db_int64(issuer->not_before_s),
			db_int64(issuer->not_after_s)), NULL, err));

	/* Whoever inserted it: it is committed, or ours, when the insert is done. */
	TRY(db_run(tx, &SQL[ISSUER_IDENTITY],
		DB_PARAMS(db_text(issuer->ca_id), db_octets(issuer->sha256, sizeof(issuer->sha256))),
		&rows, err));
	if (db_rows(rows) == 0)
		return ca_differs(err);
	struct db_row row = db_row(rows, 0);
	*issuer_id = db_row_int32(&row);
	bool same = db_row_bool(&row);
	TRY(db_row_end(&row, err));
	return same ? OK : ca_differs(err);
}

static enum status
read_chain(struct db_tx *tx, struct db_issuer *out, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[ISSUER_CHAIN],
		DB_PARAMS(db_int64(out->issuer_id), db_int64(DB_CHAIN_MAX)), &rows, err));
	for (int i = 0; i < db_rows(rows); i++) {
		struct db_row row = db_row(rows, i);

		db_row_bytes(&row, &out->chain[out->chain_count++]);
		TRY(db_row_end(&row, err));
	}
	return OK;
}

static enum status
read_issuer(struct db_tx *tx, const PGresult *rows, int index, struct db_issuer *out, struct err *err)
{
	struct db_row row = db_row(rows, index);
	enum status status;

	*out = (struct db_issuer){ .issuer_id = db_row_int32(&row) };
	db_row_text(&row, out->ca_id, sizeof(out->ca_id));
	db_row_text(&row, out->kind, sizeof(out->kind));
	db_row_text(&row, out->status, sizeof(out->status));
	db_row_text(&row, out->subject, sizeof(out->subject));
	(void)db_row_octets(&row, out->sha256, sizeof(out->sha256));
	out->not_before_s = db_row_int64(&row);
	out->not_after_s = db_row_int64(&row);
	db_row_bytes(&row, &out->certificate);
	status = db_row_end(&row, err);
	if (status == OK)
		status = read_chain(tx, out, err);
	if (status != OK)
		db_issuer_free(out);
	return status;
}

enum status
db_issuer_find(struct db_tx *tx, const char *ca_id, struct db_issuer *out, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[ISSUER_FIND], DB_PARAMS(db_text(ca_id)), &rows, err));
	if (db_rows(rows) == 0)
		return err_set(err, ERR_NOT_FOUND, "ca_unknown", "there is no such CA");
	return read_issuer(tx, rows, 0, out, err);
}

enum status
db_issuer_list(struct db_tx *tx, struct db_issuer *out, size_t max, size_t *count, struct err *err)
{
	own(PGresult) rows = NULL;

	*count = 0;
	TRY(db_run(tx, &SQL[ISSUER_LIST], DB_PARAMS(db_int64((int64_t)max)), &rows, err));
	for (int i = 0; i < db_rows(rows); i++) {
		enum status status = read_issuer(tx, rows, i, &out[i], err);

		if (status != OK) {
			while (*count > 0)
				db_issuer_free(&out[--*count]);
			return status;
		}
		++*count;
	}
	return OK;
}

/*
 * The session
 */

struct db_session {
	struct db_conn *conn;
	int32_t instance_id;
};

static enum status
read_bool(const PGresult *rows, bool *out, struct err *err)
{
	struct db_row row = db_row(rows, 0);

	*out = db_row_bool(&row);
	return db_row_end(&row, err);
}

/* Registers the instance and takes its lock. Until the lock is held nobody knows its id. */
static enum status
session_register(struct db_session *session, struct err *err)
{
	struct db_tx tx = { NULL, session->conn };
	own(PGresult) began = NULL;
	own(PGresult) locked = NULL;
	char host[DB_HOST_BYTES] = "";
	bool alone = false;

	(void)gethostname(host, sizeof(host) - 1);
	TRY(db_run(&tx, &SQL[INSTANCE_BEGIN], DB_PARAMS(db_text(host)), &began, err));
	struct db_row row = db_row(began, 0);
	session->instance_id = db_row_int32(&row);
	TRY(db_row_end(&row, err));
	TRY(db_run(&tx, &SQL[INSTANCE_LOCK],
		DB_PARAMS(db_int64(LOCK_INSTANCE), db_int64(session->instance_id)), &locked, err));
	TRY(read_bool(locked, &alone, err));
	if (!alone)
		return err_set(err, ERR_UNAVAILABLE, "database_retry",
			"the lock of instance %d is held by another session", session->instance_id);
	return db_conn_exec(session->conn, "listen",
		"LISTEN jitrca_revocation; LISTEN jitrca_crl; LISTEN jitrca_wake;"
		" LISTEN jitrca_outbox; LISTEN jitrca_trust; LISTEN jitrca_notify", NULL, err);
}

enum status
db_session_begin(struct db_session **out, const char *conninfo, struct err *err)
{
	struct db_session *session = mem_zalloc(sizeof(*session));
	enum status status;

	if (session == NULL)
		return err_memory(err);
	status = db_conn_open(&session->conn, conninfo, err);
	if (status == OK)
		status = session_register(session, err);
	if (status != OK) {
		db_session_end(session);
		return status;
	}
	*out = session;
	return OK;
}

int32_t
db_session_instance_id(const struct db_session *session)
{
	return session->instance_id;
}

enum status
db_session_keys(struct db_session *session, const int32_t *issuers, size_t count, struct err *err)
{
	struct db_tx tx = { NULL, session->conn };
	own_struct(db_array) held = DB_ARRAY(ARRAY_INT4);

	for (size_t i = 0; i < count; i++)
		TRY(db_array_add_int(&held, issuers[i], err));
	return db_run(&tx, &SQL[INSTANCE_KEYS],
		DB_PARAMS(db_int64(session->instance_id), db_array(&held)), NULL, err);
}

enum status
db_instance_without(struct db_tx *tx, int32_t issuer_id, int32_t *instance_id,
	char host[DB_HOST_BYTES], struct err *err)
{
	own(PGresult) rows = NULL;

	*instance_id = 0;
	TRY(db_run(tx, &SQL[INSTANCE_WITHOUT],
		DB_PARAMS(db_int64(LOCK_INSTANCE), db_int64(issuer_id)), &rows, err));
	if (db_rows(rows) == 0)
		return OK;
	struct db_row row = db_row(rows, 0);
	*instance_id = db_row_int32(&row);
	db_row_text(&row, host, DB_HOST_BYTES);
	return db_row_end(&row, err);
}

/* How many notifications were handed over. */
static size_t
deliver(struct db_session *session,
	void (*notified)(void *arg, const char *channel, const char *payload), void *arg)
{
	size_t count = 0;
	PGnotify *notify;

	while ((notify = PQnotifies(session->conn->pg)) != NULL) {
		notified(arg, notify->relname, notify->extra);
		PQfreemem(notify);
		count++;
	}
	return count;
}

enum status
db_session_ask(struct db_session *session, struct err *err)
{
	return db_conn_ask(session->conn, err);
}

bool
db_session_asked(const struct db_session *session)
{
	return session->conn->asked;
}

enum status
db_session_wait(struct db_session *session, int wait_ms, int wake_fd,
	void (*notified)(void *arg, const char *channel, const char *payload), void *arg,
	struct err *err)
{
	struct pollfd fds[2] = {
		{ .fd = PQsocket(session->conn->pg), .events = POLLIN },
		{ .fd = wake_fd, .events = POLLIN }, /* poll passes over -1 */
	};

	if (session->conn->broken)
		return err_libpq(err, session->conn, NULL, "listen");
	/* What came while a statement ran is in libpq's queue, and the socket is silent about it. */
	if (deliver(session, notified, arg) > 0)
		return OK;
	if (poll(fds, COUNT_OF(fds), wait_ms) < 0 && errno != EINTR)
		return err_set(err, ERR_INTERNAL, "database_error", "poll: errno %d", errno);
	if (PQconsumeInput(session->conn->pg) != 1 || PQstatus(session->conn->pg) != CONNECTION_OK)
		return err_libpq(err, session->conn, NULL, "listen");
	TRY(db_conn_take_answer(session->conn, err));
	/* Those that came before the answer are delivered before anybody hears of it. */
	(void)deliver(session, notified, arg);
	return OK;
}

void
db_session_end(struct db_session *session)
{
	if (session == NULL)
		return;
	db_conn_close(session->conn);
	mem_free(session);
}

/*
 * Housekeeping
 */

enum status
db_job_lead(struct db_tx *tx, int32_t job, bool *leader, struct err *err)
{
	own(PGresult) rows = NULL;

	TRY(db_run(tx, &SQL[JOB_LEAD], DB_PARAMS(db_int64(LOCK_JOB), db_int64(job)), &rows, err));
	return read_bool(rows, leader, err);
}

enum status
db_retention_revocations(struct db_tx *tx, size_t max, size_t *deleted, struct err *err)
{
	own(PGresult) done = NULL;

	TRY(db_run(tx, &SQL[RETENTION_REVOCATIONS], DB_PARAMS(db_int64((int64_t)max)), &done, err));
	*deleted = (size_t)db_affected(done);
	return OK;
}

enum status
db_retention_instances(struct db_tx *tx, size_t max, size_t *deleted, struct err *err)
{
	own(PGresult) done = NULL;

	TRY(db_run(tx, &SQL[RETENTION_INSTANCES],
		DB_PARAMS(db_int64(LOCK_INSTANCE), db_int64((int64_t)max)), &done, err));
	*deleted = (size_t)db_affected(done);
	return OK;
}

enum status
db_retention_idempotency(struct db_tx *tx, int64_t before_s, size_t max, size_t *deleted,
	struct err *err)
{
	own(PGresult) done = NULL;

	TRY(db_run(tx, &SQL[RETENTION_IDEMPOTENCY],
		DB_PARAMS(db_int64(before_s), db_int64((int64_t)max)), &done, err));
	*deleted = (size_t)db_affected(done);
	return OK;
}

struct blocked {
	int64_t *newest_us;
	enum status (*key)(void *arg, const uint8_t spki_sha256[32], struct err *err);
	void *arg;
};

static enum status
each_blocked(void *arg, struct db_row *row, struct err *err)
{
	struct blocked *blocked = arg;
	uint8_t spki_sha256[DB_SHA256_BYTES];
	int64_t at_us = db_row_int64(row);

	(void)db_row_octets(row, spki_sha256, sizeof(spki_sha256));
	TRY(db_row_end(row, err));
	TRY(blocked->key(blocked->arg, spki_sha256, err));
	*blocked->newest_us = at_us;
	return OK;
}

enum status
db_blocked_keys(struct db_tx *tx, int64_t since_us, int64_t *newest_us,
	enum status (*key)(void *arg, const uint8_t spki_sha256[32], struct err *err), void *arg,
	struct err *err)
{
	struct blocked blocked = { newest_us, key, arg };

	*newest_us = since_us;
	return db_stream(tx, &SQL[BLOCKED_KEYS], DB_PARAMS(db_int64(since_us)), each_blocked, &blocked,
		err);
}
