/*
 * db/receipt.h - revocations of what a selection names: seen before, decided, carried out, proved.
 *
 * What a selection means is frozen into targets, one row each, in the transaction that decides (invariants
 * 5, 8). They are carried out page by page (server/jobs/revoke.c), each page with its audit record, its
 * outbox rows and the targets' outcome in one transaction, by whichever server gets the row's lock: what a
 * dead one left is taken up by the next. Which list shows a target first is noted by who publishes it
 * (migration 0018).
 */
#ifndef DB_RECEIPT_H
#define DB_RECEIPT_H

#include "db/certificate.h"
#include "db/crl.h"
#include "db/db.h"

/* A filter, and what only revocations ask for. Neither what is revoked nor what has expired is ever meant. */
struct db_selection {
	struct db_certificate_filter filter;
	const char *const *device_ids; /* of one of these; NULL: not asked for. Borrowed */
	size_t device_id_count;
	const uint8_t *spki_sha256;  /* of this public key; NULL: any. Borrowed */
	const char *attributes;      /* a JSON object of texts that the device has now; NULL: any. Borrowed */
};

/* The blast radius of a selection. */
struct db_blast_radius {
	int64_t certificates, devices, stations;
	/* Of the devices: left without a working certificate, or with another that works. */
	int64_t cut_off, keep_confirmed, keep_unconfirmed;
	int64_t seen_day, seen_week, seen_month, seen_before, seen_never; /* by IoT Core, the last time */
	int64_t lists, largest_list; /* shards that grow, and entries that the most growing one gets */
	int64_t entries;             /* that full list and delta get: what is held is on them already */
	bool everything;             /* no device's certificate is left out */
	struct db_blast_line { char key[DB_ID_BYTES]; int64_t count; } by_station[50], by_profile[20];
	size_t by_station_count, by_profile_count; /* the largest first; more may exist */
};
MUST_USE enum status db_selection_radius(struct db_tx *tx, const struct db_selection *selection,
	struct db_blast_radius *out, struct err *err);

#define DB_SELECTOR_BYTES ((size_t)72 * 1024)

enum bulk_state { BULK_UNSET = 0, BULK_WAITING, BULK_RUNNING, BULK_DONE, BULK_REJECTED, BULK_EXPIRED };
const char *bulk_state_name(enum bulk_state state);
MUST_USE bool bulk_state_parse(enum bulk_state *out, const char *name);

struct db_bulk {
	char revocation_id[33];
	enum bulk_state state;
	char actor[DB_ID_BYTES];
	char request_id[40];
	enum revocation_reason reason;
	char comment[257];
	char selector[DB_SELECTOR_BYTES]; /* JSON as it was asked */
	int64_t matched; /* targets */
	int64_t revoked, issued_until_s;
	struct db_cert_ref cursor; /* the last target that was carried out */
	int64_t created_at_s, finished_at_s; /* 0: not finished */
	/*
	 * A certificate may be recorded behind the decision's back with an earlier issued_at. So there
	 * is a second look at what was issued since again_from_s, the birth of what was under way.
	 */
	bool second_look;
	int64_t again_from_s;
	int64_t decide_until_s, decided_at_s; /* 0: nobody has to, has */
	char decided_by[DB_ID_BYTES];
	char decision[257];
	int64_t settled_at_s; /* 0: IoT Core is still looked at */
};

/*
 * Of bulk are taken: revocation_id, state, actor … issued_until_s, decide_until_s. One that is done is
 * finished now, and revoked what it matched.
 */
MUST_USE enum status db_bulk_create(struct db_tx *tx, const struct db_bulk *bulk, struct err *err);
/* Freezes what selection means now as targets; those that are there already stay. Adds to matched, where
 * there is a receipt already: who makes one freezes first. */
MUST_USE enum status db_bulk_freeze(struct db_tx *tx, const char *revocation_id,
	const struct db_selection *selection, int64_t *count, struct err *err);
MUST_USE enum status db_bulk_find(struct db_tx *tx, const char *revocation_id, struct db_bulk *out,
	struct err *err); /* ERR_NOT_FOUND revocation_unknown */
/* The newest first, before the place given (0, "": from the newest); without selectors. */
MUST_USE enum status db_bulk_list(struct db_tx *tx, enum bulk_state state, int64_t before_us,
	const char *before_id, size_t limit, struct db_bulk *out, int64_t *last_us, size_t *count,
	struct err *err);
