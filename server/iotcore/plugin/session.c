#include "server/iotcore/plugin/session.h"

#include <string.h>

#include "base/mem.h"

#define BUCKETS_FIRST 256
#define TOPICS_BYTES (64 * 1024) /* told of one round: the rest is not */

/* Actions that are judged here, and the heads of their resources. */
static const enum policy_action ACTIONS[] = { POLICY_CONNECT, POLICY_PUBLISH, POLICY_RETAIN_PUBLISH,
	POLICY_RECEIVE, POLICY_SUBSCRIBE };

struct sessions {
	struct registry *registry;
	struct siphash_key key;
	struct session **buckets[SESSION_INDEXES];
	size_t bucket_count;
	size_t count; /* in the tables, also ended ones */
	size_t live;
	struct session *ended;
	uint64_t epoch;
	size_t sweep_at; /* the next bucket; bucket_count: nothing to sweep */
	char heads[POLICY_ACTION_COUNT][POLICY_HEAD_BYTES];
	size_t head_lens[POLICY_ACTION_COUNT];
};

enum status
sessions_new(struct sessions **out, struct registry *registry, const struct siphash_key *key,
	struct err *err)
{
	struct sessions *made = mem_zalloc(sizeof(*made));

	if (made == NULL)
		return err_memory(err);
	made->registry = registry;
	made->key = *key;
	made->epoch = 1;
	*out = made;
	return OK;
}

void
sessions_place(struct sessions *sessions, const char *region, const char *account_id)
{
	for (size_t i = 0; i < COUNT_OF(ACTIONS); i++)
		sessions->head_lens[ACTIONS[i]] = policy_resource_head(sessions->heads[ACTIONS[i]],
			ACTIONS[i], view_text(region), view_text(account_id));
}

size_t
sessions_count(const struct sessions *sessions)
{
	return sessions->live;
}

/*
 * Tables
 */

static uint64_t
key_hash(const struct sessions *sessions, enum session_index index, const struct session *session)
{
	switch (index) {
	case SESSION_BY_CLIENT:
		return siphash(&sessions->key, &session->client, sizeof(session->client));
	case SESSION_BY_CERTIFICATE:
		return siphash(
			&sessions->key, session->certificate_id, sizeof(session->certificate_id));
	case SESSION_BY_CLIENT_ID:
		return siphash(&sessions->key, session->client_id, strlen(session->client_id));
	case SESSION_INDEXES: break;
	}
	return 0;
}

static struct session **
bucket(const struct sessions *sessions, enum session_index index, uint64_t hash)
{
	return &sessions->buckets[index][hash & (sessions->bucket_count - 1)];
}

static void
hang_in(struct sessions *sessions, struct session *session)
{
	for (size_t i = 0; i < SESSION_INDEXES; i++) {
		struct session **first = bucket(sessions, (enum session_index)i,
			key_hash(sessions, (enum session_index)i, session));

		session->next[i] = *first;
		*first = session;
	}
}

static void
take_out(struct sessions *sessions, struct session *session)
{
	for (size_t i = 0; i < SESSION_INDEXES; i++) {
		struct session **at = bucket(sessions, (enum session_index)i,
			key_hash(sessions, (enum session_index)i, session));

		while (*at != session)
			at = &(*at)->next[i];
		*at = session->next[i];
	}
	sessions->count--;
}

static enum status
grow(struct sessions *sessions, struct err *err)
{
	size_t wanted = sessions->bucket_count == 0 ? BUCKETS_FIRST : sessions->bucket_count * 2;
	size_t before = sessions->bucket_count;
	struct session **old[SESSION_INDEXES];
	struct session **made[SESSION_INDEXES] = { NULL };

	for (size_t i = 0; i < SESSION_INDEXES; i++)
		if ((made[i] = mem_array(wanted, sizeof(struct session *))) == NULL) {
			while (i-- > 0)
				mem_free(made[i]);
			return err_memory(err);
		}
	memcpy(old, sessions->buckets, sizeof(old));
	memcpy(sessions->buckets, made, sizeof(made));
	sessions->bucket_count = wanted;
	for (size_t b = 0; b < before; b++) {
		struct session *next;

		for (struct session *s = old[SESSION_BY_CLIENT][b]; s != NULL; s = next) {
			next = s->next[SESSION_BY_CLIENT];
			hang_in(sessions, s);
		}
	}
	for (size_t i = 0; i < SESSION_INDEXES; i++)
		mem_free(old[i]);
	sessions->sweep_at = 0; /* the order is another: from the start */
	return OK;
}

static void
session_free(struct session *session)
{
	if (session == NULL)
		return;
	registry_grant_free(session->grant);
	buf_free(&session->subscribed);
	buf_free(&session->unsubscribed);
	mem_free(session->pairs);
	mem_free(session->client_id);
	mem_free(session);
}

