/*
 * ca/keystore.h - CA keys and certificates on disk, and the ceremonies that make them.
 *
 *   DIR/seal.params           Argon2id parameters, salt, check value: KEY=VALUE lines (public)
 *   DIR/<ca_id>.crt           the CA's certificate, PEM
 *   DIR/<ca_id>.chain.crt     its issuers, nearest first, the root last, PEM (not for a root)
 *   DIR/<ca_id>.cross.pem     of a root: its cross-certificate and the older root that signed it, PEM
 *   DIR/<ca_id>.key           the sealed private key (absent: kept elsewhere)
 *   DIR/<ca_id>.csr           of an issuing CA that waits for a company's own root
 *   DIR/audit_checkpoint.pub  the public key of the audit log's checkpoints, PEM (ca/checkpoint.h)
 *   DIR/audit_checkpoint.key  its private half, sealed; no ca_id has an underscore
 *
 * A key is sealed with XChaCha20-Poly1305 under the key-encryption key, which Argon2id makes from the
 * passphrase once; the ca_id and the SPKI are authenticated with it. Unsealed keys live in OpenSSL's
 * secure heap (ca_secure_heap_init before the first).
 */
#ifndef CA_KEYSTORE_H
#define CA_KEYSTORE_H

#include "base/clock.h"
#include "base/entropy.h"
#include "base/err.h"
#include "ca/checkpoint.h"
#include "ca/key.h"
#include "ca/profile.h"
#include "ca/secret.h"

#define CA_KEK_BYTES 32

struct ca_keystore;

/* OpenSSL's secure heap, locked; ERR_UNAVAILABLE secure_heap when RLIMIT_MEMLOCK is too low. */
MUST_USE enum status ca_secure_heap_init(struct err *err);

/* The key-encryption key from the passphrase: takes half a second and 256 MiB (Argon2id, moderate).
 * ERR_NOT_FOUND keystore_absent; ERR_DENIED passphrase_wrong (seal.params holds a check value). */
MUST_USE enum status ca_keystore_kek(struct secret *kek, const char *dir, struct view passphrase,
	struct err *err);

/* Opens all CAs of DIR, with the keys that are there. The caller frees *out. Errors name the file. */
MUST_USE enum status ca_keystore_open(struct ca_keystore **out, const char *dir, struct view kek,
	struct err *err);
void ca_keystore_free(struct ca_keystore *keystore); /* NULL is welcome */
typedef struct ca_keystore ca_keystore;
OWNER(ca_keystore, ca_keystore_free)

#define CA_CHAIN_MAX 8

/* One CA of the store; all of it lives as long as the store. */
struct ca_keystore_entry {
	char ca_id[CA_ID_BYTES];
	bool is_root;             /* self-signed */
	struct bytes certificate; /* DER */
	struct bytes chain[CA_CHAIN_MAX]; /* issuers, DER, nearest first, the root last */
	size_t chain_count;       /* 0 for a root */
	struct ca_key *key;       /* NULL: kept elsewhere. For other threads: ca_key_dup */
};
/* In the order of ca_id. A CA that only waits for its certificate (.csr) is not among them. */
size_t ca_keystore_count(const struct ca_keystore *keystore);
const struct ca_keystore_entry *ca_keystore_at(const struct ca_keystore *keystore, size_t index);
/* NULL: the store has none. Lives as long as the store; without a KEK only its public half is known. */
const struct ca_checkpoint_key *ca_keystore_checkpoint_key(const struct ca_keystore *keystore);

/*
 * Ceremonies. Each writes whole files that were not there before, the certificate last, and takes back
 * what it wrote when it fails. One that is killed may leave a .key without a .crt, which the next one
 * reports (file_exists) and does not touch. Their errors: ERR_ARGUMENT ceremony_* names the field;
 * ERR_CONFLICT file_exists, ceremony_subject (make_issuing: another CA of DIR has it); ERR_DENIED
 * passphrase_wrong, for a DIR that has a passphrase already.
 */
struct ca_ceremony {
	const char *dir;            /* made with mode 0700 when absent */
	struct view passphrase;     /* at least 8 octets */
	enum ca_key_type key_type;
	const char *organization;   /* subject O; NULL: none */
	const char *common_name;    /* NULL: "<organization> Root CA" / "Issuing CA"; without
	                             * one "jitrca Root CA" / "jitrca Issuing CA <ca_id>" */
	const char *ca_id;          /* "root", "issuing-1": [a-z0-9-]{1,64} */
	int64_t validity_s;
	const char *public_http_url; /* kept for addresses in CA certificates; none yet, as no root's CRL
	                             * is served */
	const struct clock *clock;
	struct entropy *entropy;
	bool fast_seal;             /* insecure: hardly any Argon2id, for tests */
};
/* A self-signed root. key_path NULL: sealed into DIR; else sealed into that file, and needed again. */
MUST_USE enum status ca_keystore_make_root(const struct ca_ceremony *ceremony, const char *key_path,
	struct err *err);
/*
 * A root of DIR, the ceremony's ca_id, is certified by an older one of DIR ("new with old", RFC 4210 4.4):
 * who trusts only the older follows it to all that is issued under the new. Writes <ca_id>.cross.pem.
 */
MUST_USE enum status ca_keystore_make_cross(const struct ca_ceremony *ceremony, const char *old_root_id,
	const char *old_root_key_path, struct err *err);
/*
 * An issuing CA signed by DIR's root (pathLenConstraint 0; validity within the root's). Its chain goes by the
 * root's cross-certificate, if there is one, to the older root.
 */
MUST_USE enum status ca_keystore_make_issuing(const struct ca_ceremony *ceremony, const char *root_id,
	const char *root_key_path, struct err *err);
/* An issuing CA's key and CSR, to be signed elsewhere … */
MUST_USE enum status ca_keystore_make_csr(const struct ca_ceremony *ceremony, struct err *err);
/*
 * … and the answer with its chain (PEM, any order, up to a self-signed root): checked to be for our
 * key, a CA that may sign certificates and CRLs, valid, and chained. ERR_ARGUMENT import_* names what.
 */
MUST_USE enum status ca_keystore_import(const struct ca_ceremony *ceremony, struct view certificate_pem,
	struct view chain_pem, struct err *err);
/* The key of the audit log's checkpoints; of the ceremony only dir, passphrase and fast_seal count. */
MUST_USE enum status ca_keystore_make_checkpoint_key(const struct ca_ceremony *ceremony,
	struct err *err);
#define CA_CHECKPOINT_KEY_NAME "audit_checkpoint"

#endif
