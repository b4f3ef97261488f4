#include "ca/cert.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "ca/der.h"
#include "ca/spki.h"
#include "ca/utf8.h"

#define EXTENSIONS_MAX 64 /* keeps the search for doubles short; real ones have a dozen */

/* ---- reading: RFC 5280 4.1 ---- */

static enum status
read_basic_constraints(struct der *value, struct ca_cert_view *out, struct err *err)
{
	uint64_t length;
	struct der in;

	TRY(der_enter(value, DER_SEQUENCE, "RFC 5280 4.2.1.9: basicConstraints", &in, err));
	TRY(der_boolean_default_false(&in, "basicConstraints: cA", &out->is_ca, err));
	if (!der_at_end(&in)) {
		TRY(der_number(&in, "basicConstraints: pathLenConstraint", &length, err));
		out->path_len = (int64_t)length;
	}
	return der_end(&in, "basicConstraints", err);
}

static enum status
read_key_usage(struct der *value, struct ca_cert_view *out, struct err *err)
{
	out->has_key_usage = true;
	return der_named_bits(value, "RFC 5280 4.2.1.3: keyUsage", &out->key_usage, err);
}

static enum status
read_subject_key_id(struct der *value, struct ca_cert_view *out, struct err *err)
{
	return der_octets(value, "RFC 5280 4.2.1.2: subjectKeyIdentifier", &out->ski, err);
}

static enum status
read_authority_key_id(struct der *value, struct ca_cert_view *out, struct err *err)
{
	struct der in;

	TRY(der_enter(value, DER_SEQUENCE, "RFC 5280 4.2.1.1: authorityKeyIdentifier", &in, err));
	if (der_next_is(&in, DER_CONTEXT(0)))
		TRY(der_take(&in, DER_CONTEXT(0), "keyIdentifier", &out->aki, err));
	while (!der_at_end(&in)) /* issuer and serial, which we need not */
		TRY(der_any(&in, "authorityKeyIdentifier", NULL, NULL, NULL, err));
	return OK;
}

/* Known, and no business of a chain's: alternative names, key purposes, addresses, policies. */
static enum status
read_nothing(struct der *value, struct ca_cert_view *out, struct err *err)
{
	(void)out;
	return der_any(value, "extension", NULL, NULL, NULL, err);
}

static const struct extension_reader {
	uint8_t id_ce; /* 2.5.29.n */
	enum status (*read)(struct der *value, struct ca_cert_view *out, struct err *err);
} EXTENSION_READERS[] = {
	{ 14, read_subject_key_id },
	{ 15, read_key_usage },
	{ 17, read_nothing }, /* subjectAltName */
	{ 19, read_basic_constraints },
	{ 31, read_nothing }, /* cRLDistributionPoints */
	{ 32, read_nothing }, /* certificatePolicies */
	{ 35, read_authority_key_id },
	{ 37, read_nothing }, /* extKeyUsage */
};

static enum status
read_extension(struct der *list, struct view *oid, struct ca_cert_view *out, struct err *err)
{
	struct view contents;
	struct der in, value;
	bool critical;

	TRY(der_enter(list, DER_SEQUENCE, "RFC 5280 4.2: Extension", &in, err));
	TRY(der_oid(&in, "Extension: extnID", oid, err));
	TRY(der_boolean_default_false(&in, "Extension: critical", &critical, err));
	TRY(der_octets(&in, "Extension: extnValue", &contents, err));
	TRY(der_end(&in, "Extension", err));
	for (size_t i = 0; i < COUNT_OF(EXTENSION_READERS); i++) {
		if (oid->len != 3 || oid->data[0] != 0x55 || oid->data[1] != 0x1d ||
		    oid->data[2] != EXTENSION_READERS[i].id_ce)
			continue;
		value = der_of(contents, list->code, list->what);
		TRY(EXTENSION_READERS[i].read(&value, out, err));
		return der_end(&value, "Extension: extnValue", err);
	}
	out->unknown_critical = out->unknown_critical || critical;
	return OK;
}

static enum status
read_extensions(struct der *tbs, struct ca_cert_view *out, struct err *err)
{
	struct view oids[EXTENSIONS_MAX];
	struct der explicit, list;
	size_t count = 0;

	TRY(der_enter(
		tbs, DER_CONTEXT_CONSTRUCTED(3), "RFC 5280 4.1.2.9: extensions", &explicit, err));
	TRY(der_enter(&explicit, DER_SEQUENCE, "RFC 5280 4.1.2.9: extensions", &list, err));
	TRY(der_end(&explicit, "RFC 5280 4.1.2.9: extensions", err));
	out->extensions = list.rest;
	if (der_at_end(&list))
		return der_refuse(&list, err, "extensions: one wanted, none found");
	while (!der_at_end(&list)) {
		if (count == EXTENSIONS_MAX)
			return der_refuse(
				&list, err, "extensions: at most %d wanted", EXTENSIONS_MAX);
		TRY(read_extension(&list, &oids[count], out, err));
		for (size_t i = 0; i < count; i++) {
			if (view_equal(oids[i], oids[count])) /* RFC 5280 4.2 */
				return der_refuse(&list, err, "extensions: one stands twice");
		}
		count++;
	}
	return OK;
}

