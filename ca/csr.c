#include "ca/csr.h"

#include <string.h>

#include "ca/der.h"
#include "ca/digest.h"
#include "ca/pem.h"

/* Real requests have one or two of each; the bounds keep the search for doubles short. */
#define ATTRIBUTES_MAX 16
#define EXTENSIONS_MAX 32

#define OID_EXTENSION_REQUEST "\x2a\x86\x48\x86\xf7\x0d\x01\x09\x0e" /* 1.2.840.113549.1.9.14 */
/* Microsoft's own name for the same, 1.3.6.1.4.1.311.2.1.14. */
#define OID_MS_EXTENSIONS "\x2b\x06\x01\x04\x01\x82\x37\x02\x01\x0e"
#define OID_SUBJECT_KEY_ID "\x55\x1d\x0e"
#define OID_KEY_USAGE "\x55\x1d\x0f"
#define OID_BASIC_CONSTRAINTS "\x55\x1d\x13"
#define OID_EXT_KEY_USAGE "\x55\x1d\x25"

void
ca_csr_free(struct ca_csr *csr)
{
	bytes_free(&csr->spki);
	bytes_free(&csr->extensions);
}

/* What a request consists of; borrowed from its DER. */
struct request {
	struct view info;       /* CertificationRequestInfo, whole */
	struct view spki;       /* whole */
	struct view algorithm;  /* whole */
	struct view signature;
	struct view extensions; /* the Extensions SEQUENCE, whole; empty: none */
};

static bool
seen(const struct view *oids, size_t count, struct view oid)
{
	for (size_t i = 0; i < count; i++) {
		if (view_equal(oids[i], oid))
			return true;
	}
	return false;
}

/* Only the form: nothing in it is taken over. */
static enum status
read_name(struct der *in, struct err *err)
{
	struct der name, rdn, attribute;
	struct view oid;

	TRY(der_enter(in, DER_SEQUENCE, "RFC 2986 4.1: subject", &name, err));
	while (!der_at_end(&name)) {
		TRY(der_enter(&name, DER_SET, "subject: RelativeDistinguishedName", &rdn, err));
		do { /* SET SIZE (1..MAX) */
			TRY(der_enter(&rdn, DER_SEQUENCE, "subject: AttributeTypeAndValue",
				&attribute, err));
			TRY(der_oid(&attribute, "subject: type", &oid, err));
			TRY(der_any(&attribute, "subject: value", NULL, NULL, NULL, err));
			TRY(der_end(&attribute, "subject: AttributeTypeAndValue", err));
		} while (!der_at_end(&rdn));
	}
	return OK;
}

struct extension {
	struct view oid, value;
	bool critical;
};

/* RFC 5280 4.1 */
static enum status
read_extension(struct der *list, struct extension *out, struct err *err)
{
	struct der in;

	TRY(der_enter(list, DER_SEQUENCE, "Extension", &in, err));
	TRY(der_oid(&in, "Extension: extnID", &out->oid, err));
	TRY(der_boolean_default_false(&in, "Extension: critical", &out->critical, err));
	TRY(der_octets(&in, "Extension: extnValue", &out->value, err));
	return der_end(&in, "Extension", err);
}

static enum status
read_extensions(struct der *values, struct view *whole, struct err *err)
{
	struct view oids[EXTENSIONS_MAX];
	struct extension extension;
	struct der copy, list;
	size_t count = 0;

	TRY(der_take_whole(values, DER_SEQUENCE, "extensionRequest: Extensions", whole, err));
	TRY(der_end(values, "extensionRequest: one value", err));
	copy = der_of(*whole, values->code, values->what);
	TRY(der_enter(&copy, DER_SEQUENCE, "extensionRequest: Extensions", &list, err));
	while (!der_at_end(&list)) {
		TRY(read_extension(&list, &extension, err));
		if (seen(oids, count, extension.oid)) /* RFC 5280 4.2 */
			return der_refuse(
				&list, err, "extensionRequest: an extension stands twice");
		if (count == EXTENSIONS_MAX)
			return der_refuse(&list, err,
				"extensionRequest: at most %d extensions wanted", EXTENSIONS_MAX);
		oids[count++] = extension.oid;
	}
	if (count == 0)
		*whole = (struct view){ NULL, 0 }; /* asks for nothing */
	return OK;
}

/*
 * RFC 2986 4.1: attributes [0]. That a SET OF is sorted is not asked for: many devices' encoders do
 * not, and the signature covers the octets as they came.
 */
