#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "ca/cert.h"
#include "ca/crl_walk.h"
#include "ca/digest.h"
#include "ca/key.h"
#include "ca/keystore.h"
#include "ca/lint.h"
#include "ca/responder.h"
#include "ca/signer_ops.h"
#include "ca/spki.h"
#include "ca/tbs.h"

#define ISSUERS_MAX 8 /* as in struct ca_signer_info */
/* What may be prepared and neither signed nor dropped, on one signer: sixteen batches. */
#define PREPARED_MAX 4096
#define PREPARED_MAX_AGE_MS 60000
/* Two million compromised keys, in 128 MiB; past that the operator must act. */
#define BLOCKED_MAX ((size_t)1 << 21)
#define BLOCKED_LEAST 1024
#define HOUR_MINUTES 60

/* A certificate of the key store and what of it goes into what it issues. */
struct issuer {
	const struct ca_keystore_entry *entry;
	struct ca_tbs_issuer tbs;
	struct ca_tbs_template *templates[CA_PROFILES_MAX]; /* none for a root or without a key */
};

/* What was signed in each minute of the last hour. */
struct cap {
	int64_t minutes[HOUR_MINUTES];
	unsigned counts[HOUR_MINUTES];
};

/* Open addressing; an all-zero digest is no key's. */
struct key_set {
	uint8_t (*keys)[32];
	size_t capacity, count; /* capacity: a power of two, at most half full */
};

struct ca_signer_shared {
	struct ca_signer_setup setup;
	struct issuer issuers[ISSUERS_MAX];
	size_t issuer_count;
	struct ca_responders *responders;

	pthread_mutex_t lock; /* guards what follows */
	struct key_set blocked;
	struct cap caps[CA_PROFILES_MAX];
	uint64_t crl_numbers[ISSUERS_MAX][CRL_SCOPE_COUNT];
	struct ca_checkpoint checkpoint; /* the last that was signed; number 0: none */

	_Atomic uint64_t prepared, signed_count;
};

/* ---- blocked keys ---- */

static size_t
key_slot(const struct key_set *set, const uint8_t key[32])
{
	uint64_t at;

	memcpy(&at, key, sizeof(at)); /* a digest is as good as a hash */
	for (at &= set->capacity - 1;; at = (at + 1) & (set->capacity - 1)) {
		static const uint8_t NONE[32];

		/* Half of the slots are free, so this ends. */
		if (memcmp(set->keys[at], key, 32) == 0 || memcmp(set->keys[at], NONE, 32) == 0)
			return (size_t)at;
	}
}

static bool
key_set_has(const struct key_set *set, const uint8_t key[32])
{
	return set->count > 0 && memcmp(set->keys[key_slot(set, key)], key, 32) == 0;
}

static enum status
key_set_grow(struct key_set *set, struct err *err)
{
	struct key_set larger = { .capacity = set->capacity > 0 ? set->capacity * 2 : BLOCKED_LEAST,
		.count = set->count };

	larger.keys = mem_array(larger.capacity, sizeof(*larger.keys));
	if (larger.keys == NULL)
		return err_memory(err);
	for (size_t i = 0; i < set->capacity; i++)
		memcpy(larger.keys[key_slot(&larger, set->keys[i])], set->keys[i], 32);
	mem_free(set->keys);
	*set = larger;
	return OK;
}

static enum status
key_set_add(struct key_set *set, const uint8_t key[32], struct err *err)
{
	if (key_set_has(set, key))
		return OK;
	if (set->count >= BLOCKED_MAX)
		return err_set(err, ERR_UNAVAILABLE, "signer_full",
			"signer: more than %zu blocked keys", BLOCKED_MAX);
	if (set->count * 2 >= set->capacity)
		TRY(key_set_grow(set, err));
	memcpy(set->keys[key_slot(set, key)], key, 32);
	set->count++;
	return OK;
}

static bool
is_blocked(struct ca_signer_shared *shared, const uint8_t spki_sha256[32])
{
	bool blocked;

	(void)pthread_mutex_lock(&shared->lock);
	blocked = key_set_has(&shared->blocked, spki_sha256);
	(void)pthread_mutex_unlock(&shared->lock);
	return blocked;
}

static enum status
block(struct ca_signer_shared *shared, const uint8_t spki_sha256[32], struct err *err)
{
	enum status status;

	(void)pthread_mutex_lock(&shared->lock);
	status = key_set_add(&shared->blocked, spki_sha256, err);
	(void)pthread_mutex_unlock(&shared->lock);
	return status;
}

