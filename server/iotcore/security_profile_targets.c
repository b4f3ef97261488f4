/* What security profiles are attached to: all things, registered ones, unregistered ones, groups. */
#include <stdio.h>
#include <string.h>

#include "db/iotcore_group.h"
#include "db/iotcore_security_profile.h"
#include "server/iotcore/profiles.h"
#include "server/iotcore/registry.h"
#include "server/iotcore/tables.h"

/* AWS's quota. */
#define PROFILES_OF_TARGET_MOST 5

struct target {
	const char *arn;
	const char *group; /* NULL: one of all/… */
};

static enum status
target_wanted(struct target *out, struct call *call, struct err *err)
{
	static const char *const ALL[] = { "things", "registered-things", "unregistered-things" };
	const char *arn = call_text(call, "securityProfileTargetArn");
	const char *group = iotcore_arn_resource(call->core, arn, "thinggroup/");
	const char *all = iotcore_arn_resource(call->core, arn, "all/");
	bool known = false;

	*out = (struct target){ arn, group };
	if (group != NULL)
		return group_wanted(call, group, err);
	for (size_t i = 0; all != NULL && i < COUNT_OF(ALL); i++)
		known |= strcmp(all, ALL[i]) == 0;
	if (!known)
		return iotcore_error(err, "InvalidRequestException",
			"Invalid security profile target: %.200s", arn);
	return OK;
}

static enum status
profile_wanted(struct call *call, const char *name, struct err *err)
{
	own_struct(db_security_profile) row = { .rows = NULL };
	bool found;

	TRY(db_security_profile_find(call->tx, name, &found, &row, err));
	return found ? OK : profile_missing(err, name);
}

static enum status
attach_profile(struct call *call, struct err *err)
{
	const char *name = call_text(call, "securityProfileName");
	struct target target;
	int64_t count;
	bool attached;

	TRY(profile_wanted(call, name, err));
	TRY(target_wanted(&target, call, err));
	TRY(db_security_profile_attached(call->tx, name, target.arn, &attached, &count, err));
	if (attached)
		return OK;
	if (count >= PROFILES_OF_TARGET_MOST)
		return iotcore_error(err, "LimitExceededException",
			"A target can not have more than %d security profiles.",
			PROFILES_OF_TARGET_MOST);
	return db_security_profile_attach(call->tx, name, target.arn, err);
}

/* What is not attached is detached. */
static enum status
detach_profile(struct call *call, struct err *err)
{
	const char *name = call_text(call, "securityProfileName");
	struct target target;

	TRY(profile_wanted(call, name, err));
	TRY(target_wanted(&target, call, err));
	return db_security_profile_detach(call->tx, name, target.arn, err);
}

/* ---- the lists ---- */

static enum status
add_target(void *arg, const char *target, struct err *err)
{
	return listing_add(arg, target, json_pack("{s:s}", "arn", target), err);
}

static enum status
list_targets(struct call *call, struct err *err)
{
	const char *name = call_text(call, "securityProfileName");
	own_struct(listing) listing = { .call = call };

	TRY(profile_wanted(call, name, err));
	TRY(listing_begin(&listing, call, err));
	TRY(db_security_profile_targets(call->tx, name, listing_after(&listing),
		listing_limit(&listing), add_target, &listing, err));
	return listing_end(&listing, "securityProfileTargets", err);
}

static enum status
add_mapping(void *arg, const char *name, const char *target, struct err *err)
{
	struct listing *listing = arg;
	char key[DB_CORE_NAME_BYTES + DB_CORE_TARGET_BYTES];
	char arn[IOTCORE_ARN_BYTES];

	iotcore_arn(arn, listing->call->core, "securityprofile/%s", name);
	/* No name holds a space. */
	(void)snprintf(key, sizeof(key), "%s %s", name, target);
	return listing_add(listing, key,
		json_pack("{s:{s:s,s:s},s:{s:s}}", "securityProfileIdentifier", "name", name, "arn", arn,
			"target", "arn", target),
		err);
}

static enum status
list_for_target(struct call *call, struct err *err)
{
	own_struct(listing) listing = { .call = call };
	struct target target;
	char head[IOTCORE_ARN_BYTES];
	char after[DB_CORE_NAME_BYTES + DB_CORE_TARGET_BYTES] = "";
	char *space;

	TRY(target_wanted(&target, call, err));
	TRY(listing_begin(&listing, call, err));
	iotcore_arn(head, call->core, "thinggroup/");
	(void)snprintf(after, sizeof(after), "%s", listing_after(&listing));
	space = strchr(after, ' ');
	if (space != NULL)
		*space = '\0';
	const struct db_security_profile_query query = { .target = target.arn,
		.group = call_flag(call, "recursive", false) ? target.group : NULL,
		.head = head,
		.after_name = after,
		.after_target = space != NULL ? space + 1 : "",
		.limit = listing_limit(&listing) };
	TRY(db_security_profile_mappings(call->tx, &query, add_mapping, &listing, err));
	return listing_end(&listing, "securityProfileTargetMappings", err);
}

#define PROFILE_NAME { .name = "securityProfileName", .at = AT_PATH, MEMBER_THING_NAME }
#define TARGET_ARN                                                                                 \
	{                                                                                          \
		.name = "securityProfileTargetArn", .at = AT_QUERY, .type = MEMBER_TEXT,           \
		.required = true, .least = 1, .most = ARN_MOST                                     \
	}

const struct op SECURITY_PROFILE_TARGET_OPS[] = {
	{ .name = "AttachSecurityProfile",
		.method = "PUT",
		.path = "/security-profiles/{securityProfileName}/targets",
		.tx = TX_WRITE,
		.handle = attach_profile,
		.members = (const struct member[]){ PROFILE_NAME, TARGET_ARN, { .name = NULL } } },
	{ .name = "DetachSecurityProfile",
		.method = "DELETE",
		.path = "/security-profiles/{securityProfileName}/targets",
		.tx = TX_WRITE,
		.handle = detach_profile,
		.members = (const struct member[]){ PROFILE_NAME, TARGET_ARN, { .name = NULL } } },
	{ .name = "ListTargetsForSecurityProfile",
		.method = "GET",
		.path = "/security-profiles/{securityProfileName}/targets",
		.tx = TX_READ,
		.handle = list_targets,
		.page = PAGE_TOKEN,
		.members = (const struct member[]){ PROFILE_NAME, { .name = NULL } } },
	{ .name = "ListSecurityProfilesForTarget",
		.method = "GET",
		.path = "/security-profiles-for-target",
		.tx = TX_READ,
		.handle = list_for_target,
		.page = PAGE_TOKEN,
		.members = (const struct member[]){
			TARGET_ARN,
			{ .name = "recursive", .at = AT_QUERY, .type = MEMBER_FLAG },
			{ .name = NULL } } },
	{ .name = NULL },
};
