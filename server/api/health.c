#include "server/api/health.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/clock.h"
#include "db/issuer.h"
#include "server/api/api.h"
#include "server/app.h"
#include "server/http/http.h"
#include "server/issuance/issuance.h"
#include "server/metrics.h"
#include "server/protocol/crl.h"
#include "server/signer/link.h"

#define METRICS_MAX_BYTES (1024 * 1024)
#define WHY_BYTES 256

static enum status
healthz(struct app *app, struct request *request, struct err *err)
{
	(void)app;
	return request_reply_json(request, 200, json_pack("{s:s}", "status", "ok"), err);
}

/* ---- readiness: each check says "" or what is wrong ---- */

static void
check_started(struct app *app, char why[WHY_BYTES])
{
	if (app->issuance == NULL)
		(void)snprintf(why, WHY_BYTES, "not started yet: waits for database and signer");
	else if (app->stopping)
		(void)snprintf(why, WHY_BYTES, "is being stopped");
}

static void
check_database(struct app *app, char why[WHY_BYTES])
{
	struct err err;

	if (db_ping(app->pool, &err) != OK)
		(void)snprintf(why, WHY_BYTES, "%.200s", err.text);
	else if (app->issuance != NULL && app->instance_id == 0)
		(void)snprintf(why, WHY_BYTES, "the session that stands for this server is down");
}

static void
check_signer(struct app *app, char why[WHY_BYTES])
{
	if (app->signer_issue == NULL || !signer_link_up(app->signer_issue) ||
		!signer_link_up(app->signer_crl))
		(void)snprintf(why, WHY_BYTES, "is being restarted");
}

static void
check_crl(struct app *app, char why[WHY_BYTES])
{
	int64_t now_s = clock_wall_s(app->clock);

	for (size_t i = 0; app->crls != NULL && i < app->ca_count; i++) {
		struct crl_cache_health health;

		if (!app->cas[i].can_sign)
			continue;
		crl_cache_health(app->crls, app->cas[i].issuer_id, &health);
		if (health.missing > 0) {
			(void)snprintf(why, WHY_BYTES, "%s: %zu lists are not published yet",
				app->cas[i].ca_id, health.missing);
			return;
		}
		if (health.first_next_update_s <= now_s) {
			(void)snprintf(why, WHY_BYTES, "%s: a list ran out %" PRId64 " s ago",
				app->cas[i].ca_id, now_s - health.first_next_update_s);
			return;
		}
	}
}

static const struct {
	const char *name;
	void (*check)(struct app *app, char why[WHY_BYTES]);
} CHECKS[] = {
	{ "server", check_started },
	{ "database", check_database },
	{ "signer", check_signer },
	{ "crl", check_crl },
};

static enum status
readyz(struct app *app, struct request *request, struct err *err)
{
	own(json_t) checks = json_object();
	char all[ERR_TEXT_BYTES] = "";
	size_t len = 0;

	for (size_t i = 0; i < COUNT_OF(CHECKS); i++) {
		char why[WHY_BYTES] = "";

		CHECKS[i].check(app, why);
		TRY(api_set(checks, CHECKS[i].name, json_string(why[0] == '\0' ? "ok" : why), err));
		if (why[0] != '\0' && len < sizeof(all))
			len += (size_t)snprintf(all + len, sizeof(all) - len, "%s%s: %s",
				len > 0 ? "; " : "", CHECKS[i].name, why);
	}
	if (all[0] != '\0') {
		(void)err_set(err, ERR_UNAVAILABLE, "not_ready", "%s", all);
		err->retry_after_s = 1;
		return ERR_UNAVAILABLE;
	}
	return request_reply_json(
		request, 200, json_pack("{s:s, s:O}", "status", "ready", "checks", checks), err);
}

/* ---- metrics ---- */

static enum status
gauge(struct buf *out, const char *name, const char *help, struct err *err)
{
	return buf_format(
		out, err, "# HELP jitrca_%s %s\n# TYPE jitrca_%s gauge\n", name, help, name);
}

static enum status
put_process(struct app *app, struct buf *out, struct err *err)
{
	TRY(gauge(out, "build_info", "The program's version.", err));
	TRY(buf_format(out, err, "jitrca_build_info{version=\"%s\"} 1\n", JITRCA_VERSION));
	TRY(gauge(out, "uptime_seconds", "Since the frontend was started.", err));
	TRY(buf_format(out, err, "jitrca_uptime_seconds %" PRId64 "\n",
		(clock_mono_ms(app->clock) - app->started_ms) / 1000));
	TRY(gauge(out, "signer_up", "1 while the signer process can be reached.", err));
	return buf_format(out, err, "jitrca_signer_up %d\n",
		app->signer_issue != NULL && signer_link_up(app->signer_issue));
}

