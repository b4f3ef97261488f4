#include "tests/unit/plugin/world.h"

static int
make(void **state)
{
	struct registry *registry = NULL;
	struct err err;

	assert_int_equal(registry_new(&registry, &KEY, &err), OK);
	*state = registry;
	return 0;
}

static int
end(void **state)
{
	registry_free(*state);
	return 0;
}

#define with_registry(test) cmocka_unit_test_setup_teardown(test, make, end)

#define A ID64("a1")
#define B ID64("b2")

static void
siphash_is_the_papers(void **state)
{
	/* "SipHash: a fast short-input PRF", appendix A: octets 00 to 0e. */
	uint8_t octets[15];

	(void)state;
	for (size_t i = 0; i < sizeof(octets); i++)
		octets[i] = (uint8_t)i;
	assert_true(siphash(&KEY, octets, sizeof(octets)) == 0xa129ca6149be45e5u);
}

static void
a_certificate_is_as_it_was_put_last(void **state)
{
	struct registry_certificate found;

	put(*state, certificate_row(A, "PENDING_ACTIVATION", "", ""));
	registry_certificate(*state, id_octets(A), &found);
	assert_int_equal(found.status, REGISTRY_PENDING_ACTIVATION);
	assert_true(
		found.has_ca && found.ca_id[31] == 0xca && found.created_at_ms == 1700000000123);
	put(*state, certificate_row(A, "ACTIVE", "", ""));
	registry_certificate(*state, id_octets(A), &found);
	assert_int_equal(found.status, REGISTRY_ACTIVE);
	put(*state, certificate_row(A, "REVOKED", "", ""));
	registry_certificate(*state, id_octets(A), &found);
	assert_int_equal(found.status, REGISTRY_OTHER);
	assert_int_equal(registry_count(*state, BROKER_CERTIFICATE), 1);
	registry_certificate(*state, id_octets(B), &found);
	assert_int_equal(found.status, REGISTRY_UNKNOWN);
	registry_drop(*state, BROKER_CERTIFICATE, A);
	registry_drop(*state, BROKER_CERTIFICATE, A);
	registry_drop(*state, BROKER_CERTIFICATE, "not an id");
	registry_certificate(*state, id_octets(A), &found);
	assert_int_equal(found.status, REGISTRY_UNKNOWN);
}

static void
a_status_that_nobody_knows_lets_nobody_in(void **state)
{
	struct registry_certificate found;

	put(*state, certificate_row(A, "SOMETHING_NEW", "", ""));
	registry_certificate(*state, id_octets(A), &found);
	assert_int_equal(found.status, REGISTRY_OTHER);
}

static void
ten_thousand_are_found_again(void **state)
{
	struct registry_certificate found;
	char id[65];

	for (unsigned i = 0; i < 10000; i++) {
		(void)snprintf(id, sizeof(id), "%064x", i * 2654435761u);
		put(*state, certificate_row(id, i % 2 ? "ACTIVE" : "INACTIVE", "p", "t"));
	}
	for (unsigned i = 0; i < 10000; i += 3) {
		(void)snprintf(id, sizeof(id), "%064x", i * 2654435761u);
		registry_drop(*state, BROKER_CERTIFICATE, id);
	}
	for (unsigned i = 0; i < 10000; i++) {
		(void)snprintf(id, sizeof(id), "%064x", i * 2654435761u);
		registry_certificate(*state, id_octets(id), &found);
		assert_int_equal(found.status, i % 3 == 0 ? REGISTRY_UNKNOWN
					       : i % 2    ? REGISTRY_ACTIVE
							  : REGISTRY_OTHER);
	}
}

/* What a grant comes to: how many policies, whether it is broken, which thing. */
static const struct grant_case {
	const char *policies, *things, *client_id;
	size_t want_policies;
	bool want_broken;
	const char *want_thing; /* NULL: none */
} GRANTS[] = {
	{ "", "", "c", 0, false, NULL },
	{ "allow", "", "c", 1, false, NULL },
	{ "allow\ndeny", "", "c", 2, false, NULL },
	{ "gone", "", "c", 0, true, NULL },
	{ "unreadable\nallow", "", "c", 1, true, NULL },
	{ "allow", "plain", "c", 1, false, NULL },
	{ "allow", "plain", "plain", 1, false, "plain" },
	{ "allow", "plain\n!only", "plain", 1, false, "only" },
	{ "allow", "!only\nplain", "plain", 1, false, "only" },
	{ "allow", "gone", "c", 1, true, NULL },
	{ "allow", "grouped", "grouped", 2, false, "grouped" }, /* of its group's parent */
	{ "allow\ndeny", "grouped", "c", 2, false, NULL },      /* the same policy twice is one */
	{ "allow", "ringed", "ringed", 1, true, "ringed" },
	{ "allow", "in_no_group", "c", 1, true, NULL },
};

