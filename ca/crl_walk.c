#include "ca/crl_walk.h"

#include <stdio.h>
#include <string.h>

#include "ca/crl.h"
#include "ca/der.h"

#define AGE_MAX_S 3600
#define AHEAD_MAX_S (31 * 86400)

static enum status
malformed(struct err *err, const char *text)
{
	return err_set(err, ERR_ARGUMENT, "crl_malformed", "crl: %s", text);
}

void
ca_crl_walk_begin(struct ca_crl_walk *walk, const struct ca_tbs_issuer *issuer,
	const char *public_http_url, int64_t now_s)
{
	/* pending stays as it is: pending_len says how much of it counts. */
	walk->issuer = *issuer;
	walk->public_http_url = public_http_url;
	walk->now_s = now_s;
	walk->state = CRL_WALK_OUTER;
	walk->left = walk->entries_left = 0;
	walk->pending_len = 0;
	walk->last = (struct serial){ { 0 } };
	walk->entries = 0;
	walk->shard = 0;
	walk->shards_differ = walk->removed = false;
	walk->has_idp = walk->has_delta = walk->has_freshest = false;
	walk->number = walk->base_number = 0;
	walk->scope = CRL_SCOPE_ALL;
}

/* ---- elements out of pieces ---- */

struct element {
	uint8_t tag;
	size_t header_len;
	uint64_t contents_len;
};

/* Reads tag and length as far as they are there. *wanted: how many octets the header takes. */
static enum status
read_header(struct view at, struct element *out, size_t *wanted, struct err *err)
{
	size_t octets;

	*wanted = 2;
	if (at.len < 2)
		return OK;
	*out = (struct element){ at.data[0], 2, at.data[1] };
	if (at.data[1] < 0x80)
		return OK;
	octets = at.data[1] & 0x7fu;
	if (octets < 1 || octets > 4)
		return malformed(err, "a length of one to four octets wanted (X.690 10.1)");
	*wanted = 2 + octets;
	if (at.len < *wanted)
		return OK;
	out->header_len = *wanted;
	out->contents_len = 0;
	for (size_t i = 0; i < octets; i++)
		out->contents_len = out->contents_len << 8 | at.data[2 + i];
	if (at.data[2] == 0 || out->contents_len < 0x80)
		return malformed(err, "a length that is not minimal (X.690 10.1)");
	return OK;
}

/*
 * Takes the next element, or only its header, out of pending and *in. *whole is empty while octets
 * are missing; else it points into one of the two and is good until the next call.
 */
static enum status
take(struct ca_crl_walk *walk, struct view *in, bool header_only, struct element *element,
	struct view *whole, struct err *err)
{
	*whole = (struct view){ NULL, 0 };
	for (;;) {
		struct view at = walk->pending_len > 0
		                         ? (struct view){ walk->pending, walk->pending_len }
		                         : *in;
		size_t wanted, missing;

		TRY(read_header(at, element, &wanted, err));
		if (at.len >= wanted && !header_only) {
			if (element->contents_len > CRL_ELEMENT_MAX_BYTES - wanted)
				return malformed(err, "a field that is too long");
			wanted += (size_t)element->contents_len;
		}
		if (at.len >= wanted) {
			*whole = (struct view){ at.data, wanted };
			if (at.data != walk->pending) {
				in->data += wanted;
				in->len -= wanted;
			}
			walk->pending_len = 0;
			return OK;
		}
		if (in->len == 0)
			return OK;
		missing = wanted - walk->pending_len;
		if (missing > in->len)
			missing = in->len;
		memcpy(walk->pending + walk->pending_len, in->data, missing);
		walk->pending_len += missing;
		in->data += missing;
		in->len -= missing;
	}
}

/* ---- fields, in their order (RFC 5280 5.1.2) ---- */

static struct der
reader(struct view whole)
{
	return der_of(whole, "crl_malformed", "crl");
}

