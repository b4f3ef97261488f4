/* Device Defender security profiles, and the validation of behaviors on its own. */
#include <string.h>

#include "db/iotcore_security_profile.h"
#include "server/iotcore/behaviors.h"
#include "server/iotcore/profiles.h"
#include "server/iotcore/registry.h"
#include "server/iotcore/tables.h"

/* AWS's quotas. */
#define PROFILE_DESCRIPTION_MOST 1000
#define ROLE_ARN_LEAST 20

/* ---- what a request may hold ---- */

static const struct member BEHAVIOR_ITEMS[] = {
	{ .name = "member", .type = MEMBER_STRUCT, .members = BEHAVIOR_MEMBERS },
	{ .name = NULL },
};
static const struct member METRIC_ITEMS[] = {
	{ .name = "member", .type = MEMBER_TEXT },
	{ .name = NULL },
};
static const struct member RETAIN_ITEMS[] = {
	{ .name = "member", .type = MEMBER_STRUCT, .members = METRIC_TO_RETAIN_MEMBERS },
	{ .name = NULL },
};
static const struct member ALERT_TARGET_FIELDS[] = {
	{ .name = "alertTargetArn", .type = MEMBER_TEXT, .required = true, .least = 1, .most = ARN_MOST },
	{ .name = "roleArn", .type = MEMBER_TEXT, .required = true, .least = ROLE_ARN_LEAST,
		.most = ARN_MOST },
	{ .name = NULL },
};
static const struct member ALERT_TARGET_MEMBERS[] = {
	{ .name = "key", .type = MEMBER_TEXT, .values = (const char *const[]){ "SNS", NULL } },
	{ .name = "value", .type = MEMBER_STRUCT, .members = ALERT_TARGET_FIELDS },
	{ .name = NULL },
};
static const struct member EXPORT_MEMBERS[] = {
	{ .name = "mqttTopic", .type = MEMBER_TEXT, .required = true, .least = 1, .most = 512 },
	{ .name = "roleArn", .type = MEMBER_TEXT, .required = true, .least = ROLE_ARN_LEAST,
		.most = ARN_MOST },
	{ .name = NULL },
};

#define PROFILE_NAME { .name = "securityProfileName", .at = AT_PATH, MEMBER_THING_NAME }
/* .at and .name are the caller's. */
#define BEHAVIORS .type = MEMBER_LIST, .most = BEHAVIORS_MOST, .members = BEHAVIOR_ITEMS
#define PROFILE_MEMBERS                                                                            \
	PROFILE_NAME,                                                                              \
		{ .name = "securityProfileDescription", .at = AT_BODY, .type = MEMBER_TEXT,        \
			.most = PROFILE_DESCRIPTION_MOST, .pattern = &PATTERN_PRINTABLE },         \
		{ .name = "behaviors", .at = AT_BODY, BEHAVIORS },                                 \
		{ .name = "alertTargets", .at = AT_BODY, .type = MEMBER_MAP,                       \
			.members = ALERT_TARGET_MEMBERS },                                         \
		{ .name = "additionalMetricsToRetain", .at = AT_BODY, .type = MEMBER_LIST,         \
			.members = METRIC_ITEMS },                                                 \
		{ .name = "additionalMetricsToRetainV2", .at = AT_BODY, .type = MEMBER_LIST,       \
			.members = RETAIN_ITEMS },                                                 \
	{                                                                                          \
		.name = "metricsExportConfig", .at = AT_BODY, .type = MEMBER_STRUCT,               \
		.members = EXPORT_MEMBERS                                                          \
	}

/* ---- a profile as JSON ---- */

struct profile {
	json_t *behaviors, *alert_targets, *metrics, *export;
};

static void
profile_free(struct profile *profile)
{
	json_decref(profile->behaviors);
	json_decref(profile->alert_targets);
	json_decref(profile->metrics);
	json_decref(profile->export);
}
OWNER_STRUCT(profile, profile_free)

