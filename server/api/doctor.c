/* GET /v1/doctor: what this server can say of itself, and of what it depends on. */
#include "server/api/doctor.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/mem.h"
#include "db/doctor.h"
#include "db/issuer.h"
#include "db/migrate.h"
#include "server/api/api.h"
#include "server/api/render.h"
#include "server/app.h"
#include "server/protocol/crl.h"
#include "server/protocol/ocsp.h"
#include "server/signer/link.h"

#define DAY_S INT64_C(86400)
#define WHY_BYTES 256
/* A list is made anew by crl_refresh; a long one takes its time. */
#define CRL_LATE_S INT64_C(3600)
/* Files are renewed by others, who try again for weeks before; ours at a third of its life. */
#define LISTENER_FILE_WARN_S (14 * DAY_S)
#define LISTENER_OWN_WARN_S (3 * DAY_S)
#define CONNECTIONS_WARN_PERCENT 90

typedef struct db_doctor_fleet fleet_sample;
OWNER(fleet_sample, mem_free)

static enum status
in_tx(struct doctor_round *round,
	enum status (*run)(struct doctor_round *round, struct db_tx *tx, struct err *err), struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	TRY(db_tx_begin(&tx, round->app->pool, err));
	TRY(db_doctor_patience(&tx, err));
	return run(round, &tx, err);
}

void
doctor_in_tx(struct doctor_round *round, const char *check,
	enum status (*run)(struct doctor_round *round, struct db_tx *tx, struct err *err))
{
	struct err err;

	if (round->database_away)
		doctor_say(round->doctor, DOCTOR_UNKNOWN, check,
			"See the finding on the database first.",
			"could not be checked: the database does not answer");
	else if (in_tx(round, run, &err) != OK)
		doctor_unknown(round->doctor, check,
			"Try again; if it stays, see the database's load and log.", &err);
}

/* ---- the database ---- */

static void
check_database(struct doctor_round *round)
{
	struct app *app = round->app;
	const char *what_to_do = "See that PostgreSQL runs and that database_url leads to it.";
	struct err err;

	/* A database that hangs would keep us from saying so. */
	round->database_away = true;
	if (app->instance_id != 0 && freshness_stalled(app))
		doctor_say(round->doctor, DOCTOR_ERROR, "database", what_to_do,
			"it does not answer");
	else if (db_ping(app->pool, &err) != OK)
		doctor_say(round->doctor, DOCTOR_ERROR, "database", what_to_do, "%s", err.text);
	else if (app->instance_id == 0)
		doctor_say(round->doctor, DOCTOR_ERROR, "database", what_to_do,
			"the session that stands for this server is down");
	else
		round->database_away = false;
}

static void
judge_durability(struct doctor_round *round, const struct db_doctor_server *server)
{
	if (!server->fsync || !server->synchronous)
		doctor_say(round->doctor, DOCTOR_ERROR, "database",
			"Set fsync and synchronous_commit to on: what was issued is promised to "
			"be on record.",
			"%s is off: what was committed may be lost when it crashes",
			server->fsync ? "synchronous_commit" : "fsync");
	if (server->connections * 100 >= server->connections_max * CONNECTIONS_WARN_PERCENT)
		doctor_say(round->doctor, DOCTOR_WARNING, "database",
			"Raise max_connections, or lower database_connections of the servers.",
			"%" PRId64 " of %" PRId64 " connections are taken", server->connections,
			server->connections_max);
}

static enum status
check_server(struct doctor_round *round, struct db_tx *tx, struct err *err)
{
	int64_t before_s = clock_wall_s(round->app->clock);
	struct db_doctor_server server;

	TRY(db_doctor_server(tx, &server, err));
	doctor_say(round->doctor, DOCTOR_OK, "database", NULL,
		"PostgreSQL %" PRId64 ".%" PRId64 " answers, with %" PRId64 " of %" PRId64 " "
		"connections taken", server.version / 10000, server.version % 10000,
		server.connections, server.connections_max);
	judge_durability(round, &server);
	if (server.standby || server.read_only)
		doctor_say(round->doctor, DOCTOR_ERROR, "standby",
			"Name all hosts in database_url with target_session_attrs=read-write, or "
			"promote it.", "%s: nothing can be issued",
			server.standby ? "the database is a standby" :
				"the database is read-only by configuration");
	else
		doctor_say(round->doctor, DOCTOR_OK, "standby", NULL,
			"the database is a primary; %" PRId64 " standbys follow it",
			server.standbys);
	doctor_judge_clock(round->doctor, server.now_s, before_s, clock_wall_s(round->app->clock));
	return OK;
}

