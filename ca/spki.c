#include "ca/spki.h"

#include <stdbool.h>
#include <string.h>

#include <openssl/core_names.h>

#include "base/mem.h"
#include "ca/der.h"
#include "ca/openssl.h"
#include "ca/rsa.h"

#define MALFORMED "csr_malformed"

/* SEQUENCE { SEQUENCE { id-ecPublicKey, prime256v1 }, BIT STRING }, up to the point. */
static const uint8_t P256_PREFIX[] = {
	0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01,
	0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
};
#define P256_POINT_BYTES 65
#define P384_POINT_BYTES 97
#define ED25519_BYTES 32

#define OID_EC_PUBLIC_KEY "\x2a\x86\x48\xce\x3d\x02\x01"     /* 1.2.840.10045.2.1 */
#define OID_P256 "\x2a\x86\x48\xce\x3d\x03\x01\x07"          /* 1.2.840.10045.3.1.7 */
#define OID_P384 "\x2b\x81\x04\x00\x22"                      /* 1.3.132.0.34 */
#define OID_P192 "\x2a\x86\x48\xce\x3d\x03\x01\x01"          /* 1.2.840.10045.3.1.1 */
#define OID_P224 "\x2b\x81\x04\x00\x21"                      /* 1.3.132.0.33 */
#define OID_RSA "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01"       /* 1.2.840.113549.1.1.1 */
#define OID_ED25519 "\x2b\x65\x70"                           /* 1.3.101.112 */

enum { FAMILY_NONE = 0, FAMILY_EC, FAMILY_RSA, FAMILY_ED25519 };

/* What a key consists of; borrowed from the SPKI. */
struct parts {
	enum ca_key_type type;
	struct view point;             /* EC: 04 X Y; Ed25519: the 32 octets */
	struct view modulus, exponent; /* RSA: magnitudes */
};

static int
family_of(enum ca_key_type type)
{
	switch (type) {
	case KEY_EC_P256:
	case KEY_EC_P384:
		return FAMILY_EC;
	case KEY_RSA_2048:
	case KEY_RSA_3072:
	case KEY_RSA_4096:
		return FAMILY_RSA;
	case KEY_ED25519:
		return FAMILY_ED25519;
	}
	return FAMILY_NONE;
}

/* ---- reading ---- */

static enum status
read_ec(struct der *algorithm, struct view key, struct parts *out, struct err *err)
{
	struct view curve;
	size_t want;

	/* RFC 5480 2.1.1: a named curve. Explicit parameters are how forged curves get in. */
	if (!der_next_is(algorithm, DER_OID))
		return err_set(err, ERR_ARGUMENT, "csr_key_type",
			"public key: RFC 5480 2.1.1: a named curve wanted, other parameters found");
	TRY(der_oid(algorithm, "namedCurve", &curve, err));
	TRY(der_end(algorithm, "ECParameters", err));
	if (DER_OID_IS(curve, OID_P256)) {
		out->type = KEY_EC_P256;
		want = P256_POINT_BYTES;
	} else if (DER_OID_IS(curve, OID_P384)) {
		out->type = KEY_EC_P384;
		want = P384_POINT_BYTES;
	} else {
		char text[64];
		bool small = DER_OID_IS(curve, OID_P192) || DER_OID_IS(curve, OID_P224);

		der_oid_text(text, sizeof(text), curve);
		return err_set(err, ERR_ARGUMENT, small ? "csr_key_too_small" : "csr_key_type",
			"public key: curve P-256 or P-384 wanted, %s found", text);
	}
	if (key.len != want || key.data[0] != 0x04)
		return err_set(err, ERR_ARGUMENT, "csr_key_invalid",
			"public key: RFC 5480 2.2: an uncompressed point of %zu octets wanted, "
			"%zu octets%s found", want, key.len,
			key.len > 0 && (key.data[0] == 2 || key.data[0] == 3) ? " compressed" : "");
	out->point = key;
	return OK;
}

static size_t
bit_count(struct view magnitude)
{
	size_t bits = magnitude.len * 8;

	for (unsigned mask = 0x80; bits > 0 && (magnitude.data[0] & mask) == 0; mask >>= 1)
		bits--;
	return bits;
}

