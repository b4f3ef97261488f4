/* What the doctor sees of IoT Core: what the rows say, and what each target says when it is asked. */
#include "server/api/doctor.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "db/doctor.h"
#include "db/iot.h"
#include "server/api/api.h"
#include "server/app.h"
#include "server/iot/forecast.h"
#include "server/iot/mqtt.h"
#include "server/iot/room.h"

#define CAS_MAX (IOT_TARGETS_MAX * 8)
/* All questions to all targets together: whoever asks for a diagnosis waits for it. */
#define ASKING_MS 10000
#define CALL_MS 3000
/* An account has 1 000 rules, and fewer destinations. */
#define PAGES_MAX 10
#define RULES_PAGE 100
#define DESTINATIONS_PAGE 25
#define EVENTS_PATH "/v1/iot/jitr-events"
#define EVENTS_TOPIC "$aws/events/certificates/registered/"

/* Nobody waits for upkeep; a revocation waits for nothing but the quota. */
static const int64_t OUTBOX_LATE_S[] = { [OUTBOX_TAKES] = 60, [OUTBOX_GIVES] = 900, [OUTBOX_UPKEEP] = 86400 };
/* The broker's pings go each minute, and one may be under way. */
#define SILENT_WARN_MS 180000
/* The comparison begins every day, and lasts hours at a small quota. */
#define COMPARED_WARN_S (INT64_C(3) * 86400)
#define THROTTLED_WARN_PERCENT 1
#define REVOKE_SLOW_S 600

typedef struct iot_rule iot_rule;
typedef struct iot_destination iot_destination;
typedef struct iot_cursor iot_cursor;
OWNER(iot_rule, mem_free)
OWNER(iot_destination, mem_free)
OWNER(iot_cursor, mem_free)

struct iot_round {
	struct doctor_round *round;
	struct doctor *doctor;
	int64_t end_ms; /* then no target is asked any more */
	struct db_iot_ca cas[CAS_MAX];
	size_t ca_count;
	bool cas_read;
};

static bool
may_ask(const struct iot_round *it)
{
	return clock_mono_ms(it->round->app->clock) < it->end_ms;
}

/* A handle that does not wait long. */
static struct iot
calls(struct iot_site *site)
{
	struct iot iot = iot_site_calls(site, AWS_PRIORITY_NORMAL);

	iot.timeout_ms = CALL_MS;
	return iot;
}

static void
not_asked(struct iot_round *it, const char *check, const char *target)
{
	doctor_say(it->doctor, DOCTOR_UNKNOWN, check, "Try again once the targets answer faster.",
		"%s: was not asked: the others took too long", target);
}

static void
no_answer(struct iot_round *it, const char *check, const char *target, const char *permission,
	const struct err *why)
{
	doctor_say(it->doctor, DOCTOR_UNKNOWN, check, permission,
		"%s: could not be checked: %s (%s)", target, why->text, why->code);
}

/* ---- our CAs there ---- */

static const struct db_iot_ca *
row_of(const struct iot_round *it, const char *target, int32_t issuer_id)
{
	for (size_t i = 0; i < it->ca_count; i++)
		if (it->cas[i].issuer_id == issuer_id && strcmp(it->cas[i].target, target) == 0)
			return &it->cas[i];
	return NULL;
}

/* What IoT Core says of a CA that our row calls active. */
static void
compare_ca(struct iot_round *it, struct iot_site *site, const struct db_iot_ca *row, const char *ca_id)
{
	static const char REGISTER[] =
		"Find out who changed it there, then jitrca iot register-ca CA.";
	own_struct(iot_ca_certificate) there = { .creation_s = 0 };
	struct iot iot = calls(site);
	const char *target = site->target->name;
	struct err err;

	if (!may_ask(it))
		not_asked(it, "iot_registration", target);
	else if (iot_describe_ca_certificate(&iot, row->ca_certificate_id, &there, &err) == ERR_NOT_FOUND)
		doctor_say(it->doctor, DOCTOR_ERROR, "iot_registration", REGISTER,
			"%s: %s is registered by our record, and is not there", target, ca_id);
	else if (iot.failure.error != AWS_ERROR_NONE)
		no_answer(it, "iot_registration", target,
			"The role needs iot:DescribeCACertificate (docs/aws-iot-core.md).", &err);
	else if (there.status != IOT_STATUS_ACTIVE || there.auto_registration != IOT_SWITCH_ENABLE)
		doctor_say(it->doctor, DOCTOR_ERROR, "iot_registration", REGISTER,
			"%s: %s is %s there, auto-registration %s: new devices do not get in",
			target, ca_id, iot_status_name(there.status),
			there.auto_registration == IOT_SWITCH_ENABLE ? "on" : "off");
	else if (there.has_registration_config)
		doctor_say(it->doctor, DOCTOR_ERROR, "iot_registration",
			"Remove the registrationConfig there: with it, IoT Core provisions by "
			"itself and asks nobody.", "%s: %s has a provisioning template", target,
			ca_id);
	else
		doctor_say(it->doctor, DOCTOR_OK, "iot_registration", NULL,
			"%s: %s is ACTIVE there, with auto-registration", target, ca_id);
}

