/*
 * ca/crl.h - certificate revocation lists, version 2 (RFC 5280 section 5), as DER of our own making:
 * full lists, shards (5.2.5) and deltas (5.2.4). A list is begun, filled entry by entry in the order of
 * serials, and signed once; it is read and compared entry by entry as well. Memory does not grow with the
 * list: what is many lies in piles (base/pile.h). Where entries come from and where lists go is not this
 * module's affair. Times are seconds since the epoch, UTC. One thread at a time per object.
 */
#ifndef CA_CRL_H
#define CA_CRL_H

#include "base/bytes.h"
#include "base/err.h"
#include "base/pile.h"
#include "base/serial.h"
#include "ca/signer.h"

/* Lists and entries that are shorter than that stay in memory. */
#define CRL_MEMORY_MAX_BYTES ((size_t)64 << 10)
/* 5.3.1: on a delta alone: no longer on hold, or expired. */
#define CRL_REASON_REMOVED 8

struct ca_crl;

struct ca_crl_head {
	const char *ca_id;
	struct view issuer_certificate; /* DER: issuer name, AKI, signature algorithm come from it */
	uint64_t number;                /* 5.2.3: must grow from list to list of one scope */
	int64_t this_update_s, next_update_s;
	const char *distribution_point; /* URL for a critical IDP (5.2.5), or NULL: the full list */
	const char *freshest;           /* 5.2.6: URL of the delta, on a full list; or NULL */
	bool delta;                     /* 5.2.4: since the full list base_number */
	uint64_t base_number;
};

/* dir: where the entries lie while they are many; borrowed. */
MUST_USE enum status ca_crl_begin(struct ca_crl **out, const struct ca_crl_head *head, const char *dir,
	struct err *err);
/* reason as in 5.3.1; 0 (unspecified) is left out, as the standard asks. */
MUST_USE enum status ca_crl_add(struct ca_crl *crl, const struct serial *serial, int64_t revoked_at_s,
	int reason, struct err *err);
/*
 * Signs through signer and writes the list to out, an empty pile, which is closed then. sha256 is of
 * all its octets. Entries may be none.
 */
MUST_USE enum status ca_crl_sign(struct ca_crl *crl, struct ca_signer *signer, struct pile *out,
	uint8_t sha256[32], struct err *err);
uint64_t ca_crl_entry_count(const struct ca_crl *crl);
/*
 * While entries are added: how many octets of them can be read already, for who stores them meanwhile; len of
 * them from at. In the signed list they are the same behind the first ca_crl_front_bytes.
 */
uint64_t ca_crl_ready_bytes(const struct ca_crl *crl);
MUST_USE enum status ca_crl_ready_read(const struct ca_crl *crl, uint64_t at, void *out, size_t len,
	struct err *err);
uint64_t ca_crl_front_bytes(const struct ca_crl *crl);
void ca_crl_free(struct ca_crl *crl);

/* The next entry of the contents of a revokedCertificates; *more false at the end. */
struct ca_crl_entry { struct view serial; int64_t revoked_at_s; int reason; };
MUST_USE enum status ca_crl_next(struct view *revoked, struct ca_crl_entry *out, bool *more,
	struct err *err);

/* Reads a list from a closed pile, which it borrows. ERR_ARGUMENT crl_malformed. */
struct ca_crl_reader;
typedef struct ca_crl_reader ca_crl_reader;
struct ca_crl_info {
	uint64_t number;
	int64_t this_update_s, next_update_s;
	bool delta;
	uint64_t base_number; /* of a delta */
};
MUST_USE enum status ca_crl_reader_new(struct ca_crl_reader **out, const struct pile *pile,
	struct err *err);
const struct ca_crl_info *ca_crl_reader_info(const struct ca_crl_reader *reader);
/* The next entry, good until the next call; *more false at the end. */
MUST_USE enum status ca_crl_reader_next(struct ca_crl_reader *reader, struct ca_crl_entry *out,
	bool *more, struct err *err);
void ca_crl_reader_free(struct ca_crl_reader *reader); /* NULL is welcome */
OWNER(ca_crl_reader, ca_crl_reader_free)

/*
 * Invariant 6, while a list is made: what the list before has and the next one has not, though it has not
 * expired (the month of a serial was not over at the thisUpdate of the list before), is lost. Both are in the
 * order of serials.
 */
enum ca_crl_gate_kind {
	/* For a full list or a shard: holds (and what a delta removed) may end without a word. */
	GATE_WHOLE = 1,
	/* For a delta, of the one before from the same base: holds become removeFromCRL. */
	GATE_DELTA,
	/* For a delta, of a full list: what it removes was on hold there, or not there at all. */
	GATE_REMOVED,
};
struct ca_crl_gate;
typedef struct ca_crl_gate ca_crl_gate;
/* Borrows the pile of the list before. */
MUST_USE enum status ca_crl_gate_new(struct ca_crl_gate **out, const struct pile *previous,
	enum ca_crl_gate_kind kind, struct err *err);
/* The next list has this entry. ERR_CONFLICT crl_lost_entry names the serial that is lost. */
MUST_USE enum status ca_crl_gate_pass(struct ca_crl_gate *gate, const struct serial *serial, int reason,
	struct err *err);
/* The next list has no more; the same failure. */
MUST_USE enum status ca_crl_gate_end(struct ca_crl_gate *gate, struct err *err);
void ca_crl_gate_free(struct ca_crl_gate *gate); /* NULL is welcome */
OWNER(ca_crl_gate, ca_crl_gate_free)

#endif
