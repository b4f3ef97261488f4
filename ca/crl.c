#include "ca/crl.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "ca/cert.h"
#include "ca/der.h"
#include "ca/key.h"
#include "ca/spki.h"
#include "ca/tbs.h"

/* Five million entries; a list that large goes out in shards. */
#define CRL_MAX_BYTES ((size_t)256 << 20)
/* Pieces of the TBSCertList on their way to the signer. */
#define PIECE_BYTES ((size_t)256 << 10)
/* Tag and at most five octets of length. */
#define HEADER_MAX_BYTES 6

/*
 * The list lies in one buffer as it will be: room for the headers, whose lengths are known last,
 * the fields in front, and the entries as they come. A million entries are neither copied nor held
 * twice.
 */
struct ca_crl {
	char ca_id[CA_ID_BYTES];
	struct bytes front;      /* version to nextUpdate */
	struct bytes extensions; /* [0] crlExtensions */
	struct buf buf;
	size_t entries_at;
	struct serial last;
	size_t count;
	bool closed;            /* ca_crl_sign has been called */
	struct der_writer time; /* work space */
};

void
ca_crl_free(struct ca_crl *crl)
{
	if (crl == NULL)
		return;
	bytes_free(&crl->front);
	bytes_free(&crl->extensions);
	buf_free(&crl->buf);
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
	if (head->distribution_point != NULL) {
		extension_open(&w, "2.5.29.28", true); /* 5.2.5 */
		der_open(&w, DER_SEQUENCE);
		der_open(&w, DER_CONTEXT_CONSTRUCTED(0));
		der_open(&w, DER_CONTEXT_CONSTRUCTED(0));
		der_put(&w, DER_CONTEXT(6), view_text(head->distribution_point));
		der_close(&w);
		der_close(&w);
		der_close(&w);
		extension_close(&w);
	}
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
	if (head->number > INT64_MAX)
		return err_set(err, ERR_ARGUMENT, "crl_number", "crl: cRLNumber under 2^63 wanted");
	return OK;
}

enum status
ca_crl_begin(struct ca_crl **out, const struct ca_crl_head *head, struct err *err)
{
	own(ca_crl) crl = mem_zalloc(sizeof(*crl));
	struct ca_cert_view issuer;

	if (crl == NULL)
		return err_memory(err);
	crl->buf.limit_bytes = CRL_MAX_BYTES;
	der_writer_init(&crl->time, 32);
	TRY(ca_cert_parse(&issuer, head->issuer_certificate, err));
	TRY(check_head(head, &issuer, err));
	(void)snprintf(crl->ca_id, sizeof(crl->ca_id), "%s", head->ca_id);
	TRY(make_front(crl, head, &issuer, err));
	TRY(make_extensions(crl, head, &issuer, err));
	/* CertificateList, TBSCertList and revokedCertificates have a header each. */
	crl->entries_at = 3 * HEADER_MAX_BYTES + crl->front.len;
	TRY(buf_reserve(&crl->buf, crl->entries_at, err));
	memset(crl->buf.data, 0, crl->entries_at);
	crl->buf.len = crl->entries_at;
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
	return buf_add(&crl->buf, entry, len, err);
}

enum status
ca_crl_add(struct ca_crl *crl, const struct serial *serial, int64_t revoked_at_s, int reason,
	struct err *err)
{
	if (crl->closed)
		return err_set(err, ERR_ARGUMENT, "crl_state", "crl: it is signed already");
	if (reason < 0 || reason > 10 || reason == 7 || reason == 8)
		return err_set(err, ERR_ARGUMENT, "crl_reason",
			"crl: RFC 5280 5.3.1: reasonCode %d is not for a list", reason);
	if (serial->octets[0] < 0x01 || serial->octets[0] > 0x7f ||
		memcmp(serial->octets, crl->last.octets, SERIAL_BYTES) <= 0)
		return err_set(err, ERR_ARGUMENT, "crl_serial",
			"crl: ascending serials of our form wanted");
	der_writer_reset(&crl->time);
	der_put_time(&crl->time, revoked_at_s);
	TRY(der_finish(&crl->time, err));
	TRY(put_entry(crl, serial, buf_view(&crl->time.buf), reason, err));
	crl->last = *serial;
	crl->count++;
	return OK;
}