static enum status
read_attributes(struct der *info, struct request *out, struct err *err)
{
	struct view oids[ATTRIBUTES_MAX];
	struct der list, attribute, values;
	bool asked = false;
	size_t count = 0;

	TRY(der_enter(info, DER_CONTEXT_CONSTRUCTED(0), "RFC 2986 4.1: attributes", &list, err));
	while (!der_at_end(&list)) {
		if (count == ATTRIBUTES_MAX)
			return der_refuse(
				&list, err, "attributes: at most %d wanted", ATTRIBUTES_MAX);
		TRY(der_enter(&list, DER_SEQUENCE, "attributes: Attribute", &attribute, err));
		TRY(der_oid(&attribute, "attributes: type", &oids[count], err));
		TRY(der_enter(&attribute, DER_SET, "attributes: values", &values, err));
		TRY(der_end(&attribute, "attributes: Attribute", err));
		if (der_at_end(&values)) /* RFC 2986 4.1: SIZE (1..MAX) */
			return der_refuse(&list, err, "attributes: a value wanted, none found");
		if (seen(oids, count, oids[count]))
			return der_refuse(&list, err, "attributes: an attribute stands twice");
		if (DER_OID_IS(oids[count], OID_EXTENSION_REQUEST) ||
		    DER_OID_IS(oids[count], OID_MS_EXTENSIONS)) {
			if (asked)
				return der_refuse(&list, err, "attributes: two extensionRequests");
			asked = true;
			TRY(read_extensions(&values, &out->extensions, err));
		}
		while (!der_at_end(&values))
			TRY(der_any(&values, "attributes: value", NULL, NULL, NULL, err));
		count++;
	}
	return OK;
}

/* RFC 2986 4.2 */
static enum status
read_request(struct view der, struct request *out, struct err *err)
{
	struct der outer = der_of(der, "csr_malformed", "csr"), request, copy, info;
	uint64_t version;

	*out = (struct request){ .extensions = { NULL, 0 } };
	TRY(der_enter(&outer, DER_SEQUENCE, "RFC 2986 4.2: CertificationRequest", &request, err));
	TRY(der_end(&outer, "CertificationRequest", err));
	copy = request;
	TRY(der_take_whole(
		&copy, DER_SEQUENCE, "RFC 2986 4.1: CertificationRequestInfo", &out->info, err));
	TRY(der_enter(
		&request, DER_SEQUENCE, "RFC 2986 4.1: CertificationRequestInfo", &info, err));
	TRY(der_take_whole(&request, DER_SEQUENCE, "RFC 2986 4.2: signatureAlgorithm",
		&out->algorithm, err));
	TRY(der_bits(&request, "RFC 2986 4.2: signature", &out->signature, err));
	TRY(der_end(&request, "RFC 2986 4.2: CertificationRequest", err));

	TRY(der_number(&info, "RFC 2986 4.1: version", &version, err));
	if (version != 0)
		return der_refuse(&info, err, "RFC 2986 4.1: version 0 wanted, %llu found",
			(unsigned long long)version);
	TRY(read_name(&info, err));
	TRY(der_take_whole(&info, DER_SEQUENCE, "RFC 2986 4.1: subjectPKInfo", &out->spki, err));
	TRY(read_attributes(&info, out, err));
	return der_end(&info, "RFC 2986 4.1: CertificationRequestInfo", err);
}

static enum status
too_large(struct err *err, size_t limit)
{
	return err_set(
		err, ERR_TOO_LARGE, "csr_too_large", "csr: at most %zu octets wanted", limit);
}

enum status
ca_csr_read_der(struct ca_verifier *verifier, struct view der, struct ca_csr *out, struct err *err)
{
	own_struct(ca_csr) csr = { .spki = { NULL, 0 }, .extensions = { NULL, 0 } };
	struct request request;

	if (der.len > CSR_DER_MAX_BYTES)
		return too_large(err, CSR_DER_MAX_BYTES);
	TRY(read_request(der, &request, err));
	if (ca_spki_check(verifier, request.spki, &csr.key_type, err) != OK)
		return err_wrap(err, "csr");
	if (ca_verifier_check(verifier, request.algorithm, request.info, request.signature, err) !=
		OK)
		return err_wrap(err, "csr");

	TRY(bytes_copy(&csr.spki, request.spki, err));
	ca_sha256(csr.spki_sha256, request.spki);
	csr.has_extensions = request.extensions.len > 0;
	if (csr.has_extensions)
		TRY(bytes_copy(&csr.extensions, request.extensions, err));
	*out = give_struct(csr);
	return OK;
}

/* Base64 is a third longer, and some encoders break lines early. */
#define CSR_PEM_MAX_BYTES (2 * CSR_DER_MAX_BYTES)

