#include "base/pile.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

/* What is written to a file at once. */
#define BLOCK_BYTES ((size_t)64 << 10)

void
pile_init(struct pile *pile, const char *dir, size_t memory_max_bytes)
{
	*pile = (struct pile){ .dir = dir, .memory_max_bytes = memory_max_bytes, .fd = -1 };
	pile->buf.limit_bytes = memory_max_bytes > BLOCK_BYTES ? memory_max_bytes : BLOCK_BYTES;
}

void
pile_free(struct pile *pile)
{
	if (pile->fd >= 0)
		(void)close(pile->fd);
	if (pile->path != NULL)
		(void)unlink(pile->path);
	mem_free(pile->path);
	buf_free(&pile->buf);
	*pile = (struct pile){ .fd = -1 };
}

static enum status
failed(struct err *err, const char *code, const char *path, int number)
{
	return err_set(err, ERR_UNAVAILABLE, code, "%s: %s", path, strerror(number));
}

/* A file with a name of its own, which only pile_keep gives away. */
static int
named_file(struct pile *pile)
{
	char path[PILE_PATH_BYTES];
	int len = snprintf(path, sizeof(path), "%s/" PILE_PREFIX "XXXXXX", pile->dir);
	int fd;

	if (len < 0 || (size_t)len >= sizeof(path)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0)
		return -1;
	(void)fchmod(fd, 0644);
	pile->path = mem_strdup(path);
	if (pile->path != NULL)
		return fd;
	(void)unlink(path);
	(void)close(fd);
	errno = ENOMEM;
	return -1;
}

static bool
write_all(int fd, const uint8_t *data, size_t len, uint64_t at)
{
	while (len > 0) { /* each turn writes */
		ssize_t wrote = pwrite(fd, data, len, (off_t)at);

		if (wrote < 0 && errno == EINTR)
			continue;
		if (wrote <= 0)
			return false;
		data += wrote;
		at += (uint64_t)wrote;
		len -= (size_t)wrote;
	}
	return true;
}

static bool
copy_file(int to, int from, uint64_t len)
{
	uint8_t block[4096];

	for (uint64_t at = 0; at < len;) {
		ssize_t got = pread(from, block, sizeof(block), (off_t)at);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0 || !write_all(to, block, (size_t)got, at))
			return false;
		at += (uint64_t)got;
	}
	return true;
}

/* The directory does not take it (any more): what was written moves into the kernel's memory. */
static enum status
leave_directory(struct pile *pile, struct err *err)
{
	int refused = errno;
	int fd = memfd_create("pile", MFD_CLOEXEC);

	if (fd < 0 || !copy_file(fd, pile->fd, pile->written_bytes)) {
		(void)failed(err, "pile_write", pile->dir, refused);
		if (fd >= 0)
			(void)close(fd);
		return err->status;
	}
	if (pile->fd >= 0)
		(void)close(pile->fd);
	if (pile->path != NULL)
		(void)unlink(pile->path);
	mem_free(pile->path);
	pile->path = NULL;
	pile->fd = fd;
	pile->refused = refused;
	return OK;
}

static enum status
write_out(struct pile *pile, struct err *err)
{
	if (pile->fd < 0 && (pile->fd = named_file(pile)) < 0)
		TRY(leave_directory(pile, err));
	while (!write_all(pile->fd, pile->buf.data, pile->buf.len, pile->written_bytes)) {
		if (pile->refused != 0)
			return failed(err, "pile_write", pile->dir, errno);
		TRY(leave_directory(pile, err)); /* once: it sets refused */
	}
	pile->written_bytes += pile->buf.len;
	pile->buf.len = 0;
	return OK;
}

enum status
pile_add(struct pile *pile, const void *data, size_t len, struct err *err)
{
	const uint8_t *from = data;

	while (len > 0) { /* each turn takes octets */
		size_t room = (pile->fd < 0 ? pile->memory_max_bytes : BLOCK_BYTES);
		size_t now;

		if (pile->buf.len >= room) {
			TRY(write_out(pile, err));
			continue;
		}
		now = room - pile->buf.len < len ? room - pile->buf.len : len;
		TRY(buf_add(&pile->buf, from, now, err));
		from += now;
		len -= now;
	}
	return OK;
}

enum status
pile_close(struct pile *pile, struct err *err)
{
	if (pile->fd < 0)
		return OK;
	TRY(write_out(pile, err));
	buf_free(&pile->buf);
	return OK;
}

enum status
pile_read(const struct pile *pile, uint64_t at, void *out, size_t len, struct err *err)
{
	uint8_t *to = out;

	if (at > pile_len(pile) || len > pile_len(pile) - at)
		return err_set(err, ERR_UNAVAILABLE, "pile_read", "octets past the end are asked for");
	if (pile->fd < 0) {
		if (len > 0)
			memcpy(to, pile->buf.data + at, len);
		return OK;
	}
	assert(at + len <= pile->written_bytes); /* closed, or ready */
	while (len > 0) { /* each turn reads */
		ssize_t got = pread(pile->fd, to, len, (off_t)at);

		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return failed(err, "pile_read", "file", got < 0 ? errno : EIO);
		to += got;
		at += (uint64_t)got;
		len -= (size_t)got;
	}
	return OK;
}

enum status
pile_keep(struct pile *pile, const char *path, struct err *err)
{
	if (pile->refused != 0)
		return failed(err, "pile_keep", path, pile->refused);
	if (pile->fd < 0) { /* in memory; what is served stays there, and the file is a copy */
		own_struct(pile) copy = { .fd = -1 };

		pile_init(&copy, pile->dir, 0);
		TRY(pile_add(&copy, pile->buf.data, pile->buf.len, err));
		TRY(write_out(&copy, err)); /* the last block, or a file of no octets */
		return pile_keep(&copy, path, err);
	}
	if (pile->path == NULL || rename(pile->path, path) != 0)
		return failed(err, "pile_keep", path, pile->path == NULL ? EEXIST : errno);
	mem_free(pile->path);
	pile->path = NULL;
	return OK;
}

/* A file of few octets is read, and closed. */
static enum status
take_in(struct pile *pile, struct err *err)
{
	size_t len = (size_t)pile->written_bytes;
	own_struct(buf) all = { .limit_bytes = pile->buf.limit_bytes };

	if (len > 0) {
		TRY(buf_reserve(&all, len, err));
		TRY(pile_read(pile, 0, all.data, len, err));
	}
	all.len = len;
	(void)close(pile->fd);
	pile->fd = -1;
	pile->written_bytes = 0;
	pile->buf = all;
	all = (struct buf){ .limit_bytes = 0 };
	return OK;
}

enum status
pile_open(struct pile *pile, const char *path, size_t memory_max_bytes, struct err *err)
{
	struct stat found;

	pile_init(pile, "", memory_max_bytes);
	pile->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (pile->fd < 0 || fstat(pile->fd, &found) != 0)
		return failed(err, "pile_read", path, errno);
	if (!S_ISREG(found.st_mode))
		return failed(err, "pile_read", path, EINVAL);
	pile->written_bytes = (uint64_t)found.st_size;
	return pile->written_bytes <= memory_max_bytes ? take_in(pile, err) : OK;
}
