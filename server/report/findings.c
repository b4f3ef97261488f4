#include <string.h>

#include "server/api/api.h"
#include "server/report/internal.h"

static const char *const SEVERITIES[] = { "", "info", "low", "medium", "high", "critical" };

static const struct {
	const char *id, *severity, *title, *advice;
} TABLE[FINDINGS] = {
	[FINDING_KEY_SHARED] = { "key_shared", "critical", "A key that another identity has",
		"The claims on keys should make this impossible. Revoke all certificates of the key "
		"(jitrca revocation create --key), give each device a key of its own, and find out how the "
		"row came to be." },
	[FINDING_KEY_BLOCKED_LIVE] = { "key_blocked_live", "critical",
		"A live certificate of a blocked key",
		"Revoke it with reason keyCompromise; its device needs a new key." },
	[FINDING_REVOKED_ACTIVE] = { "revoked_active_in_iot", "critical",
		"Revoked here, ACTIVE in IoT Core when it was last read back",
		"See jitrca iot outbox --dead true, then jitrca iot reconcile --repair." },
	[FINDING_AUDIT_BROKEN] = { "audit_broken", "critical", "The audit log does not hold",
		"Keep the database as it is, compare with the checkpoints shipped elsewhere "
		"(jitrca audit verify --offline), and treat it as an incident." },
	[FINDING_STRANGER_ACTIVE] = { "stranger_active_in_iot", "high",
		"ACTIVE in IoT Core under a CA of ours, but not issued here",
		"Set it INACTIVE there and find out who signed it; jitrca iot reconcile shows the rest." },
	[FINDING_LIVE_REVOKED_THERE] = { "live_revoked_in_iot", "high",
		"Live here, REVOKED in IoT Core when it was last read back",
		"REVOKED is final there: revoke it here too and let the device have a new certificate." },
	[FINDING_POLICY_BROAD] = { "iot_policy_over_broad", "high",
		"An IoT policy that allows more than its own",
		"Narrow actions and resources to ${iot:Connection.Thing.ThingName}; certs/policies has one "
		"that does." },
	[FINDING_CA_EXPIRING] = { "ca_expiring", "high", "A CA certificate that ends soon",
		"Begin a succession while certificates can still have their whole validity." },
	[FINDING_AUDIT_UNSIGNED] = { "audit_unsigned", "high",
		"Audit records that no signed checkpoint holds",
		"See that the signer has a checkpoint key (jitrca init) and that jitrca audit checkpoint "
		"succeeds." },
	[FINDING_CERTIFICATE_UNREADABLE] = { "certificate_unreadable", "high",
		"A certificate whose stored octets cannot be read",
		"Compare the row with a backup: what was signed does not change." },
	[FINDING_ENDED_ACTIVE] = { "ended_active_in_iot", "medium",
		"Superseded or held here, ACTIVE in IoT Core when it was last read back",
		"See jitrca iot outbox, then jitrca iot reconcile --repair." },
	[FINDING_ROTATION_UNCONFIRMED] = { "rotation_unconfirmed", "medium",
		"A successor that its device has not confirmed",
		"The device asked for a new certificate and has not come back with it: look at its "
		"firmware." },
	[FINDING_VALIDITY_OVER_PROFILE] = { "validity_over_profile", "medium",
		"Valid for longer than its profile now allows",
		"Rotate it: a campaign with a selector by profile and issued_before." },
	[FINDING_KEY_ORPHANED] = { "key_orphaned", "medium",
		"A device's key that is on record as nobody's",
		"Nothing keeps another device from having it: rotate the device to a new key." },
	[FINDING_POLICY_UNREAD] = { "iot_policy_unread", "medium", "An IoT policy that could not be judged",
		"Its document is missing or malformed: put it where the target's policies are." },
	[FINDING_KEY_TYPE] = { "key_type_not_allowed", "low",
		"A live certificate of a key type that its profile allows no longer",
		"Rotate it: a campaign with a selector by key_type." },
	[FINDING_KEY_TWO_CAS] = { "key_under_two_cas", "low",
		"A live certificate of a key that another CA has certified since",
		"Expected in a succession; otherwise revoke the older one." },
	[FINDING_EXPIRY_CLIFF] = { "expiry_cliff", "low", "A week in which much of the fleet ends at once",
		"Spread it: a campaign with a pace, well before that week." },
};

enum status
report_count(json_t *object, const char *name, int64_t by, struct err *err)
{
	json_t *old = json_object_get(object, name);

	if (old != NULL)
		return json_integer_set(old, json_integer_value(old) + by) == 0 ? OK : err_memory(err);
	return api_set(object, name, json_integer(by), err);
}

static json_t *
entry_of(const struct report_work *work, enum report_finding which)
{
	return json_object_get(work->findings, TABLE[which].id);
}

bool
report_has_room(const struct report_work *work, enum report_finding which)
{
	return json_array_size(json_object_get(entry_of(work, which), "examples")) < REPORT_EXAMPLES_MAX;
}

enum status
report_find(struct report_work *work, enum report_finding which, json_t *example, struct err *err)
{
	own(json_t) held = example;
	json_t *entry = entry_of(work, which);

	if (entry == NULL) {
		TRY(api_set(work->findings, TABLE[which].id,
			json_pack("{s:i, s:[]}", "count", 0, "examples"), err));
		entry = entry_of(work, which);
	}
	TRY(report_count(entry, "count", 1, err));
	if (held == NULL)
		return report_has_room(work, which) ? err_memory(err) : OK;
	if (!report_has_room(work, which))
		return OK;
	return api_append(json_object_get(entry, "examples"), give(held), err);
}

static size_t
rank_of(const char *severity)
{
	size_t rank = 0;

	for (size_t i = 0; i < COUNT_OF(SEVERITIES); i++)
		if (strcmp(SEVERITIES[i], severity) == 0)
			rank = i;
	return rank;
}

enum status
report_findings_render(const struct report_work *work, json_t **out, int64_t *total, const char **worst,
	struct err *err)
{
	own(json_t) list = json_array();

	*total = 0;
	*worst = "";
	for (size_t i = FINDING_UNSET + 1; i < FINDINGS; i++) {
		json_t *entry = json_object_get(work->findings, TABLE[i].id);
		json_t *examples = json_object_get(entry, "examples");
		json_int_t count = json_integer_value(json_object_get(entry, "count"));

		*total += count;
		if (count > 0 && rank_of(TABLE[i].severity) > rank_of(*worst))
			*worst = TABLE[i].severity;
		TRY(api_append(list, json_pack("{s:s, s:s, s:s, s:I, s:s, s:o, s:b}", "id", TABLE[i].id,
			"severity", TABLE[i].severity, "title", TABLE[i].title, "count", count, "advice",
			TABLE[i].advice, "examples", examples != NULL ? json_incref(examples) : json_array(),
			"examples_more", (int)(count > (json_int_t)json_array_size(examples))), err));
	}
	*out = give(list);
	return OK;
}
