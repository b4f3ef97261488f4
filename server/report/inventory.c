#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "ca/algorithm.h"
#include "server/api/api.h"
#include "server/api/render.h"
#include "server/report/internal.h"

#define DAY_S 86400
#define WEEK_S (7 * (int64_t)DAY_S)
#define MONDAY_S (4 * (int64_t)DAY_S) /* 1970-01-05 */
#define WEEKS_AHEAD 53
/* Between two clocks and roundings of one issuance. */
#define VALIDITY_SLACK_S 60
#define DAY_TEXT 10 /* of an RFC 3339 time */
#define NAME_BYTES 96

static const char *const STATES[] = { "valid", "pending", "superseded", "held", "revoked", "expired" };

/* Revoked and held win over expired, as everywhere. */
static const char *
state_of(const struct db_report_row *row, int64_t now_s)
{
	if (row->status == CERT_REVOKED)
		return "revoked";
	if (row->not_after_s <= now_s)
		return "expired";
	if (row->status == CERT_HELD)
		return "held";
	if (row->status == CERT_SUPERSEDED)
		return "superseded";
	return row->status == CERT_PENDING_CONFIRMATION ? "pending" : "valid";
}

static bool
is_live(const struct db_report_row *row, int64_t now_s)
{
	return row->not_after_s > now_s &&
		(row->status == CERT_ACTIVE || row->status == CERT_PENDING_CONFIRMATION);
}

/* A CA that this server does not know any more has a number. */
static const char *
name_of_ca(const struct report_work *work, int32_t issuer_id, char room[NAME_BYTES])
{
	const struct app_ca *ca = app_ca_by_issuer(work->app, issuer_id);

	(void)snprintf(room, NAME_BYTES, "issuer %d", issuer_id);
	return ca != NULL ? ca->ca_id : room;
}

/* Who it is, with why; NULL also when memory is short, which report_find finds out. */
static json_t *
example(const struct report_work *work, enum report_finding which, const struct db_report_row *row,
	const char *detail, size_t detail_len)
{
	char room[NAME_BYTES];

	if (!report_has_room(work, which))
		return NULL;
	return json_pack("{s:s, s:s, s:s, s:o, s:s, s:o, s:s%}", "device_id", row->device_id, "profile",
		row->profile, "ca", name_of_ca(work, row->place.issuer_id, room), "certificate_id",
		render_hex(row->sha256.data, row->sha256.len), "state", state_of(row, work->now_s),
		"not_after", render_time(row->not_after_s), "detail", detail, detail_len);
}

static enum status
find(struct report_work *work, enum report_finding which, const struct db_report_row *row,
	const char *detail, struct err *err)
{
	return report_find(work, which, example(work, which, row, detail, strlen(detail)), err);
}

/* In IoT Core: targets, one a blank. */
static enum status
find_there(struct report_work *work, enum report_finding which, const struct db_report_row *row,
	struct view targets, struct err *err)
{
	return report_find(work, which,
		example(work, which, row, (const char *)targets.data, targets.len), err);
}

static enum status
look_at_key(struct report_work *work, const struct db_report_row *row, bool live, struct err *err)
{
	char room[NAME_BYTES];

	if (row->key_identity[0] == '\0')
		return row->of_device ? find(work, FINDING_KEY_ORPHANED, row, "", err) : OK;
	if (strcmp(row->key_identity, row->device_id) != 0)
		TRY(find(work, FINDING_KEY_SHARED, row, row->key_identity, err));
	if (live && row->key_blocked)
		TRY(find(work, FINDING_KEY_BLOCKED_LIVE, row, "", err));
	if (live && row->key_issuer_id != 0 && row->key_issuer_id != row->place.issuer_id)
		TRY(find(work, FINDING_KEY_TWO_CAS, row, name_of_ca(work, row->key_issuer_id, room), err));
	return OK;
}

/* IoT Core refuses what has expired by itself. */
static enum status
look_at_iot(struct report_work *work, const struct db_report_row *row, bool live, struct err *err)
{
	if (row->not_after_s <= work->now_s)
		return OK;
	if (row->active_in.len > 0 && row->status == CERT_REVOKED)
		TRY(find_there(work, FINDING_REVOKED_ACTIVE, row, row->active_in, err));
	else if (row->active_in.len > 0 && !live)
		TRY(find_there(work, FINDING_ENDED_ACTIVE, row, row->active_in, err));
	if (row->revoked_in.len > 0 && live)
		TRY(find_there(work, FINDING_LIVE_REVOKED_THERE, row, row->revoked_in, err));
	return OK;
}

