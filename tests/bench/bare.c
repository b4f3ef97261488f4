/*
 * libmicrohttpd by itself: what its answer of the same size, its file reply and its TLS handshake
 * cost when nothing is looked up and nothing checked.
 *
 *	bare memory BYTES [--tls CERT KEY]	answers everything with so many octets
 *	bare file PATH [--tls CERT KEY]	with that file, from its descriptor
 *
 * Prints its port on 127.0.0.1 and serves until standard input ends. Plain listeners use epoll and
 * TLS poll, as ours do; one thread. TLS asks for a client certificate and does not look at it.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <gnutls/gnutls.h>
#include <microhttpd.h>

#include "base/mem.h"

#define PEM_MAX_BYTES 65536

static struct {
	const char *path; /* NULL: memory */
	char *octets;
	size_t len;
	struct MHD_Response *response; /* of memory: made once */
	char certificate[PEM_MAX_BYTES], key[PEM_MAX_BYTES];
	gnutls_priority_t priorities;
} bare;

static _Noreturn void
die(const char *what)
{
	(void)fprintf(stderr, "bare: %s\n", what);
	exit(1);
}

static enum MHD_Result
answer_file(struct MHD_Connection *connection)
{
	int fd = open(bare.path, O_RDONLY | O_CLOEXEC);
	struct MHD_Response *response;
	enum MHD_Result result;
	struct stat stat;

	if (fd < 0 || fstat(fd, &stat) != 0)
		return MHD_NO;
	response = MHD_create_response_from_fd64((uint64_t)stat.st_size, fd);
	if (response == NULL)
		return MHD_NO;
	result = MHD_queue_response(connection, MHD_HTTP_OK, response);
	MHD_destroy_response(response);
	return result;
}

static enum MHD_Result
answer(void *cls, struct MHD_Connection *connection, const char *url, const char *method,
	const char *version, const char *data, size_t *size, void **seen)
{
	static int mark;

	(void)cls, (void)url, (void)method, (void)version, (void)data;
	/* An answer in the first call would end the connection. */
	if (*seen == NULL) {
		*seen = &mark;
		return MHD_YES;
	}
	if (*size > 0) {
		*size = 0;
		return MHD_YES;
	}
	if (bare.path != NULL && strncmp(url, "/healthz", 8) != 0)
		return answer_file(connection);
	return MHD_queue_response(connection, MHD_HTTP_OK, bare.response);
}

static void
ask_for_certificate(void *cls, struct MHD_Connection *connection, void **context,
	enum MHD_ConnectionNotificationCode what)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_GNUTLS_SESSION);

	(void)cls, (void)context;
	if (what == MHD_CONNECTION_NOTIFY_STARTED && info != NULL && info->tls_session != NULL)
		gnutls_certificate_server_set_request(info->tls_session, GNUTLS_CERT_REQUEST);
}

static void
read_pem(char *into, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t len = fd >= 0 ? read(fd, into, PEM_MAX_BYTES - 1) : -1;

	if (len <= 0)
		die("the certificate or its key cannot be read");
	into[len] = '\0';
	(void)close(fd);
}

/* The same choice as server/http/tls.c's. */
static const char PRIORITIES[] =
	"NORMAL:%SERVER_PRECEDENCE:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:"
	"-KX-ALL:+ECDHE-ECDSA:+ECDHE-RSA:"
	"-CIPHER-ALL:+AES-128-GCM:+AES-256-GCM:+CHACHA20-POLY1305:-MAC-ALL:+AEAD:"
	"-GROUP-ALL:+GROUP-SECP256R1:+GROUP-X25519:+GROUP-SECP384R1:"
	"-SIGN-RSA-SHA1:-SIGN-ECDSA-SHA1";

static struct MHD_Daemon *
start(bool tls, struct sockaddr_in *address)
{
	struct MHD_OptionItem secure[] = {
		{ MHD_OPTION_HTTPS_MEM_CERT, 0, bare.certificate },
		{ MHD_OPTION_HTTPS_MEM_KEY, 0, bare.key },
		{ MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)(uintptr_t)PRIORITIES },
		{ MHD_OPTION_END, 0, NULL },
	};
	struct MHD_OptionItem none[] = { { MHD_OPTION_END, 0, NULL } };

	return MHD_start_daemon(
		tls ? MHD_USE_POLL_INTERNAL_THREAD | MHD_USE_TLS : MHD_USE_EPOLL_INTERNAL_THREAD, 0,
		NULL, NULL, answer, NULL, MHD_OPTION_SOCK_ADDR, (struct sockaddr *)address,
		MHD_OPTION_ARRAY, tls ? secure : none, MHD_OPTION_NOTIFY_CONNECTION,
		ask_for_certificate, NULL, MHD_OPTION_CONNECTION_LIMIT, tls ? 1000u : 120u,
		MHD_OPTION_LISTEN_BACKLOG_SIZE, 1024u, MHD_OPTION_END);
}

int
main(int argc, char **argv)
{
	struct sockaddr_in address = { .sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	const union MHD_DaemonInfo *port;
	struct MHD_Daemon *daemon;
	char c;

	if (argc != 3 && argc != 6)
		die("memory BYTES or file PATH wanted, and --tls CERT KEY");
	if (strcmp(argv[1], "file") == 0)
		bare.path = argv[2];
	bare.len = bare.path != NULL ? 2 : strtoul(argv[2], NULL, 10);
	bare.octets = mem_zalloc(bare.len + 1);
	if (bare.octets == NULL)
		die("out of memory");
	bare.response =
		MHD_create_response_from_buffer(bare.len, bare.octets, MHD_RESPMEM_PERSISTENT);
	if (argc == 6) {
		read_pem(bare.certificate, argv[4]);
		read_pem(bare.key, argv[5]);
	}
	daemon = start(argc == 6, &address);
	if (daemon == NULL || bare.response == NULL)
		die("cannot start");
	port = MHD_get_daemon_info(daemon, MHD_DAEMON_INFO_BIND_PORT);
	printf("%u\n", port != NULL ? (unsigned)port->port : 0);
	(void)fflush(stdout);
	while (read(STDIN_FILENO, &c, 1) > 0)
		;
	MHD_stop_daemon(daemon);
	MHD_destroy_response(bare.response);
	mem_free(bare.octets);
	return 0;
}
