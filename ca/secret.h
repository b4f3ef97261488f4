/*
 * ca/secret.h - keys, tokens, passphrases: locked memory, wiped when freed, compared in constant time,
 * unknown to the log. Memory comes from sodium_malloc: guard pages, mlock, not in core dumps.
 */
#ifndef CA_SECRET_H
#define CA_SECRET_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

struct secret {
	uint8_t *data;
	size_t len;
};

/* Once, before anything else of this room: sodium_init and OpenSSL's set-up. Safe to repeat. */
MUST_USE enum status ca_init(struct err *err);

MUST_USE enum status secret_new(struct secret *out, size_t len, struct err *err); /* zeroed */
MUST_USE enum status secret_copy(struct secret *out, struct view from, struct err *err);
void secret_free(struct secret *secret); /* wipes; may run twice */
OWNER_STRUCT(secret, secret_free)
/* Between uses: no access at all, until shown again. Before secret_free it may be either. */
void secret_hide(struct secret *secret);
void secret_show(struct secret *secret);
bool secret_equal(struct view a, struct view b); /* constant time for equal lengths */

/*
 * Reads a whole file of at most limit bytes, without a trailing newline. ERR_DENIED
 * (secret_file_mode): readable by group or others; ERR_NOT_FOUND (secret_file).
 */
MUST_USE enum status secret_read_file(struct secret *out, const char *path, size_t limit,
	struct err *err);
/* Writes a new file of mode 0600 (O_EXCL, fsync). ERR_CONFLICT (file_exists). */
MUST_USE enum status secret_write_file(struct view content, const char *path, struct err *err);

/* A new bearer token: "jrt_" and 43 characters of base64url over 32 random octets, and NUL. */
#define TOKEN_TEXT_BYTES 48
MUST_USE enum status token_draw(char out[TOKEN_TEXT_BYTES], struct err *err);

#endif