static enum status
on_outer(struct ca_crl_walk *walk, const struct element *element, struct err *err)
{
	if (element->tag != DER_SEQUENCE || element->contents_len > CRL_TBS_MAX_BYTES)
		return malformed(err, "TBSCertList: a SEQUENCE of at most 1 GiB wanted");
	walk->left = element->contents_len;
	walk->state = CRL_WALK_VERSION;
	return OK;
}

static enum status
on_version(struct ca_crl_walk *walk, struct view whole, struct err *err)
{
	struct der in = reader(whole);
	uint64_t version;

	TRY(der_number(&in, "RFC 5280 5.1.2.1: version", &version, err));
	if (version != 1)
		return err_set(err, ERR_ARGUMENT, "crl_version",
			"crl: RFC 5280 5.1.2.1: version 2 wanted");
	walk->state = CRL_WALK_ALGORITHM;
	return OK;
}

static enum status
on_algorithm(struct ca_crl_walk *walk, struct view whole, struct err *err)
{
	if (!view_equal(whole, walk->issuer.algorithm))
		return err_set(err, ERR_ARGUMENT, "crl_algorithm",
			"crl: RFC 5280 5.1.2.2: signature: not the issuer's algorithm");
	walk->state = CRL_WALK_ISSUER;
	return OK;
}

static enum status
on_issuer(struct ca_crl_walk *walk, struct view whole, struct err *err)
{
	if (!view_equal(whole, walk->issuer.subject))
		return err_set(err, ERR_ARGUMENT, "crl_issuer",
			"crl: RFC 5280 5.1.2.3: issuer: not the CA's subject");
	walk->state = CRL_WALK_THIS_UPDATE;
	return OK;
}

static enum status
on_this_update(struct ca_crl_walk *walk, struct view whole, struct err *err)
{
	struct der in = reader(whole);
	int64_t time_s;

	TRY(der_time(&in, "RFC 5280 5.1.2.4: thisUpdate", &time_s, err));
	if (time_s > walk->now_s || time_s < walk->now_s - AGE_MAX_S)
		return err_set(err, ERR_ARGUMENT, "crl_times",
			"crl: RFC 5280 5.1.2.4: thisUpdate: within the last hour wanted");
	walk->state = CRL_WALK_NEXT_UPDATE;
	return OK;
}

static enum status
on_next_update(struct ca_crl_walk *walk, struct view whole, struct err *err)
{
	struct der in = reader(whole);
	int64_t time_s;

	TRY(der_time(&in, "RFC 5280 5.1.2.5: nextUpdate", &time_s, err));
	if (time_s <= walk->now_s || time_s > walk->now_s + AHEAD_MAX_S)
		return err_set(err, ERR_ARGUMENT, "crl_times",
			"crl: RFC 5280 5.1.2.5: nextUpdate: ahead, by at most 31 days wanted");
	walk->state = CRL_WALK_REVOKED;
	return OK;
}

static enum status
on_revoked(struct ca_crl_walk *walk, const struct element *element, struct err *err)
{
	if (element->contents_len == 0) /* 5.1.2.6: absent when there are none */
		return malformed(err, "RFC 5280 5.1.2.6: revokedCertificates: empty");
	if (element->contents_len > walk->left)
		return malformed(err, "revokedCertificates: longer than the TBSCertList");
	walk->entries_left = element->contents_len;
	walk->state = CRL_WALK_ENTRY;
	return OK;
}

