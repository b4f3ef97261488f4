#include "server/report/report.h"

#include <stdio.h>
#include <string.h>

#include "base/entropy.h"
#include "base/log.h"
#include "base/mem.h"
#include "ca/digest.h"
#include "db/issuer.h"
#include "server/api/api.h"
#include "server/api/render.h"
#include "server/audit.h"
#include "server/iot/room.h"
#include "server/jobs/jobs.h"
#include "server/notify/event.h"
#include "server/report/internal.h"

#define PAGE 2000
#define PAGES 5 /* of one transaction */
#define RETENTION_PAGE 1000
#define ID_OCTETS 16
#define WORK_MAX_BYTES ((size_t)64 << 20)
#define VERSION 1

/* ---- what was counted, kept between two steps ---- */

void
report_work_free(struct report_work *work)
{
	json_decref(work->json);
	work->json = NULL;
}

static enum status
part(struct report_work *work, const char *name, json_t **out, struct err *err)
{
	if (json_object_get(work->json, name) == NULL)
		TRY(api_set(work->json, name, json_object(), err));
	*out = json_object_get(work->json, name);
	return OK;
}

enum status
report_work_load(struct report_work *work, struct app *app, struct view text, struct err *err)
{
	work->app = app;
	work->now_s = clock_wall_s(app->clock);
	work->json = text.len == 0 ? json_object() :
		json_loadb((const char *)text.data, text.len, 0, NULL);
	if (work->json == NULL)
		return err_memory(err);
	TRY(part(work, "groups", &work->groups, err));
	TRY(part(work, "keys", &work->keys, err));
	TRY(part(work, "signatures", &work->signatures, err));
	TRY(part(work, "months", &work->months, err));
	TRY(part(work, "weeks", &work->weeks, err));
	return part(work, "findings", &work->findings, err);
}

/* ---- asked for ---- */

enum status
report_ask(struct db_tx *tx, const char *actor, const char *request_id,
	char report_id[DB_REPORT_ID_BYTES], struct err *err)
{
	uint8_t id[ID_OCTETS];

	TRY(entropy_fill(&ENTROPY_SYSTEM, id, sizeof(id), err));
	hex_encode(report_id, id, sizeof(id));
	return db_report_create(tx, report_id, actor, request_id, err);
}

static enum status
ask_if_due(struct app *app, struct db_tx *tx, struct err *err)
{
	char id[DB_REPORT_ID_BYTES];
	enum status status;
	int64_t last_s;
	size_t old;

	if (app->config.report_every_s == 0)
		return OK;
	TRY(db_report_last_s(tx, &last_s, err));
	if (last_s == 0 || clock_wall_s(app->clock) - last_s < app->config.report_every_s)
		return OK;
	TRY(db_retention_reports(tx, clock_wall_s(app->clock) - app->config.report_retention_s,
		RETENTION_PAGE, &old, err));
	status = report_ask(tx, "server", "", id, err);
	return status == ERR_CONFLICT ? OK : status; /* one is under way: this one comes after it */
}

/* ---- made ---- */

/* behind is where the page that is being looked at ends. */
struct look {
	struct report_work *work;
	struct db_report_place behind;
};

static enum status
look(void *arg, const struct db_report_row *row, struct err *err)
{
	struct look *l = arg;

	l->behind = row->place;
	return report_look(l->work, row, err);
}

/* *more false: there were no more certificates. */
static enum status
walk(struct report_work *work, struct db_tx *tx, struct db_report *report, struct db_report_place *place,
	bool *more, struct err *err)
{
	struct look l = { .work = work, .behind = *place };

	*more = true;
	for (unsigned i = 0; i < PAGES && *more && !work->app->stopping; i++) {
		size_t count;

		TRY(db_report_page(tx, place, PAGE, look, &l, &count, err));
		*place = l.behind;
		report->seen += (int64_t)count;
		*more = count == PAGE;
	}
	return OK;
}

static enum status
policies(struct report_work *work, struct db_tx *tx, struct err *err)
{
	const char *directories[IOT_TARGETS_MAX];
	const struct iot_room *room = work->app->iot;
	size_t count = 0;

	for (size_t i = 0; room != NULL && i < room->site_count; i++) {
		const char *directory = room->sites[i].target->policies_dir;
		size_t same = 0;

		while (same < count && strcmp(directories[same], directory) != 0)
			same++;
		if (same == count)
			directories[count++] = directory;
	}
	return report_policies(work, tx, directories, count, err);
}

static enum status
head(const struct report_work *work, const struct db_report *report, json_t *document, struct err *err)
{
	const struct config *config = &work->app->config;

	TRY(api_set(document, "report_id", json_string(report->report_id), err));
	TRY(api_set(document, "version", json_integer(VERSION), err));
	TRY(api_set(document, "actor", json_string(report->actor), err));
	TRY(api_set(document, "begun_at", render_time(report->created_at_s), err));
	TRY(api_set(document, "made_at", render_time(work->now_s), err));
	return api_set(document, "thresholds", json_pack("{s:I, s:I, s:i, s:i, s:i}", "ca_expiring_days",
		(json_int_t)(config->report_ca_expiring_s / 86400), "unconfirmed_after_hours",
		(json_int_t)(config->report_unconfirmed_after_s / 3600), "cliff_percent",
		REPORT_CLIFF_PERCENT, "cliff_least", REPORT_CLIFF_LEAST, "examples_most",
		REPORT_EXAMPLES_MAX), err);
}

