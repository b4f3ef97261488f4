#include "ca/responder.h"

#include <pthread.h>
#include <string.h>

#include "base/mem.h"
#include "ca/digest.h"
#include "ca/key.h"
#include "ca/ocsp_check.h"

#define ISSUERS_MAX 8 /* as in struct ca_signer_info */

struct responder {
	struct ca_key *key;  /* NULL: the place is free */
	uint64_t number;     /* of this key among all: the place may come to hold another */
	uint8_t spki_sha256[32];
	uint8_t key_hash[OCSP_KEY_HASH_BYTES];
	int64_t not_after_s; /* 0: not certified */
};

struct ca_responders {
	const struct clock *clock;
	struct ca_ocsp_issuer issuers[ISSUERS_MAX];
	size_t issuer_count;

	pthread_mutex_t lock; /* guards what follows */
	uint64_t made;
	struct responder keys[ISSUERS_MAX][RESPONDER_KEYS];
};

struct copy {
	struct ca_key *key;
	uint64_t number;
};

struct ca_responder_signers {
	struct ca_responders *shared;
	struct copy copies[ISSUERS_MAX][RESPONDER_KEYS];
};

enum status
ca_responders_new(struct ca_responders **out, const struct clock *clock, struct err *err)
{
	struct ca_responders *responders = mem_zalloc(sizeof(*responders));

	if (responders == NULL)
		return err_memory(err);
	if (pthread_mutex_init(&responders->lock, NULL) != 0) {
		mem_free(responders);
		return err_memory(err);
	}
	responders->clock = clock;
	*out = responders;
	return OK;
}

void
ca_responders_free(struct ca_responders *responders)
{
	if (responders == NULL)
		return;
	for (size_t i = 0; i < ISSUERS_MAX; i++)
		for (size_t k = 0; k < RESPONDER_KEYS; k++)
			ca_key_free(responders->keys[i][k].key);
	(void)pthread_mutex_destroy(&responders->lock);
	mem_free(responders);
}

enum status
ca_responders_add_issuer(struct ca_responders *responders, struct view certificate, struct err *err)
{
	if (responders->issuer_count == ISSUERS_MAX)
		return err_set(err, ERR_TOO_LARGE, "signer_setup", "responder: at most %d CAs wanted",
			ISSUERS_MAX);
	return ca_ocsp_issuer_init(
		&responders->issuers[responders->issuer_count++], certificate, err);
}

/* ---- keys ---- */

/* Where the next key goes. With the lock. */
static struct responder *
place_for_next(struct responder keys[RESPONDER_KEYS])
{
	struct responder *first = &keys[0];

	for (size_t k = 0; k < RESPONDER_KEYS; k++) {
		if (keys[k].key == NULL)
			return &keys[k];
		if (keys[k].not_after_s < first->not_after_s) /* 0, never certified, before all */
			first = &keys[k];
	}
	return first;
}

enum status
ca_responders_make(
	struct ca_responders *responders, size_t issuer, struct bytes *spki, struct err *err)
{
	struct responder made = { .not_after_s = 0 };
	own(ca_key) key = NULL;
	struct responder *place;
	struct ca_key *old;

	TRY(ca_key_generate(&key, KEY_EC_P256, err));
	ca_sha256(made.spki_sha256, ca_key_spki(key));
	TRY(ca_ocsp_key_hash(made.key_hash, ca_key_spki(key), err));
	TRY(bytes_copy(spki, ca_key_spki(key), err));
	made.key = give(key);
	(void)pthread_mutex_lock(&responders->lock);
	made.number = ++responders->made;
	place = place_for_next(responders->keys[issuer]);
	old = place->key;
	*place = made;
	(void)pthread_mutex_unlock(&responders->lock);
	ca_key_free(old);
	return OK;
}

/* With the lock; NULL: none. */
static struct responder *
find(struct ca_responders *responders, size_t issuer, const uint8_t spki_sha256[32])
{
	for (size_t k = 0; k < RESPONDER_KEYS; k++) {
		struct responder *one = &responders->keys[issuer][k];

		if (one->key != NULL && memcmp(one->spki_sha256, spki_sha256, 32) == 0)
			return one;
	}
	return NULL;
}

