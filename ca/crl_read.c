#include "ca/crl.h"

#include <inttypes.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "ca/der.h"

/* Version to nextUpdate, and what is behind the entries, are shorter than that. */
#define FIELDS_MAX_BYTES 8192
/* Entries that are read at once. */
#define WINDOW_BYTES ((size_t)32 << 10)

static struct der
reader_of(struct view der)
{
	return der_of(der, "crl_malformed", "crl");
}

static enum status
malformed(struct err *err, const char *text)
{
	return err_set(err, ERR_ARGUMENT, "crl_malformed", "crl: %s", text);
}

/* ---- entries ---- */

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
	value = reader_of(octets);
	TRY(der_take(&value, DER_ENUMERATED, "RFC 5280 5.3.1: reasonCode", &number, err));
	TRY(der_end(&value, "RFC 5280 5.3.1: reasonCode", err));
	if (number.len != 1 || number.data[0] < 1 || number.data[0] > 10)
		return der_refuse(entry, err, "RFC 5280 5.3.1: reasonCode: 1 to 10 wanted");
	*reason = number.data[0];
	return OK;
}

/*
 * The form that our own entries have: 16 octets of serial, UTCTime, a reasonCode or none. False: another
 * one, or something wrong, which is then looked at field by field. The date is not looked at without timed.
 */
static bool
read_plain(struct view *revoked, struct ca_crl_entry *out, bool timed)
{
	static const uint8_t REASON[] = { 0x30, 0x0c, 0x30, 0x0a, 0x06, 0x03, 0x55, 0x1d, 0x15,
		0x04, 0x03, 0x0a, 0x01 };
	const uint8_t *p = revoked->data;
	size_t len = 35;
	struct err err;

	if (revoked->len < len || p[0] != DER_SEQUENCE || (p[1] != 33 && p[1] != 47) ||
		p[2] != DER_INTEGER || p[3] != SERIAL_BYTES || p[4] < 0x01 || p[4] > 0x7f)
		return false;
	struct der time = reader_of((struct view){ p + 20, 15 });

	if (p[20] != DER_UTC_TIME || p[21] != 13 ||
		(timed && der_time(&time, "revocationDate", &out->revoked_at_s, &err) != OK))
		return false;
	out->reason = 0;
	if (p[1] == 47) {
		len += sizeof(REASON) + 1;
		if (revoked->len < len || memcmp(p + 35, REASON, sizeof(REASON)) != 0 ||
			p[48] < 1 || p[48] > 10)
			return false;
		out->reason = p[48];
	}
	out->serial = (struct view){ p + 4, SERIAL_BYTES };
	*revoked = (struct view){ p + len, revoked->len - len };
	return true;
}

