#include "ca/key.h"

#include <assert.h>
#include <limits.h>
#include <string.h>

#include <openssl/core_names.h>
#include <openssl/rsa.h>

#include "base/mem.h"
#include "ca/der.h"
#include "ca/digest.h"
#include "ca/openssl.h"

/* ---- what a key type is ---- */

static const struct key_kind {
	enum ca_key_type type;
	const char *name;  /* in profiles and on the command line */
	const char *curve; /* EC, and this curve */
	int rsa_bits;      /* RSA, of this size */
	bool for_ca;
} KINDS[] = {
	{ KEY_EC_P256, "ec-p256", "P-256", 0, true },
	{ KEY_EC_P384, "ec-p384", "P-384", 0, true },
	{ KEY_RSA_2048, "rsa-2048", NULL, 2048, false }, /* too short for a CA's decade */
	{ KEY_RSA_3072, "rsa-3072", NULL, 3072, true },
	{ KEY_RSA_4096, "rsa-4096", NULL, 4096, true },
	{ KEY_ED25519, "ed25519", NULL, 0, false }, /* hardly any TLS stack of the field reads it */
};

static const struct key_kind *
kind_of(enum ca_key_type type)
{
	for (size_t i = 0; i < COUNT_OF(KINDS); i++) {
		if (KINDS[i].type == type)
			return &KINDS[i];
	}
	return NULL;
}

const char *
ca_key_type_name(enum ca_key_type type)
{
	const struct key_kind *kind = kind_of(type);

	return kind != NULL ? kind->name : "unknown";
}

bool
ca_key_type_parse(enum ca_key_type *out, const char *name)
{
	for (size_t i = 0; i < COUNT_OF(KINDS); i++) {
		if (strcmp(KINDS[i].name, name) == 0) {
			*out = KINDS[i].type;
			return true;
		}
	}
	return false;
}

/* RFC 5758 3.2: ECDSA has no parameters. RFC 4055 5: RSA has NULL. */
static const uint8_t ECDSA_SHA256[] = {
	0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02,
};
static const uint8_t ECDSA_SHA384[] = {
	0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03,
};
static const uint8_t RSA_SHA256[] = {
	0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b, 0x05, 0x00,
};

struct view
ca_key_type_algorithm(enum ca_key_type type)
{
	const struct key_kind *kind = kind_of(type);

	if (kind == NULL || !kind->for_ca)
		return (struct view){ NULL, 0 };
	if (type == KEY_EC_P256)
		return (struct view){ ECDSA_SHA256, sizeof(ECDSA_SHA256) };
	if (type == KEY_EC_P384)
		return (struct view){ ECDSA_SHA384, sizeof(ECDSA_SHA384) };
	return (struct view){ RSA_SHA256, sizeof(RSA_SHA256) };
}

/* ---- the key ---- */

struct ca_key {
	enum ca_key_type type;
	EVP_PKEY *pkey;
	EVP_PKEY_CTX *sign;
	EVP_MD *digest;
	EVP_MD_CTX *hashing;
	struct bytes spki;
};

enum ca_key_type
ca_key_type_of(const struct ca_key *key)
{
	return key->type;
}

struct view
ca_key_spki(const struct ca_key *key)
{
	return view_of(&key->spki);
}

struct view
ca_key_algorithm(const struct ca_key *key)
{
	return ca_key_type_algorithm(key->type);
}

static enum status
kind_of_pkey(EVP_PKEY *pkey, const struct key_kind **out, struct err *err)
{
	char curve[32] = "";
	int nid = NID_undef, bits = 0;

	if (EVP_PKEY_is_a(pkey, "RSA"))
		bits = EVP_PKEY_get_bits(pkey);
	else if (EVP_PKEY_is_a(pkey, "EC") &&
		 EVP_PKEY_get_group_name(pkey, curve, sizeof(curve), NULL))
		nid = OBJ_sn2nid(curve);
	openssl_errors_drop(); /* a curve without a name is an answer */
	for (size_t i = 0; i < COUNT_OF(KINDS); i++) {
		const struct key_kind *kind = &KINDS[i];

		if (kind->for_ca && ((kind->rsa_bits > 0 && kind->rsa_bits == bits) ||
					    (kind->curve != NULL && nid != NID_undef &&
						    nid == EC_curve_nist2nid(kind->curve)))) {
			*out = kind;
			return OK;
		}
	}
	return err_set(err, ERR_ARGUMENT, "ca_key_type",
		"CA key: EC P-256, EC P-384, RSA 3072 or RSA 4096 wanted");
}