/* RFC 5280 4.1.2.4. common_name, unless NULL, becomes the last one: the most specific. */
static enum status
read_name(struct der *in, const char *field, struct view *whole, struct view *common_name,
	struct err *err)
{
	struct der outer, name, rdn, attribute;
	struct view oid, value;

	TRY(der_take_whole(in, DER_SEQUENCE, field, whole, err));
	outer = der_of(*whole, in->code, in->what);
	TRY(der_enter(&outer, DER_SEQUENCE, field, &name, err));
	while (!der_at_end(&name)) {
		TRY(der_enter(&name, DER_SET, field, &rdn, err));
		do {
			TRY(der_enter(&rdn, DER_SEQUENCE, field, &attribute, err));
			TRY(der_oid(&attribute, field, &oid, err));
			TRY(der_any(&attribute, field, NULL, &value, NULL, err));
			TRY(der_end(&attribute, field, err));
			if (common_name != NULL && DER_OID_IS(oid, "\x55\x04\x03"))
				*common_name = value;
		} while (!der_at_end(&rdn));
	}
	return OK;
}

static enum status
read_validity(struct der *tbs, struct ca_cert_view *out, struct err *err)
{
	struct der in;

	TRY(der_enter(tbs, DER_SEQUENCE, "RFC 5280 4.1.2.5: validity", &in, err));
	TRY(der_time(&in, "validity: notBefore", &out->not_before_s, err));
	TRY(der_time(&in, "validity: notAfter", &out->not_after_s, err));
	return der_end(&in, "validity", err);
}

/* The number is one less than what people say; version 1 is DEFAULT and hence absent. */
static enum status
read_version(struct der *tbs, unsigned *out, struct err *err)
{
	struct der explicit;
	uint64_t version;

	*out = 1;
	if (!der_next_is(tbs, DER_CONTEXT_CONSTRUCTED(0)))
		return OK;
	TRY(der_enter(
		tbs, DER_CONTEXT_CONSTRUCTED(0), "RFC 5280 4.1.2.1: version", &explicit, err));
	TRY(der_number(&explicit, "RFC 5280 4.1.2.1: version", &version, err));
	TRY(der_end(&explicit, "RFC 5280 4.1.2.1: version", err));
	if (version != 1 && version != 2)
		return der_refuse(tbs, err, "RFC 5280 4.1.2.1: version 3 (2) wanted, %llu found",
			(unsigned long long)version);
	*out = (unsigned)version + 1;
	return OK;
}

static enum status
read_tbs(struct der *tbs, struct ca_cert_view *out, struct err *err)
{
	struct view algorithm;

	TRY(read_version(tbs, &out->version, err));
	TRY(der_integer(tbs, "RFC 5280 4.1.2.2: serialNumber", &out->serial, err));
	if (out->serial.len > 20)
		return der_refuse(
			tbs, err, "RFC 5280 4.1.2.2: serialNumber of at most 20 octets wanted");
	out->serial_ours = out->serial.len == SERIAL_BYTES && out->serial.data[0] >= 0x01 &&
	                   out->serial.data[0] <= 0x7f;
	if (out->serial_ours)
		memcpy(out->serial16.octets, out->serial.data, SERIAL_BYTES);
	TRY(der_take_whole(tbs, DER_SEQUENCE, "RFC 5280 4.1.2.3: signature", &algorithm, err));
	if (!view_equal(algorithm, out->algorithm)) /* RFC 5280 4.1.1.2 */
		return der_refuse(
			tbs, err, "RFC 5280 4.1.2.3: signature is not signatureAlgorithm");
	TRY(read_name(tbs, "RFC 5280 4.1.2.4: issuer", &out->issuer, NULL, err));
	TRY(read_validity(tbs, out, err));
	TRY(read_name(tbs, "RFC 5280 4.1.2.6: subject", &out->subject, &out->common_name, err));
	TRY(der_take_whole(tbs, DER_SEQUENCE, "RFC 5280 4.1.2.7: subjectPublicKeyInfo", &out->spki,
		err));
	if (der_at_end(tbs))
		return OK;
	if (out->version != 3)
		return der_refuse(tbs, err,
			"RFC 5280 4.1.2.9: extensions: version 3 wanted, %u found", out->version);
	TRY(read_extensions(tbs, out, err));
	return der_end(tbs, "RFC 5280 4.1: TBSCertificate", err);
}