static enum status
check_rsa(const struct parts *key, enum ca_key_type *type, struct err *err)
{
	size_t bits = bit_count(key->modulus);

	if (bits < 2048)
		return err_set(err, ERR_ARGUMENT, "csr_key_too_small",
			"public key: RSA of at least 2048 bits wanted, %zu found", bits);
	switch (bits) {
	case 2048: *type = KEY_RSA_2048; break;
	case 3072: *type = KEY_RSA_3072; break;
	case 4096: *type = KEY_RSA_4096; break;
	default:
		return err_set(err, ERR_ARGUMENT, "csr_key_type",
			"public key: RSA of 2048, 3072 or 4096 bits wanted, %zu found", bits);
	}
	if ((key->modulus.data[key->modulus.len - 1] & 1) == 0 || ca_rsa_has_small_factor(key->modulus))
		return err_set(err, ERR_ARGUMENT, "csr_key_invalid",
			"public key: RSA modulus: a product of two large primes wanted, "
			"a small factor found");
	/* FIPS 186-5 5.4 (e): odd, above 2^16; over 64 bits only slows the verifier down. */
	if (key->exponent.len < 3 || key->exponent.len > CA_RSA_EXPONENT_MAX_BYTES ||
	    (key->exponent.data[key->exponent.len - 1] & 1) == 0)
		return err_set(err, ERR_ARGUMENT, "csr_key_invalid",
			"public key: RSA exponent: an odd number from 65537 to 2^64 wanted");
	return OK;
}

static enum status
read_rsa(struct der *algorithm, struct view key, struct parts *out, struct err *err)
{
	struct der outer = der_of(key, MALFORMED, "public key"), in;

	TRY(der_null(algorithm, "RFC 3279 2.3.1: parameters", err));
	TRY(der_end(algorithm, "parameters", err));
	TRY(der_enter(&outer, DER_SEQUENCE, "RSAPublicKey", &in, err));
	TRY(der_end(&outer, "RSAPublicKey", err));
	TRY(der_unsigned(&in, "modulus", &out->modulus, err));
	TRY(der_unsigned(&in, "publicExponent", &out->exponent, err));
	TRY(der_end(&in, "RSAPublicKey", err));
	return check_rsa(out, &out->type, err);
}

static enum status
read_ed25519(struct der *algorithm, struct view key, struct parts *out, struct err *err)
{
	TRY(der_end(algorithm, "RFC 8410 3: parameters", err));
	if (key.len != ED25519_BYTES)
		return err_set(err, ERR_ARGUMENT, "csr_key_invalid",
			"public key: RFC 8410 4: 32 octets wanted, %zu found", key.len);
	out->type = KEY_ED25519;
	out->point = key;
	return OK;
}

/* RFC 5280 4.1.2.7 */
static enum status
read_spki(struct view spki, struct parts *out, struct err *err)
{
	struct der outer = der_of(spki, MALFORMED, "public key"), in, algorithm;
	struct view oid, key;
	char text[64];

	*out = (struct parts){ .type = 0 };
	if (spki.len == sizeof(P256_PREFIX) + P256_POINT_BYTES &&
	    memcmp(spki.data, P256_PREFIX, sizeof(P256_PREFIX)) == 0 &&
	    spki.data[sizeof(P256_PREFIX)] == 0x04) {
		out->type = KEY_EC_P256;
		out->point = (struct view){ spki.data + sizeof(P256_PREFIX), P256_POINT_BYTES };
		return OK;
	}
	TRY(der_enter(&outer, DER_SEQUENCE, "SubjectPublicKeyInfo", &in, err));
	TRY(der_end(&outer, "SubjectPublicKeyInfo", err));
	TRY(der_enter(&in, DER_SEQUENCE, "AlgorithmIdentifier", &algorithm, err));
	TRY(der_oid(&algorithm, "algorithm", &oid, err));
	TRY(der_bits(&in, "subjectPublicKey", &key, err));
	TRY(der_end(&in, "SubjectPublicKeyInfo", err));

	if (DER_OID_IS(oid, OID_EC_PUBLIC_KEY))
		return read_ec(&algorithm, key, out, err);
	if (DER_OID_IS(oid, OID_RSA))
		return read_rsa(&algorithm, key, out, err);
	if (DER_OID_IS(oid, OID_ED25519))
		return read_ed25519(&algorithm, key, out, err);
	der_oid_text(text, sizeof(text), oid);
	return err_set(err, ERR_ARGUMENT, "csr_key_type",
		"public key: EC, RSA or Ed25519 wanted, algorithm %s found", text);
}