/* ---- SubjectPublicKeyInfo ---- */

static enum status
write_point(struct der_writer *w, EVP_PKEY *pkey, const struct key_kind *kind, struct err *err)
{
	uint8_t point[133];
	size_t len = 0;

	if (!EVP_PKEY_get_octet_string_param(
		    pkey, OSSL_PKEY_PARAM_PUB_KEY, point, sizeof(point), &len))
		return err_openssl(err, "CA key: cannot read the public point");
	if (len == 0 || point[0] != 0x04)
		return err_set(err, ERR_ARGUMENT, "ca_key_malformed",
			"CA key: an uncompressed public point wanted");
	der_open(w, DER_SEQUENCE);
	der_put_oid(w, "1.2.840.10045.2.1"); /* id-ecPublicKey, RFC 5480 2.1.1 */
	der_put_oid(w, kind->type == KEY_EC_P256 ? "1.2.840.10045.3.1.7" : "1.3.132.0.34");
	der_close(w);
	der_put_bits(w, (struct view){ point, len });
	return OK;
}

static enum status
write_number(struct der_writer *w, EVP_PKEY *pkey, const char *name, struct err *err)
{
	BIGNUM *number = NULL;
	uint8_t octets[CA_SIGNATURE_MAX_BYTES];
	int len;

	if (!EVP_PKEY_get_bn_param(pkey, name, &number))
		return err_openssl(err, "CA key: cannot read %s", name);
	len = BN_num_bytes(number) <= (int)sizeof(octets) ? BN_bn2bin(number, octets) : -1;
	BN_free(number);
	if (len < 0)
		return err_set(
			err, ERR_ARGUMENT, "ca_key_malformed", "CA key: %s is too long", name);
	der_put_unsigned(w, (struct view){ octets, (size_t)len });
	return OK;
}

static enum status
write_rsa(struct der_writer *w, EVP_PKEY *pkey, struct err *err)
{
	own_struct(der_writer) key;

	der_writer_init(&key, 2048);
	der_open(&key, DER_SEQUENCE); /* RFC 3279 2.3.1 */
	TRY(write_number(&key, pkey, OSSL_PKEY_PARAM_RSA_N, err));
	TRY(write_number(&key, pkey, OSSL_PKEY_PARAM_RSA_E, err));
	der_close(&key);
	TRY(der_finish(&key, err));
	der_open(w, DER_SEQUENCE);
	der_put_oid(w, "1.2.840.113549.1.1.1");
	der_put_null(w);
	der_close(w);
	der_put_bits(w, buf_view(&key.buf));
	return OK;
}

static enum status
spki_of(struct bytes *out, EVP_PKEY *pkey, const struct key_kind *kind, struct err *err)
{
	own_struct(der_writer) w;

	assert(kind != NULL); /* every key's type is one of KINDS */
	der_writer_init(&w, 4096);
	der_open(&w, DER_SEQUENCE);
	if (kind->curve != NULL)
		TRY(write_point(&w, pkey, kind, err));
	else
		TRY(write_rsa(&w, pkey, err));
	der_close(&w);
	TRY(der_finish(&w, err));
	*out = buf_give(&w.buf);
	return OK;
}

/* ---- making keys ---- */

