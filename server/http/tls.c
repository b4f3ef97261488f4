#include <gnutls/x509.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "ca/cert.h"
#include "server/http/internal.h"

/* TLS 1.2 and 1.3, forward secrecy and authenticated encryption only. */
const char TLS_PRIORITIES[] =
	"NORMAL:%SERVER_PRECEDENCE:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:"
	"-KX-ALL:+ECDHE-ECDSA:+ECDHE-RSA:"
	"-CIPHER-ALL:+AES-128-GCM:+AES-256-GCM:+CHACHA20-POLY1305:-MAC-ALL:+AEAD:"
	"-GROUP-ALL:+GROUP-SECP256R1:+GROUP-X25519:+GROUP-SECP384R1:"
	"-SIGN-RSA-SHA1:-SIGN-ECDSA-SHA1";

static enum status
add_certificate(struct tls_set *set, const struct http_certificate *certificate, size_t index,
	struct err *err)
{
	/* GnuTLS wants data that may be changed; it copies. */
	const gnutls_datum_t chain = {
		.data = (unsigned char *)(uintptr_t)certificate->certificate_pem.data,
		.size = (unsigned)certificate->certificate_pem.len
	};
	const gnutls_datum_t key = { .data = (unsigned char *)(uintptr_t)certificate->key_pem.data,
		.size = (unsigned)certificate->key_pem.len };
	int rc = gnutls_certificate_set_x509_key_mem2(
		set->credentials, &chain, &key, GNUTLS_X509_FMT_PEM, NULL, 0);

	if (rc < 0)
		return err_set(err, ERR_ARGUMENT, "tls_certificate",
			"TLS certificate %zu: a PEM chain, the leaf first, and its key wanted: %s",
			index + 1, gnutls_strerror(rc));
	return OK;
}

/* ---- tickets: RFC 5077, RFC 8446 4.6.1 ---- */

enum status
tls_tickets_start(struct tls_tickets *tickets, struct err *err)
{
	pthread_mutex_init(&tickets->lock, NULL);
	tickets->born_ms = http_now_ms();
	return gnutls_session_ticket_key_generate(&tickets->key) < 0 ? err_memory(err) : OK;
}

static void
forget_key(gnutls_datum_t *key)
{
	if (key->data != NULL)
		gnutls_memset(key->data, 0, key->size);
	gnutls_free(key->data);
	key->size = 0;
}

void
tls_tickets_stop(struct tls_tickets *tickets)
{
	forget_key(&tickets->key);
	pthread_mutex_destroy(&tickets->lock);
}

/* With the lock. GnuTLS derives from it the keys it uses, a new one every three lifetimes. */
static void
renew_key(struct tls_tickets *tickets)
{
	gnutls_datum_t fresh = { NULL, 0 };

	if (http_now_ms() - tickets->born_ms < TICKET_KEY_MS ||
		gnutls_session_ticket_key_generate(&fresh) < 0)
		return;
	forget_key(&tickets->key);
	tickets->key = fresh;
	tickets->born_ms = http_now_ms();
}

void
tls_tickets_offer(struct tls_tickets *tickets, gnutls_session_t session)
{
	pthread_mutex_lock(&tickets->lock);
	renew_key(tickets);
	/* It copies. Should it fail, there are no tickets on this connection. */
	gnutls_db_set_cache_expiration(session, TICKET_LIFETIME_S);
	(void)gnutls_session_ticket_enable_server(session, &tickets->key);
	pthread_mutex_unlock(&tickets->lock);
}

void
tls_ticket_limit(gnutls_session_t session)
{
	unsigned count = 0;
	const gnutls_datum_t *peers = gnutls_certificate_get_peers(session, &count);
	struct ca_cert_view certificate;
	int64_t left_s;
	struct err err;

	if (peers == NULL || count == 0)
		return;
	/* What is none of ours is refused whatever ticket it has. */
	if (ca_cert_parse(&certificate, (struct view){ peers[0].data, peers[0].size }, &err) != OK)
		return;
	left_s = certificate.not_after_s - clock_wall_s(&CLOCK_SYSTEM);
	if (left_s < TICKET_LIFETIME_S)
		gnutls_db_set_cache_expiration(session, left_s > 0 ? (int)left_s : 1);
}

/* ---- certificates ---- */

enum status
tls_set_new(struct tls_set **out, const struct http_certificate *certificates, size_t count,
	struct err *err)
{
	struct tls_set *set;
	enum status status = OK;

	if (count == 0)
		return err_set(err, ERR_ARGUMENT, "tls_certificate",
			"at least one TLS certificate wanted");
	set = mem_zalloc(sizeof(*set));
	if (set == NULL)
		return err_memory(err);
	atomic_init(&set->references, 1);
	if (gnutls_certificate_allocate_credentials(&set->credentials) < 0) {
		mem_free(set);
		return err_memory(err);
	}
	for (size_t i = 0; i < count && status == OK; i++)
		status = add_certificate(set, &certificates[i], i, err);
	if (status == OK)
		*out = set;
	else
		tls_set_drop(set);
	return status;
}

void
tls_set_drop(struct tls_set *set)
{
	if (set == NULL || atomic_fetch_sub(&set->references, 1) != 1)
		return;
	gnutls_certificate_free_credentials(set->credentials);
	mem_free(set);
}
