#include "tests/unit/ca/files.h"

#include <openssl/bn.h>
#include <openssl/evp.h>
#include <openssl/rsa.h>

#include "base/mem.h"
#include "ca/der.h"
#include "ca/rsa.h"
#include "ca/secret.h"
#include "ca/spki.h"

static struct ca_rsa *rsa;
static struct ca_verifier *verifier;
static EVP_PKEY *key;
static BIGNUM *n; /* its modulus */

static int
set_up(void **state)
{
	struct err err;

	(void)state;
	key = EVP_RSA_gen(2048);
	return key == NULL || !EVP_PKEY_get_bn_param(key, "n", &n) || ca_init(&err) != OK ||
		ca_rsa_new(&rsa, &err) != OK || ca_verifier_new(&verifier, &err) != OK;
}

static int
tear_down(void **state)
{
	(void)state;
	ca_rsa_free(rsa);
	ca_rsa_free(NULL);
	ca_verifier_free(verifier);
	EVP_PKEY_free(key);
	BN_free(n);
	return 0;
}

/* ---- the modulus ---- */

static bool
is_small_prime(BN_ULONG odd)
{
	for (BN_ULONG by = 3; by * by <= odd; by += 2)
		if (odd % by == 0)
			return false;
	return odd >= 3;
}

/* Prime by prime, which ca_rsa_has_small_factor does by products of them. */
static bool
has_small_factor(const BIGNUM *number)
{
	for (BN_ULONG odd = 3; odd <= CA_RSA_SMALL_PRIME_LAST; odd += 2)
		if (is_small_prime(odd) && BN_mod_word(number, odd) == 0)
			return true;
	return false;
}

static void
agrees(const BIGNUM *number, int bits, bool want)
{
	uint8_t octets[CA_RSA_MODULUS_MAX_BYTES];

	assert_int_equal(BN_bn2binpad(number, octets, bits / 8), bits / 8);
	if (ca_rsa_has_small_factor((struct view){ octets, (size_t)bits / 8 }) != want) {
		char *text = BN_bn2hex(number);

		fail_msg("%s: a small factor: %d wanted", text, want);
	}
}

/* An odd number of so many bits that factor divides, and of the small primes no other. */
static void
only_factor(BIGNUM *out, int bits, BN_ULONG factor)
{
	BIGNUM *rest = BN_new();

	do {
		assert_true(BN_rand(out, bits, BN_RAND_TOP_TWO, BN_RAND_BOTTOM_ODD));
		assert_true(BN_sub_word(out, BN_mod_word(out, factor)));
		if (BN_is_odd(out) == 0)
			assert_true(BN_add_word(out, factor));
		assert_non_null(BN_copy(rest, out));
		while (BN_mod_word(rest, factor) == 0)
			(void)BN_div_word(rest, factor);
	} while (has_small_factor(rest));
	BN_free(rest);
}

static void
a_factor_is_found_if_it_is_small(void **state)
{
	static const int SIZES[] = { 2048, 3072, 4096 };
	BIGNUM *number = BN_new();

	(void)state;
	for (size_t i = 0; i < COUNT_OF(SIZES); i++) {
		int bits = SIZES[i];

		for (int round = 0; round < 300; round++) {
			assert_true(BN_rand(number, bits, BN_RAND_TOP_ONE, BN_RAND_BOTTOM_ODD));
			agrees(number, bits, has_small_factor(number));
		}
		for (BN_ULONG odd = 3; odd < 800; odd += 2) {
			if (!is_small_prime(odd))
				continue;
			/* A multiple with whatever other factors, then those that are large alone. */
			assert_true(BN_rand(number, bits - 1, BN_RAND_TOP_TWO, BN_RAND_BOTTOM_ODD));
			assert_true(BN_sub_word(number, BN_mod_word(number, odd)));
			if (BN_is_odd(number) == 0)
				assert_true(BN_add_word(number, odd));
			agrees(number, bits, has_small_factor(number));
		}
		assert_true(BN_set_word(number, 0) && BN_set_bit(number, bits - 1));
		agrees(number, bits, false);
		for (int bit = 0; bit < bits; bit++) /* 2^bits - 1: all words at their largest */
			assert_true(BN_set_bit(number, bit));
		agrees(number, bits, true);
	}
	/* The first and the last of the table, and the first behind it. */
	only_factor(number, 2048, 3);
	agrees(number, 2048, true);
	only_factor(number, 2048, 751);
	agrees(number, 2048, true);
	only_factor(number, 2048, 757); /* nobody looks for it */
	agrees(number, 2048, false);
	BN_free(number);
}