/* ---- keys of OpenSSL, without its decoders ---- */

static enum status
pkey_of_params(EVP_PKEY **out, const char *algorithm, OSSL_PARAM *params, struct err *err)
{
	own(EVP_PKEY_CTX) ctx = EVP_PKEY_CTX_new_from_name(NULL, algorithm, NULL);

	if (ctx == NULL || EVP_PKEY_fromdata_init(ctx) <= 0)
		return err_openssl(err, "public key: cannot begin");
	if (EVP_PKEY_fromdata(ctx, out, EVP_PKEY_PUBLIC_KEY, params) <= 0) {
		openssl_errors_drop();
		return err_set(err, ERR_ARGUMENT, "csr_key_invalid",
			"public key: a key on its curve or in its range wanted");
	}
	return OK;
}

static enum status
pkey_of_point(EVP_PKEY **out, const char *curve, struct view point, struct err *err)
{
	uint8_t copy[P384_POINT_BYTES]; /* OSSL_PARAM is not const */
	char group[16];

	memcpy(copy, point.data, point.len);
	(void)strncpy(group, curve, sizeof(group) - 1);
	group[sizeof(group) - 1] = '\0';
	OSSL_PARAM params[] = {
		OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, group, 0),
		OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, copy, point.len),
		OSSL_PARAM_construct_end(),
	};
	return pkey_of_params(out, "EC", params, err);
}

static enum status
pkey_of_rsa(EVP_PKEY **out, const struct parts *key, struct err *err)
{
	own(OSSL_PARAM_BLD) build = OSSL_PARAM_BLD_new();
	own(BIGNUM) n = BN_bin2bn(key->modulus.data, (int)key->modulus.len, NULL);
	own(BIGNUM) e = BN_bin2bn(key->exponent.data, (int)key->exponent.len, NULL);

	if (build == NULL || n == NULL || e == NULL ||
	    !OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, n) ||
	    !OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_E, e))
		return err_openssl(err, "public key: cannot build RSA parameters");
	own(OSSL_PARAM) params = OSSL_PARAM_BLD_to_param(build);
	if (params == NULL)
		return err_openssl(err, "public key: cannot build RSA parameters");
	return pkey_of_params(out, "RSA", params, err);
}

static enum status
pkey_of_ed25519(EVP_PKEY **out, struct view key, struct err *err)
{
	*out = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, key.data, key.len);
	return *out != NULL ? OK : err_openssl(err, "public key: cannot make an Ed25519 key");
}

static enum status
pkey_of(EVP_PKEY **out, const struct parts *key, struct err *err)
{
	switch (key->type) {
	case KEY_EC_P256: return pkey_of_point(out, "prime256v1", key->point, err);
	case KEY_EC_P384: return pkey_of_point(out, "secp384r1", key->point, err);
	case KEY_RSA_2048:
	case KEY_RSA_3072:
	case KEY_RSA_4096: return pkey_of_rsa(out, key, err);
	case KEY_ED25519: return pkey_of_ed25519(out, key->point, err);
	}
	return err_set(err, ERR_INTERNAL, "csr_key_type", "public key: no such type");
}

/* ---- signatures ---- */

enum hash {
	HASH_UNSET = 0, HASH_NONE, HASH_SHA256, HASH_SHA384, HASH_SHA512, HASH_WEAK, HASH_COUNT
};

static const char *const HASH_NAMES[HASH_COUNT] = {
	[HASH_SHA256] = "SHA256",
	[HASH_SHA384] = "SHA384",
	[HASH_SHA512] = "SHA512",
};

#define PKCS1 "\x2a\x86\x48\x86\xf7\x0d\x01\x01" /* 1.2.840.113549.1.1 */
#define X962_SIGNATURES "\x2a\x86\x48\xce\x3d\x04" /* 1.2.840.10045.4 */