static enum status
check_migrations(struct doctor_round *round, struct db_tx *tx, struct err *err)
{
	(void)tx; /* the runner has a connection of its own */
	if (db_migrate_check(round->app->config.database_url, DB_MIGRATIONS, DB_MIGRATION_COUNT, err) == OK)
		doctor_say(round->doctor, DOCTOR_OK, "migrations", NULL, "all %zu are applied",
			DB_MIGRATION_COUNT);
	else if (err->status == ERR_CONFLICT)
		doctor_say(round->doctor, DOCTOR_ERROR, "migrations",
			"Run `jitrca migrate` of the newest program, and then that program "
			"everywhere.", "%s (%s)", err->text, err->code);
	else
		return err->status;
	return OK;
}

/* ---- the signer and the CAs ---- */

static void
check_signer(struct doctor_round *round)
{
	const struct app *app = round->app;

	if (!signer_link_up(app->signer_issue) || !signer_link_up(app->signer_crl) ||
		!signer_link_up(app->signer_full) || !signer_link_up(app->signer_ocsp))
		doctor_say(round->doctor, DOCTOR_ERROR, "signer",
			"It is started again by itself; if that goes on, the log says why it ends "
			"(signer_*).", "the process that holds the keys is away");
	else if (app->issuing_missing)
		doctor_say(round->doctor, DOCTOR_ERROR, "signer",
			"Bring the successor's key here, or take the succession back "
			"(docs/succession.md).", "it has no key of the CA that issues by now");
	else
		doctor_say(round->doctor, DOCTOR_OK, "signer", NULL,
			"it runs and has the issuing CA's key");
}

static int64_t
longest_validity_s(const struct app *app)
{
	int64_t longest_s = 0;

	for (size_t i = 0; i < app->profile_count; i++)
		if (app->profiles[i].validity_default_s > longest_s)
			longest_s = app->profiles[i].validity_default_s;
	return longest_s;
}

/* From when on a certificate would not live as long as its profile says, it is late for a successor. */
static void
check_cas(struct doctor_round *round)
{
	const struct app *app = round->app;
	int64_t clamped_s = longest_validity_s(app);

	for (size_t i = 0; i < app->ca_count; i++) {
		const struct app_ca *ca = &app->cas[i];
		int64_t warn_s = app->config.report_ca_expiring_s;

		if (ca == app->issuing && clamped_s > warn_s)
			warn_s = clamped_s;
		doctor_judge_end(round->doctor, "ca_end", ca->ca_id, ca->not_after_s, round->now_s,
			warn_s,
			"Begin a succession (docs/succession.md): jitrca init --successor ID, "
			"reload, then jitrca ca succession start.");
	}
}

/* ---- CRLs, OCSP ---- */

static void
judge_lists(struct doctor_round *round, const char *ca_id, const struct crl_cache_health *health)
{
	const char *what_to_do =
		"The log says why lists are not made (crl_*): the signer, the database or the "
		"disk.";
	int64_t age_s = round->now_s - health->oldest_this_update_s;
	int64_t left_s = health->first_next_update_s - round->now_s;

	if (health->missing > 0)
		doctor_say(round->doctor, DOCTOR_ERROR, "crl_age", what_to_do,
			"%s: %zu lists are not published yet", ca_id, health->missing);
	else if (left_s <= 0)
		doctor_say(round->doctor, DOCTOR_ERROR, "crl_age", what_to_do,
			"%s: a list ran out %" PRId64 " s ago and is not served", ca_id, -left_s);
	else if (age_s > round->app->config.crl_refresh_s + CRL_LATE_S)
		doctor_say(round->doctor, DOCTOR_WARNING, "crl_age", what_to_do,
			"%s: a list is %" PRId64 " s old, and crl_refresh is %" PRId64 " s; the "
			"first runs out in %" PRId64 " s", ca_id, age_s,
			round->app->config.crl_refresh_s, left_s);
	else
		doctor_say(round->doctor, DOCTOR_OK, "crl_age", NULL,
			"%s: the oldest of %zu lists is %" PRId64 " s old; the first runs out in %"
			PRId64 " s", ca_id, health->lists, age_s, left_s);
}

static enum status
check_crl_size(struct doctor_round *round, struct db_tx *tx, struct err *err)
{
	const struct app *app = round->app;

	for (size_t i = 0; i < app->ca_count; i++) {
		struct doctor_crl crl = { .ca_id = app->cas[i].ca_id,
			.immediate_max_bytes = app->config.crl_full_immediate_max_bytes };
		struct crl_cache_health health;
		struct db_doctor_revoked sample;

		if (!app->cas[i].can_sign)
			continue;
		crl_cache_health(app->crls, app->cas[i].ca_id, &health);
		TRY(db_doctor_revoked(tx, app->cas[i].issuer_id, round->now_s,
			round->now_s - DOCTOR_CRL_DAYS * DAY_S,
			round->now_s + DOCTOR_CRL_DAYS * DAY_S, &sample, err));
		crl.entries = health.full_entries;
		crl.bytes = health.full_bytes;
		crl.looked = sample.looked;
		crl.recent = sample.recent;
		crl.ending = sample.ending;
		doctor_judge_crl(round->doctor, &crl);
	}
	return OK;
}

