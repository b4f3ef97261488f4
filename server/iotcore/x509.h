/*
 * server/iotcore/x509.h - certificates as they come in requests: PEM in, what must be known of them out. The
 * reading is ca's; here its refusals become CertificateValidationException.
 */
#ifndef SERVER_IOTCORE_X509_H
#define SERVER_IOTCORE_X509_H

#include "ca/cert.h"
#include "server/iotcore/op.h"

struct x509_certificate {
	struct bytes der, pem;    /* PEM as we write it */
	char id[65];              /* lower-case hex SHA-256 of der */
	struct ca_cert_view view; /* borrows of der */
};
void x509_certificate_free(struct x509_certificate *certificate); /* may run twice */
OWNER_STRUCT(x509_certificate, x509_certificate_free)

/* Text beside the one block is skipped, as `openssl x509 -text` writes it. */
MUST_USE enum status x509_certificate_read(struct x509_certificate *out, const char *pem,
	const char *member, struct err *err);
/* Now within its validity (RFC 5280 4.1.2.5). */
MUST_USE enum status x509_check_validity(const struct x509_certificate *certificate, int64_t now_s,
	const char *member, struct err *err);

#endif
