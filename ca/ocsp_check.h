/*
 * ca/ocsp_check.h - reads a ResponseData (RFC 6960 4.2.1) before it is signed, and refuses what a
 * responder of ours must not say, whoever wrote it. It cannot know whether a status is true: that is the
 * database's to say.
 *
 * Refused, all ERR_ARGUMENT: ocsp_malformed (encoding, fields and extensions that we do not write, a
 * CertID that is none); ocsp_responder (another responderID); ocsp_times (producedAt or thisUpdate in the
 * future or over five minutes old; nextUpdate missing, passed, past the responder's end or over a week
 * ahead; revoked in the future); ocsp_issuer (good or revoked of a CA that is not here); ocsp_reason.
 */
#ifndef CA_OCSP_CHECK_H
#define CA_OCSP_CHECK_H

#include "ca/ocsp.h"

#define OCSP_AGE_MAX_S 300
#define OCSP_AHEAD_MAX_S (7 * 86400)

struct ca_ocsp_rules {
	uint8_t key_hash[OCSP_KEY_HASH_BYTES];
	int64_t now_s;
	int64_t not_after_s;                   /* of the responder's certificate */
	const struct ca_ocsp_issuer *issuers;  /* borrowed */
	size_t issuer_count;
};

MUST_USE enum status ca_ocsp_check(const struct ca_ocsp_rules *rules, struct view data,
	struct err *err);

#endif
