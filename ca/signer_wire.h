/*
 * ca/signer_wire.h - what the signer's client (ca/signer_remote.c) and server (ca/signer_serve.c)
 * say to each other over a stream socket. A message is its length (4 octets), its type (1) and its
 * fields; all numbers are big-endian, texts and octets have their length in front. An answer has
 * the type of its question with WIRE_ANSWER added, and begins with a status.
 *
 *   HELLO      magic, version            -> version
 *   PREPARE    count, items              -> an outcome an item
 *   SIGN       count, handles            -> an outcome a handle
 *   DROP       count, handles            ->
 *   CRL_BEGIN  ca_id                     ->
 *   CRL_ADD    piece                     ->
 *   CRL_END                              -> tail
 *   BLOCK      SHA-256 of a public key   ->
 *   OCSP_KEY   ca_id                     -> SubjectPublicKeyInfo
 *   OCSP_SIGN  count, items              -> an outcome an item
 *   CHECKPOINT struct ca_checkpoint      -> note
 *   INFO                                 -> struct ca_signer_info
 *
 * The first message must be HELLO. A message that is too long, of an unknown type, or whose fields
 * do not fill it exactly is ERR_ARGUMENT signer_protocol: whoever reads it closes. A reader keeps
 * its first failure; what it gives after that is zero. Nothing here allocates but the buffers.
 */
#ifndef CA_SIGNER_WIRE_H
#define CA_SIGNER_WIRE_H

#include "base/bytes.h"
#include "base/err.h"
#include "ca/signer.h"

/* 256 prepared items with all that they may carry are 0.9 MiB. */
#define WIRE_MESSAGE_MAX_BYTES ((size_t)1 << 20)
#define WIRE_HEADER_BYTES 5
#define WIRE_VERSION 1
#define WIRE_MAGIC 0x6a72636bu
#define WIRE_ANSWER 0x80u
/* Larger pieces of a CRL are cut by the client. */
#define WIRE_PIECE_MAX_BYTES ((size_t)512 << 10)
/* RSA-4096 is 550 octets. */
#define WIRE_SPKI_MAX_BYTES 800

enum wire_type {
	WIRE_HELLO = 1,
	WIRE_PREPARE,
	WIRE_SIGN,
	WIRE_DROP,
	WIRE_CRL_BEGIN,
	WIRE_CRL_ADD,
	WIRE_CRL_END,
	WIRE_BLOCK,
	WIRE_INFO,
	WIRE_OCSP_KEY,
	WIRE_OCSP_SIGN,
	WIRE_CHECKPOINT,
};

/* ---- fields ---- */

struct wire_writer {
	struct buf buf; /* limit_bytes: WIRE_MESSAGE_MAX_BYTES + WIRE_HEADER_BYTES */
	enum status status;
	struct err err;
};

void wire_writer_init(struct wire_writer *w);
void wire_writer_free(struct wire_writer *w);
/* Begins a message; the buffer's memory is kept from one to the next. */
void wire_begin(struct wire_writer *w, unsigned type);
void wire_put_u8(struct wire_writer *w, uint8_t value);
void wire_put_u16(struct wire_writer *w, size_t value);
void wire_put_u64(struct wire_writer *w, uint64_t value);
void wire_put_octets(
	struct wire_writer *w, const uint8_t *data, size_t len); /* of a fixed number */
void wire_put_view(struct wire_writer *w, struct view value);
void wire_put_text(struct wire_writer *w, const char *text);
void wire_put_err(struct wire_writer *w, enum status status, const struct err *err);
/* Sets the length in front; ERR_TOO_LARGE signer_message when it does not fit. */
MUST_USE enum status wire_end(struct wire_writer *w, struct err *err);

struct wire_reader {
	struct view rest;
	bool failed;
};

uint8_t wire_get_u8(struct wire_reader *r);
size_t wire_get_u16(struct wire_reader *r);
uint64_t wire_get_u64(struct wire_reader *r);
void wire_get_octets(struct wire_reader *r, uint8_t *out, size_t len);
struct view wire_get_view(struct wire_reader *r, size_t most);     /* borrowed */
void wire_get_text(struct wire_reader *r, char *out, size_t size); /* without NUL inside */
bool wire_get_bool(struct wire_reader *r);
/* OK, or another status with its err; anything else fails. */
enum status wire_get_err(struct wire_reader *r, struct err *err);
size_t wire_get_count(struct wire_reader *r, size_t most);
/* Everything was there and nothing is left; else ERR_ARGUMENT signer_protocol. */
MUST_USE enum status wire_done(const struct wire_reader *r, struct err *err);

/* ---- messages that both sides know ---- */

void wire_put_prepare(struct wire_writer *w, const struct ca_prepare_item *item);
/* Fills item's In half; the request goes to *request, the ca_id to *ca_id, spki borrows from r. */
void wire_get_prepare(struct wire_reader *r, struct ca_prepare_item *item,
	struct ca_request *request, char ca_id[CA_ID_BYTES]);
void wire_put_prepared(struct wire_writer *w, const struct ca_prepare_item *item);
void wire_get_prepared(struct wire_reader *r, struct ca_prepare_item *item);
void wire_put_signed(struct wire_writer *w, const struct ca_sign_item *item);
/* The caller frees item->der. */
MUST_USE enum status wire_get_signed(
	struct wire_reader *r, struct ca_sign_item *item, struct err *err);
void wire_put_ocsp(struct wire_writer *w, const struct ca_ocsp_item *item);
/* Fills item's In half; the ca_id to *ca_id, data borrows from r. */
void wire_get_ocsp(
	struct wire_reader *r, struct ca_ocsp_item *item, char ca_id[CA_ID_BYTES]);
void wire_put_ocsp_signed(struct wire_writer *w, const struct ca_ocsp_item *item);
void wire_get_ocsp_signed(struct wire_reader *r, struct ca_ocsp_item *item);
/* All but at_s, which is the signer's. */
void wire_put_checkpoint(struct wire_writer *w, const struct ca_checkpoint *checkpoint);
void wire_get_checkpoint(struct wire_reader *r, struct ca_checkpoint *checkpoint);
void wire_put_info(struct wire_writer *w, const struct ca_signer_info *info);
MUST_USE enum status wire_get_info(
	struct wire_reader *r, struct ca_signer_info *info, struct err *err);

/* ---- the socket ---- */

/* Sends what wire_end finished. deadline_ms on CLOCK_SYSTEM's mono_ms, or 0: waits. ERR_UNAVAILABLE
 * signer_away. */
MUST_USE enum status wire_send(
	int fd, const struct wire_writer *w, int64_t deadline_ms, struct err *err);
/*
 * Receives one message: *type, and its fields in in->data (grown, kept from one to the next). The
 * end of the stream between two messages is OK with *type 0. ERR_UNAVAILABLE signer_away;
 * ERR_ARGUMENT signer_protocol.
 */
MUST_USE enum status wire_receive(
	int fd, struct buf *in, unsigned *type, int64_t deadline_ms, struct err *err);

#endif
