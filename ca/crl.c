#include "ca/crl.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "ca/cert.h"
#include "ca/der.h"
#include "ca/digest.h"
#include "ca/key.h"
#include "ca/spki.h"
#include "ca/tbs.h"

/* Pieces of the TBSCertList on their way to the signer. */
#define PIECE_BYTES ((size_t)256 << 10)
/* Tag and at most five octets of length. */
#define HEADER_MAX_BYTES 6

/* The dates of a day begin alike: what is in front of HHMMSSZ, with room for those. */
struct day {
	int64_t day; /* since the epoch */
	uint8_t text[17];
	uint8_t len; /* 0: none */
};
#define DAYS 64
#define DAY_S 86400

/*
 * The lengths in front of the entries are known last, so the entries come first, into a pile. They are
 * read twice then: for the signer, and into the list around which the last length is that of the signature.
 */
struct ca_crl {
	char ca_id[CA_ID_BYTES];
	struct bytes front;      /* version to nextUpdate */
	struct bytes extensions; /* [0] crlExtensions */
	struct pile entries;
	struct buf head;         /* headers and front, once the entries are all there */
	uint64_t front_bytes;    /* with the list's own header; once it is signed */
	struct serial last;
	uint64_t count;
	bool delta;
	bool closed;            /* ca_crl_sign has been called */
	struct der_writer time; /* work space */
	struct day days[DAYS];  /* entries of a list come from a few days, whatever their order */
	uint8_t piece[PIECE_BYTES];
};

void
ca_crl_free(struct ca_crl *crl)
{
	if (crl == NULL)
		return;
	bytes_free(&crl->front);
	bytes_free(&crl->extensions);
	pile_free(&crl->entries);
	buf_free(&crl->head);
	der_writer_free(&crl->time);
	mem_free(crl);
}

typedef struct ca_crl ca_crl;
OWNER(ca_crl, ca_crl_free)

/* ---- building (RFC 5280 5.1.2, 5.2) ---- */

static void
extension_open(struct der_writer *w, const char *oid, bool critical)
{
	der_open(w, DER_SEQUENCE);
	der_put_oid(w, oid);
	if (critical)
		der_put_boolean(w, true);
	der_open(w, DER_OCTET_STRING);
}

static void
extension_close(struct der_writer *w)
{
	der_close(w);
	der_close(w);
}

static enum status
issuer_algorithm(struct view spki, struct view *algorithm, struct err *err)
{
	own(ca_verifier) verifier = NULL;
	enum ca_key_type type;

	TRY(ca_verifier_new(&verifier, err));
	TRY(ca_spki_check(verifier, spki, &type, err));
	*algorithm = ca_key_type_algorithm(type);
	if (algorithm->len == 0)
		return err_set(
			err, ERR_ARGUMENT, "crl_issuer", "crl: the issuer's key is none of a CA");
	return OK;
}

static enum status
make_front(struct ca_crl *crl, const struct ca_crl_head *head, const struct ca_cert_view *issuer,
	struct err *err)
{
	own_struct(der_writer) w = { .status = OK };
	struct view algorithm;

	der_writer_init(&w, 4096);
	TRY(issuer_algorithm(issuer->spki, &algorithm, err));
	der_put_number(&w, 1); /* 5.1.2.1: v2 */
	der_put_raw(&w, algorithm);
	der_put_raw(&w, issuer->subject);
	der_put_time(&w, head->this_update_s);
	der_put_time(&w, head->next_update_s);
	TRY(der_finish(&w, err));
	return bytes_copy(&crl->front, buf_view(&w.buf), err);
}

/* A DistributionPointName of one URL, as it stands in IDP and freshestCRL. */
static void
put_point_name(struct der_writer *w, const char *url)
{
	der_open(w, DER_CONTEXT_CONSTRUCTED(0));
	der_open(w, DER_CONTEXT_CONSTRUCTED(0));
	der_put(w, DER_CONTEXT(6), view_text(url));
	der_close(w);
	der_close(w);
}