static enum status
look_at_profile(struct report_work *work, const struct db_report_row *row, const char *key_type,
	struct err *err)
{
	const struct ca_profile *profile = app_profile(work->app, row->profile);
	enum ca_key_type type;
	char text[NAME_BYTES];

	if (profile == NULL)
		return OK;
	if (row->not_after_s - row->issued_at_s > profile->validity_max_s + VALIDITY_SLACK_S) {
		(void)snprintf(text, sizeof(text), "%lld days, at most %lld",
			(long long)((row->not_after_s - row->issued_at_s) / DAY_S),
			(long long)(profile->validity_max_s / DAY_S));
		TRY(find(work, FINDING_VALIDITY_OVER_PROFILE, row, text, err));
	}
	if (!ca_key_type_parse(&type, key_type) || (profile->key_types & (unsigned)type) == 0)
		TRY(find(work, FINDING_KEY_TYPE, row, key_type, err));
	return OK;
}

static enum status
count_end(struct report_work *work, const struct db_report_row *row, struct err *err)
{
	int64_t week_s = row->not_after_s - (row->not_after_s - MONDAY_S) % WEEK_S;
	char name[NAME_BYTES];

	(void)snprintf(name, sizeof(name), "%d", row->place.month);
	TRY(report_count(work->months, name, 1, err));
	if (week_s > work->now_s + WEEKS_AHEAD * WEEK_S)
		return OK;
	(void)snprintf(name, sizeof(name), "%lld", (long long)week_s);
	return report_count(work->weeks, name, 1, err);
}

static enum status
count_two(json_t *object, const char *name, bool live, struct err *err)
{
	json_t *entry = json_object_get(object, name);

	if (entry == NULL) {
		TRY(api_set(object, name, json_pack("{s:i, s:i}", "live", 0, "all", 0), err));
		entry = json_object_get(object, name);
	}
	TRY(report_count(entry, "all", 1, err));
	return live ? report_count(entry, "live", 1, err) : OK;
}

static enum status
count_group(struct report_work *work, const struct db_report_row *row, struct err *err)
{
	char name[NAME_BYTES];
	json_t *group;

	(void)snprintf(name, sizeof(name), "%d %s", row->place.issuer_id, row->profile);
	group = json_object_get(work->groups, name);
	if (group == NULL) {
		TRY(api_set(work->groups, name, json_object(), err));
		group = json_object_get(work->groups, name);
	}
	return report_count(group, state_of(row, work->now_s), 1, err);
}

static enum status
look_inside(struct report_work *work, const struct db_report_row *row, bool live, struct err *err)
{
	char key[CA_ALGORITHM_BYTES];
	char signature[CA_ALGORITHM_BYTES];
	struct ca_cert_view certificate;
	struct err why;

	if (ca_cert_parse(&certificate, row->der, &why) != OK)
		return find(work, FINDING_CERTIFICATE_UNREADABLE, row, why.text, err);
	ca_algorithm_of_key(key, certificate.spki);
	ca_algorithm_of_signature(signature, certificate.algorithm);
	TRY(count_two(work->keys, key, live, err));
	TRY(count_two(work->signatures, signature, live, err));
	return live ? look_at_profile(work, row, key, err) : OK;
}

enum status
report_look(void *arg, const struct db_report_row *row, struct err *err)
{
	struct report_work *work = arg;
	bool live = is_live(row, work->now_s);

	TRY(count_group(work, row, err));
	TRY(look_inside(work, row, live, err));
	TRY(look_at_key(work, row, live, err));
	TRY(look_at_iot(work, row, live, err));
	if (!live)
		return OK;
	if (row->status == CERT_PENDING_CONFIRMATION &&
	    work->now_s - row->issued_at_s > work->app->config.report_unconfirmed_after_s)
		TRY(find(work, FINDING_ROTATION_UNCONFIRMED, row, "", err));
	return count_end(work, row, err);
}

/* ---- rendered ---- */

static enum status
render_groups(const struct report_work *work, json_t *list, int64_t *all, int64_t *live, struct err *err)
{
	const char *name;
	json_t *group;

	*all = *live = 0;
	json_object_foreach(work->groups, name, group) {
		int32_t issuer_id = (int32_t)strtol(name, NULL, 10);
		char room[NAME_BYTES];
		own(json_t) line = json_pack("{s:s, s:s}", "ca", name_of_ca(work, issuer_id, room),
			"profile", strchr(name, ' ') + 1);

		if (line == NULL)
			return err_memory(err);
		for (size_t i = 0; i < COUNT_OF(STATES); i++) {
			json_int_t count = json_integer_value(json_object_get(group, STATES[i]));

			*all += count;
			if (i < 2) /* valid, pending */
				*live += count;
			TRY(api_set(line, STATES[i], json_integer(count), err));
		}
		TRY(api_append(list, give(line), err));
	}
	return OK;
}

