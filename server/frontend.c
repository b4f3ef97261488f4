#include "server/frontend.h"

#include <errno.h>
#include <malloc.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/log.h"
#include "ca/cert.h"
#include "ca/secret.h"
#include "db/issuer.h"
#include "db/migrate.h"
#include "db/outbox.h"
#include "server/api/receipt_follow.h"
#include "server/app.h"
#include "server/auth.h"
#include "server/cas.h"
#include "server/http/http.h"
#include "server/http/request.h"
#include "server/iot/workers.h"
#include "server/issuance/issuance.h"
#include "server/jobs/jobs.h"
#include "server/listen.h"
#include "server/metrics.h"
#include "server/notify/notify.h"
#include "server/process.h"
#include "server/protocol/crl.h"
#include "server/protocol/ocsp.h"
#include "server/routes.h"
#include "server/signer/link.h"
#include "server/succession.h"
#include "server/tls_identity.h"

/* How long a start waits between two tries at a database or signer that is away. */
#define RETRY_MS 200
/* What is only a step behind (the signer, the session) is looked for often. */
#define BRIEF_MS 5
#define SESSION_RETRY_MS 500
#define FIRST_LISTS_MS 10000
/* So many lanes of the audit log: enough that servers seldom meet, few enough to verify quickly. */
#define AUDIT_LANES 64
/* Two arenas: more would keep what threads freed, and few threads allocate at once. */
#define MALLOC_ARENAS 2
#define MALLOC_TRIM_BYTES (256 * 1024)
/*
 * Once it serves, an arena keeps as much for the next batch: memory that goes back to the system each
 * time comes back as page faults, three for each certificate. The gate gives back what a crowd leaves.
 */
#define MALLOC_KEPT_BYTES (16 * 1024 * 1024)

struct frontend {
	struct app app;
	int listeners[LISTEN_COUNT];
	int signals;
	int stop_event; /* readable from the moment of stopping: ends waits of the threads */
	int tls_event;  /* the same for the TLS certificates' thread, which goes first */
	struct router *router, *starting_router;
	struct http
		*waiting_room; /* health and CRLs while the rest waits; owns copies of the sockets */
	struct tls_identity *tls;
	pthread_t session_thread, tls_thread;
	bool session_started, tls_started;
	_Atomic bool tls_stopping;
	bool stopping;
};

/* ---- the supervisor and the signals: all in the main thread ---- */

static enum status
take_channels(struct frontend *it)
{
	int fds[PROCESS_FDS_MAX];
	size_t count = 0;
	size_t len = 0;
	uint8_t word = 0;
	struct err err;

	if (process_receive(PROCESS_CONTROL_FD, &word, sizeof(word), &len, fds, &count, &err) !=
			OK ||
		len == 0) {
		/* Without a supervisor nobody would restart us or hand us a signer. */
		log_event(LOG_ERROR, "supervisor_gone", NULL);
		_exit(1);
	}
	if (word == PROCESS_CHANNELS && count == SIGNER_CHANNELS) {
		metric_add(METRIC_SIGNER_STARTS, 1);
		signer_link_connect(it->app.signer_issue, fds[0]);
		signer_link_connect(it->app.signer_crl, fds[1]);
		signer_link_connect(it->app.signer_full, fds[2]);
		signer_link_connect(it->app.signer_ocsp, fds[3]);
		return OK;
	}
	for (size_t i = 0; i < count; i++)
		(void)close(fds[i]);
	return OK;
}

/* Attends to supervisor and signals for up to wait_ms (-1: until something happens). */
static void
attend(struct frontend *it, int wait_ms)
{
	struct pollfd polled[] = { { .fd = it->signals, .events = POLLIN },
		{ .fd = PROCESS_CONTROL_FD, .events = POLLIN } };
	struct signalfd_siginfo info;

	if (poll(polled, COUNT_OF(polled), wait_ms) <= 0)
		return;
	while (read(it->signals, &info, sizeof(info)) == (ssize_t)sizeof(info))
		it->stopping = true;
	if (polled[1].revents != 0)
		(void)take_channels(it);
}

static enum status
stopped(struct err *err)
{
	return err_set(err, ERR_UNAVAILABLE, "server_stopping", "stopped before it was ready");
}

