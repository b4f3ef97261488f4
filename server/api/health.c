#include "server/api/health.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/clock.h"
#include "db/issuer.h"
#include "server/api/api.h"
#include "server/app.h"
#include "server/http/http.h"
#include "server/iot/iot_metrics.h"
#include "server/iot/room.h"
#include "server/issuance/issuance.h"
#include "server/metrics.h"
#include "server/notify/notify.h"
#include "server/protocol/crl.h"
#include "server/protocol/ocsp.h"
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

	/* A database that hangs would keep us from saying so. */
	if (app->issuance != NULL && app->instance_id != 0 && freshness_stalled(app))
		(void)snprintf(why, WHY_BYTES, "does not answer");
	else if (db_ping(app->pool, &err) != OK)
		(void)snprintf(why, WHY_BYTES, "%.200s", err.text);
	else if (app->issuance != NULL && app->instance_id == 0)
		(void)snprintf(why, WHY_BYTES, "the session that stands for this server is down");
}

static void
check_signer(struct app *app, char why[WHY_BYTES])
{
	if (app->signer_issue == NULL || !signer_link_up(app->signer_issue) ||
		!signer_link_up(app->signer_crl) || !signer_link_up(app->signer_full) ||
		!signer_link_up(app->signer_ocsp))
		(void)snprintf(why, WHY_BYTES, "is being restarted");
	else if (app->issuing_missing)
		(void)snprintf(why, WHY_BYTES, "has no key of the CA that issues by now");
}

static void
check_crl(struct app *app, char why[WHY_BYTES])
{
	int64_t now_s = clock_wall_s(app->clock);

	for (size_t i = 0; app->issuance != NULL && i < app->ca_count; i++) {
		struct crl_cache_health health;

		if (!app->cas[i].can_sign)
			continue;
		crl_cache_health(app->crls, app->cas[i].ca_id, &health);
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

/* A responder is made when somebody asks. */
static void
check_ocsp(struct app *app, char why[WHY_BYTES])
{
	if (app->issuance != NULL && app->ocsp != NULL)
		ocsp_trouble(app->ocsp, why, WHY_BYTES);
}

static const struct {
	const char *name;
	void (*check)(struct app *app, char why[WHY_BYTES]);
} CHECKS[] = {
	{ "server", check_started },
	{ "database", check_database },
	{ "signer", check_signer },
	{ "crl", check_crl },
	{ "ocsp", check_ocsp },
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
	/* IoT Core being away keeps nobody from asking us: it is told, and we are ready all the same. */
	if (app->issuance != NULL && app->iot != NULL &&
	    (app->iot->site_count > 0 || iot_room_elsewhere(app->iot))) {
		char why[WHY_BYTES] = "";

		iot_room_trouble(app->iot, why, sizeof(why));
		TRY(api_set(checks, "iot", json_string(why[0] == '\0' ? "ok" : why), err));
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
	TRY(metrics_print_pool(out, app->pool, err));
	TRY(gauge(out, "db_session_up", "1 while the session that stands for this server is up.",
		err));
	return buf_format(out, err, "jitrca_db_session_up %d\n", app->instance_id != 0);
}

/* What is known of one CA at a time; one line of the text format is made of each getter. */
struct ca_state {
	const struct app_ca *ca;
	struct crl_cache_health crl;
	int64_t now_s;
};

static int64_t
ca_days(const struct ca_state *state)
{
	return (state->ca->not_after_s - state->now_s) / 86400;
}

static int64_t
crl_missing(const struct ca_state *state)
{
	return (int64_t)state->crl.missing;
}

static int64_t
crl_age(const struct ca_state *state)
{
	return state->now_s - state->crl.oldest_this_update_s;
}

static int64_t
crl_left(const struct ca_state *state)
{
	return state->crl.first_next_update_s - state->now_s;
}

static int64_t
crl_full_number(const struct ca_state *state)
{
	return state->crl.full_number;
}

static int64_t
crl_full_entries(const struct ca_state *state)
{
	return state->crl.full_entries;
}

enum needs { NEEDS_CA, NEEDS_KEY, NEEDS_LISTS };

static const struct {
	const char *name, *help;
	int64_t (*value)(const struct ca_state *state);
	enum needs needs; /* a CA that publishes; one whose lists are there */
} CA_GAUGES[] = {
	{ "ca_expires_in_days", "Days until the CA's certificate ends.", ca_days, NEEDS_CA },
	{ "crl_missing", "Lists of the CA that were never published.", crl_missing, NEEDS_KEY },
	{ "crl_oldest_age_seconds", "Since thisUpdate of the oldest list.", crl_age, NEEDS_LISTS },
	{ "crl_expires_in_seconds", "Until the first nextUpdate.", crl_left, NEEDS_LISTS },
	{ "crl_full_number", "cRLNumber of the full list.", crl_full_number, NEEDS_LISTS },
	{ "crl_full_entries", "Entries of the full list.", crl_full_entries, NEEDS_LISTS },
};

static enum needs
state_of(struct app *app, const struct app_ca *ca, struct ca_state *out)
{
	*out = (struct ca_state){ .ca = ca, .now_s = clock_wall_s(app->clock) };
	if (!ca->can_sign || app->crls == NULL)
		return NEEDS_CA;
	crl_cache_health(app->crls, ca->ca_id, &out->crl);
	return out->crl.lists == 0 ? NEEDS_KEY : NEEDS_LISTS;
}

/* By gauge, then by CA: the lines of one name must stand together. */
static enum status
put_cas(struct app *app, struct buf *out, struct err *err)
{
	for (size_t i = 0; i < COUNT_OF(CA_GAUGES); i++) {
		TRY(gauge(out, CA_GAUGES[i].name, CA_GAUGES[i].help, err));
		for (size_t k = 0; k < app->ca_count; k++) {
			struct ca_state state;

			if (state_of(app, &app->cas[k], &state) >= CA_GAUGES[i].needs)
				TRY(buf_format(out, err, "jitrca_%s{ca=\"%s\"} %" PRId64 "\n",
					CA_GAUGES[i].name, state.ca->ca_id,
					CA_GAUGES[i].value(&state)));
		}
	}
	return OK;
}

static enum status
get_metrics(struct app *app, struct request *request, struct err *err)
{
	own_struct(buf) out = { .limit_bytes = METRICS_MAX_BYTES };

	TRY(put_process(app, &out, err));
	TRY(put_pool(app, &out, err));
	/* While the server starts, they are being read. */
	if (app->issuance != NULL)
		TRY(put_cas(app, &out, err));
	TRY(metrics_print(&out, err));
	if (app->issuance != NULL)
		TRY(iot_metrics_print(app->iot, &out, err));
	if (app->issuance != NULL)
		TRY(notify_print_metrics(app, &out, err));
	if (app->issuance != NULL && app->ocsp != NULL)
		TRY(ocsp_metrics_print(app->ocsp, &out, err));
	if (app->http != NULL)
		TRY(http_metrics(app->http, &out, err));
	return request_reply_bytes(request, 200, METRICS_CONTENT_TYPE, buf_view(&out), err);
}

#define EVERYWHERE (LISTENER_HTTP | LISTENER_HTTPS | LISTENER_STATIONS)

const struct route HEALTH_ROUTES[] = {
	ROUTES_HEALTH(healthz, readyz, get_metrics, EVERYWHERE),
	{ .method = NULL },
};
