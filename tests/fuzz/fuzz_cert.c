/* Any octets as a certificate: views lie within it, names become bounded text without controls. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "ca/cert.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static struct ca_trust *trust;
	struct ca_cert_view certificate;
	struct err err = { .status = OK };
	const char *ca_id;
	char text[64];

	if (trust == NULL && ca_trust_new(&trust, &err) != OK)
		abort();
	ca_name_text(text, sizeof(text), (struct view){ data, len });
	assert(strlen(text) < sizeof(text));
	for (const char *p = text; *p != '\0'; p++)
		assert((uint8_t)*p >= 0x20 && *p != 0x7f);
	if (ca_cert_parse(&certificate, (struct view){ data, len }, &err) == OK) {
		assert(certificate.tbs.data >= data &&
			certificate.tbs.data + certificate.tbs.len <= data + len);
		ca_name_text(text, sizeof(text), certificate.subject);
		(void)!ca_cert_issued_by(&certificate, &certificate, &err);
	} else {
		assert(strcmp(err.code, "certificate_malformed") == 0);
	}
	assert(ca_trust_verify(trust, (struct view){ data, len }, 0, true, &ca_id, &err) ==
	       ERR_UNAUTHENTICATED);
	return 0;
}
