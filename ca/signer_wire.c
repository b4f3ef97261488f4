#include "ca/signer_wire.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "ca/ocsp.h"

/* ---- writing ---- */

void
wire_writer_init(struct wire_writer *w)
{
	*w = (struct wire_writer){
		.buf = { .limit_bytes = WIRE_MESSAGE_MAX_BYTES + WIRE_HEADER_BYTES },
		.status = OK,
	};
}

void
wire_writer_free(struct wire_writer *w)
{
	buf_free(&w->buf);
}

void
wire_put_octets(struct wire_writer *w, const uint8_t *data, size_t len)
{
	if (w->status == OK && len > 0)
		w->status = buf_add(&w->buf, data, len, &w->err);
}

static void
put_number(struct wire_writer *w, uint64_t value, size_t octets)
{
	uint8_t out[8];

	for (size_t i = 0; i < octets; i++)
		out[i] = (uint8_t)(value >> 8 * (octets - 1 - i) & 255);
	wire_put_octets(w, out, octets);
}

void
wire_begin(struct wire_writer *w, unsigned type)
{
	w->buf.len = 0;
	w->status = OK;
	put_number(w, 0, 4);
	put_number(w, type, 1);
}

void
wire_put_u8(struct wire_writer *w, uint8_t value)
{
	put_number(w, value, 1);
}

void
wire_put_u16(struct wire_writer *w, size_t value)
{
	put_number(w, value, 2);
}

void
wire_put_u64(struct wire_writer *w, uint64_t value)
{
	put_number(w, value, 8);
}

void
wire_put_view(struct wire_writer *w, struct view value)
{
	put_number(w, value.len, 4);
	wire_put_octets(w, value.data, value.len);
}

void
wire_put_text(struct wire_writer *w, const char *text)
{
	wire_put_view(w, view_text(text));
}

void
wire_put_err(struct wire_writer *w, enum status status, const struct err *err)
{
	wire_put_u8(w, (uint8_t)status);
	if (status == OK)
		return;
	wire_put_text(w, err->code);
	wire_put_text(w, err->text);
	wire_put_u64(w, (uint64_t)err->retry_after_s);
}

enum status
wire_end(struct wire_writer *w, struct err *err)
{
	size_t len = w->buf.len - WIRE_HEADER_BYTES;

	if (w->status == ERR_TOO_LARGE)
		return err_set(err, ERR_TOO_LARGE, "signer_message",
			"signer: a message of at most %zu octets wanted", WIRE_MESSAGE_MAX_BYTES);
	if (w->status != OK) {
		*err = w->err;
		return w->status;
	}
	for (size_t i = 0; i < 4; i++)
		w->buf.data[i] = (uint8_t)(len >> 8 * (3 - i) & 255);
	return OK;
}

/* ---- reading ---- */

static const uint8_t *
take(struct wire_reader *r, size_t len)
{
	const uint8_t *at = r->rest.data;

	if (r->failed || len > r->rest.len) {
		r->failed = true;
		return NULL;
	}
	r->rest.data += len;
	r->rest.len -= len;
	return at;
}

static uint64_t
get_number(struct wire_reader *r, size_t octets)
{
	const uint8_t *at = take(r, octets);
	uint64_t value = 0;

	for (size_t i = 0; at != NULL && i < octets; i++)
		value = value << 8 | at[i];
	return value;
}

uint8_t
wire_get_u8(struct wire_reader *r)
{
	return (uint8_t)get_number(r, 1);
}

size_t
wire_get_u16(struct wire_reader *r)
{
	return (size_t)get_number(r, 2);
}

uint64_t
wire_get_u64(struct wire_reader *r)
{
	return get_number(r, 8);
}

void
wire_get_octets(struct wire_reader *r, uint8_t *out, size_t len)
{
	const uint8_t *at = take(r, len);

	if (at != NULL)
		memcpy(out, at, len);
	else
		memset(out, 0, len);
}

