#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "ca/signer_ops.h"
#include "ca/signer_wire.h"

/* A batch of 256 signatures by RSA-4096 takes one second; ten are a signer that hangs. */
#define ANSWER_TIMEOUT_MS 10000

struct remote {
	struct ca_signer signer; /* first */
	int fd;
	bool broken;
	struct wire_writer out;
	struct buf in;
};

static struct remote *
remote_of(struct ca_signer *signer)
{
	return (struct remote *)(void *)signer;
}

/* Once a message went wrong, what comes next on the stream means nothing. */
static enum status
lost(struct remote *remote, struct err *err, const char *what)
{
	remote->broken = true;
	(void)err_set(err, ERR_UNAVAILABLE, "signer_away", "signer: %s", what);
	err->retry_after_s = 1;
	return ERR_UNAVAILABLE;
}

/* Sends the question in remote->out and reads the answer up to its status. */
static enum status
ask(struct remote *remote, unsigned type, struct wire_reader *answer, struct err *err)
{
	int64_t deadline_ms = clock_mono_ms(&CLOCK_SYSTEM) + ANSWER_TIMEOUT_MS;
	struct err why;
	unsigned got = 0;
	enum status status;

	if (remote->broken)
		return lost(remote, err, "the connection is lost");
	TRY(wire_end(&remote->out, err));
	status = wire_send(remote->fd, &remote->out, deadline_ms, &why);
	if (status == OK)
		status = wire_receive(remote->fd, &remote->in, &got, deadline_ms, &why);
	if (status != OK)
		return lost(remote, err, why.text);
	if (got != (type | WIRE_ANSWER))
		return lost(remote, err,
			got == 0 ? "the connection is closed"
				 : "an answer to another"
				   " question");
	*answer = (struct wire_reader){ .rest = buf_view(&remote->in) };
	status = wire_get_err(answer, err);
	if (answer->failed)
		return lost(remote, err, "an answer that cannot be read");
	if (status != OK && wire_done(answer, &why) != OK)
		return lost(remote, err, why.text);
	return status;
}

/* The answer was read to its end? */
static enum status
finish(struct remote *remote, const struct wire_reader *answer, struct err *err)
{
	struct err why;

	if (wire_done(answer, &why) != OK)
		return lost(remote, err, why.text);
	return OK;
}

/* A question without anything to read in its answer. */
static enum status
tell(struct remote *remote, unsigned type, struct err *err)
{
	struct wire_reader answer;

	TRY(ask(remote, type, &answer, err));
	return finish(remote, &answer, err);
}

static enum status
check_item(const struct ca_prepare_item *item, struct err *err)
{
	if (item->spki.len > WIRE_SPKI_MAX_BYTES || strlen(item->ca_id) >= CA_ID_BYTES ||
		item->request->attribute_count > CA_ATTRIBUTES_MAX)
		return err_set(err, ERR_ARGUMENT, "signer_request",
			"signer: a key, a CA's id or attributes over their limits");
	return OK;
}

static enum status
remote_prepare(
	struct ca_signer *signer, struct ca_prepare_item *items, size_t count, struct err *err)
{
	struct remote *remote = remote_of(signer);
	struct wire_reader answer;

	for (size_t i = 0; i < count; i++)
		TRY(check_item(&items[i], err));
	wire_begin(&remote->out, WIRE_PREPARE);
	wire_put_u16(&remote->out, count);
	for (size_t i = 0; i < count; i++)
		wire_put_prepare(&remote->out, &items[i]);
	TRY(ask(remote, WIRE_PREPARE, &answer, err));
	for (size_t i = 0; i < count; i++)
		wire_get_prepared(&answer, &items[i]);
	return finish(remote, &answer, err);
}

