#include "server/iotcore/main.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/log.h"
#include "ca/secret.h"
#include "db/iotcore_account.h"
#include "db/iotcore_event.h"
#include "db/migrate.h"
#include "server/app.h"
#include "server/cli/local.h"
#include "server/http/http.h"
#include "server/iotcore/internal.h"
#include "server/iotcore/rule_worker.h"
#include "server/iotcore/watch.h"
#include "server/listen.h"
#include "server/process.h"
#include "server/tls_identity.h"

#define RETRY_MS 200
#define TICK_MS 60000
/* A broker that was away for longer reads the tables whole. */
#define CHANGES_KEPT_S 7200
/* Registry events that no broker comes for. */
#define EVENTS_KEPT_S 86400
#define TRIM_AT_ONCE 10000

struct iotcore {
	struct config config; /* as the HTTP room wants it: one listener */
	struct core_process process;
	struct app tls_app; /* clock and http, for tls_identity_apply */
	struct tls_identity *tls;
	struct dispatch *dispatch;
	struct router *router;
	struct rule_worker *rules;
	struct core_watch *watch;
	int signals;
	bool stopping;
};

/* ---- start ---- */

static enum status
catch_signals(struct iotcore *it, struct err *err)
{
	sigset_t set;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGTERM);
	(void)sigaddset(&set, SIGINT);
	(void)signal(SIGPIPE, SIG_IGN);
	if (pthread_sigmask(SIG_BLOCK, &set, NULL) != 0)
		return err_set(err, ERR_INTERNAL, "internal", "sigmask");
	it->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (it->signals < 0)
		return err_set(err, ERR_INTERNAL, "internal", "signalfd: %s", strerror(errno));
	return OK;
}

/* True: a signal to stop came, before or within wait_ms. */
static bool
wait_stop(struct iotcore *it, int wait_ms)
{
	struct pollfd polled = { .fd = it->signals, .events = POLLIN };
	struct signalfd_siginfo info;

	if (!it->stopping && poll(&polled, 1, wait_ms) > 0)
		while (read(it->signals, &info, sizeof(info)) == (ssize_t)sizeof(info))
			it->stopping = true;
	return it->stopping;
}

static void
set_core(struct iotcore *it)
{
	const struct config *config = &it->config;
	struct core *core = &it->process.core;

	(void)snprintf(core->account, sizeof(core->account), "%s", config->iotcore_account);
	(void)snprintf(core->region, sizeof(core->region), "%s", config->iotcore_region);
	/* Host only, as AWS answers: clients know the port. */
	(void)snprintf(core->endpoint, sizeof(core->endpoint), "%.*s",
		(int)strcspn(config->iotcore_endpoint, ":"), config->iotcore_endpoint);
	core->loopback_http_destinations =
		strcmp(config->iotcore_rules_insecure_http, "loopback") == 0;
	core->clock = &CLOCK_SYSTEM;
	core_writes_begin(&it->process.writes);
	it->process.started_ms = clock_mono_ms(&CLOCK_SYSTEM);
	it->tls_app.clock = &CLOCK_SYSTEM;
}

/* One listener of the server's room is used: its plain one, or that with TLS. */
static void
set_listener(struct config *config)
{
	const struct config_listener off = { .port = 0 };
	bool tls = config->iotcore_tls_certificates[0] != '\0';

	config->https = tls ? config->iotcore : off;
	config->http = tls ? off : config->iotcore;
	config->stations = off;
	(void)snprintf(config->tls_certificates, sizeof(config->tls_certificates), "%s",
		config->iotcore_tls_certificates);
	/* Handlers wait for the database: as many as it takes at once. */
	if (config->worker_threads == 0)
		config->worker_threads = config->database_connections;
}

static enum status
start_http(struct iotcore *it, struct err *err)
{
	const struct route *const tables[] = { dispatch_routes(it->dispatch), CORE_HEALTH_ROUTES,
		NULL };
	struct http_setup setup = { .config = &it->config,
		.stations_fd = -1,
		.context = &it->process,
		.render = core_render };
	struct listen_set listeners;
	int64_t ignored_ms;

	TRY(router_new(&it->router, tables, err));
	if (listen_bind(&listeners, &it->config, NULL, err) != OK)
		return err_wrap(err, "iotcore_listen");
	setup.router = it->router;
	setup.https_fd = listeners.fds[LISTEN_HTTPS];
	setup.http_fd = listeners.fds[LISTEN_HTTP];
	TRY(http_start(&it->process.http, &setup, err));
	it->tls_app.http = it->process.http;
	return it->config.tls_certificates[0] != '\0'
	               ? tls_identity_apply(it->tls, &it->tls_app, &ignored_ms, err)
	               : OK;
}

static enum status
start(struct iotcore *it, struct err *err)
{
	const struct config *config = &it->config;

	TRY(process_harden(err));
	TRY(ca_init(err));
	if (config->iotcore.address[0] == '\0')
		return err_set(err, ERR_ARGUMENT, "config_value",
			"iotcore_listen: an address wanted, off found");
	if (config->iotcore_credentials_file[0] == '\0')
		return err_set(err, ERR_ARGUMENT, "config_value",
			"iotcore_credentials_file: a file of ACCESS_KEY SECRET_KEY lines wanted");
	TRY(core_users_read(&it->process.users, config->iotcore_credentials_file, err));
	TRY(core_quotas_read(&it->process.quotas, config->iotcore_quotas_file, err));
	TRY(tls_identity_new(&it->tls, config, err));
	TRY(catch_signals(it, err));
	TRY(db_pool_new(&it->process.core.pool, config->database_url,
		(unsigned)config->database_connections, err));
	TRY(core_watch_start(&it->watch, it->process.core.pool, config->database_url, err));
	TRY(dispatch_new(&it->dispatch, IOTCORE_OPS, err));
	return start_http(it, err);
}