static const struct signature_algorithm {
	const char *oid;
	size_t oid_len;
	int family;
	enum hash hash;
} SIGNATURE_ALGORITHMS[] = {
#define OID(octets) (octets), sizeof(octets) - 1
	{ OID(X962_SIGNATURES "\x03\x02"), FAMILY_EC, HASH_SHA256 }, /* RFC 5758 3.2 */
	{ OID(X962_SIGNATURES "\x03\x03"), FAMILY_EC, HASH_SHA384 },
	{ OID(X962_SIGNATURES "\x03\x04"), FAMILY_EC, HASH_SHA512 },
	{ OID(X962_SIGNATURES "\x01"), FAMILY_EC, HASH_WEAK },       /* SHA-1 */
	{ OID(PKCS1 "\x0b"), FAMILY_RSA, HASH_SHA256 },              /* RFC 4055 5 */
	{ OID(PKCS1 "\x0c"), FAMILY_RSA, HASH_SHA384 },
	{ OID(PKCS1 "\x0d"), FAMILY_RSA, HASH_SHA512 },
	{ OID(PKCS1 "\x02"), FAMILY_RSA, HASH_WEAK },                /* MD2 */
	{ OID(PKCS1 "\x03"), FAMILY_RSA, HASH_WEAK },                /* MD4 */
	{ OID(PKCS1 "\x04"), FAMILY_RSA, HASH_WEAK },                /* MD5 */
	{ OID(PKCS1 "\x05"), FAMILY_RSA, HASH_WEAK },                /* SHA-1 */
	{ OID("\x2b\x0e\x03\x02\x1d"), FAMILY_RSA, HASH_WEAK },      /* SHA-1, of OIW */
	{ OID("\x2b\x65\x70"), FAMILY_ED25519, HASH_NONE },          /* RFC 8410 6 */
#undef OID
};

static enum status
read_algorithm(struct view whole, enum ca_key_type type, enum hash *hash, struct err *err)
{
	struct der outer = der_of(whole, "csr_signature_algorithm", "signature"), in;
	const struct signature_algorithm *found = NULL;
	struct view oid;
	char text[64];

	TRY(der_enter(&outer, DER_SEQUENCE, "AlgorithmIdentifier", &in, err));
	TRY(der_end(&outer, "AlgorithmIdentifier", err));
	TRY(der_oid(&in, "algorithm", &oid, err));
	for (size_t i = 0; i < COUNT_OF(SIGNATURE_ALGORITHMS); i++) {
		const struct signature_algorithm *a = &SIGNATURE_ALGORITHMS[i];

		if (oid.len == a->oid_len && memcmp(oid.data, a->oid, oid.len) == 0)
			found = a;
	}
	der_oid_text(text, sizeof(text), oid);
	if (found == NULL)
		return der_refuse(&in, err, "ECDSA or RSA with SHA-256, SHA-384 or SHA-512, or "
			"Ed25519 wanted, %s found", text);
	if (found->hash == HASH_WEAK)
		return err_set(err, ERR_ARGUMENT, "csr_weak_hash",
			"signature: SHA-256 or better wanted, %s found", text);
	if (found->family != family_of(type))
		return der_refuse(&in, err, "an algorithm of a key of type %s wanted, %s found",
			ca_key_type_name(type), text);
	/* RFC 4055 5: NULL for RSA; RFC 5758 3.2 and RFC 8410 3: absent for the others. */
	if (found->family == FAMILY_RSA)
		TRY(der_null(&in, "parameters", err));
	TRY(der_end(&in, "parameters", err));
	*hash = found->hash;
	return OK;
}

static enum status
bad_signature(struct err *err)
{
	openssl_errors_drop();
	return err_set(err, ERR_ARGUMENT, "csr_bad_signature",
		"signature: it does not hold under the public key");
}

/* Any key, with contexts for this once. */
static enum status
check_slowly(EVP_PKEY *pkey, enum hash hash, struct view data, struct view signature,
	struct err *err)
{
	own(EVP_MD_CTX) ctx = EVP_MD_CTX_new();