/* Of the CA that issues; another may be on its way in or out (jitrca ca succession status). */
static void
check_registration(struct iot_round *it, struct iot_site *site)
{
	const struct app_ca *ca = it->round->app->issuing;
	const char *target = site->target->name;
	const struct db_iot_ca *row = row_of(it, target, ca->issuer_id);

	if (!it->cas_read)
		doctor_say(it->doctor, DOCTOR_UNKNOWN, "iot_registration",
			"See the finding on the database first.",
			"%s: could not be checked: our record could not be read", target);
	else if (row == NULL || strcmp(row->status, "ACTIVE") != 0)
		doctor_say(it->doctor, DOCTOR_ERROR, "iot_registration",
			"jitrca iot register-ca CA",
			"%s: %s, which issues, is %s: no new device gets in", target, ca->ca_id,
			row == NULL ? "not registered" : row->status);
	else if (!row->auto_registration)
		doctor_say(it->doctor, DOCTOR_WARNING, "iot_registration",
			"jitrca iot register-ca CA, unless a succession is under way (jitrca ca "
			"succession status).", "%s: %s, which issues, has auto-registration off",
			target, ca->ca_id);
	else
		compare_ca(it, site, row, ca->ca_id);
}

/* ---- the rule and its destination ---- */

static bool
leads_here(const struct iot_round *it, const char *url)
{
	const char *own = it->round->app->config.public_url;

	return strncmp(url, own, strlen(own)) == 0 || strstr(url, EVENTS_PATH) != NULL;
}

static void
judge_destination(struct iot_round *it, const char *target, const struct iot_destination *found)
{
	if (found == NULL)
		doctor_say(it->doctor, DOCTOR_WARNING, "iot_rule",
			"Make the rule with its HTTPS action (docs/aws-iot-core.md), or drop "
			"`webhook` from the target.",
			"%s: a webhook is configured, and no destination leads to it", target);
	else if (found->status == IOT_DESTINATION_ENABLED)
		doctor_say(it->doctor, DOCTOR_OK, "iot_rule", NULL,
			"%s: the destination is enabled", target);
	else
		doctor_say(it->doctor, DOCTOR_ERROR, "iot_rule",
			"Have it confirmed: UpdateTopicRuleDestination with status IN_PROGRESS "
			"sends another confirmation, which this server answers; AWS must reach "
			"public_url.", "%s: the destination is %s%s%s", target,
			found->status == IOT_DESTINATION_IN_PROGRESS ?
				"not confirmed" : "not enabled",
			found->reason[0] != '\0' ? ": " : "", found->reason);
}

static enum status
unfinished(struct err *err)
{
	return err_set(err, ERR_UNAVAILABLE, "iot_unavailable",
		"the list is longer than could be read in %d s", ASKING_MS / 1000);
}

/* The best of those that lead here: found is filled when one does. */
static enum status
find_destination(struct iot_round *it, struct iot *iot, struct iot_destination *found, bool *any,
	struct err *err)
{
	own(iot_destination) page = mem_array(DESTINATIONS_PAGE, sizeof(*page));
	own(iot_cursor) cursor = mem_zalloc(sizeof(*cursor));

	*any = false;
	if (page == NULL || cursor == NULL)
		return err_memory(err);
	for (size_t pages = 0; pages < PAGES_MAX && !cursor->done && may_ask(it); pages++) {
		size_t count = 0;

		TRY(iot_list_topic_rule_destinations(iot, cursor, page, DESTINATIONS_PAGE, &count, err));
		for (size_t i = 0; i < count; i++) {
			if (!leads_here(it, page[i].url) ||
				(*any && page[i].status != IOT_DESTINATION_ENABLED))
				continue;
			*found = page[i];
			*any = true;
		}
	}
	return *any || cursor->done ? OK : unfinished(err);
}

