#include "server/jobs/retention.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/serial.h"
#include "ca/checkpoint.h"
#include "db/issuer.h"
#include "db/receipt.h"
#include "db/retention.h"
#include "server/app.h"
#include "server/audit.h"
#include "server/http/request.h"
#include "server/jobs/jobs.h"

/* Its locks are held for a moment only. */
#define RECORDS_PAGE 5000

int32_t
retention_month(const struct app *app, int64_t retention_s, int64_t now_s)
{
	int64_t kept_s = retention_s > app->config.idempotency_retention_s
		? retention_s : app->config.idempotency_retention_s;

	return expiry_month(now_s - kept_s);
}

void
retention_month_text(char out[MONTH_TEXT_BYTES], int32_t month)
{
	(void)snprintf(out, MONTH_TEXT_BYTES, "%04d-%02d", month / 12, month % 12 + 1);
}

static enum status
note(struct app *app, struct db_tx *tx, const struct audit_item *items, size_t count, struct err *err)
{
	struct audit_entry entry = { .action = "retention.drop", .actor = "server",
		.at_s = clock_wall_s(app->clock), .items = items, .item_count = count };

	return audit_write(app, tx, &entry, err);
}

/* ---- certificates ---- */

static enum status
drop_month(struct app *app, struct db_tx *tx, bool *dropped, struct err *err)
{
	own(json_t) detail = NULL;
	struct db_retention_month gone;
	char month[MONTH_TEXT_BYTES];
	char object[MONTH_TEXT_BYTES + 16];
	struct audit_item item = { .object = object };

	*dropped = false;
	if (app->config.certificate_retention_s == 0)
		return OK;
	TRY(db_retention_drop_month(tx, retention_month(app, app->config.certificate_retention_s,
		clock_wall_s(app->clock)), &gone, dropped, err));
	if (!*dropped)
		return OK;
	retention_month_text(month, gone.month);
	(void)snprintf(object, sizeof(object), "certificates:%s", month);
	detail = json_pack("{s:I}", "certificates", (json_int_t)gone.certificates);
	if (detail == NULL)
		return err_memory(err);
	item.detail = detail;
	TRY(note(app, tx, &item, 1, err));
	TRY(db_tx_commit(tx, err));
	log_event(LOG_INFO, "retention_month", NULL, LOG_STR("month", month),
		LOG_INT("certificates", gone.certificates));
	return OK;
}

/* ---- audit ---- */

struct lanes {
	struct db_retention_lane rows[CA_CHECKPOINT_LANES_MAX];
	size_t count;
	struct audit_item items[CA_CHECKPOINT_LANES_MAX];
	char objects[CA_CHECKPOINT_LANES_MAX][32];
	json_t *details[CA_CHECKPOINT_LANES_MAX];
};

static void
lanes_free(struct lanes *lanes)
{
	for (size_t i = 0; i < lanes->count; i++)
		json_decref(lanes->details[i]);
}
OWNER_STRUCT(lanes, lanes_free)

static enum status
drop_lane(struct db_tx *tx, struct lanes *lanes, size_t i, struct err *err)
{
	const struct db_retention_lane *row = &lanes->rows[i];

	(void)snprintf(lanes->objects[i], sizeof(lanes->objects[i]), "audit:%d", row->lane);
	lanes->details[i] = json_pack("{s:I, s:I}", "from_seq", (json_int_t)row->from_seq, "through_seq",
		(json_int_t)row->through_seq);
	if (lanes->details[i] == NULL)
		return err_memory(err);
	lanes->items[i] = (struct audit_item){ .object = lanes->objects[i], .detail = lanes->details[i] };
	return db_retention_drop_lane(tx, row, err);
}

static enum status
drop_lanes(struct app *app, struct db_tx *tx, bool *dropped, struct err *err)
{
	own_struct(lanes) lanes = { .count = 0 };
	int64_t before_s = clock_wall_s(app->clock) - app->config.audit_retention_s;

	*dropped = false;
	if (app->config.audit_retention_s == 0)
		return OK;
	TRY(db_retention_lanes(tx, before_s, CA_CHECKPOINT_LANES_MAX, lanes.rows, &lanes.count, err));
	if (lanes.count == 0)
		return OK;
	for (size_t i = 0; i < lanes.count; i++)
		TRY(drop_lane(tx, &lanes, i, err));
	TRY(note(app, tx, lanes.items, lanes.count, err));
	TRY(db_tx_commit(tx, err));
	log_event(LOG_INFO, "retention_audit", NULL, LOG_INT("lanes", lanes.count));
	*dropped = true;
	return OK;
}

/* ---- receipts ---- */

static enum status
drop_receipt(struct app *app, struct db_tx *tx, bool *dropped, struct err *err)
{
	int64_t before_s = clock_wall_s(app->clock) - app->config.receipt_retention_s;
	char id[33], object[sizeof("revocation:") + 32];
	struct audit_item item = { .object = object };
	own(json_t) detail = NULL;
	int64_t certificates;
	bool gone;

	*dropped = false;
	if (app->config.receipt_retention_s == 0)
		return OK;
	TRY(db_retention_receipt(tx, before_s, RECORDS_PAGE, id, &certificates, dropped, &gone, err));
	if (!*dropped)
		return OK;
	if (!gone)
		return db_tx_commit(tx, err);
	(void)snprintf(object, sizeof(object), "revocation:%s", id);
	detail = json_pack("{s:I}", "certificates", (json_int_t)certificates);
	if (detail == NULL)
		return err_memory(err);
	item.detail = detail;
	TRY(note(app, tx, &item, 1, err));
	TRY(db_tx_commit(tx, err));
	log_event(LOG_INFO, "retention_receipt", NULL, LOG_STR("revocation", id),
		LOG_INT("certificates", certificates));
	return OK;
}

enum status
retention_drop_step(struct app *app, bool *more, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	size_t deleted;
	bool leader;

	*more = false;
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_job_lead(&tx, JOB_HOUSEKEEPING, &leader, err));
	if (!leader)
		return OK;
	TRY(drop_month(app, &tx, more, err));
	if (!*more)
		TRY(drop_lanes(app, &tx, more, err));
	if (!*more)
		TRY(drop_receipt(app, &tx, more, err));
	if (*more)
		return OK;
	/* What was dropped goes, whatever the configuration says by now. */
	TRY(db_retention_records(&tx, RECORDS_PAGE, &deleted, err));
	TRY(db_tx_commit(&tx, err));
	*more = deleted > 0;
	return OK;
}
