/* What is not counted certificate by certificate: CAs, the audit log, what is kept for how long. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "ca/checkpoint.h"
#include "ca/digest.h"
#include "db/checkpoint.h"
#include "db/issuer.h"
#include "server/api/api.h"
#include "server/api/render.h"
#include "server/audit.h"
#include "server/audit_checkpoint.h"
#include "server/report/internal.h"

/* So many records are followed from the first while a report is made; more cost the job seconds, and are held
 * by checkpoints, each of which was signed only after the chain since the one before had been followed. */
#define WHOLE_RECORDS_MAX 100000
#define STRANGERS_MAX 10000
/* A checkpoint is late when so many intervals are over. */
#define INTERVALS_LATE 2

typedef struct db_issuer db_issuer;
typedef struct db_report_stranger strangers;
OWNER(strangers, mem_free)

/* ---- the chain, before ---- */

static enum status
count_records(struct app *app, int64_t *records, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	struct db_audit_lane lanes[CA_CHECKPOINT_LANES_MAX];
	size_t count;

	*records = 0;
	TRY(db_tx_begin(&tx, app->pool, err));
	TRY(db_audit_lanes(&tx, lanes, COUNT_OF(lanes), &count, err));
	for (size_t i = 0; i < count; i++)
		*records += lanes[i].seq;
	return OK;
}

static enum status
follow_whole(struct app *app, struct report_chain *out, struct err *err)
{
	own(json_t) said = NULL;
	const json_t *broken;

	TRY(audit_verify(app, &said, err));
	out->whole = out->checked = true;
	out->ok = json_is_true(json_object_get(said, "ok"));
	broken = json_object_get(said, "first_broken");
	if (!out->ok)
		(void)snprintf(out->why, sizeof(out->why), "lane %lld, record %lld: %s",
			(long long)json_integer_value(json_object_get(broken, "lane")),
			(long long)json_integer_value(json_object_get(broken, "seq")),
			json_string_value(json_object_get(broken, "why")));
	return OK;
}

/* A checkpoint is signed over what holds since the last one: asking for one is verifying it. */
enum status
report_chain_check(struct app *app, struct report_chain *out, struct err *err)
{
	own_struct(db_note) note = { .number = 0 };
	int64_t records;
	bool made;
	struct err why;
	enum status status = audit_checkpoint_take(app, false, &note, &made, &why);

	*out = (struct report_chain){ .at_s = clock_wall_s(app->clock), .has_key = app->has_checkpoint_key };
	if (status == OK)
		out->checked = out->ok = true;
	else if (status == ERR_CONFLICT && strcmp(why.code, "audit_broken") == 0) {
		out->checked = true;
		(void)snprintf(out->why, sizeof(out->why), "%s", why.text);
	}
	TRY(count_records(app, &records, err));
	if (records <= WHOLE_RECORDS_MAX && (!out->checked || out->ok))
		return follow_whole(app, out, err);
	return OK;
}

/* ---- audit ---- */

static const struct db_note_lane *
held_of(const struct db_note_lane *held, size_t count, int32_t lane)
{
	for (size_t i = 0; i < count; i++)
		if (held[i].lane == lane)
			return &held[i];
	return NULL;
}

static enum status
render_lanes(struct db_tx *tx, json_t *list, int64_t *unsigned_records, struct err *err)
{
	struct db_audit_lane lanes[CA_CHECKPOINT_LANES_MAX];
	struct db_note_lane held[CA_CHECKPOINT_LANES_MAX];
	struct db_audit_anchor dropped[CA_CHECKPOINT_LANES_MAX];
	size_t count;
	size_t held_count;
	size_t dropped_count;

	*unsigned_records = 0;
	TRY(db_audit_lanes(tx, lanes, COUNT_OF(lanes), &count, err));
	TRY(db_note_heads(tx, held, COUNT_OF(held), &held_count, err));
	TRY(db_audit_dropped(tx, dropped, COUNT_OF(dropped), &dropped_count, err));
	for (size_t i = 0; i < count; i++) {
		const struct db_note_lane *note = held_of(held, held_count, lanes[i].lane);
		int64_t signed_to = note != NULL ? note->seq : 0;
		int64_t gone = 0;

		for (size_t d = 0; d < dropped_count; d++)
			if (dropped[d].lane == lanes[i].lane)
				gone = dropped[d].seq;
		*unsigned_records += lanes[i].seq - signed_to;
		TRY(api_append(list, json_pack("{s:i, s:I, s:o, s:I, s:I}", "lane", (int)lanes[i].lane,
			"records", (json_int_t)lanes[i].seq, "head",
			render_hex(lanes[i].head, sizeof(lanes[i].head)), "signed_through",
			(json_int_t)signed_to, "dropped_through", (json_int_t)gone), err));
	}
	return OK;
}

static json_t *
render_note(const struct db_note *note)
{
	uint8_t hash[32];
	uint8_t key[32];

	if (note->number == 0)
		return json_null();
	ca_sha256(hash, view_of(&note->note));
	ca_sha256(key, (struct view){ note->public_key, sizeof(note->public_key) });
	return json_pack("{s:I, s:o, s:I, s:o, s:o, s:o}", "number", (json_int_t)note->number, "at",
		render_time(note->at_s), "records", (json_int_t)note->records, "sha256",
		render_hex(hash, sizeof(hash)), "public_key",
		render_hex(note->public_key, sizeof(note->public_key)), "key_id",
		render_hex(key, sizeof(key)));
}