static enum status
on_entry(struct ca_crl_walk *walk, struct view whole, struct err *err)
{
	struct ca_crl_entry entry;
	struct serial serial;
	bool more;

	if (whole.len > walk->entries_left)
		return malformed(err, "an entry that reaches past revokedCertificates");
	walk->entries_left -= whole.len;
	TRY(ca_crl_next(&whole, &entry, &more, err));
	if (entry.serial.len != SERIAL_BYTES || entry.serial.data[0] < 0x01 ||
		entry.serial.data[0] > 0x7f)
		return err_set(err, ERR_ARGUMENT, "crl_serial",
			"crl: userCertificate: 16 octets from 01 to 7f wanted");
	memcpy(serial.octets, entry.serial.data, SERIAL_BYTES);
	if (memcmp(serial.octets, walk->last.octets, SERIAL_BYTES) <= 0)
		return err_set(err, ERR_ARGUMENT, "crl_serial",
			"crl: userCertificate: ascending serials wanted");
	/* 5.3.1: 7 is not used; whether this is a delta, for removeFromCRL, is said behind the entries. */
	if (entry.reason == 7)
		return err_set(err, ERR_ARGUMENT, "crl_reason",
			"crl: RFC 5280 5.3.1: reasonCode %d is not for a list", entry.reason);
	if (walk->entries++ == 0)
		walk->shard = serial_shard(&serial);
	walk->shards_differ = walk->shards_differ || serial_shard(&serial) != walk->shard;
	walk->last = serial;
	walk->removed = walk->removed || entry.reason == CRL_REASON_REMOVED;
	if (walk->entries_left == 0)
		walk->state = CRL_WALK_EXTENSIONS;
	return OK;
}

/* ---- crlExtensions (5.2) ---- */

static enum status
read_aki(struct ca_crl_walk *walk, struct der *value, struct err *err)
{
	struct der inside;
	struct view id;

	TRY(der_enter(value, DER_SEQUENCE, "RFC 5280 5.2.1: authorityKeyIdentifier", &inside, err));
	TRY(der_take(&inside, DER_CONTEXT(0), "RFC 5280 5.2.1: keyIdentifier", &id, err));
	TRY(der_end(&inside, "RFC 5280 5.2.1: keyIdentifier alone", err));
	if (!view_equal(id, walk->issuer.ski))
		return err_set(err, ERR_ARGUMENT, "crl_aki",
			"crl: RFC 5280 5.2.1: authorityKeyIdentifier: not the issuer's key");
	return OK;
}

static enum status
read_number(struct ca_crl_walk *walk, struct der *value, struct err *err)
{
	return der_number(value, "RFC 5280 5.2.3: cRLNumber", &walk->number, err);
}

/* DistributionPointName: one URI as its fullName. */
static enum status
read_point_name(struct der *in, struct view *url, struct err *err)
{
	struct der name, full;

	TRY(der_enter(in, DER_CONTEXT_CONSTRUCTED(0), "RFC 5280 5.2.5: distributionPoint", &name,
		err));
	TRY(der_end(in, "RFC 5280 5.2.5: distributionPoint alone", err));
	TRY(der_enter(&name, DER_CONTEXT_CONSTRUCTED(0), "RFC 5280 5.2.5: fullName", &full, err));
	TRY(der_end(&name, "RFC 5280 5.2.5: fullName", err));
	TRY(der_take(&full, DER_CONTEXT(6), "RFC 5280 5.2.5: URI", url, err));
	return der_end(&full, "RFC 5280 5.2.5: one URI", err);
}

/* The URL must be one of our own: it says which scope this list is for. */
static enum status
read_idp(struct ca_crl_walk *walk, struct der *value, struct err *err)
{
	char own_url[TBS_URL_MAX_BYTES];
	struct der inside;
	struct view url;

	TRY(der_enter(value, DER_SEQUENCE, "RFC 5280 5.2.5: IDP", &inside, err));
	TRY(read_point_name(&inside, &url, err));
	walk->has_idp = true;
	for (unsigned shard = 0; shard < CRL_SCOPE_SHARDS; shard++) {
		TRY(ca_crl_url(
			own_url, walk->public_http_url, walk->issuer.ca_id, (uint8_t)shard, err));
		if (view_equal_text(url, own_url)) {
			walk->scope = shard;
			return OK;
		}
	}
	return err_set(err, ERR_ARGUMENT, "crl_idp",
		"crl: RFC 5280 5.2.5: issuingDistributionPoint: not one of this CA's addresses");
}

static enum status
read_delta(struct ca_crl_walk *walk, struct der *value, struct err *err)
{
	walk->has_delta = true;
	return der_number(value, "RFC 5280 5.2.4: BaseCRLNumber", &walk->base_number, err);
}

