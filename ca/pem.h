/*
 * ca/pem.h - textual encoding (RFC 7468): base64 between BEGIN and END lines. White space is allowed
 * around blocks and between base64 digits; padding must be there and unused bits zero. Headers inside
 * of a block (RFC 1421) are refused.
 */
#ifndef CA_PEM_H
#define CA_PEM_H

#include "base/bytes.h"
#include "base/err.h"

#define PEM_LABEL_BYTES 64

/* Appends a block; the caller has set out's limit and frees it. */
MUST_USE enum status ca_pem_encode(struct buf *out, const char *label, struct view der, struct err *err);
/* Exactly one block of a label, white space around it allowed; ERR_ARGUMENT pem_malformed. On OK the
 * caller frees out. */
MUST_USE enum status ca_pem_decode(struct bytes *out, const char *label, struct view pem,
	struct err *err);
/* Calls block() for each block of any label; text outside blocks is skipped. Stops at the first
 * status that is not OK. */
MUST_USE enum status ca_pem_each(struct view pem,
	enum status (*block)(void *arg, const char *label, struct view der, struct err *err), void *arg,
	struct err *err);

/* In two steps, without allocation: label and base64 of exactly one block … */
MUST_USE enum status ca_pem_one(struct view pem, struct view *label, struct view *body,
	struct err *err);
/* … and the octets of such a body. ERR_TOO_LARGE (pem_too_large) above capacity. */
MUST_USE enum status ca_pem_body(uint8_t *out, size_t capacity, size_t *len, struct view body,
	struct err *err);

#endif