static enum status
profile_empty(struct profile *out, struct err *err)
{
	*out = (struct profile){ json_array(), json_object(), json_array(), json_object() };
	return out->behaviors != NULL && out->alert_targets != NULL && out->metrics != NULL &&
	                       out->export != NULL
	               ? OK
	               : err_memory(err);
}

static enum status
profile_load(struct profile *out, const struct db_security_profile *row, struct err *err)
{
	TRY(registry_load(&out->behaviors, row->behaviors, err));
	TRY(registry_load(&out->alert_targets, row->alert_targets, err));
	TRY(registry_load(&out->metrics, row->metrics_to_retain, err));
	return registry_load(&out->export, row->metrics_export, err);
}

/* Takes value. */
static void
replace(json_t **slot, json_t *value)
{
	json_decref(*slot);
	*slot = value;
}

static enum status
known_list(json_t **slot, const struct member *members, const json_t *list, struct err *err)
{
	own(json_t) out = json_array();

	for (size_t i = 0; i < json_array_size(list); i++) {
		json_t *item;

		TRY(registry_known(&item, members, json_array_get(list, i), err));
		if (json_array_append_new(out, item) != 0)
			return err_memory(err);
	}
	if (out == NULL)
		return err_memory(err);
	replace(slot, give(out));
	return OK;
}

/* ---- behaviors ---- */

/* The first faults, for a message; ValidateSecurityProfileBehaviors tells all. */
static enum status
refuse_faults(const json_t *faults, struct err *err)
{
	return iotcore_error(err, "InvalidRequestException", "%s%s",
		json_string_value(json_array_get(faults, 0)),
		json_array_size(faults) > 1 ? " (and more: see ValidateSecurityProfileBehaviors)" : "");
}

static enum status
take_behaviors(struct profile *profile, const json_t *behaviors, struct err *err)
{
	own(json_t) faults = NULL;

	if (behaviors == NULL)
		return OK;
	TRY(behaviors_check(&faults, behaviors, err));
	if (json_array_size(faults) > 0)
		return refuse_faults(faults, err);
	return known_list(&profile->behaviors, BEHAVIOR_MEMBERS, behaviors, err);
}

static enum status
validate_behaviors(struct call *call, struct err *err)
{
	own(json_t) faults = NULL;
	own(json_t) errors = json_array();
	size_t i;
	json_t *text;

	TRY(behaviors_check(&faults, call_json(call, "behaviors"), err));
	json_array_foreach(faults, i, text)
		if (json_array_append_new(errors, json_pack("{s:O}", "errorMessage", text)) != 0)
			return err_memory(err);
	if (json_array_size(faults) == 0)
		return call_reply(call, json_pack("{s:b}", "valid", 1), err);
	return call_reply(
		call, json_pack("{s:b,s:O}", "valid", 0, "validationErrors", errors), err);
}

/* ---- metrics to retain ---- */

static enum status
check_metric(const json_t *metric, struct err *err)
{
	const char *name = json_string_value(json_object_get(metric, "metric"));
	const json_t *dimension = json_object_get(metric, "metricDimension");

	if (!behaviors_metric_known(name))
		return iotcore_error(err, "InvalidRequestException",
			"additionalMetricsToRetain: metric %.128s does not exist", name);
	if (dimension != NULL)
		return iotcore_error(err, "InvalidRequestException",
			"additionalMetricsToRetainV2: dimension %.128s does not exist",
			json_string_value(json_object_get(dimension, "dimensionName")));
	return OK;
}

static bool
has_metric(const json_t *metrics, const json_t *metric)
{
	for (size_t i = 0; i < json_array_size(metrics); i++)
		if (json_equal(json_array_get(metrics, i), metric))
			return true;
	return false;
}

/* The old list of names is the new one without dimensions. */
static enum status
take_metrics(struct profile *profile, const json_t *names, const json_t *metrics, struct err *err)
{
	size_t i;
	json_t *item;

	if (names == NULL && metrics == NULL)
		return OK;
	TRY(known_list(&profile->metrics, METRIC_TO_RETAIN_MEMBERS, metrics, err));
	json_array_foreach(names, i, item)
	{
		own(json_t) metric = json_pack("{s:O}", "metric", item);

		if (metric == NULL)
			return err_memory(err);
		if (!has_metric(profile->metrics, metric) &&
			json_array_append(profile->metrics, metric) != 0)
			return err_memory(err);
	}
	json_array_foreach(profile->metrics, i, item)
		TRY(check_metric(item, err));
	return OK;
}