void
sessions_free(struct sessions *sessions)
{
	if (sessions == NULL)
		return;
	for (size_t b = 0; b < sessions->bucket_count; b++) {
		struct session *next;

		for (struct session *s = sessions->buckets[SESSION_BY_CLIENT][b]; s != NULL;
			s = next) {
			next = s->next[SESSION_BY_CLIENT];
			session_free(s);
		}
	}
	for (size_t i = 0; i < SESSION_INDEXES; i++)
		mem_free(sessions->buckets[i]);
	mem_free(sessions);
}

struct session *
session_find(const struct sessions *sessions, const void *client)
{
	struct session *s;

	if (sessions->bucket_count == 0)
		return NULL;
	s = *bucket(sessions, SESSION_BY_CLIENT, siphash(&sessions->key, &client, sizeof(client)));
	while (s != NULL && s->client != client)
		s = s->next[SESSION_BY_CLIENT];
	return s;
}

struct session *
session_other(const struct sessions *sessions, const char *client_id, const void *client)
{
	struct session *s;

	if (sessions->bucket_count == 0)
		return NULL;
	s = *bucket(sessions, SESSION_BY_CLIENT_ID,
		siphash(&sessions->key, client_id, strlen(client_id)));
	while (s != NULL &&
		(s->ended || s->client == client || strcmp(s->client_id, client_id) != 0))
		s = s->next[SESSION_BY_CLIENT_ID];
	return s;
}

enum status
session_add(struct session **out, struct sessions *sessions, const struct session_setup *setup,
	struct err *err)
{
	struct session *old = session_find(sessions, setup->client);
	struct session *made = mem_zalloc(sizeof(*made));

	if (made != NULL)
		made->client_id = mem_strdup(setup->client_id);
	if (made == NULL || made->client_id == NULL) {
		mem_free(setup->pairs);
		mem_free(made);
		return err_memory(err);
	}
	made->client = setup->client;
	memcpy(made->certificate_id, setup->certificate_id, sizeof(made->certificate_id));
	hex_encode(made->certificate_hex, made->certificate_id, sizeof(made->certificate_id));
	event_uuid(made->uuid, setup->random);
	memcpy(made->address, setup->address, strnlen(setup->address, sizeof(made->address) - 1));
	(void)policy_address_parse(&made->source, view_text(setup->address));
	made->version = setup->version;
	made->not_after_s = setup->not_after_s;
	made->persistent = setup->persistent;
	made->pairs = setup->pairs;
	made->pair_count = setup->pair_count;
	made->subscribed.limit_bytes = made->unsubscribed.limit_bytes = TOPICS_BYTES;
	/* The broker uses the pointer for another client: the new session is found before the old
	 * one. */
	if (old != NULL)
		session_end(sessions, old);
	if (sessions->count >= sessions->bucket_count && grow(sessions, err) != OK) {
		session_free(made);
		return err->status;
	}
	made->checked = sessions->epoch;
	hang_in(sessions, made);
	sessions->count++;
	sessions->live++;
	*out = made;
	return OK;
}

void
session_end(struct sessions *sessions, struct session *session)
{
	if (session->ended)
		return;
	session->ended = true;
	session->next_ended = sessions->ended;
	sessions->ended = session;
	sessions->live--;
}

void
sessions_reap(struct sessions *sessions)
{
	struct session *next;

	for (struct session *s = sessions->ended; s != NULL; s = next) {
		next = s->next_ended;
		take_out(sessions, s);
		session_free(s);
	}
	sessions->ended = NULL;
}

/*
 * Judging
 */

static void
refresh(struct sessions *sessions, struct session *session)
{
	if (session->epoch == sessions->epoch && session->grant != NULL)
		return;
	registry_grant_free(session->grant);
	session->grant = registry_grant(
		sessions->registry, session->certificate_id, view_text(session->client_id));
	session->epoch = sessions->epoch;
	memset(session->decisions, 0, sizeof(session->decisions));
}

static bool
decide(const struct sessions *sessions, const struct session *session, enum policy_action action,
	struct view name, int64_t now_s)
{
	const struct registry_grant *grant = session->grant;
	struct policy_context context = {
		.now_s = now_s,
		.client_id = view_text(session->client_id),
		.certificate_id = { (const uint8_t *)session->certificate_hex,
			2 * REGISTRY_ID_BYTES },
		.source = session->source,
		.secure_transport = POLICY_YES,
		.connect_attributes = session->persistent ? POLICY_CONNECT_PERSISTENT : 0,
		.thing_attached = grant->has_thing ? POLICY_YES : POLICY_NO,
		.certificate = session->pairs,
		.certificate_count = session->pair_count,
	};
	struct policy_resource resource = {
		.head = { (const uint8_t *)sessions->heads[action], sessions->head_lens[action] },
		.name = name,
	};
	struct policy_decision decision;

