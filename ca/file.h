/*
 * ca/file.h - small files of a key store: made whole or not at all, and read whole. Errors name the
 * file.
 */
#ifndef CA_FILE_H
#define CA_FILE_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/bytes.h"
#include "base/err.h"

struct fd {
	int fd; /* -1: none */
};
void fd_free(struct fd *fd);
OWNER_STRUCT(fd, fd_free)

#define FILE_PATH_BYTES 4096

/*
 * Makes a file of this mode with this content, on the disk when it returns. A half-written file is
 * never seen under its name. ERR_CONFLICT (file_exists) when there is one, which then stays as it is;
 * ERR_UNAVAILABLE (file_write).
 */
MUST_USE enum status file_create(const char *path, struct view content, mode_t mode, struct err *err);
/* ERR_NOT_FOUND (file_absent), ERR_TOO_LARGE (file_size), ERR_UNAVAILABLE (file_read). */
MUST_USE enum status file_read(struct bytes *out, const char *path, size_t limit, struct err *err);
bool file_exists(const char *path);
/* DIR/NAMESUFFIX; ERR_TOO_LARGE (path_too_long). */
MUST_USE enum status file_path(char out[FILE_PATH_BYTES], const char *dir, const char *name,
	const char *suffix, struct err *err);
/* Makes the directory with mode 0700 unless it is there. ERR_UNAVAILABLE (directory). */
MUST_USE enum status directory_make(const char *path, struct err *err);

#endif
