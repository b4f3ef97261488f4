/*
 * server/spool.h - an answer of unknown length, written to an unlinked file first: memory does not grow
 * with it, and nothing is sent before all of it is known to be right. One thread.
 */
#ifndef SERVER_SPOOL_H
#define SERVER_SPOOL_H

#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

struct spool {
	int fd; /* -1: not open */
	uint64_t size_bytes;
	uint8_t octets[16 * 1024];
	size_t len;
};

/* In TMPDIR, /var/tmp or /tmp, whichever takes it first. ERR_UNAVAILABLE spool. */
MUST_USE enum status spool_open(struct spool *spool, struct err *err);
MUST_USE enum status spool_write(struct spool *spool, const char *text, struct err *err);
/* Writes what is buffered and gives the file up to the caller. */
MUST_USE enum status spool_finish(struct spool *spool, int *fd, struct err *err);
void spool_close(struct spool *spool); /* may run twice */
OWNER_STRUCT(spool, spool_close)

#endif