static enum status
read_freshest(struct ca_crl_walk *walk, struct der *value, struct err *err)
{
	char own_url[TBS_URL_MAX_BYTES];
	struct der points, point;
	struct view url;

	TRY(der_enter(value, DER_SEQUENCE, "RFC 5280 5.2.6: freshestCRL", &points, err));
	TRY(der_enter(&points, DER_SEQUENCE, "RFC 5280 5.2.6: DistributionPoint", &point, err));
	TRY(der_end(&points, "RFC 5280 5.2.6: one DistributionPoint", err));
	TRY(read_point_name(&point, &url, err));
	walk->has_freshest = true;
	TRY(ca_crl_delta_url(own_url, walk->public_http_url, walk->issuer.ca_id, err));
	return view_equal_text(url, own_url)
	               ? OK
	               : err_set(err, ERR_ARGUMENT, "crl_delta",
				"crl: RFC 5280 5.2.6: freshestCRL: not this CA's delta");
}

struct crl_extension {
	struct view oid;
	bool critical, required;
	enum status (*read)(struct ca_crl_walk *walk, struct der *value, struct err *err);
};

#define OID(octets)                                                                                \
	{                                                                                          \
		(const uint8_t *)(octets), sizeof(octets) - 1                                      \
	}
static const struct crl_extension EXTENSIONS[] = {
	{ OID("\x55\x1d\x23"), false, true, read_aki },
	{ OID("\x55\x1d\x14"), false, true, read_number },
	{ OID("\x55\x1d\x1c"), true, false, read_idp },
	{ OID("\x55\x1d\x1b"), true, false, read_delta },
	{ OID("\x55\x1d\x2e"), false, false, read_freshest },
};

static enum status
read_extension(struct ca_crl_walk *walk, struct der *list, unsigned *seen, struct err *err)
{
	struct view oid, octets;
	struct der one, value;
	size_t index = 0;
	bool critical;

	TRY(der_enter(list, DER_SEQUENCE, "RFC 5280 5.2: Extension", &one, err));
	TRY(der_oid(&one, "RFC 5280 5.2: extnID", &oid, err));
	TRY(der_boolean_default_false(&one, "RFC 5280 5.2: critical", &critical, err));
	TRY(der_octets(&one, "RFC 5280 5.2: extnValue", &octets, err));
	TRY(der_end(&one, "RFC 5280 5.2: Extension", err));
	while (index < COUNT_OF(EXTENSIONS) && !view_equal(oid, EXTENSIONS[index].oid))
		index++;
	if (index == COUNT_OF(EXTENSIONS) || (*seen & 1u << index) != 0 ||
		critical != EXTENSIONS[index].critical)
		return malformed(err,
			"RFC 5280 5.2: an extension that is unknown, stands twice, or is"
			" (not) critical");
	*seen |= 1u << index;
	value = reader(octets);
	TRY(EXTENSIONS[index].read(walk, &value, err));
	return der_end(&value, "RFC 5280 5.2: extnValue", err);
}

/* What the extensions say together, and with the entries. */
static enum status
decide_scope(struct ca_crl_walk *walk, struct err *err)
{
	/* 5.2.4: the scope of a delta is the full list's; 5.2.6: a delta leads to no other. */
	if ((walk->has_delta && walk->has_idp) ||
		(walk->has_freshest && (walk->has_delta || walk->has_idp)) ||
		(walk->has_delta && walk->base_number > walk->number))
		return err_set(err, ERR_ARGUMENT, "crl_delta",
			"crl: RFC 5280 5.2.4: a delta of the full list, since a list not after it,"
			" or freshestCRL on the full list wanted");
	if (walk->has_delta)
		walk->scope = CRL_SCOPE_DELTA;
	if (walk->removed && !walk->has_delta)
		return err_set(err, ERR_ARGUMENT, "crl_reason",
			"crl: RFC 5280 5.3.1: removeFromCRL is for deltas");
	if (walk->has_idp && walk->entries > 0 &&
		(walk->shards_differ || walk->shard != walk->scope))
		return err_set(err, ERR_ARGUMENT, "crl_shard",
			"crl: an entry of another shard than the distribution point's");
	return OK;
}

