#include <string.h>

#include "base/mem.h"
#include "ca/signer_wire.h"

/* Its memory is made once: a megabyte. */
struct ca_signer_server {
	int fd;
	struct ca_signer *signer;
	bool greeted;
	struct buf in;
	struct wire_reader question;
	struct wire_writer answer;
	struct ca_prepare_item prepare[SIGNER_BATCH_MAX];
	struct ca_request requests[SIGNER_BATCH_MAX];
	char ca_ids[SIGNER_BATCH_MAX][CA_ID_BYTES];
	struct ca_sign_item sign[SIGNER_BATCH_MAX];
	uint64_t handles[SIGNER_BATCH_MAX];
	struct ca_ocsp_item ocsp[SIGNER_BATCH_MAX];
};

/*
 * Each reads its question and writes its answer. What it returns is about the connection:
 * ERR_ARGUMENT (signer_protocol) ends it. What the signer says goes into the answer.
 */
typedef enum status handle_fn(struct ca_signer_server *server, struct err *err);

/* The answer's status; true if there is more to say. */
static bool
put_outcome(struct ca_signer_server *server, enum status status, const struct err *why)
{
	wire_put_err(&server->answer, status, why);
	return status == OK;
}

static enum status
on_hello(struct ca_signer_server *server, struct err *err)
{
	uint64_t magic = wire_get_u64(&server->question);
	size_t version = wire_get_u16(&server->question);

	TRY(wire_done(&server->question, err));
	if (magic != WIRE_MAGIC || version != WIRE_VERSION || server->greeted)
		return err_set(err, ERR_ARGUMENT, "signer_protocol",
			"signer: one greeting of version %d wanted", WIRE_VERSION);
	server->greeted = true;
	(void)put_outcome(server, OK, NULL);
	wire_put_u16(&server->answer, WIRE_VERSION);
	return OK;
}

static enum status
on_prepare(struct ca_signer_server *server, struct err *err)
{
	size_t count = wire_get_count(&server->question, SIGNER_BATCH_MAX);
	enum status status;
	struct err why;

	for (size_t i = 0; i < count; i++) {
		server->prepare[i] = (struct ca_prepare_item){ .status = ERR_INTERNAL };
		wire_get_prepare(&server->question, &server->prepare[i], &server->requests[i],
			server->ca_ids[i]);
	}
	TRY(wire_done(&server->question, err));
	status = ca_signer_prepare(server->signer, server->prepare, count, &why);
	if (!put_outcome(server, status, &why))
		return OK;
	for (size_t i = 0; i < count; i++)
		wire_put_prepared(&server->answer, &server->prepare[i]);
	return OK;
}

static enum status
on_sign(struct ca_signer_server *server, struct err *err)
{
	size_t count = wire_get_count(&server->question, SIGNER_BATCH_MAX);
	enum status status;
	struct err why;

	for (size_t i = 0; i < count; i++)
		server->sign[i] = (struct ca_sign_item){
			.handle = wire_get_u64(&server->question),
		};
	TRY(wire_done(&server->question, err));
	status = ca_signer_sign(server->signer, server->sign, count, &why);
	if (!put_outcome(server, status, &why))
		return OK;
	for (size_t i = 0; i < count; i++) {
		wire_put_signed(&server->answer, &server->sign[i]);
		bytes_free(&server->sign[i].der);
	}
	return OK;
}

static enum status
on_drop(struct ca_signer_server *server, struct err *err)
{
	size_t count = wire_get_count(&server->question, SIGNER_BATCH_MAX);
	enum status status;
	struct err why;

	for (size_t i = 0; i < count; i++)
		server->handles[i] = wire_get_u64(&server->question);
	TRY(wire_done(&server->question, err));
	status = ca_signer_drop(server->signer, server->handles, count, &why);
	(void)put_outcome(server, status, &why);
	return OK;
}

static enum status
on_crl_begin(struct ca_signer_server *server, struct err *err)
{
	char ca_id[CA_ID_BYTES];
	enum status status;
	struct err why;

	wire_get_text(&server->question, ca_id, sizeof(ca_id));
	TRY(wire_done(&server->question, err));
	status = ca_signer_crl_begin(server->signer, ca_id, &why);
	(void)put_outcome(server, status, &why);
	return OK;
}

static enum status
on_crl_add(struct ca_signer_server *server, struct err *err)
{
	struct view piece = wire_get_view(&server->question, WIRE_PIECE_MAX_BYTES);
	enum status status;
	struct err why;

	TRY(wire_done(&server->question, err));
	status = ca_signer_crl_add(server->signer, piece, &why);
	(void)put_outcome(server, status, &why);
	return OK;
}

static enum status
on_crl_end(struct ca_signer_server *server, struct err *err)
{
	own_struct(bytes) tail = { NULL, 0 };
	enum status status;
	struct err why;

	TRY(wire_done(&server->question, err));
	status = ca_signer_crl_end(server->signer, &tail, &why);
	if (put_outcome(server, status, &why))
		wire_put_view(&server->answer, view_of(&tail));
	return OK;
}

static enum status
on_block(struct ca_signer_server *server, struct err *err)
{
	uint8_t spki_sha256[32];
	enum status status;
	struct err why;

	wire_get_octets(&server->question, spki_sha256, sizeof(spki_sha256));
	TRY(wire_done(&server->question, err));
	status = ca_signer_block_key(server->signer, spki_sha256, &why);
	(void)put_outcome(server, status, &why);
	return OK;
}