/* All or nothing: certificates of a batch whose answer broke are freed. */
static enum status
read_signed(struct remote *remote, struct wire_reader *answer, struct ca_sign_item *items,
	size_t count, struct err *err)
{
	for (size_t i = 0; i < count; i++) {
		enum status status = wire_get_signed(answer, &items[i], err);

		/* What has been signed cannot be asked for again: the batch is lost. */
		if (status != OK)
			return lost(remote, err, "memory is short");
	}
	return finish(remote, answer, err);
}

static enum status
remote_sign(struct ca_signer *signer, struct ca_sign_item *items, size_t count, struct err *err)
{
	struct remote *remote = remote_of(signer);
	struct wire_reader answer;
	enum status status;

	for (size_t i = 0; i < count; i++)
		items[i].der = (struct bytes){ NULL, 0 };
	wire_begin(&remote->out, WIRE_SIGN);
	wire_put_u16(&remote->out, count);
	for (size_t i = 0; i < count; i++)
		wire_put_u64(&remote->out, items[i].handle);
	TRY(ask(remote, WIRE_SIGN, &answer, err));
	status = read_signed(remote, &answer, items, count, err);
	for (size_t i = 0; status != OK && i < count; i++)
		bytes_free(&items[i].der);
	return status;
}

static enum status
remote_drop(struct ca_signer *signer, const uint64_t *handles, size_t count, struct err *err)
{
	struct remote *remote = remote_of(signer);

	wire_begin(&remote->out, WIRE_DROP);
	wire_put_u16(&remote->out, count);
	for (size_t i = 0; i < count; i++)
		wire_put_u64(&remote->out, handles[i]);
	return tell(remote, WIRE_DROP, err);
}

static enum status
remote_crl_begin(struct ca_signer *signer, const char *ca_id, struct err *err)
{
	struct remote *remote = remote_of(signer);

	wire_begin(&remote->out, WIRE_CRL_BEGIN);
	wire_put_text(&remote->out, ca_id);
	return tell(remote, WIRE_CRL_BEGIN, err);
}

static enum status
remote_crl_add(struct ca_signer *signer, struct view piece, struct err *err)
{
	struct remote *remote = remote_of(signer);

	while (piece.len > 0) {
		size_t len = piece.len < WIRE_PIECE_MAX_BYTES ? piece.len : WIRE_PIECE_MAX_BYTES;

		wire_begin(&remote->out, WIRE_CRL_ADD);
		wire_put_view(&remote->out, (struct view){ piece.data, len });
		TRY(tell(remote, WIRE_CRL_ADD, err));
		piece.data += len;
		piece.len -= len;
	}
	return OK;
}

static enum status
remote_crl_end(struct ca_signer *signer, struct bytes *tail, struct err *err)
{
	struct remote *remote = remote_of(signer);
	struct wire_reader answer;
	enum status status;

	wire_begin(&remote->out, WIRE_CRL_END);
	TRY(ask(remote, WIRE_CRL_END, &answer, err));
	TRY(bytes_copy(tail, wire_get_view(&answer, 1024), err));
	status = finish(remote, &answer, err);
	if (status != OK)
		bytes_free(tail);
	return status;
}

static enum status
remote_block_key(struct ca_signer *signer, const uint8_t spki_sha256[32], struct err *err)
{
	struct remote *remote = remote_of(signer);

	wire_begin(&remote->out, WIRE_BLOCK);
	wire_put_octets(&remote->out, spki_sha256, 32);
	return tell(remote, WIRE_BLOCK, err);
}

static enum status
remote_ocsp_key(
	struct ca_signer *signer, const char *ca_id, struct bytes *spki, struct err *err)
{
	struct remote *remote = remote_of(signer);
	struct wire_reader answer;
	enum status status;

	wire_begin(&remote->out, WIRE_OCSP_KEY);
	wire_put_text(&remote->out, ca_id);
	TRY(ask(remote, WIRE_OCSP_KEY, &answer, err));
	TRY(bytes_copy(spki, wire_get_view(&answer, WIRE_SPKI_MAX_BYTES), err));
	status = finish(remote, &answer, err);
	if (status != OK)
		bytes_free(spki);
	return status;
}