static void
check_destination(struct iot_round *it, struct iot_site *site)
{
	own(iot_destination) found = mem_zalloc(sizeof(*found));
	struct iot iot = calls(site);
	bool any = false;
	struct err err;

	if (!may_ask(it)) {
		not_asked(it, "iot_rule", site->target->name);
		return;
	}
	if (found == NULL || find_destination(it, &iot, found, &any, &err) != OK) {
		if (found == NULL)
			it->doctor->short_of_memory = true;
		else
			no_answer(it, "iot_rule", site->target->name,
				"The role needs iot:ListTopicRuleDestinations "
				"(docs/aws-iot-core.md).", &err);
		return;
	}
	judge_destination(it, site->target->name, any ? found : NULL);
}

static enum status
find_rule(struct iot_round *it, struct iot *iot, struct iot_rule *found, bool *any, struct err *err)
{
	own(iot_rule) page = mem_array(RULES_PAGE, sizeof(*page));
	own(iot_cursor) cursor = mem_zalloc(sizeof(*cursor));

	*any = false;
	if (page == NULL || cursor == NULL)
		return err_memory(err);
	for (size_t pages = 0; pages < PAGES_MAX && !cursor->done && may_ask(it); pages++) {
		size_t count = 0;

		TRY(iot_list_topic_rules(iot, cursor, page, RULES_PAGE, &count, err));
		for (size_t i = 0; i < count; i++) {
			if (strncmp(page[i].topic, EVENTS_TOPIC, strlen(EVENTS_TOPIC)) != 0 ||
				(*any && page[i].disabled))
				continue;
			*found = page[i];
			*any = true;
		}
	}
	return *any || cursor->done ? OK : unfinished(err);
}

static void
check_rule(struct iot_round *it, struct iot_site *site)
{
	const char *target = site->target->name;
	struct iot iot = calls(site);
	struct iot_rule found = { .disabled = false };
	bool any = false;
	struct err err;

	if (!may_ask(it))
		not_asked(it, "iot_rule", target);
	else if (find_rule(it, &iot, &found, &any, &err) != OK)
		no_answer(it, "iot_rule", target,
			"The role needs iot:ListTopicRules (docs/aws-iot-core.md).", &err);
	else if (!any)
		doctor_say(it->doctor, DOCTOR_WARNING, "iot_rule",
			"Make it (docs/aws-iot-core.md), or drop `webhook` from the target.",
			"%s: a webhook is configured, and no rule selects from " EVENTS_TOPIC "+",
			target);
	else if (found.disabled)
		doctor_say(it->doctor, DOCTOR_ERROR, "iot_rule",
			"EnableTopicRule, in that account and Region.",
			"%s: the rule %s is disabled", target, found.name);
	else
		doctor_say(it->doctor, DOCTOR_OK, "iot_rule", NULL, "%s: the rule %s is enabled",
			target, found.name);
}

/* ---- quotas and calls ---- */

struct counted {
	int64_t attempts, throttles;
};

static void
count_calls(void *arg, const struct aws_operation_stats *stats)
{
	struct counted *counted = arg;

	counted->attempts += stats->attempts;
	counted->throttles += stats->throttles;
}

static void
check_calls(struct iot_round *it, struct iot_site *site)
{
	const char *target = site->target->name;
	struct counted counted = { .attempts = 0 };
	struct aws_health health;

	aws_client_health(site->client, &health);
	if (health.breaker != AWS_BREAKER_CLOSED)
		doctor_say(it->doctor, DOCTOR_ERROR, "iot_calls",
			"See its network, its credentials and the AWS health page; what waits is "
			"done once it answers.", "%s: calls are held back (breaker %s): %.200s",
			target, aws_breaker_name(health.breaker), health.last.message);
	else
		doctor_say(it->doctor, DOCTOR_OK, "iot_calls", NULL, "%s: calls are made as usual",
			target);
	aws_client_stats(site->client, count_calls, &counted);
	if (counted.throttles * 100 > counted.attempts * THROTTLED_WARN_PERCENT)
		doctor_say(it->doctor, DOCTOR_WARNING, "iot_quotas",
			"Lower `quotas` of the target to the account's own, or have AWS raise "
			"those: others may share them.",
			"%s: %" PRId64 " of %" PRId64 " requests since the start were throttled",
			target, counted.throttles, counted.attempts);
	else
		doctor_say(it->doctor, DOCTOR_OK, "iot_quotas", NULL,
			"%s: %" PRId64 " of %" PRId64 " requests since the start were throttled",
			target, counted.throttles, counted.attempts);
}

/* ---- the outbox ---- */