static enum status
read_entry(struct view *revoked, struct ca_crl_entry *out, bool timed, bool *more, struct err *err)
{
	struct der list = reader_of(*revoked), entry;

	*more = revoked->len > 0;
	if (!*more || read_plain(revoked, out, timed))
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

enum status
ca_crl_next(struct view *revoked, struct ca_crl_entry *out, bool *more, struct err *err)
{
	return read_entry(revoked, out, true, more, err);
}

/* ---- a list in a pile ---- */

struct ca_crl_reader {
	const struct pile *pile; /* borrowed */
	struct ca_crl_info info;
	uint64_t at, end; /* entries that are not in the window yet */
	struct view left; /* of the window */
	uint8_t window[WINDOW_BYTES];
};

/* The header of an element whose contents may lie outside of what was read. */
static enum status
open_header(struct view *in, unsigned tag, uint64_t *len, struct err *err)
{
	size_t octets;

	if (in->len < 2 || in->data[0] != tag)
		return malformed(err, "RFC 5280 5.1: a SEQUENCE wanted");
	*len = in->data[1];
	octets = in->data[1] < 0x80 ? 0 : in->data[1] & 0x7fu;
	if (octets > 4 || (in->data[1] >= 0x80 && octets == 0) || in->len < 2 + octets)
		return malformed(err, "a length of one to four octets wanted (X.690 10.1)");
	if (octets > 0) {
		*len = 0;
		for (size_t i = 0; i < octets; i++)
			*len = *len << 8 | in->data[2 + i];
		if (in->data[2] == 0 || *len < 0x80)
			return malformed(err, "a length that is not minimal (X.690 10.1)");
	}
	in->data += 2 + octets;
	in->len -= 2 + octets;
	return OK;
}

/* Fields in front of the entries (5.1.2). The view has what was read of the TBSCertList's contents. */
static enum status
read_front(struct ca_crl_reader *reader, struct view *in, struct err *err)
{
	struct der tbs = reader_of(*in);
	struct view skip;
	uint64_t version;

	TRY(der_number(&tbs, "RFC 5280 5.1.2.1: version", &version, err));
	if (version != 1)
		return der_refuse(&tbs, err, "RFC 5280 5.1.2.1: version 2 wanted");
	TRY(der_take(&tbs, DER_SEQUENCE, "RFC 5280 5.1.2.2: signature", &skip, err));
	TRY(der_take(&tbs, DER_SEQUENCE, "RFC 5280 5.1.2.3: issuer", &skip, err));
	TRY(der_time(&tbs, "RFC 5280 5.1.2.4: thisUpdate", &reader->info.this_update_s, err));
	TRY(der_time(&tbs, "RFC 5280 5.1.2.5: nextUpdate", &reader->info.next_update_s, err));
	*in = tbs.rest;
	return OK;
}

static enum status
read_extension(struct ca_crl_info *info, struct der *list, unsigned *seen, struct err *err)
{
	struct view oid, octets;
	struct der one, value;
	bool critical, number;

	TRY(der_enter(list, DER_SEQUENCE, "RFC 5280 5.2: Extension", &one, err));
	TRY(der_oid(&one, "RFC 5280 5.2: extnID", &oid, err));
	TRY(der_boolean_default_false(&one, "RFC 5280 5.2: critical", &critical, err));
	TRY(der_octets(&one, "RFC 5280 5.2: extnValue", &octets, err));
	TRY(der_end(&one, "RFC 5280 5.2: Extension", err));
	number = DER_OID_IS(oid, "\x55\x1d\x14");
	if (!number && !DER_OID_IS(oid, "\x55\x1d\x1b"))
		return OK; /* for those who rely on the list */
	if ((*seen & (number ? 1u : 2u)) != 0)
		return der_refuse(list, err, "RFC 5280 5.2: an extension stands twice");
	*seen |= number ? 1u : 2u;
	info->delta = info->delta || !number;
	value = reader_of(octets);
	TRY(der_number(&value, number ? "RFC 5280 5.2.3: cRLNumber" : "RFC 5280 5.2.4: BaseCRLNumber",
		number ? &info->number : &info->base_number, err));
	return der_end(&value, "RFC 5280 5.2: extnValue", err);
}

/* crlExtensions, and behind the TBSCertList algorithm and signature. */
static enum status
read_back(struct ca_crl_reader *reader, struct view back, uint64_t tbs_len, struct err *err)
{
	struct der all = reader_of(back), tbs, tagged, list;
	struct view skip;
	unsigned seen = 0;

	if (tbs_len > back.len)
		return malformed(err, "RFC 5280 5.1.2.7: crlExtensions: too long");
	tbs = reader_of((struct view){ back.data, (size_t)tbs_len });
	TRY(der_enter(
		&tbs, DER_CONTEXT_CONSTRUCTED(0), "RFC 5280 5.1.2.7: crlExtensions", &tagged, err));
	TRY(der_end(&tbs, "RFC 5280 5.1.2: TBSCertList", err));
	TRY(der_enter(&tagged, DER_SEQUENCE, "RFC 5280 5.1.2.7: Extensions", &list, err));
	TRY(der_end(&tagged, "RFC 5280 5.1.2.7: crlExtensions", err));
	while (!der_at_end(&list)) /* bounded by the list's length */
		TRY(read_extension(&reader->info, &list, &seen, err));
	if ((seen & 1u) == 0)
		return malformed(err, "RFC 5280 5.2.3: cRLNumber: wanted, not found");
	all.rest.data += tbs_len;
	all.rest.len -= (size_t)tbs_len;
	TRY(der_take(&all, DER_SEQUENCE, "RFC 5280 5.1.1.2: signatureAlgorithm", &skip, err));
	TRY(der_bits(&all, "RFC 5280 5.1.1.3: signatureValue", &skip, err));
	return der_end(&all, "RFC 5280 5.1: CertificateList", err);
}

static enum status
open_list(struct ca_crl_reader *reader, struct err *err)
{
	uint64_t len = pile_len(reader->pile), list_len, tbs_len, tbs_at, revoked_len = 0;
	size_t front_len = len < FIELDS_MAX_BYTES ? (size_t)len : FIELDS_MAX_BYTES;
	struct view in = { reader->window, front_len };

	TRY(pile_read(reader->pile, 0, reader->window, front_len, err));
	TRY(open_header(&in, DER_SEQUENCE, &list_len, err));
	if (list_len != len - (front_len - in.len))
		return malformed(err, "RFC 5280 5.1: CertificateList: another length than it has");
	TRY(open_header(&in, DER_SEQUENCE, &tbs_len, err));
	tbs_at = front_len - in.len;
	if (tbs_len > len - tbs_at)
		return malformed(err, "RFC 5280 5.1.1.1: tbsCertList: longer than the list");
	TRY(read_front(reader, &in, err));
	if (in.len > 0 && in.data[0] == DER_SEQUENCE)
		TRY(open_header(&in, DER_SEQUENCE, &revoked_len, err));
	reader->at = front_len - in.len;
	if (reader->at > tbs_at + tbs_len || revoked_len > tbs_at + tbs_len - reader->at)
		return malformed(err, "RFC 5280 5.1.2.6: revokedCertificates: longer than the list");
	reader->end = reader->at + revoked_len;
	if (len - reader->end > FIELDS_MAX_BYTES)
		return malformed(err, "RFC 5280 5.1.2.7: crlExtensions: too long");
	TRY(pile_read(reader->pile, reader->end, reader->window, (size_t)(len - reader->end), err));
	return read_back(reader, (struct view){ reader->window, (size_t)(len - reader->end) },
		tbs_at + tbs_len - reader->end, err);
}

enum status
ca_crl_reader_new(struct ca_crl_reader **out, const struct pile *pile, struct err *err)
{
	own(ca_crl_reader) reader = mem_zalloc(sizeof(*reader));

	if (reader == NULL)
		return err_memory(err);
	reader->pile = pile;
	TRY(open_list(reader, err));
	*out = give(reader);
	return OK;
}

void
ca_crl_reader_free(struct ca_crl_reader *reader)
{
	mem_free(reader);
}

const struct ca_crl_info *
ca_crl_reader_info(const struct ca_crl_reader *reader)
{
	return &reader->info;
}

/* Fills the window when it could end within an entry. */
static enum status
move_window(struct ca_crl_reader *reader, struct err *err)
{
	size_t more;

	if (reader->left.len >= 1024 || reader->at == reader->end)
		return OK;
	if (reader->left.len > 0)
		memmove(reader->window, reader->left.data, reader->left.len);
	more = WINDOW_BYTES - reader->left.len;
	if (more > reader->end - reader->at)
		more = (size_t)(reader->end - reader->at);
	TRY(pile_read(reader->pile, reader->at, reader->window + reader->left.len, more, err));
	reader->at += more;
	reader->left = (struct view){ reader->window, reader->left.len + more };
	return OK;
}

enum status
ca_crl_reader_next(struct ca_crl_reader *reader, struct ca_crl_entry *out, bool *more,
	struct err *err)
{
	TRY(move_window(reader, err));
	return ca_crl_next(&reader->left, out, more, err);
}

/* ---- invariant 6 ---- */

struct ca_crl_gate {
	struct ca_crl_reader *previous;
	enum ca_crl_gate_kind kind;
	bool more;           /* there is an entry of the list before that no later one has passed */
	struct serial serial;
	int reason;
};

static enum status
next_before(struct ca_crl_gate *gate, struct err *err)
{
	struct ca_crl_entry entry;

	/* Its date is of no account here, and a million of them take their time. */
	TRY(move_window(gate->previous, err));
	TRY(read_entry(&gate->previous->left, &entry, false, &gate->more, err));
	if (!gate->more)
		return OK;
	if (entry.serial.len != SERIAL_BYTES)
		return malformed(err, "a serial that is not of our form");
	memcpy(gate->serial.octets, entry.serial.data, SERIAL_BYTES);
	gate->reason = entry.reason;
	return OK;
}

enum status
ca_crl_gate_new(struct ca_crl_gate **out, const struct pile *previous,
	enum ca_crl_gate_kind kind, struct err *err)
{
	own(ca_crl_gate) gate = mem_zalloc(sizeof(*gate));

	if (gate == NULL)
		return err_memory(err);
	gate->kind = kind;
	TRY(ca_crl_reader_new(&gate->previous, previous, err));
	TRY(next_before(gate, err));
	*out = give(gate);
	return OK;
}

void
ca_crl_gate_free(struct ca_crl_gate *gate)
{
	if (gate == NULL)
		return;
	ca_crl_reader_free(gate->previous);
	mem_free(gate);
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

static enum status
lost(const struct ca_crl_gate *gate, struct err *err)
{
	const struct ca_crl_info *before = ca_crl_reader_info(gate->previous);
	char text[SERIAL_TEXT_BYTES];

	if (has_expired(&gate->serial, before->this_update_s))
		return OK;
	serial_format(text, &gate->serial);
	return err_set(err, ERR_CONFLICT, "crl_lost_entry",
		"crl: serial %s was on %s %" PRIu64 " and has not expired", text,
		before->delta ? "delta" : "list", before->number);
}

/* 5.3.1: certificateHold, or what was on hold before. All else is final. */
static bool
is_final(int reason)
{
	return reason != 6 && reason != CRL_REASON_REMOVED;
}

/* The entry of the list before is not in the next one: may it be? */
static enum status
check_missing(const struct ca_crl_gate *gate, struct err *err)
{
	if (gate->kind == GATE_REMOVED || (gate->kind == GATE_WHOLE && !is_final(gate->reason)))
		return OK;
	return lost(gate, err);
}

enum status
ca_crl_gate_pass(struct ca_crl_gate *gate, const struct serial *serial, int reason, struct err *err)
{
	while (gate->more) { /* each turn takes an entry, but the last */
		int order = memcmp(gate->serial.octets, serial->octets, SERIAL_BYTES);

		if (order > 0)
			break;
		if (order < 0)
			TRY(check_missing(gate, err));
		else if (reason == CRL_REASON_REMOVED && is_final(gate->reason))
			TRY(lost(gate, err));
		TRY(next_before(gate, err));
		if (order == 0)
			break;
	}
	return OK;
}

enum status
ca_crl_gate_end(struct ca_crl_gate *gate, struct err *err)
{
	while (gate->more && gate->kind != GATE_REMOVED) { /* each turn takes an entry */
		TRY(check_missing(gate, err));
		TRY(next_before(gate, err));
	}
	return OK;
}
