#include "ca/rsa.h"

#include <assert.h>
#include <endian.h>
#include <pthread.h>
#include <string.h>

#include "base/mem.h"
#include "ca/openssl.h"

/* ---- small factors ---- */

typedef unsigned __int128 u128;

#define SMALL_PRIMES 132
#define PRODUCTS_MAX 24
/* A word times what a power leaves, 64 times: no more than 128 bits. */
#define PRODUCT_BITS 58
#define MODULUS_WORDS (CA_RSA_MODULUS_MAX_BYTES / 8)

/*
 * The modulus is a sum of words, each times a power of 2^64: what is left of those powers is kept for
 * products of a few primes each, so that a product costs one sum and one division.
 */
static struct {
	struct small_prime {
		uint64_t prime;
		uint64_t inverse;  /* modulo 2^64 */
		uint64_t quotient; /* the largest that a multiple in 64 bits can have */
	} primes[SMALL_PRIMES];
	struct product {
		uint64_t product;
		size_t end; /* it is of the primes up to there, from the end of the one before */
		uint64_t powers[MODULUS_WORDS]; /* 2^(64 i) modulo product */
	} products[PRODUCTS_MAX];
	size_t product_count;
} small;
static pthread_once_t small_once = PTHREAD_ONCE_INIT;

static bool
is_prime(uint64_t odd, size_t below)
{
	for (size_t i = 0; i < below; i++)
		if (odd % small.primes[i].prime == 0)
			return false;
	return true;
}

/* Newton: each step doubles the bits that are right, and an odd number is its own inverse modulo 8. */
static uint64_t
inverse_of(uint64_t odd)
{
	uint64_t inverse = odd;

	for (int bits = 3; bits < 64; bits *= 2)
		inverse *= 2 - odd * inverse;
	return inverse;
}

static void
fill_primes(void)
{
	size_t count = 0;

	for (uint64_t odd = 3; odd <= CA_RSA_SMALL_PRIME_LAST; odd += 2) {
		if (!is_prime(odd, count))
			continue;
		assert(count < SMALL_PRIMES);
		small.primes[count++] =
			(struct small_prime){ odd, inverse_of(odd), UINT64_MAX / odd };
	}
	assert(count == SMALL_PRIMES);
}

static void
fill_powers(struct product *product)
{
	uint64_t power = 1;

	for (size_t i = 0; i < MODULUS_WORDS; i++) {
		product->powers[i] = power;
		power = (uint64_t)(((u128)power << 64) % product->product);
	}
}

static void
fill_small(void)
{
	struct product *product = small.products;

	fill_primes();
	product->product = 1;
	for (size_t i = 0; i < SMALL_PRIMES; i++) {
		uint64_t prime = small.primes[i].prime;

		if (product->product > (UINT64_C(1) << PRODUCT_BITS) / prime) {
			product++;
			assert(product < small.products + PRODUCTS_MAX);
			product->product = 1;
		}
		product->product *= prime;
		product->end = i + 1;
	}
	small.product_count = (size_t)(product - small.products) + 1;
	for (size_t i = 0; i < small.product_count; i++)
		fill_powers(&small.products[i]);
}

static uint64_t
word_at(const uint8_t *octets)
{
	uint64_t word;

	memcpy(&word, octets, sizeof(word));
	return be64toh(word);
}

static uint64_t
remainder_of(const uint64_t *words, size_t count, const struct product *product)
{
	u128 sum = 0;

	for (size_t i = 0; i < count; i++)
		sum += (u128)words[i] * product->powers[i];
	return (uint64_t)(sum % product->product);
}

bool
ca_rsa_has_small_factor(struct view modulus)
{
	uint64_t words[MODULUS_WORDS]; /* the least significant first */
	size_t count = modulus.len / sizeof(*words), p = 0;

	assert(modulus.len % sizeof(*words) == 0 && modulus.len <= sizeof(words));
	(void)pthread_once(&small_once, fill_small);
	for (size_t i = 0; i < count; i++)
		words[i] = word_at(modulus.data + modulus.len - (i + 1) * sizeof(*words));
	for (size_t i = 0; i < small.product_count; i++) {
		uint64_t left = remainder_of(words, count, &small.products[i]);

		/* Times the inverse, multiples become their quotients and all others become more. */
		for (; p < small.products[i].end; p++)
			if (left * small.primes[p].inverse <= small.primes[p].quotient)
				return true;
	}
	return false;
}

/* ---- signatures ---- */

struct ca_rsa {
	BN_CTX *ctx;
	BN_MONT_CTX *montgomery;
	BIGNUM *modulus, *signature, *base, *power;
};

enum status
ca_rsa_new(struct ca_rsa **out, struct err *err)
{
	own(ca_rsa) rsa = mem_zalloc(sizeof(*rsa));

	if (rsa == NULL)
		return err_memory(err);
	rsa->ctx = BN_CTX_new();
	rsa->montgomery = BN_MONT_CTX_new();
	rsa->modulus = BN_new();
	rsa->signature = BN_new();
	rsa->base = BN_new();
	rsa->power = BN_new();
	if (rsa->ctx == NULL || rsa->montgomery == NULL || rsa->modulus == NULL ||
	    rsa->signature == NULL || rsa->base == NULL || rsa->power == NULL)
		return err_openssl(err, "RSA: cannot make numbers");
	*out = give(rsa);
	return OK;
}

