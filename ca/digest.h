/* ca/digest.h - SHA-256 (FIPS 180-4), BLAKE2b-256 (RFC 7693), and the audit log's Merkle root. */
#ifndef CA_DIGEST_H
#define CA_DIGEST_H

#include <stdbool.h>
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

/*
 * The same of leaves that come one by one, with the inclusion path (RFC 9162 2.1.3) of one of them. Memory
 * does not grow with the leaves. Zero-initialise; ca_merkle_follow, before the first leaf, names the one.
 */
#define CA_MERKLE_PATH_MAX 64
struct ca_merkle {
	struct ca_subtree { /* over 2^height leaves; heights fall strictly, so 64 hold any number */
		uint8_t hash[32];
		unsigned height;
		bool followed; /* the leaf is in it */
	} stack[64];
	size_t depth;
	uint64_t count; /* of leaves */
	bool following;
	uint64_t followed_index;
	uint8_t path[CA_MERKLE_PATH_MAX][32]; /* siblings, from the leaf up; whole after ca_merkle_end */
	size_t path_len;
};
void ca_merkle_follow(struct ca_merkle *tree, uint64_t index);
void ca_merkle_add(struct ca_merkle *tree, struct view leaf);
void ca_merkle_end(struct ca_merkle *tree, uint8_t root[32]); /* once */
/*
 * RFC 9162 2.1.3.2: the root to which a path leads from the leaf at index of count. False: no such tree
 * has a path of that length there.
 */
MUST_USE bool ca_merkle_climb(uint8_t root[32], struct view leaf, uint64_t index, uint64_t count,
	const uint8_t (*path)[32], size_t path_len);

#endif