/* ---- caps ---- */

static unsigned
cap_used(const struct cap *cap, int64_t minute)
{
	unsigned used = 0;

	for (size_t i = 0; i < HOUR_MINUTES; i++)
		if (cap->minutes[i] > minute - HOUR_MINUTES)
			used += cap->counts[i];
	return used;
}

/* Counted when prepared, given back when it is dropped: what is under way may be signed. */
static enum status
cap_take(struct ca_signer_shared *shared, size_t profile, int64_t minute, struct err *err)
{
	const struct ca_profile *p = &shared->setup.profiles[profile];
	struct cap *cap = &shared->caps[profile];
	size_t at = (size_t)(minute % HOUR_MINUTES);
	bool full;

	if (p->hourly_cap == 0)
		return OK;
	(void)pthread_mutex_lock(&shared->lock);
	full = cap_used(cap, minute) >= p->hourly_cap;
	if (!full && cap->minutes[at] != minute) {
		cap->minutes[at] = minute;
		cap->counts[at] = 0;
	}
	if (!full)
		cap->counts[at]++;
	(void)pthread_mutex_unlock(&shared->lock);
	if (!full)
		return OK;
	(void)err_set(err, ERR_TOO_MANY, "profile_hourly_cap",
		"profile %s: at most %u certificates an hour", p->name, p->hourly_cap);
	err->retry_after_s = 60;
	return ERR_TOO_MANY;
}

static void
cap_give_back(struct ca_signer_shared *shared, size_t profile, int64_t minute)
{
	struct cap *cap = &shared->caps[profile];
	size_t at = (size_t)(minute % HOUR_MINUTES);

	(void)pthread_mutex_lock(&shared->lock);
	if (cap->minutes[at] == minute && cap->counts[at] > 0)
		cap->counts[at]--;
	(void)pthread_mutex_unlock(&shared->lock);
}

/* ---- what is shared ---- */

void
ca_signer_shared_free(struct ca_signer_shared *shared)
{
	if (shared == NULL)
		return;
	for (size_t i = 0; i < shared->issuer_count; i++)
		for (size_t j = 0; j < CA_PROFILES_MAX; j++)
			ca_tbs_template_free(shared->issuers[i].templates[j]);
	ca_responders_free(shared->responders);
	mem_free(shared->blocked.keys);
	(void)pthread_mutex_destroy(&shared->lock);
	mem_free(shared);
}

static enum status
make_templates(struct ca_signer_shared *shared, struct issuer *issuer, struct err *err)
{
	const struct ca_signer_setup *setup = &shared->setup;

	for (size_t i = 0; i < setup->profile_count; i++)
		TRY(ca_tbs_template_new(&issuer->templates[i], &setup->profiles[i], &issuer->tbs,
			setup->public_http_url, err));
	return OK;
}

static enum status
add_issuer(struct ca_signer_shared *shared, const struct ca_keystore_entry *entry, struct err *err)
{
	struct issuer *issuer = &shared->issuers[shared->issuer_count++];
	struct ca_cert_view view;
	uint8_t digest[32];

	TRY(ca_cert_parse(&view, view_of(&entry->certificate), err));
	issuer->entry = entry;
	issuer->tbs = (struct ca_tbs_issuer){
		.ca_id = entry->ca_id,
		.subject = view.subject,
		.ski = view.ski,
		.not_before_s = view.not_before_s,
		.not_after_s = view.not_after_s,
	};
	/* A CA's key is its own: nobody gets a certificate for it here. */
	ca_sha256(digest, view.spki);
	TRY(key_set_add(&shared->blocked, digest, err));
	TRY(ca_responders_add_issuer(shared->responders, view_of(&entry->certificate), err));
	if (entry->key == NULL)
		return OK;
	if (view.ski.len == 0)
		return err_set(err, ERR_ARGUMENT, "ca_certificate",
			"%s: RFC 5280 4.2.1.2: a CA certificate with subjectKeyIdentifier wanted",
			entry->ca_id);
	if (!view_equal(view.spki, ca_key_spki(entry->key)))
		return err_set(err, ERR_ARGUMENT, "ca_certificate",
			"%s: the certificate is for another key", entry->ca_id);
	issuer->tbs.algorithm = ca_key_algorithm(entry->key);
	return entry->is_root ? OK : make_templates(shared, issuer, err);
}

