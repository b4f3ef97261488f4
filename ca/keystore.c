#include "ca/keystore.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>

#include "base/mem.h"
#include "ca/cert.h"
#include "ca/file.h"
#include "ca/seal.h"

#define CAS_MAX 64
#define PEM_FILE_MAX_BYTES (256 * 1024)

/* Private parts of a handful of keys, for as many threads; the smallest piece is 64 octets. */
#define SECURE_HEAP_BYTES (512 * 1024)

enum status
ca_secure_heap_init(struct err *err)
{
	if (CRYPTO_secure_malloc_initialized())
		return OK;
	if (CRYPTO_secure_malloc_init(SECURE_HEAP_BYTES, 64) == 1)
		return OK;
	/* 2: the heap is there, but it may be swapped out, which is what we will not have. */
	(void)CRYPTO_secure_malloc_done();
	return err_set(err, ERR_UNAVAILABLE, "secure_heap",
		"keys: %d KiB of locked memory wanted; is RLIMIT_MEMLOCK lower?",
		SECURE_HEAP_BYTES / 1024);
}

enum status
ca_keystore_kek(struct secret *kek, const char *dir, struct view passphrase, struct err *err)
{
	return seal_kek(kek, dir, passphrase, err);
}

struct ca_keystore {
	struct ca_keystore_entry cas[CAS_MAX];
	size_t count;
	struct ca_checkpoint_key checkpoint_key;
};

const struct ca_checkpoint_key *
ca_keystore_checkpoint_key(const struct ca_keystore *keystore)
{
	return keystore->checkpoint_key.known ? &keystore->checkpoint_key : NULL;
}

size_t
ca_keystore_count(const struct ca_keystore *keystore)
{
	return keystore->count;
}

const struct ca_keystore_entry *
ca_keystore_at(const struct ca_keystore *keystore, size_t index)
{
	return index < keystore->count ? &keystore->cas[index] : NULL;
}

static void
entry_free(struct ca_keystore_entry *entry)
{
	bytes_free(&entry->certificate);
	for (size_t i = 0; i < entry->chain_count; i++)
		bytes_free(&entry->chain[i]);
	entry->chain_count = 0;
	ca_key_free(give(entry->key));
}

void
ca_keystore_free(struct ca_keystore *keystore)
{
	if (keystore == NULL)
		return;
	for (size_t i = 0; i < keystore->count; i++)
		entry_free(&keystore->cas[i]);
	ca_checkpoint_key_free(&keystore->checkpoint_key);
	mem_free(keystore);
}

/* ---- which CAs there are ---- */

#define CERTIFICATE_SUFFIX ".crt"
#define CHAIN_SUFFIX ".chain.crt"

static bool
has_suffix(const char *name, const char *suffix)
{
	size_t len = strlen(name), suffix_len = strlen(suffix);

	return len > suffix_len && strcmp(name + len - suffix_len, suffix) == 0;
}

static int
by_ca_id(const void *a, const void *b)
{
	const struct ca_keystore_entry *left = a, *right = b;

	return strcmp(left->ca_id, right->ca_id);
}

static void
dir_close(DIR *handle)
{
	if (handle != NULL)
		(void)closedir(handle);
}
OWNER(DIR, dir_close)

static enum status
list_cas(struct ca_keystore *keystore, const char *path, struct err *err)
{
	own(DIR) handle = opendir(path);
	const struct dirent *found;

	if (handle == NULL)
		return err_set(err, errno == ENOENT ? ERR_NOT_FOUND : ERR_UNAVAILABLE,
			"keystore_absent", "%s: %s", path, strerror(errno));
	while ((found = readdir(handle)) != NULL) {
		size_t len = strlen(found->d_name) - strlen(CERTIFICATE_SUFFIX);
		struct ca_keystore_entry *entry = &keystore->cas[keystore->count];

		if (!has_suffix(found->d_name, CERTIFICATE_SUFFIX) ||
		    has_suffix(found->d_name, CHAIN_SUFFIX))
			continue;
		if (keystore->count == CAS_MAX || len >= sizeof(entry->ca_id))
			return err_set(err, ERR_TOO_LARGE, "keystore_full",
				"%s: at most %d CAs with names under %d octets wanted", path,
				CAS_MAX, CA_ID_BYTES);
		(void)snprintf(entry->ca_id, sizeof(entry->ca_id), "%.*s", (int)len, found->d_name);
		keystore->count++;
	}
	qsort(keystore->cas, keystore->count, sizeof(keystore->cas[0]), by_ca_id);
	return OK;
}

/* ---- one CA ---- */

static enum status
add_to_chain(void *arg, const char *label, struct view der, struct err *err)
{
	struct ca_keystore_entry *entry = arg;

	if (strcmp(label, "CERTIFICATE") != 0)
		return err_set(err, ERR_ARGUMENT, "keystore_malformed", "only certificates wanted");
	if (entry->chain_count == CA_CHAIN_MAX)
		return err_set(err, ERR_TOO_LARGE, "keystore_malformed",
			"at most %d certificates wanted", CA_CHAIN_MAX);
	TRY(bytes_copy(&entry->chain[entry->chain_count], der, err));
	entry->chain_count++;
	return OK;
}

