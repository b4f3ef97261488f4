#include "server/iot/plan.h"

#include <assert.h>
#include <string.h>

static const struct {
	const char *kind, *severity;
} ODD[PLAN_ODD_COUNT] = {
	[PLAN_ODD_NONE] = { "", "" },
	[PLAN_ODD_UNKNOWN] = { "iot_unknown_certificate", "critical" },
	[PLAN_ODD_EXPIRED] = { "iot_expired_certificate", "low" },
	[PLAN_ODD_HELD] = { "iot_held_certificate", "medium" },
	[PLAN_ODD_REVOKED] = { "iot_revoked_certificate", "high" },
	[PLAN_ODD_SUPERSEDED] = { "iot_superseded_certificate", "medium" },
	[PLAN_ODD_NOT_A_DEVICE] = { "iot_not_a_device", "high" },
	[PLAN_ODD_REVOKED_THERE] = { "iot_revoked_there", "high" },
};

const char *
plan_odd_kind(enum plan_odd odd)
{
	return ODD[odd].kind;
}

const char *
plan_odd_severity(enum plan_odd odd)
{
	return ODD[odd].severity;
}

const char *
plan_thing_name(enum plan_thing thing)
{
	static const char *const NAMES[] = { "", "active", "quarantined", "absent" };

	return NAMES[thing];
}

/* What our own row makes of a certificate, before its device is asked. */
enum standing {
	STANDING_UNKNOWN,
	STANDING_LIVE,
	STANDING_EXPIRED,
	STANDING_SUPERSEDED,
	STANDING_HELD,
	STANDING_REVOKED,
};

static enum standing
standing_of(const struct plan_fact *fact)
{
	if (!fact->ours)
		return STANDING_UNKNOWN;
	switch (fact->status) {
	case CERT_REVOKED: /* wins over expired */
		return STANDING_REVOKED;
	case CERT_SUPERSEDED:
		return STANDING_SUPERSEDED;
	case CERT_HELD:
		return STANDING_HELD;
	case CERT_ACTIVE:
	case CERT_PENDING_CONFIRMATION:
		return fact->expired ? STANDING_EXPIRED : STANDING_LIVE;
	case CERT_EXPIRED: /* never stored */
	case CERT_UNSET:
	default:
		return STANDING_UNKNOWN;
	}
}

/*
 * The table of the design. knocks: what to say when it comes as PENDING_ACTIVATION. An expired one that is
 * ACTIVE there stays so: nobody can connect with it.
 */
static const struct row {
	enum iot_status status;
	bool attached, policies;
	bool keep_active; /* if it is ACTIVE there, it is left alone */
	enum plan_odd knocks;
} TABLE[] = {
	[STANDING_UNKNOWN] = { IOT_STATUS_INACTIVE, false, false, false, PLAN_ODD_UNKNOWN },
	[STANDING_LIVE] = { IOT_STATUS_ACTIVE, true, true, false, PLAN_ODD_NONE },
	[STANDING_EXPIRED] = { IOT_STATUS_INACTIVE, true, true, true, PLAN_ODD_EXPIRED },
	[STANDING_SUPERSEDED] = { IOT_STATUS_INACTIVE, false, false, false, PLAN_ODD_SUPERSEDED },
	[STANDING_HELD] = { IOT_STATUS_INACTIVE, true, true, false, PLAN_ODD_HELD },
	[STANDING_REVOKED] = { IOT_STATUS_REVOKED, false, false, false, PLAN_ODD_REVOKED },
};