/* Takes a reference to pkey. */
static enum status
key_of_pkey(struct ca_key **out, EVP_PKEY *pkey, struct err *err)
{
	own(ca_key) key = mem_zalloc(sizeof(*key));
	const struct key_kind *kind = NULL;

	if (key == NULL)
		return err_memory(err);
	TRY(kind_of_pkey(pkey, &kind, err));
	TRY(spki_of(&key->spki, pkey, kind, err));
	key->type = kind->type;
	if (!EVP_PKEY_up_ref(pkey))
		return err_openssl(err, "CA key: cannot share it");
	key->pkey = pkey;
	key->digest = EVP_MD_fetch(NULL, kind->type == KEY_EC_P384 ? "SHA384" : "SHA256", NULL);
	key->hashing = EVP_MD_CTX_new();
	key->sign = EVP_PKEY_CTX_new_from_pkey(NULL, pkey, NULL);
	if (key->digest == NULL || key->hashing == NULL || key->sign == NULL ||
	    EVP_PKEY_sign_init(key->sign) <= 0)
		return err_openssl(err, "CA key: cannot begin to sign");
	if (kind->rsa_bits > 0 &&
	    (EVP_PKEY_CTX_set_rsa_padding(key->sign, RSA_PKCS1_PADDING) <= 0 ||
	     EVP_PKEY_CTX_set_signature_md(key->sign, key->digest) <= 0))
		return err_openssl(err, "CA key: cannot begin to sign with RSA");
	*out = give(key);
	return OK;
}

enum status
ca_key_generate(struct ca_key **out, enum ca_key_type type, struct err *err)
{
	const struct key_kind *kind = kind_of(type);

	if (kind == NULL || !kind->for_ca)
		return err_set(err, ERR_ARGUMENT, "ca_key_type",
			"CA key: ec-p256, ec-p384, rsa-3072 or rsa-4096 wanted, %s found",
			ca_key_type_name(type));
	own(EVP_PKEY) pkey = kind->curve != NULL ? EVP_EC_gen(kind->curve) :
		EVP_RSA_gen((unsigned)kind->rsa_bits);
	if (pkey == NULL)
		return err_openssl(err, "CA key: cannot generate");
	return key_of_pkey(out, pkey, err);
}

enum status
ca_key_from_pkcs8(struct ca_key **out, struct view der, struct err *err)
{
	const uint8_t *p = der.data;

	if (der.len > LONG_MAX)
		return err_set(err, ERR_ARGUMENT, "ca_key_malformed", "CA key: too long");
	own(PKCS8_PRIV_KEY_INFO) info = d2i_PKCS8_PRIV_KEY_INFO(NULL, &p, (long)der.len);
	own(EVP_PKEY) pkey = info != NULL && p == der.data + der.len ? EVP_PKCS82PKEY(info) : NULL;
	if (pkey == NULL) {
		openssl_errors_drop();
		return err_set(err, ERR_ARGUMENT, "ca_key_malformed", "CA key: PKCS#8 wanted");
	}
	return key_of_pkey(out, pkey, err);
}

enum status
ca_key_to_pkcs8(const struct ca_key *key, struct secret *der, struct err *err)
{
	own(PKCS8_PRIV_KEY_INFO) info = EVP_PKEY2PKCS8(key->pkey);
	own_struct(secret) made = { NULL, 0 };
	uint8_t *p;
	int len;

	if (info == NULL || (len = i2d_PKCS8_PRIV_KEY_INFO(info, NULL)) <= 0)
		return err_openssl(err, "CA key: cannot write");
	TRY(secret_new(&made, (size_t)len, err));
	p = made.data;
	if (i2d_PKCS8_PRIV_KEY_INFO(info, &p) != len)
		return err_openssl(err, "CA key: cannot write");
	*der = give_struct(made);
	return OK;
}

enum status
ca_key_dup(struct ca_key **out, const struct ca_key *key, struct err *err)
{
	return key_of_pkey(out, key->pkey, err);
}

void
ca_key_free(struct ca_key *key)
{
	if (key == NULL)
		return;
	EVP_PKEY_CTX_free(key->sign);
	EVP_MD_CTX_free(key->hashing);
	EVP_MD_free(key->digest);
	EVP_PKEY_free(key->pkey);
	bytes_free(&key->spki);
	mem_free(key);
}

