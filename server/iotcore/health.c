#include <inttypes.h>

#include "db/issuer.h"
#include "server/http/http.h"
#include "server/iotcore/internal.h"
#include "server/metrics.h"

#define METRICS_MAX_BYTES (1024 * 1024)

static enum status
healthz(struct app *app, struct request *request, struct err *err)
{
	(void)app;
	return request_reply_json(request, 200, json_pack("{s:s}", "status", "ok"), err);
}

static enum status
readyz(struct app *app, struct request *request, struct err *err)
{
	struct core_process *process = request_context(request);

	(void)app;
	TRY(db_ping(process->core.pool, err));
	if (!atomic_load(&process->ready))
		return err_set(err, ERR_UNAVAILABLE, "not_ready", "the account is not set up yet");
	return request_reply_json(request, 200, json_pack("{s:s}", "status", "ready"), err);
}

static enum status
put_pool(struct core_process *process, struct buf *out, struct err *err)
{
	struct db_pool_stats stats;

	db_pool_stats(process->core.pool, &stats);
	return buf_format(out, err,
		"# HELP jitrca_uptime_seconds Since the process was started.\n"
		"# TYPE jitrca_uptime_seconds gauge\njitrca_uptime_seconds %" PRId64 "\n"
		"# HELP jitrca_db_pool_connections Connections to the database.\n"
		"# TYPE jitrca_db_pool_connections gauge\n"
		"jitrca_db_pool_connections{state=\"max\"} %u\n"
		"jitrca_db_pool_connections{state=\"open\"} %u\n"
		"jitrca_db_pool_connections{state=\"in_use\"} %u\n",
		(clock_mono_ms(process->core.clock) - process->started_ms) / 1000, stats.max,
		stats.open, stats.in_use);
}

static enum status
get_metrics(struct app *app, struct request *request, struct err *err)
{
	own_struct(buf) out = { .limit_bytes = METRICS_MAX_BYTES };
	struct core_process *process = request_context(request);

	(void)app;
	TRY(put_pool(process, &out, err));
	TRY(metrics_print(&out, err));
	if (process->http != NULL)
		TRY(http_metrics(process->http, &out, err));
	return request_reply_bytes(
		request, 200, "text/plain; version=0.0.4; charset=utf-8", buf_view(&out), err);
}

#define EVERYWHERE (LISTENER_HTTP | LISTENER_HTTPS)

const struct route CORE_HEALTH_ROUTES[] = {
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