static enum status
fill_shared(struct ca_signer_shared *shared, struct err *err)
{
	const struct ca_signer_setup *setup = &shared->setup;
	size_t count = ca_keystore_count(setup->keystore);

	if (count > ISSUERS_MAX || setup->profile_count > CA_PROFILES_MAX)
		return err_set(err, ERR_TOO_LARGE, "signer_setup",
			"signer: at most %d CAs and %d profiles wanted", ISSUERS_MAX,
			CA_PROFILES_MAX);
	TRY(ca_responders_new(&shared->responders, setup->clock, err));
	for (size_t i = 0; i < setup->profile_count; i++)
		TRY(ca_profile_check(&setup->profiles[i], err));
	for (size_t i = 0; i < count; i++)
		TRY(add_issuer(shared, ca_keystore_at(setup->keystore, i), err));
	return OK;
}

enum status
ca_signer_shared_new(
	struct ca_signer_shared **out, const struct ca_signer_setup *setup, struct err *err)
{
	struct ca_signer_shared *shared = mem_zalloc(sizeof(*shared));
	enum status status;

	if (shared == NULL)
		return err_memory(err);
	if (pthread_mutex_init(&shared->lock, NULL) != 0) {
		mem_free(shared);
		return err_memory(err);
	}
	shared->setup = *setup;
	/* Minute 0 is in the last hour of a machine that has just started. */
	for (size_t i = 0; i < CA_PROFILES_MAX; i++)
		for (size_t j = 0; j < HOUR_MINUTES; j++)
			shared->caps[i].minutes[j] = -HOUR_MINUTES;
	status = fill_shared(shared, err);
	if (status != OK) {
		ca_signer_shared_free(shared);
		return status;
	}
	*out = shared;
	return OK;
}

/* ---- one signer ---- */

struct prepared {
	uint64_t handle; /* 0: free */
	size_t issuer, profile;
	int64_t since_ms;
	int64_t not_after_s;
	uint8_t spki_sha256[32];
	struct bytes tbs;
	uint8_t tbs_sha256[32]; /* of those very octets */
};

struct crl_session {
	struct ca_key_stream *stream; /* NULL: none is begun */
	size_t issuer;
	struct ca_crl_walk walk;
};

struct local {
	struct ca_signer signer; /* first */
	struct ca_signer_shared *shared;
	struct ca_key *keys[ISSUERS_MAX];
	struct ca_verifier *verifier;
	struct ca_responder_signers *responders;
	struct der_writer writer; /* work space */
	struct crl_session crl;
	uint64_t turn;
	size_t free_count;
	uint16_t free_slots[PREPARED_MAX];
	struct prepared slots[PREPARED_MAX];
};

static struct local *
local_of(struct ca_signer *signer)
{
	return (struct local *)(void *)signer;
}

static int64_t
minute_of(int64_t ms)
{
	return ms / 60000;
}

/* ---- the table of what is prepared ---- */

static struct prepared *
find(struct local *local, uint64_t handle)
{
	struct prepared *slot = &local->slots[handle % PREPARED_MAX];

	return handle != 0 && slot->handle == handle ? slot : NULL;
}

static void
vacate(struct local *local, struct prepared *slot)
{
	bytes_free(&slot->tbs);
	slot->handle = 0;
	local->free_slots[local->free_count++] = (uint16_t)(slot - local->slots);
}

/* Given up by its owner, or by time: it will not be signed, so it does not count. */
static void
abandon(struct local *local, struct prepared *slot)
{
	cap_give_back(local->shared, slot->profile, minute_of(slot->since_ms));
	vacate(local, slot);
}

static bool
is_stale(const struct prepared *slot, int64_t now_ms)
{
	return now_ms - slot->since_ms > PREPARED_MAX_AGE_MS;
}

static void
sweep(struct local *local, int64_t now_ms)
{
	for (size_t i = 0; i < PREPARED_MAX; i++)
		if (local->slots[i].handle != 0 && is_stale(&local->slots[i], now_ms))
			abandon(local, &local->slots[i]);
}

static enum status
keep(struct local *local, const struct prepared *from, struct ca_prepare_item *item,
	struct err *err)
{
	struct prepared *slot;
	size_t at;