static enum status
render_twos(json_t *from, const char *label, json_t *list, struct err *err)
{
	const char *name;
	json_t *two;

	json_object_foreach(from, name, two)
		TRY(api_append(list, json_pack("{s:s, s:O, s:O}", label, name, "live",
			json_object_get(two, "live"), "all", json_object_get(two, "all")), err));
	return OK;
}

/* A whole percent, rounded down. */
static int64_t
percent_of(int64_t part, int64_t whole)
{
	return whole == 0 ? 0 : part * 100 / whole;
}

static enum status
render_week(struct report_work *work, json_t *list, int64_t week_s, int64_t live, struct err *err)
{
	char name[NAME_BYTES];
	char day[TIME_TEXT_BYTES];
	int64_t count;
	int64_t percent;
	bool cliff;

	(void)snprintf(name, sizeof(name), "%lld", (long long)week_s);
	count = json_integer_value(json_object_get(work->weeks, name));
	percent = percent_of(count, live);
	cliff = percent >= REPORT_CLIFF_PERCENT && count >= REPORT_CLIFF_LEAST;
	time_format(day, week_s);
	day[DAY_TEXT] = '\0';
	if (cliff)
		TRY(report_find(work, FINDING_EXPIRY_CLIFF, json_pack("{s:s, s:I, s:I}", "week", day,
			"certificates", (json_int_t)count, "percent", (json_int_t)percent), err));
	return api_append(list, json_pack("{s:s, s:I, s:I, s:b}", "week", day, "certificates",
		(json_int_t)count, "percent", (json_int_t)percent, "cliff", (int)cliff), err);
}

/* Every week of the coming year, also those in which nothing ends: a plan shows its gaps. */
static enum status
render_weeks(struct report_work *work, json_t *list, int64_t live, struct err *err)
{
	int64_t week_s = work->now_s - (work->now_s - MONDAY_S) % WEEK_S;

	for (unsigned i = 0; i <= WEEKS_AHEAD; i++, week_s += WEEK_S)
		TRY(render_week(work, list, week_s, live, err));
	return OK;
}

#define MONTHS_MOST 65536 /* as serials count them */

static enum status
render_months(const struct report_work *work, json_t *list, struct err *err)
{
	char name[NAME_BYTES];
	char text[NAME_BYTES];

	if (json_object_size(work->months) == 0)
		return OK;
	for (int month = expiry_month(work->now_s); month < MONTHS_MOST; month++) {
		json_t *count;

		(void)snprintf(name, sizeof(name), "%d", month);
		count = json_object_get(work->months, name);
		if (count == NULL)
			continue;
		(void)snprintf(text, sizeof(text), "%04d-%02d", month / 12, month % 12 + 1);
		TRY(api_append(list, json_pack("{s:s, s:O}", "month", text, "certificates", count), err));
	}
	return OK;
}

static enum status
set_list(json_t *object, const char *name, json_t *list, struct err *err)
{
	return api_set(object, name, json_incref(list), err);
}

enum status
report_inventory_render(struct report_work *work, json_t *document, struct err *err)
{
	own(json_t) groups = json_array();
	own(json_t) keys = json_array();
	own(json_t) signatures = json_array();
	own(json_t) months = json_array();
	own(json_t) weeks = json_array();
	own(json_t) inventory = json_object();
	own(json_t) expiries = json_object();
	int64_t all;
	int64_t live;

	if (groups == NULL || keys == NULL || signatures == NULL || months == NULL || weeks == NULL ||
	    inventory == NULL || expiries == NULL)
		return err_memory(err);
	TRY(render_groups(work, groups, &all, &live, err));
	TRY(render_twos(work->keys, "key_type", keys, err));
	TRY(render_twos(work->signatures, "algorithm", signatures, err));
	TRY(render_months(work, months, err));
	TRY(render_weeks(work, weeks, live, err));
	TRY(api_set(inventory, "certificates", json_integer(all), err));
	TRY(api_set(inventory, "live", json_integer(live), err));
	TRY(set_list(inventory, "by_ca_and_profile", groups, err));
	TRY(set_list(inventory, "key_types", keys, err));
	TRY(set_list(inventory, "signature_algorithms", signatures, err));
	TRY(set_list(expiries, "months", months, err));
	TRY(set_list(expiries, "weeks", weeks, err));
	TRY(set_list(document, "inventory", inventory, err));
	return set_list(document, "expiries", expiries, err);
}
