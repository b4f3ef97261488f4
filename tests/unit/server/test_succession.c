/* Which CA issues, by the rows of successions and the configured one. */
#include "server/succession.h"

#include <stdio.h>

#include "base/attr.h"
#include "tests/unit/base/test.h"

struct row {
	const char *old, *new, *state;
};
struct sample {
	const char *configured;
	struct row rows[3];
	const char *want;
};

static const struct sample SAMPLES[] = {
	{ "issuing-1", { { NULL, NULL, NULL } }, "issuing-1" },
	{ "issuing-1", { { "issuing-1", "issuing-2", "prepared" } }, "issuing-1" },
	{ "issuing-1", { { "issuing-1", "issuing-2", "registered" } }, "issuing-1" },
	{ "issuing-1", { { "issuing-1", "issuing-2", "issuing" } }, "issuing-2" },
	{ "issuing-1", { { "issuing-1", "issuing-2", "campaign" } }, "issuing-2" },
	{ "issuing-1", { { "issuing-1", "issuing-2", "retiring" } }, "issuing-2" },
	{ "issuing-1", { { "issuing-1", "issuing-2", "retired" } }, "issuing-2" },
	/* The configuration names the successor: before its time, and afterwards. */
	{ "issuing-2", { { "issuing-1", "issuing-2", "registered" } }, "issuing-1" },
	{ "issuing-2", { { "issuing-1", "issuing-2", "retired" } }, "issuing-2" },
	/* One after another. */
	{ "a", { { "a", "b", "retired" }, { "b", "c", "retired" }, { "c", "d", "prepared" } }, "c" },
	{ "a", { { "a", "b", "retired" }, { "b", "c", "retired" }, { "c", "d", "issuing" } }, "d" },
	{ "d", { { "a", "b", "retired" }, { "b", "c", "retired" }, { "c", "d", "prepared" } }, "c" },
	{ "b", { { "a", "b", "retired" }, { "b", "c", "issuing" } }, "c" },
	/* Those of others. */
	{ "x", { { "a", "b", "retired" }, { "b", "c", "registered" } }, "x" },
};

static void
the_rows_say_who_issues(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(SAMPLES); i++) {
		struct db_succession rows[COUNT_OF(SAMPLES[i].rows)] = { { .succession_id = 0 } };
		size_t count = 0;

		for (; count < COUNT_OF(rows) && SAMPLES[i].rows[count].old != NULL; count++) {
			const struct row *row = &SAMPLES[i].rows[count];

			(void)snprintf(rows[count].old_ca, sizeof(rows[count].old_ca), "%s", row->old);
			(void)snprintf(rows[count].new_ca, sizeof(rows[count].new_ca), "%s", row->new);
			(void)snprintf(rows[count].state, sizeof(rows[count].state), "%s", row->state);
		}
		assert_string_equal(succession_issuing(SAMPLES[i].configured, rows, count),
			SAMPLES[i].want);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_rows_say_who_issues),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
