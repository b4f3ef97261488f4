/*
 * ca/signer.h - what holds the keys: prepare, sign, sign a CRL. Callers cannot tell a thread, a process
 * and an HSM apart. ca_signer_local is the real thing; ca_signer_remote speaks to a process that runs
 * one (ca/signer_wire.h, server/signer/).
 *
 * The signer builds each TBSCertificate itself from the request's fields, its own copy of the profile
 * and its own clock; lints it; keeps it under a handle (bounded, expiring after 60 s); and signs by
 * handle, once, the very bytes that it linted. It refuses profiles that it does not know, keys that
 * the profile forbids or that are blocked, and more than the profile's hourly cap.
 *
 * Threads: one call at a time on a ca_signer; open several for parallel work.
 */
#ifndef CA_SIGNER_H
#define CA_SIGNER_H

#include "base/bytes.h"
#include "base/clock.h"
#include "base/err.h"
#include "base/serial.h"
#include "ca/checkpoint.h"
#include "ca/profile.h"

struct ca_signer;

struct ca_prepare_item {
	/* In; borrowed for the call. */
	uint8_t profile_hash[32];
	const char *ca_id;
	struct view spki;
	const struct ca_request *request;
	int64_t validity_s; /* 0: the profile's default */
	enum ca_asker asker;

	/* Out. */
	enum status status; /* OK, or refusal says why: ERR_DENIED profile_unknown, profile_not_allowed,
	                     * public_key_blocked, ca_unknown; ERR_ARGUMENT csr_key_*, name_*,
	                     * validity_too_long, certificate_lint; ERR_TOO_MANY profile_hourly_cap;
	                     * ERR_UNAVAILABLE signer_full, ca_expired */
	struct err refusal;
	uint64_t handle;
	struct serial serial;
	uint8_t tbs_sha256[32];
	int64_t not_before_s, not_after_s;
	bool clamped; /* not_after was cut to the issuer's */
	char subject[512]; /* RFC 4514 text, for people */
};

struct ca_sign_item {
	uint64_t handle;
	/* Out; the caller frees der. ERR_NOT_FOUND handle_unknown. */
	enum status status;
	struct err refusal;
	struct bytes der; /* the certificate */
	uint8_t sha256[32]; /* of der: the certificate_id */
};

#define SIGNER_BATCH_MAX 256

/* A status other than OK means that the signer as a whole failed: ERR_UNAVAILABLE signer_away. */
MUST_USE enum status ca_signer_prepare(struct ca_signer *signer, struct ca_prepare_item *items,
	size_t count, struct err *err);
MUST_USE enum status ca_signer_sign(struct ca_signer *signer, struct ca_sign_item *items, size_t count,
	struct err *err);
/* Drops what was prepared and not admitted. */
MUST_USE enum status ca_signer_drop(struct ca_signer *signer, const uint64_t *handles, size_t count,
	struct err *err);

/*
 * Signs a TBSCertList (DER, see ca/crl.h), given in pieces so that no side holds it whole: begin, add …,
 * end. The signer walks the DER while it hashes: version, algorithm, issuer, thisUpdate (not in the
 * future, not over an hour old), nextUpdate (at most 31 days ahead), entries with serials of our form,
 * cRLNumber above what it signed before for that scope, AKI, IDP. end gives the signatureAlgorithm and
 * signature fields as they follow the TBSCertList in a CertificateList. ERR_ARGUMENT crl_*.
 */
MUST_USE enum status ca_signer_crl_begin(struct ca_signer *signer, const char *ca_id, struct err *err);
MUST_USE enum status ca_signer_crl_add(struct ca_signer *signer, struct view piece, struct err *err);
MUST_USE enum status ca_signer_crl_end(struct ca_signer *signer, struct bytes *tail, struct err *err);

/* Never certify this public key again. */
MUST_USE enum status ca_signer_block_key(struct ca_signer *signer, const uint8_t spki_sha256[32],
	struct err *err);

/*
 * OCSP (ca/ocsp.h). Makes a key for a delegated responder of that CA, in the signer's memory alone; the
 * caller has it certified through ca_signer_prepare and ca_signer_sign (a profile with the OCSP signing
 * usage takes no other key) and owns *spki. A new signer has none. ERR_DENIED ca_unknown.
 */
MUST_USE enum status ca_signer_ocsp_key(struct ca_signer *signer, const char *ca_id,
	struct bytes *spki, struct err *err);

