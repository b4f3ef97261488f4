/* Any text as PEM; what is read comes back the same after it is written. */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>

#include "ca/pem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static enum status
write_again(void *arg, const char *label, struct view der, struct err *err)
{
	own_struct(buf) pem = { .limit_bytes = 1 << 24 };
	own_struct(bytes) back = { NULL, 0 };

	(void)arg;
	assert(der.len > 0);
	if (ca_pem_encode(&pem, label, der, err) != OK ||
		ca_pem_decode(&back, label, buf_view(&pem), err) != OK)
		abort();
	assert(view_equal(der, view_of(&back)));
	return OK;
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	own_struct(bytes) der = { NULL, 0 };
	struct err err;

	(void)!ca_pem_each((struct view){ data, len }, write_again, NULL, &err);
	(void)!ca_pem_decode(&der, "X", (struct view){ data, len }, &err);
	return 0;
}
