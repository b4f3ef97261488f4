#include "server/jobs/campaign.h"

#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "ca/digest.h"
#include "db/campaign.h"
#include "db/device.h"
#include "db/issuer.h"
#include "server/app.h"
#include "server/audit.h"
#include "server/campaign_selector.h"
#include "server/http/request.h"
#include "server/issuance/issuance.h"
#include "server/jobs/campaign_decide.h"
#include "server/jobs/jobs.h"
#include "server/notify/event.h"
#include "server/retry.h"

#define FILL_PAGE 200
/* So many members are looked at in a step: a transaction of well under a second. */
#define LOOK_PAGE 2000
#define WORKING_MAX 100

int64_t
campaign_rank(const char *campaign_id, const char *device_id)
{
	const struct view parts[] = { view_text("jitrca campaign"), view_text(campaign_id),
		view_text(device_id) };
	uint8_t hash[32];
	uint64_t draw = 0;

	ca_blake2b_parts(hash, parts, COUNT_OF(parts));
	for (size_t i = 0; i < sizeof(draw); i++)
		draw = draw << 8 | hash[i];
	return (int64_t)(draw >> 1);
}

static enum status
audit_step(struct app *app, struct db_tx *tx, const struct db_campaign *k, const char *action,
	struct err *err)
{
	char object[sizeof("campaign:") + DB_CAMPAIGN_ID_BYTES];
	own(json_t) detail = json_pack("{s:s, s:s, s:I, s:I, s:I, s:b}", "state", k->state, "why",
		k->why, "members", (json_int_t)k->members, "asked", (json_int_t)k->asked, "wave",
		(json_int_t)k->wave_number, "canary", k->canary_stage);
	const struct audit_item item = { .object = object, .detail = detail };
	const struct audit_entry entry = { .action = action, .actor = "server",
		.at_s = clock_wall_s(app->clock), .items = &item, .item_count = 1 };

	if (detail == NULL)
		return err_memory(err);
	(void)snprintf(object, sizeof(object), "campaign:%s", k->campaign_id);
	return audit_write(app, tx, &entry, err);
}

static enum status
raise(struct db_tx *tx, const struct db_campaign *k, const char *kind, const char *severity,
	struct err *err)
{
	struct db_event event = { .event_id = 0 };

	(void)snprintf(event.kind, sizeof(event.kind), "%s", kind);
	(void)snprintf(event.severity, sizeof(event.severity), "%s", severity);
	(void)snprintf(event.target, sizeof(event.target), "%s", k->campaign_id);
	TRY(notify_event_detail(&event, json_pack("{s:s, s:s, s:I, s:I}", "campaign", k->campaign_id,
		"why", k->why, "members", (json_int_t)k->members, "asked", (json_int_t)k->asked), err));
	return notify_event_raise(tx, &event, err);
}

/* ---- filling ---- */

struct fill {
	struct db_certificate rows[FILL_PAGE];
	size_t count;
	struct db_device devices[FILL_PAGE];
	struct db_device_wanted wanted[FILL_PAGE];
	struct db_campaign_member members[FILL_PAGE];
	size_t member_count;
};

static void
fill_free(struct fill *fill)
{
	for (size_t i = 0; fill != NULL && i < fill->count; i++)
		db_certificate_free(&fill->rows[i]);
	mem_free(fill);
}
typedef struct fill fill_page;
OWNER(fill_page, fill_free)

static enum status
judge_row(struct app *app, struct db_campaign *k, const struct campaign_selector *selector,
	struct ca_verifier *verifier, struct fill *fill, size_t i, struct err *err)
{
	const struct db_certificate *row = &fill->rows[i];
	const struct db_device *device = &fill->devices[i];
	const struct ca_profile *profile = app_profile(app, row->profile);
	struct db_campaign_member *member = &fill->members[fill->member_count];
	bool matches;

	if (!fill->wanted[i].found || row->not_after_s <= clock_wall_s(app->clock))
		return OK; /* of a station or a server, or over */
	TRY(campaign_selector_matches(selector, device, row, verifier, &matches, err));
	if (!matches || strcmp(device->status, "active") != 0 || profile == NULL ||
	    (profile->issuable_by & ASKER_DEVICE) == 0 || !db_ref_equal(&device->current, &row->ref)) {
		k->left_other++;
		return OK;
	}
	if (device->successor.issuer_id != 0) {
		k->left_rotating++;
		return OK;
	}
	*member = (struct db_campaign_member){ .ref = row->ref,
		.rank = campaign_rank(k->campaign_id, row->device_id) };
	(void)snprintf(member->device_id, sizeof(member->device_id), "%s", row->device_id);
	fill->member_count++;
	return OK;
}

