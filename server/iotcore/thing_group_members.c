/* Who is in a thing group: adding, removing, and the lists from both sides. */
#include <string.h>

#include "db/iotcore_group.h"
#include "server/iotcore/registry.h"
#include "server/iotcore/tables.h"

/* AWS's quota. */
#define GROUPS_OF_THING_MOST 10

/* ---- either a name or an ARN, or both of the same ---- */

struct by_name_or_arn {
	const char *name_member, *arn_member;
	const char *named;   /* in messages: "thingGroupName" */
	const char *arn_type; /* "thinggroup/" */
};
static const struct by_name_or_arn GROUP = { "thingGroupName", "thingGroupArn", "ThingGroupName",
	"thinggroup/" };
static const struct by_name_or_arn THING = { "thingName", "thingArn", "ThingName", "thing/" };

static enum status
identify(const char **out, struct call *call, const struct by_name_or_arn *which, struct err *err)
{
	const char *name = call_text(call, which->name_member);
	const char *arn = call_text(call, which->arn_member);
	const char *of_arn = NULL;

	if (name == NULL && arn == NULL)
		return iotcore_error(err, "InvalidRequestException",
			"Both %s and %s are empty. Need to specify at least one of them",
			which->arn_member, which->name_member);
	if (arn != NULL)
		of_arn = iotcore_arn_resource(call->core, arn, which->arn_type);
	if (arn != NULL && of_arn == NULL)
		return iotcore_error(err, "InvalidRequestException", "Invalid %s %.128s",
			which->arn_member, arn);
	if (name != NULL && of_arn != NULL && strcmp(name, of_arn) != 0)
		return iotcore_error(err, "InvalidRequestException",
			"%s %s does not match specified %s in request", which->named, which->arn_member,
			which->name_member);
	*out = name != NULL ? name : of_arn;
	return OK;
}

static enum status
identify_both(const char **group, const char **thing, struct call *call, struct err *err)
{
	TRY(identify(group, call, &GROUP, err));
	TRY(identify(thing, call, &THING, err));
	TRY(group_wanted(call, *group, err));
	return thing_wanted(call, *thing, err);
}

/* ---- AddThingToThingGroup, RemoveThingFromThingGroup ---- */

static enum status
add_to_group(struct call *call, struct err *err)
{
	struct db_group_membership membership;
	const char *group, *thing;

	TRY(identify_both(&group, &thing, call, err));
	TRY(db_group_membership(call->tx, group, thing, &membership, err));
	if (membership.member)
		return OK;
	if (membership.same_hierarchy)
		return iotcore_error(err, "InvalidRequestException",
			"Thing %s is already in another thing group of the same hierarchy.", thing);
	if (membership.group_count >= GROUPS_OF_THING_MOST)
		return iotcore_error(err, "InvalidRequestException",
			"Thing %s can not be in more than %d thing groups.", thing,
			GROUPS_OF_THING_MOST);
	return db_group_add(call->tx, group, thing, err);
}

static enum status
remove_from_group(struct call *call, struct err *err)
{
	const char *group, *thing;

	TRY(identify_both(&group, &thing, call, err));
	return db_group_remove(call->tx, group, thing, err);
}

/* ---- the lists ---- */

static enum status
add_group(void *arg, const char *name, struct err *err)
{
	struct listing *listing = arg;
	char arn[IOTCORE_ARN_BYTES];

	iotcore_arn(arn, listing->call->core, "thinggroup/%s", name);
	return listing_add(
		listing, name, json_pack("{s:s,s:s}", "groupName", name, "groupArn", arn), err);
}

static enum status
list_groups_for_thing(struct call *call, struct err *err)
{
	const char *thing = call_text(call, "thingName");
	own_struct(listing) listing = { .call = call };

	TRY(thing_wanted(call, thing, err));
	TRY(listing_begin(&listing, call, err));
	TRY(db_group_list_of_thing(call->tx, thing, listing_after(&listing), listing_limit(&listing),
		add_group, &listing, err));
	return listing_end(&listing, "thingGroups", err);
}

static enum status
list_things_in_group(struct call *call, struct err *err)
{
	const char *group = call_text(call, "thingGroupName");
	own_struct(listing) listing = { .call = call };

	TRY(group_wanted(call, group, err));
	TRY(listing_begin(&listing, call, err));
	TRY(db_group_things(call->tx, group, call_flag(call, "recursive", false),
		listing_after(&listing), listing_limit(&listing), listing_add_name, &listing, err));
	return listing_end(&listing, "things", err);
}

#define ARN_MEMBER .at = AT_BODY, .type = MEMBER_TEXT, .most = ARN_MOST

const struct op THING_GROUP_MEMBER_OPS[] = {
	{ .name = "AddThingToThingGroup",
		.method = "PUT",
		.path = "/thing-groups/addThingToThingGroup",
		.tx = TX_WRITE,
		.handle = add_to_group,
		.members = (const struct member[]){
			{ .name = "thingGroupName", .at = AT_BODY, MEMBER_NAME_OPTIONAL },
			{ .name = "thingGroupArn", ARN_MEMBER },
			{ .name = "thingName", .at = AT_BODY, MEMBER_NAME_OPTIONAL },
			{ .name = "thingArn", ARN_MEMBER },
			/* There are no dynamic groups here that it could win over. */
			{ .name = "overrideDynamicGroups", .at = AT_BODY, .type = MEMBER_FLAG },
			{ .name = NULL } } },
	{ .name = "RemoveThingFromThingGroup",
		.method = "PUT",
		.path = "/thing-groups/removeThingFromThingGroup",
		.tx = TX_WRITE,
		.handle = remove_from_group,
		.members = (const struct member[]){
			{ .name = "thingGroupName", .at = AT_BODY, MEMBER_NAME_OPTIONAL },
			{ .name = "thingGroupArn", ARN_MEMBER },
			{ .name = "thingName", .at = AT_BODY, MEMBER_NAME_OPTIONAL },
			{ .name = "thingArn", ARN_MEMBER },
			{ .name = NULL } } },
	{ .name = "ListThingGroupsForThing",
		.method = "GET",
		.path = "/things/{thingName}/thing-groups",
		.tx = TX_READ,
		.handle = list_groups_for_thing,
		.page = PAGE_TOKEN,
		.members = (const struct member[]){
			{ .name = "thingName", .at = AT_PATH, MEMBER_THING_NAME },
			{ .name = NULL } } },
	{ .name = "ListThingsInThingGroup",
		.method = "GET",
		.path = "/thing-groups/{thingGroupName}/things",
		.tx = TX_READ,
		.handle = list_things_in_group,
		.page = PAGE_TOKEN,
		.members = (const struct member[]){
			{ .name = "thingGroupName", .at = AT_PATH, MEMBER_THING_NAME },
			{ .name = "recursive", .at = AT_QUERY, .type = MEMBER_FLAG },
			{ .name = NULL } } },
	{ .name = NULL },
};