static enum status
read_certificates(struct ca_keystore_entry *entry, const char *dir, struct err *err)
{
	own_struct(bytes) pem = { NULL, 0 };
	own_struct(bytes) chain_pem = { NULL, 0 };
	char path[FILE_PATH_BYTES];

	TRY(file_path(path, dir, entry->ca_id, CERTIFICATE_SUFFIX, err));
	TRY(file_read(&pem, path, PEM_FILE_MAX_BYTES, err));
	if (ca_pem_decode(&entry->certificate, "CERTIFICATE", view_of(&pem), err) != OK)
		return err_wrap(err, "%s", path);
	TRY(file_path(path, dir, entry->ca_id, CHAIN_SUFFIX, err));
	if (!file_exists(path))
		return OK;
	TRY(file_read(&chain_pem, path, PEM_FILE_MAX_BYTES, err));
	if (ca_pem_each(view_of(&chain_pem), add_to_chain, entry, err) != OK)
		return err_wrap(err, "%s", path);
	return OK;
}

/* The chain holds, step by step, and ends in a root. */
static enum status
check_certificates(
	struct ca_keystore_entry *entry, struct ca_cert_view *certificate, struct err *err)
{
	own(ca_trust) trust = NULL;
	struct view chain[CA_CHAIN_MAX];

	TRY(ca_cert_parse(certificate, view_of(&entry->certificate), err));
	for (size_t i = 0; i < entry->chain_count; i++)
		chain[i] = view_of(&entry->chain[i]);
	TRY(ca_trust_new(&trust, err));
	TRY(ca_trust_add(
		trust, entry->ca_id, view_of(&entry->certificate), chain, entry->chain_count, err));
	entry->is_root = entry->chain_count == 0;
	return OK;
}

static enum status
read_key(struct ca_keystore_entry *entry, const char *dir, struct view spki, struct view kek,
	struct err *err)
{
	own_struct(bytes) sealed = { NULL, 0 };
	char path[FILE_PATH_BYTES];

	TRY(file_path(path, dir, entry->ca_id, ".key", err));
	if (kek.len == 0 || !file_exists(path))
		return OK;
	TRY(file_read(&sealed, path, SEALED_KEY_MAX_BYTES, err));
	if (unseal_key(&entry->key, kek, entry->ca_id, spki, view_of(&sealed), err) != OK)
		return err_wrap(err, "%s", path);
	return OK;
}

static enum status
read_ca(struct ca_keystore_entry *entry, const char *dir, struct view kek, struct err *err)
{
	struct ca_cert_view certificate;

	TRY(read_certificates(entry, dir, err));
	if (check_certificates(entry, &certificate, err) != OK)
		return err_wrap(err, "%s/%s" CERTIFICATE_SUFFIX, dir, entry->ca_id);
	return read_key(entry, dir, certificate.spki, kek, err);
}

/* ---- the key of checkpoints ---- */

static enum status
unlock_checkpoint_key(struct ca_checkpoint_key *key, const char *path, struct view kek, struct err *err)
{
	own_struct(bytes) sealed = { NULL, 0 };
	own_struct(secret) plain = { NULL, 0 };
	uint8_t spki[CA_CHECKPOINT_SPKI_BYTES];

	ca_checkpoint_key_spki(spki, key->public_key);
	TRY(file_read(&sealed, path, SEALED_KEY_MAX_BYTES, err));
	if (unseal_secret(&plain, kek, CA_CHECKPOINT_KEY_NAME, (struct view){ spki, sizeof(spki) },
		    view_of(&sealed), err) != OK)
		return err_wrap(err, "%s", path);
	if (ca_checkpoint_key_unlock(key, (struct view){ plain.data, plain.len }, err) != OK)
		return err_wrap(err, "%s", path);
	return OK;
}

static enum status
read_checkpoint_key(struct ca_checkpoint_key *key, const char *dir, struct view kek, struct err *err)
{
	own_struct(bytes) pem = { NULL, 0 };
	char path[FILE_PATH_BYTES];

	TRY(file_path(path, dir, CA_CHECKPOINT_KEY_NAME, ".pub", err));
	if (!file_exists(path))
		return OK;
	TRY(file_read(&pem, path, PEM_FILE_MAX_BYTES, err));
	if (ca_checkpoint_key_from_pem(key->public_key, view_of(&pem), err) != OK)
		return err_wrap(err, "%s", path);
	key->known = true;
	TRY(file_path(path, dir, CA_CHECKPOINT_KEY_NAME, ".key", err));
	if (kek.len == 0 || !file_exists(path))
		return OK;
	return unlock_checkpoint_key(key, path, kek, err);
}

enum status
ca_keystore_open(struct ca_keystore **out, const char *dir, struct view kek, struct err *err)
{
	own(ca_keystore) keystore = mem_zalloc(sizeof(*keystore));

	if (keystore == NULL)
		return err_memory(err);
	TRY(list_cas(keystore, dir, err));
	for (size_t i = 0; i < keystore->count; i++)
		TRY(read_ca(&keystore->cas[i], dir, kek, err));
	TRY(read_checkpoint_key(&keystore->checkpoint_key, dir, kek, err));
	*out = give(keystore);
	return OK;
}
