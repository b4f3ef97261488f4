#include "ca/ocsp.h"

#include <assert.h>
#include <string.h>

#include "ca/cert.h"
#include "ca/key.h"
#include "ca/openssl.h"

/* More is no client of ours, and each costs. */
#define EXTENSIONS_MAX 16

#define OID(octets)                                                                                \
	{                                                                                          \
		(const uint8_t *)(octets), sizeof(octets) - 1                                      \
	}
static const struct view NONCE = OID("\x2b\x06\x01\x05\x05\x07\x30\x01\x02");

static const struct {
	const char *name; /* OpenSSL's */
	struct view oid;
} HASHES[OCSP_HASHES] = {
	[OCSP_SHA1] = { "SHA1", OID("\x2b\x0e\x03\x02\x1a") },
	[OCSP_SHA256] = { "SHA256", OID("\x60\x86\x48\x01\x65\x03\x04\x02\x01") },
	[OCSP_SHA384] = { "SHA384", OID("\x60\x86\x48\x01\x65\x03\x04\x02\x02") },
	[OCSP_SHA512] = { "SHA512", OID("\x60\x86\x48\x01\x65\x03\x04\x02\x03") },
};

/* ---- requests (RFC 6960 4.1.1) ---- */

static enum status
read_hash(struct der *id, enum ca_ocsp_hash *out, struct err *err)
{
	struct der algorithm;
	struct view oid;

	TRY(der_enter(id, DER_SEQUENCE, "4.1.1: hashAlgorithm", &algorithm, err));
	TRY(der_oid(&algorithm, "4.1.1: hashAlgorithm", &oid, err));
	/* Parameters are NULL or absent (RFC 5754 2); of an algorithm that we do not know, anything. */
	if (!der_at_end(&algorithm))
		TRY(der_any(&algorithm, "4.1.1: hashAlgorithm", NULL, NULL, NULL, err));
	TRY(der_end(&algorithm, "4.1.1: hashAlgorithm", err));
	*out = OCSP_HASH_OTHER;
	for (unsigned i = OCSP_SHA1; i < OCSP_HASHES; i++)
		if (view_equal(oid, HASHES[i].oid))
			*out = (enum ca_ocsp_hash)i;
	return OK;
}

enum status
ca_ocsp_id_read(struct der *in, struct ca_ocsp_id *out, struct err *err)
{
	struct der at_whole = *in;
	struct der id;
	struct view serial;

	TRY(der_enter(in, DER_SEQUENCE, "4.1.1: reqCert", &id, err));
	TRY(der_take_whole(&at_whole, DER_SEQUENCE, "4.1.1: reqCert", &out->whole, err));
	if (out->whole.len > OCSP_ID_MAX_BYTES)
		return der_refuse(in, err, "4.1.1: CertID: at most %d octets wanted",
			OCSP_ID_MAX_BYTES);
	TRY(read_hash(&id, &out->hash, err));
	TRY(der_octets(&id, "4.1.1: issuerNameHash", &out->name_hash, err));
	TRY(der_octets(&id, "4.1.1: issuerKeyHash", &out->key_hash, err));
	TRY(der_integer(&id, "4.1.1: serialNumber", &serial, err));
	TRY(der_end(&id, "4.1.1: CertID", err));
	out->serial_ours = serial.len == SERIAL_BYTES && serial.data[0] >= 0x01 &&
	                   serial.data[0] <= 0x7f;
	if (out->serial_ours)
		memcpy(out->serial.octets, serial.data, SERIAL_BYTES);
	return OK;
}

/* RFC 9654 2.1: Nonce ::= OCTET STRING (SIZE (1..128)) */
static enum status
read_nonce(struct der *list, struct view value, struct view *nonce, struct err *err)
{
	struct der in = der_of(value, list->code, list->what);

	if (nonce->len > 0)
		return der_refuse(list, err, "RFC 9654 2.1: nonce: stands twice");
	TRY(der_octets(&in, "RFC 9654 2.1: nonce", nonce, err));
	TRY(der_end(&in, "RFC 9654 2.1: nonce", err));
	if (nonce->len < 1 || nonce->len > OCSP_NONCE_MAX_BYTES)
		return der_refuse(list, err, "RFC 9654 2.1: nonce: 1 to %d octets wanted, %zu found",
			OCSP_NONCE_MAX_BYTES, nonce->len);
	return OK;
}