size_t
ca_crl_entry_count(const struct ca_crl *crl)
{
	return crl->count;
}

/* Writes tag and length so that they end at `end`; where they begin. */
static size_t
put_header_before(uint8_t *data, size_t end, uint8_t tag, size_t len)
{
	uint8_t octets = 0;

	if (len < 0x80) {
		data[--end] = (uint8_t)len;
	} else {
		for (size_t rest = len; rest > 0; rest >>= 8, octets++)
			data[--end] = (uint8_t)(rest & 255);
		data[--end] = (uint8_t)(0x80 | octets);
	}
	data[--end] = tag;
	return end;
}

/* Puts front and headers before the entries, and extensions behind: the TBSCertList begins at *at.
 */
static enum status
close_tbs(struct ca_crl *crl, size_t *at, struct err *err)
{
	size_t begin = crl->entries_at, entries_len = crl->buf.len - crl->entries_at;

	TRY(buf_add(&crl->buf, crl->extensions.data, crl->extensions.len, err));
	if (crl->count > 0) /* 5.1.2.6: absent when there are none */
		begin = put_header_before(crl->buf.data, begin, DER_SEQUENCE, entries_len);
	begin -= crl->front.len;
	memcpy(crl->buf.data + begin, crl->front.data, crl->front.len);
	*at = put_header_before(crl->buf.data, begin, DER_SEQUENCE, crl->buf.len - begin);
	return OK;
}

static enum status
send_tbs(struct ca_crl *crl, struct ca_signer *signer, size_t at, struct bytes *tail,
	struct err *err)
{
	TRY(ca_signer_crl_begin(signer, crl->ca_id, err));
	while (at < crl->buf.len) {
		size_t len = crl->buf.len - at < PIECE_BYTES ? crl->buf.len - at : PIECE_BYTES;

		TRY(ca_signer_crl_add(signer, (struct view){ crl->buf.data + at, len }, err));
		at += len;
	}
	return ca_signer_crl_end(signer, tail, err);
}

enum status
ca_crl_sign(struct ca_crl *crl, struct ca_signer *signer, struct bytes *der, struct err *err)
{
	own_struct(bytes) tail = { NULL, 0 };
	size_t at = 0;

	if (crl->closed)
		return err_set(err, ERR_ARGUMENT, "crl_state", "crl: it is signed already");
	crl->closed = true;
	TRY(close_tbs(crl, &at, err));
	TRY(send_tbs(crl, signer, at, &tail, err));
	TRY(buf_add(&crl->buf, tail.data, tail.len, err));
	at = put_header_before(crl->buf.data, at, DER_SEQUENCE, crl->buf.len - at);
	memmove(crl->buf.data, crl->buf.data + at, crl->buf.len - at);
	crl->buf.len -= at;
	*der = buf_give(&crl->buf);
	return OK;
}

/* ---- reading ---- */

static struct der
reader(struct view der)
{
	return der_of(der, "crl_malformed", "crl");
}