enum status
ca_cert_parse(struct ca_cert_view *out, struct view der, struct err *err)
{
	TRY(ca_cert_parse_any(out, der, err));
	if (out->version != 3)
		return err_set(err, ERR_ARGUMENT, "certificate_malformed",
			"certificate: RFC 5280 4.1.2.1: version 3 wanted, %u found", out->version);
	return OK;
}

enum status
ca_cert_parse_any(struct ca_cert_view *out, struct view der, struct err *err)
{
	struct der outer = der_of(der, "certificate_malformed", "certificate"), in, copy, tbs;

	*out = (struct ca_cert_view){ .path_len = -1 };
	TRY(der_enter(&outer, DER_SEQUENCE, "RFC 5280 4.1: Certificate", &in, err));
	TRY(der_end(&outer, "RFC 5280 4.1: Certificate", err));
	copy = in;
	TRY(der_take_whole(
		&copy, DER_SEQUENCE, "RFC 5280 4.1.1.1: tbsCertificate", &out->tbs, err));
	TRY(der_enter(&in, DER_SEQUENCE, "RFC 5280 4.1.1.1: tbsCertificate", &tbs, err));
	TRY(der_take_whole(&in, DER_SEQUENCE, "RFC 5280 4.1.1.2: signatureAlgorithm",
		&out->algorithm, err));
	TRY(der_bits(&in, "RFC 5280 4.1.1.3: signatureValue", &out->signature, err));
	TRY(der_end(&in, "RFC 5280 4.1: Certificate", err));
	return read_tbs(&tbs, out, err);
}

/* ---- chains ---- */

static enum status
broken(struct err *err, const char *what)
{
	return err_set(err, ERR_ARGUMENT, "chain_broken", "chain: RFC 5280 6.1: %s", what);
}

/* All that is to be said of a step but the signature. */
static enum status
check_step(
	const struct ca_cert_view *certificate, const struct ca_cert_view *issuer, struct err *err)
{
	if (!view_equal(certificate->issuer, issuer->subject))
		return broken(err, "the issuer's subject wanted as issuer");
	if (certificate->aki.len > 0 && issuer->ski.len > 0 &&
	    !view_equal(certificate->aki, issuer->ski))
		return broken(err, "the issuer's key identifier wanted");
	if (!issuer->is_ca)
		return broken(err, "an issuer that is a CA wanted");
	if (issuer->has_key_usage && (issuer->key_usage & KU_KEY_CERT_SIGN) == 0)
		return broken(err, "an issuer with keyCertSign wanted");
	if (issuer->unknown_critical)
		return broken(err, "the issuer has a critical extension that is not known");
	return OK;
}

enum status
ca_cert_issued_by(const struct ca_cert_view *certificate, const struct ca_cert_view *issuer,
	struct err *err)
{
	own(ca_public_key) key = NULL;
	struct err inner;

	TRY(check_step(certificate, issuer, err));
	if (ca_public_key_new(&key, issuer->spki, &inner) != OK ||
		ca_public_key_check(key, certificate->algorithm, certificate->tbs,
			certificate->signature, &inner) != OK) {
		if (inner.status == ERR_ARGUMENT)
			return broken(err, inner.text);
		*err = inner;
		return inner.status;
	}
	return OK;
}

#define TRUST_MAX 64 /* issuing CAs that one program trusts, retired ones included */

struct issuer {
	char ca_id[CA_ID_BYTES];
	struct bytes der;
	struct ca_cert_view certificate; /* of der */
	struct ca_public_key *key;
};

struct ca_trust {
	struct issuer issuers[TRUST_MAX];
	size_t count;
};

enum status
ca_trust_new(struct ca_trust **out, struct err *err)
{
	*out = mem_zalloc(sizeof(**out));
	return *out != NULL ? OK : err_memory(err);
}

static void
issuer_free(struct issuer *issuer)
{
	bytes_free(&issuer->der);
	ca_public_key_free(give(issuer->key));
}
OWNER_STRUCT(issuer, issuer_free)

void
ca_trust_free(struct ca_trust *trust)
{
	if (trust == NULL)
		return;
	for (size_t i = 0; i < trust->count; i++)
		issuer_free(&trust->issuers[i]);
	mem_free(trust);
}