enum status
ca_ocsp_nonce_read(struct der *extensions, bool only_nonce, struct view *nonce, struct err *err)
{
	struct der list;

	*nonce = (struct view){ NULL, 0 };
	TRY(der_enter(extensions, DER_SEQUENCE, "RFC 6960 4.4: Extensions", &list, err));
	for (size_t i = 0; !der_at_end(&list); i++) {
		struct view oid, value;
		struct der one;
		bool critical;

		if (i == EXTENSIONS_MAX)
			return der_refuse(&list, err, "at most %d extensions wanted", EXTENSIONS_MAX);
		TRY(der_enter(&list, DER_SEQUENCE, "RFC 6960 4.4: Extension", &one, err));
		TRY(der_oid(&one, "RFC 6960 4.4: extnID", &oid, err));
		TRY(der_boolean_default_false(&one, "RFC 6960 4.4: critical", &critical, err));
		TRY(der_octets(&one, "RFC 6960 4.4: extnValue", &value, err));
		TRY(der_end(&one, "RFC 6960 4.4: Extension", err));
		if (view_equal(oid, NONCE))
			TRY(read_nonce(&list, value, nonce, err));
		else if (critical || only_nonce) /* RFC 6960 4.4: what is critical must be understood */
			return der_refuse(&list, err, "RFC 6960 4.4: an extension that is not known%s",
				critical ? " and critical" : "");
	}
	return OK;
}

static enum status
read_extensions(struct der *in, unsigned tag, struct view *nonce, struct err *err)
{
	struct der tagged;

	*nonce = (struct view){ NULL, 0 };
	if (!der_next_is(in, tag))
		return OK;
	TRY(der_enter(in, tag, "RFC 6960 4.1.1: extensions", &tagged, err));
	TRY(ca_ocsp_nonce_read(&tagged, false, nonce, err));
	return der_end(&tagged, "RFC 6960 4.1.1: extensions", err);
}

static enum status
read_list(struct der *tbs, struct ca_ocsp_request *out, struct err *err)
{
	struct der list;

	TRY(der_enter(tbs, DER_SEQUENCE, "4.1.1: requestList", &list, err));
	for (out->count = 0; !der_at_end(&list); out->count++) {
		struct view ignored;
		struct der one;

		if (out->count == OCSP_IDS_MAX)
			return der_refuse(tbs, err, "requestList: at most %d CertIDs wanted",
				OCSP_IDS_MAX);
		TRY(der_enter(&list, DER_SEQUENCE, "4.1.1: Request", &one, err));
		TRY(ca_ocsp_id_read(&one, &out->ids[out->count], err));
		TRY(read_extensions(&one, DER_CONTEXT_CONSTRUCTED(0), &ignored, err));
		TRY(der_end(&one, "4.1.1: Request", err));
	}
	if (out->count == 0)
		return der_refuse(tbs, err, "requestList: a CertID wanted");
	return OK;
}

static enum status
read_tbs(struct der *request, struct ca_ocsp_request *out, struct err *err)
{
	struct der tbs, version;
	uint64_t number;

	TRY(der_enter(request, DER_SEQUENCE, "4.1.1: tbsRequest", &tbs, err));
	/* v1 is the default and should not be written; a client that writes it means no harm. */
	if (der_next_is(&tbs, DER_CONTEXT_CONSTRUCTED(0))) {
		TRY(der_enter(&tbs, DER_CONTEXT_CONSTRUCTED(0), "4.1.1: version", &version, err));
		TRY(der_number(&version, "4.1.1: version", &number, err));
		TRY(der_end(&version, "4.1.1: version", err));
		if (number != 0)
			return der_refuse(request, err, "4.1.1: version: 0 wanted");
	}
	if (der_next_is(&tbs, DER_CONTEXT_CONSTRUCTED(1)))
		TRY(der_any(&tbs, "4.1.1: requestorName", NULL, NULL, NULL, err));
	TRY(read_list(&tbs, out, err));
	TRY(read_extensions(&tbs, DER_CONTEXT_CONSTRUCTED(2), &out->nonce, err));
	return der_end(&tbs, "4.1.1: tbsRequest", err);
}