/* ---- what a call sets ---- */

static enum status
take_members(struct profile *profile, struct call *call, struct err *err)
{
	json_t *alert_targets = call_json(call, "alertTargets");
	const json_t *export = call_json(call, "metricsExportConfig");

	TRY(take_behaviors(profile, call_json(call, "behaviors"), err));
	if (alert_targets != NULL)
		replace(&profile->alert_targets, json_incref(alert_targets));
	TRY(take_metrics(profile, call_json(call, "additionalMetricsToRetain"),
		call_json(call, "additionalMetricsToRetainV2"), err));
	if (export != NULL) {
		json_t *known;

		TRY(registry_known(&known, EXPORT_MEMBERS, export, err));
		replace(&profile->export, known);
	}
	return OK;
}

static enum status
write_profile(struct call *call, const struct profile *profile, struct view description,
	enum status (*write)(
		struct db_tx *tx, const struct db_security_profile *row, struct err *err),
	struct err *err)
{
	const char *behaviors = registry_dump(call, profile->behaviors);
	const char *alert_targets = registry_dump(call, profile->alert_targets);
	const char *metrics = registry_dump(call, profile->metrics);
	const char *export = registry_dump(call, profile->export);

	if (behaviors == NULL || alert_targets == NULL || metrics == NULL || export == NULL)
		return err_memory(err);
	const struct db_security_profile row = { .name = call_text(call, "securityProfileName"),
		.description = description,
		.behaviors = view_text(behaviors),
		.alert_targets = view_text(alert_targets),
		.metrics_to_retain = view_text(metrics),
		.metrics_export = view_text(export) };
	return write(call->tx, &row, err);
}

/* ---- CreateSecurityProfile ---- */

enum status
profile_missing(struct err *err, const char *name)
{
	return iotcore_error(err, "ResourceNotFoundException",
		"Security profile %s cannot be found.", name);
}

static enum status
create_profile(struct call *call, struct err *err)
{
	const char *name = call_text(call, "securityProfileName");
	const char *description = call_text(call, "securityProfileDescription");
	own_struct(db_security_profile) existing = { .rows = NULL };
	own_struct(profile) profile = { .behaviors = NULL };
	char arn[IOTCORE_ARN_BYTES];
	bool found;

	TRY(profile_empty(&profile, err));
	TRY(take_members(&profile, call, err));
	iotcore_arn(arn, call->core, "securityprofile/%s", name);
	TRY(db_security_profile_find(call->tx, name, &found, &existing, err));
	if (found)
		return iotcore_exists(
			call, err, name, arn, "Security profile %s already exists.", name);
	TRY(write_profile(call, &profile, view_text(description != NULL ? description : ""),
		db_security_profile_create, err));
	TRY(iotcore_tags_put(call, arn, call_json(call, "tags"), err));
	return call_reply(call,
		json_pack("{s:s,s:s}", "securityProfileName", name, "securityProfileArn", arn), err);
}

/* ---- DescribeSecurityProfile ---- */

/* additionalMetricsToRetain, as clients of old read it. */
static enum status
add_old_metrics(json_t *answer, const json_t *metrics, struct err *err)
{
	own(json_t) names = json_array();
	size_t i;
	json_t *metric;

	json_array_foreach((json_t *)(uintptr_t)metrics, i, metric)
		if (json_object_get(metric, "metricDimension") == NULL &&
			json_array_append(names, json_object_get(metric, "metric")) != 0)
			return err_memory(err);
	return registry_set(answer, "additionalMetricsToRetain", give(names), err);
}

