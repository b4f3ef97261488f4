#include "ca/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sodium.h>

void
fd_free(struct fd *fd)
{
	if (fd->fd >= 0)
		(void)close(fd->fd);
	fd->fd = -1;
}

static enum status
fault(struct err *err, const char *path, const char *doing)
{
	return err_set(err, ERR_UNAVAILABLE, "file_write", "%s: cannot %s: %s", path, doing,
		strerror(errno));
}

static bool
write_whole(int fd, struct view content)
{
	size_t done = 0;
	ssize_t wrote;

	while (done < content.len) {
		wrote = write(fd, content.data + done, content.len - done);
		if (wrote < 0 && errno != EINTR)
			return false;
		done += wrote > 0 ? (size_t)wrote : 0;
	}
	return true;
}

/* The folder that path lies in; "." for a bare name. */
static enum status
parent_of(char out[FILE_PATH_BYTES], const char *path, struct err *err)
{
	const char *slash = strrchr(path, '/');
	size_t len = slash == NULL ? 0 : (size_t)(slash - path);

	if (slash == NULL)
		return file_path(out, ".", "", "", err);
	if (len >= FILE_PATH_BYTES)
		return err_set(err, ERR_TOO_LARGE, "path_too_long", "%.80s…: path too long", path);
	memcpy(out, path, len);
	out[len] = '\0';
	if (len == 0)
		memcpy(out, "/", 2);
	return OK;
}

/* A name is only safe on the disk once its folder is. */
static enum status
sync_parent(const char *path, struct err *err)
{
	char parent[FILE_PATH_BYTES];

	TRY(parent_of(parent, path, err));
	own_struct(fd) dir = { open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC) };
	if (dir.fd < 0 || fsync(dir.fd) != 0)
		return fault(err, parent, "synchronise");
	return OK;
}

static enum status
fill(const char *temporary, const char *path, struct view content, mode_t mode, struct err *err)
{
	own_struct(fd) file = {
		open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600)
	};

	if (file.fd < 0)
		return fault(err, temporary, "make");
	if (!write_whole(file.fd, content) || fchmod(file.fd, mode) != 0 || fsync(file.fd) != 0)
		return fault(err, temporary, "write");
	/* link(2), for rename(2) would replace what is there. */
	if (link(temporary, path) != 0) {
		if (errno == EEXIST)
			return err_set(
				err, ERR_CONFLICT, "file_exists", "%s: exists already", path);
		return fault(err, path, "make");
	}
	return OK;
}

enum status
file_create(const char *path, struct view content, mode_t mode, struct err *err)
{
	char temporary[FILE_PATH_BYTES], suffix[32];
	enum status status;

	(void)snprintf(suffix, sizeof(suffix), ".new-%08x", (unsigned)randombytes_random());
	TRY(file_path(temporary, path, "", suffix, err));
	status = fill(temporary, path, content, mode, err);
	(void)unlink(temporary);
	if (status != OK)
		return status;
	status = sync_parent(path, err);
	if (status != OK)
		(void)unlink(path);
	return status;
}

enum status
file_read(struct bytes *out, const char *path, size_t limit, struct err *err)
{
	own_struct(fd) file = { open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK) };
	own_struct(buf) content = { .limit_bytes = limit };
	uint8_t piece[4096];
	struct stat st;
	ssize_t got;

	if (file.fd < 0 && errno == ENOENT)
		return err_set(err, ERR_NOT_FOUND, "file_absent", "%s: no such file", path);
	if (file.fd < 0 || fstat(file.fd, &st) != 0)
		return err_set(err, ERR_UNAVAILABLE, "file_read", "%s: %s", path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return err_set(
			err, ERR_UNAVAILABLE, "file_read", "%s: a regular file wanted", path);
	do {
		got = read(file.fd, piece, sizeof(piece));
		if (got < 0 && errno != EINTR)
			return err_set(err, ERR_UNAVAILABLE, "file_read", "%s: %s", path,
				strerror(errno));
		if (got > 0 && content.len + (size_t)got > limit)
			return err_set(err, ERR_TOO_LARGE, "file_size",
				"%s: at most %zu octets wanted", path, limit);
		if (got > 0)
			TRY(buf_add(&content, piece, (size_t)got, err));
	} while (got != 0);
	*out = buf_give(&content);
	return OK;
}

bool
file_exists(const char *path)
{
	struct stat st;

	return lstat(path, &st) == 0;
}

enum status
file_path(char out[FILE_PATH_BYTES], const char *dir, const char *name, const char *suffix,
	struct err *err)
{
	int len = snprintf(
		out, FILE_PATH_BYTES, "%s%s%s%s", dir, *name != '\0' ? "/" : "", name, suffix);

	if (len < 0 || len >= FILE_PATH_BYTES)
		return err_set(err, ERR_TOO_LARGE, "path_too_long", "%.80s…: path too long", dir);
	return OK;
}

enum status
directory_make(const char *path, struct err *err)
{
	struct stat st;

	if (mkdir(path, 0700) == 0)
		return sync_parent(path, err);
	if (errno != EEXIST || stat(path, &st) != 0 || !S_ISDIR(st.st_mode))
		return err_set(err, ERR_UNAVAILABLE, "directory",
			"%s: cannot make the directory: %s", path, strerror(errno));
	return OK;
}