/* One certificate, which the target has seen (or is to see now). */
static void
act(struct plan_action *out, enum plan_device device, bool thing_changes, const struct plan_fact *fact)
{
	enum standing standing = standing_of(fact);
	const struct row *row = &TABLE[standing];
	enum iot_status wanted = row->status;
	bool knocks = fact->seen == IOT_STATUS_PENDING_ACTIVATION;
	bool attached = row->attached && device != PLAN_DEVICE_NONE;
	bool policies = row->policies;

	out->odd = knocks ? row->knocks : PLAN_ODD_NONE;
	if (standing == STANDING_LIVE && !fact->has_policies) {
		/* Stations, servers: they authenticate to us, not to IoT Core. */
		wanted = IOT_STATUS_INACTIVE;
		attached = policies = false;
		out->odd = knocks ? PLAN_ODD_NOT_A_DEVICE : PLAN_ODD_NONE;
	}
	if (device == PLAN_DEVICE_DECOMMISSIONED && wanted != IOT_STATUS_REVOKED) {
		wanted = IOT_STATUS_INACTIVE;
		attached = policies = false;
	}
	if (fact->seen == IOT_STATUS_REVOKED && wanted != IOT_STATUS_REVOKED) {
		/* Nothing brings it back, and it cannot knock any more. */
		out->odd = wanted == IOT_STATUS_ACTIVE ? PLAN_ODD_REVOKED_THERE : PLAN_ODD_NONE;
		return;
	}
	if (row->keep_active && fact->seen == IOT_STATUS_ACTIVE && !fact->doubtful)
		wanted = IOT_STATUS_ACTIVE;
	if (wanted == fact->seen && !fact->doubtful && (!thing_changes || wanted != IOT_STATUS_ACTIVE))
		return;
	if (wanted != fact->seen || fact->doubtful)
		out->status = wanted;
	out->attach = attached;
	out->detach = !attached && device != PLAN_DEVICE_NONE;
	if (!policies)
		/* It lets nothing in any more; what a stranger has attached is not ours to touch. */
		out->policies = fact->ours ? PLAN_POLICIES_NONE : PLAN_POLICIES_LEAVE;
	else
		out->policies = device == PLAN_DEVICE_QUARANTINED ? PLAN_POLICIES_QUARANTINE :
			PLAN_POLICIES_PROFILE;
}

static enum plan_thing
thing_of(enum plan_device device)
{
	switch (device) {
	case PLAN_DEVICE_ACTIVE:
		return PLAN_THING_ACTIVE;
	case PLAN_DEVICE_QUARANTINED:
		return PLAN_THING_QUARANTINED;
	case PLAN_DEVICE_DECOMMISSIONED:
		return PLAN_THING_ABSENT;
	case PLAN_DEVICE_NONE:
	case PLAN_DEVICE_UNSET:
	default:
		return PLAN_THING_LEAVE;
	}
}

static bool
concerns(enum plan_device device, const struct plan_fact *fact)
{
	if (fact->seen != IOT_STATUS_UNKNOWN || fact->doubtful)
		return true;
	/* What is no device's is looked at only when somebody asked for it by its id. */
	return fact->preregister && (fact->in_slot || device == PLAN_DEVICE_NONE) &&
		standing_of(fact) == STANDING_LIVE;
}

/* Whether the device is known there, or is to be: a certificate that is live or held, or a thing. */
static bool
any_presence(enum plan_device device, const char *applied, const struct plan_fact *facts, size_t count)
{
	if (applied[0] != '\0' && strcmp(applied, "absent") != 0)
		return true;
	for (size_t i = 0; i < count; i++) {
		enum standing standing = standing_of(&facts[i]);

		if (concerns(device, &facts[i]) && facts[i].has_policies &&
		    (standing == STANDING_LIVE || standing == STANDING_HELD))
			return true;
	}
	return false;
}

static bool
does_something(const struct plan_action *action)
{
	return action->status != IOT_STATUS_UNKNOWN || action->enrol || action->attach ||
		action->detach || action->policies != PLAN_POLICIES_LEAVE ||
		action->odd != PLAN_ODD_NONE;
}

void
plan_make(struct plan *out, enum plan_device device, const char *applied,
	const struct plan_fact *facts, size_t count)
{
	assert(device != PLAN_DEVICE_UNSET && count <= IOT_PLAN_CERTIFICATES_MAX);
	*out = (struct plan){ .thing = thing_of(device), .idle = true };
	if (!any_presence(device, applied, facts, count))
		out->thing = PLAN_THING_LEAVE;
	out->thing_changes = out->thing != PLAN_THING_LEAVE &&
		strcmp(applied, plan_thing_name(out->thing)) != 0;
	if (out->thing_changes)
		out->idle = false;
	for (size_t i = 0; i < count; i++) {
		struct plan_action *action = &out->actions[i];

		*action = (struct plan_action){ .status = IOT_STATUS_UNKNOWN };
		if (!concerns(device, &facts[i]))
			continue;
		act(action, device, out->thing_changes, &facts[i]);
		action->enrol = facts[i].seen == IOT_STATUS_UNKNOWN && facts[i].preregister &&
			standing_of(&facts[i]) == STANDING_LIVE;
		if (does_something(action))
			out->idle = false;
	}
}
