#include <string.h>

#include "server/issuance/internal.h"

/* Three claims an item; a quarter full at most, so that probing is short. */
#define CLAIM_TABLE 4096
_Static_assert(CLAIM_TABLE >= 4 * 3 * SIGNER_BATCH_MAX, "the claim table is too small");

/*
 * Claims are compared by their hash alone: two that collide by chance are put into different batches,
 * which costs a round and nothing else.
 */
struct claims {
	uint64_t hashes[CLAIM_TABLE]; /* 0: free */
};

static uint64_t
mix(uint64_t hash, const void *data, size_t len)
{
	const uint8_t *octets = data;

	for (size_t i = 0; i < len; i++)
		hash = (hash ^ octets[i]) * UINT64_C(0x100000001b3); /* FNV-1a */
	return hash;
}

static uint64_t
claim_hash(char kind, const void *a, size_t a_len, const void *b, size_t b_len)
{
	uint64_t hash = mix(UINT64_C(0xcbf29ce484222325), &kind, 1);

	hash = mix(hash, a, a_len);
	hash = mix(hash, "", 1);
	hash = mix(hash, b, b_len);
	return hash != 0 ? hash : 1;
}

static size_t
claims_of(const struct issuance_item *item, uint64_t out[3])
{
	size_t count = 0;

	out[count++] = claim_hash('k', item->csr->spki_sha256, sizeof(item->csr->spki_sha256), "", 0);
	out[count++] = claim_hash('d', item->request.device_id, strlen(item->request.device_id), "", 0);
	if (item->idempotency_key != NULL)
		out[count++] = claim_hash('i', item->actor, strlen(item->actor),
			item->idempotency_key, strlen(item->idempotency_key));
	return count;
}

static uint64_t *
find(struct claims *claims, uint64_t hash)
{
	size_t at = (size_t)(hash >> 20) % CLAIM_TABLE;

	while (claims->hashes[at] != 0 && claims->hashes[at] != hash)
		at = (at + 1) % CLAIM_TABLE;
	return &claims->hashes[at];
}

static bool
claim_all(struct claims *claims, const uint64_t *hashes, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (*find(claims, hashes[i]) != 0)
			return false;
	for (size_t i = 0; i < count; i++)
		*find(claims, hashes[i]) = hashes[i];
	return true;
}

void
item_list_init(struct item_list *list)
{
	*list = (struct item_list){ .first = NULL };
	list->last = &list->first;
}

void
item_list_add(struct item_list *list, struct issuance_item *item)
{
	item->next = NULL;
	*list->last = item;
	list->last = &item->next;
	list->count++;
}

struct issuance_item *
item_list_take_first(struct item_list *list)
{
	struct issuance_item *item = list->first;

	if (item == NULL)
		return NULL;
	list->first = item->next;
	if (list->first == NULL)
		list->last = &list->first;
	list->count--;
	item->next = NULL;
	return item;
}

size_t
pick_batch(struct item_list *from, struct issuance_item **out, size_t max)
{
	struct claims claims = { .hashes = { 0 } };
	struct issuance_item **at = &from->first;
	size_t count = 0;

	while (*at != NULL && count < max) {
		struct issuance_item *item = *at;
		uint64_t hashes[3];
		size_t hash_count = claims_of(item, hashes);

		if (!claim_all(&claims, hashes, hash_count)) {
			at = &item->next;
			continue;
		}
		*at = item->next;
		if (*at == NULL)
			from->last = at;
		from->count--;
		item->next = NULL;
		out[count++] = item;
	}
	return count;
}