static enum status
catch_signals(struct frontend *it, struct err *err)
{
	sigset_t set;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGTERM);
	(void)sigaddset(&set, SIGINT);
	(void)sigaddset(&set, SIGHUP); /* a terminal's; the supervisor's to act on */
	(void)signal(SIGPIPE, SIG_IGN);
	if (pthread_sigmask(SIG_BLOCK, &set, NULL) != 0)
		return err_set(err, ERR_INTERNAL, "internal", "sigmask");
	/* Ctrl-C reaches the whole group: the supervisor decides, and says SIGTERM. */
	(void)sigdelset(&set, SIGINT);
	(void)sigdelset(&set, SIGHUP);
	it->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	it->stop_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	it->tls_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (it->signals < 0 || it->stop_event < 0 || it->tls_event < 0)
		return err_set(err, ERR_INTERNAL, "internal", "signalfd: %s", strerror(errno));
	return OK;
}

/* ---- the hand-over ---- */

static enum status
take_handover(struct frontend *it, struct err *err)
{
	struct frontend_handover handover;
	int fds[PROCESS_FDS_MAX];
	size_t count = 0;
	size_t len = 0;
	size_t next = 1;
	enum status status;

	TRY(process_receive(
		PROCESS_CONTROL_FD, &handover, sizeof(handover), &len, fds, &count, err));
	if (len != sizeof(handover) || count == 0)
		return err_set(err, ERR_INTERNAL, "internal", "started by `jitrca serve` only");
	it->app.config = handover.config;
	status = process_profiles_read(
		fds[0], it->app.profiles, COUNT_OF(it->app.profiles), &it->app.profile_count, err);
	(void)close(fds[0]);
	TRY(status);
	for (unsigned i = 0; i < LISTEN_COUNT; i++)
		it->listeners[i] =
			(handover.listeners & 1U << i) != 0 && next < count ? fds[next++] : -1;
	return OK;
}

/* ---- the waiting room: health and CRLs while database or signer are away ---- */

static void
open_waiting_room(struct frontend *it)
{
	struct http_setup setup = { .config = &it->app.config,
		.app = &it->app,
		.https_fd = -1,
		.stations_fd = -1,
		.http_fd = -1 };
	struct err err;

	if (it->waiting_room != NULL || it->listeners[LISTEN_HTTP] < 0)
		return;
	if (it->starting_router == NULL &&
		router_new(&it->starting_router, ROUTES_STARTING, &err) != OK) {
		log_error(LOG_ERROR, "waiting_room_failed", NULL, &err);
		return;
	}
	setup.router = it->starting_router;
	setup.http_fd = dup(it->listeners[LISTEN_HTTP]);
	if (http_start(&it->waiting_room, &setup, &err) != OK) {
		it->waiting_room = NULL;
		log_error(LOG_ERROR, "waiting_room_failed", NULL, &err);
	}
}

static void
close_waiting_room(struct frontend *it)
{
	if (http_stop(it->waiting_room))
		router_free(it->starting_router);
	it->waiting_room = NULL;
	it->starting_router = NULL;
}

/* Repeats step until it does not answer ERR_UNAVAILABLE; says once why it waits. */
static enum status
insist(struct frontend *it, const char *event,
	enum status (*step)(struct frontend *it, struct err *err), struct err *err)
{
	bool said = false;

	for (;;) {
		enum status status = step(it, err);

		if (status != ERR_UNAVAILABLE)
			return status;
		if (!said && !view_equal_text(view_text(err->code), "signer_away"))
			log_error(LOG_WARN, event, NULL, err);
		said |= !view_equal_text(view_text(err->code), "signer_away");
		if (said)
			open_waiting_room(it);
		attend(it, said ? RETRY_MS : BRIEF_MS);
		if (it->stopping)
			return stopped(err);
	}
}

/* ---- the database ---- */

static enum status
check_database(struct frontend *it, struct err *err)
{
	enum status status;

	TRY(db_migrate_check(
		it->app.config.database_url, DB_MIGRATIONS, DB_MIGRATION_COUNT, err));
	status = db_pool_check(it->app.pool, err);
	if (status == ERR_INTERNAL) {
		struct err why = *err;

		return err_set(err, ERR_CONFLICT, "schema_unfit",
			"the database's schema is not the one that this program was built for: %.200s",
			why.text);
	}
	return status;
}

/* ---- the certificate authorities, as the signer has them ---- */

static bool
knows(const struct ca_signer_info *info, const uint8_t hash[32])
{
	for (size_t i = 0; i < info->profile_count; i++)
		if (memcmp(info->profile_hashes[i], hash, 32) == 0)
			return true;
	return false;
}