static enum status
reply_profile(struct call *call, const char *name, struct err *err)
{
	own_struct(db_security_profile) row = { .rows = NULL };
	own_struct(profile) profile = { .behaviors = NULL };
	own(json_t) answer = NULL;
	char arn[IOTCORE_ARN_BYTES];
	bool found;

	TRY(db_security_profile_find(call->tx, name, &found, &row, err));
	if (!found)
		return profile_missing(err, name);
	TRY(profile_load(&profile, &row, err));
	iotcore_arn(arn, call->core, "securityprofile/%s", name);
	answer = json_pack("{s:s,s:s,s:O,s:O,s:O,s:I,s:o,s:o}", "securityProfileName", name,
		"securityProfileArn", arn, "behaviors", profile.behaviors, "alertTargets",
		profile.alert_targets, "additionalMetricsToRetainV2", profile.metrics, "version",
		(json_int_t)row.version, "creationDate", iotcore_time(row.created_us),
		"lastModifiedDate", iotcore_time(row.modified_us));
	if (answer == NULL)
		return err_memory(err);
	TRY(registry_set_text(answer, "securityProfileDescription", row.description, err));
	TRY(add_old_metrics(answer, profile.metrics, err));
	if (json_object_size(profile.export) > 0)
		TRY(registry_set(answer, "metricsExportConfig", json_incref(profile.export), err));
	return call_reply(call, give(answer), err);
}

static enum status
describe_profile(struct call *call, struct err *err)
{
	return reply_profile(call, call_text(call, "securityProfileName"), err);
}

/* ---- UpdateSecurityProfile ---- */

static enum status
take_deletion(struct call *call, const char *flag, const char *member, json_t **slot, struct err *err)
{
	bool is_list = json_is_array(*slot);

	if (!call_flag(call, flag, false))
		return OK;
	if (call_has(call, member))
		return iotcore_error(err, "InvalidRequestException",
			"%s can not be given when %s is true.", member, flag);
	replace(slot, is_list ? json_array() : json_object());
	return *slot != NULL ? OK : err_memory(err);
}

static enum status
take_deletions(struct profile *profile, struct call *call, struct err *err)
{
	TRY(take_deletion(call, "deleteBehaviors", "behaviors", &profile->behaviors, err));
	TRY(take_deletion(call, "deleteAlertTargets", "alertTargets", &profile->alert_targets, err));
	TRY(take_deletion(call, "deleteAdditionalMetricsToRetain", "additionalMetricsToRetain",
		&profile->metrics, err));
	TRY(take_deletion(call, "deleteAdditionalMetricsToRetain", "additionalMetricsToRetainV2",
		&profile->metrics, err));
	return take_deletion(
		call, "deleteMetricsExportConfig", "metricsExportConfig", &profile->export, err);
}

static enum status
update_profile(struct call *call, struct err *err)
{
	const char *name = call_text(call, "securityProfileName");
	const char *description = call_text(call, "securityProfileDescription");
	own_struct(db_security_profile) row = { .rows = NULL };
	own_struct(profile) profile = { .behaviors = NULL };
	bool found;

	TRY(db_security_profile_find(call->tx, name, &found, &row, err));
	if (!found)
		return profile_missing(err, name);
	TRY(version_wanted(call, "security profile", name, row.version, err));
	TRY(profile_load(&profile, &row, err));
	TRY(take_deletions(&profile, call, err));
	TRY(take_members(&profile, call, err));
	TRY(write_profile(call, &profile,
		description != NULL ? view_text(description) : row.description,
		db_security_profile_update, err));
	return reply_profile(call, name, err);
}

/* ---- DeleteSecurityProfile, ListSecurityProfiles ---- */

static enum status
delete_profile(struct call *call, struct err *err)
{
	const char *name = call_text(call, "securityProfileName");
	own_struct(db_security_profile) row = { .rows = NULL };
	char arn[IOTCORE_ARN_BYTES];
	bool found;

	TRY(db_security_profile_find(call->tx, name, &found, &row, err));
	if (!found)
		return OK;
	TRY(version_wanted(call, "security profile", name, row.version, err));
	iotcore_arn(arn, call->core, "securityprofile/%s", name);
	TRY(iotcore_tags_drop(call, arn, err));
	return db_security_profile_delete(call->tx, name, err);
}

