#include "ca/algorithm.h"

#include <stdio.h>

#include "ca/der.h"

#define UNREADABLE "unreadable"

struct named_oid {
	struct view oid;
	const char *name;
};
#define NAMED(octets, text)                                                                        \
	{                                                                                          \
		{ (const uint8_t *)("" octets), sizeof(octets) - 1 }, text                         \
	}

static const struct named_oid CURVES[] = {
	NAMED("\x2a\x86\x48\xce\x3d\x03\x01\x07", "ec-p256"), /* RFC 5480 2.1.1.1 */
	NAMED("\x2b\x81\x04\x00\x22", "ec-p384"),
	NAMED("\x2b\x81\x04\x00\x23", "ec-p521"),
};

static const struct named_oid SIGNATURES[] = {
	NAMED("\x2a\x86\x48\xce\x3d\x04\x01", "ecdsa-with-SHA1"),
	NAMED("\x2a\x86\x48\xce\x3d\x04\x03\x02", "ecdsa-with-SHA256"), /* RFC 5758 3.2 */
	NAMED("\x2a\x86\x48\xce\x3d\x04\x03\x03", "ecdsa-with-SHA384"),
	NAMED("\x2a\x86\x48\xce\x3d\x04\x03\x04", "ecdsa-with-SHA512"),
	NAMED("\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05", "sha1WithRSAEncryption"),
	NAMED("\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0a", "rsassa-pss"),
	NAMED("\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b", "sha256WithRSAEncryption"), /* RFC 4055 5 */
	NAMED("\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0c", "sha384WithRSAEncryption"),
	NAMED("\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0d", "sha512WithRSAEncryption"),
	NAMED("\x2b\x65\x70", "ed25519"), /* RFC 8410 3 */
};

static void
write_oid(char out[CA_ALGORITHM_BYTES], struct view oid, const struct named_oid *names, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (view_equal(names[i].oid, oid)) {
			(void)snprintf(out, CA_ALGORITHM_BYTES, "%s", names[i].name);
			return;
		}
	der_oid_text(out, CA_ALGORITHM_BYTES, oid);
}

/* RFC 3279 2.3.1: RSAPublicKey is modulus and exponent. */
static bool
rsa_bits(struct view key, size_t *bits)
{
	struct der in = der_of(key, "certificate_malformed", "key");
	struct der inside;
	struct view modulus;
	struct err err;

	if (der_enter(&in, DER_SEQUENCE, "RSAPublicKey", &inside, &err) != OK ||
	    der_unsigned(&inside, "modulus", &modulus, &err) != OK || modulus.len == 0)
		return false;
	*bits = modulus.len * 8;
	for (uint8_t top = modulus.data[0]; (top & 0x80) == 0; top = (uint8_t)(top << 1))
		(*bits)--;
	return true;
}

/* RFC 5280 4.1: { { algorithm, parameters }, BIT STRING } */
static bool
read_key(struct view spki, struct view *oid, struct view *curve, struct view *key)
{
	struct der in = der_of(spki, "certificate_malformed", "key");
	struct der outer;
	struct der algorithm;
	struct err err;

	*curve = (struct view){ NULL, 0 };
	if (der_enter(&in, DER_SEQUENCE, "spki", &outer, &err) != OK ||
	    der_enter(&outer, DER_SEQUENCE, "algorithm", &algorithm, &err) != OK ||
	    der_oid(&algorithm, "algorithm", oid, &err) != OK)
		return false;
	if (der_next_is(&algorithm, DER_OID) && der_oid(&algorithm, "curve", curve, &err) != OK)
		return false;
	return der_bits(&outer, "key", key, &err) == OK;
}

void
ca_algorithm_of_key(char out[CA_ALGORITHM_BYTES], struct view spki)
{
	struct view oid;
	struct view curve;
	struct view key;
	size_t bits;

	(void)snprintf(out, CA_ALGORITHM_BYTES, UNREADABLE);
	if (!read_key(spki, &oid, &curve, &key))
		return;
	if (DER_OID_IS(oid, "\x2a\x86\x48\xce\x3d\x02\x01")) { /* id-ecPublicKey, RFC 5480 2.1.1 */
		if (curve.len > 0)
			write_oid(out, curve, CURVES, COUNT_OF(CURVES));
	} else if (DER_OID_IS(oid, "\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01")) { /* rsaEncryption */
		if (rsa_bits(key, &bits))
			(void)snprintf(out, CA_ALGORITHM_BYTES, "rsa-%zu", bits);
	} else
		write_oid(out, oid, SIGNATURES, COUNT_OF(SIGNATURES));
}

void
ca_algorithm_of_signature(char out[CA_ALGORITHM_BYTES], struct view algorithm)
{
	struct der in = der_of(algorithm, "certificate_malformed", "signature");
	struct der inside;
	struct view oid;
	struct err err;

	(void)snprintf(out, CA_ALGORITHM_BYTES, UNREADABLE);
	if (der_enter(&in, DER_SEQUENCE, "algorithm", &inside, &err) == OK &&
	    der_oid(&inside, "algorithm", &oid, &err) == OK)
		write_oid(out, oid, SIGNATURES, COUNT_OF(SIGNATURES));
}
