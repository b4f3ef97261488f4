/*
 * The low-level SHA-256 functions are deprecated in OpenSSL 3.0, but nothing else of it hashes without
 * allocating, fetching and taking locks, and so without being able to fail.
 */
#define OPENSSL_SUPPRESS_DEPRECATED

#include "ca/digest.h"

#include <assert.h>
#include <string.h>

#include <openssl/sha.h>
#include <sodium.h>

void
ca_sha256(uint8_t out[32], struct view data)
{
	SHA256_CTX ctx;

	(void)SHA256_Init(&ctx);
	(void)SHA256_Update(&ctx, data.data, data.len);
	(void)SHA256_Final(out, &ctx);
}

static_assert(sizeof(SHA256_CTX) <= sizeof(struct ca_sha256), "room for the state");

/* The state is copied in and out, for it is another type's; that is nothing beside a piece. */
void
ca_sha256_begin(struct ca_sha256 *hash)
{
	SHA256_CTX ctx;

	(void)SHA256_Init(&ctx);
	memcpy(hash->state, &ctx, sizeof(ctx));
}

void
ca_sha256_add(struct ca_sha256 *hash, struct view piece)
{
	SHA256_CTX ctx;

	memcpy(&ctx, hash->state, sizeof(ctx));
	(void)SHA256_Update(&ctx, piece.data, piece.len);
	memcpy(hash->state, &ctx, sizeof(ctx));
}

void
ca_sha256_end(struct ca_sha256 *hash, uint8_t out[32])
{
	SHA256_CTX ctx;

	memcpy(&ctx, hash->state, sizeof(ctx));
	(void)SHA256_Final(out, &ctx);
}

void
ca_blake2b(uint8_t out[32], struct view data)
{
	ca_blake2b_parts(out, &data, 1);
}

void
ca_blake2b_parts(uint8_t out[32], const struct view *parts, size_t count)
{
	crypto_generichash_state state;

	/* These return an error only for lengths that are out of range. */
	(void)crypto_generichash_init(&state, NULL, 0, 32);
	for (size_t i = 0; i < count; i++) {
		if (parts[i].len > 0)
			(void)crypto_generichash_update(&state, parts[i].data, parts[i].len);
	}
	(void)crypto_generichash_final(&state, out, 32);
}

/* A subtree over 2^height leaves. */
struct subtree {
	uint8_t hash[32];
	unsigned height;
};

static void
node_hash(uint8_t out[32], const uint8_t left[32], const uint8_t right[32])
{
	static const uint8_t prefix = 0x01;

	ca_blake2b_parts(out, (const struct view[]){ { &prefix, 1 }, { left, 32 }, { right, 32 } }, 3);
}

/*
 * RFC 9162 2.1.1 splits at the largest power of two below n. From the left that means: whole subtrees
 * of one height join as soon as there are two; what remains at the end joins from the right.
 */
enum status
ca_merkle_root(uint8_t out[32], const struct view *leaves, size_t count, struct err *err)
{
	static const uint8_t prefix = 0x00;
	struct subtree stack[64]; /* heights fall strictly, so 64 hold any size_t of leaves */
	size_t depth = 0;

	(void)err; /* nothing here can fail; callers need not know */
	if (count == 0) {
		ca_blake2b(out, (struct view){ NULL, 0 });
		return OK;
	}
	for (size_t i = 0; i < count; i++) {
		struct subtree leaf = { .height = 0 };

		ca_blake2b_parts(leaf.hash, (const struct view[]){ { &prefix, 1 }, leaves[i] }, 2);
		while (depth > 0 && stack[depth - 1].height == leaf.height) {
			node_hash(leaf.hash, stack[depth - 1].hash, leaf.hash);
			leaf.height++;
			depth--;
		}
		assert(depth < COUNT_OF(stack));
		stack[depth++] = leaf;
	}
	memcpy(out, stack[depth - 1].hash, 32);
	for (size_t i = depth - 1; i > 0; i--)
		node_hash(out, stack[i - 1].hash, out);
	return OK;
}