	if (local->free_count == 0)
		sweep(local, from->since_ms);
	if (local->free_count == 0) {
		(void)err_set(err, ERR_UNAVAILABLE, "signer_full",
			"signer: at most %d certificates may be prepared at once", PREPARED_MAX);
		err->retry_after_s = 1;
		return ERR_UNAVAILABLE;
	}
	at = local->free_slots[local->free_count - 1];
	slot = &local->slots[at];
	*slot = *from;
	TRY(bytes_copy(&slot->tbs, buf_view(&local->writer.buf), err));
	memcpy(slot->tbs_sha256, item->tbs_sha256, sizeof(slot->tbs_sha256));
	local->free_count--;
	slot->handle = ++local->turn * PREPARED_MAX + at;
	item->handle = slot->handle;
	return OK;
}

/* ---- prepare ---- */

static enum status
find_profile(
	const struct local *local, const struct ca_prepare_item *item, size_t *out, struct err *err)
{
	const struct ca_signer_setup *setup = &local->shared->setup;

	for (*out = 0; *out < setup->profile_count; (*out)++) {
		const struct ca_profile *profile = &setup->profiles[*out];

		if (memcmp(profile->hash, item->profile_hash, sizeof(profile->hash)) != 0)
			continue;
		/* One asker, and one that the profile names. */
		if (item->asker == 0 || (item->asker & (item->asker - 1)) != 0 ||
			(profile->issuable_by & item->asker) == 0)
			return err_set(err, ERR_DENIED, "profile_not_allowed",
				"profile %s: not for who asks", profile->name);
		if (strcmp(profile->name, CA_PROFILE_VERIFICATION) == 0 &&
			!ca_is_registration_code(item->request->device_id))
			return err_set(err, ERR_DENIED, "profile_not_allowed",
				"profile %s: a registration code of 64 hex digits wanted",
				profile->name);
		return OK;
	}
	return err_set(err, ERR_DENIED, "profile_unknown", "profile: unknown to the signer");
}

static enum status
find_issuer(const struct local *local, const char *ca_id, size_t *out, struct err *err)
{
	for (*out = 0; *out < local->shared->issuer_count; (*out)++)
		if (strcmp(local->shared->issuers[*out].entry->ca_id, ca_id) == 0 &&
			local->keys[*out] != NULL)
			return OK;
	return err_set(err, ERR_DENIED, "ca_unknown", "ca %.64s: no key of that CA is here", ca_id);
}

static enum status
check_key(struct local *local, const struct ca_profile *profile, struct view spki,
	enum ca_key_type *type, uint8_t spki_sha256[32], struct err *err)
{
	TRY(ca_spki_check(local->verifier, spki, type, err));
	if ((profile->key_types & *type) == 0)
		return err_set(err, ERR_ARGUMENT, "csr_key_not_allowed",
			"profile %s: a key of type %s is not allowed", profile->name,
			ca_key_type_name(*type));
	ca_sha256(spki_sha256, spki);
	if (is_blocked(local->shared, spki_sha256))
		return err_set(err, ERR_DENIED, "public_key_blocked",
			"this public key is never certified again");
	return OK;
}

static enum status
decide_validity(const struct local *local, const struct ca_tbs_issuer *issuer,
	const struct ca_profile *profile, struct ca_prepare_item *item, struct err *err)
{
	int64_t now_s = clock_wall_s(local->shared->setup.clock);
	int64_t validity_s = item->validity_s != 0 ? item->validity_s : profile->validity_default_s;

	if (now_s >= issuer->not_after_s)
		return err_set(
			err, ERR_UNAVAILABLE, "ca_expired", "ca %s: it has expired", issuer->ca_id);
	if (now_s < issuer->not_before_s)
		return err_set(err, ERR_UNAVAILABLE, "ca_not_yet_valid",
			"ca %s: it is not valid yet; is the clock right?", issuer->ca_id);
	if (validity_s < 0)
		return err_set(
			err, ERR_ARGUMENT, "validity_invalid", "validity: above zero wanted");
	if (validity_s > profile->validity_max_s)
		return err_set(err, ERR_ARGUMENT, "validity_too_long",
			"validity: at most %" PRId64 " s wanted by profile %s, %" PRId64 " found",
			profile->validity_max_s, profile->name, validity_s);
	item->not_before_s = now_s - profile->backdate_s;
	if (item->not_before_s < issuer->not_before_s)
		item->not_before_s = issuer->not_before_s;
	item->not_after_s = now_s + validity_s;
	item->clamped = item->not_after_s > issuer->not_after_s;
	if (item->clamped)
		item->not_after_s = issuer->not_after_s;
	return OK;
}