void
ca_rsa_free(struct ca_rsa *rsa)
{
	if (rsa == NULL)
		return;
	BN_free(rsa->modulus);
	BN_free(rsa->signature);
	BN_free(rsa->base);
	BN_free(rsa->power);
	BN_MONT_CTX_free(rsa->montgomery);
	BN_CTX_free(rsa->ctx);
	mem_free(rsa);
}

/*
 * RFC 8017 5.2.2, RSAVP1: power = signature^exponent mod modulus, from the exponent's highest bit down.
 * All but the last step is done on numbers that carry Montgomery's factor; the exponent is odd, so that the
 * last one multiplies by the signature, and by the plain one: that takes the factor away.
 */
static bool
raise(struct ca_rsa *rsa, uint64_t exponent)
{
	BIGNUM *power = rsa->power;
	BN_MONT_CTX *m = rsa->montgomery;

	if (!BN_MONT_CTX_set(m, rsa->modulus, rsa->ctx) ||
	    !BN_to_montgomery(rsa->base, rsa->signature, m, rsa->ctx) ||
	    BN_copy(power, rsa->base) == NULL)
		return false;
	for (int bit = 62 - __builtin_clzll(exponent); bit >= 0; bit--) {
		const BIGNUM *factor = bit == 0 ? rsa->signature : rsa->base;

		if (!BN_mod_mul_montgomery(power, power, power, m, rsa->ctx))
			return false;
		if ((exponent >> bit & 1) != 0 &&
		    !BN_mod_mul_montgomery(power, power, factor, m, rsa->ctx))
			return false;
	}
	return true;
}

/* RFC 8017 9.2 note 1: the DER of DigestInfo up to the digest. */
#define NIST_HASH "\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02" /* 2.16.840.1.101.3.4.2 */
static const struct {
	size_t digest_len;
	const char *octets;
} DIGEST_INFO[] = {
	{ 32, "\x30\x31\x30\x0d" NIST_HASH "\x01\x05\x00\x04\x20" },
	{ 48, "\x30\x41\x30\x0d" NIST_HASH "\x02\x05\x00\x04\x30" },
	{ 64, "\x30\x51\x30\x0d" NIST_HASH "\x03\x05\x00\x04\x40" },
};
#define DIGEST_INFO_BYTES 19

/* RFC 8017 9.2, EMSA-PKCS1-v1_5: 00 01 ff … ff 00 DigestInfo, there is one encoding and no other. */
static void
encode(uint8_t *out, size_t len, struct view digest)
{
	size_t tail = DIGEST_INFO_BYTES + digest.len, kind = 0;

	while (kind < COUNT_OF(DIGEST_INFO) && DIGEST_INFO[kind].digest_len != digest.len)
		kind++;
	assert(kind < COUNT_OF(DIGEST_INFO) && len >= tail + 11);
	memset(out, 0xff, len);
	out[0] = 0x00;
	out[1] = 0x01;
	out[len - tail - 1] = 0x00;
	memcpy(out + len - tail, DIGEST_INFO[kind].octets, DIGEST_INFO_BYTES);
	memcpy(out + len - digest.len, digest.data, digest.len);
}

static uint64_t
number_of(struct view octets)
{
	uint64_t number = 0;

	for (size_t i = 0; i < octets.len; i++)
		number = number << 8 | octets.data[i];
	return number;
}

enum status
ca_rsa_verify(struct ca_rsa *rsa, struct view modulus, struct view exponent, struct view digest,
	struct view signature, bool *holds, struct err *err)
{
	uint8_t want[CA_RSA_MODULUS_MAX_BYTES], found[CA_RSA_MODULUS_MAX_BYTES];
	uint64_t e = number_of(exponent);

	assert(modulus.len <= sizeof(want) && exponent.len <= CA_RSA_EXPONENT_MAX_BYTES && e > 1 &&
		(e & 1) != 0);
	*holds = false;
	if (signature.len != modulus.len) /* RFC 8017 8.2.2 step 1 */
		return OK;
	if (BN_bin2bn(modulus.data, (int)modulus.len, rsa->modulus) == NULL ||
	    BN_bin2bn(signature.data, (int)signature.len, rsa->signature) == NULL)
		return err_openssl(err, "RSA: cannot read numbers");
	if (BN_ucmp(rsa->signature, rsa->modulus) >= 0) /* RFC 8017 5.2.2 step 1 */
		return OK;
	if (!raise(rsa, e) || BN_bn2binpad(rsa->power, found, (int)modulus.len) < 0)
		return err_openssl(err, "RSA: cannot raise to a power");
	encode(want, modulus.len, digest);
	*holds = memcmp(want, found, modulus.len) == 0;
	return OK;
}
