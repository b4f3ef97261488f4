/* db/issuer.h - certificate authorities, the running instances, and small housekeeping. */
#ifndef DB_ISSUER_H
#define DB_ISSUER_H

#include "db/db.h"

#define DB_CHAIN_MAX 8

struct db_issuer {
	int32_t issuer_id;
	char ca_id[DB_ID_BYTES];
	char kind[8];   /* root, issuing */
	char status[8]; /* active, retired */
	char subject[512];
	uint8_t sha256[DB_SHA256_BYTES];
	int64_t not_before_s, not_after_s;
	struct bytes certificate;
	struct bytes chain[DB_CHAIN_MAX]; /* its issuers, nearest first, the root last */
	size_t chain_count;
};
void db_issuer_free(struct db_issuer *issuer);
OWNER_STRUCT(db_issuer, db_issuer_free)

/*
 * Inserts where ca_id is new and gives its issuer_id; ERR_CONFLICT ca_differs when ca_id stands for
 * another certificate.
 */
MUST_USE enum status db_issuer_ensure(struct db_tx *tx, const struct db_issuer *issuer,
	int32_t *issuer_id, struct err *err);
MUST_USE enum status db_issuer_find(struct db_tx *tx, const char *ca_id, struct db_issuer *out,
	struct err *err); /* ERR_NOT_FOUND ca_unknown */
MUST_USE enum status db_issuer_list(struct db_tx *tx, struct db_issuer *out, size_t max, size_t *count,
	struct err *err);

/*
 * A session of its own that stands for this server: it holds the instance's advisory lock and listens
 * on jitrca_revocation, jitrca_crl, jitrca_wake, jitrca_outbox and jitrca_trust. When its link breaks,
 * the instance is dead: begin anew.
 */
struct db_session;
MUST_USE enum status db_session_begin(struct db_session **out, const char *conninfo, struct err *err);
int32_t db_session_instance_id(const struct db_session *session);
/* Says which issuers this server can sign with. */
MUST_USE enum status db_session_keys(struct db_session *session, const int32_t *issuers, size_t count,
	struct err *err);
#define DB_HOST_BYTES 256
/*
 * A server whose session lives and who has not said that it can sign with this issuer; *instance_id 0: there
 * is none. One that has just lost its session is not seen.
 */
MUST_USE enum status db_instance_without(struct db_tx *tx, int32_t issuer_id, int32_t *instance_id,
	char host[DB_HOST_BYTES], struct err *err);
/*
 * Waits up to wait_ms for notifications; calls notified(channel, payload) for each. ERR_UNAVAILABLE:
 * the link is gone. wake_fd (-1: none) becoming readable ends the wait too.
 */
MUST_USE enum status db_session_wait(struct db_session *session, int wait_ms, int wake_fd,
	void (*notified)(void *arg, const char *channel, const char *payload), void *arg,
	struct err *err);
/*
 * Asks the database something, without waiting: db_session_wait takes the answer, and from then on
 * db_session_asked says false. Whatever was notified before the question was read has been delivered by
 * then. One question at a time.
 */
MUST_USE enum status db_session_ask(struct db_session *session, struct err *err);
bool db_session_asked(const struct db_session *session);
void db_session_end(struct db_session *session);

/* Runs as leader of `job` for this transaction only; *leader false: another server has it. */
MUST_USE enum status db_job_lead(struct db_tx *tx, int32_t job, bool *leader, struct err *err);

/*
 * Deletes up to max revocations of certificates that expired a month ago and whose lists were made anew
 * since: the certificate's row still says that it was revoked, the audit log when and why.
 */
MUST_USE enum status db_retention_revocations(struct db_tx *tx, size_t max, size_t *deleted,
	struct err *err);
/* Deletes instances that are gone and left no intent, looking at up to max: each takes a lock. */
MUST_USE enum status db_retention_instances(struct db_tx *tx, size_t max, size_t *deleted,
	struct err *err);
/* Retention; each deletes up to max rows and says how many. */
MUST_USE enum status db_retention_idempotency(struct db_tx *tx, int64_t before_s, size_t max,
	size_t *deleted, struct err *err);

/* "SELECT 1", for readiness; and the counts that metrics show. */
MUST_USE enum status db_ping(struct db_pool *pool, struct err *err);
/* Block-listed keys since the start, for the signer: streams spki_sha256 of keys blocked after since_us. */
MUST_USE enum status db_blocked_keys(struct db_tx *tx, int64_t since_us, int64_t *newest_us,
	enum status (*key)(void *arg, const uint8_t spki_sha256[32], struct err *err), void *arg,
	struct err *err);

#endif