static enum status
document_of(struct report_work *work, struct db_tx *tx, const struct report_chain *chain,
	struct db_report *report, struct buf *out, struct err *err)
{
	own(json_t) document = json_object();
	own(json_t) found = NULL;
	const char *worst;

	if (document == NULL)
		return err_memory(err);
	TRY(head(work, report, document, err));
	TRY(report_inventory_render(work, document, err));
	TRY(policies(work, tx, err));
	TRY(report_state_render(work, tx, chain, document, err));
	TRY(report_findings_render(work, &found, &report->findings, &worst, err));
	(void)snprintf(report->severity, sizeof(report->severity), "%s", worst);
	TRY(api_set(document, "finding_count", json_integer(report->findings), err));
	TRY(api_set(document, "worst_severity", json_string(worst), err));
	TRY(api_set(document, "findings", give(found), err));
	return request_json_text(out, document, err);
}

static enum status
tell(struct app *app, struct db_tx *tx, const struct db_report *report, struct err *err)
{
	struct db_event event = { .kind = "report_made", .severity = "info" };
	own(json_t) detail = json_pack("{s:s, s:s, s:I, s:s, s:I}", "report", report->report_id, "sha256",
		report->sha256, "findings", (json_int_t)report->findings, "worst_severity",
		report->severity, "certificates", (json_int_t)report->seen);
	char object[8 + DB_REPORT_ID_BYTES];
	struct audit_item item = { .object = object, .detail = detail };
	const struct audit_entry entry = { .action = "report.make", .actor = report->actor,
		.request_id = report->request_id[0] != '\0' ? report->request_id : NULL,
		.at_s = clock_wall_s(app->clock), .items = &item, .item_count = 1 };

	if (detail == NULL)
		return err_memory(err);
	(void)snprintf(object, sizeof(object), "report:%s", report->report_id);
	(void)snprintf(event.target, sizeof(event.target), "%s", report->report_id);
	TRY(audit_write(app, tx, &entry, err));
	TRY(notify_event_detail(&event, json_incref(detail), err));
	return notify_event_raise(tx, &event, err);
}

static enum status
finish(struct report_work *work, struct db_tx *tx, const struct report_chain *chain,
	struct db_report *report, struct err *err)
{
	own_struct(buf) body = { .limit_bytes = WORK_MAX_BYTES };
	uint8_t hash[DB_SHA256_BYTES];

	TRY(document_of(work, tx, chain, report, &body, err));
	ca_sha256(hash, buf_view(&body));
	hex_encode(report->sha256, hash, sizeof(hash));
	TRY(db_report_finish(tx, report, buf_view(&body), hash, err));
	return tell(work->app, tx, report, err);
}

static enum status
save(struct report_work *work, struct db_tx *tx, const struct db_report *report,
	const struct db_report_place *place, struct err *err)
{
	own_struct(buf) text = { .limit_bytes = WORK_MAX_BYTES };

	TRY(request_json_text(&text, work->json, err));
	return db_report_save(tx, report, place, buf_view(&text), err);
}

/*
 * A step in tx. When all certificates were seen, the audit log is verified outside of it, and only then comes
 * the last step: *walked says that it is wanted, chain that it can be.
 */
static enum status
step(struct app *app, struct db_tx *tx, const struct report_chain *chain, bool *walked, bool *more,
	struct err *err)
{
	own_struct(report_work) work = { .json = NULL };
	own_struct(bytes) text = { NULL, 0 };
	struct db_report_place place;
	struct db_report report;
	bool found;

	*more = *walked = false;
	TRY(db_report_next(tx, &found, &report, &place, &text, err));
	if (!found)
		return OK;
	TRY(report_work_load(&work, app, view_of(&text), err));
	if (report.expected == 0)
		TRY(db_report_expected(tx, &report.expected, err));
	TRY(walk(&work, tx, &report, &place, more, err));
	if (!*more && chain != NULL) {
		TRY(finish(&work, tx, chain, &report, err));
		log_event(LOG_INFO, "report_made", NULL, LOG_STR("report", report.report_id),
			LOG_INT("certificates", report.seen), LOG_INT("findings", report.findings),
			LOG_STR("worst", report.severity));
		*more = true; /* another may have become due meanwhile */
		return OK;
	}
	*walked = !*more;
	return save(&work, tx, &report, &place, err);
}

static enum status
step_in_tx(struct app *app, const struct report_chain *chain, bool *walked, bool *more, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	bool leader;

	*walked = *more = false;
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_job_lead(&tx, JOB_REPORT, &leader, err));
	if (!leader)
		return OK;
	if (chain == NULL)
		TRY(ask_if_due(app, &tx, err));
	TRY(step(app, &tx, chain, walked, more, err));
	return db_tx_commit(&tx, err);
}

/* What will not be better next time ends the report, so that another can be asked for. */
static enum status
give_up(struct app *app, const struct err *why, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_report_fail(&tx, why->code, why->text, err));
	return db_tx_commit(&tx, err);
}

static enum status
step_once(struct app *app, bool *more, struct err *err)
{
	struct report_chain chain;
	bool walked;

	TRY(step_in_tx(app, NULL, &walked, more, err));
	if (!walked)
		return OK;
	TRY(report_chain_check(app, &chain, err));
	return step_in_tx(app, &chain, &walked, more, err);
}

enum status
report_job_step(struct app *app, bool *more, struct err *err)
{
	enum status status = step_once(app, more, err);
	struct err failed;

	if (status == OK || status == ERR_UNAVAILABLE)
		return status;
	*more = false;
	if (give_up(app, err, &failed) != OK)
		log_error(LOG_WARN, "report_not_given_up", NULL, &failed);
	return status;
}
