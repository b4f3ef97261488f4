#include "ca/seal.h"

#include <inttypes.h>
#include <string.h>

#include <sodium.h>

#include "ca/file.h"

#define KEK_BYTES crypto_aead_xchacha20poly1305_ietf_KEYBYTES
#define PARAMS_MAX_BYTES 1024
/* Whoever can write the parameters must not be able to make the start take a day or all memory. */
#define OPS_MAX 64
#define MEMORY_MAX_BYTES (UINT64_C(4) << 30)
/* Of --insecure-fast-seal: a millisecond. Tests make hundreds of key stores. */
#define FAST_OPS crypto_pwhash_OPSLIMIT_MIN
#define FAST_MEMORY_BYTES ((size_t)1 << 20)

struct params {
	uint64_t format;
	uint64_t ops, memory_bytes;
	uint8_t salt[crypto_pwhash_SALTBYTES];
	uint8_t check[32]; /* BLAKE2b of a fixed text, keyed with the KEK */
};

/* ---- parameters as text ---- */

static bool
read_number(uint64_t *out, struct view text)
{
	*out = 0;
	if (text.len == 0 || text.len > 12)
		return false;
	for (size_t i = 0; i < text.len; i++) {
		if (text.data[i] < '0' || text.data[i] > '9')
			return false;
		*out = *out * 10 + (uint64_t)(text.data[i] - '0');
	}
	return true;
}

static bool
read_value(struct params *out, struct view name, struct view value, unsigned *seen)
{
	const struct {
		const char *name;
		uint64_t *number;
		uint8_t *octets;
		size_t len;
	} fields[] = {
		{ "format", &out->format, NULL, 0 },
		{ "argon2id_ops", &out->ops, NULL, 0 },
		{ "argon2id_memory_bytes", &out->memory_bytes, NULL, 0 },
		{ "salt", NULL, out->salt, sizeof(out->salt) },
		{ "check", NULL, out->check, sizeof(out->check) },
	};

	for (size_t i = 0; i < COUNT_OF(fields); i++) {
		if (!view_equal_text(name, fields[i].name))
			continue;
		if ((*seen & 1u << i) != 0)
			return false;
		*seen |= 1u << i;
		return fields[i].number != NULL ? read_number(fields[i].number, value)
		                                : hex_decode(fields[i].octets, fields[i].len,
							  (const char *)value.data, value.len);
	}
	return false;
}

/* Each line is NAME=VALUE; all five stand once. */
static bool
read_params(struct params *out, struct view text)
{
	unsigned seen = 0;

	while (text.len > 0) {
		const uint8_t *end = memchr(text.data, '\n', text.len);
		const uint8_t *equals = memchr(text.data, '=', text.len);
		size_t line = end == NULL ? 0 : (size_t)(end - text.data);
		size_t name = equals == NULL ? 0 : (size_t)(equals - text.data);

		if (end == NULL || equals == NULL || name >= line ||
		    !read_value(out, (struct view){ text.data, name },
			    (struct view){ equals + 1, line - name - 1 }, &seen))
			return false;
		text.data += line + 1;
		text.len -= line + 1;
	}
	return seen == 0x1f && out->format == 1 && out->ops >= crypto_pwhash_OPSLIMIT_MIN &&
	       out->ops <= OPS_MAX && out->memory_bytes >= crypto_pwhash_MEMLIMIT_MIN &&
	       out->memory_bytes <= MEMORY_MAX_BYTES;
}

static enum status
write_params(struct buf *out, const struct params *params, struct err *err)
{
	char salt[2 * sizeof(params->salt) + 1], check[2 * sizeof(params->check) + 1];

	hex_encode(salt, params->salt, sizeof(params->salt));
	hex_encode(check, params->check, sizeof(params->check));
	return buf_format(out, err,
		"format=1\nargon2id_ops=%" PRIu64 "\nargon2id_memory_bytes=%" PRIu64
		"\nsalt=%s\ncheck=%s\n", params->ops, params->memory_bytes, salt, check);
}