enum status
ca_ocsp_request_read(struct ca_ocsp_request *out, struct view der, struct err *err)
{
	struct der in = der_of(der, "ocsp_malformed", "ocsp request");
	struct der request;

	TRY(der_enter(&in, DER_SEQUENCE, "4.1.1: OCSPRequest", &request, err));
	TRY(der_end(&in, "4.1.1: OCSPRequest", err));
	TRY(read_tbs(&request, out, err));
	if (der_next_is(&request, DER_CONTEXT_CONSTRUCTED(0)))
		TRY(der_any(&request, "4.1.1: optionalSignature", NULL, NULL, NULL, err));
	return der_end(&request, "4.1.1: OCSPRequest", err);
}

/* ---- issuers ---- */

static enum status
hash(uint8_t out[64], size_t *len, enum ca_ocsp_hash with, struct view data, struct err *err)
{
	if (!EVP_Q_digest(NULL, HASHES[with].name, NULL, data.data, data.len, out, len))
		return err_openssl(err, "cannot hash with %s", HASHES[with].name);
	return OK;
}

/* The octets of subjectPublicKey, without tag, length and unused bits (4.1.1, 4.2.1). */
static enum status
key_octets(struct view *out, struct view spki, struct err *err)
{
	struct der in = der_of(spki, "certificate_malformed", "public key");
	struct der info;

	TRY(der_enter(&in, DER_SEQUENCE, "SubjectPublicKeyInfo", &info, err));
	TRY(der_take(&info, DER_SEQUENCE, "algorithm", out, err));
	return der_bits(&info, "subjectPublicKey", out, err);
}

enum status
ca_ocsp_issuer_init(struct ca_ocsp_issuer *out, struct view certificate, struct err *err)
{
	struct ca_cert_view view;
	struct view key;

	*out = (struct ca_ocsp_issuer){ .by[OCSP_HASH_OTHER].len = 0 };
	TRY(ca_cert_parse(&view, certificate, err));
	TRY(key_octets(&key, view.spki, err));
	for (unsigned i = OCSP_SHA1; i < OCSP_HASHES; i++) {
		TRY(hash(out->by[i].name, &out->by[i].len, (enum ca_ocsp_hash)i, view.subject, err));
		TRY(hash(out->by[i].key, &out->by[i].len, (enum ca_ocsp_hash)i, key, err));
	}
	return OK;
}

bool
ca_ocsp_names(const struct ca_ocsp_id *id, const struct ca_ocsp_issuer *issuer)
{
	size_t len = issuer->by[id->hash].len;

	return len > 0 && view_equal(id->key_hash, (struct view){ issuer->by[id->hash].key, len }) &&
	       view_equal(id->name_hash, (struct view){ issuer->by[id->hash].name, len });
}

enum status
ca_ocsp_key_hash(uint8_t out[OCSP_KEY_HASH_BYTES], struct view spki, struct err *err)
{
	uint8_t digest[64];
	struct view key;
	size_t len;

	TRY(key_octets(&key, spki, err));
	TRY(hash(digest, &len, OCSP_SHA1, key, err));
	memcpy(out, digest, OCSP_KEY_HASH_BYTES);
	return OK;
}

/* ---- answers (RFC 6960 4.2.1) ---- */

static void
put_status(struct der_writer *w, const struct ca_ocsp_single *single)
{
	if (single->status != OCSP_REVOKED) {
		der_put(w, single->status == OCSP_GOOD ? DER_CONTEXT(0) : DER_CONTEXT(2),
			(struct view){ NULL, 0 });
		return;
	}
	der_open(w, DER_CONTEXT_CONSTRUCTED(1));
	der_put_generalized_time(w, single->revoked_at_s);
	if (single->reason != 0) {
		const uint8_t reason = (uint8_t)single->reason;

		der_open(w, DER_CONTEXT_CONSTRUCTED(0));
		der_put(w, DER_ENUMERATED, (struct view){ &reason, 1 });
		der_close(w);
	}
	der_close(w);
}

