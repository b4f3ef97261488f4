/*
 * server/issuance/internal.h - the pipeline's parts between themselves: the queue (issuance.c), who may
 * go together (pick.c), and one batch on its way (round.c, record.c).
 */
#ifndef SERVER_ISSUANCE_INTERNAL_H
#define SERVER_ISSUANCE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "server/app.h"
#include "server/audit.h"
#include "server/issuance/issuance.h"

/* Four of the largest batches: what comes on top is told to come back, so memory stays bounded. */
#define ISSUANCE_QUEUE_MAX 8192
/* A busy key, public key or device is asked about again so soon … */
#define ISSUANCE_BUSY_RETRY_MS 20
/* … and for so long: longer than any healthy issuance takes, shorter than clients wait. */
#define ISSUANCE_BUSY_LIMIT_MS 10000
#define ISSUANCE_MONTHS 65536
/* More threads than this verify with verifiers that are not kept. */
#define ISSUANCE_VERIFIERS_KEPT 64

struct item_list {
	struct issuance_item *first, **last;
	size_t count;
};
void item_list_init(struct item_list *list);
void item_list_add(struct item_list *list, struct issuance_item *item);
struct issuance_item *item_list_take_first(struct item_list *list); /* NULL: empty */

/*
 * Moves up to max items that may share one Admit from `from` to out, in order; who shares a principal's
 * idempotency key, a public key or an identity with one before it stays where it is.
 */
size_t pick_batch(struct item_list *from, struct issuance_item **out, size_t max);

/* Where an item of a batch stands. */
struct slot {
	struct issuance_item *item;
	bool open;      /* not ended and not put off yet */
	bool admitted;  /* its intent is written */
	bool signed_ok;
	bool has_replaced; /* then the certificate_id of what it replaces */
	uint8_t replaced[DB_SHA256_BYTES];
	size_t prepared, admit, sign; /* its place in the arrays below */
};

/* The committer's work space, made once: nothing of a batch's size is allocated under load. */
struct round {
	const struct app_ca *issuing; /* for all of it, whatever succeeds it meanwhile */
	struct slot slots[SIGNER_BATCH_MAX];
	size_t count;
	struct ca_prepare_item prepare[SIGNER_BATCH_MAX];
	struct db_admit_item admit[SIGNER_BATCH_MAX];
	size_t admit_count;
	struct ca_sign_item sign[SIGNER_BATCH_MAX];
	size_t sign_count;
	struct db_record_item record[SIGNER_BATCH_MAX];
	uint64_t handles[SIGNER_BATCH_MAX];
	struct db_cert_ref refs[SIGNER_BATCH_MAX];
	struct db_certificate rows[SIGNER_BATCH_MAX];
	uint64_t generation;
	struct audit_tail tail;
};

struct issuance {
	struct app *app;
	pthread_t committer;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct item_list ready;   /* guarded by lock, as the next three */
	struct item_list waiting; /* busy ones, in the order in which they are due */
	bool stopping;
	int64_t stop_at_ms;

	/* The committer's own. */
	struct round round;
	uint8_t months[ISSUANCE_MONTHS / 8]; /* partitions that are known to exist */
	/* Intents that this server gave up on and has not closed yet; no Admit before they are. */
	struct db_cert_ref abandoned[SIGNER_BATCH_MAX];
	size_t abandoned_count;
	/* How far the signer's block list has been read, in microseconds, and when it was looked at. */
	int64_t blocked_until_us, blocked_checked_ms;
	atomic_bool blocked_news; /* something was: look at once */

	pthread_mutex_t verifiers_lock;
	struct ca_verifier *verifiers[ISSUANCE_VERIFIERS_KEPT];
	size_t verifier_count;

	_Atomic size_t depth; /* items taken in and not ended */
};

/* Carries one batch through; each item is ended, or put off as busy (issuance_put_off). */
void round_run(struct issuance *issuance);
/* Tries to close abandoned intents. */
MUST_USE enum status round_close_abandoned(struct issuance *issuance, struct err *err);

/*
 * Record: certificates, intents, audit, in one transaction; notes in the slots what was replaced. On
 * failure nothing of it is to be released.
 */
MUST_USE enum status record_items(struct app *app, struct round *round, const size_t *slots,
	size_t count, struct err *err);

/* Ends an item with its status, err when not OK. */
void issuance_end(struct issuance *issuance, struct issuance_item *item, enum status status,
	const struct err *err);
void issuance_put_off(struct issuance *issuance, struct issuance_item *item);

/* signer_link_greet's: tells a fresh signer all blocked keys. */
enum status blocklist_greet(void *issuance, struct ca_signer *signer, struct err *err);
/* Tells the signer what was blocked since; looks at most once a second, unless there is news. */
MUST_USE enum status blocklist_refresh(struct issuance *issuance, struct ca_signer *signer,
	struct err *err);

#endif