/* ---- the database ---- */

static enum status
set_up_account(struct iotcore *it, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	const struct core *core = &it->process.core;

	TRY(db_migrate_check(it->config.database_url, DB_MIGRATIONS, DB_MIGRATION_COUNT, err));
	TRY(db_pool_check(core->pool, err));
	TRY(db_tx_begin(&tx, core->pool, err));
	TRY(db_iotcore_account_ensure(&tx, core->account, core->region, err));
	return db_tx_commit(&tx, err);
}

/* Until the database is there; calls are told meanwhile that the service is not available. */
static enum status
insist_on_account(struct iotcore *it, struct err *err)
{
	bool said = false;
	enum status status;

	while ((status = set_up_account(it, err)) == ERR_UNAVAILABLE) {
		if (!said)
			log_error(LOG_WARN, "database_away", NULL, err);
		said = true;
		if (wait_stop(it, RETRY_MS))
			return OK;
	}
	if (status == OK)
		atomic_store(&it->process.ready, true);
	return status;
}

static enum status
trim_once(struct iotcore *it, int64_t *gone, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };
	int64_t events;

	TRY(db_tx_begin(&tx, it->process.core.pool, err));
	TRY(db_iotcore_change_trim(&tx, CHANGES_KEPT_S, TRIM_AT_ONCE, gone, err));
	TRY(db_registry_event_trim(&tx, EVENTS_KEPT_S, TRIM_AT_ONCE, &events, err));
	if (events > *gone)
		*gone = events;
	return db_tx_commit(&tx, err);
}

/* Forgets what every broker has read long ago. */
static void
tick(struct iotcore *it)
{
	int64_t gone = TRIM_AT_ONCE;
	struct err err;

	while (gone == TRIM_AT_ONCE && !wait_stop(it, 0))
		if (trim_once(it, &gone, &err) != OK) {
			log_error(LOG_WARN, "iotcore_trim_failed", NULL, &err);
			return;
		}
}

/* ---- end ---- */

static void
stop(struct iotcore *it)
{
	if (!http_stop(it->process.http)) {
		log_event(LOG_WARN, "stopped_with_requests_in_flight", NULL);
		_exit(0);
	}
	rule_worker_stop(it->rules);
	core_watch_stop(it->watch);
	router_free(it->router);
	dispatch_free(it->dispatch);
	tls_identity_free(it->tls);
	db_pool_free(it->process.core.pool);
	core_quotas_free(it->process.quotas);
	core_users_free(it->process.users);
	(void)close(it->signals);
}

static int
run(struct iotcore *it)
{
	struct err err;
	enum status status = start(it, &err);

	if (status == OK) {
		log_event(LOG_INFO, "iotcore_listening", NULL,
			LOG_STR("address", it->config.iotcore.address),
			LOG_INT("port", it->config.iotcore.port),
			LOG_STR("account", it->process.core.account),
			LOG_STR("region", it->process.core.region));
		status = insist_on_account(it, &err);
	}
	if (status != OK) {
		log_error(LOG_ERROR, "start_failed", NULL, &err);
		/* Threads may run that use what is not complete: the process ends as a whole. */
		_exit(status == ERR_UNAVAILABLE || status == ERR_INTERNAL ? 1
									  : PROCESS_EXIT_CONFIG);
	}
	if (!it->stopping &&
		rule_worker_start(&it->rules, &it->process.core, it->config.database_url,
			it->config.iotcore_rules_ca_file, &err) != OK) {
		log_error(LOG_ERROR, "start_failed", NULL, &err);
		_exit(1);
	}
	while (!it->stopping) {
		tick(it);
		(void)wait_stop(it, TICK_MS);
	}
	stop(it);
	return 0;
}

static int
print_operations(void)
{
	json_t *operations = dispatch_describe(IOTCORE_OPS);
	bool printed = operations != NULL && json_dumpf(operations, stdout, JSON_INDENT(1)) == 0;

	json_decref(operations);
	return printed && printf("\n") > 0 ? 0 : EXIT_REFUSED;
}

int
local_iotcore(int argc, char **argv)
{
	static struct iotcore it = { .signals = -1 };
	const char *config_path = NULL;
	bool operations = false;
	const struct local_option options[] = { { "config", "FILE", "the configuration",
							&config_path, NULL },
		{ "operations", NULL, "print what is served, as JSON, and end", NULL, &operations },
		{ NULL, NULL, NULL, NULL, NULL } };
	int exit_status;
	struct err err;

	if (!local_options(argc, argv, "jitrca iotcore [OPTION]...",
		    "Runs the local IoT Core's control plane: AWS IoT's API over PostgreSQL, for\n"
		    "`aws iot --endpoint-url` (docs/local-iot-core.md).",
		    options, &exit_status))
		return exit_status;
	if (operations)
		return print_operations();
	if (config_load(&it.config, local_config_path(config_path), &err) != OK)
		return local_failed("iotcore", &err);
	set_listener(&it.config);
	set_core(&it);
	log_setup(STDERR_FILENO, it.config.log_level, "iotcore");
	request_json_setup();
	return run(&it);
}