static enum status
build_and_lint(struct local *local, const struct issuer *issuer, size_t profile,
	enum ca_key_type key_type, struct ca_prepare_item *item, struct err *err)
{
	const struct ca_signer_setup *setup = &local->shared->setup;
	const struct ca_tbs_fields fields = {
		.request = item->request,
		.spki = item->spki,
		.key_type = key_type,
		.serial = item->serial,
		.not_before_s = item->not_before_s,
		.not_after_s = item->not_after_s,
	};
	const struct ca_lint lint = {
		.profile = &setup->profiles[profile],
		.ca_id = issuer->entry->ca_id,
		.public_http_url = setup->public_http_url,
		.issuer_subject = issuer->tbs.subject,
		.issuer_ski = issuer->tbs.ski,
		.issuer_algorithm = issuer->tbs.algorithm,
		.issuer_not_before_s = issuer->tbs.not_before_s,
		.issuer_not_after_s = issuer->tbs.not_after_s,
		.spki = item->spki,
		.serial = &item->serial,
	};
	struct view subject;

	TRY(ca_tbs_build(&local->writer, issuer->templates[profile], &fields, &subject, err));
	TRY(ca_lint_tbs(&lint, buf_view(&local->writer.buf), err));
	ca_name_text(item->subject, sizeof(item->subject), subject);
	ca_sha256(item->tbs_sha256, buf_view(&local->writer.buf));
	return OK;
}

static enum status
prepare_one(struct local *local, struct ca_prepare_item *item, struct err *err)
{
	struct ca_signer_shared *shared = local->shared;
	struct prepared slot = { .since_ms = clock_mono_ms(shared->setup.clock) };
	const struct ca_profile *profile;
	const struct issuer *issuer;
	enum ca_key_type key_type;
	enum status status;

	TRY(find_profile(local, item, &slot.profile, err));
	TRY(find_issuer(local, item->ca_id, &slot.issuer, err));
	profile = &shared->setup.profiles[slot.profile];
	issuer = &shared->issuers[slot.issuer];
	if (issuer->templates[slot.profile] == NULL)
		return err_set(err, ERR_DENIED, "ca_unknown",
			"ca %s: a root issues no certificates", issuer->entry->ca_id);
	TRY(check_key(local, profile, item->spki, &key_type, slot.spki_sha256, err));
	/* Who speaks for the CA about revocation has a key that never left this process. */
	if (ca_profile_is_responder(profile) &&
		!ca_responders_have(shared->responders, slot.issuer, slot.spki_sha256))
		return err_set(err, ERR_DENIED, "profile_not_allowed",
			"profile %s: only for keys that the signer made for it", profile->name);
	TRY(decide_validity(local, &issuer->tbs, profile, item, err));
	TRY(serial_draw(&item->serial, item->not_after_s, shared->setup.entropy, err));
	TRY(build_and_lint(local, issuer, slot.profile, key_type, item, err));
	slot.not_after_s = item->not_after_s;
	TRY(cap_take(shared, slot.profile, minute_of(slot.since_ms), err));
	status = keep(local, &slot, item, err);
	if (status != OK)
		cap_give_back(shared, slot.profile, minute_of(slot.since_ms));
	return status;
}

static enum status
local_prepare(
	struct ca_signer *signer, struct ca_prepare_item *items, size_t count, struct err *err)
{
	struct local *local = local_of(signer);
	uint64_t prepared = 0;

	(void)err; /* every refusal is an item's own */
	for (size_t i = 0; i < count; i++) {
		items[i].status = prepare_one(local, &items[i], &items[i].refusal);
		prepared += items[i].status == OK;
	}
	atomic_fetch_add(&local->shared->prepared, prepared);
	return OK;
}

/* ---- sign ---- */

/* Certificate (RFC 5280 4.1): the bytes that were linted, and a signature over them. */
static enum status
sign_tbs(struct local *local, const struct prepared *slot, struct ca_sign_item *item,
	struct err *err)
{
	struct der_writer *w = &local->writer;
	struct ca_key *key = local->keys[slot->issuer];
	uint8_t signature[CA_SIGNATURE_MAX_BYTES];
	size_t signature_len;