struct view
wire_get_view(struct wire_reader *r, size_t most)
{
	size_t len = (size_t)get_number(r, 4);
	const uint8_t *at;

	if (len > most)
		r->failed = true;
	at = take(r, len);
	return at != NULL ? (struct view){ at, len } : (struct view){ NULL, 0 };
}

void
wire_get_text(struct wire_reader *r, char *out, size_t size)
{
	struct view text = wire_get_view(r, size - 1);

	if (text.len > 0 && memchr(text.data, 0, text.len) != NULL) {
		r->failed = true;
		text.len = 0;
	}
	if (text.len > 0)
		memcpy(out, text.data, text.len);
	out[text.len] = '\0';
}

bool
wire_get_bool(struct wire_reader *r)
{
	uint8_t value = wire_get_u8(r);

	if (value > 1)
		r->failed = true;
	return value == 1;
}

enum status
wire_get_err(struct wire_reader *r, struct err *err)
{
	unsigned status = wire_get_u8(r);
	struct err got = { .status = ERR_INTERNAL };

	if (!r->failed && status == OK)
		return OK;
	if (status > ERR_UNAVAILABLE)
		r->failed = true;
	else
		got.status = (enum status)status;
	wire_get_text(r, got.code, sizeof(got.code));
	wire_get_text(r, got.text, sizeof(got.text));
	got.retry_after_s = (int64_t)wire_get_u64(r);
	*err = got;
	/* A broken message never reads as a success. */
	return got.status != OK ? got.status : ERR_INTERNAL;
}

size_t
wire_get_count(struct wire_reader *r, size_t most)
{
	size_t count = wire_get_u16(r);

	if (count > most)
		r->failed = true;
	return r->failed ? 0 : count;
}

enum status
wire_done(const struct wire_reader *r, struct err *err)
{
	if (r->failed || r->rest.len > 0)
		return err_set(err, ERR_ARGUMENT, "signer_protocol",
			"signer: fields that do not fit their message");
	return OK;
}

/* ---- prepare ---- */

void
wire_put_prepare(struct wire_writer *w, const struct ca_prepare_item *item)
{
	const struct ca_request *request = item->request;

	wire_put_octets(w, item->profile_hash, sizeof(item->profile_hash));
	wire_put_text(w, item->ca_id);
	wire_put_view(w, item->spki);
	wire_put_text(w, request->device_id);
	wire_put_text(w, request->thing_type);
	wire_put_u16(w, request->attribute_count);
	for (size_t i = 0; i < request->attribute_count; i++) {
		wire_put_text(w, request->attributes[i].name);
		wire_put_text(w, request->attributes[i].value);
	}
	wire_put_u64(w, (uint64_t)item->validity_s);
	wire_put_u8(w, (uint8_t)item->asker);
}

void
wire_get_prepare(struct wire_reader *r, struct ca_prepare_item *item, struct ca_request *request,
	char ca_id[CA_ID_BYTES])
{
	wire_get_octets(r, item->profile_hash, sizeof(item->profile_hash));
	wire_get_text(r, ca_id, CA_ID_BYTES);
	item->ca_id = ca_id;
	item->spki = wire_get_view(r, WIRE_SPKI_MAX_BYTES);
	wire_get_text(r, request->device_id, sizeof(request->device_id));
	wire_get_text(r, request->thing_type, sizeof(request->thing_type));
	request->attribute_count = wire_get_count(r, CA_ATTRIBUTES_MAX);
	for (size_t i = 0; i < request->attribute_count; i++) {
		wire_get_text(r, request->attributes[i].name, sizeof(request->attributes[i].name));
		wire_get_text(
			r, request->attributes[i].value, sizeof(request->attributes[i].value));
	}
	item->request = request;
	item->validity_s = (int64_t)wire_get_u64(r);
	item->asker = (enum ca_asker)wire_get_u8(r);
}