static enum status
check_spki(const BIGNUM *modulus, const BIGNUM *exponent, struct err *err)
{
	own_struct(der_writer) w, inner;
	uint8_t octets[1024];
	enum ca_key_type type;

	der_writer_init(&inner, 4096);
	der_open(&inner, DER_SEQUENCE);
	der_put_unsigned(&inner, (struct view){ octets, (size_t)BN_bn2bin(modulus, octets) });
	der_put_unsigned(&inner, (struct view){ octets, (size_t)BN_bn2bin(exponent, octets) });
	der_close(&inner);
	der_writer_init(&w, 4096);
	der_open(&w, DER_SEQUENCE);
	der_open(&w, DER_SEQUENCE);
	der_put_oid(&w, "1.2.840.113549.1.1.1");
	der_put_null(&w);
	der_close(&w);
	der_put_bits(&w, buf_view(&inner.buf));
	der_close(&w);
	assert_int_equal(der_finish(&w, err), OK);
	return ca_spki_check(verifier, buf_view(&w.buf), &type, err);
}

static void
a_key_is_judged_by_its_numbers(void **state)
{
	static const struct {
		int bits;
		BN_ULONG factor;      /* 0: none that is small */
		const char *exponent; /* hexadecimal */
		const char *want;     /* NULL: sound */
	} CASES[] = {
		{ 2047, 0, "010001", "csr_key_too_small" },
		{ 2048, 0, "010001", NULL },
		{ 2049, 0, "010001", "csr_key_type" },
		{ 3071, 0, "010001", "csr_key_type" },
		{ 3072, 0, "010001", NULL },
		{ 4095, 0, "010001", "csr_key_type" },
		{ 4096, 0, "010001", NULL },
		{ 4097, 0, "010001", "csr_key_type" },
		{ 2048, 2, "010001", "csr_key_invalid" },
		{ 2048, 3, "010001", "csr_key_invalid" },
		{ 4096, 751, "010001", "csr_key_invalid" },
		{ 4096, 757, "010001", NULL },
		{ 2048, 0, "00", "csr_key_invalid" },
		{ 2048, 0, "01", "csr_key_invalid" },
		{ 2048, 0, "03", "csr_key_invalid" },
		{ 2048, 0, "ffff", "csr_key_invalid" },
		{ 2048, 0, "010000", "csr_key_invalid" },
		{ 2048, 0, "010002", "csr_key_invalid" },
		{ 2048, 0, "010003", NULL },
		{ 2048, 0, "ffffffffffffffff", NULL },
		{ 2048, 0, "fffffffffffffffe", "csr_key_invalid" },
		{ 2048, 0, "010000000000000001", "csr_key_invalid" },
	};
	BIGNUM *modulus = BN_new(), *exponent = NULL;
	struct err err;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		do {
			assert_true(BN_rand(modulus, CASES[i].bits, BN_RAND_TOP_TWO,
				BN_RAND_BOTTOM_ODD));
			if (CASES[i].factor != 0)
				assert_true(BN_sub_word(
					modulus, BN_mod_word(modulus, CASES[i].factor)));
		} while (CASES[i].factor != 2 && (BN_is_odd(modulus) == 0 ||
			has_small_factor(modulus) !=
				(CASES[i].factor != 0 && CASES[i].factor < 752)));
		assert_true(BN_hex2bn(&exponent, CASES[i].exponent));
		err.code[0] = '\0';
		if (CASES[i].want == NULL)
			assert_ok(check_spki(modulus, exponent, &err));
		else if (check_spki(modulus, exponent, &err) != ERR_ARGUMENT ||
			strcmp(err.code, CASES[i].want) != 0)
			fail_msg("case %zu: %s wanted, %s found", i, CASES[i].want, err.code);
	}
	BN_free(modulus);
	BN_free(exponent);
}

/* ---- signatures ---- */

/* What the key makes of an encoded message as it stands. */
static void
sign_raw(uint8_t signature[256], const uint8_t encoded[256])
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(key, NULL);
	size_t len = 256;

	assert_true(EVP_PKEY_sign_init(ctx) > 0 &&
		EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_NO_PADDING) > 0 &&
		EVP_PKEY_sign(ctx, signature, &len, encoded, 256) > 0 && len == 256);
	EVP_PKEY_CTX_free(ctx);
}

static size_t
sign_digest(uint8_t signature[256], const EVP_MD *md, const uint8_t *digest)
{
	EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(key, NULL);
	size_t len = 256;

	assert_true(EVP_PKEY_sign_init(ctx) > 0 && EVP_PKEY_CTX_set_signature_md(ctx, md) > 0 &&
		EVP_PKEY_sign(ctx, signature, &len, digest, (size_t)EVP_MD_get_size(md)) > 0);
	EVP_PKEY_CTX_free(ctx);
	return len;
}

static bool
holds(const uint8_t *digest, size_t digest_len, const uint8_t *signature, size_t len)
{
	static const uint8_t F4[] = { 1, 0, 1 };
	uint8_t modulus[256];
	bool found = true;
	struct err err;

	assert_int_equal(BN_bn2binpad(n, modulus, sizeof(modulus)), 256);
	assert_ok(ca_rsa_verify(rsa, (struct view){ modulus, 256 }, (struct view){ F4, 3 },
		(struct view){ digest, digest_len }, (struct view){ signature, len }, &found,
		&err));
	return found;
}

