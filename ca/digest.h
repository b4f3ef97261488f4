/* ca/digest.h - SHA-256 (FIPS 180-4), BLAKE2b-256 (RFC 7693), and the audit log's Merkle root. */
#ifndef CA_DIGEST_H
#define CA_DIGEST_H

#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

void ca_sha256(uint8_t out[32], struct view data);
/* The same of what comes in pieces: begin, add …, end. */
struct ca_sha256 {
	uint64_t state[16]; /* room for the library's own */
};
void ca_sha256_begin(struct ca_sha256 *hash);
void ca_sha256_add(struct ca_sha256 *hash, struct view piece);
void ca_sha256_end(struct ca_sha256 *hash, uint8_t out[32]);
void ca_blake2b(uint8_t out[32], struct view data);
/* BLAKE2b-256 of several pieces, as if they were one. */
void ca_blake2b_parts(uint8_t out[32], const struct view *parts, size_t count);
/*
 * Merkle root in the form of RFC 9162 2.1.1, with BLAKE2b-256: leaves are hashed with a leading 0x00,
 * nodes with 0x01. The root of no leaves is the hash of the empty string. No recursion.
 */
MUST_USE enum status ca_merkle_root(uint8_t out[32], const struct view *leaves, size_t count,
	struct err *err);

#endif