/* ---- the key-encryption key ---- */

static void
check_value(uint8_t out[32], const struct secret *kek)
{
	static const char text[] = "jitrca seal check 1";

	(void)crypto_generichash(
		out, 32, (const uint8_t *)text, sizeof(text) - 1, kek->data, kek->len);
}

static enum status
derive(struct secret *kek, const struct params *params, struct view passphrase, struct err *err)
{
	TRY(secret_new(kek, KEK_BYTES, err));
	if (crypto_pwhash(kek->data, kek->len, (const char *)passphrase.data, passphrase.len,
		    params->salt, params->ops, (size_t)params->memory_bytes,
		    crypto_pwhash_ALG_ARGON2ID13) != 0)
		return err_set(err, ERR_UNAVAILABLE, "out_of_memory",
			"passphrase: Argon2id wants %" PRIu64 " octets of memory",
			params->memory_bytes);
	return OK;
}

enum status
seal_kek(struct secret *kek, const char *dir, struct view passphrase, struct err *err)
{
	own_struct(bytes) text = { NULL, 0 };
	own_struct(secret) made = { NULL, 0 };
	char path[FILE_PATH_BYTES];
	struct params params = { 0 };
	uint8_t check[32];

	TRY(file_path(path, dir, SEAL_PARAMS_NAME, "", err));
	if (file_read(&text, path, PARAMS_MAX_BYTES, err) != OK) {
		if (err->status == ERR_NOT_FOUND)
			return err_set(
				err, ERR_NOT_FOUND, "keystore_absent", "%s: no key store", dir);
		return err->status;
	}
	if (!read_params(&params, view_of(&text)))
		return err_set(err, ERR_ARGUMENT, "keystore_malformed",
			"%s: parameters of a seal, format 1, wanted", path);
	TRY(derive(&made, &params, passphrase, err));
	check_value(check, &made);
	if (sodium_memcmp(check, params.check, sizeof(check)) != 0)
		return err_set(
			err, ERR_DENIED, "passphrase_wrong", "%s: the passphrase is another", dir);
	*kek = give_struct(made);
	return OK;
}

enum status
seal_begin(struct secret *kek, const char *dir, struct view passphrase, bool insecure_fast,
	struct err *err)
{
	struct params params = {
		.format = 1,
		.ops = insecure_fast ? FAST_OPS : crypto_pwhash_OPSLIMIT_MODERATE,
		.memory_bytes = insecure_fast ? FAST_MEMORY_BYTES : crypto_pwhash_MEMLIMIT_MODERATE,
	};
	own_struct(buf) text = { .limit_bytes = PARAMS_MAX_BYTES };
	own_struct(secret) made = { NULL, 0 };
	char path[FILE_PATH_BYTES];

	TRY(file_path(path, dir, SEAL_PARAMS_NAME, "", err));
	randombytes_buf(params.salt, sizeof(params.salt));
	TRY(derive(&made, &params, passphrase, err));
	check_value(params.check, &made);
	TRY(write_params(&text, &params, err));
	TRY(file_create(path, buf_view(&text), 0644, err));
	*kek = give_struct(made);
	return OK;
}

/* ---- keys ---- */

/* MAGIC, nonce, ciphertext with tag. */
static const char MAGIC[] = "jitrca sealed key 1\n";
#define MAGIC_BYTES (sizeof(MAGIC) - 1)
#define NONCE_BYTES crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
#define TAG_BYTES crypto_aead_xchacha20poly1305_ietf_ABYTES

/* MAGIC, ca_id, NUL, SPKI: no two different pairs give the same octets. */
static enum status
associated(struct buf *out, const char *ca_id, struct view spki, struct err *err)
{
	TRY(buf_add(out, MAGIC, MAGIC_BYTES, err));
	TRY(buf_add(out, ca_id, strlen(ca_id) + 1, err));
	return buf_add(out, spki.data, spki.len, err);
}