static enum status
put_pool(struct app *app, struct buf *out, struct err *err)
{
	struct db_pool_stats stats;

	db_pool_stats(app->pool, &stats);
	TRY(gauge(out, "db_pool_connections", "Connections to the database.", err));
	TRY(buf_format(out, err, "jitrca_db_pool_connections{state=\"max\"} %u\n", stats.max));
	TRY(buf_format(out, err, "jitrca_db_pool_connections{state=\"open\"} %u\n", stats.open));
	TRY(buf_format(
		out, err, "jitrca_db_pool_connections{state=\"in_use\"} %u\n", stats.in_use));
	TRY(buf_text(out,
		"# HELP jitrca_db_pool_events_total Waits for a connection, reconnects, failures.\n"
		"# TYPE jitrca_db_pool_events_total counter\n",
		err));
	TRY(buf_format(out, err, "jitrca_db_pool_events_total{event=\"wait\"} %" PRIu64 "\n",
		stats.waits));
	TRY(buf_format(out, err, "jitrca_db_pool_events_total{event=\"reconnect\"} %" PRIu64 "\n",
		stats.reconnects));
	TRY(buf_format(out, err, "jitrca_db_pool_events_total{event=\"error\"} %" PRIu64 "\n",
		stats.errors));
	TRY(gauge(out, "db_session_up", "1 while the session that stands for this server is up.",
		err));
	return buf_format(out, err, "jitrca_db_session_up %d\n", app->instance_id != 0);
}

static enum status
put_crl(const struct app *app, const struct app_ca *ca, struct buf *out, struct err *err)
{
	int64_t now_s = clock_wall_s(app->clock);
	struct crl_cache_health health;

	crl_cache_health(app->crls, ca->issuer_id, &health);
	TRY(buf_format(out, err, "jitrca_crl_missing{ca=\"%s\"} %zu\n", ca->ca_id, health.missing));
	if (health.lists == 0)
		return OK;
	TRY(buf_format(out, err, "jitrca_crl_oldest_age_seconds{ca=\"%s\"} %" PRId64 "\n",
		ca->ca_id, now_s - health.oldest_this_update_s));
	TRY(buf_format(out, err, "jitrca_crl_expires_in_seconds{ca=\"%s\"} %" PRId64 "\n",
		ca->ca_id, health.first_next_update_s - now_s));
	TRY(buf_format(out, err, "jitrca_crl_full_number{ca=\"%s\"} %" PRId64 "\n", ca->ca_id,
		health.full_number));
	return buf_format(out, err, "jitrca_crl_full_entries{ca=\"%s\"} %" PRId64 "\n", ca->ca_id,
		health.full_entries);
}

static enum status
put_cas(const struct app *app, struct buf *out, struct err *err)
{
	static const char *const GAUGES[][2] = {
		{ "ca_expires_in_days", "Days until the CA's certificate ends." },
		{ "crl_missing", "Lists of the CA that were never published." },
		{ "crl_oldest_age_seconds", "Since thisUpdate of the oldest list." },
		{ "crl_expires_in_seconds", "Until the first nextUpdate." },
		{ "crl_full_number", "cRLNumber of the full list." },
		{ "crl_full_entries", "Entries of the full list." },
	};

	for (size_t i = 0; i < COUNT_OF(GAUGES); i++)
		TRY(gauge(out, GAUGES[i][0], GAUGES[i][1], err));
	for (size_t i = 0; i < app->ca_count; i++) {
		const struct app_ca *ca = &app->cas[i];

		TRY(buf_format(out, err, "jitrca_ca_expires_in_days{ca=\"%s\"} %" PRId64 "\n",
			ca->ca_id, (ca->not_after_s - clock_wall_s(app->clock)) / 86400));
		if (ca->can_sign && app->crls != NULL)
			TRY(put_crl(app, ca, out, err));
	}
	return OK;
}

static enum status
get_metrics(struct app *app, struct request *request, struct err *err)
{
	own_struct(buf) out = { .limit_bytes = METRICS_MAX_BYTES };

	TRY(put_process(app, &out, err));
	TRY(put_pool(app, &out, err));
	TRY(put_cas(app, &out, err));
	TRY(metrics_print(&out, err));
	if (app->http != NULL)
		TRY(http_metrics(app->http, &out, err));
	if (app->issuance != NULL)
		TRY(issuance_metrics(app->issuance, &out, err));
	return request_reply_bytes(
		request, 200, "text/plain; version=0.0.4; charset=utf-8", buf_view(&out), err);
}

#define EVERYWHERE (LISTENER_HTTP | LISTENER_HTTPS | LISTENER_STATIONS)

const struct route HEALTH_ROUTES[] = {
	{ .method = "GET",
		.path = "/healthz",
		.handle = healthz,
		.roles = ROLE_ANYONE,
		.listeners = EVERYWHERE,
		.inline_ok = true },
	{ .method = "GET",
		.path = "/readyz",
		.handle = readyz,
		.roles = ROLE_ANYONE,
		.listeners = EVERYWHERE },
	{ .method = "GET",
		.path = "/metrics",
		.handle = get_metrics,
		.roles = ROLE_ANYONE,
		.listeners = EVERYWHERE },
	{ .method = NULL },
};