static void
put_scope(struct der_writer *w, const struct ca_crl_head *head)
{
	if (head->delta) {
		extension_open(w, "2.5.29.27", true); /* 5.2.4: deltaCRLIndicator */
		der_put_number(w, head->base_number);
		extension_close(w);
	}
	if (head->distribution_point != NULL) {
		extension_open(w, "2.5.29.28", true); /* 5.2.5 */
		der_open(w, DER_SEQUENCE);
		put_point_name(w, head->distribution_point);
		der_close(w);
		extension_close(w);
	}
	if (head->freshest != NULL) {
		extension_open(w, "2.5.29.46", false); /* 5.2.6 */
		der_open(w, DER_SEQUENCE);
		der_open(w, DER_SEQUENCE);
		put_point_name(w, head->freshest);
		der_close(w);
		der_close(w);
		extension_close(w);
	}
}

static enum status
make_extensions(struct ca_crl *crl, const struct ca_crl_head *head,
	const struct ca_cert_view *issuer, struct err *err)
{
	own_struct(der_writer) w = { .status = OK };

	der_writer_init(&w, 4096);
	der_open(&w, DER_CONTEXT_CONSTRUCTED(0));
	der_open(&w, DER_SEQUENCE);
	extension_open(&w, "2.5.29.35", false); /* 5.2.1 */
	der_open(&w, DER_SEQUENCE);
	der_put(&w, DER_CONTEXT(0), issuer->ski);
	der_close(&w);
	extension_close(&w);
	extension_open(&w, "2.5.29.20", false); /* 5.2.3 */
	der_put_number(&w, head->number);
	extension_close(&w);
	put_scope(&w, head);
	der_close(&w);
	der_close(&w);
	TRY(der_finish(&w, err));
	return bytes_copy(&crl->extensions, buf_view(&w.buf), err);
}

static enum status
check_head(const struct ca_crl_head *head, const struct ca_cert_view *issuer, struct err *err)
{
	if (strlen(head->ca_id) >= CA_ID_BYTES)
		return err_set(
			err, ERR_ARGUMENT, "crl_issuer", "crl: ca_id: at most 64 octets wanted");
	if (issuer->ski.len == 0)
		return err_set(err, ERR_ARGUMENT, "crl_issuer",
			"crl: the issuer has no subjectKeyIdentifier (RFC 5280 4.2.1.2)");
	if (head->next_update_s <= head->this_update_s)
		return err_set(
			err, ERR_ARGUMENT, "crl_times", "crl: nextUpdate after thisUpdate wanted");
	/* 5.2.4: a delta is of the full list's scope, and points to no other; 5.2.6: nor does a shard. */
	if ((head->delta && (head->distribution_point != NULL || head->base_number > head->number)) ||
		(head->freshest != NULL && (head->delta || head->distribution_point != NULL)))
		return err_set(err, ERR_ARGUMENT, "crl_delta",
			"crl: a full list, a shard, or a delta since a list not after it wanted");
	if (head->number > INT64_MAX)
		return err_set(err, ERR_ARGUMENT, "crl_number", "crl: cRLNumber under 2^63 wanted");
	return OK;
}

enum status
ca_crl_begin(struct ca_crl **out, const struct ca_crl_head *head, const char *dir, struct err *err)
{
	own(ca_crl) crl = mem_zalloc(sizeof(*crl));
	struct ca_cert_view issuer;

	if (crl == NULL)
		return err_memory(err);
	pile_init(&crl->entries, dir, CRL_MEMORY_MAX_BYTES);
	crl->head.limit_bytes = 8192;
	crl->delta = head->delta;
	der_writer_init(&crl->time, 32);
	TRY(ca_cert_parse(&issuer, head->issuer_certificate, err));
	TRY(check_head(head, &issuer, err));
	(void)snprintf(crl->ca_id, sizeof(crl->ca_id), "%s", head->ca_id);
	TRY(make_front(crl, head, &issuer, err));
	TRY(make_extensions(crl, head, &issuer, err));
	*out = give(crl);
	return OK;
}

/* SEQUENCE, serial, time, and reasonCode: INTEGER 18, time 15 or 17, reason 14. */
#define ENTRY_MAX_BYTES 64

