/*
 * server/iotcore/plugin/tls.h - which client certificates get through the broker's TLS, and what
 * stands in them. The only file of the plugin that knows OpenSSL.
 *
 * Mosquitto cannot take CAs on while it runs, nor trust an issuing CA without its root. But it
 * shares its OpenSSL with us: a callback at each new SSL object of the broker's thread puts our own
 * verification in the place of OpenSSL's, and turns resumption off, which would skip it. Then a
 * certificate gets through
 *   - when its SHA-256 is in the registry (whatever its status: BASIC_AUTH decides on that), it is
 * within its validity and, if it restricts its use, meant for TLS clients; no CA is asked for, as
 * in AWS IoT, where deactivating a CA leaves what it issued alone;
 *   - or when a registered CA that is ACTIVE with auto-registration directly issued it, by X.509's
 * whole rules (RFC 5280 6.1, that CA being the anchor, also when it is no root), RSA of 2048 bits
 * at least. All others end in a TLS alert.
 *
 * Threads: the broker's only.
 */
#ifndef SERVER_IOTCORE_PLUGIN_TLS_H
#define SERVER_IOTCORE_PLUGIN_TLS_H

#include "base/attr.h"
#include "base/bytes.h"
#include "base/err.h"
#include "base/mem.h"
#include "server/iotcore/plugin/registry.h"

struct tls;

/*
 * From now on. Borrows registry, which must live until tls_end. key: random; strangers_per_s: how
 * many handshakes of one address may fail in a second. Once per process.
 */
MUST_USE enum status tls_begin(struct tls **out, struct registry *registry,
	const struct siphash_key *key, int64_t strangers_per_s, struct err *err);
void tls_end(struct tls *tls); /* NULL is welcome */

struct tls_stats {
	uint64_t unknown_ca, expired, bad_use, let_through, turned_away;
};
void tls_stats(const struct tls *tls, struct tls_stats *out);

/* A client's certificate, as the broker hands it out: an X509, which this takes and frees. */
struct tls_certificate;
/* NULL: x509 is, or it cannot be read. */
struct tls_certificate *tls_certificate(const struct tls *tls, void *x509);
void tls_certificate_free(struct tls_certificate *certificate); /* NULL is welcome */
typedef struct tls_certificate tls_certificate_own;             /* for own() */
OWNER(tls_certificate_own, tls_certificate_free)

const uint8_t *tls_certificate_id(
	const struct tls_certificate *certificate); /* REGISTRY_ID_BYTES */
/* The registered CA that issued it, as found at the handshake; NULL: it got through as a known one.
 */
const uint8_t *tls_certificate_ca(const struct tls_certificate *certificate);
/* Whether now_s is within its validity. */
bool tls_certificate_valid(const struct tls_certificate *certificate, int64_t now_s);
void tls_certificate_validity(
	const struct tls_certificate *certificate, int64_t *not_before_s, int64_t *not_after_s);
/* On OK the caller owns *out, with a NUL behind. */
MUST_USE enum status tls_certificate_pem(
	const struct tls_certificate *certificate, str **out, struct err *err);

/*
 * What policies may ask of it: names and values as policy_context wants them. One block, freed with
 * mem_free(*out).
 */
MUST_USE enum status tls_certificate_pairs(const struct tls_certificate *certificate,
	struct policy_pair **out, size_t *count, struct err *err);

#endif
