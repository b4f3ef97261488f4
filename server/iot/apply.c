#include "server/iot/apply.h"

#include <stdio.h>
#include <string.h>

#include "ca/pem.h"
#include "db/certificate.h"
#include "server/http/request.h"
#include "server/iot/ensure.h"
#include "server/iot/groups.h"

/* AWS: so many attributes without a thing type, IOT_ATTRIBUTES_MAX with one. */
#define ATTRIBUTES_WITHOUT_TYPE 3
#define ATTRIBUTE_CHARS                                                                            \
	"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.,@/:#=[]-"

static enum status
go_on(struct iot_apply *apply, struct err *err)
{
	return apply->go_on(apply->arg, err);
}

static void
id_of(char out[IOT_ID_BYTES], const struct iot_apply *apply, size_t i)
{
	hex_encode(out, apply->certificates[i].sha256, DB_SHA256_BYTES);
}

static void
arn_of(char out[IOT_ARN_BYTES], const struct iot_apply *apply, size_t i)
{
	char id[IOT_ID_BYTES];

	id_of(id, apply, i);
	iot_target_cert_arn(out, apply->site->target, id);
}

/* What it is there, when an update was refused: it may be REVOKED, or on its way to another account. */
static enum status
read_back(struct iot_apply *apply, size_t i, const char *id, struct err *err)
{
	own_struct(iot_certificate) found = { .status = IOT_STATUS_UNKNOWN };
	enum status status;

	TRY(go_on(apply, err));
	status = iot_describe_certificate(&apply->iot, id, &found, err);
	if (status == ERR_NOT_FOUND) {
		apply->gone[i] = true;
		return OK;
	}
	TRY(status);
	apply->status[i] = found.status;
	return OK;
}

static enum status
set_status(struct iot_apply *apply, size_t i, struct err *err)
{
	enum iot_status wanted = apply->plan->actions[i].status;
	char id[IOT_ID_BYTES];
	enum status status;

	id_of(id, apply, i);
	TRY(go_on(apply, err));
	status = iot_update_certificate(&apply->iot, id, wanted, err);
	if (status == ERR_NOT_FOUND) {
		apply->gone[i] = true;
		return OK;
	}
	if (status == ERR_CONFLICT || status == ERR_ARGUMENT) {
		struct err why = *err;

		TRY(read_back(apply, i, id, err));
		if (apply->gone[i] || apply->status[i] == wanted ||
		    apply->status[i] == IOT_STATUS_REVOKED)
			return OK;
		*err = why;
		return status;
	}
	TRY(status);
	apply->status[i] = wanted;
	return OK;
}

/* ---- the thing ---- */

struct attributes {
	struct aws_pair pairs[IOT_ATTRIBUTES_MAX];
	size_t count;
};

/* What IoT Core cannot hold is left out: a device must not stay outside for the sake of a remark. */
static void
attributes_of(struct attributes *out, json_t *object, bool has_type)
{
	size_t most = has_type ? IOT_ATTRIBUTES_MAX : ATTRIBUTES_WITHOUT_TYPE;
	const char *name;
	json_t *value;

	out->count = 0;
	json_object_foreach(object, name, value) {
		const char *text = json_string_value(value);

		if (out->count == most || text == NULL || text[0] == '\0' ||
		    strlen(text) >= IOT_ATTRIBUTE_BYTES || strlen(name) >= IOT_NAME_BYTES ||
		    strspn(text, ATTRIBUTE_CHARS) != strlen(text))
			continue;
		out->pairs[out->count++] = (struct aws_pair){ name, text };
	}
}

static const struct ca_profile *
profile_of(const struct iot_apply *apply, size_t i)
{
	return app_profile(apply->site->room->app, apply->certificates[i].profile);
}

static const char *
type_of(const struct iot_apply *apply)
{
	if (apply->device->thing_type[0] != '\0')
		return apply->device->thing_type;
	for (size_t i = 0; i < apply->count; i++) {
		const struct ca_profile *profile = profile_of(apply, i);

		if (profile != NULL && profile->thing_type[0] != '\0')
			return profile->thing_type;
	}
	return NULL;
}

static enum status
update_thing(struct iot_apply *apply, const struct iot_thing_spec *spec, struct err *err)
{
	own_struct(iot_thing) found = { .version = 0 };
	struct iot_thing_spec change = *spec;
	bool same;

	TRY(go_on(apply, err));
	TRY(iot_describe_thing(&apply->iot, spec->name, &found, err));
	same = spec->type == NULL || strcmp(found.type, spec->type) == 0;
	for (size_t i = 0; i < spec->attribute_count && same; i++) {
		const char *value = iot_thing_attribute(&found, spec->attributes[i].name);

		same = value != NULL && strcmp(value, spec->attributes[i].value) == 0;
	}
	if (same)
		return OK;
	change.merge = true; /* what others wrote stays */
	TRY(go_on(apply, err));
	return iot_update_thing(&apply->iot, &change, err);
}

