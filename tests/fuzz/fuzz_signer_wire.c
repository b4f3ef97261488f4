/*
 * Any octets as what a taken frontend says to the signer: it answers or closes, and never certifies
 * what its profile forbids. With and without a greeting in front (first octet).
 */
#include <assert.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/mem.h"
#include "ca/signer_ops.h"
#include "ca/signer_wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* What serves the requests holds no keys: the parser in front of it is what is looked at. */
static enum status
refuse_prepare(
	struct ca_signer *signer, struct ca_prepare_item *items, size_t count, struct err *err)
{
	(void)signer;
	(void)err;
	assert(count <= SIGNER_BATCH_MAX);
	for (size_t i = 0; i < count; i++) {
		const struct ca_request *request = items[i].request;

		assert(strlen(items[i].ca_id) < CA_ID_BYTES);
		assert(strlen(request->device_id) < CA_ID_BYTES);
		assert(request->attribute_count <= CA_ATTRIBUTES_MAX);
		for (size_t j = 0; j < request->attribute_count; j++)
			assert(strlen(request->attributes[j].value) <
				sizeof(request->attributes[j].value));
		for (size_t j = 0; j < items[i].spki.len; j++)
			assert(items[i].spki.data[j] <= 0xff); /* reads every octet */
		items[i].status = err_set(&items[i].refusal, ERR_DENIED, "profile_unknown", "no");
	}
	return OK;
}

static enum status
refuse_sign(struct ca_signer *signer, struct ca_sign_item *items, size_t count, struct err *err)
{
	(void)signer;
	(void)err;
	for (size_t i = 0; i < count; i++)
		items[i].status = err_set(&items[i].refusal, ERR_NOT_FOUND, "handle_unknown", "no");
	return OK;
}

static enum status
accept_drop(struct ca_signer *signer, const uint64_t *handles, size_t count, struct err *err)
{
	(void)signer;
	(void)handles;
	(void)err;
	assert(count <= SIGNER_BATCH_MAX);
	return OK;
}

static enum status
accept_begin(struct ca_signer *signer, const char *ca_id, struct err *err)
{
	(void)signer;
	(void)err;
	assert(strlen(ca_id) < CA_ID_BYTES);
	return OK;
}

static enum status
accept_add(struct ca_signer *signer, struct view piece, struct err *err)
{
	(void)signer;
	(void)err;
	assert(piece.len <= WIRE_PIECE_MAX_BYTES);
	return OK;
}

static enum status
give_tail(struct ca_signer *signer, struct bytes *tail, struct err *err)
{
	(void)signer;
	return bytes_copy(tail, view_text("tail"), err);
}

static enum status
accept_block(struct ca_signer *signer, const uint8_t spki_sha256[32], struct err *err)
{
	(void)signer;
	(void)spki_sha256;
	(void)err;
	return OK;
}

static enum status
give_key(struct ca_signer *signer, const char *ca_id, struct bytes *spki, struct err *err)
{
	(void)signer;
	assert(strlen(ca_id) < CA_ID_BYTES);
	return bytes_copy(spki, view_text("key"), err);
}

static enum status
answer_ocsp(struct ca_signer *signer, struct ca_ocsp_item *items, size_t count, struct err *err)
{
	(void)signer;
	(void)err;
	for (size_t i = 0; i < count; i++) {
		assert(strlen(items[i].ca_id) < CA_ID_BYTES);
		items[i].status = OK;
		items[i].signature_len = items[i].data.len % sizeof(items[i].signature);
		memset(items[i].signature, 's', sizeof(items[i].signature));
	}
	return OK;
}

static enum status
no_info(struct ca_signer *signer, struct ca_signer_info *out, struct err *err)
{
	(void)signer;
	(void)out;
	(void)err;
	return OK;
}

static const struct ca_signer_ops OPS = {
	.prepare = refuse_prepare,
	.sign = refuse_sign,
	.drop = accept_drop,
	.crl_begin = accept_begin,
	.crl_add = accept_add,
	.crl_end = give_tail,
	.block_key = accept_block,
	.ocsp_key = give_key,
	.ocsp_sign = answer_ocsp,
	.info = no_info,
};

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static const uint8_t HELLO[] = { 0, 0, 0, 10, WIRE_HELLO, 0, 0, 0, 0, 0x6a, 0x72, 0x63,
		0x6b, 0, WIRE_VERSION };
	static struct ca_signer signer = { .ops = &OPS };
	static struct ca_signer_server *server; /* kept: a sanitizer takes long to make a megabyte */
	struct err err;
	int pair[2];

	/* Nobody reads the answers: a socket holds those of so many small questions. */
	if (len < 1 || len > 1024)
		return 0;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
		abort();
	if ((data[0] & 1) != 0 &&
		send(pair[0], HELLO, sizeof(HELLO), MSG_NOSIGNAL) != (ssize_t)sizeof(HELLO))
		abort();
	if (len > 1 && send(pair[0], data + 1, len - 1, MSG_NOSIGNAL) != (ssize_t)(len - 1))
		abort();
	(void)shutdown(pair[0], SHUT_WR);
	if (server == NULL && ca_signer_server_new(&server, &signer, &err) != OK)
		abort();
	(void)!ca_signer_server_run(server, pair[1], &err);
	(void)close(pair[0]);
	(void)close(pair[1]);
	return 0;
}
