/* What retention would let go: server/jobs/retention.h. */
#include "server/jobs/retention.h"

#include "base/clock.h"
#include "base/mem.h"
#include "ca/checkpoint.h"
#include "db/receipt.h"
#include "db/retention.h"
#include "server/api/api.h"
#include "server/app.h"
#include "server/http/fields.h"

#define MONTHS_SHOWN_MAX 1200

/* What is asked for, instead of what is configured: a look before it is set. */
static enum status
query_retention(const struct request *request, const char *name, int64_t *out, struct err *err)
{
	const char *text = request_query(request, name);

	if (text != NULL && !duration_parse(out, text))
		return err_set(err, ERR_ARGUMENT, "retention_malformed",
			"%s: a duration such as 400d wanted", name);
	return OK;
}

static json_t *
render_retention(int64_t retention_s)
{
	return retention_s == 0 ? json_null() : json_integer(retention_s);
}

static enum status
add_months(json_t *answer, const struct app *app, struct db_tx *tx, int64_t retention_s, struct err *err)
{
	own(json_t) months = json_array();
	own(json_t) part = json_object();
	struct db_retention_month rows[MONTHS_SHOWN_MAX];
	int64_t total = 0;
	size_t count = 0;

	if (months == NULL || part == NULL)
		return err_memory(err);
	if (retention_s != 0)
		TRY(db_retention_months(tx, retention_month(app, retention_s, clock_wall_s(app->clock)),
			MONTHS_SHOWN_MAX, rows, &count, err));
	for (size_t i = 0; i < count; i++) {
		char month[MONTH_TEXT_BYTES];

		retention_month_text(month, rows[i].month);
		total += rows[i].certificates;
		TRY(api_append(months, json_pack("{s:s, s:I}", "month", month, "certificates",
			(json_int_t)rows[i].certificates), err));
	}
	TRY(api_set(part, "retention_s", render_retention(retention_s), err));
	TRY(api_set(part, "months", give(months), err));
	TRY(api_set(part, "count", json_integer(total), err));
	return api_set(answer, "certificates", give(part), err);
}

static enum status
add_lanes(json_t *answer, const struct app *app, struct db_tx *tx, int64_t retention_s, struct err *err)
{
	own(json_t) lanes = json_array();
	own(json_t) part = json_object();
	struct db_retention_lane rows[CA_CHECKPOINT_LANES_MAX];
	int64_t total = 0;
	size_t count = 0;

	if (lanes == NULL || part == NULL)
		return err_memory(err);
	if (retention_s != 0)
		TRY(db_retention_lanes(tx, clock_wall_s(app->clock) - retention_s, CA_CHECKPOINT_LANES_MAX,
			rows, &count, err));
	for (size_t i = 0; i < count; i++) {
		total += rows[i].through_seq - rows[i].from_seq + 1;
		TRY(api_append(lanes, json_pack("{s:i, s:I, s:I}", "lane", rows[i].lane, "from_seq",
			(json_int_t)rows[i].from_seq, "through_seq", (json_int_t)rows[i].through_seq), err));
	}
	TRY(api_set(part, "retention_s", render_retention(retention_s), err));
	TRY(api_set(part, "lanes", give(lanes), err));
	TRY(api_set(part, "count", json_integer(total), err));
	return api_set(answer, "audit", give(part), err);
}

/* What goes row by row, and always has its time. */
static enum status
add_rows(json_t *answer, const char *name, const struct app *app, struct db_tx *tx, int64_t retention_s,
	enum status (*run)(struct db_tx *tx, int64_t before_s, int64_t *count, struct err *err),
	struct err *err)
{
	int64_t count;

	TRY(run(tx, clock_wall_s(app->clock) - retention_s, &count, err));
	return api_set(answer, name, json_pack("{s:I, s:I}", "retention_s", (json_int_t)retention_s, "count",
		(json_int_t)count), err);
}

static enum status
add_receipts(json_t *answer, const struct app *app, struct db_tx *tx, int64_t retention_s, struct err *err)
{
	int64_t count = 0;

	if (retention_s != 0)
		TRY(db_retention_count_receipts(tx, clock_wall_s(app->clock) - retention_s, &count, err));
	return api_set(answer, "receipts", json_pack("{s:o, s:I}", "retention_s",
		render_retention(retention_s), "count", (json_int_t)count), err);
}

static enum status
preview(struct app *app, struct request *request, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	own(json_t) answer = json_object();
	int64_t certificates_s = app->config.certificate_retention_s;
	int64_t audit_s = app->config.audit_retention_s;
	int64_t receipts_s = app->config.receipt_retention_s;

	if (answer == NULL)
		return err_memory(err);
	TRY(query_retention(request, "certificates", &certificates_s, err));
	TRY(query_retention(request, "audit", &audit_s, err));
	TRY(query_retention(request, "receipts", &receipts_s, err));
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(add_months(answer, app, &tx, certificates_s, err));
	TRY(add_lanes(answer, app, &tx, audit_s, err));
	TRY(add_receipts(answer, app, &tx, receipts_s, err));
	TRY(add_rows(answer, "events", app, &tx, app->config.event_retention_s, db_retention_count_events,
		err));
	TRY(add_rows(answer, "notifications", app, &tx, app->config.notification_retention_s,
		db_retention_count_notifications, err));
	TRY(db_tx_commit(&tx, err));
	return request_reply_json(request, 200, give(answer), err);
}

static const char *const PREVIEW_QUERY[] = { "certificates", "audit", "receipts", NULL };

const struct route RETENTION_ROUTES[] = {
	{ .method = "GET", .path = "/v1/retention", .handle = preview, .roles = ROLE_AUDITOR | ROLE_ADMIN,
	  .query = PREVIEW_QUERY },
	{ .method = NULL },
};
