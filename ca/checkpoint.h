/*
 * ca/checkpoint.h - signed checkpoints of the audit log: what the log held at a moment, for whoever keeps
 * it elsewhere. A checkpoint is a signed note (c2sp.org/signed-note), so that it is read by eye and
 * verified by tools that know notes; its text is this, and nothing else is ever signed with its key:
 *
 *	jitrca audit checkpoint v1
 *	log jitrca-audit/<the first 16 hex digits of SHA-256 of the public key>
 *	number <grows from one to the next; numbers may be missing>
 *	previous <SHA-256 of the text of the one before, hex; zeros: the first>
 *	at 2026-11-25T02:00:00Z
 *	records <how many are new since the one before>
 *	root <Merkle root over their hashes, by lane and sequence: ca/digest.h>
 *	lane <lane> <sequence of its last record> <that record's hash, hex>     for each lane, ascending
 *
 * and behind an empty line "— NAME BASE64": NAME is that of the log, BASE64 of 4 octets of key id and the
 * 64 octets of an Ed25519 signature (RFC 8032) over the text. The key id is the beginning of SHA-256(NAME,
 * 0x0a, 0x01, public key).
 *
 * This module knows form, key and order; whether the hashes are those of a log is its caller's affair.
 * Threads: no state of its own.
 */
#ifndef CA_CHECKPOINT_H
#define CA_CHECKPOINT_H

#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "ca/secret.h"

#define CA_CHECKPOINT_KEY_BYTES 32
/* A server has one lane of 64, and the command line one of its own; with room to spare. */
#define CA_CHECKPOINT_LANES_MAX 256
#define CA_CHECKPOINT_ORIGIN_BYTES 40
#define CA_CHECKPOINT_NOTE_MAX_BYTES 65536

struct ca_checkpoint_lane {
	int32_t lane;
	int64_t seq;      /* above zero */
	uint8_t head[32]; /* that record's hash */
};
struct ca_checkpoint {
	int64_t number; /* above zero */
	uint8_t previous[32];
	int64_t at_s;
	int64_t records;
	uint8_t root[32];
	size_t lane_count;
	struct ca_checkpoint_lane lanes[CA_CHECKPOINT_LANES_MAX]; /* ascending */
};

/* Ed25519 in two halves; secret is libsodium's 64 octets and empty where only the public key is known. */
struct ca_checkpoint_key {
	bool known;
	uint8_t public_key[CA_CHECKPOINT_KEY_BYTES];
	struct secret secret;
};
void ca_checkpoint_key_free(struct ca_checkpoint_key *key);
OWNER_STRUCT(ca_checkpoint_key, ca_checkpoint_key_free)

MUST_USE enum status ca_checkpoint_key_generate(struct ca_checkpoint_key *out, struct err *err);
/* The private half as PKCS#8 (RFC 8410), and from it: the public one must be known and match. */
MUST_USE enum status ca_checkpoint_key_to_pkcs8(const struct ca_checkpoint_key *key,
	struct secret *der, struct err *err);
MUST_USE enum status ca_checkpoint_key_unlock(struct ca_checkpoint_key *key, struct view der,
	struct err *err);
/* The public half as PEM SubjectPublicKeyInfo ("PUBLIC KEY"), which any tool reads, and from it. */
MUST_USE enum status ca_checkpoint_key_to_pem(const uint8_t public_key[CA_CHECKPOINT_KEY_BYTES],
	struct buf *pem, struct err *err);
/* ERR_ARGUMENT checkpoint_key. */
MUST_USE enum status ca_checkpoint_key_from_pem(uint8_t public_key[CA_CHECKPOINT_KEY_BYTES],
	struct view pem, struct err *err);
/* 44 octets: what is authenticated with the sealed key. */
#define CA_CHECKPOINT_SPKI_BYTES 44
void ca_checkpoint_key_spki(uint8_t out[CA_CHECKPOINT_SPKI_BYTES],
	const uint8_t public_key[CA_CHECKPOINT_KEY_BYTES]);

/* "jitrca-audit/…" of a key. */
void ca_checkpoint_origin(char out[CA_CHECKPOINT_ORIGIN_BYTES],
	const uint8_t public_key[CA_CHECKPOINT_KEY_BYTES]);

/*
 * May next follow last, as the log only grows? last NULL or of number 0: it stands alone. ERR_CONFLICT
 * checkpoint_order: number or time fell, a lane is missing, shorter, or has another record there.
 */
MUST_USE enum status ca_checkpoint_follows(const struct ca_checkpoint *last,
	const struct ca_checkpoint *next, struct err *err);

/* Builds the text of checked fields and signs it. ERR_ARGUMENT checkpoint_field. The caller frees *note. */
MUST_USE enum status ca_checkpoint_sign(const struct ca_checkpoint_key *key,
	const struct ca_checkpoint *checkpoint, struct bytes *note, struct err *err);
/*
 * Verifies a note and reads it. ERR_ARGUMENT checkpoint_malformed: not our text, octet for octet;
 * ERR_DENIED checkpoint_key: signed with another key; ERR_DENIED checkpoint_forged: the signature does
 * not hold.
 */
MUST_USE enum status ca_checkpoint_open(struct ca_checkpoint *out, struct view note,
	const uint8_t public_key[CA_CHECKPOINT_KEY_BYTES], struct err *err);
/* SHA-256 of a note's text: the next one's `previous`. */
void ca_checkpoint_text_sha256(uint8_t out[32], struct view note);
/* Takes the next note off what may hold several, one behind the other. False: there is none. */
bool ca_checkpoint_take(struct view *rest, struct view *note);

#endif
