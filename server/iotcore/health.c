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
put_uptime(struct core_process *process, struct buf *out, struct err *err)
{
	return buf_format(out, err,
		"# HELP jitrca_uptime_seconds Since the process was started.\n"
		"# TYPE jitrca_uptime_seconds gauge\njitrca_uptime_seconds %" PRId64 "\n",
		(clock_mono_ms(process->core.clock) - process->started_ms) / 1000);
}

static enum status
get_metrics(struct app *app, struct request *request, struct err *err)
{
	own_struct(buf) out = { .limit_bytes = METRICS_MAX_BYTES };
	struct core_process *process = request_context(request);

	(void)app;
	TRY(put_uptime(process, &out, err));
	TRY(metrics_print_pool(&out, process->core.pool, err));
	TRY(metrics_print(&out, err));
	if (process->http != NULL)
		TRY(http_metrics(process->http, &out, err));
	return request_reply_bytes(request, 200, METRICS_CONTENT_TYPE, buf_view(&out), err);
}

#define EVERYWHERE (LISTENER_HTTP | LISTENER_HTTPS)

const struct route CORE_HEALTH_ROUTES[] = {
	ROUTES_HEALTH(healthz, readyz, get_metrics, EVERYWHERE),
	{ .method = NULL },
};
