/*
 * Violations of security profiles: ListActiveViolations, ListViolationEvents. Nothing here watches
 * devices' metrics, so there are none; what is asked for is checked all the same.
 */
#include "db/iotcore_security_profile.h"
#include "server/iotcore/profiles.h"
#include "server/iotcore/registry.h"
#include "server/iotcore/tables.h"

static enum status
list_active(struct call *call, struct err *err)
{
	const char *thing = call_text(call, "thingName");
	const char *profile = call_text(call, "securityProfileName");
	own_struct(db_security_profile) row = { .rows = NULL };
	bool found;

	if (thing != NULL)
		TRY(thing_wanted(call, thing, err));
	if (profile != NULL) {
		TRY(db_security_profile_find(call->tx, profile, &found, &row, err));
		if (!found)
			return profile_missing(err, profile);
	}
	return call_reply(call, json_pack("{s:[]}", "activeViolations"), err);
}

static enum status
list_events(struct call *call, struct err *err)
{
	if (call_time(call, "startTime", 0) > call_time(call, "endTime", 0))
		return iotcore_error(err, "InvalidRequestException",
			"startTime must not be after endTime.");
	return call_reply(call, json_pack("{s:[]}", "violationEvents"), err);
}

#define VIOLATION_MEMBERS                                                                          \
	{ .name = "thingName", .at = AT_QUERY, .type = MEMBER_TEXT, .least = 1, .most = 128 },     \
		{ .name = "securityProfileName", .at = AT_QUERY, MEMBER_NAME_OPTIONAL },           \
		{ .name = "behaviorCriteriaType", .at = AT_QUERY, .type = MEMBER_TEXT,             \
			.values = (const char *const[]){ "STATIC", "STATISTICAL",                  \
				"MACHINE_LEARNING", NULL } },                                      \
		{ .name = "listSuppressedAlerts", .at = AT_QUERY, .type = MEMBER_FLAG },           \
	{                                                                                          \
		.name = "verificationState", .at = AT_QUERY, .type = MEMBER_TEXT,                  \
		.values = (const char *const[]){ "FALSE_POSITIVE", "BENIGN_POSITIVE",              \
			"TRUE_POSITIVE", "UNKNOWN", NULL }                                         \
	}

const struct op VIOLATION_OPS[] = {
	{ .name = "ListActiveViolations",
		.method = "GET",
		.path = "/active-violations",
		.tx = TX_READ,
		.handle = list_active,
		.page = PAGE_TOKEN,
		.members = (const struct member[]){ VIOLATION_MEMBERS, { .name = NULL } } },
	{ .name = "ListViolationEvents",
		.method = "GET",
		.path = "/violation-events",
		.tx = TX_NONE,
		.handle = list_events,
		.page = PAGE_TOKEN,
		.members = (const struct member[]){
			{ .name = "startTime", .at = AT_QUERY, .type = MEMBER_TIME, .required = true },
			{ .name = "endTime", .at = AT_QUERY, .type = MEMBER_TIME, .required = true },
			VIOLATION_MEMBERS,
			{ .name = NULL } } },
	{ .name = NULL },
};