static enum status
remote_ocsp_sign(
	struct ca_signer *signer, struct ca_ocsp_item *items, size_t count, struct err *err)
{
	struct remote *remote = remote_of(signer);
	struct wire_reader answer;

	wire_begin(&remote->out, WIRE_OCSP_SIGN);
	wire_put_u16(&remote->out, count);
	for (size_t i = 0; i < count; i++)
		wire_put_ocsp(&remote->out, &items[i]);
	TRY(ask(remote, WIRE_OCSP_SIGN, &answer, err));
	for (size_t i = 0; i < count; i++)
		wire_get_ocsp_signed(&answer, &items[i]);
	return finish(remote, &answer, err);
}

static enum status
remote_checkpoint(struct ca_signer *signer, const struct ca_checkpoint *checkpoint, struct bytes *note,
	struct err *err)
{
	struct remote *remote = remote_of(signer);
	struct wire_reader answer;
	enum status status;

	wire_begin(&remote->out, WIRE_CHECKPOINT);
	wire_put_checkpoint(&remote->out, checkpoint);
	TRY(ask(remote, WIRE_CHECKPOINT, &answer, err));
	TRY(bytes_copy(note, wire_get_view(&answer, CA_CHECKPOINT_NOTE_MAX_BYTES), err));
	status = finish(remote, &answer, err);
	if (status != OK)
		bytes_free(note);
	return status;
}

static enum status
remote_info(struct ca_signer *signer, struct ca_signer_info *out, struct err *err)
{
	struct remote *remote = remote_of(signer);
	struct wire_reader answer;

	wire_begin(&remote->out, WIRE_INFO);
	TRY(ask(remote, WIRE_INFO, &answer, err));
	TRY(wire_get_info(&answer, out, err));
	return finish(remote, &answer, err);
}

static void
remote_end(struct remote *remote)
{
	wire_writer_free(&remote->out);
	buf_free(&remote->in);
	mem_free(remote);
}

static void
remote_free(struct ca_signer *signer)
{
	struct remote *remote = remote_of(signer);

	(void)close(remote->fd);
	remote_end(remote);
}

static const struct ca_signer_ops REMOTE_OPS = {
	.prepare = remote_prepare,
	.sign = remote_sign,
	.drop = remote_drop,
	.crl_begin = remote_crl_begin,
	.crl_add = remote_crl_add,
	.crl_end = remote_crl_end,
	.block_key = remote_block_key,
	.ocsp_key = remote_ocsp_key,
	.ocsp_sign = remote_ocsp_sign,
	.checkpoint = remote_checkpoint,
	.info = remote_info,
	.end = remote_free,
};

static enum status
hello(struct remote *remote, struct err *err)
{
	struct wire_reader answer;

	wire_begin(&remote->out, WIRE_HELLO);
	wire_put_u64(&remote->out, WIRE_MAGIC);
	wire_put_u16(&remote->out, WIRE_VERSION);
	TRY(ask(remote, WIRE_HELLO, &answer, err));
	if (wire_get_u16(&answer) != WIRE_VERSION)
		return lost(remote, err, "another version of the protocol");
	return finish(remote, &answer, err);
}

enum status
ca_signer_remote(struct ca_signer **out, int fd, struct err *err)
{
	struct remote *remote = mem_zalloc(sizeof(*remote));
	enum status status;

	if (remote == NULL)
		return err_memory(err);
	remote->signer.ops = &REMOTE_OPS;
	remote->fd = fd;
	remote->in.limit_bytes = WIRE_MESSAGE_MAX_BYTES;
	wire_writer_init(&remote->out);
	status = hello(remote, err);
	if (status != OK) {
		remote_end(remote); /* fd stays the caller's */
		return status;
	}
	*out = &remote->signer;
	return OK;
}
