#include "server/iotcore/x509.h"

#include <string.h>

#include "ca/digest.h"
#include "ca/pem.h"

#define PEM_MAX_BYTES (256 * 1024)

void
x509_certificate_free(struct x509_certificate *certificate)
{
	bytes_free(&certificate->der);
	bytes_free(&certificate->pem);
}

static enum status
invalid(struct err *err, const char *member, const struct err *why)
{
	if (why->status != ERR_ARGUMENT && why->status != ERR_TOO_LARGE) {
		*err = *why;
		return err->status;
	}
	return iotcore_error(err, "CertificateValidationException", "%s is not valid: %.300s",
		member, why->text);
}

static enum status
take_block(void *arg, const char *label, struct view der, struct err *err)
{
	struct bytes *out = arg;

	if (strcmp(label, "CERTIFICATE") != 0)
		return err_set(err, ERR_ARGUMENT, "pem_malformed", "PEM: a CERTIFICATE wanted");
	if (out->len > 0)
		return err_set(err, ERR_ARGUMENT, "pem_malformed", "PEM: one certificate wanted");
	return bytes_copy(out, der, err);
}

static enum status
write_pem(struct x509_certificate *out, struct err *err)
{
	own_struct(buf) pem = { .limit_bytes = PEM_MAX_BYTES };

	TRY(ca_pem_encode(&pem, "CERTIFICATE", view_of(&out->der), err));
	out->pem = buf_give(&pem);
	return OK;
}

enum status
x509_certificate_read(
	struct x509_certificate *out, const char *pem, const char *member, struct err *err)
{
	uint8_t digest[32];
	struct err why;

	memset(out, 0, sizeof(*out));
	if (ca_pem_each(view_text(pem), take_block, &out->der, &why) != OK)
		return invalid(err, member, &why);
	if (out->der.len == 0)
		return iotcore_error(err, "CertificateValidationException",
			"%s is not valid: PEM: a CERTIFICATE wanted, none found", member);
	if (ca_cert_parse_any(&out->view, view_of(&out->der), &why) != OK)
		return invalid(err, member, &why);
	ca_sha256(digest, view_of(&out->der));
	hex_encode(out->id, digest, sizeof(digest));
	return write_pem(out, err);
}

enum status
x509_check_validity(const struct x509_certificate *certificate, int64_t now_s, const char *member,
	struct err *err)
{
	if (now_s < certificate->view.not_before_s)
		return iotcore_error(err, "CertificateValidationException",
			"%s is not valid yet: its notBefore lies ahead", member);
	if (now_s > certificate->view.not_after_s)
		return iotcore_error(err, "CertificateValidationException",
			"%s has expired: its notAfter is past", member);
	return OK;
}
