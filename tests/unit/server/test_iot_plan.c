#include "server/iot/plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define SEEN(s) IOT_STATUS_##s
#define NEVER IOT_STATUS_UNKNOWN

/* Every row of the design's table, for each state that a device and a target can be in. */
static const struct table_case {
	const char *name;
	enum plan_device device;
	const char *applied;
	struct plan_fact fact;
	enum plan_thing want_thing;
	bool want_thing_changes;
	enum iot_status want_status;
	bool want_enrol, want_attach, want_detach;
	enum plan_policies want_policies;
	enum plan_odd want_odd;
	bool want_idle;
} CASES[] = {
#define FACT(s, st, ...)                                                                           \
	{ .seen = (s), .ours = true, .status = (st), .in_slot = true, .has_policies = true, __VA_ARGS__ }
	{ "active, first seen", PLAN_DEVICE_ACTIVE, "", FACT(SEEN(PENDING_ACTIVATION), CERT_ACTIVE),
	  PLAN_THING_ACTIVE, true, SEEN(ACTIVE), false, true, false, PLAN_POLICIES_PROFILE,
	  PLAN_ODD_NONE, false },
	{ "successor, first seen", PLAN_DEVICE_ACTIVE, "active",
	  FACT(SEEN(PENDING_ACTIVATION), CERT_PENDING_CONFIRMATION), PLAN_THING_ACTIVE, false,
	  SEEN(ACTIVE), false, true, false, PLAN_POLICIES_PROFILE, PLAN_ODD_NONE, false },
	{ "active, settled", PLAN_DEVICE_ACTIVE, "active", FACT(SEEN(ACTIVE), CERT_ACTIVE),
	  PLAN_THING_ACTIVE, false, NEVER, false, false, false, PLAN_POLICIES_LEAVE, PLAN_ODD_NONE,
	  true },
	{ "active, never seen", PLAN_DEVICE_ACTIVE, "", FACT(NEVER, CERT_ACTIVE), PLAN_THING_LEAVE,
	  false, NEVER, false, false, false, PLAN_POLICIES_LEAVE, PLAN_ODD_NONE, true },
	{ "active, to be registered beforehand", PLAN_DEVICE_ACTIVE, "",
	  FACT(NEVER, CERT_ACTIVE, .preregister = true), PLAN_THING_ACTIVE, true, SEEN(ACTIVE), true,
	  true, false, PLAN_POLICIES_PROFILE, PLAN_ODD_NONE, false },
	{ "revoked, never seen, to be registered beforehand", PLAN_DEVICE_ACTIVE, "active",
	  FACT(NEVER, CERT_REVOKED, .preregister = true), PLAN_THING_ACTIVE, false, NEVER, false,
	  false, false, PLAN_POLICIES_LEAVE, PLAN_ODD_NONE, true },
	{ "revoked, perhaps registered", PLAN_DEVICE_ACTIVE, "active",
	  FACT(NEVER, CERT_REVOKED, .preregister = true, .doubtful = true), PLAN_THING_ACTIVE, false,
	  SEEN(REVOKED), false, false, true, PLAN_POLICIES_NONE, PLAN_ODD_NONE, false },
	{ "to be registered beforehand, perhaps is", PLAN_DEVICE_ACTIVE, "active",
	  FACT(NEVER, CERT_ACTIVE, .preregister = true, .doubtful = true), PLAN_THING_ACTIVE, false,
	  SEEN(ACTIVE), true, true, false, PLAN_POLICIES_PROFILE, PLAN_ODD_NONE, false },
	{ "held, perhaps ACTIVE", PLAN_DEVICE_ACTIVE, "active",
	  FACT(SEEN(INACTIVE), CERT_HELD, .doubtful = true), PLAN_THING_ACTIVE, false, SEEN(INACTIVE),
	  false, true, false, PLAN_POLICIES_PROFILE, PLAN_ODD_NONE, false },
	{ "active, perhaps INACTIVE", PLAN_DEVICE_ACTIVE, "active",
	  FACT(SEEN(ACTIVE), CERT_ACTIVE, .doubtful = true), PLAN_THING_ACTIVE, false, SEEN(ACTIVE),
	  false, true, false, PLAN_POLICIES_PROFILE, PLAN_ODD_NONE, false },
	{ "set INACTIVE by hand", PLAN_DEVICE_ACTIVE, "active", FACT(SEEN(INACTIVE), CERT_ACTIVE),
	  PLAN_THING_ACTIVE, false, SEEN(ACTIVE), false, true, false, PLAN_POLICIES_PROFILE,
	  PLAN_ODD_NONE, false },
	{ "superseded", PLAN_DEVICE_ACTIVE, "active", FACT(SEEN(ACTIVE), CERT_SUPERSEDED),
	  PLAN_THING_ACTIVE, false, SEEN(INACTIVE), false, false, true, PLAN_POLICIES_NONE,
	  PLAN_ODD_NONE, false },
	{ "superseded, knocks", PLAN_DEVICE_ACTIVE, "active",
	  FACT(SEEN(PENDING_ACTIVATION), CERT_SUPERSEDED), PLAN_THING_ACTIVE, false, SEEN(INACTIVE),
	  false, false, true, PLAN_POLICIES_NONE, PLAN_ODD_SUPERSEDED, false },
	{ "held", PLAN_DEVICE_ACTIVE, "active", FACT(SEEN(ACTIVE), CERT_HELD), PLAN_THING_ACTIVE,
	  false, SEEN(INACTIVE), false, true, false, PLAN_POLICIES_PROFILE, PLAN_ODD_NONE, false },
	{ "held, knocks", PLAN_DEVICE_ACTIVE, "", FACT(SEEN(PENDING_ACTIVATION), CERT_HELD),
	  PLAN_THING_ACTIVE, true, SEEN(INACTIVE), false, true, false, PLAN_POLICIES_PROFILE,
	  PLAN_ODD_HELD, false },
	{ "hold lifted", PLAN_DEVICE_ACTIVE, "active", FACT(SEEN(INACTIVE), CERT_ACTIVE),
	  PLAN_THING_ACTIVE, false, SEEN(ACTIVE), false, true, false, PLAN_POLICIES_PROFILE,
	  PLAN_ODD_NONE, false },
	{ "revoked", PLAN_DEVICE_ACTIVE, "active", FACT(SEEN(ACTIVE), CERT_REVOKED),
	  PLAN_THING_ACTIVE, false, SEEN(REVOKED), false, false, true, PLAN_POLICIES_NONE,
	  PLAN_ODD_NONE, false },
	{ "revoked, knocks", PLAN_DEVICE_ACTIVE, "", FACT(SEEN(PENDING_ACTIVATION), CERT_REVOKED),
	  PLAN_THING_LEAVE, false, SEEN(REVOKED), false, false, true, PLAN_POLICIES_NONE,
	  PLAN_ODD_REVOKED, false },
	{ "revoked wins over expired", PLAN_DEVICE_ACTIVE, "active",
	  FACT(SEEN(ACTIVE), CERT_REVOKED, .expired = true), PLAN_THING_ACTIVE, false, SEEN(REVOKED),
	  false, false, true, PLAN_POLICIES_NONE, PLAN_ODD_NONE, false },
	{ "revoked there, live here", PLAN_DEVICE_ACTIVE, "active", FACT(SEEN(REVOKED), CERT_ACTIVE),
	  PLAN_THING_ACTIVE, false, NEVER, false, false, false, PLAN_POLICIES_LEAVE,
	  PLAN_ODD_REVOKED_THERE, false },
	{ "expired, ACTIVE there", PLAN_DEVICE_ACTIVE, "active",
	  FACT(SEEN(ACTIVE), CERT_ACTIVE, .expired = true), PLAN_THING_ACTIVE, false, NEVER, false,
	  false, false, PLAN_POLICIES_LEAVE, PLAN_ODD_NONE, true },
	{ "expired, knocks", PLAN_DEVICE_ACTIVE, "active",
	  FACT(SEEN(PENDING_ACTIVATION), CERT_ACTIVE, .expired = true), PLAN_THING_ACTIVE, false,
	  SEEN(INACTIVE), false, true, false, PLAN_POLICIES_PROFILE, PLAN_ODD_EXPIRED, false },
	{ "quarantined, first seen", PLAN_DEVICE_QUARANTINED, "",
	  FACT(SEEN(PENDING_ACTIVATION), CERT_ACTIVE), PLAN_THING_QUARANTINED, true, SEEN(ACTIVE),
	  false, true, false, PLAN_POLICIES_QUARANTINE, PLAN_ODD_NONE, false },
	{ "quarantine begins", PLAN_DEVICE_QUARANTINED, "active", FACT(SEEN(ACTIVE), CERT_ACTIVE),
	  PLAN_THING_QUARANTINED, true, NEVER, false, true, false, PLAN_POLICIES_QUARANTINE,
	  PLAN_ODD_NONE, false },
	{ "quarantine ends", PLAN_DEVICE_ACTIVE, "quarantined", FACT(SEEN(ACTIVE), CERT_ACTIVE),
	  PLAN_THING_ACTIVE, true, NEVER, false, true, false, PLAN_POLICIES_PROFILE, PLAN_ODD_NONE,
	  false },
	{ "quarantined, revoked", PLAN_DEVICE_QUARANTINED, "quarantined",
	  FACT(SEEN(ACTIVE), CERT_REVOKED), PLAN_THING_QUARANTINED, false, SEEN(REVOKED), false,
	  false, true, PLAN_POLICIES_NONE, PLAN_ODD_NONE, false },
	{ "decommissioned", PLAN_DEVICE_DECOMMISSIONED, "active", FACT(SEEN(ACTIVE), CERT_REVOKED),
	  PLAN_THING_ABSENT, true, SEEN(REVOKED), false, false, true, PLAN_POLICIES_NONE,
	  PLAN_ODD_NONE, false },
	{ "decommissioned, not revoked", PLAN_DEVICE_DECOMMISSIONED, "active",
	  FACT(SEEN(ACTIVE), CERT_ACTIVE), PLAN_THING_ABSENT, true, SEEN(INACTIVE), false, false,
	  true, PLAN_POLICIES_NONE, PLAN_ODD_NONE, false },
	{ "decommissioned, nothing there", PLAN_DEVICE_DECOMMISSIONED, "",
	  FACT(NEVER, CERT_REVOKED), PLAN_THING_LEAVE, false, NEVER, false, false, false,
	  PLAN_POLICIES_LEAVE, PLAN_ODD_NONE, true },
	{ "came back after its end", PLAN_DEVICE_ACTIVE, "absent",
	  FACT(SEEN(PENDING_ACTIVATION), CERT_ACTIVE), PLAN_THING_ACTIVE, true, SEEN(ACTIVE), false,
	  true, false, PLAN_POLICIES_PROFILE, PLAN_ODD_NONE, false },
	{ "unknown, knocks", PLAN_DEVICE_NONE, "", { .seen = SEEN(PENDING_ACTIVATION) },
	  PLAN_THING_LEAVE, false, SEEN(INACTIVE), false, false, false, PLAN_POLICIES_LEAVE,
	  PLAN_ODD_UNKNOWN, false },
	{ "unknown, ACTIVE there", PLAN_DEVICE_NONE, "", { .seen = SEEN(ACTIVE) }, PLAN_THING_LEAVE,
	  false, SEEN(INACTIVE), false, false, false, PLAN_POLICIES_LEAVE, PLAN_ODD_NONE, false },
	{ "a service knocks", PLAN_DEVICE_NONE, "", FACT(SEEN(PENDING_ACTIVATION), CERT_ACTIVE),
	  PLAN_THING_LEAVE, false, SEEN(ACTIVE), false, false, false, PLAN_POLICIES_PROFILE,
	  PLAN_ODD_NONE, false },
	{ "a station knocks", PLAN_DEVICE_NONE, "",
	  { .seen = SEEN(PENDING_ACTIVATION), .ours = true, .status = CERT_ACTIVE },
	  PLAN_THING_LEAVE, false, SEEN(INACTIVE), false, false, false,
	  PLAN_POLICIES_NONE, PLAN_ODD_NOT_A_DEVICE, false },
	{ "a service is revoked", PLAN_DEVICE_NONE, "", FACT(SEEN(ACTIVE), CERT_REVOKED),
	  PLAN_THING_LEAVE, false, SEEN(REVOKED), false, false, false, PLAN_POLICIES_NONE,
	  PLAN_ODD_NONE, false },
};