static enum status
add_profile(void *arg, const char *name, struct err *err)
{
	struct listing *listing = arg;
	char arn[IOTCORE_ARN_BYTES];

	iotcore_arn(arn, listing->call->core, "securityprofile/%s", name);
	return listing_add(listing, name, json_pack("{s:s,s:s}", "name", name, "arn", arn), err);
}

static enum status
list_profiles(struct call *call, struct err *err)
{
	const char *dimension = call_text(call, "dimensionName");
	const char *metric = call_text(call, "metricName");
	own_struct(listing) listing = { .call = call };

	if (dimension != NULL && metric != NULL)
		return iotcore_error(err, "InvalidRequestException",
			"dimensionName and metricName can not both be given.");
	if (dimension != NULL)
		return iotcore_error(err, "ResourceNotFoundException",
			"Dimension %s cannot be found.", dimension);
	if (metric != NULL && !behaviors_metric_known(metric))
		return iotcore_error(
			err, "ResourceNotFoundException", "Metric %s cannot be found.", metric);
	TRY(listing_begin(&listing, call, err));
	TRY(db_security_profile_list(call->tx, metric, listing_after(&listing), listing_limit(&listing),
		add_profile, &listing, err));
	return listing_end(&listing, "securityProfileIdentifiers", err);
}

const struct op SECURITY_PROFILE_OPS[] = {
	{ .name = "CreateSecurityProfile",
		.method = "POST",
		.path = "/security-profiles/{securityProfileName}",
		.tx = TX_WRITE,
		.handle = create_profile,
		.members = (const struct member[]){
			PROFILE_MEMBERS,
			{ .name = "tags", .at = AT_BODY, MEMBER_TAGS },
			{ .name = NULL } } },
	{ .name = "DescribeSecurityProfile",
		.method = "GET",
		.path = "/security-profiles/{securityProfileName}",
		.tx = TX_READ,
		.handle = describe_profile,
		.members = (const struct member[]){ PROFILE_NAME, { .name = NULL } } },
	{ .name = "UpdateSecurityProfile",
		.method = "PATCH",
		.path = "/security-profiles/{securityProfileName}",
		.tx = TX_WRITE,
		.handle = update_profile,
		.members = (const struct member[]){
			PROFILE_MEMBERS,
			{ .name = "deleteBehaviors", .at = AT_BODY, .type = MEMBER_FLAG },
			{ .name = "deleteAlertTargets", .at = AT_BODY, .type = MEMBER_FLAG },
			{ .name = "deleteAdditionalMetricsToRetain", .at = AT_BODY, .type = MEMBER_FLAG },
			{ .name = "deleteMetricsExportConfig", .at = AT_BODY, .type = MEMBER_FLAG },
			{ .name = "expectedVersion", .at = AT_QUERY, .type = MEMBER_NUMBER },
			{ .name = NULL } } },
	{ .name = "DeleteSecurityProfile",
		.method = "DELETE",
		.path = "/security-profiles/{securityProfileName}",
		.tx = TX_WRITE,
		.handle = delete_profile,
		.members = (const struct member[]){
			PROFILE_NAME,
			{ .name = "expectedVersion", .at = AT_QUERY, .type = MEMBER_NUMBER },
			{ .name = NULL } } },
	{ .name = "ListSecurityProfiles",
		.method = "GET",
		.path = "/security-profiles",
		.tx = TX_READ,
		.handle = list_profiles,
		.page = PAGE_TOKEN,
		.members = (const struct member[]){
			{ .name = "dimensionName", .at = AT_QUERY, MEMBER_NAME_OPTIONAL },
			{ .name = "metricName", .at = AT_QUERY, MEMBER_NAME_OPTIONAL },
			{ .name = NULL } } },
	{ .name = "ValidateSecurityProfileBehaviors",
		.method = "POST",
		.path = "/security-profile-behaviors/validate",
		.tx = TX_NONE,
		.handle = validate_behaviors,
		.members = (const struct member[]){
			{ .name = "behaviors", .at = AT_BODY, .required = true, BEHAVIORS },
			{ .name = NULL } } },
	{ .name = NULL },
};
