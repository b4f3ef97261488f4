/*
 * server/iot/iot_api_internal.h - what the files of iot_api share: the table of operations, one
 * function that carries out any of them, checks of arguments, readers of answers, the walk over a
 * page.
 */
#ifndef SERVER_IOT_IOT_API_INTERNAL_H
#define SERVER_IOT_IOT_API_INTERNAL_H

#include "server/iot/iot_api.h"

OWNER(json_t, json_decref)

enum iot_op {
	OP_GET_REGISTRATION_CODE = 0,
	OP_REGISTER_CA_CERTIFICATE,
	OP_DESCRIBE_CA_CERTIFICATE,
	OP_UPDATE_CA_CERTIFICATE,
	OP_DELETE_CA_CERTIFICATE,
	OP_LIST_CA_CERTIFICATES,
	OP_REGISTER_CERTIFICATE,
	OP_REGISTER_CERTIFICATE_WITHOUT_CA,
	OP_DESCRIBE_CERTIFICATE,
	OP_UPDATE_CERTIFICATE,
	OP_DELETE_CERTIFICATE,
	OP_LIST_CERTIFICATES,
	OP_LIST_CERTIFICATES_BY_CA,
	OP_CREATE_THING,
	OP_DESCRIBE_THING,
	OP_UPDATE_THING,
	OP_DELETE_THING,
	OP_CREATE_THING_TYPE,
	OP_DESCRIBE_THING_TYPE,
	OP_CREATE_THING_GROUP,
	OP_ADD_THING_TO_THING_GROUP,
	OP_REMOVE_THING_FROM_THING_GROUP,
	OP_LIST_THING_GROUPS_FOR_THING,
	OP_ATTACH_THING_PRINCIPAL,
	OP_DETACH_THING_PRINCIPAL,
	OP_LIST_THING_PRINCIPALS,
	OP_LIST_PRINCIPAL_THINGS,
	OP_CREATE_POLICY,
	OP_GET_POLICY,
	OP_CREATE_POLICY_VERSION,
	OP_SET_DEFAULT_POLICY_VERSION,
	OP_LIST_POLICY_VERSIONS,
	OP_DELETE_POLICY_VERSION,
	OP_ATTACH_POLICY,
	OP_DETACH_POLICY,
	OP_LIST_ATTACHED_POLICIES,
	OP_DESCRIBE_ENDPOINT,
	OP_CREATE_TOPIC_RULE_DESTINATION,
	OP_CONFIRM_TOPIC_RULE_DESTINATION,
	OP_GET_TOPIC_RULE_DESTINATION,
	OP_UPDATE_TOPIC_RULE_DESTINATION,
	OP_LIST_TOPIC_RULE_DESTINATIONS,
	OP_CREATE_TOPIC_RULE,
	OP_REPLACE_TOPIC_RULE,
	OP_DELETE_TOPIC_RULE,
	OP_GET_TOPIC_RULE,
	OP_LIST_TOPIC_RULES,
	OP_UPDATE_EVENT_CONFIGURATIONS,
	OP_COUNT,
};

enum iot_form { /* what an argument must look like */
	FORM_ID = 1,  /* 64 hex digits */
	FORM_NAME,    /* of a thing, type, group; event type: 1-128 of A-Za-z0-9:_- */
	FORM_POLICY,  /* 1-128 of A-Za-z0-9_+=,.@- */
	FORM_RULE,    /* 1-128 of A-Za-z0-9_ */
	FORM_VERSION, /* digits */
	FORM_ARN,     /* arn:…, printable */
	FORM_TEXT,    /* any, 1 to 65536 octets */
	FORM_TOKEN,   /* 1 to 2048 printable */
};

/* ERR_ARGUMENT iot_argument names what and the rule, not the value. */
MUST_USE enum status iot_check(enum iot_form form, const char *what, const char *value,
	struct err *err);

struct iot_request {
	enum iot_op op;
	const char *labels[2]; /* for the {} of the path, in order */
	struct aws_pair query[AWS_QUERY_MAX];
	size_t query_count;
	struct aws_pair header;
	json_t *body; /* owned, or NULL */
};
void iot_request_free(struct iot_request *request);
OWNER_STRUCT(iot_request, iot_request_free)

void iot_query(
	struct iot_request *request, const char *name, const char *value); /* NULL: left out */
/* Takes body; fails when json_pack did. */
MUST_USE enum status iot_body(struct iot_request *request, json_t *body, struct err *err);

/* *answer: owned, or NULL for an empty body; out may be NULL when nothing is read. */
MUST_USE enum status iot_run(struct iot *iot, const struct iot_request *request, json_t **answer,
	struct err *err);

/* ERR_UNAVAILABLE iot_answer_malformed, in iot->failure as well. */
enum status iot_malformed(struct iot *iot, const char *what, struct err *err);
/* Copies a text that must be there and fit. json may be NULL. */
MUST_USE enum status iot_text(struct iot *iot, const json_t *json, const char *name, char *out,
	size_t size, struct err *err);
/* The same, "" if it is not there. */
MUST_USE enum status iot_text_or_none(struct iot *iot, const json_t *json, const char *name,
	char *out, size_t size, struct err *err);
/* Copies what is for people, cut and escaped. */
void iot_text_cut(const json_t *json, const char *name, char *out, size_t size);
MUST_USE enum status iot_bytes(
	struct iot *iot, const json_t *json, const char *name, struct bytes *out, struct err *err);
int64_t iot_time_s(const json_t *json, const char *name); /* 0: not there */
enum iot_mode iot_mode_of(const json_t *json);
/* The ARN under arn_name and, if id_name is not NULL, the id. */
MUST_USE enum status iot_read_made(struct iot *iot, const json_t *json, const char *arn_name,
	const char *id_name, struct iot_made *out, struct err *err);

enum iot_paging { PAGING_MARKER = 1, PAGING_TOKEN };

struct iot_list {
	enum iot_paging paging;
	const char *array; /* its name in the answer */
	enum status (*read)(struct iot *iot, const json_t *item, void *out, struct err *err);
	size_t item_bytes;
};
/* Reads one page into items; adds what pages need to request's query. */
MUST_USE enum status iot_list(struct iot *iot, struct iot_request *request,
	const struct iot_list *list, struct iot_cursor *cursor, void *items, size_t max,
	size_t *count, struct err *err);

#endif
