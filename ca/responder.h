/*
 * ca/responder.h - the keys of the delegated OCSP responders (RFC 6960 4.2.2.2), as the signer holds
 * them: made in its process, in memory alone, and known to nobody else. A responder's certificate is
 * issued for such a key only (ca/signer_local.c), and such a key signs ResponseData only, once it is
 * certified and as long as that lasts, and only what ca/ocsp_check.h lets pass.
 *
 * A CA has up to RESPONDER_KEYS of them: the one in use and its successor. A new key takes the place of one
 * that was never certified, else of the one that ends first.
 *
 * Threads: struct ca_responders is shared, with a lock of its own; a struct ca_responder_signers belongs
 * to one thread.
 */
#ifndef CA_RESPONDER_H
#define CA_RESPONDER_H

#include "base/bytes.h"
#include "base/clock.h"
#include "base/err.h"
#include "ca/signer.h"

#define RESPONDER_KEYS 3

struct ca_responders;
typedef struct ca_responders ca_responders;
MUST_USE enum status ca_responders_new(struct ca_responders **out, const struct clock *clock,
	struct err *err);
void ca_responders_free(struct ca_responders *responders); /* NULL is welcome */
OWNER(ca_responders, ca_responders_free)

/* A CA that answers may speak of; its place is its number from 0 on, at most 8. Before the threads. */
MUST_USE enum status ca_responders_add_issuer(struct ca_responders *responders,
	struct view certificate, struct err *err);

/* Makes a key (P-256) for the CA at that place. On OK the caller owns *spki. */
MUST_USE enum status ca_responders_make(struct ca_responders *responders, size_t issuer,
	struct bytes *spki, struct err *err);
bool ca_responders_have(struct ca_responders *responders, size_t issuer,
	const uint8_t spki_sha256[32]);
/* That key now has a certificate with this end. A key that is not (any more) there is passed over. */
void ca_responders_certified(struct ca_responders *responders, size_t issuer,
	const uint8_t spki_sha256[32], int64_t not_after_s);

/* A thread's own copies of the keys. */
struct ca_responder_signers;
typedef struct ca_responder_signers ca_responder_signers;
MUST_USE enum status ca_responder_signers_new(struct ca_responder_signers **out,
	struct ca_responders *responders, struct err *err);
void ca_responder_signers_free(struct ca_responder_signers *signers); /* NULL is welcome */
OWNER(ca_responder_signers, ca_responder_signers_free)

/*
 * Checks item->data and signs it for the CA at that place. ERR_NOT_FOUND ocsp_key_unknown: no such key
 * (any more), or it has no certificate that is valid. ERR_ARGUMENT ocsp_*.
 */
MUST_USE enum status ca_responder_sign(struct ca_responder_signers *signers, size_t issuer,
	struct ca_ocsp_item *item, struct err *err);

#endif