	if (ca_key_hashes_sha256(key))
		TRY(ca_key_sign_sha256(key, slot->tbs_sha256, signature, &signature_len, err));
	else
		TRY(ca_key_sign(key, view_of(&slot->tbs), signature, &signature_len, err));
	der_writer_reset(w);
	der_open(w, DER_SEQUENCE);
	der_put_raw(w, view_of(&slot->tbs));
	der_put_raw(w, local->shared->issuers[slot->issuer].tbs.algorithm);
	der_put_bits(w, (struct view){ signature, signature_len });
	der_close(w);
	TRY(der_finish(w, err));
	TRY(bytes_copy(&item->der, buf_view(&w->buf), err));
	ca_sha256(item->sha256, view_of(&item->der));
	return OK;
}

static enum status
sign_one(struct local *local, struct ca_sign_item *item, int64_t now_ms, struct err *err)
{
	struct prepared *slot = find(local, item->handle);
	enum status status;

	item->der = (struct bytes){ NULL, 0 };
	if (slot != NULL && is_stale(slot, now_ms)) {
		abandon(local, slot);
		slot = NULL;
	}
	if (slot == NULL)
		return err_set(err, ERR_NOT_FOUND, "handle_unknown",
			"nothing is prepared under this handle (any more)");
	/* The key may have been blocked since it was prepared (invariant 12). */
	if (is_blocked(local->shared, slot->spki_sha256)) {
		abandon(local, slot);
		return err_set(err, ERR_DENIED, "public_key_blocked",
			"this public key is never certified again");
	}
	status = sign_tbs(local, slot, item, err);
	if (status == OK &&
		ca_profile_is_responder(&local->shared->setup.profiles[slot->profile]))
		ca_responders_certified(local->shared->responders, slot->issuer, slot->spki_sha256,
			slot->not_after_s);
	vacate(local, slot); /* once, whatever came of it */
	return status;
}

static enum status
local_sign(struct ca_signer *signer, struct ca_sign_item *items, size_t count, struct err *err)
{
	struct local *local = local_of(signer);
	int64_t now_ms = clock_mono_ms(local->shared->setup.clock);
	uint64_t signed_count = 0;

	(void)err;
	for (size_t i = 0; i < count; i++) {
		items[i].status = sign_one(local, &items[i], now_ms, &items[i].refusal);
		signed_count += items[i].status == OK;
	}
	atomic_fetch_add(&local->shared->signed_count, signed_count);
	return OK;
}

static enum status
local_drop(struct ca_signer *signer, const uint64_t *handles, size_t count, struct err *err)
{
	struct local *local = local_of(signer);

	(void)err;
	for (size_t i = 0; i < count; i++) {
		struct prepared *slot = find(local, handles[i]);

		if (slot != NULL)
			abandon(local, slot);
	}
	return OK;
}

/* ---- CRLs ---- */

static void
crl_close(struct local *local)
{
	ca_key_stream_free(give(local->crl.stream));
}

static enum status
local_crl_begin(struct ca_signer *signer, const char *ca_id, struct err *err)
{
	struct local *local = local_of(signer);
	const struct ca_signer_setup *setup = &local->shared->setup;
	struct crl_session *crl = &local->crl;

	crl_close(local);
	TRY(find_issuer(local, ca_id, &crl->issuer, err));
	ca_crl_walk_begin(&crl->walk, &local->shared->issuers[crl->issuer].tbs,
		setup->public_http_url, clock_wall_s(setup->clock));
	return ca_key_stream_begin(&crl->stream, local->keys[crl->issuer], err);
}

static enum status
crl_none(struct err *err)
{
	return err_set(err, ERR_ARGUMENT, "crl_state", "crl: none is begun");
}

static enum status
local_crl_add(struct ca_signer *signer, struct view piece, struct err *err)
{
	struct local *local = local_of(signer);
	enum status status;

	if (local->crl.stream == NULL)
		return crl_none(err);
	status = ca_crl_walk_add(&local->crl.walk, piece, err);
	if (status == OK)
		status = ca_key_stream_add(local->crl.stream, piece, err);
	if (status != OK)
		crl_close(local);
	return status;
}

/*
 * RFC 5280 5.2.3: numbers grow from list to list of a scope. Full lists and deltas share them (5.2.4), but a
 * full list takes its time and may be signed after deltas with higher ones: only the very number of a
 * delta is no full list's any more. A delta may have that of the full list made with it; its base is a list
 * that was.
 */