static void
a_grant_is_of_certificate_things_and_groups(void **state)
{
	put(*state, policy_row("allow", ALLOW_ALL));
	put(*state, policy_row("deny", DENY_ALL));
	put(*state, policy_row("unreadable", "{"));
	put(*state, group_row("top", "", "deny"));
	put(*state, group_row("below", "top", ""));
	put(*state, group_row("ring_a", "ring_b", ""));
	put(*state, group_row("ring_b", "ring_a", ""));
	put(*state, thing_row("plain", "site\nberlin\nempty\n\nzone\n4", ""));
	put(*state, thing_row("only", "last\n", ""));
	put(*state, thing_row("grouped", "", "below"));
	put(*state, thing_row("ringed", "", "ring_a"));
	put(*state, thing_row("in_no_group", "", "nowhere"));
	for (size_t i = 0; i < COUNT_OF(GRANTS); i++) {
		const struct grant_case *c = &GRANTS[i];
		struct registry_grant *grant;

		put(*state, certificate_row(A, "ACTIVE", c->policies, c->things));
		grant = registry_grant(*state, id_octets(A), view_text(c->client_id));
		assert_non_null(grant);
		if (grant->policy_count != c->want_policies || grant->broken != c->want_broken)
			fail_msg("case %zu: %zu policies, broken %d", i, grant->policy_count,
				grant->broken);
		assert_int_equal(grant->status, REGISTRY_ACTIVE);
		assert_int_equal(grant->has_thing, c->want_thing != NULL);
		if (c->want_thing != NULL) {
			assert_true(view_equal_text(grant->thing_name, c->want_thing));
			assert_true(view_equal_text(grant->thing_type, "meter"));
		}
		registry_grant_free(grant);
	}
}

static void
attributes_may_be_empty(void **state)
{
	struct registry_grant *grant;

	put(*state, thing_row("t", "site\nberlin\nempty\n\nlast\n", ""));
	put(*state, certificate_row(A, "ACTIVE", "", "t"));
	grant = registry_grant(*state, id_octets(A), view_text("t"));
	assert_int_equal(grant->attribute_count, 3);
	assert_true(view_equal_text(grant->attributes[0].key, "site"));
	assert_true(view_equal_text(grant->attributes[0].value, "berlin"));
	assert_true(view_equal_text(grant->attributes[1].key, "empty"));
	assert_int_equal(grant->attributes[1].value.len, 0);
	assert_true(view_equal_text(grant->attributes[2].key, "last"));
	assert_int_equal(grant->attributes[2].value.len, 0);
	registry_grant_free(grant);
}

static void
more_policies_than_are_held_refuse(void **state)
{
	char names[REGISTRY_POLICIES_MAX * 8 + 64] = "";
	struct registry_grant *grant;
	size_t len = 0;

	for (unsigned i = 0; i <= REGISTRY_POLICIES_MAX; i++) {
		char name[16];

		(void)snprintf(name, sizeof(name), "p%u", i);
		put(*state, policy_row(name, ALLOW_ALL));
		len += (size_t)snprintf(
			names + len, sizeof(names) - len, "%s%s", i ? "\n" : "", name);
	}
	put(*state, certificate_row(A, "ACTIVE", names, ""));
	grant = registry_grant(*state, id_octets(A), view_text("c"));
	assert_true(grant->broken);
	registry_grant_free(grant);
}

static void
a_grant_outlives_what_it_came_from(void **state)
{
	struct registry_grant *grant;

	put(*state, policy_row("allow", ALLOW_ALL));
	put(*state, certificate_row(A, "ACTIVE", "allow", ""));
	grant = registry_grant(*state, id_octets(A), view_text("c"));
	registry_drop(*state, BROKER_CERTIFICATE, A);
	registry_drop(*state, BROKER_POLICY, "allow");
	assert_int_equal(policy_statement_count(grant->policies[0]), 1);
	registry_grant_free(grant);
	grant = registry_grant(*state, id_octets(A), view_text("c"));
	assert_int_equal(grant->status, REGISTRY_UNKNOWN);
	registry_grant_free(grant);
}

