#include <gnutls/x509.h>
#include <string.h>

#include "base/log.h"
#include "base/mem.h"
#include "server/http/internal.h"

/*
 * TLS 1.2 and 1.3, forward secrecy and authenticated encryption only. No tickets: a device comes
 * back after months, and a ticket would cost each handshake more than it ever gives back.
 */
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