static void
what_openssl_signs_holds_and_nothing_else(void **state)
{
	const EVP_MD *const HASHES[] = { EVP_sha256(), EVP_sha384(), EVP_sha512() };
	uint8_t signature[257] = { 0 }, longer[257] = { 0 };
	uint8_t digest[64];

	(void)state;
	for (size_t i = 0; i < COUNT_OF(HASHES); i++) {
		size_t len = (size_t)EVP_MD_get_size(HASHES[i]);

		memset(digest, (int)i + 1, sizeof(digest));
		assert_int_equal(sign_digest(signature, HASHES[i], digest), 256);
		assert_true(holds(digest, len, signature, 256));
		assert_false(holds(digest, len, signature, 255));
		assert_false(holds(digest, len, signature, 257));
		assert_false(holds(digest, len, signature + 1, 256));
		memcpy(longer + 1, signature, 256); /* the same number */
		assert_false(holds(digest, len, longer, 257));
		digest[0] ^= 1;
		assert_false(holds(digest, len, signature, 256));
		digest[0] ^= 1;
		signature[255] ^= 1;
		assert_false(holds(digest, len, signature, 256));
	}
	memset(signature, 0, sizeof(signature));
	assert_false(holds(digest, 32, signature, 256));
	signature[255] = 1;
	assert_false(holds(digest, 32, signature, 256));
}

/* The same number modulo the modulus is not the same signature. */
static void
a_signature_is_below_its_modulus(void **state)
{
	BIGNUM *more = BN_new();
	uint8_t signature[256], digest[32] = { 0 };
	int tries = 0;

	(void)state;
	do {
		digest[0]++;
		(void)sign_digest(signature, EVP_sha256(), digest);
		assert_true(BN_bin2bn(signature, 256, more) != NULL && BN_add(more, more, n));
		assert_true(++tries < 250);
	} while (BN_num_bits(more) > 2048);
	assert_true(holds(digest, 32, signature, 256));
	assert_int_equal(BN_bn2binpad(more, signature, 256), 256);
	assert_false(holds(digest, 32, signature, 256));
	assert_int_equal(BN_bn2binpad(n, signature, 256), 256);
	assert_false(holds(digest, 32, signature, 256));
	BN_free(more);
}

/* RFC 8017 9.2: a forger who is let off with less than the whole encoding needs no key. */
static void
the_whole_encoding_counts(void **state)
{
	static const uint8_t INFO[] = { 0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01,
		0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00, 0x04, 0x20 };
	static const struct {
		size_t at;
		uint8_t octet;
	} CHANGES[] = {
		{ 1, 0x02 }, { 1, 0x00 }, { 2, 0xfe }, { 100, 0x00 }, { 203, 0xfe },
		{ 204, 0xff }, { 204, 0x01 }, { 206, 0x30 }, { 219, 0x02 }, { 221, 0x01 }, { 255, 0x01 },
	};
	uint8_t encoded[256], changed[256], signature[256], digest[32] = { 0 };

	(void)state;
	memset(encoded, 0xff, sizeof(encoded));
	encoded[0] = 0x00;
	encoded[1] = 0x01;
	encoded[256 - 32 - sizeof(INFO) - 1] = 0x00;
	memcpy(encoded + 256 - 32 - sizeof(INFO), INFO, sizeof(INFO));
	memset(encoded + 256 - 32, 0, 32);
	sign_raw(signature, encoded);
	assert_true(holds(digest, 32, signature, 256));
	for (size_t i = 0; i < COUNT_OF(CHANGES); i++) {
		memcpy(changed, encoded, sizeof(changed));
		changed[CHANGES[i].at] = CHANGES[i].octet;
		sign_raw(signature, changed);
		assert_false(holds(digest, 32, signature, 256));
	}
	/* Less padding, and what comes behind is anybody's. */
	memset(changed, 0x5a, sizeof(changed));
	memcpy(changed, encoded, 10);
	memcpy(changed + 10, encoded + 204, 52);
	sign_raw(signature, changed);
	assert_false(holds(digest, 32, signature, 256));
}

static void
each_allocation_may_fail(void **state)
{
	struct ca_rsa *none = NULL;
	struct err err;
	int64_t at;

	(void)state;
	for (at = 0; at < 100; at++) {
		enum status status;
		bool reached;

		mem_fail_at(at);
		status = ca_rsa_new(&none, &err);
		reached = mem_failed();
		mem_fail_at(-1);
		if (!reached) {
			assert_int_equal(status, OK);
			ca_rsa_free(none);
			break;
		}
		assert_int_equal(status, ERR_UNAVAILABLE);
		assert_null(none);
	}
	assert_true(at >= 1 && at < 100);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_factor_is_found_if_it_is_small),
		cmocka_unit_test(a_key_is_judged_by_its_numbers),
		cmocka_unit_test(what_openssl_signs_holds_and_nothing_else),
		cmocka_unit_test(a_signature_is_below_its_modulus),
		cmocka_unit_test(the_whole_encoding_counts),
		cmocka_unit_test(each_allocation_may_fail),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