static enum status
put_entry(struct ca_crl *crl, const struct serial *serial, struct view time, int reason,
	struct err *err)
{
	/* 5.3.1: reasonCode, not critical, an ENUMERATED. */
	static const uint8_t REASON[] = { 0x30, 0x0c, 0x30, 0x0a, 0x06, 0x03, 0x55, 0x1d, 0x15,
		0x04, 0x03, 0x0a, 0x01 };
	uint8_t entry[ENTRY_MAX_BYTES] = { DER_SEQUENCE, 0, DER_INTEGER, SERIAL_BYTES };
	size_t len = 4;

	memcpy(entry + len, serial->octets, SERIAL_BYTES);
	len += SERIAL_BYTES;
	memcpy(entry + len, time.data, time.len);
	len += time.len;
	if (reason != 0) {
		memcpy(entry + len, REASON, sizeof(REASON));
		len += sizeof(REASON);
		entry[len++] = (uint8_t)reason;
	}
	entry[1] = (uint8_t)(len - 2);
	return pile_add(&crl->entries, entry, len, err);
}

static enum status
encode_day(struct ca_crl *crl, struct day *out, int64_t time_s, struct err *err)
{
	struct view time;

	out->len = 0;
	der_writer_reset(&crl->time);
	der_put_time(&crl->time, time_s);
	TRY(der_finish(&crl->time, err));
	time = buf_view(&crl->time.buf);
	assert(time.len <= sizeof(out->text));
	memcpy(out->text, time.data, time.len);
	out->len = (uint8_t)time.len;
	out->day = time_s / DAY_S;
	return OK;
}

static void
put_two(uint8_t *out, int64_t number)
{
	out[0] = (uint8_t)('0' + number / 10);
	out[1] = (uint8_t)('0' + number % 10);
}

static enum status
encode_time(struct ca_crl *crl, int64_t time_s, struct view *out, struct err *err)
{
	struct day *day = &crl->days[(uint64_t)(time_s / DAY_S) % DAYS];
	int64_t of_day = time_s % DAY_S;

	if (time_s < 0 || day->len == 0 || day->day != time_s / DAY_S) {
		TRY(encode_day(crl, day, time_s, err));
	} else {
		put_two(day->text + day->len - 7, of_day / 3600);
		put_two(day->text + day->len - 5, of_day / 60 % 60);
		put_two(day->text + day->len - 3, of_day % 60);
	}
	*out = (struct view){ day->text, day->len };
	return OK;
}

enum status
ca_crl_add(struct ca_crl *crl, const struct serial *serial, int64_t revoked_at_s, int reason,
	struct err *err)
{
	struct view time;

	if (crl->closed)
		return err_set(err, ERR_ARGUMENT, "crl_state", "crl: it is signed already");
	if (reason < 0 || reason > 10 || reason == 7 || (reason == CRL_REASON_REMOVED && !crl->delta))
		return err_set(err, ERR_ARGUMENT, "crl_reason",
			"crl: RFC 5280 5.3.1: reasonCode %d is not for a list", reason);
	if (serial->octets[0] < 0x01 || serial->octets[0] > 0x7f ||
		memcmp(serial->octets, crl->last.octets, SERIAL_BYTES) <= 0)
		return err_set(err, ERR_ARGUMENT, "crl_serial",
			"crl: ascending serials of our form wanted");
	TRY(encode_time(crl, revoked_at_s, &time, err));
	TRY(put_entry(crl, serial, time, reason, err));
	crl->last = *serial;
	crl->count++;
	return OK;
}

uint64_t
ca_crl_entry_count(const struct ca_crl *crl)
{
	return crl->count;
}

uint64_t
ca_crl_ready_bytes(const struct ca_crl *crl)
{
	return pile_ready(&crl->entries);
}

enum status
ca_crl_ready_read(const struct ca_crl *crl, uint64_t at, void *out, size_t len, struct err *err)
{
	return pile_read(&crl->entries, at, out, len, err);
}

uint64_t
ca_crl_front_bytes(const struct ca_crl *crl)
{
	return crl->front_bytes;
}

