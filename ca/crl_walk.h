/*
 * ca/crl_walk.h - reads a TBSCertList (RFC 5280 5.1.2) that comes in pieces, before it is signed:
 * every field is checked, nothing larger than one field is kept. What hashes the pieces is the
 * caller's.
 *
 * Refused, all ERR_ARGUMENT: crl_malformed (encoding, order of fields, unknown extensions, an empty
 * revokedCertificates), crl_version, crl_algorithm, crl_issuer, crl_times (thisUpdate in the future
 * or over an hour old; nextUpdate passed or over 31 days ahead), crl_serial (not of our form, or
 * not ascending), crl_reason (also removeFromCRL on what is no delta), crl_aki, crl_idp, crl_delta (the
 * delta indicator or freshestCRL where they are not to be, or a base after the delta), crl_shard (an
 * entry of another shard than the IDP's), crl_truncated.
 */
#ifndef CA_CRL_WALK_H
#define CA_CRL_WALK_H

#include "base/bytes.h"
#include "base/err.h"
#include "base/serial.h"
#include "ca/tbs.h"

#define CRL_SCOPE_SHARDS 256
#define CRL_SCOPE_ALL 256   /* the full list: no IDP */
#define CRL_SCOPE_DELTA 257 /* what changed since a full list */
#define CRL_SCOPE_COUNT 258

/* Longer than any issuer's name and extensions; entries have 51 octets at most. */
#define CRL_ELEMENT_MAX_BYTES 4096
/* Twenty million entries. */
#define CRL_TBS_MAX_BYTES (UINT64_C(1) << 30)

enum crl_walk_state {
	CRL_WALK_OUTER = 1,
	CRL_WALK_VERSION,
	CRL_WALK_ALGORITHM,
	CRL_WALK_ISSUER,
	CRL_WALK_THIS_UPDATE,
	CRL_WALK_NEXT_UPDATE,
	CRL_WALK_REVOKED,
	CRL_WALK_ENTRY,
	CRL_WALK_EXTENSIONS,
	CRL_WALK_DONE,
};

struct ca_crl_walk {
	/* Set by ca_crl_walk_begin; the issuer's texts are borrowed for as long as the walk. */
	struct ca_tbs_issuer issuer;
	const char *public_http_url;
	int64_t now_s;

	enum crl_walk_state state;
	uint64_t left;         /* of the TBSCertList */
	uint64_t entries_left; /* octets of revokedCertificates */
	uint8_t pending[CRL_ELEMENT_MAX_BYTES];
	size_t pending_len;
	struct serial last;
	uint64_t entries;
	uint8_t shard;      /* of the first entry … */
	bool shards_differ; /* … and whether another has another */
	bool removed;       /* an entry is removeFromCRL */
	bool has_idp, has_delta, has_freshest;

	/* Good once ca_crl_walk_end said OK. */
	uint64_t number;
	uint64_t base_number; /* of a delta */
	unsigned scope; /* a shard, CRL_SCOPE_ALL or CRL_SCOPE_DELTA */
};

void ca_crl_walk_begin(struct ca_crl_walk *walk, const struct ca_tbs_issuer *issuer,
	const char *public_http_url, int64_t now_s);
MUST_USE enum status ca_crl_walk_add(struct ca_crl_walk *walk, struct view piece, struct err *err);
MUST_USE enum status ca_crl_walk_end(struct ca_crl_walk *walk, struct err *err);

#endif