static enum status
check_profiles(const struct app *app, const struct ca_signer_info *info, struct err *err)
{
	for (size_t i = 0; i < app->profile_count; i++)
		if (!knows(info, app->profiles[i].hash))
			return err_set(err, ERR_CONFLICT, "profile_unknown",
				"the signer does not have profile '%s' as it is here",
				app->profiles[i].name);
	return OK;
}

static enum status
ask_signer(struct app *app, struct ca_signer_info *info, struct err *err)
{
	struct ca_signer *signer;
	uint64_t generation;
	enum status status;

	TRY(signer_link_acquire(app->signer_issue, &signer, &generation, err));
	status = ca_signer_info(signer, info, err);
	signer_link_release(app->signer_issue, status != OK);
	return status;
}

static enum status
trust_ca(struct app *app, const struct ca_signer_ca *ca, struct err *err)
{
	struct view chain[COUNT_OF(ca->chain)];

	if (ca->is_root)
		return OK;
	for (size_t i = 0; i < ca->chain_count; i++)
		chain[i] = view_of(&ca->chain[i]);
	return ca_trust_add(
		app->trust, ca->ca_id, view_of(&ca->certificate), chain, ca->chain_count, err);
}

static void
forget_cas(struct app *app)
{
	for (size_t i = 0; i < COUNT_OF(app->cas); i++) {
		struct app_ca *ca = &app->cas[i];

		bytes_free(&ca->certificate);
		bytes_free(&ca->certificate_pem);
		bytes_free(&ca->chain_pem);
		bytes_free(&ca->root_pem);
		bytes_free(&ca->subject_name);
	}
	app->ca_count = 0;
	ca_trust_free(app->trust);
	app->trust = NULL;
}

static enum status
register_cas(struct app *app, const struct ca_signer_info *info, struct err *err)
{
	own_struct(db_tx) tx = { NULL, NULL };

	TRY(ca_trust_new(&app->trust, err));
	TRY(db_tx_begin(&tx, app->pool, err));
	for (size_t i = 0; i < info->ca_count && i < COUNT_OF(app->cas); i++) {
		const struct ca_signer_ca *ca = &info->cas[i];
		struct cas_source source = { .ca_id = ca->ca_id,
			.is_root = ca->is_root,
			/* A root's key signs in ceremonies only: it has no list of its own here. */
			.can_sign = ca->can_sign && !ca->is_root,
			.certificate = view_of(&ca->certificate),
			.chain = ca->chain,
			.chain_count = ca->chain_count };

		TRY(cas_register(&tx, &source, &app->cas[i], err));
		app->ca_count++;
		TRY(trust_ca(app, ca, err));
	}
	return db_tx_commit(&tx, err);
}

static enum status
load_cas(struct frontend *it, struct err *err)
{
	own_struct(ca_signer_info) info = { .ca_count = 0 };
	struct app *app = &it->app;

	TRY(ask_signer(app, &info, err));
	TRY(check_profiles(app, &info, err));
	app->has_checkpoint_key = info.has_checkpoint_key;
	memcpy(app->checkpoint_key, info.checkpoint_key, sizeof(app->checkpoint_key));
	forget_cas(app);
	TRY(register_cas(app, &info, err));
	if (app_ca_by_id(app, app->config.issuing_ca) == NULL)
		return err_set(err, ERR_ARGUMENT, "config_value",
			"issuing_ca: a CA in data_dir/keys wanted, '%s' found", app->config.issuing_ca);
	return succession_follow(app, err);
}

/* ---- the session that stands for this server ---- */

static void
notified(void *arg, const char *channel, const char *payload)
{
	struct app *app = arg;

	if (strcmp(channel, "jitrca_revocation") == 0)
		ocsp_changed(app->ocsp, payload);
	if (strcmp(channel, "jitrca_trust") == 0) {
		freshness_changed(app);
		return;
	}
	if (strcmp(channel, "jitrca_notify") == 0) {
		notify_wake(app->notify);
		return;
	}
	/* A revocation has rows in the outbox, too. */
	if (strcmp(channel, "jitrca_outbox") == 0 || strcmp(channel, "jitrca_revocation") == 0)
		iot_room_wake(app->iot, strcmp(payload, OUTBOX_GIVES_PAYLOAD) != 0);
	if (strcmp(channel, "jitrca_outbox") != 0)
		jobs_wake(app->jobs, channel);
}

/* Waits for a stop (stop_event, tls_event) or wait_ms. */
static void
pause_ms(int event, int wait_ms)
{
	struct pollfd polled = { .fd = event, .events = POLLIN };

	(void)poll(&polled, 1, wait_ms);
}

