#include "server/iotcore/plugin/registry.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"

/* The head of every row: chained in its table's bucket. */
struct node {
	struct node *next;
	uint32_t hash;
	uint16_t key_len;
	uint16_t a_len, b_len, c_len; /* of the texts behind the key, as the kind has them */
	char text[];                  /* key, a, b, c; without NULs */
};

struct ca {
	bool active, auto_registration;
	struct bytes der;
	uint8_t id[REGISTRY_ID_BYTES];
};

/* a: policies, b: things. The key is the id's 32 octets. */
struct certificate {
	int64_t created_at_ms;
	uint16_t ca; /* index into ca_ids, from 1; 0: none */
	uint8_t status;
	struct node node;
};

/* a: type, b: attributes, c: groups */
struct thing {
	struct node node;
};

/* a: parent, b: policies */
struct group {
	struct node node;
};

/* Shared by the registry and grants. */
struct held {
	_Atomic uint32_t refs;
	struct policy *parsed; /* NULL: it could not be */
};

struct policy_row {
	struct held *held;
	struct node node;
};

struct table {
	struct node **buckets;
	size_t bucket_count; /* a power of two, 0 at first */
	size_t count;
};

#define BUCKETS_FIRST 64
#define CA_IDS_MAX 65535
#define CAS_MAX 65535

struct content {
	struct table tables[BROKER_KINDS]; /* of CAs unused: they are few, and gone through */
	struct ca *cas;
	size_t ca_count;
	uint8_t (*ca_ids)[REGISTRY_ID_BYTES]; /* of certificates, also of CAs that are gone */
	size_t ca_id_count;
};

struct registry {
	pthread_mutex_t lock;
	struct siphash_key key;
	struct content content;
	_Atomic uint64_t ca_generation;
};

/*
 * Policies, counted
 */

static struct held *
hold(struct held *held)
{
	(void)atomic_fetch_add_explicit(&held->refs, 1, memory_order_relaxed);
	return held;
}

static void
let_go(struct held *held)
{
	if (held == NULL || atomic_fetch_sub_explicit(&held->refs, 1, memory_order_acq_rel) != 1)
		return;
	policy_free(held->parsed);
	mem_free(held);
}

/*
 * Tables
 */

/* Where the row begins: the node is its last member. */
static void *
row_of(enum db_broker_kind kind, struct node *node)
{
	char *at = (char *)node;

	if (node == NULL)
		return NULL;
	switch (kind) {
	case BROKER_CERTIFICATE: return at - offsetof(struct certificate, node);
	case BROKER_POLICY: return at - offsetof(struct policy_row, node);
	case BROKER_THING:
	case BROKER_GROUP:
	case BROKER_CA:
	case BROKER_UNSET:
	case BROKER_KINDS: break;
	}
	return at;
}

static void
row_free(enum db_broker_kind kind, struct node *node)
{
	if (node == NULL)
		return;
	if (kind == BROKER_POLICY)
		let_go(((struct policy_row *)row_of(kind, node))->held);
	mem_free(row_of(kind, node));
}

static struct node **
find_slot(const struct registry *registry, const struct table *table, struct view key)
{
	uint32_t hash = (uint32_t)siphash(&registry->key, key.data, key.len);
	struct node **slot;

	if (table->bucket_count == 0)
		return NULL;
	slot = &table->buckets[hash & (table->bucket_count - 1)];
	while (*slot != NULL && ((*slot)->hash != hash || (*slot)->key_len != key.len ||
					memcmp((*slot)->text, key.data, key.len) != 0))
		slot = &(*slot)->next;
	return slot;
}

static void *
find(const struct registry *registry, enum db_broker_kind kind, struct view key)
{
	struct node **slot = find_slot(registry, &registry->content.tables[kind], key);

	return slot == NULL ? NULL : row_of(kind, *slot);
}

static struct view
text_a(const struct node *node)
{
	return (struct view){ (const uint8_t *)node->text + node->key_len, node->a_len };
}

static struct view
text_b(const struct node *node)
{
	return (struct view){ (const uint8_t *)node->text + node->key_len + node->a_len,
		node->b_len };
}

static struct view
text_c(const struct node *node)
{
	return (struct view){
		(const uint8_t *)node->text + node->key_len + node->a_len + node->b_len, node->c_len
	};
}