static enum status
check_number(const uint64_t numbers[CRL_SCOPE_COUNT], const struct ca_crl_walk *walk,
	struct err *err)
{
	uint64_t above = numbers[walk->scope], full = numbers[CRL_SCOPE_ALL];

	if (walk->scope == CRL_SCOPE_ALL && numbers[CRL_SCOPE_DELTA] == walk->number)
		above = walk->number;
	if (walk->number <= above)
		return err_set(err, ERR_ARGUMENT, "crl_number",
			"crl: RFC 5280 5.2.3: cRLNumber above %" PRIu64 " wanted, %" PRIu64
			" found",
			above, walk->number);
	if (walk->scope == CRL_SCOPE_DELTA && full > 0 && walk->base_number > full)
		return err_set(err, ERR_ARGUMENT, "crl_delta",
			"crl: RFC 5280 5.2.4: BaseCRLNumber up to %" PRIu64 " wanted, %" PRIu64
			" found",
			full, walk->base_number);
	return OK;
}

/* The number counts as used before the key signs. */
static enum status
claim_number(struct ca_signer_shared *shared, size_t issuer, const struct ca_crl_walk *walk,
	struct err *err)
{
	uint64_t *numbers = shared->crl_numbers[issuer];
	enum status status;

	(void)pthread_mutex_lock(&shared->lock);
	status = check_number(numbers, walk, err);
	if (status == OK)
		numbers[walk->scope] = walk->number;
	(void)pthread_mutex_unlock(&shared->lock);
	return status;
}

static enum status
crl_sign(struct local *local, struct bytes *tail, struct err *err)
{
	struct crl_session *crl = &local->crl;
	struct der_writer *w = &local->writer;
	uint8_t signature[CA_SIGNATURE_MAX_BYTES];
	size_t signature_len;

	TRY(ca_crl_walk_end(&crl->walk, err));
	TRY(claim_number(local->shared, crl->issuer, &crl->walk, err));
	TRY(ca_key_stream_sign(crl->stream, signature, &signature_len, err));
	der_writer_reset(w);
	der_put_raw(w, local->shared->issuers[crl->issuer].tbs.algorithm);
	der_put_bits(w, (struct view){ signature, signature_len });
	TRY(der_finish(w, err));
	return bytes_copy(tail, buf_view(&w->buf), err);
}

static enum status
local_crl_end(struct ca_signer *signer, struct bytes *tail, struct err *err)
{
	struct local *local = local_of(signer);
	enum status status;

	if (local->crl.stream == NULL)
		return crl_none(err);
	status = crl_sign(local, tail, err);
	crl_close(local);
	return status;
}

/* ---- OCSP ---- */

static enum status
local_ocsp_key(struct ca_signer *signer, const char *ca_id, struct bytes *spki, struct err *err)
{
	struct local *local = local_of(signer);
	size_t issuer;

	TRY(find_issuer(local, ca_id, &issuer, err));
	return ca_responders_make(local->shared->responders, issuer, spki, err);
}

static enum status
ocsp_sign_one(struct local *local, struct ca_ocsp_item *item, struct err *err)
{
	size_t issuer;

	TRY(find_issuer(local, item->ca_id, &issuer, err));
	return ca_responder_sign(local->responders, issuer, item, err);
}

static enum status
local_ocsp_sign(struct ca_signer *signer, struct ca_ocsp_item *items, size_t count, struct err *err)
{
	(void)err; /* every refusal is an item's own */
	for (size_t i = 0; i < count; i++)
		items[i].status = ocsp_sign_one(local_of(signer), &items[i], &items[i].refusal);
	return OK;
}

/* ---- the rest ---- */

static enum status
local_block_key(struct ca_signer *signer, const uint8_t spki_sha256[32], struct err *err)
{
	return block(local_of(signer)->shared, spki_sha256, err);
}

/* What is signed is noted before anybody has it: of two that do not follow, one is refused. */
static enum status
local_checkpoint(struct ca_signer *signer, const struct ca_checkpoint *checkpoint, struct bytes *note,
	struct err *err)
{
	struct ca_signer_shared *shared = local_of(signer)->shared;
	const struct ca_checkpoint_key *key = ca_keystore_checkpoint_key(shared->setup.keystore);
	struct ca_checkpoint next = *checkpoint;
	enum status status;

