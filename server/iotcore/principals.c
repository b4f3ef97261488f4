/* Which certificates are whose: principals of things, and things of principals. */
#include <string.h>

#include "server/iotcore/registry.h"
#include "server/iotcore/tables.h"

/* A certificate's id out of the call's principal. */
static enum status
principal_id(const char **certificate_id, const struct call *call, struct err *err)
{
	const char *principal = call_text(call, "principal");
	const char *id = iotcore_arn_resource(call->core, principal, "cert/");

	/* Cognito identities are principals of AWS's, too; there are none here. */
	if (id == NULL || strlen(id) != DB_CORE_CERTIFICATE_BYTES - 1)
		return iotcore_error(err, "InvalidRequestException", "Invalid principal: %.200s",
			principal);
	*certificate_id = id;
	return OK;
}

static enum status
principal_missing(struct err *err)
{
	return iotcore_error(err, "ResourceNotFoundException",
		"The certificate given in the principal does not exist.");
}

/* The same, if there is such a certificate. */
static enum status
principal_wanted(const char **certificate_id, struct call *call, struct err *err)
{
	bool found;

	TRY(principal_id(certificate_id, call, err));
	TRY(db_principal_certificate_exists(call->tx, *certificate_id, &found, err));
	return found ? OK : principal_missing(err);
}

/* ---- AttachThingPrincipal, DetachThingPrincipal ---- */

static enum status
check_exclusive(const struct db_thing_principal *now, bool exclusive, struct err *err)
{
	if (now->exclusive_elsewhere)
		return iotcore_error(err, "InvalidRequestException",
			"Principal is already exclusively attached to another thing.");
	if (exclusive && now->elsewhere)
		return iotcore_error(err, "InvalidRequestException",
			"Principal is attached to another thing and can not be attached exclusively.");
	return OK;
}

static enum status
attach_principal(struct call *call, struct err *err)
{
	const char *thing = call_text(call, "thingName");
	const char *type = call_text(call, "thingPrincipalType");
	bool exclusive = type != NULL && strcmp(type, "EXCLUSIVE_THING") == 0;
	struct db_thing_principal now;
	const char *id;
	bool done;

	TRY(principal_id(&id, call, err));
	TRY(db_thing_principal_attach_first(call->tx, thing, id, exclusive, &done, err));
	if (done)
		return OK;
	TRY(db_thing_principal_find(call->tx, thing, id, &now, err));
	if (!now.thing_exists)
		return thing_missing(err, thing);
	if (!now.certificate_exists)
		return principal_missing(err);
	TRY(check_exclusive(&now, exclusive, err));
	/* The broker need not hear of what is so already. */
	if (now.attached && now.exclusive == exclusive)
		return OK;
	return db_thing_principal_attach(call->tx, thing, id, exclusive, err);
}

static enum status
detach_principal(struct call *call, struct err *err)
{
	const char *thing = call_text(call, "thingName");
	const char *id;
	bool was_attached;

	TRY(thing_wanted(call, thing, err));
	TRY(principal_wanted(&id, call, err));
	TRY(db_thing_principal_detach(call->tx, thing, id, &was_attached, err));
	if (!was_attached)
		return iotcore_error(err, "ResourceNotFoundException",
			"The principal is not attached to thing %s.", thing);
	return OK;
}

/* ---- ListThingPrincipals, ListPrincipalThings ---- */

static enum status
add_principal(void *arg, const char *certificate_id, struct err *err)
{
	struct listing *listing = arg;
	char arn[IOTCORE_ARN_BYTES];

	iotcore_arn(arn, listing->call->core, "cert/%s", certificate_id);
	return listing_add(listing, certificate_id, json_string(arn), err);
}

static enum status
list_thing_principals(struct call *call, struct err *err)
{
	const char *thing = call_text(call, "thingName");
	own_struct(listing) listing = { .call = call };

	TRY(thing_wanted(call, thing, err));
	TRY(listing_begin(&listing, call, err));
	TRY(db_thing_principal_list(call->tx, thing, listing_after(&listing), listing_limit(&listing),
		add_principal, &listing, err));
	return listing_end(&listing, "principals", err);
}

static enum status
list_principal_things(struct call *call, struct err *err)
{
	own_struct(listing) listing = { .call = call };
	const char *id;

	TRY(principal_wanted(&id, call, err));
	TRY(listing_begin(&listing, call, err));
	TRY(db_principal_thing_list(call->tx, id, listing_after(&listing), listing_limit(&listing),
		listing_add_name, &listing, err));
	return listing_end(&listing, "things", err);
}

static const char *const PRINCIPAL_TYPES[] = { "EXCLUSIVE_THING", "NON_EXCLUSIVE_THING", NULL };

#define PRINCIPAL_MEMBER                                                                           \
	.name = "principal", .at = AT_HEADER, .wire = "x-amzn-principal", .type = MEMBER_TEXT,     \
	.required = true, .least = 1, .most = ARN_MOST

const struct op PRINCIPAL_OPS[] = {
	{ .name = "AttachThingPrincipal",
		.method = "PUT",
		.path = "/things/{thingName}/principals",
		.tx = TX_WRITE,
		.handle = attach_principal,
		.members = (const struct member[]){
			{ .name = "thingName", .at = AT_PATH, MEMBER_THING_NAME },
			{ PRINCIPAL_MEMBER },
			{ .name = "thingPrincipalType", .at = AT_QUERY, .type = MEMBER_TEXT,
				.values = PRINCIPAL_TYPES },
			{ .name = NULL } } },
	{ .name = "DetachThingPrincipal",
		.method = "DELETE",
		.path = "/things/{thingName}/principals",
		.tx = TX_WRITE,
		.handle = detach_principal,
		.members = (const struct member[]){
			{ .name = "thingName", .at = AT_PATH, MEMBER_THING_NAME },
			{ PRINCIPAL_MEMBER },
			{ .name = NULL } } },
	{ .name = "ListThingPrincipals",
		.method = "GET",
		.path = "/things/{thingName}/principals",
		.tx = TX_READ,
		.handle = list_thing_principals,
		.page = PAGE_TOKEN,
		.members = (const struct member[]){
			{ .name = "thingName", .at = AT_PATH, MEMBER_THING_NAME },
			{ .name = NULL } } },
	{ .name = "ListPrincipalThings",
		.method = "GET",
		.path = "/principals/things",
		.tx = TX_READ,
		.handle = list_principal_things,
		.page = PAGE_TOKEN,
		.members = (const struct member[]){ { PRINCIPAL_MEMBER }, { .name = NULL } } },
	{ .name = NULL },
};