/* A row with `before` octets in front of its node. */
static enum status
row_new(const struct registry *registry, size_t before, struct view key, struct view a,
	struct view b, struct view c, struct node **out, struct err *err)
{
	char *memory;
	struct node *node;

	if (key.len > UINT16_MAX || a.len > UINT16_MAX || b.len > UINT16_MAX || c.len > UINT16_MAX)
		return err_set(err, ERR_TOO_LARGE, "registry_row",
			"a row of the registry: texts of %zu, %zu and %zu octets, up to %d are "
		        "kept",
			a.len, b.len, c.len, UINT16_MAX);
	memory = mem_zalloc(before + sizeof(*node) + key.len + a.len + b.len + c.len);
	if (memory == NULL)
		return err_memory(err);
	node = (struct node *)(void *)(memory + before);
	node->hash = (uint32_t)siphash(&registry->key, key.data, key.len);
	node->key_len = (uint16_t)key.len;
	node->a_len = (uint16_t)a.len;
	node->b_len = (uint16_t)b.len;
	node->c_len = (uint16_t)c.len;
	memcpy(node->text, key.data, key.len);
	if (a.len > 0)
		memcpy(node->text + key.len, a.data, a.len);
	if (b.len > 0)
		memcpy(node->text + key.len + a.len, b.data, b.len);
	if (c.len > 0)
		memcpy(node->text + key.len + a.len + b.len, c.data, c.len);
	*out = node;
	return OK;
}

static enum status
table_grow(struct table *table, struct err *err)
{
	size_t wanted = table->bucket_count == 0 ? BUCKETS_FIRST : table->bucket_count * 2;
	/* NOLINTNEXTLINE(bugprone-sizeof-expression): pointers are what it holds */
	struct node **buckets = mem_array(wanted, sizeof(*buckets));

	if (buckets == NULL)
		return err_memory(err);
	for (size_t i = 0; i < table->bucket_count; i++) {
		struct node *next;

		for (struct node *node = table->buckets[i]; node != NULL; node = next) {
			struct node **slot = &buckets[node->hash & (wanted - 1)];

			next = node->next;
			node->next = *slot;
			*slot = node;
		}
	}
	mem_free(table->buckets);
	table->buckets = buckets;
	table->bucket_count = wanted;
	return OK;
}

/* Takes node when it succeeds; *old is what it replaced, for the caller to free without the lock.
 */
static enum status
table_put(const struct registry *registry, struct table *table, struct node *node,
	struct node **old, struct err *err)
{
	struct node **slot;

	if (table->count >= table->bucket_count)
		TRY(table_grow(table, err));
	slot = find_slot(
		registry, table, (struct view){ (const uint8_t *)node->text, node->key_len });
	*old = *slot;
	if (*old != NULL)
		node->next = (*old)->next;
	else
		table->count++;
	*slot = node;
	return OK;
}

static struct node *
table_take(const struct registry *registry, struct table *table, struct view key)
{
	struct node **slot = find_slot(registry, table, key);
	struct node *node = slot == NULL ? NULL : *slot;

	if (node != NULL) {
		*slot = node->next;
		table->count--;
	}
	return node;
}

static void
content_free(struct content *content)
{
	for (size_t kind = 0; kind < BROKER_KINDS; kind++) {
		struct table *table = &content->tables[kind];

		for (size_t i = 0; i < table->bucket_count; i++) {
			struct node *next;

			for (struct node *node = table->buckets[i]; node != NULL; node = next) {
				next = node->next;
				row_free((enum db_broker_kind)kind, node);
			}
		}
		mem_free(table->buckets);
	}
	for (size_t i = 0; i < content->ca_count; i++)
		bytes_free(&content->cas[i].der);
	mem_free(content->cas);
	mem_free(content->ca_ids);
	*content = (struct content){ .cas = NULL };
}

enum status
registry_new(struct registry **out, const struct siphash_key *key, struct err *err)
{
	struct registry *made = mem_zalloc(sizeof(*made));

	if (made == NULL)
		return err_memory(err);
	(void)pthread_mutex_init(&made->lock, NULL);
	made->key = *key;
	*out = made;
	return OK;
}

void
registry_free(struct registry *registry)
{
	if (registry == NULL)
		return;
	content_free(&registry->content);
	(void)pthread_mutex_destroy(&registry->lock);
	mem_free(registry);
}