	if (ctx == NULL ||
	    EVP_DigestVerifyInit_ex(ctx, NULL, HASH_NAMES[hash], NULL, NULL, pkey, NULL) <= 0)
		return err_openssl(err, "signature: cannot begin to verify");
	if (EVP_DigestVerify(ctx, signature.data, signature.len, data.data, data.len) != 1)
		return bad_signature(err);
	return OK;
}

/* ---- the verifier ---- */

/* A key whose point is replaced again and again, and a context that verifies with it. */
struct curve {
	EVP_PKEY *pkey;
	EVP_PKEY_CTX *verify;
};

struct ca_verifier {
	struct curve p256, p384;
	EVP_MD *digests[HASH_COUNT];
	EVP_MD_CTX *hashing;
	enum ca_key_type type; /* of the key that was read last; 0: none that is sound */
	EVP_PKEY *other;       /* that key, if it is Ed25519 */
	struct ca_rsa *rsa;
	uint8_t modulus[CA_RSA_MODULUS_MAX_BYTES], exponent[CA_RSA_EXPONENT_MAX_BYTES];
	size_t modulus_len, exponent_len; /* that key's, if it is RSA */
};

static enum status
curve_new(struct curve *out, int nid, const char *name, struct err *err)
{
	own(EC_GROUP) group = EC_GROUP_new_by_curve_name(nid);
	uint8_t point[P384_POINT_BYTES];
	size_t len = 0;

	if (group != NULL) /* any point will do until the first key comes */
		len = EC_POINT_point2oct(group, EC_GROUP_get0_generator(group),
			POINT_CONVERSION_UNCOMPRESSED, point, sizeof(point), NULL);
	if (len == 0)
		return err_openssl(err, "verifier: cannot make a curve");
	TRY(pkey_of_point(&out->pkey, name, (struct view){ point, len }, err));
	out->verify = EVP_PKEY_CTX_new_from_pkey(NULL, out->pkey, NULL);
	if (out->verify == NULL || EVP_PKEY_verify_init(out->verify) <= 0)
		return err_openssl(err, "verifier: cannot begin");
	return OK;
}

static void
curve_free(struct curve *curve)
{
	EVP_PKEY_CTX_free(curve->verify);
	EVP_PKEY_free(curve->pkey);
}

enum status
ca_verifier_new(struct ca_verifier **out, struct err *err)
{
	own(ca_verifier) v = mem_zalloc(sizeof(*v));

	if (v == NULL)
		return err_memory(err);
	for (size_t i = 0; i < HASH_COUNT; i++) {
		if (HASH_NAMES[i] == NULL)
			continue;
		v->digests[i] = EVP_MD_fetch(NULL, HASH_NAMES[i], NULL);
		if (v->digests[i] == NULL)
			return err_openssl(err, "verifier: cannot get %s", HASH_NAMES[i]);
	}
	v->hashing = EVP_MD_CTX_new();
	if (v->hashing == NULL)
		return err_openssl(err, "verifier: cannot make a digest context");
	TRY(curve_new(&v->p256, NID_X9_62_prime256v1, "prime256v1", err));
	TRY(curve_new(&v->p384, NID_secp384r1, "secp384r1", err));
	TRY(ca_rsa_new(&v->rsa, err));
	*out = give(v);
	return OK;
}

void
ca_verifier_free(struct ca_verifier *verifier)
{
	if (verifier == NULL)
		return;
	curve_free(&verifier->p256);
	curve_free(&verifier->p384);
	for (size_t i = 0; i < HASH_COUNT; i++)
		EVP_MD_free(verifier->digests[i]);
	EVP_MD_CTX_free(verifier->hashing);
	EVP_PKEY_free(verifier->other);
	ca_rsa_free(verifier->rsa);
	mem_free(verifier);
}

static struct curve *
curve_of(struct ca_verifier *verifier, enum ca_key_type type)
{
	if (type == KEY_EC_P256)
		return &verifier->p256;
	return type == KEY_EC_P384 ? &verifier->p384 : NULL;
}

