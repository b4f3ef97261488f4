/*
 * server/protocol/ocsp_cache.h - signed OCSP answers in memory, by CertID: issuer, serial and hash
 * algorithm, as the client wrote them. Bounded in octets; what was not asked for longest goes first.
 *
 * An answer about a serial must not outlive a change of it. Changes are heard of (ocsp_cache_forget), but
 * an answer may be on its way into the cache just then. So: take the mark, then read the row, then put
 * with that mark; what was forgotten in between is not kept. Whether a cache may be believed at all is
 * server/freshness.h's to say.
 *
 * Threads: all functions from any.
 */
#ifndef SERVER_PROTOCOL_OCSP_CACHE_H
#define SERVER_PROTOCOL_OCSP_CACHE_H

#include <stdatomic.h>

#include "ca/ocsp.h"
#include "db/db.h"
#include "server/protocol/caching.h"

/* An OCSPResponse about one certificate. Does not change; counted, for it is sent while it is replaced. */
struct ocsp_answer {
	atomic_uint references;
	enum ca_ocsp_status status;
	int64_t next_update_s;
	int64_t use_until_s; /* made anew from then on, while the old one is still good */
	char etag[2 * 16 + 3];
	char last_modified[HTTP_DATE_BYTES], expires[HTTP_DATE_BYTES];
	struct db_cert_ref ref;
	size_t id_len, len;
	uint8_t octets[]; /* CertID, then the response */
};

/* With one reference. id may be empty: not for the cache. */
MUST_USE enum status ocsp_answer_new(struct ocsp_answer **out, struct view id, struct view response,
	struct err *err);
static inline struct view
ocsp_answer_response(const struct ocsp_answer *answer)
{
	return (struct view){ answer->octets + answer->id_len, answer->len };
}
void ocsp_answer_drop(void *answer); /* NULL is welcome */

struct ocsp_cache;
MUST_USE enum status ocsp_cache_new(struct ocsp_cache **out, size_t bytes_max, struct err *err);
void ocsp_cache_free(struct ocsp_cache *cache);

/* A reference to the answer to that CertID if it may still be used at now_s; NULL: none. */
struct ocsp_answer *ocsp_cache_get(struct ocsp_cache *cache, const struct ca_ocsp_id *id,
	int64_t now_s);
uint64_t ocsp_cache_mark(struct ocsp_cache *cache, const struct serial *serial);
/* Keeps answer (and a reference to it) in place of what was there. */
void ocsp_cache_put(struct ocsp_cache *cache, struct ocsp_answer *answer, uint64_t mark);
void ocsp_cache_forget(struct ocsp_cache *cache, const struct db_cert_ref *ref);
void ocsp_cache_clear(struct ocsp_cache *cache);

struct ocsp_cache_stats {
	uint64_t entries, bytes, evicted;
};
void ocsp_cache_stats(struct ocsp_cache *cache, struct ocsp_cache_stats *out);

#endif