/*
 * Writing
 */

static enum registry_status
status_of(struct view name)
{
	if (view_equal_text(name, "ACTIVE"))
		return REGISTRY_ACTIVE;
	if (view_equal_text(name, "PENDING_ACTIVATION"))
		return REGISTRY_PENDING_ACTIVATION;
	return REGISTRY_OTHER;
}

/* Only the writer changes content, so it may look without the lock; it takes it to change. */
static enum status
ca_index(struct registry *registry, struct view ca_id, uint16_t *out, struct err *err)
{
	struct content *content = &registry->content;
	uint8_t id[REGISTRY_ID_BYTES];
	uint8_t(*more)[REGISTRY_ID_BYTES];

	*out = 0;
	if (!hex_decode(id, sizeof(id), (const char *)ca_id.data, ca_id.len))
		return OK;
	for (size_t i = 0; i < content->ca_id_count; i++)
		if (memcmp(content->ca_ids[i], id, sizeof(id)) == 0) {
			*out = (uint16_t)(i + 1);
			return OK;
		}
	if (content->ca_id_count == CA_IDS_MAX)
		return err_set(err, ERR_TOO_MANY, "registry_row",
			"certificates of more than %d CAs", CA_IDS_MAX);
	(void)pthread_mutex_lock(&registry->lock);
	more = mem_realloc(content->ca_ids, (content->ca_id_count + 1) * sizeof(*more));
	if (more != NULL) {
		content->ca_ids = more;
		memcpy(more[content->ca_id_count], id, sizeof(id));
		*out = (uint16_t)++content->ca_id_count;
	}
	(void)pthread_mutex_unlock(&registry->lock);
	return more == NULL ? err_memory(err) : OK;
}

static enum status
put_node(struct registry *registry, enum db_broker_kind kind, struct node *node, struct err *err)
{
	struct node *old = NULL;
	enum status status;

	(void)pthread_mutex_lock(&registry->lock);
	status = table_put(registry, &registry->content.tables[kind], node, &old, err);
	(void)pthread_mutex_unlock(&registry->lock);
	row_free(kind, status == OK ? old : node);
	return status;
}

static enum status
put_certificate(struct registry *registry, const struct db_broker_row *row, struct err *err)
{
	static const struct view NOTHING = { NULL, 0 };
	uint8_t id[REGISTRY_ID_BYTES];
	struct certificate *certificate;
	struct node *node;
	uint16_t ca;

	if (!hex_decode(id, sizeof(id), (const char *)row->key.data, row->key.len))
		return err_set(
			err, ERR_INTERNAL, "database_shape", "a certificate id that is no SHA-256");
	TRY(ca_index(registry, row->certificate.ca_id, &ca, err));
	TRY(row_new(registry, offsetof(struct certificate, node), (struct view){ id, sizeof(id) },
		row->certificate.policies, row->certificate.things, NOTHING, &node, err));
	certificate = row_of(BROKER_CERTIFICATE, node);
	certificate->created_at_ms = row->certificate.created_at_ms;
	certificate->ca = ca;
	certificate->status = (uint8_t)status_of(row->certificate.status);
	return put_node(registry, BROKER_CERTIFICATE, node, err);
}

static enum status
put_policy(struct registry *registry, const struct db_broker_row *row, struct err *err)
{
	static const struct view NOTHING = { NULL, 0 };
	struct held *held = mem_zalloc(sizeof(*held));
	struct node *node = NULL;
	struct err wrong;
	enum status status;

	if (held == NULL)
		return err_memory(err);
	held->refs = 1;
	status = policy_parse(&held->parsed, row->policy.document, &wrong);
	if (status == ERR_ARGUMENT)
		log_event(LOG_ERROR, "policy_unreadable", NULL, LOG_VIEW("policy", row->key),
			LOG_STR("detail", wrong.text));
	if (status != OK && status != ERR_ARGUMENT) {
		let_go(held);
		*err = wrong;
		return status;
	}
	status = row_new(registry, offsetof(struct policy_row, node), row->key, NOTHING, NOTHING,
		NOTHING, &node, err);
	if (status != OK) {
		let_go(held);
		return status;
	}
	((struct policy_row *)row_of(BROKER_POLICY, node))->held = held;
	return put_node(registry, BROKER_POLICY, node, err);
}