enum status
ca_csr_read_pem(struct ca_verifier *verifier, struct view pem, struct ca_csr *out, struct err *err)
{
	uint8_t der[CSR_DER_MAX_BYTES];
	struct view label, body;
	struct err inner;
	size_t len;

	if (pem.len > CSR_PEM_MAX_BYTES)
		return too_large(err, CSR_DER_MAX_BYTES);
	if (ca_pem_one(pem, &label, &body, &inner) != OK)
		return err_set(err, ERR_ARGUMENT, "csr_not_pem", "csr: %s", inner.text);
	if (!view_equal_text(label, "CERTIFICATE REQUEST") &&
	    !view_equal_text(label, "NEW CERTIFICATE REQUEST"))
		return err_set(err, ERR_ARGUMENT, "csr_not_pem",
			"csr: PEM label CERTIFICATE REQUEST wanted, %.*s found", (int)label.len,
			(const char *)label.data);
	if (ca_pem_body(der, sizeof(der), &len, body, &inner) != OK) {
		if (inner.status == ERR_TOO_LARGE)
			return too_large(err, CSR_DER_MAX_BYTES);
		return err_set(err, ERR_ARGUMENT, "csr_not_pem", "csr: %s", inner.text);
	}
	return ca_csr_read_der(verifier, (struct view){ der, len }, out, err);
}

/* ---- against a profile ---- */

static enum status
refused(struct err *err, const char *what)
{
	return err_set(err, ERR_ARGUMENT, "csr_extensions_refused",
		"csr: extensionRequest: no more than the profile gives wanted, %s found", what);
}

static enum status
check_key_usage(struct der *value, const struct ca_profile *profile, struct err *err)
{
	unsigned bits;

	TRY(der_named_bits(value, "keyUsage", &bits, err));
	TRY(der_end(value, "keyUsage", err));
	if ((bits & ~profile->key_usage) != 0)
		return refused(err, "another keyUsage");
	return OK;
}

static enum status
check_ext_key_usage(struct der *value, const struct ca_profile *profile, struct err *err)
{
	struct view oid;
	struct der list;
	char text[64];

	TRY(der_enter(value, DER_SEQUENCE, "extKeyUsage", &list, err));
	TRY(der_end(value, "extKeyUsage", err));
	while (!der_at_end(&list)) {
		bool given = false;

		TRY(der_oid(&list, "extKeyUsage: KeyPurposeId", &oid, err));
		der_oid_text(text, sizeof(text), oid);
		for (size_t i = 0; i < profile->eku_count; i++)
			given = given || strcmp(profile->eku[i], text) == 0;
		if (!given)
			return refused(err, "another extKeyUsage");
	}
	return OK;
}

static enum status
check_extension(
	const struct extension *extension, const struct ca_profile *profile, struct err *err)
{
	struct der value = der_of(extension->value, "csr_malformed", "csr: extensionRequest");
	struct der constraints;
	char text[64];

	if (DER_OID_IS(extension->oid, OID_KEY_USAGE))
		return check_key_usage(&value, profile, err);
	if (DER_OID_IS(extension->oid, OID_EXT_KEY_USAGE))
		return check_ext_key_usage(&value, profile, err);
	if (DER_OID_IS(extension->oid, OID_SUBJECT_KEY_ID))
		return OK; /* every certificate has one, of our own making */
	if (DER_OID_IS(extension->oid, OID_BASIC_CONSTRAINTS)) {
		TRY(der_enter(&value, DER_SEQUENCE, "basicConstraints", &constraints, err));
		TRY(der_end(&value, "basicConstraints", err));
		return der_at_end(&constraints) ? OK : refused(err, "a CA's basicConstraints");
	}
	/* subjectAltName too: names come from the authorised request alone (invariant 10). */
	der_oid_text(text, sizeof(text), extension->oid);
	return refused(err, text);
}

enum status
ca_csr_check(const struct ca_csr *csr, const struct ca_profile *profile, struct err *err)
{
	struct der outer =
		der_of(view_of(&csr->extensions), "csr_malformed", "csr: extensionRequest");
	struct extension extension;
	struct der list;

	if (csr->key_type == 0 || (profile->key_types & csr->key_type) == 0)
		return err_set(err, ERR_ARGUMENT, "csr_key_not_allowed",
			"csr: public key: a type that profile %s lists wanted, %s found",
			profile->name, ca_key_type_name(csr->key_type));
	if (!csr->has_extensions || profile->csr_extensions == CSR_EXTENSIONS_IGNORE)
		return OK;
	TRY(der_enter(&outer, DER_SEQUENCE, "Extensions", &list, err));
	while (!der_at_end(&list)) {
		TRY(read_extension(&list, &extension, err));
		TRY(check_extension(&extension, profile, err));
	}
	return OK;
}