/* Whether what no checkpoint holds should have been held by now. */
static enum status
find_unsigned(struct report_work *work, const struct db_note *last, const struct report_chain *chain,
	int64_t records, struct err *err)
{
	int64_t late_s = INTERVALS_LATE * work->app->config.audit_checkpoint_interval_s;
	const char *why = NULL;

	if (!chain->has_key)
		why = "there is no checkpoint key";
	else if (records > 0 && last->number == 0)
		why = "there is no checkpoint";
	else if (records > 0 && chain->at_s - last->at_s > late_s)
		why = "the last checkpoint is older than two intervals";
	if (why == NULL)
		return OK;
	return report_find(work, FINDING_AUDIT_UNSIGNED, json_pack("{s:s, s:I}", "detail", why, "records",
		(json_int_t)records), err);
}

static enum status
render_audit(struct report_work *work, struct db_tx *tx, const struct report_chain *chain,
	json_t *document, struct err *err)
{
	own_struct(db_note) last = { .number = 0 };
	own(json_t) audit = json_object();
	own(json_t) lanes = json_array();
	int64_t records;

	if (audit == NULL || lanes == NULL)
		return err_memory(err);
	TRY(db_note_last(tx, &last, err));
	TRY(render_lanes(tx, lanes, &records, err));
	TRY(find_unsigned(work, &last, chain, records, err));
	if (chain->checked && !chain->ok)
		TRY(report_find(work, FINDING_AUDIT_BROKEN, json_pack("{s:s}", "detail", chain->why), err));
	TRY(api_set(audit, "verification", json_pack("{s:b, s:b, s:s, s:o, s:s}", "checked",
		(int)chain->checked, "ok", (int)chain->ok, "extent", chain->whole ?
		"every record that is kept" : "the records since the last checkpoint", "at",
		render_time(chain->at_s), "why", chain->why), err));
	TRY(api_set(audit, "last_checkpoint", render_note(&last), err));
	TRY(api_set(audit, "unsigned_records", json_integer(records), err));
	TRY(api_set(audit, "lanes", give(lanes), err));
	return api_set(document, "audit", give(audit), err);
}

/* ---- CAs ---- */

static enum status
find_strangers(struct report_work *work, struct db_tx *tx, const struct app_ca *ca, struct err *err)
{
	own(strangers) rows = mem_array(STRANGERS_MAX, sizeof(*rows));
	size_t count;

	if (rows == NULL)
		return err_memory(err);
	TRY(db_report_strangers(tx, ca->issuer_id, STRANGERS_MAX, rows, &count, err));
	for (size_t i = 0; i < count; i++)
		TRY(report_find(work, FINDING_STRANGER_ACTIVE, json_pack("{s:s, s:s, s:s}", "ca", ca->ca_id,
			"certificate_id", rows[i].certificate_id, "detail", rows[i].target), err));
	return OK;
}

static enum status
render_ca(struct report_work *work, const struct app_ca *ca, json_t *list, struct err *err)
{
	bool expiring = ca->not_after_s - work->now_s < work->app->config.report_ca_expiring_s;

	if (expiring)
		TRY(report_find(work, FINDING_CA_EXPIRING, json_pack("{s:s, s:o}", "ca", ca->ca_id,
			"not_after", render_time(ca->not_after_s)), err));
	return api_append(list, json_pack("{s:s, s:b, s:b, s:o, s:o, s:b}", "ca", ca->ca_id, "issuing",
		(int)(ca == work->app->issuing), "can_sign", (int)ca->can_sign, "not_before",
		render_time(ca->not_before_s), "not_after", render_time(ca->not_after_s), "expiring",
		(int)expiring), err);
}

static enum status
render_cas(struct report_work *work, struct db_tx *tx, json_t *document, struct err *err)
{
	own(json_t) list = json_array();

	if (list == NULL)
		return err_memory(err);
	for (size_t i = 0; i < work->app->ca_count; i++) {
		TRY(render_ca(work, &work->app->cas[i], list, err));
		TRY(find_strangers(work, tx, &work->app->cas[i], err));
	}
	return api_set(document, "cas", give(list), err);
}

/* ---- what is kept for how long ---- */

/* Days; null: for good. */
static json_t *
days(int64_t s)
{
	return s == 0 ? json_null() : json_integer(s / 86400);
}

enum status
report_state_render(struct report_work *work, struct db_tx *tx, const struct report_chain *chain,
	json_t *document, struct err *err)
{
	const struct config *config = &work->app->config;

	TRY(render_cas(work, tx, document, err));
	TRY(render_audit(work, tx, chain, document, err));
	return api_set(document, "retention_days", json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}",
		"certificates", days(config->certificate_retention_s), "audit",
		days(config->audit_retention_s), "events", days(config->event_retention_s),
		"idempotency_keys", days(config->idempotency_retention_s), "notifications",
		days(config->notification_retention_s), "reports", days(config->report_retention_s)), err);
}
