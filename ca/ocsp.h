/*
 * ca/ocsp.h - OCSP (RFC 6960; profile of RFC 5019; nonces of RFC 9654) as DER of our own: requests are
 * read, answers are written. What a certificate's status is, and who signs, is not this module's affair:
 * ca/ocsp_check.h and ca/signer.h sign, server/protocol/ocsp.c asks the database.
 *
 * Not checked: a request's signature and requestor name, for we answer anyone (RFC 6960 4.1.2 leaves it
 * to the responder). Nothing here allocates but the writers. Times are seconds since the epoch, UTC.
 */
#ifndef CA_OCSP_H
#define CA_OCSP_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "base/serial.h"
#include "ca/der.h"

/* A client asks for one, or for its chain. What asks for hundreds wants our time, not our answer. */
#define OCSP_IDS_MAX 64
/* SHA-512 twice, a serial of 20 octets: 175. */
#define OCSP_ID_MAX_BYTES 256
#define OCSP_NONCE_MAX_BYTES 128 /* RFC 9654 2.1 */
/* Of a ResponseData with all that it may hold. */
#define OCSP_DATA_MAX_BYTES ((size_t)OCSP_IDS_MAX * (OCSP_ID_MAX_BYTES + 80) + 512)
#define OCSP_KEY_HASH_BYTES 20

enum ca_ocsp_hash { OCSP_HASH_OTHER = 0, OCSP_SHA1, OCSP_SHA256, OCSP_SHA384, OCSP_SHA512, OCSP_HASHES };

/* CertID (4.1.1); views borrow from the request. */
struct ca_ocsp_id {
	struct view whole; /* DER: stands in the answer as it was asked */
	enum ca_ocsp_hash hash;
	struct view name_hash, key_hash;
	bool serial_ours; /* of our form: then serial */
	struct serial serial;
};

struct ca_ocsp_request {
	struct ca_ocsp_id ids[OCSP_IDS_MAX];
	size_t count;      /* at least 1 */
	struct view nonce; /* empty: none */
};

/*
 * Reads one OCSPRequest with nothing behind it. ERR_ARGUMENT ocsp_malformed: the encoding, another
 * version, no CertID or more than OCSP_IDS_MAX, a nonce of 0 or over 128 octets, an extension that stands
 * twice, or an unknown critical one.
 */
MUST_USE enum status ca_ocsp_request_read(struct ca_ocsp_request *out, struct view der,
	struct err *err);
/* For ca/ocsp_check.c: one CertID. */
MUST_USE enum status ca_ocsp_id_read(struct der *in, struct ca_ocsp_id *out, struct err *err);
/* The nonce out of a list of extensions, which may be none but known ones or what is not critical. With
 * only_nonce nothing else may be there. */
MUST_USE enum status ca_ocsp_nonce_read(struct der *extensions, bool only_nonce, struct view *nonce,
	struct err *err);

/* What CertIDs call an issuer by. */
struct ca_ocsp_issuer {
	struct {
		uint8_t name[64], key[64];
		size_t len; /* of both */
	} by[OCSP_HASHES];
};
/* certificate: the issuer's own, DER. ERR_ARGUMENT certificate_malformed; ERR_INTERNAL openssl. */
MUST_USE enum status ca_ocsp_issuer_init(struct ca_ocsp_issuer *out, struct view certificate,
	struct err *err);
bool ca_ocsp_names(const struct ca_ocsp_id *id, const struct ca_ocsp_issuer *issuer);

/* SHA-1 of the octets of subjectPublicKey: a responder's id byKey (4.2.1). */
MUST_USE enum status ca_ocsp_key_hash(uint8_t out[OCSP_KEY_HASH_BYTES], struct view spki,
	struct err *err);

enum ca_ocsp_status { OCSP_STATUS_UNSET = 0, OCSP_GOOD, OCSP_REVOKED, OCSP_UNKNOWN };

struct ca_ocsp_single {
	struct view id; /* CertID, DER */
	enum ca_ocsp_status status;
	int64_t revoked_at_s;
	int reason; /* RFC 5280 5.3.1; 0 is left out */
	int64_t this_update_s, next_update_s;
};

/* Writes ResponseData (4.2.1) into w, which is reset first: what is signed. nonce may be empty. */
MUST_USE enum status ca_ocsp_data_write(struct der_writer *w,
	const uint8_t key_hash[OCSP_KEY_HASH_BYTES], int64_t produced_at_s,
	const struct ca_ocsp_single *singles, size_t count, struct view nonce, struct err *err);
/* Writes the whole OCSPResponse around it. signature: ecdsa-with-SHA256; certificate: the responder's. */
MUST_USE enum status ca_ocsp_response_write(struct der_writer *w, struct view data,
	struct view signature, struct view certificate, struct err *err);

/* OCSPResponseStatus (4.2.1) of answers without a signature. */
enum ca_ocsp_error {
	OCSP_MALFORMED_REQUEST = 1,
	OCSP_INTERNAL_ERROR = 2,
	OCSP_TRY_LATER = 3,
	OCSP_UNAUTHORIZED = 6, /* RFC 5019 2.2.3: of none of these can we speak */
};
struct view ca_ocsp_error_response(enum ca_ocsp_error error); /* DER; static */

#endif