static enum status
check_chain(
	const struct ca_cert_view *leaf, const struct view *chain, size_t count, struct err *err)
{
	struct ca_cert_view below = *leaf, above;

	for (size_t i = 0; i < count; i++) {
		TRY(ca_cert_parse(&above, chain[i], err));
		TRY(ca_cert_issued_by(&below, &above, err));
		/* RFC 5280 4.2.1.9: i + 1 CAs stand between this one and the leaves. */
		if (above.path_len >= 0 && (size_t)above.path_len <= i)
			return broken(err, "a chain within pathLenConstraint wanted");
		below = above;
	}
	return ca_cert_issued_by(&below, &below, err); /* the last one is a root */
}

enum status
ca_trust_add(struct ca_trust *trust, const char *ca_id, struct view certificate,
	const struct view *chain, size_t chain_count, struct err *err)
{
	own_struct(issuer) issuer = { .key = NULL };

	if (trust->count == TRUST_MAX)
		return err_set(err, ERR_TOO_LARGE, "trust_full", "trust: at most %d CAs wanted",
			TRUST_MAX);
	if (strlen(ca_id) >= sizeof(issuer.ca_id))
		return err_set(err, ERR_ARGUMENT, "ca_id",
			"trust: a CA id of under %d octets wanted", CA_ID_BYTES);
	(void)snprintf(issuer.ca_id, sizeof(issuer.ca_id), "%s", ca_id);
	TRY(bytes_copy(&issuer.der, certificate, err));
	TRY(ca_cert_parse(&issuer.certificate, view_of(&issuer.der), err));
	if (!issuer.certificate.is_ca)
		return broken(err, "a CA certificate wanted");
	TRY(check_chain(&issuer.certificate, chain, chain_count, err));
	TRY(ca_public_key_new(&issuer.key, issuer.certificate.spki, err));
	trust->issuers[trust->count++] = give_struct(issuer);
	return OK;
}

static enum status
check_validity(const struct ca_cert_view *leaf, int64_t now_s, struct err *err)
{
	if (now_s < leaf->not_before_s)
		return err_set(err, ERR_UNAUTHENTICATED, "certificate_not_yet_valid",
			"certificate: RFC 5280 4.1.2.5: notBefore lies %lld s ahead",
			(long long)(leaf->not_before_s - now_s));
	if (now_s >= leaf->not_after_s)
		return err_set(err, ERR_UNAUTHENTICATED, "certificate_expired",
			"certificate: RFC 5280 4.1.2.5: notAfter was %lld s ago",
			(long long)(now_s - leaf->not_after_s));
	return OK;
}

enum status
ca_trust_verify(const struct ca_trust *trust, struct view leaf_der, int64_t now_s, bool check_time,
	const char **ca_id, struct err *err)
{
	const struct issuer *found = NULL;
	bool named = false;
	struct ca_cert_view leaf;
	struct err inner;

	if (ca_cert_parse(&leaf, leaf_der, &inner) != OK)
		return err_set(err, ERR_UNAUTHENTICATED, inner.code, "%s", inner.text);
	/* None of ours is a CA, and none has an extension that we do not know. */
	for (size_t i = 0;
		i < trust->count && found == NULL && !leaf.is_ca && !leaf.unknown_critical; i++) {
		const struct issuer *issuer = &trust->issuers[i];

		if (check_step(&leaf, &issuer->certificate, &inner) != OK)
			continue;
		named = true;
		if (ca_public_key_check(issuer->key, leaf.algorithm, leaf.tbs, leaf.signature,
			    &inner) == OK) {
			found = issuer;
		} else if (inner.status != ERR_ARGUMENT) { /* memory, not the signature */
			*err = inner;
			return inner.status;
		}
	}
	if (found == NULL && !named)
		return err_set(err, ERR_UNAUTHENTICATED, "certificate_foreign",
			"certificate: one of our own issuers wanted");
	if (found == NULL)
		return err_set(err, ERR_UNAUTHENTICATED, "certificate_bad_signature",
			"certificate: the signature does not hold under its issuer's key");
	if (check_time)
		TRY(check_validity(&leaf, now_s, err));
	*ca_id = found->ca_id;
	return OK;
}

/* ---- names as text: RFC 4514 ---- */

struct text {
	char *out;
	size_t size, len; /* len < size */
	bool full;
};

/* Pieces are whole or absent, so that no escape is cut in half. */
static void
put_piece(struct text *text, const void *piece, size_t len)
{
	text->full = text->full || len >= text->size - text->len;
	if (text->full)
		return;
	memcpy(text->out + text->len, piece, len);
	text->len += len;
	text->out[text->len] = '\0';
}