static enum status
on_ocsp_key(struct ca_signer_server *server, struct err *err)
{
	own_struct(bytes) spki = { NULL, 0 };
	char ca_id[CA_ID_BYTES];
	enum status status;
	struct err why;

	wire_get_text(&server->question, ca_id, sizeof(ca_id));
	TRY(wire_done(&server->question, err));
	status = ca_signer_ocsp_key(server->signer, ca_id, &spki, &why);
	if (put_outcome(server, status, &why))
		wire_put_view(&server->answer, view_of(&spki));
	return OK;
}

static enum status
on_ocsp_sign(struct ca_signer_server *server, struct err *err)
{
	size_t count = wire_get_count(&server->question, SIGNER_BATCH_MAX);
	enum status status;
	struct err why;

	for (size_t i = 0; i < count; i++)
		wire_get_ocsp(&server->question, &server->ocsp[i], server->ca_ids[i]);
	TRY(wire_done(&server->question, err));
	status = ca_signer_ocsp_sign(server->signer, server->ocsp, count, &why);
	if (!put_outcome(server, status, &why))
		return OK;
	for (size_t i = 0; i < count; i++)
		wire_put_ocsp_signed(&server->answer, &server->ocsp[i]);
	return OK;
}

static enum status
on_checkpoint(struct ca_signer_server *server, struct err *err)
{
	own_struct(bytes) note = { NULL, 0 };
	struct ca_checkpoint checkpoint;
	enum status status;
	struct err why;

	wire_get_checkpoint(&server->question, &checkpoint);
	TRY(wire_done(&server->question, err));
	status = ca_signer_checkpoint(server->signer, &checkpoint, &note, &why);
	if (put_outcome(server, status, &why))
		wire_put_view(&server->answer, view_of(&note));
	return OK;
}

static enum status
on_info(struct ca_signer_server *server, struct err *err)
{
	own_struct(ca_signer_info) info = { .ca_count = 0 };
	enum status status;
	struct err why;

	TRY(wire_done(&server->question, err));
	status = ca_signer_info(server->signer, &info, &why);
	if (put_outcome(server, status, &why))
		wire_put_info(&server->answer, &info);
	return OK;
}

static handle_fn *const HANDLERS[] = {
	[WIRE_HELLO] = on_hello,
	[WIRE_PREPARE] = on_prepare,
	[WIRE_SIGN] = on_sign,
	[WIRE_DROP] = on_drop,
	[WIRE_CRL_BEGIN] = on_crl_begin,
	[WIRE_CRL_ADD] = on_crl_add,
	[WIRE_CRL_END] = on_crl_end,
	[WIRE_BLOCK] = on_block,
	[WIRE_INFO] = on_info,
	[WIRE_OCSP_KEY] = on_ocsp_key,
	[WIRE_OCSP_SIGN] = on_ocsp_sign,
	[WIRE_CHECKPOINT] = on_checkpoint,
};

static enum status
answer(struct ca_signer_server *server, unsigned type, struct err *err)
{
	if (type >= COUNT_OF(HANDLERS) || HANDLERS[type] == NULL)
		return err_set(err, ERR_ARGUMENT, "signer_protocol",
			"signer: unknown message of type %u", type);
	if (!server->greeted && type != WIRE_HELLO)
		return err_set(
			err, ERR_ARGUMENT, "signer_protocol", "signer: a greeting wanted first");
	server->question = (struct wire_reader){ .rest = buf_view(&server->in) };
	wire_begin(&server->answer, type | WIRE_ANSWER);
	TRY(HANDLERS[type](server, err));
	TRY(wire_end(&server->answer, err));
	return wire_send(server->fd, &server->answer, 0, err);
}

static enum status
serve(struct ca_signer_server *server, struct err *err)
{
	for (;;) { /* until the peer closes */
		unsigned type = 0;

		TRY(wire_receive(server->fd, &server->in, &type, 0, err));
		if (type == 0)
			return OK;
		TRY(answer(server, type, err));
	}
}

enum status
ca_signer_server_new(struct ca_signer_server **out, struct ca_signer *signer, struct err *err)
{
	struct ca_signer_server *server = mem_zalloc(sizeof(*server));

	if (server == NULL)
		return err_memory(err);
	server->signer = signer;
	*out = server;
	return OK;
}

enum status
ca_signer_server_run(struct ca_signer_server *server, int fd, struct err *err)
{
	enum status status;

	server->fd = fd;
	server->greeted = false;
	server->in.limit_bytes = WIRE_MESSAGE_MAX_BYTES;
	wire_writer_init(&server->answer);
	status = serve(server, err);
	/* Made anew for each connection: what reads past a message is seen by sanitizers. */
	buf_free(&server->in);
	wire_writer_free(&server->answer);
	return status;
}

void
ca_signer_server_free(struct ca_signer_server *server)
{
	mem_free(server);
}

enum status
ca_signer_serve(int fd, struct ca_signer *signer, struct err *err)
{
	own(ca_signer_server) server = NULL;

	TRY(ca_signer_server_new(&server, signer, err));
	return ca_signer_server_run(server, fd, err);
}
