#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <gnutls/abstract.h>

#include "base/log.h"
#include "base/mem.h"
#include "server/http/internal.h"

/*
 * What a lane takes. TLS lanes poll: a wake-up costs as much as the lane has connections. Plain
 * lanes use epoll, where 128 events at once would hang libmicrohttpd 0.9.75: it must never have so
 * many.
 */
#define LANE_CAP_POLL 250
#define LANE_CAP_EPOLL 120
#define LANE_HARD_EPOLL 125
/*
 * From so many connections on, another lane is started, as long as there may be one: few, so that they
 * wake quickly, and more where a great many may come, for each lane costs a thread's memory.
 */
#define LANE_CROWDED_LEAST 32
#define LANE_CROWDED_SHARE 128
#define LANE_NICE 5

static void library_log(void *cls, const char *fmt, va_list args) PRINTF(2, 0);
static void
library_log(void *cls, const char *fmt, va_list args)
{
	const struct listener *listener = cls;
	char text[256];
	int len = vsnprintf(text, sizeof(text), fmt, args);

	while (len > 0 && (size_t)len < sizeof(text) && text[len - 1] == '\n')
		text[--len] = '\0';
	log_event(LOG_DEBUG, "http_library", NULL, LOG_STR("listener", listener->name),
		LOG_VIEW("detail", view_text(text)));
}

/* Never asked: each session has its credentials from on_connection. libmicrohttpd wants one. */
static int
no_certificate(gnutls_session_t session, const gnutls_datum_t *req_ca_rdn, int nreqs,
	const gnutls_pk_algorithm_t *pk_algos, int pk_algos_length, gnutls_pcert_st **pcert,
	unsigned int *pcert_length, gnutls_privkey_t *privkey)
{
	(void)session, (void)req_ca_rdn, (void)nreqs, (void)pk_algos, (void)pk_algos_length;
	*pcert = NULL;
	*pcert_length = 0;
	*privkey = NULL;
	return -1;
}

/*
 * The peer's Finished: its certificate is there, and the ticket is made after this. A client that waits
 * for our ACK of it before it sends its request (Nagle) would wait for the delayed one, 40 ms, where it
 * takes no tickets and we have nothing to send.
 */
static int
on_finished(gnutls_session_t session, unsigned type, unsigned when, unsigned incoming,
	const gnutls_datum_t *message)
{
	const int on = 1;

	(void)type, (void)when, (void)message;
	if (incoming == 0)
		return 0;
	tls_ticket_limit(session);
	(void)setsockopt(
		gnutls_transport_get_int(session), IPPROTO_TCP, TCP_QUICKACK, &on, sizeof(on));
	return 0;
}

static void
prepare_tls(struct connection *connection, struct MHD_Connection *mhd)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_GNUTLS_SESSION);
	gnutls_session_t session = info != NULL ? info->tls_session : NULL;

	connection->tls = http_tls(connection->listener->http);
	if (session == NULL || connection->tls == NULL)
		return; /* the handshake fails */
	if (gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, connection->tls->credentials) <
		0)
		return;
	/* Asked for, not required, and not verified here: server/auth.c does that against our own
	 * rows. */
	gnutls_certificate_server_set_request(session, GNUTLS_CERT_REQUEST);
	gnutls_handshake_set_hook_function(
		session, GNUTLS_HANDSHAKE_FINISHED, GNUTLS_HOOK_POST, on_finished);
	tls_tickets_offer(&connection->listener->http->tickets, session);
}

/*
 * Handshakes are what costs: those of a crowd of devices shall not make a station's request wait for a
 * processor, nor the database that answers it.
 */
static void
yield_to_stations(struct listener *listener, struct lane *lane)
{
	if (lane->yields || listener->kind != LISTENER_HTTPS)
		return;
	lane->yields = true;
	/* Of the calling thread alone: Linux has a nice value for each. */
	if (setpriority(PRIO_PROCESS, (id_t)gettid(), LANE_NICE) != 0)
		log_event(LOG_DEBUG, "lane_nice", NULL, LOG_STR("why", strerror(errno)));
}

static void
on_connection(void *cls, struct MHD_Connection *mhd, void **context,
	enum MHD_ConnectionNotificationCode what)
{
	struct lane *lane = cls;
	struct listener *listener = lane->listener;

	if (what == MHD_CONNECTION_NOTIFY_STARTED) {
		const union MHD_ConnectionInfo *info =
			MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD);
		struct connection *connection =
			gate_arrived(listener->http, info != NULL ? info->connect_fd : -1);

		yield_to_stations(listener, lane);
		*context = connection;
		if (connection != NULL && listener->tls)
			prepare_tls(connection, mhd);
	} else if (*context != NULL) {
		gate_gone(listener->http, *context);
		*context = NULL;
	}
}