static size_t
ca_place(const struct content *content, const uint8_t id[REGISTRY_ID_BYTES])
{
	size_t i = 0;

	while (i < content->ca_count && memcmp(content->cas[i].id, id, REGISTRY_ID_BYTES) != 0)
		i++;
	return i;
}

static enum status
put_ca(struct registry *registry, const struct db_broker_row *row, struct err *err)
{
	struct content *content = &registry->content;
	struct ca made = { .active = row->ca.active,
		.auto_registration = row->ca.auto_registration };
	struct bytes old = { NULL, 0 };
	enum status status = OK;
	size_t place;

	if (!hex_decode(made.id, sizeof(made.id), (const char *)row->key.data, row->key.len))
		return err_set(err, ERR_INTERNAL, "database_shape", "a CA's id that is no SHA-256");
	if (content->ca_count == CAS_MAX)
		return err_set(err, ERR_TOO_MANY, "registry_row", "more than %d CAs", CAS_MAX);
	TRY(bytes_copy(&made.der, row->ca.der, err));
	(void)pthread_mutex_lock(&registry->lock);
	place = ca_place(content, made.id);
	if (place == content->ca_count) {
		struct ca *more = mem_realloc(content->cas, (place + 1) * sizeof(*more));

		if (more != NULL) {
			content->cas = more;
			content->ca_count++;
		} else {
			status = err_memory(err);
			old = made.der;
		}
	} else {
		old = content->cas[place].der;
	}
	if (status == OK)
		content->cas[place] = made;
	(void)pthread_mutex_unlock(&registry->lock);
	bytes_free(&old);
	(void)atomic_fetch_add(&registry->ca_generation, 1);
	return status;
}

enum status
registry_put(struct registry *registry, const struct db_broker_row *row, struct err *err)
{
	static const struct view NOTHING = { NULL, 0 };
	struct node *node = NULL;

	switch (row->kind) {
	case BROKER_CA: return put_ca(registry, row, err);
	case BROKER_CERTIFICATE: return put_certificate(registry, row, err);
	case BROKER_POLICY: return put_policy(registry, row, err);
	case BROKER_THING:
		TRY(row_new(registry, 0, row->key, row->thing.type, row->thing.attributes,
			row->thing.groups, &node, err));
		return put_node(registry, BROKER_THING, node, err);
	case BROKER_GROUP:
		TRY(row_new(registry, 0, row->key, row->group.parent, row->group.policies, NOTHING,
			&node, err));
		return put_node(registry, BROKER_GROUP, node, err);
	case BROKER_UNSET:
	case BROKER_KINDS: break;
	}
	return err_set(err, ERR_INTERNAL, "database_shape", "a row of no kind");
}

static void
drop_ca(struct registry *registry, const uint8_t id[REGISTRY_ID_BYTES])
{
	struct content *content = &registry->content;
	struct bytes old = { NULL, 0 };
	size_t place;

	(void)pthread_mutex_lock(&registry->lock);
	place = ca_place(content, id);
	if (place < content->ca_count) {
		old = content->cas[place].der;
		content->cas[place] = content->cas[--content->ca_count];
	}
	(void)pthread_mutex_unlock(&registry->lock);
	bytes_free(&old);
	(void)atomic_fetch_add(&registry->ca_generation, 1);
}

void
registry_drop(struct registry *registry, enum db_broker_kind kind, const char *key)
{
	struct view name = view_text(key);
	uint8_t id[REGISTRY_ID_BYTES];
	struct node *node;

	assert(kind > BROKER_UNSET && kind < BROKER_KINDS);
	if (kind == BROKER_CA || kind == BROKER_CERTIFICATE) {
		if (!hex_decode(id, sizeof(id), key, name.len))
			return;
		name = (struct view){ id, sizeof(id) };
	}
	if (kind == BROKER_CA) {
		drop_ca(registry, id);
		return;
	}
	(void)pthread_mutex_lock(&registry->lock);
	node = table_take(registry, &registry->content.tables[kind], name);
	(void)pthread_mutex_unlock(&registry->lock);
	row_free(kind, node);
}