void
wire_put_prepared(struct wire_writer *w, const struct ca_prepare_item *item)
{
	wire_put_err(w, item->status, &item->refusal);
	if (item->status != OK)
		return;
	wire_put_u64(w, item->handle);
	wire_put_octets(w, item->serial.octets, SERIAL_BYTES);
	wire_put_octets(w, item->tbs_sha256, sizeof(item->tbs_sha256));
	wire_put_u64(w, (uint64_t)item->not_before_s);
	wire_put_u64(w, (uint64_t)item->not_after_s);
	wire_put_u8(w, item->clamped);
	wire_put_text(w, item->subject);
}

void
wire_get_prepared(struct wire_reader *r, struct ca_prepare_item *item)
{
	item->status = wire_get_err(r, &item->refusal);
	if (item->status != OK)
		return;
	item->handle = wire_get_u64(r);
	wire_get_octets(r, item->serial.octets, SERIAL_BYTES);
	wire_get_octets(r, item->tbs_sha256, sizeof(item->tbs_sha256));
	item->not_before_s = (int64_t)wire_get_u64(r);
	item->not_after_s = (int64_t)wire_get_u64(r);
	item->clamped = wire_get_bool(r);
	wire_get_text(r, item->subject, sizeof(item->subject));
}

/* ---- sign ---- */

#define CERTIFICATE_MAX_BYTES 4096

void
wire_put_signed(struct wire_writer *w, const struct ca_sign_item *item)
{
	wire_put_err(w, item->status, &item->refusal);
	if (item->status != OK)
		return;
	wire_put_view(w, view_of(&item->der));
	wire_put_octets(w, item->sha256, sizeof(item->sha256));
}

enum status
wire_get_signed(struct wire_reader *r, struct ca_sign_item *item, struct err *err)
{
	struct view der;

	item->der = (struct bytes){ NULL, 0 };
	item->status = wire_get_err(r, &item->refusal);
	if (item->status != OK)
		return OK;
	der = wire_get_view(r, CERTIFICATE_MAX_BYTES);
	wire_get_octets(r, item->sha256, sizeof(item->sha256));
	return bytes_copy(&item->der, der, err);
}

/* ---- OCSP ---- */

void
wire_put_ocsp(struct wire_writer *w, const struct ca_ocsp_item *item)
{
	wire_put_text(w, item->ca_id);
	wire_put_octets(w, item->key_hash, sizeof(item->key_hash));
	wire_put_view(w, item->data);
}

void
wire_get_ocsp(struct wire_reader *r, struct ca_ocsp_item *item, char ca_id[CA_ID_BYTES])
{
	wire_get_text(r, ca_id, CA_ID_BYTES);
	item->ca_id = ca_id;
	wire_get_octets(r, item->key_hash, sizeof(item->key_hash));
	item->data = wire_get_view(r, OCSP_DATA_MAX_BYTES);
}

void
wire_put_ocsp_signed(struct wire_writer *w, const struct ca_ocsp_item *item)
{
	wire_put_err(w, item->status, &item->refusal);
	if (item->status == OK)
		wire_put_view(w, (struct view){ item->signature, item->signature_len });
}

void
wire_get_ocsp_signed(struct wire_reader *r, struct ca_ocsp_item *item)
{
	struct view signature;

	item->signature_len = 0;
	item->status = wire_get_err(r, &item->refusal);
	if (item->status != OK)
		return;
	signature = wire_get_view(r, sizeof(item->signature));
	if (signature.len > 0)
		memcpy(item->signature, signature.data, signature.len);
	item->signature_len = signature.len;
}

/* ---- checkpoint ---- */

void
wire_put_checkpoint(struct wire_writer *w, const struct ca_checkpoint *checkpoint)
{
	wire_put_u64(w, (uint64_t)checkpoint->number);
	wire_put_octets(w, checkpoint->previous, sizeof(checkpoint->previous));
	wire_put_u64(w, (uint64_t)checkpoint->records);
	wire_put_octets(w, checkpoint->root, sizeof(checkpoint->root));
	wire_put_u16(w, checkpoint->lane_count);
	for (size_t i = 0; i < checkpoint->lane_count; i++) {
		const struct ca_checkpoint_lane *lane = &checkpoint->lanes[i];

		wire_put_u64(w, (uint64_t)lane->lane);
		wire_put_u64(w, (uint64_t)lane->seq);
		wire_put_octets(w, lane->head, sizeof(lane->head));
	}
}