	if (grant->has_thing) {
		context.thing_name = grant->thing_name;
		context.thing_type = grant->thing_type;
		context.thing_attributes = grant->attributes;
		context.thing_attribute_count = grant->attribute_count;
	}
	return policy_decide(grant->policies, grant->policy_count, action, resource, &context,
		       &decision) == POLICY_ALLOWED;
}

bool
session_may(struct sessions *sessions, struct session *session, enum policy_action action,
	struct view name, int64_t now_s)
{
	struct session_decision *kept;
	struct siphash_key key = sessions->key;
	uint64_t hash;

	refresh(sessions, session);
	if (session->grant == NULL || session->grant->status != REGISTRY_ACTIVE ||
		session->grant->broken || now_s > session->not_after_s)
		return false;
	key.k[0] ^= (uint64_t)action; /* of each action its own function */
	hash = siphash(&key, name.data, name.len);
	kept = &session->decisions[hash % SESSION_DECISIONS];
	if (kept->hash != hash || kept->at_s != (uint32_t)now_s || kept->at_s == 0)
		*kept = (struct session_decision){ .hash = hash,
			.at_s = (uint32_t)now_s,
			.allowed = decide(sessions, session, action, name, now_s) };
	return kept->allowed;
}

bool
session_may_stay(struct sessions *sessions, struct session *session, int64_t now_s)
{
	return session_may(sessions, session, POLICY_CONNECT, view_text(session->client_id), now_s);
}

bool
session_absent_may(struct sessions *sessions, const char *certificate_hex, const char *client_id,
	enum policy_action action, struct view name, int64_t now_s)
{
	struct session absent = { .client_id = mem_strdup(client_id), .not_after_s = INT64_MAX };
	bool may = false;

	if (absent.client_id != NULL &&
		hex_decode(absent.certificate_id, sizeof(absent.certificate_id), certificate_hex,
			strlen(certificate_hex))) {
		hex_encode(absent.certificate_hex, absent.certificate_id,
			sizeof(absent.certificate_id));
		may = session_may(sessions, &absent, action, name, now_s);
	}
	registry_grant_free(absent.grant);
	mem_free(absent.client_id);
	return may;
}

/*
 * Changes
 */

void
sessions_stale(struct sessions *sessions, const uint8_t certificate_id[REGISTRY_ID_BYTES],
	void (*each)(void *arg, struct session *session), void *arg)
{
	struct session *s;

	if (sessions->bucket_count == 0)
		return;
	s = *bucket(sessions, SESSION_BY_CERTIFICATE,
		siphash(&sessions->key, certificate_id, REGISTRY_ID_BYTES));
	for (; s != NULL; s = s->next[SESSION_BY_CERTIFICATE]) {
		if (memcmp(s->certificate_id, certificate_id, REGISTRY_ID_BYTES) != 0)
			continue;
		s->epoch = 0;
		if (!s->ended)
			each(arg, s);
	}
}

void
sessions_stale_all(struct sessions *sessions)
{
	sessions->epoch++;
	sessions->sweep_at = 0;
}

bool
sessions_sweep(struct sessions *sessions, size_t max,
	void (*each)(void *arg, struct session *session), void *arg)
{
	size_t done = 0;

	for (; sessions->sweep_at < sessions->bucket_count && done < max; sessions->sweep_at++) {
		struct session *s = sessions->buckets[SESSION_BY_CLIENT][sessions->sweep_at];

		for (; s != NULL; s = s->next[SESSION_BY_CLIENT]) {
			/* One that was judged since was not asked whether it may stay. */
			if (s->ended || s->checked == sessions->epoch)
				continue;
			s->checked = sessions->epoch;
			each(arg, s);
			done++;
		}
	}
	return sessions->sweep_at < sessions->bucket_count;
}

void
sessions_each(
	struct sessions *sessions, void (*each)(void *arg, struct session *session), void *arg)
{
	for (size_t b = 0; b < sessions->bucket_count; b++)
		for (struct session *s = sessions->buckets[SESSION_BY_CLIENT][b]; s != NULL;
			s = s->next[SESSION_BY_CLIENT])
			if (!s->ended)
				each(arg, s);
}

struct event_session
session_event(const struct session *session, char *thing)
{
	const struct registry_grant *grant = session->grant;
	bool has_thing =
		grant != NULL && grant->has_thing && grant->thing_name.len < DB_IOTCORE_KEY_BYTES;

	if (has_thing) {
		memcpy(thing, grant->thing_name.data, grant->thing_name.len);
		thing[grant->thing_name.len] = '\0';
	}
	return (struct event_session){ .client_id = session->client_id,
		.session_id = session->uuid,
		.certificate_id = session->certificate_hex,
		.thing = has_thing ? thing : NULL,
		.exclusive = has_thing && grant->exclusive,
		.address = session->address,
		.version = session->version };
}