/* Waits for notifications and takes the answer to the question asked at *asked_ms; asks when it is time. */
static enum status
listen_once(
	struct frontend *it, struct db_session *session, int64_t *asked_ms, struct err *err)
{
	int64_t now_ms = clock_mono_ms(it->app.clock);
	int64_t due_ms = *asked_ms + FRESHNESS_BEAT_MS - now_ms;
	bool asked = db_session_asked(session);

	if (!asked && due_ms <= 0) {
		TRY(db_session_ask(session, err));
		*asked_ms = now_ms;
		due_ms = FRESHNESS_BEAT_MS;
		asked = true;
	}
	/* A late answer changes nothing here: what was remembered is not believed meanwhile. One that does
	 * not come may be this session's affair alone: a new one will tell. */
	if (asked && now_ms - *asked_ms > FRESHNESS_STALLED_MS)
		return err_set(err, ERR_UNAVAILABLE, "database_away",
			"no answer in %d ms", FRESHNESS_STALLED_MS);
	TRY(db_session_wait(session, due_ms > 0 ? (int)due_ms : FRESHNESS_BEAT_MS, it->stop_event,
		notified, &it->app, err));
	if (asked && !db_session_asked(session))
		freshness_beat(&it->app, *asked_ms);
	return OK;
}

/* False: it does not answer. */
static bool
follow_session(struct frontend *it, struct db_session *session)
{
	struct app *app = &it->app;
	int64_t asked_ms = clock_mono_ms(app->clock) - FRESHNESS_BEAT_MS;
	struct err err;

	while (!app->stopping) {
		if (listen_once(it, session, &asked_ms, &err) != OK) {
			log_error(LOG_WARN, "session_lost", NULL, &err);
			return !db_session_asked(session) ||
			       clock_mono_ms(app->clock) - asked_ms <= FRESHNESS_STALLED_MS;
		}
		if (atomic_exchange(&app->session_doubted, false)) {
			log_event(LOG_WARN, "session_renewed", NULL,
				LOG_STR("detail", "of an Admit it is not known whether it was committed"));
			return true;
		}
	}
	return true;
}

/* Before the session stands for this server: who moves issuance to another CA looks at it. */
static enum status
begin_session(struct app *app, struct db_session **out, struct err *err)
{
	int32_t issuers[COUNT_OF(app->cas)];
	enum status status;
	size_t count = 0;

	for (size_t i = 0; i < app->ca_count; i++)
		if (app->cas[i].can_sign)
			issuers[count++] = app->cas[i].issuer_id;
	TRY(db_session_begin(out, app->config.database_url, err));
	status = db_session_keys(*out, issuers, count, err);
	if (status != OK) {
		db_session_end(*out);
		*out = NULL;
	}
	return status;
}

static void *
session_main(void *arg)
{
	struct frontend *it = arg;
	struct app *app = &it->app;
	bool failing = false;
	bool hangs = false; /* it did not answer in time, and has not since */

	while (!app->stopping) {
		struct db_session *session = NULL;
		struct err err;

		if (begin_session(app, &session, &err) != OK) {
			if (!failing)
				log_error(LOG_WARN, "session_failed", NULL, &err);
			failing = true;
			if (hangs)
				db_pool_stall(app->pool);
			pause_ms(it->stop_event, SESSION_RETRY_MS);
			continue;
		}
		failing = false;
		db_pool_resume(app->pool);
		if (app->audit_lane == 0)
			app->audit_lane = 1 + db_session_instance_id(session) % AUDIT_LANES;
		app->session_doubted = false; /* that was another instance */
		app->instance_id = db_session_instance_id(session);
		log_event(LOG_INFO, "session_begun", NULL, LOG_INT("instance", app->instance_id));
		/* What was notified while nobody listened. */
		ocsp_forget_all(app->ocsp);
		jobs_wake(app->jobs, "jitrca_revocation");
		jobs_wake(app->jobs, "jitrca_wake");
		iot_room_wake(app->iot, true);
		hangs = !follow_session(it, session);
		freshness_lost(app);
		app->instance_id = 0;
		db_session_end(session);
	}
	return NULL;
}

static enum status
session_up(struct frontend *it, struct err *err)
{
	return it->app.instance_id != 0
	               ? OK
	               : err_set(err, ERR_UNAVAILABLE, "signer_away", "the session is not up yet");
}