static enum status
make_thing(struct iot_apply *apply, struct err *err)
{
	own(json_t) object = json_loads(apply->device->attributes, 0, NULL);
	struct iot_thing_spec spec = { .name = apply->device->device_id, .type = type_of(apply) };
	struct attributes attributes;
	struct iot_made made;
	enum status status;

	attributes_of(&attributes, object, spec.type != NULL);
	spec.attributes = attributes.pairs;
	spec.attribute_count = attributes.count;
	if (spec.type != NULL)
		TRY(iot_ensure_type(apply->site, &apply->iot, spec.type, err));
	TRY(go_on(apply, err));
	status = iot_create_thing(&apply->iot, &spec, &made, err);
	return status == ERR_CONFLICT ? update_thing(apply, &spec, err) : status;
}

static enum status
quarantine_thing(struct iot_apply *apply, struct err *err)
{
	const struct iot_target *target = apply->site->target;

	TRY(iot_ensure_quarantine(apply->site, &apply->iot, err));
	TRY(go_on(apply, err));
	return iot_add_thing_to_thing_group(&apply->iot, target->quarantine_group,
		apply->device->device_id, err);
}

static enum status
release_thing(struct iot_apply *apply, struct err *err)
{
	enum status status;

	TRY(go_on(apply, err));
	status = iot_remove_thing_from_thing_group(&apply->iot,
		apply->site->target->quarantine_group, apply->device->device_id, err);
	return status == ERR_NOT_FOUND ? OK : status;
}

/* ---- the groups that profiles name ---- */

static enum status
leave_group(struct iot_apply *apply, const char *name, struct err *err)
{
	enum status status;

	TRY(go_on(apply, err));
	status = iot_remove_thing_from_thing_group(&apply->iot, name, apply->device->device_id, err);
	return status == ERR_NOT_FOUND ? OK : status;
}

/* What profiles named once, and do not any more. Others that it is in are not ours to touch. */
static enum status
leave_given(struct iot_apply *apply, const struct iot_groups *but, struct err *err)
{
	const char *given = apply->given;
	char name[IOT_NAME_BYTES];

	while (iot_groups_next(&given, name))
		if (!iot_groups_hold(but, name))
			TRY(leave_group(apply, name, err));
	return OK;
}

static enum status
join_groups(struct iot_apply *apply, struct err *err)
{
	struct iot_groups groups;

	iot_groups_of(&groups, apply->site->room->app, apply->certificates, apply->count, true);
	for (size_t i = 0; i < groups.count; i++) {
		enum status status;

		TRY(iot_ensure_group(apply->site, &apply->iot, groups.at[i], err));
		TRY(go_on(apply, err));
		status = iot_add_thing_to_thing_group(&apply->iot, groups.at[i],
			apply->device->device_id, err);
		if (status == ERR_NOT_FOUND) /* somebody deleted it: make it again, next time */
			iot_forget_ensured(apply->site);
		TRY(status);
	}
	return leave_given(apply, &groups, err);
}

/* They may have policies of their own: in quarantine there is quarantine's alone. */
static enum status
leave_groups(struct iot_apply *apply, struct err *err)
{
	struct iot_groups groups;

	iot_groups_of(&groups, apply->site->room->app, apply->certificates, apply->count, false);
	for (size_t i = 0; i < groups.count; i++)
		TRY(leave_group(apply, groups.at[i], err));
	return leave_given(apply, &groups, err);
}

/* Whoever is attached: a thing with principals cannot be deleted. */
static enum status
detach_all(struct iot_apply *apply, struct err *err)
{
	struct iot_cursor cursor = { .done = false };
	const char *thing = apply->device->device_id;
	struct iot_arn arns[IOT_PLAN_CERTIFICATES_MAX];
	size_t count = 0;
	enum status status;

	TRY(go_on(apply, err));
	status = iot_list_thing_principals(&apply->iot, thing, &cursor, arns, COUNT_OF(arns), &count,
		err);
	if (status == ERR_NOT_FOUND)
		return OK;
	TRY(status);
	for (size_t i = 0; i < count; i++) {
		TRY(go_on(apply, err));
		status = iot_detach_thing_principal(&apply->iot, thing, arns[i].text, err);
		if (status != OK && status != ERR_NOT_FOUND)
			return status;
	}
	return OK;
}