enum status
seal_secret(struct bytes *out, struct view kek, const char *name, struct view spki,
	const struct secret *plain, struct err *err)
{
	own_struct(buf) with = { .limit_bytes = SEALED_KEY_MAX_BYTES };
	own_struct(buf) sealed = { .limit_bytes = SEALED_KEY_MAX_BYTES };
	uint8_t nonce[NONCE_BYTES];

	if (kek.len != KEK_BYTES)
		return err_set(err, ERR_INTERNAL, "kek_size", "seal: a KEK of %u octets wanted",
			KEK_BYTES);
	TRY(associated(&with, name, spki, err));
	randombytes_buf(nonce, sizeof(nonce));
	TRY(buf_add(&sealed, MAGIC, MAGIC_BYTES, err));
	TRY(buf_add(&sealed, nonce, sizeof(nonce), err));
	TRY(buf_reserve(&sealed, plain->len + TAG_BYTES, err));
	(void)crypto_aead_xchacha20poly1305_ietf_encrypt(sealed.data + sealed.len, NULL,
		plain->data, plain->len, with.data, with.len, NULL, nonce, kek.data);
	sealed.len += plain->len + TAG_BYTES;
	*out = buf_give(&sealed);
	return OK;
}

enum status
unseal_secret(struct secret *out, struct view kek, const char *name, struct view spki,
	struct view sealed, struct err *err)
{
	own_struct(buf) with = { .limit_bytes = SEALED_KEY_MAX_BYTES };
	own_struct(secret) plain = { NULL, 0 };

	if (kek.len != KEK_BYTES)
		return err_set(err, ERR_INTERNAL, "kek_size", "seal: a KEK of %u octets wanted",
			KEK_BYTES);
	if (sealed.len <= MAGIC_BYTES + NONCE_BYTES + TAG_BYTES ||
	    memcmp(sealed.data, MAGIC, MAGIC_BYTES) != 0)
		return err_set(
			err, ERR_ARGUMENT, "keystore_malformed", "a sealed key, format 1, wanted");
	TRY(associated(&with, name, spki, err));
	TRY(secret_new(&plain, sealed.len - MAGIC_BYTES - NONCE_BYTES - TAG_BYTES, err));
	if (crypto_aead_xchacha20poly1305_ietf_decrypt(plain.data, NULL, NULL,
		    sealed.data + MAGIC_BYTES + NONCE_BYTES, sealed.len - MAGIC_BYTES - NONCE_BYTES,
		    with.data, with.len, sealed.data + MAGIC_BYTES, kek.data) != 0)
		return err_set(err, ERR_DENIED, "key_sealed_otherwise",
			"the key is sealed under another passphrase, for another CA, or damaged");
	*out = give_struct(plain);
	return OK;
}

enum status
seal_key(struct bytes *out, struct view kek, const char *ca_id, const struct ca_key *key,
	struct err *err)
{
	own_struct(secret) plain = { NULL, 0 };

	TRY(ca_key_to_pkcs8(key, &plain, err));
	return seal_secret(out, kek, ca_id, ca_key_spki(key), &plain, err);
}

enum status
unseal_key(struct ca_key **out, struct view kek, const char *ca_id, struct view spki,
	struct view sealed, struct err *err)
{
	own_struct(secret) plain = { NULL, 0 };
	own(ca_key) key = NULL;

	TRY(unseal_secret(&plain, kek, ca_id, spki, sealed, err));
	TRY(ca_key_from_pkcs8(&key, (struct view){ plain.data, plain.len }, err));
	if (!view_equal(ca_key_spki(key), spki))
		return err_set(err, ERR_ARGUMENT, "keystore_malformed",
			"the certificate's public key wanted in the sealed key");
	*out = give(key);
	return OK;
}
