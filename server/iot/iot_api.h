/*
 * server/iot/iot_api.h - the control plane of AWS IoT Core (REST-JSON, 2015-05-28), operation by
 * operation. Each function is one call of aws.h: it blocks, and is paced, retried and counted
 * there. Names and ids are checked for form before anything is sent (ERR_ARGUMENT iot_argument).
 * Members that we do not know are ignored in answers; one that is missing or too long is
 * ERR_UNAVAILABLE iot_answer_malformed.
 *
 * What the service refused is in iot->failure: the status says what to do, the failure says what it
 * said. A struct iot belongs to one thread at a time.
 */
#ifndef SERVER_IOT_IOT_API_H
#define SERVER_IOT_IOT_API_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "server/iot/aws.h"

struct iot {
	struct aws_client *client;  /* borrowed */
	enum aws_priority priority;
	int64_t timeout_ms;         /* for each call; 0: the client's */
	struct aws_failure failure; /* of the last call; .error AWS_ERROR_NONE after OK */
};

/* Sizes with the NUL. */
#define IOT_ID_BYTES 65       /* 64 hex digits: certificates, CA certificates, registration code */
#define IOT_ARN_BYTES AWS_ARN_BYTES
#define IOT_NAME_BYTES 129    /* things, types, groups, policies, rules */
#define IOT_UUID_BYTES 65
#define IOT_ATTRIBUTE_BYTES 801
#define IOT_TEXT_BYTES 257    /* a status reason, a description: cut */
#define IOT_VERSION_BYTES 16  /* of a policy: "1" */
#define IOT_HOST_BYTES 254
#define IOT_URL_BYTES 2001
#define IOT_TOKEN_BYTES 2049
#define IOT_ATTRIBUTES_MAX 50
#define IOT_POLICY_VERSIONS_MAX 5
#define IOT_PAGE_MAX 250      /* items of a page, in every list here */

enum iot_status { /* of certificates; CA certificates know the first two */
	IOT_STATUS_UNKNOWN = 0, /* one that we do not know; as an argument: leave as it is */
	IOT_STATUS_ACTIVE,
	IOT_STATUS_INACTIVE,
	IOT_STATUS_REVOKED, /* final */
	IOT_STATUS_PENDING_TRANSFER,
	IOT_STATUS_PENDING_ACTIVATION,
	IOT_STATUS_REGISTER_INACTIVE,
};
const char *iot_status_name(enum iot_status status); /* "ACTIVE" …; "UNKNOWN" */
enum iot_status iot_status_parse(const char *text);  /* NULL or another: IOT_STATUS_UNKNOWN */

enum iot_mode { IOT_MODE_UNKNOWN = 0, IOT_MODE_DEFAULT, IOT_MODE_SNI_ONLY };
enum iot_switch { IOT_SWITCH_LEAVE = 0, IOT_SWITCH_ENABLE, IOT_SWITCH_DISABLE };

/* Lists. Zeroed: from the start. One call reads one page; done is set with the last one. */
struct iot_cursor {
	char token[IOT_TOKEN_BYTES]; /* text: may be kept and resumed from */
	bool done;
};

struct iot_name {
	char text[IOT_NAME_BYTES];
};
struct iot_arn {
	char text[IOT_ARN_BYTES];
};

/* Where something was made. */
struct iot_made {
	char arn[IOT_ARN_BYTES];
	char id[IOT_UUID_BYTES]; /* certificate id, thing id …; "" where there is none */
};

/* ---- CA certificates ---- */

MUST_USE enum status iot_get_registration_code(struct iot *iot, char code[IOT_ID_BYTES],
	struct err *err);

struct iot_register_ca {
	const char *ca_pem;
	const char *verification_pem; /* NULL with IOT_MODE_SNI_ONLY */
	enum iot_mode mode;           /* IOT_MODE_DEFAULT or IOT_MODE_SNI_ONLY */
	bool active;
	bool auto_registration;       /* just-in-time registration needs it */
};
/* ERR_CONFLICT iot_exists: iot->failure.resource_id and .resource_arn name the one there. */
MUST_USE enum status iot_register_ca_certificate(
	struct iot *iot, const struct iot_register_ca *spec, struct iot_made *out, struct err *err);