static enum status
delete_thing(struct iot_apply *apply, struct err *err)
{
	enum status status;

	TRY(detach_all(apply, err));
	TRY(go_on(apply, err));
	status = iot_delete_thing(&apply->iot, apply->device->device_id, 0, err);
	if (status == ERR_NOT_FOUND)
		return OK;
	/* Detaching is not done at once there: come again. */
	if (status == ERR_ARGUMENT || status == ERR_CONFLICT)
		return err_set(err, ERR_UNAVAILABLE, "iot_thing_busy",
			"DeleteThing: %s still has a principal", apply->device->device_id);
	return status;
}

/* ---- a certificate's policies ---- */

struct names {
	struct iot_name at[IOT_PAGE_MAX];
	size_t count;
};

static bool
holds(const struct names *names, const char *name)
{
	for (size_t i = 0; i < names->count; i++)
		if (strcmp(names->at[i].text, name) == 0)
			return true;
	return false;
}

/* A fresh registration has none: AWS attaches nothing by itself. */
static enum status
policies_there(struct iot_apply *apply, size_t i, const char *arn, struct names *out, struct err *err)
{
	struct iot_cursor cursor = { .done = false };
	enum status status;

	out->count = 0;
	if (apply->facts[i].seen == IOT_STATUS_PENDING_ACTIVATION || apply->plan->actions[i].enrol)
		return OK;
	TRY(go_on(apply, err));
	status = iot_list_attached_policies(&apply->iot, arn, false, &cursor, out->at,
		COUNT_OF(out->at), &out->count, err);
	return status == ERR_NOT_FOUND ? OK : status;
}

static enum status
attach_policy(struct iot_apply *apply, const char *name, const char *arn, const struct names *there,
	struct err *err)
{
	enum status status;

	if (holds(there, name))
		return OK;
	TRY(iot_ensure_policy(apply->site, &apply->iot, name, err));
	TRY(go_on(apply, err));
	status = iot_attach_policy(&apply->iot, name, arn, err);
	if (status == ERR_NOT_FOUND) /* somebody deleted it: make it again, next time */
		iot_forget_ensured(apply->site);
	return status;
}

static bool
of_profile(const struct iot_apply *apply, size_t i, const char *name)
{
	const struct ca_profile *profile = profile_of(apply, i);

	for (size_t k = 0; profile != NULL && k < profile->policy_count; k++)
		if (strcmp(profile->policies[k], name) == 0)
			return true;
	return false;
}

/* Which of those that are there must go. */
static bool
goes(const struct iot_apply *apply, size_t i, const char *name)
{
	const char *quarantine = apply->site->target->quarantine_policy;

	switch (apply->plan->actions[i].policies) {
	case PLAN_POLICIES_PROFILE: /* what an administrator attached besides stays */
		return strcmp(name, quarantine) == 0 && !of_profile(apply, i, name);
	case PLAN_POLICIES_QUARANTINE:
		return strcmp(name, quarantine) != 0;
	case PLAN_POLICIES_NONE:
		return true;
	case PLAN_POLICIES_LEAVE:
	default:
		return false;
	}
}

static enum status
set_policies(struct iot_apply *apply, size_t i, const char *arn, struct err *err)
{
	const struct ca_profile *profile = profile_of(apply, i);
	enum plan_policies wanted = apply->plan->actions[i].policies;
	struct names there;

	if (wanted == PLAN_POLICIES_LEAVE)
		return OK;
	TRY(policies_there(apply, i, arn, &there, err));
	if (wanted == PLAN_POLICIES_QUARANTINE)
		TRY(attach_policy(apply, apply->site->target->quarantine_policy, arn, &there, err));
	for (size_t k = 0; wanted == PLAN_POLICIES_PROFILE && k < profile->policy_count; k++)
		TRY(attach_policy(apply, profile->policies[k], arn, &there, err));
	for (size_t k = 0; k < there.count; k++) {
		enum status status;

		if (!goes(apply, i, there.at[k].text))
			continue;
		TRY(go_on(apply, err));
		status = iot_detach_policy(&apply->iot, there.at[k].text, arn, err);
		if (status != OK && status != ERR_NOT_FOUND)
			return status;
	}
	return OK;
}

/* ---- a certificate ---- */

static enum status
pem_of(const struct iot_apply *apply, size_t i, struct buf *pem, const struct app_ca **ca,
	struct err *err)
{
	struct app *app = apply->site->room->app;
	own_struct(db_certificate) row = { .issued_at_s = 0 };
	own_struct(db_tx) tx = { NULL, NULL };

	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_certificate_by_ref(&tx, &apply->certificates[i].ref, &row, err));
	TRY(ca_pem_encode(pem, "CERTIFICATE", view_of(&row.der), err));
	*ca = app_ca_by_issuer(app, row.ref.issuer_id);
	return buf_add(pem, "", 1, err);
}