/* Looks for cRLNumber; the other extensions are for those who rely on the list. */
static enum status
read_extensions(struct der *tbs, uint64_t *number, struct err *err)
{
	struct der tagged, list;
	bool found = false;

	TRY(der_enter(
		tbs, DER_CONTEXT_CONSTRUCTED(0), "RFC 5280 5.1.2.7: crlExtensions", &tagged, err));
	TRY(der_enter(&tagged, DER_SEQUENCE, "RFC 5280 5.1.2.7: Extensions", &list, err));
	TRY(der_end(&tagged, "RFC 5280 5.1.2.7: crlExtensions", err));
	while (!der_at_end(&list)) { /* bounded by the list's length */
		struct view oid, octets;
		struct der one, value;
		bool critical;

		TRY(der_enter(&list, DER_SEQUENCE, "RFC 5280 5.2: Extension", &one, err));
		TRY(der_oid(&one, "RFC 5280 5.2: extnID", &oid, err));
		TRY(der_boolean_default_false(&one, "RFC 5280 5.2: critical", &critical, err));
		TRY(der_octets(&one, "RFC 5280 5.2: extnValue", &octets, err));
		TRY(der_end(&one, "RFC 5280 5.2: Extension", err));
		if (!DER_OID_IS(oid, "\x55\x1d\x14"))
			continue;
		if (found)
			return der_refuse(tbs, err, "RFC 5280 5.2.3: cRLNumber: stands twice");
		found = true;
		value = reader(octets);
		TRY(der_number(&value, "RFC 5280 5.2.3: cRLNumber", number, err));
		TRY(der_end(&value, "RFC 5280 5.2.3: cRLNumber", err));
	}
	if (!found)
		return der_refuse(tbs, err, "RFC 5280 5.2.3: cRLNumber: wanted, not found");
	return OK;
}

static enum status
read_tbs(struct ca_crl_view *out, struct der *tbs, struct err *err)
{
	uint64_t version;
	struct view skip;

	TRY(der_number(tbs, "RFC 5280 5.1.2.1: version", &version, err));
	if (version != 1)
		return der_refuse(tbs, err, "RFC 5280 5.1.2.1: version 2 wanted");
	TRY(der_take(tbs, DER_SEQUENCE, "RFC 5280 5.1.2.2: signature", &skip, err));
	TRY(der_take(tbs, DER_SEQUENCE, "RFC 5280 5.1.2.3: issuer", &skip, err));
	TRY(der_time(tbs, "RFC 5280 5.1.2.4: thisUpdate", &out->this_update_s, err));
	TRY(der_time(tbs, "RFC 5280 5.1.2.5: nextUpdate", &out->next_update_s, err));
	out->revoked = (struct view){ NULL, 0 };
	if (der_next_is(tbs, DER_SEQUENCE))
		TRY(der_take(tbs, DER_SEQUENCE, "RFC 5280 5.1.2.6: revokedCertificates",
			&out->revoked, err));
	TRY(read_extensions(tbs, &out->number, err));
	return der_end(tbs, "RFC 5280 5.1.2: TBSCertList", err);
}

enum status
ca_crl_parse(struct ca_crl_view *out, struct view der, struct err *err)
{
	struct der in = reader(der), list, tbs;
	struct view skip;

	TRY(der_enter(&in, DER_SEQUENCE, "RFC 5280 5.1: CertificateList", &list, err));
	TRY(der_end(&in, "RFC 5280 5.1: CertificateList", err));
	TRY(der_enter(&list, DER_SEQUENCE, "RFC 5280 5.1.1.1: tbsCertList", &tbs, err));
	TRY(der_take(&list, DER_SEQUENCE, "RFC 5280 5.1.1.2: signatureAlgorithm", &skip, err));
	TRY(der_bits(&list, "RFC 5280 5.1.1.3: signatureValue", &skip, err));
	TRY(der_end(&list, "RFC 5280 5.1: CertificateList", err));
	return read_tbs(out, &tbs, err);
}

/* 5.3: the one extension that our entries have. */
static enum status
read_reason(struct der *entry, int *reason, struct err *err)
{
	struct der list, one, value;
	struct view oid, octets, number;
	bool critical;

	TRY(der_enter(entry, DER_SEQUENCE, "RFC 5280 5.3: crlEntryExtensions", &list, err));
	TRY(der_enter(&list, DER_SEQUENCE, "RFC 5280 5.3: Extension", &one, err));
	TRY(der_end(&list, "RFC 5280 5.3: crlEntryExtensions: reasonCode alone", err));
	TRY(der_oid(&one, "RFC 5280 5.3: extnID", &oid, err));
	TRY(der_boolean_default_false(&one, "RFC 5280 5.3: critical", &critical, err));
	TRY(der_octets(&one, "RFC 5280 5.3: extnValue", &octets, err));
	TRY(der_end(&one, "RFC 5280 5.3: Extension", err));
	if (!DER_OID_IS(oid, "\x55\x1d\x15") || critical)
		return der_refuse(
			entry, err, "RFC 5280 5.3.1: a reasonCode that is not critical wanted");
	value = reader(octets);
	TRY(der_take(&value, DER_ENUMERATED, "RFC 5280 5.3.1: reasonCode", &number, err));
	TRY(der_end(&value, "RFC 5280 5.3.1: reasonCode", err));
	if (number.len != 1 || number.data[0] < 1 || number.data[0] > 10)
		return der_refuse(entry, err, "RFC 5280 5.3.1: reasonCode: 1 to 10 wanted");
	*reason = number.data[0];
	return OK;
}