static void
each_state_wants_what_the_table_says(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT_OF(CASES); i++) {
		const struct table_case *c = &CASES[i];
		const struct plan_action *action;
		struct plan plan;

		plan_make(&plan, c->device, c->applied, &c->fact, 1);
		action = &plan.actions[0];
		if (plan.thing != c->want_thing || plan.thing_changes != c->want_thing_changes ||
		    action->status != c->want_status || action->enrol != c->want_enrol ||
		    action->attach != c->want_attach || action->detach != c->want_detach ||
		    action->policies != c->want_policies || action->odd != c->want_odd ||
		    plan.idle != c->want_idle)
			fail_msg("%s: thing %d/%d status %d enrol %d attach %d detach %d policies %d"
				" odd %d idle %d", c->name, (int)plan.thing, plan.thing_changes,
				(int)action->status, action->enrol, action->attach, action->detach,
				(int)action->policies, (int)action->odd, plan.idle);
	}
}

/* Whatever the facts: REVOKED only for what our own row calls revoked, ACTIVE only for what is live. */
static void
nothing_else_is_revoked_or_activated(void **state)
{
	static const char *const APPLIED[] = { "", "active", "quarantined", "absent" };
	size_t revoked = 0;
	size_t activated = 0;

	(void)state;
	for (unsigned bits = 0; bits < 64; bits++)
		for (int seen = IOT_STATUS_UNKNOWN; seen <= IOT_STATUS_PENDING_ACTIVATION; seen++)
			for (int status = CERT_UNSET; status <= CERT_REVOKED; status++)
				for (int device = PLAN_DEVICE_NONE; device <= PLAN_DEVICE_DECOMMISSIONED;
					device++)
					for (size_t a = 0; a < COUNT_OF(APPLIED); a++) {
		struct plan_fact fact = { .seen = (enum iot_status)seen, .ours = (bits & 1) != 0,
			.status = (enum cert_status)status, .expired = (bits & 2) != 0,
			.in_slot = (bits & 4) != 0, .preregister = (bits & 8) != 0,
			.has_policies = (bits & 16) != 0, .doubtful = (bits & 32) != 0 };
		struct plan plan;
		const struct plan_action *action = &plan.actions[0];
		bool live = fact.ours && !fact.expired &&
			(status == CERT_ACTIVE || status == CERT_PENDING_CONFIRMATION);

		plan_make(&plan, (enum plan_device)device, APPLIED[a], &fact, 1);
		if (action->status == IOT_STATUS_REVOKED) {
			assert_true(fact.ours && status == CERT_REVOKED);
			revoked++;
		}
		if (action->status == IOT_STATUS_ACTIVE) {
			assert_true(live && fact.has_policies && device != PLAN_DEVICE_DECOMMISSIONED);
			assert_true(action->policies == PLAN_POLICIES_PROFILE ||
				action->policies == PLAN_POLICIES_QUARANTINE);
			assert_true((device == PLAN_DEVICE_QUARANTINED) ==
				(action->policies == PLAN_POLICIES_QUARANTINE));
			activated++;
		}
		if (seen == IOT_STATUS_UNKNOWN && !fact.preregister && !fact.doubtful)
			assert_true(action->status == IOT_STATUS_UNKNOWN && !action->enrol);
	}
	assert_true(revoked > 0 && activated > 0);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_state_wants_what_the_table_says),
		cmocka_unit_test(nothing_else_is_revoked_or_activated),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