static void
put_single(struct der_writer *w, const struct ca_ocsp_single *single)
{
	assert(single->status != OCSP_STATUS_UNSET);
	der_open(w, DER_SEQUENCE);
	der_put_raw(w, single->id);
	put_status(w, single);
	der_put_generalized_time(w, single->this_update_s);
	der_open(w, DER_CONTEXT_CONSTRUCTED(0));
	der_put_generalized_time(w, single->next_update_s);
	der_close(w);
	der_close(w);
}

static void
put_nonce(struct der_writer *w, struct view nonce)
{
	der_open(w, DER_CONTEXT_CONSTRUCTED(1));
	der_open(w, DER_SEQUENCE);
	der_open(w, DER_SEQUENCE);
	der_put(w, DER_OID, NONCE);
	der_open(w, DER_OCTET_STRING);
	der_put(w, DER_OCTET_STRING, nonce);
	der_close(w);
	der_close(w);
	der_close(w);
	der_close(w);
}

enum status
ca_ocsp_data_write(struct der_writer *w, const uint8_t key_hash[OCSP_KEY_HASH_BYTES],
	int64_t produced_at_s, const struct ca_ocsp_single *singles, size_t count, struct view nonce,
	struct err *err)
{
	der_writer_reset(w);
	der_open(w, DER_SEQUENCE);
	der_open(w, DER_CONTEXT_CONSTRUCTED(2)); /* responderID: byKey */
	der_put(w, DER_OCTET_STRING, (struct view){ key_hash, OCSP_KEY_HASH_BYTES });
	der_close(w);
	der_put_generalized_time(w, produced_at_s);
	der_open(w, DER_SEQUENCE);
	for (size_t i = 0; i < count; i++)
		put_single(w, &singles[i]);
	der_close(w);
	if (nonce.len > 0)
		put_nonce(w, nonce);
	der_close(w);
	return der_finish(w, err);
}

enum status
ca_ocsp_response_write(struct der_writer *w, struct view data, struct view signature,
	struct view certificate, struct err *err)
{
	static const uint8_t SUCCESSFUL[] = { DER_ENUMERATED, 1, 0 };
	static const uint8_t BASIC[] = { DER_OID, 9, 0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1 };

	der_writer_reset(w);
	der_open(w, DER_SEQUENCE);
	der_put_raw(w, (struct view){ SUCCESSFUL, sizeof(SUCCESSFUL) });
	der_open(w, DER_CONTEXT_CONSTRUCTED(0));
	der_open(w, DER_SEQUENCE); /* ResponseBytes */
	der_put_raw(w, (struct view){ BASIC, sizeof(BASIC) });
	der_open(w, DER_OCTET_STRING);
	der_open(w, DER_SEQUENCE); /* BasicOCSPResponse */
	der_put_raw(w, data);
	der_put_raw(w, ca_key_type_algorithm(KEY_EC_P256));
	der_put_bits(w, signature);
	der_open(w, DER_CONTEXT_CONSTRUCTED(0));
	der_open(w, DER_SEQUENCE);
	der_put_raw(w, certificate);
	der_close(w);
	der_close(w);
	der_close(w);
	der_close(w);
	der_close(w);
	der_close(w);
	der_close(w);
	return der_finish(w, err);
}

struct view
ca_ocsp_error_response(enum ca_ocsp_error error)
{
	static const uint8_t ANSWERS[][5] = {
		[OCSP_MALFORMED_REQUEST] = { 0x30, 3, DER_ENUMERATED, 1, OCSP_MALFORMED_REQUEST },
		[OCSP_INTERNAL_ERROR] = { 0x30, 3, DER_ENUMERATED, 1, OCSP_INTERNAL_ERROR },
		[OCSP_TRY_LATER] = { 0x30, 3, DER_ENUMERATED, 1, OCSP_TRY_LATER },
		[OCSP_UNAUTHORIZED] = { 0x30, 3, DER_ENUMERATED, 1, OCSP_UNAUTHORIZED },
	};

	return (struct view){ ANSWERS[error], sizeof(ANSWERS[error]) };
}
