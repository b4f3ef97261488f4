/* Any octets as the DER of a CSR: read or refused with a code that is documented; never both. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "ca/csr.h"
#include "ca/secret.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static struct ca_verifier *verifier;
	const struct ca_profile profile = { .key_types = ~0u,
		.csr_extensions = CSR_EXTENSIONS_REFUSE };
	own_struct(ca_csr) csr = { .spki = { NULL, 0 } };
	struct err err = { .status = OK };
	enum ca_key_type type;

	if (verifier == NULL && (ca_init(&err) != OK || ca_verifier_new(&verifier, &err) != OK))
		abort();
	if (ca_csr_read_der(verifier, (struct view){ data, len }, &csr, &err) == OK) {
		assert(csr.spki.len > 0 && csr.key_type != 0);
		(void)!ca_csr_check(&csr, &profile, &err);
	} else {
		assert(err.status == ERR_ARGUMENT || err.status == ERR_TOO_LARGE);
		assert(strncmp(err.code, "csr_", 4) == 0);
	}
	if (ca_spki_check(verifier, (struct view){ data, len }, &type, &err) != OK)
		assert(strncmp(err.code, "csr_", 4) == 0);
	return 0;
}