/* ---- TLS certificates ---- */

static void *
tls_main(void *arg)
{
	struct frontend *it = arg;
	int64_t next_ms = 0;
	struct err err;

	while (!it->tls_stopping) {
		if (tls_identity_apply(it->tls, &it->app, &next_ms, &err) != OK)
			log_error(LOG_ERROR, "tls_certificate_failed", NULL, &err);
		pause_ms(it->tls_event, next_ms > INT32_MAX ? -1 : (int)next_ms);
	}
	return NULL;
}

static enum status
first_tls(struct frontend *it, struct err *err)
{
	int64_t next_ms;

	return tls_identity_apply(it->tls, &it->app, &next_ms, err);
}

/* ---- start and stop ---- */

static enum status
start_listeners(struct frontend *it, struct err *err)
{
	struct http_setup setup = { .config = &it->app.config,
		.app = &it->app,
		.https_fd = it->listeners[LISTEN_HTTPS],
		.stations_fd = it->listeners[LISTEN_STATIONS],
		.http_fd = it->listeners[LISTEN_HTTP],
		.authorize = auth_authorize };

	TRY(router_new(&it->router, ROUTES, err));
	setup.router = it->router;
	close_waiting_room(it);
	for (size_t i = 0; i < LISTEN_COUNT; i++)
		it->listeners[i] = -1; /* taken */
	return http_start(&it->app.http, &setup, err);
}

static enum status
thread(pthread_t *out, bool *started, void *(*run)(void *arg), struct frontend *it, struct err *err)
{
	if (pthread_create(out, NULL, run, it) != 0)
		return err_set(err, ERR_UNAVAILABLE, "thread", "a thread cannot be started");
	*started = true;
	return OK;
}

/* What needs neither database nor signer. */
static enum status
prepare(struct frontend *it, struct err *err)
{
	struct app *app = &it->app;

	TRY(take_handover(it, err));
	log_setup(STDERR_FILENO, app->config.log_level, "frontend");
	if (pthread_mutex_init(&app->issuing_lock, NULL) != 0)
		return err_memory(err);
	TRY(ca_init(err));
	TRY(tls_identity_new(&it->tls, &app->config, err));
	TRY(iot_room_new(&app->iot, app, err));
	TRY(notify_new(&app->notify, app, err));
	TRY(process_drop(app->config.user_frontend, err));
	TRY(crl_cache_new(&app->crls, app->config.data_dir, err));
	TRY(catch_signals(it, err));
	TRY(db_pool_new(&app->pool, app->config.database_url,
		(unsigned)app->config.database_connections, err));
	TRY(auth_start(app, err));
	TRY(signer_link_new(&app->signer_issue, err));
	TRY(signer_link_new(&app->signer_crl, err));
	TRY(signer_link_new(&app->signer_full, err));
	return signer_link_new(&app->signer_ocsp, err);
}

/*
 * On a first start, until every list has been published once: whoever waits for our word may then
 * fetch what certificates point to. Not for ever: without lists the rest still works, and /readyz
 * says so.
 */
static void
wait_for_lists(struct frontend *it)
{
	int64_t end_ms = clock_mono_ms(it->app.clock) + FIRST_LISTS_MS;
	struct crl_cache_health health;

	do {
		crl_cache_health(it->app.crls, it->app.issuing->ca_id, &health);
		if (health.missing > 0)
			attend(it, BRIEF_MS);
	} while (health.missing > 0 && !it->stopping && clock_mono_ms(it->app.clock) < end_ms);
}

static enum status
start(struct frontend *it, struct err *err)
{
	struct app *app = &it->app;
	const uint8_t word = PROCESS_READY;

	TRY(prepare(it, err));
	TRY(insist(it, "database_away", check_database, err));
	TRY(insist(it, "start_waits", load_cas, err));
	/* Its handlers look at what is being built from here on; who asks waits in the backlog. */
	close_waiting_room(it);
	crl_cache_claim(app);
	if (crl_cache_refresh(app, CRL_PART_ALL, err) != OK)
		log_error(LOG_WARN, "crl_cache_not_filled", NULL, err);
	TRY(issuance_start(&app->issuance, app, err));
	TRY(jobs_start(&app->jobs, app, err));
	TRY(ocsp_start(&app->ocsp, app, err));
	TRY(thread(&it->session_thread, &it->session_started, session_main, it, err));
	TRY(insist(it, "session_away", session_up, err));
	TRY(iot_room_start(app->iot, err));
	TRY(notify_start(app->notify, err));
	TRY(receipt_follow_start(&app->receipts, app, err));
	TRY(start_listeners(it, err));
	TRY(insist(it, "tls_certificate_failed", first_tls, err));
	TRY(thread(&it->tls_thread, &it->tls_started, tls_main, it, err));
	wait_for_lists(it);
	return process_send(PROCESS_CONTROL_FD, &word, sizeof(word), NULL, 0, err);
}