/*
 * One running bulk, row-locked and not locked by another server; ERR_NOT_FOUND: none. One whose second
 * look is due only once all that was under way when it was asked for is recorded or given up.
 */
MUST_USE enum status db_bulk_next(struct db_tx *tx, struct db_bulk *out, struct err *err);
/* Moves the receipt on: revoked += revoked_now, the cursor (NULL: as it is), and done when finished. */
MUST_USE enum status db_bulk_advance(struct db_tx *tx, const char *revocation_id, int64_t revoked_now,
	const struct db_cert_ref *cursor, bool finished, struct err *err);
/* The first look is over; the second begins at its start. */
MUST_USE enum status db_bulk_look_again(struct db_tx *tx, const char *revocation_id, struct err *err);

/*
 * A second administrator's word on one that waits; into BULK_RUNNING or BULK_REJECTED. Locks the row.
 * Said again by the same one it is as it was (*changed false). ERR_NOT_FOUND revocation_unknown; ERR_CONFLICT
 * revocation_decided; ERR_DENIED approval_by_requester, requester_disabled.
 */
MUST_USE enum status db_bulk_decide(struct db_tx *tx, const char *revocation_id, enum bulk_state state,
	const char *by, const char *comment, bool *changed, struct err *err);
/* One that nobody decided in time is expired. *found false: none. */
MUST_USE enum status db_bulk_expire(struct db_tx *tx, char revocation_id[33], bool *found,
	struct err *err);

/* ---- targets ---- */

struct db_target {
	struct db_cert_ref ref;
	bool exists; /* its month was not dropped since */
	uint8_t sha256[DB_SHA256_BYTES];
	char device_id[DB_ID_BYTES];
	enum cert_status status;
	int64_t not_after_s;
	char outcome[16]; /* "": its turn has not come */
	int64_t done_at_us;
	int64_t revoked_at_s; /* 0: it is not revoked now */
	/* The shard that shows it: number 0 until it does. */
	int64_t list_number, listed_at_us;
	uint8_t list_sha256[DB_SHA256_BYTES];
};
/* Behind after (issuer_id 0: from the first), by issuer and serial. open: those whose turn has not come. */
MUST_USE enum status db_targets(struct db_tx *tx, const char *revocation_id,
	const struct db_cert_ref *after, bool open, size_t limit, struct db_target *out, size_t *count,
	struct err *err);
/* What became of them, by their outcome (new ones are put there); and the lists, locked by the revocation
 * itself, that have to show it. */
MUST_USE enum status db_targets_done(struct db_tx *tx, const char *revocation_id,
	const struct db_target *targets, size_t count, struct err *err);
struct db_outcomes {
	int64_t open, revoked, held, already_revoked, expired, superseded;
};
MUST_USE enum status db_targets_count(struct db_tx *tx, const char *revocation_id,
	struct db_outcomes *out, struct err *err);

/* ---- proof ---- */

struct db_receipt_list {
	int32_t issuer_id;
	int16_t scope;
	int64_t marked_at_us, done_at_us; /* done 0: not published yet */
	int64_t number;
	uint8_t sha256[DB_SHA256_BYTES];
};
/* All that have to show it: up to max, by issuer and scope. */
MUST_USE enum status db_receipt_lists(struct db_tx *tx, const char *revocation_id,
	struct db_receipt_list *out, size_t max, size_t *count, struct err *err);

struct db_receipt_site {
	char target[33];
	int64_t seen, done, read_back_at_s;
};
MUST_USE enum status db_receipt_sites(struct db_tx *tx, const char *revocation_id,
	struct db_receipt_site *out, size_t max, size_t *count, struct err *err);
/*
 * Looks at what IoT Core last said of the targets of one done receipt that is not settled, and settles it
 * when all is as it should be at all of targets. *found false: there is none behind after, which becomes the
 * one that was looked at.
 */
MUST_USE enum status db_receipt_look(struct db_tx *tx, const char *const *targets, size_t target_count,
	char after[33], bool *found, struct err *err);

/* ---- retention ---- */

/* Receipts that were finished before that time and that nobody has to look at any more. */
MUST_USE enum status db_retention_count_receipts(struct db_tx *tx, int64_t before_s, int64_t *count,
	struct err *err);
/*
 * Up to max targets of the oldest of these; *found false: there is none. *gone: it is gone as a whole, and
 * nobody saw it since its first target went.
 */
MUST_USE enum status db_retention_receipt(struct db_tx *tx, int64_t before_s, size_t max,
	char revocation_id[33], int64_t *certificates, bool *found, bool *gone, struct err *err);

#endif