#define CA_OCSP_SIGNATURE_MAX_BYTES 72 /* ECDSA over P-256 */
struct ca_ocsp_item {
	/* In; borrowed for the call. */
	const char *ca_id;     /* whose responder */
	uint8_t key_hash[20];  /* which of its keys: ca_ocsp_key_hash */
	struct view data;      /* ResponseData, DER */
	/* Out. ERR_NOT_FOUND ocsp_key_unknown: make a new key; ERR_ARGUMENT ocsp_* (ca/ocsp_check.h);
	 * ERR_DENIED ca_unknown. */
	enum status status;
	struct err refusal;
	uint8_t signature[CA_OCSP_SIGNATURE_MAX_BYTES];
	size_t signature_len;
};
/* Checks and signs each. All data together: at most 512 KiB. */
MUST_USE enum status ca_signer_ocsp_sign(struct ca_signer *signer, struct ca_ocsp_item *items,
	size_t count, struct err *err);

/*
 * Signs a checkpoint of the audit log (ca/checkpoint.h). Of checkpoint all but at_s counts: the time is the
 * signer's own. It must follow what this signer process signed before (ca_checkpoint_follows). ERR_NOT_FOUND
 * checkpoint_key_absent; ERR_ARGUMENT checkpoint_field; ERR_CONFLICT checkpoint_order. The caller owns *note.
 */
MUST_USE enum status ca_signer_checkpoint(struct ca_signer *signer,
	const struct ca_checkpoint *checkpoint, struct bytes *note, struct err *err);

struct ca_signer_ca {
	char ca_id[CA_ID_BYTES];
	bool is_root;         /* a root without key here: only its certificate is known */
	bool can_sign;
	struct bytes certificate; /* DER */
	struct bytes chain[8];    /* issuers, nearest first, the root last */
	size_t chain_count;
};
struct ca_signer_info {
	struct ca_signer_ca cas[8];
	size_t ca_count;
	uint8_t profile_hashes[CA_PROFILES_MAX][32];
	size_t profile_count;
	uint64_t prepared, signed_count;
	bool has_checkpoint_key;
	uint8_t checkpoint_key[CA_CHECKPOINT_KEY_BYTES]; /* the public half */
};
MUST_USE enum status ca_signer_info(struct ca_signer *signer, struct ca_signer_info *out,
	struct err *err);
void ca_signer_info_free(struct ca_signer_info *info);
OWNER_STRUCT(ca_signer_info, ca_signer_info_free)

void ca_signer_free(struct ca_signer *signer); /* NULL is welcome */

/* The real thing, in this process. See ca/keystore.h for where its keys come from. */
struct ca_keystore;
struct ca_signer_setup {
	struct ca_keystore *keystore;      /* borrowed, unsealed */
	const struct ca_profile *profiles; /* borrowed */
	size_t profile_count;
	const char *public_http_url; /* "http://ca.example.com": CDP and AIA addresses start with it */
	const struct clock *clock;   /* borrowed */
	struct entropy *entropy;     /* borrowed */
};
struct ca_signer_shared; /* what several local signers of one process share: block list, caps */
MUST_USE enum status ca_signer_shared_new(struct ca_signer_shared **out,
	const struct ca_signer_setup *setup, struct err *err);
void ca_signer_shared_free(struct ca_signer_shared *shared);
MUST_USE enum status ca_signer_local(struct ca_signer **out, struct ca_signer_shared *shared,
	struct err *err);

/*
 * The same over a stream socket, which the new signer owns. A broken or silent peer gives
 * ERR_UNAVAILABLE signer_away for good; then free it and connect anew.
 */
MUST_USE enum status ca_signer_remote(struct ca_signer **out, int fd, struct err *err);
/* The other side: answers requests on fd with `signer` until the peer closes (OK) or breaks the protocol. */
MUST_USE enum status ca_signer_serve(int fd, struct ca_signer *signer, struct err *err);
/*
 * The same in steps, for who serves one connection after the other and does not want its megabyte
 * made each time. Borrows signer; after a failure the next connection begins afresh. One thread each.
 */
typedef struct ca_signer_server ca_signer_server;
MUST_USE enum status ca_signer_server_new(struct ca_signer_server **out, struct ca_signer *signer,
	struct err *err);
MUST_USE enum status ca_signer_server_run(struct ca_signer_server *server, int fd, struct err *err);
void ca_signer_server_free(struct ca_signer_server *server);
OWNER(ca_signer_server, ca_signer_server_free)

#endif