static enum status
add_rows(struct app *app, struct db_tx *tx, struct db_campaign *k,
	const struct campaign_selector *selector, struct fill *fill, struct err *err)
{
	struct ca_verifier *verifier = NULL;
	enum status status = OK;
	size_t added;

	for (size_t i = 0; i < fill->count; i++)
		fill->wanted[i] = (struct db_device_wanted){ .device_id = fill->rows[i].device_id,
			.out = &fill->devices[i] };
	TRY(db_device_find_many(tx, fill->wanted, fill->count, err));
	if (selector->key_type != 0)
		TRY(issuance_verifier_take(app->issuance, &verifier, err));
	for (size_t i = 0; i < fill->count && status == OK; i++)
		status = judge_row(app, k, selector, verifier, fill, i, err);
	issuance_verifier_give(app->issuance, verifier);
	if (status != OK)
		return status;
	TRY(db_campaign_fill(tx, k->campaign_id, fill->members, fill->member_count, &added, err));
	k->members += (int64_t)added;
	k->left_taken += (int64_t)(fill->member_count - added);
	fill->member_count = 0;
	return OK;
}

/* The certificates of a page of the list: those that are the devices' current ones. */
static enum status
list_rows(struct db_tx *tx, const struct campaign_selector *selector, size_t from, struct fill *fill,
	struct err *err)
{
	struct db_cert_ref refs[FILL_PAGE];
	size_t listed = json_array_size(selector->device_ids) - from;
	size_t count = 0;

	if (listed > FILL_PAGE)
		listed = FILL_PAGE;
	for (size_t i = 0; i < listed; i++)
		fill->wanted[i] = (struct db_device_wanted){ .out = &fill->devices[i],
			.device_id = json_string_value(json_array_get(selector->device_ids, from + i)) };
	TRY(db_device_find_many(tx, fill->wanted, listed, err));
	for (size_t i = 0; i < listed; i++) {
		if (fill->wanted[i].found && fill->devices[i].current.issuer_id != 0)
			refs[count++] = fill->devices[i].current;
	}
	TRY(db_certificate_by_refs(tx, refs, count, fill->rows, err));
	fill->count = count;
	return OK;
}

static enum status
fill_list(struct app *app, struct db_tx *tx, struct db_campaign *k,
	const struct campaign_selector *selector, struct err *err)
{
	for (size_t from = 0; from < json_array_size(selector->device_ids); from += FILL_PAGE) {
		own(fill_page) fill = mem_zalloc(sizeof(*fill));

		if (fill == NULL)
			return err_memory(err);
		TRY(list_rows(tx, selector, from, fill, err));
		TRY(add_rows(app, tx, k, selector, fill, err));
	}
	k->cursor.set = false;
	return OK;
}

static enum status
fill_some(struct app *app, struct db_tx *tx, struct db_campaign *k, bool *over, struct err *err)
{
	own(fill_page) fill = mem_zalloc(sizeof(*fill));
	own_struct(bytes) text = { NULL, 0 };
	own(json_t) json = NULL;
	struct campaign_selector selector;
	struct db_certificate_cursor next;

	if (fill == NULL)
		return err_memory(err);
	TRY(db_campaign_selector(tx, k->campaign_id, &text, err));
	json = json_loadb((const char *)text.data, text.len, JSON_REJECT_DUPLICATES, NULL);
	TRY(campaign_selector_read(&selector, app, json, err));
	*over = true;
	if (selector.device_ids != NULL)
		return fill_list(app, tx, k, &selector, err);
	/* What is issued after it was asked for was not part of what was shown. */
	if (selector.filter.issued_before_s == 0 ||
	    selector.filter.issued_before_s > k->issued_until_s + 1)
		selector.filter.issued_before_s = k->issued_until_s + 1;
	TRY(db_certificate_search(tx, &selector.filter, &k->cursor, FILL_PAGE, fill->rows, &fill->count,
		&next, err));
	k->cursor = next;
	*over = !next.set;
	return add_rows(app, tx, k, &selector, fill, err);
}

static void
abort_because(struct db_campaign *k, const char *why)
{
	(void)snprintf(k->state, sizeof(k->state), "aborted");
	(void)snprintf(k->why, sizeof(k->why), "%s", why);
}