static void
count_one(void *arg, struct view der)
{
	size_t *octets = arg;

	*octets += der.len;
}

static void
only_cas_that_register_are_anchors(void **state)
{
	struct db_broker_row row = { .kind = BROKER_CA,
		.key = view_text(A),
		.ca = { .der = view_text("DER"), .active = true, .auto_registration = true } };
	uint64_t before = registry_ca_generation(*state);
	size_t octets = 0;

	put(*state, row);
	registry_cas(*state, count_one, &octets);
	assert_int_equal(octets, 3);
	assert_true(registry_ca_registers(*state, id_octets(A)));
	assert_false(registry_ca_registers(*state, id_octets(B)));
	assert_true(registry_ca_generation(*state) > before);
	row.ca.active = false;
	put(*state, row);
	assert_false(registry_ca_registers(*state, id_octets(A)));
	row.ca.active = true;
	row.ca.auto_registration = false;
	put(*state, row);
	assert_false(registry_ca_registers(*state, id_octets(A)));
	octets = 0;
	registry_cas(*state, count_one, &octets);
	assert_int_equal(octets, 0);
	assert_int_equal(registry_count(*state, BROKER_CA), 1);
	registry_drop(*state, BROKER_CA, A);
	assert_int_equal(registry_count(*state, BROKER_CA), 0);
}

static void
a_reload_shows_at_once(void **state)
{
	struct registry *fresh = NULL;
	struct registry_certificate found;
	struct err err;

	put(*state, certificate_row(A, "ACTIVE", "", ""));
	assert_int_equal(registry_new(&fresh, &KEY, &err), OK);
	put(fresh, certificate_row(B, "ACTIVE", "", ""));
	registry_exchange(*state, fresh);
	registry_certificate(*state, id_octets(A), &found);
	assert_int_equal(found.status, REGISTRY_UNKNOWN);
	registry_certificate(*state, id_octets(B), &found);
	assert_int_equal(found.status, REGISTRY_ACTIVE);
	assert_int_equal(registry_count(fresh, BROKER_CERTIFICATE), 0);
	registry_free(fresh);
}

static void
memory_that_is_short_changes_nothing(void **state)
{
	const struct db_broker_row rows[] = {
		policy_row("p", ALLOW_ALL),
		group_row("g", "", "p"),
		thing_row("t", "a\nb", "g"),
		certificate_row(A, "ACTIVE", "p", "t"),
		{ .kind = BROKER_CA, .key = view_text(B), .ca = { .der = view_text("DER") } },
	};
	struct err err;

	(void)state;
	for (size_t i = 0; i < COUNT_OF(rows); i++) {
		bool reached = true;

		for (int64_t n = 0; reached; n++) {
			struct registry *registry = NULL;
			enum status status;

			assert_int_equal(registry_new(&registry, &KEY, &err), OK);
			mem_fail_at(n);
			status = registry_put(registry, &rows[i], &err);
			reached = mem_failed();
			mem_fail_at(-1);
			if (reached && status != OK) {
				assert_int_equal(status, ERR_UNAVAILABLE);
				assert_int_equal(registry_count(registry, rows[i].kind), 0);
			}
			registry_free(registry);
		}
	}
}

static void
a_grant_without_memory_is_none(void **state)
{
	struct registry_grant *grant;

	put(*state, policy_row("allow", ALLOW_ALL));
	put(*state, certificate_row(A, "ACTIVE", "allow", ""));
	mem_fail_at(0);
	grant = registry_grant(*state, id_octets(A), view_text("c"));
	mem_fail_at(-1);
	assert_null(grant);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(siphash_is_the_papers),
		with_registry(a_certificate_is_as_it_was_put_last),
		with_registry(a_status_that_nobody_knows_lets_nobody_in),
		with_registry(ten_thousand_are_found_again),
		with_registry(a_grant_is_of_certificate_things_and_groups),
		with_registry(attributes_may_be_empty),
		with_registry(more_policies_than_are_held_refuse),
		with_registry(a_grant_outlives_what_it_came_from),
		with_registry(only_cas_that_register_are_anchors),
		with_registry(a_reload_shows_at_once),
		cmocka_unit_test(memory_that_is_short_changes_nothing),
		with_registry(a_grant_without_memory_is_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