bool
ca_responders_have(
	struct ca_responders *responders, size_t issuer, const uint8_t spki_sha256[32])
{
	bool found;

	(void)pthread_mutex_lock(&responders->lock);
	found = find(responders, issuer, spki_sha256) != NULL;
	(void)pthread_mutex_unlock(&responders->lock);
	return found;
}

void
ca_responders_certified(struct ca_responders *responders, size_t issuer,
	const uint8_t spki_sha256[32], int64_t not_after_s)
{
	struct responder *one;

	(void)pthread_mutex_lock(&responders->lock);
	one = find(responders, issuer, spki_sha256);
	if (one != NULL)
		one->not_after_s = not_after_s;
	(void)pthread_mutex_unlock(&responders->lock);
}

/* ---- signing ---- */

enum status
ca_responder_signers_new(
	struct ca_responder_signers **out, struct ca_responders *responders, struct err *err)
{
	struct ca_responder_signers *signers = mem_zalloc(sizeof(*signers));

	if (signers == NULL)
		return err_memory(err);
	signers->shared = responders;
	*out = signers;
	return OK;
}

void
ca_responder_signers_free(struct ca_responder_signers *signers)
{
	if (signers == NULL)
		return;
	for (size_t i = 0; i < ISSUERS_MAX; i++)
		for (size_t k = 0; k < RESPONDER_KEYS; k++)
			ca_key_free(signers->copies[i][k].key);
	mem_free(signers);
}

/* With the lock of what is shared, under which nobody frees the key that is copied. */
static enum status
copy_of(struct copy *copy, const struct responder *from, struct err *err)
{
	if (copy->number == from->number)
		return OK;
	ca_key_free(give(copy->key));
	copy->number = 0;
	TRY(ca_key_dup(&copy->key, from->key, err));
	copy->number = from->number;
	return OK;
}

/* The thread's copy of the key with that hash, and how long it is certified; NULL: there is none. */
static enum status
find_copy(struct ca_responder_signers *signers, size_t issuer,
	const uint8_t key_hash[OCSP_KEY_HASH_BYTES], struct ca_key **key, int64_t *not_after_s,
	struct err *err)
{
	struct ca_responders *shared = signers->shared;
	enum status status = OK;

	*key = NULL;
	(void)pthread_mutex_lock(&shared->lock);
	for (size_t k = 0; k < RESPONDER_KEYS; k++) {
		const struct responder *one = &shared->keys[issuer][k];
		struct copy *copy = &signers->copies[issuer][k];

		if (one->key == NULL || memcmp(one->key_hash, key_hash, OCSP_KEY_HASH_BYTES) != 0)
			continue;
		status = copy_of(copy, one, err);
		*key = status == OK ? copy->key : NULL;
		*not_after_s = one->not_after_s;
	}
	(void)pthread_mutex_unlock(&shared->lock);
	return status;
}

enum status
ca_responder_sign(struct ca_responder_signers *signers, size_t issuer, struct ca_ocsp_item *item,
	struct err *err)
{
	struct ca_ocsp_rules rules = {
		.now_s = clock_wall_s(signers->shared->clock),
		.issuers = signers->shared->issuers,
		.issuer_count = signers->shared->issuer_count,
	};
	uint8_t signature[CA_SIGNATURE_MAX_BYTES];
	struct ca_key *key;
	size_t len;

	TRY(find_copy(signers, issuer, item->key_hash, &key, &rules.not_after_s, err));
	if (key == NULL || rules.now_s >= rules.not_after_s)
		return err_set(err, ERR_NOT_FOUND, "ocsp_key_unknown",
			"ocsp: no such responder key is here, or its certificate is not valid");
	memcpy(rules.key_hash, item->key_hash, sizeof(rules.key_hash));
	TRY(ca_ocsp_check(&rules, item->data, err));
	TRY(ca_key_sign(key, item->data, signature, &len, err));
	if (len > sizeof(item->signature))
		return err_set(err, ERR_INTERNAL, "internal", "ocsp: a signature of %zu octets", len);
	memcpy(item->signature, signature, len);
	item->signature_len = len;
	return OK;
}