static void
raise_event(int event)
{
	const uint64_t one = 1;

	if (event >= 0 && write(event, &one, sizeof(one)) < 0)
		log_event(LOG_ERROR, "stop_event_failed", NULL, LOG_STR("why", strerror(errno)));
}

/*
 * First who hands certificates to the listeners. Then the listeners, while the pipeline and its session
 * still serve what is in flight; only when the last of it has landed is nothing left that would call
 * back into them.
 */
static void
stop(struct frontend *it)
{
	struct app *app = &it->app;

	it->tls_stopping = true;
	raise_event(it->tls_event);
	if (it->tls_started)
		(void)pthread_join(it->tls_thread, NULL);
	close_waiting_room(it);
	receipt_follow_stop(app->receipts); /* streams have no end of their own */
	if (!http_stop(app->http)) {
		/* Nothing that they use can be freed. What they left open is closed by the next server. */
		log_event(LOG_WARN, "stopped_with_requests_in_flight", NULL);
		_exit(0);
	}
	app->http = NULL;
	app->stopping = true;
	raise_event(it->stop_event);
	/* Jobs tell the pipeline of blocked keys. */
	jobs_stop(app->jobs);
	notify_stop(app->notify); /* it looks at the targets */
	iot_room_stop(app->iot);
	ocsp_stop(app->ocsp);
	issuance_stop(app->issuance);
	/* Then the session: its lock covers the intents, and it wakes the jobs, of which nothing runs. */
	if (it->session_started)
		(void)pthread_join(it->session_thread, NULL);
	jobs_free(app->jobs);
	ocsp_free(app->ocsp);
	notify_free(app->notify);
	receipt_follow_free(app->receipts);
	iot_room_free(app->iot);
	tls_identity_free(it->tls);
	crl_cache_free(app->crls);
	signer_link_free(app->signer_issue);
	signer_link_free(app->signer_crl);
	signer_link_free(app->signer_full);
	signer_link_free(app->signer_ocsp);
	auth_stop(app);
	db_pool_free(app->pool);
	forget_cas(app);
	router_free(it->router);
}

static int
exit_status_of(const struct err *err)
{
	/* What a restart cannot change: the configuration, a profile, a schema of another version.
	 */
	return err->status == ERR_ARGUMENT || err->status == ERR_DENIED ||
	                       view_equal_text(view_text(err->code), "schema_older") ||
	                       view_equal_text(view_text(err->code), "schema_newer") ||
	                       view_equal_text(view_text(err->code), "schema_changed") ||
	                       view_equal_text(view_text(err->code), "schema_unfit")
	               ? PROCESS_EXIT_CONFIG
	               : 1;
}

int
frontend_main(int argc, char **argv)
{
	static struct frontend it = { .signals = -1, .stop_event = -1, .tls_event = -1 };
	enum status status;
	struct err err;

	(void)argc;
	(void)argv;
	(void)mallopt(M_ARENA_MAX, MALLOC_ARENAS);
	(void)mallopt(M_TRIM_THRESHOLD, MALLOC_TRIM_BYTES);
	log_setup(STDERR_FILENO, LOG_INFO, "frontend");
	request_json_setup();
	it.app.clock = &CLOCK_SYSTEM;
	it.app.started_ms = clock_mono_ms(&CLOCK_SYSTEM);
	for (size_t i = 0; i < LISTEN_COUNT; i++)
		it.listeners[i] = -1;

	status = process_harden(&err);
	if (status == OK)
		status = start(&it, &err);
	(void)mallopt(M_TRIM_THRESHOLD, MALLOC_KEPT_BYTES);
	(void)mallopt(M_MMAP_THRESHOLD, MALLOC_KEPT_BYTES);
	if (status != OK && !it.stopping) {
		log_error(LOG_ERROR, "start_failed", NULL, &err);
		/* Threads may run that use what is not complete: the process ends as a whole. */
		_exit(exit_status_of(&err));
	}
	while (!it.stopping)
		attend(&it, -1);
	stop(&it);
	return 0;
}