void
registry_exchange(struct registry *registry, struct registry *from)
{
	struct content old;

	(void)pthread_mutex_lock(&registry->lock);
	assert(memcmp(&registry->key, &from->key, sizeof(registry->key)) == 0);
	old = registry->content;
	registry->content = from->content;
	(void)pthread_mutex_unlock(&registry->lock);
	from->content = (struct content){ .cas = NULL };
	content_free(&old);
	(void)atomic_fetch_add(&registry->ca_generation, 1);
}

size_t
registry_count(const struct registry *registry, enum db_broker_kind kind)
{
	return kind == BROKER_CA ? registry->content.ca_count
	                         : registry->content.tables[kind].count;
}

/*
 * Reading
 */

void
registry_certificate(struct registry *registry, const uint8_t id[REGISTRY_ID_BYTES],
	struct registry_certificate *out)
{
	const struct certificate *row;

	*out = (struct registry_certificate){ .status = REGISTRY_UNKNOWN };
	(void)pthread_mutex_lock(&registry->lock);
	row = find(registry, BROKER_CERTIFICATE, (struct view){ id, REGISTRY_ID_BYTES });
	if (row != NULL) {
		out->status = (enum registry_status)row->status;
		out->created_at_ms = row->created_at_ms;
		out->has_ca = row->ca != 0;
		if (out->has_ca)
			memcpy(out->ca_id, registry->content.ca_ids[row->ca - 1],
				sizeof(out->ca_id));
	}
	(void)pthread_mutex_unlock(&registry->lock);
}

uint64_t
registry_ca_generation(const struct registry *registry)
{
	return atomic_load(&registry->ca_generation);
}

bool
registry_ca_registers(struct registry *registry, const uint8_t id[REGISTRY_ID_BYTES])
{
	const struct content *content = &registry->content;
	bool registers;
	size_t place;

	(void)pthread_mutex_lock(&registry->lock);
	place = ca_place(content, id);
	registers = place < content->ca_count && content->cas[place].active &&
	            content->cas[place].auto_registration;
	(void)pthread_mutex_unlock(&registry->lock);
	return registers;
}

void
registry_cas(struct registry *registry, void (*each)(void *arg, struct view der), void *arg)
{
	const struct content *content = &registry->content;

	(void)pthread_mutex_lock(&registry->lock);
	for (size_t i = 0; i < content->ca_count; i++)
		if (content->cas[i].active && content->cas[i].auto_registration)
			each(arg, view_of(&content->cas[i].der));
	(void)pthread_mutex_unlock(&registry->lock);
}

/*
 * Grants
 */

/* The next line of *rest, which moves behind it. False: there is none. */
static bool
next_line(struct view *rest, struct view *line)
{
	const uint8_t *end;

	if (rest->len == 0)
		return false;
	end = memchr(rest->data, '\n', rest->len);
	line->data = rest->data;
	line->len = end == NULL ? rest->len : (size_t)(end - rest->data);
	rest->data += line->len;
	rest->len -= line->len;
	if (rest->len > 0) {
		rest->data++;
		rest->len--;
	}
	return true;
}

/* What a grant will hold, borrowed from the rows while the lock is held. */
struct gathering {
	const struct registry *registry;
	struct held *held[REGISTRY_POLICIES_MAX];
	size_t held_count;
	bool broken;
	const struct thing *thing;
	bool exclusive;
};

static void
gather_policies(struct gathering *g, struct view names)
{
	struct view name;

	while (next_line(&names, &name)) {
		const struct policy_row *row = find(g->registry, BROKER_POLICY, name);
		size_t i = 0;

		if (row == NULL || row->held->parsed == NULL) {
			g->broken = true;
			continue;
		}
		while (i < g->held_count && g->held[i] != row->held)
			i++;
		if (i < g->held_count)
			continue;
		if (g->held_count == COUNT_OF(g->held)) {
			g->broken = true;
			return;
		}
		g->held[g->held_count++] = row->held;
	}
}

static void
gather_group(struct gathering *g, struct view name)
{
	for (size_t depth = 0; name.len > 0; depth++) {
		const struct group *group = find(g->registry, BROKER_GROUP, name);

		/* Deeper than can be: a ring would never end. */
		if (group == NULL || depth == REGISTRY_DEPTH_MAX) {
			g->broken = true;
			return;
		}
		gather_policies(g, text_b(&group->node));
		name = text_a(&group->node);
	}
}