static void
put(struct text *text, const char *piece)
{
	put_piece(text, piece, strlen(piece));
}

static void
put_value(struct text *text, struct view value)
{
	for (size_t at = 0, count; at < value.len; at += count) {
		struct view rest = { value.data + at, value.len - at };
		bool edge = at == 0 || rest.len == 1;
		char piece[4 * 3 + 1];
		size_t piece_len = 0;
		uint32_t code = 0;
		bool hex;

		count = utf8_next(rest, &code);
		hex = count == 0 || utf8_is_control(code);
		if (count == 0)
			count = 1;
		if (hex) {
			for (size_t i = 0; i < count; i++)
				(void)snprintf(piece + 3 * i, 4, "\\%02X", (unsigned)rest.data[i]);
			piece_len = 3 * count;
		} else {
			bool escape = strchr(",+\"\\<>;=", (int)rest.data[0]) != NULL ||
			              (edge && code == ' ') || (at == 0 && code == '#');

			if (escape)
				piece[piece_len++] = '\\';
			memcpy(piece + piece_len, rest.data, count);
			piece_len += count;
		}
		put_piece(text, piece, piece_len);
	}
}

static void
put_hex(struct text *text, struct view der)
{
	char piece[3];

	put(text, "#");
	for (size_t i = 0; i < der.len; i++) {
		hex_encode(piece, der.data + i, 1);
		put(text, piece);
	}
}

static const struct {
	const char *oid, *name;
} ATTRIBUTE_NAMES[] = { /* RFC 4514 3, and serialNumber, which devices have */
	{ "2.5.4.3", "CN" },
	{ "2.5.4.5", "serialNumber" },
	{ "2.5.4.6", "C" },
	{ "2.5.4.7", "L" },
	{ "2.5.4.8", "ST" },
	{ "2.5.4.9", "STREET" },
	{ "2.5.4.10", "O" },
	{ "2.5.4.11", "OU" },
	{ "0.9.2342.19200300.100.1.1", "UID" },
	{ "0.9.2342.19200300.100.1.25", "DC" },
};

static enum status
put_attribute(struct text *text, struct der *rdn, struct err *err)
{
	struct view oid, value, whole;
	struct der attribute;
	const char *name;
	char dotted[64];
	uint8_t tag;

	TRY(der_enter(rdn, DER_SEQUENCE, "attribute", &attribute, err));
	TRY(der_oid(&attribute, "type", &oid, err));
	TRY(der_any(&attribute, "value", &tag, &value, &whole, err));
	TRY(der_end(&attribute, "attribute", err));
	der_oid_text(dotted, sizeof(dotted), oid);
	name = dotted;
	for (size_t i = 0; i < COUNT_OF(ATTRIBUTE_NAMES); i++) {
		if (strcmp(ATTRIBUTE_NAMES[i].oid, dotted) == 0)
			name = ATTRIBUTE_NAMES[i].name;
	}
	put(text, name);
	put(text, "=");
	/* RFC 4514 2.4: an attribute without a name, and one that is no text of octets, is hex. */
	if (name != dotted && (tag == DER_UTF8_STRING || tag == DER_PRINTABLE_STRING ||
	    tag == DER_IA5_STRING || tag == DER_T61_STRING))
		put_value(text, value);
	else
		put_hex(text, whole);
	return OK;
}

/* RFC 4514 2.1: the last RDN comes first. */
#define RDNS_MAX 32

static enum status
put_name(struct text *text, struct view name_der, struct err *err)
{
	struct der outer = der_of(name_der, "certificate_malformed", "name"), name, rdns[RDNS_MAX];
	size_t count = 0;

	TRY(der_enter(&outer, DER_SEQUENCE, "Name", &name, err));
	TRY(der_end(&outer, "Name", err));
	while (!der_at_end(&name)) {
		if (count == RDNS_MAX)
			return der_refuse(&name, err, "at most %d RDNs wanted", RDNS_MAX);
		TRY(der_enter(&name, DER_SET, "RDN", &rdns[count], err));
		count++;
	}
	for (size_t i = count; i > 0; i--) {
		const char *join = i < count ? "," : "";

		while (!der_at_end(&rdns[i - 1])) {
			put(text, join);
			TRY(put_attribute(text, &rdns[i - 1], err));
			join = "+";
		}
	}
	return OK;
}

void
ca_name_text(char *out, size_t size, struct view name_der)
{
	struct text text = { out, size, 0, false };
	struct err err;

	if (size == 0)
		return;
	out[0] = '\0';
	if (put_name(&text, name_der, &err) != OK) /* what came before the fault stays, marked */
		put(&text, "<malformed>");
}