/* We read the target as it was sent; libmicrohttpd need not decode its copy. */
static size_t
leave_encoded(void *cls, struct MHD_Connection *mhd, char *text)
{
	(void)cls, (void)mhd;
	return strlen(text);
}

static enum status
lane_start(struct listener *listener, struct lane *lane, struct err *err)
{
	const unsigned mode = listener->tls ? MHD_USE_POLL_INTERNAL_THREAD | MHD_USE_TLS
	                                    : MHD_USE_EPOLL_INTERNAL_THREAD;
	struct MHD_OptionItem tls[] = {
		{ MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)(uintptr_t)TLS_PRIORITIES },
		/* The function as a pointer, as MHD_OPTION_ARRAY wants it (POSIX lets it fit). */
		{ MHD_OPTION_HTTPS_CERT_CALLBACK2, 0, __extension__(void *) no_certificate },
		{ MHD_OPTION_END, 0, NULL },
	};
	struct MHD_OptionItem none[] = { { MHD_OPTION_END, 0, NULL } };

	lane->listener = listener;
	lane->daemon = MHD_start_daemon(
		mode | MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0,
		NULL, NULL, exchange_step, listener->http,
		/* first, so that it hears of the others */
		MHD_OPTION_EXTERNAL_LOGGER, library_log, listener, MHD_OPTION_ARRAY,
		listener->tls ? tls : none, MHD_OPTION_NOTIFY_CONNECTION, on_connection, lane,
		MHD_OPTION_NOTIFY_COMPLETED, exchange_end, listener->http,
		MHD_OPTION_URI_LOG_CALLBACK, exchange_begin, listener->http,
		MHD_OPTION_UNESCAPE_CALLBACK, leave_encoded, NULL, MHD_OPTION_CONNECTION_LIMIT,
		/* Room beyond the cap for those that are cut and not yet cleaned up. */
		listener->tls ? 2 * listener->lane_cap : (unsigned)LANE_HARD_EPOLL,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)POOL_BYTES,
		MHD_OPTION_CONNECTION_TIMEOUT, 0u, MHD_OPTION_THREAD_STACK_SIZE, THREAD_STACK_BYTES,
		MHD_OPTION_END);
	if (lane->daemon == NULL)
		return err_set(err, ERR_UNAVAILABLE, "listener", "%s: cannot start libmicrohttpd",
			listener->name);
	return OK;
}

enum status
listener_start(struct listener *listener, struct err *err)
{
	const struct config *config = listener->http->config;
	size_t most = (size_t)config->connections_max;
	size_t cap = listener->tls ? LANE_CAP_POLL : LANE_CAP_EPOLL;

	listener->lane_crowded = LANE_CROWDED_LEAST;
	if (most / LANE_CROWDED_SHARE > LANE_CROWDED_LEAST)
		listener->lane_crowded = (unsigned)(most / LANE_CROWDED_SHARE);
	if (listener->lane_crowded > cap)
		listener->lane_crowded = (unsigned)cap;
	/* A quarter more than the limit, for those that are cut and not yet gone. */
	listener->lanes_max = (unsigned)((most + most / 4) / listener->lane_crowded) + 1;
	if (config->http_threads > 0 && listener->lanes_max > config->http_threads)
		listener->lanes_max = (unsigned)config->http_threads;
	/* However few threads were asked for, the connections must fit. */
	if (listener->lanes_max * cap < most + most / 4)
		listener->lanes_max = (unsigned)((most + most / 4) / cap) + 1;
	listener->lane_cap = (unsigned)cap;
	listener->lanes = mem_array(listener->lanes_max, sizeof(*listener->lanes));
	if (listener->lanes == NULL)
		return err_memory(err);
	TRY(lane_start(listener, &listener->lanes[0], err));
	atomic_store(&listener->lanes_started, 1);
	return OK;
}

struct lane *
listener_lane(struct listener *listener)
{
	unsigned started = atomic_load(&listener->lanes_started);
	struct lane *best = &listener->lanes[0];
	struct err err;

	for (unsigned i = 1; i < started; i++)
		if (atomic_load(&listener->lanes[i].load) < atomic_load(&best->load))
			best = &listener->lanes[i];
	if (atomic_load(&best->load) >= listener->lane_crowded && started < listener->lanes_max) {
		struct lane *another = &listener->lanes[started];

		if (lane_start(listener, another, &err) == OK) {
			atomic_store(&listener->lanes_started, started + 1);
			return another;
		}
		log_error(LOG_WARN, "lane_start", NULL, &err);
	}
	return atomic_load(&best->load) < listener->lane_cap ? best : NULL;
}

void
listener_stop(struct listener *listener)
{
	for (unsigned i = 0; i < atomic_load(&listener->lanes_started); i++)
		MHD_stop_daemon(listener->lanes[i].daemon);
	atomic_store(&listener->lanes_started, 0);
}

void
listener_free(struct listener *listener)
{
	mem_free(listener->lanes);
	listener->lanes = NULL;
}
