/*
 * server/api/api.h - the route tables of the REST handlers, one file per resource, and what those
 * handlers share: the page of a list, the audit record of a change.
 */
#ifndef SERVER_API_API_H
#define SERVER_API_API_H

#include <jansson.h>

#include "db/certificate.h"
#include "db/db.h"
#include "server/http/route.h"

extern const struct route CERTIFICATE_ROUTES[];
extern const struct route ROTATION_ROUTES[];
extern const struct route PRINCIPAL_ROUTES[];
extern const struct route STATION_ROUTES[];
extern const struct route MANIFEST_ROUTES[];
extern const struct route DEVICE_ROUTES[];
extern const struct route CA_ROUTES[];
extern const struct route AUDIT_ROUTES[];
extern const struct route AUDIT_CHECKPOINT_ROUTES[];
extern const struct route RETENTION_ROUTES[];
extern const struct route REVOCATION_ROUTES[];
extern const struct route BLOCKED_KEY_ROUTES[];
extern const struct route CAMPAIGN_ROUTES[];
extern const struct route SUCCESSION_ROUTES[];
extern const struct route CLAIM_ROUTES[];
extern const struct route PLAN_ROUTES[];
extern const struct route REPORT_ROUTES[];
extern const struct route RENEWAL_INFO_ROUTES[];
extern const struct route CRL_BUNDLE_ROUTES[];
extern const struct route IOT_ROUTES[];
extern const struct route IOT_WEBHOOK_ROUTES[];
extern const struct route NOTIFICATION_ROUTES[];
extern const struct route DOCTOR_ROUTES[];
extern const struct route OPENAPI_ROUTES[];

/* Who may read what is not secret. */
#define ROLES_READ (ROLE_OPERATOR | ROLE_AUDITOR | ROLE_ADMIN)

/*
 * Writes the audit record of a change of one object ("station", "st-7") by who is asking. detail is
 * borrowed and may be NULL.
 */
MUST_USE enum status api_audit(struct app *app, struct db_tx *tx, struct request *request,
	const char *action, const char *kind, const char *id, json_t *detail, struct err *err);

/*
 * Answers 200 {<name>: items, next_cursor: …|null}. items is taken. last is the id of the last item when
 * more may follow; NULL: this was the end. scope names the list for its cursor.
 */
MUST_USE enum status api_reply_page(struct request *request, const char *name, json_t *items,
	const char *scope, const char *last, struct err *err);

/* The place in a list by time as text for its cursor, "<at_us>:<serial>", and out of the query's cursor. */
void api_format_place(char *out, size_t size, const struct db_certificate_cursor *place);
MUST_USE enum status api_query_place(const struct request *request, const char *scope,
	struct db_certificate_cursor *out, struct err *err);

/* Sets key of object; takes value, whose being NULL is memory that was short. */
MUST_USE enum status api_set(json_t *object, const char *key, json_t *value, struct err *err);
/* Appends to an array; takes value likewise. */
MUST_USE enum status api_append(json_t *array, json_t *value, struct err *err);

/*
 * The body as a JSON object, or an empty object when there is none: for calls whose fields are all
 * optional. The caller owns *out.
 */
MUST_USE enum status api_json_or_empty(struct request *request, json_t **out, struct err *err);

/* For calls without fields: no body, or an empty object. */
MUST_USE enum status api_no_fields(struct request *request, struct err *err);

#endif