static void
judge_waiting(struct iot_round *it, const struct db_doctor_outbox *outbox)
{
	static const char *const NAMES[] = { [OUTBOX_TAKES] = "revocations and quarantines",
		[OUTBOX_GIVES] = "activations", [OUTBOX_UPKEEP] = "rows of upkeep" };
	bool late = false;

	for (size_t i = 0; i < COUNT_OF(NAMES); i++) {
		if (outbox->oldest_s[i] <= OUTBOX_LATE_S[i])
			continue;
		late = true;
		doctor_say(it->doctor, i == OUTBOX_TAKES ? DOCTOR_ERROR : DOCTOR_WARNING,
			"iot_outbox",
			"See what fails (jitrca iot outbox) and the findings on calls and quotas; "
			"jitrca iot status has a forecast.",
			"%s%" PRId64 " %s wait, the oldest for %" PRId64 " s",
			outbox->waiting[i] == DB_DOCTOR_COUNT_MAX ? "at least " : "",
			outbox->waiting[i], NAMES[i], outbox->oldest_s[i]);
	}
	if (!late)
		doctor_say(it->doctor, DOCTOR_OK, "iot_outbox", NULL,
			"%" PRId64 " rows wait, none for long",
			outbox->waiting[OUTBOX_TAKES] + outbox->waiting[OUTBOX_GIVES] +
				outbox->waiting[OUTBOX_UPKEEP]);
}

/* How long the revocations that wait take at the least, where the quota is the limit. */
static void
judge_forecast(struct iot_round *it, const struct db_doctor_outbox *outbox)
{
	const struct iot_room *room = it->round->app->iot;

	for (size_t i = 0; i < room->site_count; i++) {
		const struct iot_target *target = room->sites[i].target;
		struct iot_forecast forecast;

		iot_forecast_make(&forecast, target,
			&(struct iot_forecast_ask){ .ahead = outbox->waiting[OUTBOX_TAKES] });
		if (forecast.seconds > REVOKE_SLOW_S)
			doctor_say(it->doctor, DOCTOR_WARNING, "iot_quotas",
				"Have AWS raise UpdateCertificate and AttachPolicy, and `quotas` "
				"of the target with them.",
				"%s: the revocations that wait take %" PRId64 " s at its quotas",
				target->name, forecast.seconds);
	}
}

static enum status
check_outbox(struct doctor_round *round, struct db_tx *tx, struct err *err)
{
	struct iot_round it = { .round = round, .doctor = round->doctor };
	struct db_doctor_outbox outbox;

	TRY(db_doctor_outbox(tx, &outbox, err));
	judge_waiting(&it, &outbox);
	judge_forecast(&it, &outbox);
	if (outbox.dead > 0)
		doctor_say(round->doctor, DOCTOR_WARNING, "iot_outbox",
			"jitrca iot outbox --dead true says why; then jitrca iot retry.",
			"%s%" PRId64 " dead letters wait for somebody",
			outbox.dead == DB_DOCTOR_COUNT_MAX ? "at least " : "", outbox.dead);
	return OK;
}

/* ---- the subscription ---- */

static void
check_broker(struct iot_round *it, struct iot_site *site)
{
	const char *target = site->target->name;
	int64_t silent_ms = iot_mqtt_silent_ms(site->mqtt);
	char state[256];

	iot_mqtt_state(site->mqtt, state, sizeof(state));
	if (site->mqtt == NULL)
		doctor_say(it->doctor, DOCTOR_NOTE, "iot_broker",
			"Name the broker (`mqtt` of the target), or see that the rule works.",
			"%s: nobody subscribes: new devices are heard of by the rule and the sweep",
			target);
	else if (strcmp(state, "elsewhere") == 0)
		doctor_say(it->doctor, DOCTOR_OK, "iot_broker", NULL,
			"%s: another server has the subscription", target);
	else if (strcmp(state, "connected") != 0)
		doctor_say(it->doctor, DOCTOR_ERROR, "iot_broker",
			"See the broker, its address and CA, and that our certificate is let in "
			"(docs/aws-iot-core.md). The sweep finds new devices meanwhile, later.",
			"%s: not subscribed: %s", target, state);
	else if (silent_ms < 0 || silent_ms > SILENT_WARN_MS)
		doctor_say(it->doctor, DOCTOR_ERROR, "iot_broker",
			"Its thread hangs: see the database, then restart this server.",
			"%s: subscribed, but nothing was read for %" PRId64 " s", target,
			silent_ms / 1000);
	else
		doctor_say(it->doctor, DOCTOR_OK, "iot_broker", NULL,
			"%s: subscribed, and the broker answers", target);
}

