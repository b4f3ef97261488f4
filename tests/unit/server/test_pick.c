#include "tests/unit/base/test.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "server/issuance/internal.h"

enum { MANY = 600 };

struct wanted {
	struct issuance_item item;
	struct ca_csr csr;
};

static struct wanted *
make(size_t count)
{
	struct wanted *all = mem_array(count, sizeof(*all));

	assert_non_null(all);
	for (size_t i = 0; i < count; i++) {
		all[i].item.csr = &all[i].csr;
		all[i].item.actor = "st-1";
		all[i].csr.spki_sha256[0] = (uint8_t)i;
		all[i].csr.spki_sha256[1] = (uint8_t)(i >> 8);
		(void)snprintf(all[i].item.request.device_id, sizeof(all[i].item.request.device_id),
			"unit-%zu", i);
	}
	return all;
}

static void
list_all(struct item_list *list, struct wanted *all, size_t count)
{
	item_list_init(list);
	for (size_t i = 0; i < count; i++)
		item_list_add(list, &all[i].item);
}

static void
who_shares_nothing_goes_together_in_order(void **state)
{
	struct wanted *all = make(MANY);
	struct issuance_item *out[SIGNER_BATCH_MAX];
	struct item_list list;
	size_t seen = 0;

	(void)state;
	list_all(&list, all, MANY);
	while (list.first != NULL) {
		size_t count = pick_batch(&list, out, SIGNER_BATCH_MAX);

		assert_int_equal(count, MANY - seen < SIGNER_BATCH_MAX ? MANY - seen : SIGNER_BATCH_MAX);
		for (size_t i = 0; i < count; i++)
			assert_ptr_equal(out[i], &all[seen++].item);
		assert_int_equal(list.count, MANY - seen);
	}
	assert_int_equal(seen, MANY);
	/* The emptied list still takes. */
	item_list_add(&list, &all[0].item);
	assert_ptr_equal(item_list_take_first(&list), &all[0].item);
	assert_null(item_list_take_first(&list));
	mem_free(all);
}

static void
who_shares_a_claim_waits_for_the_next_batch(void **state)
{
	enum { KEY = 1, DEVICE, IDEMPOTENCY, OTHER_PRINCIPAL };
	static const struct {
		int shared;
		size_t want_first;
	} CASES[] = { { KEY, 2 }, { DEVICE, 2 }, { IDEMPOTENCY, 2 }, { OTHER_PRINCIPAL, 3 } };

	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		struct wanted *all = make(3);
		struct issuance_item *out[SIGNER_BATCH_MAX];
		struct item_list list;

		if (CASES[i].shared == KEY)
			all[1].csr = all[0].csr;
		if (CASES[i].shared == DEVICE)
			all[1].item.request = all[0].item.request;
		if (CASES[i].shared >= IDEMPOTENCY)
			all[0].item.idempotency_key = all[1].item.idempotency_key = "k";
		if (CASES[i].shared == OTHER_PRINCIPAL)
			all[1].item.actor = "st-2";
		list_all(&list, all, 3);
		assert_int_equal(pick_batch(&list, out, SIGNER_BATCH_MAX), CASES[i].want_first);
		if (CASES[i].want_first == 2) {
			assert_ptr_equal(out[0], &all[0].item);
			assert_ptr_equal(out[1], &all[2].item);
			/* The last one that stays is where new ones are added. */
			item_list_add(&list, &all[2].item);
			assert_int_equal(pick_batch(&list, out, SIGNER_BATCH_MAX), 2);
			assert_ptr_equal(out[0], &all[1].item);
			assert_ptr_equal(out[1], &all[2].item);
		}
		assert_null(list.first);
		mem_free(all);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_shares_nothing_goes_together_in_order),
		cmocka_unit_test(who_shares_a_claim_waits_for_the_next_batch),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