struct iot_ca_certificate {
	char arn[IOT_ARN_BYTES];
	char id[IOT_ID_BYTES];
	enum iot_status status;
	enum iot_switch auto_registration; /* of describe only, as all below */
	enum iot_mode mode;
	/* Then IoT Core provisions by template instead of asking us. */
	bool has_registration_config;
	int64_t creation_s;           /* of lists too */
	struct bytes pem;
};
void iot_ca_certificate_free(struct iot_ca_certificate *certificate);
OWNER_STRUCT(iot_ca_certificate, iot_ca_certificate_free)

MUST_USE enum status iot_describe_ca_certificate(struct iot *iot, const char *id,
	struct iot_ca_certificate *out, struct err *err);
MUST_USE enum status iot_update_ca_certificate(struct iot *iot, const char *id,
	enum iot_status new_status, enum iot_switch auto_registration, struct err *err);
MUST_USE enum status iot_delete_ca_certificate(struct iot *iot, const char *id, struct err *err);
/* Items hold no PEM; at most max (1 to IOT_PAGE_MAX) are asked for and come. The same for all
 * lists. */
MUST_USE enum status iot_list_ca_certificates(struct iot *iot, struct iot_cursor *cursor,
	struct iot_ca_certificate *items, size_t max, size_t *count, struct err *err);

/* ---- device certificates ---- */

/* status: ACTIVE or INACTIVE. ca_pem: NULL unless several registered CAs share the subject. */
MUST_USE enum status iot_register_certificate(struct iot *iot, const char *pem, const char *ca_pem,
	enum iot_status status, struct iot_made *out, struct err *err);
MUST_USE enum status iot_register_certificate_without_ca(struct iot *iot, const char *pem,
	enum iot_status status, struct iot_made *out, struct err *err);

struct iot_certificate {
	char arn[IOT_ARN_BYTES];
	char id[IOT_ID_BYTES];
	enum iot_status status;
	enum iot_mode mode;
	int64_t creation_s;
	char ca_id[IOT_ID_BYTES]; /* of describe only, as all below; "" if it has none */
	int64_t last_modified_s;
	int64_t not_before_s, not_after_s;
	struct bytes pem;
};
void iot_certificate_free(struct iot_certificate *certificate);
OWNER_STRUCT(iot_certificate, iot_certificate_free)

MUST_USE enum status iot_describe_certificate(struct iot *iot, const char *id,
	struct iot_certificate *out, struct err *err);
/* new_status: ACTIVE, INACTIVE or REVOKED. REVOKED cannot be undone: only for what our own row
 * calls so. */
MUST_USE enum status iot_update_certificate(struct iot *iot, const char *id,
	enum iot_status new_status, struct err *err);
MUST_USE enum status iot_delete_certificate(struct iot *iot, const char *id, bool force,
	struct err *err);
/* newest_first: lists are in order of creation. */
MUST_USE enum status iot_list_certificates(struct iot *iot, bool newest_first,
	struct iot_cursor *cursor, struct iot_certificate *items, size_t max, size_t *count,
	struct err *err);
MUST_USE enum status iot_list_certificates_by_ca(struct iot *iot, const char *ca_id,
	bool newest_first, struct iot_cursor *cursor, struct iot_certificate *items, size_t max,
	size_t *count, struct err *err);

/* ---- things, types, groups, principals ---- */

struct iot_thing_spec {
	const char *name;
	const char *type;                  /* NULL: none (create), leave (update) */
	const struct aws_pair *attributes; /* an empty value removes (update) */
	size_t attribute_count;
	bool merge;                        /* of update: keep the attributes that are not named */
	bool remove_type;                  /* of update */
	int64_t expected_version;          /* of update: 0: any */
};
/* Repeating it with the same content is OK; with other content ERR_CONFLICT iot_exists. */
MUST_USE enum status iot_create_thing(struct iot *iot, const struct iot_thing_spec *spec,
	struct iot_made *out, struct err *err);