/* ---- signing ---- */

static enum status
finish_and_sign(struct ca_key *key, EVP_MD_CTX *hashing, uint8_t *signature, size_t *signature_len,
	struct err *err)
{
	uint8_t digest[EVP_MAX_MD_SIZE];
	unsigned digest_len = 0;

	*signature_len = CA_SIGNATURE_MAX_BYTES;
	if (!EVP_DigestFinal_ex(hashing, digest, &digest_len) ||
	    EVP_PKEY_sign(key->sign, signature, signature_len, digest, digest_len) <= 0)
		return err_openssl(err, "CA key: cannot sign");
	return OK;
}

enum status
ca_key_sign(struct ca_key *key, struct view data, uint8_t signature[CA_SIGNATURE_MAX_BYTES],
	size_t *signature_len, struct err *err)
{
	if (!EVP_DigestInit_ex2(key->hashing, key->digest, NULL) ||
	    !EVP_DigestUpdate(key->hashing, data.data, data.len))
		return err_openssl(err, "CA key: cannot hash");
	return finish_and_sign(key, key->hashing, signature, signature_len, err);
}

bool
ca_key_hashes_sha256(const struct ca_key *key)
{
	return EVP_MD_get_size(key->digest) == 32;
}

enum status
ca_key_sign_sha256(struct ca_key *key, const uint8_t digest[32],
	uint8_t signature[CA_SIGNATURE_MAX_BYTES], size_t *signature_len, struct err *err)
{
	*signature_len = CA_SIGNATURE_MAX_BYTES;
	if (EVP_PKEY_sign(key->sign, signature, signature_len, digest, 32) <= 0)
		return err_openssl(err, "CA key: cannot sign");
	return OK;
}

struct ca_key_stream {
	struct ca_key *key; /* borrowed */
	EVP_MD_CTX *hashing;
};

enum status
ca_key_stream_begin(struct ca_key_stream **out, struct ca_key *key, struct err *err)
{
	own(ca_key_stream) stream = mem_zalloc(sizeof(*stream));

	if (stream == NULL)
		return err_memory(err);
	stream->key = key;
	stream->hashing = EVP_MD_CTX_new();
	if (stream->hashing == NULL || !EVP_DigestInit_ex2(stream->hashing, key->digest, NULL))
		return err_openssl(err, "CA key: cannot begin to hash");
	*out = give(stream);
	return OK;
}

enum status
ca_key_stream_add(struct ca_key_stream *stream, struct view piece, struct err *err)
{
	if (!EVP_DigestUpdate(stream->hashing, piece.data, piece.len))
		return err_openssl(err, "CA key: cannot hash");
	return OK;
}

enum status
ca_key_stream_sign(struct ca_key_stream *stream, uint8_t signature[CA_SIGNATURE_MAX_BYTES],
	size_t *signature_len, struct err *err)
{
	return finish_and_sign(stream->key, stream->hashing, signature, signature_len, err);
}

void
ca_key_stream_free(struct ca_key_stream *stream)
{
	if (stream == NULL)
		return;
	EVP_MD_CTX_free(stream->hashing);
	mem_free(stream);
}

enum status
ca_spki_key_id(uint8_t out[CA_KEY_ID_BYTES], struct view spki, struct err *err)
{
	struct der outer = der_of(spki, "csr_malformed", "public key"), in;
	uint8_t hash[32];
	struct view key;

	TRY(der_enter(&outer, DER_SEQUENCE, "SubjectPublicKeyInfo", &in, err));
	TRY(der_take_whole(&in, DER_SEQUENCE, "AlgorithmIdentifier", &key, err));
	TRY(der_bits(&in, "subjectPublicKey", &key, err));
	ca_sha256(hash, key);
	memcpy(out, hash, CA_KEY_ID_BYTES);
	return OK;
}