/* INACTIVE first: it has neither policy nor thing yet. */
static enum status
enrol(struct iot_apply *apply, size_t i, struct err *err)
{
	own_struct(buf) pem = { .limit_bytes = 64 * 1024 };
	const struct app_ca *ca = NULL;
	struct iot_made made;
	enum status status;

	TRY(pem_of(apply, i, &pem, &ca, err));
	TRY(go_on(apply, err));
	if (apply->site->target->mode == IOT_MODE_SNI_ONLY)
		status = iot_register_certificate_without_ca(&apply->iot, (const char *)pem.data,
			IOT_STATUS_INACTIVE, &made, err);
	else
		status = iot_register_certificate(&apply->iot, (const char *)pem.data, NULL,
			IOT_STATUS_INACTIVE, &made, err);
	return status == ERR_CONFLICT && apply->iot.failure.error == AWS_ERROR_EXISTS ? OK : status;
}

static enum status
admit_one(struct iot_apply *apply, size_t i, struct err *err)
{
	const struct plan_action *action = &apply->plan->actions[i];
	char arn[IOT_ARN_BYTES];

	if (action->enrol)
		TRY(enrol(apply, i, err));
	if (!action->attach && !(apply->device == NULL && action->status == IOT_STATUS_ACTIVE))
		return OK;
	arn_of(arn, apply, i);
	TRY(set_policies(apply, i, arn, err));
	if (!action->attach)
		return OK;
	TRY(go_on(apply, err));
	return iot_attach_thing_principal(&apply->iot, apply->device->device_id, arn, err);
}

static enum status
clean_one(struct iot_apply *apply, size_t i, struct err *err)
{
	const struct plan_action *action = &apply->plan->actions[i];
	char arn[IOT_ARN_BYTES];
	enum status status;

	if (apply->gone[i])
		return OK;
	arn_of(arn, apply, i);
	if (action->detach && apply->device != NULL) {
		TRY(go_on(apply, err));
		status = iot_detach_thing_principal(&apply->iot, apply->device->device_id, arn, err);
		if (status != OK && status != ERR_NOT_FOUND)
			return status;
	}
	return action->policies == PLAN_POLICIES_NONE ? set_policies(apply, i, arn, err) : OK;
}

static bool
wants(const struct iot_apply *apply, size_t i, bool active)
{
	enum iot_status status = apply->plan->actions[i].status;

	return status != IOT_STATUS_UNKNOWN && (status == IOT_STATUS_ACTIVE) == active;
}

static bool
any_attach(const struct iot_apply *apply)
{
	for (size_t i = 0; i < apply->count; i++)
		if (apply->plan->actions[i].attach)
			return true;
	return false;
}

static enum status
make_things(struct iot_apply *apply, struct err *err)
{
	enum plan_thing thing = apply->plan->thing;

	if (thing != PLAN_THING_ACTIVE && thing != PLAN_THING_QUARANTINED)
		return OK;
	if (!apply->plan->thing_changes && !any_attach(apply))
		return OK;
	TRY(make_thing(apply, err));
	if (thing == PLAN_THING_ACTIVE)
		return join_groups(apply, err);
	TRY(quarantine_thing(apply, err));
	return leave_groups(apply, err);
}

enum status
iot_apply_take_away(struct iot_apply *apply, struct err *err)
{
	for (size_t i = 0; i < apply->count; i++)
		if (wants(apply, i, false) && !apply->plan->actions[i].enrol)
			TRY(set_status(apply, i, err));
	return OK;
}

enum status
iot_apply_rest(struct iot_apply *apply, struct err *err)
{
	TRY(make_things(apply, err));
	for (size_t i = 0; i < apply->count; i++)
		if (!apply->gone[i])
			TRY(admit_one(apply, i, err));
	if (apply->plan->thing == PLAN_THING_ACTIVE && strcmp(apply->applied, "quarantined") == 0)
		TRY(release_thing(apply, err));
	for (size_t i = 0; i < apply->count; i++)
		if (wants(apply, i, true))
			TRY(set_status(apply, i, err));
	for (size_t i = 0; i < apply->count; i++)
		TRY(clean_one(apply, i, err));
	if (apply->plan->thing == PLAN_THING_ABSENT && apply->plan->thing_changes)
		TRY(delete_thing(apply, err));
	return OK;
}