void
wire_get_checkpoint(struct wire_reader *r, struct ca_checkpoint *checkpoint)
{
	*checkpoint = (struct ca_checkpoint){ .number = (int64_t)wire_get_u64(r) };
	wire_get_octets(r, checkpoint->previous, sizeof(checkpoint->previous));
	checkpoint->records = (int64_t)wire_get_u64(r);
	wire_get_octets(r, checkpoint->root, sizeof(checkpoint->root));
	checkpoint->lane_count = wire_get_count(r, CA_CHECKPOINT_LANES_MAX);
	for (size_t i = 0; i < checkpoint->lane_count; i++) {
		struct ca_checkpoint_lane *lane = &checkpoint->lanes[i];
		uint64_t number = wire_get_u64(r);

		if (number > INT32_MAX)
			r->failed = true;
		lane->lane = r->failed ? 0 : (int32_t)number;
		lane->seq = (int64_t)wire_get_u64(r);
		wire_get_octets(r, lane->head, sizeof(lane->head));
	}
}

/* ---- info ---- */

void
wire_put_info(struct wire_writer *w, const struct ca_signer_info *info)
{
	wire_put_u16(w, info->ca_count);
	for (size_t i = 0; i < info->ca_count; i++) {
		const struct ca_signer_ca *ca = &info->cas[i];

		wire_put_text(w, ca->ca_id);
		wire_put_u8(w, ca->is_root);
		wire_put_u8(w, ca->can_sign);
		wire_put_view(w, view_of(&ca->certificate));
		wire_put_u16(w, ca->chain_count);
		for (size_t j = 0; j < ca->chain_count; j++)
			wire_put_view(w, view_of(&ca->chain[j]));
	}
	wire_put_u16(w, info->profile_count);
	for (size_t i = 0; i < info->profile_count; i++)
		wire_put_octets(w, info->profile_hashes[i], sizeof(info->profile_hashes[i]));
	wire_put_u64(w, info->prepared);
	wire_put_u64(w, info->signed_count);
	wire_put_u8(w, info->has_checkpoint_key);
	wire_put_octets(w, info->checkpoint_key, sizeof(info->checkpoint_key));
}

/* Certificates of CAs, also foreign ones, with room to spare. */
#define CA_CERTIFICATE_MAX_BYTES 16384

static enum status
get_ca(struct wire_reader *r, struct ca_signer_ca *ca, struct err *err)
{
	size_t chain_count;

	wire_get_text(r, ca->ca_id, sizeof(ca->ca_id));
	ca->is_root = wire_get_bool(r);
	ca->can_sign = wire_get_bool(r);
	TRY(bytes_copy(&ca->certificate, wire_get_view(r, CA_CERTIFICATE_MAX_BYTES), err));
	chain_count = wire_get_count(r, COUNT_OF(ca->chain));
	for (size_t i = 0; i < chain_count; i++) {
		TRY(bytes_copy(&ca->chain[i], wire_get_view(r, CA_CERTIFICATE_MAX_BYTES), err));
		ca->chain_count++;
	}
	return OK;
}

enum status
wire_get_info(struct wire_reader *r, struct ca_signer_info *info, struct err *err)
{
	size_t ca_count = wire_get_count(r, COUNT_OF(info->cas));

	for (size_t i = 0; i < ca_count; i++) {
		info->ca_count++; /* before it is whole: what it has so far is freed with it */
		TRY(get_ca(r, &info->cas[i], err));
	}
	info->profile_count = wire_get_count(r, CA_PROFILES_MAX);
	for (size_t i = 0; i < info->profile_count; i++)
		wire_get_octets(r, info->profile_hashes[i], sizeof(info->profile_hashes[i]));
	info->prepared = wire_get_u64(r);
	info->signed_count = wire_get_u64(r);
	info->has_checkpoint_key = wire_get_bool(r);
	wire_get_octets(r, info->checkpoint_key, sizeof(info->checkpoint_key));
	return OK;
}