/* A copy: the signature is looked at when spki may be gone. */
static void
keep_rsa(struct ca_verifier *verifier, const struct parts *key)
{
	memcpy(verifier->modulus, key->modulus.data, key->modulus.len);
	memcpy(verifier->exponent, key->exponent.data, key->exponent.len);
	verifier->modulus_len = key->modulus.len;
	verifier->exponent_len = key->exponent.len;
}

static enum status
keep_point(struct curve *curve, struct view point, struct err *err)
{
	if (EVP_PKEY_set1_encoded_public_key(curve->pkey, point.data, point.len) > 0)
		return OK;
	openssl_errors_drop();
	return err_set(err, ERR_ARGUMENT, "csr_key_invalid",
		"public key: a point on its curve wanted (SP 800-56A 5.6.2.3.3)");
}

enum status
ca_spki_check(struct ca_verifier *verifier, struct view spki, enum ca_key_type *type,
	struct err *err)
{
	struct curve *curve;
	struct parts key;

	verifier->type = 0;
	EVP_PKEY_free(give(verifier->other));
	TRY(read_spki(spki, &key, err));
	curve = curve_of(verifier, key.type);
	if (curve != NULL)
		TRY(keep_point(curve, key.point, err));
	else if (family_of(key.type) == FAMILY_RSA)
		keep_rsa(verifier, &key);
	else
		TRY(pkey_of(&verifier->other, &key, err));
	verifier->type = *type = key.type;
	return OK;
}

static enum status
check_rsa_signature(struct ca_verifier *verifier, struct view digest, struct view signature,
	struct err *err)
{
	struct view modulus = { verifier->modulus, verifier->modulus_len };
	struct view exponent = { verifier->exponent, verifier->exponent_len };
	bool holds = false;

	TRY(ca_rsa_verify(verifier->rsa, modulus, exponent, digest, signature, &holds, err));
	return holds ? OK : bad_signature(err);
}

enum status
ca_verifier_check(struct ca_verifier *verifier, struct view algorithm, struct view data,
	struct view signature, struct err *err)
{
	struct curve *curve = curve_of(verifier, verifier->type);
	uint8_t digest[EVP_MAX_MD_SIZE];
	enum hash hash = HASH_UNSET;
	unsigned digest_len = 0;

	if (verifier->type == 0)
		return err_set(err, ERR_INTERNAL, "verifier_empty", "verifier: no key was read");
	TRY(read_algorithm(algorithm, verifier->type, &hash, err));
	if (verifier->other != NULL)
		return check_slowly(verifier->other, hash, data, signature, err);
	if (!EVP_DigestInit_ex2(verifier->hashing, verifier->digests[hash], NULL) ||
	    !EVP_DigestUpdate(verifier->hashing, data.data, data.len) ||
	    !EVP_DigestFinal_ex(verifier->hashing, digest, &digest_len))
		return err_openssl(err, "signature: cannot hash");
	if (curve == NULL)
		return check_rsa_signature(
			verifier, (struct view){ digest, digest_len }, signature, err);
	if (EVP_PKEY_verify(curve->verify, signature.data, signature.len, digest, digest_len) != 1)
		return bad_signature(err);
	return OK;
}

/* ---- keys that are kept ---- */

struct ca_public_key {
	enum ca_key_type type;
	EVP_PKEY *pkey;
};

enum status
ca_public_key_new(struct ca_public_key **out, struct view spki, struct err *err)
{
	own(ca_public_key) key = mem_zalloc(sizeof(*key));
	struct parts parts;

	if (key == NULL)
		return err_memory(err);
	TRY(read_spki(spki, &parts, err));
	TRY(pkey_of(&key->pkey, &parts, err));
	key->type = parts.type;
	*out = give(key);
	return OK;
}

enum status
ca_public_key_check(const struct ca_public_key *key, struct view algorithm, struct view data,
	struct view signature, struct err *err)
{
	enum hash hash = HASH_UNSET;

	TRY(read_algorithm(algorithm, key->type, &hash, err));
	return check_slowly(key->pkey, hash, data, signature, err);
}

void
ca_public_key_free(struct ca_public_key *key)
{
	if (key == NULL)
		return;
	EVP_PKEY_free(key->pkey);
	mem_free(key);
}