/* ---- the comparison ---- */

static void
judge_walk(struct doctor_round *round, const struct db_iot_walk *walk, const char *ca_id)
{
	const char *ask =
		"jitrca iot reconcile --repair; jitrca iot reconciled shows what it found.";
	own(json_t) drift = json_loads(walk->drift, 0, NULL);
	int64_t age_s = round->now_s - walk->started_at_s;
	int64_t found = 0;
	const char *kind;
	json_t *count;

	json_object_foreach(drift, kind, count)
		found += json_integer_value(count);
	if (age_s > COMPARED_WARN_S)
		doctor_say(round->doctor, DOCTOR_WARNING, "iot_compared", ask,
			"%s: %s was compared for the last time %" PRId64 " days ago%s",
			walk->target, ca_id, age_s / 86400,
			walk->finished_at_s == 0 ? ", and not to the end" : "");
	else if (found > 0 && !walk->repair)
		doctor_say(round->doctor, DOCTOR_WARNING, "iot_compared", ask,
			"%s: %s: the last comparison found %" PRId64 " differences of %" PRId64 " "
			"certificates", walk->target, ca_id, found, walk->seen);
	else
		doctor_say(round->doctor, DOCTOR_OK, "iot_compared", NULL,
			"%s: %s: %" PRId64 " certificates compared, %" PRId64 " differences",
			walk->target, ca_id, walk->seen, found);
}

static enum status
check_compared(struct doctor_round *round, struct db_tx *tx, struct err *err)
{
	struct db_iot_ca cas[CAS_MAX];
	size_t count;

	TRY(db_iot_ca_list(tx, cas, CAS_MAX, &count, err));
	for (size_t i = 0; i < count; i++) {
		const struct app_ca *ca = app_ca_by_issuer(round->app, cas[i].issuer_id);
		const char *ca_id = ca != NULL ? ca->ca_id : "a CA that is not here";
		struct db_iot_walk walk;
		bool found;

		/* One that is not there any more is not compared. */
		if (strcmp(cas[i].status, "DELETED") == 0)
			continue;
		TRY(db_iot_walk_find(tx, cas[i].target, cas[i].issuer_id, "reconcile", &walk,
			&found, err));
		if (found)
			judge_walk(round, &walk, ca_id);
		else
			doctor_say(round->doctor, DOCTOR_NOTE, "iot_compared",
				"jitrca iot reconcile asks for it now; it begins by itself within "
				"a day.", "%s: %s was never compared", cas[i].target, ca_id);
	}
	return OK;
}

static enum status
read_cas(struct iot_round *it, struct db_tx *tx, struct err *err)
{
	TRY(db_iot_ca_list(tx, it->cas, CAS_MAX, &it->ca_count, err));
	it->cas_read = true;
	return OK;
}

/* Before the targets are asked: no connection of the pool waits for them. */
static void
read_registrations(struct iot_round *it)
{
	own_struct(db_tx) tx = { NULL, NULL };
	struct err err;

	if (it->round->database_away)
		return;
	if (db_tx_begin(&tx, it->round->app->pool, &err) != OK || db_doctor_patience(&tx, &err) != OK ||
		read_cas(it, &tx, &err) != OK)
		doctor_unknown(it->doctor, "iot_registration", NULL, &err);
}

static void
check_site(struct iot_round *it, struct iot_site *site)
{
	check_registration(it, site);
	if (site->target->webhook.secret.len > 0) {
		check_destination(it, site);
		check_rule(it, site);
	}
	check_calls(it, site);
	check_broker(it, site);
}

void
doctor_check_iot(struct doctor_round *round)
{
	struct iot_room *room = round->app->iot;
	struct iot_round it = { .round = round, .doctor = round->doctor,
		.end_ms = clock_mono_ms(round->app->clock) + ASKING_MS };

	if (room == NULL || room->site_count == 0) {
		doctor_say(round->doctor, DOCTOR_OK, "iot", NULL,
			"no IoT Core is configured (iot_targets_file)");
		return;
	}
	if (iot_room_elsewhere(room))
		doctor_say(round->doctor, DOCTOR_WARNING, "iot_outbox",
			"Give all servers of one database the same iot_targets_file.",
			"other servers of this database have targets that this one has not: it "
			"leaves the outbox to them");
	read_registrations(&it);
	for (size_t i = 0; i < room->site_count; i++)
		check_site(&it, &room->sites[i]);
	doctor_in_tx(round, "iot_outbox", check_outbox);
	doctor_in_tx(round, "iot_compared", check_compared);
}