/* Tag and length (X.690 10.1: as few octets as it takes). */
static enum status
put_header(struct buf *buf, uint8_t tag, uint64_t len, struct err *err)
{
	uint8_t header[HEADER_MAX_BYTES];
	size_t end = sizeof(header), begin = end;

	if (len < 0x80) {
		header[--begin] = (uint8_t)len;
	} else {
		for (uint64_t rest = len; rest > 0 && begin > 2; rest >>= 8)
			header[--begin] = (uint8_t)(rest & 255);
		header[begin - 1] = (uint8_t)(0x80 | (end - begin));
		begin--;
	}
	header[--begin] = tag;
	return buf_add(buf, header + begin, end - begin, err);
}

/* More than twenty million entries, which the signer would refuse. */
#define ENTRIES_MAX_BYTES (UINT64_C(1) << 30)

/* What stands in front of the entries in the TBSCertList, its own header first. */
static enum status
close_tbs(struct ca_crl *crl, struct err *err)
{
	own_struct(buf) revoked = { .limit_bytes = HEADER_MAX_BYTES };
	uint64_t entries_len = pile_len(&crl->entries);

	TRY(pile_close(&crl->entries, err));
	if (entries_len > ENTRIES_MAX_BYTES)
		return err_set(err, ERR_TOO_LARGE, "crl_too_large",
			"crl: entries of at most 1 GiB wanted");
	if (crl->count > 0) /* 5.1.2.6: absent when there are none */
		TRY(put_header(&revoked, DER_SEQUENCE, entries_len, err));
	TRY(put_header(&crl->head, DER_SEQUENCE,
		crl->front.len + revoked.len + entries_len + crl->extensions.len, err));
	TRY(buf_add(&crl->head, crl->front.data, crl->front.len, err));
	return buf_add(&crl->head, revoked.data, revoked.len, err);
}

/* The TBSCertList, piece by piece. */
static enum status
each_piece(struct ca_crl *crl, enum status (*each)(void *arg, struct view piece, struct err *err),
	void *arg, struct err *err)
{
	uint64_t len = pile_len(&crl->entries);

	TRY(each(arg, buf_view(&crl->head), err));
	for (uint64_t at = 0; at < len;) {
		size_t now = len - at < PIECE_BYTES ? (size_t)(len - at) : PIECE_BYTES;

		TRY(pile_read(&crl->entries, at, crl->piece, now, err));
		TRY(each(arg, (struct view){ crl->piece, now }, err));
		at += now;
	}
	return each(arg, view_of(&crl->extensions), err);
}

static enum status
to_signer(void *signer, struct view piece, struct err *err)
{
	return ca_signer_crl_add(signer, piece, err);
}

struct output {
	struct pile *pile;
	struct ca_sha256 hash;
};

static enum status
to_output(void *arg, struct view piece, struct err *err)
{
	struct output *output = arg;

	ca_sha256_add(&output->hash, piece);
	return pile_add(output->pile, piece.data, piece.len, err);
}

/* CertificateList (5.1): the TBSCertList, and behind it what the signer gave. */
static enum status
write_list(struct ca_crl *crl, struct view tail, struct pile *out, uint8_t sha256[32],
	struct err *err)
{
	own_struct(buf) outer = { .limit_bytes = HEADER_MAX_BYTES };
	struct output output = { .pile = out };

	ca_sha256_begin(&output.hash);
	TRY(put_header(&outer, DER_SEQUENCE,
		crl->head.len + pile_len(&crl->entries) + crl->extensions.len + tail.len, err));
	crl->front_bytes = outer.len + crl->head.len;
	TRY(to_output(&output, buf_view(&outer), err));
	TRY(each_piece(crl, to_output, &output, err));
	TRY(to_output(&output, tail, err));
	ca_sha256_end(&output.hash, sha256);
	return pile_close(out, err);
}

enum status
ca_crl_sign(struct ca_crl *crl, struct ca_signer *signer, struct pile *out, uint8_t sha256[32],
	struct err *err)
{
	own_struct(bytes) tail = { NULL, 0 };

	if (crl->closed)
		return err_set(err, ERR_ARGUMENT, "crl_state", "crl: it is signed already");
	crl->closed = true;
	TRY(close_tbs(crl, err));
	TRY(ca_signer_crl_begin(signer, crl->ca_id, err));
	TRY(each_piece(crl, to_signer, signer, err));
	TRY(ca_signer_crl_end(signer, &tail, err));
	return write_list(crl, view_of(&tail), out, sha256, err);
}