static void
check_lists(struct doctor_round *round)
{
	const struct app *app = round->app;
	char why[WHY_BYTES] = "";

	for (size_t i = 0; i < app->ca_count; i++) {
		struct crl_cache_health health;

		if (!app->cas[i].can_sign)
			continue;
		crl_cache_health(app->crls, app->cas[i].ca_id, &health);
		judge_lists(round, app->cas[i].ca_id, &health);
	}
	doctor_in_tx(round, "crl_size", check_crl_size);
	if (app->ocsp != NULL)
		ocsp_trouble(app->ocsp, why, sizeof(why));
	if (why[0] != '\0')
		doctor_say(round->doctor, DOCTOR_ERROR, "ocsp",
			"See the findings on signer and database, and the profile `ocsp`.", "%s",
			why);
	else
		doctor_say(round->doctor, DOCTOR_OK, "ocsp", NULL, "answers can be signed");
}

/* ---- this machine ---- */

static void
check_listeners(struct doctor_round *round)
{
	const struct app *app = round->app;
	int64_t files_s = app->tls_not_after_s;
	int64_t own_s = app->tls_own_not_after_s;

	if (app->tls_trouble)
		doctor_say(round->doctor, DOCTOR_WARNING, "listeners",
			"The log says why (tls_certificate_*): the profile `server`, the signer "
			"or the database.", "the listeners' own certificate cannot be renewed");
	if (files_s != 0)
		doctor_judge_end(round->doctor, "listeners", "the first of tls_certificates",
			files_s, round->now_s, LISTENER_FILE_WARN_S,
			"Have it renewed, put it where tls_certificates says, and send the server "
			"SIGHUP.");
	if (own_s != 0)
		doctor_judge_end(round->doctor, "listeners", "the listeners' own certificate",
			own_s, round->now_s, LISTENER_OWN_WARN_S,
			"It should have been renewed by itself: the log says why not "
			"(tls_certificate_*).");
	if (files_s == 0 && own_s == 0)
		doctor_say(round->doctor, DOCTOR_UNKNOWN, "listeners",
			"Look at the files of tls_certificates.",
			"no end could be read from any certificate");
}

static void
check_disk(struct doctor_round *round)
{
	const struct config *config = &round->app->config;

	doctor_check_disk(round->doctor, "disk", config->data_dir);
	if (config->audit_checkpoint_dir[0] != '\0')
		doctor_check_disk(round->doctor, "disk", config->audit_checkpoint_dir);
}

/* ---- the fleet ---- */

static enum status
check_cliffs(struct doctor_round *round, struct db_tx *tx, struct err *err)
{
	own(fleet_sample) fleet = mem_zalloc(sizeof(*fleet));
	struct doctor_week weeks[DB_DOCTOR_WEEKS_MAX];

	if (fleet == NULL)
		return err_memory(err);
	TRY(db_doctor_fleet(tx, round->now_s, fleet, err));
	for (size_t i = 0; i < fleet->week_count; i++)
		weeks[i] = (struct doctor_week){ fleet->weeks[i].week_s, fleet->weeks[i].count };
	doctor_judge_cliffs(round->doctor, weeks, fleet->week_count, round->now_s, fleet->percent);
	return OK;
}

static enum status
get_doctor(struct app *app, struct request *request, struct err *err)
{
	own_struct(doctor) doctor = { .findings = NULL };
	struct doctor_round round = { .app = app, .doctor = &doctor, .now_s = clock_wall_s(app->clock) };

	TRY(doctor_begin(&doctor, err));
	check_database(&round);
	doctor_in_tx(&round, "standby", check_server);
	if (round.database_away)
		doctor_say(&doctor, DOCTOR_UNKNOWN, "clock", "See the finding on the database first.",
			"could not be compared: the database does not answer");
	doctor_in_tx(&round, "migrations", check_migrations);
	doctor_judge_kernel_clock(&doctor);
	check_signer(&round);
	check_cas(&round);
	check_lists(&round);
	check_listeners(&round);
	check_disk(&round);
	doctor_check_iot(&round);
	doctor_in_tx(&round, "expiry_cliffs", check_cliffs);
	TRY(doctor_complete(&doctor, err));
	return request_reply_json(request, 200, json_pack("{s:s, s:o, s:O}", "status",
		doctor_severity_name(doctor.worst), "checked_at", render_time(round.now_s),
			"findings",
		doctor.findings), err);
}

const struct route DOCTOR_ROUTES[] = {
	{ .method = "GET", .path = "/v1/doctor", .handle = get_doctor, .roles = ROLE_ADMIN },
	{ .method = NULL },
};
