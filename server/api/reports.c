/* server/api/reports.c - /v1/reports: compliance reports (server/report/report.h), on demand and kept. */
#include "db/report.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "server/api/api.h"
#include "server/api/render.h"
#include "server/app.h"
#include "server/auth.h"
#include "server/http/fields.h"
#include "server/jobs/jobs.h"
#include "server/report/report.h"

#define ID_OCTETS 16
/* They say what the audit log says. */
#define WHO (ROLE_AUDITOR | ROLE_ADMIN)

typedef struct db_report db_report;
OWNER(db_report, mem_free)

static json_t *
render_report(const struct db_report *r)
{
	return json_pack("{s:s, s:s, s:s, s:o, s:o, s:I, s:I, s:I, s:s, s:o, s:o}", "report_id",
		r->report_id, "state", r->state, "actor", r->actor, "created_at",
		render_time(r->created_at_s), "finished_at", render_time(r->finished_at_s), "certificates",
		(json_int_t)r->seen, "certificates_expected", (json_int_t)r->expected, "findings",
		(json_int_t)r->findings, "worst_severity", r->severity, "sha256",
		r->sha256[0] == '\0' ? json_null() : json_string(r->sha256), "error",
		r->error_code[0] == '\0' ? json_null() : json_string(r->error_code));
}

static enum status
create(struct app *app, struct request *request, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	own_struct(bytes) body = { NULL, 0 };
	char id[DB_REPORT_ID_BYTES];
	struct db_report report;

	TRY(api_no_fields(request, err));
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(report_ask(&tx, request_identity(request)->actor, request_id(request), id, err));
	TRY(db_report_find(&tx, id, &report, &body, err));
	TRY(api_audit(app, &tx, request, "report.ask", "report", id, NULL, err));
	TRY(db_tx_commit(&tx, err));
	if (app->jobs != NULL)
		jobs_wake(app->jobs, "jitrca_report");
	return request_reply_json(request, 202, render_report(&report), err);
}

static enum status
list(struct app *app, struct request *request, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	own(json_t) items = json_array();
	own(db_report) rows = NULL;
	char next[PLACE_TEXT_BYTES];
	struct list_place place;
	size_t limit;
	size_t count;

	TRY(query_limit(request, &limit, err));
	TRY(query_list_place(request, "reports", &place, err));
	rows = mem_array(limit, sizeof(*rows));
	if (rows == NULL || items == NULL)
		return err_memory(err);
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_report_list(&tx, place.at_us, place.id, limit, rows, &count, err));
	TRY(db_tx_commit(&tx, err));
	for (size_t i = 0; i < count; i++)
		TRY(api_append(items, render_report(&rows[i]), err));
	if (count == limit)
		list_place_text(next, rows[count - 1].created_at_us, rows[count - 1].report_id);
	return api_reply_page(request, "reports", give(items), "reports", count == limit ? next : NULL,
		err);
}

/* ---- one, in three forms ---- */

static const char *const FORMATS[] = { "json", "csv", "html", NULL };
static const char *const TYPES[] = { "application/json", "text/csv", "text/html", NULL };

/* ?format= says it for those who cannot set Accept. */
static enum status
read_format(const struct request *request, size_t *out, struct err *err)
{
	const char *format = NULL;
	const char *type;

	TRY(query_choice(request, "format", FORMATS, &format, err));
	type = format != NULL ? NULL : request_accept(request, TYPES);
	for (*out = 0; TYPES[*out] != NULL; (*out)++)
		if (format != NULL ? strcmp(format, FORMATS[*out]) == 0 :
		    type != NULL && strcmp(type, TYPES[*out]) == 0)
			return OK;
	return err_set(err, ERR_ARGUMENT, "not_acceptable",
		"Accept: application/json, text/csv or text/html wanted");
}

static enum status
reply_csv(struct request *request, const char *id, struct view document, struct err *err)
{
	own_struct(bytes) text = { NULL, 0 };
	char disposition[64 + DB_REPORT_ID_BYTES];

	TRY(report_csv(document, &text, err));
	(void)snprintf(disposition, sizeof(disposition), "attachment; filename=\"report-%s.csv\"", id);
	TRY(request_reply_header(request, "Content-Disposition", disposition, err));
	return request_reply_owned(request, 200, "text/csv; charset=utf-8; header=present", &text, err);
}

static enum status
reply_html(struct request *request, struct view document, struct err *err)
{
	own_struct(bytes) text = { NULL, 0 };
	char policy[REPORT_POLICY_BYTES];

	TRY(report_html(document, policy, &text, err));
	TRY(request_reply_header(request, "Content-Security-Policy", policy, err));
	TRY(request_reply_header(request, "X-Content-Type-Options", "nosniff", err));
	TRY(request_reply_header(request, "Referrer-Policy", "no-referrer", err));
	return request_reply_owned(request, 200, "text/html; charset=utf-8", &text, err);
}

/* The JSON is what was hashed, octet for octet. */
static enum status
reply(struct request *request, const struct db_report *report, struct bytes *body, size_t format,
	struct err *err)
{
	char tag[2 * DB_SHA256_BYTES + 3];

	TRY(request_reply_header(request, "Vary", "Accept", err));
	if (format == 1)
		return reply_csv(request, report->report_id, view_of(body), err);
	if (format == 2)
		return reply_html(request, view_of(body), err);
	(void)snprintf(tag, sizeof(tag), "\"%s\"", report->sha256);
	TRY(request_reply_header(request, "ETag", tag, err));
	return request_reply_owned(request, 200, "application/json", body, err);
}

static enum status
show(struct app *app, struct request *request, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	own_struct(bytes) body = { NULL, 0 };
	const char *id = request_param(request, "id");
	uint8_t octets[ID_OCTETS];
	struct db_report report;
	size_t format;

	TRY(read_format(request, &format, err));
	if (!hex_decode(octets, sizeof(octets), id, strlen(id)))
		return err_set(err, ERR_NOT_FOUND, "report_unknown", "there is no report of that id");
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_report_find(&tx, id, &report, &body, err));
	TRY(db_tx_commit(&tx, err));
	if (strcmp(report.state, "done") == 0)
		return reply(request, &report, &body, format, err);
	if (strcmp(report.state, "failed") == 0)
		return err_set(err, ERR_CONFLICT, "report_failed", "it was given up: %s: %s",
			report.error_code, report.error_text);
	return request_reply_json(request, 202, render_report(&report), err);
}

static const char *const LIST_QUERY[] = { "limit", "cursor", NULL };
static const char *const SHOW_QUERY[] = { "format", NULL };

const struct route REPORT_ROUTES[] = {
	{ .method = "POST", .path = "/v1/reports", .handle = create, .roles = WHO,
	  .body_max_bytes = 1024 },
	{ .method = "GET", .path = "/v1/reports", .handle = list, .roles = WHO, .query = LIST_QUERY },
	{ .method = "GET", .path = "/v1/reports/{id}", .handle = show, .roles = WHO,
	  .query = SHOW_QUERY },
	{ .method = NULL },
};
