/*
 * base/pile.h - octets that are appended one after the other and then read anywhere: in memory while
 * they are few, in a file once they are many, so that fifty million of them take no more memory than
 * fifty thousand. Where the directory refuses (room, rights) they lie in a file of the kernel's memory
 * instead, and pile_keep says why they cannot stay.
 *
 * Threads: one appends; once pile_close was called any number may read.
 */
#ifndef BASE_PILE_H
#define BASE_PILE_H

#include "base/bytes.h"

#define PILE_PATH_BYTES 4096
/* Files that were being made when the program ended have names that begin so. */
#define PILE_PREFIX ".pile-"

struct pile {
	const char *dir; /* borrowed */
	size_t memory_max_bytes;
	struct buf buf;  /* all of it while fd is -1; then what is not written yet */
	int fd;
	int refused;     /* errno of the directory; 0: it took the file */
	uint64_t written_bytes;
	char *path;      /* of a file that has no name of its own yet; NULL: none */
};

/* Never fails; makes nothing yet. dir is for more than memory_max_bytes. */
void pile_init(struct pile *pile, const char *dir, size_t memory_max_bytes);
void pile_free(struct pile *pile); /* a file without a name of its own goes with it; may run twice */
OWNER_STRUCT(pile, pile_free)

/* ERR_UNAVAILABLE pile_write: neither the directory nor memory takes it. */
MUST_USE enum status pile_add(struct pile *pile, const void *data, size_t len, struct err *err);
/* Nothing is appended any more. */
MUST_USE enum status pile_close(struct pile *pile, struct err *err);

static inline uint64_t
pile_len(const struct pile *pile)
{
	return pile->written_bytes + pile->buf.len;
}

/* How many octets can be read already, though more are appended by the same thread. */
static inline uint64_t
pile_ready(const struct pile *pile)
{
	return pile->fd < 0 ? 0 : pile->written_bytes;
}

/* Exactly len octets from at, of a closed pile or among those that are ready; ERR_UNAVAILABLE pile_read. */
MUST_USE enum status pile_read(const struct pile *pile, uint64_t at, void *out, size_t len,
	struct err *err);

/*
 * Gives a closed pile its name, in the place of what was there: a reader of the path finds the old
 * octets or these, whole. Not made sure to be on the disk. ERR_UNAVAILABLE pile_keep; the pile can be
 * read all the same.
 */
MUST_USE enum status pile_keep(struct pile *pile, const char *path, struct err *err);

/* Reads a file as a closed pile; it keeps its name. ERR_UNAVAILABLE pile_read. */
MUST_USE enum status pile_open(struct pile *pile, const char *path, size_t memory_max_bytes,
	struct err *err);

#endif