	if (key == NULL || key->secret.data == NULL)
		return err_set(err, ERR_NOT_FOUND, "checkpoint_key_absent",
			"the key store has no key for checkpoints; `jitrca init` makes one");
	next.at_s = clock_wall_s(shared->setup.clock);
	(void)pthread_mutex_lock(&shared->lock);
	status = ca_checkpoint_follows(&shared->checkpoint, &next, err);
	if (status == OK)
		status = ca_checkpoint_sign(key, &next, note, err);
	if (status == OK)
		shared->checkpoint = next;
	(void)pthread_mutex_unlock(&shared->lock);
	return status;
}

static enum status
copy_ca(struct ca_signer_ca *out, const struct ca_keystore_entry *entry, struct err *err)
{
	(void)snprintf(out->ca_id, sizeof(out->ca_id), "%s", entry->ca_id);
	out->is_root = entry->is_root;
	out->can_sign = entry->key != NULL;
	TRY(bytes_copy(&out->certificate, view_of(&entry->certificate), err));
	for (size_t i = 0; i < entry->chain_count && i < COUNT_OF(out->chain); i++) {
		TRY(bytes_copy(&out->chain[i], view_of(&entry->chain[i]), err));
		out->chain_count++;
	}
	return OK;
}

static enum status
local_info(struct ca_signer *signer, struct ca_signer_info *out, struct err *err)
{
	struct ca_signer_shared *shared = local_of(signer)->shared;

	for (size_t i = 0; i < shared->issuer_count; i++) {
		out->ca_count++; /* before it is whole: what it has so far is freed with it */
		TRY(copy_ca(&out->cas[i], shared->issuers[i].entry, err));
	}
	out->profile_count = shared->setup.profile_count;
	for (size_t i = 0; i < out->profile_count; i++)
		memcpy(out->profile_hashes[i], shared->setup.profiles[i].hash, 32);
	const struct ca_checkpoint_key *key = ca_keystore_checkpoint_key(shared->setup.keystore);
	out->has_checkpoint_key = key != NULL;
	if (key != NULL)
		memcpy(out->checkpoint_key, key->public_key, sizeof(out->checkpoint_key));
	out->prepared = atomic_load(&shared->prepared);
	out->signed_count = atomic_load(&shared->signed_count);
	return OK;
}

static void
local_free(struct ca_signer *signer)
{
	struct local *local = local_of(signer);

	crl_close(local);
	for (size_t i = 0; i < PREPARED_MAX; i++)
		bytes_free(&local->slots[i].tbs);
	for (size_t i = 0; i < ISSUERS_MAX; i++)
		ca_key_free(local->keys[i]);
	ca_verifier_free(local->verifier);
	ca_responder_signers_free(local->responders);
	der_writer_free(&local->writer);
	mem_free(local);
}

static const struct ca_signer_ops LOCAL_OPS = {
	.prepare = local_prepare,
	.sign = local_sign,
	.drop = local_drop,
	.crl_begin = local_crl_begin,
	.crl_add = local_crl_add,
	.crl_end = local_crl_end,
	.block_key = local_block_key,
	.ocsp_key = local_ocsp_key,
	.ocsp_sign = local_ocsp_sign,
	.checkpoint = local_checkpoint,
	.info = local_info,
	.end = local_free,
};

static enum status
fill_local(struct local *local, struct err *err)
{
	const struct ca_signer_shared *shared = local->shared;

	TRY(ca_verifier_new(&local->verifier, err));
	TRY(ca_responder_signers_new(&local->responders, shared->responders, err));
	for (size_t i = 0; i < shared->issuer_count; i++)
		if (shared->issuers[i].entry->key != NULL)
			TRY(ca_key_dup(&local->keys[i], shared->issuers[i].entry->key, err));
	return OK;
}

enum status
ca_signer_local(struct ca_signer **out, struct ca_signer_shared *shared, struct err *err)
{
	struct local *local = mem_zalloc(sizeof(*local));
	enum status status;

	if (local == NULL)
		return err_memory(err);
	local->signer.ops = &LOCAL_OPS;
	local->shared = shared;
	/* A TBS, and around it a signature. */
	der_writer_init(&local->writer, TBS_MAX_BYTES + CA_SIGNATURE_MAX_BYTES + 128);
	while (local->free_count < PREPARED_MAX) {
		local->free_slots[local->free_count] =
			(uint16_t)(PREPARED_MAX - 1 - local->free_count);
		local->free_count++;
	}
	status = fill_local(local, err);
	if (status != OK) {
		local_free(&local->signer);
		return status;
	}
	*out = &local->signer;
	return OK;
}