MUST_USE enum status iot_update_thing(struct iot *iot, const struct iot_thing_spec *spec,
	struct err *err);
MUST_USE enum status iot_delete_thing(struct iot *iot, const char *name, int64_t expected_version,
	struct err *err);

struct iot_attribute {
	char name[IOT_NAME_BYTES];
	char value[IOT_ATTRIBUTE_BYTES];
};
struct iot_thing {
	char name[IOT_NAME_BYTES];
	char arn[IOT_ARN_BYTES];
	char id[IOT_UUID_BYTES];
	char type[IOT_NAME_BYTES]; /* "" if it has none */
	int64_t version;
	struct iot_attribute *attributes; /* owned */
	size_t attribute_count;
};
void iot_thing_free(struct iot_thing *thing);
OWNER_STRUCT(iot_thing, iot_thing_free)
/* NULL: it has none of that name. */
const char *iot_thing_attribute(const struct iot_thing *thing, const char *name);

MUST_USE enum status iot_describe_thing(struct iot *iot, const char *name, struct iot_thing *out,
	struct err *err);

/* searchable: up to three attribute names; NULL if none. description may be NULL. */
MUST_USE enum status iot_create_thing_type(struct iot *iot, const char *name,
	const char *description, const char *const *searchable, size_t searchable_count,
	struct iot_made *out, struct err *err);
struct iot_thing_type {
	char name[IOT_NAME_BYTES];
	char arn[IOT_ARN_BYTES];
	char id[IOT_UUID_BYTES];
	char description[IOT_TEXT_BYTES];
	bool deprecated;
};
MUST_USE enum status iot_describe_thing_type(struct iot *iot, const char *name,
	struct iot_thing_type *out, struct err *err);

/* parent, description: NULL if none. */
MUST_USE enum status iot_create_thing_group(struct iot *iot, const char *name, const char *parent,
	const char *description, struct iot_made *out, struct err *err);
MUST_USE enum status iot_add_thing_to_thing_group(struct iot *iot, const char *group,
	const char *thing, struct err *err);
MUST_USE enum status iot_remove_thing_from_thing_group(struct iot *iot, const char *group,
	const char *thing, struct err *err);
MUST_USE enum status iot_list_thing_groups_for_thing(struct iot *iot, const char *thing,
	struct iot_cursor *cursor, struct iot_name *groups, size_t max, size_t *count,
	struct err *err);

/* principal: a certificate's ARN. */
MUST_USE enum status iot_attach_thing_principal(struct iot *iot, const char *thing,
	const char *principal, struct err *err);
MUST_USE enum status iot_detach_thing_principal(struct iot *iot, const char *thing,
	const char *principal, struct err *err);
MUST_USE enum status iot_list_thing_principals(struct iot *iot, const char *thing,
	struct iot_cursor *cursor, struct iot_arn *principals, size_t max, size_t *count,
	struct err *err);
MUST_USE enum status iot_list_principal_things(struct iot *iot, const char *principal,
	struct iot_cursor *cursor, struct iot_name *things, size_t max, size_t *count,
	struct err *err);

/* ---- policies ---- */

struct iot_policy {
	char name[IOT_NAME_BYTES];
	char arn[IOT_ARN_BYTES];
	char version[IOT_VERSION_BYTES]; /* the default one */
	struct bytes document;           /* JSON text, as it was given */
};
void iot_policy_free(struct iot_policy *policy);
OWNER_STRUCT(iot_policy, iot_policy_free)

/* out may be NULL. */
MUST_USE enum status iot_create_policy(struct iot *iot, const char *name, const char *document,
	struct iot_policy *out, struct err *err);
MUST_USE enum status iot_get_policy(struct iot *iot, const char *name, struct iot_policy *out,
	struct err *err);

struct iot_policy_version {
	char id[IOT_VERSION_BYTES];
	bool is_default;
	int64_t creation_s;
};
/* Not repeated when its answer is lost: list the versions then. ERR_TOO_LARGE iot_limit: there are
 * five. */