static void
gather_things(struct gathering *g, struct view names, struct view client_id)
{
	struct view name;
	struct view groups;
	struct view group;

	while (next_line(&names, &name)) {
		bool exclusive = name.len > 0 && name.data[0] == '!';
		const struct thing *thing;

		if (exclusive) {
			name.data++;
			name.len--;
		}
		thing = find(g->registry, BROKER_THING, name);
		if (thing == NULL) {
			g->broken = true;
			continue;
		}
		if (exclusive || (!g->exclusive && view_equal(name, client_id))) {
			g->thing = thing;
			g->exclusive |= exclusive;
		}
		groups = text_c(&thing->node);
		while (next_line(&groups, &group))
			gather_group(g, group);
	}
}

static size_t
line_count(struct view lines)
{
	struct view line;
	size_t count = 0;

	while (next_line(&lines, &line))
		count++;
	return count;
}

/* Behind the struct, in one piece: holders, policies, attributes, the thing's texts. */
struct grant_memory {
	struct registry_grant grant;
	struct held **held;
};

static void
copy_thing(struct registry_grant *grant, const struct node *node, char *text)
{
	struct view lines;
	struct view key;
	struct view value = { NULL, 0 };

	memcpy(text, node->text, (size_t)node->key_len + node->a_len + node->b_len);
	grant->has_thing = true;
	grant->thing_name = (struct view){ (const uint8_t *)text, node->key_len };
	grant->thing_type = (struct view){ (const uint8_t *)text + node->key_len, node->a_len };
	lines = (struct view){ (const uint8_t *)text + node->key_len + node->a_len, node->b_len };
	/* An empty last value leaves no line behind its name. */
	while (next_line(&lines, &key)) {
		if (!next_line(&lines, &value))
			value = (struct view){ NULL, 0 };
		grant->attributes[grant->attribute_count++] = (struct policy_pair){ key, value };
	}
}

static struct registry_grant *
grant_make(const struct gathering *g)
{
	const struct node *thing = g->thing == NULL ? NULL : &g->thing->node;
	size_t attributes = thing == NULL ? 0 : line_count(text_b(thing)) / 2 + 1;
	size_t text = thing == NULL ? 0 : (size_t)thing->key_len + thing->a_len + thing->b_len;
	struct grant_memory *memory =
		mem_zalloc(sizeof(*memory) +
			   g->held_count * (sizeof(struct policy *) + sizeof(struct held *)) +
			   attributes * sizeof(struct policy_pair) + text);
	struct registry_grant *grant;

	if (memory == NULL)
		return NULL;
	grant = &memory->grant;
	memory->held = (struct held **)(memory + 1);
	grant->policies = (const struct policy **)(void *)(memory->held + g->held_count);
	grant->attributes = (struct policy_pair *)(void *)(memory->held + 2 * g->held_count);
	for (size_t i = 0; i < g->held_count; i++) {
		memory->held[i] = hold(g->held[i]);
		grant->policies[i] = g->held[i]->parsed;
	}
	grant->policy_count = g->held_count;
	grant->broken = g->broken;
	grant->exclusive = g->exclusive;
	if (thing != NULL)
		copy_thing(grant, thing, (char *)(grant->attributes + attributes));
	return grant;
}

struct registry_grant *
registry_grant(
	struct registry *registry, const uint8_t id[REGISTRY_ID_BYTES], struct view client_id)
{
	struct gathering g = { .registry = registry };
	const struct certificate *row;
	struct registry_grant *grant;

	(void)pthread_mutex_lock(&registry->lock);
	row = find(registry, BROKER_CERTIFICATE, (struct view){ id, REGISTRY_ID_BYTES });
	if (row != NULL) {
		gather_policies(&g, text_a(&row->node));
		gather_things(&g, text_b(&row->node), client_id);
	}
	grant = grant_make(&g);
	if (grant != NULL)
		grant->status = row == NULL ? REGISTRY_UNKNOWN : (enum registry_status)row->status;
	(void)pthread_mutex_unlock(&registry->lock);
	return grant;
}

void
registry_grant_free(struct registry_grant *grant)
{
	struct grant_memory *memory = (struct grant_memory *)grant;

	if (grant == NULL)
		return;
	for (size_t i = 0; i < grant->policy_count; i++)
		let_go(memory->held[i]);
	mem_free(memory);
}
