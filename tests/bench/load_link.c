#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <openssl/err.h>

#include "tests/bench/load.h"

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

/* Tickets come when they like: each replaces the one before. */
static int
keep_session(SSL *ssl, SSL_SESSION *session)
{
	struct link *link = SSL_get_app_data(ssl);

	SSL_SESSION_free(link->session);
	link->session = session;
	return 1;
}

SSL_CTX *
link_tls(const struct options *options)
{
	const int version = options->tls == 12 ? TLS1_2_VERSION : TLS1_3_VERSION;
	SSL_CTX *tls;

	if (options->ca == NULL)
		return NULL;
	tls = SSL_CTX_new(TLS_client_method());
	if (tls == NULL || SSL_CTX_load_verify_locations(tls, options->ca, NULL) != 1)
		die("%s: no CA certificates", options->ca);
	SSL_CTX_set_verify(tls, SSL_VERIFY_PEER, NULL);
	(void)SSL_CTX_set_mode(
		tls, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	/* The curve that servers here prefer; another would cost each handshake a round trip. */
	if (SSL_CTX_set1_groups_list(tls, "P-256:X25519") != 1)
		die("cannot choose groups");
	if (options->tls != 0 && (SSL_CTX_set_min_proto_version(tls, version) != 1 ||
					 SSL_CTX_set_max_proto_version(tls, version) != 1))
		die("cannot choose TLS %d", options->tls);
	if (options->cert != NULL &&
		(SSL_CTX_use_certificate_chain_file(tls, options->cert) != 1 ||
			SSL_CTX_use_PrivateKey_file(tls, options->key, SSL_FILETYPE_PEM) != 1))
		die("%s, %s: not a certificate and its key", options->cert, options->key);
	if (options->resume) {
		(void)SSL_CTX_set_session_cache_mode(
			tls, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL_STORE);
		SSL_CTX_sess_set_new_cb(tls, keep_session);
	}
	return tls;
}

/* 127.0.0.1, or one of `sources` addresses from 127.1.0.1 on. */
static void
bind_source(int fd, size_t sources, size_t number)
{
	const int on = 1;
	size_t source = sources > 0 ? number % sources : 0;
	struct sockaddr_in from = { .sin_family = AF_INET,
		.sin_addr.s_addr = htonl((uint32_t)(0x7f010001 + source + source / 250 * 6)) };

	if (sources <= 1)
		return;
	(void)setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)&from, sizeof(from)) != 0)
		die("cannot bind to source %zu: %s", source, strerror(errno));
}

bool
link_open(struct link *link, const struct options *options, SSL_CTX *tls, size_t number)
{
	const int on = 1;

	link->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (link->fd < 0)
		die("socket: %s", strerror(errno));
	(void)setsockopt(link->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	bind_source(link->fd, options->sources, number);
	if (connect(link->fd, (const struct sockaddr *)&options->address,
		    sizeof(options->address)) != 0 &&
		errno != EINPROGRESS) {
		link_close(link);
		return false;
	}
	if (tls == NULL)
		return true;
	link->ssl = SSL_new(tls);
	if (link->ssl == NULL || SSL_set_fd(link->ssl, link->fd) != 1)
		die("cannot make a TLS session");
	SSL_set_app_data(link->ssl, link);
	SSL_set_connect_state(link->ssl);
	if (link->session != NULL)
		(void)SSL_set_session(link->ssl, link->session);
	return true;
}

static enum link_result
tls_result(struct link *link, int rc)
{
	int why = SSL_get_error(link->ssl, rc);

	link->wants_write = why == SSL_ERROR_WANT_WRITE;
	return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? LINK_AGAIN : LINK_CLOSED;
}

static enum link_result
plain_result(struct link *link, bool writing)
{
	link->wants_write = writing;
	return errno == EAGAIN || errno == EINTR ? LINK_AGAIN : LINK_CLOSED;
}

enum link_result
link_handshake(struct link *link)
{
	int rc;

	if (link->ssl == NULL)
		return LINK_DONE;
	ERR_clear_error();
	rc = SSL_do_handshake(link->ssl);
	return rc == 1 ? LINK_DONE : tls_result(link, rc);
}

enum link_result
link_write(struct link *link, const void *data, size_t len, size_t *written)
{
	ssize_t n;

	*written = 0;
	if (link->ssl != NULL) {
		int rc;

		ERR_clear_error();
		rc = SSL_write_ex(link->ssl, data, len, written);
		return rc == 1 ? LINK_DONE : tls_result(link, rc);
	}
	n = send(link->fd, data, len, MSG_NOSIGNAL);
	if (n < 0)
		return plain_result(link, true);
	*written = (size_t)n;
	return LINK_DONE;
}

enum link_result
link_read(struct link *link, void *data, size_t size, size_t *got)
{
	ssize_t n;

	*got = 0;
	if (link->ssl != NULL) {
		int rc;

		ERR_clear_error();
		rc = SSL_read_ex(link->ssl, data, size, got);
		return rc == 1 ? LINK_DONE : tls_result(link, rc);
	}
	n = recv(link->fd, data, size, 0);
	if (n < 0)
		return plain_result(link, false);
	*got = (size_t)n;
	return n == 0 ? LINK_CLOSED : LINK_DONE;
}

void
link_close(struct link *link)
{
	if (link->ssl != NULL) {
		ERR_clear_error();
		if (SSL_is_init_finished(link->ssl))
			(void)SSL_shutdown(link->ssl);
		SSL_free(link->ssl);
	}
	if (link->fd >= 0)
		(void)close(link->fd);
	link->ssl = NULL;
	link->fd = -1;
}