/* All members are known: it starts, or it says why it cannot. */
static enum status
filled(struct app *app, struct db_tx *tx, struct db_campaign *k, struct err *err)
{
	if (k->left_taken > 0)
		abort_because(k, "campaign_overlap");
	else if (k->members == 0)
		abort_because(k, "campaign_empty");
	else
		campaign_begin(k, clock_wall_s(app->clock));
	log_event(LOG_INFO, "campaign_filled", NULL, LOG_STR("campaign", k->campaign_id),
		LOG_STR("state", k->state), LOG_INT("members", k->members));
	return audit_step(app, tx, k, "campaign.start", err);
}

static enum status
fill_step(struct app *app, struct db_tx *tx, struct db_campaign *k, bool *more, struct err *err)
{
	bool over = false;
	enum status status = fill_some(app, tx, k, &over, err);

	/* What cannot be read any more (its CA is gone) must not be tried for ever. */
	if (status == ERR_ARGUMENT) {
		abort_because(k, err->code);
		return audit_step(app, tx, k, "campaign.start", err);
	}
	if (status != OK)
		return status;
	*more = true;
	return over ? filled(app, tx, k, err) : OK;
}

/* ---- running ---- */

static enum status
tell(struct app *app, struct db_tx *tx, const struct db_campaign *k, enum campaign_step step,
	bool new_wave, struct err *err)
{
	if (new_wave)
		TRY(audit_step(app, tx, k, "campaign.wave", err));
	if (step == CAMPAIGN_HALTS) {
		TRY(audit_step(app, tx, k, "campaign.halt", err));
		TRY(raise(tx, k, "campaign_halted", "high", err));
	}
	if (step == CAMPAIGN_ENDS) {
		TRY(audit_step(app, tx, k, "campaign.done", err));
		TRY(raise(tx, k, "campaign_done", "info", err));
	}
	if (step == CAMPAIGN_HALTS || step == CAMPAIGN_ENDS)
		log_event(step == CAMPAIGN_HALTS ? LOG_WARN : LOG_INFO, "campaign_ended", NULL,
			LOG_STR("campaign", k->campaign_id), LOG_STR("state", k->state),
			LOG_INT("asked", k->asked), LOG_INT("members", k->members));
	return OK;
}

static enum status
run_step(struct app *app, struct db_tx *tx, struct db_campaign *k, struct err *err)
{
	int64_t now_s = clock_wall_s(app->clock);
	struct db_campaign_tally judged;
	enum campaign_step step;
	bool unsettled = true;
	bool new_wave;
	int64_t count;

	TRY(db_campaign_look(tx, k, now_s, LOOK_PAGE, &k->look_from, err));
	TRY(db_campaign_tally(tx, k->campaign_id, k->judge_from, k->frontier, &judged, err));
	if (k->asked >= k->members)
		TRY(db_campaign_unsettled(tx, k->campaign_id, &unsettled, err));
	step = campaign_decide(k, &judged, unsettled, now_s, &count, &new_wave);
	if (step == CAMPAIGN_MOVES)
		TRY(db_campaign_nth(tx, k->campaign_id, k->frontier, count, &k->frontier, err));
	return tell(app, tx, k, step, new_wave, err);
}

static enum status
step_once(struct app *app, const char *campaign_id, bool *more, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	struct db_campaign k;
	bool leader;

	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_job_lead(&tx, JOB_CAMPAIGN, &leader, err));
	if (!leader)
		return OK;
	TRY(db_campaign_lock(&tx, campaign_id, &k, err));
	if (strcmp(k.state, "filling") == 0)
		TRY(fill_step(app, &tx, &k, more, err));
	else if (strcmp(k.state, "running") == 0)
		TRY(run_step(app, &tx, &k, err));
	else
		return OK; /* somebody said otherwise meanwhile */
	TRY(db_campaign_save(&tx, &k, err));
	return db_tx_commit(&tx, err);
}

static enum status
working(struct app *app, char (*ids)[DB_CAMPAIGN_ID_BYTES], size_t *count, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	TRY(db_tx_begin(&tx, app->pool, err));
	return db_campaign_working(&tx, "", WORKING_MAX, ids, count, err);
}

enum status
campaign_job_step(struct app *app, bool *more, struct err *err)
{
	char ids[WORKING_MAX][DB_CAMPAIGN_ID_BYTES];
	size_t count;

	*more = false;
	TRY(working(app, ids, &count, err));
	for (size_t i = 0; i < count && !app->stopping; i++) {
		unsigned tries = 0;
		enum status status;

		do
			status = step_once(app, ids[i], more, err);
		while (retry_due(&tries, status, err));
		if (status != OK)
			return status;
	}
	return OK;
}