enum status
ca_crl_next(struct view *revoked, struct ca_crl_entry *out, bool *more, struct err *err)
{
	struct der list = reader(*revoked), entry;

	*more = revoked->len > 0;
	if (!*more)
		return OK;
	TRY(der_enter(&list, DER_SEQUENCE, "RFC 5280 5.1.2.6: entry", &entry, err));
	TRY(der_integer(&entry, "RFC 5280 5.1.2.6: userCertificate", &out->serial, err));
	TRY(der_time(&entry, "RFC 5280 5.1.2.6: revocationDate", &out->revoked_at_s, err));
	out->reason = 0;
	if (!der_at_end(&entry))
		TRY(read_reason(&entry, &out->reason, err));
	TRY(der_end(&entry, "RFC 5280 5.1.2.6: entry", err));
	*revoked = list.rest;
	return OK;
}

/* ---- invariant 6 ---- */

/* An entry with its serial in our form. */
static enum status
next_of_ours(struct view *revoked, struct ca_crl_entry *entry, struct serial *serial, bool *more,
	struct err *err)
{
	TRY(ca_crl_next(revoked, entry, more, err));
	if (!*more)
		return OK;
	if (entry->serial.len != SERIAL_BYTES)
		return err_set(err, ERR_ARGUMENT, "crl_malformed",
			"crl: a serial that is not of our form");
	memcpy(serial->octets, entry->serial.data, SERIAL_BYTES);
	return OK;
}

/* Was the month in which the certificate ends over at that time? Its last second is over when it has
 * begun, so a list of the very first second of the next month is one after it expired. */
static bool
has_expired(const struct serial *serial, int64_t time_s)
{
	int32_t next = serial_month(serial) + 1;
	struct civil begin = { .year = next / 12, .month = (unsigned)(next % 12) + 1, .day = 1 };

	return civil_to_s(begin) <= time_s;
}

enum status
ca_crl_keeps(struct view previous, struct view next,
	bool (*dropped)(void *arg, const struct serial *serial), void *arg, struct err *err)
{
	struct ca_crl_view before, after;
	struct ca_crl_entry old, new = { .reason = 0 };
	struct serial old_serial, new_serial = { { 0 } };
	bool more = true, more_new = true;
	char text[SERIAL_TEXT_BYTES];

	TRY(ca_crl_parse(&before, previous, err));
	TRY(ca_crl_parse(&after, next, err));
	for (;;) { /* one turn an entry of previous */
		TRY(next_of_ours(&before.revoked, &old, &old_serial, &more, err));
		if (!more)
			return OK;
		while (more_new && memcmp(new_serial.octets, old_serial.octets, SERIAL_BYTES) < 0)
			TRY(next_of_ours(&after.revoked, &new, &new_serial, &more_new, err));
		if (more_new && serial_equal(&new_serial, &old_serial))
			continue;
		if (old.reason == 6 || has_expired(&old_serial, before.this_update_s) ||
			(dropped != NULL && dropped(arg, &old_serial)))
			continue;
		serial_format(text, &old_serial);
		return err_set(err, ERR_CONFLICT, "crl_lost_entry",
			"crl %" PRIu64 ": serial %s was on list %" PRIu64 " and has not expired",
			after.number, text, before.number);
	}
}
