/*
 * Any octets as an OCSP request: read or refused, and whatever was read can be answered with an answer
 * that the signer lets pass. And any octets as an answer to be signed: let pass or refused.
 */
#include <assert.h>
#include <string.h>

#include "ca/ocsp_check.h"

#define NOW_S INT64_C(1795500000) /* 2026-11-24T06:00:00Z */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* An issuer whose SHA-1 hashes are all n and all k. */
static struct ca_ocsp_issuer
issuer(void)
{
	struct ca_ocsp_issuer out = { .by[OCSP_SHA1].len = 20 };

	memset(out.by[OCSP_SHA1].name, 'n', 20);
	memset(out.by[OCSP_SHA1].key, 'k', 20);
	return out;
}

static void
answer(const struct ca_ocsp_request *request, const struct ca_ocsp_rules *rules)
{
	static struct der_writer w;
	struct ca_ocsp_single singles[OCSP_IDS_MAX];
	struct err err;

	w.buf.limit_bytes = OCSP_DATA_MAX_BYTES;
	for (size_t i = 0; i < request->count; i++)
		singles[i] = (struct ca_ocsp_single){
			.id = request->ids[i].whole,
			.status = ca_ocsp_names(&request->ids[i], rules->issuers) &&
			                          request->ids[i].serial_ours
			                  ? OCSP_GOOD
			                  : OCSP_UNKNOWN,
			.this_update_s = NOW_S,
			.next_update_s = NOW_S + 60,
		};
	assert(ca_ocsp_data_write(&w, rules->key_hash, NOW_S, singles, request->count, request->nonce,
		       &err) == OK);
	assert(ca_ocsp_check(rules, buf_view(&w.buf), &err) == OK);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	const struct view input = { data, len };
	const struct ca_ocsp_issuer ours = issuer();
	const struct ca_ocsp_rules rules = {
		.now_s = NOW_S,
		.not_after_s = NOW_S + 86400,
		.issuers = &ours,
		.issuer_count = 1,
	};
	struct ca_ocsp_request request;
	struct err err;

	if (ca_ocsp_request_read(&request, input, &err) == OK) {
		assert(request.count >= 1 && request.count <= OCSP_IDS_MAX);
		assert(request.nonce.len <= OCSP_NONCE_MAX_BYTES);
		answer(&request, &rules);
	} else {
		assert(strcmp(err.code, "ocsp_malformed") == 0);
	}
	if (ca_ocsp_check(&rules, input, &err) != OK)
		assert(strncmp(err.code, "ocsp_", 5) == 0);
	return 0;
}