MUST_USE enum status iot_create_policy_version(struct iot *iot, const char *name,
	const char *document, bool set_default, struct iot_policy_version *out, struct err *err);
MUST_USE enum status iot_set_default_policy_version(struct iot *iot, const char *name,
	const char *version, struct err *err);
MUST_USE enum status iot_list_policy_versions(struct iot *iot, const char *name,
	struct iot_policy_version items[IOT_POLICY_VERSIONS_MAX], size_t *count, struct err *err);
MUST_USE enum status iot_delete_policy_version(struct iot *iot, const char *name,
	const char *version, struct err *err);

/* target: ARN of a certificate or a thing group. Both are OK when it is so already. */
MUST_USE enum status iot_attach_policy(struct iot *iot, const char *name, const char *target,
	struct err *err);
MUST_USE enum status iot_detach_policy(struct iot *iot, const char *name, const char *target,
	struct err *err);
/* recursive: with those of parent groups. */
MUST_USE enum status iot_list_attached_policies(struct iot *iot, const char *target, bool recursive,
	struct iot_cursor *cursor, struct iot_name *policies, size_t max, size_t *count,
	struct err *err);

/* ---- endpoint, rules, events ---- */

/* type: "iot:Data-ATS" …; host alone comes back. */
MUST_USE enum status iot_describe_endpoint(struct iot *iot, const char *type,
	char host[IOT_HOST_BYTES], struct err *err);

enum iot_destination_status {
	IOT_DESTINATION_UNKNOWN = 0,
	IOT_DESTINATION_ENABLED,
	IOT_DESTINATION_IN_PROGRESS, /* waits for its confirmation */
	IOT_DESTINATION_DISABLED,
	IOT_DESTINATION_ERROR,
	IOT_DESTINATION_DELETING,
};
struct iot_destination {
	char arn[IOT_ARN_BYTES];
	enum iot_destination_status status;
	char reason[IOT_TEXT_BYTES];
	char url[IOT_URL_BYTES];
};
/* Not repeated when its answer is lost: list the destinations then. */
MUST_USE enum status iot_create_topic_rule_destination(struct iot *iot, const char *url,
	struct iot_destination *out, struct err *err);
MUST_USE enum status iot_confirm_topic_rule_destination(struct iot *iot, const char *token,
	struct err *err);
MUST_USE enum status iot_get_topic_rule_destination(struct iot *iot, const char *arn,
	struct iot_destination *out, struct err *err);
MUST_USE enum status iot_update_topic_rule_destination(struct iot *iot, const char *arn,
	enum iot_destination_status status, struct err *err); /* ENABLED, IN_PROGRESS or DISABLED */
MUST_USE enum status iot_list_topic_rule_destinations(struct iot *iot, struct iot_cursor *cursor,
	struct iot_destination *items, size_t max, size_t *count, struct err *err);

/* payload: a TopicRulePayload (sql, actions …) as an object; borrowed. */
MUST_USE enum status iot_create_topic_rule(struct iot *iot, const char *name, const json_t *payload,
	struct err *err);
MUST_USE enum status iot_replace_topic_rule(
	struct iot *iot, const char *name, const json_t *payload, struct err *err);
MUST_USE enum status iot_delete_topic_rule(struct iot *iot, const char *name, struct err *err);
/* *rule: an object, owned by the caller (json_decref). A rule that is not there: ERR_DENIED, as AWS
 * says. */
MUST_USE enum status iot_get_topic_rule(struct iot *iot, const char *name, json_t **rule,
	struct err *err);
struct iot_rule {
	char name[IOT_NAME_BYTES];
	char topic[IOT_TEXT_BYTES]; /* what its SQL selects from; cut */
	bool disabled;
};
MUST_USE enum status iot_list_topic_rules(struct iot *iot, struct iot_cursor *cursor,
	struct iot_rule *items, size_t max, size_t *count, struct err *err);

/* types: "THING", "CERTIFICATE" …; all are switched on or off. */
MUST_USE enum status iot_update_event_configurations(struct iot *iot, const char *const *types,
	size_t count, bool enabled, struct err *err);

#endif