static enum status
on_extensions(struct ca_crl_walk *walk, struct view whole, struct err *err)
{
	struct der in = reader(whole), tagged, list;
	unsigned seen = 0;

	TRY(der_enter(
		&in, DER_CONTEXT_CONSTRUCTED(0), "RFC 5280 5.1.2.7: crlExtensions", &tagged, err));
	TRY(der_enter(&tagged, DER_SEQUENCE, "RFC 5280 5.1.2.7: Extensions", &list, err));
	TRY(der_end(&tagged, "RFC 5280 5.1.2.7: crlExtensions", err));
	while (!der_at_end(&list)) /* at most one of each in the table */
		TRY(read_extension(walk, &list, &seen, err));
	for (size_t i = 0; i < COUNT_OF(EXTENSIONS); i++)
		if (EXTENSIONS[i].required && (seen & 1u << i) == 0)
			return malformed(
				err, "RFC 5280 5.2: authorityKeyIdentifier and cRLNumber wanted");
	TRY(decide_scope(walk, err));
	walk->state = CRL_WALK_DONE;
	return OK;
}

/* ---- the walk ---- */

static enum status
on_element(
	struct ca_crl_walk *walk, const struct element *element, struct view whole, struct err *err)
{
	switch (walk->state) {
	case CRL_WALK_OUTER: return on_outer(walk, element, err);
	case CRL_WALK_VERSION: return on_version(walk, whole, err);
	case CRL_WALK_ALGORITHM: return on_algorithm(walk, whole, err);
	case CRL_WALK_ISSUER: return on_issuer(walk, whole, err);
	case CRL_WALK_THIS_UPDATE: return on_this_update(walk, whole, err);
	case CRL_WALK_NEXT_UPDATE: return on_next_update(walk, whole, err);
	case CRL_WALK_REVOKED: return on_revoked(walk, element, err);
	case CRL_WALK_ENTRY: return on_entry(walk, whole, err);
	case CRL_WALK_EXTENSIONS: return on_extensions(walk, whole, err);
	case CRL_WALK_DONE: break;
	}
	return malformed(err, "more octets behind crlExtensions");
}

enum status
ca_crl_walk_add(struct ca_crl_walk *walk, struct view piece, struct err *err)
{
	while (piece.len > 0) { /* each turn takes octets */
		uint8_t tag = walk->pending_len > 0 ? walk->pending[0] : piece.data[0];
		struct element element = { 0, 0, 0 };
		struct view whole;
		bool header_only;

		if (walk->state == CRL_WALK_DONE)
			return malformed(err, "more octets behind crlExtensions");
		/* 5.1.2.6: revokedCertificates may be absent. */
		if (walk->state == CRL_WALK_REVOKED && tag != DER_SEQUENCE)
			walk->state = CRL_WALK_EXTENSIONS;
		header_only = walk->state == CRL_WALK_OUTER || walk->state == CRL_WALK_REVOKED;
		TRY(take(walk, &piece, header_only, &element, &whole, err));
		if (whole.len == 0)
			return OK;
		if (walk->state != CRL_WALK_OUTER) {
			if (whole.len > walk->left)
				return malformed(err, "a field that reaches past the TBSCertList");
			walk->left -= whole.len;
		}
		TRY(on_element(walk, &element, whole, err));
	}
	return OK;
}

enum status
ca_crl_walk_end(struct ca_crl_walk *walk, struct err *err)
{
	if (walk->state != CRL_WALK_DONE)
		return err_set(
			err, ERR_ARGUMENT, "crl_truncated", "crl: the TBSCertList is cut off");
	if (walk->left > 0)
		return malformed(err, "the TBSCertList is longer than its fields");
	return OK;
}
