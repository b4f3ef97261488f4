#include "tests/unit/ca/files.h"

#include "ca/digest.h"

static void
assert_hex(const uint8_t hash[32], const char *want)
{
	char text[65];

	hex_encode(text, hash, 32);
	assert_string_equal(text, want);
}

/* FIPS 180-4, examples of NIST's CSRC; the long one is a million "a". */
static void
sha256_gives_the_standard_s_examples(void **state)
{
	static uint8_t million[1000000];
	uint8_t hash[32];

	(void)state;
	ca_sha256(hash, (struct view){ NULL, 0 });
	assert_hex(hash, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
	ca_sha256(hash, view_text("abc"));
	assert_hex(hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	ca_sha256(hash, view_text("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"));
	assert_hex(hash, "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
	memset(million, 'a', sizeof(million));
	ca_sha256(hash, (struct view){ million, sizeof(million) });
	assert_hex(hash, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

/* Values of an independent implementation (Python's hashlib, digest_size=32). */
static void
blake2b_gives_known_values_in_one_piece_or_many(void **state)
{
	const struct view parts[] = { view_text("a"), { NULL, 0 }, view_text("bc") };
	uint8_t hash[32];

	(void)state;
	ca_blake2b(hash, (struct view){ NULL, 0 });
	assert_hex(hash, "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8");
	ca_blake2b(hash, view_text("abc"));
	assert_hex(hash, "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319");
	ca_blake2b_parts(hash, parts, COUNT_OF(parts));
	assert_hex(hash, "bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319");
	ca_blake2b_parts(hash, NULL, 0);
	assert_hex(hash, "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8");
}

/* RFC 9162 2.1.1 word for word, which recurses. */
static void
merkle_by_the_book(uint8_t out[32], const struct view *leaves, size_t count)
{
	uint8_t left[32], right[32];
	size_t k = 1;

	if (count == 0) {
		ca_blake2b(out, (struct view){ NULL, 0 });
		return;
	}
	if (count == 1) {
		ca_blake2b_parts(
			out, (const struct view[]){ { (const uint8_t *)"\x00", 1 }, leaves[0] }, 2);
		return;
	}
	while (k * 2 < count)
		k *= 2;
	merkle_by_the_book(left, leaves, k);
	merkle_by_the_book(right, leaves + k, count - k);
	ca_blake2b_parts(out, (const struct view[]){ { (const uint8_t *)"\x01", 1 }, { left, 32 },
		{ right, 32 } }, 3);
}

static void
the_merkle_root_is_that_of_the_rfc(void **state)
{
	static char texts[70][8];
	struct view leaves[70];
	uint8_t root[32], want[32];
	struct err err;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(leaves); i++) {
		(void)snprintf(texts[i], sizeof(texts[i]), "%zu", i * i);
		leaves[i] = view_text(texts[i]);
	}
	for (size_t count = 0; count <= COUNT_OF(leaves); count++) {
		assert_ok(ca_merkle_root(root, leaves, count, &err));
		merkle_by_the_book(want, leaves, count);
		assert_memory_equal(root, want, 32);
	}
}

/* Each leaf's path leads to the root, and to no other; the tree in pieces is the tree. */
static void
a_path_leads_to_the_root(void **state)
{
	static char texts[35][8];
	struct view leaves[35];

	(void)state;
	for (size_t i = 0; i < COUNT_OF(leaves); i++) {
		(void)snprintf(texts[i], sizeof(texts[i]), "%zu", i * i);
		leaves[i] = view_text(texts[i]);
	}
	for (size_t count = 1; count <= COUNT_OF(leaves); count++) {
		uint8_t root[32], found[32];

		merkle_by_the_book(root, leaves, count);
		for (size_t at = 0; at < count; at++) {
			struct ca_merkle tree = { .depth = 0 };

			ca_merkle_follow(&tree, at);
			for (size_t i = 0; i < count; i++)
				ca_merkle_add(&tree, leaves[i]);
			ca_merkle_end(&tree, found);
			assert_memory_equal(found, root, 32);
			assert_true(ca_merkle_climb(found, leaves[at], at, count, tree.path, tree.path_len));
			assert_memory_equal(found, root, 32);
			assert_true(ca_merkle_climb(found, view_text("x"), at, count, tree.path,
				tree.path_len));
			assert_memory_not_equal(found, root, 32);
			assert_false(ca_merkle_climb(found, leaves[at], count, count, tree.path,
				tree.path_len));
			assert_false(ca_merkle_climb(found, leaves[at], at, count, tree.path,
				tree.path_len + 1));
			if (count > 1)
				assert_false(ca_merkle_climb(found, leaves[at], at, count, tree.path,
					tree.path_len - 1));
		}
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sha256_gives_the_standard_s_examples),
		cmocka_unit_test(blake2b_gives_known_values_in_one_piece_or_many),
		cmocka_unit_test(the_merkle_root_is_that_of_the_rfc),
		cmocka_unit_test(a_path_leads_to_the_root),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
