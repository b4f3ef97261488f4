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

static void
leaf_hash(uint8_t out[32], struct view leaf)
{
	static const uint8_t prefix = 0x00;

	ca_blake2b_parts(out, (const struct view[]){ { &prefix, 1 }, leaf }, 2);
}

static void
node_hash(uint8_t out[32], const uint8_t left[32], const uint8_t right[32])
{
	static const uint8_t prefix = 0x01;

	ca_blake2b_parts(out, (const struct view[]){ { &prefix, 1 }, { left, 32 }, { right, 32 } }, 3);
}

/* left becomes the tree over both; what stands beside the followed leaf's is a step of its path. */
static void
join(struct ca_merkle *tree, struct ca_subtree *left, const struct ca_subtree *right)
{
	if (left->followed || right->followed) {
		assert(tree->path_len < COUNT_OF(tree->path));
		memcpy(tree->path[tree->path_len++], left->followed ? right->hash : left->hash, 32);
	}
	node_hash(left->hash, left->hash, right->hash);
	left->height++;
	left->followed = left->followed || right->followed;
}

void
ca_merkle_follow(struct ca_merkle *tree, uint64_t index)
{
	tree->following = true;
	tree->followed_index = index;
}

/*
 * RFC 9162 2.1.1 splits at the largest power of two below n. From the left that means: whole subtrees
 * of one height join as soon as there are two; what remains at the end joins from the right.
 */
void
ca_merkle_add(struct ca_merkle *tree, struct view leaf)
{
	struct ca_subtree *top;

	assert(tree->depth < COUNT_OF(tree->stack));
	top = &tree->stack[tree->depth++];
	leaf_hash(top->hash, leaf);
	top->height = 0;
	top->followed = tree->following && tree->count == tree->followed_index;
	tree->count++;
	while (tree->depth > 1 && top[-1].height == top->height) {
		join(tree, top - 1, top);
		top--;
		tree->depth--;
	}
}

void
ca_merkle_end(struct ca_merkle *tree, uint8_t root[32])
{
	if (tree->depth == 0) {
		ca_blake2b(root, (struct view){ NULL, 0 });
		return;
	}
	for (; tree->depth > 1; tree->depth--)
		join(tree, &tree->stack[tree->depth - 2], &tree->stack[tree->depth - 1]);
	memcpy(root, tree->stack[0].hash, 32);
}

enum status
ca_merkle_root(uint8_t out[32], const struct view *leaves, size_t count, struct err *err)
{
	struct ca_merkle tree = { .depth = 0 };

	(void)err; /* nothing here can fail; callers need not know */
	for (size_t i = 0; i < count; i++)
		ca_merkle_add(&tree, leaves[i]);
	ca_merkle_end(&tree, out);
	return OK;
}

bool
ca_merkle_climb(uint8_t root[32], struct view leaf, uint64_t index, uint64_t count,
	const uint8_t (*path)[32], size_t path_len)
{
	uint64_t last = count - 1;

	if (index >= count)
		return false;
	leaf_hash(root, leaf);
	for (size_t i = 0; i < path_len; i++) {
		if (last == 0)
			return false;
		if ((index & 1) == 1 || index == last) {
			node_hash(root, path[i], root);
			while ((index & 1) == 0 && index != 0) {
				index >>= 1;
				last >>= 1;
			}
		} else {
			node_hash(root, root, path[i]);
		}
		index >>= 1;
		last >>= 1;
	}
	return last == 0;
}