/* ---- the socket ---- */

static enum status
away(struct err *err, const char *what)
{
	(void)err_set(err, ERR_UNAVAILABLE, "signer_away", "signer: %s", what);
	err->retry_after_s = 1;
	return ERR_UNAVAILABLE;
}

/* Waits until fd can be read or written. */
static enum status
wait_for(int fd, short events, int64_t deadline_ms, struct err *err)
{
	for (;;) { /* until the deadline */
		struct pollfd poll_fd = { .fd = fd, .events = events };
		int64_t left_ms = -1;
		int ready;

		if (deadline_ms != 0) {
			left_ms = deadline_ms - clock_mono_ms(&CLOCK_SYSTEM);
			if (left_ms <= 0)
				return away(err, "no answer in time");
		}
		ready = poll(&poll_fd, 1, left_ms > INT32_MAX ? INT32_MAX : (int)left_ms);
		if (ready > 0)
			return OK;
		if (ready < 0 && errno != EINTR)
			return away(err, strerror(errno));
	}
}

enum status
wire_send(int fd, const struct wire_writer *w, int64_t deadline_ms, struct err *err)
{
	size_t sent = 0;

	while (sent < w->buf.len) {
		ssize_t now = send(
			fd, w->buf.data + sent, w->buf.len - sent, MSG_NOSIGNAL | MSG_DONTWAIT);

		if (now > 0)
			sent += (size_t)now;
		else if (now < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			TRY(wait_for(fd, POLLOUT, deadline_ms, err));
		else if (now == 0 || errno != EINTR)
			return away(err, "the connection is broken");
	}
	return OK;
}

/* *got: less than len only at the end of the stream. */
static enum status
receive(int fd, uint8_t *out, size_t len, size_t *got, int64_t deadline_ms, struct err *err)
{
	/* Who has no deadline waits in recv itself: half as many system calls. */
	const int flags = deadline_ms != 0 ? MSG_DONTWAIT : 0;

	*got = 0;
	while (*got < len) {
		ssize_t now = recv(fd, out + *got, len - *got, flags);

		if (now > 0)
			*got += (size_t)now;
		else if (now == 0 || errno == ECONNRESET)
			return OK;
		else if (errno == EAGAIN || errno == EWOULDBLOCK)
			TRY(wait_for(fd, POLLIN, deadline_ms, err));
		else if (errno != EINTR)
			return away(err, strerror(errno));
	}
	return OK;
}

enum status
wire_receive(int fd, struct buf *in, unsigned *type, int64_t deadline_ms, struct err *err)
{
	uint8_t header[WIRE_HEADER_BYTES];
	size_t len, got;

	*type = 0;
	in->len = 0;
	TRY(receive(fd, header, sizeof(header), &got, deadline_ms, err));
	if (got == 0)
		return OK;
	if (got < sizeof(header))
		return away(err, "the connection ended within a message");
	len = (size_t)header[0] << 24 | (size_t)header[1] << 16 | (size_t)header[2] << 8 |
	      header[3];
	if (len > WIRE_MESSAGE_MAX_BYTES || header[4] == 0)
		return err_set(err, ERR_ARGUMENT, "signer_protocol",
			"signer: a message of at most %zu octets and a type wanted",
			WIRE_MESSAGE_MAX_BYTES);
	TRY(buf_reserve(in, len, err));
	TRY(receive(fd, in->data, len, &got, deadline_ms, err));
	if (got < len)
		return away(err, "the connection ended within a message");
	in->len = len;
	*type = header[4];
	return OK;
}
